//! Viewstone: Viewstamped Replication on a storage engine of its own, for any deterministic state machine.

pub mod replica;
#[cfg(feature = "server")]
pub mod sealed_allocator;
#[cfg(feature = "server")]
pub mod server;
pub mod state_machine;

pub use storage;
