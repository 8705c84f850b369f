//! Writing a checkpoint. Phases: pages, changed nodes of the tag tree, changed nodes of the address map, sync.
//!
//! One buffer is filled at a time, for a run of free blocks found in advance; it leaves when the run or the phase ends.

use super::pace::{Allowance, Pace};
use super::{BUFFER_COUNT, BUFFER_PAGES, PUMP_PAGES_MAX};
use super::{Checkpoint, CheckpointEvent, Mode, Purpose, Rules, Zone};
use crate::buffer::AlignedBuffer;
use crate::checksum::{self, PageKey};
use crate::header::Prepare;
use crate::io::{Buffer, IoQueue, IoRequest};
use crate::layout::PAGE_SIZE;
use crate::pages::{PageId, Pages};
use crate::superblock::{BlockReference, CheckpointRecord};
use zerocopy::FromZeros;

/// What a checkpoint to be written is of, and by when.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointStart {
    /// Header of the op whose commit froze the pages.
    pub prepare: Prepare,
    /// Key of the page tags; the same in all checkpoints of a cluster.
    pub key: PageKey,
    /// Fingerprint of the geometry: part of the checkpoint's id.
    pub fingerprint: u128,
    /// Ops to let pass before writing begins, so that not all replicas do at once; less than the deadline's.
    pub start_delay_ops: u64,
    /// The op by which the checkpoint must be durable.
    pub deadline_op: u64,
}

/// A buffer being filled for a run of blocks.
#[derive(Debug)]
struct Fill {
    buffer: AlignedBuffer,
    /// First block of the run.
    first: u32,
    /// First block of the run for the second copy; zero: there is none.
    second: u32,
    /// Blocks of the run.
    room: u32,
    /// Pages in the buffer.
    filled: u32,
}

/// The checkpoint being written.
#[derive(Debug)]
pub(super) struct Writer {
    record: CheckpointRecord,
    key: PageKey,
    fingerprint: u128,
    pace: Pace,
    /// Where the next frozen page is looked for: all below are copied.
    cursor: PageId,
    fill: Option<Fill>,
    /// A checkpoint that was fetched is written: its tags are what they are.
    is_rewrite: bool,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            record: CheckpointRecord::new_zeroed(),
            key: PageKey([0; 16]),
            fingerprint: 0,
            pace: Pace::new(0, 0, 1, 0),
            cursor: PageId(0),
            fill: None,
            is_rewrite: false,
        }
    }

    /// Writes `pages` frozen pages of a checkpoint that is known already, as fast as does no harm.
    pub(super) fn rewrite(
        record: &CheckpointRecord,
        key: PageKey,
        fingerprint: u128,
        pages: u32,
    ) -> Self {
        Self {
            record: *record,
            key,
            fingerprint,
            pace: Pace::hurried(record.prepare.op, pages),
            cursor: PageId(0),
            fill: None,
            is_rewrite: true,
        }
    }

    /// Stops filling; the buffer, if there is one.
    pub(super) fn give_up(&mut self) -> Option<AlignedBuffer> {
        self.fill.take().map(|fill| fill.buffer)
    }
}

impl<R: Rules> Checkpoint<R> {
    /// The checkpoint that is written, and waits to be installed.
    #[cfg(test)]
    pub(super) fn writer_record(&self) -> CheckpointRecord {
        assert_eq!(self.mode, Mode::Written);
        self.writer.record
    }

    /// Begins to write a checkpoint of the pages, which were frozen just now. Does no work that grows with the state.
    pub fn begin(&mut self, pages: &Pages, start: &CheckpointStart) {
        assert_eq!(self.mode, Mode::Idle, "one checkpoint at a time");
        assert!(self.is_complete() && self.work == 0);
        assert!(start.prepare.op > self.record.prepare.op);
        if self.record.root != 0 {
            assert_eq!(self.record.page_key, start.key.0, "one key for all");
        }
        assert!(self.writer.fill.is_none());
        assert_eq!(self.buffers.len(), BUFFER_COUNT);
        let mut record = CheckpointRecord::new_zeroed();
        record.parent = self.record.id;
        record.page_key = start.key.0;
        record.prepare = start.prepare;
        record.pages_used = u64::from(pages.count() - pages.free_count());
        self.writer = Writer {
            record,
            key: start.key,
            fingerprint: start.fingerprint,
            pace: Pace::new(
                start.prepare.op,
                start.start_delay_ops,
                start.deadline_op,
                pages.frozen_count(),
            ),
            cursor: PageId(0),
            fill: None,
            is_rewrite: false,
        };
        self.mode = Mode::WritePages;
    }

