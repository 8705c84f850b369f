//! Opening: reads the ring of headers and the first sector of every slot, then the bodies of ops above the
//! checkpoint, decides, and writes the redundant headers that are missing. Each phase keeps several reads in flight,
//! into buffers that are given back when the journal is open.

use super::{HEADER_WRITES_MAX, Journal, JournalEvent, Purpose, Recovered, Rules};
use crate::bits::Bits;
use crate::buffer::AlignedBuffer;
use crate::checksum;
use crate::header::{HEADER_SIZE, Header, Prepare};
use crate::io::{Buffer, IoQueue, IoRequest};
use crate::layout::{Layout, PIPELINE_MAX};
use crate::recovery::{
    Body, Conclusion, Decision, Evidence, FirstSector, Fix, HeaderClass, PrepareClass, Refusal,
    Ring, Slot, State, ViewHeaders, Window, decide, lag_max, settle,
};
use crate::{SECTOR_SIZE, sector_ceil};

/// First sectors read at once.
const FIRSTS_MAX: usize = 32;

/// Bodies, or runs of headers, read at once.
const RUNS_MAX: usize = 4;

/// Largest run of a body or of headers in one read, in bytes.
const RUN_SIZE_MAX: usize = 256 << 10;

/// I/O in flight while opening, at most.
pub(super) const READS_MAX: usize = FIRSTS_MAX + RUNS_MAX + HEADER_WRITES_MAX;

/// Most view headers that a superblock keeps: enough for three pipelines and the op before.
const VIEW_HEADERS_MAX: usize = 3 * PIPELINE_MAX as usize + 1;

/// A read while opening.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Redundant headers, from this slot.
    Headers { slot: usize, size: usize },
    /// A first sector.
    First { slot: usize },
    /// A run of a prepare, from this offset; the sum of what came before.
    Body { slot: usize, at: usize, sum: u32 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Headers,
    Firsts,
    Bodies,
    Fixes,
}

#[derive(Debug)]
pub(super) struct Opening {
    phase: Phase,
    /// The next slot of the phase.
    cursor: usize,
    firsts: Vec<AlignedBuffer>,
    runs: Vec<AlignedBuffer>,
    reading: usize,
    /// A body whose next run waits to be read: one for each that has just come.
    continued: Vec<Step>,
    found: Box<[FirstSector]>,
    decisions: Box<[Decision]>,
    misplaced: Bits,
    beyond: Option<u64>,
    view_headers: Vec<Prepare>,
    checkpoint_identity: u128,
    solo: bool,
    conclusion: Option<Conclusion>,
}

/// What a slot holds by its first sector, before anything is decided.
pub(super) fn hold(
    window: &Window<'_>,
    found: FirstSector,
    header: &Header,
    slot: usize,
    held: &mut Slot,
) {
    held.clear(window.op_of(slot));
    if let PrepareClass::Stale | PrepareClass::Current | PrepareClass::Beyond = found.class {
        let prepare = header.typed::<Prepare>();
        held.named = *prepare;
        held.disk_size = prepare.frame.size;
        if prepare.op <= window.checkpoint_op {
            held.op = prepare.op;
        }
        // Of what is not verified now, reading verifies later. Except of what no log names now and one may name again: that
        // would be claimed, and acknowledged, without a look at it.
        let leftover = found.class == PrepareClass::Stale && prepare.op > window.checkpoint_op;
        held.disk = if found.body == Body::Bad || leftover && found.body == Body::Unread {
            0
        } else {
            prepare.frame.checksum
        };
    }
}

/// The slot to which a current prepare that lies in a wrong one belongs.
pub(super) fn astray(window: &Window<'_>, found: FirstSector, header: &Header) -> Option<usize> {
    let misplaced = found.class == PrepareClass::Misplaced && window.is_prepare(header);
    let prepare = misplaced.then(|| header.typed::<Prepare>())?;
    window
        .is_current(prepare)
        .then(|| window.slot_of(prepare.op))
}

fn run_size(layout: &Layout) -> usize {
    RUN_SIZE_MAX.min(layout.geometry.message_size_max as usize)
}

