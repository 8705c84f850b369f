//! A connection: its socket, its input and output, and the commands that are on their way.

use super::batch::Name;
use crate::resp::caller::Caller;
use crate::resp::finish::Finish;
use crate::resp::reply::Replies;
use crate::resp::request::{Limits, Parser};
use crate::resp::steps::Steps;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Input that is read ahead while commands are on their way.
const AHEAD_SIZE_MAX: usize = 128 << 10;

/// Memory that an idle connection keeps for input and output, each.
const KEPT_SIZE_MAX: usize = 4 << 10;

/// Parsed input is dropped when there is so much of it.
const DROP_SIZE: usize = 64 << 10;

/// A command whose reply is to come.
#[derive(Debug)]
pub(super) struct Pending {
    /// Where it begins in the input.
    pub from: usize,
    pub what: What,
}

/// What makes its reply.
#[derive(Debug)]
pub(super) enum What {
    /// The reply is known, but others come before it.
    Reply(Vec<u8>),
    /// Results of so many items.
    Items(Finish, usize),
}

/// What a connection waits for.
#[derive(Debug, Default)]
pub(super) enum Flight {
    /// Nothing.
    #[default]
    None,
    /// A batch, in which its run is.
    Run,
    /// An answer to a command of several steps.
    Steps(Box<Steps>),
}

/// How a command is gathered whose values had no room in a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Room {
    /// With others.
    #[default]
    Shared,
    /// With a reply of its own.
    Own,
    /// In several steps.
    Steps,
}

// Each is a fact of its own: what the kernel has said, what was asked for, in which lists it is.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
pub(super) struct Connection {
    pub name: Name,
    pub caller: Caller,
    pub peer: SocketAddr,
    pub connected_ns: u64,
    pub heard_ns: u64,
    /// Since when its next command has waited, together with those before it that got no answer.
    pub waits_ns: u64,
    pub parser: Parser,
    pub input: Vec<u8>,
    /// Where the next request begins in the input.
    pub at: usize,
    /// Commands on their way, in order.
    pub run: Vec<Pending>,
    pub flight: Flight,
    pub room: Room,
    pub out: Vec<u8>,
    out_taken: usize,
    stream: TcpStream,
    /// The kernel may have input.
    pub readable: bool,
    /// The kernel takes output.
    pub writable: bool,
    /// The kernel has seen the end of the input: it says so once, and there may be input before it.
    pub hung_up: bool,
    /// The peer sends nothing more.
    pub ended: bool,
    /// Nothing more is read; it is closed when its output is written.
    pub closing: bool,
    /// It cannot be written to.
    pub broken: bool,
    /// In the queue of those that have input to parse.
    pub is_ready: bool,
    /// Its input is not looked at, because its output waits to be read.
    pub is_held: bool,
    /// In the list of those to read from and write to.
    pub is_active: bool,
    /// Since when its output has not moved.
    pub stuck_ns: Option<u64>,
    /// Memory as it was last counted.
    pub counted: usize,
}

impl Connection {
    pub fn new(
        name: Name,
        number: u64,
        stream: TcpStream,
        peer: SocketAddr,
        limits: Limits,
        now_ns: u64,
    ) -> Self {
        Self {
            name,
            caller: Caller {
                number,
                ..Caller::default()
            },
            peer,
            connected_ns: now_ns,
            heard_ns: now_ns,
            waits_ns: now_ns,
            parser: Parser::new(limits),
            input: Vec::new(),
            at: 0,
            run: Vec::new(),
            flight: Flight::None,
            room: Room::Shared,
            out: Vec::new(),
            out_taken: 0,
            stream,
            readable: false,
            writable: true,
            hung_up: false,
            ended: false,
            closing: false,
            broken: false,
            is_ready: false,
            is_held: false,
            is_active: false,
            stuck_ns: None,
            counted: 0,
        }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn is_waiting(&self) -> bool {
        !matches!(self.flight, Flight::None)
    }

    /// Input that no command has been made of.
    pub fn unparsed(&self) -> usize {
        self.input.len() - self.at
    }

    /// Output that the kernel has not taken.
    pub fn unwritten(&self) -> usize {
        self.out.len() - self.out_taken
    }

    pub fn memory(&self) -> usize {
        let steps = match &self.flight {
            Flight::Steps(steps) => steps.memory(),
            Flight::None | Flight::Run => 0,
        };
        self.input.capacity()
            + self.out.capacity()
            + self.parser.memory()
            + self.caller.memory()
            + steps
    }

    /// Replies to this connection, behind those there are.
    pub fn replies(&mut self) -> Replies<'_> {
        Replies::new(&mut self.out, self.caller.protocol)
    }

    /// Reads once, if there is room. Bytes read.
    pub fn receive(&mut self, buffer: &mut [u8], unparsed_max: usize) -> usize {
        let unparsed_max = if self.is_waiting() {
            AHEAD_SIZE_MAX
        } else {
            unparsed_max
        };
        if !self.readable || self.closing || self.ended || self.unparsed() > unparsed_max {
            return 0;
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => {
                    self.ended = true;
                    self.readable = false;
                }
                Ok(size) => {
                    self.drop_parsed();
                    self.input.extend_from_slice(&buffer[..size]);
                    // Less than there was room for: all there was. More comes as another event.
                    self.readable = size == buffer.len() || self.hung_up;
                    return size;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(_) => self.broken = true,
            }
            return 0;
        }
    }

    /// Forgets the input of commands that have their replies.
    pub fn drop_parsed(&mut self) {
        if !self.run.is_empty() || self.is_waiting() {
            return;
        }
        if self.at == self.input.len() {
            self.input.clear();
            self.input.shrink_to(KEPT_SIZE_MAX);
            self.at = 0;
        } else if self.at >= DROP_SIZE {
            self.input.drain(..self.at);
            self.at = 0;
        }
    }

    /// Goes back to a command, which is gathered again, as all behind it.
    pub fn rewind(&mut self, from: usize) {
        self.at = from;
        self.parser.finish();
    }

    /// Writes what the kernel takes. Bytes written.
    pub fn flush(&mut self) -> usize {
        let before = self.out_taken;
        while self.writable && !self.broken && self.out_taken < self.out.len() {
            match self.stream.write(&self.out[self.out_taken..]) {
                Ok(size) => self.out_taken += size,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(_) => self.broken = true,
            }
        }
        let written = self.out_taken - before;
        if self.out_taken == self.out.len() {
            self.out.clear();
            self.out.shrink_to(KEPT_SIZE_MAX);
            self.out_taken = 0;
            self.stuck_ns = None;
        } else if self.out_taken >= DROP_SIZE {
            self.out.drain(..self.out_taken);
            self.out_taken = 0;
        }
        if written > 0 {
            self.stuck_ns = None;
        }
        written
    }

    /// Says one last thing, and reads nothing more.
    pub fn refuse(&mut self, message: &impl std::fmt::Display) {
        self.replies().error(message);
        self.closing = true;
    }

    /// Whether there is nothing left to do but to close it.
    pub fn is_over(&self) -> bool {
        if self.broken {
            return true;
        }
        let answered = !self.is_waiting() && self.unwritten() == 0;
        answered && (self.closing || self.ended && !self.is_ready && !self.is_held)
    }
}

/// Accepts a connection; none if there is none to accept.
pub(super) fn accept(
    listener: &std::net::TcpListener,
) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                // Replies leave when a turn has gathered them.
                stream.set_nodelay(true)?;
                return Ok(Some((stream, peer)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}
