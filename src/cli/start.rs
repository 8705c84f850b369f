//! `viewstone start`: runs a replica until it is told to stop.

use crate::server::{ServerOptions, check_addresses};
use std::net::SocketAddr;
use std::path::PathBuf;

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
    #[arg(long, value_delimiter = ',', required = true, value_name = "HOST:PORT,...")]
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
