//! Replicas that come back from so far behind that only the state of others helps, and replicas whose file is gone.

use super::damage::stands_still;
use super::script::{
    All, Ask, GEOMETRY, Kind, MILLISECOND, R, SECOND, STRICT, Script, noticed, serving, stopped,
    stopped_kind, without,
};
use simulator::disk::DiskSpeed;
use std::collections::BTreeSet;
use storage::SECTOR_SIZE;
use storage::header::{Command, ReplicaStatus};
use viewstone::replica::Needed;

const RING: u64 = GEOMETRY.slots as u64;

/// A cluster of which one replica has missed so many ops.
fn behind(replicas: u8, victim: u8, ops: u64) -> Script {
    let mut it = serving(replicas);
    let others: Vec<u8> = it
        .all()
        .into_iter()
        .filter(|&other| other != victim)
        .collect();
    it.partition(&[&others, &[victim]]);
    let head = it.head(victim);
    while it.cluster.checker().head() < head + ops {
        it.writes(1);
    }
    it
}

/// A backup that missed several rings. Waiting for prepares that nobody has any more it would wait for ever.
#[test]
fn a_backup_that_missed_more_than_a_ring() {
    let mut it = behind(3, 2, 3 * RING);
    it.hear_all();
    it.until("it is there", |it| {
        it.is_normal(2) && it.commit(2) == it.commit(0)
    });
    it.recovers();
    assert_eq!(it.view(0), 0, "the others are not disturbed");
}

/// Each number of ops around the size of the ring: where fetching ends and sync begins there must be no gap.
#[test]
fn a_backup_that_missed_about_a_ring() {
    for missed in RING - 4..=RING + 4 {
        let mut it = behind(3, 1, missed);
        it.hear_all();
        it.recovers();
    }
}

/// One of four.
#[test]
fn a_backup_of_four_that_missed_more_than_a_ring() {
    let mut it = behind(4, 3, 3 * RING);
    it.hear_all();
    it.recovers();
}

/// It dies while it syncs, at many moments: each time it goes on, with the checkpoint that it wanted or with its own.
#[test]
fn a_death_during_sync() {
    for moment in 0..25 {
        let mut it = behind(3, 2, 2 * RING);
        it.hear_all();
        it.pass(moment * MILLISECOND);
        if moment % 2 == 0 {
            it.kill(2);
        } else {
            it.power_cut(2);
        }
        it.start(2);
        it.recovers();
    }
}

/// The others go on to checkpoint while it syncs: the one that it wants vanishes, and it must not begin anew for ever.
#[test]
fn a_sync_whose_target_moves_on() {
    let mut it = behind(3, 2, 2 * RING);
    it.hear_all();
    for _ in 0..4 * RING {
        it.writes(1);
    }
    it.until("it is there", |it| {
        it.is_normal(2) && it.commit(2) == it.commit(0)
    });
    it.recovers();
}

/// The view changes while it syncs, and it is the next primary: it must not lead without a state.
#[test]
fn a_view_change_while_the_next_primary_syncs() {
    for moment in 0..8 {
        let mut it = behind(3, 1, 3 * RING);
        it.hear_all();
        it.pass(moment * 2 * MILLISECOND);
        it.kill(0);
        it.writes(2);
        it.recovers();
    }
}

/// A start_view tells it at once of a log that lies beyond its ring: the log and the checkpoint that it rests on are begun
/// together, or a death between them would leave one without the other.
#[test]
fn a_log_that_begins_beyond_the_ring() {
    for moment in 0..10 {
        let mut it = behind(3, 2, 2 * RING);
        // A view that it does not take part in.
        it.kill(0);
        it.start(0);
        it.writes(2);
        it.hear_all();
        it.pass(moment * MILLISECOND);
        it.power_cut(2);
        it.start(2);
        it.recovers();
        assert!(it.view(0) > 0);
    }
}

