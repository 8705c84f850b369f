//! `bench`: load, figures, and the proof that nothing acknowledged is missing.

use super::cluster::{duration, grouped, table};
use super::size::{parse_cluster, parse_size};
use crate::bench::cluster::{Footprint, Machines};
use crate::bench::failover::Failover;
use crate::bench::ledger::{KEY_SIZE_MIN, Ledger, VALUE_SIZE_MIN};
use crate::bench::load::{self, LoadError, LoadOptions, Stop};
use crate::bench::measure::{Latencies, Measurements, human_bytes, human_us};
use crate::bench::verify::{self, Verification, VerifyError};
use crate::client::{ClientOptions, ConnectError, Host};
use crate::server::embedded::{EmbeddedCluster, EmbeddedError};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use storage::layout::{Geometry, GeometryError};

const NOTES: &str = "\
Examples:
  viewstone bench
  viewstone bench --cluster 7 --addresses a:3001,b:3001,c:3001 --clients 16 --read-share 0.5
  viewstone bench --kill-primary 10 --geometry small

Exit status:
  0  all acknowledged writes are there
  1  one is missing, or a read was stale
  2  it could not be run, or the command line is wrong";

/// Load a cluster, measure it, and verify that every acknowledged write is there.
///
/// Without --addresses: formats and starts a cluster of its own in this process (threads, TCP on loopback, real data
/// files), loads it, stops all of it, starts it again, and reads everything back.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct BenchArgs {
    /// Load a running cluster instead: its replicas' addresses, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "ADDRESS,...",
        requires = "cluster"
    )]
    pub addresses: Vec<String>,
    /// The running cluster's id.
    #[arg(long, value_parser = parse_cluster)]
    pub cluster: Option<u128>,
    /// Replicas of the embedded cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=6))]
    pub replicas: u8,
    /// Where the embedded cluster's data files go, in a new directory that is removed when all is well.
    #[arg(long, default_value = ".")]
    pub directory: PathBuf,
    /// Clients, each with one request in flight.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub clients: u32,
    /// Bytes of a key.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(KEY_SIZE_MIN as i64..=256))]
    pub key_size: u16,
    /// Bytes of a value.
    #[arg(long, default_value = "100", value_parser = parse_size)]
    pub value_size: u64,
    /// Keys in all; by default as many as fill an eighth of the state, at most 100,000.
    #[arg(long)]
    pub keys: Option<u32>,
    /// How long to load.
    #[arg(long, default_value = "10s", value_parser = duration, conflicts_with = "count")]
    pub duration: Duration,
    /// Load with so many operations instead.
    #[arg(long)]
    pub count: Option<u64>,
    /// Share of requests that read, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub read_share: f64,
    /// Operations in a request.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch: u32,
    /// Open loop: operations that arrive in a second. Without it, each client sends when it has its answer.
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// The order of keys and reads follows from it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long a call may take.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Run the replicas as processes, kill the primary so many times under the load, and measure how long nobody can write;
    /// at the end all are killed and started again before everything is read back.
    #[arg(long, value_name = "ROUNDS", value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with_all = ["addresses", "duration", "count"])]
    pub kill_primary: Option<u32>,
    /// The embedded cluster's data files.
    #[command(flatten)]
    pub geometry: BenchGeometry,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Lose one acknowledged write on purpose: the run must end with exit status 1.
    #[arg(long, hide = true)]
    pub drop_record: bool,
}

/// Numbers of the embedded cluster's data files.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct BenchGeometry {
    /// The numbers to start from.
    #[arg(long, default_value = "default", value_parser = preset)]
    pub geometry: Geometry,
    /// Memory and disk for state.
    #[arg(long, value_parser = parse_size)]
    pub state_size: Option<u64>,
    /// Largest message.
    #[arg(long, value_parser = parse_size)]
    pub message_size: Option<u64>,
    /// Slots of the journal.
    #[arg(long)]
    pub slots: Option<u32>,
    /// Most prepares in flight.
    #[arg(long)]
    pub pipeline: Option<u32>,
    /// Most client sessions.
    #[arg(long)]
    pub sessions: Option<u32>,
}

