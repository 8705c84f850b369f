//! From bytes to messages.
//!
//! A connection receives into one buffer: ahead, at most [`AHEAD_MAX`] bytes, while it does not know what comes; and as
//! soon as a header has passed its checks and announces more, exactly the rest, in one operation, straight into the
//! buffer that will be handed over. So a large message is never copied but for what came along with its header, and
//! many small ones cost one system call together; those are copied out, a sector at most each.

use super::connection::{Class, State};
use super::{Bus, SMALL_SIZE, STAGING_SIZE};
use crate::replica::{ConnectionId, Peer};
use storage::buffer::{Message, MessagePool};
use storage::header::{Command, HEADER_SIZE, Header, Invalid, Ping, Pong};
use storage::uring::{Errno, Uring};
use zerocopy::FromBytes;

/// Most bytes received without knowing what they are: what a busy client sends in a turn, or many acknowledgements.
const AHEAD_MAX: usize = STAGING_SIZE;

/// A message known to be larger is received exactly, so that it lies alone in its buffer and is not copied.
const EXACT_MIN: usize = 16 * 1024;

/// What a connection has yielded.
#[derive(Debug)]
pub enum Received {
    /// A replica has said who it is.
    Connected(u8),
    /// A message that has passed every check.
    Message(Peer, Message),
}

/// Why a connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Invalid(#[from] Invalid),
    #[error("its message is for another cluster, {theirs:#034x}; this is {ours:#034x}")]
    Cluster {
        theirs: u128,
        ours: u128,
        /// It says that it comes from a replica. One that was configured wrongly does.
        of_replica: bool,
    },
    #[error("its first message is not a ping: is it a Viewstone replica or client at all?")]
    NoHello,
    #[error("a {0:?} may not come over this connection")]
    Command(Command),
    #[error(
        "it claims to be replica {claimed} of {count}, and we are replica {own}: is the order of --addresses the same everywhere?"
    )]
    Index { claimed: u8, own: u8, count: u8 },
    #[error(
        "replica {claimed} answers where replica {expected} was dialled: is the order of --addresses the same everywhere?"
    )]
    WrongReplica { claimed: u8, expected: u8 },
    #[error(
        "replica {claimed} has geometry {theirs:032x}, ours is {ours:032x}: the data files were formatted differently"
    )]
    Fingerprint {
        claimed: u8,
        theirs: u128,
        ours: u128,
    },
    #[error("replica {claimed} believes in {theirs} replicas, we in {ours}")]
    ReplicaCount { claimed: u8, theirs: u8, ours: u8 },
    #[error("replica {peer} sends a message in the name of replica {claimed}")]
    Author { peer: u8, claimed: u8 },
    #[error("there are {0} clients already")]
    ClientsFull(usize),
}

impl Refusal {
    /// Whether a replica was refused, as far as it says what it is.
    fn is_of_replica(&self) -> bool {
        match self {
            Self::Index { .. }
            | Self::WrongReplica { .. }
            | Self::Fingerprint { .. }
            | Self::ReplicaCount { .. }
            | Self::Author { .. } => true,
            Self::Cluster { of_replica, .. } => *of_replica,
            Self::Invalid(_) | Self::NoHello | Self::Command(_) | Self::ClientsFull(_) => false,
        }
    }
}

impl Bus {
    /// A receive has ended. False: the connection is gone. Otherwise the caller takes what it yields ([`Bus::next`]).
    pub fn received(
        &mut self,
        now_ns: u64,
        index: u32,
        message: Message,
        result: Result<usize, Errno>,
        uring: &mut Uring,
    ) -> bool {
        let connection = &mut self.connections[index as usize];
        connection.receiving = false;
        connection.buffer = Some(message);
        match result {
            Ok(size) if size > 0 => {
                connection.filled += size;
                let capacity = connection.buffer.as_ref().map_or(0, |it| it.buffer().len());
                connection.busy = connection.filled >= capacity.min(AHEAD_MAX);
                connection.frame_since_ns.get_or_insert(now_ns);
                true
            }
            // Closed by the other end, or broken: both are everyday.
            Ok(_) => {
                self.close(index, now_ns, uring);
                false
            }
            Err(errno) => {
                log::debug!("connection {index} broke while receiving: {errno}");
                self.close(index, now_ns, uring);
                false
            }
        }
    }

