//! A backup that was away fetches what it missed, from whoever has it; and any replica serves.
//!
//! Identities come from the primary of the view only (`headers`, contiguous from our head and chained to it), so a
//! prepare that matches one may come from anybody. Nothing here changes what the log is: a fetched prepare is appended
//! exactly as one that the primary sent.

use super::{Effects, Ignored, Peer, Replica};
use crate::constants::{REPAIR_HEADERS_MAX, REPAIR_NS, REPAIR_PREPARES_MAX, SERVE_READS_MAX};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::buffer::{Message, SharedMessage};
use storage::header::{
    HEADER_SIZE, Header, Headers, Prepare, ReplicaStatus, RequestHeaders, RequestPrepare,
};
use zerocopy::{FromBytes, IntoBytes};

/// What is wanted, and what has been asked for.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// The primary's head, as far as we heard.
    pub(super) target: u64,
    /// Headers of the ops after our head, in order and without gaps; those at or below the head are passed.
    wanted: Vec<Prepare>,
    /// Fetched prepares that wait for the ones before them.
    fetched: [Option<SharedMessage>; REPAIR_PREPARES_MAX],
    /// Nothing is asked for again before this time.
    asked_until_ns: u64,
    /// Prepares up to this op were asked for.
    asked_op: u64,
    /// Headers were asked for, and have not come.
    headers_asked: bool,
}

impl CatchUp {
    pub(super) fn new() -> Self {
        Self {
            target: 0,
            wanted: Vec::with_capacity(REPAIR_HEADERS_MAX),
            fetched: std::array::from_fn(|_| None),
            asked_until_ns: 0,
            asked_op: 0,
            headers_asked: false,
        }
    }

    fn wanted(&self, op: u64) -> Option<&Prepare> {
        let first = self.wanted.first()?.op;
        self.wanted.get(op.checked_sub(first)? as usize)
    }

    fn is_fetched(&self, op: u64, checksum: u128) -> bool {
        let place = self.fetched[op as usize % REPAIR_PREPARES_MAX].as_ref();
        place.is_some_and(|message| message.header().frame.checksum == checksum)
    }

    /// The view is left: what was learnt of its log above the head is forgotten.
    pub(super) fn leave_view(&mut self, head_op: u64) {
        self.target = head_op;
        self.wanted.clear();
        self.fetched.iter_mut().for_each(|place| *place = None);
        self.asked_until_ns = 0;
        self.asked_op = 0;
        self.headers_asked = false;
    }

    /// Gives back the buffers of fetched prepares up to `op`: none of them is the next.
    fn drop_passed(&mut self, op: u64) {
        let passed = |message: &SharedMessage| message.header().typed::<Prepare>().op <= op;
        for place in &mut self.fetched {
            let _ = place.take_if(|message| passed(message));
        }
    }
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Asks for what is missing, if something is: on every progress for more, and after a while for the same again.
    pub(super) fn catch_up(&mut self, effects: &mut Effects) {
        if !self.is_backup() {
            return;
        }
        if self.now.monotonic_ns >= self.catch_up.asked_until_ns {
            // What was asked for and did not come is lost.
            self.asking.unanswered |= self.catch_up.asked_op > self.head.op;
            self.catch_up.asked_op = self.head.op;
            self.catch_up.headers_asked = false;
        }
        let behind = self.catch_up.target > self.head.op;
        if !behind || !self.journal.can_append(self.head.op + 1) {
            return;
        }
        let chained = |next: &Prepare| next.parent == self.head.checksum;
        if self.catch_up.wanted(self.head.op + 1).is_some_and(chained) {
            self.ask_for_prepares(effects);
        } else {
            self.catch_up.wanted.clear();
        }
        // The next identities are asked for before the last are used up, so that there is always something to ask for.
        let known = self
            .catch_up
            .wanted
            .last()
            .map_or(self.head.op, |last| last.op);
        let soon = known < self.head.op + REPAIR_PREPARES_MAX as u64;
        if soon && known < self.catch_up.target && !self.catch_up.headers_asked {
            self.ask_for_headers(effects);
        }
    }