    /// Goes on writing: a bounded amount of work. To be called when an op has been executed, when an I/O of ours has
    /// completed, when a commit waits for spares, and at [`Self::wake_ns`]. Does nothing if nothing is being written.
    ///
    /// `commit_op` is the last executed op, `elapsed_ns` the time since [`Self::begin`], `spares_wanted` what a waiting
    /// commit needs (zero if none waits). True: there is more to do at once, if the loop has nothing better to do.
    pub fn pump(
        &mut self,
        pages: &mut Pages,
        commit_op: u64,
        elapsed_ns: u64,
        spares_wanted: u32,
        io: &mut IoQueue,
    ) -> bool {
        if !self.is_writing() {
            return false;
        }
        let copied = self.writer.pace.pages - self.frozen_left(pages);
        let spares_lack = spares_wanted > pages.spares_free();
        let allowance = self
            .writer
            .pace
            .allowance(copied, commit_op, elapsed_ns, spares_lack);
        for _ in 0..PUMP_PAGES_MAX {
            let advanced = match self.mode {
                Mode::WritePages => self.pump_page(pages, allowance, io),
                Mode::WriteTags => self.pump_tags(allowance, io),
                Mode::WriteMap => self.pump_map(allowance, io),
                _ => false,
            };
            if !advanced {
                return false;
            }
        }
        true
    }

    /// The time since [`Self::begin`] at which [`Self::pump`] has something to do even if no op is executed before.
    /// None: it waits for I/O, or for nothing.
    pub fn wake_ns(&self) -> Option<u64> {
        let is_paced = matches!(
            self.mode,
            Mode::WritePages | Mode::WriteTags | Mode::WriteMap
        );
        (is_paced && self.work == 0).then(|| self.writer.pace.idle_at_ns())
    }

    fn frozen_left(&self, pages: &Pages) -> u32 {
        match self.mode {
            Mode::WritePages => pages.frozen_count(),
            _ => 0, // all copied; what is frozen would be the next checkpoint's
        }
    }

    /// Deals with one frozen page. False: it must wait.
    fn pump_page(&mut self, pages: &mut Pages, allowance: Allowance, io: &mut IoQueue) -> bool {
        let frozen = pages.frozen_count();
        if frozen == 0 {
            self.flush(io);
            assert!(
                self.fetch.active
                    || u64::from(self.tags.pages_used()) == self.writer.record.pages_used,
                "every page in use has a tag"
            );
            self.mode = Mode::WriteTags;
            return true;
        }
        if self.writer.pace.pages - frozen >= allowance.pages {
            return false;
        }
        // Spares first, always: it costs nothing (any page goes into any block) and keeps commits from waiting.
        let in_spare = pages.frozen_in_spare();
        let page = in_spare
            .or_else(|| pages.frozen_next(self.writer.cursor))
            .expect("all below the cursor are copied");
        let key = self.writer.key;
        if pages.frozen_read(page).is_some() {
            if !self.fill_ready(Zone::Data, frozen, allowance.writes) {
                return false;
            }
            let content = pages.frozen_read(page).expect("it is in use");
            let (block, copy) = self.fill_next(content);
            let tag = key.tag(copy);
            self.set_page_tag(page, tag);
            self.blocks.take(Zone::Data, block);
            self.relocate(page.0, block);
            self.statistics.pages_written += 1;
            self.flush_if_full(io);
        } else {
            self.set_page_tag(page, 0);
            self.relocate(page.0, 0);
        }
        pages.frozen_done(page);
        if in_spare.is_none() {
            self.writer.cursor = PageId(page.0 + 1);
        }
        true
    }

