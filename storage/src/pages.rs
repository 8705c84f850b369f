//! The arena of pages that holds all replicated state, and what a checkpoint needs to know of it.
//!
//! * **Deterministic to the byte**: the allocator's bitmap lives in pages, the lowest-numbered free page is taken, an
//!   allocated page is zeroed. Replicas that execute the same ops hold the same pages.
//! * **A checkpoint freezes** the set of changed pages in O(1) ([`Pages::freeze`]); the writer then copies them one by
//!   one while commits go on. A commit that must change a frozen page which is not yet copied first moves it to a spare.
//!   A commit starts only if [`Pages::spares_free`] covers what its plan may touch, so there is always one.
//! * Everything else here (the free-page summary, the dirty sets, the spares) is derived or local, and influences no
//!   execution.
//!
//! Page 0 is the root page; pages 1..=b are the allocator's bitmap (bit set: in use). Both are always allocated.

mod finger;

use crate::bits::Bits;
use crate::buffer::{AlignedBuffer, keeps_dropped};
use crate::layout::PAGE_SIZE;
use finger::Finger;
pub(crate) use finger::{LEVELS_MAX, Path};

/// Pages whose use one page of the allocator's bitmap records.
const PAGES_PER_BITMAP_PAGE: usize = PAGE_SIZE * 8;

/// Number of a page. Plain and fixed-size, so that pages may hold it.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(transparent)]
pub struct PageId(pub u32);

impl PageId {
    /// The root page. No collection ever owns it, so its number also serves as "no page" inside pages.
    pub const ROOT: Self = Self(0);

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// Marks a page that has no spare.
const NO_SPARE: u32 = u32::MAX;

/// The arena. See the module's description.
#[derive(Debug)]
pub struct Pages {
    /// The pages, then the spares. Zero wherever nothing was written: the next arena may get this memory ([`Drop`]).
    memory: AlignedBuffer,
    /// The end of those pages, and the end of those spares, that were ever written; in pages from the memory's start. All
    /// that writes to the memory is [`Self::slot_mut`], for pages, and [`Self::change`], for spares.
    written_end: usize,
    spares_end: usize,
    page_count: usize,
    /// Pages in use, as the bitmap pages say: kept beside them so that the lowest free page is found quickly.
    used: Bits,
    /// Lowest index that may be free.
    free_hint: usize,
    /// Changed since the last freeze.
    dirty: Bits,
    /// Freed since the last freeze and not allocated again; a subset of `dirty`.
    freed: Bits,
    /// `dirty` as it was at the last freeze, less what the writer has copied.
    frozen: Bits,
    /// `freed` as it was at the last freeze.
    frozen_freed: Bits,
    /// Where the frozen content of a page is, if it was changed after the freeze.
    spare_of: Box<[u32]>,
    spares_free: Vec<u32>,
    /// Spares that hold a frozen page.
    spares_used: Bits,
    /// The page that a used spare holds.
    page_in_spare: Box<[u32]>,
    /// Changes to the pages so far.
    changes: u64,
    /// The last look-up of a map in these pages.
    finger: Finger,
}

impl Pages {
    /// An arena of `page_count` pages and `spare_count` spares in which nothing but the root page and the allocator's
    /// own pages is in use.
    pub fn new(page_count: u32, spare_count: u32) -> Self {
        let page_count = page_count as usize;
        let bitmap_pages = page_count.div_ceil(PAGES_PER_BITMAP_PAGE);
        assert!(page_count > 1 + bitmap_pages && spare_count > 0);
        let mut pages = Self {
            memory: AlignedBuffer::reused((page_count + spare_count as usize) * PAGE_SIZE),
            written_end: 0,
            spares_end: page_count,
            page_count,
            used: Bits::new(page_count),
            free_hint: 0,
            dirty: Bits::new(page_count),
            freed: Bits::new(page_count),
            frozen: Bits::new(page_count),
            frozen_freed: Bits::new(page_count),
            spare_of: vec![NO_SPARE; page_count].into_boxed_slice(),
            spares_free: (0..spare_count).rev().collect(),
            spares_used: Bits::new(spare_count as usize),
            page_in_spare: vec![0; spare_count as usize].into_boxed_slice(),
            changes: 0,
            finger: Finger::new(),
        };
        for index in 0..=bitmap_pages {
            pages.mark_used(index);
            // In use, hence part of the first checkpoint, even where all is zero.
            pages.dirty.insert(index);
        }
        pages
    }

    /// Pages in all.
    pub fn count(&self) -> u32 {
        self.page_count as u32
    }

    /// Pages not in use.
    pub fn free_count(&self) -> u32 {
        (self.page_count - self.used.count()) as u32
    }

