//! Looks after a test that waits for replies: one that takes long is told of while it is waited for, with what all threads do,
//! so that a run that does not end says why. It writes to standard error itself: what a test prints is shown only when it ends.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use viewstone::client::ClientOptions;
use viewstone::resp::Connection;
use viewstone::storage::header::ReplicaStatus;

/// A wait that is longer is told of, once.
const LONG: Duration = Duration::from_secs(12);

/// How often a test that goes on for long tells how far it is.
const NEWS: Duration = Duration::from_mins(1);

/// A test that takes longer does not end any more.
const END: Duration = Duration::from_mins(15);

const LOOK: Duration = Duration::from_millis(100);

/// How long those who are asked what they do may think about it.
const ANSWER: Duration = Duration::from_secs(2);

/// Waits that are told of, the longest.
const SLOWEST_MAX: usize = 8;

/// Upper ends of the classes in which waits are counted, in milliseconds.
const CLASSES_MS: [u64; 9] = [1, 3, 10, 30, 100, 300, 1000, 3000, u64::MAX];

/// What is waited for, and what was.
struct Waits {
    name: String,
    begin: Instant,
    /// Of a gateway and of replicas that can be asked.
    addresses: Option<(String, Vec<String>)>,
    what: String,
    since: Instant,
    done: u64,
    /// How many waits of each class there were.
    classes: [u64; CLASSES_MS.len()],
    slowest: Vec<(Duration, String)>,
}

