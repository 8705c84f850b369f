//! The log with which a view begins: made durable first, then acted on; at its primary and at its backups alike.
//!
//! Invariants:
//! * log_view and the headers of the log's end become durable in one superblock write, and nothing of the journal changes
//!   before: a crash finds the old log in the old log_view, or the new one in the new.
//! * No view is begun twice: a replica whose log_view is this view ignores its start_view, unless it restarted, could not
//!   tell the log's end from its disk, and asked for it (else a late copy would make it forget what it acknowledged).
//! * Inherited prepares keep their identity. They are acknowledged anew in this view, and the primary prepares nothing of its
//!   own before they are all executed.

use super::sync::name_target;
use super::vote::headers_max;
use super::{Effects, Executing, Head, Ignored, Peer, Replica};
use crate::constants::{HEARTBEAT_NS, PREPARE_RESEND_NS, VIEW_CHANGE_NS, VOTE_HEADERS_MAX};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::buffer::{Message, SharedMessage};
use storage::header::{HEADER_SIZE, Prepare, ReplicaStatus, RequestStartView, StartView};
use storage::superblock::{CheckpointRecord, VIEW_HEADERS_MAX};
use zerocopy::{FromBytes, IntoBytes};

/// A view that has begun elsewhere is given so many times the time that it had to begin, until it has begun here.
const INSTALL_PATIENCE: u64 = 5;

/// A log that reaches beyond what this journal can hold: it is begun together with a newer checkpoint.
#[derive(Debug)]
pub(super) struct Parked {
    /// Its view; none: nothing is parked.
    pub(super) view: Option<u32>,
    /// Everything up to here is committed.
    pub(super) commit_max: u64,
    /// Headers of its end, highest op first.
    pub(super) headers: Vec<Prepare>,
}

impl Parked {
    pub(super) fn new() -> Self {
        Self {
            view: None,
            commit_max: 0,
            headers: Vec::with_capacity(VOTE_HEADERS_MAX),
        }
    }
}

/// A log that is being made durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Installing {
    /// Of the superblock that holds it.
    sequence: u64,
    /// The log's view.
    view: u32,
}

