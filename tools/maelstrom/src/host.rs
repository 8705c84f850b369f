//! Hosts the replica as the server does, its data file on the same io_uring driver, with a network that is not its own:
//! messages come as bytes ([`Host::receive`]) and leave as bytes ([`Host::next_send`]).
//!
//! What comes is checked as the server checks what a socket brings. A message for which the replica has no room waits, and
//! those of the same sender behind it; beyond [`HELD_MAX`] of them they are lost, as messages may be.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;
use storage::SECTOR_SIZE;
use storage::buffer::{Message, MessagePool};
use storage::header::{Command, HEADER_SIZE, Header, Invalid, ReplicaStatus};
use storage::layout::Geometry;
use storage::uring::{Done, Durability, Uring, UringOptions, Wait};
use viewstone::constants;
use viewstone::replica::{ConnectionId, Effects, Event, Now, Peer, Replica, ReplicaOptions};
use viewstone::server::bus::Bus;
use viewstone::server::{Identity, ServerError, read_clocks};
use viewstone::state_machine::kv::Kv;
use zerocopy::FromBytes;

/// What the cluster runs: the released binary's machines.
pub type Machines = (Kv,);

/// Messages of one sender that may wait for room.
const HELD_MAX: usize = 256;

/// Buffers to receive into, beside those that the replica holds.
const RECEIVING: usize = 8;

/// Completions that one turn handles.
const COMPLETIONS_MAX: usize = 512;

/// Entries of the submission queue.
const RING_ENTRIES: u32 = 256;

/// Longest sleep.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The ring's only socket: it tells of lines.
const WAKE: u32 = 0;

/// Why bytes are not a message for this replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// They are none at all.
    Malformed(Invalid),
    /// Shorter or longer than the header says.
    Size,
    /// Not what this sender may say.
    Sender,
}

/// The header of a message from outside, if all of it is sound.
///
/// # Errors
/// Why it is not.
pub fn check(identity: &Identity, bytes: &[u8]) -> Result<(Header, Command), Refusal> {
    let (header, body) = bytes.split_at_checked(HEADER_SIZE).ok_or(Refusal::Size)?;
    let header = Header::read_from_bytes(header).expect("these are as many bytes as a header has");
    let size_max = identity.geometry.message_size_max as usize;
    let command = header.check(identity.cluster, size_max);
    let command = command.map_err(Refusal::Malformed)?;
    if header.frame.size as usize != bytes.len() {
        return Err(Refusal::Size);
    }
    header.check_body(body).map_err(Refusal::Malformed)?;
    Ok((header, command))
}

/// Whether a sender may say this.
fn may_say(from: Peer, header: &Header, command: Command) -> bool {
    match from {
        Peer::Replica(replica) => Bus::speaks_for(replica, header),
        Peer::Client(_) => matches!(command, Command::Request | Command::PingClient),
    }
}

/// The connection that stands for the client sessions of a node.
pub fn sessions_of(node: u8) -> Peer {
    Peer::Client(ConnectionId {
        index: node.into(),
        generation: 0,
    })
}

/// See the module's description.
pub struct Host {
    identity: Identity,
    replica: Box<Replica<Machines>>,
    effects: Effects,
    uring: Uring,
    small: MessagePool,
    large: MessagePool,
    sends: VecDeque<(Peer, Vec<u8>)>,
    /// Messages that wait for room, by sender: replicas, then sessions.
    held: Vec<VecDeque<(Peer, Vec<u8>)>>,
    now: Now,
    /// Others have been greeted.
    greeted: bool,
    /// Events have come since the last turn was ended.
    stepped: bool,
}

