//! One seed: draws a cluster and a mix of faults, runs it, heals it, and expects it to converge.
//!
//! Each seed draws its own mix (swarm testing): which faults are on at all is drawn before how strong they are, so that
//! every combination of few faults comes up.

use crate::client::ClientOptions;
use crate::cluster::{Cluster, ClusterOptions};
use crate::disk::{DiskSpeed, DiskStatistics};
use crate::host::Crash;
use crate::network::{KindStatistics, NetworkOptions};
use crate::prng::Prng;
use crate::workload::Workload;
use std::fmt;
use storage::header::{Command, ReplicaStatus};
use storage::layout::{Geometry, JournalAck};

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;

/// After the faults stop, a cluster must answer everything and agree within this time.
const CONVERGENCE_MAX_NS: u64 = 60 * SECOND;

/// Then it is left alone for this long before its buffers are counted.
const REST_NS: u64 = 3 * SECOND;

/// What a seed drew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The cluster.
    pub cluster: ClusterOptions,
    /// Ops after which the faults stop.
    pub ops: u64,
    /// Time after which they stop in any case.
    pub faults_max_ns: u64,
    /// Mean time between crashes; none: nobody crashes.
    pub crash_mean_ns: Option<u64>,
    /// Crashes that are power cuts, in parts per million.
    pub power_cuts: u32,
    /// Mean time that a process is down.
    pub down_mean_ns: u64,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(prng: &mut Prng) -> Self {
        let replica_count = *prng.pick(&[1, 1, 1, 2, 3, 3, 3, 4, 5, 6]);
        let client_count = prng.range(1, 12) as u8;
        Self {
            cluster: ClusterOptions {
                replica_count,
                client_count,
                geometry: draw_geometry(prng, client_count),
                network: draw_network(prng),
                disk: draw_disk(prng),
                client: ClientOptions {
                    think_mean_ns: *prng.pick(&[MILLISECOND, 5 * MILLISECOND, 50 * MILLISECOND]),
                    resend_ns: *prng.pick(&[50 * MILLISECOND, 300 * MILLISECOND]),
                    stray: *prng.pick(&[0, 20_000, 300_000]),
                },
                turn_max_ns: *prng.pick(&[0, 20 * MICROSECOND, 200 * MICROSECOND]),
            },
            ops: *prng.pick(&[100, 400, 1500]),
            faults_max_ns: 60 * SECOND,
            crash_mean_ns: prng
                .chance(800_000)
                .then(|| *prng.pick(&[100 * MILLISECOND, 500 * MILLISECOND, 3 * SECOND])),
            power_cuts: *prng.pick(&[0, 500_000, 1_000_000]),
            down_mean_ns: *prng.pick(&[MILLISECOND, 50 * MILLISECOND, 300 * MILLISECOND]),
        }
    }
}

fn draw_geometry(prng: &mut Prng, client_count: u8) -> Geometry {
    let pipeline_max = *prng.pick(&[1, 2, 4, 8]);
    let slots = (8 * pipeline_max * *prng.pick(&[1, 2])).max(16);
    let sessions_max = u32::from(client_count) + prng.below(4) as u32;
    let reply_size_max = *prng.pick(&[64, 1000, 3840, 6000]);
    let per_session = u64::from(reply_size_max) + 4096 + 256;
    let sessions_size = u64::from(sessions_max) * per_session * 5 / 4;
    let state_size = (1 << 20) + sessions_size + prng.below(1 << 20);
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

/// What a run did.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// What it drew.
    pub plan: Plan,
    /// Virtual time, in nanoseconds.
    pub time_ns: u64,
    /// Events.
    pub events: u64,
    /// Hash over all of them.
    pub hash: u64,
    /// What was checked.
    pub checked: crate::checker::Checked,
    /// Processes killed.
    pub kills: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Replicas that ended too far behind.
    pub lagging: u64,
    /// Messages that waited for room.
    pub held_back: u64,
    /// All disks together.
    pub disk: DiskStatistics,
    /// Messages of each kind.
    pub messages: Vec<(Command, KindStatistics)>,
    /// All messages together.
    pub messages_total: KindStatistics,
}

impl Summary {
    /// What became of the messages of a kind.
    pub fn messages_of(&self, kind: Command) -> KindStatistics {
        let found = self.messages.iter().find(|message| message.0 == kind);
        found.map_or(KindStatistics::default(), |message| message.1)
    }

    /// Times that the journal wrapped.
    pub fn wraps(&self) -> u64 {
        self.checked.ops / u64::from(self.plan.cluster.geometry.slots)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            plan,
            checked,
            disk,
            messages_total,
            ..
        } = self;
        let cluster = &plan.cluster;
        write!(
            formatter,
            "seed {seed}: {} replicas, {} clients, {} slots, {:.1} s; {} ops, {} requests ({} copies), {} writes and \
             {} reads answered, {} checkpoints, {} wraps; {} kills, {} power cuts ({} torn, {} unsynced sectors lost), \
             {} lagging; messages {} ({} lost, {} twice, {} overtaken, {} overflowed, {} held); trace {:016x}",
            cluster.replica_count,
            cluster.client_count,
            cluster.geometry.slots,
            self.time_ns as f64 / 1e9,
            checked.ops,
            checked.requests,
            checked.copies,
            checked.writes,
            checked.reads,
            checked.checkpoints,
            self.wraps(),
            self.kills,
            self.power_cuts,
            disk.torn,
            disk.unsynced_lost,
            self.lagging,
            messages_total.sent,
            messages_total.lost,
            messages_total.duplicated,
            messages_total.overtaken,
            messages_total.overflowed,
            self.held_back,
            self.hash,
        )
    }
}