impl Opening {
    pub(super) fn new(layout: &Layout) -> Self {
        let slots = layout.geometry.slots as usize;
        let found = FirstSector {
            class: PrepareClass::Invalid,
            body: Body::Bad,
            suspect: false,
        };
        let sectors =
            |count: usize, size| (0..count).map(|_| AlignedBuffer::scratch(size)).collect();
        Self {
            phase: Phase::Headers,
            cursor: 0,
            firsts: sectors(FIRSTS_MAX, SECTOR_SIZE),
            runs: sectors(RUNS_MAX, run_size(layout)),
            reading: 0,
            continued: Vec::with_capacity(RUNS_MAX),
            found: vec![found; slots].into_boxed_slice(),
            decisions: vec![Decision::Unknown; slots].into_boxed_slice(),
            misplaced: Bits::new(slots),
            beyond: None,
            view_headers: Vec::with_capacity(VIEW_HEADERS_MAX),
            checkpoint_identity: 0,
            solo: false,
            conclusion: None,
        }
    }

    pub(super) fn memory(layout: &Layout) -> usize {
        FIRSTS_MAX * SECTOR_SIZE
            + RUNS_MAX * run_size(layout)
            + VIEW_HEADERS_MAX * HEADER_SIZE
            + layout.geometry.slots as usize * (size_of::<FirstSector>() + size_of::<Decision>())
    }

    fn window(
        &self,
        layout: &Layout,
        cluster: u128,
        checkpoint_op: u64,
        log_view: u32,
    ) -> Window<'_> {
        Window {
            cluster,
            slots: u64::from(layout.geometry.slots),
            message_size_max: layout.geometry.message_size_max as usize,
            checkpoint_op,
            view: ViewHeaders {
                log_view,
                headers: &self.view_headers,
            },
        }
    }
}

impl<R: Rules> Journal<R> {
    /// Starts opening: [`JournalEvent::Opened`] or [`JournalEvent::Refused`] will come.
    ///
    /// All but `solo` comes from the superblock: the durable checkpoint's op and its prepare's identity, log_view, and
    /// the headers that were durable with it (in any order; none only in view zero). `solo`: the cluster has one
    /// replica; the log is cut before the first op that was not acknowledged.
    pub fn open_start(
        &mut self,
        checkpoint_op: u64,
        checkpoint_prepare_checksum: u128,
        log_view: u32,
        view_headers: &[Prepare],
        solo: bool,
        io: &mut IoQueue,
    ) {
        assert!(log_view == 0 || !view_headers.is_empty());
        assert!(view_headers.len() <= VIEW_HEADERS_MAX);
        self.checkpoint_op = checkpoint_op;
        self.unverified_max = checkpoint_op;
        self.log_view = log_view;
        let opening = self.opening.as_mut().expect("a journal is opened once");
        assert!(opening.phase == Phase::Headers && opening.cursor == 0);
        opening.view_headers.extend_from_slice(view_headers);
        opening.checkpoint_identity = checkpoint_prepare_checksum;
        opening.solo = solo;
        let event = self.open_advance(io);
        assert!(matches!(event, JournalEvent::None));
    }

    fn open_read(
        &mut self,
        step: Step,
        at: u64,
        size: usize,
        buffer: AlignedBuffer,
        io: &mut IoQueue,
    ) {
        let opening = self.opening.as_mut().expect("opening");
        opening.reading += 1;
        let id = self.in_flight.begin(Purpose::Open(step));
        let buffer = Buffer::Sectors(buffer);
        io.push(IoRequest::Read {
            id,
            at,
            size,
            buffer,
        });
    }

    /// Keeps the phase's reads in flight, and goes on to the next phase when all have come.
    pub(super) fn open_advance(&mut self, io: &mut IoQueue) -> JournalEvent {
        loop {
            let phase = self.opening.as_ref().expect("opening").phase;
            match phase {
                Phase::Headers => self.read_headers(io),
                Phase::Firsts => self.read_firsts(io),
                Phase::Bodies => self.read_bodies(io),
                Phase::Fixes => return self.write_fixes(io),
            }
            let opening = self.opening.as_mut().expect("opening");
            if opening.reading > 0 {
                return JournalEvent::None;
            }
            assert_eq!(opening.cursor, self.slots.len());
            opening.cursor = 0;
            opening.phase = match phase {
                Phase::Headers => Phase::Firsts,
                Phase::Firsts => Phase::Bodies,
                Phase::Bodies | Phase::Fixes => Phase::Fixes,
            };
            if opening.phase == Phase::Fixes
                && let Err(refusal) = self.conclude()
            {
                return JournalEvent::Refused(refusal);
            }
        }
    }

