//! A small workbench in the place of Maelstrom's: it starts nodes, is their network, and asks them as their clients do.
//!
//! The network delays every message by chance, so that messages overtake each other, loses some, and delivers none between
//! nodes that are cut off from each other at the time of delivery. It delivers nothing twice, and what was on its way to
//! or from a node that is killed is lost: so does Maelstrom's, and so do connections.

#![allow(dead_code)] // each test file uses a part

#[path = "../../../../tests/process/linearizability.rs"]
pub mod linearizability;
pub mod workload;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Whatever takes longer hangs.
pub const HANG: Duration = Duration::from_mins(1);

/// How long a client waits, as Maelstrom's do.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// How the network behaves when it is not cut.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Longest ordinary delay.
    pub delay_max: Duration,
    /// How many times that some messages take.
    pub delay_factor: u32,
    /// Of a thousand messages, those that take so long.
    pub late: u64,
    /// Of a thousand messages between nodes, those that are lost.
    pub lost: u64,
}

impl Behaviour {
    /// At once, and everything.
    pub const PERFECT: Self = Self {
        delay_max: Duration::ZERO,
        delay_factor: 1,
        late: 0,
        lost: 0,
    };
    /// As bad networks are.
    pub const POOR: Self = Self {
        delay_max: Duration::from_millis(6),
        delay_factor: 20,
        late: 10,
        lost: 20,
    };
}

/// Numbers from a seed.
pub struct Random(Xoshiro256PlusPlus);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }
}

/// A message under way. The order is that of delivery.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    due: Instant,
    number: u64,
    from: String,
    to: String,
    line: String,
}

enum End {
    /// Lines for the thread that writes them: a node that does not read must not hold up the others.
    Node(Sender<Vec<u8>>),
    Client(Sender<Value>),
}

fn writer(mut stdin: ChildStdin) -> Sender<Vec<u8>> {
    let (sender, lines) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        // One that was killed reads no more.
        while let Ok(line) = lines.recv()
            && stdin.write_all(&line).is_ok()
        {}
    });
    sender
}

struct State {
    behaviour: Behaviour,
    random: Random,
    packets: BinaryHeap<Reverse<Packet>>,
    sent: u64,
    ends: HashMap<String, End>,
    /// Sender and receiver between which nothing goes.
    cut: HashSet<(String, String)>,
    stopped: bool,
}

/// See the module's description. Clones are the same network.
#[derive(Clone)]
pub struct Network(Arc<(Mutex<State>, Condvar)>);

impl Network {
    fn new(behaviour: Behaviour, seed: u64) -> Self {
        let state = State {
            behaviour,
            random: Random::new(seed),
            packets: BinaryHeap::new(),
            sent: 0,
            ends: HashMap::new(),
            cut: HashSet::new(),
            stopped: false,
        };
        let this = Self(Arc::new((Mutex::new(state), Condvar::new())));
        let network = this.clone();
        thread::spawn(move || network.deliver());
        this
    }

    /// A test that fails on one thread goes on on the others until its end.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, from: &str, to: &str, body: &Value) {
        let mut state = self.state();
        let behaviour = state.behaviour;
        let between_nodes = [from, to].iter().all(|name| name.starts_with('n'));
        if between_nodes && state.random.below(1000) < behaviour.lost {
            return;
        }
        let micros = behaviour.delay_max.as_micros() as u64;
        let mut delay = Duration::from_micros(state.random.below(micros + 1));
        if state.random.below(1000) < behaviour.late {
            delay *= behaviour.delay_factor;
        }
        state.sent += 1;
        let packet = Packet {
            due: Instant::now() + delay,
            number: state.sent,
            from: from.to_owned(),
            to: to.to_owned(),
            line: json!({ "src": from, "dest": to, "body": body }).to_string() + "\n",
        };
        state.packets.push(Reverse(packet));
        self.0.1.notify_one();
    }

    fn deliver(&self) {
        let mut state = self.state();
        while !state.stopped {
            let now = Instant::now();
            let left = match state.packets.peek() {
                None => HANG,
                Some(Reverse(packet)) => packet.due.saturating_duration_since(now),
            };
            if !left.is_zero() {
                let waited = self.0.1.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let Some(Reverse(packet)) = state.packets.pop() else {
                continue;
            };
            let Packet { from, to, line, .. } = packet;
            let link = (from, to);
            if state.cut.contains(&link) {
                continue;
            }
            // Whoever is not there, or has just gone, gets nothing.
            match state.ends.get(&link.1) {
                Some(End::Node(lines)) => drop(lines.send(line.into_bytes())),
                Some(End::Client(sender)) => {
                    let message: Value = serde_json::from_str(&line).expect("it was written above");
                    drop(sender.send(message["body"].clone()));
                }
                None => {}
            }
        }
    }

    /// Nothing goes from one to the other; what is under way neither.
    pub fn cut(&self, from: &str, to: &str) {
        let link = (from.to_owned(), to.to_owned());
        self.state().cut.insert(link);
    }

    /// Everything goes everywhere again.
    pub fn heal(&self) {
        self.state().cut.clear();
    }

    fn forget(&self, name: &str) {
        let mut state = self.state();
        state.ends.remove(name);
        let concerns = |packet: &Packet| packet.from == name || packet.to == name;
        state.packets.retain(|Reverse(packet)| !concerns(packet));
    }

    /// Writes a line to a node, whatever it is.
    pub fn write(&self, node: &str, line: &[u8]) {
        match self.state().ends.get(node) {
            Some(End::Node(lines)) => lines.send(line.to_vec()).expect("the node reads"),
            _ => panic!("{node} does not run"),
        }
    }
}

