//! Items that own their bytes, as tests draw them.

use super::{collections, *};
use crate::state_machine::kv::wire::{Comparison, ExpiryCondition, SetCondition, Target};

#[derive(Clone, Debug)]
pub(super) enum Owned {
    Get(Vec<u8>, u32),
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    CompareAndSet(Vec<u8>, Option<Vec<u8>>, Vec<u8>),
    Count,
    Set(Vec<u8>, Vec<u8>, SetOptions),
    Take(Vec<u8>, u32),
    Stat(Vec<u8>),
    GetRange(Vec<u8>, i64, i64, u32),
    SetRange(Vec<u8>, u32, Vec<u8>),
    Append(Vec<u8>, Vec<u8>),
    Increment(Vec<u8>, i64),
    Expire(Vec<u8>, Expiry, ExpiryCondition, Option<u32>),
    Rename(Vec<u8>, Vec<u8>, bool),
    Clear,
    /// Encoded.
    Collection(Vec<u8>),
    Transaction(Vec<OwnedCondition>, Vec<Owned>, Vec<Owned>),
}

#[derive(Clone, Debug)]
pub(super) struct OwnedCondition {
    key: Vec<u8>,
    comparison: Comparison,
    version: u64,
    value: Option<Vec<u8>>,
}

impl OwnedCondition {
    fn condition(&self) -> Condition<'_> {
        Condition {
            key: &self.key,
            comparison: self.comparison,
            target: match &self.value {
                Some(value) => Target::Value(value),
                None => Target::Version(self.version),
            },
        }
    }
}

impl Owned {
    /// Calls with the item.
    pub(super) fn with(&self, call: impl FnOnce(&Item<'_>)) {
        if let Self::Transaction(conditions, then, otherwise) = self {
            let conditions: Vec<_> = conditions.iter().map(OwnedCondition::condition).collect();
            let then: Vec<_> = then.iter().map(Self::item).collect();
            let otherwise: Vec<_> = otherwise.iter().map(Self::item).collect();
            let bytes = TransactionBytes::new(&conditions, &then, &otherwise);
            let bytes = bytes.expect("short lists without transactions");
            let item = bytes.item().expect("keys and values are within limits");
            let Item::Transaction(transaction) = item else {
                panic!("it was encoded as a transaction");
            };
            assert!(transaction.conditions().eq(conditions));
            assert!(transaction.then().eq(then) && transaction.otherwise().eq(otherwise));
            call(&item);
        } else {
            call(&self.item());
        }
    }

    fn item(&self) -> Item<'_> {
        match self {
            &Self::Get(ref key, size_max) => Item::Get { key, size_max },
            Self::Put(key, value) => Item::Put { key, value },
            Self::Delete(key) => Item::Delete { key },
            Self::CompareAndSet(key, expected, value) => Item::CompareAndSet {
                key,
                expected: expected.as_deref(),
                value,
            },
            Self::Count => Item::Count,
            &Self::Set(ref key, ref value, options) => Item::Set {
                key,
                value,
                options,
            },
            &Self::Take(ref key, size_max) => Item::Take { key, size_max },
            Self::Stat(key) => Item::Stat { key },
            &Self::GetRange(ref key, start, end, size_max) => Item::GetRange {
                key,
                start,
                end,
                size_max,
            },
            &Self::SetRange(ref key, offset, ref value) => Item::SetRange { key, offset, value },
            Self::Append(key, value) => Item::Append { key, value },
            &Self::Increment(ref key, delta) => Item::Increment { key, delta },
            &Self::Expire(ref key, expiry, condition, size_max) => Item::Expire {
                key,
                expiry,
                condition,
                size_max,
            },
            &Self::Rename(ref key, ref to, if_absent) => Item::Rename { key, to, if_absent },
            Self::Clear => Item::Clear,
            Self::Collection(bytes) => Item::decode(bytes).expect("it was encoded").0,
            Self::Transaction(..) => panic!("a transaction has bytes of its own"),
        }
    }
}

/// Calls with all items.
pub(super) fn with_all(items: &[Owned], call: impl FnOnce(&[Item<'_>])) {
    let mut body = Vec::new();
    for item in items {
        item.with(|item| item.encode(&mut body));
    }
    let decoded = Items::decode(Operation::Batch, &body).expect("valid items");
    call(&decoded.collect::<Vec<_>>());
}

pub(super) fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => (0u8..30).prop_map(|number| vec![b'k', number]),
        2 => (0u8..20).prop_map(|number| [vec![b'p'; 400], vec![number]].concat()),
        1 => (0usize..=KEY_SIZE_MAX).prop_map(|size| vec![7; size]),
    ]
}

pub(super) fn values() -> impl Strategy<Value = Vec<u8>> {
    // Few contents, so that expectations are met often.
    let sizes =
        prop_oneof![5 => 0usize..4, 2 => 930usize..1000, 2 => 0usize..20_000, 1 => Just(70_000)];
    let numbers = prop_oneof![Just(i64::MAX), Just(i64::MIN), -2i64..2];
    prop_oneof![
        3 => (sizes, 0u8..2).prop_map(|(size, byte)| vec![byte; size]),
        1 => numbers.prop_map(|number| number.to_string().into_bytes()),
    ]
}

