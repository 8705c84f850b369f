//! The `lin-kv` workload: clients that read, write and compare-and-set a few keys at once, and the history of what they
//! asked and were told, for the checker of histories.
//!
//! A key is given up for a new one after some operations, so that histories of keys stay short; every value is written once.

use super::linearizability::{self, ABSENT, Action, Operation, Value};
use super::{Client, HANG, Random, TIMEOUT, Workbench};
use serde_json::{Value as Json, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Keys in use at a time.
const PLACES: u64 = 3;

/// Operations after which a key is given up, and open ones among them: the checker tries where each of those may belong.
const OPERATIONS_MAX: u64 = 200;
const OPEN_MAX: u64 = 6;

#[derive(Clone, Copy, Default)]
struct Place {
    generation: u64,
    operations: u64,
    open: u64,
}

struct Shared {
    epoch: Instant,
    stop: AtomicBool,
    values: AtomicU64,
    /// Answered changes.
    changes: AtomicU64,
    /// Answered "not now", which means never.
    refused: AtomicU64,
    history: Mutex<(Vec<Operation>, [Place; PLACES as usize])>,
}

impl Shared {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn history(&self) -> MutexGuard<'_, (Vec<Operation>, [Place; PLACES as usize])> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, place: u64) -> u64 {
        place << 32 | self.history().1[place as usize].generation
    }

    fn note(&self, operation: Operation) {
        let is_change = !matches!(operation.action, Action::Read(_));
        let mut history = self.history();
        history.0.push(operation);
        let place = &mut history.1[(operation.key >> 32) as usize];
        place.operations += 1;
        if operation.end.is_none() {
            place.open += 1;
        } else if is_change {
            self.changes.fetch_add(1, Relaxed);
        }
        let current = operation.key & u64::from(u32::MAX) == place.generation;
        if current && (place.operations >= OPERATIONS_MAX || place.open >= OPEN_MAX) {
            *place = Place {
                generation: place.generation + 1,
                ..Place::default()
            };
        }
    }
}

