//! Replies about sorted sets.

use super::{Finished, Shape, Trouble, failed, next};
use crate::resp::command::Failure;
use crate::resp::reply::Replies;
use crate::resp::score::told;
use crate::state_machine::kv::wire::{ItemReply, RANK_MAX, Results, Status};

pub(in crate::resp) const TOO_FAR: Failure =
    Failure::new("ERR more than 65536 members would have to be counted");
const NOT_A_NUMBER: Failure = Failure::new("ERR resulting score is not a number (NaN)");

const _: () = assert!(RANK_MAX == 65_536);

/// How results become a reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sorted {
    /// A member's score, of now; nothing if there is no such member.
    Score,
    /// The scores of so many members of one key.
    Scores(usize),
    /// Of so many members, how many are new or have another score.
    Changed(usize),
    /// A member's place; nothing if there is no such member.
    Place,
    /// How many members there are.
    Count,
    /// The members that so many pops have returned.
    Popped(Shape, usize),
}

impl Sorted {
    /// Results that it takes.
    pub fn count(&self) -> usize {
        match self {
            Self::Scores(count) | Self::Changed(count) | Self::Popped(_, count) => *count,
            Self::Score | Self::Place | Self::Count => 1,
        }
    }

    pub(super) fn write(&self, results: &mut Results<'_>, replies: &mut Replies<'_>) -> Finished {
        match self {
            Self::Score => score(&next(results)?, replies),
            Self::Scores(count) => scores(*count, results, replies),
            Self::Changed(count) => changed(*count, results, replies),
            Self::Popped(shape, count) => popped(*shape, *count, results, replies),
            Self::Place | Self::Count => {
                let result = next(results)?;
                match (result.status, self) {
                    (Status::Number, _) => replies.integer(result.number),
                    (Status::NotFound, Self::Place) => replies.null(),
                    (Status::NotFound, _) => replies.integer(0),
                    (Status::TooLarge, _) => TOO_FAR.write(replies),
                    (status, _) => return failed(status, replies),
                }
                Ok(())
            }
        }
    }
}

fn score(result: &ItemReply<'_>, replies: &mut Replies<'_>) -> Finished {
    match result.status {
        Status::Value | Status::DoneValue => {
            replies.double(told(result.value).ok_or(Trouble::Malformed)?);
        }
        Status::NotFound => replies.null(),
        Status::NotANumber => NOT_A_NUMBER.write(replies),
        status => return failed(status, replies),
    }
    Ok(())
}

/// All are of one key, and so of one type.
fn scores(count: usize, results: &mut Results<'_>, replies: &mut Replies<'_>) -> Finished {
    let from = replies.size();
    replies.array(count);
    let mut is_wrong = false;
    for _ in 0..count {
        let result = next(results)?;
        is_wrong |= result.status == Status::WrongType;
        if !is_wrong {
            score(&result, replies)?;
        }
    }
    if is_wrong {
        replies.truncate(from);
        return failed(Status::WrongType, replies);
    }
    Ok(())
}

fn changed(count: usize, results: &mut Results<'_>, replies: &mut Replies<'_>) -> Finished {
    let (mut changed, mut wrong) = (0, None);
    for _ in 0..count {
        match next(results)?.status {
            Status::DoneNumber => changed += 1,
            Status::Number => {}
            status => wrong = wrong.or(Some(status)),
        }
    }
    match wrong {
        None => replies.integer(changed),
        Some(status) => return failed(status, replies),
    }
    Ok(())
}

/// Each has returned its score and itself; there may have been fewer.
fn popped(
    shape: Shape,
    count: usize,
    results: &mut Results<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    let (mut strings, mut wrong) = (Vec::with_capacity(2 * count), None);
    for _ in 0..count {
        let result = next(results)?;
        match result.status {
            Status::DoneValue => {
                let (score, member) = result.value.split_at_checked(8).ok_or(Trouble::Malformed)?;
                strings.extend([member, score]);
            }
            Status::NotFound => {}
            status => wrong = wrong.or(Some(status)),
        }
    }
    match wrong {
        None => shape.write(strings.into_iter(), replies),
        Some(status) => return failed(status, replies),
    }
    Ok(())
}
