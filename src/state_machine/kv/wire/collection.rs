//! Items on collections: hashes, sets, lists and sorted sets. [`super`] has the tables.

use super::item::{Item, ItemHeader};
use super::{ITEM_HEADER_SIZE, KEY_SIZE_MAX, Operation, VALUE_RESULT_SIZE};
use std::ops::Bound;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes between an item's header and its key.
pub(super) const COLLECTION_HEADER_SIZE: usize = 24;

/// Bytes of a result with members, before the first of them.
pub const MEMBERS_RESULT_SIZE: usize = 14;

/// Most elements that one trim removes, but for all of a list.
pub const TRIM_MAX: u64 = 256;

/// Most members that are passed over in one direction, or counted, to find a place in a sorted set.
pub const RANK_MAX: u64 = 65_536;

/// Most items of a request that may pass over more members than [`WALK_MIN`]: of the longest members each may take milliseconds.
pub const WALKS_MAX: usize = 128;

/// Members that anything may pass over.
pub const WALK_MIN: u64 = 256;

/// What a key holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
#[repr(u8)]
pub enum ValueKind {
    /// A byte string.
    #[default]
    Bytes = 0,
    /// Fields, each with a value; ordered by the field's bytes.
    Hash = 1,
    /// Members, ordered by their bytes.
    Set = 2,
    /// Elements in the order that they were given.
    List = 3,
    /// Members with a score each; ordered by score, then by bytes.
    Sorted = 4,
}

impl ValueKind {
    /// The kind of this number, if there is one.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Bytes,
            1 => Self::Hash,
            2 => Self::Set,
            3 => Self::List,
            4 => Self::Sorted,
            _ => return None,
        })
    }
}

/// A score: any number but NaN, kept as bits that order as the numbers do. Both zeros are the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Score(u64);

const SIGN: u64 = 1 << 63;

impl Score {
    /// None of NaN.
    pub fn new(number: f64) -> Option<Self> {
        let bits = if number == 0.0 { 0 } else { number.to_bits() };
        let ordered = if bits & SIGN == 0 { bits | SIGN } else { !bits };
        (!number.is_nan()).then_some(Self(ordered))
    }

    /// The number.
    pub fn get(self) -> f64 {
        let bits = if self.0 & SIGN == 0 {
            !self.0
        } else {
            self.0 & !SIGN
        };
        f64::from_bits(bits)
    }

    /// Bits that order as scores do.
    pub fn to_ordered(self) -> u64 {
        self.0
    }

    /// The score of such bits; none if they are not those of one.
    pub fn from_ordered(ordered: u64) -> Option<Self> {
        let number = Self(ordered).get();
        Self::new(number).filter(|score| score.0 == ordered)
    }
}

/// The places that a range means among `count`, the last one included; none if there are none. Negative: from the end.
pub fn places_of(start: i64, stop: i64, count: u64) -> Option<(u64, u64)> {
    let signed = i64::try_from(count).ok()?;
    let from_start = |at: i64| {
        if at < 0 {
            at.saturating_add(signed)
        } else {
            at
        }
    };
    let first = u64::try_from(from_start(start).max(0)).ok()?;
    let last = u64::try_from(from_start(stop).min(signed - 1)).ok()?;
    (first <= last).then_some((first, last))
}

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum End {
    /// Before its first element.
    First = 0,
    /// Behind its last.
    Last = 1,
}

/// What an [`Action::Score`] demands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScoreCondition {
    /// That the member is not there, or that it is.
    pub present: Option<bool>,
    /// That a member which is there gets a greater score, or a less one.
    pub greater: Option<bool>,
}

