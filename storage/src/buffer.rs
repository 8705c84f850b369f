//! Memory that disk and network use in place: sector-aligned, allocated at start, zeroed.
//!
//! * [`AlignedBuffer`]: owned by one holder at a time, moves with its I/O.
//! * [`MessagePool`]: a fixed number of message buffers. A [`Message`] is unique and writable; [`Message::freeze`]
//!   makes it a [`SharedMessage`], read-only, which is at once in its journal write, in several sends and in the
//!   pipeline. The buffer returns to its pool when the last holder drops it. Neither is `Send`.
//!
//! Invariant: bytes of a message are written only while exactly one handle to them exists.
//!
//! **What memory holds when it is handed out.** [`AlignedBuffer::new`] and `AlignedBuffer::reused`: zeros, always.
//! [`AlignedBuffer::scratch`], of which pools are made: zeros, unless this thread called [`keep_dropped`], which only
//! simulators do; then it may be what an earlier buffer held. So its holders rely on nothing that they have not written or
//! read into it themselves. A pool's buffers are used again and again in production too, and are under the same rule.
//! Builds with debug assertions see to it: what is kept to be scratch is overwritten with a pattern, so that a run whose
//! course depends on it differs from the same run in a release build, and what is kept as zeros is looked through.

use crate::SECTOR_SIZE;
use crate::checksum::is_zero;
use crate::header::{Command, HEADER_SIZE, Header, Typed};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

/// What is known to be zero of a buffer's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Zeros {
    /// Nothing.
    Nothing,
    /// What lies beyond its size, which its holder cannot reach.
    Beyond,
    /// All of it.
    All,
}

/// A sector-aligned run of bytes with one owner.
pub struct AlignedBuffer {
    bytes: NonNull<u8>,
    size: usize,
    /// Bytes allocated: more than `size` only on a thread that keeps what is dropped.
    capacity: usize,
    zeros: Zeros,
}

impl AlignedBuffer {
    /// Allocates `size` zeros, a positive multiple of the sector size.
    pub fn new(size: usize) -> Self {
        Self::with_capacity(size, size)
    }

    fn with_capacity(size: usize, capacity: usize) -> Self {
        assert!(size <= capacity);
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is positive, asserted in `layout`.
        let bytes = unsafe { alloc(layout) };
        let Some(bytes) = NonNull::new(bytes) else {
            handle_alloc_error(layout)
        };
        // Before it is touched for the first time: what has small pages by then keeps them.
        prefer_huge_pages(bytes, capacity);
        // SAFETY: so many bytes were allocated there, and nobody else knows of them.
        unsafe { bytes.as_ptr().write_bytes(0, capacity) };
        Self {
            bytes,
            size,
            capacity,
            zeros: Zeros::Beyond,
        }
    }

    /// As [`Self::new`], zeros included; but the memory may be that of an earlier buffer whose holder has zeroed it and
    /// called [`Self::left_zeroed`], if this thread keeps what is dropped ([`keep_dropped`]).
    pub(crate) fn reused(size: usize) -> Self {
        let buffer = Self::kept(size, true);
        assert!(buffer.zeros == Zeros::Beyond);
        if cfg!(debug_assertions) {
            assert!(is_zero(&buffer), "left zeroed, and is not");
        }
        buffer
    }

    /// As [`Self::new`], for a holder that writes before it reads: if this thread keeps what is dropped, the bytes may be
    /// those of an earlier buffer ([`keep_dropped`]). Otherwise they are zeros.
    pub fn scratch(size: usize) -> Self {
        Self::kept(size, false)
    }

    fn kept(size: usize, zeroed: bool) -> Self {
        KEPT.with_borrow_mut(|kept| {
            if kept.size_max == 0 || size < KEPT_SIZE_MIN {
                return Self::new(size);
            }
            // Sizes of a kind differ from one simulated cluster to the next: they are rounded up, so that they fit.
            let capacity = size.next_power_of_two();
            let fits = |buffer: &Self| {
                buffer.capacity == capacity && (buffer.zeros == Zeros::All) == zeroed
            };
            let Some(found) = kept.buffers.iter().position(fits) else {
                return Self::with_capacity(size, capacity);
            };
            kept.size -= capacity;
            let mut buffer = kept.buffers.swap_remove(found);
            buffer.size = size;
            buffer.zeros = if zeroed {
                Zeros::Beyond
            } else {
                Zeros::Nothing
            };
            buffer
        })
    }

