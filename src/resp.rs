//! The Redis protocol: the codec (RESP2 and RESP3).
//!
//! What comes from outside is hostile: every count and length is checked against a bound before memory is spent on it, and
//! bytes that break a rule end in an error with Redis's own words, never in a panic.

pub mod client;
mod inline;
pub mod number;
pub mod reply;
pub mod request;
pub mod value;

pub use client::Connection;
pub use reply::{Protocol, Replies};
pub use request::{Arguments, Limits, Parsed, Parser, ProtocolError};
pub use value::Value;
