//! The key-value machine, typed: encodes calls, decodes answers, and adds nothing else.
//!
//! ```
//! # let cluster = viewstone::testing::KvCluster::start(1)?;
//! # let kv = cluster.kv()?;
//! use viewstone::client::kv::{Expiry, SetCondition, SetOptions, Swap};
//!
//! // Keys and values are bytes. Each change gives the key a new version, and versions never come back.
//! let version = kv.put(b"lamp", b"off")?;
//! assert_eq!(kv.compare_version_and_set(b"lamp", version, b"on")?, Swap::Done(version + 1));
//! assert_eq!(kv.compare_and_set(b"lamp", Some(b"off"), b"on")?, Swap::Mismatch(version + 1));
//!
//! // A lock that expires by itself, by the cluster's time.
//! let lock = SetOptions {
//!     condition: SetCondition::Absent,
//!     expiry: Expiry::In(30_000),
//!     ..SetOptions::default()
//! };
//! assert!(kv.set(b"lock", b"me", lock)?.is_done());
//! assert!(!kv.set(b"lock", b"you", lock)?.is_done());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Several things in one request: [`KvClient::batch`], each for itself, and [`KvClient::transaction`], all or nothing, on
//! conditions. Several requests at once: [`KvClient::submit`]. How calls end, and what sessions and deadlines are, is told in
//! [`crate::client`].

mod answer;

pub use answer::{Change, Committed, Entry, ItemResult, KvError, Page, Stat, Swap, Versioned};

use super::outcome::Unknown;
use super::{Client, ClientOptions, ConnectError, Kind, Pending, Reply};
use crate::state_machine::kv::wire::{
    BatchReply, ItemReply, Operation, ScanReply, TransactionBytes, prefix_end,
};
pub use crate::state_machine::kv::wire::{
    Comparison, Condition, CountReply, Expiry, ExpiryCondition, Item, KEY_SIZE_MAX, Scan,
    SetCondition, SetOptions, Status, Target,
};
use answer::{error_of, stat_of, version_done};
use std::ops::Bound;
use std::time::Duration;

/// The machine's number in a cluster of the released binary: the high byte of its operations.
pub const MACHINE: u8 = 1;

/// The operation's number on the wire.
pub const fn operation(operation: Operation) -> u16 {
    super::operation(MACHINE, operation as u8)
}

/// Items that were submitted and not yet waited for.
#[derive(Debug)]
#[must_use = "the call goes on, but nobody will know how it ended"]
pub struct PendingItems {
    pending: Pending,
    /// None: as many as the answer has.
    count: Option<usize>,
}

impl PendingItems {
    /// Waits for the end; the call's deadline bounds it. What became of each item is in its result.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn wait(self) -> Result<Vec<ItemResult>, KvError> {
        results_of(&self.pending.wait()?, self.count)
    }

    /// The end, once, if it is there already.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn try_take(&self) -> Option<Result<Vec<ItemResult>, KvError>> {
        let result = self.pending.try_take()?;
        Some(match result {
            Ok(reply) => results_of(&reply, self.count),
            Err(error) => Err(error.into()),
        })
    }
}

fn results_of(reply: &Reply, count: Option<usize>) -> Result<Vec<ItemResult>, KvError> {
    let decoded = BatchReply::decode(&reply.body);
    let decoded = decoded.filter(|it| count.is_none_or(|count| it.len() == count));
    let results = decoded.ok_or(KvError::Answer(reply.op))?.results();
    Ok(results.map(|reply| ItemResult::of(&reply)).collect())
}

/// A client of the key-value machine. `Send` and `Sync`, and cheap to clone, as the [`Client`] in it is.
#[derive(Clone, Debug)]
pub struct KvClient {
    client: Client,
}

static_assertions::assert_impl_all!(KvClient: Send, Sync);

impl KvClient {
    /// Starts a client; see [`Client::connect`].
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(options: &ClientOptions) -> Result<Self, ConnectError> {
        Ok(Self::new(Client::connect(options)?))
    }

