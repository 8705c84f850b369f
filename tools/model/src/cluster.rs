//! The state of the cluster and of everything that was ever sent, and the steps from it to others.

mod converge;
mod steps;
mod vote;

use crate::Bounds;
use crate::journal::{Journal, SLOTS, state};
use crate::prepares::{Id, NONE, Prepares, ROOT};
use crate::recovery::{Disk, Recovery};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use viewstone::rules::Rules;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Replicas.
pub const REPLICAS: usize = 3;

/// Most ops, op 0 apart.
pub const OPS: usize = 3;

/// Views that there is room for: the last is left to the question whether another view can begin.
pub const VIEWS: usize = 5;

/// Identities by op; [`NONE`] where there is none.
pub type Log = [Id; 1 + OPS];

/// What a replica knows of a log's end: ops without a header below the highest are blanks.
fn head_of(log: Log) -> u8 {
    log.iter().rposition(|&id| id != NONE).unwrap_or(0) as u8
}

fn at(log: Log, op: u8) -> Id {
    log.get(usize::from(op)).copied().unwrap_or(NONE)
}

fn low_of(log: Log) -> u8 {
    log.iter().position(|&id| id != NONE).unwrap_or(0) as u8
}

/// What a superblock holds.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Superblock {
    /// The view that its replica is in or votes for.
    pub view: u8,
    /// The last in which it acted.
    pub log_view: u8,
    /// Headers of the log's end then.
    pub list: Log,
    /// What was known to be committed.
    pub commit: u8,
    /// Op of the checkpoint.
    pub checkpoint: u8,
}

/// A replica.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Replica {
    /// On the disk.
    pub durable: Superblock,
    /// As it will be on the disk: the same, as long as nothing is said before it is durable.
    pub working: Superblock,
    /// What it knows to be committed.
    pub commit: u8,
    /// Where its log ends.
    pub head: u8,
    /// If the journal cannot tell where the log ends: the highest op that may have been acknowledged. Zero: it can.
    pub uncertain: u8,
    /// One: it is in its view, but needs the log from its primary before it acts.
    pub asking: u8,
    /// One: it will leave its view, or die, before its last write has landed.
    pub hasty: u8,
    /// The ring.
    pub journal: Journal,
}

impl Replica {
    fn is_normal(&self) -> bool {
        self.working.view == self.working.log_view && self.asking == 0
    }

    fn is_normal_in(&self, view: u8) -> bool {
        self.working.view == view && self.is_normal()
    }
}

/// A vote that was sent.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Debug,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Vote {
    /// One: there is one.
    pub here: u8,
    /// The voter's log_view.
    pub log_view: u8,
    /// Its log's end.
    pub list: Log,
    /// The lowest op of the list.
    pub low: u8,
    /// The highest op it may have acknowledged.
    pub op_max: u8,
    /// Bit by op: it can supply it.
    pub present: u8,
    /// Bit by op: it never acknowledged it.
    pub nack: u8,
    /// What it knows to be committed.
    pub commit: u8,
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct State {
    /// The replicas.
    pub replicas: [Replica; REPLICAS],
    /// The newest vote of each replica, by view.
    pub votes: [[Vote; REPLICAS]; VIEWS],
    /// The log of each view, as far as its primary has prepared; all [`NONE`]: the view has not begun.
    pub logs: [Log; VIEWS],
    /// Where each began.
    pub begun: [u8; VIEWS],
    /// Who has acknowledged each op in each view: a bit for each replica.
    pub acks: [[u8; 1 + OPS]; VIEWS],
    /// What was committed.
    pub committed: Log,
    /// The lowest view in which it was, by op.
    pub committed_in: [u8; 1 + OPS],
    /// Restarts left.
    pub restarts: u8,
    /// Decays left.
    pub decays: u8,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The primary prepares the next op; its write lands at once, or not before it has left its view.
    Prepare(usize, bool),
    /// A backup takes the next op of its view from its primary; likewise.
    Append(usize, bool),
    /// A replica fetches the prepare of an op that it lacks; likewise.
    Fetch(usize, u8, bool),
    /// A write to the slot of an op is durable.
    Land(usize, u8),
    /// A replica writes the redundant headers that acknowledgements wait for.
    Flush(usize),
    /// Its checkpoint at this op is durable.
    Checkpoint(usize, u8),
    /// It leaves its view for another, and knows so much to be committed.
    Leave(usize, u8, u8),
    /// It votes again, and can supply more or less than before.
    VoteAgain(usize),
    /// The candidate of a view begins it with these replicas' votes (a bit for each).
    Begin(usize, u8),
    /// A backup begins a view: with the log that the view began with, or as it is now.
    Install(usize, u8, bool),
    /// The superblock is durable after all (only where a rule is broken).
    Save(usize),
    /// The process dies and starts again. Of its writes, and of the redundant headers that were to be written at some time,
    /// those of these slots have landed. And a slot decays: which, and whether its prepare (1), its redundant header (2) or
    /// both (3).
    Restart(usize, u8, u8, Option<(u8, u8)>),
}

