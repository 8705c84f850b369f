//! Where disks may be damaged, so that a copy remains where one is owed; and what is damaged now.
//!
//! What is owed, and so never taken:
//! * **Journal.** Of each slot (its prepare and its redundant header) at most *replication quorum less one* replicas are
//!   damaged at once, and of one replica one of the two at most: what is committed is on a replication quorum. With one
//!   replica nothing may be damaged.
//! * **Grid.** Of each page of state and node of the tag tree the same, and one of the two copies of each node of the address
//!   map: `grid`.
//! * **Superblock.** One good copy of the newest is left to each replica, whatever a crash tears beside.
//! * **The one-write ack.** The write of a prepare of one sector is lost or misplaced only once its redundant header is
//!   down, or never before a crash; the file's other ack mode has no such exception (docs/data-file.md).
//! * A replica whose disk is **lost** (rolled back, wiped) counts as damaged everywhere, until it has converged.
//!
//! A damage is over when what it hit is written again; one that was in a read only, when the process restarts as well.

mod grid;

use crate::disk::{Disk, DiskState, Fate};
use crate::prng::Prng;
use grid::Grids;
use storage::SECTOR_SIZE;
use storage::header::{HEADER_SIZE, Prepare, Start};
use storage::io::{IoDone, IoError, IoRequest};
use storage::layout::{
    HEADERS_PER_SECTOR, JournalAck, Layout, REPLICAS_MAX, SUPERBLOCK_COPIES,
    SUPERBLOCK_COPY_DISTANCE, SUPERBLOCK_ZONE_SIZE,
};
use storage::superblock::{COPY_SIZE_MAX, Decision, SuperblockState, decide};
use viewstone::quorums::Quorums;
use zerocopy::FromBytes;

/// How often storage fails; chances are in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StorageFaults {
    /// Mean time between decays of a sector, over all disks; none: nothing decays.
    pub decay_mean_ns: Option<u64>,
    /// Chance that a read returns something else than what is there, or nothing.
    pub bad_read: u32,
    /// Chance that a write is acknowledged and never lands.
    pub dropped: u32,
    /// Chance that a write is acknowledged and lands elsewhere in its zone.
    pub misplaced: u32,
    /// Chance that a crash leaves one of the prepares that were written last unreadable.
    pub crash_decay: u32,
    /// Which zones it concerns, by [`Zone::bit`].
    pub zones: u8,
    /// Whether grids fail on few replicas, in every way; otherwise on all, but each page on few.
    pub weak_grids: bool,
}

/// What lies at an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone {
    /// This copy of the superblock.
    Superblock {
        /// Which.
        copy: usize,
    },
    /// A sector of redundant headers.
    Headers {
        /// The first slot of it.
        slot: usize,
    },
    /// A prepare.
    Prepare {
        /// Its slot.
        slot: usize,
    },
    /// A block of the grid.
    Grid {
        /// Its number.
        block: u32,
    },
}

impl Zone {
    /// What lies at offset `at`.
    pub fn of(layout: &Layout, at: u64) -> Self {
        let sector = SECTOR_SIZE as u64;
        if at < SUPERBLOCK_ZONE_SIZE {
            let copy = (at / SUPERBLOCK_COPY_DISTANCE as u64) as usize;
            Self::Superblock { copy }
        } else if at < layout.prepares_at {
            let slot = ((at - layout.headers_at) / sector) as usize * HEADERS_PER_SECTOR;
            Self::Headers { slot }
        } else if at < layout.grid_at {
            let size = u64::from(layout.geometry.message_size_max);
            let slot = ((at - layout.prepares_at) / size) as usize;
            Self::Prepare { slot }
        } else {
            let block = ((at - layout.grid_at) / sector) as u32 + 1;
            Self::Grid { block }
        }
    }

    /// Names the zone in [`StorageFaults::zones`].
    pub fn bit(self) -> u8 {
        match self {
            Self::Superblock { .. } => SUPERBLOCK,
            Self::Headers { .. } => HEADERS,
            Self::Prepare { .. } => PREPARES,
            Self::Grid { .. } => GRID,
        }
    }
}

/// Bit of the superblock's zone.
pub const SUPERBLOCK: u8 = 1;
/// Bit of the ring of redundant headers.
pub const HEADERS: u8 = 2;
/// Bit of the ring of prepares.
pub const PREPARES: u8 = 4;
/// Bit of the grid.
pub const GRID: u8 = 8;

