//! Headers of the messages by which pages of state are fetched.

use super::{Command, Frame, HEADER_SIZE, Header, Invalid, Typed, bounded, rule, zero};
use crate::layout::PAGE_SIZE;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref};

/// What a request_pages asks for, and a page carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum PageRequest {
    /// The record of a checkpoint that is durable on a quorum: a [`crate::superblock::CheckpointRecord`] without its map.
    Record = 1,
    /// Pages of state and nodes of the tag tree, by number and tag.
    Pages = 2,
    /// The record of the checkpoint of one op, whether it is durable on a quorum or not.
    Named = 3,
}

/// Names a page by place and content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PageReference {
    /// Tag of the content, under the cluster's page key.
    pub tag: u128,
    /// Pages of state come first, nodes of the tag tree follow.
    pub logical: u32,
    /// Zero.
    pub reserved: [u8; 12],
}

static_assertions::const_assert_eq!(size_of::<PageReference>(), 32);

/// Pages that fit into one message.
pub const fn page_capacity(message_size_max: usize) -> usize {
    (message_size_max - HEADER_SIZE) / (PAGE_SIZE + size_of::<PageReference>())
}

typed_header! {
    /// Asks for pages. The body of a request for pages is as many [`PageReference`]s as fit into one answer, or fewer; a
    /// request for a record has none.
    RequestPages reserved 160 {
        /// For a record: the lowest op of interest, or the very one.
        checkpoint_op: u64,
        /// Echoed in the answer.
        nonce: u64,
        /// Ordinal of a [`PageRequest`].
        kind: u32,
        /// References in the body.
        count: u32,
        /// Zero.
        pad: u64,
    }
    rules |this| {
        bounded(&[this.checkpoint_op])?;
        let body = this.frame.size as usize - HEADER_SIZE;
        match this.kind {
            1 | 3 => rule(this.count == 0, "a request for a record names pages")?,
            2 => rule(this.count > 0, "a request for pages names none")?,
            _ => return Err(Invalid::Rule("a request_pages asks for an unknown kind")),
        }
        rule(body == this.count as usize * size_of::<PageReference>() && this.pad == 0,
            "a request_pages' references are not whole")
    }
}

typed_header! {
    /// Pages: as many [`PageReference`]s as pages, then the pages. What was asked for and is not among them is not here (any
    /// more). Or a record.
    Page reserved 160 {
        /// The highest op that the author knows to be committed.
        commit_max: u64,
        /// The request's.
        nonce: u64,
        /// Ordinal of a [`PageRequest`].
        kind: u32,
        /// Pages in the body.
        count: u32,
        /// Zero.
        pad: u64,
    }
    rules |this| {
        bounded(&[this.commit_max])?;
        let body = this.frame.size as usize - HEADER_SIZE;
        rule(this.pad == 0, "a page has a stray byte")?;
        match this.kind {
            1 | 3 => rule(this.count == 0 && body == 512, "a record has another size"),
            2 => rule(body == this.count as usize * (size_of::<PageReference>() + PAGE_SIZE), "pages are not whole"),
            _ => Err(Invalid::Rule("a page is of an unknown kind")),
        }
    }
}
