//! What makes a reply of the results of a command's items.

mod collections;
mod lists;
mod shape;
mod sorted;

pub use collections::{Combination, Drawn, distinct};
pub use shape::Shape;
pub use sorted::Sorted;
pub(super) use sorted::TOO_FAR;

use super::caller::{Caller, Settings};
use super::command::{Failure, NOT_AN_INTEGER, TOO_LONG, WRONG_TYPE};
use super::reply::{Protocol, Replies};
use crate::state_machine::kv::wire::{ItemReply, Results, Status, ValueKind};
use std::fmt::Write;

/// How results become a reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finish {
    /// OK if it was done, else nothing.
    Ok,
    /// 1 if it was done, else 0.
    Bit,
    /// The value, before or now; nothing if there is none.
    Value,
    /// The value; empty if there is none.
    Range,
    /// The number.
    Number,
    /// The size of the value; 0 if there is none.
    Size,
    /// Of so many items, how many found their key.
    Found(usize),
    /// The values of so many keys; nothing for one that holds no bytes.
    Values(usize),
    /// The values of so many fields of one key.
    Fields(usize),
    /// 1 if there is such a member, else 0.
    Present,
    /// The same of so many members of one key.
    Presents(usize),
    /// The size of a field's value; 0 if there is no such field.
    FieldSize,
    /// The number; the errors are those of a field.
    FieldNumber,
    /// The sum of so many numbers.
    Total(usize),
    /// Members or elements; none if there is no such key.
    Members(Shape),
    /// What so many sets come to.
    Combined(Combination, usize),
    /// Some of a collection's members.
    Drawn(Drawn),
    /// The members that so many picks have returned.
    Picked(Shape, usize),
    /// About a sorted set.
    Sorted(Sorted),
    /// The length of a list after so many pushes.
    Pushed(usize),
    /// The elements that were taken out of a list; nothing if there is no such key.
    Taken,
    /// The same of no elements, of a stat.
    TakenNone,
    /// OK, or that there is no such key, or no such place.
    Replaced,
    /// OK.
    Trimmed,
    /// OK if all of so many were done.
    AllDone(usize),
    /// Of a transaction without conditions: what this makes of its results.
    Enclosed(Box<Finish>),
    /// Of a transaction: 1 if its conditions held, else 0.
    EnclosedBit,
    /// The expiry.
    Expiry {
        /// As a point in time, not the time that is left.
        absolute: bool,
        /// In milliseconds, not seconds.
        milliseconds: bool,
    },
    /// The type.
    Type,
    /// OK, or that there is no such key.
    Renamed,
    /// 1, or 0 if the new name is in use, or that there is no such key.
    RenamedIfAbsent,
    /// This error if the key holds what the command is for; if there is no such key, this.
    ErrorIfPresent(ValueKind, Absent, Failure),
    /// The keys of WATCH: remembers their versions.
    Watched(Vec<Box<[u8]>>),
    /// 1 if all of so many were done.
    AllDoneBit(usize),
    /// This sum: it was written, or its key has expired since.
    Sum(Vec<u8>),
    /// A transaction: the replies of its commands, or nothing if its conditions did not hold.
    Executed(Executed),
    /// INFO: this text, and then the number of keys.
    Keyspace(String),
}

/// A reply when there is no such key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absent {
    /// Nothing.
    Null,
    /// That a scan is at its end and has found nothing.
    Scanned,
    /// "no such key".
    Error,
    /// The error that there is if the key holds what the command is for.
    Same,
}

impl Absent {
    fn write(self, same: &Failure, replies: &mut Replies<'_>) {
        match self {
            Self::Null => replies.null(),
            Self::Scanned => {
                replies.array(2);
                replies.bulk(b"0");
                replies.array(0);
            }
            Self::Error => NO_SUCH_KEY.write(replies),
            Self::Same => same.write(replies),
        }
    }
}

