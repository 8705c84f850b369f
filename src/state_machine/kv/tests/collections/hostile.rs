//! Requests that nobody honest sends, and stores in which everything is at its worst at once.

use super::super::owned;
use super::*;
use crate::state_machine::kv::wire::{End, ExpiryCondition, Score, ScoreCondition, WALKS_MAX};

const KEYS: [&[u8]; 4] = [b"k\x01", b"k\x02", b"k\x03", b"k\x04"];

fn push<'a>(key: &'a [u8], value: &'a [u8]) -> Item<'a> {
    act(
        key,
        Action::Push {
            end: End::Last,
            value,
            if_present: false,
        },
    )
}

fn score<'a>(key: &'a [u8], member: &'a [u8], score: f64) -> Item<'a> {
    act(
        key,
        Action::Score {
            member,
            score: Score::new(score).expect("a number"),
            condition: ScoreCondition::default(),
            add: false,
        },
    )
}

fn expire(key: &[u8], time: u64) -> Item<'_> {
    Item::Expire {
        key,
        expiry: Expiry::In(time),
        condition: ExpiryCondition::Always,
        size_max: None,
    }
}

/// A store with one of each, of some members; one of them is expired.
fn filled(expired: usize) -> Checked {
    let mut store = Checked::new(&Geometry::SMALL).with_twin();
    for number in 0..6u8 {
        let member = &vec![number; usize::from(number) * 100][..];
        store.status(&insert(
            KEYS[0],
            HASH,
            member,
            &vec![1; usize::from(number) * 900],
        ));
        store.status(&insert(KEYS[1], SET, member, b""));
        store.status(&push(KEYS[2], member));
        store.status(&score(KEYS[3], member, f64::from(number)));
    }
    if let Some(key) = KEYS.get(expired) {
        store.status(&expire(key, 1));
        store.wait_ms(2);
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Items with some bits that are wrong: what is valid all the same does what the model says, within its plan.
    #[test]
    fn requests_with_flipped_bits_keep_to_their_plans(
        expired in 0usize..8,
        requests in proptest::collection::vec(
            (
                proptest::collection::vec(prop_oneof![items().boxed(), owned::items().boxed()], 1..4),
                proptest::collection::vec((0usize..4, any::<proptest::sample::Index>(), 0u8..8), 0..4),
            ),
            1..40,
        ),
    ) {
        let mut store = filled(expired);
        for (items, flips) in requests {
            let mut body = Vec::new();
            let mut begins = Vec::new();
            for item in &items {
                begins.push(body.len());
                item.with(|item| item.encode(&mut body));
            }
            for (item, at, bit) in flips {
                // Mostly in headers, where it matters.
                let begin = begins[item % begins.len()];
                let at = begin + at.index(if bit % 4 == 0 { 80 } else { 40 });
                if at < body.len() {
                    body[at] ^= 1 << bit;
                }
            }
            store.execute(Operation::Batch, &body);
        }
        store.finish();
    }
}

/// Places in a sequence of numbers that looks random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }

    /// A member that begins as all others do, mostly of the longest size.
    fn member(&mut self) -> Vec<u8> {
        let number = self.roll(6000) as u16;
        let size = if self.roll(4) == 0 { 20 } else { KEY_SIZE_MAX };
        let mut member = vec![b'a'; size];
        member[size - 2..].copy_from_slice(&number.to_be_bytes());
        member
    }

    fn value(&mut self) -> Vec<u8> {
        let sizes = [0, 8, 900, 944, 945, 960, 961, 4088, 4089, 9000];
        vec![7; sizes[self.roll(sizes.len() as u64) as usize]]
    }

    /// The last byte says what it holds, mostly.
    fn key(&mut self) -> Vec<u8> {
        match self.roll(3) {
            0 => vec![b'L', self.roll(4) as u8],
            _ => format!("small-{}", self.roll(4000)).into_bytes(),
        }
    }
}

