//! A leaf: keys in order, each with its value or with the place of its value.
//!
//! ```text
//! offset  size  content
//!      0     1  kind: 1
//!      1     1  zero
//!      2     2  count of cells
//!      4     2  offset of the lowest cell
//!      6     2  size of the fence
//!      8     8  zero; of a node in the trash, the next one there (u32)
//!     16   2*n  slots: the offset of each cell, in key order
//!               free space, zero
//!               cells, in the order in which they came
//!               fence, at the end of the page
//! ```
//!
//! A cell is: key size (u16), value size (u32), the key, and the payload, which is the value if it has at most
//! [`VALUE_INLINE_MAX`] bytes, else the number of its first page (u32). Free space is one zeroed stretch: removing a cell
//! moves the others together. The *fence* is the lower bound of the keys that belong here; the node above holds only
//! its first bytes and looks here when they do not decide.

use super::{KEY_SIZE_MAX, VALUE_INLINE_MAX};
use crate::layout::PAGE_SIZE;
use std::cmp::Ordering;

pub(super) type Page = [u8; PAGE_SIZE];

pub(super) const KIND_LEAF: u8 = 1;
const SLOTS_AT: usize = 16;
const CELL_HEADER_SIZE: usize = 6;

/// Bytes for slots, cells and the fence.
pub(super) const CAPACITY: usize = PAGE_SIZE - SLOTS_AT;

/// Largest cell with its slot.
pub(super) const CELL_SIZE_MAX: usize = 2 + CELL_HEADER_SIZE + KEY_SIZE_MAX + VALUE_INLINE_MAX;

/// A leaf that is used less than this is merged with a neighbour, or shares with it. Both halves of a split or of a
/// sharing are above it, so neither is due for the other at once.
pub(super) const USED_MIN: usize = 1000;

// Split and sharing begin with more than CAPACITY bytes, of which one fence goes; halves differ by at most one cell.
const _: () = assert!((CAPACITY - KEY_SIZE_MAX - CELL_SIZE_MAX) / 2 >= USED_MIN);
// And each half fits, with the longest fence: the two hold at most what fits and one new cell, or what is too little and
// what fits.
const _: () = assert!(
    usize::midpoint(CAPACITY, CELL_SIZE_MAX) + CELL_SIZE_MAX / 2 + KEY_SIZE_MAX <= CAPACITY
        && USED_MIN <= CELL_SIZE_MAX
);

pub(super) fn u16_at(page: &Page, at: usize) -> usize {
    usize::from(u16::from_le_bytes([page[at], page[at + 1]]))
}

pub(super) fn put_u16(page: &mut Page, at: usize, value: usize) {
    let value = u16::try_from(value).expect("offsets and counts in a page are small");
    page[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// A cell, or one that is to be inserted.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    pub key: &'a [u8],
    /// Bytes of the value, wherever it is.
    pub value_size: u32,
    /// The value, or the number of its first page; in parts, so that nobody has to join them.
    pub payload: &'a [&'a [u8]],
}

/// A cell where it lies.
#[derive(Clone, Copy)]
pub(super) struct CellRef<'a> {
    pub key: &'a [u8],
    pub value_size: u32,
    pub payload: &'a [u8],
}

/// Bytes of a cell with its slot.
pub(super) fn cell_size(key_size: usize, value_size: u32) -> usize {
    2 + CELL_HEADER_SIZE + key_size + payload_size(value_size)
}

pub(super) fn is_inline(value_size: u32) -> bool {
    value_size as usize <= VALUE_INLINE_MAX
}

fn payload_size(value_size: u32) -> usize {
    if is_inline(value_size) {
        value_size as usize
    } else {
        size_of::<u32>()
    }
}

/// Makes an empty leaf of a zeroed page.
pub(super) fn init(page: &mut Page, fence: &[u8]) {
    assert!(fence.len() <= KEY_SIZE_MAX && page[0] == 0);
    page[0] = KIND_LEAF;
    put_u16(page, 4, PAGE_SIZE - fence.len());
    put_u16(page, 6, fence.len());
    page[PAGE_SIZE - fence.len()..].copy_from_slice(fence);
}

pub(super) fn count(page: &Page) -> usize {
    debug_assert_eq!(page[0], KIND_LEAF);
    u16_at(page, 2)
}

