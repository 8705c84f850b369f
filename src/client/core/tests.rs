mod chaos;

use super::*;
use crate::client::outcome::Reply;
use storage::header::{Rejection, ReplicaStatus, Request, Status, SubHeader, sub_request};
use zerocopy::IntoBytes;

const CLUSTER: u128 = 7;
const MS: u64 = MILLISECOND;

#[derive(Clone)]
struct Sent {
    to: usize,
    header: Request,
    body: Vec<u8>,
}

impl Sent {
    fn sub(&self) -> SubHeader {
        let mut aligned = vec![0u128; self.body.len().div_ceil(16)];
        aligned.as_mut_bytes()[..self.body.len()].copy_from_slice(&self.body);
        let (request, end) = sub_request(&aligned.as_bytes()[..self.body.len()], 0)
            .expect("the client sends whole requests");
        assert_eq!(end, self.body.len());
        *request.header
    }

    fn is_register(&self) -> bool {
        self.sub().operation == REGISTER
    }
}

/// A core, and what it has asked for.
struct World {
    core: Core,
    now: u64,
    sent: Vec<Sent>,
    pings: Vec<usize>,
    connects: Vec<usize>,
    done: Vec<(u64, Result<Reply, CallError>)>,
    sessions: u64,
}

impl World {
    fn new(addresses: usize, sessions_max: usize) -> Self {
        let options = CoreOptions {
            cluster: CLUSTER,
            addresses,
            sessions_max,
            calls_max: 2000,
            reads_max: 2000,
            seed: [3; 32],
        };
        Self {
            core: Core::new(options),
            now: SECOND,
            sent: Vec::new(),
            pings: Vec::new(),
            connects: Vec::new(),
            done: Vec::new(),
            sessions: 0,
        }
    }

    /// Three replicas, all connected; replica 0 leads view 0.
    fn connected(sessions_max: usize) -> Self {
        let mut world = Self::new(3, sessions_max);
        world.advance(0);
        assert_eq!(world.connects, [0, 1, 2]);
        for address in 0..3 {
            world.connect(address);
        }
        assert_eq!(world.pings, [0, 1, 2]);
        world.pong(0, 0, 0, ReplicaStatus::Normal);
        world
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll() {
            match output {
                Output::Connect(to) => self.connects.push(to),
                Output::Disconnect(_) => {}
                Output::Send { to, header, body } => {
                    assert!(header.check(CLUSTER, 1 << 20).is_ok());
                    assert!(header.check_body(body).is_ok());
                    if let Some(request) = header.try_typed::<Request>() {
                        let (header, body) = (*request, body.to_vec());
                        self.sent.push(Sent { to, header, body });
                    } else {
                        self.pings.push(to);
                    }
                }
                Output::Done { tag, result } => {
                    self.done.push((tag, result.map(super::ReplyRef::to_owned)));
                }
            }
        }
    }

    fn connect(&mut self, address: usize) {
        self.core.on_connected(self.now, address);
        self.drain();
    }

    fn disconnect(&mut self, address: usize) {
        self.core.on_disconnected(self.now, address);
        self.drain();
    }

    fn advance(&mut self, by: u64) {
        self.now += by;
        self.core.advance(self.now);
        self.drain();
    }

    /// As [`World::advance`], stopping wherever the core has a timer.
    fn run(&mut self, by: u64) {
        let end = self.now + by;
        while self.now < end {
            let next = self.core.deadline_ns().clamp(self.now + 1, end);
            self.advance(next - self.now);
        }
    }

    fn message<T: Typed>(&mut self, from: usize, header: &T, body: &[u8]) {
        let mut header = *Header::of(header.as_bytes());
        header.frame.size = (HEADER_SIZE + body.len()) as u32;
        header.seal(body);
        assert!(header.check(CLUSTER, 1 << 20).is_ok());
        self.core.on_message(self.now, from, &header, body);
        self.drain();
    }

