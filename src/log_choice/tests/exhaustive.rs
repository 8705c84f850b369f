//! Three replicas and a log of four ops, each copy good, missing or corrupt: every pattern.
//!
//! *Missing* was never acknowledged; *corrupt* may have been. So an op may have been committed if it and all before it are
//! missing on at most one replica; it can be had if one copy is good.

use super::*;

const OPS: usize = 4;
const OF_ONE: usize = 3usize.pow(OPS as u32);
const PATTERNS: usize = OF_ONE.pow(3);

/// How corrupt copies show in a vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Corruption {
    /// The header is known from the other ring.
    HeaderKnown,
    /// Nothing can be read. At the log's end they are not listed, but only bound it.
    Blank,
    /// The same, but all of them are listed.
    BlankHead,
}

/// What a pattern says of a replica's copy: 0 good, 1 missing, 2 corrupt.
fn digit(pattern: usize, op: usize) -> usize {
    pattern / 3usize.pow(op as u32) % 3
}

/// The vote of a replica with one of the 81 patterns.
fn vote_of(pattern: usize, log: &[Prepare], corruption: Corruption) -> Owned {
    let known = corruption == Corruption::HeaderKnown;
    let all: Vec<Held> = (0..OPS)
        .map(|op| [Good, Missing(false), Corrupt(known)][digit(pattern, op)])
        .collect();
    let last = |wanted: fn(&Held) -> bool| all.iter().rposition(wanted).map_or(0, |op| op + 1);
    let end = last(|held| !matches!(held, Missing(_)));
    let head = match corruption {
        Corruption::Blank => last(|held| !matches!(held, Corrupt(_))).min(end),
        _ => end,
    };
    Owned::new(0, &log[..=head], &all[..head]).uncertain((end - head) as u64)
}

/// Of the patterns of all three: the highest op that may have been committed, and whether each op has a good copy.
fn truth(patterns: [usize; 3]) -> (u64, bool) {
    let count = |op, wanted| {
        patterns
            .iter()
            .filter(|&&it| digit(it, op) == wanted)
            .count()
    };
    let committed = (0..OPS).take_while(|&op| count(op, 1) <= 1).count();
    (committed as u64, (0..OPS).all(|op| count(op, 0) > 0))
}

#[derive(Default, PartialEq, Eq, Debug)]
struct Counts {
    all: usize,
    /// Patterns with a good copy of each op.
    good: usize,
    /// Logs chosen, by their head.
    chosen: [usize; OPS + 1],
    /// Those where each op has a good copy.
    chosen_good: [usize; OPS + 1],
    lost: usize,
}

fn explore(corruption: Corruption) -> Counts {
    let log = log(&[0; OPS]);
    let owned: Vec<Owned> = (0..OF_ONE)
        .map(|pattern| vote_of(pattern, &log, corruption))
        .collect();
    let mut counts = Counts::default();
    let mut room = Vec::with_capacity(VIEW_HEADERS_MAX);
    for pattern in 0..PATTERNS {
        let each = [0, 1, 2].map(|replica| pattern / OF_ONE.pow(replica) % OF_ONE);
        let (committed, good) = truth(each);
        let mut votes: Votes<'_> = [None; REPLICAS_MAX];
        for replica in 0..3 {
            votes[replica] = Some(owned[each[replica]].vote());
        }
        counts.all += 1;
        counts.good += usize::from(good);
        room = match choose::<Strict>(&votes, 3, PIPELINE, room) {
            Ok(chosen) => {
                let op = chosen.op as usize;
                assert!(
                    chosen.op >= committed,
                    "{each:?}: what may be committed is cut"
                );
                assert_eq!(chosen.headers[0], log[op]);
                counts.chosen[op] += 1;
                counts.chosen_good[op] += usize::from(good);
                chosen.headers
            }
            Err((wait, room)) => {
                assert!(!good, "{each:?} has a good copy of each op");
                let Wait::Lost { op } = wait else {
                    panic!("all have voted: {wait:?}")
                };
                assert!(op <= committed, "{each:?}: op {op} was not committed");
                counts.lost += 1;
                room
            }
        };
    }
    counts
}

#[test]
fn every_pattern_of_three_replicas_and_four_ops_is_decided_or_lost() {
    // Of the 27 patterns of one op, 7 are missing on two replicas or three; 16 others have a good copy; 4 have none.
    // Of the 19 with a good copy, 3 are missing on the two others.
    let heads = |cut: usize, all: usize| {
        [0, 1, 2, 3, 4].map(|head: u32| {
            let cut_above = if head < 4 { cut * all.pow(3 - head) } else { 1 };
            16usize.pow(head) * cut_above
        })
    };
    let expected = Counts {
        all: 531_441,
        good: 130_321,
        chosen: heads(7, 27),
        chosen_good: heads(3, 19),
        lost: 169_420,
    };
    assert_eq!(expected.chosen_good.iter().sum::<usize>(), 130_321);
    assert_eq!(expected.chosen.iter().sum::<usize>(), 362_021);
    let all = [
        Corruption::HeaderKnown,
        Corruption::Blank,
        Corruption::BlankHead,
    ];
    for corruption in all {
        assert_eq!(explore(corruption), expected, "{corruption:?}");
    }
}

#[test]
fn two_votes_of_three_never_cut_what_the_third_may_complete() {
    let log = log(&[0; OPS]);
    let (mut cut, mut whole, mut undecided) = (0, 0, 0);
    for pattern in 0..OF_ONE * OF_ONE {
        let each = [pattern % OF_ONE, pattern / OF_ONE];
        let votes = each.map(|pattern| vote_of(pattern, &log, Corruption::HeaderKnown));
        // The third may have acknowledged everything.
        let committed = (0..OPS).take_while(|&op| each.iter().any(|&it| digit(it, op) != 1));
        let committed = committed.count() as u64;
        match chosen(&[Some(&votes[0]), None, Some(&votes[1])]) {
            Ok(op) => {
                assert!(op >= committed, "{each:?}");
                whole += usize::from(op == OPS as u64);
                cut += usize::from(op < OPS as u64);
            }
            Err(Wait::Undecided { op }) => {
                assert!(op <= committed, "{each:?}");
                undecided += 1;
            }
            Err(wait) => panic!("one has not voted: {wait:?}"),
        }
    }
    // Of the nine patterns of one op, one is a nack quorum, five have a good copy and three are undecided.
    let nacked: usize = (0..4)
        .map(|head| 5usize.pow(head) * 9usize.pow(3 - head))
        .sum();
    assert_eq!((cut, whole, undecided), (nacked, 625, 3 * nacked));
    assert_eq!(cut + whole + undecided, 6561);
}
