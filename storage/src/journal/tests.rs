//! The rules of writing, one fact each.

use super::disk::*;
use super::*;
use crate::buffer::MessagePool;
use crate::layout::Geometry;

pub const SINGLE: JournalAck = JournalAck::Single;

fn fresh(slots: u32, pipeline_max: u32) -> Host {
    Host::fresh(layout(slots, pipeline_max, SINGLE))
}

/// A journal with `count` one-sector ops in both rings.
pub fn filled(slots: u32, pipeline_max: u32, ack: JournalAck, count: u64) -> (Host, Chain) {
    let mut host = Host::fresh(layout(slots, pipeline_max, ack));
    let mut chain = Chain::new();
    for _ in 0..count {
        host.append(chain.next(1));
        host.drain();
    }
    host.flush();
    host.drain();
    assert_eq!(host.acked.len() as u64, count);
    (host, chain)
}

pub fn reopen(host: &Host, superblock: &Super) -> (Host, Result<Recovered, Refusal>) {
    Host::open(host.layout, host.disk.clone(), superblock)
}

pub fn identity(host: &Host, op: u64) -> u128 {
    host.acked
        .iter()
        .find(|ack| ack.0 == op)
        .expect("acknowledged")
        .1
}

pub fn sector_of(host: &Host, op: u64) -> u64 {
    host.layout.prepare_at(host.layout.slot(op))
}

#[test]
fn a_header_enters_its_ring_only_after_its_own_prepare_is_durable() {
    let mut host = fresh(16, 2);
    let mut chain = Chain::new();
    host.append(chain.next(1));
    host.append(chain.next(2));
    host.complete(host.pending_prepare(2)); // its ack needs its header: the sector is written
    let headers = host
        .pending_at(0)
        .expect("a header sector is being written");
    host.complete(headers);
    assert!(
        host.disk.redundant(1).is_reserved(),
        "op 1 is not durable yet"
    );
    assert_eq!(host.disk.redundant(2).op, 2);
    assert_eq!(host.acked, [(2, chain.parent)]);
}

#[test]
fn a_slot_above_the_checkpoint_is_never_overwritten() {
    let (mut host, mut chain) = filled(16, 1, SINGLE, 16);
    assert!(!host.journal.can_append(17));
    host.journal.set_checkpoint(1);
    assert!(host.journal.can_append(17) && !host.journal.can_append(18));
    host.append(chain.next(1));
    assert!(!host.journal.can_append(17), "its slot has a write pending");
}

#[test]
#[should_panic(expected = "can_append")]
fn appending_beyond_the_ring_is_a_bug() {
    let (mut host, mut chain) = filled(16, 1, SINGLE, 16);
    host.append(chain.next(1));
}

#[test]
#[should_panic(expected = "hash chain")]
fn appending_what_does_not_chain_is_a_bug() {
    let (mut host, mut chain) = filled(16, 1, SINGLE, 2);
    chain.parent ^= 1;
    host.append(chain.next(1));
}

#[test]
fn one_sector_is_acknowledged_on_one_write_and_two_sectors_on_both() {
    let mut host = fresh(16, 4);
    let mut chain = Chain::new();
    host.append(chain.next(1));
    host.complete(0);
    assert_eq!(host.acked.len(), 1);
    assert_eq!(host.header_writes, 0);
    host.append(chain.next(2));
    host.complete(0);
    assert_eq!((host.acked.len(), host.header_writes), (1, 1));
    host.complete(0);
    assert_eq!(host.acked.len(), 2);
    let mut host = Host::<Strict>::fresh(layout(16, 1, JournalAck::Both));
    host.append(Chain::new().next(1));
    host.complete(0);
    assert!(host.acked.is_empty());
    host.complete(0);
    assert_eq!(host.acked.len(), 1);
}

