//! Whole clusters in which a replica must get its state from the others: it was away too long, its disk is damaged, its file
//! was lost or put back, or it has made another state of the same ops.

use simulator::atlas::StorageFaults;
use simulator::client::ClientOptions;
use simulator::cluster::{Cluster, ClusterOptions, MadeBy};
use simulator::disk::{DiskSpeed, DiskState};
use simulator::host::Crash;
use simulator::network::NetworkOptions;
use simulator::prng::Prng;
use simulator::swarm::{MILLISECOND, SECOND};
use simulator::workload::KvWorkload;
use std::collections::HashSet;
use storage::checksum::{self, PageKey};
use storage::header::ReplicaStatus;
use storage::layout::{Geometry, Layout, PAGE_SIZE, SUPERBLOCK_COPIES};
use storage::superblock::{COPY_SIZE_MAX, Content, decide};
use viewstone::replica::{Fatal, Metrics, Regressed};

type TestCluster = Cluster<KvWorkload>;

const GEOMETRY: Geometry = Geometry {
    state_size: 3 << 20,
    message_size_max: 16 << 10,
    slots: 32,
    pipeline_max: 4,
    sessions_max: 16,
    reply_size_max: 64,
    ..Geometry::SMALL
};

fn options(replica_count: u8) -> ClusterOptions {
    ClusterOptions {
        replica_count,
        client_count: 6,
        geometry: GEOMETRY,
        network: NetworkOptions::GOOD,
        disk: DiskSpeed::FAST,
        storage: StorageFaults::default(),
        client: ClientOptions {
            think_mean_ns: MILLISECOND,
            resend_ns: 100 * MILLISECOND,
            stray: 0,
        },
        turn_max_ns: 100_000,
    }
}

/// A cluster that has begun to serve.
fn cluster(replica_count: u8, seed: u64) -> TestCluster {
    begun(options(replica_count), seed)
}

fn begun(options: ClusterOptions, seed: u64) -> TestCluster {
    let replica_count = options.replica_count;
    let mut cluster = TestCluster::new(options, Prng::new(seed), false);
    for replica in 0..replica_count {
        cluster.start(replica);
    }
    serve(&mut cluster, 40);
    cluster
}

/// Runs until so many ops more are committed.
fn serve(cluster: &mut TestCluster, ops: u64) {
    let until = cluster.checker().head() + ops;
    let until_ns = cluster.now_ns() + 60 * SECOND;
    assert!(
        cluster.run(until_ns, |cluster| cluster.checker().head() >= until),
        "it does not serve: {:?}",
        states(cluster)
    );
}

fn states(cluster: &TestCluster) -> Vec<String> {
    (0..cluster.replica_count())
        .map(|replica| format!("{:?}", cluster.progress(replica)))
        .collect()
}

/// Lets all agree, and checks that they stay so and leak nothing.
fn converge(cluster: &mut TestCluster, replicas: &[u8], within_ns: u64) {
    cluster.set_draining(true);
    let until_ns = cluster.now_ns() + within_ns;
    assert!(
        cluster.run(until_ns, |cluster| cluster.has_converged(replicas)),
        "not converged: {:#?}",
        states(cluster)
    );
    cluster.run_for(3 * SECOND);
    assert!(cluster.has_converged(replicas));
    let until_ns = cluster.now_ns() + 10 * SECOND;
    assert!(cluster.run(until_ns, TestCluster::is_at_rest));
    cluster.check_quiescence();
    cluster.set_draining(false);
}

fn metrics(cluster: &TestCluster, replica: u8) -> Metrics {
    *cluster.replica(replica).expect("it is up").metrics()
}

fn all(cluster: &TestCluster) -> Vec<u8> {
    (0..cluster.replica_count()).collect()
}

#[test]
fn who_was_away_for_many_checkpoints_fetches_what_differs_while_the_others_serve() {
    for seed in 0..8 {
        let mut cluster = cluster(3, seed);
        serve(&mut cluster, 100);
        cluster.crash(2, Crash::PowerCut);
        serve(&mut cluster, 20 + 130 * (seed % 3));
        let before = cluster.checker().head();
        cluster.start(2);
        let until_ns = cluster.now_ns() + 20 * SECOND;
        let back = cluster.run(until_ns, |cluster| {
            cluster
                .progress(2)
                .is_some_and(|it| it.status == ReplicaStatus::Normal && it.commit_min > before)
        });
        assert!(back, "{:?}", states(&cluster));
        serve(&mut cluster, 60);
        let replicas = all(&cluster);
        converge(&mut cluster, &replicas, 20 * SECOND);
        let metrics = metrics(&cluster, 2);
        assert!(metrics.syncs > 0 || seed % 3 == 0, "{metrics:?}");
        if metrics.syncs == 1 {
            let differing = metrics.pages_differing * PAGE_SIZE as u64;
            // Seven nodes of the tag tree, at most, beside the pages; and what was asked for twice.
            assert!(
                metrics.sync_bytes <= differing * 12 / 10 + 8 * PAGE_SIZE as u64,
                "{metrics:?}"
            );
            assert!(
                metrics.pages_fetched < 769,
                "not all of the state: {metrics:?}"
            );
        }
    }
}

