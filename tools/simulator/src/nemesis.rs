//! Brings a run's faults about: what comes when, whom it hits, and when it is over.

use crate::clock::Strobe;
use crate::cluster::{Cluster, MadeBy, Snapshot};
use crate::disk::DiskSpeed;
use crate::host::Crash;
use crate::network::Node;
use crate::partition::{self, Shape};
use crate::prng::Prng;
use crate::swarm::{MILLISECOND, Plan, Recurring, SECOND};
use crate::workload::Workload;
use viewstone::engine::SESSION_IDLE_MIN_NS;

/// Kinds of faults that recur.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Crash,
    CrashAll,
    Flap,
    Pause,
    Partition,
    Clog,
    SlowDisk,
    Clock,
    Decay,
    ClockAll,
    Wipe,
    RollBack,
}

const KINDS: [Kind; 12] = [
    Kind::Crash,
    Kind::CrashAll,
    Kind::Flap,
    Kind::Pause,
    Kind::Partition,
    Kind::Clog,
    Kind::SlowDisk,
    Kind::Clock,
    Kind::Decay,
    Kind::ClockAll,
    Kind::Wipe,
    Kind::RollBack,
];

/// What is to be done later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Later {
    Start(u8),
    Crash(u8),
    /// The partition with this number ends.
    Heal(u64),
    FastDisk(u8),
}

/// How far all wall clocks jump at once: further than a session may be idle.
const FORWARD_NS: i64 = (SESSION_IDLE_MIN_NS + SECOND) as i64;

/// Counts of faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Processes killed.
    pub kills: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Of both, those of a primary.
    pub primaries: u64,
    /// Of both, those of a process that was still opening its data file.
    pub while_opening: u64,
    /// Times that all ended at once.
    pub all_at_once: u64,
    /// Times that one ended again and again.
    pub flaps: u64,
    /// Pauses.
    pub pauses: u64,
    /// Partitions, by [`Shape::ALL`].
    pub partitions: [u64; Shape::ALL.len()],
    /// Links clogged.
    pub clogs: u64,
    /// Disks slowed down.
    pub slow_disks: u64,
    /// Wall clocks set, once or again and again.
    pub clocks: u64,
    /// All wall clocks set forward at once.
    pub clocks_all: u64,
}

/// See the module's description.
#[derive(Debug)]
pub struct Nemesis {
    plan: Plan,
    prng: Prng,
    next_ns: [u64; KINDS.len()],
    later: Vec<(u64, Later)>,
    partition: u64,
    /// What a disk held once.
    snapshot: Option<Snapshot>,
    faults: Faults,
}

impl Nemesis {
    /// The faults of a plan.
    pub fn new(plan: Plan, mut prng: Prng) -> Self {
        let mut next_ns = [u64::MAX; KINDS.len()];
        for (next_ns, kind) in next_ns.iter_mut().zip(KINDS) {
            if let Some(recurring) = of_kind(&plan, kind) {
                *next_ns = prng.exponential(recurring.every_ns);
            }
        }
        Self {
            plan,
            prng,
            next_ns,
            later: Vec::new(),
            partition: 0,
            snapshot: None,
            faults: Faults::default(),
        }
    }

    /// Counts so far.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// When [`Nemesis::act`] has something to do.
    pub fn next_ns(&self) -> u64 {
        let later = self.later.iter().map(|entry| entry.0).min();
        let next = self.next_ns.iter().copied().min();
        later.unwrap_or(u64::MAX).min(next.unwrap_or(u64::MAX))
    }

    /// Sets what is wrong from the beginning.
    pub fn begin<W: Workload>(&mut self, cluster: &mut Cluster<W>) {
        cluster.spoil_pages(self.plan.faults.spoiled_pages);
        if self.plan.faults.roll_back.is_some() {
            cluster.set_operator();
        }
        let drift = i64::from(self.plan.faults.drift_ppm);
        for replica in 0..cluster.replica_count() {
            let ppm = self.prng.below(2 * drift as u64 + 1) as i64 - drift;
            cluster.clock_mut(replica).set_drift(0, ppm as i32);
        }
    }

