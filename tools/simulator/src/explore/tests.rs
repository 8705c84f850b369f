//! The harness, shown on a toy: a register in two slots, written in turn, the newest valid one wins.

use super::*;
use std::collections::BTreeSet;
use storage::SECTOR_SIZE;
use storage::buffer::AlignedBuffer;
use storage::checksum;
use storage::io::{Buffer, IoId, IoOwner};

/// Sectors of a slot: several, so that its write can tear.
const SLOT_SECTORS: usize = 3;
const SLOT_SIZE: usize = SLOT_SECTORS * SECTOR_SIZE;

/// A fault built into the toy on purpose; none: the toy is correct.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    AcknowledgesBeforeSync,
    SyncsBeforeCompletion,
    IgnoresChecksum,
    WritesOneSlotOnly,
}

#[derive(Clone, Debug, Default)]
struct Promises {
    begun: u64,
    acknowledged: u64,
}

fn id() -> IoId {
    IoId {
        owner: IoOwner::Superblock,
        index: 0,
        generation: 0,
    }
}

fn slot_content(value: u64) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::new(SLOT_SIZE);
    for sector in buffer.chunks_exact_mut(SECTOR_SIZE) {
        sector[16..24].copy_from_slice(&value.to_le_bytes());
    }
    let sum = checksum::identity(&buffer[16..]);
    buffer[..16].copy_from_slice(&sum.to_le_bytes());
    buffer
}

fn write_values(tape: &mut Tape<Promises>, fault: Fault, durable: bool) {
    for value in 1..=4u64 {
        tape.facts.begun = value;
        let slot = if fault == Fault::WritesOneSlotOnly {
            0
        } else {
            value % 2
        };
        tape.submit(IoRequest::Write {
            id: id(),
            at: slot * SLOT_SIZE as u64,
            size: SLOT_SIZE,
            buffer: Buffer::Sectors(slot_content(value)),
            durable,
        });
        if fault == Fault::SyncsBeforeCompletion {
            tape.submit(IoRequest::Sync { id: id() });
            while tape.complete().is_some() {}
        } else {
            while tape.complete().is_some() {}
            if !durable && fault != Fault::AcknowledgesBeforeSync {
                tape.submit(IoRequest::Sync { id: id() });
                while tape.complete().is_some() {}
            }
        }
        tape.facts.acknowledged = value;
    }
}

fn open(state: &DiskState, fault: Fault) -> u64 {
    let mut newest = 0;
    for slot in 0..2 {
        let mut bytes = vec![0; SLOT_SIZE];
        state.read(slot * SLOT_SIZE as u64, &mut bytes);
        let sum = checksum::identity(&bytes[16..]).to_le_bytes();
        if bytes[..16] == sum || fault == Fault::IgnoresChecksum {
            // The last sector's value: without the sum nothing says that it agrees with the first's.
            let at = SLOT_SIZE - SECTOR_SIZE + 16;
            let value = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
            let first = u64::from_le_bytes(bytes[16..24].try_into().expect("8 bytes"));
            newest = newest.max(if value == first { value } else { u64::MAX });
        }
    }
    newest
}

/// Whether each outcome kept the promises, and what was tried.
fn run(fault: Fault, durable: bool, tear: Tear) -> (bool, Coverage) {
    let mut kept = true;
    let coverage = explore(
        Thoroughness {
            outcomes_max: 256,
            tear,
            seed: 7,
        },
        DiskState::new(2 * SLOT_SIZE as u64),
        Promises::default(),
        |tape| write_values(tape, fault, durable),
        |state, promises, _| {
            let value = open(&state, fault);
            kept &= promises.acknowledged <= value && value <= promises.begun;
        },
    );
    (kept, coverage)
}

#[test]
fn a_correct_protocol_passes_every_cut() {
    for durable in [false, true] {
        let (kept, coverage) = run(Fault::None, durable, Tear::Sector);
        assert!(kept);
        assert_eq!(coverage.exhaustive, coverage.points);
        assert!(coverage.torn > 0 && coverage.undecided_max == SLOT_SECTORS);
        assert_eq!(coverage.lost > 0, !durable);
    }
}

#[test]
fn points_outcomes_and_events_add_up() {
    let (_, coverage) = run(Fault::None, true, Tear::Sector);
    // For each value a point before the write (1 outcome) and one before its completion (2^3), and the end.
    assert_eq!(coverage.points, 4 * 2 + 1);
    assert_eq!(coverage.outcomes, 4 * (1 + 8) + 1);
}

#[test]
fn each_fault_is_caught() {
    assert!(!run(Fault::AcknowledgesBeforeSync, false, Tear::Sector).0);
    assert!(!run(Fault::SyncsBeforeCompletion, false, Tear::Sector).0);
    assert!(!run(Fault::IgnoresChecksum, true, Tear::Sector).0);
    assert!(!run(Fault::WritesOneSlotOnly, true, Tear::Sector).0);
}

#[test]
fn small_tears_are_sampled() {
    let (kept, coverage) = run(Fault::None, true, Tear::Bytes512);
    assert!(kept);
    assert_eq!(coverage.undecided_max, SLOT_SECTORS * 8);
    assert!(coverage.exhaustive < coverage.points);
    assert!(!run(Fault::IgnoresChecksum, true, Tear::Bytes512).0);
}

#[test]
fn combinations_are_each_tried_once() {
    let candidates = [2, 3, 2];
    let mut choices = Choices::new(&candidates, 12, Prng::new(1));
    let mut seen = BTreeSet::new();
    while let Some(chosen) = choices.next() {
        assert!(seen.insert(chosen.to_vec()));
    }
    assert_eq!(seen.len(), 12);
}

#[test]
fn samples_contain_the_extremes() {
    let candidates = [3; 20];
    let mut choices = Choices::new(&candidates, 100, Prng::new(1));
    assert!(!choices.is_exhaustive());
    let mut seen = Vec::new();
    while let Some(chosen) = choices.next() {
        seen.push(chosen.to_vec());
    }
    assert_eq!(seen.len(), 100);
    assert_eq!(seen[0], [0; 20]);
    assert_eq!(seen[1], [2; 20]);
    let sum = |chosen: &Vec<u32>| chosen.iter().sum::<u32>();
    assert!(seen[2..22].iter().all(|chosen| sum(chosen) == 2));
    assert!(seen[22..42].iter().all(|chosen| sum(chosen) == 38));
}
