//! The geometry of a data file, chosen at format, and what lies where in it.
//!
//! ```text
//! superblock zone | journal headers ring | journal prepares ring | grid of blocks
//! ```
//!
//! The superblock zone has the same place and size in every file, so that it can be read before the geometry, which
//! it holds, is known. Everything is written at format: the file never grows.

use crate::header::HEADER_SIZE;
use crate::{SECTOR_SIZE, checksum, sector_ceil};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Copies of the superblock in a file.
pub const SUPERBLOCK_COPIES: usize = 4;

/// Distance between the starts of two copies, in bytes: far enough apart that damage to one track or one erase block
/// does not take two.
pub const SUPERBLOCK_COPY_DISTANCE: usize = 256 * 1024;

/// Size of the superblock zone, in bytes.
pub const SUPERBLOCK_ZONE_SIZE: u64 = (SUPERBLOCK_COPIES * SUPERBLOCK_COPY_DISTANCE) as u64;

/// Size of a page of state and of a grid block, in bytes.
pub const PAGE_SIZE: usize = SECTOR_SIZE;

/// Most prepares in flight that any geometry allows.
pub const PIPELINE_MAX: u32 = 32;

/// Most replicas of a cluster.
pub const REPLICAS_MAX: usize = 6;

/// When a prepare may be acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum JournalAck {
    /// A prepare of one sector when its own write is durable; a longer one when its redundant header is too.
    Single = 0,
    /// Every prepare when both are durable: for devices whose physical sector is smaller than 4 KiB.
    Both = 1,
}

/// The numbers a data file is made with. The same for all replicas of a cluster, except `journal_ack`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Geometry {
    /// Memory and disk for replicated state, in bytes; whole pages.
    pub state_size: u64,
    /// Largest message, header included, in bytes; whole sectors.
    pub message_size_max: u32,
    /// Slots of the journal's rings.
    pub slots: u32,
    /// Most prepares in flight.
    pub pipeline_max: u32,
    /// Most client sessions.
    pub sessions_max: u32,
    /// Largest reply to a write, in bytes without header.
    pub reply_size_max: u32,
    /// Ordinal of a [`JournalAck`]. A replica's own affair: not part of the fingerprint.
    pub journal_ack: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

static_assertions::const_assert_eq!(size_of::<Geometry>(), 32);

/// A number of a geometry that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name} is {value}: it must be {must}")]
pub struct GeometryError {
    /// Which number.
    pub name: &'static str,
    /// What it is.
    pub value: u64,
    /// What is allowed.
    pub must: &'static str,
}

impl Geometry {
    /// The default: 256 KiB messages, 1,024 slots, 256 MiB of state; a file of about 1 GiB.
    pub const DEFAULT: Self = Self {
        state_size: 256 << 20,
        message_size_max: 256 << 10,
        slots: 1024,
        pipeline_max: 8,
        sessions_max: 1024,
        reply_size_max: 3840,
        journal_ack: JournalAck::Single as u8,
        reserved: [0; 3],
    };

    /// For tests and laptops: a file of less than 32 MiB.
    pub const SMALL: Self = Self {
        state_size: 7 << 20,
        message_size_max: 128 << 10,
        slots: 64,
        sessions_max: 64,
        ..Self::DEFAULT
    };

    /// 1 MiB messages and 1 GiB of state; a file of about 4 GiB.
    pub const LARGE: Self = Self {
        state_size: 1 << 30,
        message_size_max: 1 << 20,
        sessions_max: 4096,
        ..Self::DEFAULT
    };

