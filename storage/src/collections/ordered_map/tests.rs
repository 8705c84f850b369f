//! The map against std's, with every invariant of the tree checked.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A small generator, so that a case is one number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What a test knows of an arena with one map in it.
struct Checked {
    pages: Pages,
    map: OrderedMap,
    model: Model,
    free_at_start: u32,
    cost: Cost,
}

impl Checked {
    fn new(page_count: u32) -> Self {
        let mut pages = Pages::new(page_count, page_count);
        drain(&mut pages);
        Self {
            free_at_start: pages.free_count(),
            pages,
            map: OrderedMap::new(),
            model: Model::new(),
            cost: Cost::new(page_count),
        }
    }

    fn insert(&mut self, key: &[u8], value: &[u8]) {
        let free = self.pages.free_count();
        let (a, b) = value.split_at(value.len() / 3);
        let replaced = self.map.insert(&mut self.pages, key, &[a, &[], b]);
        let touched = drain(&mut self.pages);
        assert!(touched <= self.cost.pages_touched_max(value.len()));
        let taken = free.saturating_sub(self.pages.free_count());
        assert!(taken <= self.cost.pages_new_max(value.len()));
        let old = self.model.insert(key.to_vec(), value.to_vec());
        assert_eq!(replaced, old.is_some());
        if old.is_some_and(|old| old.len() == value.len()) {
            assert!(
                touched <= 1 + Cost::value_pages(value.len()),
                "replaced in place"
            );
        }
    }

    fn remove(&mut self, key: &[u8]) {
        let free = self.pages.free_count();
        let removed = self.map.remove(&mut self.pages, key);
        assert!(drain(&mut self.pages) <= self.cost.nodes_touched_max(1));
        assert!(self.pages.free_count() >= free, "a delete takes no page");
        assert_eq!(removed, self.model.remove(key).is_some());
    }

    /// Writes over a part of a value, or adds to it.
    fn edit(&mut self, key: &[u8], offset: usize, bytes: &[u8]) {
        let Some(value) = self.model.get_mut(key) else {
            return;
        };
        let free = self.pages.free_count();
        let within = bytes.len().min(value.len().saturating_sub(offset));
        let (over, behind) = bytes.split_at(within);
        let zeros = offset.saturating_sub(value.len());
        if !over.is_empty() {
            self.map.write_at(&mut self.pages, key, offset, over);
            assert!(drain(&mut self.pages) <= 1 + over.len().div_ceil(4088) as u32);
            value[offset..offset + within].copy_from_slice(over);
        }
        if zeros + behind.len() > 0 {
            self.map.extend(&mut self.pages, key, zeros, behind);
            value.resize(value.len() + zeros, 0);
            value.extend(behind);
            let new = Cost::value_pages(VALUE_INLINE_MAX + zeros + behind.len());
            assert!(drain(&mut self.pages) <= self.cost.nodes_touched_max(1) + new + 1);
            let taken = free.saturating_sub(self.pages.free_count());
            assert!(taken <= self.cost.nodes_new_max(1) + new);
        }
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) {
        if from == to || !self.model.contains_key(from) {
            return;
        }
        let free = self.pages.free_count();
        self.map.rename(&mut self.pages, from, to);
        assert!(drain(&mut self.pages) <= self.cost.nodes_touched_max(2));
        assert!(free.saturating_sub(self.pages.free_count()) <= self.cost.nodes_new_max(1));
        let value = self.model.remove(from).expect("looked up above");
        self.model.insert(to.to_vec(), value);
    }

