//! A real cluster for your tests: one to six replicas in threads of this process, in a temporary directory, on ports of
//! the loopback interface that the kernel chose.
//!
//! ```
//! use viewstone::testing::KvCluster;
//!
//! let mut cluster = KvCluster::start(3)?;
//! let kv = cluster.kv()?;
//! kv.put(b"colour", b"green")?;
//!
//! let primary = cluster.wait_for_primary()?;
//! cluster.kill(primary)?; // the others notice, and go on
//! assert_eq!(kv.get(b"colour")?.expect("it was acknowledged").value, b"green");
//!
//! cluster.restart(primary)?; // it catches up
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing is simulated: these are the replicas, the journal, the checkpoints and the TCP connections of production,
//! only smaller. A cluster starts within some tenths of a second, takes some 20 MB of disk and 40 MB of memory for
//! each replica, and its directory is removed when it is dropped (a process that is killed leaves it in the system's
//! temporary directory, as `viewstone-test-...`). Any number may run at once. It needs what a replica needs: Linux
//! with io_uring.
//!
//! The module comes with the feature `server`, which is on by default: it is a few hundred lines above what the server
//! has anyway, and what nobody calls is not linked.
//!
//! # Your own state machine
//!
//! A cluster runs any tuple of [`StateMachine`](crate::state_machine::StateMachine)s, the first of them as machine 1:
//!
//! ```
//! use viewstone::client::operation;
//! use viewstone::state_machine::{Context, Invalid, Limits, Pages, Plan, ReplyBuffer, StateMachine};
//! use viewstone::testing::Cluster;
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! /// A ticket machine: each request gets the next number.
//! #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
//! #[repr(C)]
//! struct Tickets {
//!     last: u64,
//! }
//!
//! impl StateMachine for Tickets {
//!     const NAME: &'static str = "tickets";
//!
//!     fn create(_: &mut Pages) -> Self {
//!         Self { last: 0 }
//!     }
//!
//!     fn validate(_: &Limits, operation: u8, body: &[u8]) -> Result<Plan, Invalid> {
//!         if operation != 1 || !body.is_empty() {
//!             return Err(Invalid);
//!         }
//!         Ok(Plan { reply_size: 8, ..Plan::default() })
//!     }
//!
//!     fn read(&self, _: &Pages, _: &Context, _: u8, _: &[u8], _: &mut ReplyBuffer<'_>) {
//!         unreachable!("no plan of this machine is read-only")
//!     }
//!
//!     fn commit(&mut self, _: &mut Pages, _: &Context, _: u8, _: &[u8], reply: &mut ReplyBuffer<'_>) {
//!         self.last += 1;
//!         reply.push(&self.last.to_le_bytes());
//!     }
//! }
//!
//! let cluster = Cluster::<(Tickets,)>::start(1)?;
//! let client = cluster.client()?;
//! let take = operation(1, 1);
//! assert_eq!(client.write(take, &[])?.body, 1u64.to_le_bytes());
//! assert_eq!(client.write(take, &[])?.body, 2u64.to_le_bytes());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/own_service.rs` has a larger one, with a typed client. A machine that panics takes its replica along, and
//! then the others, since they execute the same: the message is on standard error, calls end at their deadlines, and
//! [`Cluster::stop`] says what happened.
//!
//! # What it can show, and what not
//!
//! [`Cluster::kill`] takes a replica away without a word to the others, at any time; [`Cluster::stop`] as a planned
//! stop does; [`Cluster::restart`] brings it back on its data file and address. Power cuts, damaged disks, partitions
//! and skewed clocks are not for threads in one process: the project's own simulator covers those (`docs/testing.md`).

mod directory;

use crate::client::kv::KvClient;
use crate::client::{Client, ClientOptions, ConnectError, entropy};
use crate::machines::Machines;
use crate::server::embedded::{EmbeddedCluster, EmbeddedError};
use crate::state_machine::kv::Kv;
use directory::Directory;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use storage::layout::{Geometry, REPLICAS_MAX};

/// How long a primary is waited for. Far beyond what an election takes, also on a machine that is busy with other tests.
const PRIMARY_MAX: Duration = Duration::from_mins(1);

/// How often it is looked for.
const PRIMARY_PAUSE: Duration = Duration::from_millis(2);

