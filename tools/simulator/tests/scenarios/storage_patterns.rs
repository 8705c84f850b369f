//! Three replicas and a log of four entries, each copy good or corrupt in every pattern, through the real replica: 4,096
//! clusters whose disks are damaged while all are down.
//!
//! Where every entry has a good copy, the cluster repairs all of them and serves (2,401). Elsewhere (1,695) it stays safe: all
//! four were committed, so nobody may go on without the one that is lost, and the checkers see to the rest.

use super::script::{GEOMETRY, MILLISECOND, Part, SECOND, Script, serving};
use storage::SECTOR_SIZE;

const OPS: u64 = 4;
const PATTERNS: u32 = 1 << 12;

fn is_corrupt(pattern: u32, replica: u8, op: u64) -> bool {
    pattern >> (4 * u32::from(replica) + op as u32 - 1) & 1 == 1
}

/// How a copy is corrupt: of the three copies of an op each in another way.
fn part(replica: u8, op: u64) -> Part {
    [Part::Prepare, Part::Body, Part::Both][(u64::from(replica) + op) as usize % 3]
}

/// The lowest op without a good copy.
fn lost(pattern: u32) -> Option<u64> {
    (1..=OPS).find(|&op| (0..3).all(|replica| is_corrupt(pattern, replica, op)))
}

/// A cluster of which all are down, with four entries in its log and none in a checkpoint.
fn four_entries() -> Script {
    let mut it = serving(3);
    while it.head(0) < OPS {
        it.writes(1);
    }
    it.settle();
    it.until("all is written", |it| it.cluster.is_at_rest());
    it.pass(200 * MILLISECOND); // the redundant headers
    for replica in 0..3 {
        assert_eq!(
            (it.head(replica), it.progress(replica).checkpoint_op),
            (OPS, 0)
        );
    }
    it
}

/// The sectors of a replica's journal that the four entries are in.
fn sectors(it: &Script) -> Vec<u64> {
    let layout = it.cluster.layout();
    let headers = (0..u64::from(GEOMETRY.slots)).map(|op| layout.header_sector_at(layout.slot(op)));
    let prepares = (1..=OPS).map(|op| layout.prepare_at(layout.slot(op)));
    headers.chain(prepares).collect()
}

fn copies(it: &mut Script, replica: u8) -> Vec<(u64, Vec<u8>)> {
    let sectors = sectors(it);
    let disk = it.cluster.disk_mut(replica).state();
    let read = |at| {
        let mut sector = vec![0; SECTOR_SIZE];
        disk.read(at, &mut sector);
        (at, sector)
    };
    sectors.into_iter().map(read).collect()
}

/// Runs every fourth pattern from this one on, all on one cluster, whose disks are made good in between; how many were
/// repaired, and how many were lost.
fn run(first: u32) -> (u32, u32) {
    let mut it = four_entries();
    let good: Vec<_> = (0..3).map(|replica| copies(&mut it, replica)).collect();
    let (mut repaired, mut unrepaired) = (0, 0);
    for pattern in (first..PATTERNS).step_by(4) {
        for replica in 0..3 {
            it.kill(replica);
            for (at, sector) in &good[replica as usize] {
                it.cluster
                    .disk_mut(replica)
                    .state_mut()
                    .overwrite(*at, sector);
            }
            for op in (1..=OPS).filter(|&op| is_corrupt(pattern, replica, op)) {
                it.damage(replica, op, part(replica, op));
            }
        }
        it.start_all();
        if let Some(op) = lost(pattern) {
            it.pass(SECOND);
            for replica in 0..3 {
                assert!(
                    it.commit(replica) < op,
                    "pattern {pattern:012b}: op {op} is lost"
                );
            }
            unrepaired += 1;
        } else {
            it.settle();
            assert!(it.cluster.primary().is_some(), "and serves");
            it.until("what is repaired is written", |it| it.cluster.is_at_rest());
            assert_eq!(it.cluster.checker().head(), OPS);
            let now = (0..3).map(|replica| copies(&mut it, replica));
            for (replica, (now, good)) in now.zip(&good).enumerate() {
                let same = now
                    .iter()
                    .zip(good)
                    .rev()
                    .take(OPS as usize)
                    .all(|(a, b)| a == b);
                assert!(
                    same,
                    "pattern {pattern:012b}: replica {replica} is not repaired"
                );
            }
            repaired += 1;
        }
    }
    // And at last it goes on.
    for replica in 0..3 {
        it.kill(replica);
        for (at, sector) in &good[replica as usize] {
            it.cluster
                .disk_mut(replica)
                .state_mut()
                .overwrite(*at, sector);
        }
    }
    it.recovers();
    (repaired, unrepaired)
}

/// Of the patterns of the first op's first replica and so on, one quarter: which bits are fixed decides how many are lost.
fn expected(first: u32) -> (u32, u32) {
    let all = (first..PATTERNS).step_by(4);
    let unrepaired = all.filter(|&pattern| lost(pattern).is_some()).count() as u32;
    (PATTERNS / 4 - unrepaired, unrepaired)
}

#[test]
fn the_counts_are_those_of_all_patterns() {
    let each = [0, 1, 2, 3].map(expected);
    let sum = each
        .iter()
        .fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    assert_eq!(sum, (2401, 1695), "seven to the fourth, and the rest");
}

#[test]
fn patterns_with_the_first_two_ops_good_at_the_first_replica() {
    assert_eq!(run(0), expected(0));
}

#[test]
fn patterns_with_the_first_op_corrupt_at_the_first_replica() {
    assert_eq!(run(1), expected(1));
}

#[test]
fn patterns_with_the_second_op_corrupt_at_the_first_replica() {
    assert_eq!(run(2), expected(2));
}

#[test]
fn patterns_with_the_first_two_ops_corrupt_at_the_first_replica() {
    assert_eq!(run(3), expected(3));
}
