//! One seed: draws a cluster and a mix of faults, runs it, heals it, and expects it to serve and to converge.
//!
//! 1. *Safety*: faults, until enough ops are committed or the time is over. Every event is checked; progress is not asked
//!    for.
//! 2. *Liveness*: a core of the replicas is healed, large enough to decide alone and with a good copy of everything; the
//!    others stay dead, or are cut off from it. The core must serve new requests and converge.
//! 3. *Convergence*: everybody is healed, and must converge as well, and come to rest with every buffer in its pool.

use crate::atlas::AtlasStatistics;
use crate::checker::Checked;
use crate::cluster::Cluster;
use crate::disk::DiskStatistics;
use crate::host::{Crash, NodeKind};
use crate::nemesis::{Faults, Nemesis};
use crate::network::{KindStatistics, NetworkOptions};
use crate::prng::Prng;
use crate::swarm::{Plan, SECOND};
use crate::workload::Workload;
use std::fmt;
use storage::header::{Command, ReplicaStatus};
use viewstone::quorums::Quorums;
use viewstone::rules::Strict;

/// After the faults stop, a cluster must serve, answer everything and agree within this time.
const CONVERGENCE_MAX_NS: u64 = 60 * SECOND;

/// Writes that a healed cluster must answer before it is let come to rest.
const SERVED_MIN: u64 = 10;

/// Then it is left alone for this long before its buffers are counted.
const REST_NS: u64 = 3 * SECOND;

/// Whether replicas fetch pages from each other: until they do, one that lags beyond the others' journals stays behind.
const STATE_SYNC: bool = true;

/// What the replicas themselves counted, over all their lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Protocol {
    /// Views left.
    pub view_changes: u64,
    /// Views that their candidates could not lead.
    pub passed_on: u64,
    /// Prepares repaired.
    pub repaired: u64,
    /// Checkpoints begun.
    pub checkpoints: u64,
    /// Jumps to a checkpoint of others.
    pub syncs: u64,
    /// Pages of state got from others.
    pub pages_fetched: u64,
    /// Blocks that were found bad by the scrubber.
    pub blocks_bad: u64,
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
    pub checked: Checked,
    /// Faults of processes, links and clocks.
    pub faults: Faults,
    /// Faults of disks.
    pub damage: AtlasStatistics,
    /// Answers with pages that were spoiled.
    pub spoiled: u64,
    /// Replicas that were told that their disk went back.
    pub told: u64,
    /// Replicas that have recovered from the loss of their disk.
    pub recovered: u64,
    /// Replicas that had to stay behind when the core recovered.
    pub left_behind: u64,
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
    /// What the replicas counted.
    pub protocol: Protocol,
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
        let (cluster, checked, faults) = (&self.plan.cluster, &self.checked, &self.faults);
        let (damage, disk, messages) = (&self.damage, &self.disk, &self.messages_total);
        write!(
            formatter,
            "seed {}: {} replicas, {} clients, {} slots, {:.1} s; {} ops, {} requests ({} copies), {} writes and {} \
             reads answered, {} checkpoints, {} wraps, {} views, {} cut; {} kills, {} power cuts ({} of primaries, {} \
             while opening, {} torn, {} unsynced sectors lost), {} pauses, {} partitions, {} clogs, {} slow disks, {} \
             clock faults; {} decayed, {} bad reads, {} dropped, {} misplaced; {} left behind, {} lagging; messages {} \
             ({} lost, {} cut, {} twice, {} overtaken, {} overflowed, {} held); trace {:016x}",
            self.seed,
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
            checked.spoke.views,
            checked.spoke.truncations,
            faults.kills,
            faults.power_cuts,
            faults.primaries,
            faults.while_opening,
            disk.torn,
            disk.unsynced_lost,
            faults.pauses,
            faults.partitions.iter().sum::<u64>(),
            faults.clogs,
            faults.slow_disks,
            faults.clocks,
            damage.decayed.total(),
            damage.bad_reads.total(),
            disk.dropped,
            disk.misplaced,
            self.left_behind,
            self.lagging,
            messages.sent,
            messages.lost,
            messages.cut,
            messages.duplicated,
            messages.overtaken,
            messages.overflowed,
            self.held_back,
            self.hash,
        )
    }
}

/// Runs a seed.
pub fn run<W: Workload>(seed: u64, readable: bool) -> Summary {
    let mut prng = Prng::new(seed);
    let plan = Plan::draw(&mut prng);
    run_plan::<W>(seed, plan, prng, readable)
}

