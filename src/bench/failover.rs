//! How long nobody can write when the primary dies: a cluster of processes, whose primary is killed again and again under
//! the load, as `kill -9` does.
//!
//! It runs in the load's own thread, a step about every second: kill the primary; when there are answers again, note the
//! longest time without one, and start the replica; when all are well, kill the next.

use super::measure::{Latencies, Measurements};
use crate::cli::status::{Health, ask, assess};
use crate::client::ClientOptions;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A cluster that takes longer to be well again is stuck.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a replica that is asked how it is may think about it; the load waits meanwhile.
const ANSWER: Duration = Duration::from_millis(500);

/// Answers after which writing goes on as before.
const ANSWERS_MIN: u64 = 100;

/// Replicas listen below the ports that the system gives to outgoing connections: a client that dials a dead replica must
/// not be given the very port that it dials.
const PORTS: std::ops::Range<u32> = 10_000..30_000;

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Until all are well.
    Settling,
    /// This replica was killed; until others answer.
    Killed(usize),
}

/// A cluster of processes, and how far the kills have come.
#[derive(Debug)]
pub struct Failover {
    binary: PathBuf,
    cluster: u128,
    files: Vec<PathBuf>,
    addresses: Vec<String>,
    replicas: Vec<Option<Child>>,
    rounds: u32,
    phase: Phase,
    /// When the phase began.
    since: Instant,
    gaps: Latencies,
    failure: Option<String>,
}

impl Failover {
    /// Starts a replica of each data file as a process of this binary, to kill `rounds` primaries.
    ///
    /// # Errors
    /// What went wrong, for the user.
    pub fn start(
        binary: &Path,
        cluster: u128,
        files: &[PathBuf],
        rounds: u32,
    ) -> Result<Self, String> {
        let mut this = Self {
            binary: binary.to_path_buf(),
            cluster,
            files: files.to_vec(),
            addresses: free_addresses(files.len())?,
            replicas: files.iter().map(|_| None).collect(),
            rounds,
            phase: Phase::Settling,
            since: Instant::now(),
            gaps: Latencies::new(),
            failure: None,
        };
        this.start_all()?;
        Ok(this)
    }

    /// Where the replicas listen.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The longest time without an acknowledged write, of each kill.
    pub fn gaps(&self) -> &Latencies {
        &self.gaps
    }

    /// One step. It breaks off when enough primaries were killed, or when something went wrong.
    pub fn step(&mut self, measurements: &mut Measurements) -> ControlFlow<()> {
        match self.try_step(measurements) {
            Ok(()) if self.gaps.count() < u64::from(self.rounds) => ControlFlow::Continue(()),
            Ok(()) => ControlFlow::Break(()),
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    /// What went wrong, if something did.
    ///
    /// # Errors
    /// That, for the user.
    pub fn check(&mut self) -> Result<(), String> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn try_step(&mut self, measurements: &mut Measurements) -> Result<(), String> {
        if self.since.elapsed() > PATIENCE {
            return Err(format!("the cluster is not well again after {PATIENCE:?}"));
        }
        match self.phase {
            Phase::Settling => {
                let Some(primary) = self.primary_if_well()? else {
                    return Ok(());
                };
                measurements.gap.restart();
                self.kill(primary);
                self.enter(Phase::Killed(primary));
            }
            Phase::Killed(replica) if measurements.gap.answers() >= ANSWERS_MIN => {
                self.gaps.record(measurements.gap.longest_ns());
                self.spawn(replica)?;
                self.enter(Phase::Settling);
            }
            Phase::Killed(_) => {}
        }
        Ok(())
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    /// The primary, if all replicas are well.
    fn primary_if_well(&self) -> Result<Option<usize>, String> {
        let options = ClientOptions::new(self.cluster, self.addresses.iter().cloned());
        let answers = ask(&options, ANSWER).map_err(|error| error.to_string())?;
        let pong = answers.first().and_then(|answer| answer.pong);
        let well = assess(&answers) == Health::Healthy;
        Ok(pong.filter(|_| well).map(|pong| usize::from(pong.primary)))
    }

    /// Kills all replicas, starts them again, and waits until they are well.
    ///
    /// # Errors
    /// What went wrong, for the user.
    pub fn restart_all(&mut self) -> Result<(), String> {
        for replica in 0..self.replicas.len() {
            self.kill(replica);
        }
        self.start_all()
    }

    fn start_all(&mut self) -> Result<(), String> {
        for replica in 0..self.replicas.len() {
            self.spawn(replica)?;
        }
        let begin = Instant::now();
        while self.primary_if_well()?.is_none() {
            if begin.elapsed() > PATIENCE {
                return Err(format!("the cluster does not serve within {PATIENCE:?}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn spawn(&mut self, replica: usize) -> Result<(), String> {
        let mut command = Command::new(&self.binary);
        command.args(["start", "--log-level", "error", "--addresses"]);
        command.arg(self.addresses.join(","));
        command.arg(&self.files[replica]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let binary = self.binary.display();
        self.replicas[replica] = Some(child.map_err(|error| format!("{binary}: {error}"))?);
        Ok(())
    }

    fn kill(&mut self, replica: usize) {
        if let Some(mut child) = self.replicas[replica].take() {
            // It may have ended by itself: then it is not well, and that is noticed elsewhere.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Failover {
    fn drop(&mut self) {
        for replica in 0..self.replicas.len() {
            self.kill(replica);
        }
    }
}

fn free_addresses(count: usize) -> Result<Vec<String>, String> {
    let span = PORTS.end - PORTS.start;
    let first = std::process::id().wrapping_mul(101) % span;
    let all = (0..span).map(|step| PORTS.start + (first + step) % span);
    let all = all.map(|port| format!("127.0.0.1:{port}"));
    let found: Vec<_> = all
        .filter(|address| TcpListener::bind(address).is_ok())
        .take(count)
        .collect();
    if found.len() == count {
        Ok(found)
    } else {
        Err("no ports are free between 10,000 and 30,000".to_owned())
    }
}
