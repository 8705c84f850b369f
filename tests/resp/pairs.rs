//! What connections to gateways do with pairs of keys, and whether one store could have answered so.
//!
//! Several connections share a few pairs, one of which has values too large for the reply to a write. A connection does single
//! commands, commands of both keys (MGET, MSET), transactions that read or write both, changes on the condition that a watched
//! key is as it was, and several commands at once. A write whose outcome is unknown stays open in the history for ever. A pair
//! is given up for a new one after some hundred operations, or a few open ones, so that histories stay short. Beside this there
//! are counters, to which one is added by WATCH, GET, MULTI, SET, EXEC only.

use crate::process::HANG;
use crate::process::linearizability::{Step, search};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use viewstone::resp::client::{ReceiveError, encode};
use viewstone::resp::{Connection, Value};

/// Pairs in use at a time.
const PLACES: usize = 4;

/// Counters that only WATCH protects.
const COUNTERS: usize = 2;

/// Operations after which a pair is given up, and open ones among them: the checker tries where each of those may belong.
const OPERATIONS_MAX: u64 = 250;
const OPEN_MAX: u64 = 6;

/// Between two calls of a connection: most of two cores is left over.
const PAUSE: Duration = Duration::from_millis(4);

/// Between two attempts to reach a gateway.
const KNOCK: Duration = Duration::from_millis(20);

/// What is added to a value to make it large.
const LARGE_SIZE: usize = 6000;

/// Values that are set are so far apart, so that increments do not make them equal.
const STRIDE: u64 = 1 << 16;

/// What connections do, of twelve kinds: those that only read.
const MGET: u64 = 5;
const LOOK: u64 = 9;
const READS: [u64; 2] = [MGET, LOOK];

/// What one command does to one key.
#[derive(Clone, Copy, Debug)]
enum What {
    Get,
    Set(i64),
    SetNx(i64),
    Incr,
    GetDel,
    GetSet(i64),
}

/// A command of one key of a pair.
#[derive(Clone, Copy, Debug)]
struct Command {
    key: usize,
    what: What,
}

/// The values of a pair.
type Pair = [Option<i64>; 2];

fn value_of(number: Option<i64>) -> Value {
    number.map_or(Value::Null, |it| Value::Bulk(it.to_string().into_bytes()))
}

impl Command {
    fn is_read(self) -> bool {
        matches!(self.what, What::Get)
    }

    /// For this pair.
    fn words(self, name: Name) -> Vec<String> {
        let (word, value) = match self.what {
            What::Get => ("GET", None),
            What::Set(value) => ("SET", Some(value)),
            What::SetNx(value) => ("SETNX", Some(value)),
            What::Incr => ("INCR", None),
            What::GetDel => ("GETDEL", None),
            What::GetSet(value) => ("GETSET", Some(value)),
        };
        let mut words = vec![word.to_owned(), names(name)[self.key].clone()];
        words.extend(value.map(|value| text_of(value, name)));
        words
    }

    /// Does it. The reply.
    fn apply(self, pair: &mut Pair) -> Value {
        let value = &mut pair[self.key];
        match self.what {
            What::Get => value_of(*value),
            What::Set(new) => {
                *value = Some(new);
                Value::Simple(b"OK".into())
            }
            What::SetNx(new) => {
                let is_new = value.is_none();
                value.get_or_insert(new);
                Value::Integer(i64::from(is_new))
            }
            What::Incr => {
                let sum = value.unwrap_or(0) + 1;
                *value = Some(sum);
                Value::Integer(sum)
            }
            What::GetDel => value_of(value.take()),
            What::GetSet(new) => value_of(value.replace(new)),
        }
    }
}

/// When something was sent, and with what.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// In nanoseconds since the beginning.
    begin: u64,
    /// What was sent at once has one number.
    number: u64,
    /// How many were sent before it with this number.
    index: usize,
}

