//! Executes what is committed: sessions, at-most-once, and the state machines, all in pages.
//!
//! Invariants:
//! * A request executes at most once. This is decided here, at execution, by every replica alike, from the replicated
//!   session table: a number above the session's last executes, the last returns its stored reply, a lower one or an
//!   unknown session executes nothing (schedules 2 and 3 of the design's list).
//! * What a request may need was bounded by its plan; a request whose pages are not free executes nothing.
//! * Nothing of a replica or a view enters a page.
//!
//! Page 0 holds the engine's own record; the session table and the machines' root pages are allocated once, at creation.

mod sessions;

pub use sessions::{SESSION_IDLE_MIN_NS, SessionRecord};

use crate::machines::{Call, MACHINES_MAX, Machines};
use crate::rules::{Rules, Strict};
use crate::state_machine::{Context, Limits, Plan, ReplyBuffer};
use sessions::{Register, Sessions};
use std::marker::PhantomData;
use storage::checksum::PageKey;
use storage::header::{Status, SubRequest};
use storage::layout::{Geometry, PAGE_SIZE};
use storage::pages::{PageId, Pages};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Operations of machine 0, the replica itself.
pub mod operation {
    /// Opens a session, or gives back the one that the client has. No body.
    pub const REGISTER: u16 = 1;
    /// Runs what machines have due. Made by the primary only. No body.
    pub const PULSE: u16 = 2;
    /// Does nothing.
    pub const NOOP: u16 = 3;
    /// The first op of a cluster: carries the key of the page tags. Made by the primary only.
    pub const BEGIN: u16 = 4;
}

/// The body of a register's reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegisterReply {
    /// The client's session.
    pub session: u64,
    /// The last request executed in it; zero for a new one.
    pub request: u32,
    /// Zero.
    pub reserved: u32,
}

/// The engine's own record, at the start of page 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Root {
    page_key: [u8; 16],
    session_last: u64,
    sessions: PageId,
    replies: PageId,
    machines: [PageId; MACHINES_MAX],
}

/// How a committed request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Executed<'a> {
    /// Executed now, or before: this is its reply.
    Reply(ReplyOf<'a>),
    /// The session does not exist.
    Evicted,
    /// An old request number: nothing is answered.
    Stale,
    /// A request of the replica itself.
    Internal,
}

/// A reply, as the session table keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyOf<'a> {
    /// The session.
    pub session: u64,
    /// The op that executed the request.
    pub op: u64,
    /// Its time.
    pub timestamp: u64,
    /// How it ended.
    pub status: Status,
    /// The answer.
    pub body: &'a [u8],
}

/// Pages, sessions and machines of a replica.
pub struct Engine<M, R = Strict> {
    pages: Pages,
    sessions: Sessions,
    limits: Limits,
    /// Where an answer is written before it is stored.
    scratch: Box<[u8]>,
    pages_touched_max: u32,
    machines: PhantomData<(M, R)>,
}

/// Pages that the engine itself may change for a request: root, session record, allocator; and those of the reply.
fn pages_of_engine(geometry: &Geometry) -> u32 {
    3 + (geometry.reply_size_max as usize).div_ceil(PAGE_SIZE) as u32
}

impl<M: Machines, R: Rules> Engine<M, R> {
    /// The state before the first op.
    pub fn new(geometry: &Geometry) -> Self {
        let spares = geometry.spare_count() + pages_of_engine(geometry);
        let mut engine = Self {
            pages: Pages::new(geometry.page_count(), spares),
            sessions: Sessions::new(geometry),
            limits: Limits::new(geometry),
            scratch: vec![0; geometry.reply_size_max as usize].into_boxed_slice(),
            pages_touched_max: geometry.pages_touched_max(),
            machines: PhantomData,
        };
        engine.create();
        engine
    }

    fn create(&mut self) {
        let (sessions, replies) = self.sessions.create(&mut self.pages);
        let mut machines = [PageId::ROOT; MACHINES_MAX];
        M::create(&mut self.pages, &self.limits, &mut machines);
        let root = Root {
            page_key: [0; 16],
            session_last: 0,
            sessions,
            replies,
            machines,
        };
        self.pages.write(PageId::ROOT)[..size_of::<Root>()].copy_from_slice(root.as_bytes());
    }

