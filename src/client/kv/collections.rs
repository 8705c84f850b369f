//! Calls about collections: hashes, sets, lists and sorted sets.
//!
//! A handle names a key and sends nothing by itself. A key that is not there is an empty collection; the first member makes it,
//! and with the last one it is gone. Each change is one change of the key, with a version, so that [`Condition`]s hold for
//! collections as they do for values. In batches and transactions they are [`Item::Collection`].
//!
//! ```
//! # let cluster = viewstone::testing::KvCluster::start(1)?;
//! # let kv = cluster.kv()?;
//! let lamp = kv.hash(b"lamp");
//! lamp.insert(b"colour", b"green")?;
//! lamp.insert(b"state", b"on")?;
//! assert_eq!(lamp.find(b"colour")?.as_deref(), Some(&b"green"[..]));
//! assert_eq!(lamp.len()?, 2);
//! assert!(kv.get(b"lamp").is_err(), "it is a hash, not bytes");
//! assert!(kv.delete(b"lamp")?.is_some(), "however large it is");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Condition`]: super::Condition

mod list;
mod sorted;

pub use list::List;
pub use sorted::{Scored, SortedSet};

use super::{Item, KvClient, KvError};
use crate::state_machine::kv::wire::{Action, ItemReply, Status, ValueKind};
use std::ops::Bound;

/// A part of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part<T> {
    /// What was read, in order.
    pub items: Vec<T>,
    /// Whether there is more behind, which was not wanted or did not fit the answer.
    pub more: bool,
    /// The key's version: parts of one version are parts of one state. Zero: there is no such key.
    pub version: u64,
}

/// A number, and whether the collection was changed.
fn number(reply: &ItemReply<'_>) -> Option<(i64, bool)> {
    match reply.status {
        Status::Number => Some((reply.number, false)),
        Status::DoneNumber => Some((reply.number, true)),
        _ => None,
    }
}

#[expect(
    clippy::option_option,
    reason = "the answer is none of these, or that there is none, or what it is"
)]
fn value(reply: &ItemReply<'_>) -> Option<Option<Vec<u8>>> {
    match reply.status {
        Status::Value | Status::DoneValue => Some(Some(reply.value.to_vec())),
        Status::NotFound => Some(None),
        _ => None,
    }
}

/// What was read, each made of `N` byte strings.
fn part<T, const N: usize>(
    reply: &ItemReply<'_>,
    make: impl Fn([&[u8]; N]) -> Option<T>,
) -> Option<Part<T>> {
    let mut left = reply.members;
    let mut items = Vec::with_capacity(left.len() / N);
    match reply.status {
        Status::Members if left.len().is_multiple_of(N) => {}
        Status::NotFound => {}
        _ => return None,
    }
    while !left.is_empty() {
        let mut strings = [&[][..]; N];
        for string in &mut strings {
            *string = left.next()?;
        }
        items.push(make(strings)?);
    }
    Some(Part {
        items,
        more: reply.more,
        version: reply.version,
    })
}

/// A key, and who asks.
#[derive(Clone, Copy, Debug)]
struct Handle<'a> {
    kv: &'a KvClient,
    key: &'a [u8],
    kind: ValueKind,
}

impl Handle<'_> {
    fn act<T>(
        &self,
        action: Action<'_>,
        outcome: impl FnOnce(&ItemReply<'_>) -> Option<T>,
    ) -> Result<T, KvError> {
        let key = self.key;
        self.kv.item(&Item::Collection { key, action }, outcome)
    }

    fn number(&self, action: Action<'_>) -> Result<(i64, bool), KvError> {
        self.act(action, number)
    }

    fn len(&self) -> Result<u64, KvError> {
        let kind = self.kind;
        let (count, _) = self.number(Action::Length { kind })?;
        Ok(count.cast_unsigned())
    }

    fn find(&self, member: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let (kind, size_max) = (self.kind, u32::MAX);
        let find = Action::Find {
            kind,
            member,
            size_max,
        };
        self.act(find, value)
    }

    /// Whether it was there.
    fn remove(&self, member: &[u8]) -> Result<bool, KvError> {
        let kind = self.kind;
        Ok(self.number(Action::Remove { kind, member })?.1)
    }

    fn pick(&self, seed: u64, take: bool) -> Result<Option<Vec<u8>>, KvError> {
        let kind = self.kind;
        self.act(Action::Pick { kind, seed, take }, value)
    }

    fn members<'b>(&self, from: Bound<&'b [u8]>, count_max: u32, values: bool) -> Action<'b> {
        Action::Members {
            kind: self.kind,
            from,
            count_max,
            values,
            size_max: u32::MAX,
        }
    }
}

impl KvClient {
    /// The hash of a key: fields, each with a value.
    pub fn hash<'a>(&'a self, key: &'a [u8]) -> Hash<'a> {
        let kind = ValueKind::Hash;
        Hash(Handle {
            kv: self,
            key,
            kind,
        })
    }

    /// The set of a key: members.
    pub fn member_set<'a>(&'a self, key: &'a [u8]) -> MemberSet<'a> {
        let kind = ValueKind::Set;
        MemberSet(Handle {
            kv: self,
            key,
            kind,
        })
    }

    /// The list of a key: elements at places.
    pub fn list<'a>(&'a self, key: &'a [u8]) -> List<'a> {
        let kind = ValueKind::List;
        List(Handle {
            kv: self,
            key,
            kind,
        })
    }

    /// The sorted set of a key: members, each with a score.
    pub fn sorted_set<'a>(&'a self, key: &'a [u8]) -> SortedSet<'a> {
        let kind = ValueKind::Sorted;
        SortedSet(Handle {
            kv: self,
            key,
            kind,
        })
    }
}

