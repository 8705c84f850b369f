//! Votes and the choice: `src/replica/vote.rs` in few words, and the real choice of a log.

use super::{Cluster, Log, REPLICAS, Replica, State, Violation, Vote, at, head_of, low_of};
use crate::journal::state;
use crate::prepares::{Id, NONE};
use storage::header::Prepare;
use storage::layout::REPLICAS_MAX;
use viewstone::log_choice;
use viewstone::rules::Rules;
use zerocopy::FromZeros;

impl<R: Rules> Cluster<R> {
    /// The headers of a log's end: those of the last pipeline and the op before, as far as they are known.
    pub(super) fn collect(&self, state: &State, replica: &Replica) -> Log {
        let mut list = Log::default();
        let lowest = replica.head.saturating_sub(self.bounds.pipeline);
        let mut wanted = self.known_header(state, replica, replica.head);
        assert!(wanted.is_some(), "the head's header is always known");
        for op in (lowest..=replica.head).rev() {
            let known = self.known_header(state, replica, op);
            let fits = known.filter(|&id| wanted.is_none_or(|wanted| wanted == id));
            wanted = fits.map(|id| self.prepares.made(id).parent);
            match fits {
                Some(id) => list[usize::from(op)] = id,
                None if op <= replica.commit => break,
                None => {}
            }
        }
        list
    }

    /// A replica's vote for its view.
    pub(super) fn vote_of(&self, state: &State, replica: usize) -> Vote {
        let it = &state.replicas[replica];
        let list = if R::VOTE_IS_FIXED {
            it.working.list
        } else {
            self.collect(state, it)
        };
        let (low, head) = (low_of(list), head_of(list));
        let op_max = head.max(it.head).max(it.uncertain);
        let mut vote = Vote {
            here: 1,
            log_view: it.working.log_view,
            list,
            low,
            op_max,
            commit: it.commit,
            ..Vote::default()
        };
        for op in low..=op_max {
            let (present, nack) = self.standing(it, op, at(list, op));
            vote.present |= u8::from(present) << op;
            vote.nack |= u8::from(nack) << op;
        }
        vote
    }

    fn standing(&self, replica: &Replica, op: u8, id: Id) -> (bool, bool) {
        if op <= replica.working.checkpoint {
            return (false, false);
        }
        let present = id != NONE && replica.journal.has(&self.bounds, op, id);
        let nack = match replica.journal.state(&self.bounds, op) {
            state::ABSENT => true,
            state::LOST | state::UNKNOWN => !R::NEVER_NACK_DECAY,
            _ => false,
        };
        (present, nack)
    }

    /// Sends a vote: it must say what it said before.
    pub(super) fn send_vote(&self, state: &mut State, replica: usize) -> Result<(), Violation> {
        let view = state.replicas[replica].working.view;
        let vote = self.vote_of(state, replica);
        let before = &mut state.votes[usize::from(view)][replica];
        let same =
            (before.log_view, before.list, before.low) == (vote.log_view, vote.list, vote.low);
        if before.here == 1 && !same {
            return Err(Violation::ChangedVote(view));
        }
        *before = vote;
        Ok(())
    }

    /// The log chosen from the votes for a view of the replicas in `voters`; with what is known to be committed.
    pub(super) fn choose(&mut self, votes: &[Vote; REPLICAS], voters: u8) -> Option<(Log, u8)> {
        let mut key = *votes;
        for (replica, vote) in key.iter_mut().enumerate() {
            if voters >> replica & 1 == 0 {
                *vote = Vote::default();
            }
        }
        if let Some(choice) = self.choices.get(&key) {
            return *choice;
        }
        let choice = self.choose_anew(&key);
        self.choices.insert(key, choice);
        choice
    }

    fn choose_anew(&self, votes: &[Vote; REPLICAS]) -> Option<(Log, u8)> {
        let headers = votes.each_ref().map(|vote| self.headers_of(vote));
        let mut all: log_choice::Votes<'_> = [None; REPLICAS_MAX];
        for (replica, vote) in votes.iter().enumerate() {
            let bits = |by_op: u8| {
                let ops = (vote.low..=vote.op_max).rev().enumerate();
                ops.fold(0, |bits, (index, op)| {
                    bits | u128::from(by_op >> op & 1) << index
                })
            };
            all[replica] = (vote.here == 1).then(|| log_choice::Vote {
                log_view: vote.log_view.into(),
                headers: &headers[replica],
                op: vote.op_max.into(),
                op_max: vote.op_max.into(),
                present: bits(vote.present),
                nack: bits(vote.nack),
                commit_max: vote.commit.into(),
                timestamp: 0,
            });
        }
        let (count, pipeline) = (REPLICAS as u8, self.bounds.pipeline.into());
        let log = match log_choice::choose::<R>(&all, count, pipeline, Vec::new()) {
            Ok(log) => log,
            Err((log_choice::Wait::Contradiction(found), _)) => panic!("{found}"),
            Err(_) => return None,
        };
        let mut list = Log::default();
        for header in &log.headers {
            list[header.op as usize] = self.prepares.of(header.frame.checksum);
        }
        assert_eq!(u64::from(head_of(list)), log.op);
        Some((list, log.commit_max as u8))
    }

    fn headers_of(&self, vote: &Vote) -> Vec<Prepare> {
        let header = |op: u8| match at(vote.list, op) {
            NONE => Prepare::new_zeroed(),
            id => *self.prepares.header(id),
        };
        (vote.low..=vote.op_max).rev().map(header).collect()
    }

    /// Whether two votes name two logs of one view: the choice would stop.
    pub(super) fn conflict(votes: &[Vote; REPLICAS], voters: u8) -> Option<u8> {
        for first in 0..REPLICAS {
            for second in 0..first {
                let (one, other) = (&votes[first], &votes[second]);
                let both = voters >> first & voters >> second & 1 == 1;
                if both && one.log_view == other.log_view {
                    let pairs = one.list.iter().zip(&other.list);
                    if pairs
                        .into_iter()
                        .any(|(&a, &b)| a != NONE && b != NONE && a != b)
                    {
                        return Some(one.log_view);
                    }
                }
            }
        }
        None
    }
}
