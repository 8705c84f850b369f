//! The key-value machine, typed: encodes calls, decodes answers, and adds nothing else.

use super::outcome::{CallError, Definite, NotSent, Unknown};
use super::{Client, ClientOptions, ConnectError, Kind, Reply};
use crate::state_machine::kv::wire::{
    BatchReply, CountReply, Item, ItemReply, KEY_SIZE_MAX, Operation, Scan, ScanReply, Status,
};
use std::ops::Bound;

/// The machine's number in a cluster of the released binary: the high byte of its operations.
pub const MACHINE: u8 = 1;

/// The operation's number on the wire.
pub const fn operation(operation: Operation) -> u16 {
    (MACHINE as u16) << 8 | operation as u16
}

/// How a call ends if it does not do what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The call ended without an answer of the machine.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A key is too long. Nothing was sent.
    #[error("a key has at most {KEY_SIZE_MAX} bytes; this one has {0}")]
    Key(usize),
    /// A batch without items, or a scan of no entries. Nothing was sent.
    #[error("the request asks for nothing")]
    Empty,
    /// The value does not fit an answer. Nothing was changed.
    #[error("the value has {0} bytes, more than an answer holds")]
    TooLarge(u32),
    /// The answer is not one: the cluster runs another machine, or another release. What was asked for was executed.
    #[error("the answer of op {0} is not one of the key-value machine")]
    Answer(u64),
}

impl KvError {
    /// Whether a change may have been made.
    pub fn is_indeterminate(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_indeterminate())
    }

    /// Under what the outcome may be settled, if it is unknown.
    pub fn unknown(&self) -> Option<&Unknown> {
        match self {
            Self::Call(CallError::Indeterminate(unknown)) => Some(unknown),
            _ => None,
        }
    }
}

impl From<Definite> for KvError {
    fn from(error: Definite) -> Self {
        Self::Call(error.into())
    }
}

impl From<NotSent> for KvError {
    fn from(error: NotSent) -> Self {
        Self::Call(error.into())
    }
}

/// A value and what it is worth comparing by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    /// Names the change that made it, for ever.
    pub version: u64,
}

/// How a compare-and-set ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The key had the expected value, and has the new one, of this version.
    Done(u64),
    /// It had another, of this version, or none: zero. Nothing was changed.
    Mismatch(u64),
}

/// A key that a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The version of its value.
    pub version: u64,
    /// Its value; none if it was not asked for, or does not fit an answer.
    pub value: Option<Vec<u8>>,
}

/// What one answer held of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of the scan.
    pub entries: Vec<Entry>,
    /// The range goes on: scan again behind the last key.
    pub more: bool,
    /// The store's revision.
    pub revision: u64,
}

/// What became of an item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemResult {
    /// How it ended.
    pub status: Status,
    /// The version that it made or found; zero where the answer tells none.
    pub version: u64,
    /// The value, of a get that found one.
    pub value: Option<Vec<u8>>,
}

/// A client of the key-value machine.
#[derive(Debug)]
pub struct KvClient {
    client: Client,
}

impl KvClient {
    /// Starts a client; see [`Client::connect`].
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(options: &ClientOptions) -> Result<Self, ConnectError> {
        Ok(Self {
            client: Client::connect(options)?,
        })
    }