    fn read_headers(&mut self, io: &mut IoQueue) {
        loop {
            let opening = self.opening.as_mut().expect("opening");
            let slot = opening.cursor;
            let rest = sector_ceil((self.slots.len() - slot) * HEADER_SIZE);
            if rest == 0 {
                return;
            }
            let Some(buffer) = opening.runs.pop() else {
                return;
            };
            let size = rest.min(buffer.len());
            opening.cursor = (slot + size / HEADER_SIZE).min(self.slots.len());
            let at = self.layout.header_sector_at(slot);
            self.open_read(Step::Headers { slot, size }, at, size, buffer, io);
        }
    }

    fn read_firsts(&mut self, io: &mut IoQueue) {
        loop {
            let opening = self.opening.as_mut().expect("opening");
            let slot = opening.cursor;
            if slot == self.slots.len() {
                return;
            }
            let Some(buffer) = opening.firsts.pop() else {
                return;
            };
            opening.cursor += 1;
            let at = self.layout.prepare_at(slot);
            self.open_read(Step::First { slot }, at, SECTOR_SIZE, buffer, io);
        }
    }

    fn read_bodies(&mut self, io: &mut IoQueue) {
        loop {
            let opening = self.opening.as_mut().expect("opening");
            let step = if let Some(step) = opening.continued.pop() {
                step
            } else {
                while opening.cursor < self.slots.len()
                    && !opening.found[opening.cursor].needs_body()
                {
                    opening.cursor += 1;
                }
                let slot = opening.cursor;
                if slot == self.slots.len() || opening.runs.is_empty() {
                    return;
                }
                opening.cursor += 1;
                Step::Body {
                    slot,
                    at: 0,
                    sum: 0,
                }
            };
            let Step::Body { slot, at, .. } = step else {
                unreachable!("only bodies are read in runs")
            };
            let buffer = opening.runs.pop().expect("as many as bodies in progress");
            let end = sector_ceil(self.slots[slot].disk_size as usize);
            let size = (end - at).min(buffer.len());
            let start = self.layout.prepare_at(slot) + at as u64;
            self.open_read(step, start, size, buffer, io);
        }
    }

    pub(super) fn on_open_read(&mut self, step: Step, buffer: Buffer) {
        let Buffer::Sectors(buffer) = buffer else {
            unreachable!("opening reads into sectors")
        };
        let opening = self.opening.as_mut().expect("opening");
        opening.reading -= 1;
        match step {
            Step::Headers { slot, size } => {
                for (index, bytes) in buffer[..size].chunks_exact(HEADER_SIZE).enumerate() {
                    if let Some(redundant) = self.redundant.get_mut(slot + index) {
                        *redundant.header_mut() = *Header::of(bytes);
                    }
                }
                opening.runs.push(buffer);
            }
            Step::First { slot } => self.on_first(slot, buffer),
            Step::Body { slot, at, sum } => self.on_body(slot, at, sum, buffer),
        }
    }

    fn on_first(&mut self, slot: usize, buffer: AlignedBuffer) {
        let (layout, cluster) = (self.layout, self.cluster);
        let (checkpoint_op, log_view) = (self.checkpoint_op, self.log_view);
        let opening = self.opening.as_mut().expect("opening");
        let window = opening.window(&layout, cluster, checkpoint_op, log_view);
        let found = window.classify_prepare(&buffer, slot);
        let header = Header::of(&buffer);
        hold(&window, found, header, slot, &mut self.slots[slot]);
        let astray = astray(&window, found, header);
        opening.found[slot] = found;
        if let Some(slot) = astray {
            opening.misplaced.insert(slot);
        }
        opening.firsts.push(buffer);
    }

