//! The sums that guard every message: the identity of a header, what it costs to accept one from outside, and the sum of
//! a body.
//!
//! The sketch, on one core: a header is 240 bytes under AEGIS-128L, some 50 ns; a body under CRC32C by the processor's own
//! instruction, 20 to 30 GB/s, so 1 MiB in about 40 us, a tenth of its write to a good drive.
//!
//! `cargo bench --bench header`

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use storage::checksum;
use storage::header::{HEADER_SIZE, Header, Prepare, Typed};

const CLUSTER: u128 = 7;
const MESSAGE_SIZE_MAX: usize = 2 << 20;

fn prepare(body: &[u8]) -> Prepare {
    let mut prepare = Prepare::new(CLUSTER, 3, 0);
    prepare.op = 41;
    prepare.requests = 1;
    prepare.kind = storage::header::PrepareKind::Batch as u32;
    prepare.frame.size = (HEADER_SIZE + body.len()) as u32;
    prepare.header_mut().seal(body);
    prepare
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index * 31 % 251) as u8).collect()
}

fn headers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header");
    group
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500));
    group.throughput(Throughput::Bytes(HEADER_SIZE as u64));
    let body = bytes(256);
    let sealed = prepare(&body);
    group.bench_function("identity", |bencher| {
        bencher.iter(|| black_box(sealed.header()).checksum_of_bytes());
    });
    group.bench_function("check", |bencher| {
        let header: &Header = sealed.header();
        assert!(header.check(CLUSTER, MESSAGE_SIZE_MAX).is_ok());
        bencher.iter(|| black_box(header).check(CLUSTER, MESSAGE_SIZE_MAX));
    });
    group.bench_function("seal with 256 B", |bencher| {
        bencher.iter_batched_ref(
            || sealed,
            |prepare| prepare.header_mut().seal(black_box(&body)),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("check with 256 B", |bencher| {
        let header: &Header = sealed.header();
        bencher.iter(|| {
            let header = black_box(header);
            header.check(CLUSTER, MESSAGE_SIZE_MAX).is_ok() && header.check_body(&body).is_ok()
        });
    });
    group.finish();
}

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("body_sum");
    group
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500));
    for size in [256, 4 << 10, 256 << 10, 1 << 20] {
        let body = bytes(size);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| checksum::body_sum(black_box(&body)));
        });
    }
    group.finish();
}

criterion_group!(benches, headers, bodies);
criterion_main!(benches);
