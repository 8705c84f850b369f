//! What collections mean, over std's.

use super::{Model, Outcome, Versioned, World, not_found, number};
use crate::state_machine::kv::wire::{Action, Score, Status, ValueKind};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

mod list;
mod sorted;

/// Most members of a collection of which the model knows what a pick finds.
pub const PICK_MAX: usize = crate::state_machine::kv::collections::PICK_WALK_MAX as usize;

/// A collection's members.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Collection {
    /// Fields and values.
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    /// Members.
    Set(BTreeSet<Vec<u8>>),
    /// Elements.
    List(VecDeque<Vec<u8>>),
    /// Members and scores.
    Sorted(BTreeMap<Vec<u8>, Score>),
}

impl Collection {
    /// An empty one; not of bytes.
    pub fn new(kind: ValueKind) -> Self {
        match kind {
            ValueKind::Hash => Self::Hash(BTreeMap::new()),
            ValueKind::Set => Self::Set(BTreeSet::new()),
            ValueKind::List => Self::List(VecDeque::new()),
            ValueKind::Sorted => Self::Sorted(BTreeMap::new()),
            ValueKind::Bytes => unreachable!("no action is of bytes"),
        }
    }

    /// Which one it is.
    pub fn kind(&self) -> ValueKind {
        match self {
            Self::Hash(_) => ValueKind::Hash,
            Self::Set(_) => ValueKind::Set,
            Self::List(_) => ValueKind::List,
            Self::Sorted(_) => ValueKind::Sorted,
        }
    }

    /// Members, fields or elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Hash(hash) => hash.len(),
            Self::Set(set) => set.len(),
            Self::List(list) => list.len(),
            Self::Sorted(sorted) => sorted.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members in the order of their bytes, each with what a find returns.
    fn members(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let score = |score: &Score| score.to_ordered().to_le_bytes().to_vec();
        match self {
            Self::Hash(hash) => hash.clone().into_iter().collect(),
            Self::Set(set) => set.iter().map(|it| (it.clone(), vec![])).collect(),
            Self::Sorted(sorted) => sorted
                .iter()
                .map(|(it, at)| (it.clone(), score(at)))
                .collect(),
            Self::List(_) => unreachable!("lists have elements"),
        }
    }

    fn remove(&mut self, member: &[u8]) -> bool {
        match self {
            Self::Hash(hash) => hash.remove(member).is_some(),
            Self::Set(set) => set.remove(member),
            Self::Sorted(sorted) => sorted.remove(member).is_some(),
            Self::List(_) => unreachable!("lists have elements"),
        }
    }
}

impl Model {
    /// An action on a collection.
    pub(super) fn act(
        &mut self,
        key: &[u8],
        action: &Action<'_>,
        old: Option<&Versioned>,
        world: World,
    ) -> Outcome {
        let kind = action.kind();
        if old.is_some_and(|old| old.kind() != kind) {
            return Outcome::Status(Status::WrongType);
        }
        let version = old.map_or(0, |old| old.version);
        let found = old.and_then(|old| old.collection.clone());
        if action.is_read() {
            return match (action, found) {
                (Action::Length { .. }, found) => {
                    let count = found.map_or(0, |found| found.len());
                    Outcome::Number(Status::Number, count.cast_signed() as i64)
                }
                (_, None) => not_found(),
                (_, Some(found)) => Self::read_members(&found, version, action, world),
            };
        }
        if let Action::Move { .. } = action {
            return self.move_element(key, action, old, world);
        }
        let mut collection = found.unwrap_or_else(|| Collection::new(kind));
        let outcome = Self::change_members(&mut collection, version, action, world);
        if outcome.is_done() {
            let expiry = old.and_then(|old| old.expiry_ms);
            self.set_collection(key, collection, expiry);
        }
        outcome
    }

    fn set_collection(&mut self, key: &[u8], collection: Collection, expiry_ms: Option<u64>) {
        self.revision += 1;
        if collection.is_empty() {
            self.map.remove(key);
            return;
        }
        let new = Versioned {
            version: self.revision,
            expiry_ms,
            value: vec![],
            collection: Some(collection),
        };
        self.map.insert(key.to_vec(), new);
    }

