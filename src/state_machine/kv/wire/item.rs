//! Items: operations on one key, or on the store. [`super`] has the tables.

use super::collection::Action;
use super::transaction::Transaction;
use super::{ITEM_HEADER_SIZE, KEY_SIZE_MAX, Operation, VALUE_RESULT_SIZE};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of the expected value when the key is expected to be absent.
const ABSENT: u64 = u32::MAX as u64;

const SET_OLD: u8 = 1 << 4;
const EXPIRE_VALUE: u8 = 1 << 5;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ItemHeader {
    pub operation: u8,
    pub flags: u8,
    pub key_size: u16,
    pub value_size: u32,
    pub argument: u64,
}

static_assertions::const_assert_eq!(size_of::<ItemHeader>(), ITEM_HEADER_SIZE);

/// When a key is to expire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Expiry {
    /// Never.
    #[default]
    Never,
    /// When it did before the change. Not for [`Item::Expire`].
    Keep,
    /// At this time, in milliseconds since 1970; at most [`super::EXPIRY_MAX`].
    At(u64),
    /// So many milliseconds after the op's replicated time; at most [`super::EXPIRY_MAX`].
    In(u64),
}

impl Expiry {
    fn parts(self) -> (u8, u64) {
        match self {
            Self::Never => (0, 0),
            Self::Keep => (1, 0),
            Self::At(time) => (2, time),
            Self::In(time) => (3, time),
        }
    }

    fn decode(kind: u8, argument: u64) -> Option<Self> {
        match (kind, argument) {
            (0, 0) => Some(Self::Never),
            (1, 0) => Some(Self::Keep),
            (2, ..=super::EXPIRY_MAX) => Some(Self::At(argument)),
            (3, ..=super::EXPIRY_MAX) => Some(Self::In(argument)),
            _ => None,
        }
    }
}

/// What a [`Item::Set`] demands of the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SetCondition {
    /// Nothing.
    #[default]
    Always,
    /// It is absent.
    Absent,
    /// It is there.
    Present,
    /// It has this version; zero: it is absent.
    Version(u64),
}

/// What an [`Item::Expire`] demands of the key's expiry. None counts as later than all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum ExpiryCondition {
    /// Nothing.
    #[default]
    Always = 0,
    /// It has none.
    Absent = 1,
    /// It has one.
    Present = 2,
    /// The new one is later.
    Later = 3,
    /// The new one is earlier.
    Earlier = 4,
    /// It has one, and the new one is earlier.
    PresentEarlier = 5,
}

impl ExpiryCondition {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Always,
            1 => Self::Absent,
            2 => Self::Present,
            3 => Self::Later,
            4 => Self::Earlier,
            5 => Self::PresentEarlier,
            _ => return None,
        })
    }
}

/// How an [`Item::Set`] sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetOptions {
    /// Sets only if this holds.
    pub condition: SetCondition,
    /// The key's expiry afterwards.
    pub expiry: Expiry,
    /// Whether the reply is to hold the old value. One that does not fit it changes nothing.
    pub old: bool,
}

