//! The checkers: what must hold after every event, whatever was lost, repeated, reordered or crashed.
//!
//! * **One linear history.** The first replica to execute an op fixes it; every other, and the same after a restart,
//!   must execute the same prepare at that op. Each prepare is chained to its parent.
//! * **Replies agree with a model.** The history is executed a second time, on a model of sessions and of the machines;
//!   the reply a client gets must be, byte for byte, what the model says that op answers. So nothing acknowledged is
//!   lost (it is in the history, and the history never changes) nor done twice (the model executes it once).
//! * **Reads are linearizable.** A read's answer is the model's state at the commit that the reply names, and that is
//!   no older than anything committed anywhere when the read began.
//! * **A quorum holds** what is executed, durably, when it is first executed anywhere, and acknowledged it in one view.
//! * **Promises are kept.** What a replica has acknowledged as durable is in its journal after every restart, unless a
//!   later view cut it off or its disk was damaged; more on what replicas say in [`promises`].
//! * **Equal checkpoints** have equal ids. **Commit never goes back** while a process lives, nor does **the head within a
//!   view**.
//! * **Time** in the log is monotonic, not beyond every clock, and not beyond those of a majority unless it began so.
//!
//! A violation is a panic; the run's seed is printed with it.

pub mod promises;
mod shadow;

use crate::workload::Workload;
use promises::{Promises, Spoke};
use shadow::Shadow;
use std::collections::{BTreeMap, VecDeque};
use storage::checksum;
use storage::header::{Header, Prepare, PrepareOk, ReplicaStatus, Reply, Status, SubHeader};
use storage::layout::{Geometry, REPLICAS_MAX};
use viewstone::quorums::Quorums;
use viewstone::replica::Progress;
use zerocopy::FromBytes;

/// A prepare that some replica has begun to write, and nobody is known to have executed.
#[derive(Debug)]
struct Candidate {
    header: Prepare,
    body: Vec<u8>,
}

/// What a read may answer, while it is under way.
#[derive(Debug)]
struct PendingRead {
    client: u128,
    request: u32,
    operation: u16,
    body: Vec<u8>,
    /// From which op on the answer has which identity; the first is the floor.
    answers: Vec<(u64, u128)>,
}

/// What is known of a replica.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// Executed in this life of its process.
    commit_min: u64,
    /// Has been looked at in this life, since it opened its data file.
    opened: bool,
    /// Highest op it has promised to hold durably, and in which view.
    promised: u64,
    promised_view: u32,
    /// Its newest durable checkpoint.
    checkpoint_op: u64,
    /// When it was last normal in this life: the view, and the head of its log.
    head: Option<(u32, u64)>,
}

/// The latest times that wall clocks may have shown, errors included, in nanoseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Times {
    /// Any of them.
    pub any_ns: u64,
    /// So many that they are a majority.
    pub majority_ns: u64,
}

/// What the checker asks of disks and clocks.
pub trait World {
    /// Whether a prepare is durable in the journal of a replica, or was until its disk was damaged there.
    fn holds(&self, replica: u8, prepare: &Prepare) -> bool;
    /// Whether nothing of a replica's journal is damaged: what it acknowledged must be found there.
    fn is_journal_sound(&self, replica: u8) -> bool;
    /// How late it may be.
    fn times(&self) -> Times;
}

/// Counts of what was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Ops in the history.
    pub ops: u64,
    /// Requests in them.
    pub requests: u64,
    /// Requests in them that were copies of executed ones.
    pub copies: u64,
    /// Writes acknowledged to clients.
    pub writes: u64,
    /// Reads answered.
    pub reads: u64,
    /// Different checkpoints.
    pub checkpoints: u64,
    /// Executions of ops compared with the history, over all replicas.
    pub executions: u64,
    /// Registrations that found every session in use.
    pub sessions_full: u64,
    /// Sessions that made room for others.
    pub sessions_evicted: u64,
    /// Clients that were told so.
    pub evictions_told: u64,
    /// Writes refused for want of room.
    pub out_of_space: u64,
    /// Restarts.
    pub restarts: u64,
    /// Restarts at which a replica could not tell where its log ends.
    pub heads_uncertain: u64,
    /// What was said between replicas.
    pub spoke: Spoke,
}

