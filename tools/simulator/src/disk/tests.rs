use super::*;
use storage::buffer::AlignedBuffer;
use storage::io::{Buffer, IoId, IoOwner};

const SECTOR: u64 = SECTOR_SIZE as u64;

fn id(index: u32) -> IoId {
    IoId {
        owner: IoOwner::Journal,
        index,
        generation: 1,
    }
}

fn instant() -> Disk {
    Disk::new(8 * SECTOR, DiskSpeed::INSTANT, Prng::new(1))
}

fn write(sector: u64, sectors: usize, byte: u8, durable: bool) -> IoRequest {
    let mut buffer = AlignedBuffer::new(sectors * SECTOR_SIZE);
    buffer.fill(byte);
    IoRequest::Write {
        id: id(u32::from(byte)),
        at: sector * SECTOR,
        size: sectors * SECTOR_SIZE,
        buffer: Buffer::Sectors(buffer),
        durable,
    }
}

fn run(disk: &mut Disk, request: IoRequest) {
    disk.submit(0, request);
    assert!(disk.complete(0).is_some());
}

/// What a cut may leave in a sector's first byte.
fn candidates(disk: &Disk, sector: u64) -> Vec<u8> {
    let cut = disk.state().cut(Tear::Sector);
    let undecided = cut.undecided();
    let Some(unit) = undecided.iter().find(|unit| unit.at == sector * SECTOR) else {
        return vec![disk.state().sector(sector)[0]];
    };
    let of = |choice: u32| {
        let decide = |u: Undecided| if u.at == unit.at { choice } else { 0 };
        cut.decide(decide).state.sector(sector)[0]
    };
    (0..unit.candidates).map(of).collect()
}

#[test]
fn a_write_is_volatile_until_a_sync_begun_after_it() {
    let mut disk = instant();
    run(&mut disk, write(0, 1, 1, false));
    assert_eq!(disk.state().sector(0)[0], 1);
    assert_eq!(candidates(&disk, 0), [0, 1]);
    run(&mut disk, IoRequest::Sync { id: id(0) });
    assert!(disk.state().is_durable());
    assert_eq!(candidates(&disk, 0), [1]);
}

#[test]
fn a_sync_covers_only_what_completed_before_it_began() {
    let mut disk = instant();
    run(&mut disk, write(0, 1, 1, false));
    disk.submit(5, IoRequest::Sync { id: id(0) });
    run(&mut disk, write(0, 1, 2, false));
    run(&mut disk, write(1, 1, 3, false));
    assert_eq!(candidates(&disk, 0), [0, 1, 2]);
    assert!(disk.complete(5).is_some());
    assert_eq!(candidates(&disk, 0), [1, 2]);
    assert_eq!(candidates(&disk, 1), [0, 3]);
}

#[test]
fn a_durable_write_supersedes_the_cache() {
    let mut disk = instant();
    run(&mut disk, write(0, 2, 1, false));
    run(&mut disk, write(1, 1, 2, true));
    assert_eq!(candidates(&disk, 0), [0, 1]);
    assert_eq!(candidates(&disk, 1), [2]);
}

#[test]
fn a_write_in_flight_may_land_in_any_sector_whether_durable_or_not() {
    for durable in [false, true] {
        let mut disk = instant();
        run(&mut disk, write(0, 1, 1, true));
        disk.submit(0, write(0, 2, 2, durable));
        assert_eq!(
            disk.state().sector(0)[0],
            1,
            "not visible before it completes"
        );
        assert_eq!(candidates(&disk, 0), [1, 2]);
        assert_eq!(candidates(&disk, 1), [0, 2]);
    }
}

