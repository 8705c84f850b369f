//! What a disk holds: the content of each sector, and which older or newer contents a power cut may leave instead.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use storage::{SECTOR_SIZE, checksum};

/// A sector's content; none: zeros.
pub(super) type Sector = Option<Rc<[u8]>>;

/// Sectors in a chunk: the unit that a kept state shares with the disk until it changes.
const CHUNK_SECTORS: usize = 64;

type Chunk = Rc<[Sector; CHUNK_SECTORS]>;

/// The unit that a power cut leaves old or new, never mixed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tear {
    /// A sector: what the journal's one-write ack is allowed to count on.
    Sector,
    /// 512 bytes: devices whose physical sector is smaller than ours.
    Bytes512,
}

impl Tear {
    fn unit(self) -> usize {
        match self {
            Self::Sector => SECTOR_SIZE,
            Self::Bytes512 => 512,
        }
    }
}

/// A sector that is not what was last made durable.
#[derive(Clone, Debug)]
struct History {
    /// What a power cut may leave besides the live content, oldest first; the first is durable. With each, the number
    /// of the completion that wrote it.
    older: Vec<(u64, Sector)>,
    /// The completion that wrote the live content.
    live: u64,
}

/// A write in flight.
#[derive(Clone, Debug)]
struct Write {
    first: u64,
    sectors: Vec<Sector>,
}

impl Write {
    fn end(&self) -> u64 {
        self.first + self.sectors.len() as u64
    }
}

/// What a disk holds. Cloning shares all content.
#[derive(Clone, Debug)]
pub struct DiskState {
    size: u64,
    /// What a read sees.
    chunks: Vec<Chunk>,
    histories: BTreeMap<u64, History>,
    /// A handful, in no order.
    writes: Vec<Write>,
    completions: u64,
}

impl DiskState {
    /// `size` bytes of durable zeros.
    pub fn new(size: u64) -> Self {
        assert!(size > 0 && size.is_multiple_of(SECTOR_SIZE as u64));
        let sectors = (size / SECTOR_SIZE as u64) as usize;
        let empty: Chunk = Rc::new([const { None }; CHUNK_SECTORS]);
        Self {
            size,
            chunks: vec![empty; sectors.div_ceil(CHUNK_SECTORS)],
            histories: BTreeMap::new(),
            writes: Vec::new(),
            completions: 0,
        }
    }

    /// Size, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes completed so far.
    pub fn completions(&self) -> u64 {
        self.completions
    }

    /// Writes in flight.
    pub fn writes_in_flight(&self) -> usize {
        self.writes.len()
    }

    /// Whether no write is in flight.
    pub fn in_flight_is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether a power cut now would change nothing.
    pub fn is_durable(&self) -> bool {
        self.writes.is_empty() && self.histories.is_empty()
    }

    /// What a read of sector `index` sees.
    pub fn sector(&self, index: u64) -> &[u8] {
        match self.content(index) {
            Some(content) => content,
            None => &[0; SECTOR_SIZE],
        }
    }

    /// Whether a write into any of these sectors is in flight.
    pub fn is_writing(&self, at: u64, size: usize) -> bool {
        let first = at / SECTOR_SIZE as u64;
        let end = first + (size / SECTOR_SIZE) as u64;
        let meets = |write: &Write| write.first < end && first < write.end();
        self.writes.iter().any(meets)
    }

    /// Whether the sector at `at` would read the same after any power cut.
    pub fn is_sector_durable(&self, at: u64) -> bool {
        let index = at / SECTOR_SIZE as u64;
        !self.histories.contains_key(&index) && !self.is_writing(at, SECTOR_SIZE)
    }

    /// Reads whole sectors from offset `at`.
    pub fn read(&self, at: u64, into: &mut [u8]) {
        let first = self.check(at, into.len());
        for (index, bytes) in (first..).zip(into.chunks_exact_mut(SECTOR_SIZE)) {
            bytes.copy_from_slice(self.sector(index));
        }
    }

    /// Replaces whole sectors from offset `at`, durably, behind everybody's back: how tests damage a disk.
    pub fn overwrite(&mut self, at: u64, bytes: &[u8]) {
        let first = self.check(at, bytes.len());
        for (index, bytes) in (first..).zip(bytes.chunks_exact(SECTOR_SIZE)) {
            self.histories.remove(&index);
            *self.content_mut(index) = sector_of(bytes);
        }
    }

    /// The first sector of a range, which must be inside the disk.
    fn check(&self, at: u64, size: usize) -> u64 {
        let sector = SECTOR_SIZE as u64;
        assert!(at.is_multiple_of(sector) && size.is_multiple_of(SECTOR_SIZE) && size > 0);
        assert!(at + size as u64 <= self.size, "beyond the end of the disk");
        at / sector
    }

