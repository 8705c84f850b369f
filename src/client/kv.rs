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
//! Hashes, sets, lists and sorted sets: [`collections`]. Several things in one request: [`KvClient::batch`], each for itself, and
//! [`KvClient::transaction`], all or nothing, on conditions. Several requests at once: [`KvClient::submit`]. How calls end, and
//! what sessions and deadlines are, is told in [`crate::client`].

mod answer;
pub mod collections;
mod several;

pub use answer::{Change, Committed, Entry, ItemResult, KvError, Page, Stat, Swap, Versioned};
pub use several::PendingItems;

use super::{Client, ClientOptions, ConnectError, Reply};
pub use crate::state_machine::kv::wire::{
    Action, Comparison, Condition, CountReply, End, Expiry, ExpiryCondition, Item, KEY_SIZE_MAX,
    RANK_MAX, Scan, Score, ScoreCondition, SetCondition, SetOptions, Status, TRIM_MAX, Target,
    ValueKind,
};
use crate::state_machine::kv::wire::{ItemReply, Operation};
use answer::{error_of, stat_of, version_done};
use std::time::Duration;

/// The machine's number in a cluster of the released binary: the high byte of its operations.
pub const MACHINE: u8 = 1;

/// The operation's number on the wire.
pub const fn operation(operation: Operation) -> u16 {
    super::operation(MACHINE, operation as u8)
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// assert_eq!(kv.get(b"key")?, None);
    /// let version = kv.put(b"key", b"value")?;
    /// let found = kv.get(b"key")?.expect("it was just put");
    /// assert_eq!((found.value, found.version), (b"value".to_vec(), version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// kv.put(b"key", b"0123456789")?;
    /// assert_eq!(kv.get_range(b"key", 2, 4)?.expect("it is there").value, b"234");
    /// assert_eq!(kv.get_range(b"key", -3, -1)?.expect("it is there").value, b"789");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// let version = kv.put(b"key", b"value")?;
    /// let stat = kv.stat(b"key")?.expect("it is there");
    /// assert_eq!((stat.version, stat.size, stat.expiry_ms), (version, 5, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// let first = kv.put(b"key", b"value")?;
    /// let second = kv.put(b"key", b"value")?; // a change, though to the same value
    /// assert!(second > first);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KvError`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<u64, KvError> {
        self.item(&Item::Put { key, value }, version_done)
    }

    /// Sets the key's value on a condition, with an expiry, and tells the old value, as the options say. (The old
    /// value must fit the answer to a write, which is the geometry's reply size: [`KvError::TooLarge`], and nothing is
    /// changed.)
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::{Change, Expiry, SetCondition, SetOptions};
    ///
    /// kv.put(b"key", b"old")?;
    /// let options = SetOptions {
    ///     condition: SetCondition::Present,
    ///     expiry: Expiry::In(60_000),
    ///     old: true,
    /// };
    /// let Change::Done { old: Some(old), .. } = kv.set(b"key", b"new", options)? else {
    ///     panic!("it is present")
    /// };
    /// assert_eq!(old.value, b"old");
    /// assert!(kv.stat(b"key")?.expect("it is there").expiry_ms.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// assert_eq!(kv.get_and_put(b"key", b"one")?, None);
    /// assert_eq!(kv.get_and_put(b"key", b"two")?.expect("the one before").value, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// kv.put(b"key", b"value")?;
    /// assert!(kv.delete(b"key")?.is_some());
    /// assert!(kv.delete(b"key")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// kv.put(b"job", b"sweep the yard")?;
    /// let taken = kv.get_and_delete(b"job")?.expect("nobody was faster");
    /// assert_eq!(taken.value, b"sweep the yard");
    /// assert_eq!(kv.get_and_delete(b"job")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::Swap;
    ///
    /// let Swap::Done(version) = kv.compare_and_set(b"leader", None, b"ada")? else {
    ///     panic!("there was none")
    /// };
    /// assert_eq!(kv.compare_and_set(b"leader", None, b"bob")?, Swap::Mismatch(version));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    /// Sets the key's value if the key has this version; zero: if there is no such key. Cheaper than by value, and
    /// immune to a value that was changed and changed back.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::Swap;
    ///
    /// kv.put(b"text", b"hello")?;
    /// // Read, change, and write if nobody else has: until it works.
    /// loop {
    ///     let mut text = kv.get(b"text")?.expect("it is there");
    ///     text.value.make_ascii_uppercase();
    ///     if let Swap::Done(_) = kv.compare_version_and_set(b"text", text.version, &text.value)? {
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::KvError;
    ///
    /// assert_eq!(kv.increment(b"visits", 3)?, 3);
    /// assert_eq!(kv.increment(b"visits", -1)?, 2);
    /// assert_eq!(kv.increment(b"visits", i64::MAX), Err(KvError::Overflow));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// assert_eq!(kv.append(b"log", b"one;")?, 4);
    /// assert_eq!(kv.append(b"log", b"two;")?, 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// kv.put(b"key", b"0123456789")?;
    /// assert_eq!(kv.set_range(b"key", 4, b"xy")?, 10);
    /// assert_eq!(kv.get(b"key")?.expect("it is there").value, b"0123xy6789");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::{Expiry, ExpiryCondition};
    ///
    /// kv.put(b"key", b"value")?;
    /// assert!(kv.expire(b"key", Expiry::In(60_000), ExpiryCondition::Always)?.is_done());
    /// // Only to a later time: it is not.
    /// assert!(!kv.expire(b"key", Expiry::In(1_000), ExpiryCondition::Later)?.is_done());
    /// assert!(kv.persist(b"key")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::Change;
    ///
    /// kv.put(b"draft", b"text")?;
    /// assert!(kv.rename(b"draft", b"final", true)?.is_done());
    /// assert_eq!(kv.rename(b"draft", b"final", true)?, Change::NotFound);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        Item::Collection { action, .. } => check_key(action.member()),
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
