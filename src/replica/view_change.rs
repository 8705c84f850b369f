//! Leaving a view, and choosing the log of the next (VRR section 4.2).
//!
//! Invariants:
//! * Nobody leaves a view alone: start_view_change is a pre-vote, and changes nothing before a view-change quorum of
//!   replicas in the same view says the same. So a replica that is cut off, or deaf on one side, disturbs nobody. (Three
//!   exceptions, none of which needs others' trust: who hears of a higher view goes there; a primary that restarts or stops
//!   leaves its view, which has no other primary; a candidate that cannot lead passes on.)
//! * From the moment a replica enters a view change it acknowledges nothing in earlier views and answers no read, and its
//!   vote is sent only when the view is durable: a crash cannot make it vote differently, or take part in an older view.
//! * Nothing is cut off when a view is left: the old log and the old log_view stay until a new log is durable.

use super::vote::KeptVotes;
use super::{Effects, Ignored, Peer, Replica};
use crate::constants::{
    ABDICATE_NS, DEAF_NS, START_VIEW_CHANGE_NS, SUSPICION_NS, VIEW_CHANGE_NS, VOTE_RESEND_NS,
};
use crate::log_choice::{self, Contradiction};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::buffer::Message;
use storage::header::{
    Command, DoViewChange, Header, ReplicaStatus, RequestStartView, StartViewChange,
};
use storage::layout::REPLICAS_MAX;

/// Who wants to leave the view, and who has voted for the next.
#[derive(Debug)]
pub(super) struct Election {
    pub(super) suspicions: Suspicions,
    pub(super) votes: KeptVotes,
    /// The own vote has been sent.
    pub(super) voted: bool,
    /// When the view was entered, if this life has entered it.
    entered_ns: Option<u64>,
    /// An op that may be committed, and that no vote can supply though all have voted.
    pub(super) lost_op: Option<u64>,
    /// Votes that contradicted each other and are still to be told; and the last that were.
    contradiction: Option<Contradiction>,
    contradiction_told: Option<Contradiction>,
    /// What the others' latest votes in this view say of their authors.
    pub(super) heard: [Heard; REPLICAS_MAX],
    /// Names what this life of the process asks for.
    pub(super) nonce: u64,
    /// No start_view is asked for before.
    start_view_asked_until_ns: u64,
}

impl Election {
    pub(super) fn new(nonce: u64) -> Self {
        Self {
            nonce,
            start_view_asked_until_ns: 0,
            suspicions: Suspicions::default(),
            votes: KeptVotes::new(),
            voted: false,
            entered_ns: None,
            lost_op: None,
            heard: [Heard::default(); REPLICAS_MAX],
            contradiction: None,
            contradiction_told: None,
        }
    }

    /// Another view.
    pub(super) fn clear(&mut self) {
        self.suspicions = Suspicions::default();
        self.votes.clear();
        self.voted = false;
        self.entered_ns = None;
        self.lost_op = None;
        self.heard = [Heard::default(); REPLICAS_MAX];
    }
}

/// So many writes of a superblock follow each other from the first vote to the last replica that has begun the view: the last
/// one's vote and the new primary's log. Each may take as long as the own one.
const DISKS_AWAITED: u64 = 2;

/// A log that votes have made, but for its headers.
struct Chosen {
    op: u64,
    commit_max: u64,
    timestamp: u64,
}

/// What of a vote is of interest to everybody.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    /// When it came; zero: none has come.
    pub(super) at_ns: u64,
    /// Its author has a state to lead with.
    pub(super) eligible: bool,
    /// What its author, as candidate, can neither keep nor cut off.
    pub(super) lost_op: Option<u64>,
}

/// Who wants to leave the view.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    /// This replica does.
    own: bool,
    /// Until when others' words count, by replica.
    until_ns: [u64; REPLICAS_MAX],
}

/// How far a primary had come when it last made progress, and when that was.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    op: u64,
    round: u64,
    /// It falls silent, since it makes none.
    pub(super) abdicating: bool,
    at_ns: u64,
    /// When it began to act in its view.
    begun_ns: u64,
    /// When it last looked.
    ran_ns: u64,
    /// It did not run for a while: the others' silence counts from here.
    grace_ns: u64,
}

impl Moved {
    /// A view begins, in which `op` is executed already; rounds are counted anew.
    pub(super) fn new(now_ns: u64, op: u64) -> Self {
        Self {
            op,
            round: 0,
            abdicating: false,
            at_ns: now_ns,
            begun_ns: now_ns,
            ran_ns: now_ns,
            grace_ns: 0,
        }
    }
}

