//! Hashes and sets through the gateway: what the comparison with Redis does not reach, because it is large, or drawn at random,
//! or done by several connections at once.

mod resp;

use resp::{Stand, ask, call};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use viewstone::resp::{Connection, Value};

/// More than one reply of the cluster, whose messages have 128 KiB here, can hold.
const FIELDS: usize = 3000;

fn check(connection: &mut Connection, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        assert_eq!(ask(connection, line), *expected, "{line}");
    }
}

fn strings(value: Value) -> Vec<Vec<u8>> {
    let (Value::Array(all) | Value::Set(all) | Value::Map(all)) = value else {
        panic!("{value:?} is no array")
    };
    let string = |value: Value| match value {
        Value::Bulk(string) => string,
        other => panic!("{other:?} is no string"),
    };
    all.into_iter().map(string).collect()
}

fn pairs(value: Value) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let strings = strings(value);
    let pairs = strings.chunks_exact(2);
    pairs
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

fn field(number: usize) -> Vec<u8> {
    format!("field:{number:05}").into_bytes()
}

fn content(number: usize) -> Vec<u8> {
    format!("{number:0100}").into_bytes()
}

/// Commands at once, their replies in order.
fn pipeline(connection: &mut Connection, lines: &[Vec<Vec<u8>>]) -> Vec<Value> {
    for line in lines {
        connection.send(line).expect("it takes them");
    }
    let receive = |_: &_| connection.receive().expect("it answers");
    lines.iter().map(receive).collect()
}

/// Commands that add so many at a time.
fn chunks(name: &str, key: &str, count: usize, of: fn(usize) -> Vec<Vec<u8>>) -> Vec<Vec<Vec<u8>>> {
    let numbers: Vec<usize> = (0..count).collect();
    let line = |chunk: &[usize]| {
        let begin = [name.as_bytes().to_vec(), key.as_bytes().to_vec()];
        begin
            .into_iter()
            .chain(chunk.iter().flat_map(|&number| of(number)))
            .collect()
    };
    numbers.chunks(50).map(line).collect()
}

fn fill(connection: &mut Connection) {
    let pair = |number| vec![field(number), content(number)];
    for reply in pipeline(connection, &chunks("HSET", "h", FIELDS, pair)) {
        assert_eq!(reply, Value::Integer(50));
    }
    // Members of 100 bytes.
    for (key, of) in [
        ("s", (|number| vec![content(number)]) as fn(usize) -> _),
        ("t", |number| vec![content(2 * number)]),
    ] {
        for reply in pipeline(connection, &chunks("SADD", key, FIELDS, of)) {
            assert_eq!(reply, Value::Integer(50));
        }
    }
}

#[test]
fn large_collections_are_read_in_parts() {
    let stand = Stand::new("resp-large");
    let mut db = stand.connect();
    fill(&mut db);
    assert_eq!(ask(&mut db, "HLEN h"), format!(":{FIELDS}"));
    let all = pairs(call(&mut db, "HGETALL h"));
    let expected: BTreeMap<_, _> = (0..FIELDS).map(|it| (field(it), content(it))).collect();
    assert_eq!(all, expected);
    let fields: Vec<_> = (0..FIELDS).map(field).collect();
    assert_eq!(strings(call(&mut db, "HKEYS h")), fields);
    let contents: Vec<_> = (0..FIELDS).map(content).collect();
    assert_eq!(strings(call(&mut db, "HVALS h")), contents);
    assert_eq!(strings(call(&mut db, "SMEMBERS s")), contents);
    // A union, a difference and an intersection of large sets.
    let union: BTreeSet<_> = (0..FIELDS).chain((0..FIELDS).map(|it| 2 * it)).collect();
    let union: Vec<_> = union.into_iter().map(content).collect();
    assert_eq!(strings(call(&mut db, "SUNION s t none")), union);
    let odd: Vec<_> = (0..FIELDS).filter(|it| it % 2 == 1).map(content).collect();
    assert_eq!(strings(call(&mut db, "SDIFF s t")), odd);
    let even: Vec<_> = (0..FIELDS).step_by(2).map(content).collect();
    assert_eq!(strings(call(&mut db, "SINTER s t s")), even);
    check(
        &mut db,
        &[
            ("SINTERCARD 2 s t", ":1500"),
            ("SINTERCARD 2 s t LIMIT 700", ":700"),
            ("SINTERCARD 3 s t none", ":0"),
        ],
    );
    // Version 3 has maps and sets.
    ask(&mut db, "HELLO 3");
    assert!(matches!(call(&mut db, "HGETALL h"), Value::Map(all) if all.len() == 2 * FIELDS));
    assert!(matches!(call(&mut db, "SMEMBERS s"), Value::Set(all) if all.len() == FIELDS));
    assert!(matches!(call(&mut db, "HKEYS h"), Value::Array(all) if all.len() == FIELDS));
}

