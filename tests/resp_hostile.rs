//! What comes from outside is hostile: it gets an error or is closed, memory stays bounded, and the others do not notice.

mod resp;

use resp::{HANG, Stand, ask, call};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use viewstone::resp::{Connection, Value};

/// A number in the answer to INFO.
fn info(connection: &mut Connection, field: &str) -> u64 {
    let reply = call(connection, "INFO");
    let Value::Bulk(text) = reply else {
        panic!("{reply:?}")
    };
    let text = String::from_utf8(text).expect("INFO is text");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("the field is there").parse().expect("a number")
}

/// Sends bytes, and returns all that comes until the gateway closes.
fn last_words(stand: &Stand, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&stand.gateway.address).expect("it listens");
    stream.set_read_timeout(Some(HANG)).expect("a timeout");
    stream.write_all(bytes).expect("it is read");
    let mut words = Vec::new();
    stream
        .read_to_end(&mut words)
        .expect("it is closed in order");
    String::from_utf8_lossy(&words).into_owned()
}

#[test]
fn whoever_breaks_the_protocol_is_told_so_and_closed() {
    let stand = Stand::new("resp-broken");
    for (bytes, words) in [
        (
            "*x\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            "*1048577\r\n",
            "-ERR Protocol error: invalid multibulk length\r\n",
        ),
        (
            "*1\r\n$-1\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            "*1\r\n$536870913\r\n",
            "-ERR Protocol error: invalid bulk length\r\n",
        ),
        (
            "*1\r\n*1\r\n*1\r\n",
            "-ERR Protocol error: expected '$', got '*'\r\n",
        ),
        (
            "get 'a\r\n",
            "-ERR Protocol error: unbalanced quotes in request\r\n",
        ),
        (
            "PING\r\n*2\r\n:1\r\n",
            "+PONG\r\n-ERR Protocol error: expected '$', got ':'\r\n",
        ),
        (
            "SET a 1\r\n*-x\r\nPING\r\n",
            "+OK\r\n-ERR Protocol error: invalid multibulk length\r\n",
        ),
    ] {
        assert_eq!(last_words(&stand, bytes.as_bytes()), words, "{bytes:?}");
    }
    let endless = vec![b'a'; (64 << 10) + 1];
    let words = "-ERR Protocol error: too big inline request\r\n";
    assert_eq!(last_words(&stand, &endless), words);
    assert_eq!(ask(&mut stand.connect(), "GET a"), "\"1\"");
}

#[test]
fn a_value_or_a_transaction_too_large_for_the_cluster_is_an_error_of_its_own() {
    let stand = Stand::new("resp-oversize");
    let mut connection = stand.connect();
    let large = "v".repeat(2 << 20);
    let error = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(ask(&mut connection, &format!("SET a {large}")), error);
    let key = "k".repeat(513);
    assert_eq!(
        ask(&mut connection, &format!("GET {key}")),
        "-ERR key is longer than 512 bytes"
    );
    assert_eq!(ask(&mut connection, "MULTI"), "+OK");
    let half = "v".repeat(10_000);
    for number in 0..100 {
        assert_eq!(
            ask(&mut connection, &format!("SET k{number} {half}")),
            "+QUEUED"
        );
    }
    let reply = ask(&mut connection, "EXEC");
    assert!(reply.starts_with("-EXECABORT "), "{reply}");
    let mut keys = vec!["DEL".to_owned()];
    keys.extend((0..100_000).map(|number| format!("key:{number}")));
    let reply = connection.call(&keys).expect("a reply");
    assert!(reply.error().is_some(), "{reply:?}");
    assert_eq!(ask(&mut connection, "DBSIZE"), ":0");
}

#[test]
fn half_commands_and_idle_connections_stop_nobody() {
    const IDLE: usize = 1500;
    let stand = Stand::new("resp-idle");
    let mut idle = Vec::new();
    for number in 0..IDLE {
        let mut stream = TcpStream::connect(&stand.gateway.address).expect("there is room");
        if number % 3 == 0 {
            stream
                .write_all(b"*3\r\n$3\r\nSET\r\n$1\r\na")
                .expect("it is read");
        }
        idle.push(stream);
    }
    let mut connection = stand.connect();
    let begin = Instant::now();
    for number in 0..200 {
        assert_eq!(ask(&mut connection, &format!("SET k {number}")), "+OK");
        assert_eq!(ask(&mut connection, "GET k"), format!("\"{number}\""));
    }
    println!(
        "400 commands beside {IDLE} connections: {:.1?}",
        begin.elapsed()
    );
    assert!(info(&mut connection, "connected_clients") > IDLE as u64);
    assert!(info(&mut connection, "used_memory") < 32 << 20);
    // A half command may become a whole one.
    idle[0].write_all(b"\r\n$1\r\n7\r\n").expect("it is read");
    let mut reply = [0; 5];
    idle[0].set_read_timeout(Some(HANG)).expect("a timeout");
    idle[0].read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"+OK\r\n");
    drop(idle);
    let begin = Instant::now();
    while info(&mut connection, "connected_clients") > 1 {
        assert!(begin.elapsed() < HANG, "the connections are not given up");
    }
    assert_eq!(ask(&mut connection, "GET a"), "\"7\"");
}

