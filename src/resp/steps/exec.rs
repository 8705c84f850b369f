//! EXEC of a transaction with commands whose items depend on what the commands before them leave. Reads the keys they need,
//! foretells, and executes everything as one transaction of the machine, if none of these keys has changed since.

use super::{Step, again, results};
use crate::client::{Kind, ReplyRef};
use crate::resp::caller::{Caller, Transaction, WATCHED_MAX};
use crate::resp::command::{Failure, compose, enclose, find};
use crate::resp::finish::{Executed, Finish, Surroundings, Trouble};
use crate::resp::items::ItemList;
use crate::resp::prediction::Prediction;
use crate::resp::reply::Replies;
use crate::resp::shared::Shared;
use crate::state_machine::kv::model::{Collection, Versioned};
use crate::state_machine::kv::wire::{Item, Operation, Results, Status};
use std::collections::BTreeSet;

const TOO_LARGE: Failure = Failure::new(
    "EXECABORT Transaction discarded because the values that MSETNX or INCRBYFLOAT needs are too large.",
);

/// A key, and its version when it was looked at.
type Seen = (Box<[u8]>, u64);

/// A transaction on its way.
#[derive(Debug)]
pub struct Exec {
    transaction: Transaction,
    watched: Vec<Seen>,
    /// Those of which the state must be known.
    keys: Vec<Box<[u8]>>,
    state: Executing,
    tries: u32,
}

#[derive(Debug)]
enum Executing {
    /// Reads the keys.
    Reading,
    /// Executes this.
    Writing(ItemList, Finish),
    /// A condition did not hold: looks whether that was WATCH's.
    Looking,
}

impl Exec {
    /// Of these commands, if no watched key has changed.
    ///
    /// # Errors
    /// There are too many keys.
    pub fn new(transaction: Transaction, watched: Vec<Seen>) -> Result<Self, Failure> {
        const TOO_MANY: Failure = Failure::new(
            "EXECABORT Transaction discarded because MSETNX and INCRBYFLOAT use too many keys.",
        );
        let keys = needed(&transaction);
        if keys.len() > WATCHED_MAX {
            return Err(TOO_MANY);
        }
        Ok(Self {
            transaction,
            watched,
            keys: keys.into_iter().collect(),
            state: Executing::Reading,
            tries: 0,
        })
    }

    pub(super) fn memory(&self) -> usize {
        let keys = 64 * (self.keys.len() + self.watched.len());
        let items = match &self.state {
            Executing::Writing(items, _) => 2 * items.bytes().len(),
            _ => 0,
        };
        self.transaction.memory() + keys + items
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        match &self.state {
            Executing::Reading => {
                for key in &self.keys {
                    let size_max = u32::MAX;
                    Item::Stat { key }.encode(body);
                    Item::Get { key, size_max }.encode(body);
                }
            }
            Executing::Writing(items, _) => {
                body.extend_from_slice(items.bytes());
                if !items.is_read() {
                    return (Kind::Write, Operation::Batch);
                }
            }
            Executing::Looking => {
                for (key, _) in &self.watched {
                    Item::Stat { key }.encode(body);
                }
            }
        }
        (Kind::Read, Operation::Batch)
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        caller: &mut Caller,
        shared: &mut Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        match std::mem::replace(&mut self.state, Executing::Reading) {
            Executing::Reading => {
                let results = results(reply, 2 * self.keys.len())?;
                match self.foretell(reply.timestamp, results, caller, shared)? {
                    Ok((items, executed)) => {
                        self.state = Executing::Writing(items, Finish::Executed(executed));
                        return Some(Step::Ask);
                    }
                    Err(failure) => failure.write(replies),
                }
            }
            Executing::Writing(_, finish) => {
                let mut results = results(reply, 1)?;
                if { results }.next()?.status == Status::Failed {
                    if self.watched.is_empty() {
                        return Some(again(&mut self.tries, replies));
                    }
                    self.state = Executing::Looking;
                    return Some(Step::Ask);
                }
                let wall_ms = Shared::now().as_millis() as u64;
                let mut around = Surroundings {
                    caller,
                    now_ms: (reply.timestamp / 1_000_000).max(wall_ms),
                    in_transaction: true,
                };
                let from = replies.size();
                let finished = finish.write(&mut results, &mut around, replies);
                if let Err(Trouble::TooLarge(_) | Trouble::Malformed) = finished {
                    replies.truncate(from);
                    return None;
                }
            }
            Executing::Looking => {
                let mut results = results(reply, self.watched.len())?;
                let same =
                    |(_, version): &Seen| results.next().is_some_and(|it| it.version == *version);
                if self.watched.iter().all(same) {
                    return Some(again(&mut self.tries, replies));
                }
                replies.null_array();
            }
        }
        Some(Step::Done)
    }

    /// The transaction of the machine, on the condition that the keys are as they were read.
    fn foretell(
        &self,
        timestamp: u64,
        mut results: Results<'_>,
        caller: &Caller,
        shared: &mut Shared,
    ) -> Option<Result<(ItemList, Executed), Failure>> {
        let wall_ms = Shared::now().as_millis() as u64;
        let mut prediction = Prediction::new(timestamp, wall_ms, &shared.limits);
        let mut conditions = self.watched.clone();
        for key in &self.keys {
            let (stat, value) = (results.next()?, results.next()?);
            let found = match value.status {
                Status::NotFound => None,
                Status::Value => Some(Versioned {
                    version: value.version,
                    expiry_ms: Some(stat.expiry_ms).filter(|&time| time != 0),
                    value: value.value.to_vec(),
                    collection: None,
                }),
                // What matters of it is that it is there, and not bytes: its members are not foretold.
                Status::WrongType => Some(Versioned {
                    version: stat.version,
                    expiry_ms: Some(stat.expiry_ms).filter(|&time| time != 0),
                    value: Vec::new(),
                    collection: Some(Collection::new(stat.kind)),
                }),
                Status::TooLarge => return Some(Err(TOO_LARGE)),
                _ => return None,
            };
            conditions.push((key.clone(), found.as_ref().map_or(0, |it| it.version)));
            prediction.insert(key, found);
        }
        let mut items = ItemList::new();
        let transaction = &self.transaction;
        let composed = compose(
            caller,
            shared,
            transaction,
            Some(&mut prediction),
            &mut items,
        );
        Some(composed.and_then(|executed| {
            enclose(&mut items, &conditions, &shared.limits)?;
            Ok((items, executed))
        }))
    }
}

/// The keys whose state decides what is done: those of the commands in question, and those from which they may be renamed.
fn needed(transaction: &Transaction) -> BTreeSet<Box<[u8]>> {
    let mut keys: BTreeSet<Box<[u8]>> = BTreeSet::new();
    let commands: Vec<_> = transaction.commands().collect();
    for arguments in commands.iter().rev() {
        let spec = find(&arguments[0]).expect("it was found when it was kept");
        let is_rename = matches!(spec.name, "rename" | "renamenx");
        let named = || spec.key_positions(arguments.len()).map(|at| &arguments[at]);
        if spec.is_predicted || is_rename && named().any(|key| keys.contains(key)) {
            keys.extend(named().map(Into::into));
        }
    }
    keys
}
