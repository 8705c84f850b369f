//! The shape of a tree of nodes over a row of leaves, as numbers: what the tag tree and the address map share.
//!
//! Nodes are numbered level by level, the lowest first, so that a node's number is smaller than its parent's and one
//! ascending pass brings changes up to the root.

use std::ops::Range;

/// Enough for 2^32 leaves at the fanouts used here; checked in [`Shape::new`].
const LEVELS_MAX: usize = 6;

/// A tree whose lowest nodes have `leaf_fanout` leaves each, and whose upper nodes have `upper_fanout` nodes each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// Number of the first node of each level, and one past the last node.
    starts: [u32; LEVELS_MAX + 1],
    levels: usize,
    upper_fanout: u32,
}

impl Shape {
    pub(super) fn new(leaves: u32, leaf_fanout: u32, upper_fanout: u32) -> Self {
        assert!(leaves > 0);
        assert!(leaf_fanout > 1 && upper_fanout > 1);
        let mut starts = [0; LEVELS_MAX + 1];
        let mut nodes = leaves.div_ceil(leaf_fanout);
        let mut levels = 1;
        starts[1] = nodes;
        while nodes > 1 {
            assert!(levels < LEVELS_MAX);
            nodes = nodes.div_ceil(upper_fanout);
            starts[levels + 1] = starts[levels] + nodes;
            levels += 1;
        }
        Self {
            starts,
            levels,
            upper_fanout,
        }
    }

    pub(super) fn levels(&self) -> usize {
        self.levels
    }

    pub(super) fn node_count(&self) -> u32 {
        self.starts[self.levels]
    }

    /// Nodes of the lowest level.
    pub(super) fn leaf_nodes(&self) -> u32 {
        self.starts[1]
    }

    /// The nodes of a level; level 0 is the lowest.
    pub(super) fn level(&self, level: usize) -> Range<u32> {
        assert!(level < self.levels);
        self.starts[level]..self.starts[level + 1]
    }

    /// The nodes right below a node; none below a lowest one.
    pub(super) fn children(&self, node: u32) -> Range<u32> {
        assert!(node < self.node_count());
        if node < self.leaf_nodes() {
            return 0..0;
        }
        let level = self.level_of(node);
        let below = self.level(level - 1);
        let first = below.start + (node - self.starts[level]) * self.upper_fanout;
        first..below.end.min(first + self.upper_fanout)
    }

    fn level_of(&self, node: u32) -> usize {
        (0..self.levels)
            .find(|&level| node < self.starts[level + 1])
            .expect("levels cover all nodes")
    }

    /// The parent of a node, and the node's place in it; none for the root.
    pub(super) fn parent(&self, node: u32) -> Option<(u32, usize)> {
        assert!(node < self.node_count());
        if node + 1 == self.node_count() {
            return None;
        }
        let level = self.level_of(node);
        let index = node - self.starts[level];
        let parent = self.starts[level + 1] + index / self.upper_fanout;
        assert!(parent > node && parent < self.starts[level + 2]);
        Some((parent, (index % self.upper_fanout) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_but_the_root_has_a_place_of_its_own_in_a_parent_above() {
        for leaves in [1, 3, 4, 5, 12, 13, 64, 65, 200] {
            let shape = Shape::new(leaves, 4, 3);
            let mut taken = std::collections::BTreeSet::new();
            for node in 0..shape.node_count() {
                match shape.parent(node) {
                    None => assert_eq!(node, shape.node_count() - 1),
                    Some((parent, place)) => {
                        assert!(parent > node && place < 3);
                        assert!(taken.insert((parent, place)));
                        assert_eq!(shape.children(parent).start + place as u32, node);
                        assert!(shape.children(parent).contains(&node));
                    }
                }
            }
            assert_eq!(shape.level(0).end, leaves.div_ceil(4));
            assert!(shape.level(0).all(|leaf| shape.children(leaf).is_empty()));
            assert_eq!(shape.level(shape.levels() - 1).len(), 1);
        }
    }

    #[test]
    fn the_largest_state_fits() {
        assert_eq!(Shape::new(1 << 30, 256, 256).levels(), 4);
        assert_eq!(Shape::new(1 << 30, 1024, 128).levels(), 4);
        assert_eq!(Shape::new(1 << 16, 256, 256).node_count(), 257);
    }
}