    fn on_body(&mut self, slot: usize, at: usize, sum: u32, buffer: AlignedBuffer) {
        let held = &mut self.slots[slot];
        let size = held.disk_size as usize;
        let from = if at == 0 { HEADER_SIZE } else { 0 };
        let run = buffer.len().min(sector_ceil(size) - at);
        let to = run.min(size - at);
        let same = at > 0 || Header::of(&buffer) == held.named.header();
        let sum = checksum::body_sum_append(sum, &buffer[from..to]);
        let zeros = checksum::is_zero(&buffer[to..run]);
        let opening = self.opening.as_mut().expect("opening");
        opening.runs.push(buffer);
        if same && at + run < size {
            opening.continued.push(Step::Body {
                slot,
                at: at + run,
                sum,
            });
            return;
        }
        let good = same && zeros && sum == held.named.frame.checksum_body;
        if !good {
            held.disk = 0;
        }
        opening.found[slot] = opening.found[slot].with_body(good);
    }

    /// All is read: decides for each slot and over the ring, and marks the redundant headers to write.
    fn conclude(&mut self) -> Result<(), Refusal> {
        let (layout, cluster) = (self.layout, self.cluster);
        let (checkpoint_op, log_view) = (self.checkpoint_op, self.log_view);
        let mut opening = self.opening.take().expect("opening");
        let mut decisions = std::mem::take(&mut opening.decisions);
        let window = opening.window(&layout, cluster, checkpoint_op, log_view);
        let ack = layout.geometry.journal_ack();
        let mut beyond = None;
        for slot in 0..self.slots.len() {
            let (redundant, named) = (&self.redundant[slot], &self.slots[slot].named);
            let found = opening.found[slot];
            let evidence = Evidence::new(&window, slot, redundant, found, named);
            let (decision, fix) = decide(&evidence, ack, opening.solo);
            decisions[slot] = decision;
            if evidence.header == HeaderClass::Beyond {
                beyond = beyond.max(Some(self.redundant[slot].op));
            }
            if evidence.prepare == PrepareClass::Beyond {
                beyond = beyond.max(Some(self.slots[slot].named.op));
            }
            if evidence.header == HeaderClass::Invalid {
                *self.redundant[slot].header_mut() = Header::zeroed();
            }
            match fix {
                Fix::None => (),
                Fix::Prepare => {
                    let header = self.slots[slot].named;
                    self.set_redundant(slot, &header);
                }
                Fix::Reserved => {
                    self.set_redundant(slot, &Prepare::reserved_slot(cluster, slot as u64));
                }
            }
        }
        let ring = Ring {
            window,
            checkpoint_identity: opening.checkpoint_identity,
            decisions: &decisions,
            redundant: &self.redundant,
            misplaced: &opening.misplaced,
            lag: lag_max(layout.geometry.pipeline_max),
            solo: opening.solo,
            beyond,
        };
        let conclusion = settle(&ring, &mut self.slots)?;
        for slot in 0..self.slots.len() {
            if decisions[slot] == Decision::Conflict && self.slots[slot].state == State::Present {
                let header = self.slots[slot].named;
                self.set_redundant(slot, &header);
            }
        }
        self.regressed = beyond.is_some();
        if self.regressed {
            // Whose disk has lost something does not write on it: the next start must see the same.
            self.dirty.clear();
        }
        opening.beyond = beyond;
        opening.conclusion = Some(conclusion);
        self.opening = Some(opening);
        Ok(())
    }

    fn write_fixes(&mut self, io: &mut IoQueue) -> JournalEvent {
        self.write_headers(io);
        if !self.is_flushed() {
            return JournalEvent::None;
        }
        let opening = self.opening.take().expect("opening");
        let conclusion = opening.conclusion.expect("concluded before the fixes");
        assert_eq!(self.in_flight.used(), 0);
        JournalEvent::Opened(Recovered {
            head_op: conclusion.head,
            head_checksum: conclusion.head_identity,
            head_certain: conclusion.head_certain,
            op_max: conclusion.op_max,
            regressed: opening.beyond,
        })
    }
}
