//! Whether a history of reads, writes and compare-and-sets could have been made by one register a key, where each
//! operation takes effect at one moment between its begin and its end.
//!
//! The search is Wing's and Gong's with Lowe's memory: it takes operations one by one, each time any that begins before the
//! first end of those not taken, and goes back where that leads nowhere; what was reached before, by whichever way, is
//! not searched again. Keys are independent of each other, so each is searched by itself.
//!
//! *An operation whose outcome nobody knows* has no end: it may take effect at any moment after its begin, or never. The
//! search takes those last, and need not take them.
//!
//! A crate was looked for: the one that does this knows no operation without an end, which is what failures leave behind.

#![allow(dead_code)] // each test file uses a part

use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What a key may hold: every write has a number of its own, and zero is no value.
pub type Value = u64;

/// The value of a key that is not there.
pub const ABSENT: Value = 0;

/// What was asked, and what was answered where anything was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Found this.
    Read(Value),
    /// Sets this.
    Write(Value),
    /// Sets `value` if the key has `expected`; `done` tells whether it had, and means nothing without an end.
    Swap {
        expected: Value,
        value: Value,
        done: bool,
    },
}

/// One operation of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    pub key: u64,
    /// When it began, in nanoseconds of one clock.
    pub begin: u64,
    /// When its answer came. None: its outcome is unknown.
    pub end: Option<u64>,
    pub action: Action,
    /// The number that the store gave to the change, where it told one; else zero.
    pub version: u64,
}

/// Why a history cannot be.
#[derive(Debug)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Configurations that one key may need; beyond, the history is too tangled for a verdict, which is an error as well.
const STEPS_MAX: usize = 4_000_000;

/// Operations shown of a key that fails.
const SHOWN_MAX: usize = 24;

/// Checks every key.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let mut keys = BTreeMap::<u64, Vec<Operation>>::new();
    for operation in history {
        keys.entry(operation.key).or_default().push(*operation);
    }
    for operations in keys.into_values() {
        check_key(operations)?;
    }
    check_versions(history)
}

/// The store numbers all changes of all keys in their order: two have never one number, and one that began after another
/// had ended has the higher. This binds keys together, which the search does not.
fn check_versions(history: &[Operation]) -> Result<(), Violation> {
    let mut changes: Vec<_> = history.iter().filter(|it| it.version > 0).collect();
    changes.sort_unstable_by_key(|it| it.version);
    for pair in changes.windows(2) {
        if pair[0].version == pair[1].version {
            let text = format!(
                "two changes of one version: {:?} and {:?}",
                pair[0], pair[1]
            );
            return Err(Violation(text));
        }
    }
    let mut latest_begin: Option<&Operation> = None;
    for change in changes {
        if let Some(earlier) = latest_begin
            && change.end.is_some_and(|end| end < earlier.begin)
        {
            let text = format!("versions against time: {earlier:?} is numbered before {change:?}");
            return Err(Violation(text));
        }
        if latest_begin.is_none_or(|it| it.begin < change.begin) {
            latest_begin = Some(change);
        }
    }
    Ok(())
}

fn check_key(mut operations: Vec<Operation>) -> Result<(), Violation> {
    operations.sort_unstable_by_key(|it| it.begin);
    let (ended, mut open): (Vec<_>, Vec<_>) = operations.iter().partition(|it| it.end.is_some());
    open.retain(|it| may_matter(it, &operations));
    let mut search = Search {
        taken: Bits::default(),
        open_taken: Bits::default(),
        low: 0,
        value: ABSENT,
        furthest: 0,
        seen: HashMap::new(),
        steps: 0,
        ended: &ended,
        open: &open,
    };
    match search.run() {
        Verdict::Possible => Ok(()),
        Verdict::Impossible => Err(Violation(describe(&search, "no order explains"))),
        Verdict::Undecided => Err(Violation(describe(&search, "too many orders to try for"))),
    }
}

/// An open read says nothing, and an open write that nobody can have seen may as well never have happened. Only a failed
/// compare-and-set sees a value without naming it.
fn may_matter(open: &Operation, all: &[Operation]) -> bool {
    let value = match open.action {
        Action::Read(_) => return false,
        Action::Write(value) | Action::Swap { value, .. } => value,
    };
    all.iter().any(|it| match it.action {
        Action::Read(found) => it.end.is_some() && found == value,
        Action::Write(_) => false,
        Action::Swap { expected, done, .. } => {
            expected == value || !done && it.end.is_some_and(|end| end >= open.begin)
        }
    })
}

fn describe(search: &Search<'_>, what: &str) -> String {
    use std::fmt::Write;
    let first = search.furthest.saturating_sub(SHOWN_MAX / 2);
    let key = search.ended[search.furthest.min(search.ended.len() - 1)].key;
    let mut text = format!(
        "{what} key {key:#x}, stuck near number {}:\n",
        search.furthest
    );
    for (index, it) in search.ended.iter().enumerate().skip(first).take(SHOWN_MAX) {
        let end = it.end.unwrap_or_default();
        let _ = writeln!(
            text,
            "{index:>5} {}..{end} {:x?} version {}",
            it.begin, it.action, it.version
        );
    }
    for it in search.open.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, " open {}.. {:x?}", it.begin, it.action);
    }
    text
}

