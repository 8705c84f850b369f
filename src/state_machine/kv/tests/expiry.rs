//! Keys that expire.

use super::*;
use crate::state_machine::kv::store::{PULSE_INTERVAL_NS, PULSE_KEYS_MAX};
use crate::state_machine::kv::wire::ExpiryCondition;

fn set_until(store: &mut Checked, key: &[u8], value: &[u8], expiry: Expiry) -> Status {
    let options = SetOptions {
        expiry,
        ..SetOptions::default()
    };
    store.status(&Item::Set {
        key,
        value,
        options,
    })
}

#[test]
fn keys_are_gone_when_their_time_has_come_and_not_before() {
    let mut store = Checked::new(&Geometry::SMALL);
    assert_eq!(
        set_until(&mut store, b"k", b"v", Expiry::In(10)),
        Status::Done
    );
    assert_eq!(store.expiry(b"k"), BEGIN_MS + 10);
    store.wait_ms(9);
    store.status(&Item::Put {
        key: b"other",
        value: b"",
    });
    assert_eq!(store.value(b"k").as_deref(), Some(&b"v"[..]));
    assert!(!store.pulse_if_due());
    store.wait_ms(1);
    // Nothing has been committed since: to a read it is still that time, unless the pulse comes first, as it does.
    assert!(store.value(b"k").is_some());
    assert!(store.pulse_if_due() && !store.pulse_if_due());
    assert_eq!(store.value(b"k"), None);
    assert_eq!(store.kv.map.len(), 1);
    assert_eq!(
        set_until(&mut store, b"k", b"w", Expiry::At(BEGIN_MS + 11)),
        Status::Done
    );
    store.wait_ms(1);
    // Without a pulse: whoever looks finds nothing, and the next write of the key finds its place.
    store.status(&Item::Put {
        key: b"other",
        value: b"",
    });
    assert_eq!((store.value(b"k"), store.kv.map.len()), (None, 2));
    assert_eq!(
        store.number(&Item::Increment {
            key: b"k",
            delta: 7
        }),
        7
    );
    assert_eq!(store.expiry(b"k"), 0);
    store.finish();
}

#[test]
fn expiries_that_are_past_delete() {
    let mut store = Checked::new(&Geometry::SMALL);
    for expiry in [Expiry::At(0), Expiry::At(BEGIN_MS), Expiry::In(0)] {
        store.status(&Item::Put {
            key: b"k",
            value: b"v",
        });
        let revision = store.kv.revision();
        assert_eq!(set_until(&mut store, b"k", b"w", expiry), Status::Done);
        assert_eq!((store.value(b"k"), store.kv.map.len()), (None, 0));
        store.status(&Item::Put {
            key: b"k",
            value: b"v",
        });
        let expire = Item::Expire {
            key: b"k",
            expiry,
            condition: ExpiryCondition::Always,
            size_max: None,
        };
        assert_eq!(store.status(&expire), Status::Done);
        assert_eq!(store.kv.revision(), revision + 3);
        assert_eq!((store.value(b"k"), store.kv.map.len()), (None, 0));
        assert_eq!(store.status(&expire), Status::NotFound);
    }
}

#[test]
fn conditions_of_an_expiry_compare_with_the_one_before() {
    let mut store = Checked::new(&Geometry::SMALL);
    store.status(&Item::Put {
        key: b"k",
        value: b"v",
    });
    let expire = |time, condition| Item::Expire {
        key: b"k",
        expiry: time,
        condition,
        size_max: None,
    };
    let (soon, late) = (Expiry::In(100), Expiry::In(1000));
    for (time, condition, status) in [
        (soon, ExpiryCondition::Present, Status::Mismatch),
        (soon, ExpiryCondition::Later, Status::Mismatch),
        (late, ExpiryCondition::PresentEarlier, Status::Mismatch),
        (late, ExpiryCondition::Earlier, Status::Done),
        (late, ExpiryCondition::Absent, Status::Mismatch),
        (soon, ExpiryCondition::Later, Status::Mismatch),
        (late, ExpiryCondition::PresentEarlier, Status::Mismatch),
        (soon, ExpiryCondition::PresentEarlier, Status::Done),
        (late, ExpiryCondition::Later, Status::Done),
        (Expiry::Never, ExpiryCondition::Earlier, Status::Mismatch),
        (Expiry::Never, ExpiryCondition::Present, Status::Done),
        (Expiry::Never, ExpiryCondition::Present, Status::Mismatch),
        (soon, ExpiryCondition::Absent, Status::Done),
    ] {
        assert_eq!(
            store.status(&expire(time, condition)),
            status,
            "{condition:?}"
        );
    }
    store.finish();
}

