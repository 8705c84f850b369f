//! A replica of a cluster of one, in a thread, for tests of clients: it answers as the protocol demands, executes a
//! write once however often it comes, and misbehaves where a test asks for it.

#![allow(dead_code)] // each test file uses a part

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use storage::header::{
    Command, HEADER_SIZE, Header, PingClient, PongClient, ReplicaStatus, Reply, Request, SubHeader,
    Typed,
};
use viewstone::client::REGISTER;
use zerocopy::{FromBytes, IntoBytes};

pub const CLUSTER: u128 = 99;

/// Executes an operation: number and body to answer.
pub type Machine = Box<dyn FnMut(u16, &[u8]) -> Vec<u8> + Send>;

#[derive(Default)]
struct Session {
    number: u64,
    /// The last request executed, and its answer.
    request: u32,
    answer: Vec<u8>,
}

/// The replica.
pub struct Responder {
    pub cluster: u128,
    machine: Mutex<Machine>,
    /// By client id.
    sessions: Mutex<HashMap<u128, Session>>,
    pub op: AtomicU64,
    pub executed: AtomicU64,
    pub connections: AtomicU64,
    /// Close each connection after this many requests, without answering the last. Zero: never.
    pub break_after: u64,
    /// Take requests and answer none of them.
    pub mute: AtomicBool,
}

impl Responder {
    /// One whose machine answers a request with its bytes.
    pub fn echo() -> Self {
        Self::new(Box::new(|_, body| body.to_vec()))
    }

    pub fn new(machine: Machine) -> Self {
        Self {
            cluster: CLUSTER,
            machine: Mutex::new(machine),
            sessions: Mutex::default(),
            op: AtomicU64::new(0),
            executed: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            break_after: 0,
            mute: AtomicBool::new(false),
        }
    }

    pub fn sessions(&self) -> usize {
        self.sessions.lock().expect("nobody panics here").len()
    }

    pub fn start(self) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let this = Arc::new(self);
        let server = Arc::clone(&this);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = Arc::clone(&server);
                thread::spawn(move || server.serve(stream));
            }
        });
        (this, address)
    }

    fn serve(&self, mut stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let _ = stream.set_nodelay(true);
        let mut requests = 0;
        let mut bytes = [0; HEADER_SIZE];
        while stream.read_exact(&mut bytes).is_ok() {
            let header = Header::read_from_bytes(&bytes).expect("256 bytes");
            let command = header
                .check(self.cluster, 1 << 20)
                .expect("a client sends whole headers");
            let mut body = vec![0; header.body_size()];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            header
                .check_body(&body)
                .expect("a client sends whole bodies");
            let answer = match command {
                Command::PingClient => pong(self.cluster, header.typed::<PingClient>()),
                Command::Request => {
                    requests += 1;
                    let answer = self.execute(header.typed::<Request>(), &body);
                    if requests == self.break_after {
                        return; // executed, but the client does not hear of it
                    }
                    answer
                }
                other => panic!("a client sent {other:?}"),
            };
            if answer.is_empty() {
                continue;
            }
            // In two pieces: the client must put them together.
            let (head, tail) = answer.split_at(answer.len() - 3);
            if stream.write_all(head).is_err() || stream.write_all(tail).is_err() {
                return;
            }
        }
    }

    fn execute(&self, request: &Request, body: &[u8]) -> Vec<u8> {
        let sub = SubHeader::read_from_bytes(&body[..48]).expect("48 bytes");
        assert_eq!((sub.client, sub.request), (request.client, request.request));
        let bytes = &body[48..48 + sub.size as usize];
        let mut reply = Reply::new(self.cluster, 0, 0);
        reply.client = sub.client;
        reply.request = sub.request;
        reply.operation = sub.operation;
        reply.session = sub.session;
        let machine = |operation| {
            let mut machine = self.machine.lock().expect("nobody panics here");
            machine(operation, bytes)
        };
        let mut sessions = self.sessions.lock().expect("nobody panics here");
        let answer = if sub.operation == REGISTER {
            let next = sessions.len() as u64 + 1;
            let new = Session {
                number: next,
                ..Session::default()
            };
            reply.session = sessions.entry(sub.client).or_insert(new).number;
            Vec::new()
        } else if self.mute.load(Ordering::Relaxed) {
            return Vec::new();
        } else if sub.session == 0 {
            machine(sub.operation)
        } else {
            let session = sessions.get_mut(&sub.client).expect("it has registered");
            assert_eq!(session.number, sub.session);
            assert!(
                sub.request >= session.request,
                "a client goes back in its numbers"
            );
            if sub.request > session.request {
                self.executed.fetch_add(1, Ordering::Relaxed);
                reply.op = self.op.fetch_add(1, Ordering::Relaxed) + 1;
                session.request = sub.request;
                session.answer = machine(sub.operation);
            }
            session.answer.clone()
        };
        drop(sessions);
        message(reply, &answer)
    }
}

fn pong(cluster: u128, ping: &PingClient) -> Vec<u8> {
    let mut pong = PongClient::new(cluster, 0, 0);
    pong.client = ping.client;
    pong.nonce = ping.nonce;
    pong.replica_count = 1;
    pong.status = ReplicaStatus::Normal as u8;
    pong.message_size_max = 1 << 20;
    message(pong, &[])
}

fn message<T: Typed>(typed: T, body: &[u8]) -> Vec<u8> {
    let mut header = Header::read_from_bytes(typed.as_bytes()).expect("256 bytes");
    header.frame.size += body.len() as u32;
    header.seal(body);
    [header.as_bytes(), body].concat()
}

/// What the machine allows: as a default geometry does.
pub fn limits() -> viewstone::state_machine::Limits {
    viewstone::state_machine::Limits::new(&storage::layout::Geometry::DEFAULT)
}
