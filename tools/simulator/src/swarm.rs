//! What a seed draws: a cluster, a workload, and which faults exist at all, before how strong they are (swarm testing), so
//! that every combination of few faults comes up.

use crate::atlas::{GRID, HEADERS, PREPARES, SUPERBLOCK, StorageFaults};
use crate::client::ClientOptions;
use crate::cluster::ClusterOptions;
use crate::disk::DiskSpeed;
use crate::network::NetworkOptions;
use crate::prng::Prng;
use storage::layout::{Geometry, JournalAck};

/// Nanoseconds in a microsecond.
pub const MICROSECOND: u64 = 1_000;
/// Nanoseconds in a millisecond.
pub const MILLISECOND: u64 = 1_000 * MICROSECOND;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000 * MILLISECOND;

/// A fault that happens now and then, and lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recurring {
    /// Mean time from one to the next, in nanoseconds.
    pub every_ns: u64,
    /// Mean time that it lasts.
    pub lasts_ns: u64,
}

/// The faults of a run, those of disks and of single messages apart. Chances are in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultPlan {
    /// A process ends, and is down for a time.
    pub crash: Option<Recurring>,
    /// Crashes that are power cuts.
    pub power_cuts: u32,
    /// Restarts that are followed by another crash within moments, while the data file is being opened.
    pub crash_again: u32,
    /// All processes end at once.
    pub crash_all: Option<Recurring>,
    /// A process ends again and again, six times in a row.
    pub flap: Option<Recurring>,
    /// A process gets no events.
    pub pause: Option<Recurring>,
    /// The network falls apart.
    pub partition: Option<Recurring>,
    /// Partitions that cut clients off from replicas, too.
    pub partition_clients: u32,
    /// A link delivers nothing.
    pub clog: Option<Recurring>,
    /// A disk is slow.
    pub slow_disk: Option<Recurring>,
    /// A wall clock jumps, or is set forth and back for a time.
    pub clock: Option<Recurring>,
    /// Answers with pages that are spoiled: their senders' memory fails.
    pub spoiled_pages: u32,
    /// A disk is wiped.
    pub wipe: Option<Recurring>,
    /// A disk is put back to what it held once.
    pub roll_back: Option<Recurring>,
    /// All wall clocks jump by more than the time for which a session may be idle.
    pub clock_all: Option<Recurring>,
    /// How far a wall clock jumps at most, in nanoseconds.
    pub clock_jump_ns: u64,
    /// How fast or slow clocks run at most, in parts per million.
    pub drift_ppm: u32,
}

/// What clients press for beyond what there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pressure {
    /// All of them want the same two keys, mostly on a condition.
    pub hot_keys: bool,
    /// There are fewer sessions than clients.
    pub sessions: bool,
    /// There are fewer pages than what they write needs.
    pub space: bool,
}

