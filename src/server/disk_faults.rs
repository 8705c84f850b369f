//! Faults of a disk on demand, for tests with real processes: a file says which, `start --development --fault-file` names
//! it. Without that file nothing here exists at run time.
//!
//! The layer sits between the replica and the driver: requests pass [`DiskFaults::on_request`] on their way down,
//! completions [`DiskFaults::on_done`] on their way up. (LD_PRELOAD cannot do this: io_uring makes no call that it sees.)
//!
//! ```text
//! # A line each; what is not said does not happen.
//! delay-ms 300            every completion comes so much later
//! write-error 0 1048576   writes that touch these bytes fail (offset, size), and nothing is written
//! read-error 8192 4096    sectors that touch these bytes cannot be read
//! flip-reads 0.02         so many reads have one bit flipped
//! ```
//!
//! Another thread reads the file again every [`POLL`]; the event loop looks at one number a turn, and takes a changed plan
//! over by copying it. Everything is bounded by what the replica has in flight. Nothing allocates after the start.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use storage::SECTOR_SIZE;
use storage::io::{Buffer, IoDone, IoError, IoId, IoRequest};

/// How often the file is read.
const POLL: Duration = Duration::from_millis(20);

/// Largest file, in bytes; what lies beyond is not read.
const FILE_SIZE_MAX: u64 = 4096;

/// Most ranges of each kind.
const RANGES_MAX: usize = 16;

/// Longest delay, in milliseconds: longer is no disk.
const DELAY_MS_MAX: u64 = 60_000;

/// The errno of a device that fails.
const EIO: i32 = 5;

/// A line of the file that is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{0}` is no fault: write delay-ms N, write-error OFFSET SIZE, read-error OFFSET SIZE or flip-reads RATE, at most 16 \
     ranges of a kind"
)]
pub struct FaultError(String);

/// Ranges of bytes of the data file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ranges {
    each: [(u64, u64); RANGES_MAX],
    count: usize,
}

impl Ranges {
    fn add(&mut self, at: u64, size: u64) -> Option<()> {
        let slot = self.each.get_mut(self.count)?;
        *slot = (at, at.checked_add(size)?);
        self.count += 1;
        Some(())
    }

    fn touch(&self, at: u64, size: usize) -> bool {
        let end = at + size as u64;
        let mut each = self.each[..self.count].iter();
        each.any(|&(from, to)| from < end && at < to)
    }
}

/// Which faults there are.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Plan {
    delay_ns: u64,
    write_errors: Ranges,
    read_errors: Ranges,
    /// Share of reads with a flipped bit, 0 to 1.
    flip_reads: f64,
}

impl Plan {
    fn parse(text: &str) -> Result<Self, FaultError> {
        let mut plan = Self::default();
        for line in text.lines() {
            let words = line.split('#').next().unwrap_or_default();
            let words: Vec<_> = words.split_whitespace().collect();
            if !words.is_empty() && plan.add(&words).is_none() {
                return Err(FaultError(line.to_owned()));
            }
        }
        Ok(plan)
    }

    fn add(&mut self, words: &[&str]) -> Option<()> {
        let number = |word: &str| word.parse::<u64>().ok();
        match *words {
            ["delay-ms", delay] => {
                let delay = number(delay).filter(|&it| it <= DELAY_MS_MAX)?;
                self.delay_ns = delay * 1_000_000;
            }
            ["write-error", at, size] => self.write_errors.add(number(at)?, number(size)?)?,
            ["read-error", at, size] => self.read_errors.add(number(at)?, number(size)?)?,
            ["flip-reads", rate] => {
                let rate = rate.parse().ok();
                self.flip_reads = rate.filter(|it| (0.0..=1.0).contains(it))?;
            }
            _ => return None,
        }
        Some(())
    }
}

#[derive(Debug, Default)]
struct Shared {
    plan: Mutex<Plan>,
    /// Raised after each change of the plan.
    version: AtomicU64,
    dropped: AtomicBool,
}

