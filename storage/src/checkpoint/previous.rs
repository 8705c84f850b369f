//! Opening the checkpoint before the durable one: where its pages are, for others who may still be fetching them.
//!
//! Its map and its tag tree are read where they differ from the durable one's; its pages are not, until somebody asks. It is
//! opened also if the durable one is damaged: a quorum may have this one and nobody else that one yet, and then this
//! replica must help another to execute from here on, before it can be helped itself. For the same reason a bad node of
//! the tag tree costs no more than the node: what is in the blocks under it is asked of the blocks. If the map is bad,
//! none of it is here.

use super::{Checkpoint, CheckpointEvent, Mode, Purpose, Rules, Zone};
use crate::buffer::AlignedBuffer;
use crate::io::IoQueue;
use crate::layout::PAGE_SIZE;
use crate::superblock::CheckpointRecord;

impl<R: Rules> Checkpoint<R> {
    /// Begins to open the checkpoint before the one that is open.
    pub(super) fn open_previous(&mut self, record: &CheckpointRecord) {
        if record.root == 0 {
            // The state before the first op has no blocks.
            self.mode = Mode::OpenPreviousTags;
            self.opening.cursor = 0;
            return;
        }
        let previous = &mut self.generations.previous;
        previous.map.open(record.map);
        previous.tags.open(record.root);
        self.mode = Mode::OpenPreviousMap;
        self.opening.cursor = self.map.shape().node_count();
    }

    /// Looks for the next node of the map that is not the durable one's, from the root down. False: it has to wait, or
    /// there is none.
    pub(super) fn open_read_previous_map(&mut self, io: &mut IoQueue) -> bool {
        // One at a time: a node is found by the one above it.
        if self.opening.cursor == 0 || self.work > 0 {
            return false;
        }
        self.opening.cursor -= 1;
        let node = self.opening.cursor;
        let reference = self.generations.previous.map.reference(node);
        if reference.first == 0 {
            return true;
        }
        let valid = self
            .blocks
            .restore_previous(Zone::MapFirst, reference.first)
            && self
                .blocks
                .restore_previous(Zone::MapSecond, reference.second);
        let durable = &self.generations.durable;
        if !valid {
            self.drop_previous();
        } else if durable.map.reference(node) != reference
            || !self
                .generations
                .previous
                .map
                .load(node, durable.map.node_bytes(node))
        {
            let purpose = Purpose::ReadPreviousMap {
                node,
                second: false,
            };
            self.read(reference.first, 1, purpose, io);
        }
        true
    }

    pub(super) fn on_read_previous_map_done(
        &mut self,
        node: u32,
        second: bool,
        buffer: AlignedBuffer,
        io: &mut IoQueue,
    ) {
        let map = &mut self.generations.previous.map;
        let reference = map.reference(node);
        let good = map.load(node, &buffer[..PAGE_SIZE]);
        self.buffers.push(buffer);
        if !good && second {
            self.drop_previous();
        } else if !good {
            let purpose = Purpose::ReadPreviousMap { node, second: true };
            self.read(reference.second, 1, purpose, io);
        }
    }

    /// As [`Self::open_read_previous_map`], of the tag tree.
    pub(super) fn open_read_previous_tags(&mut self, io: &mut IoQueue) -> bool {
        if self.opening.cursor == 0 || self.work > 0 {
            return false;
        }
        self.opening.cursor -= 1;
        let node = self.opening.cursor;
        let logical = self.logical_of_tags(node);
        let previous = &mut self.generations.previous;
        let wanted = previous.tags.node_tag(node);
        if wanted == 0 {
            return true;
        }
        let durable = &self.generations.durable.tags;
        let key = self.opening.key;
        let is_same = durable.node_tag(node) == wanted
            && previous.tags.load(node, durable.node_bytes(node), key);
        if !is_same {
            let block = previous.map.address(logical);
            if self.blocks.zones().range(Zone::Data).contains(&block) {
                self.read(block, 1, Purpose::ReadPreviousTags { node }, io);
            } else {
                self.drop_previous();
            }
        }
        true
    }

    pub(super) fn on_read_previous_tags_done(&mut self, node: u32, buffer: AlignedBuffer) {
        let key = self.opening.key;
        let tags = &mut self.generations.previous.tags;
        if !tags.load(node, &buffer[..PAGE_SIZE], key) {
            self.opening.previous_known = false;
        }
        self.buffers.push(buffer);
    }

    /// All tags and addresses are known: claims the blocks.
    pub(super) fn finish_previous(&mut self) -> CheckpointEvent {
        self.mode = Mode::Idle;
        for logical in 0..self.tags.logical_count() {
            let previous = &self.generations.previous;
            let (tag, block) = (previous.tags.tag(logical), previous.map.address(logical));
            if tag == 0 && block == 0 {
                continue;
            }
            let stray = tag == 0 && self.opening.previous_known;
            if stray || !self.blocks.restore_previous(Zone::Data, block) {
                self.drop_previous();
                self.mode = Mode::Idle;
                return self.is_opened();
            }
        }
        let whole = self.opening.previous_known;
        self.generations.previous.record = self.opening.previous.filter(|_| whole);
        self.generations.previous_opened();
        self.is_opened()
    }

    /// It is not here, after all.
    fn drop_previous(&mut self) {
        self.opening.previous = None;
        self.opening.cursor = 0;
        self.mode = Mode::OpenPreviousTags; // and there is nothing more to read
        self.blocks.forget_previous();
        self.generations.forget_previous();
    }
}
