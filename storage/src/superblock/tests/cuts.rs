//! Power cuts and kills at every write, exhaustively: a disk whose in-flight and cached sectors each survive or not,
//! over several lives of a process. After each, the file must open to what was last reported, or to what was being
//! written. The same exploration must fail when any one rule of [`Rules`] is broken.

use super::super::driver::{Rules, Sound, Superblock, SuperblockEvent};
use super::*;
use crate::io::{IoDone, IoError, IoQueue, IoRequest};
use crate::layout::Layout;
use std::cell::Cell;
use std::rc::Rc;

type Sector = Rc<[u8]>;

/// Sectors by their number in the file, of the four copies only.
#[derive(Clone)]
struct Disk {
    durable: Vec<Sector>,
    /// Written, visible, lost or not at a cut; oldest first.
    cached: Vec<(usize, Sector)>,
}

const COPY_SECTORS: usize = COPY_SIZE_MAX / SECTOR_SIZE;

fn sector_index(at: u64) -> usize {
    let copy = (0..SUPERBLOCK_COPIES)
        .find(|&copy| Layout::superblock_at(copy) == at)
        .expect("copies are read and written from their start");
    copy * COPY_SECTORS
}

impl Disk {
    fn formatted(content: &Content) -> Self {
        let copies = (0..SUPERBLOCK_COPIES).map(|copy| copy_of(content, copy));
        let bytes: Vec<u8> = copies.flatten().collect();
        Self {
            durable: bytes.chunks(SECTOR_SIZE).map(Rc::from).collect(),
            cached: Vec::new(),
        }
    }

    fn read(&self, sector: usize) -> &Sector {
        let cached = self.cached.iter().rev().find(|write| write.0 == sector);
        cached.map_or(&self.durable[sector], |write| &write.1)
    }

    fn write(&mut self, sectors: Vec<(usize, Sector)>, durable: bool) {
        for (sector, bytes) in sectors {
            if durable {
                self.cached.retain(|write| write.0 != sector);
                self.durable[sector] = bytes;
            } else {
                self.cached.push((sector, bytes));
            }
        }
    }

    fn sync(&mut self) {
        for (sector, bytes) in std::mem::take(&mut self.cached) {
            self.durable[sector] = bytes;
        }
    }

    /// Every disk that a cut may leave, if `in_flight` was being written.
    fn cuts(&self, in_flight: &[(usize, Sector)], mut visit: impl FnMut(Self)) {
        let mut choices: Vec<(usize, Vec<Sector>)> = Vec::new();
        for (sector, bytes) in self.cached.iter().chain(in_flight) {
            if !choices.iter().any(|choice| choice.0 == *sector) {
                choices.push((*sector, vec![Rc::clone(&self.durable[*sector])]));
            }
            let choice = choices.iter_mut().find(|choice| choice.0 == *sector);
            let versions = &mut choice.expect("just added").1;
            if !versions.contains(bytes) {
                versions.push(Rc::clone(bytes));
            }
        }
        choices.retain(|choice| choice.1.len() > 1);
        let count: usize = choices.iter().map(|choice| choice.1.len()).product();
        for mut number in 0..count {
            let mut durable = self.durable.clone();
            for (sector, versions) in &choices {
                durable[*sector] = Rc::clone(&versions[number % versions.len()]);
                number /= versions.len();
            }
            visit(Self {
                durable,
                cached: Vec::new(),
            });
        }
    }
}

/// What the file may hold, by sequence and view.
#[derive(Clone, Copy, Debug)]
struct Known {
    reported: (u64, u32),
    writing: Option<(u64, u32)>,
}

/// How a life ends, at every moment of it.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Power fails: cached and in-flight sectors each survive or not.
    Cut,
    /// The process is killed: in-flight writes reach the device's cache or not.
    Kill,
}

struct Explorer {
    /// Distinguishes every update of every life from all others.
    view: Cell<u32>,
    lives: Cell<u64>,
}

struct Life<R: Rules> {
    superblock: Superblock<R>,
    io: IoQueue,
    in_flight: Vec<IoRequest>,
    disk: Disk,
    known: Known,
}

impl<R: Rules> Life<R> {
    fn new(disk: Disk, known: Known) -> Self {
        let mut life = Self {
            superblock: Superblock::with_rules(),
            io: IoQueue::new(Superblock::<R>::IO_MAX),
            in_flight: Vec::new(),
            disk,
            known,
        };
        life.superblock.open_start(&mut life.io);
        life
    }

    /// Hands requests to the device; true while there are any.
    fn submit(&mut self) -> bool {
        while let Some(request) = self.io.pop() {
            self.in_flight.push(request);
        }
        !self.in_flight.is_empty()
    }

    fn writes(&self) -> Vec<Vec<(usize, Sector)>> {
        self.in_flight.iter().map(sectors_of).collect()
    }

