//! A network that loses, delays, repeats and reorders messages, whose links can be cut in one direction or clogged.
//!
//! Messages are copied as bytes, as a real one would; what arrives is checked like anything from outside. Each ordered
//! pair of nodes is a link with a bounded queue of its own: when it is full, the message is lost, as the server's full
//! send queues lose them. Reordering follows from random delay. A *cut* link loses what is sent into it and what was on
//! its way; a *clogged* one delivers nothing for a time, then all that it held.

use crate::prng::Prng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use storage::header::Command;

/// An end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Node {
    /// The replica with this index.
    Replica(u8),
    /// The client with this index.
    Client(u8),
}

/// How a network behaves; chances are in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetworkOptions {
    /// Least one-way delay, in nanoseconds.
    pub delay_min_ns: u64,
    /// Mean of the exponentially distributed delay on top.
    pub delay_mean_ns: u64,
    /// Chance that a message is lost.
    pub loss: u32,
    /// Chance that it arrives twice.
    pub duplicate: u32,
    /// Messages that a link holds.
    pub capacity: u32,
}

impl NetworkOptions {
    /// A good local network.
    pub const GOOD: Self = Self {
        delay_min_ns: 20_000,
        delay_mean_ns: 20_000,
        loss: 0,
        duplicate: 0,
        capacity: 256,
    };
}

/// A message on its way.
#[derive(Debug)]
pub struct Packet {
    /// Who sent it.
    pub from: Node,
    /// To whom.
    pub to: Node,
    /// The connection it is sent on: a packet of an ended connection is not delivered.
    pub connection: u64,
    /// Header and body.
    pub bytes: Vec<u8>,
    sequence: u64,
}

/// What became of the messages of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KindStatistics {
    /// Given to the network.
    pub sent: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Delivered twice by chance.
    pub duplicated: u64,
    /// Lost because the link was full.
    pub overflowed: u64,
    /// Lost because the link was cut.
    pub cut: u64,
    /// Delayed because the link was clogged.
    pub clogged: u64,
    /// Arrived after a message of the same link that was sent later.
    pub overtaken: u64,
    /// Arrived.
    pub arrived: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    queued: u32,
    /// Sequence of the newest message that has arrived.
    newest: u64,
    cut: bool,
    clogged_until_ns: u64,
}

/// Number of ordinals that a command may have.
pub const KINDS: usize = 32;

/// The network.
#[derive(Debug)]
pub struct Network {
    options: NetworkOptions,
    replicas: usize,
    nodes: usize,
    links: Vec<Link>,
    queue: BinaryHeap<Reverse<(u64, u64, usize)>>,
    packets: Vec<Option<Packet>>,
    free: Vec<usize>,
    /// Buffers for reuse.
    spare: Vec<Vec<u8>>,
    sequence: u64,
    /// Which messages arrive once more, and when.
    late: Option<(Command, u64)>,
    statistics: [KindStatistics; KINDS],
    prng: Prng,
}

impl Network {
    /// A network between replicas and clients.
    pub fn new(options: NetworkOptions, replicas: usize, clients: usize, prng: Prng) -> Self {
        let nodes = replicas + clients;
        Self {
            options,
            replicas,
            nodes,
            links: vec![Link::default(); nodes * nodes],
            queue: BinaryHeap::new(),
            packets: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
            sequence: 0,
            late: None,
            statistics: [KindStatistics::default(); KINDS],
            prng,
        }
    }

    /// Messages of this kind that are sent from now on arrive once more, at this time; none: no more of them do.
    pub fn set_late(&mut self, late: Option<(Command, u64)>) {
        self.late = late;
    }

    /// Changes how messages sent from now on are treated.
    pub fn set_options(&mut self, options: NetworkOptions) {
        self.options = options;
    }

    /// Cuts a link, in one direction; or mends it.
    pub fn set_cut(&mut self, from: Node, to: Node, cut: bool) {
        self.link(from, to).cut = cut;
    }

    /// Whether a link is cut.
    pub fn is_cut(&self, from: Node, to: Node) -> bool {
        self.links[self.index(from) * self.nodes + self.index(to)].cut
    }

    /// Mends every link, and ends all clogging of what is sent from now on.
    pub fn mend(&mut self) {
        for link in &mut self.links {
            link.cut = false;
            link.clogged_until_ns = 0;
        }
    }

    /// Delivers nothing over a link, in one direction, until `until_ns`.
    pub fn clog(&mut self, from: Node, to: Node, until_ns: u64) {
        let link = self.link(from, to);
        link.clogged_until_ns = link.clogged_until_ns.max(until_ns);
    }

    /// What became of the messages of each kind, by the command's ordinal.
    pub fn statistics(&self) -> &[KindStatistics; KINDS] {
        &self.statistics
    }

