//! What a replica counts, and how far it is.

use super::{Nowhere, Replica};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::header::ReplicaStatus;

/// Why something that came in was not used. None of these is an error: the world loses, repeats and reorders.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Ignored {
    /// Not a message for a replica in this role.
    Unexpected,
    /// The replica is not serving yet.
    NotReady,
    /// Another view, or not from its primary.
    OtherView,
    /// Known already.
    Duplicate,
    /// Not the next, and not asked for.
    Gap,
    /// The journal cannot take it now.
    NoRoom,
    /// No message buffer is free.
    NoBuffer,
    /// Asked for something that is not here (any more).
    NotHere,
    /// An acknowledgement with an older or another checkpoint than its op needs.
    Checkpoint,
    /// A greeting with another geometry.
    Geometry,
    /// Well-formed, but not what a replica of this cluster can have sent.
    Implausible,
}

/// Number of reasons in [`Ignored`].
const IGNORED: usize = Ignored::Implausible as usize + 1;

/// Counts since the start. Plain numbers: read, never reset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metrics {
    /// What was not used, by [`Ignored`].
    pub ignored: [u64; IGNORED],
    /// Requests rejected.
    pub rejected: u64,
    /// Prepares made here.
    pub prepares: u64,
    /// Requests in them.
    pub requests: u64,
    /// Their bytes.
    pub prepare_bytes: u64,
    /// Prepares sent again.
    pub prepares_resent: u64,
    /// Prepares asked for from others.
    pub prepares_requested: u64,
    /// Prepares got from others when catching up.
    pub prepares_fetched: u64,
    /// Prepares the journal had lost and got back.
    pub prepares_repaired: u64,
    /// Ops executed.
    pub ops: u64,
    /// Requests executed.
    pub requests_executed: u64,
    /// Reads answered.
    pub reads: u64,
    /// Checkpoints begun.
    pub checkpoints: u64,
    /// Views left.
    pub view_changes: u64,
    /// Views that this replica, as their candidate, could not lead.
    pub passed_on: u64,
    /// Votes refused because they contradicted others, or what was executed here. Zero as long as all replicas work.
    pub contradictions: u64,
    /// Times that the clocks of a majority ceased to agree.
    pub clock_losses: u64,
    /// Ops that the journal held above the checkpoint at start.
    pub ops_recovered: u64,
    /// Times that this replica gave its state up for a checkpoint of the others.
    pub syncs: u64,
    /// Pages of state that were not here when a checkpoint was fetched.
    pub pages_differing: u64,
    /// Pages of state got from others.
    pub pages_fetched: u64,
    /// Pages of state and nodes of the tag tree that others sent, in bytes, those of no use included.
    pub sync_bytes: u64,
    /// Pages of state and nodes of the tag tree sent to others.
    pub pages_served: u64,
    /// Bad blocks of the checkpoint that the scrubber wrote again from memory.
    pub blocks_mended: u64,
    /// Bad blocks found by the scrubber that the next checkpoint supersedes.
    pub blocks_superseded: u64,
    /// Prepares that the scrubber could not read.
    pub prepares_decayed: u64,
}

impl Metrics {
    pub(super) fn ignored(&mut self, reason: Ignored) {
        self.ignored[reason as usize] += 1;
    }

    pub(super) fn prepared(&mut self, requests: u32, bytes: usize) {
        self.prepares += 1;
        self.requests += u64::from(requests);
        self.prepare_bytes += bytes as u64;
    }

    pub(super) fn executed(&mut self, requests: u32) {
        self.ops += 1;
        self.requests_executed += u64::from(requests);
    }
}

/// How far a replica is: for hosts that watch it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// What it is doing.
    pub status: ReplicaStatus,
    /// What it needs, and no replica has that answers: it waits for somebody to bring it.
    pub nowhere: Option<Nowhere>,
    /// Its view.
    pub view: u32,
    /// The view that its log is of.
    pub log_view: u32,
    /// The newest op in its log.
    pub head_op: u64,
    /// Executed here.
    pub commit_min: u64,
    /// Identity of the prepare of `commit_min`.
    pub commit_checksum: u128,
    /// Known to be committed anywhere.
    pub commit_max: u64,
    /// Op of the newest checkpoint that is durable here.
    pub checkpoint_op: u64,
    /// Its id; zero while the data file is being opened.
    pub checkpoint_id: u128,
    /// Whether it cannot tell where its log ends, since its journal is damaged there.
    pub is_head_uncertain: bool,
    /// Whether pages of state are being fetched from others.
    pub fetching: bool,
    /// Of a file that stands in for one that was lost: the op whose commit it waits for.
    pub awaited_op: Option<u64>,
    /// Pages of state and nodes of the tag tree that are known not to be here, while a checkpoint is fetched.
    pub pages_missing: u64,
    /// Pages of state fetched since the start.
    pub pages_fetched: u64,
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Whether nothing of the log above the checkpoint is missing here.
    pub fn is_whole(&self) -> bool {
        let above = self.checkpoint_op + 1..=self.head.op;
        self.status != ReplicaStatus::Opening && self.journal.missing(above).next().is_none()
    }

    /// How far this replica is.
    pub fn progress(&self) -> Progress {
        let opening = self.status == ReplicaStatus::Opening;
        Progress {
            status: self.status(),
            nowhere: if opening { None } else { self.nowhere() },
            view: self.view,
            log_view: self.log_view,
            head_op: self.head.op,
            commit_min: self.commit_min,
            commit_checksum: self.commit_checksum,
            commit_max: self.commit_max,
            checkpoint_op: self.checkpoint_op,
            checkpoint_id: if opening {
                0
            } else {
                self.superblock.working().checkpoint.id
            },
            is_head_uncertain: self.uncertain.is_some(),
            fetching: !opening && !self.checkpoint.is_complete(),
            awaited_op: self.lost.op.filter(|_| self.status == ReplicaStatus::Lost),
            pages_missing: self.checkpoint.fetch_progress().missing,
            pages_fetched: self.checkpoint.fetch_progress().pages_fetched,
        }
    }
}
