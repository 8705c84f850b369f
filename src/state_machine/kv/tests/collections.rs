//! Hashes, sets, lists and sorted sets.

mod list;
pub(super) mod sorted;

use super::owned::{Owned, keys, sizes, values};
use super::*;
use crate::state_machine::kv::store::PULSE_KEYS_MAX;
use crate::state_machine::kv::wire::{Action, ValueKind};

/// Items on collections, as the tests of the whole machine draw them.
pub(super) fn items() -> impl Strategy<Value = Owned> {
    // Boxed, so that what draws them has room on the stack of a test.
    prop_oneof![
        members().boxed(),
        list::items().boxed(),
        sorted::items().boxed()
    ]
}

fn encoded(key: &[u8], action: Action<'_>) -> Owned {
    let mut bytes = Vec::new();
    Item::Collection { key, action }.encode(&mut bytes);
    Owned::Collection(bytes)
}

/// Few, so that they meet; some of them long.
fn member_names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0u8..8).prop_map(|number| vec![b'm', number]),
        1 => (0u8..3).prop_map(|number| vec![number; KEY_SIZE_MAX]),
        1 => Just(vec![]),
    ]
}

fn kinds() -> impl Strategy<Value = ValueKind> {
    prop_oneof![Just(ValueKind::Hash), Just(ValueKind::Set)]
}

/// Actions on hashes and sets.
fn members() -> impl Strategy<Value = Owned> {
    let parts = (
        keys(),
        kinds(),
        member_names(),
        values(),
        any::<u64>(),
        sizes(),
        0u8..14,
    );
    parts.prop_map(|(key, kind, member, value, number, size_max, choice)| {
        let member = &member[..];
        let from = match number % 3 {
            0 => Bound::Unbounded,
            1 => Bound::Included(member),
            _ => Bound::Excluded(member),
        };
        let is_odd = number % 2 == 1;
        let value = if kind == ValueKind::Set {
            &[]
        } else {
            &value[..]
        };
        let action = match choice {
            0..=5 => Action::Insert {
                kind,
                member,
                value,
                if_absent: is_odd,
            },
            6 | 7 => Action::Remove { kind, member },
            8 => Action::Find {
                kind,
                member,
                size_max,
            },
            9 => Action::Add {
                member,
                delta: number.cast_signed(),
            },
            10 => Action::Add { member, delta: 1 },
            11 => Action::Members {
                kind,
                from,
                count_max: number as u32 % 10,
                values: is_odd,
                size_max,
            },
            12 => Action::Pick {
                kind,
                seed: number,
                take: is_odd,
            },
            _ => Action::Length { kind },
        };
        encoded(&key, action)
    })
}

const HASH: ValueKind = ValueKind::Hash;
const SET: ValueKind = ValueKind::Set;

fn act<'a>(key: &'a [u8], action: Action<'a>) -> Item<'a> {
    Item::Collection { key, action }
}

fn insert<'a>(key: &'a [u8], kind: ValueKind, member: &'a [u8], value: &'a [u8]) -> Item<'a> {
    let if_absent = false;
    act(
        key,
        Action::Insert {
            kind,
            member,
            value,
            if_absent,
        },
    )
}

#[test]
fn a_key_holds_one_kind_of_thing() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    assert_eq!(store.number(&insert(b"h", HASH, b"f", b"1")), 1);
    assert_eq!(store.number(&insert(b"h", HASH, b"f", b"2")), 0);
    let size_max = u32::MAX;
    let find = Action::Find {
        kind: HASH,
        member: b"f",
        size_max,
    };
    assert_eq!(
        store.item(&act(b"h", find)),
        Some((Status::Value, 2, b"2".to_vec()))
    );
    let key = &b"h"[..];
    for item in [
        Item::get(key),
        Item::GetRange {
            key,
            start: 0,
            end: 1,
            size_max,
        },
        Item::Take { key, size_max },
        Item::Append { key, value: b"x" },
        Item::SetRange {
            key,
            offset: 0,
            value: b"x",
        },
        Item::increment(key, 1),
        insert(key, SET, b"f", b""),
        act(key, Action::Length { kind: SET }),
    ] {
        assert_eq!(store.status(&item), Status::WrongType, "{item:?}");
    }
    store.status(&Item::put(b"s", b"bytes"));
    assert_eq!(
        store.status(&insert(b"s", HASH, b"f", b"")),
        Status::WrongType
    );
    // What replaces a key asks nobody what it was.
    store.status(&Item::put(key, b"bytes"));
    assert_eq!(store.value(key).as_deref(), Some(&b"bytes"[..]));
    assert!(store.kv.has_buried());
    store.finish();
}

#[test]
fn an_emptied_collection_is_gone_and_its_members_with_it() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    for kind in [HASH, SET] {
        store.number(&insert(b"k", kind, b"a", b""));
        store.number(&insert(b"k", kind, b"b", b""));
        for member in [b"a", b"b"] {
            assert_eq!(store.number(&act(b"k", Action::Remove { kind, member })), 1);
        }
        assert_eq!(store.status(&Item::Stat { key: b"k" }), Status::NotFound);
        let pick = Action::Pick {
            kind,
            seed: 1,
            take: true,
        };
        assert_eq!(store.status(&act(b"k", pick)), Status::NotFound);
        assert!(!store.kv.has_buried());
    }
    // One that is made anew does not have the members of the old one, and neither has another key.
    store.number(&insert(b"k", SET, b"old", b""));
    store.status(&Item::delete(b"k"));
    store.number(&insert(b"k", SET, b"new", b""));
    store.status(&Item::Rename {
        key: b"k",
        to: b"l",
        if_absent: false,
    });
    assert_eq!(store.number(&act(b"l", Action::Length { kind: SET })), 1);
    let all = Action::Members {
        kind: SET,
        from: Bound::Unbounded,
        count_max: 9,
        values: false,
        size_max: 100,
    };
    assert_eq!(store.status(&act(b"l", all)), Status::Members);
    store.finish();
}

