//! The rules of the choice one by one, and every pattern of good, missing and corrupt copies of a small log.

mod exhaustive;
mod history;

use super::*;
use crate::rules::Strict;
use storage::header::{HEADER_SIZE, PrepareKind, Typed};
use zerocopy::FromZeros;

const CLUSTER: u128 = 77;
const PIPELINE: u32 = 8;

/// A prepare of `op`, first prepared in `view`, after the one with the identity `parent`.
fn prepare(op: u64, view: u32, parent: u128) -> Prepare {
    let mut prepare = Prepare::new(CLUSTER, view, 0);
    prepare.frame.size = HEADER_SIZE as u32 + 48;
    prepare.op = op;
    prepare.parent = parent;
    prepare.requests = 1;
    prepare.kind = PrepareKind::Batch as u32;
    prepare.header_mut().seal(&[0; 48]);
    prepare
}

/// The root, and an op for each view given.
fn log(views: &[u32]) -> Vec<Prepare> {
    let mut log = vec![Prepare::root(CLUSTER)];
    for (below, &view) in views.iter().enumerate() {
        let parent = log[below].frame.checksum;
        log.push(prepare(below as u64 + 1, view, parent));
    }
    log
}

/// How a voter holds an op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Held {
    /// It is here.
    Good,
    /// Never acknowledged; whether the header is known.
    Missing(bool),
    /// Perhaps acknowledged, and cannot be read; whether the header is known.
    Corrupt(bool),
}

use Held::{Corrupt, Good, Missing};

/// A vote that owns its headers.
#[derive(Clone, Debug)]
struct Owned {
    log_view: u32,
    /// From op 0 up.
    log: Vec<Prepare>,
    held: Vec<Held>,
    /// More ops above that nothing is known of.
    uncertain: u64,
    commit_max: u64,
    timestamp: u64,
    /// Headers, highest op first.
    headers: Vec<Prepare>,
}

impl Owned {
    fn new(log_view: u32, log: &[Prepare], held: &[Held]) -> Self {
        assert_eq!(log.len(), held.len() + 1);
        let held: Vec<Held> = std::iter::once(Good).chain(held.iter().copied()).collect();
        let header = |(header, held): (&Prepare, &Held)| match held {
            Missing(false) | Corrupt(false) => Prepare::new_zeroed(),
            _ => *header,
        };
        let headers = log.iter().zip(&held).map(header).rev().collect();
        Self {
            log_view,
            log: log.to_vec(),
            held,
            uncertain: 0,
            commit_max: 0,
            timestamp: 0,
            headers,
        }
    }

    fn uncertain(self, uncertain: u64) -> Self {
        Self { uncertain, ..self }
    }

    fn commit_max(self, commit_max: u64) -> Self {
        Self { commit_max, ..self }
    }

    /// Leaves out the lowest `count` headers of the list.
    fn without_lowest(mut self, count: usize) -> Self {
        self.headers.truncate(self.headers.len() - count);
        self
    }

    fn vote(&self) -> Vote<'_> {
        let bits = |is: fn(&Held) -> bool| {
            let from_top = self.held.iter().rev().enumerate();
            from_top.fold(0, |bits, (index, held)| {
                bits | u128::from(is(held)) << index
            })
        };
        let listed = (1 << self.headers.len()) - 1;
        let op = self.log.len() as u64 - 1;
        Vote {
            log_view: self.log_view,
            headers: &self.headers,
            op,
            op_max: op + self.uncertain,
            present: bits(|held| *held == Good) & listed,
            nack: bits(|held| matches!(held, Missing(_))) & listed,
            commit_max: self.commit_max,
            timestamp: self.timestamp,
        }
    }
}

