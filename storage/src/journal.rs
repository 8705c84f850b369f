//! The journal: a ring of prepares, and a ring of their headers again, which tells a torn write from decay.
//!
//! A passive value: its owner hands it completions, and it puts requests into the owner's queue. What it promises:
//!
//! * A [`Durable`] comes out only for a prepare that recovery would find ([`crate::recovery`]).
//! * No slot that holds an op above the durable checkpoint is overwritten, except by another prepare of that op.
//! * A header enters its ring only after its own prepare is durable, and never a neighbour's with it.
//! * The header of an op acknowledged on one write is durable at the latest when an op [`lag_max`] later is
//!   acknowledged. In steady state one write of a header sector serves as many prepares as the pipeline holds, and no
//!   ack waits for it.
//!
//! It does not know where the log ends or what is committed: that is the replica's affair.

mod headers;
mod open;
mod rules;
mod survey;

#[cfg(test)]
mod disk;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use rules::{Rules, Strict};
pub use survey::{PrepareDamage, SlotSurvey, Survey, SurveyStart, survey};

use crate::bits::Bits;
use crate::buffer::{AlignedBuffer, Message, SharedMessage};
use crate::header::{HEADER_SIZE, Prepare, PrepareKind};
use crate::io::{Buffer, InFlight, IoDone, IoError, IoOwner, IoQueue, IoRequest};
use crate::layout::{HEADERS_PER_SECTOR, JournalAck, Layout, PIPELINE_MAX};
use crate::recovery::{Refusal, Slot, State, lag_max};
use crate::{SECTOR_SIZE, sector_ceil};
use open::Opening;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

/// Reads of prepares in flight, at most.
pub const READS_MAX: usize = 28;

/// Writes of header sectors in flight, at most: the sectors that a pipeline touches, and a few for repair.
pub const HEADER_WRITES_MAX: usize = 4;

/// Writes of prepares in flight, at most: a pipeline of new ones, and as many that are repaired.
pub const fn prepare_writes_max(layout: &Layout) -> usize {
    2 * layout.geometry.pipeline_max as usize
}

/// I/O that the journal may have in flight, in all.
pub const fn io_max(layout: &Layout) -> usize {
    let running = prepare_writes_max(layout) + READS_MAX + HEADER_WRITES_MAX;
    if running > open::READS_MAX {
        running
    } else {
        open::READS_MAX
    }
}

/// "This exact prepare would be recovered here": only a journal makes one, and whoever sends the ack takes it by value.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "a prepare_ok is waiting to be sent"]
pub struct Durable {
    op: u64,
    checksum: u128,
}

impl Durable {
    /// The prepare's op.
    pub fn op(&self) -> u64 {
        self.op
    }

    /// The prepare's identity.
    pub fn checksum(&self) -> u128 {
        self.checksum
    }
}

static_assertions::assert_not_impl_any!(Durable: Clone, Copy);

/// What recovery found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The highest op that the journal or the view headers know; the checkpoint's, if there is none above it. Not all
    /// ops below need be here: see [`Journal::missing`].
    pub head_op: u64,
    /// Identity of its prepare.
    pub head_checksum: u128,
    /// Whether nothing above the head can have been acknowledged here, and the head is not damaged. Otherwise nothing
    /// may be acknowledged, and votes say "unknown", until the log is known from others.
    pub head_certain: bool,
    /// The highest op that may have been acknowledged here.
    pub op_max: u64,
    /// An op that the journal holds from beyond what the checkpoint allows: the superblock is older than the journal.
    /// Such a replica has forgotten something: it neither acks nor votes, and the journal hands out no [`Durable`].
    pub regressed: Option<u64>,
}

/// What a completion brought about.
#[derive(Debug)]
pub enum JournalEvent {
    /// Nothing to tell; [`Journal::next_durable`] may have something.
    None,
    /// The journal is open.
    Opened(Recovered),
    /// The journal cannot be used as it is.
    Refused(Refusal),
    /// A [`Journal::read`] has ended.
    Read {
        /// The op.
        op: u64,
        /// As given to `read`.
        purpose: u64,
        /// The prepare, verified; or the buffer, if the slot does not hold it (any more).
        message: Result<SharedMessage, Message>,
    },
}

