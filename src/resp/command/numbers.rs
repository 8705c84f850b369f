//! Numbers: INCR and what is like it.

use super::{Context, Failure, Prepared, Then, check_key, integer};
use crate::resp::finish::{Absent, Finish};
use crate::resp::request::Arguments;
use crate::resp::steps::{Float, Steps};
use crate::state_machine::kv::wire::{Expiry, Item, SetCondition, SetOptions, ValueKind};

fn add(context: &mut Context<'_>, key: &[u8], delta: i64) -> Prepared {
    context.item(&Item::Increment { key, delta }, Finish::Number)
}

pub(super) fn incr(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    add(context, &arguments[1], 1)
}

pub(super) fn decr(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    add(context, &arguments[1], -1)
}

pub(super) fn incrby(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    add(context, &arguments[1], integer(&arguments[2])?)
}

pub(super) fn decrby(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    const OVERFLOW: Failure = Failure::new("ERR decrement would overflow");
    let delta = integer(&arguments[2])?.checked_neg().ok_or(OVERFLOW)?;
    add(context, &arguments[1], delta)
}

pub(super) fn incrbyfloat(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let key = &arguments[1];
    check_key(key)?;
    let float = Float::new(key, &arguments[2]);
    if let Some(prediction) = context.prediction.as_deref_mut() {
        let value = prediction.value(key)?;
        let condition = if value.is_some() {
            SetCondition::Present
        } else {
            SetCondition::Absent
        };
        let sum = float?.sum(value)?;
        let options = SetOptions {
            condition,
            expiry: Expiry::Keep,
            old: false,
        };
        let item = Item::Set {
            key,
            value: &sum,
            options,
        };
        context.push(&item)?;
        return Ok(Then::Items(Finish::Sum(sum)));
    }
    match float {
        Ok(float) => Ok(Then::Steps(Box::new(Steps::Float(float)))),
        // That the key holds something else would be said first.
        Err(failure) => {
            let finish = Finish::ErrorIfPresent(ValueKind::Bytes, Absent::Same, failure);
            context.item(&Item::Stat { key }, finish)
        }
    }
}