    /// The holder has left nothing but zeros, and drops it now. Not for scratch memory: beyond its size may lie anything.
    pub(crate) fn left_zeroed(&mut self) {
        assert!(self.zeros == Zeros::Beyond);
        self.zeros = Zeros::All;
    }

    fn layout(size: usize) -> Layout {
        assert!(size > 0 && size.is_multiple_of(SECTOR_SIZE));
        Layout::from_size_align(size, SECTOR_SIZE).expect("a sector is a power of two")
    }
}

/// Asks the kernel to back a large buffer by huge pages: state is read all over, and with small pages the processor looks up
/// where they are more often than not. A kernel that has none refuses, and nothing is lost.
fn prefer_huge_pages(bytes: NonNull<u8>, size: usize) {
    #[cfg(feature = "uring")]
    if size >= HUGE_MIN {
        // SAFETY: the range was allocated just now and begins at a page, as every buffer does; the advice changes no content.
        unsafe { libc::madvise(bytes.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(feature = "uring"))]
    let _ = (bytes, size);
}

/// Smallest buffer that is worth huge pages, of 2 MiB each: its ends have small ones.
#[cfg(feature = "uring")]
const HUGE_MIN: usize = 16 << 20;

/// Buffers that were dropped, to be used again.
#[derive(Debug)]
struct Kept {
    /// Each as large as its memory.
    buffers: Vec<AlignedBuffer>,
    /// Of all of them, in bytes.
    size: usize,
    size_max: usize,
}

impl Kept {
    /// Frees the oldest, which are least like what is in use now, until no more than `size` bytes are kept.
    fn shrink(&mut self, size: usize) {
        while self.size > size {
            let oldest = self.buffers.remove(0);
            self.size -= oldest.capacity; // and drops it: while the list is borrowed nothing is kept
        }
    }
}

thread_local! {
    static KEPT: RefCell<Kept> = const {
        RefCell::new(Kept {
            buffers: Vec::new(),
            size: 0,
            size_max: 0,
        })
    };
}

/// From now on this thread keeps large buffers that are dropped, up to `size_max` bytes in all, for
/// [`AlignedBuffer::scratch`] and `AlignedBuffer::reused`: for simulators, in which a replica starts again every few
/// milliseconds and zeroing its memory would be a third of the work. Zero: keeps nothing, and frees what it kept, as is
/// the case unless this is called. Not for servers: keeping allocates.
pub fn keep_dropped(size_max: usize) {
    KEPT.with_borrow_mut(|kept| {
        kept.size_max = size_max;
        kept.shrink(size_max);
    });
}

/// Whether this thread keeps what is dropped.
pub(crate) fn keeps_dropped() -> bool {
    KEPT.try_with(|kept| kept.try_borrow().is_ok_and(|kept| kept.size_max > 0))
        .unwrap_or(false)
}

/// Smaller buffers are not kept, in bytes: the allocator has them at hand.
const KEPT_SIZE_MIN: usize = 32 << 10;

/// What kept scratch memory holds in builds with debug assertions.
const POISON: u8 = 0xdb;

/// Keeps the memory of a buffer that is being dropped, if this thread does so and has room.
fn keep(dropped: &AlignedBuffer) -> bool {
    let &AlignedBuffer {
        bytes,
        capacity,
        zeros,
        ..
    } = dropped;
    // While the thread ends there is nothing to keep it for.
    KEPT.try_with(|kept| {
        let Ok(mut kept) = kept.try_borrow_mut() else {
            return false;
        };
        let keeps = capacity >= KEPT_SIZE_MIN && capacity <= kept.size_max;
        if keeps {
            let rest = kept.size_max - capacity;
            kept.shrink(rest);
            let mut buffer = AlignedBuffer {
                bytes,
                size: capacity,
                capacity,
                zeros,
            };
            if cfg!(debug_assertions) && zeros != Zeros::All {
                buffer.fill(POISON);
            }
            kept.size += capacity;
            kept.buffers.push(buffer);
        }
        keeps
    })
    .unwrap_or(false)
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if keep(self) {
            return;
        }
        // SAFETY: allocated in `with_capacity` with the same layout, and freed once: memory that is kept has gone to another
        // buffer, and is freed when that one is dropped.
        unsafe { dealloc(self.bytes.as_ptr(), Self::layout(self.capacity)) }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `size` initialised bytes that live as long as self, and are written only through `&mut self`.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.size) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only way in.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.size) }
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "AlignedBuffer({} bytes)", self.size)
    }
}

