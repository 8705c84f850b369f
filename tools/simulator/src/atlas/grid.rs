//! What is damaged of the grids: by page of state and node of the tag tree, which are the same on all replicas, though each
//! has them in blocks of its own.

use crate::disk::DiskState;
use storage::SECTOR_SIZE;
use storage::checkpoint::{DamagedItem, locate};
use storage::layout::{Layout, PAGE_SIZE, REPLICAS_MAX};
use storage::superblock::SuperblockState;

/// What is wrong with a block.
#[derive(Clone, Debug)]
struct Fault {
    replica: u8,
    block: u32,
    /// What lies there; none: not known before the checkpoint that is being written is durable.
    item: Option<DamagedItem>,
    /// What the block holds instead; none: it is only this process that read something else.
    content: Option<Vec<u8>>,
    /// The newest durable checkpoint then.
    checkpoint_op: u64,
}

/// The grids of all replicas.
#[derive(Debug, Default)]
pub(super) struct Grids {
    faults: Vec<Fault>,
}

/// Where everything of a replica's durable checkpoint lies.
struct Located {
    op: u64,
    items: Vec<(u32, DamagedItem)>,
}

impl Located {
    fn new(layout: &Layout, superblock: &SuperblockState, disk: &DiskState) -> Self {
        let read = |block: u32| -> Option<[u8; PAGE_SIZE]> {
            let sector = disk.sector(layout.block_at(block) / SECTOR_SIZE as u64);
            sector.try_into().ok()
        };
        Self {
            op: superblock.checkpoint.prepare.op,
            items: locate(layout, &superblock.checkpoint, read),
        }
    }

    fn item_in(&self, block: u32) -> Option<DamagedItem> {
        let found = self.items.iter().find(|place| place.0 == block);
        found.map(|place| place.1)
    }
}

impl Grids {
    /// Whether nothing of the replica's grid is damaged.
    pub(super) fn is_sound(&self, replica: u8) -> bool {
        self.faults.iter().all(|fault| fault.replica != replica)
    }

    /// A process has ended: what only it had read wrongly is over.
    pub(super) fn on_crash(&mut self, replica: u8) {
        self.faults
            .retain(|fault| fault.replica != replica || fault.content.is_some());
    }

    /// A replica's disk is lost: its faults are those of the whole.
    pub(super) fn on_lost(&mut self, replica: u8) {
        self.faults.retain(|fault| fault.replica != replica);
    }

    /// Forgets what has been written again, or is of no checkpoint any more.
    pub(super) fn prune(
        &mut self,
        replica: u8,
        layout: &Layout,
        superblock: &SuperblockState,
        disk: &DiskState,
    ) {
        if self.is_sound(replica) {
            return;
        }
        let located = Located::new(layout, superblock, disk);
        self.faults.retain_mut(|fault| {
            if fault.replica != replica {
                return true;
            }
            let sector = layout.block_at(fault.block) / SECTOR_SIZE as u64;
            let content = fault.content.as_deref();
            if content.is_some_and(|content| disk.sector(sector) != content) {
                return false; // written again
            }
            let item = located.item_in(fault.block);
            if fault.item.is_some() || located.op > fault.checkpoint_op {
                // Known, or to be known now: of this checkpoint, or of none.
                let same = fault.item.is_none() || fault.item == item;
                fault.item = item;
                return item.is_some() && same;
            }
            true
        });
    }

