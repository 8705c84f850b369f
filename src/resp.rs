//! The Redis protocol: the codec (RESP2 and RESP3), the commands, and the gateway that serves them.
//!
//! What comes from outside is hostile: every count and length is checked against a bound before memory is spent on it, and
//! bytes that break a rule end in an error with Redis's own words, never in a panic.

pub mod caller;
pub mod client;
pub mod command;
pub mod cursors;
pub mod finish;
pub mod gateway;
pub mod glob;
mod inline;
pub mod items;
pub mod number;
pub mod prediction;
pub mod reply;
pub mod request;
pub mod score;
pub mod shared;
pub mod steps;
pub mod value;

pub use client::Connection;
pub use reply::{Protocol, Replies};
pub use request::{Arguments, Limits, Parsed, Parser, ProtocolError};
pub use value::Value;
