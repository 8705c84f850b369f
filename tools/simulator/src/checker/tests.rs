//! Each checker, shown a history that breaks it.

use super::*;
use crate::prng::Prng;
use storage::header::{HEADER_SIZE, PrepareKind, SUB_HEADER_SIZE, Typed};
use viewstone::engine::operation;
use viewstone::state_machine::kv::Kv;
use viewstone::state_machine::{Context, Limits};
use zerocopy::IntoBytes;

const CLUSTER: u128 = 7;
const CLIENT: u128 = 9;
const READ: u16 = 0x101;
const ADD: u16 = 0x102;

/// A counter: an addition answers the new sum, a read the sum.
#[derive(Debug)]
struct Counter(u64);

impl Workload for Counter {
    type Machines = (Kv,);

    fn new(_: Limits, _: &mut Prng) -> Self {
        Self(0)
    }

    fn request(&mut self, _: &mut Prng, _: &mut Vec<u8>) -> u16 {
        ADD
    }

    fn apply(&mut self, _: &Context, operation: u16, _: &[u8], _: &[usize]) -> Vec<u8> {
        self.0 += u64::from(operation == ADD);
        self.0.to_le_bytes().to_vec()
    }
}

/// So many replicas hold everything.
struct Holders(u8);

impl World for Holders {
    fn holds(&self, replica: u8, _: &Prepare) -> bool {
        replica < self.0
    }

    fn is_journal_sound(&self, _: u8) -> bool {
        true
    }

    fn times(&self) -> Times {
        Times {
            any_ns: 1 << 40,
            majority_ns: 1 << 30,
        }
    }
}

struct Run {
    checker: Checker<Counter>,
    head: Prepare,
}

fn sub(operation: u16, session: u64, request: u32) -> SubHeader {
    SubHeader {
        client: CLIENT,
        session,
        request,
        size: 0,
        operation,
        reserved: [0; 14],
    }
}

impl Run {
    /// A cluster of three in which a client has registered and added once: ops 1 and 2.
    fn new() -> Self {
        let mut run = Self {
            checker: Checker::new(CLUSTER, 3, Counter(0)),
            head: Prepare::root(CLUSTER),
        };
        run.commit(&sub(operation::REGISTER, 0, 0));
        run.commit(&sub(ADD, 1, 1));
        run
    }

    fn prepare(&self, sub: &SubHeader, view: u32) -> Prepare {
        let mut prepare = Prepare::new(CLUSTER, view, 0);
        prepare.frame.size = (HEADER_SIZE + SUB_HEADER_SIZE) as u32;
        prepare.parent = self.head.frame.checksum;
        prepare.op = self.head.op + 1;
        prepare.timestamp = 100 * prepare.op;
        prepare.requests = 1;
        prepare.kind = PrepareKind::Batch as u32;
        prepare.header_mut().seal(sub.as_bytes());
        prepare
    }

    /// Replica 0 writes and executes the next op.
    fn commit(&mut self, sub: &SubHeader) {
        let prepare = self.prepare(sub, 0);
        self.checker
            .on_journal_write(prepare.header(), sub.as_bytes());
        self.acknowledge(&prepare);
        self.head = prepare;
        self.watch(0, &self.progress());
    }

    /// A backup acknowledges.
    fn acknowledge(&mut self, prepare: &Prepare) {
        let mut ok = PrepareOk::new(CLUSTER, prepare.frame.view, 1);
        (ok.op, ok.prepare) = (prepare.op, prepare.frame.checksum);
        self.checker.on_send(1, ok.header(), &[]);
    }

    fn watch(&mut self, replica: u8, progress: &Progress) {
        self.checker.on_progress(replica, progress, &Holders(3));
    }

