//! A line as words, and bytes as a word.

use super::Wrong;
use std::fmt;

/// A word, and whether any of it was quoted: a quoted word is never a keyword.
#[derive(Debug, PartialEq, Eq)]
pub struct Word {
    /// What it stands for.
    pub bytes: Vec<u8>,
    /// Any of it was in quotes.
    pub quoted: bool,
    /// Where it begins in the line.
    pub at: usize,
}

impl Word {
    /// Whether it is this keyword.
    pub fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.bytes.eq_ignore_ascii_case(keyword.as_bytes())
    }
}

/// The words of a line.
///
/// # Errors
/// A quote that is not closed, an escape that is none.
pub fn words(line: &[u8]) -> Result<Vec<Word>, Wrong> {
    let mut words = Vec::new();
    let mut current: Option<Word> = None;
    // The quote, and where it was opened.
    let mut quote: Option<(u8, usize)> = None;
    let mut bytes = line.iter().copied().enumerate();
    while let Some((at, byte)) = bytes.next() {
        let is_blank = byte.is_ascii_whitespace() && quote.is_none();
        if is_blank {
            words.extend(current.take());
            continue;
        }
        let word = current.get_or_insert(Word {
            bytes: Vec::new(),
            quoted: false,
            at,
        });
        match (byte, quote) {
            (b'"' | b'\'', None) => {
                quote = Some((byte, at));
                word.quoted = true;
            }
            (_, Some((open, _))) if byte == open => quote = None,
            (b'\\', _) => word.bytes.push(escape(at, &mut bytes)?),
            _ => word.bytes.push(byte),
        }
    }
    if let Some((open, at)) = quote {
        let open = char::from(open);
        let message = format!("a quote is not closed: end the word with {open}, or write \\{open}");
        return Err(Wrong::at(at, message));
    }
    words.extend(current);
    Ok(words)
}

fn escape(at: usize, bytes: &mut impl Iterator<Item = (usize, u8)>) -> Result<u8, Wrong> {
    const UNKNOWN: &str =
        "an escape is one of \\n \\r \\t \\0 \\\\ \\\" \\' or \\xNN; write a backslash as \\\\";
    let unknown = || Wrong::at(at, UNKNOWN.to_owned());
    let (_, byte) = bytes.next().ok_or_else(unknown)?;
    let mut digit = || {
        let digit = char::from(bytes.next()?.1).to_digit(16);
        digit.map(|digit| digit as u8)
    };
    Ok(match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0' => 0,
        b'\\' | b'"' | b'\'' | b' ' => byte,
        b'x' => {
            let (high, low) = (digit(), digit());
            high.zip(low)
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(unknown)?
        }
        _ => return Err(unknown()),
    })
}

/// Bytes as a word that [`words`] reads back: quoted, and escaped where they are not printable text.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", Escaped(self.0))
    }
}

/// As [`Quoted`], without the quotes.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for letter in chunk.valid().chars() {
                match letter {
                    '\n' => formatter.write_str("\\n")?,
                    '\r' => formatter.write_str("\\r")?,
                    '\t' => formatter.write_str("\\t")?,
                    '"' => formatter.write_str("\\\"")?,
                    '\\' => formatter.write_str("\\\\")?,
                    letter if letter.is_control() => {
                        let mut bytes = [0; 4];
                        for byte in letter.encode_utf8(&mut bytes).bytes() {
                            write!(formatter, "\\x{byte:02x}")?;
                        }
                    }
                    letter => fmt::Write::write_char(formatter, letter)?,
                }
            }
            for byte in chunk.invalid() {
                write!(formatter, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}
