//! The sockets of a client: one thread, one epoll, one connection to each replica, whatever the number of calls. It
//! turns the world into events of the [`Core`] and the core's wishes into the world, and decides nothing itself.
//!
//! Messages that a turn produces for a replica leave together in one write; what a read brings is handled together.

use super::core::{Core, Output};
use super::outcome::{CallError, ReplyRef};
use super::resolve::Resolver;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;
use storage::header::{HEADER_SIZE, Header};
use zerocopy::FromBytes;

/// Largest message of any geometry, in bytes: more than that a replica never sends.
const MESSAGE_SIZE_MAX: usize = 16 << 20;
/// First size of a connection's receive buffer, in bytes; it grows to the largest message that comes.
const RECEIVE_SIZE: usize = 256 << 10;
/// Bytes that may wait for a connection to take them. A message beyond that is dropped, as the network might; the core
/// sends it again later.
const SEND_SIZE_MAX: usize = 64 << 20;
/// Events taken from the kernel at once: a connection each and the wake-up. Further ones come with the next turn.
const EVENTS_MAX: usize = 16;
/// The wake-up's place among the epoll events, behind those of the connections.
const WAKE: u64 = u64::MAX;

/// What becomes of a call: its tag and its result.
pub type OnDone<'a> = dyn FnMut(u64, Result<ReplyRef<'_>, CallError>) + 'a;

#[derive(Debug)]
enum Socket {
    None,
    /// Waits for the addresses behind a name.
    Resolving,
    /// Waits for the connection to stand, or to fail.
    Connecting(TcpStream),
    Up(TcpStream),
}

#[derive(Debug)]
struct Connection {
    address: String,
    socket: Socket,
    /// Attempts so far: a name with several addresses has them tried in turn.
    attempts: usize,
    out: Vec<u8>,
    /// Bytes of `out` that the kernel has taken.
    out_taken: usize,
    /// The kernel's buffer is full: wait until it says that it is not.
    blocked: bool,
    input: Vec<u8>,
    input_size: usize,
    trouble: Option<String>,
    /// Something has come since it was connected.
    heard: bool,
}

/// Interrupts a host's wait from another thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// Ends the current wait, or the next.
    pub fn wake(&self) {
        // A full counter means that a wake-up is pending already.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }
}

/// A core and its sockets.
#[derive(Debug)]
pub struct Host {
    core: Core,
    cluster: u128,
    epoll: OwnedFd,
    waker: Waker,
    connections: Vec<Connection>,
    resolver: Resolver,
    troubles_version: u64,
    started: Instant,
    /// Connections that ended while the core's wishes were carried out: told to it afterwards.
    ended: Vec<usize>,
}

