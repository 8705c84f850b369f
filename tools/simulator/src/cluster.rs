//! A cluster and its clients: the event loop of the simulation, and a script's handle on it.
//!
//! Everything happens in one thread, at one virtual time, in an order that the seed decides. After each event the
//! effects are carried out, and the checkers look at the replica that took it.
//!
//! A script (a test, or the faults of a seed) starts and crashes processes, cuts and clogs links, sets clocks, damages
//! disks, and runs until a time or a condition: all of that is in `control.rs`. Nothing is random but what is drawn from
//! the generator that the cluster is made with.

mod control;
mod deliver;
mod losses;
mod observe;

use crate::atlas::{Atlas, StorageFaults};
use crate::checker::Checker;
use crate::client::{Client, ClientOptions};
use crate::disk::{Disk, DiskSpeed, DiskState, Tear};
use crate::host::{Acted, Crash, Host, NodeKind};
use crate::network::{Network, NetworkOptions, Node};
use crate::prng::Prng;
use crate::trace::Trace;
use crate::workload::Workload;
pub use control::MadeBy;
use deliver::header_of;
pub use losses::Snapshot;
use storage::SECTOR_SIZE;
use storage::buffer::keep_dropped;
use storage::format::Format;
use storage::header::Header;
use storage::layout::{
    Geometry, HEADERS_PER_SECTOR, JournalAck, Layout, REPLICAS_MAX, SUPERBLOCK_COPIES,
};
use storage::superblock::{COPY_SIZE_MAX, FileId};
use viewstone::replica::{Event, Fatal, Metrics, ReplicaOptions};
use viewstone::rules::Strict;
use viewstone::state_machine::Limits;

/// A cluster to simulate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterOptions {
    /// Number of replicas.
    pub replica_count: u8,
    /// Number of clients.
    pub client_count: u8,
    /// Every data file's geometry.
    pub geometry: Geometry,
    /// How the network behaves.
    pub network: NetworkOptions,
    /// How fast disks are.
    pub disk: DiskSpeed,
    /// How disks fail.
    pub storage: StorageFaults,
    /// How clients behave.
    pub client: ClientOptions,
    /// Time from an event to the end of its turn, at most, in nanoseconds.
    pub turn_max_ns: u64,
}

/// Things done at one time that are taken for time standing still.
const ACTS_MAX: u32 = 1_000_000;

/// Memory of ended processes that is kept for the next ones, in bytes: some for each replica of a cluster.
const MEMORY_KEPT_MAX: usize = 256 << 20;

/// Decides whether a message is delivered: of a script that loses chosen ones.
pub type Filter = Box<dyn FnMut(Node, Node, &Header) -> bool>;

/// See the module's description.
pub struct Cluster<W: Workload> {
    options: ClusterOptions,
    layout: Layout,
    id: u128,
    now_ns: u64,
    hosts: Vec<Host>,
    clients: Vec<Client>,
    network: Network,
    atlas: Atlas,
    checker: Checker<W>,
    trace: Trace,
    filter: Option<Filter>,
    /// Data files made in the place of lost ones.
    files_made: u64,
    losses: losses::Losses,
    /// Replicas that may halt, by what they halted with.
    halted: Vec<(u8, Fatal)>,
    may_halt: bool,
    /// Replicas that have halted, and whose processes are about to end.
    ending: Vec<u8>,
    /// Connections established that the replicas have yet to be told of: when, who, to whom.
    connecting: Vec<(u64, u8, u8)>,
    /// When each replica and each client has next something to do; the replicas first.
    due_ns: Vec<u64>,
    /// The view that each disk is known to hold durably.
    view_durable: [u32; REPLICAS_MAX],
    held_back: u64,
    /// Chance that a page from another replica is spoiled, in parts per million.
    spoiled_pages: u32,
    /// Answers spoiled.
    spoiled: u64,
    acts_at_this_time: u32,
    /// What the processes that have ended had counted.
    metrics: Vec<Metrics>,
    prng: Prng,
}

impl<W: Workload> Cluster<W> {
    /// A formatted cluster; no process runs yet. A readable one prints every event.
    pub fn new(options: ClusterOptions, prng: Prng, readable: bool) -> Self {
        let kind = NodeKind::new::<W::Machines, Strict>(&options.geometry);
        Self::of_kind(options, kind, prng, readable)
    }