impl Host {
    /// Begins to read the data file. Turns end when `wake` has something to read.
    ///
    /// # Errors
    /// There is no io_uring, or it takes not these files.
    pub fn start(
        identity: Identity,
        entropy: [u8; 32],
        file: OwnedFd,
        wake: OwnedFd,
    ) -> Result<Self, ServerError> {
        let geometry = identity.geometry;
        let io_max = Replica::<Machines>::io_max(&geometry);
        let mut uring = Uring::new(&UringOptions {
            entries: RING_ENTRIES,
            disk_max: io_max,
            sockets_max: 1,
            durability: Durability::default(),
            fixed_files: true,
        })?;
        let refused = |errno: storage::uring::Errno| ServerError::File(errno.0);
        uring.set_file(file).map_err(refused)?;
        uring.open(WAKE, wake).map_err(refused)?;
        let (small, large) = pools(&geometry);
        let options = ReplicaOptions {
            cluster: identity.cluster,
            replica: identity.replica,
            replica_count: identity.replica_count,
            geometry,
            entropy,
        };
        let senders = 2 * usize::from(identity.replica_count);
        let mut host = Self {
            identity,
            replica: Box::new(Replica::new(options, small.clone(), large.clone())),
            effects: Effects::new(Replica::<Machines>::sends_max(&geometry), io_max),
            uring,
            small,
            large,
            sends: VecDeque::new(),
            held: (0..senders).map(|_| VecDeque::new()).collect(),
            now: read_clocks(),
            greeted: false,
            stepped: true,
        };
        let wake_buffer = MessagePool::new(1, SECTOR_SIZE).take();
        host.listen(wake_buffer.expect("the pool is fresh"));
        host.replica.start(host.now, &mut host.effects);
        host.apply_effects()?;
        Ok(host)
    }

    /// Who the replica is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The time of this turn, in nanoseconds of the monotonic clock.
    pub fn now_ns(&self) -> u64 {
        self.now.monotonic_ns
    }

    /// What the replica is doing.
    pub fn status(&self) -> ReplicaStatus {
        self.replica.status()
    }

    fn listen(&mut self, buffer: Message) {
        self.uring.receive(WAKE, buffer, 0, SECTOR_SIZE, false);
    }

    /// Begins a turn: waits until something has happened, or until `until_ns`, and takes what the disk has done.
    ///
    /// # Errors
    /// The replica or its ring cannot go on.
    pub fn begin_turn(&mut self, until_ns: u64) -> Result<(), ServerError> {
        self.uring.turn(self.wait(until_ns))?;
        self.now = read_clocks();
        for _ in 0..COMPLETIONS_MAX {
            match self.uring.next_done() {
                None => break,
                Some(Done::Disk(done)) => self.step(Event::Io(done))?,
                // At its end the input is read to its end, and then the node stops.
                Some(Done::Received {
                    message,
                    result: Ok(1..),
                    ..
                }) => self.listen(message),
                Some(_) => {}
            }
        }
        if !self.greeted && self.replica.status() != ReplicaStatus::Opening {
            self.greeted = true;
            for other in 0..self.identity.replica_count {
                if other != self.identity.replica {
                    self.step(Event::Connected(other))?;
                }
            }
        }
        self.take_held()
    }

    fn wait(&self, until_ns: u64) -> Wait {
        if self.stepped || self.replica.has_work() {
            return Wait::Poll;
        }
        let until_ns = until_ns.min(self.replica.deadline_ns());
        let left = Duration::from_nanos(until_ns.saturating_sub(read_clocks().monotonic_ns));
        if left.is_zero() {
            Wait::Poll
        } else {
            Wait::AtMost(left.min(WAIT_MAX))
        }
    }

    /// Ends a turn.
    ///
    /// # Errors
    /// The replica cannot go on.
    pub fn end_turn(&mut self) -> Result<(), ServerError> {
        if self.replica.deadline_ns() <= self.now.monotonic_ns {
            self.step(Event::Tick)?;
        }
        self.stepped = false;
        self.replica.finish_turn(self.now, &mut self.effects);
        self.apply_effects()
    }

