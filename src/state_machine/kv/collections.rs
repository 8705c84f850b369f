//! Collections: what a key holds besides bytes.
//!
//! A collection's record has its **descriptor** for a value: a number of its own, which no other collection ever had, and its
//! length. Its members are keys of one map that all collections share, behind that number. So a rename moves the record alone,
//! and what is deleted, overwritten or expired is gone at once, however large it was: its number goes to the **graves**, and
//! pulses remove the members, some hundreds at a time.
//!
//! ```text
//! descriptor                              key of the map of members
//! offset  size  content                   offset  size  content
//!      0     8  number, from 1                 0     8  number * 2, and 1 for the index of scores; big-endian
//!      8     8  length                         8        member, field or place; or a score and a member
//!     16     8  place of a list's first element
//!     24     8  zero
//! ```
//!
//! * **hash**: key: the field; value: its value. **set**: key: the member; no value.
//! * **list** ([`list`]): key: the place (big-endian), from some number in the middle upwards and downwards; value: the element.
//! * **sorted set** ([`sorted`]): key: the member; value: its score. And the index: score (ordered bits, big-endian), then the
//!   member; no value.
//!
//! **Graves** lie in the map of members under number 0: chunks of 511 numbers, used as a stack. A chunk is added when a
//! collection is made, so that there is always a place for each collection there is: a delete needs no page.

mod list;
mod members;
mod sorted;

use super::answer::Answer;
use super::store::{RECORD_HEADER_SIZE, Record, record_header};
use super::wire::{Action, KEY_SIZE_MAX, Status, ValueKind};
use super::{Kv, Pages};
use std::ops::Bound;
use storage::collections::ordered_map::{Cost, KEY_SIZE_MAX as STORED_SIZE_MAX};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Numbers in a chunk of graves: it fills the page that its value takes.
pub(super) const GRAVES: u64 = 511;

const CHUNK_SIZE: usize = GRAVES as usize * size_of::<u64>();

static_assertions::const_assert_eq!(CHUNK_SIZE, 4088);

/// Most members of a collection among which a pick counts; in a larger one it takes its way through the tree.
pub(super) const PICK_WALK_MAX: u64 = 256;

/// Bytes before a member in its key.
const PREFIX_SIZE: usize = 8;

// A member of a sorted set has its score before it in the index.
const _: () = assert!(PREFIX_SIZE + size_of::<u64>() + KEY_SIZE_MAX <= STORED_SIZE_MAX);

/// What the record of a collection says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Descriptor {
    /// Its own: the revision that made it.
    pub number: u64,
    /// Members, fields or elements.
    pub count: u64,
    /// Of a list: the place of its first element.
    pub first: u64,
    reserved: u64,
}

impl Descriptor {
    pub(super) fn read<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Self {
        let piece = pieces.next().expect("a descriptor lies in its leaf");
        Self::read_from_bytes(piece).expect("it was stored whole")
    }
}

/// A key of the map of members.
pub(super) struct Place {
    bytes: [u8; STORED_SIZE_MAX],
    size: usize,
}

impl Place {
    fn new(prefix: u64, parts: [&[u8]; 2]) -> Self {
        let mut place = Self {
            bytes: [0; STORED_SIZE_MAX],
            size: 0,
        };
        place.push(&prefix.to_be_bytes());
        for part in parts {
            place.push(part);
        }
        place
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.size..self.size + bytes.len()].copy_from_slice(bytes);
        self.size += bytes.len();
    }

    /// Where a member, field or element lies.
    pub(super) fn of(number: u64, member: &[u8]) -> Self {
        Self::new(number << 1, [member, &[]])
    }

    fn grave(chunk: u64) -> Self {
        Self::new(0, [&chunk.to_be_bytes(), &[]])
    }

    fn copied(bytes: &[u8]) -> Self {
        let mut place = Self {
            bytes: [0; STORED_SIZE_MAX],
            size: 0,
        };
        place.push(bytes);
        place
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.size]
    }
}

/// The member in a key of the map.
pub(super) fn member_of(stored: &[u8]) -> &[u8] {
    &stored[PREFIX_SIZE..]
}

