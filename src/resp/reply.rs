//! Replies, written in the version of the protocol that the connection speaks.

use super::number::push_integer;
use super::score::format;
use crate::state_machine::kv::wire::Score;
use std::fmt::Display;
use std::io::Write;

/// The version of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Protocol {
    /// What every connection begins with.
    #[default]
    Two,
    /// After `HELLO 3`: maps, sets, doubles, booleans and one null.
    Three,
}

/// Appends replies to a connection's output.
#[derive(Debug)]
pub struct Replies<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

impl<'a> Replies<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The version in which it writes.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The same output in another version: for `HELLO`.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Takes back what was written beyond so many bytes of the output.
    pub fn truncate(&mut self, size: usize) {
        self.out.truncate(size);
    }

    /// Bytes in the output.
    pub fn size(&self) -> usize {
        self.out.len()
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(kind);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    fn head(&mut self, kind: u8, number: i64) {
        self.out.push(kind);
        push_integer(self.out, number);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A whole reply that was written elsewhere.
    pub fn raw(&mut self, reply: &[u8]) {
        self.out.extend_from_slice(reply);
    }

    /// "OK", and other words of ours.
    pub fn simple(&mut self, text: &'static str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error: its code, and what is wrong. It stays on its line whatever it quotes.
    pub fn error(&mut self, message: &impl Display) {
        self.out.push(b'-');
        let from = self.out.len();
        write!(self.out, "{message}").expect("memory takes all that is written");
        self.end_error(from);
    }

    /// An error that may quote bytes that are no text.
    pub fn error_bytes(&mut self, message: &[u8]) {
        self.out.push(b'-');
        let from = self.out.len();
        self.out.extend_from_slice(message);
        self.end_error(from);
    }

    fn end_error(&mut self, from: usize) {
        for byte in &mut self.out[from..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer.
    pub fn integer(&mut self, number: i64) {
        self.head(b':', number);
    }

    /// A string.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.head(b'$', size(bytes.len()));
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A string that holds a number.
    pub fn bulk_integer(&mut self, number: i64) {
        self.bulk(super::number::format_integer(
            number,
            &mut [0; super::number::INTEGER_SIZE_MAX],
        ));
    }

    /// A score: a string in version 2.
    pub fn double(&mut self, score: Score) {
        let text = format(score);
        match self.protocol {
            Protocol::Two => self.bulk(text.as_bytes()),
            Protocol::Three => self.line(b',', text.as_bytes()),
        }
    }

    /// Text for people: version 3 knows it apart from other strings.
    pub fn verbatim(&mut self, text: &[u8]) {
        match self.protocol {
            Protocol::Two => self.bulk(text),
            Protocol::Three => {
                self.head(b'=', size(text.len() + 4));
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// No string.
    pub fn null(&mut self) {
        self.line_of(b"$-1\r\n", b"_\r\n");
    }

    /// No array.
    pub fn null_array(&mut self) {
        self.line_of(b"*-1\r\n", b"_\r\n");
    }

    fn line_of(&mut self, two: &[u8], three: &[u8]) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Two => two,
            Protocol::Three => three,
        });
    }

    /// An array: so many replies follow.
    pub fn array(&mut self, count: usize) {
        self.head(b'*', size(count));
    }

    /// A map: so many pairs of replies follow.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Two => self.array(2 * pairs),
            Protocol::Three => self.head(b'%', size(pairs)),
        }
    }

    /// A set: so many replies follow.
    pub fn set(&mut self, count: usize) {
        match self.protocol {
            Protocol::Two => self.array(count),
            Protocol::Three => self.head(b'~', size(count)),
        }
    }
}

/// A size as the protocol writes it.
fn size(size: usize) -> i64 {
    i64::try_from(size).expect("memory has fewer bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(protocol: Protocol, write: impl FnOnce(&mut Replies<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Replies::new(&mut out, protocol));
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn each_version_has_its_own_nulls_and_maps() {
        let write = |replies: &mut Replies<'_>| {
            replies.null();
            replies.null_array();
            replies.map(1);
            replies.set(2);
            replies.array(3);
            replies.verbatim(b"ab");
        };
        let two = "$-1\r\n*-1\r\n*2\r\n*2\r\n*3\r\n$2\r\nab\r\n";
        let three = "_\r\n_\r\n%1\r\n~2\r\n*3\r\n=6\r\ntxt:ab\r\n";
        assert_eq!(written(Protocol::Two, write), two);
        assert_eq!(written(Protocol::Three, write), three);
    }

    #[test]
    fn an_error_stays_on_its_line() {
        let write = |replies: &mut Replies<'_>| replies.error_bytes(b"ERR a\r\n+OK");
        assert_eq!(written(Protocol::Two, write), "-ERR a  +OK\r\n");
        let write = |replies: &mut Replies<'_>| replies.error(&"ERR a\nb");
        assert_eq!(written(Protocol::Three, write), "-ERR a b\r\n");
    }

    #[test]
    fn strings_may_hold_anything() {
        let write = |replies: &mut Replies<'_>| {
            replies.bulk(b"");
            replies.bulk(b"\r\n");
            replies.bulk_integer(-12);
            replies.integer(i64::MIN);
            replies.simple("OK");
        };
        let expected = "$0\r\n\r\n$2\r\n\r\n\r\n$3\r\n-12\r\n:-9223372036854775808\r\n+OK\r\n";
        assert_eq!(written(Protocol::Two, write), expected);
    }
}
