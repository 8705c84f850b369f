//! Five replicas under load, and everything that may go wrong, at once: never more than two of them faulty at a time, so
//! somebody must serve nearly always, and no answer may be wrong ever.
//!
//! The history is checked for linearizability. Times are printed; only hangs are asserted. `VIEWSTONE_ROUNDS` sets how many
//! faults there are, `VIEWSTONE_SEED` which.

#![cfg(feature = "cli")]

mod process;

use process::cluster::Cluster;
use process::damage::{Damage, Victim};
use process::history::{Recorder, Shape};
use process::network::Node;
use process::{Random, rounds};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const REPLICAS: usize = 5;

/// A minority.
const FAULTY_MAX: usize = 2;

/// Places of a file that are damaged while its replica is down.
const PLACES: usize = 8;

/// What is wrong with a replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fault {
    Killed,
    Stopped,
    Damaged,
    Paused,
    Isolated,
    Mute,
    Deaf,
    CutFromOne,
    SlowLink,
    FarAway,
    SlowDisk,
    BadReads,
    FullDisk,
}

const FAULTS: [Fault; 13] = [
    Fault::Killed,
    Fault::Stopped,
    Fault::Damaged,
    Fault::Paused,
    Fault::Isolated,
    Fault::Mute,
    Fault::Deaf,
    Fault::CutFromOne,
    Fault::SlowLink,
    Fault::FarAway,
    Fault::SlowDisk,
    Fault::BadReads,
    Fault::FullDisk,
];

fn inflict(cluster: &mut Cluster, replica: usize, fault: Fault, random: &mut Random) {
    match fault {
        Fault::Killed => cluster.kill(replica),
        Fault::Stopped => {
            cluster.stop(replica);
        }
        Fault::Damaged => {
            cluster.kill(replica);
            let victim = Victim::open(&cluster.file(replica));
            let places = victim.fair_game(random);
            for _ in 0..PLACES {
                let at = places[random.below(places.len() as u64) as usize];
                victim.damage(at, Damage::any(random), random);
            }
        }
        Fault::Paused => cluster.replica(replica).signal(Signal::STOP),
        Fault::Isolated => cluster.network().isolate(replica),
        Fault::Mute => cluster.network().mute(replica),
        Fault::Deaf => cluster.network().deafen(replica),
        Fault::CutFromOne => {
            let other = (replica + 1 + random.below(REPLICAS as u64 - 1) as usize) % REPLICAS;
            cluster
                .network()
                .cut_way(Node::Replica(replica), Node::Replica(other));
        }
        Fault::SlowLink => cluster.network().slow(replica, 32_000),
        Fault::FarAway => cluster.network().delay(replica, Duration::from_millis(80)),
        Fault::SlowDisk => cluster.set_faults(replica, "delay-ms 100"),
        Fault::BadReads => cluster.set_faults(replica, "flip-reads 0.05"),
        Fault::FullDisk => {
            let size = Victim::open(&cluster.file(replica)).layout.size;
            cluster.set_faults(replica, &format!("write-error 0 {size}"));
            let (code, errors) = cluster.take(replica).ended();
            assert!(code == Some(1) && !errors.contains("panicked"), "{errors}");
        }
    }
}

fn relieve(cluster: &mut Cluster, replica: usize, fault: Fault) {
    match fault {
        Fault::Killed | Fault::Stopped | Fault::Damaged => cluster.start(replica),
        Fault::Paused => cluster.replica(replica).signal(Signal::CONT),
        Fault::Isolated
        | Fault::Mute
        | Fault::Deaf
        | Fault::CutFromOne
        | Fault::SlowLink
        | Fault::FarAway => cluster.network().heal_replica(replica),
        Fault::SlowDisk | Fault::BadReads => cluster.set_faults(replica, ""),
        Fault::FullDisk => {
            cluster.set_faults(replica, "");
            cluster.start(replica);
        }
    }
}

#[test]
fn everything_at_once_makes_no_answer_wrong() {
    let rounds = rounds(12);
    let mut random = Random::new();
    let geometry = ["--small", "--slots", "128", "--message-size", "16KiB"];
    let mut cluster = Cluster::new("everything", REPLICAS, &geometry).with_network(1);
    cluster.start_all();
    let clients = cluster.network().of_clients(0).to_vec();
    let shape = Shape {
        pause: Duration::from_millis(5),
        ..Shape::STEADY
    };
    let load = Recorder::start(&[&clients], shape);
    load.wait_for_more(50);
    let mut faulty = BTreeMap::<usize, Fault>::new();
    let mut counts = BTreeMap::<Fault, u32>::new();
    let begin = Instant::now();
    for round in 0..rounds {
        if faulty.len() == FAULTY_MAX || !faulty.is_empty() && random.chance(3) {
            let place = random.below(faulty.len() as u64) as usize;
            let (&replica, &fault) = faulty.iter().nth(place).expect("just counted");
            faulty.remove(&replica);
            relieve(&mut cluster, replica, fault);
            // What was damaged is good again before anybody else is: otherwise three copies might be bad.
            if fault == Fault::Damaged {
                cluster.wait_level(replica);
            }
        }
        let replica = random.below(REPLICAS as u64) as usize;
        if faulty.contains_key(&replica) {
            continue;
        }
        let fault = FAULTS[random.below(FAULTS.len() as u64) as usize];
        println!("round {round}: replica {replica} {fault:?}, beside {faulty:?}");
        inflict(&mut cluster, replica, fault, &mut random);
        faulty.insert(replica, fault);
        *counts.entry(fault).or_default() += 1;
        random.pause(1200);
    }
    for (replica, fault) in std::mem::take(&mut faulty) {
        relieve(&mut cluster, replica, fault);
    }
    let end = Instant::now();
    load.wait_for_more(50);
    cluster.wait_healthy();
    println!("all well again after {:.1?}", end.elapsed());
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    println!("{counts:?}: {}", history.summary());
    let (served, seconds) = history.seconds_served(begin, end);
    println!(
        "longest time without a change {:.1?}; some in {served} of {seconds} seconds",
        history.longest_gap(begin, end)
    );
}
