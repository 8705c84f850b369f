//! Checkpoints: the whole state on disk as it was when one op committed, written in the background.
//!
//! What a checkpoint consists of, all in blocks of the grid:
//! * every page in use (`tags` says which, and what each one's content must be);
//! * the *tag tree*, a hash tree over the pages; equal on all replicas; its root and the op name the checkpoint;
//! * the *address map*, which says in which block each page and each node of the tag tree lies; local; written twice.
//!
//! Promises:
//! * **A crash at any point opens the old or the new checkpoint.** Only free blocks are written; a block that the
//!   durable checkpoint or the one before it can reach is never touched (asserted at each write). The superblock names
//!   the new one only after a sync that covers all of it.
//! * **Commits go on.** Pages are frozen in O(1), copied into I/O buffers (so neither the kernel nor a slow disk ever
//!   sees the arena) and hashed there, a bounded number in each call, paced over the following ops.
//! * **Clean pages are not written**, nor are nodes nothing under which has changed.
//! * **What cannot be read is named**, page by page, and is no panic.
//!
//! The replica drives it: [`Checkpoint::open_start`] once; then, at each checkpoint, [`Pages::freeze`],
//! [`Checkpoint::begin`], [`Checkpoint::pump`] after each commit and completion, a superblock write when
//! [`CheckpointEvent::Written`] comes, and [`Checkpoint::installed`] when that is durable.
//!
//! What cannot be read, or is to be another checkpoint's, is fetched from other replicas ([`Checkpoint::fetch_start`] and
//! what follows it) and written anew; others are served from the durable checkpoint and the one before
//! ([`Checkpoint::serve`]); and the scrubber looks for decay while there are copies ([`Checkpoint::scrub`]).

mod blocks;
mod compare;
mod fetch;
mod generation;
mod map;
mod pace;
mod previous;
mod reader;
mod rewrite;
mod scrub;
mod serve;
mod shape;
mod tags;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

pub use compare::Comparison;
pub use fetch::{FetchProgress, Taken};
pub use reader::{Damage, DamagedItem, Damages};
pub use scrub::{ScrubStatistics, Scrubbed};
pub use serve::{SERVE_READS_MAX, Serve, ServedPage};
pub use walk::{Walk, locate, walk};
pub use writer::CheckpointStart;

use crate::buffer::AlignedBuffer;
use crate::io::{Buffer, InFlight, IoDone, IoError, IoId, IoOwner, IoQueue};
use crate::layout::{Layout, PAGE_SIZE};
use crate::pages::Pages;
use crate::superblock::CheckpointRecord;
use blocks::{Blocks, Zone};
use fetch::Fetch;
use generation::Generations;
use map::AddressMap;
use reader::Opening;
use scrub::Scrub;
use serve::Serving;
use std::marker::PhantomData;
use tags::TagTree;
use writer::Writer;
use zerocopy::FromZeros;

/// Pages in an I/O buffer: 128 KiB. Larger writes gain a drive little, and a journal write would queue behind them
/// for longer (128 KiB take about 100 us at 1.3 GB/s, about what a journal write itself takes).
const BUFFER_PAGES: u32 = 32;

/// I/O buffers, and so reads and writes in flight at most: 1 MiB, enough for a drive's full bandwidth at open and when
/// the deadline is near. Pacing keeps far fewer busy otherwise.
const BUFFER_COUNT: usize = 8;

/// Pages (or nodes) copied and hashed in one call of [`Checkpoint::pump`]: about 20 us when they come from memory
/// (260 ns to hash, 100 to 400 to copy), a fraction of the journal write that each op waits for.
const PUMP_PAGES_MAX: u32 = 32;

/// What the simulator may break on purpose, to see that it is noticed.
pub trait Rules {
    /// Whether a checkpoint is synced before it is said to be written.
    const SYNC_BEFORE_WRITTEN: bool = true;
    /// Whether a page that is read back must have the tag that the checkpoint names.
    const CHECK_BLOCK: bool = true;
}