/// Commands that are executed as one.
#[derive(Clone, Debug)]
struct Operation {
    sent: Sent,
    /// None: its outcome is unknown.
    end: Option<u64>,
    /// It was executed only if this key had this value.
    condition: Option<(usize, Option<i64>)>,
    commands: Vec<Command>,
    /// To each command; none without an end.
    replies: Vec<Value>,
}

impl Step for Operation {
    type State = Pair;

    fn begin(&self) -> u64 {
        self.sent.begin
    }

    fn end(&self) -> Option<u64> {
        self.end
    }

    fn after(&self, before: &Pair) -> Option<Pair> {
        let mut pair = *before;
        if let Some((key, value)) = self.condition
            && pair[key] != value
        {
            return None;
        }
        for (index, command) in self.commands.iter().enumerate() {
            let reply = command.apply(&mut pair);
            if self.end.is_some() && self.replies[index] != reply {
                return None;
            }
        }
        Some(pair)
    }

    fn must_follow(&self, other: &Self) -> bool {
        self.sent.number == other.sent.number && self.sent.index > other.sent.index
    }
}

/// The pair in use at one of the places.
#[derive(Default)]
struct Place {
    generation: AtomicU64,
    operations: AtomicU64,
    open: AtomicU64,
}

/// What all connections share.
struct Shared {
    epoch: Instant,
    places: [Place; PLACES],
    values: AtomicU64,
    stop: AtomicBool,
    /// Changes answered, by the number of the gateway.
    acknowledged: Vec<AtomicU64>,
}

/// Which pair: its place, and how many were there before it.
type Name = (usize, u64);

/// What one connection has to tell.
#[derive(Default)]
pub struct Record {
    operations: BTreeMap<Name, Vec<Operation>>,
    /// Sums of counters that were written.
    counted: Vec<(usize, i64)>,
    /// Additions to counters with unknown outcome.
    uncertain: [u64; COUNTERS],
    /// Commands that had no effect, as the gateway said.
    refused: u64,
    /// Transactions that found a watched key changed.
    failed: u64,
    /// Connections that broke.
    broken: u64,
}

/// Connections at work.
pub struct Recorder {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Record>>,
}

impl Recorder {
    /// `connections` to each of these gateways, every other of which mostly reads. A gateway that goes is waited for.
    pub fn start(gateways: &[String], connections: usize) -> Self {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            places: Default::default(),
            values: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            acknowledged: gateways.iter().map(|_| AtomicU64::new(0)).collect(),
        });
        let mut threads = Vec::new();
        for (gateway, address) in gateways.iter().enumerate() {
            for number in 0..connections {
                let caller = Caller {
                    shared: Arc::clone(&shared),
                    gateway,
                    address: address.clone(),
                    connection: None,
                    looks: number % 2 == 1,
                    draws: (gateway * connections + number) as u64,
                    record: Record::default(),
                };
                threads.push(thread::spawn(move || caller.run()));
            }
        }
        Self { shared, threads }
    }

    /// Waits until this gateway has answered so many more changes, and returns the time that took.
    pub fn wait_for_more(&self, gateway: usize, changes: u64) -> Duration {
        let count = || self.shared.acknowledged[gateway].load(Relaxed);
        let (begin, before) = (Instant::now(), count());
        while count() < before + changes {
            let dead = self.threads.iter().any(JoinHandle::is_finished);
            assert!(!dead, "a connection has found an error (see above)");
            assert!(begin.elapsed() < HANG, "gateway {gateway} serves no more");
            thread::sleep(Duration::from_millis(1));
        }
        begin.elapsed()
    }

    /// Ends the load, looks at all keys once more through this gateway, and checks everything. One line of figures.
    pub fn finish(self, gateway: &str) -> String {
        self.shared.stop.store(true, Relaxed);
        let mut all = Record::default();
        for record in self.threads.into_iter().map(JoinHandle::join) {
            all.add(record.expect("no connection finds an error"));
        }
        let connection = Connection::open(gateway, HANG).expect("it listens");
        let last = Caller {
            shared: Arc::clone(&self.shared),
            gateway: 0,
            address: gateway.to_owned(),
            connection: Some(connection),
            looks: true,
            draws: 0,
            record: Record::default(),
        };
        let counters = last.look(&mut all);
        all.check(counters)
    }
}