#[test]
fn large_values_of_fields_are_read_in_parts() {
    let stand = Stand::new("resp-large-values");
    let mut db = stand.connect();
    let value = |number: usize| vec![b'a' + number as u8; 60_000];
    for number in 0..8 {
        let line = [
            b"HSET".to_vec(),
            b"h".to_vec(),
            field(number),
            value(number),
        ];
        assert_eq!(db.call(&line).expect("a reply"), Value::Integer(1));
    }
    let mut line = vec![b"HMGET".to_vec(), b"h".to_vec()];
    line.extend((0..10).map(field));
    let Value::Array(found) = db.call(&line).expect("a reply") else {
        panic!("no array")
    };
    for (number, found) in found.iter().enumerate() {
        let expected = if number < 8 {
            Value::Bulk(value(number))
        } else {
            Value::Null
        };
        assert_eq!(*found, expected, "{number}");
    }
    assert_eq!(found.len(), 10);
    // And with one that holds something else.
    ask(&mut db, "SET string x");
    line[1] = b"string".to_vec();
    let wrong = db.call(&line).expect("a reply");
    assert!(wrong.error().is_some_and(|it| it.starts_with(b"WRONGTYPE")));
    check(&mut db, &[("HSTRLEN h field:00003", ":60000")]);
    // MGET in parts, with a key that holds no string.
    for number in 0..8 {
        let line = [b"SET".to_vec(), field(number), value(number)];
        db.call(&line).expect("a reply");
    }
    let mut line = vec![b"MGET".to_vec(), b"h".to_vec()];
    line.extend((0..8).map(field));
    let Value::Array(found) = db.call(&line).expect("a reply") else {
        panic!("no array")
    };
    assert_eq!((found.len(), &found[0]), (9, &Value::Null));
    assert_eq!(found[8], Value::Bulk(value(7)));
}

#[test]
fn scans_of_members_return_each_once() {
    let stand = Stand::new("resp-member-scan");
    let mut db = stand.connect();
    fill(&mut db);
    for (name, key, width) in [("HSCAN", "h", 2), ("SSCAN", "s", 1)] {
        let (mut cursor, mut found, mut rounds) = (String::from("0"), Vec::new(), 0);
        loop {
            let reply = call(&mut db, &format!("{name} {key} {cursor} COUNT 100"));
            let Value::Array(mut parts) = reply else {
                panic!("{reply:?}")
            };
            found.extend(strings(parts.pop().expect("two parts")));
            let Some(Value::Bulk(next)) = parts.pop() else {
                panic!("no cursor")
            };
            rounds += 1;
            cursor = String::from_utf8(next).expect("digits");
            if cursor == "0" {
                break;
            }
        }
        assert_eq!((rounds, found.len()), (FIELDS / 100, width * FIELDS));
        let distinct: BTreeSet<_> = found.chunks_exact(width).collect();
        assert_eq!(distinct.len(), FIELDS);
    }
    let reply = ask(&mut db, "HSCAN h 0 MATCH field:0012? COUNT 10000");
    assert_eq!(reply.matches("field:").count(), 10);
    let reply = ask(&mut db, "HSCAN h 123456789 COUNT 10");
    assert!(reply.starts_with("-ERR the cursor is not known"), "{reply}");
}

