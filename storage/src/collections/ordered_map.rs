//! An ordered map from byte strings to byte strings: a B+tree over pages.
//!
//! * The handle is a plain value; a machine keeps it in its root record. Two maps in one arena do not know of each other.
//! * Keys have 0 to [`KEY_SIZE_MAX`] bytes and order as byte strings do. Values of up to [`VALUE_INLINE_MAX`] bytes lie in
//!   the leaf, longer ones in a chain of pages.
//! * Pages are a pure function of the history of calls: free space is zero, nothing stale stays.
//! * A delete never allocates, so a full arena can always be emptied; what N inserts take, their deletes give back.
//! * Reading allocates nothing: a cursor is a path of page numbers.
//! * Every change touches at most two nodes of each level, whatever keys are chosen. [`Cost`] bounds what a number of changes may
//!   need without looking at the tree, and the bound is what a machine's plan is made of. Bounds hold against an adversary
//!   because inner nodes keep only a fixed-size head of each separator, which stands in full in the child itself:
//!   how many children a node has does not depend on how long the keys are.
//!
//! Deliberately absent: links between leaves (a cursor climbs its path instead: two fewer pages change in a split), and
//! compression of keys in leaves.

mod cost;
mod cursor;
mod edit;
mod inner;
mod leaf;
mod sample;
#[cfg(test)]
mod tests;
mod trash;
mod value;
mod warm;

pub use cost::Cost;
pub use cursor::Cursor;
pub use trash::Trash;
pub use value::{Pieces, Value};
pub use warm::WARM_MAX;

use crate::layout::PAGE_SIZE;
use crate::pages::{PageId, Pages, Path};
use leaf::{Cell, Page, Sequence};
use std::ops::Bound;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest key, in bytes: 512 of somebody's own, and 16 for what a machine puts before them.
pub const KEY_SIZE_MAX: usize = 528;

/// Longest value that lies in its leaf, in bytes. A leaf then holds at least two with the longest keys and three with
/// others, and a value just above it fills a quarter of the page it gets: the worst cases of space are alike.
pub const VALUE_INLINE_MAX: usize = 960;

/// Most levels of a tree. The root has at least two children and every other inner node 72, so a tree of seven levels has
/// 2 x 72^5 leaves: more than the pages of the largest state.
pub const HEIGHT_MAX: usize = crate::pages::LEVELS_MAX;

const _: () = assert!(2 * (inner::CHILDREN_MIN as u64).pow(HEIGHT_MAX as u32 - 1) > 1 << 30);

/// The handle of a map. All zero: an empty map, which has no page.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OrderedMap {
    /// Keys in the map.
    count: u64,
    /// The topmost node; zero if there is none.
    root: u32,
    /// Levels of nodes: none, a leaf alone, ...
    height: u32,
}

static_assertions::const_assert_eq!(size_of::<OrderedMap>(), 16);

