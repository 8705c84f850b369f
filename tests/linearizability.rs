//! The checker of histories is itself checked: histories that are known to be good or bad, and many small ones against
//! a search that tries every order.

#[path = "process/linearizability.rs"]
mod linearizability;

use linearizability::{ABSENT, Action, Operation, Step, Value, check, search};

fn operation(begin: u64, end: u64, action: Action) -> Operation {
    Operation {
        key: 7,
        begin,
        end: (end != OPEN).then_some(end),
        action,
        version: 0,
    }
}

/// In place of an end: the outcome is unknown.
const OPEN: u64 = u64::MAX;

fn write(begin: u64, end: u64, value: Value) -> Operation {
    operation(begin, end, Action::Write(value))
}

fn read(begin: u64, end: u64, found: Value) -> Operation {
    operation(begin, end, Action::Read(found))
}

fn swap(begin: u64, end: u64, expected: Value, value: Value, done: bool) -> Operation {
    let action = Action::Swap {
        expected,
        value,
        done,
    };
    operation(begin, end, action)
}

fn good(history: &[Operation]) {
    if let Err(violation) = check(history) {
        panic!("{violation}");
    }
}

fn bad(history: &[Operation]) {
    let text = check(history).expect_err("it cannot be").to_string();
    assert!(text.contains("no order explains key 0x7"), "{text}");
}

#[test]
fn histories_that_can_be() {
    good(&[]);
    good(&[read(0, 1, ABSENT), write(2, 3, 1), read(4, 5, 1)]);
    // Both orders of what overlaps.
    good(&[write(0, 10, 1), read(1, 2, ABSENT), read(3, 4, 1)]);
    good(&[write(0, 10, 1), write(0, 10, 2), read(11, 12, 1)]);
    good(&[write(0, 10, 1), write(0, 10, 2), read(11, 12, 2)]);
    good(&[
        write(0, 1, 1),
        swap(2, 9, 1, 2, true),
        swap(2, 9, 1, 3, false),
    ]);
    good(&[
        write(0, 1, 1),
        swap(2, 9, 2, 3, true),
        write(3, 8, 2),
        read(10, 11, 3),
    ]);
}

#[test]
fn an_unknown_outcome_is_once_or_never_and_late_perhaps() {
    good(&[write(0, 1, 1), write(2, OPEN, 2), read(3, 4, 1)]);
    good(&[
        write(0, 1, 1),
        write(2, OPEN, 2),
        read(3, 4, 1),
        read(5, 6, 2),
        read(7, 8, 2),
    ]);
    good(&[
        write(2, OPEN, 2),
        write(3, 4, 3),
        read(5, 6, 3),
        read(7, 8, 2),
    ]);
    bad(&[
        write(0, 1, 1),
        write(2, OPEN, 2),
        read(3, 4, 2),
        read(5, 6, 1),
    ]);
    bad(&[
        write(2, OPEN, 2),
        read(3, 4, 2),
        write(5, 6, 3),
        read(7, 8, 3),
        read(9, 10, 2),
    ]);
    // Not before it began.
    bad(&[read(0, 1, 2), write(2, OPEN, 2)]);
    // A chain that only open operations explain, and one that needs a mismatch explained.
    good(&[write(0, OPEN, 5), swap(1, OPEN, 5, 6, false), read(7, 8, 6)]);
    good(&[write(0, 1, 1), write(2, OPEN, 2), swap(3, 4, 1, 3, false)]);
    bad(&[write(0, 1, 1), swap(3, 4, 1, 3, false), write(5, OPEN, 2)]);
    good(&[
        write(0, 1, 1),
        swap(2, OPEN, 9, 2, false),
        read(3, 4, 1),
        read(5, 6, 1),
    ]);
    bad(&[
        write(0, 1, 1),
        swap(2, OPEN, 9, 2, false),
        read(3, 4, 1),
        read(5, 6, 2),
    ]);
}

#[test]
fn a_stale_read() {
    bad(&[write(0, 1, 1), write(2, 3, 2), read(4, 5, 1)]);
    // Of two reads one behind the other, the second may not go back, though the write still runs.
    bad(&[
        write(0, 1, 1),
        write(2, 20, 2),
        read(3, 4, 2),
        read(5, 6, 1),
    ]);
}

#[test]
fn a_lost_write() {
    bad(&[write(0, 1, 1), read(2, 3, ABSENT)]);
    bad(&[
        write(0, 1, 1),
        write(2, 3, 2),
        swap(4, 5, 2, 3, false),
        read(6, 7, 1),
    ]);
    bad(&[
        write(0, 1, 1),
        swap(2, 3, 1, 2, true),
        swap(4, 5, 1, 3, true),
    ]);
}

#[test]
fn a_write_made_twice() {
    bad(&[write(0, 1, 1), write(2, 3, 2), read(4, 5, 2), read(6, 7, 1)]);
    bad(&[
        write(0, 1, 1),
        swap(2, 3, 1, 2, true),
        write(4, 5, 1),
        read(6, 7, 2),
    ]);
}

#[test]
fn a_split_brain() {
    // Two sides, each right by itself.
    let side = |at: u64, value| [write(at, at + 1, value), read(at + 2, at + 3, value)];
    good(&side(10, 1));
    bad(&[
        write(10, 11, 1),
        write(10, 11, 2),
        read(20, 21, 1),
        read(22, 23, 2),
    ]);
    bad(&[
        write(0, 1, 1),
        swap(2, 5, 1, 2, true),
        swap(3, 6, 1, 3, true),
    ]);
}

