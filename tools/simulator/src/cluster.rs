//! A cluster and its clients: the event loop of the simulation.
//!
//! Everything happens in one thread, at one virtual time, in an order that the seed decides. After each event the
//! effects are carried out, and the checkers look at the replica that took it.

use crate::checker::Checker;
use crate::client::{Client, ClientOptions};
use crate::disk::{Disk, DiskSpeed, DiskState, Tear};
use crate::host::{Acted, Crash, Host};
use crate::network::{Network, NetworkOptions, Node, Packet};
use crate::prng::Prng;
use crate::trace::Trace;
use crate::workload::Workload;
use storage::format::{Format, Step};
use storage::header::{Command, HEADER_SIZE, Header, PrepareOk, ReplicaStatus};
use storage::io::{Buffer, IoRequest};
use storage::layout::{Geometry, JournalAck};
use viewstone::replica::{ConnectionId, Event, Peer, Progress, ReplicaOptions};
use viewstone::state_machine::Limits;
use zerocopy::FromBytes;

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
    /// How clients behave.
    pub client: ClientOptions,
    /// Time from an event to the end of its turn, at most, in nanoseconds.
    pub turn_max_ns: u64,
}

/// Things done at one time that are taken for time standing still.
const ACTS_MAX: u32 = 1_000_000;

/// See the module's description.
pub struct Cluster<W: Workload> {
    options: ClusterOptions,
    id: u128,
    now_ns: u64,
    hosts: Vec<Host<W::Machines>>,
    clients: Vec<Client>,
    network: Network,
    checker: Checker<W>,
    trace: Trace,
    /// Connections established that the replicas have yet to be told of: when, who, to whom.
    connecting: Vec<(u64, u8, u8)>,
    held_back: u64,
    acts_at_this_time: u32,
    prng: Prng,
}

impl<W: Workload> Cluster<W> {
    /// A formatted cluster; no process runs yet.
    pub fn new(options: ClusterOptions, mut prng: Prng, readable: bool) -> Self {
        let cluster = prng.next_u128();
        let limits = Limits::new(&options.geometry);
        let (replicas, clients) = (options.replica_count, options.client_count);
        let nodes = usize::from(replicas) + usize::from(clients);
        let workload = W::new(limits, &mut prng.fork());
        let hosts = (0..replicas)
            .map(|replica| Self::host(&options, cluster, replica, nodes, &mut prng))
            .collect();
        let client = |_| Client::new(cluster, replicas, options.client, limits, prng.fork());
        let clients_all = (0..clients).map(client).collect();
        Self {
            options,
            id: cluster,
            now_ns: 0,
            hosts,
            clients: clients_all,
            network: Network::new(
                options.network,
                replicas.into(),
                clients.into(),
                prng.fork(),
            ),
            checker: Checker::new(cluster, replicas, workload),
            trace: Trace::new(readable),
            connecting: Vec::new(),
            held_back: 0,
            acts_at_this_time: 0,
            prng,
        }
    }

    fn host(
        options: &ClusterOptions,
        cluster: u128,
        replica: u8,
        nodes: usize,
        prng: &mut Prng,
    ) -> Host<W::Machines> {
        let geometry = options.geometry;
        let state = formatted(cluster, replica, options.replica_count, geometry);
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
        Host::new(
            replica_options,
            disk,
            tear,
            nodes,
            options.turn_max_ns,
            prng.fork(),
        )
    }

    /// Virtual time since the start, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// What has been checked, and the history.
    pub fn checker(&self) -> &Checker<W> {
        &self.checker
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The trace.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host<W::Machines>] {
        &self.hosts
    }

    /// The clients.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Messages that had to wait for room in a replica.
    pub fn held_back(&self) -> u64 {
        self.held_back
    }

    /// What a replica is doing; none while it is down.
    pub fn progress(&self, replica: u8) -> Option<Progress> {
        let process = self.hosts[replica as usize].process.as_ref()?;
        Some(process.replica.progress())
    }

    /// Whether a replica's process runs.
    pub fn is_up(&self, replica: u8) -> bool {
        self.hosts[replica as usize].process.is_some()
    }

    /// Starts a replica's process; connections with the others come up soon after.
    pub fn start(&mut self, replica: u8) {
        self.note(replica, 1, 0, || "starts".to_string());
        self.hosts[replica as usize].start(self.now_ns);
        for other in 0..self.options.replica_count {
            if other != replica && self.is_up(other) {
                for (from, to) in [(replica, other), (other, replica)] {
                    let due_ns = self.now_ns + self.prng.exponential(1_000_000);
                    self.connecting.push((due_ns, from, to));
                }
            }
        }
        self.settle(replica);
    }

    /// Ends a replica's process.
    pub fn crash(&mut self, replica: u8, crash: Crash) {
        self.note(replica, 2, crash as u64, || format!("ends by {crash:?}"));
        self.hosts[replica as usize].crash(crash);
        self.checker.on_crash(replica);
        self.connecting
            .retain(|&(_, from, to)| from != replica && to != replica);
    }

