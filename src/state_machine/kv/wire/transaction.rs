//! Transactions: conditions, and two lists of items. [`super`] has the tables.

use super::item::{Item, ItemHeader, Items};
use super::{ITEM_HEADER_SIZE, KEY_SIZE_MAX};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How two things are compared; numbers as numbers, values as byte strings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Comparison {
    /// What the key has is the other.
    Equal = 1,
    /// It is not.
    NotEqual = 2,
    /// It is less.
    Less = 3,
    /// It is greater.
    Greater = 4,
}

impl Comparison {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Equal,
            2 => Self::NotEqual,
            3 => Self::Less,
            4 => Self::Greater,
            _ => return None,
        })
    }

    /// Whether it holds for what was found, as it orders to the other.
    pub fn holds(self, found: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => found.is_eq(),
            Self::NotEqual => found.is_ne(),
            Self::Less => found.is_lt(),
            Self::Greater => found.is_gt(),
        }
    }
}

/// What a condition compares a key's state with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// With its version; an absent key's is zero.
    Version(u64),
    /// With its value; an absent key's is not equal to any, and not less or greater.
    Value(&'a [u8]),
}

/// What must hold for the first list of a transaction to be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Condition<'a> {
    /// The key.
    pub key: &'a [u8],
    /// How it must compare.
    pub comparison: Comparison,
    /// To what.
    pub target: Target<'a>,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ConditionHeader {
    target: u8,
    comparison: u8,
    key_size: u16,
    value_size: u32,
    version: u64,
}

static_assertions::const_assert_eq!(size_of::<ConditionHeader>(), 16);

impl<'a> Condition<'a> {
    /// There is no such key.
    pub fn absent(key: &'a [u8]) -> Self {
        Self::version(key, 0)
    }

    /// There is such a key.
    pub fn present(key: &'a [u8]) -> Self {
        Self {
            key,
            comparison: Comparison::Greater,
            target: Target::Version(0),
        }
    }

    /// The key has this version: it was not changed since it got it. Zero: it is absent.
    pub fn version(key: &'a [u8], version: u64) -> Self {
        Self {
            key,
            comparison: Comparison::Equal,
            target: Target::Version(version),
        }
    }

    /// The key has this value.
    pub fn value(key: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            key,
            comparison: Comparison::Equal,
            target: Target::Value(value),
        }
    }

    /// Appends it to a transaction's bytes.
    fn encode(&self, body: &mut Vec<u8>) {
        let (target, version, value): (u8, u64, &[u8]) = match self.target {
            Target::Version(version) => (1, version, &[]),
            Target::Value(value) => (2, 0, value),
        };
        let header = ConditionHeader {
            target,
            comparison: self.comparison as u8,
            key_size: self.key.len() as u16,
            value_size: value.len() as u32,
            version,
        };
        body.extend_from_slice(header.as_bytes());
        body.extend_from_slice(self.key);
        body.extend_from_slice(value);
    }

    fn decode(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = ConditionHeader::read_from_prefix(bytes).ok()?;
        let key_size = usize::from(header.key_size);
        if key_size > KEY_SIZE_MAX {
            return None;
        }
        let (key, rest) = rest.split_at_checked(key_size)?;
        let (value, rest) = rest.split_at_checked(header.value_size as usize)?;
        let target = match header.target {
            1 if value.is_empty() => Target::Version(header.version),
            2 if header.version == 0 => Target::Value(value),
            _ => return None,
        };
        let comparison = Comparison::from_byte(header.comparison)?;
        let condition = Self {
            key,
            comparison,
            target,
        };
        Some((condition, rest))
    }
}

/// The conditions of a transaction, whose every byte was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conditions<'a> {
    rest: &'a [u8],
}

#[expect(
    clippy::copy_iterator,
    reason = "a view of bytes, which is walked more than once on purpose"
)]
impl<'a> Iterator for Conditions<'a> {
    type Item = Condition<'a>;

    fn next(&mut self) -> Option<Condition<'a>> {
        let (condition, rest) = Condition::decode(self.rest)?;
        self.rest = rest;
        Some(condition)
    }
}

/// A transaction whose every byte was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transaction<'a> {
    bytes: &'a [u8],
    condition_count: u16,
    then_count: u32,
    otherwise_count: u32,
    then_at: usize,
    otherwise_at: usize,
}