#[test]
fn what_is_drawn_is_there_and_different() {
    let stand = Stand::new("resp-drawn");
    let mut db = stand.connect();
    fill(&mut db);
    let all: BTreeSet<_> = (0..FIELDS).map(content).collect();
    for count in [0, 1, 5, 300, 1500, FIELDS, 2 * FIELDS] {
        let drawn = strings(call(&mut db, &format!("SRANDMEMBER s {count}")));
        let different: BTreeSet<_> = drawn.iter().cloned().collect();
        assert_eq!(drawn.len(), count.min(FIELDS));
        assert_eq!(different.len(), drawn.len());
        assert!(different.is_subset(&all));
        let drawn = pairs(call(&mut db, &format!("HRANDFIELD h {count} WITHVALUES")));
        assert_eq!(drawn.len(), count.min(FIELDS));
        for (name, value) in drawn {
            assert_eq!(name[..], [b"field:", &value[95..]].concat());
        }
    }
    assert_eq!(strings(call(&mut db, "SRANDMEMBER s -1000")).len(), 1000);
    let drawn = strings(call(&mut db, "HRANDFIELD h -200 WITHVALUES"));
    assert_eq!(drawn.len(), 400);
    let error = ask(&mut db, "SRANDMEMBER s -70000");
    assert!(error.starts_with("-ERR more than 65536"), "{error}");
    // Taken out: some, then all that is left, and never the same twice.
    let mut taken = BTreeSet::new();
    for (count, expected) in [(1, 1), (128, 128), (10, 10), (5000, FIELDS - 139)] {
        let popped = strings(call(&mut db, &format!("SPOP s {count}")));
        assert_eq!(popped.len(), expected);
        taken.extend(popped);
        let left = FIELDS - taken.len();
        assert_eq!(ask(&mut db, "SCARD s"), format!(":{left}"));
    }
    assert_eq!(taken, all);
    check(
        &mut db,
        &[
            ("EXISTS s", ":0"),
            ("SPOP s 3", "[]"),
            (
                "SPOP t 129",
                "-ERR at most 128 members can be taken out at once, or all of them",
            ),
            ("SCARD t", ":3000"),
        ],
    );
}

#[test]
fn collections_in_transactions() {
    let stand = Stand::new("resp-collections-multi");
    let mut db = stand.connect();
    check(
        &mut db,
        &[
            ("MULTI", "+OK"),
            ("HSET h f 1 g 2", "+QUEUED"),
            ("HINCRBY h f 4", "+QUEUED"),
            ("HGETALL h", "+QUEUED"),
            ("SADD s a b c", "+QUEUED"),
            ("SREM s c d", "+QUEUED"),
            ("SPOP s 3", "+QUEUED"),
            ("SCARD s", "+QUEUED"),
            ("GET h", "+QUEUED"),
            ("SRANDMEMBER s 2", "+QUEUED"),
            ("HRANDFIELD h 2 WITHVALUES", "+QUEUED"),
            ("HMGET h f none", "+QUEUED"),
            ("SUNION s h", "+QUEUED"),
            ("TYPE h", "+QUEUED"),
        ],
    );
    let found = ask(&mut db, "EXEC");
    let expected = "[:2, :5, [\"f\", \"5\", \"g\", \"2\"], :3, :1, [\"";
    assert!(found.starts_with(expected), "{found}");
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    let expected = format!("\"], :0, {wrong}, [], [\"");
    assert!(found.contains(&expected), "{found}");
    let expected = format!("\"], [\"5\", null], {wrong}, +hash]");
    assert!(found.ends_with(&expected), "{found}");
    // A watched key that a member is added to has changed.
    let mut other = stand.connect();
    check(&mut db, &[("WATCH h", "+OK"), ("MULTI", "+OK")]);
    check(&mut other, &[("HSET h x 1", ":1")]);
    check(&mut db, &[("HLEN h", "+QUEUED"), ("EXEC", "null")]);
    // What reads before it writes is not for transactions.
    for line in [
        "SMOVE a b c",
        "HINCRBYFLOAT h f 1",
        "HSCAN h 0",
        "SSCAN s 0",
    ] {
        check(&mut db, &[("MULTI", "+OK")]);
        let name = line.split(' ').next().expect("a name");
        let expected = format!("-ERR {name} is not supported in a transaction");
        assert_eq!(ask(&mut db, line), expected);
        let end = ask(&mut db, "EXEC");
        assert!(end.starts_with("-EXECABORT"), "{end}");
    }
    // Nor are values that have no room in the reply to a write.
    let large = "x".repeat(5000);
    ask(&mut db, &format!("HSET large f {large}"));
    check(
        &mut db,
        &[
            ("MULTI", "+OK"),
            ("HGETALL large", "+QUEUED"),
            ("SADD s 1", "+QUEUED"),
        ],
    );
    let found = ask(&mut db, "EXEC");
    assert!(
        found.contains("no room in the reply") && found.ends_with(":1]"),
        "{found}"
    );
}

