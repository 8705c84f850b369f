//! An inner node: children in key order, each with the first bytes of its lower bound.
//!
//! ```text
//! offset   size  content
//!      0      1  kind: 2
//!      1      1  level: 1 above the leaves
//!      2      2  count of children
//!      4      2  size of the prefix
//!      6      2  size of the fence
//!      8      8  zero; of a node in the trash, the next one there (u32)
//!     16    528  fence: lower bound of all keys below, as the first child has it too; the rest zero
//!    544     80  prefix that the bounds of all children but the first begin with; the rest zero
//!    624   16*n  cells: head (12 bytes), child (u32); the rest zero
//! ```
//!
//! A head is the bytes of the child's fence that follow the prefix, padded with zeros. Two different heads order as
//! the keys do; where a head equals that of the wanted key, the child's own fence decides. The first child's bound is
//! never asked for, and its head is zero.
//!
//! Cells of one size are what makes the tree's bounds good: a node has always 72 to 217 children however long the keys are,
//! so a tree over a million pages has at most four inner levels; and replacing a bound never makes a node overflow, so
//! nodes can share cells, and a delete never needs a page.

use super::KEY_SIZE_MAX;
use super::leaf::{self, KIND_LEAF, Page, common_prefix, put_u16, u16_at};
use crate::layout::PAGE_SIZE;
use crate::pages::{PageId, Pages};

pub(super) const KIND_INNER: u8 = 2;
const FENCE_AT: usize = 16;
const PREFIX_AT: usize = FENCE_AT + KEY_SIZE_MAX;
const PREFIX_SIZE_MAX: usize = 80;
const CELLS_AT: usize = PREFIX_AT + PREFIX_SIZE_MAX;
const HEAD_SIZE: usize = 12;
const CELL_SIZE: usize = HEAD_SIZE + size_of::<u32>();

/// Most children of a node.
pub(super) const CHILDREN_MAX: usize = (PAGE_SIZE - CELLS_AT) / CELL_SIZE;

/// Least children of a node that is not the root. Below it a node merges or shares with a neighbour; a third, not half, so that
/// neither half of a split is due for a merge soon.
pub(super) const CHILDREN_MIN: usize = CHILDREN_MAX / 3;

const _: () = assert!(CELLS_AT + CHILDREN_MAX * CELL_SIZE == PAGE_SIZE && CHILDREN_MIN == 72);

/// Children of one or two nodes, with room for one more.
pub(super) type Children = [PageId; 2 * CHILDREN_MAX];

pub(super) fn count(page: &Page) -> usize {
    debug_assert_eq!(page[0], KIND_INNER);
    u16_at(page, 2)
}

pub(super) fn level(page: &Page) -> u8 {
    page[1]
}

pub(super) fn fence(page: &Page) -> &[u8] {
    &page[FENCE_AT..FENCE_AT + u16_at(page, 6)]
}

pub(super) fn prefix(page: &Page) -> &[u8] {
    &page[PREFIX_AT..PREFIX_AT + u16_at(page, 4)]
}

pub(super) fn child(page: &Page, index: usize) -> PageId {
    assert!(index < count(page));
    let at = CELLS_AT + index * CELL_SIZE + HEAD_SIZE;
    PageId(u32::from_le_bytes(
        page[at..at + 4].try_into().expect("four bytes of a slice"),
    ))
}

/// The lower bound of a node of either kind.
pub(super) fn fence_of(pages: &Pages, node: PageId) -> &[u8] {
    let page = pages.read(node);
    match page[0] {
        KIND_LEAF => leaf::fence(page),
        kind => {
            assert_eq!(kind, KIND_INNER);
            fence(page)
        }
    }
}

/// The head of a cell as a number that orders as the bytes do.
pub(super) fn head(page: &Page, index: usize) -> u128 {
    let at = CELLS_AT + index * CELL_SIZE;
    u128::from_be_bytes(
        page[at..at + CELL_SIZE]
            .try_into()
            .expect("a cell is 16 bytes"),
    ) >> 32
}

fn head_of(suffix: &[u8]) -> [u8; HEAD_SIZE] {
    let mut head = [0; HEAD_SIZE];
    let size = suffix.len().min(HEAD_SIZE);
    head[..size].copy_from_slice(&suffix[..size]);
    head
}

fn put_cell(page: &mut Page, index: usize, head: [u8; HEAD_SIZE], child: PageId) {
    let at = CELLS_AT + index * CELL_SIZE;
    page[at..at + HEAD_SIZE].copy_from_slice(&head);
    page[at + HEAD_SIZE..at + CELL_SIZE].copy_from_slice(&child.0.to_le_bytes());
}

