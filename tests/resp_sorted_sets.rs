//! Sorted sets through the gateway: what the comparison with Redis does not reach, because it is large, or in a transaction, or
//! done by several connections at once.

mod resp;

use resp::{Stand, ask, call};
use std::collections::BTreeSet;
use std::thread;
use viewstone::resp::{Connection, Value};

/// More than one reply of the cluster, whose messages have 128 KiB here, can hold.
const MEMBERS: usize = 3000;

/// A member, and its score: twelve members have the same.
fn member(number: usize) -> (Vec<u8>, usize) {
    (format!("{number:0100}").into_bytes(), number / 12)
}

fn check(connection: &mut Connection, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        assert_eq!(ask(connection, line), *expected, "{line}");
    }
}

fn strings(value: Value) -> Vec<Vec<u8>> {
    let Value::Array(all) = value else {
        panic!("{value:?} is no array")
    };
    let string = |value: Value| match value {
        Value::Bulk(string) => string,
        other => panic!("{other:?} is no string"),
    };
    all.into_iter().map(string).collect()
}

fn fill(db: &mut Connection, key: &str, score: fn(usize) -> usize) {
    for begin in (0..MEMBERS).step_by(100) {
        let mut line = vec![b"ZADD".to_vec(), key.into()];
        for number in begin..begin + 100 {
            line.push(score(number).to_string().into_bytes());
            line.push(member(number).0);
        }
        assert_eq!(db.call(&line).expect("a reply"), Value::Integer(100));
    }
}

fn by_twelve(number: usize) -> usize {
    member(number).1
}

#[test]
fn large_ranges_are_read_in_parts() {
    let stand = Stand::new("resp-sorted-large");
    let mut db = stand.connect();
    fill(&mut db, "z", by_twelve);
    fill(&mut db, "same", |_| 7);
    let members = |range: &mut dyn Iterator<Item = usize>| -> Vec<Vec<u8>> {
        range.map(|number| member(number).0).collect()
    };
    for key in ["z", "same"] {
        let mut check = |line: &str, range: &mut dyn Iterator<Item = usize>| {
            let found = strings(call(&mut db, &line.replace('#', key)));
            assert!(found == members(range), "{line} of {key}");
        };
        check("ZRANGE # 0 -1", &mut (0..MEMBERS));
        check("ZREVRANGE # 0 -1", &mut (0..MEMBERS).rev());
        check("ZRANGE # -2990 -5", &mut (10..MEMBERS - 4));
        check("ZRANGE # -5000 2500", &mut (0..2501));
        check("ZRANGE # 100 2700 REV", &mut (299..MEMBERS - 100).rev());
        check("ZRANGEBYSCORE # -inf inf", &mut (0..MEMBERS));
        let reverse = &mut (0..MEMBERS).rev();
        check("ZREVRANGEBYSCORE # inf -inf", reverse);
        let line = "ZRANGEBYSCORE # -inf inf LIMIT 20 2100";
        check(line, &mut (20..2120));
        let line = "ZRANGE # inf -inf REV BYSCORE LIMIT 20 2100";
        check(line, &mut (MEMBERS - 2120..MEMBERS - 20).rev());
    }
    let found = strings(call(&mut db, "ZRANGE z 0 -1 WITHSCORES"));
    let pair = |number| {
        let (member, score) = member(number);
        [member, score.to_string().into_bytes()]
    };
    let expected: Vec<_> = (0..MEMBERS).flat_map(pair).collect();
    assert!(found == expected);
    // From 10 on, 11 itself left out.
    let found = strings(call(&mut db, "ZRANGEBYSCORE z (10 (200"));
    assert!(found == members(&mut (11 * 12..200 * 12)));
    ask(&mut db, "HELLO 3");
    let Value::Array(found) = call(&mut db, "ZRANGE z 0 -1 WITHSCORES") else {
        panic!("no array")
    };
    let last = vec![
        Value::Bulk(member(MEMBERS - 1).0),
        Value::Number(b"249".to_vec()),
    ];
    assert_eq!(found.len(), MEMBERS);
    assert_eq!(found[MEMBERS - 1], Value::Array(last));
}

