//! Hashes.

use super::{Family, counted, scanned, sorted, sorted_pairs};
use crate::{Line, Pair, Random};
use viewstone::resp::Value;

pub const FAMILY: Family = Family {
    templates: TEMPLATES,
    word,
    normal,
    is_different,
    settle,
    changes: &["HSET", "HMSET", "HSETNX", "HDEL", "HINCRBY"],
};

const KEYS: &[&str] = &["h", "h", "h2", "h2", "a", "b", "s", "key:1"];
/// No more than a scan returns at once.
const FIELDS: &[&str] = &["f", "g", "field", "1", "n", "n", "x\r\ny", "", "\u{1f600}"];

const TEMPLATES: &[&str] = &[
    "HSET H D V",
    "HSET H D V D V D V",
    "HSET H D N D F",
    "HSET H D V D",
    "HMSET H D V D V",
    "HMSET H D V D",
    "HSETNX H D V",
    "HGET H D",
    "HGET H D",
    "HMGET H D D D",
    "HGETALL H",
    "HGETALL H",
    "HKEYS H",
    "HVALS H",
    "HLEN H",
    "HEXISTS H D",
    "HDEL H D",
    "HDEL H D D D",
    "HSTRLEN H D",
    "HINCRBY H D N",
    "HINCRBY H n N",
    "HINCRBYFLOAT H D F",
    "HINCRBYFLOAT H n F",
    "HINCRBYFLOAT H n inf",
    "HSCAN H 0",
    "HSCAN H 0 MATCH G COUNT 1000",
    "HSCAN H 0 COUNT N",
    "HSCAN H x",
    "HSCAN H 0 FOO 1",
    "HRANDFIELD H",
    "HRANDFIELD H N",
    "HRANDFIELD H N WITHVALUES",
    "HRANDFIELD H N FOO",
    "RENAME H H",
    "DEL H",
    "TYPE H",
    "EXPIRE H S",
    "TTL H",
    "COMMAND GETKEYS HSET H D V",
    "WATCH H",
];

fn word(random: &mut Random, letter: &str) -> Option<&'static str> {
    match letter {
        "H" => Some(random.one(KEYS)),
        "D" => Some(random.one(FIELDS)),
        _ => None,
    }
}

fn normal(name: &[u8], _: &Line, value: &Value) -> Option<Value> {
    match (name, value) {
        (b"HGETALL", Value::Array(all)) => Some(Value::Array(sorted_pairs(all))),
        (b"HGETALL", Value::Map(all)) => Some(Value::Map(sorted_pairs(all))),
        (b"HKEYS" | b"HVALS", Value::Array(all)) => Some(Value::Array(sorted(all))),
        (b"HSCAN", value) => scanned(value).map(|all| Value::Array(sorted_pairs(all))),
        (b"HRANDFIELD", value) => counted(value),
        _ => None,
    }
}

fn is_different(name: &[u8], line: &Line, in_transaction: bool) -> bool {
    let argument = |index: usize| line.get(index).map_or(&b""[..], |argument| argument);
    match name {
        b"HINCRBYFLOAT" => in_transaction,
        // Redis returns all of a small hash, however few are wanted.
        b"HSCAN" => in_transaction || matches!(argument(4), b"1" | b"2" | b"5"),
        // What it picks must have room in the reply.
        b"HRANDFIELD" if in_transaction => line.len() == 2 || argument(2).starts_with(b"-"),
        // There is a bound to how many.
        b"HRANDFIELD" => argument(2).starts_with(b"-922337203685477580"),
        _ => false,
    }
}

/// What was drawn is in the hash, and where it must be, different.
fn settle(pair: &mut Pair, name: &[u8], line: &Line, [_, found]: [&Value; 2]) {
    let is_count = |text: &Vec<u8>| !text.starts_with(b"-");
    if name != b"HRANDFIELD" {
        return;
    }
    let (fields, pairs): (Vec<Value>, Vec<Value>) = match found {
        Value::Bulk(_) => (vec![found.clone()], Vec::new()),
        Value::Array(all) if matches!(all.first(), Some(Value::Array(_))) => {
            (Vec::new(), all.clone())
        }
        Value::Array(all) if line.len() == 4 => {
            let pairs = all.chunks(2).map(|pair| Value::Array(pair.to_vec()));
            (Vec::new(), pairs.collect())
        }
        Value::Array(all) => (all.clone(), Vec::new()),
        _ => return,
    };
    let distinct = |all: &[Value]| {
        let mut all = sorted(all);
        all.dedup();
        all.len()
    };
    if line.get(2).is_some_and(is_count) {
        assert_eq!(distinct(&fields), fields.len());
        assert_eq!(distinct(&pairs), pairs.len());
    }
    for field in &fields {
        let Value::Bulk(field) = field else {
            panic!("{field:?} is no field")
        };
        let there = pair.theirs.call(&[b"HEXISTS", &line[1][..], field]);
        assert_eq!(there.expect("Redis answers"), Value::Integer(1));
    }
    for each in &pairs {
        let Value::Array(each) = each else {
            panic!("{each:?} is no pair")
        };
        let [Value::Bulk(field), value] = each.as_slice() else {
            panic!("{each:?} is no pair")
        };
        let there = pair.theirs.call(&[b"HGET", &line[1][..], field]);
        assert_eq!(&there.expect("Redis answers"), value);
    }
}
