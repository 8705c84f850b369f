//! Requests: arrays of bulk strings, or lines of words (inline commands).
//!
//! The parser looks at the bytes that have come, which start with the request; it copies nothing of an array, and goes on
//! where it stopped when more bytes have come: what is parsed does not depend on how the bytes were split. It holds
//! nothing but where each argument lies, and an argument takes at least six bytes of input: so its memory is bounded by
//! that of the input.

use super::inline;
use super::number::parse_integer;

/// Longest line: of an inline command, or of a count or length.
pub const LINE_SIZE_MAX: usize = 64 << 10;

/// Places for arguments that a parser keeps when it has no request.
const ARGUMENTS_KEPT: usize = 1024;

/// What a request may have at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Arguments, the command's name included.
    pub arguments_max: usize,
    /// Bytes of one argument.
    pub bulk_size_max: usize,
    /// Bytes of the whole request as it is sent.
    pub request_size_max: usize,
}

impl Limits {
    /// As many arguments as Redis took before version 7; 4 MiB an argument, where Redis takes 512; and 8 MiB in all.
    pub const DEFAULT: Self = Self {
        arguments_max: 1 << 20,
        bulk_size_max: 4 << 20,
        request_size_max: 8 << 20,
    };
}

/// What came is not a request. The connection gets this as an error and is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A line without an end.
    #[error("Protocol error: too big inline request")]
    InlineSize,
    /// A line whose quotes do not match.
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    /// The count of an array without an end.
    #[error("Protocol error: too big mbulk count string")]
    CountSize,
    /// The count of an array is no number, or larger than the limit.
    #[error("Protocol error: invalid multibulk length")]
    Count,
    /// The length of an argument without an end.
    #[error("Protocol error: too big bulk count string")]
    LengthSize,
    /// Something else than an argument.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    Bulk(u8),
    /// The length of an argument is no number, or larger than the limit.
    #[error("Protocol error: invalid bulk length")]
    Length,
    /// All arguments together are larger than the limit.
    #[error("Protocol error: too big request")]
    RequestSize,
}

/// What the bytes begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// Not yet a whole request.
    Incomplete,
    /// A request with at least one argument: see [`Parser::arguments`]. It takes so many bytes.
    Request(usize),
    /// A request without arguments, which gets no answer: an empty line, or an array of none.
    Empty(usize),
}

/// The arguments of a request.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    bytes: &'a [u8],
    places: &'a [(u32, u32)],
}

impl<'a> Arguments<'a> {
    /// Arguments that lie elsewhere: each place is the first byte and the byte behind the last.
    pub fn new(bytes: &'a [u8], places: &'a [(u32, u32)]) -> Self {
        Self { bytes, places }
    }

    /// How many there are, the command's name included.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none; never so of a request.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// An argument, if there are so many.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let &(from, to) = self.places.get(index)?;
        Some(&self.bytes[from as usize..to as usize])
    }

    /// The arguments from this one on; none if there are fewer.
    #[must_use]
    pub fn from(&self, index: usize) -> Self {
        Self {
            bytes: self.bytes,
            places: self.places.get(index..).unwrap_or(&[]),
        }
    }

    /// All of them in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        let place = move |&(from, to): &(u32, u32)| &bytes[from as usize..to as usize];
        self.places.iter().map(place)
    }
}

impl std::ops::Index<usize> for Arguments<'_> {
    type Output = [u8];

    fn index(&self, index: usize) -> &[u8] {
        let (from, to) = self.places[index];
        &self.bytes[from as usize..to as usize]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing of a request has been parsed.
    Start,
    /// In an array: so many arguments are still to come.
    Array { missing: usize },
    /// An array is complete.
    Whole,
    /// A line is complete: its words lie in `words`.
    Line,
}

/// Parses one request after another.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    state: State,
    /// Bytes of the request that have been parsed.
    at: usize,
    places: Vec<(u32, u32)>,
    /// The words of an inline command, without their quotes.
    words: Vec<u8>,
}

/// A line that ends in CR and another byte, which nobody looks at, as in Redis.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let window = &bytes[..bytes.len().min(LINE_SIZE_MAX + 1)];
    let size = window.iter().position(|&byte| byte == b'\r')?;
    (size + 2 <= bytes.len()).then(|| &bytes[..size])
}

/// There is no end of a line within the longest one.
fn is_endless(bytes: &[u8], end: u8) -> bool {
    bytes.len() > LINE_SIZE_MAX && !bytes[..=LINE_SIZE_MAX].contains(&end)
}

