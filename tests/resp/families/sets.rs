//! Sets.

use super::{Family, counted, scanned, sorted};
use crate::{Line, Pair, Random};
use viewstone::resp::Value;

pub const FAMILY: Family = Family {
    templates: TEMPLATES,
    word,
    normal,
    is_different,
    settle,
    changes: &["SADD", "SREM", "SPOP", "SMOVE"],
};

const KEYS: &[&str] = &["s", "s", "t", "t", "u", "a", "c", "h"];
/// No more than a scan returns at once.
const MEMBERS: &[&str] = &["1", "2", "3", "-7", "m", "member", "x\r\ny", "", "007"];

const TEMPLATES: &[&str] = &[
    "SADD U E",
    "SADD U E E E",
    "SADD U E E E E",
    "SADD U E",
    "SREM U E",
    "SREM U E E E",
    "SISMEMBER U E",
    "SMISMEMBER U E E E",
    "SMEMBERS U",
    "SMEMBERS U",
    "SCARD U",
    "SPOP U",
    "SPOP U N",
    "SPOP U 2 2",
    "SRANDMEMBER U",
    "SRANDMEMBER U N",
    "SRANDMEMBER U 2 2",
    "SSCAN U 0",
    "SSCAN U 0 MATCH G COUNT 1000",
    "SSCAN U 0 COUNT N",
    "SSCAN U x",
    "SSCAN U 0 FOO 1",
    "SMOVE U U E",
    "SMOVE U U E",
    "SINTER U U",
    "SINTER U",
    "SUNION U U U",
    "SDIFF U U",
    "SDIFF U U U",
    "SINTERCARD 2 U U",
    "SINTERCARD 2 U U LIMIT N",
    "SINTERCARD N U U",
    "SINTERCARD 1 U LIMIT",
    "SINTERCARD 2 U U FOO 1",
    "RENAME U U",
    "DEL U",
    "TYPE U",
    "PERSIST U",
    "EXPIRE U S",
    "SCAN 0 TYPE set COUNT 1000",
    "WATCH U",
];

fn word(random: &mut Random, letter: &str) -> Option<&'static str> {
    match letter {
        "U" => Some(random.one(KEYS)),
        "E" => Some(random.one(MEMBERS)),
        _ => None,
    }
}

fn normal(name: &[u8], _: &Line, value: &Value) -> Option<Value> {
    match (name, value) {
        (b"SMEMBERS" | b"SINTER" | b"SUNION" | b"SDIFF", Value::Array(all)) => {
            Some(Value::Array(sorted(all)))
        }
        (b"SMEMBERS" | b"SINTER" | b"SUNION" | b"SDIFF", Value::Set(all)) => {
            Some(Value::Set(sorted(all)))
        }
        (b"SSCAN", value) => scanned(value).map(|all| Value::Array(sorted(all))),
        (b"SPOP" | b"SRANDMEMBER", value) => counted(value),
        _ => None,
    }
}

fn is_different(name: &[u8], line: &Line, in_transaction: bool) -> bool {
    let argument = |index: usize| line.get(index).map_or(&b""[..], |argument| argument);
    match name {
        // What comes behind it there would see what it has left.
        b"SPOP" | b"SMOVE" => in_transaction,
        // Redis returns all of a small set, however few are wanted.
        b"SSCAN" => in_transaction || matches!(argument(4), b"1" | b"2" | b"5"),
        // What it picks must have room in the reply.
        b"SRANDMEMBER" if in_transaction => line.len() == 2 || argument(2).starts_with(b"-"),
        // There is a bound to how many.
        b"SRANDMEMBER" => argument(2).starts_with(b"-922337203685477580"),
        _ => false,
    }
}

/// What was drawn is in the set, and where it must be, different. What was taken out is taken out of both.
fn settle(pair: &mut Pair, name: &[u8], line: &Line, [theirs, ours]: [&Value; 2]) {
    if !matches!(name, b"SPOP" | b"SRANDMEMBER") {
        return;
    }
    let strings = |value: &Value| -> Vec<Vec<u8>> {
        match value {
            Value::Array(all) | Value::Set(all) => all.iter().filter_map(string).collect(),
            value => string(value).into_iter().collect(),
        }
    };
    let (theirs, ours) = (strings(theirs), strings(ours));
    if ours.is_empty() {
        return;
    }
    let mut different = ours.clone();
    different.sort();
    different.dedup();
    if !line.get(2).is_some_and(|count| count.starts_with(b"-")) {
        assert_eq!(different.len(), ours.len());
    }
    let with = |name: &[u8], members: &[Vec<u8>]| -> Line {
        let all = [name.to_vec(), line[1].clone()].into_iter();
        all.chain(members.iter().cloned()).collect()
    };
    if name == b"SRANDMEMBER" {
        let found = pair.theirs.call(&with(b"SMISMEMBER", &different));
        let all = vec![Value::Integer(1); different.len()];
        assert_eq!(found.expect("Redis answers"), Value::Array(all));
        return;
    }
    let left = pair.theirs.call(&[b"EXISTS", &line[1][..]]);
    if left.expect("Redis answers") == Value::Integer(0) {
        // All were taken out.
        let mut theirs = theirs;
        theirs.sort();
        assert_eq!(theirs, different);
        return;
    }
    pair.theirs
        .call(&with(b"SADD", &theirs))
        .expect("Redis answers");
    let removed = pair.theirs.call(&with(b"SREM", &ours));
    let count = i64::try_from(ours.len()).expect("not many");
    assert_eq!(removed.expect("Redis answers"), Value::Integer(count));
}

fn string(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Bulk(string) => Some(string.clone()),
        _ => None,
    }
}
