//! The client: calls with a deadline, each of which ends in an answer or in an error that says exactly what may have
//! happened.
//!
//! ```
//! use viewstone::testing::KvCluster;
//!
//! let cluster = KvCluster::start(1)?; // for the example; else: ClientOptions::new(cluster_id, addresses)
//! let kv = viewstone::client::kv::KvClient::connect(&cluster.client_options())?;
//!
//! kv.put(b"greeting", b"hello")?;
//! let found = kv.get(b"greeting")?.expect("it was just put");
//! assert_eq!(found.value, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`kv::KvClient`] speaks to the key-value store. [`Client`], below it, calls any state machine: an operation is a
//! number ([`operation`]) and a body of bytes, and so is the answer.
//!
//! A client finds the primary, opens sessions as it needs them, reconnects, backs off and sends again, all by itself,
//! on one background thread with one connection to each replica, however many calls are in flight. All calls block the
//! thread that makes them or are waited for later ([`Pending`]); no async run time is needed, and none is in the way.
//! The protocol is in [`core`], pure; [`host`] gives it sockets, and whoever wants no thread drives a [`host::Host`]
//! itself.
//!
//! # Many calls in flight
//!
//! [`Client::submit_write`] and [`Client::submit_read`] return at once. Whatever is in flight together goes into few
//! packets, few entries of the log and few disk writes, so a hundred calls in flight take hardly longer than one.
//!
//! ```
//! # let cluster = viewstone::testing::KvCluster::start(1)?;
//! use viewstone::client::kv::Item;
//!
//! let kv = cluster.kv()?;
//! let keys: Vec<String> = (0..100).map(|number| format!("key-{number}")).collect();
//! let mut pending = Vec::new();
//! for key in &keys {
//!     pending.push(kv.submit(&[Item::put(key.as_bytes(), b"x")])?);
//! }
//! for call in pending {
//!     call.wait()?;
//! }
//! assert_eq!(kv.count()?.count, 100);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Calls that are in flight together are executed **in any order**, even if one thread submitted them: each write has
//! a session of its own. What must come after something else is submitted when that has been answered, or goes with it
//! into one [batch](kv::KvClient::batch) or [transaction](kv::KvClient::transaction). Threads may share a client, by
//! reference or by clones, and need no pool of them.
//!
//! # How a call ends
//!
//! | | was it executed? | what to do |
//! | --- | --- | --- |
//! | `Ok`: a [`Reply`] | once | |
//! | [`CallError::Definite`]: the cluster said no | no, and it never will be | see [`Definite`] |
//! | [`CallError::NotSent`]: no replica took it | no, and it never will be | call again, if it still matters |
//! | [`CallError::Indeterminate`]: sent, no answer in time | perhaps, or later: **once** | [`Client::resolve`], or look |
//!
//! A deadline that passes ends the *waiting*. So a write that was on its way is indeterminate then, and the only wrong
//! thing to do is to submit it a second time as a new call: that is another request, and both may be executed. Ask for
//! the outcome of the first instead:
//!
//! ```
//! # let mut cluster = viewstone::testing::KvCluster::start(3)?;
//! use std::time::Duration;
//!
//! let kv = cluster.kv()?;
//! assert_eq!(kv.increment(b"visits", 1)?, 1);
//!
//! // Two replicas of three go down: nothing can be committed any more.
//! let primary = cluster.wait_for_primary()?;
//! for replica in (0..3).filter(|&it| it != primary) {
//!     cluster.kill(replica)?;
//! }
//! let hasty = kv.with_deadline(Duration::from_millis(100));
//! let error = hasty.increment(b"visits", 1).expect_err("there is no quorum");
//!
//! cluster.restart_all()?;
//! let visits = match error.unknown() {
//!     // Outcome unknown. This waits for it, and makes nothing happen a second time.
//!     Some(unknown) => kv.resolve(unknown)?[0].number,
//!     // Not executed, and never will be: a new call is right.
//!     None => Some(kv.increment(b"visits", 1)?),
//! };
//! assert_eq!(visits, Some(2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reads are never indeterminate: one that was not answered has changed nothing.
//!
//! # Sessions: why nothing is executed twice
//!
//! A write goes through a **session**: an entry in a table that is part of the replicated state. The client asks for
//! one by a `register` request (an entry of the log like any other), gets a number, and from then on numbers its
//! requests within it. A session has one request in flight, so a client holds as many sessions as it has writes in
//! flight at the most, up to [`ClientOptions::sessions`], and keeps them.
//!
//! * **A retry cannot apply twice.** The client sends a request again, under the same session and number, whenever a
//!   connection breaks, a replica does not answer, or the primary changes. Every replica keeps, with each session, the
//!   number of its last executed request and the answer. A copy with that number is answered from there; one with an
//!   older number is dropped. Since the table is state, written in checkpoints and carried to new primaries and to
//!   replicas that catch up, this holds over crashes and failover.
//! * **Failover** is a pause: half a second or so when a primary crashes, next to nothing when it is stopped in an
//!   orderly way. The client asks the replicas who leads, and sends there what is in flight. Nothing of that is told
//!   to callers, but by deadlines that are shorter than the pause. A write that was acknowledged is on a quorum of
//!   disks, and is there.
//! * **Eviction.** The table has room for so many sessions (the geometry's `sessions_max`, 1,024 unless formatted
//!   otherwise). When it is full and somebody asks for one more, the session that was idle longest is given away, if
//!   it was idle for a minute at least; if none was, the asker is told [`Definite::SessionsFull`] (the client then
//!   makes do with the sessions it has, if it has any). A client whose idle session is gone opens another one, and
//!   nobody notices. Only if a request of that session is still unanswered is its outcome lost, with the session that
//!   knew it: the call ends as indeterminate, [`UnknownReason::Evicted`].
//! * **A client that ends** just leaves its sessions idle. A new client has new ones, so it cannot ask for the outcome
//!   of what an earlier one had in flight: where that matters, make it visible in the state (a key per order, say, set
//!   only if absent).
//!
//! **Reads** need no session and no log entry. They are linearizable all the same: a primary makes sure that it still
//! leads before it answers, and answers from a state that has everything that was acknowledged before the read was
//! submitted.
//!
//! # Deadlines
//!
//! Each call has one: [`ClientOptions::deadline`] (ten seconds), or what [`Client::with_deadline`] or
//! [`Client::submit`] says. It bounds the whole call: finding a primary, waiting for a session, sending, resending. If
//! nobody answers at all, [`Client::troubles`] says for each address why.
//!
//! ```
//! use std::time::Duration;
//! use viewstone::client::{CallError, Client, ClientOptions, NotSent, operation};
//!
//! // Nobody listens there.
//! let client = Client::connect(&ClientOptions::new(7, ["127.0.0.1:1"]))?;
//! let hasty = client.with_deadline(Duration::from_millis(50));
//! let error = hasty.write(operation(1, 1), b"").expect_err("there is no replica");
//! assert_eq!(error, CallError::NotSent(NotSent::Deadline));
//! let (address, trouble) = &client.troubles()[0];
//! assert_eq!(address, "127.0.0.1:1");
//! assert!(trouble.contains("refused"), "{trouble}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod call;
pub mod core;
pub mod host;
pub mod kv;
mod link;
pub mod outcome;
mod resolve;
pub(crate) mod wait;

