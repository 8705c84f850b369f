//! What changes of a map may need, at most, known from the size of the arena alone.
//!
//! Every change of one key touches at most two nodes of each level: itself and the new half of a split, or the neighbour it
//! merges or shares with. That gives 2n nodes a level for n changes, and for levels above the leaves something better, since
//! there are not many nodes: an inner node has at least 72 children, so level k of an arena of P pages has at most
//! `c = P / 72^k` nodes, and the root. Of the pages that n changes can touch in level k,
//!
//! * at most `c` were there before, and
//! * of those that come anew, by splits, each needs a full node. A node that was full, or that was at its least and merged
//!   into a full one, can be spent once without much ado, and costs 217 children or 72: the extremes together are at most
//!   2c/3 more than c. Every other needs at least 36 changes among its children: from 108 after a split up
//!   to 217, or down to 71. The bound takes n/16, which covers also the roots that come and go.
//!
//! Several maps in one arena share its pages, so `c` is for all of them; each has a root of its own.

use super::inner::CHILDREN_MIN;
use super::{HEIGHT_MAX, leaf, value};

/// Bounds for a map, or several, in an arena of a given number of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    page_count: u32,
    maps: u32,
}

impl Cost {
    /// For one map in an arena of `page_count` pages.
    pub fn new(page_count: u32) -> Self {
        Self::of_maps(page_count, 1)
    }

    /// For so many maps: inserts and removes are those of all together.
    pub fn of_maps(page_count: u32, maps: u32) -> Self {
        Self { page_count, maps }
    }

    /// Pages of a value outside of its leaf.
    pub fn value_pages(value_size: usize) -> u32 {
        let size = u32::try_from(value_size).expect("a value is smaller than a message");
        if leaf::is_inline(size) {
            0
        } else {
            value_size.div_ceil(value::DATA_SIZE) as u32
        }
    }

    /// Most nodes of each level from the leaves on, without the root.
    fn levels(self) -> impl Iterator<Item = u64> {
        let pages = u64::from(self.page_count);
        // Divided again and again by a constant: nothing that is asked for each item of a request divides otherwise.
        std::iter::successors(Some(pages), |nodes| Some(nodes / CHILDREN_MIN as u64))
    }

    /// Most levels of a map: 2 x 72^(height - 2) leaves must fit.
    pub fn height_max(self) -> u32 {
        let levels = self.levels().take(HEIGHT_MAX - 1);
        1 + levels.take_while(|&nodes| nodes >= 2).count() as u32
    }

    /// Most nodes that `inserts` inserts may add, values apart. Removes add none.
    pub fn nodes_new_max(self, inserts: u32) -> u32 {
        let inserts = u64::from(inserts);
        let levels = self.levels().take(self.height_max() as usize);
        let sum: u64 = levels
            .map(|nodes| inserts.min(nodes + u64::from(self.maps)))
            .sum();
        sum.min(u64::from(self.page_count)) as u32
    }

    /// Most nodes that `changes` inserts and removes may change or add, values apart. Pages that are freed do not count:
    /// their content is not needed again.
    pub fn nodes_touched_max(self, changes: u32) -> u32 {
        let changes = u64::from(changes);
        let levels = self.levels().take(self.height_max() as usize);
        let sum: u64 = levels
            .enumerate()
            .map(|(level, nodes)| match level {
                0 => 2 * changes,
                _ => (2 * changes).min(nodes * 5 / 3 + changes / 16 + 4 * u64::from(self.maps)),
            })
            .sum();
        sum.min(u64::from(self.page_count)) as u32
    }

    /// Most pages that one insert of a value of this size may allocate.
    pub fn pages_new_max(self, value_size: usize) -> u32 {
        self.nodes_new_max(1) + Self::value_pages(value_size)
    }

    /// Most pages that one insert of a value of this size may change or allocate, those of the allocator's bitmap apart.
    pub fn pages_touched_max(self, value_size: usize) -> u32 {
        self.nodes_touched_max(1) + Self::value_pages(value_size)
    }
}
