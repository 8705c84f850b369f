//! The command line.

pub mod bench;
pub mod cluster;
pub mod repl;
mod statement;
pub mod status;
