//! A reply to items while it is written.

use super::ReplyBuffer;
use super::store::Record;
use super::wire::{
    Item, Items, MEMBERS_RESULT_SIZE, REPLY_HEADER_SIZE, ReplyHeader, Status, VALUE_RESULT_SIZE,
};
use storage::collections::ordered_map::Value;
use zerocopy::IntoBytes;

/// Writes results. What the results of later items need at least is kept for them.
pub(super) struct Answer<'a, 'b> {
    reply: &'a mut ReplyBuffer<'b>,
    reserved: usize,
}

impl<'a, 'b> Answer<'a, 'b> {
    /// None if not even what is sure to come fits.
    pub(super) fn begin(
        items: Items<'_>,
        revision: u64,
        reply: &'a mut ReplyBuffer<'b>,
    ) -> Option<Self> {
        let reserved = items.result_size();
        if reply.room() < REPLY_HEADER_SIZE + reserved {
            return None;
        }
        let count = items.count() as u32;
        reply.push(ReplyHeader::new(Status::Done, count, revision).as_bytes());
        Some(Self { reply, reserved })
    }

    /// What follows is the result of this item.
    pub(super) fn turn_to(&mut self, item: &Item<'_>) {
        self.reserved -= item.result_size();
    }

    /// The results of these items follow.
    pub(super) fn transaction(&mut self, status: Status, items: Items<'_>) {
        self.status(status);
        let count = u16::try_from(items.count()).expect("decoding has seen to it");
        self.reply.push(&count.to_le_bytes());
        self.reserved += items.result_size();
    }

    pub(super) fn status(&mut self, status: Status) {
        self.reply.push(&[status as u8]);
    }

    pub(super) fn mismatch(&mut self, version: u64) {
        self.status(Status::Mismatch);
        self.reply.push(&version.to_le_bytes());
    }

    pub(super) fn number(&mut self, status: Status, number: i64) {
        self.status(status);
        self.reply.push(&number.to_le_bytes());
    }

    pub(super) fn stat(&mut self, record: &Record<'_>) {
        self.status(Status::Stat);
        self.reply.push(&record.meta.version.to_le_bytes());
        self.reply.push(&record.meta.expiry.to_le_bytes());
        self.reply.push(&record.size_told().to_le_bytes());
        self.reply.push(&[record.meta.kind as u8]);
    }

    /// Bytes of a value, or that they do not fit; true if they do.
    pub(super) fn bytes(
        &mut self,
        status: Status,
        record: &Record<'_>,
        range: std::ops::Range<usize>,
        size_max: u32,
    ) -> bool {
        let size = range.len();
        let fits = size <= size_max as usize
            && VALUE_RESULT_SIZE + size <= self.reply.room() - self.reserved;
        self.status(if fits { status } else { Status::TooLarge });
        self.reply.push(&record.meta.version.to_le_bytes());
        self.reply.push(&(size as u32).to_le_bytes());
        if fits {
            let mut left = size;
            for piece in record.pieces(range.start) {
                let piece = &piece[..piece.len().min(left)];
                self.reply.push(piece);
                left -= piece.len();
                if left == 0 {
                    break;
                }
            }
        }
        fits
    }

    /// A whole value, or that it does not fit; true if it does.
    pub(super) fn value(&mut self, status: Status, record: &Record<'_>, size_max: u32) -> bool {
        self.bytes(status, record, 0..record.meta.size, size_max)
    }
}

