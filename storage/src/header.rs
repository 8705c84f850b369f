//! The 256-byte header: wire form, journal form and redundant-journal form are the same bytes.
//!
//! A header is a 64-byte [`Frame`] common to all commands and a typed area of 192 bytes. Each typed header
//! ([`Prepare`], [`Commit`], ...) is the whole 256 bytes; [`Header::typed`] is a cast, never a copy. There is no
//! padding anywhere (the zerocopy derives refuse it), integers are little-endian, reserved bytes are zero.
//!
//! `checksum` covers header bytes 16..256, `checksum_body` included: a header alone can be trusted, and its checksum
//! is the identity of the whole message. From outside, bytes are checked in this order before anything is used:
//! sum, cluster, size, reserved bytes, then the command's own rules ([`Header::check`]).

use crate::checksum;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref};

/// Size of every header, in bytes.
pub const HEADER_SIZE: usize = 256;

/// Size of the sub-header of each request in a batch, in bytes.
pub const SUB_HEADER_SIZE: usize = 48;

/// Bodies of requests in a batch are padded with zeros to this many bytes.
pub const REQUEST_ALIGN: usize = 16;

/// Version of the protocol; a peer with another one is refused.
pub const PROTOCOL: u16 = 1;

/// Release of this build. All replicas of a cluster run one release for now.
pub const RELEASE: u32 = 1;

/// What a message is. Ordinals are part of the format and never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Command {
    /// A client's call.
    Request = 1,
    /// A batch of requests with its place in the log.
    Prepare = 2,
    /// "This prepare is durable here."
    PrepareOk = 3,
    /// Heartbeat: what is committed, and the number of a read round.
    Commit = 4,
    /// Answers a commit's round.
    CommitOk = 5,
    /// The result of a request.
    Reply = 6,
    /// "I want to leave this view."
    StartViewChange = 7,
    /// A vote for a view: what the author's log may hold.
    DoViewChange = 8,
    /// The log with which a view begins.
    StartView = 9,
    /// Asks for it.
    RequestStartView = 10,
    /// First message of a connection between replicas, and clock sample.
    Ping = 11,
    /// Answers a ping.
    Pong = 12,
    /// First message of a client's connection; asks for the state of a replica.
    PingClient = 13,
    /// Answers it.
    PongClient = 14,
    /// Asks for the headers of a range of ops.
    RequestHeaders = 15,
    /// Headers, highest op first.
    Headers = 16,
    /// Asks for one prepare.
    RequestPrepare = 17,
    /// Asks for pages of a checkpoint, or for what names one.
    RequestPages = 18,
    /// Pages of a checkpoint, or what names one.
    Page = 19,
    /// "You have no session here."
    Eviction = 20,
    /// "This request was not taken", and why.
    Rejected = 21,
    /// "I do not have this prepare": answers a request_prepare.
    NoPrepare = 22,
}

impl Command {
    /// All commands, in order of their ordinals.
    pub const ALL: [Self; 22] = [
        Self::Request,
        Self::Prepare,
        Self::PrepareOk,
        Self::Commit,
        Self::CommitOk,
        Self::Reply,
        Self::StartViewChange,
        Self::DoViewChange,
        Self::StartView,
        Self::RequestStartView,
        Self::Ping,
        Self::Pong,
        Self::PingClient,
        Self::PongClient,
        Self::RequestHeaders,
        Self::Headers,
        Self::RequestPrepare,
        Self::RequestPages,
        Self::Page,
        Self::Eviction,
        Self::Rejected,
        Self::NoPrepare,
    ];

    /// The command with this ordinal.
    pub fn from_u8(ordinal: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|&command| command as u8 == ordinal)
    }
}

/// Why bytes from outside are not a header that may be used. In the order of the checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Invalid {
    /// The header's own sum does not hold.
    #[error("the header's checksum does not match its bytes")]
    Checksum,
    /// Sent by or to another cluster.
    #[error("the message belongs to another cluster")]
    Cluster,
    /// Size below the header's or above the geometry's message size.
    #[error("the message's size is out of bounds")]
    Size,
    /// Another protocol version.
    #[error("the message speaks another protocol version")]
    Protocol,
    /// A reserved byte is not zero.
    #[error("a reserved byte is not zero")]
    Reserved,
    /// No such command.
    #[error("the command is unknown")]
    Command,
    /// A rule of the command is broken.
    #[error("{0}")]
    Rule(&'static str),
    /// The body's sum does not hold.
    #[error("the body's checksum does not match its bytes")]
    Body,
}

