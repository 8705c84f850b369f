//! The bus over pairs of local sockets, with a clock of the test's own.

use super::*;
use crate::server::Identity;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use storage::buffer::Message;
use storage::header::{
    Command, Commit, HEADER_SIZE, Ping, PingClient, Prepare, PrepareKind, Request, Typed,
};
use storage::layout::Geometry;
use storage::uring::{Done, Durability, UringOptions, Wait};
use zerocopy::{FromBytes, IntoBytes};

const CLUSTER: u128 = 77;
const SECOND: u64 = 1_000_000_000;

struct Harness {
    bus: Bus,
    uring: Uring,
    now_ns: u64,
    has_room: bool,
    received: Vec<Received>,
}

fn identity() -> Identity {
    Identity {
        cluster: CLUSTER,
        replica: 2,
        replica_count: 3,
        geometry: Geometry::SMALL,
    }
}

impl Harness {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut BusOptions)) -> Self {
        let mut options = BusOptions {
            clients_max: 2,
            peer_queue_max: 4,
            client_queue_max: 2,
            large_queue_max: 8,
            peer_large: 6,
            client_large: 2,
            small: 200,
            seed: 1,
        };
        change(&mut options);
        let uring = Uring::new(&UringOptions {
            entries: 64,
            disk_max: 1,
            sockets_max: options.connections(3),
            durability: Durability::WriteDsync,
            fixed_files: true,
        });
        Self {
            bus: Bus::new(identity(), options, Addresses::new(&[])),
            uring: uring.expect("this machine has io_uring"),
            now_ns: SECOND,
            has_room: true,
            received: Vec::new(),
        }
    }

    /// A stranger.
    fn stranger(&mut self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        self.bus
            .accepted(self.now_ns, Ok(ours.into()), &mut self.uring);
        theirs.set_nonblocking(true).expect("settable");
        theirs
    }

    fn client(&mut self) -> UnixStream {
        let mut stream = self.stranger();
        stream.write_all(&ping_client()).expect("room");
        self.turns();
        assert!(matches!(
            self.received.pop(),
            Some(Received::Message(Peer::Client(_), _))
        ));
        stream
    }

    /// Replica 0, which dials us.
    fn replica(&mut self) -> UnixStream {
        let mut stream = self.stranger();
        stream.write_all(&ping(0, |_| {})).expect("room");
        self.turns();
        let hello: Vec<_> = self.received.drain(..).collect();
        assert!(matches!(
            hello[..],
            [
                Received::Connected(0),
                Received::Message(Peer::Replica(0), _)
            ]
        ));
        stream
    }

    fn take(&mut self, index: u32) {
        loop {
            let has_room = self.has_room;
            let next = self
                .bus
                .next(self.now_ns, index, &mut self.uring, |_, _| has_room);
            match next {
                Some(received) => self.received.push(received),
                None => return,
            }
        }
    }

    /// Turns until nothing moves. What the other end has written is there already, so a poll finds it.
    fn turns(&mut self) {
        for _ in 0..20 {
            self.bus.flush(self.now_ns, &mut self.uring);
            self.uring.turn(Wait::Poll).expect("the ring works");
            while let Some(done) = self.uring.next_done() {
                let (now_ns, uring) = (self.now_ns, &mut self.uring);
                match done {
                    Done::Received {
                        socket,
                        message,
                        result,
                    } => {
                        if self.bus.received(now_ns, socket, message, result, uring) {
                            self.take(socket);
                        }
                    }
                    Done::Sent { socket, result } => self.bus.sent(now_ns, socket, result, uring),
                    Done::Closed { socket } => self.bus.closed(socket),
                    other => panic!("not expected here: {other:?}"),
                }
            }
            for _ in 0..self.bus.stopped() {
                if let Some(index) = self.bus.next_stopped() {
                    self.take(index);
                }
            }
        }
    }

    /// Lets time pass and closes what is overdue.
    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        self.bus.next_accept_ns = u64::MAX; // there is no listener here
        self.bus.tick(self.now_ns, &mut self.uring);
        self.turns();
    }

    fn commands(&mut self) -> Vec<Command> {
        let messages = self
            .received
            .drain(..)
            .filter_map(|received| match received {
                Received::Message(_, message) => message.header().command(),
                Received::Connected(_) => None,
            });
        messages.collect()
    }

    /// Everything is back where it belongs, once the other ends are gone.
    fn assert_all_home(mut self, streams: Vec<UnixStream>) {
        drop(streams);
        self.received.clear();
        self.turns();
        assert_eq!(self.bus.free.len(), self.bus.connections.len());
        assert_eq!((self.bus.hellos, self.bus.clients), (0, 0));
        for pool in [
            &self.bus.small,
            &self.bus.peer_large,
            &self.bus.client_large,
        ] {
            assert_eq!(pool.free(), pool.count());
        }
    }
}

