//! Sorted sets.

use super::*;
use crate::state_machine::kv::collections::bounds;
use crate::state_machine::kv::model::{Collection, Versioned};
use crate::state_machine::kv::wire::{RANK_MAX, Score, ScoreCondition};
use std::collections::BTreeMap;

const SORTED: ValueKind = ValueKind::Sorted;

/// Few, so that they meet.
fn scores() -> impl Strategy<Value = Score> {
    let numbers = prop_oneof![
        6 => (-3i8..4).prop_map(f64::from),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(-0.0),
        1 => prop_oneof![Just(f64::MAX), Just(5e-324), Just(0.1), Just(-1e300)],
    ];
    numbers.prop_map(score)
}

fn score(number: f64) -> Score {
    Score::new(number).expect("a number")
}

fn score_bounds() -> impl Strategy<Value = Bound<Score>> {
    prop_oneof![
        1 => Just(Bound::Unbounded),
        2 => scores().prop_map(Bound::Included),
        1 => scores().prop_map(Bound::Excluded),
    ]
}

fn conditions() -> impl Strategy<Value = ScoreCondition> {
    let choices = || prop_oneof![3 => Just(None), 1 => any::<bool>().prop_map(Some)];
    (choices(), choices()).prop_map(|(present, greater)| ScoreCondition { present, greater })
}

fn places() -> impl Strategy<Value = i64> {
    prop_oneof![9 => -10i64..10, 1 => Just(i64::MIN), 1 => Just(i64::MAX)]
}

/// Actions on sorted sets.
pub(in super::super) fn items() -> impl Strategy<Value = Owned> {
    let parts = (
        (keys(), member_names(), scores(), conditions()),
        (score_bounds(), score_bounds()),
        (places(), places()),
        any::<u64>(),
        sizes(),
        0u8..24,
    );
    parts.prop_map(
        |(named, (from, to), (start, stop), number, size_max, choice)| {
            let (key, member, score, condition) = named;
            let member = &member[..];
            let kind = SORTED;
            let is_odd = number % 2 == 1;
            let action = match choice {
                0..=6 => Action::Score {
                    member,
                    score,
                    condition: ScoreCondition::default(),
                    add: false,
                },
                7..=10 => Action::Score {
                    member,
                    score,
                    condition,
                    add: is_odd,
                },
                11 => Action::Remove { kind, member },
                12 => Action::Find {
                    kind,
                    member,
                    size_max,
                },
                13 => Action::Members {
                    kind,
                    from: Bound::Included(member),
                    count_max: number as u32 % 10,
                    values: is_odd,
                    size_max,
                },
                14 => Action::Pick {
                    kind,
                    seed: number,
                    take: is_odd,
                },
                15 => Action::Length { kind },
                16 | 17 => Action::Rank {
                    member,
                    reverse: is_odd,
                },
                18 | 19 => Action::ByRank {
                    start,
                    stop,
                    reverse: is_odd,
                    size_max,
                },
                20 | 21 => Action::ByScore {
                    from,
                    to,
                    reverse: is_odd,
                    offset: (number >> 8) as u32 % 4,
                    count_max: (number >> 16) as u32 % 10,
                    size_max,
                },
                22 => Action::CountScores { from, to },
                _ => Action::PopScore { greatest: is_odd },
            };
            encoded(&key, action)
        },
    )
}

/// The index of each sorted set has its members with their scores, and nothing else.
pub(in super::super) fn check(kv: &Kv, pages: &Pages) {
    let all = (Bound::Unbounded, Bound::Unbounded);
    for (key, stored) in kv.map.range(pages, all.0, all.1, false) {
        let record = Record::new(stored);
        let descriptor = record.descriptor();
        let Some(descriptor) = descriptor.filter(|_| record.meta.kind == SORTED) else {
            continue;
        };
        let (begin, middle) = bounds(descriptor.number);
        let end = (2 * descriptor.number + 2).to_be_bytes();
        let walk = |from: &[u8], to: &[u8]| {
            let range = (Bound::Included(from), Bound::Excluded(to));
            let walk = kv.members.range(pages, range.0, range.1, false);
            let pairs = walk.map(|(place, value)| {
                let value: Vec<u8> = value.pieces(0).flatten().copied().collect();
                (place[8..].to_vec(), value)
            });
            pairs.collect::<Vec<_>>()
        };
        let mut expected: Vec<_> = walk(&begin, &middle)
            .into_iter()
            .map(|(member, told)| {
                let told: Vec<u8> = told.into_iter().rev().collect();
                assert_eq!(told.len(), 8);
                ([told, member].concat(), vec![])
            })
            .collect();
        expected.sort();
        assert_eq!(descriptor.count, expected.len() as u64, "{key:?}");
        assert_eq!(walk(&middle, &end), expected, "{key:?}");
    }
}

