//! Linearizable reads that do not write the log.
//!
//! A read is answered from committed state once a replication quorum (this replica included; it meets every view-change
//! quorum) that is in this view has returned one commit round begun after the read arrived, and once everything that was
//! known to be committed at its arrival is executed here. No lease and no clock is involved. Many reads share a round;
//! under writes its number rides on prepares. Rounds are numbered within a view.
//!
//! A read also waits for the pulses that were due when it arrived: what had expired by then is gone from its answer. That
//! is a matter of what the answer says, not of its being linearizable.

use super::{Effects, Ignored, Peer, Replica};
use crate::constants::{self, EXECUTE_PER_TURN_MAX, HEARTBEAT_NS, large_reserved};
use crate::machines::Machines;
use crate::rules::Rules;
use crate::state_machine::{Context, Limits};
use std::collections::VecDeque;
use storage::buffer::Message;
use storage::header::{Commit, CommitOk, HEADER_SIZE, Rejection, Reply, Status, sub_request};
use storage::layout::Geometry;

#[derive(Debug)]
struct Read {
    message: Message,
    origin: Peer,
    /// The round that must be confirmed: the first to begin after the arrival.
    round: u64,
    /// The op that must be executed.
    commit: u64,
    /// Most bytes of the answer, by the request's plan.
    reply_size: usize,
    /// When it arrived, on the replicated clock: what was due by then must be done.
    time_ns: u64,
    /// Not a read of state, but of the session table: is this client's session really gone?
    eviction: bool,
}

/// Reads that wait, and the rounds they wait for.
#[derive(Debug)]
pub(super) struct Reads {
    queue: VecDeque<Read>,
    /// The newest round begun in this view.
    pub(super) round_begun: u64,
    /// The newest round that was sent to the others, by commit or on a prepare.
    pub(super) round_sent: u64,
    round_confirmed: u64,
    /// Where an answer is made.
    scratch: Box<[u8]>,
    /// More can be served at once than a turn allows.
    pub(super) pending: bool,
}

impl Reads {
    pub(super) fn new(geometry: &Geometry) -> Self {
        let capacity = constants::reads_max(geometry);
        let reply_size_max = Limits::new(geometry).read_reply_size_max;
        Self {
            queue: VecDeque::with_capacity(capacity),
            round_begun: 0,
            round_sent: 0,
            round_confirmed: 0,
            scratch: vec![0; reply_size_max].into_boxed_slice(),
            pending: false,
        }
    }

    /// Rounds are numbered within a view, and a read that waits is asked again in the next: the view that begins may commit
    /// writes before an answer from this one is sent.
    pub(super) fn leave_view(&mut self) {
        self.queue.clear();
        self.round_begun = 0;
        self.round_sent = 0;
        self.round_confirmed = 0;
        self.pending = false;
    }

    /// Whether a read waits.
    pub(super) fn are_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The newest round that a quorum has returned.
    pub(super) fn confirmed(&self) -> u64 {
        self.round_confirmed
    }
}

impl<M: Machines, R: Rules> Replica<M, R> {
    pub(super) fn take_read(
        &mut self,
        from: Peer,
        message: Message,
        reply_size: usize,
    ) -> Result<(), Rejection> {
        self.queue_read(from, message, reply_size, false)
    }

    /// The session is not in the committed table. The client is told so only under the conditions of a read: otherwise a
    /// primary that was deposed, or one that has not executed an inherited register, would evict a live client.
    pub(super) fn take_eviction(&mut self, from: Peer, message: Message) -> Result<(), Rejection> {
        self.queue_read(from, message, 0, true)
    }

    fn queue_read(
        &mut self,
        origin: Peer,
        message: Message,
        reply_size: usize,
        eviction: bool,
    ) -> Result<(), Rejection> {
        if self.reads.queue.len() == self.reads.queue.capacity() {
            return Err(Rejection::Busy);
        }
        let commit = if R::READ_AWAITS_INHERITED {
            self.commit_max.max(self.inherited)
        } else {
            self.commit_min
        };
        let round = self.reads.round_begun + 1;
        let time_ns = self.timestamp_next();
        self.reads.queue.push_back(Read {
            message,
            origin,
            round,
            commit,
            reply_size,
            time_ns,
            eviction,
        });
        Ok(())
    }

    /// Begins the next round if a read waits for it and none is under way.
    pub(super) fn begin_round_if_wanted(&mut self) {
        self.confirm_rounds();
        let wanted = self
            .reads
            .queue
            .back()
            .is_some_and(|read| read.round > self.reads.round_begun);
        if wanted && self.reads.round_confirmed == self.reads.round_begun {
            self.reads.round_begun += 1;
            self.confirm_rounds();
        }
    }

    /// The newest round that a replication quorum has returned, this replica included.
    fn confirm_rounds(&mut self) {
        let needed = usize::from(self.quorums.replication - 1);
        let mut rounds = [0; storage::layout::REPLICAS_MAX];
        let mut count = 0;
        for replica in self.others() {
            rounds[count] = self.peers[replica as usize].round;
            count += 1;
        }
        let confirmed = if needed == 0 {
            self.reads.round_begun
        } else {
            rounds[..count].sort_unstable();
            rounds[count - needed]
        };
        assert!(confirmed <= self.reads.round_begun);
        assert!(confirmed >= self.reads.round_confirmed);
        self.reads.round_confirmed = confirmed;
    }

