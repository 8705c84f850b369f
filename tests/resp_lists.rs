//! Lists through the gateway: what the comparison with Redis does not reach, because it is large, or done by several
//! connections at once.

mod resp;

use resp::{Stand, ask, call};
use std::thread;
use viewstone::resp::{Connection, Value};

fn check(connection: &mut Connection, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        assert_eq!(ask(connection, line), *expected, "{line}");
    }
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.into())
}

fn bulks(texts: impl Iterator<Item = String>) -> Value {
    Value::Array(texts.map(|text| bulk(&text)).collect())
}

fn element(number: usize) -> String {
    format!("{number:0100}")
}

/// A list of so many elements of 100 bytes.
fn fill(connection: &mut Connection, key: &str, count: usize) {
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(200) {
        let elements: Vec<String> = chunk.iter().map(|&number| element(number)).collect();
        let length = chunk[chunk.len() - 1] + 1;
        let line = format!("RPUSH {key} {}", elements.join(" "));
        assert_eq!(ask(connection, &line), format!(":{length}"));
    }
}

/// Sends all lines, then reads their replies.
fn pipeline(connection: &mut Connection, lines: &[&str]) -> Vec<String> {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        connection.send(&words).expect("it takes them");
    }
    let receive = |_: &_| format!("{:?}", connection.receive().expect("it answers"));
    lines.iter().map(receive).collect()
}