    /// Takes a message from another replica, or from the sessions of a node.
    ///
    /// # Errors
    /// The replica cannot go on; or, inside, why the message was refused.
    pub fn receive(
        &mut self,
        from: Peer,
        bytes: Vec<u8>,
    ) -> Result<Result<(), Refusal>, ServerError> {
        let (header, command) = match check(&self.identity, &bytes) {
            Ok(checked) => checked,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if !may_say(from, &header, command) {
            return Ok(Err(Refusal::Sender));
        }
        let sender = self.sender(from);
        if self.held[sender].len() < HELD_MAX {
            self.held[sender].push_back((from, bytes));
            self.take_held_of(sender)?;
        }
        Ok(Ok(()))
    }

    fn sender(&self, from: Peer) -> usize {
        match from {
            Peer::Replica(replica) => replica.into(),
            Peer::Client(id) => usize::from(self.identity.replica_count) + id.index as usize,
        }
    }

    fn take_held(&mut self) -> Result<(), ServerError> {
        (0..self.held.len()).try_for_each(|sender| self.take_held_of(sender))
    }

    fn take_held_of(&mut self, sender: usize) -> Result<(), ServerError> {
        while let Some((from, bytes)) = self.held[sender].pop_front() {
            let Some(message) = self.message_of(from, &bytes) else {
                self.held[sender].push_front((from, bytes));
                break;
            };
            self.step(Event::Message { from, message })?;
        }
        Ok(())
    }

    /// The bytes in a buffer of the replica; none if it has no room for them.
    fn message_of(&self, from: Peer, bytes: &[u8]) -> Option<Message> {
        let header = Header::read_from_bytes(&bytes[..HEADER_SIZE]);
        let header = header.expect("these are as many bytes as a header has");
        if !self.replica.has_room_for(from, &header) {
            return None;
        }
        let pool = if bytes.len() <= self.small.message_size() {
            &self.small
        } else {
            &self.large
        };
        let mut message = pool.take()?;
        message.buffer_mut()[..bytes.len()].copy_from_slice(bytes);
        message.zero_tail();
        Some(message)
    }

    /// The next message that the replica wants sent.
    pub fn next_send(&mut self) -> Option<(Peer, Vec<u8>)> {
        self.sends.pop_front()
    }

    fn step(&mut self, event: Event) -> Result<(), ServerError> {
        self.stepped = true;
        self.replica.step(self.now, event, &mut self.effects);
        self.apply_effects()
    }

    fn apply_effects(&mut self) -> Result<(), ServerError> {
        while let Some(send) = self.effects.sends.pop_front() {
            let bytes = send.message.bytes().to_vec();
            self.sends.push_back((send.to, bytes));
        }
        while self.uring.has_disk_room()
            && let Some(request) = self.effects.io.pop()
        {
            self.uring.submit_disk(request);
        }
        match self.effects.halt.take() {
            None => Ok(()),
            Some(fatal) => Err(fatal.into()),
        }
    }
}

fn pools(geometry: &Geometry) -> (MessagePool, MessagePool) {
    let needs = Replica::<Machines>::buffer_needs(geometry);
    let gathered = constants::requests_max(geometry) + constants::reads_max(geometry);
    let message_size = geometry.message_size_max as usize;
    (
        MessagePool::new(needs.small + gathered + RECEIVING, SECTOR_SIZE),
        MessagePool::new(needs.large + gathered + RECEIVING, message_size),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;
    use storage::header::{Commit, PingClient, Typed};
    use zerocopy::IntoBytes;

    fn ping_of(cluster: u128) -> Vec<u8> {
        let mut ping = PingClient::new(cluster, 0, 0);
        ping.client = 1;
        ping.header_mut().seal(&[]);
        ping.as_bytes().to_vec()
    }

    #[test]
    fn only_whole_messages_of_the_cluster_pass() {
        let names = ["n1".to_owned(), "n2".to_owned()];
        let identity = data::identity("n1", &names).expect("a cluster");
        let bytes = ping_of(identity.cluster);
        assert!(check(&identity, &bytes).is_ok());
        for bit in 0..8 * bytes.len() {
            let mut spoiled = bytes.clone();
            spoiled[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&identity, &spoiled).is_err(), "bit {bit}");
        }
        for size in 0..bytes.len() {
            let refusal = check(&identity, &bytes[..size]).err();
            assert_eq!(refusal, Some(Refusal::Size));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(check(&identity, &longer).err(), Some(Refusal::Size));
        assert!(check(&identity, &ping_of(identity.cluster ^ 1)).is_err());
    }

    #[test]
    fn replicas_speak_for_themselves_and_sessions_ask() {
        let commit = Commit::new(1, 0, 2);
        let header = commit.header();
        assert!(may_say(Peer::Replica(2), header, Command::Commit));
        assert!(!may_say(Peer::Replica(1), header, Command::Commit));
        assert!(!may_say(sessions_of(2), header, Command::Commit));
        let ping = PingClient::new(1, 0, 0);
        assert!(may_say(sessions_of(2), ping.header(), Command::PingClient));
    }
}