    /// Completes a request, and checks what the superblock makes of it.
    fn complete(&mut self, index: usize) -> Result<(), String> {
        let done = self.perform(index);
        let event = self.superblock.on_io_done(done, &mut self.io);
        let state = match event.expect("the disk does not fail") {
            None => return Ok(()),
            Some(SuperblockEvent::Refused(error)) => return Err(error.to_string()),
            Some(SuperblockEvent::Opened | SuperblockEvent::Durable) => *self.superblock.working(),
        };
        let found = (state.sequence, state.view);
        if found != self.known.reported && Some(found) != self.known.writing {
            return Err(format!("{:?} became {found:?}", self.known));
        }
        if self.superblock.view_headers() != headers(state.view).as_slice() {
            return Err(format!("{found:?} has the headers of another view"));
        }
        self.known.reported = found;
        self.known.writing = None;
        Ok(())
    }

    fn perform(&mut self, index: usize) -> IoDone {
        let request = self.in_flight.remove(index);
        let id = request.id();
        let sectors = sectors_of(&request);
        let buffer = match request {
            IoRequest::Sync { .. } => {
                self.disk.sync();
                None
            }
            IoRequest::Write {
                buffer, durable, ..
            } => {
                self.disk.write(sectors, durable);
                Some(buffer)
            }
            IoRequest::Read {
                at,
                size,
                mut buffer,
                ..
            } => {
                let first = sector_index(at);
                let bytes = buffer.bytes_mut()[..size].chunks_mut(SECTOR_SIZE);
                for (offset, bytes) in bytes.enumerate() {
                    bytes.copy_from_slice(self.disk.read(first + offset));
                }
                Some(buffer)
            }
        };
        let result = Ok(());
        IoDone { id, buffer, result }
    }
}

fn sectors_of(request: &IoRequest) -> Vec<(usize, Sector)> {
    let IoRequest::Write {
        at, size, buffer, ..
    } = request
    else {
        return Vec::new();
    };
    let sectors = buffer.bytes()[..*size].chunks(SECTOR_SIZE);
    let first = sector_index(*at);
    (first..).zip(sectors.map(Rc::from)).collect()
}

impl Explorer {
    fn new(view: u32) -> Self {
        Self {
            view: Cell::new(view),
            lives: Cell::new(0),
        }
    }

    /// Lives through opening and `updates`, in both orders of completion; at every moment of it the life also ends as
    /// `ends[0]` says, and the next one (`ends[1..]`) begins on what that leaves. The last life only opens.
    fn explore<R: Rules>(
        &self,
        disk: &Disk,
        known: Known,
        updates: usize,
        ends: &[End],
    ) -> Result<(), String> {
        let orders: &[bool] = if ends.is_empty() {
            &[false]
        } else {
            &[false, true]
        };
        for &last_first in orders {
            self.lives.set(self.lives.get() + 1);
            let mut life = Life::<R>::new(disk.clone(), known);
            self.drain(&mut life, last_first, updates, ends)?;
            for _ in 0..if ends.is_empty() { 0 } else { updates } {
                self.update(&mut life);
                self.drain(&mut life, last_first, updates, ends)?;
            }
        }
        Ok(())
    }

    fn update<R: Rules>(&self, life: &mut Life<R>) {
        self.view.set(self.view.get() + 1);
        let view = self.view.get();
        let change = |state: &mut SuperblockState, list: &mut ViewHeaders| {
            state.view = view;
            *list = headers(view);
        };
        let sequence = life.superblock.update(change, &mut life.io);
        life.known.writing = Some((sequence, view));
    }

    fn drain<R: Rules>(
        &self,
        life: &mut Life<R>,
        last_first: bool,
        updates: usize,
        ends: &[End],
    ) -> Result<(), String> {
        while life.submit() {
            self.end::<R>(life, updates, ends)?;
            let last = life.in_flight.len() - 1;
            life.complete(if last_first { last } else { 0 })?;
        }
        self.end::<R>(life, updates, ends)
    }

    /// Ends the life here in every way, and explores what comes after.
    fn end<R: Rules>(&self, life: &Life<R>, updates: usize, ends: &[End]) -> Result<(), String> {
        let Some((end, later)) = ends.split_first() else {
            return Ok(());
        };
        let writes = life.writes();
        let mut result = Ok(());
        let mut next = |disk: Disk| {
            if result.is_ok() {
                result = self.explore::<R>(&disk, life.known, updates, later);
            }
        };
        match end {
            End::Cut => life.disk.cuts(&writes.concat(), next),
            End::Kill => {
                for subset in 0..1_usize << writes.len() {
                    let mut disk = life.disk.clone();
                    for (index, write) in writes.iter().enumerate() {
                        if subset >> index & 1 == 1 {
                            disk.write(write.clone(), false);
                        }
                    }
                    next(disk);
                }
            }
        }
        result
    }
}

fn explore<R: Rules>(updates: usize, ends: &[End]) -> Result<u64, String> {
    let explorer = Explorer::new(if ends.len() > 1 { SMALL_VIEWS } else { 0 });
    let disk = Disk::formatted(&content(1, 0));
    let known = Known {
        reported: (1, 0),
        writing: None,
    };
    explorer.explore::<R>(&disk, known, updates, ends)?;
    Ok(explorer.lives.get())
}

