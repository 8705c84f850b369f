//! Viewstone: Viewstamped Replication on a storage engine of its own, for any deterministic state machine.

#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod clock;
pub mod constants;
pub mod engine;
pub mod failure_detector;
pub mod log_choice;
pub mod machines;
#[cfg(feature = "server")]
pub mod offline;
pub mod quorums;
pub mod replica;
#[cfg(feature = "resp")]
pub mod resp;
pub mod rules;
#[cfg(feature = "server")]
pub mod sealed_allocator;
#[cfg(feature = "server")]
pub mod server;
pub mod state_machine;
pub mod table;
#[cfg(feature = "server")]
pub mod testing;

pub use storage;
