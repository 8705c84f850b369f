//! Greetings, between replicas and with clients: who one is, and how one is doing.

use super::{Command, Frame, HEADER_SIZE, Header, Invalid, Typed, bodiless, bounded, rule, zero};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref};

/// How far a replica's first start has come; durable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Start {
    /// Formatted; has heard nobody.
    Blank = 0,
    /// Has heard every replica as blank or initialised, none as begun.
    Initialised = 1,
    /// Has heard every replica as initialised, or any as begun: acks and votes.
    Begun = 2,
}

impl Start {
    /// The state with this ordinal.
    pub fn from_u8(ordinal: u8) -> Option<Self> {
        [Self::Blank, Self::Initialised, Self::Begun]
            .into_iter()
            .find(|&start| start as u8 == ordinal)
    }
}

/// What a replica finds when it compares another's greeting with what it remembers of that one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Verdict {
    /// Nothing wrong.
    Fine = 0,
    /// The same data file has held more: it went back in time.
    Regressed = 1,
    /// Another data file has taken this one's place since.
    Replaced = 2,
}

impl Verdict {
    /// The verdict with this ordinal.
    pub fn from_u8(ordinal: u8) -> Option<Self> {
        [Self::Fine, Self::Regressed, Self::Replaced]
            .into_iter()
            .find(|&verdict| verdict as u8 == ordinal)
    }
}

typed_header! {
    /// Hello between replicas: what is durable here, and a clock sample.
    Ping reserved 56 {
        /// Fingerprint of the geometry; a peer with another one is refused.
        fingerprint: u128,
        /// Id of the newest checkpoint durable here.
        checkpoint_id: u128,
        /// Names the data file that all this is said of; never zero.
        file: u128,
        /// Its op.
        checkpoint_op: u64,
        /// Sequence of the superblock.
        superblock_sequence: u64,
        /// The highest op held here.
        op: u64,
        /// What is executed here.
        commit_min: u64,
        /// The sender's monotonic clock, in nanoseconds.
        monotonic_ns: u64,
        /// Sequence of the superblock with which this life of the process began.
        opened_sequence: u64,
        /// No op above this can have been acknowledged here before this life.
        op_max: u64,
        /// The highest op that was acknowledged here in this life, and is still of this log.
        op_acknowledged: u64,
        /// Names this life of the sender's process; zero while it reads its data file, and knows nothing yet.
        life: u64,
        /// The sender's durable log_view.
        log_view: u32,
        /// Ordinal of a [`Start`].
        start: u8,
        /// Number of replicas the sender believes in.
        replica_count: u8,
        /// One: so many others have found nothing wrong with the sender's file that it takes part.
        confirmed: u8,
        /// Zero.
        pad: [u8; 9],
    }
    rules |this| {
        bounded(&[this.op, this.op_max, this.op_acknowledged, this.checkpoint_op, this.commit_min])?;
        bounded(&[this.superblock_sequence, this.opened_sequence])?;
        rule(this.confirmed <= 1, "a ping's flag is neither zero nor one")?;
        rule(bodiless(&this.frame), "a ping has a body")?;
        rule(this.file != 0, "a ping names no data file")?;
        zero(&this.pad)?;
        rule(Start::from_u8(this.start).is_some(), "a ping's start state is unknown")
    }
}

typed_header! {
    /// Answers a ping, with the same facts about the answering replica.
    Pong reserved 72 {
        /// Fingerprint of the geometry.
        fingerprint: u128,
        /// Id of the newest checkpoint durable here.
        checkpoint_id: u128,
        /// The ping's data file, echoed: the verdict is about this one.
        ping_file: u128,
        /// Its op.
        checkpoint_op: u64,
        /// Sequence of the superblock.
        superblock_sequence: u64,
        /// The highest op held here.
        op: u64,
        /// What is executed here.
        commit_min: u64,
        /// The ping's monotonic clock, echoed.
        ping_monotonic_ns: u64,
        /// The answering replica's wall clock, in nanoseconds since 1970.
        realtime_ns: u64,
        /// The ping's life, echoed.
        ping_life: u64,
        /// Its durable log_view.
        log_view: u32,
        /// Ordinal of a [`Start`].
        start: u8,
        /// Number of replicas it believes in.
        replica_count: u8,
        /// Ordinal of a [`Verdict`].
        verdict: u8,
        /// Zero.
        pad: [u8; 9],
    }
    rules |this| {
        bounded(&[this.op, this.checkpoint_op, this.commit_min, this.superblock_sequence])?;
        rule(bodiless(&this.frame), "a pong has a body")?;
        zero(&this.pad)?;
        rule(Verdict::from_u8(this.verdict).is_some(), "a pong's verdict is unknown")?;
        rule(Start::from_u8(this.start).is_some(), "a pong's start state is unknown")
    }
}