fn sealed<T: Typed>(mut header: T, body: &[u8], edit: impl FnOnce(&mut T)) -> Vec<u8> {
    edit(&mut header);
    let mut header = header_of(header.as_bytes());
    header.frame.size = (HEADER_SIZE + body.len()) as u32;
    header.seal(body);
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn header_of(bytes: &[u8]) -> Header {
    Header::read_from_bytes(&bytes[..HEADER_SIZE]).expect("256 bytes")
}

fn ping_client() -> Vec<u8> {
    sealed(PingClient::new(CLUSTER, 0, 0), &[], |h| h.client = 5)
}

fn ping(replica: u8, edit: impl FnOnce(&mut Ping)) -> Vec<u8> {
    sealed(Ping::new(CLUSTER, 0, replica), &[], |h| {
        h.fingerprint = identity().geometry.fingerprint(3);
        h.replica_count = 3;
        h.file = 1;
        edit(h);
    })
}

fn request(body: usize) -> Vec<u8> {
    let body: Vec<u8> = (0..body).map(|i| i as u8).collect();
    sealed(Request::new(CLUSTER, 0, 0), &body, |h| h.client = 5)
}

fn prepare(replica: u8, body: usize) -> Vec<u8> {
    sealed(Prepare::new(CLUSTER, 0, replica), &vec![9; body], |h| {
        (h.op, h.requests) = (1, 1);
        h.kind = PrepareKind::Batch as u32;
    })
}

/// What the other end has to read; none: the connection is closed.
fn read(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1 << 16];
    match stream.read(&mut bytes) {
        Ok(0) => None,
        Ok(size) => Some(bytes[..size].to_vec()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Vec::new()),
        Err(_) => None,
    }
}

fn assert_refused(bytes: &[u8]) {
    let mut harness = Harness::new();
    let mut stream = harness.stranger();
    stream.write_all(bytes).expect("room");
    harness.turns();
    assert!(harness.received.is_empty());
    assert_eq!(read(&mut stream), None);
    assert_eq!(harness.bus.counters().refused, 1);
    harness.assert_all_home(vec![stream]);
}

#[test]
fn many_small_messages_of_one_receive_all_come_in_order() {
    let mut harness = Harness::new();
    let mut stream = harness.client();
    let mut bytes = Vec::new();
    for size in (48..48 + 16 * 40).step_by(16) {
        bytes.extend(request(size));
    }
    stream.write_all(&bytes).expect("room");
    harness.turns();
    let sizes = harness.received.drain(..).map(|received| match received {
        Received::Message(_, message) => message.body().len(),
        Received::Connected(_) => 0,
    });
    assert_eq!(
        sizes.collect::<Vec<_>>(),
        (48..688).step_by(16).collect::<Vec<_>>()
    );
    harness.assert_all_home(vec![stream]);
}

#[test]
fn a_large_message_arrives_whole_in_pieces_of_any_size() {
    for piece in [1000, 4096, 5000, 100_000] {
        let mut harness = Harness::new();
        let mut stream = harness.client();
        let bytes = request(100_000);
        for bytes in [bytes.clone(), request(48)].concat().chunks(piece) {
            stream.write_all(bytes).expect("room");
            harness.turns();
        }
        let Received::Message(_, message) = harness.received.remove(0) else {
            panic!("a message")
        };
        assert_eq!(message.bytes(), bytes);
        assert_eq!(harness.commands(), [Command::Request]);
        drop(message);
        harness.assert_all_home(vec![stream]);
    }
}

#[test]
fn replicas_send_small_and_large_messages_mixed() {
    const C: Command = Command::Commit;
    const P: Command = Command::Prepare;
    let mut harness = Harness::new();
    let mut stream = harness.replica();
    let commit = sealed(Commit::new(CLUSTER, 0, 0), &[], |_| {});
    let prepares = [8192, 64, 60_000].map(|size| prepare(1, size));
    let bytes = [
        &commit[..],
        &prepares[0],
        &commit,
        &prepares[1],
        &prepares[2],
        &commit,
    ]
    .concat();
    stream.write_all(&bytes).expect("room");
    harness.turns();
    for received in &harness.received {
        // The journal writes whole sectors of a prepare.
        if let Received::Message(_, message) = received
            && message.header().command() == Some(P)
        {
            let size = message.bytes().len();
            let tail = &message.buffer()[size..storage::sector_ceil(size)];
            assert!(tail.iter().all(|&byte| byte == 0));
        }
    }
    assert_eq!(harness.commands(), [C, P, C, P, P, C]);
    harness.assert_all_home(vec![stream]);
}

