//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    viewstone::cli::run()
}
