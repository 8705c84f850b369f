//! The second execution of the history: sessions and at-most-once in plain std collections, machines by the workload's
//! model.

use crate::workload::Workload;
use std::collections::{BTreeMap, BTreeSet};
use storage::header::{Prepare, Reply, Status, SubRequest, sub_request};
use storage::layout::Geometry;
use viewstone::engine::{Engine, Executed as Outcome, SESSION_IDLE_MIN_NS, operation};
use viewstone::machines::Machines;
use viewstone::state_machine::{Context, Limits};
use zerocopy::IntoBytes;

/// The last write of a session, and how it was answered.
#[derive(Debug)]
struct Executed {
    request: u32,
    op: u64,
    timestamp: u64,
    status: Status,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Session {
    /// Op, index in its batch, and time of the last commit.
    committed: (u64, u32, u64),
    last: Option<Executed>,
    /// Ops that answered a register of this client: each names the session.
    registers: Vec<(u64, u32)>,
}

/// What was executed in another way than clients wish.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Refused {
    /// Copies of requests that had been executed.
    pub(super) copies: u64,
    /// Registrations that found every session in use.
    pub(super) sessions_full: u64,
    /// Sessions that made room for others.
    pub(super) evicted: u64,
    /// Writes without room, and parts of writes.
    pub(super) out_of_space: u64,
}

/// See the module's description.
pub(super) struct Shadow<W: Workload> {
    workload: W,
    /// All sessions there ever were, by client and number.
    sessions: BTreeMap<(u128, u64), Session>,
    /// The sessions there are.
    numbers: BTreeMap<u128, u64>,
    sessions_max: usize,
    session_last: u64,
    /// Registrations that found no session free, by client and op.
    full: BTreeSet<(u128, u64)>,
    /// Predicts which writes find no room: the engine itself, which executes everything once, in order, and never restarts.
    engine: Option<(Engine<W::Machines>, Limits)>,
    timestamp: u64,
    refused: Refused,
}

impl<W: Workload> Shadow<W> {
    pub(super) fn new(workload: W) -> Self {
        Self {
            workload,
            sessions: BTreeMap::new(),
            numbers: BTreeMap::new(),
            sessions_max: usize::MAX,
            session_last: 0,
            full: BTreeSet::new(),
            engine: None,
            timestamp: 0,
            refused: Refused::default(),
        }
    }

    /// There are so many sessions.
    pub(super) fn limit_sessions(&mut self, sessions_max: u32) {
        self.sessions_max = sessions_max as usize;
    }

    /// There may not be room for everything.
    pub(super) fn limit_space(&mut self, geometry: &Geometry) {
        self.engine = Some((Engine::new(geometry), Limits::new(geometry)));
    }

    pub(super) fn workload(&mut self) -> &mut W {
        &mut self.workload
    }

    pub(super) fn refused(&self) -> Refused {
        self.refused
    }

    /// Whether there is no such session any more.
    pub(super) fn is_gone(&self, client: u128, session: u64) -> bool {
        self.numbers.get(&client) != Some(&session)
    }

    /// Executes a batch.
    pub(super) fn execute(&mut self, prepare: &Prepare, body: &[u8]) {
        // Sub-headers are read in place, which needs their alignment.
        let mut aligned = vec![0u128; body.len().div_ceil(16)];
        aligned.as_mut_bytes()[..body.len()].copy_from_slice(body);
        let batch = &aligned.as_bytes()[..body.len()];
        let mut offset = 0;
        for index in 0..prepare.requests {
            let (request, next) = sub_request(batch, offset).expect("a prepare is well-formed");
            self.timestamp = prepare.timestamp + u64::from(index);
            self.request(prepare.op, index, request);
            offset = next;
        }
        assert_eq!(offset, batch.len());
    }

    fn request(&mut self, op: u64, index: u32, request: SubRequest<'_>) {
        let (status, refused) = self.predict(op, index, request);
        let header = request.header;
        if header.client == 0 {
            return;
        }
        if header.operation == operation::REGISTER {
            return self.register(op, index, header.client);
        }
        let key = (header.client, header.session);
        let gone = self.is_gone(key.0, key.1);
        let Some(session) = self.sessions.get_mut(&key).filter(|_| !gone) else {
            return; // evicted
        };
        let last = session.last.as_ref().map_or(0, |last| last.request);
        if header.request <= last {
            self.refused.copies += 1;
            return;
        }
        let context = Context {
            op,
            timestamp: self.timestamp,
            client: header.client,
        };
        let body = if status == Status::OutOfSpace {
            self.refused.out_of_space += 1;
            Vec::new()
        } else {
            self.refused.out_of_space += refused.len() as u64;
            self.workload
                .apply(&context, header.operation, request.body, &refused)
        };
        session.committed = (op, index, self.timestamp);
        session.last = Some(Executed {
            request: header.request,
            op,
            timestamp: self.timestamp,
            status,
            body,
        });
    }