#[test]
fn random_bytes_close_the_connection_and_nothing_else() {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
    let mut harness = Harness::new();
    let client = harness.client();
    for round in 1..=50 {
        let mut stream = harness.stranger();
        let mut bytes = vec![0; 256 + random.next_u64() as usize % 8000];
        random.fill_bytes(&mut bytes);
        stream.write_all(&bytes).expect("room");
        harness.turns();
        assert_eq!(read(&mut stream), None);
        assert_eq!(harness.bus.counters().refused, round);
    }
    assert_eq!((harness.bus.clients, harness.bus.hellos), (1, 0));
    harness.assert_all_home(vec![client]);
}

#[test]
fn clients_of_another_cluster_hide_no_replica_that_is_refused() {
    let mut harness = Harness::new();
    let foreign = sealed(PingClient::new(CLUSTER + 1, 0, 0), &[], |_| {});
    let other_shape = ping(0, |h| h.fingerprint ^= 1);
    for bytes in [&foreign, &foreign, &other_shape] {
        let mut stream = harness.stranger();
        stream.write_all(bytes).expect("room");
        harness.turns();
        assert_eq!(read(&mut stream), None);
    }
    let [replicas, others] = harness.bus.refusals;
    assert!(
        replicas.next_log_ns > 0 && replicas.unlogged == 0,
        "{replicas:?}"
    );
    assert_eq!(others.unlogged, 1);
}

#[test]
fn who_has_not_greeted_is_silent() {
    let mut harness = Harness::new();
    let silent = |harness: &Harness| harness.bus.silent().iter().collect::<Vec<_>>();
    assert_eq!(silent(&harness), [0, 1]);
    let _refused = {
        let mut stream = harness.stranger();
        let other_shape = ping(1, |h| h.fingerprint ^= 1);
        stream.write_all(&other_shape).expect("room");
        harness.turns();
        stream
    };
    assert_eq!(silent(&harness), [0, 1]);
    let stream = harness.replica();
    assert_eq!(silent(&harness).len(), 1);
    drop(stream);
    harness.turns();
    assert_eq!(silent(&harness), [0, 1]);
}

#[test]
fn every_broken_hello_is_refused() {
    assert_refused(&ping(0, |h| h.frame.cluster = 78)); // another cluster
    assert_refused(&ping(0, |h| h.fingerprint ^= 1)); // another geometry
    assert_refused(&ping(0, |h| h.replica_count = 5));
    assert_refused(&ping(2, |_| {})); // our own index
    assert_refused(&ping(3, |_| {})); // no such replica
    assert_refused(&request(48)); // no hello at all
    assert_refused(&sealed(Commit::new(CLUSTER, 0, 0), &[], |_| {}));
    let mut oversize = header_of(&ping_client());
    oversize.frame.size = 1 << 30;
    oversize.frame.checksum = oversize.checksum_of_bytes();
    assert_refused(oversize.as_bytes());
    let mut flipped = ping_client();
    flipped[100] ^= 1;
    assert_refused(&flipped);
}

#[test]
fn a_wrong_body_sum_closes_the_connection() {
    let mut harness = Harness::new();
    let mut stream = harness.client();
    let mut bytes = request(480);
    *bytes.last_mut().expect("not empty") ^= 1;
    stream.write_all(&bytes).expect("room");
    harness.turns();
    assert!(harness.received.is_empty() && read(&mut stream).is_none());
    assert!(harness.bus.next_gone().is_some());
    harness.assert_all_home(vec![stream]);
}

#[test]
fn clients_and_replicas_may_not_speak_each_others_commands() {
    let mut harness = Harness::new();
    let mut client = harness.client();
    client.write_all(&ping(0, |_| {})).expect("room");
    let mut replica = harness.replica();
    replica.write_all(&request(48)).expect("room");
    harness.turns();
    assert_eq!((read(&mut client), read(&mut replica)), (None, None));
    let mut replica = harness.replica();
    let foreign = sealed(Commit::new(CLUSTER, 0, 1), &[], |_| {});
    replica.write_all(&foreign).expect("room");
    harness.turns();
    assert_eq!(read(&mut replica), None);
    assert_eq!(harness.bus.counters().refused, 3);
    harness.assert_all_home(vec![client, replica]);
}

