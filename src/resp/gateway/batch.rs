//! A request in the making: the items of several connections, one behind the other.

use crate::resp::items::{ItemList, WALK_WEIGHT};
use crate::resp::shared::KvLimits;
use crate::state_machine::kv::wire::WALKS_MAX;

/// Items of a batch that writes: so many are valid in every geometry.
const WRITES_MAX: usize = 300;

/// Bytes of a batch that writes, unless a single command is larger: so that each is short for the cluster.
const WRITE_SIZE_MAX: usize = 64 << 10;

/// Items of a batch that only reads.
const READS_MAX: usize = 4096;

// Only a transaction of a client's own may have more than a request may.
const _: () = assert!(READS_MAX / WALK_WEIGHT <= WALKS_MAX);

/// Bytes reserved in the reply to a write for a value that was replaced.
const OLD_VALUE_SIZE: usize = 256;

/// Names a connection: its place, and how often that has been used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name {
    pub index: u32,
    pub generation: u32,
}

/// The items of one connection in a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run {
    pub name: Name,
    pub items: usize,
}

/// What a batch may be, by what was learnt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sizes {
    pub limits: KvLimits,
    /// Weight of a batch that writes; less when the cluster refused one.
    pub weight_max: usize,
    /// What a value that is read takes, on average.
    pub value_size: usize,
}

impl Sizes {
    pub fn new() -> Self {
        Self {
            limits: KvLimits::default(),
            weight_max: WRITES_MAX,
            value_size: 64,
        }
    }

    /// The cluster took none of so many together.
    pub fn shrink(&mut self) {
        self.weight_max = (self.weight_max / 2).max(1);
    }

    /// Values that were read, and what they took together.
    pub fn observe(&mut self, count: usize, size: usize) {
        if let Some(each) = size.checked_div(count) {
            self.value_size = (7 * self.value_size + each) / 8 + 1;
        }
    }

    /// A value had no room: there are large ones.
    pub fn observe_large(&mut self, size: usize) {
        self.value_size = self.value_size.max(size / 4);
    }
}

/// A batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub items: ItemList,
    pub runs: Vec<Run>,
    pub writes: bool,
}

impl Batch {
    pub fn new(writes: bool) -> Self {
        Self {
            items: ItemList::new(),
            runs: Vec::new(),
            writes,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether further items have room.
    pub fn has_room(&self, more: &ItemList, sizes: &Sizes) -> bool {
        let limits = &sizes.limits;
        let values = self.items.values() + more.values();
        let size = self.items.bytes().len() + more.bytes().len();
        let weight = self.items.weight() + more.weight();
        let reply = self.items.reply_size() + more.reply_size();
        if self.writes {
            size <= WRITE_SIZE_MAX.min(limits.request_size_max)
                && weight <= sizes.weight_max
                && reply + values * OLD_VALUE_SIZE <= limits.write_reply_size_max
        } else {
            size <= limits.request_size_max
                && weight <= READS_MAX
                && reply + values * sizes.value_size <= limits.reply_size_max
        }
    }

    /// Adds items of a connection.
    pub fn add(&mut self, name: Name, more: &ItemList) {
        self.items.extend(more);
        match self.runs.last_mut() {
            Some(run) if run.name == name => run.items += more.count(),
            _ => self.runs.push(Run {
                name,
                items: more.count(),
            }),
        }
    }
}
