//! The data file on a real file system: made whole or not at all, opened by one process at a time.
//!
//! * [`create`]: the file has no name until it is complete and durable (`O_TMPFILE`, then `linkat`), so a process that
//!   is killed leaves nothing. Where the file system has no `O_TMPFILE`, it has a hidden name until then, which the next
//!   format of the same file clears away.
//! * [`open`]: with `O_DIRECT`, under an exclusive lock, and only if size and superblock agree.
//! * [`open_stopped`]: to read, and only while no replica runs on it.
//! * [`peek`]: whatever can be learnt of any file without disturbing it.

mod create;
mod device;
mod lock;
mod open;

pub use create::{CHUNK_SIZE, check_place, create};
pub use device::{Device, probe};
pub use lock::Lock;
pub use open::{DataFile, Peek, StoppedFile, open, open_stopped, peek, read_sectors};

use super::size::show_size;
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use storage::format::FormatError;
use storage::superblock::{Mismatch, OpenError};

/// Why a data file was not made or not opened: what was found, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataFileError {
    /// Never overwritten.
    #[error(
        "{0} exists already, and is never overwritten. Choose another name, or remove it if it may be lost"
    )]
    Exists(PathBuf),
    /// There is no such file.
    #[error("{0} does not exist. Make it with `viewstone format`, or check the path")]
    Missing(PathBuf),
    /// There is no such directory.
    #[error("the directory {0} does not exist. Make it first, or check the path")]
    MissingDirectory(PathBuf),
    /// A directory, a pipe, ...
    #[error("{0} is neither a file nor a block device")]
    NotAFile(PathBuf),
    /// Nothing in it.
    #[error(
        "{0} is empty: it was never formatted, or it was truncated. `viewstone format` \
         makes a new file under a free name. If this replica was in use: `viewstone recover`"
    )]
    Empty(PathBuf),
    /// No permission.
    #[error(
        "no permission to {action} {path}. Run as the user that owns it, or change its owner or mode"
    )]
    Permission {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// The disk is full.
    #[error(
        "no space for {path}: it needs {}, and {} are free there. Choose a smaller --state-size or another place. Nothing was \
         left behind", show_size(*needed), show_size(*available)
    )]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Its size.
        needed: u64,
        /// What the file system offers.
        available: u64,
    },
    /// The user's share of the disk, or the file system's largest file.
    #[error(
        "{path} may not have the {} it needs: {errno} (the user's quota, or the largest file of this file system). Nothing \
         was left behind", show_size(*needed)
    )]
    NotAllowed {
        /// The file.
        path: PathBuf,
        /// Its size.
        needed: u64,
        /// The operating system's reason.
        errno: Errno,
    },
    /// The device is smaller than the file would be.
    #[error(
        "the device {path} has {}, and the geometry needs {}. Choose a smaller geometry", show_size(*found),
        show_size(*needed)
    )]
    DeviceSmall {
        /// The device.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The geometry's.
        needed: u64,
    },
    /// Something is on the device.
    #[error(
        "the first MiB of the device {0} is not zeros: it holds something. If that may be lost, \
          clear it first (`blkdiscard -z` or `dd`)"
    )]
    DeviceNotEmpty(PathBuf),
    /// Locked by another process.
    #[error(
        "{0} is in use by another process: a replica runs on it, it is being formatted, or the kernel is still \
         finishing the writes of one that was killed. Stop that process first, or wait"
    )]
    InUse(PathBuf),
    /// No `O_DIRECT`.
    #[error(
        "{0} lies on a file system without O_DIRECT, so durability cannot be relied on. Use \
         ext4, xfs or a block device, or `--development` to try things out"
    )]
    NoDirect(PathBuf),
    /// Direct access in units larger than ours.
    #[error(
        "{path} needs direct access in units of {found} bytes; at most 4096 is supported. Use another device"
    )]
    Alignment {
        /// The file.
        path: PathBuf,
        /// Its unit.
        found: u32,
    },
    /// The file ends before it should.
    #[error(
        "{path} has {found} bytes, and its superblock says {expected}: it was truncated or copied in part. \
         If this replica was in use, move the file away and run `viewstone recover`"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The geometry's.
        expected: u64,
    },
    /// The superblock cannot be opened.
    #[error("{path}: {error}")]
    Superblock {
        /// The file.
        path: PathBuf,
        /// Why.
        error: OpenError,
    },
    /// The file is another one.
    #[error("{path}: {error}. Check the path and the addresses")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// In what.
        error: Mismatch,
    },
    /// Numbers no file can have.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Anything else.
    #[error("cannot {action} {path}: {errno}")]
    Os {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The operating system's reason.
        errno: Errno,
    },
}

/// Names an operating system's error by what it means here.
fn os(action: &'static str, path: &Path) -> impl Fn(Errno) -> DataFileError {
    move |errno| {
        let path = path.to_path_buf();
        match errno {
            Errno::ACCESS | Errno::PERM | Errno::ROFS => DataFileError::Permission { action, path },
            Errno::NOENT => DataFileError::Missing(path),
            Errno::ISDIR => DataFileError::NotAFile(path),
            Errno::BUSY => DataFileError::InUse(path),
            _ => DataFileError::Os {
                action,
                path,
                errno,
            },
        }
    }
}
