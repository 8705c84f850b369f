//! Statements about hashes, sets, lists and sorted sets.

use super::{Change, Word, Wrong, number, take, usage};
use crate::state_machine::kv::wire::{Action, End, Item, Score, ScoreCondition, ValueKind};
use std::ops::Bound;

/// The statement that these words are; none if the first is none of these.
pub(super) fn action(verb: &Word, rest: &[Word]) -> Option<Result<Change, Wrong>> {
    let name = super::forms::find(&verb.bytes)?.name;
    Some(match name {
        "hset" => take(rest, name).map(|[key, field, value]| {
            let (kind, member, value) = (ValueKind::Hash, &field.bytes, &value.bytes);
            encoded(key, insert(kind, member, value))
        }),
        "sadd" => take(rest, name)
            .map(|[key, member]| encoded(key, insert(ValueKind::Set, &member.bytes, &[]))),
        "hget" => of_member(rest, name, |member| find(ValueKind::Hash, member)),
        "zscore" => of_member(rest, name, |member| find(ValueKind::Sorted, member)),
        "hdel" => of_member(rest, name, |member| remove(ValueKind::Hash, member)),
        "srem" => of_member(rest, name, |member| remove(ValueKind::Set, member)),
        "zrem" => of_member(rest, name, |member| remove(ValueKind::Sorted, member)),
        "hincr" => add(rest, name),
        "hgetall" => take(rest, name).map(|[key]| encoded(key, all(ValueKind::Hash))),
        "smembers" => take(rest, name).map(|[key]| encoded(key, all(ValueKind::Set))),
        "lpush" => push(rest, name, End::First),
        "rpush" => push(rest, name, End::Last),
        "lpop" => pop(rest, name, End::First),
        "rpop" => pop(rest, name, End::Last),
        "lrange" => of_places(rest, name, |start, stop| Action::Range {
            start,
            stop,
            size_max: u32::MAX,
        }),
        "zadd" => score(rest, name),
        "zrange" => of_places(rest, name, |start, stop| Action::ByRank {
            start,
            stop,
            reverse: false,
            size_max: u32::MAX,
        }),
        _ => return None,
    })
}

fn encoded(key: &Word, action: Action<'_>) -> Change {
    let mut bytes = Vec::new();
    let key = &key.bytes;
    Item::Collection { key, action }.encode(&mut bytes);
    Change::Collection(bytes)
}

fn insert<'a>(kind: ValueKind, member: &'a [u8], value: &'a [u8]) -> Action<'a> {
    Action::Insert {
        kind,
        member,
        value,
        if_absent: false,
    }
}

fn find(kind: ValueKind, member: &[u8]) -> Action<'_> {
    let size_max = u32::MAX;
    Action::Find {
        kind,
        member,
        size_max,
    }
}

fn remove(kind: ValueKind, member: &[u8]) -> Action<'_> {
    Action::Remove { kind, member }
}

fn all(kind: ValueKind) -> Action<'static> {
    Action::Members {
        kind,
        from: Bound::Unbounded,
        count_max: u32::MAX,
        values: kind != ValueKind::Set,
        size_max: u32::MAX,
    }
}

fn of_member(
    rest: &[Word],
    name: &str,
    make: impl Fn(&[u8]) -> Action<'_>,
) -> Result<Change, Wrong> {
    take(rest, name).map(|[key, member]| encoded(key, make(&member.bytes)))
}

fn of_places(
    rest: &[Word],
    name: &str,
    make: impl Fn(i64, i64) -> Action<'static>,
) -> Result<Change, Wrong> {
    let [key, first, last] = take(rest, name)?;
    let (first, last) = (number(first, name)?, number(last, name)?);
    Ok(encoded(key, make(first, last)))
}

fn add(rest: &[Word], name: &str) -> Result<Change, Wrong> {
    let (key, field, delta) = if let [key, field] = rest {
        (key, field, 1)
    } else {
        let [key, field, delta] = take(rest, name)?;
        (key, field, number(delta, name)?)
    };
    let member = &field.bytes;
    Ok(encoded(key, Action::Add { member, delta }))
}

fn push(rest: &[Word], name: &str, end: End) -> Result<Change, Wrong> {
    take(rest, name).map(|[key, value]| {
        let value = &value.bytes;
        let if_present = false;
        let push = Action::Push {
            end,
            value,
            if_present,
        };
        encoded(key, push)
    })
}

fn pop(rest: &[Word], name: &str, end: End) -> Result<Change, Wrong> {
    let size_max = u32::MAX;
    take(rest, name).map(|[key]| encoded(key, Action::Pop { end, size_max }))
}

fn score(rest: &[Word], name: &str) -> Result<Change, Wrong> {
    let [key, score, member] = take(rest, name)?;
    let text = std::str::from_utf8(&score.bytes).ok();
    let number = text.and_then(|text| text.parse().ok());
    let wrong = || Wrong {
        at: Some(score.at),
        ..usage(name)
    };
    let score = Action::Score {
        member: &member.bytes,
        score: number.and_then(Score::new).ok_or_else(wrong)?,
        condition: ScoreCondition::default(),
        add: false,
    };
    Ok(encoded(key, score))
}
