//! The schedules that break plausible designs, by number, as far as they are about replicas among each other. The others are
//! tested where their rule is: see docs/testing.md.

use super::script::{
    All, Ask, C, GEOMETRY, Kind, MILLISECOND, Part, R, SECOND, STRICT, Script, noticed, serving,
    serving_clients, serving_kind, without,
};
use storage::header::{Command, ReplicaStatus};

fn kill_all(it: &mut Script) {
    for replica in it.all() {
        if it.cluster.is_up(replica) {
            it.kill(replica);
        }
    }
}

/// 1: an op in both rings of two replicas is replaced in a later view, by a prepare that is acknowledged on one write; power is
/// lost by all before the redundant headers are down. A recovery that trusts neither of two prepares of one op waits for ever.
#[test]
fn schedule_01_a_replaced_prepare_and_a_power_cut_of_all() {
    for moment in 0..10 {
        let mut it = serving(3);
        let op = it.head(0) + 1;
        // Replicas 0 and 1 have it in both rings, not committed.
        it.lose(All, R(0), &[Command::PrepareOk]);
        it.lose(R(0), R(2), &[Command::Prepare]);
        it.begin(Ask::Write);
        it.until("two have it", |it| it.head(0) == op && it.head(1) == op);
        it.lose(C(0), All, &[]);
        it.lose(R(0), All, &[Command::Commit]);
        it.pass(150 * MILLISECOND); // headers are down
        // View 2 begins without it: of those two, only replica 0 votes, and its copy does not decide.
        it.lose_nothing();
        it.lose(C(0), R(0), &[]);
        it.lose(C(0), R(1), &[]);
        it.lose(R(1), All, &[]);
        it.lose(All, R(1), &[]);
        it.lose(R(0), R(2), &[Command::Prepare]);
        it.kill(0);
        it.damage(0, op, Part::Redundant);
        it.start(0);
        it.until("view 2", |it| it.is_normal(2) && it.view(2) >= 2);
        it.lose_nothing();
        it.answered();
        it.pass(moment * 100_000);
        for replica in 0..3 {
            it.power_cut(replica);
        }
        it.start_all();
        it.recovers();
    }
}

/// 3: a copy of a request arrives while the first is being gathered, prepared or executed.
#[test]
fn schedule_03_a_copy_beside_the_pipeline() {
    let mut it = serving_clients(STRICT, 3, 3);
    it.repeat_all();
    for _ in 0..15 {
        it.begin(Ask::Write);
        it.answered();
    }
    it.recovers();
}

/// 6: two acknowledge an op; the disk of one of them is put back to what it was before. If it voted as it was then, it would be
/// one of two that deny what the third knows to be committed. Whoever remembers what it said tells it, and it stops.
fn put_back(kind: Kind) {
    let mut it = serving_kind(kind, 3);
    it.settle();
    it.pass(SECOND);
    let old = it.cluster.disk_mut(1).state().clone();
    it.lose(
        All,
        R(2),
        &[Command::Prepare, Command::Headers, Command::Commit],
    );
    it.writes(2);
    it.pass(2 * SECOND); // it has told the others what it acknowledged
    it.lose_nothing();
    it.kill(1);
    it.kill(0);
    it.put_back(1, old);
    it.start(1);
    it.begin(Ask::Write);
    it.pass(5 * SECOND);
    it.start(0);
    it.answered();
}

#[test]
fn schedule_06_a_disk_that_is_put_back() {
    let broken = without!(REGRESSED_IS_LOST);
    noticed("replica 1 halts", || put_back(STRICT));
    noticed("executed another prepare", || put_back(broken));
}

/// 7: replicas that start for the first time die between hearing of each other and recording it, in every order.
#[test]
fn schedule_07_deaths_during_the_first_start() {
    for moment in 0..30 {
        let mut it = super::script::stopped(3, GEOMETRY);
        it.start_all();
        it.pass(moment * 2 * MILLISECOND);
        for replica in 0..3 {
            if (moment + u64::from(replica)) % 3 != 0 {
                it.kill(replica);
            }
        }
        it.pass((moment % 5) * 10 * MILLISECOND);
        it.start_all();
        it.writes(1);
        it.recovers();
    }
}

