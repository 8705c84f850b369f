//! `viewstone start`: runs a replica until it is told to stop.

use super::resp::GatewayArgs;
use super::{Exit, Failure, print};
use crate::client::ClientOptions;
use crate::resp::gateway::{Gateway, GatewayError};
use crate::server::{
    ServerOptions, Stop, check_addresses, check_addresses_alone, hosting, log_sink,
};
use crate::state_machine::kv::Kv;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

/// The machines that the binary serves: machine 1 is the key-value store.
pub type Served = (Kv,);

const NOTES: &str = "\
Examples:
  viewstone start 0.viewstone --addresses 127.0.0.1:3001
  viewstone start /data/1.viewstone --addresses a:3001,b:3001,c:3001
  viewstone start /data/1.viewstone --addresses a:3001,b:3001,c:3001 --resp 127.0.0.1:6379

Exit status:
  0  it was told to stop
  1  the disk failed a write, or any failure not listed here
  2  the command line is wrong, or the addresses do not fit the data file
  3  the data file is missing or not the one meant
  4  the data file is damaged beyond mending, or was put back to an older state: recover
  5  the data file or the port is in use
  6  no permission
  7  too little memory
  8  the kernel or the file system lacks O_DIRECT or io_uring
  10 the state differs from that of the other replicas or contradicts itself, or the machine's
     memory fails: the message says which, and what to do
A supervisor is not to start it again after 2, 3, 4 or 10: somebody has to look.";

/// Run a replica.
///
/// Reads the data file, listens at its own address, finds the other replicas, and serves until SIGTERM or SIGINT. When it
/// listens and has read its data file it prints one line to standard output, `ready replica=0 address=127.0.0.1:3001`;
/// everything else goes to standard error.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
#[command(after_help = NOTES)]
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

    /// Serve the Redis protocol as well, at this address, by a gateway on a thread of its own: see docs/redis.md
    #[arg(long, value_name = "HOST:PORT")]
    pub resp: Option<String>,

    /// How the gateway works.
    #[command(flatten)]
    pub gateway: GatewayArgs,

    /// Let the disk fail as this file says, for tests: see docs/testing.md
    #[arg(long, requires = "development", value_name = "FILE")]
    pub fault_file: Option<PathBuf>,
}

impl StartArguments {
    /// How the server is to run.
    pub fn server_options(&self) -> ServerOptions {
        ServerOptions {
            clients_max: self.clients_max,
            require_locked: self.require_locked,
            fault_file: self.fault_file.clone(),
            ..ServerOptions::new(self.addresses.clone())
        }
    }

    /// The log level.
    pub fn level(&self) -> log::LevelFilter {
        self.log_level.parse().unwrap_or(log::LevelFilter::Info)
    }
}

/// Opens the file, listens, and runs the replica.
///
/// # Errors
/// Whatever of file, addresses, memory, kernel or disk forbids it.
pub fn run(arguments: &StartArguments) -> Result<Exit, Failure> {
    log_sink::install(arguments.level());
    // What is wrong with the list as such is known without the file, which may be waited for.
    check_addresses_alone(&arguments.addresses)
        .map_err(|error| Failure::new(Exit::Usage, &error))?;
    let stop = Stop::default();
    let no_signals = |error: std::io::Error| Failure::new(Exit::Failed, &error);
    stop.on_signals().map_err(no_signals)?;
    let file = hosting::open(&arguments.file, arguments.development)?;
    let state = &file.superblock.state;
    check_addresses(&arguments.addresses, state.replica_count)
        .map_err(|error| Failure::new(Exit::Usage, &error))?;
    let own = &arguments.addresses[usize::from(state.replica)];
    let listener = hosting::listen(own).map_err(crate::server::ServerError::from)?;
    let gateway = gateway(arguments, state.cluster, state.replica, &listener.address)?;
    let gateway = gateway.map(|gateway| spawn(gateway, &stop)).transpose()?;
    let stdout = std::io::stdout(); // makes its buffer now, before the thread is sealed
    let result = hosting::run::<Served>(
        file,
        listener,
        &arguments.server_options(),
        &stop,
        &Arc::default(),
        |address, replica| {
            // On the sealed thread: the line is made on the stack, and standard output has its buffer.
            let mut line = [0u8; 96];
            let mut rest = &mut line[..];
            let _ = writeln!(rest, "ready replica={replica} address={address}");
            let left = rest.len();
            let size = line.len() - left;
            let _ = rustix::io::write(&stdout, &line[..size]);
        },
    );
    log_sink::flush();
    stop.stop();
    let served = gateway.map(|thread| thread.join().unwrap_or(Ok(())));
    result?;
    served.transpose()?;
    print("stopped");
    Ok(Exit::Ok)
}

/// The gateway beside the replica, if there is to be one. It listens already.
fn gateway(
    arguments: &StartArguments,
    cluster: u128,
    replica: u8,
    own: &SocketAddr,
) -> Result<Option<Gateway>, Failure> {
    let Some(listen) = &arguments.resp else {
        return Ok(None);
    };
    let mut addresses = arguments.addresses.clone();
    // Its port may have been given as 0.
    addresses[usize::from(replica)] = own.to_string();
    let client = ClientOptions::new(cluster, addresses);
    let gateway = Gateway::bind(&arguments.gateway.options(listen, client))?;
    print(format_args!("ready resp={}", gateway.address()));
    Ok(Some(gateway))
}

/// Runs the gateway until the replica stops. When it fails, the replica stops, too: whoever asked for both wants both.
fn spawn(
    mut gateway: Gateway,
    stop: &Stop,
) -> Result<JoinHandle<Result<(), GatewayError>>, Failure> {
    let stop = stop.clone();
    let run = move || {
        let result = gateway.run(&|| stop.is_stopped());
        stop.stop();
        result
    };
    let thread = std::thread::Builder::new().name("resp".to_owned());
    let no_thread = |error: std::io::Error| Failure::new(Exit::Resources, &error);
    thread.spawn(run).map_err(no_thread)
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
        assert!(parse("--addresses a:1 --fault-file x f").is_err());
        let faulty = parse("--addresses a:1 --development --fault-file x f").expect("valid");
        assert!(faulty.server_options().fault_file.is_some());
        assert!(parse("f").is_err() && parse("--addresses a:1 --log-level loud f").is_err());
    }
}