/// A client of the nodes: one request at a time.
pub struct Client {
    name: String,
    network: Network,
    answers: Receiver<Value>,
    requests: u64,
}

impl Client {
    /// Sends a request and waits for its answer; none: there was none in time.
    pub fn try_call(&mut self, node: &str, mut body: Value, timeout: Duration) -> Option<Value> {
        self.requests += 1;
        body["msg_id"] = self.requests.into();
        self.network.send(&self.name, node, &body);
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = self.answers.recv_timeout(left).ok()?;
            if answer["in_reply_to"] == self.requests {
                return Some(answer);
            }
        }
    }

    /// The answer to a request, which comes.
    pub fn call(&mut self, node: &str, body: &Value) -> Value {
        let answer = self.try_call(node, body.clone(), HANG);
        answer.unwrap_or_else(|| panic!("{node} does not answer {body}"))
    }

    /// Asks until the answer is another than "not now" and "unknown".
    pub fn insist(&mut self, node: &str, body: &Value) -> Value {
        let until = Instant::now() + HANG;
        while Instant::now() < until {
            let answer = self.try_call(node, body.clone(), TIMEOUT);
            let again = [json!(0), json!(11)];
            if let Some(answer) = answer.filter(|it| !again.contains(&it["code"])) {
                return answer;
            }
        }
        panic!("{node} does not serve {body}");
    }
}

/// Nodes and their network. Dropped, it ends them.
pub struct Workbench {
    pub network: Network,
    pub names: Vec<String>,
    directory: PathBuf,
    running: HashMap<String, Child>,
    clients: u64,
}

impl Workbench {
    /// Starts `count` nodes. `name` is the test's.
    pub fn start(name: &str, count: usize, behaviour: Behaviour, seed: u64) -> Self {
        let own = format!("maelstrom-{name}-{}", std::process::id());
        let mut this = Self {
            network: Network::new(behaviour, seed),
            names: (1..=count).map(|it| format!("n{it}")).collect(),
            directory: std::env::temp_dir().join(own),
            running: HashMap::new(),
            clients: 0,
        };
        for index in 0..count {
            this.start_node(index);
        }
        this
    }

    /// Starts a node and tells it who it is. If it ran before, it goes on with its data file.
    pub fn start_node(&mut self, index: usize) {
        self.spawn(index);
        let body = json!({
            "type": "init", "node_id": self.names[index], "node_ids": self.names
        });
        let answer = self.client().call(&self.names[index], &body);
        assert_eq!(answer["type"], "init_ok", "{answer}");
    }

    /// Starts a node's process.
    pub fn spawn(&mut self, index: usize) {
        let name = self.names[index].clone();
        let mut child = Command::new(env!("CARGO_BIN_EXE_maelstrom-node"))
            .arg("--directory")
            .arg(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built for this test");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let end = End::Node(writer(stdin));
        self.network.state().ends.insert(name.clone(), end);
        assert!(self.running.insert(name.clone(), child).is_none());
        let network = self.network.clone();
        thread::spawn(move || {
            // The last line of one that is killed may be half a line.
            for line in stdout.lines().map_while(Result::ok) {
                let Ok(message) = serde_json::from_str::<Value>(&line) else {
                    continue;
                };
                let to = message["dest"].as_str().expect("a node says to whom");
                network.send(&name, to, &message["body"]);
            }
        });
    }

    /// Ends a node's process as kill -9 does.
    pub fn kill(&mut self, index: usize) {
        let name = &self.names[index];
        let mut child = self.running.remove(name).expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it was killed");
        self.network.forget(name);
    }

    /// Ends a node's input. Its exit status.
    pub fn end_input(&mut self, index: usize) -> std::process::ExitStatus {
        let name = &self.names[index];
        let mut child = self.running.remove(name).expect("it runs");
        self.network.forget(name);
        child.wait().expect("it ends")
    }

    /// A new client.
    pub fn client(&mut self) -> Client {
        self.clients += 1;
        let name = format!("c{}", self.clients);
        let (sender, answers) = mpsc::channel();
        let mut state = self.network.state();
        state.ends.insert(name.clone(), End::Client(sender));
        Client {
            name,
            network: self.network.clone(),
            answers,
            requests: 0,
        }
    }

    /// No message passes between these nodes and the others, either way.
    pub fn isolate(&self, apart: &[usize]) {
        for from in 0..self.names.len() {
            for to in 0..self.names.len() {
                if apart.contains(&from) != apart.contains(&to) {
                    self.network.cut(&self.names[from], &self.names[to]);
                }
            }
        }
    }
}

impl Drop for Workbench {
    fn drop(&mut self) {
        let mut state = self.network.state();
        state.stopped = true;
        state.ends.clear();
        drop(state);
        self.network.0.1.notify_all();
        for child in self.running.values_mut() {
            // One that ended by itself has said why.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