    /// Byte strings that come one or two at a time, as many as have room, and at most so many times.
    fn strings(
        version: u64,
        groups: impl Iterator<Item = Vec<Vec<u8>>>,
        count_max: usize,
        size_max: u32,
        world: World,
    ) -> Outcome {
        // The fixed part of such a result is one byte longer than that of a value's.
        let mut room = (world.room - 1).min(size_max as usize);
        let (mut strings, mut more) = (vec![], false);
        for (count, group) in groups.enumerate() {
            let size: usize = group.iter().map(|string| 4 + string.len()).sum();
            if count == count_max || size > room {
                more = true;
                break;
            }
            room -= size;
            strings.extend(group);
        }
        Outcome::Members(version, strings, more)
    }

    fn picked(found: &Collection, seed: u64) -> Vec<u8> {
        assert!(found.len() <= PICK_MAX, "the model cannot tell");
        let mut members = found.members();
        members
            .swap_remove((seed % members.len() as u64) as usize)
            .0
    }

    fn read_members(
        found: &Collection,
        version: u64,
        action: &Action<'_>,
        world: World,
    ) -> Outcome {
        match *action {
            Action::Find {
                member, size_max, ..
            } => {
                let members = found.members();
                let value = members.into_iter().find(|(it, _)| it == member);
                value.map_or_else(not_found, |(_, value)| {
                    Outcome::of_bytes(Status::Value, version, value, size_max, world).0
                })
            }
            Action::Members {
                from,
                count_max,
                values,
                size_max,
                ..
            } => {
                let inside = |member: &[u8]| match from {
                    Bound::Included(from) => member >= from,
                    Bound::Excluded(from) => member > from,
                    Bound::Unbounded => true,
                };
                let members = found.members().into_iter().filter(|(it, _)| inside(it));
                let groups = members.map(|(member, value)| {
                    if values {
                        vec![member, value]
                    } else {
                        vec![member]
                    }
                });
                Self::strings(version, groups, count_max as usize, size_max, world)
            }
            Action::Pick { seed, .. } => {
                Outcome::Value(Status::Value, version, Self::picked(found, seed))
            }
            _ => match found {
                Collection::List(list) => list::read(list, version, action, world),
                Collection::Sorted(sorted) => sorted::read(sorted, version, action, world),
                _ => unreachable!("{action:?} changes something"),
            },
        }
    }

    fn change_members(
        collection: &mut Collection,
        version: u64,
        action: &Action<'_>,
        world: World,
    ) -> Outcome {
        match (collection, *action) {
            (
                Collection::Hash(hash),
                Action::Insert {
                    member,
                    value,
                    if_absent,
                    ..
                },
            ) => {
                if member.len() + value.len() > world.value_size_max {
                    return Outcome::Status(Status::TooLong);
                }
                if if_absent && hash.contains_key(member) {
                    return Outcome::Number(Status::Number, 0);
                }
                let old = hash.insert(member.to_vec(), value.to_vec());
                Outcome::Number(Status::DoneNumber, i64::from(old.is_none()))
            }
            (Collection::Set(set), Action::Insert { member, .. }) => {
                if set.insert(member.to_vec()) {
                    Outcome::Number(Status::DoneNumber, 1)
                } else {
                    Outcome::Number(Status::Number, 0)
                }
            }
            (Collection::Hash(hash), Action::Add { member, delta }) => {
                let Some(old) = hash.get(member).map_or(Some(0), |value| number(value)) else {
                    return Outcome::Status(Status::NotANumber);
                };
                let Some(sum) = old.checked_add(delta) else {
                    return Outcome::Status(Status::Overflow);
                };
                hash.insert(member.to_vec(), sum.to_string().into_bytes());
                Outcome::Number(Status::DoneNumber, sum)
            }
            (collection, Action::Remove { member, .. }) => {
                if collection.remove(member) {
                    Outcome::Number(Status::DoneNumber, 1)
                } else {
                    Outcome::Number(Status::Number, 0)
                }
            }
            (collection, Action::Pick { seed, .. }) => {
                if collection.is_empty() {
                    return not_found();
                }
                let member = Self::picked(collection, seed);
                collection.remove(&member);
                Outcome::Value(Status::DoneValue, version, member)
            }
            (Collection::List(list), action) => list::change(list, version, &action, world),
            (Collection::Sorted(sorted), action) => sorted::change(sorted, version, &action, world),
            (collection, action) => unreachable!("{action:?} is read, or not of {collection:?}"),
        }
    }
}
