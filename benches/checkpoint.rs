//! A checkpoint of a state of the default geometry, on a disk in memory: what writing costs beside the drive (freeze, copy,
//! hash, tag tree, address map), and what opening does.
//!
//! The sketch, on one core: a page costs a look at the bit set, a copy of 4 KiB that is in no cache (400 ns), its tag
//! (260 ns) and the disk's own copy (400 ns), so 1 us or 4 GB/s; nodes add less than a hundredth where pages lie together,
//! and up to a page of tags and two of addresses for each page where they are far apart. Opening reads, hashes and copies
//! the same, and takes the page faults of a new arena (250 ns a page).
//!
//! `cargo bench --bench checkpoint`

mod common;

use common::MemoryDisk;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::{Duration, Instant};
use storage::checkpoint::{Checkpoint, CheckpointEvent, CheckpointStart};
use storage::checksum::PageKey;
use storage::header::Prepare;
use storage::io::IoQueue;
use storage::layout::{Geometry, Layout, PAGE_SIZE};
use storage::pages::{PageId, Pages};
use storage::superblock::CheckpointRecord;

const CLUSTER: u128 = 7;
const GEOMETRY: Geometry = Geometry::DEFAULT;
/// Pages in use: half of the state.
const PAGES_USED: u32 = 32_000;

struct Host {
    pages: Pages,
    checkpoint: Checkpoint,
    io: IoQueue,
    disk: MemoryDisk,
    op: u64,
    used: Vec<PageId>,
}

impl Host {
    fn new() -> Self {
        let layout = Layout::new(GEOMETRY);
        let mut host = Self {
            pages: Pages::new(GEOMETRY.page_count(), GEOMETRY.spare_count()),
            checkpoint: Checkpoint::new(layout),
            io: IoQueue::new(Checkpoint::io_max(&layout)),
            disk: MemoryDisk::new(layout.size),
            op: 0,
            used: Vec::new(),
        };
        let genesis = CheckpointRecord::genesis(CLUSTER, fingerprint());
        let event =
            host.checkpoint
                .open_start(&genesis, None, false, &mut host.pages, &mut host.io);
        assert!(matches!(event, CheckpointEvent::Opened));
        host.used = (0..PAGES_USED).map(|_| host.pages.allocate()).collect();
        for &page in &host.used {
            host.pages.write(page)[..4].copy_from_slice(&page.0.to_le_bytes());
        }
        // What is freed and used anew from here on has blocks of its own, as after hours.
        host.write();
        host.write();
        host
    }

    /// Changes `count` pages, evenly spread over those in use.
    fn change(&mut self, count: usize) {
        let stride = self.used.len() / count;
        let round = self.op.to_le_bytes();
        for page in self.used.iter().step_by(stride).take(count) {
            self.pages.write(*page)[8..16].copy_from_slice(&round);
        }
    }

    /// Freezes, writes and installs, as if the deadline had come.
    fn write(&mut self) {
        self.op += GEOMETRY.checkpoint_interval();
        let mut prepare = Prepare::root(CLUSTER);
        prepare.op = self.op;
        prepare.header_mut().seal(&[]);
        let deadline_op = self.op + GEOMETRY.checkpoint_lag();
        let start = CheckpointStart {
            prepare,
            key: PageKey([9; 16]),
            fingerprint: fingerprint(),
            start_delay_ops: 0,
            deadline_op,
        };
        self.pages.freeze();
        self.checkpoint.begin(&self.pages, &start);
        loop {
            let more = self
                .checkpoint
                .pump(&mut self.pages, deadline_op, 0, 0, &mut self.io);
            while let Some(request) = self.io.pop() {
                let done = self.disk.complete(request);
                let event = self
                    .checkpoint
                    .on_io_done(done, &mut self.pages, &mut self.io)
                    .expect("memory does not fail");
                if let CheckpointEvent::Written(record) = event {
                    self.checkpoint.installed(&record);
                    return;
                }
            }
            // Without more to do at once it waited for a buffer, and those are all home.
            black_box(more);
        }
    }

    /// Opens the newest checkpoint into new pages; how long that took.
    fn open(&mut self) -> Duration {
        let layout = Layout::new(GEOMETRY);
        let mut pages = Pages::new(GEOMETRY.page_count(), GEOMETRY.spare_count());
        let mut checkpoint = <Checkpoint>::new(layout);
        let record = *self.checkpoint.record();
        let begin = Instant::now();
        let mut event = checkpoint.open_start(&record, None, false, &mut pages, &mut self.io);
        while !matches!(event, CheckpointEvent::Opened) {
            assert!(matches!(event, CheckpointEvent::None), "undamaged");
            let request = self.io.pop().expect("it reads on until it is open");
            let done = self.disk.complete(request);
            event = checkpoint
                .on_io_done(done, &mut pages, &mut self.io)
                .expect("memory does not fail");
        }
        let elapsed = begin.elapsed();
        assert_eq!(pages.free_count(), self.pages.free_count());
        elapsed
    }
}

fn fingerprint() -> u128 {
    GEOMETRY.fingerprint(1)
}

fn checkpoint(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checkpoint");
    group
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_millis(500))
        .sample_size(10);
    let mut host = Host::new();
    for count in [64, 1_000, 32_000] {
        group.throughput(Throughput::Bytes((count * PAGE_SIZE) as u64));
        let (written, op) = (host.disk.written, host.op);
        group.bench_function(BenchmarkId::new("write changed pages", count), |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations)
                    .map(|_| {
                        host.change(count);
                        let begin = Instant::now();
                        host.write();
                        begin.elapsed()
                    })
                    .sum()
            });
        });
        let rounds = (host.op - op) / GEOMETRY.checkpoint_interval();
        let each = (host.disk.written - written) / rounds.max(1);
        println!(
            "  {} blocks written for {count} pages",
            each / PAGE_SIZE as u64
        );
    }
    group.throughput(Throughput::Bytes(u64::from(PAGES_USED) * PAGE_SIZE as u64));
    group.bench_function(BenchmarkId::new("open pages", PAGES_USED), |bencher| {
        bencher.iter_custom(|iterations| (0..iterations).map(|_| host.open()).sum());
    });
    group.finish();
}

criterion_group!(benches, checkpoint);
criterion_main!(benches);