/// Nothing is broken.
#[derive(Clone, Copy, Debug)]
pub struct Strict;

impl Rules for Strict {}

/// What a completion has brought about.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once per checkpoint, and never stored; a box would be an allocation on the event loop"
)]
pub enum CheckpointEvent {
    /// Nothing to tell.
    None,
    /// All pages are restored.
    Opened,
    /// The state is not complete: the disk is damaged, or a sync was cut short. What is missing is now to be fetched
    /// ([`Checkpoint::fetch_pump`]); alone, a replica cannot go on.
    Incomplete(Damages),
    /// The new checkpoint is durable, save for its mention in the superblock: write that, then call
    /// [`Checkpoint::installed`].
    Written(CheckpointRecord),
    /// A read for another replica has ended ([`Checkpoint::serve`]).
    Served {
        /// As given to `serve`.
        token: u64,
        /// The page, to be given back; none: it cannot be read (any more).
        page: Option<ServedPage>,
    },
    /// A step of the scrubber has ended ([`Checkpoint::scrub`]).
    Scrubbed(Scrubbed),
}

/// Counters, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckpointStatistics {
    /// Checkpoints made durable since the start.
    pub checkpoints: u64,
    /// Pages of state written since the start.
    pub pages_written: u64,
    /// Nodes of the tag tree and of the address map (both copies) written since the start.
    pub nodes_written: u64,
    /// Blocks of the grid that may be written now.
    pub blocks_free: u32,
    /// Blocks of the durable checkpoint.
    pub blocks_durable: u32,
    /// Copies of map nodes that were bad at open, and will be written anew.
    pub map_copies_bad: u32,
    /// Nodes of the tag tree that were bad at open, were made out from what is under them, and will be written anew.
    pub tag_nodes_bad: u32,
}

impl CheckpointStatistics {
    /// Bytes written to the grid since the start.
    pub fn bytes_written(&self) -> u64 {
        (self.pages_written + self.nodes_written) * PAGE_SIZE as u64
    }
}

/// What is going on. In the order in which a checkpoint is opened, then written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Not yet opened.
    New,
    /// Reading a level of the address map.
    OpenMap,
    /// Reading the nodes of the tag tree.
    OpenTags,
    /// Reading the pages.
    OpenPages,
    /// Reading the address map of the checkpoint before.
    OpenPreviousMap,
    /// Reading its tag tree.
    OpenPreviousTags,
    /// The durable checkpoint is all there is.
    Idle,
    /// Copying frozen pages.
    WritePages,
    /// Copying changed nodes of the tag tree.
    WriteTags,
    /// Copying changed nodes of the address map.
    WriteMap,
    /// Waiting for the last writes.
    Drain,
    /// Waiting for the sync.
    Sync,
    /// Waiting for the superblock.
    Written,
    /// Given up: waiting for the writes on their way.
    Abandoned,
}

/// What an I/O in flight is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    ReadMap { node: u32, second: bool },
    ReadTags { node: u32, count: u32 },
    ReadPages { block: u32, count: u32 },
    ReadPreviousMap { node: u32, second: bool },
    ReadPreviousTags { node: u32 },
    ReadFetch { logical: u32 },
    Write { second: u32, count: u32 },
    Sync,
    Serve(serve::Reading),
    ScrubRead(scrub::Reading),
    ScrubWrite(scrub::Reading),
}

/// The checkpoint of one data file: opens the durable one, writes new ones. See the module's description.
#[derive(Debug)]
pub struct Checkpoint<R: Rules = Strict> {
    layout: Layout,
    mode: Mode,
    /// The durable checkpoint.
    record: CheckpointRecord,
    tags: TagTree,
    map: AddressMap,
    blocks: Blocks,
    /// Which logical page the durable checkpoint has in a block, plus one; as of open.
    owners: Box<[u32]>,
    buffers: Vec<AlignedBuffer>,
    in_flight: InFlight<Purpose>,
    /// I/Os in flight of opening, writing and fetching: those that have a buffer of `buffers`, and the sync.
    work: usize,
    /// What the blocks of the last two checkpoints hold.
    generations: Generations,
    opening: Opening,
    fetch: Fetch,
    serving: Serving,
    scrub: Scrub,
    writer: Writer,
    statistics: CheckpointStatistics,
    rules: PhantomData<R>,
}