#[test]
fn a_replaced_prepare_is_acknowledged_on_both_writes() {
    let (mut host, mut chain) = filled(16, 2, SINGLE, 3);
    (chain.op, chain.view, chain.parent) = (2, 1, identity(&host, 2));
    host.journal.view_durable(1, 2);
    assert!(host.journal.header(3).is_none());
    host.acked.clear();
    host.append(chain.next(1));
    host.complete(0);
    assert!(host.acked.is_empty() && host.journal.is_durable(3, chain.parent));
    host.complete(0);
    assert_eq!(host.acked, [(3, chain.parent)]);
}

/// The prepare's write is dropped by the device after view 1 replaced op 3, and the replica crashes after the ack.
fn replacement_lost<R: Rules>() -> State {
    let (before, mut chain) = filled(16, 2, SINGLE, 3);
    let named: Vec<_> = (1..=2)
        .map(|op| *before.journal.header(op).expect("known"))
        .collect();
    let (mut host, _) = Host::<R>::open(before.layout, before.disk.clone(), &Super::new(false));
    (chain.op, chain.view, chain.parent) = (2, 1, identity(&before, 2));
    host.journal.view_durable(1, 2);
    host.append(chain.next(1));
    host.complete_but(0, false);
    while host.acked.is_empty() {
        host.complete(0);
    }
    let superblock = Super {
        log_view: 1,
        headers: named,
        ..Super::new(false)
    };
    Host::<Strict>::open(host.layout, host.disk, &superblock)
        .0
        .journal
        .state(3)
}

#[test]
fn a_lost_write_of_a_replacement_is_not_nacked() {
    struct Eager;
    impl Rules for Eager {
        const REPLACEMENT_AWAITS_HEADER: bool = false;
    }
    assert_eq!(replacement_lost::<Strict>(), State::Lost);
    assert_eq!(
        replacement_lost::<Eager>(),
        State::Absent,
        "the rule is what saves it"
    );
}

#[test]
fn acks_wait_when_headers_lag_two_pipelines() {
    let mut host = fresh(64, 4);
    let mut chain = Chain::new();
    for op in 1..=14 {
        assert!(host.journal.can_append(op));
        host.append(chain.next(1));
        host.complete(host.pending_prepare(op));
    }
    // The header of op 1 is being written and never lands: op 9 = 1 + 2 x 4 waits for it, and all after it.
    assert_eq!(host.acked.len(), 8);
    assert_eq!(host.header_writes, 1);
    host.drain();
    assert_eq!(host.acked.len(), 14);
    assert!(host.journal.header_is_durable(6));
}

#[test]
fn in_steady_state_a_header_sector_serves_a_pipeline_and_no_ack_waits_for_it() {
    for (pipeline, least) in [(8, 7), (16, 15)] {
        let mut host = fresh(256, pipeline);
        let mut chain = Chain::new();
        let (mut op, ops) = (0, 4096);
        while op < ops {
            // The disk is full in the middle of a pipeline, first in, first out; a header write takes its turn.
            while op < ops
                && host.pending.len() < pipeline as usize
                && host.journal.can_append(op + 1)
            {
                host.append(chain.next(1));
                op += 1;
            }
            host.complete(0);
            let writing = host.journal.prepare_writes as u64;
            assert_eq!(
                host.acked.len() as u64,
                op - writing,
                "an ack waits for a header"
            );
            host.journal
                .set_checkpoint(op.saturating_sub(128) / 64 * 64);
        }
        host.drain();
        let per_write = host.prepare_writes / host.header_writes;
        println!("pipeline {pipeline}: {per_write} prepares for each header sector");
        assert!(per_write >= least, "{per_write}");
        assert!(host.acked.is_sorted());
    }
}

