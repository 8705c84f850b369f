//! Hashes: HSET, HGETALL and what is like them.

use super::{Context, Failure, Prepared, SYNTAX, Then, check_key, check_member, integer, members};
use crate::resp::finish::{Finish, Shape};
use crate::resp::request::Arguments;
use crate::resp::steps::{Fields, Float, Steps, Way};
use crate::state_machine::kv::wire::{Action, ValueKind};

const HASH: ValueKind = ValueKind::Hash;

/// Adds fields and values by turns, from the second argument on. How many.
fn insert_pairs(
    context: &mut Context<'_>,
    arguments: &Arguments<'_>,
    if_absent: bool,
) -> Result<usize, Failure> {
    if !arguments.len().is_multiple_of(2) {
        return Err(context.arity());
    }
    let count = arguments.len() / 2 - 1;
    for pair in 0..count {
        let action = Action::Insert {
            kind: HASH,
            member: &arguments[2 + 2 * pair],
            value: &arguments[3 + 2 * pair],
            if_absent,
        };
        context.act(&arguments[1], action)?;
    }
    Ok(count)
}

pub(super) fn hset(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let count = insert_pairs(context, arguments, false)?;
    context.together(Finish::Total(count))
}

pub(super) fn hmset(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let count = insert_pairs(context, arguments, false)?;
    context.together(Finish::AllDone(count))
}

pub(super) fn hsetnx(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    insert_pairs(context, arguments, true)?;
    Ok(Then::Items(Finish::Number))
}

fn find(member: &[u8], size_max: u32) -> Action<'_> {
    Action::Find {
        kind: HASH,
        member,
        size_max,
    }
}

pub(super) fn hget(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let action = find(&arguments[2], u32::MAX);
    context.action(&arguments[1], action, Finish::Value)
}

pub(super) fn hmget(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (key, fields) = (&arguments[1], arguments.from(2));
    if context.is_large {
        check_key(key)?;
        for field in fields.iter() {
            check_member(field)?;
        }
        let fields = Fields::new(key, fields.iter());
        return Ok(Then::Steps(Box::new(Steps::Fields(fields))));
    }
    for field in fields.iter() {
        context.act(key, find(field, u32::MAX))?;
    }
    Ok(Then::Items(Finish::Fields(fields.len())))
}

/// All of a hash: at once, or in several steps if it is large.
fn all(
    context: &mut Context<'_>,
    arguments: &Arguments<'_>,
    values: bool,
    shape: Shape,
) -> Prepared {
    let way = Way::Members { kind: HASH, values };
    members::all(context, &arguments[1], way, shape)
}

pub(super) fn hgetall(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    all(context, arguments, true, Shape::Map)
}

pub(super) fn hkeys(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    all(context, arguments, false, Shape::Array)
}

pub(super) fn hvals(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    all(context, arguments, true, Shape::Values)
}

pub(super) fn hlen(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let action = Action::Length { kind: HASH };
    context.action(&arguments[1], action, Finish::Number)
}

pub(super) fn hexists(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let action = find(&arguments[2], 0);
    context.action(&arguments[1], action, Finish::Present)
}

pub(super) fn hstrlen(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let action = find(&arguments[2], 0);
    context.action(&arguments[1], action, Finish::FieldSize)
}

pub(super) fn hdel(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    members::remove(context, arguments, HASH)
}

pub(super) fn hincrby(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let action = Action::Add {
        member: &arguments[2],
        delta: integer(&arguments[3])?,
    };
    context.action(&arguments[1], action, Finish::FieldNumber)
}

pub(super) fn hincrbyfloat(_: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (key, field) = (&arguments[1], &arguments[2]);
    check_key(key)?;
    check_member(field)?;
    let float = Float::of_field(key, field, &arguments[3])?;
    Ok(Then::Steps(Box::new(Steps::Float(float))))
}

pub(super) fn hscan(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    members::scan(context, arguments, HASH)
}

pub(super) fn hrandfield(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let key = &arguments[1];
    let Some(count) = arguments.get(2) else {
        return members::pick(context, key, HASH, false);
    };
    let count = members::count(count)?;
    let values = match (arguments.get(3), arguments.len()) {
        (None, _) => false,
        (Some(option), 4) if option.eq_ignore_ascii_case(b"WITHVALUES") => true,
        _ => return Err(SYNTAX),
    };
    if values && !(i64::MIN / 2..=i64::MAX / 2).contains(&count) {
        return Err(members::OUT_OF_RANGE);
    }
    let shape = if values { Shape::Pairs } else { Shape::Array };
    members::draw(context, key, HASH, count, shape)
}
