//! What hosts a replica on a real machine.

pub mod data_file;
