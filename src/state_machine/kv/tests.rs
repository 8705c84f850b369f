//! The machine against its model, through the bytes that clients and the log would carry.

use super::model::Model;
use super::wire::{BatchReply, CountReply, ItemReply, ScanReply, prefix_end};
use super::*;
use proptest::prelude::*;
use std::ops::Bound;
use storage::layout::Geometry;
use storage::pages::PageId;

const CONTEXT: Context = Context {
    op: 1,
    timestamp: 1,
    client: 1,
};

/// A store, its arena, and its model.
struct Checked {
    limits: Limits,
    pages: Pages,
    kv: Kv,
    model: Model,
    /// Changes that were refused for lack of pages.
    refused: u32,
}

impl Checked {
    fn new(geometry: &Geometry) -> Self {
        Self::with_limits(Limits::new(geometry))
    }

    fn with_limits(limits: Limits) -> Self {
        let mut pages = Pages::new(limits.page_count, limits.pages_touched_max);
        let kv = Kv::create(&mut pages);
        drain(&mut pages);
        Self {
            limits,
            pages,
            kv,
            model: Model::new(),
            refused: 0,
        }
    }

    /// Executes a request as the engine does. None: it is invalid, or there is no space for it.
    fn execute(&mut self, operation: Operation, body: &[u8]) -> Option<Vec<u8>> {
        let operation = operation as u8;
        let plan = Kv::validate(&self.limits, operation, body).ok()?;
        assert!(plan.pages_touched <= self.limits.pages_touched_max);
        let free = self.pages.free_count();
        if plan.pages_new > free {
            self.refused += 1;
            return None;
        }
        let mut bytes = vec![0; plan.reply_size];
        let mut reply = ReplyBuffer::new(&mut bytes);
        if plan.read_only {
            self.kv
                .read(&self.pages, &CONTEXT, operation, body, &mut reply);
        } else {
            assert!(plan.reply_size <= self.limits.reply_size_max);
            self.kv
                .commit(&mut self.pages, &CONTEXT, operation, body, &mut reply);
        }
        let size = reply.size();
        bytes.truncate(size);
        let touched = drain(&mut self.pages);
        assert!(
            touched <= plan.pages_touched,
            "{touched} > {}",
            plan.pages_touched
        );
        assert!(free.saturating_sub(self.pages.free_count()) <= plan.pages_new);
        assert!(!plan.read_only || touched == 0);
        let predicted = self.model.apply(&self.limits, operation, body);
        assert_eq!(predicted.as_ref(), Some(&bytes));
        assert_eq!(self.kv.revision(), self.model.revision);
        assert_eq!(self.kv.count(), self.model.map.len() as u64);
        Some(bytes)
    }

    fn item(&mut self, item: &Item<'_>) -> Option<(Status, u64, Vec<u8>)> {
        let mut body = Vec::new();
        item.encode(&mut body);
        assert_eq!(body.len(), item.size());
        let reply = self.execute(item.operation(), &body)?;
        let reply = ItemReply::decode(&reply).expect("a reply to an item");
        Some((reply.status, reply.version, reply.value.to_vec()))
    }

    fn batch(&mut self, items: &[Item<'_>]) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        for item in items {
            item.encode(&mut body);
        }
        let reply = self.execute(Operation::Batch, &body)?;
        assert_eq!(
            BatchReply::decode(&reply)
                .expect("a reply to a batch")
                .len(),
            items.len()
        );
        Some(reply)
    }

    fn scan(&mut self, scan: &Scan<'_>) -> Vec<u8> {
        let mut body = Vec::new();
        scan.encode(&mut body);
        assert_eq!(Scan::decode(&body), Some(*scan));
        self.execute(Operation::Scan, &body)
            .expect("a scan is never refused")
    }
}

/// Pages that were changed and are in use; forgets them.
fn drain(pages: &mut Pages) -> u32 {
    pages.freeze();
    let mut touched = 0;
    let mut from = PageId(0);
    while let Some(page) = pages.frozen_next(from) {
        touched += u32::from(pages.frozen_read(page).is_some());
        pages.frozen_done(page);
        from = page;
    }
    touched
}

#[derive(Clone, Debug)]
enum Owned {
    Get(Vec<u8>, u32),
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    CompareAndSet(Vec<u8>, Option<Vec<u8>>, Vec<u8>),
}