    /// What became of the messages of all kinds.
    pub fn total(&self) -> KindStatistics {
        let mut total = KindStatistics::default();
        for kind in &self.statistics {
            total.sent += kind.sent;
            total.lost += kind.lost;
            total.duplicated += kind.duplicated;
            total.overflowed += kind.overflowed;
            total.cut += kind.cut;
            total.clogged += kind.clogged;
            total.overtaken += kind.overtaken;
            total.arrived += kind.arrived;
        }
        total
    }

    /// The number of a node: replicas first.
    pub fn index(&self, node: Node) -> usize {
        match node {
            Node::Replica(replica) => replica as usize,
            Node::Client(client) => self.replicas + client as usize,
        }
    }

    fn link(&mut self, from: Node, to: Node) -> &mut Link {
        let index = self.index(from) * self.nodes + self.index(to);
        &mut self.links[index]
    }

    /// Sends a message of a kind.
    pub fn send(
        &mut self,
        now_ns: u64,
        (from, to): (Node, Node),
        connection: u64,
        kind: Command,
        bytes: &[u8],
    ) {
        let NetworkOptions {
            loss,
            duplicate,
            capacity,
            ..
        } = self.options;
        let kind = kind as usize;
        self.statistics[kind].sent += 1;
        if self.link(from, to).cut {
            self.statistics[kind].cut += 1;
            return;
        }
        if self.prng.chance(loss) {
            self.statistics[kind].lost += 1;
            return;
        }
        let late_ns = self.late.filter(|late| late.0 as usize == kind);
        let late_ns = late_ns.map(|late| late.1);
        let copies = 1 + usize::from(self.prng.chance(duplicate));
        self.sequence += 1;
        for copy in 0..copies + usize::from(late_ns.is_some()) {
            if self.link(from, to).queued >= capacity {
                self.statistics[kind].overflowed += 1;
                return;
            }
            self.link(from, to).queued += 1;
            self.statistics[kind].duplicated += copy as u64;
            let delay =
                self.options.delay_min_ns + self.prng.exponential(self.options.delay_mean_ns);
            let mut copied = self.spare.pop().unwrap_or_default();
            copied.clear();
            copied.extend_from_slice(bytes);
            let packet = Packet {
                from,
                to,
                connection,
                bytes: copied,
                sequence: self.sequence,
            };
            // The copy's number orders equal times.
            let order = 4 * self.sequence + copy as u64;
            let due_ns = late_ns.filter(|_| copy == copies);
            self.enqueue(packet, due_ns.unwrap_or(now_ns + delay), order);
        }
    }

    /// When the next message arrives.
    pub fn next_arrival_ns(&self) -> Option<u64> {
        self.queue.peek().map(|next| next.0.0)
    }

    /// Takes the next message, if it has arrived by `now_ns`. Give it back with [`Network::recycle`].
    pub fn arrive(&mut self, now_ns: u64) -> Option<Packet> {
        loop {
            if self.next_arrival_ns()? > now_ns {
                return None;
            }
            let Reverse((_, order, slot)) = self.queue.pop()?;
            let packet = self.packets[slot].take();
            let packet = packet.expect("a queued packet is kept");
            let (from, to, sequence) = (packet.from, packet.to, packet.sequence);
            let kind = kind_of(&packet);
            let link = self.link(from, to);
            if link.clogged_until_ns > now_ns && !link.cut {
                let due_ns = link.clogged_until_ns;
                self.packets[slot] = Some(packet);
                self.queue.push(Reverse((due_ns, order, slot)));
                self.statistics[kind].clogged += 1;
                continue;
            }
            link.queued -= 1;
            let cut = link.cut;
            let overtaken = sequence < link.newest;
            link.newest = link.newest.max(sequence);
            self.free.push(slot);
            if cut {
                self.statistics[kind].cut += 1;
                self.recycle(packet);
                continue;
            }
            self.statistics[kind].overtaken += u64::from(overtaken);
            self.statistics[kind].arrived += 1;
            return Some(packet);
        }
    }

    /// The same once more for a packet that its receiver could not take yet: it is there again at `due_ns`, if the link
    /// has room for it.
    pub fn hold(&mut self, packet: Packet, due_ns: u64) {
        let capacity = self.options.capacity;
        let (kind, order) = (kind_of(&packet), 4 * packet.sequence);
        let link = self.link(packet.from, packet.to);
        if link.queued >= capacity {
            self.statistics[kind].overflowed += 1;
            return self.recycle(packet);
        }
        link.queued += 1;
        self.statistics[kind].arrived -= 1;
        self.enqueue(packet, due_ns, order);
    }