impl Shared {
    fn publish(&self, plan: &Plan) {
        if let Ok(mut shared) = self.plan.lock() {
            *shared = *plan;
        }
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// The layer.
#[derive(Debug)]
pub struct DiskFaults {
    shared: Arc<Shared>,
    version: u64,
    plan: Plan,
    /// Reads in flight: a completion does not say where it read.
    reads: Vec<(IoId, u64, usize)>,
    /// Completions that come later, and when; in the order of that.
    held: VecDeque<(u64, IoDone)>,
    random: Xoshiro256PlusPlus,
}

impl DiskFaults {
    /// Reads the file, which may be missing (then there are no faults), and watches it until this is dropped. `io_max`:
    /// most requests in flight. `seed`: which bits are flipped.
    ///
    /// # Errors
    /// A line is no fault. Later such lines are warned of, and the faults stay as they were.
    pub fn watch(path: &Path, io_max: usize, seed: u64) -> Result<Self, FaultError> {
        let mut text = read(path);
        let plan = Plan::parse(&text)?;
        let shared = Arc::new(Shared::default());
        shared.publish(&plan);
        let (watched, path) = (Arc::clone(&shared), path.to_path_buf());
        let watch = move || {
            while !watched.dropped.load(Ordering::Relaxed) {
                thread::sleep(POLL);
                let newer = read(&path);
                if newer == text {
                    continue;
                }
                match Plan::parse(&newer) {
                    Ok(plan) => {
                        log::warn!("disk faults on purpose: {:?}", newer.trim());
                        watched.publish(&plan);
                    }
                    Err(error) => log::warn!("{}: {error}", path.display()),
                }
                text = newer;
            }
        };
        let name = "viewstone-faults".to_owned();
        if let Err(error) = thread::Builder::new().name(name).spawn(watch) {
            log::warn!("the fault file is read only once: no thread for it ({error})");
        }
        log::warn!("a fault file is in use: this replica's disk fails on purpose");
        Ok(Self {
            shared,
            version: 0,
            plan,
            reads: Vec::with_capacity(io_max),
            held: VecDeque::with_capacity(io_max),
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
        })
    }

    /// Takes a changed plan over. Once a turn.
    pub fn refresh(&mut self, now_ns: u64) {
        let version = self.shared.version.load(Ordering::Acquire);
        if version == self.version {
            return;
        }
        let Ok(plan) = self.shared.plan.try_lock() else {
            return; // it is just being written: the next turn has it
        };
        (self.plan, self.version) = (*plan, version);
        for (due, _) in &mut self.held {
            *due = (*due).min(now_ns + self.plan.delay_ns);
        }
    }

    /// A request on its way to the disk. None: it fails here, and its completion is held.
    pub fn on_request(&mut self, now_ns: u64, request: IoRequest) -> Option<IoRequest> {
        match request {
            IoRequest::Write {
                id,
                at,
                size,
                buffer,
                ..
            } if self.plan.write_errors.touch(at, size) => {
                let done = IoDone {
                    id,
                    buffer: Some(buffer),
                    result: Err(IoError {
                        action: "write",
                        at,
                        size,
                        errno: EIO,
                    }),
                };
                self.hold(now_ns, done);
                None
            }
            IoRequest::Read { id, at, size, .. } => {
                self.reads.push((id, at, size));
                Some(request)
            }
            _ => Some(request),
        }
    }

    /// A completion of the disk. None: it is held until it is due.
    pub fn on_done(&mut self, now_ns: u64, mut done: IoDone) -> Option<IoDone> {
        if let Some(place) = self.reads.iter().position(|&(id, ..)| id == done.id) {
            let (_, at, size) = self.reads.swap_remove(place);
            if let Some(buffer) = &mut done.buffer {
                self.spoil(at, size, buffer);
            }
        }
        if self.plan.delay_ns == 0 {
            return Some(done);
        }
        self.hold(now_ns, done);
        None
    }

    fn hold(&mut self, now_ns: u64, done: IoDone) {
        let due = now_ns + self.plan.delay_ns;
        // A plan with a shorter delay came between: nobody overtakes.
        let due = self.held.back().map_or(due, |&(last, _)| last.max(due));
        self.held.push_back((due, done));
    }

    /// What the disk would have made of a read. Sectors that cannot be read are zeros, as the driver makes them.
    fn spoil(&mut self, at: u64, size: usize, buffer: &mut Buffer) {
        let bytes = &mut buffer.bytes_mut()[..size];
        for (index, sector) in bytes.chunks_mut(SECTOR_SIZE).enumerate() {
            let at = at + (index * SECTOR_SIZE) as u64;
            if self.plan.read_errors.touch(at, SECTOR_SIZE) {
                sector.fill(0);
            }
        }
        let draw = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        if draw < self.plan.flip_reads {
            let bit = self.random.next_u64() as usize % (8 * size);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// A completion that is due.
    pub fn next_due(&mut self, now_ns: u64) -> Option<IoDone> {
        let is_due = self.held.front().is_some_and(|&(due, _)| due <= now_ns);
        is_due
            .then(|| self.held.pop_front())
            .flatten()
            .map(|(_, done)| done)
    }

    /// When the next completion is due, in monotonic nanoseconds.
    pub fn deadline_ns(&self) -> u64 {
        self.held.front().map_or(u64::MAX, |&(due, _)| due)
    }
}

impl Drop for DiskFaults {
    fn drop(&mut self) {
        self.shared.dropped.store(true, Ordering::Relaxed);
    }
}

/// The file's text; of a missing one, none.
fn read(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(FILE_SIZE_MAX).read_to_string(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::buffer::AlignedBuffer;
    use storage::io::IoOwner;

    fn faults(text: &str) -> DiskFaults {
        let path = std::env::temp_dir().join(format!("faults-{:p}-{}", text, std::process::id()));
        std::fs::write(&path, text).expect("writable");
        let faults = DiskFaults::watch(&path, 8, 1).expect("faults");
        std::fs::remove_file(&path).expect("ours");
        // Not to be changed by the file's end.
        faults.shared.dropped.store(true, Ordering::Relaxed);
        faults
    }

    fn id(index: u32) -> IoId {
        IoId {
            owner: IoOwner::Journal,
            index,
            generation: 0,
        }
    }

    fn sectors(count: usize) -> Buffer {
        let mut buffer = AlignedBuffer::new(count * SECTOR_SIZE);
        buffer.fill(0xa5);
        Buffer::Sectors(buffer)
    }

    fn read_at(index: u32, at: u64, count: usize) -> IoRequest {
        IoRequest::Read {
            id: id(index),
            at,
            size: count * SECTOR_SIZE,
            buffer: sectors(count),
        }
    }

    fn done(request: IoRequest) -> IoDone {
        let id = request.id();
        let buffer = match request {
            IoRequest::Read { buffer, .. } | IoRequest::Write { buffer, .. } => Some(buffer),
            IoRequest::Sync { .. } => None,
        };
        IoDone {
            id,
            buffer,
            result: Ok(()),
        }
    }

    #[test]
    fn every_line_is_a_fault_or_an_error() {
        let plan = Plan::parse("# none\n\ndelay-ms 5 # five\nread-error 1 2\nflip-reads 0.5\n");
        let plan = plan.expect("faults");
        assert_eq!((plan.delay_ns, plan.read_errors.count), (5_000_000, 1));
        assert_eq!(Plan::parse("").expect("none"), Plan::default());
        let many = "write-error 0 1\n".repeat(RANGES_MAX + 1);
        for bad in [
            "delay 5",
            "delay-ms",
            "delay-ms -1",
            "delay-ms 60001",
            "flip-reads 2",
            "flip-reads NaN",
            "read-error 1",
            "write-error 18446744073709551615 2",
            &many,
        ] {
            assert!(Plan::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn completions_are_held_until_they_are_due() {
        let mut faults = faults("delay-ms 1");
        for index in 0..3 {
            let request = faults
                .on_request(0, read_at(index, 0, 1))
                .expect("it passes");
            assert!(faults.on_done(u64::from(index), done(request)).is_none());
        }
        assert_eq!(faults.deadline_ns(), 1_000_000);
        assert!(faults.next_due(999_999).is_none());
        assert_eq!(faults.next_due(1_000_001).expect("due").id, id(0));
        assert_eq!(faults.next_due(1_000_001).expect("due").id, id(1));
        assert!(faults.next_due(1_000_001).is_none());
        // A plan without delay lets them go at once.
        faults.shared.publish(&Plan::default());
        faults.refresh(1_000_001);
        assert_eq!(faults.next_due(1_000_001).expect("due").id, id(2));
        assert_eq!(faults.deadline_ns(), u64::MAX);
        assert!(
            faults
                .on_done(5, done(IoRequest::Sync { id: id(4) }))
                .is_some()
        );
    }

    #[test]
    fn ranges_fail_and_nothing_else() {
        let mut faults = faults("write-error 8192 1\nread-error 12288 4096");
        let write = |index, at, count: usize| IoRequest::Write {
            id: id(index),
            at,
            size: count * SECTOR_SIZE,
            buffer: sectors(count),
            durable: true,
        };
        assert!(faults.on_request(0, write(0, 0, 2)).is_some());
        assert!(faults.on_request(0, write(1, 12288, 1)).is_some());
        assert!(faults.on_request(0, write(2, 4096, 2)).is_none());
        let failed = faults.next_due(0).expect("at once");
        assert_eq!(
            (failed.id, failed.result.expect_err("it failed").errno),
            (id(2), EIO)
        );
        assert!(failed.buffer.is_some());
        let request = faults
            .on_request(0, read_at(3, 8192, 3))
            .expect("it passes");
        let read = faults.on_done(0, done(request)).expect("no delay");
        let buffer = read.buffer.expect("home again");
        let sum = |index: usize| buffer.bytes()[index * SECTOR_SIZE];
        assert_eq!(
            (read.result, sum(0), sum(1), sum(2)),
            (Ok(()), 0xa5, 0, 0xa5)
        );
    }

    #[test]
    fn flipped_reads_have_one_bit_wrong() {
        let mut faults = faults("flip-reads 0.5");
        let mut flipped = 0;
        for index in 0..200 {
            let request = faults
                .on_request(0, read_at(index, 0, 2))
                .expect("it passes");
            let buffer = faults.on_done(0, done(request)).expect("no delay").buffer;
            let buffer = buffer.expect("home again");
            let wrong: u32 = buffer
                .bytes()
                .iter()
                .map(|it| (it ^ 0xa5).count_ones())
                .sum();
            assert!(wrong <= 1);
            flipped += wrong;
        }
        assert!((60..140).contains(&flipped), "{flipped}");
    }
}
