//! Runs seeds. See the library for what a run is.

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use simulator::coverage::Coverage;
use simulator::failure;
use simulator::pinned::{PINNED, hashes};
use simulator::prng::Prng;
use simulator::run::{Summary, run, run_plan};
use simulator::swarm::Plan;
use simulator::workload::KvWorkload;
use std::hash::{BuildHasher, RandomState};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Runs whole clusters on virtual time, with faults of processes, network, clocks and disks, and checks every event.
///
/// Exit status 0: every seed held. A violation prints the seed and what was violated, and ends the process.
#[derive(Parser, Debug)]
#[command(name = "simulator")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
struct Arguments {
    /// How many fresh seeds to run; 100 by default, of each mutant at most 2,000.
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    /// Runs fresh seeds for so long instead, in seconds.
    #[arg(long, conflicts_with_all = ["seed", "seeds"])]
    seconds: Option<u64>,
    /// Runs the seeds that once found something, and those whose traces are known.
    #[arg(long, conflicts_with_all = ["seed", "seeds", "seconds", "first"])]
    pinned: bool,
    /// The first of the fresh seeds; the others follow it. Random by default.
    #[arg(long, conflicts_with = "seed")]
    first: Option<u64>,
    /// Runs this seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints every event.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Builds and runs the table of mutants: replicas that break a rule each, until it is noticed.
    #[arg(long, conflicts_with_all = ["seed", "seconds", "pinned"])]
    mutants: bool,
    /// Prints the hashes of the traces of a few short seeds: to compare builds.
    #[arg(long, conflicts_with_all = ["seed", "seeds", "seconds", "first", "pinned", "mutants", "speed"])]
    hashes: bool,
    /// Measures speed: five minutes of three replicas under some sixty requests a second, with faults; of seed 1, or that of
    /// --first.
    #[arg(long, conflicts_with_all = ["seed", "seeds", "seconds", "pinned", "mutants"])]
    speed: bool,
    /// Prints what became of the messages of each kind.
    #[arg(long)]
    messages: bool,
    /// Prints a line for each seed and not only for the sum.
    #[arg(long)]
    verbose: bool,
}

/// From so many seeds on, what was never reached is a hole, and not only bad luck.
const HOLES_FROM: u64 = 500;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.mutants {
        return run_mutants(&arguments);
    }
    failure::report_seeds();
    if arguments.speed {
        measure_speed(arguments.first.unwrap_or(1));
    } else if arguments.hashes {
        for (seed, hash) in hashes() {
            println!("{seed} {hash:016x}");
        }
    } else {
        run_seeds(&arguments);
    }
    ExitCode::SUCCESS
}

/// The mutants are a program of their own: thirty replicas take long to compile.
fn run_mutants(arguments: &Arguments) -> ExitCode {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--release", "--quiet", "-p", "mutants", "--"]);
    for (flag, value) in [("--first", arguments.first), ("--seeds", arguments.seeds)] {
        if let Some(value) = value {
            command.args([flag, &value.to_string()]);
        }
    }
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot run cargo, which builds and runs the mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_seeds(arguments: &Arguments) {
    // The one draw of ambient randomness: which seeds are fresh.
    let fresh = || RandomState::new().hash_one(std::process::id()) >> 16;
    let first = arguments.seed.or(arguments.first).unwrap_or_else(fresh);
    let began = Instant::now();
    let mut total = Coverage::default();
    let single = arguments.seed.is_some();
    let enough = |seeds: u64| match arguments.seconds {
        _ if single => seeds == 1,
        _ if arguments.pinned => seeds == PINNED.len() as u64,
        Some(seconds) => began.elapsed().as_secs() >= seconds,
        None => seeds == arguments.seeds.unwrap_or(100),
    };
    while !enough(total.seeds) {
        let seed = if arguments.pinned {
            PINNED[total.seeds as usize].0
        } else {
            first.wrapping_add(total.seeds)
        };
        failure::seed_is(seed);
        let summary = run::<KvWorkload>(seed, arguments.trace);
        if arguments.verbose || single {
            println!("{summary}");
        }
        if arguments.messages {
            print_messages(&summary);
        }
        total.add(&summary);
    }
    if !single {
        print!("{total}");
    }
    println!("{}", line(&total, first, began.elapsed().as_secs_f64()));
    if total.seeds >= HOLES_FROM {
        for hole in total.holes() {
            println!("HOLE: never reached: {hole}");
        }
    }
}

fn line(total: &Coverage, first: u64, seconds: f64) -> String {
    let simulated = total.time_ns as f64 / 1e9;
    format!(
        "{} seeds from {first} held: {simulated:.0} s simulated in {seconds:.1} s ({:.0} simulated seconds a second, \
         {:.0} seeds a minute), {} events, {} ops",
        total.seeds,
        simulated / seconds,
        total.seeds as f64 / seconds * 60.0,
        total.events,
        total.count("ops"),
    )
}

/// Requests a simulated second that a run must have answered for its speed to mean something.
const REQUESTS_MIN: f64 = 50.0;

fn measure_speed(seed: u64) {
    failure::seed_is(seed);
    let (began, cpu_began) = (Instant::now(), cpu_seconds());
    let summary = run_plan::<KvWorkload>(seed, Plan::of_speed(), Prng::new(seed), false);
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu_began);
    let simulated = summary.time_ns as f64 / 1e9;
    let requests = (summary.checked.writes + summary.checked.reads) as f64 / simulated;
    println!("{summary}");
    println!(
        "{:.0} simulated seconds a second, {:.0} a CPU second: {simulated:.0} s in {seconds:.3} s, {cpu:.3} s of CPU; \
         {requests:.0} requests answered a simulated second, {:.2} us of CPU an event",
        simulated / seconds,
        simulated / cpu,
        cpu * 1e6 / summary.events as f64
    );
    assert!(requests >= REQUESTS_MIN, "the cluster had little to do");
}

/// What the process has used of a core, in seconds: other processes on the machine do not count.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn print_messages(summary: &Summary) {
    for (kind, count) in summary.messages.iter().filter(|message| message.1.sent > 0) {
        println!(
            "  {:<16} {:>8} sent {:>7} lost {:>7} twice {:>7} overtaken {:>6} overflowed {:>6} cut",
            format!("{kind:?}"),
            count.sent,
            count.lost,
            count.duplicated,
            count.overtaken,
            count.overflowed,
            count.cut
        );
    }
}
