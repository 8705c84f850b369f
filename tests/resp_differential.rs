//! The same generated commands to a real Redis 7 and to the gateway: the replies are equal, errors included.
//!
//! What differs on purpose is in docs/redis.md, and is kept out of the generator or made equal here: where it is, says so.
//! `VIEWSTONE_COMMANDS` is how many commands, `VIEWSTONE_SEED` which ones. Without redis-server on this machine the test
//! says so and does nothing; CI has it.

#[path = "resp/families/mod.rs"]
mod families;
mod resp;

use families::FAMILIES;
use resp::watch::Watch;
use resp::{Directory, HANG, Stand};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use viewstone::resp::{Connection, Value};

/// A redis-server of its own. Dropping it kills it.
struct Redis {
    child: Child,
    port: u16,
    _directory: Directory,
}

impl Redis {
    /// None if there is none on this machine.
    fn start() -> Option<Self> {
        loop {
            let mut this = Self::spawn()?;
            if this.wait() {
                return Some(this);
            }
        }
    }

    fn spawn() -> Option<Self> {
        let directory = Directory::new("redis");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--databases", "1"])
            .arg("--dir")
            .arg(&directory.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Self {
                child,
                port,
                _directory: directory,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => panic!("redis-server: {error}"),
        }
    }

    /// Until it listens. Not if somebody else took its port: then it ends at once.
    fn wait(&mut self) -> bool {
        let begin = Instant::now();
        while self.try_connect().is_none() {
            if self.child.try_wait().expect("our child").is_some() {
                return false;
            }
            assert!(begin.elapsed() < HANG, "redis-server does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    fn try_connect(&self) -> Option<Connection> {
        Connection::open(("127.0.0.1", self.port), HANG).ok()
    }

    fn connect(&self) -> Connection {
        self.try_connect().expect("it listens")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// splitmix64: a seed gives the same commands for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

type Line = Vec<Vec<u8>>;

const KEYS: &[&str] = &["a", "b", "c", "d", "key:1", "key:2", "", "k\r\nx", "n", "m"];
const VALUES: &[&str] = &[
    "",
    "v",
    "hello world",
    "0",
    "1",
    "-1",
    "10",
    "3.5",
    "1e3",
    "0x10",
    " 1",
    "01",
    "abc\r\ndef",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "value with \u{1f600}",
];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "5",
    "-5",
    "100",
    "x",
    "",
    "1.5",
    "01",
    "+1",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "4294967296",
];
const FLOATS: &[&str] = &[
    "0", "1", "-1", "0.5", "-2.25", "3.0e2", "x", "", "1,5", " 1", "100000",
];
const OFFSETS: &[&str] = &["0", "1", "3", "10", "50", "-1", "x", "600000000"];
const INDEXES: &[&str] = &["0", "1", "2", "5", "-1", "-2", "-100", "100", "x"];
/// Far enough off that neither the time between two commands nor rounding matters.
const SECONDS: &[&str] = &[
    "1000",
    "20000",
    "0",
    "-1",
    "-1000",
    "x",
    "9223372036854775807",
];
const MILLISECONDS: &[&str] = &["1000000", "20000000", "0", "-1", "x", "9223372036854775807"];
const POINTS: &[&str] = &["4000000000", "1", "0", "-1", "x", "5000000000"];
const POINTS_MS: &[&str] = &["4000000000123", "1", "0", "-1", "x", "5000000000499"];
const PATTERNS: &[&str] = &[
    "*", "a*", "key:?", "[ab]", "[^a]", "k*", "", "nothing", "\\a", "key:[1",
];

/// What a command is made of.
const TEMPLATES: &[&str] = &[
    "GET K",
    "GET K",
    "SET K V",
    "SET K V",
    "SET K V O O",
    "SET K V O",
    "SET K V EX S",
    "SET K V PX M",
    "SET K V EXAT P",
    "SET K V PXAT Q",
    "SET K V KEEPTTL",
    "SET K V GET",
    "SET K V NX GET",
    "SETNX K V",
    "SETEX K S V",
    "PSETEX K M V",
    "GETSET K V",
    "GETDEL K",
    "GETEX K",
    "GETEX K EX S",
    "GETEX K PERSIST",
    "GETEX K PXAT Q",
    "GETEX K O O",
    "MGET K K K",
    "MGET K",
    "MSET K V K V",
    "MSET K V K",
    "MSETNX K V K V",
    "DEL K K",
    "UNLINK K",
    "EXISTS K K K",
    "TOUCH K K",
    "INCR K",
    "INCR n",
    "DECR n",
    "INCRBY n N",
    "INCRBY K N",
    "DECRBY n N",
    "INCRBYFLOAT K F",
    "INCRBYFLOAT m F",
    "APPEND K V",
    "STRLEN K",
    "GETRANGE K I I",
    "SUBSTR K I I",
    "SETRANGE K T V",
    "EXPIRE K S",
    "EXPIRE K S X",
    "EXPIRE K S X X",
    "PEXPIRE K M X",
    "EXPIREAT K P",
    "EXPIREAT K P X",
    "PEXPIREAT K Q",
    "PEXPIREAT K Q X",
    "TTL K",
    "EXPIRETIME K",
    "PEXPIRETIME K",
    "PERSIST K",
    "TYPE K",
    "RENAME K K",
    "RENAMENX K K",
    "DBSIZE",
    "KEYS G",
    "PING",
    "PING V",
    "ECHO V",
    "SELECT 0",
    "SELECT N",
    "RANDOMKEY V",
    "SCAN x",
    "SCAN 0 COUNT N",
    "SCAN 0 TYPE hash COUNT 1000",
    "SCAN 0 MATCH G COUNT 1000",
    "SCAN 0 MATCH",
    "SCAN 0 FOO 1",
    "FLUSHALL V",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH K",
    "UNWATCH",
    "CLIENT GETNAME",
    "CLIENT SETNAME V",
    "CLIENT FOO",
    "CLIENT",
    "CONFIG FOO",
    "CONFIG",
    "COMMAND FOO",
    "COMMAND COUNT V",
    "COMMAND GETKEYS MSET K V K V",
    "COMMAND GETKEYS PING",
    "COMMAND GETKEYS PING V",
    "COMMAND GETKEYS GET K V",
    "WAIT x 0",
    "WAIT 0 x",
    "WAIT 0 -1",
    "AUTH V",
    "AUTH default V",
    "AUTH V V",
    "AUTH V V V",
    "HELLO 4",
    "HELLO x",
    "HELLO 2 FOO",
    "HELLO 2 SETNAME a\u{20}b",
    "FOO V V",
    "V V",
    "OBJECT",
    "TIME V",
];

/// What comes between MULTI and EXEC more often than by chance: what depends on what came before it there.
const IN_TRANSACTION: &[&str] = &[
    "INCRBYFLOAT m F",
    "INCRBYFLOAT K F",
    "INCRBYFLOAT a F",
    "MSETNX K V K V",
    "MSETNX a V b V",
    "SET a F",
    "SET m F",
    "SET K V PX M",
    "SET K V PXAT Q",
    "DEL K K",
    "RENAME K a",
    "RENAMENX K m",
    "EXPIRE K S",
    "PERSIST K",
    "INCR K",
    "APPEND m N",
    "SETRANGE K I V",
    "GETDEL K",
    "GETSET K V",
    "FLUSHALL",
    "GET K",
    "TTL K",
    "HELLO 2",
    "HELLO 3",
    "HELLO 3 SETNAME V",
    "HELLO 4",
    "CLIENT GETNAME",
    "CLIENT SETNAME V",
    "CLIENT INFO",
    "CLIENT LIST",
    "CLIENT LIST TYPE foo",
    "EXEC",
];

/// One command of a template: capital letters stand for something of their kind.
fn command(random: &mut Random, in_transaction: bool) -> Line {
    let template = if in_transaction && random.chance(2) {
        random.one(IN_TRANSACTION)
    } else if random.chance(2) {
        let family = random.below(FAMILIES.len());
        random.one(FAMILIES[family].templates)
    } else {
        random.one(TEMPLATES)
    };
    let mut line: Line = Vec::new();
    for (index, word) in template.split(' ').enumerate() {
        let kind = if index == 0 && word.len() > 1 {
            ""
        } else {
            word
        };
        let text = match kind {
            "K" => random.one(KEYS),
            "V" => random.one(VALUES),
            "N" => random.one(NUMBERS),
            "F" => random.one(FLOATS),
            "T" => random.one(OFFSETS),
            "I" => random.one(INDEXES),
            "S" => random.one(SECONDS),
            "M" => random.one(MILLISECONDS),
            "P" => random.one(POINTS),
            "Q" => random.one(POINTS_MS),
            "G" => random.one(PATTERNS),
            "O" => random.one(&[
                "NX", "XX", "GET", "KEEPTTL", "EX", "1000", "PERSIST", "foo", "get",
            ]),
            "X" => random.one(&["NX", "XX", "GT", "LT", "foo", "nx"]),
            letter => FAMILIES
                .iter()
                .find_map(|family| (family.word)(random, letter))
                .unwrap_or(word),
        };
        line.push(text.as_bytes().to_vec());
    }
    // Sometimes with too much or too little, and in small letters.
    if random.chance(40) {
        line.push(random.one(VALUES).into());
    }
    if random.chance(60) && line.len() > 1 {
        line.pop();
    }
    if random.chance(4) {
        line[0].make_ascii_lowercase();
    }
    line
}

/// What may differ is made equal: the order of keys, and cursors; in the reply to EXEC for each of the commands queued.
fn normal(line: &Line, queued: &[Line], value: Value) -> Value {
    let name = line[0].to_ascii_uppercase();
    let by_text = |value: &Value| format!("{value:?}");
    let of_family = FAMILIES
        .iter()
        .find_map(|family| (family.normal)(&name, line, &value));
    if let Some(value) = of_family {
        return value;
    }
    match (name.as_slice(), value) {
        (b"EXEC", Value::Array(parts)) if parts.len() == queued.len() => {
            let each = parts.into_iter().zip(queued);
            Value::Array(each.map(|(part, line)| normal(line, &[], part)).collect())
        }
        // What there is to say of connections differs.
        (b"CLIENT", Value::Verbatim(_)) => Value::Verbatim(Vec::new()),
        (b"CLIENT", Value::Bulk(text)) if text.starts_with(b"id=") => Value::Bulk(Vec::new()),
        (b"KEYS", Value::Array(mut keys)) => {
            keys.sort_by_key(by_text);
            Value::Array(keys)
        }
        (b"SCAN", Value::Array(mut parts)) if parts.len() == 2 => {
            let Some(Value::Array(mut keys)) = parts.pop() else {
                return Value::Array(parts);
            };
            keys.sort_by_key(by_text);
            Value::Array(keys)
        }
        // The number of the connection.
        (b"HELLO", Value::Array(mut fields)) if fields.len() == 14 => {
            fields[7] = Value::Null;
            Value::Array(fields)
        }
        (b"HELLO", Value::Map(mut fields)) => {
            fields[7] = Value::Null;
            Value::Map(fields)
        }
        (b"RANDOMKEY", Value::Bulk(_)) => Value::Integer(1),
        (b"TIME", Value::Array(parts)) => Value::Boolean(parts.len() == 2),
        (_, value) => value,
    }
}

/// Whether the reply may tell a time.
fn tells_time(line: &Line) -> bool {
    let name = line[0].to_ascii_uppercase();
    matches!(
        name.as_slice(),
        b"TTL" | b"PTTL" | b"EXPIRETIME" | b"PEXPIRETIME" | b"EXEC"
    )
}

/// Equal, but for what passes between the two, which may be long on a busy machine, if the replies tell times. These are
/// drawn so that a minute is no mistake for another.
fn is_alike(one: &Value, other: &Value, tells_time: bool) -> bool {
    match (one, other) {
        (Value::Integer(one), Value::Integer(other)) if tells_time => {
            let difference = one.abs_diff(*other);
            let least = *one.min(other);
            difference == 0
                || difference <= 60 && least >= 900
                || difference <= 60_000 && least >= 900_000
        }
        (Value::Array(ones), Value::Array(others)) => {
            let mut pairs = ones.iter().zip(others);
            ones.len() == others.len() && pairs.all(|(a, b)| is_alike(a, b, tells_time))
        }
        (one, other) => one == other,
    }
}

/// Redis adds with 80 bits, the gateway with 64: the same number, but perhaps not the same last digits.
fn is_nearly(one: &Value, other: &Value) -> bool {
    let number = |value: &Value| match value {
        Value::Bulk(text) => String::from_utf8_lossy(text).parse::<f64>().ok(),
        _ => None,
    };
    match (number(one), number(other)) {
        (Some(one), Some(other)) => (one - other).abs() <= other.abs() * 1e-15,
        _ => false,
    }
}

/// A number that 80 bits can hold, and 64 cannot.
fn is_huge(value: &Value) -> bool {
    match value {
        Value::Bulk(text) => String::from_utf8_lossy(text)
            .parse::<f64>()
            .is_ok_and(|number| number.is_infinite() && text.len() > 300),
        _ => false,
    }
}

/// Commands whose replies differ as docs/redis.md says. They are left out.
fn is_different(line: &Line, in_transaction: bool, queued: &[Line]) -> bool {
    let name = line[0].to_ascii_uppercase();
    let name = name.as_slice();
    let argument = |index: usize| line.get(index).map_or(&b""[..], |argument| argument);
    let of_family = |family: &families::Family| (family.is_different)(name, line, in_transaction);
    if FAMILIES.iter().any(of_family) {
        return true;
    }
    match name {
        // Offsets and sizes above what a request of the cluster holds have the same error from other limits on.
        b"SETRANGE" => argument(2) == b"4294967296",
        // A scan with a small count finds other keys at first.
        b"SCAN" | b"DBSIZE" if in_transaction => true,
        b"SCAN" if line.len() == 2 => argument(1) == b"0",
        b"SCAN" => argument(2) == b"COUNT" && matches!(argument(3), b"1" | b"2" | b"5" | b"100"),
        // With this name there is a command there, and not here.
        b"OBJECT" => true,
        b"COMMAND" => line.len() == 1 || argument(1) == b"COUNT" && line.len() == 2,
        // Not in transactions.
        b"KEYS" | b"RANDOMKEY" => in_transaction,
        // It may be, or not, that what is returned has no room, and then the key is not changed. Members are not foretold.
        b"INCRBYFLOAT" | b"MSETNX" => queued.iter().any(returns_and_changes),
        _ => false,
    }
}

/// Whether a command changes a key and returns its value, or changes a collection.
fn returns_and_changes(line: &Line) -> bool {
    let name = line[0].to_ascii_uppercase();
    let with_get = || {
        line.iter()
            .skip(3)
            .any(|it| it.eq_ignore_ascii_case(b"GET"))
    };
    let is_named = |change: &&str| name == change.as_bytes();
    if FAMILIES.iter().any(|it| it.changes.iter().any(is_named)) {
        return true;
    }
    match name.as_slice() {
        b"GETDEL" | b"GETEX" | b"GETSET" => true,
        b"SET" => with_get(),
        _ => false,
    }
}

/// Sums in the reply to EXEC, whose last digits may differ, and what else it is.
fn are_nearly(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(ones), Value::Array(others)) => {
            let alike = |(one, other)| is_alike(one, other, true) || is_nearly(one, other);
            ones.len() == others.len() && ones.iter().zip(others).all(alike)
        }
        _ => false,
    }
}

/// A connection to each.
struct Pair<'a> {
    theirs: Connection,
    ours: Connection,
    watch: &'a Watch,
}

impl Pair<'_> {
    /// A command whose replies are not compared.
    fn both<A: AsRef<[u8]>>(&mut self, line: &[A]) {
        self.redis(line);
        self.gateway(line);
    }

