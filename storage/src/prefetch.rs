//! Telling the processor what will be read soon.

/// Begins to bring the line of memory that a byte lies in into the caches; nobody waits for it. Where the processor has no such
/// instruction that we know of, it does nothing.
#[inline(always)]
pub(crate) fn prefetch(byte: &u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY:
        // - every processor of this architecture has the instruction;
        // - it reads nothing into the program and never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = byte;
}
