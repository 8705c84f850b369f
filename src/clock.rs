//! What time it is, as the cluster agrees: a pure value that bounds this replica's wall clock by those of the others.
//!
//! * **A sample is an interval, not a guess.** A ping carries this replica's monotonic clock, the pong the other's wall
//!   clock, which was read at some moment in between: whatever the ways took, the difference of the two clocks lies
//!   between two known bounds. They widen with age, as clocks drift; the narrowest sample of each replica is kept.
//! * **A majority decides.** The smallest interval that most clocks share ([`marzullo`]), this replica's own included,
//!   is accepted if more than half of all replicas share it, each allowed the least error (a power of two times
//!   [`CLOCK_TOLERANCE_MIN_NS`]) at which they do, and at most [`CLOCK_TOLERANCE_MAX_NS`]. It holds for
//!   [`CLOCK_EPOCH_NS`]. Time is then this replica's wall clock, clamped into it: a minority of wild clocks, the
//!   primary's own included, moves nothing.
//! * **Lost agreement is an alarm, not an outage.** Time then runs on from the last agreed or replicated time by the
//!   monotonic clock. A lone wall clock counts only where nothing else was ever known.
//! * **Time does not go back, and does not stand still.** Where it is ahead of what is agreed (the last primary's was)
//!   it runs at half its pace until it is not.
//!
//! One replica has nobody to agree with, and agrees with its own past: a wall clock that jumps is believed when it has
//! stayed there for [`CLOCK_EPOCH_NS`]. So a clock that is stepped by mistake, and corrected, ages nothing by a year.
//!
//! What it does not do: find out which of two clocks is right, or make timestamps from it; the primary does, strictly
//! after the last.

pub mod marzullo;

use crate::constants::{
    CLOCK_DRIFT_DIVISOR, CLOCK_EPOCH_NS, CLOCK_ROUND_TRIP_MAX_NS, CLOCK_SAMPLE_NS,
    CLOCK_TOLERANCE_MAX_NS, CLOCK_TOLERANCE_MIN_NS, PING_NS,
};
use crate::replica::Now;
use marzullo::Interval;
use storage::header::NUMBER_MAX;
use storage::layout::REPLICAS_MAX;

/// What is known of another clock: its wall time less our monotonic time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    offset: Interval,
    /// When it was taken.
    monotonic_ns: u64,
}

impl Sample {
    /// The bounds that still hold at `monotonic_ns`.
    fn at(&self, monotonic_ns: u64) -> Interval {
        let age_ns = monotonic_ns - self.monotonic_ns;
        self.offset.widened((age_ns / CLOCK_DRIFT_DIVISOR).into())
    }

    fn is_valid(&self, monotonic_ns: u64, for_ns: u64) -> bool {
        monotonic_ns - self.monotonic_ns < for_ns
    }
}

/// The clock of one replica.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    replica: u8,
    replica_count: u8,
    /// When this clock began to run: no ping is older.
    began_ns: u64,
    /// When it last ran, on the monotonic clock.
    ran_ns: u64,
    samples: [Option<Sample>; REPLICAS_MAX],
    /// What a majority agreed on last: wall time less our monotonic time.
    epoch: Option<Sample>,
    /// The time at `ran_ns`; none if nothing was ever agreed or replicated.
    realtime_ns: Option<u64>,
    /// When agreement is sought next without a sample: a lone replica gets none.
    seek_ns: u64,
    synchronised: bool,
}

impl Clock {
    /// The clock of replica `replica` of `replica_count`, which knows nothing yet.
    pub fn new(replica: u8, replica_count: u8) -> Self {
        assert!(replica < replica_count && usize::from(replica_count) <= REPLICAS_MAX);
        Self {
            replica,
            replica_count,
            began_ns: 0,
            ran_ns: 0,
            samples: [None; REPLICAS_MAX],
            epoch: None,
            realtime_ns: None,
            seek_ns: 0,
            synchronised: false,
        }
    }

    /// The replica starts at this moment: pongs to pings of an earlier life are not samples.
    pub fn start(&mut self, now: Now) {
        assert!(now.monotonic_ns >= self.ran_ns);
        (self.began_ns, self.ran_ns) = (now.monotonic_ns, now.monotonic_ns);
    }

    /// Time passes. `replicated_ns` is the earliest time that the next prepare may have; zero if the log is empty.
    pub fn advance(&mut self, now: Now, replicated_ns: u64) {
        assert!(now.monotonic_ns >= self.ran_ns);
        let elapsed_ns = now.monotonic_ns - self.ran_ns;
        self.ran_ns = now.monotonic_ns;
        if self.replica_count == 1 && now.monotonic_ns >= self.seek_ns {
            self.seek_ns = now.monotonic_ns + PING_NS;
            self.seek_agreement(now);
        }
        let agreed = self.agreed_ns(now);
        let before = self.realtime_ns;
        self.realtime_ns = match (agreed, before) {
            (Some(agreed_ns), Some(before_ns)) => {
                Some(agreed_ns.max(before_ns + elapsed_ns / 2).max(replicated_ns))
            }
            (Some(agreed_ns), None) => Some(agreed_ns.max(replicated_ns)),
            (None, Some(before_ns)) => Some((before_ns + elapsed_ns).max(replicated_ns)),
            (None, None) => (replicated_ns > 0).then_some(replicated_ns),
        };
        // Far ahead of what the clocks agree on, timestamps are as wrong as without agreement.
        self.synchronised = agreed.is_some_and(|agreed_ns| {
            let ahead_ns = self.realtime_ns.map_or(0, |time_ns| time_ns - agreed_ns);
            ahead_ns <= CLOCK_TOLERANCE_MAX_NS
        });
        assert!(self.realtime_ns >= before);
    }