/// What a seed drew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The cluster.
    pub cluster: ClusterOptions,
    /// Ops after which the faults stop.
    pub ops: u64,
    /// Time after which they stop in any case, in nanoseconds.
    pub faults_max_ns: u64,
    /// The faults.
    pub faults: FaultPlan,
    /// Whether at first only a part of the cluster recovers, which must then serve alone.
    pub partial_recovery: bool,
    /// What there is too little of.
    pub pressure: Pressure,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(prng: &mut Prng) -> Self {
        let mut later = Prng::new(!prng.clone().bits());
        let mut plan = Self::draw_first(prng);
        plan.draw_later(&mut later);
        plan
    }

    /// What came later, drawn apart, so that the seeds in which none of it exists are the runs that they were.
    fn draw_later(&mut self, prng: &mut Prng) {
        if prng.chance(400_000) {
            let storage = &mut self.cluster.storage;
            storage.zones |= GRID;
            storage.weak_grids = prng.coin();
            let decay = [50 * MILLISECOND, 300 * MILLISECOND, 2 * SECOND];
            match prng.below(4) {
                0 => storage.decay_mean_ns = Some(*prng.pick(&decay)),
                1 => storage.bad_read = prng.range(1_000, 100_000) as u32,
                2 => storage.dropped = prng.range(1_000, 50_000) as u32,
                _ => storage.misplaced = prng.range(1_000, 50_000) as u32,
            }
        }
        self.draw_pressure(prng);
        if prng.chance(200_000) {
            self.faults.spoiled_pages = prng.range(10_000, 300_000) as u32;
        }
        if self.cluster.replica_count > 2 {
            self.draw_losses(prng, 150_000);
        }
    }

    /// Disks that are lost, each kind in so many of a million seeds.
    fn draw_losses(&mut self, prng: &mut Prng, exists: u32) {
        let lasts = [MILLISECOND, 100 * MILLISECOND, SECOND];
        let often = [500 * MILLISECOND, 2 * SECOND, 6 * SECOND];
        self.faults.wipe = recurring(prng, exists, &often, &lasts);
        self.faults.roll_back = recurring(prng, exists, &often[..2], &lasts);
        // Nobody else's grid may fail then.
        self.cluster.storage.weak_grids |=
            self.faults.wipe.is_some() || self.faults.roll_back.is_some();
    }

    fn draw_pressure(&mut self, prng: &mut Prng) {
        let (clients, geometry) = (self.cluster.client_count, &mut self.cluster.geometry);
        self.pressure.hot_keys = prng.chance(100_000);
        if prng.chance(100_000) && clients > 1 {
            self.pressure.sessions = true;
            geometry.sessions_max =
                u32::from(clients) - prng.range(1, u64::from(clients) - 1) as u32;
            self.faults.clock_all = Some(Recurring {
                every_ns: *prng.pick(&[300 * MILLISECOND, SECOND, 5 * SECOND]),
                lasts_ns: 0,
            });
        } else if prng.chance(60_000) {
            self.pressure.space = true;
            let least = state_size_min(geometry.sessions_max, geometry.reply_size_max);
            geometry.state_size = least.next_multiple_of(4096);
            self.ops = 1500;
        }
        assert_eq!(geometry.check(), Ok(()));
    }

    fn draw_first(prng: &mut Prng) -> Self {
        let replica_count = *prng.pick(&[1, 1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 6]);
        let client_count = prng.range(1, 12) as u8;
        Self {
            cluster: ClusterOptions {
                replica_count,
                client_count,
                geometry: draw_geometry(prng, client_count),
                network: draw_network(prng),
                disk: draw_disk(prng),
                storage: draw_storage(prng),
                client: ClientOptions {
                    think_mean_ns: *prng.pick(&[MILLISECOND, 5 * MILLISECOND, 50 * MILLISECOND]),
                    resend_ns: *prng.pick(&[50 * MILLISECOND, 300 * MILLISECOND]),
                    stray: *prng.pick(&[0, 20_000, 300_000]),
                },
                turn_max_ns: *prng.pick(&[0, 20 * MICROSECOND, 200 * MICROSECOND]),
            },
            ops: *prng.pick(&[100, 400, 1500]),
            faults_max_ns: *prng.pick(&[10 * SECOND, 30 * SECOND, 60 * SECOND]),
            faults: draw_faults(prng),
            partial_recovery: prng.coin(),
            pressure: Pressure::default(),
        }
    }
}

impl Plan {
    /// Draws a plan with more faults: to find replicas that break a rule.
    pub fn draw_stressed(prng: &mut Prng) -> Self {
        let mut plan = Self::draw(prng);
        plan.cluster.replica_count = *prng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5]);
        plan.ops = *prng.pick(&[200, 600]);
        plan.faults_max_ns = 20 * SECOND;
        let often = |prng: &mut Prng, every_ms: u64, lasts_ms: u64| {
            prng.chance(600_000).then(|| Recurring {
                every_ns: every_ms * MILLISECOND,
                lasts_ns: lasts_ms * MILLISECOND,
            })
        };
        let faults = &mut plan.faults;
        faults.crash = often(prng, 400, 60).or(faults.crash);
        faults.crash_all = often(prng, 1500, 30).or(faults.crash_all);
        faults.pause = often(prng, 1000, 600).or(faults.pause);
        faults.partition = often(prng, 1200, 800).or(faults.partition);
        faults.clog = often(prng, 600, 300).or(faults.clog);
        faults.crash_again = *prng.pick(&[0, 300_000]);
        plan.cluster.storage.crash_decay = *prng.pick(&[0, 300_000]);
        plan.cluster.network.loss = *prng.pick(&[0, 10_000, 100_000]);
        plan.draw_losses(prng, 300_000);
        plan
    }
}

