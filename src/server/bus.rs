//! The message bus: who is connected, what came from whom, what goes to whom.
//!
//! * Connections live in one fixed table, counted by class: at most `clients_max` clients, at most [`HELLO_MAX`] that
//!   have not said who they are, and room that neither can take for [`SLOTS_PER_PEER`] connections with each replica.
//! * **When a table is full**: without a free slot or with [`HELLO_MAX`] strangers nothing is accepted, and the kernel's
//!   backlog holds the newcomers (a stranger has five seconds to speak); a client beyond `clients_max` is closed, and its
//!   library goes on to the next replica.
//! * **When a send queue is full**: to a replica, the message is dropped (the protocol sends again); to a client, the
//!   connection is closed, since a client that does not read its answers would hold their buffers for ever.
//! * **When receive buffers run out**: the connection is not read until one is free. Buffers for replicas and for clients
//!   are apart, so no client can stop a replica's acknowledgements.
//! * **The first message to a replica is a ping or a pong**: until one is queued, others are dropped, so that the other end
//!   always learns who we are first.
//! * Replica i dials every replica j > i, so that two replicas never dial each other at once; a new connection from a
//!   replica replaces its old one. Dialling backs off exponentially, with full jitter; only bytes that pass every check
//!   reset it, since a port that accepts and falls silent is no replica.
//! * Wrong bytes close the connection, are counted and logged, at most a line a second for replicas, and one for all
//!   others: so no client hides what is wrong with a replica. Nothing a peer sends is a panic.

mod connection;
mod receive;
#[cfg(test)]
mod tests;

use super::identity::Identity;
use super::resolve::Addresses;
use crate::quorums::ReplicaSet;
use crate::replica::{ConnectionId, Peer};
use connection::{Class, Connection, State};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
pub use receive::Received;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;
use storage::SECTOR_SIZE;
use storage::buffer::{MessagePool, SharedMessage};
use storage::header::{Command, Header};
use storage::layout::REPLICAS_MAX;
use storage::uring::{Errno, Uring};

/// Most connections that have not said who they are.
pub const HELLO_MAX: usize = 64;

/// Connections with one replica: the current one, and the one that it replaces while that closes.
pub const SLOTS_PER_PEER: usize = 2;

/// Until a stranger must have said who it is, and a dialled address must have answered.
const HELLO_NS: u64 = 5_000_000_000;

/// Until a message whose first byte has come must be complete.
const FRAME_NS: u64 = 10_000_000_000;

/// Until what was given to the kernel must be sent.
const SEND_NS: u64 = 30_000_000_000;

/// As [`SEND_NS`], for a client that has much to read: it holds buffers that others wait for.
const SEND_BACKLOG_NS: u64 = 2_000_000_000;

/// Answers that a client may have waiting without being in a hurry.
const BACKLOG_MAX: usize = 64;

/// How often deadlines are checked.
const CHECK_NS: u64 = 100_000_000;

/// First and largest bound of the pause before dialling again.
const BACKOFF_MIN_NS: u64 = 50_000_000;
const BACKOFF_MAX_NS: u64 = 1_000_000_000;

/// Least time between two lines about bad connections.
const LOG_NS: u64 = 1_000_000_000;

/// Bytes that the kernel may hold for a connection in each direction: a few large messages.
const SOCKET_BUFFER_SIZE: usize = 4 << 20;

/// Size of a buffer into which a client that sends many requests is read: they are copied out of it one by one, and
/// enter one batch together.
pub const STAGING_SIZE: usize = 64 * 1024;

/// Clients that are read with a staging buffer at once; others of them get by with a small one.
pub const STAGING_MAX: usize = 32;

/// Size of a small message buffer: what every control message and most requests fit into.
pub const SMALL_SIZE: usize = SECTOR_SIZE;

/// Sizes of the bus's tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusOptions {
    /// Most clients.
    pub clients_max: usize,
    /// Messages that wait for a replica's connection.
    pub peer_queue_max: usize,
    /// Messages that wait for a client's connection.
    pub client_queue_max: usize,
    /// Most messages above 4 KiB among them: they hold buffers that others need.
    pub large_queue_max: usize,
    /// Large buffers for what replicas send.
    pub peer_large: usize,
    /// Large buffers for what clients send.
    pub client_large: usize,
    /// Small buffers, those that receive included.
    pub small: usize,
    /// Seed of the jitter.
    pub seed: u64,
}