    fn asked(&mut self) {
        self.catch_up.asked_until_ns = self.now.monotonic_ns + REPAIR_NS;
        self.timers.repair.set(self.now, REPAIR_NS);
    }

    /// Headers in one answer: a small geometry's messages hold fewer than are useful. Nobody asks for more, since the answer
    /// would leave out the highest, which whoever goes down the chain needs first.
    pub(super) fn headers_max(&self) -> usize {
        let message_max = self.layout.geometry.message_size_max as usize / HEADER_SIZE - 1;
        REPAIR_HEADERS_MAX.min(message_max)
    }

    fn ask_for_headers(&mut self, effects: &mut Effects) {
        let mut ask: RequestHeaders = self.header();
        ask.op_min = self.head.op + 1;
        ask.op_max = self
            .catch_up
            .target
            .min(self.head.op + self.headers_max() as u64);
        let primary = self.primary();
        self.send_header(Peer::Replica(primary), &ask, effects);
        self.catch_up.headers_asked = true;
        self.asked();
    }

    fn ask_for_prepares(&mut self, effects: &mut Effects) {
        let first = self.head.op.max(self.catch_up.asked_op) + 1;
        for op in first..=self.head.op + REPAIR_PREPARES_MAX as u64 {
            let Some(wanted) = self.catch_up.wanted(op) else {
                break;
            };
            let checksum = wanted.frame.checksum;
            self.catch_up.asked_op = op;
            if !self.catch_up.is_fetched(op, checksum) {
                self.ask_for_prepare(op, checksum, effects);
                self.asked();
            }
        }
    }

    pub(super) fn on_headers(&mut self, from: u8, message: &Message) {
        if self.status != ReplicaStatus::Normal {
            self.metrics.ignored(Ignored::OtherView);
            return;
        }
        // Above the head only the primary of this view can tell what the log is.
        let from_primary = self.is_backup() && self.is_from_primary(from, message.header());
        if from_primary {
            self.catch_up.wanted.clear();
        }
        let mut parent = self.head.checksum;
        // Highest op first on the wire.
        for bytes in message
            .body()
            .rchunks_exact(HEADER_SIZE)
            .take(REPAIR_HEADERS_MAX)
        {
            let header = Header::ref_from_bytes(bytes).expect("256 aligned bytes");
            let known = header.check(
                self.options.cluster,
                self.layout.geometry.message_size_max as usize,
            );
            let Some(&prepare) = header.try_typed::<Prepare>().filter(|_| known.is_ok()) else {
                break;
            };
            if !self.is_believable(&prepare) {
                self.metrics.ignored(Ignored::Implausible);
                break;
            }
            if prepare.op <= self.head.op {
                continue;
            }
            if !from_primary {
                break;
            }
            let op = self.head.op + 1 + self.catch_up.wanted.len() as u64;
            if prepare.op != op || prepare.parent != parent {
                break;
            }
            parent = prepare.frame.checksum;
            self.catch_up.wanted.push(prepare);
        }
        if from_primary && !self.catch_up.wanted.is_empty() {
            // Otherwise the primary has nothing (any more) that follows our head: asking at once would get the same.
            self.catch_up.headers_asked = false;
        }
        // At and below the head, down the chain.
        let size_max = self.layout.geometry.message_size_max as usize;
        let cluster = self.options.cluster;
        let sound = message
            .body()
            .chunks_exact(HEADER_SIZE)
            .filter_map(|bytes| {
                let header = Header::ref_from_bytes(bytes).expect("256 aligned bytes");
                let known = header.check(cluster, size_max);
                header.try_typed::<Prepare>().filter(|_| known.is_ok())
            });
        self.take_headers(sound);
    }