    /// Does what is due.
    pub fn act<W: Workload>(&mut self, cluster: &mut Cluster<W>) {
        let now_ns = cluster.now_ns();
        cluster.welcome_recovered();
        while let Some(index) = self.later.iter().position(|entry| entry.0 <= now_ns) {
            let (_, later) = self.later.swap_remove(index);
            self.act_later(later, cluster);
        }
        for (index, kind) in KINDS.into_iter().enumerate() {
            if self.next_ns[index] > now_ns {
                continue;
            }
            let recurring = of_kind(&self.plan, kind).expect("what is due exists");
            self.next_ns[index] = now_ns + 1 + self.prng.exponential(recurring.every_ns);
            let lasts_ns = 1 + self.prng.exponential(recurring.lasts_ns);
            self.act_now(kind, lasts_ns, cluster);
        }
    }

    fn act_later<W: Workload>(&mut self, later: Later, cluster: &mut Cluster<W>) {
        match later {
            Later::Start(replica) => {
                if !cluster.is_up(replica) {
                    self.start(replica, cluster);
                }
            }
            Later::Crash(replica) => {
                if cluster.is_up(replica) {
                    self.crash(replica, cluster);
                }
            }
            Later::Heal(number) => {
                if number == self.partition {
                    self.heal(cluster);
                }
            }
            Later::FastDisk(replica) => {
                let speed = self.plan.cluster.disk;
                cluster.disk_mut(replica).set_speed(speed);
            }
        }
    }

    fn act_now<W: Workload>(&mut self, kind: Kind, lasts_ns: u64, cluster: &mut Cluster<W>) {
        let now_ns = cluster.now_ns();
        let replica = self.whom(cluster);
        let up = cluster.is_up(replica);
        match kind {
            Kind::Crash if up => {
                self.crash(replica, cluster);
                self.later.push((now_ns + lasts_ns, Later::Start(replica)));
            }
            Kind::CrashAll => self.crash_all(lasts_ns, cluster),
            Kind::Flap => self.flap(replica, lasts_ns, cluster),
            Kind::Pause if up => {
                self.faults.pauses += 1;
                cluster.pause(replica, now_ns + lasts_ns);
            }
            Kind::Partition => self.divide(lasts_ns, cluster),
            Kind::Clog => {
                self.faults.clogs += 1;
                let to = self.other_node(replica, cluster);
                let (from, to) = if self.prng.coin() {
                    (Node::Replica(replica), to)
                } else {
                    (to, Node::Replica(replica))
                };
                cluster.network_mut().clog(from, to, now_ns + lasts_ns);
            }
            Kind::SlowDisk => self.slow_disk(replica, lasts_ns, cluster),
            Kind::Clock => self.set_clock(replica, lasts_ns, cluster),
            Kind::Decay => {
                cluster.decay(replica);
            }
            Kind::ClockAll => {
                self.faults.clocks_all += 1;
                for replica in 0..cluster.replica_count() {
                    cluster.clock_mut(replica).jump(FORWARD_NS);
                }
            }
            Kind::Wipe => self.wipe(replica, lasts_ns, cluster),
            Kind::RollBack => self.roll_back(replica, lasts_ns, cluster),
            Kind::Crash | Kind::Pause => {}
        }
    }

    /// Whom it hits: anybody, or the primary.
    fn whom<W: Workload>(&mut self, cluster: &Cluster<W>) -> u8 {
        let anybody = self.prng.below(u64::from(cluster.replica_count())) as u8;
        match cluster.primary() {
            Some(primary) if self.prng.chance(300_000) => primary,
            _ => anybody,
        }
    }

    fn other_node<W: Workload>(&mut self, replica: u8, cluster: &Cluster<W>) -> Node {
        let count = cluster.replica_count();
        if count == 1 || self.prng.chance(200_000) {
            return Node::Client(self.prng.index(cluster.clients().len()) as u8);
        }
        let step = 1 + self.prng.below(u64::from(count) - 1) as u8;
        Node::Replica((replica + step) % count)
    }

