//! What the key-value machine means, in plain Rust over std's map: tests, the simulator and the load generator predict
//! replies with it. It shares the formats with the machine, and nothing else.

mod collections;

pub use collections::{Collection, PICK_MAX};

use super::wire::{
    BatchReply, Comparison, Condition, ENTRY_HEADER_SIZE, EXPIRY_MAX, Expiry, ExpiryCondition,
    Item, Items, Operation, REPLY_HEADER_SIZE, Scan, SetCondition, Status, Target,
    VALUE_RESULT_SIZE, ValueKind,
};
use crate::state_machine::{Limits, StateMachine};
use std::collections::BTreeMap;
use std::ops::Bound;

/// A key's state.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Versioned {
    /// Revision of the store when the key last changed.
    pub version: u64,
    /// When it expires, in milliseconds since 1970; none: never.
    pub expiry_ms: Option<u64>,
    /// The value; of a collection, nothing.
    pub value: Vec<u8>,
    /// The collection, if it is one.
    pub collection: Option<Collection>,
}

impl Versioned {
    /// What the key holds.
    pub fn kind(&self) -> ValueKind {
        self.collection
            .as_ref()
            .map_or(ValueKind::Bytes, Collection::kind)
    }

    fn is_bytes(&self) -> bool {
        self.collection.is_none()
    }

    /// The size of its value, or the length of its collection.
    fn size(&self) -> usize {
        self.collection
            .as_ref()
            .map_or(self.value.len(), Collection::len)
    }
}

/// A store.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Model {
    /// The keys. Those that are expired are removed by whatever comes next.
    pub map: BTreeMap<Vec<u8>, Versioned>,
    /// Changes in the store's life.
    pub revision: u64,
}

/// How an item ended.
enum Outcome {
    Status(Status),
    Mismatch(u64),
    Number(Status, i64),
    /// With this value of a key of this version.
    Value(Status, u64, Vec<u8>),
    TooLarge(u64, usize),
    Stat(Versioned),
    /// Of a key of this version, and whether there are more.
    Members(u64, Vec<Vec<u8>>, bool),
    /// The same of elements that are gone.
    Taken(u64, Vec<Vec<u8>>),
}

use Outcome::{Mismatch, Number, TooLarge, Value};

fn done() -> Outcome {
    Outcome::Status(Status::Done)
}

fn not_found() -> Outcome {
    Outcome::Status(Status::NotFound)
}

/// What is known besides the state: time, limits, and how much of a value the reply still holds.
#[derive(Clone, Copy)]
struct World {
    now: u64,
    value_size_max: usize,
    room: usize,
}

impl Outcome {
    /// A value, if it fits, and whether it does.
    fn of_value(status: Status, found: &Versioned, size_max: u32, world: World) -> (Self, bool) {
        if found.is_bytes() {
            Self::of_bytes(status, found.version, found.value.clone(), size_max, world)
        } else {
            (Self::Status(Status::WrongType), false)
        }
    }

    fn of_bytes(
        status: Status,
        version: u64,
        value: Vec<u8>,
        size_max: u32,
        world: World,
    ) -> (Self, bool) {
        let size = value.len();
        if size > world.room.min(size_max as usize) {
            (TooLarge(version, size), false)
        } else {
            (Value(status, version, value), true)
        }
    }

    /// Whether it has changed its key.
    fn is_done(&self) -> bool {
        match self {
            Self::Status(status) | Number(status, _) | Value(status, ..) => status.is_done(),
            Self::Taken(..) => true,
            _ => false,
        }
    }