impl Record {
    fn add(&mut self, other: Self) {
        for (name, operations) in other.operations {
            self.operations.entry(name).or_default().extend(operations);
        }
        self.counted.extend(other.counted);
        for (sum, more) in self.uncertain.iter_mut().zip(other.uncertain) {
            *sum += more;
        }
        self.refused += other.refused;
        self.failed += other.failed;
        self.broken += other.broken;
    }

    /// Whether one store explains everything. One line of figures.
    fn check(self, counters: [i64; COUNTERS]) -> String {
        let (mut answered, mut unknown) = (0, 0);
        for ((place, generation), operations) in self.operations {
            let (ended, open): (Vec<_>, Vec<_>) =
                operations.into_iter().partition(|it| it.end.is_some());
            answered += ended.len();
            unknown += open.len();
            let name = format!("pair {place}-{generation}");
            if let Err(violation) = search(&name, ended, &open) {
                panic!("NOT LINEARIZABLE: {violation}");
            }
        }
        let additions = self.counted.len();
        for (counter, found) in counters.into_iter().enumerate() {
            let mut sums: Vec<i64> = self
                .counted
                .iter()
                .filter(|it| it.0 == counter)
                .map(|it| it.1)
                .collect();
            sums.sort_unstable();
            let twice = sums.windows(2).find(|two| two[0] == two[1]);
            assert_eq!(twice, None, "counter {counter}: two wrote the same sum");
            let least = sums.len() as u64;
            let most = least + self.uncertain[counter];
            let found = u64::try_from(found).expect("nothing is taken away");
            assert!(
                (least..=most).contains(&found),
                "counter {counter} is {found}, after {least} to {most} additions"
            );
        }
        let uncertain: u64 = self.uncertain.iter().sum();
        assert!(answered > 0 && additions > 0);
        format!(
            "{answered} operations answered, {unknown} of unknown outcome; {additions} additions under WATCH, {uncertain} of unknown \
             outcome; {} commands refused, {} transactions failed, {} connections broken: the history is linearizable",
            self.refused, self.failed, self.broken,
        )
    }
}

/// What became of one command that was sent, or of EXEC.
enum Answer {
    Reply(Value),
    /// It had no effect.
    Refused,
    /// It may have been executed.
    Unknown,
}

/// The cluster or the gateway did not answer.
struct NotRead;

/// One connection.
struct Caller {
    shared: Arc<Shared>,
    /// The number of its gateway, and where that listens.
    gateway: usize,
    address: String,
    connection: Option<Connection>,
    /// It mostly reads: while nothing can be written, others wait for their writes.
    looks: bool,
    draws: u64,
    record: Record,
}

impl Caller {
    fn run(mut self) -> Record {
        while !self.shared.stop.load(Relaxed) {
            if self.connection.is_none() {
                // Whoever listens with a long queue behind a stopped process has not accepted: the reply tells.
                self.connection = Connection::open(&self.address, HANG).ok();
                thread::sleep(KNOCK);
                continue;
            }
            self.act();
            thread::sleep(PAUSE);
        }
        self.record
    }

    fn now(&self) -> u64 {
        self.shared.epoch.elapsed().as_nanos() as u64
    }

    /// Something is about to be sent.
    fn sends(&self) -> Sent {
        Sent {
            begin: self.now(),
            number: self.shared.values.fetch_add(1, Relaxed),
            index: 0,
        }
    }

    fn draw(&mut self, bound: u64) -> u64 {
        self.draws = self
            .draws
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (self.draws >> 33) % bound
    }

    fn new_value(&self) -> i64 {
        (self.shared.values.fetch_add(1, Relaxed) * STRIDE).cast_signed()
    }

