//! Servers on real sockets and files, with a stand-in for the replica that journals each request before it answers. The
//! allocator is sealed, so an allocation on an event loop aborts the test.

use rustix::fs::{Mode, OFlags};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use storage::SECTOR_SIZE;
use storage::buffer::{Message, MessagePool};
use storage::header::{Commit, HEADER_SIZE, Header, Ping, PingClient, Reply, Request, Typed};
use storage::io::{Buffer, IoDone, IoId, IoOwner, IoRequest};
use storage::layout::Geometry;
use storage::uring::Durability;
use viewstone::replica::{Effects, Event, Fatal, Metrics, Now, Peer};
use viewstone::sealed_allocator::SealedAllocator;
use viewstone::server::{
    Bounds, Hosted, Identity, ListenError, Listener, Running, Server, ServerError, ServerOptions,
};
use zerocopy::{FromBytes, IntoBytes};

#[global_allocator]
static ALLOCATOR: SealedAllocator = SealedAllocator;

const CLUSTER: u128 = 4711;
const IN_FLIGHT_MAX: usize = 64;
const HANG: Duration = Duration::from_secs(30);

fn identity(replica: u8, replica_count: u8) -> Identity {
    Identity {
        cluster: CLUSTER,
        replica,
        replica_count,
        geometry: Geometry::SMALL,
    }
}

/// Journals each request, then answers it; says hello to replicas and tells whom it has heard.
struct StandIn {
    identity: Identity,
    pool: MessagePool,
    /// Who waits for which write.
    waiting: [Option<(Peer, u32)>; IN_FLIGHT_MAX],
    heard: [bool; 6],
    told: mpsc::SyncSender<u8>,
    deadline_ns: u64,
    /// The request at which it panics.
    panic_at: u32,
    metrics: Metrics,
}

impl StandIn {
    fn reply(&self, to: Peer, request: u32, effects: &mut Effects) {
        let mut message = self.pool.take().expect("as many as requests");
        let mut header = Reply::new(CLUSTER, 0, self.identity.replica);
        (header.client, header.request) = (5, request);
        message.set_header(&header);
        effects.send(to, message.seal());
    }

    fn on_message(&mut self, from: Peer, message: Message, effects: &mut Effects) {
        if let Some(&request) = message.header().try_typed::<Request>() {
            assert_ne!(request.request, self.panic_at, "a panic, on demand");
            let index = self.waiting.iter().position(Option::is_none);
            let index = index.expect("has_room_for was asked");
            self.waiting[index] = Some((from, request.request));
            effects.io.push(IoRequest::Write {
                id: IoId {
                    owner: IoOwner::Journal,
                    index: index as u32,
                    generation: 0,
                },
                at: (index * (128 << 10)) as u64,
                size: storage::sector_ceil(request.frame.size as usize),
                buffer: Buffer::Message(message),
                durable: true,
            });
        } else if let Peer::Replica(replica) = from {
            if !std::mem::replace(&mut self.heard[usize::from(replica)], true) {
                self.told.try_send(replica).expect("room for all");
            }
        } else if message.header().try_typed::<PingClient>().is_some() {
            self.reply(from, 0, effects);
        }
    }
}

impl Hosted for StandIn {
    fn start(&mut self, _: Now, _: &mut Effects) {}

    fn finish_turn(&mut self, _: Now, _: &mut Effects) {}

    fn step(&mut self, now: Now, event: Event, effects: &mut Effects) {
        match event {
            Event::Message { from, message } => self.on_message(from, message, effects),
            Event::Io(IoDone { id, result, .. }) => {
                assert_eq!(result, Ok(()));
                let (to, request) = self.waiting[id.index as usize].take().expect("in flight");
                self.reply(to, request, effects);
            }
            Event::Connected(replica) => {
                let mut ping = Ping::new(CLUSTER, 0, self.identity.replica);
                (ping.replica_count, ping.file) = (self.identity.replica_count, 1);
                ping.fingerprint = self.identity.geometry.fingerprint(ping.replica_count);
                let mut message = self.pool.take().expect("free");
                message.set_header(&ping);
                effects.send(Peer::Replica(replica), message.seal());
            }
            Event::Closed(_) => {}
            Event::Tick => self.deadline_ns = now.monotonic_ns + 10_000_000,
        }
    }

