//! What a server counts, for other threads to read: plain numbers, each by itself, without locks.

use super::Standing;
use crate::replica::Metrics;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use storage::header::ReplicaStatus;
use storage::io::IoOwner;

/// Counts since the start of a server.
#[derive(Debug, Default)]
pub struct Published {
    /// Bytes written to both rings of the journal.
    pub journal_bytes: AtomicU64,
    /// Bytes written to the grid.
    pub checkpoint_bytes: AtomicU64,
    /// Bytes written to the superblock.
    pub superblock_bytes: AtomicU64,
    /// Checkpoints begun.
    pub checkpoints: AtomicU64,
    /// Prepares made (by a primary).
    pub prepares: AtomicU64,
    /// Requests in them.
    pub requests: AtomicU64,
    /// Memory allocated at start.
    pub memory_bytes: AtomicU64,
    /// Turns of the event loop.
    pub turns: AtomicU64,
    /// One more than the view that the replica leads; zero: it leads none.
    pub leads: AtomicU64,
}

impl Published {
    /// Counts a write.
    pub fn on_write(&self, owner: IoOwner, size: usize) {
        let counter = match owner {
            IoOwner::Superblock => &self.superblock_bytes,
            IoOwner::Journal => &self.journal_bytes,
            IoOwner::Checkpoint => &self.checkpoint_bytes,
        };
        counter.fetch_add(size as u64, Relaxed);
    }

    /// Takes over a replica's counts.
    pub fn on_turn(&self, metrics: &Metrics) {
        self.turns.fetch_add(1, Relaxed);
        self.checkpoints.store(metrics.checkpoints, Relaxed);
        self.prepares.store(metrics.prepares, Relaxed);
        self.requests.store(metrics.requests, Relaxed);
    }

    /// Takes over what the replica is in its cluster. `own` is its index.
    pub fn on_standing(&self, own: u8, standing: Option<Standing>) {
        let leading = standing.filter(|it| it.primary == own && it.status == ReplicaStatus::Normal);
        let leads = leading.map_or(0, |it| u64::from(it.view) + 1);
        self.leads.store(leads, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_leads_while_it_is_the_primary_of_a_view_that_runs() {
        let standing = |primary, status| {
            Some(Standing {
                view: 4,
                primary,
                status,
                nowhere: None,
                fetched_steps: None,
                awaited_op: None,
            })
        };
        let published = Published::default();
        let leads = |standing| {
            published.on_standing(1, standing);
            published.leads.load(Relaxed)
        };
        assert_eq!(leads(standing(1, ReplicaStatus::Normal)), 5);
        assert_eq!(leads(standing(1, ReplicaStatus::ViewChange)), 0);
        assert_eq!(leads(standing(1, ReplicaStatus::Normal)), 5);
        assert_eq!(leads(standing(2, ReplicaStatus::Normal)), 0);
        assert_eq!(leads(None), 0);
    }
}
