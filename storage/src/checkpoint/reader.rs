//! Opening a checkpoint: the address map from its root down, then the tag tree's nodes, then all pages.
//!
//! Every block that has an address is read, and what it holds goes where it belongs in memory, with a note of its tag;
//! only then is it asked what the checkpoint wants ([`super::fetch`]). So one bad block costs what was in it, a bad node
//! of the tag tree costs that node, and what an older map still has serves a sync that was cut short.
//!
//! Pages are read in the order of blocks, not of pages: copy-on-write scatters neighbours over the grid, but a grid a
//! third full has something to read in nearly every buffer's length, so that the whole state comes in large reads.

use super::{BUFFER_COUNT, BUFFER_PAGES, Checkpoint, CheckpointEvent, Mode, Purpose, Rules, Zone};
use crate::buffer::AlignedBuffer;
use crate::checksum::PageKey;
use crate::io::{Buffer, IoQueue, IoRequest};
use crate::layout::{Layout, PAGE_SIZE};
use crate::pages::{PageId, Pages};
use crate::superblock::CheckpointRecord;
use std::fmt;

/// Damages listed one by one; the rest is only counted.
const DAMAGES_LISTED_MAX: usize = 64;

/// Blocks that are not needed but read along, so that one read serves on both sides of them: 32 KiB, about what a
/// drive transfers in the time of another request.
const GAP_BLOCKS_MAX: u32 = 8;

/// What is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamagedItem {
    /// A node of the address map, in both copies.
    MapNode(u32),
    /// One copy of a node of the address map; the other is good.
    MapCopy(u32),
    /// A node of the tag tree.
    TagNode(u32),
    /// A page of state.
    Page(PageId),
    /// The pages are what the tags say, but the allocator's pages among them do not say the same of what is in use.
    Allocator,
}

/// One thing that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Damage {
    /// What.
    pub item: DamagedItem,
    /// The block where it should be; zero if no possible one is recorded.
    pub block: u32,
    /// The block's offset in the data file, in bytes.
    pub offset: u64,
}

impl Damage {
    pub(super) fn new(layout: &Layout, item: DamagedItem, block: u32) -> Self {
        let possible = (1..=layout.geometry.block_count()).contains(&block);
        Self {
            item,
            block: if possible { block } else { 0 },
            offset: if possible { layout.block_at(block) } else { 0 },
        }
    }
}

impl fmt::Display for DamagedItem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MapNode(node) => write!(formatter, "both copies of address map node {node}"),
            Self::MapCopy(node) => write!(formatter, "a copy of address map node {node}"),
            Self::TagNode(node) => write!(formatter, "tag tree node {node}"),
            Self::Page(page) => write!(formatter, "page {}", page.0),
            Self::Allocator => formatter.write_str("the page allocator's bitmap"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.item)?;
        match (self.item, self.block) {
            (DamagedItem::Allocator, _) => Ok(()),
            (_, 0) => formatter.write_str(" (in no valid block)"),
            (_, block) => write!(
                formatter,
                " (block {block}, offset {} of the data file)",
                self.offset
            ),
        }
    }
}

/// Why a checkpoint cannot be opened from this disk alone.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Damages {
    /// The op of the checkpoint.
    pub op: u64,
    /// Pages and nodes that are known to be missing, if the checkpoint was still being fetched from others. What a
    /// missing node would tell of is not counted.
    pub unfetched: u64,
    /// How much is damaged that could be looked at. Under a damaged node nothing can be.
    pub count: u64,
    /// The first of them.
    pub list: Vec<Damage>,
}

impl Damages {
    /// What to do where there is nobody to fetch it from.
    pub fn advice(&self) -> &'static str {
        if self.count > 0 {
            "check the device; then recover this replica from the others of its cluster; in a cluster of one or two restore \
             all data files from one backup"
        } else {
            "start the replica among the others, and it goes on"
        }
    }

    pub(super) fn new(op: u64) -> Self {
        Self {
            op,
            unfetched: 0,
            count: 0,
            list: Vec::with_capacity(DAMAGES_LISTED_MAX),
        }
    }

    pub(super) fn add(&mut self, damage: Damage) {
        self.count += 1;
        if self.list.len() < DAMAGES_LISTED_MAX {
            self.list.push(damage);
        }
    }
}

impl fmt::Display for Damages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.unfetched > 0 {
            write!(
                formatter,
                "the checkpoint of op {} was still being fetched from other replicas: {} pages and nodes known of are \
                 not here; ",
                self.op, self.unfetched
            )?;
            if self.count == 0 {
                return Ok(());
            }
        }
        write!(
            formatter,
            "the checkpoint of op {} is damaged in {} place(s): ",
            self.op, self.count
        )?;
        for damage in self.list.iter().take(4) {
            write!(formatter, "{damage}; ")?;
        }
        formatter.write_str("the disk returned other bytes than were written")
    }
}