/// What must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// An op was committed twice, with two contents.
    TwoHistories(u8),
    /// A view began, or had begun, without an op that was committed before.
    Forgotten {
        /// The view.
        view: u8,
        /// The op.
        op: u8,
    },
    /// A view has two logs.
    TwoLogs(u8),
    /// A replica voted twice in a view, not for the same.
    ChangedVote(u8),
    /// A log is chosen that takes something for committed that is not.
    NotCommitted(u8),
    /// No further view can begin, although all replicas are there and talk.
    Stuck(String),
    /// What the disk holds cannot be opened.
    Refused(String),
}

/// The choice of a log for sets of votes.
type Choices = BTreeMap<[Vote; REPLICAS], Option<(Log, u8)>>;

/// The rules by which it goes on, and what was computed once and for all.
pub struct Cluster<R> {
    /// The bounds.
    pub bounds: Bounds,
    /// All prepares.
    pub prepares: Prepares,
    recovery: Recovery,
    choices: Choices,
    rules: PhantomData<R>,
}

impl<R: Rules> Cluster<R> {
    /// A cluster with rules.
    pub fn new(bounds: Bounds) -> Self {
        assert!(usize::from(bounds.ops) <= OPS && usize::from(bounds.slots) <= SLOTS);
        assert!(usize::from(bounds.views) + 2 <= VIEWS && bounds.pipeline > 0);
        Self {
            bounds,
            prepares: Prepares::default(),
            recovery: Recovery::default(),
            choices: BTreeMap::new(),
            rules: PhantomData,
        }
    }

    /// After the first start: view 0, nothing prepared.
    pub fn initial(&self) -> State {
        let mut state = State::new_zeroed();
        let mut list = Log::default();
        list[0] = ROOT;
        for replica in &mut state.replicas {
            replica.durable.list = list;
            replica.working.list = list;
            replica.journal = Journal::new(&self.bounds);
        }
        state.logs[0] = list;
        state.committed = list;
        state.restarts = self.bounds.restarts;
        state.decays = self.bounds.decays;
        state
    }

    fn primary(view: u8) -> usize {
        usize::from(view) % REPLICAS
    }

    /// The highest op there may be in a replica's ring.
    fn window_max(&self, replica: &Replica) -> u8 {
        replica.working.checkpoint + self.bounds.slots
    }

    /// What a replica's disk holds.
    fn disk_of(state: &State, replica: &Replica) -> Disk {
        let durable = &replica.durable;
        let slot = |index: usize| {
            let slot = &replica.journal.slots[index];
            (slot.prepare, slot.header)
        };
        Disk {
            checkpoint: state.committed[usize::from(durable.checkpoint)],
            log_view: durable.log_view,
            list: durable.list,
            rings: std::array::from_fn(slot),
        }
    }

    /// Acknowledges all that may be, and sees what that commits.
    fn acknowledge(&self, state: &mut State, replica: usize) -> Result<(), Violation> {
        let it = &state.replicas[replica];
        if !it.is_normal() {
            return Ok(());
        }
        let view = usize::from(it.working.log_view);
        for op in it.working.checkpoint + 1..=it.head {
            let index = usize::from(op);
            let named = it.journal.slot(&self.bounds, op).named;
            if named == state.logs[view][index] && it.journal.is_durable(&self.bounds, op) {
                state.acks[view][index] |= 1 << replica;
            }
        }
        Self::commit(state, view)
    }

    /// Who has acknowledged the prepare that a view has at an op, as far as that view's primary counts it.
    fn acks_of(state: &State, view: usize, op: usize) -> u32 {
        let mut acks = state.acks[view][op];
        if !R::ACKS_DIE_WITH_VIEW {
            for earlier in 0..view {
                if state.logs[earlier][op] == state.logs[view][op] {
                    acks |= state.acks[earlier][op];
                }
            }
        }
        acks.count_ones()
    }

