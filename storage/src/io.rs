//! Requests to the disk and their completions, as values.
//!
//! A buffer moves into a request and comes home with its completion, on error and cancellation too. An [`IoId`] names
//! its owner and carries a generation, so that a completion which is not expected any more is recognised.

use crate::buffer::{AlignedBuffer, Message, SharedMessage};
use std::collections::VecDeque;

/// Who asked for an I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum IoOwner {
    /// The superblock.
    Superblock = 1,
    /// The journal, both rings.
    Journal = 2,
    /// The checkpoint: pages, tag tree and address map.
    Checkpoint = 3,
}

/// Names an I/O in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoId {
    /// Who asked.
    pub owner: IoOwner,
    /// The owner's own number for it: an index into its [`InFlight`].
    pub index: u32,
    /// Tells this use of the index from earlier ones; 24 bits.
    pub generation: u32,
}

/// What a request carries. The variants are what the owners have; the host looks at bytes only.
#[derive(Debug)]
pub enum Buffer {
    /// A buffer of whole sectors.
    Sectors(AlignedBuffer),
    /// A writable message, to read into.
    Message(Message),
    /// A read-only message, to write from while it is sent and executed elsewhere.
    Shared(SharedMessage),
}

impl Buffer {
    /// The bytes, up to the buffer's capacity.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Sectors(buffer) => buffer,
            Self::Message(message) => message.buffer(),
            Self::Shared(message) => message.buffer(),
        }
    }

    /// The bytes, to read into. A shared message is never read into.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Sectors(buffer) => buffer,
            Self::Message(message) => message.buffer_mut(),
            Self::Shared(_) => unreachable!("nothing reads into a shared message"),
        }
    }

    /// After a read: if it failed, the buffer holds zeros, which no check accepts, in place of whatever came.
    pub fn settle_read(&mut self, result: &Result<(), IoError>) {
        if result.is_err() {
            self.bytes_mut().fill(0);
        }
    }
}

/// A request to the disk. `at` and `size` are whole sectors; `size` bytes from the start of the buffer are meant.
#[derive(Debug)]
pub enum IoRequest {
    /// Writes. If `durable`, the completion comes when the bytes survive a power cut; otherwise when the device has
    /// them, and a later [`IoRequest::Sync`] makes them durable.
    Write {
        /// Whose.
        id: IoId,
        /// Offset in the data file, in bytes.
        at: u64,
        /// How many bytes.
        size: usize,
        /// From where.
        buffer: Buffer,
        /// Whether the completion promises durability.
        durable: bool,
    },
    /// Reads. Sectors that the device cannot read come back as zeros, which no check accepts.
    Read {
        /// Whose.
        id: IoId,
        /// Offset in the data file, in bytes.
        at: u64,
        /// How many bytes.
        size: usize,
        /// Into which.
        buffer: Buffer,
    },
    /// Makes every write durable that completed before this was submitted.
    Sync {
        /// Whose.
        id: IoId,
    },
}

impl IoRequest {
    /// Whose request it is.
    pub fn id(&self) -> IoId {
        match self {
            Self::Write { id, .. } | Self::Read { id, .. } | Self::Sync { id } => *id,
        }
    }
}

/// Why an I/O failed for good. A failed write or sync is fatal to the replica: what is on the disk is then unknown,
/// and writing on top of the unknown is how data is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{action} of {size} bytes at offset {at} of the data file failed: errno {errno}")]
pub struct IoError {
    /// `read`, `write` or `sync`.
    pub action: &'static str,
    /// Where.
    pub at: u64,
    /// How much.
    pub size: usize,
    /// The operating system's error number.
    pub errno: i32,
}

/// A completion.
#[derive(Debug)]
pub struct IoDone {
    /// Whose.
    pub id: IoId,
    /// The request's buffer, home again; none for a sync.
    pub buffer: Option<Buffer>,
    /// How it ended.
    pub result: Result<(), IoError>,
}

/// Requests on their way to the host. Bounded: its capacity is the sum of what the owners may have in flight, so a
/// full queue is a bug and not a condition.
#[derive(Debug)]
pub struct IoQueue {
    requests: VecDeque<IoRequest>,
    capacity: usize,
}

impl IoQueue {
    /// A queue for at most `capacity` requests.
    pub fn new(capacity: usize) -> Self {
        Self {
            requests: VecDeque::with_capacity(capacity),
            capacity,
        }
    }

    /// Adds a request.
    pub fn push(&mut self, request: IoRequest) {
        assert!(
            self.requests.len() < self.capacity,
            "more I/O queued than the owners may have in flight"
        );
        if let IoRequest::Write {
            at, size, buffer, ..
        }
        | IoRequest::Read {
            at, size, buffer, ..
        } = &request
        {
            assert!(
                at.is_multiple_of(crate::SECTOR_SIZE as u64)
                    && size.is_multiple_of(crate::SECTOR_SIZE)
            );
            assert!(*size > 0 && *size <= buffer.bytes().len());
        }
        self.requests.push_back(request);
    }

    /// Takes the oldest request.
    pub fn pop(&mut self) -> Option<IoRequest> {
        self.requests.pop_front()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

/// The I/Os an owner has in flight: what each one is for, by id.
#[derive(Debug)]
pub struct InFlight<T> {
    owner: IoOwner,
    slots: Box<[(u32, Option<T>)]>,
    used: usize,
}

impl<T> InFlight<T> {
    /// Room for `capacity` I/Os.
    pub fn new(owner: IoOwner, capacity: usize) -> Self {
        Self {
            owner,
            slots: (0..capacity).map(|_| (0, None)).collect(),
            used: 0,
        }
    }

    /// Whether another I/O may begin.
    pub fn has_room(&self) -> bool {
        self.used < self.slots.len()
    }

    /// How many are in flight.
    pub fn used(&self) -> usize {
        self.used
    }

    /// How many may be.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Begins an I/O; there must be room.
    pub fn begin(&mut self, purpose: T) -> IoId {
        let index = self
            .slots
            .iter()
            .position(|slot| slot.1.is_none())
            .expect("has_room was asked");
        let slot = &mut self.slots[index];
        slot.0 = (slot.0 + 1) & 0x00ff_ffff;
        slot.1 = Some(purpose);
        self.used += 1;
        IoId {
            owner: self.owner,
            index: index as u32,
            generation: slot.0,
        }
    }

    /// Ends an I/O and tells what it was for; none if the id is stale.
    pub fn finish(&mut self, id: IoId) -> Option<T> {
        assert_eq!(id.owner, self.owner);
        let slot = self
            .slots
            .get_mut(id.index as usize)
            .filter(|slot| slot.0 == id.generation)?;
        let purpose = slot.1.take()?;
        self.used -= 1;
        Some(purpose)
    }

    /// What is in flight.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.1.as_ref())
    }
}
