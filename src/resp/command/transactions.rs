//! Transactions: MULTI, EXEC, WATCH. A transaction is optimistic: WATCH remembers versions, MULTI keeps the commands, and
//! EXEC is one transaction of the key-value machine, whose conditions are the versions.

use super::{Context, Failure, Prepared, Spec, Then, check_key, find};
use crate::resp::caller::{Transaction, WATCHED_MAX};
use crate::resp::finish::{Finish, Part};
use crate::resp::items::ItemList;
use crate::resp::reply::Replies;
use crate::resp::request::Arguments;
use crate::state_machine::kv::wire::{Condition, Item};

const TOO_LARGE: Failure = Failure::new(
    "EXECABORT Transaction discarded because it is larger than a request of the cluster may be.",
);

pub(super) fn multi(context: &mut Context<'_>, _: &Arguments<'_>) -> Prepared {
    const NESTED: Failure = Failure::new("ERR MULTI calls can not be nested");
    if context.caller.transaction.is_some() {
        return Err(NESTED);
    }
    context.caller.transaction = Some(Transaction::default());
    context.replies.simple("OK");
    Ok(Then::Replied)
}

pub(super) fn discard(context: &mut Context<'_>, _: &Arguments<'_>) -> Prepared {
    const WITHOUT: Failure = Failure::new("ERR DISCARD without MULTI");
    if context.caller.transaction.is_none() {
        return Err(WITHOUT);
    }
    context.caller.end_transaction();
    context.replies.simple("OK");
    Ok(Then::Replied)
}

pub(super) fn watch(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    const INSIDE: Failure = Failure::new("ERR WATCH inside MULTI is not allowed");
    const TOO_MANY: Failure = Failure::new("ERR too many keys are watched");
    if context.caller.transaction.is_some() {
        return Err(INSIDE);
    }
    let keys = arguments.from(1);
    if context.caller.watched.len() + keys.len() > WATCHED_MAX {
        return Err(TOO_MANY);
    }
    for key in keys.iter() {
        context.push(&Item::Stat { key })?;
    }
    let keys = keys.iter().map(Into::into).collect();
    Ok(Then::Items(Finish::Watched(keys)))
}

pub(super) fn unwatch(context: &mut Context<'_>, _: &Arguments<'_>) -> Prepared {
    // In a transaction EXEC forgets the keys anyway.
    if !context.in_transaction {
        context.caller.watched = Vec::new();
    }
    context.replies.simple("OK");
    Ok(Then::Replied)
}

/// Keeps a command for EXEC; true if it was kept.
///
/// # Errors
/// It cannot be part of a transaction, and so the transaction will not be executed.
pub fn queue(
    transaction: &mut Transaction,
    spec: &Spec,
    arguments: &Arguments<'_>,
) -> Result<(), Failure> {
    let kept = if spec.is_transactional {
        transaction.push(arguments).map_err(|_| TOO_LARGE)
    } else {
        let name = spec.name.to_ascii_uppercase();
        let text = format!("ERR {name} is not supported in a transaction");
        Err(Failure::quoting(text.into_bytes()))
    };
    transaction.broken |= kept.is_err();
    kept
}

pub(super) fn exec(context: &mut Context<'_>, _: &Arguments<'_>) -> Prepared {
    const WITHOUT: Failure = Failure::new("ERR EXEC without MULTI");
    const BROKEN: Failure =
        Failure::new("EXECABORT Transaction discarded because of previous errors.");
    let transaction = context.caller.transaction.take().ok_or(WITHOUT)?;
    let watched = std::mem::take(&mut context.caller.watched);
    if transaction.broken {
        return Err(BROKEN);
    }
    let parts = parts(context, &transaction)?;
    for (key, _) in &watched {
        check_key(key)?;
    }
    if context.items.is_empty() && watched.is_empty() {
        let mut around = Vec::new();
        for part in &parts {
            match part {
                Part::Reply(reply) => around.extend_from_slice(reply),
                Part::Items(..) => unreachable!("there are no items"),
            }
        }
        context.replies.array(parts.len());
        context.replies.raw(&around);
        return Ok(Then::Replied);
    }
    let condition = |(key, version): &(Box<[u8]>, u64)| (key.clone(), *version);
    let watched: Vec<(Box<[u8]>, u64)> = watched.iter().map(condition).collect();
    let conditions: Vec<Condition<'_>> = watched
        .iter()
        .map(|(key, version)| Condition::version(key, *version))
        .collect();
    context.items.enclose(&conditions).ok_or(TOO_LARGE)?;
    let limits = &context.shared.limits;
    let reply_size_max = if context.items.is_read() {
        limits.reply_size_max
    } else {
        limits.write_reply_size_max
    };
    let fits = context.items.bytes().len() <= limits.request_size_max
        && context.items.reply_size() <= reply_size_max;
    if !fits {
        return Err(TOO_LARGE);
    }
    Ok(Then::Items(Finish::Executed(parts)))
}

/// What each command of a transaction comes to: its reply, or what makes one of its items' results.
fn parts(context: &mut Context<'_>, transaction: &Transaction) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::with_capacity(transaction.len());
    for arguments in transaction.commands() {
        let spec = find(&arguments[0]).expect("it was found when it was kept");
        let mut items = ItemList::new();
        let mut reply = Vec::new();
        let mut inner = Context {
            spec,
            caller: &mut *context.caller,
            replies: Replies::new(&mut reply, context.replies.protocol()),
            items: &mut items,
            shared: &mut *context.shared,
            in_transaction: true,
            is_large: false,
        };
        let then = (spec.run)(&mut inner, &arguments);
        let part = match then {
            Ok(Then::Items(finish)) => {
                let count = items.count();
                context.items.extend(&items);
                Part::Items(finish, count)
            }
            Ok(Then::Replied) => Part::Reply(reply),
            Err(failure) => {
                failure.write(&mut Replies::new(&mut reply, context.replies.protocol()));
                Part::Reply(reply)
            }
            // The list of connections, as it is without others.
            Ok(Then::Clients(_)) => {
                let mut replies = Replies::new(&mut reply, context.replies.protocol());
                replies
                    .error(&"ERR CLIENT LIST and CLIENT INFO are not supported in a transaction");
                Part::Reply(reply)
            }
            Ok(Then::Close | Then::Steps(_)) => {
                unreachable!("{} is not kept for a transaction", spec.name)
            }
        };
        parts.push(part);
    }
    Ok(parts)
}
