//! Replicas that break one rule each, and the table of how soon the simulator notices.
//!
//! A mutant is a type that implements [`Rules`] with one constant flipped: it exists in this binary only, and cannot ship.
//! It is a package of its own because thirty replicas take long to compile, and nobody who runs the simulator or its
//! tests needs them; `simulator --mutants` runs this.
//!
//! Each mutant is run in processes of its own, from several first seeds, until a seed fails: a violated checker, an
//! assertion of the replica, or a cluster that does not serve. Their seeds draw more faults than those of the simulator's
//! usual runs ([`Plan::draw_stressed`]).

#![allow(
    clippy::upper_case_acronyms,
    non_camel_case_types,
    reason = "a mutant is named after the rule that it breaks"
)]

mod table;

use clap::Parser;
use simulator::failure;
use simulator::host::NodeKind;
use simulator::prng::Prng;
use simulator::run::{Summary, run_kind};
use simulator::swarm::Plan;
use simulator::workload::{KvWorkload, Workload};
use std::process::ExitCode;
use storage::layout::Geometry;
use viewstone::rules::{Rules, Strict};

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
        superblock: $($superblock:ident: $rule:ident = $value:expr,)*;
        checkpoint: $($checkpoint:ident)*;
    ) => {
        /// One type for each mutant, named as the rule that it breaks, or as what it does.
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
            const $rule: superblock_type!($rule) = $value;
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
        LOST_FILE_AWAITS_OTHERS
        REGRESSED_IS_LOST
        CHECK_FETCHED_PAGES
        HEAD_NEVER_FALLS_IN_VIEW;
    journal:
        HEADER_AWAITS_PREPARE
        LONG_PREPARE_AWAITS_HEADER
        REPLACEMENT_AWAITS_HEADER
        RING_RULE
        ACK_AWAITS_WRITE
        WINDOW_IS_ONE_RING
        CHECK_READ
        FLUSH;
    superblock:
        ALL_COPIES_AT_ONCE: ROUNDS = &[&[0, 1, 2, 3]],
        ONE_COPY: ROUNDS = &[&[0]],
        SYNC_FIRST: SYNC_FIRST = false,
        REWRITE: REWRITE = false,
        CHECK_SUM: CHECK_SUM = false,
        DURABLE: DURABLE = false,;
    checkpoint:
        SYNC_BEFORE_WRITTEN
        CHECK_BLOCK;
}

/// Runs a seed with replicas that break a rule. It ends the process if that is noticed.
fn run_seed(mutant: &Mutant, seed: u64, readable: bool) -> Summary {
    let mut prng = Prng::new(seed);
    let plan = Plan::draw_stressed(&mut prng);
    let kind = (mutant.kind)(&plan.cluster.geometry);
    run_kind::<KvWorkload>(seed, plan, kind, prng, readable)
}

/// Breaks nothing: what is found without a mutant is a fault of the replica, or of the simulator.
const NONE: Mutant = Mutant {
    name: "NONE",
    kind: NodeKind::new::<Machines, Strict>,
};

/// The mutant with this name.
fn find(name: &str) -> Option<&'static Mutant> {
    let named = |mutant: &&Mutant| mutant.name.eq_ignore_ascii_case(name);
    MUTANTS.iter().chain([&NONE]).find(named)
}

/// Runs replicas that break a rule each, until it is noticed, and prints the table of how soon that was.
#[derive(Parser, Debug)]
#[command(name = "mutants")]
struct Arguments {
    /// Only these mutants; may be given several times. `none` breaks nothing.
    #[arg(long)]
    mutant: Vec<String>,
    /// The first seed of the first search.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Seeds after which a mutant counts as not found.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// Searches for each mutant, from different first seeds.
    #[arg(long, default_value_t = 3)]
    starts: u64,
    /// Runs this seed of the first mutant named, in this process.
    #[arg(long, requires = "mutant")]
    seed: Option<u64>,
    /// Runs the seeds of the first mutant named, in this process: what a search does.
    #[arg(long, requires = "mutant")]
    here: bool,
    /// Prints every event.
    #[arg(long, requires = "seed")]
    trace: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    failure::report_seeds();
    let Some(mutants) = named(&arguments.mutant) else {
        return ExitCode::from(2);
    };
    if let Some(seed) = arguments.seed {
        failure::seed_is(seed);
        println!("{}", run_seed(mutants[0], seed, arguments.trace));
    } else if arguments.here {
        for seed in (0..arguments.seeds).map(|index| arguments.first.wrapping_add(index)) {
            failure::seed_is(seed);
            run_seed(mutants[0], seed, false);
        }
    } else {
        let (first, seeds) = (arguments.first, arguments.seeds);
        return table::print(&mutants, first, arguments.starts, seeds);
    }
    ExitCode::SUCCESS
}

/// The mutants with these names; all, if there are none.
fn named(names: &[String]) -> Option<Vec<&'static Mutant>> {
    if names.is_empty() {
        return Some(MUTANTS.iter().collect());
    }
    let found: Option<Vec<_>> = names.iter().map(|name| find(name)).collect();
    if found.is_none() {
        eprintln!("there is no such mutant; the names are those of the rules' constants");
    }
    found
}
