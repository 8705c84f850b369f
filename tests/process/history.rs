//! A load that keeps its history: who asked what when, and what was answered when. Whether any answer was wrong is for the
//! checker to say ([`super::linearizability`]), and how long nobody could write is read off it.
//!
//! Several threads share a few keys, and a key is given up for a new one after some hundred operations, so that histories of
//! keys stay short. Every value is written once in the whole run. A write whose outcome is unknown stays open in the
//! history for ever, and its caller goes on with others.

use super::CLUSTER;
use super::linearizability::{self, ABSENT, Action, Operation, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use viewstone::client::kv::{KvClient, KvError, Swap};
use viewstone::client::{CallError, ClientOptions, Definite};

/// How the clients ask.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Threads of each group of clients; a group shares one client of the library.
    pub threads: usize,
    /// Keys in use at a time.
    pub keys: usize,
    /// Between two calls of a thread.
    pub pause: Duration,
    /// How long a call may take.
    pub deadline: Duration,
    /// Bytes of a value, at least.
    pub value_size: usize,
}

impl Shape {
    /// Enough to have something under way at any moment, with most of two cores left over.
    pub const STEADY: Self = Self {
        threads: 4,
        keys: 6,
        pause: Duration::from_millis(2),
        deadline: Duration::from_secs(2),
        value_size: 64,
    };
}

/// Operations after which a key is given up, and open ones among them: the checker tries where each of those may belong.
const OPERATIONS_MAX: u64 = 250;
const OPEN_MAX: u64 = 6;

/// The key in use at one of the places.
#[derive(Default)]
struct Place {
    generation: AtomicU64,
    operations: AtomicU64,
    open: AtomicU64,
}

struct Shared {
    shape: Shape,
    epoch: Instant,
    places: Vec<Place>,
    values: AtomicU64,
    stop: AtomicBool,
    /// Changes answered, of all groups.
    acknowledged: AtomicU64,
    /// Of each group.
    by_group: Vec<AtomicU64>,
}

/// The clients at work.
pub struct Recorder {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Record>>,
}

/// What one thread has to tell.
#[derive(Default)]
struct Record {
    operations: Vec<Operation>,
    /// Calls that ended without any effect.
    failed: u64,
}

/// All that was asked and answered.
pub struct History {
    pub operations: Vec<Operation>,
    epoch: Instant,
    /// When changes were answered, in order.
    answers: Vec<u64>,
    failed: u64,
}

impl Recorder {
    /// Starts clients, in groups, each with addresses of its own.
    pub fn start(groups: &[&[String]], shape: Shape) -> Self {
        let shared = Arc::new(Shared {
            shape,
            epoch: Instant::now(),
            places: (0..shape.keys).map(|_| Place::default()).collect(),
            values: AtomicU64::new(ABSENT + 1),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            by_group: groups.iter().map(|_| AtomicU64::new(0)).collect(),
        });
        let mut threads = Vec::new();
        for (group, addresses) in groups.iter().enumerate() {
            let client = Arc::new(client(addresses, &shape));
            for thread in 0..shape.threads {
                let caller = Caller {
                    client: Arc::clone(&client),
                    shared: Arc::clone(&shared),
                    group,
                    draws: (group * shape.threads + thread) as u64,
                    last: vec![(0, ABSENT); shape.keys],
                    record: Record::default(),
                };
                threads.push(thread::spawn(move || caller.run()));
            }
        }
        Self { shared, threads }
    }