    /// Sends the round to the others, unless a prepare has carried it.
    pub(super) fn send_round(&mut self, effects: &mut Effects) {
        if self.reads.round_begun > self.reads.round_sent {
            self.send_commit(effects);
        }
    }

    /// The heartbeat.
    pub(super) fn send_commit(&mut self, effects: &mut Effects) {
        self.reads.round_sent = self.reads.round_begun;
        self.timers.heartbeat.set(self.now, HEARTBEAT_NS);
        let mut commit: Commit = self.header();
        assert_eq!(commit.frame.view, self.view);
        commit.commit = self.commit_min; // executed here, so its identity is at hand
        commit.commit_checksum = self.commit_checksum;
        (commit.checkpoint_op, commit.checkpoint_id) = self.checkpoint_to_announce();
        commit.round = self.reads.round_begun;
        commit.monotonic_ns = self.now.monotonic_ns;
        commit.op = self.head.op;
        let Some(mut message) = self.small.take() else {
            self.metrics.ignored(Ignored::NoBuffer);
            return;
        };
        message.set_header(&commit);
        let message = message.seal();
        self.broadcast(&message, effects);
    }

    pub(super) fn on_commit_ok(&mut self, from: u8, ok: &CommitOk, effects: &mut Effects) {
        if !self.is_primary() || ok.frame.view != self.view || ok.round > self.reads.round_begun {
            self.metrics.ignored(Ignored::OtherView);
            return;
        }
        let now_ns = self.now.monotonic_ns;
        let peer = &mut self.peers[from as usize];
        peer.on_progress(ok.commit_min, ok.checkpoint_op, ok.round);
        peer.heard_ns = now_ns;
        self.hear_checkpoint(from, ok.checkpoint_op, ok.checkpoint_id, effects);
    }

    /// Answers the reads whose conditions hold, in order of arrival, up to the turn's bound.
    pub(super) fn serve_reads(&mut self, effects: &mut Effects) {
        self.reads.pending = false;
        if !self.state_ready {
            return;
        }
        self.confirm_rounds();
        for _ in 0..EXECUTE_PER_TURN_MAX {
            let Some(read) = self.reads.queue.front() else {
                return;
            };
            if R::READ_AWAITS_ROUND && read.round > self.reads.round_confirmed
                || read.commit > self.commit_min
                || self.executing.is_some()
            {
                return; // in the middle of an op the state is between two ops
            }
            if !read.eviction && self.is_pulse_due(read.time_ns) {
                return; // what has expired is still there: the pulse comes first
            }
            if read.eviction {
                let read = self.reads.queue.pop_front().expect("looked at above");
                let (request, _) = sub_request(read.message.body(), 0).expect("checked at arrival");
                let sub = *request.header;
                let gone = self
                    .engine
                    .session(sub.client)
                    .is_none_or(|session| session.session != sub.session);
                if gone {
                    self.send_eviction(read.origin, &sub, effects);
                }
            } else if !self.serve_read(effects) {
                return;
            }
        }
        self.reads.pending = !self.reads.queue.is_empty();
    }

    /// A buffer for an answer: answers leave some of the large ones to the protocol.
    fn answer_buffer(&self, size: usize) -> Option<Message> {
        let reserved = large_reserved(&self.layout.geometry);
        if size <= self.answers.message_size() {
            self.answers.take()
        } else if self.large.free() > reserved {
            self.large.take()
        } else {
            None
        }
    }

    /// Answers the oldest read; false if no buffer is free, and it waits.
    fn serve_read(&mut self, effects: &mut Effects) -> bool {
        let read = self.reads.queue.front().expect("the caller looked");
        let (request, _) = sub_request(read.message.body(), 0).expect("checked at arrival");
        let sub = *request.header;
        let context = Context {
            op: self.commit_min,
            timestamp: self.commit_timestamp,
            client: sub.client,
        };
        // Most answers are far smaller than what their plan allows, and the small buffers are many: so the answer is made
        // first, and the buffer chosen by its size.
        let size = self.engine.read(
            &context,
            request,
            &mut self.reads.scratch[..read.reply_size],
        );
        let Some(mut answer) = self.answer_buffer(HEADER_SIZE + size) else {
            return false;
        };
        answer.buffer_mut()[HEADER_SIZE..HEADER_SIZE + size]
            .copy_from_slice(&self.reads.scratch[..size]);
        let mut header: Reply = self.header();
        header.frame.size = (HEADER_SIZE + size) as u32;
        header.client = sub.client;
        header.session = sub.session;
        header.op = self.commit_min;
        header.timestamp = self.commit_timestamp;
        header.request = sub.request;
        header.operation = sub.operation;
        header.status = Status::Ok as u16;
        answer.set_header(&header);
        let origin = self
            .reads
            .queue
            .pop_front()
            .expect("looked at above")
            .origin;
        effects.send(origin, answer.seal());
        self.metrics.reads += 1;
        true
    }
}