impl BusOptions {
    /// Connections in the table.
    pub fn connections(&self, replica_count: u8) -> usize {
        SLOTS_PER_PEER * (usize::from(replica_count) - 1) + self.clients_max + HELLO_MAX
    }
}

/// What has happened so far; for `status` and for tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BusCounters {
    /// Connections closed because of what they sent.
    pub refused: u64,
    /// Connections closed because they were too slow.
    pub overdue: u64,
    /// Messages dropped because a replica's queue was full or it was not connected.
    pub dropped: u64,
    /// Clients closed because their queue was full.
    pub unread: u64,
    /// Clients closed because there were too many.
    pub clients_full: u64,
    /// Messages received.
    pub received: u64,
}

/// Dialling one replica.
#[derive(Clone, Copy, Debug, Default)]
struct Dial {
    attempts: u32,
    next_ns: u64,
    /// The connection that dials or was dialled.
    connection: Option<u32>,
}

/// The bus. See the module's description.
#[derive(Debug)]
pub struct Bus {
    identity: Identity,
    fingerprint: u128,
    options: BusOptions,
    connections: Box<[Connection]>,
    free: Vec<u32>,
    hellos: usize,
    clients: usize,
    /// The connection that serves each replica.
    peers: [Option<u32>; REPLICAS_MAX],
    dials: [Dial; REPLICAS_MAX],
    addresses: Addresses,
    /// Connections with messages to send, each once.
    unsent: Vec<u32>,
    /// Connections whose reading stopped for want of room or of a buffer, each once.
    stopped: VecDeque<u32>,
    /// Clients that are gone and that the replica must hear of.
    gone: VecDeque<ConnectionId>,
    peer_large: MessagePool,
    client_large: MessagePool,
    small: MessagePool,
    staging: MessagePool,
    random: Xoshiro256PlusPlus,
    counters: BusCounters,
    next_check_ns: u64,
    /// Nothing is accepted before this: an accept has failed.
    next_accept_ns: u64,
    /// Lines about replicas, and about all others.
    refusals: [Refusals; 2],
}

/// Lines about connections that were closed.
#[derive(Clone, Copy, Debug, Default)]
struct Refusals {
    next_log_ns: u64,
    unlogged: u64,
}

impl Refusals {
    fn may_log(&mut self, now_ns: u64) -> bool {
        if now_ns < self.next_log_ns {
            self.unlogged += 1;
            return false;
        }
        self.next_log_ns = now_ns + LOG_NS;
        true
    }
}

impl Bus {
    /// A bus without connections.
    pub fn new(identity: Identity, options: BusOptions, addresses: Addresses) -> Self {
        let count = options.connections(identity.replica_count);
        let message_size = identity.geometry.message_size_max as usize;
        let queue_max = options.peer_queue_max.max(options.client_queue_max);
        Self {
            identity,
            fingerprint: identity.geometry.fingerprint(identity.replica_count),
            options,
            connections: (0..count).map(|_| Connection::new(queue_max)).collect(),
            free: (0..count as u32).rev().collect(),
            hellos: 0,
            clients: 0,
            peers: [None; REPLICAS_MAX],
            dials: [Dial::default(); REPLICAS_MAX],
            addresses,
            unsent: Vec::with_capacity(count),
            stopped: VecDeque::with_capacity(count),
            gone: VecDeque::with_capacity(2 * count),
            peer_large: MessagePool::new(options.peer_large, message_size),
            client_large: MessagePool::new(options.client_large, message_size),
            small: MessagePool::new(options.small, SMALL_SIZE),
            staging: MessagePool::new(STAGING_MAX, STAGING_SIZE),
            random: Xoshiro256PlusPlus::seed_from_u64(options.seed),
            counters: BusCounters::default(),
            next_check_ns: 0,
            next_accept_ns: 0,
            refusals: [Refusals::default(); 2],
        }
    }

    /// What has happened so far.
    pub fn counters(&self) -> BusCounters {
        self.counters
    }

    /// When [`Bus::tick`] wants to run next.
    pub fn deadline_ns(&self) -> u64 {
        self.next_check_ns
    }

    /// A client that is gone, if the replica was not told yet.
    pub fn next_gone(&mut self) -> Option<ConnectionId> {
        self.gone.pop_front()
    }

    /// A connection whose reading had stopped; the caller tries it again ([`Bus::next`]). Ask [`Bus::stopped`] times in
    /// a turn, no more: one that must stop again queues up again.
    pub fn next_stopped(&mut self) -> Option<u32> {
        let index = self.stopped.pop_front()?;
        self.connections[index as usize].stopped = false;
        Some(index)
    }