#[test]
fn whoever_does_not_read_is_closed_and_costs_little_memory() {
    let stand = Stand::with("resp-unread", |options| {
        options.output_size_max = 1 << 20;
        options.patience = Duration::from_secs(1);
    });
    let mut connection = stand.connect();
    let value = "v".repeat(20_000);
    assert_eq!(ask(&mut connection, &format!("SET large {value}")), "+OK");
    let mut deaf = TcpStream::connect(&stand.gateway.address).expect("there is room");
    deaf.set_write_timeout(Some(HANG)).expect("a timeout");
    let gets = b"GET large\r\n".repeat(1000);
    let begin = Instant::now();
    let mut highest = 0;
    // 20 MB of replies for each round: it is cut long before it has had ten thousand.
    loop {
        assert!(begin.elapsed() < HANG, "it is not closed");
        highest = highest.max(info(&mut connection, "used_memory"));
        deaf.set_nonblocking(true).expect("a socket");
        match deaf.write(&gets) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(_) => break, // cut
        }
    }
    println!(
        "cut after {:.1?}; memory at most {highest}",
        begin.elapsed()
    );
    assert!(highest < 8 << 20, "{highest}");
    assert_eq!(info(&mut connection, "viewstone_connections_cut"), 1);
    assert_eq!(ask(&mut connection, "STRLEN large"), ":20000");
}

#[test]
fn more_connections_than_allowed_are_told_so() {
    let stand = Stand::with("resp-many", |options| options.connections_max = 10);
    let mut connections: Vec<Connection> = (0..10).map(|_| stand.connect()).collect();
    for connection in &mut connections {
        assert_eq!(ask(connection, "PING"), "+PONG");
    }
    assert_eq!(
        last_words(&stand, b""),
        "-ERR max number of clients reached\r\n"
    );
    connections.pop();
    let begin = Instant::now();
    loop {
        let mut connection = stand.connect();
        if connection
            .call(&["PING"])
            .is_ok_and(|reply| reply.error().is_none())
        {
            break;
        }
        assert!(begin.elapsed() < HANG, "its place is not free");
    }
}

#[test]
fn what_came_before_the_end_of_a_connection_is_answered() {
    let stand = Stand::new("resp-end");
    let mut stream = TcpStream::connect(&stand.gateway.address).expect("it listens");
    stream
        .write_all(b"SET a 1\r\nINCR a\r\nGET a\r\nGET")
        .expect("it is read");
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("a socket");
    stream.set_read_timeout(Some(HANG)).expect("a timeout");
    let mut words = String::new();
    stream
        .read_to_string(&mut words)
        .expect("it is closed in order");
    assert_eq!(words, "+OK\r\n:2\r\n$1\r\n2\r\n");
    assert_eq!(
        last_words(&stand, b"PING\r\nQUIT\r\nPING\r\n"),
        "+PONG\r\n+OK\r\n"
    );
}

/// Of a client that says that it sends nothing more, all commands are executed, also those that were not looked at while its
/// replies waited to be read.
#[test]
fn commands_sent_before_a_half_close_are_all_answered_when_memory_is_short() {
    const COMMANDS: usize = 3000;
    let stand = Stand::with("resp-half-close", |options| options.memory_max = 1);
    let value = "v".repeat(200);
    let mut connection = stand.connect();
    assert_eq!(ask(&mut connection, &format!("SET a {value}")), "+OK");
    let mut stream = TcpStream::connect(&stand.gateway.address).expect("it listens");
    stream.set_read_timeout(Some(HANG)).expect("a timeout");
    let commands = "GET a\r\n".repeat(COMMANDS);
    stream.write_all(commands.as_bytes()).expect("it is read");
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("connected");
    let mut words = String::new();
    stream
        .read_to_string(&mut words)
        .expect("it is closed in order");
    assert_eq!(words.matches(&value).count(), COMMANDS);
}
