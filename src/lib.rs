//! Viewstone: Viewstamped Replication on a storage engine of its own, for any deterministic state machine.

pub mod client;
pub mod constants;
pub mod engine;
pub mod machines;
pub mod quorums;
pub mod replica;
pub mod state_machine;
pub mod table;

pub use storage;