/// An op that is not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing {
    /// The op.
    pub op: u64,
    /// The identity to fetch; none: not known either.
    pub wanted: Option<u128>,
    /// What may be said of it in a vote.
    pub state: State,
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    Prepare {
        slot: usize,
    },
    Headers {
        sector: usize,
    },
    Read {
        op: u64,
        checksum: u128,
        purpose: u64,
    },
    Open(open::Step),
}

/// How far an ack is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Durable,
    /// This slot's redundant header must be durable first.
    NeedsHeader(usize),
    Blocked,
}

/// The journal of one data file. `R` is [`Strict`] outside of tests.
#[derive(Debug)]
pub struct Journal<R: Rules = Strict> {
    layout: Layout,
    cluster: u128,
    log_view: u32,
    checkpoint_op: u64,
    /// Ops up to here were not verified at start: they are served after verification, and never acknowledged.
    unverified_max: u64,
    regressed: bool,
    slots: Box<[Slot]>,
    /// What the ring of headers holds, or will when the dirty ones are written. All zero: nothing valid.
    redundant: Box<[Prepare]>,
    /// Slots whose redundant header has changed since its sector's last write began.
    dirty: Bits,
    /// Slots whose redundant header changed in the write of their sector that is in flight.
    landing: Bits,
    /// Sectors with a write in flight: one at a time, so that the later content lands later.
    sectors_busy: Bits,
    /// Slots with a write of a prepare in flight.
    writing: Bits,
    /// Slots whose prepare is not acknowledged yet.
    waiting: Bits,
    /// Slots whose prepare needs its own redundant header for the ack.
    needs_header: Bits,
    /// Slots whose ack waits for [`Journal::next_durable`].
    ready: Bits,
    in_flight: InFlight<Purpose>,
    prepare_writes: usize,
    reads: usize,
    sector_buffers: Vec<AlignedBuffer>,
    opening: Option<Box<Opening>>,
    rules: PhantomData<R>,
}

impl<R: Rules> Journal<R> {
    /// Allocates all that the journal will ever need; [`Journal::open_start`] comes next.
    pub fn new(layout: Layout, cluster: u128) -> Self {
        let count = layout.geometry.slots as usize;
        assert!(count.is_power_of_two());
        assert!(2 * lag_max(layout.geometry.pipeline_max) <= count as u64);
        let empty = |slot: usize| Slot {
            op: slot as u64,
            state: State::Absent,
            identity: 0,
            named: Prepare::reserved_slot(cluster, slot as u64),
            disk: 0,
            disk_size: 0,
        };
        Self {
            layout,
            cluster,
            log_view: 0,
            checkpoint_op: 0,
            unverified_max: 0,
            regressed: false,
            slots: (0..count).map(empty).collect(),
            redundant: (0..count).map(|slot| empty(slot).named).collect(),
            dirty: Bits::new(count),
            landing: Bits::new(count),
            sectors_busy: Bits::new(count.div_ceil(HEADERS_PER_SECTOR)),
            writing: Bits::new(count),
            waiting: Bits::new(count),
            needs_header: Bits::new(count),
            ready: Bits::new(count),
            in_flight: InFlight::new(IoOwner::Journal, io_max(&layout)),
            prepare_writes: 0,
            reads: 0,
            sector_buffers: (0..HEADER_WRITES_MAX)
                .map(|_| AlignedBuffer::new(SECTOR_SIZE))
                .collect(),
            opening: Some(Box::new(Opening::new(&layout))),
            rules: PhantomData,
        }
    }

    /// Bytes that [`Journal::new`] allocates for a layout, those that are returned after opening included.
    pub fn memory(layout: &Layout) -> usize {
        let slots = layout.geometry.slots as usize;
        slots * (size_of::<Slot>() + size_of::<Prepare>())
            + HEADER_WRITES_MAX * SECTOR_SIZE
            + Opening::memory(layout)
    }

