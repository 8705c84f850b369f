//! Lists.

use super::super::owned::{Owned, keys, sizes, values};
use super::super::*;
use super::{act, encoded};
use crate::state_machine::kv::wire::{Action, End, ExpiryCondition, TRIM_MAX, ValueKind};

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::First), Just(End::Last)]
}

fn places() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => -6i64..6,
        1 => -600i64..600,
        1 => prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(i64::MIN + 1)],
    ]
}

/// Few keys, so that lists become long; and those of everybody, to meet what is no list.
fn list_keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => (0u8..3).prop_map(|number| vec![b'l', number]), 1 => keys()]
}

/// Actions on lists, as the tests of the whole machine draw them.
pub(super) fn items() -> impl Strategy<Value = Owned> {
    let parts = (
        list_keys(),
        ends(),
        values(),
        (places(), places()),
        sizes(),
        (any::<bool>(), list_keys(), ends()),
        0u8..20,
    );
    parts.prop_map(
        |(key, end, value, (start, stop), size_max, (flag, to, to_end), choice)| {
            let (value, to) = (&value[..], &to[..]);
            let action = match choice {
                0..=6 => Action::Push {
                    end,
                    value,
                    if_present: flag && choice == 0,
                },
                7 | 8 => Action::Pop { end, size_max },
                9 | 10 => Action::At {
                    index: start,
                    size_max,
                },
                11 => Action::Replace {
                    index: start,
                    value,
                },
                12 | 13 => Action::Range {
                    start,
                    stop,
                    size_max,
                },
                14 => Action::Trim { start, stop },
                15 | 16 => Action::Take {
                    end,
                    count: start.unsigned_abs().clamp(1, TRIM_MAX) as u32,
                    size_max,
                },
                17 | 18 => Action::Move {
                    to,
                    from_end: end,
                    to_end,
                    size_max: Some(size_max).filter(|_| flag),
                },
                _ => Action::Length {
                    kind: ValueKind::List,
                },
            };
            encoded(&key, action)
        },
    )
}

const KEY: &[u8] = b"list";

const ALL: Action<'_> = Action::Range {
    start: 0,
    stop: -1,
    size_max: u32::MAX,
};

fn push(end: End, value: &[u8]) -> Item<'_> {
    let if_present = false;
    act(
        KEY,
        Action::Push {
            end,
            value,
            if_present,
        },
    )
}

fn pop(end: End) -> Item<'static> {
    let size_max = u32::MAX;
    act(KEY, Action::Pop { end, size_max })
}

fn trim(start: i64, stop: i64) -> Item<'static> {
    act(KEY, Action::Trim { start, stop })
}

impl Checked {
    /// Elements of the list, and whether there are more.
    fn elements(&mut self, action: Action<'_>) -> (Vec<Vec<u8>>, bool) {
        let mut body = Vec::new();
        act(KEY, action).encode(&mut body);
        let reply = self.execute(Operation::Collection, &body).expect("valid");
        let reply = ItemReply::decode(&reply).expect("a reply to an item");
        match reply.status {
            Status::NotFound => (vec![], false),
            Status::Members | Status::DoneMembers => {
                (reply.members.map(<[u8]>::to_vec).collect(), reply.more)
            }
            other => panic!("{other:?}"),
        }
    }

    fn push_numbers(&mut self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.number(&push(End::Last, &number.to_be_bytes()));
        }
    }

    fn revision_after(&mut self, item: &Item<'_>) -> (Status, u64) {
        (self.status(item), self.kv.revision())
    }
}

#[test]
fn a_list_is_pushed_to_and_popped_from_both_ends() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    for (count, (end, value)) in [
        (End::First, b"b"),
        (End::First, b"a"),
        (End::Last, b"c"),
        (End::Last, b"d"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(
            store.number(&push(end, value)),
            count.cast_signed() as i64 + 1
        );
    }
    let all = [b"a", b"b", b"c", b"d"].map(|it| it.to_vec());
    assert_eq!(store.elements(ALL), (all.to_vec(), false));
    let size_max = 10; // two elements with their sizes
    let (start, stop) = (-3, i64::MAX);
    let range = Action::Range {
        start,
        stop,
        size_max,
    };
    assert_eq!(store.elements(range), (all[1..3].to_vec(), true));
    for (end, value) in [
        (End::Last, b"d"),
        (End::First, b"a"),
        (End::First, b"b"),
        (End::First, b"c"),
    ] {
        let (status, _, found) = store.item(&pop(end)).expect("valid");
        assert_eq!((status, &found[..]), (Status::DoneValue, &value[..]));
    }
    assert_eq!(store.status(&pop(End::First)), Status::NotFound);
    assert_eq!(store.status(&Item::Stat { key: KEY }), Status::NotFound);
    assert!(!store.kv.has_buried(), "it had no members any more");
    let push = Action::Push {
        end: End::Last,
        value: b"",
        if_present: true,
    };
    assert_eq!(store.number(&act(KEY, push)), 0);
    assert_eq!(store.status(&Item::Stat { key: KEY }), Status::NotFound);
    store.finish();
}