impl Checkpoint {
    /// A checkpoint of a data file, not yet opened. All its memory is allocated here.
    pub fn new(layout: Layout) -> Self {
        Self::with_rules(layout)
    }

    /// Bytes that [`Checkpoint::new`] allocates for a layout: tags and addresses three times (those in work, and of the last
    /// two checkpoints), what is known of each page while some are fetched, and the buffers.
    pub fn memory(layout: &Layout) -> usize {
        let tags = TagTree::shape_of(layout.geometry.page_count());
        let pages = layout.geometry.page_count() as usize;
        let logical = pages + tags.node_count() as usize;
        let blocks = layout.geometry.block_count() as usize;
        let trees = 3 * (tags.node_count() as usize * PAGE_SIZE + logical * size_of::<u32>());
        let sets = (8 * logical + 5 * blocks) / 8;
        let buffers = (BUFFER_COUNT * BUFFER_PAGES as usize + SERVE_READS_MAX + 1) * PAGE_SIZE;
        trees + sets + blocks * size_of::<u32>() + buffers
    }

    /// Most requests that this part has in the I/O queue and in flight at one time.
    pub fn io_max(_layout: &Layout) -> usize {
        BUFFER_COUNT + SERVE_READS_MAX + 1
    }
}

impl<R: Rules> Checkpoint<R> {
    /// As [`Checkpoint::new`], with rules to break.
    pub fn with_rules(layout: Layout) -> Self {
        let page_count = layout.geometry.page_count();
        let tags = TagTree::new(page_count);
        let (logical_count, node_count) = (tags.logical_count(), tags.shape().node_count());
        let map = AddressMap::new(logical_count);
        Self {
            layout,
            mode: Mode::New,
            record: CheckpointRecord::new_zeroed(),
            tags,
            map,
            blocks: Blocks::new(&layout.geometry),
            owners: vec![0; layout.geometry.block_count() as usize + 1].into_boxed_slice(),
            buffers: (0..BUFFER_COUNT)
                .map(|_| AlignedBuffer::scratch(BUFFER_PAGES as usize * PAGE_SIZE))
                .collect(),
            in_flight: InFlight::new(IoOwner::Checkpoint, Checkpoint::io_max(&layout)),
            work: 0,
            generations: Generations::new(page_count),
            opening: Opening::new(),
            fetch: Fetch::new(logical_count, node_count),
            serving: Serving::new(),
            scrub: Scrub::new(),
            writer: Writer::new(),
            statistics: CheckpointStatistics::default(),
            rules: PhantomData,
        }
    }

    /// The durable checkpoint.
    pub fn record(&self) -> &CheckpointRecord {
        &self.record
    }

    /// Whether a checkpoint has begun and is not yet installed.
    pub fn is_writing(&self) -> bool {
        matches!(
            self.mode,
            Mode::WritePages
                | Mode::WriteTags
                | Mode::WriteMap
                | Mode::Drain
                | Mode::Sync
                | Mode::Written
        )
    }

    /// Counters.
    pub fn statistics(&self) -> CheckpointStatistics {
        CheckpointStatistics {
            blocks_free: self.blocks.free(),
            blocks_durable: self.blocks.durable_count(),
            ..self.statistics
        }
    }

