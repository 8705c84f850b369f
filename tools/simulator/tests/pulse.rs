//! Things that become due by time alone, on a machine with an alarm: on an idle replica, under load, and for a reader.

#[expect(dead_code, reason = "not every test needs all of it")]
mod common;

use common::{CLIENT, Node, request, small_geometry};
use storage::header::{HEADER_SIZE, Header, Reply, Status};
use storage::layout::Geometry;
use storage::pages::Pages;
use viewstone::engine::operation;
use viewstone::replica::Now;
use viewstone::state_machine::{Context, Invalid, Limits, Plan, ReplyBuffer, StateMachine};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MILLISECOND: u64 = 1_000_000;
const START: Now = Now {
    monotonic_ns: 1 << 40,
    realtime_ns: 1_700_000_000_000_000_000,
};

/// An alarm that is set so many nanoseconds ahead, and counts how often it rang.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Alarm {
    /// Zero: not set.
    due_ns: u64,
    rang: u64,
}

const SET: u16 = 0x101;
const RANG: u16 = 0x102;

impl StateMachine for Alarm {
    const NAME: &'static str = "alarm";

    fn create(_: &mut Pages) -> Self {
        Self { due_ns: 0, rang: 0 }
    }

    fn validate(_: &Limits, operation: u8, body: &[u8]) -> Result<Plan, Invalid> {
        let read_only = operation == 2;
        if body.len() != if read_only { 0 } else { 8 } {
            return Err(Invalid);
        }
        Ok(Plan {
            read_only,
            reply_size: 8,
            pages_new: 0,
            pages_touched: 1,
        })
    }

    fn read(&self, _: &Pages, _: &Context, _: u8, _: &[u8], reply: &mut ReplyBuffer<'_>) {
        reply.push(&self.rang.to_le_bytes());
    }

    fn commit(
        &mut self,
        _: &mut Pages,
        context: &Context,
        _: u8,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) {
        // Zero only moves the log on.
        let ahead_ns = u64::from_le_bytes(body.try_into().expect("validated"));
        if ahead_ns > 0 {
            self.due_ns = context.timestamp + ahead_ns;
        }
        reply.push(&self.rang.to_le_bytes());
    }

    fn deadline_ns(&self, _: &Pages) -> Option<u64> {
        (self.due_ns > 0).then_some(self.due_ns)
    }

    fn pulse(&mut self, _: &mut Pages, context: &Context) {
        assert!(self.due_ns > 0 && self.due_ns <= context.timestamp);
        self.due_ns = 0;
        self.rang += 1;
    }
}

type Solo = Node<(Alarm,)>;

/// A replica alone, serving, with the sessions of clients 1 to 3.
fn serving() -> Solo {
    // Rings that no test here fills: a checkpoint that is waited for would empty the pipeline.
    let geometry = Geometry {
        slots: 256,
        ..small_geometry()
    };
    let mut node = Solo::new(0, 1, geometry, START);
    for client in 1..=3 {
        node.settle();
        node.deliver(CLIENT, &request(client, 0, 0, operation::REGISTER, &[]));
        node.settle();
        assert_eq!(replies(&mut node).len(), 1);
    }
    // Prepares of one moment get times that follow each other: from here each is the clock's.
    node.pass(MILLISECOND);
    node
}

/// Answers since the last time: whose, and the number in it.
fn replies(node: &mut Solo) -> Vec<(u128, u64)> {
    let said = node.said().into_iter();
    said.filter_map(|(_, bytes)| {
        let header = Header::of(&bytes);
        let reply = header.try_typed::<Reply>()?;
        assert_eq!(reply.status, Status::Ok as u16);
        let number = u64::read_from_prefix(&bytes[HEADER_SIZE..]).map_or(0, |(number, _)| number);
        Some((reply.client, number))
    })
    .collect()
}

fn set(node: &mut Solo, client: u128, number: u32, ahead_ns: u64) {
    let bytes = request(client, client as u64, number, SET, &ahead_ns.to_le_bytes());
    node.deliver(CLIENT, &bytes);
}

fn in_flight(node: &Solo) -> u64 {
    let progress = node.replica.progress();
    progress.head_op - progress.commit_min
}

#[test]
fn what_is_due_happens_on_an_idle_replica() {
    let mut node = serving();
    set(&mut node, 1, 1, 100 * MILLISECOND);
    node.settle();
    let op = node.replica.progress().commit_min;
    node.pass(99 * MILLISECOND);
    node.settle();
    assert_eq!(node.replica.progress().commit_min, op);
    node.pass(MILLISECOND);
    node.settle();
    assert_eq!(node.replica.progress().commit_min, op + 1, "a pulse");
    node.pass(1000 * MILLISECOND);
    node.settle();
    assert_eq!(node.replica.progress().commit_min, op + 1, "one is enough");
}

#[test]
fn a_read_waits_for_what_was_due_when_it_arrived() {
    let mut node = serving();
    set(&mut node, 1, 1, 100 * MILLISECOND);
    node.settle();
    assert_eq!(replies(&mut node), [(1, 0)]);
    let read = request(7, 0, 1, RANG, &[]);
    node.deliver(CLIENT, &read);
    node.finish_turn();
    assert_eq!(replies(&mut node), [(7, 0)], "nothing is due yet");
    node.pass(100 * MILLISECOND);
    node.deliver(CLIENT, &read);
    node.finish_turn();
    assert_eq!(replies(&mut node), [], "the pulse is under way");
    node.settle();
    assert_eq!(replies(&mut node), [(7, 1)]);
}

#[test]
fn what_is_due_happens_under_load() {
    let mut node = serving();
    let op = node.replica.progress().commit_min;
    set(&mut node, 1, 1, 10 * MILLISECOND);
    node.finish_turn();
    // Two clients take turns, so that something is always in flight.
    for number in 1..=40 {
        for client in [2, 3] {
            set(&mut node, client, number, 0);
            node.pass(MILLISECOND);
            node.finish_turn();
            while in_flight(&node) > 1 {
                assert!(node.complete_one());
            }
            assert_eq!(in_flight(&node), 1);
        }
    }
    node.settle();
    let rang = replies(&mut node).last().map(|&(_, rang)| rang);
    assert_eq!(rang, Some(1), "it rang before the last request");
    let ops = node.replica.progress().commit_min - op;
    assert_eq!(ops, 1 + 80 + 1, "one pulse");
}
