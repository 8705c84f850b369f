//! The scrubber: a slow tour over what the durable checkpoint has on the disk, so that decay is found while there are
//! copies of what it took.
//!
//! A step looks at one thing: a page, a node of the tag tree, or a copy of a node of the address map. A clean page is
//! hashed in memory too: a bit that flipped there would become part of what is executed, and what was executed cannot be
//! mended. A bad block is written again *in its place* from memory, if memory has that very content: it is no change, so
//! a power cut cannot harm it. If the page has changed since, the next checkpoint supersedes the block; until then a
//! restart would fetch the page from another replica.
//!
//! Not looked at: the checkpoint before the durable one, which serves others only and is checked when it does.

use super::reader::{Damage, DamagedItem};
use super::{Checkpoint, CheckpointEvent, Mode, Purpose, Rules};
use crate::buffer::AlignedBuffer;
use crate::checksum;
use crate::io::{Buffer, IoQueue, IoRequest};
use crate::layout::PAGE_SIZE;
use crate::pages::{PageId, Pages};

/// A tour takes about this long, in nanoseconds: a day. Decay that is found within a day meets a second one elsewhere
/// seldom enough, and 1 GiB a day is nothing to a drive.
const TOUR_NS: u64 = 24 * 3600 * 1_000_000_000;

/// Between two steps at least, in nanoseconds: a small read each millisecond is a percent of a drive.
const STEP_NS_MIN: u64 = 1_000_000;

/// Between two steps at most, in nanoseconds: a small state is gone through in hours.
const STEP_NS_MAX: u64 = 5_000_000_000;

/// Stops without anything to read that a step passes over: about 20 us.
const STOPS_EXAMINED_MAX: u32 = 4096;

/// What a step has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scrubbed {
    /// Nothing wrong.
    Good,
    /// A block was bad, and has been written again from memory.
    Mended(Damage),
    /// A block is bad; what it should hold has changed in memory, and the next checkpoint supersedes it.
    Superseded(Damage),
    /// A page has changed in memory though nothing wrote it: the machine's memory fails. What was executed since cannot be
    /// trusted, so the replica must stop; its disk has what it had.
    Memory(PageId),
}

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrubStatistics {
    /// Blocks read.
    pub blocks: u64,
    /// Of those, bad ones.
    pub bad: u64,
    /// Of those, written again.
    pub mended: u64,
    /// Tours completed.
    pub tours: u64,
}

/// Where a tour is: first the logical pages, then both copies of each node of the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    Logical(u32),
    MapCopy { node: u32, second: bool },
}

/// A read or write in flight, and what the block must hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    stop: Stop,
    block: u32,
    tag: u128,
}

/// Progress of the tour.
#[derive(Debug)]
pub(super) struct Scrub {
    next: u32,
    /// To be looked at before the tour goes on.
    soon: Option<u32>,
    /// None while an I/O has it.
    buffer: Option<AlignedBuffer>,
    statistics: ScrubStatistics,
}

impl Scrub {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            soon: None,
            buffer: Some(AlignedBuffer::new(PAGE_SIZE)),
            statistics: ScrubStatistics::default(),
        }
    }
}

impl<R: Rules> Checkpoint<R> {
    /// Counts of the scrubber.
    pub fn scrub_statistics(&self) -> ScrubStatistics {
        self.scrub.statistics
    }

    /// How long to wait between two steps, in nanoseconds.
    pub fn scrub_interval_ns(&self) -> u64 {
        (TOUR_NS / u64::from(self.stops())).clamp(STEP_NS_MIN, STEP_NS_MAX)
    }

    fn stops(&self) -> u32 {
        self.tags.logical_count() + 2 * self.map.shape().node_count()
    }

    fn stop(&self, number: u32) -> Stop {
        match number.checked_sub(self.tags.logical_count()) {
            None => Stop::Logical(number),
            Some(copy) => Stop::MapCopy {
                node: copy / 2,
                second: copy % 2 == 1,
            },
        }
    }

    /// A page or node is to be looked at next: somebody has found it bad.
    pub(super) fn scrub_next(&mut self, logical: u32) {
        self.scrub.soon = Some(logical);
    }

