//! What scenarios are written in.

use simulator::atlas::{StorageFaults, Zone};
use simulator::client::{Client, ClientOptions};
use simulator::cluster::{Cluster, ClusterOptions, MadeBy};
use simulator::disk::{DiskSpeed, DiskState};
use simulator::host::{Crash, NodeKind};
use simulator::network::{NetworkOptions, Node};
use simulator::prng::Prng;
use simulator::workload::Workload;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use storage::SECTOR_SIZE;
use storage::header::{Command, HEADER_SIZE, Header, ReplicaStatus};
use storage::layout::{Geometry, HEADERS_PER_SECTOR};
use viewstone::replica::Progress;
use viewstone::rules::Strict;
use viewstone::state_machine::kv::Kv;
use viewstone::state_machine::kv::model::Model;
use viewstone::state_machine::kv::wire::{Item, Operation};
use viewstone::state_machine::{Context, Limits};

pub const MILLISECOND: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MILLISECOND;

/// Within this time, in nanoseconds, whatever a script waits for must happen.
const PATIENCE: u64 = 30 * SECOND;

/// Rings of sixteen slots: wraps and checkpoints come soon.
pub const GEOMETRY: Geometry = Geometry {
    state_size: 1100 << 10,
    message_size_max: 8 << 10,
    slots: 16,
    pipeline_max: 2,
    sessions_max: 4,
    reply_size_max: 64,
    ..Geometry::SMALL
};

/// What clients ask for next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// A write that fits into a sector.
    Write,
    /// A write of two sectors.
    LongWrite,
    /// A read.
    Read,
}

thread_local! {
    static ASK: Cell<Ask> = const { Cell::new(Ask::Write) };
}

/// Clients that ask for what the script says: each write puts another value under one of a few keys.
#[derive(Debug)]
pub struct Calls {
    limits: Limits,
    model: Model,
    count: u64,
}

const MACHINE: u16 = 1 << 8;

impl Workload for Calls {
    type Machines = (Kv,);

    fn new(limits: Limits, _: &mut Prng) -> Self {
        ASK.set(Ask::Write);
        Self {
            limits,
            model: Model::new(),
            count: 0,
        }
    }

    fn request(&mut self, _: &mut Prng, body: &mut Vec<u8>) -> u16 {
        let ask = ASK.get();
        // A read is of what was written last.
        self.count += u64::from(ask != Ask::Read);
        let key = [b'a' + (self.count % 5) as u8];
        let (key, size_max) = (&key[..], u32::MAX);
        let size = if ask == Ask::LongWrite { 4500 } else { 8 };
        let mut value = self.count.to_le_bytes().to_vec();
        value.resize(size, 7);
        let (item, operation) = match ask {
            Ask::Read => (Item::Get { key, size_max }, Operation::Get),
            _ => (Item::Put { key, value: &value }, Operation::Put),
        };
        item.encode(body);
        MACHINE | operation as u16
    }

    fn apply(&mut self, context: &Context, operation: u16, body: &[u8], _: &[usize]) -> Vec<u8> {
        let reply = self
            .model
            .apply(&self.limits, context.timestamp, operation as u8, body);
        reply.expect("only valid requests are made")
    }
}

/// Messages that are lost.
struct Loss {
    from: Option<Node>,
    to: Option<Node>,
    commands: Vec<Command>,
}

/// An end of a link in a script.
#[derive(Clone, Copy)]
pub enum Who {
    /// Everybody.
    All,
    /// A replica.
    R(u8),
    /// The client.
    C(u8),
}

impl Who {
    fn node(self) -> Option<Node> {
        match self {
            Self::All => None,
            Self::R(replica) => Some(Node::Replica(replica)),
            Self::C(client) => Some(Node::Client(client)),
        }
    }
}

pub use Who::{All, C, R};

/// What of a slot is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The first sector of the prepare: its header.
    Prepare,
    /// The body.
    Body,
    /// The redundant header.
    Redundant,
    /// Prepare and redundant header.
    Both,
}