pub(super) fn fence(page: &Page) -> &[u8] {
    &page[PAGE_SIZE - u16_at(page, 6)..]
}

/// Bytes used of [`CAPACITY`].
pub(super) fn used(page: &Page) -> usize {
    PAGE_SIZE - u16_at(page, 4) + 2 * count(page)
}

pub(super) fn has_room(page: &Page, size: usize) -> bool {
    used(page) + size <= CAPACITY
}

/// Where in its page a cell is.
pub(super) fn cell_at(page: &Page, index: usize) -> usize {
    u16_at(page, SLOTS_AT + 2 * index)
}

pub(super) fn key(page: &Page, index: usize) -> &[u8] {
    let at = cell_at(page, index);
    let key_size = u16_at(page, at);
    &page[at + CELL_HEADER_SIZE..at + CELL_HEADER_SIZE + key_size]
}

pub(super) fn cell(page: &Page, index: usize) -> CellRef<'_> {
    assert!(index < count(page));
    let at = u16_at(page, SLOTS_AT + 2 * index);
    let key_size = u16_at(page, at);
    let value_size = u32::from_le_bytes(
        page[at + 2..at + 6]
            .try_into()
            .expect("four bytes of a slice"),
    );
    let key_at = at + CELL_HEADER_SIZE;
    let payload_at = key_at + key_size;
    CellRef {
        key: &page[key_at..payload_at],
        value_size,
        payload: &page[payload_at..payload_at + payload_size(value_size)],
    }
}

/// Eight bytes of a cell, from byte `from` of its key on, as a number that orders as they do; what follows the key may be among
/// them. Zero if the page ends before.
pub(super) fn bytes_of_key(page: &Page, index: usize, from: usize) -> u64 {
    let at = cell_at(page, index) + CELL_HEADER_SIZE + from;
    let bytes = page.get(at..at + size_of::<u64>());
    bytes.map_or(0, |bytes| {
        u64::from_be_bytes(bytes.try_into().expect("eight bytes of a slice"))
    })
}

/// The payload of a cell, to change it in place.
pub(super) fn payload_mut(page: &mut Page, index: usize) -> &mut [u8] {
    let size = cell(page, index).payload.len();
    let at = u16_at(page, SLOTS_AT + 2 * index);
    let payload_at = at + CELL_HEADER_SIZE + u16_at(page, at);
    &mut page[payload_at..payload_at + size]
}

