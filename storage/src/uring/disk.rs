//! The disk requests in flight, as a state machine over completion codes: what to submit next, and when a request is
//! done. It makes no system call and knows nothing of the ring, so every error path is tested by feeding it codes.
//!
//! Outcomes, each defined:
//!
//! * a short transfer is continued from the last whole sector;
//! * EINTR, EAGAIN and a transfer of nothing are tried again, [`ATTEMPTS_MAX`] times in a row, then they are an error;
//! * any other error of a write or sync (EIO, ENOSPC, ...) ends the request at once: nothing is written on top of
//!   unknown state;
//! * a read that the device refuses is repeated sector by sector; sectors which it still refuses, and everything beyond
//!   the end of the file, come back as zeros;
//! * a completion with a stale generation changes nothing.
//!
//! The table is bounded by what the owners may have in flight: a full table is asked about first ([`Disk::has_room`]).

use super::Durability;
use crate::SECTOR_SIZE;
use crate::io::{Buffer, IoDone, IoError, IoId, IoRequest};
use std::collections::VecDeque;

/// Fruitless tries in a row before an operation counts as failed. An interrupted call succeeds at the next try; more
/// than a few mean that the device is stuck, which the operator must hear of.
pub(super) const ATTEMPTS_MAX: u32 = 64;

/// Bits of a generation in a completion's user data.
const GENERATION_MASK: u32 = 0x00ff_ffff;

/// How a write becomes durable within the request itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flush {
    /// It does not.
    None,
    /// The write carries RWF_DSYNC.
    Dsync,
    /// A sync is linked behind the write.
    Linked,
}

/// The next operation of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    /// Write `size` bytes from `offset` of the buffer.
    Write {
        at: u64,
        offset: usize,
        size: usize,
        flush: Flush,
    },
    /// Read `size` bytes to `offset` of the buffer.
    Read { at: u64, offset: usize, size: usize },
    /// Sync the file's data.
    Sync,
}

/// Which operation of a request has completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// The read, the write, or the sync that the request itself is.
    Main,
    /// The sync behind a write.
    LinkedSync,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Write { durable: bool },
    Read,
    Sync,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The main operation is in flight.
    Main,
    /// The write is through or not (`done` tells); its linked sync is in flight.
    LinkedSync,
    /// The write is through; the next shared sync will cover it.
    Written,
    /// The shared sync in flight covers it.
    SharedSync,
}

#[derive(Debug)]
struct Active {
    id: IoId,
    kind: Kind,
    at: u64,
    size: usize,
    buffer: Option<Buffer>,
    /// Bytes transferred, in whole sectors.
    done: usize,
    /// Fruitless tries in a row.
    attempts: u32,
    /// The device refused a longer read: from here on one sector at a time.
    single_sectors: bool,
    stage: Stage,
    /// The write failed with this; its linked sync is still to come home.
    failed: Option<i32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    active: Option<Active>,
}

/// What to do after a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Submit [`Disk::operation`] of this slot.
    Submit(u32),
    /// Submit the sync behind this slot's write once more, by itself.
    SubmitLinkedSync(u32),
    /// Nothing.
    Nothing,
}

/// The table.
#[derive(Debug)]
pub(super) struct Disk {
    durability: Durability,
    slots: Box<[Slot]>,
    free: Vec<u32>,
    done: VecDeque<IoDone>,
    /// Slots in [`Stage::Written`].
    written: usize,
    shared_sync: Option<SharedSync>,
}

#[derive(Debug)]
struct SharedSync {
    attempts: u32,
}