/// Progress of opening.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) key: PageKey,
    /// The map may be of an older checkpoint.
    syncing: bool,
    /// The checkpoint before, if it is to be opened as well.
    pub(super) previous: Option<CheckpointRecord>,
    /// All nodes of its tag tree are good.
    pub(super) previous_known: bool,
    /// What is damaged of the durable one, until the one before is open as well.
    incomplete: Option<Damages>,
    /// A node of the map is lost, and with it the addresses under it.
    map_lost: bool,
    /// The level of the map being read; the top one first.
    level: usize,
    /// The next node, or block, to look at.
    pub(super) cursor: u32,
    damages: Damages,
}

impl Opening {
    pub(super) fn new() -> Self {
        Self {
            key: PageKey([0; 16]),
            syncing: false,
            previous: None,
            previous_known: true,
            incomplete: None,
            map_lost: false,
            level: 0,
            cursor: 0,
            damages: Damages::new(0),
        }
    }
}

impl<R: Rules> Checkpoint<R> {
    /// Begins to open the checkpoint that the superblock names, into new pages. `syncing`: pages of it were still being
    /// fetched from others when the superblock was written, and its map may be of an older one. The state before the
    /// first op is not stored: it is opened at once, and the caller makes it anew.
    ///
    /// `previous` is the checkpoint before, of which others may still want pages, if all of it is here.
    pub fn open_start(
        &mut self,
        record: &CheckpointRecord,
        previous: Option<&CheckpointRecord>,
        syncing: bool,
        pages: &mut Pages,
        io: &mut IoQueue,
    ) -> CheckpointEvent {
        assert_eq!(self.mode, Mode::New);
        self.record = *record;
        self.tags.open(record.root);
        self.map.open(record.map);
        self.blocks.open();
        self.generations.open();
        self.owners.fill(0);
        self.opening.key = PageKey(record.page_key);
        self.opening.syncing = syncing;
        self.opening.previous = previous.copied();
        self.opening.previous_known = true;
        self.opening.damages.op = record.prepare.op;
        if record.root == 0 {
            self.mode = Mode::Idle;
            self.generations.durable.record = Some(*record);
            return CheckpointEvent::Opened;
        }
        self.mode = Mode::OpenMap;
        self.opening.level = self.map.shape().levels() - 1;
        self.opening.cursor = self.map.shape().level(self.opening.level).start;
        self.open_continue(pages, io)
    }

    /// After a read: more reads, or the next phase, or the end.
    pub(super) fn open_continue(&mut self, pages: &mut Pages, io: &mut IoQueue) -> CheckpointEvent {
        loop {
            self.open_read(io);
            if self.work > 0 {
                return CheckpointEvent::None;
            }
            // Nothing in flight and nothing to read: this level is complete.
            match self.mode {
                Mode::OpenMap if self.opening.level > 0 => {
                    self.opening.level -= 1;
                    self.opening.cursor = self.map.shape().level(self.opening.level).start;
                }
                Mode::OpenMap => {
                    self.check_addresses();
                    self.mode = Mode::OpenTags;
                    self.opening.cursor = 0;
                }
                Mode::OpenTags => {
                    self.mode = Mode::OpenPages;
                    self.opening.cursor = self.blocks.zones().range(Zone::Data).start;
                }
                Mode::OpenPages => {
                    let event = self.open_finish(pages, io);
                    let Some(previous) = self.opening.previous else {
                        return event;
                    };
                    if let CheckpointEvent::Incomplete(damages) = event {
                        self.opening.incomplete = Some(damages);
                    }
                    self.open_previous(&previous);
                }
                Mode::OpenPreviousMap => {
                    self.mode = Mode::OpenPreviousTags;
                    self.opening.cursor = self.tags.shape().node_count();
                }
                Mode::OpenPreviousTags if self.opening.previous.is_some() => {
                    return self.finish_previous();
                }
                Mode::OpenPreviousTags => {
                    self.mode = Mode::Idle;
                    return self.is_opened();
                }
                _ => unreachable!("reads happen while opening"),
            }
        }
    }

    /// Both checkpoints are open.
    pub(super) fn is_opened(&mut self) -> CheckpointEvent {
        match self.opening.incomplete.take() {
            Some(damages) => CheckpointEvent::Incomplete(damages),
            None => CheckpointEvent::Opened,
        }
    }

    fn damage(&mut self, item: DamagedItem, block: u32) {
        let damage = Damage::new(&self.layout, item, block);
        self.opening.damages.add(damage);
    }