#[test]
fn versions_bind_keys_together() {
    let change = |key, begin, end, version| Operation {
        key,
        version,
        ..write(begin, end, key)
    };
    good(&[change(1, 0, 5, 2), change(2, 1, 6, 1), change(3, 7, 8, 3)]);
    let twice = [change(1, 0, 1, 4), change(2, 2, 3, 4)];
    assert!(
        check(&twice)
            .expect_err("one number")
            .to_string()
            .contains("one version")
    );
    let back = [change(1, 0, 1, 5), change(2, 2, 3, 4)];
    assert!(
        check(&back)
            .expect_err("backwards")
            .to_string()
            .contains("against time")
    );
    let back = [change(1, 0, 1, 5), change(3, 0, 9, 6), change(2, 2, 3, 4)];
    assert!(check(&back).is_err());
}

/// One of several that were asked for in one breath, and how many came before it.
#[derive(Debug)]
struct InOneBreath(Operation, usize);

impl Step for InOneBreath {
    type State = Value;

    fn begin(&self) -> u64 {
        self.0.begin
    }

    fn end(&self) -> Option<u64> {
        self.0.end
    }

    fn after(&self, before: &Value) -> Option<Value> {
        self.0.after(before)
    }

    fn must_follow(&self, other: &Self) -> bool {
        self.1 > other.1
    }
}

#[test]
fn what_is_asked_in_one_breath_keeps_its_order() {
    let judge = |operations: [Operation; 2]| {
        let [first, second] = operations;
        let ended = vec![InOneBreath(first, 0), InOneBreath(second, 1)];
        search("a breath", ended, &[])
    };
    assert!(judge([write(0, 5, 1), read(0, 6, 1)]).is_ok());
    assert!(judge([read(0, 5, ABSENT), write(0, 6, 1)]).is_ok());
    good(&[write(0, 5, 1), read(0, 6, ABSENT)]);
    assert!(judge([write(0, 5, 1), read(0, 6, ABSENT)]).is_err());
    assert!(judge([read(0, 5, 1), write(0, 6, 1)]).is_err());
}

/// Splitmix64: small numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Tries every order, and every choice of open operations that never happen.
fn possible(left: &[Operation], value: Value) -> bool {
    let first_end = left.iter().filter_map(|it| it.end).min();
    let Some(first_end) = first_end else {
        return true;
    };
    left.iter().enumerate().any(|(index, it)| {
        let after = match it.action {
            Action::Read(found) => (found == value || it.end.is_none()).then_some(value),
            Action::Write(value) => Some(value),
            Action::Swap {
                expected,
                value: new,
                done,
            } => {
                let matches = expected == value;
                let told = it.end.is_none() || matches == done;
                told.then_some(if matches { new } else { value })
            }
        };
        let mut rest = left.to_vec();
        rest.remove(index);
        it.begin <= first_end && after.is_some_and(|after| possible(&rest, after))
    })
}

#[test]
fn small_histories_are_judged_as_by_trying_every_order() {
    let mut random = Random(42);
    let (mut goods, mut bads) = (0, 0);
    for _ in 0..30_000 {
        let count = 2 + random.below(5);
        let mut history = Vec::new();
        for number in 1..=count {
            let begin = random.below(12);
            let end = begin + 1 + random.below(6);
            let end = if random.below(4) == 0 { OPEN } else { end };
            history.push(match random.below(3) {
                0 => read(begin, end, random.below(count + 1)),
                1 => write(begin, end, number),
                _ => {
                    let (expected, done) = (random.below(count + 1), random.below(2) == 0);
                    swap(begin, end, expected, number, done)
                }
            });
        }
        let expected = possible(&history, ABSENT);
        let verdict = check(&history);
        assert_eq!(verdict.is_ok(), expected, "{history:#?}");
        *(if expected { &mut goods } else { &mut bads }) += 1;
    }
    println!("{goods} can be, {bads} cannot");
    assert!(goods > 3000 && bads > 3000);
}

/// A register that is really used, by several clients at once; one in `open_one_in` never hears of its outcome.
fn lived(random: &mut Random, count: u64, open_one_in: u64) -> Vec<Operation> {
    let (mut history, mut value, mut now) = (Vec::new(), ABSENT, 0);
    for number in 1..=count {
        // Takes effect at `now`; begins before and ends after, overlapping some ten others.
        now += 10;
        let (begin, end) = (now - random.below(50).min(now), now + random.below(50));
        let open = random.below(open_one_in) == 0;
        let end = if open { OPEN } else { end };
        match random.below(4) {
            0 => history.push(read(begin, end, value)),
            1 if open && random.below(2) == 0 => history.push(write(begin, OPEN, number)), // never
            1 => {
                history.push(write(begin, end, number));
                value = number;
            }
            _ => {
                let expected = if random.below(4) == 0 {
                    number - 1
                } else {
                    value
                };
                history.push(swap(begin, end, expected, number, expected == value));
                value = if expected == value { number } else { value };
            }
        }
    }
    history
}

#[test]
fn long_histories_are_judged_soon() {
    let mut random = Random(7);
    for (count, open_one_in) in [(400, 40); 30].into_iter().chain([(5000, 250)]) {
        let mut history = lived(&mut random, count, open_one_in);
        good(&history);
        // One late read finds what was overwritten long ago.
        let is_read = |it: &Operation| matches!(it.action, Action::Read(_)) && it.end.is_some();
        let stale = history.iter().rposition(is_read).expect("some read");
        history[stale].action = Action::Read(ABSENT);
        bad(&history);
    }
}
