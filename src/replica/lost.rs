//! A file that was lost, and is made anew from the others (TigerBeetle's `recover`; Michael et al., *Recovering Shared
//! Objects Without Stable Storage*, DISC 2017, show what goes wrong otherwise).
//!
//! The new file knows nothing of what its predecessor acknowledged and voted for. Neither acknowledging nor voting, it waits
//! until that cannot matter any more:
//! 1. It hears a view-change quorum of others. Let h be the highest op that any of them holds, and a pipeline more: nothing
//!    above h can have been acknowledged by the predecessor, for whatever it acknowledged was in the pipeline of a primary
//!    whose commits some of those who were heard had acknowledged too.
//! 2. It waits until h is committed (a primary that hears a blank file commits ops that do nothing, so an idle cluster gets
//!    there). Its word for this is part of its first vote: what the predecessor acknowledged is never cut off.
//! 3. It takes a checkpoint to sync to, and begins in a view beyond any that the predecessor can have voted in: two rounds of
//!    views above all that were heard. One write of the superblock makes all of it durable.
//!
//! A `format` in place of a lost file goes the same way as soon as it hears a replica that has begun; so does `recover`,
//! which says from the beginning that the file replaces one.

use super::sync::name_target;
use super::{Effects, Head, Replica};
use crate::constants::{NOOP_NS, PING_STARTING_NS};
use crate::engine::operation;
use crate::machines::Machines;
use crate::rules::Rules;
use storage::header::{Ping, ReplicaStatus, Start};
use storage::layout::REPLICAS_MAX;
use storage::superblock::CheckpointRecord;

/// What a lost replica has heard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    /// Replicas that have begun, by the op that they hold.
    ops: [Option<u64>; REPLICAS_MAX],
    /// The highest view of any.
    view: u32,
    /// The highest op known to be committed.
    committed: u64,
    /// Nothing above this can have been acknowledged by the predecessor.
    pub(super) op: Option<u64>,
    /// The superblock that makes this replica one of many, until it is durable.
    beginning: Option<u64>,
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// This file stands in for one that was lost.
    pub(super) fn become_lost(&mut self) {
        if !R::LOST_FILE_AWAITS_OTHERS {
            return;
        }
        self.status = ReplicaStatus::Lost;
        self.timers.ping.set(self.now, PING_STARTING_NS);
    }

    /// Another replica greets a lost one.
    pub(super) fn hear_greeting_while_lost(&mut self, from: u8, ping: &Ping) {
        // The word of one whose own file may have gone back is not enough.
        let begun = ping.start == Start::Begun as u8 && ping.confirmed == 1;
        if self.status != ReplicaStatus::Lost || !begun {
            return;
        }
        self.lost.view = self.lost.view.max(ping.frame.view);
        self.lost.committed = self.lost.committed.max(ping.commit_min);
        // Also what it can no longer see of its own log.
        let highest = ping.op.max(ping.op_max).max(ping.op_acknowledged);
        self.lost.ops[from as usize] = Some(highest);
        let heard = self.lost.ops.iter().flatten();
        if self.lost.op.is_none() && heard.clone().count() >= self.quorums.view_change as usize {
            let highest = heard.max().copied().unwrap_or(0);
            self.lost.op = Some(highest + u64::from(self.layout.geometry.pipeline_max));
        }
    }

    /// A primary tells what is committed.
    pub(super) fn hear_commit_while_lost(&mut self, commit: u64, view: u32) {
        self.lost.view = self.lost.view.max(view);
        self.lost.committed = self.lost.committed.max(commit);
    }

    /// Goes on, if what has been heard is enough.
    pub(super) fn advance_lost(&mut self, effects: &mut Effects) {
        let ready = self.lost.op.is_some_and(|op| self.lost.committed >= op);
        let may_write = self.is_confirmed() && self.lost.beginning.is_none();
        if self.status == ReplicaStatus::Lost && ready && may_write {
            self.ask_for_record(0, effects);
        }
    }

    /// A checkpoint to begin with.
    pub(super) fn on_record_for_lost(&mut self, record: &CheckpointRecord, effects: &mut Effects) {
        let ready = self.lost.op.is_some_and(|op| self.lost.committed >= op);
        if !ready || self.lost.beginning.is_some() || !self.is_confirmed() {
            return;
        }
        let count = u32::from(self.options.replica_count);
        let mut view = self.lost.view.saturating_add(2 * count);
        if view % count == u32::from(self.options.replica) {
            view = view.saturating_add(1); // without a state it could not lead
        }
        let is_genesis = record.root == 0;
        let target = if is_genesis {
            self.superblock.working().checkpoint
        } else {
            self.metrics.syncs += 1;
            self.fetch_checkpoint(record)
        };
        let commit_max = self.lost.committed.max(target.prepare.op);
        let sequence = self.superblock.update(
            |state, headers| {
                state.set_start(Start::Begun);
                state.sync.recovering = 0;
                if !is_genesis {
                    name_target(state, &target);
                }
                state.commit_max = state.commit_max.max(commit_max);
                state.view = view;
                state.log_view = 0;
                headers.set(&[target.prepare]);
            },
            &mut effects.io,
        );
        self.lost.beginning = Some(sequence);
        if !is_genesis {
            self.sync_is_named_by(sequence);
        }
    }

    /// The superblock is durable: if it says so, this replica takes part from now on.
    pub(super) fn become_one_of_many_if_begun(&mut self, effects: &mut Effects) {
        let sequence = self.superblock.working().sequence;
        let beginning = self.lost.beginning.take_if(|it| sequence >= *it);
        if beginning.is_none() {
            return;
        }
        let state = self.superblock.working();
        let (view, commit_max) = (state.view, state.commit_max);
        self.view = view;
        self.log_view = 0;
        self.commit_max = self.commit_max.max(commit_max);
        self.head = Head::of(&self.superblock.working().checkpoint.prepare);
        self.status = ReplicaStatus::ViewChange;
        self.timers.enter_view_change(self.now);
        self.ping_others(effects);
    }

    /// As primary of a quiet cluster that has a lost replica: commits something, so that it learns what is committed.
    pub(super) fn prepare_noop_for_lost(&mut self, effects: &mut Effects) {
        let now_ns = self.now.monotonic_ns;
        let lost = |replica: u8| {
            let peer = &self.peers[replica as usize];
            peer.start == Some(Start::Blank) && now_ns < peer.greeted_ns + NOOP_NS
        };
        if self.others().any(lost) && self.may_prepare() && self.head.op == self.commit_min {
            self.prepare_internal(operation::NOOP, &[], effects);
        }
    }
}
