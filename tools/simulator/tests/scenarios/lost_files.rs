//! Replicas whose file was lost and made anew, and files that were put back: who is accused of having gone back in time, and
//! who is not.

use super::script::{All, GEOMETRY, R, SECOND, Script, serving, stopped};
use simulator::disk::DiskState;
use storage::header::{Command, ReplicaStatus};
use viewstone::replica::{Fatal, Regressed};

const RING: u64 = GEOMETRY.slots as u64;

/// A cluster whose replicas have greeted each other since they did much.
fn experienced(replicas: u8) -> Script {
    let mut it = serving(replicas);
    it.writes(3 * RING);
    it.settle();
    it.pass(2 * SECOND);
    it
}

/// Replaces the file of a replica by a new one, which is filled by the others.
fn lose_and_recover(it: &mut Script, replica: u8) {
    it.kill(replica);
    it.new_file(replica);
    it.start(replica);
    it.until("it is lost", |it| {
        it.progress(replica).status == ReplicaStatus::Lost
    });
    it.until("it takes part", |it| it.is_normal(replica));
    let head = it.cluster.checker().head();
    it.until("it has what there is", |it| it.commit(replica) >= head);
}

/// What a replica's disk holds, when nothing is on its way to it.
fn copy(it: &mut Script, replica: u8) -> DiskState {
    it.settle();
    it.until("the disks rest", |it| it.cluster.is_at_rest());
    it.cluster.disk_mut(replica).state().clone()
}

/// Starts a replica on an older state of its disk: it must stop, and says who told it and what.
fn halts_on(it: &mut Script, replica: u8, old: DiskState) -> Regressed {
    if it.cluster.is_up(replica) {
        it.kill(replica);
    }
    it.put_back(replica, old);
    it.cluster.let_halt();
    it.start(replica);
    it.until("it halts", |it| !it.cluster.is_up(replica));
    let halted = it.cluster.let_halt().to_vec();
    let [.., (who, Fatal::Regressed(how))] = halted[..] else {
        panic!("{halted:?}");
    };
    assert_eq!(who, replica);
    how
}

/// One of five hears nothing while another is made anew and goes on. When it is back it remembers the old file, which held
/// more: nobody may be accused for that, neither in the life that recovered nor in a later one.
#[test]
fn a_peer_that_missed_a_recovery_accuses_nobody() {
    for restart in [false, true] {
        let mut it = experienced(5);
        it.partition(&[&[0, 1, 2, 3], &[4]]);
        lose_and_recover(&mut it, 1);
        it.writes(4);
        if restart {
            it.restart(1);
        }
        it.hear_all();
        it.pass(3 * SECOND);
        it.recovers();
        // It counts: without two others the cluster goes on.
        it.kill(0);
        it.kill(2);
        it.writes(2);
        it.recovers();
    }
}

/// The backup's disk goes back by less than the time between two greetings: the primary has its acknowledgements.
#[test]
fn a_rollback_between_two_greetings_is_noticed_by_the_primary() {
    for (writes, rollback) in [(1, true), (3, true), (2 * RING, true), (3, false)] {
        let mut it = experienced(3);
        it.lose(R(1), All, &[Command::Ping]);
        let old = copy(&mut it, 1);
        it.lose(All, R(2), &[]); // so that the backup's acknowledgement is the one that counts
        it.writes(writes);
        it.lose_nothing();
        let new = it.cluster.disk_mut(1).state().clone();
        if rollback {
            let how = halts_on(&mut it, 1, old);
            assert_eq!(how, Regressed::Peer(0));
        } else {
            it.kill(1);
            it.put_back(1, new);
            it.start(1);
            it.recovers();
        }
    }
}

/// A backup votes, and its disk goes back before it greets again: whoever got the vote remembers it.
#[test]
fn a_vote_between_two_greetings_is_remembered() {
    let mut it = experienced(3);
    let old = copy(&mut it, 2);
    it.lose(R(2), All, &[Command::Ping, Command::PrepareOk]);
    it.lose(All, R(2), &[Command::StartView]);
    it.kill(0);
    it.until("replica 1 leads", |it| it.is_normal(1) && it.view(1) == 1);
    it.lose_nothing();
    assert_eq!(halts_on(&mut it, 2, old), Regressed::Peer(1));
}

