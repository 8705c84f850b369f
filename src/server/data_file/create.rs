//! Format: makes a data file, whole or not at all.

use super::{DataFileError, lock, os};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use storage::SECTOR_SIZE;
use storage::buffer::AlignedBuffer;
use storage::format::{Format, Step};
use storage::layout::SUPERBLOCK_ZONE_SIZE;

/// Bytes written at once: large enough that the device, not the number of calls, is the limit.
pub const CHUNK_SIZE: usize = 4 << 20;

/// Whether [`create`] can begin: there is no such file, its directory is there and has room. A device is not looked at.
///
/// # Errors
/// As [`create`]'s.
pub fn check_place(path: &Path, format: &Format) -> Result<(), DataFileError> {
    match find(path)? {
        Found::Device => Ok(()),
        Found::Nothing => Place::of(path)?.check_room(format.layout().size),
    }
}

/// What lies under the name of a file to be made.
enum Found {
    Nothing,
    Device,
}

fn find(path: &Path) -> Result<Found, DataFileError> {
    match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(errno) => return Err(os("look at", path)(errno)),
        Ok(_) => {}
    }
    // A link to a device is how devices are named.
    let target = rustix::fs::stat(path).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match target {
        Ok(FileType::BlockDevice) => Ok(Found::Device),
        _ => Err(DataFileError::Exists(path.to_path_buf())),
    }
}

/// Makes the data file `path`, or formats the block device of that name. `progress` is told bytes done and in all.
///
/// # Errors
/// Nothing was made, and nothing is left behind (of a device: it holds no valid superblock).
pub fn create(
    path: &Path,
    format: &Format,
    progress: impl FnMut(u64, u64),
) -> Result<(), DataFileError> {
    if matches!(find(path)?, Found::Device) {
        return create_on_device(path, format, progress);
    }
    let place = Place::of(path)?;
    let size = format.layout().size;
    // Asked before anything is taken: who takes all the room to find out that it is too little, takes it from others.
    place.check_room(size)?;
    let mut file = Unnamed::new(&place)?;
    rustix::fs::fchmod(&file.fd, Mode::RUSR | Mode::WUSR).map_err(os("set the mode of", path))?;
    // If there is no room it is known at once, and extents are few; the zeros are written none the less.
    match rustix::fs::fallocate(&file.fd, FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(errno) => return Err(file.write_error(&place, size, errno)),
    }
    write(&file.fd, format, progress).map_err(|errno| file.write_error(&place, size, errno))?;
    file.name_it(&place)?;
    rustix::fs::fsync(&place.directory).map_err(os("sync the directory of", path))
}

/// Where a file is to appear.
struct Place {
    path: PathBuf,
    directory_path: PathBuf,
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    fn of(path: &Path) -> Result<Self, DataFileError> {
        let name = path
            .file_name()
            .ok_or_else(|| DataFileError::NotAFile(path.to_path_buf()))?;
        let directory_path = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&directory_path, flags, Mode::empty());
        let directory = directory.map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => DataFileError::MissingDirectory(directory_path.clone()),
            errno => os("open the directory", &directory_path)(errno),
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            name: name.to_os_string(),
            directory_path,
            directory,
        })
    }

    /// Refuses a file that is larger than what is free. A file system that does not tell is tried.
    fn check_room(&self, needed: u64) -> Result<(), DataFileError> {
        match self.available() {
            Some(available) if available < needed => Err(DataFileError::NoSpace {
                path: self.path.clone(),
                needed,
                available,
            }),
            _ => Ok(()),
        }
    }

    /// Bytes that this user may take, if the file system tells.
    fn available(&self) -> Option<u64> {
        let found = rustix::fs::fstatvfs(&self.directory).ok()?;
        (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// A file that is not there yet under its name; dropped before it is, it vanishes.
struct Unnamed {
    fd: OwnedFd,
    /// Its hidden name, where a file cannot be without one.
    hidden: Option<PathBuf>,
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // Nothing to be done if it fails: the next format of this file clears it away.
            let _ = rustix::fs::unlink(hidden);
        }
    }
}