    fn encode(&self, reply: &mut Vec<u8>) {
        match self {
            Self::Status(status) => reply.push(*status as u8),
            Mismatch(version) => {
                reply.push(Status::Mismatch as u8);
                reply.extend(version.to_le_bytes());
            }
            Number(status, number) => {
                reply.push(*status as u8);
                reply.extend(number.to_le_bytes());
            }
            Value(status, version, value) => {
                reply.push(*status as u8);
                reply.extend(version.to_le_bytes());
                reply.extend((value.len() as u32).to_le_bytes());
                reply.extend(value);
            }
            TooLarge(version, size) => {
                reply.push(Status::TooLarge as u8);
                reply.extend(version.to_le_bytes());
                reply.extend((*size as u32).to_le_bytes());
            }
            Self::Stat(found) => {
                reply.push(Status::Stat as u8);
                reply.extend(found.version.to_le_bytes());
                reply.extend(found.expiry_ms.unwrap_or(0).to_le_bytes());
                reply.extend((found.size() as u32).to_le_bytes());
                reply.push(found.kind() as u8);
            }
            Self::Members(version, strings, more) => {
                encode_members(Status::Members, *version, strings, *more, reply);
            }
            Self::Taken(version, strings) => {
                encode_members(Status::DoneMembers, *version, strings, false, reply);
            }
        }
    }
}

fn encode_members(
    status: Status,
    version: u64,
    strings: &[Vec<u8>],
    more: bool,
    reply: &mut Vec<u8>,
) {
    reply.push(status as u8);
    reply.extend(version.to_le_bytes());
    reply.extend((strings.len() as u32).to_le_bytes());
    reply.push(u8::from(more));
    for string in strings {
        reply.extend((string.len() as u32).to_le_bytes());
        reply.extend(string);
    }
}

impl Model {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Executes a request and returns the bytes of its reply; none if the request is invalid, or asks for a random key.
    /// `timestamp` is that of the op; of a read, of the last one before it; in nanoseconds.
    pub fn apply(
        &mut self,
        limits: &Limits,
        timestamp: u64,
        operation: u8,
        body: &[u8],
    ) -> Option<Vec<u8>> {
        self.apply_but(limits, timestamp, operation, body, &[])
    }

    /// As [`Self::apply`], but for the items at the places `refused`, for which the store has no space: the model knows
    /// nothing of pages.
    pub fn apply_but(
        &mut self,
        limits: &Limits,
        timestamp: u64,
        operation: u8,
        body: &[u8],
        refused: &[usize],
    ) -> Option<Vec<u8>> {
        let plan = super::Kv::validate(limits, operation, body).ok()?;
        let now = timestamp / 1_000_000;
        self.map
            .retain(|_, it| it.expiry_ms.is_none_or(|time| time > now));
        match Operation::from_byte(operation)? {
            Operation::Scan => Some(self.scan(&Scan::decode(body)?, plan.reply_size)),
            Operation::Count => {
                let mut reply = header(false, 0, self.revision);
                reply.extend((self.map.len() as u64).to_le_bytes());
                Some(reply)
            }
            Operation::Random => None,
            operation => {
                let items: Vec<_> = Items::decode(operation, body)?.collect();
                let world = World {
                    now,
                    value_size_max: super::value_size_max(limits),
                    room: 0,
                };
                let mut reply = header(false, items.len(), self.revision);
                let reserved = items.iter().map(Item::result_size).sum();
                let size = plan.reply_size;
                self.items(&items, refused, size, reserved, world, &mut reply);
                debug_assert!(BatchReply::decode(&reply).is_some());
                Some(reply)
            }
        }
    }