    /// Checks every number.
    ///
    /// # Errors
    /// The first number that cannot be.
    pub fn check(&self) -> Result<(), GeometryError> {
        let check = |holds: bool, name, value: u64, must| {
            if holds {
                Ok(())
            } else {
                Err(GeometryError { name, value, must })
            }
        };
        let Self {
            state_size,
            message_size_max,
            slots,
            pipeline_max,
            sessions_max,
            reply_size_max,
            ..
        } = *self;
        check(
            message_size_max.is_multiple_of(SECTOR_SIZE as u32)
                && (8 << 10..=16 << 20).contains(&message_size_max)
                && self.holds_a_vote(),
            "message size",
            u64::from(message_size_max),
            "a multiple of 4096 from 8 KiB to 16 MiB, and have 512 bytes for each prepare in flight and one more",
        )?;
        check(
            (1..=PIPELINE_MAX).contains(&pipeline_max),
            "pipeline",
            u64::from(pipeline_max),
            "from 1 to 32",
        )?;
        check(
            slots.is_power_of_two() && (16..=1 << 20).contains(&slots) && slots >= 8 * pipeline_max,
            "journal slots",
            u64::from(slots),
            "a power of two from 16 to 1,048,576, and at least 8 times the pipeline",
        )?;
        check(
            (1..=1 << 16).contains(&sessions_max),
            "sessions",
            u64::from(sessions_max),
            "from 1 to 65,536",
        )?;
        check(
            reply_size_max >= 64
                && reply_size_max as usize <= message_size_max as usize - HEADER_SIZE,
            "reply size",
            u64::from(reply_size_max),
            "from 64 to the message size less 256",
        )?;
        check(
            state_size.is_multiple_of(PAGE_SIZE as u64) && state_size <= 1 << 42,
            "state size",
            state_size,
            "a multiple of 4096 up to 4 TiB",
        )?;
        let reserved = u64::from(sessions_max) * (reply_size_max as usize + PAGE_SIZE + 256) as u64;
        check(
            state_size >= (1 << 20) + reserved * 5 / 4,
            "state size",
            state_size,
            "at least 1 MiB more than the sessions and their replies take: raise it, or lower sessions or reply size",
        )?;
        check(
            self.journal_ack <= 1 && self.reserved == [0; 3],
            "journal ack",
            u64::from(self.journal_ack),
            "0 or 1",
        )
    }

    /// Whether a message has room for a vote: the headers of the pipeline and one, and as many for what may be unknown.
    fn holds_a_vote(&self) -> bool {
        let headers = 2 * (1 + u64::from(self.pipeline_max));
        u64::from(self.message_size_max) >= headers * HEADER_SIZE as u64
    }

    /// When a prepare may be acknowledged.
    pub fn journal_ack(&self) -> JournalAck {
        if self.journal_ack == JournalAck::Single as u8 {
            JournalAck::Single
        } else {
            JournalAck::Both
        }
    }

    /// Names what peers must agree on.
    pub fn fingerprint(&self, replica_count: u8) -> u128 {
        let shared = Self {
            journal_ack: 0,
            ..*self
        };
        let mut bytes = [0; 48];
        bytes[..32].copy_from_slice(shared.as_bytes());
        bytes[32] = replica_count;
        checksum::identity(&bytes)
    }

    /// Ops from one checkpoint to the next.
    pub fn checkpoint_interval(&self) -> u64 {
        u64::from(self.slots / 2)
    }

    /// Ops a checkpoint may take: op `c + lag + 1` is acknowledged only where checkpoint c is durable.
    pub fn checkpoint_lag(&self) -> u64 {
        u64::from(self.slots / 2 - 2 * self.pipeline_max)
    }

    /// Whether a checkpoint is due when `op` commits.
    pub fn is_checkpoint(&self, op: u64) -> bool {
        op > 0 && op.is_multiple_of(self.checkpoint_interval())
    }

    /// Pages of state.
    pub fn page_count(&self) -> u32 {
        (self.state_size / PAGE_SIZE as u64) as u32
    }

    /// Pages kept apart so that a commit may change a page that a checkpoint has not copied yet: what the largest request may
    /// touch, and beside it what the engine changes for it: the root page, the session, the stored reply (twice, as a
    /// value in pages of its own), their indexes.
    pub fn spare_count(&self) -> u32 {
        (self.pages_touched_max() + 64 + 2 * self.reply_size_max / PAGE_SIZE as u32)
            .min(self.page_count())
    }

    /// Most pages that one request may change; a request that plans more is invalid. A sixteenth of the state, but
    /// at least
    ///
    /// * 4,096, so that a request of many small changes need not be small: 1,000 changes may touch 2,000 leaves and, in a
    ///   state of 256 MiB, some 1,600 nodes above them (`collections::ordered_map::Cost`);
    /// * twice a message's pages, for the allocator, indexes and splits beside a request that fills one;
    ///
    /// and never more than there are pages: a small state has a spare for each.
    pub fn pages_touched_max(&self) -> u32 {
        (self.page_count() / 16)
            .max(4096)
            .max(64 + 2 * (self.message_size_max / PAGE_SIZE as u32))
            .min(self.page_count())
    }

    /// Blocks of the grid: three times the state with its tags and addresses (current, new, and the one before).
    pub fn block_count(&self) -> u32 {
        let pages = u64::from(self.page_count());
        let tags = pages.div_ceil(128); // 1/256 and its own upper levels
        let addresses = 2 * pages.div_ceil(256); // 1/1024, twice, and upper levels
        (3 * (pages + tags + addresses + 16)) as u32
    }
}

/// What lies where in a data file of a given geometry. Offsets and sizes are in bytes and whole sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The numbers it follows from.
    pub geometry: Geometry,
    /// Start of the ring of redundant headers.
    pub headers_at: u64,
    /// Start of the ring of prepares.
    pub prepares_at: u64,
    /// Start of the grid.
    pub grid_at: u64,
    /// Size of the file.
    pub size: u64,
}

