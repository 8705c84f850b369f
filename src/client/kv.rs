//! The key-value machine, typed: encodes calls, decodes answers, and adds nothing else.

use super::outcome::{CallError, Definite, NotSent, Unknown};
use super::{Client, ClientOptions, ConnectError, Reply};
use crate::state_machine::kv::wire::{
    BatchReply, Condition, CountReply, Expiry, ExpiryCondition, Item, ItemReply, KEY_SIZE_MAX,
    Operation, Scan, ScanReply, SetCondition, SetOptions, Status, TransactionBytes, prefix_end,
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
    /// The call ended without an answer of the machine, or the state is out of space.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A key is too long. Nothing was sent.
    #[error("a key has at most {KEY_SIZE_MAX} bytes; this one has {0}")]
    Key(usize),
    /// A batch without items, a scan of no entries, or a transaction with a list too long or with a transaction in it.
    /// Nothing was sent.
    #[error("the request asks for nothing, or for what cannot be asked")]
    Empty,
    /// The value does not fit an answer. Nothing was changed.
    #[error("the value has {0} bytes, more than an answer holds")]
    TooLarge(u32),
    /// The value would be longer than a value may be. Nothing was changed.
    #[error("the value would be longer than this cluster's values may be")]
    TooLong,
    /// The value is not a decimal number of 64 bits. Nothing was changed.
    #[error("the value is not a decimal number of 64 bits")]
    NotANumber,
    /// The sum does not fit 64 bits. Nothing was changed.
    #[error("the sum does not fit 64 bits")]
    Overflow,
    /// The value is of another type. Nothing was changed.
    #[error("the value is of another type")]
    WrongType,
    /// The answer is not one: the cluster runs another machine, or another release. What was asked for was executed.
    #[error("the answer of op {0} is not one of the key-value machine")]
    Answer(u64),
}

/// The error that an item's status is, if it is one.
fn error_of(reply: &ItemReply<'_>) -> Option<KvError> {
    Some(match reply.status {
        Status::OutOfSpace => Definite::OutOfSpace.into(),
        Status::TooLarge => KvError::TooLarge(reply.value_size),
        Status::TooLong => KvError::TooLong,
        Status::NotANumber => KvError::NotANumber,
        Status::Overflow => KvError::Overflow,
        Status::WrongType => KvError::WrongType,
        _ => return None,
    })
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

impl Versioned {
    /// Of a reply that has a value.
    fn of(reply: &ItemReply<'_>) -> Self {
        let version = if reply.status.is_done() {
            reply.old_version
        } else {
            reply.version
        };
        Self {
            value: reply.value.to_vec(),
            version,
        }
    }
}

/// How a set, an expire or a rename ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was done.
    Done {
        /// The key's new version.
        version: u64,
        /// The value there was before, if it was asked for and there was one.
        old: Option<Versioned>,
    },
    /// The condition did not hold; nothing was changed.
    Mismatch {
        /// The key's version (of a rename, that of the new key); zero if it is absent.
        version: u64,
        /// Its value, if it was asked for and there is one.
        current: Option<Versioned>,
    },
    /// There is no such key. Never the outcome of a set.
    NotFound,
}

impl Change {
    /// Whether it was done.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }

    fn of(reply: &ItemReply<'_>) -> Option<Self> {
        let (version, value) = (reply.version, Versioned::of(reply));
        Some(match reply.status {
            Status::Done => Self::Done { version, old: None },
            Status::DoneValue => Self::Done {
                version,
                old: Some(value),
            },
            Status::Mismatch => Self::Mismatch {
                version,
                current: None,
            },
            Status::MismatchValue => Self::Mismatch {
                version,
                current: Some(value),
            },
            Status::NotFound => Self::NotFound,
            _ => return None,
        })
    }
}

/// What is known of a key beside its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its version.
    pub version: u64,
    /// When it expires, in milliseconds since 1970; none: never.
    pub expiry_ms: Option<u64>,
    /// Bytes of its value.
    pub size: u32,
    /// The value's type; zero: bytes.
    pub kind: u8,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Whether the conditions held: the first list was executed, else the second.
    pub succeeded: bool,
    /// What became of its items.
    pub results: Vec<ItemResult>,
}

/// How a compare-and-set ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The key had the expected value, and has the new one, of this version.
    Done(u64),
    /// It had another, of this version, or none: zero. Nothing was changed.
    Mismatch(u64),
}

