//! Requests and replies of the key-value machine: what clients encode and the machine decodes, and the reverse.
//!
//! All numbers are little-endian; nothing is aligned. Decoding is total: bytes that are not exactly a request or
//! a reply give none.
//!
//! # Requests
//!
//! `get`, `put`, `delete` and `compare_and_set` have one **item** as their body, `batch` one or more, one behind the other:
//!
//! ```text
//! offset  size  content
//!      0     1  operation: 1 get, 2 put, 3 delete, 4 compare_and_set
//!      1     1  zero
//!      2     2  key size: 1 to 256
//!      4     4  put, compare_and_set: size of the new value
//!               get: most bytes of the value that the reply may hold; else zero
//!      8     4  compare_and_set: size of the expected value, or 0xffff_ffff: the key is expected to be absent; else zero
//!     12     4  zero
//!     16        key, new value, expected value
//! ```
//!
//! `scan`:
//!
//! ```text
//!      0     1  1: in reverse order; else zero
//!      1     1  1: without values; else zero
//!      2     1  lower bound: 0 none, 1 included, 2 excluded
//!      3     1  upper bound, the same
//!      4     2  size of the lower bound: 0 to 256
//!      6     2  size of the upper bound
//!      8     4  most entries, from 1
//!     12     4  most bytes of the reply: from 304, or zero for as many as the limits allow
//!     16        lower bound, upper bound
//! ```
//!
//! `count` has no body.
//!
//! # Replies
//!
//! All begin with
//!
//! ```text
//!      0     1  status (see [`Status`])
//!      1     1  scan: 1 if the range goes on behind the last entry; else zero
//!      2     2  zero
//!      4     4  of one item: size of the key's value; of a batch: items; of a scan: entries; else zero
//!      8     8  of one item: the version it made or found; of a batch: the revision before it; else the revision
//! ```
//!
//! What follows is, of a get with status `value`, the value; of a `count`, the count (8 bytes); of a scan, entries:
//!
//! ```text
//!      0     2  key size
//!      2     1  1: without its value, because nobody wanted it or because not even one entry had room for it
//!      3     1  zero
//!      4     4  value size
//!      8     8  version
//!     16        key, value
//! ```
//!
//! and of a batch, one status byte for each item, then, for each item whose status is `value` or `too_large`, version
//! (8), value size (4), and for `value` the value. The version of an item that is `done` is the revision before the batch
//! plus the number of `done` items up to it.

mod reply;

pub use reply::{BatchReply, CountReply, Entry, ItemReply, ReplyHeader, Results, ScanReply};
pub(super) use reply::{EntryHeader, ResultHeader};
use std::ops::Bound;
use storage::collections::ordered_map::KEY_SIZE_MAX;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of an item before its key.
pub const ITEM_HEADER_SIZE: usize = 16;

/// Bytes that every reply begins with.
pub const REPLY_HEADER_SIZE: usize = 16;

/// Bytes of a scan's entry before its key.
pub const ENTRY_HEADER_SIZE: usize = 16;

/// Bytes of a batch's result before its value.
pub const RESULT_HEADER_SIZE: usize = 12;

/// Least limit of a scan's reply: a header, and one entry with the longest key and 16 bytes.
pub const SCAN_SIZE_MIN: usize = REPLY_HEADER_SIZE + ENTRY_HEADER_SIZE + KEY_SIZE_MAX + 16;

/// Size of the expected value when the key is expected to be absent.
const ABSENT: u32 = u32::MAX;

/// What the machine does; the low byte of a request's operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Operation {
    /// Reads a value.
    Get = 1,
    /// Sets a value.
    Put = 2,
    /// Removes a key.
    Delete = 3,
    /// Sets a value if the key has the expected one, or is absent as expected.
    CompareAndSet = 4,
    /// Reads keys in order.
    Scan = 5,
    /// Counts the keys.
    Count = 6,
    /// Executes items in order, each for itself.
    Batch = 7,
}

impl Operation {
    /// The operation of a request; none if there is none of that number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Get,
            2 => Self::Put,
            3 => Self::Delete,
            4 => Self::CompareAndSet,
            5 => Self::Scan,
            6 => Self::Count,
            7 => Self::Batch,
            _ => return None,
        })
    }
}

/// How an item, or a request, ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Status {
    /// It was done. An item that is done raised the revision by one, and made the key's new version of it.
    Done = 1,
    /// The key's value follows.
    Value = 2,
    /// There is no such key.
    NotFound = 3,
    /// The key's value is not the expected one. Its version and size are told; both are zero if it is absent.
    Mismatch = 4,
    /// The value is longer than the reply may be. Its version and size are told.
    TooLarge = 5,
    /// The request is malformed.
    Invalid = 6,
}

