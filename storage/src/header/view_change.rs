//! Headers of the messages by which a view ends and the next one begins.

use super::{Command, Frame, HEADER_SIZE, Header, Invalid, Typed, bodiless, bounded, rule, zero};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref};

typed_header! {
    /// "I have not heard from the primary of my view, and want to leave it." A pre-vote: it changes nothing by itself.
    StartViewChange reserved 192 {}
    rules |this| rule(bodiless(&this.frame), "a start_view_change has a body")
}

typed_header! {
    /// A vote for the frame's view: from now on its author acknowledges nothing in earlier ones. The body holds the headers
    /// of its log's end, highest op first and without gaps; a header of zeros where the op's is not known.
    DoViewChange reserved 72 {
        /// Bit i: the prepare of header i can be fetched from the author.
        present: u128,
        /// Bit i: the author has never acknowledged a prepare with header i (with a header of zeros: any at that op).
        nack: u128,
        /// Op of the body's first header.
        op: u64,
        /// The highest op that the author may have acknowledged; above `op` it does not know which of them.
        op_max: u64,
        /// What is executed by the author.
        commit_min: u64,
        /// What the author knows to be committed.
        commit_max: u64,
        /// Op of the newest checkpoint durable at the author.
        checkpoint_op: u64,
        /// The earliest time that a prepare after the author's log may have.
        timestamp: u64,
        /// Sequence of the superblock, which has the vote.
        superblock_sequence: u64,
        /// The life of the process that votes, as its greetings name it.
        life: u64,
        /// From the candidate: an op that may be committed, and that nobody can supply though all have voted; zero if none.
        lost_op: u64,
        /// The last view in which the author was normal.
        log_view: u32,
        /// One if the author has a state to execute on, and so may lead.
        eligible: u8,
        /// Zero.
        pad: [u8; 11],
    }
    rules |this| {
        bounded(&[this.op, this.op_max, this.commit_min, this.commit_max, this.checkpoint_op, this.timestamp])?;
        bounded(&[this.superblock_sequence, this.lost_op])?;
        zero(&this.pad)?;
        let headers = (this.frame.size as usize - HEADER_SIZE) / HEADER_SIZE;
        rule((this.frame.size as usize).is_multiple_of(HEADER_SIZE) && (1..=128).contains(&headers),
            "a do_view_change's headers are not whole, none, or too many")?;
        rule(headers as u64 <= this.op + 1, "a do_view_change reaches below op 0")?;
        rule(this.op_max >= this.op, "a do_view_change's log ends below its own header")?;
        let listed = if headers == 128 { u128::MAX } else { (1 << headers) - 1 };
        rule((this.present | this.nack) & !listed == 0, "a do_view_change has bits without headers")?;
        rule(this.log_view < this.frame.view, "a do_view_change votes for a view that its author was in")?;
        rule(this.eligible <= 1, "a do_view_change's eligibility is unknown")
    }
}

typed_header! {
    /// The log with which the frame's view begins, or from which one goes on that returns to it. From its primary. The
    /// body holds the headers of the log's end, highest op first and without gaps; all below them is committed.
    StartView reserved 136 {
        /// Id of the newest checkpoint durable at the primary.
        checkpoint_id: u128,
        /// Its op.
        checkpoint_op: u64,
        /// Echoes a request_start_view's; zero: nobody asked.
        nonce: u64,
        /// The log's head: op of the body's first header.
        op: u64,
        /// What is known to be committed.
        commit_max: u64,
        /// Zero.
        pad: u64,
    }
    rules |this| {
        bounded(&[this.op, this.commit_max, this.checkpoint_op])?;
        let headers = (this.frame.size as usize - HEADER_SIZE) / HEADER_SIZE;
        rule((this.frame.size as usize).is_multiple_of(HEADER_SIZE) && (1..=128).contains(&headers),
            "a start_view's headers are not whole, none, or too many")?;
        rule(headers as u64 <= this.op + 1, "a start_view reaches below op 0")?;
        rule(this.commit_max <= this.op && this.pad == 0, "a start_view commits what is not in it")
    }
}

typed_header! {
    /// Asks the primary of the frame's view for its start_view.
    RequestStartView reserved 176 {
        /// Echoed in the answer; never zero.
        nonce: u64,
        /// Zero.
        pad: u64,
    }
    rules |this| {
        rule(bodiless(&this.frame), "a request_start_view has a body")?;
        rule(this.nonce != 0 && this.pad == 0, "a request_start_view has no nonce")
    }
}
