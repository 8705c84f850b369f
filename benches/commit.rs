//! A commit through the pure replica: from a request in a buffer to the reply, with the key-value machine and checkpoints,
//! on a disk in memory that completes at once. What is left is the protocol's own work: gathering, sums, the journal's
//! tables, execution in pages, replies, and the copying and hashing of checkpoints.
//!
//! The sketch, for one put of 100 bytes per prepare on one replica: seal of the prepare 60 ns, of the redundant header's
//! sector nothing, of the reply 60 ns; two ordered maps (session, key) some 200 ns each; two sector copies of the disk in
//! memory 200 ns; a share of the checkpoint (three changed pages of 600 ns every 512 ops) nothing: about 1 us. Sixty-four
//! in a prepare share the first and the disk: about 0.5 us each. Three replicas execute thrice and copy messages between
//! them: three to four times as much.
//!
//! `cargo bench --bench commit`

mod common;

use common::MemoryDisk;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use storage::SECTOR_SIZE;
use storage::buffer::{Message, MessagePool};
use storage::format::Format;
use storage::header::{
    Command, HEADER_SIZE, ReplicaStatus, Reply, Request, SUB_HEADER_SIZE, SubHeader, Typed,
};
use storage::layout::Geometry;
use storage::superblock::FileId;
use viewstone::client::kv::operation as kv_operation;
use viewstone::constants;
use viewstone::engine::{RegisterReply, operation};
use viewstone::replica::{ConnectionId, Effects, Event, Now, Peer, Replica, ReplicaOptions, Send};
use viewstone::state_machine::kv::Kv;
use viewstone::state_machine::kv::wire::{Item, Operation};
use zerocopy::{FromBytes, IntoBytes};

type Machines = (Kv,);

const CLUSTER: u128 = 7;
const GEOMETRY: Geometry = Geometry {
    // The file is in memory here, three times.
    state_size: 64 << 20,
    ..Geometry::DEFAULT
};
const VALUE_SIZE: usize = 100;
/// Keys of a client.
const KEYS: u32 = 100;
/// Time between two turns. Paces checkpoints, no more.
const TURN_NS: u64 = 10_000;

struct Node {
    replica: Replica<Machines>,
    effects: Effects,
    disk: MemoryDisk,
    /// Where messages are received into.
    small: MessagePool,
    large: MessagePool,
}

struct Client {
    session: u64,
    request: u32,
    puts: u32,
}

/// Replicas and clients in one thread; messages arrive at once and in order.
struct Cluster {
    nodes: Vec<Node>,
    clients: Vec<Client>,
    now: Now,
    replies: usize,
    body: Vec<u8>,
}

impl Node {
    fn new(replica: u8, replica_count: u8) -> Self {
        let file = FileId::of_random(1 + u128::from(replica));
        let format = Format::new(CLUSTER, file, replica, replica_count, GEOMETRY);
        let format = format.expect("a valid geometry");
        let options = ReplicaOptions {
            cluster: CLUSTER,
            replica,
            replica_count,
            geometry: GEOMETRY,
            entropy: [replica + 1; 32],
        };
        let needs = Replica::<Machines>::buffer_needs(&GEOMETRY);
        let received = constants::requests_max(&GEOMETRY) + 64;
        let small = MessagePool::new(needs.small + received, SECTOR_SIZE);
        let large = MessagePool::new(needs.large + 64, GEOMETRY.message_size_max as usize);
        Self {
            replica: Replica::new(options, small.clone(), large.clone()),
            effects: Effects::new(
                Replica::<Machines>::sends_max(&GEOMETRY),
                Replica::<Machines>::io_max(&GEOMETRY),
            ),
            disk: MemoryDisk::formatted(&format),
            small,
            large,
        }
    }

    fn message(&self, size: usize) -> Message {
        let pool = if size <= SECTOR_SIZE {
            &self.small
        } else {
            &self.large
        };
        pool.take().expect("the pools are sized for all of it")
    }

    /// Completes disk requests until there are none.
    fn complete_io(&mut self, now: Now) -> bool {
        let mut any = false;
        while let Some(request) = self.effects.io.pop() {
            let done = self.disk.complete(request);
            self.replica.step(now, Event::Io(done), &mut self.effects);
            any = true;
        }
        assert!(self.effects.halt.is_none(), "{:?}", self.effects.halt);
        any
    }
}

impl Cluster {
    fn new(replica_count: u8, clients: usize) -> Self {
        let mut cluster = Self {
            nodes: (0..replica_count)
                .map(|replica| Node::new(replica, replica_count))
                .collect(),
            clients: Vec::new(),
            now: Now {
                monotonic_ns: 1,
                realtime_ns: 1_700_000_000_000_000_000,
            },
            replies: 0,
            body: Vec::new(),
        };
        for index in 0..cluster.nodes.len() {
            let (now, node) = (cluster.now, &mut cluster.nodes[index]);
            node.replica.start(now, &mut node.effects);
        }
        cluster.settle();
        for from in 0..replica_count {
            for to in (0..replica_count).filter(|&to| to != from) {
                let (now, node) = (cluster.now, &mut cluster.nodes[usize::from(from)]);
                node.replica
                    .step(now, Event::Connected(to), &mut node.effects);
            }
        }
        while cluster.nodes[0].replica.status() != ReplicaStatus::Normal {
            cluster.advance(constants::PING_STARTING_NS);
            cluster.settle();
        }
        for client in 0..clients {
            cluster.clients.push(Client {
                session: 0,
                request: 0,
                puts: 0,
            });
            cluster.send(client, operation::REGISTER);
            cluster.settle();
            assert_ne!(cluster.clients[client].session, 0, "registered");
        }
        cluster
    }