#[test]
fn a_sync_survives_crashes_at_any_time() {
    for seed in 0..6 {
        let mut cluster = cluster(3, 100 + seed);
        cluster.crash(2, Crash::PowerCut);
        serve(&mut cluster, 200);
        let mut prng = Prng::new(seed);
        for _ in 0..25 {
            cluster.start(2);
            cluster.run_for(prng.range(1, 60) * MILLISECOND);
            let crash = if prng.coin() {
                Crash::PowerCut
            } else {
                Crash::Kill
            };
            cluster.crash(2, crash);
            serve(&mut cluster, prng.range(0, 12));
        }
        cluster.start(2);
        let replicas = all(&cluster);
        converge(&mut cluster, &replicas, 30 * SECOND);
        serve(&mut cluster, 50);
    }
}

/// Flips a bit in so many blocks of the grid of a replica that is down: of those whose content `takes`. What is written twice, a
/// node of the address map, is hit once at most: no other replica has it.
fn damage(cluster: &mut TestCluster, replica: u8, count: usize, takes: impl Fn(&[u8]) -> bool) {
    let layout = *cluster.layout();
    let mut prng = Prng::new(u64::from(replica) + 7);
    let state = cluster.disk_mut(replica).state_mut();
    let mut bytes = [0; PAGE_SIZE];
    let mut seen = HashSet::new();
    let mut blocks: Vec<u64> = (1..=layout.geometry.block_count())
        .map(|block| layout.block_at(block))
        .filter(|&at| {
            state.read(at, &mut bytes);
            let is_used = bytes.iter().any(|&byte| byte != 0);
            is_used && takes(&bytes) && seen.insert(checksum::identity(&bytes))
        })
        .collect();
    prng.shuffle(&mut blocks);
    for &at in blocks.iter().take(count) {
        state.read(at, &mut bytes);
        bytes[prng.index(PAGE_SIZE)] ^= 1 << prng.below(8);
        state.overwrite(at, &bytes);
    }
}

#[test]
fn damaged_blocks_are_mended_from_the_others() {
    for seed in 0..6 {
        let mut cluster = cluster(3, 200 + seed);
        serve(&mut cluster, 100);
        cluster.crash(1, Crash::Kill);
        damage(&mut cluster, 1, 32, |_| true);
        serve(&mut cluster, 10 * seed);
        cluster.start(1);
        let replicas = all(&cluster);
        converge(&mut cluster, &replicas, 10 * SECOND);
        serve(&mut cluster, 60);
        // And it stays so over a restart.
        cluster.crash(1, Crash::PowerCut);
        cluster.start(1);
        converge(&mut cluster, &replicas, 10 * SECOND);
        assert_eq!(metrics(&cluster, 1).pages_fetched, 0);
    }
}

#[test]
fn damage_everywhere_that_leaves_one_copy_of_each_block_is_mended_without_a_primary() {
    for seed in 0..40 {
        let mut cluster = cluster(3, 300 + seed);
        serve(&mut cluster, 100);
        let replicas = all(&cluster);
        converge(&mut cluster, &replicas, 10 * SECOND);
        for replica in 0..3 {
            cluster.crash(replica, Crash::Kill);
        }
        // What is the same everywhere is hit in one place only: a third of it on each.
        for replica in 0..3 {
            let takes = |bytes: &[u8]| checksum::identity(bytes) % 3 == u128::from(replica);
            damage(&mut cluster, replica, 40, takes);
        }
        for replica in 0..3 {
            cluster.start(replica);
        }
        serve(&mut cluster, 40);
        converge(&mut cluster, &replicas, 10 * SECOND);
    }
}

