//! A power cut at every disk event while a data file is formatted: what is left is either not a data file, or a complete
//! one.

use simulator::cluster::formatted;
use simulator::disk::{DiskState, Tear};
use simulator::explore::{Coverage, Tape, Thoroughness, explore};
use storage::buffer::AlignedBuffer;
use storage::format::{Format, Step};
use storage::io::{Buffer, IoId, IoOwner, IoRequest};
use storage::layout::{Geometry, Layout, SUPERBLOCK_ZONE_SIZE};
use storage::superblock::{COPY_SIZE_MAX, FileId, OpenError, decide};

const GEOMETRY: Geometry = Geometry {
    state_size: 1100 << 10,
    message_size_max: 8 << 10,
    slots: 16,
    pipeline_max: 2,
    sessions_max: 1,
    reply_size_max: 64,
    ..Geometry::SMALL
};

/// What the steps leave out, on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    NoSync,
}

fn write(tape: &mut Tape<bool>, fault: Fault) {
    let format = Format::new(7, FileId::of_random(9), 0, 1, GEOMETRY).expect("a possible geometry");
    let id = IoId {
        owner: IoOwner::Superblock,
        index: 0,
        generation: 0,
    };
    for step in format.steps(256 << 10) {
        match step {
            Step::Write { at, size } => {
                let mut buffer = AlignedBuffer::new(size);
                format.fill(at, &mut buffer);
                tape.submit(IoRequest::Write {
                    id,
                    at,
                    size,
                    buffer: Buffer::Sectors(buffer),
                    durable: false,
                });
            }
            Step::Sync if fault == Fault::NoSync => {}
            Step::Sync => tape.submit(IoRequest::Sync { id }),
        }
        while tape.complete().is_some() {}
    }
    tape.facts = true; // format has returned
}

/// Whether the file is one; if so, whether all of it is there.
fn opens(state: &DiskState, complete: &DiskState) -> Result<bool, OpenError> {
    let mut copies = [(); 4].map(|()| vec![0; COPY_SIZE_MAX]);
    for (index, copy) in copies.iter_mut().enumerate() {
        state.read(Layout::superblock_at(index), copy);
    }
    decide(copies.each_ref().map(|copy| &copy[..]))?;
    let zone = SUPERBLOCK_ZONE_SIZE / storage::SECTOR_SIZE as u64;
    let sectors = zone..complete.size() / storage::SECTOR_SIZE as u64;
    Ok(sectors
        .into_iter()
        .all(|sector| state.sector(sector) == complete.sector(sector)))
}

/// What was tried, how many files opened, and how many were incomplete though they opened, or did not open though format
/// had returned.
fn run(fault: Fault, outcomes_max: u64) -> (Coverage, u64, u64) {
    let complete = formatted(7, FileId::of_random(9), 0, 1, GEOMETRY);
    let (mut opened, mut broken) = (0, 0);
    let coverage = explore(
        Thoroughness {
            outcomes_max,
            tear: Tear::Bytes512,
            seed: 3,
        },
        DiskState::new(complete.size()),
        false,
        |tape| write(tape, fault),
        |state, &done, _| match opens(&state, &complete) {
            Ok(whole) => {
                opened += 1;
                broken += u64::from(!whole);
            }
            // Refused: as no data file, or as one whose first superblock is torn.
            Err(_) => broken += u64::from(done),
        },
    );
    (coverage, opened, broken)
}

#[test]
fn a_file_with_a_superblock_is_complete() {
    let (coverage, opened, broken) = run(Fault::None, 60);
    assert!(coverage.points > 30 && coverage.torn > 100);
    assert!(opened > 0 && broken == 0);
}

#[test]
fn without_its_syncs_it_would_not_be() {
    let (_, _, broken) = run(Fault::NoSync, 60);
    assert!(broken > 0);
}
