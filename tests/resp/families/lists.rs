//! Lists.

use super::Family;
use crate::{Line, Random};
use viewstone::resp::Value;

pub const FAMILY: Family = Family {
    templates: TEMPLATES,
    word,
    normal: |_, _, _: &Value| None,
    is_different,
    settle: |_, _, _, _| {},
    changes: CHANGES,
};

const CHANGES: &[&str] = &[
    "LPUSH",
    "RPUSH",
    "LPUSHX",
    "RPUSHX",
    "LPOP",
    "RPOP",
    "LSET",
    "LTRIM",
    "LMOVE",
    "RPOPLPUSH",
];

const KEYS: &[&str] = &["l", "l", "l", "q", "q", "a", "c", "h", "s"];

const TEMPLATES: &[&str] = &[
    "LPUSH Y V",
    "RPUSH Y V",
    "LPUSH Y V V V",
    "RPUSH Y V V V V",
    "RPUSH Y 1 2 3 4 5 6 7 8 9",
    "LPUSHX Y V V",
    "RPUSHX Y V",
    "LPOP Y",
    "RPOP Y",
    "LPOP Y N",
    "RPOP Y N",
    "RPOP Y 2",
    "LPOP Y 2 2",
    "LLEN Y",
    "LINDEX Y I",
    "LINDEX Y N",
    "LSET Y I V",
    "LSET Y N V",
    "LRANGE Y 0 -1",
    "LRANGE Y 0 -1",
    "LRANGE Y I I",
    "LRANGE Y N N",
    "LTRIM Y I I",
    "LTRIM Y 0 -2",
    "LTRIM Y N N",
    "LMOVE Y Y D D",
    "LMOVE Y Y D D",
    "LMOVE Y Y D V",
    "RPOPLPUSH Y Y",
    "RPOPLPUSH Y Y",
    "RENAME Y Y",
    "DEL Y",
    "TYPE Y",
    "GET Y",
    "EXPIRE Y S",
    "TTL Y",
    "PERSIST Y",
    "SCAN 0 TYPE list COUNT 1000",
    "WATCH Y",
];

fn word(random: &mut Random, letter: &str) -> Option<&'static str> {
    match letter {
        "Y" => Some(random.one(KEYS)),
        "D" => Some(random.one(&["LEFT", "RIGHT", "left", "Right"])),
        _ => None,
    }
}

/// So many are taken by reading them first.
fn is_different(name: &[u8], line: &Line, in_transaction: bool) -> bool {
    let count = line.get(2).and_then(|it| std::str::from_utf8(it).ok());
    let is_large = count
        .and_then(|it| it.parse().ok())
        .is_some_and(|count: i64| count > 256);
    matches!(name, b"LPOP" | b"RPOP") && in_transaction && is_large
}