#[test]
fn writes_keep_or_clear_an_expiry() {
    let mut store = Checked::new(&Geometry::SMALL);
    let key = b"k";
    let time = BEGIN_MS + 500;
    let keep = SetOptions {
        expiry: Expiry::Keep,
        ..SetOptions::default()
    };
    let keeping = [
        Item::Append { key, value: b"1" },
        Item::Increment { key, delta: 1 },
        Item::SetRange {
            key,
            offset: 1,
            value: b"5",
        },
        Item::Set {
            key,
            value: b"3",
            options: keep,
        },
    ];
    for item in keeping {
        set_until(&mut store, key, b"1", Expiry::At(time));
        store.item(&item);
        assert_eq!(store.expiry(key), time, "{item:?}");
    }
    let clearing = [
        Item::Put { key, value: b"1" },
        Item::CompareAndSet {
            key,
            expected: Some(b"1"),
            value: b"2",
        },
        Item::Set {
            key,
            value: b"1",
            options: SetOptions::default(),
        },
    ];
    for item in clearing {
        set_until(&mut store, key, b"1", Expiry::At(time));
        store.item(&item);
        assert_eq!(store.expiry(key), 0, "{item:?}");
    }
    set_until(&mut store, key, b"1", Expiry::At(time));
    set_until(&mut store, b"to", b"2", Expiry::At(time + 1));
    store.status(&Item::Rename {
        key,
        to: b"to",
        if_absent: false,
    });
    assert_eq!(store.expiry(b"to"), time);
    store.finish();
}

/// Many keys expire at once: each pulse removes a bounded number, and between two pulses reads are served.
#[test]
fn pulses_remove_what_is_expired_bit_by_bit() {
    let mut store = Checked::new(&Geometry::SMALL);
    let keys = 3 * PULSE_KEYS_MAX - 100;
    for number in 0..keys {
        set_until(
            &mut store,
            &number.to_be_bytes(),
            b"v",
            Expiry::At(BEGIN_MS + 50),
        );
    }
    store.wait_ms(50);
    let mut left = vec![store.kv.map.len()];
    while store.kv.deadline_ns(&store.pages).is_some() {
        assert!(store.pulse_if_due());
        assert!(!store.pulse_if_due(), "a read is served before the next");
        left.push(store.kv.map.len());
        assert_eq!(store.value(&0u32.to_be_bytes()), None);
        let counted = store.execute(Operation::Count, &[]).expect("a read");
        assert_eq!(CountReply::decode(&counted).map(|it| it.count), Some(0));
        assert_eq!(store.random(7), None);
        store.clock_ns += PULSE_INTERVAL_NS;
    }
    assert_eq!(left, [1436, 924, 412, 0]);
    store.finish();
}

/// A scan stops among too many expired keys, says where, and goes on from there.
#[test]
fn scans_pass_over_a_bounded_number_of_expired_keys() {
    let mut store = Checked::new(&Geometry::DEFAULT);
    for hundred in 0..200u32 {
        let keys: Vec<_> = (0..100)
            .map(|number| (hundred * 100 + number).to_be_bytes())
            .collect();
        let items = keys.iter().enumerate().map(|(index, key)| {
            let expiry = if hundred % 100 == 50 && index == 0 {
                Expiry::Never
            } else {
                Expiry::At(BEGIN_MS + 50)
            };
            let options = SetOptions {
                expiry,
                ..SetOptions::default()
            };
            Item::Set {
                key,
                value: b"v",
                options,
            }
        });
        store.batch(&items.collect::<Vec<_>>());
    }
    store.wait_ms(50);
    store.status(&Item::Delete { key: b"none" });
    for reverse in [false, true] {
        let mut seen = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        let mut rounds = 0;
        loop {
            let bound = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let (from, to) = if reverse {
                (Bound::Unbounded, bound)
            } else {
                (bound, Bound::Unbounded)
            };
            let scan = Scan {
                from,
                to,
                reverse,
                ..Scan::ALL
            };
            let mut body = Vec::new();
            scan.encode(&mut body);
            let plan = Kv::validate(&store.limits, Operation::Scan as u8, &body).expect("valid");
            let mut bytes = vec![0; plan.reply_size];
            let mut reply = ReplyBuffer::new(&mut bytes);
            let context = context(store.commit_ns);
            store.kv.read(
                &store.pages,
                &context,
                Operation::Scan as u8,
                &body,
                &mut reply,
            );
            let reply = ScanReply::decode(reply.written()).expect("a scan");
            let keys = reply.entries().filter(|entry| entry.is_key);
            seen.extend(keys.map(|entry| entry.key.to_vec()));
            rounds += 1;
            if !reply.more {
                break;
            }
            last = reply.entries().last().map(|entry| entry.key.to_vec());
            assert!(last.is_some(), "there is always something to go on from");
        }
        assert_eq!(rounds, 3);
        assert_eq!(seen.len(), 2);
    }
}