/// An action on a list.
fn list_action<'a>(dice: &mut Dice, adds: bool, to: &'a [u8], value: &'a [u8]) -> Action<'a> {
    let wide = dice.roll(1 << 31) << 33;
    let end = if dice.roll(2) == 0 {
        End::First
    } else {
        End::Last
    };
    let to_end = if dice.roll(2) == 0 {
        End::First
    } else {
        End::Last
    };
    let size_max = Some(u32::MAX).filter(|_| dice.roll(2) == 0);
    match dice.roll(7) {
        _ if adds => Action::Push {
            end,
            value,
            if_present: false,
        },
        0 | 1 => Action::Move {
            to,
            from_end: end,
            to_end,
            size_max,
        },
        2 => Action::Replace {
            index: (wide >> 58).cast_signed(),
            value,
        },
        3 => Action::Trim {
            start: (wide >> 61).cast_signed(),
            stop: -1 - (wide >> 62).cast_signed(),
        },
        4 => Action::Take {
            end,
            count: (wide >> 60) as u32 + 1,
            size_max: u32::MAX,
        },
        _ => Action::Pop {
            end,
            size_max: u32::MAX,
        },
    }
}

/// An action on what a key holds, which mostly adds to it.
fn action<'a>(
    dice: &mut Dice,
    key: &[u8],
    to: &'a [u8],
    member: &'a [u8],
    value: &'a [u8],
) -> Action<'a> {
    let wide = dice.roll(1 << 31) << 33;
    let end = if dice.roll(2) == 0 {
        End::First
    } else {
        End::Last
    };
    let adds = dice.roll(3) > 0;
    let kind = match (key[key.len() - 1] + u8::from(dice.roll(30) == 0)) % 4 {
        0 => HASH,
        1 => SET,
        2 => return list_action(dice, adds, to, value),
        _ => ValueKind::Sorted,
    };
    let value = if kind == HASH { value } else { &[] };
    match (dice.roll(4), kind) {
        (_, ValueKind::Sorted) if adds => Action::Score {
            member,
            score: Score::new((wide >> 55) as f64).expect("a number"),
            condition: ScoreCondition::default(),
            add: false,
        },
        (0, ValueKind::Sorted) => Action::PopScore {
            greatest: end == End::Last,
        },
        _ if adds => Action::Insert {
            kind,
            member,
            value,
            if_absent: false,
        },
        // Of large ones the model cannot tell what is drawn.
        (1, _) => Action::Remove { kind, member },
        _ if key[0] == b'L' => Action::Remove { kind, member },
        _ => Action::Pick {
            kind,
            seed: wide,
            take: true,
        },
    }
}

fn step(store: &mut Checked, dice: &mut Dice) {
    let (key, to, member, value) = (dice.key(), dice.key(), dice.member(), dice.value());
    let (key, to, member) = (&key[..], &to[..], &member[..]);
    let is_large = key[0] == b'L' && dice.roll(200) > 0;
    let item = match dice.roll(40) {
        0 if !is_large => Item::Delete { key },
        1 if !is_large => Item::Put { key, value: &value },
        2 if !is_large => expire(key, dice.roll(10)),
        3 if !is_large => Item::Rename {
            key,
            to,
            if_absent: dice.roll(4) > 0,
        },
        _ => act(key, action(dice, key, to, member, &value)),
    };
    let other = act(to, action(dice, to, key, member, &value));
    match dice.roll(5) {
        0 => {
            store.batch(&[item, item, other]);
        }
        1 => {
            let transaction = TransactionBytes::new(&[], &[item, other, item], &[]);
            let transaction = transaction.expect("a short one");
            store.item(&transaction.item().expect("valid"));
        }
        _ => {
            store.item(&item);
        }
    }
    if dice.roll(50) == 0 {
        store.wait_ms(dice.roll(6));
        store.pulse_if_due();
    }
}

/// Deep trees of long members, graves by the chunk, expired keys of every kind that are written over, and hardly a free page.
#[test]
fn a_crowded_store_keeps_to_its_plans() {
    for (seed, state_size) in [(1, 7 << 20), (2, 24 << 20)] {
        let geometry = Geometry {
            state_size,
            ..Geometry::SMALL
        };
        let mut store = Checked::new(&geometry).with_twin();
        let mut dice = Dice(seed);
        for _ in 0..30_000 {
            step(&mut store, &mut dice);
        }
        assert!(store.refused > 500 && store.kv.grave_chunks > 3);
        assert!(store.kv.members.height() == 3 && store.pages.free_count() < 100);
        store.finish();
    }
}

