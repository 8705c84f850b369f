//! HMGET of large values: read part by part, all parts of one version of the key.

use super::{Part, Step, Strings, again, results, walk};
use crate::client::{Kind, ReplyRef};
use crate::resp::command::WRONG_TYPE;
use crate::resp::reply::Replies;
use crate::resp::shared::Shared;
use crate::state_machine::kv::wire::{Action, Item, Operation, Results, Status, ValueKind};

/// Fields asked for in one request: with the key they are well below a message.
const FIELDS_AT_ONCE: usize = 32;

/// Reads the values of some fields, or the scores of some members.
#[derive(Debug)]
pub(super) struct Finder {
    key: Box<[u8]>,
    kind: ValueKind,
    fields: Strings,
    /// The version of the first part; zero: there is no such key.
    version: Option<u64>,
    found: Vec<Option<Vec<u8>>>,
    size: usize,
}

impl Finder {
    pub fn new(key: &[u8], kind: ValueKind, fields: Strings) -> Self {
        Self {
            key: key.into(),
            kind,
            fields,
            version: None,
            found: Vec::new(),
            size: 0,
        }
    }

    pub fn memory(&self) -> usize {
        self.size + self.fields.memory() + self.found.capacity() * size_of::<Option<Vec<u8>>>()
    }

    /// The version that was read; zero if there is no such key.
    pub fn version(&self) -> u64 {
        self.version.unwrap_or(0)
    }

    /// The fields that were asked for.
    pub fn fields(&self) -> &Strings {
        &self.fields
    }

    /// A value for each field; none if there is no such field.
    pub fn found(&self) -> &[Option<Vec<u8>>] {
        &self.found
    }

    /// Fields of the next request.
    fn count(&self) -> usize {
        (self.fields.len() - self.found.len()).min(FIELDS_AT_ONCE)
    }

    /// Results to the next request.
    pub fn results(&self) -> usize {
        1 + self.count()
    }

    pub fn ask(&self, body: &mut Vec<u8>) {
        let key = &self.key;
        Item::Stat { key }.encode(body);
        for member in self.fields.iter().skip(self.found.len()).take(self.count()) {
            let action = Action::Find {
                kind: self.kind,
                member,
                size_max: u32::MAX,
            };
            Item::Collection { key, action }.encode(body);
        }
    }

    /// Takes the results; none if they are not those.
    pub fn take(&mut self, mut results: Results<'_>, size_max: usize) -> Option<Part> {
        let stat = results.next()?;
        let version = match stat.status {
            Status::Stat if stat.kind != self.kind => return Some(Part::WrongType),
            Status::Stat => stat.version,
            Status::NotFound => 0,
            _ => return None,
        };
        if *self.version.get_or_insert(version) != version {
            (self.version, self.found, self.size) = (None, Vec::new(), 0);
            return Some(Part::Changed);
        }
        let before = self.found.len();
        for result in results {
            match result.status {
                Status::Value => {
                    self.size += result.value.len();
                    self.found.push(Some(result.value.to_vec()));
                }
                Status::NotFound => self.found.push(None),
                // And those behind it: next time.
                Status::TooLarge => break,
                _ => return None,
            }
        }
        if self.memory() > size_max {
            return Some(Part::TooMuch);
        }
        if self.found.len() == self.fields.len() {
            return Some(Part::Last);
        }
        // At least the first has room.
        (self.found.len() > before).then_some(Part::More)
    }
}

/// Reads the values of some fields, and replies with them.
#[derive(Debug)]
pub struct Fields {
    finder: Finder,
    tries: u32,
}

impl Fields {
    /// These fields of this key.
    pub fn new<'a>(key: &[u8], fields: impl Iterator<Item = &'a [u8]>) -> Self {
        Self {
            finder: Finder::new(key, ValueKind::Hash, fields.collect()),
            tries: 0,
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.finder.memory()
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        self.finder.ask(body);
        (Kind::Read, Operation::Batch)
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        shared: &Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let results = results(reply, self.finder.results())?;
        match self.finder.take(results, shared.output_size_max)? {
            Part::More => return Some(Step::Ask),
            Part::Changed => return Some(again(&mut self.tries, replies)),
            Part::Last => {
                replies.array(self.finder.found().len());
                for value in self.finder.found() {
                    match value {
                        Some(value) => replies.bulk(value),
                        None => replies.null(),
                    }
                }
            }
            Part::WrongType => WRONG_TYPE.write(replies),
            Part::TooMuch | Part::TooFar => walk::TOO_MUCH.write(replies),
        }
        Some(Step::Done)
    }
}
