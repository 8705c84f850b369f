//! A real replica behind the server: what it asks of its host, and how one is put together from a data file.
//!
//! This is also how a program of your own hosts your own state machines. The data file is made by `viewstone format`,
//! which does not care what the machines are; every replica of a cluster runs the same ones, in the same order.
//!
//! ```
//! use std::sync::Arc;
//! use viewstone::server::{ServerOptions, Stop, hosting};
//! use viewstone::state_machine::kv::Kv;
//!
//! # let mut cluster = viewstone::testing::KvCluster::start(1)?;
//! # cluster.stop_all()?;
//! # let path = cluster.files()[0].clone();
//! # let addresses = cluster.addresses().to_vec();
//! let file = hosting::open(&path, true)?; // in production false: insists on a file system with O_DIRECT
//! let own = usize::from(file.superblock.state.replica);
//! let listener = hosting::listen(&addresses[own])?;
//! let options = ServerOptions::new(addresses);
//! let stop = Stop::default();
//! stop.on_signals()?;
//! # let ready = stop.clone();
//! hosting::run::<(Kv,)>(file, listener, &options, &stop, &Arc::default(), |address, replica| {
//!     // Sealed from here on, if the program has the sealed allocator: nothing may be allocated.
//!     assert_eq!(replica, 0);
//! #   ready.stop();
//! })?; // returns when it was told to stop
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::data_file::{self, DataFile, DataFileError};
use super::memory::Term;
use super::{
    Bounds, FETCHED_STEP, Hosted, Identity, ListenError, Listener, Published, Server, ServerError,
    ServerOptions, Standing, Stop,
};
use crate::constants;
use crate::log_choice::Contradiction;
use crate::machines::Machines;
use crate::replica::{BufferNeeds, Effects, Event, Metrics, Now, Peer, Replica, ReplicaOptions};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use storage::buffer::MessagePool;
use storage::checkpoint::Damages;
use storage::header::{Header, ReplicaStatus};
use storage::layout::{Geometry, Layout};

/// How long a data file or a port that is in use is waited for, and how often it is tried. The kernel tears the ring
/// of a killed process down in the background. Until then the lock stays: rightly, since writes may still be under
/// way; and so does the port, on which an accept is.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Messages above 4 KiB from clients that may wait for a place in the pipeline: two full pipelines. More clients with
/// large requests are not read until one of these is free.
fn client_messages_max(geometry: &Geometry) -> usize {
    2 * geometry.pipeline_max as usize
}

impl<M: Machines> Hosted for Replica<M> {
    fn step(&mut self, now: Now, event: Event, effects: &mut Effects) {
        Self::step(self, now, event, effects);
    }

    fn start(&mut self, now: Now, effects: &mut Effects) {
        Self::start(self, now, effects);
    }

    fn finish_turn(&mut self, now: Now, effects: &mut Effects) {
        Self::finish_turn(self, now, effects);
    }

    fn deadline_ns(&self) -> u64 {
        Self::deadline_ns(self)
    }

    fn has_work(&self) -> bool {
        Self::has_work(self)
    }

    fn has_room_for(&self, from: Peer, header: &Header) -> bool {
        Self::has_room_for(self, from, header)
    }

    fn metrics(&self) -> &Metrics {
        Self::metrics(self)
    }

    fn prepare_to_stop(&mut self, now: Now, effects: &mut Effects) {
        Self::prepare_to_stop(self, now, effects);
    }

    fn may_stop(&self) -> bool {
        Self::may_stop(self)
    }

    fn take_damages(&mut self) -> Option<Damages> {
        Self::take_damages(self)
    }

    fn take_contradiction(&mut self) -> Option<Contradiction> {
        Self::take_contradiction(self)
    }

    fn standing(&self) -> Option<Standing> {
        let progress = self.progress();
        Some(Standing {
            view: progress.view,
            primary: self.primary(),
            status: progress.status,
            nowhere: progress.nowhere,
            fetched_steps: progress
                .fetching
                .then_some(progress.pages_fetched / FETCHED_STEP),
            awaited_op: progress.awaited_op,
        })
    }

    fn is_open(&self) -> bool {
        // Alone, nothing but its own disk is to be waited for: ready means serving.
        self.status() == ReplicaStatus::Normal
            || !self.is_solo() && self.status() != ReplicaStatus::Opening
    }

    fn is_clock_synchronised(&self) -> bool {
        Self::is_clock_synchronised(self)
    }
}

/// Buffers that may be stuck in the send queues of peers that do not read, and in the kernel's sends to them: of each
/// pool that prepares may come from.
fn queued_to_peers(geometry: &Geometry, replica_count: u8) -> BufferNeeds {
    let peers = usize::from(replica_count) - 1;
    let pipeline_max = geometry.pipeline_max as usize;
    let queue_max = super::peer_queue_max(geometry) + storage::uring::SEND_BATCH_MAX;
    BufferNeeds {
        small: peers * queue_max,
        large: peers * 2 * pipeline_max,
    }
}

/// The replica's own buffers, those included that are stuck on their way to peers.
fn buffer_needs<M: Machines>(geometry: &Geometry, replica_count: u8) -> BufferNeeds {
    let needs = Replica::<M>::buffer_needs(geometry);
    let queued = queued_to_peers(geometry, replica_count);
    BufferNeeds {
        small: needs.small + queued.small,
        large: needs.large + queued.large,
    }
}

