//! Whether the operations of a history can be put in an order that explains what was answered, where each takes effect at one
//! moment between its begin and its end.
//!
//! The search is Wing's and Gong's with Lowe's memory: it takes operations one by one, each time any that begins before the
//! first end of those not taken, and goes back where that leads nowhere; what was reached before, by whichever way, is
//! not searched again.
//!
//! *An operation whose outcome nobody knows* has no end: it may take effect at any moment after its begin, or never. The
//! search takes those last, and need not take them.
//!
//! A crate was looked for: the one that does this knows no operation without an end, which is what failures leave behind.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// One operation of a history.
pub trait Step: fmt::Debug {
    /// What the operations are about; at first it is the default.
    type State: Clone + Eq + Hash + Default;

    /// When it began, in nanoseconds of one clock.
    fn begin(&self) -> u64;

    /// When its answer came. None: its outcome is unknown.
    fn end(&self) -> Option<u64>;

    /// What it leaves, if it finds `before` and is answered as it was; none: that cannot be. Without an end: what it leaves if it
    /// has an effect there.
    fn after(&self, before: &Self::State) -> Option<Self::State>;

    /// Whether it takes effect after this other one, whatever their times say: both were asked for in one breath.
    fn must_follow(&self, _: &Self) -> bool {
        false
    }
}

/// Why a history cannot be.
#[derive(Debug)]
pub struct Violation(String);

impl Violation {
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Configurations that one search may need; beyond, the history is too tangled for a verdict, which is an error as well.
const STEPS_MAX: usize = 4_000_000;

/// Operations shown of a history that cannot be.
const SHOWN_MAX: usize = 24;

/// Looks for an order. `open` operations are those without an end; those that cannot matter may be left out.
pub fn search<T: Step>(name: &str, mut ended: Vec<T>, open: &[T]) -> Result<(), Violation> {
    assert!(ended.iter().all(|it| it.end().is_some()));
    assert!(open.iter().all(|it| it.end().is_none()));
    ended.sort_by_key(T::begin);
    let mut search = Search {
        taken: Bits::default(),
        open_taken: Bits::default(),
        low: 0,
        state: T::State::default(),
        furthest: 0,
        seen: HashMap::new(),
        steps: 0,
        ended: &ended,
        open,
    };
    let what = match search.run() {
        Verdict::Possible => return Ok(()),
        Verdict::Impossible => "no order explains",
        Verdict::Undecided => "too many orders to try for",
    };
    Err(Violation(search.describe(&format!("{what} {name}"))))
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

/// How far the search is, and the state then: `low`, those taken beyond it, the state. What can follow depends on this and on
/// the open operations taken.
type Reached<S> = (usize, Vec<usize>, S);

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
struct Frame<S> {
    choices: Vec<Choice>,
    next: usize,
    taken: Choice,
    before: S,
    low_before: usize,
}

struct Search<'a, T: Step> {
    ended: &'a [T],
    open: &'a [T],
    taken: Bits,
    open_taken: Bits,
    /// All ended operations before this one are taken.
    low: usize,
    state: T::State,
    /// The largest `low` so far: where the trouble is.
    furthest: usize,
    /// With which open operations taken the search has been where.
    seen: HashMap<Reached<T::State>, Vec<Bits>>,
    steps: usize,
}

impl<T: Step> Search<'_, T> {
    fn run(&mut self) -> Verdict {
        let mut stack = Vec::<Frame<T::State>>::new();
        let (mut choices, mut next) = (self.choices(), 0);
        while self.low < self.ended.len() {
            if self.steps > STEPS_MAX {
                return Verdict::Undecided;
            }
            if let Some(&choice) = choices.get(next) {
                next += 1;
                let (before, low_before) = (self.state.clone(), self.low);
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
        let (window, first_end) = self.window();
        let may_be_next = |index: usize| {
            let it = &self.ended[index];
            let others = window.iter().filter(|&&other| other != index);
            it.begin() <= first_end
                && !others
                    .clone()
                    .any(|&other| it.must_follow(&self.ended[other]))
        };
        let choices = window.iter().copied().filter(|&index| may_be_next(index));
        let mut choices: Vec<_> = choices.map(Choice::Ended).collect();
        for (index, it) in self.open.iter().enumerate() {
            if it.begin() <= first_end && !self.open_taken.has(index) {
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
            if it.begin() > first_end {
                break;
            }
            if !self.taken.has(index) {
                found.push(index);
                first_end = first_end.min(it.end().unwrap_or(u64::MAX));
            }
        }
        (found, first_end)
    }

    /// Takes an operation next. False: it cannot be, or leads where the search has been.
    fn take(&mut self, choice: Choice) -> bool {
        let operation = match choice {
            Choice::Ended(index) => &self.ended[index],
            Choice::Open(index) => &self.open[index],
        };
        let Some(after) = operation.after(&self.state) else {
            return false;
        };
        let before = std::mem::replace(&mut self.state, after);
        let low_before = self.low;
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
        let reached = (self.low, ahead, self.state.clone());
        if self.is_new(reached) {
            return true;
        }
        self.put_back(choice, before, low_before);
        false
    }

    /// Whether the search was here before, with no more open operations taken: each of those may still be taken, and
    /// whatever can follow here could follow there.
    fn is_new(&mut self, reached: Reached<T::State>) -> bool {
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

    fn put_back(&mut self, choice: Choice, before: T::State, low_before: usize) {
        match choice {
            Choice::Ended(index) => self.taken.clear(index),
            Choice::Open(index) => self.open_taken.clear(index),
        }
        self.state = before;
        self.low = low_before;
    }

    fn describe(&self, what: &str) -> String {
        use std::fmt::Write;
        let first = self.furthest.saturating_sub(SHOWN_MAX / 2);
        let mut text = format!("{what}, stuck near number {}:\n", self.furthest);
        for (index, it) in self.ended.iter().enumerate().skip(first).take(SHOWN_MAX) {
            let _ = writeln!(text, "{index:>5} {it:x?}");
        }
        for it in self.open.iter().take(SHOWN_MAX) {
            let _ = writeln!(text, " open {it:x?}");
        }
        text
    }
}