    /// Changes answered so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Relaxed)
    }

    /// Changes answered so far to one group of clients.
    pub fn acknowledged_by(&self, group: usize) -> u64 {
        self.shared.by_group[group].load(Relaxed)
    }

    /// Waits until so many more changes are answered, and returns the time that took.
    pub fn wait_for_more(&self, changes: u64) -> Duration {
        self.wait(changes, "nobody can write any more", Self::acknowledged)
    }

    /// The same for one group.
    pub fn wait_for_more_by(&self, group: usize, changes: u64) -> Duration {
        let text = format!("clients {group} cannot write any more");
        self.wait(changes, &text, |this| this.acknowledged_by(group))
    }

    fn wait(&self, changes: u64, text: &str, count: impl Fn(&Self) -> u64) -> Duration {
        let (begin, before) = (Instant::now(), count(self));
        while count(self) < before + changes {
            let dead = self.threads.iter().any(JoinHandle::is_finished);
            assert!(!dead, "a client has found an error (see above)");
            assert!(begin.elapsed() < super::HANG, "{text}");
            thread::sleep(Duration::from_micros(500));
        }
        begin.elapsed()
    }

    /// Ends the load, reads every key once more through a client with these addresses, and checks everything.
    pub fn finish(self, addresses: &[String]) -> History {
        self.shared.stop.store(true, Relaxed);
        let records = self.threads.into_iter().map(JoinHandle::join);
        let mut history = History {
            operations: Vec::new(),
            epoch: self.shared.epoch,
            answers: Vec::new(),
            failed: 0,
        };
        for record in records {
            let record = record.expect("no client finds an error");
            history.operations.extend(record.operations);
            history.failed += record.failed;
        }
        let shape = Shape {
            deadline: super::HANG,
            ..self.shared.shape
        };
        let client = client(addresses, &shape);
        for (place, it) in self.shared.places.iter().enumerate() {
            for generation in 0..=it.generation.load(Relaxed) {
                let key = key_of(place, generation);
                let begin = nanoseconds(self.shared.epoch);
                let found = client.get(&key_bytes(key)).expect("the cluster serves");
                let found = found.map_or(ABSENT, |it| value_of(&it.value));
                history.operations.push(Operation {
                    key,
                    begin,
                    end: Some(nanoseconds(self.shared.epoch)),
                    action: Action::Read(found),
                    version: 0,
                });
            }
        }
        let changes = history.operations.iter().filter(|it| is_change(it));
        history.answers = changes.filter_map(|it| it.end).collect();
        history.answers.sort_unstable();
        if let Err(violation) = linearizability::check(&history.operations) {
            panic!("NOT LINEARIZABLE: {violation}");
        }
        history
    }
}

impl History {
    /// The longest time within these moments in which no change was answered.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let at = |moment: Instant| moment.saturating_duration_since(self.epoch).as_nanos() as u64;
        let (from, to) = (at(from), at(to));
        let within = self
            .answers
            .iter()
            .copied()
            .filter(|&it| (from..to).contains(&it));
        let (mut last, mut longest) = (from, 0);
        for answer in within.chain([to]) {
            longest = longest.max(answer - last);
            last = answer;
        }
        Duration::from_nanos(longest)
    }

    /// Changes answered within these moments.
    pub fn answered(&self, from: Instant, to: Instant) -> usize {
        let at = |moment: Instant| moment.saturating_duration_since(self.epoch).as_nanos() as u64;
        let (from, to) = (at(from), at(to));
        let within = self.answers.iter().filter(|it| (from..to).contains(it));
        within.count()
    }

    /// In how many of the whole seconds between these moments a change was answered, and how many there are.
    pub fn seconds_served(&self, from: Instant, to: Instant) -> (usize, u64) {
        let seconds = to.duration_since(from).as_secs();
        let second = |it| from + Duration::from_secs(it);
        let served = (0..seconds).filter(|&it| self.answered(second(it), second(it + 1)) > 0);
        (served.count(), seconds)
    }

    /// One line of figures.
    pub fn summary(&self) -> String {
        let open = self.operations.iter().filter(|it| it.end.is_none()).count();
        format!(
            "{} operations, {} of them changes that were answered, {open} with unknown outcome; {} more had no effect; the \
             history is linearizable",
            self.operations.len(),
            self.answers.len(),
            self.failed,
        )
    }
}

fn is_change(operation: &Operation) -> bool {
    !matches!(operation.action, Action::Read(_))
}

fn nanoseconds(epoch: Instant) -> u64 {
    epoch.elapsed().as_nanos() as u64
}

fn client(addresses: &[String], shape: &Shape) -> KvClient {
    let mut options = ClientOptions::new(CLUSTER, addresses.iter().cloned());
    options.sessions = 2 * shape.threads;
    options.deadline = shape.deadline;
    KvClient::connect(&options).expect("the options make sense")
}

fn key_of(place: usize, generation: u64) -> u64 {
    (place as u64) << 32 | generation
}

fn key_bytes(key: u64) -> Vec<u8> {
    format!("key-{key:x}").into_bytes()
}

fn value_bytes(value: Value, size: usize) -> Vec<u8> {
    let mut bytes = format!("{value:x} ").into_bytes();
    bytes.resize(bytes.len().max(size), b'.');
    bytes
}

fn value_of(bytes: &[u8]) -> Value {
    let text = bytes.split(|&it| it == b' ').next().unwrap_or_default();
    let text = std::str::from_utf8(text).expect("a value that was written");
    Value::from_str_radix(text, 16).expect("a value that was written")
}