/// An operation on one key, or on the store. Keys have at most [`KEY_SIZE_MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// Reads a value.
    Get {
        /// The key.
        key: &'a [u8],
        /// Most bytes of the value; of a longer one only version and size are told. `u32::MAX`: as many as fit.
        size_max: u32,
    },
    /// Sets a value, which never expires.
    Put {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Sets a value, which never expires, if the key has the expected one.
    CompareAndSet {
        /// The key.
        key: &'a [u8],
        /// The value it must have; none: it must be absent.
        expected: Option<&'a [u8]>,
        /// Its new value.
        value: &'a [u8],
    },
    /// Counts the keys of the store.
    Count,
    /// Sets a value, in other ways.
    Set {
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
        /// How.
        options: SetOptions,
    },
    /// Reads a value and removes the key.
    Take {
        /// The key.
        key: &'a [u8],
        /// As of a get. A longer value is not removed.
        size_max: u32,
    },
    /// Reads version, expiry, size and type.
    Stat {
        /// The key.
        key: &'a [u8],
    },
    /// Reads bytes of a value.
    GetRange {
        /// The key.
        key: &'a [u8],
        /// The first byte. Negative: from the end; -1 is the last. Before the value: its first.
        start: i64,
        /// The last byte, included, the same. Behind the value: its last.
        end: i64,
        /// Most bytes in the reply; of more only version and size are told.
        size_max: u32,
    },
    /// Overwrites bytes of a value, and lengthens it as needed, by zeros up to the offset.
    SetRange {
        /// The key.
        key: &'a [u8],
        /// Where the bytes go.
        offset: u32,
        /// The bytes. If there are none, nothing is changed.
        value: &'a [u8],
    },
    /// Adds bytes at the end of a value.
    Append {
        /// The key.
        key: &'a [u8],
        /// The bytes.
        value: &'a [u8],
    },
    /// Adds to a value that is a decimal number; an absent one is 0.
    Increment {
        /// The key.
        key: &'a [u8],
        /// What is added.
        delta: i64,
    },
    /// Sets or clears the expiry.
    Expire {
        /// The key.
        key: &'a [u8],
        /// The new expiry; not [`Expiry::Keep`].
        expiry: Expiry,
        /// Changes it only if this holds.
        condition: ExpiryCondition,
        /// Most bytes of the value in the reply; none: it is not wanted. If it is longer, nothing is changed.
        size_max: Option<u32>,
    },
    /// Moves value and expiry to another key.
    Rename {
        /// The key, which is absent afterwards.
        key: &'a [u8],
        /// The other.
        to: &'a [u8],
        /// Only if the other is absent.
        if_absent: bool,
    },
    /// Removes all keys.
    Clear,
    /// Does something with a collection.
    Collection {
        /// The key.
        key: &'a [u8],
        /// What.
        action: Action<'a>,
    },
    /// Executes one list of items or another.
    Transaction(Transaction<'a>),
}

impl<'a> Item<'a> {
    /// A get of a value of any size.
    pub const fn get(key: &'a [u8]) -> Self {
        let size_max = u32::MAX;
        Self::Get { key, size_max }
    }

    /// A put.
    pub const fn put(key: &'a [u8], value: &'a [u8]) -> Self {
        Self::Put { key, value }
    }

    /// A delete.
    pub const fn delete(key: &'a [u8]) -> Self {
        Self::Delete { key }
    }

    /// An increment.
    pub const fn increment(key: &'a [u8], delta: i64) -> Self {
        Self::Increment { key, delta }
    }

    /// The operation that this item is, if it is not part of a batch.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Get { .. } => Operation::Get,
            Self::Put { .. } => Operation::Put,
            Self::Delete { .. } => Operation::Delete,
            Self::CompareAndSet { .. } => Operation::CompareAndSet,
            Self::Count => Operation::Count,
            Self::Set { .. } => Operation::Set,
            Self::Take { .. } => Operation::Take,
            Self::Stat { .. } => Operation::Stat,
            Self::GetRange { .. } => Operation::GetRange,
            Self::SetRange { .. } => Operation::SetRange,
            Self::Append { .. } => Operation::Append,
            Self::Increment { .. } => Operation::Increment,
            Self::Expire { .. } => Operation::Expire,
            Self::Rename { .. } => Operation::Rename,
            Self::Clear => Operation::Clear,
            Self::Collection { .. } => Operation::Collection,
            Self::Transaction(_) => Operation::Transaction,
        }
    }

    /// The key; empty for what is not about one.
    pub fn key(&self) -> &'a [u8] {
        match *self {
            Self::Get { key, .. }
            | Self::Put { key, .. }
            | Self::Delete { key }
            | Self::CompareAndSet { key, .. }
            | Self::Set { key, .. }
            | Self::Take { key, .. }
            | Self::Stat { key }
            | Self::GetRange { key, .. }
            | Self::SetRange { key, .. }
            | Self::Append { key, .. }
            | Self::Increment { key, .. }
            | Self::Expire { key, .. }
            | Self::Rename { key, .. }
            | Self::Collection { key, .. } => key,
            Self::Count | Self::Clear | Self::Transaction(_) => &[],
        }
    }

    /// The value it would set or add.
    pub fn value(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Put { value, .. }
            | Self::CompareAndSet { value, .. }
            | Self::Set { value, .. }
            | Self::SetRange { value, .. }
            | Self::Append { value, .. } => Some(value),
            Self::Collection { action, .. } => action.value(),
            _ => None,
        }
    }

    /// What follows the key: the value, or the new key.
    fn tail(&self) -> &'a [u8] {
        match *self {
            Self::Rename { to, .. } => to,
            Self::Transaction(transaction) => transaction.bytes(),
            _ => self.value().unwrap_or(&[]),
        }
    }

    fn expected(&self) -> &'a [u8] {
        match *self {
            Self::CompareAndSet { expected, .. } => expected.unwrap_or(&[]),
            _ => &[],
        }
    }

    fn second(&self) -> Option<u64> {
        match *self {
            Self::Set { options, .. } => match options.condition {
                SetCondition::Version(version) => Some(version),
                _ => None,
            },
            Self::GetRange { end, .. } => Some(end.cast_unsigned()),
            _ => None,
        }
    }

    /// Whether it changes nothing, whatever the state.
    pub fn is_read(&self) -> bool {
        match self {
            Self::Get { .. } | Self::Count | Self::Stat { .. } | Self::GetRange { .. } => true,
            Self::Collection { action, .. } => action.is_read(),
            Self::Transaction(transaction) => transaction.is_read(),
            _ => false,
        }
    }

    /// Bytes it takes in a request.
    pub fn size(&self) -> usize {
        if let Self::Collection { key, action } = self {
            return action.size(key);
        }
        let second = self.second().map_or(0, |_| size_of::<u64>());
        let rest = self.key().len() + self.tail().len() + self.expected().len();
        ITEM_HEADER_SIZE + second + rest
    }

    /// Most bytes of its result, values apart.
    pub fn result_size(&self) -> usize {
        match self {
            Self::Put { .. } | Self::Delete { .. } | Self::Clear => 1,
            Self::CompareAndSet { .. }
            | Self::Count
            | Self::SetRange { .. }
            | Self::Append { .. }
            | Self::Increment { .. }
            | Self::Rename { .. } => 9,
            Self::Set { options, .. } if !options.old => 9,
            Self::Expire { size_max: None, .. } => 9,
            Self::Get { .. }
            | Self::Set { .. }
            | Self::Take { .. }
            | Self::GetRange { .. }
            | Self::Expire { .. } => VALUE_RESULT_SIZE,
            Self::Stat { .. } => 22,
            Self::Collection { action, .. } => action.result_size(),
            Self::Transaction(transaction) => transaction.result_size(),
        }
    }

    /// How many walks over many members it may take.
    fn walks(&self) -> usize {
        match self {
            Self::Collection { action, .. } => usize::from(action.is_walk()),
            Self::Transaction(transaction) => {
                let then = transaction.then().walks();
                then.max(transaction.otherwise().walks())
            }
            _ => 0,
        }
    }

    /// Most bytes of a value that its result may hold, if it fits.
    pub fn result_value_size(&self) -> u64 {
        match *self {
            Self::Get { size_max, .. }
            | Self::Take { size_max, .. }
            | Self::GetRange { size_max, .. } => u64::from(size_max),
            Self::Expire { size_max, .. } => u64::from(size_max.unwrap_or(0)),
            Self::Set { options, .. } if options.old => u64::from(u32::MAX),
            Self::Collection { action, .. } => action.result_value_size(),
            Self::Transaction(transaction) => transaction.result_value_size(),
            _ => 0,
        }
    }

    fn header(&self) -> ItemHeader {
        let mut header = ItemHeader {
            operation: self.operation() as u8,
            flags: 0,
            key_size: self.key().len() as u16,
            value_size: self.tail().len() as u32,
            argument: 0,
        };
        match *self {
            Self::Get { size_max, .. } | Self::Take { size_max, .. } => {
                header.value_size = size_max;
            }
            Self::GetRange {
                start, size_max, ..
            } => {
                header.value_size = size_max;
                header.argument = start.cast_unsigned();
            }
            Self::CompareAndSet { expected, .. } => {
                header.argument = expected.map_or(ABSENT, |expected| expected.len() as u64);
            }
            Self::Set { options, .. } => {
                let (kind, argument) = options.expiry.parts();
                let condition = match options.condition {
                    SetCondition::Always => 0,
                    SetCondition::Absent => 1,
                    SetCondition::Present => 2,
                    SetCondition::Version(_) => 3,
                };
                header.flags = kind | condition << 2 | if options.old { SET_OLD } else { 0 };
                header.argument = argument;
            }
            Self::SetRange { offset, .. } => header.argument = u64::from(offset),
            Self::Increment { delta, .. } => header.argument = delta.cast_unsigned(),
            Self::Expire {
                expiry,
                condition,
                size_max,
                ..
            } => {
                let (kind, argument) = expiry.parts();
                let wanted = if size_max.is_some() { EXPIRE_VALUE } else { 0 };
                header.flags = kind | (condition as u8) << 2 | wanted;
                header.value_size = size_max.unwrap_or(0);
                header.argument = argument;
            }
            Self::Rename { if_absent, .. } => header.flags = u8::from(if_absent),
            Self::Transaction(transaction) => {
                header.key_size = transaction.condition_count();
                header.argument = transaction.counts();
            }
            _ => {}
        }
        header
    }

    /// Appends it to a request's body. The caller keeps to the limits: keys of at most [`KEY_SIZE_MAX`] bytes, sizes below
    /// 4 GiB.
    pub fn encode(&self, body: &mut Vec<u8>) {
        if let Self::Collection { key, action } = self {
            return action.encode(key, body);
        }
        body.extend_from_slice(self.header().as_bytes());
        if let Some(second) = self.second() {
            body.extend_from_slice(&second.to_le_bytes());
        }
        body.extend_from_slice(self.key());
        body.extend_from_slice(self.tail());
        body.extend_from_slice(self.expected());
    }

    /// The item that `bytes` begin with, and the bytes behind it.
    pub fn decode(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = ItemHeader::read_from_prefix(bytes).ok()?;
        let operation = Operation::from_byte(header.operation)?;
        if operation == Operation::Transaction {
            let (transaction, rest) = Transaction::decode(&header, rest)?;
            return Some((Self::Transaction(transaction), rest));
        }
        if operation == Operation::Collection {
            return Action::decode(&header, rest);
        }
        let mut rest = Rest { header, rest };
        let item = rest.item(operation)?;
        Some((item, rest.rest))
    }
}