/// What an item does with the collection of a key. A key is absent when its collection is empty. All but reads make the key
/// if need be, and none clears its expiry. Members have at most [`KEY_SIZE_MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action<'a> {
    /// How many there are; 0 if there is no such key.
    Length {
        /// Of which kind the key must be.
        kind: ValueKind,
    },
    /// Adds a member of a set, or sets a field of a hash.
    Insert {
        /// A hash or a set.
        kind: ValueKind,
        /// The member or field.
        member: &'a [u8],
        /// The field's value; of a set, nothing.
        value: &'a [u8],
        /// Leaves a field that is there as it is.
        if_absent: bool,
    },
    /// Removes a member or field.
    Remove {
        /// Anything but a list.
        kind: ValueKind,
        /// The member or field.
        member: &'a [u8],
    },
    /// Reads the value of a field; of a set's member, nothing; of a sorted set's, its score ([`Score::to_ordered`], 8
    /// bytes).
    Find {
        /// Anything but a list.
        kind: ValueKind,
        /// The member or field.
        member: &'a [u8],
        /// Most bytes of the value.
        size_max: u32,
    },
    /// Adds to a field that is a decimal number; an absent one is 0.
    Add {
        /// The field.
        member: &'a [u8],
        /// What is added.
        delta: i64,
    },
    /// Reads members in the order of their bytes.
    Members {
        /// Anything but a list.
        kind: ValueKind,
        /// Where it begins.
        from: Bound<&'a [u8]>,
        /// Most members.
        count_max: u32,
        /// Whether each is followed by its value; of a sorted set, its score as a find has it.
        values: bool,
        /// Most bytes of the result behind its fixed part.
        size_max: u32,
    },
    /// Reads, or takes, some member.
    Pick {
        /// Anything but a list.
        kind: ValueKind,
        /// Any number, best a random one.
        seed: u64,
        /// Whether it is removed.
        take: bool,
    },
    /// Adds an element at an end of a list.
    Push {
        /// Which one.
        end: End,
        /// The element.
        value: &'a [u8],
        /// Only if there is such a key.
        if_present: bool,
    },
    /// Removes the element at an end of a list, and returns it.
    Pop {
        /// Which one.
        end: End,
        /// Most bytes of it; a longer one is not removed.
        size_max: u32,
    },
    /// Removes elements at an end of a list, and returns them, from the end on: all or none.
    Take {
        /// Which one.
        end: End,
        /// How many, from 1 to [`TRIM_MAX`]; fewer if there are fewer.
        count: u32,
        /// Most bytes of the result behind its fixed part.
        size_max: u32,
    },
    /// Moves an element from an end of a list to one of another, or of the same. It is one change of both keys.
    Move {
        /// The key of the other.
        to: &'a [u8],
        /// From where.
        from_end: End,
        /// To where.
        to_end: End,
        /// Most bytes of it, if it is to be returned; a longer one is not moved.
        size_max: Option<u32>,
    },
    /// Reads an element of a list.
    At {
        /// Its place. Negative: from the end; -1 is the last.
        index: i64,
        /// Most bytes of it.
        size_max: u32,
    },
    /// Replaces an element of a list.
    Replace {
        /// Its place, the same.
        index: i64,
        /// What is to be there.
        value: &'a [u8],
    },
    /// Reads elements of a list.
    Range {
        /// Place of the first, as of [`Self::At`].
        start: i64,
        /// Place of the last, included.
        stop: i64,
        /// Most bytes of the result behind its fixed part.
        size_max: u32,
    },
    /// Removes what is outside of a range of a list; at most [`TRIM_MAX`] elements, or all.
    Trim {
        /// Place of the first that stays.
        start: i64,
        /// Place of the last.
        stop: i64,
    },
    /// Sets the score of a member of a sorted set, or adds to it.
    Score {
        /// The member.
        member: &'a [u8],
        /// The score, or what is added to it.
        score: Score,
        /// What must hold.
        condition: ScoreCondition,
        /// Whether the score is added to what the member has (an absent one: 0), and the sum returned.
        add: bool,
    },
    /// The place of a member in a sorted set.
    Rank {
        /// The member.
        member: &'a [u8],
        /// Whether it is counted from the greatest.
        reverse: bool,
    },
    /// Reads members of a sorted set, with their scores, by their places.
    ByRank {
        /// Place of the first. Negative: from the end.
        start: i64,
        /// Place of the last, included.
        stop: i64,
        /// Whether places are counted from the greatest.
        reverse: bool,
        /// Most bytes of the result behind its fixed part.
        size_max: u32,
    },
    /// Reads members of a sorted set, with their scores, by their scores.
    ByScore {
        /// The least score.
        from: Bound<Score>,
        /// The greatest.
        to: Bound<Score>,
        /// Whether the greatest comes first.
        reverse: bool,
        /// How many are passed over.
        offset: u32,
        /// Most members.
        count_max: u32,
        /// Most bytes of the result behind its fixed part.
        size_max: u32,
    },
    /// Counts members of a sorted set by their scores.
    CountScores {
        /// The least score.
        from: Bound<Score>,
        /// The greatest.
        to: Bound<Score>,
    },
    /// Removes the member with the least or the greatest score, and returns its score (as a find has it) and it.
    PopScore {
        /// Which one.
        greatest: bool,
    },
}

