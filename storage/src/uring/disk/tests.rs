//! Every outcome of a disk request, by feeding the table completion codes.

use super::*;
use crate::buffer::AlignedBuffer;
use crate::io::IoOwner;

const SECTOR: i32 = 4096;

fn id(index: u32) -> IoId {
    IoId {
        owner: IoOwner::Journal,
        index,
        generation: 1,
    }
}

fn write(sectors: usize, durable: bool) -> IoRequest {
    IoRequest::Write {
        id: id(0),
        at: 8192,
        size: sectors * SECTOR_SIZE,
        buffer: Buffer::Sectors(AlignedBuffer::new(sectors * SECTOR_SIZE)),
        durable,
    }
}

fn read(sectors: usize) -> IoRequest {
    let mut buffer = AlignedBuffer::new(sectors * SECTOR_SIZE);
    buffer.fill(7);
    IoRequest::Read {
        id: id(0),
        at: 0,
        size: sectors * SECTOR_SIZE,
        buffer: Buffer::Sectors(buffer),
    }
}

fn main(disk: &mut Disk, index: u32, code: i32) -> Next {
    disk.complete(index, disk.generation(index), Part::Main, code)
}

fn errno(disk: &mut Disk) -> Option<i32> {
    let done = disk.pop_done().expect("the request is done");
    assert_eq!(disk.in_flight(), 0);
    done.result.err().map(|error| error.errno)
}

#[test]
fn a_short_write_is_continued_from_the_last_whole_sector() {
    let mut disk = Disk::new(1, Durability::WriteDsync);
    let index = disk.begin(write(4, true));
    assert!(!disk.has_room());
    assert_eq!(main(&mut disk, index, SECTOR + 512), Next::Submit(index));
    assert_eq!(
        disk.operation(index),
        Operation::Write {
            at: 8192 + 4096,
            offset: 4096,
            size: 3 * 4096,
            flush: Flush::Dsync
        }
    );
    assert_eq!(main(&mut disk, index, 3 * SECTOR), Next::Nothing);
    assert_eq!(errno(&mut disk), None);
}

#[test]
fn interruptions_are_retried_and_bounded() {
    for code in [-libc::EINTR, -libc::EAGAIN, 0] {
        let mut disk = Disk::new(1, Durability::WriteDsync);
        let index = disk.begin(write(1, true));
        for _ in 1..ATTEMPTS_MAX {
            assert_eq!(main(&mut disk, index, code), Next::Submit(index));
        }
        assert_eq!(main(&mut disk, index, code), Next::Nothing);
        let expected = if code == 0 { libc::EIO } else { -code };
        assert_eq!(errno(&mut disk), Some(expected));
    }
}

#[test]
fn a_failed_write_or_sync_ends_at_once_and_brings_the_buffer_home() {
    for code in [libc::EIO, libc::ENOSPC] {
        let mut disk = Disk::new(1, Durability::WriteDsync);
        let index = disk.begin(write(1, false));
        assert_eq!(main(&mut disk, index, -code), Next::Nothing);
        let done = disk.pop_done().expect("done");
        assert!(done.buffer.is_some());
        let error = done.result.expect_err("the write failed");
        assert_eq!((error.action, error.errno), ("write", code));
        let index = disk.begin(IoRequest::Sync { id: id(0) });
        assert_eq!(disk.operation(index), Operation::Sync);
        main(&mut disk, index, -code);
        assert_eq!(errno(&mut disk), Some(code));
    }
}

#[test]
fn unreadable_sectors_come_back_as_zeros_and_the_others_as_read() {
    let mut disk = Disk::new(1, Durability::WriteDsync);
    let index = disk.begin(read(3));
    assert_eq!(main(&mut disk, index, -libc::EIO), Next::Submit(index));
    for (sector, code) in [(0, SECTOR), (1, -libc::EIO), (2, SECTOR)] {
        let at = sector * 4096;
        assert_eq!(
            disk.operation(index),
            Operation::Read {
                at,
                offset: at as usize,
                size: 4096
            }
        );
        main(&mut disk, index, code);
    }
    let done = disk.pop_done().expect("done");
    assert_eq!(done.result, Ok(()));
    let buffer = done.buffer.expect("home again");
    let firsts: Vec<u8> = buffer.bytes().chunks(4096).map(|s| s[0]).collect();
    assert_eq!(firsts, [7, 0, 7]);
}