/// The first 64 bytes of every header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Frame {
    /// AEGIS-128L tag of header bytes 16..256: the message's identity.
    pub checksum: u128,
    /// The cluster's random id.
    pub cluster: u128,
    /// Header and body, in bytes.
    pub size: u32,
    /// CRC32C of bytes 256..size.
    pub checksum_body: u32,
    /// Configuration of the cluster; zero until there is reconfiguration.
    pub epoch: u32,
    /// The author's durable view (of a prepare: the view it was first prepared in).
    pub view: u32,
    /// The author's release.
    pub release: u32,
    /// [`PROTOCOL`].
    pub protocol: u16,
    /// Ordinal of a [`Command`].
    pub command: u8,
    /// Index of the replica that made the message (not of one that relays it); zero where a client made it.
    pub replica: u8,
    /// Zero.
    pub reserved: [u8; 8],
}

/// Any header: the frame, and an area that [`Header::typed`] gives its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// The common part.
    pub frame: Frame,
    /// The command's own part.
    pub area: [u8; 192],
}

static_assertions::const_assert_eq!(size_of::<Frame>(), 64);
static_assertions::const_assert_eq!(size_of::<Header>(), HEADER_SIZE);
static_assertions::const_assert_eq!(align_of::<Header>(), 16);

/// A header with the area of one command.
pub trait Typed: FromBytes + IntoBytes + Immutable + KnownLayout + Copy {
    /// The command whose area this is.
    const COMMAND: Command;

    /// A header whose size is that of a bodiless message; its area is zero, its sums are not set.
    fn new(cluster: u128, view: u32, replica: u8) -> Self {
        let mut header = Header::zeroed();
        header.frame.cluster = cluster;
        header.frame.size = HEADER_SIZE as u32;
        header.frame.view = view;
        header.frame.release = RELEASE;
        header.frame.protocol = PROTOCOL;
        header.frame.command = Self::COMMAND as u8;
        header.frame.replica = replica;
        *header.typed()
    }

    /// The first of the command's own rules that is broken, reserved bytes of the area included.
    ///
    /// # Errors
    /// [`Invalid::Reserved`] or [`Invalid::Rule`].
    fn rules(&self) -> Result<(), Invalid>;
}

fn rule(holds: bool, otherwise: &'static str) -> Result<(), Invalid> {
    if holds {
        Ok(())
    } else {
        Err(Invalid::Rule(otherwise))
    }
}

/// Largest op, round, timestamp or sequence that may be said: far beyond what can be reached, and far enough from the
/// end of the type that adding to it never overflows.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Largest view that may be said: views rise by a few a second at the most.
pub const VIEW_MAX: u32 = 1 << 31;

/// Whether what a message says can be computed with.
fn bounded(numbers: &[u64]) -> Result<(), Invalid> {
    rule(
        numbers.iter().all(|&number| number <= NUMBER_MAX),
        "a number is beyond reach",
    )
}

fn zero(bytes: &[u8]) -> Result<(), Invalid> {
    // Without an early end the compiler takes many bytes at a time, and reserved bytes are all but always zero.
    if bytes.iter().fold(0, |all, &byte| all | byte) == 0 {
        Ok(())
    } else {
        Err(Invalid::Reserved)
    }
}

impl Header {
    /// All bytes zero: not a valid header.
    pub fn zeroed() -> Self {
        Self::read_from_bytes(&[0; HEADER_SIZE]).expect("256 bytes are a header")
    }

    /// The header at the start of `bytes`, which must be aligned to 16.
    pub fn of(bytes: &[u8]) -> &Self {
        Self::ref_from_bytes(&bytes[..HEADER_SIZE]).expect("buffers are sector-aligned")
    }

    /// As [`Header::of`], writable.
    pub fn of_mut(bytes: &mut [u8]) -> &mut Self {
        Self::mut_from_bytes(&mut bytes[..HEADER_SIZE]).expect("buffers are sector-aligned")
    }

    /// The command, if it is one we know.
    pub fn command(&self) -> Option<Command> {
        Command::from_u8(self.frame.command)
    }

    /// The header as one of `T`'s command.
    pub fn typed<T: Typed>(&self) -> &T {
        assert_eq!(self.frame.command, T::COMMAND as u8);
        T::ref_from_bytes(self.as_bytes()).expect("a typed header is 256 bytes, aligned to 16")
    }