/// Runs a plan.
pub fn run_plan<W: Workload>(seed: u64, plan: Plan, prng: Prng, readable: bool) -> Summary {
    let kind = NodeKind::new::<W::Machines, Strict>(&plan.cluster.geometry);
    run_kind::<W>(seed, plan, kind, prng, readable)
}

/// Runs a plan with replicas that may break a rule.
pub fn run_kind<W: Workload>(
    seed: u64,
    plan: Plan,
    kind: NodeKind,
    mut prng: Prng,
    readable: bool,
) -> Summary {
    let mut run = Run {
        seed,
        plan,
        nemesis: Nemesis::new(plan, prng.fork()),
        prng: prng.fork(),
        cluster: Cluster::<W>::of_kind(plan.cluster, kind, prng, readable),
        left_behind: 0,
    };
    run.cluster.press(plan.pressure);
    run.safety();
    let core = run.choose_core();
    run.heal(&core);
    run.serve_and_converge(&core);
    let all: Vec<u8> = (0..plan.cluster.replica_count).collect();
    run.heal(&all);
    run.serve_and_converge(&all);
    run.rest(&all);
    run.summary()
}

struct Run<W: Workload> {
    seed: u64,
    plan: Plan,
    nemesis: Nemesis,
    prng: Prng,
    cluster: Cluster<W>,
    left_behind: u64,
}

impl<W: Workload> Run<W> {
    /// Faults, until enough is done.
    fn safety(&mut self) {
        let Plan {
            ops, faults_max_ns, ..
        } = self.plan;
        let cluster = &mut self.cluster;
        self.nemesis.begin(cluster);
        for replica in 0..cluster.replica_count() {
            cluster.start(replica);
        }
        while cluster.now_ns() < faults_max_ns {
            let until_ns = self.nemesis.next_ns().min(faults_max_ns);
            if cluster.run(until_ns, |cluster| cluster.checker().head() >= ops) {
                break;
            }
            self.nemesis.act(cluster);
        }
        cluster.stop_damage();
        cluster.spoil_pages(0);
    }

    /// A part of the cluster that can decide alone; or all of it.
    fn choose_core(&mut self) -> Vec<u8> {
        let count = self.plan.cluster.replica_count;
        let quorums = Quorums::new(count);
        let least = quorums.view_change.max(quorums.replication);
        let mut core: Vec<u8> = (0..count).collect();
        // The first start needs everybody once.
        let begun = self.cluster.checker().head() > 0;
        self.cluster.survey_grids();
        self.cluster.welcome_recovered();
        let begun = begun && self.cluster.untold().is_none();
        if STATE_SYNC && self.plan.partial_recovery && begun {
            self.prng.shuffle(&mut core);
            for size in usize::from(least)..usize::from(count) {
                if self.cluster.atlas().is_enough(&core[..size], count) {
                    core.truncate(size);
                    break;
                }
            }
        }
        self.left_behind = u64::from(count) - core.len() as u64;
        core.sort_unstable();
        core
    }

    /// Everything works for the replicas of the core; the others are dead, or cut off from them.
    fn heal(&mut self, core: &[u8]) {
        let cluster = &mut self.cluster;
        cluster.mend();
        cluster.set_network(NetworkOptions::GOOD);
        for replica in 0..cluster.replica_count() {
            cluster.disk_mut(replica).set_speed(self.plan.cluster.disk);
            let inside = core.contains(&replica);
            if inside && !cluster.is_up(replica) {
                cluster.start(replica);
            } else if !inside && cluster.is_up(replica) && self.prng.coin() {
                cluster.crash(replica, Crash::Kill);
            } else if !inside {
                cluster.isolate(replica);
            }
        }
        for (index, &one) in core.iter().enumerate() {
            for &other in &core[index + 1..] {
                cluster.connect(one, other);
            }
        }
    }

    fn serve_and_converge(&mut self, replicas: &[u8]) {
        let cluster = &mut self.cluster;
        cluster.set_draining(false);
        let until_ns = cluster.now_ns() + CONVERGENCE_MAX_NS;
        let enough = cluster.checker().checked().writes + SERVED_MIN;
        let served = cluster.run(until_ns, |cluster| {
            cluster.checker().checked().writes >= enough
        });
        assert!(served, "it does not serve: {}", self.state(replicas));
        self.cluster.set_draining(true);
        let converged = self.run_until_converged(replicas, until_ns);
        assert!(converged, "not converged: {}", self.state(replicas));
    }

