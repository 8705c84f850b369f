//! The gateway: serves the Redis protocol as a client of the cluster.
//!
//! One thread, one epoll. Commands that have come are packed into requests for the key-value machine, those of all
//! connections together: reads into reads, writes into batches, one in flight for each of a fixed number of sessions; what
//! comes meanwhile gathers for the next. It promises:
//!
//! * **Order.** Replies of a connection come in the order of its commands, and its commands are executed in that order: a
//!   connection has one request in flight at most, which holds as many of its commands as may go together.
//! * **Honesty.** A write is sent to the cluster once, under one session and number. If it is not known whether it was
//!   executed, the reply says so (`UNKNOWN ...`), never OK, and nothing is tried again.
//! * **Bounds.** Input, output and the number of connections are bounded, each alone and together. A connection
//!   whose output nobody reads is not served until it is read, and is closed when that takes too long; one that
//!   breaks the protocol is told so and closed. The others do not notice.
//! * **Patience.** While there is no primary commands wait, until their deadline, also those that wait for others before them.
//!
//! A command takes this way: `connection.rs` puts its bytes into the connection's input; `gather.rs` parses it there,
//! runs its function and adds its items to a batch; `send.rs` sends that; `complete.rs` makes a reply of its results. Its bytes
//! stay in the input until then: what turns out to have no room in a reply is simply gathered again, otherwise.

mod batch;
mod clients;
mod complete;
mod connection;
mod front;
mod gather;
mod pace;
mod presence;
mod send;

use super::request::Limits;
use crate::client::{ClientOptions, ConnectError, Host, wait};
use front::Front;
use presence::Presence;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::time::Duration;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;

/// The listener's and the client's places among the epoll events, behind those of the connections.
const LISTENER: u64 = u64::MAX;
const CLUSTER: u64 = u64::MAX - 1;

/// How often connections are looked after, and the request to stop is noticed at the latest.
const SWEEP: Duration = Duration::from_millis(200);

/// Descriptors that are not connections.
const DESCRIPTORS_RESERVED: u64 = 128;

/// What a gateway is made with.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Where it listens: `host:port`.
    pub listen: String,
    /// The cluster, how many sessions the gateway holds, and how long a command may take.
    pub client: ClientOptions,
    /// Most connections; further ones are told so and closed.
    pub connections_max: usize,
    /// What a request may have at most.
    pub limits: Limits,
    /// Bytes of replies that may wait for a connection to read them before it is served no further.
    pub output_size_max: usize,
    /// Bytes of input and output that are held for all connections together.
    pub memory_max: usize,
    /// How long a connection may leave its replies unread.
    pub patience: Duration,
}

impl GatewayOptions {
    /// 8 sessions, 10 s a command, 10,000 connections, 256 MiB.
    pub fn new(listen: impl Into<String>, mut client: ClientOptions) -> Self {
        client.sessions = 8;
        Self {
            listen: listen.into(),
            client,
            connections_max: 10_000,
            limits: Limits::DEFAULT,
            output_size_max: 32 << 20,
            memory_max: 256 << 20,
            patience: Duration::from_secs(30),
        }
    }
}

/// Why a gateway does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The client of the cluster cannot be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It cannot listen there.
    #[error("cannot listen at {address}: {}", listen_advice(.error))]
    Listen {
        /// Where.
        address: String,
        /// Why.
        error: io::Error,
    },
    /// The system gives no descriptor, or refuses to wait.
    #[error("the system does not let the gateway work: {0}")]
    System(#[from] io::Error),
}

/// What went wrong, and what to do.
fn listen_advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there (see `ss -ltnp`); stop it, or choose another port"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this is no address of this machine".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "this user may not: ports below 1024 need CAP_NET_BIND_SERVICE".to_owned()
        }
        io::ErrorKind::InvalidInput => {
            "write host:port, as in 127.0.0.1:6379 or [::1]:6379".to_owned()
        }
        _ => error.to_string(),
    }
}

impl From<rustix::io::Errno> for GatewayError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.into())
    }
}

/// Serves connections until it is told to stop.
#[derive(Debug)]
pub struct Gateway {
    epoll: OwnedFd,
    host: Host,
    front: Front,
    presence: Presence,
    address: SocketAddr,
}

impl Gateway {
    /// Listens, and begins to look for the cluster. Connections are served by [`Gateway::run`].
    ///
    /// # Errors
    /// [`GatewayError`].
    pub fn bind(options: &GatewayOptions) -> Result<Self, GatewayError> {
        let failed = |error| GatewayError::Listen {
            address: options.listen.clone(),
            error,
        };
        let listener = TcpListener::bind(&options.listen).map_err(failed)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let host = options.client.host()?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        epoll::add(&epoll, &host, EventData::new_u64(CLUSTER), EventFlags::IN)?;
        let connections_max = raise_descriptors(options.connections_max);
        let mut front = Front::new(options, listener, connections_max, host.clock())?;
        front.shared.port = address.port();
        Ok(Self {
            epoll,
            host,
            front,
            presence: Presence::default(),
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves, until `is_stopped` says so; that is asked several times a second.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn run(&mut self, is_stopped: &dyn Fn() -> bool) -> Result<(), GatewayError> {
        // Batches wait for some 100 us: not for 50 more, by which the kernel may be late. It works without.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        while !is_stopped() {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), GatewayError> {
        let sweep_at = self.front.swept_at + SWEEP.as_nanos() as u64;
        let until = self.host.core().deadline_ns().min(sweep_at);
        let until = until.min(self.front.wake_ns());
        let wait = if self.front.has_work() {
            0
        } else {
            until.saturating_sub(self.host.now_ns())
        };
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_MAX];
        for event in wait::wait(&self.epoll, wait, &mut events)? {
            match event.data.u64() {
                LISTENER => self.front.accept(&self.epoll),
                CLUSTER => {}
                place => self.front.on_event(place, event.flags),
            }
        }
        let now = self.host.now_ns();
        self.front.receive();
        self.front.gather(self.host.core(), now);
        let front = &mut self.front;
        // By the clock of `now`, which is the cluster's host's; the start of this turn is near enough.
        self.host
            .turn(0, &mut |tag, result| front.complete(tag, result, now))?;
        self.front.flush();
        if now >= sweep_at {
            self.front.sweep(now);
            self.front.learn(self.host.core());
            let leads = self.host.core().primary().is_some();
            self.presence.on_sweep(now, leads, &self.host);
            self.front.listen_again(&self.epoll);
        }
        Ok(())
    }
}

/// Lets the process have as many descriptors as it is to have connections. How many connections there may be.
fn raise_descriptors(wanted: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let needed = wanted as u64 + DESCRIPTORS_RESERVED;
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limit.current) {
        return wanted;
    }
    let current = if enough(limit.maximum) {
        Some(needed)
    } else {
        limit.maximum
    };
    let raised = Rlimit { current, ..limit };
    let got = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => current,
        Err(_) => limit.current,
    };
    let got = got.unwrap_or(u64::MAX);
    wanted.min(
        usize::try_from(got.saturating_sub(DESCRIPTORS_RESERVED))
            .unwrap_or(wanted)
            .max(1),
    )
}