#[test]
fn what_changes_a_list_makes_one_version_of_its_key() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    store.push_numbers(0..6);
    let replace = |index| {
        let value = &[7; 2000];
        act(KEY, Action::Replace { index, value })
    };
    let large = Action::Pop {
        end: End::Last,
        size_max: 1999,
    };
    for (item, status, revision) in [
        (replace(-1), Status::Done, 7),
        (replace(6), Status::Mismatch, 7),
        (replace(-7), Status::Mismatch, 7),
        (act(KEY, large), Status::TooLarge, 7),
        (pop(End::Last), Status::DoneValue, 8),
        // Redis also takes a trim that removes nothing for a change.
        (trim(0, -1), Status::Done, 9),
        (trim(1, -2), Status::Done, 10),
        (act(KEY, ALL), Status::Members, 10),
        (trim(5, 9), Status::Done, 11),
        (trim(5, 9), Status::NotFound, 11),
        (replace(0), Status::NotFound, 11),
    ] {
        assert_eq!(store.revision_after(&item), (status, revision), "{item:?}");
    }
    assert!(store.kv.has_buried());
    store.finish();
}

#[test]
fn several_elements_are_taken_all_or_none() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    let take = |end, count, size_max| Action::Take {
        end,
        count,
        size_max,
    };
    store.push_numbers(0..10);
    let told = |numbers: &[u32]| -> Vec<Vec<u8>> {
        let bytes = numbers.iter().map(|it| it.to_be_bytes().to_vec());
        bytes.collect()
    };
    let first = take(End::First, 3, u32::MAX);
    assert_eq!(store.elements(first), (told(&[0, 1, 2]), false));
    let last = take(End::Last, 3, 24);
    assert_eq!(store.elements(last), (told(&[9, 8, 7]), false));
    let small = act(KEY, take(End::First, 3, 23));
    assert_eq!(store.revision_after(&small), (Status::TooLarge, 12));
    let all = take(End::First, TRIM_MAX as u32, u32::MAX);
    assert_eq!(store.elements(all), (told(&[3, 4, 5, 6]), false));
    assert_eq!(store.revision_after(&small), (Status::NotFound, 13));
    assert!(!store.kv.has_buried());
    store.push_numbers(0..TRIM_MAX as u32 + 9);
    assert_eq!(store.elements(all).0.len(), TRIM_MAX as usize);
    for count in [0, TRIM_MAX as u32 + 1] {
        let mut body = Vec::new();
        act(KEY, take(End::First, count, 1)).encode(&mut body);
        assert_eq!(store.execute(Operation::Collection, &body), None);
    }
    store.finish();
}

#[test]
fn a_move_is_one_change_of_both_lists() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    let shift = |to, from_end, to_end, size_max| {
        let size_max = Some(size_max);
        let action = Action::Move {
            to,
            from_end,
            to_end,
            size_max,
        };
        act(KEY, action)
    };
    let max = u32::MAX;
    store.push_numbers(0..2);
    store.number(&push(End::Last, &[9; 5000]));
    let moved = store.item(&shift(b"to", End::First, End::Last, max));
    let (status, version, found) = moved.expect("valid");
    assert_eq!((status, version, found.len()), (Status::DoneValue, 4, 4));
    for key in [KEY, b"to"] {
        let stat = store.item(&Item::Stat { key }).expect("valid");
        assert_eq!(stat.1, 4, "one change of both");
    }
    for (item, expected) in [
        (shift(b"to", End::Last, End::First, 4999), Status::TooLarge),
        (shift(KEY, End::Last, End::First, max), Status::TooLarge),
        (shift(KEY, End::First, End::Last, max), Status::DoneValue),
        (shift(KEY, End::Last, End::Last, max), Status::DoneValue),
    ] {
        assert_eq!(store.status(&item), expected, "{item:?}");
    }
    let quiet = Action::Move {
        to: b"to",
        from_end: End::First,
        to_end: End::First,
        size_max: None,
    };
    assert_eq!(store.revision_after(&act(KEY, quiet)), (Status::Done, 7));
    store.status(&Item::put(b"bytes", b""));
    let wrong = shift(b"bytes", End::First, End::First, max);
    assert_eq!(store.status(&wrong), Status::WrongType);
    // The last element leaves a key that is absent, and what expires is no list to come to.
    store.status(&Item::Expire {
        key: b"to",
        expiry: Expiry::In(5),
        condition: ExpiryCondition::Always,
        size_max: None,
    });
    store.wait_ms(6);
    let last = shift(b"to", End::First, End::Last, max);
    assert_eq!(store.status(&last), Status::DoneValue);
    let length = Action::Length {
        kind: ValueKind::List,
    };
    assert_eq!(store.number(&act(b"to", length)), 1);
    assert_eq!((store.expiry(b"to"), store.kv.collections), (0, 1));
    assert_eq!(store.status(&last), Status::NotFound);
    assert_eq!(store.status(&wrong), Status::NotFound);
    store.finish();
}

