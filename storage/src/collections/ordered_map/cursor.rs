//! A walk over a range of keys.

use super::{HEIGHT_MAX, OrderedMap, Path, Value, inner, leaf};
use crate::pages::{PageId, Pages};
use std::ops::Bound;

/// Walks over the keys of a range. It borrows the pages, so nothing changes under it, and allocates nothing.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    pages: &'a Pages,
    path: Path,
    /// The index in the path's leaf is that of the next cell, or, in reverse, one more.
    reverse: bool,
    /// Where the walk ends.
    end: Bound<&'a [u8]>,
    done: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(
        map: &OrderedMap,
        pages: &'a Pages,
        from: Bound<&'a [u8]>,
        to: Bound<&'a [u8]>,
        reverse: bool,
    ) -> Self {
        let (start, end) = if reverse { (to, from) } else { (from, to) };
        let mut cursor = Self {
            pages,
            path: Path {
                nodes: [(PageId(map.root), 0); HEIGHT_MAX],
                height: map.height as usize,
            },
            reverse,
            end,
            done: map.height == 0,
        };
        if cursor.done {
            return cursor;
        }
        match start {
            Bound::Unbounded => cursor.descend(0),
            Bound::Included(key) | Bound::Excluded(key) => {
                let (path, found) = map.descend(pages, key);
                cursor.path = path;
                // Forward, the found cell is passed over if excluded; in reverse, the index is one above the next cell.
                let pass = found && (matches!(start, Bound::Included(_)) == reverse);
                cursor.path.nodes[path.height - 1].1 += usize::from(pass);
            }
        }
        cursor
    }

    /// Goes from the node at `depth` to the first or last leaf below it.
    fn descend(&mut self, depth: usize) {
        let last = self.path.height - 1;
        for depth in depth..last {
            let page = self.pages.read(self.path.nodes[depth].0);
            let index = if self.reverse {
                inner::count(page) - 1
            } else {
                0
            };
            self.path.nodes[depth].1 = index;
            self.path.nodes[depth + 1].0 = inner::child(page, index);
        }
        let page = self.pages.read(self.path.nodes[last].0);
        self.path.nodes[last].1 = if self.reverse { leaf::count(page) } else { 0 };
    }

    /// Goes to the next leaf; false if there is none.
    fn next_leaf(&mut self) -> bool {
        for depth in (0..self.path.height - 1).rev() {
            let (node, index) = self.path.nodes[depth];
            let page = self.pages.read(node);
            let next = if self.reverse {
                index.checked_sub(1)
            } else {
                Some(index + 1)
            };
            if let Some(next) = next.filter(|&next| next < inner::count(page)) {
                self.path.nodes[depth].1 = next;
                self.path.nodes[depth + 1].0 = inner::child(page, next);
                self.descend(depth + 1);
                return true;
            }
        }
        false
    }

    fn is_before_end(&self, key: &[u8]) -> bool {
        match (self.end, self.reverse) {
            (Bound::Unbounded, _) => true,
            (Bound::Included(end), false) => key <= end,
            (Bound::Excluded(end), false) => key < end,
            (Bound::Included(end), true) => key >= end,
            (Bound::Excluded(end), true) => key > end,
        }
    }
}

impl Cursor<'_> {
    /// Passes over at most so many keys, whole leaves at a time; how many there were.
    pub fn pass(&mut self, count_max: u64) -> u64 {
        let mut passed = 0;
        while passed < count_max && !self.done {
            let (node, index) = self.path.leaf();
            let page = self.pages.read(node);
            let left = if self.reverse {
                index
            } else {
                leaf::count(page).saturating_sub(index)
            };
            let step = (left as u64).min(count_max - passed) as usize;
            let (last, next) = if self.reverse {
                (index - step, index - step)
            } else {
                ((index + step).saturating_sub(1), index + step)
            };
            if step > 0 && self.is_before_end(leaf::key(page, last)) {
                self.path.nodes[self.path.height - 1].1 = next;
                passed += step as u64;
            } else if self.next().is_some() {
                // The first of another leaf, or one of the last before the end.
                passed += 1;
            }
        }
        passed
    }
}

impl<'a> Iterator for Cursor<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        // A leaf of a tree with several is never empty, but a start may lie behind the last cell of its leaf.
        for _ in 0..2 {
            if self.done {
                return None;
            }
            let (node, index) = self.path.leaf();
            let page = self.pages.read(node);
            let at = if self.reverse {
                index.checked_sub(1)
            } else {
                Some(index).filter(|&index| index < leaf::count(page))
            };
            if let Some(at) = at {
                let cell = leaf::cell(page, at);
                self.done = !self.is_before_end(cell.key);
                let last = self.path.height - 1;
                self.path.nodes[last].1 = if self.reverse { at } else { at + 1 };
                return (!self.done).then(|| (cell.key, Value::new(self.pages, cell)));
            }
            self.done = !self.next_leaf();
        }
        assert!(self.done, "no leaf is empty");
        None
    }
}