fn preset(text: &str) -> Result<Geometry, String> {
    match text {
        "default" => Ok(Geometry::DEFAULT),
        "small" => Ok(Geometry::SMALL),
        "large" => Ok(Geometry::LARGE),
        _ => Err("a geometry is small, default or large".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: Option<f64> = text.parse().ok();
    share
        .filter(|it| (0.0..=1.0).contains(it))
        .ok_or_else(|| "a share is from 0 to 1".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: Option<f64> = text.parse().ok();
    rate.filter(|it| (0.001..=1e9).contains(it))
        .ok_or_else(|| "a rate is operations in a second, above zero".to_owned())
}

/// Why it could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Flags that do not go together.
    #[error("{0}")]
    Arguments(String),
    /// An impossible geometry.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The directory cannot be made, or not be removed.
    #[error("{}: {error}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The embedded cluster does not start or stop.
    #[error("the embedded cluster: {0}")]
    Embedded(#[from] EmbeddedError),
    /// The replicas that are killed do not start or stop.
    #[error("the cluster: {0}")]
    Cluster(String),
    /// The client does not start.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No load could be made.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It could not be verified.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl BenchGeometry {
    fn resolve(&self) -> Result<Geometry, BenchError> {
        let mut geometry = self.geometry;
        geometry.state_size = self.state_size.unwrap_or(geometry.state_size);
        if let Some(size) = self.message_size {
            geometry.message_size_max = u32::try_from(size).unwrap_or(u32::MAX);
        }
        geometry.slots = self.slots.unwrap_or(geometry.slots);
        geometry.pipeline_max = self.pipeline.unwrap_or(geometry.pipeline_max);
        geometry.sessions_max = self.sessions.unwrap_or(geometry.sessions_max);
        geometry.check()?;
        Ok(geometry)
    }
}

impl BenchArgs {
    fn client_options(&self, cluster: u128, addresses: &[String]) -> ClientOptions {
        let mut options = ClientOptions::new(cluster, addresses.iter().cloned());
        options.sessions = self.clients as usize;
        options.calls_max = (self.clients as usize).max(1024);
        options.deadline = self.timeout;
        options
    }

    fn load_options(&self) -> LoadOptions {
        LoadOptions {
            workers: self.clients as usize,
            batch: self.batch as usize,
            read_share: self.read_share,
            stop: match (self.count, self.kill_primary) {
                (_, Some(_)) => Stop::Count(u64::MAX),
                (Some(count), None) => Stop::Count(count),
                (None, None) => Stop::After(self.duration),
            },
            rate: self.rate,
            deadline: self.timeout,
            seed: self.seed,
        }
    }

    /// The record of what will be written.
    fn ledger(&self, geometry: &Geometry) -> Result<Ledger, BenchError> {
        let value_size = self.value_size as usize;
        if value_size < VALUE_SIZE_MIN || self.value_size > 16 << 20 {
            let message = format!("values have from {VALUE_SIZE_MIN} bytes to 16 MiB");
            return Err(BenchError::Arguments(message));
        }
        // Pages are between half and fully used, and values of many pages have a tail.
        let entry_size = u64::from(self.key_size) + self.value_size + 64;
        let default = (geometry.state_size / 8 / entry_size).clamp(1, 100_000);
        let keys = self.keys.map_or(default, u64::from) as usize;
        let each = (keys / self.clients as usize).max(self.batch as usize);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let run = now.as_nanos() as u32 ^ std::process::id().rotate_left(16);
        let clients = self.clients as usize;
        Ok(Ledger::new(
            run,
            clients,
            each,
            self.key_size as usize,
            value_size,
        ))
    }
}

/// What a run brought.
struct Report {
    measurements: Measurements,
    verification: Verification,
    /// How it was verified, for people.
    how: &'static str,
    footprint: Option<Footprint>,
    replicas: Option<u8>,
    /// The longest time without a write, of each primary that was killed.
    failovers: Option<Latencies>,
}

impl Report {
    fn is_good(&self) -> bool {
        self.verification.is_good() && self.measurements.stale == 0
    }
}

/// Runs the load, prints the figures, and returns the exit status.
///
/// # Errors
/// [`BenchError`]: exit status 2.
pub fn run(args: &BenchArgs) -> Result<u8, BenchError> {
    let mut report = match (args.kill_primary, args.addresses.is_empty()) {
        (Some(rounds), _) => run_failovers(args, rounds)?,
        (None, true) => run_embedded(args)?,
        (None, false) => run_remote(args)?,
    };
    if args.json {
        println!("{}", to_json(args, &mut report));
    } else {
        print!("{}", to_text(&mut report));
    }
    Ok(u8::from(!report.is_good()))
}

fn run_remote(args: &BenchArgs) -> Result<Report, BenchError> {
    let cluster = args.cluster.unwrap_or_default();
    let options = args.client_options(cluster, &args.addresses);
    let mut ledger = args.ledger(&args.geometry.resolve()?)?;
    let measurements = load_and_drop(args, &options, &mut ledger, None)?;
    let verification = verify::through_client(&mut options.host()?, &ledger, args.timeout)?;
    Ok(Report {
        measurements,
        verification,
        how: "read back through a fresh client",
        footprint: None,
        replicas: None,
        failovers: None,
    })
}

fn load_and_drop(
    args: &BenchArgs,
    options: &ClientOptions,
    ledger: &mut Ledger,
    mut failover: Option<&mut Failover>,
) -> Result<Measurements, BenchError> {
    let mut host: Host = options.host()?;
    let live = std::io::stderr().is_terminal();
    let mut progress = |elapsed: Duration, measurements: &mut Measurements| {
        show_progress(elapsed, measurements, live);
        let step = failover
            .as_mut()
            .map(|failover| failover.step(measurements));
        step.unwrap_or(ControlFlow::Continue(()))
    };
    let measurements = load::run(&mut host, args.load_options(), ledger, &mut progress)?;
    if live {
        eprintln!();
    }
    if args.drop_record {
        load::drop_record(&mut host, ledger, args.timeout).map_err(BenchError::Cluster)?;
    }
    Ok(measurements)
}

fn show_progress(elapsed: Duration, measurements: &Measurements, live: bool) {
    let line = format!(
        "{:>5} s  {:>10} op/s  p50 {:>8}  p99 {:>8}  max {:>8}",
        elapsed.as_secs(),
        grouped(measurements.recent_operations),
        human_us(measurements.recent.us(0.5)),
        human_us(measurements.recent.us(0.99)),
        human_us(measurements.recent.us(1.0)),
    );
    let mut stderr = std::io::stderr().lock();
    // A progress line that cannot be shown is no reason to stop.
    let _ = if live {
        write!(stderr, "\r{line}  ")
    } else {
        writeln!(stderr, "{line}")
    };
}

/// What a cluster of this process or of others needs before it runs: a place for its files, and its files.
fn prepare(
    args: &BenchArgs,
    geometry: Geometry,
) -> Result<(Directory, u128, EmbeddedCluster<Machines>), BenchError> {
    if args.clients > geometry.sessions_max {
        return Err(BenchError::Arguments(format!(
            "{} clients need a session each; the geometry has {}: raise --sessions or lower --clients",
            args.clients, geometry.sessions_max
        )));
    }
    let directory = make_directory(&args.directory)?;
    warn_of_memory(&directory.path);
    let id = u128::from(args.seed) << 64 | u128::from(std::process::id());
    let cluster = EmbeddedCluster::format(id, args.replicas, geometry, &directory.path)?;
    Ok((directory, id, cluster))
}

fn run_embedded(args: &BenchArgs) -> Result<Report, BenchError> {
    let geometry = args.geometry.resolve()?;
    let mut ledger = args.ledger(&geometry)?;
    let (directory, id, mut cluster) = prepare(args, geometry)?;
    cluster.start()?;
    let client_options = args.client_options(id, cluster.addresses());
    let measurements = load_and_drop(args, &client_options, &mut ledger, None)?;
    let footprint = Footprint::of(&cluster);
    cluster.stop()?;
    cluster.start()?;
    let verification = read_back(args, id, cluster.addresses(), &ledger)?;
    cluster.stop()?;
    let report = Report {
        measurements,
        verification,
        how: "all replicas were stopped and started again, then all was read back by a fresh client",
        footprint: Some(footprint),
        replicas: Some(args.replicas),
        failovers: None,
    };
    directory.finish(&report)?;
    Ok(report)
}

/// Reads every key back through a client that knows nothing of the load.
fn read_back(
    args: &BenchArgs,
    id: u128,
    addresses: &[String],
    ledger: &Ledger,
) -> Result<Verification, BenchError> {
    let mut host = args.client_options(id, addresses).host()?;
    Ok(verify::through_client(&mut host, ledger, args.timeout)?)
}

/// Kills primaries under the load.
fn run_failovers(args: &BenchArgs, rounds: u32) -> Result<Report, BenchError> {
    if args.replicas < 3 {
        let message = "nobody can take over from a primary of fewer than three replicas";
        return Err(BenchError::Arguments(message.to_owned()));
    }
    let geometry = args.geometry.resolve()?;
    let mut ledger = args.ledger(&geometry)?;
    let (directory, id, cluster) = prepare(args, geometry)?;
    let binary = std::env::current_exe().map_err(|error| BenchError::Cluster(error.to_string()))?;
    let mut failover =
        Failover::start(&binary, id, cluster.files(), rounds).map_err(BenchError::Cluster)?;
    let client_options = args.client_options(id, failover.addresses());
    let measurements = load_and_drop(args, &client_options, &mut ledger, Some(&mut failover))?;
    failover.check().map_err(BenchError::Cluster)?;
    failover.restart_all().map_err(BenchError::Cluster)?;
    let verification = read_back(args, id, failover.addresses(), &ledger)?;
    let report = Report {
        measurements,
        verification,
        how: "all replicas were killed and started again, then all was read back by a fresh client",
        footprint: None,
        replicas: Some(args.replicas),
        failovers: Some(failover.gaps().clone()),
    };
    drop(failover);
    directory.finish(&report)?;
    Ok(report)
}

struct Directory {
    path: PathBuf,
}

fn make_directory(parent: &Path) -> Result<Directory, BenchError> {
    let path = parent.join(format!("viewstone-bench-{}", std::process::id()));
    match std::fs::create_dir(&path) {
        Ok(()) => Ok(Directory { path }),
        Err(error) => Err(BenchError::Directory { path, error }),
    }
}

impl Directory {
    /// Removes the data files if all was well; otherwise somebody wants to look at them.
    fn finish(self, report: &Report) -> Result<(), BenchError> {
        if report.is_good() {
            return self.remove();
        }
        eprintln!("the data files are kept: {}", self.path.display());
        Ok(())
    }

    fn remove(self) -> Result<(), BenchError> {
        let removed = std::fs::remove_dir_all(&self.path);
        removed.map_err(|error| BenchError::Directory {
            path: self.path,
            error,
        })
    }
}

/// Figures of a file system in memory say nothing of a disk: say so where nobody can miss it.
fn warn_of_memory(path: &Path) {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    if let Ok(it) = rustix::fs::statfs(path)
        && matches!(u64::try_from(it.f_type), Ok(TMPFS | RAMFS))
    {
        eprintln!(
            "WARNING: {} is in MEMORY (tmpfs): nothing here is durable, and no figure below is a disk's. \
             Name a directory on a disk with --directory.",
            path.display()
        );
    }
}

/// Memory of this process, in bytes; zero if the system does not tell.
fn memory_resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

fn to_json(args: &BenchArgs, report: &mut Report) -> Value {
    let Report {
        measurements,
        verification,
        ..
    } = report;
    let (batch_mean, batch_p50, batch_max) = measurements.batches.summary();
    let mut object = json!({
        "operations": measurements.operations,
        "acknowledged": measurements.acknowledged,
        "lost": verification.lost + verification.corrupt,
        "throughput_per_s": measurements.throughput(),
        "latency_us": measurements.all().to_json(),
        "write_latency_us": measurements.writes.to_json(),
        "read_latency_us": measurements.reads.to_json(),
        "indeterminate": measurements.indeterminate,
        "failed": measurements.failed,
        "stale_reads": measurements.stale,
        "first_failure": measurements.first_failure,
        "seconds": measurements.elapsed_ns as f64 / 1e9,
        "requests_per_op": { "mean": batch_mean, "p50": batch_p50, "max": batch_max },
        "verified": {
            "how": report.how,
            "keys": verification.keys,
            "present": verification.present,
            "unknown_executed": verification.unknown_executed,
            "missing": verification.named,
        },
        "memory_resident_bytes": memory_resident(),
        "replicas": report.replicas,
        "clients": args.clients,
        "batch": args.batch,
        "key_size": args.key_size,
        "value_size": args.value_size,
        "read_share": args.read_share,
        "rate": args.rate,
        "seed": args.seed,
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine(),
    });
    if let Some(failovers) = &report.failovers {
        object["failovers"] = failovers.count().into();
        object["failover_gap_us"] = failovers.to_json();
    }
    if let Some(footprint) = report.footprint {
        object["journal_bytes"] = footprint.journal_bytes.into();
        object["checkpoint_bytes"] = footprint.checkpoint_bytes.into();
        object["checkpoints"] = footprint.checkpoints.into();
        object["memory_bytes"] = footprint.memory_bytes.into();
    }
    object
}

fn machine() -> String {
    let name = rustix::system::uname();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (system, release) = (
        name.sysname().to_string_lossy(),
        name.release().to_string_lossy(),
    );
    format!(
        "{system} {release} {}, {cores} cores",
        name.machine().to_string_lossy()
    )
}

fn to_text(report: &mut Report) -> String {
    let measurements = &mut report.measurements;
    let heading = ["", "count", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (name, latencies) in [
        ("writes", &measurements.writes),
        ("reads", &measurements.reads),
    ] {
        if latencies.count() > 0 {
            let mut row = vec![name.to_owned(), grouped(latencies.count())];
            row.extend(
                [0.5, 0.9, 0.99, 0.999, 1.0].map(|quantile| human_us(latencies.us(quantile))),
            );
            rows.push(row);
        }
    }
    let latencies = table(&rows);
    let (batch_mean, batch_p50, batch_max) = measurements.batches.summary();
    let mut facts = vec![
        ("operations", grouped(measurements.operations)),
        (
            "throughput",
            format!("{} op/s", grouped(measurements.throughput_whole())),
        ),
        (
            "requests per op",
            format!("mean {batch_mean:.1}, p50 {batch_p50}, max {batch_max}"),
        ),
    ];
    if let Some(footprint) = report.footprint {
        let checkpoints = format!(
            "{} in {} checkpoints",
            human_bytes(footprint.checkpoint_bytes),
            grouped(footprint.checkpoints)
        );
        facts.push(("journals", human_bytes(footprint.journal_bytes)));
        facts.push(("grids", checkpoints));
        facts.push((
            "replicas' memory",
            format!("{} reserved", human_bytes(footprint.memory_bytes)),
        ));
    }
    if let Some(gaps) = &report.failovers {
        let [p50, max] = [0.5, 1.0].map(|quantile| human_us(gaps.us(quantile)));
        let gaps = format!(
            "{}, longest time without a write: p50 {p50}, max {max}",
            gaps.count()
        );
        facts.push(("primaries killed", gaps));
    }
    facts.push((
        "process' memory",
        format!("{} in use, of this process", human_bytes(memory_resident())),
    ));
    facts.push(("machine", machine()));
    let facts = facts.iter().map(|(name, fact)| {
        format!(
            "{name:<17}  {fact}
"
        )
    });
    let facts: String = facts.collect();
    format!("{latencies}\n{}\n{}", facts, verdict(report))
}

fn verdict(report: &Report) -> String {
    let (measurements, found) = (&report.measurements, &report.verification);
    let acknowledged = grouped(measurements.acknowledged);
    let mut lines = vec![format!("verified: {}", report.how)];
    lines.push(if report.is_good() {
        let keys = grouped(found.present + found.unknown_executed);
        format!("OK: {acknowledged} writes acknowledged, none lost (the last of each of {keys} keys was looked up)")
    } else {
        format!(
            "FAILED: {acknowledged} writes acknowledged; of {} keys, {} have LOST theirs and {} hold what was never \
             written; {} reads were stale; first keys: {}",
            grouped(found.keys),
            grouped(found.lost),
            grouped(found.corrupt),
            grouped(measurements.stale),
            found.named.join(" "),
        )
    });
    if measurements.indeterminate + measurements.failed > 0 {
        lines.push(format!(
            "{} writes of unknown outcome ({} were executed), {} operations failed without effect",
            grouped(measurements.indeterminate),
            grouped(found.unknown_executed),
            grouped(measurements.failed),
        ));
    }
    if let Some(failure) = &measurements.first_failure {
        lines.push(format!("first failure: {failure}"));
    }
    lines.push(String::new());
    lines.join("\n")
}