    fn pong(&mut self, from: usize, view: u32, primary: u8, status: ReplicaStatus) {
        let mut pong = PongClient::new(CLUSTER, view, from as u8);
        pong.replica_count = 3;
        pong.primary = primary;
        pong.status = status as u8;
        pong.message_size_max = 8192;
        self.message(from, &pong, &[]);
    }

    fn write(&mut self, tag: u64, deadline: u64) {
        let body = tag.to_le_bytes();
        self.core
            .submit(
                self.now,
                Kind::Write,
                0x0101,
                &body,
                self.now + deadline,
                tag,
            )
            .expect("there is room");
        self.drain();
    }

    fn read(&mut self, tag: u64, deadline: u64) {
        let body = tag.to_le_bytes();
        self.core
            .submit(
                self.now,
                Kind::Read,
                0x0102,
                &body,
                self.now + deadline,
                tag,
            )
            .expect("there is room");
        self.drain();
    }

    fn reply(&mut self, from: usize, to: &Sent, body: &[u8]) {
        self.reply_with(from, to, Status::Ok, body);
    }

    fn reply_with(&mut self, from: usize, to: &Sent, status: Status, body: &[u8]) {
        let sub = to.sub();
        let mut reply = ReplyHeader::new(CLUSTER, 0, from as u8);
        reply.client = sub.client;
        reply.session = sub.session;
        if sub.operation == REGISTER && status == Status::Ok {
            self.sessions += 1;
            reply.session = self.sessions;
        }
        reply.request = sub.request;
        reply.operation = sub.operation;
        reply.status = status as u16;
        reply.op = 42;
        self.message(from, &reply, body);
    }

    fn reject(&mut self, from: usize, to: &Sent, reason: Rejection, view: u32, hint: u8) {
        let mut rejected = Rejected::new(CLUSTER, view, from as u8);
        rejected.client = to.sub().client;
        rejected.request = to.sub().request;
        rejected.reason = reason as u16;
        rejected.hint = hint;
        self.message(from, &rejected, &[]);
    }

    fn evict(&mut self, from: usize, to: &Sent) {
        let mut eviction = Eviction::new(CLUSTER, 0, from as u8);
        eviction.client = to.sub().client;
        eviction.session = to.sub().session;
        eviction.request = to.sub().request;
        self.message(from, &eviction, &[]);
    }

    /// The only request sent since the last look.
    fn one(&mut self) -> Sent {
        assert_eq!(self.sent.len(), 1);
        self.sent.pop().expect("one was sent")
    }

    /// A write with this tag, sent once in a session of its own.
    fn write_in_flight(&mut self, tag: u64, deadline: u64) -> Sent {
        self.write(tag, deadline);
        let first = self.one();
        if !first.is_register() {
            return first;
        }
        self.reply(first.to, &first, &[]);
        self.one()
    }

    fn only_error(&mut self) -> CallError {
        assert_eq!(self.done.len(), 1);
        let (_, result) = self.done.pop().expect("one call has ended");
        result.expect_err("it failed")
    }
}

#[test]
fn a_write_registers_then_counts_its_requests() {
    let mut world = World::connected(4);
    world.write(1, SECOND);
    let register = world.one();
    let sub = register.sub();
    assert_eq!((sub.session, sub.request, sub.size), (0, 0, 0));
    world.reply(0, &register, &[]);
    for request in 1..4 {
        let sent = world.one();
        let sub = sent.sub();
        assert_eq!(
            (sub.session, sub.request, sent.header.resent),
            (1, request, 0)
        );
        world.reply(0, &sent, b"answer");
        let (tag, result) = world.done.pop().expect("it was answered");
        assert_eq!(tag, u64::from(request));
        assert_eq!(result.expect("an answer").body, b"answer");
        world.write(u64::from(request) + 1, SECOND);
    }
}

#[test]
fn a_read_needs_no_session_and_reads_do_not_wait_for_each_other() {
    let mut world = World::connected(1);
    for tag in 0..100 {
        world.read(tag, SECOND);
    }
    let sent = std::mem::take(&mut world.sent);
    assert_eq!(sent.len(), 100);
    for request in sent.iter().rev() {
        assert_eq!(request.sub().session, 0);
        world.reply(0, request, &request.body[48..56]);
    }
    for (tag, result) in &world.done {
        assert_eq!(result.as_ref().expect("an answer").body, tag.to_le_bytes());
    }
    assert_eq!(world.done.len(), 100);
}