    fn items(
        &mut self,
        items: &[Item<'_>],
        refused: &[usize],
        reply_size: usize,
        mut reserved: usize,
        world: World,
        reply: &mut Vec<u8>,
    ) {
        for (place, item) in items.iter().enumerate() {
            reserved -= item.result_size();
            if refused.contains(&place) {
                assert!(!item.is_read(), "a read needs no space");
                reply.push(Status::OutOfSpace as u8);
                continue;
            }
            if let Item::Transaction(transaction) = item {
                let holds = transaction.conditions().all(|it| self.holds(&it));
                let (status, list): (_, Vec<_>) = if holds {
                    (Status::Succeeded, transaction.then().collect())
                } else {
                    (Status::Failed, transaction.otherwise().collect())
                };
                reply.push(status as u8);
                reply.extend((list.len() as u16).to_le_bytes());
                let size: usize = list.iter().map(Item::result_size).sum();
                self.items(&list, &[], reply_size, reserved + size, world, reply);
                continue;
            }
            let room = reply_size - reply.len() - reserved;
            let world = World {
                room: room.saturating_sub(VALUE_RESULT_SIZE),
                ..world
            };
            self.item(item, world).encode(reply);
        }
    }

    fn holds(&self, condition: &Condition<'_>) -> bool {
        let found = self.map.get(condition.key);
        match condition.target {
            Target::Version(version) => condition
                .comparison
                .holds(found.map_or(0, |it| it.version).cmp(&version)),
            Target::Value(value) => {
                let found = found.filter(|found| found.is_bytes());
                found.map_or(condition.comparison == Comparison::NotEqual, |found| {
                    condition
                        .comparison
                        .holds(found.value.as_slice().cmp(value))
                })
            }
        }
    }

    /// Sets a key. An expiry that is reached removes it.
    fn set(&mut self, key: &[u8], value: Vec<u8>, expiry_ms: Option<u64>, now: u64) {
        self.revision += 1;
        if expiry_ms.is_some_and(|time| time <= now) {
            self.map.remove(key);
            return;
        }
        let new = Versioned {
            version: self.revision,
            expiry_ms,
            value,
            collection: None,
        };
        self.map.insert(key.to_vec(), new);
    }

    /// As [`Self::set`], with what another key had, or this one.
    fn replace(&mut self, key: &[u8], what: &Versioned, expiry_ms: Option<u64>, now: u64) {
        self.set(key, what.value.clone(), expiry_ms, now);
        if let Some(new) = self
            .map
            .get_mut(key)
            .filter(|new| new.version == self.revision)
        {
            new.collection.clone_from(&what.collection);
        }
    }

    fn expiry(expiry: Expiry, old: Option<&Versioned>, now: u64) -> Option<u64> {
        match expiry {
            Expiry::Never => None,
            Expiry::Keep => old?.expiry_ms,
            Expiry::At(time) => Some(time),
            Expiry::In(time) => Some((now + time).min(EXPIRY_MAX)),
        }
    }

    fn item(&mut self, item: &Item<'_>, world: World) -> Outcome {
        if item
            .value()
            .is_some_and(|value| value.len() > world.value_size_max)
        {
            return Outcome::Status(Status::TooLong);
        }
        let old = self.map.get(item.key()).cloned();
        let old = old.as_ref();
        match *item {
            Item::Get { .. } | Item::Stat { .. } | Item::GetRange { .. } => {
                old.map_or_else(not_found, |old| Self::read(item, old, world))
            }
            Item::Count => Number(Status::Number, self.map.len().cast_signed() as i64),
            Item::Put { key, value } => {
                self.set(key, value.to_vec(), None, world.now);
                done()
            }
            Item::CompareAndSet {
                key,
                expected,
                value,
            } => {
                let is_other = old.is_some_and(|old| !old.is_bytes());
                if is_other || expected != old.map(|old| &old.value[..]) {
                    return Mismatch(old.map_or(0, |old| old.version));
                }
                self.set(key, value.to_vec(), None, world.now);
                done()
            }
            Item::Delete { key } => {
                if self.map.remove(key).is_none() {
                    return not_found();
                }
                self.revision += 1;
                done()
            }
            Item::Take { key, size_max } => old.map_or_else(not_found, |old| {
                let answer = Outcome::of_value(Status::DoneValue, old, size_max, world);
                if answer.1 {
                    self.revision += 1;
                    self.map.remove(key);
                }
                answer.0
            }),
            Item::Set { .. } => self.set_if(item, old, world),
            Item::Append { .. } | Item::SetRange { .. } => self.write_bytes(item, old, world),
            Item::Increment { key, delta } => self.increment(key, delta, old, world),
            Item::Expire { .. } => self.expire(item, old, world),
            Item::Rename { key, to, if_absent } => {
                let Some(old) = old else { return not_found() };
                if let Some(target) = self.map.get(to).filter(|_| if_absent) {
                    return Mismatch(target.version);
                }
                self.map.remove(key);
                self.replace(to, old, old.expiry_ms, world.now);
                done()
            }
            Item::Clear => {
                self.revision += 1;
                self.map.clear();
                done()
            }
            Item::Collection { key, ref action } => self.act(key, action, old, world),
            Item::Transaction(_) => unreachable!("executed by the caller, and never nested"),
        }
    }

    /// A read of a key that is there.
    fn read(item: &Item<'_>, old: &Versioned, world: World) -> Outcome {
        match *item {
            Item::GetRange { .. } if !old.is_bytes() => Outcome::Status(Status::WrongType),
            Item::Get { size_max, .. } => Outcome::of_value(Status::Value, old, size_max, world).0,
            Item::GetRange {
                start,
                end,
                size_max,
                ..
            } => {
                let mut cut = old.clone();
                cut.value = slice(&old.value, start, end);
                Outcome::of_value(Status::Value, &cut, size_max, world).0
            }
            _ => Outcome::Stat(old.clone()),
        }
    }

    fn increment(
        &mut self,
        key: &[u8],
        delta: i64,
        old: Option<&Versioned>,
        world: World,
    ) -> Outcome {
        if old.is_some_and(|old| !old.is_bytes()) {
            return Outcome::Status(Status::WrongType);
        }
        let Some(number) = old.map_or(Some(0), |old| number(&old.value)) else {
            return Outcome::Status(Status::NotANumber);
        };
        let Some(sum) = number.checked_add(delta) else {
            return Outcome::Status(Status::Overflow);
        };
        let kept = old.and_then(|old| old.expiry_ms);
        self.set(key, sum.to_string().into_bytes(), kept, world.now);
        Number(Status::DoneNumber, sum)
    }

    /// An append or a set_range.
    fn write_bytes(&mut self, item: &Item<'_>, old: Option<&Versioned>, world: World) -> Outcome {
        if old.is_some_and(|old| !old.is_bytes()) {
            return Outcome::Status(Status::WrongType);
        }
        let mut new = old.map_or(vec![], |old| old.value.clone());
        let value = item.value().expect("both have one");
        let start = match *item {
            Item::SetRange { offset, .. } => offset as usize,
            _ => new.len(),
        };
        if matches!(item, Item::SetRange { .. }) && value.is_empty() {
            return Number(Status::Number, new.len().cast_signed() as i64);
        }
        let end = start + value.len();
        if end > world.value_size_max {
            return Outcome::Status(Status::TooLong);
        }
        new.resize(new.len().max(end), 0);
        new[start..end].copy_from_slice(value);
        let size = new.len().cast_signed() as i64;
        let kept = old.and_then(|old| old.expiry_ms);
        self.set(item.key(), new, kept, world.now);
        Number(Status::DoneNumber, size)
    }

    fn set_if(&mut self, item: &Item<'_>, old: Option<&Versioned>, world: World) -> Outcome {
        let Item::Set {
            key,
            value,
            options,
        } = *item
        else {
            unreachable!("the caller looked");
        };
        let version = old.map_or(0, |old| old.version);
        let holds = match options.condition {
            SetCondition::Always => true,
            SetCondition::Absent => old.is_none(),
            SetCondition::Present => old.is_some(),
            SetCondition::Version(expected) => version == expected,
        };
        let (answer, fits) = match (old, options.old, holds) {
            (Some(old), true, true) => Outcome::of_value(Status::DoneValue, old, u32::MAX, world),
            (Some(old), true, false) => {
                Outcome::of_value(Status::MismatchValue, old, u32::MAX, world)
            }
            (_, _, true) => (done(), true),
            (_, _, false) => (Mismatch(version), true),
        };
        if holds && fits {
            let expiry = Self::expiry(options.expiry, old, world.now);
            self.set(key, value.to_vec(), expiry, world.now);
        }
        answer
    }

    fn expire(&mut self, item: &Item<'_>, old: Option<&Versioned>, world: World) -> Outcome {
        let Item::Expire {
            key,
            expiry,
            condition,
            size_max,
        } = *item
        else {
            unreachable!("the caller looked");
        };
        let Some(old) = old else { return not_found() };
        let new = Self::expiry(expiry, Some(old), world.now);
        let rank = |expiry: Option<u64>| expiry.unwrap_or(u64::MAX);
        let holds = match condition {
            ExpiryCondition::Always => true,
            ExpiryCondition::Absent => old.expiry_ms.is_none(),
            ExpiryCondition::Present => old.expiry_ms.is_some(),
            ExpiryCondition::Later => rank(new) > rank(old.expiry_ms),
            ExpiryCondition::Earlier => rank(new) < rank(old.expiry_ms),
            ExpiryCondition::PresentEarlier => {
                old.expiry_ms.is_some() && rank(new) < rank(old.expiry_ms)
            }
        };
        let (answer, fits) = match (size_max, holds) {
            (Some(size_max), true) => Outcome::of_value(Status::DoneValue, old, size_max, world),
            (Some(size_max), false) => {
                Outcome::of_value(Status::MismatchValue, old, size_max, world)
            }
            (None, true) => (done(), true),
            (None, false) => (Mismatch(old.version), true),
        };
        if holds && fits {
            self.replace(key, old, new, world.now);
        }
        answer
    }

    fn scan(&self, scan: &Scan<'_>, reply_size: usize) -> Vec<u8> {
        let inside = |key: &[u8]| {
            (match scan.from {
                Bound::Included(from) => key >= from,
                Bound::Excluded(from) => key > from,
                Bound::Unbounded => true,
            }) && (match scan.to {
                Bound::Included(to) => key <= to,
                Bound::Excluded(to) => key < to,
                Bound::Unbounded => true,
            })
        };
        let mut found: Vec<_> = self.map.iter().filter(|(key, _)| inside(key)).collect();
        if scan.reverse {
            found.reverse();
        }
        let mut entries = Vec::new();
        let mut count = 0;
        for (key, state) in &found {
            let (version, value) = (state.version, &state.value);
            let room = reply_size - REPLY_HEADER_SIZE - entries.len();
            let size = ENTRY_HEADER_SIZE + key.len();
            let omitted =
                scan.keys_only || !state.is_bytes() || (count == 0 && size + value.len() > room);
            let size = if omitted { size } else { size + value.len() };
            if count == scan.count_max as usize || size > room {
                break;
            }
            entries.extend((key.len() as u16).to_le_bytes());
            entries.extend([u8::from(omitted), state.kind() as u8]);
            entries.extend((state.size() as u32).to_le_bytes());
            entries.extend(version.to_le_bytes());
            entries.extend_from_slice(key);
            if !omitted {
                entries.extend_from_slice(value);
            }
            count += 1;
        }
        let mut reply = header(count < found.len(), count, self.revision);
        reply.extend(entries);
        reply
    }
}

/// The number that a value is: its digits are those that would be printed.
fn number(value: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}

/// As Redis cuts: negative ends count from behind.
fn slice(value: &[u8], start: i64, end: i64) -> Vec<u8> {
    let size = value.len() as i128;
    let (start, end) = (i128::from(start), i128::from(end));
    if start < 0 && end < 0 && start > end {
        return vec![];
    }
    let from_start = |at: i128| if at < 0 { (at + size).max(0) } else { at };
    let (start, end) = (from_start(start), from_start(end));
    let inside = |at: &usize| (*at as i128) >= start && (*at as i128) <= end;
    let places = (0..value.len()).filter(inside);
    places.map(|at| value[at]).collect()
}

fn header(more: bool, count: usize, revision: u64) -> Vec<u8> {
    let mut bytes = vec![Status::Done as u8, u8::from(more), 0, 0];
    bytes.extend((count as u32).to_le_bytes());
    bytes.extend(revision.to_le_bytes());
    bytes
}
