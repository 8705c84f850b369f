//! From input to requests: parses commands, runs them, and packs their items into batches.

use super::batch::{Batch, Name};
use super::connection::{Flight, Pending, Room, What};
use super::front::Front;
use crate::client::Core;
use crate::resp::caller::Caller;
use crate::resp::command::{Context, Failure, Spec, Then, look_up, queue};
use crate::resp::finish::Finish;
use crate::resp::reply::{Protocol, Replies};
use crate::resp::request::{Arguments, Parsed};

/// Requests in flight that only read.
const READS_IN_FLIGHT_MAX: usize = 16;

/// Commands of a connection in one request.
const RUN_MAX: usize = 1024;

/// Commands of a connection that are answered in one turn without the cluster.
const LOCAL_MAX: usize = 4096;

/// Bytes of replies of a connection that are made in one turn without the cluster.
const LOCAL_SIZE_MAX: usize = 1 << 20;

/// Why gathering from a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// There is no further command, or the next must wait for the replies of those before it.
    Enough,
    /// It has had its share of this turn.
    Share,
    /// The next command needs a request, and all are in flight.
    Blocked,
    /// The batch of this kind is to leave, then the next command is taken.
    Full { writes: bool },
    /// A step of a command is to be sent.
    Step,
    /// The batch, in which nothing else is, is to leave.
    Alone { writes: bool },
}

/// What a connection has had of a turn.
struct Share {
    commands: usize,
    /// Its output at the beginning.
    output: usize,
}

/// What became of a command.
enum Taken {
    /// It is answered, or in the run.
    Done,
    /// It stays in the input.
    Left(End),
    /// It is in the run, which ends with it.
    Last(End),
}

const REFUSED_SIZE: Failure =
    Failure::new("ERR the command is larger than a request of the cluster may be");

const REFUSED_COUNT: Failure = Failure::new(
    "ERR too many arguments for one entry of the log: nothing was done; use several commands",
);

impl Front {
    /// Makes requests of all that is ready.
    pub fn gather(&mut self, core: &mut Core, now: u64) {
        for name in std::mem::take(&mut self.steps_ready) {
            self.ask(name, core, now);
        }
        for _ in 0..self.ready.len() {
            let Some(name) = self.ready.pop_front() else {
                break;
            };
            if let Some(connection) = self.find(name) {
                connection.is_ready = false;
            }
            self.gather_from(name, core, now);
            self.activate(name);
        }
        for writes in [false, true] {
            let batch = if writes { &self.writes } else { &self.reads };
            let here = batch.runs.len();
            if here > 0 && self.pace[usize::from(writes)].is_due(now, here) {
                self.submit(writes, core, now);
            }
        }
    }

    /// When a batch that waits for more is to leave.
    pub fn wake_ns(&self) -> u64 {
        let [reads, writes] = &self.pace;
        let reads_ns = reads.wake_ns(self.reads.runs.len());
        reads_ns.min(writes.wake_ns(self.writes.runs.len()))
    }

    fn gather_from(&mut self, name: Name, core: &mut Core, now: u64) {
        let output = self.find(name).map_or(0, |connection| connection.out.len());
        let mut share = Share {
            commands: 0,
            output,
        };
        loop {
            let Some(connection) = self.find(name) else {
                return;
            };
            if connection.is_waiting() || connection.closing {
                return;
            }
            let end = self.collect(name, &mut share);
            let Some(connection) = self.find(name) else {
                return;
            };
            if !connection.run.is_empty() {
                connection.flight = Flight::Run;
            }
            match end {
                End::Enough => {
                    connection.drop_parsed();
                    return;
                }
                End::Share => {
                    if !connection.is_waiting() {
                        connection.is_ready = true;
                        self.ready.push_back(name);
                    }
                    return;
                }
                End::Blocked => {
                    if !connection.is_waiting() {
                        connection.is_ready = true;
                        self.blocked.push(name);
                    }
                    return;
                }
                // Its commands in the batch leave; what comes behind them waits; else it is looked at once more.
                End::Full { writes } | End::Alone { writes } => self.submit(writes, core, now),
                End::Step => {
                    self.ask(name, core, now);
                    return;
                }
            }
        }
    }

