//! Whole runs, each with a plan of its own that is sure to reach what it is about, and a few seeds.

use super::*;
use crate::atlas::{GRID, HEADERS, PREPARES, SUPERBLOCK, StorageFaults};
use crate::client::ClientOptions;
use crate::cluster::ClusterOptions;
use crate::disk::DiskSpeed;
use crate::swarm::{FaultPlan, MICROSECOND, MILLISECOND, Pressure, Recurring, state_size_min};
use crate::workload::KvWorkload;
use storage::layout::Geometry;

/// Three replicas, tiny rings, frequent requests, nothing goes wrong.
fn plan() -> Plan {
    Plan {
        cluster: ClusterOptions {
            replica_count: 3,
            client_count: 6,
            geometry: Geometry {
                state_size: 2 << 20,
                message_size_max: 8 << 10,
                slots: 32,
                pipeline_max: 4,
                sessions_max: 8,
                ..Geometry::SMALL
            },
            network: NetworkOptions::GOOD,
            disk: DiskSpeed::FAST,
            storage: StorageFaults::default(),
            client: ClientOptions {
                think_mean_ns: 5 * MILLISECOND,
                resend_ns: 50 * MILLISECOND,
                stray: 20_000,
            },
            turn_max_ns: 20 * MICROSECOND,
        },
        ops: 400,
        faults_max_ns: 60 * SECOND,
        faults: FaultPlan::default(),
        partial_recovery: false,
        pressure: Pressure::default(),
    }
}

fn crashing(replica_count: u8, power_cuts: u32) -> Plan {
    let mut plan = plan();
    plan.cluster.replica_count = replica_count;
    plan.faults.crash = Some(Recurring {
        every_ns: 60 * MILLISECOND,
        lasts_ns: 20 * MILLISECOND,
    });
    plan.faults.power_cuts = power_cuts;
    // Something is mostly being written when the crash comes.
    plan.cluster.disk.write_mean_ns = MILLISECOND;
    plan
}

/// Runs a plan with some seeds and sums up what happened.
#[expect(
    clippy::large_types_passed_by_value,
    reason = "a test's plan is made for it"
)]
fn run_seeds(plan: Plan, seeds: u64) -> Vec<Summary> {
    (0..seeds)
        .map(|seed| run_plan::<KvWorkload>(seed, plan, Prng::new(seed), false))
        .collect()
}

fn sum(summaries: &[Summary], of: impl Fn(&Summary) -> u64) -> u64 {
    summaries.iter().map(of).sum()
}

