//! What the commands of a transaction will find, foretold: for commands whose items depend on the state that the commands
//! before them leave (MSETNX, INCRBYFLOAT).
//!
//! The state of their keys is read, the items of the commands are applied to a model of the machine, and the transaction
//! is executed on the condition that none of the keys has changed since. What the model cannot know for certain is refused.

use super::command::{Failure, WRONG_TYPE};
use super::items::ItemList;
use super::shared::KvLimits;
use crate::state_machine::Limits;
use crate::state_machine::kv::model::{Model, Versioned};
use crate::state_machine::kv::wire::{Action, BatchReply, Expiry, Item, Items, Operation, Status};
use std::collections::BTreeSet;

const UNCERTAIN: Failure = Failure::new(
    "EXECABORT Transaction discarded because MSETNX or INCRBYFLOAT uses a key that is changed before it by GETDEL, \
     GETEX, GETSET, SET with GET or a command of a collection, or given an expiry of about now, or too large a value.",
);

/// An expiry so soon may pass before the transaction is executed, or not.
const SOON_MS: u64 = 60_000;

/// A state, and what may be said of it.
#[derive(Debug)]
pub struct Prediction {
    model: Model,
    limits: Limits,
    /// Replicated time of the state: the transaction's is later.
    timestamp: u64,
    /// The transaction's time is earlier, in milliseconds.
    latest_ms: u64,
    keys: BTreeSet<Box<[u8]>>,
    uncertain: bool,
    failed: bool,
}

impl Prediction {
    /// Of the state at `timestamp` of replicated time, in nanoseconds; `wall_ms` is about now.
    pub fn new(timestamp: u64, wall_ms: u64, limits: &KvLimits) -> Self {
        Self {
            model: Model::new(),
            // No more than the machine's own; what does not fit is not certain.
            limits: Limits {
                request_size_max: limits.request_size_max,
                reply_size_max: limits.write_reply_size_max,
                read_reply_size_max: limits.reply_size_max,
                page_count: u32::MAX,
                pages_touched_max: u32::MAX,
            },
            timestamp,
            latest_ms: wall_ms.max(timestamp / 1_000_000) + SOON_MS,
            keys: BTreeSet::new(),
            uncertain: false,
            failed: false,
        }
    }

    /// Adds a key of this state; none: it is absent.
    pub fn insert(&mut self, key: &[u8], found: Option<Versioned>) {
        self.keys.insert(key.into());
        if let Some(found) = found {
            self.model.map.insert(key.to_vec(), found);
        }
    }

    /// The string that a key will have; none: it will be absent.
    ///
    /// # Errors
    /// That is not certain: the transaction must be discarded. Or it will hold no string.
    pub fn value(&mut self, key: &[u8]) -> Result<Option<&[u8]>, Failure> {
        match self.find(key)? {
            Some(found) if found.collection.is_some() => Err(WRONG_TYPE),
            found => Ok(found.map(|found| found.value.as_slice())),
        }
    }

    /// Whether there will be a key.
    ///
    /// # Errors
    /// That is not certain: the transaction must be discarded.
    pub fn is_present(&mut self, key: &[u8]) -> Result<bool, Failure> {
        Ok(self.find(key)?.is_some())
    }

    fn find(&mut self, key: &[u8]) -> Result<Option<&Versioned>, Failure> {
        assert!(self.keys.contains(key), "its state was read");
        if self.uncertain {
            self.failed = true;
            return Err(UNCERTAIN);
        }
        Ok(self.model.map.get(key))
    }

    /// Why the transaction must be discarded, if so.
    pub fn failure(&self) -> Option<Failure> {
        self.failed.then_some(UNCERTAIN)
    }

    /// The items of a command will have been executed.
    pub fn apply(&mut self, items: &ItemList) {
        let items = Items::decode(Operation::Batch, items.bytes());
        for item in items.into_iter().flatten() {
            let other = match item {
                Item::Rename { to, .. }
                | Item::Collection {
                    action: Action::Move { to, .. },
                    ..
                } => to,
                item => item.key(),
            };
            let concerns = [item.key(), other]
                .iter()
                .any(|&key| self.keys.contains(key));
            if !item.is_read() && (concerns || matches!(item, Item::Clear)) {
                self.uncertain |= self.is_uncertain(&item) || !self.change(&item);
            }
        }
    }

