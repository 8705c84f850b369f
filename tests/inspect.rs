//! `inspect` and `verify` on files of the real binary: sound, crashed, damaged in one byte, cut short, in use.

#![cfg(feature = "cli")]

#[path = "common/binary.rs"]
mod binary;

use binary::{CLUSTER, Directory, Replica, flip, output, superblock, viewstone};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use storage::checkpoint::walk;
use storage::header::{HEADER_SIZE, Prepare, PrepareKind, Typed};
use storage::layout::{Geometry, Layout, PAGE_SIZE};
use viewstone::client::ClientOptions;
use viewstone::client::kv::KvClient;
use viewstone::server::embedded::EmbeddedCluster;
use viewstone::state_machine::kv::Kv;
use viewstone::storage;
use zerocopy::IntoBytes;

fn fill(client: &KvClient, count: u32) {
    for number in 0..count {
        let key = format!("key {}", number % 50);
        let value = vec![number as u8; 100 + number as usize % 3 * 4000];
        client.put(key.as_bytes(), &value).expect("it is executed");
    }
}

/// A file of one replica that was killed some ops after a checkpoint.
fn crashed(directory: &Directory) -> PathBuf {
    let file = directory.format_solo();
    let replica = Replica::start(&file);
    fill(&replica.client(), 150);
    replica.kill();
    file
}

fn verify(file: &Path) -> (i32, String, String) {
    let mut command = viewstone(&["verify"]);
    command.arg(file);
    output(command)
}

fn inspect(file: &Path) -> (i32, Value) {
    let mut command = viewstone(&["inspect", "--json"]);
    command.arg(file);
    let (status, text, _) = output(command);
    let object = serde_json::from_str(&text).expect("one JSON object");
    (status, object)
}

#[track_caller]
fn assert_sound(file: &Path) {
    let (status, text, error) = verify(file);
    assert_eq!(status, 0, "{text}{error}");
    assert!(text.contains("sound (file, superblock, journal, checkpoint, pages)"));
}

