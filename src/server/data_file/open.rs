//! Opening a data file, to run a replica on it or only to look.

use super::{DataFileError, Device, lock, os, probe};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, StatxFlags};
use rustix::io::Errno;
use std::path::Path;
use storage::SECTOR_SIZE;
use storage::buffer::AlignedBuffer;
use storage::layout::{Layout, SUPERBLOCK_COPIES};
use storage::superblock::{COPY_SIZE_MAX, Content, Decision, Expected, OpenError, decide};

/// A data file that is ours: locked until it is dropped.
#[derive(Debug)]
pub struct DataFile {
    /// The open file.
    pub fd: OwnedFd,
    /// What its superblock says. For memory and layout; the replica opens the superblock itself, which repairs it.
    pub superblock: Content,
    /// What lies where.
    pub layout: Layout,
    /// Whether access is direct; if not, durability depends on more than the device.
    pub direct: bool,
    /// What it lies on.
    pub device: Device,
}

/// Opens a data file for a replica. Without `development`, only directly.
///
/// # Errors
/// What is wrong with the file, and what to do.
pub fn open(
    path: &Path,
    expected: &Expected,
    development: bool,
) -> Result<DataFile, DataFileError> {
    let mut flags = OFlags::RDWR | OFlags::CLOEXEC;
    if kind_of(path)? == FileType::BlockDevice {
        flags |= OFlags::EXCL; // refuses a device that is mounted
    }
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(os("open", path))?;
    if !lock::try_lock(&fd).map_err(os("lock", path))? {
        return Err(DataFileError::InUse(path.to_path_buf()));
    }
    let size = size_of(&fd).map_err(os("measure", path))?;
    if size == 0 {
        return Err(DataFileError::Empty(path.to_path_buf()));
    }
    let direct = make_direct(path, &fd, development)?;
    let path_buf = || path.to_path_buf();
    let superblock = read_superblock(&fd).map_err(|error| DataFileError::Superblock {
        path: path_buf(),
        error,
    })?;
    let superblock = superblock.content;
    let matches = expected.check(&superblock.state);
    matches.map_err(|error| DataFileError::Mismatch {
        path: path_buf(),
        error,
    })?;
    let layout = Layout::new(superblock.state.geometry);
    if size < layout.size {
        return Err(DataFileError::Truncated {
            path: path_buf(),
            found: size,
            expected: layout.size,
        });
    }
    let device = probe(path)?;
    Ok(DataFile {
        fd,
        superblock,
        layout,
        direct,
        device,
    })
}

/// A data file that nobody writes to while this exists: locked against replicas, not against other readers.
#[derive(Debug)]
pub struct StoppedFile {
    /// The file, open for reading.
    pub fd: OwnedFd,
    /// What its superblock says.
    pub superblock: Content,
    /// What lies where.
    pub layout: Layout,
}

/// Opens a stopped replica's data file, to read it.
///
/// # Errors
/// What is wrong with the file, and what to do; [`DataFileError::InUse`] if a replica runs on it.
pub fn open_stopped(path: &Path) -> Result<StoppedFile, DataFileError> {
    let (fd, size) = open_to_read(path)?;
    if !lock::try_lock_shared(&fd).map_err(os("lock", path))? {
        return Err(DataFileError::InUse(path.to_path_buf()));
    }
    let path_buf = || path.to_path_buf();
    let superblock = read_superblock(&fd).map_err(|error| DataFileError::Superblock {
        path: path_buf(),
        error,
    })?;
    let superblock = superblock.content;
    let layout = Layout::new(superblock.state.geometry);
    if size < layout.size {
        return Err(DataFileError::Truncated {
            path: path_buf(),
            found: size,
            expected: layout.size,
        });
    }
    Ok(StoppedFile {
        fd,
        superblock,
        layout,
    })
}

/// What can be learnt of a file without changing or locking it.
#[derive(Debug)]
pub struct Peek {
    /// The file, open for reading.
    pub fd: OwnedFd,
    /// Its size in bytes.
    pub size: u64,
    /// Whether a process has it locked: what is read may be changing.
    pub in_use: bool,
    /// Its superblock, or what is wrong with it.
    pub superblock: Result<Decision, OpenError>,
}

