//! What a state machine is: deterministic operations over pages.
//!
//! A machine *is* its root record: a plain value that the engine keeps in a page, so it can hold no state that is not
//! replicated. Everything else it keeps in collections over [`Pages`] whose handles are plain values inside the record.
//! It manages no files, no snapshots and no serialisation of its state, and it never sees a clock or a source of
//! randomness: time and order come with [`Context`].
//!
//! ```
//! use viewstone::client::operation;
//! use viewstone::state_machine::{Context, Invalid, Limits, Pages, Plan, ReplyBuffer, StateMachine};
//! use viewstone::storage::collections::ordered_map::OrderedMap;
//! use viewstone::testing::Cluster;
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! /// Names, and when each was seen last. Operation 1 sees a name; 2, a read, tells the time.
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
//! #[repr(C)]
//! struct LastSeen {
//!     names: OrderedMap,
//! }
//!
//! impl StateMachine for LastSeen {
//!     const NAME: &'static str = "last_seen";
//!
//!     fn create(_: &mut Pages) -> Self {
//!         Self { names: OrderedMap::new() }
//!     }
//!
//!     fn validate(limits: &Limits, operation: u8, body: &[u8]) -> Result<Plan, Invalid> {
//!         match operation {
//!             1 if body.len() <= 100 => Ok(limits.map_plan(1, 0, 8)),
//!             2 => Ok(Plan { read_only: true, reply_size: 8, ..Plan::default() }),
//!             _ => Err(Invalid),
//!         }
//!     }
//!
//!     fn read(&self, pages: &Pages, _: &Context, _: u8, body: &[u8], reply: &mut ReplyBuffer<'_>) {
//!         if let Some(time) = self.names.get(pages, body) {
//!             time.pieces(0).for_each(|piece| reply.push(piece));
//!         }
//!     }
//!
//!     fn commit(
//!         &mut self,
//!         pages: &mut Pages,
//!         context: &Context,
//!         _: u8,
//!         body: &[u8],
//!         _: &mut ReplyBuffer<'_>,
//!     ) {
//!         // The cluster's time, the same on all replicas; a clock would not be.
//!         self.names.insert(pages, body, &[&context.timestamp.to_le_bytes()]);
//!     }
//! }
//!
//! let cluster = Cluster::<(LastSeen,)>::start(3)?;
//! let client = cluster.client()?;
//! let seen = client.write(operation(1, 1), b"ada")?;
//! let found = client.read(operation(1, 2), b"ada")?;
//! assert_eq!(found.body, seen.timestamp.to_le_bytes());
//! assert!(client.read(operation(1, 2), b"bob")?.body.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! (The derives come from the crate `zerocopy`, version 0.8, with its feature `derive`.) `docs/state-machines.md` says
//! what follows from all this for the author of a machine; `examples/own_service.rs` is a larger one with a typed
//! client; [`crate::server::hosting`] runs it in production.

pub mod kv;

use storage::collections::ordered_map::Cost;
use storage::header::{HEADER_SIZE, SUB_HEADER_SIZE};
use storage::layout::{Geometry, PAGE_SIZE};
pub use storage::pages::{PageId, Pages};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Largest root record of a machine, in bytes.
pub const ROOT_RECORD_SIZE_MAX: usize = 1024;

/// Sizes that a machine may have to respect; equal on all replicas of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest request, in bytes without headers.
    pub request_size_max: usize,
    /// Largest reply to a write, in bytes.
    pub reply_size_max: usize,
    /// Largest reply to a read, in bytes.
    pub read_reply_size_max: usize,
    /// Pages of state, used or free.
    pub page_count: u32,
    /// Largest [`Plan::pages_touched`].
    pub pages_touched_max: u32,
}

impl Limits {
    /// What a geometry allows: a request or reply fills a message, headers apart.
    pub fn new(geometry: &Geometry) -> Self {
        let body_size_max = geometry.message_size_max as usize - HEADER_SIZE - SUB_HEADER_SIZE;
        Self {
            request_size_max: body_size_max,
            reply_size_max: geometry.reply_size_max as usize,
            read_reply_size_max: body_size_max,
            page_count: geometry.page_count(),
            pages_touched_max: geometry.pages_touched_max(),
        }
    }

