//! Committing and executing: in op order, resumable between the requests of a batch, and the checkpoints that follow.

use super::{Effects, Fatal, Ignored, Peer, Replica};
use crate::constants::EXECUTE_PER_TURN_MAX;
use crate::engine::{Executed, ReplyOf};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::buffer::SharedMessage;
use storage::checkpoint::{CheckpointEvent, CheckpointStart};
use storage::header::{Eviction, HEADER_SIZE, Prepare, Reply, SubHeader, sub_request};
use storage::io::{IoDone, IoError};
use storage::journal::JournalEvent;
use storage::superblock::{CheckpointRecord, SuperblockEvent};
use zerocopy::FromZeros;

/// A prepare whose requests are being executed.
#[derive(Debug)]
pub(super) struct Executing {
    message: SharedMessage,
    /// Where the next request is in the body, and its index.
    offset: usize,
    index: u32,
}

impl Executing {
    /// Its op and identity.
    pub(super) fn name(&self) -> (u64, u128) {
        let prepare: &Prepare = self.message.header().typed();
        (prepare.op, prepare.frame.checksum)
    }
}

/// Ops whose prepares are being read back from the journal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReadingBack {
    /// To be executed.
    pub(super) to_execute: Option<u64>,
    /// Inherited, to be acknowledged in this view.
    pub(super) to_inherit: Option<u64>,
}

/// The checkpoint that is being written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checkpointing {
    /// When it began, on the monotonic clock.
    pub(super) began_ns: u64,
    /// The writer has more to do at once.
    pub(super) pending: bool,
}

/// Who a prepare is read back for: what the journal hands back with it.
pub(super) const READ_TO_EXECUTE: u64 = u64::MAX;

/// As [`READ_TO_EXECUTE`]: by a new primary, to have it acknowledged in its view.
pub(super) const READ_TO_INHERIT: u64 = u64::MAX - 1;

/// As [`READ_TO_EXECUTE`]: to see that it can still be read.
pub(super) const READ_TO_SCRUB: u64 = u64::MAX - 2;

/// How far [`Replica::execute`] got with one op.
enum Step {
    /// The op is executed.
    Done,
    /// The turn's bound is reached.
    Bound,
    /// It waits for the disk.
    Blocked,
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// On the primary: an op is committed once a replication quorum holds it durably, and all before it are committed.
    pub(super) fn advance_commit(&mut self) {
        if !self.is_primary() {
            return;
        }
        let before = self.commit_max;
        while let Some(entry) = self.prepares.get(self.commit_max + 1) {
            assert!(entry.acks.count() <= self.options.replica_count);
            let needed = self.quorums.replication - u8::from(!R::WHOLE_REPLICATION_QUORUM);
            if entry.acks.count() + entry.repeated < needed {
                break;
            }
            self.commit_max += 1;
        }
        if self.commit_max > before {
            self.timers
                .resend
                .set(self.now, crate::constants::PREPARE_RESEND_NS);
        }
        if self.commit_max == self.head.op {
            self.timers.resend.clear();
        }
    }

    /// Executes what is committed, up to the turn's bound.
    pub(super) fn execute(&mut self, effects: &mut Effects) {
        self.execution_pending = false;
        self.spares_wanted = false;
        if !self.state_ready || !self.is_chained() {
            return; // not before it is known what to execute, and on what
        }
        let mut budget = EXECUTE_PER_TURN_MAX;
        let committed = if R::EXECUTE_AWAITS_COMMIT {
            self.commit_max.min(self.head.op)
        } else {
            self.commit_max = self.head.op;
            self.head.op
        };
        while self.commit_min < committed {
            if self.executing.is_none() && !self.begin_executing(effects) {
                return;
            }
            match self.execute_op(&mut budget, effects) {
                Step::Done => self.executed(),
                Step::Bound => {
                    self.execution_pending = true;
                    return;
                }
                Step::Blocked => return,
            }
        }
    }

