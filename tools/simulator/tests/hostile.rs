//! What a peer may send is never a panic, and never a halt: a cluster of real replicas works, and one of them is also
//! sent messages that are sealed and keep their command's rules, but say anything: true messages with other numbers in
//! them, copies of old ones, logs that never were, and pure invention, from every peer and from clients, in every status.
//!
//! What they make the victim believe is not looked at: no protocol that trusts its replicas stands that. The others,
//! whom the misled victim misleads in turn, are held to the same rule.
//!
//! `HOSTILE=first+count cargo test -p simulator --test hostile -- --nocapture` runs other episodes, and more.

#[expect(dead_code, reason = "not every test needs all of it")]
mod common;
mod forge;

use common::{CLIENT, CLUSTER, Node, request, small_geometry};
use forge::{Forge, Sealed};
use simulator::prng::Prng;
use std::backtrace::Backtrace;
use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use storage::header::{
    Command, DoViewChange, Eviction, HEADER_SIZE, Header, Prepare, PrepareKind, ReplicaStatus,
    Reply, Typed,
};
use viewstone::engine::operation;
use viewstone::replica::{Event, Fatal, Now, Peer, Progress, Regressed};
use viewstone::state_machine::kv::Kv;
use viewstone::state_machine::kv::wire::{Item, Operation};
use zerocopy::{FromBytes, IntoBytes};

const MILLISECOND: u64 = 1_000_000;
const START: Now = Now {
    monotonic_ns: 1 << 40,
    realtime_ns: 1_700_000_000_000_000_000,
};

/// Things done in an episode.
const STEPS: u32 = 4000;

/// Packets on the way; more are lost.
const NETWORK_MAX: usize = 400;

/// A replica stops if another says that its file went back in time, or that its state is another. It cannot know better; and
/// after the former it stops at each start, until it has another file.
fn is_told_to_halt(fatal: &Fatal) -> bool {
    matches!(
        fatal,
        Fatal::Regressed(Regressed::Peer(_) | Regressed::Replaced(_) | Regressed::Condemned)
            | Fatal::Diverged(_)
    )
}

struct World {
    prng: Prng,
    nodes: Vec<Node<(Kv,)>>,
    /// Stops of nodes that were told to.
    halts: u32,
    /// From, to, bytes.
    network: VecDeque<(u8, u8, Vec<u8>)>,
    forge: Forge,
    victim: u8,
    /// Chance of a forged message at each step, in parts per million.
    malice: u32,
    clients: [Client; 3],
    told: Told,
}

/// A client, which takes any answer for an answer and goes on.
#[derive(Default)]
struct Client {
    session: u64,
    number: u32,
}

/// Id of the first client.
const CLIENT_ID: u128 = 9;

/// What the victim was told, and what it was then.
#[derive(Default)]
struct Told {
    seed: u64,
    last: VecDeque<String>,
    commands: BTreeMap<String, u32>,
    statuses: BTreeMap<String, u32>,
}