    /// One thing, or several at once.
    fn act(&mut self) {
        let place = self.draw(PLACES as u64) as usize;
        let name = (place, self.shared.places[place].generation.load(Relaxed));
        let kind = if self.looks && self.draw(8) > 0 {
            READS[self.draw(READS.len() as u64) as usize]
        } else {
            self.draw(12)
        };
        match kind {
            0..4 => self.singles(name, 1),
            4 => {
                let count = 2 + self.draw(3) as usize;
                self.singles(name, count);
            }
            MGET => self.both_at_once(name, true),
            6 => self.both_at_once(name, false),
            7 | 8 => {
                let commands = self.transaction(name, false);
                self.execute(name, None, commands);
            }
            LOOK => {
                let commands = self.transaction(name, true);
                self.execute(name, None, commands);
            }
            10 => self.change_if_unchanged(name),
            _ => self.count(),
        }
    }

    fn single(&mut self, name: Name) -> Command {
        let key = self.draw(2) as usize;
        let what = match self.draw(10) {
            0..3 => What::Get,
            3 | 4 => What::Set(self.new_value()),
            5 => What::SetNx(self.new_value()),
            6 | 7 if !is_large(name) => What::Incr,
            8 => What::GetDel,
            _ => What::GetSet(self.new_value()),
        };
        Command { key, what }
    }

    /// Commands that read both keys, or change them. Among changes a large value could not be returned.
    fn transaction(&mut self, name: Name, reads: bool) -> Vec<Command> {
        let first = self.draw(2) as usize;
        let mut commands = Vec::new();
        for key in [first, 1 - first] {
            let what = match self.draw(4) {
                _ if reads => What::Get,
                2 if !is_large(name) => What::Incr,
                3 if !is_large(name) => What::GetDel,
                _ => What::Set(self.new_value()),
            };
            commands.push(Command { key, what });
        }
        commands
    }

    /// Sends commands together. What became of each.
    fn call(&mut self, lines: &[Vec<String>]) -> Vec<Answer> {
        let mut answers = Vec::new();
        let connection = self.connection.as_mut().expect("it is connected");
        let mut bytes = Vec::new();
        for line in lines {
            encode(line, &mut bytes);
        }
        let mut result = connection.send_raw(&bytes).map_err(ReceiveError::from);
        for line in lines {
            let received = match result {
                Ok(()) => connection.receive(),
                Err(error) => Err(error),
            };
            result = Ok(());
            answers.push(match received {
                Ok(Value::Error(text)) if text.starts_with(b"UNKNOWN ") => Answer::Unknown,
                Ok(Value::Error(text)) if text.starts_with(b"CLUSTERDOWN ") => Answer::Refused,
                Ok(Value::Error(text)) => panic!("{line:?}: {}", text.escape_ascii()),
                Ok(reply) => Answer::Reply(short(reply)),
                Err(ReceiveError::Io(error)) if is_end(&error) => {
                    self.connection = None;
                    self.record.broken += 1;
                    break;
                }
                Err(error) => panic!("gateway {}, {line:?}: {error}", self.gateway),
            });
        }
        // After the end of a connection nobody knows of those that were sent.
        answers.resize_with(lines.len(), || Answer::Unknown);
        answers
    }

    /// Commands of one key each, all sent before the first reply.
    fn singles(&mut self, name: Name, count: usize) {
        let commands: Vec<_> = (0..count).map(|_| self.single(name)).collect();
        let lines: Vec<_> = commands.iter().map(|it| it.words(name)).collect();
        let sent = self.sends();
        let answers = self.call(&lines);
        for (index, (command, answer)) in commands.into_iter().zip(answers).enumerate() {
            let answer = match answer {
                Answer::Reply(reply) => Answer::Reply(Value::Array(vec![reply])),
                other => other,
            };
            let sent = Sent { index, ..sent };
            self.note(name, sent, None, vec![command], answer);
        }
    }

