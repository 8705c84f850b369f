//! Keys: DEL, EXISTS, RENAME, SCAN and what is like them.

use super::{Context, Failure, Prepared, SYNTAX, Then, check_key, integer};
use crate::resp::finish::Finish;
use crate::resp::request::Arguments;
use crate::resp::steps::{Keys, Scan, Steps};
use crate::state_machine::kv::wire::Item;

/// Entries of an answer to SCAN that does not say how many.
pub(super) const SCAN_COUNT: i64 = 10;

/// Most entries of an answer to SCAN: the client will come again.
pub(super) const SCAN_COUNT_MAX: u32 = 10_000;

pub(super) fn del(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let keys = arguments.from(1);
    for key in keys.iter() {
        context.push(&Item::Delete { key })?;
    }
    Ok(Then::Items(Finish::Found(keys.len())))
}

pub(super) fn exists(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let keys = arguments.from(1);
    for key in keys.iter() {
        context.push(&Item::Stat { key })?;
    }
    Ok(Then::Items(Finish::Found(keys.len())))
}

pub(super) fn kind(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    context.item(&Item::Stat { key: &arguments[1] }, Finish::Type)
}

fn move_to(context: &mut Context<'_>, arguments: &Arguments<'_>, if_absent: bool) -> Prepared {
    let to = &arguments[2];
    check_key(to)?;
    let key = &arguments[1];
    let item = if key == to {
        Item::Stat { key } // nothing changes, not even for who watches it
    } else {
        Item::Rename { key, to, if_absent }
    };
    let finish = if if_absent {
        Finish::RenamedIfAbsent
    } else {
        Finish::Renamed
    };
    context.item(&item, finish)
}

pub(super) fn rename(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    move_to(context, arguments, false)
}

pub(super) fn renamenx(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    move_to(context, arguments, true)
}

pub(super) fn dbsize(context: &mut Context<'_>, _: &Arguments<'_>) -> Prepared {
    context.item(&Item::Count, Finish::Number)
}

pub(super) fn flush(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let how = arguments.get(1).unwrap_or(b"SYNC");
    let is_known = how.eq_ignore_ascii_case(b"SYNC") || how.eq_ignore_ascii_case(b"ASYNC");
    if arguments.len() > 2 || !is_known {
        return Err(SYNTAX);
    }
    context.item(&Item::Clear, Finish::Ok)
}

pub(super) fn randomkey(context: &mut Context<'_>, _: &Arguments<'_>) -> Prepared {
    let random = context.shared.random();
    Ok(Then::Steps(Box::new(Steps::Random(random))))
}

pub(super) fn keys(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let keys = Keys::new(&arguments[1], context.shared.output_size_max);
    Ok(Then::Steps(Box::new(Steps::Keys(keys))))
}

/// A cursor, as the C library reads it: blanks before it are refused, a sign is not.
pub(super) fn cursor(text: &[u8]) -> Result<u64, Failure> {
    const INVALID: Failure = Failure::new("ERR invalid cursor");
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    // Nothing at all is zero.
    if digits.is_empty() {
        return if text.is_empty() { Ok(0) } else { Err(INVALID) };
    }
    let mut cursor: u64 = 0;
    for &digit in digits {
        let digit = char::from(digit).to_digit(10).ok_or(INVALID)?;
        let next = cursor.checked_mul(10);
        let next = next.and_then(|next| next.checked_add(u64::from(digit)));
        cursor = next.ok_or(INVALID)?;
    }
    Ok(if negative {
        cursor.wrapping_neg()
    } else {
        cursor
    })
}

/// What a cursor stands for: the key or member behind which it goes on; none: from the beginning.
///
/// # Errors
/// It is not remembered.
pub(super) fn place<'a>(
    context: &'a Context<'_>,
    cursor: u64,
) -> Result<Option<&'a [u8]>, Failure> {
    const FORGOTTEN: Failure = Failure::new(
        "ERR the cursor is not known here: it is too old, or of another gateway; begin again with 0",
    );
    match cursor {
        0 => Ok(None),
        cursor => {
            let found = context.shared.cursors.key(cursor);
            found.map(Some).ok_or(FORGOTTEN)
        }
    }
}

pub(super) fn scan(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let cursor = cursor(&arguments[1])?;
    let (mut pattern, mut count, mut kind): (Option<&[u8]>, i64, Option<&[u8]>) =
        (None, SCAN_COUNT, None);
    let mut at = 2;
    while let Some(option) = arguments.get(at) {
        let value = arguments.get(at + 1).ok_or(SYNTAX)?;
        match option.to_ascii_uppercase().as_slice() {
            b"COUNT" => {
                count = integer(value)?;
                if count < 1 {
                    return Err(SYNTAX);
                }
            }
            b"MATCH" => pattern = Some(value),
            b"TYPE" => kind = Some(value),
            _ => return Err(SYNTAX),
        }
        at += 2;
    }
    let from = place(context, cursor)?;
    let count = u32::try_from(count).map_or(SCAN_COUNT_MAX, |count| count.min(SCAN_COUNT_MAX));
    let scan = Scan::new(from, pattern.unwrap_or(b"*"), count, kind);
    Ok(Then::Steps(Box::new(Steps::Scan(scan))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_in_c() {
        assert_eq!(cursor(b"0"), Ok(0));
        assert_eq!(cursor(b""), Ok(0));
        assert_eq!(cursor(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(cursor(b"-1"), Ok(u64::MAX));
        assert_eq!(cursor(b"+7"), Ok(7));
        for bad in ["18446744073709551616", "x", " 1", "1 ", "1x", "-"] {
            assert!(cursor(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
