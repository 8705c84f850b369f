//! Opening the data file: the superblock first, then checkpoint and journal at once, then the role that follows.

use super::{Effects, Fatal, Head, Regressed, Replica};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::checkpoint::CheckpointEvent;
use storage::header::{Prepare, ReplicaStatus, Start};
use storage::journal::Recovered;
use storage::superblock::Expected;

/// What of the data file has been read.
#[derive(Debug, Default)]
pub(super) struct Opening {
    recovered: Option<Recovered>,
    checkpoint: bool,
}

impl<M: Machines, R: Rules> Replica<M, R> {
    pub(super) fn on_superblock_opened(&mut self, effects: &mut Effects) {
        let state = self.superblock.working();
        let expected = Expected {
            cluster: Some(self.options.cluster),
            replica: Some(self.options.replica),
            replica_count: Some(self.options.replica_count),
            geometry: Some(self.options.geometry),
        };
        if let Err(mismatch) = expected.check(state) {
            effects.halt = Some(Fatal::DataFile(mismatch.to_string()));
            return;
        }
        if state.sync.condemned == 1 {
            effects.halt = Some(Fatal::Regressed(Regressed::Condemned));
            return;
        }
        let record = state.checkpoint;
        let log_view = state.log_view;
        self.view = state.view;
        self.log_view = log_view;
        self.checkpoint_op = record.prepare.op;
        self.commit_max = state.commit_max.max(record.prepare.op);
        let solo = self.is_solo();
        let syncing = state.sync.syncing == 1;
        let previous = state.previous().copied();
        let opened = self.checkpoint.open_start(
            &record,
            previous.as_ref(),
            syncing,
            self.engine.pages_mut(),
            &mut effects.io,
        );
        let headers = self.superblock.view_headers();
        self.journal.open_start(
            record.prepare.op,
            record.prepare.frame.checksum,
            log_view,
            headers,
            solo,
            &mut effects.io,
        );
        // There may be nothing to read: before the first op, or nothing has been fetched yet.
        match opened {
            CheckpointEvent::Opened => self.on_checkpoint_opened(effects),
            CheckpointEvent::Incomplete(damages) => self.on_checkpoint_incomplete(damages, effects),
            _ => {}
        }
    }

    pub(super) fn on_checkpoint_opened(&mut self, effects: &mut Effects) {
        let record = self.superblock.working().checkpoint;
        if record.prepare.op > 0 {
            self.engine.reopened();
        }
        self.on_checkpoint_read(true, effects);
    }

    /// What the disk has of the checkpoint is in memory; whether that is all of it.
    pub(super) fn on_checkpoint_read(&mut self, complete: bool, effects: &mut Effects) {
        self.state_ready = complete;
        self.stand_at_checkpoint();
        self.opening.checkpoint = true;
        self.opened(effects);
    }

    pub(super) fn on_journal_opened(&mut self, recovered: Recovered, effects: &mut Effects) {
        self.opening.recovered = Some(recovered);
        self.opened(effects);
    }

    fn opened(&mut self, effects: &mut Effects) {
        if !self.opening.checkpoint {
            return;
        }
        let Some(recovered) = self.opening.recovered.take() else {
            return;
        };
        self.timers.ping.set(self.now, crate::constants::PING_NS);
        if let Some(op) = recovered.regressed {
            effects.halt = Some(Fatal::Regressed(Regressed::Journal(op)));
            return;
        }
        let head = self.head_header(recovered.head_op);
        assert_eq!(head.frame.checksum, recovered.head_checksum);
        self.head = Head::of(&head);
        assert!(self.head.op >= self.commit_min);
        // What a primary knew to be committed when it prepared, is.
        self.commit_max = self.commit_max.max(head.commit);
        self.uncertain = (!recovered.head_certain && R::UNCERTAIN_HEAD_AWAITS_START_VIEW)
            .then_some(recovered.op_max);
        let sequence = self.superblock.working().sequence;
        self.promises
            .opened(sequence, self.head.op.max(recovered.op_max));
        self.rebuild_chain();
        self.metrics.ops_recovered = self.head.op - self.commit_min;
        self.status = ReplicaStatus::Starting;
        if !self.is_solo() {
            self.timers.starting(self.now);
            if self.superblock.working().sync.recovering == 1 {
                self.become_lost();
            }
            // Those who were connected while there was nothing true to say do not know us before they hear us.
            self.ping_others(effects);
        }
        if self.is_confirmed() {
            self.take_part(effects);
        }
    }

    /// Nothing is wrong with the file, as far as anybody knows: from here on it is written to.
    pub(super) fn take_part(&mut self, effects: &mut Effects) {
        if self.state_ready && !self.is_checkpoint_whole() {
            // All was fetched before the process ended, and not all written: now, before anything is executed on it.
            self.write_checkpoint_anew(effects);
        }
        if self.is_solo() {
            self.open_solo(effects);
        } else if self.start_state() == Start::Begun {
            self.open_one_of_many(effects);
        }
        // Otherwise what is heard decides: see `advance_start` and `advance_lost`.
    }

    /// The header of the newest op: from the journal, or of the checkpoint if nothing is above it.
    fn head_header(&self, op: u64) -> Prepare {
        let checkpoint = self.superblock.working().checkpoint.prepare;
        if op == checkpoint.op {
            return checkpoint;
        }
        *self
            .journal
            .header(op)
            .expect("the journal knows the head it recovered")
    }

    /// Alone, everything in the journal was acknowledged or may count as such. The view is raised before the first
    /// request: a torn op that recovery cut off and its successor must not share (view, op).
    fn open_solo(&mut self, effects: &mut Effects) {
        self.commit_max = self.head.op;
        let first = self.start_state() != Start::Begun;
        let head = self.head_header(self.head.op);
        self.superblock.update(
            |state, headers| {
                state.set_start(Start::Begun);
                if !first {
                    state.view += 1;
                    state.log_view = state.view;
                    headers.set(&[head]);
                }
            },
            &mut effects.io,
        );
    }

    /// Among others: where the superblock says that this replica was.
    ///
    /// * A backup that was normal goes on in its view. If it cannot tell where its log ends, because the journal is damaged
    ///   there, it first asks for the log: it might have acknowledged what it cannot see.
    /// * A primary that was normal leaves its view: what it had promised there is forgotten.
    /// * Between two views it votes as it did, or would have.
    fn open_one_of_many(&mut self, effects: &mut Effects) {
        let was_normal = self.log_view == self.view;
        let primary = self.primary() == self.options.replica;
        if was_normal && primary && R::RESTARTED_PRIMARY_LEAVES_VIEW {
            self.timers.enter_view_change(self.now);
            self.enter_view_change(self.view + 1, effects);
        } else if was_normal && self.uncertain.is_none() {
            self.enter_normal();
            self.catch_up.target = self.commit_max;
        } else {
            self.status = ReplicaStatus::ViewChange;
            self.timers.enter_view_change(self.now);
            self.vote_if_durable(effects);
        }
    }
}