/// Flips a byte, sees that exactly this is told, and flips it back.
#[track_caller]
fn assert_told(file: &Path, at: u64, begins_at: u64, words: &[&str]) {
    flip(file, at);
    let (status, text, error) = verify(file);
    assert_eq!(status, 1, "{text}{error}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let place = format!("(offset {begins_at})");
    for word in words.iter().chain([&place.as_str(), &"damage: "]) {
        assert!(text.contains(word), "no '{word}' in: {text}");
    }
    let (status, found) = inspect(file);
    assert_eq!((status, &found["sound"]), (0, &Value::from(false)));
    assert_eq!(found["damage"][0]["offset"], begins_at);
    flip(file, at);
}

/// The blocks of all pages of the checkpoint, as a walk meets them.
fn page_blocks(file: &Path, layout: &Layout) -> Vec<u32> {
    let handle = fs::File::open(file).expect("readable");
    let mut blocks = Vec::new();
    let record = superblock(file).state.checkpoint;
    let walk = walk(layout, &record, |block| {
        blocks.push(block);
        let mut bytes = [0; PAGE_SIZE];
        let read = handle.read_exact_at(&mut bytes, layout.block_at(block));
        read.ok().map(|()| bytes)
    });
    assert_eq!(walk.damages.count, 0);
    blocks.split_off(blocks.len() - walk.pages as usize)
}

#[test]
fn what_a_killed_replica_leaves_is_sound_and_shown() {
    let directory = Directory::new();
    let file = directory.format_solo();
    assert_sound(&file);
    let (_, fresh) = inspect(&file);
    assert_eq!(fresh["checkpoint"]["stored"], false);
    assert_eq!(fresh["journal"]["states"]["absent"], 64);
    drop(directory);

    let directory = Directory::new();
    let file = crashed(&directory);
    assert_sound(&file);
    let state = superblock(&file).state;
    let (_, found) = inspect(&file);
    let checkpoint_op = state.checkpoint.prepare.op;
    assert!(checkpoint_op > 0);
    assert_eq!(found["checkpoint"]["op"], checkpoint_op);
    assert_eq!(found["journal"]["checkpoint_op"], checkpoint_op);
    let head = found["journal"]["head"]["op"].as_u64().expect("a number");
    assert!(head > 150, "150 puts, a register and the first op");
    assert_eq!(found["journal"]["head"]["certain"], true);
    assert_eq!(
        found["journal"]["states"]["present"],
        head - checkpoint_op,
        "of the slots of ops above the checkpoint"
    );
    assert_eq!(found["pages"]["good"], found["pages"]["used"]);
    assert_eq!(found["pages"]["used"], state.checkpoint.pages_used);
    let blocks = &found["checkpoint"]["blocks"];
    assert_eq!(blocks["count"], state.geometry.block_count());
    assert!(blocks["used"].as_u64() > found["pages"]["used"].as_u64());
    let mut command = viewstone(&["inspect"]);
    command.arg(&file);
    let (status, text, _) = output(command);
    assert_eq!(status, 0);
    for words in [format!("op {head}, certain"), "map nodes".to_owned()] {
        assert!(text.contains(&words), "{text}");
    }
    assert!(!text.contains("damage:"), "{text}");
    assert!(text.contains("in use             no"), "{text}");
}

#[test]
fn every_copy_of_the_superblock_counts_and_the_next_start_repairs_it() {
    let directory = Directory::new();
    let file = crashed(&directory);
    for copy in 0..4 {
        let at = Layout::superblock_at(copy);
        let words = [&format!("copy {copy}"), "the next start writes it again"];
        assert_told(&file, at + 200, at, &words);
    }
    flip(&file, Layout::superblock_at(2) + 200);
    Replica::start(&file).kill();
    assert_sound(&file);
}

#[test]
fn damage_of_the_journal_is_told_with_what_follows() {
    let directory = Directory::new();
    let file = crashed(&directory);
    let (_, found) = inspect(&file);
    let head = found["journal"]["head"]["op"].as_u64().expect("a number");
    let state = superblock(&file).state;
    let layout = Layout::new(state.geometry);
    let checkpoint_op = state.checkpoint.prepare.op;
    assert!(head > checkpoint_op + 3);
    let header_at = |op: u64| layout.headers_at + (layout.slot(op) * HEADER_SIZE) as u64;
    let prepare_at = |op: u64| layout.prepare_at(layout.slot(op));

    let op = checkpoint_op + 1;
    let header = format!("redundant header of slot {}", layout.slot(op));
    let whole = ["journal", &header, "the next start writes the header again"];
    assert_told(&file, header_at(op) + 9, header_at(op), &whole);
    let header = format!("redundant header of slot {}", layout.slot(checkpoint_op));
    let old = ["journal", &header, "no state is lost"];
    let at = header_at(checkpoint_op);
    assert_told(&file, at + 100, at, &old);

    let lost = [&format!("op {op} may have been acknowledged"), "restore"];
    let first = ["the first sector is damaged", lost[0], lost[1]];
    assert_told(&file, prepare_at(op) + 9, prepare_at(op), &first);
    let body = ["the body is damaged", lost[0], lost[1]];
    assert_told(&file, prepare_at(op) + 300, prepare_at(op), &body);
    let at = prepare_at(checkpoint_op);
    let below = ["the body is damaged", "no state is lost"];
    assert_told(&file, at + 300, at, &below);

    flip(&file, header_at(op) + 9);
    Replica::start(&file).kill();
    assert_sound(&file);
}

#[test]
fn damage_of_the_checkpoint_is_told_page_by_page() {
    let directory = Directory::new();
    let file = crashed(&directory);
    let state = superblock(&file).state;
    let layout = Layout::new(state.geometry);
    let blocks = page_blocks(&file, &layout);
    let at = layout.block_at(blocks[3]);
    let words = ["pages: page ", "restore the data file from a backup"];
    assert_told(&file, at + 4095, at, &words);
    let map = state.checkpoint.map;
    let copy = ["checkpoint: a copy of address map node", "the other copy"];
    for block in [map.first, map.second] {
        let at = layout.block_at(block);
        assert_told(&file, at + 8, at, &copy);
    }
    flip(&file, layout.block_at(map.second));
    let at = layout.block_at(map.first);
    let both = ["both copies of address map node", "restore"];
    assert_told(&file, at, at, &both);
    flip(&file, layout.block_at(map.second));

    for &block in &blocks {
        flip(&file, layout.block_at(block));
    }
    let (_, found) = inspect(&file);
    let named = found["pages"]["damaged"].as_array().expect("a list").len();
    assert_eq!(named, blocks.len().min(64), "the rest is counted");
    assert_eq!(verify(&file).0, 1);
}

#[test]
fn of_several_replicas_a_peer_has_what_one_has_lost() {
    let directory = Directory::new();
    let mut cluster =
        EmbeddedCluster::<(Kv,)>::format(CLUSTER, 3, Geometry::SMALL, directory.path())
            .expect("formatted");
    cluster.start().expect("it starts");
    let options = ClientOptions::new(CLUSTER, cluster.addresses().to_vec());
    fill(&KvClient::connect(&options).expect("it starts"), 60);
    cluster.stop().expect("it stops");
    let file = &cluster.files()[0];
    let state = superblock(file).state;
    let layout = Layout::new(state.geometry);
    let op = state.checkpoint.prepare.op + 1;
    let at = layout.prepare_at(layout.slot(op));
    assert_told(file, at + 300, at, &[&format!("op {op}"), "a peer has it"]);
    assert_sound(file);
}

#[test]
fn a_prepare_torn_before_its_ack_is_no_damage() {
    let directory = Directory::new();
    let file = crashed(&directory);
    let (_, found) = inspect(&file);
    let head = found["journal"]["head"]["op"].as_u64().expect("a number");
    let parent = found["journal"]["head"]["checksum"].as_str().expect("text");
    let state = superblock(&file).state;
    let layout = Layout::new(state.geometry);
    let body = vec![7; 9000];
    let mut torn = Prepare::new(CLUSTER, state.log_view, 0);
    torn.op = head + 1;
    torn.parent = u128::from_str_radix(parent, 16).expect("a number");
    torn.requests = 1;
    torn.kind = PrepareKind::Batch as u32;
    torn.frame.size = (HEADER_SIZE + body.len()) as u32;
    torn.header_mut().seal(&body);
    let bytes = [torn.as_bytes(), &body].concat();
    let handle = fs::File::options()
        .write(true)
        .open(&file)
        .expect("it is ours");
    let slot = layout.slot(torn.op);
    let write = handle.write_all_at(&bytes[..4096], layout.prepare_at(slot));
    write.expect("it is ours");

    assert_sound(&file);
    let (_, found) = inspect(&file);
    assert_eq!(found["journal"]["head"]["op"], head);
    let unusual = &found["journal"]["unusual"][0];
    assert_eq!(unusual["slot"], slot);
    assert_eq!(unusual["row"], 14);
    Replica::start(&file).kill();
    assert_sound(&file);
}

#[test]
fn what_is_no_data_file_is_told_with_its_status() {
    let directory = Directory::new();
    let file = crashed(&directory);
    let bytes = fs::read(&file).expect("readable");
    let statuses = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("ours");
        let (status, text, error) = verify(&file);
        let (shown, object) = if bytes.is_empty() {
            (3, Value::Null)
        } else {
            inspect(&file)
        };
        (status, shown, text + &error, object)
    };
    let layout = Layout::new(superblock(&file).state.geometry);
    for size in [
        bytes.len() - 1,
        layout.grid_at as usize,
        layout.prepares_at as usize,
    ] {
        let (status, shown, text, object) = statuses(&bytes[..size]);
        assert_eq!((status, shown), (1, 0), "{text}");
        assert!(text.contains("truncated"), "{text}");
        assert_eq!(object["file"]["size"], size);
        assert!(text.lines().count() <= 2, "one line, not thousands: {text}");
    }
    let zeros = vec![0; bytes.len()];
    let (status, shown, text, object) = statuses(&zeros);
    assert_eq!((status, shown), (3, 3), "{text}");
    assert!(text.contains("not formatted"), "{text}");
    assert!(object["journal"]["error"].is_string());
    let noise: Vec<u8> = (0..2_u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (status, shown, text, _) = statuses(&noise);
    assert_eq!((status, shown), (3, 3), "{text}");
    assert!(text.contains("not a Viewstone data file"), "{text}");
    let (status, _, text, _) = statuses(&[]);
    assert_eq!(status, 3);
    assert!(text.contains("is empty"), "{text}");
    fs::remove_file(&file).expect("ours");
    assert_eq!(verify(&file).0, 3);

    // Only the superblock is lost: the rest cannot be found without it, and that is damage.
    let mut lost = bytes.clone();
    lost[..layout.headers_at as usize].fill(0xff);
    lost[..4096].copy_from_slice(&bytes[..4096]);
    lost[99] ^= 1;
    let (status, shown, text, object) = statuses(&lost);
    assert_eq!((status, shown), (1, 0), "{text}");
    assert!(text.contains("recover"), "{text}");
    assert!(object["pages"]["error"].is_string());
}

#[test]
fn a_file_in_use_is_shown_and_is_not_taken_for_damaged() {
    let directory = Directory::new();
    let file = directory.format_solo();
    let replica = Replica::start(&file);
    let client = replica.client();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| fill(&client, 600));
        for _ in 0..5 {
            let (status, found) = inspect(&file);
            assert_eq!((status, &found["in_use"]), (0, &Value::from(true)));
            assert!(found["journal"]["slots"].is_number());
        }
        writer.join().expect("all puts are executed");
    });
    let (status, text, error) = verify(&file);
    assert_eq!(status, 0, "{text}{error}");
    let mut command = viewstone(&["inspect"]);
    command.arg(&file);
    let (_, text, _) = output(command);
    assert!(text.contains("yes, by a running process"), "{text}");
}
