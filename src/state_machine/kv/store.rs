//! What lies in the pages: the keys with their records, the index of expiries, and what waits to be freed.
//!
//! A key's value in the map is its **record**:
//!
//! ```text
//! offset  size  content
//!      0     8  version
//!      8     7  expiry in milliseconds since 1970; zero: never
//!     15     1  kind of value; zero: bytes
//!     16        the value; of a collection, its descriptor
//! ```
//!
//! Each expiry is also a key of the index: expiry (8 bytes, big-endian), then the key; without a value. So the first of
//! the index is what expires next.
//!
//! A record whose expiry is reached is as good as absent, for reads and writes alike; it is removed by the next write of its
//! key, or by a pulse.

use super::collections::Descriptor;
use super::wire::{EXPIRY_MAX, Expiry, KEY_SIZE_MAX, ValueKind};
use super::{Kv, Pages};
use std::ops::Bound;
use storage::collections::ordered_map::{Cost, Trash, Value};

/// Bytes of a record before the value.
pub(super) const RECORD_HEADER_SIZE: usize = 16;

/// Bytes of an expiry in the index, before the key.
const EXPIRY_SIZE: usize = 8;

const NANOSECONDS: u64 = 1_000_000;

/// Keys that a pulse removes at most: together they touch as many pages as one request may, in every geometry.
pub(super) const PULSE_KEYS_MAX: u32 = 512;

/// Pages that a pulse frees, and an item that finds too few free, before they stop: some 0.2 ms of work.
pub(super) const PULSE_PAGES: u32 = 2048;

/// Time between two pulses, in nanoseconds: what is due in between is absent for all who look, and is removed
/// together. 256,000 expiries a second keep up with what a cluster writes.
pub(super) const PULSE_INTERVAL_NS: u64 = 2_000_000;

/// Pages that a clear itself frees: small stores leave nothing to the pulses.
const CLEAR_PAGES: u32 = 512;

/// Expired keys that a count leaves out, at most: it looks at each.
const COUNT_EXPIRED_MAX: usize = 1024;

/// Milliseconds since 1970 of a replicated time.
pub(super) fn milliseconds(timestamp_ns: u64) -> u64 {
    timestamp_ns / NANOSECONDS
}

/// What a record says beside its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Meta {
    pub version: u64,
    /// In milliseconds; zero: never.
    pub expiry: u64,
    pub kind: ValueKind,
    /// Of the value, or of the descriptor.
    pub size: usize,
}

impl Meta {
    /// Whether it is gone at a time, in milliseconds.
    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.expiry != 0 && self.expiry <= now
    }
}

/// A record where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub meta: Meta,
    /// With its header.
    stored: Value<'a>,
}

impl<'a> Record<'a> {
    pub(super) fn new(stored: Value<'a>) -> Self {
        let header: [u8; RECORD_HEADER_SIZE] = stored
            .first()
            .expect("every value was stored behind its header");
        let (version, rest) = header.split_at(8);
        let mut expiry = [0; 8];
        expiry[..7].copy_from_slice(&rest[..7]);
        let meta = Meta {
            version: u64::from_le_bytes(version.try_into().expect("eight bytes")),
            expiry: u64::from_le_bytes(expiry),
            kind: ValueKind::from_byte(rest[7]).expect("kinds were stored as such"),
            size: stored.len() - RECORD_HEADER_SIZE,
        };
        Self { meta, stored }
    }

    /// The value from `offset` on, piece by piece.
    pub(super) fn pieces(&self, offset: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.stored.pieces(RECORD_HEADER_SIZE + offset)
    }

    /// What a collection's record says of it; none: it is bytes.
    pub(super) fn descriptor(&self) -> Option<Descriptor> {
        (self.meta.kind != ValueKind::Bytes).then(|| Descriptor::read(self.pieces(0)))
    }

    /// The size that is told: of a collection, its length.
    pub(super) fn size_told(&self) -> u32 {
        let length = |descriptor: Descriptor| u32::try_from(descriptor.count).unwrap_or(u32::MAX);
        self.descriptor().map_or(self.meta.size as u32, length)
    }

    pub(super) fn equals(&self, value: &[u8]) -> bool {
        self.stored.equals(RECORD_HEADER_SIZE, value)
    }

    /// How the value orders to another.
    pub(super) fn compare(&self, other: &[u8]) -> std::cmp::Ordering {
        let mut rest = other;
        for piece in self.pieces(0) {
            let (head, tail) = rest.split_at(piece.len().min(rest.len()));
            let order = piece.cmp(head);
            if order.is_ne() {
                return order;
            }
            rest = tail;
        }
        if rest.is_empty() {
            std::cmp::Ordering::Equal
        } else {
            std::cmp::Ordering::Less
        }
    }
}