/// What is wrong with a slot of one replica's journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum SlotFault {
    #[default]
    None,
    /// The prepare.
    Prepare,
    /// The prepare, as the process read it.
    PrepareRead,
    /// The prepare, once its redundant header is down.
    Deferred,
    /// The redundant header.
    Header,
    /// The redundant header, as the process read it.
    HeaderRead,
}

impl SlotFault {
    fn is_of_prepare(self) -> bool {
        matches!(self, Self::Prepare | Self::PrepareRead | Self::Deferred)
    }
}

/// Counts of what was done to disks, by zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ZoneCounts {
    /// In copies of the superblock.
    pub superblock: u64,
    /// In sectors of redundant headers.
    pub headers: u64,
    /// In prepares.
    pub prepares: u64,
    /// In blocks of the grid.
    pub grid: u64,
}

impl ZoneCounts {
    fn add(&mut self, zone: Zone) {
        match zone {
            Zone::Superblock { .. } => self.superblock += 1,
            Zone::Headers { .. } => self.headers += 1,
            Zone::Prepare { .. } => self.prepares += 1,
            Zone::Grid { .. } => self.grid += 1,
        }
    }

    /// All zones.
    pub fn total(&self) -> u64 {
        self.superblock + self.headers + self.prepares + self.grid
    }
}

/// Counts of what was done to disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AtlasStatistics {
    /// Sectors that decayed.
    pub decayed: ZoneCounts,
    /// Reads that went wrong.
    pub bad_reads: ZoneCounts,
    /// Writes that were to be dropped.
    pub dropped: ZoneCounts,
    /// Writes that were to land elsewhere.
    pub misplaced: ZoneCounts,
    /// Disks put back to an older state.
    pub rolled_back: u64,
    /// Disks formatted anew.
    pub wiped: u64,
    /// Damages that were not done because a copy was owed.
    pub spared: u64,
}

/// Slots that count as written last.
const RECENT: usize = 3;

/// See the module's description.
#[derive(Debug)]
pub struct Atlas {
    layout: Layout,
    faults: StorageFaults,
    /// Replicas that may be damaged in one place at once.
    damaged_max: usize,
    single_write: bool,
    slots: Vec<[SlotFault; REPLICAS_MAX]>,
    /// Copies of the superblock that are bad, as bits.
    copies: [u8; REPLICAS_MAX],
    lost: [bool; REPLICAS_MAX],
    grids: Grids,
    /// The slots written last, the latest first.
    recent: [[usize; RECENT]; REPLICAS_MAX],
    statistics: AtlasStatistics,
    prng: Prng,
}

impl Atlas {
    /// No disk is damaged yet.
    pub fn new(layout: Layout, replica_count: u8, faults: StorageFaults, mut prng: Prng) -> Self {
        let quorums = Quorums::new(replica_count);
        let damaged_max = usize::from(quorums.replication) - 1;
        let weak = faults.weak_grids;
        Self {
            layout,
            faults,
            damaged_max,
            single_write: layout.geometry.journal_ack() == JournalAck::Single,
            slots: vec![[SlotFault::None; REPLICAS_MAX]; layout.geometry.slots as usize],
            copies: [0; REPLICAS_MAX],
            lost: [false; REPLICAS_MAX],
            grids: Grids::new(layout, replica_count, damaged_max, weak, &mut prng),
            recent: [[0; RECENT]; REPLICAS_MAX],
            statistics: AtlasStatistics::default(),
            prng,
        }
    }

    /// Counts of what was done.
    pub fn statistics(&self) -> &AtlasStatistics {
        &self.statistics
    }

    /// From now on nothing new is damaged.
    pub fn stop(&mut self) {
        self.faults = StorageFaults::default();
    }

    /// Mean time between decays.
    pub fn decay_mean_ns(&self) -> Option<u64> {
        self.faults.decay_mean_ns
    }

    /// Whether nothing of the replica's journal is damaged: what it acknowledged must be found there.
    pub fn is_journal_sound(&self, replica: u8) -> bool {
        let replica = replica as usize;
        let sound = |slot: &[SlotFault; REPLICAS_MAX]| slot[replica] == SlotFault::None;
        !self.lost[replica] && self.slots.iter().all(sound)
    }

