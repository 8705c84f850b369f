//! The search for each mutant, and the table of what was found.

use crate::Mutant;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

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
        .args(["--here", "--mutant", mutant.name])
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

/// Searches for every mutant from `starts` first seeds each, and prints the table. Fails if one was not found.
pub fn print(mutants: &[&Mutant], first: u64, starts: u64, seeds_max: u64) -> ExitCode {
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
    match medians[medians.len() / 2] {
        u64::MAX => println!("\nmedian over the mutants: not in {seeds_max}"),
        median => println!("\nmedian over the mutants: {median}"),
    }
    ExitCode::from(u8::from(!all))
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
