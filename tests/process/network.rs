//! The network between real processes, as a test wants it: everyone reaches the others through a proxy in this process,
//! and each direction of each path can be cut, slowed or delayed by itself.
//!
//! A cut path is silent: its connections stay open, nothing is read and nothing passes on, not even the end of a
//! connection, until it is healed; then what was on the way arrives, late. New connections over a path that is cut in
//! either direction wait. So a cut looks like a cable that is pulled, and not like a process that ends.

#![allow(dead_code)] // each test file uses a part

use rustix::net::sockopt::set_socket_recv_buffer_size;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Who is at an end of a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Node {
    Replica(usize),
    /// A group of clients with paths of their own.
    Clients(usize),
}

/// How often a silent thread looks whether it is still needed, or still cut.
const LOOK: Duration = Duration::from_millis(2);

/// Bytes that one read takes, and so the grain of a slow path.
const CHUNK_SIZE: usize = 16 << 10;

/// Chunks on the way between the two ends of a direction.
const CHUNKS_MAX: usize = 16;

/// What the kernel may hold for the proxy, in bytes: a slow path must not hide behind a long queue.
const SOCKET_BUFFER_SIZE: usize = 64 << 10;

/// What happens to bytes that go one way between two nodes.
#[derive(Debug, Default)]
struct Direction {
    cut: AtomicBool,
    /// Bytes a second; zero: as fast as they come.
    rate: AtomicU64,
    delay_us: AtomicU64,
    /// Bytes that passed.
    passed: AtomicU64,
}

impl Direction {
    fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    fn heal(&self) {
        self.cut.store(false, Relaxed);
        self.rate.store(0, Relaxed);
        self.delay_us.store(0, Relaxed);
    }
}

/// A network of replicas and groups of clients. Dropping it ends its threads.
pub struct Network {
    /// What each replica is given as addresses.
    replicas: Vec<Vec<String>>,
    /// What each group of clients is given.
    clients: Vec<Vec<String>>,
    directions: BTreeMap<(Node, Node), Arc<Direction>>,
    stop: Arc<AtomicBool>,
}

impl Network {
    /// Paths between all replicas, and from each group of clients to all replicas, which listen at `addresses`.
    pub fn new(addresses: &[String], groups: usize) -> Self {
        let count = addresses.len();
        let mut this = Self {
            replicas: vec![addresses.to_vec(); count],
            clients: vec![addresses.to_vec(); groups],
            directions: BTreeMap::new(),
            stop: Arc::default(),
        };
        for (target, address) in addresses.iter().enumerate() {
            for source in (0..count).filter(|&source| source != target) {
                let place = this.path(Node::Replica(source), target, address);
                this.replicas[source][target] = place;
            }
            for group in 0..groups {
                let place = this.path(Node::Clients(group), target, address);
                this.clients[group][target] = place;
            }
        }
        this
    }

    /// The addresses for `start` of a replica: its own, and the proxies of the others.
    pub fn of_replica(&self, replica: usize) -> &[String] {
        &self.replicas[replica]
    }

    /// The addresses for a group of clients.
    pub fn of_clients(&self, group: usize) -> &[String] {
        &self.clients[group]
    }

    fn direction(&mut self, from: Node, to: Node) -> Arc<Direction> {
        Arc::clone(self.directions.entry((from, to)).or_default())
    }

    /// A listener whose connections go on to `address`. Its address.
    fn path(&mut self, source: Node, target: usize, address: &str) -> String {
        let target = Node::Replica(target);
        let ways = [
            self.direction(source, target),
            self.direction(target, source),
        ];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        // Connections inherit it, and their windows are made with it.
        set_socket_recv_buffer_size(&listener, SOCKET_BUFFER_SIZE).expect("a listener");
        listener.set_nonblocking(true).expect("a listener");
        let place = listener.local_addr().expect("it is bound").to_string();
        let (address, stop) = (address.to_owned(), Arc::clone(&self.stop));
        thread::spawn(move || accept(&listener, &address, &ways, &stop));
        place
    }

    fn each(&self, touches: impl Fn(Node, Node) -> bool, act: impl Fn(&Direction)) {
        let chosen = self
            .directions
            .iter()
            .filter(|((from, to), _)| touches(*from, *to));
        let mut count = 0;
        for (_, direction) in chosen {
            act(direction);
            count += 1;
        }
        assert!(count > 0, "there is such a path");
    }

    /// Nothing passes from one to the other; the other way is as it was.
    pub fn cut_way(&self, from: Node, to: Node) {
        let touches = |a, b| (a, b) == (from, to);
        self.each(touches, |it| it.cut.store(true, Relaxed));
    }

    /// Nothing passes between a replica and the other replicas; clients still reach it.
    pub fn isolate(&self, replica: usize) {
        let this = Node::Replica(replica);
        let other = |node| matches!(node, Node::Replica(it) if it != replica);
        let touches = |a, b| a == this && other(b) || b == this && other(a);
        self.each(touches, |it| it.cut.store(true, Relaxed));
    }

    /// What the replica says reaches no other replica.
    pub fn mute(&self, replica: usize) {
        let touches = |a, b| a == Node::Replica(replica) && matches!(b, Node::Replica(_));
        self.each(touches, |it| it.cut.store(true, Relaxed));
    }

    /// What other replicas say does not reach this one.
    pub fn deafen(&self, replica: usize) {
        let touches = |a, b| b == Node::Replica(replica) && matches!(a, Node::Replica(_));
        self.each(touches, |it| it.cut.store(true, Relaxed));
    }

