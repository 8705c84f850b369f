//! One real replica on a disk in memory, driven by hand: events go in when the test says so.

use simulator::cluster::formatted;
use simulator::disk::{Disk, DiskSpeed};
use simulator::prng::Prng;
use storage::buffer::{Message, MessagePool};
use storage::header::{
    HEADER_SIZE, Header, REQUEST_ALIGN, Request, SUB_HEADER_SIZE, SubHeader, Typed,
};
use storage::layout::Geometry;
use storage::superblock::FileId;
use viewstone::constants;
use viewstone::machines::Machines;
use viewstone::replica::{
    ConnectionId, Effects, Event, Fatal, Now, Peer, Regressed, Replica, ReplicaOptions,
};
use zerocopy::{FromBytes, IntoBytes};

pub const CLUSTER: u128 = 77;

/// The one connection of a client.
pub const CLIENT: Peer = Peer::Client(ConnectionId {
    index: 0,
    generation: 0,
});

/// Buffers for messages that a test hands over and the replica keeps.
const RECEIVED: usize = 64;

/// Rings of a few slots: wraps and checkpoints come soon.
pub fn small_geometry() -> Geometry {
    let geometry = Geometry {
        state_size: 1100 << 10,
        message_size_max: 8 << 10,
        slots: 16,
        pipeline_max: 2,
        sessions_max: 4,
        reply_size_max: 64,
        ..Geometry::SMALL
    };
    assert_eq!(geometry.check(), Ok(()));
    geometry
}

/// See the module's description.
pub struct Node<M> {
    pub replica: Replica<M>,
    pub effects: Effects,
    pub disk: Disk,
    pub now: Now,
    options: ReplicaOptions,
    /// Stops that a test expects.
    pub may_halt: fn(&Fatal) -> bool,
    /// It has stopped, as expected; until it is restarted nothing happens to it.
    pub halted: bool,
    /// Its file says that it is not to be opened any more.
    pub condemned: bool,
    /// What it has said, and nobody has taken.
    said: Vec<(Peer, Vec<u8>)>,
    small: MessagePool,
    large: MessagePool,
}

impl<M: Machines> Node<M> {
    /// A process that begins to read a fresh data file.
    pub fn new(replica: u8, replica_count: u8, geometry: Geometry, now: Now) -> Self {
        let options = ReplicaOptions {
            cluster: CLUSTER,
            replica,
            replica_count,
            geometry,
            entropy: [replica + 1; 32],
        };
        let file = FileId::of_random(1 + u128::from(replica));
        let state = formatted(CLUSTER, file, replica, replica_count, geometry);
        let needs = Replica::<M>::buffer_needs(&geometry);
        let gathered = constants::requests_max(&geometry) + constants::reads_max(&geometry);
        let small = MessagePool::new(needs.small + gathered + RECEIVED, storage::SECTOR_SIZE);
        let large_count = needs.large + gathered + RECEIVED;
        let large = MessagePool::new(large_count, geometry.message_size_max as usize);
        let mut node = Self {
            replica: Replica::new(options, small.clone(), large.clone()),
            effects: effects_for::<M>(&geometry),
            disk: Disk::with_state(state, DiskSpeed::INSTANT, Prng::new(0)),
            now,
            options,
            may_halt: |_| false,
            halted: false,
            condemned: false,
            said: Vec::new(),
            small,
            large,
        };
        node.replica.start(now, &mut node.effects);
        node.carry_out();
        node
    }

    /// Another file takes the place of that of a process that has ended.
    pub fn replace_file(&mut self) {
        let options = &self.options;
        let (replica, count, geometry) = (options.replica, options.replica_count, options.geometry);
        let name = (u128::from(options.entropy[31]) << 32) + 1 + u128::from(replica);
        let state = formatted(CLUSTER, FileId::of_random(name), replica, count, geometry);
        self.disk = Disk::with_state(state, DiskSpeed::INSTANT, Prng::new(0));
        self.condemned = false;
    }

