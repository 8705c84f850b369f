//! Statements of the shell: `put k v`, `scan a b limit 10`.
//!
//! A word ends at a blank. Quotes, single or double, keep blanks; in and out of quotes, `\n \r \t \0 \\ \" \'`, a
//! backslash before a blank, and `\xNN` stand for one byte.

use std::fmt;

/// What the shell can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Sets a value.
    Put(Vec<u8>, Vec<u8>),
    /// Reads one.
    Get(Vec<u8>),
    /// Removes a key.
    Delete(Vec<u8>),
    /// Key, expected value (none: absent), new value.
    Cas(Vec<u8>, Option<Vec<u8>>, Vec<u8>),
    /// From (included), to (excluded), most entries.
    Scan(Option<Vec<u8>>, Option<Vec<u8>>, u32),
    /// Counts the keys.
    Count,
    /// Explains the statements.
    Help,
    /// Ends the shell.
    Exit,
}

/// What `help` prints.
pub const HELP: &str = "\
put KEY VALUE                     set a value
get KEY                           read a value
delete KEY                        remove a key
cas KEY OLD NEW                   set NEW if the value is OLD; the bare word `absent` for OLD: if there is no such key
scan [FROM [TO]] [limit N]        keys in order, FROM included, TO excluded
count                             number of keys
help, exit
Quote a word with blanks: \"two words\". Bytes: \\n \\r \\t \\0 \\\\ \\\" \\xNN.";

/// Entries of a scan without a limit.
const SCAN_LIMIT: u32 = 1000;

/// A word, and whether any of it was quoted: a quoted word is never a keyword.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    bytes: Vec<u8>,
    quoted: bool,
}

impl Word {
    fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.bytes.eq_ignore_ascii_case(keyword.as_bytes())
    }
}

/// The statement of a line; none if the line is empty or a comment (`#`).
///
/// # Errors
/// A sentence for the user.
pub fn parse(line: &[u8]) -> Result<Option<Statement>, String> {
    if line.trim_ascii_start().first() == Some(&b'#') {
        return Ok(None);
    }
    let words = words(line)?;
    let mut words = words.into_iter();
    let Some(verb) = words.next() else {
        return Ok(None);
    };
    let rest: Vec<_> = words.collect();
    let statement = match verb.bytes.to_ascii_lowercase().as_slice() {
        b"put" => {
            take(rest, "put KEY VALUE").map(|[key, value]| Statement::Put(key.bytes, value.bytes))
        }
        b"get" => take(rest, "get KEY").map(|[key]| Statement::Get(key.bytes)),
        b"delete" => take(rest, "delete KEY").map(|[key]| Statement::Delete(key.bytes)),
        b"cas" => take(rest, "cas KEY OLD NEW").map(|[key, old, new]| {
            let expected = (!old.is("absent")).then_some(old.bytes);
            Statement::Cas(key.bytes, expected, new.bytes)
        }),
        b"scan" => scan(rest),
        b"count" => take(rest, "count").map(|[]| Statement::Count),
        b"help" => take(rest, "help").map(|[]| Statement::Help),
        b"exit" | b"quit" => take(rest, "exit").map(|[]| Statement::Exit),
        other => Err(format!("no statement '{}': try help", Escaped(other))),
    };
    statement.map(Some)
}

fn take<const N: usize>(words: Vec<Word>, usage: &str) -> Result<[Word; N], String> {
    words
        .try_into()
        .map_err(|_| format!("the statement is: {usage}"))
}

fn scan(mut words: Vec<Word>) -> Result<Statement, String> {
    let usage = || "the statement is: scan [FROM [TO]] [limit N]".to_owned();
    let mut limit = SCAN_LIMIT;
    if let [.., keyword, number] = words.as_slice()
        && keyword.is("limit")
    {
        let text = std::str::from_utf8(&number.bytes).map_err(|_| usage())?;
        limit = text
            .parse()
            .ok()
            .filter(|&limit| limit > 0)
            .ok_or_else(usage)?;
        words.truncate(words.len() - 2);
    }
    let mut words = words.into_iter().map(|word| word.bytes);
    let (from, to) = (words.next(), words.next());
    if words.next().is_some() {
        return Err(usage());
    }
    Ok(Statement::Scan(from, to, limit))
}

