//! When things are due, on the monotonic clock.

use super::{Effects, Now, Replica};
use crate::constants::{
    HEARTBEAT_NS, PING_NS, PING_STARTING_NS, PREPARE_RESEND_NS, REPAIR_NS, VIEW_CHANGE_NS,
};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::header::ReplicaStatus;

/// A time at which something is due; never, at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    due_ns: u64,
}

impl Default for Timer {
    fn default() -> Self {
        Self { due_ns: u64::MAX }
    }
}

impl Timer {
    pub(super) fn set(&mut self, now: Now, after_ns: u64) {
        self.due_ns = now.monotonic_ns + after_ns;
    }

    pub(super) fn set_at(&mut self, due_ns: u64) {
        self.due_ns = due_ns;
    }

    pub(super) fn clear(&mut self) {
        self.due_ns = u64::MAX;
    }

    pub(super) fn is_clear(self) -> bool {
        self.due_ns == u64::MAX
    }

    /// Whether it is due; if so it is cleared.
    pub(super) fn fires(&mut self, now: Now) -> bool {
        let fires = now.monotonic_ns >= self.due_ns;
        if fires {
            self.clear();
        }
        fires
    }
}

/// All that a replica waits for.
#[derive(Debug, Default)]
pub(super) struct Timers {
    pub(super) ping: Timer,
    pub(super) heartbeat: Timer,
    pub(super) resend: Timer,
    pub(super) repair: Timer,
    pub(super) flush: Timer,
    pub(super) pump: Timer,
    /// When a primary that says nothing is suspected, and when that is said again.
    pub(super) suspect: Timer,
    /// When a view has taken too long to begin.
    pub(super) view_change: Timer,
    /// When a vote is sent again.
    pub(super) vote: Timer,
    /// When what was asked for to complete the state is looked after.
    pub(super) sync: Timer,
    /// When the next step against decay is due.
    pub(super) scrub: Timer,
}

impl Timers {
    pub(super) fn deadline_ns(&self) -> u64 {
        let all = [
            self.ping,
            self.heartbeat,
            self.resend,
            self.repair,
            self.flush,
            self.pump,
            self.suspect,
            self.view_change,
            self.vote,
            self.sync,
            self.scrub,
        ];
        all.iter()
            .map(|timer| timer.due_ns)
            .min()
            .expect("there are timers")
    }

    pub(super) fn starting(&mut self, now: Now) {
        self.ping.set(now, PING_STARTING_NS);
    }

    pub(super) fn enter_normal(&mut self, now: Now) {
        self.ping.set(now, PING_NS);
        self.heartbeat.set(now, HEARTBEAT_NS);
        self.repair.set(now, REPAIR_NS);
        self.view_change.clear();
        self.vote.clear();
    }

    pub(super) fn enter_view_change(&mut self, now: Now) {
        self.ping.set(now, PING_NS);
        self.vote.set(now, 0);
        self.view_change.set(now, VIEW_CHANGE_NS);
    }

    pub(super) fn leave_view(&mut self) {
        for timer in [
            &mut self.heartbeat,
            &mut self.resend,
            &mut self.suspect,
            &mut self.view_change,
            &mut self.vote,
        ] {
            timer.clear();
        }
    }
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Does what is due. [`Event::Tick`] may come at any time.
    pub(super) fn on_tick(&mut self, effects: &mut Effects) {
        let now = self.now;
        if self.timers.ping.fires(now) {
            // Whom nobody has heard of yet does not take part, and is waited for.
            let starting = matches!(self.status, ReplicaStatus::Starting | ReplicaStatus::Lost);
            self.timers
                .ping
                .set(now, if starting { PING_STARTING_NS } else { PING_NS });
            self.ping_others(effects);
        }
        if self.timers.heartbeat.fires(now) && self.is_primary() && !self.moved.abdicating {
            self.prepare_noop_for_lost(effects);
            self.send_commit(effects);
        }
        if self.timers.resend.fires(now) && self.is_primary() && self.commit_max < self.head.op {
            self.timers.resend.set(now, PREPARE_RESEND_NS);
            if !self.moved.abdicating {
                self.resend_prepares(effects);
            }
        }
        self.tick_view(effects);
        if self.timers.repair.fires(now) && self.status == ReplicaStatus::Normal && !self.is_solo()
        {
            self.timers.repair.set(now, REPAIR_NS); // what is missing is asked for at the end of the turn
        }
        if self.timers.flush.fires(now) {
            self.journal.flush(&mut effects.io);
        }
        if self.timers.scrub.fires(now) {
            self.scrub(effects);
        }
        if self.timers.sync.fires(now) {
            self.advance_lost(effects);
            self.compare(effects);
            // The rest is looked after at the end of the turn.
        }
        if self.timers.pump.fires(now) {
            // Looked after at the end of the turn.
        }
    }
}