impl Parser {
    /// A parser that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        assert!(u32::try_from(limits.request_size_max).is_ok());
        Self {
            limits,
            state: State::Start,
            at: 0,
            places: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Looks at all bytes that have come from the start of the request on. The same question has the same answer until
    /// [`Parser::finish`].
    ///
    /// # Errors
    /// What breaks the protocol; the parser is not to be used again.
    pub fn parse(&mut self, bytes: &[u8]) -> Result<Parsed, ProtocolError> {
        if self.state == State::Start {
            match bytes.first() {
                None => return Ok(Parsed::Incomplete),
                Some(b'*') => {
                    if let Some(parsed) = self.count(bytes)? {
                        return Ok(parsed);
                    }
                }
                Some(_) => {
                    if let Some(parsed) = self.inline(bytes)? {
                        return Ok(parsed);
                    }
                }
            }
        }
        while let State::Array { missing } = self.state {
            if !self.argument(bytes)? {
                return Ok(Parsed::Incomplete);
            }
            self.state = match missing - 1 {
                0 => State::Whole,
                missing => State::Array { missing },
            };
        }
        Ok(Parsed::Request(self.at))
    }

    /// The arguments of the request that [`Parser::parse`] has found in these bytes.
    pub fn arguments<'a>(&'a self, bytes: &'a [u8]) -> Arguments<'a> {
        match self.state {
            State::Whole => Arguments::new(bytes, &self.places),
            State::Line => Arguments::new(&self.words, &self.places),
            State::Start | State::Array { .. } => Arguments::new(&[], &[]),
        }
    }

    /// The request is done with: the next bytes begin another.
    pub fn finish(&mut self) {
        self.state = State::Start;
        self.at = 0;
        self.places.clear();
        self.places.shrink_to(ARGUMENTS_KEPT);
        self.words.clear();
        self.words.shrink_to(ARGUMENTS_KEPT);
    }

    /// The memory that it holds, in bytes.
    pub fn memory(&self) -> usize {
        self.places.capacity() * size_of::<(u32, u32)>() + self.words.capacity()
    }

    /// The array's count. Something if parsing ends here.
    fn count(&mut self, bytes: &[u8]) -> Result<Option<Parsed>, ProtocolError> {
        let Some(text) = line(&bytes[1..]) else {
            return if is_endless(bytes, b'\r') {
                Err(ProtocolError::CountSize)
            } else {
                Ok(Some(Parsed::Incomplete))
            };
        };
        let count = parse_integer(text).ok_or(ProtocolError::Count)?;
        self.at = 1 + text.len() + 2;
        if count <= 0 {
            return Ok(Some(Parsed::Empty(self.at)));
        }
        let count = usize::try_from(count).map_err(|_| ProtocolError::Count)?;
        if count > self.limits.arguments_max {
            return Err(ProtocolError::Count);
        }
        self.state = State::Array { missing: count };
        Ok(None)
    }

    fn inline(&mut self, bytes: &[u8]) -> Result<Option<Parsed>, ProtocolError> {
        if is_endless(bytes, b'\n') {
            return Err(ProtocolError::InlineSize);
        }
        let Some(size) = bytes.iter().position(|&byte| byte == b'\n') else {
            return Ok(Some(Parsed::Incomplete));
        };
        let line = &bytes[..size];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        inline::split(line, &mut self.words, &mut self.places)
            .map_err(|_| ProtocolError::Quotes)?;
        self.at = size + 1;
        if self.places.is_empty() {
            return Ok(Some(Parsed::Empty(self.at)));
        }
        self.state = State::Line;
        Ok(None)
    }

    /// One more argument. False: it has not come yet.
    fn argument(&mut self, bytes: &[u8]) -> Result<bool, ProtocolError> {
        let rest = &bytes[self.at..];
        let Some(&first) = rest.first() else {
            return Ok(false);
        };
        let Some(text) = line(rest) else {
            return if is_endless(rest, b'\r') {
                Err(ProtocolError::LengthSize)
            } else {
                Ok(false)
            };
        };
        if first != b'$' {
            return Err(ProtocolError::Bulk(first));
        }
        let length = parse_integer(&text[1..]).ok_or(ProtocolError::Length)?;
        let length = usize::try_from(length).map_err(|_| ProtocolError::Length)?;
        if length > self.limits.bulk_size_max {
            return Err(ProtocolError::Length);
        }
        let from = self.at + text.len() + 2;
        let end = from + length + 2;
        if end > self.limits.request_size_max {
            return Err(ProtocolError::RequestSize);
        }
        if end > bytes.len() {
            return Ok(false);
        }
        self.places.push((from as u32, (from + length) as u32));
        self.at = end;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