    fn start<W: Workload>(&mut self, replica: u8, cluster: &mut Cluster<W>) {
        cluster.start(replica);
        if self.prng.chance(self.plan.faults.crash_again) {
            let now_ns = cluster.now_ns();
            let soon_ns = now_ns + self.prng.exponential(2 * MILLISECOND);
            self.later.push((soon_ns, Later::Crash(replica)));
            let down_ns = 1 + self.prng.exponential(20 * MILLISECOND);
            self.later.push((soon_ns + down_ns, Later::Start(replica)));
        }
    }

    fn crash<W: Workload>(&mut self, replica: u8, cluster: &mut Cluster<W>) {
        let power = self.prng.chance(self.plan.faults.power_cuts);
        self.crash_by(replica, power, cluster);
    }

    fn crash_by<W: Workload>(&mut self, replica: u8, power: bool, cluster: &mut Cluster<W>) {
        // Whose disk went back must be remembered by the others; it may itself restart as often as it likes.
        if cluster.untold().is_some_and(|untold| untold != replica) {
            return;
        }
        self.faults.primaries += u64::from(cluster.primary() == Some(replica));
        let opening = cluster
            .progress(replica)
            .is_some_and(|progress| progress.status == storage::header::ReplicaStatus::Opening);
        self.faults.while_opening += u64::from(opening);
        let crash = if power {
            self.faults.power_cuts += 1;
            Crash::PowerCut
        } else {
            self.faults.kills += 1;
            Crash::Kill
        };
        cluster.crash(replica, crash);
    }

    fn crash_all<W: Workload>(&mut self, lasts_ns: u64, cluster: &mut Cluster<W>) {
        self.faults.all_at_once += 1;
        let power = self.prng.chance(self.plan.faults.power_cuts);
        for replica in 0..cluster.replica_count() {
            if cluster.is_up(replica) {
                self.crash_by(replica, power, cluster);
                let down_ns = 1 + self.prng.exponential(lasts_ns);
                let due_ns = cluster.now_ns() + down_ns;
                self.later.push((due_ns, Later::Start(replica)));
            }
        }
    }

    fn flap<W: Workload>(&mut self, replica: u8, lasts_ns: u64, cluster: &mut Cluster<W>) {
        self.faults.flaps += 1;
        let mut due_ns = cluster.now_ns();
        for _ in 0..6 {
            self.later.push((due_ns, Later::Crash(replica)));
            due_ns += 1 + self.prng.exponential(lasts_ns);
            self.later.push((due_ns, Later::Start(replica)));
            due_ns += 1 + self.prng.exponential(lasts_ns);
        }
    }

    fn divide<W: Workload>(&mut self, lasts_ns: u64, cluster: &mut Cluster<W>) {
        let count = cluster.replica_count();
        if count == 1 {
            return;
        }
        self.heal(cluster);
        self.partition += 1;
        let shape = self.prng.index(Shape::ALL.len());
        self.faults.partitions[shape] += 1;
        let primary = cluster.primary();
        let cuts = partition::draw(Shape::ALL[shape], count, primary, &mut self.prng);
        for from in 0..count {
            for to in 0..count {
                if cuts[from as usize][to as usize] {
                    cluster.set_cut(from, to, true);
                }
            }
        }
        let clients_too = self.prng.chance(self.plan.faults.partition_clients);
        for client in 0..cluster.clients().len() as u8 {
            for replica in 0..count {
                if clients_too && self.prng.coin() {
                    let ends = (Node::Client(client), Node::Replica(replica));
                    cluster.network_mut().set_cut(ends.0, ends.1, true);
                    cluster.network_mut().set_cut(ends.1, ends.0, true);
                }
            }
        }
        let due_ns = cluster.now_ns() + lasts_ns;
        self.later.push((due_ns, Later::Heal(self.partition)));
    }

