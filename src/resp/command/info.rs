//! INFO: sections of lines `name:value`.

use super::connection::REDIS_VERSION;
use super::{Context, Prepared, Then};
use crate::resp::finish::Finish;
use crate::resp::request::Arguments;
use crate::resp::shared::Shared;
use crate::state_machine::kv::wire::Item;
use std::fmt::Write;

/// The sections, in order; the last needs the cluster.
const SECTIONS: [&str; 7] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cluster",
];

pub(super) fn info(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let asked: Vec<String> = arguments
        .from(1)
        .iter()
        .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
        .collect();
    let all = asked.is_empty()
        || asked
            .iter()
            .any(|name| matches!(name.as_str(), "all" | "default" | "everything"));
    let is_asked = |section: &str| all || asked.iter().any(|name| name == section);
    let mut text = String::new();
    for name in SECTIONS {
        if is_asked(name) {
            separate(&mut text);
            section(name, context.shared, &mut text);
        }
    }
    if is_asked("keyspace") {
        separate(&mut text);
        text += "# Keyspace\r\n";
        return context.item(&Item::Count, Finish::Keyspace(text));
    }
    context.replies.verbatim(text.as_bytes());
    Ok(Then::Replied)
}

fn separate(text: &mut String) {
    if !text.is_empty() {
        *text += "\r\n";
    }
}

fn section(name: &str, shared: &Shared, text: &mut String) {
    let mut line = |line: std::fmt::Arguments<'_>| {
        write!(text, "{line}\r\n").expect("memory takes all that is written");
    };
    let statistics = &shared.statistics;
    match name {
        "server" => {
            let uptime = shared.uptime().as_secs();
            line(format_args!("# Server"));
            line(format_args!("redis_version:{REDIS_VERSION}"));
            line(format_args!("redis_mode:standalone"));
            line(format_args!("server_name:viewstone"));
            line(format_args!(
                "viewstone_version:{}",
                env!("CARGO_PKG_VERSION")
            ));
            line(format_args!("process_id:{}", std::process::id()));
            line(format_args!("tcp_port:{}", shared.port));
            line(format_args!("uptime_in_seconds:{uptime}"));
            line(format_args!("uptime_in_days:{}", uptime / 86_400));
        }
        "clients" => {
            line(format_args!("# Clients"));
            line(format_args!("connected_clients:{}", shared.connections));
            line(format_args!("maxclients:{}", shared.connections_max));
        }
        "memory" => {
            line(format_args!("# Memory"));
            line(format_args!("used_memory:{}", shared.memory));
        }
        "persistence" => {
            line(format_args!("# Persistence"));
            line(format_args!("loading:0"));
            line(format_args!("aof_enabled:1"));
        }
        "stats" => {
            line(format_args!("# Stats"));
            line(format_args!(
                "total_connections_received:{}",
                statistics.accepted
            ));
            line(format_args!(
                "total_commands_processed:{}",
                statistics.commands
            ));
            line(format_args!(
                "total_net_input_bytes:{}",
                statistics.received
            ));
            line(format_args!("total_net_output_bytes:{}", statistics.sent));
            line(format_args!("rejected_connections:{}", statistics.refused));
            line(format_args!(
                "viewstone_connections_cut:{}",
                statistics.closed_hostile
            ));
            line(format_args!("viewstone_requests:{}", statistics.requests));
            line(format_args!(
                "viewstone_outcomes_unknown:{}",
                statistics.unknown
            ));
        }
        "replication" => {
            line(format_args!("# Replication"));
            line(format_args!("role:master"));
            line(format_args!("connected_slaves:0"));
            line(format_args!(
                "viewstone_replicas:{}",
                shared.replicas.join(",")
            ));
            let primary = shared.primary.and_then(|index| shared.replicas.get(index));
            let primary = primary.map_or("", String::as_str);
            line(format_args!("viewstone_primary:{primary}"));
        }
        _ => {
            line(format_args!("# Cluster"));
            line(format_args!("cluster_enabled:0"));
        }
    }
}