fn set<'a>(key: &'a [u8], member: &'a [u8], number: f64) -> Item<'a> {
    let action = Action::Score {
        member,
        score: score(number),
        condition: ScoreCondition::default(),
        add: false,
    };
    act(key, action)
}

impl Checked {
    /// The members and scores that an action reads.
    fn pairs(&mut self, key: &[u8], action: Action<'_>) -> Vec<(Vec<u8>, f64)> {
        let mut body = Vec::new();
        act(key, action).encode(&mut body);
        let reply = self.execute(Operation::Collection, &body);
        let reply = reply.expect("a valid item");
        let reply = ItemReply::decode(&reply).expect("a reply to an item");
        assert_eq!(reply.status, Status::Members);
        let strings: Vec<_> = reply.members.collect();
        let number = |told: &[u8]| {
            let bits = u64::from_le_bytes(told.try_into().expect("8 bytes"));
            Score::from_ordered(bits).expect("a score").get()
        };
        let pairs = strings
            .chunks(2)
            .map(|pair| (pair[0].to_vec(), number(pair[1])));
        pairs.collect()
    }
}

fn by_rank(start: i64, stop: i64, reverse: bool) -> Action<'static> {
    Action::ByRank {
        start,
        stop,
        reverse,
        size_max: 3000,
    }
}

#[test]
fn members_are_in_the_order_of_score_and_bytes() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    let names: [&[u8]; 5] = [b"b", b"", b"aa", b"a", b"c"];
    for name in names {
        assert_eq!(store.number(&set(b"z", name, 1.0)), 1);
    }
    assert_eq!(store.number(&set(b"z", b"c", -1.0)), 0, "moved, not new");
    assert_eq!(store.number(&set(b"z", b"b", f64::INFINITY)), 0);
    let all = store.pairs(b"z", by_rank(0, -1, false));
    let expected: [(&[u8], f64); 5] = [
        (b"c", -1.0),
        (b"", 1.0),
        (b"a", 1.0),
        (b"aa", 1.0),
        (b"b", f64::INFINITY),
    ];
    assert_eq!(all, expected.map(|(name, score)| (name.to_vec(), score)));
    let rank = |reverse| Action::Rank {
        member: b"aa",
        reverse,
    };
    assert_eq!(store.number(&act(b"z", rank(false))), 3);
    assert_eq!(store.number(&act(b"z", rank(true))), 1);
    let (from, to) = (Bound::Excluded(score(-1.0)), Bound::Included(score(1.0)));
    assert_eq!(
        store.number(&act(b"z", Action::CountScores { from, to })),
        3
    );
    let found = store.pairs(
        b"z",
        Action::ByScore {
            from,
            to,
            reverse: true,
            offset: 1,
            count_max: 1,
            size_max: 100,
        },
    );
    assert_eq!(found, [(b"a".to_vec(), 1.0)]);
    store.finish();
}

#[test]
fn what_is_popped_removed_or_taken_leaves_the_index() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    for number in 0..6u8 {
        store.number(&set(b"z", &[number], f64::from(number % 3)));
    }
    let pop = |greatest| act(b"z", Action::PopScore { greatest });
    let told = |number: f64, member: u8| {
        let ordered = score(number).to_ordered();
        [&ordered.to_le_bytes()[..], &[member]].concat()
    };
    let least = store.item(&pop(false)).expect("a valid item");
    assert_eq!((least.0, least.2), (Status::DoneValue, told(0.0, 0)));
    let greatest = store.item(&pop(true)).expect("a valid item");
    assert_eq!((greatest.0, greatest.2), (Status::DoneValue, told(2.0, 5)));
    let remove = Action::Remove {
        kind: SORTED,
        member: &[3],
    };
    assert_eq!(store.number(&act(b"z", remove)), 1);
    check(&store.kv, &store.pages);
    for seed in 0..3 {
        let pick = Action::Pick {
            kind: SORTED,
            seed,
            take: true,
        };
        assert_eq!(store.status(&act(b"z", pick)), Status::DoneValue);
    }
    assert_eq!(store.status(&pop(false)), Status::NotFound);
    assert_eq!(store.status(&Item::Stat { key: b"z" }), Status::NotFound);
    assert!(!store.kv.has_buried());
    store.finish();
}