    fn advance(&mut self, nanoseconds: u64) {
        self.now.monotonic_ns += nanoseconds;
        self.now.realtime_ns += nanoseconds;
    }

    /// Sends a client's next request to the primary.
    fn send(&mut self, client: usize, operation: u16) {
        let Client {
            session, request, ..
        } = self.clients[client];
        let id = client as u128 + 1;
        let sub = SubHeader {
            client: id,
            session,
            request,
            size: self.body.len() as u32,
            operation,
            reserved: [0; 14],
        };
        let size = HEADER_SIZE + sub.padded_size();
        let mut header = Request::new(CLUSTER, 0, 0);
        header.frame.size = size as u32;
        (header.client, header.request) = (id, request);
        let (now, node) = (self.now, &mut self.nodes[0]);
        let mut message = node.message(size);
        message.set_header(&header);
        let body = message.body_mut();
        body[..SUB_HEADER_SIZE].copy_from_slice(sub.as_bytes());
        let (filled, rest) = body[SUB_HEADER_SIZE..].split_at_mut(self.body.len());
        filled.copy_from_slice(&self.body);
        rest.fill(0);
        let from = Peer::Client(ConnectionId {
            index: client as u32,
            generation: 0,
        });
        node.replica
            .step(now, Event::Message { from, message }, &mut node.effects);
    }

    fn put(&mut self, client: usize) {
        let it = &mut self.clients[client];
        it.puts += 1;
        it.request += 1;
        let mut key = *b"client__key_____";
        key[6..8].copy_from_slice(&(client as u16).to_be_bytes());
        key[12..].copy_from_slice(&(it.puts % KEYS).to_be_bytes());
        let value = [it.puts as u8; VALUE_SIZE];
        self.body.clear();
        let item = Item::Put {
            key: &key,
            value: &value,
        };
        item.encode(&mut self.body);
        self.send(client, kv_operation(Operation::Put));
    }

    /// Turns until nobody has anything left to do, heartbeats and resends apart.
    fn settle(&mut self) {
        loop {
            let mut busy = false;
            for index in 0..self.nodes.len() {
                self.advance(TURN_NS);
                let (now, node) = (self.now, &mut self.nodes[index]);
                busy |= node.complete_io(now);
                if node.replica.deadline_ns() <= now.monotonic_ns {
                    node.replica.step(now, Event::Tick, &mut node.effects);
                }
                node.replica.finish_turn(now, &mut node.effects);
                busy |= node.replica.has_work() || !node.effects.io.is_empty();
                while let Some(send) = self.nodes[index].effects.sends.pop_front() {
                    self.deliver(index as u8, &send);
                    busy = true;
                }
            }
            if !busy {
                return;
            }
        }
    }

    fn deliver(&mut self, from: u8, send: &Send) {
        match send.to {
            Peer::Client(connection) => {
                let header = send.message.header();
                assert_eq!(header.command(), Some(Command::Reply));
                let reply: &Reply = header.typed();
                let client = &mut self.clients[connection.index as usize];
                if reply.operation == operation::REGISTER {
                    let body = RegisterReply::read_from_bytes(send.message.body());
                    client.session = body.expect("a register's reply").session;
                }
                assert_eq!(reply.request, client.request);
                self.replies += 1;
            }
            Peer::Replica(to) => {
                let (now, node) = (self.now, &mut self.nodes[usize::from(to)]);
                let bytes = send.message.bytes();
                let mut message = node.message(bytes.len());
                message.buffer_mut()[..bytes.len()].copy_from_slice(bytes);
                message.zero_tail();
                let from = Peer::Replica(from);
                node.replica
                    .step(now, Event::Message { from, message }, &mut node.effects);
            }
        }
    }

    /// One put of each client, all in one turn; returns when all are answered.
    fn round(&mut self) {
        let expected = self.replies + self.clients.len();
        for client in 0..self.clients.len() {
            self.put(client);
        }
        self.settle();
        assert_eq!(self.replies, expected, "every put is answered");
    }
}

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit");
    group
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_millis(500))
        .sample_size(30);
    for replicas in [1, 3] {
        for clients in [1, 64] {
            let mut cluster = Cluster::new(replicas, clients);
            group.throughput(Throughput::Elements(clients as u64));
            let name = format!("{replicas} replicas, puts at once");
            group.bench_function(BenchmarkId::new(name, clients), |bencher| {
                bencher.iter(|| cluster.round());
            });
            let metrics = cluster.nodes[0].replica.metrics();
            let written: u64 = cluster.nodes.iter().map(|node| node.disk.written).sum();
            println!(
                "  {} requests in {} prepares, {} checkpoints, {} bytes written to each disk per request",
                metrics.requests,
                metrics.prepares,
                metrics.checkpoints,
                written / u64::from(replicas) / metrics.requests.max(1),
            );
        }
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
