//! The superblock: what a replica cannot learn from others, in four copies.
//!
//! Promises, under the fault model of a power cut (a sector is old or new, a write of several leaves any subset):
//! * [`Superblock`] opens to the newest state it ever reported (opened or durable), or to the one that was being
//!   written. It survives a cut at every write, at those of opening too, and a kill that leaves writes in the device's
//!   cache, followed by a cut.
//! * Any one good copy is enough: everything a superblock names was durable before it was written.
//! * Two contents of one sequence are never chosen between: the file is refused.
//!
//! On disk a copy is one sector of [`SuperblockState`], then the headers of the last vote in whole sectors. Its checksum
//! covers all that is written but itself and the index of the copy, so that the four copies of one superblock have one
//! identity, by which the next one names its parent. Sectors beyond [`SuperblockState::size_on_disk`] are left from
//! earlier superblocks and mean nothing.

mod decide;
mod driver;
#[cfg(test)]
mod tests;

pub use decide::{CopyReport, Decision, Expected, Mismatch, OpenError, decide};
pub use driver::{Begun, DurableView, Rules, Sound, Superblock, SuperblockEvent};

use crate::header::{HEADER_SIZE, Prepare, RELEASE, Start};
use crate::layout::{Geometry, PIPELINE_MAX};
use crate::{SECTOR_SIZE, checksum, sector_ceil};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most headers of a vote: those of the pipelines of three views that may be stacked on each other, and the head.
pub const VIEW_HEADERS_MAX: usize = 3 * PIPELINE_MAX as usize + 1;

/// Most bytes of a copy, in whole sectors.
pub const COPY_SIZE_MAX: usize = SECTOR_SIZE + sector_ceil(VIEW_HEADERS_MAX * HEADER_SIZE);

/// Version of the superblock's and the data file's format.
pub const VERSION: u16 = 2;

/// Tells a data file from any other.
pub const MAGIC: [u8; 12] = *b"viewstone\r\n\0";

/// Where the bytes begin that the checksum covers: behind the checksum and the index of the copy.
const SUMMED_FROM: usize = 18;

static_assertions::const_assert!(COPY_SIZE_MAX <= crate::layout::SUPERBLOCK_COPY_DISTANCE);
static_assertions::const_assert_eq!(std::mem::offset_of!(SuperblockState, version), SUMMED_FROM);

/// The name of a data file that is about to be made: random, drawn once for each file.
///
/// Nothing but [`Content::initial`] takes one, and what that makes is blank; no update of a superblock changes it. So a name
/// that nobody has met is that of a file that has promised nothing, or that took the place of another by the way of a lost one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileId(u128);

impl FileId {
    /// The name made of 128 random bits. Zero, which names nothing, is taken for one.
    pub fn of_random(random: u128) -> Self {
        Self(random.max(1))
    }
}

/// Names a block that is written twice, apart: either copy serves, and the tag tells a good one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BlockReference {
    /// AEGIS-128L tag of the block's content under the zero key.
    pub tag: u128,
    /// Block of the first copy; zero: there is no such block.
    pub first: u32,
    /// Block of the second copy.
    pub second: u32,
    /// Zero.
    pub reserved: [u8; 8],
}

/// A checkpoint, as the superblock keeps it. All but `map` is equal on all replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CheckpointRecord {
    /// What names this checkpoint on every replica: see [`CheckpointRecord::compute_id`].
    pub id: u128,
    /// Id of the checkpoint before.
    pub parent: u128,
    /// Root of the tree of page tags; zero only for the state before the first op.
    pub root: u128,
    /// Key of the page tags.
    pub page_key: [u8; 16],
    /// Root of the map from pages to blocks: this replica's own affair.
    pub map: BlockReference,
    /// Header of the op whose commit froze the state.
    pub prepare: Prepare,
    /// Pages in use.
    pub pages_used: u64,
    /// Zero.
    pub reserved: [u8; 152],
}

