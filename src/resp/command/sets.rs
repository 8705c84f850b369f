//! Sets: SADD, SMEMBERS, SINTER and what is like them.

use super::{Context, Failure, Prepared, SYNTAX, Then, check_key, check_member, integer, members};
use crate::resp::finish::{Combination, Finish, Shape};
use crate::resp::request::Arguments;
use crate::resp::steps::{Combine, Draw, Move, Steps, Way};
use crate::state_machine::kv::wire::{Action, ValueKind};

const SET: ValueKind = ValueKind::Set;

/// All members, in the order of their bytes.
const WAY: Way = Way::Members {
    kind: SET,
    values: false,
};

pub(super) fn sadd(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let members = arguments.from(2);
    for member in members.iter() {
        let action = Action::Insert {
            kind: SET,
            member,
            value: &[],
            if_absent: true,
        };
        context.act(&arguments[1], action)?;
    }
    context.together(Finish::Total(members.len()))
}

pub(super) fn srem(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    members::remove(context, arguments, SET)
}

fn find(member: &[u8]) -> Action<'_> {
    Action::Find {
        kind: SET,
        member,
        size_max: 0,
    }
}

pub(super) fn sismember(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    context.action(&arguments[1], find(&arguments[2]), Finish::Present)
}

pub(super) fn smismember(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let members = arguments.from(2);
    for member in members.iter() {
        context.act(&arguments[1], find(member))?;
    }
    Ok(Then::Items(Finish::Presents(members.len())))
}

pub(super) fn smembers(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    members::all(context, &arguments[1], WAY, Shape::Set)
}

pub(super) fn scard(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let action = Action::Length { kind: SET };
    context.action(&arguments[1], action, Finish::Number)
}

pub(super) fn spop(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    const NOT_POSITIVE: Failure = Failure::new("ERR value is out of range, must be positive");
    let key = &arguments[1];
    let Some(count) = arguments.get(2) else {
        return members::pick(context, key, SET, true);
    };
    if arguments.len() > 3 {
        return Err(SYNTAX);
    }
    let count = integer(count).map_err(|_| NOT_POSITIVE)?;
    let count = usize::try_from(count).map_err(|_| NOT_POSITIVE)?;
    check_key(key)?;
    if context.in_transaction && count > 0 {
        members::picks(context, key, SET, count, true)?;
        return Ok(Then::Items(Finish::Picked(Shape::Set, count)));
    }
    if context.in_transaction {
        // Nothing is taken, but the type is looked at.
        return members::draw(context, key, SET, 0, Shape::Set);
    }
    let seed = context.shared.random();
    let draw = Draw::new(key, SET, count, true, Shape::Set, seed).taking();
    Ok(Then::Steps(Box::new(Steps::Draw(Box::new(draw)))))
}

pub(super) fn srandmember(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let key = &arguments[1];
    match (arguments.get(2), arguments.len()) {
        (None, _) => members::pick(context, key, SET, false),
        (Some(count), 3) => {
            let count = members::count(count)?;
            members::draw(context, key, SET, count, Shape::Array)
        }
        _ => Err(SYNTAX),
    }
}

pub(super) fn sscan(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    members::scan(context, arguments, SET)
}

pub(super) fn smove(_: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (from, to, member) = (&arguments[1], &arguments[2], &arguments[3]);
    check_key(from)?;
    check_key(to)?;
    check_member(member)?;
    let moving = Move::new(from, to, member);
    Ok(Then::Steps(Box::new(Steps::Move(moving))))
}

/// Several sets: at once, or in several steps if they are large.
fn combine(
    context: &mut Context<'_>,
    keys: &Arguments<'_>,
    count: usize,
    combination: Combination,
) -> Prepared {
    if context.is_large {
        for key in keys.iter().take(count) {
            check_key(key)?;
        }
        let combine = Combine::new(combination, keys.iter().take(count), WAY);
        return Ok(Then::Steps(Box::new(Steps::Combine(combine))));
    }
    for key in keys.iter().take(count) {
        context.act(key, WAY.first())?;
    }
    Ok(Then::Items(Finish::Combined(combination, count)))
}

pub(super) fn sinter(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let keys = arguments.from(1);
    combine(context, &keys, keys.len(), Combination::Intersection)
}

pub(super) fn sunion(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let keys = arguments.from(1);
    combine(context, &keys, keys.len(), Combination::Union)
}

pub(super) fn sdiff(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let keys = arguments.from(1);
    combine(context, &keys, keys.len(), Combination::Difference)
}

pub(super) fn sintercard(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    const COUNT: Failure = Failure::new("ERR numkeys should be greater than 0");
    const TOO_MANY: Failure =
        Failure::new("ERR Number of keys can't be greater than number of args");
    const NEGATIVE: Failure = Failure::new("ERR LIMIT can't be negative");
    let count = integer(&arguments[1]).map_err(|_| COUNT)?;
    let count = usize::try_from(count).map_err(|_| COUNT)?;
    if count == 0 {
        return Err(COUNT);
    }
    if count > arguments.len() - 2 {
        return Err(TOO_MANY);
    }
    let mut limit = 0;
    let mut at = 2 + count;
    while let Some(option) = arguments.get(at) {
        let value = arguments.get(at + 1).ok_or(SYNTAX)?;
        if !option.eq_ignore_ascii_case(b"LIMIT") {
            return Err(SYNTAX);
        }
        let number = integer(value).map_err(|_| NEGATIVE)?;
        limit = usize::try_from(number).map_err(|_| NEGATIVE)?;
        at += 2;
    }
    // Zero stands for no limit.
    let most = if limit == 0 { usize::MAX } else { limit };
    combine(
        context,
        &arguments.from(2),
        count,
        Combination::Common(most),
    )
}
