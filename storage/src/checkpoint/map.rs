//! The address map: in which block each logical page lies. A replica's own affair.
//!
//! Logical pages are the state's pages, then the nodes of the tag tree. A lowest node of the map holds 1,024 addresses
//! (u32, zero: not stored), an upper node 128 [`BlockReference`]s. Every node is written twice, apart, because it says
//! where everything under it is: pages have copies on other replicas, the map has none. A node all of whose addresses
//! are zero is not stored.

use super::shape::Shape;
use crate::bits::Bits;
use crate::checksum;
use crate::layout::PAGE_SIZE;
use crate::superblock::BlockReference;
use zerocopy::{FromZeros, IntoBytes};

/// Addresses in a lowest node.
pub(super) const ADDRESSES_PER_NODE: usize = PAGE_SIZE / size_of::<u32>();

/// References in an upper node.
pub(super) const REFERENCES_PER_NODE: usize = PAGE_SIZE / size_of::<BlockReference>();

/// All addresses, in memory. A node's bytes are its entries in place.
#[derive(Debug)]
pub(super) struct AddressMap {
    shape: Shape,
    addresses: Box<[u32]>,
    references: Box<[BlockReference]>,
    root: BlockReference,
    /// Nodes with an entry that changed since they were written.
    dirty: Bits,
}

impl AddressMap {
    pub(super) fn shape_of(logical_count: u32) -> Shape {
        Shape::new(
            logical_count,
            ADDRESSES_PER_NODE as u32,
            REFERENCES_PER_NODE as u32,
        )
    }

    /// A map of `logical_count` pages none of which is stored.
    pub(super) fn new(logical_count: u32) -> Self {
        let shape = Self::shape_of(logical_count);
        let leaf_nodes = shape.leaf_nodes() as usize;
        let upper_nodes = shape.node_count() as usize - leaf_nodes;
        Self {
            shape,
            addresses: vec![0; leaf_nodes * ADDRESSES_PER_NODE].into_boxed_slice(),
            references: vec![BlockReference::new_zeroed(); upper_nodes * REFERENCES_PER_NODE]
                .into_boxed_slice(),
            root: BlockReference::new_zeroed(),
            dirty: Bits::new(shape.node_count() as usize),
        }
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The root; valid when no node is dirty.
    pub(super) fn root(&self) -> BlockReference {
        assert!(self.dirty.is_empty());
        self.root
    }

    /// The block of a logical page; zero: not stored.
    pub(super) fn address(&self, logical: u32) -> u32 {
        self.addresses[logical as usize]
    }

    /// Sets the block of a logical page and returns the old one.
    pub(super) fn set_address(&mut self, logical: u32, block: u32) -> u32 {
        let old = std::mem::replace(&mut self.addresses[logical as usize], block);
        if old != block {
            self.dirty.insert(logical as usize / ADDRESSES_PER_NODE);
        }
        old
    }

    /// The lowest dirty node: all below it are clean, so its entries are final.
    pub(super) fn dirty_next(&self) -> Option<u32> {
        self.dirty.next_set(0).map(|node| node as u32)
    }

    /// Whether a node has no entries, and hence is not stored.
    pub(super) fn is_empty(&self, node: u32) -> bool {
        self.node_bytes(node).iter().all(|&byte| byte == 0)
    }

    /// The bytes of a node, as they are stored.
    pub(super) fn node_bytes(&self, node: u32) -> &[u8] {
        let (node, leaf_nodes) = (node as usize, self.shape.leaf_nodes() as usize);
        if node < leaf_nodes {
            self.addresses[node * ADDRESSES_PER_NODE..][..ADDRESSES_PER_NODE].as_bytes()
        } else {
            self.references[(node - leaf_nodes) * REFERENCES_PER_NODE..][..REFERENCES_PER_NODE]
                .as_bytes()
        }
    }

    /// Where a node is stored, as its parent has it.
    pub(super) fn reference(&self, node: u32) -> BlockReference {
        match self.shape.parent(node) {
            None => self.root,
            Some((parent, place)) => self.references[self.reference_index(parent, place)],
        }
    }

    fn reference_index(&self, parent: u32, place: usize) -> usize {
        assert!(place < REFERENCES_PER_NODE);
        (parent - self.shape.leaf_nodes()) as usize * REFERENCES_PER_NODE + place
    }

    /// The lowest dirty node has been dealt with: it is clean, and its new reference goes into its parent. Returns the
    /// old one.
    pub(super) fn node_done(&mut self, node: u32, reference: BlockReference) -> BlockReference {
        assert_eq!(self.dirty_next(), Some(node));
        assert_eq!(reference.first == 0, self.is_empty(node));
        self.dirty.remove(node as usize);
        match self.shape.parent(node) {
            None => std::mem::replace(&mut self.root, reference),
            Some((parent, place)) => {
                let index = self.reference_index(parent, place);
                let old = std::mem::replace(&mut self.references[index], reference);
                if old != reference {
                    self.dirty.insert(parent as usize);
                }
                old
            }
        }
    }
}

/// What opening does.
impl AddressMap {
    /// Forgets everything but the root that the checkpoint names.
    pub(super) fn open(&mut self, root: BlockReference) {
        self.addresses.fill(0);
        self.references.fill(BlockReference::new_zeroed());
        self.dirty.clear();
        self.root = root;
    }

