//! The driver against the real kernel: files beside the test binary, and pairs of local sockets.

use super::*;
use crate::SECTOR_SIZE;
use crate::buffer::{AlignedBuffer, MessagePool};
use crate::header::{Commit, Typed};
use crate::io::{Buffer, IoId, IoOwner};
use rustix::fs::{Mode, OFlags};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

const ALL: [Durability; 3] = [
    Durability::WriteDsync,
    Durability::LinkedSync,
    Durability::SyncPerTurn,
];

fn driver(entries: u32, durability: Durability) -> Uring {
    Uring::new(&UringOptions {
        entries,
        disk_max: 16,
        sockets_max: 2,
        durability,
        fixed_files: true,
    })
    .expect("this machine has io_uring")
}

/// A new file without a name, on the file system of the test binary, opened for direct access.
fn file(size: u64) -> OwnedFd {
    let exe = std::env::current_exe().expect("the test runs");
    let directory = exe.parent().expect("it lies in a directory");
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::DIRECT | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)
        .expect("the target directory supports unnamed files and direct access");
    rustix::fs::ftruncate(&fd, size).expect("the file grows");
    fd
}

fn id(index: u32) -> IoId {
    IoId {
        owner: IoOwner::Journal,
        index,
        generation: 3,
    }
}

fn sectors(count: usize, byte: u8) -> Buffer {
    let mut buffer = AlignedBuffer::new(count * SECTOR_SIZE);
    buffer.fill(byte);
    Buffer::Sectors(buffer)
}

fn write(index: u32, at: u64, count: usize, byte: u8, durable: bool) -> IoRequest {
    IoRequest::Write {
        id: id(index),
        at,
        size: count * SECTOR_SIZE,
        buffer: sectors(count, byte),
        durable,
    }
}

fn read(index: u32, at: u64, count: usize) -> IoRequest {
    IoRequest::Read {
        id: id(index),
        at,
        size: count * SECTOR_SIZE,
        buffer: sectors(count, 0xee),
    }
}

/// Waits for the next completion.
fn done(driver: &mut Uring) -> Done {
    for _ in 0..100 {
        if let Some(done) = driver.next_done() {
            return done;
        }
        driver
            .turn(Wait::AtMost(Duration::from_secs(1)))
            .expect("the ring works");
    }
    panic!("no completion");
}

fn disk_done(driver: &mut Uring) -> IoDone {
    match done(driver) {
        Done::Disk(done) => done,
        other => panic!("not a disk completion: {other:?}"),
    }
}

#[test]
fn what_is_written_is_read_in_every_mode() {
    for durability in ALL {
        let mut driver = driver(64, durability);
        driver.set_file(file(1 << 20)).expect("registered");
        driver.submit_disk(write(1, 4096, 2, 5, true));
        driver.submit_disk(write(2, 65536, 1, 6, false));
        for _ in 0..2 {
            assert_eq!(disk_done(&mut driver).result, Ok(()));
        }
        driver.submit_disk(IoRequest::Sync { id: id(3) });
        assert_eq!(disk_done(&mut driver).id, id(3));
        driver.submit_disk(read(4, 0, 4));
        let buffer = disk_done(&mut driver).buffer.expect("home again");
        let firsts: Vec<u8> = buffer.bytes().chunks(4096).map(|s| s[0]).collect();
        assert_eq!(firsts, [0, 5, 5, 0]);
        assert_eq!(driver.disk_in_flight(), 0);
    }
}

#[test]
fn more_requests_than_the_ring_holds_go_through_in_every_mode() {
    for durability in ALL {
        let mut driver = driver(2, durability);
        driver.set_file(file(1 << 20)).expect("registered");
        let mut next = 0;
        while driver.has_disk_room() {
            driver.submit_disk(write(next, u64::from(next) * 4096, 1, next as u8 + 1, true));
            next += 1;
        }
        assert_eq!(next, 16);
        for _ in 0..next {
            assert_eq!(disk_done(&mut driver).result, Ok(()));
        }
        driver.submit_disk(read(0, 0, 16));
        let buffer = disk_done(&mut driver).buffer.expect("home again");
        assert!((0..16).all(|sector| buffer.bytes()[sector * 4096 + 9] == sector as u8 + 1));
    }
}

#[test]
fn a_full_device_is_an_error_that_brings_the_buffer_home() {
    for durability in ALL {
        let mut driver = driver(64, durability);
        let full = rustix::fs::open("/dev/full", OFlags::RDWR, Mode::empty());
        driver
            .set_file(full.expect("Linux has it"))
            .expect("registered");
        driver.submit_disk(write(1, 0, 1, 1, true));
        let done = disk_done(&mut driver);
        assert!(done.buffer.is_some());
        let error = done.result.expect_err("no space");
        assert_eq!((error.errno, error.action), (libc::ENOSPC, "write"));
        assert!(
            error
                .to_string()
                .contains("write of 4096 bytes at offset 0")
        );
    }
}