    /// A replica that has executed everything.
    fn progress(&self) -> Progress {
        Progress {
            nowhere: None,
            is_head_uncertain: false,
            fetching: false,
            awaited_op: None,
            pages_missing: 0,
            pages_fetched: 0,
            status: ReplicaStatus::Normal,
            view: 0,
            log_view: 0,
            head_op: self.head.op,
            commit_min: self.head.op,
            commit_checksum: self.head.frame.checksum,
            commit_max: self.head.op,
            checkpoint_op: 0,
            checkpoint_id: 0,
        }
    }

    fn reply(&self, operation: u16, request: u32) -> Reply {
        let mut reply = Reply::new(CLUSTER, 0, 0);
        reply.client = CLIENT;
        reply.session = 1;
        reply.op = self.head.op;
        reply.timestamp = self.head.timestamp;
        reply.request = request;
        reply.operation = operation;
        reply
    }
}

#[test]
fn a_right_history_passes() {
    let mut run = Run::new();
    let reply = run.reply(ADD, 1);
    run.checker.on_acknowledged(&reply, &1u64.to_le_bytes());
    run.checker.on_read_begin(&sub(READ, 0, 5), &[]);
    run.commit(&sub(ADD, 1, 2));
    run.commit(&sub(ADD, 1, 2)); // a copy executes nothing
    for (op, sum) in [(2, 1u64), (3, 2), (4, 2)] {
        let mut reply = run.reply(READ, 5);
        reply.op = op;
        run.checker.on_read_end(&reply, &sum.to_le_bytes());
        run.checker.reads.push(PendingRead {
            client: CLIENT,
            request: 5,
            operation: READ,
            body: vec![],
            answers: [(2, 1u64), (3, 2)]
                .map(|(op, sum)| (op, checksum::identity(&sum.to_le_bytes())))
                .to_vec(),
        });
    }
    let progress = run.progress();
    run.watch(1, &progress);
    let checked = run.checker.checked();
    assert_eq!((checked.ops, checked.copies, checked.reads), (4, 1, 3));
}

#[test]
#[should_panic(expected = "executed another prepare at op 2")]
fn two_prepares_at_one_op_are_caught() {
    let run = &mut Run::new();
    let mut progress = run.progress();
    progress.commit_checksum ^= 1;
    run.watch(1, &progress);
}

#[test]
#[should_panic(expected = "view 4 has two logs at op 3")]
fn two_prepares_in_one_view_are_caught() {
    let mut run = Run::new();
    for request in [2, 3] {
        let sub = sub(ADD, 1, request);
        let prepare = run.prepare(&sub, 4);
        run.checker
            .on_journal_write(prepare.header(), sub.as_bytes());
    }
}

#[test]
#[should_panic(expected = "the chain is broken")]
fn a_broken_chain_is_caught() {
    let mut run = Run::new();
    run.head.frame.checksum ^= 1;
    run.commit(&sub(ADD, 1, 2));
}

#[test]
#[should_panic(expected = "is not the model's")]
fn a_write_done_twice_is_caught() {
    let mut run = Run::new();
    let reply = run.reply(ADD, 1);
    run.checker.on_acknowledged(&reply, &2u64.to_le_bytes());
}

#[test]
#[should_panic(expected = "acknowledged and not executed")]
fn an_acknowledged_write_that_is_nowhere_is_caught() {
    let mut run = Run::new();
    let reply = run.reply(ADD, 2);
    run.checker.on_acknowledged(&reply, &2u64.to_le_bytes());
}

#[test]
#[should_panic(expected = "a read begun when op 2 was committed saw op 1")]
fn a_stale_read_is_caught() {
    let mut run = Run::new();
    run.checker.on_read_begin(&sub(READ, 0, 5), &[]);
    let mut reply = run.reply(READ, 5);
    reply.op = 1;
    run.checker.on_read_end(&reply, &0u64.to_le_bytes());
}

#[test]
#[should_panic(expected = "answers what the model does not")]
fn a_read_of_another_state_is_caught() {
    let mut run = Run::new();
    run.checker.on_read_begin(&sub(READ, 0, 5), &[]);
    run.commit(&sub(ADD, 1, 2));
    let reply = run.reply(READ, 5);
    run.checker.on_read_end(&reply, &1u64.to_le_bytes());
}

