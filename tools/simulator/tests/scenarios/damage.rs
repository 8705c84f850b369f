//! Damaged disks: what decayed is repaired or waited for, never denied.

use super::script::{
    All, Ask, GEOMETRY, Kind, MILLISECOND, Part, R, SECOND, STRICT, Script, noticed, serving,
    serving_clients, serving_kind, serving_with, stopped, without,
};
use storage::SECTOR_SIZE;
use storage::header::{Command, ReplicaStatus};
use storage::layout::{Geometry, JournalAck, Layout, SUPERBLOCK_COPIES};
use viewstone::replica::{Needed, Nowhere};

const PARTS: [Part; 4] = [Part::Prepare, Part::Body, Part::Redundant, Part::Both];

fn three() -> Script {
    serving(3)
}

fn kill_all(it: &mut Script) {
    for replica in it.all() {
        it.kill(replica);
    }
}

/// Both rings are written, of all replicas.
fn at_rest(it: &mut Script) {
    it.settle();
    it.pass(SECOND);
}

/// Damage right of the head, each replica elsewhere: none can tell where its log ends. If whoever cannot tell did not vote, the
/// cluster would stop for good.
#[test]
fn damage_right_of_the_head_of_every_replica() {
    for part in PARTS {
        let mut it = three();
        it.writes(4);
        at_rest(&mut it);
        let head = it.head(0);
        kill_all(&mut it);
        for replica in 0..3 {
            it.damage(replica, head + 1 + u64::from(replica), part);
        }
        it.start_all();
        it.writes(3);
        it.recovers();
    }
}

/// Every copy of an op above the checkpoint is damaged: it may have been committed, so nothing may go on without it; and nothing
/// that went before is forgotten.
#[test]
fn an_op_that_is_damaged_everywhere() {
    for part in [Part::Prepare, Part::Body] {
        let mut it = three();
        it.writes(4);
        at_rest(&mut it);
        let head = it.head(0);
        kill_all(&mut it);
        for replica in 0..3 {
            it.damage(replica, head - 1, part);
        }
        it.start_all();
        it.begin(Ask::Write);
        it.waits(10 * SECOND);
        for replica in 0..3 {
            assert!(it.commit(replica) < head - 1, "executed what nobody has");
        }
    }
}

/// What is below every checkpoint is in the state: the ring's copy of it is not missed.
#[test]
fn an_op_below_the_checkpoint_that_is_damaged_everywhere() {
    for part in PARTS {
        let mut it = three();
        it.writes(16);
        at_rest(&mut it);
        let checkpoint = (0..3)
            .map(|replica| it.progress(replica).checkpoint_op)
            .min();
        let checkpoint = checkpoint.expect("three replicas");
        assert!(checkpoint > 0);
        // It may lie where the next op after the head would: then the head is uncertain as well.
        kill_all(&mut it);
        for replica in 0..3 {
            it.damage(replica, checkpoint, part);
        }
        it.start_all();
        it.writes(3);
        it.recovers();
    }
}

/// Each op above the checkpoint is damaged on one replica, in turn: from the others each is repaired.
#[test]
fn every_op_above_the_checkpoint_is_damaged_on_one_replica() {
    for part in PARTS {
        let mut it = three();
        it.writes(4);
        at_rest(&mut it);
        let head = it.head(0);
        kill_all(&mut it);
        for op in 1..=head {
            it.damage((op % 3) as u8, op, part);
        }
        it.start_all();
        it.recovers();
    }
}

/// All of one replica's journal is damaged.
#[test]
fn the_whole_journal_of_one_replica() {
    for victim in 0..3 {
        let mut it = three();
        it.writes(9);
        at_rest(&mut it);
        it.kill(victim);
        for slot in 0..u64::from(GEOMETRY.slots) {
            it.damage(victim, slot, Part::Both);
        }
        it.start(victim);
        it.recovers();
    }
}

/// One replica has lost the first sectors, another the bodies, the third its redundant headers, of all that is above the
/// checkpoint: what each has left is enough for all.
#[test]
fn each_replica_has_lost_something_else() {
    let mut it = three();
    it.writes(4);
    at_rest(&mut it);
    let head = it.head(0);
    kill_all(&mut it);
    for op in 1..=head {
        let parts = [Part::Redundant, Part::Prepare, Part::Body];
        let shift = op as usize;
        // One good prepare of each is left: the one whose redundant header is lost.
        for (replica, part) in parts.into_iter().enumerate() {
            it.damage(((replica + shift) % 3) as u8, op, part);
        }
    }
    it.start_all();
    it.recovers();
}

