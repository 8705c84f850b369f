//! The fuzz targets as functions of bytes: libFuzzer drives them (`fuzz_targets/`), and so does `cargo test`, with the corpus
//! and simple mutations of it (`tests/fuzz.rs` of the main package, which takes this file in).

pub mod kv_machine;
pub mod resp_command;
pub mod resp_reply;
pub mod resp_request;
pub mod wire_header;
