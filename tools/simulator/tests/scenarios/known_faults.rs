//! The known faults of VSR and of its implementations, by name.

use super::script::{
    All, Ask, C, Kind, MILLISECOND, Part, R, SECOND, STRICT, noticed, serving, serving_kind,
    without,
};
use storage::header::Command;

/// Vanlightly: a replica that hears of a later view cuts its log to what it knows to be committed, asks for state, and votes
/// with the short log: what it acknowledged, and somebody counted, is gone.
fn state_transfer_that_truncates(kind: Kind) {
    let mut it = serving_kind(kind, 3);
    // Replica 1 acknowledges an op of which it never hears that it is committed; replica 2 never has it.
    it.lose(R(0), R(2), &[Command::Prepare]);
    it.lose(R(0), R(1), &[Command::Commit]);
    it.writes(1);
    // The primary dies, and so what is left of the op is replica 1's copy.
    it.kill(0);
    it.lose_nothing();
    it.writes(1);
    it.recovers();
}

#[test]
fn state_transfer_that_truncates_acknowledged_prepares() {
    let broken = without!(KEEP_SUFFIX_IN_NEWER_VIEW);
    state_transfer_that_truncates(STRICT);
    noticed("and acknowledged op", || {
        state_transfer_that_truncates(broken);
    });
}

/// Michael et al., B.1: a replica votes in view 1, dies, and is back in view 0, which it helps to commit an op that its vote
/// says it never had.
fn recovery_that_forgets(kind: Kind) {
    let mut it = serving_kind(kind, 3);
    // Replica 1 hears of nobody's vote, but goes to view 1 with replica 2, which dies at once after its vote.
    it.lose(All, R(1), &[Command::DoViewChange]);
    it.lose(R(0), R(1), &[]);
    it.lose(R(0), R(2), &[]);
    it.lose(R(1), R(0), &[]);
    it.lose(R(2), R(0), &[]);
    it.until("a vote for view 1", |it| it.view(2) == 1);
    it.kill(2);
    it.start(2);
    it.opened(2);
    // With the old primary it would commit; with the votes for view 1 it must not.
    it.lose_nothing();
    it.partition(&[&[0, 2], &[1]]);
    it.begin(Ask::Write);
    it.pass(300 * MILLISECOND);
    it.partition(&[&[0], &[1, 2]]);
    it.answered();
    it.writes(1);
    it.recovers();
}

#[test]
fn recovery_that_forgets_a_vote() {
    let broken = without!(VOTE_AWAITS_DURABLE_VIEW);
    recovery_that_forgets(STRICT);
    noticed("says that it is in view", || recovery_that_forgets(broken));
}

/// The same by itself: a view is said before it is on the disk, and a power cut takes it back.
#[test]
fn a_view_that_was_not_durable() {
    let script = |mut it: super::script::Script| {
        it.partition(&[&[0], &[1, 2]]);
        it.until("a view is left", |it| it.view(1) == 1 || it.view(2) == 1);
        it.power_cut(1);
        it.power_cut(2);
        it.hear_all();
        it.start(1);
        it.start(2);
        it.writes(1);
        it.recovers();
    };
    script(serving(3));
}

/// A replica that votes, dies and votes again in the same view must say the same, or two candidates' lives would choose two
/// logs. What its vote named may not be what its journal holds when it comes back.
fn changed_vote(kind: Kind) {
    let mut it = serving_kind(kind, 3);
    it.lose(R(0), R(2), &[Command::Prepare]);
    it.begin(Ask::Write);
    it.until("it is written", |it| it.head(1) == it.head(0));
    it.lose_nothing();
    it.lose(All, All, &[Command::StartView]);
    it.lose(All, R(1), &[Command::DoViewChange]);
    it.partition(&[&[0], &[1, 2]]);
    it.until("both have voted", |it| it.view(1) >= 1 && it.view(2) >= 1);
    let head = it.head(1);
    it.kill(1);
    it.damage(1, head, Part::Both);
    it.start(1);
    it.opened(1);
    it.pass(SECOND); // it votes again, and the checkers compare
    it.hear_all();
    it.lose_nothing();
    it.answered();
    it.recovers();
    assert!(it.cluster.checker().checked().spoke.votes >= 2);
}

#[test]
fn a_changed_vote() {
    changed_vote(STRICT);
}

/// A corrupt entry is not an absent one: if its holder denied it, one damaged copy beside one that never was would cut off
/// what was committed.
fn nacking(kind: Kind, part: Part) {
    let mut it = serving_kind(kind, 3);
    it.partition(&[&[0, 1], &[2]]);
    it.writes(1);
    let op = it.head(0);
    it.pass(SECOND); // both rings are written
    it.kill(0);
    it.kill(1);
    it.damage(1, op, part);
    it.start(1);
    it.hear_all();
    it.begin(Ask::Write);
    it.waits(5 * SECOND);
    it.start(0);
    it.answered();
    it.recovers();
}

#[test]
fn nacking_a_corrupt_entry() {
    let broken = without!(NEVER_NACK_DECAY);
    for part in [Part::Prepare, Part::Body, Part::Both] {
        nacking(STRICT, part);
    }
    noticed("never acknowledged op", || nacking(broken, Part::Both));
}

