//! The one driver that knows io_uring, for the data file and for sockets.
//!
//! * **One enter per turn.** Requests queue up; [`Uring::turn`] submits them all and waits, at most as long as it is told;
//!   [`Uring::next_done`] then takes completions one by one.
//! * **Buffers live in the tables here until their completion**, also when the driver is dropped: it first waits for
//!   everything in flight, and would rather leak a buffer than free one that the kernel may still write.
//! * **Everything is bounded.** Disk requests by a table whose room is asked about first ([`Uring::has_disk_room`]; the
//!   request otherwise stays in its owner's queue), sockets by one connect, one receive and one send each. The queue
//!   beyond the kernel's submission queue holds as many entries as those tables can make, the completion queue too.
//! * **Durability is one switch**, [`Durability`].
//! * `user_data` is kind (8 bits), generation (24), index (32): a stale completion is recognised.
//!
//! Absent on purpose: registered buffers (measured: 1 to 3 µs of 35 for a write of 4 KiB, within the noise, and nothing at
//! 256 KiB, for a limit on locked memory that few users have), a polling thread in the kernel, and zero-copy sends.

mod disk;
mod error;
mod ring;
mod socket;

pub use error::UringError;
pub use socket::SEND_BATCH_MAX;

use crate::buffer::{Message, SharedMessage};
use crate::io::{IoDone, IoRequest};
use disk::{Disk, Flush, Next, Operation, Part};
use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use ring::{Completion, Ring};
use socket::{Socket, flight};
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// How a durable write becomes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Each write carries RWF_DSYNC. On an idle machine the fastest for one write at a time; on a busy one the completion
    /// of a write waits for a scheduler tick (4 ms), at the median for large writes.
    WriteDsync,
    /// Each write has an fdatasync linked behind it. Idle some 15 % slower than RWF_DSYNC with one write in flight and 30 %
    /// with eight small ones; on a busy machine 2 to 20 times faster with one in flight. The default, since a replica is
    /// judged by its latency under load (`benches/journal_append.rs`).
    #[default]
    LinkedSync,
    /// One fdatasync for all writes that completed since the last. The most writes per second with many small ones in
    /// flight, at the price of a turn of the loop between write and sync.
    SyncPerTurn,
}

/// How long a turn may wait for a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Not at all.
    Poll,
    /// At most this long.
    AtMost(Duration),
}

/// Sizes of the driver's tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UringOptions {
    /// Entries of the submission queue, a power of two.
    pub entries: u32,
    /// Most disk requests in flight.
    pub disk_max: usize,
    /// Sockets.
    pub sockets_max: usize,
    /// How durable writes become durable.
    pub durability: Durability,
    /// Register files with the ring, if the kernel can: spares it a look-up in every operation.
    pub fixed_files: bool,
}

/// An error number of the operating system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("errno {0}")]
pub struct Errno(pub i32);

/// A completion.
#[derive(Debug)]
pub enum Done {
    /// Of a disk request.
    Disk(IoDone),
    /// Of [`Uring::accept`].
    Accepted(Result<OwnedFd, Errno>),
    /// Of [`Uring::connect`].
    Connected {
        /// Which socket.
        socket: u32,
        /// How it ended.
        result: Result<(), Errno>,
    },
    /// Of [`Uring::receive`].
    Received {
        /// Which socket.
        socket: u32,
        /// The buffer, home again.
        message: Message,
        /// How many bytes came; zero: the other end has closed.
        result: Result<usize, Errno>,
    },
    /// Of [`Uring::send`]: all its messages are sent, or the connection is broken.
    Sent {
        /// Which socket.
        socket: u32,
        /// How it ended.
        result: Result<(), Errno>,
    },
    /// Of [`Uring::close`]: the slot may be used again.
    Closed {
        /// Which socket.
        socket: u32,
    },
}

/// What a completion belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Tag {
    Disk = 1,
    LinkedSync = 2,
    SharedSync = 3,
    Accept = 4,
    Connect = 5,
    Receive = 6,
    Send = 7,
    Cancel = 8,
}

