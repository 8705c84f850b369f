//! The load generator's own cluster: [`EmbeddedCluster`], and what it has used.

use crate::server::Published;
use crate::server::embedded::EmbeddedCluster;
use crate::state_machine::kv::Kv;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The machines it runs.
pub type Machines = (Kv,);

/// What a cluster has used since its start, summed over its replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Footprint {
    /// Bytes written to both rings of the journals.
    pub journal_bytes: u64,
    /// Bytes written to the grids.
    pub checkpoint_bytes: u64,
    /// Checkpoints begun.
    pub checkpoints: u64,
    /// Memory that the replicas have allocated.
    pub memory_bytes: u64,
    /// Prepares made.
    pub prepares: u64,
    /// Requests in them.
    pub requests: u64,
}

impl Footprint {
    /// What a cluster has used.
    pub fn of(cluster: &EmbeddedCluster<Machines>) -> Self {
        let sum = |counter: fn(&Published) -> &AtomicU64| {
            cluster
                .published()
                .iter()
                .map(|it| counter(it).load(Relaxed))
                .sum()
        };
        Self {
            journal_bytes: sum(|it| &it.journal_bytes),
            checkpoint_bytes: sum(|it| &it.checkpoint_bytes),
            checkpoints: sum(|it| &it.checkpoints),
            memory_bytes: sum(|it| &it.memory_bytes),
            prepares: sum(|it| &it.prepares),
            requests: sum(|it| &it.requests),
        }
    }
}
