//! What commands of hashes and sets, and of whatever else has members, have in common.

use super::keys::{SCAN_COUNT, SCAN_COUNT_MAX, cursor, place};
use super::{Context, Failure, Prepared, SYNTAX, Then, check_key, integer};
use crate::resp::finish::{Absent, Drawn, Finish, Shape};
use crate::resp::request::Arguments;
use crate::resp::steps::{Draw, MemberScan, Steps, Walk, Way};
use crate::state_machine::kv::wire::{Action, Item, ValueKind};

/// Most members that are drawn again and again from the same ones.
const REPEATS_MAX: u64 = 65_536;

/// The same in a transaction, where each takes room in the reply.
const PICKS_MAX: usize = 128;

pub(super) const OUT_OF_RANGE: Failure = Failure::new("ERR value is out of range");

/// All of a collection: at once, or in several steps if it is large.
pub(super) fn all(context: &mut Context<'_>, key: &[u8], way: Way, shape: Shape) -> Prepared {
    if context.is_large {
        check_key(key)?;
        let walk = Walk::new(key, way, shape);
        return Ok(Then::Steps(Box::new(Steps::Walk(walk))));
    }
    let action = way.first();
    context.action(key, action, Finish::Members(shape))
}

/// Removes members, from the second argument on, and counts them.
pub(super) fn remove(
    context: &mut Context<'_>,
    arguments: &Arguments<'_>,
    kind: ValueKind,
) -> Prepared {
    let members = arguments.from(2);
    for member in members.iter() {
        context.act(&arguments[1], Action::Remove { kind, member })?;
    }
    Ok(Then::Items(Finish::Total(members.len())))
}

/// HSCAN and its like: one part, and a cursor for the next.
pub(super) fn scan(
    context: &mut Context<'_>,
    arguments: &Arguments<'_>,
    kind: ValueKind,
) -> Prepared {
    let key = &arguments[1];
    check_key(key)?;
    let cursor = cursor(&arguments[2])?;
    match scan_of(context, key, cursor, &arguments.from(3), kind) {
        Ok(scan) => Ok(Then::Steps(Box::new(Steps::Members(scan)))),
        // As Redis, which first looks at the key.
        Err(failure) => {
            let finish = Finish::ErrorIfPresent(kind, Absent::Scanned, failure);
            context.item(&Item::Stat { key }, finish)
        }
    }
}

fn scan_of(
    context: &Context<'_>,
    key: &[u8],
    cursor: u64,
    options: &Arguments<'_>,
    kind: ValueKind,
) -> Result<MemberScan, Failure> {
    let (mut pattern, mut count): (&[u8], i64) = (b"*", SCAN_COUNT);
    let mut at = 0;
    while let Some(option) = options.get(at) {
        let value = options.get(at + 1).ok_or(SYNTAX)?;
        match option.to_ascii_uppercase().as_slice() {
            b"COUNT" => {
                count = integer(value)?;
                if count < 1 {
                    return Err(SYNTAX);
                }
            }
            b"MATCH" => pattern = value,
            _ => return Err(SYNTAX),
        }
        at += 2;
    }
    let after = place(context, cursor)?;
    let count = u32::try_from(count).map_or(SCAN_COUNT_MAX, |count| count.min(SCAN_COUNT_MAX));
    Ok(MemberScan::new(key, kind, after, pattern, count))
}

/// One member, which may be removed.
pub(super) fn pick(context: &mut Context<'_>, key: &[u8], kind: ValueKind, take: bool) -> Prepared {
    let seed = context.shared.random();
    context.action(key, Action::Pick { kind, seed, take }, Finish::Value)
}

/// A count of members to draw: negative ones may be drawn again.
pub(super) fn count(argument: &[u8]) -> Result<i64, Failure> {
    const LEAST: Failure = Failure::new(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    let count = integer(argument)?;
    if count == i64::MIN {
        return Err(LEAST);
    }
    Ok(count)
}

/// So many members, all different; or, if the count is negative, of which some may be the same.
pub(super) fn draw(
    context: &mut Context<'_>,
    key: &[u8],
    kind: ValueKind,
    count: i64,
    shape: Shape,
) -> Prepared {
    const TOO_MANY: Failure =
        Failure::new("ERR more than 65536 members, of which some may be the same, at once");
    check_key(key)?;
    let is_distinct = count >= 0;
    if !is_distinct && count.unsigned_abs() > REPEATS_MAX {
        return Err(TOO_MANY);
    }
    let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let seed = context.shared.random();
    if !context.in_transaction {
        let draw = Draw::new(key, kind, count, is_distinct, shape, seed);
        return Ok(Then::Steps(Box::new(Steps::Draw(Box::new(draw)))));
    }
    if is_distinct {
        let values = shape.width() == 2;
        let action = Way::Members { kind, values }.first();
        let drawn = Drawn { count, seed, shape };
        return context.action(key, action, Finish::Drawn(drawn));
    }
    if shape.width() == 2 {
        return Err(context.not_in_transaction(" with a negative count and WITHVALUES"));
    }
    picks(context, key, kind, count, false)?;
    Ok(Then::Items(Finish::Picked(shape, count)))
}

/// Picks so many members, one after another.
pub(super) fn picks(
    context: &mut Context<'_>,
    key: &[u8],
    kind: ValueKind,
    count: usize,
    take: bool,
) -> Result<(), Failure> {
    if count > PICKS_MAX {
        return Err(context.not_in_transaction(" of so many members"));
    }
    for _ in 0..count {
        let seed = context.shared.random();
        context.act(key, Action::Pick { kind, seed, take })?;
    }
    Ok(())
}