    /// The next thing that a connection's bytes yield. None: they yield no more for now, and the connection is being
    /// read again, unless `has_room` or a pool said no; then it is listed as stopped.
    pub fn next(
        &mut self,
        now_ns: u64,
        index: u32,
        uring: &mut Uring,
        has_room: impl FnOnce(Peer, &Header) -> bool,
    ) -> Option<Received> {
        let connection = &self.connections[index as usize];
        let open = matches!(
            connection.state,
            State::Hello(_) | State::Replica(_) | State::Client
        );
        if !open || connection.receiving {
            return None;
        }
        if connection.buffer.is_none() || connection.available() < HEADER_SIZE {
            self.arm(index, now_ns, uring);
            return None;
        }
        let header = self.header(index);
        if connection.frame_size.is_none() {
            match self.check_header(index, &header, now_ns, uring) {
                Ok(None) => {}
                Ok(Some(replica)) => return Some(Received::Connected(replica)),
                Err(refusal) => {
                    self.refuse(index, refusal, now_ns, uring);
                    return None;
                }
            }
        }
        if self.connections[index as usize].available() < header.frame.size as usize {
            self.arm(index, now_ns, uring);
            return None;
        }
        let peer = self.peer(index);
        if !has_room(peer, &header) {
            self.stop_reading(index);
            return None;
        }
        match self.take(index, &header) {
            Ok(Some(message)) => {
                self.counters.received += 1;
                self.consumed(index, header.frame.size as usize, now_ns);
                Some(Received::Message(peer, message))
            }
            Ok(None) => {
                self.stop_reading(index);
                None
            }
            Err(invalid) => {
                self.refuse(index, invalid.into(), now_ns, uring);
                None
            }
        }
    }

    fn header(&self, index: u32) -> Header {
        let connection = &self.connections[index as usize];
        let buffer = connection.buffer.as_ref().expect("asked by the caller");
        // Copied: inside a stream it may lie at any offset, and typed access needs alignment.
        Header::read_from_bytes(&buffer.buffer()[connection.start..][..HEADER_SIZE])
            .expect("256 bytes are a header")
    }

    fn peer(&self, index: u32) -> Peer {
        let connection = &self.connections[index as usize];
        match connection.state {
            State::Replica(replica) => Peer::Replica(replica),
            State::Client => Peer::Client(ConnectionId {
                index,
                generation: connection.generation,
            }),
            state => unreachable!("no message comes from a connection in state {state:?}"),
        }
    }

    /// Checks a header against itself and against the connection it came over. A replica that has just said who it is
    /// is named; its hello is then a message like any other.
    fn check_header(
        &mut self,
        index: u32,
        header: &Header,
        now_ns: u64,
        uring: &mut Uring,
    ) -> Result<Option<u8>, Refusal> {
        let message_size_max = self.identity.geometry.message_size_max as usize;
        let ours = self.identity.cluster;
        let command = header
            .check(ours, message_size_max)
            .map_err(|invalid| match invalid {
                Invalid::Cluster => Refusal::Cluster {
                    theirs: header.frame.cluster,
                    ours,
                    of_replica: header.command().is_some_and(is_between_replicas),
                },
                invalid => Refusal::Invalid(invalid),
            })?;
        match self.connections[index as usize].state {
            State::Hello(dialled) => {
                return self.check_hello(index, header, command, dialled, now_ns, uring);
            }
            State::Replica(peer) => {
                if !is_between_replicas(command) {
                    return Err(Refusal::Command(command));
                }
                if !Self::speaks_for(peer, header) {
                    let claimed = header.frame.replica;
                    return Err(Refusal::Author { peer, claimed });
                }
                self.dials[usize::from(peer)].attempts = 0;
            }
            _ => {
                if !matches!(command, Command::Request | Command::PingClient) {
                    return Err(Refusal::Command(command));
                }
            }
        }
        self.connections[index as usize].frame_size = Some(header.frame.size as usize);
        Ok(None)
    }

