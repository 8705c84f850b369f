//! What items may need at most: the plan of a request, and the pages that must be free before an item is executed.

use super::collections::GRAVES;
use super::store::RECORD_HEADER_SIZE;
use super::wire::{Action, Expiry, Item, Items, REPLY_HEADER_SIZE, TRIM_MAX, WALKS_MAX};
use super::{Invalid, Limits, Plan};
use storage::collections::ordered_map::{Cost, Trash, VALUE_INLINE_MAX};
use storage::layout::PAGE_SIZE;

/// The maps of a store: keys, expiries, and members.
pub(super) const MAPS: u32 = 3;

/// Pages and changes, summed up.
#[derive(Clone, Copy, Default)]
pub(super) struct Demand {
    /// Keys inserted, replaced or removed, in all maps.
    changes: u32,
    /// Of these, what may be new.
    inserts: u32,
    /// New pages of values.
    value_pages: u64,
    /// Other pages that change.
    others: u64,
}

impl Demand {
    fn new(changes: u32, inserts: u32) -> Self {
        Self {
            changes,
            inserts,
            ..Self::default()
        }
    }

    fn with_value(self, size: usize) -> Self {
        let value_pages = u64::from(Cost::value_pages(RECORD_HEADER_SIZE + size));
        Self {
            value_pages,
            ..self
        }
    }

    /// The old value's first page, which has the version, and its last.
    fn with_others(self, others: u64) -> Self {
        Self { others, ..self }
    }

    /// An expiry that is set has a place in the index.
    fn with_expiry(mut self, expiry: Expiry) -> Self {
        if matches!(expiry, Expiry::At(_) | Expiry::In(_)) {
            self.changes += 1;
            self.inserts += 1;
        }
        self
    }

    /// What an item may need. Every change of a key may remove the expiry that the key had from the index. An item that
    /// would make too long a value needs nothing.
    pub(super) fn of(item: &Item<'_>, value_size_max: usize) -> Self {
        if item.value().is_some_and(|it| it.len() > value_size_max) {
            return Self::default();
        }
        match *item {
            Item::Get { .. } | Item::Stat { .. } | Item::GetRange { .. } | Item::Count => {
                Self::default()
            }
            Item::Put { value, .. } | Item::CompareAndSet { value, .. } => {
                Self::new(2, 1).with_value(value.len())
            }
            Item::Set { value, options, .. } => Self::new(2, 1)
                .with_value(value.len())
                .with_expiry(options.expiry),
            Item::Delete { .. } | Item::Take { .. } => Self::new(2, 0),
            Item::Append { value, .. } => Self::new(2, 1)
                .with_value(VALUE_INLINE_MAX + value.len())
                .with_others(2),
            Item::SetRange { offset, value, .. } => {
                let end = offset as usize + value.len();
                if end > value_size_max {
                    return Self::default();
                }
                Self::new(2, 1).with_value(end).with_others(2)
            }
            Item::Increment { .. } => Self::new(2, 1),
            Item::Expire { expiry, .. } => Self::new(2, 0).with_expiry(expiry).with_others(1),
            Item::Rename { .. } => Self::new(5, 2).with_others(1),
            Item::Clear => Self::default().with_others(3),
            Item::Collection { ref action, .. } => Self::of_action(action),
            Item::Transaction(transaction) => {
                let then = Self::of_all(transaction.then(), value_size_max);
                then.or(Self::of_all(transaction.otherwise(), value_size_max))
            }
        }
    }

