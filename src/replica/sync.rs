//! State sync: jumping to a checkpoint of the others, and mending one's own, by fetching the pages that differ.
//!
//! When: what is missing cannot be had op by op any more, because no journal reaches back so far; or a new view's log lies
//! beyond this journal; or the checkpoint on this disk is damaged, or was still being fetched when the process ended. The
//! cluster goes on meanwhile.
//!
//! Invariants:
//! * The target is durable on a quorum ([`super::serving`]), so nobody needs what this replica forgets by jumping.
//! * One write of the superblock sets the checkpoint, `syncing`, and the view's log if that caused it. From then on the
//!   journal's window is the new checkpoint's, and the blocks of the old one are a cache.
//! * A replica jumps only with a log that it knows to hold the checkpoint's op: in its view, or together with the log of a
//!   new one. So what is above the checkpoint in its journal follows it. Who offers it must be in that view or an earlier one:
//!   what was committed later is in no log that is known here, and a log that comes late may end below it.
//! * Without a state a replica journals, acknowledges, votes and serves; it does not execute, checkpoint, answer clients or
//!   lead. Beyond the reach of the checkpoint before, it acknowledges only when its own is whole on its own disk.
//! * If the target is gone from the others, a newer one takes its place, and what is the same is kept.

use super::{Effects, Fatal, Head, Ignored, Peer, Replica};
use crate::constants::{
    REPAIR_STUCK_NS, SYNC_ASKS_MAX, SYNC_PAGES_MAX, SYNC_PATIENCE_MAX_NS, SYNC_PATIENCE_NS,
    SYNC_RECORD_NS, SYNC_STUCK_NS, SYNC_TICK_NS, SYNC_WRITE_PAGES,
};
use crate::machines::Machines;
use crate::quorums::ReplicaSet;
use crate::rules::Rules;
use storage::buffer::{Message, SharedMessage};
use storage::checkpoint::{Damages, FetchProgress, Taken};
use storage::header::{
    HEADER_SIZE, Page, PageReference, PageRequest, ReplicaStatus, RequestPages, Typed,
    page_capacity,
};
use storage::layout::PAGE_SIZE;
use storage::superblock::{BlockReference, CheckpointRecord, SuperblockState};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Pages asked for, and not answered yet; none: the place is free.
#[derive(Debug)]
struct Ask {
    to: u8,
    nonce: u64,
    deadline_ns: u64,
    references: Vec<PageReference>,
}

/// What is going on.
#[derive(Debug)]
pub(super) struct StateSync {
    asks: [Ask; SYNC_ASKS_MAX],
    /// Numbers of questions.
    nonce: u64,
    /// The replica from which on somebody is looked for to ask.
    turn: u8,
    /// How long an answer may take now.
    patience_ns: u64,
    /// Replicas that did not have something that the target has.
    lacking: ReplicaSet,
    /// Those whose last answer has not come.
    silent: ReplicaSet,
    /// When the last page came.
    moved_at_ns: u64,
    /// No pages are asked for before this time: the last answer had none.
    paused_until_ns: u64,
    /// Nobody is asked for a record before this time.
    record_asked_until_ns: u64,
    /// The superblock that names the target, until it is durable.
    naming: Option<u64>,
    /// Pages that had been fetched when what was here was last written.
    written: u64,
    /// There is more to look for at once.
    pub(super) pending: bool,
    /// The op that execution waits for, and since when.
    waiting: (u64, u64),
    /// The checkpoint that the superblock names was found damaged on this disk, and has not been written again.
    pub(super) damaged: bool,
    /// What was found at start.
    pub(super) damages: Option<Damages>,
}

impl StateSync {
    pub(super) fn new() -> Self {
        Self {
            asks: std::array::from_fn(|_| Ask {
                to: 0,
                nonce: 0,
                deadline_ns: 0,
                references: Vec::with_capacity(SYNC_PAGES_MAX),
            }),
            nonce: 0,
            turn: 0,
            patience_ns: SYNC_PATIENCE_NS,
            lacking: ReplicaSet::default(),
            silent: ReplicaSet::default(),
            moved_at_ns: 0,
            paused_until_ns: 0,
            record_asked_until_ns: 0,
            naming: None,
            written: 0,
            pending: false,
            waiting: (0, 0),
            damaged: false,
            damages: None,
        }
    }

