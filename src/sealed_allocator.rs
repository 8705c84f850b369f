//! A global allocator that a thread can be sealed against: from then on an allocation by that thread is a bug, and
//! aborts with a message, in release as in tests.
//!
//! Install it in a binary with `#[global_allocator]`. Where it is not installed the seal has no effect: a library does
//! not choose its user's allocator. The seal lifts while the thread panics, so that the reason is told. Freeing stays
//! allowed: it cannot fail and moves no memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::marker::PhantomData;

thread_local! {
    // Constant, without a destructor: reading it allocates nothing and works at any time of a thread's life.
    static SEALED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, behind the seal.
#[derive(Clone, Copy, Debug, Default)]
pub struct SealedAllocator;

impl SealedAllocator {
    /// Seals the calling thread until the returned value is dropped.
    pub fn seal() -> Seal {
        Seal {
            before: SEALED.replace(true),
            thread: PhantomData,
        }
    }

    /// Whether the calling thread is sealed.
    pub fn is_sealed() -> bool {
        SEALED.get()
    }
}

/// A sealed thread. Not `Send`: it belongs to its thread.
#[derive(Debug)]
#[must_use = "dropping it lifts the seal"]
pub struct Seal {
    before: bool,
    thread: PhantomData<*const ()>,
}

impl Drop for Seal {
    fn drop(&mut self) {
        SEALED.set(self.before);
    }
}

fn check(size: usize) {
    if SEALED.get() && !std::thread::panicking() {
        SEALED.set(false); // what follows may allocate
        // Standard error is unbuffered; the message is made on the stack.
        let _ = writeln!(
            std::io::stderr(),
            "allocation of {size} bytes on a sealed thread: all memory is allocated at start, so this is a bug. Aborting"
        );
        eprintln!("{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }
}

// SAFETY: every method forwards to the system's allocator with the same arguments, or does not return.
unsafe impl GlobalAlloc for SealedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_nests_and_belongs_to_its_thread() {
        assert!(!SealedAllocator::is_sealed());
        let outer = SealedAllocator::seal();
        let inner = SealedAllocator::seal();
        drop(inner);
        assert!(SealedAllocator::is_sealed());
        drop(outer);
        assert!(!SealedAllocator::is_sealed());
    }
}
