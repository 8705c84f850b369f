//! Standard input, read by a thread of its own: a pipe is nothing that the replica's ring can wait for beside its disk. For
//! each line, a byte goes through a socket, for which it can.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread;

/// Lines that may wait; then the thread does, and at last whoever writes.
const LINES_MAX: usize = 1024;

/// Longest line, in bytes: more than any message of a node. A longer one is dropped.
const LINE_SIZE_MAX: u64 = 4 << 20;

/// The lines that have come.
#[derive(Debug)]
pub struct Input {
    lines: Receiver<Vec<u8>>,
}

/// What there is to read.
#[derive(PartialEq, Eq, Debug)]
pub enum Next {
    /// A line.
    Line(Vec<u8>),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

impl Input {
    /// Reads `source`. The socket has a byte for each line, and ends with the input.
    ///
    /// # Errors
    /// The system gives no socket or no thread.
    pub fn start(source: impl Read + Send + 'static) -> io::Result<(Self, OwnedFd)> {
        let (woken, wake) = UnixStream::pair()?;
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || {
                if let Err(error) = read(BufReader::new(source), &sender, &wake) {
                    eprintln!("standard input: {error}");
                }
            })?;
        Ok((Self { lines }, woken.into()))
    }

    /// Waits for a line; none: there are no more.
    pub fn wait(&self) -> Option<Vec<u8>> {
        self.lines.recv().ok()
    }

    /// A line, if there is one.
    pub fn try_next(&self) -> Next {
        match self.lines.try_recv() {
            Ok(line) => Next::Line(line),
            Err(TryRecvError::Empty) => Next::Nothing,
            Err(TryRecvError::Disconnected) => Next::End,
        }
    }
}

fn read(
    mut source: impl BufRead,
    sender: &SyncSender<Vec<u8>>,
    mut wake: &UnixStream,
) -> io::Result<()> {
    while let Some(line) = read_line(&mut source)? {
        if sender.send(line).is_err() {
            return Ok(()); // the node ends
        }
        wake.write_all(&[0])?;
    }
    Ok(())
}

fn read_line(source: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    loop {
        let mut line = Vec::new();
        let taken = source.take(LINE_SIZE_MAX).read_until(b'\n', &mut line)?;
        if taken == 0 {
            return Ok(None);
        }
        if taken < LINE_SIZE_MAX as usize || line.ends_with(b"\n") {
            return Ok(Some(line));
        }
        eprintln!("a line of more than {LINE_SIZE_MAX} bytes is dropped");
        source.skip_until(b'\n')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_long_ones_not_at_all() {
        let mut text = b"first\n".to_vec();
        text.resize(text.len() + LINE_SIZE_MAX as usize + 5, b'x');
        text.extend_from_slice(b"\n\nlast");
        let (input, woken) = Input::start(io::Cursor::new(text)).expect("the system allows it");
        assert_eq!(input.wait(), Some(b"first\n".to_vec()));
        assert_eq!(input.wait(), Some(b"\n".to_vec()));
        assert_eq!(input.wait(), Some(b"last".to_vec()));
        assert_eq!(input.wait(), None);
        assert_eq!(input.try_next(), Next::End);
        let mut bytes = Vec::new();
        UnixStream::from(woken)
            .read_to_end(&mut bytes)
            .expect("it ends");
        assert_eq!(bytes, [0; 3]);
    }
}