/// Where a key is, or where it would go.
pub(super) fn search(page: &Page, wanted: &[u8]) -> Result<usize, usize> {
    let (mut low, mut high) = (0, count(page));
    while low < high {
        let middle = usize::midpoint(low, high);
        match key(page, middle).cmp(wanted) {
            Ordering::Less => low = middle + 1,
            Ordering::Equal => return Ok(middle),
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

/// Puts a cell at `index`; the caller has made sure that it fits.
pub(super) fn insert(page: &mut Page, index: usize, cell: Cell<'_>) {
    let cells = count(page);
    let size = cell_size(cell.key.len(), cell.value_size);
    assert!(index <= cells);
    assert!(has_room(page, size));
    let at = u16_at(page, 4) - (size - 2);
    let slot_at = SLOTS_AT + 2 * index;
    page.copy_within(slot_at..SLOTS_AT + 2 * cells, slot_at + 2);
    put_u16(page, slot_at, at);
    put_u16(page, 2, cells + 1);
    put_u16(page, 4, at);
    put_u16(page, at, cell.key.len());
    page[at + 2..at + 6].copy_from_slice(&cell.value_size.to_le_bytes());
    let key_at = at + CELL_HEADER_SIZE;
    page[key_at..key_at + cell.key.len()].copy_from_slice(cell.key);
    put_payload(page, key_at + cell.key.len(), at + size - 2, cell.payload);
}

/// Puts a cell behind the last one.
pub(super) fn push(page: &mut Page, cell: CellRef<'_>) {
    let last = count(page);
    insert(
        page,
        last,
        Cell {
            key: cell.key,
            value_size: cell.value_size,
            payload: &[cell.payload],
        },
    );
}

/// Replaces the value of a cell by one whose payload has the same size.
pub(super) fn overwrite(page: &mut Page, index: usize, value_size: u32, payload: &[&[u8]]) {
    let at = u16_at(page, SLOTS_AT + 2 * index);
    let old = cell(page, index);
    assert_eq!(old.payload.len(), payload_size(value_size));
    let payload_at = at + CELL_HEADER_SIZE + old.key.len();
    page[at + 2..at + 6].copy_from_slice(&value_size.to_le_bytes());
    put_payload(
        page,
        payload_at,
        payload_at + payload_size(value_size),
        payload,
    );
}

fn put_payload(page: &mut Page, mut at: usize, end: usize, parts: &[&[u8]]) {
    for part in parts {
        page[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    assert_eq!(at, end, "the payload is as long as its cell says");
}

/// Removes the cell at `index`, and moves the cells below it up, so that free space stays in one piece.
pub(super) fn remove(page: &mut Page, index: usize) {
    let cells = count(page);
    let low = u16_at(page, 4);
    let at = u16_at(page, SLOTS_AT + 2 * index);
    let removed = cell(page, index);
    let size = cell_size(removed.key.len(), removed.value_size) - 2;
    page.copy_within(low..at, low + size);
    page[low..low + size].fill(0);
    let slot_at = SLOTS_AT + 2 * index;
    let slots_end = SLOTS_AT + 2 * cells;
    page.copy_within(slot_at + 2..slots_end, slot_at);
    put_u16(page, slots_end - 2, 0);
    for slot in 0..cells - 1 {
        let offset = u16_at(page, SLOTS_AT + 2 * slot);
        if offset < at {
            put_u16(page, SLOTS_AT + 2 * slot, offset + size);
        }
    }
    put_u16(page, 2, cells - 1);
    put_u16(page, 4, low + size);
}

/// The cells of one or two leaves, and perhaps a new one among them, as one sequence.
#[derive(Clone, Copy)]
pub(super) struct Sequence<'a> {
    pub left: &'a Page,
    pub right: Option<&'a Page>,
    pub new: Option<(usize, Cell<'a>)>,
}

impl Sequence<'_> {
    pub(super) fn count(&self) -> usize {
        count(self.left) + self.right.map_or(0, count) + usize::from(self.new.is_some())
    }

    /// The page and index of an old cell; none for the new one.
    fn locate(&self, index: usize) -> Option<(&Page, usize)> {
        let old = match self.new {
            Some((at, _)) if at == index => return None,
            Some((at, _)) => index - usize::from(index > at),
            None => index,
        };
        let left_count = count(self.left);
        match self.right {
            Some(right) if old >= left_count => Some((right, old - left_count)),
            _ => Some((self.left, old)),
        }
    }

    fn size(&self, index: usize) -> usize {
        match self.locate(index) {
            Some((page, index)) => {
                let cell = cell(page, index);
                cell_size(cell.key.len(), cell.value_size)
            }
            None => self
                .new
                .map_or(0, |(_, cell)| cell_size(cell.key.len(), cell.value_size)),
        }
    }

    fn key(&self, index: usize) -> &[u8] {
        match (self.locate(index), &self.new) {
            (Some((page, index)), _) => key(page, index),
            (None, Some((_, cell))) => cell.key,
            (None, None) => unreachable!("only the new cell is not in a page"),
        }
    }

    /// How many cells go left so that the halves are as equal as may be; at least one goes to each.
    pub(super) fn middle(&self) -> usize {
        let cells = self.count();
        assert!(cells >= 2);
        let total: usize = (0..cells).map(|index| self.size(index)).sum();
        let mut left = 0;
        for index in 0..cells {
            let size = self.size(index);
            if 2 * left + size >= total {
                return index.clamp(1, cells - 1);
            }
            left += size;
        }
        cells - 1
    }

    /// The shortest key above cell `at - 1` and not above cell `at`: the fence of a leaf that begins with `at`.
    pub(super) fn separator(&self, at: usize) -> &[u8] {
        let (low, high) = (self.key(at - 1), self.key(at));
        assert!(low < high);
        &high[..=common_prefix(low, high)]
    }

    /// Appends cells of the sequence to a leaf.
    pub(super) fn push_to(&self, page: &mut Page, cells: std::ops::Range<usize>) {
        for index in cells {
            match (self.locate(index), &self.new) {
                (Some((from, index)), _) => push(page, cell(from, index)),
                (None, Some((_, new))) => {
                    let last = count(page);
                    insert(page, last, *new);
                }
                (None, None) => unreachable!("only the new cell is not in a page"),
            }
        }
    }
}

/// How many bytes two keys begin with in common.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
