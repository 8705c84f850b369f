//! Three replicas under load whose network or disk fails in part: a primary that its peers do not reach but clients do,
//! paths that carry one way only, a slow link, a slow disk. No read is stale, and whoever has a quorum serves.
//!
//! Every history is checked for linearizability. Times and ratios are printed; only hangs are asserted.
//! `VIEWSTONE_ROUNDS` sets the rounds of each test, `VIEWSTONE_SEED` what happens in them.

#![cfg(feature = "cli")]

mod process;

use process::cluster::Cluster;
use process::history::{Recorder, Shape};
use process::network::{Network, Node};
use process::{Random, distribution, rounds};
use std::thread;
use std::time::{Duration, Instant};

/// A journal so short that whoever is away for a second finds its ops gone, and must fetch pages of state.
const SHORT_RING: [&str; 1] = ["--small"];

/// Two groups of clients that leave a replica that catches up the time for it.
const CALM: Shape = Shape {
    pause: Duration::from_millis(6),
    ..Shape::STEADY
};

/// How long a network is broken.
const BROKEN: Duration = Duration::from_secs(3);

/// Clients that reach whatever the network lets them reach.
const FREE: usize = 0;
/// Clients that a test may keep with one replica.
const BOUND: usize = 1;

fn running(name: &str, shape: Shape) -> (Cluster, Recorder) {
    let mut cluster = Cluster::new(name, 3, &SHORT_RING).with_network(2);
    cluster.start_all();
    let network = cluster.network();
    let groups = [network.of_clients(FREE), network.of_clients(BOUND)];
    let load = Recorder::start(&groups, shape);
    load.wait_for_more_by(FREE, 50);
    load.wait_for_more_by(BOUND, 50);
    (cluster, load)
}

/// Breaks the network around the primary for a while, again and again; the clients that are free must be served all the
/// while but for a failover, the others again when it is whole.
fn broken_around(name: &str, around_primary: bool, breaks: fn(&Network, usize)) {
    let rounds = rounds(1);
    let mut random = Random::new();
    let (cluster, load) = running(name, CALM);
    let (mut windows, mut healed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        cluster.wait_healthy();
        let primary = cluster.primary();
        let backup = (primary + 1 + random.below(2) as usize) % 3;
        random.pause(200);
        let begin = Instant::now();
        breaks(
            cluster.network(),
            if around_primary { primary } else { backup },
        );
        thread::sleep(BROKEN);
        load.wait_for_more_by(FREE, 50);
        windows.push((begin, Instant::now()));
        cluster.network().heal();
        healed.push(load.wait_for_more_by(BOUND, 20));
        healed.push(load.wait_for_more_by(FREE, 20));
    }
    cluster.wait_healthy();
    finish(name, cluster, load, &windows);
    println!(
        "{name}: whole again, to twenty changes: {}",
        distribution(&mut healed)
    );
}

fn finish(name: &str, mut cluster: Cluster, load: Recorder, windows: &[(Instant, Instant)]) {
    let addresses = cluster.addresses.clone();
    let history = load.finish(&addresses);
    cluster.stop_all_well();
    println!("{} times {name}: {}", windows.len(), history.summary());
    let gap = |&(from, to): &(Instant, Instant)| history.longest_gap(from, to);
    let mut gaps: Vec<_> = windows.iter().map(gap).collect();
    println!(
        "{name}: longest time without a change: {}",
        distribution(&mut gaps)
    );
}

#[test]
fn an_isolated_primary_that_clients_still_reach_answers_nothing_stale() {
    broken_around("isolated-primary", true, |network, primary| {
        network.isolate(primary);
        network.keep_with(BOUND, primary);
    });
}

#[test]
fn a_primary_whose_words_reach_nobody_is_replaced() {
    broken_around("mute-primary", true, |network, primary| {
        network.mute(primary);
        network.keep_with(BOUND, primary);
    });
}

#[test]
fn a_primary_that_hears_nobody_gives_up() {
    broken_around("deaf-primary", true, |network, primary| {
        network.deafen(primary);
        network.keep_with(BOUND, primary);
    });
}

#[test]
fn a_backup_whose_words_reach_nobody_disturbs_nobody() {
    broken_around("mute-backup", false, Network::mute);
}

