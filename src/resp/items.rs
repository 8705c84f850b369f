//! What commands ask of the key-value machine: items, encoded one behind the other, and what their results may take.

use crate::state_machine::kv::wire::{
    Action, Condition, Item, Items, Operation, REPLY_HEADER_SIZE, TRIM_MAX, TransactionBytes,
};

/// Pages a rename may touch, in those of other items.
const RENAME_WEIGHT: usize = 4;

/// What counts places in a sorted set takes up to a few hundred microseconds, where others take one.
const WALK_WEIGHT: usize = 32;

/// Items for a request.
#[derive(Debug, Default)]
pub struct ItemList {
    bytes: Vec<u8>,
    count: usize,
    weight: usize,
    result_size: usize,
    values: usize,
    writes: bool,
}

impl ItemList {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes all items out.
    pub fn clear(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        *self = Self {
            bytes,
            ..Self::default()
        };
    }

    /// Adds one. Its key and value are within the limits of the machine.
    pub fn push(&mut self, item: &Item<'_>) {
        item.encode(&mut self.bytes);
        self.count += 1;
        self.result_size += item.result_size();
        self.writes |= !item.is_read();
        let (weight, values) = match item {
            Item::Transaction(it) => it
                .then()
                .map(|item| weight(&item))
                .fold((0, 0), |(a, b), (c, d)| (a + c, b + d)),
            item => weight(item),
        };
        self.weight += weight;
        self.values += values;
    }

    /// Adds all items of another list.
    pub fn extend(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.count += other.count;
        self.weight += other.weight;
        self.result_size += other.result_size;
        self.values += other.values;
        self.writes |= other.writes;
    }

    /// Puts all items into one transaction, which replaces them; none if there are too many.
    pub fn enclose(&mut self, conditions: &[Condition<'_>]) -> Option<()> {
        let items: Vec<Item<'_>> = if self.count == 0 {
            Vec::new()
        } else {
            Items::decode(Operation::Batch, &self.bytes)?.collect()
        };
        let transaction = TransactionBytes::new(conditions, &items, &[])?;
        self.clear();
        self.push(&transaction.item()?);
        Some(())
    }

    /// The body of a batch of them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many there are, each by the pages that it may touch.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Most bytes of a reply to them, values apart.
    pub fn reply_size(&self) -> usize {
        REPLY_HEADER_SIZE + self.result_size
    }

    /// How many of them have a value in their result.
    pub fn values(&self) -> usize {
        self.values
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether they only read.
    pub fn is_read(&self) -> bool {
        !self.writes
    }
}

/// Its weight, and whether its result has a value.
fn weight(item: &Item<'_>) -> (usize, usize) {
    match item {
        Item::Rename { .. } => (RENAME_WEIGHT, 0),
        Item::Get { .. } | Item::GetRange { .. } | Item::Take { .. } => (1, 1),
        Item::Set { options, .. } => (1, usize::from(options.old)),
        Item::Expire { size_max, .. } => (1, usize::from(size_max.is_some())),
        Item::Collection { action, .. } => weight_of_action(action),
        _ => (1, 0),
    }
}

/// The same, measured by the keys it may change in all maps: a put changes two.
fn weight_of_action(action: &Action<'_>) -> (usize, usize) {
    match action {
        // Only whether it is there, or how large its value is.
        Action::Find { size_max: 0, .. } => (1, 0),
        Action::Find { .. } | Action::Members { .. } | Action::At { .. } | Action::Range { .. } => {
            (1, 1)
        }
        // They may pass over many members.
        Action::ByRank { .. } | Action::ByScore { .. } => (WALK_WEIGHT, 1),
        Action::Rank { .. } | Action::CountScores { .. } => (WALK_WEIGHT, 0),
        Action::Length { .. } | Action::Pick { take: false, .. } => (1, 0),
        Action::Pop { .. } => (2, 1),
        Action::Take { count, .. } => (*count as usize / 2 + 1, 1),
        Action::Move { size_max, .. } => (3, usize::from(size_max.is_some())),
        Action::Score { .. } => (3, 0),
        // It may be too large, as a value may.
        Action::Trim { .. } => (TRIM_MAX as usize / 2 + 1, 1),
        _ => (2, 0),
    }
}