/// The crashes of a run.
struct Crashes {
    plan: Plan,
    prng: Prng,
    next_crash_ns: u64,
    /// When a replica that is down starts again.
    restarts: Vec<(u64, u8)>,
    kills: u64,
    power_cuts: u64,
}

impl Crashes {
    fn new(plan: Plan, mut prng: Prng) -> Self {
        let next_crash_ns = plan
            .crash_mean_ns
            .map_or(u64::MAX, |mean| prng.exponential(mean));
        Self {
            plan,
            prng,
            next_crash_ns,
            restarts: Vec::new(),
            kills: 0,
            power_cuts: 0,
        }
    }

    fn next_ns(&self) -> u64 {
        let restarts = self.restarts.iter().map(|restart| restart.0);
        restarts.min().unwrap_or(u64::MAX).min(self.next_crash_ns)
    }

    /// Does what is due.
    fn act<W: Workload>(&mut self, cluster: &mut Cluster<W>) {
        let now_ns = cluster.now_ns();
        while let Some(index) = self.restarts.iter().position(|restart| restart.0 <= now_ns) {
            let (_, replica) = self.restarts.swap_remove(index);
            cluster.start(replica);
        }
        if self.next_crash_ns > now_ns {
            return;
        }
        let mean = self
            .plan
            .crash_mean_ns
            .expect("otherwise there is no next crash");
        self.next_crash_ns = now_ns + 1 + self.prng.exponential(mean);
        if let Some(replica) = self.victim(cluster) {
            let crash = if self.prng.chance(self.plan.power_cuts) {
                self.power_cuts += 1;
                Crash::PowerCut
            } else {
                self.kills += 1;
                Crash::Kill
            };
            cluster.crash(replica, crash);
            let down_ns = self.prng.exponential(self.plan.down_mean_ns);
            self.restarts.push((now_ns + down_ns, replica));
        }
    }

    /// Whom to crash: anybody who is up.
    fn victim<W: Workload>(&mut self, cluster: &Cluster<W>) -> Option<u8> {
        let replica = self.prng.below(u64::from(self.plan.cluster.replica_count)) as u8;
        cluster.is_up(replica).then_some(replica)
    }
}

/// Runs a seed.
pub fn run<W: Workload>(seed: u64, readable: bool) -> Summary {
    let mut prng = Prng::new(seed);
    let plan = Plan::draw(&mut prng);
    run_plan::<W>(seed, plan, prng, readable)
}

/// Runs a plan.
pub fn run_plan<W: Workload>(seed: u64, plan: Plan, mut prng: Prng, readable: bool) -> Summary {
    let mut crashes = Crashes::new(plan, prng.fork());
    let mut cluster = Cluster::<W>::new(plan.cluster, prng, readable);
    for replica in 0..plan.cluster.replica_count {
        cluster.start(replica);
    }
    while cluster.now_ns() < plan.faults_max_ns {
        let until_ns = crashes.next_ns().min(plan.faults_max_ns);
        if cluster.run(until_ns, |cluster| cluster.checker().head() >= plan.ops) {
            break;
        }
        crashes.act(&mut cluster);
    }
    cluster.heal();
    for replica in 0..plan.cluster.replica_count {
        if !cluster.is_up(replica) {
            cluster.start(replica);
        }
    }
    let until_ns = cluster.now_ns() + CONVERGENCE_MAX_NS;
    let converged = cluster.run(until_ns, Cluster::has_converged);
    assert!(converged, "not converged: {}", state(&cluster, &plan));
    let until_ns = cluster.now_ns() + REST_NS;
    cluster.run(until_ns, |_| false);
    assert!(cluster.has_converged());
    let until_ns = cluster.now_ns() + CONVERGENCE_MAX_NS;
    assert!(
        cluster.run(until_ns, Cluster::is_at_rest),
        "the disks never rest"
    );
    cluster.check_quiescence();
    summary(seed, plan, &cluster, &crashes)
}

/// What each replica and client is doing, for a failure's message.
fn state<W: Workload>(cluster: &Cluster<W>, plan: &Plan) -> String {
    let waiting = cluster
        .clients()
        .iter()
        .filter(|client| client.is_waiting());
    let progress: Vec<_> = (0..plan.cluster.replica_count)
        .map(|replica| cluster.progress(replica))
        .collect();
    let head = cluster.checker().head();
    let waiting = waiting.count();
    format!("history {head}, {waiting} clients wait, replicas {progress:#?}")
}

fn summary<W: Workload>(seed: u64, plan: Plan, cluster: &Cluster<W>, crashes: &Crashes) -> Summary {
    let mut disk = DiskStatistics::default();
    for host in cluster.hosts() {
        disk.add(host.disk.statistics());
    }
    let is_lagging = |&replica: &u8| {
        let progress = cluster.progress(replica);
        progress.is_some_and(|progress| progress.status == ReplicaStatus::Syncing)
    };
    let network = cluster.network();
    let kinds = Command::ALL.into_iter();
    Summary {
        seed,
        plan,
        time_ns: cluster.now_ns(),
        events: cluster.trace().events(),
        hash: cluster.trace().hash(),
        checked: cluster.checker().checked(),
        kills: crashes.kills,
        power_cuts: crashes.power_cuts,
        lagging: (0..plan.cluster.replica_count).filter(is_lagging).count() as u64,
        held_back: cluster.held_back(),
        disk,
        messages: kinds
            .map(|kind| (kind, network.statistics()[kind as usize]))
            .collect(),
        messages_total: network.total(),
    }
}

#[cfg(test)]
mod tests;
