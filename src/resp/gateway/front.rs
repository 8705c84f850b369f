//! The side of the connections: which there are, which have something to read, to parse or to write.

use super::batch::{Batch, Name, Run, Sizes};
use super::connection::{self, Connection};
use super::pace::Pace;
use super::{GatewayError, GatewayOptions};
use crate::client::Core;
use crate::client::Kind;
use crate::resp::items::ItemList;
use crate::resp::request::Limits;
use crate::resp::shared::{KvLimits, Shared};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Bytes read from a connection in a turn.
const READ_SIZE: usize = 64 << 10;

/// Connections accepted in a turn.
const ACCEPTS_MAX: usize = 64;

/// What a connection may hold while memory is short.
pub(super) const SHORT_SIZE_MAX: usize = 64 << 10;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Call {
    pub kind: Kind,
    pub what: CallOf,
}

#[derive(Debug)]
pub(super) enum CallOf {
    /// A batch: whose items are in it, and when it left.
    Batch { runs: Vec<Run>, at_ns: u64 },
    /// A step of a command.
    Step(Name),
}

#[derive(Debug)]
pub(super) struct Front {
    pub shared: Shared,
    pub slots: Vec<Option<Box<Connection>>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Those with something to read or write.
    active: Vec<Name>,
    /// Those with input to parse.
    pub ready: VecDeque<Name>,
    /// Those whose next command waits until a request has ended.
    pub blocked: Vec<Name>,
    /// Those whose command of several steps goes on.
    pub steps_ready: Vec<Name>,
    pub calls: Vec<Option<Call>>,
    pub calls_free: Vec<usize>,
    pub reads_in_flight: usize,
    pub writes_in_flight: usize,
    pub writes_max: usize,
    pub reads: Batch,
    pub writes: Batch,
    /// Of batches that read, and of those that write.
    pub pace: [Pace; 2],
    pub sizes: Sizes,
    /// The items of one command.
    pub scratch: ItemList,
    /// The body of a step.
    pub step_body: Vec<u8>,
    pub deadline: Duration,
    /// When the cluster last answered anything.
    pub answered_ns: u64,
    pub swept_at: u64,
    /// When the clock of the cluster's host began.
    started: Instant,
    listener: TcpListener,
    is_listening: bool,
    limits: Limits,
    memory_max: usize,
    patience: Duration,
    buffer: Box<[u8]>,
}

impl Front {
    pub fn new(
        options: &GatewayOptions,
        listener: TcpListener,
        connections_max: usize,
        started: Instant,
    ) -> Result<Self, GatewayError> {
        let mut seed = [0; 8];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
        let mut shared = Shared::new(u64::from_le_bytes(seed));
        shared.connections_max = connections_max;
        shared.output_size_max = options.output_size_max;
        shared.replicas.clone_from(&options.client.addresses);
        shared.sessions = options.client.sessions;
        Ok(Self {
            shared,
            slots: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            active: Vec::new(),
            ready: VecDeque::new(),
            blocked: Vec::new(),
            steps_ready: Vec::new(),
            calls: Vec::new(),
            calls_free: Vec::new(),
            reads_in_flight: 0,
            writes_in_flight: 0,
            writes_max: options.client.sessions,
            reads: Batch::new(false),
            writes: Batch::new(true),
            pace: Default::default(),
            sizes: Sizes::new(),
            scratch: ItemList::new(),
            step_body: Vec::new(),
            deadline: options.client.deadline,
            answered_ns: 0,
            swept_at: 0,
            started,
            listener,
            is_listening: true,
            limits: options.limits,
            memory_max: options.memory_max,
            patience: options.patience,
            buffer: vec![0; READ_SIZE].into_boxed_slice(),
        })
    }

