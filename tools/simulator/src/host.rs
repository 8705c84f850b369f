//! Hosts one replica: its disk, its clocks, and the life and death of its process.
//!
//! As the server does, it steps the replica for each event, ends the turn a little later, carries out the effects, and
//! holds a message back while the replica has no room for it.

use crate::clock::Clock;
use crate::disk::{Disk, Tear};
use crate::network::Packet;
use crate::prng::Prng;
use std::collections::VecDeque;
use storage::buffer::MessagePool;
use storage::header::Header;
use storage::layout::Geometry;
use viewstone::constants;
use viewstone::machines::Machines;
use viewstone::replica::{
    BufferNeeds, Effects, Event, Metrics, Now, Peer, Progress, Replica, ReplicaOptions, Send,
};
use viewstone::rules::Rules;

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// Kill -9: the machine goes on, and so does what the device has been given.
    Kill,
    /// The machine loses power.
    PowerCut,
}

/// A replica, whatever its machines and the rules that it keeps: what a host needs of one.
pub trait Node {
    /// See [`Replica::start`].
    fn start(&mut self, now: Now, effects: &mut Effects);
    /// See [`Replica::step`].
    fn step(&mut self, now: Now, event: Event, effects: &mut Effects);
    /// See [`Replica::finish_turn`].
    fn finish_turn(&mut self, now: Now, effects: &mut Effects);
    /// See [`Replica::has_work`].
    fn has_work(&self) -> bool;
    /// See [`Replica::deadline_ns`].
    fn deadline_ns(&self) -> u64;
    /// See [`Replica::has_room_for`].
    fn has_room_for(&self, from: Peer, header: &Header) -> bool;
    /// See [`Replica::progress`].
    fn progress(&self) -> Progress;
    /// See [`Replica::is_whole`].
    fn is_whole(&self) -> bool;
    /// See [`Replica::metrics`].
    fn metrics(&self) -> &Metrics;
}

impl<M: Machines, R: Rules> Node for Replica<M, R> {
    fn start(&mut self, now: Now, effects: &mut Effects) {
        self.start(now, effects);
    }

    fn step(&mut self, now: Now, event: Event, effects: &mut Effects) {
        self.step(now, event, effects);
    }

    fn finish_turn(&mut self, now: Now, effects: &mut Effects) {
        self.finish_turn(now, effects);
    }

    fn has_work(&self) -> bool {
        self.has_work()
    }

    fn deadline_ns(&self) -> u64 {
        self.deadline_ns()
    }

    fn has_room_for(&self, from: Peer, header: &Header) -> bool {
        self.has_room_for(from, header)
    }

    fn progress(&self) -> Progress {
        self.progress()
    }

    fn is_whole(&self) -> bool {
        self.is_whole()
    }

    fn metrics(&self) -> &Metrics {
        self.metrics()
    }
}

/// Makes replicas of one kind: of some machines, and with all rules kept or one broken.
#[derive(Clone, Copy, Debug)]
pub struct NodeKind {
    make: fn(ReplicaOptions, MessagePool, MessagePool) -> Box<dyn Node>,
    needs: BufferNeeds,
    sends_max: usize,
    io_max: usize,
}

impl NodeKind {
    /// Replicas with the machines `M` and the rules `R`, of a geometry.
    pub fn new<M: Machines + 'static, R: Rules>(geometry: &Geometry) -> Self {
        Self {
            make: |options, small, large| Box::new(Replica::<M, R>::new(options, small, large)),
            needs: Replica::<M, R>::buffer_needs(geometry),
            sends_max: Replica::<M, R>::sends_max(geometry),
            io_max: Replica::<M, R>::io_max(geometry),
        }
    }
}

/// A replica's process.
pub struct Process {
    /// The replica.
    pub replica: Box<dyn Node>,
    /// What it wants done; drained after each step.
    pub effects: Effects,
    /// Buffers of a sector.
    pub small: MessagePool,
    /// Buffers of the message size.
    pub large: MessagePool,
    /// When the turn under way ends.
    pub turn_due_ns: Option<u64>,
    /// When the last tick was.
    ticked_ns: u64,
    /// Ticks at that time: a deadline that does not move is a bug.
    idle_ticks: u32,
}

/// Ticks at one time that are taken for a deadline that does not move.
const IDLE_TICKS_MAX: u32 = 16;

/// See the module's description.
pub struct Host {
    options: ReplicaOptions,
    kind: NodeKind,
    /// The disk, which outlives the process.
    pub disk: Disk,
    tear: Tear,
    /// Memory of the process's messages: kept over its lives, for allocating it is most of the cost of a start.
    small: MessagePool,
    large: MessagePool,
    /// The process; none while it is down.
    pub process: Option<Process>,
    /// Counts the lives of the process: names its connections.
    pub life: u64,
    /// Messages held back, by the node they come from.
    pub held: Vec<VecDeque<Packet>>,
    /// Messages held back, in all.
    pub held_count: usize,
    /// Time from an event to the end of its turn, at most.
    turn_max_ns: u64,
    /// The machine's clocks.
    pub clock: Clock,
    /// The process gets no events until then.
    paused_until_ns: u64,
    prng: Prng,
}

/// How far wall clocks are apart at first, at most, in nanoseconds.
pub const CLOCK_ERROR_MAX_NS: i64 = 1_000_000;

