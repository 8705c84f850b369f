//! What the kernel tells of the device below a file: which units it writes whole.

use super::{DataFileError, os};
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};
use std::path::Path;
use storage::SECTOR_SIZE;
use storage::layout::JournalAck;

/// The device below a file, as far as the kernel tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Device {
    /// Bytes that the device writes whole; none where it is not known (an overlay, a memory or network file system).
    pub physical_sector: Option<u32>,
    /// Whether our sectors begin where the device's do.
    pub aligned: bool,
}

impl Device {
    /// When a prepare may be acknowledged on this device. A single write suffices only if 4 KiB are written whole, and
    /// not in a cluster of two, where one replica's word decides. What is not known is taken for the worse.
    pub fn journal_ack(&self, replica_count: u8) -> JournalAck {
        let sector = SECTOR_SIZE as u32;
        let whole = self.physical_sector.is_some_and(|size| size >= sector);
        if whole && self.aligned && replica_count != 2 {
            JournalAck::Single
        } else {
            JournalAck::Both
        }
    }
}

/// Looks at the device that `path`, a file, a directory or a device, lies on. What cannot be found out is left unknown.
///
/// # Errors
/// There is no such path.
pub fn probe(path: &Path) -> Result<Device, DataFileError> {
    let stat = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE);
    let stat = stat.map_err(os("look at", path))?;
    let is_device = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::BlockDevice;
    let (major, minor) = if is_device {
        (stat.stx_rdev_major, stat.stx_rdev_minor)
    } else {
        (stat.stx_dev_major, stat.stx_dev_minor)
    };
    let number = |name: &str| -> Option<u64> {
        let path = format!("/sys/dev/block/{major}:{minor}/{name}");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    // A partition has its own start, and the queue of the disk above it.
    let physical = number("queue/physical_block_size").or(number("../queue/physical_block_size"));
    let start = number("start").unwrap_or(0) * 512;
    let offset = number("alignment_offset").unwrap_or(0);
    let block = if is_device {
        SECTOR_SIZE as u64
    } else {
        rustix::fs::statvfs(path).map_or(0, |file_system| file_system.f_bsize)
    };
    let sector = SECTOR_SIZE as u64;
    Ok(Device {
        physical_sector: physical.and_then(|size| u32::try_from(size).ok()),
        aligned: (start + offset).is_multiple_of(sector)
            && block >= sector
            && block.is_multiple_of(sector),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_suffices_only_where_sectors_are_known_to_be_whole() {
        let ack = |physical_sector, aligned, count| {
            let device = Device {
                physical_sector,
                aligned,
            };
            device.journal_ack(count)
        };
        assert_eq!(ack(Some(4096), true, 3), JournalAck::Single);
        assert_eq!(ack(Some(16384), true, 1), JournalAck::Single);
        assert_eq!(ack(Some(4096), true, 2), JournalAck::Both);
        assert_eq!(ack(Some(4096), false, 3), JournalAck::Both);
        assert_eq!(ack(Some(512), true, 3), JournalAck::Both);
        assert_eq!(ack(None, true, 3), JournalAck::Both);
    }
}
