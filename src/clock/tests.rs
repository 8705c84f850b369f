//! Clocks that are right, wrong and wild, and what time the cluster has.

use super::*;
use proptest::prelude::*;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLISECOND;
const YEAR: i64 = 365 * 24 * 3600 * 1_000_000_000;
/// True time at the start.
const EPOCH: u64 = 1_700_000_000 * SECOND;

/// One replica's clock among the wall clocks of all, each off by some nanoseconds.
struct World {
    clock: Clock,
    elapsed: u64,
    errors: Vec<i64>,
    /// The monotonic clock's start.
    monotonic: u64,
    last: u64,
}

impl World {
    /// Replica 0 is ours.
    fn new(errors: &[i64]) -> Self {
        let mut world = Self {
            clock: Clock::new(0, errors.len() as u8),
            elapsed: 0,
            errors: errors.to_vec(),
            monotonic: 77 * SECOND,
            last: 0,
        };
        world.clock.start(world.now());
        world
    }

    fn wall(&self, replica: usize) -> u64 {
        (EPOCH + self.elapsed).saturating_add_signed(self.errors[replica])
    }

    fn now(&self) -> Now {
        Now {
            monotonic_ns: self.monotonic + self.elapsed,
            realtime_ns: self.wall(0),
        }
    }

    fn advance(&mut self, by: u64, replicated: u64) -> u64 {
        self.elapsed += by;
        let now = self.now();
        self.clock.advance(now, replicated);
        let time = self.clock.realtime_ns(now);
        // Until something was agreed or replicated it is the wall clock, which may do anything.
        if self.clock.realtime_ns.is_some() {
            assert!(time >= self.last, "time goes back");
            self.last = time;
        }
        time
    }

    /// Pings one replica; `there` and `back` are the ways' times.
    fn ping(&mut self, replica: u8, there: u64, back: u64) {
        let ping_ns = self.now().monotonic_ns;
        self.advance(there, 0);
        let wall_ns = self.wall(replica.into());
        self.advance(back, 0);
        self.clock.sample(replica, ping_ns, wall_ns, self.now());
    }

    /// Pings of all others, each second, for so many.
    fn seconds(&mut self, count: u64) {
        for _ in 0..count {
            for replica in 1..self.errors.len() {
                self.ping(replica as u8, MILLISECOND / 4, MILLISECOND / 4);
            }
            self.advance(SECOND, 0);
        }
    }

    /// How far the cluster's time is from the true one.
    fn error(&mut self) -> i128 {
        let time = self.advance(0, 0);
        i128::from(time) - i128::from(EPOCH + self.elapsed)
    }
}

fn milliseconds(value: i64) -> i64 {
    value * MILLISECOND.cast_signed()
}

#[test]
fn clocks_that_agree_leave_the_own_one_alone() {
    let mut world = World::new(&[milliseconds(4), 0, milliseconds(-3)]);
    assert!(!world.clock.is_synchronised());
    world.seconds(2);
    assert!(world.clock.is_synchronised());
    assert_eq!(world.error(), i128::from(milliseconds(4)));
}

#[test]
fn the_own_clock_alone_in_its_opinion_is_outvoted() {
    for error in [milliseconds(-60_000), milliseconds(300), YEAR] {
        let mut world = World::new(&[error, 0, 0]);
        world.seconds(2);
        assert!(world.clock.is_synchronised());
        assert!(world.error().unsigned_abs() < u128::from(12 * MILLISECOND));
    }
}

/// Schedule 20: the primary's clock jumps a year. Nothing expires by it, with agreement or without.
#[test]
fn a_clock_that_jumps_a_year_ages_nothing_by_a_year() {
    let mut world = World::new(&[0, 0, 0]);
    world.seconds(5);
    world.errors[0] = YEAR;
    world.advance(MILLISECOND, 0);
    assert!(world.error() < i128::from(15 * MILLISECOND), "at once");
    world.seconds(100);
    assert!(world.clock.is_synchronised());
    assert!(world.error() < i128::from(15 * MILLISECOND), "outvoted");
    // The others fall silent.
    world.advance(CLOCK_EPOCH_NS, 0);
    let (before, elapsed) = (world.last, world.elapsed);
    world.advance(3600 * SECOND, 0);
    assert!(!world.clock.is_synchronised(), "an alarm");
    assert_eq!(
        world.last - before,
        world.elapsed - elapsed,
        "by the monotonic clock"
    );
    assert!(world.error() < i128::from(40 * MILLISECOND));
}

#[test]
fn a_replica_that_restarts_with_a_wild_clock_goes_on_from_replicated_time() {
    let mut world = World::new(&[YEAR, 0, 0]);
    let replicated = EPOCH - 60 * SECOND;
    assert_eq!(world.advance(MILLISECOND, replicated), replicated);
    assert_eq!(world.advance(SECOND, replicated), replicated + SECOND);
    assert!(!world.clock.is_synchronised());
    world.seconds(2);
    assert!(world.clock.is_synchronised());
    assert!(world.error().unsigned_abs() < u128::from(12 * MILLISECOND));
}