    /// Takes up the next op; false if it has to wait for the disk.
    fn begin_executing(&mut self, effects: &mut Effects) -> bool {
        let op = self.commit_min + 1;
        if self.layout.geometry.is_checkpoint(op) && self.checkpoint_busy() {
            return false; // one checkpoint at a time: the next state is not frozen before the last is durable
        }
        if !self.is_cached_of_log(op) {
            self.prepares.remove(op); // of a log that has been replaced since
            self.read_to_execute(op, effects);
            return false;
        }
        let entry = self.prepares.get(op).expect("looked up above");
        let prepare = entry.prepare();
        assert_eq!(
            prepare.parent, self.commit_checksum,
            "op {op} is not chained to the last executed one"
        );
        self.executing = Some(Executing {
            message: entry.message.clone(),
            offset: 0,
            index: 0,
        });
        true
    }

    /// Whether the prepare in memory is the one that the log has at this op.
    fn is_cached_of_log(&self, op: u64) -> bool {
        let cached = self.prepares.get(op);
        cached.is_some_and(|entry| self.is_of_log(entry.prepare()))
    }

    fn is_of_log(&self, prepare: &Prepare) -> bool {
        let header = self.journal.header(prepare.op);
        header.is_some_and(|header| header.frame.checksum == prepare.frame.checksum)
    }

    fn read_to_execute(&mut self, op: u64, effects: &mut Effects) {
        if self.reading_back.to_execute.is_some() {
            return;
        }
        let Some(header) = self.journal.header(op).copied() else {
            return;
        };
        let Some(buffer) = self.buffer_for(storage::sector_ceil(header.frame.size as usize)) else {
            return;
        };
        let read = self.journal.read(
            op,
            header.frame.checksum,
            buffer,
            READ_TO_EXECUTE,
            &mut effects.io,
        );
        if read.is_ok() {
            self.reading_back.to_execute = Some(op);
        }
    }

    fn execute_op(&mut self, budget: &mut usize, effects: &mut Effects) -> Step {
        let Executing {
            message,
            mut offset,
            mut index,
        } = self.executing.take().expect("begun above");
        let prepare = *message.header().typed::<Prepare>();
        assert_eq!(prepare.op, self.commit_min + 1);
        let mut step = Step::Done;
        while index < prepare.requests {
            if *budget == 0 {
                step = Step::Bound;
                break;
            }
            let (request, next) =
                sub_request(message.body(), offset).expect("the primary checked each request");
            if !self.engine.has_spares_for(request) {
                self.spares_wanted = true;
                step = Step::Blocked;
                break;
            }
            let sub = *request.header;
            let timestamp = prepare.timestamp + u64::from(index);
            let waited_for = self.is_waited_for(&sub);
            match self.engine.commit(prepare.op, index, timestamp, request) {
                // On a backup, that is of most requests, nobody waits, and a reply would be built for nothing.
                Executed::Reply(_) if !waited_for => {
                    self.take_waiting(&sub);
                }
                Executed::Reply(reply) => {
                    let reply = Self::reply_message(
                        &self.options,
                        self.view,
                        &self.answers,
                        &self.large,
                        &sub,
                        &reply,
                    );
                    self.answer(&sub, reply, effects);
                }
                Executed::Evicted => self.answer_evicted(&sub, effects),
                Executed::Stale => {
                    self.take_waiting(&sub);
                }
                Executed::Internal => {}
            }
            self.commit_timestamp = timestamp;
            *budget -= 1;
            (offset, index) = (next, index + 1);
        }
        self.executing = Some(Executing {
            message,
            offset,
            index,
        });
        step
    }

