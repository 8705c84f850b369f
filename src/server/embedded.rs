//! A whole cluster in this process: real replicas on threads of their own, real data files, real TCP on loopback. For
//! the load generator, and, behind [`crate::testing`], for tests that want the real thing.
//!
//! A replica can be stopped and started again by itself; all keep their addresses. Nothing here touches what belongs
//! to the process: no signal handlers, no log; its memory is locked only if that is asked for.

use super::data_file::{self, DataFileError};
use super::{ListenError, Listener, Published, ReservedPort, Running, ServerError, ServerOptions};
use super::{Stop, hosting};
use crate::machines::Machines;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use storage::format::Format;
use storage::layout::Geometry;
use storage::superblock::FileId;

/// How long a replica may take to open its data file.
const OPEN_MAX: Duration = Duration::from_mins(1);

/// Why a cluster is not made, or does not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// A data file cannot be made.
    #[error(transparent)]
    DataFile(#[from] DataFileError),
    /// There is no port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A replica cannot start, or has stopped by itself.
    #[error("replica {replica}: {error}")]
    Replica {
        /// Its index.
        replica: u8,
        /// Why.
        error: ServerError,
    },
    /// It takes too long.
    #[error("replica {0} has not opened its data file within {OPEN_MAX:?}")]
    Slow(u8),
    /// The system gives no thread or randomness.
    #[error("the system does not let the cluster start: {0}")]
    System(String),
}

/// A cluster of machines `M` in this process. Dropping it stops it.
pub struct EmbeddedCluster<M> {
    files: Vec<PathBuf>,
    ports: Vec<ReservedPort>,
    addresses: Vec<String>,
    /// None: not started.
    running: Vec<Option<Running>>,
    published: Vec<Arc<Published>>,
    development: bool,
    lock_memory: bool,
    machines: PhantomData<fn() -> M>,
}