/// What it has fetched is a state to go on with: it leads, and its clients' sessions are there.
#[test]
fn it_leads_after_sync() {
    let mut it = behind(3, 1, 2 * RING);
    it.hear_all();
    it.settle();
    it.kill(0);
    it.writes(3);
    assert_eq!(it.cluster.primary(), Some(1));
    it.recovers();
}

/// A file that was lost, and formatted anew in its place: it has forgotten what it acknowledged, so it may neither acknowledge
/// nor vote before the others have gone on for so long that nothing of that can matter.
fn formatted_anew(kind: Kind) {
    let mut it = stopped_kind(kind, 3);
    it.start_all();
    it.writes(5);
    it.settle();
    it.kill(2);
    it.new_file(2);
    it.start(2);
    it.opened(2);
    // It is no help to one alone.
    it.kill(1);
    it.begin(Ask::Write);
    it.waits(4 * SECOND);
    it.start(1);
    it.answered();
    it.writes(5);
    it.recovers();
}

#[test]
fn a_file_that_is_formatted_anew() {
    let broken = without!(LOST_FILE_AWAITS_OTHERS);
    formatted_anew(STRICT);
    noticed("answered", || formatted_anew(broken));
}

/// Two of three files are gone: what they acknowledged may be gone as well, and the third must not go on with them.
#[test]
fn two_files_that_are_formatted_anew() {
    let mut it = stopped(3, GEOMETRY);
    it.start_all();
    it.writes(5);
    it.settle();
    for replica in [1, 2] {
        it.kill(replica);
        it.new_file(replica);
    }
    it.start_all();
    it.begin(Ask::Write);
    it.waits(5 * SECOND);
}

/// Pages of the checkpoint are damaged on every replica, each elsewhere.
#[test]
fn pages_that_are_damaged_on_every_replica() {
    let mut it = serving(3);
    it.writes(2 * RING);
    it.settle();
    it.until("all is written", |it| it.cluster.is_at_rest());
    let layout = *it.cluster.layout();
    for replica in 0..3 {
        it.kill(replica);
    }
    for replica in 0..3 {
        let disk = it.cluster.disk_mut(replica).state_mut();
        let blocks = (layout.size - layout.grid_at) / SECTOR_SIZE as u64;
        for block in (0..blocks).filter(|block| block % 3 == u64::from(replica)) {
            let at = layout.grid_at + block * SECTOR_SIZE as u64;
            let mut bytes = disk.sector(at / SECTOR_SIZE as u64).to_vec();
            bytes[17] ^= 4;
            disk.overwrite(at, &bytes);
        }
    }
    it.start_all();
    it.recovers();
}

/// And all pages of one.
#[test]
fn all_pages_of_one_replica_are_damaged() {
    for victim in 0..3 {
        let mut it = serving(3);
        it.writes(2 * RING);
        it.settle();
        it.until("all is written", |it| it.cluster.is_at_rest());
        let layout = *it.cluster.layout();
        it.kill(victim);
        let disk = it.cluster.disk_mut(victim).state_mut();
        for at in (layout.grid_at..layout.size).step_by(SECTOR_SIZE) {
            let mut bytes = disk.sector(at / SECTOR_SIZE as u64).to_vec();
            bytes[99] ^= 1;
            disk.overwrite(at, &bytes);
        }
        it.start(victim);
        it.recovers();
    }
}

/// The answers to a replica that syncs are lost for long: it goes on when they come.
#[test]
fn pages_that_are_lost_on_their_way() {
    let mut it = behind(3, 2, 2 * RING);
    it.lose(All, R(2), &[Command::Page]);
    it.hear_links();
    it.pass(3 * SECOND);
    it.writes(2);
    it.lose_nothing();
    it.recovers();
}

/// Offsets of the blocks of the grid.
fn grid(it: &Script) -> impl Iterator<Item = u64> + use<> {
    let layout = *it.cluster.layout();
    (layout.grid_at..layout.size).step_by(SECTOR_SIZE)
}