    /// All requests of an op are executed.
    fn executed(&mut self) {
        let message = self.executing.take().expect("executed above").message;
        let prepare = *message.header().typed::<Prepare>();
        self.commit_min = prepare.op;
        self.commit_checksum = prepare.frame.checksum;
        self.prepares.remove(prepare.op);
        self.metrics.executed(prepare.requests);
        if self.layout.geometry.is_checkpoint(prepare.op) {
            self.begin_checkpoint(prepare);
        }
    }

    /// Builds the reply to a request; none if no buffer is free: the client asks again, and gets the stored reply.
    fn reply_message(
        options: &super::ReplicaOptions,
        view: u32,
        small: &storage::buffer::MessagePool,
        large: &storage::buffer::MessagePool,
        sub: &SubHeader,
        reply: &ReplyOf<'_>,
    ) -> Option<SharedMessage> {
        let size = HEADER_SIZE + reply.body.len();
        let pool = if size <= small.message_size() {
            small
        } else {
            large
        };
        let mut message = pool.take()?;
        let mut header =
            <Reply as storage::header::Typed>::new(options.cluster, view, options.replica);
        header.frame.size = size as u32;
        header.client = sub.client;
        header.session = reply.session;
        header.op = reply.op;
        header.timestamp = reply.timestamp;
        header.request = sub.request;
        header.operation = sub.operation;
        header.status = reply.status as u16;
        message.set_header(&header);
        message.body_mut().copy_from_slice(reply.body);
        Some(message.seal())
    }

    /// Sends an executed request's reply to whoever waits for it here.
    fn answer(&mut self, sub: &SubHeader, reply: Option<SharedMessage>, effects: &mut Effects) {
        let Some(origin) = self.take_waiting(sub) else {
            return;
        };
        match reply {
            Some(reply) => effects.send(origin, reply),
            None => self.metrics.ignored(Ignored::NoBuffer),
        }
    }

    /// Executed in the log and found without a session: nothing can be surer, so the client is told at once.
    fn answer_evicted(&mut self, sub: &SubHeader, effects: &mut Effects) {
        if let Some(origin) = self.take_waiting(sub) {
            self.send_eviction(origin, sub, effects);
        }
    }

    /// Whether [`Self::take_waiting`] would name somebody. Nobody waits for the replica's own requests.
    fn is_waited_for(&self, sub: &SubHeader) -> bool {
        if !self.is_primary() || sub.client == 0 {
            return false;
        }
        let waiting = self.requests.get(sub.client);
        waiting.is_some_and(|it| it.request == sub.request)
    }

    /// Who waits here for the answer to exactly this request. The log may hold a request twice (a copy that came before a
    /// restart, and one after it): the client may have gone on to its next one when the second copy executes.
    fn take_waiting(&mut self, sub: &SubHeader) -> Option<Peer> {
        let waiting = *self.requests.get(sub.client)?;
        if waiting.request != sub.request {
            return None;
        }
        self.requests.remove(sub.client);
        self.is_primary().then_some(waiting.origin)
    }

    pub(super) fn send_eviction(&mut self, to: Peer, sub: &SubHeader, effects: &mut Effects) {
        let mut eviction: Eviction = self.header();
        eviction.client = sub.client;
        eviction.session = sub.session;
        eviction.request = sub.request;
        self.send_header(to, &eviction, effects);
    }

    /// Answers a client that asks again about its last request, which is executed.
    pub(super) fn resend_reply(&mut self, to: Peer, sub: &SubHeader, effects: &mut Effects) {
        let Some(reply) = self.engine.stored_reply(sub.client) else {
            return;
        };
        let reply = Self::reply_message(
            &self.options,
            self.view,
            &self.answers,
            &self.large,
            sub,
            &reply,
        );
        match reply {
            Some(reply) => effects.send(to, reply),
            None => self.metrics.ignored(Ignored::NoBuffer),
        }
    }

    fn checkpoint_busy(&self) -> bool {
        self.checkpoint.is_writing()
    }

