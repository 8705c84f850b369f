//! The typed key-value client and the shell, against a small replica that executes by the machine's model.

#![cfg(feature = "cli")]

mod common;

use common::{CLUSTER, Responder};
use std::net::SocketAddr;
use std::ops::Bound;
use viewstone::cli::cluster::ClusterArgs;
use viewstone::cli::repl::{ReplArgs, run};
use viewstone::client::kv::{KvClient, KvError, Swap};
use viewstone::client::{ClientOptions, Definite};
use viewstone::state_machine::kv::model::Model;
use viewstone::state_machine::kv::wire::{Item, Scan, Status};

fn start() -> SocketAddr {
    let limits = common::limits();
    let mut model = Model::new();
    let machine = move |operation: u16, body: &[u8]| {
        assert_eq!(operation >> 8, 1);
        let answer = model.apply(&limits, operation as u8, body);
        answer.expect("the client sends valid requests")
    };
    Responder::new(Box::new(machine)).start().1
}

fn shell(address: SocketAddr, command: &str) -> u8 {
    let args = ReplArgs {
        cluster: ClusterArgs {
            addresses: vec![address.to_string()],
            cluster: CLUSTER,
            timeout: std::time::Duration::from_secs(10),
        },
        command: Some(command.to_owned()),
        json: command.len().is_multiple_of(2),
    };
    run(&args).expect("it runs")
}

#[test]
fn typed_calls_do_what_they_say() {
    let options = ClientOptions::new(CLUSTER, [start().to_string()]);
    let client = KvClient::connect(&options).expect("it starts");
    assert_eq!(client.get(b"a"), Ok(None));
    let version = client.put(b"a", b"1").expect("it is put");
    let found = client.get(b"a").expect("an answer").expect("it is there");
    assert_eq!(
        (found.value.as_slice(), found.version),
        (&b"1"[..], version)
    );
    let missed = client.compare_and_set(b"a", Some(b"2"), b"3");
    assert_eq!(missed, Ok(Swap::Mismatch(version)));
    assert_eq!(
        client.compare_and_set(b"b", Some(b"2"), b"3"),
        Ok(Swap::Mismatch(0))
    );
    let swapped = client.compare_and_set(b"a", Some(b"1"), b"3");
    assert!(matches!(swapped, Ok(Swap::Done(newer)) if newer > version));
    assert!(matches!(
        client.compare_and_set(b"b", None, b"4"),
        Ok(Swap::Done(_))
    ));
    let results = client.batch(&[
        Item::Put {
            key: b"c",
            value: b"5",
        },
        Item::Delete { key: b"x" },
        Item::Get {
            key: b"c",
            size_max: 10,
        },
    ]);
    let results = results.expect("an answer");
    let statuses: Vec<_> = results.iter().map(|result| result.status).collect();
    assert_eq!(statuses, [Status::Done, Status::NotFound, Status::Value]);
    assert_eq!(results[2].value.as_deref(), Some(&b"5"[..]));
    let scan = Scan {
        from: Bound::Excluded(b"a"),
        ..Scan::ALL
    };
    let page = client.scan(&scan).expect("an answer");
    let keys: Vec<_> = page
        .entries
        .iter()
        .map(|entry| entry.key.as_slice())
        .collect();
    assert_eq!(keys, [b"b", b"c"]);
    assert_eq!(client.count().expect("an answer").count, 3);
    assert!(client.delete(b"a").expect("an answer").is_some());
    assert_eq!(client.delete(b"a"), Ok(None));
    assert_eq!(client.put(b"", b"1"), Err(KvError::Key(0)));
    assert_eq!(client.put(&[7; 257], b"1"), Err(KvError::Key(257)));
    let huge = client
        .put(b"huge", &vec![0; 2 << 20])
        .expect_err("too large");
    assert!(matches!(huge, KvError::Call(error) if matches!(error,
        viewstone::client::CallError::Definite(Definite::TooLarge { .. }))));
}

#[test]
fn the_exit_status_is_the_last_statement_s() {
    let address = start();
    assert_eq!(
        shell(
            address,
            "put a 1\nput 'b c' \\x00\\xff\nget a\nscan limit 1"
        ),
        0
    );
    assert_eq!(shell(address, "frob\nget a"), 0);
    assert_eq!(shell(address, "get a\nfrob"), 1);
    assert_eq!(
        shell(address, "scan a c\ncount\ndelete a\nget a\ncas a absent 2"),
        0
    );
    assert_eq!(shell(address, "put '' x"), 1);
    assert_eq!(shell(address, "get a\nexit\nfrob"), 0);
    assert_eq!(shell(address, ""), 0);
}
