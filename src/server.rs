//! A replica's host: one thread, one ring, one data file.
//!
//! The loop, in turns: submit what is queued and wait (one system call), read the clock once, turn completions into
//! events, step the replica once for each, hand its effects on. A turn handles a bounded number of completions; while the
//! replica has work left over the loop does not sleep.
//!
//! All memory is allocated before the replica is ready; from then on this thread is sealed
//! ([`crate::sealed_allocator`]).
//! Stopping is crash-only inside: what the disk is doing is waited for, nothing else, and a kill is as safe.

pub mod bus;
mod clock_alarm;
mod damage_alarm;
pub mod data_file;
mod disk_faults;
pub mod embedded;
pub mod hosting;
mod identity;
mod listen;
pub mod log_sink;
pub mod memory;
mod published;
mod reach;
mod resolve;
mod running;
pub mod size;
mod standing;

pub use identity::Identity;
pub use listen::{ListenError, Listener, ReservedPort};
pub use published::Published;
pub use resolve::{AddressError, Addresses, check_address, check_addresses, check_addresses_alone};
pub use running::{Running, Stop};
pub use standing::{FETCHED_STEP, Standing};

use crate::log_choice::Contradiction;
use crate::replica::{Effects, Event, Fatal, Metrics, Now, Peer};
use crate::sealed_allocator::SealedAllocator;
use bus::{Bus, BusOptions, HELLO_MAX, Received};
use clock_alarm::ClockAlarm;
use damage_alarm::DamageAlarm;
use disk_faults::DiskFaults;
pub use disk_faults::FaultError;
use memory::{Memory, MemoryError, Term};
use reach::Reach;
use rustix::time::{ClockId, clock_gettime};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::checkpoint::Damages;
use storage::header::Header;
use storage::io::IoRequest;
use storage::layout::Geometry;
use storage::uring::{Done, Durability, Uring, UringError, UringOptions, Wait};

/// Completions that one turn handles. More stay in the ring, and the next turn does not wait.
const COMPLETIONS_MAX: usize = 512;

/// Entries of the submission queue: a turn that queues more costs a second system call, no more.
const RING_ENTRIES: u32 = 256;

/// Answers that may wait for one client's connection, beyond one for each session: all of them may share a connection.
const CLIENT_QUEUE_SPARE: usize = 64;

/// Longest sleep: a signal that another thread received is seen after this.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// What a server hosts: a replica, or a test's stand-in for one.
pub trait Hosted {
    /// Begins: reads the data file.
    fn start(&mut self, now: Now, effects: &mut Effects);
    /// Handles an event.
    fn step(&mut self, now: Now, event: Event, effects: &mut Effects);
    /// Ends a turn: what its events brought together is acted on.
    fn finish_turn(&mut self, now: Now, effects: &mut Effects);
    /// When [`Event::Tick`] is wanted next, in monotonic nanoseconds.
    fn deadline_ns(&self) -> u64;
    /// Work is left over: a tick is wanted at once.
    fn has_work(&self) -> bool;
    /// Whether a message may be handed over. False: its connection is not read until the next turn.
    fn has_room_for(&self, from: Peer, header: &Header) -> bool;
    /// What it counts.
    fn metrics(&self) -> &Metrics;
    /// Whether the data file has been read: the replica takes part.
    fn is_open(&self) -> bool;
    /// Whether the replicas agree on the time.
    fn is_clock_synchronised(&self) -> bool;
    /// The host will stop it: hands over what others can go on with.
    fn prepare_to_stop(&mut self, _now: Now, _effects: &mut Effects) {}
    /// Whether that is done.
    fn may_stop(&self) -> bool {
        true
    }
    /// What of its state was found damaged at start, once.
    fn take_damages(&mut self) -> Option<Damages> {
        None
    }
    /// Votes that it has refused because they contradict each other; each pair once.
    fn take_contradiction(&mut self) -> Option<Contradiction> {
        None
    }
    /// What it is in the cluster, for the log; none if there is nothing to say.
    fn standing(&self) -> Option<Standing> {
        None
    }
}

