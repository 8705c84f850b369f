//! Serving other replicas: pages and nodes of the durable checkpoint and of the one before it, by number and tag.
//!
//! Nodes come from memory, pages from memory if they have not changed since, else from their blocks. Nothing leaves
//! whose tag was not checked here. A bounded number of reads is in flight, beside those of the writer: who asks for more
//! is told to ask again.

use super::{Checkpoint, CheckpointEvent, Purpose, Rules};
use crate::buffer::AlignedBuffer;
use crate::checksum::PageKey;
use crate::header::PageReference;
use crate::io::{Buffer, IoQueue, IoRequest};
use crate::layout::PAGE_SIZE;
use crate::pages::{PageId, Pages};
use crate::superblock::{BlockReference, CheckpointRecord};
use zerocopy::FromZeros;

/// Pages being read for others at one time: 64 KiB in flight, which a drive hardly notices, and in latencies of 100 us
/// still 600 MB/s.
pub const SERVE_READS_MAX: usize = 16;

/// What is done about a page that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serve {
    /// It has been put where it was wanted.
    Here,
    /// It is being read: [`CheckpointEvent::Served`] will tell.
    Reading,
    /// Enough is being read already.
    Busy,
    /// It is not here (any more).
    NotHere,
}

/// A page that was read for another replica, until it is given back ([`Checkpoint::serve_done`]).
#[derive(Debug)]
#[must_use = "its buffer is to be given back"]
pub struct ServedPage {
    place: usize,
    reference: PageReference,
}

impl ServedPage {
    /// Which page it is.
    pub fn reference(&self) -> &PageReference {
        &self.reference
    }
}

/// A read in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    place: usize,
    token: u64,
    logical: u32,
    tag: u128,
}

/// One place for each read.
#[derive(Debug)]
pub(super) struct Serving {
    /// None while a read or a page that was handed out has it.
    buffers: [Option<AlignedBuffer>; SERVE_READS_MAX],
    /// Pages that wait to be given back.
    handed_out: [Option<AlignedBuffer>; SERVE_READS_MAX],
}

impl Serving {
    pub(super) fn new() -> Self {
        Self {
            buffers: std::array::from_fn(|_| Some(AlignedBuffer::new(PAGE_SIZE))),
            handed_out: std::array::from_fn(|_| None),
        }
    }
}

impl<R: Rules> Checkpoint<R> {
    /// The checkpoints of which all is here, the newer one first; without their maps, which are this replica's own affair.
    /// The state before the first op is among them.
    pub fn records(&self) -> impl Iterator<Item = CheckpointRecord> + '_ {
        [&self.generations.durable, &self.generations.previous]
            .into_iter()
            .filter_map(|generation| generation.record)
            .map(|record| CheckpointRecord {
                map: BlockReference::new_zeroed(),
                ..record
            })
    }

    /// Looks for a page or node that another replica asks for. If it is in memory it is copied to `into`, of a page's
    /// size; if it is on the disk, it is read, and [`CheckpointEvent::Served`] comes with `token`.
    pub fn serve(
        &mut self,
        reference: &PageReference,
        token: u64,
        pages: &Pages,
        into: &mut [u8],
        io: &mut IoQueue,
    ) -> Serve {
        let (logical, tag) = (reference.logical, reference.tag);
        if self.is_opening() || logical >= self.tags.logical_count() || tag == 0 {
            return Serve::NotHere;
        }
        if let Some(bytes) = self.in_memory(logical, tag, pages) {
            into.copy_from_slice(bytes);
            return Serve::Here;
        }
        let (durable, previous) = (&self.generations.durable, &self.generations.previous);
        let block = durable
            .block_of(logical, tag)
            .or_else(|| previous.block_to_try(logical, tag));
        let Some(block) = block else {
            return Serve::NotHere;
        };
        let free = self.serving.buffers.iter().position(Option::is_some);
        let Some(place) = free else {
            return Serve::Busy;
        };
        let buffer = self.serving.buffers[place].take().expect("it was free");
        let reading = Reading {
            place,
            token,
            logical,
            tag,
        };
        let id = self.in_flight.begin(Purpose::Serve(reading));
        io.push(IoRequest::Read {
            id,
            at: self.layout.block_at(block),
            size: PAGE_SIZE,
            buffer: Buffer::Sectors(buffer),
        });
        Serve::Reading
    }

    pub(super) fn page_key(&self) -> PageKey {
        let record = if self.fetch.active {
            &self.fetch.target
        } else {
            &self.record
        };
        PageKey(record.page_key)
    }

    /// A page or node with this tag, if it is in memory.
    pub(super) fn in_memory<'a>(
        &'a self,
        logical: u32,
        tag: u128,
        pages: &'a Pages,
    ) -> Option<&'a [u8]> {
        let key = self.page_key();
        let Some(node) = self.tags.node_of(logical) else {
            let page = PageId(logical);
            // What was changed since has another tag: it is not worth hashing.
            let unchanged = if self.fetch.active {
                !self.fetch.is_pending(logical)
            } else {
                pages.is_clean(page)
            };
            let content = &pages.content(page)[..];
            let holds = unchanged && self.tags.page_tag(logical) == tag && key.tag(content) == tag;
            return holds.then_some(content);
        };
        let trees = [
            &self.generations.durable.tags,
            &self.tags,
            &self.generations.previous.tags,
        ];
        trees
            .into_iter()
            .filter(|tree| tree.tag(logical) == tag)
            .map(|tree| tree.node_bytes(node))
            .find(|bytes| key.tag(bytes) == tag)
    }

    pub(super) fn on_served(&mut self, reading: Reading, buffer: AlignedBuffer) -> CheckpointEvent {
        let Reading {
            place,
            token,
            logical,
            tag,
        } = reading;
        if self.page_key().tag(&buffer) == tag {
            self.serving.handed_out[place] = Some(buffer);
            let reference = PageReference {
                tag,
                logical,
                reserved: [0; 12],
            };
            let page = Some(ServedPage { place, reference });
            return CheckpointEvent::Served { token, page };
        }
        self.serving.buffers[place] = Some(buffer);
        if self.generations.durable.block_of(logical, tag).is_some() {
            self.scrub_next(logical); // not only an old block that has been used again meanwhile
        }
        CheckpointEvent::Served { token, page: None }
    }

    /// The content of a page that was read.
    pub fn served(&self, page: &ServedPage) -> &[u8] {
        let buffer = self.serving.handed_out[page.place].as_ref();
        buffer.expect("it was handed out and not given back")
    }

    /// A page that was read is not needed any more.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is given back, and must not be used again"
    )]
    pub fn serve_done(&mut self, page: ServedPage) {
        let place = page.place;
        let buffer = self.serving.handed_out[place].take();
        assert!(buffer.is_some() && self.serving.buffers[place].is_none());
        self.serving.buffers[place] = buffer;
    }
}
