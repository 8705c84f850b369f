//! The threaded client against a small replica of its own: real sockets on a port the system chooses.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use storage::header::{
    Command, HEADER_SIZE, Header, PingClient, PongClient, ReplicaStatus, Reply, Request, SubHeader,
    Typed,
};
use viewstone::client::{CallError, Client, ClientOptions, Definite, Kind, NotSent, REGISTER};
use zerocopy::{FromBytes, IntoBytes};

const CLUSTER: u128 = 99;
const ECHO_WRITE: u16 = 0x0101;
const ECHO_READ: u16 = 0x0102;

struct Session {
    number: u64,
    /// The last request executed, and its answer.
    request: u32,
    answer: Vec<u8>,
}

/// A replica of a cluster of one, which answers a request with its bytes; it executes a write once, however often it
/// comes.
#[derive(Default)]
struct Responder {
    /// By client id.
    sessions: Mutex<HashMap<u128, Session>>,
    executed: AtomicU64,
    connections: AtomicU64,
    /// Close each connection after this many requests, without answering the last. Zero: never.
    break_after: u64,
    /// Take requests and answer none of them.
    mute: AtomicBool,
}

impl Responder {
    fn start(self) -> (Arc<Self>, SocketAddr) {
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
                .check(CLUSTER, 1 << 20)
                .expect("a client sends whole headers");
            let mut body = vec![0; header.body_size()];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            header
                .check_body(&body)
                .expect("a client sends whole bodies");
            let answer = match command {
                Command::PingClient => pong(header.typed::<PingClient>()),
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
        let mut reply = Reply::new(CLUSTER, 0, 0);
        reply.client = sub.client;
        reply.request = sub.request;
        reply.operation = sub.operation;
        reply.session = sub.session;
        let mut sessions = self.sessions.lock().expect("nobody panics here");
        let answer = if sub.operation == REGISTER {
            let next = sessions.len() as u64 + 1;
            let new = Session {
                number: next,
                request: 0,
                answer: Vec::new(),
            };
            reply.session = sessions.entry(sub.client).or_insert(new).number;
            Vec::new()
        } else if self.mute.load(Ordering::Relaxed) {
            return Vec::new();
        } else if sub.operation == ECHO_READ {
            assert_eq!(sub.session, 0);
            bytes.to_vec()
        } else {
            let session = sessions.get_mut(&sub.client).expect("it has registered");
            assert_eq!(session.number, sub.session);
            assert!(
                sub.request >= session.request,
                "a client goes back in its numbers"
            );
            if sub.request > session.request {
                self.executed.fetch_add(1, Ordering::Relaxed);
                session.request = sub.request;
                session.answer = bytes.to_vec();
            }
            session.answer.clone()
        };
        drop(sessions);
        message(reply, &answer)
    }
}

fn pong(ping: &PingClient) -> Vec<u8> {
    let mut pong = PongClient::new(CLUSTER, 0, 0);
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

fn client(address: SocketAddr, sessions: usize) -> Client {
    let mut options = ClientOptions::new(CLUSTER, [address.to_string()]);
    options.sessions = sessions;
    options.deadline = Duration::from_mins(1);
    Client::connect(&options).expect("the options make sense")
}

#[test]
fn a_call_is_answered() {
    let (_, address) = Responder::default().start();
    let client = client(address, 4);
    assert_eq!(
        client.write(ECHO_WRITE, b"one").expect("an answer").body,
        b"one"
    );
    assert_eq!(
        client.read(ECHO_READ, b"two").expect("an answer").body,
        b"two"
    );
    let large = vec![7; 900 << 10];
    assert_eq!(
        client.write(ECHO_WRITE, &large).expect("an answer").body,
        large
    );
    let huge = client
        .read(ECHO_READ, &vec![7; 1 << 20])
        .expect_err("too large");
    assert!(matches!(
        huge,
        CallError::Definite(Definite::TooLarge { .. })
    ));
}

#[test]
fn names_are_looked_up() {
    let (_, address) = Responder::default().start();
    // One of the two families has nobody listening: the other is tried.
    let addresses = [format!("localhost:{}", address.port())];
    let client = Client::connect(&ClientOptions::new(CLUSTER, addresses)).expect("it starts");
    assert_eq!(client.read(ECHO_READ, b"x").expect("an answer").body, b"x");
}

#[test]
fn a_thousand_calls_in_flight_take_one_connection_and_one_thread() {
    let (responder, address) = Responder::default().start();
    let client = Arc::new(client(address, 256));
    let deadline = Duration::from_mins(1);
    let calls: Vec<_> = (0..1000u32)
        .map(|n| {
            let (kind, operation) = if n % 3 == 0 {
                (Kind::Read, ECHO_READ)
            } else {
                (Kind::Write, ECHO_WRITE)
            };
            (
                n,
                client.submit(kind, operation, &n.to_le_bytes(), deadline),
            )
        })
        .collect();
    for (n, call) in calls {
        assert_eq!(call.wait().expect("an answer").body, n.to_le_bytes());
    }
    assert_eq!(responder.connections.load(Ordering::Relaxed), 1);
    assert!(responder.sessions.lock().expect("nobody panics").len() <= 256);
}

#[test]
fn lost_connections_are_not_noticed_and_nothing_is_done_twice() {
    let responder = Responder {
        break_after: 20,
        ..Responder::default()
    };
    let (responder, address) = responder.start();
    let client = client(address, 8);
    let deadline = Duration::from_mins(1);
    let submit = |n: u32| client.submit(Kind::Write, ECHO_WRITE, &n.to_le_bytes(), deadline);
    let calls: Vec<_> = (0..200).map(|n| (n, submit(n))).collect();
    for (n, call) in calls {
        assert_eq!(call.wait().expect("an answer").body, n.to_le_bytes());
    }
    assert_eq!(responder.executed.load(Ordering::Relaxed), 200);
    assert!(responder.connections.load(Ordering::Relaxed) >= 10);
}

#[test]
fn a_deadline_holds_and_an_unknown_outcome_can_be_settled() {
    let (responder, address) = Responder::default().start();
    let client = client(address, 1);
    client.write(ECHO_WRITE, b"first").expect("an answer");
    responder.mute.store(true, Ordering::Relaxed);
    let start = Instant::now();
    let call = client.submit(
        Kind::Write,
        ECHO_WRITE,
        b"second",
        Duration::from_millis(50),
    );
    let Err(CallError::Indeterminate(unknown)) = call.wait() else {
        panic!("it was sent and not answered")
    };
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(unknown.request, 2);
    responder.mute.store(false, Ordering::Relaxed);
    let reply = client.resolve(&unknown, Duration::from_mins(1)).wait();
    assert_eq!(reply.expect("an answer").body, b"second");
    assert_eq!(responder.executed.load(Ordering::Relaxed), 2);
}

#[test]
fn nobody_listening_means_not_sent_and_says_why() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.local_addr().expect("it is bound")
    };
    let client = client(address, 1);
    let call = client.submit(Kind::Write, ECHO_WRITE, b"x", Duration::from_millis(100));
    assert_eq!(call.wait(), Err(NotSent::Deadline.into()));
    let troubles = client.troubles();
    assert!(troubles[0].1.contains("refused"), "{troubles:?}");
}

#[test]
fn dropping_a_client_ends_its_calls() {
    let (responder, address) = Responder::default().start();
    responder.mute.store(true, Ordering::Relaxed);
    let client = client(address, 1);
    let call = client.submit(Kind::Read, ECHO_READ, b"x", Duration::from_mins(10));
    drop(client);
    assert!(call.wait().is_err());
}
