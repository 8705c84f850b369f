//! Lists: LPUSH, LRANGE and what is like them.

use super::strings::WHOLE;
use super::{Context, Failure, Prepared, SYNTAX, Then, check_key, integer};
use crate::resp::finish::{Absent, Finish, Shape};
use crate::resp::number::parse_integer;
use crate::resp::request::Arguments;
use crate::resp::steps::{Cut, Elements, Exchange, Steps};
use crate::state_machine::kv::wire::{Action, End, Item, TRIM_MAX, ValueKind};

const LIST: ValueKind = ValueKind::List;

/// Adds elements, from the second argument on.
fn push(
    context: &mut Context<'_>,
    arguments: &Arguments<'_>,
    end: End,
    if_present: bool,
) -> Prepared {
    let values = arguments.from(2);
    for value in values.iter() {
        let action = Action::Push {
            end,
            value,
            if_present,
        };
        context.act(&arguments[1], action)?;
    }
    context.together(Finish::Pushed(values.len()))
}

pub(super) fn lpush(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    push(context, arguments, End::First, false)
}

pub(super) fn rpush(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    push(context, arguments, End::Last, false)
}

pub(super) fn lpushx(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    push(context, arguments, End::First, true)
}

pub(super) fn rpushx(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    push(context, arguments, End::Last, true)
}

/// Reads a large element at an end, and then executes `small` if the list has not changed.
fn exchange(
    key: &[u8],
    end: End,
    action: Action<'_>,
    small: Action<'_>,
) -> Result<Exchange, Failure> {
    check_key(key)?;
    let item = |action| Item::Collection { key, action };
    let read = Action::At {
        index: match end {
            End::First => 0,
            End::Last => -1,
        },
        size_max: WHOLE,
    };
    Ok(Exchange::new(&item(read), &item(action), &item(small)))
}

fn pop(context: &mut Context<'_>, arguments: &Arguments<'_>, end: End) -> Prepared {
    let key = &arguments[1];
    match arguments.len() {
        2 => {}
        3 => return pop_count(context, key, &arguments[2], end),
        _ => return Err(context.arity()),
    }
    let action = Action::Pop {
        end,
        size_max: WHOLE,
    };
    if context.is_large {
        let (start, stop) = match end {
            End::First => (1, -1),
            End::Last => (0, -2),
        };
        let exchange = exchange(key, end, action, Action::Trim { start, stop })?;
        return Ok(Then::Steps(Box::new(Steps::Exchange(exchange))));
    }
    context.action(key, action, Finish::Value)
}

/// So many elements: at once if they are few and short, else in several steps.
fn pop_count(context: &mut Context<'_>, key: &[u8], count: &[u8], end: End) -> Prepared {
    const NEGATIVE: Failure = Failure::new("ERR value is out of range, must be positive");
    let count = parse_integer(count).filter(|&count| count >= 0);
    let count = count.ok_or(NEGATIVE)?;
    if count == 0 {
        return context.item(&Item::Stat { key }, Finish::TakenNone);
    }
    let few = u32::try_from(count).ok();
    match few.filter(|&count| u64::from(count) <= TRIM_MAX) {
        Some(count) if !context.is_large => {
            let action = Action::Take {
                end,
                count,
                size_max: WHOLE,
            };
            context.action(key, action, Finish::Taken)
        }
        None if context.in_transaction => {
            Err(context.not_in_transaction(" of more than 256 elements"))
        }
        _ => {
            check_key(key)?;
            let elements = Elements::take(key, end, count);
            Ok(Then::Steps(Box::new(Steps::Elements(elements))))
        }
    }
}

pub(super) fn lpop(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    pop(context, arguments, End::First)
}

pub(super) fn rpop(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    pop(context, arguments, End::Last)
}

pub(super) fn llen(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let action = Action::Length { kind: LIST };
    context.action(&arguments[1], action, Finish::Number)
}

pub(super) fn lindex(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let key = &arguments[1];
    match integer(&arguments[2]) {
        Ok(index) => {
            let action = Action::At {
                index,
                size_max: WHOLE,
            };
            context.action(key, action, Finish::Value)
        }
        // Redis looks at the key first.
        Err(failure) => {
            let finish = Finish::ErrorIfPresent(LIST, Absent::Null, failure);
            context.item(&Item::Stat { key }, finish)
        }
    }
}

pub(super) fn lset(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let key = &arguments[1];
    match integer(&arguments[2]) {
        Ok(index) => {
            let value = &arguments[3];
            context.action(key, Action::Replace { index, value }, Finish::Replaced)
        }
        Err(failure) => {
            let finish = Finish::ErrorIfPresent(LIST, Absent::Error, failure);
            context.item(&Item::Stat { key }, finish)
        }
    }
}

pub(super) fn lrange(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (start, stop) = (integer(&arguments[2])?, integer(&arguments[3])?);
    let key = &arguments[1];
    if context.is_large {
        check_key(key)?;
        let elements = Elements::read(key, start, stop);
        return Ok(Then::Steps(Box::new(Steps::Elements(elements))));
    }
    let action = Action::Range {
        start,
        stop,
        size_max: WHOLE,
    };
    context.action(key, action, Finish::Members(Shape::Array))
}

pub(super) fn ltrim(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (start, stop) = (integer(&arguments[2])?, integer(&arguments[3])?);
    let key = &arguments[1];
    if context.is_large {
        check_key(key)?;
        let cut = Cut::new(key, start, stop);
        return Ok(Then::Steps(Box::new(Steps::Cut(cut))));
    }
    context.action(key, Action::Trim { start, stop }, Finish::Trimmed)
}

fn end(argument: &[u8]) -> Result<End, Failure> {
    if argument.eq_ignore_ascii_case(b"LEFT") {
        Ok(End::First)
    } else if argument.eq_ignore_ascii_case(b"RIGHT") {
        Ok(End::Last)
    } else {
        Err(SYNTAX)
    }
}

fn move_element(
    context: &mut Context<'_>,
    [key, to]: [&[u8]; 2],
    [from_end, to_end]: [End; 2],
) -> Prepared {
    check_key(to)?;
    let action = |size_max| Action::Move {
        to,
        from_end,
        to_end,
        size_max,
    };
    if context.is_large {
        let exchange = exchange(key, from_end, action(Some(WHOLE)), action(None))?;
        return Ok(Then::Steps(Box::new(Steps::Exchange(exchange))));
    }
    context.action(key, action(Some(WHOLE)), Finish::Value)
}

pub(super) fn lmove(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let ends = [end(&arguments[3])?, end(&arguments[4])?];
    move_element(context, [&arguments[1], &arguments[2]], ends)
}

pub(super) fn rpoplpush(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let ends = [End::Last, End::First];
    move_element(context, [&arguments[1], &arguments[2]], ends)
}
