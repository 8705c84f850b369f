//! Replies about lists.

use super::{Finished, NO_ROOM, NO_SUCH_KEY, Surroundings, Trouble, failed, next};
use crate::resp::command::{Failure, WRONG_TYPE};
use crate::resp::reply::Replies;
use crate::state_machine::kv::wire::{ItemReply, Results, Status, ValueKind};

/// The last of so many lengths, or the first error.
pub(super) fn pushed(
    count: usize,
    results: &mut Results<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    let mut length = Ok(0);
    for _ in 0..count {
        let result = next(results)?;
        length = match (length, result.status) {
            (Ok(_), Status::DoneNumber | Status::Number) => Ok(result.number),
            (Ok(_), status) => Err(status),
            (wrong, _) => wrong,
        };
    }
    match length {
        Ok(length) => replies.integer(length),
        Err(status) => return failed(status, replies),
    }
    Ok(())
}

/// Elements that were taken out.
pub(super) fn taken(
    result: &ItemReply<'_>,
    around: &Surroundings<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    match result.status {
        Status::DoneMembers => {
            replies.array(result.members.len());
            for element in result.members {
                replies.bulk(element);
            }
        }
        Status::NotFound => replies.null_array(),
        Status::TooLarge if around.in_transaction => NO_ROOM.write(replies),
        Status::TooLarge => return Err(Trouble::TooLarge(result.value_size as usize)),
        status => return failed(status, replies),
    }
    Ok(())
}

/// None were to be taken out.
pub(super) fn taken_none(result: &ItemReply<'_>, replies: &mut Replies<'_>) -> Finished {
    match result.status {
        Status::Stat if result.kind == ValueKind::List => replies.array(0),
        Status::Stat => WRONG_TYPE.write(replies),
        Status::NotFound => replies.null_array(),
        status => return failed(status, replies),
    }
    Ok(())
}

pub(super) fn replaced(status: Status, replies: &mut Replies<'_>) -> Finished {
    const NO_SUCH_PLACE: Failure = Failure::new("ERR index out of range");
    match status {
        Status::Done => replies.simple("OK"),
        Status::NotFound => NO_SUCH_KEY.write(replies),
        Status::Mismatch => NO_SUCH_PLACE.write(replies),
        status => return failed(status, replies),
    }
    Ok(())
}

pub(super) fn trimmed(
    status: Status,
    around: &Surroundings<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    const TOO_MANY: Failure = Failure::new(
        "ERR LTRIM of more than 256 elements, but not all, is not supported in a transaction; it was not executed",
    );
    match status {
        Status::Done | Status::NotFound => replies.simple("OK"),
        Status::TooLarge if around.in_transaction => TOO_MANY.write(replies),
        // Not of bytes: it says nothing of the sizes of replies.
        Status::TooLarge => return Err(Trouble::TooLarge(0)),
        status => return failed(status, replies),
    }
    Ok(())
}
