//! Which blocks of the grid may be written. Local to a replica, held in memory, rebuilt from the address map at open.
//!
//! Three generations hold blocks: the checkpoint before the durable one (peers may still be fetching it), the durable
//! one, and the one being written. A block is free if it is in none. The grid is three times the state, so there is
//! always room, even if every page changes every time.
//!
//! Zones: first copies of the address map at the grid's start, second copies at its end, everything else between them.
//! So the two copies of a node are apart by construction, also in a grid that is full.

use super::map::AddressMap;
use super::tags::TagTree;
use crate::bits::Bits;
use crate::layout::Geometry;
use std::ops::Range;

/// What a block is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Zone {
    /// First copies of nodes of the address map.
    MapFirst,
    /// Pages and nodes of the tag tree.
    Data,
    /// Second copies of nodes of the address map.
    MapSecond,
}

/// Generations of a checkpoint that hold blocks at one time.
const GENERATIONS: u32 = 3;

/// Free runs looked at before the longest is taken. More would make writes larger in a fragmented grid; it bounds the
/// work of a search (a run is at most one write's blocks long).
const RUNS_EXAMINED_MAX: usize = 16;

/// The blocks of each zone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Zones {
    first: Range<u32>,
    data: Range<u32>,
    second: Range<u32>,
}

impl Zones {
    pub(super) fn new(geometry: &Geometry) -> Self {
        let page_count = geometry.page_count();
        let logical_count = page_count + TagTree::shape_of(page_count).node_count();
        let map_size = GENERATIONS * AddressMap::shape_of(logical_count).node_count();
        let end = geometry.block_count() + 1;
        let zones = Self {
            first: 1..1 + map_size,
            data: 1 + map_size..end - map_size,
            second: end - map_size..end,
        };
        assert!(zones.data.len() as u64 >= u64::from(GENERATIONS) * u64::from(logical_count));
        zones
    }

    pub(super) fn range(&self, zone: Zone) -> &Range<u32> {
        match zone {
            Zone::MapFirst => &self.first,
            Zone::Data => &self.data,
            Zone::MapSecond => &self.second,
        }
    }
}

/// The allocator. See the module's description.
#[derive(Debug)]
pub(super) struct Blocks {
    zones: Zones,
    /// Where the next search begins, by zone: a lap is made before a block is used again, so that writes find runs.
    cursors: [u32; 3],
    /// Blocks of the checkpoint before the durable one.
    previous: Bits,
    /// Blocks of the durable checkpoint.
    durable: Bits,
    /// Blocks of the checkpoint being written; equal to `durable` when none is.
    writing: Bits,
    /// The union of the three, and the held one, kept for quick searches.
    used: Bits,
    /// A block of the durable checkpoint that is being written again in its place: not to be taken before that has ended,
    /// however old it has become meanwhile.
    held: Option<u32>,
}

impl Blocks {
    /// A grid all of whose blocks are free.
    pub(super) fn new(geometry: &Geometry) -> Self {
        let zones = Zones::new(geometry);
        let bits = Bits::new(geometry.block_count() as usize + 1);
        Self {
            cursors: [zones.first.start, zones.data.start, zones.second.start],
            zones,
            previous: bits.clone(),
            durable: bits.clone(),
            writing: bits.clone(),
            used: bits,
            held: None,
        }
    }

    pub(super) fn zones(&self) -> &Zones {
        &self.zones
    }

    /// Blocks in no generation.
    pub(super) fn free(&self) -> u32 {
        (self.used.capacity() - 1 - self.used.count()) as u32
    }

    /// Blocks of the durable checkpoint.
    pub(super) fn durable_count(&self) -> u32 {
        self.durable.count() as u32
    }