    /// Continues after a completion.
    ///
    /// # Errors
    /// A write failed: what the disk holds is unknown, and the replica must stop. A failed read is none: what was asked
    /// for counts as damaged.
    pub fn on_io_done(&mut self, done: IoDone, io: &mut IoQueue) -> Result<JournalEvent, IoError> {
        let Some(purpose) = self.in_flight.finish(done.id) else {
            return Ok(JournalEvent::None);
        };
        let mut buffer = done.buffer.expect("the journal's requests carry buffers");
        match purpose {
            Purpose::Prepare { .. } | Purpose::Headers { .. } => done.result?,
            // What cannot be read holds nothing that a check accepts: the same as decay of just those sectors.
            Purpose::Read { .. } | Purpose::Open(_) => buffer.settle_read(&done.result),
        }
        match purpose {
            Purpose::Prepare { slot } => {
                let Buffer::Shared(prepare) = buffer else {
                    unreachable!("a prepare is written from a shared message")
                };
                self.on_prepare_written(slot, &prepare);
            }
            Purpose::Headers { sector } => self.on_headers_written(sector, buffer),
            Purpose::Read {
                op,
                checksum,
                purpose,
            } => {
                let Buffer::Message(message) = buffer else {
                    unreachable!("a prepare is read into a message")
                };
                return Ok(self.on_read(op, checksum, purpose, message));
            }
            Purpose::Open(step) => self.on_open_read(step, buffer),
        }
        if self.opening.is_some() {
            return Ok(self.open_advance(io));
        }
        self.advance(io);
        Ok(JournalEvent::None)
    }

    /// Whether a prepare of `op` can be written now: there is room, it is above the checkpoint and not beyond the
    /// ring, and its slot has no write pending. While false for a slot's sake, [`Journal::flush`] helps.
    pub fn can_append(&self, op: u64) -> bool {
        assert!(self.opening.is_none());
        let slot = self.layout.slot(op);
        let reused = self.slots[slot].op != op;
        op > self.checkpoint_op
            && op
                <= self.checkpoint_op + self.slots.len() as u64 + u64::from(!R::WINDOW_IS_ONE_RING)
            && self.prepare_writes < prepare_writes_max(&self.layout)
            && !self.writing.contains(slot)
            && !(reused && (self.dirty.contains(slot) || self.landing.contains(slot)))
    }

    /// Writes a prepare to its slot; [`Journal::can_append`] has been asked, and the prepare was checked and belongs
    /// to the log. Its [`Durable`] will come out of [`Journal::next_durable`]. Also repairs a damaged slot.
    pub fn append(&mut self, prepare: SharedMessage, io: &mut IoQueue) {
        let header = *prepare.header().typed::<Prepare>();
        let (op, slot) = (header.op, self.layout.slot(header.op));
        assert!(self.can_append(op));
        assert_eq!(header.kind, PrepareKind::Batch as u32);
        assert_eq!(header.frame.cluster, self.cluster);
        assert!(
            header.frame.view <= self.log_view,
            "the view is not durable yet"
        );
        assert!(!self.is_present(op, header.frame.checksum), "already here");
        let held = &self.slots[slot];
        assert!(held.op == op || held.op <= self.checkpoint_op);
        // What the slot of the checkpoint's op holds may have been left over by a log that was replaced.
        if let Some(parent) = self
            .header(op - 1)
            .filter(|parent| parent.op > self.checkpoint_op)
        {
            assert_eq!(
                parent.frame.checksum, header.parent,
                "the hash chain is broken"
            );
        }
        let size = prepare.size_sectors();
        assert!(size <= self.layout.geometry.message_size_max as usize);
        let tail = &prepare.buffer()[header.frame.size as usize..size];
        assert!(crate::checksum::is_zero(tail));

        let both = self.layout.geometry.journal_ack() == JournalAck::Both
            || (size > SECTOR_SIZE && R::LONG_PREPARE_AWAITS_HEADER)
            || !self.redundant_is_of_earlier_wrap(slot, op);
        set(&mut self.needs_header, slot, both);
        let held = &mut self.slots[slot];
        if held.op != op {
            held.clear(op);
        }
        held.name(&header);
        held.disk = 0;
        if held.state == State::Present {
            held.state = State::Lost; // overwritten from now: until the write is durable neither is owed
        }
        set(&mut self.ready, slot, !R::ACK_AWAITS_WRITE);
        self.waiting.insert(slot);
        self.writing.insert(slot);
        self.prepare_writes += 1;
        if !R::HEADER_AWAITS_PREPARE {
            self.set_redundant(slot, &header);
        }
        let id = self.in_flight.begin(Purpose::Prepare { slot });
        let at = self.layout.prepare_at(slot);
        let buffer = Buffer::Shared(prepare);
        io.push(IoRequest::Write {
            id,
            at,
            size,
            buffer,
            durable: R::FLUSH,
        });
    }

