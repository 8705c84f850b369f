//! Samples: keys at places that a number decides, best a random one. A way from the root to a leaf: nodes do not say how many
//! keys are below them, so each child of a node has the same chance, and keys in full leaves a little less than those in others.

use super::leaf::{KIND_LEAF, Page};
use super::{OrderedMap, inner, leaf};
use crate::pages::{PageId, Pages};

impl OrderedMap {
    /// The key nearest to a place that `seed` determines: each child of a node, and each cell of a leaf, with about the same
    /// chance. None if the map is empty.
    pub fn sample<'a>(&self, pages: &'a Pages, seed: u64) -> Option<&'a [u8]> {
        if self.height == 0 {
            return None;
        }
        // Each level takes its part of the fraction that the seed is, and leaves the rest to the next.
        let mut fraction = seed;
        let mut choose = |count: usize| {
            let product = u128::from(fraction) * count as u128;
            fraction = product as u64;
            (product >> 64) as usize
        };
        let mut page = pages.read(PageId(self.root));
        for _ in 1..self.height {
            page = pages.read(inner::child(page, choose(inner::count(page))));
        }
        Some(leaf::key(page, choose(leaf::count(page))))
    }
}

impl OrderedMap {
    /// As [`Self::sample`], among the keys from `from` on and before `to`: of a node that has keys outside of the range, too,
    /// only the part within counts. None if there is no such key.
    pub fn sample_range<'a>(
        &self,
        pages: &'a Pages,
        from: &[u8],
        to: &[u8],
        seed: u64,
    ) -> Option<&'a [u8]> {
        if self.height == 0 || from >= to {
            return None;
        }
        let mut ends = Ends {
            from: Some(from),
            to: Some(to),
        };
        let mut fraction = seed;
        let mut page = pages.read(PageId(self.root));
        for _ in 1..self.height {
            let children = Children::new(pages, page, ends);
            let index;
            (index, ends, fraction) = children.choose(fraction)?;
            page = pages.read(inner::child(page, index));
        }
        let (low, high) = ends.in_leaf(page);
        let product = u128::from(fraction) * (high - low) as u128;
        let index = low + (product >> 64) as usize;
        (low < high).then(|| leaf::key(page, index))
    }
}

/// What counts for a whole node when one is drawn: parts of it are told in this unit.
const WHOLE: u64 = 1 << 32;

/// The ends of a range that may lie in a node; none: it has no keys beyond that end.
#[derive(Clone, Copy)]
struct Ends<'a> {
    from: Option<&'a [u8]>,
    to: Option<&'a [u8]>,
}

impl Ends<'_> {
    /// The cells of a leaf within the range: from the one on, and before the other, which is not less.
    fn in_leaf(self, page: &Page) -> (usize, usize) {
        let place = |wanted| leaf::search(page, wanted).unwrap_or_else(|place| place);
        let low = self.from.map_or(0, place);
        (low, self.to.map_or(leaf::count(page), place))
    }

    /// The part of a node's cells that is within the range, never told as none if it is not.
    fn share(self, pages: &Pages, page: &Page) -> u64 {
        if self.from.is_none() && self.to.is_none() {
            return WHOLE;
        }
        if page[0] == KIND_LEAF {
            let (low, high) = self.in_leaf(page);
            return ((high - low) as u64 * WHOLE).div_ceil(leaf::count(page).max(1) as u64);
        }
        let total = Children::new(pages, page, self).total();
        total.div_ceil(inner::count(page) as u64)
    }
}

/// The children of a node that may have keys of a range.
struct Children<'a> {
    ends: Ends<'a>,
    low: usize,
    high: usize,
    /// Shares of the first and, if that is another, of the last; those between them are whole.
    shares: (u64, u64),
}

impl<'a> Children<'a> {
    fn new(pages: &Pages, page: &Page, ends: Ends<'a>) -> Self {
        let search = |wanted| inner::search(pages, page, wanted);
        let low = ends.from.map_or(0, search);
        let high = ends.to.map_or(inner::count(page) - 1, search);
        let share =
            |index, ends: Ends<'_>| ends.share(pages, pages.read(inner::child(page, index)));
        let shares = if low == high {
            (share(low, ends), 0)
        } else {
            let first = Ends { to: None, ..ends };
            let last = Ends { from: None, ..ends };
            (share(low, first), share(high, last))
        };
        Self {
            ends,
            low,
            high,
            shares,
        }
    }

    fn total(&self) -> u64 {
        let between = (self.high - self.low).saturating_sub(1) as u64;
        self.shares.0 + between * WHOLE + self.shares.1
    }

    /// The child at this fraction of all, the ends of the range that may lie in it, and the fraction of that child. None if
    /// none has a key of the range.
    fn choose(&self, fraction: u64) -> Option<(usize, Ends<'a>, u64)> {
        let product = u128::from(fraction) * u128::from(self.total());
        let (at, rest) = ((product >> 64) as u64, u128::from(product as u64));
        let (first, last) = self.shares;
        let Ends { from, to } = self.ends;
        let (index, ends, begin, size) = if self.low == self.high {
            (self.low, self.ends, 0, first)
        } else if at < first {
            (self.low, Ends { from, to: None }, 0, first)
        } else if at >= self.total() - last {
            (
                self.high,
                Ends { from: None, to },
                self.total() - last,
                last,
            )
        } else {
            let between = (at - first) / WHOLE;
            let ends = Ends {
                from: None,
                to: None,
            };
            let index = self.low + 1 + between as usize;
            (index, ends, first + between * WHOLE, WHOLE)
        };
        let left = (u128::from(at - begin) << 64) + rest;
        let fraction = left.checked_div(u128::from(size))?;
        Some((index, ends, fraction as u64))
    }
}