impl OrderedMap {
    /// An empty map; it takes its first page with its first key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keys in the map.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Levels of the tree.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The value of a key.
    pub fn get<'a>(&self, pages: &'a Pages, key: &[u8]) -> Option<Value<'a>> {
        if self.height == 0 {
            return None;
        }
        let (path, found) = self.descend(pages, key);
        let (leaf, index) = path.leaf();
        found.then(|| Value::new(pages, leaf::cell(pages.read(leaf), index)))
    }

    /// The keys between two bounds, in order or in reverse order. Bounds that exclude everything are allowed.
    pub fn range<'a>(
        &self,
        pages: &'a Pages,
        from: Bound<&'a [u8]>,
        to: Bound<&'a [u8]>,
        reverse: bool,
    ) -> Cursor<'a> {
        Cursor::new(self, pages, from, to, reverse)
    }

    /// Sets the value of a key to the concatenation of `value_parts`; true if the key was there. At most as many pages are
    /// allocated, and changed, as [`Cost`] says.
    pub fn insert(&mut self, pages: &mut Pages, key: &[u8], value_parts: &[&[u8]]) -> bool {
        assert!(key.len() <= KEY_SIZE_MAX);
        let size: usize = value_parts.iter().map(|part| part.len()).sum();
        let value_size = u32::try_from(size).expect("a value is smaller than a message");
        let (path, found) = self.descend_to_insert(pages, key);
        let old_chain = self.chain_at(pages, &path, found);
        let chain_bytes;
        let chain_part: [&[u8]; 1];
        let payload = if leaf::is_inline(value_size) {
            if let Some(first) = old_chain {
                value::free(pages, first);
            }
            value_parts
        } else {
            chain_bytes = value::write(pages, old_chain, value_parts, size)
                .0
                .to_le_bytes();
            chain_part = [&chain_bytes];
            &chain_part
        };
        let cell = Cell {
            key,
            value_size,
            payload,
        };
        self.place(pages, &path, found, cell);
        found
    }

    /// As [`Self::descend`], in a map that has a leaf at least.
    fn descend_to_insert(&mut self, pages: &mut Pages, key: &[u8]) -> (Path, bool) {
        if self.height == 0 {
            let root = pages.allocate();
            leaf::init(pages.write(root), &[]);
            *self = Self {
                count: 0,
                root: root.0,
                height: 1,
            };
        }
        self.descend(pages, key)
    }

    /// The first page of the value at a place, if there is one that is not in its leaf.
    fn chain_at(&self, pages: &Pages, path: &Path, found: bool) -> Option<PageId> {
        assert!(path.height == self.height as usize);
        let (leaf, index) = path.leaf();
        found
            .then(|| leaf::cell(pages.read(leaf), index))
            .and_then(value::chain)
    }

    /// Puts a cell into its place, over the one of the same key if that was found. The caller has seen to chains.
    fn place(&mut self, pages: &mut Pages, path: &Path, found: bool, cell: Cell<'_>) {
        let (leaf, index) = path.leaf();
        let old = found.then(|| leaf::cell(pages.read(leaf), index));
        let old_size = old.map(|old| leaf::cell_size(old.key.len(), old.value_size));
        let new_size = leaf::cell_size(cell.key.len(), cell.value_size);
        if old_size == Some(new_size) {
            leaf::overwrite(pages.write(leaf), index, cell.value_size, cell.payload);
            return;
        }
        if found {
            leaf::remove(pages.write(leaf), index);
        }
        if leaf::has_room(pages.read(leaf), new_size) {
            leaf::insert(pages.write(leaf), index, cell);
            // Not after growth: an ascending load begins its leaves with one cell.
            if old_size.is_some_and(|old_size| new_size < old_size) {
                self.rebalance_leaf(pages, path);
            }
        } else {
            self.split_leaf(pages, path, cell);
        }
        self.count += u64::from(!found);
    }

    /// Removes a key; true if it was there.
    pub fn remove(&mut self, pages: &mut Pages, key: &[u8]) -> bool {
        if self.height == 0 {
            return false;
        }
        let (path, found) = self.descend(pages, key);
        if !found {
            return false;
        }
        let (leaf, index) = path.leaf();
        if let Some(first) = value::chain(leaf::cell(pages.read(leaf), index)) {
            value::free(pages, first);
        }
        leaf::remove(pages.write(leaf), index);
        self.count -= 1;
        self.rebalance_leaf(pages, &path);
        true
    }

    /// The way to where a key is or would be, and whether it is there.
    fn descend(&self, pages: &Pages, key: &[u8]) -> (Path, bool) {
        assert!((1..=HEIGHT_MAX).contains(&(self.height as usize)));
        if let Some(path) = pages.last_way(PageId(self.root)) {
            let (leaf, index) = path.leaf();
            if leaf::key(pages.read(leaf), index) == key {
                return (path, true);
            }
        }
        let (path, found) = self.search(pages, key);
        if found {
            pages.remember_way(path);
        }
        (path, found)
    }

    fn search(&self, pages: &Pages, key: &[u8]) -> (Path, bool) {
        let mut path = Path {
            nodes: [(PageId(self.root), 0); HEIGHT_MAX],
            height: self.height as usize,
        };
        for depth in 0..path.height - 1 {
            let page = pages.read(path.nodes[depth].0);
            let index = inner::search(pages, page, key);
            path.nodes[depth].1 = index;
            path.nodes[depth + 1].0 = inner::child(page, index);
        }
        let (leaf, index) = &mut path.nodes[path.height - 1];
        let (at, found) = match leaf::search(pages.read(*leaf), key) {
            Ok(at) => (at, true),
            Err(at) => (at, false),
        };
        *index = at;
        (path, found)
    }
}

/// Growing.
impl OrderedMap {
    /// Splits a leaf in which a new cell has no room.
    fn split_leaf(&mut self, pages: &mut Pages, path: &Path, cell: Cell<'_>) {
        let (leaf, index) = path.leaf();
        let old: Page = *pages.read(leaf);
        let all = Sequence {
            left: &old,
            right: None,
            new: Some((index, cell)),
        };
        let cells = all.count();
        // A key behind all others: ascending loads fill their leaves.
        let appends = index == cells - 1 && Self::is_last(pages, path);
        let middle = if appends { cells - 1 } else { all.middle() };
        let right = pages.allocate();
        let page = pages.write(right);
        leaf::init(page, all.separator(middle));
        all.push_to(page, middle..cells);
        let page = pages.write(leaf);
        page.fill(0);
        leaf::init(page, leaf::fence(&old));
        all.push_to(page, 0..middle);
        self.insert_child(pages, path, path.height - 1, right);
    }

    /// Whether a path leads to the last leaf.
    fn is_last(pages: &Pages, path: &Path) -> bool {
        path.nodes[..path.height - 1]
            .iter()
            .all(|&(node, index)| index + 1 == inner::count(pages.read(node)))
    }