    /// As [`Cluster::new`], of replicas that may break a rule.
    pub fn of_kind(
        options: ClusterOptions,
        kind: NodeKind,
        mut prng: Prng,
        readable: bool,
    ) -> Self {
        keep_dropped(MEMORY_KEPT_MAX);
        let cluster = prng.next_u128();
        let geometry = options.geometry;
        let limits = Limits::new(&geometry);
        let (replicas, clients) = (options.replica_count, options.client_count);
        let layout = Layout::new(options.geometry);
        let mut checker = Checker::new(cluster, replicas, W::new(limits, &mut prng.fork()));
        checker.limit_sessions(geometry.sessions_max);
        let hosts = (0..replicas)
            .map(|replica| Self::host(&options, kind, cluster, replica, &mut prng))
            .collect();
        let client = |_| Client::new(cluster, replicas, options.client, limits, prng.fork());
        let clients_all: Vec<Client> = (0..clients).map(client).collect();
        let client_due = clients_all.iter().map(Client::due_ns);
        let due_ns = (0..replicas).map(|_| u64::MAX).chain(client_due).collect();
        let network = Network::new(
            options.network,
            replicas.into(),
            clients.into(),
            prng.fork(),
        );
        Self {
            options,
            layout,
            id: cluster,
            now_ns: 0,
            hosts,
            clients: clients_all,
            network,
            atlas: Atlas::new(layout, replicas, options.storage, prng.fork()),
            checker,
            trace: Trace::new(readable),
            filter: None,
            files_made: 0,
            losses: losses::Losses::default(),
            halted: Vec::new(),
            may_halt: false,
            ending: Vec::new(),
            connecting: Vec::new(),
            due_ns,
            view_durable: [0; REPLICAS_MAX],
            held_back: 0,
            spoiled_pages: 0,
            spoiled: 0,
            acts_at_this_time: 0,
            metrics: Vec::new(),
            prng,
        }
    }

    fn host(
        options: &ClusterOptions,
        kind: NodeKind,
        cluster: u128,
        replica: u8,
        prng: &mut Prng,
    ) -> Host {
        let geometry = options.geometry;
        let file = FileId::of_random(file_of(cluster, replica, 0));
        let state = formatted(cluster, file, replica, options.replica_count, geometry);
        let replica_options = ReplicaOptions {
            cluster,
            replica,
            replica_count: options.replica_count,
            geometry,
            entropy: [0; 32],
        };
        // The one-write ack counts on whole sectors; tears below them belong to the other mode.
        let tear = match geometry.journal_ack() {
            JournalAck::Single => Tear::Sector,
            JournalAck::Both => Tear::Bytes512,
        };
        let disk = Disk::with_state(state, options.disk, prng.fork());
        let nodes = usize::from(options.replica_count) + usize::from(options.client_count);
        Host::new(
            replica_options,
            kind,
            disk,
            tear,
            nodes,
            options.turn_max_ns,
            prng.fork(),
        )
    }

    /// Runs until `until_ns`, or until `done` says so after an event. Whether it did.
    pub fn run(&mut self, until_ns: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        while let Some(next_ns) = self.next_ns().filter(|&next_ns| next_ns <= until_ns) {
            assert!(next_ns >= self.now_ns);
            if next_ns > self.now_ns {
                self.acts_at_this_time = 0;
            }
            self.acts_at_this_time += 1;
            assert!(self.acts_at_this_time < ACTS_MAX, "time stands still");
            self.now_ns = next_ns;
            self.act();
            if done(self) {
                return true;
            }
        }
        self.now_ns = self.now_ns.max(until_ns);
        false
    }

    fn next_ns(&self) -> Option<u64> {
        let local = self.due_ns.iter().copied().min().unwrap_or(u64::MAX);
        let connecting = self.connecting.iter().map(|entry| entry.0);
        let connecting = connecting.min().unwrap_or(u64::MAX);
        let arrival = self.network.next_arrival_ns().unwrap_or(u64::MAX);
        let next_ns = local.min(connecting).min(arrival);
        // A deadline that has passed is due now.
        (next_ns < u64::MAX).then(|| next_ns.max(self.now_ns))
    }

    /// A host has done something, or something was done to it: when it is due next may be another time.
    fn touched(&mut self, replica: u8) {
        self.due_ns[replica as usize] = self.hosts[replica as usize].next_ns();
    }

    /// Does one thing that is due.
    fn act(&mut self) {
        let now_ns = self.now_ns;
        if let Some(replica) = self.ending.pop()
            && self.is_up(replica)
        {
            self.crash(replica, Crash::Kill);
            if self.may_be_told(replica) {
                self.make_anew(replica);
            }
        }
        if let Some(packet) = self.network.arrive(now_ns) {
            return self.deliver(packet);
        }
        let due = self.due_ns.iter().position(|&due_ns| due_ns <= now_ns);
        if let Some(index) = due {
            return if index < self.hosts.len() {
                self.act_host(index as u8);
            } else {
                self.act_client(index - self.hosts.len());
            };
        }
        if let Some(index) = self.connecting.iter().position(|entry| entry.0 <= now_ns) {
            let (_, from, to) = self.connecting.swap_remove(index);
            self.note(from, 6, to.into(), || format!("is connected with {to}"));
            self.hosts[from as usize].step(now_ns, Event::Connected(to));
            self.settle(from);
        }
    }

