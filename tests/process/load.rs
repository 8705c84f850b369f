//! A load of which every answer is checked: no acknowledged change may be lost, none may be made twice.
//!
//! One client, many writers, each with a key of its own that counts up. The store numbers all changes of all keys without
//! gaps, so at the end the versions that were acknowledged must be exactly 1, 2, 3, ... up to the store's revision: a
//! lost change, one made twice, or one that nobody asked for shows as a gap or a repetition. Half the changes compare
//! first, so that a loss shows at once as well.

use super::CLUSTER;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use viewstone::client::kv::{KvClient, KvError, Swap};
use viewstone::client::{CallError, ClientOptions, UnknownReason};
use viewstone::state_machine::kv::wire::{ItemReply, Status};

/// How the writers write.
#[derive(Clone, Copy)]
pub struct Shape {
    pub writers: usize,
    /// Largest value, in bytes.
    pub value_size: usize,
    /// Between two changes of a writer.
    pub pause: Duration,
    /// Some calls have a deadline shorter than a restart takes: their outcomes are settled afterwards.
    pub short_deadlines: bool,
}

struct Shared {
    client: KvClient,
    shape: Shape,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    /// Of every acknowledged change.
    versions: Mutex<Vec<u64>>,
}

/// The writers.
pub struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Last>>,
}

/// The last acknowledged change of a writer.
struct Last {
    key: Vec<u8>,
    value: Vec<u8>,
    version: u64,
}

/// What a load has done.
#[derive(Debug)]
pub struct Summary {
    pub acknowledged: u64,
    /// Calls that first ended with an unknown outcome, and were settled.
    pub settled: u64,
}

pub fn client(addresses: &[String], sessions: usize) -> KvClient {
    let mut options = ClientOptions::new(CLUSTER, addresses.iter().cloned());
    options.sessions = sessions;
    options.deadline = Duration::from_mins(1);
    KvClient::connect(&options).expect("the options make sense")
}

impl Load {
    pub fn start(addresses: &[String], shape: Shape) -> Self {
        let shared = Arc::new(Shared {
            client: client(addresses, 2 * shape.writers),
            shape,
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            versions: Mutex::default(),
        });
        let writer = |number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || write(&shared, number))
        };
        let writers = (0..shape.writers).map(writer).collect();
        Self { shared, writers }
    }

    /// Changes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more changes are acknowledged, and returns the time that took.
    pub fn wait_for_more(&self, changes: u64) -> Duration {
        let (begin, before) = (Instant::now(), self.acknowledged());
        while self.acknowledged() < before + changes {
            let dead = self.writers.iter().any(JoinHandle::is_finished);
            assert!(!dead, "a writer has found an error (see above)");
            assert!(begin.elapsed() < super::HANG, "no changes any more");
            thread::sleep(Duration::from_micros(200));
        }
        begin.elapsed()
    }

    /// Ends the load, and checks the whole store against it. The store held nothing before.
    pub fn finish(self) -> Summary {
        self.shared.stop.store(true, Ordering::Relaxed);
        let lasts: Vec<Last> = self
            .writers
            .into_iter()
            .map(|writer| writer.join().expect("no writer finds an error"))
            .collect();
        let client = &self.shared.client;
        for last in &lasts {
            let found = client.get(&last.key).expect("the cluster serves");
            let found = found.expect("an acknowledged key is there");
            assert!(found.value == last.value, "the last acknowledged value");
            assert_eq!(found.version, last.version);
        }
        let count = client.count().expect("the cluster serves");
        assert_eq!(count.count, lasts.len() as u64);
        let mut versions = self.shared.versions.lock().expect("nobody panics here");
        versions.sort_unstable();
        for (version, expected) in versions.iter().zip(1..) {
            assert_eq!(*version, expected, "lost, made twice, or made by nobody");
        }
        assert_eq!(count.revision, versions.len() as u64);
        Summary {
            acknowledged: versions.len() as u64,
            settled: self.shared.unknown.load(Ordering::Relaxed),
        }
    }
}

fn write(shared: &Shared, number: usize) -> Last {
    let shape = shared.shape;
    let key = format!("writer-{number}").into_bytes();
    let mut last = Last {
        key,
        value: Vec::new(),
        version: 0,
    };
    let mut versions = Vec::new();
    let mut count = 0u64;
    while last.version == 0 || !shared.stop.load(Ordering::Relaxed) {
        count += 1;
        // Mostly small; some span several sectors.
        let spread = (count.wrapping_mul(0x9e37_79b9) >> 16) as usize % 97;
        let mut value = format!("{number} {count} ").into_bytes();
        let size = shape.value_size * spread * spread / (96 * 96);
        value.resize(value.len().max(size), b'.');
        let version = change(shared, &last, count, &value);
        assert!(
            version > last.version,
            "versions rise: {version}, {}",
            last.version
        );
        last.value = value;
        last.version = version;
        versions.push(version);
        shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        if shape.pause > Duration::ZERO {
            thread::sleep(shape.pause);
        }
    }
    let mut all = shared.versions.lock().expect("nobody panics here");
    all.append(&mut versions);
    last
}

/// Makes one change, however often it has to be asked how it ended. Its version.
fn change(shared: &Shared, last: &Last, count: u64, value: &[u8]) -> u64 {
    let client = &shared.client;
    let compares = count.is_multiple_of(2) && last.version > 0;
    if shared.shape.short_deadlines && count % 8 == 3 {
        return change_impatiently(shared, last, value);
    }
    if compares {
        let swap = client.compare_and_set(&last.key, Some(&last.value), value);
        match swap.expect("the deadline is long") {
            Swap::Done(version) => return version,
            Swap::Mismatch(version) => panic!(
                "the last acknowledged change (version {}) is not there: version {version}",
                last.version
            ),
        }
    }
    let put = client.put(&last.key, value);
    put.expect("the deadline is long")
}

/// As a caller in a hurry: the first wait is short, and what it leaves open is settled later.
fn change_impatiently(shared: &Shared, last: &Last, value: &[u8]) -> u64 {
    use viewstone::client::Kind;
    use viewstone::client::kv::operation;
    use viewstone::state_machine::kv::wire::{Item, Operation};
    let client = shared.client.client();
    let mut body = Vec::new();
    let key = &last.key;
    Item::Put { key, value }.encode(&mut body);
    let number = operation(Operation::Put);
    loop {
        let call = client.submit(Kind::Write, number, &body, Duration::from_millis(20));
        let mut result = call.wait();
        while let Err(CallError::Indeterminate(unknown)) = &result {
            if unknown.reason == UnknownReason::Superseded {
                // It had ended, and its session was used again, before we asked: the key tells how.
                return settled_version(&shared.client, last, value);
            }
            shared.unknown.fetch_add(1, Ordering::Relaxed);
            result = client.resolve(unknown, Duration::from_mins(1)).wait();
        }
        match result {
            Ok(reply) => {
                let reply = ItemReply::decode(&reply.body).expect("the machine's answer");
                assert_eq!(reply.status, Status::Done);
                return reply.version;
            }
            // Nobody ever had it, so it may be asked for anew.
            Err(CallError::NotSent(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn settled_version(client: &KvClient, last: &Last, value: &[u8]) -> u64 {
    let found: Result<_, KvError> = client.get(&last.key);
    let found = found.expect("the deadline is long").expect("just written");
    assert!(found.value == value, "a request that has ended was made");
    found.version
}