/// A cluster under a script.
pub struct Script {
    pub cluster: Cluster<Calls>,
    losses: Rc<RefCell<Vec<Loss>>>,
    replicas: u8,
}

/// Which replicas: with all rules kept, or one broken.
pub type Kind = fn(&Geometry) -> NodeKind;

/// All rules are kept.
pub const STRICT: Kind = NodeKind::new::<(Kv,), Strict>;

/// A cluster that nobody has started.
pub fn stopped(replicas: u8, geometry: Geometry) -> Script {
    make(STRICT, replicas, 1, geometry)
}

/// The same, of replicas that may break a rule.
pub fn stopped_kind(kind: Kind, replicas: u8) -> Script {
    make(kind, replicas, 1, GEOMETRY)
}

/// A cluster that has begun and serves: view 0, replica 0 leads, the client has its session.
pub fn serving(replicas: u8) -> Script {
    serving_kind(STRICT, replicas)
}

/// The same with another geometry.
pub fn serving_with(replicas: u8, geometry: Geometry) -> Script {
    begun(stopped(replicas, geometry))
}

/// The same, of replicas that may break a rule.
pub fn serving_kind(kind: Kind, replicas: u8) -> Script {
    begun(make(kind, replicas, 1, GEOMETRY))
}

/// The same with several clients, which call all at once.
pub fn serving_clients(kind: Kind, replicas: u8, clients: u8) -> Script {
    begun(make(kind, replicas, clients, GEOMETRY))
}

fn make(kind: Kind, replicas: u8, clients: u8, geometry: Geometry) -> Script {
    assert_eq!(geometry.check(), Ok(()));
    let options = ClusterOptions {
        replica_count: replicas,
        client_count: clients,
        geometry,
        network: NetworkOptions::GOOD,
        disk: DiskSpeed::FAST,
        storage: StorageFaults::default(),
        client: ClientOptions {
            think_mean_ns: 500_000,
            resend_ns: 30 * MILLISECOND,
            stray: 0,
        },
        turn_max_ns: 20_000,
    };
    let mut cluster = Cluster::of_kind(
        options,
        kind(&geometry),
        Prng::new(7),
        std::env::var_os("SCENARIO_TRACE").is_some(),
    );
    cluster.set_draining(true);
    let losses: Rc<RefCell<Vec<Loss>>> = Rc::default();
    let lost = Rc::clone(&losses);
    cluster.set_filter(Some(Box::new(move |from, to, header: &Header| {
        let is = |wanted: Option<Node>, node: Node| wanted.is_none_or(|wanted| wanted == node);
        let command = header.command().expect("only what exists is sent");
        !lost.borrow().iter().any(|loss| {
            let named = loss.commands.is_empty() || loss.commands.contains(&command);
            is(loss.from, from) && is(loss.to, to) && named
        })
    })));
    Script {
        cluster,
        losses,
        replicas,
    }
}

fn begun(mut script: Script) -> Script {
    script.start_all();
    script.writes(2);
    script.settle();
    assert_eq!(script.cluster.primary(), Some(0));
    assert_eq!(script.view(0), 0);
    script
}

impl Script {
    // What is.

    pub fn all(&self) -> Vec<u8> {
        (0..self.replicas).collect()
    }

    pub fn progress(&self, replica: u8) -> Progress {
        self.cluster.progress(replica).expect("the replica is up")
    }

    pub fn view(&self, replica: u8) -> u32 {
        self.progress(replica).view
    }

    pub fn head(&self, replica: u8) -> u64 {
        self.progress(replica).head_op
    }

    pub fn commit(&self, replica: u8) -> u64 {
        self.progress(replica).commit_min
    }

    pub fn is_normal(&self, replica: u8) -> bool {
        let progress = self.cluster.progress(replica);
        progress.is_some_and(|progress| progress.status == ReplicaStatus::Normal)
    }

    // What happens.