    /// As [`Header::typed`], writable.
    pub fn typed_mut<T: Typed>(&mut self) -> &mut T {
        assert_eq!(self.frame.command, T::COMMAND as u8);
        T::mut_from_bytes(self.as_mut_bytes()).expect("a typed header is 256 bytes, aligned to 16")
    }

    /// The header as one of `T`'s command, if it is one.
    pub fn try_typed<T: Typed>(&self) -> Option<&T> {
        (self.frame.command == T::COMMAND as u8).then(|| self.typed())
    }

    /// Size of the body, in bytes.
    pub fn body_size(&self) -> usize {
        self.frame.size as usize - HEADER_SIZE
    }

    /// The identity that bytes 16..256 give.
    pub fn checksum_of_bytes(&self) -> u128 {
        checksum::identity(&self.as_bytes()[16..])
    }

    /// Whether the header's own sum holds.
    pub fn checksum_holds(&self) -> bool {
        self.frame.checksum == self.checksum_of_bytes()
    }

    /// Sets both sums; `body` is what the message carries. The header must not change afterwards.
    pub fn seal(&mut self, body: &[u8]) {
        assert_eq!(self.body_size(), body.len());
        self.frame.checksum_body = checksum::body_sum(body);
        self.frame.checksum = self.checksum_of_bytes();
    }

    /// Checks a header from outside: sum, cluster, size, protocol, reserved bytes, then the command's own rules. The
    /// body is checked apart, when it is there ([`Header::check_body`]).
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(&self, cluster: u128, message_size_max: usize) -> Result<Command, Invalid> {
        if !self.checksum_holds() {
            return Err(Invalid::Checksum);
        }
        if self.frame.cluster != cluster {
            return Err(Invalid::Cluster);
        }
        if (self.frame.size as usize) < HEADER_SIZE || self.frame.size as usize > message_size_max {
            return Err(Invalid::Size);
        }
        if self.frame.protocol != PROTOCOL {
            return Err(Invalid::Protocol);
        }
        zero(&self.frame.reserved)?;
        rule(self.frame.epoch == 0, "the epoch is not zero")?;
        rule(self.frame.view <= VIEW_MAX, "the view is beyond reach")?;
        let command = self.command().ok_or(Invalid::Command)?;
        self.check_rules(command)?;
        Ok(command)
    }

    fn check_rules(&self, command: Command) -> Result<(), Invalid> {
        match command {
            Command::Request => self.typed::<Request>().rules(),
            Command::Prepare => self.typed::<Prepare>().rules(),
            Command::PrepareOk => self.typed::<PrepareOk>().rules(),
            Command::Commit => self.typed::<Commit>().rules(),
            Command::CommitOk => self.typed::<CommitOk>().rules(),
            Command::Reply => self.typed::<Reply>().rules(),
            Command::StartViewChange => self.typed::<StartViewChange>().rules(),
            Command::DoViewChange => self.typed::<DoViewChange>().rules(),
            Command::StartView => self.typed::<StartView>().rules(),
            Command::RequestStartView => self.typed::<RequestStartView>().rules(),
            Command::Ping => self.typed::<Ping>().rules(),
            Command::Pong => self.typed::<Pong>().rules(),
            Command::PingClient => self.typed::<PingClient>().rules(),
            Command::PongClient => self.typed::<PongClient>().rules(),
            Command::RequestHeaders => self.typed::<RequestHeaders>().rules(),
            Command::Headers => self.typed::<Headers>().rules(),
            Command::RequestPrepare => self.typed::<RequestPrepare>().rules(),
            Command::RequestPages => self.typed::<RequestPages>().rules(),
            Command::Page => self.typed::<Page>().rules(),
            Command::Eviction => self.typed::<Eviction>().rules(),
            Command::Rejected => self.typed::<Rejected>().rules(),
            Command::NoPrepare => self.typed::<NoPrepare>().rules(),
        }
    }

    /// Checks the body of a message whose header holds.
    ///
    /// # Errors
    /// [`Invalid::Body`].
    pub fn check_body(&self, body: &[u8]) -> Result<(), Invalid> {
        let holds =
            body.len() == self.body_size() && checksum::body_sum(body) == self.frame.checksum_body;
        if holds { Ok(()) } else { Err(Invalid::Body) }
    }
}

