//! The ring of redundant headers: an image in memory, written a sector at a time, several headers at once.

use super::{Journal, Purpose, Rules};
use crate::header::{HEADER_SIZE, Prepare};
use crate::io::{Buffer, IoQueue, IoRequest};
use crate::layout::HEADERS_PER_SECTOR;
use crate::{SECTOR_SIZE, bits::Bits};
use zerocopy::IntoBytes;

impl<R: Rules> Journal<R> {
    /// Starts writing every redundant header that waits, as far as there is room, and hands out what a newer
    /// checkpoint made durable: to be called when idle, on a tick, before a planned stop.
    pub fn flush(&mut self, io: &mut IoQueue) {
        assert!(self.opening.is_none());
        self.advance(io);
        self.write_headers(io);
    }

    /// Starts writing every redundant header that waits, as far as there is room.
    pub(super) fn write_headers(&mut self, io: &mut IoQueue) {
        let mut from = 0;
        while let Some(slot) = self.dirty.next_set(from) {
            self.write_headers_of(slot, io);
            from = (slot / HEADERS_PER_SECTOR + 1) * HEADERS_PER_SECTOR;
        }
    }

    /// Once a pipeline of headers waits, writes the sector of the oldest, and that only: in a row of prepares the
    /// writes so fall in step with the sectors, each of which is then written no more often than it must be.
    pub(super) fn write_headers_that_lag(&mut self, io: &mut IoQueue) {
        while self.dirty.count() >= self.layout.geometry.pipeline_max as usize {
            let mut oldest = self.dirty.next_set(0).expect("some wait");
            let mut from = oldest;
            while let Some(slot) = self.dirty.next_set(from) {
                if self.redundant[slot].op < self.redundant[oldest].op {
                    oldest = slot;
                }
                from = slot + 1;
            }
            let waiting = self.dirty.count();
            self.write_headers_of(oldest, io);
            if self.dirty.count() == waiting {
                return; // its last write is still in flight
            }
        }
    }

    /// Whether every redundant header is durable.
    pub fn is_flushed(&self) -> bool {
        self.dirty.is_empty() && self.landing.is_empty()
    }

    /// Puts a durable prepare's header into the ring.
    pub(super) fn set_redundant(&mut self, slot: usize, header: &Prepare) {
        if self.redundant[slot].frame.checksum != header.frame.checksum {
            self.redundant[slot] = *header;
            self.dirty.insert(slot);
        }
    }

    /// Whether what the ring holds of a slot, or may hold if power is cut now, is of an earlier wrap or reserved: then
    /// one write of a prepare tells all by itself.
    pub(super) fn redundant_is_of_earlier_wrap(&self, slot: usize, op: u64) -> bool {
        let header = &self.redundant[slot];
        let valid = header.frame.checksum != 0;
        valid && (header.is_reserved() || header.op < op || !R::REPLACEMENT_AWAITS_HEADER)
    }

    /// Whether the ring durably holds the header of the log's prepare in `slot`.
    pub(super) fn header_is_durable(&self, slot: usize) -> bool {
        self.redundant[slot].frame.checksum == self.slots[slot].identity
            && !self.dirty.contains(slot)
            && !self.landing.contains(slot)
    }

    /// Writes the sector with the slot's redundant header, unless it is clean, or its last write is still in flight,
    /// or too many are: it will be asked for again when one completes.
    pub(super) fn write_headers_of(&mut self, slot: usize, io: &mut IoQueue) {
        let sector = slot / HEADERS_PER_SECTOR;
        if !self.dirty.contains(slot) || self.sectors_busy.contains(sector) {
            return;
        }
        let Some(mut buffer) = self.sector_buffers.pop() else {
            return;
        };
        buffer.fill(0);
        for slot in slots_of(sector, &self.dirty) {
            let at = slot % HEADERS_PER_SECTOR * HEADER_SIZE;
            buffer[at..at + HEADER_SIZE].copy_from_slice(self.redundant[slot].as_bytes());
            if self.dirty.remove(slot) {
                assert!(self.landing.insert(slot));
            }
        }
        self.sectors_busy.insert(sector);
        let id = self.in_flight.begin(Purpose::Headers { sector });
        io.push(IoRequest::Write {
            id,
            at: self.layout.header_sector_at(sector * HEADERS_PER_SECTOR),
            size: SECTOR_SIZE,
            buffer: Buffer::Sectors(buffer),
            durable: R::FLUSH,
        });
    }

    pub(super) fn on_headers_written(&mut self, sector: usize, buffer: Buffer) {
        let Buffer::Sectors(buffer) = buffer else {
            unreachable!("headers are written from a sector")
        };
        self.sector_buffers.push(buffer);
        assert!(self.sectors_busy.remove(sector));
        for slot in slots_of(sector, &self.dirty) {
            self.landing.remove(slot);
        }
    }
}

fn slots_of(sector: usize, slots: &Bits) -> std::ops::Range<usize> {
    let first = sector * HEADERS_PER_SECTOR;
    first..(first + HEADERS_PER_SECTOR).min(slots.capacity())
}