    /// Whether a page is in use.
    pub fn is_used(&self, page: PageId) -> bool {
        self.used.contains(page.index())
    }

    /// Spares that commits may still take while a checkpoint is being written; all of them when none is.
    pub fn spares_free(&self) -> u32 {
        self.spares_free.len() as u32
    }

    /// A page's content.
    pub fn read(&self, page: PageId) -> &[u8; PAGE_SIZE] {
        assert!(self.is_used(page), "page {} is not in use", page.0);
        self.slot(page.index())
    }

    /// The last way down a tree with this root that led to a key, if no page was changed since.
    pub(crate) fn last_way(&self, root: PageId) -> Option<Path> {
        self.finger.way(self.changes, root)
    }

    /// Remembers a way that led to a key.
    pub(crate) fn remember_way(&self, path: Path) {
        self.finger.point(self.changes, path);
    }

    /// The first `size` bytes of a run of consecutive pages, all in use.
    pub fn read_run(&self, first: PageId, size: usize) -> &[u8] {
        let last = first.index() + size.div_ceil(PAGE_SIZE);
        assert!((first.index()..last).all(|index| self.used.contains(index)));
        &self.memory[first.index() * PAGE_SIZE..][..size]
    }

    /// A page's content, to change; it is written at the next checkpoint.
    pub fn write(&mut self, page: PageId) -> &mut [u8; PAGE_SIZE] {
        assert!(self.is_used(page), "page {} is not in use", page.0);
        self.change(page.index());
        self.slot_mut(page.index())
    }

    /// Takes the lowest free page, zeroed. The caller's plan has made sure there is one.
    pub fn allocate(&mut self) -> PageId {
        let index = self
            .used
            .next_clear(self.free_hint)
            .expect("a plan reserves its pages before it executes");
        self.free_hint = index + 1;
        self.change(index);
        self.freed.remove(index);
        self.mark_used(index);
        self.slot_mut(index).fill(0);
        PageId(index as u32)
    }

    /// Gives a page back.
    pub fn free(&mut self, page: PageId) {
        let index = page.index();
        assert!(self.is_used(page) && index > self.page_count.div_ceil(PAGES_PER_BITMAP_PAGE));
        self.used.remove(index);
        self.free_hint = self.free_hint.min(index);
        self.dirty.insert(index);
        self.freed.insert(index);
        self.flip_bitmap(index);
    }

    fn mark_used(&mut self, index: usize) {
        assert!(self.used.insert(index));
        self.flip_bitmap(index);
    }

    /// Flips the bit of page `index` in the allocator's pages.
    fn flip_bitmap(&mut self, index: usize) {
        let bitmap_page = 1 + index / PAGES_PER_BITMAP_PAGE;
        self.change(bitmap_page);
        let bit = index % PAGES_PER_BITMAP_PAGE;
        self.slot_mut(bitmap_page)[bit / 8] ^= 1 << (bit % 8);
    }

    /// Prepares a page for a change: it becomes dirty, and its frozen content is saved if the writer still needs it.
    fn change(&mut self, index: usize) {
        self.dirty.insert(index);
        if self.frozen.contains(index)
            && !self.frozen_freed.contains(index)
            && self.spare_of[index] == NO_SPARE
        {
            let spare = self
                .spares_free
                .pop()
                .expect("a commit starts only if the spares cover its plan");
            self.spare_of[index] = spare;
            self.page_in_spare[spare as usize] = index as u32;
            assert!(self.spares_used.insert(spare as usize));
            let from = index * PAGE_SIZE;
            let to = (self.page_count + spare as usize) * PAGE_SIZE;
            self.memory.copy_within(from..from + PAGE_SIZE, to);
            let end = self.page_count + spare as usize + 1;
            self.spares_end = self.spares_end.max(end);
        }
    }

    fn slot(&self, slot: usize) -> &[u8; PAGE_SIZE] {
        self.memory[slot * PAGE_SIZE..][..PAGE_SIZE]
            .try_into()
            .expect("a slot is one page")
    }

