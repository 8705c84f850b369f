//! The load generator: drives a cluster, measures it, remembers every acknowledged write, and then looks whether they
//! are all there.
//!
//! * [`ledger`]: what was written, what was acknowledged, and whether what is read back agrees.
//! * [`load`]: the workers, closed loop or open loop, on one thread and one [`crate::client::Host`].
//! * [`measure`]: latencies, batch sizes, counts.
//! * [`verify`]: reading back, through a fresh client or out of the data files.
//! * [`cluster`]: what it asks of a cluster that it starts and stops itself.
//! * [`failover`]: a cluster of processes whose primary is killed under the load.

pub mod cluster;
pub mod failover;
pub mod ledger;
pub mod load;
pub mod measure;
pub mod verify;