pub use self::core::{Core, CoreOptions, Kind, Output, REGISTER, SESSIONS_MAX, Statistics};
pub use host::Host;
pub use outcome::{CallError, Definite, NotSent, Reply, ReplyRef, Unknown, UnknownReason};

use host::Waker;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a client is made with.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The cluster's id.
    pub cluster: u128,
    /// The replicas' addresses: `host:port`, IPv4 or bracketed IPv6. Names are looked up again whenever the client
    /// connects again.
    pub addresses: Vec<String>,
    /// Most sessions, and so most writes in flight; 1 to [`SESSIONS_MAX`]. They are opened as they are needed.
    pub sessions: usize,
    /// Most calls held, queued ones included: one more ends with [`NotSent::QueueFull`].
    pub calls_max: usize,
    /// How long a call may take if it does not say.
    pub deadline: Duration,
}

impl ClientOptions {
    /// 64 sessions, 16,384 calls, ten seconds a call.
    pub fn new<A: Into<String>>(cluster: u128, addresses: impl IntoIterator<Item = A>) -> Self {
        Self {
            cluster,
            addresses: addresses.into_iter().map(Into::into).collect(),
            sessions: 64,
            calls_max: 16_384,
            deadline: Duration::from_secs(10),
        }
    }

    /// A core with these options and a fresh seed, on a host of its own: for those who drive it themselves.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn host(&self) -> Result<Host, ConnectError> {
        if self.addresses.is_empty() {
            return Err(ConnectError::NoAddress);
        }
        for address in &self.addresses {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                return Err(ConnectError::Address(address.clone()));
            }
        }
        if !(1..=SESSIONS_MAX).contains(&self.sessions) {
            return Err(ConnectError::Sessions(self.sessions));
        }
        let calls_max = self.calls_max.clamp(1, 1 << 24);
        let core = Core::new(CoreOptions {
            cluster: self.cluster,
            addresses: self.addresses.len(),
            sessions_max: self.sessions,
            calls_max,
            reads_max: calls_max,
            seed: entropy()?,
        });
        Ok(Host::new(core, self.cluster, &self.addresses)?)
    }
}