/// The primary, and one that has the last op damaged, held a committed op; the third never had it. If the damaged one denied
/// it, two of three would cut it off.
#[test]
fn a_committed_op_in_the_pipeline_that_is_damaged_is_not_denied() {
    for part in [Part::Prepare, Part::Body, Part::Both] {
        let mut it = three();
        it.lose(
            R(0),
            R(2),
            &[Command::Prepare, Command::Headers, Command::StartView],
        );
        it.writes(1);
        let op = it.head(0);
        assert!(it.head(2) < op);
        it.pass(SECOND);
        it.kill(0);
        it.kill(1);
        it.damage(1, op, part);
        it.lose_nothing();
        it.start(1);
        it.begin(Ask::Write);
        it.waits(4 * SECOND);
        it.start(0);
        it.answered();
        it.recovers();
    }
}

/// The same in a view change: the new primary has the op's header from a vote, and lost the prepare before it could send it on.
#[test]
fn a_committed_op_that_is_damaged_during_a_view_change_is_not_denied() {
    let mut it = three();
    it.lose(R(0), R(2), &[Command::Prepare, Command::Headers]);
    it.writes(1);
    let op = it.head(0);
    it.pass(SECOND);
    it.lose_nothing();
    it.kill(0);
    // Replica 1 leads, and cannot give the op to replica 2.
    it.lose(R(1), R(2), &[Command::Prepare]);
    it.until("replica 1 leads", |it| it.is_normal(1) && it.view(1) == 1);
    it.kill(1);
    it.damage(1, op, Part::Body);
    it.lose_nothing();
    it.start(1);
    it.begin(Ask::Write);
    it.waits(4 * SECOND);
    it.start(0);
    it.answered();
    it.recovers();
}

/// And while it is repaired: a replica that fetches it has not acknowledged it, and may say so; one that lost it may not.
#[test]
fn a_committed_op_that_is_damaged_under_repair_is_not_denied() {
    let mut it = three();
    it.partition(&[&[0, 1], &[2]]);
    it.writes(2);
    let op = it.head(0);
    it.pass(SECOND);
    it.kill(1);
    it.damage(1, op, Part::Body);
    it.lose(R(0), R(1), &[Command::Prepare]);
    it.start(1);
    it.opened(1);
    it.pass(SECOND);
    it.kill(0);
    it.hear_all();
    it.begin(Ask::Write);
    it.waits(4 * SECOND);
    it.start(0);
    it.answered();
    it.recovers();
}

/// A long prepare of which a power cut left a part was never acknowledged, and may be denied: taken for decay it would be
/// waited for for ever. Power fails at all three, at many moments.
#[test]
fn a_torn_prepare_does_not_stop_the_cluster() {
    for journal_ack in [JournalAck::Single, JournalAck::Both] {
        for moment in 0..12 {
            let geometry = Geometry {
                journal_ack: journal_ack as u8,
                ..GEOMETRY
            };
            let mut it = serving_with(3, geometry);
            it.begin(Ask::LongWrite);
            it.pass(moment * 50_000);
            for replica in 0..3 {
                it.power_cut(replica);
            }
            it.start_all();
            it.answered();
            it.recovers();
        }
    }
}

/// A replica that cannot tell where its log ends asks for it. A late copy of the answer must not take back what it has
/// acknowledged since.
fn late_start_view(kind: Kind) {
    let mut it = serving_kind(kind, 3);
    it.writes(2);
    it.settle();
    it.pass(SECOND);
    let head = it.head(2);
    it.kill(2);
    it.damage(2, head, Part::Both);
    let late = it.cluster.now_ns() + 2 * SECOND;
    let network = it.cluster.network_mut();
    network.set_late(Some((Command::StartView, late)));
    it.start(2);
    it.until("it has its log", |it| it.is_normal(2) && it.head(2) >= head);
    it.cluster.network_mut().set_late(None);
    // It acknowledges an op of which nobody knows yet that it is committed: replica 1 does not have it.
    it.lose(All, R(1), &[Command::Prepare]);
    it.lose(R(2), R(0), &[Command::PrepareOk]);
    it.begin(Ask::Write);
    it.until("it has it", |it| it.head(2) > head);
    it.until("the late one comes", |it| it.cluster.now_ns() > late);
    it.lose_nothing();
    it.answered();
    it.recovers();
    assert!(it.cluster.checker().checked().heads_uncertain > 0);
}