impl Suspicions {
    /// The primary lives, or progress is made.
    pub(super) fn own_is_over(&mut self) {
        self.own = false;
    }
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Whether this replica can lead: it has a state to execute on.
    pub(super) fn may_lead(&self) -> bool {
        self.state_ready && !self.divergence.is_found()
    }

    /// A message says that its author is in a view above ours.
    pub(super) fn hear_of_view(&mut self, from: u8, header: &Header, effects: &mut Effects) {
        let view = header.frame.view;
        if view <= self.view || !self.takes_part() {
            return;
        }
        match header.command() {
            Some(
                Command::StartViewChange
                | Command::DoViewChange
                | Command::Ping
                | Command::Pong
                | Command::PrepareOk
                | Command::CommitOk
                | Command::Page,
            ) => self.enter_view_change(view, effects),
            // The view has begun: its log is all that we need of it.
            Some(Command::Prepare | Command::Commit) => {
                self.request_start_view(from, effects);
            }
            _ => {}
        }
    }

    /// Asks a primary for its log, not more often than an answer takes.
    pub(super) fn request_start_view(&mut self, from: u8, effects: &mut Effects) {
        if self.now.monotonic_ns < self.election.start_view_asked_until_ns {
            return;
        }
        self.election.start_view_asked_until_ns = self.now.monotonic_ns + VOTE_RESEND_NS / 2;
        let mut ask: RequestStartView = self.header();
        ask.nonce = self.election.nonce;
        self.send_header(Peer::Replica(from), &ask, effects);
    }

    /// Has heard nothing of its primary for too long, or no view has begun.
    pub(super) fn suspect(&mut self, effects: &mut Effects) {
        self.election.suspicions.own = true;
        self.timers.suspect.set(self.now, START_VIEW_CHANGE_NS);
        if self.superblock.durable_view().view() == self.view {
            let leave: StartViewChange = self.header();
            for replica in self.others() {
                self.send_header(Peer::Replica(replica), &leave, effects);
            }
        }
        self.leave_if_quorum(effects);
    }

    pub(super) fn on_start_view_change(&mut self, from: u8, view: u32, effects: &mut Effects) {
        if view != self.view {
            self.metrics.ignored(Ignored::OtherView);
            return;
        }
        self.election.suspicions.until_ns[from as usize] = self.now.monotonic_ns + SUSPICION_NS;
        let gives_up = from == self.primary() && self.status == ReplicaStatus::Normal;
        if gives_up && !self.election.suspicions.own {
            self.suspect(effects); // nobody knows better than the primary itself
        } else {
            self.leave_if_quorum(effects);
        }
    }

    fn leave_if_quorum(&mut self, effects: &mut Effects) {
        let now_ns = self.now.monotonic_ns;
        let others = self
            .others()
            .filter(|&replica| self.election.suspicions.until_ns[replica as usize] > now_ns);
        let count = u8::from(self.election.suspicions.own) + others.count() as u8;
        if self.takes_part() && count >= self.quorums.view_change {
            self.enter_view_change(self.view + 1, effects);
        }
    }

    /// Forgets what belongs to the view that is left: what waits for answers is asked again by its clients.
    pub(super) fn leave_view(&mut self) {
        self.gathered.clear();
        self.requests.clear();
        if R::READS_DIE_WITH_VIEW {
            self.reads.leave_view();
        }
        if R::ACKS_DIE_WITH_VIEW {
            self.prepares.forget_acks();
        }
        for peer in &mut self.peers {
            peer.round = 0;
        }
        self.catch_up.leave_view(self.head.op);
        self.withheld = None;
        self.pulse_op = 0;
        self.election.clear();
        self.asking.searches.forget_prepare();
        self.moved.abdicating = false;
        self.timers.leave_view();
    }

    /// Leaves the view for a higher one: from now on nothing is acknowledged in the old one. The vote follows when the view
    /// is durable.
    pub(super) fn enter_view_change(&mut self, view: u32, effects: &mut Effects) {
        assert!(view > self.view && !self.is_solo() && self.is_confirmed());
        // The log's end is recorded by who has acted in the view that it leaves. Otherwise the superblock holds it already:
        // as it was when the replica last acted in a view, or as the log with which it was about to begin one.
        let acted = self.log_view == self.view && self.installing.is_none();
        self.leave_view();
        self.view = view;
        self.status = ReplicaStatus::ViewChange;
        self.parked.view = None;
        self.metrics.view_changes += 1;
        if acted {
            if !R::KEEP_SUFFIX_IN_NEWER_VIEW {
                self.cut_to_commit();
            }
            self.collect_log_end();
        }
        let commit_max = self.commit_max.min(self.head.op);
        let log_end = &self.log_end;
        self.superblock.update(
            |state, headers| {
                state.view = view;
                state.commit_max = state.commit_max.max(commit_max);
                if acted {
                    headers.set(log_end);
                }
            },
            &mut effects.io,
        );
        self.election.entered_ns = Some(self.now.monotonic_ns);
        self.timers.view_change.set(self.now, self.patience_ns());
        self.timers.vote.set(self.now, VOTE_RESEND_NS);
        if !R::VOTE_AWAITS_DURABLE_VIEW {
            self.vote(effects);
        }
    }

