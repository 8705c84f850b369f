//! The protocol: one replica, pure. Events come in, effects go out; nothing here reads a clock, opens a socket or
//! draws randomness.
//!
//! A host calls [`Replica::start`] once, [`Replica::step`] for each event, and [`Replica::finish_turn`] after the
//! events of a turn of its loop: requests that arrived together leave in one prepare.
//!
//! Invariants, each kept by an assertion or a type:
//! * An acknowledgement means durable: [`storage::journal::Durable`] is taken by value to send a prepare_ok, and only
//!   the journal makes one.
//! * A message that reveals a view reveals a durable one: it is stamped from [`storage::superblock::DurableView`].
//! * commit_min <= commit_max, and ops execute in order, each chained to the one before.
//! * Acknowledgements are counted per replica, for one exact prepare, in this view.
//! * Op e is acknowledged only where the checkpoint that e's slot arithmetic rests on is durable (design section 5).
//!

mod backup;
mod catch_up;
mod commit;
mod divergence;
mod event;
mod lost;
mod new_log;
mod nowhere;
mod opening;
mod peers;
mod prepares;
mod primary;
mod promises;
mod reads;
mod repair;
mod scrub;
mod serving;
mod starting;
mod status;
mod sync;
mod timers;
mod view_change;
mod vote;

pub use event::{
    ConnectionId, DIVERGED_PAGES_MAX, Diverged, Effects, Event, Fatal, Now, Peer, Regressed, Send,
};
pub use nowhere::{Needed, Nowhere};
pub use status::{Ignored, Metrics, Progress};

use crate::clock::Clock;
use crate::constants;
use crate::engine::Engine;
use crate::failure_detector::FailureDetector;
use crate::machines::Machines;
use crate::quorums::Quorums;
use crate::rules::{Rules, Strict};
use crate::table::Table;
use catch_up::CatchUp;
use commit::{Checkpointing, Executing, ReadingBack};
use divergence::Divergence;
use lost::Lost;
use new_log::{Installing, Parked};
use opening::Opening;
use peers::PeerState;
use prepares::Prepares;
use primary::InFlightRequest;
use promises::Promises;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use reads::Reads;
use repair::{Asking, Repair};
use scrub::Scrub;
use serving::Serving;
use std::collections::VecDeque;
use storage::buffer::{Message, MessagePool, SharedMessage};
use storage::checkpoint::Checkpoint;
use storage::header::{Command, Commit, Header, Prepare, ReplicaStatus, Start, Typed};
use storage::io::IoOwner;
use storage::journal::Journal;
use storage::layout::{Geometry, Layout, REPLICAS_MAX};
use storage::superblock::Superblock;
use sync::StateSync;
use timers::Timers;
use view_change::{Election, Moved};

/// Who a replica is, and what it draws its randomness from.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaOptions {
    /// The cluster's id.
    pub cluster: u128,
    /// Index of this replica.
    pub replica: u8,
    /// Number of replicas.
    pub replica_count: u8,
    /// The data file's geometry, as its superblock says.
    pub geometry: Geometry,
    /// Seeds the choice of whom to ask, and the cluster's page key if this replica makes the first op.
    pub entropy: [u8; 32],
}

/// The message buffers that a replica holds at once, beside those its host receives into and sends from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferNeeds {
    /// Buffers of [`storage::SECTOR_SIZE`].
    pub small: usize,
    /// Buffers of the geometry's message size.
    pub large: usize,
}

/// The newest prepare in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    op: u64,
    checksum: u128,
    /// The earliest time that the next prepare may have.
    timestamp_next: u64,
}

impl Head {
    fn of(prepare: &Prepare) -> Self {
        Self {
            op: prepare.op,
            checksum: prepare.frame.checksum,
            timestamp_next: prepare.timestamp + u64::from(prepare.requests),
        }
    }
}

/// A replica. See the module's description.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each named"
)]
pub struct Replica<M, R: Rules = Strict> {
    options: ReplicaOptions,
    layout: Layout,
    quorums: Quorums,
    fingerprint: u128,
    now: Now,
    clock: Clock,
    prng: Xoshiro256PlusPlus,
    small: MessagePool,
    large: MessagePool,
    /// For answers to clients, which may not read them.
    answers: MessagePool,