    /// Calls with a client that there is already.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The same client, with another deadline for its calls.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// let patient = kv.with_deadline(std::time::Duration::from_mins(5));
    /// patient.clear()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self::new(self.client.with_deadline(deadline))
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::{Condition, Item};
    ///
    /// kv.put(b"ada", b"100")?;
    /// kv.put(b"bank", b"open")?;
    /// let transfer = kv.transaction(
    ///     &[Condition::value(b"bank", b"open"), Condition::present(b"ada")],
    ///     &[
    ///         Item::Increment { key: b"ada", delta: -10 },
    ///         Item::Increment { key: b"bob", delta: 10 },
    ///     ],
    ///     &[Item::Get { key: b"bank", size_max: u32::MAX }],
    /// )?;
    /// assert!(transfer.succeeded);
    /// assert_eq!(transfer.results[0].number, Some(90));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// # for key in [b"a", b"b", b"c", b"d"] { kv.put(key, key)?; }
    /// use std::ops::Bound;
    /// use viewstone::client::kv::Scan;
    ///
    /// let page = kv.scan(&Scan {
    ///     from: Bound::Excluded(b"a"),
    ///     count_max: 2,
    ///     ..Scan::ALL
    /// })?;
    /// assert_eq!(page.entries[0].key, b"b");
    /// assert_eq!(page.next.as_deref(), Some(&b"c"[..])); // go on from there
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// for key in ["user/ada", "user/bob", "user/eve", "visits"] {
    ///     kv.put(key.as_bytes(), b"")?;
    /// }
    /// let (mut found, mut after) = (0, None);
    /// loop {
    ///     let page = kv.scan_prefix(b"user/", after.as_deref(), 2)?;
    ///     found += page.entries.len();
    ///     after = page.next;
    ///     if after.is_none() {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(found, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::{Item, Status};
    ///
    /// let results = kv.batch(&[
    ///     Item::Put { key: b"name", value: b"Ada" },
    ///     Item::Increment { key: b"name", delta: 1 }, // a mistake, which harms nobody else
    ///     Item::Increment { key: b"visits", delta: 1 },
    /// ])?;
    /// assert!(results[0].status.is_done());
    /// assert_eq!(results[1].status, Status::NotANumber);
    /// assert_eq!(results[2].number, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KvError`].
    pub fn batch(&self, items: &[Item<'_>]) -> Result<Vec<ItemResult>, KvError> {
        self.submit(items)?.wait()
    }

    /// Starts a [batch](Self::batch) and returns at once, so that many may be under way; those are executed in any order.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::Item;
    ///
    /// let visit = [Item::Increment { key: b"visits", delta: 1 }];
    /// let calls: Result<Vec<_>, _> = (0..20).map(|_| kv.submit(&visit)).collect();
    /// for call in calls? {
    ///     call.wait()?;
    /// }
    /// assert_eq!(kv.increment(b"visits", 0)?, 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KvError::Empty`] and [`KvError::Key`]; the others come with the end.
    pub fn submit(&self, items: &[Item<'_>]) -> Result<PendingItems, KvError> {
        if items.is_empty() {
            return Err(KvError::Empty);
        }
        let mut body = Vec::with_capacity(items.iter().map(Item::size).sum());
        for item in items {
            check_item(item)?;
            item.encode(&mut body);
        }
        let kind = if items.iter().all(Item::is_read) {
            Kind::Read
        } else {
            Kind::Write
        };
        let number = operation(Operation::Batch);
        let deadline = self.client.deadline();
        Ok(PendingItems {
            pending: self.client.submit(kind, number, &body, deadline),
            count: Some(items.len()),
        })
    }

    /// Waits again for a change whose outcome was unknown ([`KvError::unknown`]), and tells what became of its items: one, if
    /// the call was not a batch. Nothing is executed a second time. See [`Client::resolve`]; [`crate::client`] has an example.
    ///
    /// # Errors
    /// [`KvError`]; indeterminate again, if the deadline passes again.
    pub fn resolve(&self, unknown: &Unknown) -> Result<Vec<ItemResult>, KvError> {
        let pending = self.client.resolve(unknown, self.client.deadline());
        let count = None;
        PendingItems { pending, count }.wait()
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