    fn on_prepare_written(&mut self, slot: usize, prepare: &SharedMessage) {
        let written = *prepare.header().typed::<Prepare>();
        assert!(self.writing.remove(slot));
        self.prepare_writes -= 1;
        let held = &mut self.slots[slot];
        held.disk = written.frame.checksum;
        held.disk_size = written.frame.size;
        // While it was written the log may have been cut before it, or have named another.
        if held.op != written.op || held.identity != written.frame.checksum {
            self.waiting.remove(slot);
            return;
        }
        held.state = State::Present;
        self.set_redundant(slot, &written);
    }

    /// The next prepare that has become durable.
    pub fn next_durable(&mut self) -> Option<Durable> {
        if self.ready.is_empty() {
            return None;
        }
        let lowest = self.layout.slot(self.checkpoint_op + 1);
        let slot = self
            .ready
            .next_set(lowest)
            .or_else(|| self.ready.next_set(0));
        let slot = slot.expect("the set is not empty");
        self.ready.remove(slot);
        let held = &self.slots[slot];
        let whole = held.state == State::Present && held.disk == held.identity;
        assert!(whole || !R::ACK_AWAITS_WRITE);
        Some(Durable {
            op: held.op,
            checksum: held.identity,
        })
    }

    /// The same once more, for a prepare that is sent again. None: it is not here, or not yet to be acknowledged; in
    /// the latter case [`Journal::next_durable`] will tell.
    pub fn durable_again(&mut self, op: u64, checksum: u128) -> Option<Durable> {
        if !self.is_present(op, checksum) || op <= self.unverified_max || self.regressed {
            return None;
        }
        let slot = self.layout.slot(op);
        if self.standing(slot) == Standing::Durable {
            self.waiting.remove(slot);
            self.ready.remove(slot);
            return Some(Durable { op, checksum });
        }
        self.waiting.insert(slot);
        None
    }

    fn is_present(&self, op: u64, checksum: u128) -> bool {
        let held = &self.slots[self.layout.slot(op)];
        held.op == op && held.state == State::Present && held.identity == checksum
    }

    /// Whether this prepare's own write is durable: it would be found after a crash. The ack may have to wait longer.
    pub fn is_durable(&self, op: u64, checksum: u128) -> bool {
        self.is_present(op, checksum)
    }

    /// Whether this prepare is here or being written.
    pub fn has(&self, op: u64, checksum: u128) -> bool {
        let slot = self.layout.slot(op);
        let held = &self.slots[slot];
        let here = held.state == State::Present || self.is_being_written(slot);
        held.op == op && held.identity == checksum && here
    }

    /// Whether the write in flight to a slot is of the prepare that the log has there now.
    fn is_being_written(&self, slot: usize) -> bool {
        self.writing.contains(slot) && self.waiting.contains(slot)
    }

    /// The header of the log's prepare of `op`, if it is known; the prepare itself may be missing.
    pub fn header(&self, op: u64) -> Option<&Prepare> {
        let held = &self.slots[self.layout.slot(op)];
        held.header().filter(|header| header.op == op)
    }

    /// The known headers of a range, highest op first. Looks at no more ops than the ring has slots.
    pub fn headers_between(&self, ops: RangeInclusive<u64>) -> impl Iterator<Item = &Prepare> {
        self.clamp(ops).rev().filter_map(|op| self.header(op))
    }

    /// The ops of a range that are neither here nor being written, lowest first.
    pub fn missing(&self, ops: RangeInclusive<u64>) -> impl Iterator<Item = Missing> {
        let lowest = (*ops.start()).max(self.checkpoint_op + 1);
        self.clamp(lowest..=*ops.end())
            .filter_map(|op| self.faulty(op))
    }