    /// MGET or MSET.
    fn both_at_once(&mut self, name: Name, reads: bool) {
        let values = [self.new_value(), self.new_value()];
        let command = |key: usize| Command {
            key,
            what: if reads {
                What::Get
            } else {
                What::Set(values[key])
            },
        };
        let [first, second] = names(name);
        let line = if reads {
            vec!["MGET".to_owned(), first, second]
        } else {
            let [one, other] = values.map(|it| text_of(it, name));
            vec!["MSET".to_owned(), first, one, second, other]
        };
        let sent = self.sends();
        let mut answer = self.call(&[line]).pop().expect("one for each");
        if let Answer::Reply(reply) = &mut answer
            && !reads
        {
            *reply = Value::Array(vec![reply.clone(); 2]);
        }
        self.note(name, sent, None, vec![command(0), command(1)], answer);
    }

    /// MULTI, the commands, EXEC. Whether it was executed.
    fn execute(
        &mut self,
        name: Name,
        condition: Option<(usize, Option<i64>)>,
        commands: Vec<Command>,
    ) {
        let lines: Vec<_> = commands.iter().map(|it| it.words(name)).collect();
        let sent = self.sends();
        let answer = self.call_transaction(lines);
        self.note(name, sent, condition, commands, answer);
    }

    /// What became of EXEC.
    fn call_transaction(&mut self, commands: Vec<Vec<String>>) -> Answer {
        let mut lines = vec![vec!["MULTI".to_owned()]];
        lines.extend(commands);
        lines.push(vec!["EXEC".to_owned()]);
        let mut answers = self.call(&lines);
        let answer = answers.pop().expect("one for each");
        for (answer, line) in answers.into_iter().zip(&lines) {
            let is_queued = match answer {
                Answer::Reply(Value::Simple(text)) => text == b"OK" || text == b"QUEUED",
                Answer::Reply(_) | Answer::Refused => false,
                Answer::Unknown => self.connection.is_none(),
            };
            assert!(is_queued, "{line:?} is not kept");
        }
        answer
    }

    /// WATCH and GET of a key: its value.
    fn watch(&mut self, key: &str) -> Result<Option<i64>, NotRead> {
        let lines = ["WATCH", "GET"].map(|word| vec![word.to_owned(), key.to_owned()]);
        let answers = self.call(&lines);
        let replies: Vec<_> = answers
            .into_iter()
            .map(|answer| match answer {
                Answer::Reply(reply) => Some(reply),
                Answer::Refused | Answer::Unknown => None,
            })
            .collect();
        match <[_; 2]>::try_from(replies).expect("one for each") {
            [Some(Value::Simple(text)), Some(reply)] if text == b"OK" => Ok(number_of(&reply)),
            [Some(watched), Some(_)] => panic!("{watched:?}"),
            _ => {
                if self.connection.is_some() {
                    self.call(&[vec!["UNWATCH".to_owned()]]);
                }
                Err(NotRead)
            }
        }
    }

    /// Changes the pair on the condition that one of the keys is as it was.
    fn change_if_unchanged(&mut self, name: Name) {
        let key = self.draw(2) as usize;
        let sent = self.sends();
        let Ok(found) = self.watch(&names(name)[key]) else {
            return;
        };
        let get = Command {
            key,
            what: What::Get,
        };
        let answer = Answer::Reply(Value::Array(vec![value_of(found)]));
        self.note(name, sent, None, vec![get], answer);
        let mut commands = self.transaction(name, false);
        if !is_large(name) {
            commands.push(get);
        }
        self.execute(name, Some((key, found)), commands);
    }

    /// Adds one to a counter.
    fn count(&mut self) {
        let counter = self.draw(COUNTERS as u64) as usize;
        let key = format!("counter-{counter}");
        let Ok(found) = self.watch(&key) else {
            return;
        };
        let sum = found.unwrap_or(0) + 1;
        match self.call_transaction(vec![vec!["SET".to_owned(), key, sum.to_string()]]) {
            Answer::Reply(Value::Null) => self.record.failed += 1,
            Answer::Reply(reply) => {
                assert_eq!(reply, Value::Array(vec![Value::Simple(b"OK".into())]));
                self.record.counted.push((counter, sum));
            }
            Answer::Refused => self.record.refused += 1,
            Answer::Unknown => self.record.uncertain[counter] += 1,
        }
    }

