//! What replicas say to each other, held against what they said before: votes, acknowledgements, logs of views.
//!
//! * **A vote never changes**: all do_view_changes of one replica for one view name the same log end, over resends and
//!   restarts.
//! * **Nothing acknowledged is nacked**: not the exact prepare, in any life; nor, by a vote that ends before an op or
//!   knows nothing of it, what was acknowledged in the view that the vote's log is of.
//! * **What a vote does not list is committed**: all below its list.
//! * **Who votes for a view acknowledges nothing in earlier ones**, neither a prepare nor a round of reads.
//! * **A view has one log**, from its primary alone: all start_views and all prepares of a view agree on each op.
//! * **Only in a view whose log it has does a replica acknowledge**: its acknowledgements name prepares of that log.
//! * **A commit is a quorum's acknowledgements of one view**, and never those of several put together.
//!
//! Of a replica whose disk was lost nothing that it promised before is held against it.

use std::collections::BTreeMap;
use storage::checksum;
use storage::header::{CommitOk, DoViewChange, HEADER_SIZE, Header, Prepare, PrepareOk, StartView};
use storage::layout::REPLICAS_MAX;
use viewstone::quorums::{Quorums, ReplicaSet};
use zerocopy::FromBytes;

/// What is remembered of a vote: all that must not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Vote {
    /// Identity of the headers that are known, with their places.
    headers: u128,
    log_view: u32,
}

/// What a replica acknowledged at an op: which prepare, and the latest view in which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Acknowledged {
    checksum: u128,
    view: u32,
}

/// Who acknowledged a prepare in a view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Acks {
    checksum: u128,
    view: u32,
    by: ReplicaSet,
}

#[derive(Debug, Default)]
struct Spoken {
    votes: BTreeMap<u32, Vote>,
    view_voted: u32,
    acknowledged: BTreeMap<u64, Vec<Acknowledged>>,
}

/// Counts of what was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spoke {
    /// Different votes.
    pub votes: u64,
    /// Votes in which a replica could not say what it held.
    pub votes_uncertain: u64,
    /// Votes of a candidate that lacked prepares of its own log.
    pub votes_dirty: u64,
    /// Views that began.
    pub views: u64,
    /// Views that began with a log that ends below what somebody held.
    pub truncations: u64,
    /// Acknowledgements.
    pub acknowledgements: u64,
}

/// See the module's description.
#[derive(Debug)]
pub struct Promises {
    replica_count: u32,
    spoken: [Spoken; REPLICAS_MAX],
    /// By op.
    acks: BTreeMap<u64, Vec<Acks>>,
    /// By view, what its log has at each op.
    logs: BTreeMap<u32, BTreeMap<u64, u128>>,
    /// The highest op that a vote named since the last view began.
    op_named: u64,
    /// Everything up to here is executed, and its acknowledgements are forgotten.
    settled_op: u64,
    spoke: Spoke,
}

/// Views of which the log is remembered.
const VIEWS_KEPT: usize = 64;

fn headers_of(body: &[u8]) -> impl Iterator<Item = Prepare> {
    let header = |bytes| Prepare::read_from_bytes(bytes).expect("a header's size");
    body.chunks_exact(HEADER_SIZE).map(header)
}

impl Promises {
    /// Nobody has said anything.
    pub fn new(replica_count: u8) -> Self {
        Self {
            replica_count: replica_count.into(),
            spoken: Default::default(),
            acks: BTreeMap::new(),
            logs: BTreeMap::new(),
            op_named: 0,
            settled_op: 0,
            spoke: Spoke::default(),
        }
    }

    /// Counts of what was checked.
    pub fn spoke(&self) -> Spoke {
        self.spoke
    }

    /// A replica's disk is lost: it may have forgotten everything.
    pub fn on_lost(&mut self, replica: u8) {
        self.spoken[replica as usize] = Spoken::default();
    }