/// A workload that runs.
pub struct Workload {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Starts `clients` clients for each node.
    pub fn start(bench: &mut Workbench, clients: usize, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            stop: AtomicBool::new(false),
            values: AtomicU64::new(ABSENT + 1),
            changes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            history: Mutex::default(),
        });
        let mut threads = Vec::new();
        for node in bench.names.clone() {
            for _ in 0..clients {
                let mut caller = Caller {
                    client: bench.client(),
                    node: node.clone(),
                    shared: Arc::clone(&shared),
                    random: Random::new(seed ^ (threads.len() as u64 + 1) << 48),
                    seen: [ABSENT; PLACES as usize],
                };
                threads.push(thread::spawn(move || {
                    while !caller.shared.stop.load(Relaxed) {
                        caller.call();
                    }
                }));
            }
        }
        Self { shared, threads }
    }

    /// Waits until so many more changes are answered.
    pub fn wait_for_more(&self, changes: u64) {
        let until = Instant::now() + HANG;
        let goal = self.shared.changes.load(Relaxed) + changes;
        while self.shared.changes.load(Relaxed) < goal {
            assert!(
                !self.threads.iter().any(JoinHandle::is_finished),
                "a client was told what cannot be (see above)"
            );
            assert!(Instant::now() < until, "nobody can write any more");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it, reads every key once more from every node, and checks the history.
    pub fn finish(self, bench: &mut Workbench) {
        self.shared.stop.store(true, Relaxed);
        for thread in self.threads {
            thread.join().expect("no client was told what cannot be");
        }
        let places = self.shared.history().1;
        let mut client = bench.client();
        for (place, it) in (0..).zip(places) {
            for generation in 0..=it.generation {
                let key = place << 32 | generation;
                let node = &bench.names[(generation % bench.names.len() as u64) as usize];
                let begin = self.shared.now();
                let answer = client.insist(node, &json!({ "type": "read", "key": key }));
                let found = read_answer(&answer).expect("what insist returns is an answer");
                self.shared.note(Operation {
                    key,
                    begin,
                    end: Some(self.shared.now()),
                    action: Action::Read(found),
                    version: 0,
                });
            }
        }
        let history = &self.shared.history().0;
        let open = history.iter().filter(|it| it.end.is_none()).count();
        println!(
            "{} operations, {} of them changes that were answered, {open} with unknown outcome; {} more were refused",
            history.len(),
            self.shared.changes.load(Relaxed),
            self.shared.refused.load(Relaxed),
        );
        if let Err(violation) = linearizability::check(history) {
            panic!("NOT LINEARIZABLE: {violation}");
        }
    }
}

struct Caller {
    client: Client,
    node: String,
    shared: Arc<Shared>,
    random: Random,
    /// What it last saw at each place: what it compares with.
    seen: [Value; PLACES as usize],
}

/// What a client was told.
enum Told {
    /// It happened, or was found, so.
    Ended(Action),
    /// It did not happen and will not.
    Never,
    /// Nobody knows.
    Open,
}

impl Caller {
    fn call(&mut self) {
        let place = self.random.below(PLACES);
        let key = self.shared.key(place);
        let value = self.shared.values.fetch_add(1, Relaxed);
        let seen = self.seen[place as usize];
        let kind = self.random.below(20);
        let (body, wanted) = match kind {
            0..8 => (json!({ "type": "read", "key": key }), Action::Read(ABSENT)),
            8..13 => (
                json!({ "type": "write", "key": key, "value": value }),
                Action::Write(value),
            ),
            13..19 => (
                json!({ "type": "cas", "key": key, "from": seen, "to": value }),
                swap(seen, value, true),
            ),
            // Nobody ever writes what this expects: if it is done, the key was absent.
            _ => (
                json!({
                    "type": "cas", "key": key, "from": "never", "to": value, "create_if_not_exists": true
                }),
                swap(ABSENT, value, true),
            ),
        };
        let begin = self.shared.now();
        let answer = self.client.try_call(&self.node, body, TIMEOUT);
        let end = self.shared.now();
        let told = answer.map_or(Told::Open, |answer| told(wanted, &answer));
        let (action, end) = match told {
            Told::Ended(action) => (action, Some(end)),
            Told::Open => (wanted, None),
            Told::Never => {
                self.shared.refused.fetch_add(1, Relaxed);
                return thread::sleep(Duration::from_millis(5));
            }
        };
        match action {
            Action::Read(_) if end.is_none() => return,
            Action::Read(found) => self.seen[place as usize] = found,
            Action::Write(value)
            | Action::Swap {
                value, done: true, ..
            } if end.is_some() => self.seen[place as usize] = value,
            _ => {}
        }
        self.shared.note(Operation {
            key,
            begin,
            end,
            action,
            version: 0,
        });
    }
}

fn swap(expected: Value, value: Value, done: bool) -> Action {
    Action::Swap {
        expected,
        value,
        done,
    }
}

/// The value that a read found; none: it failed.
fn read_answer(answer: &Json) -> Option<Value> {
    match (answer["type"].as_str(), answer["code"].as_u64()) {
        (Some("read_ok"), _) => Some(answer["value"].as_u64().expect("a value that was written")),
        (_, Some(20)) => Some(ABSENT),
        _ => None,
    }
}

/// What an answer to what was wanted means, by Maelstrom's table of errors.
fn told(wanted: Action, answer: &Json) -> Told {
    let code = answer["code"].as_u64();
    match (wanted, answer["type"].as_str().unwrap_or_default(), code) {
        (_, "error", Some(0 | 13)) => Told::Open,
        (_, "error", Some(11 | 14)) => Told::Never,
        (Action::Read(_), ..) => {
            let found = read_answer(answer);
            Told::Ended(Action::Read(found.unwrap_or_else(|| panic!("{answer}"))))
        }
        (Action::Write(_), "write_ok", _) | (Action::Swap { .. }, "cas_ok", _) => {
            Told::Ended(wanted)
        }
        (
            Action::Swap {
                expected, value, ..
            },
            "error",
            Some(22),
        ) => Told::Ended(swap(expected, value, false)),
        // More than a failed comparison: the key was absent. Nobody writes zero, so that is not what was compared with.
        (Action::Swap { .. }, "error", Some(20)) => Told::Ended(Action::Read(ABSENT)),
        _ => panic!("{wanted:?} was answered with {answer}"),
    }
}