/// What is left of a request while an item is read.
struct Rest<'a> {
    header: ItemHeader,
    rest: &'a [u8],
}

impl<'a> Rest<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        Some(taken)
    }

    fn second(&mut self) -> Option<u64> {
        let bytes = self.take(size_of::<u64>())?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        let size = usize::from(self.header.key_size);
        (size <= KEY_SIZE_MAX).then(|| self.take(size)).flatten()
    }

    fn value(&mut self) -> Option<&'a [u8]> {
        self.take(self.header.value_size as usize)
    }

    /// Nothing but a key is in the item.
    fn is_bare(&self) -> bool {
        self.header.flags == 0 && self.header.value_size == 0 && self.header.argument == 0
    }

    /// Flags and argument are zero.
    fn is_plain(&self) -> bool {
        self.header.flags == 0 && self.header.argument == 0
    }

    fn item(&mut self, operation: Operation) -> Option<Item<'a>> {
        let ItemHeader {
            flags,
            key_size,
            value_size: size_max,
            argument,
            ..
        } = self.header;
        Some(match operation {
            Operation::Get if self.is_plain() => Item::Get {
                key: self.key()?,
                size_max,
            },
            Operation::Put if self.is_plain() => Item::Put {
                key: self.key()?,
                value: self.value()?,
            },
            Operation::Delete if self.is_bare() => Item::Delete { key: self.key()? },
            Operation::CompareAndSet if flags == 0 => self.compare_and_set()?,
            Operation::Count if self.is_bare() && key_size == 0 => Item::Count,
            Operation::Set => self.set()?,
            Operation::Take if self.is_plain() => Item::Take {
                key: self.key()?,
                size_max,
            },
            Operation::Stat if self.is_bare() => Item::Stat { key: self.key()? },
            Operation::GetRange if flags == 0 => Item::GetRange {
                end: self.second()?.cast_signed(),
                key: self.key()?,
                start: argument.cast_signed(),
                size_max,
            },
            Operation::SetRange if flags == 0 => Item::SetRange {
                key: self.key()?,
                offset: u32::try_from(argument).ok()?,
                value: self.value()?,
            },
            Operation::Append if self.is_plain() => Item::Append {
                key: self.key()?,
                value: self.value()?,
            },
            Operation::Increment if flags == 0 && size_max == 0 => Item::Increment {
                key: self.key()?,
                delta: argument.cast_signed(),
            },
            Operation::Expire => self.expire()?,
            Operation::Rename if flags <= 1 && argument == 0 => Item::Rename {
                key: self.key()?,
                to: self.value().filter(|to| to.len() <= KEY_SIZE_MAX)?,
                if_absent: flags == 1,
            },
            Operation::Clear if self.is_bare() && key_size == 0 => Item::Clear,
            _ => return None,
        })
    }

    fn compare_and_set(&mut self) -> Option<Item<'a>> {
        let (key, value) = (self.key()?, self.value()?);
        let expected = match self.header.argument {
            ABSENT => None,
            size => Some(self.take(usize::try_from(size).ok()?)?),
        };
        Some(Item::CompareAndSet {
            key,
            expected,
            value,
        })
    }

    fn set(&mut self) -> Option<Item<'a>> {
        let flags = self.header.flags;
        if flags >> 5 != 0 {
            return None;
        }
        let condition = match flags >> 2 & 3 {
            0 => SetCondition::Always,
            1 => SetCondition::Absent,
            2 => SetCondition::Present,
            _ => SetCondition::Version(self.second()?),
        };
        let options = SetOptions {
            condition,
            expiry: Expiry::decode(flags & 3, self.header.argument)?,
            old: flags & SET_OLD != 0,
        };
        Some(Item::Set {
            key: self.key()?,
            value: self.value()?,
            options,
        })
    }

    fn expire(&mut self) -> Option<Item<'a>> {
        let ItemHeader {
            flags,
            value_size,
            argument,
            ..
        } = self.header;
        let wanted = flags & EXPIRE_VALUE != 0;
        if flags >> 6 != 0 || (!wanted && value_size != 0) {
            return None;
        }
        let expiry = Expiry::decode(flags & 3, argument)?;
        Some(Item::Expire {
            key: self.key()?,
            expiry: Some(expiry).filter(|&expiry| expiry != Expiry::Keep)?,
            condition: ExpiryCondition::from_byte(flags >> 2 & 7)?,
            size_max: wanted.then_some(value_size),
        })
    }
}