    fn slot_mut(&mut self, slot: usize) -> &mut [u8; PAGE_SIZE] {
        assert!(slot < self.page_count, "spares are written by `change`");
        self.changes += 1;
        self.written_end = self.written_end.max(slot + 1);
        (&mut self.memory[slot * PAGE_SIZE..][..PAGE_SIZE])
            .try_into()
            .expect("a slot is one page")
    }
}

impl Drop for Pages {
    /// Leaves zeros to the next arena of this thread, if it keeps memory: only what was written is zeroed.
    fn drop(&mut self) {
        if keeps_dropped() {
            self.memory[..self.written_end * PAGE_SIZE].fill(0);
            let spares = self.page_count * PAGE_SIZE..self.spares_end * PAGE_SIZE;
            self.memory[spares].fill(0);
            self.memory.left_zeroed();
        }
    }
}

/// What the checkpoint writer does.
impl Pages {
    /// Freezes the pages changed since the last freeze. The last frozen set must have been copied.
    pub fn freeze(&mut self) {
        assert!(self.frozen.is_empty(), "one checkpoint at a time");
        std::mem::swap(&mut self.dirty, &mut self.frozen);
        std::mem::swap(&mut self.freed, &mut self.frozen_freed);
    }

    /// Frozen pages that were not copied yet.
    pub fn frozen_count(&self) -> u32 {
        self.frozen.count() as u32
    }

    /// The lowest frozen page at or after `from`.
    pub fn frozen_next(&self, from: PageId) -> Option<PageId> {
        self.frozen
            .next_set(from.index())
            .map(|index| PageId(index as u32))
    }

    /// A frozen page that lies in a spare, if any: copying those first gives commits room.
    pub fn frozen_in_spare(&self) -> Option<PageId> {
        let spare = self.spares_used.next_set(0)?;
        Some(PageId(self.page_in_spare[spare]))
    }

    /// A frozen page as it was at the freeze; none if it was free then.
    pub fn frozen_read(&self, page: PageId) -> Option<&[u8; PAGE_SIZE]> {
        let index = page.index();
        assert!(self.frozen.contains(index));
        if self.frozen_freed.contains(index) {
            return None;
        }
        match self.spare_of[index] {
            NO_SPARE => Some(self.slot(index)),
            spare => Some(self.slot(self.page_count + spare as usize)),
        }
    }

    /// The writer has copied a frozen page: commits may change it freely again.
    pub fn frozen_done(&mut self, page: PageId) {
        let index = page.index();
        assert!(self.frozen.remove(index));
        self.frozen_freed.remove(index);
        let spare = self.spare_of[index];
        if spare != NO_SPARE {
            assert!(self.spares_used.remove(spare as usize));
            self.spares_free.push(spare);
            self.spare_of[index] = NO_SPARE;
        }
    }
}

/// What fetching a checkpoint from others, and writing it anew, does.
impl Pages {
    /// Forgets what was changed, frozen and moved aside: the pages are about to be replaced by those of a checkpoint.
    /// Contents stay, for those that are the same. Nothing may be executed before [`Self::restored`].
    pub fn discard(&mut self) {
        self.dirty.clear();
        self.freed.clear();
        self.frozen.clear();
        self.frozen_freed.clear();
        while let Some(spare) = self.spares_used.next_set(0) {
            self.spare_of[self.page_in_spare[spare] as usize] = NO_SPARE;
            self.spares_used.remove(spare);
            self.spares_free.push(spare as u32);
        }
        assert!(self.spares_free.len() == self.spares_used.capacity());
    }

    /// What a page's place holds, in use or not.
    pub fn content(&self, page: PageId) -> &[u8; PAGE_SIZE] {
        self.slot(page.index())
    }

    /// Freezes one page more, changed or not, so that it is written: in its place of the disk it is not what it is here.
    pub fn freeze_page(&mut self, page: PageId, is_free: bool) {
        let index = page.index();
        assert!(self.frozen.insert(index));
        if is_free {
            self.frozen_freed.insert(index);
        }
    }

    /// Whether a page is what the newest checkpoint, durable or being written, has of it, and is not needed for writing.
    pub fn is_clean(&self, page: PageId) -> bool {
        let index = page.index();
        !self.dirty.contains(index) && !self.frozen.contains(index)
    }
}

/// What opening a checkpoint does.
impl Pages {
    /// Puts the content of a page, as read from disk.
    pub fn restore(&mut self, page: PageId, content: &[u8]) {
        self.slot_mut(page.index()).copy_from_slice(content);
    }