    fn set_page_tag(&mut self, page: PageId, tag: u128) {
        assert!(
            !self.writer.is_rewrite || self.tags.page_tag(page.0) == tag,
            "page {} has changed in memory by itself",
            page.0
        );
        self.tags.set_page_tag(page.0, tag);
    }

    /// Deals with one changed node of the tag tree, children before parents. False: it must wait.
    fn pump_tags(&mut self, allowance: Allowance, io: &mut IoQueue) -> bool {
        let Some(node) = self.tags.dirty_next() else {
            self.flush(io);
            self.mode = Mode::WriteMap;
            return true;
        };
        let logical = self.logical_of_tags(node);
        if self.tags.is_empty(node) {
            self.tags.node_done(node, 0);
            self.relocate(logical, 0);
            return true;
        }
        if !self.fill_ready(Zone::Data, BUFFER_PAGES, allowance.writes) {
            return false;
        }
        let fill = self.writer.fill.as_mut().expect("ready");
        let (block, copy) = fill.next(self.tags.node_bytes(node));
        let tag = self.writer.key.tag(copy);
        self.tags.node_done(node, tag);
        self.blocks.take(Zone::Data, block);
        self.relocate(logical, block);
        self.statistics.nodes_written += 1;
        self.flush_if_full(io);
        true
    }

    /// Deals with one changed node of the address map, children before parents. False: it must wait.
    fn pump_map(&mut self, allowance: Allowance, io: &mut IoQueue) -> bool {
        let Some(node) = self.map.dirty_next() else {
            self.flush(io);
            self.finish_record();
            self.mode = Mode::Drain;
            if self.work == 0 {
                self.sync(io);
            }
            return false;
        };
        let mut reference = BlockReference::new_zeroed();
        if !self.map.is_empty(node) {
            if !self.fill_ready(Zone::MapFirst, BUFFER_PAGES, allowance.writes) {
                return false;
            }
            let fill = self.writer.fill.as_mut().expect("ready");
            let second = fill.second + fill.filled;
            let (first, copy) = fill.next(self.map.node_bytes(node));
            reference.tag = checksum::identity(copy);
            (reference.first, reference.second) = (first, second);
            self.blocks.take(Zone::MapFirst, first);
            self.blocks.take(Zone::MapSecond, second);
            self.statistics.nodes_written += 2;
        }
        let old = self.map.node_done(node, reference);
        self.blocks.release(old.first);
        self.blocks.release(old.second);
        self.flush_if_full(io);
        true
    }

    fn finish_record(&mut self) {
        let record = &mut self.writer.record;
        record.root = self.tags.root();
        record.map = self.map.root();
        let id = record.compute_id(self.writer.fingerprint);
        assert!(!self.writer.is_rewrite || record.id == id);
        record.id = id;
        assert_ne!(record.root, 0);
        assert_ne!(record.map.first, 0);
    }

    /// A logical page moves to another block, or is not stored any more.
    fn relocate(&mut self, logical: u32, block: u32) {
        let old = self.map.set_address(logical, block);
        self.blocks.release(old);
        self.generations.moved(logical);
    }

    /// Makes sure that there is a buffer with room for one page more, and blocks to write it to. False: none is free,
    /// or enough writes are in flight.
    fn fill_ready(&mut self, zone: Zone, wanted: u32, writes_max: usize) -> bool {
        if self.writer.fill.is_some() {
            return true;
        }
        if self.work >= writes_max {
            return false;
        }
        let Some(buffer) = self.buffers.pop() else {
            return false;
        };
        let wanted = wanted.min(BUFFER_PAGES);
        let (first, mut room) = self.blocks.find(zone, wanted);
        let mut second = 0;
        if zone == Zone::MapFirst {
            let (start, size) = self.blocks.find(Zone::MapSecond, room);
            (second, room) = (start, size);
        }
        assert!((1..=BUFFER_PAGES).contains(&room));
        self.writer.fill = Some(Fill {
            buffer,
            first,
            second,
            room,
            filled: 0,
        });
        true
    }

    fn fill_next(&mut self, content: &[u8]) -> (u32, &[u8]) {
        let fill = self.writer.fill.as_mut();
        fill.expect("made ready before").next(content)
    }

