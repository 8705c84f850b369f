//! The key-value machine: reads and writes of keys, alone, in batches and in transactions; expiry; ordered scans.
//!
//! * Keys have 0 to 512 bytes; values as many as a request and a reply can hold ([`value_size_max`]).
//! * Every change of a key raises the store's **revision** by one, and the key keeps it as its **version**: it names that
//!   change for good, also after the key was deleted and made anew.
//! * A batch is one request, hence one entry in the log that is executed whole or not at all; but its items are
//!   independent: each has a result, and none undoes another. A **transaction** is an item: conditions on keys, and one list
//!   of items if they hold, another if not. Requests that only read do not write the log.
//! * **Expiry** is decided by the replicated time of the op that looks (a read's is that of the last commit), so all replicas
//!   expire a key at the same op, and time that passed never comes back: what was seen as expired stays so. An expired key
//!   is absent for everything. It is removed by the next write of that key or by a pulse, which removes up to 512 and is
//!   due as soon as one is, but at most each 2 ms; a read that comes when a key is due waits for it (at most one pulse).
//! * **Clear** empties the store at once, whatever it holds: it only unhooks the trees, and pulses free their pages, up to
//!   2,048 at a time. Until that is done, an item that finds too few free pages frees as many itself.
//! * An item that may need more pages than are free answers `out_of_space` and changes nothing; the other items of its batch
//!   are executed. Deletes need none, so they work in a full store too.
//!
//! How large a batch may be follows from what it may touch at worst, which must stay below
//! [`storage::layout::Geometry::pages_touched_max`], and from the reply. A change of a key may touch two leaves of keys and
//! two of the index of expiries, and most nodes above them. Small changes in one batch, at most: 572 puts of the default
//! geometry; 2,321 of the large one; and of the small one, whose pages all have spares, as many as fit a message.
//!
//! [`wire`] has the formats, [`model`] what all of it means, in plain Rust.

mod answer;
mod collections;
mod demand;
mod execute;
pub mod model;
mod store;
pub mod wire;

#[cfg(test)]
mod tests;

