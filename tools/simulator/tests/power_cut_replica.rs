//! A power cut at every disk event in the life of a solo replica, through the real storage code: its first start, each
//! journal append, several wraps of both rings, several checkpoints and the superblock updates they end with, and the
//! update at a restart. Whatever the cut leaves, the replica opens it, has every acknowledged op, and nothing that was
//! never begun.

use simulator::cluster::formatted;
use simulator::disk::{Disk, DiskSpeed, DiskState, Tear};
use simulator::explore::{Coverage, Tape, Thoroughness, explore};
use simulator::prng::Prng;
use std::rc::Rc;
use storage::buffer::MessagePool;
use storage::header::{
    Command, HEADER_SIZE, Prepare, REQUEST_ALIGN, ReplicaStatus, Request, SUB_HEADER_SIZE,
    SubHeader, Typed,
};
use storage::io::{Buffer, IoRequest};
use storage::layout::{Geometry, JournalAck};
use storage::superblock::FileId;
use viewstone::constants;
use viewstone::engine::operation;
use viewstone::replica::{
    ConnectionId, Effects, Event, Now, Peer, Progress, Replica, ReplicaOptions,
};
use viewstone::state_machine::kv::Kv;
use viewstone::state_machine::kv::wire::{Item, Operation};
use zerocopy::IntoBytes;

const CLUSTER: u128 = 77;
const CLIENT: u128 = 5;
const PUT: u16 = 0x100 | Operation::Put as u16;

fn geometry(ack: JournalAck) -> Geometry {
    let geometry = Geometry {
        state_size: 1100 << 10,
        message_size_max: 8 << 10,
        slots: 16,
        pipeline_max: 2,
        sessions_max: 1,
        reply_size_max: 64,
        journal_ack: ack as u8,
        ..Geometry::SMALL
    };
    assert_eq!(geometry.check(), Ok(()));
    geometry
}

/// What the replica has said and done by some point.
#[derive(Clone, Default)]
struct Facts {
    /// Identities of the prepares it began to write, by op from 1; later ones of an op replace earlier ones.
    begun: Rc<Vec<u128>>,
    /// Acknowledged to the client.
    acknowledged: u64,
    /// The disk says that a write is durable when it is not.
    disk_lies: bool,
}

impl Facts {
    fn begin(&mut self, prepare: &Prepare) {
        let begun = Rc::make_mut(&mut self.begun);
        begun.truncate(prepare.op as usize - 1);
        assert_eq!(begun.len() as u64, prepare.op - 1);
        begun.push(prepare.frame.checksum);
    }
}

/// A replica's process.
struct Process {
    replica: Replica<(Kv,)>,
    effects: Effects,
    small: MessagePool,
    large: MessagePool,
    now: Now,
}

impl Process {
    fn start(geometry: Geometry) -> Self {
        let needs = Replica::<(Kv,)>::buffer_needs(&geometry);
        let gathered = constants::requests_max(&geometry) + constants::reads_max(&geometry) + 1;
        let small = MessagePool::new(needs.small + gathered, storage::SECTOR_SIZE);
        let large = MessagePool::new(needs.large + gathered, geometry.message_size_max as usize);
        let options = ReplicaOptions {
            cluster: CLUSTER,
            replica: 0,
            replica_count: 1,
            geometry,
            entropy: [3; 32],
        };
        let sends = Replica::<(Kv,)>::sends_max(&geometry);
        let io = Replica::<(Kv,)>::io_max(&geometry);
        let mut process = Self {
            replica: Replica::new(options, small.clone(), large.clone()),
            effects: Effects::new(sends, io),
            small,
            large,
            now: Now::default(),
        };
        process.replica.start(process.now, &mut process.effects);
        process
    }

    fn step(&mut self, event: Event) {
        self.now.monotonic_ns += 1_000_000;
        self.now.realtime_ns += 1_000_000;
        self.replica.step(self.now, event, &mut self.effects);
        self.finish_turn();
    }

    fn finish_turn(&mut self) {
        self.replica.finish_turn(self.now, &mut self.effects);
        while self.replica.has_work() {
            self.replica.finish_turn(self.now, &mut self.effects);
        }
        assert_eq!(self.effects.halt, None);
    }

    /// Hands over a request of the client: a register for number 0, else a put with a value of so many bytes.
    fn request(&mut self, number: u32, value_size: usize) {
        let mut body = Vec::new();
        if number > 0 {
            let key = [b'a' + (number % 3) as u8];
            let value = vec![number as u8; value_size];
            let item = Item::Put {
                key: &key,
                value: &value,
            };
            item.encode(&mut body);
        }
        let sub = SubHeader {
            client: CLIENT,
            session: u64::from(number > 0),
            request: number,
            size: body.len() as u32,
            operation: if number > 0 { PUT } else { operation::REGISTER },
            reserved: [0; 14],
        };
        let mut header = Request::new(CLUSTER, 0, 0);
        header.client = CLIENT;
        header.request = number;
        let padded = SUB_HEADER_SIZE + body.len().next_multiple_of(REQUEST_ALIGN);
        header.frame.size = (HEADER_SIZE + padded) as u32;
        let pool = if HEADER_SIZE + padded <= storage::SECTOR_SIZE {
            &self.small
        } else {
            &self.large
        };
        let mut message = pool.take().expect("nothing is in flight");
        message.set_header(&header);
        message.body_mut().fill(0);
        message.body_mut()[..SUB_HEADER_SIZE].copy_from_slice(sub.as_bytes());
        message.body_mut()[SUB_HEADER_SIZE..][..body.len()].copy_from_slice(&body);
        let message = message.seal().try_unique().expect("it was just made");
        let from = Peer::Client(ConnectionId {
            index: 0,
            generation: 0,
        });
        self.step(Event::Message { from, message });
    }

