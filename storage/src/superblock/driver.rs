//! Opening and updating a file's superblock: which copies are read and written, in which order.
//!
//! ```text
//! open    sync | read all four | decide | rewrite stale 0, 2 | rewrite stale 1, 3 | rewrite those astray | Opened
//! update                                  write 0, 2         | write 1, 3         | Durable
//! ```
//!
//! A round starts when every write of the last one is durable, so at any time two copies at least are whole. Opening
//! begins with a sync because a killed process may have left writes in the device's cache: what it reads back must be
//! what a later cut leaves. It ends with four equal copies, because an update may tear two of them at once.

use super::decide::decide_with;
use super::{COPY_SIZE_MAX, Content, Decision, OpenError, SuperblockState, ViewHeaders};
use crate::SECTOR_SIZE;
use crate::buffer::AlignedBuffer;
use crate::header::{Prepare, Start};
use crate::io::{Buffer, InFlight, IoDone, IoError, IoOwner, IoQueue, IoRequest};
use crate::layout::{Layout, SUPERBLOCK_COPIES};
use std::marker::PhantomData;

/// The rules of writing and reading that make the superblock safe. [`Sound`] is the only sane value; the others exist
/// to prove that the tests notice when one of the rules is broken.
pub trait Rules {
    /// Copies written at once, one round after the other.
    const ROUNDS: &'static [&'static [usize]] = &[&[0, 2], &[1, 3]];
    /// Opening syncs before it reads.
    const SYNC_FIRST: bool = true;
    /// Opening makes all copies equal.
    const REWRITE: bool = true;
    /// A copy whose checksum does not match is not one.
    const CHECK_SUM: bool = true;
    /// Completion of a write means durability.
    const DURABLE: bool = true;
}

/// The rules as they must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sound;

impl Rules for Sound {}

/// What a completion brought about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SuperblockEvent {
    /// The file is open: [`Superblock::working`] is what it holds, in four durable copies.
    Opened,
    /// The file cannot be opened. Nothing was written.
    Refused(OpenError),
    /// An update is durable: [`Superblock::working`] has advanced to it. If another one was waiting, it has begun.
    Durable,
}

/// The view that survives a power cut here; only the superblock makes one. It is taken by value to send what reveals a
/// view: views only rise, so a copy stays true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DurableView {
    view: u32,
    log_view: u32,
}

impl DurableView {
    /// The view this replica is in, or votes for.
    pub fn view(self) -> u32 {
        self.view
    }

    /// The last view in which it was normal.
    pub fn log_view(self) -> u32 {
        self.log_view
    }
}

/// Proof that this replica has durably begun, so that it may ack and vote; only the superblock makes one. It is never
/// taken back, so a copy stays true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begun(());

/// What an I/O in flight is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Sync,
    Read(usize),
    Write(usize),
}

/// What is going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Not opened, or refused.
    Closed,
    /// Making durable what is about to be read.
    Syncing,
    /// Reading all copies.
    Reading,
    /// Open is making all copies equal; the number of the round.
    Rewriting(usize),
    /// Writing an update; the number of the round.
    Writing(usize),
    /// Open, nothing to do.
    Idle,
}

/// One file's superblock. Passive: requests go into the queue it is given, completions are handed to it. It has at most
/// [`Superblock::IO_MAX`] requests in flight.
#[derive(Debug)]
pub struct Superblock<R: Rules = Sound> {
    phase: Phase,
    /// What the file holds: the only thing anybody reads.
    working: Content,
    /// The latest that was asked for: `working`, plus the update being written, plus all merged after it.
    next: Content,
    /// Whether `next` holds changes that are in no update yet.
    pending: bool,
    /// Copies the current rewriting still has to bring up to date.
    stale: [bool; SUPERBLOCK_COPIES],
    astray: [bool; SUPERBLOCK_COPIES],
    /// Each copy's own; none while an I/O has it.
    buffers: [Option<AlignedBuffer>; SUPERBLOCK_COPIES],
    in_flight: InFlight<Purpose>,
    rules: PhantomData<R>,
}

impl Superblock {
    /// A superblock that is not open yet, with all memory it will ever need.
    pub fn new() -> Self {
        Self::with_rules()
    }
}

impl Default for Superblock {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Rules> Superblock<R> {
    /// Most requests in flight.
    pub const IO_MAX: usize = SUPERBLOCK_COPIES;

    /// As [`Superblock::new`], for rules that may be broken.
    pub fn with_rules() -> Self {
        Self {
            phase: Phase::Closed,
            working: Content::nothing(),
            next: Content::nothing(),
            pending: false,
            stale: [false; SUPERBLOCK_COPIES],
            astray: [false; SUPERBLOCK_COPIES],
            buffers: std::array::from_fn(|_| Some(AlignedBuffer::new(COPY_SIZE_MAX))),
            in_flight: InFlight::new(IoOwner::Superblock, Self::IO_MAX),
            rules: PhantomData,
        }
    }