/// A disk goes back, and its replica restarts before it was told: several times, and each time it hears of what has happened
/// since. It must not catch up with what the others remember of it, for it has forgotten what it promised.
#[test]
fn a_rollback_is_noticed_however_often_the_replica_restarts_before_it_is_told() {
    let mut it = experienced(3);
    let old = copy(&mut it, 1);
    it.writes(2);
    it.settle();
    it.kill(0);
    it.until("replica 1 leads", |it| it.is_normal(1) && it.view(1) == 1);
    it.start(0);
    it.writes(2);
    it.settle();
    it.pass(2 * SECOND);
    it.kill(1);
    it.put_back(1, old);
    it.lose(All, R(1), &[Command::Pong]);
    for _ in 0..3 {
        it.start(1);
        it.writes(RING);
        it.pass(SECOND);
        it.kill(1);
    }
    it.lose_nothing();
    let old = it.cluster.disk_mut(1).state().clone();
    let how = halts_on(&mut it, 1, old);
    assert!(matches!(how, Regressed::Peer(_)), "{how:?}");
    it.writes(2);
}

/// A disk goes back, and the one who remembers it is not heard at first: others, who do not, find nothing wrong, and it takes
/// part. It is told later, and then it stays out, although it has written more superblocks than anybody remembers.
#[test]
fn a_rollback_is_noticed_also_after_the_replica_has_taken_part() {
    let mut it = experienced(3);
    let old = copy(&mut it, 1);
    it.writes(2);
    it.settle();
    it.pass(2 * SECOND);
    it.kill(1);
    it.restart(2);
    it.settle();
    it.put_back(1, old);
    it.cut(0, 1);
    it.cut(1, 0);
    it.cluster.let_halt();
    it.start(1);
    it.until("it takes part", |it| it.is_normal(1));
    it.writes(2 * RING);
    it.pass(SECOND);
    it.hear_all();
    it.until("it halts", |it| !it.cluster.is_up(1));
    let halted = it.cluster.let_halt().to_vec();
    let [.., (1, Fatal::Regressed(how))] = halted[..] else {
        panic!("{halted:?}");
    };
    assert_eq!(how, Regressed::Peer(0));
    for _ in 0..2 {
        let newest = it.cluster.disk_mut(1).state().clone();
        assert_eq!(halts_on(&mut it, 1, newest), Regressed::Condemned);
    }
    it.writes(2);
    it.new_file(1);
    it.start(1);
    it.recovers();
}

/// Who waits for what its predecessor may have acknowledged does not take the word of those whose own files nobody has
/// confirmed: they may have gone back, and know of less.
#[test]
fn a_lost_replica_listens_to_confirmed_ones_only() {
    let mut it = experienced(5);
    for replica in 1..5 {
        it.kill(replica);
    }
    it.new_file(1);
    // Each of the others hears the lost one alone, which is not enough.
    it.partition(&[&[0], &[1, 2]]);
    for replica in 3..5 {
        it.cluster.set_cut(1, replica, false);
        it.cluster.set_cut(replica, 1, false);
    }
    for replica in 1..5 {
        it.start(replica);
    }
    it.pass(3 * SECOND);
    assert_eq!(it.progress(1).status, ReplicaStatus::Lost);
    assert_eq!(it.progress(1).awaited_op, None);
    for replica in 2..5 {
        assert_eq!(it.progress(replica).status, ReplicaStatus::Starting);
    }
    it.hear_all();
    it.until("it takes part", |it| it.is_normal(1));
    it.recovers();
}

/// A recovered file is a file like any other: it must not go back either.
#[test]
fn a_recovered_file_that_goes_back_is_caught() {
    let mut it = experienced(3);
    lose_and_recover(&mut it, 1);
    let old = copy(&mut it, 1);
    it.writes(4);
    it.settle();
    it.pass(2 * SECOND);
    let how = halts_on(&mut it, 1, old);
    assert!(matches!(how, Regressed::Peer(_)), "{how:?}");
    it.writes(2);
}