impl Disk {
    pub(super) fn new(capacity: usize, durability: Durability) -> Self {
        Self {
            durability,
            slots: (0..capacity)
                .map(|_| Slot {
                    generation: 0,
                    active: None,
                })
                .collect(),
            free: (0..capacity as u32).rev().collect(),
            done: VecDeque::with_capacity(capacity),
            written: 0,
            shared_sync: None,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn pop_done(&mut self) -> Option<IoDone> {
        self.done.pop_front()
    }

    pub(super) fn generation(&self, index: u32) -> u32 {
        self.slots[index as usize].generation
    }

    /// Takes a request and tells its slot, whose operation is to be submitted.
    pub(super) fn begin(&mut self, request: IoRequest) -> u32 {
        let (id, kind, at, size, buffer) = match request {
            IoRequest::Write {
                id,
                at,
                size,
                buffer,
                durable,
            } => (id, Kind::Write { durable }, at, size, Some(buffer)),
            IoRequest::Read {
                id,
                at,
                size,
                buffer,
            } => (id, Kind::Read, at, size, Some(buffer)),
            IoRequest::Sync { id } => (id, Kind::Sync, 0, 0, None),
        };
        assert!(at.is_multiple_of(SECTOR_SIZE as u64) && size.is_multiple_of(SECTOR_SIZE));
        if let Some(buffer) = &buffer {
            assert!(size > 0 && size <= buffer.bytes().len());
        }
        let index = self.free.pop().expect("has_room was asked");
        let slot = &mut self.slots[index as usize];
        assert!(slot.active.is_none());
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        slot.active = Some(Active {
            id,
            kind,
            at,
            size,
            buffer,
            done: 0,
            attempts: 0,
            single_sectors: false,
            stage: Stage::Main,
            failed: None,
        });
        index
    }

    /// What the slot's request needs next.
    pub(super) fn operation(&self, index: u32) -> Operation {
        let active = self.active(index);
        assert_eq!(active.stage, Stage::Main);
        let (at, offset) = (active.at + active.done as u64, active.done);
        let size = active.size - active.done;
        match active.kind {
            Kind::Write { durable } => Operation::Write {
                at,
                offset,
                size,
                flush: match self.durability {
                    _ if !durable => Flush::None,
                    Durability::WriteDsync => Flush::Dsync,
                    Durability::LinkedSync => Flush::Linked,
                    Durability::SyncPerTurn => Flush::None,
                },
            },
            Kind::Read if active.single_sectors => Operation::Read {
                at,
                offset,
                size: SECTOR_SIZE,
            },
            Kind::Read => Operation::Read { at, offset, size },
            Kind::Sync => Operation::Sync,
        }
    }

    /// Bytes of the slot's buffer, to read from or write to while the slot is in use.
    pub(super) fn buffer_mut(&mut self, index: u32) -> &mut Buffer {
        let active = self.slots[index as usize].active.as_mut();
        let buffer = active.expect("the slot is in use").buffer.as_mut();
        buffer.expect("reads and writes have a buffer")
    }

    fn active(&self, index: u32) -> &Active {
        let active = self.slots[index as usize].active.as_ref();
        active.expect("the slot is in use")
    }

    /// An operation has completed with the kernel's result: bytes, or a negated error number.
    pub(super) fn complete(&mut self, index: u32, generation: u32, part: Part, code: i32) -> Next {
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return Next::Nothing;
        };
        let Some(active) = slot
            .active
            .as_mut()
            .filter(|_| slot.generation == generation)
        else {
            return Next::Nothing;
        };
        match (part, active.stage, active.kind) {
            (Part::Main, Stage::Main, Kind::Write { durable }) => {
                self.write_completed(index, code, durable)
            }
            (Part::Main, Stage::Main, Kind::Read) => self.read_completed(index, code),
            (Part::Main, Stage::Main, Kind::Sync) => match retry(&mut active.attempts, code) {
                Retry::Again => Next::Submit(index),
                Retry::No => self.finish(index, errno_of(code), "sync"),
            },
            (Part::LinkedSync, Stage::LinkedSync, _) => self.linked_sync_completed(index, code),
            _ => Next::Nothing,
        }
    }

    fn write_completed(&mut self, index: u32, code: i32, durable: bool) -> Next {
        let linked = durable && self.durability == Durability::LinkedSync;
        let shared = durable && self.durability == Durability::SyncPerTurn;
        let active = self.active_mut(index);
        let failed = match active.advance(code) {
            Advance::Complete | Advance::Continue => None,
            Advance::Failed(errno) => Some(errno),
        };
        if linked {
            // Its sync comes home next, cancelled if the write was not whole; what follows is decided then.
            active.failed = failed;
            active.stage = Stage::LinkedSync;
            return Next::Nothing;
        }
        if failed.is_some() {
            return self.finish(index, failed, "write");
        }
        if active.done < active.size {
            return Next::Submit(index);
        }
        if shared {
            active.stage = Stage::Written;
            self.written += 1;
            return Next::Nothing;
        }
        self.finish(index, None, "write")
    }

    fn linked_sync_completed(&mut self, index: u32, code: i32) -> Next {
        let active = self.active_mut(index);
        if active.failed.is_some() {
            let failed = active.failed;
            return self.finish(index, failed, "write");
        }
        if active.done < active.size {
            active.stage = Stage::Main;
            return Next::Submit(index);
        }
        // A whole write whose sync was cancelled was not synced: a cancelled sync is tried again like an interrupted one.
        let code = if code == -libc::ECANCELED {
            -libc::EAGAIN
        } else {
            code
        };
        match retry(&mut active.attempts, code) {
            Retry::Again => Next::SubmitLinkedSync(index),
            Retry::No => self.finish(index, errno_of(code), "sync"),
        }
    }

    fn read_completed(&mut self, index: u32, code: i32) -> Next {
        let active = self.active_mut(index);
        if code < 0 && is_media_error(-code) {
            if !active.single_sectors {
                active.single_sectors = true;
                return Next::Submit(index);
            }
            active.zero(SECTOR_SIZE);
        } else if code == 0 {
            // The end of the file: what lies beyond was never written.
            let rest = active.size - active.done;
            active.zero(rest);
        } else {
            match active.advance(code) {
                Advance::Complete | Advance::Continue => {}
                Advance::Failed(errno) if code > 0 => {
                    // Only ever part of a sector: the file ends there.
                    assert_eq!(errno, libc::EIO);
                    active.zero(SECTOR_SIZE);
                }
                Advance::Failed(errno) => return self.finish(index, Some(errno), "read"),
            }
        }
        if self.active(index).done < self.active(index).size {
            Next::Submit(index)
        } else {
            self.finish(index, None, "read")
        }
    }

    /// Whether a shared sync is due; the caller submits it. It covers every write that has completed by now.
    pub(super) fn begin_shared_sync(&mut self) -> bool {
        if self.written == 0 || self.shared_sync.is_some() {
            return false;
        }
        for slot in &mut self.slots {
            if let Some(active) = &mut slot.active
                && active.stage == Stage::Written
            {
                active.stage = Stage::SharedSync;
                self.written -= 1;
            }
        }
        assert_eq!(self.written, 0);
        self.shared_sync = Some(SharedSync { attempts: 0 });
        true
    }

    /// The shared sync has completed. True: submit it once more.
    pub(super) fn complete_shared_sync(&mut self, code: i32) -> bool {
        let Some(sync) = &mut self.shared_sync else {
            return false;
        };
        if retry(&mut sync.attempts, code) == Retry::Again {
            return true;
        }
        self.shared_sync = None;
        for index in 0..self.slots.len() as u32 {
            let active = self.slots[index as usize].active.as_ref();
            if active.is_some_and(|active| active.stage == Stage::SharedSync) {
                self.finish(index, errno_of(code), "sync");
            }
        }
        false
    }

    /// Operations that the kernel still has.
    pub(super) fn in_kernel(&self) -> usize {
        let requests = self.in_flight() - self.written;
        let waiting = self.slots.iter().filter(|slot| {
            let active = slot.active.as_ref();
            active.is_some_and(|active| active.stage == Stage::SharedSync)
        });
        requests - waiting.count() + usize::from(self.shared_sync.is_some())
    }

    fn active_mut(&mut self, index: u32) -> &mut Active {
        let active = self.slots[index as usize].active.as_mut();
        active.expect("the slot is in use")
    }

    fn finish(&mut self, index: u32, errno: Option<i32>, action: &'static str) -> Next {
        let active = self.slots[index as usize].active.take();
        let active = active.expect("the slot is in use");
        self.free.push(index);
        let result = match errno {
            None => Ok(()),
            Some(errno) => Err(IoError {
                action,
                at: active.at,
                size: active.size,
                errno,
            }),
        };
        self.done.push_back(IoDone {
            id: active.id,
            buffer: active.buffer,
            result,
        });
        Next::Nothing
    }
}

enum Advance {
    Complete,
    Continue,
    Failed(i32),
}

impl Active {
    /// Counts what a transfer has done. An error number is given up on only after its tries.
    fn advance(&mut self, code: i32) -> Advance {
        if code < 0 && !is_transient(-code) {
            return Advance::Failed(-code);
        }
        let transferred = usize::try_from(code).unwrap_or(0);
        assert!(
            transferred <= self.size - self.done,
            "the kernel moved more bytes than asked for"
        );
        let sectors = transferred - transferred % SECTOR_SIZE;
        if sectors == 0 {
            self.attempts += 1;
            if self.attempts == ATTEMPTS_MAX {
                return Advance::Failed(if code < 0 { -code } else { libc::EIO });
            }
            return Advance::Continue;
        }
        self.attempts = 0;
        self.done += sectors;
        if self.done == self.size {
            Advance::Complete
        } else {
            Advance::Continue
        }
    }

    /// Zeroes the next `size` bytes instead of reading them.
    fn zero(&mut self, size: usize) {
        let range = self.done..self.done + size;
        assert!(range.end <= self.size);
        let buffer = self.buffer.as_mut().expect("reads have a buffer");
        buffer.bytes_mut()[range].fill(0);
        self.done += size;
        self.attempts = 0;
    }
}

#[derive(PartialEq, Eq)]
enum Retry {
    Again,
    No,
}

fn retry(attempts: &mut u32, code: i32) -> Retry {
    if code < 0 && is_transient(-code) {
        *attempts += 1;
        if *attempts < ATTEMPTS_MAX {
            return Retry::Again;
        }
    }
    Retry::No
}

fn errno_of(code: i32) -> Option<i32> {
    (code < 0).then_some(-code)
}

fn is_transient(errno: i32) -> bool {
    matches!(errno, libc::EINTR | libc::EAGAIN)
}

/// What block devices and file systems answer for sectors they cannot read.
fn is_media_error(errno: i32) -> bool {
    matches!(
        errno,
        libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EREMOTEIO | libc::ETIMEDOUT
    )
}

#[cfg(test)]
mod tests;
