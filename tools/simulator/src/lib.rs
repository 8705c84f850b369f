//! Whole clusters and clients in one thread on virtual time, from one seed.

pub mod disk;
pub mod explore;
pub mod prng;