    fn root(&self) -> Root {
        Root::read_from_bytes(&self.pages.read(PageId::ROOT)[..size_of::<Root>()])
            .expect("the slice has the record's size")
    }

    /// The pages, for the checkpoint.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// The pages, for the checkpoint.
    pub fn pages_mut(&mut self) -> &mut Pages {
        &mut self.pages
    }

    /// Replaces the pages by those that a checkpoint is to be read into; [`Self::reopened`] follows.
    pub fn reopened(&mut self) {
        let root = self.root();
        self.sessions
            .reopened(&self.pages, root.sessions, root.replies);
    }

    /// The key of the page tags; none before the first op.
    pub fn page_key(&self) -> Option<PageKey> {
        let key = self.root().page_key;
        (key != [0; 16]).then_some(PageKey(key))
    }

    /// Sessions in use.
    pub fn sessions_used(&self) -> u32 {
        self.sessions.used()
    }

    /// Limits of requests and replies.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Checks and plans a request of a client; none if no machine has its operation.
    pub fn validate(
        &self,
        operation: u16,
        body: &[u8],
    ) -> Option<Result<Plan, crate::state_machine::Invalid>> {
        if operation == operation::REGISTER {
            let plan = Plan {
                reply_size: size_of::<RegisterReply>(),
                pages_touched: 3,
                ..Plan::default()
            };
            return Some(if body.is_empty() {
                Ok(plan)
            } else {
                Err(crate::state_machine::Invalid)
            });
        }
        let checked = M::validate(&self.limits, operation, body)?;
        Some(checked.and_then(|plan| {
            if self.allows(&plan) {
                Ok(plan)
            } else {
                Err(crate::state_machine::Invalid)
            }
        }))
    }

    fn allows(&self, plan: &Plan) -> bool {
        let reply_max = if plan.read_only {
            self.limits.read_reply_size_max
        } else {
            self.limits.reply_size_max
        };
        plan.reply_size <= reply_max && plan.pages_touched <= self.pages_touched_max
    }

    /// Whether enough spare pages are free for any request while a checkpoint is being written.
    pub fn has_spares_for(&self, request: SubRequest<'_>) -> bool {
        if self.pages.frozen_count() == 0 {
            return true;
        }
        let touched = match self.validate(request.header.operation, request.body) {
            Some(Ok(plan)) => plan.pages_touched,
            None if request.header.operation == operation::PULSE => self.pages_touched_max,
            Some(Err(_)) | None => 0,
        };
        self.pages.spares_free() >= touched + self.pages_of_engine()
    }

    /// Spare pages that the largest request needs.
    pub fn spares_wanted(&self) -> u32 {
        self.pages_touched_max + self.pages_of_engine()
    }

    fn pages_of_engine(&self) -> u32 {
        3 + self.scratch.len().div_ceil(PAGE_SIZE) as u32
    }

    /// The committed session of a client, if it has one.
    pub fn session(&self, client: u128) -> Option<SessionRecord> {
        self.sessions.record(&self.pages, client).copied()
    }