    fn act_host(&mut self, replica: u8) {
        if self.complete_io(replica) {
            return self.settle(replica);
        }
        if let Some(acted) = self.hosts[replica as usize].act(self.now_ns) {
            let kind = match acted {
                Acted::Turn => 4,
                Acted::Tick => 5,
            };
            self.note(replica, kind, 0, || format!("{acted:?}"));
            return self.settle(replica);
        }
        // Its clock was set, or a pause is over: when it is due next is another time.
        self.touched(replica);
        if self.due_ns[replica as usize] <= self.now_ns {
            unreachable!("replica {replica} is due and has nothing to do");
        }
    }

    fn act_client(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let target = client.act(self.now_ns, &mut self.checker);
        self.due_ns[self.hosts.len() + index] = client.due_ns();
        let Some(target) = target else {
            return;
        };
        let bytes = client.outgoing();
        let header = header_of(bytes);
        let kind = header.command().expect("clients send what exists");
        let link = (Node::Client(index as u8), Node::Replica(target));
        let life = self.hosts[target as usize].life;
        if let Some(filter) = &mut self.filter
            && !filter(link.0, link.1, &header)
        {
            return;
        }
        self.network.send(self.now_ns, link, life, kind, bytes);
    }

    fn note(&mut self, replica: u8, kind: u64, detail: u64, text: impl FnOnce() -> String) {
        let numbers = [kind, replica.into(), detail, 0];
        self.trace.event(self.now_ns, numbers, || {
            format!("replica {replica}  {}", text())
        });
    }
}

/// The name of a replica's n-th data file: no two are alike. Drawn from no generator, so that a seed goes on as it did
/// whether a file is made or not.
fn file_of(cluster: u128, replica: u8, nth: u64) -> u128 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&cluster.to_le_bytes());
    bytes[16] = replica;
    bytes[24..].copy_from_slice(&nth.to_le_bytes());
    storage::checksum::identity(&bytes)
}

/// A disk as `format` leaves it.
pub fn formatted(
    cluster: u128,
    file: FileId,
    replica: u8,
    replica_count: u8,
    geometry: Geometry,
) -> DiskState {
    let format = Format::new(cluster, file, replica, replica_count, geometry);
    written(&format.expect("the options are possible"))
}

/// A disk as `recover` leaves it.
fn replacement(
    cluster: u128,
    file: FileId,
    replica: u8,
    replica_count: u8,
    geometry: Geometry,
) -> DiskState {
    let format = Format::replacement(cluster, file, replica, replica_count, geometry);
    written(&format.expect("there are enough others"))
}

/// Only what is not zero is written: a fresh disk is zero, and most of a file is its grid.
fn written(format: &Format) -> DiskState {
    let layout = *format.layout();
    let mut state = DiskState::new(layout.size);
    let mut bytes = vec![0; COPY_SIZE_MAX];
    let mut write = |at: u64, size: usize| {
        format.fill(at, &mut bytes[..size]);
        state.overwrite(at, &bytes[..size]);
    };
    for copy in 0..SUPERBLOCK_COPIES {
        write(Layout::superblock_at(copy), COPY_SIZE_MAX);
    }
    for slot in 0..layout.geometry.slots as usize {
        if slot % HEADERS_PER_SECTOR == 0 {
            write(layout.header_sector_at(slot), SECTOR_SIZE);
        }
        write(layout.prepare_at(slot), SECTOR_SIZE);
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::format::Step;

    #[test]
    fn a_formatted_disk_is_what_format_writes() {
        let geometry = Geometry {
            state_size: 2 << 20,
            slots: 32,
            pipeline_max: 4,
            ..Geometry::SMALL
        };
        let file = FileId::of_random(9);
        let format = Format::new(7, file, 1, 3, geometry).expect("possible");
        let disk = formatted(7, file, 1, 3, geometry);
        let (mut written, mut read) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        for step in format.steps(1 << 20) {
            if let Step::Write { at, size } = step {
                format.fill(at, &mut written[..size]);
                disk.read(at, &mut read[..size]);
                assert!(written[..size] == read[..size], "at {at}");
            }
        }
    }
}