impl Swap {
    fn of(reply: &ItemReply<'_>) -> Option<Self> {
        match reply.status {
            Status::Done => Some(Self::Done(reply.version)),
            Status::Mismatch => Some(Self::Mismatch(reply.version)),
            _ => None,
        }
    }
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
    /// The range goes on: scan again behind this key (before it, in reverse order). None: it does not.
    pub next: Option<Vec<u8>>,
    /// The store's revision.
    pub revision: u64,
}

/// What became of an item of a batch or transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemResult {
    /// How it ended.
    pub status: Status,
    /// The version that it made or found; zero where the answer tells none.
    pub version: u64,
    /// The value, where the status says that there is one.
    pub value: Option<Vec<u8>>,
    /// The number, where the status says that there is one.
    pub number: Option<i64>,
    /// Of a stat.
    pub stat: Option<Stat>,
    /// Of a transaction: what became of the items of the list that was executed.
    pub results: Vec<ItemResult>,
}

impl ItemResult {
    fn of(reply: &ItemReply<'_>) -> Self {
        let has_value = matches!(
            reply.status,
            Status::Value | Status::DoneValue | Status::MismatchValue
        );
        let has_number = matches!(reply.status, Status::Number | Status::DoneNumber);
        Self {
            status: reply.status,
            version: reply.version,
            value: has_value.then(|| reply.value.to_vec()),
            number: has_number.then_some(reply.number),
            stat: stat_of(reply),
            results: reply.results.map(|reply| Self::of(&reply)).collect(),
        }
    }
}

fn stat_of(reply: &ItemReply<'_>) -> Option<Stat> {
    (reply.status == Status::Stat).then_some(Stat {
        version: reply.version,
        expiry_ms: Some(reply.expiry_ms).filter(|&time| time != 0),
        size: reply.value_size,
        kind: reply.kind,
    })
}