    /// What a quorum has acknowledged in a view is committed, if all before it is: and then every later view has it.
    fn commit(state: &mut State, view: usize) -> Result<(), Violation> {
        let quorum = 2 - u32::from(!R::WHOLE_REPLICATION_QUORUM);
        for op in 1..=OPS {
            let id = state.logs[view][op];
            if id == NONE {
                return Ok(());
            }
            let before = state.committed[op];
            if before == id && usize::from(state.committed_in[op]) <= view {
                state.acks[view][op] = 0; // what they say is known
                continue;
            }
            if Self::acks_of(state, view, op) < quorum {
                return Ok(());
            }
            if before != NONE && before != id {
                return Err(Violation::TwoHistories(op as u8));
            }
            state.committed[op] = id;
            state.committed_in[op] = view as u8;
            for later in view + 1..VIEWS {
                if state.logs[later][0] != NONE && state.logs[later][op] != id {
                    let (view, op) = (later as u8, op as u8);
                    return Err(Violation::Forgotten { view, op });
                }
            }
            for later in view..VIEWS {
                if state.logs[later][op] == id {
                    state.acks[later][op] = 0;
                }
            }
        }
        Ok(())
    }

    /// How far what was committed is known to agree with a view's log.
    fn committed_by(state: &State, view: usize) -> u8 {
        let same = (1..=OPS).take_while(|&op| {
            let known = usize::from(state.committed_in[op]) <= view;
            let committed = state.committed[op];
            known && committed != NONE && committed == state.logs[view][op]
        });
        same.count() as u8
    }

    /// The header of an op of a replica's log.
    fn known_header(&self, state: &State, replica: &Replica, op: u8) -> Option<Id> {
        if op == replica.working.checkpoint {
            return Some(state.committed[usize::from(op)]);
        }
        replica.journal.slot(&self.bounds, op).known(op)
    }

    /// Forgets what can make no difference any more, so that equal futures are one state.
    fn normalize(state: &mut State) {
        for view in 0..VIEWS {
            let candidate = Self::primary(view as u8);
            let over = state.logs[view][0] != NONE
                || usize::from(state.replicas[candidate].working.view) > view
                    && R::VOTE_AWAITS_DURABLE_VIEW;
            for replica in 0..REPLICAS {
                // Who is still in the view may be asked for its vote again, and must give the same.
                let voter_is_there = usize::from(state.replicas[replica].working.view) == view;
                if over && !voter_is_there {
                    state.votes[view][replica] = Vote::default();
                }
            }
        }
    }

    /// Whether every replica's journal and log agree: what is believed above the head is nothing.
    fn check(&self, state: &State) {
        for it in &state.replicas {
            assert!(it.head >= it.working.checkpoint);
            assert!(it.working.log_view <= it.working.view);
            for op in it.head + 1..=self.window_max(it) {
                let slot = it.journal.slot(&self.bounds, op);
                assert!(slot.op != op || slot.state != state::PRESENT);
            }
        }
    }
}

impl<R: Rules> Cluster<R> {
    /// Counts what a state shows.
    pub(crate) fn note(&self, state: &State, reached: &mut crate::explore::Reached) {
        let inherited = |op: &usize| {
            let id = state.committed[*op];
            let later = |view: &usize| state.logs[*view][*op] == id;
            id != NONE && (usize::from(self.prepares.made(id).view) + 1..VIEWS).any(|v| later(&v))
        };
        let slots = || state.replicas.iter().flat_map(|it| &it.journal.slots);
        let (count, slots_count) = (|is: bool| usize::from(is), self.bounds.slots);
        let is_written = |id: Id| id > ROOT && id != crate::prepares::GARBAGE;
        reached.inherited += count((1..=OPS).any(|op| inherited(&op)));
        reached.uncertain += count(state.replicas.iter().any(|it| it.uncertain > 0));
        reached.reused +=
            count(slots().any(|slot| {
                is_written(slot.prepare) && self.prepares.op(slot.prepare) > slots_count
            }));
        reached.lagging += count(slots().any(|slot| {
            is_written(slot.prepare) && is_written(slot.header) && slot.prepare != slot.header
        }));
        let differs = |op: usize| {
            let mut there = state
                .logs
                .iter()
                .map(|log| log[op])
                .filter(|&id| id != NONE);
            let first = there.next();
            there.any(|id| Some(id) != first)
        };
        reached.diverged += count((1..=OPS).any(differs));
    }
}
