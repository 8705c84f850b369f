//! Viewstone: Viewstamped Replication on a storage engine of its own, for any deterministic state machine.

#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod replica;
pub mod state_machine;

pub use storage;
