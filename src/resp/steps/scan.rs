//! KEYS, SCAN, and the scans of members.

use super::{Step, results};
use crate::client::{Kind, ReplyRef};
use crate::resp::command::{Failure, WRONG_TYPE};
use crate::resp::finish::type_name;
use crate::resp::glob;
use crate::resp::reply::{Protocol, Replies};
use crate::resp::score;
use crate::resp::shared::Shared;
use crate::state_machine::kv::wire::{
    Action, Item, KEY_SIZE_MAX, Operation, Scan as Range, ScanReply, Status, ValueKind, prefix_end,
};
use std::ops::Bound;

/// Keys of one answer of the cluster to KEYS.
const KEYS_AT_ONCE: u32 = 4096;

/// The range of keys that may match, from behind `after` on.
fn range(after: Option<&[u8]>, prefix: &[u8], count: u32, body: &mut Vec<u8>) {
    let mut end = [0; KEY_SIZE_MAX];
    let from = match after {
        Some(key) if key >= prefix => Bound::Excluded(key),
        _ if prefix.is_empty() => Bound::Unbounded,
        _ => Bound::Included(prefix),
    };
    let range = Range {
        from,
        to: prefix_end(prefix, &mut end),
        keys_only: true,
        count_max: count,
        ..Range::ALL
    };
    range.encode(body);
}

/// What a pattern begins with, as far as keys can.
fn prefix(pattern: &[u8]) -> Vec<u8> {
    let mut prefix = glob::prefix(pattern);
    prefix.truncate(KEY_SIZE_MAX);
    prefix
}

/// KEYS: all keys that match, read part by part.
#[derive(Debug)]
pub struct Keys {
    pattern: Vec<u8>,
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    /// What was found, as replies.
    found: Vec<u8>,
    count: usize,
    size_max: usize,
}

impl Keys {
    /// Those that match, if they are no more than so many bytes.
    pub fn new(pattern: &[u8], size_max: usize) -> Self {
        Self {
            pattern: pattern.to_vec(),
            prefix: prefix(pattern),
            after: None,
            found: Vec::new(),
            count: 0,
            size_max,
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.found.capacity() + self.pattern.len()
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        range(self.after.as_deref(), &self.prefix, KEYS_AT_ONCE, body);
        (Kind::Read, Operation::Scan)
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        const TOO_MANY: Failure = Failure::new("ERR too many keys for one reply: use SCAN");
        let page = ScanReply::decode(reply.body)?;
        let mut found = Replies::new(&mut self.found, Protocol::Two);
        for entry in page.entries() {
            if entry.is_key && glob::matches(&self.pattern, entry.key) {
                found.bulk(entry.key);
                self.count += 1;
            }
        }
        if found.size() > self.size_max {
            TOO_MANY.write(replies);
            return Some(Step::Done);
        }
        match page.entries().last() {
            Some(last) if page.more => {
                self.after = Some(last.key.to_vec());
                Some(Step::Ask)
            }
            _ => {
                replies.array(self.count);
                replies.raw(&self.found);
                Some(Step::Done)
            }
        }
    }
}

/// SCAN: one part, and a cursor for the next.
#[derive(Debug)]
pub struct Scan {
    after: Option<Vec<u8>>,
    pattern: Vec<u8>,
    prefix: Vec<u8>,
    count: u32,
    /// The type that was asked for: what TYPE says, in letters of any size.
    kind: Option<Vec<u8>>,
}

impl Scan {
    /// From behind a key on.
    pub fn new(after: Option<&[u8]>, pattern: &[u8], count: u32, kind: Option<&[u8]>) -> Self {
        Self {
            after: after.map(<[u8]>::to_vec),
            pattern: pattern.to_vec(),
            prefix: prefix(pattern),
            count,
            kind: kind.map(Into::into),
        }
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        range(self.after.as_deref(), &self.prefix, self.count, body);
        (Kind::Read, Operation::Scan)
    }

    pub(super) fn answer(
        &self,
        reply: &ReplyRef<'_>,
        shared: &mut Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let page = ScanReply::decode(reply.body)?;
        let cursor = match page.entries().last() {
            Some(last) if page.more => shared.cursors.insert(last.key),
            _ => 0,
        };
        replies.array(2);
        replies.bulk(cursor.to_string().as_bytes());
        let is_of_kind = |kind| {
            let name = type_name(kind).as_bytes();
            self.kind
                .as_ref()
                .is_none_or(|it| it.eq_ignore_ascii_case(name))
        };
        let matching = page.entries().filter(|entry| {
            entry.is_key && is_of_kind(entry.kind) && glob::matches(&self.pattern, entry.key)
        });
        let keys: Vec<&[u8]> = matching.map(|entry| entry.key).collect();
        replies.array(keys.len());
        for key in keys {
            replies.bulk(key);
        }
        Some(Step::Done)
    }
}

/// HSCAN and its like: one part of a collection, and a cursor for the next.
#[derive(Debug)]
pub struct MemberScan {
    key: Box<[u8]>,
    kind: ValueKind,
    after: Option<Box<[u8]>>,
    pattern: Box<[u8]>,
    count: u32,
}

impl MemberScan {
    /// From behind a member on.
    pub fn new(
        key: &[u8],
        kind: ValueKind,
        after: Option<&[u8]>,
        pattern: &[u8],
        count: u32,
    ) -> Self {
        Self {
            key: key.into(),
            kind,
            after: after.map(Into::into),
            pattern: pattern.into(),
            count,
        }
    }

    /// Whether members come with their values.
    fn values(&self) -> bool {
        self.kind != ValueKind::Set
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        let action = Action::Members {
            kind: self.kind,
            from: self
                .after
                .as_deref()
                .map_or(Bound::Unbounded, Bound::Excluded),
            count_max: self.count,
            values: self.values(),
            size_max: u32::MAX,
        };
        let key = &self.key;
        Item::Collection { key, action }.encode(body);
        (Kind::Read, Operation::Batch)
    }

    pub(super) fn answer(
        &self,
        reply: &ReplyRef<'_>,
        shared: &mut Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let result = results(reply, 1)?.next()?;
        match result.status {
            Status::Members | Status::NotFound => {}
            Status::WrongType => {
                WRONG_TYPE.write(replies);
                return Some(Step::Done);
            }
            _ => return None,
        }
        let strings: Vec<&[u8]> = result.members.collect();
        let width = 1 + usize::from(self.values());
        let cursor = match strings.chunks_exact(width).last() {
            Some(last) if result.more => shared.cursors.insert(last[0]),
            // At least one has room.
            None if result.more => return None,
            _ => 0,
        };
        replies.array(2);
        replies.bulk(cursor.to_string().as_bytes());
        let matching: Vec<&[&[u8]]> = strings
            .chunks_exact(width)
            .filter(|member| glob::matches(&self.pattern, member[0]))
            .collect();
        replies.array(width * matching.len());
        for member in matching {
            replies.bulk(member[0]);
            match member.get(1) {
                // Also in version 3 it is a string here.
                Some(told) if self.kind == ValueKind::Sorted => {
                    replies.bulk(score::format(score::told(told)?).as_bytes());
                }
                Some(value) => replies.bulk(value),
                None => {}
            }
        }
        Some(Step::Done)
    }
}