#[test]
fn a_lost_connection_means_the_same_bytes_again() {
    let mut world = World::connected(4);
    let first = world.write_in_flight(1, 60 * SECOND);
    world.disconnect(0);
    assert!(world.sent.is_empty());
    world.connects.clear();
    world.run(SECOND);
    assert!(world.connects.contains(&0));
    world.connect(0);
    world.pong(0, 0, 0, ReplicaStatus::Normal);
    let mut second = world.one();
    assert_eq!(second.header.resent, 1);
    second.header.resent = 0;
    second.header.header_mut().seal(&second.body);
    assert_eq!(second.header, first.header);
    assert_eq!(second.body, first.body);
    world.reply(0, &first, b"once");
    assert_eq!(world.done.len(), 1);
}

#[test]
fn a_silent_primary_is_given_up_and_the_next_one_gets_the_same_request() {
    let mut world = World::connected(4);
    let first = world.write_in_flight(1, 60 * SECOND);
    for _ in 0..50 {
        world.run(100 * MS);
        world.pong(1, 0, 0, ReplicaStatus::Normal);
    }
    assert!(world.core.primary().is_none());
    world.sent.clear();
    world.pong(1, 1, 1, ReplicaStatus::Normal);
    let second = world.one();
    assert_eq!(second.to, 1);
    assert_eq!(second.sub(), first.sub());
}

#[test]
fn a_timeout_sends_again_on_the_same_connection() {
    let mut world = World::connected(4);
    let first = world.write_in_flight(1, 60 * SECOND);
    world.run(2 * SECOND);
    let second = world.sent.first().expect("sent again").clone();
    assert_eq!((second.to, second.sub()), (first.to, first.sub()));
    assert_eq!(second.header.resent, 1);
}

#[test]
fn an_overdue_call_makes_the_others_asked_often_for_a_while() {
    let mut world = World::connected(1);
    let questions = |world: &mut World, by: u64| {
        world.pings.clear();
        for _ in 0..by / (100 * MS) {
            world.run(100 * MS);
            for from in 0..3 {
                world.pong(from, 0, 0, ReplicaStatus::Normal);
            }
        }
        world.pings.iter().filter(|&&to| to == 1).count()
    };
    assert_eq!(questions(&mut world, 2 * SECOND), 2, "as usual");
    // Nobody answers the read: it is overdue after half a second to one.
    world
        .core
        .submit(world.now, Kind::Read, 1, &[], u64::MAX, 1)
        .expect("there is room");
    let overdue = questions(&mut world, 2 * SECOND);
    assert!((4..=8).contains(&overdue), "{overdue}");
}

#[test]
fn a_hint_is_followed_at_once() {
    let mut world = World::connected(4);
    let first = world.write_in_flight(1, SECOND);
    world.reject(0, &first, Rejection::NotPrimary, 2, 2);
    let second = world.one();
    assert_eq!((second.to, second.sub()), (2, first.sub()));
    world.reply(2, &second, &[]);
    assert!(world.done[0].1.is_ok());
}

#[test]
fn replicas_that_name_each_other_are_not_obeyed_for_ever() {
    let mut world = World::connected(4);
    let mut request = world.write_in_flight(1, SECOND);
    for _ in 0..10 {
        let hint = 1 - request.to as u8;
        world.reject(request.to, &request, Rejection::NotPrimary, 1, hint);
        let Some(next) = world.sent.pop() else { return };
        request = next;
    }
    panic!("ten requests without a pause");
}

#[test]
fn a_late_pong_of_an_older_view_is_ignored() {
    let mut world = World::connected(4);
    world.pong(1, 5, 2, ReplicaStatus::Normal);
    assert_eq!(world.core.primary(), None);
    world.pong(0, 0, 0, ReplicaStatus::Normal);
    assert_eq!(world.core.primary(), None);
    world.pong(2, 5, 2, ReplicaStatus::Normal);
    assert_eq!(world.core.primary(), Some(2));
}

