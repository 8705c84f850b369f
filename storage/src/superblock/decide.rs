//! Which superblock a file has: a pure decision over the bytes of its four copies, of a damaged or foreign file too.

use super::{COPY_SIZE_MAX, Content, MAGIC, SUMMED_FROM, SuperblockState, VERSION};
use super::{SECTOR_SIZE, VIEW_HEADERS_MAX};
use crate::checksum;
use crate::layout::{Geometry, SUPERBLOCK_COPIES};
use std::fmt;
use zerocopy::FromBytes;

/// What lies in one copy's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyReport {
    /// A superblock.
    Valid {
        /// Its sequence.
        sequence: u64,
        /// Its identity.
        checksum: u128,
        /// Whether it was written as this copy. If not, a write or a read went astray.
        in_place: bool,
    },
    /// Nothing: the file ends before.
    Missing,
    /// Zeros: never written, erased, or unreadable.
    Zeroed,
    /// Bytes that do not begin as a superblock does.
    Foreign,
    /// A superblock of another version of the format.
    Version(u16),
    /// A superblock that was torn or has decayed.
    Checksum,
    /// The sum holds, but a number cannot be: written by a build that was not ours.
    Impossible(&'static str),
}

impl fmt::Display for CopyReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid {
                sequence, in_place, ..
            } => {
                let astray = if *in_place { "" } else { ", of another place" };
                write!(formatter, "sequence {sequence}{astray}")
            }
            Self::Missing => formatter.write_str("beyond the end of the file"),
            Self::Zeroed => formatter.write_str("zeros"),
            Self::Foreign => formatter.write_str("not a superblock"),
            Self::Version(version) => write!(formatter, "format version {version}"),
            Self::Checksum => formatter.write_str("checksum does not match"),
            Self::Impossible(what) => write!(formatter, "checksum holds, but {what} cannot be"),
        }
    }
}

struct Reports<'a>(&'a [CopyReport; SUPERBLOCK_COPIES]);

impl fmt::Display for Reports<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (copy, report) in self.0.iter().enumerate() {
            let comma = if copy == 0 { "" } else { "; " };
            write!(formatter, "{comma}copy {copy}: {report}")?;
        }
        Ok(())
    }
}

/// Why a file cannot be opened by its superblock.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing but zeros where the superblock belongs.
    #[error(
        "not formatted: where the four copies of the superblock belong there are zeros or nothing. Run `viewstone \
         format` for a new replica; if this \
         file held one, it is lost: `viewstone recover` brings it back from the others"
    )]
    NotFormatted,
    /// Something else's file.
    #[error(
        "not a Viewstone data file: no copy of the superblock is where it belongs. Is the path right? If this \
         file held a replica, that is lost: `viewstone recover` brings it back from the others"
    )]
    NotADataFile,
    /// A data file of another version.
    #[error(
        "the data file has format version {found}, this build reads version {VERSION}. Use the release that wrote it"
    )]
    Version {
        /// The file's.
        found: u16,
    },
    /// No copy is good.
    #[error(
        "no copy of the superblock is valid ({}). The replica's memory of its votes is lost: do not format it anew; \
         `viewstone recover` brings it back from the others", Reports(.copies)
    )]
    Damaged {
        /// What was found.
        copies: Box<[CopyReport; SUPERBLOCK_COPIES]>,
    },
    /// Two superblocks of one sequence: two processes wrote the file, or parts of two files were mixed.
    #[error(
        "two different superblocks have sequence {sequence} ({}). The file was written by two processes or put \
         together from two files: `viewstone recover` brings the replica back from the others", Reports(.copies)
    )]
    Fork {
        /// The sequence.
        sequence: u64,
        /// What was found.
        copies: Box<[CopyReport; SUPERBLOCK_COPIES]>,
    },
}

/// A superblock to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The newest valid content.
    pub content: Content,
    /// What lies in each place.
    pub copies: [CopyReport; SUPERBLOCK_COPIES],
}

impl Decision {
    /// Whether a place does not hold the newest content at all.
    pub fn is_stale(&self, copy: usize) -> bool {
        let newest = self.content.state.checksum;
        !matches!(self.copies[copy], CopyReport::Valid { checksum, .. } if checksum == newest)
    }

    /// Whether a place holds the newest content, written as another copy.
    pub fn is_astray(&self, copy: usize) -> bool {
        !self.is_stale(copy)
            && matches!(
                self.copies[copy],
                CopyReport::Valid {
                    in_place: false,
                    ..
                }
            )
    }
}

/// Chooses the superblock to open: the valid one of the highest sequence, even from a single copy. `copies` are the
/// bytes at each copy's place, [`COPY_SIZE_MAX`] of them, or fewer if the file ends before; of any alignment.
///
/// A copy found in another copy's place counts: its sum proves that it was written as a superblock of this file, and
/// no number of copies is ever required, so counting it twice can do no harm. Its place is rewritten nevertheless.
///
/// # Errors
/// No copy is valid, or two differ at the highest sequence, or at any other: a chain has one superblock of each.
pub fn decide(copies: [&[u8]; SUPERBLOCK_COPIES]) -> Result<Decision, OpenError> {
    decide_with(copies, true)
}