#[test]
fn an_uncertain_head_and_a_start_view_that_comes_late() {
    let broken = without!(HEAD_NEVER_FALLS_IN_VIEW);
    late_start_view(STRICT);
    noticed("falls from", || late_start_view(broken));
}

/// Nobody writes anything. A replica with an uncertain head must be told all the same.
#[test]
fn an_uncertain_head_in_an_idle_cluster() {
    for part in PARTS {
        let mut it = three();
        at_rest(&mut it);
        let head = it.head(2);
        it.kill(2);
        it.damage(2, head, part);
        it.damage(2, head + 1, part);
        it.start(2);
        it.until("it follows", |it| it.is_normal(2) && it.commit(2) == head);
        it.recovers();
        assert_eq!(it.view(0), 0, "without a view change");
    }
}

/// An uncertain head acknowledges nothing: what it might acknowledge it may have denied, or acknowledged otherwise.
fn hasty_head(kind: Kind) {
    let mut it = serving_kind(kind, 3);
    at_rest(&mut it);
    let head = it.head(2);
    it.kill(2);
    it.damage(2, head, Part::Both);
    it.lose(R(0), R(2), &[Command::StartView]);
    it.lose(R(1), All, &[Command::PrepareOk]);
    it.start(2);
    it.opened(2);
    it.begin(Ask::Write);
    it.waits(SECOND);
    assert_eq!(it.progress(2).status, ReplicaStatus::ViewChange);
    it.lose_nothing();
    it.answered();
    it.recovers();
}

#[test]
fn an_uncertain_head_acknowledges_nothing_before_it_has_the_log() {
    let broken = without!(UNCERTAIN_HEAD_AWAITS_START_VIEW);
    hasty_head(STRICT);
    noticed("answered", || hasty_head(broken));
}

/// In the middle of a vote there is an op of which the voter knows nothing at all, not even the name: what follows it names it,
/// and whoever has it supplies it.
#[test]
fn a_vote_with_a_gap() {
    for victim in 0..3 {
        let mut it = three();
        it.writes(3);
        at_rest(&mut it);
        let head = it.head(0);
        kill_all(&mut it);
        it.damage(victim, head - 1, Part::Both);
        for replica in (0..3).filter(|&replica| replica != (victim + 1) % 3) {
            it.start(replica);
        }
        it.writes(1);
        it.recovers();
    }
}

/// The only other voter has lost the same op: the two cannot tell, and must wait for the third.
#[test]
fn a_vote_with_a_gap_waits_for_whoever_knows() {
    let mut it = three();
    it.writes(3);
    at_rest(&mut it);
    let head = it.head(0);
    kill_all(&mut it);
    it.damage(1, head, Part::Both);
    it.damage(2, head, Part::Both);
    it.start(1);
    it.start(2);
    it.begin(Ask::Write);
    it.waits(4 * SECOND);
    it.start(0);
    it.answered();
    it.recovers();
}

/// A primary prepared two ops that nobody else has, and lost what lies below the last: a vote that ended there would say that
/// the first of them was committed.
#[test]
fn a_vote_that_knows_nothing_below_its_head() {
    let mut it = serving_clients(STRICT, 3, 2);
    it.writes(3);
    at_rest(&mut it);
    let committed = it.commit(0);
    it.lose(R(0), All, &[Command::Prepare]);
    it.begin(Ask::Write);
    it.until("two are prepared", |it| it.head(0) == committed + 2);
    it.pass(20 * MILLISECOND);
    kill_all(&mut it);
    it.lose_nothing();
    it.damage(0, committed, Part::Both);
    it.damage(0, committed + 1, Part::Both);
    it.start(0);
    it.start(1);
    it.pass(SECOND);
    it.start(2);
    it.answered();
    it.recovers();
}

/// A new primary lacks what its log names: it must have it before it serves, or it would execute what comes after on a state
/// without it.
#[test]
fn a_primary_with_a_dirty_log() {
    let mut it = three();
    // Replica 2 has all, replica 1, which leads next, lacks the last two.
    it.lose(R(0), R(1), &[Command::Prepare, Command::Headers]);
    it.writes(2);
    it.lose_nothing();
    it.kill(0);
    it.writes(1);
    assert_eq!(it.cluster.primary(), Some(1));
    it.recovers();
}

