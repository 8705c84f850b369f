//! Says in the log when too few replicas are connected for anything to commit, and whom a replica waits for that cannot
//! take part yet.

use crate::quorums::{Quorums, ReplicaSet};
use std::fmt;
use storage::header::ReplicaStatus;

/// A quorum may be missing for this long, in nanoseconds, before it is said: connections break and come back.
const QUORUM_PATIENCE_NS: u64 = 2_000_000_000;

/// A replica may wait for the others for this long, in nanoseconds, before it is said.
const START_PATIENCE_NS: u64 = 10_000_000_000;

/// After which it is said again, in nanoseconds.
const START_AGAIN_NS: u64 = 60_000_000_000;

/// A line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    /// Nothing can commit.
    NoQuorum {
        reached: u8,
        count: u8,
        silent: ReplicaSet,
    },
    /// Something can again.
    QuorumAgain { reached: u8, count: u8 },
    /// It waits for these to begin.
    Waiting { silent: ReplicaSet },
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoQuorum {
                reached,
                count,
                silent,
            } => write!(
                formatter,
                "no quorum: {reached} of {count} replicas reachable, nothing can commit; not connected: {silent}"
            ),
            Self::QuorumAgain { reached, count } => {
                write!(
                    formatter,
                    "a quorum again: {reached} of {count} replicas reachable"
                )
            }
            Self::Waiting { silent } if silent.count() == 0 => formatter.write_str(
                "still waiting, though all replicas are connected: see their logs and their status",
            ),
            Self::Waiting { silent } => write!(
                formatter,
                "still waiting for replica {silent}, not connected: is it down? If not, its log says why it refuses this one \
                 (sizes, cluster id, order of --addresses, a second process of this replica)"
            ),
        }
    }
}

/// What was said last.
#[derive(Debug)]
pub(super) struct Reach {
    count: u8,
    /// Since when there has been no quorum.
    missing_since_ns: Option<u64>,
    missing_said: bool,
    /// When it is said next whom this replica waits for.
    waiting_ns: Option<u64>,
}

impl Reach {
    /// Nothing was said. `count` replicas in the cluster.
    pub(super) fn new(count: u8) -> Self {
        Self {
            count,
            missing_since_ns: None,
            missing_said: false,
            waiting_ns: None,
        }
    }

    /// To be called at each turn. `silent`: the replicas that are not connected.
    pub(super) fn on_turn(&mut self, now_ns: u64, status: ReplicaStatus, silent: ReplicaSet) {
        if let Some(line) = self.waiting(now_ns, status, silent) {
            log::warn!("{line}");
        }
        match self.quorum(now_ns, status, silent) {
            Some(line @ Line::QuorumAgain { .. }) => log::info!("{line}"),
            Some(line) => log::warn!("{line}"),
            None => {}
        }
    }

    fn waiting(&mut self, now_ns: u64, status: ReplicaStatus, silent: ReplicaSet) -> Option<Line> {
        let waits = match status {
            ReplicaStatus::Starting => true,
            // With all others there it is only a matter of time, and the log says of what.
            ReplicaStatus::Lost => silent.count() > 0,
            _ => false,
        };
        if !waits {
            self.waiting_ns = None;
            return None;
        }
        let due_ns = *self.waiting_ns.get_or_insert(now_ns + START_PATIENCE_NS);
        if now_ns < due_ns {
            return None;
        }
        self.waiting_ns = Some(now_ns + START_AGAIN_NS);
        Some(Line::Waiting { silent })
    }

    fn quorum(&mut self, now_ns: u64, status: ReplicaStatus, silent: ReplicaSet) -> Option<Line> {
        let count = self.count;
        let reached = count - silent.count();
        let takes_part = matches!(
            status,
            ReplicaStatus::Normal | ReplicaStatus::ViewChange | ReplicaStatus::Syncing
        );
        if !takes_part || reached >= Quorums::new(count).replication {
            self.missing_since_ns = None;
            let said = std::mem::take(&mut self.missing_said);
            return (said && takes_part).then_some(Line::QuorumAgain { reached, count });
        }
        let since_ns = *self.missing_since_ns.get_or_insert(now_ns);
        if self.missing_said || now_ns - since_ns < QUORUM_PATIENCE_NS {
            return None;
        }
        self.missing_said = true;
        Some(Line::NoQuorum {
            reached,
            count,
            silent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: &[u8]) -> ReplicaSet {
        let mut set = ReplicaSet::default();
        for &replica in replicas {
            set.insert(replica);
        }
        set
    }

    #[test]
    fn a_quorum_that_is_gone_is_said_once_and_when_it_is_back() {
        use ReplicaStatus::{Normal, ViewChange};
        let mut reach = Reach::new(3);
        let (one, two) = (set(&[2]), set(&[1, 2]));
        assert_eq!(reach.quorum(0, Normal, one), None);
        assert_eq!(reach.quorum(1, Normal, two), None, "patience");
        assert_eq!(reach.quorum(2, Normal, one), None);
        assert_eq!(reach.quorum(3, Normal, two), None, "patience anew");
        assert_eq!(reach.quorum(2 + QUORUM_PATIENCE_NS, Normal, two), None);
        let line = reach.quorum(3 + QUORUM_PATIENCE_NS, Normal, two);
        assert_eq!(
            line.expect("it is said").to_string(),
            "no quorum: 1 of 3 replicas reachable, nothing can commit; not connected: 1 and 2"
        );
        assert_eq!(
            reach.quorum(9 * QUORUM_PATIENCE_NS, ViewChange, two),
            None,
            "said"
        );
        let line = reach.quorum(9 * QUORUM_PATIENCE_NS, ViewChange, one);
        let again = "a quorum again: 2 of 3 replicas reachable";
        assert_eq!(line.expect("it is said").to_string(), again);
        assert_eq!(reach.quorum(9 * QUORUM_PATIENCE_NS, Normal, one), None);
    }

    #[test]
    fn a_cluster_of_one_always_has_a_quorum() {
        let mut reach = Reach::new(1);
        for now_ns in [0, QUORUM_PATIENCE_NS, 9 * QUORUM_PATIENCE_NS] {
            assert_eq!(reach.quorum(now_ns, ReplicaStatus::Normal, set(&[])), None);
        }
    }

    #[test]
    fn who_waits_says_for_whom_and_then_once_a_minute() {
        use ReplicaStatus::{Lost, Normal, Starting};
        let mut reach = Reach::new(3);
        let both = set(&[0, 2]);
        let starts_ns = 7;
        assert_eq!(reach.waiting(starts_ns, Starting, both), None);
        let due_ns = starts_ns + START_PATIENCE_NS;
        assert_eq!(reach.waiting(due_ns - 1, Starting, both), None);
        let line = reach.waiting(due_ns, Starting, both).expect("due");
        assert!(
            line.to_string()
                .contains("waiting for replica 0 and 2, not"),
            "{line}"
        );
        assert_eq!(reach.waiting(due_ns + 1, Starting, set(&[])), None);
        let again_ns = due_ns + START_AGAIN_NS;
        let line = reach.waiting(again_ns, Starting, set(&[])).expect("due");
        assert!(line.to_string().contains("all replicas are connected"));
        assert_eq!(reach.waiting(2 * again_ns, Lost, set(&[])), None);
        assert_eq!(reach.waiting(2 * again_ns, Normal, both), None);
        assert_eq!(
            reach.waiting(3 * again_ns, Starting, both),
            None,
            "patience anew"
        );
    }
}