#[test]
fn large_elements_are_popped_and_moved() {
    let stand = Stand::new("resp-list-elements");
    let mut db = stand.connect();
    let texts: Vec<String> = ["a", "b", "c", "d"]
        .iter()
        .map(|it| it.repeat(20_000))
        .collect();
    let filled = format!("RPUSH l {}", texts.join(" "));
    assert_eq!(ask(&mut db, &filled), ":4");
    ask(&mut db, "SET s 1");
    assert_eq!(call(&mut db, "LINDEX l -2"), bulk(&texts[2]));
    check(
        &mut db,
        &[
            ("MULTI", "+OK"),
            ("LPOP l", "+QUEUED"),
            ("RPOPLPUSH l m", "+QUEUED"),
        ],
    );
    let refused = ask(&mut db, "EXEC");
    assert_eq!(
        refused
            .matches("no room in the reply to a transaction")
            .count(),
        2
    );
    check(
        &mut db,
        &[
            (
                "LMOVE l s LEFT LEFT",
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            ("LLEN l", ":4"),
        ],
    );
    assert_eq!(call(&mut db, "LMOVE l m RIGHT LEFT"), bulk(&texts[3]));
    assert_eq!(call(&mut db, "RPOPLPUSH l l"), bulk(&texts[2]));
    assert_eq!(call(&mut db, "LPOP l"), bulk(&texts[2]));
    assert_eq!(call(&mut db, "RPOP l"), bulk(&texts[1]));
    assert_eq!(call(&mut db, "RPOP l"), bulk(&texts[0]));
    assert_eq!(
        call(&mut db, "LPOP m 7"),
        Value::Array(vec![bulk(&texts[3])])
    );
    check(
        &mut db,
        &[
            ("EXISTS l m", ":0"),
            ("LPOP l", "null"),
            ("LPOP l 300", "null"),
        ],
    );
    // More of them than one reply to a read holds.
    for _ in 0..3 {
        call(&mut db, &filled);
    }
    let all: Vec<Value> = texts
        .iter()
        .cycle()
        .take(12)
        .map(|text| bulk(text))
        .collect();
    assert_eq!(call(&mut db, "LRANGE l 0 -1"), Value::Array(all.clone()));
    assert_eq!(
        call(&mut db, "LRANGE l -100 10"),
        Value::Array(all[..11].to_vec())
    );
    assert_eq!(call(&mut db, "LPOP l 9"), Value::Array(all[..9].to_vec()));
    let last = [&texts[3], &texts[2], &texts[1]].map(|text| bulk(text));
    assert_eq!(call(&mut db, "RPOP l 100"), Value::Array(last.to_vec()));
    assert_eq!(ask(&mut db, "EXISTS l"), ":0");
}

#[test]
fn long_lists_are_read_taken_and_trimmed_in_parts() {
    const COUNT: usize = 3000;
    let stand = Stand::new("resp-list-long");
    let mut db = stand.connect();
    fill(&mut db, "l", COUNT);
    let elements = |range: std::ops::Range<usize>| bulks(range.map(element));
    assert_eq!(call(&mut db, "LRANGE l 0 -1"), elements(0..COUNT));
    assert_eq!(call(&mut db, "LRANGE l -2900 -2"), elements(100..COUNT - 1));
    check(
        &mut db,
        &[
            (
                "LPOP l 513",
                "-ERR at most 512 elements, or all of a list, are taken out at once",
            ),
            ("MULTI", "+OK"),
            ("RPOP l 257", "+QUEUED"),
            ("LTRIM l 257 -1", "+QUEUED"),
            (
                "EXEC",
                "[-ERR RPOP of more than 256 elements is not supported in a transaction, -ERR LTRIM of more than \
             256 elements, but not all, is not supported in a transaction; it was not executed]",
            ),
            ("LLEN l", ":3000"),
        ],
    );
    assert_eq!(call(&mut db, "LPOP l 512"), elements(0..512));
    let last = bulks((COUNT - 300..COUNT).rev().map(element));
    assert_eq!(call(&mut db, "RPOP l 300"), last);
    // What comes behind a trim of several steps is executed once, and after it.
    let lines = [
        "RPUSH l x",
        "LTRIM l 1000 -1001",
        "RPUSH l y",
        "LLEN l",
        "LPUSH l z",
        "LLEN l",
    ];
    let expected = [":2189", "+OK", ":190", ":190", ":191", ":191"];
    assert_eq!(pipeline(&mut db, &lines), expected);
    let kept = elements(1512..1701);
    let Value::Array(kept) = kept else {
        panic!("an array was made");
    };
    let all = [vec![bulk("z")], kept, vec![bulk("y")]].concat();
    assert_eq!(call(&mut db, "LRANGE l 0 -1"), Value::Array(all));
    // All of a list, however long it is.
    fill(&mut db, "m", COUNT);
    assert_eq!(call(&mut db, "LPOP m 1000000"), elements(0..COUNT));
    fill(&mut db, "m", COUNT);
    check(
        &mut db,
        &[
            ("LTRIM m 5000 6000", "+OK"),
            ("EXISTS m", ":0"),
            ("LTRIM m 0 1", "+OK"),
        ],
    );
    let long = format!("RPUSH m{}", " e".repeat(1000));
    assert!(ask(&mut db, &long).starts_with("-ERR too many arguments"));
    assert_eq!(ask(&mut db, "EXISTS m"), ":0");
}

/// Elements go round between two lists, are taken in twos and threes and put back: none is lost, and none is there twice.
#[test]
fn many_connections_lose_nothing() {
    const ELEMENTS: usize = 60;
    const ROUNDS: usize = 40;
    let stand = Stand::new("resp-list-many");
    let mut db = stand.connect();
    fill(&mut db, "l", ELEMENTS);
    thread::scope(|scope| {
        for worker in 0..4 {
            let mut connection = stand.connect();
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    match (worker + round) % 4 {
                        0 => drop(call(&mut connection, "RPOPLPUSH l m")),
                        1 => drop(call(&mut connection, "LMOVE m l LEFT RIGHT")),
                        _ => give_back(&mut connection, ["LPOP l 3", "RPOP m 2"][round % 2]),
                    }
                }
            });
        }
    });
    let mut found = Vec::new();
    for key in ["l", "m"] {
        let Value::Array(elements) = call(&mut db, &format!("LRANGE {key} 0 -1")) else {
            panic!("an array")
        };
        found.extend(elements.iter().map(|element| format!("{element:?}")));
    }
    found.sort();
    let all: Vec<String> = (0..ELEMENTS)
        .map(|it| format!("{:?}", bulk(&element(it))))
        .collect();
    assert_eq!(found, all);
}

fn give_back(connection: &mut Connection, line: &str) {
    let taken = match call(connection, line) {
        Value::Array(taken) => taken,
        other => {
            assert_eq!(other, Value::Null);
            return;
        }
    };
    let mut words = vec![b"RPUSH".to_vec(), b"l".to_vec()];
    for element in taken {
        let Value::Bulk(element) = element else {
            panic!("{element:?}")
        };
        words.push(element);
    }
    assert!(matches!(connection.call(&words), Ok(Value::Integer(_))));
}
