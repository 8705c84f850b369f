//! A cluster in this process, as the load generator needs it: real replicas on threads of their own, real data files,
//! real TCP on loopback.

use std::path::PathBuf;
use storage::layout::Geometry;

/// How to make a cluster.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Its id.
    pub cluster: u128,
    /// Its replicas, 1 to 6.
    pub replicas: u8,
    /// The numbers of its data files.
    pub geometry: Geometry,
    /// Where its data files go; the directory exists and is empty.
    pub directory: PathBuf,
}

/// What a cluster has used, summed over its replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Footprint {
    /// Bytes written to both rings of the journals.
    pub journal_bytes: u64,
    /// Bytes written to the grids, and checkpoints made.
    pub checkpoint_bytes: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Memory that the replicas have allocated.
    pub memory_bytes: u64,
}

/// A cluster in this process.
pub trait EmbeddedCluster {
    /// The replicas' addresses, in the order of their indexes; they may change with each start.
    fn addresses(&self) -> Vec<String>;

    /// What it has used since it was made.
    fn footprint(&self) -> Footprint;

    /// Stops all replicas as SIGTERM would, and waits until they are gone.
    ///
    /// # Errors
    /// What went wrong, for the user.
    fn stop(&mut self) -> Result<(), String>;

    /// Starts all replicas again, on the same data files.
    ///
    /// # Errors
    /// What went wrong, for the user.
    fn start(&mut self) -> Result<(), String>;

    /// Whether a stopped cluster serves again after [`EmbeddedCluster::start`] alone.
    fn restarts(&self) -> bool;

    /// Checks a stopped replica's data file as `verify` does, loads its newest checkpoint, executes what its journal
    /// holds beyond, and gives the state.
    ///
    /// # Errors
    /// The damage, for the user.
    fn dump(&self, replica: u8) -> Result<Box<dyn StateDump>, String>;
}

/// The state of the key-value machine in a data file.
pub trait StateDump {
    /// The last op in it.
    fn op(&self) -> u64;

    /// The value of a key.
    fn value(&self, key: &[u8]) -> Option<Vec<u8>>;
}

/// Makes, formats and starts a cluster.
pub type StartCluster<'a> =
    dyn Fn(&EmbeddedOptions) -> Result<Box<dyn EmbeddedCluster>, String> + 'a;
