//! The server: COMMAND, CONFIG, TIME, WAIT.

use super::{Context, Failure, NOT_AN_INTEGER, Prepared, SYNTAX, Spec, TABLE, Then, find, integer};
use crate::resp::glob;
use crate::resp::reply::Replies;
use crate::resp::request::Arguments;
use crate::resp::shared::Shared;

pub(super) fn time(context: &mut Context<'_>, _: &Arguments<'_>) -> Prepared {
    let now = Shared::now();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    context.replies.array(2);
    context.replies.bulk_integer(seconds);
    context.replies.bulk_integer(i64::from(now.subsec_micros()));
    Ok(Then::Replied)
}

/// What was acknowledged is on a quorum already: there is nothing to wait for.
pub(super) fn wait(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    const TIMEOUT: Failure = Failure::new("ERR timeout is not an integer or out of range");
    const NEGATIVE: Failure = Failure::new("ERR timeout is negative");
    integer(&arguments[1]).map_err(|_| NOT_AN_INTEGER)?;
    let timeout = integer(&arguments[2]).map_err(|_| TIMEOUT)?;
    if timeout < 0 {
        return Err(NEGATIVE);
    }
    context.replies.integer(context.shared.backups_acknowledged);
    Ok(Then::Replied)
}

fn words(text: &'static str) -> impl Iterator<Item = &'static str> + Clone {
    text.split(' ').filter(|word| !word.is_empty())
}

fn describe(spec: &Spec, replies: &mut Replies<'_>) {
    replies.array(10);
    replies.bulk(spec.name.as_bytes());
    replies.integer(i64::from(spec.arity));
    for text in [spec.flags, spec.categories] {
        if text == spec.categories {
            let (first, last, step) = spec.keys;
            for position in [first, last, step] {
                replies.integer(i64::from(position));
            }
        }
        replies.set(words(text).count());
        words(text).for_each(|word| replies.simple(word));
    }
    // Tips, key specifications and subcommands: none are told.
    for _ in 0..3 {
        replies.array(0);
    }
}

pub(super) fn command(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let replies = &mut context.replies;
    let Some(subcommand) = arguments.get(1) else {
        replies.array(TABLE.len());
        for spec in TABLE {
            describe(spec, replies);
        }
        return Ok(Then::Replied);
    };
    let names = arguments.from(2);
    match subcommand.to_ascii_uppercase().as_slice() {
        b"COUNT" => replies.integer(i64::try_from(TABLE.len()).unwrap_or(i64::MAX)),
        b"LIST" if names.is_empty() => {
            replies.set(TABLE.len());
            for spec in TABLE {
                replies.bulk(spec.name.as_bytes());
            }
        }
        b"INFO" if names.is_empty() => {
            replies.array(TABLE.len());
            for spec in TABLE {
                describe(spec, replies);
            }
        }
        b"INFO" => {
            replies.array(names.len());
            for name in names.iter() {
                match find(name) {
                    Some(spec) => describe(spec, replies),
                    None => replies.null_array(),
                }
            }
        }
        b"DOCS" => {
            let named: Vec<&Spec> = if names.is_empty() {
                TABLE.iter().collect()
            } else {
                names.iter().filter_map(find).collect()
            };
            replies.map(named.len());
            for spec in named {
                document(spec, replies);
            }
        }
        b"GETKEYS" => return get_keys(context, &names),
        _ => return Err(SYNTAX), // LIST FILTERBY
    }
    Ok(Then::Replied)
}

fn document(spec: &Spec, replies: &mut Replies<'_>) {
    let group = if spec.categories.contains("@transaction") {
        "transactions"
    } else if spec.categories.contains("@connection") {
        "connection"
    } else if spec.categories.contains("@keyspace") {
        "generic"
    } else if spec.categories.contains("@string") {
        "string"
    } else {
        "server"
    };
    replies.bulk(spec.name.as_bytes());
    replies.map(2);
    for (field, text) in [
        (
            "summary",
            "As in Redis 7; see the gateway's documentation for differences.",
        ),
        ("group", group),
    ] {
        replies.bulk(field.as_bytes());
        replies.bulk(text.as_bytes());
    }
}

fn get_keys(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    const INVALID: Failure = Failure::new("ERR Invalid command specified");
    const NO_KEYS: Failure = Failure::new("ERR The command has no key arguments");
    const COUNT: Failure = Failure::new("ERR Invalid number of arguments specified for command");
    let spec = find(&arguments[0]).ok_or(INVALID)?;
    if spec.keys.0 == 0 {
        return Err(NO_KEYS);
    }
    if !spec.takes(arguments.len()) {
        return Err(COUNT);
    }
    let places: Vec<usize> = spec.key_positions(arguments.len()).collect();
    context.replies.array(places.len());
    for place in places {
        let key = arguments.get(place);
        context.replies.bulk(key.unwrap_or(&[]));
    }
    Ok(Then::Replied)
}

pub(super) fn config(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let subcommand = arguments[1].to_ascii_uppercase();
    match subcommand.as_slice() {
        b"GET" => {
            let patterns = arguments.from(2);
            let settings = settings(context.shared);
            let is_asked = |name: &str| {
                let name = name.as_bytes();
                patterns
                    .iter()
                    .any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), name))
            };
            let asked: Vec<_> = settings.iter().filter(|(name, _)| is_asked(name)).collect();
            context.replies.map(asked.len());
            for (name, value) in asked {
                context.replies.bulk(name.as_bytes());
                context.replies.bulk(value.as_bytes());
            }
            Ok(Then::Replied)
        }
        _ => Err(Failure::quoting(
            format!(
                "ERR CONFIG {} is not supported: the gateway is configured when it starts",
                String::from_utf8_lossy(&subcommand)
            )
            .into_bytes(),
        )),
    }
}

/// What clients and tools ask for, in Redis's terms.
fn settings(shared: &Shared) -> Vec<(&'static str, String)> {
    vec![
        ("appendfsync", "always".to_owned()),
        ("appendonly", "yes".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", shared.connections_max.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("port", shared.port.to_string()),
        (
            "proto-max-bulk-len",
            shared.limits.value_size_max.to_string(),
        ),
        ("save", String::new()),
        ("tcp-keepalive", "0".to_owned()),
        ("timeout", "0".to_owned()),
    ]
}