#[test]
fn a_seed_is_one_run() {
    for seed in [1, 2] {
        let first = run::<KvWorkload>(seed, false);
        let second = run::<KvWorkload>(seed, false);
        assert_eq!((first.hash, first.events), (second.hash, second.events));
        assert_eq!(first.to_string(), second.to_string());
    }
    let hash = |seed| run::<KvWorkload>(seed, false).hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn every_number_of_replicas_serves() {
    for replica_count in 1..=6 {
        let mut plan = plan();
        plan.cluster.replica_count = replica_count;
        // A ring that covers the first moments, in which backups come up and ask those that have nothing yet.
        plan.cluster.geometry.slots = 64;
        plan.cluster.client.think_mean_ns = 40 * MILLISECOND;
        let runs = run_seeds(plan, 1);
        let checked = runs[0].checked;
        assert!(checked.ops >= 400 && checked.writes > 300 && checked.reads > 50);
        assert!(runs[0].wraps() >= 6 && checked.checkpoints >= 12);
        // Everybody executes everything.
        assert_eq!(checked.executions, checked.ops * u64::from(replica_count));
    }
}

#[test]
fn a_solo_replica_loses_nothing_when_it_is_killed() {
    let runs = run_seeds(crashing(1, 0), 4);
    assert!(sum(&runs, |run| run.faults.kills) > 20);
    assert!(sum(&runs, |run| run.disk.in_flight_at_crash) > 20);
    assert!(runs.iter().all(|run| run.wraps() >= 12));
}

#[test]
fn a_solo_replica_loses_nothing_at_power_cuts() {
    let runs = run_seeds(crashing(1, 1_000_000), 8);
    assert!(sum(&runs, |run| run.faults.power_cuts) > 40);
    assert!(sum(&runs, |run| run.disk.torn) > 0);
    assert!(sum(&runs, |run| run.disk.unsynced_lost) > 0);
}

/// Found: a message that arrived while the data file was being opened ended the replica, in two ways; and a backup that
/// had fetched all it had headers of waited before it asked for more, until it was beyond the primary's ring.
#[test]
fn backups_crash_and_catch_up_while_the_cluster_serves() {
    for power_cuts in [0, 1_000_000] {
        let mut plan = crashing(3, power_cuts);
        plan.cluster.geometry.slots = 128;
        plan.cluster.client.think_mean_ns = 20 * MILLISECOND;
        let runs = run_seeds(plan, 4);
        assert!(sum(&runs, |run| run.faults.kills + run.faults.power_cuts) > 20);
        let fetched = |run: &Summary| run.messages_of(Command::RequestPrepare).sent;
        assert!(sum(&runs, fetched) > 20);
        assert_eq!(sum(&runs, |run| run.lagging), 0);
    }
}

/// Found: a backup that wanted more headers than a message holds ended the primary; one that lacked them asked at each
/// turn.
#[test]
fn a_backup_far_behind_asks_with_patience() {
    let mut plan = crashing(3, 0);
    plan.cluster.geometry.slots = 128;
    plan.faults.crash = Some(Recurring {
        every_ns: 500 * MILLISECOND,
        lasts_ns: 200 * MILLISECOND,
    });
    plan.ops = 1000;
    for run in run_seeds(plan, 3) {
        let asked = run.messages_of(Command::RequestHeaders).sent;
        let prompt = run.messages_of(Command::RequestPrepare).sent + 10 * run.faults.kills;
        let patient = 2 * run.time_ns / (30 * MILLISECOND);
        assert!(
            asked > 0 && asked <= prompt + patient,
            "{asked} requests for headers"
        );
    }
}

/// Found: a late copy of a register changed what the stored reply to the session's last write says of itself.
#[test]
fn a_lossy_network_costs_time_and_nothing_else() {
    let mut plan = plan();
    plan.cluster.network.loss = 150_000;
    plan.cluster.network.duplicate = 150_000;
    plan.cluster.network.delay_mean_ns = 2 * MILLISECOND;
    plan.cluster.client.stray = 200_000;
    let runs = run_seeds(plan, 6);
    let total = |of: fn(&KindStatistics) -> u64| sum(&runs, |run| of(&run.messages_total));
    assert!(total(|kind| kind.lost) > 500 && total(|kind| kind.duplicated) > 500);
    assert!(total(|kind| kind.overtaken) > 500);
    for kind in [
        Command::Prepare,
        Command::PrepareOk,
        Command::Commit,
        Command::Reply,
    ] {
        assert!(
            sum(&runs, |run| run.messages_of(kind).lost) > 0,
            "{kind:?} was never lost"
        );
    }
}

#[test]
fn full_links_and_slow_disks_only_slow_down() {
    let mut plan = plan();
    plan.cluster.network.capacity = 2;
    plan.cluster.disk.slow_chance = 20_000;
    plan.cluster.disk.slow_factor = 300;
    let runs = run_seeds(plan, 3);
    assert!(sum(&runs, |run| run.messages_total.overflowed) > 0);
}

/// Faults of a kind that come a few times in a run, and the plan that has them.
#[expect(
    clippy::unnecessary_wraps,
    reason = "it is put into plans, where a fault may be absent"
)]
fn often(every_ms: u64, lasts_ms: u64) -> Option<Recurring> {
    Some(Recurring {
        every_ns: every_ms * MILLISECOND,
        lasts_ns: lasts_ms * MILLISECOND,
    })
}

#[test]
fn partitions_of_all_shapes_are_survived() {
    let mut plan = plan();
    plan.cluster.replica_count = 5;
    plan.ops = 1000;
    plan.faults.partition = often(400, 1500);
    plan.faults.clog = often(300, 100);
    plan.faults.partition_clients = 300_000;
    let runs = run_seeds(plan, 16);
    let mut shapes = [0; 10];
    for run in &runs {
        for (sum, count) in shapes.iter_mut().zip(run.faults.partitions) {
            *sum += count;
        }
    }
    assert!(shapes.iter().all(|&count| count > 0), "{shapes:?}");
    assert!(sum(&runs, |run| run.checked.spoke.views) > 10);
    assert!(sum(&runs, |run| run.messages_total.cut) > 500);
    assert!(sum(&runs, |run| run.messages_total.clogged) > 100);
}

