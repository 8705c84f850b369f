//! After each event of a replica: its effects are carried out, and what it did is checked against its disk.

use super::Cluster;
use crate::atlas::Atlas;
use crate::checker::{Times, World};
use crate::clock::EPOCH_NS;
use crate::disk::{DiskState, Fate};
use crate::host::Host;
use crate::network::Node;
use crate::workload::Workload;
use storage::SECTOR_SIZE;
use storage::header::{Command, HEADER_SIZE, Header, Prepare, PrepareOk};
use storage::io::{Buffer, IoOwner, IoRequest};
use storage::layout::{JournalAck, Layout, REPLICAS_MAX, SUPERBLOCK_COPIES};
use storage::recovery::lag_max;
use storage::superblock::COPY_SIZE_MAX;
use viewstone::constants::{CLOCK_ROUND_TRIP_MAX_NS, CLOCK_TOLERANCE_MAX_NS};
use viewstone::replica::{Event, Fatal, Peer};
use zerocopy::FromBytes;

/// Disks and clocks, for the checker.
struct Seen<'a> {
    hosts: &'a [Host],
    atlas: &'a Atlas,
    layout: &'a Layout,
    now_ns: u64,
}

impl World for Seen<'_> {
    fn holds(&self, replica: u8, prepare: &Prepare) -> bool {
        let slot = self.layout.slot(prepare.op);
        let disk = self.hosts[replica as usize].disk.state();
        self.atlas.is_slot_damaged(replica, slot)
            || is_durable(disk, self.layout.prepare_at(slot), prepare.frame.checksum)
    }

    fn is_journal_sound(&self, replica: u8) -> bool {
        self.atlas.is_journal_sound(replica)
    }

    /// How late wall clocks may ever have been, and what cannot be told of them: samples of a round trip, the agreement's
    /// tolerance, drift while there is none.
    fn times(&self) -> Times {
        let mut ahead = [i64::MIN; REPLICAS_MAX];
        for (ahead, host) in ahead.iter_mut().zip(self.hosts) {
            *ahead = host.clock.ahead_max_ns();
        }
        ahead.sort_unstable_by_key(|&ahead| std::cmp::Reverse(ahead));
        let drift_ns = self.now_ns / 250 + 1_000_000;
        let true_ns = EPOCH_NS + self.now_ns + drift_ns;
        let unsure_ns = 2 * CLOCK_TOLERANCE_MAX_NS + CLOCK_ROUND_TRIP_MAX_NS;
        let majority = self.hosts.len() / 2;
        Times {
            any_ns: true_ns.saturating_add_signed(ahead[0]),
            majority_ns: true_ns.saturating_add_signed(ahead[majority]) + unsure_ns,
        }
    }
}

impl<W: Workload> Cluster<W> {
    /// Completes the next disk request of a replica, if one is due, with the fate that the atlas gives it.
    pub(super) fn complete_io(&mut self, replica: u8) -> bool {
        let now_ns = self.now_ns;
        let host = &mut self.hosts[replica as usize];
        let Some(request) = host.disk.due(now_ns) else {
            return false;
        };
        let fate = self.atlas.fate(replica, request, host.disk.state());
        let (at, size, is_write) = match request {
            IoRequest::Write { at, size, .. } => (*at, *size, true),
            IoRequest::Read { at, size, .. } => (*at, *size, false),
            IoRequest::Sync { .. } => (0, 0, false),
        };
        let done = host.disk.complete_as(now_ns, fate);
        let mut done = done.expect("a request is due");
        if is_write {
            self.atlas.on_written(replica, at, fate, &mut host.disk);
        } else if size > 0 {
            let disk = host.disk.state();
            self.atlas.on_read(replica, at, size, &mut done, disk);
        }
        let detail = ((done.id.owner as u64) << 32) | u64::from(done.id.index);
        let failed = done.result.is_err();
        self.note(replica, 3, detail, || {
            let what = match (is_write, size) {
                (true, _) => "write",
                (false, 0) => "sync",
                (false, _) => "read",
            };
            let failed = if failed { ", failed" } else { "" };
            let astray = match fate {
                Fate::Lands => String::new(),
                other => format!(", {other:?}"),
            };
            format!("{what} of {size} at {at} is done{failed}{astray}")
        });
        self.hosts[replica as usize].step(now_ns, Event::Io(done));
        true
    }

