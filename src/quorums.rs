//! How many replicas decide what, for clusters of one to six (flexible quorums: Howard, Malkhi and Spiegelman 2016).

use std::fmt;
use storage::layout::REPLICAS_MAX;

/// The quorums of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quorums {
    /// Replicas that hold a prepare durably before it commits; also those that confirm a read round.
    pub replication: u8,
    /// Replicas that agree to a new view. Any such set meets any replication quorum.
    pub view_change: u8,
    /// Replicas that deny having acknowledged a prepare before it may be truncated.
    pub nack: u8,
}

impl Quorums {
    /// The quorums of `count` replicas.
    pub const fn new(count: u8) -> Self {
        assert!(count >= 1 && count as usize <= REPLICAS_MAX);
        // Two replicas need both: with one, an op would survive only on the replica that took it.
        let half = count.div_ceil(2);
        let replication = if count == 2 {
            2
        } else if half < 3 {
            half
        } else {
            3
        };
        let view_change = if count == 2 {
            2
        } else {
            count - replication + 1
        };
        Self {
            replication,
            view_change,
            nack: count - replication + 1,
        }
    }
}

/// A set of replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplicaSet(u8);

impl ReplicaSet {
    /// Adds a replica. A replica counts once, however often it is added.
    pub fn insert(&mut self, replica: u8) {
        assert!((replica as usize) < REPLICAS_MAX);
        self.0 |= 1 << replica;
    }

    /// Takes a replica out.
    pub fn remove(&mut self, replica: u8) {
        assert!((replica as usize) < REPLICAS_MAX);
        self.0 &= !(1 << replica);
    }

    /// Whether a replica is in the set.
    pub fn contains(self, replica: u8) -> bool {
        self.0 >> replica & 1 == 1
    }

    /// The replicas in the set, the lowest first.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..REPLICAS_MAX as u8).filter(move |&replica| self.contains(replica))
    }

    /// How many are in the set.
    pub fn count(self) -> u8 {
        self.0.count_ones() as u8
    }
}

/// As in `0, 2 and 3`. Allocates nothing: it goes to logs.
impl fmt::Display for ReplicaSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = usize::from(self.count());
        for (place, replica) in self.iter().enumerate() {
            let before = match place {
                0 => "",
                _ if place + 1 == count => " and ",
                _ => ", ",
            };
            write!(formatter, "{before}{replica}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_are_those_of_the_table() {
        let table = [
            (1, 1, 1, 1),
            (2, 2, 2, 1),
            (3, 2, 2, 2),
            (4, 2, 3, 3),
            (5, 3, 3, 3),
            (6, 3, 4, 4),
        ];
        for (count, replication, view_change, nack) in table {
            assert_eq!(
                Quorums::new(count),
                Quorums {
                    replication,
                    view_change,
                    nack
                }
            );
        }
    }

    #[test]
    fn a_set_is_shown_as_a_list() {
        let mut set = ReplicaSet::default();
        assert_eq!(set.to_string(), "");
        let mut shown = Vec::new();
        for replica in [3, 0, 5] {
            set.insert(replica);
            shown.push(set.to_string());
        }
        assert_eq!(shown, ["3", "0 and 3", "0, 3 and 5"]);
    }

    #[test]
    fn every_view_change_and_nack_quorum_meets_every_replication_quorum() {
        for count in 1..=6 {
            let quorums = Quorums::new(count);
            assert!(quorums.replication + quorums.view_change > count);
            assert!(quorums.replication + quorums.nack > count);
        }
    }

    #[test]
    fn a_replica_counts_once() {
        let mut set = ReplicaSet::default();
        set.insert(2);
        set.insert(2);
        assert!(set.count() == 1 && set.contains(2) && !set.contains(1));
    }
}
