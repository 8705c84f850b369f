//! What recovery makes of faults, one fact each.

use super::disk::*;
use super::tests::{SINGLE, filled, identity, reopen, sector_of};
use super::*;
use crate::buffer::MessagePool;
use crate::header::HEADER_SIZE;

#[test]
fn recovery_concludes_the_same_after_any_prefix_of_its_fixes() {
    let layout = layout(64, 2, SINGLE);
    let mut host = Host::<Strict>::fresh(layout);
    let mut chain = Chain::new();
    let mut disk = Disk::format(&layout);
    for op in 1..=40 {
        let prepare = chain.next(1);
        disk.put_prepare(&layout, op, &prepare); // no redundant header is down
    }
    disk.wipe_sector(3 * SECTOR_SIZE as u64); // and a sector of them has decayed
    host.disk = disk.clone();
    let superblock = Super::new(true);
    let (done, wanted) = reopen(&host, &superblock);
    assert_eq!(wanted.expect("it opens").head_op, 40);
    assert_eq!(done.header_writes, 4);
    for fixes in 0..4 {
        let mut host = Host::<Strict>::start(layout, disk.clone(), &superblock);
        while host.header_writes == 0 {
            host.complete(0);
        }
        for _ in 0..fixes {
            host.complete(host.pending.len() - 1);
        }
        for cut in host.cuts() {
            let (again, recovered) = Host::<Strict>::open(layout, cut, &superblock);
            assert_eq!(recovered, wanted);
            assert!(again.disk.0 == done.disk.0);
        }
    }
}

#[test]
fn alone_damage_is_refused_with_op_and_slot() {
    let (host, _) = filled(16, 1, SINGLE, 6);
    let damaged = |at: u64| {
        let mut disk = host.disk.clone();
        disk.wipe_sector(at);
        Host::<Strict>::open(host.layout, disk, &Super::new(true)).1
    };
    let refusal = damaged(sector_of(&host, 4)).expect_err("op 4 was acknowledged");
    assert_eq!(refusal, Refusal::Lost { op: 4, slot: 4 });
    assert!(refusal.to_string().contains("op 4 (journal slot 4)"));
    // The slot right after the head may have held op 7, acknowledged on one write.
    let refusal = damaged(sector_of(&host, 7)).expect_err("op 7 may have been acknowledged");
    assert_eq!(refusal, Refusal::Unknown { op: 7, slot: 7 });
    // Further on, the ops before it would have to be here.
    assert_eq!(
        damaged(sector_of(&host, 10))
            .expect("op 10 was not")
            .head_op,
        6
    );
    assert_eq!(damaged(0).expect("the other ring is whole").head_op, 6);
}

#[test]
fn a_failed_read_is_damage_of_what_was_asked_for() {
    let (whole, _) = filled(16, 1, SINGLE, 6);
    // Op 4's first sector, and with it its body; the whole ring of headers, whose prepares speak for themselves.
    for (unreadable, lost) in [(sector_of(&whole, 4), Some(4)), (0, None)] {
        let mut host = Host::<Strict>::start(whole.layout, whole.disk.clone(), &Super::new(false));
        host.unreadable.push(unreadable);
        let recovered = host.finish_opening().expect("others can help");
        assert_eq!((recovered.head_op, recovered.head_certain), (6, true));
        let missing: Vec<_> = host.journal.missing(1..=6).map(|entry| entry.op).collect();
        assert_eq!(missing, Vec::from_iter(lost));
    }
    let mut host = reopen(&whole, &Super::new(false)).0;
    host.unreadable.push(sector_of(&whole, 2));
    let pool = MessagePool::new(1, MESSAGE_SIZE);
    let into = pool.take().expect("free");
    let wanted = identity(&whole, 2);
    let begun = host.journal.read(2, wanted, into, 0, &mut host.io);
    begun.expect("it is believed to be here");
    host.pump();
    let event = host.complete(0);
    assert!(matches!(
        event,
        JournalEvent::Read {
            message: Err(_),
            ..
        }
    ));
    assert_eq!(host.journal.state(2), State::Lost);
}

#[test]
fn damage_after_the_head_is_decided_by_the_ring_or_stays_unknown() {
    let (mut host, _) = filled(64, 2, SINGLE, 20);
    for op in 21..=40 {
        let at = sector_of(&host, op);
        host.disk.wipe_sector(at);
    }
    let (after, recovered) = reopen(&host, &Super::new(false));
    let recovered = recovered.expect("it opens");
    assert!(!recovered.head_certain);
    // 41 to 44 are absent: what they prove lies above them. Below, nothing proves anything.
    assert_eq!((recovered.head_op, recovered.op_max), (20, 40));
    assert_eq!(after.journal.state(41), State::Absent);
    for op in 21..=23 {
        let at = sector_of(&host, op);
        host.disk
            .put_prepare(&host.layout, op as usize, &reserved(op));
        assert!(at > 0);
    }
    let (after, _) = reopen(&host, &Super::new(false));
    // W = 4: op 21 absent proves 25 to 29, 23 proves 27 to 31; 24 and 32 stay open.
    assert_eq!(after.journal.state(24), State::Unknown);
    assert!((25..=31).all(|op| after.journal.state(op) == State::Absent));
    assert_eq!(
        after.journal.state(32),
        State::Unknown,
        "what the rule clears proves nothing"
    );
}