/// 8: a partitioned old primary, or a new one that has not committed what it inherited, does not know a client's session. If it
/// evicted the client, that would register again and send its request a second time. The simulated client panics if it is
/// evicted.
#[test]
fn schedule_08_an_eviction_by_who_cannot_know() {
    let mut it = super::script::stopped(3, GEOMETRY);
    it.start_all();
    // The registration is in the log of two, and committed by the primary alone.
    it.until("it leads", |it| it.cluster.primary() == Some(0));
    it.lose(R(0), All, &[Command::Commit]);
    it.lose(R(0), R(2), &[Command::Prepare]);
    it.writes(1);
    it.kill(0);
    it.lose(R(2), R(1), &[Command::PrepareOk]);
    it.until("replica 1 leads", |it| it.is_normal(1) && it.view(1) == 1);
    it.begin(Ask::Write);
    it.waits(2 * SECOND);
    it.lose_nothing();
    it.answered();
    it.recovers();
}

/// 10: an inherited op was acknowledged by the primary's predecessor. A read that does not wait for it is stale.
fn read_before_inherited(kind: Kind) {
    let mut it = serving_kind(kind, 3);
    it.lose(R(0), R(2), &[Command::Prepare]);
    it.lose(R(0), R(1), &[Command::Commit]);
    it.writes(1);
    it.kill(0);
    it.lose_nothing();
    it.lose(R(2), R(1), &[Command::PrepareOk]);
    it.until("replica 1 leads", |it| it.is_normal(1) && it.view(1) == 1);
    it.begin(Ask::Read);
    it.waits(2 * SECOND);
    it.lose_nothing();
    it.answered();
    it.recovers();
}

#[test]
fn schedule_10_a_read_waits_for_what_was_inherited() {
    let broken = without!(READ_AWAITS_INHERITED);
    read_before_inherited(STRICT);
    noticed("a read begun when", || read_before_inherited(broken));
}

/// 11: a primary is paused with reads under way; a new view commits writes; the pause ends.
#[test]
fn schedule_11_reads_do_not_outlive_the_view() {
    let mut it = serving_clients(STRICT, 3, 2);
    it.lose(All, R(0), &[Command::CommitOk]);
    it.begin(Ask::Read);
    it.pass(5 * MILLISECOND);
    let wakes = it.cluster.now_ns() + 3 * SECOND;
    it.cluster.pause(0, wakes);
    it.until("another leads", |it| it.cluster.primary() == Some(1));
    it.lose_nothing();
    it.answered();
    it.writes(3);
    it.until("it wakes", |it| !it.cluster.is_paused(0));
    it.calls(Ask::Read, 2);
    it.recovers();
}

/// 12: damage right of the head on every replica, each elsewhere, while the cluster has gone through views.
#[test]
fn schedule_12_every_head_is_uncertain() {
    let mut it = serving(3);
    it.partition(&[&[0], &[1, 2]]);
    it.writes(2);
    it.hear_all();
    it.settle();
    it.pass(SECOND);
    let head = it.head(0);
    kill_all(&mut it);
    for replica in 0..3 {
        it.damage(replica, head + 1 + u64::from(replica), Part::Both);
        it.damage(replica, head + 4, Part::Prepare);
    }
    it.start_all();
    it.writes(2);
    it.recovers();
    let spoke = it.cluster.checker().checked().spoke;
    assert!(spoke.votes_uncertain > 0);
}

/// 13: a device that tears below the sector, and power lost by all, with the ack mode that waits for both writes.
#[test]
fn schedule_13_a_tear_below_the_sector() {
    for moment in 0..20 {
        let geometry = storage::layout::Geometry {
            journal_ack: storage::layout::JournalAck::Both as u8,
            ..GEOMETRY
        };
        let mut it = super::script::serving_with(3, geometry);
        it.begin(Ask::Write);
        it.pass(moment * 30_000);
        for replica in 0..3 {
            it.power_cut(replica);
        }
        it.start_all();
        it.answered();
        it.recovers();
    }
}

/// 14: the cluster goes idle in the middle of a checkpoint; it must end all the same, or the next one never begins.
#[test]
fn schedule_14_a_checkpoint_ends_in_an_idle_cluster() {
    let mut it = serving(3);
    let interval = GEOMETRY.checkpoint_interval();
    while it.head(0) < interval {
        it.writes(1);
    }
    it.until("all have it", |it| {
        (0..3).all(|replica| it.progress(replica).checkpoint_op == interval)
    });
    it.recovers();
}