    /// Whether a request finds room, and which parts of it do not.
    fn predict(&mut self, op: u64, index: u32, request: SubRequest<'_>) -> (Status, Vec<usize>) {
        let Some((engine, limits)) = &mut self.engine else {
            return (Status::Ok, Vec::new());
        };
        let (header, free) = (request.header, engine.pages().free_count());
        let of_machine = header.client != 0 && header.operation != operation::REGISTER;
        let outcome = engine.commit(op, index, self.timestamp, request);
        let Outcome::Reply(reply) = outcome else {
            return (Status::Ok, Vec::new());
        };
        if !of_machine || reply.timestamp != self.timestamp || reply.status != Status::Ok {
            return (reply.status, Vec::new());
        }
        let refused = self.workload.refused(reply.body);
        let plan = W::Machines::validate(limits, header.operation, request.body);
        let Some(Ok(plan)) = plan else {
            panic!("what is not valid is not logged")
        };
        assert!(
            refused.is_empty() || free < plan.pages_new,
            "no room is found for {} pages though {free} are free",
            plan.pages_new
        );
        (reply.status, refused)
    }

    fn register(&mut self, op: u64, index: u32, client: u128) {
        if !self.numbers.contains_key(&client) {
            if self.numbers.len() >= self.sessions_max && !self.evict() {
                self.refused.sessions_full += 1;
                self.full.insert((client, op));
                return;
            }
            self.session_last += 1;
            self.numbers.insert(client, self.session_last);
            let session = Session {
                committed: (op, index, self.timestamp),
                last: None,
                registers: Vec::new(),
            };
            self.sessions.insert((client, self.session_last), session);
        }
        let number = self.numbers[&client];
        let session = self.sessions.get_mut(&(client, number));
        let session = session.expect("it has a number");
        let last = session.last.as_ref().map_or(0, |last| last.request);
        session.registers.push((op, last));
    }

    /// Takes the session away whose last commit is the oldest, if that was long ago.
    fn evict(&mut self) -> bool {
        let committed = |client: u128, number: u64| self.sessions[&(client, number)].committed;
        let all = self.numbers.iter();
        let oldest = all.min_by_key(|&(&client, &number)| committed(client, number));
        let (&client, &number) = oldest.expect("all sessions are in use");
        let idle_ns = self.timestamp - committed(client, number).2;
        let evicts = idle_ns >= SESSION_IDLE_MIN_NS;
        if evicts {
            self.refused.evicted += 1;
            self.numbers.remove(&client);
        }
        evicts
    }

    /// What a read answers now.
    pub(super) fn read(&mut self, op: u64, client: u128, operation: u16, body: &[u8]) -> Vec<u8> {
        let context = Context {
            op,
            timestamp: self.timestamp,
            client,
        };
        self.workload.apply(&context, operation, body, &[])
    }

    /// Checks the acknowledgement of a write or a registration.
    pub(super) fn check_reply(&self, reply: &Reply, body: &[u8]) {
        if reply.status == Status::SessionsFull as u16 {
            assert_eq!(reply.operation, operation::REGISTER);
            assert!(
                self.full.contains(&(reply.client, reply.op)),
                "client {:x} is told that there is no session for it",
                reply.client
            );
            return;
        }
        let session = self.sessions.get(&(reply.client, reply.session));
        let session = session.expect("an acknowledged request is in the history");
        if reply.operation == operation::REGISTER {
            let answered = session
                .registers
                .iter()
                .find(|answered| answered.0 == reply.op);
            let last = answered
                .expect("a register is answered by an op that has it")
                .1;
            let mut expected = [0; 16];
            expected[..8].copy_from_slice(&reply.session.to_le_bytes());
            expected[8..12].copy_from_slice(&last.to_le_bytes());
            assert_eq!(reply.status, Status::Ok as u16);
            assert_eq!(body, expected);
            return;
        }
        let last = session.last.as_ref();
        let last = last.expect("an acknowledged write is in the history");
        assert_eq!(last.request, reply.request, "acknowledged and not executed");
        assert_eq!(
            (last.op, last.timestamp),
            (reply.op, reply.timestamp),
            "the reply to request {} of client {:x} names another execution",
            reply.request,
            reply.client
        );
        assert_eq!(
            reply.status, last.status as u16,
            "the reply to request {} of client {:x} has another status than the model's",
            reply.request, reply.client
        );
        assert!(
            last.body == body,
            "the reply to request {} of client {:x} (operation {:#x}), executed by op {}, is not the model's:\n{}\n{}",
            reply.request,
            reply.client,
            reply.operation,
            reply.op,
            body.escape_ascii(),
            last.body.escape_ascii()
        );
    }
}