#[test]
fn a_read_beyond_the_end_is_zeros() {
    let mut disk = Disk::new(1, Durability::WriteDsync);
    let index = disk.begin(read(3));
    assert_eq!(main(&mut disk, index, SECTOR), Next::Submit(index));
    assert_eq!(main(&mut disk, index, 0), Next::Nothing);
    let buffer = disk.pop_done().expect("done").buffer.expect("home again");
    assert_eq!((buffer.bytes()[0], buffer.bytes()[4096]), (7, 0));
}

#[test]
fn an_error_that_is_not_the_mediums_fails_the_read() {
    let mut disk = Disk::new(1, Durability::WriteDsync);
    let index = disk.begin(read(1));
    main(&mut disk, index, -libc::EINVAL);
    assert_eq!(errno(&mut disk), Some(libc::EINVAL));
}

#[test]
fn a_linked_write_is_done_only_with_its_sync() {
    let mut disk = Disk::new(1, Durability::LinkedSync);
    let index = disk.begin(write(2, true));
    let generation = disk.generation(index);
    assert_eq!(main(&mut disk, index, SECTOR), Next::Nothing); // short: the link breaks
    let next = disk.complete(index, generation, Part::LinkedSync, -libc::ECANCELED);
    assert_eq!(next, Next::Submit(index));
    assert_eq!(main(&mut disk, index, SECTOR), Next::Nothing);
    assert!(disk.pop_done().is_none());
    let next = disk.complete(index, generation, Part::LinkedSync, -libc::EINTR);
    assert_eq!(next, Next::SubmitLinkedSync(index));
    let next = disk.complete(index, generation, Part::LinkedSync, 0);
    assert_eq!(next, Next::Nothing);
    assert_eq!(errno(&mut disk), None);
}

#[test]
fn a_linked_write_that_fails_waits_for_its_cancelled_sync() {
    let mut disk = Disk::new(1, Durability::LinkedSync);
    let index = disk.begin(write(1, true));
    main(&mut disk, index, -libc::ENOSPC);
    assert!(disk.pop_done().is_none());
    disk.complete(
        index,
        disk.generation(index),
        Part::LinkedSync,
        -libc::ECANCELED,
    );
    assert_eq!(errno(&mut disk), Some(libc::ENOSPC));
}

#[test]
fn a_shared_sync_covers_only_writes_that_completed_before_it() {
    let mut disk = Disk::new(3, Durability::SyncPerTurn);
    let (a, b) = (disk.begin(write(1, true)), disk.begin(write(1, true)));
    assert!(!disk.begin_shared_sync());
    main(&mut disk, a, SECTOR);
    assert!(disk.begin_shared_sync());
    assert_eq!(disk.in_kernel(), 2);
    main(&mut disk, b, SECTOR);
    assert!(!disk.begin_shared_sync());
    assert!(disk.complete_shared_sync(-libc::EINTR));
    assert!(!disk.complete_shared_sync(0));
    assert!(disk.pop_done().is_some() && disk.pop_done().is_none());
    assert!(disk.begin_shared_sync());
    disk.complete_shared_sync(-libc::EIO);
    assert_eq!(errno(&mut disk), Some(libc::EIO));
}

#[test]
fn a_stale_completion_changes_nothing() {
    let mut disk = Disk::new(1, Durability::WriteDsync);
    let index = disk.begin(write(1, true));
    let stale = disk.generation(index);
    main(&mut disk, index, SECTOR);
    disk.pop_done();
    let index = disk.begin(write(1, true));
    assert_eq!(
        disk.complete(index, stale, Part::Main, SECTOR),
        Next::Nothing
    );
    assert_eq!(disk.complete(99, stale, Part::Main, SECTOR), Next::Nothing);
    assert_eq!(disk.in_flight(), 1);
}
