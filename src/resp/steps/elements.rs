//! LRANGE, and LPOP and RPOP with a count, of more elements than one request returns: read part by part, all parts of one
//! version of the list, and then taken out if it is still that.

use super::cut::{cuts, window};
use super::walk::TOO_MUCH;
use super::{Step, Strings, again, out_of_space, results};
use crate::client::{Kind, ReplyRef};
use crate::resp::command::{Failure, WRONG_TYPE};
use crate::resp::reply::Replies;
use crate::resp::shared::Shared;
use crate::state_machine::kv::wire::{
    Action, Condition, End, Item, ItemReply, Operation, Status, TRIM_MAX, TransactionBytes,
    ValueKind,
};
use std::ops::Range;

/// Most elements that are taken out at once, but for all of a list: those of two trims.
const TAKEN_MAX: u64 = 2 * TRIM_MAX;

const TOO_MANY: Failure =
    Failure::new("ERR at most 512 elements, or all of a list, are taken out at once");

/// Reads elements of a list, and may take them out.
#[derive(Debug)]
pub struct Elements {
    key: Box<[u8]>,
    start: i64,
    stop: i64,
    /// From which end on they are to be taken out.
    end: Option<End>,
    found: Option<Found>,
    strings: Strings,
    tries: u32,
}

/// The list as it was when it was looked at first.
#[derive(Clone, Debug)]
struct Found {
    version: u64,
    length: u64,
    /// What is to be read.
    indexes: Range<u64>,
}

impl Elements {
    /// Those from one place to another.
    pub fn read(key: &[u8], start: i64, stop: i64) -> Self {
        Self {
            key: key.into(),
            start,
            stop,
            end: None,
            found: None,
            strings: Strings::default(),
            tries: 0,
        }
    }

    /// So many, one at least, from an end on: they are taken out.
    pub fn take(key: &[u8], end: End, count: i64) -> Self {
        assert!(count > 0);
        let (start, stop) = match end {
            End::First => (0, count - 1),
            End::Last => (-count, -1),
        };
        Self {
            end: Some(end),
            ..Self::read(key, start, stop)
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.key.len() + self.strings.memory()
    }

    fn is_read(&self, found: &Found) -> bool {
        self.strings.len() as u64 == found.indexes.end - found.indexes.start
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        let key = &*self.key;
        match &self.found {
            None => Item::Stat { key }.encode(body),
            Some(found) if !self.is_read(found) => {
                let start = found.indexes.start + self.strings.len() as u64;
                let action = Action::Range {
                    start: start.cast_signed(),
                    stop: (found.indexes.end - 1).cast_signed(),
                    size_max: u32::MAX,
                };
                Item::Collection { key, action }.encode(body);
            }
            Some(found) => {
                let end = self.end.expect("what only reads is at its end");
                let condition = Condition::version(key, found.version);
                let count = found.indexes.end - found.indexes.start;
                let items = if count == found.length {
                    vec![Item::Delete { key }]
                } else {
                    cuts(key, end, count)
                };
                let transaction = TransactionBytes::new(&[condition], &items, &[]);
                body.extend_from_slice(transaction.expect("few items").as_bytes());
                return (Kind::Write, Operation::Batch);
            }
        }
        (Kind::Read, Operation::Batch)
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        shared: &Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let result = results(reply, 1)?.next()?;
        match &self.found {
            None => self.look(&result, replies),
            Some(found) if !self.is_read(found) => self.add(&result, shared, replies),
            Some(_) => {
                match result.status {
                    Status::Succeeded => self.write(replies),
                    Status::Failed => return Some(self.begin_anew(replies)),
                    Status::OutOfSpace => out_of_space(replies),
                    _ => return None,
                }
                Some(Step::Done)
            }
        }
    }

    fn look(&mut self, result: &ItemReply<'_>, replies: &mut Replies<'_>) -> Option<Step> {
        match result.status {
            Status::Stat if result.kind == ValueKind::List => {
                let length = u64::from(result.value_size);
                let indexes = window(length, self.start, self.stop);
                let count = indexes.end - indexes.start;
                if indexes.is_empty() {
                    replies.array(0);
                } else if self.end.is_some() && count > TAKEN_MAX && count < length {
                    TOO_MANY.write(replies);
                } else {
                    let version = result.version;
                    self.found = Some(Found {
                        version,
                        length,
                        indexes,
                    });
                    return Some(Step::Ask);
                }
            }
            Status::Stat => WRONG_TYPE.write(replies),
            Status::NotFound if self.end.is_some() => replies.null_array(),
            Status::NotFound => replies.array(0),
            _ => return None,
        }
        Some(Step::Done)
    }

    fn add(
        &mut self,
        result: &ItemReply<'_>,
        shared: &Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let found = self.found.as_ref()?;
        match result.status {
            Status::Members if result.version == found.version => {}
            Status::Members | Status::NotFound | Status::WrongType => {
                return Some(self.begin_anew(replies));
            }
            _ => return None,
        }
        if result.members.is_empty() {
            return None; // one has room, always
        }
        for element in result.members {
            self.strings.push(element);
        }
        if self.strings.memory() > shared.output_size_max {
            TOO_MUCH.write(replies);
            return Some(Step::Done);
        }
        if self.end.is_some() || !self.is_read(found) {
            return Some(Step::Ask);
        }
        self.write(replies);
        Some(Step::Done)
    }

    fn begin_anew(&mut self, replies: &mut Replies<'_>) -> Step {
        (self.found, self.strings) = (None, Strings::default());
        again(&mut self.tries, replies)
    }

    /// All elements that were read; what is taken out, from its end on.
    fn write(&self, replies: &mut Replies<'_>) {
        let count = self.strings.len();
        replies.array(count);
        for place in 0..count {
            let place = match self.end {
                Some(End::Last) => count - 1 - place,
                _ => place,
            };
            replies.bulk(self.strings.get(place).unwrap_or(&[]));
        }
    }
}