/// What a replica holds at an op in place of what the log has is a denial of that, not of nothing: the log is cut where two of
/// three have something older there, and its only copy is lost.
#[test]
fn older_prepares_deny_a_newer_one() {
    let mut it = three();
    // Replica 0 alone has a write of view 0.
    it.lose(R(0), All, &[Command::Prepare]);
    it.begin(Ask::Write);
    it.pass(50 * 1_000_000);
    let op = it.head(0);
    assert!(it.head(1) < op);
    // The others go on without it, and have something else there.
    it.lose_nothing();
    it.partition(&[&[0], &[1, 2]]);
    it.answered();
    it.writes(2);
    at_rest_of(&mut it, &[1, 2]);
    // Now replica 2, with the log of view 1, has lost it; replica 0 has its own.
    it.kill(1);
    it.kill(2);
    it.damage(2, op, Part::Both);
    it.start(2);
    it.partition(&[&[0, 2], &[1]]);
    it.begin(Ask::Write);
    it.waits(3 * SECOND);
    it.start(1);
    it.hear_all();
    it.answered();
    it.recovers();
}

fn at_rest_of(it: &mut Script, replicas: &[u8]) {
    it.until("they agree", |it| {
        replicas
            .iter()
            .all(|&one| it.commit(one) == it.head(replicas[0]))
    });
    it.pass(SECOND);
}

/// The log of the view names another prepare than the journal holds from the view before: which one counts is told by the
/// superblock, not by what lies there.
#[test]
fn a_journal_with_an_older_views_prepare() {
    let mut it = three();
    it.lose(R(0), All, &[Command::Prepare]);
    it.begin(Ask::Write);
    it.pass(50 * 1_000_000);
    it.lose_nothing();
    it.partition(&[&[0], &[1, 2]]);
    it.answered();
    it.writes(1);
    // Replica 0 learns of the log, and dies before it has its prepares.
    it.lose(All, R(0), &[Command::Prepare]);
    it.partition(&[&[0, 1, 2]]);
    it.until("it is in the view", |it| {
        it.progress(0).log_view == it.view(1)
    });
    it.pass(100 * 1_000_000);
    it.restart(0);
    it.pass(SECOND);
    // It votes beside replica 2; what it holds there must not be taken for the log's.
    it.kill(1);
    it.lose_nothing();
    it.writes(2);
    it.recovers();
}

/// A sector of redundant headers is damaged: here it is the whole ring, on one replica after the other.
#[test]
fn the_ring_of_redundant_headers() {
    for victim in 0..3 {
        let mut it = three();
        it.writes(12);
        at_rest(&mut it);
        it.kill(victim);
        for slot in 0..u64::from(GEOMETRY.slots) {
            it.damage(victim, slot, Part::Redundant);
        }
        it.start(victim);
        it.recovers();
    }
}

/// Three of four copies of the superblock are gone on every replica: the last one is enough.
#[test]
fn one_copy_of_the_superblock_is_left_to_each() {
    let mut it = three();
    it.partition(&[&[0], &[1, 2]]);
    it.writes(2); // views are in it
    it.hear_all();
    at_rest(&mut it);
    kill_all(&mut it);
    for replica in 0..3 {
        for copy in (0..SUPERBLOCK_COPIES).filter(|&copy| copy != replica as usize) {
            let disk = it.cluster.disk_mut(replica).state_mut();
            disk.overwrite(Layout::superblock_at(copy), &[0x5a; SECTOR_SIZE]);
        }
    }
    it.start_all();
    it.recovers();
    assert!(it.view(0) > 1, "they remember their view");
}

/// What cannot be read is not a first start: a seed begins in view 0 again when its view file is unreadable.
#[test]
#[should_panic(expected = "halts")]
fn no_copy_of_the_superblock_is_left() {
    let mut it = three();
    it.kill(2);
    for copy in 0..SUPERBLOCK_COPIES {
        let disk = it.cluster.disk_mut(2).state_mut();
        disk.overwrite(Layout::superblock_at(copy), &[0x5a; SECTOR_SIZE]);
    }
    it.start(2);
    it.pass(SECOND);
}

