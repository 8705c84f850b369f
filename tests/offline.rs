//! A stopped replica's state, read by [`viewstone::offline`]: what the real binary acknowledged is there, and nothing is
//! changed by looking.

#![cfg(feature = "cli")]

#[path = "common/binary.rs"]
mod binary;

use binary::{CLUSTER, Directory, Replica, flip, superblock};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use storage::layout::{Geometry, Layout};
use storage::recovery::Refusal;
use storage::superblock::{Expected, OpenError};
use viewstone::client::ClientOptions;
use viewstone::client::kv::{KvClient, operation};
use viewstone::offline::{Offline, OfflineError};
use viewstone::server::data_file::{self, DataFileError, open_stopped};
use viewstone::server::embedded::EmbeddedCluster;
use viewstone::state_machine::kv::Kv;
use viewstone::state_machine::kv::wire::{Item, ItemReply, Operation, Status};
use viewstone::storage;

type Dump = Offline<(Kv,)>;
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(file: &Path) -> Result<Dump, OfflineError> {
    // The kernel lets go of a killed replica's lock when it has torn down its ring, a moment later.
    let began = Instant::now();
    loop {
        match Dump::open(file) {
            Err(OfflineError::Unreadable(DataFileError::InUse(_)))
                if began.elapsed() < Duration::from_secs(10) =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

fn get(dump: &Dump, key: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let size_max = u32::MAX;
    Item::Get { key, size_max }.encode(&mut body);
    let answer = dump.read(operation(Operation::Get), &body);
    let reply = ItemReply::decode(&answer).expect("an answer of the machine");
    (reply.status == Status::Value).then(|| reply.value.to_vec())
}

/// Puts and deletes, of values of one sector and of several; `from` distinguishes calls.
fn fill(client: &KvClient, model: &mut Model, from: u32, count: u32) {
    for number in from..from + count {
        let key = format!("key {}", number % 37).into_bytes();
        if number % 11 == 5 {
            client.delete(&key).expect("it is executed");
            model.remove(&key);
        } else {
            let value = vec![number as u8; 10 + number as usize * 977 % 9000];
            client.put(&key, &value).expect("it is executed");
            model.insert(key, value);
        }
    }
}

fn assert_equal(dump: &Dump, model: &Model) {
    for number in 0..37 {
        let key = format!("key {number}").into_bytes();
        assert_eq!(get(dump, &key).as_ref(), model.get(&key), "key {number}");
    }
}

#[test]
fn what_a_killed_replica_acknowledged_is_found_and_the_file_is_left_as_it_was() {
    let directory = Directory::new();
    let file = directory.format_solo();
    let mut model = Model::new();
    for (from, count) in [(0, 20), (20, 61), (81, 100)] {
        let replica = Replica::start(&file);
        fill(&replica.client(), &mut model, from, count);
        let in_use = Dump::open(&file).err().expect("a replica runs on it");
        assert!(matches!(
            in_use,
            OfflineError::Unreadable(DataFileError::InUse(_))
        ));
        replica.kill();
        let dump = open(&file).expect("it opens");
        let before = fs::read(&file).expect("readable");
        assert_equal(&dump, &model);
        let counts = dump.counts();
        let checkpoint_op = dump.superblock().state.checkpoint.prepare.op;
        assert_eq!(dump.head_op(), dump.executed_op());
        assert_eq!(counts.ops_executed, dump.head_op() - checkpoint_op);
        assert!(counts.ops_executed > 0 && counts.ops_missing == 0);
        assert_eq!(
            checkpoint_op > 0,
            from > 0,
            "64 slots: a checkpoint every 32 ops"
        );
        drop(dump);
        let again = Dump::open(&file).expect("it opens again");
        assert_eq!(again.counts(), counts, "nothing was repaired by looking");
        assert!(fs::read(&file).expect("readable") == before);
    }
}

#[test]
fn readers_share_a_file_and_exclude_replicas() {
    let directory = Directory::new();
    let file = directory.format_solo();
    let reader = open_stopped(&file).expect("nobody has it");
    let dump = Dump::open(&file).expect("a fresh file opens, beside another reader");
    assert_eq!((dump.head_op(), get(&dump, b"a")), (0, None));
    let replica = data_file::open(&file, &Expected::default(), false);
    assert!(matches!(replica, Err(DataFileError::InUse(_))));
    drop(reader);
    // Whoever has the state in memory has no need of the file. (A child that another test is just starting has our
    // descriptors until it executes its program.)
    let free = || data_file::open(&file, &Expected::default(), false).ok();
    assert!((0..1000).find_map(|_| free()).is_some());
    drop(dump);
}

#[test]
fn damage_is_told_by_what_it_hits() {
    let directory = Directory::new();
    let file = directory.format_solo();
    let replica = Replica::start(&file);
    fill(&replica.client(), &mut Model::new(), 0, 150);
    replica.kill();
    let head_op = open(&file).expect("it opens").head_op();
    let state = superblock(&file).state;
    let layout = Layout::new(state.geometry);
    let checkpoint_op = state.checkpoint.prepare.op;
    assert!(checkpoint_op > 0 && head_op > checkpoint_op + 1);
    let damaged = |at: u64| {
        flip(&file, at);
        let error = Dump::open(&file).err().expect("damaged");
        flip(&file, at);
        error
    };

    let op = checkpoint_op + 1;
    let error = damaged(layout.prepare_at(layout.slot(op)) + 300);
    let OfflineError::Journal { refusal, .. } = &error else {
        panic!("{error}")
    };
    let slot = layout.slot(op);
    assert_eq!(**refusal, Refusal::Lost { op, slot });
    assert!(error.to_string().contains("Restore the data file"));

    let node = state.checkpoint.map;
    flip(&file, layout.block_at(node.first));
    let one_copy = Dump::open(&file);
    assert_eq!(one_copy.expect("the other copy serves").head_op(), head_op);
    let error = damaged(layout.block_at(node.second));
    flip(&file, layout.block_at(node.first));
    let OfflineError::Checkpoint { damages, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(damages.count, 1);
    assert!(error.to_string().contains("address map node"), "{error}");

    let bytes = fs::read(&file).expect("readable");
    fs::write(&file, vec![0; bytes.len()]).expect("ours");
    let error = Dump::open(&file).err().expect("zeros");
    assert!(matches!(
        error,
        OfflineError::Superblock {
            error: OpenError::NotFormatted,
            ..
        }
    ));
    fs::write(&file, &bytes[..bytes.len() - 1]).expect("ours");
    let error = Dump::open(&file).err().expect("too short");
    assert!(matches!(
        error,
        OfflineError::Unreadable(DataFileError::Truncated { .. })
    ));
    fs::write(&file, &bytes).expect("ours");
    assert_eq!(Dump::open(&file).expect("whole again").head_op(), head_op);
}

#[test]
fn of_three_replicas_at_least_two_hold_each_acknowledged_write() {
    let directory = Directory::new();
    let mut cluster =
        EmbeddedCluster::<(Kv,)>::format(CLUSTER, 3, Geometry::SMALL, directory.path())
            .expect("formatted");
    cluster.start().expect("it starts");
    let mut model = Model::new();
    let options = ClientOptions::new(CLUSTER, cluster.addresses().to_vec());
    let client = KvClient::connect(&options).expect("it starts");
    fill(&client, &mut model, 0, 120);
    drop(client);
    cluster.stop().expect("it stops");
    let dumps: Vec<_> = cluster
        .files()
        .iter()
        .map(|file| open(file).expect("it opens"))
        .collect();
    let head = dumps.iter().map(Dump::executed_op).max();
    let head = head.expect("there are three");
    let at_head = |dump: &&Dump| dump.executed_op() == head;
    assert!(dumps.iter().filter(at_head).count() >= 2);
    for dump in dumps.iter().filter(at_head) {
        assert_equal(dump, &model);
    }
}
