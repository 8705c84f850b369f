//! The last look-up, remembered.
//!
//! Who changes a key looks at it first, and often more than once: at its expiry, its kind, its old value. Each of these would go
//! the same way down the tree, through memory that is cold at first. So the arena remembers the last way that led to a key, with
//! the count of changes to its pages at that time: as long as nothing has changed since, in any page, the way leads there still,
//! and whether it leads to the wanted key, the key at its end says.
//!
//! It is derived and local, as the arena's other sets are: no result depends on it.

use super::{OrderedMap, Path, leaf};
use crate::pages::{PageId, Pages};
use std::cell::Cell;

/// The last way to a key.
#[derive(Debug)]
pub(crate) struct Finger {
    /// Changes to the arena's pages at that time.
    changes: Cell<u64>,
    path: Cell<Path>,
}

impl Finger {
    /// Nothing was looked up: no map's root is page 0.
    pub(crate) fn new() -> Self {
        let path = Path {
            nodes: [(PageId::ROOT, 0); super::HEIGHT_MAX],
            height: 0,
        };
        Self {
            changes: Cell::new(0),
            path: Cell::new(path),
        }
    }

    /// Remembers a way that led to a key.
    pub(super) fn point(&self, changes: u64, path: Path) {
        self.changes.set(changes);
        self.path.set(path);
    }

    /// The way to a key, if it is the last one.
    pub(super) fn way(&self, map: &OrderedMap, pages: &Pages, key: &[u8]) -> Option<Path> {
        if self.changes.get() != pages.changes() {
            return None;
        }
        let path = self.path.get();
        if path.nodes[0].0 != PageId(map.root) {
            return None;
        }
        let (leaf, index) = path.leaf();
        (leaf::key(pages.read(leaf), index) == key).then_some(path)
    }
}
