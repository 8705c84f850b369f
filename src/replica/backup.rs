//! A backup's side of normal operation: prepares, acknowledgements, and the heartbeat's answer.

use super::{Effects, Ignored, Peer, Replica};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::buffer::SharedMessage;
use storage::header::{
    Commit, CommitOk, Prepare, PrepareKind, PrepareOk, ReplicaStatus, check_batch,
};
use storage::journal::Durable;
use storage::superblock::DurableView;

impl<M: Machines, R: Rules> Replica<M, R> {
    pub(super) fn on_prepare(&mut self, from: u8, message: SharedMessage, effects: &mut Effects) {
        if self.status != ReplicaStatus::Normal {
            self.metrics.ignored(Ignored::NotReady);
            return;
        }
        let prepare = *message.header().typed::<Prepare>();
        // The log is executed without further checks, so nothing enters it that was not checked here: whoever sent it.
        if !self.is_believable(&prepare) || check_batch(message.body(), prepare.requests).is_err() {
            self.metrics.ignored(Ignored::Implausible);
            return;
        }
        // An inherited prepare keeps the view that it was first prepared in.
        let in_view = self.is_backup() && self.is_from_primary(from, message.header());
        if in_view {
            self.heard_from_primary(prepare.op);
            self.commit_max = self.commit_max.max(prepare.commit);
        }
        if prepare.op <= self.head.op {
            self.on_known_prepare(message, &prepare, effects);
        } else if prepare.op == self.head.op + 1
            && (prepare.parent == self.head.checksum || !R::CHECK_PARENT)
            && prepare.timestamp >= self.head.timestamp_next
            && in_view
        {
            self.append_if_room(message, effects);
            self.append_fetched(effects);
        } else if self.is_backup() {
            self.on_fetched_prepare(message, &prepare, in_view, effects);
        }
    }

    /// Whether a prepare can be one of this log: its kind, and a view that we know.
    pub(super) fn is_believable(&self, prepare: &Prepare) -> bool {
        prepare.kind == PrepareKind::Batch as u32 && prepare.frame.view <= self.view
    }

    /// A prepare at or below the head: sent again because our acknowledgement was lost, or asked for because the
    /// journal lost it.
    fn on_known_prepare(
        &mut self,
        message: SharedMessage,
        prepare: &Prepare,
        effects: &mut Effects,
    ) {
        let (op, checksum) = (prepare.op, prepare.frame.checksum);
        self.take_header(prepare);
        if self.is_wanted(prepare) {
            self.repair_with(message, effects);
        } else if let Some(durable) = self.journal.durable_again(op, checksum) {
            self.metrics.ignored(Ignored::Duplicate);
            self.acknowledge_one(durable, effects);
        } else {
            // Its acknowledgement may wait for redundant headers that nothing else would write.
            self.timers
                .flush
                .set(self.now, crate::constants::JOURNAL_FLUSH_NS);
            self.metrics.ignored(Ignored::Duplicate);
        }
    }

    /// Appends the prepare after the head, if the journal can take it now; otherwise it is dropped and asked for again.
    pub(super) fn append_if_room(&mut self, message: SharedMessage, effects: &mut Effects) -> bool {
        let room = self.journal.can_append(self.head.op + 1);
        if room {
            self.append(message, effects);
        } else {
            self.metrics.ignored(Ignored::NoRoom);
        }
        room
    }

    /// Acknowledges what the journal has made durable since the last turn.
    pub(super) fn acknowledge(&mut self, effects: &mut Effects) {
        let in_flight = 2 * u64::from(self.layout.geometry.pipeline_max);
        while let Some(durable) = self.journal.next_durable() {
            // What has long been committed nobody counts any more.
            if durable.op() + in_flight > self.commit_max {
                self.acknowledge_one(durable, effects);
            }
        }
    }

    /// Once a checkpoint is durable here, ops that waited for it are acknowledged.
    pub(super) fn acknowledge_withheld(&mut self, effects: &mut Effects) {
        let Some(from) = self.withheld.take() else {
            return;
        };
        // What is known to be committed nobody counts any more; and a step sends so much and no more: the rest follows.
        let from = from.max(self.commit_max + 1);
        let bound = from + 2 * u64::from(self.layout.geometry.pipeline_max);
        for op in from..=self.head.op.min(bound) {
            let checksum = self.journal.header(op).map(|header| header.frame.checksum);
            if let Some(durable) =
                checksum.and_then(|checksum| self.journal.durable_again(op, checksum))
            {
                self.acknowledge_one(durable, effects);
            }
        }
        if bound < self.head.op && self.withheld.is_none() {
            self.withheld = Some(bound + 1);
            self.repair.acknowledge_more();
        }
    }