    /// After all pages in use were restored (into a new arena): reads the allocator's bitmap. Afterwards no page is
    /// dirty. False if the bitmap denies that the root page and its own pages are in use, or uses pages beyond the end.
    #[must_use]
    pub fn restored(&mut self) -> bool {
        assert!(self.frozen.is_empty());
        self.used.clear();
        let bitmap_pages = self.page_count.div_ceil(PAGES_PER_BITMAP_PAGE);
        for index in 0..bitmap_pages * PAGES_PER_BITMAP_PAGE {
            let byte =
                self.slot(1 + index / PAGES_PER_BITMAP_PAGE)[index % PAGES_PER_BITMAP_PAGE / 8];
            if byte >> (index % 8) & 1 == 1 {
                if index >= self.page_count {
                    return false;
                }
                self.used.insert(index);
            }
        }
        self.dirty.clear();
        self.freed.clear();
        self.free_hint = 0;
        (0..=bitmap_pages).all(|index| self.used.contains(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::keep_dropped;

    fn pages() -> Pages {
        Pages::new(64, 8)
    }

    #[test]
    fn the_lowest_free_page_is_taken_and_zeroed() {
        let mut pages = pages();
        let (a, b, c) = (pages.allocate(), pages.allocate(), pages.allocate());
        assert_eq!((a, b, c), (PageId(2), PageId(3), PageId(4)));
        pages.write(b).fill(9);
        pages.free(c);
        pages.free(b);
        assert_eq!(pages.allocate(), b);
        assert!(pages.read(b).iter().all(|&byte| byte == 0));
        assert_eq!(pages.allocate(), c);
        assert_eq!(pages.free_count(), 59);
    }

    /// Where kept memory is used again, an arena is what it is in memory that is new.
    #[test]
    fn an_arena_begins_with_zeros_whatever_an_earlier_one_left() {
        keep_dropped(16 << 20);
        let mut used = pages();
        let at = used.memory.as_ptr();
        let all: Vec<_> = (0..40).map(|_| used.allocate()).collect();
        for &page in &all {
            used.write(page).fill(0xee);
        }
        used.freeze();
        for &page in &all[..6] {
            used.write(page).fill(0xdd); // moves what is frozen into spares
        }
        used.free(all[39]);
        used.restore(PageId(60), &[0xcc; PAGE_SIZE]);
        assert_eq!(used.spares_free(), 1); // the bitmap has the seventh
        drop(used);

        let mut again = Pages::new(64, 7);
        assert_eq!(again.memory.as_ptr(), at);
        let mut fresh = Pages::new(64, 7);
        assert_ne!(fresh.memory.as_ptr(), at);
        assert!(again.memory[..] == fresh.memory[..]);
        assert_eq!(again.allocate(), fresh.allocate());
        assert!(again.memory[..] == fresh.memory[..]);
        drop(again);
        // A larger one gets the end of the memory too, which the last one did not see.
        let whole = pages();
        assert_eq!(whole.memory.as_ptr(), at);
        assert!(crate::checksum::is_zero(&whole.memory[2 * PAGE_SIZE..]));
        keep_dropped(0);
    }

    #[test]
    fn a_frozen_page_keeps_its_content_until_copied() {
        let mut pages = pages();
        let page = pages.allocate();
        let freed = pages.allocate();
        pages.free(freed);
        pages.write(page).fill(1);
        pages.freeze();
        pages.write(page).fill(2);
        assert_eq!(pages.allocate(), freed);
        assert_eq!(pages.spares_free(), 6); // the page and the bitmap; the freed page had no content to save
        assert!([page, PageId(1)].contains(&pages.frozen_in_spare().expect("two are")));
        assert_eq!(pages.frozen_read(page).expect("in use")[0], 1);
        assert!(pages.frozen_read(freed).is_none());
        assert_eq!(pages.read(page)[0], 2);
        let mut from = PageId(0);
        while let Some(next) = pages.frozen_next(from) {
            pages.frozen_done(next);
            from = next;
        }
        assert_eq!((pages.spares_free(), pages.frozen_count()), (8, 0));
        assert_eq!(pages.frozen_in_spare(), None);
        pages.freeze();
        assert_eq!(pages.frozen_count(), 3); // page, freed-and-taken page, bitmap
    }

    #[test]
    fn every_page_in_use_is_part_of_the_first_checkpoint() {
        // 65,536 pages need two bitmap pages, and the second is all zero.
        let mut pages = Pages::new(1 << 16, 8);
        pages.freeze();
        assert_eq!(pages.frozen_count(), pages.count() - pages.free_count());
        assert_eq!(pages.frozen_next(PageId(2)), Some(PageId(2)));
    }

    #[test]
    fn restored_pages_give_the_same_allocator() {
        let mut pages = pages();
        let all: Vec<_> = (0..10).map(|_| pages.allocate()).collect();
        pages.free(all[3]);
        pages.free(all[7]);
        let mut copy = Pages::new(64, 8);
        for index in 0..64 {
            if pages.is_used(PageId(index)) {
                copy.restore(PageId(index), pages.read(PageId(index)));
            }
        }
        assert!(copy.restored());
        copy.freeze();
        assert_eq!(
            (copy.frozen_count(), copy.free_count()),
            (0, pages.free_count())
        );
        assert_eq!(copy.allocate(), all[3]);
        assert_eq!(copy.allocate(), all[7]);
    }
}