    fn forget_asks(&mut self) {
        for ask in &mut self.asks {
            ask.references.clear();
        }
    }

    /// Whether this replica is being asked.
    fn is_asked(&self, replica: u8) -> bool {
        let asked = |ask: &Ask| !ask.references.is_empty() && ask.to == replica;
        self.asks.iter().any(asked)
    }
}

/// The superblock names a checkpoint that is to be fetched, and that a quorum has.
pub(super) fn name_target(state: &mut SuperblockState, target: &CheckpointRecord) {
    let op = target.prepare.op;
    state.checkpoint = *target;
    state.previous = CheckpointRecord::new_zeroed();
    state.sync.syncing = 1;
    state.sync.quorum_op = state.sync.quorum_op.max(op);
    state.commit_max = state.commit_max.max(op);
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// How far the fetching of pages is.
    pub fn sync_progress(&self) -> FetchProgress {
        self.checkpoint.fetch_progress()
    }

    /// What was found damaged when the data file was opened, for the log; once.
    pub fn take_damages(&mut self) -> Option<Damages> {
        self.sync.damages.take()
    }

    /// Whether all of the checkpoint that the superblock names is on this disk.
    pub(super) fn is_checkpoint_whole(&self) -> bool {
        self.superblock.working().sync.syncing == 0 && !self.sync.damaged
    }

    /// Whether a commit has proved that a quorum holds the checkpoint, so that no acknowledgement from here proves anything of
    /// it any more. Without this a quorum of two, one of which lacks a page that the other has replaced since, could
    /// commit nothing, and so never get to a newer checkpoint that has it.
    fn is_checkpoint_proved(&self) -> bool {
        self.commit_max > self.checkpoint_op + self.layout.geometry.checkpoint_lag()
    }

    /// The highest checkpoint op that acknowledgements from here may rest on.
    pub(super) fn checkpoint_reach(&self) -> u64 {
        if self.is_checkpoint_whole() || self.is_checkpoint_proved() {
            self.checkpoint_op
        } else {
            self.checkpoint_op - 1
        }
    }

    /// Op and id of the newest checkpoint that is durable here, for others. While one is being fetched that is all before
    /// it: a quorum has it, so nothing rests on the ones before any more.
    pub(super) fn checkpoint_to_announce(&self) -> (u64, u128) {
        let checkpoint = &self.superblock.working().checkpoint;
        let may_name = self.is_checkpoint_whole() || self.is_checkpoint_proved();
        if may_name || !R::WITHHOLD_BEYOND_CHECKPOINT {
            (checkpoint.prepare.op, checkpoint.id)
        } else {
            (checkpoint.prepare.op.saturating_sub(1), 0)
        }
    }

    /// The data file does not hold all of its checkpoint.
    pub(super) fn on_checkpoint_incomplete(&mut self, damages: Damages, effects: &mut Effects) {
        if self.is_solo() {
            let advice = damages.advice();
            effects.halt = Some(Fatal::DataFile(format!("{damages}. To go on, {advice}")));
            return;
        }
        self.sync.damaged = damages.count > 0;
        self.sync.damages = Some(damages);
        self.sync.moved_at_ns = self.now.monotonic_ns;
        self.on_checkpoint_read(false, effects);
    }

    /// Goes on with what is missing of the state, if anything is. Ends a turn.
    pub(super) fn sync(&mut self, effects: &mut Effects) {
        self.sync.pending = false;
        if self.is_solo() {
            return;
        }
        if self.wants_newer_checkpoint() {
            let lowest = self.lowest_checkpoint_of_use();
            self.ask_for_record(lowest, effects);
        }
        if self.checkpoint.is_complete() {
            return;
        }
        self.sync.pending = self
            .checkpoint
            .fetch_pump(self.engine.pages(), &mut effects.io);
        self.expire_asks();
        self.ask_for_pages(effects);
        if self.sync.naming.is_none() && self.written_checkpoint.is_none() {
            if self.checkpoint.fetch_is_done() {
                self.finish_sync(effects);
            } else {
                self.write_fetched(effects);
            }
        }
        if self.timers.sync.is_clear() {
            self.timers.sync.set(self.now, SYNC_TICK_NS);
        }
    }

    /// Whether what is missing can be had only by jumping to a newer checkpoint.
    fn wants_newer_checkpoint(&mut self) -> bool {
        if self.sync.naming.is_some() || self.written_checkpoint.is_some() {
            return false;
        }
        if self.parked.view.is_some() {
            return true;
        }
        // Between views this replica does not know the log that would follow the checkpoint.
        if !self.is_backup() {
            return false;
        }
        let stuck = self.is_execution_stuck();
        let newer = |op| {
            self.others()
                .any(|replica| self.peers[replica as usize].checkpoint_op > op)
        };
        let gone = !self.checkpoint.is_complete()
            && (self.sync.lacking.count() + 1 >= self.options.replica_count
                || self.now.monotonic_ns >= self.sync.moved_at_ns + SYNC_STUCK_NS);
        self.lagging || (stuck || gone) && newer(self.commit_min)
    }

    /// Whether the next op to execute has been missing for long.
    fn is_execution_stuck(&mut self) -> bool {
        let next = self.commit_min + 1;
        let missing = self.state_ready
            && next <= self.commit_max
            && (next > self.head.op || !self.is_chained() || self.journal.faulty(next).is_some());
        if !missing || self.sync.waiting.0 != next {
            self.sync.waiting = (if missing { next } else { 0 }, self.now.monotonic_ns);
        }
        missing && self.now.monotonic_ns >= self.sync.waiting.1 + REPAIR_STUCK_NS
    }

    /// A lower checkpoint would be no help.
    fn lowest_checkpoint_of_use(&self) -> u64 {
        let lowest = self.checkpoint_op.max(self.commit_min) + 1;
        let parked = self.parked.view.and(self.parked.headers.first());
        parked.map_or(lowest, |head| {
            lowest.max(head.op.saturating_sub(self.journal.slots()))
        })
    }

    fn next_nonce(&mut self) -> u64 {
        self.sync.nonce += 1;
        self.election.nonce.wrapping_add(self.sync.nonce)
    }

    /// Asks somebody for the newest checkpoint that a quorum has.
    pub(super) fn ask_for_record(&mut self, lowest: u64, effects: &mut Effects) {
        if self.now.monotonic_ns < self.sync.record_asked_until_ns {
            return;
        }
        self.sync.record_asked_until_ns = self.now.monotonic_ns + SYNC_RECORD_NS;
        self.timers.sync.set(self.now, SYNC_RECORD_NS);
        let mut ask: RequestPages = self.header();
        ask.checkpoint_op = lowest;
        ask.nonce = self.next_nonce();
        ask.kind = PageRequest::Record as u32;
        let peer = self.someone_to_ask();
        self.send_header(Peer::Replica(peer), &ask, effects);
    }

    pub(super) fn on_page(&mut self, from: u8, message: &Message, effects: &mut Effects) {
        let page = *message.header().typed::<Page>();
        if page.kind == PageRequest::Pages as u32 {
            self.take_pages(from, &page, message.body());
            return;
        }
        let record = CheckpointRecord::read_from_bytes(message.body()).expect("checked: its size");
        if !self.is_record_sound(&record) {
            self.metrics.ignored(Ignored::Implausible);
        } else if page.kind == PageRequest::Named as u32 {
            self.on_named_record(from, &record);
        } else if self.status == ReplicaStatus::Lost {
            self.on_record_for_lost(&record, effects);
        } else {
            self.on_record(&record, effects);
        }
    }

    /// Whether a record can be one of this cluster's.
    fn is_record_sound(&self, record: &CheckpointRecord) -> bool {
        let geometry = &self.layout.geometry;
        let prepare = &record.prepare;
        let checked = prepare
            .header()
            .check(self.options.cluster, geometry.message_size_max as usize);
        let own = self.superblock.working().checkpoint;
        let is_genesis = prepare.op == 0 && record.root == 0;
        checked.is_ok()
            && prepare.frame.command == <storage::header::Prepare as Typed>::COMMAND as u8
            && !prepare.is_reserved()
            && record.compute_id(self.fingerprint) == record.id
            && record.map == BlockReference::new_zeroed()
            && record.reserved == [0; 152]
            && (is_genesis || geometry.is_checkpoint(prepare.op) && record.root != 0)
            && (own.root == 0 || is_genesis || own.page_key == record.page_key)
            && record.pages_used <= u64::from(geometry.page_count())
    }

    /// Another replica offers a checkpoint: jumps to it, if that is of use.
    fn on_record(&mut self, record: &CheckpointRecord, effects: &mut Effects) {
        let op = record.prepare.op;
        let useful = self.wants_newer_checkpoint() && op >= self.lowest_checkpoint_of_use();
        if !useful || !self.checkpoint.can_fetch() {
            self.metrics.ignored(Ignored::Duplicate);
            return;
        }
        if self.parked.view.is_some() {
            // The log must begin within the new checkpoint's reach; otherwise a newer start_view is awaited.
            let head = self.parked.headers.first().map_or(0, |header| header.op);
            if !(op..=op + self.journal.slots()).contains(&head) {
                self.metrics.ignored(Ignored::Checkpoint);
                return;
            }
        } else if self
            .journal
            .header(op)
            .is_some_and(|header| op <= self.head.op && header != &record.prepare)
        {
            self.metrics.ignored(Ignored::Implausible);
            return;
        }
        self.begin_sync(record, effects);
    }

    /// Gives up the state that is here for that of a checkpoint.
    fn begin_sync(&mut self, record: &CheckpointRecord, effects: &mut Effects) {
        self.metrics.syncs += 1;
        let target = self.fetch_checkpoint(record);
        let sequence = if let Some(view) = self.parked.view {
            self.log_end.clear();
            self.log_end.extend_from_slice(&self.parked.headers);
            let commit_max = self.parked.commit_max;
            self.install(view, commit_max, Some(&target), effects)
        } else {
            self.superblock
                .update(|state, _| name_target(state, &target), &mut effects.io)
        };
        self.sync_is_named_by(sequence);
    }

    /// The superblock of this sequence names the target.
    pub(super) fn sync_is_named_by(&mut self, sequence: u64) {
        self.sync.naming = Some(sequence);
    }

    /// From now on the state is that of a checkpoint, as far as it is here. What the superblock must say of it.
    pub(super) fn fetch_checkpoint(&mut self, record: &CheckpointRecord) -> CheckpointRecord {
        self.state_ready = false;
        self.executing = None;
        self.sync.forget_asks();
        self.sync.lacking = ReplicaSet::default();
        self.asking.searches.forget_page();
        self.sync.moved_at_ns = self.now.monotonic_ns;
        self.sync.written = self.checkpoint.fetch_progress().pages_fetched;
        self.checkpoint.fetch_start(record, self.engine.pages_mut());
        *self.checkpoint.fetch_target().expect("it was started")
    }

    /// A superblock is durable: if it is the one that names the target, the journal's window is the target's.
    pub(super) fn jump_if_named(&mut self) {
        let state = self.superblock.working();
        let (sequence, record) = (state.sequence, state.checkpoint);
        let named = self.sync.naming.take_if(|naming| sequence >= *naming);
        if named.is_none() {
            return;
        }
        self.sync.damaged = false; // that was another checkpoint; this one is being fetched
        let op = record.prepare.op;
        assert!(op >= self.checkpoint_op && self.executing.is_none());
        self.checkpoint_op = op;
        self.journal.set_checkpoint(op);
        self.stand_at_checkpoint();
        self.prepares.retain(|prepare| prepare.op > op);
        self.lagging = false;
        if self.head.op < op {
            self.head = Head::of(&record.prepare);
            let target = self.catch_up.target.max(op);
            self.catch_up.leave_view(op);
            self.catch_up.target = target;
        }
        if self.status == ReplicaStatus::Normal {
            self.rebuild_chain();
        }
    }

    /// What was executed last is what the superblock's checkpoint says.
    pub(super) fn stand_at_checkpoint(&mut self) {
        let prepare = self.superblock.working().checkpoint.prepare;
        self.commit_min = prepare.op;
        self.commit_checksum = prepare.frame.checksum;
        let last = u64::from(prepare.requests).saturating_sub(1);
        self.commit_timestamp = prepare.timestamp + last;
        self.commit_max = self.commit_max.max(prepare.op);
    }

    /// What did not come in time will be asked for again.
    fn expire_asks(&mut self) {
        for index in 0..SYNC_ASKS_MAX {
            let ask = &mut self.sync.asks[index];
            if ask.references.is_empty() || self.now.monotonic_ns < ask.deadline_ns {
                continue;
            }
            let to = ask.to;
            self.checkpoint.fetch_retry(&ask.references);
            ask.references.clear();
            if self.is_nobody_left_to_ask(to) {
                self.sync.silent = ReplicaSet::default();
                self.sync.lacking = ReplicaSet::default();
            }
            self.sync.silent.insert(to);
            self.sync.patience_ns = (2 * self.sync.patience_ns).min(SYNC_PATIENCE_MAX_NS);
        }
    }

    /// Whether all others but `except` are silent, or lack something: then they are asked by turns again, since who was silent
    /// may be back, and who lacked something may have got it.
    fn is_nobody_left_to_ask(&self, except: u8) -> bool {
        self.others().all(|replica| {
            replica == except
                || self.sync.silent.contains(replica)
                || self.sync.lacking.contains(replica)
        })
    }

    /// Asks for what is missing: each replica for some of it, in turns.
    fn ask_for_pages(&mut self, effects: &mut Effects) {
        if self.now.monotonic_ns < self.sync.paused_until_ns {
            return;
        }
        let capacity = page_capacity(self.layout.geometry.message_size_max as usize);
        let room = capacity.min(SYNC_PAGES_MAX);
        for index in 0..SYNC_ASKS_MAX {
            if !self.sync.asks[index].references.is_empty() {
                continue;
            }
            let Some(peer) = self.next_to_ask_for_pages() else {
                return;
            };
            let references = &mut self.sync.asks[index].references;
            self.checkpoint.fetch_wanted(references, room);
            if references.is_empty() {
                return;
            }
            self.send_ask(index, peer, effects);
        }
    }

    /// Somebody who is not being asked: by turns, those first who answer, and who have lacked nothing.
    fn next_to_ask_for_pages(&self) -> Option<u8> {
        let count = self.options.replica_count;
        let start = self.sync.turn + 1;
        let free = (0..count)
            .map(|step| (start + step) % count)
            .filter(|&replica| replica != self.options.replica && !self.sync.is_asked(replica));
        free.min_by_key(|&replica| {
            let silent = self.sync.silent.contains(replica);
            2 * u8::from(silent) + u8::from(self.sync.lacking.contains(replica))
        })
    }

    fn send_ask(&mut self, index: usize, to: u8, effects: &mut Effects) {
        let nonce = self.next_nonce();
        self.sync.turn = to;
        let ask = &mut self.sync.asks[index];
        (ask.to, ask.nonce) = (to, nonce);
        ask.deadline_ns = self.now.monotonic_ns + self.sync.patience_ns;
        let message = self.pages_request(&self.sync.asks[index].references, nonce);
        match message {
            Some(message) => effects.send(Peer::Replica(to), message),
            None => self.metrics.ignored(Ignored::NoBuffer), // asked for again when its time is over
        }
    }

    /// A question for pages.
    pub(super) fn pages_request(
        &self,
        references: &[PageReference],
        nonce: u64,
    ) -> Option<SharedMessage> {
        let size = HEADER_SIZE + size_of_val(references);
        let mut header: RequestPages = self.header();
        header.frame.size = size as u32;
        header.nonce = nonce;
        header.kind = PageRequest::Pages as u32;
        header.count = references.len() as u32;
        let mut message = self.buffer_for(size)?;
        message.set_header(&header);
        message.body_mut().copy_from_slice(references.as_bytes());
        Some(message.seal())
    }

    fn take_pages(&mut self, from: u8, page: &Page, body: &[u8]) {
        let count = page.count as usize;
        let (references, contents) = body.split_at(count * size_of::<PageReference>());
        let references = references
            .chunks_exact(size_of::<PageReference>())
            .map(|bytes| PageReference::read_from_bytes(bytes).expect("its size"));
        let mut taken = 0;
        for (reference, content) in references.zip(contents.chunks_exact(PAGE_SIZE)) {
            if self.divergence.is_found() {
                self.compare_page(&reference, content);
                continue;
            }
            let pages = self.engine.pages_mut();
            let check = R::CHECK_FETCHED_PAGES;
            match self
                .checkpoint
                .fetch_take(&reference, content, check, pages)
            {
                Taken::Taken => taken += 1,
                Taken::Bad => self.metrics.ignored(Ignored::Implausible),
                Taken::NotWanted => self.metrics.ignored(Ignored::Duplicate),
            }
        }
        let progress = self.checkpoint.fetch_progress();
        self.metrics.pages_fetched = progress.pages_fetched;
        self.metrics.sync_bytes = progress.bytes_received();
        if taken > 0 {
            self.sync.moved_at_ns = self.now.monotonic_ns;
            self.sync.patience_ns = (self.sync.patience_ns / 2).max(SYNC_PATIENCE_NS);
        }
        let answered = |ask: &Ask| ask.to == from && ask.nonce == page.nonce;
        self.sync.silent.remove(from);
        if let Some(index) = self.sync.asks.iter().position(answered) {
            let mut references = std::mem::take(&mut self.sync.asks[index].references);
            if taken < references.len() {
                self.sync.lacking.insert(from);
                self.note_lacking_pages(from, &references);
            }
            self.checkpoint.fetch_retry(&references);
            references.clear();
            self.sync.asks[index].references = references;
            if taken == 0 {
                // It will not have it in a millisecond either.
                self.sync.paused_until_ns = self.now.monotonic_ns + SYNC_TICK_NS;
                if self.is_nobody_left_to_ask(from) {
                    self.sync.silent = ReplicaSet::default();
                }
            }
        }
    }

    /// Writes what was fetched so far, now and then.
    fn write_fetched(&mut self, effects: &mut Effects) {
        let fetched = self.checkpoint.fetch_progress().pages_fetched;
        if fetched >= self.sync.written + SYNC_WRITE_PAGES && self.checkpoint.can_rewrite() {
            self.sync.written = fetched;
            self.write_checkpoint_anew(effects);
        }
    }

    pub(super) fn write_checkpoint_anew(&mut self, effects: &mut Effects) {
        let fingerprint = self.fingerprint;
        self.checkpoint
            .begin_rewrite(self.engine.pages_mut(), fingerprint);
        self.checkpointing.began_ns = self.now.monotonic_ns;
        self.pump_checkpoint(effects);
    }

    /// All pages are here: executes on, and writes them.
    fn finish_sync(&mut self, effects: &mut Effects) {
        if !self.checkpoint.fetch_finish(self.engine.pages_mut()) {
            let op = self.checkpoint_op;
            effects.halt = Some(Fatal::State { op });
            return;
        }
        assert_eq!(self.commit_min, self.checkpoint.record().prepare.op);
        self.engine.reopened();
        self.state_ready = true;
        self.execution_pending = true;
        self.metrics.pages_differing = self.checkpoint.fetch_progress().pages_differing;
        self.write_checkpoint_anew(effects);
    }
}
