//! Who hears whom.

use super::script::{All, Ask, C, MILLISECOND, R, SECOND, Script, serving};
use storage::header::{Command, ReplicaStatus};

fn three() -> Script {
    serving(3)
}

/// Without a view change the majority would wait for ever.
#[test]
fn a_primary_cut_off_from_both_backups() {
    let mut it = three();
    it.partition(&[&[0], &[1, 2]]);
    it.writes(3);
    assert_eq!(it.cluster.primary(), Some(1));
    it.recovers();
}

/// A backup that cannot be heard and does not hear must cost nobody anything: above all no view.
#[test]
fn a_backup_cut_off_from_the_others() {
    let mut it = three();
    it.partition(&[&[0, 1], &[2]]);
    it.writes(5);
    it.pass(5 * SECOND);
    it.writes(5);
    it.recovers();
    assert_eq!(it.view(0), 0, "the view goes on");
}

/// A deaf backup suspects its primary for ever; if its word alone counted, the view would change for ever.
#[test]
fn a_backup_that_only_sends() {
    let mut it = three();
    it.cut(0, 2);
    it.cut(1, 2);
    it.writes(3);
    it.pass(10 * SECOND);
    it.writes(3);
    assert_eq!(it.view(0), 0);
    it.recovers();
    assert_eq!(it.view(0), 0);
}

/// A mute backup acknowledges into the void: the other one is enough.
#[test]
fn a_backup_that_only_receives() {
    let mut it = three();
    it.cut(2, 0);
    it.cut(2, 1);
    it.writes(3);
    it.pass(10 * SECOND);
    it.writes(3);
    it.until("it follows", |it| it.commit(2) == it.commit(0));
    it.recovers();
    assert_eq!(it.view(0), 0);
}

/// Its heartbeats arrive, so nobody suspects a deaf primary; but it hears no acknowledgement. Unless it gives up by itself,
/// nothing commits for ever: the livelock of the asymmetric partition.
#[test]
fn a_primary_that_only_sends() {
    let mut it = three();
    it.cut(1, 0);
    it.cut(2, 0);
    it.begin(Ask::Write);
    it.answered();
    assert_ne!(it.cluster.primary(), Some(0));
    it.writes(3);
    it.recovers();
}

/// A mute primary that goes on to hear: it must follow the view that the others begin.
#[test]
fn a_primary_that_only_receives() {
    let mut it = three();
    it.cut(0, 1);
    it.cut(0, 2);
    it.writes(3);
    assert_eq!(it.cluster.primary(), Some(1));
    it.until("the old primary follows", |it| it.commit(0) == it.commit(1));
    it.recovers();
}

/// The primary reaches one backup, and the other one only reaches that: two that do not hear each other must not take turns
/// in leading for ever.
#[test]
fn a_chain_whose_middle_is_a_backup() {
    let mut it = three();
    it.partition(&[&[0, 1], &[2]]);
    it.cluster.set_cut(1, 2, false);
    it.cluster.set_cut(2, 1, false);
    it.writes(5);
    it.pass(10 * SECOND);
    it.writes(5);
    assert_eq!(it.view(0), 0);
    it.recovers();
}

/// The same from the side of the other end: a new primary there is as good, but no view after it.
#[test]
fn a_chain_whose_end_leads() {
    let mut it = three();
    it.partition(&[&[0], &[1, 2]]);
    it.writes(1);
    it.partition(&[&[0, 2], &[1]]);
    it.cluster.set_cut(1, 2, false);
    it.cluster.set_cut(2, 1, false);
    it.writes(5);
    let view = it.view(1);
    it.pass(10 * SECOND);
    it.writes(5);
    assert!(it.view(1) <= view + 1, "views change on and on");
    it.recovers();
}

/// Three of five hear nothing of the primary: they are enough to leave it, whomever else it reaches (quorum loss).
#[test]
fn a_primary_that_reaches_too_few() {
    let mut it = serving(5);
    for other in [2, 3, 4] {
        it.cut(0, other);
        it.cut(other, 0);
    }
    it.writes(3);
    assert_ne!(it.cluster.primary(), Some(0));
    let view = it.cluster.primary();
    it.pass(10 * SECOND);
    assert_eq!(it.cluster.primary(), view, "and that is that");
    it.recovers();
}

/// With four, two are enough to commit; the other two must not begin a view beside them.
#[test]
fn half_of_four_goes_on_and_the_other_half_waits() {
    let mut it = serving(4);
    it.partition(&[&[0, 1], &[2, 3]]);
    it.writes(5);
    it.pass(5 * SECOND);
    assert_eq!((it.view(2), it.view(3)), (0, 0));
    it.writes(5);
    it.recovers();
    assert_eq!(it.view(0), 0);
}

/// But the half without the primary is too little for a view.
#[test]
fn half_of_four_without_the_primary_waits() {
    let mut it = serving(4);
    it.partition(&[&[0], &[1], &[2, 3]]);
    it.begin(Ask::Write);
    it.waits(6 * SECOND);
    it.partition(&[&[0], &[1, 2, 3]]);
    it.answered();
    it.recovers();
}