#[test]
#[should_panic(expected = "replica 1 promised op 2 and came back with 1")]
fn a_lost_promise_is_caught() {
    let mut run = Run::new();
    let mut progress = run.progress();
    run.watch(1, &progress);
    let mut ok = PrepareOk::new(CLUSTER, 0, 1);
    (ok.op, ok.prepare) = (2, run.head.frame.checksum);
    run.checker.on_send(1, ok.header(), &[]);
    run.checker.on_crash(1);
    (progress.head_op, progress.commit_min) = (1, 0);
    run.watch(1, &progress);
}

#[test]
#[should_panic(expected = "commit went back")]
fn a_commit_that_goes_back_is_caught() {
    let mut run = Run::new();
    let mut progress = run.progress();
    progress.commit_min = 1;
    progress.commit_checksum = run.checker.history(1).expect("op 1 is committed");
    run.watch(0, &progress);
}

#[test]
#[should_panic(expected = "checkpoints of 2 differ")]
fn different_checkpoints_are_caught() {
    let mut run = Run::new();
    for replica in [1, 2] {
        let mut progress = run.progress();
        (progress.checkpoint_op, progress.checkpoint_id) = (2, u128::from(replica));
        run.watch(replica, &progress);
    }
}

#[test]
#[should_panic(expected = "is not the model's")]
fn an_early_acknowledgement_is_checked_when_its_op_is_executed() {
    let mut run = Run::new();
    let mut reply = run.reply(ADD, 2);
    (reply.op, reply.timestamp) = (3, 300);
    run.checker.on_acknowledged(&reply, &9u64.to_le_bytes());
    assert!(!run.checker.is_settled());
    run.commit(&sub(ADD, 1, 2));
}

#[test]
#[should_panic(expected = "op 3 is executed, and no quorum holds it")]
fn an_execution_without_a_quorum_is_caught() {
    let mut run = Run::new();
    let sub = sub(ADD, 1, 2);
    let prepare = run.prepare(&sub, 0);
    run.checker
        .on_journal_write(prepare.header(), sub.as_bytes());
    run.head = prepare;
    let progress = run.progress();
    run.checker.on_progress(0, &progress, &Holders(1));
}

#[test]
#[should_panic(expected = "the head of replica 0 falls from 2 to 1 in view 0")]
fn a_head_that_falls_within_a_view_is_caught() {
    let mut run = Run::new();
    let mut progress = run.progress();
    progress.head_op = 1;
    progress.commit_min = 1;
    run.watch(0, &progress);
}

fn time_is(timestamp: u64) {
    let mut run = Run::new();
    let sub = sub(ADD, 1, 2);
    let mut prepare = run.prepare(&sub, 0);
    prepare.timestamp = timestamp;
    prepare.header_mut().seal(sub.as_bytes());
    run.checker
        .on_journal_write(prepare.header(), sub.as_bytes());
    run.acknowledge(&prepare);
    run.head = prepare;
    run.watch(0, &run.progress());
}

#[test]
#[should_panic(expected = "op 3 is executed, and no quorum has acknowledged it in one view")]
fn an_execution_that_nobody_acknowledged_is_caught() {
    let mut run = Run::new();
    let sub = sub(ADD, 1, 2);
    let prepare = run.prepare(&sub, 0);
    run.checker
        .on_journal_write(prepare.header(), sub.as_bytes());
    run.head = prepare;
    run.watch(0, &run.progress());
}

#[test]
#[should_panic(expected = "is beyond every clock")]
fn a_time_beyond_every_clock_is_caught() {
    time_is(1 << 50);
}

#[test]
#[should_panic(expected = "is beyond the clocks of a majority")]
fn a_time_of_one_wild_clock_is_caught() {
    time_is(1 << 35);
}

#[test]
#[should_panic(expected = "time went back")]
fn a_time_that_goes_back_is_caught() {
    time_is(7);
}