#[test]
fn scans_return_each_member_once_and_draws_what_is_there() {
    let stand = Stand::new("resp-sorted-scan");
    let mut db = stand.connect();
    fill(&mut db, "z", by_twelve);
    let (mut cursor, mut found, mut rounds) = (String::from("0"), Vec::new(), 0);
    loop {
        let reply = call(&mut db, &format!("ZSCAN z {cursor} COUNT 100"));
        let Value::Array(mut parts) = reply else {
            panic!("{reply:?}")
        };
        found.extend(strings(parts.pop().expect("two parts")));
        cursor = String::from_utf8(strings(Value::Array(parts)).remove(0)).expect("digits");
        rounds += 1;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(rounds, MEMBERS / 100);
    let expected = |pairs: &[Vec<u8>]| {
        for pair in pairs.chunks(2) {
            let number: usize = String::from_utf8_lossy(&pair[0]).parse().expect("a number");
            assert_eq!(pair[1], by_twelve(number).to_string().into_bytes());
        }
        let members: BTreeSet<_> = pairs.chunks(2).map(|pair| pair[0].clone()).collect();
        members.len()
    };
    assert_eq!(expected(&found), MEMBERS);
    for count in [1, 300, 2000] {
        let line = format!("ZRANDMEMBER z {count} WITHSCORES");
        assert_eq!(expected(&strings(call(&mut db, &line))), count);
    }
}

#[test]
fn what_is_removed_is_told_and_gone() {
    let stand = Stand::new("resp-sorted-removed");
    let mut db = stand.connect();
    fill(&mut db, "z", by_twelve);
    let too_many = "-ERR at most 128 members can be removed at once, or all of them";
    let popped = strings(call(&mut db, "ZPOPMIN z 128"));
    assert_eq!((popped.len(), &popped[2]), (256, &member(1).0));
    let popped = strings(call(&mut db, "ZPOPMAX z 2"));
    assert_eq!(popped[0], member(MEMBERS - 1).0);
    check(
        &mut db,
        &[
            ("ZCARD z", ":2870"),
            ("ZPOPMAX z 129", too_many),
            ("ZREMRANGEBYRANK z 0 128", too_many),
            ("ZREMRANGEBYSCORE z 20 40", too_many),
            ("ZREMRANGEBYRANK z -128 -1", ":128"),
            ("ZREMRANGEBYRANK z 100 50", ":0"),
            ("ZREMRANGEBYSCORE z 20 (30", ":120"),
            ("ZCOUNT z 20 30", ":12"),
            ("ZREMRANGEBYSCORE z (5 (6", ":0"),
            ("ZREMRANGEBYSCORE none -inf inf", ":0"),
            ("ZCARD z", ":2622"),
        ],
    );
    let popped = strings(call(&mut db, "ZPOPMIN z 100000"));
    assert_eq!(popped.len(), 2 * 2622);
    check(
        &mut db,
        &[
            ("EXISTS z", ":0"),
            ("ZPOPMIN z 5", "[]"),
            ("SET s x", "+OK"),
        ],
    );
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    for line in [
        "ZPOPMIN s 0",
        "ZPOPMIN s 3",
        "ZREMRANGEBYRANK s 0 1",
        "ZREMRANGEBYSCORE s 0 1",
    ] {
        check(&mut db, &[(line, wrong)]);
    }
}

#[test]
fn each_member_is_popped_by_one() {
    const EACH: usize = 20;
    let stand = Stand::new("resp-sorted-race");
    let mut db = stand.connect();
    fill(&mut db, "z", by_twelve);
    let popped: Vec<Vec<u8>> = thread::scope(|scope| {
        let pop = |greatest: bool| {
            let stand = &stand;
            scope.spawn(move || {
                let mut db = stand.connect();
                let name = if greatest { "ZPOPMAX" } else { "ZPOPMIN" };
                let mut all = Vec::new();
                for count in 1..=EACH {
                    let line = format!("{name} z {}", count % 7 + 1);
                    all.extend(strings(call(&mut db, &line)).into_iter().step_by(2));
                }
                all
            })
        };
        let threads: Vec<_> = [false, true, false, true].map(pop).into();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().flat_map(join).collect()
    });
    let distinct: BTreeSet<_> = popped.iter().collect();
    assert_eq!(distinct.len(), popped.len());
    let left = MEMBERS - popped.len();
    check(&mut db, &[("ZCARD z", &format!(":{left}"))]);
}

#[test]
fn sorted_sets_in_transactions() {
    let stand = Stand::new("resp-sorted-multi");
    let mut db = stand.connect();
    let lines = [
        ("MULTI", "+OK"),
        ("ZADD z 1 a 2 b 3 c 4 d", "+QUEUED"),
        ("ZINCRBY z 10 a", "+QUEUED"),
        ("ZPOPMIN z 2", "+QUEUED"),
        ("ZPOPMAX z", "+QUEUED"),
        ("ZRANGE z 0 -1 WITHSCORES", "+QUEUED"),
        ("ZADD z INCR -inf d", "+QUEUED"),
        ("ZINCRBY z inf d", "+QUEUED"),
        ("ZRANK z d", "+QUEUED"),
        ("ZRANDMEMBER z 5 WITHSCORES", "+QUEUED"),
        ("GET z", "+QUEUED"),
    ];
    check(&mut db, &lines);
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    let expected = format!(
        "[:4, \"11\", [\"b\", \"2\", \"c\", \"3\"], [\"a\", \"11\"], [\"d\", \"4\"], \"-inf\", \
         -ERR resulting score is not a number (NaN), :0, [\"d\", \"-inf\"], {wrong}]"
    );
    check(&mut db, &[("EXEC", &expected)]);
    // What is popped needs room in the reply to a write.
    check(&mut db, &[("MULTI", "+OK"), ("ZPOPMIN z 100", "+QUEUED")]);
    let end = ask(&mut db, "EXEC");
    assert!(end.starts_with("-EXECABORT"), "{end}");
    for line in [
        "ZREMRANGEBYRANK z 0 1",
        "ZREMRANGEBYSCORE z 0 1",
        "ZSCAN z 0",
    ] {
        check(&mut db, &[("MULTI", "+OK")]);
        let name = line.split(' ').next().expect("a name");
        let expected = format!("-ERR {name} is not supported in a transaction");
        check(&mut db, &[(line, &expected)]);
        ask(&mut db, "EXEC");
    }
    check(
        &mut db,
        &[
            ("ZADD zero -0 a", ":1"),
            ("ZSCORE zero a", "\"0\""),
            ("ZRANGE zero - + BYLEX", "-ERR BYLEX is not supported"),
        ],
    );
}
