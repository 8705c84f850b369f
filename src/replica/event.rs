//! All inputs and outputs of a replica. Whoever hosts one (the server, the simulator) turns the world into events
//! and effects into the world; a replica itself touches neither.

use std::collections::VecDeque;
use std::fmt;
use storage::buffer::{Message, SharedMessage};
use storage::io::{IoDone, IoError, IoQueue};
use storage::pages::PageId;

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
    /// A prepare cannot be read any more, and there is nobody to fetch it from.
    #[error(
        "the prepare of op {op} in journal slot {slot} was whole at the start and cannot be read now: the medium fails, and \
         there is no other replica to fetch it from. Copy the file to a sound device, then start again"
    )]
    PrepareLost {
        /// The op.
        op: u64,
        /// Its slot.
        slot: usize,
    },
    /// The state of a checkpoint contradicts itself, though all its pages are what they are called.
    #[error(
        "the checkpoint of op {op} contradicts itself: what it says of the pages in use is not what it has. The replicas that \
         made it have a fault; keep a data file for examination"
    )]
    State {
        /// The checkpoint's op.
        op: u64,
    },
    /// The file is older than what this replica has promised.
    #[error(
        "{0}, and what this replica promised since is forgotten. It counts as lost: move it away and run `viewstone recover`"
    )]
    Regressed(Regressed),
    /// A page has changed in memory though nothing wrote it.
    #[error(
        "page {} has changed in memory though nothing wrote it: the machine's memory fails, and what was executed since cannot \
         be trusted. The data file has what it had: check the memory, then start again", .0.0
    )]
    Memory(PageId),
    /// Other replicas have made another state of the same ops.
    #[error("{0}")]
    Diverged(Diverged),
}

/// How it was noticed that a file was put back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Regressed {
    /// The journal is newer than the superblock.
    #[error(
        "the journal holds op {0}, which this superblock cannot have allowed: part of the file was put back to an older state"
    )]
    Journal(u64),
    /// Another replica remembers more than this file holds.
    #[error(
        "replica {0} remembers a later state of this replica than its file holds: the file was put back to an older state"
    )]
    Peer(u8),
    /// Another replica knows a file of this replica that is newer than this one.
    #[error(
        "replica {0} knows another data file that has taken the place of this one: an old file was put back"
    )]
    Replaced(u8),
    /// Others have said so in an earlier life of the process.
    #[error("others have said before that this file was put back to an older state")]
    Condemned,
}

/// Pages that are named when states differ.
pub const DIVERGED_PAGES_MAX: usize = 12;

/// States that differ though the same ops made them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Diverged {
    /// Op of the checkpoint.
    pub op: u64,
    /// The replica with which this one was compared.
    pub other: u8,
    /// Whether most replicas agree with each other, and this one does not.
    pub majority: bool,
    /// The first of the pages that differ.
    pub pages: [u32; DIVERGED_PAGES_MAX],
    /// How many of them are named; none if the comparison took too long.
    pub count: usize,
}

impl fmt::Display for Diverged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "the state of op {} is not that of other replicas, though the same ops made it; ",
            self.op
        )?;
        formatter.write_str(if self.majority {
            "most of them agree with each other, so this replica stops"
        } else {
            "no majority agrees, so all stop"
        })?;
        let pages = &self.pages[..self.count];
        match pages.split_first() {
            None => formatter.write_str("; which pages differ could not be learnt")?,
            Some((first, rest)) => {
                write!(
                    formatter,
                    "; compared with replica {}, these pages differ: {first}",
                    self.other
                )?;
                for page in rest {
                    write!(formatter, ", {page}")?;
                }
                if self.count == DIVERGED_PAGES_MAX {
                    formatter.write_str(" and perhaps more")?;
                }
            }
        }
        formatter.write_str(
            ". The state machine is not deterministic, or the machine's memory fails: keep the data file for examination, \
             then recover this replica from the others",
        )
    }
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