struct PoolInner {
    /// One buffer after the other; read and written through pointers of the handles only.
    memory: AlignedBuffer,
    message_size: usize,
    /// Handles to each buffer; zero: free.
    counts: Box<[Cell<u32>]>,
    free: RefCell<Vec<u32>>,
}

impl PoolInner {
    fn start_of(&self, index: u32) -> *mut u8 {
        assert!((index as usize) < self.counts.len());
        // SAFETY: inside the pool's one allocation, by the assertion.
        unsafe {
            let start = self.memory.bytes.as_ptr();
            start.add(index as usize * self.message_size)
        }
    }

    fn release(&self, index: u32) {
        let count = &self.counts[index as usize];
        assert!(count.get() > 0);
        count.set(count.get() - 1);
        if count.get() == 0 {
            self.free.borrow_mut().push(index);
        }
    }
}

/// A fixed number of message buffers of one size. Cloning gives another handle to the same pool.
#[derive(Clone)]
pub struct MessagePool {
    inner: Rc<PoolInner>,
}

impl MessagePool {
    /// Allocates `count` buffers of `message_size` bytes each, a multiple of the sector size.
    pub fn new(count: usize, message_size: usize) -> Self {
        let size = count
            .checked_mul(message_size)
            .expect("a pool fits the address space");
        assert!(message_size.is_multiple_of(SECTOR_SIZE));
        let memory = AlignedBuffer::scratch(size);
        let free = (0..count as u32).rev().collect();
        let counts = (0..count).map(|_| Cell::new(0)).collect();
        Self {
            inner: Rc::new(PoolInner {
                memory,
                message_size,
                counts,
                free: RefCell::new(free),
            }),
        }
    }

    /// Takes a buffer; none if all are in use. Its bytes are whatever its last use left.
    pub fn take(&self) -> Option<Message> {
        let index = self.inner.free.borrow_mut().pop()?;
        let count = &self.inner.counts[index as usize];
        assert_eq!(count.get(), 0);
        count.set(1);
        Some(Message {
            pool: Rc::clone(&self.inner),
            index,
        })
    }

    /// Buffers not in use.
    pub fn free(&self) -> usize {
        self.inner.free.borrow().len()
    }

    /// Buffers in all.
    pub fn count(&self) -> usize {
        self.inner.counts.len()
    }

    /// Size of each buffer, in bytes.
    pub fn message_size(&self) -> usize {
        self.inner.message_size
    }

    /// The pool's memory, for registration with the kernel: start and size.
    pub fn memory(&self) -> (*mut u8, usize) {
        (
            self.inner.memory.bytes.as_ptr(),
            self.inner.counts.len() * self.inner.message_size,
        )
    }
}

impl std::fmt::Debug for MessagePool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "MessagePool({} of {} free)",
            self.free(),
            self.count()
        )
    }
}

/// A message with one owner, who may write it.
pub struct Message {
    pool: Rc<PoolInner>,
    index: u32,
}

impl Message {
    /// The whole buffer, beyond the message's size too.
    pub fn buffer(&self) -> &[u8] {
        // SAFETY: an initialised run inside the pool's allocation; this is its only handle, and it is borrowed.
        unsafe {
            std::slice::from_raw_parts(self.pool.start_of(self.index), self.pool.message_size)
        }
    }

