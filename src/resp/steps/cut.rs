//! LTRIM of more elements than one request removes: first from the end, then from the beginning, some hundreds at a time.
//!
//! Each part is removed on the condition that nobody has changed the list since it was looked at; if somebody has, it is
//! looked at anew, and what is left to be removed follows from the places that were asked for and from what was removed.
//! Others see the list between two parts: it is longer than asked for, but has all that is to stay.

use super::{Step, again, results};
use crate::client::{Kind, ReplyRef};
use crate::resp::command::WRONG_TYPE;
use crate::resp::reply::Replies;
use crate::state_machine::kv::wire::{
    Action, Condition, End, Item, ItemReply, Operation, Status, TRIM_MAX, TransactionBytes,
    ValueKind,
};
use std::ops::Range;

/// Most elements that a request removes: two trims touch fewer pages than a large batch.
const CUT_MAX: u64 = 2 * TRIM_MAX;

/// The indexes that two places mean in a list of this length, the second included.
pub(super) fn window(length: u64, start: i64, stop: i64) -> Range<u64> {
    let from_first = |place: i64| {
        if place < 0 {
            place.saturating_add_unsigned(length)
        } else {
            place
        }
    };
    let start = from_first(start).max(0).cast_unsigned();
    let end = u64::try_from(from_first(stop)).map_or(0, |stop| (stop + 1).min(length));
    if start < end { start..end } else { 0..0 }
}

/// Trims that remove so many elements from an end, at most [`CUT_MAX`] and fewer than there are.
pub(super) fn cuts(key: &[u8], end: End, count: u64) -> Vec<Item<'_>> {
    assert!(count <= CUT_MAX);
    let first = count.min(TRIM_MAX);
    let parts = [first, count - first].into_iter();
    let parts = parts.filter(|&part| part > 0);
    let trim = |part: u64| {
        let part = part.cast_signed();
        let (start, stop) = match end {
            End::First => (part, -1),
            End::Last => (0, -1 - part),
        };
        let action = Action::Trim { start, stop };
        Item::Collection { key, action }
    };
    parts.map(trim).collect()
}

/// Removes what is outside of a range of a list.
#[derive(Debug)]
pub struct Cut {
    key: Box<[u8]>,
    /// Places in the list as it is now.
    start: i64,
    stop: i64,
    state: Cutting,
    tries: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cutting {
    /// Looks at the list.
    Looking,
    /// Removes so many elements from an end of the list of this version and length.
    Part(Seen, End, u64),
    /// Removes the rest, which one trim can.
    Rest,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    version: u64,
    length: u64,
}

impl Cut {
    /// What is not between these places.
    pub fn new(key: &[u8], start: i64, stop: i64) -> Self {
        Self {
            key: key.into(),
            start,
            stop,
            state: Cutting::Looking,
            tries: 0,
        }
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        let key = &*self.key;
        match self.state {
            Cutting::Looking => {
                Item::Stat { key }.encode(body);
                return (Kind::Read, Operation::Batch);
            }
            Cutting::Part(seen, end, count) => {
                let condition = Condition::version(key, seen.version);
                let items = cuts(key, end, count);
                let transaction = TransactionBytes::new(&[condition], &items, &[]);
                body.extend_from_slice(transaction.expect("two items").as_bytes());
            }
            Cutting::Rest => {
                let (start, stop) = (self.start, self.stop);
                let action = Action::Trim { start, stop };
                Item::Collection { key, action }.encode(body);
            }
        }
        (Kind::Write, Operation::Batch)
    }

    /// What is to be removed next from a list that was seen like this.
    fn next(&self, seen: Seen) -> Cutting {
        let kept = window(seen.length, self.start, self.stop);
        let (front, back) = (kept.start, seen.length - kept.end);
        if kept.is_empty() || front + back <= TRIM_MAX {
            Cutting::Rest
        } else if back > 0 {
            Cutting::Part(seen, End::Last, back.min(CUT_MAX))
        } else {
            Cutting::Part(seen, End::First, front.min(CUT_MAX))
        }
    }

    /// So many were removed: the same places are others now.
    fn count_removed(&mut self, end: End, count: u64) {
        let count = count.cast_signed();
        for place in [&mut self.start, &mut self.stop] {
            match end {
                End::First if *place >= 0 => *place -= count,
                End::Last if *place < 0 => *place += count,
                _ => {}
            }
        }
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let result = results(reply, 1)?.next()?;
        self.take(&result, replies)
    }