/// The file that was lost is found, and put back after another has taken its place: it holds more ops and a higher sequence
/// than that one, and has forgotten what that one promised.
#[test]
fn an_old_file_is_refused_once_another_has_taken_its_place() {
    for replicas in [3, 5] {
        let mut it = experienced(replicas);
        let old = copy(&mut it, 1);
        lose_and_recover(&mut it, 1);
        it.writes(4);
        let how = halts_on(&mut it, 1, old);
        assert!(matches!(how, Regressed::Replaced(_)), "{how:?}");
        it.writes(2);
    }
}

/// A file is formatted and started by mistake, while the true one is away for a while: it has promised nothing before it is
/// recovered, and until then the true one may come back.
#[test]
fn a_file_that_was_blank_to_its_end_replaces_none() {
    let mut it = experienced(3);
    let old = copy(&mut it, 1);
    it.lose(All, R(1), &[Command::Page]);
    it.kill(1);
    it.new_file(1);
    it.start(1);
    it.pass(3 * SECOND);
    assert_eq!(it.progress(1).status, ReplicaStatus::Lost);
    it.writes(2);
    it.kill(1);
    it.put_back(1, old);
    it.lose_nothing();
    it.start(1);
    it.recovers();
}

/// A file goes back to when it was blank. Who remembers it says so; and if nobody does, it is as good as a new one: it does
/// nothing before it has gone the way of a lost file.
#[test]
fn a_file_that_goes_back_to_when_it_was_blank() {
    for remembered in [true, false] {
        let mut it = stopped(3, GEOMETRY);
        let blank = it.cluster.disk_mut(1).state().clone();
        it.start_all();
        it.writes(RING);
        it.settle();
        it.pass(2 * SECOND);
        if remembered {
            let how = halts_on(&mut it, 1, blank);
            assert!(matches!(how, Regressed::Peer(_)), "{how:?}");
            continue;
        }
        it.kill(1);
        for replica in [0, 2] {
            it.restart(replica);
            it.settle();
        }
        it.put_back(1, blank);
        it.start(1);
        it.until("it is lost", |it| {
            it.progress(1).status == ReplicaStatus::Lost
        });
        it.until("it takes part", |it| it.is_normal(1));
        it.recovers();
    }
}

/// A replica is formatted twice over: each file has a name of its own, and what the last but one promised is kept as well.
#[test]
fn a_replica_that_is_recovered_twice() {
    let mut it = experienced(5);
    for cut_off in [4, 3] {
        let talking: Vec<u8> = (0..5).filter(|&it| it != cut_off).collect();
        it.partition(&[&talking, &[cut_off]]);
        lose_and_recover(&mut it, 1);
        it.writes(3);
    }
    it.hear_all();
    it.pass(3 * SECOND);
    it.recovers();
}

/// The lost replica knows no view: replica 0, the primary of the first one, is as good to ask as any, and gone for good.
#[test]
fn a_file_is_recovered_without_the_primary_of_the_first_view() {
    let mut it = experienced(5);
    it.kill(0);
    it.writes(2);
    lose_and_recover(&mut it, 1);
    it.recovers();
}

/// A replica that was made anew misses how its first view begins, and asks by its vote. That vote is of no log, and names the
/// prepare of a checkpoint, which was made in a later view than 0.
#[test]
fn a_recovered_replica_that_missed_the_beginning_of_its_view() {
    let mut it = serving(5);
    it.kill(0);
    it.writes(3 * RING);
    it.start(0);
    it.recovers();
    it.kill(3);
    it.new_file(3);
    it.lose(All, R(3), &[Command::StartView]);
    it.start(3);
    it.until("the others are in its view", |it| {
        it.progress(3).status == ReplicaStatus::ViewChange
            && it.is_normal(1)
            && it.view(1) == it.view(3)
    });
    assert_eq!(it.progress(3).status, ReplicaStatus::ViewChange);
    it.lose_nothing();
    it.until("it takes part", |it| it.is_normal(3));
    it.recovers();
}