    /// Connections whose reading has stopped.
    pub fn stopped(&self) -> usize {
        self.stopped.len()
    }

    /// The other replicas that have not greeted over a connection that stands.
    pub fn silent(&self) -> ReplicaSet {
        let mut silent = ReplicaSet::default();
        for replica in 0..self.identity.replica_count {
            let connection = self.peers[usize::from(replica)];
            let state = connection.map(|index| self.connections[index as usize].state);
            if replica != self.identity.replica && state != Some(State::Replica(replica)) {
                silent.insert(replica);
            }
        }
        silent
    }

    fn stop_reading(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if !std::mem::replace(&mut connection.stopped, true) {
            self.stopped.push_back(index);
        }
    }
}

/// Connecting.
impl Bus {
    /// Accepts if there is room for a stranger, dials whom it is time to dial, and closes what is overdue.
    pub fn tick(&mut self, now_ns: u64, uring: &mut Uring) {
        let has_room = self.hellos < HELLO_MAX && !self.free.is_empty();
        if has_room && self.next_accept_ns <= now_ns {
            uring.accept();
        }
        if now_ns < self.next_check_ns {
            return;
        }
        self.next_check_ns = now_ns + CHECK_NS;
        for index in 0..self.connections.len() as u32 {
            self.check_deadlines(index, now_ns, uring);
        }
        for replica in self.identity.replica + 1..self.identity.replica_count {
            let dial = self.dials[usize::from(replica)];
            if dial.connection.is_none() && self.peers[usize::from(replica)].is_none() {
                if dial.next_ns <= now_ns {
                    self.dial(replica, now_ns, uring);
                } else {
                    self.next_check_ns = self.next_check_ns.min(dial.next_ns);
                }
            }
        }
    }

    fn check_deadlines(&mut self, index: u32, now_ns: u64, uring: &mut Uring) {
        let connection = &mut self.connections[index as usize];
        let (since_ns, allowed_ns, what) = match connection.state {
            State::Free | State::Closing => return,
            State::Connecting(_) => (connection.opened_ns, HELLO_NS, "did not answer"),
            State::Hello(_) => (connection.opened_ns, HELLO_NS, "did not say who it is"),
            State::Replica(_) | State::Client => match connection.frame_since_ns {
                // What we did not read is no fault of the other end.
                Some(_) if connection.stopped => {
                    connection.frame_since_ns = Some(now_ns);
                    return;
                }
                Some(since_ns) => (since_ns, FRAME_NS, "did not finish a message"),
                None if uring.is_sending(index) => {
                    let many = connection.queue.len() > BACKLOG_MAX || connection.large_queued > 0;
                    let hurry = connection.class == Class::Client && many;
                    let allowed_ns = if hurry { SEND_BACKLOG_NS } else { SEND_NS };
                    (connection.sending_since_ns, allowed_ns, "does not read")
                }
                None => return,
            },
        };
        if now_ns.saturating_sub(since_ns) > allowed_ns {
            let quiet = matches!(connection.state, State::Connecting(_));
            self.counters.overdue += 1;
            let class = connection.class;
            if !quiet {
                self.log_refusal(now_ns, index, class, format_args!("{what} in time"), uring);
            }
            self.close(index, now_ns, uring);
        }
    }

    /// A stranger has come.
    pub fn accepted(&mut self, now_ns: u64, result: Result<OwnedFd, Errno>, uring: &mut Uring) {
        let fd = match result {
            Ok(fd) => fd,
            Err(Errno(errno)) => {
                // Out of descriptors, or the stranger has left again.
                self.next_accept_ns = now_ns + CHECK_NS;
                if self.refusals(Class::Hello).may_log(now_ns) {
                    log::warn!("a connection was not accepted: errno {errno}");
                }
                return;
            }
        };
        let Some(index) = self.free.pop() else { return };
        set_options(&fd);
        if uring.open(index, fd).is_err() {
            self.free.push(index);
            return;
        }
        self.hellos += 1;
        self.begin(index, State::Hello(None), Class::Hello, now_ns);
        self.arm(index, now_ns, uring);
    }

    fn begin(&mut self, index: u32, state: State, class: Class, now_ns: u64) {
        let connection = &mut self.connections[index as usize];
        assert_eq!(connection.state, State::Free);
        connection.state = state;
        connection.class = class;
        connection.opened_ns = now_ns;
        connection.generation = connection.generation.wrapping_add(1);
    }

