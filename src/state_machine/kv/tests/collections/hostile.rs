//! Requests that nobody honest sends, and stores in which everything is at its worst at once.

use super::super::owned;
use super::*;
use crate::state_machine::kv::wire::{End, ExpiryCondition, Score, ScoreCondition};

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
        let number = self.roll(1500) as u16;
        let size = if self.roll(4) == 0 { 20 } else { KEY_SIZE_MAX };
        let mut member = vec![b'a'; size];
        member[size - 2..].copy_from_slice(&number.to_be_bytes());
        member
    }

    fn value(&mut self) -> Vec<u8> {
        let sizes = [0, 8, 900, 944, 945, 960, 961, 4088, 4089, 9000];
        vec![7; sizes[self.roll(sizes.len() as u64) as usize]]
    }

    fn key(&mut self) -> Vec<u8> {
        match self.roll(3) {
            0 => vec![b'L', self.roll(4) as u8],
            _ => format!("small-{}", self.roll(1200)).into_bytes(),
        }
    }
}

fn step(store: &mut Checked, dice: &mut Dice) {
    let (key, to, member, value) = (dice.key(), dice.key(), dice.member(), dice.value());
    let (end, to_end) = if dice.roll(2) == 0 {
        (End::First, End::Last)
    } else {
        (End::Last, End::First)
    };
    let (kind, value) = match key[key.len() - 1] % 2 {
        0 => (HASH, &value[..]),
        _ => (SET, &[][..]),
    };
    let (key, to, member) = (&key[..], &to[..], &member[..]);
    let seed = dice.roll(1 << 31) << 33;
    let size_max = Some(u32::MAX).filter(|_| seed & 1 << 40 == 0);
    let item = match dice.roll(24) {
        0..=4 => insert(key, kind, member, value),
        5..=7 => push(key, value),
        8..=10 => score(key, member, (seed >> 55) as f64),
        11 => expire(key, seed >> 60),
        12 => Item::Delete { key },
        13 => Item::Rename {
            key,
            to,
            if_absent: false,
        },
        14 => act(
            key,
            Action::Move {
                to,
                from_end: end,
                to_end,
                size_max,
            },
        ),
        15 => act(
            key,
            Action::Remove {
                kind: ValueKind::Sorted,
                member,
            },
        ),
        16 => act(
            key,
            Action::Pick {
                kind,
                seed,
                take: true,
            },
        ),
        17 => act(
            key,
            Action::Pick {
                kind: ValueKind::Sorted,
                seed,
                take: true,
            },
        ),
        18 => act(
            key,
            Action::Replace {
                index: (seed >> 58).cast_signed(),
                value,
            },
        ),
        19 => act(
            key,
            Action::Trim {
                start: (seed >> 60).cast_signed(),
                stop: -1 - (seed >> 61).cast_signed(),
            },
        ),
        20 => act(
            key,
            Action::Take {
                end,
                count: (seed >> 59) as u32 + 1,
                size_max: u32::MAX,
            },
        ),
        21 => act(
            key,
            Action::PopScore {
                greatest: seed >> 63 == 1,
            },
        ),
        22 => Item::Put { key, value },
        _ => act(
            key,
            Action::Pop {
                end,
                size_max: u32::MAX,
            },
        ),
    };
    match dice.roll(5) {
        0 => {
            let items = [item, item, insert(to, kind, member, value)];
            store.batch(&items);
        }
        1 => {
            let items = [item, Item::Delete { key: to }, item, push(to, value)];
            let transaction = TransactionBytes::new(&[], &items, &[]).expect("a short one");
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
        for _ in 0..STEPS {
            step(&mut store, &mut dice);
        }
        eprintln!(
            "{} {} {} {:?} {}",
            store.kv.members.height(),
            store.kv.grave_chunks,
            store.refused,
            store.kv.members,
            store.pages.free_count()
        );
        store.finish();
    }
}

const STEPS: u32 = 30_000;
