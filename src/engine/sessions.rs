//! The session table, in pages: who may write, what their last request was, and how it was answered.
//!
//! A record takes 256 bytes, sixteen to a page. A reply that fits into the record's tail is stored there (most do, and
//! a small write then dirties no page of its own); a longer one goes to the session's reply pages, allocated once.

use crate::engine::ReplyOf;
use crate::state_machine::Context;
use crate::table::Table;
use storage::header::Status;
use storage::layout::{Geometry, PAGE_SIZE};
use storage::pages::{PageId, Pages};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A session is evicted, when the table is full and another client registers, only after it has been idle this long
/// in replicated time, in nanoseconds.
pub const SESSION_IDLE_MIN_NS: u64 = 60_000_000_000;

/// Bytes of a reply that fit into the record.
const INLINE_SIZE: usize = 192;
const RECORDS_PER_PAGE: usize = PAGE_SIZE / size_of::<SessionRecord>();

/// A session. All zero: a free record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SessionRecord {
    /// The client's id; zero: the record is free.
    pub client: u128,
    /// The session's number.
    pub session: u64,
    /// Op of the last commit of this session.
    pub op: u64,
    /// Its time.
    pub timestamp: u64,
    /// Index of the request in that op's batch.
    pub index: u32,
    /// Number of the last request executed.
    pub request: u32,
    /// Size of its reply.
    pub reply_size: u32,
    /// Ordinal of its [`Status`].
    pub status: u16,
    /// Zero.
    pub reserved: [u8; 10],
    /// The reply, if it fits; zeros behind it.
    pub inline: [u8; INLINE_SIZE],
}

static_assertions::const_assert_eq!(size_of::<SessionRecord>(), 256);

/// How a registration ended.
pub(super) enum Register {
    /// The client had a session.
    Existing { session: u64, request: u32 },
    /// It has the offered number now.
    New,
    /// Every session is in use, and none idle for long enough.
    Full,
}

/// Where the table's pages are, and an index derived from them.
#[derive(Debug)]
pub(super) struct Sessions {
    count: usize,
    reply_pages: usize,
    records: PageId,
    replies: PageId,
    /// Client to record. Derived, and consulted by id only: it influences no execution.
    index: Table<u32>,
}

impl Sessions {
    pub(super) fn new(geometry: &Geometry) -> Self {
        let count = geometry.sessions_max as usize;
        Self {
            count,
            reply_pages: (geometry.reply_size_max as usize).div_ceil(PAGE_SIZE),
            records: PageId::ROOT,
            replies: PageId::ROOT,
            index: Table::new(count),
        }
    }

    /// Allocates the table in a new arena, where allocated pages are consecutive.
    pub(super) fn create(&mut self, pages: &mut Pages) -> (PageId, PageId) {
        self.records = allocate_run(pages, self.count.div_ceil(RECORDS_PER_PAGE));
        self.replies = allocate_run(pages, self.count * self.reply_pages);
        (self.records, self.replies)
    }

    /// Derives the index after a checkpoint was read.
    pub(super) fn reopened(&mut self, pages: &Pages, records: PageId, replies: PageId) {
        (self.records, self.replies) = (records, replies);
        self.index.clear();
        for slot in 0..self.count {
            let client = self.record_at(pages, slot).client;
            if client != 0 {
                self.index.insert(client, slot as u32);
            }
        }
    }

    pub(super) fn used(&self) -> u32 {
        self.index.len() as u32
    }