fn choose_among<R: Rules>(votes: &[Option<&Owned>]) -> Result<Log, Wait> {
    let mut all: Votes<'_> = [None; REPLICAS_MAX];
    for (place, vote) in all.iter_mut().zip(votes) {
        *place = vote.map(Owned::vote);
    }
    choose::<R>(&all, votes.len() as u8, PIPELINE, Vec::new()).map_err(|(wait, _)| wait)
}

/// The choice among these votes of a cluster of as many replicas.
fn chosen(votes: &[Option<&Owned>]) -> Result<u64, Wait> {
    let log = choose_among::<Strict>(votes)?;
    assert_eq!(log.headers[0].op, log.op);
    for pair in log.headers.windows(2) {
        assert_eq!(pair[0].parent, pair[1].frame.checksum, "the log is a chain");
    }
    let lowest = log.headers.last().expect("never empty").op;
    assert!(lowest <= log.commit_max + 1 && log.commit_max <= log.op);
    Ok(log.op)
}

#[test]
fn fewer_votes_than_a_view_change_quorum_choose_nothing() {
    for (replicas, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)] {
        let vote = Owned::new(0, &log(&[0]), &[Good]);
        for voters in 0..=replicas {
            let votes: Vec<_> = (0..replicas)
                .map(|replica| (replica < voters).then_some(&vote))
                .collect();
            let expected = if voters < quorum {
                Err(Wait::Quorum)
            } else {
                Ok(1)
            };
            assert_eq!(chosen(&votes), expected, "{voters} votes of {replicas}");
        }
    }
}

#[test]
fn a_fresh_cluster_begins_with_the_root() {
    let fresh = Owned::new(0, &log(&[]), &[]);
    assert_eq!(chosen(&[Some(&fresh), Some(&fresh), None]), Ok(0));
}

struct Longest;

impl Rules for Longest {
    type Journal = storage::journal::Strict;
    type Superblock = storage::superblock::Sound;
    type Checkpoint = storage::checkpoint::Strict;
    const LOG_VIEW_FIRST: bool = false;
}

#[test]
fn the_highest_log_view_wins_over_a_longer_log() {
    let long = Owned::new(0, &log(&[0, 0, 0]), &[Good, Good, Good]);
    let new = Owned::new(1, &log(&[0, 1]), &[Good, Good]);
    let votes = [Some(&long), Some(&new), None];
    let log = choose_among::<Strict>(&votes).expect("nothing is damaged");
    assert_eq!((log.op, log.headers[0].frame.view), (2, 1));
    let log = choose_among::<Longest>(&votes).expect("it does not know better");
    assert_eq!((log.op, log.headers[0].frame.view), (3, 0));
}

#[test]
fn what_one_replica_has_and_nobody_denies_is_kept() {
    let has = Owned::new(0, &log(&[0, 0]), &[Good, Good]);
    let lost = Owned::new(0, &log(&[0, 0]), &[Good, Corrupt(true)]);
    assert_eq!(chosen(&[Some(&has), Some(&lost), None]), Ok(2));
}

#[test]
fn a_nack_quorum_cuts_and_one_less_does_not() {
    let good = Owned::new(0, &log(&[0, 0]), &[Good, Good]);
    let short = Owned::new(0, &log(&[0]), &[Good]);
    assert_eq!(chosen(&[Some(&good), Some(&short), None]), Ok(2));
    assert_eq!(chosen(&[Some(&good), Some(&short), Some(&short)]), Ok(1));
    let all = [Some(&good), Some(&short), Some(&short), Some(&short)];
    assert_eq!(chosen(&all), Ok(1), "three of four");
    assert_eq!(
        chosen(&[Some(&good), Some(&good), Some(&short), Some(&short)]),
        Ok(2)
    );
    // With two replicas both must acknowledge, so that either may deny.
    assert_eq!(chosen(&[Some(&good), Some(&short)]), Ok(1));
}