/// Declares a typed header: its fields, how many zero bytes fill the area, and its own rules.
macro_rules! typed_header {
    (
        $(#[$meta:meta])*
        $name:ident reserved $reserved:literal {
            $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
        }
        rules |$this:ident| $rules:expr
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name {
            /// The common part.
            pub frame: Frame,
            $($(#[$field_meta])* pub $field: $type,)*
            /// Zero.
            pub reserved: [u8; $reserved],
        }

        static_assertions::const_assert_eq!(size_of::<$name>(), HEADER_SIZE);

        impl Typed for $name {
            const COMMAND: Command = Command::$name;

            fn rules(&self) -> Result<(), Invalid> {
                zero(&self.reserved)?;
                let $this = self;
                $rules
            }
        }

        impl $name {
            /// The same bytes as an untyped header.
            pub fn header(&self) -> &Header {
                transmute_ref!(self)
            }

            /// As [`Self::header`], writable.
            pub fn header_mut(&mut self) -> &mut Header {
                transmute_mut!(self)
            }
        }
    };
}

mod greeting;
mod repair;
mod sync;
mod view_change;

pub use greeting::{
    NowhereKind, Ping, PingClient, Pong, PongClient, ReplicaStatus, Start, Verdict,
};
pub use repair::{Headers, NoPrepare, RequestHeaders, RequestPrepare};
pub use sync::{Page, PageReference, PageRequest, RequestPages, page_capacity};
pub use view_change::{DoViewChange, RequestStartView, StartView, StartViewChange};

const fn bodiless(frame: &Frame) -> bool {
    frame.size as usize == HEADER_SIZE
}

typed_header! {
    /// A client's call. The body is the call's sub-header and its bytes, padded: the body of a batch of one.
    Request reserved 168 {
        /// The client's random id, as in the sub-header; never zero.
        client: u128,
        /// The request's number, as in the sub-header.
        request: u32,
        /// How often this request was sent before.
        resent: u32,
    }
    rules |this| {
        rule(this.client != 0, "a request has no client id")?;
        rule(this.frame.view == 0 && this.frame.replica == 0, "a request names a view or a replica")?;
        rule(this.frame.size as usize >= HEADER_SIZE + SUB_HEADER_SIZE, "a request is too short for its sub-header")?;
        rule((this.frame.size as usize - HEADER_SIZE).is_multiple_of(REQUEST_ALIGN), "a request's size is not padded")
    }
}

/// What a prepare is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum PrepareKind {
    /// Not a prepare: fills a slot that was never written. Its op is the slot's index.
    Reserved = 0,
    /// Op 0, the same for all replicas of a cluster.
    Root = 1,
    /// A batch of requests.
    Batch = 2,
}

typed_header! {
    /// A batch of requests at its place in the log. Its identity never changes, whoever sends it and in whatever view.
    Prepare reserved 136 {
        /// Identity of the prepare of op - 1.
        parent: u128,
        /// Place in the log.
        op: u64,
        /// The highest op the primary knew to be committed.
        commit: u64,
        /// Time of the first request, in nanoseconds since 1970; request i has `timestamp + i`.
        timestamp: u64,
        /// Number of the newest read round that had begun at the primary; counted by nobody outside the prepare's view.
        round: u64,
        /// Number of requests in the body.
        requests: u32,
        /// Ordinal of a [`PrepareKind`].
        kind: u32,
    }
    rules |this| {
        bounded(&[this.op, this.commit, this.timestamp, this.round])?;
        match this.kind {
            0 => rule(bodiless(&this.frame) && this.parent == 0 && this.commit == 0 && this.timestamp == 0
                && this.round == 0 && this.requests == 0 && this.frame.view == 0, "a reserved prepare is not empty"),
            1 => rule(bodiless(&this.frame) && this.op == 0 && this.parent == 0 && this.commit == 0
                && this.timestamp == 0 && this.round == 0 && this.requests == 0 && this.frame.view == 0,
                "a root prepare is not empty"),
            2 => {
                rule(this.op > 0 && this.op > this.commit, "a prepare commits itself")?;
                rule(this.requests > 0, "a prepare has no requests")?;
                let room = (this.frame.size as usize - HEADER_SIZE) / SUB_HEADER_SIZE;
                rule(this.requests as usize <= room, "a prepare counts more requests than it has room for")
            }
            _ => Err(Invalid::Rule("a prepare's kind is unknown")),
        }
    }
}

impl Prepare {
    /// The header that fills slot `slot` of a new journal.
    pub fn reserved_slot(cluster: u128, slot: u64) -> Self {
        let mut prepare = Self::new(cluster, 0, 0);
        prepare.op = slot;
        prepare.kind = PrepareKind::Reserved as u32;
        prepare.header_mut().seal(&[]);
        prepare
    }

    /// Op 0 of a cluster.
    pub fn root(cluster: u128) -> Self {
        let mut prepare = Self::new(cluster, 0, 0);
        prepare.kind = PrepareKind::Root as u32;
        prepare.header_mut().seal(&[]);
        prepare
    }

    /// Whether this fills a slot that was never written.
    pub fn is_reserved(&self) -> bool {
        self.kind == PrepareKind::Reserved as u32
    }
}

typed_header! {
    /// "This exact prepare would be recovered here, and I am in this view." To the view's primary only.
    PrepareOk reserved 112 {
        /// Identity of the prepare.
        prepare: u128,
        /// Id of the newest checkpoint durable here.
        checkpoint_id: u128,
        /// Its op.
        checkpoint_op: u64,
        /// The prepare's op.
        op: u64,
        /// What is executed here.
        commit_min: u64,
        /// The prepare's read round if it was prepared in this view, else zero.
        round: u64,
        /// Sequence of the superblock.
        superblock_sequence: u64,
        /// The life of the process that promises it, as its greetings name it.
        life: u64,
    }
    rules |this| {
        bounded(&[this.op, this.checkpoint_op, this.commit_min, this.round, this.superblock_sequence])?;
        rule(bodiless(&this.frame), "a prepare_ok has a body")?;
        rule(this.op > 0, "a prepare_ok names no op")
    }
}

typed_header! {
    /// Heartbeat of a primary.
    Commit reserved 112 {
        /// Identity of the prepare of op `commit`.
        commit_checksum: u128,
        /// Id of the newest checkpoint durable here.
        checkpoint_id: u128,
        /// Its op.
        checkpoint_op: u64,
        /// The highest op known to be committed.
        commit: u64,
        /// Number of the newest read round.
        round: u64,
        /// The primary's monotonic clock, in nanoseconds.
        monotonic_ns: u64,
        /// The highest op the primary has prepared.
        op: u64,
        /// Zero.
        pad: u64,
    }
    rules |this| {
        bounded(&[this.op, this.checkpoint_op, this.commit, this.round])?;
        rule(bodiless(&this.frame), "a commit has a body")?;
        rule(this.op >= this.commit && this.pad == 0, "a commit is above its author's head")
    }
}

typed_header! {
    /// Answers a commit: "I am in this view and have voted for no later one."
    CommitOk reserved 136 {
        /// Id of the newest checkpoint durable here.
        checkpoint_id: u128,
        /// Its op.
        checkpoint_op: u64,
        /// The commit's round.
        round: u64,
        /// What is executed here.
        commit_min: u64,
        /// The highest op held here.
        op: u64,
        /// Zero.
        pad: u64,
    }
    rules |this| {
        bounded(&[this.op, this.checkpoint_op, this.commit_min, this.round])?;
        rule(bodiless(&this.frame), "a commit_ok has a body")?;
        rule(this.pad == 0, "a commit_ok has a stray byte")
    }
}

/// How a request ended; carried by a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Status {
    /// Executed; the body is the state machine's answer.
    Ok = 0,
    /// Nothing was executed: the state has no room for what the request might need.
    OutOfSpace = 1,
    /// Nothing was executed: every session is in use, and none has been idle long enough to be evicted.
    SessionsFull = 2,
    /// Nothing was executed: the request is in the log, but this release does not understand it.
    NotUnderstood = 3,
}

impl Status {
    /// The status with this ordinal.
    pub fn from_u16(ordinal: u16) -> Option<Self> {
        [
            Self::Ok,
            Self::OutOfSpace,
            Self::SessionsFull,
            Self::NotUnderstood,
        ]
        .into_iter()
        .find(|&status| status as u16 == ordinal)
    }
}

typed_header! {
    /// The result of a request; the body is the answer, unpadded.
    Reply reserved 136 {
        /// The request's client.
        client: u128,
        /// The request's session; of a register, the new one.
        session: u64,
        /// Op that executed it; of a read, the commit it saw.
        op: u64,
        /// Replicated time of the execution, in nanoseconds since 1970.
        timestamp: u64,
        /// The request's number.
        request: u32,
        /// The request's operation.
        operation: u16,
        /// Ordinal of a [`Status`].
        status: u16,
        /// Zero.
        pad: u64,
    }
    rules |this| {
        rule(this.client != 0 && this.pad == 0, "a reply has no client id")?;
        rule(Status::from_u16(this.status).is_some(), "a reply's status is unknown")
    }
}

typed_header! {
    /// "This session does not exist (any more)": decided from committed state that a quorum has confirmed.
    Eviction reserved 160 {
        /// The client.
        client: u128,
        /// The session it claimed.
        session: u64,
        /// The request's number.
        request: u32,
        /// Zero.
        pad: u32,
    }
    rules |this| {
        rule(bodiless(&this.frame), "an eviction has a body")?;
        rule(this.client != 0 && this.pad == 0, "an eviction has no client id")
    }
}

/// Why a request was not taken. Nothing of *this copy* of it was executed; an earlier copy may have been.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Rejection {
    /// Queues are full: wait and send again.
    Busy = 1,
    /// The request is malformed or larger than this cluster allows: sending it again is useless.
    Invalid = 2,
    /// This replica does not lead; `hint` names the one that does in its view.
    NotPrimary = 3,
    /// The replica is starting, lagging or without a quorum.
    NotReady = 4,
    /// The operation belongs to a machine this cluster does not run.
    UnknownOperation = 5,
}