    /// Finds a run of at most `wanted` free blocks: the first one that long, or the longest of those looked at.
    /// Returns its start and length. There always is one, because the grid holds three generations.
    pub(super) fn find(&self, zone: Zone, wanted: u32) -> (u32, u32) {
        assert!(wanted > 0);
        let range = self.zones.range(zone);
        let cursor = self.cursors[zone as usize];
        let (mut best, mut best_size) = (0, 0);
        let (mut from, mut wrapped) = (cursor, false);
        for _ in 0..RUNS_EXAMINED_MAX {
            let end = if wrapped { cursor } else { range.end };
            let start = self.used.next_clear(from as usize);
            let Some(start) = start.map(|start| start as u32).filter(|&start| start < end) else {
                if wrapped {
                    break;
                }
                (from, wrapped) = (range.start, true);
                continue;
            };
            let limit = range.end.min(start + wanted);
            let size = self
                .used
                .next_set(start as usize)
                .map_or(limit, |block| limit.min(block as u32))
                - start;
            if size > best_size {
                (best, best_size) = (start, size);
            }
            if size == wanted {
                break;
            }
            from = start + size;
        }
        assert!(best_size > 0, "the grid holds three generations");
        (best, best_size)
    }

    /// Takes a free block for the checkpoint being written.
    pub(super) fn take(&mut self, zone: Zone, block: u32) {
        assert!(self.zones.range(zone).contains(&block));
        assert!(self.used.insert(block as usize));
        assert!(self.writing.insert(block as usize));
        self.cursors[zone as usize] = block + 1;
    }

    /// What was in this block has a new place in the checkpoint being written, or none. The block stays untouched
    /// until that checkpoint is durable, and the one after if that is not the same one in another place. Zero: nothing to let go.
    pub(super) fn release(&mut self, block: u32) {
        if block != 0 {
            assert!(self.writing.remove(block as usize));
            assert!(
                self.durable.contains(block as usize),
                "a page is written once per checkpoint"
            );
        }
    }

    /// The rule that all else rests on, checked where writes leave: they touch no block that a durable checkpoint, or
    /// the one before it, can reach.
    pub(super) fn assert_writable(&self, start: u32, count: u32) {
        for block in start..start + count {
            assert!(!self.durable.contains(block as usize));
            assert!(!self.previous.contains(block as usize));
            assert!(self.writing.contains(block as usize));
        }
    }

    /// The checkpoint that was being written is durable, superblock included. If it is not the next one but the durable one
    /// in another place, the one before stays.
    pub(super) fn install(&mut self, next: bool) {
        if next {
            self.previous.copy_from(&self.durable);
        }
        self.durable.copy_from(&self.writing);
        self.unite();
    }

    fn unite(&mut self) {
        self.used.union_from(&self.previous, &self.durable);
        if let Some(block) = self.held {
            self.used.insert(block as usize);
        }
    }

    /// A write of what a block of the durable checkpoint holds anyway begins.
    pub(super) fn hold(&mut self, block: u32) {
        assert!(self.held.is_none() && self.durable.contains(block as usize));
        self.held = Some(block);
    }

    /// The write has ended.
    pub(super) fn let_go(&mut self) {
        let block = self.held.take().expect("it was held") as usize;
        let sets = [&self.previous, &self.durable, &self.writing];
        if sets.iter().all(|set| !set.contains(block)) {
            self.used.remove(block);
        }
    }

    /// The checkpoint that was being written is given up: what was taken for it is free again. Nothing is being written
    /// any more, or what is will have come to its end before a block is taken.
    pub(super) fn abandon(&mut self) {
        self.writing.copy_from(&self.durable);
        self.unite();
    }

    /// Begins to open: no block is known to hold anything.
    pub(super) fn open(&mut self) {
        for set in [
            &mut self.previous,
            &mut self.durable,
            &mut self.writing,
            &mut self.used,
        ] {
            set.clear();
        }
    }