#[test]
fn members_have_limits() {
    let stand = Stand::new("resp-member-limits");
    let mut db = stand.connect();
    let (long, longest) = ("m".repeat(513), "m".repeat(512));
    for line in [
        "HSET h # v",
        "HGET h #",
        "SADD s #",
        "SISMEMBER s #",
        "SMOVE s t #",
    ] {
        let found = ask(&mut db, &line.replace('#', &long));
        let expected = "-ERR field or member is longer than 512 bytes";
        assert_eq!(found, expected, "{line}");
    }
    for line in [
        "HSET h # v",
        "SADD s #",
        "SMOVE s t #",
        "HDEL h #",
        "SISMEMBER t #",
    ] {
        assert_eq!(ask(&mut db, &line.replace('#', &longest)), ":1", "{line}");
    }
    let value = "v".repeat(300_000);
    let found = ask(&mut db, &format!("HSET h f 1 g {value}"));
    assert!(found.starts_with("-ERR string exceeds maximum"), "{found}");
    // Some hundreds of fields are one entry of the log; if it is too many, none is set.
    let line = |count: usize| {
        let pairs: Vec<String> = (0..count).map(|it| format!("f{it} v")).collect();
        format!("HSET h {}", pairs.join(" "))
    };
    assert_eq!(ask(&mut db, &line(150)), ":150");
    assert_eq!(ask(&mut db, "DEL h"), ":1");
    for (count, expected) in [
        (1000, "-ERR too many arguments for one entry of the log"),
        (20_000, "-ERR the command is larger than a request"),
    ] {
        let found = ask(&mut db, &line(count));
        assert!(found.starts_with(expected), "{count}: {found}");
        assert_eq!(ask(&mut db, "EXISTS h"), ":0");
    }
}

#[test]
fn many_connections_lose_nothing() {
    let stand = Stand::new("resp-collections-many");
    let (connections, rounds) = (4_usize, 30_usize);
    let mut first = stand.connect();
    fill(&mut first);
    thread::scope(|scope| {
        for number in 0..connections {
            let mut db = stand.connect();
            scope.spawn(move || {
                for round in 0..rounds {
                    let member = format!("{number}:{round}");
                    for (line, expected) in [
                        (format!("SADD from {member}"), ":1"),
                        (format!("SMOVE from to {member}"), ":1"),
                        (format!("SMOVE from to {member}"), ":0"),
                    ] {
                        assert_eq!(ask(&mut db, &line), expected, "{line}");
                    }
                    let found = ask(&mut db, "HINCRBYFLOAT sums n 0.5");
                    assert!(found.starts_with('"'), "{found}");
                    // The first and the last field of a large hash, always alike.
                    let words = ["HSET", "h", " ", &member, "~", &member];
                    assert!(matches!(db.call(&words), Ok(Value::Integer(_))));
                }
            });
        }
        for _ in 0..2 {
            let mut db = stand.connect();
            scope.spawn(move || {
                for _ in 0..10 {
                    match call(&mut db, "HGETALL h") {
                        Value::Error(text) => assert!(text.starts_with(b"TRYAGAIN")),
                        all => {
                            let all = pairs(all);
                            assert_eq!(all.get(&b" "[..]), all.get(&b"~"[..]));
                            assert!(all.len() >= FIELDS);
                        }
                    }
                }
            });
        }
    });
    let total = connections * rounds;
    check(
        &mut first,
        &[
            ("SCARD from", ":0"),
            ("SCARD to", &format!(":{total}")),
            ("HGET sums n", &format!("\"{}\"", total / 2)),
        ],
    );
}