    fn clamp(&self, ops: RangeInclusive<u64>) -> RangeInclusive<u64> {
        let highest = self.checkpoint_op + self.slots.len() as u64;
        let lowest = (self.checkpoint_op + 1).saturating_sub(self.slots.len() as u64);
        (*ops.start()).max(lowest).max(1)..=(*ops.end()).min(highest)
    }

    /// What is known of an op above the checkpoint that is neither here nor being written; none if it is.
    pub fn faulty(&self, op: u64) -> Option<Missing> {
        let slot = self.layout.slot(op);
        let held = &self.slots[slot];
        if held.op != op {
            return Some(Missing {
                op,
                wanted: None,
                state: State::Absent,
            });
        }
        if held.state == State::Present || self.is_being_written(slot) {
            return None;
        }
        let wanted = (held.identity != 0).then_some(held.identity);
        Some(Missing {
            op,
            wanted,
            state: held.state,
        })
    }

    /// How `op`, above the checkpoint, is held.
    pub fn state(&self, op: u64) -> State {
        let held = &self.slots[self.layout.slot(op)];
        if held.op == op {
            held.state
        } else {
            State::Absent
        }
    }

    /// Believes `header` to be the log's for its op, above the checkpoint and within the ring. If another prepare is
    /// here, it is no longer acknowledged or counted; it is still served to who asks for it by identity.
    pub fn set_header(&mut self, header: &Prepare) {
        let (op, slot) = (header.op, self.layout.slot(header.op));
        assert!(op > self.checkpoint_op && op <= self.checkpoint_op + self.slots.len() as u64);
        assert!(header.frame.cluster == self.cluster && header.frame.view <= self.log_view);
        let held = &mut self.slots[slot];
        assert!(held.op <= self.checkpoint_op || held.op == op);
        if held.op == op && held.identity == header.frame.checksum {
            held.named = *header;
            return;
        }
        if held.op != op {
            held.clear(op);
        }
        // What is known to have been the last thing here was another prepare: this one was never acknowledged, or only in
        // a view that counts no more (its op was cut off since, or the other would not be here).
        held.state = match held.state {
            State::Present | State::Absent | State::Torn => State::Absent,
            State::Lost if held.identity != 0 => State::Absent,
            State::Lost | State::Unknown => State::Lost,
        };
        held.name(header);
        if held.disk == held.identity && !self.writing.contains(slot) {
            held.state = State::Present;
            self.needs_header.insert(slot); // the ring may hold another's of this op
            self.set_redundant(slot, header);
        }
        self.waiting.remove(slot);
        self.ready.remove(slot);
    }

    /// A view and its log's end are durable in the superblock: prepares of that view may be written, and what the
    /// journal holds above the head is not the log's any more. Nothing is erased on the disk: the durable view makes
    /// the leftovers stale.
    pub fn view_durable(&mut self, log_view: u32, head_op: u64) {
        assert!(log_view >= self.log_view && head_op >= self.checkpoint_op);
        self.log_view = log_view;
        for op in head_op + 1..=self.checkpoint_op + self.slots.len() as u64 {
            let slot = self.layout.slot(op);
            if self.slots[slot].op == op {
                self.slots[slot].clear(op);
                self.waiting.remove(slot);
                self.ready.remove(slot);
            }
        }
    }

    /// A checkpoint is durable in the superblock: slots of ops up to it may be written again.
    pub fn set_checkpoint(&mut self, op: u64) {
        assert!(op >= self.checkpoint_op);
        self.checkpoint_op = op;
    }