    /// Whether a slot of the replica's journal may not hold what was written there.
    pub fn is_slot_damaged(&self, replica: u8, slot: usize) -> bool {
        self.lost[replica as usize] || self.slots[slot][replica as usize] != SlotFault::None
    }

    /// Whether a copy of the replica's superblock may be bad.
    pub fn is_copy_damaged(&self, replica: u8, copy: usize) -> bool {
        self.copies[replica as usize] >> copy & 1 == 1
    }

    /// The replica has what it needs to promise again.
    pub fn recovered(&mut self, replica: u8) {
        self.lost[replica as usize] = false;
    }

    /// Whether the replica's disk is lost, and it has not recovered yet.
    pub fn is_lost(&self, replica: u8) -> bool {
        self.lost[replica as usize]
    }

    /// The replica's disk is lost.
    pub fn lose(&mut self, replica: u8) {
        self.lost[replica as usize] = true;
    }

    /// A lost disk is a new one, with nothing wrong.
    pub fn was_wiped(&mut self, replica: u8) {
        self.statistics.wiped += 1;
        self.forget(replica);
        self.copies[replica as usize] = 0;
    }

    /// A lost disk holds what it held once: what was wrong with that is not known.
    pub fn went_back(&mut self, replica: u8) {
        self.statistics.rolled_back += 1;
        self.forget(replica);
        self.copies[replica as usize] = (1 << SUPERBLOCK_COPIES) - 1;
        self.grids.damaged(replica, false);
    }

    fn forget(&mut self, replica: u8) {
        assert!(self.is_lost(replica));
        self.grids.forget(replica);
        for slot in &mut self.slots {
            slot[replica as usize] = SlotFault::None;
        }
    }

    /// Whether what is left holds all that is committed, if this disk is lost as well.
    pub fn may_lose(&self, replica: u8) -> bool {
        let here = replica as usize;
        let in_slot = |slot: &[SlotFault; REPLICAS_MAX]| {
            let damaged = |&other: &usize| self.lost[other] || slot[other] != SlotFault::None;
            let others = (0..REPLICAS_MAX).filter(|&other| other != here);
            others.filter(damaged).count()
        };
        let grids = self.faults.zones & GRID == 0 || self.grids.is_weak(replica);
        grids
            && !self.lost[here]
            && self
                .slots
                .iter()
                .all(|slot| in_slot(slot) < self.damaged_max)
    }

    /// How far a disk's file is on its way from blank to begun.
    pub fn start(&self, disk: &DiskState) -> Option<Start> {
        self.superblock(disk).map(|state| state.start())
    }

    /// The number of a disk's superblock.
    pub fn sequence(&self, disk: &DiskState) -> Option<u64> {
        self.superblock(disk).map(|state| state.sequence)
    }

    /// Whether a disk has all of its checkpoint.
    pub fn is_synced(&self, disk: &DiskState) -> bool {
        let begun = |state: SuperblockState| state.start() == Start::Begun;
        self.superblock(disk)
            .is_some_and(|state| state.sync.syncing == 0 && begun(state))
    }

    /// Whether `core` alone, without what is outside of it, holds a good copy of everything that is committed.
    pub fn is_enough(&self, core: &[u8], replica_count: u8) -> bool {
        let outside = usize::from(replica_count) - core.len();
        let suspect = |&&replica: &&u8| self.is_lost(replica) || self.grids.is_suspect(replica);
        let grids = core.iter().filter(suspect).count().min(self.damaged_max);
        let slots = self.slots.iter().all(|slot| {
            let damaged = |&&replica: &&u8| {
                let replica = replica as usize;
                self.lost[replica] || slot[replica] != SlotFault::None
            };
            core.iter().filter(damaged).count() + outside <= self.damaged_max
        });
        slots && grids + outside <= self.damaged_max
    }

    /// Looks at the grid of a disk: what was damaged there may have been made good.
    pub fn survey(&mut self, replica: u8, disk: &DiskState) {
        if let Some(superblock) = self.superblock(disk) {
            self.grids.survey(replica, &superblock, disk);
        }
    }

    /// The superblock that a replica would open at least.
    fn superblock(&self, disk: &DiskState) -> Option<SuperblockState> {
        self.decide(disk).map(|decision| decision.content.state)
    }

    fn may_damage_block(&self, replica: u8, block: u32, disk: &DiskState) -> bool {
        !self.is_lost(replica)
            && self
                .superblock(disk)
                .is_some_and(|it| self.grids.may_damage(replica, block, &it, disk))
    }

