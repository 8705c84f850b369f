//! The key-value machine under all its operations, on few keys, so that requests meet.

mod collections;

use super::Workload;
use crate::prng::Prng;
use crate::swarm::Pressure;
use std::ops::Bound;
use viewstone::machines::Machines;
use viewstone::state_machine::kv::model::Model;
use viewstone::state_machine::kv::wire::{
    BatchReply, Condition, Expiry, ExpiryCondition, Item, Operation, Scan, SetCondition,
    SetOptions, TransactionBytes,
};
use viewstone::state_machine::kv::{Kv, value_size_max};
use viewstone::state_machine::{Context, Limits};

/// The key-value machine is the first.
const MACHINE: u16 = 1 << 8;

/// Largest sum of the sizes of all values, as a part of the state: far from "out of space", which the model cannot
/// predict.
const STATE_SHARE: usize = 8;

/// See the module's description.
#[derive(Debug)]
pub struct KvWorkload {
    limits: Limits,
    model: Model,
    keys: u64,
    value_size_max: usize,
    /// Values that may be as large as that, in parts per million.
    large: u32,
    /// Weights of [`OPERATIONS`].
    weights: [u64; OPERATIONS.len()],
}

const OPERATIONS: [Operation; 19] = [
    Operation::Get,
    Operation::Put,
    Operation::Delete,
    Operation::CompareAndSet,
    Operation::Set,
    Operation::Take,
    Operation::Stat,
    Operation::GetRange,
    Operation::SetRange,
    Operation::Append,
    Operation::Increment,
    Operation::Expire,
    Operation::Rename,
    Operation::Collection,
    Operation::Clear,
    Operation::Scan,
    Operation::Count,
    Operation::Batch,
    Operation::Transaction,
];

/// Of these, the first are items.
const ITEMS: usize = 15;

impl KvWorkload {
    fn key(&self, prng: &mut Prng) -> Vec<u8> {
        Self::key_of(prng.below(self.keys))
    }

    fn key_of(number: u64) -> Vec<u8> {
        let mut key = format!("key-{number:04}").into_bytes();
        if number.is_multiple_of(7) {
            key.resize(200, b'x'); // long keys make deep trees
        }
        key
    }

    fn value(&self, prng: &mut Prng) -> Vec<u8> {
        let size = if prng.chance(self.large) {
            prng.index(self.value_size_max + 1)
        } else {
            prng.index(self.value_size_max.min(100) + 1)
        };
        let mut value = vec![0; size];
        prng.fill(&mut value);
        value
    }

    /// Some passes while a request is on its way, some while the cluster is being disturbed; none is left to pass when a
    /// cluster has come to rest.
    fn expiry(prng: &mut Prng) -> Expiry {
        match prng.below(6) {
            0 => Expiry::Never,
            1 => Expiry::At(prng.below(2) * 1_000_000_000),
            2 => Expiry::In(prng.below(20)),
            _ => Expiry::In(prng.below(1000)),
        }
    }

    /// A value that may grow: none is longer than twice the largest that is drawn.
    fn is_short(&self, key: &[u8]) -> bool {
        let found = self.model.map.get(key);
        found.is_none_or(|found| found.value.len() < self.value_size_max)
    }

    fn set_options(&self, prng: &mut Prng, key: &[u8]) -> SetOptions {
        let version = self.model.map.get(key).map_or(0, |found| found.version);
        SetOptions {
            condition: match prng.below(6) {
                0 => SetCondition::Absent,
                1 => SetCondition::Present,
                2 => SetCondition::Version(version),
                _ => SetCondition::Always,
            },
            expiry: if prng.below(5) == 0 {
                Expiry::Keep
            } else {
                Self::expiry(prng)
            },
            old: prng.coin(),
        }
    }

    fn compare_and_set(&self, prng: &mut Prng, key: &[u8], value: &[u8], body: &mut Vec<u8>) {
        let found = self.model.map.get(key).map(|found| found.value.clone());
        // What the model holds now: mostly still so when the request executes.
        let expected = if prng.chance(800_000) {
            found.filter(|found| found.len() <= 1000)
        } else {
            Some(b"other".to_vec())
        };
        Item::CompareAndSet {
            key,
            expected: expected.as_deref(),
            value,
        }
        .encode(body);
    }

