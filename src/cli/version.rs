//! `viewstone version`.

use super::size::show_size;
use super::{Exit, print};
use storage::header::{HEADER_SIZE, PROTOCOL, RELEASE};
use storage::layout::{PIPELINE_MAX, REPLICAS_MAX, SUPERBLOCK_ZONE_SIZE};
use storage::{SECTOR_SIZE, superblock};

/// Print the version of this build, of its protocol and of its file format.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  viewstone version --verbose

Exit status: 0, or 2 if the command line is wrong.")]
pub(super) struct Arguments {
    /// Also print the constants of the wire and file formats.
    #[arg(long)]
    verbose: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    print(format_args!(
        "viewstone {} (release {RELEASE}, protocol {PROTOCOL}, file format {})",
        env!("CARGO_PKG_VERSION"),
        superblock::VERSION
    ));
    if arguments.verbose {
        print(format_args!("header size            {HEADER_SIZE} bytes"));
        print(format_args!("sector size            {SECTOR_SIZE} bytes"));
        print(format_args!(
            "superblock zone        {}",
            show_size(SUPERBLOCK_ZONE_SIZE)
        ));
        print(format_args!("replicas, at most      {REPLICAS_MAX}"));
        print(format_args!(
            "pipeline, at most      {PIPELINE_MAX} prepares"
        ));
        print(format_args!(
            "headers of a vote      {} at most",
            superblock::VIEW_HEADERS_MAX
        ));
    }
    Exit::Ok
}
