//! A stopped replica's state, read from its data file by the code that a replica opens it with.
//!
//! * **It looks, and does not touch.** Opening a replica repairs: missing redundant headers are written. Here every write
//!   and sync is acknowledged and not done, on a file that is open for reading only: what was found must still be there
//!   for the next to look, and for the replica. Nothing that opening writes is read again before the file is closed
//!   (the journal keeps its image of the headers in memory, and the checkpoint writes nothing), so that no written
//!   sector need be kept.
//! * **No replica runs meanwhile**: the file is locked against one, and shared with others who only read.
//! * **It executes all that is there**: the checkpoint, then every op of the journal above it, in the order of the hash
//!   chain, up to the head or to the first op that is missing. Of a cluster of several, the last of these may never have
//!   been committed: an op that is found here was *held* by this replica, no more.
//!
//! Not here: a file that a replica of its own would refuse is refused alike. `viewstone inspect` looks at such a one.

use crate::engine::Engine;
use crate::machines::Machines;
use crate::server::data_file::{DataFileError, StoppedFile, open_stopped, read_sectors};
use crate::state_machine::Context;
use std::path::{Path, PathBuf};
use storage::buffer::{Message, MessagePool, SharedMessage};
use storage::checkpoint::{Checkpoint, CheckpointEvent, Damages};
use storage::header::{Prepare, SubHeader, SubRequest, sub_request};
use storage::io::{IoDone, IoQueue, IoRequest};
use storage::journal::{Journal, JournalEvent, Recovered};
use storage::layout::Layout;
use storage::recovery::{Refusal, State};
use storage::superblock::{Content, OpenError};
use zerocopy::FromZeros;

/// Why a data file does not show its state: what was found, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// There is no such file, or it cannot be read, is in use or too short.
    #[error(transparent)]
    Unreadable(DataFileError),
    /// The superblock is no guide.
    #[error("{path}: {error}")]
    Superblock {
        /// The file.
        path: PathBuf,
        /// Why.
        error: OpenError,
    },
    /// The checkpoint is damaged.
    #[error("{path}: {damages}. To go on, {}", .damages.advice())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What cannot be read.
        damages: Damages,
    },
    /// The journal does not say which ops were acknowledged.
    #[error("{path}: {refusal}")]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        refusal: Box<Refusal>,
    },
    /// The journal is newer than the superblock.
    #[error(
        "{path}: the journal holds op {op}, which this superblock cannot have allowed: the file, or part of it, was put \
         back to an older state. It counts as lost; recover this replica from the others of its cluster"
    )]
    Regressed {
        /// The file.
        path: PathBuf,
        /// The op.
        op: u64,
    },
}

/// How much was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OfflineCounts {
    /// Ops of the journal that were executed on top of the checkpoint.
    pub ops_executed: u64,
    /// Requests in them.
    pub requests_executed: u64,
    /// Ops between the last executed one and the head.
    pub ops_missing: u64,
    /// Bytes read from the file.
    pub bytes_read: u64,
    /// Writes that opening asked for, and that were left out: redundant headers which the next start will write.
    pub writes_left_out: u64,
}

/// The state of a stopped replica. See the module's description.
pub struct Offline<M> {
    superblock: Content,
    engine: Engine<M>,
    recovered: Recovered,
    executed: Executed,
    counts: OfflineCounts,
}

/// The last op that is in the state.
#[derive(Clone, Copy)]
struct Executed {
    op: u64,
    checksum: u128,
    timestamp: u64,
}

impl Executed {
    fn of(prepare: &Prepare) -> Self {
        let last = u64::from(prepare.requests).saturating_sub(1);
        Self {
            op: prepare.op,
            checksum: prepare.frame.checksum,
            timestamp: prepare.timestamp + last,
        }
    }
}