    /// Hangs a new node in, right of the node at `depth` of the path, which was split.
    fn insert_child(&mut self, pages: &mut Pages, path: &Path, depth: usize, child: PageId) {
        if depth == 0 {
            let root = pages.allocate();
            let level = u8::try_from(self.height).expect("the height is bounded");
            inner::write(pages, root, level, &[PageId(self.root), child]);
            self.root = root.0;
            self.height += 1;
            assert!(self.height as usize <= HEIGHT_MAX);
            return;
        }
        let (parent, index) = path.nodes[depth - 1];
        let page = pages.read(parent);
        if inner::count(page) < inner::CHILDREN_MAX {
            inner::insert(pages, parent, index + 1, child);
            return;
        }
        let level = inner::level(page);
        let mut all = [PageId::ROOT; inner::CHILDREN_MAX + 1];
        let count = inner::children(page, &mut all);
        all.copy_within(index + 1..count, index + 2);
        all[index + 1] = child;
        let (left, right) = all.split_at(all.len() / 2);
        let sibling = pages.allocate();
        inner::write(pages, parent, level, left);
        inner::write(pages, sibling, level, right);
        self.insert_child(pages, path, depth - 1, sibling);
    }
}

/// Shrinking. None of it allocates.
impl OrderedMap {
    /// After a leaf has lost bytes: if it has too few, it merges with a neighbour, or shares with it.
    fn rebalance_leaf(&mut self, pages: &mut Pages, path: &Path) {
        let (leaf, _) = path.leaf();
        if path.height == 1 {
            if leaf::count(pages.read(leaf)) == 0 {
                pages.free(leaf);
                *self = Self::new();
            }
            return;
        }
        if leaf::used(pages.read(leaf)) >= leaf::USED_MIN {
            return;
        }
        let (parent, left_index, left, right) = Self::neighbours(pages, path, path.height - 1);
        let (left_page, right_page): (Page, Page) = (*pages.read(left), *pages.read(right));
        let all = Sequence {
            left: &left_page,
            right: Some(&right_page),
            new: None,
        };
        let cells = all.count();
        let used = leaf::used(&left_page) + leaf::used(&right_page);
        let page = pages.write(left);
        if used - leaf::fence(&right_page).len() <= leaf::CAPACITY {
            all.push_to(page, leaf::count(&left_page)..cells);
            pages.free(right);
            inner::remove(pages.write(parent), left_index + 1);
            self.rebalance_inner(pages, path, path.height - 2);
            return;
        }
        let middle = all.middle();
        page.fill(0);
        leaf::init(page, leaf::fence(&left_page));
        all.push_to(page, 0..middle);
        let page = pages.write(right);
        page.fill(0);
        leaf::init(page, all.separator(middle));
        all.push_to(page, middle..cells);
        inner::refresh(pages, parent, left_index + 1);
    }

    /// After an inner node has lost a child.
    fn rebalance_inner(&mut self, pages: &mut Pages, path: &Path, depth: usize) {
        let (node, _) = path.nodes[depth];
        let page = pages.read(node);
        let count = inner::count(page);
        if depth == 0 {
            if count == 1 {
                self.root = inner::child(page, 0).0;
                self.height -= 1;
                pages.free(node);
            }
            return;
        }
        if count >= inner::CHILDREN_MIN {
            return;
        }
        let level = inner::level(page);
        let (parent, left_index, left, right) = Self::neighbours(pages, path, depth);
        let mut all: inner::Children = [PageId::ROOT; 2 * inner::CHILDREN_MAX];
        let left_count = inner::children(pages.read(left), &mut all);
        let count = left_count + inner::children(pages.read(right), &mut all[left_count..]);
        if count <= inner::CHILDREN_MAX {
            inner::write(pages, left, level, &all[..count]);
            pages.free(right);
            inner::remove(pages.write(parent), left_index + 1);
            self.rebalance_inner(pages, path, depth - 1);
            return;
        }
        inner::write(pages, left, level, &all[..count / 2]);
        inner::write(pages, right, level, &all[count / 2..count]);
        inner::refresh(pages, parent, left_index + 1);
    }

    /// The node at `depth` of a path and one beside it under the same parent: (parent, index of the left one, left, right).
    fn neighbours(pages: &Pages, path: &Path, depth: usize) -> (PageId, usize, PageId, PageId) {
        let (parent, index) = path.nodes[depth - 1];
        let page = pages.read(parent);
        assert!(inner::count(page) >= 2);
        let left_index = index.saturating_sub(1);
        let (left, right) = (
            inner::child(page, left_index),
            inner::child(page, left_index + 1),
        );
        (parent, left_index, left, right)
    }
}

const _: () = assert!(
    PAGE_SIZE <= u16::MAX as usize,
    "offsets in a page are 16 bits"
);