    fn flush_if_full(&mut self, io: &mut IoQueue) {
        if self
            .writer
            .fill
            .as_ref()
            .is_some_and(|fill| fill.filled == fill.room)
        {
            self.flush(io);
        }
    }

    /// Writes what the buffer has so far.
    fn flush(&mut self, io: &mut IoQueue) {
        if let Some(fill) = self.writer.fill.take() {
            assert!(fill.filled > 0);
            self.write(fill.first, fill.second, fill.filled, fill.buffer, io);
        }
    }

    fn write(
        &mut self,
        first: u32,
        second: u32,
        count: u32,
        buffer: AlignedBuffer,
        io: &mut IoQueue,
    ) {
        self.blocks.assert_writable(first, count);
        let id = self.begin_work(Purpose::Write { second, count });
        io.push(IoRequest::Write {
            id,
            at: self.layout.block_at(first),
            size: count as usize * PAGE_SIZE,
            buffer: Buffer::Sectors(buffer),
            durable: false,
        });
    }

    pub(super) fn on_write_done(
        &mut self,
        second: u32,
        count: u32,
        buffer: AlignedBuffer,
        io: &mut IoQueue,
    ) -> CheckpointEvent {
        if second != 0 && self.mode != Mode::Abandoned {
            self.write(second, 0, count, buffer, io);
            return CheckpointEvent::None;
        }
        self.buffers.push(buffer);
        if self.mode != Mode::Drain || self.work > 0 {
            return CheckpointEvent::None;
        }
        if R::SYNC_BEFORE_WRITTEN {
            self.sync(io);
            CheckpointEvent::None
        } else {
            self.mode = Mode::Written;
            CheckpointEvent::Written(self.writer.record)
        }
    }

    /// One sync for all: the writes were not durable one by one.
    fn sync(&mut self, io: &mut IoQueue) {
        assert_eq!(self.mode, Mode::Drain);
        assert_eq!(self.work, 0, "a sync covers what has completed");
        let id = self.begin_work(Purpose::Sync);
        io.push(IoRequest::Sync { id });
        self.mode = Mode::Sync;
    }

    pub(super) fn on_sync_done(&mut self) -> CheckpointEvent {
        if self.mode == Mode::Abandoned || self.mode == Mode::Idle {
            return CheckpointEvent::None; // it was for one that was given up
        }
        assert_eq!(self.mode, Mode::Sync);
        assert_eq!(self.buffers.len(), BUFFER_COUNT);
        self.mode = Mode::Written;
        CheckpointEvent::Written(self.writer.record)
    }

    /// Whether the checkpoint before the durable one stays the one before, once the checkpoint that was written is named: since
    /// that is the durable one in another place, or since not all of the durable one is here. Others may need the one before
    /// all the same.
    pub fn keeps_previous(&self, record: &CheckpointRecord) -> bool {
        let durable = self.generations.durable.record;
        self.generations.has_previous && durable.is_none_or(|durable| durable.id == record.id)
    }

    /// The superblock that names the checkpoint is durable. The one before it, or before the one that it writes anew, stays
    /// readable until the next time.
    pub fn installed(&mut self, record: &CheckpointRecord) {
        assert_eq!(self.mode, Mode::Written);
        assert_eq!(*record, self.writer.record);
        let next = !self.keeps_previous(record);
        self.record = *record;
        self.fetch.target.map = record.map;
        self.blocks.install(next);
        let whole = self.is_complete().then_some(record);
        self.generations.install(&self.tags, &self.map, whole, next);
        self.statistics.checkpoints += 1;
        self.mode = Mode::Idle;
    }
}

impl Fill {
    /// Copies a page into the buffer: its block, and the copy, which nobody changes any more.
    fn next(&mut self, content: &[u8]) -> (u32, &[u8]) {
        assert!(self.filled < self.room);
        let copy = &mut self.buffer[self.filled as usize * PAGE_SIZE..][..PAGE_SIZE];
        copy.copy_from_slice(content);
        let block = self.first + self.filled;
        self.filled += 1;
        (block, copy)
    }
}