    /// Takes commands of a connection until there is a reason to end.
    fn collect(&mut self, name: Name, share: &mut Share) -> End {
        let output_size_max = self.shared.output_size_max;
        loop {
            let Some(connection) = self.find(name) else {
                return End::Enough;
            };
            if connection.run.len() == RUN_MAX || connection.closing {
                return End::Enough;
            }
            let parsed = connection.parser.parse(&connection.input[connection.at..]);
            let size = match parsed {
                Ok(Parsed::Incomplete) => return End::Enough,
                Ok(Parsed::Empty(size)) => {
                    connection.at += size;
                    connection.parser.finish();
                    continue;
                }
                Ok(Parsed::Request(size)) => size,
                Err(_) if !connection.run.is_empty() => return End::Enough,
                Err(error) => {
                    connection.refuse(&format_args!("ERR {error}"));
                    self.shared.statistics.closed_hostile += 1;
                    return End::Enough;
                }
            };
            if connection.unwritten() > output_size_max {
                connection.is_held = true;
                return End::Enough;
            }
            share.commands += 1;
            let made = connection.out.len().saturating_sub(share.output);
            if share.commands > LOCAL_MAX || made > LOCAL_SIZE_MAX {
                return End::Share;
            }
            let taken = self.take(name);
            let Some(connection) = self.find(name) else {
                return End::Enough;
            };
            let (done, end) = match taken {
                Taken::Done => (true, None),
                Taken::Left(end) => (false, Some(end)),
                Taken::Last(end) => (true, Some(end)),
            };
            if done {
                connection.at += size;
                connection.parser.finish();
                connection.room = Room::Shared;
                self.shared.statistics.commands += 1;
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Runs the command that the input begins with.
    fn take(&mut self, name: Name) -> Taken {
        let (can_read, can_write) = (self.can_read(), self.can_write());
        let slot = self.slots.get_mut(name.index as usize);
        let Some(connection) = slot.and_then(Option::as_deref_mut) else {
            return Taken::Left(End::Enough);
        };
        let input = &connection.input[connection.at..];
        let arguments = connection.parser.arguments(input);
        let mut reply = Vec::new();
        let protocol = connection.caller.protocol;
        let spec = match find_spec(&arguments, &mut connection.caller) {
            Ok(Some(spec)) => spec,
            Ok(None) => {
                Replies::new(&mut reply, protocol).simple("QUEUED");
                return self.local(name, reply);
            }
            Err(failure) => return self.fail(name, &failure),
        };
        if spec.is_barrier && !connection.run.is_empty() {
            return Taken::Left(End::Enough);
        }
        // EXEC ends the transaction when it runs: it must be able to leave.
        let is_exec = spec.name == "exec" && connection.caller.transaction.is_some();
        if is_exec && !(can_read && can_write) {
            return Taken::Left(End::Blocked);
        }
        if is_exec && !(self.reads.is_empty() && self.writes.is_empty()) {
            let writes = !self.writes.is_empty();
            return Taken::Left(End::Full { writes });
        }
        connection.caller.last = spec.name;
        self.scratch.clear();
        let is_large = connection.room == Room::Steps;
        let mut context = Context {
            spec,
            caller: &mut connection.caller,
            replies: Replies::new(&mut reply, protocol),
            items: &mut self.scratch,
            shared: &mut self.shared,
            in_transaction: false,
            prediction: None,
            is_large,
        };
        match (spec.run)(&mut context, &arguments) {
            Ok(Then::Replied) => self.local(name, reply),
            Ok(Then::Close) => {
                connection.closing = true;
                self.local(name, reply)
            }
            Ok(Then::Clients(which)) => {
                let text = self.list(name, &which);
                Replies::new(&mut reply, protocol).verbatim(text.as_bytes());
                self.local(name, reply)
            }
            Ok(Then::Lists(which)) => {
                self.list_for_transaction(name, &which);
                self.take(name)
            }
            Err(failure) => self.fail(name, &failure),
            Ok(Then::Items(finish)) if is_exec => self.place_alone(name, finish),
            Ok(Then::Items(finish)) => self.place(name, finish),
            Ok(Then::Steps(_)) if !connection.run.is_empty() => Taken::Left(End::Enough),
            // A step may write, though it reads at first.
            Ok(Then::Steps(_)) if !can_read || !can_write => Taken::Left(End::Blocked),
            Ok(Then::Steps(steps)) => {
                connection.flight = Flight::Steps(steps);
                Taken::Last(End::Step)
            }
        }
    }

    /// An error, which is written alike in all versions of the protocol.
    fn fail(&mut self, name: Name, failure: &Failure) -> Taken {
        let mut reply = Vec::new();
        failure.write(&mut Replies::new(&mut reply, Protocol::default()));
        self.local(name, reply)
    }

    /// A reply that needs nothing of the cluster: at once, or behind those that are to come.
    fn local(&mut self, name: Name, reply: Vec<u8>) -> Taken {
        let Some(connection) = self.find(name) else {
            return Taken::Left(End::Enough);
        };
        if connection.run.is_empty() {
            connection.out.extend_from_slice(&reply);
        } else {
            let from = connection.at;
            let what = What::Reply(reply);
            connection.run.push(Pending { from, what });
        }
        Taken::Done
    }

    fn can_read(&self) -> bool {
        self.reads_in_flight + usize::from(!self.reads.is_empty()) < READS_IN_FLIGHT_MAX
    }

    fn can_write(&self) -> bool {
        self.writes_in_flight + usize::from(!self.writes.is_empty()) < self.writes_max
    }

    /// Puts the items of a command into a batch, if they have room there and may go together with those before them.
    fn place(&mut self, name: Name, finish: Finish) -> Taken {
        let is_read = self.scratch.is_read();
        let has_values = self.scratch.values() > 0;
        let Some(connection) = self.find(name) else {
            return Taken::Left(End::Enough);
        };
        let (first, alone) = (connection.run.is_empty(), connection.room == Room::Own);
        let last_run = |batch: &Batch| batch.runs.last().is_some_and(|run| run.name == name);
        let writes = if first {
            !is_read
        } else {
            last_run(&self.writes)
        };
        // What only reads is a read, unless it comes behind writes and its result is small.
        if !first && (alone || !writes && !is_read || writes && is_read && has_values) {
            return Taken::Left(End::Enough);
        }
        let batch = if writes { &self.writes } else { &self.reads };
        let can = if writes {
            self.can_write()
        } else {
            self.can_read()
        };
        if batch.is_empty() && !can {
            return Taken::Left(End::Blocked);
        }
        if !batch.is_empty() && (alone || !batch.has_room(&self.scratch, &self.sizes)) {
            return Taken::Left(End::Full { writes });
        }
        if self.scratch.bytes().len() > self.sizes.limits.request_size_max {
            return self.fail(name, &REFUSED_SIZE);
        }
        if writes && self.scratch.reply_size() > self.sizes.limits.write_reply_size_max {
            return self.fail(name, &REFUSED_COUNT);
        }
        self.put(name, finish, writes);
        if alone {
            Taken::Last(End::Alone { writes })
        } else if writes && has_values {
            // If the value has no room in the reply, the command is executed again, before those behind it.
            Taken::Last(End::Enough)
        } else {
            Taken::Done
        }
    }

    /// Puts the items of EXEC into an empty batch: if it is refused, nothing else is.
    fn place_alone(&mut self, name: Name, finish: Finish) -> Taken {
        let writes = !self.scratch.is_read();
        self.put(name, finish, writes);
        Taken::Last(End::Alone { writes })
    }

    fn put(&mut self, name: Name, finish: Finish, writes: bool) {
        let count = self.scratch.count();
        let batch = if writes {
            &mut self.writes
        } else {
            &mut self.reads
        };
        batch.add(name, &self.scratch);
        if let Some(connection) = self.find(name) {
            let from = connection.at;
            let what = What::Items(finish, count);
            connection.run.push(Pending { from, what });
        }
    }
}

/// The command to run; none if it was kept for EXEC.
fn find_spec(
    arguments: &Arguments<'_>,
    caller: &mut Caller,
) -> Result<Option<&'static Spec>, Failure> {
    let spec = look_up(arguments);
    if let Err(failure) = &spec
        && arguments[0].eq_ignore_ascii_case(b"exec")
    {
        caller.end_transaction();
        return Err(abort(failure));
    }
    let Some(transaction) = &mut caller.transaction else {
        return spec.map(Some);
    };
    transaction.broken |= spec.is_err();
    let spec = spec?;
    if spec.is_immediate {
        return Ok(Some(spec));
    }
    queue(transaction, spec, arguments)?;
    Ok(None)
}

/// EXEC itself is wrong: the transaction is over.
fn abort(failure: &Failure) -> Failure {
    let mut text = b"EXECABORT Transaction discarded because of: ".to_vec();
    let reason = failure.text();
    text.extend_from_slice(reason.strip_prefix(b"ERR ").unwrap_or(reason));
    Failure::quoting(text)
}
