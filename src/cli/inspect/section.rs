//! What was found in one part of the file, and what is wrong there.

use serde_json::{Value, json};
use std::fmt;

/// Damages named one by one in a section; the rest is only counted.
const DAMAGES_NAMED_MAX: usize = 256;

/// One thing that is wrong: what no crash leaves behind.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    /// What.
    pub what: String,
    /// Where it begins, in bytes of the data file, if it has a place.
    pub offset: Option<u64>,
    /// What follows from it, and what to do.
    pub follows: String,
}

impl Damage {
    pub(super) fn at(offset: u64, what: impl fmt::Display, follows: impl fmt::Display) -> Self {
        Self {
            offset: Some(offset),
            ..Self::of(what, follows)
        }
    }

    pub(super) fn of(what: impl fmt::Display, follows: impl fmt::Display) -> Self {
        Self {
            what: what.to_string(),
            offset: None,
            follows: follows.to_string(),
        }
    }

    pub(super) fn to_json(&self, section: &str) -> Value {
        json!({
            "section": section,
            "what": self.what,
            "offset": self.offset,
            "follows": self.follows,
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        if let Some(offset) = self.offset {
            write!(formatter, " (offset {offset})")?;
        }
        if self.follows.is_empty() {
            return Ok(());
        }
        write!(formatter, "; {}", self.follows)
    }
}

/// What was found in one part of the file.
#[derive(Debug)]
pub(super) struct Section {
    pub name: &'static str,
    pub json: Value,
    pub lines: Vec<(&'static str, String)>,
    pub damage: Vec<Damage>,
}

impl Section {
    /// A part that cannot be looked at without the superblock.
    pub(super) fn unknown(name: &'static str) -> Self {
        let reason = "without a superblock nothing says where it is";
        Self {
            name,
            json: json!({ "error": reason }),
            lines: vec![("unknown", reason.to_owned())],
            damage: Vec::new(),
        }
    }

    /// Takes out what follows from the file's end alone, and tells how much that was.
    pub(super) fn take_beyond(&mut self, size: u64) -> usize {
        let before = self.damage.len();
        self.damage
            .retain(|damage| damage.offset.is_none_or(|offset| offset < size));
        before - self.damage.len()
    }

    /// Bounds the list.
    pub(super) fn bound(&mut self) {
        let more = self.damage.len().saturating_sub(DAMAGES_NAMED_MAX);
        if more > 0 {
            self.damage.truncate(DAMAGES_NAMED_MAX);
            self.damage
                .push(Damage::of(format!("{more} more like these"), ""));
        }
    }
}