    /// The durable state.
    pub fn working(&self) -> &SuperblockState {
        assert!(self.is_open());
        &self.working.state
    }

    /// The durable headers of the last vote.
    pub fn view_headers(&self) -> &[Prepare] {
        assert!(self.is_open());
        self.working.view_headers.as_slice()
    }

    /// Whether the file is open.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Writing(_))
    }

    /// Whether an update is on its way.
    pub fn is_updating(&self) -> bool {
        matches!(self.phase, Phase::Writing(_))
    }

    /// The durable view.
    pub fn durable_view(&self) -> DurableView {
        let state = self.working();
        DurableView {
            view: state.view,
            log_view: state.log_view,
        }
    }

    /// Proof that this replica has begun, if it has.
    pub fn begun(&self) -> Option<Begun> {
        (self.working().start() == Start::Begun).then_some(Begun(()))
    }

    /// Starts opening. [`SuperblockEvent::Opened`] or [`SuperblockEvent::Refused`] follows.
    pub fn open_start(&mut self, io: &mut IoQueue) {
        assert_eq!(self.phase, Phase::Closed);
        assert_eq!(self.in_flight.used(), 0);
        if R::SYNC_FIRST {
            self.phase = Phase::Syncing;
            let id = self.in_flight.begin(Purpose::Sync);
            io.push(IoRequest::Sync { id });
        } else {
            self.read_all(io);
        }
    }

    /// Changes the superblock: durable at the next [`SuperblockEvent::Durable`] at which [`Superblock::working`] has
    /// the sequence returned here, or a higher one. While an update is being written, all further changes are merged
    /// into one that follows it. `change` sees the latest that was asked for, durable or not.
    ///
    /// What a file is (cluster, replica, geometry) stays, and view, `log_view`, `commit_max`, the checkpoint's op and
    /// the start state never fall; `commit_max` is at least the checkpoint's op. Sequence, parent, sum and count of headers
    /// are set here.
    pub fn update(
        &mut self,
        change: impl FnOnce(&mut SuperblockState, &mut ViewHeaders),
        io: &mut IoQueue,
    ) -> u64 {
        assert!(self.is_open());
        let before = self.next.state;
        change(&mut self.next.state, &mut self.next.view_headers);
        self.next.state.assert_follows(&before);
        self.next.state.sequence = before.sequence;
        self.pending = true;
        if self.phase == Phase::Idle {
            self.write_next(io);
            self.next.state.sequence
        } else {
            self.next.state.sequence + 1
        }
    }

    /// Takes a completion. A stale one changes nothing.
    ///
    /// # Errors
    /// A write or a sync failed: what the file holds is unknown, and the replica must stop.
    pub fn on_io_done(
        &mut self,
        done: IoDone,
        io: &mut IoQueue,
    ) -> Result<Option<SuperblockEvent>, IoError> {
        let Some(purpose) = self.in_flight.finish(done.id) else {
            return Ok(None);
        };
        match purpose {
            Purpose::Sync => {
                assert_eq!(self.phase, Phase::Syncing);
                done.result?;
                self.read_all(io);
                Ok(None)
            }
            Purpose::Read(copy) => {
                assert_eq!(self.phase, Phase::Reading);
                let mut buffer = done.buffer;
                if let Some(buffer) = &mut buffer {
                    // Of no use, like any other bytes that are not a superblock: the other copies serve.
                    buffer.settle_read(&done.result);
                }
                self.keep_buffer(copy, buffer);
                Ok(self.is_round_done().then(|| self.decide(io)).flatten())
            }
            Purpose::Write(copy) => {
                self.keep_buffer(copy, done.buffer);
                done.result?;
                Ok(self.is_round_done().then(|| self.next_round(io)).flatten())
            }
        }
    }

    fn is_round_done(&self) -> bool {
        self.in_flight.used() == 0
    }

    fn read_all(&mut self, io: &mut IoQueue) {
        self.phase = Phase::Reading;
        for copy in 0..SUPERBLOCK_COPIES {
            let buffer = self.take_buffer(copy);
            let id = self.in_flight.begin(Purpose::Read(copy));
            io.push(IoRequest::Read {
                id,
                at: Layout::superblock_at(copy),
                size: COPY_SIZE_MAX,
                buffer,
            });
        }
    }

    fn decide(&mut self, io: &mut IoQueue) -> Option<SuperblockEvent> {
        let bytes = self.buffers.each_ref().map(|buffer| -> &[u8] {
            buffer
                .as_ref()
                .expect("every read has brought its buffer home")
        });
        match decide_with(bytes, R::CHECK_SUM) {
            Err(error) => {
                self.phase = Phase::Closed;
                Some(SuperblockEvent::Refused(error))
            }
            Ok(decision) => {
                self.adopt(&decision);
                self.phase = Phase::Rewriting(0);
                self.rewrite(0, io)
            }
        }
    }