    fn damaged_in(&self, slot: usize) -> usize {
        let damaged =
            |replica: &usize| self.lost[*replica] || self.slots[slot][*replica] != SlotFault::None;
        (0..REPLICAS_MAX).filter(damaged).count()
    }

    fn may_damage_slot(&self, replica: u8, slot: usize) -> bool {
        let replica = replica as usize;
        !self.lost[replica]
            && self.slots[slot][replica] == SlotFault::None
            && self.damaged_in(slot) < self.damaged_max
    }

    /// The slots whose headers share a sector.
    fn slots_of_sector(&self, slot: usize) -> std::ops::Range<usize> {
        slot..(slot + HEADERS_PER_SECTOR).min(self.slots.len())
    }

    fn may_damage_headers(&self, replica: u8, slot: usize) -> bool {
        self.slots_of_sector(slot)
            .all(|slot| self.may_damage_slot(replica, slot))
    }

    /// Notes a damage; one that is seen by the process's reads only, or that is on the disk.
    pub(crate) fn mark(&mut self, replica: u8, zone: Zone, read: bool) {
        let (prepare, header) = if read {
            (SlotFault::PrepareRead, SlotFault::HeaderRead)
        } else {
            (SlotFault::Prepare, SlotFault::Header)
        };
        match zone {
            Zone::Prepare { slot } => self.slots[slot][replica as usize] = prepare,
            Zone::Headers { slot } => {
                for slot in self.slots_of_sector(slot) {
                    self.slots[slot][replica as usize] = header;
                }
            }
            Zone::Superblock { copy } if !read => self.copies[replica as usize] |= 1 << copy,
            Zone::Superblock { .. } => {}
            Zone::Grid { .. } => self.grids.damaged(replica, read),
        }
    }

    /// Whether what lies there may be damaged, while its owner's process runs or not.
    fn may_damage(&self, replica: u8, zone: Zone, disk: &DiskState, running: bool) -> bool {
        if self.faults.zones & zone.bit() == 0 {
            return false;
        }
        match zone {
            Zone::Prepare { slot } => self.may_damage_slot(replica, slot),
            Zone::Headers { slot } => self.may_damage_headers(replica, slot),
            Zone::Superblock { copy } => self.may_damage_copy(replica, copy, disk, running),
            Zone::Grid { block } => self.may_damage_block(replica, block, disk),
        }
    }

    /// A running process may tear two copies at any moment: one may be bad beside, if the four were good. One that is
    /// down tears none: one good copy of the newest must be left.
    fn may_damage_copy(&self, replica: u8, copy: usize, disk: &DiskState, running: bool) -> bool {
        let Some(decision) = self.decide(disk) else {
            return false;
        };
        let good = |copy: &usize| !decision.is_stale(*copy);
        let good = (0..SUPERBLOCK_COPIES).filter(good).count();
        if running {
            self.copies[replica as usize] == 0 && good == SUPERBLOCK_COPIES
        } else {
            good > 1 || decision.is_stale(copy)
        }
    }

    /// What a power cut would at least leave of the superblock: copies being written count as torn.
    pub fn decide(&self, disk: &DiskState) -> Option<Decision> {
        let mut bytes = [const { Vec::new() }; SUPERBLOCK_COPIES];
        for (copy, bytes) in bytes.iter_mut().enumerate() {
            let at = Layout::superblock_at(copy);
            bytes.resize(COPY_SIZE_MAX, 0);
            if !disk.is_writing(at, COPY_SIZE_MAX) {
                disk.read(at, bytes);
            }
        }
        decide(bytes.each_ref().map(|bytes| &bytes[..])).ok()
    }

    /// Lets a sector decay somewhere, if a copy of it is left elsewhere.
    pub fn decay(&mut self, replica: u8, disk: &mut Disk, running: bool) -> Option<Zone> {
        let at = self.somewhere(disk.state())?;
        self.decay_at(replica, at, disk, running)
    }

