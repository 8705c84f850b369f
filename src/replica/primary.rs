//! The primary's side of normal operation: requests, batches, prepares and their acknowledgements.

use super::{Effects, Head, Ignored, Peer, Replica};
use crate::constants;
use crate::engine::operation;
use crate::machines::Machines;
use crate::rules::Rules;
use rand_xoshiro::rand_core::Rng;
use storage::SECTOR_SIZE;
use storage::buffer::{Message, SharedMessage};
use storage::header::{
    HEADER_SIZE, Prepare, PrepareKind, PrepareOk, Rejected, Rejection, ReplicaStatus, Request,
    SUB_HEADER_SIZE, SubHeader, SubRequest, sub_request,
};
use zerocopy::IntoBytes;

/// A request on its way: which one, and who waits for the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlightRequest {
    pub(super) request: u32,
    pub(super) origin: Peer,
}

impl Default for InFlightRequest {
    fn default() -> Self {
        Self {
            request: 0,
            origin: Peer::Replica(0),
        }
    }
}

/// The one request in a client's message; none if the message is not exactly that.
fn request_of(message: &Message) -> Option<SubRequest<'_>> {
    let header = message.header().typed::<Request>();
    let (request, end) = sub_request(message.body(), 0).ok()?;
    let same = request.header.client == header.client && request.header.request == header.request;
    (same && end == message.body().len()).then_some(request)
}

impl<M: Machines, R: Rules> Replica<M, R> {
    pub(super) fn on_request(&mut self, from: Peer, message: Message, effects: &mut Effects) {
        let (client, number) = {
            let header = message.header().typed::<Request>();
            (header.client, header.request)
        };
        match self.take_request(from, message, effects) {
            Ok(()) => {}
            Err(reason) => {
                let mut rejected: Rejected = self.header();
                (rejected.client, rejected.request) = (client, number);
                rejected.reason = reason as u16;
                rejected.hint = self.primary();
                self.metrics.rejected += 1;
                self.send_header(from, &rejected, effects);
            }
        }
    }

    fn take_request(
        &mut self,
        from: Peer,
        message: Message,
        effects: &mut Effects,
    ) -> Result<(), Rejection> {
        if !matches!(self.status, ReplicaStatus::Normal) || !self.state_ready {
            return Err(Rejection::NotReady);
        }
        let request = request_of(&message).ok_or(Rejection::Invalid)?;
        let sub = *request.header;
        let planned = self
            .engine
            .validate(sub.operation, request.body)
            .ok_or(Rejection::UnknownOperation)?;
        let plan = planned.map_err(|_| Rejection::Invalid)?;
        if plan.read_only {
            return if self.is_primary() {
                self.take_read(from, message, plan.reply_size)
            } else {
                Err(Rejection::NotPrimary)
            };
        }
        if sub.operation != operation::REGISTER {
            // The number 0 would be taken for one that is executed already. Without a session it is a change that was
            // submitted as a read, and its client has none that could be evicted.
            if sub.request == 0 || sub.session == 0 {
                return Err(Rejection::Invalid);
            }
            match self.engine.session(sub.client) {
                Some(session) if session.session == sub.session => {
                    if sub.request == session.request {
                        // Executed: any replica may say so, for it was committed.
                        self.resend_reply(from, &sub, effects);
                        return Ok(());
                    }
                    if sub.request < session.request {
                        self.metrics.ignored(Ignored::Duplicate);
                        return Ok(());
                    }
                }
                _ if !self.is_primary() => return Err(Rejection::NotPrimary),
                // Not in the committed table: that may be said only under the conditions of a read.
                _ => return self.take_eviction(from, message),
            }
        }
        if !self.is_primary() {
            return Err(Rejection::NotPrimary);
        }
        self.gather(from, &sub, message)
    }

    fn gather(&mut self, from: Peer, sub: &SubHeader, message: Message) -> Result<(), Rejection> {
        if let Some(known) = self.requests.get_mut(sub.client) {
            // One request of a client at a time. A copy of it only tells us where the client is now.
            if known.request == sub.request {
                known.origin = from;
                self.metrics.ignored(Ignored::Duplicate);
                return Ok(());
            }
            return Err(Rejection::Busy);
        }
        if self.requests.is_full() || self.gathered.len() == self.gathered.capacity() {
            return Err(Rejection::Busy);
        }
        self.requests.insert(
            sub.client,
            InFlightRequest {
                request: sub.request,
                origin: from,
            },
        );
        self.gathered.push_back(message);
        Ok(())
    }

    pub(super) fn has_gathered_work(&self) -> bool {
        !self.gathered.is_empty()
            && self.may_prepare()
            && self.pipeline_free() > 0
            && self.journal.can_append(self.head.op + 1)
    }