#[test]
fn a_trim_removes_a_bounded_number_of_elements_or_all() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    let (max, count) = (TRIM_MAX.cast_signed(), 3 * TRIM_MAX as u32);
    store.push_numbers(0..count);
    for (start, stop) in [(max + 1, -1), (0, -max - 2), (max - 9, -12)] {
        let size_max = u32::MAX;
        let (status, ..) = store.item(&trim(start, stop)).expect("valid");
        assert_eq!(status, Status::TooLarge);
        let first = store.item(&act(KEY, Action::At { index: 0, size_max }));
        assert_eq!(first.expect("valid").2, 0u32.to_be_bytes(), "nothing is");
    }
    assert_eq!(store.status(&trim(max - 10, -11)), Status::Done);
    assert_eq!(store.status(&trim(max, -1)), Status::Done);
    let left: Vec<_> = (count - 266..count - 10)
        .map(|it| it.to_be_bytes().to_vec())
        .collect();
    assert_eq!(store.elements(ALL), (left, false));
    store.push_numbers(0..count);
    assert_eq!(store.status(&trim(2, 1)), Status::Done);
    assert_eq!(store.kv.collections, 0);
    assert!(store.kv.members.len() > u64::from(count));
    while store.kv.has_buried() {
        store.wait_ms(2);
        assert!(store.pulse_if_due());
    }
    assert_eq!(store.kv.members.len(), 1, "the graves");
    store.finish();
}

/// A trim that frees chains of pages, and one that expires: what is removed gives its pages back.
#[test]
fn long_elements_come_and_go() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    let size = value_size_max(&store.limits);
    let (value, longer) = (vec![5; size], vec![5; size + 1]);
    assert_eq!(store.number(&push(End::First, &value)), 1);
    assert_eq!(store.status(&push(End::First, &longer)), Status::TooLong);
    assert_eq!(store.elements(ALL), (vec![value.clone()], false));
    let replace = |value| act(KEY, Action::Replace { index: 0, value });
    assert_eq!(store.status(&replace(&longer)), Status::TooLong);
    assert_eq!(store.status(&replace(b"short")), Status::Done);
    for number in 0..TRIM_MAX as usize {
        let end = [End::First, End::Last][number % 2];
        store.number(&push(end, &value[..961 + number * 30]));
    }
    assert_eq!(store.status(&trim(127, -127)), Status::Done);
    assert_eq!(store.elements(ALL).0.len(), 4);
    store.status(&Item::Expire {
        key: KEY,
        expiry: Expiry::In(5),
        condition: ExpiryCondition::Always,
        size_max: None,
    });
    store.wait_ms(6);
    assert_eq!(store.number(&push(End::Last, &value)), 1);
    assert_eq!(store.expiry(KEY), 0);
    assert!(store.kv.has_buried());
    store.finish();
}

/// Like deletes, what only removes members needs no free page.
#[test]
fn a_full_store_can_be_popped_from() {
    let mut store = Checked::new(&Geometry::SMALL);
    store.push_numbers(0..600);
    for value in [&[7; 3000][..], b""] {
        while store.status(&push(End::Last, value)) != Status::OutOfSpace {}
    }
    let refused = store.refused;
    for _ in 0..10 {
        assert_eq!(store.status(&pop(End::First)), Status::DoneValue);
    }
    assert_eq!(
        store.status(&trim(TRIM_MAX.cast_signed(), -1)),
        Status::Done
    );
    assert_eq!(store.status(&trim(0, -3)), Status::Done);
    assert_eq!(store.status(&pop(End::Last)), Status::DoneValue);
    assert_eq!(store.refused, refused);
    assert_eq!(store.status(&push(End::First, b"")), Status::DoneNumber);
    store.finish();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Lists longer than what a trim removes, among others whose members lie around theirs.
    #[test]
    fn long_lists_agree_with_their_model(
        steps in proptest::collection::vec((0u32..200, ends(), -700i64..700, -700i64..700, values()), 1..25),
    ) {
        let mut store = Checked::new(&Geometry::SMALL).with_twin();
        for (place, (count, end, start, stop, value)) in steps.iter().enumerate() {
            let key = &[b'l', place as u8 % 2][..];
            let number = count.to_be_bytes();
            let value = if count % 8 == 0 { &value[..] } else { &number[..] };
            let (end, if_present) = (*end, false);
            let pushes = vec![act(key, Action::Push { end, value, if_present }); *count as usize];
            for pushes in pushes.chunks(40) {
                store.batch(pushes);
            }
            let trim = Action::Trim { start: *start, stop: *stop };
            store.batch(&[act(key, trim), act(key, ALL), act(key, Action::At { index: *stop, size_max: 9 })]);
            store.wait_ms(place as u64 % 3);
            store.pulse_if_due();
        }
        store.finish();
    }
}