/// How long a planned stop may wait for the others to hear of it: writing a superblock, and a turn.
const HANDOVER_MAX: Duration = Duration::from_millis(500);

/// Bounds of what a replica asks of its host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Most messages that one step sends.
    pub sends_max: usize,
    /// Most disk requests in flight.
    pub io_max: usize,
    /// Most received messages above 4 KiB that it holds, from replicas.
    pub peer_messages_max: usize,
    /// Most received messages above 4 KiB that it holds, from clients.
    pub client_messages_max: usize,
    /// Most received messages of up to 4 KiB that it holds.
    pub small_messages_max: usize,
    /// What it allocates for itself, but for the pages of state.
    pub memory: Vec<Term>,
}

/// How a server runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerOptions {
    /// `host:port` of each replica, in the order of their indexes. The own one's port may be 0.
    pub addresses: Vec<String>,
    /// Most connections of clients.
    pub clients_max: usize,
    /// Lock the memory of the whole process, if the system lets us. Not for a guest in somebody else's process.
    pub lock_memory: bool,
    /// Fail if memory cannot be locked.
    pub require_locked: bool,
    /// How durable writes become durable.
    pub durability: Durability,
    /// Seed of the reconnect jitter; any number, another one for each replica.
    pub seed: u64,
    /// Says how the disk fails on purpose; for tests only.
    pub fault_file: Option<PathBuf>,
}

impl ServerOptions {
    /// Connections of clients, if nothing is said.
    pub const CLIENTS_MAX_DEFAULT: usize = 256;

    /// The defaults for a cluster at these addresses.
    pub fn new(addresses: Vec<String>) -> Self {
        Self {
            addresses,
            clients_max: Self::CLIENTS_MAX_DEFAULT,
            lock_memory: true,
            require_locked: false,
            durability: Durability::default(),
            seed: u64::from(std::process::id()),
            fault_file: None,
        }
    }
}

