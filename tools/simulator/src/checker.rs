//! The checkers: what must hold after every event, whatever was lost, repeated, reordered or crashed.
//!
//! * **One linear history.** The first replica to execute an op fixes it; every other, and the same after a restart,
//!   must execute the same prepare at that op. Each prepare is chained to its parent.
//! * **Replies agree with a model.** The history is executed a second time, on a model of sessions and of the machines;
//!   the reply a client gets must be, byte for byte, what the model says that op answers. So nothing acknowledged is
//!   lost (it is in the history, and the history never changes) nor done twice (the model executes it once).
//! * **Reads are linearizable.** A read's answer is the model's state at the commit that the reply names, and that is
//!   no older than anything committed anywhere when the read began.
//! * **Promises are kept.** What a replica has acknowledged as durable is in its journal after every restart.
//! * **Equal checkpoints** have equal ids; **commit never goes back** while a process lives.
//!
//! A violation is a panic; the run's seed is printed with it.

mod shadow;

use crate::workload::Workload;
use shadow::Shadow;
use std::collections::{BTreeMap, VecDeque};
use storage::checksum;
use storage::header::{Header, Prepare, PrepareOk, ReplicaStatus, Reply, Status, SubHeader};
use storage::layout::REPLICAS_MAX;
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
    /// Highest op it has promised to hold durably, in the last view it promised anything in.
    promised: u64,
    /// That view: the log of a later one may end below.
    promised_view: u32,
    /// Its newest durable checkpoint.
    checkpoint_op: u64,
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
    /// Restarts at which promises were checked.
    pub restarts: u64,
}

/// See the module's description.
#[derive(Debug)]
pub struct Checker<W> {
    /// Identities of all ops, from op 0.
    history: Vec<u128>,
    /// The last op's next possible time.
    timestamp_next: u64,
    candidates: BTreeMap<u64, Vec<Candidate>>,
    shadow: Shadow<W>,
    reads: Vec<PendingRead>,
    /// Acknowledgements from the op after the history's last.
    acknowledged: Vec<(Reply, Vec<u8>)>,
    checkpoints: BTreeMap<u64, u128>,
    watched: [Watched; REPLICAS_MAX],
    solo: bool,
    checked: Checked,
}

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
            checkpoints: BTreeMap::new(),
            watched: [Watched::default(); REPLICAS_MAX],
            solo: replica_count == 1,
            checked: Checked::default(),
        }
    }

    /// Counts of what was checked.
    pub fn checked(&self) -> Checked {
        Checked {
            ops: self.head(),
            copies: self.shadow.copies(),
            ..self.checked
        }
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
        let known = |candidate: &Candidate| {
            let same_place = candidate.header.frame.view == prepare.frame.view;
            let same = candidate.header.frame.checksum == prepare.frame.checksum;
            assert!(
                same || !same_place,
                "two prepares of op {} in one view",
                prepare.op
            );
            same
        };
        if !candidates.iter().any(known) {
            candidates.push(Candidate {
                header: prepare,
                body: body.to_vec(),
            });
        }
    }

    /// A replica sends this acknowledgement.
    pub fn on_prepare_ok(&mut self, replica: u8, ok: &PrepareOk) {
        let watched = &mut self.watched[replica as usize];
        if ok.frame.view > watched.promised_view {
            watched.promised_view = ok.frame.view;
            watched.promised = 0;
        }
        watched.promised = watched.promised.max(ok.op);
    }

    /// A replica's process is gone; whatever it had executed is executed again from its last checkpoint.
    pub fn on_crash(&mut self, replica: u8) {
        let watched = &mut self.watched[replica as usize];
        watched.commit_min = 0;
        watched.opened = false;
    }

    /// A replica has taken an event: compares what it has executed with the history, and extends that.
    pub fn on_progress(&mut self, replica: u8, progress: &Progress) {
        if progress.status == ReplicaStatus::Opening {
            return;
        }
        let before = self.watched[replica as usize];
        assert!(progress.commit_min <= progress.commit_max.min(progress.head_op));
        if !before.opened {
            self.on_opened(replica, progress);
        } else if progress.commit_min == before.commit_min {
            return;
        }
        assert!(progress.commit_min >= before.commit_min, "commit went back");
        self.extend(progress.commit_min, progress.commit_checksum);
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
        if self.solo {
            watched.promised = watched.promised.max(progress.commit_min);
        }
    }

    fn on_checkpoint(&mut self, replica: u8, progress: &Progress) {
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

    fn on_opened(&mut self, replica: u8, progress: &Progress) {
        let watched = &mut self.watched[replica as usize];
        assert!(
            progress.head_op >= watched.promised
                || progress.log_view > watched.promised_view && !self.solo,
            "replica {replica} promised op {} and came back with {}",
            watched.promised,
            progress.head_op
        );
        watched.opened = true;
        watched.commit_min = progress.commit_min;
        self.checked.restarts += 1;
    }

    /// Extends the history to `op`, whose identity is `checksum`, by the chain of parents.
    fn extend(&mut self, op: u64, checksum: u128) {
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
            assert!(header.timestamp >= self.timestamp_next, "time went back");
            self.timestamp_next = header.timestamp + u64::from(header.requests);
            self.checked.requests += u64::from(header.requests);
            self.shadow.execute(&header, &body);
            self.history.push(header.frame.checksum);
            for (reply, body) in self.acknowledged.drain(..) {
                self.shadow.check_reply(&reply, &body);
            }
            self.answer_reads();
        }
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
        self.checked.writes += 1;
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

    /// Whether every acknowledgement is checked.
    pub fn is_settled(&self) -> bool {
        self.acknowledged.is_empty()
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