/// See the module's description.
pub struct Checker<W: Workload> {
    /// Identities of all ops, from op 0.
    history: Vec<u128>,
    /// The last op's next possible time.
    timestamp_next: u64,
    candidates: BTreeMap<u64, Vec<Candidate>>,
    shadow: Shadow<W>,
    reads: Vec<PendingRead>,
    /// Acknowledgements from the op after the history's last.
    acknowledged: Vec<(Reply, Vec<u8>)>,
    /// Sessions, with their clients, that were said to be gone, and are not before the op after the history's last.
    evictions: Vec<(u128, u64)>,
    checkpoints: BTreeMap<u64, u128>,
    distrusted: Option<u8>,
    watched: [Watched; REPLICAS_MAX],
    promises: Promises,
    replica_count: u8,
    /// The first op was made by a clock of which nobody could know that it was wrong.
    began_wild: bool,
    checked: Checked,
}

/// Ops below the head of the history of which nobody denies any more that they are committed.
const OPS_SETTLED: u64 = 256;

impl<W: Workload> Checker<W> {
    /// Nothing has happened in the cluster yet.
    pub fn new(cluster: u128, replica_count: u8, workload: W) -> Self {
        Self {
            history: vec![Prepare::root(cluster).frame.checksum],
            timestamp_next: 0,
            candidates: BTreeMap::new(),
            shadow: Shadow::new(workload),
            reads: Vec::new(),
            acknowledged: Vec::new(),
            evictions: Vec::new(),
            checkpoints: BTreeMap::new(),
            distrusted: None,
            watched: [Watched::default(); REPLICAS_MAX],
            promises: Promises::new(replica_count),
            replica_count,
            began_wild: false,
            checked: Checked::default(),
        }
    }

    /// Counts of what was checked.
    pub fn checked(&self) -> Checked {
        let refused = self.shadow.refused();
        Checked {
            ops: self.head(),
            copies: refused.copies,
            sessions_full: refused.sessions_full,
            sessions_evicted: refused.evicted,
            out_of_space: refused.out_of_space,
            spoke: self.promises.spoke(),
            ..self.checked
        }
    }

    /// There are so many sessions, and more clients may ask for one.
    pub fn limit_sessions(&mut self, sessions_max: u32) {
        self.shadow.limit_sessions(sessions_max);
    }

    /// The state may grow beyond its pages.
    pub fn limit_space(&mut self, geometry: &Geometry) {
        self.shadow.limit_space(geometry);
    }

    /// The newest op that any replica has executed.
    pub fn head(&self) -> u64 {
        self.history.len() as u64 - 1
    }

    /// The workload, for drawing requests: it knows the model's state.
    pub fn workload(&mut self) -> &mut W {
        self.shadow.workload()
    }

    /// A replica begins to write this prepare to its journal.
    pub fn on_journal_write(&mut self, header: &Header, body: &[u8]) {
        let prepare = *header.typed::<Prepare>();
        if prepare.op <= self.head() {
            return;
        }
        let candidates = self.candidates.entry(prepare.op).or_default();
        let checksum = prepare.frame.checksum;
        let known = |candidate: &Candidate| candidate.header.frame.checksum == checksum;
        if !candidates.iter().any(known) {
            candidates.push(Candidate {
                header: prepare,
                body: body.to_vec(),
            });
            self.promises.on_prepare(&prepare);
        }
    }

    /// A replica sends a message to another.
    pub fn on_send(&mut self, replica: u8, header: &Header, body: &[u8]) {
        self.promises.on_send(replica, header, body);
        if let Some(ok) = header.try_typed::<PrepareOk>() {
            let watched = &mut self.watched[replica as usize];
            let view = ok.frame.view;
            if view > watched.promised_view {
                watched.promised = 0; // a later view may have cut off what was promised in this one
            }
            watched.promised = watched.promised.max(ok.op);
            watched.promised_view = view;
        }
    }

    /// A replica's disk is lost: nothing that it promised is held against it.
    pub fn on_lost(&mut self, replica: u8) {
        self.promises.on_lost(replica);
        self.watched[replica as usize] = Watched::default();
    }

    /// A replica's process is gone; whatever it had executed is executed again from its last checkpoint.
    pub fn on_crash(&mut self, replica: u8) {
        let watched = &mut self.watched[replica as usize];
        watched.commit_min = 0;
        watched.opened = false;
        watched.head = None;
    }

    /// Whether a replica is seen to have opened its data file, for the first time in this life.
    pub fn has_opened(&self, replica: u8, progress: &Progress) -> bool {
        progress.status != ReplicaStatus::Opening && !self.watched[replica as usize].opened
    }