/// Where the members of a collection begin, and where those of the index of scores do, which is where the former end.
pub(super) fn bounds(number: u64) -> ([u8; PREFIX_SIZE], [u8; PREFIX_SIZE]) {
    let begin = number << 1;
    (begin.to_be_bytes(), (begin + 1).to_be_bytes())
}

/// A collection that an item changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub descriptor: Descriptor,
    /// Version so far; zero if the item makes the key.
    pub version: u64,
    /// Expiry so far, which it keeps.
    expiry: u64,
    /// The expiry that the index has of the key: that of a record which is expired, too.
    indexed: u64,
    kind: ValueKind,
}

/// Looking.
impl Kv {
    /// A key's collection and its version, if it has one.
    ///
    /// # Errors
    /// It holds something else.
    pub(super) fn collection(
        &self,
        pages: &Pages,
        now: u64,
        key: &[u8],
        kind: ValueKind,
    ) -> Result<Option<(Descriptor, u64)>, Status> {
        match self.live(pages, key, now) {
            None => Ok(None),
            Some(record) if record.meta.kind == kind => {
                Ok(record.descriptor().map(|it| (it, record.meta.version)))
            }
            Some(_) => Err(Status::WrongType),
        }
    }

    /// Whether members wait to be removed.
    pub(super) fn has_buried(&self) -> bool {
        self.buried > 0
    }

    /// Answers an action that reads.
    pub(super) fn read_collection(
        &self,
        pages: &Pages,
        now: u64,
        key: &[u8],
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        let found = match self.collection(pages, now, key, action.kind()) {
            Ok(found) => found,
            Err(status) => return answer.status(status),
        };
        if let Action::Length { .. } = action {
            let count = found.map_or(0, |(descriptor, _)| descriptor.count);
            return answer.number(Status::Number, count.cast_signed());
        }
        let Some((descriptor, version)) = found else {
            return answer.status(Status::NotFound);
        };
        match *action {
            Action::Find { .. } | Action::Members { .. } | Action::Pick { .. } => {
                self.read_members(pages, &descriptor, version, action, answer);
            }
            _ if action.kind() == ValueKind::List => {
                self.read_list(pages, &descriptor, version, action, answer);
            }
            _ => self.read_sorted(pages, &descriptor, version, action, answer),
        }
    }
}

/// Changing.
impl Kv {
    /// Executes an action that changes a collection. The pages that it may need are free.
    pub(super) fn change_collection(
        &mut self,
        pages: &mut Pages,
        now: u64,
        key: &[u8],
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        let opened = match self.open(pages, now, key, action.kind()) {
            Ok(opened) => opened,
            Err(status) => return answer.status(status),
        };
        match opened.kind {
            ValueKind::List => self.change_list(pages, now, key, opened, action, answer),
            ValueKind::Sorted => self.change_sorted(pages, key, opened, action, answer),
            _ => self.change_members(pages, key, opened, action, answer),
        }
    }

    /// A key's collection, or a new one that nothing knows of yet.
    ///
    /// # Errors
    /// The key holds something else.
    fn open(&self, pages: &Pages, now: u64, key: &[u8], kind: ValueKind) -> Result<Opened, Status> {
        let record = self.record(pages, key);
        let indexed = record.map_or(0, |record| record.meta.expiry);
        let live = record.filter(|record| !record.meta.is_expired(now));
        if live.is_some_and(|record| record.meta.kind != kind) {
            return Err(Status::WrongType);
        }
        let fresh = Descriptor {
            number: self.revision + 1,
            count: 0,
            first: 0,
            reserved: 0,
        };
        let found = live.and_then(|record| Some((record.descriptor()?, record.meta)));
        Ok(Opened {
            descriptor: found.map_or(fresh, |(descriptor, _)| descriptor),
            version: found.map_or(0, |(_, meta)| meta.version),
            expiry: found.map_or(0, |(_, meta)| meta.expiry),
            indexed,
            kind,
        })
    }

    /// Writes what has become of a collection, as one change of its key.
    fn close(&mut self, pages: &mut Pages, key: &[u8], opened: &Opened) {
        self.revision += 1;
        self.close_at_revision(pages, key, opened);
    }

