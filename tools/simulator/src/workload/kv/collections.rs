//! Actions on collections: few members, so that they meet, and few enough that the model can tell what a pick finds.

use super::KvWorkload;
use crate::prng::Prng;
use std::ops::Bound;
use viewstone::state_machine::kv::wire::{Action, Item, ValueKind};

const KINDS: [ValueKind; 2] = [ValueKind::Hash, ValueKind::Set];

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
        let action = members(prng, kind, &member, &value);
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
        0..=4 => Action::Insert {
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