    /// The network behaves, and clients begin nothing new.
    pub fn heal(&mut self) {
        self.network.set_options(NetworkOptions::GOOD);
        self.clients.iter_mut().for_each(Client::drain);
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
        self.now_ns = until_ns;
        false
    }

    fn next_ns(&self) -> Option<u64> {
        let hosts = self.hosts.iter().map(Host::next_ns);
        let clients = self.clients.iter().map(Client::due_ns);
        let connecting = self.connecting.iter().map(|entry| entry.0);
        let local = hosts.chain(clients).chain(connecting).min();
        let next_ns = local
            .into_iter()
            .chain(self.network.next_arrival_ns())
            .min();
        // A deadline that has passed is due now.
        next_ns
            .filter(|&next_ns| next_ns < u64::MAX)
            .map(|next_ns| next_ns.max(self.now_ns))
    }

    /// Does one thing that is due.
    fn act(&mut self) {
        let now_ns = self.now_ns;
        if let Some(packet) = self.network.arrive(now_ns) {
            return self.deliver(packet);
        }
        for replica in 0..self.options.replica_count {
            if let Some(acted) = self.hosts[replica as usize].act(now_ns) {
                let (kind, detail) = match acted {
                    Acted::Io(id) => (3, id),
                    Acted::Turn => (4, 0),
                    Acted::Tick => (5, 0),
                };
                self.note(replica, kind, detail, || format!("{acted:x?}"));
                return self.settle(replica);
            }
        }
        if let Some(index) = self.connecting.iter().position(|entry| entry.0 <= now_ns) {
            let (_, from, to) = self.connecting.swap_remove(index);
            self.note(from, 6, to.into(), || format!("is connected with {to}"));
            self.hosts[from as usize].step(now_ns, Event::Connected(to));
            return self.settle(from);
        }
        for index in 0..self.clients.len() {
            if self.clients[index].due_ns() <= now_ns {
                return self.act_client(index);
            }
        }
    }

    fn act_client(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(target) = client.act(self.now_ns, &mut self.checker) else {
            return;
        };
        let bytes = client.outgoing();
        let kind = header_of(bytes)
            .command()
            .expect("clients send what exists");
        let link = (Node::Client(index as u8), Node::Replica(target));
        let life = self.hosts[target as usize].life;
        self.network.send(self.now_ns, link, life, kind, bytes);
    }

    fn note(&mut self, replica: u8, kind: u64, detail: u64, text: impl FnOnce() -> String) {
        let numbers = [kind, replica.into(), detail, 0];
        self.trace.event(self.now_ns, numbers, || {
            format!("replica {replica}  {}", text())
        });
    }

    fn deliver(&mut self, packet: Packet) {
        let header = header_of(&packet.bytes);
        let numbers = [
            7,
            self.network.index(packet.from) as u64,
            self.network.index(packet.to) as u64,
            header.frame.checksum as u64,
        ];
        self.trace
            .event(self.now_ns, numbers, || describe(&packet, &header));
        match packet.to {
            Node::Client(index) => {
                let client = &mut self.clients[index as usize];
                client.on_message(self.now_ns, &packet.bytes, &mut self.checker);
                self.network.recycle(packet);
            }
            Node::Replica(replica) => {
                // Connections end with the process at either end.
                let alive = self.is_up(replica) && self.life_of(&packet) == packet.connection;
                if !alive {
                    return self.network.recycle(packet);
                }
                let from = self.network.index(packet.from);
                let host = &mut self.hosts[replica as usize];
                host.held[from].push_back(packet);
                host.held_count += 1;
                self.deliver_held(replica);
            }
        }
    }

    /// What a packet's connection must be to be alive: the lives of both ends.
    fn life_of(&self, packet: &Packet) -> u64 {
        let life = |node| match node {
            Node::Replica(replica) => self.hosts[replica as usize].life,
            Node::Client(_) => 0,
        };
        life(packet.from) + life(packet.to)
    }

    /// Gives a replica the messages that it has room for; the others of the same sender wait behind the first that it
    /// has none for.
    fn deliver_held(&mut self, replica: u8) {
        for from in 0..self.hosts[replica as usize].held.len() {
            while let Some(packet) = self.hosts[replica as usize].held[from].pop_front() {
                let Some(event) = self.event_of(replica, &packet) else {
                    let host = &mut self.hosts[replica as usize];
                    host.held[from].push_front(packet);
                    self.held_back += 1;
                    break;
                };
                let host = &mut self.hosts[replica as usize];
                host.held_count -= 1;
                host.step(self.now_ns, event);
                self.network.recycle(packet);
                self.carry_out(replica);
            }
        }
    }

