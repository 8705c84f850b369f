//! A simulated disk: executes [`IoRequest`]s with latency in virtual time, and loses at a power cut what nobody made
//! durable.
//!
//! The model, sector by sector (4 KiB):
//!
//! * A write that has *completed* is in the device: every later read sees it. It is durable if its own `durable` flag
//!   was set, or once a sync has completed that was submitted after the write's completion.
//! * At a **power cut** each sector takes, independently, any of its *candidates*: its newest durable content, any
//!   content written and completed since, and that of a write still in flight. So a write of several sectors leaves any
//!   subset of them, and a device may write its cache back in any order. With [`Tear::Bytes512`] the choice is made for
//!   each 512 bytes.
//! * A **killed process** loses no completed write. Each of its writes in flight lands whole or not at all, and what
//!   lands is no more durable than any completed write: a power cut may still take it.
//! * A read returns what the sectors hold at its completion: all writes completed by then, none in flight.
//! * Two writes in flight to one sector have no defined outcome on a real device; the disk refuses them (a panic),
//!   because code that does so is wrong.
//!
//! A write may end otherwise than its completion says ([`Fate`]): it is dropped, or lands elsewhere. Which writes do,
//! which sectors decay, and which reads fail is decided by whoever hosts the disk ([`crate::atlas`]).
//!
//! Content is kept in reference-counted sectors, so that a state of the disk is cheap to keep and to branch from:
//! [`Disk::state`] and [`crate::explore`].

mod state;

pub use state::{Cut, DiskState, Tear, Undecided};

use crate::prng::Prng;
use state::Sector;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use storage::SECTOR_SIZE;
use storage::io::{IoDone, IoRequest};

/// No request takes longer, however slow the disk, in nanoseconds: a device that does is dead.
const LATENCY_MAX_NS: u64 = 2_000_000_000;

/// How fast a disk is. Latencies are drawn from an exponential distribution above a minimum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSpeed {
    /// Least latency of a read, in nanoseconds.
    pub read_min_ns: u64,
    /// Mean of what comes on top.
    pub read_mean_ns: u64,
    /// Least latency of a write or sync.
    pub write_min_ns: u64,
    /// Mean of what comes on top.
    pub write_mean_ns: u64,
    /// Time for each sector moved, in nanoseconds.
    pub sector_ns: u64,
    /// Chance that a request takes `slow_factor` times as long, in parts per million.
    pub slow_chance: u32,
    /// See `slow_chance`.
    pub slow_factor: u64,
}

impl DiskSpeed {
    /// A good solid-state drive.
    pub const FAST: Self = Self {
        read_min_ns: 40_000,
        read_mean_ns: 40_000,
        write_min_ns: 20_000,
        write_mean_ns: 60_000,
        sector_ns: 2_000,
        slow_chance: 0,
        slow_factor: 1,
    };

    /// Nothing takes time: for tests of storage code alone.
    pub const INSTANT: Self = Self {
        read_min_ns: 0,
        read_mean_ns: 0,
        write_min_ns: 0,
        write_mean_ns: 0,
        sector_ns: 0,
        slow_chance: 0,
        slow_factor: 1,
    };
}

/// What happened to a disk: proof that a run reached what it claims to test.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskStatistics {
    /// Reads completed.
    pub reads: u64,
    /// Writes completed.
    pub writes: u64,
    /// Writes completed that were durable by themselves.
    pub writes_durable: u64,
    /// Syncs completed.
    pub syncs: u64,
    /// Sectors written.
    pub sectors_written: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Process crashes.
    pub process_crashes: u64,
    /// Writes that were in flight at a power cut or crash.
    pub in_flight_at_crash: u64,
    /// Of those, writes of several sectors that landed in part.
    pub torn: u64,
    /// Of those, writes that landed whole.
    pub landed: u64,
    /// Sectors of completed writes that a power cut took back.
    pub unsynced_lost: u64,
    /// Writes that were acknowledged and never landed.
    pub dropped: u64,
    /// Writes that were acknowledged and landed elsewhere.
    pub misplaced: u64,
}

impl DiskStatistics {
    /// Adds another disk's.
    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.writes_durable += other.writes_durable;
        self.syncs += other.syncs;
        self.sectors_written += other.sectors_written;
        self.power_cuts += other.power_cuts;
        self.process_crashes += other.process_crashes;
        self.in_flight_at_crash += other.in_flight_at_crash;
        self.torn += other.torn;
        self.landed += other.landed;
        self.unsynced_lost += other.unsynced_lost;
        self.dropped += other.dropped;
        self.misplaced += other.misplaced;
    }
}

/// What becomes of a write that is reported as done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is done.
    Lands,
    /// Nothing is written.
    Dropped,
    /// It is written at this offset instead.
    Elsewhere(u64),
    /// As the others say, but only from [`Disk::spring`] on: until then reads see it, as if from the device's cache,
    /// and a crash makes it land after all.
    Later(Option<u64>),
}