impl Rejection {
    /// The reason with this ordinal.
    pub fn from_u16(ordinal: u16) -> Option<Self> {
        [
            Self::Busy,
            Self::Invalid,
            Self::NotPrimary,
            Self::NotReady,
            Self::UnknownOperation,
        ]
        .into_iter()
        .find(|&reason| reason as u16 == ordinal)
    }
}

typed_header! {
    /// "This request was not taken", and why.
    Rejected reserved 160 {
        /// The request's client.
        client: u128,
        /// The request's number.
        request: u32,
        /// Ordinal of a [`Rejection`].
        reason: u16,
        /// Index of the primary in the author's view.
        hint: u8,
        /// Zero.
        pad: [u8; 9],
    }
    rules |this| {
        rule(bodiless(&this.frame), "a rejected has a body")?;
        zero(&this.pad)?;
        rule(Rejection::from_u16(this.reason).is_some(), "a rejected's reason is unknown")
    }
}

/// Precedes each request in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SubHeader {
    /// The client's random id; zero only for requests of the replica itself.
    pub client: u128,
    /// The client's session; zero for register and for reads.
    pub session: u64,
    /// The session's running number of requests, from 1; a register has 0.
    pub request: u32,
    /// Size of the request's bytes, without sub-header and padding.
    pub size: u32,
    /// High byte: the machine (zero is the replica itself). Low byte: the machine's operation.
    pub operation: u16,
    /// Zero.
    pub reserved: [u8; 14],
}