/// A request is a moment's work: each of these may pass over a hundred thousand members, and thousands of them have room.
#[test]
fn a_request_has_a_bounded_number_of_walks() {
    let limits = Limits::new(&Geometry::LARGE);
    let is_valid = |item: Item<'_>, count: usize, enclosed: bool| {
        let transaction;
        let mut items = vec![item; count];
        if enclosed {
            transaction = TransactionBytes::new(&[], &[], &items).expect("a short one");
            items = vec![transaction.item().expect("valid")];
        }
        let mut body = Vec::new();
        for item in &items {
            item.encode(&mut body);
        }
        Kv::validate(&limits, Operation::Batch as u8, &body).is_ok()
    };
    let (from, to, size_max) = (Bound::Unbounded, Bound::Unbounded, 10);
    let (reverse, count_max, member) = (true, 1, &b"m"[..]);
    let by_rank = |start| Action::ByRank {
        start,
        stop: start,
        reverse,
        size_max,
    };
    let by_score = |offset| Action::ByScore {
        from,
        to,
        reverse,
        offset,
        count_max,
        size_max,
    };
    for (action, is_walk) in [
        (Action::Rank { member, reverse }, true),
        (Action::CountScores { from, to }, true),
        (by_rank(256), false),
        (by_rank(-256), false),
        (by_rank(257), true),
        (by_rank(i64::MIN), true),
        (by_score(256), false),
        (by_score(257), true),
    ] {
        let item = act(b"z", action);
        for enclosed in [false, true] {
            assert!(is_valid(item, WALKS_MAX, enclosed), "{action:?}");
            assert_eq!(
                is_valid(item, WALKS_MAX + 1, enclosed),
                !is_walk,
                "{action:?}"
            );
        }
    }
}

/// Members are taken out of large collections until none is left, by the least and the greatest seeds, too. The model cannot
/// tell which they are.
#[test]
fn large_collections_are_picked_empty() {
    let limits = Limits::new(&Geometry {
        state_size: 32 << 20,
        ..Geometry::SMALL
    });
    let mut pages = Pages::new(limits.page_count, limits.pages_touched_max);
    let mut kv = Kv::create_within(&mut pages, &limits);
    let free = pages.free_count();
    let mut timestamp = 0;
    let mut commit = |kv: &mut Kv, pages: &mut Pages, item: &Item<'_>| {
        let (mut body, mut bytes) = (Vec::new(), vec![0; 4096]);
        item.encode(&mut body);
        let plan = Kv::validate(&limits, item.operation() as u8, &body).expect("valid");
        timestamp += 1;
        let mut reply = ReplyBuffer::new(&mut bytes[..plan.reply_size]);
        kv.commit(
            pages,
            &context(timestamp),
            item.operation() as u8,
            &body,
            &mut reply,
        );
        let size = reply.size();
        assert!(drain(pages) <= plan.pages_touched);
        let reply = ItemReply::decode(&bytes[..size]).expect("a reply");
        (reply.status, reply.value.to_vec())
    };
    let (mut dice, keys) = (Dice(5), [&b"s"[..], b"t", b"u", b"z"]);
    let mut members = vec![std::collections::BTreeSet::new(); keys.len()];
    for _ in 0..12_000 {
        let place = dice.roll(4) as usize;
        let (key, member) = (keys[place], dice.member());
        let item = match place {
            3 => score(key, &member, dice.roll(9) as f64),
            _ => insert(key, SET, &member, b""),
        };
        let (status, _) = commit(&mut kv, &mut pages, &item);
        assert!(matches!(status, Status::DoneNumber | Status::Number));
        members[place].insert(member);
    }
    assert!(kv.members.height() == 3);
    let mut left: usize = members.iter().map(std::collections::BTreeSet::len).sum();
    while left > 0 {
        let place = dice.roll(4) as usize;
        let kind = if place == 3 { ValueKind::Sorted } else { SET };
        let seed =
            [0, u64::MAX, dice.roll(1 << 31) << 33 | dice.roll(1 << 31)][dice.roll(3) as usize];
        let item = act(
            keys[place],
            Action::Pick {
                kind,
                seed,
                take: true,
            },
        );
        let (status, member) = commit(&mut kv, &mut pages, &item);
        assert_eq!(status == Status::DoneValue, members[place].remove(&member));
        left -= usize::from(status == Status::DoneValue);
        if left.is_multiple_of(1000) {
            sorted::check(&kv, &pages);
        }
    }
    assert_eq!((kv.collections, kv.buried, kv.members.len()), (0, 0, 1));
    commit(&mut kv, &mut pages, &Item::Clear);
    assert_eq!(pages.free_count(), free);
}