/// A command of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// Its reply, which needed nothing of the cluster.
    Reply(Vec<u8>),
    /// What makes its reply of so many results, in this version of the protocol.
    Items(Finish, usize, Protocol),
}

/// What a transaction comes to if its conditions hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executed {
    /// Its commands.
    pub parts: Vec<Part>,
    /// What they have set.
    pub settings: Settings,
}

/// Why there is no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// A value did not fit; nothing was changed by the item. Its size.
    TooLarge(usize),
    /// The results are not those of the items.
    Malformed,
}

/// What else there is to know.
pub struct Surroundings<'a> {
    /// The connection's.
    pub caller: &'a mut Caller,
    /// Replicated time, in milliseconds since 1970.
    pub now_ms: u64,
    /// In a transaction nothing can be done again.
    pub in_transaction: bool,
}

const OUT_OF_SPACE: Failure =
    Failure::new("OOM command not allowed when used memory > 'maxmemory'.");
const OVERFLOW: Failure = Failure::new("ERR increment or decrement would overflow");
const NOT_UNDERSTOOD: Failure = Failure::new("ERR the cluster does not know this operation");
const NO_SUCH_KEY: Failure = Failure::new("ERR no such key");
const NO_ROOM: Failure = Failure::new(
    "ERR the value has no room in the reply to a transaction; the command was not executed",
);

/// A version that no key ever has.
const VERSION_OF_NONE: u64 = u64::MAX;

type Finished = Result<(), Trouble>;

impl Finish {
    /// Results that it takes.
    pub fn count(&self) -> usize {
        match self {
            Self::Found(count)
            | Self::Values(count)
            | Self::Fields(count)
            | Self::Presents(count)
            | Self::Total(count)
            | Self::Combined(_, count)
            | Self::Picked(_, count)
            | Self::Pushed(count)
            | Self::AllDone(count)
            | Self::AllDoneBit(count) => *count,
            Self::Sorted(sorted) => sorted.count(),
            Self::Watched(keys) => keys.len(),
            _ => 1,
        }
    }

    /// There are no results, because the cluster was not asked, or has not answered.
    pub fn fail(&self, caller: &mut Caller) {
        if let Self::Watched(keys) = self
            && let Some(key) = keys.first()
        {
            // Whether it changes is not known, and nobody may find that it did not.
            caller.watched.push((key.clone(), VERSION_OF_NONE));
        }
    }

