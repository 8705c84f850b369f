//! The load generator against a small key-value replica: what it reports, and that it notices what is lost.

#![cfg(feature = "cli")]

mod common;

use clap::Parser;
use common::{CLUSTER, Responder};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use viewstone::cli::bench::{BenchArgs, BenchError, run};
use viewstone::state_machine::kv::wire::{Item, Operation, ReplyHeader, Status};
use zerocopy::IntoBytes;

type Map = Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

fn args(more: &[&str]) -> BenchArgs {
    let few = [
        "bench",
        "--clients",
        "8",
        "--count",
        "2000",
        "--keys",
        "64",
        "--timeout",
        "60s",
    ];
    Cli::parse_from(few.iter().chain(more)).bench
}

/// Executes one item as the real machine answers it.
fn item(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, item: &Item<'_>) -> (Status, Vec<u8>) {
    match *item {
        Item::Get { key, .. } => match map.get(key) {
            Some(value) => (Status::Value, value.clone()),
            None => (Status::NotFound, Vec::new()),
        },
        Item::Put { key, value } => {
            map.insert(key.to_vec(), value.to_vec());
            (Status::Done, Vec::new())
        }
        Item::Delete { key } if map.remove(key).is_some() => (Status::Done, Vec::new()),
        _ => (Status::NotFound, Vec::new()),
    }
}

/// What the real machine says of results.
fn reply(results: &[(Status, Vec<u8>)]) -> Vec<u8> {
    let header = ReplyHeader::new(Status::Done, results.len() as u32, 0);
    let mut bytes = header.as_bytes().to_vec();
    for (status, value) in results {
        bytes.push(*status as u8);
        if *status == Status::Value {
            bytes.extend(1u64.to_le_bytes());
            bytes.extend((value.len() as u32).to_le_bytes());
            bytes.extend(value);
        }
    }
    bytes
}

fn kv(map: &Map, cluster: u128) -> SocketAddr {
    let map = Arc::clone(map);
    let machine = move |operation: u16, body: &[u8]| {
        let mut map = map.lock().expect("nobody panics here");
        let (first, mut rest) = Item::decode(body).expect("an item");
        if operation != 0x0100 | Operation::Batch as u16 {
            return reply(&[item(&mut map, &first)]);
        }
        let mut results = vec![item(&mut map, &first)];
        while let Some((next, more)) = Item::decode(rest) {
            results.push(item(&mut map, &next));
            rest = more;
        }
        reply(&results)
    };
    let mut responder = Responder::new(Box::new(machine));
    responder.cluster = cluster;
    responder.start().1
}

fn remote(more: &[&str]) -> Result<u8, BenchError> {
    let address = kv(&Map::default(), CLUSTER);
    let (address, cluster) = (address.to_string(), CLUSTER.to_string());
    let target = ["--addresses", &address, "--cluster", &cluster];
    run(&args(&[&target, more].concat()))
}

#[test]
fn nothing_is_missing_of_a_good_run() {
    assert_eq!(remote(&[]).expect("it runs"), 0);
    assert_eq!(
        remote(&["--read-share", "0.5", "--json"]).expect("it runs"),
        0
    );
    assert_eq!(
        remote(&["--batch", "5", "--value-size", "4KiB"]).expect("it runs"),
        0
    );
    assert_eq!(remote(&["--rate", "4000"]).expect("it runs"), 0);
}

#[test]
fn a_dropped_record_is_noticed() {
    assert_eq!(remote(&["--drop-record"]).expect("it runs"), 1);
    assert_eq!(
        remote(&["--drop-record", "--batch", "4", "--json"]).expect("it runs"),
        1
    );
}

#[test]
fn a_stale_read_is_noticed() {
    let (mut map, mut puts) = (BTreeMap::new(), 0);
    let forgetful = move |_: u16, body: &[u8]| {
        let (first, _) = Item::decode(body).expect("an item");
        puts += u64::from(matches!(first, Item::Put { .. }));
        let (status, value) = if matches!(first, Item::Put { .. }) && puts % 100 == 50 {
            (Status::Done, Vec::new()) // acknowledged, and not done
        } else {
            item(&mut map, &first)
        };
        reply(&[(status, value)])
    };
    let (_, address) = Responder::new(Box::new(forgetful)).start();
    let (address, cluster) = (address.to_string(), CLUSTER.to_string());
    let more = [
        "--addresses",
        &address,
        "--cluster",
        &cluster,
        "--read-share",
        "0.9",
    ];
    let status = run(&args(&more));
    assert_eq!(status.expect("it runs"), 1);
}

#[test]
fn lost_connections_do_not_spoil_the_record() {
    let map = Map::default();
    let inner = Arc::clone(&map);
    let machine = move |_: u16, body: &[u8]| {
        let mut map = inner.lock().expect("nobody panics here");
        let (status, value) = item(&mut map, &Item::decode(body).expect("an item").0);
        reply(&[(status, value)])
    };
    let mut responder = Responder::new(Box::new(machine));
    responder.break_after = 500;
    let (_, address) = responder.start();
    let (address, cluster) = (address.to_string(), CLUSTER.to_string());
    let status = run(&args(&["--addresses", &address, "--cluster", &cluster]));
    assert_eq!(status.expect("it runs"), 0);
}

#[test]
fn an_embedded_cluster_is_loaded_stopped_and_verified() {
    // On the disk that builds are on: a temporary directory may be in memory.
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    std::fs::create_dir_all(&directory).expect("a directory");
    let place = directory.to_str().expect("a plain path");
    for (replicas, drop_record) in [("1", false), ("3", false), ("1", true), ("3", true)] {
        let flags = [
            "--directory",
            place,
            "--replicas",
            replicas,
            "--geometry",
            "small",
        ];
        let mut args = args(&flags);
        args.drop_record = drop_record;
        let status = run(&args).expect("it runs");
        assert_eq!(status, u8::from(drop_record), "{replicas} {drop_record}");
        // The data files of a good run are removed, those of a bad one are kept.
        let kept = directory.read_dir().expect("it is there").next();
        assert_eq!(kept.is_some(), drop_record);
        if let Some(kept) = kept {
            std::fs::remove_dir_all(kept.expect("it is there").path()).expect("it is ours");
        }
    }
}

#[test]
fn primaries_are_killed_and_nothing_is_lost() {
    let name = format!("bench-failover-{}", std::process::id());
    let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir(&place).expect("a new directory");
    // Replicas are processes of the same binary, so it must be the real one.
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_viewstone"));
    command.args(["bench", "--kill-primary", "2", "--clients", "4", "--json"]);
    // A load that leaves whoever was killed the time to catch up.
    command.args(["--rate", "300"]);
    command.args([
        "--geometry",
        "small",
        "--slots",
        "16384",
        "--message-size",
        "8KiB",
    ]);
    let output = command.arg("--directory").arg(&place).output();
    let output = output.expect("the binary runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["failovers"], 2);
    assert_eq!(report["lost"], 0);
    let gap = &report["failover_gap_us"];
    let (p50, max) = (gap["p50"].as_f64(), gap["max"].as_f64());
    println!("longest time without a write, in microseconds: {gap}");
    assert!(p50 > Some(0.0) && max >= p50);
    std::fs::remove_dir(&place).expect("the data files of a good run are removed");
}