    fn dial(&mut self, replica: u8, now_ns: u64, uring: &mut Uring) {
        let attempts = self.dials[usize::from(replica)].attempts;
        let bound_ns = (BACKOFF_MIN_NS << attempts.min(10)).min(BACKOFF_MAX_NS);
        let dial = &mut self.dials[usize::from(replica)];
        dial.attempts = attempts.saturating_add(1);
        dial.next_ns = now_ns + self.random.next_u64() % bound_ns;
        let Some(address) = self.addresses.pick(replica, attempts) else {
            return;
        };
        let Ok(fd) = dial_socket(address) else { return };
        let Some(index) = self.free.pop() else { return };
        set_options(&fd);
        if uring.open(index, fd).is_err() {
            self.free.push(index);
            return;
        }
        self.dials[usize::from(replica)].connection = Some(index);
        self.begin(index, State::Connecting(replica), Class::Peer, now_ns);
        log::debug!("dialling replica {replica} at {address}");
        uring.connect(index, address);
    }

    /// A dialled address has answered, or not. The replica that is connected now, if one is.
    pub fn connected(
        &mut self,
        now_ns: u64,
        index: u32,
        result: Result<(), Errno>,
        uring: &mut Uring,
    ) -> Option<u8> {
        let State::Connecting(replica) = self.connections[index as usize].state else {
            return None;
        };
        if let Err(errno) = result {
            log::debug!("replica {replica} does not answer: {errno}");
            self.close(index, now_ns, uring);
            return None;
        }
        let connection = &mut self.connections[index as usize];
        connection.state = State::Hello(Some(replica));
        connection.opened_ns = now_ns;
        self.replace_peer(replica, index, now_ns, uring);
        self.arm(index, now_ns, uring);
        Some(replica)
    }

    /// Makes a connection the one that serves `replica`.
    fn replace_peer(&mut self, replica: u8, index: u32, now_ns: u64, uring: &mut Uring) {
        let old = self.peers[usize::from(replica)].replace(index);
        if let Some(old) = old.filter(|&old| old != index) {
            self.close(old, now_ns, uring);
        }
        self.peers[usize::from(replica)] = Some(index);
    }

    /// Closes a connection; its slot is free when [`Bus::closed`] is told.
    pub(super) fn close(&mut self, index: u32, now_ns: u64, uring: &mut Uring) {
        let connection = &mut self.connections[index as usize];
        if matches!(connection.state, State::Free | State::Closing) {
            return;
        }
        if connection.state == State::Client {
            self.gone.push_back(ConnectionId {
                index,
                generation: connection.generation,
            });
        }
        if let State::Replica(replica) = connection.state {
            log::info!("disconnected from replica {replica}");
        }
        connection.state = State::Closing;
        connection.drop_buffers();
        for peer in &mut self.peers {
            peer.take_if(|connection| *connection == index);
        }
        for dial in &mut self.dials {
            if dial.connection.take_if(|other| *other == index).is_some() {
                self.next_check_ns = self.next_check_ns.min(dial.next_ns.max(now_ns));
            }
        }
        uring.close(index);
    }

    /// A connection's slot is free again.
    pub fn closed(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        assert_eq!(connection.state, State::Closing);
        connection.state = State::Free;
        match connection.class {
            Class::Hello => self.hellos -= 1,
            Class::Client => self.clients -= 1,
            Class::Peer => {}
        }
        self.free.push(index);
        assert!(self.free.len() <= self.connections.len());
    }

    fn refusals(&mut self, class: Class) -> &mut Refusals {
        &mut self.refusals[usize::from(class != Class::Peer)]
    }

    fn log_refusal(
        &mut self,
        now_ns: u64,
        index: u32,
        class: Class,
        why: std::fmt::Arguments<'_>,
        uring: &Uring,
    ) {
        if !self.refusals(class).may_log(now_ns) {
            return;
        }
        let fd = uring.socket(index);
        let address = fd.and_then(|fd| rustix::net::getpeername(fd).ok().flatten());
        let address = address.and_then(|any| SocketAddr::try_from(any).ok());
        let unlogged = std::mem::take(&mut self.refusals(class).unlogged);
        match address {
            Some(address) => log::warn!("connection with {address} closed: {why}"),
            None => log::warn!("connection closed: {why}"),
        }
        if unlogged > 0 {
            log::warn!("and {unlogged} more connections were closed since the last such line");
        }
    }
}