    /// Empties the map at once, twice, and frees its pages in steps; a new map grows meanwhile.
    fn throw_away(mut self, random: &mut Random) {
        let mut trash = Trash::default();
        let longest = self.model.values().map(Vec::len).max().unwrap_or(0); // appended to, perhaps many times
        for round in 0..2 {
            trash.take(&mut self.pages, &mut self.map);
            assert!(drain(&mut self.pages) <= 1);
            for number in 0..u64::from(round == 0) * 500 {
                self.map
                    .insert(&mut self.pages, &key(1, number), &[&[3; 40]]);
            }
            drain(&mut self.pages);
        }
        assert!(self.map.is_empty());
        let mut free = self.pages.free_count();
        while !trash.is_empty() {
            let wanted = 1 + random.below(30) as u32;
            let freed = trash.free(&mut self.pages, wanted);
            assert!(freed >= wanted || trash.is_empty());
            assert!(freed as usize <= wanted as usize + longest.div_ceil(4088));
            assert!(drain(&mut self.pages) <= Trash::PAGES_TOUCHED_MAX);
            free += freed;
            assert_eq!(self.pages.free_count(), free);
        }
        assert_eq!(free, self.free_at_start, "no page is lost");
    }

    fn check(&self) {
        let mut used = 0;
        let mut keys = 0;
        if self.map.height > 0 {
            let root = PageId(self.map.root);
            let level = self.map.height as usize - 1;
            check_node(
                &self.pages,
                root,
                level,
                (&[], None),
                true,
                true,
                &mut used,
                &mut keys,
            );
        }
        assert_eq!(
            used,
            self.free_at_start - self.pages.free_count(),
            "no page is lost"
        );
        assert_eq!(keys, self.map.len());
        assert_eq!(keys, self.model.len() as u64);
        assert!(self.map.height() <= self.cost.height_max());
        let all = self
            .map
            .range(&self.pages, Bound::Unbounded, Bound::Unbounded, false);
        assert!(all.map(owned).eq(self.model.clone()));
        let all = self
            .map
            .range(&self.pages, Bound::Unbounded, Bound::Unbounded, true);
        assert!(all.map(owned).eq(self.model.clone().into_iter().rev()));
    }

    fn check_get(&self, key: &[u8]) {
        let value = self.map.get(&self.pages, key);
        let expected = self.model.get(key);
        assert_eq!(value.is_some(), expected.is_some());
        if let (Some(value), Some(expected)) = (value, expected) {
            assert!(value.equals(0, expected));
            assert!(expected.len() < 5000 || value.equals(5000, &expected[5000..]));
            assert_eq!(
                value.first::<3>().as_ref().map(|first| &first[..]),
                expected.get(..3)
            );
        }
    }

    fn check_range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) {
        let inside = |key: &[u8]| {
            (match from {
                Bound::Included(from) => key >= from,
                Bound::Excluded(from) => key > from,
                Bound::Unbounded => true,
            }) && (match to {
                Bound::Included(to) => key <= to,
                Bound::Excluded(to) => key < to,
                Bound::Unbounded => true,
            })
        };
        let expected: Vec<_> = self.model.keys().filter(|key| inside(key)).collect();
        let forward = self.map.range(&self.pages, from, to, false);
        assert!(forward.map(|(key, _)| key).eq(expected.iter().copied()));
        let reverse = self.map.range(&self.pages, from, to, true);
        assert!(
            reverse
                .map(|(key, _)| key)
                .eq(expected.iter().rev().copied())
        );
        let count = expected.len();
        for passed in [0, 1, count / 3, count.saturating_sub(1), count, count + 9] {
            for reverse in [false, true] {
                let mut walk = self.map.range(&self.pages, from, to, reverse);
                assert_eq!(walk.pass(passed as u64), passed.min(count) as u64);
                let rest = (0..count).skip(passed);
                let rest = rest.map(|at| expected[if reverse { count - 1 - at } else { at }]);
                assert!(walk.map(|(key, _)| key).eq(rest));
            }
        }
    }

    /// Copies the pages in use to another arena, as a checkpoint and a restart do.
    fn reopened(&self) -> Self {
        let mut pages = Pages::new(self.pages.count(), self.pages.count());
        for page in (0..self.pages.count())
            .map(PageId)
            .filter(|&page| self.pages.is_used(page))
        {
            pages.restore(page, self.pages.read(page));
        }
        assert!(pages.restored());
        Self {
            pages,
            model: self.model.clone(),
            ..*self
        }
    }

    fn assert_same_pages(&self, other: &Self) {
        assert_eq!(self.map, other.map);
        for page in (0..self.pages.count()).map(PageId) {
            assert_eq!(self.pages.is_used(page), other.pages.is_used(page));
            assert!(!self.pages.is_used(page) || self.pages.read(page) == other.pages.read(page));
        }
    }
}

