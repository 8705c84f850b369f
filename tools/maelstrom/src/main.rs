//! Viewstone as a node of [Maelstrom](https://github.com/jepsen-io/maelstrom), Jepsen's workbench: it starts the nodes,
//! is their network and their clients, and judges what they have answered.
//!
//! ```sh
//! cargo build --release -p maelstrom
//! ./maelstrom test -w echo --bin target/release/maelstrom-node --node-count 1 --time-limit 10
//! ./maelstrom test -w lin-kv --bin target/release/maelstrom-node --node-count 3 --concurrency 4n --rate 100 \
//!     --time-limit 60 --latency 10 --nemesis partition --nemesis-interval 10
//! ```
//!
//! Messages are lines of JSON on standard input and output; what there is to say goes to standard error. Behind them is the
//! real replica, hosted as the server hosts it, with a real data file on the same io_uring driver. Only the network is
//! Maelstrom's. Between nodes go three types of messages, each with one field beside its type, `frame`: a message of
//! docs/protocol.md, header and body, in base64.
//!
//! | type | from | to |
//! | --- | --- | --- |
//! | `vsr` | a replica | a replica |
//! | `vsr_request` | the sessions of a node | a replica |
//! | `vsr_reply` | a replica | the sessions of a node |
//!
//! Any node takes a client's request (`read`, `write` and `cas` of `lin-kv`, with `create_if_not_exists`), hands it to the
//! primary through one of its own sessions, and answers what that answered. What is not answered in time is answered with
//! 0 (timeout), which is indefinite, if it may have been executed or may yet be, and with 11 if it was not and will not.
//! Nothing is executed twice: copies of a request have its session and number.
//!
//! The tests have a small workbench of their own (`tests/driver`), which also kills nodes.

mod data;
mod host;
mod input;
mod message;
mod node;
mod request;
mod sessions;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A node of Jepsen's Maelstrom: a replica of the key-value store, for the workloads `lin-kv` and `echo`.
#[derive(Parser, Debug)]
#[command(name = "maelstrom-node")]
struct Arguments {
    /// Milliseconds after which a request is given up. Maelstrom's clients wait for a second, or ten times the latency.
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    deadline_ms: u64,
    /// Keep the data file in this directory, and go on with it if it is there. Without, each process begins anew.
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = node::Options {
        deadline: Duration::from_millis(arguments.deadline_ms),
        directory: arguments.directory,
    };
    match node::run(std::io::stdin(), std::io::stdout(), &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the node stops: {error}");
            ExitCode::FAILURE
        }
    }
}
