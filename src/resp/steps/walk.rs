//! Whole collections that are too large for one reply: read part by part, all parts of one version of the key.

use super::{Range, Step, again, results};
use crate::client::{Kind, ReplyRef};
use crate::resp::command::{Failure, WRONG_TYPE};
use crate::resp::finish::{Shape, TOO_FAR};
use crate::resp::reply::Replies;
use crate::resp::shared::Shared;
use crate::state_machine::kv::wire::{Action, Item, ItemReply, Operation, Status, ValueKind};
use std::ops::Bound;

/// The error of [`Part::TooMuch`].
pub(super) const TOO_MUCH: Failure = Failure::new("ERR the collection is too large for one reply");

/// Byte strings, one behind the other.
#[derive(Debug, Default)]
pub struct Strings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Strings {
    /// Adds one.
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let &end = self.ends.get(index)?;
        let from = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[from..end])
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index).unwrap_or(&[]))
    }

    /// The memory that they take, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.capacity() + size_of::<usize>() * self.ends.capacity()
    }
}

impl<'a> FromIterator<&'a [u8]> for Strings {
    fn from_iter<T: IntoIterator<Item = &'a [u8]>>(strings: T) -> Self {
        let mut all = Self::default();
        for string in strings {
            all.push(string);
        }
        all
    }
}

/// How a collection is walked through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Members in the order of their bytes, each with its value or without.
    Members {
        /// Of which kind the key must be.
        kind: ValueKind,
        /// With values.
        values: bool,
    },
    /// Members of a sorted set with their scores.
    Ranked {
        /// Which ones.
        range: Range,
        /// Whether the greatest comes first.
        reverse: bool,
    },
}

impl Way {
    /// What reads the first part.
    pub fn first(&self) -> Action<'static> {
        match *self {
            Self::Members { kind, values } => members(kind, values, None),
            Self::Ranked { range, reverse } => range.action(reverse, &Strings::default(), None),
        }
    }

    /// What reads the part behind these strings, of a collection of this length if it is known.
    fn next<'a>(&self, strings: &'a Strings, length: Option<u64>) -> Action<'a> {
        match *self {
            Self::Members { kind, values } => {
                let last = strings.len().checked_sub(1 + usize::from(values));
                members(kind, values, last.and_then(|at| strings.get(at)))
            }
            Self::Ranked { range, reverse } => range.action(reverse, strings, length),
        }
    }
}

/// All members behind one.
fn members(kind: ValueKind, values: bool, last: Option<&[u8]>) -> Action<'_> {
    Action::Members {
        kind,
        from: last.map_or(Bound::Unbounded, Bound::Excluded),
        count_max: u32::MAX,
        values,
        size_max: u32::MAX,
    }
}

/// What became of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// There are others.
    More,
    /// It was the last.
    Last,
    /// The key has changed: what was read is forgotten.
    Changed,
    /// The key holds something else.
    WrongType,
    /// It lies too far from both ends of a sorted set.
    TooFar,
    /// It is more than may be held.
    TooMuch,
}

/// Reads a collection.
#[derive(Debug)]
pub struct Reader {
    key: Box<[u8]>,
    way: Way,
    /// The version of the first part; zero: there is no such key.
    version: Option<u64>,
    strings: Strings,
    /// Whether the first request asks for the length.
    with_length: bool,
    length: Option<u64>,
}

impl Reader {
    /// Of this key, this way.
    pub fn new(key: &[u8], way: Way) -> Self {
        Self {
            key: key.into(),
            way,
            version: None,
            strings: Strings::default(),
            // Places may count from the end.
            with_length: matches!(way, Way::Ranked { .. }),
            length: None,
        }
    }

    /// The length of the collection, if it was asked for and there is one.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The version that was read; zero if there is no such key.
    pub fn version(&self) -> u64 {
        self.version.unwrap_or(0)
    }

    /// What was read.
    pub fn strings(&self) -> &Strings {
        &self.strings
    }

    /// The memory that it holds, in bytes.
    pub fn memory(&self) -> usize {
        self.key.len() + self.strings.memory()
    }

    /// Forgets what was read.
    pub fn begin_anew(&mut self) {
        (self.version, self.length) = (None, None);
        self.strings = Strings::default();
    }

