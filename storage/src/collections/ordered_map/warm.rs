//! Looking ahead: bringing what several keys will need into the caches, all at once.
//!
//! In a large map a leaf is cold memory, and a search in it waits for one cell after the other: a good part of a microsecond,
//! most of what a look-up takes. Who knows the next keys can have them searched for in step: while one waits for its cell, the
//! others take their turn. Nothing depends on it but time, so nothing has to be kept.

use super::leaf::{self, Page};
use super::{OrderedMap, inner};
use crate::layout::PAGE_SIZE;
use crate::pages::{PageId, Pages};
use crate::prefetch::prefetch;
use std::hint::select_unpredictable;

/// Most keys at once: what they need stays far below the nearest cache, and beyond it the memory is busy anyway.
pub const WARM_MAX: usize = 16;

/// Fewer keys gain nothing.
const WARM_MIN: usize = 3;

/// Levels below which all of a map stays in the caches.
const HEIGHT_MIN: u32 = 3;

/// Bytes that come from memory together.
const LINE: usize = 64;

/// Bytes of a cell that are fetched, its key among them: a short value; of a long one more follows by itself.
const CELL_SIZE: usize = 3 * LINE;

/// A search that is under way.
#[derive(Clone, Copy)]
struct Lane<'a> {
    key: &'a [u8],
    leaf: &'a Page,
    /// Bytes that all keys of the leaf begin with alike, as far as the nodes above tell.
    common: usize,
    /// The next bytes of the key.
    head: u64,
    /// What is left of the leaf.
    low: usize,
    high: usize,
}

impl Lane<'_> {
    /// Fetches the key that the next step compares with; at the end the whole cell.
    fn look_ahead(&self) {
        if self.low < self.high {
            prefetch(&self.leaf[leaf::cell_at(self.leaf, usize::midpoint(self.low, self.high))]);
        } else if self.low < leaf::count(self.leaf) {
            let at = leaf::cell_at(self.leaf, self.low);
            for byte in self.leaf[at..(at + CELL_SIZE).min(PAGE_SIZE)]
                .iter()
                .step_by(LINE)
            {
                prefetch(byte);
            }
        }
    }

    fn step(&mut self) {
        if self.low < self.high {
            let middle = usize::midpoint(self.low, self.high);
            // Near enough: where heads are alike, the first of them is found.
            let is_below = leaf::bytes_of_key(self.leaf, middle, self.common) < self.head;
            self.low = select_unpredictable(is_below, middle + 1, self.low);
            self.high = select_unpredictable(is_below, self.high, middle);
            self.look_ahead();
        }
    }
}

/// Eight bytes of a string from `from` on, zeros behind its end, as a number that orders as they do.
fn head(bytes: &[u8], from: usize) -> u64 {
    let rest = bytes.get(from..).unwrap_or(&[]);
    if let Some(first) = rest.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let padded = rest.iter().chain([0; 7].iter()).take(8);
    padded.fold(0, |head, &byte| head << 8 | u64::from(byte))
}

impl OrderedMap {
    /// Fetches what a look-up of each of the next keys will read, of at most [`WARM_MAX`] of them.
    pub fn warm<'a>(&self, pages: &'a Pages, keys: impl Iterator<Item = &'a [u8]>) {
        if self.height >= HEIGHT_MIN {
            self.search_in_step(pages, keys);
        }
    }

    /// The searches at their ends.
    fn search_in_step<'a>(
        &self,
        pages: &'a Pages,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Option<[Lane<'a>; WARM_MAX]> {
        let root = pages.read(PageId(self.root));
        let mut all = [Lane {
            key: &[],
            leaf: root,
            common: 0,
            head: 0,
            low: 0,
            high: 0,
        }; WARM_MAX];
        let mut count = 0;
        for (lane, key) in all.iter_mut().zip(keys) {
            lane.key = key;
            count += 1;
        }
        if count < WARM_MIN {
            return None;
        }
        let lanes = &mut all[..count];
        for lane in &mut *lanes {
            for _ in 1..self.height {
                let index = inner::search(pages, lane.leaf, lane.key);
                lane.common = inner::common(lane.leaf, index).max(lane.common);
                lane.leaf = pages.read(inner::child(lane.leaf, index));
            }
            lane.head = head(lane.key, lane.common);
            prefetch(&lane.leaf[0]);
            prefetch(&lane.leaf[LINE]);
        }
        let mut longest = 0;
        for lane in &mut *lanes {
            lane.high = leaf::count(lane.leaf);
            longest = lane.high.max(longest);
            lane.look_ahead();
        }
        for _ in 0..usize::BITS - longest.leading_zeros() {
            lanes.iter_mut().for_each(Lane::step);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(keys: &[Vec<u8>]) -> (Pages, OrderedMap) {
        let mut pages = Pages::new(8192, 8);
        let mut map = OrderedMap::new();
        for key in keys {
            map.insert(&mut pages, key, &[&[7; 100]]);
        }
        (pages, map)
    }

    /// What is fetched is what a look-up then reads.
    #[test]
    fn searches_in_step_end_where_a_search_does() {
        let keys: Vec<_> = (0..30_000u32)
            .map(|number| format!("a prefix of all:{:08}", number * 7919 % 30_000).into_bytes())
            .collect();
        let (pages, map) = filled(&keys);
        assert!(map.height() >= HEIGHT_MIN);
        let mut elsewhere = 0;
        for keys in keys.chunks(WARM_MAX) {
            let lanes = map.search_in_step(&pages, keys.iter().map(Vec::as_slice));
            let lanes = lanes.expect("more than a few keys");
            for (key, lane) in keys.iter().zip(lanes) {
                let (path, found) = map.descend(&pages, key);
                let (leaf, index) = path.leaf();
                assert!(found && std::ptr::eq(lane.leaf, pages.read(leaf)));
                assert!(lane.low == lane.high);
                elsewhere += u32::from(lane.low != index);
            }
        }
        // Of the outermost leaves nothing is known that all their keys begin with.
        assert!(elsewhere < 100, "{elsewhere}");
    }

    #[test]
    fn keys_of_any_kind_may_be_looked_for() {
        let of = |number: u32| match number % 3 {
            0 => vec![0; number as usize % 512],
            1 => number.to_be_bytes().to_vec(),
            _ => [vec![1; 500], number.to_be_bytes().to_vec()].concat(),
        };
        let keys: Vec<_> = (0..20_000).map(of).collect();
        let (pages, map) = filled(&keys);
        assert!(map.height() >= HEIGHT_MIN);
        for number in 0..40_000u32 {
            let keys = [
                of(number),
                of(number / 2),
                vec![2; number as usize % 529],
                vec![],
            ];
            map.warm(&pages, keys.iter().map(Vec::as_slice));
        }
        map.warm(&pages, std::iter::empty());
        OrderedMap::new().warm(&pages, std::iter::once(&b"key"[..]));
    }
}