/// What a test's replicas are like: 64 KiB messages, 64 sessions, 4 MiB of state.
pub const GEOMETRY: Geometry = Geometry {
    state_size: 4 << 20,
    message_size_max: 64 << 10,
    slots: 64,
    sessions_max: 64,
    ..Geometry::DEFAULT
};

/// What a cluster is made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterOptions {
    /// Replicas: 1 to 6. Three bear the loss of one; one is enough for tests of what a machine answers.
    pub replicas: u8,
    /// Sizes. A test that needs more state, or larger messages, takes [`GEOMETRY`] with other numbers.
    pub geometry: Geometry,
    /// Where its directory is made. By default the system's place for temporary files, which `TMPDIR` sets.
    pub directory: PathBuf,
}

impl ClusterOptions {
    /// The defaults for so many replicas.
    pub fn new(replicas: u8) -> Self {
        Self {
            replicas,
            geometry: GEOMETRY,
            directory: std::env::temp_dir(),
        }
    }
}

/// Why a cluster does not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No cluster has so many replicas.
    #[error("a cluster of {0} replicas: it has from 1 to {REPLICAS_MAX}")]
    Replicas(u8),
    /// There is no such replica.
    #[error("there is no replica {replica}: the last of this cluster is {}", .replicas - 1)]
    NoSuchReplica {
        /// The index asked for.
        replica: u8,
        /// How many there are.
        replicas: u8,
    },
    /// The directory cannot be made.
    #[error("no directory for the data files in {}: {error}", directory.display())]
    Directory {
        /// Where.
        directory: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The replicas do not start, or one has stopped by itself.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// A client cannot be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nobody leads.
    #[error(
        "no replica has become primary within {PRIMARY_MAX:?}; {running} of {replicas} run, and more than half must"
    )]
    NoPrimary {
        /// Replicas that run.
        running: u8,
        /// Replicas that there are.
        replicas: u8,
    },
}

/// A cluster of the built-in key-value store.
pub type KvCluster = Cluster<(Kv,)>;

/// A running cluster of the machines `M`. Dropping it stops the replicas and removes their files.
#[derive(Debug)]
pub struct Cluster<M> {
    id: u128,
    replicas: u8,
    // In this order: the replicas end before their files go.
    embedded: EmbeddedCluster<M>,
    directory: Directory,
}