/// Looks at a file, damaged or in use as it may be.
///
/// # Errors
/// It cannot be read at all.
pub fn peek(path: &Path) -> Result<Peek, DataFileError> {
    let (fd, size) = open_to_read(path)?;
    Ok(Peek {
        size,
        in_use: lock::is_locked(&fd).map_err(os("look at the lock of", path))?,
        superblock: read_superblock(&fd),
        fd,
    })
}

/// A file that has something in it, and its size.
fn open_to_read(path: &Path) -> Result<(OwnedFd, u64), DataFileError> {
    kind_of(path)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(os("open", path))?;
    // Past the page cache where the file system can: what is on the device is what counts.
    let _ = rustix::fs::fcntl_setfl(&fd, OFlags::DIRECT);
    let size = size_of(&fd).map_err(os("measure", path))?;
    if size == 0 {
        return Err(DataFileError::Empty(path.to_path_buf()));
    }
    Ok((fd, size))
}

/// File or device; anything else is refused before it is opened, since opening a pipe waits for its other end.
fn kind_of(path: &Path) -> Result<FileType, DataFileError> {
    let stat = rustix::fs::stat(path).map_err(os("look at", path))?;
    match FileType::from_raw_mode(stat.st_mode) {
        kind @ (FileType::RegularFile | FileType::BlockDevice) => Ok(kind),
        _ => Err(DataFileError::NotAFile(path.to_path_buf())),
    }
}

/// Size of a file or a device, in bytes.
pub(super) fn size_of(fd: impl AsFd) -> Result<u64, Errno> {
    rustix::fs::seek(fd, SeekFrom::End(0))
}

/// Makes access direct; false where the file system cannot and that was allowed.
fn make_direct(path: &Path, fd: &OwnedFd, development: bool) -> Result<bool, DataFileError> {
    match rustix::fs::fcntl_setfl(fd, OFlags::DIRECT) {
        Ok(()) => {}
        Err(Errno::INVAL) if development => return Ok(false),
        Err(Errno::INVAL) => return Err(DataFileError::NoDirect(path.to_path_buf())),
        Err(errno) => return Err(os("set O_DIRECT on", path)(errno)),
    }
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    // A kernel that does not tell is taken at its word: the superblock is read in our unit next.
    if let Ok(stat) = stat
        && stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0
        && stat.stx_dio_offset_align > SECTOR_SIZE as u32
    {
        return Err(DataFileError::Alignment {
            path: path.to_path_buf(),
            found: stat.stx_dio_offset_align,
        });
    }
    Ok(true)
}

fn read_superblock(fd: &OwnedFd) -> Result<Decision, OpenError> {
    let mut buffers: [AlignedBuffer; SUPERBLOCK_COPIES] =
        std::array::from_fn(|_| AlignedBuffer::new(COPY_SIZE_MAX));
    let mut sizes = [0; SUPERBLOCK_COPIES];
    for (copy, buffer) in buffers.iter_mut().enumerate() {
        sizes[copy] = read_sectors(fd, Layout::superblock_at(copy), buffer);
    }
    decide(std::array::from_fn(|copy| &buffers[copy][..sizes[copy]]))
}

/// Reads whole sectors into an aligned buffer, up to the end of the file; the bytes read. A sector that cannot be read is
/// zeros, which nothing takes for content.
pub fn read_sectors(fd: impl AsFd, at: u64, bytes: &mut [u8]) -> usize {
    assert!(bytes.len().is_multiple_of(SECTOR_SIZE));
    let mut done = 0;
    let mut unit = bytes.len();
    while done < bytes.len() {
        let end = bytes.len().min(done + unit);
        match rustix::io::pread(&fd, &mut bytes[done..end], at + done as u64) {
            Ok(0) => return done,
            Ok(size) => {
                done += size;
                if !done.is_multiple_of(SECTOR_SIZE) {
                    return done; // the file ends in the middle of a sector
                }
            }
            Err(Errno::INTR) => {}
            // One bad sector fails the whole read: the others are still wanted.
            Err(_) if unit > SECTOR_SIZE => unit = SECTOR_SIZE,
            Err(_) => {
                bytes[done..end].fill(0);
                done = end;
            }
        }
    }
    done
}