#[test]
fn infinities_of_both_signs_have_no_sum() {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    store.number(&set(b"z", b"m", f64::INFINITY));
    let add = |number: f64, greater| {
        let action = Action::Score {
            member: b"m",
            score: score(number),
            condition: ScoreCondition {
                present: Some(true),
                greater,
            },
            add: true,
        };
        act(b"z", action)
    };
    let none = add(f64::NEG_INFINITY, None);
    assert_eq!(store.status(&none), Status::NotANumber);
    let none = add(f64::NEG_INFINITY, Some(true));
    assert_eq!(store.status(&none), Status::NotANumber);
    assert_eq!(store.status(&add(1.0, None)), Status::Value, "the same");
    assert_eq!(store.status(&add(1.0, Some(true))), Status::NotFound);
    store.number(&set(b"z", b"m", 0.1));
    let sum = store.item(&add(0.2, None)).expect("a valid item");
    let told = score(0.1 + 0.2).to_ordered().to_le_bytes();
    assert_eq!((sum.0, &sum.2[..]), (Status::DoneValue, &told[..]));
    store.finish();
}

/// A set of so many members, one of each score from 0 on, in the store and in the model.
fn with_members(count: u64) -> Checked {
    let mut store = Checked::with_limits(Limits::new(&Geometry {
        state_size: 64 << 20,
        ..Geometry::SMALL
    }));
    let numbers: Vec<_> = (0..count).collect();
    let mut model = BTreeMap::new();
    for chunk in numbers.chunks(100) {
        let mut body = Vec::new();
        for &number in chunk {
            let (member, at) = (number.to_be_bytes(), number as f64);
            set(b"z", &member, at).encode(&mut body);
            model.insert(member.to_vec(), score(at));
        }
        let plan = Kv::validate(&store.limits, Operation::Batch as u8, &body).expect("valid");
        let mut bytes = vec![0; plan.reply_size];
        let context = store.tick();
        let mut reply = ReplyBuffer::new(&mut bytes);
        let operation = Operation::Batch as u8;
        store
            .kv
            .commit(&mut store.pages, &context, operation, &body, &mut reply);
        drain(&mut store.pages);
    }
    store.model.revision = count;
    let key = Versioned {
        version: count,
        expiry_ms: None,
        value: vec![],
        collection: Some(Collection::Sorted(model)),
    };
    store.model.map.insert(b"z".to_vec(), key);
    store
}

impl Checked {
    /// The rank of a member that [`with_members`] has made.
    fn rank(&mut self, number: i64, reverse: bool) -> (Status, i64) {
        let member = &number.to_be_bytes();
        let mut body = Vec::new();
        act(b"z", Action::Rank { member, reverse }).encode(&mut body);
        let reply = self.execute(Operation::Collection, &body);
        let reply = reply.expect("a valid item");
        let reply = ItemReply::decode(&reply).expect("a reply to an item");
        (reply.status, reply.number)
    }
}

#[test]
fn places_far_from_both_ends_are_not_counted() {
    let far = RANK_MAX.cast_signed();
    let count = 2 * far + 3;
    let mut store = with_members(count.cast_unsigned());
    // All is compared with the model, too.
    for (place, reverse, expected) in [
        (far, false, (Status::Number, far)),
        (far, true, (Status::Number, far + 2)),
        (far + 1, false, (Status::TooLarge, 0)),
        (far + 2, true, (Status::Number, far)),
        (count - 1, false, (Status::Number, count - 1)),
    ] {
        assert_eq!(store.rank(place, reverse), expected);
    }
    for reverse in [false, true] {
        for (start, status) in [
            (far, Status::Members),
            (far + 1, Status::TooLarge),
            (far + 2, Status::Members),
            (-1, Status::Members),
        ] {
            let item = act(b"z", by_rank(start, -1, reverse));
            assert_eq!(store.status(&item), status);
        }
        for (offset, status) in [
            (far, Status::Members),
            (far + 1, Status::TooLarge),
            (count, Status::TooLarge),
        ] {
            let action = Action::ByScore {
                from: Bound::Unbounded,
                to: Bound::Unbounded,
                reverse,
                offset: u32::try_from(offset).expect("small"),
                count_max: 10,
                size_max: 1000,
            };
            assert_eq!(store.status(&act(b"z", action)), status);
        }
    }
    let all = Bound::Unbounded;
    let count_scores = |from, to| act(b"z", Action::CountScores { from, to });
    let at = |number: i64| score(number as f64);
    assert_eq!(store.number(&count_scores(all, all)), count);
    let below = Bound::Excluded(at(far));
    assert_eq!(store.number(&count_scores(all, below)), far);
    let from = Bound::Included(at(9));
    let to = |number| Bound::Included(at(number));
    let inside = store.number(&count_scores(from, to(far + 11)));
    assert_eq!(inside, far + 3, "the others are counted");
    assert_eq!(store.number(&count_scores(from, to(far + 8))), far);
    for number in [far + 9, far + 10] {
        let item = count_scores(from, to(number));
        assert_eq!(store.status(&item), Status::TooLarge);
    }
    let crossed = count_scores(Bound::Included(at(count)), to(9));
    assert_eq!(store.number(&crossed), 0);
    check(&store.kv, &store.pages);
}
