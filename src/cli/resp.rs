//! `viewstone resp`: the gateway of the Redis protocol.

use super::cluster::ClusterArgs;
use super::{Exit, Failure, print};
use crate::resp::gateway::{Gateway, GatewayError, GatewayOptions};
use crate::server::{Stop, log_sink};
use std::io::ErrorKind;

const NOTES: &str = "\
Examples:
  viewstone resp --cluster 7 --addresses a:3001,b:3001,c:3001
  viewstone resp --cluster 7 --addresses a:3001,b:3001,c:3001 --listen 10.0.0.4:6379

It listens whether the cluster serves or not; the log says when no primary is found.

Exit status:
  0  it was told to stop
  2  the command line is wrong, or an address is none
  5  the port is in use
  6  no permission to listen there
  7  the system gives too few descriptors or too little memory";

/// Serve the Redis protocol, as a client of the cluster.
///
/// Prints one line when it listens, `ready resp=127.0.0.1:6379`, and runs until SIGTERM or SIGINT. docs/redis.md has the
/// commands, and what differs from Redis.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct RespArgs {
    /// Which cluster. The time-out is that of a command: while there is no primary it waits for so long.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Where to listen for Redis clients
    #[arg(long, default_value = "127.0.0.1:6379", value_name = "HOST:PORT")]
    pub listen: String,
    /// How the gateway works.
    #[command(flatten)]
    pub gateway: GatewayArgs,
}

/// What a gateway has in common, beside a replica and alone.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct GatewayArgs {
    /// Sessions that the gateway holds: so many batches of writes are on their way at once
    #[arg(long, default_value_t = 8, value_name = "COUNT")]
    pub resp_sessions: usize,
    /// Most connections of Redis clients
    #[arg(long, default_value_t = 10_000, value_name = "COUNT")]
    pub resp_clients_max: usize,
}

impl GatewayArgs {
    /// Options of a gateway.
    pub fn options(&self, listen: &str, client: crate::client::ClientOptions) -> GatewayOptions {
        let mut options = GatewayOptions::new(listen, client);
        options.client.sessions = self.resp_sessions;
        options.connections_max = self.resp_clients_max;
        options
    }
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        let exit = match &error {
            GatewayError::Connect(_) => Exit::Usage,
            GatewayError::Listen { error, .. } => match error.kind() {
                ErrorKind::AddrInUse => Exit::InUse,
                ErrorKind::PermissionDenied => Exit::Permission,
                _ => Exit::Usage,
            },
            GatewayError::System(_) => Exit::Resources,
        };
        Self::new(exit, &error)
    }
}

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// It cannot listen, or the system gives it too little.
pub fn run(arguments: &RespArgs) -> Result<Exit, Failure> {
    log_sink::install(log::LevelFilter::Info);
    let stop = Stop::default();
    let no_signals = |error: std::io::Error| Failure::new(Exit::Failed, &error);
    stop.on_signals().map_err(no_signals)?;
    let options = arguments
        .gateway
        .options(&arguments.listen, arguments.cluster.options());
    let mut gateway = Gateway::bind(&options)?;
    print(format_args!("ready resp={}", gateway.address()));
    let result = gateway.run(&|| stop.is_stopped());
    log_sink::flush();
    result?;
    print("stopped");
    Ok(Exit::Ok)
}