/// What a replica of this geometry asks of its host.
pub fn bounds<M: Machines>(geometry: &Geometry, replica_count: u8) -> Bounds {
    let layout = Layout::new(*geometry);
    let needs = buffer_needs::<M>(geometry, replica_count);
    let queued = queued_to_peers(geometry, replica_count);
    let requests = constants::requests_max(geometry) + constants::reads_max(geometry);
    let large = needs.large * geometry.message_size_max as usize;
    let small = needs.small * storage::SECTOR_SIZE;
    let term = |name, size: usize| Term {
        name,
        size: size as u64,
    };
    Bounds {
        sends_max: Replica::<M>::sends_max(geometry),
        io_max: Replica::<M>::io_max(geometry),
        // A fetched prepare waits for those before it; a cached one for its commit; each may be in its journal write.
        peer_messages_max: constants::REPAIR_PREPARES_MAX
            + 2 * constants::prepares_cached_max(geometry),
        client_messages_max: client_messages_max(geometry) + queued.large,
        small_messages_max: requests + 2 * constants::prepares_cached_max(geometry) + queued.small,
        memory: vec![
            term("large buffers for batches, repair and answers", large),
            term(
                "small buffers for batches, acknowledgements and answers",
                small,
            ),
            term(
                "journal: headers, and buffers for its ring",
                <storage::journal::Journal>::memory(&layout),
            ),
            term(
                "tables of sessions and requests",
                (requests + geometry.sessions_max as usize) * 192,
            ),
            term("votes for a view", constants::VOTES_SIZE),
            term(
                "checkpoints: tags and addresses of pages, and buffers",
                <storage::checkpoint::Checkpoint>::memory(&layout),
            ),
            term(
                "superblock: buffers",
                storage::layout::SUPERBLOCK_COPIES * storage::superblock::COPY_SIZE_MAX,
            ),
        ],
    }
}

/// Runs the replica of a data file until told to stop; `on_ready` is called once it is open and listening.
///
/// # Errors
/// The file, the addresses, the machine or the replica forbid it.
pub fn run<M: Machines>(
    file: DataFile,
    listener: Listener,
    options: &ServerOptions,
    stop: &Stop,
    published: &Arc<Published>,
    on_ready: impl FnOnce(std::net::SocketAddr, u8),
) -> Result<(), ServerError> {
    let state = &file.superblock.state;
    let identity = Identity {
        cluster: state.cluster,
        replica: state.replica,
        replica_count: state.replica_count,
        geometry: state.geometry,
    };
    let geometry = identity.geometry;
    let bounds = bounds::<M>(&geometry, identity.replica_count);
    let mut entropy = [0; 32];
    fill_random(&mut entropy)?;
    let replica_options = ReplicaOptions {
        cluster: identity.cluster,
        replica: identity.replica,
        replica_count: identity.replica_count,
        geometry,
        entropy,
    };
    let needs = buffer_needs::<M>(&geometry, identity.replica_count);
    let build = |_: Now| {
        let small = MessagePool::new(needs.small, storage::SECTOR_SIZE);
        let large = MessagePool::new(needs.large, geometry.message_size_max as usize);
        Ok(Replica::<M>::new(replica_options, small, large))
    };
    let lock =
        data_file::Lock::of(&file).map_err(|errno| ServerError::File(errno.raw_os_error()))?;
    let mut server = Server::new(
        identity, options, &bounds, listener, file.fd, published, build,
    )?;
    server.run(stop, |address| on_ready(address, identity.replica))?;
    // Nothing is in flight any more, but the kernel may keep the file for a while after the ring.
    drop(server);
    lock.release();
    Ok(())
}

/// Opens a data file to run a replica of it, whichever it is. One that is in use is waited for, for a while: a replica
/// that was killed must be able to start again at once.
///
/// # Errors
/// See [`DataFileError`].
pub fn open(path: &Path, development: bool) -> Result<DataFile, DataFileError> {
    let any = storage::superblock::Expected::default();
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match data_file::open(path, &any, development) {
            Err(DataFileError::InUse(_)) if Instant::now() < until => thread::sleep(LOCK_PAUSE),
            result => return result,
        }
    }
}

/// Listens. A port that is in use is waited for, for a while: whoever starts with another data file than the one that
/// was killed, because that is lost, does not wait for its lock.
///
/// # Errors
/// See [`ListenError`].
pub fn listen(address: &str) -> Result<Listener, ListenError> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match Listener::bind(address) {
            Err(ListenError::InUse { .. }) if Instant::now() < until => thread::sleep(LOCK_PAUSE),
            result => return result,
        }
    }
}

/// Random bytes of the kernel's.
///
/// # Errors
/// [`ServerError::Random`].
pub fn fill_random(bytes: &mut [u8]) -> Result<(), ServerError> {
    use std::io::Read;
    let failed = |error: std::io::Error| ServerError::Random(error.to_string());
    let mut source = std::fs::File::open("/dev/urandom").map_err(failed)?;
    source.read_exact(bytes).map_err(failed)
}
