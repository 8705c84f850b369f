//! Our side: an embedded cluster under the load generator of `viewstone bench`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use storage::layout::Geometry;
use viewstone::bench::cluster::{Footprint, Machines};
use viewstone::bench::ledger::{KEY_SIZE_MIN, Ledger};
use viewstone::bench::load::{self, LoadOptions, Stop};
use viewstone::bench::measure::Measurements;
use viewstone::client::{ClientOptions, Host};
use viewstone::server::embedded::EmbeddedCluster;

/// Why a comparison could not be made, for people.
pub type Failure = String;

const CLUSTER: u128 = 0xc0;
/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Turns any error into a sentence.
pub fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| format!("{what}: {error}")
}

/// A directory that goes when it is dropped.
pub struct Directory(pub PathBuf);

impl Directory {
    /// A new one in `parent`.
    pub fn new(parent: &Path) -> Result<Self, Failure> {
        let path = parent.join(format!("comparisons-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(failed("the directory for data files"))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// What load to make.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients, each with one request in flight.
    pub clients: usize,
    /// Bytes of a value.
    pub value_size: usize,
    /// Keys in all.
    pub keys: usize,
    /// Puts in a request.
    pub batch: usize,
    /// Puts that arrive in a second; none: closed loop.
    pub rate: Option<f64>,
    /// When to stop.
    pub stop: Stop,
}

/// A running cluster, with the record of what was put.
pub struct Subject {
    cluster: EmbeddedCluster<Machines>,
    directory: Directory,
    runs: u32,
}

impl Subject {
    /// Formats a cluster in a directory of its own; it does not run yet.
    pub fn format(replicas: u8, geometry: Geometry, parent: &Path) -> Result<Self, Failure> {
        let directory = Directory::new(parent)?;
        let cluster = EmbeddedCluster::format(CLUSTER, replicas, geometry, &directory.0)
            .map_err(failed("format"))?;
        Ok(Self {
            cluster,
            directory,
            runs: 0,
        })
    }

    /// Starts it; returns when all replicas have read their files, a replica alone when it serves.
    pub fn start(&mut self) -> Result<(), Failure> {
        self.cluster.start().map_err(failed("start"))
    }

    /// Stops it.
    pub fn stop(&mut self) -> Result<(), Failure> {
        self.cluster.stop().map_err(failed("stop"))
    }

    /// Formats and starts.
    pub fn running(replicas: u8, geometry: Geometry, parent: &Path) -> Result<Self, Failure> {
        let mut subject = Self::format(replicas, geometry, parent)?;
        subject.start()?;
        Ok(subject)
    }

    /// Bytes of a replica's data file.
    pub fn file_size(&self) -> u64 {
        let file = self.directory.0.join("0.viewstone");
        std::fs::metadata(file).map_or(0, |it| it.len())
    }

    /// What it has used since its start.
    pub fn footprint(&self) -> Footprint {
        Footprint::of(&self.cluster)
    }

    /// Bytes it has written to its superblocks since its start.
    pub fn superblock_bytes(&self) -> u64 {
        let replicas = self.cluster.published().iter();
        replicas
            .map(|it| {
                it.superblock_bytes
                    .load(std::sync::atomic::Ordering::Relaxed)
            })
            .sum()
    }

    /// A client, with room for `sessions` puts in flight.
    pub fn client(&self, sessions: usize) -> Result<Host, Failure> {
        let mut options = ClientOptions::new(CLUSTER, self.cluster.addresses().iter().cloned());
        options.sessions = sessions;
        options.calls_max = sessions.max(1024);
        options.deadline = DEADLINE;
        options.host().map_err(failed("the client"))
    }

    /// Makes load. Every put must be acknowledged: a figure of a run with failures would mean nothing.
    pub fn load(&mut self, load: Load) -> Result<Measurements, Failure> {
        assert!(load.clients > 0);
        let each = (load.keys / load.clients).max(load.batch);
        self.runs += 1;
        let mut ledger = Ledger::new(self.runs, load.clients, each, KEY_SIZE_MIN, load.value_size);
        let options = LoadOptions {
            workers: load.clients,
            batch: load.batch,
            read_share: 0.0,
            stop: load.stop,
            rate: load.rate,
            deadline: DEADLINE,
            seed: u64::from(self.runs),
        };
        let mut host = self.client(load.clients)?;
        let measured = load::run(&mut host, options, &mut ledger, &mut |_, _| {
            ControlFlow::Continue(())
        })
        .map_err(failed("the load"))?;
        match &measured.first_failure {
            Some(failure) => Err(format!("a put was not acknowledged: {failure}")),
            None => Ok(measured),
        }
    }
}
