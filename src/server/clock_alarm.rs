//! Says in the log when the replicas do not agree on the time, and when they do again.

/// Agreement may be missing for this long, in nanoseconds, before it is said: at a start the first samples are still on
/// their way.
const PATIENCE_NS: u64 = 5_000_000_000;

/// What was said last.
#[derive(Debug)]
pub(super) struct ClockAlarm {
    /// Since when there has been no agreement.
    missing_since_ns: Option<u64>,
    raised: bool,
}

impl ClockAlarm {
    /// There is no agreement yet.
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            missing_since_ns: Some(now_ns),
            raised: false,
        }
    }

    /// To be called at each turn; true if the alarm is raised. `majority`: whether so many replicas are connected that they
    /// could agree. Without them their clocks are not to blame, and that they are missing is told for itself.
    pub(super) fn on_turn(&mut self, now_ns: u64, agreed: bool, majority: bool) -> bool {
        if !agreed && !majority && !self.raised {
            self.missing_since_ns = None;
            return false;
        }
        if agreed {
            if self.raised {
                log::info!("the clocks agree again");
            }
            (self.missing_since_ns, self.raised) = (None, false);
            return false;
        }
        let since_ns = *self.missing_since_ns.get_or_insert(now_ns);
        if !self.raised && now_ns - since_ns >= PATIENCE_NS {
            self.raised = true;
            log::warn!(
                "no majority of the replicas agrees on the time: it runs on by the monotonic clock; check their clocks"
            );
        }
        self.raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_raised_after_a_while_and_lowered_at_once() {
        let mut alarm = ClockAlarm::new(7);
        assert!(!alarm.on_turn(6 + PATIENCE_NS, false, true));
        assert!(alarm.on_turn(7 + PATIENCE_NS, false, true));
        assert!(alarm.on_turn(8 + PATIENCE_NS, false, true));
        assert!(!alarm.on_turn(9 + PATIENCE_NS, true, true));
        assert!(
            !alarm.on_turn(10 + PATIENCE_NS, false, true),
            "its patience begins anew"
        );
        assert!(alarm.on_turn(10 + 2 * PATIENCE_NS, false, true));
    }

    #[test]
    fn clocks_are_not_blamed_for_replicas_that_are_missing() {
        let mut alarm = ClockAlarm::new(0);
        assert!(!alarm.on_turn(9 * PATIENCE_NS, false, false));
        assert!(!alarm.on_turn(9 * PATIENCE_NS, false, true), "patience");
        assert!(alarm.on_turn(10 * PATIENCE_NS, false, true));
        assert!(alarm.on_turn(11 * PATIENCE_NS, false, false), "it stays");
    }
}
