//! The connection: PING, HELLO, CLIENT and what is like them.

use super::{Clients, Context, Failure, Prepared, SYNTAX, Then, integer};
use crate::resp::reply::Protocol;
use crate::resp::request::Arguments;

/// The Redis whose commands these are.
pub(super) const REDIS_VERSION: &str = "7.0.15";

/// Longest name of a connection, in bytes.
const NAME_SIZE_MAX: usize = 1024;

const BAD_NAME: Failure =
    Failure::new("ERR Client names cannot contain spaces, newlines or special characters.");

pub(super) fn ping(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    match arguments.len() {
        1 => context.replies.simple("PONG"),
        2 => context.replies.bulk(&arguments[1]),
        _ => return Err(context.arity()),
    }
    Ok(Then::Replied)
}

pub(super) fn echo(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    context.replies.bulk(&arguments[1]);
    Ok(Then::Replied)
}

fn ok(context: &mut Context<'_>) -> Prepared {
    context.replies.simple("OK");
    Ok(Then::Replied)
}

pub(super) fn select(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    const NO_INT: Failure =
        Failure::new("ERR value is out of range, value must between -2147483648 and 2147483647");
    const OUT_OF_RANGE: Failure = Failure::new("ERR DB index is out of range");
    let index = integer(&arguments[1])?;
    if i32::try_from(index).is_err() {
        return Err(NO_INT);
    }
    // There is one database.
    if index != 0 {
        return Err(OUT_OF_RANGE);
    }
    ok(context)
}

pub(super) fn quit(context: &mut Context<'_>, _: &Arguments<'_>) -> Prepared {
    context.replies.simple("OK");
    Ok(Then::Close)
}

pub(super) fn reset(context: &mut Context<'_>, _: &Arguments<'_>) -> Prepared {
    context.caller.reset();
    context.replies.set_protocol(Protocol::Two);
    context.replies.simple("RESET");
    Ok(Then::Replied)
}

/// There are no users but the default one, who needs no password.
fn authenticate(user: &[u8]) -> Result<(), Failure> {
    const WRONG: Failure =
        Failure::new("WRONGPASS invalid username-password pair or user is disabled.");
    if user == b"default" {
        Ok(())
    } else {
        Err(WRONG)
    }
}

pub(super) fn auth(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    const NO_PASSWORD: Failure = Failure::new(
        "ERR AUTH <password> called without any password configured for the default user. \
         Are you sure your configuration is correct?",
    );
    match arguments.len() {
        2 => Err(NO_PASSWORD),
        3 => {
            authenticate(&arguments[1])?;
            ok(context)
        }
        _ => Err(SYNTAX),
    }
}

fn is_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte)) && name.len() <= NAME_SIZE_MAX
}

pub(super) fn hello(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    const VERSION: Failure = Failure::new("NOPROTO unsupported protocol version");
    const NO_VERSION: Failure =
        Failure::new("ERR Protocol version is not an integer or out of range");
    let mut protocol = context.caller.protocol;
    if let Some(version) = arguments.get(1) {
        protocol = match integer(version).map_err(|_| NO_VERSION)? {
            2 => Protocol::Two,
            3 => Protocol::Three,
            _ => return Err(VERSION),
        };
    }
    let mut at = 2;
    while let Some(option) = arguments.get(at) {
        let (one, two) = (arguments.get(at + 1), arguments.get(at + 2));
        match (option.to_ascii_uppercase().as_slice(), one, two) {
            (b"AUTH", Some(user), Some(_)) => {
                authenticate(user)?;
                at += 3;
            }
            (b"SETNAME", Some(given), _) => {
                if !is_name(given) {
                    return Err(BAD_NAME);
                }
                // As Redis: it stays even if what follows is wrong.
                context.caller.name = given.to_vec();
                at += 2;
            }
            _ => {
                let mut text = b"ERR Syntax error in HELLO option '".to_vec();
                text.extend(option.iter().take_while(|&&byte| byte != 0));
                text.push(b'\'');
                return Err(Failure::quoting(text));
            }
        }
    }
    context.caller.protocol = protocol;
    context.replies.set_protocol(protocol);
    let number = context.caller.number.cast_signed();
    let replies = &mut context.replies;
    replies.map(7);
    for (field, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        replies.bulk(field.as_bytes());
        replies.bulk(value.as_bytes());
    }
    replies.bulk(b"proto");
    replies.integer(if protocol == Protocol::Two { 2 } else { 3 });
    replies.bulk(b"id");
    replies.integer(number);
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        replies.bulk(field.as_bytes());
        replies.bulk(value.as_bytes());
    }
    replies.bulk(b"modules");
    replies.array(0);
    Ok(Then::Replied)
}

