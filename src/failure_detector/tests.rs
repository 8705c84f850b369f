//! What arrives, and what is made of it.

use super::*;
use proptest::prelude::*;

const MILLISECOND: u64 = 1_000_000;
const START: u64 = 1 << 40;

/// Runs the loop each millisecond from `from`, and returns when the primary is first suspected.
fn suspected_after(detector: &mut FailureDetector, from: u64) -> u64 {
    for elapsed in 0..10_000 {
        let now = from + elapsed * MILLISECOND;
        detector.ran(now);
        if detector.is_suspect(now) {
            return elapsed * MILLISECOND;
        }
    }
    panic!("never suspected");
}

/// Hears one message each `interval`, `count` times, while the loop runs; returns the time of the last.
fn hear(detector: &mut FailureDetector, from: u64, interval: u64, count: u64) -> u64 {
    let mut now = from;
    for _ in 0..count {
        let next = now + interval;
        while now + MILLISECOND < next {
            now += MILLISECOND;
            detector.ran(now);
            assert!(
                !detector.is_suspect(now),
                "patience {}",
                detector.patience_ns()
            );
        }
        now = next;
        detector.heard(now);
    }
    now
}

#[test]
fn an_idle_cluster_suspects_a_dead_primary_after_the_least_patience() {
    let mut detector = FailureDetector::new(START);
    let now = hear(&mut detector, START, HEARTBEAT_NS, 100);
    assert_eq!(suspected_after(&mut detector, now), PATIENCE_MIN_NS);
}

#[test]
fn a_burst_does_not_make_a_millisecond_the_norm() {
    let mut detector = FailureDetector::new(START);
    let now = hear(&mut detector, START, MILLISECOND / 10, 50_000);
    assert_eq!(detector.patience_ns(), PATIENCE_MIN_NS);
    // Idle again: heartbeats only.
    let now = hear(&mut detector, now, HEARTBEAT_NS, 20);
    assert_eq!(suspected_after(&mut detector, now), PATIENCE_MIN_NS);
}

#[test]
fn bursts_with_pauses_between_teach_the_length_of_the_pauses() {
    let mut detector = FailureDetector::new(START);
    let mut now = START;
    for _ in 0..50 {
        now = hear(&mut detector, now, MILLISECOND / 10, 20);
        now = hear(&mut detector, now, 200 * MILLISECOND, 1);
    }
    let patience = detector.patience_ns();
    assert!(patience > 700 * MILLISECOND, "{patience}");
    assert_eq!(
        suspected_after(&mut detector, now),
        patience.next_multiple_of(MILLISECOND)
    );
}

#[test]
fn a_slow_pace_is_learnt_and_forgotten() {
    let mut detector = FailureDetector::new(START);
    let now = hear(&mut detector, START, 240 * MILLISECOND, 40);
    assert!(detector.patience_ns() > 900 * MILLISECOND);
    hear(&mut detector, now, HEARTBEAT_NS, 400);
    assert!(detector.patience_ns() < PATIENCE_MIN_NS + 10 * MILLISECOND);
}

#[test]
fn one_late_heartbeat_costs_no_second_of_detection() {
    let mut detector = FailureDetector::new(START);
    let now = hear(&mut detector, START, 200 * MILLISECOND, 1);
    let took = suspected_after(&mut detector, now);
    assert!(took <= 500 * MILLISECOND, "{took}");
}

#[test]
fn a_silence_that_ended_in_suspicion_makes_patient() {
    let mut detector = FailureDetector::new(START);
    let mut now = START;
    let mut last = 0;
    for _ in 0..4 {
        let took = suspected_after(&mut detector, now);
        assert!(took > last);
        last = took;
        now += took;
        detector.reset(now);
        assert!(!detector.is_suspect(now));
    }
    for _ in 0..100 {
        now += suspected_after(&mut detector, now);
        detector.reset(now);
    }
    assert_eq!(suspected_after(&mut detector, now), PATIENCE_MAX_NS);
}

#[test]
fn a_view_that_begins_without_suspicion_teaches_nothing() {
    let mut detector = FailureDetector::new(START);
    for turn in 1..100 {
        detector.reset(START + turn * 90 * MILLISECOND);
    }
    assert_eq!(detector.patience_ns(), PATIENCE_MIN_NS);
}