    fn take(&mut self, result: &ItemReply<'_>, replies: &mut Replies<'_>) -> Option<Step> {
        match (
            std::mem::replace(&mut self.state, Cutting::Looking),
            result.status,
        ) {
            (Cutting::Looking, Status::Stat) if result.kind == ValueKind::List => {
                self.state = self.next(Seen {
                    version: result.version,
                    length: u64::from(result.value_size),
                });
                return Some(Step::Ask);
            }
            (Cutting::Looking, Status::Stat) | (Cutting::Rest, Status::WrongType) => {
                WRONG_TYPE.write(replies);
            }
            (Cutting::Looking | Cutting::Rest, Status::NotFound)
            | (Cutting::Rest, Status::Done) => replies.simple("OK"),
            (Cutting::Part(seen, end, count), Status::Succeeded) => {
                let last = result.results.last()?;
                if last.status != Status::Done {
                    return None;
                }
                self.count_removed(end, count);
                self.state = self.next(Seen {
                    version: last.version,
                    length: seen.length - count,
                });
                self.tries = 0;
                return Some(Step::Ask);
            }
            // Others have changed it, or made it longer.
            (Cutting::Part(..), Status::Failed) | (Cutting::Rest, Status::TooLarge) => {
                return Some(again(&mut self.tries, replies));
            }
            _ => return None,
        }
        Some(Step::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::reply::Protocol;
    use crate::state_machine::kv::model::{Collection, Model};
    use crate::state_machine::kv::wire::BatchReply;
    use crate::state_machine::{Limits, kv};

    const KEY: &[u8] = b"list";

    fn apply(model: &mut Model, body: &[u8]) -> Vec<u8> {
        let limits = Limits {
            request_size_max: 1 << 20,
            reply_size_max: 3840,
            read_reply_size_max: 1 << 20,
            page_count: u32::MAX,
            pages_touched_max: u32::MAX,
        };
        let operation = kv::wire::Operation::Batch as u8;
        let reply = model.apply(&limits, 1_000_000, operation, body);
        reply.expect("it is valid")
    }

    fn act(model: &mut Model, action: Action<'_>) {
        let mut body = Vec::new();
        Item::Collection { key: KEY, action }.encode(&mut body);
        apply(model, &body);
    }

    fn push(model: &mut Model, end: End, number: u32) {
        let value = &number.to_be_bytes();
        let if_present = false;
        act(
            model,
            Action::Push {
                end,
                value,
                if_present,
            },
        );
    }

    fn numbers(model: &Model) -> Vec<u32> {
        match model.map.get(KEY).and_then(|it| it.collection.as_ref()) {
            Some(Collection::List(list)) => list
                .iter()
                .map(|it| u32::from_be_bytes(it[..].try_into().expect("a number")))
                .collect(),
            _ => vec![],
        }
    }

    /// Runs it, with something between its requests. How many they were, and the reply.
    fn run(
        cut: &mut Cut,
        model: &mut Model,
        mut between: impl FnMut(u32, &mut Model),
    ) -> (u32, Vec<u8>) {
        let mut out = Vec::new();
        for requests in 1..1000 {
            let mut body = Vec::new();
            cut.ask(&mut body);
            let reply = apply(model, &body);
            let reply = BatchReply::decode(&reply).expect("a reply");
            let result = reply.results().next().expect("one");
            let mut replies = Replies::new(&mut out, Protocol::Two);
            match cut.take(&result, &mut replies).expect("its result") {
                Step::Ask => between(requests, model),
                _ => return (requests, out),
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn windows_are_those_of_redis() {
        for (start, stop, expected) in [
            (0, -1, 0..10),
            (0, i64::MAX, 0..10),
            (i64::MIN, i64::MAX, 0..10),
            (-3, -2, 7..9),
            (9, 9, 9..10),
            (10, 20, 0..0),
            (5, 4, 0..0),
            (0, -11, 0..0),
            (-100, 0, 0..1),
            (0, i64::MIN, 0..0),
        ] {
            assert_eq!(window(10, start, stop), expected, "{start} {stop}");
        }
        assert_eq!(window(0, 0, -1), 0..0);
    }

    #[test]
    fn what_is_outside_is_removed_part_by_part() {
        for (start, stop) in [
            (1000, -1001),
            (-2000, 1999),
            (1500, 1500),
            (0, 99),
            (-5, -1),
            (7, 3),
            (0, -1),
        ] {
            let mut model = Model::new();
            (0..3000).for_each(|number| push(&mut model, End::Last, number));
            let (requests, reply) = run(&mut Cut::new(KEY, start, stop), &mut model, |_, _| {});
            let kept = window(3000, start, stop);
            let count = 3000 - (kept.end - kept.start);
            assert!(u64::from(requests) <= 4 + count / CUT_MAX, "{requests}");
            assert_eq!(reply, b"+OK\r\n");
            let found: Vec<u64> = numbers(&model).into_iter().map(u64::from).collect();
            assert!(found.into_iter().eq(kept), "{start} {stop}");
        }
        let mut model = Model::new();
        let mut cut = Cut::new(KEY, 0, 1);
        assert_eq!(
            run(&mut cut, &mut model, |_, _| {}),
            (1, b"+OK\r\n".to_vec())
        );
    }

    /// A capped list, to which others push while it is cut: it has the newest at the end.
    #[test]
    fn what_others_push_meanwhile_is_looked_at() {
        let mut model = Model::new();
        (0..3000).for_each(|number| push(&mut model, End::First, number));
        let mut next = 3000;
        let (requests, _) = run(&mut Cut::new(KEY, 0, 99), &mut model, |request, model| {
            if request % 3 == 0 {
                push(model, End::First, next);
                next += 1;
            }
        });
        assert!(next > 3001 && requests > 7);
        assert_eq!(
            numbers(&model),
            (next - 100..next).rev().collect::<Vec<_>>()
        );
        // The last thousand of a queue from which others take.
        let mut model = Model::new();
        (0..3000).for_each(|number| push(&mut model, End::Last, number));
        run(
            &mut Cut::new(KEY, -1000, -1),
            &mut model,
            |request, model| {
                if request == 2 {
                    let end = End::First;
                    act(model, Action::Pop { end, size_max: 99 });
                }
            },
        );
        assert_eq!(numbers(&model), (2000..3000).collect::<Vec<_>>());
    }
}