impl Tag {
    const ALL: [Self; 8] = [
        Self::Disk,
        Self::LinkedSync,
        Self::SharedSync,
        Self::Accept,
        Self::Connect,
        Self::Receive,
        Self::Send,
        Self::Cancel,
    ];

    fn user_data(self, generation: u32, index: u32) -> u64 {
        assert!(generation < 1 << 24);
        (self as u64) << 56 | u64::from(generation) << 32 | u64::from(index)
    }

    fn of(user_data: u64) -> Option<(Self, u32, u32)> {
        let kind = (user_data >> 56) as u8;
        let tag = Self::ALL.into_iter().find(|&tag| tag as u8 == kind)?;
        Some((
            tag,
            (user_data >> 32) as u32 & 0x00ff_ffff,
            user_data as u32,
        ))
    }
}

/// The data file's place among registered files; socket i has place i + 1.
const FILE_PLACE: u32 = 0;

/// Set in a receive's completion when more bytes wait (IORING_CQE_F_SOCK_NONEMPTY).
const SOCKET_NONEMPTY: u32 = 1 << 2;

/// Tells a receive to wait for bytes before it tries (IORING_RECVSEND_POLL_FIRST).
const POLL_FIRST: u16 = 1;

/// How long a dropped driver waits for what is in flight. A disk that takes longer is stuck, and its buffers are leaked.
const DRAIN: Duration = Duration::from_secs(10);

/// The driver. Bound to the thread that made it.
#[derive(Debug)]
pub struct Uring {
    ring: Ring,
    tables: ManuallyDrop<Tables>,
    fixed_files: bool,
    durability: Durability,
}

/// What the kernel may point into.
struct Tables {
    disk: Disk,
    file: Option<OwnedFd>,
    sockets: Box<[Socket]>,
    listener: Option<OwnedFd>,
    accepting: bool,
    /// Sockets that had nothing in flight when they were told to close.
    closed: Vec<u32>,
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Tables({} disk requests in flight, {} sockets)",
            self.disk.in_flight(),
            self.sockets.len()
        )
    }
}

impl Uring {
    /// Builds the ring on this thread, which alone may use it.
    ///
    /// # Errors
    /// There is no io_uring here, it is forbidden, too old, or there is no room for it.
    pub fn new(options: &UringOptions) -> Result<Self, UringError> {
        assert!(options.entries.is_power_of_two() && options.entries >= 2);
        // A disk request has two entries at most (its write and the linked sync), a socket its three operations and as
        // many cancellations; and one accept with its cancellation, one shared sync, one probe.
        let in_flight_max = 2 * options.disk_max + 6 * options.sockets_max + 4;
        let ring = Ring::new(options.entries, in_flight_max)?;
        let places = 1 + options.sockets_max as u32;
        let fixed_files =
            options.fixed_files && ring.submitter().register_files_sparse(places).is_ok();
        log::info!(
            "io_uring: {}; {} entries, files {}registered, durability by {:?}",
            ring.mode(),
            options.entries,
            if fixed_files { "" } else { "not " },
            options.durability,
        );
        Ok(Self {
            ring,
            tables: ManuallyDrop::new(Tables {
                disk: Disk::new(options.disk_max, options.durability),
                file: None,
                sockets: (0..options.sockets_max).map(|_| Socket::new()).collect(),
                listener: None,
                accepting: false,
                closed: Vec::with_capacity(options.sockets_max),
            }),
            fixed_files,
            durability: options.durability,
        })
    }

    /// The switch's position.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Submits what is queued, in one system call, and waits as told for a completion.
    ///
    /// # Errors
    /// The kernel refuses the ring: the replica cannot go on.
    pub fn turn(&mut self, wait: Wait) -> Result<(), UringError> {
        if self.tables.disk.begin_shared_sync() {
            self.push_shared_sync();
        }
        let wait = if self.tables.closed.is_empty() {
            wait
        } else {
            Wait::Poll
        };
        self.ring.enter(wait)
    }