impl Told {
    fn note(&mut self, status: &str, message: &Sealed, from: Peer) {
        let header = message.header();
        let command = header.command().expect("checked");
        *self.commands.entry(format!("{command:?}")).or_default() += 1;
        *self.statuses.entry(status.to_owned()).or_default() += 1;
        if self.last.len() == 24 {
            self.last.pop_front();
        }
        let words = header.area.chunks_exact(8);
        let words: Vec<_> = words
            .map(u64::read_from_bytes)
            .map(Result::unwrap_or_default)
            .collect();
        let (view, size) = (header.frame.view, header.frame.size);
        self.last.push_back(format!(
            "{command:?} from {from:?} in {status}: view {view}, size {size}, {words:?}"
        ));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("HOSTILE").is_some() {
            eprintln!("episode {}; the last that the victim was told:", self.seed);
            for line in &self.last {
                eprintln!("    {line}");
            }
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let count = *prng.pick(&[2, 3, 3, 3, 4, 5]);
        let geometry = small_geometry();
        let node = |replica| {
            let mut node = Node::new(replica, count, geometry, START);
            node.may_halt = is_told_to_halt;
            node
        };
        let mut world = Self {
            nodes: (0..count).map(node).collect(),
            halts: 0,
            network: VecDeque::new(),
            forge: Forge::new(CLUSTER, count, geometry, prng.fork()),
            victim: prng.below(count.into()) as u8,
            malice: *prng.pick(&[10_000, 100_000, 400_000]),
            clients: Default::default(),
            told: Told::default(),
            prng,
        };
        world.told.seed = seed;
        for replica in 0..count {
            world.greet(replica);
        }
        world
    }

    /// Everybody is connected with this one.
    fn greet(&mut self, replica: u8) {
        for other in (0..self.nodes.len() as u8).filter(|&other| other != replica) {
            self.nodes[usize::from(replica)].step(Event::Connected(other));
            self.nodes[usize::from(other)].step(Event::Connected(replica));
        }
    }

    /// Puts what a node has said on its way.
    fn collect(&mut self, from: u8) {
        for (to, bytes) in self.nodes[usize::from(from)].said() {
            match to {
                Peer::Replica(to) if self.network.len() < NETWORK_MAX => {
                    self.forge.hear(&bytes);
                    self.network.push_back((from, to, bytes));
                }
                Peer::Replica(_) => {}
                Peer::Client(_) => self.take_answer(&bytes),
            }
        }
    }

    fn end_turn(&mut self, replica: u8) {
        self.nodes[usize::from(replica)].finish_turn();
        self.collect(replica);
    }

    fn step(&mut self) {
        let elapsed = *self.prng.pick(&[0, 0, 1000, 100_000, MILLISECOND]);
        self.pass(elapsed);
        let replica = self.prng.index(self.nodes.len()) as u8;
        match self.prng.below(1000) {
            0 => self.pass(300 * MILLISECOND),
            1 => {
                self.nodes[usize::from(replica)].restart();
                self.greet(replica);
            }
            2..200 => self.client_acts(replica),
            200..350 => self.end_turn(replica),
            350..550 => {
                for _ in 0..self.prng.below(8) {
                    self.nodes[usize::from(replica)].complete_one();
                }
                self.collect(replica);
            }
            _ => {
                for _ in 0..self.prng.below(6) {
                    self.deliver();
                }
            }
        }
        if self.prng.chance(self.malice) {
            self.lie();
        }
        for replica in 0..self.nodes.len() {
            if self.nodes[replica].halted {
                self.halts += 1;
                if self.nodes[replica].condemned {
                    self.nodes[replica].replace_file();
                }
                self.nodes[replica].restart();
                self.greet(replica as u8);
            }
        }
    }

    fn pass(&mut self, elapsed: u64) {
        for node in &mut self.nodes {
            node.pass(elapsed);
        }
    }

    fn deliver(&mut self) {
        // Mostly in order.
        let last = self
            .network
            .len()
            .min(if self.prng.chance(50_000) { 20 } else { 1 });
        if last == 0 {
            return;
        }
        let index = self.prng.index(last);
        let (from, to, bytes) = self.network.remove(index).expect("it is there");
        if self.prng.chance(20_000) {
            return;
        }
        self.nodes[usize::from(to)].deliver(Peer::Replica(from), &bytes);
        if self.prng.chance(700_000) {
            self.end_turn(to);
        }
    }

    fn client_acts(&mut self, replica: u8) {
        let index = self.prng.index(self.clients.len());
        let client = &self.clients[index];
        let operation = if client.session == 0 {
            operation::REGISTER
        } else if self.prng.chance(300_000) {
            0x100 | Operation::Get as u16
        } else {
            0x100 | Operation::Put as u16
        };
        let mut body = Vec::new();
        let key = [b'a' + self.prng.below(5) as u8];
        let value = vec![7; self.prng.below(5000) as usize];
        if operation == 0x100 | Operation::Put as u16 {
            let item = Item::Put {
                key: &key,
                value: &value,
            };
            item.encode(&mut body);
        } else if client.session > 0 {
            let size_max = 64;
            Item::Get {
                key: &key,
                size_max,
            }
            .encode(&mut body);
        }
        let number = if client.session == 0 {
            0
        } else {
            client.number.max(1)
        };
        let id = CLIENT_ID + index as u128;
        let bytes = request(id, client.session, number, operation, &body);
        self.forge.hear(&bytes);
        self.nodes[usize::from(replica)].deliver(CLIENT, &bytes);
    }

    fn take_answer(&mut self, bytes: &[u8]) {
        let header = Header::read_from_bytes(&bytes[..HEADER_SIZE]).expect("a header");
        if let Some(reply) = header.try_typed::<Reply>()
            && let Some(client) = self
                .clients
                .get_mut(reply.client.wrapping_sub(CLIENT_ID) as usize)
        {
            if reply.operation == operation::REGISTER {
                client.session = reply.session.max(1);
            }
            client.number = reply.request.saturating_add(1).max(client.number);
        } else if let Some(eviction) = header.try_typed::<Eviction>()
            && let Some(client) = self
                .clients
                .get_mut(eviction.client.wrapping_sub(CLIENT_ID) as usize)
        {
            *client = Client::default();
        }
    }

    /// Tells the victim something.
    fn lie(&mut self) {
        let node = &mut self.nodes[usize::from(self.victim)];
        let progress = node.replica.progress();
        let Some((from, message)) = self.forge.message(self.victim, &progress) else {
            return;
        };
        let status = format!("{:?}", progress.status);
        self.told.note(&status, &message, from);
        node.deliver(from, &message.bytes());
        if self.prng.coin() {
            self.end_turn(self.victim);
        }
    }
}

/// What all episodes came to: proof that they reached what they claim to test.
#[derive(Default, Debug)]
struct Reached {
    commands: BTreeMap<String, u32>,
    statuses: BTreeMap<String, u32>,
    /// Ops executed by the victims.
    ops: u64,
    /// Nodes that were told to halt.
    halts: u32,
    /// Votes that the victims refused.
    contradictions: u64,
}

fn episode(seed: u64, reached: &mut Reached) {
    let mut world = World::new(seed);
    // Half of the episodes begin with a cluster that works.
    let malice = world.malice;
    if seed.is_multiple_of(2) {
        world.malice = 0;
    }
    for step in 0..STEPS {
        if step == STEPS / 4 {
            world.malice = malice;
        }
        world.step();
    }
    let victim = &world.nodes[usize::from(world.victim)].replica;
    reached.halts += world.halts;
    reached.contradictions += victim.metrics().contradictions;
    reached.ops += victim.progress().commit_min;
    for (command, count) in &world.told.commands {
        *reached.commands.entry(command.clone()).or_default() += count;
    }
    for (status, count) in &world.told.statuses {
        *reached.statuses.entry(status.clone()).or_default() += count;
    }
}

/// What a replica stops at on purpose: what it has executed is not in the log of its view. A replica that trusts its peers can
/// be made to believe that, and cannot go on. Votes that contradict each other, or what it has executed, are refused.
const CONTRADICTIONS: [&str; 3] = [
    "has another op",
    "was executed",
    "is not chained to the last executed one",
];

/// Why an episode ended early, if it did: the panic's message and place.
fn panic_of(seed: u64, run: impl FnOnce()) -> Option<String> {
    static LAST: Mutex<String> = Mutex::new(String::new());
    std::panic::set_hook(Box::new(move |info| {
        let text = format!("episode {seed}: {info}\n{}", Backtrace::force_capture());
        *LAST.lock().expect("nothing else panics") = text;
    }));
    let result = std::panic::catch_unwind(AssertUnwindSafe(run));
    let _ = std::panic::take_hook();
    result.err().map(|_| LAST.lock().expect("as above").clone())
}

#[test]
fn whatever_a_peer_sends_nobody_panics_or_halts() {
    let mut reached = Reached::default();
    let (first, count) = match std::env::var("HOSTILE") {
        Ok(text) => {
            let (first, count) = text.split_once('+').expect("first+count");
            (first.parse().expect("u64"), count.parse().expect("u64"))
        }
        Err(_) => (0, 120),
    };
    let (mut contradictions, mut bad) = (BTreeMap::<_, u32>::new(), BTreeMap::new());
    for seed in first..first + count {
        let Some(text) = panic_of(seed, || episode(seed, &mut reached)) else {
            continue;
        };
        if let Some(&known) = CONTRADICTIONS.iter().find(|&&known| text.contains(known)) {
            *contradictions.entry(known).or_default() += 1;
        } else {
            let place = text.split(" at ").nth(1).unwrap_or_default();
            let place = place.lines().next().unwrap_or_default().to_owned();
            bad.entry(place).or_insert((0, text)).0 += 1;
        }
    }
    eprintln!("{contradictions:?} {reached:?}");
    for (place, (times, text)) in &bad {
        eprintln!("{times} of {count} episodes at {place} {text}");
    }
    assert!(bad.is_empty());
    assert!(reached.contradictions > count / 20, "votes were refused");
    assert!(reached.ops > 20 * count, "{} ops executed", reached.ops);
    for command in Command::ALL {
        let name = format!("{command:?}");
        assert!(
            reached.commands.contains_key(&name),
            "{name} was never sent"
        );
    }
    for status in ["Opening", "Starting", "Normal", "ViewChange", "Syncing"] {
        let times = reached.statuses.get(status);
        assert!(times.is_some(), "the victim was never {status}");
    }
}

impl World {
    /// Three replicas that have committed something and are quiet.
    fn quiet() -> Self {
        let seed = (0..100)
            .find(|&seed| Self::new(seed).nodes.len() == 3)
            .expect("drawn often");
        let mut world = Self::new(seed);
        for _ in 0..STEPS {
            world.honest_step();
        }
        world.until("all have the same log", |world| {
            let progress = world.nodes.iter().map(|node| node.replica.progress());
            let states: Vec<_> = progress
                .map(|it| (it.status, it.view, it.head_op, it.commit_min))
                .collect();
            let (status, _, head, commit) = states[0];
            let same = states.iter().all(|state| *state == states[0]);
            same && status == ReplicaStatus::Normal && head == commit && head > 10
        });
        world
    }