    /// Takes its results and writes the reply. If there is trouble, part of a reply may have been written.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn write(
        &self,
        results: &mut Results<'_>,
        around: &mut Surroundings<'_>,
        replies: &mut Replies<'_>,
    ) -> Finished {
        match self {
            Self::Found(count) => return found(*count, results, replies),
            Self::Values(count) => {
                replies.array(*count);
                for _ in 0..*count {
                    let result = next(results)?;
                    match result.status {
                        Status::WrongType => replies.null(),
                        _ => value(&result, around, replies)?,
                    }
                }
                return Ok(());
            }
            Self::Fields(count) => return collections::fields(*count, results, around, replies),
            Self::Presents(count) => return collections::presents(*count, results, replies),
            Self::Total(count) => return collections::total(*count, results, replies),
            Self::Sorted(sorted) => return sorted.write(results, replies),
            Self::Pushed(count) => return lists::pushed(*count, results, replies),
            Self::Picked(shape, count) => {
                return collections::picked(*shape, *count, results, replies);
            }
            Self::Combined(combination, count) => {
                return collections::combined(*combination, *count, results, around, replies);
            }
            Self::AllDone(count) | Self::AllDoneBit(count) => {
                let bit = matches!(self, Self::AllDoneBit(_));
                return all_done(*count, bit, results, replies);
            }
            Self::Watched(keys) => return watched(keys, results, around, replies),
            _ => {}
        }
        let result = next(results)?;
        self.one(&result, around, replies)
    }

    fn one(
        &self,
        result: &ItemReply<'_>,
        around: &mut Surroundings<'_>,
        replies: &mut Replies<'_>,
    ) -> Finished {
        let status = result.status;
        match (self, status) {
            (Self::Value, _) => return value(result, around, replies),
            (Self::Range, Status::NotFound) => replies.bulk(b""),
            (Self::Range, _) => return value(result, around, replies),
            (Self::Ok, status) if status.is_done() => replies.simple("OK"),
            (Self::Ok, Status::Mismatch) => replies.null(),
            (Self::Bit, status) if status.is_done() => replies.integer(1),
            (Self::Bit, Status::Mismatch | Status::NotFound) => replies.integer(0),
            (Self::Number, Status::DoneNumber | Status::Number) => replies.integer(result.number),
            (Self::Size, Status::Stat) if result.kind == ValueKind::Bytes => {
                replies.integer(i64::from(result.value_size));
            }
            (Self::Size, Status::Stat) => WRONG_TYPE.write(replies),
            (Self::Size | Self::FieldSize, Status::NotFound) => replies.integer(0),
            (Self::FieldSize, Status::Value | Status::TooLarge) => {
                replies.integer(i64::from(result.value_size));
            }
            (Self::Present, _) => return collections::present(status, replies),
            (Self::Taken, _) => return lists::taken(result, around, replies),
            (Self::TakenNone, _) => return lists::taken_none(result, replies),
            (Self::Replaced, _) => return lists::replaced(status, replies),
            (Self::Trimmed, _) => return lists::trimmed(status, around, replies),
            (Self::FieldNumber, _) => return collections::field_number(result, replies),
            (Self::Members(shape), _) => {
                return collections::members(*shape, result, around, replies);
            }
            (Self::Drawn(drawn), _) => return drawn.write(result, around, replies),
            (Self::Enclosed(finish), Status::Succeeded) => {
                return finish.write(&mut { result.results }, around, replies);
            }
            (Self::EnclosedBit, Status::Succeeded) => replies.integer(1),
            (Self::EnclosedBit, Status::Failed) => replies.integer(0),
            (Self::Expiry { .. }, Status::NotFound) => replies.integer(-2),
            (
                Self::Expiry {
                    absolute,
                    milliseconds,
                },
                Status::Stat,
            ) => {
                let time = expiry(result.expiry_ms, *absolute, *milliseconds, around.now_ms);
                replies.integer(time);
            }
            (Self::Type, Status::Stat) => replies.simple(type_name(result.kind)),
            (Self::Type, Status::NotFound) => replies.simple("none"),
            (Self::Renamed, Status::Done | Status::Stat) => replies.simple("OK"),
            (Self::RenamedIfAbsent, Status::Done) => replies.integer(1),
            (Self::RenamedIfAbsent, Status::Mismatch | Status::Stat) => replies.integer(0),
            (Self::Renamed | Self::RenamedIfAbsent, Status::NotFound) => {
                NO_SUCH_KEY.write(replies);
            }
            (Self::ErrorIfPresent(_, absent, failure), Status::NotFound) => {
                absent.write(failure, replies);
            }
            (Self::ErrorIfPresent(kind, _, failure), Status::Stat) if result.kind == *kind => {
                failure.write(replies);
            }
            (Self::ErrorIfPresent(..), Status::Stat) => WRONG_TYPE.write(replies),
            (Self::Sum(sum), Status::Done | Status::Mismatch) => replies.bulk(sum),
            (Self::Executed(executed), Status::Succeeded) => {
                return finish_parts(executed, result.results, around, replies);
            }
            (Self::Executed(_), Status::Failed) => replies.null_array(),
            (Self::Keyspace(text), Status::Number) => keyspace(text, result.number, replies),
            (_, status) => return failed(status, replies),
        }
        Ok(())
    }
}

/// What TYPE says.
pub fn type_name(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Bytes => "string",
        ValueKind::Hash => "hash",
        ValueKind::Set => "set",
        ValueKind::List => "list",
        ValueKind::Sorted => "zset",
    }
}