    /// A prepare beyond the one after the head: kept if it is near, and the primary's of this view or one we asked for.
    /// Those that the primary sends while we catch up need not be fetched again when we are there.
    pub(super) fn on_fetched_prepare(
        &mut self,
        message: SharedMessage,
        prepare: &Prepare,
        in_view: bool,
        effects: &mut Effects,
    ) {
        let wanted = self
            .catch_up
            .wanted(prepare.op)
            .is_some_and(|wanted| wanted == prepare);
        if !wanted && !in_view || prepare.op > self.head.op + REPAIR_PREPARES_MAX as u64 {
            self.metrics.ignored(Ignored::Gap);
            return;
        }
        self.catch_up.fetched[prepare.op as usize % REPAIR_PREPARES_MAX] = Some(message);
        self.append_fetched(effects);
    }

    /// Appends fetched prepares, as far as they follow the head without a gap.
    pub(super) fn append_fetched(&mut self, effects: &mut Effects) {
        loop {
            let op = self.head.op + 1;
            let place = op as usize % REPAIR_PREPARES_MAX;
            let fits = self.catch_up.fetched[place]
                .as_ref()
                .is_some_and(|message| {
                    let prepare = message.header().typed::<Prepare>();
                    prepare.op == op
                        && prepare.parent == self.head.checksum
                        && prepare.timestamp >= self.head.timestamp_next
                });
            if !fits {
                self.catch_up.drop_passed(op);
                return;
            }
            let message = self.catch_up.fetched[place]
                .take()
                .expect("looked at above");
            self.metrics.prepares_fetched += 1;
            self.asking.unanswered = false;
            if !self.append_if_room(message, effects) {
                return;
            }
        }
    }

    pub(super) fn on_request_headers(
        &mut self,
        from: u8,
        ask: &RequestHeaders,
        effects: &mut Effects,
    ) {
        let count = self.headers_max();
        let op_max = ask
            .op_max
            .min(ask.op_min.saturating_add(count as u64 - 1))
            .min(self.head.op);
        let size = HEADER_SIZE * (1 + count);
        let Some(mut message) = self.buffer_for(size) else {
            return;
        };
        let mut at = HEADER_SIZE;
        for op in (ask.op_min..=op_max).rev() {
            let Some(header) = self.journal.header(op) else {
                continue;
            };
            message.buffer_mut()[at..at + HEADER_SIZE].copy_from_slice(header.as_bytes());
            at += HEADER_SIZE;
        }
        if at == HEADER_SIZE {
            return; // nothing left of it here: its head will tell the asking replica that it lags
        }
        let mut header: Headers = self.header();
        header.frame.size = at as u32;
        message.set_header(&header);
        effects.send(Peer::Replica(from), message.seal());
    }

    pub(super) fn on_request_prepare(
        &mut self,
        from: u8,
        ask: RequestPrepare,
        effects: &mut Effects,
    ) {
        if let Some(entry) = self
            .prepares
            .get(ask.op)
            .filter(|entry| entry.prepare().frame.checksum == ask.prepare)
        {
            effects.send(Peer::Replica(from), entry.message.clone());
            return;
        }
        // By identity alone: of what lies below a damaged slot at the checkpoint the chain says nothing here any more, and
        // it may be the last copy.
        let Some(size) = self.journal.size_of(ask.op, ask.prepare) else {
            self.metrics.ignored(Ignored::NotHere);
            self.send_no_prepare(from, &ask, effects);
            return;
        };
        if self.serving_reads >= SERVE_READS_MAX {
            self.metrics.ignored(Ignored::NoRoom);
            return;
        }
        let Some(buffer) = self.buffer_for(size) else {
            return;
        };
        // If the journal cannot read now, the request is lost, as any message may be.
        if self
            .journal
            .read(
                ask.op,
                ask.prepare,
                buffer,
                u64::from(from),
                &mut effects.io,
            )
            .is_ok()
        {
            self.serving_reads += 1;
        }
    }
}