    fn content(&self, index: u64) -> &Sector {
        let index = index as usize;
        &self.chunks[index / CHUNK_SECTORS][index % CHUNK_SECTORS]
    }

    fn content_mut(&mut self, index: u64) -> &mut Sector {
        let index = index as usize;
        &mut Rc::make_mut(&mut self.chunks[index / CHUNK_SECTORS])[index % CHUNK_SECTORS]
    }

    /// Begins a write: from now a power cut may leave any of its sectors.
    pub(super) fn begin_write(&mut self, at: u64, bytes: &[u8]) {
        let first = self.check(at, bytes.len());
        assert!(
            !self.is_writing(at, bytes.len()),
            "two writes in flight to sector {first} or beyond"
        );
        let sectors = bytes.chunks_exact(SECTOR_SIZE).map(sector_of).collect();
        self.writes.push(Write { first, sectors });
    }

    fn take_write(&mut self, at: u64) -> Write {
        let first = at / SECTOR_SIZE as u64;
        let found = self.writes.iter().position(|write| write.first == first);
        self.writes.swap_remove(found.expect("the write has begun"))
    }

    /// Completes the write that began at offset `at`.
    pub(super) fn finish_write(&mut self, at: u64, durable: bool) {
        let write = self.take_write(at);
        self.completions += 1;
        let completion = self.completions;
        for (index, content) in (write.first..).zip(write.sectors) {
            let old = std::mem::replace(self.content_mut(index), content);
            if durable {
                if !self.histories.is_empty() {
                    self.histories.remove(&index);
                }
                retire(old);
            } else {
                let history = self.histories.entry(index).or_insert(History {
                    older: Vec::new(),
                    live: 0,
                });
                history.older.push((history.live, old));
                history.live = completion;
            }
        }
    }

    /// Ends the write that began at offset `at` as if it had never been.
    pub(super) fn cancel_write(&mut self, at: u64) {
        self.take_write(at);
    }

    /// Ends the write that began at `at`, and puts its content somewhere else, durably.
    pub(super) fn misplace_write(&mut self, at: u64, to: u64) {
        let write = self.take_write(at);
        assert!(!self.is_writing(to, write.sectors.len() * SECTOR_SIZE));
        let first = to / SECTOR_SIZE as u64;
        self.put(first, write.sectors);
    }

    /// The contents of whole sectors, to be put back later.
    pub(super) fn contents(&self, at: u64, size: usize) -> Vec<Sector> {
        let first = self.check(at, size);
        (first..first + (size / SECTOR_SIZE) as u64)
            .map(|index| self.content(index).clone())
            .collect()
    }

    /// Puts contents where they were, or elsewhere, durably.
    pub(super) fn put(&mut self, first: u64, sectors: Vec<Sector>) {
        for (index, content) in (first..).zip(sectors) {
            self.histories.remove(&index);
            *self.content_mut(index) = content;
        }
    }

    /// Makes the writes of the first `covers` completions durable.
    pub(super) fn finish_sync(&mut self, covers: u64) {
        self.histories.retain(|_, history| {
            if history.live <= covers {
                return false;
            }
            let newest_covered = history.older.iter().rposition(|entry| entry.0 <= covers);
            if let Some(position) = newest_covered {
                history.older.drain(..position);
            }
            true
        });
    }

    /// Begins a power cut: what is undecided, for the caller to decide.
    pub fn cut(&self, tear: Tear) -> Cut<'_> {
        let mut sectors: BTreeMap<u64, Vec<Sector>> = BTreeMap::new();
        for (&index, history) in &self.histories {
            let mut candidates: Vec<Sector> =
                history.older.iter().map(|entry| entry.1.clone()).collect();
            candidates.push(self.content(index).clone());
            sectors.insert(index, candidates);
        }
        let mut writes: Vec<&Write> = self.writes.iter().collect();
        writes.sort_unstable_by_key(|write| write.first);
        for write in writes {
            for (index, content) in (write.first..).zip(&write.sectors) {
                sectors
                    .entry(index)
                    .or_insert_with(|| vec![self.content(index).clone()])
                    .push(content.clone());
            }
        }
        Cut {
            state: self,
            tear,
            sectors: sectors.into_iter().collect(),
        }
    }
}

