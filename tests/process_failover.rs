//! Three replicas under load, of which one, or all, are killed, stopped and started again: nothing that was acknowledged is
//! lost, no read is stale, nobody has to help, and somebody serves again soon.
//!
//! Every history is checked for linearizability. Times are printed; only hangs are asserted. `VIEWSTONE_ROUNDS` sets the
//! rounds of each test, `VIEWSTONE_SEED` the moments.

#![cfg(feature = "cli")]

mod process;

use process::cluster::Cluster;
use process::history::{History, Recorder, Shape};
use process::{Random, distribution, rounds};
use std::thread;
use std::time::{Duration, Instant};

/// A journal so short that whoever is away for a second finds its ops gone, and must fetch pages of state.
const SHORT_RING: [&str; 5] = ["--small", "--slots", "128", "--message-size", "16KiB"];

fn running(name: &str) -> (Cluster, Recorder) {
    let mut cluster = Cluster::new(name, 3, &SHORT_RING);
    cluster.start_all();
    let load = Recorder::start(&[&cluster.addresses], Shape::STEADY);
    load.wait_for_more(50);
    (cluster, load)
}

/// From when to when something was disturbed.
type Window = (Instant, Instant);

fn print_gaps(what: &str, history: &History, windows: &[Window]) {
    let gap = |&(from, to): &Window| history.longest_gap(from, to);
    let mut gaps: Vec<_> = windows.iter().map(gap).collect();
    println!(
        "{what}: longest time without a change: {}",
        distribution(&mut gaps)
    );
}

#[test]
fn all_three_killed_again_and_again_lose_nothing_and_serve_again() {
    let rounds = rounds(3);
    let mut random = Random::new();
    let (mut cluster, load) = running("kill-all");
    let mut serving = Vec::new();
    for _ in 0..rounds {
        random.pause(300);
        for replica in 0..3 {
            cluster.kill(replica);
        }
        for replica in 0..3 {
            random.pause(30);
            cluster.spawn(replica);
        }
        let last_start = Instant::now();
        load.wait_for_more(1);
        serving.push(last_start.elapsed());
        load.wait_for_more(50);
    }
    cluster.wait_healthy();
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    println!("{rounds} times all three killed: {}", history.summary());
    println!(
        "last start to the next change: {}",
        distribution(&mut serving)
    );
}

/// Ends one replica in some way, many times, and starts it again each time.
fn one_is_ended(name: &str, primary: bool, end: fn(&mut Cluster, usize)) {
    let rounds = rounds(4);
    let mut random = Random::new();
    let (mut cluster, load) = running(name);
    let (mut windows, mut level) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        level.push(cluster.wait_healthy());
        let leader = cluster.primary();
        let backup = (leader + 1 + random.below(2) as usize) % 3;
        let victim = if primary { leader } else { backup };
        random.pause(200);
        let begin = Instant::now();
        end(&mut cluster, victim);
        load.wait_for_more(50);
        windows.push((begin, Instant::now()));
        cluster.start(victim);
    }
    level.push(cluster.wait_healthy());
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    let who = if primary { "the primary" } else { "a backup" };
    println!("{rounds} times {who} ended: {}", history.summary());
    print_gaps(name, &history, &windows);
    println!(
        "after its start, until all are level: {}",
        distribution(&mut level)
    );
}

#[test]
fn a_killed_primary_is_replaced_soon() {
    one_is_ended("kill-primary", true, Cluster::kill);
}

#[test]
fn a_killed_backup_is_hardly_noticed() {
    one_is_ended("kill-backup", false, Cluster::kill);
}

#[test]
fn a_primary_that_is_stopped_hands_over() {
    one_is_ended("stop-primary", true, |cluster, replica| {
        cluster.stop(replica);
    });
}

#[test]
fn a_replica_that_never_stays_up_disturbs_nobody_for_long() {
    let rounds = rounds(3);
    let mut random = Random::new();
    let (mut cluster, load) = running("flapping");
    let mut lives = 0;
    let mut windows = Vec::new();
    for _ in 0..rounds {
        let victim = if random.chance(2) {
            cluster.primary()
        } else {
            random.below(3) as usize
        };
        let begin = Instant::now();
        cluster.kill(victim);
        while begin.elapsed() < Duration::from_millis(1500) {
            cluster.spawn(victim);
            random.pause(60);
            if random.chance(4) {
                random.pause(300);
            }
            cluster.kill(victim);
            lives += 1;
        }
        load.wait_for_more(50);
        windows.push((begin, Instant::now()));
        cluster.start(victim);
        cluster.wait_healthy();
    }
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    println!("{lives} short lives: {}", history.summary());
    print_gaps("flapping", &history, &windows);
}

#[test]
fn a_primary_that_is_paused_and_goes_on_answers_nothing_stale() {
    use rustix::process::Signal;
    let rounds = rounds(1);
    let (mut cluster, load) = running("pause");
    let mut windows = Vec::new();
    for _ in 0..rounds {
        cluster.wait_healthy();
        let victim = cluster.primary();
        let begin = Instant::now();
        cluster.replica(victim).signal(Signal::STOP);
        thread::sleep(Duration::from_secs(5));
        load.wait_for_more(50);
        cluster.replica(victim).signal(Signal::CONT);
        thread::sleep(Duration::from_millis(500));
        load.wait_for_more(50);
        windows.push((begin, Instant::now()));
    }
    cluster.wait_healthy();
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    println!("{rounds} times paused for 5 s: {}", history.summary());
    print_gaps("pause", &history, &windows);
}
