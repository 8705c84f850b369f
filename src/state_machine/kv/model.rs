//! What the key-value machine means, in plain Rust over std's map: tests, the simulator and the load generator predict
//! replies with it. It shares the formats with the machine, and nothing else.

use super::wire::{
    BatchReply, ENTRY_HEADER_SIZE, Item, Items, Operation, REPLY_HEADER_SIZE, Scan, Status,
};
use crate::state_machine::{Limits, StateMachine};
use std::collections::BTreeMap;
use std::ops::Bound;

/// A key's state.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Versioned {
    /// Revision of the store when the key last changed.
    pub version: u64,
    /// The value.
    pub value: Vec<u8>,
}

/// A store.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Model {
    /// The keys.
    pub map: BTreeMap<Vec<u8>, Versioned>,
    /// Changes in the store's life.
    pub revision: u64,
}

impl Model {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Executes a request and returns the bytes of its reply; none if the request is invalid. (Nor is it executed if the
    /// store is out of space: that is not for the model to know.)
    pub fn apply(&mut self, limits: &Limits, operation: u8, body: &[u8]) -> Option<Vec<u8>> {
        let plan = super::Kv::validate(limits, operation, body).ok()?;
        match Operation::from_byte(operation)? {
            Operation::Scan => Some(self.scan(&Scan::decode(body)?, plan.reply_size)),
            Operation::Count => {
                let mut reply = header(Status::Done, false, 0, self.revision);
                reply.extend((self.map.len() as u64).to_le_bytes());
                Some(reply)
            }
            operation => {
                let items: Vec<_> = Items::decode(operation, body)?.collect();
                Some(self.batch(&items, plan.reply_size))
            }
        }
    }

    /// Executes one item; the status, and what was found if the reply tells of it.
    fn item(&mut self, item: &Item<'_>, room: usize) -> (Status, Option<Versioned>) {
        let old = self.map.get(item.key()).cloned();
        match *item {
            Item::Get { size_max, .. } => match old {
                None => (Status::NotFound, None),
                Some(old) if old.value.len() > room.min(size_max as usize) => {
                    (Status::TooLarge, Some(old))
                }
                Some(old) => (Status::Value, Some(old)),
            },
            Item::Delete { .. } if old.is_none() => (Status::NotFound, None),
            Item::Delete { key } => {
                self.revision += 1;
                self.map.remove(key);
                (Status::Done, None)
            }
            Item::CompareAndSet { expected, .. }
                if expected != old.as_ref().map(|old| &old.value[..]) =>
            {
                (Status::Mismatch, old)
            }
            Item::Put { key, value } | Item::CompareAndSet { key, value, .. } => {
                self.revision += 1;
                let new = Versioned {
                    version: self.revision,
                    value: value.to_vec(),
                };
                self.map.insert(key.to_vec(), new);
                (Status::Done, None)
            }
            _ => (Status::Invalid, None),
        }
    }

    fn batch(&mut self, items: &[Item<'_>], reply_size: usize) -> Vec<u8> {
        let mut reply = header(Status::Done, false, items.len(), self.revision);
        let mut reserved: usize = items.iter().map(Item::result_size).sum();
        let mut data = Vec::new();
        for item in items {
            let room = reply_size - (REPLY_HEADER_SIZE + reserved + data.len());
            reserved -= item.result_size();
            let (status, found) = self.item(item, room);
            data.push(status as u8);
            match (status, found) {
                (Status::Value | Status::TooLarge, Some(found)) => {
                    data.extend(found.version.to_le_bytes());
                    data.extend((found.value.len() as u32).to_le_bytes());
                    if status == Status::Value {
                        data.extend(found.value);
                    }
                }
                (Status::Mismatch, found) => {
                    data.extend(found.map_or(0, |found| found.version).to_le_bytes());
                }
                _ => {}
            }
        }
        reply.extend(data);
        debug_assert!(BatchReply::decode(&reply).is_some());
        reply
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
        for (key, Versioned { version, value }) in &found {
            let room = reply_size - REPLY_HEADER_SIZE - entries.len();
            let size = ENTRY_HEADER_SIZE + key.len();
            let omitted = scan.keys_only || (count == 0 && size + value.len() > room);
            let size = if omitted { size } else { size + value.len() };
            if count == scan.count_max as usize || size > room {
                break;
            }
            entries.extend((key.len() as u16).to_le_bytes());
            entries.extend([u8::from(omitted), 0]);
            entries.extend((value.len() as u32).to_le_bytes());
            entries.extend(version.to_le_bytes());
            entries.extend_from_slice(key);
            if !omitted {
                entries.extend_from_slice(value);
            }
            count += 1;
        }
        let mut reply = header(Status::Done, count < found.len(), count, self.revision);
        reply.extend(entries);
        reply
    }
}

fn header(status: Status, more: bool, count: usize, version: u64) -> Vec<u8> {
    let mut bytes = vec![status as u8, u8::from(more), 0, 0];
    bytes.extend((count as u32).to_le_bytes());
    bytes.extend(version.to_le_bytes());
    bytes
}
