//! Replies as a client reads them, of either version. As hostile as requests: depth and counts are bounded, and memory
//! is spent only on what has come.

use super::number::parse_integer;
use std::fmt;

/// Deepest nesting of arrays that is read.
pub const DEPTH_MAX: usize = 32;

/// Largest string, or count of an array, that is read.
pub const SIZE_MAX: usize = 64 << 20;

/// Longest line that is read: an error quotes at most what was sent.
const LINE_SIZE_MAX: usize = 64 << 10;

/// A reply.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A word of the server, like OK.
    Simple(Vec<u8>),
    /// An error, its code first.
    Error(Vec<u8>),
    /// An integer.
    Integer(i64),
    /// A string.
    Bulk(Vec<u8>),
    /// No string, or no array.
    Null,
    /// An array, or a push.
    Array(Vec<Value>),
    /// A map of version 3: keys and values in turn.
    Map(Vec<Value>),
    /// A set of version 3.
    Set(Vec<Value>),
    /// A number of version 3 as it is spelled: a double, or a big one.
    Number(Vec<u8>),
    /// A boolean of version 3.
    Boolean(bool),
    /// Text for people, of version 3, its format of three letters first.
    Verbatim(Vec<u8>),
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |formatter: &mut fmt::Formatter<'_>, name, list: &[Self]| {
            write!(formatter, "{name}")?;
            formatter.debug_list().entries(list).finish()
        };
        match self {
            Self::Simple(text) => write!(formatter, "+{}", readable(text)),
            Self::Error(text) => write!(formatter, "-{}", readable(text)),
            Self::Integer(number) => write!(formatter, ":{number}"),
            Self::Bulk(bytes) => write!(formatter, "\"{}\"", bytes.escape_ascii()),
            Self::Null => write!(formatter, "null"),
            Self::Array(values) => list(formatter, "", values),
            Self::Map(values) => list(formatter, "map", values),
            Self::Set(values) => list(formatter, "set", values),
            Self::Number(text) => write!(formatter, ",{}", text.escape_ascii()),
            Self::Boolean(value) => write!(formatter, "#{value}"),
            Self::Verbatim(text) => write!(formatter, "={}", text.escape_ascii()),
        }
    }
}

/// Text as it is, but for what a terminal cannot show.
fn readable(text: &[u8]) -> String {
    let escaped = text.escape_ascii().to_string();
    escaped.replace("\\'", "'").replace("\\\"", "\"")
}

/// What came is not a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("what the server sent is not a reply of the Redis protocol")]
pub struct Malformed;

/// How parsing went: something, or nothing because not all of it has come.
type Parsed<T> = Result<Option<T>, Malformed>;

impl Value {
    /// The reply that `bytes` begin with, and its size; none while it is not whole.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Parsed<(Self, usize)> {
        let mut rest = Rest { bytes, at: 0 };
        Ok(rest.value(0)?.map(|value| (value, rest.at)))
    }

    /// Text of an error; none if it is none.
    pub fn error(&self) -> Option<&[u8]> {
        match self {
            Self::Error(text) => Some(text),
            _ => None,
        }
    }
}

struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn value(&mut self, depth: usize) -> Parsed<Value> {
        let Some((&kind, rest)) = self.bytes[self.at..].split_first() else {
            return Ok(None);
        };
        let window = &rest[..rest.len().min(LINE_SIZE_MAX)];
        let Some(size) = window.windows(2).position(|pair| pair == b"\r\n") else {
            return if rest.len() < LINE_SIZE_MAX {
                Ok(None)
            } else {
                Err(Malformed)
            };
        };
        let line = &rest[..size];
        self.at += 1 + size + 2;
        let value = match kind {
            b'+' => Value::Simple(line.to_vec()),
            b'-' => Value::Error(line.to_vec()),
            b':' => Value::Integer(parse_integer(line).ok_or(Malformed)?),
            b',' | b'(' => Value::Number(line.to_vec()),
            b'#' if line == b"t" || line == b"f" => Value::Boolean(line == b"t"),
            b'_' if line.is_empty() => Value::Null,
            b'$' | b'*' if line == b"-1" => Value::Null,
            b'$' | b'=' => {
                let Some(bytes) = self.string(line)? else {
                    return Ok(None);
                };
                if kind == b'$' {
                    Value::Bulk(bytes.to_vec())
                } else {
                    Value::Verbatim(bytes.to_vec())
                }
            }
            b'*' | b'>' | b'%' | b'~' => return self.list(kind, line, depth),
            _ => return Err(Malformed),
        };
        Ok(Some(value))
    }

    fn string(&mut self, line: &[u8]) -> Parsed<&'a [u8]> {
        let size = size(line)?;
        let rest = &self.bytes[self.at..];
        if rest.len() < size + 2 {
            return Ok(None);
        }
        let (bytes, rest) = rest.split_at(size);
        if !rest.starts_with(b"\r\n") {
            return Err(Malformed);
        }
        self.at += size + 2;
        Ok(Some(bytes))
    }

    fn list(&mut self, kind: u8, line: &[u8], depth: usize) -> Parsed<Value> {
        if depth == DEPTH_MAX {
            return Err(Malformed);
        }
        let count = size(line)? * if kind == b'%' { 2 } else { 1 };
        // Grows with what has come: a count alone costs the sender nothing.
        let mut values = Vec::new();
        for _ in 0..count {
            let Some(value) = self.value(depth + 1)? else {
                return Ok(None);
            };
            values.push(value);
        }
        Ok(Some(match kind {
            b'%' => Value::Map(values),
            b'~' => Value::Set(values),
            _ => Value::Array(values),
        }))
    }
}

fn size(line: &[u8]) -> Result<usize, Malformed> {
    let size = parse_integer(line).and_then(|size| usize::try_from(size).ok());
    size.filter(|&size| size <= SIZE_MAX).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn replies_of_both_versions_are_read() {
        let bytes = b"*9\r\n+OK\r\n-ERR x\r\n:-5\r\n$-1\r\n_\r\n%1\r\n$1\r\na\r\n#t\r\n~1\r\n,1.5\r\n=6\r\ntxt:ab\r\n*0\r\n";
        let (value, size) = Value::parse(bytes).expect("valid").expect("whole");
        assert_eq!(size, bytes.len());
        let expected = Value::Array(vec![
            Value::Simple(b"OK".into()),
            Value::Error(b"ERR x".into()),
            Value::Integer(-5),
            Value::Null,
            Value::Null,
            Value::Map(vec![Value::Bulk(b"a".into()), Value::Boolean(true)]),
            Value::Set(vec![Value::Number(b"1.5".into())]),
            Value::Verbatim(b"txt:ab".into()),
            Value::Array(vec![]),
        ]);
        assert_eq!(value, expected);
        for size in 0..bytes.len() {
            assert_eq!(Value::parse(&bytes[..size]), Ok(None), "{size}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1);
        let long = "+".repeat(LINE_SIZE_MAX + 2);
        for text in [
            "x\r\n",
            ":x\r\n",
            "$x\r\n",
            "$-2\r\n",
            "*-2\r\n",
            "#x\r\n",
            "_x\r\n",
            "$1\r\nabc",
            "$99999999999\r\n",
            &deep,
            &long,
        ] {
            assert_eq!(Value::parse(text.as_bytes()), Err(Malformed), "{text:.40}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(
            proptest::sample::select(b"+-:$*%~>_#,=(019ab\r\n".to_vec()), 0..200)
        ) {
            let _ = Value::parse(&bytes);
        }
    }
}