#[test]
fn pauses_and_wrong_clocks_are_survived() {
    let mut plan = plan();
    plan.faults.pause = often(300, 1500);
    plan.faults.clock = often(200, 200);
    plan.faults.clock_jump_ns = 365 * 86_400 * SECOND;
    plan.faults.drift_ppm = 100;
    let runs = run_seeds(plan, 4);
    assert!(sum(&runs, |run| run.faults.pauses) > 10);
    assert!(sum(&runs, |run| run.faults.clocks) > 10);
    assert!(sum(&runs, |run| run.checked.spoke.views) > 2);
}

#[test]
fn damaged_disks_are_survived() {
    let mut plan = crashing(3, 500_000);
    plan.faults.crash_all = often(900, 20);
    plan.faults.crash_again = 300_000;
    plan.cluster.storage = StorageFaults {
        decay_mean_ns: Some(30 * MILLISECOND),
        bad_read: 20_000,
        dropped: 10_000,
        misplaced: 10_000,
        crash_decay: 300_000,
        zones: SUPERBLOCK | HEADERS | PREPARES,
        weak_grids: false,
    };
    let runs = run_seeds(plan, 8);
    for zone in [
        |run: &Summary| run.damage.decayed.superblock,
        |run: &Summary| run.damage.decayed.headers,
        |run: &Summary| run.damage.decayed.prepares,
        |run: &Summary| run.damage.bad_reads.total(),
        |run: &Summary| run.disk.dropped,
        |run: &Summary| run.disk.misplaced,
        |run: &Summary| run.faults.while_opening,
        |run: &Summary| run.protocol.repaired,
        |run: &Summary| run.checked.spoke.votes_uncertain,
    ] {
        assert!(sum(&runs, zone) > 0);
    }
}

#[test]
fn damaged_grids_are_survived() {
    for weak_grids in [false, true] {
        let mut plan = crashing(3, 500_000);
        plan.faults.crash_all = often(900, 20);
        plan.cluster.storage = StorageFaults {
            decay_mean_ns: Some(10 * MILLISECOND),
            bad_read: 50_000,
            dropped: 100_000,
            misplaced: 100_000,
            zones: GRID,
            weak_grids,
            ..StorageFaults::default()
        };
        let runs = run_seeds(plan, 6);
        let dropped = sum(&runs, |run| run.disk.dropped.min(run.disk.misplaced));
        assert_eq!(dropped > 0, weak_grids);
        for reached in [
            |run: &Summary| run.damage.decayed.grid,
            |run: &Summary| run.damage.bad_reads.grid,
            |run: &Summary| run.protocol.pages_fetched,
        ] {
            assert!(sum(&runs, reached) > 0);
        }
    }
}

#[test]
fn a_single_replica_survives_the_loss_of_one_copy_of_a_node_of_the_map() {
    let mut plan = crashing(1, 500_000);
    plan.cluster.storage = StorageFaults {
        decay_mean_ns: Some(5 * MILLISECOND),
        zones: GRID,
        ..StorageFaults::default()
    };
    let runs = run_seeds(plan, 6);
    assert!(sum(&runs, |run| run.damage.decayed.grid) > 0);
}

#[test]
fn sessions_that_make_room_for_others_are_told_so() {
    let mut plan = crashing(3, 0);
    plan.cluster.geometry.sessions_max = 3;
    plan.faults.clock_all = often(150, 0);
    plan.pressure.sessions = true;
    let runs = run_seeds(plan, 4);
    for reached in [
        |run: &Summary| run.checked.sessions_full,
        |run: &Summary| run.checked.sessions_evicted,
        |run: &Summary| run.checked.evictions_told,
    ] {
        assert!(sum(&runs, reached) > 0);
    }
}

#[test]
fn writes_without_room_are_refused_and_reads_go_on() {
    let mut plan = crashing(3, 500_000);
    let geometry = &mut plan.cluster.geometry;
    let least = state_size_min(geometry.sessions_max, geometry.reply_size_max);
    geometry.state_size = least.next_multiple_of(4096);
    plan.pressure.space = true;
    plan.ops = 1500;
    let runs = run_seeds(plan, 3);
    assert!(sum(&runs, |run| run.checked.out_of_space) > 100);
    assert!(sum(&runs, |run| run.checked.reads) > 100);
}

/// A replica between two views gives up its wish for the next one, is paused, and wakes up after the time at which it would have
/// said its wish again: what it waits for no more must not be due for ever.
#[test]
fn a_wish_that_was_given_up_is_not_waited_for() {
    let mut prng = Prng::new(44);
    let plan = Plan::draw_stressed(&mut prng);
    run_plan::<KvWorkload>(44, plan, prng, false);
}
