//! Gateways under faults: what connections to several of them do with shared keys, transactions and WATCH included, while
//! the primary is killed, paused and cut off, and while there is no quorum, is what one store would do.
//!
//! Two gateways are processes of their own, one of which is kept with the primary while that is cut off from the others; and
//! each replica has one beside it, which is killed and paused with it. `VIEWSTONE_ROUNDS` sets how often each fault comes,
//! `VIEWSTONE_SEED` the moments.

#![cfg(feature = "cli")]

#[path = "resp/pairs.rs"]
mod pairs;
mod process;

use pairs::Recorder;
use process::cluster::Cluster;
use process::{CLUSTER, Random, Replica, distribution, free_addresses, rounds, viewstone};
use rustix::process::Signal;
use std::thread;
use std::time::{Duration, Instant};

/// Connections to each gateway.
const CONNECTIONS: usize = 2;

/// The gateway that reaches whatever the network lets it reach, and the one that is kept with a primary that is cut off.
const FREE: usize = 0;
const BOUND: usize = 1;

/// How long the primary is paused, or cut off.
const DISTURBED: Duration = Duration::from_secs(3);

/// How long commands of a gateway may take: less than a disturbance, so that some outcomes are unknown.
const TIMEOUT: &str = "2s";

fn gateway(addresses: &[String], listen: &str) -> Replica {
    let mut command = viewstone();
    command.args(["resp", "--cluster", &CLUSTER.to_string()]);
    command.args(["--addresses", &addresses.join(",")]);
    command.args(["--listen", listen, "--timeout", TIMEOUT]);
    let gateway = Replica::spawn(&mut command);
    gateway.wait_gateway();
    gateway
}

#[test]
fn what_gateways_answer_under_faults_is_linearizable() {
    let rounds = rounds(1);
    let mut random = Random::new();
    let mut cluster = Cluster::new("resp-linearizable", 3, &["--small"]).with_network(2);
    let listen = free_addresses(5);
    for (replica, address) in listen[2..].iter().enumerate() {
        cluster.gateways[replica] = Some(address.clone());
    }
    cluster.start_all();
    let mut gateways =
        [FREE, BOUND].map(|group| gateway(cluster.network().of_clients(group), &listen[group]));
    let load = Recorder::start(&listen, CONNECTIONS);
    for gateway in 0..listen.len() {
        load.wait_for_more(gateway, 5);
    }
    let mut served = Vec::new();
    for round in 0..4 * rounds {
        cluster.wait_healthy();
        let primary = cluster.primary();
        random.pause(300);
        let begin = Instant::now();
        match round % 4 {
            0 => {
                cluster.kill(primary);
                served.push(load.wait_for_more(FREE, 20));
                load.wait_for_more(BOUND, 20);
                cluster.start(primary);
            }
            1 => {
                cluster.replica(primary).signal(Signal::STOP);
                served.push(load.wait_for_more(FREE, 20));
                thread::sleep(DISTURBED.saturating_sub(begin.elapsed()));
                cluster.replica(primary).signal(Signal::CONT);
            }
            2 => {
                cluster.network().isolate(primary);
                cluster.network().keep_with(BOUND, primary);
                served.push(load.wait_for_more(FREE, 20));
                thread::sleep(DISTURBED.saturating_sub(begin.elapsed()));
                cluster.network().heal();
            }
            _ => {
                let backups = [1, 2].map(|it| (primary + it) % 3);
                for backup in backups {
                    cluster.replica(backup).signal(Signal::STOP);
                }
                thread::sleep(DISTURBED);
                for backup in backups {
                    cluster.replica(backup).signal(Signal::CONT);
                }
            }
        }
        for gateway in 0..listen.len() {
            load.wait_for_more(gateway, 5);
        }
    }
    cluster.wait_healthy();
    for gateway in &mut gateways {
        gateway.assert_well();
    }
    let summary = load.finish(&listen[FREE]);
    println!("{summary}");
    println!("a fault, to twenty changes: {}", distribution(&mut served));
    for gateway in gateways {
        gateway.stop_well(Signal::TERM);
    }
    cluster.stop_all_well();
}