/// An action as it is written: what it does not use is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Parts<'a> {
    code: u8,
    kind: u8,
    options: u8,
    size_max: u32,
    numbers: [u64; 3],
    member: &'a [u8],
    value: &'a [u8],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct CollectionHeader {
    kind: u8,
    options: u8,
    member_size: u16,
    size_max: u32,
    second: u64,
    third: u64,
}

static_assertions::const_assert_eq!(size_of::<CollectionHeader>(), COLLECTION_HEADER_SIZE);

fn bound_code<T>(bound: Bound<T>) -> (u8, Option<T>) {
    match bound {
        Bound::Unbounded => (0, None),
        Bound::Included(bound) => (1, Some(bound)),
        Bound::Excluded(bound) => (2, Some(bound)),
    }
}

fn bound_of<T>(code: u8, bound: T) -> Option<Bound<T>> {
    Some(match code {
        0 => Bound::Unbounded,
        1 => Bound::Included(bound),
        2 => Bound::Excluded(bound),
        _ => return None,
    })
}

fn score_bound(bound: Bound<Score>) -> (u8, u64) {
    let (code, score) = bound_code(bound);
    (code, score.map_or(0, Score::to_ordered))
}

fn score_bound_of(code: u8, bits: u64) -> Option<Bound<Score>> {
    if code == 0 {
        return Some(Bound::Unbounded);
    }
    bound_of(code, Score::from_ordered(bits)?)
}

fn choice(choice: Option<bool>) -> u8 {
    match choice {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    }
}

#[expect(
    clippy::option_option,
    reason = "a code may mean nothing, or that there is no choice"
)]
fn choice_of(code: u8) -> Option<Option<bool>> {
    Some(match code {
        0 => None,
        1 => Some(false),
        2 => Some(true),
        _ => return None,
    })
}

fn end_of(options: u8) -> End {
    if options & 1 == 0 {
        End::First
    } else {
        End::Last
    }
}

impl<'a> Action<'a> {
    /// Of which kind the key must be.
    pub fn kind(&self) -> ValueKind {
        match *self {
            Self::Length { kind }
            | Self::Insert { kind, .. }
            | Self::Remove { kind, .. }
            | Self::Find { kind, .. }
            | Self::Members { kind, .. }
            | Self::Pick { kind, .. } => kind,
            Self::Add { .. } => ValueKind::Hash,
            Self::Push { .. }
            | Self::Pop { .. }
            | Self::Take { .. }
            | Self::Move { .. }
            | Self::At { .. }
            | Self::Replace { .. }
            | Self::Range { .. }
            | Self::Trim { .. } => ValueKind::List,
            Self::Score { .. }
            | Self::Rank { .. }
            | Self::ByRank { .. }
            | Self::ByScore { .. }
            | Self::CountScores { .. }
            | Self::PopScore { .. } => ValueKind::Sorted,
        }
    }

