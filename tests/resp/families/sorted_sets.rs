//! Sorted sets.

use super::{Family, counted, scanned, sorted};
use crate::{Line, Pair, Random};
use viewstone::resp::Value;

pub const FAMILY: Family = Family {
    templates: TEMPLATES,
    word,
    normal,
    is_different,
    settle,
    changes: &[
        "ZADD",
        "ZINCRBY",
        "ZREM",
        "ZPOPMIN",
        "ZPOPMAX",
        "ZREMRANGEBYRANK",
        "ZREMRANGEBYSCORE",
    ],
};

const KEYS: &[&str] = &["z", "z", "z", "z2", "z2", "z2", "a", "h", "s"];
/// No more than a scan returns at once.
const MEMBERS: &[&str] = &["a", "b", "c", "m", "member", "x\r\ny", "", "1", "\u{1f600}"];
/// Not "-0", which here is 0.
const SCORES: &[&str] = &[
    "1",
    "1",
    "2",
    "2",
    "3",
    "-1",
    "0",
    "0.5",
    "3.1",
    "-2.25",
    "1e3",
    "1e17",
    "1e-7",
    "1e300",
    "-1e300",
    "123456.789",
    "0x10",
    "+5",
    ".5",
    "5e-324",
    "inf",
    "-inf",
    "+Infinity",
    "x",
    "",
    "nan",
    " 1",
    "1e400",
    "1e-400",
    "1 ",
];
const BOUNDS: &[&str] = &[
    "-inf", "-inf", "+inf", "inf", "0", "1", "2", "5", "(1", "(2", "(0.5", "100", "(inf", "(-inf",
    "", "(", " 1", "1 ", "x", "(x", "nan", "1e400", "[1",
];

const TEMPLATES: &[&str] = &[
    "ZADD ZK ZS ZM",
    "ZADD ZK ZS ZM",
    "ZADD ZK 1 ZM 2 ZM 3 ZM",
    "ZADD ZK 1 ZM 1 ZM 1.5 ZM inf ZM",
    "ZADD ZK ZS ZM ZS ZM",
    "ZADD ZK ZO ZS ZM",
    "ZADD ZK ZO ZO ZS ZM",
    "ZADD ZK ZO ZO 1 ZM 2 ZM",
    "ZADD ZK CH ZO 2 ZM 5 ZM",
    "ZADD ZK ZO",
    "ZADD ZK 1",
    "ZADD ZK 1 ZM 2",
    "ZINCRBY ZK ZS ZM",
    "ZINCRBY ZK 1 ZM",
    "ZREM ZK ZM",
    "ZREM ZK ZM ZM ZM",
    "ZSCORE ZK ZM",
    "ZSCORE ZK ZM",
    "ZMSCORE ZK ZM ZM ZM",
    "ZCARD ZK",
    "ZCOUNT ZK ZB ZB",
    "ZCOUNT ZK -inf ZB",
    "ZRANK ZK ZM",
    "ZREVRANK ZK ZM",
    "ZRANK ZK ZM WITHSCORE",
    "ZRANGE ZK 0 -1 WITHSCORES",
    "ZRANGE ZK 0 -1 WITHSCORES",
    "ZRANGE ZK I I",
    "ZRANGE ZK I I REV WITHSCORES",
    "ZRANGE ZK I I LIMIT 0 I",
    "ZRANGE ZK ZB ZB BYSCORE",
    "ZRANGE ZK -inf ZB BYSCORE WITHSCORES LIMIT I I",
    "ZRANGE ZK ZB ZB REV BYSCORE LIMIT 1 2",
    "ZRANGE ZK I I ZF ZF",
    "ZRANGE ZK - + BYLEX WITHSCORES",
    "ZREVRANGE ZK I I",
    "ZREVRANGE ZK I I WITHSCORES",
    "ZREVRANGE ZK I I REV",
    "ZRANGEBYSCORE ZK ZB ZB",
    "ZRANGEBYSCORE ZK ZB ZB WITHSCORES",
    "ZRANGEBYSCORE ZK -inf +inf LIMIT I N",
    "ZRANGEBYSCORE ZK ZB ZB ZF ZF",
    "ZREVRANGEBYSCORE ZK ZB ZB",
    "ZREVRANGEBYSCORE ZK +inf ZB WITHSCORES LIMIT I I",
    "ZPOPMIN ZK",
    "ZPOPMAX ZK",
    "ZPOPMIN ZK N",
    "ZPOPMAX ZK N",
    "ZPOPMIN ZK 1 2",
    "ZREMRANGEBYRANK ZK I I",
    "ZREMRANGEBYSCORE ZK ZB ZB",
    "ZREMRANGEBYSCORE ZK 1 ZB",
    "ZSCAN ZK 0",
    "ZSCAN ZK 0 MATCH G COUNT 1000",
    "ZSCAN ZK 0 COUNT N",
    "ZSCAN ZK x",
    "ZRANDMEMBER ZK",
    "ZRANDMEMBER ZK N",
    "ZRANDMEMBER ZK N WITHSCORES",
    "ZRANDMEMBER ZK N FOO",
    "RENAME ZK ZK",
    "DEL ZK",
    "TYPE ZK",
    "EXPIRE ZK S",
    "TTL ZK",
    "SCAN 0 TYPE zset COUNT 1000",
    "WATCH ZK",
];