/// Where a record's kind is.
const KIND_AT: usize = RECORD_HEADER_SIZE - 1;

pub(super) fn record_header(
    version: u64,
    expiry: u64,
    kind: ValueKind,
) -> [u8; RECORD_HEADER_SIZE] {
    assert!(expiry <= EXPIRY_MAX);
    let mut header = [0; RECORD_HEADER_SIZE];
    header[..8].copy_from_slice(&version.to_le_bytes());
    header[8..KIND_AT].copy_from_slice(&expiry.to_le_bytes()[..7]);
    header[KIND_AT] = kind as u8;
    header
}

/// A key of the index.
struct Indexed {
    bytes: [u8; EXPIRY_SIZE + KEY_SIZE_MAX],
    size: usize,
}

impl Indexed {
    fn new(expiry: u64, key: &[u8]) -> Self {
        let mut bytes = [0; EXPIRY_SIZE + KEY_SIZE_MAX];
        bytes[..EXPIRY_SIZE].copy_from_slice(&expiry.to_be_bytes());
        bytes[EXPIRY_SIZE..EXPIRY_SIZE + key.len()].copy_from_slice(key);
        Self {
            bytes,
            size: EXPIRY_SIZE + key.len(),
        }
    }

    fn copied(indexed: &[u8]) -> Self {
        let mut bytes = [0; EXPIRY_SIZE + KEY_SIZE_MAX];
        bytes[..indexed.len()].copy_from_slice(indexed);
        Self {
            bytes,
            size: indexed.len(),
        }
    }

    fn all(&self) -> &[u8] {
        &self.bytes[..self.size]
    }

    fn key(&self) -> &[u8] {
        &self.bytes[EXPIRY_SIZE..self.size]
    }
}

fn expiry_of(indexed: &[u8]) -> u64 {
    let bytes = indexed
        .first_chunk()
        .expect("every key of the index begins with its expiry");
    u64::from_be_bytes(*bytes)
}

/// Looking.
impl Kv {
    /// A key's record, expired or not.
    pub(super) fn record<'a>(&self, pages: &'a Pages, key: &[u8]) -> Option<Record<'a>> {
        self.map.get(pages, key).map(Record::new)
    }

    /// A key's record, if the key is there at a time.
    pub(super) fn live<'a>(&self, pages: &'a Pages, key: &[u8], now: u64) -> Option<Record<'a>> {
        self.record(pages, key)
            .filter(|record| !record.meta.is_expired(now))
    }

    /// The expiry that the index may have of a key.
    pub(super) fn expiry_indexed(&self, pages: &Pages, key: &[u8]) -> u64 {
        if self.expiries.is_empty() {
            return 0; // saves a look at the key
        }
        self.record(pages, key)
            .map_or(0, |record| record.meta.expiry)
    }

    /// Keys that are there at a time: those that are expired and not yet removed are left out, up to a bound.
    pub(super) fn count_at(&self, pages: &Pages, now: u64) -> u64 {
        if self.expiry_first == 0 || self.expiry_first > now {
            return self.map.len();
        }
        let all = (Bound::Unbounded, Bound::Unbounded);
        let expired = self
            .expiries
            .range(pages, all.0, all.1, false)
            .take(COUNT_EXPIRED_MAX)
            .take_while(|(indexed, _)| expiry_of(indexed) <= now);
        self.map.len() - expired.count() as u64
    }

    /// When something is to be done about what is expired or waits to be freed.
    pub(super) fn pulse_deadline_ns(&self) -> Option<u64> {
        let due_ns = match self.expiry_first {
            _ if !self.trash.is_empty() || self.has_buried() => 0,
            0 => return None,
            expiry => expiry.saturating_mul(NANOSECONDS),
        };
        Some(due_ns.max(self.pulsed_ns.saturating_add(PULSE_INTERVAL_NS)))
    }
}

/// Changing. What raises the revision says so.
impl Kv {
    /// Sets value and expiry, with a new version. `indexed` is the expiry that the key's record has so far.
    pub(super) fn set(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        value: &[u8],
        indexed: u64,
        expiry: u64,
    ) {
        self.bury_at(pages, key);
        self.revision += 1;
        let header = record_header(self.revision, expiry, ValueKind::Bytes);
        self.map.insert(pages, key, &[&header, value]);
        self.reindex(pages, key, indexed, expiry);
    }

    /// Sets expiry and version of a record whose value stays, or was changed in its place.
    pub(super) fn touch(&mut self, pages: &mut Pages, key: &[u8], indexed: u64, expiry: u64) {
        self.revision += 1;
        let header = record_header(self.revision, expiry, ValueKind::Bytes);
        self.map.write_at(pages, key, 0, &header[..KIND_AT]);
        self.reindex(pages, key, indexed, expiry);
    }

