//! Values: those too long for a leaf lie in a chain of pages.
//!
//! ```text
//! offset  size  content
//!      0     1  kind: 3
//!      1     3  zero
//!      4     4  next page; zero in the last
//!      8  4088  bytes of the value; after its end zero
//! ```

use super::leaf::{CellRef, Page, is_inline};
use crate::layout::PAGE_SIZE;
use crate::pages::{PageId, Pages};

pub(super) const KIND_VALUE: u8 = 3;
const DATA_AT: usize = 8;

/// Bytes of a value in one page of its chain.
pub(super) const DATA_SIZE: usize = PAGE_SIZE - DATA_AT;

pub(super) fn next(page: &Page) -> PageId {
    assert_eq!(page[0], KIND_VALUE);
    PageId(u32::from_le_bytes(
        page[4..8].try_into().expect("four bytes of a slice"),
    ))
}

/// Writes a value into a chain and returns its first page. The pages of the chain `old` are used first, in their order;
/// what is left of them is freed.
pub(super) fn write(
    pages: &mut Pages,
    old: Option<PageId>,
    parts: &[&[u8]],
    size: usize,
) -> PageId {
    assert!(size > 0);
    let mut reader = Parts { parts, offset: 0 };
    let mut left = size;
    let first = old.unwrap_or_else(|| pages.allocate());
    let mut fresh = old.is_none();
    let mut id = first;
    loop {
        let old_next = if fresh {
            PageId::ROOT
        } else {
            next(pages.read(id))
        };
        let chunk = left.min(DATA_SIZE);
        left -= chunk;
        fresh = old_next == PageId::ROOT;
        let next = match (left, fresh) {
            (0, _) => PageId::ROOT,
            (_, true) => pages.allocate(),
            (_, false) => old_next,
        };
        let page = pages.write(id);
        page[0] = KIND_VALUE;
        page[4..8].copy_from_slice(&next.0.to_le_bytes());
        reader.fill(&mut page[DATA_AT..DATA_AT + chunk]);
        page[DATA_AT + chunk..].fill(0);
        if left == 0 {
            free(pages, old_next);
            return first;
        }
        id = next;
    }
}

/// A chain of one page, which holds `bytes`.
pub(super) fn begin(pages: &mut Pages, bytes: &[u8]) -> PageId {
    let first = pages.allocate();
    let page = pages.write(first);
    page[0] = KIND_VALUE;
    page[DATA_AT..DATA_AT + bytes.len()].copy_from_slice(bytes);
    first
}

/// Adds zeros, and then bytes, to a chain that holds `size` bytes.
pub(super) fn extend(
    pages: &mut Pages,
    first: PageId,
    size: usize,
    mut zeros: usize,
    bytes: &[u8],
) {
    let mut last = first;
    for _ in 1..size.div_ceil(DATA_SIZE) {
        last = next(pages.read(last));
    }
    let mut used = size - (size.div_ceil(DATA_SIZE).max(1) - 1) * DATA_SIZE;
    let mut rest = bytes;
    while zeros > 0 || !rest.is_empty() {
        if used == DATA_SIZE {
            let page = begin(pages, &[]);
            pages.write(last)[4..8].copy_from_slice(&page.0.to_le_bytes());
            (last, used) = (page, 0);
        }
        // What is behind the end of a value is zero already.
        let skipped = zeros.min(DATA_SIZE - used);
        (zeros, used) = (zeros - skipped, used + skipped);
        let (now, later) = rest.split_at(rest.len().min(DATA_SIZE - used));
        if !now.is_empty() {
            let at = DATA_AT + used;
            pages.write(last)[at..at + now.len()].copy_from_slice(now);
        }
        (rest, used) = (later, used + now.len());
    }
}

/// Overwrites bytes of a chain that has them.
pub(super) fn overwrite(pages: &mut Pages, first: PageId, offset: usize, bytes: &[u8]) {
    let mut id = first;
    for _ in 0..offset / DATA_SIZE {
        id = next(pages.read(id));
    }
    let (mut at, mut rest) = (offset % DATA_SIZE, bytes);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(DATA_SIZE - at));
        pages.write(id)[DATA_AT + at..][..now.len()].copy_from_slice(now);
        (at, rest) = (0, later);
        if !rest.is_empty() {
            id = next(pages.read(id));
        }
    }
}

