//! A cluster of real processes: started, killed, paused and asked one by one.

#![allow(dead_code)] // each test file uses a part

use super::network::Network;
use super::{CLUSTER, Directory, HANG, Replica, format, free_addresses, start};
use rustix::process::Signal;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use viewstone::client::ClientOptions;
use viewstone::storage::header::{PongClient, ReplicaStatus};

/// How long a replica that is asked for its status may think about it.
const ANSWER: Duration = Duration::from_millis(500);

pub struct Cluster {
    pub directory: Directory,
    /// Where the replicas listen.
    pub addresses: Vec<String>,
    /// Through which they reach each other, if not directly.
    pub network: Option<Network>,
    /// Where each replica serves the Redis protocol as well, if it does.
    pub gateways: Vec<Option<String>>,
    replicas: Vec<Option<Replica>>,
}

impl Cluster {
    /// Formats a cluster, which does not run yet; `more` are options of `format`.
    pub fn new(name: &str, count: usize, more: &[&str]) -> Self {
        let directory = Directory::new(name);
        for replica in 0..count {
            format(&directory.file(replica), replica, count, more);
        }
        Self {
            directory,
            addresses: free_addresses(count),
            network: None,
            gateways: vec![None; count],
            replicas: (0..count).map(|_| None).collect(),
        }
    }

