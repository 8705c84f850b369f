//! What a newly formatted data file contains, and in which order it is written: pure; the host only carries it out.
//!
//! * Every byte is written, zeros too: a later durable write into an extent that was only reserved costs twice one into
//!   an extent that was written, and space that was never written may not be there.
//! * Every slot has a valid *reserved* header in both rings, so that "never written" and "decayed to zeros" differ.
//!   Slot 0 is no exception: op 0 is the same on all replicas, is held by the checkpoint of the superblock and is never
//!   read from the journal; the op that slot 0 waits for is the one after the first wrap.
//! * The superblock comes last, when all else is durable: a file with a valid superblock is complete.

use crate::SECTOR_SIZE;
use crate::header::{HEADER_SIZE, Prepare};
use crate::layout::{Geometry, GeometryError, Layout, REPLICAS_MAX};
use crate::layout::{SUPERBLOCK_COPIES, SUPERBLOCK_ZONE_SIZE};
use crate::superblock::{COPY_SIZE_MAX, Content, FileId};
use std::ops::Range;
use zerocopy::IntoBytes;

/// Numbers that no data file can be made with.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// A cluster of so many replicas cannot be.
    #[error("replica count is {0}: it must be from 1 to 6")]
    ReplicaCount(u8),
    /// No such replica.
    #[error("replica is {replica}: in a cluster of {replica_count} it must be from 0 to {}", .replica_count - 1)]
    Replica {
        /// The index.
        replica: u8,
        /// Replicas of the cluster.
        replica_count: u8,
    },
    /// Too few replicas to bring one back.
    #[error(
        "a cluster of {0} cannot bring back a replica whose file is lost: what it had acknowledged cannot be told from the \
         rest of the cluster alone. Restore the file from a backup of the whole cluster"
    )]
    Unrecoverable(u8),
    /// A number of the geometry.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
}

/// The least number of replicas of which one can be brought back: those that are left must be a view-change quorum.
pub const RECOVERABLE_MIN: u8 = 3;

/// One step of formatting; they are carried out in order, each write to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Write what [`Format::fill`] gives.
    Write {
        /// Offset in the file, in bytes.
        at: u64,
        /// How many bytes; whole sectors.
        size: usize,
    },
    /// Make durable what was written.
    Sync,
}

/// A data file to be made.
#[derive(Debug)]
pub struct Format {
    cluster: u128,
    layout: Layout,
    superblock: [Vec<u8>; SUPERBLOCK_COPIES],
}

impl Format {
    /// The file of replica `replica` of `replica_count` of a cluster; `file` is drawn anew for each file that is made.
    ///
    /// # Errors
    /// The first number that cannot be.
    pub fn new(
        cluster: u128,
        file: FileId,
        replica: u8,
        replica_count: u8,
        geometry: Geometry,
    ) -> Result<Self, FormatError> {
        Self::make(cluster, file, replica, replica_count, geometry, false)
    }

    /// A file in the place of one that was lost, of a cluster that has begun: it takes no part in a first start, and
    /// promises nothing before it has what its predecessor may have promised.
    ///
    /// # Errors
    /// As [`Format::new`]; and a replica that is alone cannot be recovered.
    pub fn replacement(
        cluster: u128,
        file: FileId,
        replica: u8,
        replica_count: u8,
        geometry: Geometry,
    ) -> Result<Self, FormatError> {
        if replica_count < RECOVERABLE_MIN {
            return Err(FormatError::Unrecoverable(replica_count));
        }
        Self::make(cluster, file, replica, replica_count, geometry, true)
    }