/// A field and its value.
pub type Field = (Vec<u8>, Vec<u8>);

/// Fields, each with a value; in the order of the fields' bytes. All its methods may fail with a [`KvError`], and do with
/// [`KvError::WrongType`] if the key holds something else.
#[derive(Clone, Copy, Debug)]
pub struct Hash<'a>(Handle<'a>);

#[expect(clippy::missing_errors_doc, reason = "the type has it")]
#[expect(
    clippy::len_without_is_empty,
    reason = "a call across the network is not to be hidden"
)]
impl Hash<'_> {
    /// Fields.
    pub fn len(&self) -> Result<u64, KvError> {
        self.0.len()
    }

    /// A field's value.
    pub fn find(&self, field: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.0.find(field)
    }

    /// Sets a field; true if it is new.
    pub fn insert(&self, field: &[u8], value: &[u8]) -> Result<bool, KvError> {
        Ok(self.0.number(self.insertion(field, value, false))?.0 == 1)
    }

    /// Sets a field that is not there yet; false if it is.
    pub fn insert_if_absent(&self, field: &[u8], value: &[u8]) -> Result<bool, KvError> {
        Ok(self.0.number(self.insertion(field, value, true))?.1)
    }

    fn insertion<'b>(&self, member: &'b [u8], value: &'b [u8], if_absent: bool) -> Action<'b> {
        Action::Insert {
            kind: self.0.kind,
            member,
            value,
            if_absent,
        }
    }

    /// Adds to a field that is a decimal number (one that is not there is 0), and returns the sum.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// let visits = kv.hash(b"visits");
    /// assert_eq!(visits.add(b"monday", 2)?, 2);
    /// assert_eq!(visits.add(b"monday", -1)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add(&self, field: &[u8], delta: i64) -> Result<i64, KvError> {
        let member = field;
        Ok(self.0.number(Action::Add { member, delta })?.0)
    }

    /// Removes a field; false if it was not there.
    pub fn remove(&self, field: &[u8]) -> Result<bool, KvError> {
        self.0.remove(field)
    }

    /// Fields and values from `from` on: as many as fit an answer, at most `count_max`. What is behind the last of them
    /// begins at `Bound::Excluded` of it.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use std::ops::Bound;
    ///
    /// let lamp = kv.hash(b"lamp");
    /// lamp.insert(b"state", b"on")?;
    /// lamp.insert(b"colour", b"green")?;
    /// let all = lamp.fields(Bound::Unbounded, 100)?;
    /// assert_eq!(all.items[0], (b"colour".to_vec(), b"green".to_vec()));
    /// assert_eq!((all.items.len(), all.more), (2, false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fields(&self, from: Bound<&[u8]>, count_max: u32) -> Result<Part<Field>, KvError> {
        self.0.act(self.0.members(from, count_max, true), |reply| {
            part(reply, |[field, value]| {
                Some((field.to_vec(), value.to_vec()))
            })
        })
    }

    /// Some field, chosen by a number that the caller draws at random.
    pub fn pick(&self, seed: u64) -> Result<Option<Vec<u8>>, KvError> {
        self.0.pick(seed, false)
    }
}

/// Members, in the order of their bytes. All its methods may fail with a [`KvError`], and do with [`KvError::WrongType`] if
/// the key holds something else.
///
/// ```
/// # let cluster = viewstone::testing::KvCluster::start(1)?;
/// # let kv = cluster.kv()?;
/// use std::ops::Bound;
///
/// let friends = kv.member_set(b"friends");
/// assert!(friends.insert(b"ada")? && friends.insert(b"bob")?);
/// assert!(!friends.insert(b"ada")?, "she is one already");
/// assert!(friends.contains(b"bob")?);
/// let all = friends.members(Bound::Unbounded, 100)?;
/// assert_eq!(all.items, [b"ada".to_vec(), b"bob".to_vec()]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MemberSet<'a>(Handle<'a>);

#[expect(clippy::missing_errors_doc, reason = "the type has it")]
#[expect(
    clippy::len_without_is_empty,
    reason = "a call across the network is not to be hidden"
)]
impl MemberSet<'_> {
    /// Members.
    pub fn len(&self) -> Result<u64, KvError> {
        self.0.len()
    }

    /// Whether it is a member.
    pub fn contains(&self, member: &[u8]) -> Result<bool, KvError> {
        Ok(self.0.find(member)?.is_some())
    }

    /// Adds a member; false if it was one.
    pub fn insert(&self, member: &[u8]) -> Result<bool, KvError> {
        let insert = Action::Insert {
            kind: self.0.kind,
            member,
            value: &[],
            if_absent: false,
        };
        Ok(self.0.number(insert)?.1)
    }

    /// Removes a member; false if it was none.
    pub fn remove(&self, member: &[u8]) -> Result<bool, KvError> {
        self.0.remove(member)
    }

    /// Members from `from` on: as many as fit an answer, at most `count_max`. What is behind the last of them begins at
    /// `Bound::Excluded` of it.
    pub fn members(&self, from: Bound<&[u8]>, count_max: u32) -> Result<Part<Vec<u8>>, KvError> {
        self.0.act(self.0.members(from, count_max, false), |reply| {
            part(reply, |[member]| Some(member.to_vec()))
        })
    }

    /// Some member, chosen by a number that the caller draws at random.
    pub fn pick(&self, seed: u64) -> Result<Option<Vec<u8>>, KvError> {
        self.0.pick(seed, false)
    }

    /// The same, and removes it.
    pub fn take(&self, seed: u64) -> Result<Option<Vec<u8>>, KvError> {
        self.0.pick(seed, true)
    }
}
