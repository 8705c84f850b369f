//! Viewstone: Viewstamped Replication on a storage engine of its own, for any deterministic state machine.

#[cfg(feature = "cli")]
pub mod cli;
pub mod replica;
#[cfg(feature = "server")]
pub mod server;
pub mod state_machine;

pub use storage;