    /// Takes a completion. While writing, call [`Self::pump`] afterwards.
    ///
    /// # Errors
    /// The disk failed a write or a sync: what it holds is unknown, and the replica must stop. A failed read is none:
    /// what was asked for counts as damaged.
    pub fn on_io_done(
        &mut self,
        done: IoDone,
        pages: &mut Pages,
        io: &mut IoQueue,
    ) -> Result<CheckpointEvent, IoError> {
        let purpose = self
            .in_flight
            .finish(done.id)
            .expect("nothing of ours is cancelled, so no completion is stale");
        let mut buffer = done.buffer;
        match (&purpose, &mut buffer) {
            (Purpose::Write { .. } | Purpose::ScrubWrite(_) | Purpose::Sync, _) => done.result?,
            // What cannot be read is damaged, page by page.
            (_, Some(buffer)) => buffer.settle_read(&done.result),
            (purpose, None) => unreachable!("{purpose:?} comes home with its buffer"),
        }
        let buffer = buffer.map(|buffer| match buffer {
            Buffer::Sectors(buffer) => buffer,
            Buffer::Message(_) | Buffer::Shared(_) => unreachable!("we send sectors"),
        });
        match (purpose, buffer) {
            (Purpose::Serve(reading), Some(buffer)) => Ok(self.on_served(reading, buffer)),
            (Purpose::ScrubRead(reading), Some(buffer)) => {
                Ok(self.on_scrub_read(reading, buffer, pages, io))
            }
            (Purpose::ScrubWrite(reading), Some(buffer)) => {
                Ok(self.on_scrub_written(reading, buffer))
            }
            (purpose, buffer) => Ok(self.on_work_done(purpose, buffer, pages, io)),
        }
    }

    /// I/O of opening, writing or fetching has completed.
    fn on_work_done(
        &mut self,
        purpose: Purpose,
        buffer: Option<AlignedBuffer>,
        pages: &mut Pages,
        io: &mut IoQueue,
    ) -> CheckpointEvent {
        self.work -= 1;
        let event = match (purpose, buffer) {
            (Purpose::Sync, None) => self.on_sync_done(),
            (Purpose::Write { second, count }, Some(buffer)) => {
                self.on_write_done(second, count, buffer, io)
            }
            (Purpose::ReadMap { node, second }, Some(buffer)) => {
                self.on_read_map_done(node, second, buffer, io);
                self.open_continue(pages, io)
            }
            (Purpose::ReadTags { node, count }, Some(buffer)) => {
                self.on_read_tags_done(node, count, buffer);
                self.open_continue(pages, io)
            }
            (Purpose::ReadPages { block, count }, Some(buffer)) => {
                self.on_read_pages_done(block, count, buffer, pages);
                self.open_continue(pages, io)
            }
            (Purpose::ReadPreviousMap { node, second }, Some(buffer)) => {
                self.on_read_previous_map_done(node, second, buffer, io);
                self.open_continue(pages, io)
            }
            (Purpose::ReadPreviousTags { node }, Some(buffer)) => {
                self.on_read_previous_tags_done(node, buffer);
                self.open_continue(pages, io)
            }
            (Purpose::ReadFetch { logical }, Some(buffer)) => {
                self.on_read_fetch_done(logical, buffer, pages);
                CheckpointEvent::None
            }
            (purpose, _) => unreachable!("{purpose:?} comes home with its buffer"),
        };
        if self.mode == Mode::Abandoned && self.work == 0 {
            self.mode = Mode::Idle;
        }
        event
    }

    fn begin_work(&mut self, purpose: Purpose) -> IoId {
        self.work += 1;
        self.in_flight.begin(purpose)
    }

    fn is_opening(&self) -> bool {
        matches!(
            self.mode,
            Mode::New
                | Mode::OpenMap
                | Mode::OpenTags
                | Mode::OpenPages
                | Mode::OpenPreviousMap
                | Mode::OpenPreviousTags
        )
    }

    /// The logical page of a node of the tag tree: they follow the state's pages.
    fn logical_of_tags(&self, node: u32) -> u32 {
        self.layout.geometry.page_count() + node
    }
}
