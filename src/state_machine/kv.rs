//! The key-value machine: get, put, delete, compare-and-set, ordered scan, count, and batches of the first four.
//!
//! * Keys have 1 to 256 bytes; values as many as a request and a reply can hold ([`value_size_max`]).
//! * Every change of a key raises the store's **revision** by one, and the key keeps it as its **version**: it names that
//!   change for good, also after the key was deleted and made anew.
//! * A batch is one request, hence one entry in the log that is executed whole or not at all; but its items are
//!   independent: each has a result, and none undoes another. A batch of gets is a read.
//! * A delete plans no page, so it works in a full store too; so does a batch of deletes.
//!
//! How large a batch may be follows from what it may touch at worst, which must stay below
//! [`storage::layout::Geometry::pages_touched_max`] (n items on n keys far apart may change 2n leaves and most nodes above them),
//! and from the reply, one byte an item. Small changes in one batch, at most: 1,219 of the default geometry, where 256 KiB
//! would hold some 1,800 of 100 bytes; 3,824 of the large one; and of the small one, whose pages all have spares, as
//! many as fit a message. Gets in a batch that also writes must say how many bytes they want, since the reply
//! to a write is bounded.
//!
//! [`wire`] has the formats, [`model`] what all of it means, in plain Rust.

pub mod model;
pub mod wire;

#[cfg(test)]
mod tests;

use super::{Context, Invalid, Limits, Pages, Plan, ReplyBuffer, StateMachine};
use storage::collections::ordered_map::{Cost, OrderedMap, Value};
use storage::layout::PAGE_SIZE;
use wire::{
    ENTRY_HEADER_SIZE, ENTRY_OMITTED, EntryHeader, Item, Items, KEY_SIZE_MAX, Operation,
    REPLY_HEADER_SIZE, ReplyHeader, Scan, Status, VALUE_RESULT_SIZE,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the version before each value.
const VERSION_SIZE: usize = 8;

/// The machine, which is its root record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Kv {
    /// Keys, each with its version (8 bytes) and value.
    map: OrderedMap,
    /// Changes in the store's life.
    revision: u64,
    /// Zero. Later operations (transactions, expiry) keep their handles here.
    reserved: [u64; 13],
}

static_assertions::const_assert_eq!(size_of::<Kv>(), 128);

/// Longest value, in bytes: a put of it fits a request, and a scan that returns it alone fits a reply, with any key.
pub fn value_size_max(limits: &Limits) -> usize {
    let overhead = REPLY_HEADER_SIZE + ENTRY_HEADER_SIZE + KEY_SIZE_MAX;
    limits
        .request_size_max
        .min(limits.read_reply_size_max)
        .saturating_sub(overhead)
}

/// What the items of a request may need, summed up.
#[derive(Default)]
struct Demand {
    items: usize,
    gets: usize,
    fixed_size: usize,
    /// Bytes of values that gets may return.
    got_size: usize,
    inserts: u32,
    changes: u32,
    value_pages: u64,
}

impl Demand {
    fn new(limits: &Limits, items: Items<'_>) -> Result<Self, Invalid> {
        let value_size_max = value_size_max(limits);
        let mut demand = Self::default();
        for item in items {
            demand.items += 1;
            demand.fixed_size += item.result_size();
            if let Item::Get { size_max, .. } = item {
                demand.gets += 1;
                demand.got_size += value_size_max.min(size_max as usize);
                continue;
            }
            if !matches!(item.operation() as u8, 1..=4) {
                return Err(Invalid);
            }
            demand.changes += 1;
            if let Some(value) = item.value() {
                if value.len() > value_size_max {
                    return Err(Invalid);
                }
                demand.inserts += 1;
                demand.value_pages += u64::from(Cost::value_pages(VERSION_SIZE + value.len()));
            }
        }
        Ok(demand)
    }

    fn plan(&self, limits: &Limits) -> Result<Plan, Invalid> {
        let read_only = self.changes == 0;
        // Before the values.
        let fixed_size = REPLY_HEADER_SIZE + self.fixed_size;
        let mut reply_size = fixed_size + self.got_size;
        if read_only {
            // Values that do not fit are told as too large.
            reply_size = reply_size.min(limits.read_reply_size_max);
        }
        let reply_size_max = if read_only {
            limits.read_reply_size_max
        } else {
            limits.reply_size_max
        };
        let mut plan = Plan {
            read_only,
            reply_size,
            ..Plan::default()
        };
        if !read_only {
            let cost = Cost::new(limits.page_count);
            let bitmap_pages = limits.page_count.div_ceil(PAGE_SIZE as u32 * 8);
            let new = u64::from(cost.nodes_new_max(self.inserts)) + self.value_pages;
            let touched = u64::from(cost.nodes_touched_max(self.changes))
                + self.value_pages
                + u64::from(bitmap_pages);
            let page_count = u64::from(limits.page_count);
            plan.pages_new = new.min(page_count) as u32;
            plan.pages_touched = touched.min(page_count) as u32;
        }
        let fits = fixed_size.max(reply_size) <= reply_size_max
            && plan.pages_touched <= limits.pages_touched_max;
        if fits { Ok(plan) } else { Err(Invalid) }
    }
}