#[test]
fn a_known_header_whose_prepare_was_never_here_is_a_nack() {
    let good = Owned::new(0, &log(&[0, 0]), &[Good, Good]);
    for header in [true, false] {
        let never = Owned::new(0, &log(&[0, 0]), &[Good, Missing(header)]);
        assert_eq!(chosen(&[Some(&good), Some(&never), Some(&never)]), Ok(1));
    }
}

#[test]
fn decay_is_never_a_nack() {
    let short = Owned::new(0, &log(&[0]), &[Good]);
    let good = Owned::new(0, &log(&[0, 0]), &[Good, Good]);
    for header in [true, false] {
        let lost = Owned::new(0, &log(&[0, 0]), &[Good, Corrupt(header)]);
        let undecided = Err(Wait::Undecided { op: 2 });
        assert_eq!(chosen(&[Some(&lost), Some(&short), None]), undecided);
        assert_eq!(chosen(&[Some(&lost), Some(&short), Some(&short)]), Ok(1));
        assert_eq!(chosen(&[Some(&lost), Some(&short), Some(&good)]), Ok(2));
        let gone = Err(Wait::Lost { op: 2 });
        assert_eq!(chosen(&[Some(&lost), Some(&short), Some(&lost)]), gone);
    }
}

#[test]
fn an_uncertain_head_waits_for_whoever_can_decide() {
    let uncertain = Owned::new(0, &log(&[0]), &[Good]).uncertain(2);
    let short = Owned::new(0, &log(&[0]), &[Good]);
    let good = Owned::new(0, &log(&[0, 0]), &[Good, Good]);
    let undecided = Err(Wait::Undecided { op: 2 });
    assert_eq!(chosen(&[Some(&uncertain), Some(&short), None]), undecided);
    assert_eq!(
        chosen(&[Some(&uncertain), Some(&short), Some(&short)]),
        Ok(1)
    );
    // Op 2 is here; op 3, of which nobody else has heard, is denied by two.
    assert_eq!(
        chosen(&[Some(&uncertain), Some(&good), Some(&short)]),
        Ok(2)
    );
    // Two that cannot tell, and one that denies: op 3 may have been committed by the two.
    let both = [Some(&uncertain), Some(&uncertain), Some(&good)];
    assert_eq!(chosen(&both), Err(Wait::Lost { op: 3 }));
}

#[test]
fn an_uncertain_head_of_an_older_view_cannot_hold_up_the_latest() {
    let uncertain = Owned::new(0, &log(&[0]), &[Good]).uncertain(5);
    let latest = Owned::new(1, &log(&[0, 1]), &[Good, Good]);
    assert_eq!(chosen(&[Some(&uncertain), Some(&latest), None]), Ok(2));
}

#[test]
fn whoever_was_not_in_the_prepares_view_never_acknowledged_it() {
    // Only one replica ever had op 2 of view 1, and lost it; the others lost what they had at op 2 in view 0.
    let lost = Owned::new(1, &log(&[0, 1]), &[Good, Corrupt(true)]);
    let blank = Owned::new(0, &log(&[0, 0]), &[Good, Corrupt(false)]);
    let uncertain = Owned::new(0, &log(&[0]), &[Good]).uncertain(1);
    assert_eq!(
        chosen(&[Some(&lost), Some(&blank), Some(&uncertain)]),
        Ok(1)
    );
    // If it was first prepared in their view, they may have.
    let lost = Owned::new(1, &log(&[0, 0]), &[Good, Corrupt(true)]);
    let gone = Err(Wait::Lost { op: 2 });
    assert_eq!(chosen(&[Some(&lost), Some(&blank), Some(&uncertain)]), gone);
}

#[test]
fn another_prepare_at_the_op_is_a_nack() {
    let latest = Owned::new(1, &log(&[0, 1]), &[Good, Corrupt(true)]);
    let older = Owned::new(0, &log(&[0, 0]), &[Good, Good]);
    assert_eq!(
        chosen(&[Some(&latest), Some(&older), None]),
        Err(Wait::Undecided { op: 2 })
    );
    assert_eq!(chosen(&[Some(&latest), Some(&older), Some(&older)]), Ok(1));
}

