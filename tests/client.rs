//! The threaded client against a small replica: real sockets on a port the system chooses.

mod common;

use common::{CLUSTER, Responder};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use viewstone::client::{CallError, Client, ClientOptions, Definite, Kind, NotSent};

const ECHO_WRITE: u16 = 0x0101;
const ECHO_READ: u16 = 0x0102;

fn client(address: SocketAddr, sessions: usize) -> Client {
    let mut options = ClientOptions::new(CLUSTER, [address.to_string()]);
    options.sessions = sessions;
    options.deadline = Duration::from_mins(1);
    Client::connect(&options).expect("the options make sense")
}

#[test]
fn a_call_is_answered() {
    let (_, address) = Responder::echo().start();
    let client = client(address, 4);
    assert_eq!(
        client.write(ECHO_WRITE, b"one").expect("an answer").body,
        b"one"
    );
    assert_eq!(
        client.read(ECHO_READ, b"two").expect("an answer").body,
        b"two"
    );
    let large = vec![7; 900 << 10];
    assert_eq!(
        client.write(ECHO_WRITE, &large).expect("an answer").body,
        large
    );
    let huge = client
        .read(ECHO_READ, &vec![7; 1 << 20])
        .expect_err("too large");
    assert!(matches!(
        huge,
        CallError::Definite(Definite::TooLarge { .. })
    ));
}

#[test]
fn names_are_looked_up() {
    let (_, address) = Responder::echo().start();
    // One of the two families has nobody listening: the other is tried.
    let addresses = [format!("localhost:{}", address.port())];
    let client = Client::connect(&ClientOptions::new(CLUSTER, addresses)).expect("it starts");
    assert_eq!(client.read(ECHO_READ, b"x").expect("an answer").body, b"x");
}

#[test]
fn a_thousand_calls_in_flight_take_one_connection_and_one_thread() {
    let (responder, address) = Responder::echo().start();
    let client = Arc::new(client(address, 256));
    let deadline = Duration::from_mins(1);
    let calls: Vec<_> = (0..1000u32)
        .map(|n| {
            let (kind, operation) = if n % 3 == 0 {
                (Kind::Read, ECHO_READ)
            } else {
                (Kind::Write, ECHO_WRITE)
            };
            (
                n,
                client.submit(kind, operation, &n.to_le_bytes(), deadline),
            )
        })
        .collect();
    for (n, call) in calls {
        assert_eq!(call.wait().expect("an answer").body, n.to_le_bytes());
    }
    assert_eq!(responder.connections.load(Ordering::Relaxed), 1);
    assert!(responder.sessions() <= 256);
}

#[test]
fn lost_connections_are_not_noticed_and_nothing_is_done_twice() {
    let mut responder = Responder::echo();
    responder.break_after = 20;
    let (responder, address) = responder.start();
    let client = client(address, 8);
    let deadline = Duration::from_mins(1);
    let submit = |n: u32| client.submit(Kind::Write, ECHO_WRITE, &n.to_le_bytes(), deadline);
    let calls: Vec<_> = (0..200).map(|n| (n, submit(n))).collect();
    for (n, call) in calls {
        assert_eq!(call.wait().expect("an answer").body, n.to_le_bytes());
    }
    assert_eq!(responder.executed.load(Ordering::Relaxed), 200);
    assert!(responder.connections.load(Ordering::Relaxed) >= 10);
}

#[test]
fn a_deadline_holds_and_an_unknown_outcome_can_be_settled() {
    let (responder, address) = Responder::echo().start();
    let client = client(address, 1);
    client.write(ECHO_WRITE, b"first").expect("an answer");
    responder.mute.store(true, Ordering::Relaxed);
    let start = Instant::now();
    let call = client.submit(
        Kind::Write,
        ECHO_WRITE,
        b"second",
        Duration::from_millis(50),
    );
    let Err(CallError::Indeterminate(unknown)) = call.wait() else {
        panic!("it was sent and not answered")
    };
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(unknown.request, 2);
    responder.mute.store(false, Ordering::Relaxed);
    let reply = client.resolve(&unknown, Duration::from_mins(1)).wait();
    assert_eq!(reply.expect("an answer").body, b"second");
    assert_eq!(responder.executed.load(Ordering::Relaxed), 2);
}

#[test]
fn nobody_listening_means_not_sent_and_says_why() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.local_addr().expect("it is bound")
    };
    let client = client(address, 1);
    let call = client.submit(Kind::Write, ECHO_WRITE, b"x", Duration::from_millis(100));
    assert_eq!(call.wait(), Err(NotSent::Deadline.into()));
    let troubles = client.troubles();
    assert!(troubles[0].1.contains("refused"), "{troubles:?}");
}

#[test]
fn dropping_a_client_ends_its_calls() {
    let (responder, address) = Responder::echo().start();
    responder.mute.store(true, Ordering::Relaxed);
    let client = client(address, 1);
    let call = client.submit(Kind::Read, ECHO_READ, b"x", Duration::from_mins(10));
    drop(client);
    assert!(call.wait().is_err());
}
