//! At-most-once and the session table, against a machine that only counts.

use super::*;
use crate::state_machine::{Invalid, StateMachine};
use storage::header::SubHeader;
use storage::layout::JournalAck;

/// Adds the first body byte to a sum, and answers with the sum and as many bytes as the second byte asks for.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Counter {
    sum: u64,
}

impl StateMachine for Counter {
    const NAME: &'static str = "counter";

    fn create(_: &mut Pages) -> Self {
        Self { sum: 0 }
    }

    fn validate(_: &Limits, operation: u8, body: &[u8]) -> Result<Plan, Invalid> {
        if body.len() != 2 {
            return Err(Invalid);
        }
        let reply_size = 8 + 16 * usize::from(body[1]);
        let pages_new = if operation == 9 { u32::MAX } else { 0 };
        Ok(Plan {
            read_only: operation == 1,
            reply_size,
            pages_new,
            pages_touched: 1,
        })
    }

    fn read(&self, _: &Pages, _: &Context, _: u8, _: &[u8], reply: &mut ReplyBuffer<'_>) {
        reply.push(&self.sum.to_le_bytes());
    }

    fn commit(
        &mut self,
        _: &mut Pages,
        _: &Context,
        _: u8,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) {
        self.sum += u64::from(body[0]);
        reply.push(&self.sum.to_le_bytes());
        for _ in 0..body[1] {
            reply.push(&[body[0]; 16]);
        }
    }
}

const ADD: u16 = 0x0100;
const OUT_OF_SPACE: u16 = 0x0109;

fn engine(sessions_max: u32) -> Engine<(Counter,)> {
    let geometry = Geometry {
        sessions_max,
        journal_ack: JournalAck::Single as u8,
        ..Geometry::SMALL
    };
    assert_eq!(geometry.check(), Ok(()));
    Engine::new(&geometry)
}

struct Run {
    engine: Engine<(Counter,)>,
    op: u64,
    now: u64,
}

impl Run {
    fn new(sessions_max: u32) -> Self {
        Self {
            engine: engine(sessions_max),
            op: 0,
            now: 1,
        }
    }

    fn call(
        &mut self,
        client: u128,
        session: u64,
        request: u32,
        operation: u16,
        body: &[u8],
    ) -> Executed<'_> {
        self.op += 1;
        self.now += 1;
        let size = body.len() as u32;
        let header = SubHeader {
            client,
            session,
            request,
            size,
            operation,
            reserved: [0; 14],
        };
        self.engine.commit(
            self.op,
            0,
            self.now,
            SubRequest {
                header: &header,
                body,
            },
        )
    }

    fn register(&mut self, client: u128) -> Option<(u64, u32)> {
        match self.call(client, 0, 0, operation::REGISTER, &[]) {
            Executed::Reply(reply) if reply.status == Status::Ok => {
                let body = RegisterReply::read_from_bytes(reply.body).expect("a register's reply");
                assert_eq!(body.session, reply.session);
                Some((body.session, body.request))
            }
            Executed::Reply(reply) => {
                assert_eq!(reply.status, Status::SessionsFull);
                None
            }
            other => panic!("{other:?}"),
        }
    }

    /// The sum that the answer tells.
    fn add(&mut self, client: u128, session: u64, request: u32, body: [u8; 2]) -> Option<u64> {
        match self.call(client, session, request, ADD, &body) {
            Executed::Reply(reply) => {
                assert_eq!(reply.body.len(), 8 + 16 * usize::from(body[1]));
                assert!(reply.body[8..].iter().all(|&byte| byte == body[0]));
                Some(u64::from_le_bytes(
                    reply.body[..8].try_into().expect("eight bytes"),
                ))
            }
            Executed::Stale | Executed::Evicted => None,
            Executed::Internal => panic!("a client's request is not internal"),
        }
    }
}