#[test]
fn what_only_older_views_name_was_cut_off() {
    let latest = Owned::new(1, &log(&[0]), &[Good]);
    let older = Owned::new(0, &log(&[0, 0]), &[Good, Good]);
    assert_eq!(chosen(&[Some(&latest), Some(&older), Some(&older)]), Ok(1));
    // The latest cannot read what it has at op 2, which therefore may be its own view's.
    let blank = Owned::new(1, &log(&[0, 1]), &[Good, Corrupt(false)]);
    assert_eq!(
        chosen(&[Some(&blank), Some(&older), None]),
        Err(Wait::Undecided { op: 2 })
    );
    assert_eq!(chosen(&[Some(&blank), Some(&older), Some(&older)]), Ok(1));
}

#[test]
fn an_older_replica_supplies_what_the_latest_lost() {
    let latest = Owned::new(1, &log(&[0, 0]), &[Good, Corrupt(true)]);
    let older = Owned::new(0, &log(&[0, 0]), &[Good, Good]);
    assert_eq!(chosen(&[Some(&latest), Some(&older), None]), Ok(2));
}

#[test]
fn a_committed_op_is_never_cut() {
    let good = Owned::new(0, &log(&[0, 0]), &[Good, Good]).commit_max(2);
    let short = Owned::new(0, &log(&[0]), &[Good]);
    assert_eq!(chosen(&[Some(&good), Some(&short), Some(&short)]), Ok(2));
    // Somebody knows that op 2 is committed, and nobody who has voted can name it.
    let knows = Owned::new(0, &log(&[0]), &[Good]).commit_max(2);
    assert_eq!(
        chosen(&[Some(&knows), Some(&short), None]),
        Err(Wait::Undecided { op: 2 })
    );
    assert_eq!(chosen(&[Some(&knows), Some(&short), Some(&good)]), Ok(2));
    assert_eq!(
        chosen(&[Some(&knows), Some(&short), Some(&short)]),
        Err(Wait::Lost { op: 2 })
    );
}

#[test]
fn an_op_proves_that_the_one_a_pipeline_before_is_committed() {
    let long = log(&[0; PIPELINE as usize + 1]);
    let leads = Owned::new(0, &long, &[Good; PIPELINE as usize + 1]);
    let short = Owned::new(0, &log(&[]), &[]);
    assert_eq!(chosen(&[Some(&leads), Some(&short), Some(&short)]), Ok(1));
    // A blank where nothing can be read proves nothing: op 9 may never have been.
    let mut held = [Missing(false); PIPELINE as usize + 1];
    held[PIPELINE as usize] = Corrupt(false);
    let blank = Owned::new(0, &long, &held);
    assert_eq!(chosen(&[Some(&blank), Some(&short), Some(&short)]), Ok(0));
}

#[test]
fn a_header_proves_what_its_primary_knew_to_be_committed() {
    let mut two = log(&[0, 0]);
    two[2].commit = 1;
    two[2].header_mut().seal(&[0; 48]);
    let good = Owned::new(0, &two, &[Good, Good]);
    let short = Owned::new(0, &log(&[]), &[]);
    assert_eq!(chosen(&[Some(&good), Some(&short), Some(&short)]), Ok(1));
}

#[test]
fn all_below_a_list_is_committed() {
    let long = log(&[0, 0, 0, 0]);
    let leads = Owned::new(0, &long, &[Good; 4]).without_lowest(3);
    let short = Owned::new(0, &log(&[]), &[]);
    assert_eq!(chosen(&[Some(&leads), Some(&leads), None]), Ok(4));
    assert_eq!(
        chosen(&[Some(&leads), Some(&short), Some(&short)]),
        Err(Wait::Lost { op: 2 })
    );
}