    fn decay_at(&mut self, replica: u8, at: u64, disk: &mut Disk, running: bool) -> Option<Zone> {
        let zone = Zone::of(&self.layout, at);
        let state = disk.state();
        let busy = state.is_writing(at, SECTOR_SIZE) || !state.is_sector_durable(at);
        if busy || !self.may_damage(replica, zone, state, running) {
            self.statistics.spared += 1;
            return None;
        }
        let mut bytes = [0; SECTOR_SIZE];
        disk.state().read(at, &mut bytes);
        let before = bytes;
        self.corrupt(&mut bytes, Some((disk.state(), zone)));
        if bytes == before {
            return None;
        }
        disk.state_mut().overwrite(at, &bytes);
        self.mark(replica, zone, false);
        self.statistics.decayed.add(zone);
        Some(zone)
    }

    /// The offset of a sector: each zone that may be damaged is as likely as the others, and in each that which is used.
    fn somewhere(&mut self, disk: &DiskState) -> Option<u64> {
        let zones: Vec<u8> = [SUPERBLOCK, HEADERS, PREPARES, GRID]
            .into_iter()
            .filter(|bit| self.faults.zones & bit != 0)
            .collect();
        if zones.is_empty() {
            return None;
        }
        let zone = *self.prng.pick(&zones);
        let slot = self.prng.index(self.slots.len());
        let sector = SECTOR_SIZE as u64;
        Some(match zone {
            SUPERBLOCK => {
                let copy = self.prng.index(SUPERBLOCK_COPIES);
                Layout::superblock_at(copy) + self.prng.below(2) * sector
            }
            HEADERS => self.layout.header_sector_at(slot),
            GRID => {
                let superblock = self.superblock(disk)?;
                let block = self.grids.some_block(&superblock, disk, &mut self.prng)?;
                self.layout.block_at(block)
            }
            _ => {
                let sectors = u64::from(self.layout.geometry.message_size_max) / sector;
                let within = if self.prng.coin() {
                    0
                } else {
                    self.prng.below(sectors.min(3))
                };
                self.layout.prepare_at(slot) + within * sector
            }
        })
    }

    /// Changes a sector: zeros, noise, a flipped bit, or what belongs elsewhere.
    fn corrupt(&mut self, bytes: &mut [u8], source: Option<(&DiskState, Zone)>) {
        match (self.prng.below(4), source) {
            (0, _) => bytes.fill(0),
            (1, _) => self.prng.fill(bytes),
            (2, Some((disk, zone))) => {
                if let Some(at) = self.elsewhere(zone) {
                    disk.read(at, bytes);
                }
            }
            _ => {
                let at = if self.prng.coin() {
                    self.prng.index(HEADER_SIZE)
                } else {
                    self.prng.index(bytes.len())
                };
                bytes[at] ^= 1 << self.prng.below(8);
            }
        }
    }

    /// A place of the same kind in the same zone.
    fn elsewhere(&mut self, zone: Zone) -> Option<u64> {
        let at = match zone {
            Zone::Superblock { copy } => {
                let other = (copy + 1 + self.prng.index(SUPERBLOCK_COPIES - 1)) % SUPERBLOCK_COPIES;
                Layout::superblock_at(other)
            }
            Zone::Headers { slot } => {
                let other = self.prng.index(self.slots.len());
                let other = other / HEADERS_PER_SECTOR * HEADERS_PER_SECTOR;
                if other == slot {
                    return None;
                }
                self.layout.header_sector_at(other)
            }
            Zone::Prepare { slot } => {
                let other = (slot + 1 + self.prng.index(self.slots.len() - 1)) % self.slots.len();
                self.layout.prepare_at(other)
            }
            Zone::Grid { .. } => {
                let count = self.layout.geometry.block_count();
                self.layout
                    .block_at(1 + self.prng.below(count.into()) as u32)
            }
        };
        Some(at)
    }