impl Plan {
    /// The run by which speed is measured: three replicas, some sixty requests a second, a fault of some kind
    /// nearly every second besides lost messages.
    pub fn of_speed() -> Self {
        let every = |every_s: u64, lasts_ms: u64| {
            Some(Recurring {
                every_ns: every_s * SECOND,
                lasts_ns: lasts_ms * MILLISECOND,
            })
        };
        Self {
            cluster: ClusterOptions {
                replica_count: 3,
                client_count: 6,
                geometry: Geometry {
                    state_size: 2 << 20,
                    message_size_max: 8 << 10,
                    slots: 128,
                    sessions_max: 8,
                    ..Geometry::SMALL
                },
                network: NetworkOptions {
                    loss: 1_000,
                    duplicate: 1_000,
                    ..NetworkOptions::GOOD
                },
                disk: DiskSpeed::FAST,
                storage: StorageFaults {
                    decay_mean_ns: Some(5 * SECOND),
                    zones: SUPERBLOCK | HEADERS | PREPARES,
                    ..StorageFaults::default()
                },
                client: ClientOptions {
                    think_mean_ns: 95 * MILLISECOND,
                    resend_ns: 300 * MILLISECOND,
                    stray: 0,
                },
                turn_max_ns: 20 * MICROSECOND,
            },
            ops: u64::MAX,
            faults_max_ns: 300 * SECOND,
            faults: FaultPlan {
                crash: every(10, 200),
                power_cuts: 500_000,
                pause: every(20, 200),
                partition: every(10, 300),
                clog: every(5, 100),
                slow_disk: every(30, 300),
                clock: every(10, 300),
                clock_jump_ns: 300 * MILLISECOND,
                drift_ppm: 50,
                ..FaultPlan::default()
            },
            partial_recovery: false,
            pressure: Pressure::default(),
        }
    }
}

/// A fault that exists in so many of a million seeds, and is then as frequent and as long as drawn.
fn recurring(
    prng: &mut Prng,
    exists: u32,
    every_ns: &[u64],
    lasts_ns: &[u64],
) -> Option<Recurring> {
    prng.chance(exists).then(|| Recurring {
        every_ns: *prng.pick(every_ns),
        lasts_ns: *prng.pick(lasts_ns),
    })
}

fn draw_faults(prng: &mut Prng) -> FaultPlan {
    const SHORT: [u64; 3] = [20 * MILLISECOND, 300 * MILLISECOND, 2 * SECOND];
    const RARE: [u64; 3] = [SECOND, 3 * SECOND, 8 * SECOND];
    FaultPlan {
        crash: recurring(
            prng,
            600_000,
            &[200 * MILLISECOND, SECOND, 5 * SECOND],
            &[MILLISECOND, 100 * MILLISECOND, SECOND],
        ),
        power_cuts: *prng.pick(&[0, 500_000, 1_000_000]),
        crash_again: *prng.pick(&[0, 0, 300_000]),
        crash_all: recurring(prng, 200_000, &RARE, &[MILLISECOND, 100 * MILLISECOND]),
        flap: recurring(prng, 100_000, &RARE, &[50 * MILLISECOND, 300 * MILLISECOND]),
        pause: recurring(prng, 250_000, &RARE, &SHORT),
        partition: recurring(prng, 400_000, &RARE, &SHORT),
        partition_clients: *prng.pick(&[0, 300_000]),
        clog: recurring(prng, 250_000, &[300 * MILLISECOND, 2 * SECOND], &SHORT),
        slow_disk: recurring(prng, 150_000, &RARE, &SHORT),
        clock: recurring(prng, 250_000, &RARE, &SHORT),
        spoiled_pages: 0,
        wipe: None,
        roll_back: None,
        clock_all: None,
        clock_jump_ns: *prng.pick(&[300 * MILLISECOND, 5 * SECOND, 365 * 86_400 * SECOND]),
        drift_ppm: *prng.pick(&[0, 50, 100, 2000]),
    }
}

fn draw_storage(prng: &mut Prng) -> StorageFaults {
    let mut faults = StorageFaults::default();
    for bit in [SUPERBLOCK, HEADERS, PREPARES] {
        if prng.chance(650_000) {
            faults.zones |= bit;
        }
    }
    if prng.chance(300_000) {
        let every = [100 * MILLISECOND, 500 * MILLISECOND, 3 * SECOND];
        faults.decay_mean_ns = Some(*prng.pick(&every));
    }
    if prng.chance(250_000) {
        faults.crash_decay = prng.range(100_000, 800_000) as u32;
    }
    if prng.chance(200_000) {
        faults.bad_read = prng.range(1_000, 50_000) as u32;
    }
    if prng.chance(200_000) {
        faults.dropped = prng.range(1_000, 30_000) as u32;
    }
    if prng.chance(200_000) {
        faults.misplaced = prng.range(1_000, 30_000) as u32;
    }
    faults
}