    /// Whether this replica may add to the log: as primary, once all that it inherited is executed.
    pub(super) fn may_prepare(&self) -> bool {
        self.is_primary() && self.state_ready && self.commit_min >= self.inherited
    }

    /// Places in the pipeline.
    fn pipeline_free(&self) -> u64 {
        u64::from(self.layout.geometry.pipeline_max).saturating_sub(self.head.op - self.commit_min)
    }

    /// Prepares what was gathered, as far as the pipeline has places. While it has more than one, a batch closes at the
    /// sector boundary, so that it costs one write before the acknowledgement; the last place takes all that fits.
    pub(super) fn prepare_gathered(&mut self, effects: &mut Effects) {
        if !self.may_prepare() {
            return;
        }
        if self.head.op == 0 {
            self.prepare_begin(effects);
            if self.head.op == 0 {
                return; // nothing may come before it
            }
        }
        self.prepare_pulse_if_due(effects);
        while self.has_gathered_work() {
            let sizes_max = if self.pipeline_free() > 1 {
                SECTOR_SIZE
            } else {
                self.layout.geometry.message_size_max as usize
            };
            let (count, size) = self.batch(sizes_max);
            let Some(message) = self.batch_message(count, size) else {
                return;
            };
            self.prepare(message, count as u32, effects);
        }
    }

    /// How many of the gathered requests go into a batch of at most `size_max` bytes (at least one does), and the size
    /// of the message they make.
    fn batch(&self, size_max: usize) -> (usize, usize) {
        let mut size = HEADER_SIZE;
        let mut count = 0;
        for request in self.gathered.iter().take(constants::EXECUTE_PER_TURN_MAX) {
            let next = size + request.body().len();
            if count > 0 && next > size_max {
                break;
            }
            (size, count) = (next, count + 1);
        }
        (count, size)
    }

    /// A request alone becomes a prepare in the buffer it arrived in; several are copied once.
    fn batch_message(&mut self, count: usize, size: usize) -> Option<Message> {
        if count == 1 {
            return self.gathered.pop_front();
        }
        let Some(mut message) = self.buffer_for(size) else {
            // No buffer to copy into: one request needs none, and the rest follows when buffers come back.
            return self.gathered.pop_front();
        };
        let mut at = HEADER_SIZE;
        for request in self.gathered.drain(..count) {
            let body = request.body();
            message.buffer_mut()[at..at + body.len()].copy_from_slice(body);
            at += body.len();
        }
        assert_eq!(at, size);
        let mut header: Prepare = self.header();
        header.frame.size = size as u32;
        message.set_header(&header);
        Some(message)
    }

    /// The first op of a cluster carries the key of its page tags.
    fn prepare_begin(&mut self, effects: &mut Effects) {
        let mut key = [0; 16];
        self.prng.fill_bytes(&mut key);
        key[0] |= 1; // never the zero key, which means "none"
        self.prepare_internal(operation::BEGIN, &key, effects);
    }

    /// One pulse at a time: until it is executed, nobody knows what will be due after it. Under load it takes its place
    /// in the pipeline before what has gathered: else things would expire only when a cluster is idle.
    fn prepare_pulse_if_due(&mut self, effects: &mut Effects) {
        let in_flight = self.pulse_op > self.commit_min;
        if !in_flight && self.is_pulse_due(self.timestamp_next()) {
            let head_op = self.head.op;
            self.prepare_internal(operation::PULSE, &[], effects);
            if self.head.op > head_op {
                self.pulse_op = self.head.op;
            }
        }
    }

    /// Whether a machine's deadline has passed at `time_ns`.
    pub(super) fn is_pulse_due(&self, time_ns: u64) -> bool {
        self.engine
            .deadline_ns()
            .is_some_and(|deadline_ns| deadline_ns <= time_ns)
    }

    pub(super) fn prepare_internal(&mut self, operation: u16, body: &[u8], effects: &mut Effects) {
        let sub = SubHeader {
            client: 0,
            session: 0,
            request: 0,
            size: body.len() as u32,
            operation,
            reserved: [0; 14],
        };
        if self.pipeline_free() == 0 || !self.journal.can_append(self.head.op + 1) {
            return;
        }
        let Some(mut message) = self.small.take() else {
            return;
        };
        let mut header: Prepare = self.header();
        header.frame.size = (HEADER_SIZE + sub.padded_size()) as u32;
        message.set_header(&header);
        let target = message.body_mut();
        target.fill(0);
        target[..SUB_HEADER_SIZE].copy_from_slice(sub.as_bytes());
        target[SUB_HEADER_SIZE..][..body.len()].copy_from_slice(body);
        self.prepare(message, 1, effects);
    }

    /// The time that the next prepare would get: what the cluster agrees on, but always after the last prepare's.
    pub(super) fn timestamp_next(&self) -> u64 {
        let agreed_ns = self.clock.realtime_ns(self.now);
        agreed_ns.max(self.head.timestamp_next)
    }

