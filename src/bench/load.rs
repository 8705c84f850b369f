//! The workers. Each has one request in flight, on keys of its own; all share one thread, one host, and one connection
//! to the primary.
//!
//! *Closed loop*: a worker's next request leaves when the last was answered. *Open loop*: requests arrive at a fixed
//! rate whatever the cluster does, and latency counts from the arrival, so a stall shows in every request that it
//! held up.

use super::ledger::{KeyId, Ledger, Record, Verdict};
use super::measure::Measurements;
use crate::client::kv::operation;
use crate::client::{CallError, Definite, Host, Kind, ReplyRef};
use crate::state_machine::kv::wire::{BatchReply, Item, ItemReply, Operation, Status};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// When to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// After so long.
    After(Duration),
    /// After so many operations.
    Count(u64),
}

/// What load to make.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Workers, and so most requests in flight.
    pub workers: usize,
    /// Operations in a request.
    pub batch: usize,
    /// Of all requests, the share that reads: 0 to 1.
    pub read_share: f64,
    /// When to stop.
    pub stop: Stop,
    /// Open loop: operations in a second. None: closed loop.
    pub rate: Option<f64>,
    /// How long a call may take.
    pub deadline: Duration,
    /// The order of keys and of reads follows from it.
    pub seed: u64,
}

/// Why no load could be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nobody leads.
    #[error("no primary was found within {0:?}{1}")]
    NoPrimary(Duration, String),
    /// Not one of the first writes was acknowledged.
    #[error("none of the first writes was acknowledged: {0}")]
    Refused(String),
    /// The client's sockets fail.
    #[error("the client cannot wait for its sockets: {0}")]
    Io(#[from] io::Error),
}

/// How long a worker rests after a failure.
const REST_NS: u64 = 10_000_000;

struct Worker {
    keys: Vec<KeyId>,
    kind: Kind,
    /// When the request arrived: before it was sent, if all workers were busy.
    arrived_ns: u64,
}

struct State<'a> {
    options: LoadOptions,
    ledger: &'a mut Ledger,
    random: Xoshiro256PlusPlus,
    workers: Vec<Worker>,
    ready: Vec<u32>,
    resting: VecDeque<(u64, u32)>,
    clock: Instant,
    measurements: Measurements,
    /// False while sessions are being opened: those requests count for the record, not for the figures.
    measuring: bool,
    body: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// What is called about every second, with the time since the start. It may break the load off.
pub type Progress<'a> = &'a mut dyn FnMut(Duration, &mut Measurements) -> ControlFlow<()>;

/// Loads the cluster.
///
/// # Errors
/// [`LoadError`].
pub fn run(
    host: &mut Host,
    options: LoadOptions,
    ledger: &mut Ledger,
    progress: Progress<'_>,
) -> Result<Measurements, LoadError> {
    wait_for_primary(host, options.deadline)?;
    let worker = || Worker {
        keys: Vec::with_capacity(options.batch),
        kind: Kind::Write,
        arrived_ns: 0,
    };
    let mut state = State {
        options,
        ledger,
        random: Xoshiro256PlusPlus::seed_from_u64(options.seed),
        workers: (0..options.workers).map(|_| worker()).collect(),
        ready: (0..options.workers as u32).rev().collect(),
        resting: VecDeque::new(),
        clock: host.clock(),
        measurements: Measurements::new(),
        measuring: false,
        body: Vec::new(),
        key: Vec::new(),
        value: Vec::new(),
    };
    state.warm_up(host)?;
    state.measuring = true;
    let start = host.now_ns();
    state.drive(host, start, progress)?;
    let mut measurements = state.measurements;
    measurements.elapsed_ns = host.now_ns() - start;
    Ok(measurements)
}

/// Takes turns until a primary answers.
///
/// # Errors
/// [`LoadError`].
pub fn wait_for_primary(host: &mut Host, deadline: Duration) -> Result<(), LoadError> {
    let until = host.now_ns() + deadline.as_nanos() as u64;
    while host.core().primary().is_none() {
        if host.now_ns() >= until {
            let troubles = host.troubles();
            let each = troubles.filter_map(|(address, it)| Some(format!("; {address}: {}", it?)));
            return Err(LoadError::NoPrimary(deadline, each.collect()));
        }
        host.turn(until, &mut |_, _| {})?;
    }
    Ok(())
}