    /// The process is killed, and begins anew on the same disk.
    pub fn restart(&mut self) {
        self.disk.process_crash();
        self.effects = effects_for::<M>(&self.options.geometry);
        self.said.clear();
        self.halted = false;
        self.options.entropy[31] = self.options.entropy[31].wrapping_add(1);
        self.replica = Replica::new(self.options, self.small.clone(), self.large.clone());
        self.replica.start(self.now, &mut self.effects);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(request) = self.effects.io.pop() {
            self.disk.submit(0, request);
        }
        let sends = self.effects.sends.drain(..);
        let bytes = sends.map(|send| (send.to, send.message.bytes().to_vec()));
        self.said.extend(bytes);
        if let Some(fatal) = self.effects.halt.take() {
            assert!((self.may_halt)(&fatal), "it halts: {fatal}");
            self.halted = true;
            self.condemned = matches!(fatal, Fatal::Regressed(Regressed::Condemned));
        }
    }

    /// Time passes, for both clocks.
    pub fn pass(&mut self, nanoseconds: u64) {
        self.now.monotonic_ns += nanoseconds;
        self.now.realtime_ns += nanoseconds;
    }

    /// A message with these bytes; none while no buffer is free.
    pub fn message(&self, bytes: &[u8]) -> Option<Message> {
        let pool = if bytes.len() <= storage::SECTOR_SIZE {
            &self.small
        } else {
            &self.large
        };
        let mut message = pool.take()?;
        message.buffer_mut()[..bytes.len()].copy_from_slice(bytes);
        message.zero_tail();
        Some(message)
    }

    /// One event; the turn goes on.
    pub fn step(&mut self, event: Event) {
        if self.halted {
            return;
        }
        self.replica.step(self.now, event, &mut self.effects);
        self.carry_out();
    }

    /// Delivers a message, if there is room for it.
    pub fn deliver(&mut self, from: Peer, bytes: &[u8]) {
        let header = Header::read_from_bytes(&bytes[..HEADER_SIZE]).expect("a header");
        if self.replica.has_room_for(from, &header)
            && let Some(message) = self.message(bytes)
        {
            self.step(Event::Message { from, message });
        }
    }

    /// Ends the turn, and does what is left to do at once. What it asks of its disk is under way.
    pub fn finish_turn(&mut self) {
        if self.halted {
            return;
        }
        if self.replica.deadline_ns() <= self.now.monotonic_ns {
            self.step(Event::Tick);
        }
        for _ in 0..1000 {
            self.replica.finish_turn(self.now, &mut self.effects);
            self.carry_out();
            if self.halted || !self.replica.has_work() {
                return;
            }
        }
        panic!("a turn without end");
    }

    /// Completes one disk request, and ends the turn; false if none is under way.
    pub fn complete_one(&mut self) -> bool {
        let Some(done) = self.disk.complete(0) else {
            return false;
        };
        self.step(Event::Io(done));
        self.finish_turn();
        true
    }

    /// Turns until the disk has nothing left to do.
    pub fn settle(&mut self) {
        self.finish_turn();
        while self.complete_one() {}
    }

    /// What it has said since the last time: to whom, and the bytes.
    pub fn said(&mut self) -> Vec<(Peer, Vec<u8>)> {
        std::mem::take(&mut self.said)
    }
}

fn effects_for<M: Machines>(geometry: &Geometry) -> Effects {
    Effects::new(
        Replica::<M>::sends_max(geometry),
        Replica::<M>::io_max(geometry),
    )
}

/// A client's request, sealed.
pub fn request(client: u128, session: u64, number: u32, operation: u16, body: &[u8]) -> Vec<u8> {
    let sub = SubHeader {
        client,
        session,
        request: number,
        size: body.len() as u32,
        operation,
        reserved: [0; 14],
    };
    let mut padded = sub.as_bytes().to_vec();
    padded.extend_from_slice(body);
    padded.resize(
        SUB_HEADER_SIZE + body.len().next_multiple_of(REQUEST_ALIGN),
        0,
    );
    let mut header = Request::new(CLUSTER, 0, 0);
    header.client = client;
    header.request = number;
    header.frame.size = (HEADER_SIZE + padded.len()) as u32;
    header.header_mut().seal(&padded);
    [header.as_bytes(), &padded].concat()
}