/// A write whose fate comes later.
#[derive(Debug)]
struct Deferred {
    at: u64,
    before: Vec<Sector>,
    written: Vec<Sector>,
    elsewhere: Option<u64>,
}

/// A request in flight, with the place in the order of completions it was given.
#[derive(Debug)]
struct InFlight {
    due_ns: u64,
    sequence: u64,
    /// Of a sync: the completions it covers.
    covers: u64,
    request: IoRequest,
}

impl PartialEq for InFlight {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for InFlight {}

impl PartialOrd for InFlight {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for InFlight {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due_ns, self.sequence).cmp(&(other.due_ns, other.sequence))
    }
}

/// The disk of one replica. Outlives the replica's process.
#[derive(Debug)]
pub struct Disk {
    state: DiskState,
    speed: DiskSpeed,
    prng: Prng,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    deferred: Vec<Deferred>,
    sequence: u64,
    statistics: DiskStatistics,
}

impl Disk {
    /// A disk of `size` bytes, whole sectors, all zero and durable.
    pub fn new(size: u64, speed: DiskSpeed, prng: Prng) -> Self {
        Self::with_state(DiskState::new(size), speed, prng)
    }

    /// A disk that holds `state`, with nothing in flight.
    pub fn with_state(state: DiskState, speed: DiskSpeed, prng: Prng) -> Self {
        assert!(
            state.in_flight_is_empty(),
            "whose would the completions be?"
        );
        Self {
            state,
            speed,
            prng,
            in_flight: BinaryHeap::new(),
            deferred: Vec::new(),
            sequence: 0,
            statistics: DiskStatistics::default(),
        }
    }

    /// What the disk holds and what is undecided of it.
    pub fn state(&self) -> &DiskState {
        &self.state
    }

    /// What the disk holds, to damage it.
    pub fn state_mut(&mut self) -> &mut DiskState {
        &mut self.state
    }

    /// Puts another state in the disk's place: a copy of it from earlier, or a new file.
    pub fn replace(&mut self, state: DiskState) {
        assert!(self.in_flight.is_empty() && state.in_flight_is_empty());
        assert_eq!(state.size(), self.state.size());
        self.deferred.clear();
        self.state = state;
    }

    /// What happened so far.
    pub fn statistics(&self) -> &DiskStatistics {
        &self.statistics
    }

    /// Changes the latencies of requests submitted from now on.
    pub fn set_speed(&mut self, speed: DiskSpeed) {
        self.speed = speed;
    }

    /// Begins a request.
    pub fn submit(&mut self, now_ns: u64, request: IoRequest) {
        let mut covers = 0;
        let latency_ns = match &request {
            IoRequest::Write {
                at, size, buffer, ..
            } => {
                self.state.begin_write(*at, &buffer.bytes()[..*size]);
                self.latency(self.speed.write_min_ns, self.speed.write_mean_ns, *size)
            }
            IoRequest::Read { at, size, .. } => {
                assert!(
                    at + *size as u64 <= self.state.size(),
                    "a read beyond the end"
                );
                self.latency(self.speed.read_min_ns, self.speed.read_mean_ns, *size)
            }
            IoRequest::Sync { .. } => {
                covers = self.state.completions();
                self.latency(self.speed.write_min_ns, self.speed.write_mean_ns, 0)
            }
        };
        self.sequence += 1;
        self.in_flight.push(Reverse(InFlight {
            due_ns: now_ns + latency_ns,
            sequence: self.sequence,
            covers,
            request,
        }));
    }

