//! Killed and started again, as machines are: no acknowledged write is lost, none is made twice, nobody has to help.
//!
//! Real processes, real files, real ports. Times are printed; only hangs are asserted. `VIEWSTONE_ROUNDS` sets the rounds
//! of each test, `VIEWSTONE_SEED` the moments.

#![cfg(feature = "cli")]

mod process;

use process::load::{Load, Shape, client};
use process::{
    Directory, HANG, Random, Replica, distribution, format, free_addresses, rounds, start, status,
    wait_for_status,
};
use rustix::process::Signal;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

fn start_all(directory: &Directory, addresses: &[String]) -> Vec<Replica> {
    let count = addresses.len();
    let spawn = |replica| Replica::spawn(&mut start(&directory.file(replica), addresses));
    let replicas: Vec<_> = (0..count).map(spawn).collect();
    for replica in &replicas {
        replica.wait_ready();
    }
    wait_for_status(addresses, "a healthy cluster", |status| {
        status["health"] == "healthy"
    });
    replicas
}

#[test]
fn one_replica_killed_at_random_moments_loses_nothing_and_serves_again_at_once() {
    let rounds = rounds(5);
    let directory = Directory::new("kill");
    let file = directory.file(0);
    format(&file, 0, 1, &["--small"]);
    let addresses = free_addresses(1);
    let mut random = Random::new();
    let mut replica = Replica::ready(&mut start(&file, &addresses));
    let shape = Shape {
        writers: 8,
        value_size: 24 << 10,
        pause: Duration::ZERO,
        short_deadlines: true,
    };
    let load = Load::start(&addresses, shape);
    load.wait_for_more(50);
    let (mut ready, mut serving, mut resumed) = (Vec::new(), Vec::new(), Vec::new());
    let mut unready_kills = 0;
    for _ in 0..rounds {
        random.pause(300);
        replica.kill();
        random.pause(50);
        // Now and then it dies again before it has found itself.
        while random.chance(4) {
            let again = Replica::spawn(&mut start(&file, &addresses));
            random.pause(40);
            again.kill();
            unready_kills += 1;
        }
        replica = Replica::spawn(&mut start(&file, &addresses));
        replica.wait_ready();
        ready.push(replica.began.elapsed());
        client(&addresses, 1).count().expect("it serves");
        serving.push(replica.began.elapsed());
        load.wait_for_more(10);
        resumed.push(replica.began.elapsed());
    }
    let summary = load.finish();
    replica.stop_well(Signal::TERM);
    println!(
        "{rounds} kills, and {unready_kills} more before it was ready; {} acknowledged changes, of which {} outcomes were \
         settled later; none lost, none twice",
        summary.acknowledged, summary.settled
    );
    println!("start to ready:             {}", distribution(&mut ready));
    println!(
        "start to a new client's read: {}",
        distribution(&mut serving)
    );
    println!(
        "start to the load's next writes: {}",
        distribution(&mut resumed)
    );
    assert!(serving.iter().all(|&time| time < HANG));
}

/// What these tests rest on: a replica that forgets acknowledged writes is caught.
#[test]
fn a_file_put_back_to_an_earlier_state_does_not_pass() {
    let directory = Directory::new("rollback");
    let (file, copy) = (directory.file(0), directory.file(1));
    format(&file, 0, 1, &["--small"]);
    let addresses = free_addresses(1);
    let replica = Replica::ready(&mut start(&file, &addresses));
    let load = Load::start(&addresses, STEADY);
    load.wait_for_more(50);
    replica.stop_well(Signal::TERM);
    std::fs::copy(&file, &copy).expect("copied");
    let replica = Replica::ready(&mut start(&file, &addresses));
    load.wait_for_more(50);
    replica.stop_well(Signal::TERM);
    let replica = Replica::ready(&mut start(&copy, &addresses));
    let verdict = std::panic::catch_unwind(AssertUnwindSafe(|| load.finish()));
    assert!(verdict.is_err(), "fifty lost changes went unnoticed");
    replica.stop_well(Signal::TERM);
}

/// Slots enough that a backup that is away for a second finds what it missed.
const LONG_RING: [&str; 5] = ["--small", "--slots", "1024", "--message-size", "16KiB"];

/// One that leaves some of the disk to a backup that catches up.
const STEADY: Shape = Shape {
    writers: 4,
    value_size: 2 << 10,
    pause: Duration::from_millis(4),
    short_deadlines: false,
};

