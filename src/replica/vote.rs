//! Votes for a view: how a replica makes its own, and keeps the others'.
//!
//! A vote says what its author's log may hold: the headers of its end, which of the prepares it can supply (present), and
//! which it has never acknowledged (nack). Invariants:
//! * A vote's headers are those that became durable when its view did, so they are the same each time it is sent, also
//!   after a restart. Only what the author can supply may change.
//! * All below a vote's list is committed: what is not, and has lost its header, is in the list as unknown.
//! * A nack is a fact: the slot of the op was never written with an acknowledged prepare of that identity. What decayed is
//!   neither present nor nacked.

use super::{Replica, new_log};
use crate::constants::VOTE_HEADERS_MAX;
use crate::log_choice::{Vote, Votes};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::buffer::SharedMessage;
use storage::header::{Command, DoViewChange, HEADER_SIZE, Prepare};
use storage::layout::{Geometry, REPLICAS_MAX};
use storage::recovery::State;
use zerocopy::{FromZeros, IntoBytes};

/// Headers that fit into a message.
pub(super) fn headers_max(geometry: &Geometry) -> usize {
    VOTE_HEADERS_MAX.min(geometry.message_size_max as usize / HEADER_SIZE - 1)
}

/// A vote, as it came.
#[derive(Debug)]
struct Kept {
    vote: DoViewChange,
    headers: Box<[Prepare]>,
    count: usize,
    here: bool,
}

/// The votes for one view, by replica.
#[derive(Debug)]
pub(super) struct KeptVotes {
    kept: [Kept; REPLICAS_MAX],
}

impl KeptVotes {
    pub(super) fn new() -> Self {
        Self {
            kept: std::array::from_fn(|_| Kept {
                vote: DoViewChange::new_zeroed(),
                headers: vec![Prepare::new_zeroed(); VOTE_HEADERS_MAX].into_boxed_slice(),
                count: 0,
                here: false,
            }),
        }
    }

    pub(super) fn clear(&mut self) {
        self.kept.iter_mut().for_each(|kept| kept.here = false);
    }

    /// Keeps a vote; a later one of the same replica replaces it: it may be able to supply more.
    pub(super) fn keep(&mut self, replica: u8, vote: &DoViewChange, body: &[u8]) {
        let kept = &mut self.kept[replica as usize];
        kept.vote = *vote;
        kept.count = body.len() / HEADER_SIZE;
        kept.headers[..kept.count]
            .as_mut_bytes()
            .copy_from_slice(body);
        kept.here = true;
    }

    /// Counts a replica's vote no longer. Another may come.
    pub(super) fn refuse(&mut self, replica: u8) {
        self.kept[replica as usize].here = false;
    }

    /// The other replica that votes for a log with this prepare.
    pub(super) fn who_names(&self, prepare: &Prepare, but: u8) -> Option<u8> {
        let names = |replica: &u8| {
            let kept = &self.kept[*replica as usize];
            kept.here && kept.headers[..kept.count].contains(prepare)
        };
        (0..REPLICAS_MAX as u8)
            .filter(|&replica| replica != but)
            .find(names)
    }

    pub(super) fn of(&self, replica: u8) -> Option<&DoViewChange> {
        let kept = &self.kept[replica as usize];
        kept.here.then_some(&kept.vote)
    }

    /// Identity of an op's prepare, as the vote of the latest log that names it says; zero if none does.
    pub(super) fn name_of(&self, op: u64) -> u128 {
        let name = |kept: &Kept| {
            let index = kept.vote.op.checked_sub(op)? as usize;
            let header = kept.headers[..kept.count].get(index)?;
            let checksum = header.frame.checksum;
            (kept.here && checksum > 0).then_some((kept.vote.log_view, checksum))
        };
        let latest = self.kept.iter().filter_map(name).max();
        latest.map_or(0, |(_, checksum)| checksum)
    }