    fn redis<A: AsRef<[u8]>>(&mut self, line: &[A]) -> Value {
        self.watch.wait_for(format!("Redis: {}", text(line)));
        let reply = self.theirs.call(line).expect("Redis answers");
        self.watch.came();
        reply
    }

    fn gateway<A: AsRef<[u8]>>(&mut self, line: &[A]) -> Value {
        self.watch.wait_for(format!("the gateway: {}", text(line)));
        let reply = self.ours.call(line).expect("the gateway answers");
        self.watch.came();
        reply
    }

    /// Makes equal what differs before a command on purpose.
    fn prepare(&mut self, line: &Line, in_transaction: bool) {
        match line[0].to_ascii_uppercase().as_slice() {
            // A key that is absent then and in EXEC counts as unchanged here, whatever was in between.
            b"WATCH" if !in_transaction => {
                for key in &line[1..] {
                    self.both(&[b"SETNX", &key[..], b"1"]);
                }
            }
            // Whether an expiry is later than one that was set just before depends on the milliseconds between them.
            b"EXPIRE" | b"PEXPIRE" | b"EXEC" => thread::sleep(Duration::from_millis(3)),
            // Redis counts keys that have expired until somebody looks at them.
            b"DBSIZE" => {
                let others = ["EXISTS", "h", "h2", "s", "t", "u", "l", "q", "z", "z2"];
                let look: Vec<&str> = others.iter().chain(KEYS).copied().collect();
                self.redis(&look);
            }
            _ => {}
        }
    }
}