    /// The member or field that it is about; of a move the other key.
    pub fn member(&self) -> &'a [u8] {
        self.parts().member
    }

    /// The value or element that it would store.
    pub fn value(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Insert { value, .. } | Self::Push { value, .. } | Self::Replace { value, .. } => {
                Some(value)
            }
            _ => None,
        }
    }

    /// Whether it changes nothing, whatever the state.
    pub fn is_read(&self) -> bool {
        match *self {
            Self::Pick { take, .. } => !take,
            Self::Length { .. }
            | Self::Find { .. }
            | Self::Members { .. }
            | Self::At { .. }
            | Self::Range { .. }
            | Self::Rank { .. }
            | Self::ByRank { .. }
            | Self::ByScore { .. }
            | Self::CountScores { .. } => true,
            _ => false,
        }
    }

    /// Whether it may pass over more members than [`WALK_MIN`] which are not in its result.
    pub(super) fn is_walk(&self) -> bool {
        match *self {
            Self::Rank { .. } | Self::CountScores { .. } => true,
            // From the end that the place is counted from, or from one that is nearer.
            Self::ByRank { start, .. } => start.unsigned_abs() > WALK_MIN,
            Self::ByScore { offset, .. } => u64::from(offset) > WALK_MIN,
            _ => false,
        }
    }

    /// Most bytes of its result, what [`Self::result_value_size`] counts apart.
    pub(super) fn result_size(&self) -> usize {
        match self {
            // A number, or that it is too large.
            Self::Find { .. }
            | Self::Pop { .. }
            | Self::Move {
                size_max: Some(_), ..
            }
            | Self::At { .. }
            | Self::Trim { .. }
            | Self::Rank { .. }
            | Self::CountScores { .. } => VALUE_RESULT_SIZE,
            Self::Pick { .. } => VALUE_RESULT_SIZE + KEY_SIZE_MAX,
            Self::PopScore { .. } => VALUE_RESULT_SIZE + size_of::<u64>() + KEY_SIZE_MAX,
            Self::Score { add: true, .. } => VALUE_RESULT_SIZE + size_of::<u64>(),
            Self::Members { .. }
            | Self::Take { .. }
            | Self::Range { .. }
            | Self::ByRank { .. }
            | Self::ByScore { .. } => MEMBERS_RESULT_SIZE,
            _ => 9,
        }
    }

    /// Most bytes of values and members that its result may hold, if they fit.
    pub(super) fn result_value_size(&self) -> u64 {
        match *self {
            Self::Find { size_max, .. }
            | Self::Pop { size_max, .. }
            | Self::Take { size_max, .. }
            | Self::At { size_max, .. }
            | Self::Members { size_max, .. }
            | Self::Range { size_max, .. }
            | Self::ByRank { size_max, .. }
            | Self::ByScore { size_max, .. } => u64::from(size_max),
            Self::Move { size_max, .. } => u64::from(size_max.unwrap_or(0)),
            _ => 0,
        }
    }

    fn parts(&self) -> Parts<'a> {
        let mut parts = Parts {
            code: 0,
            kind: 0,
            options: 0,
            size_max: 0,
            numbers: [0; 3],
            member: &[],
            value: &[],
        };
        match *self {
            Self::Length { kind } => (parts.code, parts.kind) = (1, kind as u8),
            Self::Insert {
                kind,
                member,
                value,
                if_absent,
            } => {
                (parts.code, parts.kind) = (2, kind as u8);
                (parts.member, parts.value) = (member, value);
                parts.options = u8::from(if_absent);
            }
            Self::Remove { kind, member } => {
                (parts.code, parts.kind, parts.member) = (3, kind as u8, member);
            }
            Self::Find {
                kind,
                member,
                size_max,
            } => {
                (parts.code, parts.kind, parts.member) = (4, kind as u8, member);
                parts.size_max = size_max;
            }
            Self::Add { member, delta } => {
                (parts.code, parts.member) = (5, member);
                parts.numbers[0] = delta.cast_unsigned();
            }
            Self::Members {
                kind,
                from,
                count_max,
                values,
                size_max,
            } => {
                let (code, member) = bound_code(from);
                (parts.code, parts.kind, parts.member) = (6, kind as u8, member.unwrap_or(&[]));
                parts.options = code | u8::from(values) << 2;
                (parts.size_max, parts.numbers[0]) = (size_max, u64::from(count_max));
            }
            Self::Pick { kind, seed, take } => {
                (parts.code, parts.kind, parts.options) = (7, kind as u8, u8::from(take));
                parts.numbers[0] = seed;
            }
            _ => self.list_parts(&mut parts),
        }
        parts
    }

    fn list_parts(&self, parts: &mut Parts<'a>) {
        let places = |start: i64, stop: i64| [start.cast_unsigned(), stop.cast_unsigned(), 0];
        match *self {
            Self::Push {
                end,
                value,
                if_present,
            } => {
                (parts.code, parts.value) = (8, value);
                parts.options = end as u8 | u8::from(if_present) << 1;
            }
            Self::Pop { end, size_max } => {
                (parts.code, parts.options, parts.size_max) = (9, end as u8, size_max);
            }
            Self::At { index, size_max } => {
                (parts.code, parts.size_max, parts.numbers) = (10, size_max, places(index, 0));
            }
            Self::Replace { index, value } => {
                (parts.code, parts.value, parts.numbers) = (11, value, places(index, 0));
            }
            Self::Range {
                start,
                stop,
                size_max,
            } => {
                (parts.code, parts.size_max, parts.numbers) = (12, size_max, places(start, stop));
            }
            Self::Trim { start, stop } => (parts.code, parts.numbers) = (13, places(start, stop)),
            Self::Take {
                end,
                count,
                size_max,
            } => {
                (parts.code, parts.options, parts.size_max) = (20, end as u8, size_max);
                parts.numbers[0] = u64::from(count);
            }
            Self::Move {
                to,
                from_end,
                to_end,
                size_max,
            } => {
                (parts.code, parts.member) = (21, to);
                parts.options =
                    from_end as u8 | (to_end as u8) << 1 | u8::from(size_max.is_none()) << 2;
                parts.size_max = size_max.unwrap_or(0);
            }
            _ => self.sorted_parts(parts),
        }
    }

    fn sorted_parts(&self, parts: &mut Parts<'a>) {
        match *self {
            Self::Score {
                member,
                score,
                condition,
                add,
            } => {
                (parts.code, parts.member) = (14, member);
                parts.options =
                    choice(condition.present) | choice(condition.greater) << 2 | u8::from(add) << 4;
                parts.numbers[0] = score.to_ordered();
            }
            Self::Rank { member, reverse } => {
                (parts.code, parts.member, parts.options) = (15, member, u8::from(reverse));
            }
            Self::ByRank {
                start,
                stop,
                reverse,
                size_max,
            } => {
                (parts.code, parts.options, parts.size_max) = (16, u8::from(reverse), size_max);
                parts.numbers = [start.cast_unsigned(), stop.cast_unsigned(), 0];
            }
            Self::ByScore {
                from,
                to,
                reverse,
                offset,
                count_max,
                size_max,
            } => {
                let (from, to) = (score_bound(from), score_bound(to));
                parts.code = 17;
                parts.options = from.0 | to.0 << 2 | u8::from(reverse) << 4;
                parts.size_max = size_max;
                parts.numbers = [from.1, to.1, u64::from(offset) << 32 | u64::from(count_max)];
            }
            Self::CountScores { from, to } => {
                let (from, to) = (score_bound(from), score_bound(to));
                (parts.code, parts.options) = (18, from.0 | to.0 << 2);
                parts.numbers = [from.1, to.1, 0];
            }
            Self::PopScore { greatest } => (parts.code, parts.options) = (19, u8::from(greatest)),
            _ => unreachable!("the callers have taken all others"),
        }
    }

    /// None of parts that are not exactly those of an action.
    fn from_parts(parts: &Parts<'a>) -> Option<Self> {
        let kind = ValueKind::from_byte(parts.kind)?;
        let action = match parts.code {
            1..=7 => Self::members_from_parts(kind, parts)?,
            8..=13 => Self::list_from_parts(parts)?,
            20 | 21 => Self::taken_from_parts(parts)?,
            _ => Self::sorted_from_parts(parts)?,
        };
        let fits = match action {
            Self::Insert { value, .. } => match kind {
                ValueKind::Hash => true,
                ValueKind::Set => value.is_empty(),
                _ => false,
            },
            Self::Length { .. } => kind != ValueKind::Bytes,
            Self::Remove { .. } | Self::Find { .. } | Self::Members { .. } | Self::Pick { .. } => {
                matches!(kind, ValueKind::Hash | ValueKind::Set | ValueKind::Sorted)
            }
            _ => true,
        };
        (fits && action.parts() == *parts).then_some(action)
    }

    fn members_from_parts(kind: ValueKind, parts: &Parts<'a>) -> Option<Self> {
        let Parts {
            options,
            size_max,
            numbers: [first, ..],
            member,
            value,
            ..
        } = *parts;
        let is_flagged = options == 1;
        Some(match parts.code {
            1 => Self::Length { kind },
            2 => Self::Insert {
                kind,
                member,
                value,
                if_absent: is_flagged,
            },
            3 => Self::Remove { kind, member },
            4 => Self::Find {
                kind,
                member,
                size_max,
            },
            5 => Self::Add {
                member,
                delta: first.cast_signed(),
            },
            6 => Self::Members {
                kind,
                from: bound_of(options & 3, member)?,
                count_max: first as u32,
                values: options & 4 != 0,
                size_max,
            },
            7 => Self::Pick {
                kind,
                seed: first,
                take: is_flagged,
            },
            _ => return None,
        })
    }

    fn list_from_parts(parts: &Parts<'a>) -> Option<Self> {
        let Parts {
            options,
            size_max,
            numbers: [start, stop, _],
            value,
            ..
        } = *parts;
        let (start, stop) = (start.cast_signed(), stop.cast_signed());
        let end = end_of(options);
        Some(match parts.code {
            8 => Self::Push {
                end,
                value,
                if_present: options & 2 != 0,
            },
            9 => Self::Pop { end, size_max },
            10 => Self::At {
                index: start,
                size_max,
            },
            11 => Self::Replace {
                index: start,
                value,
            },
            12 => Self::Range {
                start,
                stop,
                size_max,
            },
            13 => Self::Trim { start, stop },
            _ => return None,
        })
    }

    fn taken_from_parts(parts: &Parts<'a>) -> Option<Self> {
        let Parts {
            options,
            size_max,
            member,
            ..
        } = *parts;
        let count = parts.numbers[0];
        Some(match parts.code {
            20 if (1..=TRIM_MAX).contains(&count) => Self::Take {
                end: end_of(options),
                count: count as u32,
                size_max,
            },
            21 => Self::Move {
                to: member,
                from_end: end_of(options),
                to_end: end_of(options >> 1),
                size_max: (options & 4 == 0).then_some(size_max),
            },
            _ => return None,
        })
    }

    fn sorted_from_parts(parts: &Parts<'a>) -> Option<Self> {
        let Parts {
            options,
            size_max,
            numbers,
            member,
            ..
        } = *parts;
        Some(match parts.code {
            14 => Self::Score {
                member,
                score: Score::from_ordered(numbers[0])?,
                condition: ScoreCondition {
                    present: choice_of(options & 3)?,
                    greater: choice_of(options >> 2 & 3)?,
                },
                add: options & 16 != 0,
            },
            15 => Self::Rank {
                member,
                reverse: options == 1,
            },
            16 => Self::ByRank {
                start: numbers[0].cast_signed(),
                stop: numbers[1].cast_signed(),
                reverse: options == 1,
                size_max,
            },
            17 => Self::ByScore {
                from: score_bound_of(options & 3, numbers[0])?,
                to: score_bound_of(options >> 2 & 3, numbers[1])?,
                reverse: options & 16 != 0,
                offset: (numbers[2] >> 32) as u32,
                count_max: numbers[2] as u32,
                size_max,
            },
            18 => Self::CountScores {
                from: score_bound_of(options & 3, numbers[0])?,
                to: score_bound_of(options >> 2 & 3, numbers[1])?,
            },
            19 => Self::PopScore {
                greatest: options == 1,
            },
            _ => return None,
        })
    }

    /// Bytes it takes in a request, with its key.
    pub(super) fn size(&self, key: &[u8]) -> usize {
        let parts = self.parts();
        let fixed = ITEM_HEADER_SIZE + COLLECTION_HEADER_SIZE;
        fixed + key.len() + parts.member.len() + parts.value.len()
    }

    pub(super) fn encode(&self, key: &[u8], body: &mut Vec<u8>) {
        let parts = self.parts();
        let header = ItemHeader {
            operation: Operation::Collection as u8,
            flags: parts.code,
            key_size: key.len() as u16,
            value_size: (parts.member.len() + parts.value.len()) as u32,
            argument: parts.numbers[0],
        };
        let behind = CollectionHeader {
            kind: parts.kind,
            options: parts.options,
            member_size: parts.member.len() as u16,
            size_max: parts.size_max,
            second: parts.numbers[1],
            third: parts.numbers[2],
        };
        body.extend_from_slice(header.as_bytes());
        body.extend_from_slice(behind.as_bytes());
        body.extend_from_slice(key);
        body.extend_from_slice(parts.member);
        body.extend_from_slice(parts.value);
    }

    /// The item whose header was read, and the bytes behind it.
    pub(super) fn decode(header: &ItemHeader, bytes: &'a [u8]) -> Option<(Item<'a>, &'a [u8])> {
        let (behind, bytes) = CollectionHeader::read_from_prefix(bytes).ok()?;
        let (key, bytes) = bytes.split_at_checked(usize::from(header.key_size))?;
        let (tail, rest) = bytes.split_at_checked(header.value_size as usize)?;
        let (member, value) = tail.split_at_checked(usize::from(behind.member_size))?;
        if key.len() > KEY_SIZE_MAX || member.len() > KEY_SIZE_MAX {
            return None;
        }
        let action = Self::from_parts(&Parts {
            code: header.flags,
            kind: behind.kind,
            options: behind.options,
            size_max: behind.size_max,
            numbers: [header.argument, behind.second, behind.third],
            member,
            value,
        })?;
        Some((Item::Collection { key, action }, rest))
    }
}
