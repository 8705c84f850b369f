//! Says in the log what was found damaged on the disk while the replica ran, and what came of it: a device that begins to
//! fail is to be noticed while everything can still be mended.

use crate::replica::Metrics;
use std::fmt;

/// Least time between two lines, in nanoseconds. What is found meanwhile is told with the next.
const INTERVAL_NS: u64 = 60_000_000_000;

/// Counts of what was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Found {
    mended: u64,
    superseded: u64,
    decayed: u64,
    repaired: u64,
}

impl Found {
    fn of(metrics: &Metrics) -> Self {
        Self {
            mended: metrics.blocks_mended,
            superseded: metrics.blocks_superseded,
            decayed: metrics.prepares_decayed,
            repaired: metrics.prepares_repaired,
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            mended: self.mended - before.mended,
            superseded: self.superseded - before.superseded,
            decayed: self.decayed - before.decayed,
            repaired: self.repaired - before.repaired,
        }
    }

    /// Whether the medium is to blame. A prepare that the journal lacks may also have been torn by a crash, or have been
    /// replaced by a new view's.
    fn is_decay(self) -> bool {
        self.mended + self.superseded + self.decayed > 0
    }
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.mended, "bad blocks written again from memory"),
            (
                self.superseded,
                "bad blocks that the next checkpoint replaces",
            ),
            (self.decayed, "unreadable prepares"),
            (
                self.repaired,
                "missing prepares fetched from other replicas",
            ),
        ];
        let mut comma = "";
        for (count, what) in parts {
            if count > 0 {
                write!(formatter, "{comma}{what}: {count}")?;
                comma = "; ";
            }
        }
        Ok(())
    }
}

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct DamageAlarm {
    said: Found,
    next_ns: u64,
}

impl DamageAlarm {
    /// To be called at each turn.
    pub(super) fn on_turn(&mut self, now_ns: u64, metrics: &Metrics) {
        let Some(found) = self.next(now_ns, metrics) else {
            return;
        };
        if found.is_decay() {
            log::warn!("damage was found on the disk: {found}. Check the device");
        } else {
            log::info!("the journal is being completed: {found}");
        }
    }

    /// What is to be said now.
    fn next(&mut self, now_ns: u64, metrics: &Metrics) -> Option<Found> {
        let found = Found::of(metrics);
        if found == self.said || now_ns < self.next_ns {
            return None;
        }
        let news = found.since(self.said);
        self.said = found;
        self.next_ns = now_ns + INTERVAL_NS;
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_at_once_and_then_once_a_minute() {
        let mut alarm = DamageAlarm::default();
        let mut metrics = Metrics::default();
        assert_eq!(alarm.next(1, &metrics), None);
        metrics.blocks_mended = 2;
        let found = alarm.next(2, &metrics).expect("damage");
        assert!(found.is_decay());
        assert_eq!(found.to_string(), "bad blocks written again from memory: 2");
        metrics.blocks_mended = 3;
        metrics.prepares_decayed = 1;
        metrics.prepares_repaired = 1;
        assert_eq!(
            alarm.next(1 + INTERVAL_NS, &metrics),
            None,
            "not again so soon"
        );
        let found = alarm.next(2 + INTERVAL_NS, &metrics).expect("more damage");
        assert_eq!(
            found.to_string(),
            "bad blocks written again from memory: 1; unreadable prepares: 1; missing prepares fetched from other \
             replicas: 1"
        );
        assert_eq!(
            alarm.next(2 + 2 * INTERVAL_NS, &metrics),
            None,
            "told already"
        );
    }

    #[test]
    fn what_a_crash_tears_is_not_blamed_on_the_device() {
        let mut alarm = DamageAlarm::default();
        let metrics = Metrics {
            prepares_repaired: 4,
            ..Metrics::default()
        };
        assert!(!alarm.next(0, &metrics).expect("news").is_decay());
    }
}