use super::{Context, Invalid, Limits, Pages, Plan, ReplyBuffer, StateMachine};
use answer::Answer;
use std::ops::Bound;
use storage::collections::ordered_map::{OrderedMap, Trash, WARM_MAX};
use store::{Record, milliseconds};
use wire::{
    ENTRY_HEADER_SIZE, ENTRY_NO_KEY, ENTRY_OMITTED, EntryHeader, Items, KEY_SIZE_MAX, Operation,
    REPLY_HEADER_SIZE, ReplyHeader, Scan, Status,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Expired keys that a scan passes over before it stops: about as much work as a scan that fills a reply.
const SCAN_EXPIRED_MAX: u32 = 8192;

/// Places at which a random key is looked for, before the nearest one behind the last is taken.
const SAMPLES_MAX: u32 = 16;

/// The machine, which is its root record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Kv {
    /// Keys, each with its record.
    map: OrderedMap,
    /// Expiries, each with its key.
    expiries: OrderedMap,
    /// Changes in the store's life.
    revision: u64,
    /// The first expiry of the index, in milliseconds; zero if there is none.
    expiry_first: u64,
    /// Replicated time of the last pulse.
    pulsed_ns: u64,
    /// Longest value; a number of the geometry.
    value_size_max: u64,
    /// Pages of what was cleared.
    trash: Trash,
    /// Zero.
    reserved: u32,
    /// Members of all collections, and the graves.
    members: OrderedMap,
    /// Records in the store that are collections.
    collections: u64,
    /// Collections in the graves.
    buried: u64,
    /// Chunks of graves.
    grave_chunks: u64,
    /// Zero.
    reserved_too: [u64; 2],
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

/// The plan of a request that reads and answers at most so many bytes.
fn read_plan(reply_size: usize) -> Plan {
    Plan {
        read_only: true,
        reply_size,
        ..Plan::default()
    }
}

impl StateMachine for Kv {
    const NAME: &'static str = "kv";
    const CHECKS_SPACE: bool = true;

    /// Without limits: values may be as long as any geometry allows.
    fn create(_pages: &mut Pages) -> Self {
        Self {
            map: OrderedMap::new(),
            expiries: OrderedMap::new(),
            revision: 0,
            expiry_first: 0,
            pulsed_ns: 0,
            value_size_max: u64::from(u32::MAX) / 2,
            trash: Trash::default(),
            members: OrderedMap::new(),
            collections: 0,
            buried: 0,
            grave_chunks: 0,
            reserved: 0,
            reserved_too: [0; 2],
        }
    }

    fn create_within(pages: &mut Pages, limits: &Limits) -> Self {
        Self {
            value_size_max: value_size_max(limits) as u64,
            ..Self::create(pages)
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
                Ok(read_plan(match scan.size_max as usize {
                    0 => limits.read_reply_size_max,
                    size => size.min(limits.read_reply_size_max),
                }))
            }
            Operation::Count if body.is_empty() => {
                Ok(read_plan(REPLY_HEADER_SIZE + size_of::<u64>()))
            }
            Operation::Random if body.len() == size_of::<u64>() => Ok(read_plan(
                REPLY_HEADER_SIZE + ENTRY_HEADER_SIZE + KEY_SIZE_MAX,
            )),
            Operation::Count | Operation::Random => Err(Invalid),
            _ => {
                let items = Items::decode(operation, body).ok_or(Invalid)?;
                demand::plan(limits, items, value_size_max(limits))
            }
        }
    }

    fn read(
        &self,
        pages: &Pages,
        context: &Context,
        operation: u8,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) {
        let now = milliseconds(context.timestamp);
        let done = match Operation::from_byte(operation) {
            Some(Operation::Scan) => self.read_scan(pages, now, body, reply),
            Some(Operation::Count) => self.read_count(pages, now, body, reply),
            Some(Operation::Random) => self.read_random(pages, now, body, reply),
            Some(operation) => self.read_items(pages, now, operation, body, reply),
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
        match Operation::from_byte(operation) {
            Some(Operation::Scan | Operation::Count | Operation::Random) | None => {
                self.read(pages, context, operation, body, reply);
            }
            Some(operation) => {
                let now = milliseconds(context.timestamp);
                self.commit_items(pages, now, operation, body, reply)
                    .unwrap_or_else(|| push_invalid(reply));
            }
        }
    }

    fn deadline_ns(&self, _pages: &Pages) -> Option<u64> {
        self.pulse_deadline_ns()
    }

    fn pulse(&mut self, pages: &mut Pages, context: &Context) {
        self.clean(pages, context.timestamp);
    }
}

/// The answer to what cannot be decoded.
fn push_invalid(reply: &mut ReplyBuffer<'_>) {
    if reply.room() >= REPLY_HEADER_SIZE {
        reply.push(ReplyHeader::new(Status::Invalid, 0, 0).as_bytes());
    }
}

impl Kv {
    /// Changes in the store's life.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    fn value_size_max(&self) -> usize {
        self.value_size_max as usize
    }

    fn commit_items(
        &mut self,
        pages: &mut Pages,
        now: u64,
        operation: Operation,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) -> Option<()> {
        let items = Items::decode(operation, body)?;
        let mut answer = Answer::begin(items, self.revision, reply)?;
        let mut ahead = items;
        for (index, item) in items.enumerate() {
            if index % WARM_MAX == 0 {
                self.look_ahead(pages, &mut ahead);
            }
            self.commit_item(pages, now, &item, &mut answer);
        }
        Some(())
    }

    fn read_items(
        &self,
        pages: &Pages,
        now: u64,
        operation: Operation,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) -> Option<()> {
        let items = Items::decode(operation, body)?;
        if !items.into_iter().all(|item| item.is_read()) {
            return None;
        }
        let mut answer = Answer::begin(items, self.revision, reply)?;
        let mut ahead = items;
        for (index, item) in items.enumerate() {
            if index % WARM_MAX == 0 {
                self.look_ahead(pages, &mut ahead);
            }
            answer.turn_to(&item);
            assert!(self.read_item(pages, now, &item, &mut answer));
        }
        Some(())
    }

    /// Fetches what the next items of a batch will look at.
    fn look_ahead(&self, pages: &Pages, ahead: &mut Items<'_>) {
        let next = ahead.by_ref().take(WARM_MAX);
        self.map.warm(pages, next.map(|item| item.key()));
    }

    fn read_count(
        &self,
        pages: &Pages,
        now: u64,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) -> Option<()> {
        if !body.is_empty() || reply.room() < REPLY_HEADER_SIZE + size_of::<u64>() {
            return None;
        }
        reply.push(ReplyHeader::new(Status::Done, 0, self.revision).as_bytes());
        reply.push(&self.count_at(pages, now).to_le_bytes());
        Some(())
    }

    fn read_random(
        &self,
        pages: &Pages,
        now: u64,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) -> Option<()> {
        let mut seed = u64::from_le_bytes(body.try_into().ok()?);
        if reply.room() < REPLY_HEADER_SIZE + ENTRY_HEADER_SIZE + KEY_SIZE_MAX {
            return None;
        }
        let mut found = None;
        for _ in 0..SAMPLES_MAX {
            let key = self.map.sample(pages, seed);
            found = key.and_then(|key| Some((key, self.live(pages, key, now)?)));
            if found.is_some() || key.is_none() {
                break;
            }
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        }
        let last = self.map.sample(pages, seed).unwrap_or(&[]);
        for (from, to) in [
            (Bound::Included(last), Bound::Unbounded),
            (Bound::Unbounded, Bound::Excluded(last)),
        ] {
            let records = self.map.range(pages, from, to, false);
            let mut records = records
                .take(SCAN_EXPIRED_MAX as usize)
                .map(|(key, stored)| (key, Record::new(stored)));
            found = found.or_else(|| records.find(|(_, record)| !record.meta.is_expired(now)));
        }
        let count = u32::from(found.is_some());
        reply.push(ReplyHeader::new(Status::Done, count, self.revision).as_bytes());
        if let Some((key, record)) = found {
            push_entry(reply, key, &record, ENTRY_OMITTED);
        }
        Some(())
    }

    fn read_scan(
        &self,
        pages: &Pages,
        now: u64,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) -> Option<()> {
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
        let mut expired = 0;
        for (key, stored) in self.map.range(pages, scan.from, scan.to, scan.reverse) {
            let record = Record::new(stored);
            let room = size_max - (reply.size() - begin);
            let mut flags = 0;
            if record.meta.is_expired(now) {
                expired += 1;
                if expired < SCAN_EXPIRED_MAX {
                    continue;
                }
                flags = ENTRY_NO_KEY;
            }
            let full_size = ENTRY_HEADER_SIZE + key.len() + record.meta.size;
            // Progress before completeness: one entry always comes.
            let is_collection = record.meta.kind != wire::ValueKind::Bytes;
            if flags == 0
                && (scan.keys_only || is_collection || (header.count == 0 && full_size > room))
            {
                flags = ENTRY_OMITTED;
            }
            let size = if flags == 0 {
                full_size
            } else {
                ENTRY_HEADER_SIZE + key.len()
            };
            if header.count == scan.count_max || size > room {
                header.more = 1;
                break;
            }
            push_entry(reply, key, &record, flags);
            header.count += 1;
            if flags == ENTRY_NO_KEY {
                header.more = 1;
                break;
            }
        }
        reply.written()[begin..begin + REPLY_HEADER_SIZE].copy_from_slice(header.as_bytes());
        Some(())
    }
}

fn push_entry(reply: &mut ReplyBuffer<'_>, key: &[u8], record: &Record<'_>, flags: u8) {
    let entry = EntryHeader {
        key_size: key.len() as u16,
        flags,
        kind: record.meta.kind as u8,
        value_size: record.size_told(),
        version: record.meta.version,
    };
    reply.push(entry.as_bytes());
    reply.push(key);
    if flags == 0 {
        for piece in record.pieces(0) {
            reply.push(piece);
        }
    }
}