    /// Adds an operation to the history, and gives its pair up when it has had enough of them.
    fn note(
        &mut self,
        name: Name,
        sent: Sent,
        condition: Option<(usize, Option<i64>)>,
        commands: Vec<Command>,
        answer: Answer,
    ) {
        let is_read = commands.iter().all(|it| it.is_read());
        let (end, replies) = match answer {
            Answer::Reply(Value::Array(replies)) => (Some(self.now()), replies),
            Answer::Reply(Value::Null) if condition.is_some() => {
                self.record.failed += 1;
                return;
            }
            Answer::Reply(other) => panic!("{commands:?}: {other:?}"),
            Answer::Refused => {
                self.record.refused += 1;
                return;
            }
            Answer::Unknown if is_read => return,
            Answer::Unknown => (None, Vec::new()),
        };
        assert!(
            end.is_none() || replies.len() == commands.len(),
            "{replies:?}"
        );
        let place = &self.shared.places[name.0];
        if end.is_none() {
            place.open.fetch_add(1, Relaxed);
        } else if !is_read {
            self.shared.acknowledged[self.gateway].fetch_add(1, Relaxed);
        }
        let used = place.operations.fetch_add(1, Relaxed);
        if used >= OPERATIONS_MAX || place.open.load(Relaxed) >= OPEN_MAX {
            let given_up = place
                .generation
                .compare_exchange(name.1, name.1 + 1, Relaxed, Relaxed);
            if given_up.is_ok() {
                place.operations.store(0, Relaxed);
                place.open.store(0, Relaxed);
            }
        }
        self.record
            .operations
            .entry(name)
            .or_default()
            .push(Operation {
                sent,
                end,
                condition,
                commands,
                replies,
            });
    }

    /// Reads all that there is, which belongs to the history. The counters.
    fn look(mut self, all: &mut Record) -> [i64; COUNTERS] {
        for place in 0..PLACES {
            for generation in 0..=self.shared.places[place].generation.load(Relaxed) {
                let name = (place, generation);
                let commands = self.transaction(name, true);
                self.execute(name, None, commands);
            }
        }
        assert_eq!(self.record.refused, 0, "the cluster serves");
        let counters = std::array::from_fn(|counter| {
            let line = vec!["GET".to_owned(), format!("counter-{counter}")];
            match self.call(&[line]).pop() {
                Some(Answer::Reply(reply)) => number_of(&reply).unwrap_or(0),
                _ => panic!("the cluster serves"),
            }
        });
        all.add(self.record);
        counters
    }
}

/// Whether the values of a pair are larger than the reply to a write.
fn is_large((place, _): Name) -> bool {
    place == 0
}

/// A value as it is written.
fn text_of(value: i64, name: Name) -> String {
    let more = if is_large(name) { LARGE_SIZE } else { 0 };
    format!("{value}{}", ".".repeat(more))
}

/// A reply without what makes its values large.
fn short(reply: Value) -> Value {
    match reply {
        Value::Bulk(mut text) => {
            let end = text.iter().position(|&byte| byte == b'.');
            text.truncate(end.unwrap_or(text.len()));
            Value::Bulk(text)
        }
        Value::Array(each) => Value::Array(each.into_iter().map(short).collect()),
        other => other,
    }
}

fn names((place, generation): Name) -> [String; 2] {
    ["a", "b"].map(|key| format!("pair-{place}-{generation}-{key}"))
}

fn number_of(reply: &Value) -> Option<i64> {
    match reply {
        Value::Null => None,
        Value::Bulk(text) => Some(String::from_utf8_lossy(text).parse().expect("a number")),
        other => panic!("{other:?}"),
    }
}

/// Whether the gateway is gone, and does not only keep silent.
fn is_end(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