#[test]
fn addresses_need_not_be_in_the_order_of_the_replicas() {
    let mut world = World::new(2, 4);
    world.advance(0);
    world.connect(0);
    world.connect(1);
    let mut pong = PongClient::new(CLUSTER, 0, 0);
    (pong.replica_count, pong.status) = (2, ReplicaStatus::Normal as u8);
    pong.message_size_max = 8192;
    world.message(1, &pong, &[]);
    assert_eq!(world.core.primary(), Some(1));
}

#[test]
fn busy_is_answered_with_the_same_request_after_a_pause() {
    let mut world = World::connected(4);
    let first = world.write_in_flight(1, 10 * SECOND);
    let mut pauses = Vec::new();
    let mut request = first.clone();
    for _ in 0..8 {
        world.reject(0, &request, Rejection::Busy, 0, 0);
        assert!(world.sent.is_empty());
        let start = world.now;
        while world.sent.is_empty() {
            world.run(MS);
        }
        pauses.push(world.now - start);
        request = world.one();
        assert_eq!(request.sub(), first.sub());
    }
    assert!(
        pauses[7] > 10 * pauses[0] && pauses[7] <= 501 * MS,
        "{pauses:?}"
    );
    world.reply(0, &request, &[]);
    assert!(world.done[0].1.is_ok());
}

#[test]
fn a_replica_that_is_not_ready_gets_the_request_when_it_says_it_is() {
    let mut world = World::connected(4);
    let first = world.write_in_flight(1, 10 * SECOND);
    world.reject(0, &first, Rejection::NotReady, 0, 0);
    world.run(100 * MS);
    assert!(world.sent.is_empty());
    world.pong(0, 0, 0, ReplicaStatus::Starting);
    assert!(world.sent.is_empty());
    world.pong(0, 0, 0, ReplicaStatus::Normal);
    assert_eq!(world.one().sub(), first.sub());
}

#[test]
fn without_a_primary_a_deadline_means_not_sent() {
    let mut world = World::new(3, 4);
    world.advance(0);
    world.write(1, 100 * MS);
    world.run(99 * MS);
    assert!(world.done.is_empty());
    world.run(2 * MS);
    assert_eq!(world.only_error(), NotSent::Deadline.into());
    // While only the register is out, the write itself has not been sent either.
    let mut world = World::connected(4);
    world.write(1, 100 * MS);
    assert!(world.one().is_register());
    world.run(101 * MS);
    assert_eq!(world.only_error(), NotSent::Deadline.into());
}

#[test]
fn refused_once_and_never_sent_again_is_not_sent() {
    let mut world = World::connected(4);
    let first = world.write_in_flight(1, 1);
    world.reject(0, &first, Rejection::Busy, 0, 0);
    world.advance(MS);
    // The pause after "busy" is at least 2 ms: the deadline came before a second copy.
    assert_eq!(world.only_error(), NotSent::Refused.into());
    // A second copy, refused as well, leaves it unknown: what the first one's duplicate did is anybody's guess.
    let first = world.write_in_flight(2, 300 * MS);
    world.reject(0, &first, Rejection::Busy, 0, 0);
    world.run(20 * MS);
    let second = world.one();
    world.reject(0, &second, Rejection::Busy, 0, 0);
    world.run(SECOND);
    assert!(world.only_error().is_indeterminate());
}

#[test]
fn a_deadline_after_sending_is_unknown_and_the_request_goes_on() {
    let mut world = World::connected(1);
    let first = world.write_in_flight(1, 100 * MS);
    world.run(101 * MS);
    let CallError::Indeterminate(unknown) = world.only_error() else {
        panic!("a write that was sent has an unknown outcome")
    };
    assert_eq!(unknown.reason, UnknownReason::Deadline);
    let sub = first.sub();
    assert_eq!(
        (unknown.client, unknown.session, unknown.request),
        (sub.client, sub.session, sub.request)
    );
    // Its session is not used for another call.
    world.write(2, 5 * SECOND);
    world.run(2 * SECOND);
    assert!(world.sent.iter().all(|sent| sent.sub() == first.sub()));
    // Somebody waits for it again, and gets the answer.
    world
        .core
        .resolve(world.now, &unknown, world.now + SECOND, 3);
    world.drain();
    world.sent.clear();
    world.reply(0, &first, b"late");
    let (tag, result) = world.done.pop().expect("it was answered");
    assert_eq!(
        (tag, result.expect("an answer").body),
        (3, b"late".to_vec())
    );
    let next = world.one();
    assert_eq!(next.sub().request, 2);
}