/// Pages of a chain of so many bytes.
pub(super) fn page_count(size: usize) -> usize {
    size.div_ceil(DATA_SIZE)
}

/// Frees a chain; none if `first` is the root page's number.
pub(super) fn free(pages: &mut Pages, first: PageId) {
    let mut id = first;
    while id != PageId::ROOT {
        let next = next(pages.read(id));
        pages.free(id);
        id = next;
    }
}

/// The first page of a value that is not in its leaf.
pub(super) fn chain(cell: CellRef<'_>) -> Option<PageId> {
    (!is_inline(cell.value_size)).then(|| {
        PageId(u32::from_le_bytes(
            cell.payload
                .try_into()
                .expect("the payload is a page number"),
        ))
    })
}

/// Reads the bytes of several slices one after another.
struct Parts<'a> {
    parts: &'a [&'a [u8]],
    offset: usize,
}

impl Parts<'_> {
    fn fill(&mut self, mut target: &mut [u8]) {
        while !target.is_empty() {
            let (first, rest) = self
                .parts
                .split_first()
                .expect("the parts are as long as their sum");
            let part = &first[self.offset..];
            let size = part.len().min(target.len());
            target[..size].copy_from_slice(&part[..size]);
            target = &mut target[size..];
            self.offset += size;
            if self.offset == first.len() {
                self.parts = rest;
                self.offset = 0;
            }
        }
    }
}

/// A value in the map, read where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    pages: &'a Pages,
    size: usize,
    inline: &'a [u8],
    first: PageId,
}

impl<'a> Value<'a> {
    pub(super) fn new(pages: &'a Pages, cell: CellRef<'a>) -> Self {
        let chain = chain(cell);
        Self {
            pages,
            size: cell.value_size as usize,
            inline: if chain.is_none() { cell.payload } else { &[] },
            first: chain.unwrap_or(PageId::ROOT),
        }
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Its bytes from `offset` on, in pieces of at most a page, in order; none is empty.
    pub fn pieces(&self, offset: usize) -> Pieces<'a> {
        assert!(offset <= self.size);
        Pieces {
            pages: self.pages,
            inline: self.inline,
            next: self.first,
            skip: offset,
            left: self.size - offset,
        }
    }

    /// Its first `N` bytes; none if it has fewer.
    pub fn first<const N: usize>(&self) -> Option<[u8; N]> {
        const { assert!(N <= DATA_SIZE) }
        let piece = if N == 0 { &[] } else { self.pieces(0).next()? };
        piece
            .get(..N)
            .map(|bytes| bytes.try_into().expect("N bytes"))
    }

    /// Copies all of it; `target` has its size.
    pub fn copy_to(&self, target: &mut [u8]) {
        assert_eq!(target.len(), self.size);
        let mut at = 0;
        for piece in self.pieces(0) {
            target[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
    }

    /// Whether its bytes from `offset` on are exactly `bytes`.
    pub fn equals(&self, offset: usize, bytes: &[u8]) -> bool {
        if offset > self.size || self.size - offset != bytes.len() {
            return false;
        }
        let mut rest = bytes;
        self.pieces(offset).all(|piece| {
            let (head, tail) = rest.split_at(piece.len());
            rest = tail;
            head == piece
        })
    }
}

/// The bytes of a value, piece by piece.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    pages: &'a Pages,
    inline: &'a [u8],
    next: PageId,
    /// Bytes still to be passed over.
    skip: usize,
    /// Bytes still to be returned.
    left: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        if self.next == PageId::ROOT {
            let piece = &self.inline[self.skip..];
            assert_eq!(piece.len(), self.left);
            self.left = 0;
            return Some(piece);
        }
        loop {
            let page = self.pages.read(self.next);
            self.next = next(page);
            if self.skip >= DATA_SIZE {
                self.skip -= DATA_SIZE;
                continue;
            }
            let data = &page[DATA_AT + self.skip..];
            let size = data.len().min(self.left);
            self.skip = 0;
            self.left -= size;
            return Some(&data[..size]);
        }
    }
}