impl<M: Machines> Offline<M> {
    /// Reads a stopped replica's data file.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn open(path: &Path) -> Result<Self, OfflineError> {
        let file = open_stopped(path).map_err(|error| match error {
            DataFileError::Superblock { path, error } => OfflineError::Superblock { path, error },
            error => OfflineError::Unreadable(error),
        })?;
        let layout = file.layout;
        let mut disk = Disk {
            io: IoQueue::new(storage::journal::io_max(&layout) + <Checkpoint>::io_max(&layout)),
            file: &file,
            counts: OfflineCounts::default(),
        };
        let mut engine = Engine::new(&layout.geometry);
        disk.open_checkpoint(&mut engine)
            .map_err(|damages| OfflineError::Checkpoint {
                path: path.to_path_buf(),
                damages,
            })?;
        let (mut journal, recovered) =
            disk.open_journal()
                .map_err(|refusal| OfflineError::Journal {
                    path: path.to_path_buf(),
                    refusal: Box::new(refusal),
                })?;
        if let Some(op) = recovered.regressed {
            let path = path.to_path_buf();
            return Err(OfflineError::Regressed { path, op });
        }
        let executed = disk.execute(&mut engine, &mut journal, recovered.head_op);
        let mut counts = disk.counts;
        counts.ops_missing = recovered.head_op - executed.op;
        Ok(Self {
            superblock: file.superblock,
            engine,
            recovered,
            executed,
            counts,
        })
    }

    /// The newest op that this replica knew of.
    pub fn head_op(&self) -> u64 {
        self.recovered.head_op
    }

    /// The last op that is in the state: the head, unless an op before it is missing.
    pub fn executed_op(&self) -> u64 {
        self.executed.op
    }

    /// The superblock.
    pub fn superblock(&self) -> &Content {
        &self.superblock
    }

    /// What the journal says of itself.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Pages, sessions and machines.
    pub fn engine(&self) -> &Engine<M> {
        &self.engine
    }

    /// How much was read.
    pub fn counts(&self) -> OfflineCounts {
        self.counts
    }

    /// Answers a read-only request from the state.
    ///
    /// # Panics
    /// The request is not one: no machine has the operation, it is no read, or the body is invalid.
    pub fn read(&self, operation: u16, body: &[u8]) -> Vec<u8> {
        let plan = self
            .engine
            .validate(operation, body)
            .expect("a machine has the operation")
            .expect("the request is valid");
        assert!(plan.read_only, "operation {operation:#06x} is no read");
        let mut header = SubHeader::new_zeroed();
        header.operation = operation;
        header.size = body.len() as u32;
        let request = SubRequest {
            header: &header,
            body,
        };
        let context = Context {
            op: self.executed.op,
            timestamp: self.executed.timestamp,
            client: 0,
        };
        let mut reply = vec![0; plan.reply_size];
        let size = self.engine.read(&context, request, &mut reply);
        reply.truncate(size);
        reply
    }
}

/// The host of journal and checkpoint: one request after the other, each done at once.
struct Disk<'a> {
    file: &'a StoppedFile,
    io: IoQueue,
    counts: OfflineCounts,
}

