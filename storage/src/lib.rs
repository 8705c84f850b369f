//! What lies where on a replica's disk, as pure values: nothing here reads a clock, opens a file or
//! draws randomness. The one exception is [`uring`], the driver that the server uses for files and sockets; it is
//! behind the feature of the same name and nothing else in this crate knows it.
//!
//! The parts are passive: a replica owns them, hands them completions, and they put requests into its one
//! [`io::IoQueue`].

#[cfg(target_endian = "big")]
compile_error!("the wire and disk formats are read in place, which needs a little-endian machine");

pub mod bits;
pub mod buffer;
pub mod checkpoint;
pub mod checksum;
pub mod collections;
pub mod format;
pub mod header;
pub mod io;
pub mod journal;
pub mod layout;
pub mod pages;
mod prefetch;
pub mod recovery;
pub mod superblock;
#[cfg(feature = "uring")]
pub mod uring;

/// The unit of every disk access, in bytes: the physical sector of the drives we are built for, and the unit
/// whose writes we take to be old or new, never mixed.
pub const SECTOR_SIZE: usize = 4096;

/// `size` rounded up to whole sectors, in bytes.
#[must_use]
pub const fn sector_ceil(size: usize) -> usize {
    size.next_multiple_of(SECTOR_SIZE)
}