fn reserved(slot: u64) -> SharedMessage {
    let mut message = MessagePool::new(1, MESSAGE_SIZE).take().expect("free");
    message.set_header(&Prepare::reserved_slot(CLUSTER, slot));
    message.zero_tail();
    message.freeze()
}

#[test]
fn a_prepare_found_in_a_wrong_slot_makes_its_op_unknown() {
    let (mut host, mut chain) = filled(16, 1, SINGLE, 4);
    let astray = chain.next(1);
    host.disk.put_prepare(&host.layout, 12, &astray);
    let (after, recovered) = reopen(&host, &Super::new(false));
    assert!(!recovered.expect("it opens").head_certain);
    assert_eq!(after.journal.state(5), State::Unknown);
    assert_eq!(
        after.journal.state(12),
        State::Absent,
        "the ops before it are not here"
    );
    let refusal = reopen(&host, &Super::new(true))
        .1
        .expect_err("op 5 may be acknowledged");
    assert_eq!(refusal, Refusal::Unknown { op: 5, slot: 5 });
}

#[test]
fn a_header_sector_written_over_a_prepare_is_not_a_nack() {
    // The write of the headers of ops 16 to 18 goes astray, onto the prepare of op 18.
    for ack in [SINGLE, JournalAck::Both] {
        let (mut host, mut chain) = filled(32, 1, ack, 17);
        host.append(chain.next(1));
        host.complete(0);
        let index = host
            .pending_at(SECTOR_SIZE as u64)
            .expect("the header is being written");
        let IoRequest::Write { buffer, size, .. } = &host.pending[index] else {
            panic!("a write")
        };
        let at = sector_of(&host, 18);
        let image = buffer.bytes()[..*size].to_vec();
        host.disk.write(at, &image);
        host.complete_but(index, false);
        assert_eq!(host.acked.last(), Some(&(18, chain.parent)));
        let (after, _) = reopen(&host, &Super::new(false));
        assert_eq!(after.journal.state(18), State::Unknown, "{ack:?}");
    }
}

#[test]
fn alone_the_log_is_cut_before_a_gap_and_goes_on_in_a_new_view() {
    let (mut host, mut chain) = filled(16, 2, SINGLE, 3);
    let torn = chain.next(2);
    let after_gap = chain.next(1);
    host.append(torn);
    host.append(after_gap);
    host.complete(host.pending_prepare(5));
    host.disk = host.cuts().pop().expect("all sectors new");
    let at = sector_of(&host, 4) + SECTOR_SIZE as u64;
    host.disk.wipe_sector(at); // only the first sector of op 4 was new
    let (mut after, recovered) = reopen(&host, &Super::new(true));
    assert_eq!(recovered.expect("op 4 tore").head_op, 3);
    assert!(after.journal.header(4).is_none() && after.journal.header(5).is_none());
    let headers: Vec<_> = (1..=3)
        .map(|op| *after.journal.header(op).expect("here"))
        .collect();
    after.journal.view_durable(1, 3);
    (chain.op, chain.view, chain.parent) = (3, 1, headers[2].frame.checksum);
    after.append(chain.next(1));
    after.drain();
    assert_eq!(after.acked.len(), 1);
    let superblock = Super {
        log_view: 1,
        headers,
        ..Super::new(true)
    };
    let (last, recovered) = reopen(&after, &superblock);
    assert_eq!(
        recovered.expect("it opens").head_op,
        4,
        "op 5 of view 0 is a leftover"
    );
    assert!(last.journal.is_durable(4, chain.parent));
}

#[test]
fn two_prepares_of_one_op_are_told_apart_by_the_chain() {
    let (mut host, mut chain) = filled(16, 1, SINGLE, 4);
    let wrong = *host.journal.header(3).expect("here");
    let chained = |chain: &mut Chain| chain.next(1);
    (chain.op, chain.view, chain.parent) = (2, 1, identity(&host, 2));
    let right = chained(&mut chain);
    let next = chained(&mut chain);
    let last = chained(&mut chain);
    for (op, prepare) in [(3, &right), (4, &next), (5, &last)] {
        host.disk.put_prepare(&host.layout, op, prepare);
        host.disk.put_redundant(op, prepare.header().typed());
    }
    let superblock = Super {
        log_view: 1,
        headers: vec![*last.header().typed()],
        ..Super::new(false)
    };
    // The new prepare is down, its header is not: view 0 is admissible below view 1's list.
    host.disk.put_redundant(3, &wrong);
    let (after, recovered) = reopen(&host, &superblock);
    assert!(recovered.expect("it opens").head_certain);
    assert!(after.journal.is_durable(3, right.header().frame.checksum));
    assert_eq!(after.disk.redundant(3), *right.header().typed());
    // The reverse: the header names the log's prepare, the slot has another, which serves who asks for it.
    let mut swapped = Chain::new();
    let old: Vec<_> = (0..3).map(|_| swapped.next(1)).collect();
    host.disk.put_prepare(&host.layout, 3, &old[2]);
    host.disk.put_redundant(3, right.header().typed());
    let (mut after, _) = reopen(&host, &superblock);
    assert_eq!(after.journal.state(3), State::Lost);
    assert_eq!(after.journal.header(3), Some(right.header().typed()));
    let into = MessagePool::new(1, MESSAGE_SIZE).take().expect("free");
    let other = old[2].header().frame.checksum;
    after
        .journal
        .read(3, other, into, 0, &mut after.io)
        .expect("served by identity");
}