#[test]
fn a_slow_hello_and_a_slow_message_are_closed() {
    let mut harness = Harness::new();
    let mut silent = harness.stranger();
    let mut client = harness.client();
    client.write_all(&request(4800)[..3000]).expect("room");
    harness.turns();
    harness.pass(4 * SECOND);
    assert_eq!(read(&mut silent), Some(Vec::new()));
    harness.pass(2 * SECOND);
    assert_eq!(read(&mut silent), None);
    assert_eq!(read(&mut client), Some(Vec::new()));
    harness.pass(5 * SECOND);
    assert_eq!(read(&mut client), None);
    assert_eq!(harness.bus.counters().overdue, 2);
    harness.assert_all_home(vec![silent, client]);
}

#[test]
fn a_client_too_many_is_closed_and_replicas_still_come_in() {
    let mut harness = Harness::new();
    let mut streams = vec![harness.client(), harness.client()];
    let mut third = harness.stranger();
    third.write_all(&ping_client()).expect("room");
    harness.turns();
    assert_eq!(read(&mut third), None);
    assert_eq!(harness.bus.counters().clients_full, 1);
    streams.extend([third, harness.replica()]);
    harness.assert_all_home(streams);
}

#[test]
fn a_new_connection_of_a_replica_replaces_the_old() {
    let mut harness = Harness::new();
    let mut old = harness.replica();
    let new = harness.replica();
    assert_eq!(read(&mut old), None);
    assert!(harness.bus.peers[0].is_some());
    harness.assert_all_home(vec![old, new]);
}

#[test]
fn reading_stops_while_the_replica_has_no_room_and_goes_on_after() {
    let mut harness = Harness::new();
    let mut stream = harness.client();
    harness.has_room = false;
    stream
        .write_all(&[request(48), request(64)].concat())
        .expect("room");
    harness.turns();
    harness.pass(60 * SECOND); // no fault of the client's
    assert!(harness.received.is_empty());
    assert_eq!(harness.bus.stopped(), 1);
    harness.has_room = true;
    harness.turns();
    assert_eq!(harness.commands(), [Command::Request; 2]);
    harness.assert_all_home(vec![stream]);
}

#[test]
fn a_client_waits_for_a_large_buffer_and_others_do_not() {
    let mut harness = Harness::with(|options| options.client_large = 1);
    let (mut a, mut b) = (harness.client(), harness.client());
    a.write_all(&request(50_000)).expect("room");
    harness.turns();
    let held = harness.received.pop().expect("the one large buffer");
    a.write_all(&request(50_000)).expect("room");
    b.write_all(&request(48)).expect("room");
    harness.turns();
    assert_eq!(harness.commands(), [Command::Request]);
    drop(held);
    harness.turns();
    assert_eq!(harness.commands(), [Command::Request]);
    harness.assert_all_home(vec![a, b]);
}

fn answer(pool: &MessagePool) -> SharedMessage {
    let mut message: Message = pool.take().expect("free");
    message.set_header(&Commit::new(CLUSTER, 0, 2));
    message.seal()
}

#[test]
fn full_queues_drop_for_replicas_and_close_for_clients() {
    let pool = MessagePool::new(16, SMALL_SIZE);
    let mut harness = Harness::new();
    let mut replica = harness.replica();
    let (now_ns, to) = (harness.now_ns, Peer::Replica(0));
    harness
        .bus
        .send(now_ns, to, answer(&pool), &mut harness.uring);
    assert_eq!(harness.bus.counters().dropped, 1); // we have not said who we are
    let mut hello = pool.take().expect("free");
    hello.set_header(&Ping::new(CLUSTER, 0, 2));
    harness
        .bus
        .send(now_ns, to, hello.seal(), &mut harness.uring);
    for _ in 0..5 {
        harness
            .bus
            .send(now_ns, to, answer(&pool), &mut harness.uring);
    }
    assert_eq!(harness.bus.counters().dropped, 3);
    harness.turns();
    assert_eq!(read(&mut replica).map(|bytes| bytes.len()), Some(4 * 256));
    harness
        .bus
        .send(now_ns, Peer::Replica(1), answer(&pool), &mut harness.uring);
    assert_eq!(harness.bus.counters().dropped, 4);

    let mut stream = harness.stranger();
    stream.write_all(&ping_client()).expect("room");
    harness.turns();
    let Some(Received::Message(to, _)) = harness.received.pop() else {
        panic!("the hello")
    };
    for _ in 0..3 {
        harness
            .bus
            .send(now_ns, to, answer(&pool), &mut harness.uring);
    }
    harness.turns();
    assert_eq!(harness.bus.counters().unread, 1);
    assert_eq!(harness.bus.next_gone().map(Peer::Client), Some(to));
    harness
        .bus
        .send(now_ns, to, answer(&pool), &mut harness.uring); // gone: nothing happens
    assert_eq!(pool.free(), 16);
    harness.assert_all_home(vec![replica, stream]);
}
