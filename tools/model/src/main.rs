//! Explores the larger bounds, which take minutes and gigabytes, after the small ones.

use model::{Bounds, explore};
use std::process::ExitCode;
use std::time::Instant;
use viewstone::rules::Strict;

fn main() -> ExitCode {
    for (name, bounds, _) in Bounds::SMALL.into_iter().chain(Bounds::LARGE) {
        let begun = Instant::now();
        match explore::<Strict>(bounds) {
            Ok(explored) => println!(
                "{name}: {} states, {} steps, {} deep, in {:.1} s",
                explored.states,
                explored.steps,
                explored.depth,
                begun.elapsed().as_secs_f64()
            ),
            Err(found) => {
                println!("{name}: {found}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
