//! Messages on their way into replicas and clients.

use super::Cluster;
use crate::network::{Node, Packet};
use crate::workload::Workload;
use storage::header::{
    Command, Commit, DoViewChange, HEADER_SIZE, Header, Page, PageRequest, Ping, Prepare,
    PrepareOk, RequestHeaders, RequestPrepare, StartView,
};
use storage::layout::PAGE_SIZE;
use viewstone::replica::{ConnectionId, Event, Peer};
use zerocopy::{FromBytes, IntoBytes};

impl<W: Workload> Cluster<W> {
    pub(super) fn deliver(&mut self, mut packet: Packet) {
        if let Node::Replica(replica) = packet.to
            && self.is_paused(replica)
        {
            let until_ns = self.hosts[replica as usize].paused_until_ns();
            return self.network.hold(packet, until_ns);
        }
        self.spoil(&mut packet);
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
                self.due_ns[self.hosts.len() + index as usize] = client.due_ns();
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
                self.touched(replica);
            }
        }
    }

    /// Spoils a page on its way, now and then, as a replica whose memory fails would send it: all sums are right.
    fn spoil(&mut self, packet: &mut Packet) {
        if self.spoiled_pages == 0 {
            return;
        }
        let mut header = header_of(&packet.bytes);
        let holds_pages = header
            .try_typed::<Page>()
            .is_some_and(|page| page.kind == PageRequest::Pages as u32 && page.count > 0);
        if !holds_pages || !self.prng.chance(self.spoiled_pages) {
            return;
        }
        self.spoiled += 1;
        let content = packet.bytes.len() - 1 - self.prng.index(PAGE_SIZE);
        packet.bytes[content] ^= 1 << self.prng.below(8);
        header.seal(&packet.bytes[HEADER_SIZE..]);
        packet.bytes[..HEADER_SIZE].copy_from_slice(header.as_bytes());
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
    pub(super) fn deliver_held(&mut self, replica: u8) {
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
                if self.losses.listens()
                    && let Some(ping) = header_of(&packet.bytes).try_typed::<Ping>()
                {
                    self.hear(replica, ping);
                }
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
}

pub(super) fn header_of(bytes: &[u8]) -> Header {
    Header::read_from_bytes(&bytes[..HEADER_SIZE]).expect("a message has a header")
}

fn describe(packet: &Packet, header: &Header) -> String {
    let what = match header.command() {
        Some(Command::Prepare) => {
            let prepare = header.typed::<Prepare>();
            let (op, commit) = (prepare.op, prepare.commit);
            format!("prepare op {op} commit {commit}")
        }
        Some(Command::PrepareOk) => format!("prepare_ok op {}", header.typed::<PrepareOk>().op),
        Some(Command::Commit) => {
            let commit = header.typed::<Commit>();
            format!("commit {} round {}", commit.commit, commit.round)
        }
        Some(Command::DoViewChange) => {
            let vote = header.typed::<DoViewChange>();
            format!(
                "do_view_change log_view {} op {} op_max {} commit {} present {:b} nack {:b}",
                vote.log_view, vote.op, vote.op_max, vote.commit_max, vote.present, vote.nack
            )
        }
        Some(Command::StartView) => {
            let start = header.typed::<StartView>();
            format!("start_view op {} commit {}", start.op, start.commit_max)
        }
        Some(Command::RequestPrepare) => {
            let ask = header.typed::<RequestPrepare>();
            format!("request_prepare op {} {:08x}", ask.op, ask.prepare as u32)
        }
        Some(Command::RequestHeaders) => {
            let ask = header.typed::<RequestHeaders>();
            format!("request_headers {}..={}", ask.op_min, ask.op_max)
        }
        Some(command) => format!("{command:?}").to_lowercase(),
        None => "garbage".to_string(),
    };
    format!(
        "{:?} -> {:?}  view {} {what}, {} bytes, {:08x}",
        packet.from, packet.to, header.frame.view, header.frame.size, header.frame.checksum as u32
    )
}