    /// Submits what is queued; notes what is begun and what is acknowledged.
    fn carry_out(&mut self, tape: &mut Tape<Facts>) {
        while let Some(mut request) = self.effects.io.pop() {
            if let IoRequest::Write {
                buffer, durable, ..
            } = &mut request
            {
                if let Buffer::Shared(message) = buffer {
                    tape.facts.begin(message.header().typed());
                }
                *durable &= !tape.facts.disk_lies;
            }
            tape.submit(request);
        }
        while let Some(send) = self.effects.sends.pop_front() {
            let header = send.message.header();
            if header.command() == Some(Command::Reply) {
                let op = header.typed::<storage::header::Reply>().op;
                tape.facts.acknowledged = tape.facts.acknowledged.max(op);
            }
        }
    }

    /// Runs until `done`, or until nothing is in flight and nothing is left to do.
    fn run(&mut self, tape: &mut Tape<Facts>, done: impl Fn(&Self, &Facts) -> bool) {
        for _ in 0..10_000 {
            self.carry_out(tape);
            if done(self, &tape.facts) {
                return;
            }
            match tape.complete() {
                Some(completion) => self.step(Event::Io(completion)),
                None => self.step(Event::Tick),
            }
        }
        panic!("no progress: {:?}", self.replica.progress());
    }
}

fn is_serving(process: &Process) -> bool {
    let progress = process.replica.progress();
    progress.status == ReplicaStatus::Normal && progress.commit_min == progress.head_op
}

/// Opens what a power cut left; none if there was no op, so that the replica makes the first by itself.
fn open(state: DiskState, geometry: Geometry) -> Option<Progress> {
    let mut disk = Disk::with_state(state, DiskSpeed::INSTANT, Prng::new(0));
    let mut process = Process::start(geometry);
    for _ in 0..10_000 {
        while let Some(request) = process.effects.io.pop() {
            if let IoRequest::Write {
                buffer: Buffer::Shared(message),
                ..
            } = &request
            {
                assert_eq!(message.header().typed::<Prepare>().op, 1);
                return None;
            }
            disk.submit(0, request);
        }
        if is_serving(&process) {
            return Some(process.replica.progress());
        }
        match disk.complete(0) {
            Some(completion) => process.step(Event::Io(completion)),
            None => process.step(Event::Tick),
        }
    }
    panic!("not open: {:?}", process.replica.progress());
}

fn check(state: DiskState, facts: &Facts, geometry: Geometry) {
    let Some(progress) = open(state, geometry) else {
        assert_eq!(
            facts.acknowledged, 0,
            "no op is left, and one was acknowledged"
        );
        return;
    };
    assert!(
        progress.commit_min >= facts.acknowledged,
        "op {} was acknowledged, and {} is what came back",
        facts.acknowledged,
        progress.commit_min
    );
    // The identity names the whole chain of ops before it.
    let begun = facts.begun[progress.commit_min as usize - 1];
    assert_eq!(progress.commit_checksum, begun);
}

/// The life of a replica: started twice, a register and puts, one in four of them longer than a sector.
fn live(tape: &mut Tape<Facts>, geometry: Geometry, puts: u32) {
    let mut number = 0;
    for life in 0..2 {
        let mut process = Process::start(geometry);
        process.run(tape, |process, _| is_serving(process));
        for _ in 0..=puts {
            process.request(number, if number % 4 == 3 { 5000 } else { 100 });
            let before = tape.facts.acknowledged;
            process.run(tape, |_, facts| facts.acknowledged > before);
            number += 1;
        }
        if life == 0 {
            // A planned end: the next start finds a disk at rest.
            process.run(tape, |process, _| {
                process.effects.io.is_empty() && process.is_idle()
            });
            while tape.complete().is_some() {}
        }
    }
}

impl Process {
    fn is_idle(&self) -> bool {
        self.small.free() == self.small.count() && self.large.free() == self.large.count()
    }
}

fn run(ack: JournalAck, tear: Tear, puts: u32, outcomes_max: u64, disk_lies: bool) -> Coverage {
    let geometry = geometry(ack);
    let coverage = explore(
        Thoroughness {
            outcomes_max,
            tear,
            seed: 11,
        },
        formatted(CLUSTER, FileId::of_random(9), 0, 1, geometry),
        Facts {
            disk_lies,
            ..Facts::default()
        },
        |tape| live(tape, geometry, puts),
        |state, facts, _| check(state, facts, geometry),
    );
    println!("{ack:?}, {tear:?}: {coverage:?}");
    coverage
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_is_cut() {
    let coverage = run(JournalAck::Single, Tear::Sector, 30, 8, false);
    assert!(coverage.points > 300 && coverage.torn > 100 && coverage.lost > 100);
    assert!(coverage.exhaustive * 2 > coverage.points);
}

#[test]
fn nothing_acknowledged_is_lost_below_the_sector_where_both_writes_are_awaited() {
    let coverage = run(JournalAck::Both, Tear::Bytes512, 20, 6, false);
    assert!(coverage.points > 200 && coverage.torn > 100 && coverage.lost > 100);
}

/// The test can fail: on a disk that breaks the one promise everything rests on, it does.
#[test]
#[should_panic(expected = "was acknowledged")]
fn a_disk_that_lies_about_durability_is_noticed() {
    run(JournalAck::Single, Tear::Sector, 10, 8, true);
}