static_assertions::const_assert_eq!(size_of::<BlockReference>(), 32);
static_assertions::const_assert_eq!(size_of::<CheckpointRecord>(), 512);

impl CheckpointRecord {
    /// The state before the first op, which holds no pages: it is made anew, not read.
    pub fn genesis(cluster: u128, fingerprint: u128) -> Self {
        let mut record = Self::read_from_bytes(&[0; 512]).expect("512 bytes");
        record.prepare = Prepare::root(cluster);
        record.id = record.compute_id(fingerprint);
        record
    }

    /// Tag over root, header of the op, parent, geometry (its fingerprint) and release: two replicas with one id hold
    /// the same state, by the same history.
    pub fn compute_id(&self, fingerprint: u128) -> u128 {
        let mut bytes = [0; 16 + 16 + 16 + 16 + 256];
        bytes[..16].copy_from_slice(&self.root.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.parent.to_le_bytes());
        bytes[32..48].copy_from_slice(&fingerprint.to_le_bytes());
        bytes[48..52].copy_from_slice(&RELEASE.to_le_bytes());
        bytes[64..].copy_from_slice(self.prepare.as_bytes());
        checksum::identity(&bytes)
    }
}

/// What of the checkpoint that a superblock names is not in its own grid yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SyncState {
    /// One: pages of the checkpoint are still being fetched from others. The checkpoint's map, if it has one, is of an
    /// older checkpoint, whose pages serve where they are the same.
    pub syncing: u8,
    /// One: the file replaces one that was lost. It takes no part in a first start; it neither acks nor votes before it
    /// has learnt from the others what its predecessor may have promised.
    pub recovering: u8,
    /// One: others have said, after this replica had taken part again, that its file was put back to an older state. It is
    /// not opened any more.
    pub condemned: u8,
    /// Zero.
    pub pad: [u8; 5],
    /// Op of the highest checkpoint that is known to be durable on a replication quorum.
    pub quorum_op: u64,
    /// Zero.
    pub reserved: [u8; 496],
}

static_assertions::const_assert_eq!(size_of::<SyncState>(), 512);

/// The first sector of a copy: all of the superblock but the vote's headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SuperblockState {
    /// AEGIS-128L tag of everything behind `copy`, the view headers included: the superblock's identity.
    pub checksum: u128,
    /// Which of the four copies this was written as. Not part of the identity.
    pub copy: u16,
    /// [`VERSION`].
    pub version: u16,
    /// [`MAGIC`].
    pub magic: [u8; 12],
    /// The cluster's random id.
    pub cluster: u128,
    /// Checksum of the superblock before; zero for the first.
    pub parent: u128,
    /// Counts the superblocks of this file, from 1.
    pub sequence: u64,
    /// The highest op known to be committed anywhere, when this was written.
    pub commit_max: u64,
    /// The view this replica is in, or votes for.
    pub view: u32,
    /// The last view in which it was normal: the one that its journal speaks of.
    pub log_view: u32,
    /// How many headers follow this sector.
    pub view_headers_count: u32,
    /// This replica's index.
    pub replica: u8,
    /// Replicas of the cluster.
    pub replica_count: u8,
    /// Ordinal of a [`Start`].
    pub start: u8,
    /// Zero.
    pub pad: u8,
    /// What the file was formatted with.
    pub geometry: Geometry,
    /// The checkpoint to open.
    pub checkpoint: CheckpointRecord,
    /// How much of the checkpoint is here.
    pub sync: SyncState,
    /// The checkpoint before, if all of it is here: others may still be fetching it. All zero: it is not.
    pub previous: CheckpointRecord,
    /// Names this data file: random, drawn when it is made, and the same for its life; never zero. What others remember of
    /// this replica is about one file.
    pub file: u128,
    /// Zero.
    pub reserved: [u8; 2416],
}

static_assertions::const_assert_eq!(size_of::<SuperblockState>(), SECTOR_SIZE);

