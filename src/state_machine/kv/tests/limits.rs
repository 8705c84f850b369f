//! Limits, and space that runs out.

use super::*;
use crate::state_machine::kv::store::PULSE_KEYS_MAX;
use crate::state_machine::kv::wire::{Action, End, ExpiryCondition, ITEM_HEADER_SIZE};
use storage::collections::ordered_map::{Cost, Trash};

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
    assert!(batch_is_valid(&default, 572, 16, 100));
    assert!(!batch_is_valid(&default, 573, 16, 100));
    let large = Limits::new(&Geometry::LARGE);
    assert!(batch_is_valid(&large, 2321, 16, 100));
    assert!(!batch_is_valid(&large, 2322, 16, 100));
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
            (longer.len() + ITEM_HEADER_SIZE + key.len() <= store.limits.request_size_max)
                .then_some((Status::TooLong, 0, vec![]))
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

/// Fills a store with values of one page each until nothing goes in.
fn filled() -> Checked {
    let mut store = Checked::new(&Geometry::SMALL);
    let mut number = 0u32;
    while store.refused == 0 {
        store.item(&Item::Put {
            key: &number.to_be_bytes(),
            value: &[7; 3000],
        });
        number += 1;
    }
    store
}

/// Out of space hits the item that needs it: others of the batch are done, and a transaction is done or not.
#[test]
fn out_of_space_is_an_answer_to_one_item() {
    let mut store = filled();
    let put = Item::Put {
        key: b"new",
        value: &[1; 9000],
    };
    let transaction = TransactionBytes::new(&[], &[Item::Delete { key: &[0; 4] }, put], &[]);
    let transaction = transaction.expect("a short one");
    let items = [
        put,
        Item::Delete {
            key: &1u32.to_be_bytes(),
        },
        transaction.item().expect("valid"),
        Item::Stat {
            key: &2u32.to_be_bytes(),
        },
    ];
    // The transaction is refused though its own delete would give it a page.
    let mut body = Vec::new();
    for item in &items {
        item.encode(&mut body);
    }
    let reply = store.batch(&items).expect("a valid batch");
    let reply = BatchReply::decode(&reply).expect("a reply to a batch");
    let statuses: Vec<_> = reply.results().map(|it| it.status).collect();
    let refused = Status::OutOfSpace;
    assert_eq!(statuses, [refused, Status::Done, refused, Status::Stat]);
    assert!(store.value(&[0; 4]).is_some());
    assert_eq!(store.value(b"new"), None);
}

/// What was cleared is space at once for those who need it, before any pulse.
#[test]
fn a_full_store_that_is_cleared_takes_writes_at_once() {
    let mut store = filled();
    assert_eq!(store.status(&Item::Clear), Status::Done);
    assert!(
        store.kv.deadline_ns(&store.pages).is_some(),
        "there is more to free"
    );
    let free = store.pages.free_count();
    let mut number = 0u32;
    while store.refused == 1 {
        store.item(&Item::Put {
            key: &number.to_be_bytes(),
            value: &[7; 3000],
        });
        number += 1;
    }
    assert!(number > free * 3 / 2, "{number} of {free}");
    store.finish();
}

/// What the description of the wire promises of every geometry of the default's size or larger.
#[test]
fn three_hundred_items_are_always_valid() {
    let value = [7; 65_536 / 300];
    let expiry = Expiry::In(5);
    let options = SetOptions {
        expiry,
        ..SetOptions::default()
    };
    let key = b"k";
    let of = |action| Item::Collection { key, action };
    let kinds = [
        Item::Put { key, value: &value },
        Item::Set {
            key,
            value: &value,
            options,
        },
        Item::CompareAndSet {
            key,
            expected: None,
            value: &value,
        },
        Item::Append { key, value: &value },
        Item::SetRange {
            key,
            offset: 100,
            value: &value,
        },
        Item::Increment { key, delta: 1 },
        Item::Expire {
            key,
            expiry,
            condition: ExpiryCondition::Always,
            size_max: None,
        },
        Item::Delete { key },
        of(Action::Push {
            end: End::Last,
            value: &value,
            if_present: false,
        }),
        of(Action::Replace {
            index: -1,
            value: &value,
        }),
    ];
    let trim = of(Action::Trim { start: 0, stop: 0 });
    let sizes = [
        (256 << 20, 256 << 10),
        (300 << 20, 256 << 10),
        (1 << 30, 1 << 20),
        (64 << 30, 16 << 20),
    ];
    for (state_size, message_size_max) in sizes {
        let geometry = Geometry {
            state_size,
            message_size_max,
            ..Geometry::DEFAULT
        };
        assert_eq!(geometry.check(), Ok(()));
        for (item, count) in kinds.iter().map(|it| (it, 300)).chain([(&trim, 4)]) {
            let mut body = Vec::new();
            for _ in 0..count {
                item.encode(&mut body);
            }
            let limits = Limits::new(&geometry);
            let plan = Kv::validate(&limits, Operation::Batch as u8, &body);
            assert!(plan.is_ok(), "{item:?} in {state_size}");
        }
    }
}

/// Before a pulse nobody asks what it may touch: it must be what the largest request may.
#[test]
fn pulses_touch_no_more_than_requests_may() {
    for state_size in [
        7 << 20,
        64 << 20,
        256 << 20,
        300 << 20,
        1 << 30,
        1 << 36,
        1 << 42,
    ] {
        let geometry = Geometry {
            state_size,
            ..Geometry::SMALL
        };
        assert_eq!(geometry.check(), Ok(()));
        let cost = Cost::of_maps(geometry.page_count(), 2);
        // Each page that it frees may have its bit in another page of the allocator's.
        let freed = PULSE_PAGES + geometry.message_size_max / 4096 + 2 * PULSE_KEYS_MAX;
        let bitmap_pages = geometry.page_count().div_ceil(4096 * 8).min(freed);
        let nodes = cost.nodes_touched_max(2 * PULSE_KEYS_MAX);
        let touched = nodes + Trash::PAGES_TOUCHED_MAX + bitmap_pages;
        let touched = touched.min(geometry.page_count());
        assert!(touched <= geometry.pages_touched_max(), "{state_size}");
    }
}
