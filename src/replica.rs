//! The protocol: one replica, pure. Events come in, effects go out; nothing here reads a clock, opens a socket or
//! draws randomness.

mod event;

pub use event::{ConnectionId, Effects, Event, Fatal, Now, Peer, Send};
