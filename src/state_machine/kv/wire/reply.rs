//! Replies: what the machine writes and clients decode. [`super`] has the tables.

use super::{ENTRY_HEADER_SIZE, KEY_SIZE_MAX, REPLY_HEADER_SIZE, Status, ValueKind};
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
    /// Results or entries that follow.
    pub count: u32,
    /// Revision of the store; of a write, before it.
    pub revision: u64,
}

static_assertions::const_assert_eq!(size_of::<ReplyHeader>(), REPLY_HEADER_SIZE);

impl ReplyHeader {
    /// A header of a reply that is not a scan with more behind it.
    pub fn new(status: Status, count: u32, revision: u64) -> Self {
        Self {
            status: status as u8,
            more: 0,
            reserved: [0; 2],
            count,
            revision,
        }
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = Self::read_from_prefix(bytes).ok()?;
        let holds =
            header.status == Status::Done as u8 && header.more <= 1 && header.reserved == [0; 2];
        holds.then_some((header, rest))
    }
}

/// How an item ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ItemReply<'a> {
    /// The outcome.
    pub status: Status,
    /// The version that was made (by what is done) or found; zero where there is none. Of a `DoneValue` and `DoneMembers` it
    /// is the one that was made; that of what is returned is [`Self::old_version`].
    pub version: u64,
    /// Of a `DoneValue` or `DoneMembers`: the version that the key had before.
    pub old_version: u64,
    /// Size of the key's value, if the status tells it; of a collection, its length.
    pub value_size: u32,
    /// The value, if the status says so.
    pub value: &'a [u8],
    /// The number, if the status says so.
    pub number: i64,
    /// Of a stat: when the key expires, in milliseconds since 1970; zero: never.
    pub expiry_ms: u64,
    /// Of a stat: what the key holds.
    pub kind: ValueKind,
    /// Members or elements, if the status says so, as many as had room.
    pub members: Members<'a>,
    /// Whether there are more of them behind those.
    pub more: bool,
    /// Of a transaction: the results of the list that was executed.
    pub results: Results<'a>,
}

impl<'a> ItemReply<'a> {
    fn new(status: Status) -> Self {
        Self {
            status,
            version: 0,
            old_version: 0,
            value_size: 0,
            value: &[],
            number: 0,
            expiry_ms: 0,
            kind: ValueKind::Bytes,
            members: Members::EMPTY,
            more: false,
            results: Results::EMPTY,
        }
    }

    /// The reply to a request of one item.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let reply = BatchReply::decode(bytes)?;
        if reply.len() == 1 {
            reply.results().next()
        } else {
            None
        }
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
        let (header, rest) = ReplyHeader::decode(bytes)?;
        let count = u64::from_le_bytes(rest.try_into().ok()?);
        (header.more == 0 && header.count == 0).then_some(Self {
            count,
            revision: header.revision,
        })
    }
}

/// The value is not in the reply.
pub(in super::super) const ENTRY_OMITTED: u8 = 1;

/// No key, but the place where a scan stopped.
pub(in super::super) const ENTRY_NO_KEY: u8 = 2;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(in super::super) struct EntryHeader {
    pub key_size: u16,
    /// [`ENTRY_OMITTED`] or [`ENTRY_NO_KEY`] or zero.
    pub flags: u8,
    pub kind: u8,
    pub value_size: u32,
    pub version: u64,
}

static_assertions::const_assert_eq!(size_of::<EntryHeader>(), ENTRY_HEADER_SIZE);

/// What a scan found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// False: there is no such key any more; the scan stopped at it, among too many expired ones. Only the last entry
    /// is ever like that, and it is there to go on from.
    pub is_key: bool,
    /// What the key holds.
    pub kind: ValueKind,
    /// Revision of the store when the key last changed.
    pub version: u64,
    /// Size of its value; of a collection, its length.
    pub value_size: u32,
    /// Its value; none if it was not wanted, or had no room in the reply, where then it is the only entry.
    pub value: Option<&'a [u8]>,
}

fn entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (header, rest) = EntryHeader::read_from_prefix(bytes).ok()?;
    let (key, rest) = rest.split_at_checked(usize::from(header.key_size))?;
    if header.flags > 2 || key.len() > KEY_SIZE_MAX {
        return None;
    }
    let size = if header.flags == 0 {
        header.value_size as usize
    } else {
        0
    };
    let (value, rest) = rest.split_at_checked(size)?;
    let value = (header.flags == 0).then_some(value);
    let entry = Entry {
        key,
        is_key: header.flags != ENTRY_NO_KEY,
        kind: ValueKind::from_byte(header.kind)?,
        version: header.version,
        value_size: header.value_size,
        value,
    };
    Some((entry, rest))
}

