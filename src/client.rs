//! The client library: calls with a deadline, which end in an answer or in an error that says exactly what may have
//! happened ([`CallError`]).
//!
//! ```no_run
//! use viewstone::client::{Client, ClientOptions};
//!
//! let addresses = ["127.0.0.1:3001", "127.0.0.1:3002", "[::1]:3003"];
//! let client = Client::connect(&ClientOptions::new(0x1234, addresses))?;
//! let reply = client.write(0x0101, b"machine 1, operation 1")?;
//! println!("executed by op {}", reply.op);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A client finds the primary, opens sessions as it needs them, reconnects, backs off and sends again, all by itself,
//! on one background thread with one connection to each replica, however many calls are in flight. The protocol is in
//! [`core`], pure; [`host`] gives it sockets, and whoever wants no thread drives a [`host::Host`] itself.

mod call;
pub mod core;
pub mod host;
pub mod kv;
mod link;
pub mod outcome;
mod resolve;

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

/// How a call ends.
pub type CallResult = Result<Reply, CallError>;

/// Calls a cluster. `Send` and `Sync`: share it among threads. Dropping it ends all calls.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    deadline: Duration,
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

/// A call under way.
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
        Ok(Self {
            shared,
            thread: Some(thread),
            deadline: options.deadline,
        })
    }

    /// Executes an operation that changes the state, and waits for its answer for as long as the options say. The
    /// operation's high byte is the machine.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn write(&self, operation: u16, body: &[u8]) -> CallResult {
        self.submit(Kind::Write, operation, body, self.deadline)
            .wait()
    }

    /// Executes an operation that changes nothing: linearizable, and not in the log.
    ///
    /// # Errors
    /// [`CallError`]; never [`CallError::Indeterminate`].
    pub fn read(&self, operation: u16, body: &[u8]) -> CallResult {
        self.submit(Kind::Read, operation, body, self.deadline)
            .wait()
    }

    /// Starts a call and returns at once. Any number may be under way; writes share the client's sessions.
    pub fn submit(&self, kind: Kind, operation: u16, body: &[u8], deadline: Duration) -> Pending {
        assert!(kind != Kind::Register, "sessions are the library's own");
        self.post(What::Call(kind, operation, body.to_vec()), deadline)
    }

    /// Waits again for a write whose outcome was unknown. Safe at any time: the write is not made a second time.
    pub fn resolve(&self, unknown: &Unknown, deadline: Duration) -> Pending {
        self.post(What::Resolve(*unknown), deadline)
    }

    /// What is wrong with each address that does not answer: for messages to people.
    pub fn troubles(&self) -> Vec<(String, String)> {
        lock(&self.shared.inbox).troubles.clone()
    }

    fn post(&self, what: What, deadline: Duration) -> Pending {
        let outcome = Arc::new(Outcome {
            result: Mutex::new(None),
            known: Condvar::new(),
        });
        let submission = Submission {
            what,
            deadline: Instant::now() + deadline,
            outcome: Arc::clone(&outcome),
        };
        let mut inbox = lock(&self.shared.inbox);
        if inbox.closed {
            outcome.set(Err(NotSent::Closed.into()));
            return Pending { outcome };
        }
        inbox.calls.push_back(submission);
        let wake = !std::mem::replace(&mut inbox.awake, true);
        drop(inbox);
        if wake {
            self.shared.waker.wake();
        }
        Pending { outcome }
    }
}

impl Drop for Client {
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
