//! Transactions: MULTI, EXEC, WATCH. A transaction is optimistic: WATCH remembers versions, MULTI keeps the commands, and
//! EXEC is one transaction of the key-value machine, whose conditions are the versions.

use super::connection::list_of;
use super::{Clients, Context, Failure, Prepared, Spec, Then, find};
use crate::resp::caller::{Caller, Transaction, WATCHED_MAX};
use crate::resp::finish::{Executed, Finish, Part};
use crate::resp::items::ItemList;
use crate::resp::prediction::Prediction;
use crate::resp::reply::Replies;
use crate::resp::request::Arguments;
use crate::resp::shared::{KvLimits, Shared};
use crate::resp::steps::{Exec, Steps};
use crate::state_machine::kv::wire::{Condition, Item};

const TOO_LARGE: Failure = Failure::new(
    "EXECABORT Transaction discarded because it is larger than a request of the cluster may be.",
);

const TOO_MANY_LISTS: Failure =
    Failure::new("ERR the lists of connections are too long for a transaction");

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
    transaction.is_predicted |= spec.is_predicted;
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
    let transaction = context.caller.transaction.as_ref().ok_or(WITHOUT)?;
    if !transaction.broken && !transaction.is_listed {
        let lists = lists(transaction);
        if !lists.is_empty() {
            return Ok(Then::Lists(lists));
        }
    }
    let transaction = context.caller.transaction.take().ok_or(WITHOUT)?;
    let watched = std::mem::take(&mut context.caller.watched);
    if transaction.broken {
        return Err(BROKEN);
    }
    if transaction.is_predicted {
        let exec = Exec::new(transaction, watched)?;
        return Ok(Then::Steps(Box::new(Steps::Exec(Box::new(exec)))));
    }
    let (caller, shared) = (&*context.caller, &mut *context.shared);
    let executed = compose(caller, shared, &transaction, None, context.items)?;
    if context.items.is_empty() && watched.is_empty() {
        context.replies.array(executed.parts.len());
        for part in &executed.parts {
            match part {
                Part::Reply(reply) => context.replies.raw(reply),
                Part::Items(..) => unreachable!("there are no items"),
            }
        }
        context.caller.set(&executed.settings);
        return Ok(Then::Replied);
    }
    enclose(context.items, &watched, &context.shared.limits)?;
    Ok(Then::Items(Finish::Executed(executed)))
}

/// The lists of connections that commands ask for, in their order.
fn lists(transaction: &Transaction) -> Vec<Clients> {
    let commands = transaction.commands();
    let client = commands.filter(|arguments| arguments[0].eq_ignore_ascii_case(b"client"));
    client.filter_map(|it| list_of(&it)).collect()
}

/// Puts the items of a transaction under the condition that these keys have these versions.
///
/// # Errors
/// It is larger than a request may be.
pub fn enclose(
    items: &mut ItemList,
    versions: &[(Box<[u8]>, u64)],
    limits: &KvLimits,
) -> Result<(), Failure> {
    let conditions: Vec<Condition<'_>> = versions
        .iter()
        .map(|(key, version)| Condition::version(key, *version))
        .collect();
    items.enclose(&conditions).ok_or(TOO_LARGE)?;
    let reply_size_max = if items.is_read() {
        limits.reply_size_max
    } else {
        limits.write_reply_size_max
    };
    let fits =
        items.bytes().len() <= limits.request_size_max && items.reply_size() <= reply_size_max;
    if fits { Ok(()) } else { Err(TOO_LARGE) }
}

/// What the commands of a transaction come to: replies, or what makes them of the results of items, which are added. Nothing
/// is set yet: whether the transaction will be executed is not known.
///
/// # Errors
/// It must be discarded.
pub fn compose(
    caller: &Caller,
    shared: &mut Shared,
    transaction: &Transaction,
    mut prediction: Option<&mut Prediction>,
    all: &mut ItemList,
) -> Result<Executed, Failure> {
    let mut caller = Caller {
        number: caller.number,
        last: caller.last,
        ..Caller::default()
    }
    .with(&caller.settings());
    let mut lists = transaction.lists.iter();
    let mut parts = Vec::with_capacity(transaction.len());
    for arguments in transaction.commands() {
        let spec = find(&arguments[0]).expect("it was found when it was kept");
        let mut items = ItemList::new();
        let mut reply = Vec::new();
        let before = caller.protocol;
        let mut inner = Context {
            spec,
            caller: &mut caller,
            replies: Replies::new(&mut reply, before),
            items: &mut items,
            shared: &mut *shared,
            in_transaction: true,
            prediction: prediction.as_deref_mut(),
            is_large: false,
        };
        let part = match (spec.run)(&mut inner, &arguments) {
            Ok(Then::Items(finish)) => {
                if let Some(prediction) = prediction.as_deref_mut() {
                    prediction.apply(&items);
                }
                all.extend(&items);
                // Not only at the end: a short command may come to many items.
                if all.bytes().len() > shared.limits.request_size_max {
                    return Err(TOO_LARGE);
                }
                Part::Items(finish, items.count(), before)
            }
            Ok(Then::Replied) => Part::Reply(reply),
            Err(failure) => {
                failure.write(&mut Replies::new(&mut reply, before));
                Part::Reply(reply)
            }
            Ok(Then::Clients(_)) => {
                let mut replies = Replies::new(&mut reply, before);
                match lists.next() {
                    Some(list) => replies.verbatim(list.as_bytes()),
                    None => TOO_MANY_LISTS.write(&mut replies),
                }
                Part::Reply(reply)
            }
            Ok(Then::Close | Then::Lists(_) | Then::Steps(_)) => {
                unreachable!("{} is not kept for a transaction", spec.name)
            }
        };
        parts.push(part);
        if let Some(failure) = prediction.as_deref().and_then(Prediction::failure) {
            return Err(failure);
        }
    }
    let settings = caller.settings();
    Ok(Executed { parts, settings })
}
