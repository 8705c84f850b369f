//! Gateways under faults: what connections to several of them do with shared keys, transactions and WATCH included, while
//! the primary is killed, paused and cut off, while there is no quorum, and while gateways are killed and paused, is what one
//! store would do.
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

/// How long somebody is paused, or cut off.
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

/// What is disturbed, with the primary as it is.
#[derive(Clone, Copy)]
enum Fault {
    Killed,
    Paused,
    CutOff,
    WithoutQuorum,
    /// One is killed, the other is paused for longer than its commands may take.
    Gateways,
}

const FAULTS: [Fault; 5] = [
    Fault::Killed,
    Fault::Paused,
    Fault::CutOff,
    Fault::WithoutQuorum,
    Fault::Gateways,
];

/// The cluster, its gateways and those who use them.
struct Stand {
    cluster: Cluster,
    /// Where the gateways listen: two of their own, and one beside each replica.
    listen: Vec<String>,
    gateways: Vec<Option<Replica>>,
    load: Recorder,
}

impl Stand {
    fn new() -> Self {
        let mut cluster = Cluster::new("resp-linearizable", 3, &["--small"]).with_network(2);
        let listen = free_addresses(5);
        for (replica, address) in listen[2..].iter().enumerate() {
            cluster.gateways[replica] = Some(address.clone());
        }
        cluster.start_all();
        let start =
            |group: usize| Some(gateway(cluster.network().of_clients(group), &listen[group]));
        let gateways = [FREE, BOUND].map(start).into();
        let load = Recorder::start(&listen, CONNECTIONS);
        Self {
            cluster,
            listen,
            gateways,
            load,
        }
    }

    fn gateway(&self, group: usize) -> &Replica {
        self.gateways[group].as_ref().expect("it runs")
    }

    /// Disturbs, and mends. How long it took until changes were answered again, if there were to be any meanwhile.
    fn disturb(&mut self, fault: Fault, primary: usize) -> Option<Duration> {
        let begin = Instant::now();
        let wait = || thread::sleep(DISTURBED.saturating_sub(begin.elapsed()));
        let (cluster, load) = (&mut self.cluster, &self.load);
        let mut served = None;
        match fault {
            Fault::Killed => {
                cluster.kill(primary);
                served = Some(load.wait_for_more(FREE, 20));
                load.wait_for_more(BOUND, 20);
                cluster.start(primary);
            }
            Fault::Paused => {
                cluster.replica(primary).signal(Signal::STOP);
                served = Some(load.wait_for_more(FREE, 20));
                wait();
                cluster.replica(primary).signal(Signal::CONT);
            }
            Fault::CutOff => {
                cluster.network().isolate(primary);
                cluster.network().keep_with(BOUND, primary);
                served = Some(load.wait_for_more(FREE, 20));
                wait();
                cluster.network().heal();
            }
            Fault::WithoutQuorum => {
                let backups = [1, 2].map(|it| cluster.replica((primary + it) % 3));
                for backup in backups {
                    backup.signal(Signal::STOP);
                }
                wait();
                for backup in backups {
                    backup.signal(Signal::CONT);
                }
            }
            Fault::Gateways => {
                self.gateway(BOUND).signal(Signal::STOP);
                self.gateways[FREE].take().expect("it runs").kill();
                let addresses = self.cluster.network().of_clients(FREE);
                self.gateways[FREE] = Some(gateway(addresses, &self.listen[FREE]));
                wait();
                self.gateway(BOUND).signal(Signal::CONT);
            }
        }
        served
    }

    fn await_all(&self) {
        for gateway in 0..self.listen.len() {
            self.load.wait_for_more(gateway, 5);
        }
        self.cluster.wait_healthy();
    }
}

#[test]
fn what_gateways_answer_under_faults_is_linearizable() {
    let rounds = rounds(1);
    let mut random = Random::new();
    let mut stand = Stand::new();
    stand.await_all();
    let mut served = Vec::new();
    for fault in (0..rounds).flat_map(|_| FAULTS) {
        let primary = stand.cluster.primary();
        random.pause(300);
        served.extend(stand.disturb(fault, primary));
        stand.await_all();
    }
    let Stand {
        mut cluster,
        listen,
        mut gateways,
        load,
    } = stand;
    for gateway in gateways.iter_mut().flatten() {
        gateway.assert_well();
    }
    println!("{}", load.finish(&listen[FREE]));
    println!(
        "a fault of the primary, to twenty changes: {}",
        distribution(&mut served)
    );
    for gateway in gateways.into_iter().flatten() {
        gateway.stop_well(Signal::TERM);
    }
    cluster.stop_all_well();
}
