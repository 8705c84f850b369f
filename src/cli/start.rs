//! `viewstone start`: runs a replica until it is told to stop.

use super::{Exit, Failure};
use crate::server::data_file::{self, DataFile, DataFileError};
use crate::server::{
    AddressError, ListenError, Listener, ServerError, ServerOptions, Stop, check_addresses,
    log_sink,
};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use storage::superblock::Expected;
use storage::uring::UringError;

/// Run a replica.
///
/// Reads the data file, listens at its own address, finds the other replicas, and serves until SIGTERM or SIGINT. When it
/// listens and has read its data file it prints one line to standard output, `ready replica=0 address=127.0.0.1:3001`;
/// everything else goes to standard error.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct StartArguments {
    /// The data file, made by `viewstone format`
    pub file: PathBuf,

    /// Addresses of all replicas, in the order of their indexes, this one included: host:port,host:port,...
    ///
    /// Names, IPv4 and [IPv6] addresses. The list must be the same for every replica, but for this one's own port, which
    /// may be 0: then a free one is taken, and printed.
    #[arg(
        long,
        value_delimiter = ',',
        required = true,
        value_name = "HOST:PORT,..."
    )]
    pub addresses: Vec<String>,

    /// Most connections of clients
    #[arg(long, default_value_t = ServerOptions::CLIENTS_MAX_DEFAULT, value_name = "COUNT")]
    pub clients_max: usize,

    /// Which log lines go to standard error
    #[arg(long, default_value = "info", value_name = "LEVEL", value_parser = ["off", "error", "warn", "info", "debug"])]
    pub log_level: String,

    /// Refuse to run if memory cannot be locked (RLIMIT_MEMLOCK)
    #[arg(long)]
    pub require_locked: bool,

    /// Accept a file system without direct access (O_DIRECT). Acknowledged writes may then be lost: for trying out only
    #[arg(long)]
    pub development: bool,
}

impl StartArguments {
    /// How the server is to run.
    pub fn server_options(&self) -> ServerOptions {
        ServerOptions {
            clients_max: self.clients_max,
            require_locked: self.require_locked,
            ..ServerOptions::new(self.addresses.clone())
        }
    }

    /// The log level.
    pub fn level(&self) -> log::LevelFilter {
        self.log_level.parse().unwrap_or(log::LevelFilter::Info)
    }
}

/// How often, and how long apart, a data file in use is tried again: the kernel lets go of a killed replica's lock only
/// when it has torn down its ring, which it does in the background.
const OPEN_TRIES: u32 = 50;
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// Opens the data file, listens, and lets `serve` run the replica until it is told to stop.
///
/// # Errors
/// Whatever forbids it, with the exit status it has.
pub fn run(
    arguments: &StartArguments,
    serve: impl FnOnce(
        DataFile,
        Listener,
        &ServerOptions,
        &Stop,
        fn(SocketAddr, u8),
    ) -> Result<(), ServerError>,
) -> Result<Exit, Failure> {
    log_sink::install(arguments.level());
    let result = start(arguments, serve);
    log_sink::flush();
    result.map(|()| Exit::Ok)
}

fn start(
    arguments: &StartArguments,
    serve: impl FnOnce(
        DataFile,
        Listener,
        &ServerOptions,
        &Stop,
        fn(SocketAddr, u8),
    ) -> Result<(), ServerError>,
) -> Result<(), Failure> {
    let stop = Stop::default();
    stop.on_signals()
        .map_err(|error| Failure::new(Exit::Failed, &format!("no signal handlers: {error}")))?;
    let file = open(arguments)?;
    if !file.direct {
        log::warn!(
            "the file system has no O_DIRECT: acknowledged writes may be lost at a power cut"
        );
    }
    let state = &file.superblock.state;
    check_addresses(&arguments.addresses, state.replica_count).map_err(ServerError::from)?;
    let own = &arguments.addresses[usize::from(state.replica)];
    let listener = Listener::bind(own).map_err(ServerError::from)?;
    let options = arguments.server_options();
    serve(file, listener, &options, &stop, print_ready)?;
    Ok(())
}

fn open(arguments: &StartArguments) -> Result<DataFile, Failure> {
    let mut tries = OPEN_TRIES;
    loop {
        tries -= 1;
        let opened = data_file::open(&arguments.file, &Expected::default(), arguments.development);
        match opened {
            Err(DataFileError::InUse(_)) if tries > 0 => std::thread::sleep(OPEN_PAUSE),
            opened => return Ok(opened?),
        }
    }
}

/// Prints the one line on standard output. Made on the stack: the thread that serves may not allocate any more.
fn print_ready(address: SocketAddr, replica: u8) {
    let mut line = [0; 128];
    let mut rest = &mut line[..];
    writeln!(rest, "ready replica={replica} address={address}").expect("an address is short");
    let left = rest.len();
    let size = line.len() - left;
    // Nobody may be reading any more; the replica serves all the same.
    let _ = rustix::io::write(std::io::stdout(), &line[..size]);
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let exit = match &error {
            ServerError::Uring(UringError::NoRoom { .. }) | ServerError::Memory(_) => {
                Exit::Resources
            }
            ServerError::Uring(_) => Exit::Unsupported,
            ServerError::Address(AddressError::Unresolved { .. }) => Exit::Unavailable,
            ServerError::Listen(ListenError::InUse { .. }) => Exit::InUse,
            ServerError::Listen(ListenError::Forbidden { .. }) => Exit::Permission,
            ServerError::Address(_)
            | ServerError::Listen(ListenError::Address(_) | ListenError::NotOurs { .. }) => {
                Exit::Usage
            }
            _ => Exit::Failed,
        };
        Self::new(exit, &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        start: StartArguments,
    }

    fn parse(line: &str) -> Result<StartArguments, clap::Error> {
        let words = std::iter::once("start").chain(line.split(' '));
        Line::try_parse_from(words).map(|line| line.start)
    }

    #[test]
    fn addresses_are_a_list_and_levels_are_known() {
        let start = parse("--addresses a:1,[::1]:2 --log-level debug f").expect("valid");
        assert_eq!(start.addresses, ["a:1", "[::1]:2"]);
        assert_eq!(start.level(), log::LevelFilter::Debug);
        assert_eq!(start.server_options().clients_max, 256);
        assert!(parse("f").is_err() && parse("--addresses a:1 --log-level loud f").is_err());
    }

    #[test]
    fn a_missing_file_is_not_served() {
        let start = parse("--addresses 127.0.0.1:0 /nonexistent/0.viewstone").expect("valid");
        let failure = super::start(&start, |_, _, _, _, _| unreachable!("there is no file"));
        let failure = failure.expect_err("there is no file");
        assert_eq!(failure.exit, Exit::WrongFile);
    }
}
