//! The command line: one module a subcommand.
//!
//! To add one: a module, a variant of `Command` with its arguments, and its arm in `Command::run`. A subcommand
//! prints its result on standard output and returns how it ended; errors go to standard error, with what was found and
//! what to do, and end in one of the exit statuses of [`Exit`].

pub mod bench;
pub mod cluster;
mod format;
mod inspect;
mod recover;
pub mod repl;
pub mod resp;
mod size;
mod start;
mod statement;
pub mod status;
mod version;

pub use size::parse_size;

use crate::replica::Fatal;
use crate::server::data_file::DataFileError;
use crate::server::{ListenError, ServerError};
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use storage::uring::UringError;

/// How a command ends. The numbers are documented and stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Damage or loss was found, or something failed that has no status of its own.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The data file is missing, or is not the one that was meant: empty, truncated, not a data file, another cluster's
    /// or replica's.
    WrongFile = 3,
    /// The data file is damaged beyond what the replica can mend, or was put back to an older state: `recover`.
    Damaged = 4,
    /// Something is there already, or in use: the file to format, a data file with a replica on it, a port.
    InUse = 5,
    /// No permission.
    Permission = 6,
    /// Too little disk, memory or memory that may be locked.
    Resources = 7,
    /// The kernel or the file system lacks something: `O_DIRECT`, `io_uring`.
    Unsupported = 8,
    /// The cluster cannot be reached, or has no primary.
    Unavailable = 9,
    /// The state is not that of the other replicas or contradicts itself, or the machine's memory fails.
    Diverged = 10,
    /// Of `repl`: what the last statement asked for may have been done, or may still be.
    Indeterminate = 11,
}

/// Shown below `--help`.
const EXIT_STATUS_HELP: &str = "\
Exit status:
  0  done
  1  damage or loss was found, or any failure not listed here
  2  the command line is wrong
  3  the data file is missing or not the one meant (empty, truncated, another cluster's)
  4  the data file is damaged beyond mending, or was put back to an older state: recover
  5  already there or in use: the file to format, a running replica's file, a port
  6  no permission
  7  too little disk space or memory
  8  the kernel or the file system lacks O_DIRECT or io_uring
  9  the cluster cannot be reached or has no primary
  10 the state differs from that of the other replicas or contradicts itself, or the machine's
     memory fails: the message says which, and what to do
  11 (repl) what the last statement asked for may have been done, or may still be
Of status, bench and verify 0 to 3 have meanings of their own: see their --help.";

/// Why a command failed, for people, and its exit status.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub exit: Exit,
    /// One line or a few.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(exit: Exit, message: &impl ToString) -> Self {
        let message = message.to_string();
        Self { exit, message }
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let exit = match &error {
            ServerError::Uring(UringError::NoRoom { .. }) => Exit::Resources,
            ServerError::Uring(_) => Exit::Unsupported,
            ServerError::Address(_) | ServerError::FaultFile(_) => Exit::Usage,
            ServerError::Listen(error) => match error {
                ListenError::InUse { .. } => Exit::InUse,
                ListenError::Forbidden { .. } => Exit::Permission,
                _ => Exit::Usage,
            },
            ServerError::Memory(_) => Exit::Resources,
            ServerError::Replica(
                Fatal::DataFile(_) | Fatal::Regressed(_) | Fatal::PrepareLost { .. },
            ) => Exit::Damaged,
            ServerError::Replica(Fatal::Diverged(_) | Fatal::State { .. } | Fatal::Memory(_)) => {
                Exit::Diverged
            }
            _ => Exit::Failed,
        };
        Self::new(exit, &error)
    }
}

