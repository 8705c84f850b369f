//! Who a server is.

use storage::layout::{Geometry, REPLICAS_MAX};

/// What the data file says about its replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The cluster's id.
    pub cluster: u128,
    /// The replica's index.
    pub replica: u8,
    /// Replicas of the cluster.
    pub replica_count: u8,
    /// The numbers the data file was made with.
    pub geometry: Geometry,
}

impl Identity {
    /// Whether the numbers go together.
    pub fn is_consistent(&self) -> bool {
        self.replica < self.replica_count
            && usize::from(self.replica_count) <= REPLICAS_MAX
            && self.geometry.check().is_ok()
    }
}
