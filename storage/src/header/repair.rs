//! Headers of the messages by which a log is made whole.

use super::{Command, Frame, HEADER_SIZE, Header, Invalid, Typed, bodiless, bounded, rule, zero};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref};

typed_header! {
    /// Asks for the headers of `op_min..=op_max`.
    RequestHeaders reserved 176 {
        /// Lowest op asked for.
        op_min: u64,
        /// Highest op asked for.
        op_max: u64,
    }
    rules |this| {
        bounded(&[this.op_min, this.op_max])?;
        rule(bodiless(&this.frame), "a request_headers has a body")?;
        rule(this.op_min <= this.op_max, "a request_headers asks for an empty range")
    }
}

typed_header! {
    /// Headers of prepares, highest op first.
    Headers reserved 192 {}
    rules |this| rule((this.frame.size as usize).is_multiple_of(HEADER_SIZE), "headers are not whole")
}

typed_header! {
    /// Asks for the prepare of an op.
    RequestPrepare reserved 160 {
        /// The identity wanted; zero for whatever the asked replica holds as committed.
        prepare: u128,
        /// The op wanted.
        op: u64,
        /// Zero.
        pad: u64,
    }
    rules |this| {
        bounded(&[this.op])?;
        rule(bodiless(&this.frame), "a request_prepare has a body")?;
        rule(this.op > 0 && this.pad == 0, "a request_prepare names no op")
    }
}

typed_header! {
    /// Answers a request_prepare: its author does not have that prepare, or cannot read it any more. It proves nothing of
    /// what its author has acknowledged.
    NoPrepare reserved 160 {
        /// The identity asked for.
        prepare: u128,
        /// Its op.
        op: u64,
        /// Zero.
        pad: u64,
    }
    rules |this| {
        bounded(&[this.op])?;
        rule(bodiless(&this.frame), "a no_prepare has a body")?;
        rule(this.op > 0 && this.pad == 0, "a no_prepare names no op")
    }
}