    /// After an event of a replica: its effects, the checks, and the messages that may have room now.
    pub(super) fn settle(&mut self, replica: u8) {
        self.carry_out(replica);
        if self.hosts[replica as usize].held_count > 0 {
            self.deliver_held(replica);
        }
        self.touched(replica);
    }

    pub(super) fn carry_out(&mut self, replica: u8) {
        self.check_progress(replica);
        self.submit_io(replica);
        while let Some(send) = self.hosts[replica as usize].take_send() {
            let header = send.message.header();
            let command = header.command().expect("replicas send what exists");
            self.check_send(replica, header, send.message.body());
            let life = self.hosts[replica as usize].life;
            let (to, other_life) = match send.to {
                Peer::Replica(to) => (Node::Replica(to), self.hosts[to as usize].life),
                Peer::Client(connection) => (Node::Client(connection.index as u8), 0),
            };
            let link = (Node::Replica(replica), to);
            if let Some(filter) = &mut self.filter
                && !filter(link.0, link.1, header)
            {
                continue;
            }
            let bytes = send.message.bytes();
            self.network
                .send(self.now_ns, link, life + other_life, command, bytes);
        }
    }

    fn submit_io(&mut self, replica: u8) {
        let now_ns = self.now_ns;
        let host = &self.hosts[replica as usize];
        let process = host.process.as_ref().expect("it has just taken an event");
        if process.effects.io.is_empty() && process.effects.halt.is_none() {
            return;
        }
        let may_be_told = self.may_be_told(replica);
        let host = &mut self.hosts[replica as usize];
        let process = host.process.as_mut().expect("as above");
        if let Some(fatal) = process.effects.halt.take() {
            let told = matches!(fatal, Fatal::Regressed(_)) && may_be_told;
            assert!(self.may_halt || told, "replica {replica} halts: {fatal}");
            if !self.ending.contains(&replica) {
                self.halted.push((replica, fatal));
                self.ending.push(replica);
            }
        }
        while let Some(request) = process.effects.io.pop() {
            if let IoRequest::Write {
                buffer: Buffer::Shared(message),
                ..
            } = &request
            {
                self.checker
                    .on_journal_write(message.header(), message.body());
                assert_eq!(request.id().owner, IoOwner::Journal);
            }
            host.disk.submit(now_ns, request);
        }
    }

    fn check_progress(&mut self, replica: u8) {
        let host = &self.hosts[replica as usize];
        let process = host.process.as_ref().expect("it has just taken an event");
        // Nobody lies here.
        let refused = process.replica.metrics().contradictions;
        assert_eq!(
            refused, 0,
            "replica {replica} has refused votes that contradict others, or what it executed"
        );
        let progress = process.replica.progress();
        let opens = self.checker.has_opened(replica, &progress);
        let seen = Seen {
            hosts: &self.hosts,
            atlas: &self.atlas,
            layout: &self.layout,
            now_ns: self.now_ns,
        };
        self.checker.on_progress(replica, &progress, &seen);
        if opens {
            self.check_copies(replica);
        }
    }

    /// A superblock that has been opened is in four good copies, before anything else is written; unless the disk lies.
    fn check_copies(&self, replica: u8) {
        let disk = self.hosts[replica as usize].disk.state();
        let updating = (0..SUPERBLOCK_COPIES)
            .any(|copy| disk.is_writing(Layout::superblock_at(copy), COPY_SIZE_MAX));
        if updating {
            return;
        }
        let decision = self.atlas.decide(disk).expect("it has been opened");
        for copy in 0..SUPERBLOCK_COPIES {
            assert!(
                !decision.is_stale(copy) || self.atlas.is_copy_damaged(replica, copy),
                "replica {replica} has opened its superblock, and copy {copy} is another"
            );
        }
    }