    superblock: Superblock<R::Superblock>,
    journal: Journal<R::Journal>,
    checkpoint: Checkpoint<R::Checkpoint>,
    engine: Engine<M, R>,

    status: ReplicaStatus,
    opening: Opening,
    view: u32,
    /// The view that the journal's log is of.
    log_view: u32,
    /// A log of a later view is being made durable.
    installing: Option<Installing>,
    /// A log that reaches beyond this journal: it waits for a newer checkpoint.
    parked: Parked,
    /// Room for the headers of a log's end.
    log_end: Vec<Prepare>,
    election: Election,
    detector: FailureDetector,
    /// The highest op that may have been acknowledged here, if the journal cannot tell what is above its head.
    uncertain: Option<u64>,
    /// As primary: the last pulse that it prepared in this view; zero if none.
    pulse_op: u64,
    moved: Moved,
    /// The state is that of an op, and can be executed on.
    state_ready: bool,
    /// What is missing is beyond the reach of the others' journals.
    lagging: bool,
    repair: Repair,
    /// Whom to ask for what is missing.
    asking: Asking,
    head: Head,
    /// Executed here.
    commit_min: u64,
    /// Identity of the prepare of commit_min.
    commit_checksum: u128,
    /// Time of the last request executed.
    commit_timestamp: u64,
    /// Known to be committed anywhere.
    commit_max: u64,
    /// The head when this replica entered its view: reads wait until all of it is executed.
    inherited: u64,
    /// Prepares above commit_min.
    prepares: Prepares,
    executing: Option<Executing>,
    reading_back: ReadingBack,
    /// Execution has more to do, and nothing to wait for.
    execution_pending: bool,
    /// Execution waits for spare pages.
    spares_wanted: bool,
    checkpointing: Checkpointing,
    /// Op of the newest checkpoint that is durable here.
    checkpoint_op: u64,
    /// Lowest op whose acknowledgement waits for a checkpoint to be durable here.
    withheld: Option<u64>,

    /// Requests that wait for a place in the pipeline.
    gathered: VecDeque<Message>,
    /// Requests gathered, prepared or executing, by client.
    requests: Table<InFlightRequest>,
    reads: Reads,
    peers: [PeerState; REPLICAS_MAX],
    catch_up: CatchUp,
    /// Prepares being read from the journal for other replicas.
    serving_reads: usize,
    timers: Timers,
    metrics: Metrics,

    sync: StateSync,
    serving: Serving,
    /// The superblock that names the checkpoint that was written, until it is durable.
    written_checkpoint: Option<u64>,
    promises: Promises,
    lost: Lost,
    divergence: Divergence,
    scrub: Scrub,
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// A replica of a formatted data file; nothing is read yet. Allocates all that it will ever use; `small` and `large`
    /// hold at least [`Self::buffer_needs`] beside what the host uses them for.
    pub fn new(options: ReplicaOptions, small: MessagePool, large: MessagePool) -> Self {
        let geometry = options.geometry;
        let layout = Layout::new(geometry);
        assert_eq!(large.message_size(), geometry.message_size_max as usize);
        let cluster = options.cluster;
        let mut prng = Xoshiro256PlusPlus::from_seed(options.entropy);
        let nonce = prng.next_u64() | 1;
        let answers = constants::answers_max(&geometry);
        let requests = constants::requests_max(&geometry);
        let root = Prepare::root(cluster);
        Self {
            options,
            layout,
            quorums: Quorums::new(options.replica_count),
            fingerprint: geometry.fingerprint(options.replica_count),
            now: Now::default(),
            clock: Clock::new(options.replica, options.replica_count),
            prng,
            small,
            large,
            answers: MessagePool::new(answers, storage::SECTOR_SIZE),
            superblock: Superblock::with_rules(),
            journal: Journal::new(layout, cluster),
            checkpoint: Checkpoint::with_rules(layout),
            engine: Engine::new(&geometry),
            status: ReplicaStatus::Opening,
            opening: Opening::default(),
            view: 0,
            log_view: 0,
            installing: None,
            parked: Parked::new(),
            log_end: Vec::with_capacity(constants::VOTE_HEADERS_MAX),
            election: Election::new(nonce),
            detector: FailureDetector::new(0),
            uncertain: None,
            pulse_op: 0,
            moved: Moved::default(),
            state_ready: false,
            lagging: false,
            repair: Repair::default(),
            asking: Asking::default(),
            head: Head::of(&root),
            commit_min: 0,
            commit_checksum: root.frame.checksum,
            commit_timestamp: 0,
            commit_max: 0,
            inherited: 0,
            prepares: Prepares::new(constants::prepares_cached_max(&geometry)),
            executing: None,
            reading_back: ReadingBack::default(),
            execution_pending: false,
            spares_wanted: false,
            checkpointing: Checkpointing::default(),
            checkpoint_op: 0,
            withheld: None,
            gathered: VecDeque::with_capacity(requests),
            requests: Table::new(requests),
            reads: Reads::new(&geometry),
            peers: [PeerState::default(); REPLICAS_MAX],
            catch_up: CatchUp::new(),
            serving_reads: 0,
            timers: Timers::default(),
            metrics: Metrics::default(),
            sync: StateSync::new(),
            serving: Serving::new(),
            written_checkpoint: None,
            promises: Promises::default(),
            lost: Lost::default(),
            divergence: Divergence::new(),
            scrub: Scrub::default(),
        }
    }