#[test]
fn a_paused_replica_reads_what_queued_up_before_it_suspects() {
    let mut detector = FailureDetector::new(START);
    let now = hear(&mut detector, START, HEARTBEAT_NS, 10);
    let woken = now + 5_000 * MILLISECOND;
    assert!(
        !detector.is_suspect(woken),
        "even if nobody said that it ran"
    );
    detector.ran(woken);
    assert!(!detector.is_suspect(woken));
    assert!(detector.suspect_at_ns() >= woken + HEARTBEAT_NS);
    // Queued heartbeats: all is well, and the pause was not the primary's.
    detector.heard(woken);
    assert_eq!(detector.suspect_at_ns(), woken + detector.patience_ns());
    let patience = detector.patience_ns();
    assert!(patience <= PATIENCE_MIN_NS + 2 * OWN_PAUSE_NS, "{patience}");
}

#[test]
fn a_paused_replica_suspects_a_primary_that_died_meanwhile() {
    let mut detector = FailureDetector::new(START);
    let woken = START + 5_000 * MILLISECOND;
    detector.ran(woken);
    let took = suspected_after(&mut detector, woken);
    assert!((HEARTBEAT_NS..=PATIENCE_MIN_NS).contains(&took), "{took}");
}

#[test]
fn a_replica_that_is_always_late_still_suspects() {
    let mut detector = FailureDetector::new(START);
    let mut now = START;
    for _ in 0..6 {
        now += 3 * OWN_PAUSE_NS / 2;
        detector.ran(now);
        if detector.is_suspect(now) {
            return;
        }
    }
    panic!("deaf to silence");
}

#[test]
fn it_asks_to_run_often_enough_to_know_a_pause() {
    let detector = FailureDetector::new(START);
    assert!(detector.wake_at_ns() <= START + OWN_PAUSE_NS);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ran(u64),
    Heard(u64),
    Reset(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let elapsed = prop_oneof![
        0..2 * MILLISECOND,
        0..2 * HEARTBEAT_NS,
        0..PATIENCE_MAX_NS,
        0..100 * PATIENCE_MAX_NS
    ];
    (elapsed, 0..10_u8).prop_map(|(elapsed, kind)| match kind {
        0 => Step::Reset(elapsed),
        1..=5 => Step::Heard(elapsed),
        _ => Step::Ran(elapsed),
    })
}

proptest! {
    /// Whatever happens: patience stays within its bounds, who was just heard is not suspected, and silence ends in
    /// suspicion, in bounded time, if the replica runs.
    #[test]
    fn any_history_leaves_it_sound(steps in proptest::collection::vec(step(), 0..200)) {
        let mut detector = FailureDetector::new(0);
        let mut now = 0;
        for step in steps {
            match step {
                Step::Ran(elapsed) => {
                    now += elapsed;
                    detector.ran(now);
                    prop_assert!(elapsed <= OWN_PAUSE_NS || detector.grace_ns > 0);
                }
                Step::Heard(elapsed) => {
                    now += elapsed;
                    detector.heard(now);
                    prop_assert!(!detector.is_suspect(now));
                    prop_assert!(detector.suspect_at_ns() >= now + PATIENCE_MIN_NS);
                }
                Step::Reset(elapsed) => {
                    now += elapsed;
                    detector.reset(now);
                    prop_assert!(!detector.is_suspect(now));
                }
            }
            let patience = detector.patience_ns();
            prop_assert!((PATIENCE_MIN_NS..=PATIENCE_MAX_NS).contains(&patience));
            prop_assert!(detector.suspect_at_ns() <= now + PATIENCE_MAX_NS);
            prop_assert!(detector.wake_at_ns() <= now + HEARTBEAT_NS);
        }
        let took = suspected_after(&mut detector, now);
        prop_assert!(took <= PATIENCE_MAX_NS + MILLISECOND);
    }

    /// Heartbeats with any jitter up to three intervals are never taken for a death, however late the replica runs.
    #[test]
    fn heartbeats_with_jitter_are_believed(
        gaps in proptest::collection::vec(0..3 * HEARTBEAT_NS, 1..200),
        late in 1..2 * OWN_PAUSE_NS,
    ) {
        let mut detector = FailureDetector::new(START);
        let (mut now, mut runs_at) = (START, START + late);
        for gap in gaps {
            now += gap;
            while runs_at < now {
                detector.ran(runs_at);
                prop_assert!(!detector.is_suspect(runs_at));
                runs_at += late;
            }
            detector.heard(now);
            runs_at = now + late;
        }
    }
}
