//! The typed key-value client and the shell, against a small replica that executes by the machine's model.

#![cfg(feature = "cli")]

mod common;

use common::{CLUSTER, Responder};
use std::net::SocketAddr;
use std::ops::Bound;
use viewstone::cli::cluster::ClusterArgs;
use viewstone::cli::repl::{ReplArgs, run};
use viewstone::client::kv::{Change, KvClient, KvError, Swap};
use viewstone::client::{ClientOptions, Definite};
use viewstone::state_machine::kv::model::Model;
use viewstone::state_machine::kv::wire::{
    Condition, Expiry, ExpiryCondition, Item, Scan, SetCondition, SetOptions, Status,
};

fn start() -> SocketAddr {
    let limits = common::limits();
    let mut model = Model::new();
    let mut now_ns = 0;
    let machine = move |operation: u16, body: &[u8]| {
        assert_eq!(operation >> 8, 1);
        // A millisecond from call to call.
        now_ns += 1_000_000;
        let answer = model.apply(&limits, now_ns, operation as u8, body);
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
        command: vec![command.into()],
        json: command.len().is_multiple_of(2),
        timing: false,
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
    assert!(client.put(b"", b"1").is_ok());
    assert_eq!(client.put(&[7; 513], b"1"), Err(KvError::Key(513)));
    let huge = client
        .put(b"huge", &vec![0; 2 << 20])
        .expect_err("too large");
    assert!(matches!(huge, KvError::Call(error) if matches!(error,
        viewstone::client::CallError::Definite(Definite::TooLarge { .. }))));
}

#[test]
fn typed_calls_of_numbers_bytes_and_expiries_do_what_they_say() {
    let options = ClientOptions::new(CLUSTER, [start().to_string()]);
    let client = KvClient::connect(&options).expect("it starts");
    assert_eq!(client.increment(b"n", 40), Ok(40));
    assert_eq!(client.increment(b"n", 2), Ok(42));
    assert_eq!(client.increment(b"n", i64::MAX), Err(KvError::Overflow));
    assert_eq!(client.append(b"n", b"nd"), Ok(4));
    assert_eq!(client.increment(b"n", 1), Err(KvError::NotANumber));
    assert_eq!(client.set_range(b"n", 3, b"t!"), Ok(5));
    let range = client.get_range(b"n", -3, -1).expect("an answer");
    assert_eq!(range.map(|it| it.value).as_deref(), Some(&b"nt!"[..]));
    let before = client.get_and_put(b"n", b"new").expect("an answer");
    assert_eq!(before.map(|it| it.value).as_deref(), Some(&b"42nt!"[..]));
    let version = client
        .stat(b"n")
        .expect("an answer")
        .expect("it is there")
        .version;
    assert_eq!(
        client.compare_version_and_set(b"n", version + 1, b"x"),
        Ok(Swap::Mismatch(version))
    );
    assert_eq!(
        client.compare_version_and_set(b"n", version, b"x"),
        Ok(Swap::Done(version + 1))
    );
    let options = SetOptions {
        condition: SetCondition::Absent,
        expiry: Expiry::In(1000),
        old: true,
    };
    let refused = client.set(b"n", b"y", options).expect("an answer");
    assert!(matches!(refused, Change::Mismatch { current: Some(it), .. } if it.value == b"x"));
    assert!(
        client
            .set(b"short", b"y", options)
            .is_ok_and(|it| it.is_done())
    );
    let expiry = |key: &[u8]| {
        client
            .stat(key)
            .expect("an answer")
            .and_then(|it| it.expiry_ms)
    };
    assert!(expiry(b"short").is_some());
    assert_eq!(client.persist(b"short"), Ok(true));
    assert_eq!(
        (client.persist(b"short"), expiry(b"short")),
        (Ok(false), None)
    );
    let at_once = client.expire(b"short", Expiry::At(1), ExpiryCondition::Always);
    assert!(at_once.is_ok_and(|it| it.is_done()));
    assert_eq!(client.exists(b"short"), Ok(false));
    let renamed = client.rename(b"n", b"m", true).expect("an answer");
    assert!(renamed.is_done());
    assert_eq!(client.rename(b"n", b"m", true), Ok(Change::NotFound));
    let taken = client.get_and_delete(b"m").expect("an answer");
    assert_eq!(taken.map(|it| it.value).as_deref(), Some(&b"x"[..]));
    assert_eq!(client.get_and_delete(b"m"), Ok(None));
    for key in [&b"p1"[..], b"p2", b"q"] {
        client.put(key, b"").expect("it is put");
    }
    let page = client.scan_prefix(b"p", None, 1).expect("an answer");
    assert_eq!(page.next.as_deref(), Some(&b"p1"[..]));
    let page = client
        .scan_prefix(b"p", page.next.as_deref(), 5)
        .expect("an answer");
    assert_eq!((page.entries.len(), page.next), (1, None));
    assert!(client.clear().is_ok());
    assert_eq!(client.count().map(|it| it.count), Ok(0));
}

#[test]
fn a_transaction_does_one_list_or_the_other() {
    let options = ClientOptions::new(CLUSTER, [start().to_string()]);
    let client = KvClient::connect(&options).expect("it starts");
    let conditions = [Condition::absent(b"a"), Condition::version(b"b", 0)];
    let then = [
        Item::Put {
            key: b"a",
            value: b"1",
        },
        Item::Stat { key: b"a" },
    ];
    let otherwise = [Item::Get {
        key: b"a",
        size_max: 10,
    }];
    let run = || {
        client
            .transaction(&conditions, &then, &otherwise)
            .expect("an answer")
    };
    let first = run();
    assert!(first.succeeded);
    assert_eq!(first.results[1].stat.map(|it| it.size), Some(1));
    let second = run();
    assert!(!second.succeeded);
    assert_eq!(second.results[0].value.as_deref(), Some(&b"1"[..]));
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
    assert_eq!(shell(address, "put '' x"), 0);
    assert_eq!(shell(address, &format!("put {} x", "k".repeat(513))), 1);
    assert_eq!(
        shell(
            address,
            "incr n 4\nstat n\nput s v in 5 if absent\nexpire s never\nprefix s limit 2\n\
             transaction if n = 4 then incr n ; get s else count\nrename n m\ntake m\nclear"
        ),
        0
    );
    assert_eq!(shell(address, "put n x\nincr n"), 1);
    assert_eq!(shell(address, "get a\nexit\nfrob"), 0);
    assert_eq!(shell(address, ""), 0);
}