    /// Slots of the ring: ops that it holds at once.
    pub fn slots(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The durable checkpoint's op.
    pub fn checkpoint_op(&self) -> u64 {
        self.checkpoint_op
    }

    /// Size of a prepare on the disk, in whole sectors, if its slot holds it: of the log or not, below the checkpoint too,
    /// verified or not. It is served to who asks for it by identity; who is not sure of the chain to it may have it.
    pub fn size_of(&self, op: u64, checksum: u128) -> Option<usize> {
        let slot = self.layout.slot(op);
        let held = &self.slots[slot];
        let here = held.disk == checksum && checksum != 0 && !self.writing.contains(slot);
        here.then(|| sector_ceil(held.disk_size as usize))
    }

    /// Reads a prepare; a [`JournalEvent::Read`] will come.
    ///
    /// # Errors
    /// The buffer, if the slot does not hold that prepare, or too many reads are in flight.
    pub fn read(
        &mut self,
        op: u64,
        checksum: u128,
        into: Message,
        purpose: u64,
        io: &mut IoQueue,
    ) -> Result<(), Message> {
        assert!(self.opening.is_none());
        let slot = self.layout.slot(op);
        let held = self.size_of(op, checksum);
        let Some(size) = held.filter(|_| self.reads < READS_MAX) else {
            return Err(into);
        };
        assert!(size <= into.buffer().len());
        self.reads += 1;
        let id = self.in_flight.begin(Purpose::Read {
            op,
            checksum,
            purpose,
        });
        let at = self.layout.prepare_at(slot);
        let buffer = Buffer::Message(into);
        io.push(IoRequest::Read {
            id,
            at,
            size,
            buffer,
        });
        Ok(())
    }

    fn on_read(&mut self, op: u64, checksum: u128, purpose: u64, message: Message) -> JournalEvent {
        self.reads -= 1;
        let header = message.header();
        let named =
            header.checksum_holds() && (header.frame.checksum == checksum || !R::CHECK_READ);
        let holds = named && crate::recovery::body_holds(header, message.buffer());
        // Who asks by identity may name an op that shares the slot: that says nothing against what is there.
        let is_op = header
            .try_typed::<Prepare>()
            .is_some_and(|prepare| prepare.op == op || !R::CHECK_READ);
        let message = if holds && is_op {
            Ok(message.freeze())
        } else {
            Err(message)
        };
        let slot = self.layout.slot(op);
        let held = &mut self.slots[slot];
        // Not if the slot was overwritten meanwhile.
        if !holds && held.disk == checksum && !self.writing.contains(slot) {
            held.disk = 0;
            if held.op == op && held.identity == checksum {
                held.state = State::Lost;
                self.ready.remove(slot);
                self.waiting.remove(slot);
            }
        }
        JournalEvent::Read {
            op,
            purpose,
            message,
        }
    }

    /// Hands out what became durable, and starts the header writes that acks wait for.
    fn advance(&mut self, io: &mut IoQueue) {
        let mut from = 0;
        while let Some(slot) = self.waiting.next_set(from) {
            from = slot + 1;
            match self.standing(slot) {
                Standing::Durable => {
                    self.waiting.remove(slot);
                    self.ready.insert(slot);
                }
                Standing::NeedsHeader(slot) => self.write_headers_of(slot, io),
                Standing::Blocked => (),
            }
        }
        self.write_headers_that_lag(io);
    }

    /// Whether the prepare in `slot` may be acknowledged. Beside its own durability: every op from 2W to W before it,
    /// above the checkpoint, must be durable in both rings. Recovery leans on that to tell an unreadable slot that
    /// cannot have been acknowledged from one that may have been.
    fn standing(&self, slot: usize) -> Standing {
        let held = &self.slots[slot];
        if held.state != State::Present || self.writing.contains(slot) || self.regressed {
            return Standing::Blocked;
        }
        assert_eq!(held.disk, held.identity);
        if self.needs_header.contains(slot) && !self.header_is_durable(slot) {
            return Standing::NeedsHeader(slot);
        }
        let lag = lag_max(self.layout.geometry.pipeline_max);
        let lowest = held.op.saturating_sub(2 * lag).max(self.checkpoint_op + 1);
        if !R::RING_RULE {
            return Standing::Durable;
        }
        for op in lowest..=held.op.saturating_sub(lag) {
            let before = self.layout.slot(op);
            if self.state(op) != State::Present || self.writing.contains(before) {
                return Standing::Blocked;
            }
            if !self.header_is_durable(before) {
                return Standing::NeedsHeader(before);
            }
        }
        Standing::Durable
    }
}

fn set(bits: &mut Bits, index: usize, value: bool) {
    if value {
        bits.insert(index);
    } else {
        bits.remove(index);
    }
}

const _: () =
    assert!(PIPELINE_MAX as usize <= 32 && HEADER_SIZE * HEADERS_PER_SECTOR == SECTOR_SIZE);