fn words(line: &[u8]) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut current: Option<Word> = None;
    let mut quote = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        let is_blank = byte.is_ascii_whitespace() && quote.is_none();
        if is_blank {
            words.extend(current.take());
            continue;
        }
        let word = current.get_or_insert(Word {
            bytes: Vec::new(),
            quoted: false,
        });
        match (byte, quote) {
            (b'"' | b'\'', None) => {
                quote = Some(byte);
                word.quoted = true;
            }
            (_, Some(open)) if byte == open => quote = None,
            (b'\\', _) => word.bytes.push(escape(&mut bytes)?),
            _ => word.bytes.push(byte),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    words.extend(current);
    Ok(words)
}

fn escape(bytes: &mut impl Iterator<Item = u8>) -> Result<u8, String> {
    let unknown = || "an escape is one of \\n \\r \\t \\0 \\\\ \\\" \\' or \\xNN".to_owned();
    let mut digit = || {
        let byte = bytes.next()?;
        Some((byte, (byte as char).to_digit(16).map(|digit| digit as u8)))
    };
    let (byte, _) = digit().ok_or_else(unknown)?;
    Ok(match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0' => 0,
        b'\\' | b'"' | b'\'' | b' ' => byte,
        b'x' => {
            let (high, low) = (digit().and_then(|it| it.1), digit().and_then(|it| it.1));
            high.zip(low)
                .map(|(high, low)| high << 4 | low)
                .ok_or_else(unknown)?
        }
        _ => return Err(unknown()),
    })
}

/// Bytes as a word that [`parse`] reads back: quoted, and escaped where they are not printable text.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", Escaped(self.0))
    }
}

struct Escaped<'a>(&'a [u8]);

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[test]
    fn statements_are_read() {
        let read = |line: &str| {
            parse(line.as_bytes())
                .expect("a statement")
                .expect("not empty")
        };
        assert_eq!(read("put a b"), Statement::Put(bytes("a"), bytes("b")));
        assert_eq!(
            read(" PUT\ta  'b c' "),
            Statement::Put(bytes("a"), bytes("b c"))
        );
        assert_eq!(
            read(r#"put "" \x00\xfF\n"#),
            Statement::Put(bytes(""), vec![0, 255, b'\n'])
        );
        assert_eq!(read("get a"), Statement::Get(bytes("a")));
        assert_eq!(
            read("cas k absent v"),
            Statement::Cas(bytes("k"), None, bytes("v"))
        );
        assert_eq!(
            read("cas k 'absent' v"),
            Statement::Cas(bytes("k"), Some(bytes("absent")), bytes("v"))
        );
        assert_eq!(read("scan"), Statement::Scan(None, None, SCAN_LIMIT));
        assert_eq!(read("scan limit 5"), Statement::Scan(None, None, 5));
        assert_eq!(
            read("scan a b limit 5"),
            Statement::Scan(Some(bytes("a")), Some(bytes("b")), 5)
        );
        assert_eq!(
            read("scan \"limit\" 5"),
            Statement::Scan(Some(bytes("limit")), Some(bytes("5")), SCAN_LIMIT)
        );
        assert_eq!(parse(b"   "), Ok(None));
        assert_eq!(parse(b"# put a b"), Ok(None));
    }

    #[test]
    fn what_is_not_a_statement_is_explained() {
        for bad in [
            "put a",
            "put a b c",
            "get",
            "frob",
            "scan a b c",
            "scan limit 0",
            "scan limit x",
            "get 'a",
            "get \\x1",
            "get \\q",
            "count now",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive_printing_and_reading(key: Vec<u8>, value: Vec<u8>) {
            let line = format!("put {} {}", Quoted(&key), Quoted(&value));
            prop_assert_eq!(parse(line.as_bytes()), Ok(Some(Statement::Put(key, value))));
        }

        #[test]
        fn no_line_is_a_panic(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}
