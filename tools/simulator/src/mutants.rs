//! Replicas that break one rule each, and the table of how soon the simulator notices.
//!
//! A mutant is a type that implements [`Rules`] with one constant flipped: it exists in this binary only, and cannot ship.
//! Each is run in processes of its own, from several first seeds, until a seed fails: a violated checker, an assertion of
//! the replica, or a cluster that does not serve. Their seeds draw more faults than those of a whole cluster's usual runs
//! ([`Plan::draw_stressed`]).

use simulator::host::NodeKind;
use simulator::prng::Prng;
use simulator::run::run_kind;
use simulator::swarm::Plan;
use simulator::workload::{KvWorkload, Workload};
use std::process::{Command, Stdio};
use std::thread;
use storage::layout::Geometry;
use viewstone::rules::Rules;

type Machines = <KvWorkload as Workload>::Machines;

/// A rule to break.
pub struct Mutant {
    /// The broken constant, in lower case.
    pub name: &'static str,
    kind: fn(&Geometry) -> NodeKind,
}

/// Sound parts of the storage, under names of one form.
mod sound {
    pub type Journal = storage::journal::Strict;
    pub type Superblock = storage::superblock::Sound;
    pub type Checkpoint = storage::checkpoint::Strict;
}

/// Defines mutants of one trait of rules each, and the table of all.
macro_rules! mutants {
    (
        replica: $($replica:ident)*;
        journal: $($journal:ident)*;
        superblock: $($superblock:ident = $value:expr,)*;
        checkpoint: $($checkpoint:ident)*;
    ) => {
        /// One type for each rule, named as its constant is.
        #[expect(non_camel_case_types, reason = "named as the constants are")]
        mod kinds {
            $(#[derive(Debug)] pub struct $replica;)*
            $(#[derive(Debug)] pub struct $journal;)*
            $(#[derive(Debug)] pub struct $superblock;)*
            $(#[derive(Debug)] pub struct $checkpoint;)*
        }
        $(impl Rules for kinds::$replica {
            type Journal = sound::Journal;
            type Superblock = sound::Superblock;
            type Checkpoint = sound::Checkpoint;
            const $replica: bool = false;
        })*
        $(impl storage::journal::Rules for kinds::$journal {
            const $journal: bool = false;
        }
        impl Rules for kinds::$journal {
            type Journal = Self;
            type Superblock = sound::Superblock;
            type Checkpoint = sound::Checkpoint;
        })*
        $(impl storage::superblock::Rules for kinds::$superblock {
            const $superblock: superblock_type!($superblock) = $value;
        }
        impl Rules for kinds::$superblock {
            type Journal = sound::Journal;
            type Superblock = Self;
            type Checkpoint = sound::Checkpoint;
        })*
        $(impl storage::checkpoint::Rules for kinds::$checkpoint {
            const $checkpoint: bool = false;
        }
        impl Rules for kinds::$checkpoint {
            type Journal = sound::Journal;
            type Superblock = sound::Superblock;
            type Checkpoint = Self;
        })*
        /// All mutants.
        pub const MUTANTS: &[Mutant] = &[
            $(Mutant { name: stringify!($replica), kind: NodeKind::new::<Machines, kinds::$replica> },)*
            $(Mutant { name: stringify!($journal), kind: NodeKind::new::<Machines, kinds::$journal> },)*
            $(Mutant { name: stringify!($superblock), kind: NodeKind::new::<Machines, kinds::$superblock> },)*
            $(Mutant { name: stringify!($checkpoint), kind: NodeKind::new::<Machines, kinds::$checkpoint> },)*
        ];
    };
}

/// Which copies are written together is no yes or no.
macro_rules! superblock_type {
    (ROUNDS) => { &'static [&'static [usize]] };
    ($other:ident) => { bool };
}

mutants! {
    replica:
        VOTE_AWAITS_DURABLE_VIEW
        LOG_AWAITS_DURABLE_LOG_VIEW
        VOTE_IS_FIXED
        KEEP_SUFFIX_IN_NEWER_VIEW
        NEVER_NACK_DECAY
        WHOLE_REPLICATION_QUORUM
        WHOLE_VIEW_CHANGE_QUORUM
        WHOLE_NACK_QUORUM
        ACKS_DIE_WITH_VIEW
        COUNT_EACH_ONCE
        CHECK_PARENT
        LOG_VIEW_FIRST
        EXECUTE_ONCE
        EXECUTE_AWAITS_COMMIT
        READ_AWAITS_ROUND
        READ_AWAITS_INHERITED
        READS_DIE_WITH_VIEW
        RESTARTED_PRIMARY_LEAVES_VIEW
        UNCERTAIN_HEAD_AWAITS_START_VIEW
        WITHHOLD_BEYOND_CHECKPOINT
        HEAD_NEVER_FALLS_IN_VIEW;
    journal:
        HEADER_AWAITS_PREPARE
        LONG_PREPARE_AWAITS_HEADER
        REPLACEMENT_AWAITS_HEADER
        RING_RULE
        ACK_AWAITS_WRITE
        FLUSH;
    superblock:
        ROUNDS = &[&[0, 1, 2, 3]],
        SYNC_FIRST = false,
        REWRITE = false,
        CHECK_SUM = false,
        DURABLE = false,;
    checkpoint:
        SYNC_BEFORE_WRITTEN;
}

/// Runs a seed with replicas that break a rule. It ends the process if that is noticed.
pub fn run_seed(mutant: &Mutant, seed: u64, readable: bool) -> simulator::run::Summary {
    let mut prng = Prng::new(seed);
    let plan = Plan::draw_stressed(&mut prng);
    let kind = (mutant.kind)(&plan.cluster.geometry);
    run_kind::<KvWorkload>(seed, plan, kind, prng, readable)
}

/// The mutant with this name.
pub fn find(name: &str) -> Option<&'static Mutant> {
    let named = |mutant: &&Mutant| mutant.name.eq_ignore_ascii_case(name);
    MUTANTS.iter().find(named)
}

/// How a search for a mutant ended.
#[derive(Clone, Debug)]
struct Found {
    /// Seeds run, the failing one included; none: it was not noticed.
    seeds: Option<u64>,
    /// What noticed it.
    by: String,
}

/// Searches in a process of its own, since a violation ends it.
fn search(mutant: &Mutant, first: u64, seeds_max: u64) -> Found {
    let this = std::env::current_exe().expect("a running program has a file");
    let output = Command::new(this)
        .args(["--mutant", mutant.name])
        .args(["--first", &first.to_string()])
        .args(["--seeds", &seeds_max.to_string()])
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .expect("this program can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Found {
            seeds: None,
            by: String::from("nothing"),
        };
    }
    let after = |start: &str| {
        let line = errors.lines().find(|line| line.starts_with(start));
        line.and_then(|line| line[start.len()..].split_whitespace().next())
    };
    let seed = after("seed ").and_then(|seed| seed.parse::<u64>().ok());
    let mut lines = errors
        .lines()
        .skip_while(|line| !line.contains("panicked at"));
    let place = lines.next().unwrap_or("somewhere");
    let place = place.split("panicked at ").last().unwrap_or(place);
    let what = lines.next().unwrap_or_default();
    Found {
        seeds: seed.map(|seed| seed.wrapping_sub(first) + 1),
        by: format!("{what} ({})", place.trim_end_matches(':')),
    }
}

/// Searches for every mutant from `starts` first seeds each, and prints the table. Whether all were found each time.
pub fn run_table(names: &[String], first: u64, starts: u64, seeds_max: u64) -> bool {
    let wanted = |mutant: &&Mutant| {
        names.is_empty()
            || names
                .iter()
                .any(|name| mutant.name.eq_ignore_ascii_case(name))
    };
    let mutants: Vec<&Mutant> = MUTANTS.iter().filter(wanted).collect();
    println!("| mutant | seeds until found | found by |\n| --- | --- | --- |");
    let mut medians = Vec::new();
    let mut all = true;
    for mutant in mutants {
        let found = search_from(mutant, first, starts, seeds_max);
        let mut counts: Vec<u64> = found.iter().filter_map(|found| found.seeds).collect();
        counts.sort_unstable();
        let missed = found.len() - counts.len();
        all &= missed == 0;
        let median = if missed * 2 < found.len() {
            medians.push(counts[found.len() / 2]);
            counts[found.len() / 2].to_string()
        } else {
            medians.push(u64::MAX);
            format!("not in {seeds_max}")
        };
        let range = match (counts.first(), counts.last()) {
            (Some(least), Some(most)) => format!(" ({least} to {most}, {missed} missed)"),
            _ => String::new(),
        };
        let by = &found[0].by;
        println!(
            "| {} | {median}{range} | {by} |",
            mutant.name.to_lowercase()
        );
    }
    medians.sort_unstable();
    println!("\nmedian over the mutants: {}", medians[medians.len() / 2]);
    all
}

/// One search for each start, two at a time.
fn search_from(mutant: &Mutant, first: u64, starts: u64, seeds_max: u64) -> Vec<Found> {
    let first_of = |start: u64| first.wrapping_add(start * 1_000_000);
    let mut found = Vec::new();
    let all: Vec<u64> = (0..starts).collect();
    for pair in all.chunks(2) {
        thread::scope(|scope| {
            let searches: Vec<_> = pair
                .iter()
                .map(|&start| scope.spawn(move || search(mutant, first_of(start), seeds_max)))
                .collect();
            for search in searches {
                found.push(search.join().expect("a search does not panic"));
            }
        });
    }
    found
}
