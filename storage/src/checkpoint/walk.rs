//! A checkpoint looked at from outside, for `verify` and `inspect`: nothing is opened, repaired or changed.

use super::blocks::{Blocks, Zone};
use super::map::AddressMap;
use super::reader::{Damage, DamagedItem, Damages};
use super::tags::TagTree;
use crate::checksum::{self, PageKey};
use crate::layout::{Layout, PAGE_SIZE};
use crate::pages::PageId;
use crate::superblock::CheckpointRecord;

/// What a walk over a checkpoint has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Nodes of the address map that have a good copy.
    pub map_nodes: u32,
    /// Good nodes of the tag tree.
    pub tag_nodes: u32,
    /// Good pages of state.
    pub pages: u32,
    /// Bad copies of map nodes whose other copy is good: the replica opens, and writes them anew.
    pub map_copies: Damages,
    /// Blocks that the checkpoint is in.
    pub blocks_used: u32,
    /// What is lost on this disk.
    pub damages: Damages,
}

/// Reads all of a checkpoint, both copies of the map included. `read` returns a block of the grid (numbered from 1),
/// or none if the disk cannot. The state before the first op has nothing to read.
pub fn walk(
    layout: &Layout,
    record: &CheckpointRecord,
    mut read: impl FnMut(u32) -> Option<[u8; PAGE_SIZE]>,
) -> Walk {
    let page_count = layout.geometry.page_count();
    let tags = TagTree::new(page_count);
    let mut walker = Walker {
        map: AddressMap::new(page_count + tags.shape().node_count()),
        tags,
        blocks: Blocks::new(&layout.geometry),
        key: PageKey(record.page_key),
        map_lost: false,
        layout,
        walk: Walk {
            map_nodes: 0,
            tag_nodes: 0,
            pages: 0,
            map_copies: Damages::new(record.prepare.op),
            blocks_used: 0,
            damages: Damages::new(record.prepare.op),
        },
    };
    if record.map.first != 0 {
        walker.map.open(record.map);
        walker.tags.open(record.root);
        walker.map(&mut read);
        walker.tags(&mut read);
        walker.pages(&mut read);
    }
    walker.walk.blocks_used = walker.blocks.durable_count();
    walker.walk
}

/// Where everything of a checkpoint lies: each block of the grid that it is in, and what is there. Nothing but the address
/// map is read. What lies under a node of the map that is lost is not told.
pub fn locate(
    layout: &Layout,
    record: &CheckpointRecord,
    mut read: impl FnMut(u32) -> Option<[u8; PAGE_SIZE]>,
) -> Vec<(u32, DamagedItem)> {
    let page_count = layout.geometry.page_count();
    let node_count = TagTree::new(page_count).shape().node_count();
    let mut map = AddressMap::new(page_count + node_count);
    let mut found = Vec::new();
    if record.map.first == 0 {
        return found;
    }
    map.open(record.map);
    for node in (0..map.shape().node_count()).rev() {
        let reference = map.reference(node);
        if reference.first == 0 {
            continue;
        }
        for block in [reference.first, reference.second] {
            found.push((block, DamagedItem::MapCopy(node)));
        }
        let good = |bytes: &[u8; PAGE_SIZE]| checksum::identity(bytes) == reference.tag;
        let copy = read(reference.first)
            .filter(good)
            .or_else(|| read(reference.second).filter(good));
        if let Some(bytes) = copy {
            assert!(map.load(node, &bytes));
        }
    }
    for logical in 0..page_count + node_count {
        let block = map.address(logical);
        let item = match logical.checked_sub(page_count) {
            None => DamagedItem::Page(PageId(logical)),
            Some(node) => DamagedItem::TagNode(node),
        };
        if block != 0 {
            found.push((block, item));
        }
    }
    found
}

struct Walker<'a> {
    layout: &'a Layout,
    map: AddressMap,
    tags: TagTree,
    /// What was met so far: a block named twice is a damage.
    blocks: Blocks,
    key: PageKey,
    /// A node of the map is lost, and with it the addresses under it.
    map_lost: bool,
    walk: Walk,
}

impl Walker<'_> {
    fn damage(&mut self, item: DamagedItem, block: u32) {
        self.walk.damages.add(Damage::new(self.layout, item, block));
    }

    fn map(&mut self, read: &mut impl FnMut(u32) -> Option<[u8; PAGE_SIZE]>) {
        for node in (0..self.map.shape().node_count()).rev() {
            let reference = self.map.reference(node);
            if reference.first == 0 {
                continue;
            }
            let copies = [
                (Zone::MapFirst, reference.first),
                (Zone::MapSecond, reference.second),
            ];
            let mut good = 0;
            let mut bad = 0;
            for (zone, block) in copies {
                let bytes = self.blocks.restore(zone, block).then(|| read(block));
                if let Some(bytes) = bytes.flatten()
                    && checksum::identity(&bytes) == reference.tag
                {
                    assert!(self.map.load(node, &bytes));
                    good += 1;
                } else {
                    bad = block;
                }
            }
            match good {
                0 => {
                    self.map_lost = true;
                    self.damage(DamagedItem::MapNode(node), reference.first);
                }
                _ => self.walk.map_nodes += 1,
            }
            if good == 1 {
                let damage = Damage::new(self.layout, DamagedItem::MapCopy(node), bad);
                self.walk.map_copies.add(damage);
            }
        }
    }

    /// Whether an address is missing because a node of the map is: what it is of is not damaged itself.
    fn is_unknown(&self, block: u32) -> bool {
        block == 0 && self.map_lost
    }

    /// A block's content, if its tag is the expected one and no other page is in it.
    fn block(
        &mut self,
        block: u32,
        tag: u128,
        read: &mut impl FnMut(u32) -> Option<[u8; PAGE_SIZE]>,
    ) -> Option<[u8; PAGE_SIZE]> {
        if !self.blocks.restore(Zone::Data, block) {
            return None;
        }
        read(block).filter(|bytes| self.key.tag(bytes) == tag)
    }

    fn tags(&mut self, read: &mut impl FnMut(u32) -> Option<[u8; PAGE_SIZE]>) {
        for node in (0..self.tags.shape().node_count()).rev() {
            let block = self.map.address(self.layout.geometry.page_count() + node);
            let tag = self.tags.node_tag(node);
            if tag == 0 || self.is_unknown(block) {
                continue; // empty, or under a damaged node
            }
            match self.block(block, tag, read) {
                Some(bytes) => {
                    assert!(self.tags.load(node, &bytes, self.key));
                    self.walk.tag_nodes += 1;
                }
                None => self.damage(DamagedItem::TagNode(node), block),
            }
        }
    }

    fn pages(&mut self, read: &mut impl FnMut(u32) -> Option<[u8; PAGE_SIZE]>) {
        for page in 0..self.layout.geometry.page_count() {
            let (block, tag) = (self.map.address(page), self.tags.page_tag(page));
            if tag == 0 || self.is_unknown(block) {
                continue; // not in use, or under a damaged node
            }
            match self.block(block, tag, read) {
                Some(_) => self.walk.pages += 1,
                None => self.damage(DamagedItem::Page(PageId(page)), block),
            }
        }
    }
}