impl Owned {
    fn item(&self) -> Item<'_> {
        match self {
            Self::Get(key, size_max) => Item::Get {
                key,
                size_max: *size_max,
            },
            Self::Put(key, value) => Item::Put { key, value },
            Self::Delete(key) => Item::Delete { key },
            Self::CompareAndSet(key, expected, value) => Item::CompareAndSet {
                key,
                expected: expected.as_deref(),
                value,
            },
        }
    }
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0u8..30).prop_map(|number| vec![b'k', number]),
        2 => (0u8..20).prop_map(|number| [vec![b'p'; 200], vec![number]].concat()),
        1 => (1usize..=256).prop_map(|size| vec![7; size]),
    ]
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    // Few contents, so that expectations are met often.
    let sizes =
        prop_oneof![5 => 0usize..4, 2 => 1000usize..1030, 2 => 0usize..20_000, 1 => Just(70_000)];
    (sizes, 0u8..2).prop_map(|(size, byte)| vec![byte; size])
}

fn items() -> impl Strategy<Value = Owned> {
    prop_oneof![
        2 => (keys(), prop_oneof![Just(u32::MAX), 0u32..300])
            .prop_map(|(key, size_max)| Owned::Get(key, size_max)),
        3 => (keys(), values()).prop_map(|(key, value)| Owned::Put(key, value)),
        2 => keys().prop_map(Owned::Delete),
        3 => (keys(), proptest::option::of(values()), values())
            .prop_map(|(key, expected, value)| Owned::CompareAndSet(key, expected, value)),
    ]
}

fn bounds() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        Just(Bound::Unbounded),
        keys().prop_map(Bound::Included),
        keys().prop_map(Bound::Excluded),
        Just(Bound::Included(vec![])),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Item(Owned),
    Batch(Vec<Owned>),
    Scan {
        from: Bound<Vec<u8>>,
        to: Bound<Vec<u8>>,
        flags: (bool, bool),
        count: u32,
        size: u32,
    },
    Count,
}

fn steps() -> impl Strategy<Value = Step> {
    let sizes = prop_oneof![Just(0u32), wire::SCAN_SIZE_MIN as u32..5000];
    prop_oneof![
        5 => items().prop_map(Step::Item),
        3 => proptest::collection::vec(items(), 1..12).prop_map(Step::Batch),
        2 => (bounds(), bounds(), any::<(bool, bool)>(), 1u32..40, sizes)
            .prop_map(|(from, to, flags, count, size)| Step::Scan { from, to, flags, count, size }),
        1 => Just(Step::Count),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn store_agrees_with_its_model(steps in proptest::collection::vec(steps(), 1..120)) {
        let mut store = Checked::new(&Geometry::SMALL);
        for step in &steps {
            match step {
                Step::Item(item) => {
                    store.item(&item.item());
                }
                Step::Batch(items) => {
                    let items: Vec<_> = items.iter().map(Owned::item).collect();
                    store.batch(&items);
                }
                Step::Scan { from, to, flags, count, size } => {
                    let scan = Scan {
                        from: from.as_ref().map(|key| &key[..]),
                        to: to.as_ref().map(|key| &key[..]),
                        reverse: flags.0,
                        keys_only: flags.1,
                        count_max: *count,
                        size_max: *size,
                    };
                    let reply = store.scan(&scan);
                    prop_assert!(ScanReply::decode(&reply).is_some());
                }
                Step::Count => {
                    let reply = store.execute(Operation::Count, &[]).expect("a read");
                    let reply = CountReply::decode(&reply).expect("a count");
                    prop_assert_eq!(reply.count, store.model.map.len() as u64);
                }
            }
        }
    }

    #[test]
    fn requests_decode_to_what_was_encoded(items in proptest::collection::vec(items(), 1..10)) {
        let mut body = Vec::new();
        for item in &items {
            item.item().encode(&mut body);
        }
        let decoded = Items::decode(Operation::Batch, &body).expect("valid items");
        prop_assert!(decoded.eq(items.iter().map(Owned::item)));
        body.push(0);
        prop_assert!(Items::decode(Operation::Batch, &body).is_none(), "no byte may be left over");
        body.truncate(body.len() - 2);
        if !matches!(items.last(), Some(Owned::Get(..))) || items.len() == 1 {
            prop_assert!(Items::decode(Operation::Batch, &body).is_none(), "nor may one be missing");
        }
    }

    /// What is in the log was written by a correct primary, perhaps of another release; what a client sends, by anyone.
    #[test]
    fn any_bytes_are_answered(
        operation: u8,
        small in 0u8..10,
        mut body in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => 0u8..8, 1 => any::<u8>()], 0..300),
        valid in proptest::collection::vec(items(), 0..4),
        flip in any::<proptest::sample::Index>(),
        room in 0usize..400,
    ) {
        if !valid.is_empty() {
            body.clear();
            for item in &valid {
                item.item().encode(&mut body);
            }
            let at = flip.index(body.len().min(64));
            body[at] ^= 1 << (at % 8);
        }
        for operation in [operation, small] {
            let mut store = Checked::new(&Geometry::SMALL);
            let _ = Kv::validate(&store.limits, operation, &body);
            let mut bytes = vec![0; room];
            store.kv.commit(&mut store.pages, &CONTEXT, operation, &body, &mut ReplyBuffer::new(&mut bytes));
            store.kv.read(&store.pages, &CONTEXT, operation, &body, &mut ReplyBuffer::new(&mut bytes));
        }
        let _ = (ItemReply::decode(&body), CountReply::decode(&body));
        if let Some(reply) = BatchReply::decode(&body) {
            prop_assert_eq!(reply.results().count(), reply.len());
        }
        if let Some(reply) = ScanReply::decode(&body) {
            prop_assert_eq!(reply.entries().count(), reply.count as usize);
        }
    }
}