fn owned((key, value): (&[u8], Value<'_>)) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = vec![0; value.len()];
    value.copy_to(&mut bytes);
    (key.to_vec(), bytes)
}

/// How many pages were changed and are in use, those of the allocator apart; forgets them.
fn drain(pages: &mut Pages) -> u32 {
    pages.freeze();
    let mut touched = 0;
    let mut from = PageId(0);
    while let Some(page) = pages.frozen_next(from) {
        touched += u32::from(page.0 > 1 && pages.frozen_read(page).is_some());
        pages.frozen_done(page);
        from = page;
    }
    touched
}

fn check_node(
    pages: &Pages,
    node: PageId,
    level: usize,
    (low, high): (&[u8], Option<&[u8]>),
    is_root: bool,
    is_last: bool,
    used: &mut u32,
    keys: &mut u64,
) {
    *used += 1;
    let page = pages.read(node);
    assert_eq!(inner::fence_of(pages, node), low);
    if level == 0 {
        check_leaf(pages, page, high, is_root, is_last, used);
        *keys += leaf::count(page) as u64;
        return;
    }
    assert_eq!((page[0], usize::from(page[1])), (inner::KIND_INNER, level));
    let count = inner::count(page);
    assert!(count >= if is_root { 2 } else { inner::CHILDREN_MIN });
    assert_eq!(inner::head(page, 0), 0);
    assert!(page[624 + 16 * count..].iter().all(|&byte| byte == 0));
    for index in 0..count {
        let child = inner::child(page, index);
        let fence = inner::fence_of(pages, child);
        assert!(index == 0 || fence.starts_with(inner::prefix(page)));
        let next =
            (index + 1 < count).then(|| inner::fence_of(pages, inner::child(page, index + 1)));
        let high = next.or(high);
        assert!(high.is_none_or(|high| fence < high));
        assert_eq!(inner::search(pages, page, fence), index);
        let is_last = is_last && index + 1 == count;
        check_node(
            pages,
            child,
            level - 1,
            (fence, high),
            false,
            is_last,
            used,
            keys,
        );
    }
}

fn check_leaf(
    pages: &Pages,
    page: &Page,
    high: Option<&[u8]>,
    is_root: bool,
    is_last: bool,
    used: &mut u32,
) {
    let count = leaf::count(page);
    assert!(count > 0);
    assert!(is_root || is_last || leaf::used(page) >= leaf::USED_MIN);
    let mut cells_size = leaf::fence(page).len();
    for index in 0..count {
        let cell = leaf::cell(page, index);
        assert!(index > 0 || leaf::fence(page) <= cell.key);
        assert!(index == 0 || leaf::key(page, index - 1) < cell.key);
        assert!(high.is_none_or(|high| cell.key < high));
        cells_size += leaf::cell_size(cell.key.len(), cell.value_size) - 2;
        let mut chain = value::chain(cell).unwrap_or(PageId::ROOT);
        let mut left = cell.value_size as usize;
        while chain != PageId::ROOT {
            *used += 1;
            let page = pages.read(chain);
            let size = left.min(value::DATA_SIZE);
            assert!(page[8 + size..].iter().all(|&byte| byte == 0));
            assert_eq!((page[0], &page[1..4]), (value::KIND_VALUE, &[0; 3][..]));
            left -= size;
            chain = value::next(page);
        }
        assert!(left == 0 || left == cell.payload.len());
    }
    assert_eq!(leaf::used(page), cells_size + 2 * count);
    let free = 16 + 2 * count..PAGE_SIZE - cells_size;
    assert!(page[free].iter().all(|&byte| byte == 0));
}

/// Kinds of keys that stress different parts: heads that decide, heads that tie, prefixes, extreme sizes.
fn key(kind: u64, number: u64) -> Vec<u8> {
    let mut random = Random(number);
    match kind % 5 {
        0 => number.to_be_bytes()[4..].to_vec(),
        1 => format!("a/long/prefix/that/all/keys/share/{number:06}").into_bytes(),
        2 => (0..random.below(KEY_SIZE_MAX as u64 + 1))
            .map(|_| random.below(2) as u8)
            .collect(),
        3 => {
            let mut key = vec![(random.below(3)) as u8; KEY_SIZE_MAX - 8];
            key.extend(number.to_be_bytes());
            key
        }
        _ => vec![0; number as usize % (KEY_SIZE_MAX + 1)],
    }
}

fn value(random: &mut Random, kind: u64) -> Vec<u8> {
    let size = match (kind / 5) % 4 {
        0 => random.below(20),
        1 => random.below(VALUE_INLINE_MAX as u64 + 1),
        2 => 900 + random.below(10_000),
        _ => [0, 959, 960, 961, 4088, 4089, 8176, 70_000][random.below(8) as usize],
    };
    vec![random.next() as u8; size as usize]
}

/// A mix of operations, then everything is deleted in some order.
fn run_mix(seed: u64, kind: u64, keys: u64, steps: u64) {
    let mut random = Random(seed);
    let mut state = Checked::new(6000);
    for step in 0..steps {
        let key_of = |number| key(kind, number);
        let key = key_of(random.below(keys));
        // Phases that grow and phases that shrink.
        let grows = (step / (keys / 2)).is_multiple_of(2);
        if random.below(10) < if grows { 8 } else { 2 } {
            let fits = state.pages.free_count() > 40;
            let value = if fits {
                value(&mut random, kind)
            } else {
                vec![]
            };
            state.insert(&key, &value);
        } else {
            state.remove(&key);
        }
        match random.below(6) {
            0 => state.rename(&key_of(random.below(keys)), &key_of(random.below(keys))),
            1 if state.pages.free_count() > 40 => {
                let key = key_of(random.below(keys));
                let size = state.model.get(&key).map_or(0, Vec::len) as u64;
                let offset = random.below(size + 3) as usize;
                let bytes = vec![random.next() as u8; random.below(30 + size / 2) as usize];
                if offset + bytes.len() < 80_000 {
                    state.edit(&key, offset, &bytes);
                }
            }
            _ => {}
        }
        state.check_get(&key_of(random.below(keys)));
        if step % 97 == 0 {
            state.check();
            let (from, to) = (key_of(random.below(keys)), key_of(random.below(keys)));
            state.check_range(Bound::Included(&from), Bound::Excluded(&to));
            state.check_range(Bound::Excluded(&from), Bound::Included(&to));
            state.check_range(Bound::Included(&from), Bound::Included(&from));
        }
        if step == steps / 2 {
            let copy = state.reopened();
            copy.assert_same_pages(&state);
            state = copy;
        }
    }
    if seed.is_multiple_of(5) {
        return state.throw_away(&mut random);
    }
    let mut left: Vec<_> = state.model.keys().cloned().collect();
    match seed % 3 {
        0 => left.reverse(),
        1 => left.sort_by_key(|key| {
            Random(
                key.len() as u64
                    + u64::from(key[key.len() / 2..].first().copied().unwrap_or(0)) * 77,
            )
            .next()
        }),
        _ => {}
    }
    for key in left {
        state.remove(&key);
    }
    state.check();
    assert_eq!(state.pages.free_count(), state.free_at_start);
    assert_eq!(state.map, OrderedMap::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn map_agrees_with_std(seed: u64, kind in 0u64..20, keys in 4u64..600) {
        run_mix(seed, kind, keys, 1200);
    }
}

#[test]
fn every_kind_of_key_and_value_agrees_with_std() {
    for kind in 0..20 {
        run_mix(kind * 31, kind, 400, 1500);
    }
}

/// Values that were appended to are the longest, and are freed as a whole.
#[test]
fn a_map_with_values_longer_than_any_that_was_put_is_thrown_away() {
    run_mix(13_238_950_723_923_078_480, 19, 588, 1200);
}

/// Inner nodes split, merge and share in three levels; the orders that are worst for some trees.
#[test]
fn large_trees_grow_and_shrink_in_every_order() {
    const KEYS: u64 = 30_000;
    for order in 0..4 {
        let mut state = Checked::new(20_000);
        let numbers: Vec<u64> = match order {
            0 => (0..KEYS).collect(),
            1 => (0..KEYS).rev().collect(),
            2 => (0..KEYS).map(|number| number * 7919 % KEYS).collect(),
            _ => (0..KEYS / 2)
                .flat_map(|number| [number, KEYS - 1 - number])
                .collect(),
        };
        // Long keys: few fit a leaf, so the tree is high.
        let key_of = |number: u64| key(if order % 2 == 0 { 3 } else { 1 }, number);
        for &number in &numbers {
            state.insert(&key_of(number), &number.to_le_bytes());
        }
        state.check();
        assert!(state.map.height() >= 3);
        for &number in numbers.iter().skip(order % 2) {
            state.remove(&key_of(number));
            if number % 4000 == 0 {
                state.check();
            }
        }
        state.check();
    }
}

#[test]
fn ascending_keys_fill_their_leaves() {
    let mut state = Checked::new(2000);
    for number in 0..20_000u64 {
        state.insert(&number.to_be_bytes(), &[1; 16]);
    }
    state.check();
    let bytes = 20_000 * leaf::cell_size(8, 16);
    let used = (state.free_at_start - state.pages.free_count()) as usize;
    assert!(
        used <= bytes / leaf::CAPACITY * 21 / 20,
        "{used} pages for {bytes} bytes"
    );
}

/// The bound of a batch holds in a tree whose nodes are all full, and in one whose nodes are all nearly empty.
#[test]
fn batches_stay_below_their_bounds() {
    for batch in [2u32, 10, 100, 1000] {
        for shrink in [false, true] {
            let mut state = Checked::new(30_000);
            // Ascending: every leaf is full, so every insert splits one.
            let key_of = |number: u64| [&[5; 248][..], &number.to_be_bytes()].concat();
            for number in 0..40_000 {
                state
                    .map
                    .insert(&mut state.pages, &key_of(number * 2), &[&[7; 300]]);
            }
            if shrink {
                for number in (0..40_000).filter(|number| number % 5 != 0) {
                    state.map.remove(&mut state.pages, &key_of(number * 2));
                }
            }
            drain(&mut state.pages);
            let free = state.pages.free_count();
            for number in 0..u64::from(batch) {
                let number = number * (40_000 / u64::from(batch)) / 5 * 5 * 2;
                if shrink {
                    state.map.remove(&mut state.pages, &key_of(number));
                } else {
                    state
                        .map
                        .insert(&mut state.pages, &key_of(number + 1), &[&[7; 300]]);
                }
            }
            assert!(drain(&mut state.pages) <= state.cost.nodes_touched_max(batch));
            let taken = free.saturating_sub(state.pages.free_count());
            assert!(
                taken
                    <= if shrink {
                        0
                    } else {
                        state.cost.nodes_new_max(batch)
                    }
            );
        }
    }
}

#[test]
fn heights_follow_from_the_arena() {
    assert_eq!(Cost::new(64).height_max(), 2);
    assert_eq!(Cost::new(1792).height_max(), 3);
    assert_eq!(Cost::new(65_536).height_max(), 4);
    assert_eq!(Cost::new(262_144).height_max(), 4);
    assert_eq!(Cost::new(u32::MAX).height_max() as usize, HEIGHT_MAX);
    assert_eq!(Cost::value_pages(960), 0);
    assert_eq!(Cost::value_pages(961), 1);
    assert_eq!(Cost::value_pages(4089), 2);
}

#[test]
fn samples_reach_every_key_about_as_often() {
    let mut state = Checked::new(6000);
    assert_eq!(state.map.sample(&state.pages, 5), None);
    for number in 0..2000u64 {
        state.insert(&key(2 * (number % 2), number), &[1; 30]);
    }
    let mut random = Random(1);
    let mut seen = BTreeMap::new();
    for _ in 0..100_000 {
        let key = state.map.sample(&state.pages, random.next());
        *seen.entry(key.expect("keys").to_vec()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), state.model.len());
    assert!(seen.values().all(|&times| times > 3));
}

#[test]
fn samples_of_a_range_reach_its_keys_and_no_others() {
    let mut state = Checked::new(6000);
    assert_eq!(state.map.sample_range(&state.pages, b"a", b"b", 5), None);
    for number in 0..2000u64 {
        state.insert(&key(2 * (number % 2), number), &[1; 30]);
    }
    let keys: Vec<Vec<u8>> = state.model.keys().cloned().collect();
    let mut random = Random(1);
    let last = keys.len();
    for (from, to) in [
        (0, last),
        (0, 1),
        (1, 2),
        (last - 1, last),
        (700, 900),
        (1000, 1003),
    ] {
        let end = keys.get(to).cloned().unwrap_or_else(|| vec![255; 40]);
        let mut seen = BTreeMap::new();
        for _ in 0..100 * (to - from) {
            let key = state
                .map
                .sample_range(&state.pages, &keys[from], &end, random.next());
            *seen.entry(key.expect("keys").to_vec()).or_insert(0) += 1;
        }
        assert!(seen.keys().eq(&keys[from..to]), "{from} {to}");
    }
    for (at, key) in keys.iter().enumerate().step_by(37) {
        // Nothing lies between a key and the next.
        let behind = [&key[..], &[0]].concat();
        let next = &keys[(at + 1).min(keys.len() - 1)];
        assert_eq!(
            state
                .map
                .sample_range(&state.pages, &behind, next, random.next()),
            None
        );
        assert_eq!(
            state
                .map
                .sample_range(&state.pages, key, key, random.next()),
            None
        );
    }
}

/// Nodes at the ends of a range, of which only a part lies in it, do not count as whole ones.
#[test]
fn samples_of_a_range_are_about_even() {
    let mut state = Checked::new(4000);
    let mut random = Random(3);
    let key_of = |number: u64| (number << 40).to_be_bytes();
    for _ in 0..20_000 {
        state.insert(&key_of(random.below(1 << 16)), &[]);
    }
    let keys: Vec<Vec<u8>> = state.model.keys().cloned().collect();
    for from in (0..10_000).step_by(271) {
        let count = 300 + from % 7 * 500;
        let (begin, end) = (&keys[from], &keys[from + count]);
        let mut seen = BTreeMap::new();
        for _ in 0..20 * count {
            let key = state
                .map
                .sample_range(&state.pages, begin, end, random.next());
            *seen.entry(key.expect("keys").to_vec()).or_insert(0) += 1;
        }
        let most = *seen.values().max().expect("some");
        assert!(most < 100, "{most} of 20 in {count} from {from}");
        assert!(seen.len() > count * 99 / 100, "{} of {count}", seen.len());
    }
}

#[test]
fn equal_histories_make_equal_pages() {
    let run = || {
        let mut random = Random(5);
        let mut state = Checked::new(4000);
        for _ in 0..4000 {
            let key = key(1 + random.below(3), random.below(300));
            if random.below(3) == 0 {
                state.remove(&key);
            } else {
                let value = value(&mut random, 10);
                state.insert(&key, &value);
            }
        }
        state
    };
    run().assert_same_pages(&run());
}

#[test]
fn a_look_up_in_one_map_says_nothing_of_another() {
    let mut pages = Pages::new(64, 8);
    let (mut one, mut other) = (OrderedMap::new(), OrderedMap::new());
    for map in [&mut one, &mut other] {
        map.insert(&mut pages, b"key", &[b"one"]);
    }
    other.insert(&mut pages, b"key", &[b"other"]);
    for _ in 0..2 {
        for (map, size) in [(&one, 3), (&other, 5)] {
            for _ in 0..2 {
                assert_eq!(map.get(&pages, b"key").map(|value| value.len()), Some(size));
            }
        }
    }
}