impl Host {
    /// A replica that is down, with its disk.
    pub fn new(
        options: ReplicaOptions,
        kind: NodeKind,
        disk: Disk,
        tear: Tear,
        nodes: usize,
        turn_max_ns: u64,
        mut prng: Prng,
    ) -> Self {
        let geometry = options.geometry;
        let needs = kind.needs;
        let gathered = constants::requests_max(&geometry) + constants::reads_max(&geometry);
        let message_size = geometry.message_size_max as usize;
        Self {
            small: MessagePool::new(needs.small + gathered + RECEIVING, storage::SECTOR_SIZE),
            large: MessagePool::new(needs.large + gathered + RECEIVING, message_size),
            options,
            kind,
            disk,
            tear,
            process: None,
            life: 0,
            held: (0..nodes).map(|_| VecDeque::new()).collect(),
            held_count: 0,
            turn_max_ns,
            clock: Clock::new(
                prng.below(1 << 50),
                prng.below(2 * CLOCK_ERROR_MAX_NS as u64) as i64 - CLOCK_ERROR_MAX_NS,
            ),
            paused_until_ns: 0,
            prng,
        }
    }

    /// The replica's clocks.
    pub fn now(&self, now_ns: u64) -> Now {
        self.clock.now(now_ns)
    }

    /// What a power cut leaves whole.
    pub fn tear(&self) -> Tear {
        self.tear
    }

    /// The process gets no events until then; the machine goes on.
    pub fn pause(&mut self, until_ns: u64) {
        assert!(self.process.is_some());
        self.paused_until_ns = self.paused_until_ns.max(until_ns);
    }

    /// Until when the process is paused; a time that has passed if it is not.
    pub fn paused_until_ns(&self) -> u64 {
        self.paused_until_ns
    }

    /// Starts the process.
    pub fn start(&mut self, now_ns: u64) {
        assert!(self.process.is_none() && self.disk.in_flight() == 0);
        self.life += 1;
        let mut options = self.options;
        self.prng.fill(&mut options.entropy);
        let (small, large) = (self.small.clone(), self.large.clone());
        let mut process = Process {
            replica: (self.kind.make)(options, small.clone(), large.clone()),
            effects: Effects::new(self.kind.sends_max, self.kind.io_max),
            small,
            large,
            turn_due_ns: Some(now_ns),
            ticked_ns: 0,
            idle_ticks: 0,
        };
        process
            .replica
            .start(self.now(now_ns), &mut process.effects);
        self.process = Some(process);
    }

    /// Ends the process. The buffers of its I/O in flight go with the disk's requests.
    pub fn crash(&mut self, crash: Crash) {
        assert!(self.process.is_some());
        match crash {
            Crash::Kill => self.disk.process_crash(),
            Crash::PowerCut => self.disk.power_cut(self.tear),
        }
        self.process = None;
        self.paused_until_ns = 0;
        // All that held a message is gone.
        for pool in [&self.small, &self.large] {
            assert_eq!(pool.free(), pool.count());
        }
        self.held_count = 0;
        self.held.iter_mut().for_each(VecDeque::clear);
    }

    /// When something is next to be done here, messages apart.
    pub fn next_ns(&self) -> u64 {
        let Some(process) = &self.process else {
            return u64::MAX;
        };
        let deadline = self.clock.when(process.replica.deadline_ns());
        let disk = self.disk.next_completion_ns().unwrap_or(u64::MAX);
        deadline
            .min(disk)
            .min(process.turn_due_ns.unwrap_or(u64::MAX))
            .max(self.paused_until_ns)
    }

    /// Gives the replica an event; the turn that it begins or belongs to ends a little later.
    pub fn step(&mut self, now_ns: u64, event: Event) {
        let now = self.now(now_ns);
        let turn_ns = self.prng.below(self.turn_max_ns + 1);
        let process = self
            .process
            .as_mut()
            .expect("only a living process is stepped");
        process.replica.step(now, event, &mut process.effects);
        if process.turn_due_ns.is_none() {
            process.turn_due_ns = Some(now_ns + turn_ns);
        }
    }

    /// Takes the next message that the replica wants sent.
    pub fn take_send(&mut self) -> Option<Send> {
        self.process.as_mut()?.effects.sends.pop_front()
    }

    /// Does what is due of deadline and turn's end: one of them. Whether there was any. Completions come first, by
    /// [`Disk::complete`] and [`Host::step`].
    pub fn act(&mut self, now_ns: u64) -> Option<Acted> {
        let now = self.now(now_ns);
        let process = self.process.as_mut()?;
        if process.turn_due_ns.is_some_and(|due_ns| due_ns <= now_ns) {
            process.turn_due_ns = None;
            process.replica.finish_turn(now, &mut process.effects);
            if process.replica.has_work() {
                process.turn_due_ns = Some(now_ns + 1 + self.turn_max_ns / 4);
            }
            return Some(Acted::Turn);
        }
        if process.replica.deadline_ns() <= now.monotonic_ns {
            process.idle_ticks = if process.ticked_ns == now_ns {
                process.idle_ticks + 1
            } else {
                0
            };
            process.ticked_ns = now_ns;
            assert!(
                process.idle_ticks < IDLE_TICKS_MAX,
                "a tick does not move its deadline"
            );
            self.step(now_ns, Event::Tick);
            return Some(Acted::Tick);
        }
        None
    }
}

/// What a host did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Acted {
    /// Ended a turn.
    Turn,
    /// Told the time.
    Tick,
}

/// Buffers to receive into, beside those that the replica holds.
const RECEIVING: usize = 8;