static_assertions::const_assert_eq!(size_of::<SubHeader>(), SUB_HEADER_SIZE);

impl SubHeader {
    /// Size of sub-header, bytes and padding.
    pub fn padded_size(&self) -> usize {
        SUB_HEADER_SIZE + (self.size as usize).next_multiple_of(REQUEST_ALIGN)
    }
}

/// A request in a batch.
#[derive(Clone, Copy, Debug)]
pub struct SubRequest<'a> {
    /// Its sub-header.
    pub header: &'a SubHeader,
    /// Its bytes.
    pub body: &'a [u8],
}

/// The request at `offset` of a batch's body, and the offset of the next; an error if the bytes there are not one.
///
/// # Errors
/// [`Invalid::Rule`] or [`Invalid::Reserved`].
pub fn sub_request(batch: &[u8], offset: usize) -> Result<(SubRequest<'_>, usize), Invalid> {
    let rest = batch.get(offset..).unwrap_or(&[]);
    let bytes = rest
        .get(..SUB_HEADER_SIZE)
        .ok_or(Invalid::Rule("a batch ends inside a sub-header"))?;
    let header =
        SubHeader::ref_from_bytes(bytes).map_err(|_| Invalid::Rule("a batch is not aligned"))?;
    zero(&header.reserved)?;
    let padded = header.padded_size();
    rule(padded <= rest.len(), "a batch ends inside a request")?;
    let end = SUB_HEADER_SIZE + header.size as usize;
    zero(&rest[end..padded])?;
    Ok((
        SubRequest {
            header,
            body: &rest[SUB_HEADER_SIZE..end],
        },
        offset + padded,
    ))
}