/// The headers in a message's body, highest op first.
pub(super) fn headers_of(body: &[u8]) -> &[Prepare] {
    <[Prepare]>::ref_from_bytes(body).expect("whole headers, aligned")
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Makes the log whose end is in `log_end` durable as that of `view`; together with the checkpoint that it begins with, if
    /// it lies beyond this journal. Returns the superblock's sequence.
    pub(super) fn install(
        &mut self,
        view: u32,
        commit_max: u64,
        checkpoint: Option<&CheckpointRecord>,
        effects: &mut Effects,
    ) -> u64 {
        assert!(view >= self.view && self.log_view <= view);
        self.view = view;
        self.status = ReplicaStatus::ViewChange;
        // Only this disk is waited for now, and in another view it would be waited for again.
        self.election.suspicions.own_is_over();
        self.timers.suspect.clear();
        self.timers
            .view_change
            .set(self.now, INSTALL_PATIENCE * VIEW_CHANGE_NS);
        let log_end = &self.log_end;
        let sequence = self.superblock.update(
            |state, headers| {
                state.view = view;
                state.log_view = view;
                state.commit_max = state.commit_max.max(commit_max);
                headers.set(log_end);
                if let Some(checkpoint) = checkpoint {
                    name_target(state, checkpoint);
                }
            },
            &mut effects.io,
        );
        self.installing = Some(Installing { sequence, view });
        if !R::LOG_AWAITS_DURABLE_LOG_VIEW && checkpoint.is_none() {
            self.apply_log(view, effects);
        }
        sequence
    }

    /// The superblock is durable: acts on the log that it names, if that is a new one.
    pub(super) fn apply_durable_log(&mut self, effects: &mut Effects) {
        let state = self.superblock.working();
        let (sequence, log_view) = (state.sequence, state.log_view);
        let installed = self
            .installing
            .take_if(|installing| sequence >= installing.sequence)
            .is_some();
        if installed || log_view > self.log_view {
            let list = self.superblock.view_headers();
            self.log_end.clear();
            self.log_end.extend_from_slice(list);
            self.log_end
                .sort_unstable_by_key(|header| std::cmp::Reverse(header.op));
            self.apply_log(log_view, effects);
        }
    }

    fn apply_log(&mut self, log_view: u32, effects: &mut Effects) {
        let head = self.log_end[0];
        assert!(
            head.op >= self.commit_min,
            "the log of view {log_view} ends at op {}, and op {} was executed",
            head.op,
            self.commit_min
        );
        assert!(
            log_view > self.log_view || self.uncertain.is_some() || !R::HEAD_NEVER_FALLS_IN_VIEW,
            "the log of view {log_view} is begun again, with op {} as its head; now it is {}",
            head.op,
            self.head.op
        );
        self.log_view = log_view;
        self.uncertain = None;
        self.promises.cut(head.op);
        self.journal.view_durable(log_view, head.op);
        let window = self.checkpoint_op + 1..=self.checkpoint_op + self.journal.slots();
        for index in 0..self.log_end.len() {
            let header = self.log_end[index];
            if window.contains(&header.op) {
                self.journal.set_header(&header);
            }
        }
        self.head = Head::of(&head);
        self.commit_max = self.commit_max.max(self.superblock.working().commit_max);
        let (journal, checkpoint_op) = (&self.journal, self.checkpoint_op);
        self.prepares.retain(|prepare| {
            let known = journal.header(prepare.op);
            prepare.op > checkpoint_op
                && prepare.op <= head.op
                && known.is_none_or(|known| known.frame.checksum == prepare.frame.checksum)
        });
        self.rebuild_chain();
        if self.view == log_view {
            self.begin_view(effects);
        }
    }

    /// Acts in the view whose log is durable.
    fn begin_view(&mut self, effects: &mut Effects) {
        assert_eq!(self.view, self.log_view);
        self.election.clear();
        self.parked.view = None;
        self.enter_normal();
        self.catch_up.target = self.head.op;
        self.withheld = Some(self.commit_max + 1);
        if self.primary() == self.options.replica {
            self.send_start_view(None, 0, effects);
            self.timers.heartbeat.set(self.now, HEARTBEAT_NS);
            self.timers.resend.set(self.now, PREPARE_RESEND_NS);
            self.load_inherited(effects);
            self.resend_all(effects);
        }
        self.acknowledge_withheld(effects);
    }

    /// On the primary: inherited prepares that are not in memory are read back, so that they can be sent and counted.
    pub(super) fn load_inherited(&mut self, effects: &mut Effects) {
        if !self.is_primary() || self.commit_max >= self.inherited {
            return;
        }
        for op in self.commit_max + 1..=self.inherited {
            if self.prepares.get(op).is_some() || !self.prepares.is_free(op) {
                continue;
            }
            let Some(header) = self.journal.header(op).copied() else {
                continue;
            };
            if self.reading_back.to_inherit.is_some() {
                return;
            }
            let size = storage::sector_ceil(header.frame.size as usize);
            let Some(buffer) = self.buffer_for(size) else {
                return;
            };
            let checksum = header.frame.checksum;
            let purpose = super::commit::READ_TO_INHERIT;
            let read = self
                .journal
                .read(op, checksum, buffer, purpose, &mut effects.io);
            if read.is_ok() {
                self.reading_back.to_inherit = Some(op);
                return;
            }
        }
    }

    pub(super) fn on_read_to_inherit(
        &mut self,
        op: u64,
        message: Result<SharedMessage, Message>,
        effects: &mut Effects,
    ) {
        assert_eq!(self.reading_back.to_inherit.take(), Some(op));
        let Ok(message) = message else {
            return; // the journal has marked it as lost, and it is repaired
        };
        self.inherit(&message, effects);
    }

    /// An inherited prepare has come into memory, from the journal or by repair.
    pub(super) fn inherit(&mut self, message: &SharedMessage, effects: &mut Effects) {
        let prepare = *message.header().typed::<Prepare>();
        let (op, checksum) = (prepare.op, prepare.frame.checksum);
        let wanted = self.is_primary()
            && op > self.commit_max
            && op <= self.inherited
            && self
                .journal
                .header(op)
                .is_some_and(|header| header.frame.checksum == checksum);
        if !wanted || self.prepares.get(op).is_some() || !self.prepares.insert(message.clone()) {
            return;
        }
        if let Some(durable) = self.journal.durable_again(op, checksum) {
            self.acknowledge_one(durable, effects);
        }
        self.broadcast(message, effects);
        self.load_inherited(effects);
    }

    /// Sends what is not known to be committed to all.
    fn resend_all(&mut self, effects: &mut Effects) {
        for op in self.commit_max + 1..=self.head.op {
            if let Some(entry) = self.prepares.get(op) {
                let message = entry.message.clone();
                self.broadcast(&message, effects);
            }
        }
    }

    /// Tells one, or all, with which log the view began, or goes on.
    pub(super) fn send_start_view(&mut self, to: Option<u8>, nonce: u64, effects: &mut Effects) {
        if !self.is_primary() {
            return;
        }
        self.collect_log_end();
        // As far down as they follow each other without a gap.
        let mut count = 1;
        while count < self.log_end.len().min(headers_max(&self.layout.geometry))
            && self.log_end[count].frame.checksum == self.log_end[count - 1].parent
        {
            count += 1;
        }
        if self.log_end[count - 1].op > self.commit_max + 1 {
            return; // headers are being repaired: it is sent again when it is asked for
        }
        let size = HEADER_SIZE * (1 + count);
        let Some(mut message) = self.buffer_for(size) else {
            self.metrics.ignored(Ignored::NoBuffer);
            return;
        };
        message.buffer_mut()[HEADER_SIZE..size].copy_from_slice(self.log_end[..count].as_bytes());
        let checkpoint = self.superblock.working().checkpoint;
        let mut start: StartView = self.header();
        assert_eq!(start.frame.view, self.view);
        start.frame.size = size as u32;
        start.checkpoint_id = checkpoint.id;
        start.checkpoint_op = checkpoint.prepare.op;
        start.nonce = nonce;
        start.op = self.head.op;
        start.commit_max = self.commit_max;
        message.set_header(&start);
        let message = message.seal();
        match to {
            Some(replica) => effects.send(Peer::Replica(replica), message),
            None => self.broadcast(&message, effects),
        }
    }

    pub(super) fn on_request_start_view(
        &mut self,
        from: u8,
        ask: &RequestStartView,
        effects: &mut Effects,
    ) {
        if self.is_primary() && ask.frame.view <= self.view {
            self.send_start_view(Some(from), ask.nonce, effects);
        } else {
            self.metrics.ignored(Ignored::OtherView);
        }
    }

    /// Whether a log's end has what was executed here, as far as it reaches down to it. One that has not is another
    /// history, or a lie: it must not become durable here.
    pub(super) fn agrees_with_executed(&self, headers: &[Prepare]) -> bool {
        self.contradicting(headers).is_none()
    }

    /// A header of a log's end that is not what was executed here at its op, or does not follow it; and the identity of what
    /// was. What is to be executed of the own log, while the new one is being made durable, counts as executed.
    pub(super) fn contradicting<'a>(&self, headers: &'a [Prepare]) -> Option<(&'a Prepare, u128)> {
        let checkpoint = &self.superblock.working().checkpoint.prepare;
        let executing = self.executing.as_ref().map(Executing::name);
        let known = [
            Some((checkpoint.op, checkpoint.frame.checksum)),
            Some((self.commit_min, self.commit_checksum)),
            executing,
        ];
        let committed = self.commit_min + 1..=self.commit_max.min(self.head.op);
        let committed = committed.filter(|_| self.state_ready && self.is_chained());
        let committed = committed.filter_map(|op| {
            let header = self.journal.header(op)?;
            Some((op, header.frame.checksum))
        });
        let known = known.into_iter().flatten().chain(committed);
        let other = |(op, checksum): (u64, u128)| {
            let differs = |header: &&Prepare| {
                header.op == op && header.frame.checksum != checksum
                    || header.op == op + 1 && header.parent != checksum
            };
            headers.iter().find(differs).map(|it| (it, checksum))
        };
        known.into_iter().find_map(other)
    }

    pub(super) fn on_start_view(&mut self, from: u8, message: &Message, effects: &mut Effects) {
        let start = *message.header().typed::<StartView>();
        let view = start.frame.view;
        let author = (view % u32::from(self.options.replica_count)) as u8;
        if !self.takes_part() || from != author || view < self.view || self.is_solo() {
            self.metrics.ignored(Ignored::OtherView);
            return;
        }
        if view == self.view {
            // A late copy of a start_view may end below what this replica has acknowledged since.
            let asked = self
                .uncertain
                .is_some_and(|op_max| start.op >= op_max || start.nonce == self.election.nonce);
            let fresh = self.log_view < view || asked || !R::HEAD_NEVER_FALLS_IN_VIEW;
            let begun = self.installing.is_some_and(|it| it.view == view);
            if !fresh || begun {
                self.metrics.ignored(Ignored::Duplicate);
                return;
            }
        }
        let body = message.body();
        let count = body.len() / HEADER_SIZE;
        let lowest = start.op + 1 - count as u64;
        let sound = self.are_headers_sound(body, start.op, view, 0, false)
            && lowest <= start.commit_max + 1
            && count <= VIEW_HEADERS_MAX
            && start.op >= self.commit_min
            && self.agrees_with_executed(headers_of(body));
        if !sound {
            self.metrics.ignored(Ignored::Implausible);
            return;
        }
        if start.op > self.checkpoint_op + self.journal.slots() {
            // Beyond the ring: it is begun together with a newer checkpoint.
            if view > self.view {
                self.enter_view_change(view, effects);
            }
            self.parked.view = Some(view);
            self.parked.commit_max = start.commit_max;
            self.parked.headers.clear();
            self.parked.headers.extend_from_slice(headers_of(body));
            self.catch_up.target = self.catch_up.target.max(start.op);
            // The view has begun, so there is no hurry to wish for the next one.
            self.timers
                .view_change
                .set(self.now, INSTALL_PATIENCE * VIEW_CHANGE_NS);
            return;
        }
        if view > self.view {
            self.leave_view();
        }
        // It fits now: what was parked of this view must not be begun a second time.
        self.parked.view = None;
        self.log_end.clear();
        self.log_end.extend_from_slice(headers_of(body));
        self.install(view, start.commit_max, None, effects);
    }
}
