//! A whole cluster in this process: real replicas on threads of their own, real data files, real TCP on loopback. For the
//! load generator, and for tests that want the real thing.

use super::data_file::{self, Device};
use super::{Listener, Published, Running, ServerOptions, hosting};
use crate::machines::Machines;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use storage::format::Format;
use storage::layout::{Geometry, JournalAck};
use storage::superblock::FileId;

/// How long a replica may take to open its data file.
const OPEN_MAX: Duration = Duration::from_mins(1);

/// A cluster of machines `M` in this process. Dropping it stops it.
pub struct EmbeddedCluster<M> {
    files: Vec<PathBuf>,
    addresses: Vec<String>,
    clients_max: usize,
    running: Vec<Running>,
    published: Vec<Arc<Published>>,
    machines: PhantomData<fn() -> M>,
}

impl<M: Machines> EmbeddedCluster<M> {
    /// Formats the data files `0.viewstone`, `1.viewstone`, ... in `directory`, which exists.
    ///
    /// # Errors
    /// What went wrong, for the user.
    pub fn format(
        cluster: u128,
        replica_count: u8,
        geometry: Geometry,
        directory: &Path,
    ) -> Result<Self, String> {
        let mut files = Vec::new();
        for replica in 0..replica_count {
            let path = directory.join(format!("{replica}.viewstone"));
            let device: Device = data_file::probe(directory).map_err(|error| error.to_string())?;
            let journal_ack: JournalAck = device.journal_ack(replica_count);
            let geometry = Geometry {
                journal_ack: journal_ack as u8,
                ..geometry
            };
            let mut file = [0; 16];
            hosting::fill_random(&mut file).map_err(|error| error.to_string())?;
            let file = FileId::of_random(u128::from_le_bytes(file));
            let format = Format::new(cluster, file, replica, replica_count, geometry)
                .map_err(|error| error.to_string())?;
            data_file::create(&path, &format, |_, _| {}).map_err(|error| error.to_string())?;
            files.push(path);
        }
        Ok(Self {
            files,
            addresses: Vec::new(),
            clients_max: ServerOptions::CLIENTS_MAX_DEFAULT,
            running: Vec::new(),
            published: Vec::new(),
            machines: PhantomData,
        })
    }

    /// Starts all replicas, on free ports, and waits until each has read its data file.
    ///
    /// # Errors
    /// What went wrong, for the user.
    pub fn start(&mut self) -> Result<(), String> {
        assert!(self.running.is_empty());
        let listeners: Result<Vec<Listener>, _> = self
            .files
            .iter()
            .map(|_| Listener::bind("127.0.0.1:0"))
            .collect();
        let listeners = listeners.map_err(|error| error.to_string())?;
        self.addresses = listeners
            .iter()
            .map(|listener| listener.address.to_string())
            .collect();
        self.published.clear();
        let (ready_sender, ready) = mpsc::sync_channel(self.files.len());
        for (index, listener) in listeners.into_iter().enumerate() {
            let path = self.files[index].clone();
            let options = ServerOptions {
                clients_max: self.clients_max,
                seed: index as u64,
                ..ServerOptions::new(self.addresses.clone())
            };
            let ready = ready_sender.clone();
            let published = Arc::new(Published::default());
            self.published.push(Arc::clone(&published));
            let run = move |stop: &super::Stop| {
                let file = hosting::open(&path, false)
                    .map_err(|error| super::ServerError::DataFile(error.to_string()))?;
                let on_ready = |_: SocketAddr, _: u8| {
                    let _ = ready.try_send(());
                };
                hosting::run::<M>(file, listener, &options, stop, &published, on_ready)
            };
            let running = Running::spawn(format!("replica-{index}"), run);
            self.running
                .push(running.map_err(|error| error.to_string())?);
        }
        drop(ready_sender);
        for _ in 0..self.files.len() {
            if ready.recv_timeout(OPEN_MAX).is_err() {
                return Err(self
                    .stop()
                    .err()
                    .unwrap_or_else(|| "a replica does not open".to_owned()));
            }
        }
        Ok(())
    }

    /// Stops all replicas as SIGTERM would, and waits until they are gone.
    ///
    /// # Errors
    /// Why a replica had stopped by itself.
    pub fn stop(&mut self) -> Result<(), String> {
        let mut result = Ok(());
        for running in &self.running {
            running.stop.stop();
        }
        for running in self.running.drain(..) {
            if let Err(error) = running.stop() {
                result = Err(error.to_string());
            }
        }
        result
    }

    /// The replicas' addresses, in the order of their indexes; they change with each start.
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
}

impl<M> Drop for EmbeddedCluster<M> {
    fn drop(&mut self) {
        for running in &self.running {
            running.stop.stop();
        }
        for running in self.running.drain(..) {
            let _ = running.stop(); // the reason was asked for by stop(), or nobody wants it
        }
    }
}
