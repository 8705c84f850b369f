//! Ranges of a sorted set: how they are read on, and how what they have is taken out.

use super::{Part, Reader, Step, Strings, Way, again, out_of_space, results, walk};
use crate::client::{Kind, ReplyRef};
use crate::resp::command::{Failure, WRONG_TYPE};
use crate::resp::finish::{Shape, TOO_FAR};
use crate::resp::reply::Replies;
use crate::resp::score::told;
use crate::resp::shared::Shared;
use crate::state_machine::kv::wire::{
    Action, Condition, Item, Operation, Score, Status, TransactionBytes, ValueKind, places_of,
};
use std::ops::Bound;

/// A range of a sorted set; what is read are members and scores by turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Range {
    /// By places, the last one included.
    Places(i64, i64),
    /// By scores.
    Scores {
        /// The least.
        from: Bound<Score>,
        /// The greatest.
        to: Bound<Score>,
        /// How many are passed over.
        offset: u32,
        /// Most members.
        count: u32,
    },
}

/// The score that the last members have which were read, and how many of them have it.
fn last_of(strings: &Strings) -> Option<(Score, usize)> {
    let pairs = strings.len() / 2;
    let score = |pair: usize| strings.get(2 * pair + 1);
    let last = score(pairs.checked_sub(1)?)?;
    let same = (0..pairs).rev().take_while(|&it| score(it) == Some(last));
    Some((told(last)?, same.count()))
}

fn clamped(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Range {
    /// What reads the next part, behind these strings, of a set of this length if it is known. Members that were read are
    /// passed over by their scores: a place in the middle of a large set is nowhere stored.
    pub(super) fn action(
        self,
        reverse: bool,
        strings: &Strings,
        length: Option<u64>,
    ) -> Action<'static> {
        let read = (strings.len() / 2) as u64;
        let last = last_of(strings).filter(|&(_, same)| (same as u64) < read);
        let behind = |from, to, offset, count_max| {
            let (from, to, offset) = match last {
                Some((score, same)) if reverse => (from, Bound::Included(score), same as u64),
                Some((score, same)) => (Bound::Included(score), to, same as u64),
                None => (from, to, offset),
            };
            Action::ByScore {
                from,
                to,
                reverse,
                offset: clamped(offset),
                count_max,
                size_max: u32::MAX,
            }
        };
        match self {
            Self::Places(start, stop) => {
                let places = length.and_then(|length| places_of(start, stop, length));
                let (start, stop) = match places {
                    Some((first, stop)) if last.is_some() => {
                        let wanted = clamped((stop + 1 - first).saturating_sub(read));
                        return behind(Bound::Unbounded, Bound::Unbounded, 0, wanted);
                    }
                    Some((first, stop)) => ((first + read).cast_signed(), stop.cast_signed()),
                    None => (start, stop),
                };
                Action::ByRank {
                    start,
                    stop,
                    reverse,
                    size_max: u32::MAX,
                }
            }
            Self::Scores {
                from,
                to,
                offset,
                count,
            } => {
                let left = count.saturating_sub(clamped(read));
                let left = if count == u32::MAX { count } else { left };
                behind(from, to, u64::from(offset) + read, left)
            }
        }
    }
}

/// Most members that one command removes from a sorted set, but for all of them.
const REMOVE_MAX: usize = 128;

const TOO_MANY: Failure =
    Failure::new("ERR at most 128 members can be removed at once, or all of them");

/// What the reply to a removal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removed {
    /// The members.
    Members(Shape),
    /// How many there were.
    Count,
}

/// Reads a range, and removes what it has if nothing has changed since: ZPOPMIN with a count, ZREMRANGEBYSCORE.
#[derive(Debug)]
pub struct Removal {
    reader: Reader,
    answer: Removed,
    /// All is read, and to be removed.
    is_read: bool,
    tries: u32,
}

impl Removal {
    /// Of this range of a key.
    pub fn new(key: &[u8], range: Range, reverse: bool, answer: Removed) -> Self {
        Self {
            reader: Reader::new(key, Way::Ranked { range, reverse }),
            answer,
            is_read: false,
            tries: 0,
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.reader.memory()
    }

    fn is_all(&self) -> bool {
        let count = self.reader.strings().len() / 2;
        self.reader.length() == Some(count as u64)
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        if !self.is_read {
            self.reader.item().encode(body);
            return (Kind::Read, Operation::Batch);
        }
        let key = self.reader.key();
        let condition = Condition::version(key, self.reader.version());
        let remove = |member| Item::Collection {
            key,
            action: Action::Remove {
                kind: ValueKind::Sorted,
                member,
            },
        };
        let items: Vec<Item<'_>> = if self.is_all() {
            vec![Item::Delete { key }]
        } else {
            self.reader
                .strings()
                .iter()
                .step_by(2)
                .map(remove)
                .collect()
        };
        let transaction = TransactionBytes::new(&[condition], &items, &[]);
        body.extend_from_slice(transaction.expect("not too many").as_bytes());
        (Kind::Write, Operation::Batch)
    }