    /// The buffers a replica of this geometry holds at once: gathered requests are the host's.
    pub fn buffer_needs(geometry: &Geometry) -> BufferNeeds {
        let cached = constants::prepares_cached_max(geometry);
        let repair = constants::REPAIR_PREPARES_MAX + constants::SERVE_READS_MAX + 1;
        BufferNeeds {
            // Any of the large ones may be a small one instead; and a turn's acknowledgements.
            small: 2 * cached + repair + 2 * constants::prepares_cached_max(geometry) + 128,
            // Cached prepares, as many in journal writes that outlive their execution, repair, and answers to reads.
            large: 2 * cached + repair + 8 + constants::large_reserved(geometry),
        }
    }

    /// Most messages that one step or turn queues.
    pub fn sends_max(geometry: &Geometry) -> usize {
        let prepares = 2 * geometry.pipeline_max as usize * REPLICAS_MAX;
        2 * constants::EXECUTE_PER_TURN_MAX + prepares + 8 * REPLICAS_MAX + 64
    }

    /// Most disk requests that are queued at once.
    pub fn io_max(geometry: &Geometry) -> usize {
        let layout = Layout::new(*geometry);
        <Superblock>::IO_MAX + storage::journal::io_max(&layout) + <Checkpoint>::io_max(&layout)
    }

    /// Begins to read the data file.
    pub fn start(&mut self, now: Now, effects: &mut Effects) {
        assert!(self.status == ReplicaStatus::Opening);
        self.now = now;
        self.clock.start(now);
        self.superblock.open_start(&mut effects.io);
    }