fn text<A: AsRef<[u8]>>(line: &[A]) -> String {
    let words = line
        .iter()
        .map(|word| word.as_ref().escape_ascii().to_string());
    format!("{:?}", words.collect::<Vec<_>>())
}

#[derive(Default)]
struct Counts {
    done: usize,
    errors: usize,
    /// Sums, or replies with sums, that differed in their last digits, or had too many.
    nearly: usize,
}

fn differ(commands: usize, seed: u64, protocol: &str) {
    let watch = Watch::new(&format!("seed {seed}, version {protocol}"));
    watch.wait_for("Redis to start");
    let Some(redis) = Redis::start() else {
        resp::skip("redis-server", "Debian: apt-get install redis-server");
        return;
    };
    println!("seed {seed}, {commands} commands, version {protocol}");
    watch.wait_for("the cluster to start");
    let stand = Stand::new("resp-differential");
    watch.may_ask(&stand);
    let mut pair = Pair {
        theirs: redis.connect(),
        ours: stand.connect(),
        watch: &watch,
    };
    pair.both(&["HELLO", protocol]);
    let mut random = Random(seed);
    let (mut in_transaction, mut counts) = (false, Counts::default());
    let (mut history, mut queued): (Vec<String>, Vec<Line>) = (Vec::new(), Vec::new());
    while counts.done < commands {
        let line = command(&mut random, in_transaction);
        if is_different(&line, in_transaction, &queued) {
            continue;
        }
        pair.prepare(&line, in_transaction);
        let reply = compare(&mut pair, &line, &queued, &mut history, &mut counts);
        if reply == Value::Simple(b"QUEUED".into()) {
            queued.push(line.clone());
        }
        match line[0].to_ascii_uppercase().as_slice() {
            b"MULTI" if reply == Value::Simple(b"OK".into()) => {
                in_transaction = true;
                queued.clear();
            }
            b"EXEC" | b"DISCARD" if line.len() == 1 => {
                in_transaction = false;
                queued.clear();
            }
            _ => {}
        }
        if random.chance(500) && !in_transaction {
            pair.both(&["FLUSHALL"]);
        }
    }
    let Counts {
        done,
        errors,
        nearly,
    } = counts;
    println!(
        "{done} commands were answered alike, {errors} of them by errors; {nearly} sums differed in their last digits"
    );
    assert!(errors > commands / 20 && errors < commands / 2, "{errors}");
    println!("{}", watch.summary());
    watch.wait_for("the gateway and the replicas to stop");
}