impl State<'_> {
    fn idle(&self) -> usize {
        self.ready.len() + self.resting.len()
    }

    /// One write of each worker: it opens the sessions.
    fn warm_up(&mut self, host: &mut Host) -> Result<(), LoadError> {
        let now = host.now_ns();
        for worker in std::mem::take(&mut self.ready) {
            self.submit(host, worker, Kind::Write, now, now);
        }
        while self.idle() < self.workers.len() {
            host.turn(u64::MAX, &mut |tag, result| self.on_done(tag, result))?;
        }
        if self.measurements.acknowledged == 0 {
            let failure = self.measurements.first_failure.take();
            return Err(LoadError::Refused(failure.unwrap_or_default()));
        }
        Ok(())
    }

    fn drive(
        &mut self,
        host: &mut Host,
        start: u64,
        progress: Progress<'_>,
    ) -> Result<(), LoadError> {
        let batch = self.options.batch as u64;
        let per_second = self.options.rate.map(|rate| rate / batch as f64);
        let (end, requests_max) = match self.options.stop {
            Stop::After(duration) => (start + duration.as_nanos() as u64, u64::MAX),
            Stop::Count(count) => (u64::MAX, count.div_ceil(batch)),
        };
        let mut requests = 0;
        let mut shown_at = start;
        let mut broken_off = false;
        loop {
            let now = host.now_ns();
            while self.resting.front().is_some_and(|&(until, _)| until <= now) {
                let (_, worker) = self.resting.pop_front().expect("there is a front");
                self.ready.push(worker);
            }
            let more = now < end && requests < requests_max && !broken_off;
            let mut arrival = now;
            while more && requests < requests_max && !self.ready.is_empty() {
                if let Some(per_second) = per_second {
                    let since = Duration::from_secs_f64(requests as f64 / per_second);
                    arrival = start + since.as_nanos() as u64;
                }
                if arrival > now {
                    break;
                }
                let worker = self.ready.pop().expect("one is ready");
                let kind = self.draw_kind();
                self.submit(host, worker, kind, arrival, now);
                requests += 1;
            }
            if now >= shown_at + 1_000_000_000 {
                let elapsed = Duration::from_nanos(now - start);
                broken_off |= progress(elapsed, &mut self.measurements).is_break();
                self.measurements.recent.clear();
                self.measurements.recent_operations = 0;
                shown_at = now;
            }
            if !more && self.idle() == self.workers.len() {
                return Ok(());
            }
            let arrives = if more && arrival > now {
                arrival
            } else {
                u64::MAX
            };
            let rested = self.resting.front().map_or(u64::MAX, |&(until, _)| until);
            let until = arrives.min(rested).min(shown_at + 1_000_000_000);
            host.turn(until, &mut |tag, result| self.on_done(tag, result))?;
        }
    }

    fn draw_kind(&mut self) -> Kind {
        let draw = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        if draw < self.options.read_share {
            Kind::Read
        } else {
            Kind::Write
        }
    }

    fn submit(&mut self, host: &mut Host, worker: u32, kind: Kind, arrived_ns: u64, now: u64) {
        let places = self.ledger.keys_active(worker);
        let first = (self.random.next_u64() % places as u64) as usize;
        let it = &mut self.workers[worker as usize];
        it.kind = kind;
        it.arrived_ns = arrived_ns;
        it.keys.clear();
        self.body.clear();
        for place in first..first + self.options.batch {
            let id = self.ledger.active(worker, place % places);
            it.keys.push(id);
            self.ledger.key(id, &mut self.key);
            let item = if kind == Kind::Read {
                Item::Get {
                    key: &self.key,
                    size_max: u32::MAX,
                }
            } else {
                let number = self.ledger.attempt(id);
                self.ledger.value(id, number, &mut self.value);
                Item::Put {
                    key: &self.key,
                    value: &self.value,
                }
            };
            item.encode(&mut self.body);
        }
        let number = operation(match (self.options.batch, kind) {
            (1, Kind::Read) => Operation::Get,
            (1, _) => Operation::Put,
            _ => Operation::Batch,
        });
        let deadline = now + self.options.deadline.as_nanos() as u64;
        let core = host.core();
        if let Err(error) = core.submit(now, kind, number, &self.body, deadline, worker.into()) {
            self.on_done(worker.into(), Err(error.into()));
        }
    }

    fn on_done(&mut self, tag: u64, result: Result<ReplyRef<'_>, CallError>) {
        let worker = tag as u32;
        let now = self.clock.elapsed().as_nanos() as u64;
        let keys = std::mem::take(&mut self.workers[worker as usize].keys);
        let kind = self.workers[worker as usize].kind;
        let latency = now.saturating_sub(self.workers[worker as usize].arrived_ns);
        let failed = match result {
            Ok(reply) if kind == Kind::Read => self.on_read(&keys, reply, latency),
            Ok(reply) => self.on_written(&keys, reply, latency),
            Err(error) => {
                self.on_failed(&keys, kind, error);
                true
            }
        };
        self.workers[worker as usize].keys = keys;
        if failed {
            self.resting.push_back((now + REST_NS, worker));
        } else {
            self.ready.push(worker);
        }
    }

    fn on_written(&mut self, keys: &[KeyId], reply: ReplyRef<'_>, latency: u64) -> bool {
        let results = BatchReply::decode(reply.body).filter(|it| it.len() == keys.len());
        let mut results = results.map(|it| it.results());
        let mut done = 0;
        for &id in keys {
            match results
                .as_mut()
                .and_then(Iterator::next)
                .map(|it| it.status)
            {
                Some(Status::Done) => {
                    self.ledger.acknowledge(id);
                    done += 1;
                }
                Some(Status::OutOfSpace) => {
                    self.note_failure(Definite::OutOfSpace.to_string());
                    self.ledger.withdraw(id);
                    self.measurements.failed += 1;
                }
                // Executed, but not as asked: what the key holds now is unknown.
                _ => {
                    self.note_failure(format!(
                        "op {} answered a put with something else",
                        reply.op
                    ));
                    self.ledger.retire(id);
                    self.measurements.indeterminate += 1;
                }
            }
        }
        self.measurements.acknowledged += done;
        if done < keys.len() as u64 {
            return true;
        }
        if self.measuring {
            self.measurements.writes.record(latency);
            self.measurements.batches.record(reply.op);
            let now_ns = self.clock.elapsed().as_nanos() as u64;
            self.measurements.gap.answered(now_ns);
            self.count(keys.len(), latency);
        }
        false
    }

    fn on_read(&mut self, keys: &[KeyId], reply: ReplyRef<'_>, latency: u64) -> bool {
        let mut wrong = 0;
        let mut check =
            |ledger: &Ledger, scratch: &mut Vec<u8>, id: KeyId, it: Option<ItemReply<'_>>| {
                let found = match it.map(|it| (it.status, it.value)) {
                    Some((Status::Value, value)) => Some(value),
                    Some((Status::NotFound, _)) => None,
                    _ => {
                        wrong += 1;
                        return;
                    }
                };
                // The key's only writer is waiting for this answer: exactly the last acknowledged write must show.
                let verdict = ledger.judge(id, found, scratch);
                wrong += u64::from(!matches!(verdict, Verdict::Present | Verdict::Absent));
            };
        if self.options.batch == 1 {
            check(
                self.ledger,
                &mut self.value,
                keys[0],
                ItemReply::decode(reply.body),
            );
        } else {
            let results = BatchReply::decode(reply.body).filter(|it| it.len() == keys.len());
            let mut results = results.map(|it| it.results());
            for &id in keys {
                let result = results.as_mut().and_then(Iterator::next);
                check(self.ledger, &mut self.value, id, result);
            }
        }
        if wrong > 0 {
            self.measurements.stale += wrong;
            self.note_failure(format!(
                "a read at op {} did not show the last acknowledged write",
                reply.op
            ));
        }
        if self.measuring {
            self.measurements.reads.record(latency);
            self.count(keys.len(), latency);
        }
        false
    }

    fn count(&mut self, operations: usize, latency: u64) {
        self.measurements.recent.record(latency);
        self.measurements.operations += operations as u64;
        self.measurements.recent_operations += operations as u64;
    }

    fn on_failed(&mut self, keys: &[KeyId], kind: Kind, error: CallError) {
        self.note_failure(error.to_string());
        if kind == Kind::Write && error.is_indeterminate() {
            self.measurements.indeterminate += keys.len() as u64;
            for &id in keys {
                self.ledger.retire(id);
            }
            return;
        }
        self.measurements.failed += keys.len() as u64;
        if kind == Kind::Write {
            for &id in keys {
                self.ledger.withdraw(id);
            }
        }
    }

    fn note_failure(&mut self, what: String) {
        self.measurements.first_failure.get_or_insert(what);
    }
}