    /// Takes one event.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Effects) {
        self.set_time(now);
        let is_superblock =
            matches!(&event, Event::Io(done) if done.id.owner == IoOwner::Superblock);
        if self.is_condemned() && !is_superblock {
            return;
        }
        match event {
            Event::Message { from, message } => self.on_message(from, message, effects),
            Event::Io(done) => {
                let owner = done.id.owner;
                let result = match owner {
                    IoOwner::Superblock => self.on_superblock_io(done, effects),
                    IoOwner::Journal => self.on_journal_io(done, effects),
                    IoOwner::Checkpoint => self.on_checkpoint_io(done, effects),
                };
                if let Err(error) = result {
                    effects.halt = Some(Fatal::Disk(error));
                }
            }
            Event::Connected(replica) => self.on_connected(replica, effects),
            // What waits for this client is answered into the void: the host drops sends to closed connections.
            Event::Closed(_) => {}
            Event::Tick => self.on_tick(effects),
        }
    }

    fn set_time(&mut self, now: Now) {
        assert!(now.monotonic_ns >= self.now.monotonic_ns);
        self.now = now;
        self.detector.ran(now.monotonic_ns);
        let agreed = self.clock.is_synchronised();
        self.clock.advance(now, self.head.timestamp_next);
        if agreed && !self.clock.is_synchronised() {
            self.metrics.clock_losses += 1;
        }
    }

    /// Ends a turn of the host's loop: acknowledges what became durable, commits, executes, answers, prepares what was
    /// gathered and begins a round for waiting reads.
    pub fn finish_turn(&mut self, now: Now, effects: &mut Effects) {
        self.set_time(now);
        if !self.takes_part() || self.is_condemned() {
            return;
        }
        if !self.journal.can_append(self.head.op + 1) {
            // The slot may wait for its redundant header of the last wrap.
            self.journal.flush(&mut effects.io);
        }
        self.acknowledge(effects);
        self.acknowledge_chained(effects);
        self.advance_commit();
        self.execute(effects);
        self.pump_checkpoint(effects);
        if self.is_primary() {
            self.begin_round_if_wanted();
            self.prepare_gathered(effects);
            self.send_round(effects);
            self.serve_reads(effects);
        } else {
            self.catch_up(effects);
        }
        self.load_inherited(effects);
        self.repair(effects);
        self.sync(effects);
        if self.timers.scrub.is_clear() {
            self.timers
                .scrub
                .set(self.now, self.checkpoint.scrub_interval_ns());
        }
    }

    /// Whether [`Self::finish_turn`] has more to do at once.
    pub fn has_work(&self) -> bool {
        let pending = self.execution_pending
            || self.checkpointing.pending
            || self.repair.has_more_to_acknowledge()
            || self.has_gathered_work()
            || self.reads.pending
            || self.sync.pending;
        pending && !self.is_condemned()
    }

    /// The monotonic time at which the replica wants a [`Event::Tick`].
    pub fn deadline_ns(&self) -> u64 {
        if self.is_condemned() {
            return u64::MAX;
        }
        self.timers.deadline_ns()
    }

    /// Whether a message with this header can be taken now; if not, the host stops reading that connection until a
    /// disk request has completed. Only local I/O is ever waited for.
    pub fn has_room_for(&self, from: Peer, header: &Header) -> bool {
        match (from, header.try_typed::<Prepare>()) {
            // While the journal is being read prepares are not used, and need no room.
            _ if self.status == ReplicaStatus::Opening => true,
            (Peer::Replica(_), Some(prepare)) if prepare.op == self.head.op + 1 => {
                self.journal.can_append(prepare.op)
                    || prepare.op > self.checkpoint_op + u64::from(self.layout.geometry.slots)
            }
            _ => true,
        }
    }

    /// Counts since the start.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether a majority of the replicas agrees on the time, and timestamps follow it: if not, an alarm is due.
    pub fn is_clock_synchronised(&self) -> bool {
        self.clock.is_synchronised()
    }

    /// What this replica is doing.
    pub fn status(&self) -> ReplicaStatus {
        match self.status {
            ReplicaStatus::Normal if self.lagging || !self.state_ready => ReplicaStatus::Syncing,
            ReplicaStatus::ViewChange if self.parked.view.is_some() => ReplicaStatus::Syncing,
            status => status,
        }
    }

    /// Index of the primary of the current view.
    pub fn primary(&self) -> u8 {
        (self.view % u32::from(self.options.replica_count)) as u8
    }

    /// Whether it acts in a view, or between two: its file is read, and nobody has found anything wrong with it.
    fn takes_part(&self) -> bool {
        matches!(
            self.status,
            ReplicaStatus::Normal | ReplicaStatus::ViewChange
        )
    }

    fn is_primary(&self) -> bool {
        self.status == ReplicaStatus::Normal && self.primary() == self.options.replica
    }

    /// Whether the cluster has one replica.
    pub fn is_solo(&self) -> bool {
        self.options.replica_count == 1
    }

    fn is_backup(&self) -> bool {
        self.status == ReplicaStatus::Normal && self.primary() != self.options.replica
    }

    fn others(&self) -> impl Iterator<Item = u8> + use<M, R> {
        let me = self.options.replica;
        (0..self.options.replica_count).filter(move |&replica| replica != me)
    }

    /// A header of this replica, stamped with its durable view.
    fn header<T: Typed>(&self) -> T {
        let view = if R::VOTE_AWAITS_DURABLE_VIEW {
            self.superblock.durable_view().view()
        } else {
            self.view
        };
        T::new(self.options.cluster, view, self.options.replica)
    }

    /// Sends a message without a body. If no buffer is free the message is lost, as any message may be.
    fn send_header<T: Typed>(&mut self, to: Peer, header: &T, effects: &mut Effects) {
        let pool = if matches!(to, Peer::Client(_)) {
            &self.answers
        } else {
            &self.small
        };
        let Some(mut message) = pool.take() else {
            self.metrics.ignored(Ignored::NoBuffer);
            return;
        };
        message.set_header(header);
        effects.send(to, message.seal());
    }

    /// The smallest free buffer that holds `size` bytes.
    fn buffer_for(&self, size: usize) -> Option<Message> {
        if size <= self.small.message_size() {
            self.small.take()
        } else {
            self.large.take()
        }
    }

    fn on_message(&mut self, from: Peer, message: Message, effects: &mut Effects) {
        let command = message
            .header()
            .command()
            .expect("the host has checked the header");
        match (from, command) {
            // Nothing can be answered yet, not even that: no view is known to be durable.
            (Peer::Client(_), _) if !self.superblock.is_open() => {
                self.metrics.ignored(Ignored::NotReady);
            }
            (Peer::Client(_), Command::PingClient) => self.on_ping_client(from, &message, effects),
            (Peer::Client(_), Command::Request) => self.on_request(from, message, effects),
            (Peer::Replica(replica), command) if replica != self.options.replica => {
                self.on_replica_message(replica, command, message, effects);
            }
            _ => self.metrics.ignored(Ignored::Unexpected),
        }
    }

    fn on_replica_message(
        &mut self,
        from: u8,
        command: Command,
        message: Message,
        effects: &mut Effects,
    ) {
        if from >= self.options.replica_count || self.status == ReplicaStatus::Opening {
            self.metrics.ignored(Ignored::NotReady);
            return;
        }
        if self.start_state() == Start::Begun {
            self.hear_of_view(from, message.header(), effects);
        }
        match command {
            Command::Ping => self.on_ping(from, *message.header().typed(), effects),
            Command::Pong => self.on_pong(from, message.header().typed(), effects),
            Command::Commit if self.status == ReplicaStatus::Lost => {
                let commit: &Commit = message.header().typed();
                self.hear_commit_while_lost(commit.commit, commit.frame.view);
                self.advance_lost(effects);
            }
            Command::Page => self.on_page(from, &message, effects),
            _ if self.start_state() != Start::Begun => self.metrics.ignored(Ignored::NotReady),
            // What is asked for by its hash may be read from any file.
            Command::RequestPages => self.on_request_pages(from, &message, effects),
            Command::RequestHeaders => {
                self.on_request_headers(from, message.header().typed(), effects);
            }
            Command::RequestPrepare => {
                self.on_request_prepare(from, *message.header().typed(), effects);
            }
            _ if !self.is_confirmed() => self.metrics.ignored(Ignored::NotReady),
            Command::Prepare => self.on_prepare(from, message.freeze(), effects),
            Command::PrepareOk => self.on_prepare_ok(from, message.header().typed(), effects),
            Command::Commit => self.on_commit(from, *message.header().typed(), effects),
            Command::CommitOk => self.on_commit_ok(from, message.header().typed(), effects),
            Command::StartViewChange => {
                self.on_start_view_change(from, message.header().frame.view, effects);
            }
            Command::DoViewChange => self.on_do_view_change(from, &message, effects),
            Command::StartView => self.on_start_view(from, &message, effects),
            Command::RequestStartView => {
                self.on_request_start_view(from, message.header().typed(), effects);
            }
            Command::Headers => self.on_headers(from, &message),
            Command::NoPrepare => self.on_no_prepare(from, message.header().typed()),
            _ => self.metrics.ignored(Ignored::Unexpected),
        }
    }

    /// Whether a message comes from the primary of this very view.
    fn is_from_primary(&self, from: u8, header: &Header) -> bool {
        from == self.primary() && header.frame.view == self.view
    }

    fn start_state(&self) -> Start {
        self.superblock.working().start()
    }

    /// The newest checkpoint that op `op`'s place in the ring rests on: it must be durable wherever op is acknowledged.
    fn checkpoint_required(&self, op: u64) -> u64 {
        let (interval, lag) = (
            self.layout.geometry.checkpoint_interval(),
            self.layout.geometry.checkpoint_lag(),
        );
        match op.checked_sub(lag + 1) {
            Some(frozen_before) => frozen_before / interval * interval,
            None => 0,
        }
    }

    fn broadcast(&mut self, message: &SharedMessage, effects: &mut Effects) {
        for replica in self.others() {
            effects.send(Peer::Replica(replica), message.clone());
        }
    }
}