impl Disk<'_> {
    /// Serves the oldest request.
    fn serve(&mut self) -> IoDone {
        let request = self
            .io
            .pop()
            .expect("who is not done has asked for something");
        let id = request.id();
        let buffer = match request {
            IoRequest::Read {
                at,
                size,
                mut buffer,
                ..
            } => {
                let bytes = &mut buffer.bytes_mut()[..size];
                let read = read_sectors(&self.file.fd, at, bytes);
                bytes[read..].fill(0); // beyond the end; the size was checked, so the file shrinks under our hands
                self.counts.bytes_read += size as u64;
                Some(buffer)
            }
            IoRequest::Write { buffer, .. } => {
                self.counts.writes_left_out += 1;
                Some(buffer)
            }
            IoRequest::Sync { .. } => None,
        };
        IoDone {
            id,
            buffer,
            result: Ok(()),
        }
    }

    fn open_checkpoint<M: Machines>(&mut self, engine: &mut Engine<M>) -> Result<(), Damages> {
        let state = &self.file.superblock.state;
        let (record, syncing) = (&state.checkpoint, state.sync.syncing == 1);
        let mut checkpoint = <Checkpoint>::new(self.file.layout);
        let pages = engine.pages_mut();
        let mut event = checkpoint.open_start(record, None, syncing, pages, &mut self.io);
        loop {
            match event {
                CheckpointEvent::None => {
                    let done = self.serve();
                    event = checkpoint
                        .on_io_done(done, engine.pages_mut(), &mut self.io)
                        .expect("a read that fails is zeros");
                }
                CheckpointEvent::Opened if record.prepare.op == 0 => return Ok(()),
                CheckpointEvent::Opened => {
                    engine.reopened();
                    return Ok(());
                }
                CheckpointEvent::Incomplete(damages) => return Err(damages),
                event => unreachable!("nothing else is going on: {event:?}"),
            }
        }
    }

    fn open_journal(&mut self) -> Result<(Journal, Recovered), Refusal> {
        let Content {
            state,
            view_headers,
        } = &self.file.superblock;
        let mut journal = <Journal>::new(self.file.layout, state.cluster);
        journal.open_start(
            state.checkpoint.prepare.op,
            state.checkpoint.prepare.frame.checksum,
            state.log_view,
            view_headers.as_slice(),
            state.replica_count == 1,
            &mut self.io,
        );
        loop {
            let done = self.serve();
            let event = journal.on_io_done(done, &mut self.io);
            match event.expect("a read that fails is zeros, and nothing is written") {
                JournalEvent::None => {}
                JournalEvent::Opened(recovered) => return Ok((journal, recovered)),
                JournalEvent::Refused(refusal) => return Err(refusal),
                JournalEvent::Read { .. } => unreachable!("nothing was asked for"),
            }
        }
    }

    /// Executes what the journal holds above the checkpoint, up to the first op that is missing.
    fn execute<M: Machines>(
        &mut self,
        engine: &mut Engine<M>,
        journal: &mut Journal,
        head_op: u64,
    ) -> Executed {
        let layout: Layout = self.file.layout;
        let pool = MessagePool::new(1, layout.geometry.message_size_max as usize);
        let mut executed = Executed::of(&self.file.superblock.state.checkpoint.prepare);
        while executed.op < head_op {
            let op = executed.op + 1;
            let Some(header) = journal
                .header(op)
                .copied()
                .filter(|_| journal.state(op) == State::Present)
            else {
                break;
            };
            if header.parent != executed.checksum {
                break; // of an earlier view, and not of this log
            }
            let into = pool.take().expect("one prepare at a time");
            let Some(message) = self.read_prepare(journal, &header, into) else {
                break;
            };
            execute(engine, &message);
            executed = Executed::of(&header);
            self.counts.ops_executed += 1;
            self.counts.requests_executed += u64::from(header.requests);
        }
        executed
    }

    fn read_prepare(
        &mut self,
        journal: &mut Journal,
        header: &Prepare,
        into: Message,
    ) -> Option<SharedMessage> {
        let (op, checksum) = (header.op, header.frame.checksum);
        journal.read(op, checksum, into, 0, &mut self.io).ok()?;
        let done = self.serve();
        let event = journal.on_io_done(done, &mut self.io);
        match event.expect("a read that fails is zeros") {
            JournalEvent::Read { message, .. } => message.ok(),
            _ => unreachable!("one read is in flight"),
        }
    }
}

fn execute<M: Machines>(engine: &mut Engine<M>, message: &SharedMessage) {
    let prepare = message.header().typed::<Prepare>();
    let mut offset = 0;
    for index in 0..prepare.requests {
        let (request, next) = sub_request(message.body(), offset)
            .expect("the sums hold, and the primary checked each request before it made them");
        let timestamp = prepare.timestamp + u64::from(index);
        // Replies go nowhere: what they would say is in the session table.
        let _ = engine.commit(prepare.op, index, timestamp, request);
        offset = next;
    }
}