#[test]
fn a_request_executes_once_and_its_reply_is_kept() {
    let mut run = Run::new(8);
    let (session, request) = run.register(7).expect("a session is free");
    assert_eq!((session, request), (1, 0));
    assert_eq!(run.add(7, session, 1, [5, 0]), Some(5));
    assert_eq!(run.add(7, session, 1, [5, 0]), Some(5));
    assert_eq!(run.add(7, session, 2, [1, 100]), Some(6)); // a reply in its own page
    assert_eq!(run.add(7, session, 2, [1, 100]), Some(6));
    assert_eq!(run.add(7, session, 1, [5, 0]), None);
    assert_eq!(run.add(7, session + 1, 3, [5, 0]), None);
    assert_eq!(run.add(8, session, 3, [5, 0]), None);
    assert_eq!(run.add(7, session, 9, [1, 0]), Some(7));
}

#[test]
fn a_client_that_registers_again_gets_its_session_back() {
    let mut run = Run::new(8);
    let (session, _) = run.register(7).expect("a session is free");
    run.add(7, session, 4, [5, 0]);
    assert_eq!(run.register(7), Some((session, 4)));
    assert_eq!(run.register(8), Some((session + 1, 0)));
}

#[test]
fn only_a_session_that_was_idle_long_enough_is_evicted() {
    let mut run = Run::new(2);
    let (first, _) = run.register(1).expect("a session is free");
    let (second, _) = run.register(2).expect("a session is free");
    run.add(1, first, 1, [1, 0]);
    assert_eq!(run.register(3), None);
    run.now += SESSION_IDLE_MIN_NS;
    run.add(1, first, 2, [1, 0]);
    let (third, _) = run.register(3).expect("the second client was idle");
    assert!(third > second);
    assert_eq!(run.add(2, second, 1, [1, 0]), None);
    assert_eq!(run.add(1, first, 3, [1, 0]), Some(3));
    assert_eq!(run.engine.sessions_used(), 2);
}

#[test]
fn out_of_space_executes_nothing_and_is_the_reply() {
    let mut run = Run::new(8);
    let (session, _) = run.register(7).expect("a session is free");
    for _ in 0..2 {
        match run.call(7, session, 1, OUT_OF_SPACE, &[5, 0]) {
            Executed::Reply(reply) => {
                assert_eq!((reply.status, reply.body.len()), (Status::OutOfSpace, 0));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(run.add(7, session, 2, [1, 0]), Some(1));
}

#[test]
fn what_this_release_does_not_understand_is_answered_alike() {
    let mut run = Run::new(8);
    let (session, _) = run.register(7).expect("a session is free");
    for (request, operation, body) in [
        (1, ADD, &[1u8][..]),
        (2, 0x0700, &[1, 1]),
        (3, 0x0101, &[1, 1]),
    ] {
        match run.call(7, session, request, operation, body) {
            Executed::Reply(reply) => assert_eq!(reply.status, Status::NotUnderstood),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sessions_survive_in_pages_alone() {
    let mut run = Run::new(8);
    let (session, _) = run.register(7).expect("a session is free");
    run.add(7, session, 1, [5, 3]);
    let mut copy = engine(8);
    for page in 0..run.engine.pages().count() {
        if run.engine.pages().is_used(PageId(page)) {
            copy.pages_mut()
                .restore(PageId(page), run.engine.pages().read(PageId(page)));
        }
    }
    assert!(copy.pages_mut().restored());
    copy.reopened();
    assert_eq!(copy.session(7), run.engine.session(7));
    assert_eq!(copy.stored_reply(7), run.engine.stored_reply(7));
    assert!(copy.session(8).is_none());
}

#[test]
fn the_first_op_sets_the_page_key_once() {
    let mut run = Run::new(8);
    assert_eq!(run.engine.page_key(), None);
    run.call(0, 0, 0, operation::BEGIN, &[1; 16]);
    run.call(0, 0, 0, operation::BEGIN, &[2; 16]);
    assert_eq!(run.engine.page_key(), Some(PageKey([1; 16])));
    assert!(
        run.engine.validate(operation::BEGIN, &[1; 16]).is_none(),
        "a client may not send it"
    );
}
