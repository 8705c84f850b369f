//! When a backup stops believing in its primary: a pure value that counts what arrives.
//!
//! The primary of a view owes a message each [`HEARTBEAT_NS`], loaded or idle, and never waits for a disk to send it;
//! so silence means that the primary or the way from it is gone, or that this replica did not listen.
//!
//! * **It adapts to the cluster's own pace.** The longest silence in each heartbeat's time goes into a moving average,
//!   quickly upwards and slowly downwards; patience is a multiple of it, within fixed bounds. The longest, not the
//!   mean: prepares that come in bursts, with pauses between, say nothing by their number, and a thousand prepares a
//!   second are no reason to expect the next one within a millisecond.
//! * **It does not fool itself twice.** A silence that ended in suspicion counts as one that was borne: a cluster that
//!   is too slow for its patience gains patience with each view, instead of changing views for ever.
//! * **Time in which this replica did not run is not silence.** After a pause (a stopped process, a machine without
//!   time for it) what has queued up meanwhile gets a heartbeat's time to be read before anybody is suspected. Once in
//!   a silence: a replica that is always late still suspects a dead primary.
//!
//! Suspicion is cheap to be wrong about: it becomes a view change only if a quorum shares it.

use crate::constants::{
    HEARTBEAT_NS, OWN_PAUSE_NS, PATIENCE_FACTOR, PATIENCE_FALL_DIVISOR, PATIENCE_MAX_NS,
    PATIENCE_MIN_NS, PATIENCE_RISE_DIVISOR, PATIENCE_SLACK_NS,
};

/// Watches the primary of a view. All times are of the monotonic clock, in nanoseconds, and never go back.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "all are times, and say their unit"
)]
pub struct FailureDetector {
    /// Moving average of the longest silence within a heartbeat's time.
    silence_ns: u64,
    /// When the primary was last heard; later by the time in which this replica did not run since.
    heard_ns: u64,
    /// When the current window of arrivals began.
    window_ns: u64,
    /// The longest silence in this window so far.
    longest_ns: u64,
    /// When this replica last ran.
    ran_ns: u64,
    /// Nobody is suspected before: what queued up in a pause is read first. Zero if this silence had no pause.
    grace_ns: u64,
}

impl FailureDetector {
    /// A detector that has just heard its primary, and expects heartbeats on time.
    pub fn new(now_ns: u64) -> Self {
        Self {
            silence_ns: HEARTBEAT_NS,
            heard_ns: now_ns,
            window_ns: now_ns,
            longest_ns: 0,
            ran_ns: now_ns,
            grace_ns: 0,
        }
    }

    /// The replica runs: to be called at every turn, before its messages are looked at, and at least as often as
    /// [`Self::wake_at_ns`] asks.
    pub fn ran(&mut self, now_ns: u64) {
        assert!(now_ns >= self.ran_ns);
        let absent_ns = now_ns - self.ran_ns;
        self.ran_ns = now_ns;
        if absent_ns > OWN_PAUSE_NS {
            // Up to the bound it counts: a replica that is always a little late must not be deaf to silence.
            let unheard_ns = absent_ns - OWN_PAUSE_NS;
            self.heard_ns += unheard_ns;
            self.window_ns += unheard_ns;
            if self.grace_ns == 0 {
                self.grace_ns = now_ns + HEARTBEAT_NS;
            }
        }
        assert!(self.heard_ns <= now_ns);
    }

    /// A prepare or commit of this view's primary has arrived.
    pub fn heard(&mut self, now_ns: u64) {
        self.ran(now_ns);
        self.longest_ns = self.longest_ns.max(now_ns - self.heard_ns);
        self.heard_ns = now_ns;
        self.grace_ns = 0;
        if now_ns.saturating_sub(self.window_ns) >= HEARTBEAT_NS {
            self.sample(self.longest_ns);
            self.window_ns = now_ns;
            self.longest_ns = 0;
        }
    }

    /// A view begins, with another primary: it has until [`Self::suspect_at_ns`] to be heard. The pace learnt stays.
    pub fn reset(&mut self, now_ns: u64) {
        self.ran(now_ns);
        if self.is_suspect(now_ns) {
            self.sample(self.patience_ns());
        }
        self.heard_ns = now_ns;
        self.window_ns = now_ns;
        self.longest_ns = 0;
        self.grace_ns = 0;
    }

    /// The silence that is borne, in nanoseconds; also a good measure for how long a view may take to begin.
    pub fn patience_ns(&self) -> u64 {
        let by_pace = PATIENCE_FACTOR * self.silence_ns + PATIENCE_SLACK_NS;
        by_pace.clamp(PATIENCE_MIN_NS, PATIENCE_MAX_NS)
    }

    /// When the primary will be suspected if nothing comes. It moves as things arrive and time is lost.
    pub fn suspect_at_ns(&self) -> u64 {
        (self.heard_ns + self.patience_ns()).max(self.grace_ns)
    }

    /// When the replica wants to run next on this account: often enough to know that it was not paused.
    pub fn wake_at_ns(&self) -> u64 {
        self.suspect_at_ns().min(self.ran_ns + HEARTBEAT_NS)
    }

    /// Whether the silence has lasted too long. Never right after a pause that [`Self::ran`] was not told of.
    pub fn is_suspect(&self, now_ns: u64) -> bool {
        now_ns >= self.suspect_at_ns() && now_ns.saturating_sub(self.ran_ns) <= OWN_PAUSE_NS
    }

    fn sample(&mut self, silence_ns: u64) {
        // Beyond the longest patience a silence teaches no more.
        let sample_ns = silence_ns.min(PATIENCE_MAX_NS);
        if sample_ns > self.silence_ns {
            self.silence_ns += (sample_ns - self.silence_ns) / PATIENCE_RISE_DIVISOR;
        } else {
            self.silence_ns -= (self.silence_ns - sample_ns) / PATIENCE_FALL_DIVISOR;
        }
        assert!(self.silence_ns <= PATIENCE_MAX_NS);
    }
}

#[cfg(test)]
mod tests;