    /// Makes the change. Whether that is certain.
    fn change(&mut self, item: &Item<'_>) -> bool {
        let mut body = Vec::with_capacity(item.size());
        item.encode(&mut body);
        let operation = Operation::Batch as u8;
        let reply = self
            .model
            .apply(&self.limits, self.timestamp, operation, &body);
        let reply = reply.as_deref().and_then(BatchReply::decode);
        let status = reply
            .and_then(|reply| reply.results().next())
            .map(|it| it.status);
        !matches!(status, None | Some(Status::TooLong | Status::Invalid))
    }

    /// It is not executed if the value that it returns finds no room, or it does one thing now and another soon.
    fn is_uncertain(&self, item: &Item<'_>) -> bool {
        let (expiry, returns) = match item {
            Item::Take { .. } => (None, true),
            Item::Set { options, .. } => (Some(options.expiry), options.old),
            Item::Expire {
                expiry, size_max, ..
            } => (Some(*expiry), size_max.is_some()),
            // The members are not known.
            Item::Collection { .. } => return true,
            _ => (None, false),
        };
        let now_ms = self.timestamp / 1_000_000;
        let is_soon = |time| time > now_ms && time < self.latest_ms;
        returns || matches!(expiry, Some(Expiry::At(time)) if is_soon(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_machine::kv::wire::{End, SetCondition, SetOptions};

    const NOW_MS: u64 = 1_000_000_000;

    fn prediction() -> Prediction {
        let limits = KvLimits::default();
        let mut prediction = Prediction::new(NOW_MS * 1_000_000, NOW_MS + 5, &limits);
        let found = Versioned {
            version: 7,
            expiry_ms: None,
            value: b"1".to_vec(),
            collection: None,
        };
        prediction.insert(b"a", Some(found));
        prediction.insert(b"b", None);
        prediction
    }

    fn apply(prediction: &mut Prediction, item: &Item<'_>) {
        let mut items = ItemList::new();
        items.push(item);
        prediction.apply(&items);
    }

    fn set(expiry: Expiry, old: bool) -> Item<'static> {
        Item::Set {
            key: b"a",
            value: b"2",
            options: SetOptions {
                condition: SetCondition::Always,
                expiry,
                old,
            },
        }
    }

    #[test]
    fn what_comes_before_is_seen() {
        let mut prediction = prediction();
        assert_eq!(prediction.value(b"a"), Ok(Some(&b"1"[..])));
        assert_eq!(prediction.value(b"b"), Ok(None));
        apply(
            &mut prediction,
            &Item::Increment {
                key: b"a",
                delta: 4,
            },
        );
        assert_eq!(prediction.value(b"a"), Ok(Some(&b"5"[..])));
        let (key, to) = (b"a", b"b");
        let if_absent = false;
        apply(&mut prediction, &Item::Rename { key, to, if_absent });
        assert_eq!(prediction.value(b"a"), Ok(None));
        assert_eq!(prediction.value(b"b"), Ok(Some(&b"5"[..])));
        apply(&mut prediction, &Item::Clear);
        assert_eq!(prediction.value(b"b"), Ok(None));
        apply(&mut prediction, &set(Expiry::In(1), false));
        assert_eq!(prediction.value(b"a"), Ok(Some(&b"2"[..])));
        apply(&mut prediction, &set(Expiry::At(NOW_MS), false));
        assert_eq!(prediction.value(b"a"), Ok(None));
        assert_eq!(prediction.failure(), None);
    }

    #[test]
    fn what_is_not_certain_is_refused() {
        let key = &b"a"[..];
        let size_max = u32::MAX;
        for item in [
            Item::Take { key, size_max },
            set(Expiry::Never, true),
            set(Expiry::At(NOW_MS + 1), false),
            set(Expiry::At(NOW_MS + SOON_MS), false),
            Item::SetRange {
                key,
                offset: 1 << 20,
                value: b"x",
            },
            // From another key to this one.
            Item::Collection {
                key: b"c",
                action: Action::Move {
                    to: key,
                    from_end: End::First,
                    to_end: End::First,
                    size_max: None,
                },
            },
        ] {
            let mut prediction = prediction();
            apply(&mut prediction, &item);
            assert_eq!(prediction.failure(), None);
            assert_eq!(prediction.value(b"b"), Err(UNCERTAIN), "{item:?}");
            assert_eq!(prediction.failure(), Some(UNCERTAIN));
        }
        // Of other keys nothing is asked.
        let mut prediction = prediction();
        let key = &b"c"[..];
        apply(&mut prediction, &Item::Take { key, size_max });
        assert_eq!(prediction.value(b"b"), Ok(None));
    }
}