#[test]
fn a_backup_that_hears_nobody_disturbs_nobody() {
    broken_around("deaf-backup", false, Network::deafen);
}

/// Only one of the three paths is cut, both ways or one: all others hold, so somebody who reaches a quorum must serve.
#[test]
fn a_cut_between_two_leaves_a_quorum() {
    broken_around("cut-path", true, |network, primary| {
        let [primary, backup] = [primary, (primary + 1) % 3].map(Node::Replica);
        network.cut_way(primary, backup);
        network.cut_way(backup, primary);
    });
}

/// One disturbance after the other, without waiting for anyone to recover in between.
#[test]
fn a_network_that_breaks_anew_all_the_time_never_makes_an_answer_wrong() {
    let rounds = rounds(8);
    let mut random = Random::new();
    let (cluster, load) = running("storm", CALM);
    let begin = Instant::now();
    for _ in 0..rounds {
        let network = cluster.network();
        let victim = random.below(3) as usize;
        match random.below(6) {
            0 => network.isolate(victim),
            1 => network.mute(victim),
            2 => network.deafen(victim),
            3 => {
                let other = (victim + 1 + random.below(2) as usize) % 3;
                network.cut_way(Node::Replica(victim), Node::Replica(other));
            }
            4 => network.delay(victim, Duration::from_millis(random.below(100))),
            _ => network.keep_with(BOUND, victim),
        }
        random.pause(1000);
        if random.chance(2) {
            network.heal();
            random.pause(500);
        }
    }
    cluster.network().heal();
    let healed = Instant::now();
    load.wait_for_more_by(FREE, 20);
    println!("storm: over, to twenty changes: {:.1?}", healed.elapsed());
    load.wait_for_more_by(BOUND, 20);
    cluster.wait_healthy();
    finish("storm", cluster, load, &[(begin, healed)]);
}

/// Clients that never pause: what the cluster can do.
const BUSY: Shape = Shape {
    threads: 4,
    keys: 24,
    pause: Duration::ZERO,
    ..Shape::STEADY
};

/// One backup is slow for a while, in turns with times in which it is not: what that costs.
fn a_slow_backup(name: &str, slow: fn(&Cluster, usize), fast: fn(&Cluster, usize)) {
    let rounds = rounds(1);
    let (cluster, load) = running(name, BUSY);
    let (mut normal, mut slowed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        cluster.wait_healthy();
        let backup = (cluster.primary() + 1) % 3;
        for (windows, act) in [(&mut normal, fast), (&mut slowed, slow)] {
            act(&cluster, backup);
            thread::sleep(Duration::from_millis(200));
            let begin = Instant::now();
            thread::sleep(BROKEN);
            windows.push((begin, Instant::now()));
        }
        fast(&cluster, backup);
    }
    let addresses = cluster.addresses.clone();
    let history = load.finish(&addresses);
    cluster.wait_healthy();
    let mut cluster = cluster;
    cluster.stop_all_well();
    let count = |windows: &[(Instant, Instant)]| -> usize {
        windows
            .iter()
            .map(|&(from, to)| history.answered(from, to))
            .sum()
    };
    let (normal, slowed) = (count(&normal), count(&slowed));
    println!("{name}: {}", history.summary());
    println!(
        "{name}: {normal} changes in {rounds} times {BROKEN:?}, {slowed} with a slow backup: {:.0} %",
        100.0 * slowed as f64 / normal as f64
    );
    assert!(
        slowed * 20 > normal,
        "a slow backup must not stop the others"
    );
}

#[test]
fn a_backup_with_a_slow_disk_costs_little() {
    let slow = |cluster: &Cluster, backup| cluster.set_faults(backup, "delay-ms 300");
    a_slow_backup("slow-disk", slow, |cluster, backup| {
        cluster.set_faults(backup, "");
    });
}

#[test]
fn a_backup_behind_a_slow_link_costs_little() {
    let slow = |cluster: &Cluster, backup| cluster.network().slow(backup, 256_000 / 8);
    a_slow_backup("slow-link", slow, |cluster, backup| {
        cluster.network().slow(backup, 0);
    });
}
