//! The key-value machine under all its operations, on few keys, so that requests meet.

use super::Workload;
use crate::prng::Prng;
use crate::swarm::Pressure;
use std::ops::Bound;
use viewstone::machines::Machines;
use viewstone::state_machine::kv::model::Model;
use viewstone::state_machine::kv::wire::{Item, Operation, Scan};
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
    /// Weights of get, put, delete, compare-and-set, scan, count, batch.
    weights: [u64; 7],
}

const OPERATIONS: [Operation; 7] = [
    Operation::Get,
    Operation::Put,
    Operation::Delete,
    Operation::CompareAndSet,
    Operation::Scan,
    Operation::Count,
    Operation::Batch,
];

impl KvWorkload {
    fn key(&self, prng: &mut Prng) -> Vec<u8> {
        let number = prng.below(self.keys);
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

    /// Writes an item of one of the first four operations.
    fn item(&self, prng: &mut Prng, operation: Operation, body: &mut Vec<u8>) {
        let key = self.key(prng);
        let key = &key[..];
        match operation {
            Operation::Get => {
                let size_max = if prng.coin() { u32::MAX } else { 32 };
                Item::Get { key, size_max }.encode(body);
            }
            Operation::Delete => Item::Delete { key }.encode(body),
            Operation::CompareAndSet => {
                let value = self.value(prng);
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
                    value: &value,
                }
                .encode(body);
            }
            _ => {
                let value = self.value(prng);
                Item::Put { key, value: &value }.encode(body);
            }
        }
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
            Operation::Batch => {
                let reads_only = prng.chance(200_000);
                for _ in 0..prng.range(1, 6) {
                    let kind = if reads_only {
                        Operation::Get
                    } else {
                        OPERATIONS[1 + prng.index(3)]
                    };
                    self.item(prng, kind, body);
                }
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
        let mut weights = [0; 7];
        for weight in &mut weights {
            *weight = prng.below(10);
        }
        weights[1] += 5; // something is always written
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

    fn apply(&mut self, _context: &Context, operation: u16, body: &[u8]) -> Vec<u8> {
        assert_eq!(operation & 0xff00, MACHINE);
        let reply = self.model.apply(&self.limits, operation as u8, body);
        reply.expect("only valid requests are drawn")
    }
}
