//! A small blocking client of the Redis protocol: for tests, and for whoever wants to ask a gateway from Rust. Commands can
//! be sent ahead of their replies.

use super::value::{Malformed, Value};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Bytes asked from the kernel at once.
const READ_SIZE: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Bytes of `input` that have been handed out.
    taken: usize,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The connection ended, or the time is up.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are no reply.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Appends a command as an array of strings.
pub fn encode<A: AsRef<[u8]>>(arguments: &[A], out: &mut Vec<u8>) {
    let mut replies = super::reply::Replies::new(out, super::reply::Protocol::Two);
    replies.array(arguments.len());
    for argument in arguments {
        replies.bulk(argument.as_ref());
    }
}

impl Connection {
    /// Connects. Whatever takes longer than `patience` afterwards is an error.
    ///
    /// # Errors
    /// Nobody listens there, or the system forbids it.
    pub fn open(address: impl ToSocketAddrs, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self {
            stream,
            input: Vec::new(),
            taken: 0,
        })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection has ended, or the server does not read.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a command.
    ///
    /// # Errors
    /// As [`Connection::send_raw`].
    pub fn send<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<()> {
        let mut out = Vec::new();
        encode(arguments, &mut out);
        self.send_raw(&out)
    }

    /// Waits for the next reply.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn receive(&mut self) -> Result<Value, ReceiveError> {
        loop {
            if let Some((value, size)) = Value::parse(&self.input[self.taken..])? {
                self.taken += size;
                if self.taken == self.input.len() {
                    self.input.clear();
                    self.taken = 0;
                }
                return Ok(value);
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            let size = self.input.len();
            self.input.resize(size + READ_SIZE, 0);
            let read = self.stream.read(&mut self.input[size..]);
            self.input.truncate(size + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Value, ReceiveError> {
        self.send(arguments)?;
        self.receive()
    }
}