#[test]
fn compare_and_set_takes_values_and_absence() {
    let mut store = Checked::new(&Geometry::SMALL);
    let cas = |expected, value| Item::CompareAndSet {
        key: b"k",
        expected,
        value,
    };
    assert_eq!(
        store.item(&cas(Some(b"a"), b"b")),
        Some((Status::Mismatch, 0, vec![]))
    );
    assert_eq!(
        store.item(&cas(None, b"a")),
        Some((Status::Done, 1, vec![]))
    );
    assert_eq!(
        store.item(&cas(None, b"b")),
        Some((Status::Mismatch, 1, vec![]))
    );
    assert_eq!(
        store.item(&cas(Some(b"a"), b"")),
        Some((Status::Done, 2, vec![]))
    );
    assert_eq!(
        store.item(&cas(Some(b""), b"c")),
        Some((Status::Done, 3, vec![]))
    );
    let get = Item::Get {
        key: b"k",
        size_max: u32::MAX,
    };
    assert_eq!(store.item(&get), Some((Status::Value, 3, b"c".to_vec())));
    let get = Item::Get {
        key: b"k",
        size_max: 0,
    };
    assert_eq!(store.item(&get), Some((Status::TooLarge, 3, vec![])));
    assert_eq!(
        store.item(&Item::Delete { key: b"k" }),
        Some((Status::Done, 4, vec![]))
    );
    assert_eq!(
        store.item(&Item::Delete { key: b"k" }),
        Some((Status::NotFound, 0, vec![]))
    );
}

#[test]
fn batch_answers_each_item_in_order() {
    let mut store = Checked::new(&Geometry::SMALL);
    let get = Item::Get {
        key: b"k",
        size_max: 10,
    };
    let reply = store.batch(&[
        get,
        Item::Put {
            key: b"k",
            value: b"one",
        },
        get,
        Item::Delete { key: b"absent" },
        Item::CompareAndSet {
            key: b"k",
            expected: Some(b"one"),
            value: b"longer than ten",
        },
        get,
    ]);
    let reply = reply.expect("a valid batch");
    let results: Vec<_> = BatchReply::decode(&reply)
        .expect("a batch")
        .results()
        .collect();
    let statuses: Vec<_> = results
        .iter()
        .map(|result| (result.status, result.version))
        .collect();
    let expected = [
        (Status::NotFound, 0),
        (Status::Done, 1),
        (Status::Value, 1),
        (Status::NotFound, 0),
        (Status::Done, 2),
        (Status::TooLarge, 2),
    ];
    assert_eq!(statuses, expected);
    assert_eq!((results[2].value, results[5].value_size), (&b"one"[..], 15));
}

#[test]
fn scans_continue_until_all_was_seen() {
    let mut store = Checked::new(&Geometry::SMALL);
    for number in 0..200u8 {
        let value = vec![number; usize::from(number) * 3];
        store.item(&Item::Put {
            key: &[number / 100, number],
            value: &value,
        });
    }
    let mut buffer = [0; KEY_SIZE_MAX];
    let prefixed = Scan {
        from: Bound::Included(&[1]),
        to: prefix_end(&[1], &mut buffer),
        size_max: 700,
        ..Scan::ALL
    };
    for reverse in [false, true] {
        let mut seen = Vec::new();
        let mut last = Vec::new();
        loop {
            let mut scan = Scan {
                reverse,
                ..prefixed
            };
            if !last.is_empty() {
                let bound = if reverse {
                    &mut scan.to
                } else {
                    &mut scan.from
                };
                *bound = Bound::Excluded(&last);
            }
            let reply = store.scan(&scan);
            assert!(reply.len() <= 700);
            let reply = ScanReply::decode(&reply).expect("a scan");
            seen.extend(reply.entries().map(|entry| entry.key[1]));
            if !reply.more {
                break;
            }
            last = reply.entries().last().expect("progress").key.to_vec();
        }
        if reverse {
            seen.reverse();
        }
        assert!(seen.into_iter().eq(100..200));
    }
    assert_eq!(prefix_end(&[255, 255], &mut buffer), Bound::Unbounded);
    assert_eq!(
        prefix_end(&[1, 255], &mut buffer),
        Bound::Excluded(&[2][..])
    );
}