thread_local! {
    /// Memory of sectors that nobody refers to any more, for the next ones.
    static SPARE: RefCell<Vec<Rc<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Most sectors whose memory is kept.
const SPARE_MAX: usize = 4096;

fn sector_of(bytes: &[u8]) -> Sector {
    assert_eq!(bytes.len(), SECTOR_SIZE);
    if checksum::is_zero(bytes) {
        return None; // zeros are most of a fresh data file; they cost nothing here
    }
    let spare = SPARE.with_borrow_mut(Vec::pop);
    Some(match spare {
        Some(mut sector) => {
            let content = Rc::get_mut(&mut sector).expect("a spare is nobody's");
            content.copy_from_slice(bytes);
            sector
        }
        None => Rc::from(bytes),
    })
}

/// Keeps the memory of a sector's content, if nobody else refers to it.
fn retire(sector: Sector) {
    let Some(mut sector) = sector else { return };
    if Rc::get_mut(&mut sector).is_some() {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAX {
                spare.push(sector);
            }
        });
    }
}

/// A unit whose content after the cut is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Undecided {
    /// Its offset, in bytes.
    pub at: u64,
    /// Its size, in bytes.
    pub size: usize,
    /// How many contents it may have; the first is the newest durable one, the last the newest written.
    pub candidates: u32,
}

/// A power cut about to be decided.
#[derive(Debug)]
pub struct Cut<'a> {
    state: &'a DiskState,
    tear: Tear,
    sectors: Vec<(u64, Vec<Sector>)>,
}

/// A decided power cut.
#[derive(Debug)]
pub struct Outcome {
    /// What the disk holds now, all of it durable.
    pub state: DiskState,
    /// Writes in flight of which a part landed.
    pub torn: u64,
    /// Writes in flight that landed whole.
    pub landed: u64,
    /// Sectors of completed writes that fell back to something older.
    pub unsynced_lost: u64,
}

impl Cut<'_> {
    /// Everything that is undecided, in order of offsets: what [`Cut::decide`] will ask for.
    pub fn undecided(&self) -> Vec<Undecided> {
        let unit = self.tear.unit();
        let of_sector = |(index, candidates): &(u64, Vec<Sector>)| {
            let at = index * SECTOR_SIZE as u64;
            let candidates = candidates.len() as u32;
            (0..SECTOR_SIZE / unit).map(move |part| Undecided {
                at: at + (part * unit) as u64,
                size: unit,
                candidates,
            })
        };
        self.sectors.iter().flat_map(of_sector).collect()
    }

    /// Decides: `choose` tells which candidate each undecided unit takes, in order of offsets.
    pub fn decide(&self, mut choose: impl FnMut(Undecided) -> u32) -> Outcome {
        let mut outcome = Outcome {
            state: DiskState {
                histories: BTreeMap::new(),
                writes: Vec::new(),
                ..self.state.clone()
            },
            torn: 0,
            landed: 0,
            unsynced_lost: 0,
        };
        // Units that took a write in flight, by sector: to tell torn from landed.
        let mut newest: BTreeMap<u64, usize> = BTreeMap::new();
        let unit = self.tear.unit();
        for (index, candidates) in &self.sectors {
            let mut choices = [0; SECTOR_SIZE / 512];
            for (part, choice) in choices.iter_mut().take(SECTOR_SIZE / unit).enumerate() {
                *choice = choose(Undecided {
                    at: index * SECTOR_SIZE as u64 + (part * unit) as u64,
                    size: unit,
                    candidates: candidates.len() as u32,
                }) as usize;
                assert!(*choice < candidates.len());
            }
            let choices = &choices[..SECTOR_SIZE / unit];
            *outcome.state.content_mut(*index) = compose(candidates, choices);
            let live = self.state.histories.get(index).map_or(0, |h| h.older.len());
            outcome.unsynced_lost += u64::from(choices.iter().any(|&choice| choice < live));
            newest.insert(
                *index,
                choices.iter().filter(|&&choice| choice > live).count(),
            );
        }
        for write in &self.state.writes {
            let units = newest.range(write.first..write.end());
            let landed: usize = units.map(|entry| entry.1).sum();
            let whole = landed == write.sectors.len() * (SECTOR_SIZE / unit);
            outcome.landed += u64::from(whole);
            outcome.torn += u64::from(landed > 0 && !whole);
        }
        outcome
    }
}

/// A sector whose parts come from the chosen candidates.
fn compose(candidates: &[Sector], choices: &[usize]) -> Sector {
    if choices.iter().all(|&choice| choice == choices[0]) {
        return candidates[choices[0]].clone();
    }
    let unit = SECTOR_SIZE / choices.len();
    let mut bytes = [0; SECTOR_SIZE];
    for (part, &choice) in choices.iter().enumerate() {
        if let Some(content) = &candidates[choice] {
            let range = part * unit..(part + 1) * unit;
            bytes[range.clone()].copy_from_slice(&content[range]);
        }
    }
    sector_of(&bytes)
}