impl Status {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Done,
            2 => Self::Value,
            3 => Self::NotFound,
            4 => Self::Mismatch,
            5 => Self::TooLarge,
            6 => Self::Invalid,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ItemHeader {
    operation: u8,
    reserved: u8,
    key_size: u16,
    value_size: u32,
    expected_size: u32,
    reserved_2: u32,
}

static_assertions::const_assert_eq!(size_of::<ItemHeader>(), ITEM_HEADER_SIZE);

/// An operation on one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// Reads a value.
    Get {
        /// The key, of 1 to 256 bytes.
        key: &'a [u8],
        /// Most bytes of the value; of a longer one only version and size are told. `u32::MAX`: as many as fit.
        size_max: u32,
    },
    /// Sets a value.
    Put {
        /// The key, of 1 to 256 bytes.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// Removes a key.
    Delete {
        /// The key, of 1 to 256 bytes.
        key: &'a [u8],
    },
    /// Sets a value on a condition.
    CompareAndSet {
        /// The key, of 1 to 256 bytes.
        key: &'a [u8],
        /// The value it must have; none: it must be absent.
        expected: Option<&'a [u8]>,
        /// Its new value.
        value: &'a [u8],
    },
}

impl<'a> Item<'a> {
    /// The operation that this item is, if it is not part of a batch.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Get { .. } => Operation::Get,
            Self::Put { .. } => Operation::Put,
            Self::Delete { .. } => Operation::Delete,
            Self::CompareAndSet { .. } => Operation::CompareAndSet,
        }
    }

    /// The key.
    pub fn key(&self) -> &'a [u8] {
        match *self {
            Self::Get { key, .. }
            | Self::Put { key, .. }
            | Self::Delete { key }
            | Self::CompareAndSet { key, .. } => key,
        }
    }

    /// The value it would set.
    pub fn value(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Put { value, .. } | Self::CompareAndSet { value, .. } => Some(value),
            Self::Get { .. } | Self::Delete { .. } => None,
        }
    }

    /// Bytes it takes in a request.
    pub fn size(&self) -> usize {
        let expected = match *self {
            Self::CompareAndSet { expected, .. } => expected.map_or(0, <[u8]>::len),
            _ => 0,
        };
        ITEM_HEADER_SIZE + self.key().len() + self.value().map_or(0, <[u8]>::len) + expected
    }

    /// Appends it to a request's body. The caller keeps to the limits: a key of 1 to 256 bytes, sizes below 4 GiB.
    pub fn encode(&self, body: &mut Vec<u8>) {
        let (value_size, expected_size) = match *self {
            Self::Get { size_max, .. } => (size_max, 0),
            Self::Put { value, .. } => (value.len() as u32, 0),
            Self::Delete { .. } => (0, 0),
            Self::CompareAndSet {
                expected, value, ..
            } => (
                value.len() as u32,
                expected.map_or(ABSENT, |expected| expected.len() as u32),
            ),
        };
        let header = ItemHeader {
            operation: self.operation() as u8,
            reserved: 0,
            key_size: self.key().len() as u16,
            value_size,
            expected_size,
            reserved_2: 0,
        };
        body.extend_from_slice(header.as_bytes());
        body.extend_from_slice(self.key());
        body.extend_from_slice(self.value().unwrap_or(&[]));
        if let Self::CompareAndSet {
            expected: Some(expected),
            ..
        } = *self
        {
            body.extend_from_slice(expected);
        }
    }

    /// The item that `bytes` begin with, and the bytes behind it.
    pub fn decode(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = ItemHeader::read_from_prefix(bytes).ok()?;
        let key_size = usize::from(header.key_size);
        if header.reserved != 0 || header.reserved_2 != 0 || !(1..=KEY_SIZE_MAX).contains(&key_size)
        {
            return None;
        }
        let (key, rest) = rest.split_at_checked(key_size)?;
        let operation = Operation::from_byte(header.operation)?;
        if operation != Operation::CompareAndSet && header.expected_size != 0 {
            return None;
        }
        let value_size = header.value_size as usize;
        match operation {
            Operation::Get => Some((
                Self::Get {
                    key,
                    size_max: header.value_size,
                },
                rest,
            )),
            Operation::Delete if value_size == 0 => Some((Self::Delete { key }, rest)),
            Operation::Put => {
                let (value, rest) = rest.split_at_checked(value_size)?;
                Some((Self::Put { key, value }, rest))
            }
            Operation::CompareAndSet => {
                let (value, rest) = rest.split_at_checked(value_size)?;
                let (expected, rest) = match header.expected_size {
                    ABSENT => (None, rest),
                    size => {
                        let (expected, rest) = rest.split_at_checked(size as usize)?;
                        (Some(expected), rest)
                    }
                };
                Some((
                    Self::CompareAndSet {
                        key,
                        expected,
                        value,
                    },
                    rest,
                ))
            }
            _ => None,
        }
    }
}