    /// This group of clients reaches no other replica than this one.
    pub fn keep_with(&self, group: usize, replica: usize) {
        let this = Node::Clients(group);
        let other = |node| matches!(node, Node::Replica(it) if it != replica);
        let touches = |a, b| a == this && other(b) || b == this && other(a);
        self.each(touches, |it| it.cut.store(true, Relaxed));
    }

    /// Every path of the replica to others carries so many bytes a second, each way; zero: as many as come.
    pub fn slow(&self, replica: usize, bytes_per_second: u64) {
        let this = Node::Replica(replica);
        let touches = |a, b| {
            (a == this || b == this) && matches!((a, b), (Node::Replica(_), Node::Replica(_)))
        };
        self.each(touches, |it| it.rate.store(bytes_per_second, Relaxed));
    }

    /// Every path of the replica to others takes so much longer, each way.
    pub fn delay(&self, replica: usize, delay: Duration) {
        let this = Node::Replica(replica);
        let touches = |a, b| {
            (a == this || b == this) && matches!((a, b), (Node::Replica(_), Node::Replica(_)))
        };
        let delay = delay.as_micros() as u64;
        self.each(touches, |it| it.delay_us.store(delay, Relaxed));
    }

    /// No path is cut, slow or delayed any more.
    pub fn heal(&self) {
        self.each(|_, _| true, Direction::heal);
    }

    /// No path of the replica is cut, slow or delayed any more, whoever it was cut or slowed for.
    pub fn heal_replica(&self, replica: usize) {
        let touches = |a, b| a == Node::Replica(replica) || b == Node::Replica(replica);
        self.each(touches, Direction::heal);
    }

    /// Bytes that have passed from one to the other.
    pub fn passed(&self, from: Node, to: Node) -> u64 {
        self.directions[&(from, to)].passed.load(Relaxed)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn accept(
    listener: &TcpListener,
    address: &str,
    ways: &[Arc<Direction>; 2],
    stop: &Arc<AtomicBool>,
) {
    while !stop.load(Relaxed) {
        // The backlog holds those who knock while the path is cut.
        if ways.iter().any(|way| way.is_cut()) {
            thread::sleep(LOOK);
            continue;
        }
        match listener.accept() {
            // A replica that is down refuses, and whoever knocked sees its connection close at once.
            Ok((near, _)) => {
                if let Ok(far) = TcpStream::connect(address) {
                    connect(&near, &far, ways, stop);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
            Err(_) => return,
        }
    }
}

/// Carries bytes both ways, until both ways have ended.
fn connect(near: &TcpStream, far: &TcpStream, ways: &[Arc<Direction>; 2], stop: &Arc<AtomicBool>) {
    for (way, from, to) in [(&ways[0], near, far), (&ways[1], far, near)] {
        from.set_nonblocking(false).expect("a socket");
        from.set_nodelay(true).expect("a socket");
        from.set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a socket");
        let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor is free");
        let (chunks, arrivals) = sync_channel(CHUNKS_MAX);
        let (source, origin, target) = (clone(from), clone(from), clone(to));
        let (reading, writing) = (Arc::clone(way), Arc::clone(way));
        let (stop_reading, stop_writing) = (Arc::clone(stop), Arc::clone(stop));
        thread::spawn(move || read(source, &reading, &chunks, &stop_reading));
        thread::spawn(move || write(&origin, target, &writing, &arrivals, &stop_writing));
    }
}

type Chunk = (Instant, Vec<u8>);

fn read(mut source: TcpStream, way: &Direction, chunks: &SyncSender<Chunk>, stop: &AtomicBool) {
    let mut bytes = vec![0; CHUNK_SIZE];
    while !stop.load(Relaxed) {
        if way.is_cut() {
            thread::sleep(LOOK);
            continue;
        }
        // A slow path takes small pieces, so that its pauses are short.
        let size = if way.rate.load(Relaxed) > 0 {
            1024
        } else {
            CHUNK_SIZE
        };
        match source.read(&mut bytes[..size]) {
            Ok(0) => return,
            Ok(count) => {
                if chunks
                    .send((Instant::now(), bytes[..count].to_vec()))
                    .is_err()
                {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn write(
    origin: &TcpStream,
    mut target: TcpStream,
    way: &Direction,
    arrivals: &Receiver<Chunk>,
    stop: &AtomicBool,
) {
    loop {
        let chunk = arrivals.recv_timeout(Duration::from_millis(50));
        while way.is_cut() && !stop.load(Relaxed) {
            thread::sleep(LOOK);
        }
        if stop.load(Relaxed) {
            break;
        }
        match chunk {
            Err(RecvTimeoutError::Timeout) => {}
            // The other end has closed; whoever is here learns it when the path is whole.
            Err(RecvTimeoutError::Disconnected) => break,
            Ok((read_at, bytes)) => {
                let delay = Duration::from_micros(way.delay_us.load(Relaxed));
                thread::sleep((read_at + delay).saturating_duration_since(Instant::now()));
                let rate = way.rate.load(Relaxed);
                if rate > 0 {
                    thread::sleep(Duration::from_secs_f64(bytes.len() as f64 / rate as f64));
                }
                way.passed.fetch_add(bytes.len() as u64, Relaxed);
                if target.write_all(&bytes).is_err() {
                    let _ = origin.shutdown(Shutdown::Both);
                    break;
                }
            }
        }
    }
    let _ = target.shutdown(Shutdown::Write);
}
