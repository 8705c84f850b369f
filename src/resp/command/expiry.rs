//! Expiry: EXPIRE, TTL and what is like them.

use super::{Context, Failure, Prepared, integer};
use crate::resp::finish::Finish;
use crate::resp::request::Arguments;
use crate::state_machine::kv::wire::{EXPIRY_MAX, Expiry, ExpiryCondition, Item};

const WITH_NX: Failure =
    Failure::new("ERR NX and XX, GT or LT options at the same time are not compatible");
const GT_AND_LT: Failure =
    Failure::new("ERR GT and LT options at the same time are not compatible");

/// NX, XX, GT and LT.
fn condition(options: &Arguments<'_>) -> Result<ExpiryCondition, Failure> {
    let [mut absent, mut present, mut later, mut earlier] = [false; 4];
    for option in options.iter() {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" => absent = true,
            b"XX" => present = true,
            b"GT" => later = true,
            b"LT" => earlier = true,
            _ => {
                let mut text = b"ERR Unsupported option ".to_vec();
                text.extend(option.iter().take_while(|&&byte| byte != 0));
                return Err(Failure::quoting(text));
            }
        }
    }
    if absent && (present || later || earlier) {
        return Err(WITH_NX);
    }
    if later && earlier {
        return Err(GT_AND_LT);
    }
    Ok(match (absent, present, later, earlier) {
        (true, ..) => ExpiryCondition::Absent,
        // A key without an expiry counts as later than all, so nothing is later than it.
        (_, _, true, _) => ExpiryCondition::Later,
        (_, true, _, true) => ExpiryCondition::PresentEarlier,
        (_, _, _, true) => ExpiryCondition::Earlier,
        (_, true, ..) => ExpiryCondition::Present,
        _ => ExpiryCondition::Always,
    })
}

fn set(
    context: &mut Context<'_>,
    arguments: &Arguments<'_>,
    in_seconds: bool,
    is_absolute: bool,
) -> Prepared {
    let condition = condition(&arguments.from(3))?;
    let number = integer(&arguments[2])?;
    let invalid = context.invalid_expire();
    let unit = if in_seconds { 1000 } else { 1 };
    let time = number.checked_mul(unit).ok_or_else(|| invalid.clone())?;
    let expiry = match u64::try_from(time) {
        // In the past, however far: the key goes.
        Err(_) => Expiry::At(1),
        Ok(0) if is_absolute => Expiry::At(1),
        Ok(time) if time > EXPIRY_MAX - (1 << 48) => return Err(invalid),
        Ok(time) if is_absolute => Expiry::At(time),
        Ok(time) => Expiry::In(time),
    };
    let item = Item::Expire {
        key: &arguments[1],
        expiry,
        condition,
        size_max: None,
    };
    context.item(&item, Finish::Bit)
}

pub(super) fn expire(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    set(context, arguments, true, false)
}

pub(super) fn pexpire(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    set(context, arguments, false, false)
}

pub(super) fn expireat(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    set(context, arguments, true, true)
}

pub(super) fn pexpireat(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    set(context, arguments, false, true)
}

pub(super) fn persist(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let item = Item::Expire {
        key: &arguments[1],
        expiry: Expiry::Never,
        condition: ExpiryCondition::Present,
        size_max: None,
    };
    context.item(&item, Finish::Bit)
}

fn tell(
    context: &mut Context<'_>,
    arguments: &Arguments<'_>,
    absolute: bool,
    milliseconds: bool,
) -> Prepared {
    let finish = Finish::Expiry {
        absolute,
        milliseconds,
    };
    context.item(&Item::Stat { key: &arguments[1] }, finish)
}

pub(super) fn ttl(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    tell(context, arguments, false, false)
}

pub(super) fn pttl(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    tell(context, arguments, false, true)
}

pub(super) fn expiretime(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    tell(context, arguments, true, false)
}

pub(super) fn pexpiretime(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    tell(context, arguments, true, true)
}