    /// How long a view may take to begin: longer each time that one does not.
    fn patience_ns(&self) -> u64 {
        let missed = u64::from((self.view - self.log_view).min(10));
        VIEW_CHANGE_NS * missed.max(1) + u64::from(self.options.replica) * VIEW_CHANGE_NS / 16
    }

    /// Vanlightly's fault, for the simulator to find: the log is cut to what is known to be committed.
    fn cut_to_commit(&mut self) {
        let op = self.commit_min.max(self.checkpoint_op);
        if let Some(header) = self.known_header(op) {
            self.head = super::Head::of(&header);
            self.journal.view_durable(self.log_view, op);
        }
    }

    /// The superblock is durable: votes, if that made the view so.
    pub(super) fn vote_if_durable(&mut self, effects: &mut Effects) {
        let durable = self.superblock.durable_view();
        let due = self.status == ReplicaStatus::ViewChange
            && durable.view() == self.view
            && durable.log_view() < self.view
            && self.installing.is_none()
            && self.may_promise().is_some();
        if due && !self.election.voted {
            // If this disk is slow, those of the others may be as well: they record the view, and then its log.
            let now_ns = self.now.monotonic_ns;
            let took_ns = self.election.entered_ns.map_or(0, |since| now_ns - since);
            let patience_ns = self.patience_ns() + DISKS_AWAITED * took_ns;
            self.timers.view_change.set(self.now, patience_ns);
            self.vote(effects);
        }
    }

    /// Sends the vote to all: the new primary counts it, and the others learn of the view.
    fn vote(&mut self, effects: &mut Effects) {
        self.timers.vote.set(self.now, VOTE_RESEND_NS);
        let Some(message) = self.make_vote() else {
            self.metrics.ignored(Ignored::NoBuffer);
            return;
        };
        self.election.voted = true;
        if self.primary() == self.options.replica {
            let me = self.options.replica;
            self.election
                .votes
                .keep(me, message.header().typed(), message.body());
        }
        self.broadcast(&message, effects);
        self.begin_view_if_decided(effects);
    }

    pub(super) fn on_do_view_change(&mut self, from: u8, message: &Message, effects: &mut Effects) {
        let vote = *message.header().typed::<DoViewChange>();
        self.peers[from as usize].remembered.hear_vote(&vote);
        if vote.frame.view == self.view {
            self.election.heard[from as usize] = Heard {
                at_ns: self.now.monotonic_ns,
                eligible: vote.eligible == 1,
                lost_op: (vote.lost_op > 0).then_some(vote.lost_op),
            };
        }
        if vote.frame.view != self.view || self.primary() != self.options.replica {
            self.metrics.ignored(Ignored::OtherView);
            return;
        }
        let (log_view, checkpoint_op) = (vote.log_view, vote.checkpoint_op);
        if !self.are_headers_sound(message.body(), vote.op, log_view, checkpoint_op, true) {
            self.metrics.ignored(Ignored::Implausible);
            return;
        }
        if self.status == ReplicaStatus::Normal {
            self.send_start_view(Some(from), 0, effects); // it has missed the beginning
            return;
        }
        if self.status == ReplicaStatus::ViewChange && self.log_view < self.view {
            self.election.votes.keep(from, &vote, message.body());
            self.begin_view_if_decided(effects);
        }
    }

    /// As the candidate of this view: chooses the log, if the votes allow it.
    fn begin_view_if_decided(&mut self, effects: &mut Effects) {
        let me = self.options.replica;
        let candidate = self.primary() == me
            && self.status == ReplicaStatus::ViewChange
            && self.installing.is_none()
            && self.election.votes.of(me).is_some();
        if !candidate {
            return;
        }
        match self.choose_log() {
            Err(wait) => {
                self.election.lost_op = match wait {
                    log_choice::Wait::Lost { op } => Some(op),
                    _ => None,
                };
            }
            Ok(log) => {
                self.election.lost_op = None;
                if self.can_lead_from(log.op) {
                    self.clock.raise(log.timestamp);
                    self.install(self.view, log.commit_max, None, effects);
                } else {
                    self.pass_on(effects);
                }
            }
        }
    }