    /// The durable checkpoint says that it uses this block. False if it cannot: it is in another zone, or named twice.
    #[must_use]
    pub(super) fn restore(&mut self, zone: Zone, block: u32) -> bool {
        self.zones.range(zone).contains(&block)
            && self.durable.insert(block as usize)
            && self.writing.insert(block as usize)
            && self.used.insert(block as usize)
    }
}

impl Blocks {
    /// The checkpoint before the durable one says that it uses this block. False if it cannot.
    #[must_use]
    pub(super) fn restore_previous(&mut self, zone: Zone, block: u32) -> bool {
        if !self.zones.range(zone).contains(&block) || !self.previous.insert(block as usize) {
            return false;
        }
        self.used.insert(block as usize);
        true
    }

    /// Takes back every [`Self::restore_previous`].
    pub(super) fn forget_previous(&mut self) {
        self.previous.clear();
        self.unite();
    }

    /// Takes back [`Self::restore`]: the block serves for nothing.
    pub(super) fn unrestore(&mut self, block: u32) {
        assert!(self.durable.remove(block as usize));
        assert!(self.writing.remove(block as usize));
        assert!(self.used.remove(block as usize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_fit_every_geometry() {
        for state_size in [
            (1 << 20) + (64 << 12),
            7 << 20,
            1 << 28,
            1 << 30,
            1 << 36,
            1 << 42,
        ] {
            let geometry = Geometry {
                state_size,
                sessions_max: 1,
                ..Geometry::DEFAULT
            };
            assert_eq!(geometry.check(), Ok(()));
            let zones = Zones::new(&geometry);
            assert_eq!(zones.first.start, 1);
            assert_eq!(zones.first.end, zones.data.start);
            assert_eq!(zones.data.end, zones.second.start);
            assert_eq!(zones.second.end, geometry.block_count() + 1);
        }
    }

    #[test]
    fn a_block_is_free_again_when_two_later_checkpoints_are_durable() {
        let mut blocks = Blocks::new(&Geometry::SMALL);
        let all = blocks.free();
        let (first, size) = blocks.find(Zone::Data, 32);
        assert_eq!(size, 32);
        blocks.take(Zone::Data, first);
        blocks.assert_writable(first, 1);
        blocks.install(true);
        assert_eq!(blocks.free(), all - 1);

        let (second, _) = blocks.find(Zone::Data, 1);
        assert_ne!(first, second);
        blocks.take(Zone::Data, second);
        blocks.release(first);
        assert_eq!(blocks.free(), all - 2);
        blocks.install(true);
        assert_eq!(blocks.free(), all - 2); // first belongs to the previous one
        blocks.install(true);
        assert_eq!(blocks.free(), all - 1);
    }

    #[test]
    fn a_search_wraps_and_prefers_long_runs() {
        let mut blocks = Blocks::new(&Geometry::SMALL);
        let range = blocks.zones.range(Zone::Data).clone();
        // Free: single blocks everywhere, a run of five at the start.
        for block in range.clone() {
            if block >= range.start + 5 && block % 2 == 0 {
                assert!(blocks.restore(Zone::Data, block));
            }
        }
        blocks.cursors[Zone::Data as usize] = range.end - 3;
        assert_eq!(blocks.find(Zone::Data, 8).0, range.start);
        assert!((5..=6).contains(&blocks.find(Zone::Data, 8).1));
        assert_eq!(blocks.find(Zone::Data, 3), (range.start, 3));
        assert_eq!(blocks.find(Zone::Data, 1).1, 1);
        assert!(!blocks.restore(Zone::Data, range.end)); // another zone's
        let named_twice = (range.start + 6) & !1;
        assert!(!blocks.restore(Zone::Data, named_twice));
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn a_write_into_the_durable_checkpoint_is_caught() {
        let mut blocks = Blocks::new(&Geometry::SMALL);
        let (block, _) = blocks.find(Zone::Data, 1);
        blocks.take(Zone::Data, block);
        blocks.install(true);
        blocks.assert_writable(block, 1);
    }
}