fn explore_all<R: Rules>() -> Result<u64, String> {
    Ok(explore::<R>(2, &[End::Cut])?
        + explore::<R>(1, &[End::Cut, End::Cut])?
        + explore::<R>(1, &[End::Kill, End::Cut])?)
}

#[test]
fn every_cut_and_kill_opens_to_what_was_reported_or_was_being_written() {
    let lives = explore_all::<Sound>().expect("nothing reported is lost");
    assert!(lives > 1000, "{lives} lives explored");
}

macro_rules! broken {
    ($test:ident, $name:ident, $($rule:tt)*) => {
        #[test]
        fn $test() {
            struct $name;
            impl Rules for $name {
                $($rule)*
            }
            explore_all::<$name>().expect_err("a broken rule loses something");
        }
    };
}

broken!(
    one_round_for_all_copies_is_noticed,
    OneRound,
    const ROUNDS: &'static [&'static [usize]] = &[&[0, 1, 2, 3]];
);
broken!(
    skipping_the_rewriting_is_noticed,
    NoRewrite,
    const REWRITE: bool = false;
);
broken!(
    ignoring_the_checksum_is_noticed,
    NoSum,
    const CHECK_SUM: bool = false;
);
broken!(
    skipping_the_first_sync_is_noticed,
    NoSync,
    const SYNC_FIRST: bool = false;
);
broken!(
    writes_that_are_not_durable_are_noticed,
    NotDurable,
    const DURABLE: bool = false;
);

fn opened(disk: Disk, reported: (u64, u32)) -> Life<Sound> {
    let writing = None;
    let mut life = Life::<Sound>::new(disk, Known { reported, writing });
    while life.submit() {
        life.complete(0).expect("the file opens");
    }
    assert!(life.superblock.is_open());
    life
}

#[test]
fn one_good_copy_is_enough_and_is_spread_to_all_places() {
    let newest = content(5, 1);
    for good in 0..SUPERBLOCK_COPIES {
        for written_as in 0..SUPERBLOCK_COPIES {
            let mut disk = Disk::formatted(&content(4, 3));
            let bytes = copy_of(&newest, written_as);
            let sectors = bytes.chunks(SECTOR_SIZE).map(Rc::from);
            disk.write((good * COPY_SECTORS..).zip(sectors).collect(), true);
            let life = opened(disk, (5, 1));
            let expected = Disk::formatted(&newest).durable;
            let size = 2 * COPY_SECTORS / 8; // two sectors each were written
            for copy in 0..SUPERBLOCK_COPIES {
                let first = copy * COPY_SECTORS;
                assert_eq!(
                    life.disk.durable[first..first + size],
                    expected[first..first + size]
                );
            }
        }
    }
}

#[test]
fn changes_during_an_update_are_merged_into_one_that_follows() {
    let mut blank = content(1, 0);
    blank.state.start = Start::Blank as u8;
    let mut life = opened(Disk::formatted(&blank), (1, 0));
    assert!(life.superblock.begun().is_none());
    let begin = |state: &mut SuperblockState, _: &mut ViewHeaders| {
        state.view = 2;
        state.start = Start::Begun as u8;
    };
    let first = life.superblock.update(begin, &mut life.io);
    assert!(life.superblock.begun().is_none(), "not durable yet");
    let second = life
        .superblock
        .update(|state, _| state.view = 5, &mut life.io);
    let third = life
        .superblock
        .update(|state, _| state.log_view = 5, &mut life.io);
    assert_eq!((first, second, third), (2, 3, 3));
    let mut durable = Vec::new();
    while life.submit() {
        let done = life.perform(0);
        let event = life.superblock.on_io_done(done, &mut life.io);
        if event.expect("no failure") == Some(SuperblockEvent::Durable) {
            let view = life.superblock.durable_view();
            durable.push((
                life.superblock.working().sequence,
                view.view(),
                view.log_view(),
            ));
        }
    }
    assert_eq!(durable, [(2, 2, 0), (3, 5, 5)]);
    assert!(life.superblock.begun().is_some() && !life.superblock.is_updating());
}

#[test]
fn a_failed_write_is_fatal_and_a_stale_completion_is_nothing() {
    let mut life = opened(Disk::formatted(&content(1, 0)), (1, 0));
    life.superblock
        .update(|state, _| state.view = 1, &mut life.io);
    life.submit();
    let mut done = life.perform(0);
    let id = done.id;
    let failure = IoError {
        action: "write",
        at: 0,
        size: SECTOR_SIZE,
        errno: 5,
    };
    done.result = Err(failure);
    assert_eq!(life.superblock.on_io_done(done, &mut life.io), Err(failure));
    let again = IoDone {
        id,
        buffer: None,
        result: Ok(()),
    };
    assert_eq!(life.superblock.on_io_done(again, &mut life.io), Ok(None));
    assert_eq!(life.superblock.working().view, 0);
}

#[test]
#[should_panic(expected = "self.view >= before.view")]
fn a_view_never_falls() {
    let mut life = opened(Disk::formatted(&content(1, 4)), (1, 4));
    life.superblock
        .update(|state, _| state.view = 3, &mut life.io);
}