/// What each block of a replica's grid holds.
fn blocks(it: &mut Script, replica: u8) -> Vec<Vec<u8>> {
    let grid = grid(it);
    let disk = it.cluster.disk_mut(replica).state();
    grid.map(|at| disk.sector(at / SECTOR_SIZE as u64).to_vec())
        .collect()
}

/// A cluster that has written a checkpoint and then died; and the pages that every replica has: a page is the same everywhere.
fn dead_with_pages() -> (Script, BTreeSet<Vec<u8>>) {
    let mut it = serving(3);
    it.writes(2 * RING);
    it.settle();
    it.until("all is written", |it| it.cluster.is_at_rest());
    for replica in 0..3 {
        it.kill(replica);
    }
    let mut common: BTreeSet<_> = blocks(&mut it, 0).into_iter().collect();
    for replica in 1..3 {
        let others: BTreeSet<_> = blocks(&mut it, replica).into_iter().collect();
        common.retain(|content| others.contains(content));
    }
    common.retain(|content| content.iter().any(|&byte| byte != 0));
    assert!(!common.is_empty());
    (it, common)
}

/// Flips a bit in each of these pages of a replica. Doing so again mends them.
fn spoil(it: &mut Script, replica: u8, pages: &BTreeSet<Vec<u8>>) {
    let found = blocks(it, replica);
    for (at, mut content) in grid(it).zip(found) {
        let good = pages.contains(&content);
        content[17] ^= 4;
        if good || pages.contains(&content) {
            let disk = it.cluster.disk_mut(replica).state_mut();
            disk.overwrite(at, &content);
        }
    }
}

/// The same pages are damaged on every replica: nobody has a state to execute on. That is said on each, and nobody changes views
/// for its sake. Who brings them back, each in turn here, leads, or lets another lead.
#[test]
fn a_page_that_nobody_has_is_named_until_somebody_has_it() {
    for healer in 0..3 {
        let (mut it, pages) = dead_with_pages();
        let all = it.all();
        for &replica in &all {
            spoil(&mut it, replica, &pages);
        }
        it.start_all();
        it.begin(Ask::Write);
        stands_still(&mut it, &all, |nowhere| {
            !matches!(nowhere.needed, Needed::Prepare { .. }) && nowhere.silent.count() == 0
        });
        for &replica in &all {
            let progress = it.progress(replica);
            assert!(progress.nowhere.is_some(), "{replica}: {progress:?}");
        }
        it.kill(healer);
        spoil(&mut it, healer, &pages);
        it.start(healer);
        it.answered();
        it.recovers();
    }
}

/// Nobody can lead, and one does not hear the candidate now and then: it wishes for the next view, and is over it when it hears
/// again. Each time it must leave no timer behind that is always due.
#[test]
fn a_wish_that_is_over() {
    let (mut it, pages) = dead_with_pages();
    let all = it.all();
    for &replica in &all {
        spoil(&mut it, replica, &pages);
    }
    it.start_all();
    it.begin(Ask::Write);
    it.pass(10 * SECOND);
    let view = it.view(0);
    let candidate = (view % 3) as u8;
    for turn in 0..150 {
        let other = (candidate + 1 + turn % 2) % 3;
        it.lose(R(candidate), R(other), &[Command::DoViewChange]);
        it.pass(700 * MILLISECOND + u64::from(turn) * 13 * MILLISECOND);
        it.lose_nothing();
        it.pass(500 * MILLISECOND);
    }
    assert_eq!(
        it.view(0),
        view,
        "the other heard the candidate all the time"
    );
}