impl Layout {
    /// The layout of a checked geometry.
    pub fn new(geometry: Geometry) -> Self {
        assert_eq!(geometry.check(), Ok(()));
        let headers_at = SUPERBLOCK_ZONE_SIZE;
        let headers_size = sector_ceil(geometry.slots as usize * HEADER_SIZE) as u64;
        let prepares_at = headers_at + headers_size;
        let prepares_size = u64::from(geometry.slots) * u64::from(geometry.message_size_max);
        let grid_at = prepares_at + prepares_size;
        let size = grid_at + u64::from(geometry.block_count()) * PAGE_SIZE as u64;
        Self {
            geometry,
            headers_at,
            prepares_at,
            grid_at,
            size,
        }
    }

    /// Start of a copy of the superblock.
    pub fn superblock_at(copy: usize) -> u64 {
        assert!(copy < SUPERBLOCK_COPIES);
        (copy * SUPERBLOCK_COPY_DISTANCE) as u64
    }

    /// The slot of an op.
    pub fn slot(&self, op: u64) -> usize {
        (op % u64::from(self.geometry.slots)) as usize
    }

    /// Start of a slot's prepare.
    pub fn prepare_at(&self, slot: usize) -> u64 {
        assert!(slot < self.geometry.slots as usize);
        self.prepares_at + slot as u64 * u64::from(self.geometry.message_size_max)
    }

    /// Start of the sector with a slot's redundant header.
    pub fn header_sector_at(&self, slot: usize) -> u64 {
        assert!(slot < self.geometry.slots as usize);
        self.headers_at + (slot / HEADERS_PER_SECTOR * SECTOR_SIZE) as u64
    }

    /// Start of a grid block; blocks are numbered from 1, and 0 means "none".
    pub fn block_at(&self, block: u32) -> u64 {
        assert!(block >= 1 && block <= self.geometry.block_count());
        self.grid_at + u64::from(block - 1) * PAGE_SIZE as u64
    }
}

/// Redundant headers in a sector.
pub const HEADERS_PER_SECTOR: usize = SECTOR_SIZE / HEADER_SIZE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_as_large_as_documented() {
        for geometry in [Geometry::DEFAULT, Geometry::SMALL, Geometry::LARGE] {
            assert_eq!(geometry.check(), Ok(()));
            let lag = geometry.checkpoint_lag();
            let slots = u64::from(geometry.slots);
            assert!(
                geometry.checkpoint_interval() + lag + u64::from(geometry.pipeline_max) <= slots
            );
            assert!(lag > 0);
        }
        assert!(Layout::new(Geometry::SMALL).size <= 32 << 20);
        assert!(Layout::new(Geometry::DEFAULT).size <= 1100 << 20);
        assert_eq!(Geometry::DEFAULT.checkpoint_lag(), 496);
    }

    #[test]
    fn zones_do_not_overlap() {
        let layout = Layout::new(Geometry::SMALL);
        let last = layout.geometry.slots as usize - 1;
        assert!(layout.header_sector_at(last) + SECTOR_SIZE as u64 <= layout.prepares_at);
        assert_eq!(
            layout.prepare_at(last) + u64::from(layout.geometry.message_size_max),
            layout.grid_at
        );
        assert_eq!(layout.block_at(1), layout.grid_at);
        assert_eq!(
            layout.block_at(layout.geometry.block_count()) + PAGE_SIZE as u64,
            layout.size
        );
    }

    #[test]
    fn impossible_numbers_are_named() {
        let bad = |change: &dyn Fn(&mut Geometry)| {
            let mut geometry = Geometry::DEFAULT;
            change(&mut geometry);
            geometry.check().expect_err("an impossible geometry").name
        };
        assert_eq!(bad(&|g| g.message_size_max = 5000), "message size");
        assert_eq!(bad(&|g| g.slots = 1000), "journal slots");
        assert_eq!(bad(&|g| g.slots = 32), "journal slots");
        assert_eq!(bad(&|g| g.pipeline_max = 33), "pipeline");
        let vote = |g: &mut Geometry| (g.pipeline_max, g.message_size_max) = (32, 16 << 10);
        assert_eq!(bad(&vote), "message size");
        assert_eq!(bad(&|g| g.sessions_max = 0), "sessions");
        assert_eq!(bad(&|g| g.reply_size_max = 300_000), "reply size");
        assert_eq!(bad(&|g| g.state_size = 1 << 20), "state size");
        assert_eq!(bad(&|g| g.journal_ack = 2), "journal ack");
    }
}
