//! Replies: what the machine writes and clients decode. [`super`] has the tables.

use super::{ENTRY_HEADER_SIZE, REPLY_HEADER_SIZE, RESULT_HEADER_SIZE, Status};
use storage::collections::ordered_map::KEY_SIZE_MAX;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What every reply begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReplyHeader {
    /// Ordinal of a [`Status`].
    pub status: u8,
    /// Of a scan: 1 if the range goes on.
    pub more: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// See the module's description.
    pub count: u32,
    /// See the module's description.
    pub version: u64,
}

static_assertions::const_assert_eq!(size_of::<ReplyHeader>(), REPLY_HEADER_SIZE);

impl ReplyHeader {
    /// A header of a reply that is not a scan with more behind it.
    pub fn new(status: Status, count: u32, version: u64) -> Self {
        Self {
            status: status as u8,
            more: 0,
            reserved: [0; 2],
            count,
            version,
        }
    }

    fn decode(bytes: &[u8]) -> Option<(Self, Status, &[u8])> {
        let (header, rest) = Self::read_from_prefix(bytes).ok()?;
        let holds = header.more <= 1 && header.reserved == [0; 2];
        Some((
            header,
            Status::from_byte(header.status).filter(|_| holds)?,
            rest,
        ))
    }
}

/// How an operation on one key ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ItemReply<'a> {
    /// The outcome.
    pub status: Status,
    /// The version that was made or found. (A mismatch in a batch does not tell it.)
    pub version: u64,
    /// Size of the key's value, if it was found.
    pub value_size: u32,
    /// The value, if the status says so.
    pub value: &'a [u8],
}

impl<'a> ItemReply<'a> {
    /// The reply to a get, put, delete or compare_and_set.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, status, value) = ReplyHeader::decode(bytes)?;
        let value_size = if status == Status::Value {
            header.count
        } else {
            0
        };
        (header.more == 0 && value.len() == value_size as usize).then_some(Self {
            status,
            version: header.version,
            value_size: header.count,
            value,
        })
    }
}

/// The reply to a count: keys, and the store's revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CountReply {
    /// Keys in the store.
    pub count: u64,
    /// Changes in the store's life.
    pub revision: u64,
}

impl CountReply {
    /// The reply that `bytes` are.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, status, rest) = ReplyHeader::decode(bytes)?;
        let count = u64::from_le_bytes(rest.try_into().ok()?);
        (status == Status::Done && header.more == 0 && header.count == 0).then_some(Self {
            count,
            revision: header.version,
        })
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(in super::super) struct EntryHeader {
    pub key_size: u16,
    pub omitted: u8,
    pub reserved: u8,
    pub value_size: u32,
    pub version: u64,
}

static_assertions::const_assert_eq!(size_of::<EntryHeader>(), ENTRY_HEADER_SIZE);

/// A key that a scan found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Revision of the store when it last changed.
    pub version: u64,
    /// Size of its value.
    pub value_size: u32,
    /// Its value; none if it was not wanted, or had no room in the reply, where then it is the only entry.
    pub value: Option<&'a [u8]>,
}

fn entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (header, rest) = EntryHeader::read_from_prefix(bytes).ok()?;
    let (key, rest) = rest.split_at_checked(usize::from(header.key_size))?;
    if header.omitted > 1 || header.reserved != 0 || !(1..=KEY_SIZE_MAX).contains(&key.len()) {
        return None;
    }
    let size = if header.omitted == 1 {
        0
    } else {
        header.value_size as usize
    };
    let (value, rest) = rest.split_at_checked(size)?;
    let value = (header.omitted == 0).then_some(value);
    let entry = Entry {
        key,
        version: header.version,
        value_size: header.value_size,
        value,
    };
    Some((entry, rest))
}

/// The reply to a scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanReply<'a> {
    /// Whether the range goes on behind the last entry.
    pub more: bool,
    /// Entries in the reply.
    pub count: u32,
    /// The store's revision.
    pub revision: u64,
    rest: &'a [u8],
}

impl<'a> ScanReply<'a> {
    /// The reply that `bytes` are.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, status, rest) = ReplyHeader::decode(bytes)?;
        let mut left = rest;
        for _ in 0..header.count {
            left = entry(left)?.1;
        }
        (status == Status::Done && left.is_empty()).then_some(Self {
            more: header.more == 1,
            count: header.count,
            revision: header.version,
            rest,
        })
    }

    /// The entries, in the order of the scan.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut rest = self.rest;
        std::iter::from_fn(move || {
            let (entry, left) = entry(rest)?;
            rest = left;
            Some(entry)
        })
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub(in super::super) struct ResultHeader {
    pub version: u64,
    pub value_size: u32,
}

static_assertions::const_assert_eq!(size_of::<ResultHeader>(), RESULT_HEADER_SIZE);

/// The reply to a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchReply<'a> {
    statuses: &'a [u8],
    data: &'a [u8],
    revision: u64,
}

impl<'a> BatchReply<'a> {
    /// The reply that `bytes` are.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, status, rest) = ReplyHeader::decode(bytes)?;
        let (statuses, data) = rest.split_at_checked(header.count as usize)?;
        let reply = Self {
            statuses,
            data,
            revision: header.version,
        };
        let mut results = reply.results();
        let all = results.by_ref().count() == statuses.len() && results.data.is_empty();
        (all && status == Status::Done && header.more == 0).then_some(reply)
    }

    /// Items of the batch.
    pub fn len(&self) -> usize {
        self.statuses.len()
    }

    /// Whether there was no item; never so in a reply to a valid request.
    pub fn is_empty(&self) -> bool {
        self.statuses.is_empty()
    }

    /// One result for each item, in order.
    pub fn results(&self) -> Results<'a> {
        Results {
            statuses: self.statuses,
            data: self.data,
            revision: self.revision,
        }
    }
}

/// The results of a batch, one after another.
#[derive(Clone, Debug)]
pub struct Results<'a> {
    statuses: &'a [u8],
    data: &'a [u8],
    revision: u64,
}

impl<'a> Iterator for Results<'a> {
    type Item = ItemReply<'a>;

    fn next(&mut self) -> Option<ItemReply<'a>> {
        let (&status, statuses) = self.statuses.split_first()?;
        let status = Status::from_byte(status)?;
        let mut reply = ItemReply {
            status,
            version: 0,
            value_size: 0,
            value: &[],
        };
        match status {
            Status::Done => {
                self.revision = self.revision.checked_add(1)?;
                reply.version = self.revision;
            }
            Status::Value | Status::TooLarge => {
                let (header, rest) = ResultHeader::read_from_prefix(self.data).ok()?;
                let size = if status == Status::Value {
                    header.value_size as usize
                } else {
                    0
                };
                (reply.version, reply.value_size) = (header.version, header.value_size);
                (reply.value, self.data) = rest.split_at_checked(size)?;
            }
            Status::NotFound | Status::Mismatch | Status::Invalid => {}
        }
        self.statuses = statuses;
        Some(reply)
    }
}
