//! The command line.

use std::process::ExitCode;
use viewstone::sealed_allocator::SealedAllocator;

/// A replica's thread allocates nothing once it runs; see the type.
#[global_allocator]
static ALLOCATOR: SealedAllocator = SealedAllocator;

fn main() -> ExitCode {
    viewstone::cli::run()
}