fn version_done(reply: &ItemReply<'_>) -> Option<u64> {
    (reply.status == Status::Done).then_some(reply.version)
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
        let size_max = u32::MAX;
        self.item(&Item::Get { key, size_max }, |reply| match reply.status {
            Status::Value => Some(Some(Versioned::of(reply))),
            Status::NotFound => Some(None),
            _ => None,
        })
    }

    /// Bytes of the key's value, from `start` to `end`, included. Negative: from the end; -1 is the last byte. What is
    /// outside of the value is left out.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn get_range(
        &self,
        key: &[u8],
        start: i64,
        end: i64,
    ) -> Result<Option<Versioned>, KvError> {
        let item = Item::GetRange {
            key,
            start,
            end,
            size_max: u32::MAX,
        };
        self.item(&item, |reply| match reply.status {
            Status::Value => Some(Some(Versioned::of(reply))),
            Status::NotFound => Some(None),
            _ => None,
        })
    }

    /// Version, expiry and size of a key; none if there is no such key.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn stat(&self, key: &[u8]) -> Result<Option<Stat>, KvError> {
        self.item(&Item::Stat { key }, |reply| match reply.status {
            Status::NotFound => Some(None),
            _ => stat_of(reply).map(Some),
        })
    }

    /// Whether there is such a key.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn exists(&self, key: &[u8]) -> Result<bool, KvError> {
        Ok(self.stat(key)?.is_some())
    }

    /// Sets the key's value, which never expires. Returns its version.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<u64, KvError> {
        self.item(&Item::Put { key, value }, version_done)
    }

    /// Sets the key's value on a condition, with an expiry, and tells the old value, as the options say. (The old value must
    /// fit the answer to a write, which is the geometry's reply size: [`KvError::TooLarge`], and nothing is changed.)
    ///
    /// # Errors
    /// [`KvError`].
    pub fn set(&self, key: &[u8], value: &[u8], options: SetOptions) -> Result<Change, KvError> {
        let item = Item::Set {
            key,
            value,
            options,
        };
        self.item(&item, Change::of)
    }

    /// Sets the key's value, which never expires, and returns the one before.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn get_and_put(&self, key: &[u8], value: &[u8]) -> Result<Option<Versioned>, KvError> {
        let item = Item::Set {
            key,
            value,
            options: SetOptions {
                old: true,
                ..SetOptions::default()
            },
        };
        self.item(&item, |reply| match Change::of(reply)? {
            Change::Done { old, .. } => Some(old),
            Change::Mismatch { .. } | Change::NotFound => None,
        })
    }

    /// Removes the key. Returns the change's version; none if there was no such key.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn delete(&self, key: &[u8]) -> Result<Option<u64>, KvError> {
        self.item(&Item::Delete { key }, |reply| match reply.status {
            Status::Done => Some(Some(reply.version)),
            Status::NotFound => Some(None),
            _ => None,
        })
    }

    /// Removes the key and returns its value, which must fit the answer to a write.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn get_and_delete(&self, key: &[u8]) -> Result<Option<Versioned>, KvError> {
        let size_max = u32::MAX;
        self.item(&Item::Take { key, size_max }, |reply| match reply.status {
            Status::DoneValue => Some(Some(Versioned::of(reply))),
            Status::NotFound => Some(None),
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
        self.item(&item, Swap::of)
    }

    /// Sets the key's value if the key has this version; zero: if there is no such key. Cheaper than by value, and immune to
    /// a value that was changed and changed back.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn compare_version_and_set(
        &self,
        key: &[u8],
        version: u64,
        value: &[u8],
    ) -> Result<Swap, KvError> {
        let options = SetOptions {
            condition: SetCondition::Version(version),
            ..SetOptions::default()
        };
        let item = Item::Set {
            key,
            value,
            options,
        };
        self.item(&item, Swap::of)
    }

    /// Adds to the key's value, a decimal number of 64 bits; an absent one is 0. Returns the sum. The expiry stays.
    ///
    /// # Errors
    /// [`KvError`]; [`KvError::NotANumber`] and [`KvError::Overflow`] change nothing.
    pub fn increment(&self, key: &[u8], delta: i64) -> Result<i64, KvError> {
        self.item(&Item::Increment { key, delta }, |reply| {
            (reply.status == Status::DoneNumber).then_some(reply.number)
        })
    }

    /// Adds bytes to the end of the key's value; an absent one is empty. Returns the new size. The expiry stays.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn append(&self, key: &[u8], value: &[u8]) -> Result<u64, KvError> {
        self.item(&Item::Append { key, value }, |reply| {
            (reply.status == Status::DoneNumber).then_some(reply.number.cast_unsigned())
        })
    }

    /// Overwrites bytes of the key's value, after zeros where it is shorter. Returns its size; with no bytes to write,
    /// nothing is changed. The expiry stays.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn set_range(&self, key: &[u8], offset: u32, value: &[u8]) -> Result<u64, KvError> {
        self.item(&Item::SetRange { key, offset, value }, |reply| {
            let is_number = matches!(reply.status, Status::DoneNumber | Status::Number);
            is_number.then_some(reply.number.cast_unsigned())
        })
    }

    /// Sets or clears the key's expiry. One that is reached already removes the key.
    ///
    /// # Errors
    /// [`KvError`]; [`KvError::Empty`] for [`Expiry::Keep`].
    pub fn expire(
        &self,
        key: &[u8],
        expiry: Expiry,
        condition: ExpiryCondition,
    ) -> Result<Change, KvError> {
        if expiry == Expiry::Keep {
            return Err(KvError::Empty);
        }
        let item = Item::Expire {
            key,
            expiry,
            condition,
            size_max: None,
        };
        self.item(&item, Change::of)
    }

    /// Clears the key's expiry; false if there is no such key, or it has none.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn persist(&self, key: &[u8]) -> Result<bool, KvError> {
        let change = self.expire(key, Expiry::Never, ExpiryCondition::Present)?;
        Ok(change.is_done())
    }

    /// Moves value and expiry to another key; what that had is gone, unless `if_absent` forbids it.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn rename(&self, key: &[u8], to: &[u8], if_absent: bool) -> Result<Change, KvError> {
        check_key(to)?;
        self.item(&Item::Rename { key, to, if_absent }, Change::of)
    }

    /// Removes all keys. Returns the change's version.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn clear(&self) -> Result<u64, KvError> {
        self.item(&Item::Clear, version_done)
    }

    /// Some key, chosen by a number that the caller draws at random; none if there is none.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn random_key(&self, seed: u64) -> Result<Option<Vec<u8>>, KvError> {
        let number = operation(Operation::Random);
        let reply = self.client.read(number, &seed.to_le_bytes())?;
        let page = ScanReply::decode(&reply.body).ok_or(KvError::Answer(reply.op))?;
        let found = page.entries().next().map(|entry| entry.key.to_vec());
        Ok(found)
    }

    /// Executes `then` if all conditions hold, `otherwise` if not: in one op, as one. If the state is out of space for
    /// that list, nothing of it is executed.
    ///
    /// ```no_run
    /// # use viewstone::client::kv::{KvClient, KvError};
    /// # fn transfer(client: &KvClient) -> Result<(), KvError> {
    /// use viewstone::state_machine::kv::wire::{Condition, Item};
    ///
    /// let moved = client.transaction(
    ///     &[Condition::value(b"owner", b"ada")],
    ///     &[
    ///         Item::Increment { key: b"ada", delta: -10 },
    ///         Item::Increment { key: b"bob", delta: 10 },
    ///     ],
    ///     &[Item::Get { key: b"owner", size_max: u32::MAX }],
    /// )?;
    /// assert!(moved.succeeded);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`KvError`]; what becomes of single items is in their results.
    pub fn transaction(
        &self,
        conditions: &[Condition<'_>],
        then: &[Item<'_>],
        otherwise: &[Item<'_>],
    ) -> Result<Committed, KvError> {
        for condition in conditions {
            check_key(condition.key)?;
        }
        for item in then.iter().chain(otherwise) {
            check_item(item)?;
        }
        let bytes = TransactionBytes::new(conditions, then, otherwise).ok_or(KvError::Empty)?;
        let item = bytes.item().ok_or(KvError::Empty)?;
        self.item(&item, |reply| {
            let succeeded = match reply.status {
                Status::Succeeded => true,
                Status::Failed => false,
                _ => return None,
            };
            let results = reply.results.map(|reply| ItemResult::of(&reply));
            Some(Committed {
                succeeded,
                results: results.collect(),
            })
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
        let last = page.entries().last();
        let next = last.filter(|_| page.more).map(|entry| entry.key.to_vec());
        let keys = page.entries().filter(|entry| entry.is_key);
        let entries = keys.map(|entry| Entry {
            key: entry.key.to_vec(),
            version: entry.version,
            value: entry.value.map(<[u8]>::to_vec),
        });
        Ok(Page {
            entries: entries.collect(),
            next,
            revision: page.revision,
        })
    }

    /// Reads the keys that begin with `prefix`, behind `after` if that is given, as many as an answer holds, at most
    /// `limit`.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn scan_prefix(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<Page, KvError> {
        check_key(prefix)?;
        let mut buffer = [0; KEY_SIZE_MAX];
        self.scan(&Scan {
            from: after.map_or(Bound::Included(prefix), Bound::Excluded),
            to: prefix_end(prefix, &mut buffer),
            count_max: limit,
            ..Scan::ALL
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

    /// Executes items in order, in one request: all of them, or, if the call fails definitely, none. They are independent:
    /// what becomes of each is in its result, and one that fails undoes no other. (For what must stand or fall together
    /// there is [`Self::transaction`], and an item of a batch may be one.)
    ///
    /// # Errors
    /// [`KvError`].
    pub fn batch(&self, items: &[Item<'_>]) -> Result<Vec<ItemResult>, KvError> {
        if items.is_empty() {
            return Err(KvError::Empty);
        }
        let mut body = Vec::with_capacity(items.iter().map(Item::size).sum());
        for item in items {
            check_item(item)?;
            item.encode(&mut body);
        }
        let number = operation(Operation::Batch);
        let reply = if items.iter().all(Item::is_read) {
            self.client.read(number, &body)?
        } else {
            self.client.write(number, &body)?
        };
        let results = BatchReply::decode(&reply.body).filter(|it| it.len() == items.len());
        let results = results.ok_or(KvError::Answer(reply.op))?.results();
        Ok(results.map(|reply| ItemResult::of(&reply)).collect())
    }

    /// One item in a request. None of `outcome`: the answer is an error of the machine, or none of its answers.
    fn item<T>(
        &self,
        item: &Item<'_>,
        outcome: impl FnOnce(&ItemReply<'_>) -> Option<T>,
    ) -> Result<T, KvError> {
        check_item(item)?;
        let mut body = Vec::with_capacity(item.size());
        item.encode(&mut body);
        let number = operation(item.operation());
        let reply: Reply = if item.is_read() {
            self.client.read(number, &body)?
        } else {
            self.client.write(number, &body)?
        };
        let answer = ItemReply::decode(&reply.body).ok_or(KvError::Answer(reply.op))?;
        match error_of(&answer) {
            Some(error) => Err(error),
            None => outcome(&answer).ok_or(KvError::Answer(reply.op)),
        }
    }
}

fn check_item(item: &Item<'_>) -> Result<(), KvError> {
    check_key(item.key())?;
    match item {
        Item::Rename { to, .. } => check_key(to),
        _ => Ok(()),
    }
}

fn check_key(key: &[u8]) -> Result<(), KvError> {
    if key.len() <= KEY_SIZE_MAX {
        Ok(())
    } else {
        Err(KvError::Key(key.len()))
    }
}