#[test]
fn a_lone_clock_counts_only_where_nothing_was_ever_known() {
    let mut world = World::new(&[milliseconds(123), 0, 0]);
    assert_eq!(world.advance(MILLISECOND, 0), world.wall(0));
    world.advance(MILLISECOND, 5);
    assert_eq!(world.clock.realtime_ns(world.now()), 5);
}

#[test]
fn clocks_that_are_far_apart_agree_on_nothing() {
    let apart = 3 * CLOCK_TOLERANCE_MAX_NS.cast_signed();
    let mut world = World::new(&[0, apart, -apart]);
    world.seconds(3);
    assert!(!world.clock.is_synchronised());
    // Two of three do.
    world.errors[1] = CLOCK_TOLERANCE_MAX_NS.cast_signed();
    world.seconds(3);
    assert!(world.clock.is_synchronised());
}

#[test]
fn half_of_the_clocks_are_no_majority() {
    let mut world = World::new(&[0, 0, YEAR, 2 * YEAR]);
    world.seconds(3);
    assert!(!world.clock.is_synchronised());
    let mut world = World::new(&[0, YEAR]);
    world.seconds(3);
    assert!(!world.clock.is_synchronised(), "both of two must agree");
    let mut world = World::new(&[0, milliseconds(2)]);
    world.seconds(3);
    assert!(world.clock.is_synchronised());
}

#[test]
fn a_clock_that_was_corrected_is_taken_at_its_new_word() {
    let mut world = World::new(&[0, 0, milliseconds(500)]);
    world.seconds(3);
    world.errors = vec![milliseconds(-700), milliseconds(-700), milliseconds(-700)];
    world.seconds(1);
    assert!(world.clock.is_synchronised());
    let behind = world.clock.agreed_ns(world.now()).expect("agreed");
    assert_eq!(behind, world.wall(0));
    // What was said stays said: time runs at half its pace until the clocks have caught up.
    assert!(world.error() > i128::from(milliseconds(-600)));
    world.seconds(3);
    assert_eq!(world.error(), i128::from(milliseconds(-700)));
}

#[test]
fn time_far_ahead_of_the_agreed_is_an_alarm_and_still_passes() {
    let mut world = World::new(&[0, 0, 0]);
    world.seconds(2);
    let replicated = EPOCH + YEAR.unsigned_abs();
    assert_eq!(world.advance(MILLISECOND, replicated), replicated);
    assert!(!world.clock.is_synchronised());
    assert_eq!(world.advance(10 * SECOND, 0), replicated + 5 * SECOND);
}

#[test]
fn what_any_prepare_may_have_been_given_is_not_undercut() {
    let mut world = World::new(&[0, 0, 0]);
    world.clock.raise(0);
    assert_eq!(
        world.clock.realtime_ns(world.now()),
        world.wall(0),
        "nothing is known"
    );
    world.seconds(2);
    let ahead = world.last + 3 * SECOND;
    world.clock.raise(ahead);
    assert_eq!(world.clock.realtime_ns(world.now()), ahead);
    world.clock.raise(ahead - SECOND);
    assert_eq!(world.clock.realtime_ns(world.now()), ahead);
    assert_eq!(world.advance(SECOND, 0), ahead + SECOND / 2);
}

#[test]
fn a_slow_or_foreign_pong_is_no_sample() {
    let mut world = World::new(&[0, 0, 0]);
    world.advance(10 * SECOND, 0);
    let now = world.now();
    let wall = world.wall(1);
    world
        .clock
        .sample(1, now.monotonic_ns - CLOCK_ROUND_TRIP_MAX_NS - 1, wall, now);
    world.clock.sample(1, now.monotonic_ns + 1, wall, now);
    world.clock.sample(1, u64::MAX, wall, now);
    world.clock.sample(1, world.monotonic - 1, wall, now);
    world.clock.sample(1, now.monotonic_ns, u64::MAX, now);
    assert!(world.clock.samples.iter().all(Option::is_none));
    world
        .clock
        .sample(1, now.monotonic_ns - MILLISECOND, wall, now);
    assert!(world.clock.samples[1].is_some());
}

#[test]
fn the_quicker_of_two_samples_is_kept_until_it_is_old() {
    let mut world = World::new(&[0, 0, 0]);
    world.ping(1, MILLISECOND, MILLISECOND);
    let quick = world.clock.samples[1].expect("taken").offset;
    world.ping(1, 10 * MILLISECOND, 10 * MILLISECOND);
    assert_eq!(world.clock.samples[1].expect("taken").offset, quick);
    world.errors[1] = milliseconds(500);
    world.ping(1, 10 * MILLISECOND, 10 * MILLISECOND);
    let set = world.clock.samples[1].expect("taken").offset;
    assert!(!set.meets(quick), "the clock was set");
    world.ping(1, MILLISECOND, MILLISECOND);
    let quick = world.clock.samples[1].expect("taken").offset;
    world.advance(CLOCK_SAMPLE_NS, 0);
    world.ping(1, 2 * MILLISECOND, 2 * MILLISECOND);
    assert_ne!(world.clock.samples[1].expect("taken").offset, quick);
}

