//! What time a cluster of three has when clocks go wrong: schedule 20, and what follows it.

#[expect(dead_code, reason = "not every test needs all of it")]
mod common;

use common::{CLIENT, Node, request, small_geometry};
use std::collections::VecDeque;
use storage::header::{Command, HEADER_SIZE, Header, ReplicaStatus, Reply};
use viewstone::engine::operation;
use viewstone::replica::{Event, Now, Peer};
use viewstone::state_machine::kv::Kv;
use viewstone::state_machine::kv::wire::{Item, Operation};
use zerocopy::FromBytes;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const YEAR: u64 = 365 * 24 * 3600 * SECOND;
const START: Now = Now {
    monotonic_ns: 1 << 40,
    realtime_ns: 1_700_000_000 * SECOND,
};

/// Three replicas whose messages arrive at once, and whose turns are ten milliseconds apart.
struct Cluster {
    nodes: Vec<Node<(Kv,)>>,
    /// Stopped, by replica.
    stopped: [bool; 3],
    /// Greetings between replicas are lost: there are no clock samples.
    greetings_lost: bool,
    /// True time passed since the start.
    elapsed: u64,
    number: u32,
    /// Times of the answers to the client.
    answered: Vec<u64>,
}

impl Cluster {
    fn new() -> Self {
        let node = |replica| Node::new(replica, 3, small_geometry(), START);
        let mut cluster = Self {
            nodes: (0..3).map(node).collect(),
            stopped: [false; 3],
            greetings_lost: false,
            elapsed: 0,
            number: 0,
            answered: Vec::new(),
        };
        for (node, others) in cluster.nodes.iter_mut().zip([[1, 2], [0, 2], [0, 1]]) {
            node.settle();
            for other in others {
                node.step(Event::Connected(other));
            }
        }
        cluster.run(2 * SECOND);
        cluster
    }

    fn run(&mut self, time: u64) {
        for _ in 0..time / (10 * MILLISECOND) {
            self.elapsed += 10 * MILLISECOND;
            for node in &mut self.nodes {
                node.pass(10 * MILLISECOND);
            }
            self.turn();
        }
    }

    fn turn(&mut self) {
        let mut network = VecDeque::new();
        for replica in (0..3).filter(|&replica| !self.stopped[replica]) {
            self.nodes[replica].settle();
            network.extend(
                self.nodes[replica]
                    .said()
                    .into_iter()
                    .map(|it| (replica, it)),
            );
        }
        while let Some((from, (to, bytes))) = network.pop_front() {
            let header = Header::read_from_bytes(&bytes[..HEADER_SIZE]).expect("a header");
            let greets = matches!(header.command(), Some(Command::Ping | Command::Pong));
            match to {
                Peer::Client(_) => {
                    if let Some(reply) = header.try_typed::<Reply>() {
                        self.answered.push(reply.timestamp);
                    }
                }
                Peer::Replica(to) if !self.stopped[usize::from(to)] => {
                    if greets && self.greetings_lost {
                        continue;
                    }
                    let node = &mut self.nodes[usize::from(to)];
                    node.deliver(Peer::Replica(from as u8), &bytes);
                    node.settle();
                    network.extend(node.said().into_iter().map(|it| (usize::from(to), it)));
                }
                Peer::Replica(_) => {}
            }
        }
    }

    /// A write, at a primary; the time that it got, less the true time, in nanoseconds.
    fn put(&mut self) -> i128 {
        let primary = (0..3)
            .find(|&replica| {
                let it = &self.nodes[replica].replica;
                let leads =
                    it.status() == ReplicaStatus::Normal && usize::from(it.primary()) == replica;
                leads && !self.stopped[replica]
            })
            .expect("somebody leads");
        let mut body = Vec::new();
        let bytes = if self.number == 0 {
            request(9, 0, 0, operation::REGISTER, &[])
        } else {
            let item = Item::Put {
                key: b"a",
                value: b"b",
            };
            item.encode(&mut body);
            request(9, 1, self.number, 0x100 | Operation::Put as u16, &body)
        };
        self.number += 1;
        self.nodes[primary].deliver(CLIENT, &bytes);
        let before = self.answered.len();
        self.turn();
        assert_eq!(self.answered.len(), before + 1, "an answer");
        assert!(self.answered.is_sorted_by(|a, b| a < b), "time goes on");
        let time = i128::from(*self.answered.last().expect("just now"));
        time - i128::from(START.realtime_ns + self.elapsed)
    }

    fn agree(&self, replica: usize) -> bool {
        self.nodes[replica].replica.is_clock_synchronised()
    }
}

#[test]
fn the_primarys_clock_jumps_a_year() {
    let mut cluster = Cluster::new();
    cluster.put();
    assert!((0..3).all(|replica| cluster.agree(replica)));
    assert!((0..10).contains(&cluster.put()), "the clock's own time");
    // With agreement: outvoted.
    cluster.nodes[0].now.realtime_ns += YEAR;
    let bound = i128::from(100 * MILLISECOND);
    assert!(cluster.put().abs() < bound, "at once");
    cluster.run(100 * SECOND);
    assert!(cluster.put().abs() < bound, "and from then on");
    assert!(cluster.agree(0));
    // Without: an alarm, not an outage.
    cluster.greetings_lost = true;
    cluster.run(70 * SECOND);
    assert!(!cluster.agree(0));
    assert_eq!(cluster.nodes[0].replica.metrics().clock_losses, 1);
    assert!(cluster.put().abs() < bound);
    cluster.run(300 * SECOND);
    assert!(cluster.put().abs() < bound);
}

#[test]
fn a_new_primary_without_agreement_goes_on_from_replicated_time() {
    let mut cluster = Cluster::new();
    cluster.put();
    cluster.greetings_lost = true;
    cluster.run(100 * SECOND);
    assert!((0..3).all(|replica| !cluster.agree(replica)));
    cluster.put();
    for (replica, wrong) in [(1, YEAR), (2, 2 * YEAR)] {
        cluster.nodes[replica].now.realtime_ns += wrong;
    }
    cluster.stopped[0] = true;
    cluster.run(2 * SECOND);
    assert!(cluster.put().abs() < i128::from(SECOND));
    // The clocks are set right, and heard again.
    for (replica, wrong) in [(1, YEAR), (2, 2 * YEAR)] {
        cluster.nodes[replica].now.realtime_ns -= wrong;
    }
    cluster.greetings_lost = false;
    cluster.run(10 * SECOND);
    assert!(cluster.agree(1) && cluster.agree(2));
    assert!(cluster.put().abs() < i128::from(10 * MILLISECOND));
}
