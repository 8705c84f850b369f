//! The rules of writing that recovery leans on, as a type: tests take one away and show that it is missed.

/// Which rules a journal keeps. Only [`Strict`] is for use.
pub trait Rules {
    /// A header enters its ring only after its own prepare is durable.
    const HEADER_AWAITS_PREPARE: bool = true;
    /// A prepare of several sectors is acknowledged when its redundant header is durable too.
    const LONG_PREPARE_AWAITS_HEADER: bool = true;
    /// So is one that replaces another of the same op.
    const REPLACEMENT_AWAITS_HEADER: bool = true;
    /// An op is acknowledged only when those from 2W to W before it are durable in both rings.
    const RING_RULE: bool = true;
    /// A prepare is acknowledged only when its own write is durable.
    const ACK_AWAITS_WRITE: bool = true;
    /// The window ends one ring above the checkpoint: no slot is used again while the checkpoint needs it.
    const WINDOW_IS_ONE_RING: bool = true;
    /// What is read back must be the prepare that was asked for, not whatever sound one lies there.
    const CHECK_READ: bool = true;
    /// Writes are durable when they complete.
    const FLUSH: bool = true;
}

/// All rules.
#[derive(Clone, Copy, Debug)]
pub struct Strict;

impl Rules for Strict {}