/// Six: three commit, and it takes four to begin a view.
#[test]
fn half_of_six_goes_on_and_the_other_half_waits() {
    let mut it = serving(6);
    it.partition(&[&[0, 1, 2], &[3, 4, 5]]);
    it.writes(5);
    it.pass(5 * SECOND);
    assert!((3..6).all(|replica| it.view(replica) == 0));
    it.writes(2);
    it.recovers();
}

/// Two replicas: without the other neither may go on.
#[test]
fn one_of_two_waits() {
    let mut it = serving(2);
    it.partition(&[&[0], &[1]]);
    it.begin(Ask::Write);
    it.waits(6 * SECOND);
    it.hear_all();
    it.answered();
    it.recovers();
}

/// Nobody hears anybody: no view begins, and none is left, so that the one that was goes on when links are mended.
#[test]
fn all_apart() {
    let mut it = three();
    it.partition(&[&[0], &[1], &[2]]);
    it.begin(Ask::Write);
    it.waits(8 * SECOND);
    for replica in 0..3 {
        assert_eq!(it.view(replica), 0);
    }
    it.hear_all();
    it.answered();
    it.recovers();
}

/// Nothing that the client sends reaches the primary, and nobody else may decide.
#[test]
fn a_client_whose_requests_to_the_primary_are_lost() {
    let mut it = three();
    it.lose(C(0), R(0), &[]);
    it.begin(Ask::Write);
    it.waits(5 * SECOND);
    assert_eq!(it.view(0), 0, "it is not the primary's fault");
    it.lose_nothing();
    it.answered();
    it.recovers();
}

/// The write is executed, and its answer is lost: a backup that has executed it answers as well.
#[test]
fn a_client_whose_answers_from_the_primary_are_lost() {
    let mut it = three();
    it.lose(R(0), C(0), &[]);
    it.begin(Ask::Write);
    it.answered();
    assert_eq!(it.view(0), 0);
    it.recovers();
}

/// Two replicas think that they lead. If the old one answered, its client would lose what it wrote.
#[test]
fn a_duel_of_primaries() {
    let mut it = three();
    it.partition(&[&[0], &[1, 2]]);
    // The client speaks to the old one only.
    it.lose(C(0), R(1), &[]);
    it.lose(C(0), R(2), &[]);
    it.begin(Ask::Write);
    it.waits(2 * SECOND);
    assert!(
        it.is_normal(0) && it.view(0) == 0,
        "it has not heard of the other"
    );
    assert!(it.is_normal(1) && it.view(1) == 1);
    it.lose_nothing();
    it.answered();
    it.recovers();
}

/// A replica that is alone in a higher view must bring the others there, or be brought back: else client and replicas would
/// never agree on a view.
#[test]
fn a_partitioned_replica_with_a_higher_view_cannot_lock_out_a_client() {
    let mut it = three();
    // Replica 2 has gone to view 1, and nobody else hears of it.
    it.lose(
        All,
        R(1),
        &[Command::DoViewChange, Command::StartViewChange],
    );
    it.lose(
        All,
        R(0),
        &[Command::DoViewChange, Command::Ping, Command::Pong],
    );
    it.lose(R(0), R(2), &[]);
    it.lose(R(0), R(1), &[]);
    it.until("one is in a higher view", |it| it.view(2) == 1);
    it.lose_nothing();
    it.partition(&[&[0, 1], &[2]]);
    it.pass(2 * SECOND);
    it.writes(3);
    it.hear_all();
    it.writes(3);
    it.recovers();
    assert!(it.view(2) >= 1);
}

/// Each side in turn: whoever comes back must neither disturb nor be left behind.
#[test]
fn partitions_that_move() {
    let mut it = three();
    let sides: [&[&[u8]]; 6] = [
        &[&[0], &[1, 2]],
        &[&[1], &[0, 2]],
        &[&[2], &[0, 1]],
        &[&[0], &[1], &[2]],
        &[&[0, 2], &[1]],
        &[&[0, 1, 2]],
    ];
    for round in 0..3 {
        for side in sides {
            it.partition(side);
            it.pass(300 * MILLISECOND + round * 700 * MILLISECOND);
            if side.iter().any(|group| group.len() > 1) {
                it.writes(2);
            }
        }
    }
    it.recovers();
}

/// A primary that is paused for long and woken does not know that it was deposed: it must not answer a read, nor a write.
#[test]
fn a_primary_that_sleeps() {
    let mut it = three();
    let wakes = it.cluster.now_ns() + 5 * SECOND;
    it.cluster.pause(0, wakes);
    it.writes(3);
    assert_eq!(it.cluster.primary(), Some(1));
    it.until("it wakes", |it| !it.cluster.is_paused(0));
    it.calls(Ask::Read, 3);
    it.recovers();
    let stale = it.progress(0).status;
    assert_eq!(stale, ReplicaStatus::Normal);
}
