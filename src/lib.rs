//! Viewstone: Viewstamped Replication on a storage engine of its own, for any deterministic state machine.
//!
//! A cluster of replicas executes one log of requests. What was acknowledged is on a quorum of disks, was executed
//! exactly once, and is there after any minority of the replicas was lost. This crate is all of it: the client, the
//! state machines (an ordered [key-value store](state_machine::kv), and [yours](state_machine)), the replica, its
//! server, and a real cluster for tests:
//!
//! ```
//! use viewstone::testing::KvCluster;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Three replicas in this process, with real files and connections. Elsewhere: KvClient::connect(&options).
//!     let mut cluster = KvCluster::start(3)?;
//!     let kv = cluster.kv()?;
//!
//!     let version = kv.put(b"greeting", b"hello")?;
//!     assert_eq!(kv.increment(b"visits", 1)?, 1);
//!
//!     // The primary dies. The next call takes half a second longer, and that is all.
//!     let primary = cluster.wait_for_primary()?;
//!     cluster.kill(primary)?;
//!     assert_eq!(kv.increment(b"visits", 1)?, 2);
//!     let greeting = kv.get(b"greeting")?.expect("it was acknowledged");
//!     assert_eq!((greeting.value, greeting.version), (b"hello".to_vec(), version));
//!     Ok(())
//! }
//! ```
//!
//! | to | look at |
//! | --- | --- |
//! | call a cluster: batches, pipelining, deadlines, errors, sessions | [`client`], [`client::kv`], `examples/client.rs` |
//! | replicate a state machine of your own | [`state_machine`], `examples/own_service.rs` |
//! | test what you build on it | [`testing`] |
//! | run a replica inside a program of yours | [`server::hosting`] |
//! | run the released binary | `viewstone --help` |
//!
//! # Features
//!
//! All are on by default. `server` hosts replicas (io_uring) and brings [`testing`]; `resp` is the Redis protocol;
//! `cli` the command line, with the load generator. A program that only calls a cluster takes `default-features =
//! false`.

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
