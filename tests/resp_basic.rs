//! The gateway in front of a real cluster: what ordinary clients do.

mod resp;

use resp::{Stand, ask, call};
use viewstone::resp::{Connection, Value};

/// Sends lines one by one, and compares the replies.
fn check(stand: &Stand, lines: &[(&str, &str)]) {
    let mut connection = stand.connect();
    for (line, expected) in lines {
        assert_eq!(told(&mut connection, line), *expected, "{line}");
    }
}

/// The reply; of times to live, in seconds, the next hundred, since a machine may be busy between two commands.
fn told(connection: &mut Connection, line: &str) -> String {
    match call(connection, line) {
        Value::Integer(seconds) if line.starts_with("TTL ") && seconds > 0 => {
            format!(":{}", (seconds + 99) / 100 * 100)
        }
        reply => format!("{reply:?}"),
    }
}

#[test]
fn commands_of_each_family_have_their_replies() {
    let stand = Stand::new("resp-families");
    check(
        &stand,
        &[
            ("PING", "+PONG"),
            ("ECHO a", "\"a\""),
            ("SET a 1", "+OK"),
            ("GET a", "\"1\""),
            ("GET absent", "null"),
            ("SET a 2 NX", "null"),
            ("SET a 2 XX GET", "\"1\""),
            ("SETNX a 3", ":0"),
            ("GETSET a 4", "\"2\""),
            ("GETDEL a", "\"4\""),
            ("EXISTS a", ":0"),
            ("MSET a 1 b 2 c 3", "+OK"),
            ("MGET a b absent c", "[\"1\", \"2\", null, \"3\"]"),
            ("MSETNX d 1 a 2", ":0"),
            ("MSETNX d 1 e 2", ":1"),
            ("EXISTS a b d e e absent", ":5"),
            ("DEL a b absent b", ":2"),
            ("DBSIZE", ":3"),
            ("INCR n", ":1"),
            ("INCRBY n 41", ":42"),
            ("DECR n", ":41"),
            ("DECRBY n 40", ":1"),
            ("INCRBYFLOAT n 0.5", "\"1.5\""),
            ("INCR n", "-ERR value is not an integer or out of range"),
            ("APPEND s hello", ":5"),
            ("STRLEN s", ":5"),
            ("GETRANGE s 1 -2", "\"ell\""),
            ("SETRANGE s 1 a", ":5"),
            ("GET s", "\"hallo\""),
            ("TTL s", ":-1"),
            ("TTL absent", ":-2"),
            ("EXPIRE s 100", ":1"),
            ("TTL s", ":100"),
            ("EXPIRE s 10 GT", ":0"),
            ("PERSIST s", ":1"),
            ("PERSIST s", ":0"),
            ("TYPE s", "+string"),
            ("TYPE absent", "+none"),
            ("RENAME s t", "+OK"),
            ("RENAME s t", "-ERR no such key"),
            ("RENAMENX t c", ":0"),
            ("WATCH t", "+OK"),
            ("RENAME t t", "+OK"),
            ("RENAMENX t t", ":0"),
            ("RENAME none none", "-ERR no such key"),
            ("MULTI", "+OK"),
            ("STRLEN t", "+QUEUED"),
            ("EXEC", "[:5]"),
            ("GETEX t EX 200", "\"hallo\""),
            ("TTL t", ":200"),
            ("EXPIRE t -1", ":1"),
            ("EXISTS t", ":0"),
            ("FLUSHALL", "+OK"),
            ("DBSIZE", ":0"),
            ("RANDOMKEY", "null"),
            ("KEYS *", "[]"),
            ("SCAN 0", "[\"0\", []]"),
        ],
    );
}

