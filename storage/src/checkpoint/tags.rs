//! The hash tree over the state's pages. It is replicated: equal contents give equal trees, whatever the blocks.
//!
//! A leaf is the tag of a page, zero where the page is not in use. 256 tags make a node of one page, whose own tag is
//! an entry of the node above; the tag of the topmost node is the root. A node all of whose entries are zero has the
//! tag zero as well and is not stored: "zero" means "nothing there" on every level.

use super::shape::Shape;
use crate::bits::Bits;
use crate::checksum::PageKey;
use crate::layout::PAGE_SIZE;
use std::ops::Range;
use zerocopy::IntoBytes;

/// Tags in a node.
pub(super) const TAGS_PER_NODE: usize = PAGE_SIZE / size_of::<u128>();

/// All tags, in memory. A node's bytes are its entries in place.
#[derive(Debug)]
pub(super) struct TagTree {
    shape: Shape,
    page_count: u32,
    /// Nodes one after the other, in the order of their numbers; so the tag of page p is entry p.
    entries: Box<[u128]>,
    root: u128,
    /// Nodes with an entry that changed since they were written.
    dirty: Bits,
    pages_used: u32,
}

impl TagTree {
    pub(super) fn shape_of(page_count: u32) -> Shape {
        Shape::new(page_count, TAGS_PER_NODE as u32, TAGS_PER_NODE as u32)
    }

    /// The tree of a state none of whose pages is in use.
    pub(super) fn new(page_count: u32) -> Self {
        let shape = Self::shape_of(page_count);
        let nodes = shape.node_count() as usize;
        Self {
            shape,
            page_count,
            entries: vec![0; nodes * TAGS_PER_NODE].into_boxed_slice(),
            root: 0,
            dirty: Bits::new(nodes),
            pages_used: 0,
        }
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Pages with a tag.
    pub(super) fn pages_used(&self) -> u32 {
        self.pages_used
    }

    /// The root; valid when no node is dirty.
    pub(super) fn root(&self) -> u128 {
        assert!(self.dirty.is_empty());
        self.root
    }

    /// Logical pages: the pages of state, then the nodes of this tree.
    pub(super) fn logical_count(&self) -> u32 {
        self.page_count + self.shape.node_count()
    }

    /// The node that a logical page is, if it is not a page of state.
    pub(super) fn node_of(&self, logical: u32) -> Option<u32> {
        assert!(logical < self.logical_count());
        logical.checked_sub(self.page_count)
    }

    /// The tag of a logical page, as its parent has it.
    pub(super) fn tag(&self, logical: u32) -> u128 {
        match self.node_of(logical) {
            None => self.page_tag(logical),
            Some(node) => self.node_tag(node),
        }
    }

    /// Records what a block holds: nothing becomes dirty, and no other node follows.
    pub(super) fn record_tag(&mut self, logical: u32, tag: u128) {
        match self.node_of(logical) {
            None => self.entries[logical as usize] = tag,
            Some(node) => match self.shape.parent(node) {
                None => self.root = tag,
                Some((parent, place)) => {
                    self.entries[parent as usize * TAGS_PER_NODE + place] = tag;
                }
            },
        }
    }

    /// The pages of state whose tags a lowest node holds.
    pub(super) fn pages_of(&self, leaf: u32) -> Range<u32> {
        assert!(leaf < self.shape.leaf_nodes());
        let first = leaf * TAGS_PER_NODE as u32;
        first..self.page_count.min(first + TAGS_PER_NODE as u32)
    }

    /// The tag of a page; zero if it is not in use.
    pub(super) fn page_tag(&self, page: u32) -> u128 {
        self.entries[page as usize]
    }

    pub(super) fn set_page_tag(&mut self, page: u32, tag: u128) {
        let entry = &mut self.entries[page as usize];
        self.pages_used += u32::from(tag != 0);
        self.pages_used -= u32::from(*entry != 0);
        if *entry != tag {
            *entry = tag;
            self.dirty.insert(page as usize / TAGS_PER_NODE);
        }
    }

    /// The lowest dirty node: all below it are clean, so its entries are final.
    pub(super) fn dirty_next(&self) -> Option<u32> {
        self.dirty.next_set(0).map(|node| node as u32)
    }

    /// Whether a node has no entries, and hence is not stored.
    pub(super) fn is_empty(&self, node: u32) -> bool {
        self.node_entries(node).iter().all(|&tag| tag == 0)
    }

    /// The bytes of a node, as they are stored.
    pub(super) fn node_bytes(&self, node: u32) -> &[u8] {
        self.node_entries(node).as_bytes()
    }

    fn node_entries(&self, node: u32) -> &[u128] {
        &self.entries[node as usize * TAGS_PER_NODE..][..TAGS_PER_NODE]
    }

    /// The tag of a node, as its parent has it.
    pub(super) fn node_tag(&self, node: u32) -> u128 {
        match self.shape.parent(node) {
            None => self.root,
            Some((parent, place)) => self.node_entries(parent)[place],
        }
    }

    /// The lowest dirty node has been dealt with: it is clean, and its new tag goes into its parent.
    pub(super) fn node_done(&mut self, node: u32, tag: u128) {
        assert_eq!(self.dirty_next(), Some(node));
        assert_eq!(tag == 0, self.is_empty(node));
        self.dirty.remove(node as usize);
        match self.shape.parent(node) {
            None => self.root = tag,
            Some((parent, place)) => {
                let entry = &mut self.entries[parent as usize * TAGS_PER_NODE + place];
                if *entry != tag {
                    *entry = tag;
                    self.dirty.insert(parent as usize);
                }
            }
        }
    }
}

/// What opening and fetching do.
impl TagTree {
    /// Forgets everything but the root that the checkpoint names.
    pub(super) fn open(&mut self, root: u128) {
        self.entries.fill(0);
        self.dirty.clear();
        self.pages_used = 0;
        self.root = root;
    }

