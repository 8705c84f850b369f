//! What makes a reply of the results of a command's items.

use super::caller::{Caller, Settings};
use super::command::{Failure, NOT_AN_INTEGER, TOO_LONG};
use super::reply::{Protocol, Replies};
use crate::state_machine::kv::wire::{ItemReply, Results, Status};
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
    /// The values of so many keys.
    Values(usize),
    /// OK if all of so many were done.
    AllDone(usize),
    /// Of a transaction: OK.
    Enclosed,
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
    /// This error if there is the key; nothing if there is none.
    ErrorIfPresent(Failure),
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
const WRONG_TYPE: Failure =
    Failure::new("WRONGTYPE Operation against a key holding the wrong kind of value");
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
            | Self::AllDone(count)
            | Self::AllDoneBit(count) => *count,
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
                    value(&result, around, replies)?;
                }
                return Ok(());
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
            (Self::Size, Status::Stat) => replies.integer(i64::from(result.value_size)),
            (Self::Size, Status::NotFound) => replies.integer(0),
            (Self::Enclosed, Status::Succeeded) => {
                let count = result.results.len();
                return all_done(count, false, &mut { result.results }, replies);
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
            (Self::Type, Status::Stat) => replies.simple("string"),
            (Self::Type, Status::NotFound) => replies.simple("none"),
            (Self::Renamed, Status::Done | Status::Stat) => replies.simple("OK"),
            (Self::RenamedIfAbsent, Status::Done) => replies.integer(1),
            (Self::RenamedIfAbsent, Status::Mismatch | Status::Stat) => replies.integer(0),
            (Self::Renamed | Self::RenamedIfAbsent, Status::NotFound) => {
                NO_SUCH_KEY.write(replies);
            }
            (Self::ErrorIfPresent(_), Status::NotFound) => replies.null(),
            (Self::ErrorIfPresent(failure), Status::Stat) => failure.write(replies),
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
