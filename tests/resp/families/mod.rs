//! What the differential test generates of each family of commands, beside those of strings: in a file of its own.

pub mod hashes;
pub mod lists;
pub mod sets;
pub mod sorted_sets;

use crate::{Line, Pair, Random};
use viewstone::resp::Value;

/// A family.
pub struct Family {
    /// What its commands are made of: capital letters stand for something of their kind, those of [`Self::word`] or those
    /// of strings.
    pub templates: &'static [&'static str],
    /// Something of this kind, if the family has a letter for it.
    pub word: fn(&mut Random, &str) -> Option<&'static str>,
    /// What may differ in a reply is made equal; none if nothing may.
    pub normal: fn(&[u8], &Line, &Value) -> Option<Value>,
    /// Commands whose replies differ as docs/redis.md says: by name, and whether they are in a transaction.
    pub is_different: fn(&[u8], &Line, bool) -> bool,
    /// After a command outside of a transaction that draws at random, with the replies of both: looks at what was drawn,
    /// and makes both equal again.
    pub settle: fn(&mut Pair, &[u8], &Line, [&Value; 2]),
    /// Commands that change a collection.
    pub changes: &'static [&'static str],
}

/// All of them.
pub const FAMILIES: &[Family] = &[
    hashes::FAMILY,
    lists::FAMILY,
    sets::FAMILY,
    sorted_sets::FAMILY,
];

/// Sorted by text: of what has no order.
pub fn sorted(values: &[Value]) -> Vec<Value> {
    let mut values = values.to_vec();
    values.sort_by_key(|value| format!("{value:?}"));
    values
}

/// Fields and values by turns, as pairs in the order of the fields.
pub fn sorted_pairs(values: &[Value]) -> Vec<Value> {
    let pairs = values.chunks(2).map(|pair| Value::Array(pair.to_vec()));
    sorted(&pairs.collect::<Vec<_>>())
}

/// The second part of the reply to a scan, if it is one.
pub fn scanned(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(parts) => match parts.as_slice() {
            [_, Value::Array(found)] => Some(found),
            _ => None,
        },
        _ => None,
    }
}

/// How many there are, instead of which: of what is drawn at random.
pub fn counted(value: &Value) -> Option<Value> {
    let count = match value {
        Value::Array(found) | Value::Set(found) => found.len(),
        Value::Bulk(_) => usize::MAX,
        _ => return None,
    };
    Some(Value::Integer(i64::try_from(count).unwrap_or(i64::MAX)))
}
