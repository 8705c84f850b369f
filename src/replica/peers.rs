//! What a replica knows of the others, and the greetings by which it learns it.

use super::divergence::NamedCheckpoints;
use super::promises::Remembered;
use super::{Effects, Ignored, Peer, Replica};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::header::{Ping, PingClient, Pong, PongClient, ReplicaStatus, Start};

/// What was heard from another replica.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PeerState {
    /// How far its first start has come; none before its first greeting.
    pub(super) start: Option<Start>,
    /// When it last greeted.
    pub(super) greeted_ns: u64,
    pub(super) commit_min: u64,
    /// Op of the newest checkpoint that is durable there.
    pub(super) checkpoint_op: u64,
    /// The checkpoints that it has named last.
    pub(super) named: NamedCheckpoints,
    /// What it has said to hold durably, compared with at each of its lives.
    pub(super) remembered: Remembered,
    /// The newest read round that it has returned in this view.
    pub(super) round: u64,
    /// When it last answered in this view, on the monotonic clock.
    pub(super) heard_ns: u64,
}

impl PeerState {
    pub(super) fn on_progress(&mut self, commit_min: u64, checkpoint_op: u64, round: u64) {
        self.commit_min = self.commit_min.max(commit_min);
        self.checkpoint_op = self.checkpoint_op.max(checkpoint_op);
        self.round = self.round.max(round);
    }
}

/// What is durable here, as both greetings between replicas say it.
macro_rules! say_facts {
    ($replica:ident, $greeting:ident) => {
        let state = $replica.superblock.working();
        $greeting.fingerprint = $replica.fingerprint;
        ($greeting.checkpoint_op, $greeting.checkpoint_id) = $replica.checkpoint_to_announce();
        $greeting.superblock_sequence = state.sequence;
        $greeting.op = $replica.head.op;
        $greeting.commit_min = $replica.commit_min;
        $greeting.log_view = state.log_view;
        $greeting.start = state.start() as u8;
        $greeting.replica_count = $replica.options.replica_count;
    };
}

impl<M: Machines, R: Rules> Replica<M, R> {
    pub(super) fn on_connected(&mut self, replica: u8, effects: &mut Effects) {
        self.send_ping(replica, effects);
    }

    /// Says hello. While the superblock is being read there is nothing true to say; the ping timer makes up for it.
    pub(super) fn send_ping(&mut self, to: u8, effects: &mut Effects) {
        if !self.superblock.is_open() {
            return;
        }
        let mut ping: Ping = self.header();
        say_facts!(self, ping);
        ping.monotonic_ns = self.now.monotonic_ns;
        self.say_promises(&mut ping);
        self.send_header(Peer::Replica(to), &ping, effects);
    }

    pub(super) fn on_ping(&mut self, from: u8, ping: Ping, effects: &mut Effects) {
        if !self.hear_facts(from, ping.fingerprint, ping.replica_count, ping.start) {
            return;
        }
        let mut pong: Pong = self.header();
        say_facts!(self, pong);
        pong.ping_monotonic_ns = ping.monotonic_ns;
        (pong.ping_life, pong.ping_file) = (ping.life, ping.file);
        let peer = &mut self.peers[from as usize];
        pong.verdict = peer.remembered.hear(&ping) as u8;
        peer.greeted_ns = self.now.monotonic_ns;
        (peer.checkpoint_op, peer.commit_min) = (ping.checkpoint_op, ping.commit_min);
        // The clock as it is: what others make of it is their affair, and ours what we make of theirs.
        pong.realtime_ns = self.now.realtime_ns;
        self.send_header(Peer::Replica(from), &pong, effects);
        self.hear_checkpoint(from, ping.checkpoint_op, ping.checkpoint_id, effects);
        self.hear_greeting_while_lost(from, &ping);
        self.advance_start(effects);
        self.advance_lost(effects);
    }

    pub(super) fn on_pong(&mut self, from: u8, pong: &Pong, effects: &mut Effects) {
        if !self.hear_facts(from, pong.fingerprint, pong.replica_count, pong.start) {
            return;
        }
        self.clock
            .sample(from, pong.ping_monotonic_ns, pong.realtime_ns, self.now);
        self.hear_checkpoint(from, pong.checkpoint_op, pong.checkpoint_id, effects);
        self.hear_verdict(from, pong, effects);
        self.advance_start(effects);
    }

    /// Takes a greeting's word, unless it is of a cluster of another shape.
    fn hear_facts(&mut self, from: u8, fingerprint: u128, replica_count: u8, start: u8) -> bool {
        let same = fingerprint == self.fingerprint && replica_count == self.options.replica_count;
        if same {
            self.peers[from as usize].start = Start::from_u8(start);
        } else {
            self.metrics.ignored(Ignored::Geometry);
        }
        same
    }

    pub(super) fn on_ping_client(
        &mut self,
        from: Peer,
        message: &storage::buffer::Message,
        effects: &mut Effects,
    ) {
        if !self.superblock.is_open() {
            self.metrics.ignored(Ignored::NotReady);
            return;
        }
        let ping = *message.header().typed::<PingClient>();
        let state = self.superblock.working();
        let (checkpoint, sequence, log_view, start) = (
            state.checkpoint,
            state.sequence,
            state.log_view,
            state.start(),
        );
        let geometry = self.layout.geometry;
        let pages = self.engine.pages();
        let mut pong: PongClient = self.header();
        pong.client = ping.client;
        pong.nonce = ping.nonce;
        pong.fingerprint = self.fingerprint;
        pong.checkpoint_id = checkpoint.id;
        pong.checkpoint_op = checkpoint.prepare.op;
        pong.op = self.head.op;
        pong.commit_min = self.commit_min;
        pong.commit_max = self.commit_max;
        pong.timestamp = self.commit_timestamp;
        pong.superblock_sequence = sequence;
        let opened = self.status != ReplicaStatus::Opening;
        let lost = if opened {
            self.journal
                .missing(self.commit_min + 1..=self.head.op)
                .count() as u64
        } else {
            0
        };
        pong.missing = lost + self.catch_up.target.saturating_sub(self.head.op);
        pong.pages_used = if self.state_ready {
            u64::from(pages.count() - pages.free_count())
        } else {
            checkpoint.pages_used
        };
        pong.pages_missing = self.checkpoint.fetch_progress().missing;
        if let Some(nowhere) = self.nowhere().filter(|_| opened) {
            let (kind, number, name) = nowhere.needed.to_wire();
            pong.nowhere = kind as u8;
            (pong.nowhere_number, pong.nowhere_name) = (number, name);
        }
        pong.pages_total = u64::from(pages.count());
        pong.message_size_max = geometry.message_size_max;
        pong.reply_size_max = geometry.reply_size_max;
        pong.sessions_used = self.engine.sessions_used();
        pong.sessions_max = geometry.sessions_max;
        pong.log_view = log_view;
        pong.replica_count = self.options.replica_count;
        pong.status = self.status() as u8;
        pong.start = start as u8;
        pong.clock_synchronised = u8::from(self.clock.is_synchronised());
        pong.checkpointing = u8::from(self.checkpoint.is_writing());
        pong.machines = ((1 << M::COUNT) - 1) << 1;
        pong.primary = self.primary();
        self.send_header(from, &pong, effects);
    }
}
