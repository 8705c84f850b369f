//! How calls of the key-value machine end: errors, and answers as values of their own.

use super::super::outcome::{CallError, Definite, NotSent, Unknown};
use crate::state_machine::kv::wire::{ItemReply, KEY_SIZE_MAX, Status, ValueKind};

/// How a call ends if it does not do what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The call ended without an answer of the machine, or the state is out of space.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A key, or a member of a collection, is too long. Nothing was sent.
    #[error("keys and members have at most {KEY_SIZE_MAX} bytes; this one has {0}")]
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
pub(super) fn error_of(reply: &ItemReply<'_>) -> Option<KvError> {
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
        match self {
            Self::Call(error) => error.is_indeterminate(),
            Self::Answer(_) => true, // it was made, if it was asked for: whether, the answer does not say
            _ => false,
        }
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
    pub(super) fn of(reply: &ItemReply<'_>) -> Self {
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

    pub(super) fn of(reply: &ItemReply<'_>) -> Option<Self> {
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
    /// Bytes of its value; of a collection, its length.
    pub size: u32,
    /// What it holds.
    pub kind: ValueKind,
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
    pub(super) fn of(reply: &ItemReply<'_>) -> Option<Self> {
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
    /// What it holds.
    pub kind: ValueKind,
    /// Bytes of its value; of a collection, its length.
    pub size: u32,
    /// Its value; none if it was not asked for, does not fit an answer, or is a collection.
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
    /// The members, fields, scores or elements, where the status says that there are some.
    pub members: Vec<Vec<u8>>,
    /// Whether there are more of them than had room.
    pub more: bool,
    /// Of a transaction: what became of the items of the list that was executed.
    pub results: Vec<ItemResult>,
}

impl ItemResult {
    pub(super) fn of(reply: &ItemReply<'_>) -> Self {
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
            members: reply.members.map(<[u8]>::to_vec).collect(),
            more: reply.more,
            results: reply.results.map(|reply| Self::of(&reply)).collect(),
        }
    }
}

pub(super) fn stat_of(reply: &ItemReply<'_>) -> Option<Stat> {
    (reply.status == Status::Stat).then_some(Stat {
        version: reply.version,
        expiry_ms: Some(reply.expiry_ms).filter(|&time| time != 0),
        size: reply.value_size,
        kind: reply.kind,
    })
}

pub(super) fn version_done(reply: &ItemReply<'_>) -> Option<u64> {
    (reply.status == Status::Done).then_some(reply.version)
}