    fn run_until_converged(&mut self, replicas: &[u8], until_ns: u64) -> bool {
        self.cluster
            .run(until_ns, |cluster| is_done(cluster, replicas))
    }

    /// Nothing happens any more but heartbeats, and what was under way on a clogged link: a late copy of a request may be
    /// committed.
    fn rest(&mut self, all: &[u8]) {
        self.cluster.run_for(REST_NS);
        let until_ns = self.cluster.now_ns() + REST_NS;
        assert!(
            self.run_until_converged(all, until_ns),
            "it does not stay converged: {}",
            self.state(all)
        );
        let until_ns = self.cluster.now_ns() + CONVERGENCE_MAX_NS;
        let rests = self.cluster.run(until_ns, Cluster::is_at_rest);
        assert!(rests, "the disks never rest");
        if self.lagging() == 0 {
            self.cluster.check_quiescence(); // who lags for good may keep what it has fetched
        }
    }

    fn lagging(&self) -> u64 {
        let replicas = 0..self.plan.cluster.replica_count;
        let lagging = replicas.filter(|&replica| lags(&self.cluster, replica));
        lagging.count() as u64
    }

    /// What each replica and client is doing, for a failure's message.
    fn state(&self, replicas: &[u8]) -> String {
        let cluster = &self.cluster;
        let clients = cluster.clients().iter();
        let waiting = clients.filter(|client| client.is_waiting()).count();
        let progress: Vec<_> = (0..cluster.replica_count())
            .map(|replica| {
                let whole = cluster
                    .replica(replica)
                    .is_some_and(super::host::Node::is_whole);
                (replica, whole, cluster.progress(replica))
            })
            .collect();
        let head = cluster.checker().head();
        format!(
            "at {} ms, of {replicas:?}: history {head}, {waiting} clients wait, replicas (whole, progress) {progress:#?}",
            cluster.now_ns() / 1_000_000
        )
    }

    fn summary(&self) -> Summary {
        let cluster = &self.cluster;
        let mut disk = DiskStatistics::default();
        for host in cluster.hosts() {
            disk.add(host.disk.statistics());
        }
        let network = cluster.network();
        let kinds = Command::ALL.into_iter();
        let mut protocol = Protocol::default();
        for metrics in cluster.metrics() {
            protocol.view_changes += metrics.view_changes;
            protocol.passed_on += metrics.passed_on;
            protocol.repaired += metrics.prepares_repaired;
            protocol.checkpoints += metrics.checkpoints;
            protocol.syncs += metrics.syncs;
            protocol.pages_fetched += metrics.pages_fetched;
            protocol.blocks_bad += metrics.blocks_mended + metrics.blocks_superseded;
        }
        Summary {
            seed: self.seed,
            plan: self.plan,
            time_ns: cluster.now_ns(),
            events: cluster.trace().events(),
            hash: cluster.trace().hash(),
            checked: cluster.checker().checked(),
            faults: *self.nemesis.faults(),
            damage: *cluster.atlas().statistics(),
            spoiled: cluster.spoiled(),
            told: cluster.losses_overcome().0,
            recovered: cluster.losses_overcome().1,
            left_behind: self.left_behind,
            lagging: self.lagging(),
            held_back: cluster.held_back(),
            disk,
            messages: kinds
                .map(|kind| (kind, network.statistics()[kind as usize]))
                .collect(),
            messages_total: network.total(),
            protocol,
        }
    }
}

/// Whether these replicas have converged; those that lag too far for now excepted.
fn is_done<W: Workload>(cluster: &Cluster<W>, replicas: &[u8]) -> bool {
    if STATE_SYNC {
        return cluster.has_converged(replicas);
    }
    let able = replicas.iter().copied().filter(|&it| !lags(cluster, it));
    cluster.has_converged(&able.collect::<Vec<u8>>())
}

/// Whether a replica is so far behind that the others' journals may not hold what it misses.
fn lags<W: Workload>(cluster: &Cluster<W>, replica: u8) -> bool {
    let reach = u64::from(cluster.layout().geometry.slots) / 2;
    cluster.progress(replica).is_some_and(|progress| {
        progress.status == ReplicaStatus::Syncing
            || progress.commit_min + reach <= cluster.checker().head()
    })
}

#[cfg(test)]
mod tests;
