//! Whole clusters and clients in one thread on virtual time, from one seed.
//!
//! Real replica and storage code runs on simulated disks ([`disk`]), clocks ([`host`]) and a simulated network
//! ([`network`]); clients ([`client`]) draw requests from a [`workload`]; after every event the [`checker`] looks.
//! [`run`] draws a cluster, a mix of faults and a workload from a seed, and runs it. [`explore`] is the other half: a power
//! cut at every point of a scenario, for storage code alone.
//!
//! Nothing here reads a clock or draws ambient randomness, and nothing iterates in random order: one seed is one run.

#![allow(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "simulated times, and their errors, are far below 2^63 ns"
)]

pub mod atlas;
pub mod checker;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod coverage;
pub mod disk;
pub mod explore;
pub mod failure;
pub mod host;
pub mod nemesis;
pub mod network;
pub mod partition;
pub mod pinned;
pub mod prng;
pub mod run;
pub mod swarm;
pub mod trace;
pub mod workload;