    /// What becomes of a write that is about to complete.
    pub fn fate(&mut self, replica: u8, request: &IoRequest, disk: &DiskState) -> Fate {
        let IoRequest::Write { at, size, .. } = *request else {
            return Fate::Lands;
        };
        let (dropped, misplaced) = (self.faults.dropped, self.faults.misplaced);
        if dropped == 0 && misplaced == 0 {
            return Fate::Lands;
        }
        let drop = self.prng.chance(dropped);
        if !drop && !self.prng.chance(misplaced) {
            return Fate::Lands;
        }
        let zone = Zone::of(&self.layout, at);
        if !self.may_miss(replica, zone, disk) {
            self.statistics.spared += 1;
            return Fate::Lands;
        }
        let target = if drop { None } else { self.elsewhere(zone) };
        if let Some(to) = target {
            let other = Zone::of(&self.layout, to);
            let inside = to + size as u64 <= disk.size();
            let free = inside && !disk.is_writing(to, size);
            // A copy of the superblock gets the content of another, which is as good; another slot suffers as well.
            let copy = matches!(zone, Zone::Superblock { .. });
            if !free || !copy && !self.may_damage(replica, other, disk, true) {
                self.statistics.spared += 1;
                return Fate::Lands;
            }
            if !copy && !self.is_late(zone, size) {
                self.mark(replica, other, false);
            }
        }
        self.mark(replica, zone, false);
        if matches!(zone, Zone::Grid { .. })
            && let Some(superblock) = self.superblock(disk)
        {
            let checkpoint_op = superblock.checkpoint.prepare.op;
            self.grids.missed(replica, checkpoint_op);
        }
        let counts = if target.is_some() {
            &mut self.statistics.misplaced
        } else {
            &mut self.statistics.dropped
        };
        counts.add(zone);
        match (zone, target) {
            (Zone::Prepare { slot }, _) if self.is_late(zone, size) => {
                self.slots[slot][replica as usize] = SlotFault::Deferred;
                Fate::Later(target)
            }
            (_, None) => Fate::Dropped,
            (_, Some(to)) => Fate::Elsewhere(to),
        }
    }

    /// Whether a write may be lost only once its redundant header is down.
    fn is_late(&self, zone: Zone, size: usize) -> bool {
        let prepare = matches!(zone, Zone::Prepare { .. });
        self.single_write && prepare && size == SECTOR_SIZE
    }

    /// Whether a write there may be lost.
    fn may_miss(&self, replica: u8, zone: Zone, disk: &DiskState) -> bool {
        if self.faults.zones & zone.bit() == 0 {
            return false;
        }
        match zone {
            // The other copy of its round may be torn: the two of the other round must be good.
            Zone::Superblock { copy } => {
                let mate = (copy + 2) % SUPERBLOCK_COPIES;
                let decision = self.decide(disk);
                self.copies[replica as usize] == 0
                    && decision.is_some_and(|decision| {
                        (0..SUPERBLOCK_COPIES)
                            .filter(|other| *other != copy && *other != mate)
                            .all(|other| !decision.is_stale(other))
                    })
            }
            // What it is of is not known before its checkpoint is durable.
            Zone::Grid { .. } => self.grids.is_weak(replica) && !self.is_lost(replica),
            _ => self.may_damage(replica, zone, disk, true),
        }
    }

    /// A write has completed: what it hit may be good again. Lets a write that was to be lost be lost, now that its
    /// redundant header is down.
    pub fn on_written(&mut self, replica: u8, at: u64, fate: Fate, disk: &mut Disk) {
        if fate != Fate::Lands {
            return;
        }
        let index = replica as usize;
        match Zone::of(&self.layout, at) {
            Zone::Superblock { copy } => self.copies[index] &= !(1 << copy),
            Zone::Prepare { slot } => {
                if self.slots[slot][index].is_of_prepare() {
                    self.slots[slot][index] = SlotFault::None;
                }
                self.recent[index].rotate_right(1);
                self.recent[index][0] = slot;
            }
            Zone::Headers { slot } => {
                for slot in self.slots_of_sector(slot) {
                    self.on_header_written(replica, slot, disk);
                }
            }
            Zone::Grid { .. } => {}
        }
    }

    /// A sector of headers was written: those of slots about which nothing is known stay invalid.
    fn on_header_written(&mut self, replica: u8, slot: usize, disk: &mut Disk) {
        let valid = self.header_at(slot, disk.state()).header().checksum_holds();
        let fault = self.slots[slot][replica as usize];
        let now = match fault {
            SlotFault::None | SlotFault::Header | SlotFault::HeaderRead if valid => SlotFault::None,
            SlotFault::None | SlotFault::Header | SlotFault::HeaderRead => SlotFault::Header,
            SlotFault::Deferred if self.is_header_down(slot, disk.state()) => {
                self.spring(replica, slot, disk)
            }
            of_prepare => of_prepare,
        };
        self.slots[slot][replica as usize] = now;
    }

