//! Measures ratios: Viewstone against the floor of the machine, against itself, and against other stores, in runs that
//! alternate, so that whatever else the machine does at the time is on both sides.

mod floor;
mod machine;
mod own;
mod raw;
mod redis;
mod report;
mod subject;
mod tail;

use clap::{Parser, Subcommand};
use report::Report;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use subject::Failure;
use viewstone::sealed_allocator::SealedAllocator;

/// Replicas run here as they do in the released binary, seal included.
#[global_allocator]
static ALLOCATOR: SealedAllocator = SealedAllocator;

/// Measures ratios against the floor of this machine. See docs/performance.md.
///
/// Data files and raw files go into a new directory, which is removed. Exit status: 0 measured (whether goals were
/// reached or not), 2 it could not be run.
#[derive(Parser, Debug)]
#[command(name = "comparisons")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Where the files go: a disk, not a file system in memory.
    #[arg(long, default_value = ".", global = true)]
    directory: PathBuf,
    /// Rounds; the median of their ratios counts.
    #[arg(long, default_value_t = 5, global = true, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Length of each run.
    #[arg(long, default_value = "3s", global = true, value_parser = viewstone::cli::cluster::duration)]
    duration: Duration,
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Clone, Copy, Debug)]
enum Command {
    /// One client's durable puts over raw durable writes of 4 KiB.
    FloorLatency,
    /// Journal bytes with prepares of 1 MiB over raw durable writes of 1 MiB.
    FloorThroughput,
    /// Latency of puts with checkpoints over without, open loop at half capacity.
    CheckpointTail {
        /// Replicas.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=6))]
        replicas: u8,
    },
    /// Time to format and to start, empty and full.
    Start,
    /// Bytes written to the disk for each byte put.
    Bytes,
    /// SET and GET of three replicas behind the gateway, over one redis-server with appendfsync always. Needs redis-server
    /// and redis-benchmark.
    Redis,
    /// All of these but Redis; the tail with three replicas and with one.
    All,
}

/// What all comparisons share.
#[derive(Clone, Debug)]
pub struct Common {
    directory: PathBuf,
    rounds: u32,
    duration: Duration,
}

type Comparison = fn(&Common) -> Result<Report, Failure>;

fn tail_of_three(common: &Common) -> Result<Report, Failure> {
    tail::checkpoint_tail(common, 3)
}

fn tail_of_one(common: &Common) -> Result<Report, Failure> {
    tail::checkpoint_tail(common, 1)
}

const ALL: [Comparison; 6] = [
    floor::latency,
    floor::throughput,
    tail_of_three,
    tail_of_one,
    own::start,
    own::bytes,
];

fn compare(
    common: &Common,
    command: Command,
    show: impl Fn(&Report),
) -> Result<Vec<Report>, Failure> {
    let one = |report: Result<Report, Failure>| {
        let report = report?;
        show(&report);
        Ok(report)
    };
    match command {
        Command::FloorLatency => Ok(vec![one(floor::latency(common))?]),
        Command::FloorThroughput => Ok(vec![one(floor::throughput(common))?]),
        Command::CheckpointTail { replicas } => {
            Ok(vec![one(tail::checkpoint_tail(common, replicas))?])
        }
        Command::Start => Ok(vec![one(own::start(common))?]),
        Command::Bytes => Ok(vec![one(own::bytes(common))?]),
        Command::Redis => Ok(vec![one(redis::redis(common))?]),
        Command::All => ALL
            .iter()
            .map(|comparison| one(comparison(common)))
            .collect(),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let common = Common {
        directory: arguments.directory.clone(),
        rounds: arguments.rounds,
        duration: arguments.duration,
    };
    let command_line: Vec<_> = std::env::args().skip(1).collect();
    let context = json!({
        "command": format!("comparisons {}", command_line.join(" ")),
        "commit": machine::commit(),
        "machine": machine::facts(&common.directory),
    });
    if !arguments.json {
        println!("{context:#}\n");
    }
    let show = |report: &Report| {
        if !arguments.json {
            println!("{}", report.to_text());
        }
    };
    match compare(&common, arguments.command, show) {
        Ok(reports) if arguments.json => {
            let mut object = context;
            object["load_average_after"] = json!(machine::load());
            object["comparisons"] = reports
                .iter()
                .map(Report::to_json)
                .collect::<Vec<Value>>()
                .into();
            println!("{object:#}");
            ExitCode::SUCCESS
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("comparisons: {failure}");
            ExitCode::from(2)
        }
    }
}
