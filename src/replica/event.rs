//! All inputs and outputs of a replica. Whoever hosts one (the server, the simulator) turns the world into events
//! and effects into the world; a replica itself touches neither.

use std::collections::VecDeque;
use storage::buffer::{Message, SharedMessage};
use storage::io::{IoDone, IoError, IoQueue};

/// The time, as it comes with every event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic clock, in nanoseconds; never goes back, also not across restarts of the host's own process.
    pub monotonic_ns: u64,
    /// Wall clock, in nanoseconds since 1970; may be wrong, jump and go back.
    pub realtime_ns: u64,
}

/// Names a client's connection. The host reuses indexes, never an (index, generation) pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ConnectionId {
    /// The host's slot for it.
    pub index: u32,
    /// Tells this use of the slot from earlier ones.
    pub generation: u32,
}

/// The other end of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Peer {
    /// The replica with this index.
    Replica(u8),
    /// A client's connection.
    Client(ConnectionId),
}

/// An input.
#[derive(Debug)]
pub enum Event {
    /// A message whose header and body sums hold, whose cluster is ours, and which keeps its command's rules
    /// ([`storage::header::Header::check`], [`storage::header::Header::check_body`]). The host has made sure that a
    /// message from a replica's connection names that replica as its author, except where messages are relayed
    /// (prepare, headers).
    Message {
        /// Where it came from.
        from: Peer,
        /// The message.
        message: Message,
    },
    /// A disk request has completed.
    Io(IoDone),
    /// A connection to or from a replica has been established: say hello.
    Connected(u8),
    /// A client's connection is gone: its id will not come back.
    Closed(ConnectionId),
    /// Time has passed ([`crate::replica::Replica::deadline_ns`]), or there is work left over
    /// ([`crate::replica::Replica::has_work`]).
    Tick,
}

/// Why a replica stops for good.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fatal {
    /// The disk failed a write or a sync: what it holds is unknown.
    #[error("{0}; what the disk holds is now unknown. Check the device, then start again")]
    Disk(#[from] IoError),
    /// The data file cannot be opened as it is.
    #[error("{0}")]
    DataFile(String),
    /// Another replica reports different state after the same ops.
    #[error("{0}")]
    Divergence(String),
}

/// A message to send. Messages may be lost, and are when the peer's queue is full or it is not connected.
#[derive(Debug)]
pub struct Send {
    /// To whom.
    pub to: Peer,
    /// What.
    pub message: SharedMessage,
}

/// All outputs of a step, in order. The host drains them after each step.
#[derive(Debug)]
pub struct Effects {
    /// Messages to send.
    pub sends: VecDeque<Send>,
    /// Disk requests.
    pub io: IoQueue,
    /// The replica cannot go on: the host stops it, and tells why.
    pub halt: Option<Fatal>,
    sends_max: usize,
}

impl Effects {
    /// Queues of fixed capacity.
    pub fn new(sends_max: usize, io_max: usize) -> Self {
        Self {
            sends: VecDeque::with_capacity(sends_max),
            io: IoQueue::new(io_max),
            halt: None,
            sends_max,
        }
    }

    /// Queues a message.
    pub fn send(&mut self, to: Peer, message: SharedMessage) {
        assert!(
            self.sends.len() < self.sends_max,
            "a step sends more than its bound"
        );
        self.sends.push_back(Send { to, message });
    }
}