    fn is_clock_synchronised(&self) -> bool {
        true
    }

    fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    fn has_work(&self) -> bool {
        false
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn has_room_for(&self, _: Peer, _: &Header) -> bool {
        self.waiting.iter().any(Option::is_none)
    }

    fn is_open(&self) -> bool {
        true
    }
}

fn file() -> OwnedFd {
    let directory = env!("CARGO_TARGET_TMPDIR");
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::DIRECT | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR);
    fd.expect("the target directory supports unnamed files and direct access")
}

fn bounds() -> Bounds {
    Bounds {
        sends_max: 64,
        io_max: IN_FLIGHT_MAX,
        peer_messages_max: 0,
        client_messages_max: 8,
        small_messages_max: IN_FLIGHT_MAX,
        memory: Vec::new(),
    }
}

struct Started {
    running: Running,
    address: SocketAddr,
    heard: mpsc::Receiver<u8>,
}

fn start(identity: Identity, listener: Listener, addresses: Vec<String>, panic_at: u32) -> Started {
    let (told, heard) = mpsc::sync_channel(16);
    let address = listener.address;
    let (ready, is_ready) = mpsc::sync_channel(1);
    let running = Running::spawn(format!("replica-{}", identity.replica), move |stop| {
        let mut options = ServerOptions::new(addresses);
        options.durability = Durability::LinkedSync;
        options.clients_max = 4;
        let build = |now: Now| {
            Ok::<_, Fatal>(StandIn {
                identity,
                pool: MessagePool::new(2 * IN_FLIGHT_MAX + 64, SECTOR_SIZE),
                waiting: [None; IN_FLIGHT_MAX],
                heard: [false; 6],
                told,
                deadline_ns: now.monotonic_ns,
                panic_at,
                metrics: Metrics::default(),
            })
        };
        let mut server = Server::new(
            identity,
            &options,
            &bounds(),
            listener,
            file(),
            &Arc::default(),
            build,
        )?;
        server.run(stop, |address| ready.try_send(address).expect("room"))
    });
    let running = running.expect("a thread");
    assert_eq!(is_ready.recv_timeout(HANG), Ok(address));
    Started {
        running,
        address,
        heard,
    }
}

fn start_solo(panic_at: u32) -> Started {
    let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    let addresses = vec![listener.address.to_string()];
    start(identity(0, 1), listener, addresses, panic_at)
}

fn bytes_of<T: Typed>(mut header: T, body: &[u8], edit: impl FnOnce(&mut T)) -> Vec<u8> {
    edit(&mut header);
    let mut header = Header::read_from_bytes(header.as_bytes()).expect("256 bytes");
    header.frame.size = (HEADER_SIZE + body.len()) as u32;
    header.seal(body);
    [header.as_bytes(), body].concat()
}

fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(HANG)).expect("settable");
    stream.set_nodelay(true).expect("settable");
    let hello = bytes_of(PingClient::new(CLUSTER, 0, 0), &[], |h| h.client = 5);
    stream.write_all(&hello).expect("connected");
    assert_eq!(reply(&mut stream).request, 0);
    stream
}

fn request(number: u32, size: usize) -> Vec<u8> {
    bytes_of(Request::new(CLUSTER, 0, 0), &vec![3; size], |h| {
        (h.client, h.request) = (5, number);
    })
}

fn reply(stream: &mut TcpStream) -> Reply {
    let mut bytes = [0; HEADER_SIZE];
    stream.read_exact(&mut bytes).expect("a reply");
    let header = Header::read_from_bytes(&bytes).expect("256 bytes");
    assert!(header.checksum_holds());
    *header.typed()
}

#[test]
fn requests_of_any_size_are_journalled_and_answered() {
    let server = start_solo(u32::MAX);
    let mut stream = connect(server.address);
    let sizes = [48, 3840, 3856, 16_384, 100_000, (128 << 10) - HEADER_SIZE];
    let mut bytes = Vec::new();
    for (number, size) in (1..).zip(sizes) {
        bytes.extend(request(number, size));
    }
    stream.write_all(&bytes).expect("connected");
    let mut numbers: Vec<_> = sizes.map(|_| reply(&mut stream).request).to_vec();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);

    let begin = Instant::now();
    for round in 0..100 {
        let numbers = (0..32).map(|i| round * 32 + i + 7);
        let bytes: Vec<_> = numbers.flat_map(|number| request(number, 48)).collect();
        stream.write_all(&bytes).expect("connected");
        for _ in 0..32 {
            reply(&mut stream);
        }
    }
    println!("3,200 requests, 32 at a time: {:?}", begin.elapsed());
    server.running.stop().expect("a clean stop");
}