    /// Whether this prepare was committed in some view: acknowledged there by a quorum, in which its primary counts if it
    /// `holds` it.
    pub fn is_committed(
        &self,
        op: u64,
        checksum: u128,
        quorum: u8,
        mut holds: impl FnMut(u8) -> bool,
    ) -> bool {
        let acks = self.acks.get(&op).map_or(&[][..], |acks| acks);
        let of_prepare = acks.iter().filter(|acks| acks.checksum == checksum);
        of_prepare.into_iter().any(|acks| {
            let primary = (acks.view % self.replica_count) as u8;
            acks.by.count() + u8::from(holds(primary)) >= quorum
        })
    }

    /// Ops up to here are settled: nobody asks any more who acknowledged them.
    pub fn settled(&mut self, op: u64) {
        self.settled_op = op;
        while let Some(first) = self.acks.first_entry() {
            if *first.key() > op {
                break;
            }
            first.remove();
        }
        for spoken in &mut self.spoken {
            while let Some(first) = spoken.acknowledged.first_entry() {
                if *first.key() > op {
                    break;
                }
                first.remove();
            }
        }
    }

    /// A replica sends a message to another.
    pub fn on_send(&mut self, replica: u8, header: &Header, body: &[u8]) {
        if let Some(ok) = header.try_typed::<PrepareOk>() {
            self.on_prepare_ok(replica, ok);
        } else if let Some(ok) = header.try_typed::<CommitOk>() {
            self.check_not_voted(replica, ok.frame.view, "confirms a round");
        } else if let Some(vote) = header.try_typed::<DoViewChange>() {
            self.on_vote(replica, vote, body);
        } else if let Some(start) = header.try_typed::<StartView>() {
            self.on_start_view(replica, start, body);
        } else {
            return;
        }
        assert_eq!(
            header.frame.replica, replica,
            "replica {replica} speaks for another"
        );
    }

    fn check_not_voted(&self, replica: u8, view: u32, what: &str) {
        let voted = self.spoken[replica as usize].view_voted;
        assert!(
            view >= voted,
            "replica {replica} {what} in view {view}, and has voted for view {voted}"
        );
    }

    fn on_prepare_ok(&mut self, replica: u8, ok: &PrepareOk) {
        let view = ok.frame.view;
        self.check_not_voted(replica, view, "acknowledges a prepare");
        self.spoke.acknowledgements += 1;
        self.check_log(view, ok.op, ok.prepare);
        let acks = self.acks.entry(ok.op).or_default();
        let same = |acks: &&mut Acks| (acks.checksum, acks.view) == (ok.prepare, view);
        if let Some(acks) = acks.iter_mut().find(same) {
            acks.by.insert(replica);
        } else {
            let mut by = ReplicaSet::default();
            by.insert(replica);
            acks.push(Acks {
                checksum: ok.prepare,
                view,
                by,
            });
        }
        let at = self.spoken[replica as usize]
            .acknowledged
            .entry(ok.op)
            .or_default();
        match at.iter_mut().find(|known| known.checksum == ok.prepare) {
            Some(known) => known.view = known.view.max(view),
            None => at.push(Acknowledged {
                checksum: ok.prepare,
                view,
            }),
        }
    }

    /// A prepare of this view, made by its primary.
    pub fn on_prepare(&mut self, prepare: &Prepare) {
        self.log_is(prepare.frame.view, prepare.op, prepare.frame.checksum);
    }

    fn log_is(&mut self, view: u32, op: u64, checksum: u128) {
        let log = self.logs.entry(view).or_default();
        let known = *log.entry(op).or_insert(checksum);
        assert_eq!(known, checksum, "view {view} has two logs at op {op}");
        while self.logs.len() > VIEWS_KEPT {
            self.logs.pop_first();
        }
    }

    fn check_log(&self, view: u32, op: u64, checksum: u128) {
        let known = self.logs.get(&view).and_then(|log| log.get(&op));
        assert!(
            known.is_none_or(|&known| known == checksum),
            "what is acknowledged in view {view} at op {op} is not that view's"
        );
    }