/// Of collections.
impl<'b> Answer<'_, 'b> {
    /// A member's value, which is where it lies, or that it does not fit; true if it does.
    pub(super) fn stored(
        &mut self,
        status: Status,
        version: u64,
        stored: Value<'_>,
        size_max: u32,
    ) -> bool {
        let size = stored.len();
        let fits = size <= size_max as usize
            && VALUE_RESULT_SIZE + size <= self.reply.room() - self.reserved;
        self.status(if fits { status } else { Status::TooLarge });
        self.reply.push(&version.to_le_bytes());
        self.reply.push(&(size as u32).to_le_bytes());
        if fits {
            for piece in stored.pieces(0) {
                self.reply.push(piece);
            }
        }
        fits
    }

    /// A short value made of parts; the item's result has room for it.
    pub(super) fn parts(&mut self, status: Status, version: u64, parts: &[&[u8]]) {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        self.status(status);
        self.reply.push(&version.to_le_bytes());
        self.reply.push(&(size as u32).to_le_bytes());
        for part in parts {
            self.reply.push(part);
        }
    }

    /// That something would be too large to be done at once: how large.
    pub(super) fn too_large(&mut self, version: u64, size: u64) {
        self.status(Status::TooLarge);
        self.reply.push(&version.to_le_bytes());
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.reply.push(&size.to_le_bytes());
    }

    /// Most bytes of members that a result may have, each with its size.
    pub(super) fn room_for_members(&self, size_max: u32) -> usize {
        let room = self.reply.room() - self.reserved - MEMBERS_RESULT_SIZE;
        room.min(size_max as usize)
    }

    /// Members of a key of this version, which [`Members`] writes.
    pub(super) fn members(&mut self, version: u64, size_max: u32) -> Members<'_, 'b> {
        self.members_of(Status::Members, version, size_max)
    }

    /// The same, with what became of them.
    pub(super) fn members_of(
        &mut self,
        status: Status,
        version: u64,
        size_max: u32,
    ) -> Members<'_, 'b> {
        let room = self.room_for_members(size_max);
        let begin = self.reply.size();
        self.status(status);
        self.reply.push(&version.to_le_bytes());
        self.reply.push(&[0; 5]);
        Members {
            room,
            reply: self.reply,
            begin,
            count: 0,
        }
    }
}

/// A result with members while it is written.
pub(super) struct Members<'a, 'b> {
    reply: &'a mut ReplyBuffer<'b>,
    begin: usize,
    room: usize,
    count: u32,
}

impl Members<'_, '_> {
    /// Adds a member, with a value behind it if there is one; false if there is no room for both: then it is the end.
    pub(super) fn push(&mut self, member: &[u8], value: Option<Value<'_>>) -> bool {
        let prefix = size_of::<u32>();
        let size = prefix + member.len() + value.map_or(0, |value| prefix + value.len());
        if size > self.room {
            self.set_more();
            return false;
        }
        self.room -= size;
        self.reply.push(&(member.len() as u32).to_le_bytes());
        self.reply.push(member);
        self.count += 1;
        if let Some(value) = value {
            self.push_stored(value);
        }
        self.set_count();
        true
    }

    /// Adds two byte strings, the same.
    pub(super) fn push_pair(&mut self, member: &[u8], value: &[u8]) -> bool {
        let prefix = size_of::<u32>();
        let size = 2 * prefix + member.len() + value.len();
        if size > self.room {
            self.set_more();
            return false;
        }
        self.room -= size;
        for string in [member, value] {
            self.reply.push(&(string.len() as u32).to_le_bytes());
            self.reply.push(string);
            self.count += 1;
        }
        self.set_count();
        true
    }

    /// Adds an element, the same.
    pub(super) fn push_element(&mut self, element: Value<'_>) -> bool {
        let size = size_of::<u32>() + element.len();
        if size > self.room {
            self.set_more();
            return false;
        }
        self.room -= size;
        self.push_stored(element);
        self.set_count();
        true
    }

    fn push_stored(&mut self, stored: Value<'_>) {
        self.reply.push(&(stored.len() as u32).to_le_bytes());
        for piece in stored.pieces(0) {
            self.reply.push(piece);
        }
        self.count += 1;
    }

    fn set_count(&mut self) {
        let at = self.begin + 9;
        let count = self.count.to_le_bytes();
        self.reply.written()[at..at + count.len()].copy_from_slice(&count);
    }

    /// There are more behind those that were added.
    pub(super) fn set_more(&mut self) {
        self.reply.written()[self.begin + MEMBERS_RESULT_SIZE - 1] = 1;
    }
}