    /// Takes a step: what is known at once is returned, what a read finds comes as [`CheckpointEvent::Scrubbed`]. Does
    /// nothing while the state is not complete or the last step has not ended.
    pub fn scrub(&mut self, pages: &Pages, io: &mut IoQueue) -> Scrubbed {
        if self.fetch.active || self.is_opening() || self.scrub.buffer.is_none() {
            return Scrubbed::Good;
        }
        let soon = self.scrub.soon.take();
        let Some(number) = soon.or_else(|| self.next_stop()) else {
            return Scrubbed::Good;
        };
        let stop = self.stop(number);
        if let Stop::Logical(logical) = stop
            && !self.holds_in_memory(logical, pages)
        {
            return Scrubbed::Memory(PageId(logical));
        }
        if let Some(reading) = self.expected(stop) {
            let buffer = self.scrub.buffer.take().expect("asked above");
            self.scrub.statistics.blocks += 1;
            let id = self.in_flight.begin(Purpose::ScrubRead(reading));
            io.push(IoRequest::Read {
                id,
                at: self.layout.block_at(reading.block),
                size: PAGE_SIZE,
                buffer: Buffer::Sectors(buffer),
            });
        }
        Scrubbed::Good
    }

    /// The next stop with something to read, if there is one near.
    fn next_stop(&mut self) -> Option<u32> {
        let stops = self.stops();
        for _ in 0..STOPS_EXAMINED_MAX {
            let number = self.scrub.next;
            self.scrub.next = (number + 1) % stops;
            self.scrub.statistics.tours += u64::from(self.scrub.next == 0);
            if self.expected(self.stop(number)).is_some() {
                return Some(number);
            }
        }
        None
    }

    /// What the disk must hold at a stop; none if there is nothing, or it cannot be said now.
    fn expected(&self, stop: Stop) -> Option<Reading> {
        let (block, tag) = match stop {
            Stop::Logical(logical) => {
                let durable = &self.generations.durable;
                let tag = durable.tags.tag(logical);
                (durable.block_of(logical, tag)?, tag)
            }
            // A node's reference is that of the durable checkpoint only while none is being written.
            Stop::MapCopy { .. } if self.mode != Mode::Idle => return None,
            Stop::MapCopy { node, second } => {
                let reference = self.map.reference(node);
                let copies = [reference.first, reference.second];
                (copies[usize::from(second)], reference.tag)
            }
        };
        (block != 0).then_some(Reading { stop, block, tag })
    }

    fn holds_in_memory(&self, logical: u32, pages: &Pages) -> bool {
        let page = PageId(logical);
        let tag = self.tags.tag(logical);
        self.tags.node_of(logical).is_some()
            || !pages.is_clean(page)
            || tag == 0
            || self.page_key().tag(pages.content(page)) == tag
    }

    fn holds(&self, reading: &Reading, bytes: &[u8]) -> bool {
        let tag = match reading.stop {
            Stop::Logical(_) => self.page_key().tag(bytes),
            Stop::MapCopy { .. } => checksum::identity(bytes),
        };
        tag == reading.tag
    }

    pub(super) fn on_scrub_read(
        &mut self,
        reading: Reading,
        mut buffer: AlignedBuffer,
        pages: &Pages,
        io: &mut IoQueue,
    ) -> CheckpointEvent {
        let still = self.expected(reading.stop);
        let same = still.is_some_and(|it| (it.block, it.tag) == (reading.block, reading.tag));
        if self.holds(&reading, &buffer) || !same {
            self.scrub.buffer = Some(buffer);
            return CheckpointEvent::Scrubbed(Scrubbed::Good);
        }
        self.scrub.statistics.bad += 1;
        let content = match reading.stop {
            Stop::Logical(logical) => self.in_memory(logical, reading.tag, pages),
            Stop::MapCopy { node, .. } => Some(self.map.node_bytes(node)),
        };
        let content = content.filter(|bytes| self.holds(&reading, bytes));
        let Some(content) = content else {
            self.scrub.buffer = Some(buffer);
            let damage = self.damage_at(&reading);
            return CheckpointEvent::Scrubbed(Scrubbed::Superseded(damage));
        };
        buffer.copy_from_slice(content);
        self.blocks.hold(reading.block);
        let id = self.in_flight.begin(Purpose::ScrubWrite(reading));
        io.push(IoRequest::Write {
            id,
            at: self.layout.block_at(reading.block),
            size: PAGE_SIZE,
            buffer: Buffer::Sectors(buffer),
            durable: true,
        });
        CheckpointEvent::None
    }

    pub(super) fn on_scrub_written(
        &mut self,
        reading: Reading,
        buffer: AlignedBuffer,
    ) -> CheckpointEvent {
        self.scrub.buffer = Some(buffer);
        self.blocks.let_go();
        self.scrub.statistics.mended += 1;
        CheckpointEvent::Scrubbed(Scrubbed::Mended(self.damage_at(&reading)))
    }

    fn damage_at(&self, reading: &Reading) -> Damage {
        let item = match reading.stop {
            Stop::Logical(logical) => self.item_of(logical),
            Stop::MapCopy { node, .. } => DamagedItem::MapCopy(node),
        };
        Damage::new(&self.layout, item, reading.block)
    }
}
