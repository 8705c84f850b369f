//! Appends to a journal through the driver, on a real file whose extents were written before: what the durability switch
//! costs, alone and with both cores kept busy. Prints percentiles, which a mean hides, and then lets criterion measure.
//!
//! `cargo bench --bench journal_append`; the file lies under the target directory. `-- --table` prints the table only.

use criterion::{BenchmarkId, Criterion, Throughput};
use rustix::fs::{Mode, OFlags};
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use storage::buffer::AlignedBuffer;
use storage::io::{Buffer, IoId, IoOwner, IoRequest};
use storage::uring::{Done, Durability, Uring, UringOptions, Wait};

const FILE_SIZE: u64 = 64 << 20;
const DEPTH_MAX: usize = 8;

struct Journal {
    uring: Uring,
    at: u64,
    size: usize,
    durable: bool,
    buffers: Vec<Buffer>,
}

impl Journal {
    fn new(size: usize, durability: Option<Durability>, fixed_files: bool) -> Self {
        let mut uring = Uring::new(&UringOptions {
            entries: 64,
            disk_max: DEPTH_MAX,
            sockets_max: 1,
            durability: durability.unwrap_or_default(),
            fixed_files,
        })
        .expect("io_uring");
        uring.set_file(written_file()).expect("registered");
        let buffers = (0..DEPTH_MAX).map(|_| Buffer::Sectors(AlignedBuffer::new(size)));
        Self {
            uring,
            at: 0,
            size,
            durable: durability.is_some(),
            buffers: buffers.collect(),
        }
    }

    /// Submits `depth` appends together and waits until all are done.
    fn append(&mut self, depth: usize) {
        for index in 0..depth {
            let id = IoId {
                owner: IoOwner::Journal,
                index: index as u32,
                generation: 0,
            };
            self.uring.submit_disk(IoRequest::Write {
                id,
                at: self.at,
                size: self.size,
                buffer: self.buffers.pop().expect("at most as deep as there are"),
                durable: self.durable,
            });
            self.at = (self.at + self.size as u64) % FILE_SIZE;
        }
        let mut left = depth;
        while left > 0 {
            let wait = Wait::AtMost(Duration::from_secs(1));
            self.uring.turn(wait).expect("the ring works");
            while let Some(done) = self.uring.next_done() {
                let Done::Disk(done) = done else { continue };
                done.result.expect("the disk works");
                self.buffers.extend(done.buffer);
                left -= 1;
            }
        }
    }
}

/// A file without a name, every byte of it written once: a first write into an extent is another, slower thing.
fn written_file() -> OwnedFd {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/target");
    std::fs::create_dir_all(directory).expect("the repository is writable");
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::DIRECT | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).expect("O_DIRECT");
    let zeros = AlignedBuffer::new(1 << 20);
    for at in (0..FILE_SIZE).step_by(zeros.len()) {
        assert_eq!(rustix::io::pwrite(&fd, &zeros, at), Ok(zeros.len()));
    }
    rustix::fs::fsync(&fd).expect("synced");
    fd
}

/// Keeps every core busy until dropped.
struct Busy(Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Busy {
    fn new(on: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut sum = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    sum = black_box(sum.wrapping_mul(31).wrapping_add(7));
                }
            })
        };
        let threads = (0..if on { cores } else { 0 }).map(spin).collect();
        Self(stop, threads)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            thread.join().expect("spinning does not panic");
        }
    }
}

const MODES: [(&str, Option<Durability>); 4] = [
    ("no sync", None),
    ("write_dsync", Some(Durability::WriteDsync)),
    ("linked_sync", Some(Durability::LinkedSync)),
    ("sync_per_turn", Some(Durability::SyncPerTurn)),
];

fn table() {
    println!("busy   size     depth  mode             p50 us   p99 us   batches/s");
    for busy in [false, true] {
        for (size, depth) in [(4096, 1), (4096, 8), (256 << 10, 1), (256 << 10, 8)] {
            for (name, mode) in MODES {
                let mut journal = Journal::new(size, mode, true);
                let _busy = Busy::new(busy);
                let begin = Instant::now();
                let mut samples = Vec::new();
                while begin.elapsed() < Duration::from_secs(1) {
                    let begin = Instant::now();
                    journal.append(depth);
                    samples.push(begin.elapsed().as_micros());
                }
                let rate = samples.len() as f64 / begin.elapsed().as_secs_f64();
                samples.sort_unstable();
                let p50 = samples[samples.len() / 2];
                let p99 = samples[samples.len() * 99 / 100];
                println!(
                    "{busy:<5} {size:>7} {depth:>6}   {name:<14} {p50:>8} {p99:>8} {rate:>10.0}"
                );
            }
        }
    }
}

fn criterion_groups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal_append");
    group
        .measurement_time(Duration::from_secs(2))
        .sample_size(20);
    for size in [4096, 256 << 10] {
        group.throughput(Throughput::Bytes(size as u64));
        for (name, mode) in MODES {
            for fixed in [true, false] {
                if !fixed && mode.is_some() {
                    continue;
                }
                let mut journal = Journal::new(size, mode, fixed);
                let name = format!("{name}{}", if fixed { "" } else { ", file not registered" });
                group.bench_function(BenchmarkId::new(name, size), |bencher| {
                    bencher.iter(|| journal.append(1));
                });
            }
        }
    }
    group.finish();
}

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--test") {
        table();
    }
    if arguments.iter().any(|argument| argument == "--table") {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    criterion_groups(&mut criterion);
    criterion.final_summary();
}