impl<M: Machines> Cluster<M> {
    /// Starts a cluster of so many replicas, and waits until one of them leads it.
    ///
    /// ```
    /// let cluster = viewstone::testing::KvCluster::start(1)?;
    /// assert_eq!(cluster.primary(), Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn start(replicas: u8) -> Result<Self, ClusterError> {
        Self::start_with(&ClusterOptions::new(replicas))
    }

    /// As [`Self::start`], with all there is to choose.
    ///
    /// ```
    /// use viewstone::storage::layout::Geometry;
    /// use viewstone::testing::{ClusterOptions, GEOMETRY, KvCluster};
    ///
    /// let cluster = KvCluster::start_with(&ClusterOptions {
    ///     geometry: Geometry { state_size: 16 << 20, ..GEOMETRY },
    ///     ..ClusterOptions::new(1)
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn start_with(options: &ClusterOptions) -> Result<Self, ClusterError> {
        let replicas = options.replicas;
        if !(1..=REPLICAS_MAX).contains(&usize::from(replicas)) {
            return Err(ClusterError::Replicas(replicas));
        }
        // Random, so that a client of an earlier cluster, whose port this one got, is turned away.
        let random = entropy().map_err(ConnectError::from)?;
        let (id, _) = random.split_at(16);
        let id = u128::from_le_bytes(id.try_into().expect("sixteen bytes")) | 1;
        let directory = Directory::new(&options.directory, id as u32);
        let directory = directory.map_err(|error| ClusterError::Directory {
            directory: options.directory.clone(),
            error,
        })?;
        let embedded = EmbeddedCluster::format(id, replicas, options.geometry, directory.path())?;
        let mut this = Self {
            id,
            replicas,
            embedded: embedded.as_guest(),
            directory,
        };
        this.embedded.start()?;
        this.wait_for_primary()?;
        Ok(this)
    }

    /// A client of the cluster, with the default options.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn client(&self) -> Result<Client, ConnectError> {
        Client::connect(&self.client_options())
    }

    /// What a client of this cluster is made with: its id and its addresses, and a deadline of half a minute, since
    /// tests share their machine with others.
    pub fn client_options(&self) -> ClientOptions {
        ClientOptions {
            deadline: Duration::from_secs(30),
            ..ClientOptions::new(self.id, self.embedded.addresses())
        }
    }

    /// The cluster's id.
    pub fn id(&self) -> u128 {
        self.id
    }

    /// The replicas' addresses, `host:port`, in the order of their indexes. They stay as they are.
    pub fn addresses(&self) -> &[String] {
        self.embedded.addresses()
    }

    /// The replicas' data files, in the order of their indexes: `viewstone inspect` reads them while the cluster runs,
    /// `viewstone verify` when it is stopped.
    pub fn files(&self) -> &[PathBuf] {
        self.embedded.files()
    }

    /// Where they are.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Replicas, running or not.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// Whether a replica runs.
    pub fn is_running(&self, replica: u8) -> bool {
        replica < self.replicas && self.embedded.is_running(replica)
    }

    /// The replica that leads; none while there is no such one. It may be another one at any time.
    pub fn primary(&self) -> Option<u8> {
        self.embedded.primary()
    }

    /// Waits until a replica leads, and says which.
    ///
    /// # Errors
    /// [`ClusterError::NoPrimary`] after a minute.
    pub fn wait_for_primary(&self) -> Result<u8, ClusterError> {
        let until = Instant::now() + PRIMARY_MAX;
        loop {
            if let Some(primary) = self.primary() {
                return Ok(primary);
            }
            if Instant::now() >= until {
                let running = (0..self.replicas).filter(|&it| self.is_running(it));
                return Err(ClusterError::NoPrimary {
                    running: running.count() as u8,
                    replicas: self.replicas,
                });
            }
            thread::sleep(PRIMARY_PAUSE);
        }
    }

    /// Stops a replica as SIGTERM does: if it leads, it lets the others know, so that they need not find out. Returns
    /// when it is gone; nothing happens if it does not run.
    ///
    /// # Errors
    /// There is no such replica, or it had stopped by itself, and why.
    pub fn stop(&mut self, replica: u8) -> Result<(), ClusterError> {
        self.check(replica)?;
        Ok(self.embedded.stop_replica(replica)?)
    }

    /// Stops a replica without a word to the others: they have to find out, which takes them about half a second.
    /// Returns when it is gone; nothing happens if it does not run.
    ///
    /// # Errors
    /// There is no such replica, or it had stopped by itself, and why.
    pub fn kill(&mut self, replica: u8) -> Result<(), ClusterError> {
        self.check(replica)?;
        Ok(self.embedded.kill_replica(replica)?)
    }

    /// Starts a replica that was stopped, on its data file and its address. Returns when it listens and has read its
    /// file; what it missed it fetches in the background. Nothing happens if it runs.
    ///
    /// # Errors
    /// There is no such replica, or it does not start.
    pub fn restart(&mut self, replica: u8) -> Result<(), ClusterError> {
        self.check(replica)?;
        if !self.embedded.is_running(replica) {
            self.embedded.start_replica(replica)?;
        }
        Ok(())
    }

    /// Stops all replicas that run, as SIGTERM does, and keeps their files: what was acknowledged is there after
    /// [`Self::restart_all`].
    ///
    /// # Errors
    /// Why a replica had stopped by itself.
    pub fn stop_all(&mut self) -> Result<(), ClusterError> {
        Ok(self.embedded.stop()?)
    }

    /// Starts all replicas that do not run, and waits until one leads.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn restart_all(&mut self) -> Result<(), ClusterError> {
        self.embedded.start()?;
        self.wait_for_primary()?;
        Ok(())
    }

    fn check(&self, replica: u8) -> Result<(), ClusterError> {
        if replica < self.replicas {
            return Ok(());
        }
        Err(ClusterError::NoSuchReplica {
            replica,
            replicas: self.replicas,
        })
    }
}

impl Cluster<(Kv,)> {
    /// A client of the key-value store.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn kv(&self) -> Result<KvClient, ConnectError> {
        Ok(KvClient::new(self.client()?))
    }
}