#[test]
fn a_committed_header_is_taken_from_any_voter_by_its_identity() {
    let three = log(&[0, 0, 0]);
    let latest = Owned::new(1, &three, &[Good, Good, Good]).without_lowest(3);
    let older = Owned::new(0, &log(&[0, 0]), &[Good, Good]);
    let chosen =
        choose_among::<Strict>(&[Some(&latest), Some(&older), None]).expect("nothing lost");
    let ops: Vec<u64> = chosen.headers.iter().map(|header| header.op).collect();
    assert_eq!(ops, [3, 2, 1, 0]);
    assert_eq!(chosen.commit_max, 2);
}

#[test]
fn the_head_is_named_by_what_followed_it() {
    // Both lost the header of op 1, which is committed, and nobody acknowledged op 2, which names it.
    let two = log(&[0, 0]);
    let blank = Owned::new(0, &two, &[Corrupt(false), Missing(true)]).commit_max(1);
    let older = Owned::new(0, &log(&[0]), &[Good]);
    let mut older = older;
    older.log_view = 0;
    let log = choose_among::<Strict>(&[Some(&blank), Some(&blank), Some(&older)]);
    assert_eq!(log.expect("op 1 is known").headers[0], two[1]);
    let lost = choose_among::<Strict>(&[Some(&blank), Some(&blank), None]);
    assert_eq!(lost.err(), Some(Wait::Undecided { op: 1 }));
}

#[test]
fn time_goes_on_from_the_latest_voter_whatever_is_cut() {
    let mut ahead = Owned::new(0, &log(&[0]), &[Missing(true)]);
    ahead.timestamp = 900;
    let mut short = Owned::new(0, &log(&[]), &[]);
    short.timestamp = 100;
    let log = choose_among::<Strict>(&[Some(&ahead), Some(&short), Some(&short)]);
    let log = log.expect("nothing is damaged");
    assert_eq!((log.op, log.timestamp), (0, 900));
}

/// Where two canonical voters name two prepares of one op, whatever else is said, nothing is chosen, and they are named.
#[test]
fn two_logs_of_one_view_are_refused() {
    let (left, right) = (log(&[0, 1]), log(&[0, 0]));
    let one = Owned::new(1, &left, &[Good, Good]);
    let other = Owned::new(1, &right, &[Good, Good]);
    let older = Owned::new(0, &log(&[0, 0]), &[Good, Good]);
    let between = |voter, other| {
        Err(Wait::Contradiction(Contradiction {
            log_view: 1,
            op: 2,
            voter,
            checksum: left[2].frame.checksum,
            other: Some(other),
            other_checksum: right[2].frame.checksum,
        }))
    };
    assert_eq!(chosen(&[Some(&one), Some(&other), None]), between(0, 1));
    assert_eq!(
        chosen(&[Some(&one), Some(&older), Some(&other)]),
        between(0, 2)
    );
    // Nor when the op is said to be committed, and only the headers are gathered.
    let sure = one.clone().commit_max(2);
    assert_eq!(chosen(&[None, Some(&sure), Some(&other)]), between(1, 2));
    // An older log may differ.
    assert_eq!(chosen(&[Some(&one), Some(&older), None]), Ok(2));
}

#[test]
fn the_memory_that_is_lent_comes_back() {
    let mut votes: Votes<'_> = [None; REPLICAS_MAX];
    let room = Vec::with_capacity(VIEW_HEADERS_MAX);
    let (wait, room) = choose::<Strict>(&votes, 3, PIPELINE, room).expect_err("no votes");
    assert_eq!(wait, Wait::Quorum);
    let owned = Owned::new(0, &log(&[0]), &[Good]);
    votes[0] = Some(owned.vote());
    votes[2] = Some(owned.vote());
    let log = choose::<Strict>(&votes, 3, PIPELINE, room).expect("two of three");
    assert_eq!(log.headers.capacity(), VIEW_HEADERS_MAX);
}
