//! A cluster that loses, refuses, delays and forgets, from a seed; and the promises that hold nevertheless: every call
//! ends once and in time, nothing is executed twice, and what is said of a call is true.

use super::*;
use std::collections::{BTreeMap, VecDeque};

const CALLS: u64 = 60;
const ADDRESSES: usize = 3;

/// What the cluster has replicated: all replicas answer from it.
#[derive(Default)]
struct Cluster {
    /// By client id: session and last request executed.
    sessions: BTreeMap<u128, (u64, u32)>,
    sessions_made: u64,
    /// How often each call was executed, by its tag.
    executed: BTreeMap<u64, u32>,
    view: u32,
}

impl Cluster {
    /// The status of the reply, or none if the request executes nothing and has no answer.
    fn execute(&mut self, sent: &Sent) -> bool {
        let sub = sent.sub();
        if sub.operation == REGISTER {
            self.sessions_made += 1;
            let new = (self.sessions_made, 0);
            self.sessions.entry(sub.client).or_insert(new);
            return true;
        }
        let tag = sent.body[48..56].try_into().expect("8 bytes");
        let tag = u64::from_le_bytes(tag);
        if sub.session == 0 {
            *self.executed.entry(tag).or_default() += 1;
            return true;
        }
        match self.sessions.get_mut(&sub.client) {
            Some((session, last)) if *session == sub.session && sub.request > *last => {
                *last = sub.request;
                *self.executed.entry(tag).or_default() += 1;
                true
            }
            Some((session, last)) => *session == sub.session && sub.request == *last,
            None => false,
        }
    }
}

struct Chaos {
    world: World,
    cluster: Cluster,
    random: Xoshiro256PlusPlus,
    /// Connected addresses.
    up: [bool; ADDRESSES],
    /// What is under way on each connection, in order.
    wires: [VecDeque<Sent>; ADDRESSES],
    /// What left on connections that have ended: it may arrive still.
    strays: Vec<Sent>,
    due: BTreeMap<u64, u64>,
    writes: BTreeMap<u64, bool>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        Self {
            world: World::new(ADDRESSES, 5),
            cluster: Cluster::default(),
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            up: [false; ADDRESSES],
            wires: std::array::from_fn(|_| VecDeque::new()),
            strays: Vec::new(),
            due: BTreeMap::new(),
            writes: BTreeMap::new(),
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random.next_u64() % below
    }

    fn primary(&self) -> usize {
        self.cluster.view as usize % ADDRESSES
    }

    fn gather(&mut self) {
        for sent in std::mem::take(&mut self.world.sent) {
            if self.up[sent.to] {
                self.wires[sent.to].push_back(sent);
            } // else the host had nowhere to write it
        }
        for to in std::mem::take(&mut self.world.pings) {
            if self.up[to] && self.draw(10) > 0 {
                let (view, primary) = (self.cluster.view, self.primary() as u8);
                self.world.pong(to, view, primary, ReplicaStatus::Normal);
            }
        }
        for to in std::mem::take(&mut self.world.connects) {
            if self.draw(4) > 0 {
                self.up[to] = true;
                self.world.connect(to);
            } else {
                self.world.disconnect(to);
            }
        }
    }

    fn deliver(&mut self, from: usize) {
        let Some(sent) = self.wires[from].pop_front() else {
            return;
        };
        let (view, primary) = (self.cluster.view, self.primary());
        if from != primary {
            self.world
                .reject(from, &sent, Rejection::NotPrimary, view, primary as u8);
            return;
        }
        match self.draw(20) {
            0 | 1 => self
                .world
                .reject(from, &sent, Rejection::Busy, view, primary as u8),
            2 => self
                .world
                .reject(from, &sent, Rejection::NotReady, view, primary as u8),
            3 => {}                      // dropped
            4 => self.strays.push(sent), // taken, and executed later; the answer is lost
            5 => {
                self.cluster.execute(&sent);
            }
            6 if sent.sub().session != 0 => {
                self.cluster.sessions.remove(&sent.sub().client);
                self.world.evict(from, &sent);
            }
            _ => self.execute(from, &sent),
        }
    }