impl Unnamed {
    fn new(place: &Place) -> Result<Self, DataFileError> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match open_direct(&place.directory_path, flags) {
            Ok(fd) => Ok(Self { fd, hidden: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::hidden(place),
            Err(errno) => Err(os("create a file in", &place.directory_path)(errno)),
        }
    }

    /// A file under a name that only format uses, locked while it is being made: one that is not locked was left by a
    /// process that was killed.
    fn hidden(place: &Place) -> Result<Self, DataFileError> {
        let mut name = OsString::from(".");
        name.push(&place.name);
        name.push(".formatting");
        let path = place.directory_path.join(name);
        let plain = OFlags::RDWR | OFlags::CLOEXEC;
        if let Ok(left) = rustix::fs::open(&path, plain | OFlags::NOFOLLOW, Mode::empty()) {
            if !lock::try_lock(&left).map_err(os("lock", &path))? {
                return Err(DataFileError::InUse(path));
            }
            rustix::fs::unlink(&path).map_err(os("remove", &path))?;
        }
        let fd = open_direct(&path, plain | OFlags::CREATE | OFlags::EXCL);
        let fd = fd.map_err(os("create", &path))?;
        if !lock::try_lock(&fd).map_err(os("lock", &path))? {
            return Err(DataFileError::InUse(path));
        }
        Ok(Self {
            fd,
            hidden: Some(path),
        })
    }

    /// Why it could not be written. What it holds is given back first, or it would count as taken.
    fn write_error(&self, place: &Place, needed: u64, errno: Errno) -> DataFileError {
        let path = place.path.clone();
        match errno {
            Errno::NOSPC => {
                let _ = rustix::fs::ftruncate(&self.fd, 0);
                DataFileError::NoSpace {
                    path,
                    needed,
                    available: place.available().unwrap_or(0),
                }
            }
            Errno::DQUOT | Errno::FBIG => DataFileError::NotAllowed {
                path,
                needed,
                errno,
            },
            errno => os("write", &path)(errno),
        }
    }

    /// Gives the complete file its name, unless something has taken it meanwhile.
    fn name_it(&mut self, place: &Place) -> Result<(), DataFileError> {
        let to = &place.directory;
        let result = if let Some(hidden) = &self.hidden {
            rustix::fs::renameat_with(CWD, hidden, to, &place.name, RenameFlags::NOREPLACE)
        } else {
            let from = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
            rustix::fs::linkat(CWD, from, to, &place.name, AtFlags::SYMLINK_FOLLOW)
        };
        match result {
            Ok(()) => {
                self.hidden = None;
                Ok(())
            }
            Err(Errno::EXIST) => Err(DataFileError::Exists(place.path.clone())),
            Err(errno) => Err(os("give its name to", &place.path)(errno)),
        }
    }
}

/// Opens for writing, directly where the file system can: it is faster, and start is what insists on it.
fn open_direct(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(path, flags | OFlags::DIRECT, mode) {
        // Though it refused the flag, the kernel may have made the file.
        Err(Errno::INVAL) => rustix::fs::open(path, flags - OFlags::EXCL, mode),
        result => result,
    }
}

/// Carries out the steps.
fn write(fd: &OwnedFd, format: &Format, mut progress: impl FnMut(u64, u64)) -> Result<(), Errno> {
    let mut buffer = AlignedBuffer::new(CHUNK_SIZE);
    let mut done = 0;
    for step in format.steps(CHUNK_SIZE) {
        match step {
            Step::Sync => rustix::fs::fsync(fd)?,
            Step::Write { at, size } => {
                format.fill(at, &mut buffer[..size]);
                write_all(fd, at, &buffer[..size])?;
                done += size as u64;
                progress(done, format.layout().size);
            }
        }
    }
    assert_eq!(done, format.layout().size);
    Ok(())
}

fn write_all(fd: &OwnedFd, mut at: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, at) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(size) => {
                at += size as u64;
                bytes = &bytes[size..];
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Formats a device in place. The superblock comes last, so until all is durable there is none.
fn create_on_device(
    path: &Path,
    format: &Format,
    progress: impl FnMut(u64, u64),
) -> Result<(), DataFileError> {
    // On a device O_EXCL refuses one that is mounted or claimed.
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(os("open", path))?;
    if !lock::try_lock(&fd).map_err(os("lock", path))? {
        return Err(DataFileError::InUse(path.to_path_buf()));
    }
    let found = super::open::size_of(&fd).map_err(os("measure", path))?;
    let needed = format.layout().size;
    if found < needed {
        let path = path.to_path_buf();
        return Err(DataFileError::DeviceSmall {
            path,
            found,
            needed,
        });
    }
    let mut zone = AlignedBuffer::new(SUPERBLOCK_ZONE_SIZE as usize);
    for (index, sector) in zone.chunks_mut(SECTOR_SIZE).enumerate() {
        let at = (index * SECTOR_SIZE) as u64;
        let size = rustix::io::pread(&fd, &mut *sector, at).map_err(os("read", path))?;
        if size < SECTOR_SIZE || sector.iter().any(|&byte| byte != 0) {
            return Err(DataFileError::DeviceNotEmpty(path.to_path_buf()));
        }
    }
    write(&fd, format, progress).map_err(os("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let directory =
            std::env::temp_dir().join(format!("viewstone-create-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a new directory");
        Place::of(&directory.join("file")).expect("the directory is there")
    }

    #[test]
    fn what_has_no_room_is_refused_by_what_is_free_before_anything_is_taken() {
        let place = Place::of(&std::env::temp_dir().join("no-such-file")).expect("a directory");
        place.check_room(1).expect("a byte is free");
        let error = place.check_room(u64::MAX).expect_err("nobody has that");
        let DataFileError::NoSpace { available, .. } = &error else {
            panic!("{error}");
        };
        assert!(*available > 0);
        assert!(
            error.to_string().contains("it needs 16777216.0 TiB"),
            "{error}"
        );
    }

    /// File systems without `O_TMPFILE` are rare on test machines, so their way is tested directly.
    #[test]
    fn a_hidden_file_is_cleared_away_replaces_nothing_and_ends_under_its_name() {
        let place = place();
        let hidden = place.directory_path.join(".file.formatting");
        std::fs::write(&hidden, "left by a killed format").expect("written");
        let file = Unnamed::hidden(&place).expect("what was left is cleared away");
        assert_eq!(std::fs::read(&hidden).expect("a new file"), b"");
        assert!(matches!(
            Unnamed::hidden(&place),
            Err(DataFileError::InUse(_))
        ));
        drop(file);
        assert!(!hidden.exists());
        let mut file = Unnamed::hidden(&place).expect("the name is free");
        std::fs::write(&place.path, "precious").expect("written");
        assert!(matches!(
            file.name_it(&place),
            Err(DataFileError::Exists(_))
        ));
        assert_eq!(std::fs::read(&place.path).expect("untouched"), b"precious");
        std::fs::remove_file(&place.path).expect("removed");
        file.name_it(&place).expect("the name is free");
        drop(file);
        assert!(place.path.exists() && !hidden.exists());
        std::fs::remove_dir_all(&place.directory_path).expect("removed");
    }
}