/// A set of small numbers, equal if its members are.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, index: usize) -> bool {
        let word = self.0.get(index / 64).copied().unwrap_or(0);
        word & 1 << (index % 64) != 0
    }

    fn is_within(&self, other: &Self) -> bool {
        let word = |index| other.0.get(index).copied().unwrap_or(0);
        self.0
            .iter()
            .enumerate()
            .all(|(index, bits)| bits & !word(index) == 0)
    }

    fn set(&mut self, index: usize) {
        if self.0.len() <= index / 64 {
            self.0.resize(index / 64 + 1, 0);
        }
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn clear(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

/// How far the search is and what the key holds then: `low`, those taken beyond it, the value. What can follow depends on
/// this and on the open operations taken.
type Reached = (usize, Vec<usize>, Value);

enum Verdict {
    Possible,
    Impossible,
    Undecided,
}

#[derive(Clone, Copy)]
enum Choice {
    Ended(usize),
    Open(usize),
}

/// One operation taken, and what else could have been taken instead.
struct Frame {
    choices: Vec<Choice>,
    next: usize,
    taken: Choice,
    before: Value,
    low_before: usize,
}

struct Search<'a> {
    ended: &'a [Operation],
    open: &'a [Operation],
    taken: Bits,
    open_taken: Bits,
    /// All ended operations before this one are taken.
    low: usize,
    value: Value,
    /// The largest `low` so far: where the trouble is.
    furthest: usize,
    /// With which open operations taken the search has been where.
    seen: HashMap<Reached, Vec<Bits>>,
    steps: usize,
}

impl Search<'_> {
    fn run(&mut self) -> Verdict {
        let mut stack = Vec::<Frame>::new();
        let (mut choices, mut next) = (self.choices(), 0);
        while self.low < self.ended.len() {
            if self.steps > STEPS_MAX {
                return Verdict::Undecided;
            }
            if let Some(&choice) = choices.get(next) {
                next += 1;
                let (before, low_before) = (self.value, self.low);
                if !self.take(choice) {
                    continue;
                }
                stack.push(Frame {
                    choices: std::mem::take(&mut choices),
                    next,
                    taken: choice,
                    before,
                    low_before,
                });
                (choices, next) = (self.choices(), 0);
            } else {
                let Some(frame) = stack.pop() else {
                    return Verdict::Impossible;
                };
                self.put_back(frame.taken, frame.before, frame.low_before);
                (choices, next) = (frame.choices, frame.next);
            }
        }
        Verdict::Possible
    }

    /// Operations that may be next: they begin before any that is not taken ends. Those with an end first.
    fn choices(&self) -> Vec<Choice> {
        let (mut choices, first_end) = self.window();
        choices.retain(|&index| self.ended[index].begin <= first_end);
        let mut choices: Vec<_> = choices.into_iter().map(Choice::Ended).collect();
        for (index, it) in self.open.iter().enumerate() {
            if it.begin <= first_end && !self.open_taken.has(index) {
                choices.push(Choice::Open(index));
            }
        }
        choices
    }

    /// Operations not taken that begin before the first end of those before them, and that end.
    fn window(&self) -> (Vec<usize>, u64) {
        let (mut found, mut first_end) = (Vec::new(), u64::MAX);
        for index in self.low..self.ended.len() {
            let it = &self.ended[index];
            if it.begin > first_end {
                break;
            }
            if !self.taken.has(index) {
                found.push(index);
                first_end = first_end.min(it.end.unwrap_or(u64::MAX));
            }
        }
        (found, first_end)
    }

    /// Takes an operation next. False: it cannot be, or leads where the search has been.
    fn take(&mut self, choice: Choice) -> bool {
        let (operation, ended) = match choice {
            Choice::Ended(index) => (self.ended[index], true),
            Choice::Open(index) => (self.open[index], false),
        };
        let before = self.value;
        let after = match operation.action {
            Action::Read(found) => (found == before).then_some(before),
            Action::Write(value) => Some(value),
            Action::Swap {
                expected,
                value,
                done,
            } if ended => {
                let matches = expected == before;
                (matches == done).then_some(if done { value } else { before })
            }
            // Without effect it need not be taken.
            Action::Swap {
                expected, value, ..
            } => (expected == before).then_some(value),
        };
        let Some(after) = after else { return false };
        let low_before = self.low;
        self.value = after;
        match choice {
            Choice::Open(index) => self.open_taken.set(index),
            Choice::Ended(index) => {
                self.taken.set(index);
                while self.low < self.ended.len() && self.taken.has(self.low) {
                    self.low += 1;
                }
            }
        }
        self.furthest = self.furthest.max(self.low);
        let ahead = self.taken_ahead();
        let reached = (self.low, ahead, self.value);
        if self.is_new(reached) {
            return true;
        }
        self.put_back(choice, before, low_before);
        false
    }

    /// Whether the search was here before, with no more open operations taken: each of those may still be taken, and
    /// whatever can follow here could follow there.
    fn is_new(&mut self, reached: Reached) -> bool {
        let ways = self.seen.entry(reached).or_default();
        if ways.iter().any(|way| way.is_within(&self.open_taken)) {
            return false;
        }
        ways.push(self.open_taken.clone());
        self.steps += 1;
        true
    }

    /// Operations taken beyond `low`: few, since those that overlap are.
    fn taken_ahead(&self) -> Vec<usize> {
        let end = self.taken.0.len() * 64;
        (self.low..end)
            .filter(|&index| self.taken.has(index))
            .collect()
    }

    fn put_back(&mut self, choice: Choice, before: Value, low_before: usize) {
        match choice {
            Choice::Ended(index) => self.taken.clear(index),
            Choice::Open(index) => self.open_taken.clear(index),
        }
        self.value = before;
        self.low = low_before;
    }
}