fn short_values() -> impl Strategy<Value = Vec<u8>> {
    (0usize..4, b'0'..b'2').prop_map(|(size, byte)| vec![byte; size])
}

fn expiries() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        Just(Expiry::Never),
        (0u64..200).prop_map(|time| Expiry::At(BEGIN_MS + time)),
        Just(Expiry::At(0)),
        (0u64..100).prop_map(Expiry::In),
        Just(Expiry::In(wire::EXPIRY_MAX)),
    ]
}

fn set_options() -> impl Strategy<Value = SetOptions> {
    let conditions = prop_oneof![
        2 => Just(SetCondition::Always),
        1 => Just(SetCondition::Absent),
        1 => Just(SetCondition::Present),
        1 => (0u64..20).prop_map(SetCondition::Version),
    ];
    let expiries = prop_oneof![1 => Just(Expiry::Keep), 3 => expiries()];
    (conditions, expiries, any::<bool>()).prop_map(|(condition, expiry, old)| SetOptions {
        condition,
        expiry,
        old,
    })
}

fn expiry_conditions() -> impl Strategy<Value = ExpiryCondition> {
    prop_oneof![
        3 => Just(ExpiryCondition::Always),
        1 => Just(ExpiryCondition::Absent),
        1 => Just(ExpiryCondition::Present),
        1 => Just(ExpiryCondition::Later),
        1 => Just(ExpiryCondition::Earlier),
        1 => Just(ExpiryCondition::PresentEarlier),
    ]
}

pub(super) fn sizes() -> impl Strategy<Value = u32> {
    prop_oneof![Just(u32::MAX), 0u32..300]
}

fn places() -> impl Strategy<Value = i64> {
    prop_oneof![
        -10i64..10,
        -80_000i64..80_000,
        Just(i64::MIN),
        Just(i64::MAX)
    ]
}

/// Anything but a transaction. In boxes: what is drawn of so many kinds lies one in the other, and would overflow the stack.
fn simple_items() -> BoxedStrategy<Owned> {
    let reads = prop_oneof![
        4 => (keys(), sizes()).prop_map(|(key, size)| Owned::Get(key, size)),
        1 => Just(Owned::Count),
        2 => keys().prop_map(Owned::Stat),
        2 => (keys(), places(), places(), sizes())
            .prop_map(|(key, start, end, size)| Owned::GetRange(key, start, end, size)),
    ];
    let old = prop_oneof![
        4 => (keys(), values()).prop_map(|(key, value)| Owned::Put(key, value)),
        3 => keys().prop_map(Owned::Delete),
        3 => (keys(), proptest::option::of(values()), values())
            .prop_map(|(key, expected, value)| Owned::CompareAndSet(key, expected, value)),
    ];
    let offsets = prop_oneof![3 => 0u32..2000, 1 => 0u32..90_000, 1 => any::<u32>()];
    let deltas = prop_oneof![4 => -2i64..3, 1 => any::<i64>()];
    let new = prop_oneof![
        4 => (keys(), values(), set_options())
            .prop_map(|(key, value, options)| Owned::Set(key, value, options)),
        2 => (keys(), sizes()).prop_map(|(key, size)| Owned::Take(key, size)),
        2 => (keys(), offsets, values())
            .prop_map(|(key, offset, value)| Owned::SetRange(key, offset, value)),
        2 => (keys(), prop_oneof![short_values().boxed(), values().boxed()])
            .prop_map(|(key, value)| Owned::Append(key, value)),
        2 => (keys(), deltas).prop_map(|(key, delta)| Owned::Increment(key, delta)),
        4 => (keys(), expiries(), expiry_conditions(), proptest::option::of(sizes()))
            .prop_map(|(key, expiry, condition, size)| Owned::Expire(key, expiry, condition, size)),
        2 => (keys(), keys(), any::<bool>()).prop_map(|(key, to, if_absent)| Owned::Rename(key, to, if_absent)),
    ];
    let all = prop_oneof![
        20 => reads.boxed(),
        30 => old.boxed(),
        49 => new.boxed(),
        60 => collections::items().boxed(),
        1 => Just(Owned::Clear),
    ];
    all.boxed()
}

fn comparisons() -> impl Strategy<Value = Comparison> {
    prop_oneof![
        Just(Comparison::Equal),
        Just(Comparison::NotEqual),
        Just(Comparison::Less),
        Just(Comparison::Greater),
    ]
}

fn conditions() -> impl Strategy<Value = OwnedCondition> {
    let parts = (
        keys(),
        comparisons(),
        0u64..30,
        proptest::option::of(values()),
    );
    parts.prop_map(|(key, comparison, version, value)| OwnedCondition {
        key,
        comparison,
        version,
        value,
    })
}

pub(super) fn items() -> impl Strategy<Value = Owned> {
    let lists = || proptest::collection::vec(simple_items(), 0..5);
    let transactions = (
        proptest::collection::vec(conditions(), 0..3),
        lists(),
        lists(),
    );
    prop_oneof![
        9 => simple_items(),
        1 => transactions.prop_map(|(conditions, then, otherwise)| {
            Owned::Transaction(conditions, then, otherwise)
        }),
    ]
}
