//! The load generator against a small key-value replica: what it reports, and that it notices what is lost.

#![cfg(feature = "cli")]

mod common;

use clap::Parser;
use common::{CLUSTER, Responder};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use viewstone::bench::cluster::{EmbeddedCluster, EmbeddedOptions, Footprint, StateDump};
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

fn kv(map: &Map, cluster: u128) -> SocketAddr {
    let map = Arc::clone(map);
    let machine = move |operation: u16, body: &[u8]| {
        let mut map = map.lock().expect("nobody panics here");
        let (first, mut rest) = Item::decode(body).expect("an item");
        if operation != 0x0100 | Operation::Batch as u16 {
            let (status, value) = item(&mut map, &first);
            let header = ReplyHeader::new(status, value.len() as u32, 1);
            return [header.as_bytes(), &value].concat();
        }
        let mut statuses = vec![item(&mut map, &first).0 as u8];
        while let Some((next, more)) = Item::decode(rest) {
            statuses.push(item(&mut map, &next).0 as u8);
            rest = more;
        }
        let header = ReplyHeader::new(Status::Done, statuses.len() as u32, 1);
        [header.as_bytes(), &statuses].concat()
    };
    let mut responder = Responder::new(Box::new(machine));
    responder.cluster = cluster;
    responder.start().1
}

/// Calls the responder an embedded cluster.
struct Fake {
    map: Map,
    address: SocketAddr,
    restarts: bool,
    stopped: Cell<bool>,
}

impl EmbeddedCluster for Fake {
    fn addresses(&self) -> Vec<String> {
        vec![self.address.to_string()]
    }

    fn footprint(&self) -> Footprint {
        Footprint::default()
    }

    fn stop(&mut self) -> Result<(), String> {
        assert!(!self.stopped.replace(true));
        Ok(())
    }

    fn start(&mut self) -> Result<(), String> {
        assert!(self.stopped.replace(false));
        Ok(())
    }

    fn restarts(&self) -> bool {
        self.restarts
    }

    fn dump(&self, _: u8) -> Result<Box<dyn StateDump>, String> {
        assert!(self.stopped.get());
        Ok(Box::new(Dump(
            self.map.lock().expect("nobody panics here").clone(),
        )))
    }
}

struct Dump(BTreeMap<Vec<u8>, Vec<u8>>);

impl StateDump for Dump {
    fn op(&self) -> u64 {
        0
    }

    fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key).cloned()
    }
}

fn remote(more: &[&str]) -> Result<u8, BenchError> {
    let address = kv(&Map::default(), CLUSTER);
    let (address, cluster) = (address.to_string(), CLUSTER.to_string());
    let target = ["--addresses", &address, "--cluster", &cluster];
    run(&args(&[&target, more].concat()), &|_| {
        unreachable!("the cluster runs already")
    })
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
        let header = ReplyHeader::new(status, value.len() as u32, 1);
        [header.as_bytes(), &value].concat()
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
    let status = run(&args(&more), &|_| unreachable!("the cluster runs already"));
    assert_eq!(status.expect("it runs"), 1);
}

#[test]
fn lost_connections_do_not_spoil_the_record() {
    let map = Map::default();
    let inner = Arc::clone(&map);
    let machine = move |_: u16, body: &[u8]| {
        let mut map = inner.lock().expect("nobody panics here");
        let (status, value) = item(&mut map, &Item::decode(body).expect("an item").0);
        let header = ReplyHeader::new(status, value.len() as u32, 1);
        [header.as_bytes(), &value].concat()
    };
    let mut responder = Responder::new(Box::new(machine));
    responder.break_after = 500;
    let (_, address) = responder.start();
    let (address, cluster) = (address.to_string(), CLUSTER.to_string());
    let status = run(
        &args(&["--addresses", &address, "--cluster", &cluster]),
        &|_| unreachable!("the cluster runs already"),
    );
    assert_eq!(status.expect("it runs"), 0);
}

#[test]
fn an_embedded_cluster_is_stopped_and_looked_into() {
    let directory =
        std::env::temp_dir().join(format!("viewstone-bench-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let place = directory.to_str().expect("a plain path");
    for (restarts, drop_record) in [(true, false), (false, false), (true, true), (false, true)] {
        let start = |options: &EmbeddedOptions| -> Result<Box<dyn EmbeddedCluster>, String> {
            assert!(options.directory.is_dir());
            let map = Map::default();
            let address = kv(&map, options.cluster);
            Ok(Box::new(Fake {
                map,
                address,
                restarts,
                stopped: Cell::new(false),
            }))
        };
        let mut args = args(&["--directory", place, "--replicas", "1"]);
        args.drop_record = drop_record;
        let status = run(&args, &start).expect("it runs");
        assert_eq!(status, u8::from(drop_record), "{restarts} {drop_record}");
        // The data files of a good run are removed, those of a bad one are kept.
        let kept = directory.read_dir().expect("it is there").next();
        assert_eq!(kept.is_some(), drop_record);
        if let Some(kept) = kept {
            std::fs::remove_dir_all(kept.expect("it is there").path()).expect("it is ours");
        }
    }
    std::fs::remove_dir_all(&directory).expect("it is ours");
}