    /// Takes a completion of the last turn.
    pub fn next_done(&mut self) -> Option<Done> {
        loop {
            if let Some(done) = self.tables.disk.pop_done() {
                return Some(Done::Disk(done));
            }
            if let Some(socket) = self.tables.closed.pop() {
                return Some(Done::Closed { socket });
            }
            let completion = self.ring.next_completion()?;
            if let Some(done) = self.complete(completion) {
                return Some(done);
            }
        }
    }

    fn complete(&mut self, completion: Completion) -> Option<Done> {
        let (tag, generation, index) = Tag::of(completion.user_data)?;
        let code = completion.code;
        match tag {
            Tag::Disk => self.disk_completed(index, generation, Part::Main, code),
            Tag::LinkedSync => self.disk_completed(index, generation, Part::LinkedSync, code),
            Tag::SharedSync => {
                if self.tables.disk.complete_shared_sync(code) {
                    self.push_shared_sync();
                }
            }
            Tag::Accept => return Some(self.accept_completed(code)),
            Tag::Connect | Tag::Receive | Tag::Send | Tag::Cancel => {
                return self.socket_completed(tag, index, generation, completion);
            }
        }
        None
    }

    /// Where an operation goes: a registered place, or a descriptor.
    fn target(&self, place: u32, fd: RawFd) -> (types::Fd, Flags) {
        if self.fixed_files {
            (types::Fd(place.cast_signed()), Flags::FIXED_FILE)
        } else {
            (types::Fd(fd), Flags::empty())
        }
    }