/// The only good copy of a page is on a replica that was down when it was first asked for it. Whoever was silent once and is not
/// asked again, since others answer that they do not have it, cannot bring it.
#[test]
fn a_page_that_only_a_dead_replica_has() {
    for dead in 0..3 {
        let (mut it, pages) = dead_with_pages();
        let up: Vec<u8> = (0..3).filter(|&replica| replica != dead).collect();
        for &replica in &up {
            spoil(&mut it, replica, &pages);
            it.start(replica);
        }
        it.begin(Ask::Write);
        stands_still(&mut it, &up, |nowhere| {
            !matches!(nowhere.needed, Needed::Prepare { .. }) && nowhere.silent.iter().eq([dead])
        });
        it.start(dead);
        it.answered();
        it.recovers();
    }
}

/// Two of four lack the same, and hear nothing for a while of the two that have it: they must not ask only each other from
/// then on, although each of them answers that it has not got it, and at once.
#[test]
fn two_that_lack_the_same_while_those_who_have_it_are_silent() {
    let mut it = serving(4);
    it.partition(&[&[0, 2], &[1], &[3]]);
    let head = it.head(1).max(it.head(3));
    while it.cluster.checker().head() < head + 3 * RING {
        it.writes(1);
    }
    it.hear_links();
    it.until("both fetch", |it| {
        [1, 3].iter().all(|&replica| {
            let progress = it.progress(replica);
            progress.pages_missing > 0 && progress.checkpoint_op > head
        })
    });
    for (from, to) in [(0, 1), (0, 3), (2, 1), (2, 3)] {
        it.lose(R(from), R(to), &[Command::Page]);
    }
    let questions =
        |it: &Script| it.cluster.network().statistics()[Command::RequestPages as usize].sent;
    let before = questions(&it);
    it.pass(3 * SECOND);
    let asked = questions(&it) - before;
    assert!(asked < 500, "{asked} questions in three seconds");
    it.lose_nothing();
    // Without a newer checkpoint that would let them begin anew.
    it.until("both are whole", |it| it.is_normal(1) && it.is_normal(3));
    it.recovers();
}

/// An update of the superblock takes more than half a second.
const SLOW: DiskSpeed = DiskSpeed {
    write_min_ns: 300 * MILLISECOND,
    ..DiskSpeed::FAST
};

/// A replica that has not heard of a view asks for a checkpoint, and is offered one that was made in it. While the superblock
/// names that, a start_view of the view comes, sent long before: its log ends below the checkpoint. (In a cluster of five the log
/// of a view that hardly began may even have another prepare there.) It goes to the view first, and syncs there if it must.
#[test]
fn a_checkpoint_of_a_view_that_is_not_known_yet() {
    let mut it = serving(3);
    it.lose(
        All,
        R(2),
        &[Command::Prepare, Command::Headers, Command::Page],
    );
    while it.progress(1).checkpoint_op == 0 || it.head(0) < 12 {
        it.writes(1);
    }
    it.pass(4 * SECOND);
    assert!(it.view(0) == 0 && it.commit(2) < 8 && it.progress(2).commit_max >= 12);
    let most = [
        Command::Ping,
        Command::Pong,
        Command::Commit,
        Command::StartViewChange,
        Command::DoViewChange,
        Command::PrepareOk,
        Command::CommitOk,
    ];
    it.lose(All, R(2), &most);
    let late = it.cluster.now_ns() + 3 * SECOND;
    it.delay(1, 2, late);
    it.kill(0);
    it.start(0);
    it.until("view 1 begins", |it| it.cluster.primary() == Some(1));
    assert!(it.head(1) <= RING);
    while it.progress(0).checkpoint_op < RING || it.head(0) < RING + 6 {
        it.writes(1);
    }
    let now = it.cluster.now_ns();
    it.pass(late - 200 * MILLISECOND - now);
    assert_eq!(it.view(2), 0, "it has heard of nothing");
    it.cluster.disk_mut(2).set_speed(SLOW);
    it.lose_nothing();
    it.lose(All, R(2), &[Command::Prepare, Command::Headers]);
    it.lose(All, R(2), &most);
    it.pass(2 * SECOND);
    it.cluster.disk_mut(2).set_speed(DiskSpeed::FAST);
    it.recovers();
}