#[test]
fn commands_of_collections_have_their_replies() {
    let stand = Stand::new("resp-collection-families");
    check(
        &stand,
        &[
            ("HSET h f 1 g 2", ":2"),
            ("HGETALL h", "[\"f\", \"1\", \"g\", \"2\"]"),
            ("HINCRBYFLOAT h f 0.5", "\"1.5\""),
            ("TYPE h", "+hash"),
            ("SADD m b a b", ":2"),
            ("SMEMBERS m", "[\"a\", \"b\"]"),
            ("SPOP m 2", "[\"a\", \"b\"]"),
            ("DEL h", ":1"),
        ],
    );
}

#[test]
fn errors_are_in_the_words_of_redis() {
    let stand = Stand::new("resp-errors");
    let unknown = "-ERR unknown command 'foo', with args beginning with: 'a' 'b' ";
    check(
        &stand,
        &[
            ("foo a b", unknown),
            ("GET", "-ERR wrong number of arguments for 'get' command"),
            ("SET a", "-ERR wrong number of arguments for 'set' command"),
            ("SET a b EX", "-ERR syntax error"),
            ("SET a b EX 0", "-ERR invalid expire time in 'set' command"),
            (
                "SET a b EX x",
                "-ERR value is not an integer or out of range",
            ),
            (
                "CLIENT foo",
                "-ERR unknown subcommand 'foo'. Try CLIENT HELP.",
            ),
            ("EXEC", "-ERR EXEC without MULTI"),
            ("SELECT 1", "-ERR DB index is out of range"),
            (
                "MSET a",
                "-ERR wrong number of arguments for 'mset' command",
            ),
            ("HELLO 4", "-NOPROTO unsupported protocol version"),
        ],
    );
}

#[test]
fn transactions_stand_or_fall_as_one() {
    let stand = Stand::new("resp-transactions");
    let (mut one, mut other) = (stand.connect(), stand.connect());
    for (line, expected) in [
        ("MULTI", "+OK"),
        ("SET a 1", "+QUEUED"),
        ("INCR a", "+QUEUED"),
        ("PING", "+QUEUED"),
        ("GET a", "+QUEUED"),
        ("EXEC", "[+OK, :2, +PONG, \"2\"]"),
        ("WATCH a", "+OK"),
    ] {
        assert_eq!(ask(&mut one, line), expected, "{line}");
    }
    assert_eq!(ask(&mut other, "SET a 5"), "+OK");
    for (line, expected) in [
        ("MULTI", "+OK"),
        ("SET a 6", "+QUEUED"),
        ("EXEC", "null"),
        ("GET a", "\"5\""),
        ("WATCH a", "+OK"),
        ("MULTI", "+OK"),
        ("SET a 6", "+QUEUED"),
        ("EXEC", "[+OK]"),
        ("MULTI", "+OK"),
        ("MULTI", "-ERR MULTI calls can not be nested"),
        ("SET a", "-ERR wrong number of arguments for 'set' command"),
        (
            "EXEC",
            "-EXECABORT Transaction discarded because of previous errors.",
        ),
        ("MULTI", "+OK"),
        ("DISCARD", "+OK"),
        ("GET a", "\"6\""),
        ("MULTI", "+OK"),
        ("EXEC", "[]"),
    ] {
        assert_eq!(ask(&mut one, line), expected, "{line}");
    }
}

#[test]
fn twenty_thousand_commands_may_be_sent_ahead() {
    const COUNT: usize = 20_000;
    let stand = Stand::new("resp-pipeline");
    let mut connection = stand.connect();
    let mut bytes = Vec::new();
    for number in 0..COUNT {
        let words = match number % 4 {
            0 => vec!["INCR".to_owned(), "n".to_owned()],
            1 => vec!["SET".to_owned(), format!("k{number}"), "v".repeat(20)],
            2 => vec!["GET".to_owned(), format!("k{}", number - 1)],
            _ => vec!["PING".to_owned()],
        };
        viewstone::resp::client::encode(&words, &mut bytes);
    }
    connection.send_raw(&bytes).expect("the gateway reads");
    for number in 0..COUNT {
        let reply = connection.receive().expect("a reply");
        let expected = match number % 4 {
            0 => Value::Integer(i64::try_from(number / 4 + 1).expect("small")),
            1 => Value::Simple(b"OK".into()),
            2 => Value::Bulk("v".repeat(20).into()),
            _ => Value::Simple(b"PONG".into()),
        };
        assert_eq!(reply, expected, "{number}");
    }
}