    /// Takes a node as read from disk, if it has the tag that its parent says. The parent was loaded before.
    #[must_use]
    pub(super) fn load(&mut self, node: u32, bytes: &[u8]) -> bool {
        assert_eq!(bytes.len(), PAGE_SIZE);
        if checksum::identity(bytes) != self.reference(node).tag {
            return false;
        }
        let (node, leaf_nodes) = (node as usize, self.shape.leaf_nodes() as usize);
        if node < leaf_nodes {
            self.addresses[node * ADDRESSES_PER_NODE..][..ADDRESSES_PER_NODE]
                .as_mut_bytes()
                .copy_from_slice(bytes);
        } else {
            self.references[(node - leaf_nodes) * REFERENCES_PER_NODE..][..REFERENCES_PER_NODE]
                .as_mut_bytes()
                .copy_from_slice(bytes);
        }
        true
    }

    /// Where both copies of a node should be there can be none: it is not stored.
    pub(super) fn forget(&mut self, node: u32) {
        match self.shape.parent(node) {
            None => self.root = BlockReference::new_zeroed(),
            Some((parent, place)) => {
                let index = self.reference_index(parent, place);
                self.references[index] = BlockReference::new_zeroed();
                self.dirty.insert(parent as usize);
            }
        }
        self.dirty.insert(node as usize);
    }

    /// Records where a logical page is: nothing becomes dirty.
    pub(super) fn record_address(&mut self, logical: u32, block: u32) {
        self.addresses[logical as usize] = block;
    }

    /// Makes the nodes, but not the addresses, those of another map.
    pub(super) fn copy_nodes_from(&mut self, other: &Self) {
        self.references.copy_from_slice(&other.references);
        self.root = other.root;
        self.dirty.copy_from(&other.dirty);
    }

    /// A copy of the node is bad: the next checkpoint writes it anew, elsewhere.
    pub(super) fn rewrite(&mut self, node: u32) {
        self.dirty.insert(node as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_dirties_one_path_and_a_map_loads_from_its_nodes() {
        let mut map = AddressMap::new(300_000);
        assert_eq!(map.shape().levels(), 3);
        for logical in (0..300_000).step_by(777) {
            assert_eq!(map.set_address(logical, logical + 1), 0);
        }
        map.set_address(299_999, 7);
        assert_eq!(map.set_address(299_999, 8), 7);
        let mut block = 0;
        let mut settle = |map: &mut AddressMap| {
            let mut written = 0;
            while let Some(node) = map.dirty_next() {
                block += 1;
                let tag = checksum::identity(map.node_bytes(node));
                let reference = BlockReference {
                    tag,
                    first: block,
                    second: block + 1000,
                    reserved: [0; 8],
                };
                map.node_done(node, reference);
                written += 1;
            }
            written
        };
        assert_eq!(settle(&mut map), map.shape().node_count());
        map.set_address(5, 6);
        assert_eq!(settle(&mut map), 3);

        let mut copy = AddressMap::new(300_000);
        copy.open(map.root());
        for node in (0..map.shape().node_count()).rev() {
            let mut bytes = map.node_bytes(node).to_vec();
            bytes[4095] ^= 0x80;
            assert!(!copy.load(node, &bytes));
            assert!(copy.load(node, map.node_bytes(node)));
        }
        assert_eq!(copy.addresses, map.addresses);
        assert_eq!((copy.address(777), copy.address(299_999)), (778, 8));
    }
}