#[test]
fn a_replica_alone_believes_its_clock_but_not_a_jump_at_once() {
    let mut world = World::new(&[milliseconds(5)]);
    world.advance(MILLISECOND, 0);
    assert!(world.clock.is_synchronised());
    assert_eq!(world.error(), i128::from(milliseconds(5)));
    // A step that a time service may make.
    world.errors[0] = milliseconds(900);
    for _ in 0..2 {
        world.advance(SECOND, 0);
    }
    assert_eq!(world.error(), i128::from(milliseconds(900)));
    // A mistake that is corrected.
    world.errors[0] = YEAR;
    for _ in 0..30 {
        world.advance(SECOND, 0);
        assert!(world.error() < i128::from(SECOND));
    }
    world.errors[0] = milliseconds(900);
    world.seconds(100);
    assert_eq!(world.error(), i128::from(milliseconds(900)));
    // The new time, after all.
    world.errors[0] = YEAR;
    world.seconds(62);
    assert_eq!(world.error(), i128::from(YEAR));
}

proptest! {
    /// Whatever a minority of clocks says, and however long the ways take, the agreed time is within the bounds of the
    /// honest clocks, give or take the allowance and the best round trip; and it never goes back.
    #[test]
    fn a_minority_of_wild_clocks_moves_nothing(
        count in 3..=6_usize,
        honest in proptest::collection::vec(-500..500_i64, 6),
        wild in proptest::collection::vec(-(YEAR)..YEAR, 6),
        ways in proptest::collection::vec((1..30 * MILLISECOND, 1..30 * MILLISECOND), 40),
        first in 0..6_usize,
        lying in 0..=2_usize,
        flips in any::<u64>(),
    ) {
        let lying = lying.min((count - 1) / 2);
        let mut errors: Vec<i64> = honest[..count].iter().map(|&error| milliseconds(error)).collect();
        let spread = 1000 * i128::from(MILLISECOND);
        let liars: Vec<usize> = (0..lying).map(|index| (first + index) % count).collect();
        for &liar in &liars {
            errors[liar] = wild[liar];
        }
        let mut world = World::new(&errors);
        let mut synchronised = false;
        for (turn, &(there, back)) in ways.iter().enumerate() {
            let replica = 1 + turn % (count - 1);
            if flips >> (turn % 64) & 1 == 1 {
                for &liar in &liars {
                    world.errors[liar] = -world.errors[liar];
                }
            }
            world.ping(replica as u8, there, back);
            world.advance(100 * MILLISECOND, 0);
            if world.clock.is_synchronised() {
                synchronised = true;
                let agreed = world.clock.agreed_ns(world.now()).expect("agreed");
                let error = i128::from(agreed) - i128::from(EPOCH + world.elapsed);
                // Honest: half the spread; the allowance: at most twice it, as it doubles; and a round trip.
                let bound = spread / 2 + 2 * spread + 61 * i128::from(MILLISECOND);
                prop_assert!(error.abs() <= bound, "off by {} ms", error / i128::from(MILLISECOND));
            }
        }
        prop_assert!(synchronised, "a majority is honest");
    }

    /// Any numbers at all: no panic, and time never goes back (which `advance` asserts).
    #[test]
    fn any_history_is_borne(
        count in 1..=6_u8,
        steps in proptest::collection::vec(
            (0..5_u8, any::<u64>(), any::<u64>(), 0..4 * SECOND), 0..60),
    ) {
        let mut clock = Clock::new(0, count);
        let mut now = Now { monotonic_ns: 5 * SECOND, realtime_ns: EPOCH };
        clock.start(now);
        let mut last = 0;
        for (kind, number, other, elapsed) in steps {
            now.monotonic_ns += elapsed;
            match kind {
                0 => now.realtime_ns = number,
                1 => now.realtime_ns = now.realtime_ns.saturating_add(elapsed),
                2 if count > 1 => {
                    clock.sample(1 + (other % u64::from(count - 1)) as u8, number, other, now);
                }
                3 if count > 1 => {
                    let ping_ns = now.monotonic_ns - number % now.monotonic_ns;
                    let wall_ns = other % (1 << 62);
                    clock.sample(1 + (other % u64::from(count - 1)) as u8, ping_ns, wall_ns, now);
                }
                _ => {}
            }
            clock.advance(now, if kind == 4 { number % (1 << 62) } else { 0 });
            if clock.realtime_ns.is_some() {
                prop_assert!(clock.realtime_ns(now) >= last);
                last = clock.realtime_ns(now);
            }
        }
    }
}
