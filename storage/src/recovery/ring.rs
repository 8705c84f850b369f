//! Over the whole ring: what one slot leaves open, its neighbours often decide; where the log ends; and, for a
//! cluster of one, where it is cut.

use super::{Decision, Window};
use crate::bits::Bits;
use crate::header::Prepare;

/// What is known of an op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Never acknowledged here: anything may be nacked.
    Absent,
    /// Here, verified.
    Present,
    /// Never acknowledged here: the named prepare, cut short, may be nacked.
    Torn,
    /// The named prepare may have been acknowledged, and cannot be read: neither nacked nor present.
    Lost,
    /// Something may have been acknowledged: neither nacked nor present.
    Unknown,
}

/// What is believed of a slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// The op it speaks of.
    pub op: u64,
    /// How that op is held.
    pub state: State,
    /// Identity of the op's prepare, as the log has it; zero: not known.
    pub identity: u128,
    /// The header with that identity, if it is known: see [`Slot::header`].
    pub named: Prepare,
    /// Identity of the whole prepare that lies in the slot, whether or not the log has it; zero: none.
    pub disk: u128,
    /// Its size in bytes.
    pub disk_size: u32,
}

impl Slot {
    /// Forgets everything: the slot speaks of `op`, and nothing is there.
    pub fn clear(&mut self, op: u64) {
        self.op = op;
        self.state = State::Absent;
        self.identity = 0;
    }

    /// The header of the op's prepare, if it is known.
    pub fn header(&self) -> Option<&Prepare> {
        let known = self.identity != 0
            && self.named.op == self.op
            && self.named.frame.checksum == self.identity;
        known.then_some(&self.named)
    }

    /// Believes `header` to be the log's.
    pub fn name(&mut self, header: &Prepare) {
        self.op = header.op;
        self.named = *header;
        self.identity = header.frame.checksum;
    }

    fn want(&mut self, op: u64, identity: u128) {
        self.op = op;
        self.identity = identity;
        if self.state == State::Unknown {
            self.state = State::Lost;
        }
    }
}

/// Where the log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conclusion {
    /// The highest op that the journal or the view headers know.
    pub head: u64,
    /// Identity of its prepare.
    pub head_identity: u128,
    /// Whether this replica has certainly acknowledged nothing above the head, and the head is not damaged.
    pub head_certain: bool,
    /// The highest op that may have been acknowledged here.
    pub op_max: u64,
    /// The journal holds this op, from beyond what the checkpoint allows: the superblock has gone back in time.
    pub regressed: Option<u64>,
}

/// Why the journal cannot be used as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// An acknowledged prepare is damaged and there is no other replica.
    #[error(
        "the prepare of op {op} (journal slot {slot}) is damaged or missing, and may have been acknowledged; there is no other replica to fetch it from. Restore the data file from a backup"
    )]
    Lost {
        /// The op.
        op: u64,
        /// Its slot.
        slot: usize,
    },
    /// The slot is unreadable, may hold an acknowledged prepare, and there is no other replica.
    #[error(
        "journal slot {slot} is unreadable and may have held an acknowledged prepare of op {op}; there is no other replica to ask. Restore the data file from a backup"
    )]
    Unknown {
        /// The op.
        op: u64,
        /// Its slot.
        slot: usize,
    },
    /// The superblock is older than the journal and there is no other replica.
    #[error(
        "journal slot {slot} holds op {op}, which the superblock's checkpoint does not allow yet: the superblock is older than the journal. Restore the whole data file"
    )]
    Regressed {
        /// The op.
        op: u64,
        /// Its slot.
        slot: usize,
    },
    /// The log does not continue the checkpoint.
    #[error(
        "the prepare of op {op} (journal slot {slot}) does not continue the op before it: its parent is {found:032x}, and that op's identity is {expected:032x}"
    )]
    Chain {
        /// The op whose parent is wrong.
        op: u64,
        /// Its slot.
        slot: usize,
        /// The identity of op - 1.
        expected: u128,
        /// The parent it names.
        found: u128,
    },
}

/// Twice the pipeline: within this many ops after its own, a prepare's redundant header is durable.
pub const fn lag_max(pipeline_max: u32) -> u64 {
    2 * pipeline_max as u64
}

