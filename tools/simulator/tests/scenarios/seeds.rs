//! How earlier systems of this kind lose writes, diverge or stop: each was seen in one of them.

use super::script::{
    All, Ask, C, Kind, MILLISECOND, R, SECOND, STRICT, Script, noticed, serving, serving_clients,
    serving_kind, without,
};
use simulator::network::NetworkOptions;
use storage::header::Command;

fn three() -> Script {
    serving(3)
}

/// A lost prepare, or one that is overtaken, makes a gap: taken for a dead primary it makes a view change, and under load these
/// never end.
#[test]
fn gaps_do_not_change_the_view() {
    let mut it = serving_clients(STRICT, 3, 4);
    it.cluster.set_network(NetworkOptions {
        delay_mean_ns: 2 * MILLISECOND,
        loss: 50_000,
        ..NetworkOptions::GOOD
    });
    for _ in 0..30 {
        it.begin(Ask::Write);
        it.answered();
    }
    assert_eq!(it.view(0), 0);
    it.recovers();
}

/// The next primary is dead as well: a view that waits for it for ever is the end of the cluster.
#[test]
fn the_next_primary_is_dead_as_well() {
    let mut it = serving(5);
    it.kill(0);
    it.kill(1);
    it.writes(2);
    assert_eq!(it.cluster.primary(), Some(2));
    it.recovers();
}

/// With one of five dead, those who did not begin the view change count their own votes too.
#[test]
fn a_dead_backup_does_not_stop_a_view_change() {
    let mut it = serving(5);
    it.kill(3);
    it.kill(0);
    it.writes(2);
    it.recovers();
}

/// A prepare that is lost on its way to both backups is sent again.
#[test]
fn a_lost_prepare_is_sent_again() {
    let mut it = three();
    it.lose(R(0), All, &[Command::Prepare]);
    it.begin(Ask::Write);
    it.waits(100 * MILLISECOND);
    it.lose_nothing();
    it.answered();
    assert_eq!(it.view(0), 0);
    it.recovers();
}

/// One prepare never reaches the backups, the next one does: a primary that commits by number alone commits that in place of the
/// first.
#[test]
fn a_later_prepare_does_not_stand_in_for_a_lost_one() {
    let mut it = serving_clients(STRICT, 3, 2);
    let head = it.head(0);
    it.lose(R(0), All, &[Command::Prepare]);
    it.begin(Ask::Write);
    it.until("two in the pipeline", |it| it.head(0) == head + 2);
    it.lose_nothing();
    it.answered();
    it.recovers();
}

/// A heartbeat says that an op is committed which the backup never got: it must not count it as done.
#[test]
fn a_commit_of_what_is_not_there() {
    let mut it = three();
    it.lose(R(0), R(2), &[Command::Prepare, Command::Headers]);
    it.writes(3);
    it.pass(SECOND);
    assert!(it.commit(2) < it.commit(0));
    assert!(it.progress(2).commit_max >= it.commit(2));
    it.lose_nothing();
    it.until("it catches up", |it| it.commit(2) == it.commit(0));
    it.recovers();
}

/// A replica that is told of a later view by its prepares and heartbeats must take that view's log before it acts in it: it has
/// a suffix of its own.
#[test]
fn a_later_view_is_not_joined_with_an_old_suffix() {
    let mut it = three();
    it.lose(R(0), All, &[Command::Prepare]);
    it.begin(Ask::Write);
    it.pass(20 * MILLISECOND);
    it.partition(&[&[0], &[1, 2]]);
    it.lose_nothing();
    it.answered();
    it.writes(1);
    // It hears prepares and heartbeats of view 1, and gets no start_view for a while.
    it.lose(
        All,
        R(0),
        &[
            Command::StartView,
            Command::DoViewChange,
            Command::Ping,
            Command::Pong,
        ],
    );
    it.hear_links();
    it.pass(SECOND);
    assert_eq!(it.progress(0).log_view, 0, "not yet");
    it.writes(2);
    it.lose_nothing();
    it.recovers();
}

/// log_view is the last view in which a replica acted, not one that it only voted for.
#[test]
fn an_unfinished_view_change_does_not_count() {
    let mut it = three();
    it.lose(All, All, &[Command::StartView]);
    it.lose(All, All, &[Command::DoViewChange]);
    it.lose(R(0), R(1), &[]);
    it.lose(R(0), R(2), &[]);
    it.until("views go by", |it| it.view(1) >= 3 && it.view(2) >= 3);
    assert_eq!((it.progress(1).log_view, it.progress(2).log_view), (0, 0));
    it.lose_nothing();
    it.writes(2);
    it.recovers();
}

/// All die at once: what was acknowledged is on the disks, and views are not begun again.
fn all_die(kind: Kind) {
    let mut it = serving_kind(kind, 3);
    for round in 0..6 {
        it.writes(2);
        it.begin(Ask::Write);
        it.pass(round * 150_000);
        let view = it.view(0).max(it.view(1)).max(it.view(2));
        for replica in 0..3 {
            it.kill(replica);
        }
        it.start_all();
        it.answered();
        it.until("a restarted primary leaves its view", |it| {
            it.view(0).max(it.view(1)).max(it.view(2)) > view
        });
        it.settle();
    }
    it.recovers();
}

#[test]
fn all_die_at_once() {
    let broken = without!(RESTARTED_PRIMARY_LEAVES_VIEW);
    all_die(STRICT);
    noticed("a restarted primary leaves its view", || all_die(broken));
}

/// Journals that have wrapped many times: what a view change moves is its end only.
#[test]
fn a_view_change_after_many_wraps() {
    let mut it = three();
    it.writes(80);
    it.kill(0);
    it.writes(1);
    it.recovers();
}

/// A copy of an old request comes late: it must neither be executed, nor be answered with the latest result. The client refuses
/// an answer to what it did not ask; the model refuses a second execution.
#[test]
fn an_old_request_that_comes_late() {
    let mut it = three();
    let late = it.cluster.now_ns() + 300 * MILLISECOND;
    it.cluster
        .network_mut()
        .set_late(Some((Command::Request, late)));
    it.writes(5);
    it.cluster.network_mut().set_late(None);
    it.pass(SECOND);
    it.writes(2);
    it.recovers();
}

/// Everything arrives twice, through view changes.
#[test]
fn everything_arrives_twice() {
    let mut it = three();
    it.repeat_all();
    it.writes(5);
    it.kill(0);
    it.writes(5);
    it.start(0);
    it.writes(5);
    it.recovers();
}

/// Votes and start_views of earlier views come late, when later ones have begun.
#[test]
fn what_belongs_to_earlier_views_comes_late() {
    for kind in [
        Command::DoViewChange,
        Command::StartView,
        Command::PrepareOk,
        Command::Prepare,
    ] {
        let mut it = three();
        let late = it.cluster.now_ns() + 6 * SECOND;
        it.cluster.network_mut().set_late(Some((kind, late)));
        it.partition(&[&[0], &[1, 2]]);
        it.writes(2);
        it.partition(&[&[1], &[0, 2]]);
        it.writes(2);
        it.cluster.network_mut().set_late(None);
        it.hear_all();
        it.until("they come", |it| it.cluster.now_ns() > late);
        it.writes(2);
        it.recovers();
    }
}

/// A dead peer must cost no memory: hundreds of ops, and all buffers are free at the end.
#[test]
fn a_dead_peer_for_long() {
    let mut it = three();
    it.kill(2);
    it.writes(12);
    it.lose(C(0), All, &[Command::PingClient]);
    it.writes(3);
    it.recovers();
}
