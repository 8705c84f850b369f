//! The gateway in front of real replicas that are killed: commands wait, none is lost, none is done twice, and where
//! that cannot be known the client is told.

mod process;
mod resp;

use process::cluster::Cluster;
use process::{CLUSTER, rounds};
use resp::{HANG, Running};
use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use viewstone::client::ClientOptions;
use viewstone::resp::Value;
use viewstone::resp::gateway::GatewayOptions;

/// Of the gateway's clients: enough for any of these failures, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(25);

fn gateway(cluster: &Cluster, deadline: Duration) -> Running {
    let mut client = ClientOptions::new(CLUSTER, cluster.addresses.iter().cloned());
    client.deadline = deadline;
    Running::new(&GatewayOptions::new("127.0.0.1:0", client))
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
}

/// Increments until told to stop, eight at a time. Each reply is larger than the one before.
fn increment(gateway: &Running, key: &str, stop: &AtomicBool, counts: &Counts) {
    let mut connection = gateway.connect();
    let mut last = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..8 {
            connection.send(&["INCR", key]).expect("it reads");
        }
        for _ in 0..8 {
            match connection.receive().expect("it answers") {
                Value::Integer(number) => {
                    assert!(number > last, "{number} after {last}");
                    last = number;
                    counts.done.fetch_add(1, Ordering::Relaxed);
                }
                Value::Error(text) if text.starts_with(b"UNKNOWN ") => {
                    counts.unknown.fetch_add(1, Ordering::Relaxed);
                }
                Value::Error(text) if text.starts_with(b"CLUSTERDOWN ") => {
                    counts.refused.fetch_add(1, Ordering::Relaxed);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn increments_are_neither_lost_nor_doubled_when_primaries_are_killed() {
    let mut cluster = Cluster::new("resp-failover", 3, &["--small"]);
    cluster.start_all();
    let gateway = gateway(&cluster, PATIENCE);
    let (stop, counts) = (AtomicBool::new(false), Counts::default());
    let kills = rounds(3);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| increment(&gateway, "n", &stop, &counts));
        }
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(400));
            let primary = cluster.primary();
            let before = counts.done.load(Ordering::Relaxed);
            cluster.kill(primary);
            let begin = Instant::now();
            while counts.done.load(Ordering::Relaxed) < before + 100 {
                assert!(
                    begin.elapsed() < HANG,
                    "the gateway does not find the new primary"
                );
                thread::sleep(Duration::from_millis(5));
            }
            println!(
                "a hundred increments within {:.1?} of the kill",
                begin.elapsed()
            );
            cluster.start(primary);
            cluster.wait_healthy();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let found = gateway.connect().call(&["GET", "n"]).expect("it answers");
    let Value::Bulk(found) = found else {
        panic!("{found:?}")
    };
    let found: u64 = String::from_utf8_lossy(&found).parse().expect("a number");
    let [done, unknown, refused] =
        [&counts.done, &counts.unknown, &counts.refused].map(|count| count.load(Ordering::Relaxed));
    println!("{done} done, {unknown} unknown, {refused} refused; the counter is {found}");
    assert!(done > 0 && found >= done && found <= done + unknown);
    assert_eq!((unknown, refused), (0, 0));
    drop(gateway);
    cluster.stop_all_well();
}

#[test]
fn redis_benchmark_does_not_notice_that_a_primary_is_killed() {
    const REQUESTS: &str = "30000";
    let mut cluster = Cluster::new("resp-benchmark", 3, &["--small"]);
    cluster.start_all();
    let gateway = gateway(&cluster, PATIENCE);
    let port = gateway.address.rsplit(':').next().expect("host and port");
    let mut command = Command::new("redis-benchmark");
    command.args([
        "-p", port, "-t", "incr", "-n", REQUESTS, "-c", "24", "-P", "4", "-e", "-q",
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return resp::skip("redis-benchmark", "Debian: apt-get install redis-tools");
        }
        Err(error) => panic!("{error}"),
    };
    let mut connection = gateway.connect();
    let begin = Instant::now();
    let mut counted = || match connection.call(&["GET", "counter:__rand_int__"]) {
        Ok(Value::Bulk(count)) => String::from_utf8_lossy(&count).into_owned(),
        Ok(Value::Null) => "0".to_owned(),
        other => panic!("{other:?}"),
    };
    while counted().parse::<u32>().expect("a number") < 3000 {
        assert!(begin.elapsed() < HANG, "the benchmark does not begin");
    }
    cluster.kill(cluster.primary());
    let output = child.wait_with_output().expect("our child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains("Error"), "{text}");
    println!(
        "{}",
        text.split('\r').next_back().unwrap_or_default().trim()
    );
    // Every request was answered by a number: so each was executed, and none twice.
    assert_eq!(counted(), REQUESTS);
}

#[test]
fn without_a_quorum_a_client_is_told_that_the_outcome_is_unknown() {
    let mut cluster = Cluster::new("resp-unknown", 3, &["--small"]);
    cluster.start_all();
    let gateway = gateway(&cluster, Duration::from_secs(1));
    let mut connection = gateway.connect();
    let ok = Value::Simple(b"OK".into());
    assert_eq!(connection.call(&["SET", "n", "0"]).expect("it answers"), ok);
    let primary = cluster.primary();
    for replica in (0..3).filter(|&replica| replica != primary) {
        cluster.kill(replica);
    }
    let reply = connection.call(&["INCR", "n"]).expect("it answers");
    let text = reply
        .error()
        .map(|text| String::from_utf8_lossy(text).into_owned());
    let text = text.unwrap_or_else(|| panic!("{reply:?}"));
    assert!(text.starts_with("UNKNOWN "), "{text}");
    let reply = connection.call(&["GET", "n"]).expect("it answers");
    let text = reply
        .error()
        .map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(
        text.is_some_and(|text| text.starts_with("CLUSTERDOWN ")),
        "{reply:?}"
    );
    // Nothing is known of what is to be watched, so the transaction will not be executed.
    let mut watching = gateway.connect();
    let reply = watching.call(&["WATCH", "n"]).expect("it answers");
    assert!(reply.error().is_some(), "{reply:?}");
    // What needs nothing of the cluster goes on.
    let pong = Value::Simple(b"PONG".into());
    assert_eq!(connection.call(&["PING"]).expect("it answers"), pong);
    for replica in (0..3).filter(|&replica| replica != primary) {
        cluster.start(replica);
    }
    cluster.wait_healthy();
    let begin = Instant::now();
    let found = loop {
        match connection.call(&["GET", "n"]).expect("it answers") {
            Value::Bulk(found) => break found,
            _ => assert!(begin.elapsed() < HANG, "it does not come back"),
        }
    };
    let mut set_under_watch = || {
        for line in [&["MULTI"][..], &["SET", "n", "7"]] {
            watching.call(line).expect("it answers");
        }
        watching.call(&["EXEC"]).expect("it answers")
    };
    assert_eq!(set_under_watch(), Value::Null);
    assert_eq!(set_under_watch(), Value::Array(vec![ok]));
    // Once, or not at all.
    assert!(found == b"0" || found == b"1", "{}", found.escape_ascii());
    println!("the outcome that was unknown: {}", found.escape_ascii());
    drop(gateway);
    cluster.stop_all_well();
}

/// Of many commands only a few are on their way at once. The others wait, but not for the patience of those before them and
/// their own.
#[test]
fn without_a_quorum_no_command_waits_much_longer_than_its_deadline() {
    const CONNECTIONS: usize = 12;
    let mut cluster = Cluster::new("resp-patience", 3, &["--small"]);
    cluster.start_all();
    let mut client = ClientOptions::new(CLUSTER, cluster.addresses.iter().cloned());
    client.deadline = Duration::from_secs(1);
    let mut options = GatewayOptions::new("127.0.0.1:0", client);
    options.client.sessions = 1;
    let gateway = Running::new(&options);
    let ok = Value::Simple(b"OK".into());
    let set = ["SET", "n", "0"];
    assert_eq!(gateway.connect().call(&set).expect("it answers"), ok);
    let primary = cluster.primary();
    for replica in (0..3).filter(|&replica| replica != primary) {
        cluster.kill(replica);
    }
    // Each so large that no other has room beside it; and some that take several requests.
    let value = "v".repeat(50_000);
    let begin = Instant::now();
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| gateway.connect()).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        let key = format!("key-{number}");
        for _ in 0..3 {
            connection.send(&["SET", &key, &value]).expect("it reads");
            connection
                .send(&["INCRBYFLOAT", "n", "1"])
                .expect("it reads");
        }
    }
    for connection in &mut connections {
        for _ in 0..6 {
            let reply = connection.receive().expect("it answers");
            assert!(reply.error().is_some(), "{reply:?}");
        }
    }
    let took = begin.elapsed();
    println!(
        "{} commands were refused within {took:.1?}",
        6 * CONNECTIONS
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
}