    fn on_vote(&mut self, replica: u8, vote: &DoViewChange, body: &[u8]) {
        let view = vote.frame.view;
        self.check_not_voted(replica, view, "votes");
        let mut named = Vec::new();
        let mut highest = 0;
        for (index, header) in headers_of(body).enumerate() {
            let op = vote.op - index as u64;
            if header.frame.checksum != 0 {
                assert_eq!(header.op, op, "a vote's header is in a wrong place");
                named.extend_from_slice(&header.frame.checksum.to_le_bytes());
                highest = highest.max(op);
            }
            let nacked = vote.nack >> index & 1 == 1;
            if nacked {
                self.check_nack(replica, vote, op, header.frame.checksum);
            }
        }
        self.op_named = self.op_named.max(highest);
        self.check_below(replica, vote, body.len() / HEADER_SIZE);
        let spoken = &mut self.spoken[replica as usize];
        for (&op, acknowledged) in spoken.acknowledged.range(vote.op_max + 1..) {
            let forgotten = acknowledged.iter().any(|it| it.view >= vote.log_view);
            assert!(
                !forgotten,
                "replica {replica} votes for view {view} with a log of view {} that ends at {}, and acknowledged op {op}",
                vote.log_view, vote.op_max
            );
        }
        spoken.view_voted = view;
        let content = Vote {
            headers: checksum::identity(&named),
            log_view: vote.log_view,
        };
        let before = spoken.votes.insert(view, content);
        assert!(
            before.is_none_or(|before| before == content),
            "replica {replica} changes its vote for view {view}"
        );
        if before.is_none() {
            self.spoke.votes += 1;
            self.spoke.votes_uncertain += u64::from(vote.op_max > highest);
            let listed = (1u128 << (body.len() / HEADER_SIZE)) - 1;
            let held = vote.present
                | if vote.op <= vote.checkpoint_op {
                    listed
                } else {
                    0
                };
            let candidate = view % self.replica_count == u32::from(replica);
            let lacks = vote.op > vote.commit_min && held & 1 == 0;
            self.spoke.votes_dirty += u64::from(candidate && lacks);
        }
    }

    fn check_below(&self, replica: u8, vote: &DoViewChange, listed: usize) {
        let below = vote.op.saturating_sub(listed as u64);
        let quorum = Quorums::new(self.replica_count as u8).replication;
        // The primary of the view in which it was committed sends itself nothing.
        let committed = |acks: &Acks| acks.by.count() + 1 >= quorum;
        let acks = self.acks.get(&below).map_or(&[][..], |acks| acks);
        assert!(
            below <= self.settled_op || acks.iter().any(committed),
            "replica {replica} votes for view {} as if op {below} were committed, and it is not",
            vote.frame.view
        );
    }

    fn check_nack(&self, replica: u8, vote: &DoViewChange, op: u64, checksum: u128) {
        let acknowledged = self.spoken[replica as usize].acknowledged.get(&op);
        let Some(acknowledged) = acknowledged else {
            return;
        };
        let held = |it: &&Acknowledged| {
            it.checksum == checksum || checksum == 0 && it.view >= vote.log_view
        };
        // A view whose log has another prepare there had proof that this one was not committed before; one that brings it back
        // (its candidate did not hear of that view) counts only what is acknowledged since.
        let replaced = |it: &Acknowledged| {
            let since = it.view + 1..vote.log_view.max(it.view) + 1;
            let logs = self.logs.range(since);
            let mut there = logs.filter_map(|(_, log)| log.get(&op));
            there.any(|&other| other != it.checksum)
        };
        let mut held = acknowledged.iter().filter(held);
        if let Some(held) = held.find(|it| !replaced(it)) {
            panic!(
                "replica {replica} votes for view {} that it never acknowledged op {op}; it did, in view {}",
                vote.frame.view, held.view
            );
        }
    }

    fn on_start_view(&mut self, replica: u8, start: &StartView, body: &[u8]) {
        let view = start.frame.view;
        assert_eq!(
            view % self.replica_count,
            u32::from(replica),
            "replica {replica} begins view {view}, which is another's"
        );
        self.check_not_voted(replica, view, "leads");
        if !self.logs.contains_key(&view) {
            self.spoke.views += 1;
            self.spoke.truncations += u64::from(self.op_named > start.op);
            self.op_named = 0;
        }
        for (index, header) in headers_of(body).enumerate() {
            assert_eq!(header.op + index as u64, start.op);
            self.log_is(view, header.op, header.frame.checksum);
        }
    }
}

#[cfg(test)]
mod tests;
