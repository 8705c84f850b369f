//! The command line.

pub mod cluster;
pub mod status;