/// The items of a request whose every byte was checked.
#[derive(Clone, Debug)]
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
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let (item, rest) = Item::decode(self.rest)?;
        self.rest = rest;
        Some(item)
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ScanHeader {
    reverse: u8,
    keys_only: u8,
    from_bound: u8,
    to_bound: u8,
    from_size: u16,
    to_size: u16,
    count_max: u32,
    size_max: u32,
}

static_assertions::const_assert_eq!(size_of::<ScanHeader>(), 16);

/// A scan. To go on behind a reply that says `more`, scan again with the last key as an excluded bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scan<'a> {
    /// Lower bound, of at most 256 bytes.
    pub from: Bound<&'a [u8]>,
    /// Upper bound, of at most 256 bytes. See [`prefix_end`] for the keys with a prefix.
    pub to: Bound<&'a [u8]>,
    /// From the upper bound down.
    pub reverse: bool,
    /// Without values.
    pub keys_only: bool,
    /// Most entries, from 1.
    pub count_max: u32,
    /// Most bytes of the reply, from [`SCAN_SIZE_MIN`]; zero: as many as the limits allow.
    pub size_max: u32,
}

fn bound_parts(bound: Bound<&[u8]>) -> (u8, &[u8]) {
    match bound {
        Bound::Unbounded => (0, &[]),
        Bound::Included(key) => (1, key),
        Bound::Excluded(key) => (2, key),
    }
}

fn bound(kind: u8, key: &[u8]) -> Option<Bound<&[u8]>> {
    match kind {
        0 if key.is_empty() => Some(Bound::Unbounded),
        1 => Some(Bound::Included(key)),
        2 => Some(Bound::Excluded(key)),
        _ => None,
    }
}

impl<'a> Scan<'a> {
    /// Everything, in order.
    pub const ALL: Self = Self {
        from: Bound::Unbounded,
        to: Bound::Unbounded,
        reverse: false,
        keys_only: false,
        count_max: u32::MAX,
        size_max: 0,
    };

    /// Appends it to a request's body.
    pub fn encode(&self, body: &mut Vec<u8>) {
        let ((from_bound, from), (to_bound, to)) = (bound_parts(self.from), bound_parts(self.to));
        let header = ScanHeader {
            reverse: u8::from(self.reverse),
            keys_only: u8::from(self.keys_only),
            from_bound,
            to_bound,
            from_size: from.len() as u16,
            to_size: to.len() as u16,
            count_max: self.count_max,
            size_max: self.size_max,
        };
        body.extend_from_slice(header.as_bytes());
        body.extend_from_slice(from);
        body.extend_from_slice(to);
    }

    /// The scan that a body is.
    pub fn decode(body: &'a [u8]) -> Option<Self> {
        let (header, rest) = ScanHeader::read_from_prefix(body).ok()?;
        let (from, to) = rest.split_at_checked(usize::from(header.from_size))?;
        let holds = to.len() == usize::from(header.to_size)
            && from.len() <= KEY_SIZE_MAX
            && to.len() <= KEY_SIZE_MAX
            && header.reverse <= 1
            && header.keys_only <= 1
            && header.count_max > 0
            && (header.size_max == 0 || header.size_max as usize >= SCAN_SIZE_MIN);
        if !holds {
            return None;
        }
        Some(Self {
            from: bound(header.from_bound, from)?,
            to: bound(header.to_bound, to)?,
            reverse: header.reverse == 1,
            keys_only: header.keys_only == 1,
            count_max: header.count_max,
            size_max: header.size_max,
        })
    }
}

/// The upper bound of the keys that begin with `prefix`, made in `buffer`.
pub fn prefix_end<'a>(prefix: &[u8], buffer: &'a mut [u8; KEY_SIZE_MAX]) -> Bound<&'a [u8]> {
    let Some(last) = prefix.iter().rposition(|&byte| byte < u8::MAX) else {
        return Bound::Unbounded;
    };
    buffer[..=last].copy_from_slice(&prefix[..=last]);
    buffer[last] += 1;
    Bound::Excluded(&buffer[..=last])
}
