//! Strings: GET, SET and what is like them.

use super::{
    Context, Failure, NOT_AN_INTEGER, Prepared, SYNTAX, TOO_LONG, Then, check_key, integer,
};
use crate::resp::finish::{Absent, Finish};
use crate::resp::items::ItemList;
use crate::resp::request::Arguments;
use crate::resp::steps::{Exchange, Many, Steps};
use crate::state_machine::kv::wire::{
    Condition, EXPIRY_MAX, Expiry, ExpiryCondition, Item, SetCondition, SetOptions, ValueKind,
};

/// As many bytes of a value as fit.
pub(super) const WHOLE: u32 = u32::MAX;

/// Expiries beyond are refused: the machine adds the time of the op to one that is relative.
const EXPIRY_IN_MAX: i64 = (EXPIRY_MAX - (1 << 48)).cast_signed();

/// An option that names a time.
#[derive(Clone, Copy)]
struct Time<'a> {
    argument: &'a [u8],
    in_seconds: bool,
    is_absolute: bool,
}

impl Time<'_> {
    /// Parses it, as Redis does for everything but EXPIRE and its like: it must be positive.
    fn expiry(&self, context: &Context<'_>) -> Result<Expiry, Failure> {
        let number = integer(self.argument)?;
        let invalid = || context.invalid_expire();
        if number <= 0 {
            return Err(invalid());
        }
        let unit = if self.in_seconds { 1000 } else { 1 };
        let time = number.checked_mul(unit).ok_or_else(invalid)?;
        if time > EXPIRY_IN_MAX {
            return Err(invalid());
        }
        let time = time.unsigned_abs();
        Ok(if self.is_absolute {
            Expiry::At(time)
        } else {
            Expiry::In(time)
        })
    }
}

/// EX, PX, EXAT or PXAT, and its argument.
fn time<'a>(option: &[u8], next: Option<&'a [u8]>) -> Option<Time<'a>> {
    let (in_seconds, is_absolute) = match option.to_ascii_uppercase().as_slice() {
        b"EX" => (true, false),
        b"PX" => (false, false),
        b"EXAT" => (true, true),
        b"PXAT" => (false, true),
        _ => return None,
    };
    Some(Time {
        argument: next?,
        in_seconds,
        is_absolute,
    })
}

/// Whether two times are of one unit: EX twice is allowed, the last counts.
fn is_same(one: Option<Time<'_>>, other: Time<'_>) -> bool {
    one.is_none_or(|one| (one.in_seconds, one.is_absolute) == (other.in_seconds, other.is_absolute))
}

pub(super) fn get(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let item = Item::Get {
        key: &arguments[1],
        size_max: WHOLE,
    };
    context.item(&item, Finish::Value)
}

pub(super) fn strlen(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    context.item(&Item::Stat { key: &arguments[1] }, Finish::Size)
}

pub(super) fn mget(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let keys = arguments.from(1);
    if context.is_large {
        for key in keys.iter() {
            check_key(key)?;
        }
        let many = Many::new(keys.iter().map(Into::into).collect());
        return Ok(Then::Steps(Box::new(Steps::Many(many))));
    }
    for key in keys.iter() {
        context.push(&Item::Get {
            key,
            size_max: WHOLE,
        })?;
    }
    Ok(Then::Items(Finish::Values(keys.len())))
}

/// SET as its options say, or in several steps if the old value is wanted and large.
fn put(
    context: &mut Context<'_>,
    key: &[u8],
    value: &[u8],
    options: SetOptions,
    finish: Finish,
) -> Prepared {
    let item = Item::Set {
        key,
        value,
        options,
    };
    if context.is_large && options.old {
        let plain = SetOptions {
            old: false,
            ..options
        };
        let small = Item::Set {
            key,
            value,
            options: plain,
        };
        return exchange(&item, &small);
    }
    context.item(&item, finish)
}

/// Reads a large value, and then executes `small` if it has not changed.
fn exchange(item: &Item<'_>, small: &Item<'_>) -> Prepared {
    check_key(item.key())?;
    let read = Item::Get {
        key: item.key(),
        size_max: WHOLE,
    };
    let exchange = Exchange::new(&read, item, small);
    Ok(Then::Steps(Box::new(Steps::Exchange(exchange))))
}

pub(super) fn set(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (mut condition, mut old, mut keep) = (SetCondition::Always, false, false);
    let mut expiry: Option<Time<'_>> = None;
    let mut at = 3;
    while let Some(option) = arguments.get(at) {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" if condition != SetCondition::Present => condition = SetCondition::Absent,
            b"XX" if condition != SetCondition::Absent => condition = SetCondition::Present,
            b"GET" => old = true,
            b"KEEPTTL" if expiry.is_none() => keep = true,
            _ => {
                let found = time(option, arguments.get(at + 1)).ok_or(SYNTAX)?;
                if keep || !is_same(expiry, found) {
                    return Err(SYNTAX);
                }
                expiry = Some(found);
                at += 1;
            }
        }
        at += 1;
    }
    let expiry = match expiry {
        Some(time) => time.expiry(context)?,
        None if keep => Expiry::Keep,
        None => Expiry::Never,
    };
    let options = SetOptions {
        condition,
        expiry,
        old,
    };
    let finish = if old { Finish::Value } else { Finish::Ok };
    put(context, &arguments[1], &arguments[2], options, finish)
}