/// A backup ends, in some way, and comes back, again and again: the others serve on, and it catches up under load.
fn a_backup_comes_and_goes(name: &str, end: fn(Replica)) {
    let rounds = rounds(4);
    let directory = Directory::new(name);
    for replica in 0..3 {
        format(&directory.file(replica), replica, 3, &LONG_RING);
    }
    let addresses = free_addresses(3);
    let mut random = Random::new();
    let mut replicas = start_all(&directory, &addresses);
    let load = Load::start(&addresses, STEADY);
    load.wait_for_more(20);
    let (mut served, mut caught_up) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let victim = 1 + random.below(2) as usize;
        random.pause(200);
        end(replicas.remove(victim));
        served.push(load.wait_for_more(20));
        random.pause(200);
        let before = load.acknowledged();
        let back = Replica::spawn(&mut start(&directory.file(victim), &addresses));
        back.wait_ready();
        let within = |status: &serde_json::Value, ops: u64| {
            let all = status["replicas"].as_array().expect("an array");
            let it = all.iter().find(|it| it["replica"] == victim);
            it.is_some_and(|it| {
                let at_most = |name: &str| it[name].as_u64().is_some_and(|found| found <= ops);
                it["status"] == "normal" && at_most("lag") && at_most("missing")
            })
        };
        // What is in the pipeline is no lag.
        wait_for_status(&addresses, "a backup that is level", |it| within(it, 8));
        caught_up.push(back.began.elapsed());
        wait_for_status(&addresses, "a moment without lag", |it| within(it, 0));
        load.wait_for_more(5);
        assert!(load.acknowledged() > before);
        replicas.insert(victim, back);
    }
    let summary = load.finish();
    for replica in &mut replicas {
        replica.assert_well();
    }
    println!(
        "{rounds} rounds, {} acknowledged changes",
        summary.acknowledged
    );
    println!("twenty changes without it: {}", distribution(&mut served));
    println!("start to level again: {}", distribution(&mut caught_up));
    for replica in replicas {
        replica.stop_well(Signal::TERM);
    }
}

#[test]
fn a_killed_backup_returns_and_catches_up_under_load() {
    a_backup_comes_and_goes("kill-backup", Replica::kill);
}

#[test]
fn a_stopped_backup_returns_and_catches_up_under_load() {
    a_backup_comes_and_goes("stop-backup", |replica| {
        replica.stop_well(Signal::TERM);
    });
}

/// It fetches the state that it missed, says so while it does, and is level again; also if it is killed meanwhile.
#[test]
fn a_backup_away_for_longer_than_the_journal_says_that_it_fetches() {
    let directory = Directory::new("lag");
    for replica in 0..3 {
        format(&directory.file(replica), replica, 3, &["--small"]);
    }
    let addresses = free_addresses(3);
    let mut replicas = start_all(&directory, &addresses);
    let load = Load::start(&addresses, STEADY);
    load.wait_for_more(20);
    replicas.pop().expect("three").kill();
    let op = || status(&addresses[..1]).1["replicas"][0]["op"].as_u64();
    let left_at = op().expect("the primary answers");
    let begin = Instant::now();
    while op().expect("the primary answers") < left_at + 200 {
        load.wait_for_more(20);
    }
    println!("200 ops without the backup: {:?}", begin.elapsed());
    // Its disk is slow from now on, so that it is seen before it has caught up.
    let faults = directory.0.join("faults");
    std::fs::write(&faults, "delay-ms 100\n").expect("a file of ours");
    let start_slow = || {
        let mut command = start(&directory.file(2), &addresses);
        command.args(["--development", "--fault-file"]).arg(&faults);
        Replica::ready(&mut command)
    };
    let back = start_slow();
    let wait_lagging = || {
        let begin = Instant::now();
        loop {
            let (exit, answer) = status(&addresses);
            if answer["replicas"][2]["status"] == "syncing" {
                assert_eq!((exit, &answer["health"]), (1, &"degraded".into()));
                return begin.elapsed();
            }
            assert!(begin.elapsed() < HANG, "syncing never came: {answer}");
        }
    };
    let before = load.acknowledged();
    let time = wait_lagging();
    let changes = load.acknowledged() - before;
    println!("lagging was told after {time:?} and {changes} changes");
    assert!(
        changes < 2000,
        "prepares tell it, not only a heartbeat of an idle primary"
    );
    // Killed as it is, it comes back the same.
    back.kill();
    replicas.push(start_slow());
    wait_lagging();
    std::fs::write(&faults, "").expect("a file of ours");
    wait_for_status(&addresses, "healthy", |status| {
        status["health"] == "healthy"
    });
    load.wait_for_more(100);
    load.finish();
    for mut replica in replicas {
        replica.assert_well();
        replica.stop_well(Signal::TERM);
    }
}

#[test]
fn sigterm_and_sigint_end_a_replica_well_idle_or_under_load() {
    let directory = Directory::new("stop");
    let file = directory.file(0);
    format(&file, 0, 1, &["--small"]);
    let addresses = free_addresses(1);
    let shape = Shape {
        writers: 8,
        value_size: 24 << 10,
        pause: Duration::ZERO,
        short_deadlines: true,
    };
    let mut replica = Replica::ready(&mut start(&file, &addresses));
    for signal in [Signal::TERM, Signal::INT] {
        println!("idle, {signal:?}: {:?}", replica.stop_well(signal));
        replica = Replica::ready(&mut start(&file, &addresses));
    }
    let load = Load::start(&addresses, shape);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        load.wait_for_more(100);
        println!("loaded, {signal:?}: {:?}", replica.stop_well(signal));
        replica = Replica::ready(&mut start(&file, &addresses));
    }
    load.wait_for_more(100);
    load.finish();
    replica.stop_well(Signal::TERM);

    // A replica that waits for its cluster's first start stops as well.
    let three = free_addresses(3);
    format(&directory.file(1), 1, 3, &["--small"]);
    let waiting = Replica::ready(&mut start(&directory.file(1), &three));
    println!("waiting for others: {:?}", waiting.stop_well(Signal::INT));
}