    /// The event of a message: checked as what comes from outside is, and copied into a buffer of the replica; none if it
    /// must wait.
    fn event_of(&self, replica: u8, packet: &Packet) -> Option<Event> {
        let process = self.hosts[replica as usize].process.as_ref()?;
        let header = header_of(&packet.bytes);
        let size_max = self.options.geometry.message_size_max as usize;
        header
            .check(self.id, size_max)
            .expect("what is sent passes the receiver's check");
        let from = match packet.from {
            Node::Replica(replica) => Peer::Replica(replica),
            Node::Client(client) => Peer::Client(ConnectionId {
                index: client.into(),
                generation: 0,
            }),
        };
        if !process.replica.has_room_for(from, &header) {
            return None;
        }
        let pool = if packet.bytes.len() <= process.small.message_size() {
            &process.small
        } else {
            &process.large
        };
        let mut message = pool.take()?;
        message.buffer_mut()[..packet.bytes.len()].copy_from_slice(&packet.bytes);
        header
            .check_body(message.body())
            .expect("no byte changes on the way");
        message.zero_tail();
        Some(Event::Message { from, message })
    }

    /// After an event of a replica: its effects, the checks, and the messages that may have room now.
    fn settle(&mut self, replica: u8) {
        self.carry_out(replica);
        if self.hosts[replica as usize].held_count > 0 {
            self.deliver_held(replica);
        }
    }

    fn carry_out(&mut self, replica: u8) {
        let host = &mut self.hosts[replica as usize];
        let life = host.life;
        let process = host.process.as_mut().expect("it has just taken an event");
        self.checker
            .on_progress(replica, &process.replica.progress());
        if let Some(fatal) = &process.effects.halt {
            panic!("replica {replica} halts: {fatal}");
        }
        while let Some(request) = process.effects.io.pop() {
            if let IoRequest::Write {
                buffer: Buffer::Shared(message),
                ..
            } = &request
            {
                self.checker
                    .on_journal_write(message.header(), message.body());
            }
            host.disk.submit(self.now_ns, request);
        }
        while let Some(send) = self.hosts[replica as usize].take_send() {
            let header = send.message.header();
            let command = header.command().expect("replicas send what exists");
            if let Some(ok) = header.try_typed::<PrepareOk>() {
                self.checker.on_prepare_ok(replica, ok);
            }
            let (to, other_life) = match send.to {
                Peer::Replica(to) => (Node::Replica(to), self.hosts[to as usize].life),
                Peer::Client(connection) => (Node::Client(connection.index as u8), 0),
            };
            let link = (Node::Replica(replica), to);
            let bytes = send.message.bytes();
            self.network
                .send(self.now_ns, link, life + other_life, command, bytes);
        }
    }

    /// Whether every replica that is up serves or follows, has executed all of the history and has nothing left to do;
    /// replicas that lag further than journals reach are excepted: only state sync will bring them back.
    pub fn has_converged(&self) -> bool {
        let waiting = self.clients.iter().any(Client::is_waiting) || !self.checker.is_settled();
        let head = self.checker.head();
        !waiting
            && (0..self.options.replica_count).all(|replica| {
                self.progress(replica).is_some_and(|progress| {
                    let even = progress.commit_min == head && progress.head_op == head;
                    match progress.status {
                        ReplicaStatus::Normal => even,
                        status => status == ReplicaStatus::Syncing,
                    }
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

    /// At rest, every message buffer is back in its pool. A replica that lags for good may keep what it has fetched.
    pub fn check_quiescence(&self) {
        for (replica, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else {
                continue;
            };
            if process.replica.progress().status == ReplicaStatus::Syncing {
                continue; // it may keep what it has fetched
            }
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

/// A disk as `format` leaves it.
pub fn formatted(cluster: u128, replica: u8, replica_count: u8, geometry: Geometry) -> DiskState {
    let format = Format::new(cluster, replica, replica_count, geometry);
    let format = format.expect("the options are possible");
    let mut state = DiskState::new(format.layout().size);
    let mut bytes = vec![0; 1 << 20];
    for step in format.steps(bytes.len()) {
        if let Step::Write { at, size } = step {
            format.fill(at, &mut bytes[..size]);
            state.overwrite(at, &bytes[..size]);
        }
    }
    state
}

fn header_of(bytes: &[u8]) -> Header {
    Header::read_from_bytes(&bytes[..HEADER_SIZE]).expect("a message has a header")
}

fn describe(packet: &Packet, header: &Header) -> String {
    let what = match header.command() {
        Some(Command::Prepare) => {
            let prepare = header.typed::<storage::header::Prepare>();
            format!("prepare op {} commit {}", prepare.op, prepare.commit)
        }
        Some(Command::PrepareOk) => format!("prepare_ok op {}", header.typed::<PrepareOk>().op),
        Some(Command::Commit) => {
            let commit = header.typed::<storage::header::Commit>();
            format!("commit {} round {}", commit.commit, commit.round)
        }
        Some(command) => format!("{command:?}").to_lowercase(),
        None => "garbage".to_string(),
    };
    format!(
        "{:?} -> {:?}  {what}, {} bytes",
        packet.from, packet.to, header.frame.size
    )
}