#[test]
fn the_ring_wraps_many_times_and_reopens_at_any_point() {
    let mut chain = Chain::new();
    let mut host = fresh(16, 1);
    let mut superblock = Super::new(true);
    for op in 1..=320 {
        if op > 8 && op % 8 == 1 {
            superblock.checkpoint_op = op - 9 + 4;
            superblock.checkpoint_checksum = host
                .journal
                .header(superblock.checkpoint_op)
                .expect("in the ring")
                .frame
                .checksum;
            host.journal.set_checkpoint(superblock.checkpoint_op);
        }
        let prepare = chain.next(1 + (op % 3 == 0) as usize);
        while !host.journal.can_append(op) {
            host.flush();
            host.drain();
        }
        host.append(prepare);
        host.drain();
        assert_eq!(host.acked.last(), Some(&(op, chain.parent)));
        let (after, recovered) = Host::open(host.layout, host.disk.clone(), &superblock);
        let recovered = recovered.expect("it reopens");
        assert_eq!(
            (recovered.head_op, recovered.head_checksum),
            (op, chain.parent)
        );
        // From there it goes on, and what lies below the checkpoint still serves others.
        assert!(after.journal.header(op.saturating_sub(10).max(1)).is_some());
        if op % 5 == 0 {
            host = Host {
                acked: host.acked,
                ..after
            };
        }
    }
}

#[test]
fn a_prepare_is_read_back_and_damage_is_noticed() {
    let (mut host, _) = filled(16, 1, SINGLE, 3);
    let pool = MessagePool::new(2, MESSAGE_SIZE);
    let wanted = identity(&host, 2);
    let take = || pool.take().expect("free");
    host.journal
        .read(3, wanted, take(), 0, &mut host.io)
        .expect_err("op 3 is another");
    host.journal
        .read(2, wanted, take(), 42, &mut host.io)
        .expect("it is here");
    host.pump();
    let JournalEvent::Read {
        op: 2,
        purpose: 42,
        message: Ok(message),
    } = host.complete(0)
    else {
        panic!("the prepare comes back")
    };
    assert_eq!(message.header().frame.checksum, wanted);
    drop(message);
    // The right identity, and an op that shares the slot: a false question says nothing against what is there.
    host.journal
        .read(2 + 16, wanted, take(), 42, &mut host.io)
        .expect("the slot holds this identity");
    host.pump();
    let JournalEvent::Read {
        message: Err(_), ..
    } = host.complete(0)
    else {
        panic!("it is another op")
    };
    assert!(host.journal.durable_again(2, wanted).is_some());
    let at = sector_of(&host, 2) + 4000; // behind the body: zeros are checked as well
    host.disk.flip(at);
    host.journal
        .read(2, wanted, take(), 43, &mut host.io)
        .expect("believed to be here");
    host.pump();
    let JournalEvent::Read {
        message: Err(_), ..
    } = host.complete(0)
    else {
        panic!("the damage is noticed")
    };
    assert_eq!(pool.free(), 2);
    assert_eq!(host.journal.state(2), State::Lost);
    let wanted = Missing {
        op: 2,
        wanted: Some(wanted),
        state: State::Lost,
    };
    assert_eq!(host.journal.missing(1..=3).collect::<Vec<_>>(), [wanted]);
    assert!(host.journal.durable_again(2, identity(&host, 2)).is_none());
}

#[test]
fn a_damaged_slot_is_repaired_and_acknowledged_again() {
    let (host, _) = filled(16, 1, SINGLE, 6);
    let mut chain = Chain::new();
    let prepares: Vec<_> = (0..6).map(|_| chain.next(1)).collect();
    for (whole, op) in [(true, 3), (false, 3), (true, 6)] {
        let mut damaged = host.disk.clone();
        if whole {
            damaged.wipe_sector(sector_of(&host, op));
        } else {
            damaged.flip(sector_of(&host, op) + 300);
        }
        let (mut host, recovered) = Host::<Strict>::open(host.layout, damaged, &Super::new(false));
        let recovered = recovered.expect("others can help");
        assert_eq!((recovered.head_op, recovered.head_certain), (6, op != 6));
        let wanted = prepares[op as usize - 1].header().frame.checksum;
        assert_eq!(
            host.journal.faulty(op).expect("missing").wanted,
            Some(wanted)
        );
        host.append(prepares[op as usize - 1].clone());
        host.drain();
        assert_eq!(host.acked, [(op, wanted)]);
        assert!(host.journal.missing(1..=6).next().is_none());
        let again = host
            .journal
            .durable_again(5, prepares[4].header().frame.checksum);
        assert_eq!(again.expect("held durably").op(), 5);
    }
}