impl SuperblockState {
    /// The state a file is formatted with: sequence 1, view 0, the checkpoint before the first op.
    pub fn initial(
        cluster: u128,
        file: FileId,
        replica: u8,
        replica_count: u8,
        geometry: Geometry,
    ) -> Self {
        assert_eq!(geometry.check(), Ok(()));
        assert!(replica < replica_count);
        let mut state = Self::read_from_bytes(&[0; SECTOR_SIZE]).expect("one sector");
        state.version = VERSION;
        state.magic = MAGIC;
        state.cluster = cluster;
        state.file = file.0;
        state.sequence = 1;
        state.replica = replica;
        state.replica_count = replica_count;
        state.start = Start::Blank as u8;
        state.geometry = geometry;
        state.checkpoint = CheckpointRecord::genesis(cluster, geometry.fingerprint(replica_count));
        state
    }

    /// How far the replica's first start has come.
    pub fn start(&self) -> Start {
        Start::from_u8(self.start).expect("checked when it was read or changed")
    }

    /// Sets how far the first start has come.
    pub fn set_start(&mut self, start: Start) {
        assert!(start >= self.start());
        self.start = start as u8;
    }

    /// The checkpoint before, if all of it was here when the newest one was written.
    pub fn previous(&self) -> Option<&CheckpointRecord> {
        (self.previous.id != 0).then_some(&self.previous)
    }

    /// Bytes of a copy that mean something, in whole sectors.
    pub fn size_on_disk(&self) -> usize {
        SECTOR_SIZE + sector_ceil(self.view_headers_count as usize * HEADER_SIZE)
    }

    /// Asserts that this may follow `before`: what a file is stays, and what is promised is never taken back.
    fn assert_follows(&self, before: &Self) {
        assert_eq!(self.cluster, before.cluster);
        assert_eq!(self.file, before.file, "a file has one name");
        assert_eq!(self.replica, before.replica);
        assert_eq!(self.replica_count, before.replica_count);
        assert_eq!(self.geometry, before.geometry);
        assert!(self.sequence >= before.sequence);
        assert!(self.view >= before.view);
        assert!(self.log_view >= before.log_view);
        assert!(self.log_view <= self.view);
        assert!(self.commit_max >= before.commit_max);
        assert!(self.checkpoint.prepare.op >= before.checkpoint.prepare.op);
        assert!(self.commit_max >= self.checkpoint.prepare.op);
        assert!(self.sync.quorum_op >= before.sync.quorum_op);
        assert!(self.start >= before.start);
        assert!(Start::from_u8(self.start).is_some());
        assert!(self.start() == Start::Begun || self.has_promised_nothing());
        assert!(self.sync.condemned >= before.sync.condemned);
        assert!(self.sync.recovering <= before.sync.recovering);
        if self.sync.recovering < before.sync.recovering {
            // Its predecessor voted in no such view: whoever knew it knows by the view which of the two is the newer one.
            assert!(self.start() == Start::Begun && self.view > before.view && self.log_view == 0);
        }
    }

    /// Whether the file holds no more than format wrote, but for how far the first start has come: that is so until it has
    /// begun, and makes the name of a new file harmless.
    fn has_promised_nothing(&self) -> bool {
        let nothing = (self.view, self.log_view, self.commit_max) == (0, 0, 0);
        nothing && self.checkpoint.prepare.op == 0 && self.sync.syncing == 0
    }

    /// The first thing about a state whose sum holds that cannot be, if any.
    fn impossible(&self) -> Option<&'static str> {
        let zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let rules = [
            (self.sequence > 0, "its sequence is zero"),
            (self.geometry.check().is_ok(), "its geometry"),
            (self.replica < self.replica_count, "its replica index"),
            (
                self.replica_count as usize <= crate::layout::REPLICAS_MAX,
                "its replica count",
            ),
            (Start::from_u8(self.start).is_some(), "its start state"),
            (self.file != 0, "it has no name"),
            (self.log_view <= self.view, "its log_view is above its view"),
            (
                self.start == Start::Begun as u8 || self.has_promised_nothing(),
                "it has promised something before it has begun",
            ),
            (
                self.commit_max >= self.checkpoint.prepare.op,
                "its checkpoint is not committed",
            ),
            (
                self.pad == 0
                    && self.sync.syncing <= 1
                    && self.sync.recovering <= 1
                    && self.sync.condemned <= 1
                    && zero(&self.sync.pad)
                    && zero(&self.sync.reserved)
                    && zero(&self.reserved),
                "a reserved byte is not zero",
            ),
        ];
        rules
            .iter()
            .find(|(holds, _)| !holds)
            .map(|&(_, what)| what)
    }
}