/// One thread of clients.
struct Caller {
    client: Arc<KvClient>,
    shared: Arc<Shared>,
    group: usize,
    draws: u64,
    /// What it last saw at each place, and in which generation: what it compares with.
    last: Vec<(u64, Value)>,
    record: Record,
}

impl Caller {
    fn run(mut self) -> Record {
        while !self.shared.stop.load(Relaxed) {
            self.call();
            thread::sleep(self.shared.shape.pause);
        }
        self.record
    }

    fn draw(&mut self, bound: u64) -> u64 {
        self.draws = self
            .draws
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (self.draws >> 33) % bound
    }

    /// One operation on one of the keys.
    fn call(&mut self) {
        let place = self.draw(self.shared.shape.keys as u64) as usize;
        let kind = self.draw(10);
        let generation = self.shared.places[place].generation.load(Relaxed);
        let value = self.shared.values.fetch_add(1, Relaxed);
        let (seen, expected) = self.last[place];
        let expected = if seen == generation { expected } else { ABSENT };
        let key = key_of(place, generation);
        let begin = nanoseconds(self.shared.epoch);
        let result = match kind {
            0..4 => self.read(key),
            4..7 => self.write(key, value),
            _ => self.swap(key, expected, value),
        };
        let end = nanoseconds(self.shared.epoch);
        let operation = |(action, version), end| Operation {
            key,
            begin,
            end,
            action,
            version,
        };
        match result {
            Ok(answer) => {
                self.learn(place, generation, answer.0);
                self.note(operation(answer, Some(end)));
            }
            Err(error) if error.is_indeterminate() => {
                let action = match kind {
                    ..7 => Action::Write(value),
                    _ => swapped(expected, value, false),
                };
                self.note(operation((action, 0), None));
            }
            Err(KvError::Call(CallError::NotSent(_) | CallError::Definite(Definite::NoAnswer))) => {
                self.record.failed += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&self, key: u64) -> Result<(Action, u64), KvError> {
        let found = self.client.get(&key_bytes(key))?;
        let found = found.map_or(ABSENT, |it| value_of(&it.value));
        Ok((Action::Read(found), 0))
    }

    fn write(&self, key: u64, value: Value) -> Result<(Action, u64), KvError> {
        let content = self.content(value);
        let version = self.client.put(&key_bytes(key), &content)?;
        Ok((Action::Write(value), version))
    }

    fn swap(&self, key: u64, expected: Value, value: Value) -> Result<(Action, u64), KvError> {
        let (compared, content) = (self.content(expected), self.content(value));
        let compared = (expected != ABSENT).then_some(&compared[..]);
        let swap = self
            .client
            .compare_and_set(&key_bytes(key), compared, &content)?;
        Ok(match swap {
            Swap::Done(version) => (swapped(expected, value, true), version),
            Swap::Mismatch(_) => (swapped(expected, value, false), 0),
        })
    }

    fn content(&self, value: Value) -> Vec<u8> {
        value_bytes(value, self.shared.shape.value_size)
    }

    /// Adds an operation to the history, and gives its key up when it has had enough of them.
    fn note(&mut self, operation: Operation) {
        self.record.operations.push(operation);
        let shared = &self.shared;
        let place = &shared.places[(operation.key >> 32) as usize];
        if operation.end.is_none() {
            place.open.fetch_add(1, Relaxed);
        } else if is_change(&operation) {
            shared.acknowledged.fetch_add(1, Relaxed);
            shared.by_group[self.group].fetch_add(1, Relaxed);
        }
        let used = place.operations.fetch_add(1, Relaxed);
        if used >= OPERATIONS_MAX || place.open.load(Relaxed) >= OPEN_MAX {
            let generation = operation.key & u64::from(u32::MAX);
            let next = generation + 1;
            let given_up = place
                .generation
                .compare_exchange(generation, next, Relaxed, Relaxed);
            if given_up.is_ok() {
                place.operations.store(0, Relaxed);
                place.open.store(0, Relaxed);
            }
        }
    }

    fn learn(&mut self, index: usize, generation: u64, action: Action) {
        let value = match action {
            Action::Read(value) | Action::Write(value) => value,
            Action::Swap {
                value, done: true, ..
            } => value,
            Action::Swap { .. } => return,
        };
        self.last[index] = (generation, value);
    }
}

fn swapped(expected: Value, value: Value, done: bool) -> Action {
    Action::Swap {
        expected,
        value,
        done,
    }
}