    /// Puts as many reads on their way as there are buffers.
    fn open_read(&mut self, io: &mut IoQueue) {
        while !self.buffers.is_empty() {
            let more = match self.mode {
                Mode::OpenMap => self.open_read_map(io),
                Mode::OpenTags => self.open_read_tags(io),
                Mode::OpenPages => self.open_read_pages(io),
                Mode::OpenPreviousMap => self.open_read_previous_map(io),
                Mode::OpenPreviousTags => self.open_read_previous_tags(io),
                _ => false,
            };
            if !more {
                break;
            }
        }
    }

    pub(super) fn read(&mut self, block: u32, count: u32, purpose: Purpose, io: &mut IoQueue) {
        let buffer = self.buffers.pop().expect("asked before");
        self.read_into(buffer, block, count, purpose, io);
    }

    fn read_into(
        &mut self,
        buffer: AlignedBuffer,
        block: u32,
        count: u32,
        purpose: Purpose,
        io: &mut IoQueue,
    ) {
        assert!((1..=BUFFER_PAGES).contains(&count));
        let id = self.begin_work(purpose);
        io.push(IoRequest::Read {
            id,
            at: self.layout.block_at(block),
            size: count as usize * PAGE_SIZE,
            buffer: Buffer::Sectors(buffer),
        });
    }

    fn open_read_map(&mut self, io: &mut IoQueue) -> bool {
        let node = self.opening.cursor;
        if node == self.map.shape().level(self.opening.level).end {
            return false;
        }
        self.opening.cursor += 1;
        let reference = self.map.reference(node);
        if reference.first == 0 {
            return true; // no address under it
        }
        let first = self.blocks.restore(Zone::MapFirst, reference.first);
        let second = self.blocks.restore(Zone::MapSecond, reference.second);
        if first && second {
            let purpose = Purpose::ReadMap {
                node,
                second: false,
            };
            self.read(reference.first, 1, purpose, io);
            return true;
        }
        if first {
            self.blocks.unrestore(reference.first);
        }
        if second {
            self.blocks.unrestore(reference.second);
        }
        self.map.forget(node);
        self.opening.map_lost = true;
        self.damage(DamagedItem::MapNode(node), 0);
        true
    }

    pub(super) fn on_read_map_done(
        &mut self,
        node: u32,
        second: bool,
        buffer: AlignedBuffer,
        io: &mut IoQueue,
    ) {
        let reference = self.map.reference(node);
        if self.map.load(node, &buffer[..PAGE_SIZE]) {
            self.buffers.push(buffer);
        } else if second {
            self.buffers.push(buffer);
            self.opening.map_lost = true;
            self.damage(DamagedItem::MapNode(node), reference.second);
        } else {
            // One copy is enough to go on; the next checkpoint makes it two again.
            self.statistics.map_copies_bad += 1;
            self.map.rewrite(node);
            let purpose = Purpose::ReadMap { node, second: true };
            self.read_into(buffer, reference.second, 1, purpose, io);
        }
    }

    /// All addresses are known: claims their blocks. One that cannot be is none.
    fn check_addresses(&mut self) {
        for logical in 0..self.tags.logical_count() {
            let block = self.map.address(logical);
            if block == 0 {
                continue;
            }
            if self.blocks.restore(Zone::Data, block) {
                self.owners[block as usize] = logical + 1;
            } else {
                self.map.set_address(logical, 0);
                self.damage(self.item_of(logical), block);
            }
        }
    }

    pub(super) fn item_of(&self, logical: u32) -> DamagedItem {
        match self.tags.node_of(logical) {
            None => DamagedItem::Page(PageId(logical)),
            Some(node) => DamagedItem::TagNode(node),
        }
    }

    /// Reads nodes of the tag tree that lie one after the other.
    fn open_read_tags(&mut self, io: &mut IoQueue) -> bool {
        let end = self.tags.shape().node_count();
        let node = self.opening.cursor;
        if node == end {
            return false;
        }
        let block = self.map.address(self.logical_of_tags(node));
        if !self.has_tags_in(block, node) {
            self.opening.cursor += 1;
            return true;
        }
        let mut count = 1;
        while count < BUFFER_PAGES
            && node + count < end
            && self.has_tags_in(block + count, node + count)
        {
            count += 1;
        }
        self.opening.cursor += count;
        self.read(block, count, Purpose::ReadTags { node, count }, io);
        true
    }

    /// Whether a block is that of a node of the tag tree.
    fn has_tags_in(&self, block: u32, node: u32) -> bool {
        block != 0 && self.owners.get(block as usize) == Some(&(self.logical_of_tags(node) + 1))
    }

    pub(super) fn on_read_tags_done(&mut self, node: u32, count: u32, buffer: AlignedBuffer) {
        for index in 0..count {
            let bytes = &buffer[index as usize * PAGE_SIZE..][..PAGE_SIZE];
            let logical = self.logical_of_tags(node + index);
            self.generations.read(logical, self.opening.key.tag(bytes));
            self.tags.put(node + index, bytes);
        }
        self.buffers.push(buffer);
    }