/// The headers of a vote, as the superblock keeps them: of fixed capacity, never empty after format.
#[derive(Clone)]
pub struct ViewHeaders {
    headers: Box<[Prepare]>,
    count: usize,
}

impl ViewHeaders {
    /// Copies `headers`, at most [`VIEW_HEADERS_MAX`].
    pub fn new(headers: &[Prepare]) -> Self {
        let zero = Prepare::read_from_bytes(&[0; HEADER_SIZE]).expect("one header");
        let mut list = Self {
            headers: vec![zero; VIEW_HEADERS_MAX].into_boxed_slice(),
            count: 0,
        };
        list.set(headers);
        list
    }

    /// Replaces the list.
    pub fn set(&mut self, headers: &[Prepare]) {
        assert!(headers.len() <= VIEW_HEADERS_MAX);
        self.headers[..headers.len()].copy_from_slice(headers);
        self.count = headers.len();
    }

    /// The headers, in the order they were given.
    pub fn as_slice(&self) -> &[Prepare] {
        &self.headers[..self.count]
    }
}

impl PartialEq for ViewHeaders {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for ViewHeaders {}

impl std::fmt::Debug for ViewHeaders {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.as_slice()).finish()
    }
}

/// A whole superblock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// All but the headers.
    pub state: SuperblockState,
    /// Headers of the last vote.
    pub view_headers: ViewHeaders,
}

impl Content {
    /// What a file is formatted with. The vote of view 0 is op 0, so that the list of headers always has a head.
    pub fn initial(
        cluster: u128,
        file: FileId,
        replica: u8,
        replica_count: u8,
        geometry: Geometry,
    ) -> Self {
        Self {
            state: SuperblockState::initial(cluster, file, replica, replica_count, geometry),
            view_headers: ViewHeaders::new(&[Prepare::root(cluster)]),
        }
    }

    /// Sets count and checksum, and writes copy `copy` to the start of `bytes`. Returns the size to write.
    pub fn seal(&mut self, copy: usize, bytes: &mut [u8]) -> usize {
        self.state.copy = copy as u16;
        self.state.view_headers_count = self.view_headers.count as u32;
        let size = self.state.size_on_disk();
        let headers = self.view_headers.as_slice().as_bytes();
        bytes[..SECTOR_SIZE].copy_from_slice(self.state.as_bytes());
        bytes[SECTOR_SIZE..][..headers.len()].copy_from_slice(headers);
        bytes[SECTOR_SIZE + headers.len()..size].fill(0);
        self.state.checksum = checksum::identity(&bytes[SUMMED_FROM..size]);
        bytes[..16].copy_from_slice(&self.state.checksum.to_le_bytes());
        size
    }

    /// Reads back what [`Content::seal`] wrote, in place; the bytes were checked.
    fn read(&mut self, bytes: &[u8]) {
        let (state, rest) = SuperblockState::read_from_prefix(bytes).expect("a sector");
        self.state = state;
        self.view_headers.count = state.view_headers_count as usize;
        let headers = self.view_headers.headers[..self.view_headers.count].as_mut_bytes();
        headers.copy_from_slice(&rest[..headers.len()]);
    }

    /// Stands for "none yet".
    fn nothing() -> Self {
        Self {
            state: zerocopy::FromZeros::new_zeroed(),
            view_headers: ViewHeaders::new(&[]),
        }
    }
}