    /// A replica has taken an event: compares what it has executed with the history, and extends that. The first
    /// execution of an op must find it durable on a quorum.
    pub fn on_progress(&mut self, replica: u8, progress: &Progress, world: &impl World) {
        if progress.status == ReplicaStatus::Opening {
            return;
        }
        let before = self.watched[replica as usize];
        assert!(progress.commit_min <= progress.commit_max.min(progress.head_op));
        if !before.opened {
            self.on_opened(replica, progress, world.is_journal_sound(replica));
        }
        self.on_head(replica, progress);
        if before.opened && progress.commit_min == before.commit_min {
            return;
        }
        assert!(progress.commit_min >= before.commit_min, "commit went back");
        self.extend(progress.commit_min, progress.commit_checksum, world);
        let expected = self.history[progress.commit_min as usize];
        assert_eq!(
            progress.commit_checksum, expected,
            "replica {replica} executed another prepare at op {}",
            progress.commit_min
        );
        self.on_checkpoint(replica, progress);
        self.checked.executions += progress.commit_min - before.commit_min.min(progress.commit_min);
        let watched = &mut self.watched[replica as usize];
        watched.commit_min = progress.commit_min;
        if self.replica_count == 1 {
            watched.promised = watched.promised.max(progress.commit_min);
            watched.promised_view = progress.log_view;
        }
    }

    fn on_head(&mut self, replica: u8, progress: &Progress) {
        let normal = matches!(
            progress.status,
            ReplicaStatus::Normal | ReplicaStatus::Syncing
        );
        // Who waits for a view's log to fit has the log of an earlier one, which may itself be replaced meanwhile.
        if !normal || progress.log_view != progress.view {
            return;
        }
        let watched = &mut self.watched[replica as usize];
        if let Some((view, head)) = watched.head {
            assert!(
                progress.view >= view,
                "replica {replica} goes back to a view"
            );
            assert!(
                progress.view > view || progress.head_op >= head,
                "the head of replica {replica} falls from {head} to {} in view {view}",
                progress.head_op
            );
        }
        watched.head = Some((progress.view, progress.head_op));
    }

    /// A replica's checkpoints are not compared from now on.
    pub fn distrust(&mut self, replica: u8) {
        self.distrusted = Some(replica);
    }

    fn on_checkpoint(&mut self, replica: u8, progress: &Progress) {
        if self.distrusted == Some(replica) {
            return;
        }
        let watched = &mut self.watched[replica as usize];
        assert!(
            progress.checkpoint_op >= watched.checkpoint_op,
            "a durable checkpoint is lost"
        );
        watched.checkpoint_op = progress.checkpoint_op;
        if progress.checkpoint_op > 0 {
            let id = *self
                .checkpoints
                .entry(progress.checkpoint_op)
                .or_insert_with(|| {
                    self.checked.checkpoints += 1;
                    progress.checkpoint_id
                });
            assert_eq!(
                id, progress.checkpoint_id,
                "checkpoints of {} differ",
                progress.checkpoint_op
            );
        }
    }

    fn on_opened(&mut self, replica: u8, progress: &Progress, sound: bool) {
        let watched = &mut self.watched[replica as usize];
        let same_log = progress.log_view == watched.promised_view;
        assert!(
            progress.head_op >= watched.promised || !sound || !same_log,
            "replica {replica} promised op {} and came back with {}",
            watched.promised,
            progress.head_op
        );
        self.checked.heads_uncertain += u64::from(progress.is_head_uncertain);
        watched.opened = true;
        watched.commit_min = progress.commit_min;
        self.checked.restarts += 1;
    }

    /// Extends the history to `op`, whose identity is `checksum`, by the chain of parents.
    fn extend(&mut self, op: u64, checksum: u128, world: &impl World) {
        if op <= self.head() {
            return;
        }
        let mut chain = VecDeque::new();
        let mut wanted = checksum;
        for op in (self.head() + 1..=op).rev() {
            let candidates = self.candidates.remove(&op).unwrap_or_default();
            let found = candidates
                .into_iter()
                .find(|candidate| candidate.header.frame.checksum == wanted)
                .expect("an executed prepare was written by somebody");
            wanted = found.header.parent;
            chain.push_front(found);
        }
        assert_eq!(
            wanted,
            self.history[self.head() as usize],
            "the chain is broken"
        );
        for Candidate { header, body } in chain {
            assert_eq!(header.op, self.head() + 1);
            self.check_quorum(&header, world);
            self.check_time(&header, world.times());
            self.timestamp_next = header.timestamp + u64::from(header.requests);
            self.checked.requests += u64::from(header.requests);
            self.shadow.execute(&header, &body);
            self.history.push(header.frame.checksum);
            for (reply, body) in self.acknowledged.drain(..) {
                self.shadow.check_reply(&reply, &body);
            }
            for (client, session) in self.evictions.drain(..) {
                assert!(
                    self.shadow.is_gone(client, session),
                    "client {client:x} was evicted though session {session} lives"
                );
            }
            self.answer_reads();
        }
        self.promises
            .settled(self.head().saturating_sub(OPS_SETTLED));
    }