    /// The same as a part of the last change.
    fn close_at_revision(&mut self, pages: &mut Pages, key: &[u8], opened: &Opened) {
        if opened.descriptor.count == 0 {
            // It has no members left: there is nothing to bury.
            assert!(
                opened.version != 0,
                "a new collection is made with a member"
            );
            assert!(self.map.remove(pages, key));
            self.reindex(pages, key, opened.indexed, 0);
            self.collections -= 1;
            return;
        }
        let header = record_header(self.revision, opened.expiry, opened.kind);
        let mut record = [0; RECORD_HEADER_SIZE + size_of::<Descriptor>()];
        record[..RECORD_HEADER_SIZE].copy_from_slice(&header);
        record[RECORD_HEADER_SIZE..].copy_from_slice(opened.descriptor.as_bytes());
        if opened.version != 0 {
            self.map.write_at(pages, key, 0, &record);
            return;
        }
        self.bury_at(pages, key); // what was expired
        self.map.insert(pages, key, &[&record]);
        self.reindex(pages, key, opened.indexed, 0);
        self.collections += 1;
        let chunks = (self.collections + self.buried).div_ceil(GRAVES);
        if chunks > self.grave_chunks {
            let place = Place::grave(self.grave_chunks);
            self.members
                .insert(pages, place.bytes(), &[&[0; CHUNK_SIZE]]);
            self.grave_chunks = chunks;
        }
    }
}

/// The graves.
impl Kv {
    /// If the record of a key is a collection, its members are to be removed: the record will be gone, or another.
    pub(super) fn bury_at(&mut self, pages: &mut Pages, key: &[u8]) {
        if self.collections == 0 {
            return; // saves a look at the key
        }
        let descriptor = self
            .record(pages, key)
            .and_then(|it: Record<'_>| it.descriptor());
        let Some(Descriptor { number, .. }) = descriptor else {
            return;
        };
        let place = Place::grave(self.buried / GRAVES);
        let offset = (self.buried % GRAVES) as usize * size_of::<u64>();
        self.members
            .write_at(pages, place.bytes(), offset, &number.to_le_bytes());
        self.buried += 1;
        self.collections -= 1;
    }

    /// After everything was unhooked.
    pub(super) fn forget_collections(&mut self, pages: &mut Pages) {
        self.trash.take(pages, &mut self.members);
        (self.collections, self.buried, self.grave_chunks) = (0, 0, 0);
    }

    /// Removes members of what is buried: so many at most, or a few more pages than that. Returns the pages of values that it
    /// freed.
    pub(super) fn reap(&mut self, pages: &mut Pages, mut members: u32, wanted: u32) -> u32 {
        let mut freed = 0;
        while self.buried > 0 && members > 0 && freed < wanted {
            let number = self.last_buried(pages);
            let (begin, end) = (
                (number << 1).to_be_bytes(),
                ((number + 1) << 1).to_be_bytes(),
            );
            let range = (Bound::Included(&begin[..]), Bound::Excluded(&end[..]));
            let mut stored = self.members.range(pages, range.0, range.1, false);
            match stored.next() {
                Some((place, value)) => {
                    freed += Cost::value_pages(value.len());
                    let place = Place::copied(place);
                    assert!(self.members.remove(pages, place.bytes()));
                    members -= 1;
                }
                None => self.buried -= 1,
            }
        }
        // One more than is needed, so that one collection that comes and goes does not make a chunk come and go.
        let needed = (self.collections + self.buried).div_ceil(GRAVES);
        while members > 0 && self.grave_chunks > needed + 1 {
            members -= 1;
            self.grave_chunks -= 1;
            let place = Place::grave(self.grave_chunks);
            assert!(self.members.remove(pages, place.bytes()));
        }
        freed
    }

    fn last_buried(&self, pages: &Pages) -> u64 {
        let at = self.buried - 1;
        let place = Place::grave(at / GRAVES);
        let chunk = self.members.get(pages, place.bytes());
        let chunk = chunk.expect("there is a grave for each collection");
        let offset = (at % GRAVES) as usize * size_of::<u64>();
        let mut pieces = chunk.pieces(offset);
        let piece = pieces.next().expect("a chunk lies in one piece");
        let bytes = piece.first_chunk().expect("a grave lies in its chunk");
        u64::from_le_bytes(*bytes)
    }
}