#[test]
fn large_values_go_both_ways() {
    let stand = Stand::new("resp-large");
    let mut connection = stand.connect();
    let size = 20_000;
    let (first, second) = ("a".repeat(size), "b".repeat(size));
    let bulk = |text: &str| Value::Bulk(text.into());
    assert_eq!(
        call(&mut connection, &format!("SET k {first}")),
        Value::Simple(b"OK".into())
    );
    // Neither fits the reply to a write.
    assert_eq!(
        call(&mut connection, &format!("GETSET k {second}")),
        bulk(&first)
    );
    assert_eq!(call(&mut connection, "GETEX k EX 100"), bulk(&second));
    assert_eq!(told(&mut connection, "TTL k"), ":100");
    assert_eq!(
        call(&mut connection, &format!("SET k {first} XX GET KEEPTTL")),
        bulk(&second)
    );
    assert_eq!(told(&mut connection, "TTL k"), ":100");
    for key in ["l", "m", "n", "o", "p"] {
        assert_eq!(ask(&mut connection, &format!("SET {key} {second}")), "+OK");
    }
    let expected = [&first, &second, &second, &second, &second, &second].map(|text| bulk(text));
    assert_eq!(
        call(&mut connection, "MGET k l m n o p"),
        Value::Array(expected.to_vec())
    );
    assert_eq!(call(&mut connection, "GETDEL k"), bulk(&first));
    assert_eq!(ask(&mut connection, "EXISTS k"), ":0");
}

#[test]
fn a_scan_finds_every_key_once() {
    let stand = Stand::new("resp-scan");
    let mut connection = stand.connect();
    for number in 0..500 {
        assert_eq!(ask(&mut connection, &format!("SET key:{number} v")), "+OK");
    }
    let (mut cursor, mut found, mut rounds) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let reply = call(
            &mut connection,
            &format!("SCAN {cursor} COUNT 37 MATCH key:*"),
        );
        let Value::Array(parts) = reply else {
            panic!("{reply:?}")
        };
        let [Value::Bulk(next), Value::Array(keys)] = &parts[..] else {
            panic!("{parts:?}")
        };
        found.extend(keys.iter().map(|key| format!("{key:?}")));
        cursor = String::from_utf8_lossy(next).into_owned();
        rounds += 1;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(rounds, 500_usize.div_ceil(37));
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 500);
    let Value::Array(keys) = call(&mut connection, "KEYS key:4?") else {
        panic!("keys are an array")
    };
    assert_eq!(keys.len(), 10);
    assert_eq!(
        ask(&mut connection, "SCAN 12345"),
        "-ERR the cursor is not known here: it is too old, or of another gateway; begin again with 0"
    );
}

#[test]
fn version_three_has_maps_and_nulls() {
    let stand = Stand::new("resp-three");
    let mut connection = stand.connect();
    let Value::Map(fields) = call(&mut connection, "HELLO 3 SETNAME me") else {
        panic!("a map")
    };
    assert_eq!(fields.len(), 14);
    assert_eq!(ask(&mut connection, "GET absent"), "null");
    assert_eq!(ask(&mut connection, "CLIENT GETNAME"), "\"me\"");
    assert!(matches!(call(&mut connection, "INFO"), Value::Verbatim(_)));
    assert!(matches!(
        call(&mut connection, "CONFIG GET save"),
        Value::Map(_)
    ));
    assert_eq!(ask(&mut connection, "RESET"), "+RESET");
    assert!(matches!(call(&mut connection, "INFO"), Value::Bulk(_)));
}