fn next<'a>(results: &mut Results<'a>) -> Result<ItemReply<'a>, Trouble> {
    results.next().ok_or(Trouble::Malformed)
}

/// The error that a status is, if it is one.
fn failed(status: Status, replies: &mut Replies<'_>) -> Finished {
    let failure = match status {
        Status::OutOfSpace => OUT_OF_SPACE,
        Status::WrongType => WRONG_TYPE,
        Status::NotANumber => NOT_AN_INTEGER,
        Status::Overflow => OVERFLOW,
        Status::TooLong => TOO_LONG,
        Status::Invalid => NOT_UNDERSTOOD,
        _ => return Err(Trouble::Malformed),
    };
    failure.write(replies);
    Ok(())
}

fn value(result: &ItemReply<'_>, around: &Surroundings<'_>, replies: &mut Replies<'_>) -> Finished {
    match result.status {
        Status::Value | Status::DoneValue | Status::MismatchValue => replies.bulk(result.value),
        Status::NotFound | Status::Done | Status::Mismatch => replies.null(),
        Status::TooLarge if around.in_transaction => NO_ROOM.write(replies),
        Status::TooLarge => return Err(Trouble::TooLarge(result.value_size as usize)),
        status => return failed(status, replies),
    }
    Ok(())
}

fn found(count: usize, results: &mut Results<'_>, replies: &mut Replies<'_>) -> Finished {
    let mut found = 0;
    for _ in 0..count {
        let result = next(results)?;
        match result.status {
            Status::NotFound => {}
            Status::Stat | Status::Done => found += 1,
            status => return failed(status, replies),
        }
    }
    replies.integer(found);
    Ok(())
}

fn all_done(
    count: usize,
    bit: bool,
    results: &mut Results<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    let mut wrong = None;
    for _ in 0..count {
        let status = next(results)?.status;
        if !status.is_done() {
            wrong = Some(status);
        }
    }
    match wrong {
        None if bit => replies.integer(1),
        None => replies.simple("OK"),
        Some(status) => return failed(status, replies),
    }
    Ok(())
}

fn watched(
    keys: &[Box<[u8]>],
    results: &mut Results<'_>,
    around: &mut Surroundings<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    for key in keys {
        let result = next(results)?;
        if !matches!(result.status, Status::Stat | Status::NotFound) {
            return failed(result.status, replies);
        }
        let watched = &mut around.caller.watched;
        // What was watched before counts from then.
        if !watched.iter().any(|(known, _)| known == key) {
            watched.push((key.clone(), result.version));
        }
    }
    replies.simple("OK");
    Ok(())
}

fn finish_parts(
    executed: &Executed,
    mut results: Results<'_>,
    around: &mut Surroundings<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    replies.array(executed.parts.len());
    around.in_transaction = true;
    for part in &executed.parts {
        match part {
            Part::Reply(reply) => replies.raw(reply),
            Part::Items(finish, count, protocol) => {
                replies.set_protocol(*protocol);
                let left = results.len();
                finish.write(&mut results, around, replies)?;
                if left - results.len() != *count {
                    return Err(Trouble::Malformed);
                }
            }
        }
    }
    around.caller.set(&executed.settings);
    Ok(())
}

fn expiry(expiry_ms: u64, absolute: bool, milliseconds: bool, now_ms: u64) -> i64 {
    if expiry_ms == 0 {
        return -1;
    }
    let time = if absolute {
        expiry_ms
    } else {
        expiry_ms.saturating_sub(now_ms)
    };
    let time = if milliseconds {
        time
    } else {
        (time + 500) / 1000
    };
    i64::try_from(time).unwrap_or(i64::MAX)
}

fn keyspace(text: &str, count: i64, replies: &mut Replies<'_>) {
    let mut text = text.to_owned();
    if count > 0 {
        write!(text, "db0:keys={count},expires=0,avg_ttl=0\r\n")
            .expect("memory takes all that is written");
    }
    replies.verbatim(text.as_bytes());
}