/// Why a server has stopped, other than being told to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ServerError {
    /// There is no io_uring.
    #[error("{0}")]
    Uring(#[from] UringError),
    /// The addresses do not fit.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// It cannot listen.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// It may not use the memory it needs.
    #[error("{0}")]
    Memory(#[from] MemoryError),
    /// The fault file is none.
    #[error("{0}")]
    FaultFile(#[from] FaultError),
    /// The replica cannot go on.
    #[error("{0}")]
    Replica(#[from] Fatal),
    /// The data file cannot be used.
    #[error("{0}")]
    DataFile(String),
    /// The data file cannot be used with the ring.
    #[error("the data file cannot be registered with io_uring: errno {0}")]
    File(i32),
    /// The system's source of randomness.
    #[error("/dev/urandom cannot be read: {0}")]
    Random(String),
    /// The thread panicked; its message is on standard error.
    #[error("the replica's thread has panicked")]
    Panicked,
}

/// A replica and all that serves it.
#[derive(Debug)]
pub struct Server<R> {
    uring: Uring,
    bus: Bus,
    replica: R,
    effects: Effects,
    published: Arc<Published>,
    clock_alarm: ClockAlarm,
    damage_alarm: DamageAlarm,
    reach: Reach,
    /// What the log last said of the replica's part in the cluster.
    logged: Option<Standing>,
    /// None but in tests that ask for it.
    faults: Option<DiskFaults>,
    /// The time of this turn.
    now: Now,
    address: SocketAddr,
    /// Its index in the cluster.
    index: u8,
    replica_count: u8,
}

impl<R: Hosted> Server<R> {
    /// Allocates everything, on the thread that will run it. `build` makes the replica, last.
    ///
    /// # Errors
    /// No io_uring, too little memory, or addresses that do not fit the data file.
    pub fn new(
        identity: Identity,
        options: &ServerOptions,
        bounds: &Bounds,
        listener: Listener,
        file: OwnedFd,
        published: &Arc<Published>,
        build: impl FnOnce(Now) -> Result<R, Fatal>,
    ) -> Result<Self, ServerError> {
        assert!(identity.is_consistent());
        check_addresses(&options.addresses, identity.replica_count)?;
        let bus_options = bus_options(&identity, options, bounds);
        let memory = Memory::new(&identity, &bus_options, &bounds.memory);
        memory.log();
        memory.check_available()?;
        published
            .memory_bytes
            .store(memory.total(), Ordering::Relaxed);
        let mut uring = Uring::new(&UringOptions {
            entries: RING_ENTRIES,
            disk_max: bounds.io_max,
            sockets_max: bus_options.connections(identity.replica_count),
            durability: options.durability,
            fixed_files: true,
        })?;
        uring
            .set_file(file)
            .map_err(|errno| ServerError::File(errno.0))?;
        uring.set_listener(listener.fd);
        let addresses = Addresses::new(&options.addresses);
        let watch = |path: &PathBuf| DiskFaults::watch(path, bounds.io_max, options.seed);
        let faults = options.fault_file.as_ref().map(watch).transpose()?;
        let now = read_clocks();
        let replica = build(now)?;
        if options.lock_memory {
            memory.lock(options.require_locked)?;
        }
        Ok(Self {
            uring,
            bus: Bus::new(identity, bus_options, addresses),
            replica,
            effects: Effects::new(bounds.sends_max, bounds.io_max),
            published: Arc::clone(published),
            clock_alarm: ClockAlarm::new(now.monotonic_ns),
            damage_alarm: DamageAlarm::default(),
            reach: Reach::new(identity.replica_count),
            replica_count: identity.replica_count,
            logged: None,
            faults,
            now,
            address: listener.address,
            index: identity.replica,
        })
    }

    /// Runs until told to stop. `on_ready` is called once, when the replica is listening and has read its data file; it
    /// must not allocate.
    ///
    /// # Errors
    /// The replica or the ring cannot go on.
    pub fn run(
        &mut self,
        stop: &Stop,
        on_ready: impl FnOnce(SocketAddr),
    ) -> Result<(), ServerError> {
        let mut on_ready = Some(on_ready);
        let mut seal = None;
        self.replica.start(self.now, &mut self.effects);
        self.apply_effects()?;
        while !stop.is_stopped() {
            if self.replica.is_open()
                && let Some(on_ready) = on_ready.take()
            {
                // Opening uses some memory of its own, and has given it back; from now on there is no more.
                seal = Some(SealedAllocator::seal());
                on_ready(self.address);
            }
            self.turn()?;
        }
        drop(seal);
        if !stop.is_killed() {
            self.hand_over()?;
        }
        self.finish()
    }

    /// Lets a primary tell the others that it leaves, so that they need not find out.
    fn hand_over(&mut self) -> Result<(), ServerError> {
        self.replica.prepare_to_stop(self.now, &mut self.effects);
        self.apply_effects()?;
        let until_ns = self.now.monotonic_ns + HANDOVER_MAX.as_nanos() as u64;
        while !(self.replica.may_stop() && self.bus.is_flushed(&self.uring))
            && self.now.monotonic_ns < until_ns
        {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), ServerError> {
        let now_ns = self.now.monotonic_ns;
        self.bus.tick(now_ns, &mut self.uring);
        self.bus.flush(now_ns, &mut self.uring);
        self.uring.turn(self.wait())?;
        self.now = read_clocks();
        for _ in 0..COMPLETIONS_MAX {
            let Some(done) = self.uring.next_done() else {
                break;
            };
            self.on_done(done)?;
        }
        self.take_held()?;
        for _ in 0..self.bus.stopped() {
            if let Some(connection) = self.bus.next_stopped() {
                self.take_received(connection)?;
            }
        }
        while let Some(client) = self.bus.next_gone() {
            self.step(Event::Closed(client))?;
        }
        if self.replica.deadline_ns() <= self.now.monotonic_ns {
            self.step(Event::Tick)?;
        }
        self.replica.finish_turn(self.now, &mut self.effects);
        self.published.on_turn(self.replica.metrics());
        let standing = self.replica.standing();
        self.log_alarms(standing);
        self.log_standing(standing);
        self.apply_effects()
    }

    /// Says what is wrong around the replica: clocks, disk, others that are missing.
    fn log_alarms(&mut self, standing: Option<Standing>) {
        let now_ns = self.now.monotonic_ns;
        let silent = self.bus.silent();
        let agreed = self.replica.is_clock_synchronised();
        let majority = 2 * (self.replica_count - silent.count()) > self.replica_count;
        self.clock_alarm.on_turn(now_ns, agreed, majority);
        self.damage_alarm.on_turn(now_ns, self.replica.metrics());
        if let Some(standing) = standing {
            self.reach.on_turn(now_ns, standing.status, silent);
        }
    }

    /// Says when the replica's part in the cluster changes.
    fn log_standing(&mut self, standing: Option<Standing>) {
        if let Some(damages) = self.replica.take_damages() {
            log::warn!("{damages}");
            log::info!("what is damaged or missing is fetched from the other replicas");
        }
        if let Some(found) = self.replica.take_contradiction() {
            log::error!(
                "{found}. These votes are not counted; one of these replicas has a fault, or is none of ours"
            );
        }
        if standing != self.logged {
            self.published.on_standing(self.index, standing);
            standing::log(self.logged, standing);
            self.logged = standing;
        }
    }

    fn wait(&self) -> Wait {
        if self.replica.has_work() {
            return Wait::Poll;
        }
        let deadline_ns = self.replica.deadline_ns().min(self.bus.deadline_ns());
        let held_ns = self
            .faults
            .as_ref()
            .map_or(u64::MAX, DiskFaults::deadline_ns);
        let deadline_ns = deadline_ns.min(held_ns);
        let left_ns = deadline_ns.saturating_sub(self.now.monotonic_ns);
        if left_ns == 0 {
            return Wait::Poll;
        }
        Wait::AtMost(Duration::from_nanos(left_ns).min(WAIT_MAX))
    }

    fn on_done(&mut self, done: Done) -> Result<(), ServerError> {
        let now_ns = self.now.monotonic_ns;
        let uring = &mut self.uring;
        match done {
            Done::Disk(done) => {
                let done = match &mut self.faults {
                    None => Some(done),
                    Some(faults) => faults.on_done(now_ns, done),
                };
                return done.map_or(Ok(()), |done| self.step(Event::Io(done)));
            }
            Done::Accepted(result) => self.bus.accepted(now_ns, result, uring),
            Done::Connected { socket, result } => {
                if let Some(replica) = self.bus.connected(now_ns, socket, result, uring) {
                    return self.step(Event::Connected(replica));
                }
            }
            Done::Received {
                socket,
                message,
                result,
            } => {
                if self.bus.received(now_ns, socket, message, result, uring) {
                    return self.take_received(socket);
                }
            }
            Done::Sent { socket, result } => self.bus.sent(now_ns, socket, result, uring),
            Done::Closed { socket } => self.bus.closed(socket),
        }
        Ok(())
    }

    /// Takes the completions that a fault has delayed until now.
    fn take_held(&mut self) -> Result<(), ServerError> {
        let now_ns = self.now.monotonic_ns;
        if let Some(faults) = &mut self.faults {
            faults.refresh(now_ns);
        }
        while let Some(faults) = &mut self.faults
            && let Some(done) = faults.next_due(now_ns)
        {
            self.step(Event::Io(done))?;
        }
        Ok(())
    }

    /// Takes what a connection's bytes yield: bounded, since its buffer is.
    fn take_received(&mut self, connection: u32) -> Result<(), ServerError> {
        loop {
            let replica = &self.replica;
            let has_room = |peer, header: &Header| replica.has_room_for(peer, header);
            let now_ns = self.now.monotonic_ns;
            let received = self.bus.next(now_ns, connection, &mut self.uring, has_room);
            match received {
                None => return Ok(()),
                Some(Received::Connected(replica)) => self.step(Event::Connected(replica))?,
                Some(Received::Message(from, message)) => {
                    self.step(Event::Message { from, message })?;
                }
            }
        }
    }

    /// Steps the replica and hands its effects on. Disk requests beyond what the driver takes stay queued: their queue is
    /// as long as what their owners may have in flight.
    fn step(&mut self, event: Event) -> Result<(), ServerError> {
        self.replica.step(self.now, event, &mut self.effects);
        self.apply_effects()
    }

    fn apply_effects(&mut self) -> Result<(), ServerError> {
        let now_ns = self.now.monotonic_ns;
        while let Some(send) = self.effects.sends.pop_front() {
            self.bus
                .send(now_ns, send.to, send.message, &mut self.uring);
        }
        while self.uring.has_disk_room()
            && let Some(request) = self.effects.io.pop()
        {
            if let IoRequest::Write { id, size, .. } = &request {
                self.published.on_write(id.owner, *size);
            }
            let request = match &mut self.faults {
                None => Some(request),
                Some(faults) => faults.on_request(now_ns, request),
            };
            if let Some(request) = request {
                self.uring.submit_disk(request);
            }
        }
        match self.effects.halt.take() {
            None => Ok(()),
            Some(fatal) => Err(fatal.into()),
        }
    }

    /// Lets what was submitted end. The replica is not stepped any more: what it would still do, it does after the next
    /// start, as after a crash.
    fn finish(&mut self) -> Result<(), ServerError> {
        log::info!("stopping");
        while self.uring.disk_in_flight() > 0 {
            self.uring.turn(Wait::AtMost(WAIT_MAX))?;
            while self.uring.next_done().is_some() {}
        }
        Ok(())
    }

    /// The replica.
    pub fn replica(&self) -> &R {
        &self.replica
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happened to its connections.
    pub fn counters(&self) -> bus::BusCounters {
        self.bus.counters()
    }
}

fn bus_options(identity: &Identity, options: &ServerOptions, bounds: &Bounds) -> BusOptions {
    let peers = bus::SLOTS_PER_PEER * (usize::from(identity.replica_count) - 1);
    let pipeline_max = identity.geometry.pipeline_max as usize;
    let connections = peers + options.clients_max + HELLO_MAX;
    BusOptions {
        clients_max: options.clients_max,
        peer_queue_max: peer_queue_max(&identity.geometry),
        client_queue_max: CLIENT_QUEUE_SPARE + identity.geometry.sessions_max as usize,
        large_queue_max: pipeline_max,
        // One that receives for each connection, and one into which the next message is copied.
        peer_large: peers + 1 + bounds.peer_messages_max,
        client_large: options.clients_max.min(pipeline_max) + 1 + bounds.client_messages_max,
        small: connections + 1 + bounds.small_messages_max,
        seed: options.seed,
    }
}

/// Messages that may wait for a replica's connection; more are dropped, and sent again by the protocol.
fn peer_queue_max(geometry: &Geometry) -> usize {
    (4 * geometry.pipeline_max as usize).max(64)
}

/// The one reading of the clocks in a turn of a host.
pub fn read_clocks() -> Now {
    let nanoseconds = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
    };
    Now {
        monotonic_ns: nanoseconds(ClockId::Monotonic),
        realtime_ns: nanoseconds(ClockId::Realtime),
    }
}