/// What [`settle`] looks at besides the slots.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a> {
    /// Checkpoint and view.
    pub window: Window<'a>,
    /// Identity of the checkpoint's op.
    pub checkpoint_identity: u128,
    /// Decisions, by slot.
    pub decisions: &'a [Decision],
    /// The redundant headers, by slot.
    pub redundant: &'a [Prepare],
    /// Slots whose op was found, as a current prepare, in another slot.
    pub misplaced: &'a Bits,
    /// [`lag_max`].
    pub lag: u64,
    /// The cluster has one replica.
    pub solo: bool,
    /// An op from beyond the window.
    pub beyond: Option<u64>,
}

/// Looks over the ring. On entry each slot has the op, and the header as `named`, that its decision speaks of; on
/// return also its state and identity. Slots of ops up to the checkpoint keep what they have.
///
/// # Errors
/// [`Refusal`].
pub fn settle(ring: &Ring<'_>, slots: &mut [Slot]) -> Result<Conclusion, Refusal> {
    let window = &ring.window;
    assert_eq!(slots.len() as u64, window.slots);
    if let (true, Some(op)) = (ring.solo, ring.beyond) {
        let slot = window.slot_of(op);
        return Err(Refusal::Regressed { op, slot });
    }
    for (slot, &decision) in ring.decisions.iter().enumerate() {
        apply(ring, slot, decision, &mut slots[slot]);
    }
    clear_unknowns(ring, slots);
    name_listed(ring, slots);
    let mut conclusion = find_head(ring, slots);
    chain(ring, slots, &conclusion)?;
    if ring.solo {
        let cut = find_cut(ring, slots)?;
        for op in cut + 1..=window.op_max() {
            let slot = &mut slots[window.slot_of(op)];
            if slot.op == op {
                slot.clear(op);
            }
        }
        conclusion = find_head(ring, slots);
        assert!(conclusion.head == cut && conclusion.head_certain);
    }
    assert!(conclusion.head >= window.checkpoint_op && conclusion.op_max >= conclusion.head);
    Ok(conclusion)
}

fn apply(ring: &Ring<'_>, index: usize, decision: Decision, slot: &mut Slot) {
    let op = ring.window.op_of(index);
    let named = match decision {
        Decision::LostHeader => Some(ring.redundant[index]),
        Decision::Present
        | Decision::Clean
        | Decision::Torn
        | Decision::LostPrepare
        | Decision::Conflict => Some(slot.named),
        Decision::Absent | Decision::Unknown | Decision::Regressed => None,
    };
    slot.state = match decision {
        // Rule 1: the prepare was acknowledged, perhaps, and its write went astray.
        Decision::Absent if ring.misplaced.contains(index) => State::Unknown,
        Decision::Absent => State::Absent,
        Decision::Present | Decision::Clean => State::Present,
        Decision::Torn => State::Torn,
        Decision::LostHeader | Decision::LostPrepare | Decision::Conflict => State::Lost,
        Decision::Unknown | Decision::Regressed => State::Unknown,
    };
    if let Some(named) = named {
        assert_eq!(named.op, op);
        slot.name(&named);
    } else if slot.state != State::Absent || slot.op > ring.window.checkpoint_op {
        slot.op = op;
        slot.identity = 0;
    }
}

/// How op is held; a slot that still speaks of an op of an earlier wrap holds nothing of this one.
fn state_of(window: &Window<'_>, slots: &[Slot], op: u64) -> State {
    let slot = &slots[window.slot_of(op)];
    if slot.op == op {
        slot.state
    } else {
        State::Absent
    }
}

/// Rule 2: an op is acknowledged only when those from 2W to W before it are durable in both rings. Downwards, so that
/// what this rule makes absent proves nothing itself: it was not acknowledged, but may have been durable.
fn clear_unknowns(ring: &Ring<'_>, slots: &mut [Slot]) {
    let window = &ring.window;
    let lowest = window.checkpoint_op + 1;
    for op in (lowest..=window.op_max()).rev() {
        if state_of(window, slots, op) != State::Unknown {
            continue;
        }
        let from = op.saturating_sub(2 * ring.lag).max(lowest);
        let never_acked = (from..=op.saturating_sub(ring.lag))
            .any(|before| matches!(state_of(window, slots, before), State::Absent | State::Torn));
        if never_acked {
            slots[window.slot_of(op)].clear(op);
        }
    }
}

/// An op that the view headers name has that identity, whatever happened to it here.
fn name_listed(ring: &Ring<'_>, slots: &mut [Slot]) {
    for header in ring.window.view.headers {
        if !ring.window.is_current(header) {
            continue;
        }
        let slot = &mut slots[ring.window.slot_of(header.op)];
        if slot.op != header.op || slot.identity == 0 {
            slot.name(header);
            slot.want(header.op, header.frame.checksum);
        }
        assert_eq!(slot.identity, header.frame.checksum);
    }
}