/// Makes the store lose an acknowledged write: deletes its key without telling the record. For the test of the
/// verification itself.
///
/// # Errors
/// What went wrong, for the user.
pub fn drop_record(host: &mut Host, ledger: &Ledger, deadline: Duration) -> Result<(), String> {
    let acknowledged = |&(_, record): &(KeyId, Record)| record.acknowledged > 0;
    let (id, _) = ledger
        .written()
        .find(acknowledged)
        .ok_or("no write was acknowledged")?;
    let (mut key, mut body) = (Vec::new(), Vec::new());
    ledger.key(id, &mut key);
    Item::Delete { key: &key }.encode(&mut body);
    let now = host.now_ns();
    let (until, number) = (
        now + deadline.as_nanos() as u64,
        operation(Operation::Delete),
    );
    let core = host.core();
    core.submit(now, Kind::Write, number, &body, until, 0)
        .map_err(|error| error.to_string())?;
    let mut outcome = None;
    while outcome.is_none() {
        let mut on_done =
            |_, result: Result<ReplyRef<'_>, CallError>| outcome = Some(result.map(|_| ()));
        host.turn(u64::MAX, &mut on_done)
            .map_err(|error| error.to_string())?;
    }
    outcome
        .expect("the loop ends with one")
        .map_err(|error| error.to_string())
}