    /// Beside its members, an action changes the record, and may remove the expiry of one that is expired.
    fn of_action(action: &Action<'_>) -> Self {
        let members = |changes: u32, inserts: u32| Self::new(2 + changes, 1 + inserts);
        match *action {
            Action::Insert { value, .. } | Action::Push { value, .. } => {
                members(1, 1).with_value(value.len())
            }
            Action::Replace { value, .. } => members(1, 1).with_value(value.len()),
            Action::Add { .. } => members(1, 1),
            // A score is in the index, too: the old one is removed, the new one added.
            Action::Score { .. } => members(3, 2),
            // The record is written over as it is, or removed: like a delete, they need no page.
            Action::Remove { .. } | Action::Pick { take: true, .. } | Action::PopScore { .. } => {
                Self::new(4, 0)
            }
            Action::Pop { .. } => Self::new(3, 0),
            Action::Take { count, .. } => Self::new(2 + count, 0),
            // The element where it was and where it comes to, and both records.
            Action::Move { .. } => Self::new(6, 2),
            Action::Trim { .. } => Self::new(2 + TRIM_MAX as u32, 0),
            _ => Self::default(),
        }
    }

    /// Chunks of graves that may be begun: each collection that is made may need one, which then serves many.
    fn chunks(&self) -> u64 {
        u64::from(self.inserts).div_ceil(GRAVES)
    }

    /// What items may need together.
    pub(super) fn of_all(items: Items<'_>, value_size_max: usize) -> Self {
        items
            .map(|item| Self::of(&item, value_size_max))
            .fold(Self::default(), Self::and)
    }

    fn and(self, other: Self) -> Self {
        Self {
            changes: self.changes.saturating_add(other.changes),
            inserts: self.inserts.saturating_add(other.inserts),
            value_pages: self.value_pages + other.value_pages,
            others: self.others + other.others,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            changes: self.changes.max(other.changes),
            inserts: self.inserts.max(other.inserts),
            value_pages: self.value_pages.max(other.value_pages),
            others: self.others.max(other.others),
        }
    }

    /// Most pages it takes.
    pub(super) fn pages_new(&self, page_count: u32) -> u32 {
        let chunks = self.chunks();
        let inserts = self.inserts.saturating_add(chunks as u32);
        let nodes = Cost::of_maps(page_count, MAPS).nodes_new_max(inserts);
        (u64::from(nodes) + self.value_pages + chunks).min(u64::from(page_count)) as u32
    }

    /// Most pages it changes, those of the trash included that are freed if space is short.
    fn pages_touched(&self, page_count: u32) -> u32 {
        let chunks = self.chunks();
        // Each change may bury a collection: in the chunk on top, or in the next.
        let graves = chunks + u64::from(self.changes).div_ceil(GRAVES) + 1;
        let changes = self.changes.saturating_add(chunks as u32);
        let nodes = Cost::of_maps(page_count, MAPS).nodes_touched_max(changes);
        let bitmap_pages = page_count.div_ceil(PAGE_SIZE as u32 * 8);
        let fixed = nodes + bitmap_pages + Trash::PAGES_TOUCHED_MAX;
        let touched = u64::from(fixed) + self.value_pages + self.others + graves;
        touched.min(u64::from(page_count)) as u32
    }
}

/// The plan of a request of items.
pub(super) fn plan(
    limits: &Limits,
    items: Items<'_>,
    value_size_max: usize,
) -> Result<Plan, Invalid> {
    let read_only = items.into_iter().all(|item| item.is_read());
    let reply_size_max = if read_only {
        limits.read_reply_size_max
    } else {
        limits.reply_size_max
    };
    let fixed_size = REPLY_HEADER_SIZE + items.result_size();
    let wanted = (fixed_size as u64).saturating_add(items.result_value_size());
    let mut plan = Plan {
        read_only,
        // Values that do not fit are told as too large.
        reply_size: wanted.min(reply_size_max as u64) as usize,
        ..Plan::default()
    };
    if !read_only {
        let demand = Demand::of_all(items, value_size_max);
        plan.pages_new = demand.pages_new(limits.page_count);
        plan.pages_touched = demand.pages_touched(limits.page_count);
    }
    let fits = fixed_size <= reply_size_max
        && plan.pages_touched <= limits.pages_touched_max
        && items.walks() <= WALKS_MAX;
    if fits { Ok(plan) } else { Err(Invalid) }
}
