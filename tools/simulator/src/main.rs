//! Runs seeds. See the library for what a run is.

use clap::Parser;
use simulator::pinned::PINNED;
use simulator::run::{Summary, run};
use simulator::workload::KvWorkload;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Runs whole clusters on virtual time, with crashes, power cuts and a lossy network, and checks every event.
///
/// Exit status 0: every seed held. A violation prints the seed and what was violated, and ends the process.
#[derive(Parser, Debug)]
#[command(name = "simulator")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
struct Arguments {
    /// How many fresh seeds to run.
    #[arg(long, default_value_t = 100, conflicts_with = "seed")]
    seeds: u64,
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
    /// Prints what became of the messages of each kind.
    #[arg(long)]
    messages: bool,
    /// Prints a line for each seed and not only for the sum.
    #[arg(long)]
    verbose: bool,
}

/// The seed under way, for the message of a failure.
static SEED: AtomicU64 = AtomicU64::new(0);

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
    // The one draw of ambient randomness: which seeds are fresh.
    let fresh = || RandomState::new().hash_one(std::process::id()) >> 16;
    let first = arguments.seed.or(arguments.first).unwrap_or_else(fresh);
    let began = Instant::now();
    let mut total = Total::default();
    let single = arguments.seed.is_some();
    let enough = |seeds: u64| match arguments.seconds {
        _ if single => seeds == 1,
        _ if arguments.pinned => seeds == PINNED.len() as u64,
        Some(seconds) => began.elapsed().as_secs() >= seconds,
        None => seeds == arguments.seeds,
    };
    while !enough(total.seeds) {
        let seed = if arguments.pinned {
            PINNED[total.seeds as usize].0
        } else {
            first.wrapping_add(total.seeds)
        };
        SEED.store(seed, Ordering::Relaxed);
        let summary = run::<KvWorkload>(seed, arguments.trace);
        if arguments.verbose || single {
            println!("{summary}");
        }
        if arguments.messages {
            print_messages(&summary);
        }
        total.add(&summary);
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", total.line(first, seconds));
}

fn print_messages(summary: &Summary) {
    for (kind, count) in summary.messages.iter().filter(|message| message.1.sent > 0) {
        println!(
            "  {:<16} {:>8} sent {:>7} lost {:>7} twice {:>7} overtaken {:>6} overflowed",
            format!("{kind:?}"),
            count.sent,
            count.lost,
            count.duplicated,
            count.overtaken,
            count.overflowed
        );
    }
}

/// Sums over seeds.
#[derive(Default)]
struct Total {
    seeds: u64,
    time_ns: u64,
    events: u64,
    ops: u64,
    writes: u64,
    reads: u64,
    checkpoints: u64,
    wraps: u64,
    kills: u64,
    power_cuts: u64,
    torn: u64,
    messages: u64,
    lost: u64,
}

impl Total {
    fn add(&mut self, summary: &Summary) {
        self.seeds += 1;
        self.time_ns += summary.time_ns;
        self.events += summary.events;
        self.ops += summary.checked.ops;
        self.writes += summary.checked.writes;
        self.reads += summary.checked.reads;
        self.checkpoints += summary.checked.checkpoints;
        self.wraps += summary.wraps();
        self.kills += summary.faults.kills;
        self.power_cuts += summary.faults.power_cuts;
        self.torn += summary.disk.torn;
        self.messages += summary.messages_total.sent;
        self.lost += summary.messages_total.lost;
    }

    fn line(&self, first: u64, seconds: f64) -> String {
        let simulated = self.time_ns as f64 / 1e9;
        format!(
            "{} seeds from {first} held: {simulated:.0} s simulated in {seconds:.1} s ({:.0}x), {} events, {} ops, \
             {} writes and {} reads answered, {} checkpoints, {} wraps, {} kills, {} power cuts, {} torn writes, \
             {} messages, {} lost",
            self.seeds,
            simulated / seconds,
            self.events,
            self.ops,
            self.writes,
            self.reads,
            self.checkpoints,
            self.wraps,
            self.kills,
            self.power_cuts,
            self.torn,
            self.messages,
            self.lost,
        )
    }
}