    /// The log that the votes make, its headers in `log_end`. Votes that contradict each other, or what is committed as this
    /// replica knows, are refused: nobody can tell which of two is true, but for one's own.
    fn choose_log(&mut self) -> Result<Chosen, log_choice::Wait> {
        let me = self.options.replica;
        loop {
            let headers = std::mem::take(&mut self.log_end);
            let votes = self.election.votes.votes();
            let (count, pipeline_max) = (
                self.options.replica_count,
                self.layout.geometry.pipeline_max,
            );
            let chosen = log_choice::choose::<R>(&votes, count, pipeline_max, headers);
            let found = match chosen {
                Ok(log) => {
                    self.log_end = log.headers;
                    let Some(found) = self.contradiction_with_own() else {
                        return Ok(Chosen {
                            op: log.op,
                            commit_max: log.commit_max,
                            timestamp: log.timestamp,
                        });
                    };
                    found
                }
                Err((wait, headers)) => {
                    self.log_end = headers;
                    match wait {
                        log_choice::Wait::Contradiction(found) => found,
                        wait => return Err(wait),
                    }
                }
            };
            for voter in [Some(found.voter), found.other].into_iter().flatten() {
                if voter != me {
                    self.election.votes.refuse(voter);
                    self.metrics.contradictions += 1;
                }
            }
            if self.election.contradiction_told != Some(found) {
                self.election.contradiction_told = Some(found);
                self.election.contradiction = Some(found);
            }
        }
    }

    /// The chosen log has something else than what was executed here: whose vote says so. Not the own one's, unless this
    /// replica has a fault.
    fn contradiction_with_own(&self) -> Option<Contradiction> {
        let (header, own) = self.contradicting(&self.log_end)?;
        let others = self.election.votes.who_names(header, self.options.replica);
        let voter = others.expect("what was executed here is in the own log");
        let vote = self.election.votes.of(voter).expect("it was just found");
        Some(Contradiction {
            log_view: vote.log_view,
            op: header.op,
            voter,
            checksum: header.frame.checksum,
            other: None,
            other_checksum: own,
        })
    }

    /// Votes that contradicted each other, for the log; each pair once.
    pub fn take_contradiction(&mut self) -> Option<Contradiction> {
        self.election.contradiction.take()
    }

    /// Whether the chosen log fits this replica's journal, and what is missing of it can be had: the others keep in their
    /// rings what is above their newest checkpoint but one.
    fn can_lead_from(&self, op: u64) -> bool {
        let geometry = &self.layout.geometry;
        let fits = op <= self.checkpoint_op + u64::from(geometry.slots) && op >= self.commit_min;
        let ahead = (0..self.options.replica_count)
            .filter_map(|replica| self.election.votes.of(replica))
            .map(|vote| vote.checkpoint_op)
            .max();
        let reach = self.commit_min + 2 * geometry.checkpoint_interval();
        self.may_lead() && fits && ahead.is_none_or(|ahead| ahead < reach)
    }

    /// This candidate cannot lead: goes on to a view whose primary can, if any voter can.
    fn pass_on(&mut self, effects: &mut Effects) {
        let count = u32::from(self.options.replica_count);
        let furthest = (0..self.options.replica_count)
            .filter_map(|replica| self.election.votes.of(replica))
            .filter(|vote| vote.eligible == 1 && vote.frame.replica != self.options.replica)
            .map(|vote| vote.checkpoint_op)
            .max();
        let Some(furthest) = furthest else {
            return; // nobody who voted can: perhaps one who has not yet
        };
        let able = |view: &u32| {
            let vote = self.election.votes.of((view % count) as u8);
            vote.is_some_and(|vote| vote.eligible == 1 && vote.checkpoint_op == furthest)
        };
        let next = (self.view + 1..self.view + count).find(able);
        if let Some(view) = next {
            self.metrics.passed_on += 1;
            self.enter_view_change(view, effects);
        }
    }