    /// The item that reads the next part.
    pub fn item(&self) -> Item<'_> {
        let key = &self.key;
        if self.with_length && self.length.is_none() {
            return Item::Stat { key };
        }
        let action = self.way.next(&self.strings, self.length);
        Item::Collection { key, action }
    }

    /// Takes its result; none if it is not one.
    pub fn take(&mut self, result: &ItemReply<'_>, size_max: usize) -> Option<Part> {
        let version = match result.status {
            Status::Members => result.version,
            Status::Stat if self.length.is_none() => {
                self.length = Some(u64::from(result.value_size));
                self.version = Some(result.version);
                // If it holds something else, that is said next.
                return Some(Part::More);
            }
            Status::NotFound => 0,
            Status::WrongType => return Some(Part::WrongType),
            Status::TooLarge => return Some(Part::TooFar),
            _ => return None,
        };
        if *self.version.get_or_insert(version) != version {
            self.begin_anew();
            return Some(Part::Changed);
        }
        for string in result.members {
            self.strings.push(string);
        }
        if self.strings.memory() > size_max {
            return Some(Part::TooMuch);
        }
        if !result.more {
            return Some(Part::Last);
        }
        // At least one has room.
        (!result.members.is_empty()).then_some(Part::More)
    }
}

/// Reads a collection, and replies with all of it.
#[derive(Debug)]
pub struct Walk {
    reader: Reader,
    shape: Shape,
    tries: u32,
}

impl Walk {
    /// All that there is, this way, in this shape.
    pub fn new(key: &[u8], way: Way, shape: Shape) -> Self {
        Self {
            reader: Reader::new(key, way),
            shape,
            tries: 0,
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.reader.memory()
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        self.reader.item().encode(body);
        (Kind::Read, Operation::Batch)
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        shared: &Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let result = results(reply, 1)?.next()?;
        match self.reader.take(&result, shared.output_size_max)? {
            Part::More => return Some(Step::Ask),
            Part::Changed => return Some(again(&mut self.tries, replies)),
            Part::Last => self.shape.write(self.reader.strings().iter(), replies),
            Part::WrongType => WRONG_TYPE.write(replies),
            Part::TooMuch => TOO_MUCH.write(replies),
            Part::TooFar => TOO_FAR.write(replies),
        }
        Some(Step::Done)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::state_machine::kv::model::Model;
    use crate::state_machine::kv::wire::BatchReply;
    use crate::state_machine::{Limits, kv};

    /// The model behind a reader, with small replies.
    fn apply(model: &mut Model, item: &Item<'_>, size_max: usize) -> Vec<u8> {
        let limits = Limits {
            request_size_max: 1 << 16,
            reply_size_max: size_max,
            read_reply_size_max: size_max,
            page_count: u32::MAX,
            pages_touched_max: u32::MAX,
        };
        let mut body = Vec::new();
        item.encode(&mut body);
        let operation = kv::wire::Operation::Batch as u8;
        model
            .apply(&limits, 1_000_000, operation, &body)
            .expect("it is valid")
    }

    fn insert(model: &mut Model, member: &[u8]) {
        let action = Action::Insert {
            kind: ValueKind::Hash,
            member,
            value: b"value",
            if_absent: false,
        };
        apply(model, &Item::Collection { key: b"k", action }, 4096);
    }

    /// Reads one part of a small size.
    pub fn part(reader: &mut Reader, model: &mut Model) -> Part {
        let reply = apply(model, &reader.item(), 200);
        let reply = BatchReply::decode(&reply).expect("a reply");
        let result = reply.results().next().expect("one");
        reader.take(&result, 1 << 20).expect("its result")
    }

    #[test]
    fn parts_of_one_version_make_the_whole() {
        let mut model = Model::new();
        for number in 0..100_u8 {
            insert(&mut model, &[number, b'x']);
        }
        let kind = ValueKind::Hash;
        for values in [false, true] {
            let mut reader = Reader::new(b"k", Way::Members { kind, values });
            let mut parts = 1;
            while part(&mut reader, &mut model) == Part::More {
                parts += 1;
            }
            assert!(parts > 3, "{parts}");
            let width = if values { 2 } else { 1 };
            assert_eq!(reader.strings().len(), 100 * width);
            for (number, member) in reader.strings().iter().step_by(width).enumerate() {
                assert_eq!(member, [number as u8, b'x']);
            }
        }
        // Between two parts somebody changes it: what was read is worth nothing.
        let mut reader = Reader::new(b"k", Way::Members { kind, values: true });
        assert_eq!(part(&mut reader, &mut model), Part::More);
        insert(&mut model, b"a");
        assert_eq!(part(&mut reader, &mut model), Part::Changed);
        assert!(reader.strings().is_empty());
        assert_eq!(part(&mut reader, &mut model), Part::More);
        apply(&mut model, &Item::Clear, 4096);
        assert_eq!(part(&mut reader, &mut model), Part::Changed);
        assert_eq!(part(&mut reader, &mut model), Part::Last);
        assert_eq!((reader.version(), reader.strings().len()), (0, 0));
    }
}