impl StateMachine for Kv {
    const NAME: &'static str = "kv";

    fn create(_pages: &mut Pages) -> Self {
        Self {
            map: OrderedMap::new(),
            revision: 0,
            reserved: [0; 13],
        }
    }

    fn validate(limits: &Limits, operation: u8, body: &[u8]) -> Result<Plan, Invalid> {
        let operation = Operation::from_byte(operation).ok_or(Invalid)?;
        if body.len() > limits.request_size_max {
            return Err(Invalid);
        }
        match operation {
            Operation::Scan => {
                let scan = Scan::decode(body).ok_or(Invalid)?;
                let size = match scan.size_max as usize {
                    0 => limits.read_reply_size_max,
                    size => size.min(limits.read_reply_size_max),
                };
                Ok(Plan {
                    read_only: true,
                    reply_size: size,
                    ..Plan::default()
                })
            }
            Operation::Count if body.is_empty() => {
                let reply_size = REPLY_HEADER_SIZE + size_of::<u64>();
                Ok(Plan {
                    read_only: true,
                    reply_size,
                    ..Plan::default()
                })
            }
            Operation::Count => Err(Invalid),
            _ => {
                let items = Items::decode(operation, body).ok_or(Invalid)?;
                Demand::new(limits, items)?.plan(limits)
            }
        }
    }

    fn read(
        &self,
        pages: &Pages,
        _context: &Context,
        operation: u8,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) {
        let done = match Operation::from_byte(operation) {
            Some(Operation::Scan) => self.read_scan(pages, body, reply),
            Some(Operation::Count) => self.read_count(body, reply),
            Some(operation) => self.read_batch(operation, pages, body, reply),
            None => None,
        };
        done.unwrap_or_else(|| push_invalid(reply));
    }

    fn commit(
        &mut self,
        pages: &mut Pages,
        context: &Context,
        operation: u8,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) {
        let done = match Operation::from_byte(operation) {
            Some(Operation::Scan | Operation::Count) | None => {
                self.read(pages, context, operation, body, reply);
                Some(())
            }
            Some(operation) => self.commit_batch(operation, pages, body, reply),
        };
        done.unwrap_or_else(|| push_invalid(reply));
    }
}

/// The answer to what cannot be decoded.
fn push_invalid(reply: &mut ReplyBuffer<'_>) {
    if reply.room() >= REPLY_HEADER_SIZE {
        reply.push(ReplyHeader::new(Status::Invalid, 0, 0).as_bytes());
    }
}

/// A key's version and the size of its value.
#[derive(Clone, Copy)]
struct Found<'a> {
    version: u64,
    size: u32,
    /// Version and value.
    stored: Value<'a>,
}

impl<'a> Found<'a> {
    fn new(stored: Value<'a>) -> Self {
        let version = stored
            .first()
            .expect("every value was stored behind its version");
        Self {
            version: u64::from_le_bytes(version),
            size: (stored.len() - VERSION_SIZE) as u32,
            stored,
        }
    }

    fn push(&self, reply: &mut ReplyBuffer<'_>) {
        for piece in self.stored.pieces(VERSION_SIZE) {
            reply.push(piece);
        }
    }
}

/// How a change ended.
struct Outcome {
    status: Status,
    /// Size of the value that was found instead of the expected one.
    size: u32,
    version: u64,
}

impl Kv {
    /// Changes in the store's life.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Keys in the store.
    pub fn count(&self) -> u64 {
        self.map.len()
    }