    /// Overwrites bytes of a record's value, and adds to it; versions are the caller's affair.
    pub(super) fn splice(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        size: usize,
        offset: usize,
        bytes: &[u8],
    ) {
        let within = bytes.len().min(size.saturating_sub(offset));
        let (over, behind) = bytes.split_at(within);
        if !over.is_empty() {
            let at = RECORD_HEADER_SIZE + offset;
            self.map.write_at(pages, key, at, over);
        }
        let zeros = offset.saturating_sub(size);
        if zeros + behind.len() > 0 {
            self.map.extend(pages, key, zeros, behind);
        }
    }

    /// Removes a record, which had this expiry, without a word about the revision.
    pub(super) fn remove(&mut self, pages: &mut Pages, key: &[u8], indexed: u64) {
        self.bury_at(pages, key);
        assert!(self.map.remove(pages, key));
        self.reindex(pages, key, indexed, 0);
    }

    /// Moves a record to another key, whose record (if any) had the expiry `replaced`.
    pub(super) fn rename(
        &mut self,
        pages: &mut Pages,
        from: &[u8],
        to: &[u8],
        expiry: u64,
        replaced: u64,
    ) {
        self.bury_at(pages, to);
        self.map.rename(pages, from, to);
        self.reindex(pages, from, expiry, 0);
        self.touch(pages, to, replaced, expiry);
    }

    /// Removes everything. What is not freed at once is left to the pulses.
    pub(super) fn clear(&mut self, pages: &mut Pages) {
        self.revision += 1;
        self.trash.take(pages, &mut self.map);
        self.trash.take(pages, &mut self.expiries);
        self.forget_collections(pages);
        self.expiry_first = 0;
        self.trash.free(pages, CLEAR_PAGES);
    }

    /// Whether so many pages are free, if need be after some of those that wait for it were freed.
    pub(super) fn has_space(&mut self, pages: &mut Pages, wanted: u32) -> bool {
        if pages.free_count() < wanted && !self.trash.is_empty() {
            self.trash.free(pages, PULSE_PAGES);
        }
        pages.free_count() >= wanted
    }

    pub(super) fn reindex(&mut self, pages: &mut Pages, key: &[u8], old: u64, new: u64) {
        if old == new {
            return;
        }
        if old != 0 {
            let indexed = Indexed::new(old, key);
            assert!(self.expiries.remove(pages, indexed.all()));
        }
        if new != 0 {
            let indexed = Indexed::new(new, key);
            assert!(!self.expiries.insert(pages, indexed.all(), &[]));
        }
        if old == self.expiry_first && old != 0 {
            self.expiry_first = self.first_indexed(pages).map_or(0, expiry_of);
        } else if new != 0 && (self.expiry_first == 0 || new < self.expiry_first) {
            self.expiry_first = new;
        }
    }

    fn first_indexed<'a>(&self, pages: &'a Pages) -> Option<&'a [u8]> {
        let mut all = self
            .expiries
            .range(pages, Bound::Unbounded, Bound::Unbounded, false);
        all.next().map(|(indexed, _)| indexed)
    }

    /// Removes what is expired, and frees what waits for it, as much of both as is allowed at once.
    pub(super) fn clean(&mut self, pages: &mut Pages, timestamp_ns: u64) {
        let now = milliseconds(timestamp_ns);
        let mut freed = 0;
        let mut left = PULSE_KEYS_MAX;
        while left > 0 {
            if freed >= PULSE_PAGES || self.expiry_first == 0 || self.expiry_first > now {
                break;
            }
            let indexed = self.first_indexed(pages).map(Indexed::copied);
            let indexed = indexed.expect("the index has a first expiry");
            let record = self.record(pages, indexed.key());
            let meta = record.expect("what is in the index is in the map").meta;
            assert_eq!(meta.expiry, expiry_of(indexed.all()));
            freed += Cost::value_pages(RECORD_HEADER_SIZE + meta.size);
            self.remove(pages, indexed.key(), meta.expiry);
            left -= 1;
        }
        freed += self.reap(pages, left, PULSE_PAGES.saturating_sub(freed));
        if freed < PULSE_PAGES {
            self.trash.free(pages, PULSE_PAGES - freed);
        }
        self.pulsed_ns = timestamp_ns;
    }
}

/// The expiry that a key is to have, in milliseconds; none: never.
pub(super) fn resolve(expiry: Expiry, kept: u64, now: u64) -> Option<u64> {
    match expiry {
        Expiry::Never => None,
        Expiry::Keep => Some(kept).filter(|&kept| kept != 0),
        Expiry::At(time) => Some(time),
        Expiry::In(time) => Some(now.saturating_add(time).min(EXPIRY_MAX)),
    }
}

// A pulse touches the trash, and what the index and the keys need; the plan of a request is bound by the same number.
const _: () = assert!(Trash::PAGES_TOUCHED_MAX < 16);