    /// The plan of a write that makes so many inserts, of values of at most so many bytes each, and so many removes in
    /// one [`OrderedMap`]. What it answers is for the machine to say.
    ///
    /// ```
    /// # use viewstone::state_machine::{Limits, Plan};
    /// # let limits = Limits::new(&viewstone::storage::layout::Geometry::DEFAULT);
    /// let plan = Plan { reply_size: 8, ..limits.map_plan(1, 0, 100) };
    /// assert!(!plan.read_only && plan.pages_new > 0);
    /// assert_eq!(limits.map_plan(0, 1, 0).pages_new, 0); // a remove needs nothing
    /// ```
    ///
    /// [`OrderedMap`]: storage::collections::ordered_map::OrderedMap
    pub fn map_plan(&self, inserts: u32, removes: u32, value_size_max: usize) -> Plan {
        let cost = Cost::new(self.page_count);
        let changes = inserts.saturating_add(removes);
        let value_pages = inserts.saturating_mul(Cost::value_pages(value_size_max));
        let bitmap_pages = self.page_count.div_ceil(PAGE_SIZE as u32 * 8);
        let nodes_touched = cost.nodes_touched_max(changes) + bitmap_pages;
        Plan {
            pages_new: cost.nodes_new_max(inserts).saturating_add(value_pages),
            pages_touched: nodes_touched.saturating_add(value_pages),
            ..Plan::default()
        }
    }
}

/// What a request may need, at most. Computed on the primary before the request enters the log, and again by every
/// replica before it executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// The request changes nothing: it is answered without the log.
    pub read_only: bool,
    /// Most bytes of the reply. Of a write at most [`Limits::reply_size_max`].
    pub reply_size: usize,
    /// Most pages the request may allocate beyond those it frees first. If fewer are free, it is answered "out of
    /// space" and nothing of it is executed (but see [`StateMachine::CHECKS_SPACE`]). Deletes plan none.
    pub pages_new: u32,
    /// Most pages the request may change, new ones and the allocator's bitmap included, pages it frees (nobody needs
    /// their content again) and the root record's excluded; at most [`Geometry::pages_touched_max`].
    ///
    /// [`Geometry::pages_touched_max`]: storage::layout::Geometry::pages_touched_max
    pub pages_touched: u32,
}

/// A request that cannot be executed: it is answered and never logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid request")]
pub struct Invalid;

/// What an execution may know of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// The op; of a read, the last committed one.
    pub op: u64,
    /// Replicated time in nanoseconds since 1970: of a write its own, strictly increasing; of a read that of the last
    /// commit.
    pub timestamp: u64,
    /// The calling client's id.
    pub client: u128,
}

/// Where an answer is written. Bounded by what the plan said.
#[derive(Debug)]
pub struct ReplyBuffer<'a> {
    bytes: &'a mut [u8],
    size: usize,
}

impl<'a> ReplyBuffer<'a> {
    /// An empty answer that may grow to `bytes.len()`.
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, size: 0 }
    }

    /// Appends. The plan made sure that it fits.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.size..self.size + bytes.len()].copy_from_slice(bytes);
        self.size += bytes.len();
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.size
    }

    /// What was written so far.
    pub fn written(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.size]
    }

    /// Bytes written so far.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// A deterministic state machine whose state is in pages.
///
/// `commit` is total: it gets whatever is in the log, also what another release's `validate` let in, and must answer
/// it alike on every replica. It does no I/O, allocates nothing outside of pages and asks nobody for the time.
pub trait StateMachine:
    FromBytes + IntoBytes + Immutable + KnownLayout + Copy + std::fmt::Debug + 'static
{
    /// Name for people: `kv`, `ledger`.
    const NAME: &'static str;

    /// Whether the machine itself looks, while it executes, whether enough pages are free for what it does next, and
    /// answers that they are not in its reply. Else a request whose plan needs more pages than are free is not
    /// executed.
    const CHECKS_SPACE: bool = false;

    /// The machine as it is before the first op.
    fn create(pages: &mut Pages) -> Self;

    /// As [`Self::create`], for a machine whose execution must know the limits: it keeps what it needs of them.
    fn create_within(pages: &mut Pages, limits: &Limits) -> Self {
        let _ = limits;
        Self::create(pages)
    }

    /// Checks a request and bounds what it may need. Pure: it must not depend on the state.
    ///
    /// # Errors
    /// The request is malformed, or larger than the limits allow.
    fn validate(limits: &Limits, operation: u8, body: &[u8]) -> Result<Plan, Invalid>;

    /// Answers a read-only request from committed state.
    fn read(
        &self,
        pages: &Pages,
        context: &Context,
        operation: u8,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    );

    /// Executes a request that passed `validate` with a plan that is not read-only.
    fn commit(
        &mut self,
        pages: &mut Pages,
        context: &Context,
        operation: u8,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    );

    /// When [`Self::pulse`] wants to run, in replicated time; none if there is nothing to do.
    fn deadline_ns(&self, pages: &Pages) -> Option<u64> {
        let _ = pages;
        None
    }

    /// Does a bounded amount of work that is due at `context.timestamp`. It must come nearer to a deadline that lies
    /// after it: until then pulse follows pulse, and reads wait.
    fn pulse(&mut self, pages: &mut Pages, context: &Context) {
        let _ = (pages, context);
    }
}