/// Why a client cannot be made. That no replica answers is not among the reasons: it keeps trying.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The list is empty.
    #[error("no address given: name the replicas as host:port, separated by commas")]
    NoAddress,
    /// An entry of the list has no port.
    #[error("'{0}' is not an address: give host:port, 127.0.0.1:3001 or [::1]:3001")]
    Address(String),
    /// More sessions than a client may hold, or none.
    #[error("{0} sessions: a client has from 1 to 65,535")]
    Sessions(usize),
    /// The system gives no descriptor, thread or entropy.
    #[error("the system does not let the client start: {0}")]
    System(#[from] io::Error),
}

pub(crate) fn entropy() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

/// A number for [`Client::write`] and [`Client::read`]: of a machine's operation. Machines count from 1, in the order
/// of the cluster's tuple.
///
/// ```
/// assert_eq!(viewstone::client::operation(1, 7), 0x0107);
/// ```
pub const fn operation(machine: u8, operation: u8) -> u16 {
    (machine as u16) << 8 | operation as u16
}

/// The moment that is so far away; one that the clock cannot tell is a year away, for some ask for "ever".
fn moment_after(duration: Duration) -> Instant {
    let now = Instant::now();
    let far = Duration::from_hours(365 * 24);
    now.checked_add(duration).unwrap_or(now + far)
}

/// How a call ends.
pub type CallResult = Result<Reply, CallError>;

/// Calls a cluster. `Send` and `Sync`, and cheap to clone: clones are the same client, with the same connections and
/// sessions. When the last one is dropped all calls end.
#[derive(Clone, Debug)]
pub struct Client {
    worker: Arc<WorkerThread>,
    deadline: Duration,
}

/// The background thread, as its callers know it.
#[derive(Debug)]
struct WorkerThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

static_assertions::assert_impl_all!(Client: Send, Sync);

#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    waker: Waker,
}

#[derive(Debug)]
struct Inbox {
    calls: VecDeque<Submission>,
    /// The thread has been woken, or is about to look: no need to wake it once more.
    awake: bool,
    closed: bool,
    troubles: Vec<(String, String)>,
}

#[derive(Debug)]
struct Submission {
    what: What,
    deadline: Instant,
    outcome: Arc<Outcome>,
}

#[derive(Debug)]
enum What {
    Call(Kind, u16, Vec<u8>),
    Resolve(Unknown),
}

#[derive(Debug)]
struct Outcome {
    result: Mutex<Option<CallResult>>,
    known: Condvar,
}

impl Outcome {
    fn set(&self, result: CallResult) {
        *lock(&self.result) = Some(result);
        self.known.notify_all();
    }
}