    fn write(&self, replies: &mut Replies<'_>) {
        let strings = self.reader.strings();
        match self.answer {
            Removed::Members(shape) => shape.write(strings.iter(), replies),
            Removed::Count => {
                let count = i64::try_from(strings.len() / 2);
                replies.integer(count.expect("memory has fewer"));
            }
        }
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        shared: &Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let result = results(reply, 1)?.next()?;
        if self.is_read {
            match result.status {
                Status::Succeeded => match { result.results }.next()?.status {
                    Status::OutOfSpace => out_of_space(replies),
                    _ => self.write(replies),
                },
                Status::OutOfSpace => out_of_space(replies),
                Status::Failed => {
                    self.is_read = false;
                    self.reader.begin_anew();
                    return Some(again(&mut self.tries, replies));
                }
                _ => return None,
            }
            return Some(Step::Done);
        }
        match self.reader.take(&result, shared.output_size_max)? {
            Part::More => return Some(Step::Ask),
            Part::Changed => return Some(again(&mut self.tries, replies)),
            Part::Last if self.reader.strings().is_empty() => self.write(replies),
            Part::Last if self.is_all() || self.reader.strings().len() <= 2 * REMOVE_MAX => {
                self.is_read = true;
                return Some(Step::Ask);
            }
            Part::Last => TOO_MANY.write(replies),
            Part::TooFar => TOO_FAR.write(replies),
            Part::WrongType => WRONG_TYPE.write(replies),
            Part::TooMuch => walk::TOO_MUCH.write(replies),
        }
        Some(Step::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::steps::walk::tests::part;
    use crate::state_machine::kv::model::{Collection, Model, Versioned};
    use crate::state_machine::kv::wire::RANK_MAX;

    /// A set of so many members, `same` of each score.
    fn model(count: u64, same: u64) -> Model {
        let score = |number: u64| Score::new((number / same) as f64).expect("a number");
        let members = (0..count).map(|it| (it.to_be_bytes().to_vec(), score(it)));
        let mut model = Model::new();
        let key = Versioned {
            version: 1,
            expiry_ms: None,
            value: vec![],
            collection: Some(Collection::Sorted(members.collect())),
        };
        model.map.insert(b"k".to_vec(), key);
        model
    }

    /// All that a range has, read in parts.
    fn read(model: &mut Model, range: Range, reverse: bool) -> (Part, Vec<u64>) {
        let mut reader = Reader::new(b"k", Way::Ranked { range, reverse });
        let mut last = Part::More;
        while last == Part::More {
            last = part(&mut reader, model);
        }
        let members = reader.strings().iter().step_by(2);
        let number = |it: &[u8]| u64::from_be_bytes(it.try_into().expect("8 bytes"));
        (last, members.map(number).collect())
    }

    #[test]
    fn parts_of_a_range_make_the_whole() {
        for same in [1, 3, 7, 30, 100] {
            let mut model = model(100, same);
            for (start, stop) in [(0, -1), (-40, -2), (5, 77), (-1000, 60), (90, 80), (3, 3)] {
                for reverse in [false, true] {
                    let found = read(&mut model, Range::Places(start, stop), reverse);
                    let expected = places_of(start, stop, 100).map(|(first, last)| first..=last);
                    let expected = expected.into_iter().flatten();
                    let place = |it| if reverse { 99 - it } else { it };
                    assert_eq!(found, (Part::Last, expected.map(place).collect()));
                }
            }
            let bound = |number: f64| Bound::Excluded(Score::new(number).expect("a number"));
            for (offset, count) in [(0, u32::MAX), (2, 40), (50, 1), (200, 5), (0, 0)] {
                for reverse in [false, true] {
                    let range = Range::Scores {
                        from: bound(-1.0),
                        to: bound(1.0),
                        offset,
                        count,
                    };
                    let found = read(&mut model, range, reverse);
                    let inside = (0..100).filter(|it| it / same == 0);
                    let inside: Vec<u64> = if reverse {
                        inside.rev().collect()
                    } else {
                        inside.collect()
                    };
                    let inside = inside.into_iter().skip(offset as usize);
                    let expected = inside.take(count as usize).collect();
                    assert_eq!(found, (Part::Last, expected), "{range:?} {same} {reverse}");
                }
            }
        }
    }

    #[test]
    fn what_is_too_far_from_both_ends_is_said_so() {
        let far = RANK_MAX.cast_signed();
        let mut model = model(2 * RANK_MAX + 3, 5);
        let range = Range::Places(far + 1, far + 2);
        assert_eq!(read(&mut model, range, false).0, Part::TooFar);
        let range = Range::Places(far, far + 40);
        let (last, found) = read(&mut model, range, true);
        assert_eq!((last, found.len()), (Part::Last, 41));
    }
}