#[test]
fn a_superblock_older_than_the_journal_is_noticed() {
    let (mut host, mut chain) = filled(16, 1, SINGLE, 16);
    host.journal.set_checkpoint(8);
    host.append(chain.next(1));
    host.drain();
    let (mut after, recovered) = reopen(&host, &Super::new(false));
    assert_eq!(recovered.expect("it opens").regressed, Some(17));
    assert!(after.journal.durable_again(5, identity(&host, 5)).is_none());
    assert!(after.header_writes == 0 && after.journal.next_durable().is_none());
    let refusal = reopen(&host, &Super::new(true))
        .1
        .expect_err("alone it cannot go on");
    assert_eq!(refusal, Refusal::Regressed { op: 17, slot: 1 });
}

#[test]
fn a_log_that_does_not_continue_the_checkpoint_is_refused() {
    let (host, _) = filled(16, 1, SINGLE, 3);
    let superblock = Super {
        checkpoint_checksum: 5,
        ..Super::new(false)
    };
    let refusal = reopen(&host, &superblock)
        .1
        .expect_err("the chain is broken");
    assert!(matches!(
        refusal,
        Refusal::Chain {
            op: 1,
            slot: 1,
            expected: 5,
            ..
        }
    ));
}

#[test]
fn a_body_longer_than_a_read_is_verified_to_its_last_byte() {
    const SIZE: usize = 1 << 20;
    let layout = layout_of(16, 1, SINGLE, SIZE);
    let mut host = Host::<Strict>::fresh(layout);
    let mut chain = Chain::of(MessagePool::new(4, SIZE));
    let sectors = [150, 255, 64]; // three runs, four, and exactly one and a sector
    for sectors in sectors {
        host.append(chain.next(sectors));
        host.drain();
    }
    assert_eq!(
        reopen(&host, &Super::new(true)).1.expect("whole").head_op,
        3
    );
    for (op, sectors) in (1..).zip(sectors) {
        let size = HEADER_SIZE + 64 + (sectors - 1) * SECTOR_SIZE;
        for at in [
            HEADER_SIZE,
            SECTOR_SIZE,
            size - 1,
            size,
            sector_ceil(size) - 1,
        ] {
            let mut disk = host.disk.clone();
            disk.flip(layout.prepare_at(op) + at as u64);
            let (after, _) = Host::<Strict>::open(layout, disk, &Super::new(false));
            assert_eq!(
                after.journal.state(op as u64),
                State::Lost,
                "byte {at} of op {op}"
            );
        }
    }
}

#[test]
fn no_disk_makes_recovery_panic() {
    let (host, _) = filled(16, 1, SINGLE, 16);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let sectors = host.disk.0.len() / SECTOR_SIZE;
    let headers: Vec<_> = (1..=16)
        .filter_map(|op| host.journal.header(op).copied())
        .collect();
    let mut outcomes = [0; 2];
    for round in 0..3000 {
        let mut disk = host.disk.clone();
        for _ in 0..=random(6) {
            let (from, to) = (random(sectors) * SECTOR_SIZE, random(sectors) * SECTOR_SIZE);
            match random(4) {
                0 => disk.0.copy_within(from..from + SECTOR_SIZE, to),
                1 => disk.wipe_sector(to as u64),
                2 => disk.0.copy_within(random(16) * HEADER_SIZE..SECTOR_SIZE, 0),
                _ => disk.flip((to + random(600)) as u64),
            }
        }
        let checkpoint = random(17);
        let mut superblock = Super::new(round % 2 == 0);
        if checkpoint > 0 {
            superblock.checkpoint_op = checkpoint as u64;
            superblock.checkpoint_checksum = headers[checkpoint - 1].frame.checksum;
        }
        superblock.headers = headers[..random(17)].to_vec();
        let (after, recovered) = Host::<Strict>::open(host.layout, disk, &superblock);
        outcomes[usize::from(recovered.is_ok())] += 1;
        if let Ok(recovered) = recovered {
            let same = Host::<Strict>::open(host.layout, after.disk, &superblock).1;
            assert_eq!(same, Ok(recovered));
        }
    }
    assert!(outcomes.iter().all(|&count| count > 100), "{outcomes:?}");
}