/// Nothing here panics while it holds a lock; if the impossible happens, the data is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call under way. Dropping it does not end the call; it only means that nobody hears how it ends.
#[derive(Debug)]
#[must_use = "the call goes on, but nobody will know how it ended"]
pub struct Pending {
    outcome: Arc<Outcome>,
}

impl Pending {
    /// Waits for the end; the call's deadline bounds it.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn wait(self) -> CallResult {
        let mut result = lock(&self.outcome.result);
        loop {
            if let Some(result) = result.take() {
                return result;
            }
            let known = &self.outcome.known;
            result = known.wait(result).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The result, once, if it is there already.
    pub fn try_take(&self) -> Option<CallResult> {
        lock(&self.outcome.result).take()
    }
}

impl Client {
    /// Starts a client. It returns at once; calls wait for a primary until their deadlines.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// use std::time::Duration;
    /// use viewstone::client::{Client, ClientOptions};
    ///
    /// # let (id, addresses) = (cluster.id(), cluster.addresses().to_vec());
    /// let client = Client::connect(&ClientOptions {
    ///     sessions: 8,
    ///     deadline: Duration::from_secs(60),
    ///     ..ClientOptions::new(id, addresses)
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ConnectError`]: the options make no sense, or the system is out of descriptors or threads.
    pub fn connect(options: &ClientOptions) -> Result<Self, ConnectError> {
        let host = options.host()?;
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox {
                calls: VecDeque::new(),
                awake: false,
                closed: false,
                troubles: Vec::new(),
            }),
            waker: host.waker(),
        });
        let worker = Worker {
            host,
            shared: Arc::clone(&shared),
            outcomes: Vec::new(),
            free: Vec::new(),
            troubles_version: 0,
        };
        let thread = std::thread::Builder::new()
            .name("client".to_owned())
            .spawn(move || worker.run())?;
        let thread = Some(thread);
        Ok(Self {
            worker: Arc::new(WorkerThread { shared, thread }),
            deadline: options.deadline,
        })
    }

    /// The same client, with another deadline for the calls that do not say one.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let client = cluster.client()?;
    /// # let body = 7u64.to_le_bytes();
    /// use std::time::Duration;
    /// use viewstone::client::operation;
    ///
    /// let patient = client.with_deadline(Duration::from_mins(5));
    /// patient.read(operation(1, 19), &body)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// How long a call may take if it does not say.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Executes an operation that changes the state, and waits for its answer. [`operation`] makes the number.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn write(&self, operation: u16, body: &[u8]) -> CallResult {
        self.submit_write(operation, body).wait()
    }

    /// Executes an operation that changes nothing, and waits for its answer: linearizable, and not in the log.
    ///
    /// # Errors
    /// [`CallError`]; never [`CallError::Indeterminate`]. [`Definite::Invalid`] also if the operation changes something.
    pub fn read(&self, operation: u16, body: &[u8]) -> CallResult {
        self.submit_read(operation, body).wait()
    }

    /// Starts a write and returns at once. Any number may be under way; more than the client has sessions wait their
    /// turn.
    pub fn submit_write(&self, operation: u16, body: &[u8]) -> Pending {
        self.submit(Kind::Write, operation, body, self.deadline)
    }

    /// Starts a read and returns at once.
    pub fn submit_read(&self, operation: u16, body: &[u8]) -> Pending {
        self.submit(Kind::Read, operation, body, self.deadline)
    }

    /// Starts a call with a deadline of its own and returns at once. Not for [`Kind::Register`], which is the library's.
    pub fn submit(&self, kind: Kind, operation: u16, body: &[u8], deadline: Duration) -> Pending {
        assert!(kind != Kind::Register, "sessions are the library's own");
        self.post(What::Call(kind, operation, body.to_vec()), deadline)
    }

    /// Waits again for a write whose outcome was unknown, or tells it, if it is known by now. Safe at any time: the
    /// write is not made a second time. Only the client that made the call knows it (and its clones), and only until
    /// it has used the session for another call: [`UnknownReason::Superseded`].
    pub fn resolve(&self, unknown: &Unknown, deadline: Duration) -> Pending {
        self.post(What::Resolve(*unknown), deadline)
    }

    /// What is wrong with each address that does not answer (address, trouble): for messages to people.
    pub fn troubles(&self) -> Vec<(String, String)> {
        lock(&self.worker.shared.inbox).troubles.clone()
    }

    fn post(&self, what: What, deadline: Duration) -> Pending {
        let outcome = Arc::new(Outcome {
            result: Mutex::new(None),
            known: Condvar::new(),
        });
        let submission = Submission {
            what,
            deadline: moment_after(deadline),
            outcome: Arc::clone(&outcome),
        };
        let mut inbox = lock(&self.worker.shared.inbox);
        if inbox.closed {
            outcome.set(Err(NotSent::Closed.into()));
            return Pending { outcome };
        }
        inbox.calls.push_back(submission);
        let wake = !std::mem::replace(&mut inbox.awake, true);
        drop(inbox);
        if wake {
            self.worker.shared.waker.wake();
        }
        Pending { outcome }
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        lock(&self.shared.inbox).closed = true;
        self.shared.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The background thread.
struct Worker {
    host: Host,
    shared: Arc<Shared>,
    /// Who waits for each tag.
    outcomes: Vec<Option<Arc<Outcome>>>,
    free: Vec<usize>,
    troubles_version: u64,
}

impl Worker {
    fn run(mut self) {
        loop {
            let closed = self.take_calls();
            if closed {
                self.host.core().close();
            }
            let (outcomes, free) = (&mut self.outcomes, &mut self.free);
            let mut on_done = |tag: u64, result: Result<ReplyRef<'_>, CallError>| {
                let outcome = outcomes[tag as usize].take().expect("a tag ends once");
                free.push(tag as usize);
                outcome.set(result.map(ReplyRef::to_owned));
            };
            // After closing, a turn without waiting hands out the last results.
            let until = if closed { 0 } else { u64::MAX };
            if self.host.turn(until, &mut on_done).is_err() || closed {
                break;
            }
        }
        // The thread ends, whatever the reason: nobody waits for ever.
        let calls = {
            let mut inbox = lock(&self.shared.inbox);
            inbox.closed = true;
            std::mem::take(&mut inbox.calls)
        };
        for submission in calls {
            submission.outcome.set(Err(NotSent::Closed.into()));
        }
        self.host.core().close();
        while let Some(output) = self.host.core().poll() {
            if let Output::Done { tag, result } = output
                && let Some(outcome) = self.outcomes[tag as usize].take()
            {
                outcome.set(result.map(ReplyRef::to_owned));
            }
        }
    }

    /// Moves what callers have posted into the core. True if the client is closed.
    fn take_calls(&mut self) -> bool {
        let (calls, closed) = {
            let mut inbox = lock(&self.shared.inbox);
            inbox.awake = false;
            if self.troubles_version != self.host.troubles_version() {
                self.troubles_version = self.host.troubles_version();
                inbox.troubles.clear();
                for (address, trouble) in self.host.troubles() {
                    let trouble = trouble.map(|it| (address.to_owned(), it.to_owned()));
                    inbox.troubles.extend(trouble);
                }
            }
            (std::mem::take(&mut inbox.calls), inbox.closed)
        };
        let (now, instant) = (self.host.now_ns(), Instant::now());
        for Submission {
            what,
            deadline,
            outcome,
        } in calls
        {
            let left = deadline.saturating_duration_since(instant).as_nanos();
            let deadline = now.saturating_add(u64::try_from(left).unwrap_or(u64::MAX));
            let tag = self.free.pop().unwrap_or_else(|| {
                self.outcomes.push(None);
                self.outcomes.len() - 1
            });
            let core = self.host.core();
            match what {
                What::Resolve(unknown) => core.resolve(now, &unknown, deadline, tag as u64),
                What::Call(kind, operation, body) => {
                    let submitted = core.submit(now, kind, operation, &body, deadline, tag as u64);
                    if let Err(error) = submitted {
                        self.free.push(tag);
                        outcome.set(Err(error.into()));
                        continue;
                    }
                }
            }
            self.outcomes[tag] = Some(outcome);
        }
        closed
    }
}