    fn begin_checkpoint(&mut self, prepare: Prepare) {
        let key = self
            .engine
            .page_key()
            .expect("the first op sets the key, and is before every checkpoint");
        let lag = self.layout.geometry.checkpoint_lag();
        // Replicas take turns, so that a quorum is always undisturbed.
        let start_delay_ops =
            u64::from(self.options.replica) * lag / (2 * u64::from(self.options.replica_count));
        let start = CheckpointStart {
            prepare,
            key,
            fingerprint: self.fingerprint,
            start_delay_ops,
            deadline_op: prepare.op + lag,
        };
        self.engine.pages_mut().freeze();
        self.checkpoint.begin(self.engine.pages(), &start);
        self.checkpointing.began_ns = self.now.monotonic_ns;
        self.metrics.checkpoints += 1;
    }

    pub(super) fn pump_checkpoint(&mut self, effects: &mut Effects) {
        self.checkpointing.pending = false;
        if !self.checkpoint.is_writing() {
            return;
        }
        let elapsed = self.now.monotonic_ns - self.checkpointing.began_ns;
        let wanted = if self.spares_wanted {
            self.engine.spares_wanted()
        } else {
            0
        };
        let pages = self.engine.pages_mut();
        self.checkpointing.pending =
            self.checkpoint
                .pump(pages, self.commit_max, elapsed, wanted, &mut effects.io);
        if self.spares_wanted && self.engine.pages().spares_free() >= wanted {
            self.execution_pending = true;
        }
        match self.checkpoint.wake_ns() {
            Some(wake_ns) => self
                .timers
                .pump
                .set_at(self.checkpointing.began_ns + wake_ns),
            None => self.timers.pump.clear(),
        }
    }

    pub(super) fn on_checkpoint_io(
        &mut self,
        done: IoDone,
        effects: &mut Effects,
    ) -> Result<(), IoError> {
        match self
            .checkpoint
            .on_io_done(done, self.engine.pages_mut(), &mut effects.io)?
        {
            CheckpointEvent::None => {}
            CheckpointEvent::Opened => self.on_checkpoint_opened(effects),
            CheckpointEvent::Incomplete(damages) => {
                self.on_checkpoint_incomplete(damages, effects);
            }
            CheckpointEvent::Written(record) => self.on_checkpoint_written(&record, effects),
            CheckpointEvent::Served { token, page } => self.on_page_served(token, page, effects),
            CheckpointEvent::Scrubbed(found) => self.on_scrubbed(found, effects),
        }
        Ok(())
    }

    fn on_checkpoint_written(&mut self, record: &CheckpointRecord, effects: &mut Effects) {
        assert!(record.prepare.op <= self.commit_min);
        // What others say of ops that are not here is not recorded.
        let commit_max = self.commit_max.min(self.head.op);
        // Pages that are still being fetched are not in it.
        let syncing = u8::from(!self.checkpoint.is_complete());
        let whole = self.is_checkpoint_whole();
        let keeps_previous = self.checkpoint.keeps_previous(record);
        let sequence = self.superblock.update(
            |state, _| {
                let before = state.checkpoint;
                let anew = (before.prepare.op, before.id) == (record.prepare.op, record.id);
                if before.prepare.op < record.prepare.op && whole {
                    // What is executed beyond the one before is committed beyond its reach.
                    assert!(!keeps_previous, "op {}", before.prepare.op);
                    state.previous = before;
                    state.sync.quorum_op = state.sync.quorum_op.max(before.prepare.op);
                } else if !anew || !keeps_previous {
                    state.previous = CheckpointRecord::new_zeroed();
                }
                state.checkpoint = *record;
                state.sync.syncing = syncing;
                state.commit_max = state.commit_max.max(commit_max);
            },
            &mut effects.io,
        );
        self.written_checkpoint = Some(sequence);
    }

