//! The last look-up, remembered.
//!
//! Who changes a key looks at it first, and often more than once: at its expiry, its kind, its old value. Each of these would go
//! the same way down a tree, through memory that is cold at first. So the arena remembers the last way that led to a key, with
//! the count of changes to its pages at that time: as long as nothing has changed since, in any page, the way leads there still.
//! Whether it is the way of the wanted key, the tree sees at its end.
//!
//! It is derived and local, as the arena's other sets are: no result depends on it.

use super::PageId;
use std::cell::Cell;

/// Most levels of a tree that is remembered.
pub(crate) const LEVELS_MAX: usize = 6;

/// The nodes from the root to a leaf, each with the index of the child that the next one is; of the leaf, that of a
/// cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub nodes: [(PageId, usize); LEVELS_MAX],
    pub height: usize,
}

impl Path {
    pub fn leaf(&self) -> (PageId, usize) {
        self.nodes[self.height - 1]
    }
}

/// The last way to a key.
#[derive(Debug)]
pub(crate) struct Finger {
    /// Changes to the arena's pages at that time.
    changes: Cell<u64>,
    path: Cell<Path>,
}

impl Finger {
    /// Nothing was looked up: no tree's root is page 0.
    pub(super) fn new() -> Self {
        let path = Path {
            nodes: [(PageId::ROOT, 0); LEVELS_MAX],
            height: 0,
        };
        Self {
            changes: Cell::new(0),
            path: Cell::new(path),
        }
    }

    /// Remembers a way that led to a key, after so many changes.
    pub(super) fn point(&self, changes: u64, path: Path) {
        self.changes.set(changes);
        self.path.set(path);
    }

    /// The last way from a root, if there was no change since.
    pub(super) fn way(&self, changes: u64, root: PageId) -> Option<Path> {
        let path = self.path.get();
        (self.changes.get() == changes && path.nodes[0].0 == root).then_some(path)
    }
}
