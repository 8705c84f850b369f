//! How a call ends. Every call ends in exactly one of four ways: a [`Reply`]; a [`Definite`] error (it had no
//! effect and will have none); [`NotSent`] (no replica ever had it); or [`Unknown`]: it may have been executed, once,
//! or be executed later, once.
//!
//! ```
//! use viewstone::client::{CallError, Client};
//!
//! /// What a caller may do, by the kind of error.
//! fn advice(error: &CallError) -> &'static str {
//!     match error {
//!         CallError::Definite(_) => "it had no effect: change the request, or give up",
//!         CallError::NotSent(_) => "it had no effect: call again",
//!         CallError::Indeterminate(_) => "ask for the outcome with Client::resolve, or look at the state",
//!     }
//! }
//!
//! # let cluster = viewstone::testing::KvCluster::start(1)?;
//! let client: Client = cluster.client()?;
//! // Machine 1 has no operation 255, and this cluster no machine 9.
//! for operation in [0x01ff, 0x0900] {
//!     let error = client.write(operation, b"").expect_err("nobody knows it");
//!     assert!(advice(&error).starts_with("it had no effect: change"), "{error}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;

pub use storage::header::Status;

/// An answer of the state machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The machine's bytes.
    pub body: Vec<u8>,
    /// The op that executed the call; of a read, the commit it saw.
    pub op: u64,
    /// Replicated time of the execution, in nanoseconds since 1970.
    pub timestamp: u64,
}

/// An answer that still lies in the core's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyRef<'a> {
    /// The machine's bytes.
    pub body: &'a [u8],
    /// As [`Reply::op`].
    pub op: u64,
    /// As [`Reply::timestamp`].
    pub timestamp: u64,
}

impl ReplyRef<'_> {
    /// A copy that may be kept.
    pub fn to_owned(self) -> Reply {
        Reply {
            body: self.body.to_vec(),
            op: self.op,
            timestamp: self.timestamp,
        }
    }
}

/// The call had no effect and will have none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Definite {
    /// The cluster refuses it whatever its state: sending it again is useless. The machine's `validate` did not let it pass, or
    /// an operation that changes the state was submitted as a read.
    #[error(
        "the request is malformed, or larger than this cluster allows, or a write that was submitted as a read"
    )]
    Invalid,
    /// Larger than a message of this cluster may be.
    #[error(
        "the request is {size} bytes with its headers; this cluster's messages hold {size_max}"
    )]
    TooLarge {
        /// What it would take, in bytes.
        size: usize,
        /// What there is, in bytes.
        size_max: usize,
    },
    /// The cluster does not run the operation's machine, or the machine does not know the operation.
    #[error("the cluster does not know this operation")]
    UnknownOperation,
    /// The state has no room for what the call might need.
    #[error("the cluster's state is out of space")]
    OutOfSpace,
    /// Every session of the cluster is in use, and none has been idle for long enough.
    #[error("every session of the cluster is in use")]
    SessionsFull,
    /// A read was sent and not answered before its deadline. It changed nothing, because reads do not.
    #[error("no answer before the deadline (a read changes nothing)")]
    NoAnswer,
}

/// No replica ever had the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotSent {
    /// The deadline passed while no primary could be reached, or no session was free.
    #[error("no primary was reached before the deadline")]
    Deadline,
    /// It was sent once, and the replica answered that it did not take it.
    #[error("the primary was too busy to take the request before the deadline")]
    Refused,
    /// As many calls as the client may hold are unanswered.
    #[error("too many calls are unanswered")]
    QueueFull,
    /// The client is closed.
    #[error("the client is closed")]
    Closed,
}

/// Why an outcome is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnknownReason {
    /// The deadline passed after the request had been sent.
    Deadline,
    /// The cluster has forgotten the session, and with it whether the request was executed.
    Evicted,
    /// The client was closed after the request had been sent.
    Closed,
    /// Asked for again, but the client has used the session for another call since.
    Superseded,
}

/// The call may have been executed, once, or may still be. Nothing executes it twice, for resending it under the
/// same session and number is safe; under another session it is a different request, and the library never does that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Unknown {
    /// The session's client id.
    pub client: u128,
    /// The session.
    pub session: u64,
    /// The request's number.
    pub request: u32,
    /// Why.
    pub reason: UnknownReason,
}

impl fmt::Display for Unknown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.reason {
            UnknownReason::Deadline => "no answer before the deadline",
            UnknownReason::Evicted => "the session was evicted",
            UnknownReason::Closed => "the client was closed",
            UnknownReason::Superseded => "its session has been used since",
        };
        write!(
            formatter,
            "outcome unknown: {why} (client {:032x}, session {}, request {})",
            self.client, self.session, self.request
        )
    }
}

/// How a call ends if not in a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// It had no effect and will have none.
    #[error(transparent)]
    Definite(#[from] Definite),
    /// No replica ever had it.
    #[error("not sent: {0}")]
    NotSent(#[from] NotSent),
    /// It may have been executed, or may still be.
    #[error(transparent)]
    Indeterminate(#[from] Unknown),
}

impl CallError {
    /// Whether the call may have had an effect.
    pub fn is_indeterminate(&self) -> bool {
        matches!(self, Self::Indeterminate(_))
    }
}