    /// The time has come for a write that was to be lost.
    fn spring(&mut self, replica: u8, slot: usize, disk: &mut Disk) -> SlotFault {
        let at = self.layout.prepare_at(slot);
        let target = disk.deferred_target(at);
        if let Some(to) = target {
            let other = Zone::of(&self.layout, to);
            if !self.may_damage(replica, other, disk.state(), true) {
                return SlotFault::None;
            }
            self.mark(replica, other, false);
        }
        if disk.spring(at) {
            SlotFault::Prepare
        } else {
            SlotFault::None
        }
    }

    /// Whether a slot's redundant header is that of the prepare which the slot holds.
    fn is_header_down(&self, slot: usize, disk: &DiskState) -> bool {
        let at = self.layout.prepare_at(slot) / SECTOR_SIZE as u64;
        let prepare = Prepare::read_from_bytes(&disk.sector(at)[..HEADER_SIZE]);
        let prepare = prepare.expect("a header's size");
        self.header_at(slot, disk).frame.checksum == prepare.frame.checksum
    }

    /// A slot's redundant header.
    fn header_at(&self, slot: usize, disk: &DiskState) -> Prepare {
        let sector = self.layout.header_sector_at(slot) / SECTOR_SIZE as u64;
        let from = slot % HEADERS_PER_SECTOR * HEADER_SIZE;
        let bytes = &disk.sector(sector)[from..from + HEADER_SIZE];
        Prepare::read_from_bytes(bytes).expect("a header's size")
    }

    /// A process is gone: what was only in its reads is over, and what the device had still in its cache lands. One of the
    /// prepares that were written last may have suffered. A prepare that could not be read stays marked until its slot is
    /// written again: the vote that was made meanwhile says that nothing is known of it, and votes do not change.
    pub fn on_crash(&mut self, replica: u8, disk: &mut Disk) {
        self.grids.on_crash(replica);
        for slot in &mut self.slots {
            let fault = &mut slot[replica as usize];
            if matches!(fault, SlotFault::HeaderRead | SlotFault::Deferred) {
                *fault = SlotFault::None;
            }
        }
        if self.prng.chance(self.faults.crash_decay) {
            let slot = *self.prng.pick(&self.recent[replica as usize]);
            self.decay_at(replica, self.layout.prepare_at(slot), disk, false);
        }
    }

    /// Lets a read go wrong now and then, sector by sector, or as a whole.
    pub fn on_read(
        &mut self,
        replica: u8,
        at: u64,
        size: usize,
        done: &mut IoDone,
        disk: &DiskState,
    ) {
        if !self.prng.chance(self.faults.bad_read) {
            return;
        }
        let sectors = size / SECTOR_SIZE;
        let sector = self.prng.index(sectors);
        let place = at + (sector * SECTOR_SIZE) as u64;
        let zone = Zone::of(&self.layout, place);
        let allowed = match zone {
            Zone::Superblock { copy } => {
                // Another copy serves for this one.
                let decision = self.decide(disk);
                self.copies[replica as usize] == 0
                    && decision.is_some_and(|decision| {
                        let good = |other: &usize| *other != copy && !decision.is_stale(*other);
                        (0..SUPERBLOCK_COPIES).filter(good).count() > 1
                    })
                    && self.faults.zones & SUPERBLOCK != 0
            }
            _ => self.may_damage(replica, zone, disk, true),
        };
        if !allowed {
            self.statistics.spared += 1;
            return;
        }
        if let Zone::Superblock { copy } = zone {
            self.copies[replica as usize] |= 1 << copy; // until it is written again, no other
        }
        self.mark(replica, zone, true);
        self.statistics.bad_reads.add(zone);
        let whole = match zone {
            Zone::Prepare { .. } | Zone::Superblock { .. } => true,
            Zone::Headers { .. } => sectors == 1,
            Zone::Grid { .. } => sectors == 1 || self.grids.is_weak(replica),
        };
        if whole && self.prng.coin() {
            done.result = Err(IoError {
                action: "read",
                at,
                size,
                errno: 5,
            });
            return;
        }
        let buffer = done.buffer.as_mut().expect("a read brings its buffer home");
        let range = sector * SECTOR_SIZE..(sector + 1) * SECTOR_SIZE;
        let mut bytes = [0; SECTOR_SIZE];
        bytes.copy_from_slice(&buffer.bytes()[range.clone()]);
        self.corrupt(&mut bytes, None);
        buffer.bytes_mut()[range].copy_from_slice(&bytes);
    }
}