    fn check_hello(
        &mut self,
        index: u32,
        header: &Header,
        command: Command,
        dialled: Option<u8>,
        now_ns: u64,
        uring: &mut Uring,
    ) -> Result<Option<u8>, Refusal> {
        let (theirs, count) = match (command, dialled) {
            (Command::Ping, _) => {
                let ping: &Ping = header.typed();
                (ping.fingerprint, ping.replica_count)
            }
            (Command::Pong, Some(_)) => {
                let pong: &Pong = header.typed();
                (pong.fingerprint, pong.replica_count)
            }
            (Command::PingClient, None) => return self.check_client_hello(index),
            _ => return Err(Refusal::NoHello),
        };
        let claimed = header.frame.replica;
        let (own, ours) = (self.identity.replica, self.identity.replica_count);
        if claimed == own || claimed >= ours {
            return Err(Refusal::Index {
                claimed,
                own,
                count: ours,
            });
        }
        if let Some(expected) = dialled.filter(|&expected| expected != claimed) {
            return Err(Refusal::WrongReplica { claimed, expected });
        }
        if count != ours {
            return Err(Refusal::ReplicaCount {
                claimed,
                theirs: count,
                ours,
            });
        }
        if theirs != self.fingerprint {
            return Err(Refusal::Fingerprint {
                claimed,
                theirs,
                ours: self.fingerprint,
            });
        }
        self.connections[index as usize].state = State::Replica(claimed);
        log::info!("connected with replica {claimed}");
        if dialled.is_some() {
            // The replica was told when the dialling ended.
            self.dials[usize::from(claimed)].attempts = 0;
            self.connections[index as usize].frame_size = Some(HEADER_SIZE); // pings and pongs have no body
            return Ok(None);
        }
        self.hellos -= 1;
        self.connections[index as usize].class = Class::Peer;
        self.replace_peer(claimed, index, now_ns, uring);
        Ok(Some(claimed))
    }

    fn check_client_hello(&mut self, index: u32) -> Result<Option<u8>, Refusal> {
        if self.clients == self.options.clients_max {
            self.counters.clients_full += 1;
            return Err(Refusal::ClientsFull(self.clients));
        }
        self.hellos -= 1;
        self.clients += 1;
        let connection = &mut self.connections[index as usize];
        connection.state = State::Client;
        connection.class = Class::Client;
        connection.frame_size = Some(HEADER_SIZE); // a ping_client has no body, by its own rule
        Ok(None)
    }

    fn refuse(&mut self, index: u32, refusal: Refusal, now_ns: u64, uring: &mut Uring) {
        self.counters.refused += 1;
        let kind = if refusal.is_of_replica() {
            Class::Peer
        } else {
            self.connections[index as usize].class
        };
        self.log_refusal(now_ns, index, kind, format_args!("{refusal}"), uring);
        self.close(index, now_ns, uring);
    }

    /// Takes a complete message out of the buffer. None: there is no buffer to put it into.
    fn take(&mut self, index: u32, header: &Header) -> Result<Option<Message>, Invalid> {
        let connection = &mut self.connections[index as usize];
        let size = header.frame.size as usize;
        let bytes = connection.start..connection.start + size;
        let buffer = connection.buffer.as_ref().expect("asked by the caller");
        header.check_body(&buffer.buffer()[bytes.clone()][HEADER_SIZE..])?;
        // A staging buffer never leaves its connection.
        let fits = if size <= SMALL_SIZE {
            SMALL_SIZE
        } else {
            self.peer_large.message_size()
        };
        let alone = connection.start == 0 && connection.filled == size;
        if alone && !connection.staging && buffer.buffer().len() == fits {
            let mut message = connection.buffer.take().expect("asked by the caller");
            message.zero_tail();
            return Ok(Some(message));
        }
        let pool = match connection.class {
            _ if size <= SMALL_SIZE => &self.small,
            Class::Peer => &self.peer_large,
            _ => &self.client_large,
        };
        let Some(mut message) = pool.take() else {
            return Ok(None);
        };
        message.buffer_mut()[..size].copy_from_slice(&buffer.buffer()[bytes]);
        message.zero_tail();
        Ok(Some(message))
    }

    /// A message has left the buffer.
    fn consumed(&mut self, index: u32, size: usize, now_ns: u64) {
        let connection = &mut self.connections[index as usize];
        connection.start += size;
        connection.frame_size = None;
        assert!(connection.start <= connection.filled);
        if connection.start == connection.filled {
            connection.start = 0;
            connection.filled = 0;
            connection.frame_since_ns = None;
        } else {
            assert!(connection.buffer.is_some());
            connection.frame_since_ns = Some(now_ns);
        }
    }

