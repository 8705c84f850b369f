//! Which blocks of the grids may be damaged. A page of state, or a node of the tag tree, is the same on all replicas, though
//! each has it in a block of its own; the address map is a replica's own, and written twice.
//!
//! One of two rules holds for all of a run, and neither needs to know what is damaged elsewhere:
//! * **Weak replicas**: so few that a good copy of all that is committed is among the others. Whatever is in their grids
//!   may suffer, also while a checkpoint is being written, of which nobody can say yet what lies where.
//! * **By item**: each page and node may suffer on as few replicas, but on others than the next one; and of each node of the
//!   map the same one of its copies. What is written always lands, and what decays is of a durable checkpoint.

use crate::disk::DiskState;
use crate::prng::Prng;
use storage::SECTOR_SIZE;
use storage::checkpoint::{DamagedItem, locate, walk};
use storage::layout::{Layout, PAGE_SIZE, REPLICAS_MAX};
use storage::superblock::{CheckpointRecord, SuperblockState};

/// What may be wrong with a replica's grid.
#[derive(Clone, Copy, Debug, Default)]
struct Suspect {
    /// A block of it was damaged, and it has not been found whole since.
    on_disk: bool,
    /// This process has read something else than what is there.
    in_memory: bool,
    /// A checkpoint that is written after the one of this op may lack something.
    unwritten: Option<u64>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Grids {
    layout: Layout,
    replica_count: usize,
    damaged_max: usize,
    /// The weak ones; none: it is decided item by item.
    weak: Option<[bool; REPLICAS_MAX]>,
    suspects: [Suspect; REPLICAS_MAX],
}

/// A block of a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    block: u32,
    item: DamagedItem,
    /// Of a node of the address map: its second copy.
    second: bool,
}

impl Grids {
    pub(super) fn new(
        layout: Layout,
        replica_count: u8,
        damaged_max: usize,
        weak: bool,
        prng: &mut Prng,
    ) -> Self {
        let weak = weak.then(|| {
            let mut order: Vec<usize> = (0..replica_count.into()).collect();
            prng.shuffle(&mut order);
            std::array::from_fn(|replica| order.iter().take(damaged_max).any(|&it| it == replica))
        });
        Self {
            layout,
            replica_count: replica_count.into(),
            damaged_max,
            weak,
            suspects: [Suspect::default(); REPLICAS_MAX],
        }
    }

    /// Whether all of a replica's grid may be damaged.
    pub(super) fn is_weak(&self, replica: u8) -> bool {
        self.weak.is_some_and(|weak| weak[replica as usize])
    }

    /// Whether a block may be damaged, on a disk with this superblock.
    pub(super) fn may_damage(
        &self,
        replica: u8,
        block: u32,
        superblock: &SuperblockState,
        disk: &DiskState,
    ) -> bool {
        if self.weak.is_some() {
            return self.is_weak(replica);
        }
        let of = |record| places(&self.layout, record, disk);
        let mut all = of(&superblock.checkpoint);
        all.extend(of(&superblock.previous));
        let mut here = all.iter().filter(|place| place.block == block).peekable();
        here.peek().is_some() && here.all(|place| self.is_expendable(replica, place))
    }

    fn is_expendable(&self, replica: u8, place: &Place) -> bool {
        let number = match place.item {
            DamagedItem::Page(page) => page.0 as usize,
            DamagedItem::TagNode(node) => node as usize,
            DamagedItem::MapCopy(node) => return place.second == (node % 2 == 0),
            DamagedItem::MapNode(_) | DamagedItem::Allocator => return false,
        };
        (number + replica as usize) % self.replica_count < self.damaged_max
    }

    /// A block that is in use.
    pub(super) fn some_block(
        &self,
        superblock: &SuperblockState,
        disk: &DiskState,
        prng: &mut Prng,
    ) -> Option<u32> {
        let previous = prng.chance(200_000);
        let record = if previous {
            &superblock.previous
        } else {
            &superblock.checkpoint
        };
        let mut places = places(&self.layout, record, disk);
        // Most of it is pages: nodes have as large a share of the rest.
        if prng.coin() {
            places.retain(|place| !matches!(place.item, DamagedItem::Page(_)));
        }
        (!places.is_empty()).then(|| prng.pick(&places).block)
    }

    /// Something was damaged on a replica; or was read wrongly by its process.
    pub(super) fn damaged(&mut self, replica: u8, read: bool) {
        let suspect = &mut self.suspects[replica as usize];
        suspect.on_disk |= !read;
        suspect.in_memory |= read;
    }

    /// What is written for the checkpoint after that of this op may be missing.
    pub(super) fn missed(&mut self, replica: u8, checkpoint_op: u64) {
        self.damaged(replica, false);
        self.suspects[replica as usize].unwritten = Some(checkpoint_op);
    }

    /// Another disk is in a disk's place.
    pub(super) fn forget(&mut self, replica: u8) {
        self.suspects[replica as usize] = Suspect::default();
    }

    /// A process has ended.
    pub(super) fn on_crash(&mut self, replica: u8) {
        self.suspects[replica as usize].in_memory = false;
    }

    /// Looks at a disk: whether its grid is whole again.
    pub(super) fn survey(&mut self, replica: u8, superblock: &SuperblockState, disk: &DiskState) {
        let suspect = &mut self.suspects[replica as usize];
        let record = &superblock.checkpoint;
        let settled = suspect.unwritten.is_none_or(|op| record.prepare.op > op);
        if suspect.on_disk && settled && superblock.sync.syncing == 0 {
            let walk = walk(&self.layout, record, |block| {
                read(&self.layout, disk, block)
            });
            suspect.on_disk = walk.damages.count > 0;
        }
    }

    /// Whether a replica's grid may lack something.
    pub(super) fn is_suspect(&self, replica: u8) -> bool {
        let suspect = &self.suspects[replica as usize];
        suspect.on_disk || suspect.in_memory
    }
}

fn read(layout: &Layout, disk: &DiskState, block: u32) -> Option<[u8; PAGE_SIZE]> {
    let sector = disk.sector(layout.block_at(block) / SECTOR_SIZE as u64);
    sector.try_into().ok()
}

const _: () = assert!(PAGE_SIZE == SECTOR_SIZE);

/// Where everything of a checkpoint lies.
fn places(layout: &Layout, record: &CheckpointRecord, disk: &DiskState) -> Vec<Place> {
    let located = locate(layout, record, |block| read(layout, disk, block));
    let mut places: Vec<Place> = Vec::with_capacity(located.len());
    for (block, item) in located {
        // The copies of a node are told one after the other.
        let second = matches!(item, DamagedItem::MapCopy(_))
            && places.last().is_some_and(|last| last.item == item);
        places.push(Place {
            block,
            item,
            second,
        });
    }
    places
}
