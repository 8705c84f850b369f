//! The node as a client of its cluster: the client library's core, which opens sessions, finds the primary, and sends a
//! request again, under its one number, until it is answered.
//!
//! Its connections are Maelstrom's network, on which messages are lost and overtake each other, but do not come twice. The
//! core asks for less than a stream: what is lost it sends again, and an answer is known by client, session and number. That
//! nothing comes twice is what makes "not taken" definite: of a request that was sent once, one replica says so once.

use crate::message::{Body, Caller};
use crate::request::{Encoded, Request, failed};
use std::collections::HashMap;
use storage::header::Header;
use viewstone::client::core::{Core, CoreOptions, Output};
use zerocopy::IntoBytes;

/// Sessions of a node: writes that it has under way at a time. All nodes' must fit the cluster's, and those of the earlier
/// lives of nodes that were killed.
const SESSIONS_MAX: usize = 16;

/// Requests that a node holds; more are refused.
const CALLS_MAX: usize = 1024;

/// Reads under way.
const READS_MAX: usize = 64;

/// What is to be done.
#[derive(Debug)]
pub enum Wish {
    /// Send this to a replica.
    Send(u8, Vec<u8>),
    /// Tell a caller the outcome.
    Answer(Caller, Body),
}

/// See the module's description.
#[derive(Debug)]
pub struct Sessions {
    core: Core,
    calls: HashMap<u64, (Caller, Request)>,
    next_tag: u64,
    deadline_ns: u64,
}

impl Sessions {
    /// Of a node of this cluster. A request that is not answered after `deadline_ns` is given up.
    pub fn new(cluster: u128, replicas: u8, deadline_ns: u64, seed: [u8; 32]) -> Self {
        Self {
            core: Core::new(CoreOptions {
                cluster,
                addresses: replicas.into(),
                sessions_max: SESSIONS_MAX,
                calls_max: CALLS_MAX,
                reads_max: READS_MAX,
                seed,
            }),
            calls: HashMap::new(),
            next_tag: 0,
            deadline_ns,
        }
    }

    /// When [`Sessions::advance`] is wanted.
    pub fn due_ns(&self) -> u64 {
        self.core.deadline_ns()
    }

    /// Time has passed.
    pub fn advance(&mut self, now_ns: u64) {
        self.core.advance(now_ns);
    }

    /// Begins a request. The answer, if there is one already.
    pub fn begin(&mut self, now_ns: u64, caller: Caller, request: Request) -> Option<Wish> {
        let Encoded {
            kind,
            operation,
            body,
        } = request.encode();
        let (tag, deadline_ns) = (self.next_tag, now_ns + self.deadline_ns);
        self.next_tag += 1;
        let begun = self
            .core
            .submit(now_ns, kind, operation, &body, deadline_ns, tag);
        if let Err(not_sent) = begun {
            return Some(Wish::Answer(caller, failed(&not_sent.into())));
        }
        self.calls.insert(tag, (caller, request));
        None
    }

    /// A replica has answered; the message was checked.
    pub fn receive(&mut self, now_ns: u64, from: u8, header: &Header, body: &[u8]) {
        self.core.on_message(now_ns, from.into(), header, body);
    }

    /// The next thing to do.
    pub fn poll(&mut self, now_ns: u64) -> Option<Wish> {
        loop {
            let wish = match self.core.poll()? {
                // There is nothing to connect; nor does anything tell that a connection has ended.
                Output::Connect(replica) => {
                    self.core.on_connected(now_ns, replica);
                    continue;
                }
                Output::Disconnect(_) => continue,
                Output::Send { to, header, body } => {
                    let mut bytes = header.as_bytes().to_vec();
                    bytes.extend_from_slice(body);
                    Wish::Send(to as u8, bytes)
                }
                Output::Done { tag, result } => {
                    let call = self.calls.remove(&tag);
                    let (caller, request) = call.expect("a call ends once");
                    let answer = match result {
                        Ok(reply) => request.answer(reply.body),
                        Err(error) => failed(&error),
                    };
                    Wish::Answer(caller, answer)
                }
            };
            return Some(wish);
        }
    }
}