#[test]
fn an_outcome_that_came_late_is_kept_until_its_session_is_used() {
    let mut world = World::connected(1);
    let first = world.write_in_flight(1, 100 * MS);
    world.run(101 * MS);
    let CallError::Indeterminate(unknown) = world.only_error() else {
        panic!("a write that was sent has an unknown outcome")
    };
    world.reply(0, &first, b"late");
    assert!(world.done.is_empty());
    world
        .core
        .resolve(world.now, &unknown, world.now + SECOND, 3);
    world.drain();
    let (_, result) = world.done.pop().expect("it is known");
    assert_eq!(result.expect("an answer").body, b"late");
    let second = world.write_in_flight(4, SECOND);
    assert_eq!(second.sub().request, 2);
    world
        .core
        .resolve(world.now, &unknown, world.now + SECOND, 5);
    world.drain();
    let superseded = Unknown {
        reason: UnknownReason::Superseded,
        ..unknown
    };
    assert_eq!(world.only_error(), superseded.into());
}

#[test]
fn a_read_that_is_not_answered_changed_nothing() {
    let mut world = World::connected(1);
    world.read(1, 100 * MS);
    let sent = world.one();
    world.run(101 * MS);
    assert_eq!(world.only_error(), Definite::NoAnswer.into());
    world.reply(0, &sent, b"late");
    assert!(world.done.is_empty());
}

#[test]
fn an_evicted_session_is_dropped_and_its_write_unknown() {
    let mut world = World::connected(1);
    let first = world.write_in_flight(1, 10 * SECOND);
    world.evict(0, &first);
    let CallError::Indeterminate(unknown) = world.only_error() else {
        panic!("an eviction leaves the outcome unknown")
    };
    assert_eq!(unknown.reason, UnknownReason::Evicted);
    // A late duplicate of the eviction, or an answer in the old session, changes nothing.
    world.evict(0, &first);
    world.reply(0, &first, &[]);
    assert!(world.done.is_empty() && world.sent.is_empty());
    // The next write opens another session under another client id, with bytes of its own.
    let second = world.write_in_flight(2, SECOND);
    assert_ne!(second.sub().client, first.sub().client);
    world.evict(0, &first);
    world.reply(0, &second, &[]);
    assert!(world.done[0].1.is_ok());
}

#[test]
fn stale_and_duplicate_replies_are_ignored() {
    let mut world = World::connected(1);
    let first = world.write_in_flight(1, SECOND);
    world.reply(0, &first, b"1");
    world.reply(0, &first, b"1");
    let second = world.write_in_flight(2, SECOND);
    world.reply(0, &first, b"1");
    assert_eq!(world.done.len(), 1);
    world.reject(0, &first, Rejection::Invalid, 0, 0);
    assert_eq!(world.done.len(), 1);
    world.reply(0, &second, b"2");
    assert_eq!(world.done.len(), 2);
    assert!(world.core.statistics().ignored >= 3);
}