fn word(random: &mut Random, letter: &str) -> Option<&'static str> {
    match letter {
        "ZK" => Some(random.one(KEYS)),
        "ZM" => Some(random.one(MEMBERS)),
        "ZS" => Some(random.one(SCORES)),
        "ZB" => Some(random.one(BOUNDS)),
        "ZO" => Some(random.one(&["NX", "XX", "GT", "LT", "CH", "INCR", "ch", "foo"])),
        "ZF" => Some(random.one(&["WITHSCORES", "REV", "BYSCORE", "LIMIT", "rev", "foo"])),
        _ => None,
    }
}

/// Redis writes the whole numbers of a small set with all their digits in the reply to a scan.
fn scored(values: &[Value]) -> Vec<Value> {
    let pairs = values.chunks(2).map(|pair| {
        let [member, Value::Bulk(score)] = pair else {
            panic!("{pair:?} is no member with a score")
        };
        let score: f64 = String::from_utf8_lossy(score).parse().expect("a score");
        let score = Value::Number(score.to_string().into_bytes());
        Value::Array(vec![member.clone(), score])
    });
    sorted(&pairs.collect::<Vec<_>>())
}

fn normal(name: &[u8], _: &Line, value: &Value) -> Option<Value> {
    match (name, value) {
        (b"ZSCAN", value) => scanned(value).map(|all| Value::Array(scored(all))),
        (b"ZRANDMEMBER", value) => counted(value),
        _ => None,
    }
}

fn is_different(name: &[u8], line: &Line, in_transaction: bool) -> bool {
    let argument = |index: usize| line.get(index).map_or(&b""[..], |argument| argument);
    match name {
        // What they return must have room in the reply.
        b"ZPOPMIN" | b"ZPOPMAX" => in_transaction,
        b"ZREMRANGEBYRANK" | b"ZREMRANGEBYSCORE" => in_transaction,
        // Only its errors.
        b"ZRANGE" => argument(4) == b"BYLEX" && line.len() == 5,
        // Redis returns all of a small set, however few are wanted.
        b"ZSCAN" => in_transaction || matches!(argument(4), b"1" | b"2" | b"5"),
        b"ZRANDMEMBER" if in_transaction => line.len() == 2 || argument(2).starts_with(b"-"),
        // There is a bound to how many.
        b"ZRANDMEMBER" => argument(2).starts_with(b"-922337203685477580"),
        _ => false,
    }
}

/// What was drawn is in the set, with its score, and where it must be, different.
fn settle(pair: &mut Pair, name: &[u8], line: &Line, [_, found]: [&Value; 2]) {
    if name != b"ZRANDMEMBER" {
        return;
    }
    let flat: Vec<Value> = match found {
        Value::Bulk(_) => vec![found.clone()],
        Value::Array(all) => all
            .iter()
            .flat_map(|each| match each {
                Value::Array(pair) => pair.clone(),
                each => vec![each.clone()],
            })
            .collect(),
        _ => return,
    };
    let width = if line.len() == 4 { 2 } else { 1 };
    let mut members = Vec::new();
    for drawn in flat.chunks(width) {
        let Value::Bulk(member) = &drawn[0] else {
            panic!("{drawn:?} is no member")
        };
        let score = pair.theirs.call(&[b"ZSCORE", &line[1][..], member]);
        let score = score.expect("Redis answers");
        assert_ne!(score, Value::Null);
        assert!(width == 1 || drawn[1] == score, "{drawn:?} {score:?}");
        members.push(member.clone());
    }
    if line.get(2).is_some_and(|count| !count.starts_with(b"-")) {
        let count = members.len();
        members.sort();
        members.dedup();
        assert_eq!(members.len(), count);
    }
}