#[test]
fn a_header_learnt_from_others_replaces_what_is_believed() {
    let (mut host, mut chain) = filled(16, 2, SINGLE, 4);
    let held = *host.journal.header(4).expect("here");
    let behind = chain.next(1);
    host.journal.set_header(behind.header().typed());
    let missing = host.journal.faulty(5).expect("only its name is here");
    assert_eq!(
        (missing.wanted, missing.state),
        (Some(chain.parent), State::Absent)
    );
    let other = {
        let mut fork = Chain::new();
        for _ in 0..3 {
            fork.next(1);
        }
        fork.next(2)
    };
    host.journal.set_header(other.header().typed());
    // What is known to be here is another prepare: the one that the log has now was not acknowledged.
    assert_eq!(host.journal.state(4), State::Absent);
    assert!(host.journal.durable_again(4, held.frame.checksum).is_none());
    host.journal.set_header(&held);
    assert!(host.journal.durable_again(4, held.frame.checksum).is_some());
    let ops: Vec<_> = host
        .journal
        .headers_between(2..=9)
        .map(|header| header.op)
        .collect();
    assert_eq!(ops, [5, 4, 3, 2]);
}

#[test]
fn a_failed_write_is_fatal_and_a_stale_completion_is_ignored() {
    let mut host = fresh(16, 1);
    host.append(Chain::new().next(1));
    let Some(IoRequest::Write {
        id,
        at,
        size,
        buffer,
        ..
    }) = host.pending.pop()
    else {
        panic!("a write")
    };
    let error = IoError {
        action: "write",
        at,
        size,
        errno: 5,
    };
    let done = IoDone {
        id,
        buffer: Some(buffer),
        result: Err(error),
    };
    assert_eq!(
        host.journal
            .on_io_done(done, &mut host.io)
            .expect_err("fatal"),
        error
    );
    let stale = IoDone {
        id,
        buffer: None,
        result: Ok(()),
    };
    assert!(matches!(
        host.journal.on_io_done(stale, &mut host.io),
        Ok(JournalEvent::None)
    ));
}

#[test]
fn io_and_memory_are_bounded_by_the_geometry() {
    let layout = Layout::new(Geometry::DEFAULT);
    assert_eq!(io_max(&layout), 48);
    assert!(Journal::<Strict>::memory(&layout) < 3 << 20);
}

#[test]
fn a_torn_leftover_is_not_acknowledged_when_a_later_log_names_it() {
    let (mut host, mut chain) = filled(16, 1, SINGLE, 3);
    let head3 = *host.journal.header(3).expect("there");
    // Op 4, two sectors, view 0: in flight.
    let long = chain.next(2);
    let named = *long.header().typed::<Prepare>();
    host.append(long);
    // Power cut: only its first sector lands.
    let at = sector_of(&host, 4);
    let cut = host
        .cuts()
        .into_iter()
        .find(|disk| {
            let first = &disk.0[at as usize..at as usize + 256];
            let second = disk.0[at as usize + SECTOR_SIZE];
            first == zerocopy::IntoBytes::as_bytes(&named) && second == 0
        })
        .expect("a tear");
    // The superblock: log_view 1 begins with head 3 (op 4 was cut off).
    let superblock = Super {
        log_view: 1,
        headers: vec![head3],
        ..Super::new(false)
    };
    let (mut host, recovered) = Host::<Strict>::open(host.layout, cut, &superblock);
    let recovered = recovered.expect("opens");
    assert_eq!(recovered.head_op, 3);
    // View 2: chosen from votes of log_view 0; it has op 4 after all.
    host.journal.view_durable(2, 4);
    host.journal.set_header(&named);
    assert_eq!(
        host.journal.state(4),
        State::Absent,
        "torn, and never verified"
    );
    assert!(
        host.journal
            .durable_again(4, named.frame.checksum)
            .is_none()
    );
}