impl<'a> Transaction<'a> {
    /// What must hold.
    pub fn conditions(&self) -> Conditions<'a> {
        Conditions {
            rest: &self.bytes[..self.then_at],
        }
    }

    /// What is executed if all conditions hold.
    pub fn then(&self) -> Items<'a> {
        Items::checked(&self.bytes[self.then_at..self.otherwise_at])
    }

    /// What is executed if not.
    pub fn otherwise(&self) -> Items<'a> {
        Items::checked(&self.bytes[self.otherwise_at..])
    }

    pub(super) fn is_read(&self) -> bool {
        self.then().chain(self.otherwise()).all(|it| it.is_read())
    }

    pub(super) fn result_size(&self) -> usize {
        3 + (self.then().result_size()).max(self.otherwise().result_size())
    }

    pub(super) fn result_value_size(&self) -> u64 {
        let then = self.then().result_value_size();
        then.max(self.otherwise().result_value_size())
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn condition_count(&self) -> u16 {
        self.condition_count
    }

    /// The argument of its item.
    pub(super) fn counts(&self) -> u64 {
        u64::from(self.then_count) | u64::from(self.otherwise_count) << 32
    }

    pub(super) fn decode(header: &ItemHeader, rest: &'a [u8]) -> Option<(Self, &'a [u8])> {
        if header.flags != 0 {
            return None;
        }
        let (bytes, behind) = rest.split_at_checked(header.value_size as usize)?;
        let then_count = header.argument as u32;
        let otherwise_count = (header.argument >> 32) as u32;
        // Their results are counted by 16 bits.
        let (Ok(_), Ok(_)) = (u16::try_from(then_count), u16::try_from(otherwise_count)) else {
            return None;
        };
        let mut left = bytes;
        for _ in 0..header.key_size {
            left = Condition::decode(left)?.1;
        }
        let then_at = bytes.len() - left.len();
        left = skip_items(left, then_count)?;
        let otherwise_at = bytes.len() - left.len();
        left = skip_items(left, otherwise_count)?;
        let transaction = Self {
            bytes,
            condition_count: header.key_size,
            then_count,
            otherwise_count,
            then_at,
            otherwise_at,
        };
        left.is_empty().then_some((transaction, behind))
    }
}

/// What follows so many items, none of which is a transaction.
fn skip_items(mut bytes: &[u8], count: u32) -> Option<&[u8]> {
    for _ in 0..count {
        // Looked at first: a transaction in a transaction in ... must not be a call in a call.
        if *bytes.first()? == super::Operation::Transaction as u8 {
            return None;
        }
        bytes = Item::decode(bytes)?.1;
    }
    Some(bytes)
}

/// A transaction that a client makes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionBytes {
    /// As an item of a batch.
    bytes: Vec<u8>,
}

impl TransactionBytes {
    /// Encodes it; none if a list is longer than 65,535, or holds a transaction. As with [`Item::encode`], keys and values
    /// are within their limits.
    pub fn new(
        conditions: &[Condition<'_>],
        then: &[Item<'_>],
        otherwise: &[Item<'_>],
    ) -> Option<Self> {
        let mut bytes = vec![0; ITEM_HEADER_SIZE];
        for condition in conditions {
            condition.encode(&mut bytes);
        }
        for item in then.iter().chain(otherwise) {
            if matches!(item, Item::Transaction(_)) {
                return None;
            }
            item.encode(&mut bytes);
        }
        let then_count = u16::try_from(then.len()).ok()?;
        let otherwise_count = u16::try_from(otherwise.len()).ok()?;
        let header = ItemHeader {
            operation: super::Operation::Transaction as u8,
            flags: 0,
            key_size: u16::try_from(conditions.len()).ok()?,
            value_size: u32::try_from(bytes.len() - ITEM_HEADER_SIZE).ok()?,
            argument: u64::from(then_count) | u64::from(otherwise_count) << 32,
        };
        bytes[..ITEM_HEADER_SIZE].copy_from_slice(header.as_bytes());
        Some(Self { bytes })
    }

    /// Its bytes: the body of a request, or a part of the body of a batch.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As an item; none if a key or a value was not within its limits.
    pub fn item(&self) -> Option<Item<'_>> {
        Item::decode(&self.bytes).map(|(item, _)| item)
    }
}