/// Sends a command to both. What Redis says.
fn compare(
    pair: &mut Pair<'_>,
    line: &Line,
    queued: &[Line],
    history: &mut Vec<String>,
    counts: &mut Counts,
) -> Value {
    let (expected, found) = (pair.redis(line), pair.gateway(line));
    history.push(format!("{} -> {expected:?}", text(line)));
    let name = line[0].to_ascii_uppercase();
    if expected != Value::Simple(b"QUEUED".into()) {
        for family in FAMILIES {
            (family.settle)(pair, &name, line, [&expected, &found]);
        }
    }
    let (expected, found) = (normal(line, queued, expected), normal(line, queued, found));
    if found != expected && (is_nearly(&found, &expected) || is_huge(&expected)) {
        match name.as_slice() {
            b"INCRBYFLOAT" => pair.both(&[b"SET", &line[1][..], b"1", b"KEEPTTL"]),
            b"HINCRBYFLOAT" => pair.both(&[b"HSET", &line[1][..], &line[2], b"1"]),
            _ => panic!("{} -> {expected:?}, but the gateway: {found:?}", text(line)),
        }
        counts.nearly += 1;
        return expected;
    }
    let has_float = |line: &Line| line[0].eq_ignore_ascii_case(b"INCRBYFLOAT");
    let tells = tells_time(line);
    if !is_alike(&found, &expected, tells)
        && queued.iter().any(has_float)
        && are_nearly(&found, &expected)
    {
        pair.both(&["FLUSHALL"]);
        counts.nearly += 1;
        return expected;
    }
    let recent = history.len().saturating_sub(30);
    assert!(
        is_alike(&found, &expected, tells_time(line)),
        "command {}:\n{}\nbut the gateway: {found:?}",
        counts.done,
        history[recent..].join("\n")
    );
    counts.done += 1;
    counts.errors += usize::from(expected.error().is_some());
    expected
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn replies_are_those_of_redis() {
    let commands = number("VIEWSTONE_COMMANDS").unwrap_or(10_000) as usize;
    differ(commands, number("VIEWSTONE_SEED").unwrap_or(1), "2");
}

#[test]
fn replies_of_version_three_are_those_of_redis() {
    let commands = number("VIEWSTONE_COMMANDS").unwrap_or(5_000) as usize;
    differ(commands, number("VIEWSTONE_SEED").unwrap_or(2), "3");
}

#[test]
fn a_transaction_foretells_what_its_commands_find() {
    let stand = Stand::new("resp-foretold");
    let (mut ours, mut other) = (stand.connect(), stand.connect());
    let mut ask = |lines: &[&str]| -> String {
        let mut last = String::new();
        for line in lines {
            last = resp::ask(&mut ours, line);
        }
        last
    };
    // What the commands before leave is seen; what MSETNX does is all or nothing.
    let found = ask(&[
        "MULTI",
        "SET a 1",
        "INCRBYFLOAT a 0.5",
        "INCRBYFLOAT a 0.25",
        "MSETNX a 7 b 7",
        "RENAME a b",
        "MSETNX a 8 c 8",
        "INCR a",
        "INCRBYFLOAT b 1",
        "EXEC",
    ]);
    assert_eq!(found, "[+OK, \"1.5\", \"1.75\", :0, +OK, :1, :9, \"2.75\"]");
    assert_eq!(ask(&["MGET a b c"]), "[\"9\", \"2.75\", \"8\"]");
    // WATCH holds, also for what commands of the connection would set.
    ask(&["WATCH a"]);
    resp::ask(&mut other, "SET a 10");
    let found = ask(&[
        "MULTI",
        "CLIENT SETNAME x",
        "HELLO 3",
        "INCRBYFLOAT a 1",
        "EXEC",
    ]);
    assert_eq!(
        (found.as_str(), ask(&["CLIENT GETNAME"]).as_str()),
        ("null", "null")
    );
    assert_eq!(ask(&["GET a"]), "\"10\"");
    // What cannot be foretold is refused whole.
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let soon = at.expect("after 1970").as_secs() + 20;
    for line in ["GETDEL a", "SET a 2 GET", &format!("EXPIREAT a {soon}")] {
        let found = ask(&["MULTI", "SET d 1", line, "INCRBYFLOAT a 1", "EXEC"]);
        assert!(found.starts_with("-EXECABORT"), "{line}: {found}");
        assert_eq!(ask(&["MGET a d"]), "[\"10\", null]");
    }
}

#[test]
fn foretold_transactions_of_many_connections_lose_nothing() {
    let stand = Stand::new("resp-foretold-many");
    let (connections, rounds) = (4, 40);
    thread::scope(|scope| {
        for _ in 0..connections {
            let mut connection = stand.connect();
            scope.spawn(move || {
                for _ in 0..rounds {
                    for line in ["MULTI", "INCRBYFLOAT n 0.5", "INCR m", "INCRBYFLOAT n 0.5"] {
                        resp::ask(&mut connection, line);
                    }
                    let found = resp::ask(&mut connection, "EXEC");
                    assert!(found.starts_with('['), "{found}");
                }
            });
        }
    });
    let total = connections * rounds;
    let found = resp::ask(&mut stand.connect(), "MGET n m");
    assert_eq!(found, format!("[\"{total}\", \"{total}\"]"));
}
