//! Writing what was fetched: a checkpoint of the same op anew, with the same id and another map.
//!
//! Exactly what is not in its block with the right tag is written, copy-on-write like any checkpoint: the blocks of the
//! last one stand until the superblock names the new map, and those of the one before that for one more.
//!
//! Fetching may go on meanwhile. Then what is here so far is written, and what is not keeps its old block: the superblock
//! that names this map still says `syncing`, and a crash loses no more than was fetched since.

use super::writer::Writer;
use super::{BUFFER_COUNT, Checkpoint, Mode, Rules};
use crate::checksum::PageKey;
use crate::pages::{PageId, Pages};

impl<R: Rules> Checkpoint<R> {
    /// Whether [`Self::begin_rewrite`] may be called: nothing is being written or read.
    pub fn can_rewrite(&self) -> bool {
        self.mode == Mode::Idle && self.work == 0
    }

    /// Begins to write what is not on the disk yet of the checkpoint that was fetched; all of it if the state is complete
    /// (nothing may have been executed since), otherwise what is known so far. [`Self::pump`] and
    /// [`Self::installed`] follow as with any checkpoint. `fingerprint` is the geometry's.
    pub fn begin_rewrite(&mut self, pages: &mut Pages, fingerprint: u128) {
        assert!(self.can_rewrite());
        assert_eq!(self.buffers.len(), BUFFER_COUNT);
        assert_eq!(pages.frozen_count(), 0);
        let record = if self.fetch.active {
            self.fetch.target
        } else {
            self.record
        };
        assert_ne!(record.root, 0);
        for page in 0..pages.count() {
            let tag = self.tags.page_tag(page);
            if self.is_here(page) && self.is_out_of_place(page, tag) {
                pages.freeze_page(PageId(page), tag == 0);
            }
        }
        for node in 0..self.tags.shape().node_count() {
            let logical = self.logical_of_tags(node);
            if self.fetch.known.contains(node as usize)
                && self.is_out_of_place(logical, self.tags.node_tag(node))
            {
                self.tags.rewrite(node);
            }
        }
        let key = PageKey(record.page_key);
        self.writer = Writer::rewrite(&record, key, fingerprint, pages.frozen_count());
        self.mode = Mode::WritePages;
    }

    /// Whether the tag of a page is known, and its content is in memory (or it has none).
    fn is_here(&self, page: u32) -> bool {
        let leaf = page as usize / super::tags::TAGS_PER_NODE;
        self.fetch.known.contains(leaf) && !self.fetch.is_pending(page)
    }

    /// Whether the disk does not have this content in the block of a logical page: or none, for tag zero.
    fn is_out_of_place(&self, logical: u32, tag: u128) -> bool {
        let durable = &self.generations.durable;
        match tag {
            0 => durable.map.address(logical) != 0,
            tag => durable.block_of(logical, tag).is_none(),
        }
    }

    /// Gives up the checkpoint being written: what it has taken is free again. Writes on their way are awaited before
    /// anything else is written ([`Self::can_rewrite`]). The caller discards what is frozen.
    pub(super) fn abandon(&mut self) {
        assert!(self.is_writing() && self.mode != Mode::Written);
        if let Some(buffer) = self.writer.give_up() {
            self.buffers.push(buffer);
        }
        self.generations.abandon(&mut self.map);
        self.blocks.abandon();
        self.mode = match self.work {
            0 => Mode::Idle,
            _ => Mode::Abandoned,
        };
    }
}