    /// Nanoseconds since the start, by the clock of the cluster's host.
    pub fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Whether something can be done without waiting.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.active.is_empty() || !self.steps_ready.is_empty()
    }

    pub fn find(&mut self, name: Name) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(name.index as usize)?;
        slot.as_deref_mut().filter(|found| found.name == name)
    }

    /// Accepts connections, up to a bound: others want to be served, too.
    pub fn accept(&mut self, epoll: &OwnedFd) {
        for _ in 0..ACCEPTS_MAX {
            match connection::accept(&self.listener) {
                Ok(Some((mut stream, peer))) => {
                    if self.shared.connections >= self.shared.connections_max {
                        self.shared.statistics.refused += 1;
                        // Whether it is told or not, it is closed.
                        let _ = stream.write(b"-ERR max number of clients reached\r\n");
                        continue;
                    }
                    let index = self.free.pop().unwrap_or_else(|| {
                        self.slots.push(None);
                        self.generations.push(0);
                        (self.slots.len() - 1) as u32
                    });
                    self.generations[index as usize] += 1;
                    let generation = self.generations[index as usize];
                    let name = Name { index, generation };
                    let place = u64::from(generation) << 32 | u64::from(index);
                    let flags =
                        EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                    if epoll::add(epoll, &stream, EventData::new_u64(place), flags).is_err() {
                        self.free.push(index);
                        continue;
                    }
                    self.shared.statistics.accepted += 1;
                    self.shared.connections += 1;
                    let number = self.shared.statistics.accepted;
                    let now = self.now_ns();
                    let connection = Connection::new(name, number, stream, peer, self.limits, now);
                    self.slots[index as usize] = Some(Box::new(connection));
                }
                Ok(None) => return,
                Err(_) => {
                    // Out of descriptors or memory: not again before the next sweep.
                    self.is_listening = epoll::delete(epoll, &self.listener).is_err();
                    return;
                }
            }
        }
    }

    /// The kernel says that something can be read or written.
    pub fn on_event(&mut self, place: u64, flags: EventFlags) {
        let name = Name {
            index: place as u32,
            generation: (place >> 32) as u32,
        };
        let Some(connection) = self.find(name) else {
            return; // closed in this very turn
        };
        let ending = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        connection.hung_up |= flags.intersects(ending);
        connection.readable |= flags.intersects(EventFlags::IN | ending);
        connection.writable |=
            flags.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR);
        self.activate(name);
    }

    pub fn activate(&mut self, name: Name) {
        if let Some(connection) = self.find(name)
            && !connection.is_active
        {
            connection.is_active = true;
            self.active.push(name);
        }
    }

    /// Reads from those that have something to read.
    pub fn receive(&mut self) {
        for index in 0..self.active.len() {
            let name = self.active[index];
            let unparsed_max = self.limits.request_size_max + READ_SIZE;
            let (output_size_max, short) = (self.output_max(), self.is_short());
            let mut buffer = std::mem::take(&mut self.buffer);
            let now = self.now_ns();
            if let Some(connection) = self.find(name)
                && connection.unwritten() <= output_size_max
            {
                let size = connection.receive(&mut buffer, unparsed_max);
                if size > 0 {
                    connection.heard_ns = now;
                }
                let idle = !connection.is_waiting() && !connection.is_ready;
                // A long command, or a long transaction.
                let held = connection.unparsed() + connection.caller.memory();
                let hostile = short && held > SHORT_SIZE_MAX && size > 0;
                if hostile && idle {
                    connection.refuse(&"ERR out of memory for requests");
                    self.shared.statistics.closed_hostile += 1;
                } else if size > 0 {
                    self.shared.statistics.received += size as u64;
                }
            }
            self.buffer = buffer;
            self.make_ready(name);
            self.count_memory(name);
        }
    }

    /// Output that a connection may have and still be served.
    fn output_max(&self) -> usize {
        if self.is_short() {
            SHORT_SIZE_MAX
        } else {
            self.shared.output_size_max
        }
    }

    pub fn is_short(&self) -> bool {
        self.shared.memory > self.memory_max
    }

    /// Queues a connection whose input may have a command.
    pub fn make_ready(&mut self, name: Name) {
        let output_size_max = self.output_max();
        let now = self.now_ns();
        if let Some(connection) = self.find(name)
            && !connection.is_ready
            && !connection.is_waiting()
            && !connection.closing
            && connection.unparsed() > 0
        {
            connection.is_held = connection.unwritten() > output_size_max;
            if !connection.is_held {
                connection.is_ready = true;
                connection.waits_ns = now;
                self.ready.push_back(name);
            }
        }
    }

    /// The same after a command got no answer: those behind it have waited with it, and do not begin to wait now.
    pub fn make_ready_unanswered(&mut self, name: Name) {
        let waits_ns = self.find(name).map(|connection| connection.waits_ns);
        self.make_ready(name);
        if let (Some(connection), Some(waits_ns)) = (self.find(name), waits_ns) {
            connection.waits_ns = waits_ns;
        }
    }

    pub fn count_memory(&mut self, name: Name) {
        if let Some(connection) = self.find(name) {
            let (old, new) = (connection.counted, connection.memory());
            connection.counted = new;
            self.shared.memory = self.shared.memory + new - old;
        }
    }

    /// Writes to those that have something to write, and closes those that are done.
    pub fn flush(&mut self) {
        let active = std::mem::take(&mut self.active);
        let now = self.now_ns();
        for name in active {
            let Some(connection) = self.find(name) else {
                continue;
            };
            connection.is_active = false;
            let written = connection.flush();
            if connection.unwritten() > 0 && connection.stuck_ns.is_none() {
                connection.stuck_ns = Some(now);
            }
            let over = connection.is_over();
            let again = connection.readable && !connection.is_waiting() && !connection.is_ready;
            let again =
                again && !connection.closing && !connection.ended && written_or_empty(connection);
            self.shared.statistics.sent += written as u64;
            self.count_memory(name);
            if over {
                self.close(name);
                continue;
            }
            self.make_ready(name);
            if again {
                self.activate(name);
            }
        }
    }

    pub fn close(&mut self, name: Name) {
        let Some(slot) = self.slots.get_mut(name.index as usize) else {
            return;
        };
        if let Some(connection) = slot.take_if(|found| found.name == name) {
            self.shared.memory -= connection.counted;
            self.shared.connections -= 1;
            self.free.push(name.index);
        }
    }

    /// Looks after connections that do not move.
    pub fn sweep(&mut self, now: u64) {
        self.swept_at = now;
        let patience = self.patience.as_nanos() as u64;
        let names: Vec<Name> = self.slots.iter().flatten().map(|it| it.name).collect();
        for name in names {
            let Some(connection) = self.find(name) else {
                continue;
            };
            let stuck = connection.stuck_ns;
            if stuck.is_some_and(|since| now.saturating_sub(since) > patience) {
                self.shared.statistics.closed_hostile += 1;
                self.close(name);
            } else if connection.is_over() {
                self.close(name);
            } else {
                self.make_ready(name);
            }
        }
    }

    /// Listens again if that was given up for a while.
    pub fn listen_again(&mut self, epoll: &OwnedFd) {
        if !self.is_listening {
            let data = EventData::new_u64(super::LISTENER);
            self.is_listening = epoll::add(epoll, &self.listener, data, EventFlags::IN).is_ok();
        }
    }

    /// Learns what the replicas say of themselves.
    pub fn learn(&mut self, core: &Core) {
        self.shared.primary = core.primary();
        let geometry = core.replicas().flatten().next().map(|pong| {
            let limits =
                KvLimits::new(pong.message_size_max as usize, pong.reply_size_max as usize);
            (limits, i64::from(pong.replica_count))
        });
        if let Some((limits, replica_count)) = geometry {
            self.shared.limits = limits;
            self.sizes.limits = limits;
            // A replication quorum, less the primary.
            let quorum = if replica_count == 2 {
                2
            } else {
                ((replica_count + 1) / 2).min(3)
            };
            self.shared.backups_acknowledged = quorum - 1;
        }
    }
}

/// Whether reading on makes sense: the output is not in the way.
fn written_or_empty(connection: &Connection) -> bool {
    connection.unwritten() == 0 || connection.writable
}