#[test]
fn a_file_formatted_in_place_of_a_lost_one_comes_back_and_promises_nothing_before() {
    for (count, idle) in [(3, false), (3, true), (5, false), (6, true)] {
        let mut cluster = cluster(count, 400 + u64::from(count));
        serve(&mut cluster, 100);
        if idle {
            let replicas = all(&cluster);
            converge(&mut cluster, &replicas, 10 * SECOND);
            cluster.set_draining(true);
        }
        cluster.crash(1, Crash::PowerCut);
        cluster.lose_disk(1, MadeBy::Format);
        cluster.start(1);
        let until_ns = cluster.now_ns() + SECOND / 20;
        cluster.run(until_ns, |cluster| {
            cluster
                .progress(1)
                .is_some_and(|it| it.status == ReplicaStatus::Lost)
        });
        assert_eq!(
            cluster.progress(1).map(|it| it.status),
            Some(ReplicaStatus::Lost)
        );
        let until_ns = cluster.now_ns() + 20 * SECOND;
        let back = cluster.run(until_ns, |cluster| {
            cluster
                .progress(1)
                .is_some_and(|it| it.status == ReplicaStatus::Normal)
        });
        assert!(back, "{:#?}", states(&cluster));
        assert_eq!(metrics(&cluster, 1).syncs, 1);
        cluster.set_draining(false);
        serve(&mut cluster, 100);
        let replicas = all(&cluster);
        converge(&mut cluster, &replicas, 10 * SECOND);
        // It counts again: another may go.
        cluster.crash(0, Crash::Kill);
        serve(&mut cluster, 40);
    }
}

#[test]
fn a_file_lost_before_the_first_checkpoint_comes_back_from_the_log() {
    let mut cluster = TestCluster::new(
        ClusterOptions {
            client_count: 1,
            ..options(3)
        },
        Prng::new(5),
        false,
    );
    for replica in 0..3 {
        cluster.start(replica);
    }
    serve(&mut cluster, 3);
    cluster.set_draining(true);
    cluster.crash(2, Crash::Kill);
    cluster.lose_disk(2, MadeBy::Recover);
    cluster.start(2);
    converge(&mut cluster, &[0, 1, 2], 20 * SECOND);
    assert!(cluster.progress(2).is_some_and(|it| it.commit_min > 3));
    assert_eq!(metrics(&cluster, 2).syncs, 0);
}

/// Files are lost one after the other, each while some other replica hears nothing of it: that one remembers an older file, of
/// which it has heard more than the new one holds. No replica may stop.
#[test]
fn files_lost_while_others_are_cut_off_accuse_nobody() {
    for seed in 0..4 {
        let mut slow = options(5); // a checkpoint should last for some messages
        slow.client.think_mean_ns = 50 * MILLISECOND;
        let mut cluster = begun(slow, 800 + seed);
        let mut prng = Prng::new(seed);
        let mut victim = 0;
        for round in 0..6 {
            victim = (victim + 1 + prng.below(4) as u8) % 5;
            let deaf = (victim + 1 + prng.below(4) as u8) % 5;
            serve(&mut cluster, prng.range(1, 60));
            cluster.run_for(prng.range(0, 1500) * MILLISECOND); // greeted lately, or not
            cluster.isolate(deaf);
            cluster.crash(victim, Crash::PowerCut);
            let made_by = [MadeBy::Format, MadeBy::Recover][round % 2];
            cluster.lose_disk(victim, made_by);
            cluster.start(victim);
            let until_ns = cluster.now_ns() + 30 * SECOND;
            let back = cluster.run(until_ns, |cluster| {
                cluster
                    .progress(victim)
                    .is_some_and(|it| it.status == ReplicaStatus::Normal)
            });
            assert!(back, "{:#?}", states(&cluster));
            serve(&mut cluster, prng.range(1, 30));
            if prng.coin() {
                cluster.crash(victim, Crash::Kill);
                cluster.start(victim);
            }
            cluster.mend();
            cluster.run_for(prng.range(0, 2000) * MILLISECOND);
            if prng.coin() {
                cluster.crash(deaf, Crash::Kill);
                cluster.start(deaf);
            }
            let replicas = all(&cluster);
            converge(&mut cluster, &replicas, 30 * SECOND);
        }
    }
}

#[test]
fn a_disk_that_went_back_in_time_is_told_so_and_promises_nothing() {
    for seed in 0..4 {
        let mut cluster = cluster(3, 500 + seed);
        cluster.crash(2, Crash::Kill);
        let earlier = cluster.disk_mut(2).state().clone();
        cluster.start(2);
        // Within one superblock, or over several.
        serve(&mut cluster, if seed % 2 == 0 { 6 } else { 60 });
        cluster.run_for(3 * SECOND);
        cluster.crash(2, Crash::Kill);
        cluster.put_back_disk(2, earlier);
        cluster.let_halt();
        cluster.start(2);
        cluster.run_for(2 * SECOND);
        assert!(!cluster.is_up(2));
        let halted = cluster.let_halt().to_vec();
        let [(2, Fatal::Regressed(Regressed::Peer(_)))] = halted[..] else {
            panic!("{halted:?}");
        };
        serve(&mut cluster, 40);
    }
}