    /// The first block at or after `from` that holds a page of state.
    fn page_block_next(&self, from: u32, end: u32) -> Option<u32> {
        (from..end).find(|&block| self.page_in(block).is_some())
    }

    /// The page of state that the map has in a block.
    fn page_in(&self, block: u32) -> Option<PageId> {
        let page = self.owners[block as usize].checked_sub(1)?;
        (page < self.layout.geometry.page_count()).then_some(PageId(page))
    }

    fn open_read_pages(&mut self, io: &mut IoQueue) -> bool {
        let end = self.blocks.zones().range(Zone::Data).end;
        let Some(block) = self.page_block_next(self.opening.cursor, end) else {
            self.opening.cursor = end;
            return false;
        };
        let window_end = end.min(block + BUFFER_PAGES);
        let mut last = block;
        while let Some(next) =
            self.page_block_next(last + 1, window_end.min(last + 2 + GAP_BLOCKS_MAX))
        {
            last = next;
        }
        let count = last + 1 - block;
        self.opening.cursor = last + 1;
        self.read(block, count, Purpose::ReadPages { block, count }, io);
        true
    }

    pub(super) fn on_read_pages_done(
        &mut self,
        block: u32,
        count: u32,
        buffer: AlignedBuffer,
        pages: &mut Pages,
    ) {
        for index in 0..count {
            let Some(page) = self.page_in(block + index) else {
                continue; // read along
            };
            let bytes = &buffer[index as usize * PAGE_SIZE..][..PAGE_SIZE];
            let tag = if R::CHECK_BLOCK {
                self.opening.key.tag(bytes)
            } else {
                self.tags.page_tag(page.0)
            };
            self.generations.read(page.0, tag);
            pages.restore(page, bytes);
        }
        self.buffers.push(buffer);
    }

    /// All is in memory that has a block: compares it with what the checkpoint wants.
    fn open_finish(&mut self, pages: &mut Pages, io: &mut IoQueue) -> CheckpointEvent {
        assert_eq!(self.buffers.len(), BUFFER_COUNT);
        assert_eq!(pages.count(), self.layout.geometry.page_count());
        self.mode = Mode::Idle;
        self.generations.opened(&self.map, None);
        let record = self.record;
        self.aim(&record);
        self.fetch.memory_is_disk = true;
        while self.resolve_next(pages, io) {}
        self.fetch.memory_is_disk = false;
        self.report_missing();
        let damages = std::mem::replace(&mut self.opening.damages, Damages::new(0));
        if damages.count > 0 || damages.unfetched > 0 {
            return CheckpointEvent::Incomplete(damages);
        }
        if !self.fetch_finish(pages) {
            let mut damages = damages;
            damages.add(Damage::new(&self.layout, DamagedItem::Allocator, 0));
            return CheckpointEvent::Incomplete(damages);
        }
        if !self.opening.syncing {
            self.generations.durable.record = Some(record);
            self.rewrite_bad_nodes();
        }
        CheckpointEvent::Opened
    }

    /// Nodes of the tag tree whose blocks are bad, and which what is under them has told: the next checkpoint writes them
    /// anew.
    fn rewrite_bad_nodes(&mut self) {
        for node in 0..self.tags.shape().node_count() {
            let logical = self.logical_of_tags(node);
            let tag = self.tags.node_tag(node);
            if tag != 0 && self.generations.durable.block_of(logical, tag).is_none() {
                self.statistics.tag_nodes_bad += 1;
                self.tags.rewrite(node);
            }
        }
    }

    /// Names what the disk should have and has not; what it has and should not have is as wrong.
    fn report_missing(&mut self) {
        if self.opening.syncing {
            self.opening.damages.unfetched = self.fetch_progress().missing;
            return;
        }
        for logical in 0..self.tags.logical_count() {
            let block = self.map.address(logical);
            let stray = block != 0 && self.is_wanted_empty(logical);
            // What a lost node of the map knew is not damaged itself.
            let lost = self.fetch.is_missing(logical) && !(block == 0 && self.opening.map_lost);
            if stray || lost {
                self.damage(self.item_of(logical), block);
            }
        }
    }

    /// Whether it is known that a page or node is not to be there.
    fn is_wanted_empty(&self, logical: u32) -> bool {
        let known = match self.tags.node_of(logical) {
            None => {
                let leaf = logical as usize / super::tags::TAGS_PER_NODE;
                self.fetch.known.contains(leaf)
            }
            Some(node) => match self.tags.shape().parent(node) {
                None => true,
                Some((parent, _)) => self.fetch.known.contains(parent as usize),
            },
        };
        known && self.tags.tag(logical) == 0
    }
}