    fn enqueue(&mut self, packet: Packet, due_ns: u64, order: u64) {
        let slot = self.free.pop().unwrap_or(self.packets.len());
        if slot == self.packets.len() {
            self.packets.push(None);
        }
        self.packets[slot] = Some(packet);
        self.queue.push(Reverse((due_ns, order, slot)));
    }

    /// Takes a packet's memory back.
    pub fn recycle(&mut self, packet: Packet) {
        self.spare.push(packet.bytes);
    }

    /// Messages on their way.
    pub fn in_flight(&self) -> usize {
        self.queue.len()
    }
}

/// The command's byte in the frame; messages are only counted by it.
fn kind_of(packet: &Packet) -> usize {
    let byte = packet.bytes.get(COMMAND_AT);
    byte.map_or(0, |&byte| byte as usize % KINDS)
}

/// Where the command is in a header.
const COMMAND_AT: usize = std::mem::offset_of!(storage::header::Frame, command);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::MILLION;

    const LINK: (Node, Node) = (Node::Replica(0), Node::Replica(1));

    fn network(options: NetworkOptions) -> Network {
        Network::new(options, 2, 1, Prng::new(5))
    }

    fn drain(network: &mut Network) -> Vec<u8> {
        let mut arrived = Vec::new();
        while let Some(packet) = network.arrive(u64::MAX) {
            arrived.push(packet.bytes[0]);
            network.recycle(packet);
        }
        arrived
    }

    #[test]
    fn messages_arrive_after_their_delay_and_overtake() {
        let mut network = network(NetworkOptions::GOOD);
        for byte in 0..50 {
            network.send(1000, LINK, 0, Command::Commit, &[byte]);
        }
        let first = network.next_arrival_ns().expect("fifty are on their way");
        assert!(first >= 1000 + NetworkOptions::GOOD.delay_min_ns);
        assert!(network.arrive(first - 1).is_none());
        let mut arrived = drain(&mut network);
        assert!(!arrived.is_sorted() && network.total().overtaken > 0);
        arrived.sort_unstable();
        assert_eq!(arrived, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn loss_and_duplication_are_counted_and_happen() {
        let mut network = network(NetworkOptions {
            loss: MILLION / 4,
            duplicate: MILLION / 4,
            capacity: 10_000,
            ..NetworkOptions::GOOD
        });
        for _ in 0..1000 {
            network.send(0, LINK, 0, Command::Prepare, &[1]);
        }
        let arrived = drain(&mut network).len() as u64;
        let prepares = network.statistics()[Command::Prepare as usize];
        assert!((200..300).contains(&prepares.lost) && (150..250).contains(&prepares.duplicated));
        assert_eq!(arrived, prepares.sent - prepares.lost + prepares.duplicated);
    }

    #[test]
    fn a_full_link_loses_and_others_do_not_suffer() {
        let mut network = network(NetworkOptions {
            capacity: 3,
            ..NetworkOptions::GOOD
        });
        for byte in 0..10 {
            network.send(0, LINK, 0, Command::Commit, &[byte]);
        }
        network.send(
            0,
            (Node::Client(0), Node::Replica(1)),
            0,
            Command::Request,
            &[99],
        );
        assert_eq!(network.total().overflowed, 7);
        assert_eq!(drain(&mut network).len(), 4);
    }

    #[test]
    fn a_cut_link_loses_what_is_on_its_way_and_the_other_direction_works() {
        let mut network = network(NetworkOptions::GOOD);
        let back = (LINK.1, LINK.0);
        network.send(0, LINK, 0, Command::Commit, &[1]);
        network.set_cut(LINK.0, LINK.1, true);
        network.send(0, LINK, 0, Command::Commit, &[2]);
        network.send(0, back, 0, Command::Commit, &[3]);
        assert_eq!(drain(&mut network), [3]);
        assert_eq!(network.total().cut, 2);
        network.mend();
        network.send(0, LINK, 0, Command::Commit, &[4]);
        assert_eq!(drain(&mut network), [4]);
    }

    #[test]
    fn a_clogged_link_delivers_later_and_loses_beyond_its_capacity() {
        let mut network = network(NetworkOptions {
            capacity: 2,
            ..NetworkOptions::GOOD
        });
        network.clog(LINK.0, LINK.1, 1_000_000_000);
        for byte in 0..3 {
            network.send(0, LINK, 0, Command::Commit, &[byte]);
        }
        assert!(network.arrive(999_999_999).is_none());
        assert_eq!(network.next_arrival_ns(), Some(1_000_000_000));
        let held = network.arrive(1_000_000_000).expect("the clog is over");
        network.hold(held, 2_000_000_000);
        assert_eq!(drain(&mut network).len(), 2);
        assert_eq!(
            (network.total().clogged, network.total().overflowed),
            (2, 1)
        );
    }
}
