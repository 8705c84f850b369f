//! What every worker has written and what of it was acknowledged, in bounded memory: each worker has keys of its own,
//! each key a last acknowledged number and a last attempted one, and every byte of a value follows from worker, key and
//! number.
//!
//! A worker has one request in flight, and a key whose write ended unknown is not written again: that write may still
//! be executed later, over a newer one. So for each key there are at most two values that may be found, and one of them
//! only if its outcome was never known.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Shortest key: four digits of the worker, eight of its key.
pub const KEY_SIZE_MIN: usize = 12;
/// Shortest value: run, worker, key and number.
pub const VALUE_SIZE_MIN: usize = 16;
/// Most workers: four digits name them.
pub const WORKERS_MAX: usize = 1 << 16;

/// A key's place in the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyId {
    /// Whose.
    pub worker: u32,
    /// Which of its keys.
    pub key: u32,
}

/// What is known of a key. Numbers count the key's writes from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// The last write that was acknowledged; zero: none.
    pub acknowledged: u32,
    /// The last write that may have been executed.
    pub attempted: u32,
}

/// What was found of a key, held against its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The acknowledged value is there.
    Present,
    /// Instead of it the value of a later write, whose outcome was unknown: it was executed.
    UnknownExecuted,
    /// Nothing acknowledged, and nothing there.
    Absent,
    /// An acknowledged write is missing.
    Lost,
    /// A value that was never written.
    Corrupt,
}

#[derive(Debug)]
struct Worker {
    records: Vec<Record>,
    /// Keys in use: those whose write ended unknown are replaced by new ones.
    active: Vec<u32>,
}

/// All records.
#[derive(Debug)]
pub struct Ledger {
    workers: Vec<Worker>,
    /// Tells this run's values from those that an earlier one left in the same cluster.
    run: u32,
    key_size: usize,
    value_size: usize,
}

impl Ledger {
    /// For `workers` workers with `keys` keys each; no two runs on a cluster may have the same `run`.
    pub fn new(run: u32, workers: usize, keys: usize, key_size: usize, value_size: usize) -> Self {
        assert!(workers <= WORKERS_MAX && keys > 0);
        assert!(key_size >= KEY_SIZE_MIN && value_size >= VALUE_SIZE_MIN);
        let worker = || Worker {
            records: vec![Record::default(); keys],
            active: (0..keys as u32).collect(),
        };
        Self {
            workers: (0..workers).map(|_| worker()).collect(),
            run,
            key_size,
            value_size,
        }
    }

    /// Keys a worker has in use.
    pub fn keys_active(&self, worker: u32) -> usize {
        self.workers[worker as usize].active.len()
    }

    /// The key in a place of those in use.
    pub fn active(&self, worker: u32, place: usize) -> KeyId {
        let key = self.workers[worker as usize].active[place];
        KeyId { worker, key }
    }

    /// The key's record.
    pub fn record(&self, id: KeyId) -> Record {
        self.workers[id.worker as usize].records[id.key as usize]
    }

    fn record_mut(&mut self, id: KeyId) -> &mut Record {
        &mut self.workers[id.worker as usize].records[id.key as usize]
    }

    /// A write of this key is about to be submitted: its number.
    pub fn attempt(&mut self, id: KeyId) -> u32 {
        let record = self.record_mut(id);
        assert_eq!(
            record.attempted, record.acknowledged,
            "one write of a key is in flight"
        );
        record.attempted += 1;
        record.attempted
    }

    /// The write in flight was acknowledged.
    pub fn acknowledge(&mut self, id: KeyId) {
        let record = self.record_mut(id);
        assert!(record.attempted > record.acknowledged);
        record.acknowledged = record.attempted;
    }

    /// The write in flight had no effect and will have none.
    pub fn withdraw(&mut self, id: KeyId) {
        let record = self.record_mut(id);
        record.attempted = record.acknowledged;
    }

    /// The outcome of the write in flight is unknown: the key is replaced by a new one.
    pub fn retire(&mut self, id: KeyId) {
        let worker = &mut self.workers[id.worker as usize];
        let new = worker.records.len() as u32;
        let place = worker.active.iter().position(|&key| key == id.key);
        worker.active[place.expect("a key is written while it is in use")] = new;
        worker.records.push(Record::default());
    }

    /// All keys that were ever written.
    pub fn written(&self) -> impl Iterator<Item = (KeyId, Record)> {
        self.workers.iter().zip(0..).flat_map(|(worker, index)| {
            let numbered = worker.records.iter().zip(0..);
            numbered
                .filter(|(record, _)| record.attempted > 0)
                .map(move |(&record, key)| (KeyId { worker: index, key }, record))
        })
    }

    /// Writes the key's bytes into `bytes`.
    pub fn key(&self, id: KeyId, bytes: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        bytes.clear();
        let number = u64::from(id.worker) << 32 | u64::from(id.key);
        for digit in (0..12).rev() {
            bytes.push(DIGITS[(number >> (4 * digit) & 15) as usize]);
        }
        bytes.resize(self.key_size, b'.');
    }