    /// The newest state of the superblock is durable.
    fn on_superblock_durable(&mut self, effects: &mut Effects) {
        if self.is_condemned() {
            self.end_if_condemned(effects);
            return;
        }
        let sequence = self.superblock.working().sequence;
        let written = self
            .written_checkpoint
            .take_if(|written| sequence >= *written);
        if written.is_some() {
            self.on_checkpoint_durable(effects);
        }
        self.jump_if_named();
        self.become_one_of_many_if_begun(effects);
        self.apply_durable_log(effects);
        self.vote_if_durable(effects);
        self.on_start_durable(effects);
    }

    /// The superblock names the checkpoint that was written last.
    fn on_checkpoint_durable(&mut self, effects: &mut Effects) {
        let record = self.superblock.working().checkpoint;
        assert!(record.prepare.op >= self.checkpoint_op);
        self.checkpoint.installed(&record);
        if self.checkpoint.is_complete() {
            self.sync.damaged = false;
        }
        self.checkpoint_op = record.prepare.op;
        self.journal.set_checkpoint(record.prepare.op);
        self.acknowledge_withheld(effects);
        self.execution_pending = true;
        self.look_for_divergence(effects);
    }

    pub(super) fn on_superblock_io(
        &mut self,
        done: IoDone,
        effects: &mut Effects,
    ) -> Result<(), IoError> {
        match self.superblock.on_io_done(done, &mut effects.io)? {
            None => {}
            Some(SuperblockEvent::Opened) => self.on_superblock_opened(effects),
            Some(SuperblockEvent::Refused(error)) => {
                effects.halt = Some(Fatal::DataFile(error.to_string()));
            }
            Some(SuperblockEvent::Durable) => self.on_superblock_durable(effects),
        }
        Ok(())
    }

    pub(super) fn on_journal_io(
        &mut self,
        done: IoDone,
        effects: &mut Effects,
    ) -> Result<(), IoError> {
        match self.journal.on_io_done(done, &mut effects.io)? {
            JournalEvent::None => {}
            JournalEvent::Opened(recovered) => self.on_journal_opened(recovered, effects),
            JournalEvent::Refused(error) => effects.halt = Some(Fatal::DataFile(error.to_string())),
            JournalEvent::Read {
                op,
                purpose: READ_TO_EXECUTE,
                message,
            } => self.on_read_to_execute(op, message, effects),
            JournalEvent::Read {
                op,
                purpose: READ_TO_SCRUB,
                message,
            } => self.on_journal_scrubbed(op, message.is_ok()),
            JournalEvent::Read {
                op,
                purpose: READ_TO_INHERIT,
                message,
            } => self.on_read_to_inherit(op, message, effects),
            JournalEvent::Read {
                purpose, message, ..
            } => {
                self.serving_reads -= 1;
                match message {
                    Ok(message) => effects.send(Peer::Replica(purpose as u8), message),
                    Err(_) => self.metrics.ignored(Ignored::NotHere),
                }
            }
        }
        Ok(())
    }

    fn on_read_to_execute(
        &mut self,
        op: u64,
        message: Result<SharedMessage, storage::buffer::Message>,
        effects: &mut Effects,
    ) {
        assert_eq!(self.reading_back.to_execute.take(), Some(op));
        if op != self.commit_min + 1 || self.executing.is_some() || !self.state_ready {
            return;
        }
        if let Ok(message) = message {
            let prepare = message.header().typed::<Prepare>();
            if !self.is_of_log(prepare) || !self.is_chained() {
                return; // read for a log that has been replaced since
            }
            assert_eq!(
                prepare.parent, self.commit_checksum,
                "op {op} is not chained to the last executed one"
            );
            self.executing = Some(Executing {
                message,
                offset: 0,
                index: 0,
            });
        } else if self.is_solo() {
            let slot = self.layout.slot(op);
            effects.halt = Some(Fatal::PrepareLost { op, slot });
        }
        // Among others the journal has marked the slot as faulty, and it is fetched from a peer.
        self.execution_pending = true;
    }
}