impl From<DataFileError> for Failure {
    fn from(error: DataFileError) -> Self {
        use DataFileError as E;
        use storage::superblock::OpenError;
        let exit = match &error {
            E::Missing(_)
            | E::NotAFile(_)
            | E::Empty(_)
            | E::Truncated { .. }
            | E::Mismatch { .. }
            | E::MissingDirectory(_) => Exit::WrongFile,
            E::Superblock { error, .. } => match error {
                OpenError::Damaged { .. } | OpenError::Fork { .. } => Exit::Damaged,
                _ => Exit::WrongFile,
            },
            E::Exists(_) | E::InUse(_) | E::DeviceNotEmpty(_) => Exit::InUse,
            E::Permission { .. } => Exit::Permission,
            E::NoSpace { .. } | E::NotAllowed { .. } | E::DeviceSmall { .. } => Exit::Resources,
            E::NoDirect(_) | E::Alignment { .. } => Exit::Unsupported,
            E::Format(_) => Exit::Usage,
            E::Os { .. } => Exit::Failed,
        };
        Self::new(exit, &error)
    }
}

impl From<repl::ReplError> for Failure {
    fn from(error: repl::ReplError) -> Self {
        use crate::client::ConnectError;
        let repl::ReplError::Connect(cause) = &error;
        let exit = match cause {
            ConnectError::NoAddress | ConnectError::Address(_) | ConnectError::Sessions(_) => {
                Exit::Usage
            }
            ConnectError::System(_) => Exit::Resources,
        };
        Self::new(exit, &error)
    }
}

/// A replicated state machine you can trust with money: Viewstamped Replication on a storage engine of its own.
#[derive(Parser)]
#[command(name = "viewstone", version, after_long_help = EXIT_STATUS_HELP, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Format(format::Arguments),
    Recover(recover::Arguments),
    Start(start::StartArguments),
    Bench(bench::BenchArgs),
    Status(status::StatusArgs),
    Repl(repl::ReplArgs),
    Resp(resp::RespArgs),
    Inspect(inspect::InspectArguments),
    Verify(inspect::VerifyArguments),
    Version(version::Arguments),
}

impl Command {
    /// Runs it, and returns the exit status. `status`, `repl` and `bench` have statuses of their own meaning, in their help.
    fn run(self) -> Result<u8, Failure> {
        let exit = match self {
            Self::Format(arguments) => format::run(&arguments)?,
            Self::Recover(arguments) => recover::run(&arguments)?,
            Self::Start(arguments) => start::run(&arguments)?,
            Self::Bench(arguments) => {
                // Its 1 says that a write is missing.
                return bench::run(&arguments).map_err(|error| Failure::new(Exit::Usage, &error));
            }
            Self::Status(arguments) => {
                return status::run(&arguments).or_else(|error| {
                    eprintln!("error: {error}");
                    Ok(status::EXIT_NOT_ASKED)
                });
            }
            Self::Repl(arguments) => {
                return repl::run(&arguments).map_err(Failure::from);
            }
            Self::Resp(arguments) => resp::run(&arguments)?,
            Self::Inspect(arguments) => inspect::inspect(&arguments)?,
            Self::Verify(arguments) => inspect::verify(&arguments)?,
            Self::Version(arguments) => version::run(&arguments),
        };
        Ok(exit as u8)
    }
}

/// Parses the process's arguments and does what they say.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let exit = arguments.command.run().unwrap_or_else(|failure| {
        eprintln!("error: {}", failure.message);
        failure.exit as u8
    });
    ExitCode::from(exit)
}

/// Prints a line on standard output. A reader that has gone away (`| head`) is no reason to fail.
fn print(line: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_has_examples_and_exit_statuses_and_fits_a_terminal() {
        let mut command = Arguments::command().term_width(100);
        command.build();
        for sub in command
            .get_subcommands_mut()
            .filter(|it| it.get_name() != "help")
        {
            let name = sub.get_name().to_owned();
            let help = sub.render_long_help().to_string();
            assert!(help.contains("Example"), "{name}");
            assert!(help.contains("Exit status"), "{name}");
            // A usage line stays whole.
            for line in help.lines().filter(|it| !it.starts_with("Usage: ")) {
                assert!(line.chars().count() <= 100, "{name}: {line}");
            }
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