/// Sending.
impl Bus {
    /// Queues a message for its peer. What happens when it cannot be queued: see the module.
    pub fn send(&mut self, now_ns: u64, to: Peer, message: SharedMessage, uring: &mut Uring) {
        let (index, queue_max) = match to {
            Peer::Replica(replica) => {
                let Some(index) = self.peers[usize::from(replica)] else {
                    self.counters.dropped += 1;
                    return;
                };
                (index, self.options.peer_queue_max)
            }
            Peer::Client(id) => {
                let connection = &self.connections[id.index as usize];
                if connection.generation != id.generation || connection.state != State::Client {
                    return;
                }
                (id.index, self.options.client_queue_max)
            }
        };
        let connection = &mut self.connections[index as usize];
        if matches!(to, Peer::Replica(_)) && !connection.greeted {
            let command = message.header().command();
            if !matches!(command, Some(Command::Ping | Command::Pong)) {
                self.counters.dropped += 1;
                return;
            }
            connection.greeted = true;
        }
        let large = message.buffer().len() > SMALL_SIZE;
        // Answers to clients are bounded by the buffers there are for them.
        let large_full = matches!(to, Peer::Replica(_))
            && connection.large_queued >= self.options.large_queue_max;
        if connection.queue.len() < queue_max && !(large && large_full) {
            connection.enqueue(message);
            if !std::mem::replace(&mut connection.unsent, true) {
                self.unsent.push(index);
            }
            return;
        }
        match to {
            Peer::Replica(_) => self.counters.dropped += 1,
            Peer::Client(_) => {
                self.counters.unread += 1;
                self.log_refusal(
                    now_ns,
                    index,
                    Class::Client,
                    format_args!("the client does not read its answers"),
                    uring,
                );
                self.close(index, now_ns, uring);
            }
        }
    }

    /// Gives queued messages to the driver, one send for each connection.
    pub fn flush(&mut self, now_ns: u64, uring: &mut Uring) {
        while let Some(index) = self.unsent.pop() {
            self.connections[index as usize].unsent = false;
            self.send_queued(index, now_ns, uring);
        }
    }

    fn send_queued(&mut self, index: u32, now_ns: u64, uring: &mut Uring) {
        let connection = &mut self.connections[index as usize];
        let open = !matches!(connection.state, State::Free | State::Closing);
        if open && !connection.queue.is_empty() && !uring.is_sending(index) {
            connection.sending_since_ns = now_ns;
            uring.send(index, || connection.dequeue());
        }
    }

    /// A send has ended; the next goes out.
    pub fn sent(&mut self, now_ns: u64, index: u32, result: Result<(), Errno>, uring: &mut Uring) {
        match result {
            Ok(()) => self.send_queued(index, now_ns, uring),
            Err(errno) => {
                log::debug!("connection {index} broke while sending: {errno}");
                self.close(index, now_ns, uring);
            }
        }
    }

    /// Queues of all connections are empty and nothing is being sent.
    pub fn is_flushed(&self, uring: &Uring) -> bool {
        let mut connections = self.connections.iter().zip(0..);
        connections.all(|(connection, index)| {
            connection.state == State::Free
                || connection.queue.is_empty() && !uring.is_sending(index)
        })
    }

    /// Whether `header` may come over a connection with `peer`: its author is the peer itself, except where messages
    /// are relayed.
    pub fn speaks_for(peer: u8, header: &Header) -> bool {
        matches!(header.command(), Some(Command::Prepare | Command::Headers))
            || header.frame.replica == peer
    }
}

fn dial_socket(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Small messages leave at once, and a dead peer is noticed within seconds. None of it is needed for correctness, so a
/// kernel that refuses an option is not an error.
fn set_options(fd: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(fd, true);
    // Large messages enter and leave the kernel whole; without this they trickle, a wake-up for each piece. The kernel
    // allows less if net.core.rmem_max and wmem_max say so.
    let _ = sockopt::set_socket_recv_buffer_size(fd, SOCKET_BUFFER_SIZE);
    let _ = sockopt::set_socket_send_buffer_size(fd, SOCKET_BUFFER_SIZE);
    let _ = sockopt::set_socket_keepalive(fd, true);
    let _ = sockopt::set_tcp_keepidle(fd, Duration::from_secs(5));
    let _ = sockopt::set_tcp_keepintvl(fd, Duration::from_secs(4));
    let _ = sockopt::set_tcp_keepcnt(fd, 3);
    let _ = sockopt::set_tcp_user_timeout(fd, 17_000); // the keepalive's own sum
}