    /// The client that it calls with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The key's value.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Versioned>, KvError> {
        let item = Item::Get {
            key,
            size_max: u32::MAX,
        };
        self.item(&item, |reply| match reply.status {
            Status::Value => Some(Ok(Some(Versioned {
                value: reply.value.to_vec(),
                version: reply.version,
            }))),
            Status::NotFound => Some(Ok(None)),
            Status::TooLarge => Some(Err(KvError::TooLarge(reply.value_size))),
            _ => None,
        })
    }

    /// Sets the key's value. Returns its version.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<u64, KvError> {
        self.item(&Item::Put { key, value }, |reply| {
            (reply.status == Status::Done).then_some(Ok(reply.version))
        })
    }

    /// Removes the key. Returns the change's version; none if there was no such key.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn delete(&self, key: &[u8]) -> Result<Option<u64>, KvError> {
        self.item(&Item::Delete { key }, |reply| match reply.status {
            Status::Done => Some(Ok(Some(reply.version))),
            Status::NotFound => Some(Ok(None)),
            _ => None,
        })
    }

    /// Sets the key's value if it is `expected`; none: if there is no such key.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: &[u8],
    ) -> Result<Swap, KvError> {
        let item = Item::CompareAndSet {
            key,
            expected,
            value,
        };
        self.item(&item, |reply| match reply.status {
            Status::Done => Some(Ok(Swap::Done(reply.version))),
            Status::Mismatch => Some(Ok(Swap::Mismatch(reply.version))),
            Status::NotFound => Some(Ok(Swap::Mismatch(0))),
            _ => None,
        })
    }

    /// Reads a range, as much of it as an answer holds.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn scan(&self, scan: &Scan<'_>) -> Result<Page, KvError> {
        for bound in [scan.from, scan.to] {
            if let Bound::Included(key) | Bound::Excluded(key) = bound
                && key.len() > KEY_SIZE_MAX
            {
                return Err(KvError::Key(key.len()));
            }
        }
        if scan.count_max == 0 {
            return Err(KvError::Empty);
        }
        let mut body = Vec::new();
        scan.encode(&mut body);
        let reply = self.client.read(operation(Operation::Scan), &body)?;
        let page = ScanReply::decode(&reply.body).ok_or(KvError::Answer(reply.op))?;
        let entries = page.entries().map(|entry| Entry {
            key: entry.key.to_vec(),
            version: entry.version,
            value: entry.value.map(<[u8]>::to_vec),
        });
        Ok(Page {
            entries: entries.collect(),
            more: page.more,
            revision: page.revision,
        })
    }

    /// Counts the keys.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn count(&self) -> Result<CountReply, KvError> {
        let reply = self.client.read(operation(Operation::Count), &[])?;
        CountReply::decode(&reply.body).ok_or(KvError::Answer(reply.op))
    }

    /// Executes items in order, in one request: all of them, or, if the call fails definitely, none.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn batch(&self, items: &[Item<'_>]) -> Result<Vec<ItemResult>, KvError> {
        if items.is_empty() {
            return Err(KvError::Empty);
        }
        let mut body = Vec::with_capacity(items.iter().map(Item::size).sum());
        for item in items {
            check_key(item.key())?;
            item.encode(&mut body);
        }
        let reads = items.iter().all(|item| matches!(item, Item::Get { .. }));
        let number = operation(Operation::Batch);
        let reply = if reads {
            self.client.read(number, &body)?
        } else {
            self.client.write(number, &body)?
        };
        let results = BatchReply::decode(&reply.body).filter(|it| it.len() == items.len());
        let results = results.ok_or(KvError::Answer(reply.op))?.results();
        let owned = results.map(|result| ItemResult {
            status: result.status,
            version: result.version,
            value: (result.status == Status::Value).then(|| result.value.to_vec()),
        });
        Ok(owned.collect())
    }

    fn item<T>(
        &self,
        item: &Item<'_>,
        outcome: impl FnOnce(ItemReply<'_>) -> Option<Result<T, KvError>>,
    ) -> Result<T, KvError> {
        check_key(item.key())?;
        let mut body = Vec::with_capacity(item.size());
        item.encode(&mut body);
        let kind = kind(item.operation());
        let number = operation(item.operation());
        let reply: Reply = match kind {
            Kind::Read => self.client.read(number, &body)?,
            _ => self.client.write(number, &body)?,
        };
        ItemReply::decode(&reply.body)
            .and_then(outcome)
            .unwrap_or(Err(KvError::Answer(reply.op)))
    }
}

fn kind(operation: Operation) -> Kind {
    match operation {
        Operation::Get | Operation::Scan | Operation::Count => Kind::Read,
        _ => Kind::Write,
    }
}

fn check_key(key: &[u8]) -> Result<(), KvError> {
    if key.len() <= KEY_SIZE_MAX {
        Ok(())
    } else {
        Err(KvError::Key(key.len()))
    }
}
