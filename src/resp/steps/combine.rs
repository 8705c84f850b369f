//! Large sets put together: each is read part by part, until a look at all versions shows that all were like that at the same
//! time.

use super::{Part, Reader, Step, Way, again, results, walk};
use crate::client::{Kind, ReplyRef};
use crate::resp::command::WRONG_TYPE;
use crate::resp::finish::Combination;
use crate::resp::reply::Replies;
use crate::resp::shared::Shared;
use crate::state_machine::kv::wire::{Item, Operation};

/// Reads sets, and replies with what they come to.
#[derive(Debug)]
pub struct Combine {
    combination: Combination,
    sets: Vec<Reader>,
    /// The set that is being read; as many as there are sets: the versions are looked at.
    at: usize,
    tries: u32,
}

impl Combine {
    /// Of these keys, which are read this way.
    pub fn new<'a>(
        combination: Combination,
        keys: impl Iterator<Item = &'a [u8]>,
        way: Way,
    ) -> Self {
        Self {
            combination,
            sets: keys.map(|key| Reader::new(key, way)).collect(),
            at: 0,
            tries: 0,
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.sets.iter().map(Reader::memory).sum()
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        match self.sets.get(self.at) {
            Some(set) => set.item().encode(body),
            None => {
                for set in &self.sets {
                    Item::Stat { key: set.key() }.encode(body);
                }
            }
        }
        (Kind::Read, Operation::Batch)
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        shared: &Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let size_max = shared.output_size_max.saturating_sub(self.memory());
        if let Some(set) = self.sets.get_mut(self.at) {
            let result = results(reply, 1)?.next()?;
            // What it has read is in the memory that all have.
            let size_max = size_max + set.strings().memory();
            match set.take(&result, size_max)? {
                Part::More => {}
                Part::Last => self.at += 1,
                Part::Changed => return Some(again(&mut self.tries, replies)),
                Part::WrongType => {
                    WRONG_TYPE.write(replies);
                    return Some(Step::Done);
                }
                Part::TooMuch | Part::TooFar => {
                    walk::TOO_MUCH.write(replies);
                    return Some(Step::Done);
                }
            }
            return Some(Step::Ask);
        }
        let mut versions = results(reply, self.sets.len())?.zip(&self.sets);
        // A key that is absent has version zero.
        if !versions.all(|(result, set)| result.version == set.version()) {
            self.sets.iter_mut().for_each(Reader::begin_anew);
            self.at = 0;
            return Some(again(&mut self.tries, replies));
        }
        let mut sets = self.sets.iter().map(|set| set.strings().iter().collect());
        let first: Vec<&[u8]> = sets.next().unwrap_or_default();
        let all = sets.fold(first, |so_far, set: Vec<&[u8]>| {
            self.combination.add(so_far, &set)
        });
        self.combination.write(&all, replies);
        Some(Step::Done)
    }
}
