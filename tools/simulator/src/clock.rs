//! A replica's clocks: both run a little fast or slow, and the wall clock may be wrong, jump and flicker.
//!
//! Virtual time is the true time; a run begins at [`EPOCH_NS`]. All arithmetic is in integers, so that a seed replays
//! everywhere.

use viewstone::replica::Now;

/// 2023-11-14: the true wall time at which a run begins, in nanoseconds since 1970.
pub const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

const MILLION: u128 = 1_000_000;

/// A wall clock that is set back and forth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Strobe {
    /// How far ahead it is every other period, in nanoseconds.
    pub ahead_ns: u64,
    /// Length of a period, in nanoseconds.
    pub period_ns: u64,
    /// When it ends, in virtual time.
    pub until_ns: u64,
}

/// The clocks of one machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// A point in virtual time, and what the monotonic clock showed then.
    base_ns: u64,
    base_monotonic_ns: u64,
    /// How much too fast it runs, in parts per million; negative: too slow.
    drift_ppm: i32,
    /// How far the wall clock is ahead of what it would be without any error, in nanoseconds.
    offset_ns: i64,
    strobe: Option<Strobe>,
    /// How far the wall clock was ever ahead of true time; negative: it was always behind.
    ahead_max_ns: i64,
}

impl Clock {
    /// Clocks that show `monotonic_ns` at the start of the run, and a wall time that is wrong by `offset_ns`.
    pub fn new(monotonic_ns: u64, offset_ns: i64) -> Self {
        Self {
            base_ns: 0,
            base_monotonic_ns: monotonic_ns,
            drift_ppm: 0,
            offset_ns,
            strobe: None,
            ahead_max_ns: offset_ns,
        }
    }

    /// How far the wall clock was ever ahead of true time, in nanoseconds; negative: it was always behind.
    pub fn ahead_max_ns(&self) -> i64 {
        self.ahead_max_ns
    }

    fn note_ahead(&mut self) {
        let strobe_ns = self.strobe.map_or(0, |strobe| strobe.ahead_ns as i64);
        self.ahead_max_ns = self.ahead_max_ns.max(self.offset_ns + strobe_ns);
    }

    /// What the clocks show at a virtual time.
    pub fn now(&self, now_ns: u64) -> Now {
        Now {
            monotonic_ns: self.monotonic(now_ns),
            realtime_ns: self.realtime(now_ns),
        }
    }

    fn rate(&self) -> u128 {
        (MILLION as i64 + i64::from(self.drift_ppm)) as u128
    }

    fn monotonic(&self, now_ns: u64) -> u64 {
        let elapsed = u128::from(now_ns - self.base_ns);
        self.base_monotonic_ns + (elapsed * self.rate() / MILLION) as u64
    }

    /// What the wall clock shows.
    pub fn realtime(&self, now_ns: u64) -> u64 {
        let strobe = self.strobe.filter(|strobe| now_ns < strobe.until_ns);
        let ahead = strobe.map_or(0, |strobe| {
            let odd = now_ns / strobe.period_ns % 2;
            odd * strobe.ahead_ns
        });
        (EPOCH_NS + now_ns + ahead).saturating_add_signed(self.offset_ns)
    }

    /// The first virtual time at which the monotonic clock shows at least `monotonic_ns`.
    pub fn when(&self, monotonic_ns: u64) -> u64 {
        if monotonic_ns == u64::MAX {
            return u64::MAX;
        }
        let wanted = monotonic_ns.saturating_sub(self.base_monotonic_ns);
        self.base_ns + (u128::from(wanted) * MILLION).div_ceil(self.rate()) as u64
    }

    /// From now the monotonic clock runs too fast by so many parts per million.
    pub fn set_drift(&mut self, now_ns: u64, ppm: i32) {
        assert!(ppm.unsigned_abs() < 500_000);
        self.base_monotonic_ns = self.monotonic(now_ns);
        self.base_ns = now_ns;
        self.drift_ppm = ppm;
    }

    /// The wall clock is set forward, or back.
    pub fn jump(&mut self, by_ns: i64) {
        self.offset_ns += by_ns;
        self.note_ahead();
    }

    /// The wall clock is set forth and back again and again.
    pub fn strobe(&mut self, strobe: Strobe) {
        assert!(strobe.period_ns > 0);
        self.strobe = Some(strobe);
        self.note_ahead();
    }

    /// The wall clock is right from now on, but for the machine's usual error.
    pub fn set_right(&mut self, offset_ns: i64) {
        self.offset_ns = offset_ns;
        self.strobe = None;
        self.note_ahead();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_the_first_moment_that_shows_it() {
        let mut clock = Clock::new(1_000_007, 0);
        for (at, ppm) in [(0, 0), (10, 333), (1_000_003, -251), (5_000_000, 77)] {
            clock.set_drift(at, ppm);
            for deadline in (1_000_007..9_000_000).step_by(777_777) {
                let when = clock.when(deadline);
                if when > at {
                    assert!(clock.now(when).monotonic_ns >= deadline);
                    assert!(clock.now(when - 1).monotonic_ns < deadline);
                }
            }
        }
        assert_eq!(clock.when(u64::MAX), u64::MAX);
    }

    #[test]
    fn monotonic_time_never_goes_back_and_wall_time_does() {
        let mut clock = Clock::new(5, 1_000);
        assert_eq!(clock.realtime(7), EPOCH_NS + 1_007);
        clock.jump(-3_000);
        assert_eq!(clock.realtime(7), EPOCH_NS - 1_993);
        let before = clock.now(50).monotonic_ns;
        clock.set_drift(50, -400_000);
        assert_eq!(clock.now(50).monotonic_ns, before);
        clock.strobe(Strobe {
            ahead_ns: 10_000,
            period_ns: 100,
            until_ns: 250,
        });
        let shown: Vec<_> = [50, 150, 249, 250]
            .map(|now| clock.realtime(now) + 2_000 - EPOCH_NS)
            .into();
        assert_eq!(shown, [50, 10_150, 249, 250]);
        assert_eq!(clock.ahead_max_ns(), 8_000);
        clock.set_right(0);
        assert_eq!(clock.realtime(260), EPOCH_NS + 260);
    }
}