pub(super) fn setnx(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let options = SetOptions {
        condition: SetCondition::Absent,
        ..SetOptions::default()
    };
    put(context, &arguments[1], &arguments[2], options, Finish::Bit)
}

fn set_expiring(
    context: &mut Context<'_>,
    arguments: &Arguments<'_>,
    in_seconds: bool,
) -> Prepared {
    let time = Time {
        argument: &arguments[2],
        in_seconds,
        is_absolute: false,
    };
    let options = SetOptions {
        expiry: time.expiry(context)?,
        ..SetOptions::default()
    };
    put(context, &arguments[1], &arguments[3], options, Finish::Ok)
}

pub(super) fn setex(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    set_expiring(context, arguments, true)
}

pub(super) fn psetex(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    set_expiring(context, arguments, false)
}

pub(super) fn getset(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let options = SetOptions {
        old: true,
        ..SetOptions::default()
    };
    put(
        context,
        &arguments[1],
        &arguments[2],
        options,
        Finish::Value,
    )
}

pub(super) fn getdel(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let key = &arguments[1];
    let item = Item::Take {
        key,
        size_max: WHOLE,
    };
    if context.is_large {
        return exchange(&item, &Item::Delete { key });
    }
    context.item(&item, Finish::Value)
}

pub(super) fn getex(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (mut persist, mut expiry) = (false, None);
    let mut at = 2;
    while let Some(option) = arguments.get(at) {
        if option.eq_ignore_ascii_case(b"PERSIST") && expiry.is_none() {
            persist = true;
        } else {
            let found = time(option, arguments.get(at + 1)).ok_or(SYNTAX)?;
            if persist || !is_same(expiry, found) {
                return Err(SYNTAX);
            }
            expiry = Some(found);
            at += 1;
        }
        at += 1;
    }
    let key = &arguments[1];
    let expiry = match expiry {
        Some(time) => match time.expiry(context) {
            Ok(expiry) => expiry,
            // Only a key that is there has its time looked at.
            Err(failure) => {
                let finish = Finish::ErrorIfPresent(ValueKind::Bytes, Absent::Null, failure);
                return context.item(&Item::Stat { key }, finish);
            }
        },
        None if persist => Expiry::Never,
        None => return get(context, arguments),
    };
    let expire = |size_max| Item::Expire {
        key,
        expiry,
        // A key that does not expire is not changed by not expiring.
        condition: if persist {
            ExpiryCondition::Present
        } else {
            ExpiryCondition::Always
        },
        size_max,
    };
    if context.is_large {
        return exchange(&expire(Some(WHOLE)), &expire(None));
    }
    context.item(&expire(Some(WHOLE)), Finish::Value)
}

/// The pairs of MSET.
fn put_pairs(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Result<usize, Failure> {
    if arguments.len().is_multiple_of(2) {
        return Err(context.arity());
    }
    let count = arguments.len() / 2;
    for pair in 0..count {
        context.push(&Item::Put {
            key: &arguments[1 + 2 * pair],
            value: &arguments[2 + 2 * pair],
        })?;
    }
    Ok(count)
}

const TOO_MANY: Failure = Failure::new("ERR too many keys for one command");

fn enclose(items: &mut ItemList, conditions: &[Condition<'_>]) -> Result<(), Failure> {
    items.enclose(conditions).ok_or(TOO_MANY)
}

pub(super) fn mset(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let count = put_pairs(context, arguments)?;
    // All of them or none, also when space runs out.
    context.together(Finish::AllDone(count))
}

pub(super) fn msetnx(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let count = put_pairs(context, arguments)?;
    if let Some(prediction) = context.prediction.as_deref_mut() {
        let mut present = false;
        for pair in 0..count {
            present |= prediction.is_present(&arguments[1 + 2 * pair])?;
        }
        if !present {
            return Ok(Then::Items(Finish::AllDoneBit(count)));
        }
        context.items.clear();
        context.replies.integer(0);
        return Ok(Then::Replied);
    }
    let absent = |pair| Condition::absent(arguments.get(1 + 2 * pair).unwrap_or(&[]));
    let conditions: Vec<Condition<'_>> = (0..count).map(absent).collect();
    enclose(context.items, &conditions)?;
    Ok(Then::Items(Finish::EnclosedBit))
}

pub(super) fn append(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let item = Item::Append {
        key: &arguments[1],
        value: &arguments[2],
    };
    context.item(&item, Finish::Number)
}

pub(super) fn getrange(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let item = Item::GetRange {
        key: &arguments[1],
        start: integer(&arguments[2])?,
        end: integer(&arguments[3])?,
        size_max: WHOLE,
    };
    context.item(&item, Finish::Range)
}

pub(super) fn setrange(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    const OFFSET: Failure = Failure::new("ERR offset is out of range");
    let (key, value) = (&arguments[1], &arguments[3]);
    let offset = integer(&arguments[2]).map_err(|_| NOT_AN_INTEGER)?;
    if offset < 0 {
        return Err(OFFSET);
    }
    if value.is_empty() {
        return context.item(&Item::Stat { key }, Finish::Size);
    }
    let offset = u32::try_from(offset).map_err(|_| TOO_LONG)?;
    let item = Item::SetRange { key, offset, value };
    context.item(&item, Finish::Number)
}