    /// The stored reply to the last request of a client's session.
    pub fn stored_reply(&self, client: u128) -> Option<ReplyOf<'_>> {
        self.sessions.stored_reply(&self.pages, client)
    }

    /// Executes request `index` of a committed op.
    pub fn commit(
        &mut self,
        op: u64,
        index: u32,
        timestamp: u64,
        request: SubRequest<'_>,
    ) -> Executed<'_> {
        let header = request.header;
        let context = Context {
            op,
            timestamp,
            client: header.client,
        };
        match header.operation {
            operation::REGISTER => self.register(&context, index),
            operation::PULSE if header.client == 0 => {
                let roots = self.root().machines;
                M::pulse(&mut self.pages, &roots, &context);
                Executed::Internal
            }
            operation::NOOP if header.client == 0 => Executed::Internal,
            operation::BEGIN if header.client == 0 => {
                self.begin(request.body);
                Executed::Internal
            }
            _ if header.client == 0 => Executed::Internal,
            _ => self.commit_machine(&context, index, request),
        }
    }

    fn begin(&mut self, key: &[u8]) {
        let Ok(page_key) = <[u8; 16]>::try_from(key) else {
            return;
        };
        let mut root = self.root();
        if root.page_key == [0; 16] {
            root.page_key = page_key;
            self.pages.write(PageId::ROOT)[..size_of::<Root>()].copy_from_slice(root.as_bytes());
        }
    }

    fn register(&mut self, context: &Context, index: u32) -> Executed<'_> {
        if context.client == 0 {
            return Executed::Internal;
        }
        let mut root = self.root();
        let reply = |session, status, body| {
            Executed::Reply(ReplyOf {
                session,
                op: context.op,
                timestamp: context.timestamp,
                status,
                body,
            })
        };
        let (session, request) =
            match self
                .sessions
                .register(&mut self.pages, context, index, root.session_last + 1)
            {
                Register::Existing { session, request } => (session, request),
                Register::New => {
                    root.session_last += 1;
                    self.pages.write(PageId::ROOT)[..size_of::<Root>()]
                        .copy_from_slice(root.as_bytes());
                    (root.session_last, 0)
                }
                Register::Full => return reply(0, Status::SessionsFull, &[]),
            };
        let body = RegisterReply {
            session,
            request,
            reserved: 0,
        };
        self.scratch[..size_of::<RegisterReply>()].copy_from_slice(body.as_bytes());
        reply(
            session,
            Status::Ok,
            &self.scratch[..size_of::<RegisterReply>()],
        )
    }

    fn commit_machine(
        &mut self,
        context: &Context,
        index: u32,
        request: SubRequest<'_>,
    ) -> Executed<'_> {
        let header = request.header;
        let Some(session) = self.sessions.record(&self.pages, header.client) else {
            return Executed::Evicted;
        };
        if session.session != header.session {
            return Executed::Evicted;
        }
        if header.request < session.request || header.request == 0 {
            return Executed::Stale;
        }
        if header.request > session.request || !R::EXECUTE_ONCE {
            let (status, size) = self.execute(context, request);
            let reply = &self.scratch[..size];
            self.sessions.store(
                &mut self.pages,
                context,
                index,
                header.request,
                status,
                reply,
            );
        }
        let stored = self.sessions.stored_reply(&self.pages, header.client);
        Executed::Reply(stored.expect("the session was found above"))
    }

    fn execute(&mut self, context: &Context, request: SubRequest<'_>) -> (Status, usize) {
        let operation = request.header.operation;
        let plan = match M::validate(&self.limits, operation, request.body) {
            Some(Ok(plan)) if self.allows(&plan) && !plan.read_only => plan,
            _ => return (Status::NotUnderstood, 0),
        };
        if self.pages.free_count() < plan.pages_new && !M::checks_space(operation) {
            return (Status::OutOfSpace, 0);
        }
        let free_before = self.pages.free_count();
        let mut reply = ReplyBuffer::new(&mut self.scratch[..plan.reply_size]);
        let roots = {
            let root = Root::read_from_bytes(&self.pages.read(PageId::ROOT)[..size_of::<Root>()]);
            root.expect("the slice has the record's size").machines
        };
        let call = Call {
            operation,
            context: *context,
            body: request.body,
        };
        M::commit(&mut self.pages, &roots, call, &mut reply);
        let size = reply.size();
        let free_after = self.pages.free_count();
        assert!(
            free_after + plan.pages_new >= free_before,
            "a plan of {} pages was exceeded",
            plan.pages_new
        );
        (Status::Ok, size)
    }

    /// Answers a read from committed state; returns the size of the answer.
    pub fn read(&self, context: &Context, request: SubRequest<'_>, reply: &mut [u8]) -> usize {
        let mut reply = ReplyBuffer::new(reply);
        let call = Call {
            operation: request.header.operation,
            context: *context,
            body: request.body,
        };
        M::read(&self.pages, &self.root().machines, call, &mut reply);
        reply.size()
    }

    /// When the next pulse is due, in replicated time.
    pub fn deadline_ns(&self) -> Option<u64> {
        M::deadline_ns(&self.pages, &self.root().machines)
    }
}

#[cfg(test)]
mod tests;