    pub(super) fn record<'a>(&self, pages: &'a Pages, client: u128) -> Option<&'a SessionRecord> {
        let slot = *self.index.get(client)?;
        let record = self.record_at(pages, slot as usize);
        assert_eq!(record.client, client);
        Some(record)
    }

    pub(super) fn stored_reply<'a>(&self, pages: &'a Pages, client: u128) -> Option<ReplyOf<'a>> {
        let slot = *self.index.get(client)? as usize;
        let record = self.record_at(pages, slot);
        let size = record.reply_size as usize;
        let body = if size <= INLINE_SIZE {
            &record.inline[..size]
        } else {
            pages.read_run(self.reply_page(slot, 0), size)
        };
        let status = Status::from_u16(record.status).expect("only known statuses are stored");
        let SessionRecord {
            session,
            op,
            timestamp,
            ..
        } = *record;
        Some(ReplyOf {
            session,
            op,
            timestamp,
            status,
            body,
        })
    }

    /// Opens a session numbered `number`, unless the client has one.
    pub(super) fn register(
        &mut self,
        pages: &mut Pages,
        context: &Context,
        index: u32,
        number: u64,
    ) -> Register {
        if let Some(&slot) = self.index.get(context.client) {
            // Op and time stay those of the last write: its stored reply names them.
            let record = self.record_at(pages, slot as usize);
            return Register::Existing {
                session: record.session,
                request: record.request,
            };
        }
        let Some(slot) = self.slot_for_new(pages, context.timestamp) else {
            return Register::Full;
        };
        let old = self.record_at(pages, slot).client;
        if old != 0 {
            self.index.remove(old);
        }
        let record = self.record_at_mut(pages, slot);
        record.as_mut_bytes().fill(0);
        record.client = context.client;
        record.session = number;
        (record.op, record.timestamp, record.index) = (context.op, context.timestamp, index);
        self.index.insert(context.client, slot as u32);
        Register::New
    }

    /// The lowest free record, else the one whose last commit is the oldest, if it has been idle for long enough.
    fn slot_for_new(&self, pages: &Pages, now: u64) -> Option<usize> {
        if !self.index.is_full() {
            return (0..self.count).find(|&slot| self.record_at(pages, slot).client == 0);
        }
        let age = |&slot: &usize| {
            let record = self.record_at(pages, slot);
            (record.op, record.index)
        };
        let oldest = (0..self.count).min_by_key(age)?;
        let idle = now.saturating_sub(self.record_at(pages, oldest).timestamp);
        (idle >= SESSION_IDLE_MIN_NS).then_some(oldest)
    }

    /// Stores the reply to a client's newest request.
    pub(super) fn store(
        &mut self,
        pages: &mut Pages,
        context: &Context,
        index: u32,
        request: u32,
        status: Status,
        reply: &[u8],
    ) {
        let found = self.index.get(context.client);
        let slot = *found.expect("only a session's request executes") as usize;
        let record = self.record_at_mut(pages, slot);
        assert!(request > record.request);
        (record.op, record.timestamp, record.index) = (context.op, context.timestamp, index);
        record.request = request;
        record.reply_size = reply.len() as u32;
        record.status = status as u16;
        record.inline.fill(0);
        if reply.len() <= INLINE_SIZE {
            record.inline[..reply.len()].copy_from_slice(reply);
            return;
        }
        for (page_index, part) in reply.chunks(PAGE_SIZE).enumerate() {
            let page = pages.write(self.reply_page(slot, page_index));
            page[..part.len()].copy_from_slice(part);
            page[part.len()..].fill(0);
        }
    }

    fn reply_page(&self, slot: usize, page_index: usize) -> PageId {
        PageId(self.replies.0 + (slot * self.reply_pages + page_index) as u32)
    }

    fn record_at<'a>(&self, pages: &'a Pages, slot: usize) -> &'a SessionRecord {
        let (page, at) = self.place(slot);
        SessionRecord::ref_from_bytes(&pages.read(page)[at..at + size_of::<SessionRecord>()])
            .expect("a record is aligned in its page")
    }

    fn record_at_mut<'a>(&self, pages: &'a mut Pages, slot: usize) -> &'a mut SessionRecord {
        let (page, at) = self.place(slot);
        SessionRecord::mut_from_bytes(&mut pages.write(page)[at..at + size_of::<SessionRecord>()])
            .expect("a record is aligned in its page")
    }

    fn place(&self, slot: usize) -> (PageId, usize) {
        assert!(slot < self.count);
        let page = PageId(self.records.0 + (slot / RECORDS_PER_PAGE) as u32);
        (page, slot % RECORDS_PER_PAGE * size_of::<SessionRecord>())
    }
}

/// Allocates `count` consecutive pages of a new arena; the first one's number.
fn allocate_run(pages: &mut Pages, count: usize) -> PageId {
    let first = pages.allocate();
    for index in 1..count as u32 {
        let page = pages.allocate();
        assert_eq!(page.0, first.0 + index, "a new arena allocates in order");
    }
    first
}