    fn expire(prng: &mut Prng, key: &[u8], body: &mut Vec<u8>) {
        let condition = match prng.below(8) {
            0 => ExpiryCondition::Absent,
            1 => ExpiryCondition::Present,
            2 => ExpiryCondition::Later,
            3 => ExpiryCondition::Earlier,
            _ => ExpiryCondition::Always,
        };
        let size_max = prng.coin().then_some(1000);
        let expiry = Self::expiry(prng);
        Item::Expire {
            key,
            expiry,
            condition,
            size_max,
        }
        .encode(body);
    }

    /// Writes an item.
    fn item(&self, prng: &mut Prng, operation: Operation, body: &mut Vec<u8>) {
        let key = self.key(prng);
        let key = &key[..];
        let value = self.value(prng);
        let value = &value[..];
        let size_max = if prng.coin() { u32::MAX } else { 32 };
        match operation {
            Operation::Get => Item::Get { key, size_max }.encode(body),
            Operation::Delete => Item::Delete { key }.encode(body),
            Operation::CompareAndSet => self.compare_and_set(prng, key, value, body),
            Operation::Set => {
                let options = self.set_options(prng, key);
                Item::Set {
                    key,
                    value,
                    options,
                }
                .encode(body);
            }
            Operation::Take => Item::Take { key, size_max }.encode(body),
            Operation::Stat => Item::Stat { key }.encode(body),
            Operation::GetRange => {
                let mut place = || prng.below(200).cast_signed() - 100;
                let (start, end) = (place(), place());
                Item::GetRange {
                    key,
                    start,
                    end,
                    size_max,
                }
                .encode(body);
            }
            Operation::SetRange if self.is_short(key) => {
                let offset = prng.below(self.value_size_max as u64 + 1) as u32;
                Item::SetRange { key, offset, value }.encode(body);
            }
            Operation::Append if self.is_short(key) => Item::Append { key, value }.encode(body),
            Operation::Increment => {
                let delta = prng.below(20).cast_signed() - 10;
                Item::Increment { key, delta }.encode(body);
            }
            Operation::Expire => Self::expire(prng, key, body),
            Operation::Rename => {
                let (to, if_absent) = (self.key(prng), prng.coin());
                let to = &to[..];
                Item::Rename { key, to, if_absent }.encode(body);
            }
            Operation::Collection => self.collection(prng, body),
            Operation::Clear => Item::Clear.encode(body),
            _ => Item::Put { key, value }.encode(body),
        }
    }

    /// Writes a transaction: mostly, its conditions are what the model says.
    fn transaction(&self, prng: &mut Prng, body: &mut Vec<u8>) {
        let keys = [self.key(prng), self.key(prng)];
        let conditions = keys.iter().map(|key| {
            let found = self.model.map.get(key);
            match (found, prng.below(4)) {
                (Some(found), 0) if found.value.len() < 1000 => Condition::value(key, &found.value),
                (_, 1) => Condition::absent(key),
                (_, 2) => Condition::present(key),
                _ => Condition::version(key, found.map_or(0, |found| found.version)),
            }
        });
        let conditions: Vec<_> = conditions.collect();
        let mut lists = [Vec::new(), Vec::new()];
        for list in &mut lists {
            for _ in 0..prng.below(4) {
                let operation = OPERATIONS[prng.index(ITEMS - 1)];
                self.item(prng, operation, list);
            }
        }
        let items = lists.each_ref().map(|list| {
            let mut items = Vec::new();
            let mut rest = &list[..];
            while let Some((item, behind)) = Item::decode(rest) {
                items.push(item);
                rest = behind;
            }
            items
        });
        let count = prng.index(conditions.len() + 1);
        let bytes = TransactionBytes::new(&conditions[..count], &items[0], &items[1]);
        body.extend_from_slice(bytes.expect("short lists").as_bytes());
    }