/// What several connections want to take out or to move, one of them gets.
#[test]
fn nothing_is_taken_twice() {
    let stand = Stand::new("resp-taken");
    let mut first = stand.connect();
    let count = 600;
    for key in ["pool", "shared"] {
        let of = |number| vec![content(number)];
        pipeline(&mut first, &chunks("SADD", key, count, of));
    }
    let barrier = Barrier::new(4);
    let take = |mut db: Connection| {
        let (mut taken, mut moved) = (Vec::new(), 0);
        loop {
            match call(&mut db, "SPOP pool 7") {
                Value::Error(text) => assert!(text.starts_with(b"TRYAGAIN"), "{text:?}"),
                found => {
                    let found = strings(found);
                    if found.is_empty() {
                        break;
                    }
                    taken.extend(found);
                }
            }
        }
        for number in 0..60 {
            // All want the same.
            barrier.wait();
            let line: [&[u8]; 4] = [b"SMOVE", b"shared", b"other", &content(number)];
            match db.call(&line) {
                Ok(Value::Integer(found)) => moved += found,
                other => panic!("{other:?}"),
            }
        }
        (taken, moved)
    };
    let each: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (db, take) = (stand.connect(), &take);
                scope.spawn(move || take(db))
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("it ends");
        threads.into_iter().map(join).collect()
    });
    let taken: Vec<_> = each.iter().flat_map(|(taken, _)| taken).collect();
    let different: BTreeSet<_> = taken.iter().collect();
    assert_eq!((taken.len(), different.len()), (count, count));
    assert_eq!(each.iter().map(|(_, moved)| moved).sum::<i64>(), 60);
    let expected = [
        ("SCARD other", ":60"),
        ("SCARD shared", ":540"),
        ("EXISTS pool", ":0"),
    ];
    check(&mut first, &expected);
}

/// Large sets that are read in parts are put together as they were at one time: a member that moves is in one of them.
#[test]
fn several_sets_are_of_one_time() {
    let stand = Stand::new("resp-one-time");
    let mut db = stand.connect();
    fill(&mut db);
    assert_eq!(ask(&mut db, "SADD s traveller"), ":1");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut other = stand.connect();
        let done = &done;
        scope.spawn(move || {
            let mut sets = ["s", "t"];
            while !done.load(Ordering::Relaxed) {
                let line = format!("SMOVE {} {} traveller", sets[0], sets[1]);
                assert_eq!(ask(&mut other, &line), ":1");
                sets.reverse();
                thread::sleep(Duration::from_millis(4));
            }
        });
        let ask = |(round, line): (usize, &&str)| match call(&mut db, line) {
            Value::Error(text) => (round, Err(text)),
            all => {
                let all = strings(all);
                let travellers = all.iter().filter(|it| it[..] == b"traveller"[..]);
                (round, Ok(travellers.count()))
            }
        };
        let lines = ["SUNION s t", "SINTER s t"];
        let found: Vec<_> = lines
            .iter()
            .cycle()
            .take(100)
            .enumerate()
            .map(ask)
            .collect();
        // Before anything is found wrong: the other would not end.
        done.store(true, Ordering::Relaxed);
        assert!(found.iter().any(|(_, found)| found.is_ok()));
        for (round, found) in found {
            match found {
                Ok(count) => assert_eq!(count, 1 - round % 2, "{round}"),
                Err(text) => assert!(text.starts_with(b"TRYAGAIN"), "{text:?}"),
            }
        }
    });
}