    /// The votes, for the choice.
    pub(super) fn votes(&self) -> Votes<'_> {
        self.kept.each_ref().map(|kept| {
            kept.here.then(|| Vote {
                log_view: kept.vote.log_view,
                headers: &kept.headers[..kept.count],
                op: kept.vote.op,
                op_max: kept.vote.op_max,
                present: kept.vote.present,
                nack: kept.vote.nack,
                commit_max: kept.vote.commit_max,
                timestamp: kept.vote.timestamp,
            })
        })
    }
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Puts the headers of this log's end into `log_end`: those that are known of the last pipeline and the op before. All
    /// that is not committed is among them, if its header is known.
    pub(super) fn collect_log_end(&mut self) {
        let lowest = self
            .head
            .op
            .saturating_sub(self.layout.geometry.pipeline_max.into());
        self.log_end.clear();
        let mut wanted = Some(self.head.checksum);
        for op in (lowest..=self.head.op).rev() {
            let header = self.known_header(op);
            let fits =
                header.filter(|header| wanted.is_none_or(|wanted| header.frame.checksum == wanted));
            wanted = fits.map(|header| header.parent);
            match fits {
                Some(header) => self.log_end.push(header),
                None if op <= self.commit_max => break, // what is below is known to be committed
                None => {}
            }
        }
        assert_eq!(
            self.log_end[0].frame.checksum, self.head.checksum,
            "the head's header is always known"
        );
    }

    /// The header of an op of the log: from the journal, or the durable checkpoint's.
    pub(super) fn known_header(&self, op: u64) -> Option<Prepare> {
        let checkpoint = &self.superblock.working().checkpoint.prepare;
        if op == checkpoint.op {
            return Some(*checkpoint);
        }
        self.journal.header(op).copied()
    }

    /// Makes this replica's vote for its durable view.
    pub(super) fn make_vote(&mut self) -> Option<SharedMessage> {
        if !R::VOTE_IS_FIXED {
            self.collect_log_end();
        }
        let durable = self.superblock.durable_view();
        let list = if R::VOTE_IS_FIXED {
            self.superblock.view_headers()
        } else {
            &self.log_end
        };
        let head = list.iter().map(|header| header.op).max().unwrap_or(0);
        let low = list.iter().map(|header| header.op).min().unwrap_or(0);
        // All below the list counts as committed: what is not, and has lost its header, stands in it as unknown.
        let committed = self
            .commit_max
            .max(head.saturating_sub(self.layout.geometry.pipeline_max.into()));
        let low = low.min(committed + 1);
        // Above the list may be what could not be read when the vote was made, and can be now: it was unknown in the vote,
        // and stays so.
        let journaled = self.head.op.max(self.uncertain.unwrap_or(0));
        let op_max = head.max(journaled);
        let room = headers_max(&self.layout.geometry) as u64;
        let top = op_max.min(low + room - 1);
        assert!(top >= head, "a message holds a log's end");
        let count = (top - low + 1) as usize;
        let mut message = self.buffer_for(HEADER_SIZE * (1 + count))?;
        let mut vote: DoViewChange = self.header();
        vote.frame.size = (HEADER_SIZE * (1 + count)) as u32;
        for index in 0..count {
            let op = top - index as u64;
            let header = list.iter().find(|header| header.op == op);
            let (present, nack) = self.standing_of(op, header);
            vote.present |= u128::from(present) << index;
            vote.nack |= u128::from(nack) << index;
            let header = header.copied().unwrap_or_else(Prepare::new_zeroed);
            message.buffer_mut()[HEADER_SIZE * (1 + index)..][..HEADER_SIZE]
                .copy_from_slice(header.as_bytes());
        }
        vote.life = self.life();
        vote.superblock_sequence = self.superblock.working().sequence;
        vote.op = top;
        vote.op_max = op_max;
        vote.commit_min = self.commit_min;
        vote.commit_max = self.commit_max;
        vote.checkpoint_op = self.checkpoint_op;
        vote.timestamp = self.head.timestamp_next;
        vote.log_view = durable.log_view();
        vote.eligible = u8::from(self.may_lead());
        vote.lost_op = self.election.lost_op.unwrap_or(0);
        message.set_header(&vote);
        Some(message.seal())
    }

    /// Whether the prepare of `op` can be supplied, and whether it was never acknowledged here.
    fn standing_of(&self, op: u64, header: Option<&Prepare>) -> (bool, bool) {
        if op <= self.checkpoint_op {
            return (false, false); // committed: nobody asks
        }
        let checksum = header.map_or(0, |header| header.frame.checksum);
        let cached = self
            .prepares
            .get(op)
            .is_some_and(|entry| entry.prepare().frame.checksum == checksum);
        let present = header.is_some() && (cached || self.journal.has(op, checksum));
        let nack = match self.journal.state(op) {
            State::Absent | State::Torn => true,
            State::Lost | State::Unknown => !R::NEVER_NACK_DECAY,
            State::Present => false,
        };
        (present, nack)
    }

    /// Whether the body of a vote or a start_view is headers of this cluster's log, chained, highest op first, and of no
    /// view above the log's; but for what its author has in a checkpoint, which may be of any view: a replica that was made
    /// anew has a checkpoint, and no log of any view.
    pub(super) fn are_headers_sound(
        &self,
        body: &[u8],
        op: u64,
        log_view: u32,
        checkpoint_op: u64,
        gaps: bool,
    ) -> bool {
        let headers = new_log::headers_of(body);
        let size_max = self.layout.geometry.message_size_max as usize;
        headers.iter().enumerate().all(|(index, header)| {
            if header.frame.checksum == 0 {
                return gaps && header == &Prepare::new_zeroed();
            }
            let known = header.header().check(self.options.cluster, size_max);
            let below = headers.get(index + 1);
            let chained = below.is_none_or(|below| {
                below.frame.checksum == 0 || below.frame.checksum == header.parent
            });
            known == Ok(Command::Prepare)
                && !header.is_reserved()
                && (header.frame.view <= log_view || header.op <= checkpoint_op)
                && header.op + index as u64 == op
                && chained
        })
    }
}