    /// Puts proxies between the replicas, and between `groups` of clients and the replicas.
    pub fn with_network(mut self, groups: usize) -> Self {
        self.network = Some(Network::new(&self.addresses, groups));
        self
    }

    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("made with one")
    }

    pub fn file(&self, replica: usize) -> PathBuf {
        self.directory.file(replica)
    }

    /// What tells this replica's disk to fail.
    pub fn fault_file(&self, replica: usize) -> PathBuf {
        self.directory.0.join(format!("{replica}.faults"))
    }

    /// Lets a replica's disk fail as these lines say (see `docs/testing.md`), from the next moments on.
    pub fn set_faults(&self, replica: usize, lines: &str) {
        // Complete under its name, or not there: half a file would be half the faults.
        let (file, half) = (self.fault_file(replica), self.directory.0.join("half"));
        std::fs::write(&half, lines).expect("the directory is ours");
        std::fs::rename(&half, &file).expect("the directory is ours");
    }

    /// Spawns a replica, and does not wait.
    pub fn spawn(&mut self, replica: usize) {
        assert!(self.replicas[replica].is_none(), "it runs");
        let addresses = self
            .network
            .as_ref()
            .map_or(&self.addresses[..], |network| network.of_replica(replica));
        let mut command = start(&self.file(replica), addresses);
        command
            .arg("--development")
            .arg("--fault-file")
            .arg(self.fault_file(replica));
        if let Some(address) = &self.gateways[replica] {
            command.args(["--resp", address]);
        }
        self.replicas[replica] = Some(Replica::spawn(&mut command));
    }

    /// Starts a replica and waits for its `ready` line.
    pub fn start(&mut self, replica: usize) {
        self.spawn(replica);
        self.replica(replica).wait_ready();
    }

    /// Starts all, at once, and waits until they are well.
    pub fn start_all(&mut self) {
        for replica in 0..self.replicas.len() {
            self.spawn(replica);
        }
        for replica in 0..self.replicas.len() {
            self.replica(replica).wait_ready();
        }
        self.wait_healthy();
    }

    pub fn replica(&self, replica: usize) -> &Replica {
        self.replicas[replica].as_ref().expect("it runs")
    }

    pub fn runs(&self, replica: usize) -> bool {
        self.replicas[replica].is_some()
    }

    /// Kills a replica as `kill -9` does.
    pub fn kill(&mut self, replica: usize) {
        self.replicas[replica].take().expect("it runs").kill();
    }

    /// Asks a replica to end, which must end well.
    pub fn stop(&mut self, replica: usize) -> Duration {
        let replica = self.replicas[replica].take().expect("it runs");
        replica.stop_well(Signal::TERM)
    }

    /// Makes a new data file for a replica that is down, as `viewstone recover` does while the others run.
    pub fn recover(&self, replica: usize) {
        let mut command = super::viewstone();
        command.args(["recover", "--cluster", &CLUSTER.to_string()]);
        command.args(["--addresses", &self.addresses.join(",")]);
        command.args(["--replica", &replica.to_string()]);
        let (status, _, error) = super::output(command.arg(self.file(replica)));
        assert_eq!(status, 0, "{error}");
    }

    /// Takes a replica out, to do with it as one likes.
    pub fn take(&mut self, replica: usize) -> Replica {
        self.replicas[replica].take().expect("it runs")
    }

    /// No replica has ended or complained; and all end well when they are asked to.
    pub fn stop_all_well(&mut self) {
        for replica in self.replicas.iter_mut().flatten() {
            replica.assert_well();
        }
        for replica in self.replicas.iter_mut().filter_map(Option::take) {
            replica.stop_well(Signal::TERM);
        }
    }

    /// What each replica says of itself; nothing if it does not answer. Asked directly, past all proxies.
    pub fn pongs(&self) -> Vec<Option<PongClient>> {
        let options = ClientOptions::new(CLUSTER, self.addresses.iter().cloned());
        let mut host = options.host().expect("the addresses make sense");
        let until = host.now_ns() + ANSWER.as_nanos() as u64;
        loop {
            let pongs: Vec<_> = host.core().replicas().map(Option::<&_>::copied).collect();
            let troubles: Vec<_> = host.troubles().map(|(_, it)| it.is_some()).collect();
            let mut each = pongs.iter().zip(troubles);
            let known = each.all(|(pong, trouble)| pong.is_some() || trouble);
            if known || host.now_ns() >= until {
                return pongs;
            }
            host.turn(until, &mut |_, _| {})
                .expect("sockets can be waited for");
        }
    }

    /// Waits until a replica leads, with `followers` others in its view, and returns it.
    pub fn wait_led(&self, followers: usize) -> usize {
        let mut led = None;
        self.wait_pongs("a primary with followers", |pongs| {
            led = leader(pongs);
            let in_view = |view| {
                let normal = pongs.iter().flatten().filter(|it| is_normal(it));
                normal.filter(|it| it.frame.view == view).count()
            };
            led.is_some_and(|(_, view)| in_view(view) > followers)
        });
        led.expect("just found").0
    }

    /// The replica that leads, as the replicas that run say.
    pub fn primary(&self) -> usize {
        self.wait_led(1)
    }

    /// Waits until all replicas follow one primary and miss nothing, and returns the time that took.
    pub fn wait_healthy(&self) -> Duration {
        self.wait_pongs("a healthy cluster", |pongs| {
            let Some((_, view)) = leader(pongs) else {
                return false;
            };
            let all = pongs.iter().all(Option::is_some);
            let commit = pongs.iter().flatten().map(|it| it.commit_min).max();
            all && pongs.iter().flatten().all(|it| {
                let level = it.commit_min + 16 >= commit.unwrap_or(0);
                is_normal(it) && it.frame.view == view && level && it.missing == 0
            })
        })
    }

    /// Waits until one replica follows the others and misses nothing, whatever is wrong with the others.
    pub fn wait_level(&self, replica: usize) -> Duration {
        self.wait_pongs("a level replica", |pongs| {
            let Some((_, view)) = leader(pongs) else {
                return false;
            };
            pongs[replica]
                .is_some_and(|it| is_normal(&it) && it.frame.view == view && it.missing == 0)
        })
    }

    /// Asks until `is_so`, and returns the time that took.
    pub fn wait_pongs(
        &self,
        what: &str,
        mut is_so: impl FnMut(&[Option<PongClient>]) -> bool,
    ) -> Duration {
        let begin = Instant::now();
        loop {
            let pongs = self.pongs();
            if is_so(&pongs) {
                return begin.elapsed();
            }
            let in_time = begin.elapsed() < HANG;
            assert!(in_time, "{what} never came: {}", summary(&pongs));
            // Each question is three connections: asked without a pause, they would be a load of their own.
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What all replicas have written to standard error.
    pub fn errors(&self) -> String {
        let mut lines = Vec::new();
        for (index, replica) in self.replicas.iter().enumerate() {
            let Some(replica) = replica else { continue };
            lines.push(format!("-- replica {index}:"));
            let errors = replica.errors();
            let said = errors
                .lines()
                .filter(|line| !line.contains("INFO  memory: "));
            lines.extend(said.map(str::to_owned));
        }
        lines.join("\n")
    }
}

impl Drop for Cluster {
    /// Whoever looks at a failed test wants to know what the replicas said.
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}\n{}", summary(&self.pongs()), self.errors());
        }
    }
}

fn is_normal(pong: &PongClient) -> bool {
    pong.status == ReplicaStatus::Normal as u8
}

/// Who leads the newest view, and which view that is.
fn leader(pongs: &[Option<PongClient>]) -> Option<(usize, u32)> {
    let newest = pongs.iter().flatten().map(|it| it.frame.view).max()?;
    let leads = |it: &&PongClient| it.frame.replica == it.primary && is_normal(it);
    let leader = pongs
        .iter()
        .flatten()
        .filter(leads)
        .find(|it| it.frame.view == newest)?;
    Some((usize::from(leader.primary), newest))
}

fn summary(pongs: &[Option<PongClient>]) -> String {
    let one = |pong: &Option<PongClient>| match pong {
        None => "no answer".to_owned(),
        Some(it) => format!(
            "replica {} status {:?} view {} log_view {} op {} commit {}/{} missing {} checkpoint {}",
            it.frame.replica,
            ReplicaStatus::from_u8(it.status),
            it.frame.view,
            it.log_view,
            it.op,
            it.commit_min,
            it.commit_max,
            it.missing,
            it.checkpoint_op,
        ),
    };
    pongs.iter().map(one).collect::<Vec<_>>().join("; ")
}