    /// Gives the batch in `message` its place in the log, journals it and sends it to all.
    fn prepare(&mut self, mut message: Message, requests: u32, effects: &mut Effects) {
        let size = message.header().frame.size;
        let mut header: Prepare = self.header();
        assert_eq!(header.frame.view, self.view);
        header.frame.size = size;
        header.parent = self.head.checksum;
        header.op = self.head.op + 1;
        header.commit = self.commit_max;
        header.timestamp = self.timestamp_next();
        header.round = self.reads.round_begun;
        header.requests = requests;
        header.kind = PrepareKind::Batch as u32;
        message.set_header(&header);
        let message = message.seal();
        self.metrics.prepared(requests, message.bytes().len());
        self.append(message.clone(), effects);
        assert!(
            self.prepares.get(self.head.op).is_some(),
            "the pipeline has a place for each prepare in flight"
        );
        self.reads.round_sent = self.reads.round_begun;
        self.timers.heartbeat.set(self.now, constants::HEARTBEAT_NS);
        if self.head.op == self.commit_max + 1 {
            self.timers
                .resend
                .set(self.now, constants::PREPARE_RESEND_NS);
        }
        self.broadcast(&message, effects);
    }

    /// Adds a prepare at the head of the log.
    pub(super) fn append(&mut self, message: SharedMessage, effects: &mut Effects) {
        let prepare = *message.header().typed::<Prepare>();
        assert_eq!(prepare.op, self.head.op + 1);
        assert_eq!(prepare.parent, self.head.checksum);
        assert!(prepare.timestamp >= self.head.timestamp_next);
        self.head = Head::of(&prepare);
        self.prepares.insert(message.clone());
        self.journal.append(message, &mut effects.io);
        self.timers.flush.set(self.now, constants::JOURNAL_FLUSH_NS);
    }

    pub(super) fn on_prepare_ok(&mut self, from: u8, ok: &PrepareOk, effects: &mut Effects) {
        if !self.is_primary() || ok.frame.view != self.view || ok.round > self.reads.round_begun {
            self.metrics.ignored(Ignored::OtherView);
            return;
        }
        let now_ns = self.now.monotonic_ns;
        let peer = &mut self.peers[from as usize];
        peer.remembered.hear_acknowledgement(ok);
        peer.on_progress(ok.commit_min, ok.checkpoint_op, ok.round);
        peer.heard_ns = now_ns;
        self.hear_checkpoint(from, ok.checkpoint_op, ok.checkpoint_id, effects);
        let entry = self.prepares.get(ok.op);
        if entry.is_some_and(|entry| entry.prepare().frame.checksum == ok.prepare) {
            self.count_ack(ok.op, from, ok.checkpoint_op, ok.checkpoint_id);
        } else {
            self.metrics.ignored(Ignored::Duplicate);
        }
    }

    /// Counts an acknowledgement. Beyond the reach of the last checkpoint it proves that the next one is durable where it
    /// comes from; those that name that very checkpoint must name one and the same, so that a commit proves equal
    /// checkpoints on a quorum.
    pub(super) fn count_ack(&mut self, op: u64, from: u8, checkpoint_op: u64, checkpoint_id: u128) {
        let required = self.checkpoint_required(op);
        let entry = self.prepares.get_mut(op).expect("looked up by the caller");
        let names_it = checkpoint_op == required && required > 0;
        if checkpoint_op < required
            || names_it && ![0, checkpoint_id].contains(&entry.checkpoint_id)
        {
            self.metrics.ignored(Ignored::Checkpoint);
            return;
        }
        if names_it {
            entry.checkpoint_id = checkpoint_id;
        }
        if !R::COUNT_EACH_ONCE && entry.acks.contains(from) {
            entry.repeated += 1;
        }
        entry.acks.insert(from);
    }

    /// Sends the prepares that lack acknowledgements again, to those who have not acknowledged them.
    pub(super) fn resend_prepares(&mut self, effects: &mut Effects) {
        let oldest = self.commit_max + 1;
        for op in oldest..=self.head.op {
            let Some(entry) = self.prepares.get(op) else {
                continue;
            };
            let (acks, message) = (entry.acks, entry.message.clone());
            if op > oldest + 1 && acks.count() > 0 {
                continue; // it is on its way; the oldest two are what everybody waits for
            }
            for replica in self.others().filter(|&replica| !acks.contains(replica)) {
                effects.send(Peer::Replica(replica), message.clone());
                self.metrics.prepares_resent += 1;
            }
        }
    }
}

static_assertions::const_assert!(
    size_of::<Request>() == HEADER_SIZE && size_of::<Prepare>() == HEADER_SIZE
);