    /// Time passes and all hear each other; no client asks for anything.
    fn honest_step(&mut self) {
        self.pass(MILLISECOND);
        if self.nodes[0].replica.progress().head_op < 12 {
            let replica = self.prng.index(self.nodes.len()) as u8;
            self.client_acts(replica);
        }
        for replica in 0..self.nodes.len() as u8 {
            while self.nodes[usize::from(replica)].complete_one() {}
            self.end_turn(replica);
        }
        while let Some((from, to, bytes)) = self.network.pop_front() {
            self.nodes[usize::from(to)].deliver(Peer::Replica(from), &bytes);
            self.end_turn(to);
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        for _ in 0..20_000 {
            if is(self) {
                return;
            }
            self.honest_step();
        }
        panic!("never: {what}");
    }

    fn progress(&self, replica: u8) -> Progress {
        self.nodes[usize::from(replica)].replica.progress()
    }

    /// A vote of `from` for `view`, for a log of `log_view` that ends with this prepare.
    fn vote(&mut self, from: u8, view: u32, log_view: u32, end: &Prepare) {
        let mut vote = DoViewChange::new(CLUSTER, view, from);
        (vote.op, vote.op_max) = (end.op, end.op);
        (vote.log_view, vote.present, vote.eligible) = (log_view, 1, 1);
        vote.frame.size = 2 * HEADER_SIZE as u32;
        vote.header_mut().seal(end.as_bytes());
        let bytes = [vote.as_bytes(), end.as_bytes()].concat();
        let candidate = (view % 3) as usize;
        self.nodes[candidate].deliver(Peer::Replica(from), &bytes);
        while self.nodes[candidate].complete_one() {}
        self.nodes[candidate].finish_turn();
    }

    fn refused(&self, replica: u8) -> u64 {
        let node = &self.nodes[usize::from(replica)];
        node.replica.metrics().contradictions
    }
}

/// A prepare that nobody made.
fn invented(op: u64, view: u32, timestamp: u64) -> Prepare {
    let mut prepare = Prepare::new(CLUSTER, view, 0);
    prepare.op = op;
    prepare.kind = PrepareKind::Batch as u32;
    prepare.requests = 1;
    prepare.timestamp = timestamp;
    prepare.frame.size = 512;
    prepare.frame.checksum = prepare.header().checksum_of_bytes();
    prepare
}

/// The candidate of the next view is told of two logs of one view, by both others, or by one against its own vote: it refuses
/// these votes, says who they are from, and begins the view when true ones come.
#[test]
fn votes_that_contradict_each_other_are_refused_and_nothing_else_is() {
    // How far beyond the head the logs end, and of which view they are said to be.
    for (beyond, views_ahead, refused) in [(1, 0, 2), (1, 4, 2), (0, 0, 2), (0, 4, 2)] {
        let mut world = World::quiet();
        let before = world.progress(0);
        let view = before.view + 1 + views_ahead;
        let log_view = view - 1;
        let candidate = (view % 3) as u8;
        let others: Vec<u8> = (0..3).filter(|&it| it != candidate).collect();
        for turn in 0..2 {
            for (&from, time) in others.iter().zip([1, 2]) {
                let end = invented(before.head_op + beyond, log_view, (1 << 60) + time);
                world.vote(from, view, log_view, &end);
            }
            assert_eq!(
                world.progress(candidate).view,
                view,
                "it has heard of the view"
            );
            assert_eq!(
                world.progress(candidate).log_view,
                before.log_view,
                "turn {turn}"
            );
        }
        assert!(
            world.refused(candidate) >= refused,
            "{}",
            world.refused(candidate)
        );
        let node = &mut world.nodes[usize::from(candidate)].replica;
        let told = node.take_contradiction().expect("the operator is told");
        assert!(told.to_string().contains("two logs of one view"), "{told}");
        world.until("the view begins, or a later one", |world| {
            (0..3).all(|replica| {
                let progress = world.progress(replica);
                progress.status == ReplicaStatus::Normal && progress.view >= view
            })
        });
        let after = world.progress(candidate);
        assert!(
            after.commit_min >= before.commit_min,
            "nothing is forgotten"
        );
    }
}