/// Sectors of the grid that two replicas hold alike, and with something in them.
fn sectors_alike(it: &mut Script, one: u8, other: u8) -> Vec<u64> {
    let layout = *it.cluster.layout();
    let sectors = layout.grid_at / SECTOR_SIZE as u64..layout.size / SECTOR_SIZE as u64;
    let state = it.cluster.disk_mut(one).state().clone();
    let others = it.cluster.disk_mut(other).state();
    let alike = |sector: &u64| {
        let content = state.sector(*sector);
        content == others.sector(*sector) && content.iter().any(|&byte| byte != 0)
    };
    sectors.filter(alike).collect()
}

/// Two of three have lost the same page, and the third was not heard for a moment. The two go on asking each other; whoever was
/// silent must be asked again, also when nothing is written any more.
#[test]
fn a_page_that_only_a_replica_has_that_was_silent() {
    let mut missed = 0;
    for index in 0.. {
        let mut it = serving(3);
        it.writes(2 * RING);
        it.settle();
        it.until("all is written", |it| it.cluster.is_at_rest());
        it.kill(0);
        it.kill(2);
        let sectors = sectors_alike(&mut it, 0, 2);
        let Some(&sector) = sectors.get(index * 3) else {
            break;
        };
        for replica in [0, 2] {
            let disk = it.cluster.disk_mut(replica).state_mut();
            let mut bytes = disk.sector(sector).to_vec();
            bytes[17] ^= 4;
            disk.overwrite(sector * SECTOR_SIZE as u64, &bytes);
        }
        it.lose(R(1), All, &[Command::Page]);
        it.start(0);
        it.start(2);
        it.pass(2 * SECOND);
        let lacks = |replica: &u8| it.progress(*replica).pages_missing > 0;
        missed += u32::from([0, 2].iter().all(lacks));
        it.lose_nothing();
        it.until("both have it", |it| it.is_normal(0) && it.is_normal(2));
    }
    assert!(missed > 0, "no page was missing on both");
}

/// A log beyond the ring is parked until there is a checkpoint to begin it with. The replica's own checkpoint becomes durable,
/// and the log fits; it is begun, and while the superblock is being written the checkpoint comes that the parked copy waited
/// for. It would begin the view a second time, and forget what was acknowledged in between.
#[test]
fn a_parked_log_that_fits_after_all_is_begun_once() {
    let mut it = serving(3);
    let interval = GEOMETRY.checkpoint_interval();
    while it.commit(2) < interval {
        it.writes(1);
    }
    it.cluster.disk_mut(2).set_speed(SLOW);
    it.writes(2);
    assert_eq!(it.progress(2).checkpoint_op, 0, "it is being written");
    it.partition(&[&[0, 1], &[2]]);
    while it.head(0) < RING + 4 {
        it.writes(1);
    }
    it.kill(0);
    it.start(0);
    it.until("view 1 begins", |it| it.cluster.primary() == Some(1));
    it.lose(All, R(2), &[Command::Page]);
    it.hear_links();
    it.until("the log is parked", |it| {
        it.progress(2).status == ReplicaStatus::Syncing
    });
    assert_eq!(it.progress(2).checkpoint_op, 0);
    it.until("the checkpoint is there, and the log fits", |it| {
        it.progress(2).checkpoint_op == interval
    });
    let (head, checkpoint) = (it.head(1), it.progress(1).checkpoint_op);
    assert!(head <= interval + RING, "{head}");
    assert!(checkpoint > interval, "{checkpoint}");
    it.pass(100 * MILLISECOND); // a start_view is sent again more often than that
    assert_eq!(it.progress(2).log_view, 0, "it is being written");
    it.lose_nothing();
    it.until("view 1 begins here", |it| it.is_normal(2));
    it.writes(2);
    it.cluster.disk_mut(2).set_speed(DiskSpeed::FAST);
    it.recovers();
}