/// Alone there is nobody to ask: it says so, and does not go on without what it acknowledged.
#[test]
#[should_panic(expected = "halts")]
fn a_damaged_prepare_of_a_replica_that_is_alone() {
    let mut it = serving(1);
    it.writes(3);
    it.pass(SECOND);
    let head = it.head(0);
    it.kill(0);
    it.damage(0, head - 1, Part::Body);
    it.start(0);
    it.pass(SECOND);
}

/// Alone, a decayed redundant header is written anew.
#[test]
fn a_damaged_redundant_header_of_a_replica_that_is_alone() {
    let mut it = serving(1);
    it.writes(3);
    it.pass(SECOND);
    let head = it.head(0);
    it.kill(0);
    it.damage(0, head, Part::Redundant);
    it.start(0);
    it.writes(2);
}

/// Two replicas: what one lost the other has; what both lost is waited for.
#[test]
fn damage_in_a_cluster_of_two() {
    let mut it = serving(2);
    it.writes(3);
    at_rest(&mut it);
    let head = it.head(0);
    kill_all(&mut it);
    it.damage(0, head, Part::Both);
    it.damage(1, head - 1, Part::Both);
    it.start_all();
    it.recovers();
}

/// A first start in which everybody's journal is damaged: nothing was ever acknowledged, but nobody can know.
#[test]
fn damage_before_the_first_start() {
    let mut it = stopped(3, GEOMETRY);
    for replica in 0..3 {
        it.damage(replica, 1 + u64::from(replica), Part::Both);
    }
    it.start_all();
    it.writes(2);
    it.recovers();
}

/// The cluster stands still: everybody waits in one view for something, and says for what.
#[track_caller]
pub fn stands_still(it: &mut Script, up: &[u8], is: impl Fn(&Nowhere) -> bool) {
    let told = |it: &Script| {
        let nowhere = |&replica: &u8| it.progress(replica).nowhere;
        up.iter().filter_map(nowhere).collect::<Vec<_>>()
    };
    it.until("somebody says what is missing", |it| !told(it).is_empty());
    it.pass(5 * SECOND);
    let views: Vec<u32> = up.iter().map(|&replica| it.view(replica)).collect();
    it.waits(20 * SECOND);
    let now: Vec<u32> = up.iter().map(|&replica| it.view(replica)).collect();
    assert_eq!(views, now, "views that cannot begin are left alone");
    let told = told(it);
    assert!(!told.is_empty() && told.iter().all(is), "{told:?}");
}

/// A committed op is damaged on every replica. Nobody changes views for its sake: the operator is told, and whoever brings a
/// good copy back, each in turn here, ends the wait.
#[test]
fn an_op_that_nobody_has_is_named_until_somebody_has_it() {
    for back in [2, 3, 4] {
        for healer in 0..3 {
            let mut it = three();
            it.writes(3);
            at_rest(&mut it);
            let op = it.head(0) - back;
            kill_all(&mut it);
            for replica in 0..3 {
                it.damage(replica, op, Part::Body);
            }
            it.start_all();
            it.begin(Ask::Write);
            let named =
                |needed: Needed| matches!(needed, Needed::Prepare { op: it, .. } if it == op);
            let all = [0, 1, 2];
            stands_still(&mut it, &all, |nowhere| {
                named(nowhere.needed) && nowhere.silent.count() == 0
            });
            it.kill(healer);
            it.damage(healer, op, Part::Body); // flips the same bit back
            it.start(healer);
            it.answered();
            it.recovers();
            assert!(
                all.iter()
                    .all(|&replica| it.progress(replica).nowhere.is_none())
            );
        }
    }
}

/// The only good copy of a committed op is on a replica that is down: that one is named.
#[test]
fn an_op_that_only_a_dead_replica_has() {
    for dead in 0..3 {
        let mut it = three();
        it.writes(3);
        at_rest(&mut it);
        let op = it.head(0) - 4;
        kill_all(&mut it);
        let up: Vec<u8> = (0..3).filter(|&replica| replica != dead).collect();
        for &replica in &up {
            it.damage(replica, op, Part::Body);
            it.start(replica);
        }
        it.begin(Ask::Write);
        stands_still(&mut it, &up, |nowhere| {
            matches!(nowhere.needed, Needed::Prepare { op: it, .. } if it == op)
                && nowhere.silent.iter().eq([dead])
        });
        it.start(dead);
        it.answered();
        it.recovers();
    }
}