    fn check_send(&mut self, replica: u8, header: &Header, body: &[u8]) {
        self.checker.on_send(replica, header, body);
        let view = header.frame.view;
        let relayed = matches!(header.command(), Some(Command::Prepare));
        if !relayed && view > self.view_durable[replica as usize] {
            let disk = self.hosts[replica as usize].disk.state();
            let durable = self.atlas.decide(disk);
            let durable = durable.map_or(0, |decision| decision.content.state.view);
            assert!(
                durable >= view,
                "replica {replica} says that it is in view {view}, and view {durable} is durable"
            );
            self.view_durable[replica as usize] = durable;
        }
        let promises = matches!(
            header.command(),
            Some(Command::PrepareOk | Command::DoViewChange)
        );
        assert!(
            !promises || !self.may_be_told(replica),
            "the disk of replica {replica} went back, all others remember it, and it promises something"
        );
        if let Some(ok) = header.try_typed::<PrepareOk>() {
            self.check_acknowledgement(replica, ok);
        }
    }

    /// What is acknowledged would be found after a crash, although a sector decays as well; unless the disk lies. See
    /// docs/data-file.md, "Rules of writing it leans on".
    fn check_acknowledgement(&self, replica: u8, ok: &PrepareOk) {
        let slot = self.layout.slot(ok.op);
        let disk = self.hosts[replica as usize].disk.state();
        let at = self.layout.prepare_at(slot);
        if !self.atlas.is_slot_damaged(replica, slot) {
            assert!(
                is_durable(disk, at, ok.prepare),
                "replica {replica} acknowledges op {}, which is not durable",
                ok.op
            );
            let prepare = header_at(disk, at);
            let redundant = header_at(disk, self.header_at(slot));
            let both = self.layout.geometry.journal_ack() == JournalAck::Both
                || prepare.frame.size as usize > SECTOR_SIZE
                || redundant.op == ok.op && !redundant.is_reserved()
                || !redundant.header().checksum_holds();
            assert!(
                !both || redundant.frame.checksum == ok.prepare,
                "replica {replica} acknowledges op {} without its redundant header",
                ok.op
            );
        }
        self.check_ring_rule(replica, ok);
    }

    /// The ops from 2W to W before one that is acknowledged are durable in both rings.
    fn check_ring_rule(&self, replica: u8, ok: &PrepareOk) {
        let disk = self.hosts[replica as usize].disk.state();
        let lag = lag_max(self.layout.geometry.pipeline_max);
        let checkpoint_op = self.hosts[replica as usize]
            .process
            .as_ref()
            .map_or(0, |process| process.replica.progress().checkpoint_op);
        let lowest = ok.op.saturating_sub(2 * lag).max(checkpoint_op + 1);
        for op in lowest..=ok.op.saturating_sub(lag) {
            let slot = self.layout.slot(op);
            if self.atlas.is_slot_damaged(replica, slot) {
                continue;
            }
            let prepare = header_at(disk, self.layout.prepare_at(slot));
            let redundant = header_at(disk, self.header_at(slot));
            let both = prepare.frame.checksum == redundant.frame.checksum;
            assert!(
                both && prepare.op == op,
                "replica {replica} acknowledges op {}, and op {op} is not in both rings",
                ok.op
            );
        }
    }

    fn header_at(&self, slot: usize) -> u64 {
        self.layout.headers_at + (slot * HEADER_SIZE) as u64
    }
}

/// The header of a prepare, or a redundant one, at an offset.
fn header_at(disk: &DiskState, at: u64) -> Prepare {
    let sector = disk.sector(at / SECTOR_SIZE as u64);
    let from = at as usize % SECTOR_SIZE;
    Prepare::read_from_bytes(&sector[from..from + HEADER_SIZE]).expect("a header's size")
}

/// Whether a prepare is in its slot, and stays there at a power cut.
fn is_durable(disk: &DiskState, at: u64, checksum: u128) -> bool {
    let sector = disk.sector(at / SECTOR_SIZE as u64);
    let found = u128::from_le_bytes(sector[..16].try_into().expect("16 bytes"));
    found == checksum && disk.is_sector_durable(at)
}

const _: () = assert!(std::mem::offset_of!(storage::header::Frame, checksum) == 0);
const _: () = assert!(HEADER_SIZE >= 16);
