//! The lock of a data file: on the open file description, so that it excludes other processes and other replicas of
//! this one, ends with the description however the process dies, and can be asked for without being taken.

use super::DataFile;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;

fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: a C structure of integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

fn control(file: impl AsFd, command: libc::c_int, lock: &mut libc::flock) -> Result<(), Errno> {
    let lock = std::ptr::from_mut(lock);
    // SAFETY:
    // * the descriptor is open while it is borrowed;
    // * both commands take a pointer to a `flock`, and this one is valid and ours alone during the call.
    let result = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), command, lock) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).expect("fcntl sets errno"))
}

/// Takes the lock if it is free; false: another description has it.
pub(super) fn try_lock(file: impl AsFd) -> Result<bool, Errno> {
    try_lock_as(file, libc::F_WRLCK)
}

/// Takes the lock together with others who only read; false: somebody has it to write.
pub(super) fn try_lock_shared(file: impl AsFd) -> Result<bool, Errno> {
    try_lock_as(file, libc::F_RDLCK)
}

fn try_lock_as(file: impl AsFd, kind: libc::c_int) -> Result<bool, Errno> {
    match control(file, libc::F_OFD_SETLK, &mut whole_file(kind)) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The lock of an open data file, to be given up before the kernel has closed the last reference to the file. Dropping
/// this gives nothing up.
#[derive(Debug)]
pub struct Lock(OwnedFd);

impl Lock {
    /// The file's.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn of(file: &DataFile) -> Result<Self, Errno> {
        rustix::io::fcntl_dupfd_cloexec(&file.fd, 0).map(Self)
    }

    /// Gives it up: nothing may be reading or writing the file.
    pub fn release(self) {
        let mut lock = whole_file(libc::F_UNLCK);
        // Should it fail, the lock ends with the description.
        let _ = control(&self.0, libc::F_OFD_SETLK, &mut lock);
    }
}

/// Whether another description has the lock.
pub(super) fn is_locked(file: impl AsFd) -> Result<bool, Errno> {
    let mut lock = whole_file(libc::F_WRLCK);
    control(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}