    /// Runs until something is so; it must be, before long.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let end = self.cluster.now_ns() + PATIENCE;
        while !is(self) {
            let now = self.cluster.now_ns();
            assert!(now < end, "not before long: {what}; {}", self.describe());
            self.cluster.run(now + 200_000, |_| false);
        }
    }

    fn describe(&self) -> String {
        let states = (0..self.replicas).map(|replica| self.cluster.progress(replica));
        format!("{:#?}", states.collect::<Vec<_>>())
    }

    pub fn pass(&mut self, time_ns: u64) {
        self.cluster.run_for(time_ns);
    }

    /// Begins a call (of each client); it is not waited for.
    #[track_caller]
    pub fn begin(&mut self, ask: Ask) {
        ASK.set(ask);
        assert!(!self.is_waiting(), "one call at a time");
        let calls = |it: &Self| {
            let clients = it.cluster.clients().iter();
            clients
                .map(|client| client.statistics().sent)
                .collect::<Vec<_>>()
        };
        let before = calls(self);
        self.cluster.set_draining(false);
        self.until("the call begins", |it| {
            calls(it)
                .iter()
                .zip(&before)
                .all(|(now, before)| now > before)
        });
        self.cluster.set_draining(true);
    }

    /// The call under way is answered.
    #[track_caller]
    pub fn answered(&mut self) {
        self.until("the call is answered", |it| !it.is_waiting());
    }

    pub fn is_waiting(&self) -> bool {
        self.cluster.clients().iter().any(Client::is_waiting)
    }

    /// So many calls, one after the other, are answered.
    #[track_caller]
    pub fn calls(&mut self, ask: Ask, count: u64) {
        for _ in 0..count {
            self.begin(ask);
            self.answered();
        }
    }

    #[track_caller]
    pub fn writes(&mut self, count: u64) {
        self.calls(Ask::Write, count);
    }

    /// The call under way is answered, and so are as many more.
    #[track_caller]
    pub fn writes_more(&mut self, count: u64) {
        self.answered();
        self.writes(count);
    }

    /// A write is not answered within this time; it goes on waiting.
    #[track_caller]
    pub fn waits(&mut self, time_ns: u64) {
        self.pass(time_ns);
        assert!(self.is_waiting(), "answered");
    }

    /// All replicas that are up and talk have what there is.
    #[track_caller]
    pub fn settle(&mut self) {
        let up: Vec<u8> = self
            .all()
            .into_iter()
            .filter(|&it| self.cluster.is_up(it))
            .collect();
        self.settle_among(&up);
    }

    /// These have what there is.
    #[track_caller]
    pub fn settle_among(&mut self, replicas: &[u8]) {
        self.until("all agree", |it| it.cluster.has_converged(replicas));
    }

    pub fn start_all(&mut self) {
        for replica in self.all() {
            if !self.cluster.is_up(replica) {
                self.cluster.start(replica);
            }
        }
    }

    /// Everybody is there and talks: all must agree and serve, and nothing is left over.
    #[track_caller]
    pub fn recovers(&mut self) {
        self.hear_all();
        self.start_all();
        self.settle();
        self.writes(3);
        self.settle();
        self.pass(2 * SECOND);
        self.until("the disks rest", |it| it.cluster.is_at_rest());
        self.cluster.check_quiescence();
    }

    // Who is there.

    pub fn start(&mut self, replica: u8) {
        self.cluster.start(replica);
    }

    pub fn kill(&mut self, replica: u8) {
        self.cluster.crash(replica, Crash::Kill);
    }

    pub fn power_cut(&mut self, replica: u8) {
        self.cluster.crash(replica, Crash::PowerCut);
    }

    /// Kills a replica and starts it again; it has read its data file.
    #[track_caller]
    pub fn restart(&mut self, replica: u8) {
        self.kill(replica);
        self.start(replica);
        self.opened(replica);
    }

    #[track_caller]
    pub fn opened(&mut self, replica: u8) {
        self.until("the data file is read", |it| {
            it.progress(replica).status != ReplicaStatus::Opening
        });
    }

    // Who hears whom.

    /// Cuts everything between the groups, and mends everything within them.
    pub fn partition(&mut self, groups: &[&[u8]]) {
        let group = |replica: u8| groups.iter().position(|group| group.contains(&replica));
        for from in 0..self.replicas {
            for to in (0..self.replicas).filter(|&to| to != from) {
                let apart = group(from).is_none() || group(from) != group(to);
                self.cluster.set_cut(from, to, apart);
            }
        }
    }

    /// In this direction nothing arrives.
    pub fn cut(&mut self, from: u8, to: u8) {
        self.cluster.set_cut(from, to, true);
    }

    /// Messages of these kinds (none named: of all) are lost from now on.
    pub fn lose(&mut self, from: Who, to: Who, commands: &[Command]) {
        self.losses.borrow_mut().push(Loss {
            from: from.node(),
            to: to.node(),
            commands: commands.to_vec(),
        });
    }

    /// What was lost arrives again; links that were cut stay so.
    pub fn lose_nothing(&mut self) {
        self.losses.borrow_mut().clear();
    }

    /// No link is cut; what is lost stays lost.
    pub fn hear_links(&mut self) {
        self.cluster.mend();
    }

    /// Everybody hears everybody.
    pub fn hear_all(&mut self) {
        self.lose_nothing();
        self.cluster.mend();
        self.cluster.set_network(NetworkOptions::GOOD);
    }

    /// What is sent on a link now arrives much later.
    pub fn delay(&mut self, from: u8, to: u8, until_ns: u64) {
        let link = (Node::Replica(from), Node::Replica(to));
        self.cluster.network_mut().clog(link.0, link.1, until_ns);
    }

    /// Every message arrives twice.
    pub fn repeat_all(&mut self) {
        self.cluster.set_network(NetworkOptions {
            duplicate: 1_000_000,
            ..NetworkOptions::GOOD
        });
    }

    // What is on the disks.

    /// The disk of a replica that is down holds again what it held once.
    pub fn put_back(&mut self, replica: u8, state: DiskState) {
        self.cluster.put_back_disk(replica, state);
    }

    /// The file of a replica that is down is gone, and another was made in its place.
    pub fn new_file(&mut self, replica: u8) {
        self.cluster.lose_disk(replica, MadeBy::Format);
    }

    /// Damages a replica's copy of an op.
    pub fn damage(&mut self, replica: u8, op: u64, part: Part) {
        let layout = *self.cluster.layout();
        let slot = layout.slot(op);
        let mut flip = |at: u64, byte: usize| {
            let disk = self.cluster.disk_mut(replica);
            let mut sector = vec![0; SECTOR_SIZE];
            disk.state().read(at, &mut sector);
            sector[byte] ^= 0x10;
            disk.state_mut().overwrite(at, &sector);
        };
        if matches!(part, Part::Prepare | Part::Both) {
            flip(layout.prepare_at(slot), 20);
        }
        if part == Part::Body {
            flip(layout.prepare_at(slot), HEADER_SIZE + 20);
        }
        if matches!(part, Part::Redundant | Part::Both) {
            let within = slot % HEADERS_PER_SECTOR * HEADER_SIZE;
            flip(layout.header_sector_at(slot), within + 20);
        }
        let headers = slot / HEADERS_PER_SECTOR * HEADERS_PER_SECTOR;
        if matches!(part, Part::Redundant) {
            self.cluster
                .damaged(replica, Zone::Headers { slot: headers });
        } else {
            self.cluster.damaged(replica, Zone::Prepare { slot });
        }
    }
}

/// Without its rule the script fails, and says so.
#[track_caller]
pub fn noticed(how: &str, script: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(script)) else {
        panic!("nothing notices that the rule is broken");
    };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.expect("a panic with a text");
    assert!(text.contains(how), "noticed otherwise: {text}");
}

/// Replicas without one rule.
macro_rules! without {
    ($rule:ident) => {{
        struct Broken;
        impl viewstone::rules::Rules for Broken {
            type Journal = storage::journal::Strict;
            type Superblock = storage::superblock::Sound;
            type Checkpoint = storage::checkpoint::Strict;
            const $rule: bool = false;
        }
        let kind: super::script::Kind = |geometry| {
            simulator::host::NodeKind::new::<(viewstone::state_machine::kv::Kv,), Broken>(geometry)
        };
        kind
    }};
}

pub(crate) use without;
