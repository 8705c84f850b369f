//! Whether a history of reads, writes and compare-and-sets could have been made by one register a key, where each
//! operation takes effect at one moment between its begin and its end. Keys are independent of each other, so each is searched by
//! itself ([`search`]).

#![allow(dead_code)] // each test file uses a part

#[path = "search.rs"] // also where this file itself is included by its path
mod search;

pub use search::{Step, Violation, search};

use std::collections::BTreeMap;

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

impl Step for Operation {
    type State = Value;

    fn begin(&self) -> u64 {
        self.begin
    }

    fn end(&self) -> Option<u64> {
        self.end
    }

    fn after(&self, before: &Value) -> Option<Value> {
        let before = *before;
        match self.action {
            Action::Read(found) => (found == before).then_some(before),
            Action::Write(value) => Some(value),
            Action::Swap {
                expected,
                value,
                done,
            } if self.end.is_some() => {
                let matches = expected == before;
                (matches == done).then_some(if done { value } else { before })
            }
            // Without effect it need not be taken.
            Action::Swap {
                expected, value, ..
            } => (expected == before).then_some(value),
        }
    }
}

/// Checks every key.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let mut keys = BTreeMap::<u64, Vec<Operation>>::new();
    for operation in history {
        keys.entry(operation.key).or_default().push(*operation);
    }
    for operations in keys.values() {
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
            return Err(Violation::new(text));
        }
    }
    let mut latest_begin: Option<&Operation> = None;
    for change in changes {
        if let Some(earlier) = latest_begin
            && change.end.is_some_and(|end| end < earlier.begin)
        {
            let text = format!("versions against time: {earlier:?} is numbered before {change:?}");
            return Err(Violation::new(text));
        }
        if latest_begin.is_none_or(|it| it.begin < change.begin) {
            latest_begin = Some(change);
        }
    }
    Ok(())
}

fn check_key(operations: &[Operation]) -> Result<(), Violation> {
    let name = format!("key {:#x}", operations[0].key);
    let (ended, mut open): (Vec<_>, Vec<_>) = operations.iter().partition(|it| it.end.is_some());
    open.retain(|it| may_matter(it, operations));
    search(&name, ended, &open)
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