fn batch_is_valid(limits: &Limits, items: u32, key_size: usize, value_size: usize) -> bool {
    let mut body = Vec::new();
    for number in 0..items {
        let mut key = vec![0; key_size];
        key[..4].copy_from_slice(&number.to_be_bytes());
        Item::Put {
            key: &key,
            value: &vec![1; value_size],
        }
        .encode(&mut body);
    }
    Kv::validate(limits, Operation::Batch as u8, &body).is_ok()
}

#[test]
fn batches_are_as_large_as_documented() {
    let default = Limits::new(&Geometry::DEFAULT);
    assert!(batch_is_valid(&default, 1219, 16, 100));
    assert!(!batch_is_valid(&default, 1220, 16, 100));
    let large = Limits::new(&Geometry::LARGE);
    assert!(batch_is_valid(&large, 3824, 16, 100));
    assert!(!batch_is_valid(&large, 3825, 16, 100));
    let small = Limits::new(&Geometry::SMALL);
    let fit = small.request_size_max / (16 + 16 + 100);
    assert!(batch_is_valid(&small, fit as u32, 16, 100));
}

#[test]
fn largest_values_fit_every_geometry() {
    let huge = Geometry {
        message_size_max: 16 << 20,
        ..Geometry::DEFAULT
    };
    for geometry in [Geometry::SMALL, Geometry::DEFAULT, Geometry::LARGE, huge] {
        assert_eq!(geometry.check(), Ok(()));
        let mut store = Checked::new(&geometry);
        let size = value_size_max(&store.limits);
        assert!(size >= 64 << 10);
        let (key, value) = ([9; KEY_SIZE_MAX], vec![3; size]);
        let put = Item::Put {
            key: &key,
            value: &value,
        };
        assert_eq!(store.item(&put).map(|reply| reply.0), Some(Status::Done));
        assert_eq!(store.item(&put).map(|reply| reply.0), Some(Status::Done));
        let get = store.item(&Item::Get {
            key: &key,
            size_max: u32::MAX,
        });
        assert_eq!(get, Some((Status::Value, 2, value.clone())));
        let scanned = store.scan(&Scan::ALL);
        let scanned = ScanReply::decode(&scanned).expect("a scan");
        assert_eq!(
            scanned.entries().next().expect("one").value,
            Some(&value[..])
        );
        let longer = vec![3; size + 1];
        assert_eq!(
            store.item(&Item::Put {
                key: &key,
                value: &longer
            }),
            None
        );
        assert_eq!(
            store.item(&Item::Delete { key: &key }).map(|reply| reply.0),
            Some(Status::Done)
        );
    }
}

/// Fills a store until nothing goes in; whatever was admitted was executed. Then deletes, one by one and in batches, work
/// without a free page, and give all pages back.
#[test]
fn full_store_refuses_and_can_be_emptied() {
    let mut store = Checked::new(&Geometry::SMALL);
    let free_at_start = store.pages.free_count();
    let key_of = |number: u32| {
        [
            &(number.wrapping_mul(2_654_435_761)).to_be_bytes()[..],
            &[5; 60],
        ]
        .concat()
    };
    let mut number = 0;
    while store.refused < 50 {
        let value = vec![number as u8; (number as usize * 37) % 9000];
        let before = store.refused;
        let key = key_of(number);
        let items = [Item::Put {
            key: &key,
            value: &value,
        }; 2];
        if number % 3 == 0 {
            store.batch(&items)
        } else {
            store.item(&items[0]).map(|_| vec![])
        };
        number += u32::from(before == store.refused || value.len() < 9000 / 2);
    }
    assert!(
        store.pages.free_count() < 8,
        "{} pages are free",
        store.pages.free_count()
    );
    let keys: Vec<_> = store.model.map.keys().cloned().collect();
    for keys in keys.chunks(7) {
        let items: Vec<_> = keys.iter().map(|key| Item::Delete { key }).collect();
        let before = store.refused;
        if items.len() % 2 == 0 {
            store.item(&items[0]).map(|_| vec![])
        } else {
            store.batch(&items)
        };
        assert_eq!(store.refused, before);
    }
    for key in store.model.map.keys().cloned().collect::<Vec<_>>() {
        assert_eq!(
            store.item(&Item::Delete { key: &key }).map(|reply| reply.0),
            Some(Status::Done)
        );
    }
    assert_eq!(store.pages.free_count(), free_at_start);
}