/// The reply to a scan, or to a request for a random key: then it has one entry, without its value, or none.
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
        let (header, rest) = ReplyHeader::decode(bytes)?;
        let mut left = rest;
        for _ in 0..header.count {
            left = entry(left)?.1;
        }
        left.is_empty().then_some(Self {
            more: header.more == 1,
            count: header.count,
            revision: header.revision,
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

/// The reply to a request of items.
#[derive(Clone, Copy, Debug)]
pub struct BatchReply<'a> {
    /// The store's revision; of a write, before it.
    pub revision: u64,
    results: Results<'a>,
}

impl<'a> BatchReply<'a> {
    /// The reply that `bytes` are.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, data) = ReplyHeader::decode(bytes)?;
        let results = Results {
            left: header.count,
            data,
            revision: header.revision,
            is_nested: false,
        };
        let mut walked = results;
        while walked.next().is_some() {}
        let all = walked.left == 0 && walked.data.is_empty();
        (all && header.more == 0).then_some(Self {
            revision: header.revision,
            results,
        })
    }

    /// Items of the request.
    pub fn len(&self) -> usize {
        self.results.left as usize
    }

    /// Whether there was no item; never so in a reply to a valid request.
    pub fn is_empty(&self) -> bool {
        self.results.left == 0
    }

    /// The places of the items for which there was no space.
    pub fn refused(&self) -> Vec<usize> {
        let results = self.results().enumerate();
        let refused = results.filter(|(_, result)| result.status == Status::OutOfSpace);
        refused.map(|(place, _)| place).collect()
    }

    /// One result for each item, in order.
    pub fn results(&self) -> Results<'a> {
        self.results
    }
}

/// The results of a request or of a transaction, one after another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Results<'a> {
    left: u32,
    data: &'a [u8],
    revision: u64,
    /// Those of a transaction, among which there is no transaction.
    is_nested: bool,
}

impl<'a> Results<'a> {
    const EMPTY: Self = Self {
        left: 0,
        data: &[],
        revision: 0,
        is_nested: true,
    };

    /// Results that are still to come.
    pub fn len(&self) -> usize {
        self.left as usize
    }

    /// Whether none is to come.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.data.split_first_chunk()?;
        self.data = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// Version and size, and perhaps the value.
    fn value(&mut self, reply: &mut ItemReply<'a>) -> Option<()> {
        reply.version = self.number()?;
        reply.value_size = u32::from_le_bytes(self.take()?);
        if reply.status != Status::TooLarge {
            let (value, rest) = self.data.split_at_checked(reply.value_size as usize)?;
            (reply.value, self.data) = (value, rest);
        }
        Some(())
    }

    fn members(&mut self, reply: &mut ItemReply<'a>) -> Option<()> {
        reply.version = self.number()?;
        let left = u32::from_le_bytes(self.take()?);
        reply.more = match self.take()? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let mut members = Members {
            left,
            data: self.data,
        };
        reply.members = members;
        while members.next().is_some() {}
        self.data = members.data;
        (members.left == 0).then_some(())
    }

    /// Walks over the results of a transaction.
    fn nested(&mut self) -> Option<Self> {
        if self.is_nested {
            return None;
        }
        let count = u16::from_le_bytes(self.take()?);
        let mut results = Self {
            left: u32::from(count),
            data: self.data,
            revision: self.revision,
            is_nested: true,
        };
        let begin = results;
        while results.next().is_some() {}
        if results.left > 0 {
            return None;
        }
        let size = self.data.len() - results.data.len();
        (self.data, self.revision) = (results.data, results.revision);
        Some(Self {
            data: &begin.data[..size],
            ..begin
        })
    }

    fn result(&mut self) -> Option<ItemReply<'a>> {
        let mut reply = ItemReply::new(Status::from_byte(self.take::<1>()?[0])?);
        match reply.status {
            Status::Value | Status::TooLarge | Status::MismatchValue | Status::DoneValue => {
                self.value(&mut reply)?;
            }
            Status::Mismatch => reply.version = self.number()?,
            Status::DoneNumber | Status::Number => reply.number = self.number()?.cast_signed(),
            Status::Stat => {
                reply.version = self.number()?;
                reply.expiry_ms = self.number()?;
                reply.value_size = u32::from_le_bytes(self.take()?);
                reply.kind = ValueKind::from_byte(self.take::<1>()?[0])?;
            }
            Status::Members | Status::DoneMembers => self.members(&mut reply)?,
            Status::Succeeded | Status::Failed => reply.results = self.nested()?,
            Status::Done
            | Status::NotFound
            | Status::Invalid
            | Status::NotANumber
            | Status::Overflow
            | Status::TooLong
            | Status::WrongType
            | Status::OutOfSpace => {}
        }
        if reply.status.is_done() {
            self.revision = self.revision.checked_add(1)?;
            (reply.old_version, reply.version) = (reply.version, self.revision);
        }
        Some(reply)
    }
}

#[expect(
    clippy::copy_iterator,
    reason = "a view of bytes, which is walked more than once on purpose"
)]
impl<'a> Iterator for Results<'a> {
    type Item = ItemReply<'a>;

    fn next(&mut self) -> Option<ItemReply<'a>> {
        let left = self.left.checked_sub(1)?;
        let reply = self.result()?;
        self.left = left;
        Some(reply)
    }
}

/// The byte strings of a result, one after another: members, fields and values, scores, or elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Members<'a> {
    left: u32,
    data: &'a [u8],
}

impl Members<'_> {
    const EMPTY: Self = Self { left: 0, data: &[] };

    /// Byte strings that are still to come.
    pub fn len(&self) -> usize {
        self.left as usize
    }

    /// Whether none is to come.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

#[expect(
    clippy::copy_iterator,
    reason = "a view of bytes, which is walked more than once on purpose"
)]
impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let left = self.left.checked_sub(1)?;
        let (size, data) = self.data.split_first_chunk()?;
        let (member, data) = data.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        (self.left, self.data) = (left, data);
        Some(member)
    }
}