/// 19: a replica that reads no more from one connection must not wait for a message on it: one peer's messages are held up for
/// long while everything goes on.
#[test]
fn schedule_19_a_slow_peer() {
    let mut it = serving(3);
    let usual = it.cluster.now_ns() + 20 * SECOND;
    it.delay(2, 0, usual);
    it.writes(30);
    assert_eq!(it.view(0), 0);
    it.pass(20 * SECOND);
    it.recovers();
}

/// 21: an inherited prepare keeps its identity. Re-stamped, it would differ from what others hold, and have executed: the op
/// goes through three views before it commits.
#[test]
fn schedule_21_inherited_prepares_keep_their_identity() {
    let mut it = serving(3);
    let op = it.head(0) + 1;
    it.lose(R(0), R(2), &[Command::Prepare]);
    it.lose(All, R(0), &[Command::PrepareOk]);
    it.begin(Ask::Write);
    it.until("two have it", |it| it.head(1) == op);
    it.kill(0);
    it.lose_nothing();
    it.lose(All, R(1), &[Command::PrepareOk]);
    it.until("view 1", |it| it.is_normal(1) && it.view(1) == 1);
    it.until("replica 2 has it", |it| it.is_normal(2) && it.head(2) == op);
    it.kill(1);
    it.start(0);
    it.lose(All, R(2), &[Command::PrepareOk]);
    it.until("a later view", |it| {
        it.is_normal(2) && it.view(2) >= 2 && it.head(2) >= op
    });
    it.lose_nothing();
    it.start(1);
    it.answered();
    it.recovers();
}

/// 22: acknowledgements count once for each replica, however often they come.
fn counted_twice(kind: Kind) {
    let mut it = serving_kind(kind, 5);
    it.repeat_all();
    for other in [2, 3, 4] {
        it.lose(All, R(other), &[Command::Prepare]);
    }
    it.begin(Ask::Write);
    it.waits(SECOND);
    it.hear_all();
    it.answered();
    it.recovers();
}

#[test]
fn schedule_22_an_acknowledgement_that_comes_twice() {
    let broken = without!(COUNT_EACH_ONCE);
    counted_twice(STRICT);
    noticed("no quorum holds it", || counted_twice(broken));
}

/// 22, the other half: a candidate's own vote counts once. Alone it begins nothing.
#[test]
fn schedule_22_a_candidate_alone() {
    let mut it = serving(3);
    // Replica 1 goes to view 1 with replica 2, whose vote never comes.
    it.lose(All, R(1), &[Command::DoViewChange]);
    it.partition(&[&[0], &[1, 2]]);
    it.until("a candidate", |it| it.view(1) == 1);
    it.kill(2);
    it.repeat_all();
    it.pass(5 * SECOND);
    assert_eq!(it.progress(1).status, ReplicaStatus::ViewChange);
    assert_eq!(it.progress(1).log_view, 0);
    it.start(2);
    it.recovers();
}

/// 23: what is learnt to be committed in a view change is executed, not only counted: read it.
#[test]
fn schedule_23_commits_learnt_in_a_view_change() {
    let mut it = serving(3);
    it.lose(R(0), All, &[Command::Commit]);
    it.writes(2);
    it.kill(0);
    it.lose_nothing();
    it.calls(Ask::Read, 2);
    let head = it.cluster.checker().head();
    it.until("executed", |it| {
        it.commit(1) == head && it.commit(2) == head
    });
    it.recovers();
}

/// 24: the longer log of an older view against the shorter one of the latest, which was acknowledged.
fn longest_log(kind: Kind) {
    let mut it = serving_clients(kind, 3, 2);
    let head = it.head(0);
    it.lose(R(0), All, &[Command::Prepare]);
    it.begin(Ask::Write);
    it.until("two ops that nobody else has", |it| it.head(0) == head + 2);
    // The others go on without it; one of the two clients reaches them.
    it.partition(&[&[0], &[1, 2]]);
    it.lose(C(1), All, &[]);
    it.until("one write of view 1", |it| {
        it.commit(1) == head + 1 && it.commit(2) == head + 1
    });
    it.kill(1);
    it.partition(&[&[0, 1, 2]]);
    it.lose(C(0), All, &[]);
    it.until("a view with both", |it| {
        it.progress(0).log_view >= 2 && it.is_normal(0)
    });
    it.hear_all();
    it.start(1);
    it.answered();
    it.recovers();
}

#[test]
fn schedule_24_the_log_of_the_highest_log_view() {
    let broken = without!(LOG_VIEW_FIRST);
    longest_log(STRICT);
    noticed("votes that contradict", || longest_log(broken));
}