/// The last index below `high` for which `holds` is false is one less than this; `holds` is true from some index on.
fn partition(mut low: usize, mut high: usize, holds: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = usize::midpoint(low, high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The child that a key belongs to.
pub(super) fn search(pages: &Pages, page: &Page, key: &[u8]) -> usize {
    let children = count(page);
    let prefix = prefix(page);
    let Some(suffix) = key.strip_prefix(prefix) else {
        return if key < prefix { 0 } else { children - 1 };
    };
    let mut bytes = [0; 16];
    bytes[4..].copy_from_slice(&head_of(suffix));
    let wanted = u128::from_be_bytes(bytes);
    let low = partition(1, children, |index| head(page, index) >= wanted);
    let mut high = low;
    if low < children && head(page, low) == wanted {
        let end = partition(low, children, |index| head(page, index) > wanted);
        high = partition(low, end, |index| fence_of(pages, child(page, index)) > key);
    }
    high - 1
}

/// Bytes that all keys below a child begin with alike, as far as the node tells: none for the outer children, which have no
/// bound on one side.
pub(super) fn common(page: &Page, index: usize) -> usize {
    if index == 0 || index + 1 >= count(page) {
        return 0;
    }
    // The padding of a short bound is no part of it; but who asks only wants to guess.
    let different = head(page, index) ^ head(page, index + 1);
    prefix(page).len() + (different.leading_zeros() as usize - (128 - 8 * HEAD_SIZE)) / 8
}

/// Writes a node anew from its children; `node` keeps nothing of what it was. The fence is that of the first child.
pub(super) fn write(pages: &mut Pages, node: PageId, level: u8, children: &[PageId]) {
    assert!((1..=CHILDREN_MAX).contains(&children.len()));
    let mut page = [0; PAGE_SIZE];
    page[0] = KIND_INNER;
    page[1] = level;
    put_u16(&mut page, 2, children.len());
    let fence = fence_of(pages, children[0]);
    put_u16(&mut page, 6, fence.len());
    page[FENCE_AT..FENCE_AT + fence.len()].copy_from_slice(fence);
    let mut prefix_size = 0;
    if let [_, first, .., last] | [_, first @ last] = children {
        let (first, last) = (fence_of(pages, *first), fence_of(pages, *last));
        prefix_size = common_prefix(first, last).min(PREFIX_SIZE_MAX);
        put_u16(&mut page, 4, prefix_size);
        page[PREFIX_AT..PREFIX_AT + prefix_size].copy_from_slice(&first[..prefix_size]);
    }
    put_cell(&mut page, 0, [0; HEAD_SIZE], children[0]);
    for (index, &child) in children.iter().enumerate().skip(1) {
        let fence = fence_of(pages, child);
        put_cell(&mut page, index, head_of(&fence[prefix_size..]), child);
    }
    *pages.write(node) = page;
}

/// Copies the children of a node to `into`; how many they are.
pub(super) fn children(page: &Page, into: &mut [PageId]) -> usize {
    let children = count(page);
    for (index, place) in into[..children].iter_mut().enumerate() {
        *place = child(page, index);
    }
    children
}

/// Adds a child, which is never the first, to a node that has room.
pub(super) fn insert(pages: &mut Pages, node: PageId, index: usize, child: PageId) {
    let page = pages.read(node);
    let children = count(page);
    assert!((1..=children).contains(&index) && children < CHILDREN_MAX);
    let page = pages.write(node);
    let at = CELLS_AT + index * CELL_SIZE;
    page.copy_within(at..CELLS_AT + children * CELL_SIZE, at + CELL_SIZE);
    put_u16(page, 2, children + 1);
    put_cell(page, index, [0; HEAD_SIZE], child);
    refresh(pages, node, index);
}

/// Sets the head of a child whose fence is new.
pub(super) fn refresh(pages: &mut Pages, node: PageId, index: usize) {
    let page = pages.read(node);
    assert!(index > 0);
    let child = child(page, index);
    // With one bound only, the prefix was made from the bound that is gone.
    if count(page) > 2
        && let Some(suffix) = fence_of(pages, child).strip_prefix(prefix(page))
    {
        let head = head_of(suffix);
        put_cell(pages.write(node), index, head, child);
        return;
    }
    let level = level(page);
    let mut all = [PageId::ROOT; CHILDREN_MAX];
    let count = children(page, &mut all);
    write(pages, node, level, &all[..count]);
}

/// Removes a child, which is never the first.
pub(super) fn remove(page: &mut Page, index: usize) {
    let children = count(page);
    assert!((1..children).contains(&index));
    let at = CELLS_AT + index * CELL_SIZE;
    let end = CELLS_AT + children * CELL_SIZE;
    page.copy_within(at + CELL_SIZE..end, at);
    page[end - CELL_SIZE..end].fill(0);
    put_u16(page, 2, children - 1);
}

/// Forgets the children from `children` on, of a node that is no longer part of a tree.
pub(super) fn truncate(page: &mut Page, children: usize) {
    page[CELLS_AT + children * CELL_SIZE..].fill(0);
    put_u16(page, 2, children);
}
