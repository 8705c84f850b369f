//! What a script does to a cluster, and asks of it.

use super::{Cluster, Filter, file_of, formatted, replacement};
use crate::atlas::{Atlas, Zone};
use crate::checker::Checker;
use crate::client::Client;
use crate::clock::Clock;
use crate::disk::{Disk, DiskState};
use crate::host::{Crash, Host, Node as Process};
use crate::network::{Network, NetworkOptions, Node};
use crate::swarm::Pressure;
use crate::trace::Trace;
use crate::workload::Workload;
use storage::header::ReplicaStatus;
use storage::layout::Layout;
use storage::superblock::FileId;
use viewstone::replica::{Fatal, Metrics, Progress};

/// How a lost file is made anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MadeBy {
    /// `viewstone format`: the file finds out for itself that it replaces one.
    Format,
    /// `viewstone recover`.
    Recover,
}

impl<W: Workload> Cluster<W> {
    /// Virtual time since the start, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Replicas of the cluster.
    pub fn replica_count(&self) -> u8 {
        self.options.replica_count
    }

    /// Where everything lies in a data file.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What has been checked, and the history.
    pub fn checker(&self) -> &Checker<W> {
        &self.checker
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The network, to cut, mend and clog links.
    pub fn network_mut(&mut self) -> &mut Network {
        &mut self.network
    }

    /// The trace.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The clients.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// What is damaged on which disk.
    pub fn atlas(&self) -> &Atlas {
        &self.atlas
    }

    /// Messages that had to wait for room in a replica.
    pub fn held_back(&self) -> u64 {
        self.held_back
    }

    /// A replica; none while it is down.
    pub fn replica(&self, replica: u8) -> Option<&dyn Process> {
        let process = self.hosts[replica as usize].process.as_ref();
        process.map(|process| &*process.replica)
    }

    /// What a replica is doing; none while it is down.
    pub fn progress(&self, replica: u8) -> Option<Progress> {
        self.replica(replica)
            .map(super::super::host::Node::progress)
    }

    /// Whether a replica's process runs.
    pub fn is_up(&self, replica: u8) -> bool {
        self.hosts[replica as usize].process.is_some()
    }

    /// The replica that leads the latest view in which one is normal; none if nobody leads.
    pub fn primary(&self) -> Option<u8> {
        let leads = |&replica: &u8| {
            self.progress(replica).filter(|progress| {
                let leader = progress.view % u32::from(self.options.replica_count);
                progress.status == ReplicaStatus::Normal && leader == u32::from(replica)
            })
        };
        (0..self.options.replica_count)
            .filter(|replica| leads(replica).is_some())
            .max_by_key(|replica| leads(replica).map(|progress| progress.view))
    }

    /// What all processes have counted, over all their lives.
    pub fn metrics(&self) -> impl Iterator<Item = &Metrics> {
        let living = (0..self.options.replica_count).filter_map(|replica| self.replica(replica));
        self.metrics
            .iter()
            .chain(living.map(super::super::host::Node::metrics))
    }

    /// Starts a replica's process; connections with the others come up soon after.
    pub fn start(&mut self, replica: u8) {
        self.note(replica, 1, 0, || "starts".to_string());
        self.hosts[replica as usize].start(self.now_ns);
        for other in 0..self.options.replica_count {
            if other != replica && self.is_up(other) {
                self.connect(replica, other);
            }
        }
        self.settle(replica);
    }

    /// Two replicas that are up have a connection with each other soon, and are told so.
    pub fn connect(&mut self, one: u8, other: u8) {
        for (from, to) in [(one, other), (other, one)] {
            let due_ns = self.now_ns + self.prng.exponential(1_000_000);
            self.connecting.push((due_ns, from, to));
        }
    }

    /// Ends a replica's process.
    pub fn crash(&mut self, replica: u8, crash: Crash) {
        self.note(replica, 2, crash as u64, || format!("ends by {crash:?}"));
        let process = self.replica(replica).expect("only a living process ends");
        let metrics = *process.metrics();
        self.metrics.push(metrics);
        let host = &mut self.hosts[replica as usize];
        host.crash(crash);
        self.atlas.on_crash(replica, &mut host.disk);
        self.checker.on_crash(replica);
        self.connecting
            .retain(|&(_, from, to)| from != replica && to != replica);
        self.touched(replica);
    }

    /// A replica's process gets no events until then; then it gets all that its links could hold.
    pub fn pause(&mut self, replica: u8, until_ns: u64) {
        self.note(replica, 9, until_ns, || "is paused".to_string());
        self.hosts[replica as usize].pause(until_ns);
        self.touched(replica);
    }

    /// Whether a replica's process is paused.
    pub fn is_paused(&self, replica: u8) -> bool {
        self.hosts[replica as usize].paused_until_ns() > self.now_ns
    }

    /// Changes how messages sent from now on are treated.
    pub fn set_network(&mut self, options: NetworkOptions) {
        self.network.set_options(options);
    }

    /// Cuts the link from one replica to another, in this direction only; or mends it.
    pub fn set_cut(&mut self, from: u8, to: u8, cut: bool) {
        let link = (Node::Replica(from), Node::Replica(to));
        if self.network.is_cut(link.0, link.1) != cut {
            let word = if cut { "is cut off from" } else { "reaches" };
            self.note(to, 10, u64::from(from) << 1 | u64::from(cut), || {
                format!("{word} {from}")
            });
            self.network.set_cut(link.0, link.1, cut);
        }
    }

    /// Cuts a replica off from all others, and them from it; clients still reach it.
    pub fn isolate(&mut self, replica: u8) {
        for other in (0..self.options.replica_count).filter(|&other| other != replica) {
            self.set_cut(replica, other, true);
            self.set_cut(other, replica, true);
        }
    }

    /// Mends every link.
    pub fn mend(&mut self) {
        self.note(0, 11, 0, || "all links are mended".to_string());
        self.network.mend();
    }

    /// Loses every message of which `filter` says no, from now on.
    pub fn set_filter(&mut self, filter: Option<Filter>) {
        self.filter = filter;
    }

    /// A replica's clocks, to set them.
    pub fn clock_mut(&mut self, replica: u8) -> &mut Clock {
        self.due_ns[replica as usize] = self.now_ns; // it is looked at what is due by the new clock
        &mut self.hosts[replica as usize].clock
    }

    /// From now on a replica may halt: its process ends. What those that did halted with.
    pub fn let_halt(&mut self) -> &[(u8, Fatal)] {
        self.may_halt = true;
        &self.halted
    }

    /// The disk of a replica that is down is lost, and another is there, with a new data file.
    pub fn lose_disk(&mut self, replica: u8, made_by: MadeBy) {
        self.files_made += 1;
        let file = FileId::of_random(file_of(self.id, replica, self.files_made));
        let make = match made_by {
            MadeBy::Format => formatted,
            MadeBy::Recover => replacement,
        };
        let (count, geometry) = (self.options.replica_count, self.options.geometry);
        let state = make(self.id, file, replica, count, geometry);
        self.put_back_disk(replica, state);
    }

    /// The disk of a replica that is down holds from now on what it held once, or something else: what it has promised since
    /// is lost.
    pub fn put_back_disk(&mut self, replica: u8, state: DiskState) {
        assert!(!self.is_up(replica));
        self.note(replica, 13, 0, || "has lost its disk".to_string());
        self.hosts[replica as usize].disk.replace(state);
        self.atlas.lose(replica);
        self.checker.on_lost(replica);
        self.view_durable[replica as usize] = 0;
    }

    /// A replica's checkpoints are made wrong: they are not held against those of the others.
    pub fn distrust(&mut self, replica: u8) {
        self.checker.distrust(replica);
    }

    /// The cluster's id.
    pub fn id(&self) -> u128 {
        self.id
    }

    /// A replica's disk, to look at what it holds or to change it behind the atlas's back.
    pub fn disk_mut(&mut self, replica: u8) -> &mut Disk {
        &mut self.hosts[replica as usize].disk
    }

    /// Lets a sector of a replica's disk decay, if the atlas allows it. Whether it did.
    pub fn decay(&mut self, replica: u8) -> bool {
        let running = self.is_up(replica);
        let host = &mut self.hosts[replica as usize];
        let zone = self.atlas.decay(replica, &mut host.disk, running);
        if let Some(zone) = zone {
            self.note(replica, 12, 0, || format!("a sector decays: {zone:?}"));
        }
        zone.is_some()
    }

    /// A script has damaged what lies in a zone of a replica's disk: the checkers do not hold it against the replica.
    pub fn damaged(&mut self, replica: u8, zone: Zone) {
        self.atlas.mark(replica, zone, false);
    }

    /// Clients press for more than usual, from the beginning.
    pub fn press(&mut self, pressure: Pressure) {
        if pressure.space {
            self.checker.limit_space(&self.options.geometry);
        }
        self.checker.workload().press(pressure);
    }

    /// So many of a million answers with pages are spoiled from now on.
    pub fn spoil_pages(&mut self, chance: u32) {
        self.spoiled_pages = chance;
    }

    /// Answers with pages that were spoiled.
    pub fn spoiled(&self) -> u64 {
        self.spoiled
    }

    /// Looks at all grids: what was damaged may have been made good.
    pub fn survey_grids(&mut self) {
        for (replica, host) in self.hosts.iter().enumerate() {
            self.atlas.survey(replica as u8, host.disk.state());
        }
    }

    /// Nothing new is damaged from now on.
    pub fn stop_damage(&mut self) {
        self.atlas.stop();
    }

    /// Clients begin nothing new; or they do again.
    pub fn set_draining(&mut self, draining: bool) {
        let now_ns = self.now_ns;
        for (index, client) in self.clients.iter_mut().enumerate() {
            client.set_draining(draining, now_ns);
            self.due_ns[self.hosts.len() + index] = client.due_ns();
        }
    }

    /// Runs for so long, in nanoseconds.
    pub fn run_for(&mut self, duration_ns: u64) {
        let until_ns = self.now_ns + duration_ns;
        self.run(until_ns, |_| false);
    }

    /// Whether nobody waits for an answer, and these replicas serve or follow in one view, have executed all of the
    /// history, and miss nothing of it.
    pub fn has_converged(&self, replicas: &[u8]) -> bool {
        let waiting = self.clients.iter().any(Client::is_waiting) || !self.checker.is_settled();
        let head = self.checker.head();
        !waiting
            && replicas.iter().all(|&replica| {
                self.replica(replica).is_some_and(|process| {
                    let progress = process.progress();
                    progress.commit_min == head
                        && progress.head_op == head
                        && progress.status == ReplicaStatus::Normal
                        && process.is_whole()
                })
            })
    }

    /// Whether no disk request is in flight and no turn under way.
    pub fn is_at_rest(&self) -> bool {
        self.hosts.iter().all(|host| {
            let turning = host
                .process
                .as_ref()
                .is_some_and(|process| process.turn_due_ns.is_some());
            !turning && host.disk.in_flight() == 0
        })
    }

    /// At rest, every message buffer is back in its pool.
    pub fn check_quiescence(&self) {
        for (replica, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else {
                continue;
            };
            for pool in [&process.small, &process.large] {
                assert_eq!(
                    pool.free(),
                    pool.count(),
                    "replica {replica} leaks message buffers"
                );
            }
        }
    }
}
