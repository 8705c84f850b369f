//! A replica's journal: both rings on the disk, and what the replica believes of each slot. `storage::journal` in few words.

use crate::Bounds;
use crate::prepares::{GARBAGE, Id, NONE, Prepares};
use storage::journal::Rules;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most slots of a ring.
pub const SLOTS: usize = 4;

/// How an op is held: `storage::recovery::State`, without the torn, for prepares are one sector.
pub mod state {
    /// Never acknowledged.
    pub const ABSENT: u8 = 0;
    /// Here, durable.
    pub const PRESENT: u8 = 1;
    /// Known by name, perhaps acknowledged, unreadable.
    pub const LOST: u8 = 2;
    /// Perhaps acknowledged, unreadable, not even known by name.
    pub const UNKNOWN: u8 = 3;
}

/// A slot.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Slot {
    /// On the disk: the prepare, [`NONE`] if never written, or [`GARBAGE`].
    pub prepare: Id,
    /// On the disk: the redundant header, likewise.
    pub header: Id,
    /// What the redundant header will be when it is written next.
    pub image: Id,
    /// The prepare that is being written; [`NONE`]: no write is under way.
    pub writing: Id,
    /// The op that the rest speaks of.
    pub op: u8,
    /// One of [`state`].
    pub state: u8,
    /// The log's prepare of the op, if its identity is known.
    pub named: Id,
    /// Bit 0: the header of that prepare is known, not only its identity. Bit 1: its acknowledgement awaits its redundant
    /// header.
    pub flags: u8,
}

const HEADER_KNOWN: u8 = 1;
const NEEDS_HEADER: u8 = 2;

impl Slot {
    fn clear(&mut self, op: u8) {
        self.op = op;
        self.state = state::ABSENT;
        self.named = NONE;
        self.flags = 0;
    }

    /// Believes `id` to be the log's.
    pub fn name(&mut self, id: Id, header_known: bool) {
        self.named = id;
        let known = if header_known { HEADER_KNOWN } else { 0 };
        self.flags = (self.flags & NEEDS_HEADER) | known;
    }

    /// The prepare whose header is known.
    pub fn known(&self, op: u8) -> Option<Id> {
        let known = self.op == op && self.named != NONE && self.flags & HEADER_KNOWN != 0;
        known.then_some(self.named)
    }
}

/// The ring.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Journal {
    /// By op modulo their number; those beyond the bounds are unused.
    pub slots: [Slot; SLOTS],
}

impl Journal {
    /// A new ring.
    pub fn new(bounds: &Bounds) -> Self {
        let mut journal = Self::default();
        for (index, slot) in journal.slots.iter_mut().enumerate() {
            // The first wrap.
            slot.op = if index == 0 {
                bounds.slots
            } else {
                index as u8
            };
        }
        journal
    }

    /// The slot of an op.
    pub fn slot(&self, bounds: &Bounds, op: u8) -> &Slot {
        &self.slots[usize::from(op % bounds.slots)]
    }

    fn slot_mut(&mut self, bounds: &Bounds, op: u8) -> &mut Slot {
        &mut self.slots[usize::from(op % bounds.slots)]
    }

    /// How an op above the checkpoint is held.
    pub fn state(&self, bounds: &Bounds, op: u8) -> u8 {
        let slot = self.slot(bounds, op);
        if slot.op == op {
            slot.state
        } else {
            state::ABSENT
        }
    }

    /// Whether a prepare of `op` may be written now.
    pub fn can_append(&self, bounds: &Bounds, checkpoint: u8, op: u8) -> bool {
        let slot = self.slot(bounds, op);
        op > checkpoint && op <= checkpoint + bounds.slots && slot.writing == NONE
    }

    /// Begins to write a prepare. The redundant header of an earlier wrap is written first.
    pub fn append<R: Rules>(&mut self, bounds: &Bounds, prepares: &Prepares, id: Id) {
        let op = prepares.op(id);
        let slot = self.slot_mut(bounds, op);
        assert!(slot.writing == NONE);
        let replaces = match slot.image {
            NONE => false,
            GARBAGE => true,
            image => prepares.op(image) >= op && R::REPLACEMENT_AWAITS_HEADER,
        };
        if slot.op != op {
            slot.header = slot.image;
            slot.clear(op);
        }
        if slot.state == state::PRESENT {
            slot.state = state::LOST;
        }
        slot.flags = u8::from(replaces) * NEEDS_HEADER;
        slot.name(id, true);
        slot.writing = id;
    }

    /// The write under way to the slot of `op` is durable.
    pub fn land(&mut self, bounds: &Bounds, prepares: &Prepares, op: u8) {
        let slot = self.slot_mut(bounds, op);
        let id = std::mem::replace(&mut slot.writing, NONE);
        assert!(id != NONE);
        slot.prepare = id;
        if slot.op == prepares.op(id) && slot.named == id {
            slot.state = state::PRESENT;
            slot.image = id;
        }
    }

    /// Writes the redundant headers of a set of slots.
    pub fn flush(&mut self, slots: u8) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slots >> index & 1 == 1 {
                slot.header = slot.image;
            }
        }
    }

    /// Writes the redundant headers that acknowledgements wait for.
    pub fn flush_awaited(&mut self) {
        for slot in &mut self.slots {
            if slot.flags & NEEDS_HEADER != 0 && slot.state == state::PRESENT {
                slot.header = slot.image;
            }
        }
    }

    /// Whether the log's prepare of `op` is durable here, and may be acknowledged.
    pub fn is_durable(&self, bounds: &Bounds, op: u8) -> bool {
        let slot = self.slot(bounds, op);
        let header = slot.flags & NEEDS_HEADER == 0 || slot.header == slot.named;
        slot.op == op && slot.state == state::PRESENT && slot.writing == NONE && header
    }

    /// Whether the log's prepare of `op` is durable here, and its acknowledgement awaits its redundant header.
    pub fn awaits_header(&self, bounds: &Bounds, op: u8) -> bool {
        let slot = self.slot(bounds, op);
        let here = slot.op == op && slot.state == state::PRESENT && slot.writing == NONE;
        here && slot.flags & NEEDS_HEADER != 0 && slot.header != slot.named
    }

    /// Whether this prepare is here, or being written.
    pub fn has(&self, bounds: &Bounds, op: u8, id: Id) -> bool {
        let slot = self.slot(bounds, op);
        let here = slot.state == state::PRESENT || slot.writing != NONE;
        slot.op == op && slot.named == id && here
    }

    /// Believes `id`, above the checkpoint, to be the log's for its op.
    pub fn set_header(&mut self, bounds: &Bounds, prepares: &Prepares, id: Id) {
        let op = prepares.op(id);
        let slot = self.slot_mut(bounds, op);
        if slot.op == op && slot.named == id {
            slot.flags |= HEADER_KNOWN;
            return;
        }
        if slot.op != op {
            slot.clear(op);
        }
        slot.state = match slot.state {
            state::LOST if slot.named == NONE => state::LOST,
            state::UNKNOWN => state::LOST,
            _ => state::ABSENT,
        };
        slot.name(id, true);
        if slot.prepare == id && slot.writing == NONE {
            slot.state = state::PRESENT;
            slot.image = id;
        }
    }

    /// The log ends at `head`: what is held above it is not the log's.
    pub fn cut(&mut self, bounds: &Bounds, head: u8, op_max: u8) {
        for op in head + 1..=op_max {
            let slot = self.slot_mut(bounds, op);
            if slot.op == op {
                let flags = slot.flags & NEEDS_HEADER;
                slot.clear(op);
                slot.flags = flags;
            }
        }
    }
}