    /// Writes the value of the key's write of this number into `bytes`: incompressible, and different for each.
    pub fn value(&self, id: KeyId, number: u32, bytes: &mut Vec<u8>) {
        // Large values are to cost the generator less than they cost the cluster: no byte is cleared first.
        bytes.resize(self.value_size.next_multiple_of(8), 0);
        let (head, rest) = bytes.split_at_mut(VALUE_SIZE_MIN);
        let parts = [self.run, id.worker, id.key, number];
        for (place, part) in head.chunks_exact_mut(4).zip(parts) {
            place.copy_from_slice(&part.to_le_bytes());
        }
        let seed = u64::from(self.run).rotate_left(32)
            ^ u64::from(id.worker) << 48
            ^ u64::from(id.key) << 24
            ^ u64::from(number);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        for place in rest.chunks_exact_mut(8) {
            place.copy_from_slice(&random.next_u64().to_le_bytes());
        }
        bytes.truncate(self.value_size);
    }

    /// Judges what was found. `scratch` is written over.
    pub fn judge(&self, id: KeyId, found: Option<&[u8]>, scratch: &mut Vec<u8>) -> Verdict {
        let record = self.record(id);
        let Some(found) = found else {
            return if record.acknowledged == 0 {
                Verdict::Absent
            } else {
                Verdict::Lost
            };
        };
        let of_this_run = found.get(..4) == Some(&self.run.to_le_bytes());
        if !of_this_run && record.acknowledged == 0 {
            return Verdict::Absent; // left by an earlier run
        }
        let number = found.get(12..16).and_then(|bytes| bytes.try_into().ok());
        let number = number.map_or(0, u32::from_le_bytes);
        self.value(id, number, scratch);
        if !of_this_run && found.len() == self.value_size {
            Verdict::Lost // an earlier run's value shows instead
        } else if found != scratch.as_slice() || number == 0 || number > record.attempted {
            Verdict::Corrupt
        } else if number < record.acknowledged {
            Verdict::Lost
        } else if number == record.acknowledged {
            Verdict::Present
        } else {
            Verdict::UnknownExecuted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(ledger: &Ledger, id: KeyId, number: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        ledger.value(id, number, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_found_is_judged_by_what_was_acknowledged() {
        let mut ledger = Ledger::new(9, 2, 3, 16, 40);
        let id = ledger.active(1, 2);
        let judge =
            |ledger: &Ledger, found: Option<&[u8]>| ledger.judge(id, found, &mut Vec::new());
        let [one, two, three] = [1, 2, 3].map(|number| value(&ledger, id, number));
        assert_eq!(judge(&ledger, None), Verdict::Absent);
        assert_eq!(judge(&ledger, Some(&one)), Verdict::Corrupt);
        assert_eq!(ledger.attempt(id), 1);
        assert_eq!(judge(&ledger, None), Verdict::Absent);
        assert_eq!(judge(&ledger, Some(&one)), Verdict::UnknownExecuted);
        ledger.acknowledge(id);
        assert_eq!(judge(&ledger, Some(&one)), Verdict::Present);
        assert_eq!(judge(&ledger, None), Verdict::Lost);
        ledger.attempt(id);
        ledger.acknowledge(id);
        assert_eq!(judge(&ledger, Some(&one)), Verdict::Lost);
        assert_eq!(judge(&ledger, Some(&two)), Verdict::Present);
        ledger.attempt(id);
        ledger.withdraw(id);
        assert_eq!(judge(&ledger, Some(&three)), Verdict::Corrupt);
        for damaged in 0..two.len() {
            let mut bytes = two.clone();
            bytes[damaged] ^= 1;
            assert_ne!(judge(&ledger, Some(&bytes)), Verdict::Present);
        }
        assert_eq!(judge(&ledger, Some(&two[..39])), Verdict::Corrupt);
        assert_eq!(judge(&ledger, Some(&[])), Verdict::Corrupt);
    }

    #[test]
    fn values_of_an_earlier_run_prove_nothing() {
        let (old, mut new) = (Ledger::new(8, 1, 1, 12, 40), Ledger::new(9, 1, 1, 12, 40));
        let id = new.active(0, 0);
        let left = value(&old, id, 1);
        assert_eq!(new.judge(id, Some(&left), &mut Vec::new()), Verdict::Absent);
        new.attempt(id);
        new.acknowledge(id);
        assert_eq!(new.judge(id, Some(&left), &mut Vec::new()), Verdict::Lost);
    }

    #[test]
    fn a_key_of_unknown_outcome_is_replaced() {
        let mut ledger = Ledger::new(9, 1, 2, 12, 16);
        let id = ledger.active(0, 0);
        ledger.attempt(id);
        ledger.retire(id);
        assert_eq!(ledger.keys_active(0), 2);
        assert_ne!(ledger.active(0, 0), id);
        ledger.attempt(ledger.active(0, 0));
        assert_eq!(ledger.written().count(), 2);
    }

    #[test]
    fn keys_are_distinct_and_as_long_as_asked() {
        let ledger = Ledger::new(9, 3, 3, 20, 16);
        let mut keys = std::collections::BTreeSet::new();
        for worker in 0..3 {
            for key in 0..3 {
                let mut bytes = Vec::new();
                ledger.key(KeyId { worker, key }, &mut bytes);
                assert_eq!(bytes.len(), 20);
                keys.insert(bytes);
            }
        }
        assert_eq!(keys.len(), 9);
    }
}