    fn make(
        cluster: u128,
        file: FileId,
        replica: u8,
        replica_count: u8,
        geometry: Geometry,
        is_replacement: bool,
    ) -> Result<Self, FormatError> {
        if replica_count == 0 || replica_count as usize > REPLICAS_MAX {
            return Err(FormatError::ReplicaCount(replica_count));
        }
        if replica >= replica_count {
            return Err(FormatError::Replica {
                replica,
                replica_count,
            });
        }
        geometry.check()?;
        let mut content = Content::initial(cluster, file, replica, replica_count, geometry);
        content.state.sync.recovering = u8::from(is_replacement);
        let superblock = std::array::from_fn(|copy| {
            let mut bytes = vec![0; COPY_SIZE_MAX];
            let size = content.seal(copy, &mut bytes);
            bytes.truncate(size);
            bytes
        });
        Ok(Self {
            cluster,
            layout: Layout::new(geometry),
            superblock,
        })
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The steps, with writes of at most `chunk_size` bytes, whole sectors.
    pub fn steps(&self, chunk_size: usize) -> impl Iterator<Item = Step> + use<> {
        assert!(chunk_size > 0 && chunk_size.is_multiple_of(SECTOR_SIZE));
        let writes = move |range: Range<u64>| {
            range.clone().step_by(chunk_size).map(move |at| {
                let size = (range.end - at).min(chunk_size as u64) as usize;
                Step::Write { at, size }
            })
        };
        let sync = || std::iter::once(Step::Sync);
        writes(SUPERBLOCK_ZONE_SIZE..self.layout.size)
            .chain(sync())
            .chain(writes(0..SUPERBLOCK_ZONE_SIZE))
            .chain(sync())
    }

    /// Fills `bytes` with what the file contains at `at`; both are whole sectors.
    pub fn fill(&self, at: u64, bytes: &mut [u8]) {
        assert!(at.is_multiple_of(SECTOR_SIZE as u64) && bytes.len().is_multiple_of(SECTOR_SIZE));
        assert!(at + bytes.len() as u64 <= self.layout.size);
        bytes.fill(0);
        for (copy, content) in self.superblock.iter().enumerate() {
            place(at, bytes, Layout::superblock_at(copy), content);
        }
        let message_size = u64::from(self.layout.geometry.message_size_max);
        for slot in self.slots(self.layout.headers_at, HEADER_SIZE as u64, at, bytes.len()) {
            let header_at = self.layout.headers_at + (slot * HEADER_SIZE) as u64;
            place(at, bytes, header_at, self.reserved(slot).as_bytes());
        }
        for slot in self.slots(self.layout.prepares_at, message_size, at, bytes.len()) {
            let prepare_at = self.layout.prepare_at(slot);
            place(at, bytes, prepare_at, self.reserved(slot).as_bytes());
        }
    }

    fn reserved(&self, slot: usize) -> Prepare {
        Prepare::reserved_slot(self.cluster, slot as u64)
    }

    /// The slots of a ring that starts at `ring_at` which lie, in whole or in part, in `size` bytes from `at`.
    fn slots(&self, ring_at: u64, slot_size: u64, at: u64, size: usize) -> Range<usize> {
        let count = u64::from(self.layout.geometry.slots);
        let first = at.saturating_sub(ring_at) / slot_size;
        let end = (at + size as u64)
            .saturating_sub(ring_at)
            .div_ceil(slot_size);
        first.min(count) as usize..end.min(count) as usize
    }
}

/// Copies what of `content`, which belongs at `content_at`, falls into `bytes`, which belong at `at`.
fn place(at: u64, bytes: &mut [u8], content_at: u64, content: &[u8]) {
    let from = at.max(content_at);
    let end = (at + bytes.len() as u64).min(content_at + content.len() as u64);
    if from < end {
        let size = (end - from) as usize;
        let source = &content[(from - content_at) as usize..][..size];
        bytes[(from - at) as usize..][..size].copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{Command, Header};
    use crate::superblock::{FileId, OpenError, decide};
    use proptest::prelude::*;
    use zerocopy::FromBytes;

    const TINY: Geometry = Geometry {
        state_size: 2 << 20,
        message_size_max: 8 << 10,
        slots: 64,
        sessions_max: 8,
        ..Geometry::SMALL
    };

    const FILE: u128 = 0xf11e;

    fn format() -> Format {
        Format::new(7, FileId::of_random(FILE), 1, 3, TINY).expect("a valid geometry")
    }

    fn whole(format: &Format) -> Vec<u8> {
        let mut file = vec![0xaa; format.layout().size as usize];
        for step in format.steps(64 << 10) {
            if let Step::Write { at, size } = step {
                format.fill(at, &mut file[at as usize..][..size]);
            }
        }
        file
    }

    fn decision(file: &[u8]) -> Result<crate::superblock::Decision, OpenError> {
        decide(std::array::from_fn(|copy| {
            &file[Layout::superblock_at(copy) as usize..][..COPY_SIZE_MAX]
        }))
    }

    #[test]
    fn every_byte_is_written_and_every_slot_is_reserved_in_both_rings() {
        let format = format();
        let file = whole(&format);
        let layout = format.layout();
        let mut meant = vec![false; file.len()];
        for slot in 0..TINY.slots as usize {
            let redundant_at = layout.headers_at as usize + slot * HEADER_SIZE;
            for at in [redundant_at, layout.prepare_at(slot) as usize] {
                let header = Header::read_from_bytes(&file[at..][..HEADER_SIZE]).expect("size");
                assert_eq!(header.check(7, 8 << 10), Ok(Command::Prepare));
                let prepare = header.typed::<Prepare>();
                assert!(prepare.is_reserved() && prepare.op == slot as u64);
                meant[at..at + HEADER_SIZE].fill(true);
            }
        }
        let zone = SUPERBLOCK_ZONE_SIZE as usize;
        let rest = file[zone..].iter().zip(&meant[zone..]);
        assert!(
            rest.filter(|(_, meant)| !**meant)
                .all(|(&byte, _)| byte == 0)
        );
        let decision = decision(&file).expect("a valid superblock");
        assert_eq!((0..4).find(|&copy| decision.is_stale(copy)), None);
        let state = decision.content.state;
        assert_eq!(
            (state.cluster, state.replica, state.replica_count),
            (7, 1, 3)
        );
        assert_eq!((state.sequence, state.view, state.start), (1, 0, 0));
        assert_eq!(state.file, FILE);
        assert_eq!(decision.content.view_headers.as_slice(), [Prepare::root(7)]);
    }

    #[test]
    fn a_cut_at_any_write_leaves_no_valid_superblock_on_an_incomplete_file() {
        let format = format();
        let complete = whole(&format);
        let mut file = vec![0; complete.len()];
        let mut synced = 0;
        for step in format.steps(64 << 10) {
            match step {
                Step::Sync => synced += 1,
                Step::Write { at, size } => {
                    // The write is in flight, in part: what is below it may or may not be there.
                    let from = at as usize;
                    file[from..][..size].copy_from_slice(&complete[from..][..size]);
                    let zone = SUPERBLOCK_ZONE_SIZE as usize;
                    match decision(&file) {
                        Ok(_) => assert!(synced == 1 && file[zone..] == complete[zone..]),
                        Err(error) => assert_eq!(error, OpenError::NotFormatted),
                    }
                }
            }
        }
        assert!(synced == 2 && file == complete);
    }

    #[test]
    fn a_replacement_says_so_and_nothing_else_differs() {
        let plain = whole(&format());
        let replacement =
            Format::replacement(7, FileId::of_random(FILE), 1, 3, TINY).expect("a valid geometry");
        let file = whole(&replacement);
        let state = decision(&file).expect("a valid superblock").content.state;
        assert_eq!((state.sync.recovering, state.start), (1, 0));
        let zone = SUPERBLOCK_ZONE_SIZE as usize;
        assert!(file[zone..] == plain[zone..] && file[..zone] != plain[..zone]);
        for count in [1, 2] {
            let error = Format::replacement(7, FileId::of_random(FILE), 0, count, TINY)
                .expect_err("nobody to ask");
            assert_eq!(error, FormatError::Unrecoverable(count));
        }
    }

    #[test]
    fn impossible_replicas_are_refused() {
        let error = |replica, count| {
            let error = Format::new(1, FileId::of_random(FILE), replica, count, TINY)
                .expect_err("impossible");
            error.to_string()
        };
        assert!(error(0, 0).contains("from 1 to 6"));
        assert!(error(0, 7).contains("replica count is 7"));
        assert!(error(3, 3).contains("from 0 to 2"));
        let odd = Geometry { slots: 3, ..TINY };
        let error = Format::new(1, FileId::of_random(FILE), 0, 1, odd).expect_err("3 slots");
        assert!(error.to_string().starts_with("journal slots is 3"));
    }

    proptest! {
        #[test]
        fn the_content_does_not_depend_on_the_chunks(first in 0..500_usize, count in 1..40_usize) {
            let format = format();
            let file = whole(&format);
            let at = (first * SECTOR_SIZE).min(file.len() - SECTOR_SIZE);
            let size = (count * SECTOR_SIZE).min(file.len() - at);
            let mut bytes = vec![1; size];
            format.fill(at as u64, &mut bytes);
            prop_assert!(bytes == file[at..at + size]);
        }
    }
}