#[test]
fn what_is_large_is_deleted_at_once_and_removed_by_pulses() {
    let mut store = Checked::with_limits(Limits::new(&Geometry::SMALL)).with_twin();
    let count = 3 * PULSE_KEYS_MAX + 5;
    for number in 0..count {
        let member = format!("member-{number}");
        store.number(&insert(b"large", SET, member.as_bytes(), b""));
    }
    store.status(&Item::delete(b"large"));
    assert_eq!(
        store.status(&Item::Stat { key: b"large" }),
        Status::NotFound
    );
    assert_eq!(
        store.kv.members.len(),
        u64::from(count) + 1,
        "and the graves"
    );
    let mut pulses = 0;
    while store.kv.has_buried() {
        store.wait_ms(2);
        assert!(store.pulse_if_due());
        pulses += 1;
    }
    assert!((4..=5).contains(&pulses), "{pulses}");
    assert_eq!(store.kv.members.len(), 1);
    store.finish();
}

/// There is a grave for each of them, also if all are deleted, or expire, at once.
#[test]
fn many_collections_die_together() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    let keys: Vec<_> = (0..1100).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        store.number(&insert(key.as_bytes(), HASH, b"field", b"value"));
    }
    assert_eq!(store.kv.grave_chunks, 3);
    for (place, key) in keys.iter().enumerate() {
        let key = key.as_bytes();
        match place % 3 {
            0 => store.status(&Item::delete(key)),
            1 => store.status(&Item::put(key, b"value")),
            _ => store.status(&Item::Expire {
                key,
                expiry: Expiry::In(5),
                condition: super::wire::ExpiryCondition::Always,
                size_max: None,
            }),
        };
    }
    assert_eq!(store.kv.collections + store.kv.buried, 1100);
    store.wait_ms(10);
    while store.pulse_if_due() {
        store.wait_ms(3);
    }
    assert_eq!((store.kv.collections, store.kv.buried), (0, 0));
    assert!(store.kv.members.len() <= 1, "one chunk is kept");
    store.finish();
}

#[test]
fn an_expired_collection_is_not_found_in_its_successor() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    store.number(&insert(b"k", HASH, b"a", b"1"));
    store.status(&Item::Expire {
        key: b"k",
        expiry: Expiry::In(5),
        condition: super::wire::ExpiryCondition::Always,
        size_max: None,
    });
    store.number(&insert(b"k", HASH, b"b", b"2"));
    assert!(store.expiry(b"k") > 0, "a change keeps the expiry");
    store.wait_ms(6);
    store.number(&insert(b"k", HASH, b"c", b"3"));
    assert_eq!(store.expiry(b"k"), 0);
    assert_eq!(store.number(&act(b"k", Action::Length { kind: HASH })), 1);
    store.finish();
}

#[test]
fn scores_order_as_numbers_do() {
    use super::wire::Score;
    let numbers = [
        f64::NEG_INFINITY,
        -1e300,
        -1.5,
        -f64::MIN_POSITIVE,
        0.0,
        5e-324,
        1.0,
        1e9,
    ];
    let scores: Vec<_> = numbers
        .iter()
        .map(|&it| Score::new(it).expect("a number"))
        .collect();
    assert!(
        scores.is_sorted()
            && scores
                .iter()
                .zip(numbers)
                .all(|(it, number)| it.get().total_cmp(&number).is_eq())
    );
    assert_eq!(Score::new(-0.0), Score::new(0.0));
    assert_eq!(Score::new(f64::NAN), None);
    for ordered in [0, 1, u64::MAX, 1 << 63, !(1 << 63)] {
        if let Some(score) = Score::from_ordered(ordered) {
            assert_eq!(
                (score.to_ordered(), Score::new(score.get())),
                (ordered, Some(score))
            );
        }
    }
}

/// Members, and keys of many small collections, until there is no room; then everything can be deleted all the same.
#[test]
fn a_store_full_of_collections_can_be_emptied() {
    let mut store = Checked::new(&Geometry::SMALL);
    let mut number = 0u32;
    while store.refused < 50 {
        let member = number.wrapping_mul(2_654_435_761).to_be_bytes();
        let small = [&b"small-"[..], &member].concat();
        let value = vec![number as u8; (number as usize * 37) % 3000];
        let key = if number.is_multiple_of(3) {
            &small[..]
        } else {
            b"large"
        };
        store.item(&insert(key, HASH, &member, &value));
        number += 1;
    }
    assert!(
        store.pages.free_count() < 16,
        "{}",
        store.pages.free_count()
    );
    let refused = store.refused;
    let keys: Vec<_> = store.model.map.keys().cloned().collect();
    assert!(keys.len() > 100);
    for key in &keys {
        assert_eq!(store.status(&Item::Delete { key }), Status::Done);
    }
    assert_eq!(store.refused, refused);
    while store.pulse_if_due() {
        store.wait_ms(3);
    }
    assert!(store.kv.members.len() <= 1);
    assert_eq!(store.number(&insert(b"new", HASH, b"f", b"")), 1);
    store.finish();
}
