//! The ordered map with a million small keys in random order and values of 32 bytes: keys of 16 bytes, and keys of 32
//! bytes of which the first 16 are the same in all. And what a store of keys does with a map for a write: looks at the key,
//! looks once more, and puts. Three maps in turn, of 100,000 keys as `redis-benchmark` makes them, as of three replicas on
//! one machine: together they are larger than the caches near a core.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::hint::black_box;
use std::ops::Bound;
use storage::collections::ordered_map::OrderedMap;
use storage::pages::Pages;

const KEYS: u64 = 1_000_000;
const PAGES: u32 = 65_536;

/// Keys in an order that leaps.
fn key(number: u64, is_prefixed: bool) -> [u8; 32] {
    let mut key = *b"a prefix of sixteen bytes and 16";
    let at = if is_prefixed { 16 } else { 0 };
    let leap = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    key[at..at + 8].copy_from_slice(&leap.to_be_bytes());
    key[at + 8..at + 16].copy_from_slice(&number.to_be_bytes());
    key
}

fn filled(is_prefixed: bool) -> (Pages, OrderedMap) {
    let mut pages = Pages::new(PAGES, 64);
    let mut map = OrderedMap::new();
    for number in 0..KEYS {
        insert(&mut pages, &mut map, number, is_prefixed);
    }
    assert_eq!(map.len(), KEYS);
    (pages, map)
}

fn insert(pages: &mut Pages, map: &mut OrderedMap, number: u64, is_prefixed: bool) {
    let key = key(number, is_prefixed);
    let size = if is_prefixed { 32 } else { 16 };
    map.insert(pages, &key[..size], &[&[0; 8], &[number as u8; 24]]);
}

fn ordered_map(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ordered_map_1m");
    group.sample_size(20);
    for (name, is_prefixed) in [("short", false), ("prefixed", true)] {
        let (mut pages, mut map) = filled(is_prefixed);
        let size = if is_prefixed { 32 } else { 16 };
        let used = PAGES - pages.free_count();
        println!(
            "{name}: {} levels, {used} pages, {} bytes a key",
            map.height(),
            used * 4096 / KEYS as u32
        );
        group.throughput(Throughput::Elements(1));
        let mut number = 0;
        let mut next = move || {
            number = (number + 7919) % KEYS;
            number
        };
        group.bench_function(format!("get/{name}"), |bencher| {
            bencher.iter(|| {
                map.get(&pages, &key(next(), is_prefixed)[..size])
                    .map(|value| value.first::<8>())
            });
        });
        group.bench_function(format!("put_existing/{name}"), |bencher| {
            bencher.iter(|| insert(&mut pages, &mut map, next(), is_prefixed));
        });
        let mut fresh = KEYS;
        group.bench_function(format!("put_new_and_delete/{name}"), |bencher| {
            bencher.iter(|| {
                fresh += 1;
                insert(&mut pages, &mut map, fresh, is_prefixed);
                map.remove(&mut pages, &key(fresh - 1000, is_prefixed)[..size])
            });
        });
        group.throughput(Throughput::Elements(100));
        group.bench_function(format!("scan_100/{name}"), |bencher| {
            bencher.iter_batched(
                || key(next(), is_prefixed),
                |from| {
                    let from = Bound::Included(&from[..size]);
                    map.range(&pages, from, Bound::Unbounded, false)
                        .take(100)
                        .for_each(|(key, value)| {
                            black_box((key, value.len()));
                        });
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("ordered_map_fill_1m");
    group.sample_size(10).throughput(Throughput::Elements(KEYS));
    group.bench_function("random", |bencher| bencher.iter(|| filled(false)));
    group.finish();
}

const STORE_KEYS: u64 = 100_000;
const STORE_PAGES: u32 = 16_384;

/// A key of 16 bytes of which the first eleven are the same in all.
fn store_key(number: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut left = number;
    for digit in key[4..].iter_mut().rev() {
        *digit += (left % 10) as u8;
        left /= 10;
    }
    key
}

fn store_put(pages: &mut Pages, map: &mut OrderedMap, key: &[u8], version: u64) {
    let mut header = [0; 16];
    header[..8].copy_from_slice(&version.to_le_bytes());
    map.insert(pages, key, &[&header, &[version as u8; 100]]);
}

fn store(criterion: &mut Criterion) {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    let mut stores: Vec<_> = (0..3)
        .map(|_| (Pages::new(STORE_PAGES, 64), OrderedMap::new()))
        .collect();
    for (pages, map) in &mut stores {
        for number in 0..STORE_KEYS {
            let leap = number * 7919 % STORE_KEYS;
            store_put(pages, map, &store_key(leap), number);
        }
        assert_eq!(map.len(), STORE_KEYS);
    }
    let keys: Vec<_> = (0..1 << 16)
        .map(|_| store_key(random.next_u64() % STORE_KEYS))
        .collect();
    let mut group = criterion.benchmark_group("store_100k");
    group.throughput(Throughput::Elements(1));
    let mut turn = 0;
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            turn += 1;
            let (pages, map) = &stores[turn / 64 % 3];
            map.get(pages, &keys[turn % keys.len()])
                .map(|value| value.first::<16>())
        });
    });
    group.bench_function("look_twice_and_put", |bencher| {
        bencher.iter(|| {
            turn += 1;
            let (pages, map) = &mut stores[turn / 64 % 3];
            let key = &keys[turn % keys.len()];
            for _ in 0..2 {
                black_box(map.get(pages, key).map(|value| value.first::<16>()));
            }
            store_put(pages, map, key, turn as u64);
        });
    });
    group.finish();
}

criterion_group!(benches, store, ordered_map);
criterion_main!(benches);