impl<M> std::fmt::Debug for EmbeddedCluster<M> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EmbeddedCluster")
            .field("files", &self.files)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl<M: Machines> EmbeddedCluster<M> {
    /// Formats the data files `0.viewstone`, `1.viewstone`, ... in `directory`, which exists, and takes a port for each
    /// replica.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn format(
        cluster: u128,
        replica_count: u8,
        geometry: Geometry,
        directory: &Path,
    ) -> Result<Self, EmbeddedError> {
        let mut files = Vec::new();
        let mut ports = Vec::new();
        for replica in 0..replica_count {
            let path = directory.join(format!("{replica}.viewstone"));
            let journal_ack = data_file::probe(directory)?.journal_ack(replica_count);
            let geometry = Geometry {
                journal_ack: journal_ack as u8,
                ..geometry
            };
            let mut file = [0; 16];
            hosting::fill_random(&mut file)
                .map_err(|error| EmbeddedError::System(error.to_string()))?;
            let file = FileId::of_random(u128::from_le_bytes(file));
            let format = Format::new(cluster, file, replica, replica_count, geometry)
                .map_err(DataFileError::from)?;
            data_file::create(&path, &format, |_, _| {})?;
            files.push(path);
            ports.push(ReservedPort::on_loopback()?);
        }
        Ok(Self {
            addresses: ports.iter().map(|it| it.address.to_string()).collect(),
            running: files.iter().map(|_| None).collect(),
            published: files.iter().map(|_| Arc::default()).collect(),
            files,
            ports,
            development: false,
            lock_memory: true,
            machines: PhantomData,
        })
    }

    /// Makes it a guest: it takes any file system, also one without direct access, and leaves the memory of the process
    /// unlocked.
    #[must_use]
    pub fn as_guest(mut self) -> Self {
        (self.development, self.lock_memory) = (true, false);
        self
    }

    /// Starts all replicas that do not run, and waits until each has read its data file.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn start(&mut self) -> Result<(), EmbeddedError> {
        let mut started = Vec::new();
        for replica in 0..self.running.len() as u8 {
            if !self.is_running(replica) {
                started.push((replica, self.spawn(replica)?));
            }
        }
        for (replica, ready) in started {
            self.await_ready(replica, &ready)?;
        }
        Ok(())
    }

    /// Starts a replica that does not run, and waits until it has read its data file.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn start_replica(&mut self, replica: u8) -> Result<(), EmbeddedError> {
        assert!(!self.is_running(replica), "replica {replica} runs already");
        let ready = self.spawn(replica)?;
        self.await_ready(replica, &ready)
    }

    /// Stops all replicas as SIGTERM would, and waits until they are gone.
    ///
    /// # Errors
    /// Why a replica had stopped by itself: the first of these reasons.
    pub fn stop(&mut self) -> Result<(), EmbeddedError> {
        // All are told before one is waited for: nobody takes over from anybody.
        for running in self.running.iter().flatten() {
            running.stop.stop();
        }
        let replicas = 0..self.running.len() as u8;
        let results: Vec<_> = replicas.map(|replica| self.join(replica)).collect();
        results.into_iter().collect()
    }

    /// Stops a replica as SIGTERM would, and waits until it is gone: a primary lets the others know. Does nothing if
    /// it does not run.
    ///
    /// # Errors
    /// Why it had stopped by itself.
    pub fn stop_replica(&mut self, replica: u8) -> Result<(), EmbeddedError> {
        self.join(replica)
    }

    /// Stops a replica without a word to the others, which have to find out, and waits until it is gone. What its disk
    /// was doing is waited for; what it had not yet given to the disk is lost. Does nothing if it does not run.
    ///
    /// # Errors
    /// Why it had stopped by itself.
    pub fn kill_replica(&mut self, replica: u8) -> Result<(), EmbeddedError> {
        if let Some(running) = &self.running[usize::from(replica)] {
            running.stop.kill();
        }
        self.join(replica)
    }

    /// Whether a replica has been started and has not ended.
    pub fn is_running(&self, replica: u8) -> bool {
        let running = &self.running[usize::from(replica)];
        running.as_ref().is_some_and(|it| !it.is_finished())
    }

    /// The replica that leads the newest view, of those that run; none between two views.
    pub fn primary(&self) -> Option<u8> {
        let leads = |replica: &u8| {
            let published = &self.published[usize::from(*replica)];
            published.leads.load(Ordering::Relaxed)
        };
        let running = (0..self.running.len() as u8).filter(|&replica| self.is_running(replica));
        let newest = running.max_by_key(leads)?;
        (leads(&newest) > 0).then_some(newest)
    }

    /// The replicas' addresses, in the order of their indexes.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The data files, in the order of the replicas' indexes.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What each replica has counted since its last start.
    pub fn published(&self) -> &[Arc<Published>] {
        &self.published
    }

    /// Starts a replica on a thread; the channel tells when it has read its data file, or ends without a word.
    fn spawn(&mut self, replica: u8) -> Result<Receiver<()>, EmbeddedError> {
        let index = usize::from(replica);
        self.join(replica)?; // one that has ended by itself says why
        let address = self.ports[index].address.to_string();
        let path = self.files[index].clone();
        let options = ServerOptions {
            seed: index as u64,
            lock_memory: self.lock_memory,
            ..ServerOptions::new(self.addresses.clone())
        };
        let published: Arc<Published> = Arc::default();
        self.published[index] = Arc::clone(&published);
        let listener = Listener::bind(&address)?;
        let development = self.development;
        let (ready_sender, ready) = sync_channel(1);
        let run = move |stop: &Stop| {
            let file = hosting::open(&path, development)
                .map_err(|error| ServerError::DataFile(error.to_string()))?;
            let on_ready = |_, _| {
                let _ = ready_sender.try_send(());
            };
            hosting::run::<M>(file, listener, &options, stop, &published, on_ready)
        };
        let running = Running::spawn(format!("replica-{replica}"), run)
            .map_err(|error| EmbeddedError::System(error.to_string()))?;
        self.running[index] = Some(running);
        Ok(ready)
    }

    fn await_ready(&mut self, replica: u8, ready: &Receiver<()>) -> Result<(), EmbeddedError> {
        match ready.recv_timeout(OPEN_MAX) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(EmbeddedError::Slow(replica)),
            Err(RecvTimeoutError::Disconnected) => {
                self.join(replica)?;
                Err(EmbeddedError::Slow(replica)) // it was told to stop, by nobody: it has not opened
            }
        }
    }

    /// Waits for the end of a replica, telling it to stop, if it was started.
    fn join(&mut self, replica: u8) -> Result<(), EmbeddedError> {
        match self.running[usize::from(replica)].take() {
            None => Ok(()),
            Some(running) => running
                .stop()
                .map_err(|error| EmbeddedError::Replica { replica, error }),
        }
    }
}

impl<M> Drop for EmbeddedCluster<M> {
    fn drop(&mut self) {
        for running in self.running.iter().flatten() {
            running.stop.stop();
        }
        for running in self.running.drain(..).flatten() {
            let _ = running.stop(); // the reason was asked for by stop(), or nobody wants it
        }
    }
}