    fn check_quorum(&self, header: &Prepare, world: &impl World) {
        let quorum = Quorums::new(self.replica_count).replication;
        let holds = |replica| world.holds(replica, header);
        let holders = (0..self.replica_count).filter(|&replica| holds(replica));
        let (op, checksum) = (header.op, header.frame.checksum);
        assert!(
            holders.count() >= quorum.into(),
            "op {op} is executed, and no quorum holds it"
        );
        assert!(
            self.replica_count == 1 || self.promises.is_committed(op, checksum, quorum, holds),
            "op {op} is executed, and no quorum has acknowledged it in one view"
        );
    }

    fn check_time(&mut self, header: &Prepare, times: Times) {
        let (op, time) = (header.op, header.timestamp);
        assert!(time >= self.timestamp_next, "time went back");
        assert!(
            time <= times.any_ns,
            "the time of op {op}, {time}, is beyond every clock: {times:?}"
        );
        if op == 1 {
            self.began_wild = time > times.majority_ns;
        }
        assert!(
            time <= times.majority_ns || self.began_wild,
            "the time of op {op}, {time}, is beyond the clocks of a majority: {times:?}"
        );
    }

    /// The state has changed: notes what each read under way would answer now.
    fn answer_reads(&mut self) {
        let op = self.head();
        for read in &mut self.reads {
            let answer = self
                .shadow
                .read(op, read.client, read.operation, &read.body);
            let identity = checksum::identity(&answer);
            if read.answers.last().is_none_or(|last| last.1 != identity) {
                read.answers.push((op, identity));
            }
        }
    }

    /// A client begins a read.
    pub fn on_read_begin(&mut self, sub: &SubHeader, body: &[u8]) {
        let op = self.head();
        let answer = self.shadow.read(op, sub.client, sub.operation, body);
        self.reads.push(PendingRead {
            client: sub.client,
            request: sub.request,
            operation: sub.operation,
            body: body.to_vec(),
            answers: vec![(op, checksum::identity(&answer))],
        });
    }

    /// A client takes the answer to its read.
    pub fn on_read_end(&mut self, reply: &Reply, body: &[u8]) {
        let position = self
            .reads
            .iter()
            .position(|read| (read.client, read.request) == (reply.client, reply.request))
            .expect("a read ends once, and after it began");
        let read = self.reads.swap_remove(position);
        assert_eq!(reply.status, Status::Ok as u16);
        let floor = read.answers[0].0;
        assert!(
            floor <= reply.op && reply.op <= self.head(),
            "a read begun when op {floor} was committed saw op {} of {}",
            reply.op,
            self.head()
        );
        let version = read.answers.iter().rfind(|answer| answer.0 <= reply.op);
        let expected = version.expect("the first answer is the floor's").1;
        assert_eq!(
            checksum::identity(body),
            expected,
            "a read at op {} answers what the model does not",
            reply.op
        );
        self.checked.reads += 1;
    }

    /// A client takes the acknowledgement of its write, or of its registration. The primary may answer the first requests
    /// of a committed batch while it still executes the others: then the check waits for the whole op.
    pub fn on_acknowledged(&mut self, reply: &Reply, body: &[u8]) {
        self.checked.writes += u64::from(reply.status != Status::SessionsFull as u16);
        if reply.op <= self.head() {
            self.shadow.check_reply(reply, body);
            return;
        }
        assert!(
            reply.op == self.head() + 1,
            "acknowledged long before it was executed"
        );
        self.acknowledged.push((*reply, body.to_vec()));
    }

    /// A client is told that its session is gone: as with an acknowledgement, in the midst of an op that says so perhaps.
    pub fn on_evicted(&mut self, client: u128, session: u64) {
        self.checked.evictions_told += 1;
        if !self.shadow.is_gone(client, session) {
            self.evictions.push((client, session));
        }
    }

    /// Whether every acknowledgement is checked.
    pub fn is_settled(&self) -> bool {
        self.acknowledged.is_empty() && self.evictions.is_empty()
    }

    /// The identity that the history has at `op`.
    pub fn history(&self, op: u64) -> Option<u128> {
        self.history.get(op as usize).copied()
    }
}

/// A reply's header, from its bytes.
pub fn reply_of(bytes: &[u8]) -> Reply {
    Reply::read_from_bytes(&bytes[..size_of::<Reply>()]).expect("a header's bytes")
}

#[cfg(test)]
mod tests;