#[test]
fn a_power_cut_leaves_only_candidates_and_all_of_them_in_time() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut disk = Disk::new(8 * SECTOR, DiskSpeed::INSTANT, Prng::new(seed));
        run(&mut disk, write(0, 1, 1, false));
        disk.submit(0, write(1, 2, 2, true));
        disk.power_cut(Tear::Sector);
        assert!(disk.state().is_durable() && disk.next_completion_ns().is_none());
        let state = disk.state();
        seen.insert([0, 1, 2].map(|sector| state.sector(sector)[0]));
        assert!(state.sector(3).iter().all(|&byte| byte == 0));
        assert_eq!(disk.statistics().in_flight_at_crash, 1);
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn a_small_tear_mixes_old_and_new_inside_a_sector() {
    let mut disk = instant();
    run(&mut disk, write(0, 1, 1, true));
    disk.submit(0, write(0, 1, 2, true));
    let cut = disk.state().cut(Tear::Bytes512);
    assert_eq!(cut.undecided().len(), 8);
    let outcome = cut.decide(|unit| u32::from(unit.at == 512));
    assert_eq!((outcome.torn, outcome.landed), (1, 0));
    let sector = outcome.state.sector(0);
    assert_eq!(
        (sector[0], sector[512], sector[1023], sector[1024]),
        (1, 2, 2, 1)
    );
}

#[test]
fn a_killed_process_loses_nothing_completed_and_tears_nothing() {
    let mut landed = 0;
    for seed in 0..100 {
        let mut disk = Disk::new(8 * SECTOR, DiskSpeed::INSTANT, Prng::new(seed));
        run(&mut disk, write(0, 1, 1, false));
        disk.submit(0, write(1, 3, 2, true));
        disk.process_crash();
        assert_eq!(disk.state().sector(0)[0], 1);
        let bytes = [1, 2, 3].map(|sector| disk.state().sector(sector)[0]);
        assert!(bytes == [0; 3] || bytes == [2; 3]);
        landed += u32::from(bytes[0] == 2);
        // What landed without an answer is in the device, but not durable.
        assert_eq!(candidates(&disk, 0), [0, 1]);
    }
    assert!((30..70).contains(&landed));
}

#[test]
fn reads_bring_their_buffer_home_with_what_completed_before_them() {
    let mut disk = instant();
    run(&mut disk, write(2, 1, 7, false));
    let buffer = Buffer::Sectors(AlignedBuffer::new(2 * SECTOR_SIZE));
    let request = IoRequest::Read {
        id: id(9),
        at: 2 * SECTOR,
        size: 2 * SECTOR_SIZE,
        buffer,
    };
    disk.submit(0, request);
    let done = disk.complete(0).expect("it is due");
    let buffer = done.buffer.expect("a read has a buffer");
    assert_eq!(done.id, id(9));
    assert_eq!((buffer.bytes()[0], buffer.bytes()[SECTOR_SIZE]), (7, 0));
}

#[test]
#[should_panic(expected = "two writes in flight")]
fn overlapping_writes_in_flight_are_refused() {
    let mut disk = instant();
    disk.submit(0, write(0, 4, 1, true));
    disk.submit(0, write(3, 1, 2, true));
}

#[test]
fn completions_come_when_they_are_due_and_may_overtake() {
    let mut overtaken = false;
    for seed in 0..20 {
        let mut disk = Disk::new(8 * SECTOR, DiskSpeed::FAST, Prng::new(seed));
        disk.submit(1000, write(0, 1, 1, true));
        disk.submit(1000, write(1, 1, 2, true));
        let due = disk.next_completion_ns().expect("two are in flight");
        assert!(due >= 1000 + DiskSpeed::FAST.write_min_ns);
        assert!(disk.complete(due - 1).is_none());
        let first = disk.complete(due).expect("it is due");
        overtaken |= first.id == id(2);
        assert!(disk.complete(u64::MAX).is_some() && disk.in_flight() == 0);
    }
    assert!(overtaken);
}

#[test]
fn kept_states_do_not_change_with_the_disk() {
    let mut disk = instant();
    run(&mut disk, write(0, 1, 1, true));
    let kept = disk.state().clone();
    run(&mut disk, write(0, 1, 2, true));
    assert_eq!((kept.sector(0)[0], disk.state().sector(0)[0]), (1, 2));
}
