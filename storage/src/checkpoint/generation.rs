//! What the blocks of a checkpoint hold, in memory: tags and addresses of the durable one and of the one before it.
//!
//! The writer changes the working tags and addresses as it goes; these stand still until a checkpoint is installed. They
//! are what others are served from, what the scrubber compares with, and what is gone back to when a checkpoint is given
//! up. A tag here is that of the bytes in the block, whatever they should be: after damage, or in the middle of a sync,
//! those are two things.

use super::map::AddressMap;
use super::tags::TagTree;
use crate::bits::Bits;
use crate::superblock::{BlockReference, CheckpointRecord};
use zerocopy::FromZeros;

/// The blocks of one checkpoint.
#[derive(Debug)]
pub(super) struct Generation {
    /// Names the checkpoint, if all of it is in its blocks.
    pub(super) record: Option<CheckpointRecord>,
    pub(super) tags: TagTree,
    pub(super) map: AddressMap,
}

impl Generation {
    fn new(page_count: u32) -> Self {
        let tags = TagTree::new(page_count);
        Self {
            record: None,
            map: AddressMap::new(tags.logical_count()),
            tags,
        }
    }

    fn record_block(&mut self, logical: u32, tag: u128, block: u32) {
        self.tags.record_tag(logical, tag);
        self.map.record_address(logical, block);
    }

    /// The block that holds exactly this content of a logical page.
    pub(super) fn block_of(&self, logical: u32, tag: u128) -> Option<u32> {
        let block = self.map.address(logical);
        (block != 0 && tag != 0 && self.tags.tag(logical) == tag).then_some(block)
    }
}

impl Generation {
    /// The block in which this content may be: it is known what the block holds, or nothing of it.
    pub(super) fn block_to_try(&self, logical: u32, tag: u128) -> Option<u32> {
        let block = self.map.address(logical);
        let unknown = block != 0 && self.tags.tag(logical) == 0;
        self.block_of(logical, tag)
            .or_else(|| unknown.then_some(block))
    }
}

/// The durable checkpoint and the one before it.
#[derive(Debug)]
pub(super) struct Generations {
    pub(super) durable: Generation,
    pub(super) previous: Generation,
    /// Whether anything of the one before is here; not all of it may be.
    pub(super) has_previous: bool,
    /// Logical pages that the checkpoint being written has moved.
    written: Bits,
    /// Those that the durable one had moved.
    written_before: Bits,
}

impl Generations {
    pub(super) fn new(page_count: u32) -> Self {
        let durable = Generation::new(page_count);
        let logical_count = durable.tags.logical_count() as usize;
        Self {
            durable,
            previous: Generation::new(page_count),
            has_previous: false,
            written: Bits::new(logical_count),
            written_before: Bits::new(logical_count),
        }
    }

    /// Begins to open: nothing is known of any block.
    pub(super) fn open(&mut self) {
        self.durable.record = None;
        self.durable.tags.open(0);
        self.durable.map.open(BlockReference::new_zeroed());
        self.forget_previous();
        self.written.clear();
        self.written_before.clear();
    }

    /// The durable checkpoint's blocks have been read: `working` says where they are.
    pub(super) fn opened(&mut self, working: &AddressMap, record: Option<&CheckpointRecord>) {
        for logical in 0..self.durable.tags.logical_count() {
            let block = working.address(logical);
            self.durable.map.record_address(logical, block);
            if block != 0 {
                self.written_before.insert(logical as usize); // the one before is not known, and follows
            }
        }
        self.durable.map.copy_nodes_from(working);
        self.durable.record = record.copied();
    }

    /// What the one before the durable one has is known.
    pub(super) fn previous_opened(&mut self) {
        self.has_previous = true;
        let (durable, previous) = (&self.durable, &self.previous);
        for logical in 0..durable.tags.logical_count() {
            let tags_differ = durable.tags.tag(logical) != previous.tags.tag(logical);
            let blocks_differ = durable.map.address(logical) != previous.map.address(logical);
            if tags_differ || blocks_differ {
                self.written_before.insert(logical as usize);
            } else {
                self.written_before.remove(logical as usize);
            }
        }
    }

    /// Nothing is known of the one before the durable one.
    pub(super) fn forget_previous(&mut self) {
        self.has_previous = false;
        self.previous.record = None;
        self.previous.tags.open(0);
        self.previous.map.open(BlockReference::new_zeroed());
    }

    /// What a block holds, as it was read.
    pub(super) fn read(&mut self, logical: u32, tag: u128) {
        self.durable.tags.record_tag(logical, tag);
    }

    /// A logical page has another block in the checkpoint being written, or none.
    pub(super) fn moved(&mut self, logical: u32) {
        self.written.insert(logical as usize);
    }

    /// The checkpoint being written is durable: the next one, or the durable one in another place. Work for each page that it
    /// or the last one has moved.
    pub(super) fn install(
        &mut self,
        tags: &TagTree,
        map: &AddressMap,
        record: Option<&CheckpointRecord>,
        next: bool,
    ) {
        if next {
            self.has_previous = true;
            std::mem::swap(&mut self.durable, &mut self.previous);
            for logical in ones(&self.written_before) {
                let (tag, block) = (
                    self.previous.tags.tag(logical),
                    self.previous.map.address(logical),
                );
                self.durable.record_block(logical, tag, block);
            }
            self.written_before.clear();
        }
        for logical in ones(&self.written) {
            self.durable
                .record_block(logical, tags.tag(logical), map.address(logical));
        }
        self.durable.map.copy_nodes_from(map);
        self.durable.record = record.copied();
        for logical in ones(&self.written) {
            self.written_before.insert(logical as usize);
        }
        self.written.clear();
    }

    /// The checkpoint being written is given up: the working map is the durable one's again.
    pub(super) fn abandon(&mut self, map: &mut AddressMap) {
        for logical in ones(&self.written) {
            map.record_address(logical, self.durable.map.address(logical));
        }
        map.copy_nodes_from(&self.durable.map);
        self.written.clear();
    }
}

fn ones(bits: &Bits) -> impl Iterator<Item = u32> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        let index = bits.next_set(from)?;
        from = index + 1;
        Some(index as u32)
    })
}
