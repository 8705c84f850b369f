//! Others who do not read must not stop a replica: a backup that is paused, and a client that never reads its answers.
//! Either once held every message buffer there was.

#![cfg(feature = "cli")]

mod process;

use process::load::{Load, Shape};
use process::{CLUSTER, Directory, Replica, format, free_addresses, start, wait_for_status};
use rustix::process::Signal;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};
use storage::header::{PingClient, REQUEST_ALIGN, Request, SUB_HEADER_SIZE, SubHeader, Typed};
use viewstone::client::kv::operation;
use viewstone::state_machine::kv::wire::Operation;
use viewstone::storage;
use zerocopy::IntoBytes;

/// Far more than it takes, and far less than the half minute after which a stuck connection is given up anyway.
const HANG: Duration = Duration::from_secs(15);

fn load(addresses: &[String], value_size: usize) -> Load {
    let shape = Shape {
        writers: 16,
        value_size,
        pause: Duration::ZERO,
        short_deadlines: false,
    };
    Load::start(addresses, shape)
}

#[test]
fn a_paused_backup_costs_the_others_nothing() {
    let directory = Directory::new("paused");
    let addresses = free_addresses(3);
    let mut replicas: Vec<Replica> = (0..3)
        .map(|replica| {
            format(&directory.file(replica), replica, 3, &["--small"]);
            Replica::spawn(&mut start(&directory.file(replica), &addresses))
        })
        .collect();
    wait_for_status(&addresses, "a healthy cluster", |it| {
        it["health"] == "healthy"
    });
    // Values above 4 KiB travel in large buffers, of which there are few.
    let load = load(&addresses, 20_000);
    load.wait_for_more(100);
    replicas[2].signal(Signal::STOP);
    let begin = Instant::now();
    for _ in 0..20 {
        let took = load.wait_for_more(100);
        assert!(
            took < HANG,
            "100 changes took {took:?} beside a paused backup"
        );
    }
    println!(
        "2,000 changes beside a paused backup took {:?}",
        begin.elapsed()
    );
    replicas[2].signal(Signal::CONT);
    load.finish();
    for replica in &mut replicas {
        replica.assert_well();
    }
}

fn sealed<T: Typed>(mut header: T, body: &[u8]) -> Vec<u8> {
    let bytes = header.as_mut_bytes();
    let head = storage::header::Header::of_mut(bytes);
    head.frame.size += body.len() as u32;
    head.seal(body);
    [bytes, body].concat()
}

#[test]
fn a_client_that_never_reads_stops_nobody() {
    let directory = Directory::new("unread");
    let addresses = free_addresses(1);
    format(&directory.file(0), 0, 1, &["--small"]);
    let mut replica = Replica::ready(&mut start(&directory.file(0), &addresses));
    let load = load(&addresses, 100);
    load.wait_for_more(100);
    let mut rude = TcpStream::connect(&addresses[0]).expect("it listens");
    rude.set_write_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    let mut hello = PingClient::new(CLUSTER, 0, 0);
    hello.client = 77;
    rude.write_all(&sealed(hello, &[])).expect("it reads");
    let begin = Instant::now();
    let mut sent = 0;
    for request in 1..=20_000 {
        let operation = operation(Operation::Count);
        let sub = SubHeader {
            client: 77,
            session: 0,
            request,
            size: 0,
            operation,
            reserved: [0; 14],
        };
        const { assert!(SUB_HEADER_SIZE.is_multiple_of(REQUEST_ALIGN)) };
        let mut header = Request::new(CLUSTER, 0, 0);
        (header.client, header.request) = (77, request);
        if rude.write_all(&sealed(header, sub.as_bytes())).is_err() {
            break; // not read any more, or closed: either is right
        }
        sent += 1;
    }
    for _ in 0..20 {
        let took = load.wait_for_more(100);
        assert!(
            took < HANG,
            "100 changes took {took:?} beside a client that does not read"
        );
    }
    println!(
        "{sent} requests sent and no answer read; 2,000 changes took {:?}",
        begin.elapsed()
    );
    load.finish();
    replica.assert_well();
}