impl AsFd for Host {
    /// Readable when [`Host::turn`] has something to do: for those who wait for other things as well.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Host {
    /// A host of `core` that is to reach `addresses`: `host:port`, IPv4 or bracketed IPv6. It connects from
    /// the first turn on.
    ///
    /// # Errors
    /// The kernel gives no epoll or event descriptor.
    pub fn new(core: Core, cluster: u128, addresses: &[String]) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &event, EventData::new_u64(WAKE), EventFlags::IN)?;
        let waker = Waker {
            event: Arc::new(event),
        };
        let connection = |address: &String| Connection {
            address: address.clone(),
            socket: Socket::None,
            attempts: 0,
            out: Vec::new(),
            out_taken: 0,
            blocked: false,
            input: Vec::new(),
            input_size: 0,
            trouble: None,
            heard: false,
        };
        Ok(Self {
            core,
            cluster,
            epoll,
            resolver: Resolver::new(waker.clone()),
            waker,
            troubles_version: 0,
            connections: addresses.iter().map(connection).collect(),
            started: Instant::now(),
            ended: Vec::new(),
        })
    }

    /// The core: to submit calls (then take a turn), and to ask it.
    pub fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    /// The clock of the core's times: nanoseconds since the host was made.
    pub fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// The moment from which [`Host::now_ns`] counts.
    pub fn clock(&self) -> Instant {
        self.started
    }

    /// Interrupts [`Host::turn`] from elsewhere.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// What was last wrong with each address, where nothing has gone right since.
    pub fn troubles(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let each = self.connections.iter();
        each.map(|it| (it.address.as_str(), it.trouble.as_deref()))
    }

    /// Changes whenever [`Host::troubles`] does.
    pub fn troubles_version(&self) -> u64 {
        self.troubles_version
    }

    /// Does what the core wants; waits until something happens, at most until `until_ns` or the core's next timer;
    /// handles it; and does what the core wants then. `on_done` hears of each call that has ended.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn turn(&mut self, until_ns: u64, on_done: &mut OnDone<'_>) -> io::Result<()> {
        self.carry_out(on_done);
        let now = self.now_ns();
        let wait = until_ns.min(self.core.deadline_ns()).saturating_sub(now);
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_MAX];
        for event in super::wait::wait(&self.epoll, wait, &mut events)? {
            self.on_event(event.data.u64(), event.flags);
        }
        self.core.advance(self.now_ns());
        self.carry_out(on_done);
        Ok(())
    }

    fn on_event(&mut self, data: u64, flags: EventFlags) {
        if data == WAKE {
            let mut count = [0; 8];
            let _ = rustix::io::read(&*self.waker.event, &mut count);
            while let Some((index, addresses)) = self.resolver.next_answer() {
                self.on_resolved(index, addresses);
            }
            return;
        }
        let index = data as usize;
        if matches!(self.connections[index].socket, Socket::Connecting(_)) {
            self.on_connect_result(index);
        }
        let ending = EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP;
        if flags.intersects(EventFlags::IN | ending)
            && let Err(trouble) = self.receive(index, flags.intersects(ending))
        {
            self.end(index, trouble);
        }
        if flags.contains(EventFlags::OUT) {
            self.connections[index].blocked = false;
            self.flush(index);
        }
        self.tell_ended();
    }

    /// Takes the core's wishes until it has none, then writes what has gathered.
    fn carry_out(&mut self, on_done: &mut OnDone<'_>) {
        loop {
            while let Some(output) = self.core.poll() {
                match output {
                    Output::Connect(index) => {
                        let connection = &mut self.connections[index];
                        let begun = connect(connection, index, &mut self.resolver, &self.epoll);
                        if let Err(error) = begun {
                            connection.trouble = Some(error.to_string());
                            self.troubles_version += 1;
                            self.ended.push(index);
                        }
                    }
                    Output::Disconnect(index) => {
                        let connection = &mut self.connections[index];
                        connection.trouble = Some("no answer".to_owned());
                        self.troubles_version += 1;
                        connection.close();
                    }
                    Output::Send { to, header, body } => {
                        self.connections[to].push(header, body);
                    }
                    Output::Done { tag, result } => on_done(tag, result),
                }
            }
            for index in 0..self.connections.len() {
                self.flush(index);
            }
            if self.ended.is_empty() {
                return;
            }
            self.tell_ended();
        }
    }

    fn tell_ended(&mut self) {
        while let Some(index) = self.ended.pop() {
            self.core.on_disconnected(self.now_ns(), index);
        }
    }

    fn end(&mut self, index: usize, trouble: String) {
        let connection = &mut self.connections[index];
        connection.trouble = Some(trouble);
        self.troubles_version += 1;
        connection.close();
        self.ended.push(index);
    }

    fn on_resolved(&mut self, index: usize, addresses: io::Result<Vec<SocketAddr>>) {
        let connection = &mut self.connections[index];
        if !matches!(connection.socket, Socket::Resolving) {
            return; // given up meanwhile
        }
        let started =
            addresses.and_then(|addresses| connection.start(&addresses, index, &self.epoll));
        if let Err(error) = started {
            self.end(index, error.to_string());
            self.tell_ended();
        }
    }

    fn on_connect_result(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Socket::Connecting(stream) = &connection.socket else {
            return;
        };
        match sockopt::socket_error(stream) {
            Ok(Ok(())) if stream.peer_addr().is_ok() => {}
            Ok(Ok(())) => return, // woken for nothing
            Ok(Err(error)) | Err(error) => {
                self.end(index, io::Error::from(error).to_string());
                return;
            }
        }
        let Socket::Connecting(stream) = std::mem::replace(&mut connection.socket, Socket::None)
        else {
            unreachable!("it was connecting a moment ago")
        };
        // Small messages leave at once: the core gathers what belongs together.
        let _ = stream.set_nodelay(true);
        connection.socket = Socket::Up(stream);
        connection.blocked = false;
        connection.heard = false;
        let now = self.now_ns();
        self.core.on_connected(now, index);
    }

    /// Reads all there is and hands whole messages to the core; `to_end` if the stream is about to end.
    fn receive(&mut self, index: usize, to_end: bool) -> Result<(), String> {
        loop {
            let connection = &mut self.connections[index];
            let Socket::Up(stream) = &mut connection.socket else {
                return Ok(());
            };
            if connection.input.is_empty() {
                connection.input.resize(RECEIVE_SIZE, 0);
            }
            let room = &mut connection.input[connection.input_size..];
            let room_size = room.len();
            let size = match stream.read(room) {
                Ok(0) if connection.heard => {
                    return Err("the replica closed the connection".to_owned());
                }
                // So a replica does with those who name another cluster.
                Ok(0) => {
                    return Err(
                        "closed at once, without an answer: is it a replica of another cluster?"
                            .to_owned(),
                    );
                }
                Ok(size) => size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            };
            connection.input_size += size;
            self.handle_input(index)?;
            if size < room_size && !to_end {
                return Ok(()); // all there was; more comes as another event
            }
        }
    }

    fn handle_input(&mut self, index: usize) -> Result<(), String> {
        let now = self.now_ns();
        let connection = &mut self.connections[index];
        let mut start = 0;
        while let Some(bytes) = connection.input[start..connection.input_size].first_chunk() {
            let bytes: &[u8; HEADER_SIZE] = bytes;
            let header = Header::read_from_bytes(bytes).expect("256 bytes are a header");
            let invalid =
                |error| format!("what came is not from a replica of this cluster: {error}");
            header
                .check(self.cluster, MESSAGE_SIZE_MAX)
                .map_err(invalid)?;
            let size = header.frame.size as usize;
            if start + size > connection.input_size {
                if size > connection.input.len() {
                    connection.input.resize(size, 0);
                }
                break;
            }
            let body = &connection.input[start + HEADER_SIZE..start + size];
            header.check_body(body).map_err(invalid)?;
            connection.heard = true;
            if connection.trouble.take().is_some() {
                self.troubles_version += 1;
            }
            self.core.on_message(now, index, &header, body);
            start += size;
        }
        connection
            .input
            .copy_within(start..connection.input_size, 0);
        connection.input_size -= start;
        Ok(())
    }

    fn flush(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Socket::Up(stream) = &mut connection.socket else {
            return;
        };
        while !connection.blocked && connection.out_taken < connection.out.len() {
            match stream.write(&connection.out[connection.out_taken..]) {
                Ok(size) => connection.out_taken += size,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => connection.blocked = true,
                Err(error) => {
                    self.end(index, error.to_string());
                    return;
                }
            }
        }
        if connection.out_taken == connection.out.len() {
            connection.out.clear();
            connection.out_taken = 0;
        }
    }
}

