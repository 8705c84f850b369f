//! Runs seeds. See the library for what a run is.

mod mutants;

use clap::Parser;
use simulator::coverage::Coverage;
use simulator::pinned::PINNED;
use simulator::run::{Summary, run};
use simulator::workload::KvWorkload;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Runs the seeds that once found something.
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
    /// Runs the table of mutants: replicas that break a rule each, until it is noticed.
    #[arg(long, conflicts_with_all = ["seed", "seconds", "pinned"])]
    mutants: bool,
    /// Runs the seeds with replicas that break this rule; may be given several times with `--mutants`.
    #[arg(long)]
    mutant: Vec<String>,
    /// From how many first seeds each mutant is searched for.
    #[arg(long, default_value_t = 3)]
    starts: u64,
    /// Prints what became of the messages of each kind.
    #[arg(long)]
    messages: bool,
    /// Prints a line for each seed and not only for the sum.
    #[arg(long)]
    verbose: bool,
}

/// The seed under way, for the message of a failure.
static SEED: AtomicU64 = AtomicU64::new(0);

/// From so many seeds on, what was never reached is a hole, and not only bad luck.
const HOLES_FROM: u64 = 500;

/// Seeds after which a mutant counts as not found.
const MUTANT_SEEDS_MAX: u64 = 2000;

fn main() {
    let arguments = Arguments::parse();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        let seed = SEED.load(Ordering::Relaxed);
        eprintln!(
            "seed {seed} failed; replay: cargo run --release -p simulator -- --seed {seed} --trace"
        );
    }));
    if arguments.mutants {
        let first = arguments.first.unwrap_or(1);
        let seeds_max = arguments.seeds.unwrap_or(MUTANT_SEEDS_MAX);
        let found = mutants::run_table(&arguments.mutant, first, arguments.starts, seeds_max);
        std::process::exit(i32::from(!found));
    }
    run_seeds(&arguments);
}

fn run_seeds(arguments: &Arguments) {
    // The one draw of ambient randomness: which seeds are fresh.
    let fresh = || RandomState::new().hash_one(std::process::id()) >> 16;
    let first = arguments.seed.or(arguments.first).unwrap_or_else(fresh);
    let began = Instant::now();
    let mut total = Coverage::default();
    let mutant = arguments.mutant.first().map(|name| {
        mutants::find(name).unwrap_or_else(|| {
            eprintln!("there is no mutant {name}");
            std::process::exit(2);
        })
    });
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
        SEED.store(seed, Ordering::Relaxed);
        let summary = match mutant {
            Some(mutant) => mutants::run_seed(mutant, seed, arguments.trace),
            None => run::<KvWorkload>(seed, arguments.trace),
        };
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