    fn execute(&mut self, from: usize, sent: &Sent) {
        if self.cluster.execute(sent) {
            let number = self.cluster.sessions.get(&sent.sub().client);
            // The harness numbers sessions itself: keep both alike.
            self.world.sessions = number.map_or(0, |&(number, _)| number - 1);
            self.world
                .reply(from, sent, sent.body.get(48..56).unwrap_or(&[]));
            if self.draw(8) == 0 {
                self.world
                    .reply(from, sent, sent.body.get(48..56).unwrap_or(&[]));
            }
        } else if sent.sub().session != 0 && !self.cluster.sessions.contains_key(&sent.sub().client)
        {
            self.world.evict(from, sent);
        }
    }

    fn step(&mut self, tag: &mut u64) {
        match self.draw(12) {
            0 if *tag < CALLS => {
                let deadline = (1 + self.draw(3000)) * MS;
                self.due.insert(*tag, self.world.now + deadline);
                let is_write = self.draw(4) > 0;
                self.writes.insert(*tag, is_write);
                if self.writes[tag] {
                    self.world.write(*tag, deadline);
                } else {
                    self.world.read(*tag, deadline);
                }
                *tag += 1;
            }
            1 => {
                let by = self.draw(200) * MS;
                self.world.run(by);
            }
            2 if self.draw(4) == 0 => {
                let to = self.draw(ADDRESSES as u64) as usize;
                if std::mem::take(&mut self.up[to]) {
                    self.strays.extend(self.wires[to].drain(..));
                    self.world.disconnect(to);
                }
            }
            3 if self.draw(8) == 0 => self.cluster.view += 1,
            4 if !self.strays.is_empty() => {
                let index = self.draw(self.strays.len() as u64) as usize;
                let stray = self.strays.swap_remove(index);
                self.cluster.execute(&stray);
            }
            _ => {
                let from = self.draw(ADDRESSES as u64) as usize;
                self.deliver(from);
            }
        }
        self.gather();
        for (tag, _) in &self.world.done {
            self.due.remove(tag);
        }
        // A timer may be late by the step of the timers, and by as much as this harness runs ahead at once.
        let late = self
            .due
            .iter()
            .find(|&(_, &due)| due + 210 * MS < self.world.now);
        assert_eq!(late, None, "a call outlives its deadline");
    }

    fn check(&mut self) -> [u64; 4] {
        for stray in std::mem::take(&mut self.strays) {
            self.cluster.execute(&stray);
        }
        for wire in &mut self.wires {
            for sent in wire.drain(..) {
                self.cluster.execute(&sent);
            }
        }
        let mut counts = [0; 4];
        let mut tags: Vec<_> = self.world.done.iter().map(|(tag, _)| *tag).collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..CALLS).collect::<Vec<_>>(), "every call ends once");
        for (tag, result) in &self.world.done {
            let executed = self.cluster.executed.get(tag).copied().unwrap_or(0);
            let is_write = self.writes[tag];
            let kind = match result {
                Ok(reply) => {
                    assert_eq!(reply.body, tag.to_le_bytes());
                    assert!(executed == 1 || !is_write && executed > 0);
                    0
                }
                Err(CallError::NotSent(_)) => {
                    assert_eq!(executed, 0, "not sent, and yet executed");
                    1
                }
                Err(CallError::Definite(error)) => {
                    assert_eq!((*error, is_write), (Definite::NoAnswer, false));
                    2
                }
                Err(CallError::Indeterminate(_)) => {
                    assert!(is_write && executed <= 1);
                    3
                }
            };
            counts[kind] += 1;
        }
        counts
    }
}

#[test]
fn what_is_said_of_a_call_is_true_whatever_happens() {
    let mut total = [0; 4];
    for seed in 0..300 {
        let mut chaos = Chaos::new(seed);
        let mut tag = 0;
        chaos.world.advance(0);
        chaos.gather();
        while tag < CALLS || !chaos.due.is_empty() {
            chaos.step(&mut tag);
        }
        for (sum, count) in total.iter_mut().zip(chaos.check()) {
            *sum += count;
        }
    }
    // Every way for a call to end was reached, and often.
    assert!(total.iter().all(|&count| count > 100), "{total:?}");
}

#[test]
fn a_seed_gives_the_same_run() {
    let run = |seed| {
        let mut chaos = Chaos::new(seed);
        let mut tag = 0;
        for _ in 0..2000 {
            chaos.step(&mut tag);
        }
        (
            chaos.world.done,
            chaos.world.core.statistics(),
            chaos.world.now,
        )
    };
    assert_eq!(run(5), run(5));
}
