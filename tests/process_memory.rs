//! Runs past more than a hundred checkpoints, and so as many wraps of half the journal, in the memory it began with.
//!
//! That nothing is allocated on the loop's thread needs no measuring: the binary's allocator aborts the process if it is.
//! The resident set shows the rest: other threads, the kernel's share, pages touched for the first time.

#![cfg(feature = "cli")]

mod process;

use process::load::{Load, Shape};
use process::{Directory, Replica, format, free_addresses, rounds, start, status};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const SLOTS: u64 = 64;
const CHECKPOINT_INTERVAL: u64 = SLOTS / 2;

#[test]
fn a_hundred_checkpoints_take_no_memory() {
    let directory = Directory::new("memory");
    let file = directory.file(0);
    format(&file, 0, 1, &["--small", "--slots", &SLOTS.to_string()]);
    let addresses = free_addresses(1);
    let mut replica = Replica::ready(&mut start(&file, &addresses));
    let shape = Shape {
        writers: 8,
        value_size: 16 << 10,
        pause: Duration::ZERO,
        short_deadlines: false,
    };
    let load = Load::start(&addresses, shape);
    let checkpoint_op = || {
        let answer = status(&addresses).1;
        let op = answer["replicas"][0]["checkpoint_op"].as_u64();
        op.expect("it answers")
    };
    let run_to = |op: u64| {
        while checkpoint_op() < op {
            load.wait_for_more(100);
        }
    };
    // Ten checkpoints to touch what is going to be touched.
    run_to(10 * CHECKPOINT_INTERVAL);
    let (begin, first) = (Instant::now(), checkpoint_op());
    let before = replica.memory_kib("VmRSS");
    let checkpoints = u64::from(rounds(1)) * 110;
    let mut highest = before;
    for step in 1..=checkpoints / 10 {
        run_to(first + step * 10 * CHECKPOINT_INTERVAL);
        highest = highest.max(replica.memory_kib("VmRSS"));
    }
    let done = (checkpoint_op() - first) / CHECKPOINT_INTERVAL;
    let after = replica.memory_kib("VmRSS");
    println!(
        "{done} checkpoints in {:?}; VmRSS {before} KiB before, {after} KiB after, {highest} KiB at most",
        begin.elapsed()
    );
    assert!(done >= 100);
    assert!(highest <= before + before / 100, "the resident set grows");
    assert!(after >= before - before / 100, "measured too early");
    let summary = load.finish();
    println!(
        "{} acknowledged changes, none lost, none twice",
        summary.acknowledged
    );
    replica.assert_well();
    replica.stop_well(Signal::TERM);
}