impl Connection {
    fn push(&mut self, header: &Header, body: &[u8]) {
        if !matches!(self.socket, Socket::Up(_)) || self.out.len() - self.out_taken > SEND_SIZE_MAX
        {
            return;
        }
        if self.out_taken > SEND_SIZE_MAX {
            self.out.drain(..self.out_taken);
            self.out_taken = 0;
        }
        self.out
            .extend_from_slice(zerocopy::IntoBytes::as_bytes(header));
        self.out.extend_from_slice(body);
    }

    fn close(&mut self) {
        self.socket = Socket::None; // closing a descriptor takes it out of the epoll
        self.out = Vec::new();
        self.out_taken = 0;
        self.input_size = 0;
    }

    fn start(&mut self, addresses: &[SocketAddr], index: usize, epoll: &OwnedFd) -> io::Result<()> {
        let address = addresses
            .get(self.attempts % addresses.len().max(1))
            .ok_or_else(|| io::Error::other("the name has no address"))?;
        self.attempts += 1;
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        // Edge-triggered, both ways, once: no system call whenever a send buffer fills or empties.
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &socket, EventData::new_u64(index as u64), flags)?;
        self.socket = Socket::Connecting(TcpStream::from(socket));
        Ok(())
    }
}

fn connect(
    connection: &mut Connection,
    index: usize,
    resolver: &mut Resolver,
    epoll: &OwnedFd,
) -> io::Result<()> {
    connection.close();
    if let Ok(address) = connection.address.parse::<SocketAddr>() {
        return connection.start(&[address], index, epoll);
    }
    connection.socket = Socket::Resolving;
    resolver.ask(index, &connection.address)
}