    /// Reads on: makes sure of a buffer that holds what is announced, and receives.
    pub(super) fn arm(&mut self, index: u32, now_ns: u64, uring: &mut Uring) {
        let connection = &mut self.connections[index as usize];
        if connection.receiving || matches!(connection.state, State::Free | State::Closing) {
            return;
        }
        let large: &MessagePool = match connection.class {
            Class::Peer => &self.peer_large,
            Class::Hello | Class::Client => &self.client_large,
        };
        let frame_size = connection.frame_size.unwrap_or(0);
        let stages = connection.class == Class::Client && connection.busy;
        let mut capacity = connection.buffer.as_ref().map_or(0, |b| b.buffer().len());
        if connection.class != Class::Peer
            && connection.available() == 0
            && capacity > SMALL_SIZE
            && !stages
        {
            // A client keeps more than a small buffer only while it sends a large message, or many.
            connection.buffer = None;
            capacity = 0;
        }
        // A replica's messages are large as a rule: it reads ahead further, once its buffer is empty.
        let wants_large = frame_size > SMALL_SIZE.max(capacity)
            || matches!(connection.state, State::Replica(_))
                && connection.available() == 0
                && capacity <= SMALL_SIZE;
        let wants_staging = !wants_large && stages && capacity <= SMALL_SIZE;
        if capacity == 0 || wants_large || wants_staging {
            let taken = if wants_large { large.take() } else { None };
            let staging = if wants_staging {
                self.staging.take()
            } else {
                None
            };
            let is_staging = staging.is_some();
            // Without a better buffer small messages still come, and acknowledgements must.
            let small = frame_size <= SMALL_SIZE && capacity == 0 && taken.is_none() && !is_staging;
            let taken = taken
                .or(staging)
                .or_else(|| if small { self.small.take() } else { None });
            match taken {
                Some(mut buffer) => {
                    let rest = connection.start..connection.filled;
                    if let Some(old) = &connection.buffer {
                        buffer.buffer_mut()[..rest.len()].copy_from_slice(&old.buffer()[rest]);
                        connection.filled -= connection.start;
                        connection.start = 0;
                    }
                    connection.buffer = Some(buffer);
                    connection.staging = is_staging;
                }
                None if capacity == 0 || frame_size > capacity => {
                    if connection.frame_since_ns.is_some() {
                        connection.frame_since_ns = Some(now_ns);
                    }
                    return self.stop_reading(index);
                }
                None => {}
            }
        }
        self.receive(index, uring);
    }

    fn receive(&mut self, index: u32, uring: &mut Uring) {
        let connection = &mut self.connections[index as usize];
        let mut buffer = connection.buffer.take().expect("arm made sure");
        if connection.start > 0 {
            let rest = connection.start..connection.filled;
            buffer.buffer_mut().copy_within(rest, 0);
            connection.filled -= connection.start;
            connection.start = 0;
        }
        let at = connection.filled;
        let (size, whole) = match connection.frame_size {
            Some(frame_size) if frame_size > EXACT_MIN.min(buffer.buffer().len()) => {
                (frame_size - at, true)
            }
            _ => (buffer.buffer().len().min(AHEAD_MAX) - at, false),
        };
        assert!(size > 0 && at + size <= buffer.buffer().len());
        connection.receiving = true;
        uring.receive(index, buffer, at, size, whole);
    }
}

fn is_between_replicas(command: Command) -> bool {
    match command {
        Command::Prepare
        | Command::PrepareOk
        | Command::Commit
        | Command::CommitOk
        | Command::StartViewChange
        | Command::DoViewChange
        | Command::StartView
        | Command::RequestStartView
        | Command::Ping
        | Command::Pong
        | Command::RequestHeaders
        | Command::Headers
        | Command::RequestPrepare
        | Command::NoPrepare
        | Command::RequestPages
        | Command::Page => true,
        Command::Request
        | Command::Reply
        | Command::PingClient
        | Command::PongClient
        | Command::Eviction
        | Command::Rejected => false,
    }
}