#[test]
fn definite_refusals_end_a_call_at_once() {
    let mut world = World::connected(1);
    let first = world.write_in_flight(1, SECOND);
    world.reject(0, &first, Rejection::Invalid, 0, 0);
    assert_eq!(world.only_error(), Definite::Invalid.into());
    let second = world.write_in_flight(2, SECOND);
    world.reject(0, &second, Rejection::UnknownOperation, 0, 0);
    assert_eq!(world.only_error(), Definite::UnknownOperation.into());
    let third = world.write_in_flight(3, SECOND);
    world.reply_with(0, &third, Status::OutOfSpace, &[]);
    assert_eq!(world.only_error(), Definite::OutOfSpace.into());
    let (now, body) = (world.now, [0; 8192]);
    world
        .core
        .submit(now, Kind::Read, 0x0102, &body, now + SECOND, 4)
        .expect("there is room");
    world.drain();
    assert!(matches!(
        world.only_error(),
        CallError::Definite(Definite::TooLarge { size: 8496, .. })
    ));
    assert!(world.sent.is_empty());
}

#[test]
fn without_sessions_the_first_calls_are_told_and_later_ones_wait() {
    let mut world = World::connected(8);
    world.write(1, 10 * SECOND);
    let register = world.one();
    world.reply_with(0, &register, Status::SessionsFull, &[]);
    assert_eq!(world.only_error(), Definite::SessionsFull.into());
    // Later there is one session, and two writes share it.
    world.write(2, 10 * SECOND);
    world.write(3, 10 * SECOND);
    world.run(SECOND);
    let registers = std::mem::take(&mut world.sent);
    assert_eq!(registers.len(), 2);
    world.reply(0, &registers[0], &[]);
    world.reply_with(0, &registers[1], Status::SessionsFull, &[]);
    let second = world.one();
    world.reply(0, &second, &[]);
    let third = world.one();
    world.reply(0, &third, &[]);
    assert_eq!(world.done.len(), 2);
    assert!(world.done.iter().all(|(_, result)| result.is_ok()));
}

#[test]
fn a_thousand_calls_share_what_sessions_there_are() {
    let mut world = World::connected(64);
    for tag in 0..1000 {
        world.write(tag, 100 * SECOND);
    }
    let mut answered = 0;
    while answered < 1000 {
        let sent = std::mem::take(&mut world.sent);
        assert!(!sent.is_empty() && sent.len() <= 64);
        for request in &sent {
            world.reply(0, request, request.body.get(48..56).unwrap_or(&[]));
            answered += u64::from(!request.is_register());
        }
    }
    assert_eq!(world.done.len(), 1000);
    for (tag, result) in &world.done {
        assert_eq!(result.as_ref().expect("an answer").body, tag.to_le_bytes());
    }
    assert_eq!(world.core.calls_open(), 0);
}

#[test]
fn the_table_is_bounded_and_so_are_the_queues_of_an_outage() {
    let mut world = World::new(1, 4);
    world.advance(0);
    for round in 0..5 {
        for tag in 0..2000 {
            world.write(round * 2000 + tag, 10 * MS);
        }
        let full = world
            .core
            .submit(world.now, Kind::Read, 0x0102, &[], NEVER, 0);
        assert_eq!(full, Err(NotSent::QueueFull));
        world.run(20 * MS);
        assert_eq!(world.done.len(), 2000);
        world.done.clear();
        assert!(world.core.writes.len() <= 2000);
    }
}

#[test]
fn closing_ends_every_call_truthfully() {
    let mut world = World::connected(1);
    world.write_in_flight(1, SECOND);
    world.write(2, SECOND);
    world.core.close();
    world.drain();
    assert_eq!(world.done[1], (2, Err(NotSent::Closed.into())));
    let error = world.done[0].1.as_ref().expect_err("it was sent");
    assert!(matches!(error, CallError::Indeterminate(unknown)
        if unknown.reason == UnknownReason::Closed));
    assert_eq!(
        world.core.submit(world.now, Kind::Write, 1, &[], NEVER, 3),
        Err(NotSent::Closed)
    );
}

#[test]
fn connecting_again_is_paced() {
    let mut world = World::new(1, 1);
    world.advance(0);
    for _ in 0..10_000 {
        if !world.connects.is_empty() {
            world.connects.clear();
            world.disconnect(0);
        }
        world.run(MS);
        if world.now > 20 * SECOND {
            break;
        }
    }
    // From 20 ms doubling to 2 s: about a dozen attempts in ten seconds, not thousands.
    assert!((8..30).contains(&world.core.links.each[0].failures()));
}