#[test]
fn three_servers_find_each_other_and_again_after_one_restarts() {
    let mut listeners: Vec<_> = (0..3)
        .map(|_| Listener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let addresses: Vec<_> = listeners.iter().map(|l| l.address.to_string()).collect();
    let mut servers: Vec<_> = (0..3)
        .map(|replica| {
            let listener = listeners.remove(0);
            start(identity(replica, 3), listener, addresses.clone(), u32::MAX)
        })
        .collect();
    let heard = |server: &Started| {
        let mut two = [0, 1].map(|_| server.heard.recv_timeout(HANG).expect("a ping"));
        two.sort_unstable();
        two
    };
    let all = [0, 1, 2].map(|i| heard(&servers[i]));
    assert_eq!(all, [[1, 2], [0, 2], [0, 1]]);

    let last = servers.pop().expect("three");
    last.running.stop().expect("a clean stop");
    let listener = Listener::bind(&addresses[2]).expect("free again");
    let again = start(identity(2, 3), listener, addresses, u32::MAX);
    assert_eq!(heard(&again), [0, 1]);
    for server in servers.into_iter().chain([again]) {
        server.running.stop().expect("a clean stop");
    }
}

#[test]
fn bad_bytes_do_not_harm_a_server_or_its_other_clients() {
    let server = start_solo(u32::MAX);
    let mut good = connect(server.address);
    let mut wrong_sum = request(1, 480);
    *wrong_sum.last_mut().expect("not empty") ^= 1;
    let mut oversize = Commit::new(CLUSTER, 0, 0);
    oversize.frame.size = u32::MAX;
    oversize.frame.checksum = oversize.header().checksum_of_bytes();
    // The last is shorter than a header: its connection is closed once the time for a hello is over.
    let all = [
        &[0x5a; 5000],
        &wrong_sum[..],
        oversize.as_bytes(),
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in all {
        let mut bad = TcpStream::connect(server.address).expect("it listens");
        bad.set_read_timeout(Some(HANG)).expect("settable");
        bad.write_all(bytes).expect("connected");
        match bad.read(&mut [0; 16]) {
            Ok(size) => assert_eq!(size, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        good.write_all(&request(9, 48)).expect("connected");
        assert_eq!(reply(&mut good).request, 9);
    }
    server.running.stop().expect("a clean stop");
}

#[test]
fn a_port_in_use_is_named() {
    let first = Listener::bind("127.0.0.1:0").expect("a free port");
    let error = Listener::bind(&first.address.to_string()).expect_err("taken");
    assert!(matches!(error, ListenError::InUse { port, .. } if port == first.address.port()));
    assert!(error.to_string().contains("in use"));
    if let Ok(six) = Listener::bind("[::1]:0") {
        assert!(six.address.is_ipv6() && six.address.port() > 0);
    }
}

#[test]
fn a_wrong_address_list_is_refused() {
    let listener = Listener::bind("127.0.0.1:0").expect("a free port");
    let options = ServerOptions::new(vec!["127.0.0.1:1".to_owned()]);
    let build = |_: Now| -> Result<StandIn, Fatal> { panic!("not reached") };
    let server = Server::new(
        identity(0, 3),
        &options,
        &bounds(),
        listener,
        file(),
        &Arc::default(),
        build,
    );
    let error = server.err().expect("one address for three replicas");
    assert!(matches!(error, ServerError::Address(_)));
}

#[test]
fn a_panic_on_the_sealed_thread_is_told() {
    let server = start_solo(13);
    let mut stream = connect(server.address);
    stream.write_all(&request(13, 48)).expect("connected");
    let begin = Instant::now();
    while !server.running.is_finished() {
        assert!(begin.elapsed() < HANG);
        std::thread::yield_now();
    }
    assert_eq!(server.running.stop(), Err(ServerError::Panicked));
}