    /// Registers a descriptor in its place. Without this the operations could not name it.
    fn register(&mut self, place: u32, fd: RawFd) -> Result<(), Errno> {
        if !self.fixed_files {
            return Ok(());
        }
        match self.ring.submitter().register_files_update(place, &[fd]) {
            Ok(_) => Ok(()),
            Err(error) => Err(Errno(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }
}

/// The data file.
impl Uring {
    /// Gives the driver the data file that all disk requests mean.
    ///
    /// # Errors
    /// The file cannot be registered with the ring.
    pub fn set_file(&mut self, file: OwnedFd) -> Result<(), Errno> {
        assert_eq!(self.tables.disk.in_flight(), 0);
        self.register(FILE_PLACE, file.as_raw_fd())?;
        self.tables.file = Some(file);
        Ok(())
    }

    /// Whether another disk request may be submitted. If not, it stays where it is until one completes.
    pub fn has_disk_room(&self) -> bool {
        self.tables.disk.has_room()
    }

    /// Disk requests in flight.
    pub fn disk_in_flight(&self) -> usize {
        self.tables.disk.in_flight()
    }

    /// Queues a disk request for the next turn; there must be room.
    pub fn submit_disk(&mut self, request: IoRequest) {
        let index = self.tables.disk.begin(request);
        self.push_operation(index);
    }

    fn disk_completed(&mut self, index: u32, generation: u32, part: Part, code: i32) {
        match self.tables.disk.complete(index, generation, part, code) {
            Next::Submit(index) => self.push_operation(index),
            Next::SubmitLinkedSync(index) => {
                let entry = self.sync_entry();
                let generation = self.tables.disk.generation(index);
                let user_data = Tag::LinkedSync.user_data(generation, index);
                self.ring.push(entry.user_data(user_data));
            }
            Next::Nothing => {}
        }
    }

    fn file_target(&self) -> (types::Fd, Flags) {
        let file = self.tables.file.as_ref().expect("the file was set");
        self.target(FILE_PLACE, file.as_raw_fd())
    }

    fn push_operation(&mut self, index: u32) {
        let (fd, flags) = self.file_target();
        let generation = self.tables.disk.generation(index);
        let user_data = Tag::Disk.user_data(generation, index);
        match self.tables.disk.operation(index) {
            Operation::Write {
                at,
                offset,
                size,
                flush,
            } => {
                let bytes = &self.tables.disk.buffer_mut(index).bytes()[offset..offset + size];
                let mut write = opcode::Write::new(fd, bytes.as_ptr(), size as u32).offset(at);
                if flush == Flush::Dsync {
                    write = write.rw_flags(libc::RWF_DSYNC);
                }
                let entry = write.build().flags(flags).user_data(user_data);
                if flush != Flush::Linked {
                    return self.ring.push(entry);
                }
                let sync = Tag::LinkedSync.user_data(generation, index);
                self.ring.push(entry.flags(Flags::IO_LINK));
                let entry = self.sync_entry().user_data(sync);
                self.ring.push(entry);
            }
            Operation::Read { at, offset, size } => {
                let buffer = self.tables.disk.buffer_mut(index).bytes_mut();
                let bytes = &mut buffer[offset..offset + size];
                let read = opcode::Read::new(fd, bytes.as_mut_ptr(), size as u32).offset(at);
                let entry = read.build().flags(flags).user_data(user_data);
                self.ring.push(entry);
            }
            Operation::Sync => {
                let entry = self.sync_entry().user_data(user_data);
                self.ring.push(entry);
            }
        }
    }

    fn sync_entry(&self) -> Entry {
        let (fd, flags) = self.file_target();
        let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC);
        sync.build().flags(flags)
    }

    fn push_shared_sync(&mut self) {
        let entry = self.sync_entry().user_data(Tag::SharedSync.user_data(0, 0));
        self.ring.push(entry);
    }
}

/// Sockets.
impl Uring {
    /// Gives the driver the socket to accept from.
    pub fn set_listener(&mut self, listener: OwnedFd) {
        assert!(!self.tables.accepting);
        self.tables.listener = Some(listener);
    }

    /// Accepts one connection, if no accept is in flight. One at a time, not as a stream: a server whose table is full
    /// stops accepting, and the kernel's backlog holds the others.
    pub fn accept(&mut self) {
        if std::mem::replace(&mut self.tables.accepting, true) {
            return;
        }
        let listener = self.tables.listener.as_ref().expect("the listener was set");
        let fd = types::Fd(listener.as_raw_fd());
        let null = std::ptr::null_mut();
        let accept = opcode::Accept::new(fd, null, null.cast()).flags(libc::SOCK_CLOEXEC);
        self.ring
            .push(accept.build().user_data(Tag::Accept.user_data(0, 0)));
    }

    fn accept_completed(&mut self, code: i32) -> Done {
        self.tables.accepting = false;
        if code < 0 {
            return Done::Accepted(Err(Errno(-code)));
        }
        // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
        Done::Accepted(Ok(unsafe { OwnedFd::from_raw_fd(code) }))
    }

    /// Puts a stream socket into a free slot.
    ///
    /// # Errors
    /// It cannot be registered with the ring.
    pub fn open(&mut self, socket: u32, fd: OwnedFd) -> Result<(), Errno> {
        self.register(1 + socket, fd.as_raw_fd())?;
        let slot = &mut self.tables.sockets[socket as usize];
        assert!(slot.fd.is_none() && slot.in_flight == 0 && slot.cancels == 0);
        slot.fd = Some(fd);
        slot.generation = (slot.generation + 1) & 0x00ff_ffff;
        slot.closing = false;
        slot.more_waiting = false;
        Ok(())
    }

    /// The socket's descriptor, for its options.
    pub fn socket(&self, socket: u32) -> Option<&OwnedFd> {
        self.tables.sockets[socket as usize].fd.as_ref()
    }

    /// Connects an open socket.
    pub fn connect(&mut self, socket: u32, address: SocketAddr) {
        let (fd, flags, user_data) = self.begin(socket, flight::CONNECT, Tag::Connect);
        let slot = &mut self.tables.sockets[socket as usize];
        slot.set_address(address);
        let pointer = (&raw const slot.address).cast();
        let entry = opcode::Connect::new(fd, pointer, slot.address_size).build();
        self.ring.push(entry.flags(flags).user_data(user_data));
    }

    /// Receives at most `size` bytes to `offset` of the message's buffer; if `whole`, not less either, unless the
    /// connection ends.
    pub fn receive(
        &mut self,
        socket: u32,
        mut message: Message,
        offset: usize,
        size: usize,
        whole: bool,
    ) {
        let (fd, flags, user_data) = self.begin(socket, flight::RECEIVE, Tag::Receive);
        let slot = &mut self.tables.sockets[socket as usize];
        let pointer = message.buffer_mut()[offset..offset + size].as_mut_ptr();
        let mut receive = opcode::Recv::new(fd, pointer, size as u32);
        if whole {
            receive = receive.flags(libc::MSG_WAITALL);
        }
        if !slot.more_waiting && !whole {
            receive = receive.ioprio(POLL_FIRST);
        }
        slot.received_into = Some(message);
        self.ring
            .push(receive.build().flags(flags).user_data(user_data));
    }

    /// Sends what `next` yields, at most [`SEND_BATCH_MAX`] messages, with one system call; nothing if it yields none.
    pub fn send(&mut self, socket: u32, next: impl FnMut() -> Option<SharedMessage>) {
        let slot = &mut self.tables.sockets[socket as usize];
        assert_eq!(slot.in_flight & flight::SEND, 0);
        if slot.send.load(next) == 0 {
            return;
        }
        let (_, _, _) = self.begin(socket, flight::SEND, Tag::Send);
        self.push_send(socket);
    }

    fn push_send(&mut self, socket: u32) {
        let fd = self.tables.sockets[socket as usize].fd.as_ref();
        let fd = fd.expect("the socket is open").as_raw_fd();
        let (fd, flags) = self.target(1 + socket, fd);
        let slot = &mut self.tables.sockets[socket as usize];
        slot.send.aim();
        let header = &raw const slot.send.header;
        let send = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;
        let entry = opcode::SendMsg::new(fd, header).flags(send).build();
        let user_data = Tag::Send.user_data(slot.generation, socket);
        self.ring.push(entry.flags(flags).user_data(user_data));
    }

    /// Marks an operation as in flight.
    fn begin(&mut self, socket: u32, bit: u8, tag: Tag) -> (types::Fd, Flags, u64) {
        let slot = &mut self.tables.sockets[socket as usize];
        assert!(!slot.closing, "nothing begins on a socket that closes");
        assert_eq!(slot.in_flight & bit, 0, "one operation of a kind at a time");
        slot.in_flight |= bit;
        let user_data = tag.user_data(slot.generation, socket);
        let fd = slot.fd.as_ref().expect("the socket is open").as_raw_fd();
        let (fd, flags) = self.target(1 + socket, fd);
        (fd, flags, user_data)
    }

    /// Whether a send is in flight.
    pub fn is_sending(&self, socket: u32) -> bool {
        self.tables.sockets[socket as usize].in_flight & flight::SEND != 0
    }

    /// Closes a socket. What it has in flight is cancelled and dropped; [`Done::Closed`] comes when all of it is home.
    pub fn close(&mut self, socket: u32) {
        let slot = &mut self.tables.sockets[socket as usize];
        assert!(slot.fd.is_some());
        if std::mem::replace(&mut slot.closing, true) {
            return;
        }
        let generation = slot.generation;
        let in_flight = slot.in_flight;
        for (bit, tag) in [
            (flight::CONNECT, Tag::Connect),
            (flight::RECEIVE, Tag::Receive),
            (flight::SEND, Tag::Send),
        ] {
            if in_flight & bit == 0 {
                continue;
            }
            let entry = opcode::AsyncCancel::new(tag.user_data(generation, socket)).build();
            self.tables.sockets[socket as usize].cancels += 1;
            let user_data = Tag::Cancel.user_data(generation, socket);
            self.ring.push(entry.user_data(user_data));
        }
        if self.finish_close(socket) {
            self.tables.closed.push(socket);
        }
    }

    /// Closes the descriptor once nothing is in flight on it.
    fn finish_close(&mut self, socket: u32) -> bool {
        let slot = &mut self.tables.sockets[socket as usize];
        if !slot.closing || slot.in_flight != 0 || slot.cancels != 0 {
            return false;
        }
        slot.send.clear();
        slot.closing = false;
        let fd = slot.fd.take().expect("a closing socket has its descriptor");
        if self.register(1 + socket, -1).is_err() {
            // The place keeps the socket open until it is used again; make the other end notice at least.
            let _ = rustix::net::shutdown(&fd, rustix::net::Shutdown::Both);
        }
        true
    }

    fn socket_completed(
        &mut self,
        tag: Tag,
        socket: u32,
        generation: u32,
        completion: Completion,
    ) -> Option<Done> {
        let slot = self.tables.sockets.get_mut(socket as usize)?;
        if slot.generation != generation {
            return None;
        }
        let code = completion.code;
        let count = usize::try_from(code).map_err(|_| Errno(-code));
        let done = match tag {
            Tag::Cancel => {
                slot.cancels -= 1;
                None
            }
            Tag::Connect => {
                slot.in_flight &= !flight::CONNECT;
                let result = count.map(|_| ());
                Some(Done::Connected { socket, result })
            }
            Tag::Receive => {
                slot.in_flight &= !flight::RECEIVE;
                slot.more_waiting = completion.flags & SOCKET_NONEMPTY != 0;
                let message = slot.received_into.take().expect("kept until now");
                Some(Done::Received {
                    socket,
                    message,
                    result: count,
                })
            }
            _ => {
                if let Ok(sent) = count
                    && !slot.send.advance(sent)
                    && !slot.closing
                {
                    self.push_send(socket);
                    return None;
                }
                slot.in_flight &= !flight::SEND;
                slot.send.clear();
                let result = count.map(|_| ());
                Some(Done::Sent { socket, result })
            }
        };
        if !self.tables.sockets[socket as usize].closing {
            return done;
        }
        self.finish_close(socket).then_some(Done::Closed { socket })
    }
}

impl Uring {
    /// Operations that the kernel has.
    fn in_kernel(&self) -> usize {
        let sockets = self.tables.sockets.iter();
        let sockets: u32 = sockets
            .map(|slot| slot.in_flight.count_ones() + u32::from(slot.cancels))
            .sum();
        self.tables.disk.in_kernel() + sockets as usize + usize::from(self.tables.accepting)
    }

    /// Cancels what waits for others and lets the disk finish. False: something is still in flight.
    fn drain(&mut self) -> bool {
        for socket in 0..self.tables.sockets.len() as u32 {
            if self.tables.sockets[socket as usize].fd.is_some() {
                self.close(socket);
            }
        }
        if self.tables.accepting {
            let entry = opcode::AsyncCancel::new(Tag::Accept.user_data(0, 0)).build();
            // Its own completion has an unknown tag and is ignored.
            self.ring.push(entry.user_data(0));
        }
        let end = Instant::now() + DRAIN;
        loop {
            // Writes that wait for a shared sync are left unsynced: nobody is told that they are durable.
            if self.ring.enter(Wait::Poll).is_err() {
                return false;
            }
            while self.next_done().is_some() {}
            if self.in_kernel() == 0 {
                return true;
            }
            if Instant::now() > end || self.ring.enter(Wait::AtMost(DRAIN / 100)).is_err() {
                return false;
            }
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.drain() {
            // The kernel tears a ring down in the background: until then registered files would stay open, and locked.
            if self.fixed_files {
                let _ = self.ring.submitter().unregister_files();
            }
            // SAFETY: dropped once, here; the kernel has nothing of it any more.
            unsafe { ManuallyDrop::drop(&mut self.tables) };
        } else {
            log::error!("the disk does not answer: buffers in flight are left to it");
        }
    }
}

#[cfg(test)]
mod tests;