/// As [`decide`]; without `check_sum` it believes any bytes, which exists to show that tests notice.
pub(super) fn decide_with(
    copies: [&[u8]; SUPERBLOCK_COPIES],
    check_sum: bool,
) -> Result<Decision, OpenError> {
    let mut reports = [CopyReport::Missing; SUPERBLOCK_COPIES];
    let mut newest: Option<(u64, usize)> = None;
    for (copy, bytes) in copies.iter().enumerate() {
        reports[copy] = report(copy, bytes, check_sum);
        if let CopyReport::Valid { sequence, .. } = reports[copy]
            && newest.is_none_or(|(highest, _)| sequence > highest)
        {
            newest = Some((sequence, copy));
        }
    }
    if let Some(sequence) = forked(&reports) {
        return Err(OpenError::Fork {
            sequence,
            copies: Box::new(reports),
        });
    }
    let Some((_, copy)) = newest else {
        return Err(refusal(reports));
    };
    let mut content = Content::nothing();
    content.read(copies[copy]);
    Ok(Decision {
        content,
        copies: reports,
    })
}

/// A sequence that two valid copies of different content share.
fn forked(reports: &[CopyReport; SUPERBLOCK_COPIES]) -> Option<u64> {
    let valid = |report: &CopyReport| match *report {
        CopyReport::Valid {
            sequence, checksum, ..
        } => Some((sequence, checksum)),
        _ => None,
    };
    reports
        .iter()
        .filter_map(valid)
        .find_map(|(sequence, sum)| {
            reports
                .iter()
                .filter_map(valid)
                .any(|other| other.0 == sequence && other.1 != sum)
                .then_some(sequence)
        })
}

/// Why no copy is valid.
fn refusal(copies: [CopyReport; SUPERBLOCK_COPIES]) -> OpenError {
    let empty = |report: &CopyReport| matches!(report, CopyReport::Zeroed | CopyReport::Missing);
    let foreign = |report: &CopyReport| empty(report) || *report == CopyReport::Foreign;
    if copies.iter().all(empty) {
        return OpenError::NotFormatted;
    }
    if copies.iter().all(foreign) {
        return OpenError::NotADataFile;
    }
    // A decayed version field alone must not hide that the file is damaged: all that is readable must agree on it.
    let version = copies.iter().find_map(|report| match report {
        CopyReport::Version(version) => Some(*version),
        _ => None,
    });
    match version {
        Some(found) if !copies.contains(&CopyReport::Checksum) => OpenError::Version { found },
        _ => OpenError::Damaged {
            copies: Box::new(copies),
        },
    }
}

fn report(copy: usize, bytes: &[u8], check_sum: bool) -> CopyReport {
    if bytes.is_empty() {
        return CopyReport::Missing;
    }
    // Of a file that ends here, what is there still tells what it is.
    let mut first = [0; SECTOR_SIZE];
    let there = bytes.len().min(SECTOR_SIZE);
    first[..there].copy_from_slice(&bytes[..there]);
    let state = SuperblockState::read_from_bytes(&first).expect("one sector");
    if state.magic != MAGIC {
        return if first.iter().all(|&byte| byte == 0) {
            CopyReport::Zeroed
        } else {
            CopyReport::Foreign
        };
    }
    if state.version != VERSION {
        return CopyReport::Version(state.version);
    }
    if state.view_headers_count as usize > VIEW_HEADERS_MAX {
        return CopyReport::Checksum;
    }
    let size = state.size_on_disk();
    assert!(size <= COPY_SIZE_MAX);
    let Some(bytes) = bytes.get(SUMMED_FROM..size) else {
        return CopyReport::Checksum;
    };
    if check_sum && checksum::identity(bytes) != state.checksum {
        return CopyReport::Checksum;
    }
    if let Some(what) = state.impossible() {
        return CopyReport::Impossible(what);
    }
    CopyReport::Valid {
        sequence: state.sequence,
        checksum: state.checksum,
        in_place: state.copy as usize == copy,
    }
}

/// What the opener knows of the file from elsewhere. None: it does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expected {
    /// The cluster's id.
    pub cluster: Option<u128>,
    /// The replica's index.
    pub replica: Option<u8>,
    /// Replicas of the cluster.
    pub replica_count: Option<u8>,
    /// The geometry, its journal ack aside.
    pub geometry: Option<Geometry>,
}

/// The file is another one than the opener expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mismatch {
    /// Another cluster's.
    #[error("the data file belongs to cluster {found:#034x}, not to {expected:#034x}")]
    Cluster {
        /// The file's.
        found: u128,
        /// The opener's.
        expected: u128,
    },
    /// Another replica's.
    #[error("the data file belongs to replica {found}, not to replica {expected}")]
    Replica {
        /// The file's.
        found: u8,
        /// The opener's.
        expected: u8,
    },
    /// Of a cluster of another size.
    #[error("the data file was formatted for {found} replicas, not for {expected}")]
    ReplicaCount {
        /// The file's.
        found: u8,
        /// The opener's.
        expected: u8,
    },
    /// Of another geometry.
    #[error("the data file has another geometry: {found:?}, expected {expected:?}")]
    Geometry {
        /// The file's.
        found: Geometry,
        /// The opener's.
        expected: Geometry,
    },
}

impl Expected {
    /// Compares what is expected with a superblock.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, state: &SuperblockState) -> Result<(), Mismatch> {
        if let Some(expected) = self.cluster
            && expected != state.cluster
        {
            let found = state.cluster;
            return Err(Mismatch::Cluster { found, expected });
        }
        if let Some(expected) = self.replica_count
            && expected != state.replica_count
        {
            let found = state.replica_count;
            return Err(Mismatch::ReplicaCount { found, expected });
        }
        if let Some(expected) = self.replica
            && expected != state.replica
        {
            let found = state.replica;
            return Err(Mismatch::Replica { found, expected });
        }
        if let Some(expected) = self.geometry
            && expected.fingerprint(state.replica_count)
                != state.geometry.fingerprint(state.replica_count)
        {
            let found = state.geometry;
            return Err(Mismatch::Geometry { found, expected });
        }
        Ok(())
    }
}