    fn latency(&mut self, min_ns: u64, mean_ns: u64, size: usize) -> u64 {
        let sectors = (size / SECTOR_SIZE) as u64;
        let tail = if mean_ns > 0 {
            self.prng.exponential(mean_ns)
        } else {
            0
        };
        let latency = min_ns + tail + sectors * self.speed.sector_ns;
        let slow = self.prng.chance(self.speed.slow_chance);
        let factor = if slow { self.speed.slow_factor } else { 1 };
        (latency * factor).min(LATENCY_MAX_NS)
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// When the next completion is due; none if nothing is in flight.
    pub fn next_completion_ns(&self) -> Option<u64> {
        self.in_flight.peek().map(|next| next.0.due_ns)
    }

    /// The next request to complete, if it is due by `now_ns`.
    pub fn due(&self, now_ns: u64) -> Option<&IoRequest> {
        let next = &self.in_flight.peek()?.0;
        (next.due_ns <= now_ns).then_some(&next.request)
    }

    /// Completes the next request, if it is due by `now_ns`.
    pub fn complete(&mut self, now_ns: u64) -> Option<IoDone> {
        self.complete_as(now_ns, Fate::Lands)
    }

    /// As [`Disk::complete`]; if it is a write, with this fate.
    pub fn complete_as(&mut self, now_ns: u64, fate: Fate) -> Option<IoDone> {
        if self.next_completion_ns()? > now_ns {
            return None;
        }
        let InFlight {
            covers, request, ..
        } = self.in_flight.pop()?.0;
        let id = request.id();
        let buffer = match request {
            IoRequest::Write {
                at,
                size,
                buffer,
                durable,
                ..
            } => {
                self.finish_write(at, size, durable, fate);
                self.statistics.writes += 1;
                self.statistics.writes_durable += u64::from(durable);
                self.statistics.sectors_written += (size / SECTOR_SIZE) as u64;
                Some(buffer)
            }
            IoRequest::Read {
                at,
                size,
                mut buffer,
                ..
            } => {
                self.state.read(at, &mut buffer.bytes_mut()[..size]);
                self.statistics.reads += 1;
                Some(buffer)
            }
            IoRequest::Sync { .. } => {
                self.state.finish_sync(covers);
                self.statistics.syncs += 1;
                None
            }
        };
        Some(IoDone {
            id,
            buffer,
            result: Ok(()),
        })
    }

    fn finish_write(&mut self, at: u64, size: usize, durable: bool, fate: Fate) {
        self.deferred.retain(|write| write.at != at);
        match fate {
            Fate::Lands => self.state.finish_write(at, durable),
            Fate::Dropped => {
                self.statistics.dropped += 1;
                self.state.cancel_write(at);
            }
            Fate::Elsewhere(to) => {
                self.statistics.misplaced += 1;
                self.state.misplace_write(at, to);
            }
            Fate::Later(elsewhere) => {
                assert!(durable, "what is not durable may be lost anyway");
                let before = self.state.contents(at, size);
                self.state.finish_write(at, durable);
                let written = self.state.contents(at, size);
                self.deferred.push(Deferred {
                    at,
                    before,
                    written,
                    elsewhere,
                });
            }
        }
    }

    /// Where a write at `at` with the fate [`Fate::Later`] will land, if elsewhere.
    pub fn deferred_target(&self, at: u64) -> Option<u64> {
        let found = self.deferred.iter().find(|write| write.at == at);
        found.and_then(|write| write.elsewhere)
    }

    /// Lets a write at `at` with the fate [`Fate::Later`] meet it, unless it has been overwritten, or what was meant to
    /// be overwritten elsewhere is being written. Whether it did.
    pub fn spring(&mut self, at: u64) -> bool {
        let Some(index) = self.deferred.iter().position(|write| write.at == at) else {
            return false;
        };
        let Deferred {
            before,
            written,
            elsewhere,
            ..
        } = self.deferred.swap_remove(index);
        let size = written.len() * SECTOR_SIZE;
        if self.state.is_writing(at, size) || self.state.contents(at, size) != written {
            return false;
        }
        match elsewhere {
            Some(to) if self.state.is_writing(to, size) => return false,
            Some(to) => {
                self.statistics.misplaced += 1;
                self.state.put(to / SECTOR_SIZE as u64, written);
            }
            None => self.statistics.dropped += 1,
        }
        self.state.put(at / SECTOR_SIZE as u64, before);
        true
    }

    /// Cuts the power: the host is gone, and each undecided sector takes one of its candidates by chance. Half of the
    /// cuts are fair; the others lean to the old or to the new, so that "all lost" and "all but one landed" are common.
    pub fn power_cut(&mut self, tear: Tear) {
        let lean = self.prng.below(4);
        let cut = self.state.cut(tear);
        let prng = &mut self.prng;
        let outcome = cut.decide(|undecided| match lean {
            0 if !prng.chance(100_000) => 0,
            1 if !prng.chance(100_000) => undecided.candidates - 1,
            _ => prng.below(u64::from(undecided.candidates)) as u32,
        });
        self.statistics.power_cuts += 1;
        self.statistics.in_flight_at_crash += self.in_flight_writes();
        self.statistics.torn += outcome.torn;
        self.statistics.landed += outcome.landed;
        self.statistics.unsynced_lost += outcome.unsynced_lost;
        self.state = outcome.state;
        self.in_flight.clear();
        self.deferred.clear();
    }

    /// Kills the process that uses the disk: requests in flight get no completion; each write among them lands whole,
    /// or not at all.
    pub fn process_crash(&mut self) {
        self.deferred.clear();
        self.statistics.process_crashes += 1;
        self.statistics.in_flight_at_crash += self.in_flight_writes();
        let mut requests: Vec<_> = self.in_flight.drain().map(|entry| entry.0).collect();
        requests.sort();
        for InFlight { request, .. } in requests {
            if let IoRequest::Write { at, .. } = request {
                if self.prng.coin() {
                    self.state.finish_write(at, false);
                    self.statistics.landed += 1;
                } else {
                    self.state.cancel_write(at);
                }
            }
        }
    }

    fn in_flight_writes(&self) -> u64 {
        self.state.writes_in_flight() as u64
    }
}

#[cfg(test)]
mod tests;