/// The items of a request whose every byte was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    /// The items of a request: none if its body is not what its operation demands.
    pub fn decode(operation: Operation, body: &'a [u8]) -> Option<Self> {
        let (first, mut rest) = Item::decode(body)?;
        if operation != Operation::Batch && (first.operation() != operation || !rest.is_empty()) {
            return None;
        }
        while !rest.is_empty() {
            rest = Item::decode(rest)?.1;
        }
        Some(Self { rest: body })
    }

    /// Items that were checked.
    pub(super) fn checked(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Most bytes of their results, values apart.
    pub fn result_size(self) -> usize {
        self.map(|item| item.result_size()).sum()
    }

    /// How many of them may pass over more members of a sorted set than [`super::WALK_MIN`]; of a transaction, of one list.
    pub fn walks(self) -> usize {
        self.map(|item| item.walks()).sum()
    }

    /// Most bytes of values that their results may hold.
    pub fn result_value_size(self) -> u64 {
        self.map(|item| item.result_value_size())
            .fold(0, u64::saturating_add)
    }
}

#[expect(
    clippy::copy_iterator,
    reason = "a view of bytes, which is walked more than once on purpose"
)]
impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let (item, rest) = Item::decode(self.rest)?;
        self.rest = rest;
        Some(item)
    }
}