    /// Whether a block may be damaged, so that at most `damaged_max` replicas, the lost ones included, miss one thing. What it
    /// is, if it is known.
    pub(super) fn may_damage(
        &self,
        replica: u8,
        block: u32,
        (layout, superblock, disk): (&Layout, &SuperblockState, &DiskState),
        lost: &[bool; REPLICAS_MAX],
        damaged_max: usize,
    ) -> Option<DamagedItem> {
        if superblock.sync.syncing == 1 || lost[replica as usize] {
            return None;
        }
        let item = Located::new(layout, superblock, disk).item_in(block)?;
        let own = self.faults.iter().filter(|fault| fault.replica == replica);
        let same = |fault: &&Fault| fault.item.is_none() || fault.item == Some(item);
        if own.clone().any(|fault| same(&fault)) {
            return None;
        }
        if matches!(item, DamagedItem::MapCopy(_)) {
            return Some(item); // the replica's own affair: the other copy is good
        }
        let others = (0..REPLICAS_MAX as u8).filter(|&other| {
            let misses = |fault: &Fault| fault.replica == other && same(&fault);
            other != replica && (lost[other as usize] || self.faults.iter().any(misses))
        });
        (others.count() < damaged_max).then_some(item)
    }

    /// Whether a write of a checkpoint that is being made may be lost: it is not known yet of what. So nothing else may be
    /// missing anywhere, beyond what `damaged_max` allows.
    pub(super) fn may_miss(
        &self,
        replica: u8,
        superblock: &SuperblockState,
        lost: &[bool; REPLICAS_MAX],
        damaged_max: usize,
    ) -> bool {
        let others = (0..REPLICAS_MAX as u8)
            .filter(|&other| other != replica && (lost[other as usize] || !self.is_sound(other)));
        superblock.sync.syncing == 0
            && !lost[replica as usize]
            && self.is_sound(replica)
            && others.count() < damaged_max
    }

    /// Whether no checkpoint of the replica is in any of these blocks: not the durable one, nor, as far as can be told, one that
    /// is being written.
    pub(super) fn is_unused(
        &self,
        replica: u8,
        blocks: std::ops::Range<u32>,
        (layout, superblock, disk): (&Layout, &SuperblockState, &DiskState),
    ) -> bool {
        let located = Located::new(layout, superblock, disk);
        let used = |block: u32| {
            let sector = layout.block_at(block) / SECTOR_SIZE as u64;
            located.item_in(block).is_some()
                || disk.sector(sector).iter().any(|&byte| byte != 0)
                || self
                    .faults
                    .iter()
                    .any(|it| it.replica == replica && it.block == block)
        };
        !blocks.into_iter().any(used)
    }

    /// Blocks are damaged: they hold what they hold now, or the process has read something else.
    pub(super) fn damaged(
        &mut self,
        replica: u8,
        blocks: std::ops::Range<u32>,
        item: Option<DamagedItem>,
        read: bool,
        (layout, superblock, disk): (&Layout, &SuperblockState, &DiskState),
    ) {
        for block in blocks {
            let sector = layout.block_at(block) / SECTOR_SIZE as u64;
            self.faults.push(Fault {
                replica,
                block,
                item,
                content: (!read).then(|| disk.sector(sector).to_vec()),
                checkpoint_op: superblock.checkpoint.prepare.op,
            });
        }
    }

    /// Whether `core` alone has all that any replica misses, if so many are outside of it.
    pub(super) fn is_enough(&self, core: &[u8], outside: usize, damaged_max: usize) -> bool {
        self.faults.iter().all(|fault| {
            let same = |other: &&Fault| {
                other.item.is_none() || fault.item.is_none() || other.item == fault.item
            };
            let misses = |replica: &&u8| {
                let faults = self.faults.iter().filter(|it| it.replica == **replica);
                faults.into_iter().any(|it| same(&it))
            };
            let local = matches!(fault.item, Some(DamagedItem::MapCopy(_)));
            local || core.iter().filter(misses).count() + outside <= damaged_max
        })
    }

    /// A block that the replica's durable checkpoint is in.
    pub(super) fn some_block(
        &self,
        layout: &Layout,
        superblock: &SuperblockState,
        disk: &DiskState,
        pick: impl FnOnce(usize) -> usize,
    ) -> Option<u32> {
        let located = Located::new(layout, superblock, disk);
        let count = located.items.len();
        (count > 0).then(|| located.items[pick(count)].0)
    }
}