    fn scan(&self, prng: &mut Prng, body: &mut Vec<u8>) {
        let (from, to) = (self.key(prng), self.key(prng));
        Scan {
            from: if prng.coin() {
                Bound::Included(&from)
            } else {
                Bound::Unbounded
            },
            to: if prng.coin() {
                Bound::Excluded(&to)
            } else {
                Bound::Unbounded
            },
            reverse: prng.coin(),
            keys_only: prng.coin(),
            count_max: 1 + prng.below(20) as u32,
            ..Scan::ALL
        }
        .encode(body);
    }

    fn draw(&self, prng: &mut Prng, body: &mut Vec<u8>) -> Operation {
        let mut point = prng.below(self.weights.iter().sum());
        let mut operation = Operation::Put;
        for (candidate, &weight) in OPERATIONS.into_iter().zip(&self.weights) {
            if point < weight {
                operation = candidate;
                break;
            }
            point -= weight;
        }
        match operation {
            Operation::Scan => self.scan(prng, body),
            Operation::Count => {}
            Operation::Transaction => self.transaction(prng, body),
            Operation::Batch => {
                let reads_only = prng.chance(200_000);
                for _ in 0..prng.range(1, 6) {
                    match prng.below(8) {
                        _ if reads_only => self.item(prng, Operation::Get, body),
                        0 => self.transaction(prng, body),
                        1 => Item::Count.encode(body),
                        _ => {
                            let operation = OPERATIONS[prng.index(ITEMS - 1)];
                            self.item(prng, operation, body);
                        }
                    }
                }
            }
            // A value that has grown long is put instead.
            Operation::SetRange | Operation::Append => {
                self.item(prng, operation, body);
                return Operation::from_byte(body[0]).expect("an item begins with its operation");
            }
            single => self.item(prng, single, body),
        }
        operation
    }
}

impl Workload for KvWorkload {
    type Machines = (Kv,);

    fn new(limits: Limits, prng: &mut Prng) -> Self {
        let keys = prng.range(1, 60);
        let share = limits.page_count as usize * storage::layout::PAGE_SIZE / STATE_SHARE;
        let value_size_max = value_size_max(&limits).min(share / keys as usize).min(6000);
        let mut weights = [0; OPERATIONS.len()];
        for weight in &mut weights {
            *weight = prng.below(10);
        }
        weights[1] += 5; // something is always written
        weights[ITEMS - 1] = prng.below(2); // and seldom is everything cleared
        Self {
            limits,
            model: Model::new(),
            keys,
            value_size_max,
            large: 100_000,
            weights,
        }
    }

    fn press(&mut self, pressure: Pressure) {
        if pressure.hot_keys {
            self.keys = 2;
            self.weights[3] += 30;
        }
        if pressure.space {
            // Some two megabytes in all, if there is room.
            (self.keys, self.large) = (400, 900_000);
            self.value_size_max = value_size_max(&self.limits).min(12_000);
            self.weights[1] += 40;
        }
    }

    fn request(&mut self, prng: &mut Prng, body: &mut Vec<u8>) -> u16 {
        loop {
            body.clear();
            let operation = MACHINE | self.draw(prng, body) as u16;
            // A batch may ask for more than the limits of this geometry allow.
            let plan = <Self::Machines as Machines>::validate(&self.limits, operation, body);
            if matches!(plan, Some(Ok(_))) {
                return operation;
            }
        }
    }

    fn refused(&self, answer: &[u8]) -> Vec<usize> {
        let answer = BatchReply::decode(answer);
        answer.expect("a write is of items").refused()
    }

    fn apply(
        &mut self,
        context: &Context,
        operation: u16,
        body: &[u8],
        refused: &[usize],
    ) -> Vec<u8> {
        assert_eq!(operation & 0xff00, MACHINE);
        let (time, operation) = (context.timestamp, operation as u8);
        let model = &mut self.model;
        let reply = model.apply_but(&self.limits, time, operation, body, refused);
        reply.expect("only valid requests are drawn")
    }
}