/// The client's table is replicated: a copy of a request that the new primary has not seen, but its predecessor executed,
/// must be answered, not executed.
#[test]
fn session_table_loss_after_a_failover() {
    let mut it = serving(3);
    for replica in 0..3 {
        it.lose(R(replica), C(0), &[]);
    }
    it.begin(Ask::Write);
    it.until("it is executed, and not answered", |it| {
        it.head(0) > 4 && it.commit(1) == it.head(0)
    });
    it.kill(0);
    it.lose_nothing();
    it.answered();
    it.writes(2);
    it.recovers();
}

/// And over a restart of everybody, from the journal or from a checkpoint.
#[test]
fn session_table_loss_after_a_restart_of_all() {
    for writes in [1, 20] {
        let mut it = serving(3);
        it.writes(writes);
        it.settle();
        let before = it.head(0);
        for replica in 0..3 {
            it.lose(R(replica), C(0), &[Command::Reply]);
        }
        it.begin(Ask::Write);
        it.until("executed", |it| {
            (0..3).all(|replica| it.commit(replica) > before)
        });
        for replica in 0..3 {
            it.kill(replica);
        }
        it.lose_nothing();
        it.start_all();
        it.answered();
        it.recovers();
    }
}

/// A request is in an op that the new primary inherits and that is not committed; the client sends it again, and it gets into
/// the log a second time. Whoever decides on duplicates anywhere but at execution executes it twice.
fn double_execution(kind: Kind) {
    let mut it = serving_kind(kind, 3);
    let before = it.head(0);
    it.lose(R(0), R(2), &[Command::Prepare]);
    it.lose(All, R(0), &[Command::PrepareOk]);
    it.begin(Ask::Write);
    it.until("a backup has it", |it| it.head(1) > before);
    it.kill(0);
    it.lose_nothing();
    it.lose(R(2), R(1), &[Command::PrepareOk]);
    it.until("replica 1 leads", |it| it.is_normal(1) && it.view(1) == 1);
    it.pass(SECOND);
    assert!(it.is_waiting());
    it.lose_nothing();
    it.answered();
    it.writes(2);
    it.recovers();
    assert!(
        it.cluster.checker().checked().copies > 0,
        "it was there twice"
    );
}

#[test]
fn double_execution_of_an_inherited_request() {
    let broken = without!(EXECUTE_ONCE);
    double_execution(STRICT);
    noticed("request > record.request", || double_execution(broken));
}

/// An acknowledgement is of its view. Replica 1 acknowledges an op in view 0, and is by now in view 2, whose log has no such op;
/// counted together with one of view 5 it would commit an op that only two of five hold for good.
fn acks_across_views(kind: Kind) {
    let mut it = serving_kind(kind, 5);
    let op = it.head(0) + 1;
    for other in [2, 3, 4] {
        it.lose(R(0), R(other), &[Command::Prepare]);
    }
    it.begin(Ask::Write);
    it.until("replica 1 has it", |it| it.head(1) == op);
    it.pass(5 * MILLISECOND);
    // Three begin view 2 without it. Replica 1, which did not vote, hears of it; two who did do not.
    it.lose(All, R(1), &[Command::DoViewChange]);
    it.lose(
        R(1),
        All,
        &[Command::DoViewChange, Command::StartViewChange],
    );
    it.lose(
        R(2),
        R(3),
        &[Command::StartView, Command::Prepare, Command::Commit],
    );
    it.lose(
        R(2),
        R(4),
        &[Command::StartView, Command::Prepare, Command::Commit],
    );
    it.lose(C(0), All, &[]);
    it.partition(&[&[0], &[1], &[2, 3, 4]]);
    it.cluster.set_cut(1, 2, false);
    it.cluster.set_cut(2, 1, false);
    it.until("replica 1 is in view 2", |it| it.progress(1).log_view == 2);
    assert!(it.progress(3).log_view == 0 && it.progress(4).log_view == 0);
    // Then replicas 0, 3 and 4 begin view 5 with it.
    it.partition(&[&[1, 2], &[0, 3, 4]]);
    it.lose(All, R(3), &[Command::DoViewChange]);
    it.lose(All, R(4), &[Command::DoViewChange]);
    it.lose(R(0), R(4), &[Command::StartView, Command::Prepare]);
    it.until("view 5 begins", |it| it.is_normal(0) && it.view(0) == 5);
    assert_eq!(it.head(0), op, "with the op");
    it.until("replica 3 has it", |it| {
        it.progress(3).log_view == 5 && it.head(3) == op
    });
    it.pass(SECOND);
    // And at last those who have never heard of it.
    it.lose_nothing();
    it.partition(&[&[0], &[3], &[1, 2, 4]]);
    it.writes_more(2);
    it.recovers();
}

#[test]
fn acks_mixed_across_views() {
    let broken = without!(ACKS_DIE_WITH_VIEW);
    acks_across_views(STRICT);
    noticed("executed another prepare", || acks_across_views(broken));
}