    /// Does what is due in a view, or between views.
    pub(super) fn tick_view(&mut self, effects: &mut Effects) {
        if self.is_solo() {
            return;
        }
        match self.status {
            ReplicaStatus::Normal if self.is_primary() => self.abdicate_if_stuck(effects),
            ReplicaStatus::Normal => {
                if self.detector.is_suspect(self.now.monotonic_ns) {
                    if self.timers.suspect.fires(self.now) {
                        self.suspect(effects);
                    }
                } else {
                    self.election.suspicions.own = false;
                    let wake_ns = self.detector.wake_at_ns();
                    self.timers
                        .suspect
                        .set_at(wake_ns.max(self.now.monotonic_ns + 1));
                }
            }
            ReplicaStatus::ViewChange => {
                if self.timers.vote.fires(self.now) {
                    self.press_on(effects);
                }
                let mut late = self.timers.view_change.fires(self.now);
                if late && self.superblock.is_updating() {
                    // It is this disk that is waited for: in another view it would have to write once more.
                    self.timers.view_change.set(self.now, self.patience_ns());
                    late = false;
                }
                if late {
                    self.timers.view_change.set(self.now, self.patience_ns());
                }
                // It is over once it fires, also if the wish has been given up meanwhile.
                let again = self.timers.suspect.fires(self.now) && self.election.suspicions.own;
                if late || again {
                    if self.is_next_view_futile() {
                        self.election.suspicions.own_is_over();
                        self.timers.suspect.clear();
                    } else {
                        self.suspect(effects);
                    }
                }
            }
            _ => {}
        }
    }

    /// Between views: says again what was said.
    fn press_on(&mut self, effects: &mut Effects) {
        self.timers.vote.set(self.now, VOTE_RESEND_NS);
        let durable = self.superblock.durable_view();
        if durable.view() != self.view || self.installing.is_some() {
            return;
        }
        if self.may_promise().is_none() {
            return; // its state is not that of the others
        }
        if durable.log_view() == self.view {
            // Back in a view whose log this replica cannot tell from its own disk.
            let primary = self.primary();
            self.request_start_view(primary, effects);
        } else {
            self.vote(effects);
        }
    }

    /// A primary that makes no progress although there is something to do says so, and falls silent: perhaps another is
    /// better connected, or has a faster disk.
    fn abdicate_if_stuck(&mut self, effects: &mut Effects) {
        // What nobody has, no other primary has either.
        let idle = self.commit_min == self.head.op && !self.reads.are_waiting()
            || self.prepare_nowhere().is_some();
        let (op, round) = (self.commit_min, self.reads.confirmed());
        let now_ns = self.now.monotonic_ns;
        if idle || op > self.moved.op || round > self.moved.round {
            self.moved = Moved {
                op,
                round,
                at_ns: now_ns,
                ..self.moved
            };
        }
        let was_silent = self.moved.abdicating;
        self.moved.abdicating = now_ns >= self.moved.at_ns + ABDICATE_NS;
        let gives_up = self.moved.abdicating || self.hears_no_quorum();
        if !gives_up {
            self.election.suspicions.own_is_over();
            let next_ns = self.moved.at_ns + ABDICATE_NS;
            self.timers
                .suspect
                .set_at(next_ns.min(now_ns + DEAF_NS / 4));
        } else if self.timers.suspect.fires(self.now) {
            self.suspect(effects);
        }
        if was_silent && !self.moved.abdicating {
            self.timers.heartbeat.set(self.now, 0);
        }
    }

    /// Whether the others' answers stay away, of so many that nothing can be committed, though they came before: they may
    /// still hear this replica, and would wait for it for ever. Before they have come for the first time in a view nothing
    /// is said: they answer when they have recorded the view, however slow their disks are. It goes on with its
    /// heartbeats: without them nobody could answer.
    fn hears_no_quorum(&mut self) -> bool {
        let now_ns = self.now.monotonic_ns;
        let absent_ns = now_ns - self.moved.ran_ns;
        self.moved.ran_ns = now_ns;
        if absent_ns > DEAF_NS / 2 {
            // This replica did not run: what has come meanwhile is read first.
            self.moved.grace_ns = now_ns + DEAF_NS / 2;
        }
        let needed = usize::from(self.quorums.replication) - 1;
        let heard_since = |since_ns: u64| {
            let heard = |&replica: &u8| self.peers[replica as usize].heard_ns > since_ns;
            self.others().filter(heard).count()
        };
        let heard_before = heard_since(self.moved.begun_ns) >= needed;
        let heard_now = heard_since(now_ns.saturating_sub(DEAF_NS)) >= needed;
        heard_before && !heard_now && now_ns >= self.moved.grace_ns
    }

    /// The host will stop this replica: a primary hands its view over first. True: [`Self::may_stop`] will tell when.
    pub fn prepare_to_stop(&mut self, now: super::Now, effects: &mut Effects) {
        self.now = now;
        if self.is_primary() && !self.is_solo() {
            self.enter_view_change(self.view + 1, effects);
        }
    }

    /// Whether nothing is lost by stopping now: a primary has said that it leaves.
    pub fn may_stop(&self) -> bool {
        self.status != ReplicaStatus::ViewChange || self.election.voted
    }
}
