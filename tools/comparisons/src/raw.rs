//! The floor: durable writes into a file whose extents were written before, through io_uring, by the shortest loop there is.
//! Nothing of the driver is in it, so that the driver counts on the other side.

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};
use storage::buffer::AlignedBuffer;
use viewstone::bench::measure::Latencies;

/// Bytes of one write when the file is made.
const CHUNK_SIZE: usize = 4 << 20;

/// How a raw write becomes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// The file is open with O_DSYNC.
    Dsync,
    /// An fdatasync is linked behind each write.
    Linked,
}

/// A file that is written in place, again and again, from its beginning to its end.
pub struct RawFile {
    /// With O_DIRECT and O_DSYNC.
    dsync: OwnedFd,
    /// With O_DIRECT only.
    plain: OwnedFd,
    ring: IoUring,
    buffers: Vec<AlignedBuffer>,
    /// When each write in flight was submitted, by its buffer.
    begun: Vec<Instant>,
    /// Buffers that the kernel may be reading.
    in_flight: usize,
    /// Distance between the starts of two writes.
    stride: u64,
    size: u64,
    at: u64,
}

/// What a run of raw writes brought.
pub struct RawRun {
    /// From submission to completion.
    pub latencies: Latencies,
    /// Bytes in a second.
    pub bytes_per_s: f64,
}

impl RawFile {
    /// Makes the file of `size` bytes without a name in `directory` and writes all of it once; writes of `write_size`
    /// bytes, `depth` at a time, will begin `stride` bytes apart.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new(
        directory: &Path,
        size: u64,
        write_size: usize,
        stride: u64,
        depth: usize,
    ) -> io::Result<Self> {
        assert!(size.is_multiple_of(CHUNK_SIZE as u64) && size.is_multiple_of(stride));
        assert!(stride >= write_size as u64 && depth > 0);
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::DIRECT | OFlags::CLOEXEC;
        let plain = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?;
        let zeros = AlignedBuffer::new(CHUNK_SIZE);
        for at in (0..size).step_by(CHUNK_SIZE) {
            let mut done = 0;
            while done < CHUNK_SIZE {
                done += rustix::io::pwrite(&plain, &zeros[done..], at + done as u64)?;
            }
        }
        rustix::fs::fsync(&plain)?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&plain));
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::DSYNC | OFlags::CLOEXEC;
        let dsync = rustix::fs::open(path, flags, Mode::empty())?;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(2 * depth.next_power_of_two() as u32)?;
        let buffer = |index: usize| {
            let mut buffer = AlignedBuffer::new(write_size);
            buffer.fill(index as u8 + 1);
            buffer
        };
        Ok(Self {
            dsync,
            plain,
            ring,
            buffers: (0..depth).map(buffer).collect(),
            begun: vec![Instant::now(); depth],
            in_flight: 0,
            stride,
            size,
            at: 0,
        })
    }

    /// Keeps all buffers in flight for `duration`.
    ///
    /// # Errors
    /// The operating system's; a short write counts as one.
    pub fn run(&mut self, sync: Sync, duration: Duration) -> io::Result<RawRun> {
        let mut latencies = Latencies::new();
        let begin = Instant::now();
        for index in 0..self.buffers.len() {
            self.submit(index, sync);
        }
        let mut written = 0_u64;
        while self.in_flight > 0 {
            self.ring.submit_and_wait(1)?;
            while let Some((index, is_last)) = self.next_completion(sync)? {
                if !is_last {
                    continue; // the write of a pair; its sync is what is waited for
                }
                let now = Instant::now();
                let latency = now.duration_since(self.begun[index]);
                latencies.record(latency.as_nanos() as u64);
                written += self.buffers[index].len() as u64;
                self.in_flight -= 1;
                if now.duration_since(begin) < duration {
                    self.submit(index, sync);
                }
            }
        }
        let bytes_per_s = written as f64 / begin.elapsed().as_secs_f64();
        Ok(RawRun {
            latencies,
            bytes_per_s,
        })
    }

    fn submit(&mut self, index: usize, sync: Sync) {
        let at = self.at;
        self.at = (at + self.stride) % self.size;
        self.begun[index] = Instant::now();
        self.in_flight += 1;
        let buffer = &self.buffers[index];
        let (address, size) = (buffer.as_ptr(), buffer.len() as u32);
        let fd = match sync {
            Sync::Dsync => &self.dsync,
            Sync::Linked => &self.plain,
        };
        let fd = types::Fd(std::os::fd::AsRawFd::as_raw_fd(fd));
        let write = opcode::Write::new(fd, address, size).offset(at).build();
        let last = index as u64 | LAST;
        match sync {
            Sync::Dsync => self.push(&write.user_data(last)),
            Sync::Linked => {
                let write = write.flags(squeue::Flags::IO_LINK);
                self.push(&write.user_data(index as u64));
                let flush = opcode::Fsync::new(fd)
                    .flags(types::FsyncFlags::DATASYNC)
                    .build();
                self.push(&flush.user_data(last));
            }
        }
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY:
        // * The entry points into a buffer in `self.buffers`, whose memory neither moves nor is written again; it is freed
        //   only when nothing is in flight: `drop` leaks it otherwise.
        // * Its descriptor is owned by `self`; the kernel holds on to the file once the entry is submitted.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("the queue holds two entries for each buffer");
    }

    /// A completion: of which buffer, and whether its write is durable now.
    fn next_completion(&mut self, sync: Sync) -> io::Result<Option<(usize, bool)>> {
        let completion: Option<cqueue::Entry> = self.ring.completion().next();
        let Some(completion) = completion else {
            return Ok(None);
        };
        let index = (completion.user_data() & !LAST) as usize;
        let is_last = completion.user_data() & LAST != 0;
        let is_flush = is_last && sync == Sync::Linked;
        let expected = if is_flush {
            0
        } else {
            self.buffers[index].len()
        };
        match usize::try_from(completion.result()) {
            Err(_) => Err(io::Error::from_raw_os_error(-completion.result())),
            Ok(size) if size != expected => Err(io::Error::from_raw_os_error(libc::EIO)),
            Ok(_) => Ok(Some((index, is_last))),
        }
    }
}

impl Drop for RawFile {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            // After an error the kernel may still read them.
            std::mem::forget(std::mem::take(&mut self.buffers));
        }
    }
}

/// Marks the completion after which a write is durable.
const LAST: u64 = 1 << 63;
