//! Replicas that lag: behind checkpoints, in view changes, and with slow disks.

use super::script::{All, Ask, GEOMETRY, MILLISECOND, R, SECOND, Script, serving};
use simulator::disk::DiskSpeed;
use storage::header::Command;

fn three() -> Script {
    serving(3)
}

/// A backup that missed less than a ring fetches what it missed.
#[test]
fn a_backup_that_missed_less_than_a_ring() {
    let mut it = three();
    it.partition(&[&[0, 1], &[2]]);
    it.writes(u64::from(GEOMETRY.slots) / 2);
    it.hear_all();
    it.until("it catches up", |it| it.commit(2) == it.commit(0));
    it.recovers();
    assert_eq!(it.view(0), 0);
}

/// The primary has its checkpoint, a backup dies before it has, and the primary goes on: what the backup still needs must not be
/// overwritten before a quorum has it.
#[test]
fn the_primary_checkpoints_and_a_backup_dies_before_it_does() {
    let mut it = three();
    let slow = DiskSpeed {
        write_min_ns: 20 * MILLISECOND,
        ..DiskSpeed::FAST
    };
    it.cluster.disk_mut(1).set_speed(slow);
    it.cluster.disk_mut(2).set_speed(slow);
    while it.progress(0).checkpoint_op == 0 {
        it.writes(1);
    }
    it.kill(1);
    it.kill(2);
    it.cluster.disk_mut(1).set_speed(DiskSpeed::FAST);
    it.cluster.disk_mut(2).set_speed(DiskSpeed::FAST);
    it.begin(Ask::Write);
    it.waits(300 * MILLISECOND);
    it.start(1);
    it.start(2);
    it.answered();
    it.writes(20);
    it.recovers();
}

/// The next primary lags by more than others' rings hold: it cannot lead, and must say so at once, for all wait for it.
#[test]
fn a_candidate_that_lags_behind_checkpoints_passes_on() {
    let mut it = three();
    it.partition(&[&[0, 2], &[1]]);
    it.writes(3 * u64::from(GEOMETRY.slots));
    it.kill(0);
    it.hear_all();
    it.writes(1);
    assert_eq!(it.cluster.primary(), Some(2));
    it.start(0);
    it.writes(3);
}

/// The next primary lags, but not too far: it repairs what it lacks before it serves.
#[test]
fn a_candidate_that_lags_a_little_repairs() {
    let mut it = three();
    it.partition(&[&[0, 2], &[1]]);
    it.writes(5);
    it.kill(0);
    it.hear_all();
    it.writes(1);
    it.recovers();
}

/// A checkpoint becomes durable while the view changes.
#[test]
fn a_checkpoint_during_a_view_change() {
    for before in 0..6 {
        let mut it = three();
        let interval = GEOMETRY.checkpoint_interval();
        while it.head(0) + before + 1 < interval {
            it.writes(1);
        }
        it.partition(&[&[0], &[1, 2]]);
        it.writes(before + 4);
        it.hear_all();
        it.kill(2);
        it.writes(3);
        it.recovers();
    }
}

/// A backup misses one prepare in the middle, and gets those behind it: it must not execute them on a state without it.
#[test]
fn a_broken_chain_within_a_view() {
    let mut it = three();
    it.lose(R(0), R(2), &[Command::Prepare]);
    it.writes(1);
    it.lose_nothing();
    it.lose(All, R(2), &[Command::Headers]);
    it.writes(3);
    it.pass(100 * MILLISECOND);
    it.lose_nothing();
    it.until("it catches up", |it| it.commit(2) == it.commit(0));
    it.recovers();
}

/// A backup whose disk takes 300 ms for each write is no reason to wait, nor to leave the view.
#[test]
fn a_backup_with_a_slow_disk() {
    let mut it = three();
    it.cluster.disk_mut(2).set_speed(DiskSpeed {
        write_min_ns: 300 * MILLISECOND,
        ..DiskSpeed::FAST
    });
    let begun = it.cluster.now_ns();
    it.writes(10);
    assert!(it.cluster.now_ns() - begun < SECOND);
    it.pass(10 * SECOND);
    it.writes(5);
    assert_eq!(it.view(0), 0);
    it.cluster.disk_mut(2).set_speed(DiskSpeed::FAST);
    it.recovers();
}

/// The primary's disk takes 300 ms for each write: its backups commit without it, and do not leave it.
#[test]
fn a_primary_with_a_slow_disk() {
    let mut it = three();
    it.cluster.disk_mut(0).set_speed(DiskSpeed {
        write_min_ns: 300 * MILLISECOND,
        ..DiskSpeed::FAST
    });
    let begun = it.cluster.now_ns();
    it.writes(4);
    assert!(it.cluster.now_ns() - begun < SECOND);
    it.pass(5 * SECOND);
    it.writes(4);
    assert_eq!(it.view(0), 0, "a slow disk is not a dead primary");
    it.cluster.disk_mut(0).set_speed(DiskSpeed::FAST);
    it.recovers();
}

/// Every disk takes half a second for a write, and the primary dies: a view whose log is still being made durable by slow
/// disks is waited for, and not left for another, which would have to be waited for again.
#[test]
fn a_view_begins_however_slow_the_disks_are() {
    for replicas in [3, 5] {
        let mut it = serving(replicas);
        for replica in 0..replicas {
            it.cluster.disk_mut(replica).set_speed(DiskSpeed {
                write_min_ns: 500 * MILLISECOND,
                ..DiskSpeed::FAST
            });
        }
        it.kill(0);
        it.writes(1);
        let view = it.view(1);
        assert!(view <= 2, "{replicas} replicas: view {view}");
        it.pass(20 * SECOND);
        it.writes(1);
        assert_eq!(it.view(1), view, "{replicas} replicas");
        for replica in 0..replicas {
            it.cluster.disk_mut(replica).set_speed(DiskSpeed::FAST);
        }
        it.recovers();
    }
}

/// An op that was committed in an earlier view is acknowledged anew by who missed its commit, and counted once.
#[test]
fn an_acknowledgement_of_what_is_committed() {
    let mut it = three();
    it.lose(R(0), All, &[Command::Commit]);
    it.writes(2);
    it.kill(0);
    it.lose_nothing();
    it.writes(1);
    it.start(0);
    it.until("it follows", |it| it.commit(0) == it.commit(1));
    it.recovers();
}