pub(super) fn client(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let subcommand = arguments[1].to_ascii_uppercase();
    match subcommand.as_slice() {
        b"ID" => {
            let number = context.caller.number.cast_signed();
            context.replies.integer(number);
            Ok(Then::Replied)
        }
        b"GETNAME" => {
            if context.caller.name.is_empty() {
                context.replies.null();
            } else {
                context.replies.bulk(&context.caller.name);
            }
            Ok(Then::Replied)
        }
        b"SETNAME" => {
            if !is_name(&arguments[2]) {
                return Err(BAD_NAME);
            }
            context.caller.name = arguments[2].to_vec();
            ok(context)
        }
        b"SETINFO" => set_info(context, arguments),
        b"INFO" => Ok(Then::Clients(Clients::Own)),
        b"LIST" => list(arguments).map(Then::Clients),
        b"NO-EVICT" | b"NO-TOUCH" => {
            let value = &arguments[2];
            if !value.eq_ignore_ascii_case(b"on") && !value.eq_ignore_ascii_case(b"off") {
                return Err(SYNTAX);
            }
            ok(context) // nothing is ever evicted
        }
        _ => Err(SYNTAX), // not in the table
    }
}

fn set_info(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (field, value) = (&arguments[2], &arguments[3]);
    let name = String::from_utf8_lossy(field);
    if !is_name(value) {
        let text = format!(
            "ERR {} cannot contain spaces, newlines or special characters.",
            name.to_ascii_lowercase()
        );
        return Err(Failure::quoting(text.into_bytes()));
    }
    if field.eq_ignore_ascii_case(b"lib-name") {
        context.caller.library.0 = value.to_vec();
    } else if field.eq_ignore_ascii_case(b"lib-ver") {
        context.caller.library.1 = value.to_vec();
    } else {
        let text = format!("ERR Unrecognized option '{name}'");
        return Err(Failure::quoting(text.into_bytes()));
    }
    ok(context)
}

/// The list that a CLIENT command asks for; none: it asks for none, or wrongly.
pub(super) fn list_of(arguments: &Arguments<'_>) -> Option<Clients> {
    let subcommand = arguments.get(1)?.to_ascii_uppercase();
    match subcommand.as_slice() {
        b"INFO" => Some(Clients::Own),
        b"LIST" => list(arguments).ok(),
        _ => None,
    }
}

fn list(arguments: &Arguments<'_>) -> Result<Clients, Failure> {
    const BAD_ID: Failure = Failure::new("ERR Invalid client ID");
    let option = arguments.get(2).map(<[u8]>::to_ascii_uppercase);
    match (option.as_deref(), arguments.get(3)) {
        (None, _) => Ok(Clients::All),
        (Some(b"TYPE"), Some(kind)) if arguments.len() == 4 => {
            match kind.to_ascii_lowercase().as_slice() {
                b"normal" => Ok(Clients::All),
                b"master" | b"replica" | b"slave" | b"pubsub" => Ok(Clients::None),
                _ => {
                    let mut text = b"ERR Unknown client type '".to_vec();
                    text.extend_from_slice(kind);
                    text.push(b'\'');
                    Err(Failure::quoting(text))
                }
            }
        }
        (Some(b"ID"), Some(_)) => {
            let number = |number| integer(number).ok().and_then(|it| u64::try_from(it).ok());
            let numbers = arguments.from(3);
            let numbers: Option<Vec<u64>> = numbers.iter().map(number).collect();
            numbers.map(Clients::Numbered).ok_or(BAD_ID)
        }
        _ => Err(SYNTAX),
    }
}