    /// Ends a partition: short ones leave connections as they were, long ones make new ones.
    fn heal<W: Workload>(&mut self, cluster: &mut Cluster<W>) {
        let count = cluster.replica_count();
        let anew = self.prng.coin();
        for one in 0..count {
            for other in one + 1..count {
                let links = (Node::Replica(one), Node::Replica(other));
                let network = cluster.network();
                let was_cut = network.is_cut(links.0, links.1) || network.is_cut(links.1, links.0);
                cluster.set_cut(one, other, false);
                cluster.set_cut(other, one, false);
                if was_cut && anew && cluster.is_up(one) && cluster.is_up(other) {
                    cluster.connect(one, other);
                }
            }
            for client in 0..cluster.clients().len() as u8 {
                let ends = (Node::Client(client), Node::Replica(one));
                cluster.network_mut().set_cut(ends.0, ends.1, false);
                cluster.network_mut().set_cut(ends.1, ends.0, false);
            }
        }
    }

    /// Wipes a disk, if the cluster survives that.
    fn wipe<W: Workload>(&mut self, replica: u8, lasts_ns: u64, cluster: &mut Cluster<W>) {
        if cluster.is_up(replica) {
            self.crash(replica, cluster);
        }
        let made_by = [MadeBy::Format, MadeBy::Recover][self.prng.index(2)];
        cluster.wipe(replica, made_by);
        let due_ns = cluster.now_ns() + lasts_ns;
        self.later.push((due_ns, Later::Start(replica)));
    }

    /// Puts a disk back to what it held when there was last an occasion, if that is sure to be noticed.
    fn roll_back<W: Workload>(&mut self, replica: u8, lasts_ns: u64, cluster: &mut Cluster<W>) {
        let kept = self.snapshot.take();
        let Some(snapshot) = kept.filter(|_| self.prng.chance(900_000)) else {
            self.snapshot = cluster.snapshot(replica);
            return;
        };
        if !cluster.remembers(&snapshot) {
            self.snapshot = Some(snapshot);
            return;
        }
        let replica = snapshot.replica();
        if cluster.is_up(replica) {
            self.crash(replica, cluster);
        }
        cluster.roll_back(&snapshot);
        let due_ns = cluster.now_ns() + lasts_ns;
        self.later.push((due_ns, Later::Start(replica)));
    }

    fn slow_disk<W: Workload>(&mut self, replica: u8, lasts_ns: u64, cluster: &mut Cluster<W>) {
        self.faults.slow_disks += 1;
        let usual = self.plan.cluster.disk;
        let slow = DiskSpeed {
            write_min_ns: 300 * MILLISECOND,
            read_min_ns: 30 * MILLISECOND,
            ..usual
        };
        cluster.disk_mut(replica).set_speed(slow);
        let due_ns = cluster.now_ns() + lasts_ns;
        self.later.push((due_ns, Later::FastDisk(replica)));
    }

    fn set_clock<W: Workload>(&mut self, replica: u8, lasts_ns: u64, cluster: &mut Cluster<W>) {
        self.faults.clocks += 1;
        let now_ns = cluster.now_ns();
        let far = self.plan.faults.clock_jump_ns;
        let by_ns = self.prng.below(far) as i64;
        let forward = self.prng.coin();
        let clock = cluster.clock_mut(replica);
        if self.prng.chance(300_000) {
            clock.strobe(Strobe {
                ahead_ns: by_ns as u64,
                period_ns: 1 + self.prng.exponential(30 * MILLISECOND),
                until_ns: now_ns + lasts_ns,
            });
        } else if forward {
            clock.jump(by_ns);
        } else {
            clock.jump(-by_ns);
        }
    }
}

fn of_kind(plan: &Plan, kind: Kind) -> Option<Recurring> {
    let faults = &plan.faults;
    match kind {
        Kind::Crash => faults.crash,
        Kind::CrashAll => faults.crash_all,
        Kind::Flap => faults.flap,
        Kind::Pause => faults.pause,
        Kind::Partition => faults.partition,
        Kind::Clog => faults.clog,
        Kind::SlowDisk => faults.slow_disk,
        Kind::Clock => faults.clock,
        Kind::ClockAll => faults.clock_all,
        Kind::Wipe => faults.wipe,
        Kind::RollBack => faults.roll_back,
        Kind::Decay => plan
            .cluster
            .storage
            .decay_mean_ns
            .map(|every_ns| Recurring {
                every_ns,
                lasts_ns: 0,
            }),
    }
}
