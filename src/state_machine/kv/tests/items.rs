//! What single items do, and what batches and transactions make of them.

use super::*;
use crate::state_machine::kv::execute::{parse, range_of};
use crate::state_machine::kv::wire::{ITEM_HEADER_SIZE, SetCondition};

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

#[test]
fn numbers_are_read_as_they_are_written() {
    for (text, number) in [
        ("0", Some(0)),
        ("-1", Some(-1)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("", None),
        ("-", None),
        ("-0", None),
        ("00", None),
        ("01", None),
        ("+1", None),
        (" 1", None),
        ("1 ", None),
        ("1.0", None),
        ("000000000000000000001", None),
    ] {
        assert_eq!(parse(text.as_bytes()), number, "{text}");
    }
}

#[test]
fn increments_count_and_do_not_overflow() {
    let mut store = Checked::new(&Geometry::SMALL);
    let add = |delta| Item::Increment { key: b"n", delta };
    assert_eq!(store.number(&add(5)), 5);
    assert_eq!(store.number(&add(-12)), -7);
    assert_eq!(store.value(b"n").as_deref(), Some(&b"-7"[..]));
    assert_eq!(store.number(&add(i64::MIN + 7)), i64::MIN);
    assert_eq!(store.status(&add(-1)), Status::Overflow);
    assert_eq!(store.number(&add(0)), i64::MIN);
    store.item(&Item::Put {
        key: b"n",
        value: b"x",
    });
    assert_eq!(store.status(&add(1)), Status::NotANumber);
    store.item(&Item::Put {
        key: b"n",
        value: &[b'1'; 5000],
    });
    assert_eq!(store.status(&add(1)), Status::NotANumber);
}

#[test]
fn ranges_are_cut_as_redis_cuts_them() {
    for (size, start, end, range) in [
        (5, 0, -1, 0..5),
        (5, 1, 2, 1..3),
        (5, -3, -2, 2..4),
        (5, -100, 1, 0..2),
        (5, 3, 100, 3..5),
        (5, 3, 2, 0..0),
        (5, 5, 9, 0..0),
        (5, -1, -2, 0..0),
        // Both before the value: the first byte, as Redis has it.
        (5, -10, -9, 0..1),
        (5, i64::MIN, i64::MAX, 0..5),
        (0, 0, -1, 0..0),
    ] {
        assert_eq!(range_of(size, start, end), range, "{size} {start} {end}");
    }
}

#[test]
fn bytes_are_added_and_overwritten_where_they_lie() {
    let mut store = Checked::new(&Geometry::SMALL);
    let key = b"k";
    let empty = Item::SetRange {
        key,
        offset: 9,
        value: b"",
    };
    assert_eq!(store.number(&empty), 0);
    assert_eq!(store.value(key), None);
    assert_eq!(
        store.number(&Item::SetRange {
            key,
            offset: 3,
            value: b"ab"
        }),
        5
    );
    assert_eq!(store.number(&Item::Append { key, value: b"" }), 5);
    assert_eq!(
        store.number(&Item::Append {
            key,
            value: &[b'c'; 2000]
        }),
        2005
    );
    assert_eq!(
        store.number(&Item::SetRange {
            key,
            offset: 9000,
            value: b"d"
        }),
        9001
    );
    assert_eq!(
        store.number(&Item::SetRange {
            key,
            offset: 4,
            value: &[b'e'; 5000]
        }),
        9001
    );
    let expected = [&b"\0\0\0a"[..], &[b'e'; 5000], &[0; 3996], b"d"].concat();
    assert_eq!(store.value(key), Some(expected));
    let limit = value_size_max(&store.limits);
    for offset in [limit as u32, u32::MAX] {
        let item = Item::SetRange {
            key,
            offset,
            value: b"x",
        };
        assert_eq!(store.status(&item), Status::TooLong);
    }
    let fills = Item::SetRange {
        key,
        offset: limit as u32 - 1,
        value: b"x",
    };
    assert_eq!(usize::try_from(store.number(&fills)), Ok(limit));
    assert_eq!(
        store.status(&Item::Append { key, value: b"x" }),
        Status::TooLong
    );
}

#[test]
fn set_has_conditions_and_tells_what_was() {
    let mut store = Checked::new(&Geometry::SMALL);
    let set = |condition, old| Item::Set {
        key: b"k",
        value: b"v",
        options: SetOptions {
            condition,
            old,
            ..SetOptions::default()
        },
    };
    let value = || b"v".to_vec();
    for (condition, old, outcome) in [
        (SetCondition::Present, true, (Status::Mismatch, 0, vec![])),
        (
            SetCondition::Version(7),
            false,
            (Status::Mismatch, 0, vec![]),
        ),
        (SetCondition::Version(0), true, (Status::Done, 1, vec![])),
        (
            SetCondition::Version(1),
            true,
            (Status::DoneValue, 2, value()),
        ),
        (
            SetCondition::Version(1),
            true,
            (Status::MismatchValue, 2, value()),
        ),
        (
            SetCondition::Absent,
            true,
            (Status::MismatchValue, 2, value()),
        ),
        (SetCondition::Absent, false, (Status::Mismatch, 2, vec![])),
        (SetCondition::Present, true, (Status::DoneValue, 3, value())),
        (SetCondition::Always, false, (Status::Done, 4, vec![])),
    ] {
        assert_eq!(
            store.item(&set(condition, old)),
            Some(outcome),
            "{condition:?}"
        );
    }
    // What does not fit the reply to a write stays what it was.
    store.item(&Item::Put {
        key: b"k",
        value: &[1; 5000],
    });
    assert_eq!(
        store.status(&set(SetCondition::Always, true)),
        Status::TooLarge
    );
    let take = Item::Take {
        key: b"k",
        size_max: u32::MAX,
    };
    assert_eq!(store.status(&take), Status::TooLarge);
    assert_eq!(store.value(b"k"), Some(vec![1; 5000]));
}

#[test]
fn rename_moves_values_of_any_size() {
    let mut store = Checked::new(&Geometry::SMALL);
    let rename = |key, to, if_absent| Item::Rename { key, to, if_absent };
    assert_eq!(store.status(&rename(b"a", b"a", false)), Status::NotFound);
    for size in [0, 10, 944, 945, 9000] {
        let value = vec![3; size];
        store.item(&Item::Put {
            key: b"a",
            value: &value,
        });
        store.item(&Item::Put {
            key: b"b",
            value: &[1; 5000],
        });
        assert_eq!(store.status(&rename(b"a", b"b", true)), Status::Mismatch);
        assert_eq!(store.status(&rename(b"a", b"a", true)), Status::Mismatch);
        assert_eq!(store.status(&rename(b"a", b"a", false)), Status::Done);
        assert_eq!(store.status(&rename(b"a", b"b", false)), Status::Done);
        assert_eq!((store.value(b"a"), store.value(b"b")), (None, Some(value)));
    }
    store.finish();
}

/// A transaction does one list or the other, and its conditions see what came before it in the batch.
#[test]
fn transactions_do_one_list_or_the_other() {
    let mut store = Checked::new(&Geometry::SMALL);
    let then = [
        Item::Increment {
            key: b"n",
            delta: 1,
        },
        Item::Stat { key: b"n" },
    ];
    let otherwise = [Item::Get {
        key: b"n",
        size_max: 10,
    }];
    let transaction = |conditions: &[Condition<'_>]| {
        TransactionBytes::new(conditions, &then, &otherwise).expect("a short one")
    };
    let first = transaction(&[Condition::absent(b"n"), Condition::present(b"m")]);
    let again = transaction(&[Condition::version(b"n", 2), Condition::value(b"m", b"x")]);
    let items = [
        first.item().expect("valid"),
        Item::Put {
            key: b"m",
            value: b"x",
        },
        first.item().expect("valid"),
        first.item().expect("valid"),
        again.item().expect("valid"),
    ];
    let reply = store.batch(&items).expect("a valid batch");
    let reply = BatchReply::decode(&reply).expect("a reply to a batch");
    let outcomes: Vec<_> = reply
        .results()
        .map(|it| {
            (
                it.status,
                it.results
                    .map(|it| (it.status, it.version))
                    .collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            (Status::Failed, vec![(Status::NotFound, 0)]),
            (Status::Done, vec![]),
            (
                Status::Succeeded,
                vec![(Status::DoneNumber, 2), (Status::Stat, 2)]
            ),
            (Status::Failed, vec![(Status::Value, 2)]),
            (
                Status::Succeeded,
                vec![(Status::DoneNumber, 3), (Status::Stat, 3)]
            ),
        ]
    );
}

#[test]
fn transactions_that_only_read_are_reads_and_none_is_in_another() {
    let mut store = Checked::new(&Geometry::SMALL);
    let gets = [Item::Get {
        key: b"n",
        size_max: 10,
    }];
    let reads = TransactionBytes::new(&[Condition::present(b"n")], &gets, &gets);
    let reads = reads.expect("a short one");
    let plan = Kv::validate(
        &store.limits,
        Operation::Transaction as u8,
        reads.as_bytes(),
    );
    assert!(plan.is_ok_and(|plan| plan.read_only));
    assert_eq!(store.status(&reads.item().expect("valid")), Status::Failed);
    let nested = [reads.item().expect("valid")];
    assert_eq!(TransactionBytes::new(&[], &nested, &[]), None);
    let plain = TransactionBytes::new(&[], &gets, &[]).expect("a short one");
    let mut bytes = plain.as_bytes().to_vec();
    assert!(Item::decode(&bytes).is_some());
    let at = ITEM_HEADER_SIZE;
    bytes[at] = Operation::Transaction as u8;
    assert!(Item::decode(&bytes).is_none(), "none in another");
}
