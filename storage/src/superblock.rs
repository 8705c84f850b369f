//! The superblock: what a replica cannot learn from others, in four copies.

use crate::checksum;
use crate::header::{Prepare, RELEASE};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