#[test]
fn a_file_that_cannot_be_synced_or_written_is_an_error() {
    let mut driver = driver(64, Durability::WriteDsync);
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    driver.set_file(ours.into()).expect("registered");
    driver.submit_disk(IoRequest::Sync { id: id(1) });
    let error = disk_done(&mut driver).result.expect_err("no file");
    assert_eq!((error.errno, error.action), (libc::EINVAL, "sync"));
    drop(driver);

    let mut driver = self::driver(64, Durability::WriteDsync);
    let zero = rustix::fs::open("/dev/zero", OFlags::RDONLY, Mode::empty());
    driver
        .set_file(zero.expect("Linux has it"))
        .expect("registered");
    driver.submit_disk(write(1, 0, 1, 1, true));
    assert_eq!(
        disk_done(&mut driver).result.expect_err("read-only").errno,
        libc::EBADF
    );
}

#[test]
fn beyond_the_end_of_the_file_there_are_zeros() {
    let mut driver = driver(64, Durability::WriteDsync);
    let file = file(3 * 4096);
    driver.set_file(file).expect("registered");
    driver.submit_disk(write(1, 8192, 1, 4, true));
    disk_done(&mut driver);
    driver.submit_disk(read(2, 8192, 3));
    let done = disk_done(&mut driver);
    assert_eq!(done.result, Ok(()));
    let buffer = done.buffer.expect("home again");
    let firsts: Vec<u8> = buffer.bytes().chunks(4096).map(|s| s[0]).collect();
    assert_eq!(firsts, [4, 0, 0]);
}

#[test]
fn a_dropped_driver_waits_for_its_writes() {
    let fd = file(1 << 20);
    let again = fd.try_clone().expect("a second descriptor");
    let mut driver = driver(64, Durability::LinkedSync);
    driver.set_file(fd).expect("registered");
    driver.submit_disk(write(1, 4096, 16, 9, true));
    drop(driver);
    let mut buffer = AlignedBuffer::new(4096);
    rustix::io::pread(&again, &mut buffer[..], 16 * 4096).expect("readable");
    assert_eq!(buffer[0], 9);
}

#[test]
fn messages_leave_in_one_batch_and_bytes_arrive_in_a_message() {
    let pool = MessagePool::new(4, SECTOR_SIZE);
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let mut driver = driver(64, Durability::WriteDsync);
    driver.open(1, ours.into()).expect("registered");
    let mut left = 3_u8;
    driver.send(1, || {
        left = left.checked_sub(1)?;
        let mut message = pool.take().expect("free");
        message.set_header(&Commit::new(7, 0, left));
        Some(message.seal())
    });
    assert!(matches!(
        done(&mut driver),
        Done::Sent {
            socket: 1,
            result: Ok(())
        }
    ));
    assert_eq!(pool.free(), 4);
    let mut bytes = [0; 768];
    theirs.read_exact(&mut bytes).expect("three headers");

    driver.receive(1, pool.take().expect("free"), 100, 300, true);
    theirs.write_all(&bytes[..200]).expect("room");
    driver.turn(Wait::Poll).expect("the ring works");
    theirs.write_all(&bytes[200..400]).expect("room");
    let Done::Received {
        socket: 1,
        message,
        result,
    } = done(&mut driver)
    else {
        panic!("not a receive")
    };
    assert_eq!(result, Ok(300));
    assert_eq!(message.buffer()[100..400], bytes[..300]);
    driver.receive(1, message, 0, 4096, false);
    assert!(matches!(
        done(&mut driver),
        Done::Received {
            result: Ok(100),
            ..
        }
    ));
    drop(theirs);
    driver.receive(1, pool.take().expect("free"), 0, 4096, false);
    assert!(matches!(
        done(&mut driver),
        Done::Received { result: Ok(0), .. }
    ));
}

#[test]
fn a_closed_socket_brings_everything_home_and_its_slot_can_be_used_again() {
    let pool = MessagePool::new(64, 256 << 10);
    let mut driver = driver(64, Durability::WriteDsync);
    for _ in 0..3 {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        driver.open(0, ours.into()).expect("registered");
        driver.receive(0, pool.take().expect("free"), 0, 4096, false);
        let mut left = SEND_BATCH_MAX;
        driver.send(0, || {
            left = left.checked_sub(1)?;
            let mut message = pool.take().expect("free");
            message.set_header(&Commit::new(1, 2, 3));
            message.header_mut().frame.size = 256 << 10;
            Some(message.seal())
        });
        driver.turn(Wait::Poll).expect("the ring works");
        assert!(driver.next_done().is_none() && driver.is_sending(0));
        driver.close(0);
        assert!(matches!(done(&mut driver), Done::Closed { socket: 0 }));
        assert_eq!(pool.free(), 64);
        assert!(driver.socket(0).is_none());
        drop(theirs);
    }
}

#[test]
fn a_dropped_driver_brings_socket_buffers_home() {
    let pool = MessagePool::new(1, SECTOR_SIZE);
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    let mut driver = driver(64, Durability::WriteDsync);
    driver.open(0, ours.into()).expect("registered");
    driver.receive(0, pool.take().expect("free"), 0, 4096, false);
    driver.turn(Wait::Poll).expect("the ring works");
    drop(driver);
    assert_eq!(pool.free(), 1);
}