    /// The whole buffer, writable.
    pub fn buffer_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `buffer`, and borrowed exclusively.
        unsafe {
            std::slice::from_raw_parts_mut(self.pool.start_of(self.index), self.pool.message_size)
        }
    }

    /// The header; meaningful once one was written.
    pub fn header(&self) -> &Header {
        Header::of(self.buffer())
    }

    /// The header, writable.
    pub fn header_mut(&mut self) -> &mut Header {
        Header::of_mut(self.buffer_mut())
    }

    /// Writes `header` and makes the message as large as it says.
    pub fn set_header<T: Typed>(&mut self, header: &T) {
        self.buffer_mut()[..HEADER_SIZE].copy_from_slice(header.as_bytes());
        assert!(self.header().frame.size as usize <= self.pool.message_size);
    }

    /// Header and body.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer()[..self.header().frame.size as usize]
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.bytes()[HEADER_SIZE..]
    }

    /// The body, writable.
    pub fn body_mut(&mut self) -> &mut [u8] {
        let size = self.header().frame.size as usize;
        &mut self.buffer_mut()[HEADER_SIZE..size]
    }

    /// Does [`Self::zero_tail`], sets both sums, and ends writing.
    pub fn seal(mut self) -> SharedMessage {
        let size = self.header().frame.size as usize;
        self.zero_tail();
        let (header, rest) = self.buffer_mut().split_at_mut(HEADER_SIZE);
        Header::of_mut(header).seal(&rest[..size - HEADER_SIZE]);
        self.freeze()
    }

    /// Zeroes the bytes between a prepare's end and its last sector's: what goes to disk is only what was said, and the
    /// journal insists on it. No other message goes there, and of each message only header and body are sent; nearly a
    /// sector for each acknowledgement would be for nothing.
    pub fn zero_tail(&mut self) {
        if self.header().command() != Some(Command::Prepare) {
            return;
        }
        let size = self.header().frame.size as usize;
        self.buffer_mut()[size..crate::sector_ceil(size)].fill(0);
    }

    /// Ends writing: from now the message may be shared.
    pub fn freeze(self) -> SharedMessage {
        SharedMessage { message: self }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.pool.release(self.index);
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Message({}, {:?}, {} bytes)",
            self.index,
            self.header().command(),
            self.header().frame.size
        )
    }
}

/// A read-only message. A clone is another handle to the same bytes.
#[derive(Debug)]
pub struct SharedMessage {
    message: Message,
}

impl SharedMessage {
    /// The whole buffer.
    pub fn buffer(&self) -> &[u8] {
        self.message.buffer()
    }

    /// The header.
    pub fn header(&self) -> &Header {
        self.message.header()
    }

    /// Header and body.
    pub fn bytes(&self) -> &[u8] {
        self.message.bytes()
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.message.body()
    }

    /// The header and body in whole sectors.
    pub fn size_sectors(&self) -> usize {
        crate::sector_ceil(self.header().frame.size as usize)
    }

    /// Writable again, if this is the only handle.
    ///
    /// # Errors
    /// The message itself, if it is shared.
    pub fn try_unique(self) -> Result<Message, Self> {
        if self.message.pool.counts[self.message.index as usize].get() == 1 {
            Ok(self.message)
        } else {
            Err(self)
        }
    }
}

impl Clone for SharedMessage {
    fn clone(&self) -> Self {
        let count = &self.message.pool.counts[self.message.index as usize];
        count.set(count.get() + 1);
        Self {
            message: Message {
                pool: Rc::clone(&self.message.pool),
                index: self.message.index,
            },
        }
    }
}

