//! The second execution of the history: sessions and at-most-once in plain std collections, machines by the workload's
//! model.

use crate::workload::Workload;
use std::collections::BTreeMap;
use storage::header::{Prepare, Reply, Status, SubRequest, sub_request};
use viewstone::engine::operation;
use viewstone::state_machine::Context;
use zerocopy::IntoBytes;

/// The last write of a session, and how it was answered.
#[derive(Debug)]
struct Executed {
    request: u32,
    op: u64,
    timestamp: u64,
    body: Vec<u8>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    last: Option<Executed>,
    /// Ops that answered a register of this client: each names the session.
    registers: Vec<(u64, u32)>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Shadow<W> {
    workload: W,
    sessions: BTreeMap<u128, Session>,
    timestamp: u64,
    copies: u64,
}

impl<W: Workload> Shadow<W> {
    pub(super) fn new(workload: W) -> Self {
        Self {
            workload,
            sessions: BTreeMap::new(),
            timestamp: 0,
            copies: 0,
        }
    }

    pub(super) fn workload(&mut self) -> &mut W {
        &mut self.workload
    }

    pub(super) fn copies(&self) -> u64 {
        self.copies
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
            self.request(prepare.op, request);
            offset = next;
        }
        assert_eq!(offset, batch.len());
    }

    fn request(&mut self, op: u64, request: SubRequest<'_>) {
        let header = request.header;
        if header.client == 0 {
            return;
        }
        if header.operation == operation::REGISTER {
            let number = self.sessions.len() as u64 + 1;
            let session = self.sessions.entry(header.client).or_insert(Session {
                number,
                last: None,
                registers: Vec::new(),
            });
            let last = session.last.as_ref().map_or(0, |last| last.request);
            session.registers.push((op, last));
            return;
        }
        let session = self.sessions.get_mut(&header.client);
        let session = session.expect("a client registers before it writes");
        assert_eq!(
            session.number, header.session,
            "a session changed its number"
        );
        let last = session.last.as_ref().map_or(0, |last| last.request);
        if header.request <= last {
            self.copies += 1;
            return;
        }
        let context = Context {
            op,
            timestamp: self.timestamp,
            client: header.client,
        };
        session.last = Some(Executed {
            request: header.request,
            op,
            timestamp: self.timestamp,
            body: self
                .workload
                .apply(&context, header.operation, request.body),
        });
    }

    /// What a read answers now.
    pub(super) fn read(&mut self, op: u64, client: u128, operation: u16, body: &[u8]) -> Vec<u8> {
        let context = Context {
            op,
            timestamp: self.timestamp,
            client,
        };
        self.workload.apply(&context, operation, body)
    }

    /// Checks the acknowledgement of a write or a registration.
    pub(super) fn check_reply(&self, reply: &Reply, body: &[u8]) {
        let session = self.sessions.get(&reply.client);
        let session = session.expect("an acknowledged request is in the history");
        assert_eq!(
            reply.status,
            Status::Ok as u16,
            "the model has room for everything"
        );
        assert_eq!(reply.session, session.number);
        if reply.operation == operation::REGISTER {
            let answered = session
                .registers
                .iter()
                .find(|answered| answered.0 == reply.op);
            let last = answered
                .expect("a register is answered by an op that has it")
                .1;
            let mut expected = [0; 16];
            expected[..8].copy_from_slice(&session.number.to_le_bytes());
            expected[8..12].copy_from_slice(&last.to_le_bytes());
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
        assert!(
            last.body == body,
            "the reply to request {} of client {:x}, executed by op {}, is not the model's",
            reply.request,
            reply.client,
            reply.op
        );
    }
}