/// Watches from its making until it is dropped.
pub struct Watch {
    waits: Arc<Mutex<Waits>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

fn lock(waits: &Mutex<Waits>) -> MutexGuard<'_, Waits> {
    waits
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Watch {
    /// Of a test with this name. To be dropped last, so that it watches how everything else ends.
    pub fn new(name: &str) -> Self {
        let now = Instant::now();
        let waits = Arc::new(Mutex::new(Waits {
            name: name.to_owned(),
            begin: now,
            addresses: None,
            what: "the test".to_owned(),
            since: now,
            done: 0,
            classes: [0; CLASSES_MS.len()],
            slowest: Vec::new(),
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let (watched, told) = (Arc::clone(&waits), Arc::clone(&stop));
        let thread = Some(thread::spawn(move || watch(&watched, &told)));
        Self {
            waits,
            stop,
            thread,
        }
    }

    /// A gateway and replicas that may be asked what they do.
    pub fn may_ask(&self, stand: &super::Stand) {
        let replicas = stand.cluster.addresses().to_vec();
        lock(&self.waits).addresses = Some((stand.gateway.address.clone(), replicas));
    }

    /// From here on this is waited for.
    pub fn wait_for(&self, what: impl Into<String>) {
        let mut waits = lock(&self.waits);
        (waits.what, waits.since) = (what.into(), Instant::now());
    }

    /// It has come; then it is the test that is waited for.
    pub fn came(&self) {
        let mut waits = lock(&self.waits);
        let took = waits.since.elapsed();
        let class = CLASSES_MS
            .iter()
            .position(|&end| took.as_millis() < u128::from(end));
        waits.classes[class.expect("the last has no end")] += 1;
        waits.done += 1;
        let what = std::mem::replace(&mut waits.what, "the test".to_owned());
        waits.since = Instant::now();
        let least = waits.slowest.last().map_or(Duration::ZERO, |it| it.0);
        if took > least || waits.slowest.len() < SLOWEST_MAX {
            waits.slowest.push((took, what));
            waits.slowest.sort_by_key(|it| std::cmp::Reverse(it.0));
            waits.slowest.truncate(SLOWEST_MAX);
        }
    }

    /// How long everything took.
    pub fn summary(&self) -> String {
        lock(&self.waits).summary()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Waits {
    fn summary(&self) -> String {
        let (seconds, done) = (self.begin.elapsed().as_secs_f64(), self.done);
        let mut text = format!("{}: {done} waits in {seconds:.1} s:", self.name);
        for (count, end) in self.classes.iter().zip(CLASSES_MS) {
            let _ = match end {
                _ if *count == 0 => Ok(()),
                u64::MAX => write!(text, " {count} longer;"),
                end => write!(text, " {count} below {end} ms;"),
            };
        }
        for (took, what) in &self.slowest {
            let _ = write!(text, "\n  {took:.1?} {what}");
        }
        text
    }
}

fn watch(waits: &Mutex<Waits>, stop: &AtomicBool) {
    let mut told_of = None;
    let mut news_at = NEWS;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        let (since, whole) = {
            let waits = lock(waits);
            (waits.since, waits.begin.elapsed())
        };
        let is_long = since.elapsed() > LONG && told_of != Some(since);
        if is_long || whole > news_at {
            tell(waits);
            told_of = is_long.then_some(since).or(told_of);
            news_at = whole.max(news_at) + NEWS;
        }
        if whole > END {
            say("it does not end\n");
            std::process::exit(101);
        }
    }
}

/// Tells what is waited for, and what everybody does meanwhile.
fn tell(waits: &Mutex<Waits>) {
    let (text, addresses) = {
        let waits = lock(waits);
        let (what, waited) = (&waits.what, waits.since.elapsed());
        let text = format!("{}\nfor {waited:.1?} now: {what}\n", waits.summary());
        (text, waits.addresses.clone())
    };
    say(&text);
    say(&threads());
    if let Some((gateway, replicas)) = addresses {
        say(&say_of_gateway(&gateway));
        say(&say_of_replicas(&replicas));
    }
}

fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn say_of_gateway(address: &str) -> String {
    let found = Connection::open(address, ANSWER)
        .map_err(Into::into)
        .and_then(|mut connection| {
            let info = connection.call(&["INFO", "clients", "stats", "replication"])?;
            let list = connection.call(&["CLIENT", "LIST"])?;
            Ok::<_, viewstone::resp::client::ReceiveError>(format!("{info:?}\n{list:?}"))
        });
    match found {
        Ok(text) => format!(
            "the gateway: {}",
            text.replace("\\r\\n", " ").replace("\\n", "\n")
        ),
        Err(error) => format!("the gateway does not answer: {error}\n"),
    }
}

fn say_of_replicas(addresses: &[String]) -> String {
    let options = ClientOptions::new(super::CLUSTER, addresses.iter().cloned());
    let mut host = match options.host() {
        Ok(host) => host,
        Err(error) => return format!("the replicas cannot be asked: {error}\n"),
    };
    let until = host.now_ns() + ANSWER.as_nanos() as u64;
    while host.now_ns() < until && host.core().replicas().any(|it| it.is_none()) {
        if let Err(error) = host.turn(until, &mut |_, _| {}) {
            return format!("the replicas cannot be asked: {error}\n");
        }
    }
    let pongs: Vec<_> = host.core().replicas().map(Option::<&_>::copied).collect();
    let mut text = String::new();
    for (index, pong) in pongs.iter().enumerate() {
        let _ = match pong {
            None => writeln!(text, "replica {index} does not answer"),
            Some(it) => writeln!(
                text,
                "replica {index}: {:?}, view {}, log view {}, op {}, commit {} of {}, missing {}, checkpoint {}",
                ReplicaStatus::from_u8(it.status),
                it.frame.view,
                it.log_view,
                it.op,
                it.commit_min,
                it.commit_max,
                it.missing,
                it.checkpoint_op,
            ),
        };
    }
    text
}

/// What each thread of this process does: its state, the time it has run, and where in the kernel it waits.
fn threads() -> String {
    let mut text = String::new();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    for task in tasks {
        let path = task.path();
        let (name, stat) = (read(path.join("comm")), read(path.join("stat")));
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or("?");
        let _ = writeln!(
            text,
            "thread {}: {}, ticks {} + {}, in {}",
            name.trim(),
            field(0),
            field(11),
            field(12),
            read(path.join("wchan")),
        );
    }
    text
}