fn find_head(ring: &Ring<'_>, slots: &[Slot]) -> Conclusion {
    let window = &ring.window;
    let mut head = window.checkpoint_op;
    let mut op_max = head;
    for op in window.checkpoint_op + 1..=window.op_max() {
        let slot = &slots[window.slot_of(op)];
        if slot.op == op && slot.identity != 0 {
            head = op;
            op_max = op;
        } else if state_of(window, slots, op) == State::Unknown {
            op_max = op;
        }
    }
    let at_checkpoint = head == window.checkpoint_op;
    let damaged =
        !at_checkpoint && matches!(state_of(window, slots, head), State::Lost | State::Unknown);
    Conclusion {
        head,
        head_identity: if at_checkpoint {
            ring.checkpoint_identity
        } else {
            slots[window.slot_of(head)].identity
        },
        head_certain: op_max == head && !damaged && ring.beyond.is_none(),
        op_max,
        regressed: ring.beyond,
    }
}

/// Walks the hash chain down from the head, which the view headers or the view vouch for. A prepare that the chain
/// does not name is not the log's: the named one is wanted in its place, and what is there is served by identity only.
fn chain(ring: &Ring<'_>, slots: &mut [Slot], end: &Conclusion) -> Result<(), Refusal> {
    let window = &ring.window;
    let mut expected = Some(end.head_identity);
    for op in (window.checkpoint_op + 1..=end.head).rev() {
        let index = window.slot_of(op);
        let redundant = &ring.redundant[index];
        let conflict = ring.decisions[index] == Decision::Conflict;
        let slot = &mut slots[index];
        let vouched = op >= window.view.head() || window.view.of(op).is_some();
        if let Some(identity) = expected {
            if slot.op != op || slot.identity == 0 {
                if slot.op != op {
                    slot.clear(op);
                }
                slot.want(op, identity);
            } else if slot.identity == identity {
                if conflict {
                    slot.state = State::Present;
                }
            } else if vouched {
                let found = identity;
                let expected = slot.identity;
                let (op, slot) = (op + 1, window.slot_of(op + 1));
                return Err(Refusal::Chain {
                    op,
                    slot,
                    expected,
                    found,
                });
            } else {
                slot.state = State::Lost;
                slot.identity = identity;
                if conflict && redundant.frame.checksum == identity {
                    slot.name(redundant);
                }
            }
        } else if conflict {
            slot.identity = 0;
            slot.state = State::Unknown;
        }
        let trusted = expected.is_some() || vouched;
        expected = slot
            .header()
            .filter(|_| slot.op == op && trusted)
            .map(|header| header.parent);
        if let (Some(found), true) = (expected, op == window.checkpoint_op + 1)
            && found != ring.checkpoint_identity
        {
            let expected = ring.checkpoint_identity;
            return Err(Refusal::Chain {
                op,
                slot: index,
                expected,
                found,
            });
        }
    }
    chain_below(ring, slots);
    Ok(())
}

/// On from the checkpoint downwards: what the chain names there is committed, and serves peers that lag.
fn chain_below(ring: &Ring<'_>, slots: &mut [Slot]) {
    let window = &ring.window;
    let mut expected = ring.checkpoint_identity;
    let lowest = (window.checkpoint_op + 1)
        .saturating_sub(window.slots)
        .max(1);
    for op in (lowest..=window.checkpoint_op).rev() {
        let slot = &mut slots[window.slot_of(op)];
        if slot.op != op || slot.named.op != op || slot.named.frame.checksum != expected {
            break;
        }
        slot.identity = expected;
        slot.state = State::Present;
        expected = slot.named.parent;
    }
}

/// Rule 4, for a cluster of one: the log ends before the first op that was not acknowledged.
fn find_cut(ring: &Ring<'_>, slots: &[Slot]) -> Result<u64, Refusal> {
    let window = &ring.window;
    for op in window.checkpoint_op + 1..=window.op_max() {
        let slot = window.slot_of(op);
        match state_of(window, slots, op) {
            State::Present => (),
            State::Unknown => return Err(Refusal::Unknown { op, slot }),
            State::Lost => return Err(Refusal::Lost { op, slot }),
            // The view headers of a single replica name only what was durable.
            State::Absent | State::Torn if op <= window.view.head() => {
                return Err(Refusal::Lost { op, slot });
            }
            State::Absent | State::Torn => return Ok(op - 1),
        }
    }
    Ok(window.op_max())
}