/// What a replica needs and no other that answers has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum NowhereKind {
    /// Nothing.
    Nothing = 0,
    /// The prepare of an op.
    Prepare = 1,
    /// A page of state.
    Page = 2,
    /// A node of the tag tree.
    TagNode = 3,
}

impl NowhereKind {
    /// The kind with this ordinal.
    pub fn from_u8(ordinal: u8) -> Option<Self> {
        [Self::Nothing, Self::Prepare, Self::Page, Self::TagNode]
            .into_iter()
            .find(|&kind| kind as u8 == ordinal)
    }
}

typed_header! {
    /// Hello of a client, and a question: who leads, and how are you?
    PingClient reserved 160 {
        /// A random id of the asking process; never zero.
        client: u128,
        /// Echoed in the answer.
        nonce: u64,
        /// Zero.
        pad: u64,
    }
    rules |this| {
        rule(bodiless(&this.frame), "a ping_client has a body")?;
        rule(this.client != 0 && this.pad == 0, "a ping_client has no client id")
    }
}

/// What a replica is doing, as it tells clients and operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ReplicaStatus {
    /// Reading its data file.
    Opening = 0,
    /// Waiting for the first start of the cluster to complete.
    Starting = 1,
    /// In its view, serving or following.
    Normal = 2,
    /// In its view, but without a state to execute on: it fetches what differs from a checkpoint of the others.
    Syncing = 3,
    /// Between two views.
    ViewChange = 4,
    /// A new file in a cluster that has begun: neither acks nor votes until it has what its predecessor may have promised.
    Lost = 5,
}

impl ReplicaStatus {
    /// Its name for people: the same in the log, in `status` and in the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Starting => "starting",
            Self::Normal => "normal",
            Self::Syncing => "syncing",
            Self::ViewChange => "view change",
            Self::Lost => "lost",
        }
    }

    /// The status with this ordinal.
    pub fn from_u8(ordinal: u8) -> Option<Self> {
        [
            Self::Opening,
            Self::Starting,
            Self::Normal,
            Self::Syncing,
            Self::ViewChange,
            Self::Lost,
        ]
        .into_iter()
        .find(|&status| status as u8 == ordinal)
    }
}

typed_header! {
    /// A replica's state, for clients (who leads, what sizes hold) and for operators.
    PongClient reserved 0 {
        /// The question's client.
        client: u128,
        /// Fingerprint of the geometry.
        fingerprint: u128,
        /// Id of the newest durable checkpoint.
        checkpoint_id: u128,
        /// Its op.
        checkpoint_op: u64,
        /// The question's nonce.
        nonce: u64,
        /// The highest op held here.
        op: u64,
        /// What is executed here.
        commit_min: u64,
        /// What is known to be committed anywhere.
        commit_max: u64,
        /// Time of the last commit, in nanoseconds since 1970.
        timestamp: u64,
        /// Sequence of the superblock.
        superblock_sequence: u64,
        /// Ops between commit_min and head whose prepare is not durable here.
        missing: u64,
        /// Pages of state in use.
        pages_used: u64,
        /// Pages of state in all.
        pages_total: u64,
        /// Largest message, in bytes.
        message_size_max: u32,
        /// Largest reply to a write, in bytes.
        reply_size_max: u32,
        /// Sessions in use.
        sessions_used: u32,
        /// Sessions in all.
        sessions_max: u32,
        /// Durable log_view.
        log_view: u32,
        /// Number of replicas.
        replica_count: u8,
        /// Ordinal of a [`ReplicaStatus`].
        status: u8,
        /// Ordinal of a [`Start`].
        start: u8,
        /// One while a checkpoint is being written.
        checkpointing: u8,
        /// Bit i: machine i (the operation's high byte) is served here.
        machines: u64,
        /// Pages of state and nodes of the tag tree that are known not to be here, while a checkpoint is fetched; a missing
        /// node hides more.
        pages_missing: u64,
        /// Number of what is needed here and found nowhere: an op, a page, or a node of the tag tree.
        nowhere_number: u64,
        /// The higher half of its identity or tag; zero if that is not known.
        nowhere_name: u64,
        /// Index of the view's primary.
        primary: u8,
        /// One if a majority of the replicas agrees on the time, and this one follows it; zero is an alarm.
        clock_synchronised: u8,
        /// Ordinal of a [`NowhereKind`].
        nowhere: u8,
        /// Zero.
        pad: [u8; 5],
    }
    rules |this| {
        rule(bodiless(&this.frame), "a pong_client has a body")?;
        zero(&this.pad)?;
        rule(ReplicaStatus::from_u8(this.status).is_some(), "a pong_client's status is unknown")?;
        rule(this.primary < this.replica_count, "a pong_client's primary does not exist")?;
        rule(NowhereKind::from_u8(this.nowhere).is_some(), "a pong_client misses an unknown kind of thing")?;
        rule(this.clock_synchronised <= 1, "a pong_client's clock is neither agreed nor alone")
    }
}