    /// Time is not before this: some prepare may have been given it, also one that was cut off.
    pub fn raise(&mut self, realtime_ns: u64) {
        let known_ns = self.realtime_ns.unwrap_or(0);
        self.realtime_ns = Some(known_ns.max(realtime_ns)).filter(|&time_ns| time_ns > 0);
    }

    /// A pong of `replica` has arrived: its wall clock, and our monotonic clock that it echoes from the ping. What no
    /// pong of this life can say, or says too late to mean anything, is not used.
    pub fn sample(&mut self, replica: u8, ping_ns: u64, wall_ns: u64, now: Now) {
        assert!(replica < self.replica_count && replica != self.replica);
        let pinged = self.began_ns..=now.monotonic_ns;
        if !pinged.contains(&ping_ns)
            || now.monotonic_ns - ping_ns > CLOCK_ROUND_TRIP_MAX_NS
            || wall_ns > REALTIME_MAX_NS
        {
            return;
        }
        let sample = Sample {
            offset: Interval {
                low: i128::from(wall_ns) - i128::from(now.monotonic_ns),
                high: i128::from(wall_ns) - i128::from(ping_ns),
            },
            monotonic_ns: now.monotonic_ns,
        };
        let kept = &mut self.samples[usize::from(replica)];
        let replaces = kept.is_none_or(|kept| {
            let held = kept.at(now.monotonic_ns);
            // One that contradicts the last says that the clock was set.
            !held.meets(sample.offset) || sample.offset.width() <= held.width()
        });
        if replaces {
            *kept = Some(sample);
        }
        self.seek_agreement(now);
    }

    /// Wall time, in nanoseconds since 1970, at the last [`Self::advance`]; `now` is of the same moment.
    pub fn realtime_ns(&self, now: Now) -> u64 {
        // Where nothing was ever agreed or replicated the lone clock is all there is; what comes of it is replicated.
        self.realtime_ns
            .unwrap_or(now.realtime_ns.min(REALTIME_MAX_NS))
    }

    /// Whether a majority agrees on the time, and timestamps follow it: if not, an alarm is due.
    pub fn is_synchronised(&self) -> bool {
        self.synchronised
    }

    /// This replica's wall clock, clamped into what was agreed; none without agreement.
    fn agreed_ns(&self, now: Now) -> Option<u64> {
        let epoch = self
            .epoch
            .filter(|epoch| epoch.is_valid(now.monotonic_ns, CLOCK_EPOCH_NS))?;
        let bounds = epoch.at(now.monotonic_ns);
        let offset = offset_of(now).clamp(bounds.low, bounds.high);
        let time_ns = i128::from(now.monotonic_ns) + offset;
        Some(u64::try_from(time_ns.max(0)).expect("each clock's time is bounded"))
    }

    /// Begins a new epoch if a majority agrees now.
    fn seek_agreement(&mut self, now: Now) {
        let own = offset_of(now);
        let mut sources = [Interval::default(); REPLICAS_MAX];
        sources[0] = Interval {
            low: own,
            high: own,
        };
        let mut count = 1;
        for sample in self.samples.iter().flatten() {
            if sample.is_valid(now.monotonic_ns, CLOCK_SAMPLE_NS) {
                sources[count] = sample.at(now.monotonic_ns);
                count += 1;
            }
        }
        let Some(offset) = majority(&sources[..count], usize::from(self.replica_count)) else {
            return;
        };
        if self.replica_count == 1 && self.contradicts_epoch(offset, now) {
            return;
        }
        self.epoch = Some(Sample {
            offset,
            monotonic_ns: now.monotonic_ns,
        });
    }

    fn contradicts_epoch(&self, offset: Interval, now: Now) -> bool {
        let tolerance_ns = i128::from(CLOCK_TOLERANCE_MAX_NS);
        self.epoch
            .filter(|epoch| epoch.is_valid(now.monotonic_ns, CLOCK_EPOCH_NS))
            .is_some_and(|epoch| !epoch.offset.widened(tolerance_ns).meets(offset))
    }
}

/// The latest wall time that is believed, the end of 2099: a clock beyond it is wild, and what a header can say goes on
/// for sixteen years, so that time can run on from it.
const REALTIME_MAX_NS: u64 = 4_102_444_800 * 1_000_000_000;

const _: () = assert!(REALTIME_MAX_NS < NUMBER_MAX);

/// This replica's wall time less its monotonic time.
fn offset_of(now: Now) -> i128 {
    i128::from(now.realtime_ns.min(REALTIME_MAX_NS)) - i128::from(now.monotonic_ns)
}

/// What more than half of `replica_count` clocks share, with the least allowance for their errors.
fn majority(sources: &[Interval], replica_count: usize) -> Option<Interval> {
    let mut tolerance_ns = CLOCK_TOLERANCE_MIN_NS;
    while tolerance_ns <= CLOCK_TOLERANCE_MAX_NS {
        let mut allowed = [Interval::default(); REPLICAS_MAX];
        for (allowed, source) in allowed.iter_mut().zip(sources) {
            *allowed = source.widened(tolerance_ns.into());
        }
        let (shared, count) = marzullo::agreement(&allowed[..sources.len()])?;
        if 2 * count > replica_count {
            return Some(shared);
        }
        tolerance_ns *= 2;
    }
    None
}

#[cfg(test)]
mod tests;