    fn find<'a>(&self, pages: &'a Pages, key: &[u8]) -> Option<Found<'a>> {
        self.map.get(pages, key).map(Found::new)
    }

    fn done(&mut self) -> Outcome {
        Outcome {
            status: Status::Done,
            size: 0,
            version: self.revision,
        }
    }

    fn put(&mut self, pages: &mut Pages, key: &[u8], value: &[u8]) -> Outcome {
        self.revision += 1;
        self.map
            .insert(pages, key, &[&self.revision.to_le_bytes(), value]);
        self.done()
    }

    /// Executes an item that changes; a get changes nothing and is none of its business.
    fn change(&mut self, pages: &mut Pages, item: &Item<'_>) -> Option<Outcome> {
        match *item {
            Item::Put { key, value } => Some(self.put(pages, key, value)),
            Item::Delete { key } => {
                if !self.map.remove(pages, key) {
                    return Some(Outcome {
                        status: Status::NotFound,
                        size: 0,
                        version: 0,
                    });
                }
                self.revision += 1;
                Some(self.done())
            }
            Item::CompareAndSet {
                key,
                expected,
                value,
            } => {
                let found = self.find(pages, key);
                let matches = match (found, expected) {
                    (None, None) => true,
                    (Some(found), Some(expected)) => found.stored.equals(VERSION_SIZE, expected),
                    _ => false,
                };
                if matches {
                    return Some(self.put(pages, key, value));
                }
                Some(Outcome {
                    status: Status::Mismatch,
                    size: found.map_or(0, |found| found.size),
                    version: found.map_or(0, |found| found.version),
                })
            }
            _ => None,
        }
    }

    fn commit_batch(
        &mut self,
        operation: Operation,
        pages: &mut Pages,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) -> Option<()> {
        let items = Items::decode(operation, body)?;
        let mut answer = BatchAnswer::begin(items, self.revision, reply)?;
        for item in items {
            match self.change(pages, &item) {
                Some(outcome) => answer.push_status(&outcome),
                None if !matches!(item, Item::Get { .. }) => return None,
                None => answer.push_get(&item, self.find(pages, item.key())),
            }
        }
        Some(())
    }

    fn read_batch(
        &self,
        operation: Operation,
        pages: &Pages,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) -> Option<()> {
        let items = Items::decode(operation, body)?;
        if !items.into_iter().all(|item| matches!(item, Item::Get { .. })) {
            return None;
        }
        let mut answer = BatchAnswer::begin(items, self.revision, reply)?;
        for item in items {
            answer.push_get(&item, self.find(pages, item.key()));
        }
        Some(())
    }

    fn read_count(&self, body: &[u8], reply: &mut ReplyBuffer<'_>) -> Option<()> {
        let count = self.map.len();
        if !body.is_empty() || reply.room() < REPLY_HEADER_SIZE + size_of_val(&count) {
            return None;
        }
        reply.push(ReplyHeader::new(Status::Done, 0, self.revision).as_bytes());
        reply.push(&count.to_le_bytes());
        Some(())
    }

    fn read_scan(&self, pages: &Pages, body: &[u8], reply: &mut ReplyBuffer<'_>) -> Option<()> {
        let scan = Scan::decode(body)?;
        if reply.room() < wire::SCAN_SIZE_MIN {
            return None;
        }
        let size_max = match scan.size_max as usize {
            0 => reply.room(),
            size => size.min(reply.room()),
        };
        let begin = reply.size();
        let mut header = ReplyHeader::new(Status::Done, 0, self.revision);
        reply.push(header.as_bytes());
        for (key, stored) in self.map.range(pages, scan.from, scan.to, scan.reverse) {
            let found = Found::new(stored);
            let room = size_max - (reply.size() - begin);
            let full_size = ENTRY_HEADER_SIZE + key.len() + found.size as usize;
            // Progress before completeness: one entry always comes.
            let omitted = scan.keys_only || (header.count == 0 && full_size > room);
            let size = if omitted {
                ENTRY_HEADER_SIZE + key.len()
            } else {
                full_size
            };
            if header.count == scan.count_max || size > room {
                header.more = 1;
                break;
            }
            let entry = EntryHeader {
                key_size: key.len() as u16,
                flags: if omitted { ENTRY_OMITTED } else { 0 },
                kind: 0,
                value_size: found.size,
                version: found.version,
            };
            reply.push(entry.as_bytes());
            reply.push(key);
            if !omitted {
                found.push(reply);
            }
            header.count += 1;
        }
        reply.written()[begin..begin + REPLY_HEADER_SIZE].copy_from_slice(header.as_bytes());
        Some(())
    }
}

/// The reply to a batch while it is written.
struct BatchAnswer<'a, 'b> {
    reply: &'a mut ReplyBuffer<'b>,
    /// What results still to come need at least.
    reserved: usize,
}

impl<'a, 'b> BatchAnswer<'a, 'b> {
    /// None if not even what is sure to come fits.
    fn begin(items: Items<'_>, revision: u64, reply: &'a mut ReplyBuffer<'b>) -> Option<Self> {
        let reserved = items.result_size();
        if reply.room() < REPLY_HEADER_SIZE + reserved {
            return None;
        }
        let count = items.count() as u32;
        reply.push(ReplyHeader::new(Status::Done, count, revision).as_bytes());
        Some(Self { reply, reserved })
    }

    fn push_status(&mut self, outcome: &Outcome) {
        self.reply.push(&[outcome.status as u8]);
        if outcome.status == Status::Mismatch {
            self.reply.push(&outcome.version.to_le_bytes());
        }
    }

    fn push_get(&mut self, item: &Item<'_>, found: Option<Found<'_>>) {
        let room = self.reply.room() - self.reserved;
        self.reserved -= VALUE_RESULT_SIZE;
        let Some(found) = found else {
            return self.reply.push(&[Status::NotFound as u8]);
        };
        let fits = matches!(*item, Item::Get { size_max, .. } if found.size <= size_max)
            && found.size as usize <= room;
        let status = if fits {
            Status::Value
        } else {
            Status::TooLarge
        };
        self.reply.push(&[status as u8]);
        self.reply.push(&found.version.to_le_bytes());
        self.reply.push(&found.size.to_le_bytes());
        if fits {
            found.push(self.reply);
        }
    }
}