/// Changes a page in the newest checkpoint on a replica's disk, with all tags above it: as if the replica had made another
/// state of the same ops.
fn forge(layout: &Layout, state: &mut DiskState, replica_count: u8) -> u32 {
    let copy = |copy: usize| {
        let mut bytes = vec![0; COPY_SIZE_MAX];
        state.read(Layout::superblock_at(copy), &mut bytes);
        bytes
    };
    let copies: [Vec<u8>; SUPERBLOCK_COPIES] = std::array::from_fn(copy);
    let decision = decide(copies.each_ref().map(Vec::as_slice)).expect("a superblock");
    let mut content: Content = decision.content;
    let record = &mut content.state.checkpoint;
    let key = PageKey(record.page_key);
    let block_with = |state: &DiskState, tag: u128| {
        let blocks = 1..=layout.geometry.block_count();
        let mut bytes = [0; PAGE_SIZE];
        let found = blocks.map(|block| layout.block_at(block)).find(|&at| {
            state.read(at, &mut bytes);
            key.tag(&bytes) == tag
        });
        (found.expect("every page has a block"), bytes)
    };
    let entry = |bytes: &[u8], index: usize| {
        u128::from_le_bytes(bytes[index * 16..][..16].try_into().expect("16 bytes"))
    };
    // The root's first child is the leaf of pages 0 to 255.
    let (root_at, mut root) = block_with(state, record.root);
    let (leaf_at, mut leaf) = block_with(state, entry(&root, 0));
    let page = (0..256)
        .rev()
        .find(|&page| entry(&leaf, page) != 0)
        .expect("some are in use");
    let (page_at, mut content_of_page) = block_with(state, entry(&leaf, page));
    content_of_page[2000] ^= 0x40;
    state.overwrite(page_at, &content_of_page);
    leaf[page * 16..][..16].copy_from_slice(&key.tag(&content_of_page).to_le_bytes());
    state.overwrite(leaf_at, &leaf);
    root[..16].copy_from_slice(&key.tag(&leaf).to_le_bytes());
    state.overwrite(root_at, &root);
    record.root = key.tag(&root);
    record.id = record.compute_id(layout.geometry.fingerprint(replica_count));
    let mut bytes = vec![0; COPY_SIZE_MAX];
    for copy in 0..SUPERBLOCK_COPIES {
        let size = content.seal(copy, &mut bytes);
        state.overwrite(Layout::superblock_at(copy), &bytes[..size]);
    }
    page as u32
}

#[test]
fn who_made_another_state_stops_and_names_the_pages() {
    let mut cluster = cluster(3, 600);
    serve(&mut cluster, 60);
    converge(&mut cluster, &[0, 1, 2], 10 * SECOND);
    cluster.set_draining(true);
    cluster.crash(1, Crash::Kill);
    let layout = *cluster.layout();
    let page = forge(&layout, cluster.disk_mut(1).state_mut(), 3);
    cluster.distrust(1);
    cluster.let_halt();
    cluster.start(1);
    cluster.run_for(3 * SECOND);
    let halted = cluster.let_halt().to_vec();
    let [(1, Fatal::Diverged(diverged))] = halted[..] else {
        panic!("{halted:?}");
    };
    assert!(diverged.majority);
    assert_eq!(diverged.pages[..diverged.count], [page]);
    assert!(
        diverged
            .to_string()
            .contains(&format!("these pages differ: {page}"))
    );
    cluster.set_draining(false);
    serve(&mut cluster, 40);
}

#[test]
fn without_a_majority_all_stop() {
    let mut cluster = cluster(2, 700);
    serve(&mut cluster, 60);
    converge(&mut cluster, &[0, 1], 10 * SECOND);
    cluster.crash(1, Crash::Kill);
    let layout = *cluster.layout();
    forge(&layout, cluster.disk_mut(1).state_mut(), 2);
    cluster.distrust(1);
    cluster.let_halt();
    cluster.start(1);
    cluster.run_for(8 * SECOND);
    let mut halted: Vec<u8> = cluster
        .let_halt()
        .iter()
        .map(|(replica, _)| *replica)
        .collect();
    halted.sort_unstable();
    assert_eq!(halted, [0, 1]);
}
