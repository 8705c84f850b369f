//! A reply to items while it is written.

use super::ReplyBuffer;
use super::store::Record;
use super::wire::{Item, Items, REPLY_HEADER_SIZE, ReplyHeader, Status, VALUE_RESULT_SIZE};
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
        self.reply.push(&(record.meta.size as u32).to_le_bytes());
        self.reply.push(&[record.meta.kind]);
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
