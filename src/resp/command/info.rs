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

/// Appends a section: its title, and a line for each field.
fn section(name: &str, shared: &Shared, text: &mut String) {
    let (title, fields) = match name {
        "server" => ("Server", server(shared)),
        "clients" => ("Clients", clients(shared)),
        "memory" => ("Memory", vec![("used_memory", shared.memory.to_string())]),
        "persistence" => ("Persistence", persistence()),
        "stats" => ("Stats", stats(shared)),
        "replication" => ("Replication", replication(shared)),
        _ => ("Cluster", vec![("cluster_enabled", "0".to_owned())]),
    };
    write!(text, "# {title}\r\n").expect("memory takes all that is written");
    for (field, value) in fields {
        write!(text, "{field}:{value}\r\n").expect("memory takes all that is written");
    }
}

type Fields = Vec<(&'static str, String)>;

fn server(shared: &Shared) -> Fields {
    let uptime = shared.uptime().as_secs();
    vec![
        ("redis_version", REDIS_VERSION.to_owned()),
        ("redis_mode", "standalone".to_owned()),
        ("server_name", "viewstone".to_owned()),
        ("viewstone_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("process_id", std::process::id().to_string()),
        ("tcp_port", shared.port.to_string()),
        ("uptime_in_seconds", uptime.to_string()),
        ("uptime_in_days", (uptime / 86_400).to_string()),
    ]
}

fn clients(shared: &Shared) -> Fields {
    vec![
        ("connected_clients", shared.connections.to_string()),
        ("maxclients", shared.connections_max.to_string()),
    ]
}

/// Every write is on disk before it is acknowledged.
fn persistence() -> Fields {
    vec![("loading", "0".to_owned()), ("aof_enabled", "1".to_owned())]
}

fn stats(shared: &Shared) -> Fields {
    let counts = &shared.statistics;
    [
        ("total_connections_received", counts.accepted),
        ("total_commands_processed", counts.commands),
        ("total_net_input_bytes", counts.received),
        ("total_net_output_bytes", counts.sent),
        ("rejected_connections", counts.refused),
        ("viewstone_connections_cut", counts.closed_hostile),
        ("viewstone_requests", counts.requests),
        ("viewstone_outcomes_unknown", counts.unknown),
    ]
    .map(|(name, count)| (name, count.to_string()))
    .to_vec()
}

fn replication(shared: &Shared) -> Fields {
    let primary = shared.primary.and_then(|index| shared.replicas.get(index));
    vec![
        ("role", "master".to_owned()),
        ("connected_slaves", "0".to_owned()),
        ("viewstone_replicas", shared.replicas.join(",")),
        ("viewstone_primary", primary.cloned().unwrap_or_default()),
    ]
}