    /// Another tree is to be had, whose root is this. Entries stay as they are: where they are the same they need not come
    /// from elsewhere.
    pub(super) fn aim(&mut self, root: u128) {
        self.dirty.clear();
        self.root = root;
    }

    /// Puts the entries of a node, whatever its tag.
    pub(super) fn put(&mut self, node: u32, bytes: &[u8]) {
        assert_eq!(bytes.len(), PAGE_SIZE);
        let entries = &mut self.entries[node as usize * TAGS_PER_NODE..][..TAGS_PER_NODE];
        entries.as_mut_bytes().copy_from_slice(bytes);
    }

    /// A node has no entries.
    pub(super) fn put_empty(&mut self, node: u32) {
        self.entries[node as usize * TAGS_PER_NODE..][..TAGS_PER_NODE].fill(0);
    }

    /// All nodes were put: counts the pages in use.
    pub(super) fn counted(&mut self) {
        let pages = &self.entries[..self.page_count as usize];
        self.pages_used = pages.iter().filter(|&&tag| tag != 0).count() as u32;
    }

    /// A node is not in its block: it is to be written though nothing in it has changed.
    pub(super) fn rewrite(&mut self, node: u32) {
        self.dirty.insert(node as usize);
    }

    /// Takes a node as read from disk, if it has the tag that its parent says. The parent was loaded before.
    #[must_use]
    pub(super) fn load(&mut self, node: u32, bytes: &[u8], key: PageKey) -> bool {
        assert_eq!(bytes.len(), PAGE_SIZE);
        if key.tag(bytes) != self.node_tag(node) {
            return false;
        }
        let entries = &mut self.entries[node as usize * TAGS_PER_NODE..][..TAGS_PER_NODE];
        entries.as_mut_bytes().copy_from_slice(bytes);
        if node < self.shape.leaf_nodes() {
            self.pages_used += entries.iter().filter(|&&tag| tag != 0).count() as u32;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(tree: &mut TagTree, key: PageKey) -> u32 {
        let mut hashed = 0;
        while let Some(node) = tree.dirty_next() {
            let tag = if tree.is_empty(node) {
                0
            } else {
                key.tag(tree.node_bytes(node))
            };
            tree.node_done(node, tag);
            hashed += 1;
        }
        hashed
    }

    #[test]
    fn the_root_depends_on_contents_alone_and_only_changed_paths_are_hashed() {
        let key = PageKey([3; 16]);
        let mut one = TagTree::new(70_000);
        let mut other = TagTree::new(70_000);
        for page in 0..70_000 {
            one.set_page_tag(page, u128::from(page) + 1);
        }
        settle(&mut one, key);
        for page in (0..70_000).rev() {
            other.set_page_tag(page, 99);
            if page % 1000 == 0 {
                settle(&mut other, key);
            }
            other.set_page_tag(page, u128::from(page) + 1);
        }
        settle(&mut other, key);
        assert_eq!(one.root(), other.root());
        assert_eq!(one.pages_used(), 70_000);

        let before = one.root();
        one.set_page_tag(69_999, 5);
        assert_eq!(settle(&mut one, key), one.shape().levels() as u32);
        assert_ne!(one.root(), before);
        one.set_page_tag(69_999, 70_000);
        settle(&mut one, key);
        assert_eq!(one.root(), before);
        one.set_page_tag(69_999, 70_000);
        assert_eq!(one.dirty_next(), None);
    }

    #[test]
    fn a_tree_of_nothing_has_root_zero() {
        let key = PageKey([3; 16]);
        let mut tree = TagTree::new(2000);
        tree.set_page_tag(1999, 7);
        settle(&mut tree, key);
        assert_ne!(tree.root(), 0);
        tree.set_page_tag(1999, 0);
        settle(&mut tree, key);
        assert_eq!((tree.root(), tree.pages_used()), (0, 0));
    }

    #[test]
    fn nodes_load_from_the_root_down_and_only_unchanged() {
        let key = PageKey([3; 16]);
        let mut tree = TagTree::new(2000);
        for page in 0..300 {
            tree.set_page_tag(page * 3, u128::from(page) + 1);
        }
        settle(&mut tree, key);
        let mut copy = TagTree::new(2000);
        copy.open(tree.root());
        for node in (0..tree.shape().node_count()).rev() {
            if copy.node_tag(node) == 0 {
                assert!(tree.is_empty(node));
                continue;
            }
            let mut bytes = tree.node_bytes(node).to_vec();
            bytes[17] ^= 1;
            assert!(!copy.load(node, &bytes, key));
            assert!(copy.load(node, tree.node_bytes(node), key));
        }
        assert_eq!(copy.pages_used(), 300);
        assert_eq!(copy.entries, tree.entries);
    }
}