static_assertions::assert_not_impl_any!(Message: Send, Sync, Clone);
static_assertions::assert_not_impl_any!(SharedMessage: Send, Sync, DerefMut);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{Commit, Prepare};

    #[test]
    fn a_buffer_returns_when_its_last_handle_drops() {
        let pool = MessagePool::new(2, SECTOR_SIZE);
        let mut message = pool.take().expect("two are free");
        message.set_header(&Commit::new(1, 2, 3));
        let shared = message.seal();
        assert!(shared.header().checksum_holds());
        let clone = shared.clone();
        let other = pool.take().expect("one is free");
        assert!(pool.take().is_none());
        let shared = shared.try_unique().expect_err("two handles");
        drop(shared);
        assert_eq!(pool.free(), 0);
        let message = clone.try_unique().expect("one handle");
        drop((message, other));
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn a_message_outlives_its_pool_handle() {
        let pool = MessagePool::new(1, SECTOR_SIZE);
        let mut message = pool.take().expect("one is free");
        drop(pool);
        message.buffer_mut()[SECTOR_SIZE - 1] = 7;
        assert_eq!(message.buffer()[SECTOR_SIZE - 1], 7);
    }

    #[test]
    fn seal_zeroes_what_an_earlier_message_left_behind_a_prepare() {
        let pool = MessagePool::new(1, 2 * SECTOR_SIZE);
        let mut message = pool.take().expect("one is free");
        message.buffer_mut().fill(0xee);
        message.set_header(&Prepare::new(1, 2, 3));
        let message = message.seal();
        let (sector, beyond) = message.buffer().split_at(SECTOR_SIZE);
        assert!(sector[HEADER_SIZE..].iter().all(|&byte| byte == 0));
        assert!(beyond.iter().all(|&byte| byte == 0xee), "for nothing");
    }

    #[test]
    fn what_is_sent_ends_where_the_message_does() {
        let pool = MessagePool::new(1, SECTOR_SIZE);
        let mut message = pool.take().expect("one is free");
        message.buffer_mut().fill(0xee);
        message.set_header(&Prepare::new(1, 2, 3));
        let message = message.seal();
        assert_eq!(message.bytes().len(), HEADER_SIZE);
        assert!(message.header().checksum_holds() && message.body().is_empty());
    }

    const SIZE: usize = 2 * KEPT_SIZE_MIN;

    /// Drops a buffer full of other things than zeros; where it was.
    fn drop_full(size: usize) -> *const u8 {
        let mut buffer = AlignedBuffer::scratch(size);
        buffer.fill(7);
        buffer.as_ptr()
    }

    fn kept() -> (usize, usize) {
        KEPT.with_borrow(|kept| (kept.buffers.len(), kept.size))
    }

    #[test]
    fn nothing_is_kept_unless_asked_for() {
        drop_full(SIZE);
        assert_eq!(kept(), (0, 0));
        assert!(!keeps_dropped() && is_zero(&AlignedBuffer::scratch(SIZE)));
        keep_dropped(2 * SIZE);
        assert!(keeps_dropped());
        drop_full(SIZE);
        drop(AlignedBuffer::new(KEPT_SIZE_MIN / 2));
        drop(AlignedBuffer::new(4 * SIZE));
        assert_eq!(kept(), (1, SIZE));
        keep_dropped(0);
        assert_eq!(kept(), (0, 0));
        assert!(!keeps_dropped() && is_zero(&AlignedBuffer::scratch(SIZE)));
    }

    #[test]
    fn zeros_are_promised_only_by_memory_that_was_left_zeroed() {
        keep_dropped(8 * SIZE);
        let full = drop_full(SIZE);
        let held = [AlignedBuffer::new(SIZE), AlignedBuffer::reused(SIZE)];
        for buffer in &held {
            assert!(is_zero(buffer) && buffer.as_ptr() != full);
        }
        let scratch = AlignedBuffer::scratch(SIZE - SECTOR_SIZE);
        assert_eq!(
            (scratch.as_ptr(), scratch.len()),
            (full, SIZE - SECTOR_SIZE)
        );
        assert!(scratch.iter().all(|&byte| byte != 0));
        let expected = if cfg!(debug_assertions) { POISON } else { 7 };
        assert!(scratch.iter().all(|&byte| byte == expected));
        drop(scratch);

        // The part beyond the size, of which its holder knows nothing, is zero as well.
        let mut zeros = AlignedBuffer::reused(SIZE - SECTOR_SIZE);
        let at = zeros.as_ptr();
        assert_ne!(at, full);
        zeros.left_zeroed();
        drop(zeros);
        let zeros = AlignedBuffer::reused(SIZE);
        assert!(zeros.as_ptr() == at && is_zero(&zeros));
    }

    #[test]
    #[should_panic(expected = "Zeros::Beyond")]
    fn scratch_memory_cannot_be_left_zeroed() {
        keep_dropped(8 * SIZE);
        drop_full(SIZE);
        let mut scratch = AlignedBuffer::scratch(SIZE - SECTOR_SIZE);
        scratch.fill(0);
        scratch.left_zeroed();
    }

    #[test]
    fn the_oldest_are_freed_for_the_newest() {
        keep_dropped(3 * SIZE);
        let buffers: Vec<_> = (0..4).map(|_| AlignedBuffer::new(SIZE)).collect();
        drop(buffers);
        assert_eq!(kept(), (3, 3 * SIZE));
        drop(AlignedBuffer::new(2 * SIZE));
        assert_eq!(kept(), (2, 3 * SIZE));
        keep_dropped(2 * SIZE);
        assert_eq!(kept(), (1, 2 * SIZE));
    }

    #[test]
    fn aligned_buffers_are_aligned_and_zero() {
        let mut buffer = AlignedBuffer::new(2 * SECTOR_SIZE);
        assert!(
            (buffer.as_ptr() as usize).is_multiple_of(SECTOR_SIZE)
                && buffer.iter().all(|&byte| byte == 0)
        );
        buffer[SECTOR_SIZE] = 1;
    }
}
