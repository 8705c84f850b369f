//! Actions on collections: few members, so that they meet, and few enough that the model can tell what a pick finds.

use super::KvWorkload;
use crate::prng::Prng;
use std::ops::Bound;
use viewstone::state_machine::kv::wire::{Action, End, Item, Score, ScoreCondition, ValueKind};

const KINDS: [ValueKind; 4] = [
    ValueKind::Hash,
    ValueKind::Set,
    ValueKind::List,
    ValueKind::Sorted,
];

/// Members that may be in a collection: fewer than the model can pick from.
const MEMBERS: u64 = 60;

const _: () = assert!((MEMBERS as usize) < viewstone::state_machine::kv::model::PICK_MAX);

/// Longest value of a field, or element.
const VALUE_SIZE_MAX: usize = 100;

fn member(prng: &mut Prng) -> Vec<u8> {
    let number = prng.below(MEMBERS);
    let mut member = format!("member-{number}").into_bytes();
    if number.is_multiple_of(11) {
        member.resize(300, b'x');
    }
    member
}

fn value(prng: &mut Prng) -> Vec<u8> {
    if prng.coin() {
        return prng.below(100).to_string().into_bytes();
    }
    let mut value = vec![0; prng.index(VALUE_SIZE_MAX + 1)];
    prng.fill(&mut value);
    value
}

impl KvWorkload {
    /// Mostly each kind has keys of its own; but every item may hit every key.
    pub(super) fn collection(&self, prng: &mut Prng, body: &mut Vec<u8>) {
        let at = prng.index(KINDS.len());
        let (kind, kinds) = (KINDS[at], KINDS.len() as u64);
        let key = if prng.chance(900_000) {
            let number = prng.below(self.keys.div_ceil(kinds)) * kinds + at as u64;
            Self::key_of(number)
        } else {
            self.key(prng)
        };
        let (member, value) = (member(prng), value(prng));
        let action = match kind {
            ValueKind::List => {
                let number = prng.below(self.keys.div_ceil(kinds)) * kinds + at as u64;
                let to = Self::key_of(number);
                let action = list(prng, &value, &to);
                return Item::Collection { key: &key, action }.encode(body);
            }
            ValueKind::Sorted if prng.chance(700_000) => sorted(prng, &member),
            kind => members(prng, kind, &member, &value),
        };
        Item::Collection { key: &key, action }.encode(body);
    }
}

fn members<'a>(prng: &mut Prng, kind: ValueKind, member: &'a [u8], value: &'a [u8]) -> Action<'a> {
    let size_max = if prng.coin() { u32::MAX } else { 200 };
    let from = match prng.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(member),
        _ => Bound::Excluded(member),
    };
    match prng.below(12) {
        0..=4 if kind != ValueKind::Sorted => Action::Insert {
            kind,
            member,
            value: if kind == ValueKind::Set { &[] } else { value },
            if_absent: prng.coin(),
        },
        5 => Action::Remove { kind, member },
        6 => Action::Find {
            kind,
            member,
            size_max,
        },
        7 if kind == ValueKind::Hash => Action::Add {
            member,
            delta: prng.below(9).cast_signed() - 4,
        },
        8 => Action::Members {
            kind,
            from,
            count_max: prng.below(20) as u32,
            values: prng.coin(),
            size_max,
        },
        9 | 10 => Action::Pick {
            kind,
            seed: prng.below(u64::MAX),
            take: prng.coin(),
        },
        _ => Action::Length { kind },
    }
}

/// As many are taken away as are added, so that no list grows for ever.
fn list<'a>(prng: &mut Prng, value: &'a [u8], to: &'a [u8]) -> Action<'a> {
    let size_max = if prng.coin() { u32::MAX } else { 200 };
    let end = if prng.coin() { End::First } else { End::Last };
    let mut place = || prng.below(40).cast_signed() - 20;
    let (start, stop) = (place(), place());
    let index = start;
    match prng.below(17) {
        0..=4 => Action::Push {
            end,
            value,
            if_present: prng.chance(200_000),
        },
        5..=7 => Action::Pop { end, size_max },
        8 => Action::At { index, size_max },
        9 => Action::Replace { index, value },
        10 | 11 => Action::Range {
            start,
            stop,
            size_max,
        },
        12 => Action::Trim { start, stop },
        13 => Action::Take {
            end,
            count: 1 + prng.below(12) as u32,
            size_max,
        },
        14 | 15 => Action::Move {
            to,
            from_end: end,
            to_end: if prng.coin() { End::First } else { End::Last },
            size_max: prng.coin().then_some(size_max),
        },
        _ => Action::Length {
            kind: ValueKind::List,
        },
    }
}

/// Few scores, so that some are the same.
fn score(prng: &mut Prng) -> Score {
    let number = match prng.below(10) {
        0 => f64::INFINITY,
        1 => f64::NEG_INFINITY,
        2 => prng.below(100) as f64 / 8.0,
        _ => prng.below(10) as f64 - 5.0,
    };
    Score::new(number).expect("it is a number")
}

fn bound(prng: &mut Prng) -> Bound<Score> {
    match prng.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(score(prng)),
        _ => Bound::Excluded(score(prng)),
    }
}

fn choice(prng: &mut Prng) -> Option<bool> {
    prng.chance(300_000).then(|| prng.coin())
}

fn sorted<'a>(prng: &mut Prng, member: &'a [u8]) -> Action<'a> {
    let size_max = if prng.coin() { u32::MAX } else { 200 };
    let reverse = prng.coin();
    match prng.below(12) {
        0..=5 => Action::Score {
            member,
            score: score(prng),
            condition: ScoreCondition {
                present: choice(prng),
                greater: choice(prng),
            },
            add: prng.chance(300_000),
        },
        6 => Action::Rank { member, reverse },
        7 => Action::ByRank {
            start: prng.below(40).cast_signed() - 20,
            stop: prng.below(40).cast_signed() - 20,
            reverse,
            size_max,
        },
        8 => Action::ByScore {
            from: bound(prng),
            to: bound(prng),
            reverse,
            offset: prng.below(5) as u32,
            count_max: prng.below(20) as u32,
            size_max,
        },
        9 => Action::CountScores {
            from: bound(prng),
            to: bound(prng),
        },
        10 => Action::PopScore { greatest: reverse },
        _ => Action::Length {
            kind: ValueKind::Sorted,
        },
    }
}