/// A state in which there is little room beside the sessions, in bytes.
pub(crate) fn state_size_min(sessions_max: u32, reply_size_max: u32) -> u64 {
    let per_session = u64::from(reply_size_max) + 4096 + 256;
    let sessions_size = u64::from(sessions_max) * per_session * 5 / 4;
    (1 << 20) + sessions_size
}

fn draw_geometry(prng: &mut Prng, client_count: u8) -> Geometry {
    let pipeline_max = *prng.pick(&[1, 2, 4, 8]);
    let slots = (8 * pipeline_max * *prng.pick(&[1, 2])).max(16);
    let sessions_max = u32::from(client_count) + prng.below(4) as u32;
    let reply_size_max = *prng.pick(&[64, 1000, 3840, 6000]);
    let state_size = state_size_min(sessions_max, reply_size_max) + prng.below(1 << 20);
    let geometry = Geometry {
        state_size: state_size.next_multiple_of(4096),
        message_size_max: *prng.pick(&[8 << 10, 12 << 10, 32 << 10]),
        slots,
        pipeline_max,
        sessions_max,
        reply_size_max,
        journal_ack: prng
            .pick(&[JournalAck::Single, JournalAck::Single, JournalAck::Both])
            .to_owned() as u8,
        ..Geometry::SMALL
    };
    assert_eq!(geometry.check(), Ok(()));
    geometry
}

fn draw_network(prng: &mut Prng) -> NetworkOptions {
    let mut options = NetworkOptions {
        delay_min_ns: *prng.pick(&[10 * MICROSECOND, 100 * MICROSECOND, MILLISECOND]),
        delay_mean_ns: *prng.pick(&[10 * MICROSECOND, 200 * MICROSECOND, 5 * MILLISECOND]),
        ..NetworkOptions::GOOD
    };
    if prng.coin() {
        options.loss = prng.range(1_000, 300_000) as u32;
    }
    if prng.coin() {
        options.duplicate = prng.range(1_000, 300_000) as u32;
    }
    if prng.chance(300_000) {
        options.capacity = prng.range(2, 20) as u32;
    }
    options
}

fn draw_disk(prng: &mut Prng) -> DiskSpeed {
    let mut speed = DiskSpeed {
        write_mean_ns: *prng.pick(&[20 * MICROSECOND, 200 * MICROSECOND, 3 * MILLISECOND]),
        ..DiskSpeed::FAST
    };
    if prng.chance(300_000) {
        speed.slow_chance = prng.range(100, 20_000) as u32;
        speed.slow_factor = prng.range(10, 300);
    }
    speed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_plans_differ_and_are_possible() {
        assert_eq!(Plan::of_speed().cluster.geometry.check(), Ok(()));
        let plans: Vec<_> = (0..300)
            .map(|seed| Plan::draw(&mut Prng::new(seed)))
            .collect();
        for replica_count in 1..=6 {
            let drawn = |plan: &&Plan| plan.cluster.replica_count == replica_count;
            assert!(plans.iter().any(|plan| drawn(&plan)));
        }
        let acks: Vec<_> = plans
            .iter()
            .map(|plan| plan.cluster.geometry.journal_ack())
            .collect();
        assert!(acks.contains(&JournalAck::Single) && acks.contains(&JournalAck::Both));
        for exists in [
            |plan: &Plan| plan.cluster.network.loss > 0,
            |plan: &Plan| plan.cluster.storage.decay_mean_ns.is_some(),
            |plan: &Plan| plan.cluster.storage.dropped > 0,
            |plan: &Plan| plan.faults.crash.is_some(),
            |plan: &Plan| plan.faults.crash_all.is_some(),
            |plan: &Plan| plan.faults.flap.is_some(),
            |plan: &Plan| plan.faults.pause.is_some(),
            |plan: &Plan| plan.faults.partition.is_some(),
            |plan: &Plan| plan.faults.clog.is_some(),
            |plan: &Plan| plan.faults.slow_disk.is_some(),
            |plan: &Plan| plan.faults.clock.is_some(),
        ] {
            let count = plans.iter().filter(|plan| exists(plan)).count();
            assert!(count > 10 && count < 290, "{count}");
        }
    }
}