/// Checks that a batch is exactly `requests` well-formed requests.
///
/// # Errors
/// [`Invalid::Rule`] or [`Invalid::Reserved`].
pub fn check_batch(batch: &[u8], requests: u32) -> Result<(), Invalid> {
    let mut offset = 0;
    for _ in 0..requests {
        offset = sub_request(batch, offset)?.1;
    }
    rule(
        offset == batch.len(),
        "a batch has bytes behind its last request",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLUSTER: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

    fn golden() -> Prepare {
        let mut prepare = Prepare::new(CLUSTER, 7, 2);
        prepare.parent = 5;
        prepare.op = 42;
        prepare.commit = 41;
        prepare.timestamp = 1_700_000_000_000_000_000;
        prepare.round = 3;
        prepare.requests = 1;
        prepare.kind = PrepareKind::Batch as u32;
        let body = [0x77; 64];
        prepare.frame.size = (HEADER_SIZE + body.len()) as u32;
        prepare.header_mut().seal(&body);
        prepare
    }

    #[test]
    fn golden_prepare_keeps_its_identity() {
        // A change here is a change of the wire and disk format: raise PROTOCOL.
        assert_eq!(golden().frame.checksum, GOLDEN_CHECKSUM);
        assert_eq!(Prepare::root(CLUSTER).frame.checksum, GOLDEN_ROOT);
    }

    const GOLDEN_CHECKSUM: u128 = 0xe3ff_c93e_4d1c_7938_ed3b_7b08_92c5_ea5c;
    const GOLDEN_ROOT: u128 = 0x8e4f_5b25_9b9a_ed22_49e8_aee9_8a62_ea9d;

    #[test]
    fn every_byte_of_a_header_is_covered() {
        let good = *golden().header();
        assert_eq!(good.check(CLUSTER, 4096), Ok(Command::Prepare));
        for index in 0..HEADER_SIZE {
            for bit in 0..8 {
                let mut bytes: [u8; HEADER_SIZE] = good.as_bytes().try_into().expect("256 bytes");
                bytes[index] ^= 1 << bit;
                let bad = Header::read_from_bytes(&bytes).expect("256 bytes");
                assert_eq!(bad.check(CLUSTER, 4096), Err(Invalid::Checksum));
            }
        }
    }

    #[test]
    fn checks_come_in_order() {
        let sealed = |change: &dyn Fn(&mut Prepare)| {
            let mut prepare = golden();
            change(&mut prepare);
            prepare.frame.checksum = prepare.header().checksum_of_bytes();
            prepare.header().check(CLUSTER, 4096)
        };
        assert_eq!(sealed(&|p| p.frame.cluster ^= 1), Err(Invalid::Cluster));
        assert_eq!(sealed(&|p| p.frame.size = 255), Err(Invalid::Size));
        assert_eq!(sealed(&|p| p.frame.size = 4097), Err(Invalid::Size));
        assert_eq!(sealed(&|p| p.frame.protocol = 9), Err(Invalid::Protocol));
        assert_eq!(sealed(&|p| p.frame.reserved[7] = 1), Err(Invalid::Reserved));
        assert_eq!(sealed(&|p| p.frame.command = 99), Err(Invalid::Command));
        assert_eq!(sealed(&|p| p.reserved[0] = 1), Err(Invalid::Reserved));
        assert!(matches!(sealed(&|p| p.op = 0), Err(Invalid::Rule(_))));
        assert!(matches!(sealed(&|p| p.kind = 9), Err(Invalid::Rule(_))));
        assert_eq!(sealed(&|_| ()), Ok(Command::Prepare));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), HEADER_SIZE), seal: bool,
                                       command in 0u8..24, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut header = Header::read_from_bytes(&bytes).expect("256 bytes");
            if seal {
                header.frame.cluster = CLUSTER;
                header.frame.protocol = PROTOCOL;
                header.frame.command = command;
                header.frame.size %= 8192;
                header.frame.checksum = header.checksum_of_bytes();
            }
            if header.check(CLUSTER, 4096).is_ok() {
                let _ = header.check_body(&body);
            }
            let mut aligned = [0u128; 20];
            let size = body.len() / 16 * 16;
            aligned.as_mut_bytes()[..size].copy_from_slice(&body[..size]);
            let _ = check_batch(&aligned.as_bytes()[..size], u32::from(command));
        }
    }
}