    pub(super) fn acknowledge_one(&mut self, durable: Durable, effects: &mut Effects) {
        let op = durable.op();
        let beyond =
            self.checkpoint_required(op) > self.checkpoint_reach() && R::WITHHOLD_BEYOND_CHECKPOINT;
        let right = self.may_promise();
        let Some(begun) = right.filter(|_| !beyond && self.is_chained_for_ack(op)) else {
            self.withheld = Some(self.withheld.map_or(op, |lowest| lowest.min(op)));
            return;
        };
        self.promises.acknowledge(op, begun);
        if self.is_primary() {
            let entry = self.prepares.get(op);
            if entry.is_some_and(|entry| entry.prepare().frame.checksum == durable.checksum()) {
                let (checkpoint_op, checkpoint_id) = self.checkpoint_to_announce();
                self.count_ack(op, self.options.replica, checkpoint_op, checkpoint_id);
            }
        } else if self.is_backup() {
            let view = self.superblock.durable_view();
            self.send_prepare_ok(durable, view, effects);
        }
    }

    /// The only place where a prepare_ok is made: it takes the proof that the prepare would be recovered, and the view
    /// that is on disk.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the proof is used up by the message it allows"
    )]
    fn send_prepare_ok(&mut self, durable: Durable, view: DurableView, effects: &mut Effects) {
        assert_eq!(view.view(), self.view);
        let round = self
            .journal
            .header(durable.op())
            .filter(|header| {
                header.frame.checksum == durable.checksum() && header.frame.view == self.view
            })
            .map_or(0, |header| header.round);
        let mut ok: PrepareOk = self.header();
        ok.prepare = durable.checksum();
        (ok.checkpoint_op, ok.checkpoint_id) = self.checkpoint_to_announce();
        ok.life = self.life();
        ok.superblock_sequence = self.superblock.working().sequence;
        ok.op = durable.op();
        ok.commit_min = self.commit_min;
        ok.round = round;
        let primary = self.primary();
        self.send_header(Peer::Replica(primary), &ok, effects);
    }

    pub(super) fn on_commit(&mut self, from: u8, commit: Commit, effects: &mut Effects) {
        if !self.is_backup() || !self.is_from_primary(from, commit.header()) {
            self.metrics.ignored(Ignored::OtherView);
            return;
        }
        self.heard_from_primary(commit.op);
        let known = self
            .journal
            .header(commit.commit)
            .filter(|header| header.frame.view == self.view);
        if known.is_some_and(|header| header.frame.checksum != commit.commit_checksum) {
            // One view has one prepare of an op: whoever says otherwise is not our primary.
            self.metrics.ignored(Ignored::Implausible);
            return;
        }
        self.commit_max = self.commit_max.max(commit.commit);
        self.peers[from as usize].on_progress(commit.commit, commit.checkpoint_op, 0);
        self.hear_checkpoint(from, commit.checkpoint_op, commit.checkpoint_id, effects);
        if self.may_promise().is_none() {
            return; // it might have voted for a later view
        }
        let mut ok: CommitOk = self.header();
        (ok.checkpoint_op, ok.checkpoint_id) = self.checkpoint_to_announce();
        ok.round = commit.round;
        ok.commit_min = self.commit_min;
        ok.op = self.head.op;
        self.send_header(Peer::Replica(from), &ok, effects);
    }

    fn heard_from_primary(&mut self, op: u64) {
        self.detector.heard(self.now.monotonic_ns);
        self.election.suspicions.own_is_over();
        self.catch_up.target = self.catch_up.target.max(op);
        // Beyond the reach of the primary's journal nothing can be fetched op by op any more. What was lost below the head
        // must be fetched as well.
        let held = if self.is_chained() {
            self.repair.lowest_missing.map_or(self.head.op, |op| op - 1)
        } else {
            self.commit_min
        };
        let behind = self.catch_up.target.saturating_sub(held);
        self.lagging = behind >= u64::from(self.layout.geometry.slots);
    }
}