    /// Takes over what the file holds, and notes which copies differ.
    fn adopt(&mut self, decision: &Decision) {
        self.next = decision.content.clone();
        self.working = decision.content.clone();
        self.stale = std::array::from_fn(|copy| R::REWRITE && decision.is_stale(copy));
        self.astray = std::array::from_fn(|copy| R::REWRITE && decision.is_astray(copy));
        self.encode();
        // What is rewritten is what was read, byte for byte: else two contents would have one sequence.
        assert!(!R::CHECK_SUM || self.next.state.checksum == self.working.state.checksum);
    }

    /// Begins the first round of rewriting, from `round` on, that has anything to write. Copies that are whole but
    /// astray come last: until the others are durable, they may be the only ones.
    fn rewrite(&mut self, round: usize, io: &mut IoQueue) -> Option<SuperblockEvent> {
        for round in round..=R::ROUNDS.len() {
            self.phase = Phase::Rewriting(round);
            for copy in 0..SUPERBLOCK_COPIES {
                let due = match R::ROUNDS.get(round) {
                    Some(copies) => self.stale[copy] && copies.contains(&copy),
                    None => self.astray[copy],
                };
                if due {
                    self.write(copy, io);
                }
            }
            if !self.is_round_done() {
                return None;
            }
        }
        self.phase = Phase::Idle;
        Some(SuperblockEvent::Opened)
    }

    /// Begins to write `next`.
    fn write_next(&mut self, io: &mut IoQueue) {
        assert!(self.pending && self.phase == Phase::Idle);
        assert_eq!(self.next.state.sequence, self.working.state.sequence);
        self.pending = false;
        self.next.state.sequence += 1;
        self.next.state.parent = self.working.state.checksum;
        self.encode();
        self.phase = Phase::Writing(0);
        self.write_round(0, io);
    }

    /// Puts `next` into the buffers, each as its own copy.
    fn encode(&mut self) {
        for copy in 0..SUPERBLOCK_COPIES {
            let buffer = self.buffers[copy].as_mut().expect("no I/O is in flight");
            let size = self.next.seal(copy, buffer);
            assert!(size <= COPY_SIZE_MAX);
        }
    }

    fn write_round(&mut self, round: usize, io: &mut IoQueue) {
        for &copy in R::ROUNDS[round] {
            self.write(copy, io);
        }
    }

    fn write(&mut self, copy: usize, io: &mut IoQueue) {
        let buffer = self.take_buffer(copy);
        let id = self.in_flight.begin(Purpose::Write(copy));
        io.push(IoRequest::Write {
            id,
            at: Layout::superblock_at(copy),
            size: written(&buffer).size_on_disk(),
            buffer,
            durable: R::DURABLE,
        });
    }

    /// All writes of a round are durable.
    fn next_round(&mut self, io: &mut IoQueue) -> Option<SuperblockEvent> {
        match self.phase {
            Phase::Rewriting(round) => self.rewrite(round + 1, io),
            Phase::Writing(round) if round + 1 < R::ROUNDS.len() => {
                self.phase = Phase::Writing(round + 1);
                self.write_round(round + 1, io);
                None
            }
            Phase::Writing(_) => {
                self.finish(io);
                Some(SuperblockEvent::Durable)
            }
            phase => unreachable!("a write completed while {phase:?}"),
        }
    }

    /// The update in the buffers is durable; begins the one that waits for it, if any.
    fn finish(&mut self, io: &mut IoQueue) {
        let before = self.working.state;
        let written = self.buffers[0].as_ref().expect("no I/O is in flight");
        self.working.read(written);
        self.working.state.assert_follows(&before);
        assert_eq!(self.working.state.sequence, before.sequence + 1);
        assert_eq!(self.working.state.parent, before.checksum);
        self.phase = Phase::Idle;
        if self.pending {
            self.write_next(io);
        }
    }

    fn take_buffer(&mut self, copy: usize) -> Buffer {
        let buffer = self.buffers[copy].take();
        Buffer::Sectors(buffer.expect("no I/O of this copy is in flight"))
    }

    fn keep_buffer(&mut self, copy: usize, buffer: Option<Buffer>) {
        let Some(Buffer::Sectors(buffer)) = buffer else {
            unreachable!("a superblock's I/O carries sectors")
        };
        assert!(self.buffers[copy].replace(buffer).is_none());
    }
}

/// The first sector of a copy in a buffer.
fn written(buffer: &Buffer) -> &SuperblockState {
    use zerocopy::FromBytes;
    SuperblockState::ref_from_bytes(&buffer.bytes()[..SECTOR_SIZE]).expect("buffers are aligned")
}
