//! Maps that were emptied at once, and whose pages are freed bit by bit.
//!
//! Their nodes are a list, linked by four bytes that nodes leave unused: emptying a map puts its root in front, and allocates
//! nothing. Freeing takes an inner node apart from its last child on, putting that child in front of it, and a leaf cell
//! by cell; so what is half freed is one node of each level, and every step is bounded.

use super::leaf::{KIND_LEAF, Page};
use super::{OrderedMap, inner, leaf, value};
use crate::pages::{PageId, Pages};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where a node links to the next one.
const LINK_AT: usize = 8;

/// The pages of maps that were emptied. All zero: none.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Trash {
    /// The first node; zero if there is none.
    head: u32,
}

fn link(page: &Page) -> u32 {
    u32::from_le_bytes(
        page[LINK_AT..LINK_AT + 4]
            .try_into()
            .expect("four bytes of a slice"),
    )
}

impl Trash {
    /// Most pages that [`Self::free`] changes without freeing them: a node of each level of a map, and another one where
    /// the list goes on.
    pub const PAGES_TOUCHED_MAX: u32 = super::HEIGHT_MAX as u32 + 2;

    /// Whether there is nothing to be freed.
    pub fn is_empty(&self) -> bool {
        self.head == 0
    }

    /// Empties a map. It changes one page.
    pub fn take(&mut self, pages: &mut Pages, map: &mut OrderedMap) {
        if map.height > 0 {
            self.push(pages, PageId(map.root));
        }
        *map = OrderedMap::new();
    }

    fn push(&mut self, pages: &mut Pages, node: PageId) {
        pages.write(node)[LINK_AT..LINK_AT + 4].copy_from_slice(&self.head.to_le_bytes());
        self.head = node.0;
    }

    /// Frees pages until there are none or at least `wanted` were freed (a long value is freed as a whole); how many it
    /// freed.
    pub fn free(&mut self, pages: &mut Pages, wanted: u32) -> u32 {
        let mut freed = 0;
        while freed < wanted && self.head != 0 {
            let node = PageId(self.head);
            let page = pages.read(node);
            let is_empty = if page[0] == KIND_LEAF {
                Self::free_cells(pages, node, wanted, &mut freed)
            } else {
                let last = inner::count(page).checked_sub(1);
                if let Some(last) = last {
                    let child = inner::child(page, last);
                    inner::truncate(pages.write(node), last);
                    self.push(pages, child);
                }
                last.is_none()
            };
            if is_empty {
                self.head = link(pages.read(node));
                pages.free(node);
                freed += 1;
            }
        }
        freed
    }

    /// Frees the values of a leaf's cells; true if none is left.
    fn free_cells(pages: &mut Pages, node: PageId, wanted: u32, freed: &mut u32) -> bool {
        let cells = leaf::count(pages.read(node));
        let mut left = cells;
        while left > 0 && *freed < wanted {
            left -= 1;
            let cell = leaf::cell(pages.read(node), left);
            if let Some(first) = value::chain(cell) {
                let size = cell.value_size as usize;
                value::free(pages, first);
                *freed += value::page_count(size) as u32;
            }
        }
        // Of a leaf that is freed at once, nothing needs to be written.
        for index in (left..cells).rev().filter(|_| left > 0) {
            leaf::remove(pages.write(node), index);
        }
        left == 0
    }
}
