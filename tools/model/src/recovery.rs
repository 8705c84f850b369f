//! Opens a journal with the real decision: real headers and sectors, classified, looked up in the table, and settled over
//! the ring.

use crate::Bounds;
use crate::journal::{Journal, SLOTS, state};
use crate::prepares::{CLUSTER, GARBAGE, Id, NONE, Prepares};
use std::collections::BTreeMap;
use storage::SECTOR_SIZE;
use storage::bits::Bits;
use storage::buffer::AlignedBuffer;
use storage::header::{HEADER_SIZE, Header, Prepare};
use storage::layout::JournalAck;
use storage::recovery::{
    Body, Decision, Evidence, FirstSector, Fix, PrepareClass, Refusal, Ring, Slot, State,
    ViewHeaders, Window, decide, lag_max, settle,
};
use zerocopy::{FromZeros, IntoBytes};

/// All that the conclusion depends on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Disk {
    /// The durable checkpoint's prepare.
    pub checkpoint: Id,
    /// The durable log_view.
    pub log_view: u8,
    /// The durable headers, by op; [`NONE`] where not known.
    pub list: [Id; 1 + crate::cluster::OPS],
    /// Both rings: prepare and redundant header.
    pub rings: [(Id, Id); SLOTS],
}

/// A journal that is open.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// The journal, its redundant headers mended.
    pub journal: Journal,
    /// The highest op that is known.
    pub head: u8,
    /// Whether nothing above it can have been acknowledged.
    pub certain: bool,
    /// The highest op that may have been.
    pub op_max: u8,
}

/// The conclusions that were drawn already.
#[derive(Default)]
pub struct Recovery {
    known: BTreeMap<Disk, Result<Opened, Refusal>>,
}

impl Recovery {
    /// Opens a journal.
    ///
    /// # Errors
    /// The log is not a chain.
    pub fn open(
        &mut self,
        bounds: &Bounds,
        prepares: &Prepares,
        disk: &Disk,
    ) -> Result<Opened, Refusal> {
        if let Some(opened) = self.known.get(disk) {
            return *opened;
        }
        let opened = conclude(bounds, prepares, disk);
        self.known.insert(*disk, opened);
        opened
    }
}

fn header_at(prepares: &Prepares, slot: usize, id: Id) -> Prepare {
    match id {
        NONE => Prepare::reserved_slot(CLUSTER, slot as u64),
        GARBAGE => {
            let mut broken = Prepare::reserved_slot(CLUSTER, slot as u64);
            broken.timestamp = 1;
            broken
        }
        id => *prepares.header(id),
    }
}

fn sector_at(prepares: &Prepares, slot: usize, id: Id) -> AlignedBuffer {
    let mut sector = AlignedBuffer::new(SECTOR_SIZE);
    if id == NONE || id == GARBAGE {
        let header = header_at(prepares, slot, id);
        sector[..HEADER_SIZE].copy_from_slice(header.as_bytes());
    } else {
        sector.copy_from_slice(prepares.sector(id));
    }
    sector
}

/// As `storage::journal` fills a slot before anything is decided.
fn hold(window: &Window<'_>, found: FirstSector, header: &Header, slot: usize) -> Slot {
    let mut held = Slot {
        op: window.op_of(slot),
        state: State::Absent,
        identity: 0,
        named: Prepare::new_zeroed(),
        disk: 0,
        disk_size: 0,
    };
    if let PrepareClass::Stale | PrepareClass::Current = found.class {
        let prepare = header.typed::<Prepare>();
        held.named = *prepare;
        held.disk_size = prepare.frame.size;
        if prepare.op <= window.checkpoint_op {
            held.op = prepare.op;
        }
        if found.body != Body::Bad {
            held.disk = prepare.frame.checksum;
        }
    }
    held
}

fn conclude(bounds: &Bounds, prepares: &Prepares, disk: &Disk) -> Result<Opened, Refusal> {
    let list: Vec<Prepare> = disk
        .list
        .iter()
        .filter(|&&id| id != NONE)
        .map(|&id| *prepares.header(id))
        .collect();
    let count = usize::from(bounds.slots);
    let checkpoint_op = prepares.op(disk.checkpoint);
    let window = Window {
        cluster: CLUSTER,
        slots: bounds.slots.into(),
        message_size_max: SECTOR_SIZE,
        checkpoint_op: checkpoint_op.into(),
        view: ViewHeaders {
            log_view: disk.log_view.into(),
            headers: &list,
        },
    };
    let mut journal = Journal::default();
    let mut slots = Vec::new();
    let mut decisions = Vec::new();
    let mut redundant = Vec::new();
    for (index, &(prepare, header)) in disk.rings[..count].iter().enumerate() {
        let sector = sector_at(prepares, index, prepare);
        let found = window.classify_prepare(&sector, index);
        assert!(
            found.class != PrepareClass::Beyond,
            "the window only moves up"
        );
        let held = hold(&window, found, Header::of(&sector), index);
        let h = header_at(prepares, index, header);
        let evidence = Evidence::new(&window, index, &h, found, &held.named);
        let (decision, fix) = decide(&evidence, JournalAck::Single, false);
        let mended = match fix {
            Fix::None => header,
            Fix::Prepare => prepare,
            Fix::Reserved => NONE,
        };
        slots.push(held);
        decisions.push(decision);
        redundant.push(h);
        let slot = &mut journal.slots[index];
        (slot.prepare, slot.header, slot.image) = (prepare, mended, mended);
    }
    let ring = Ring {
        window,
        checkpoint_identity: prepares.header(disk.checkpoint).frame.checksum,
        decisions: &decisions,
        redundant: &redundant,
        misplaced: &Bits::new(count),
        lag: lag_max(bounds.pipeline.into()),
        solo: false,
        beyond: None,
    };
    let conclusion = settle(&ring, &mut slots)?;
    for (index, held) in slots.iter().enumerate() {
        let conflict = decisions[index] == Decision::Conflict;
        believe(prepares, held, conflict, &mut journal.slots[index]);
    }
    Ok(Opened {
        journal,
        head: conclusion.head as u8,
        certain: conclusion.head_certain,
        op_max: conclusion.op_max as u8,
    })
}

/// What is concluded of a slot, in the model's terms.
fn believe(prepares: &Prepares, held: &Slot, conflict: bool, slot: &mut crate::journal::Slot) {
    slot.op = held.op as u8;
    slot.state = match held.state {
        State::Absent => state::ABSENT,
        State::Present => state::PRESENT,
        State::Lost => state::LOST,
        State::Unknown => state::UNKNOWN,
        State::Torn => unreachable!("one sector is never torn"),
    };
    slot.name(prepares.of(held.identity), held.header().is_some());
    if conflict && held.state == State::Present {
        (slot.header, slot.image) = (slot.prepare, slot.prepare);
    }
}
