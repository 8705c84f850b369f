//! Statements of the shell: `put k v`, `scan a b limit 10`.
//!
//! A word ends at a blank. Quotes, single or double, keep blanks; in and out of quotes, `\n \r \t \0 \\ \" \'`, a
//! backslash before a blank, and `\xNN` stand for one byte. A quoted word is never a keyword.

use crate::state_machine::kv::wire::{
    Comparison, Condition, EXPIRY_MAX, Expiry, ExpiryCondition, Item, SetCondition, SetOptions,
    Target, TransactionBytes,
};
use std::fmt;

/// What the shell can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Something with one key, or with all.
    Item(Change),
    /// Conditions, what is done if they hold, and what if not.
    Transaction(Vec<OwnedCondition>, Vec<Change>, Vec<Change>),
    /// From (included), to (excluded), most entries.
    Scan(Option<Vec<u8>>, Option<Vec<u8>>, u32),
    /// The keys that begin so, most entries.
    Prefix(Vec<u8>, u32),
    /// Reads some key.
    Random,
    /// Explains the statements.
    Help,
    /// Ends the shell.
    Exit,
}

/// An item that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a value.
    Put(Vec<u8>, Vec<u8>, SetOptions),
    /// Reads one.
    Get(Vec<u8>),
    /// Reads bytes of one, from the first to the last.
    GetRange(Vec<u8>, i64, i64),
    /// Reads everything but the value.
    Stat(Vec<u8>),
    /// Removes a key.
    Delete(Vec<u8>),
    /// Reads and removes a key.
    Take(Vec<u8>),
    /// Key, expected value (none: absent), new value.
    Cas(Vec<u8>, Option<Vec<u8>>, Vec<u8>),
    /// Adds to a number.
    Increment(Vec<u8>, i64),
    /// Adds bytes.
    Append(Vec<u8>, Vec<u8>),
    /// Overwrites bytes.
    SetRange(Vec<u8>, u32, Vec<u8>),
    /// Sets or clears the expiry.
    Expire(Vec<u8>, Expiry, ExpiryCondition),
    /// Moves a key.
    Rename(Vec<u8>, Vec<u8>, bool),
    /// Counts the keys.
    Count,
    /// Removes all keys.
    Clear,
}

impl Change {
    /// As the machine knows it.
    pub fn item(&self) -> Item<'_> {
        let size_max = u32::MAX;
        match self {
            Self::Put(key, value, options) if *options == SetOptions::default() => {
                Item::Put { key, value }
            }
            &Self::Put(ref key, ref value, options) => Item::Set {
                key,
                value,
                options,
            },
            Self::Get(key) => Item::Get { key, size_max },
            &Self::GetRange(ref key, start, end) => Item::GetRange {
                key,
                start,
                end,
                size_max,
            },
            Self::Stat(key) => Item::Stat { key },
            Self::Delete(key) => Item::Delete { key },
            Self::Take(key) => Item::Take { key, size_max },
            Self::Cas(key, expected, value) => Item::CompareAndSet {
                key,
                expected: expected.as_deref(),
                value,
            },
            &Self::Increment(ref key, delta) => Item::Increment { key, delta },
            Self::Append(key, value) => Item::Append { key, value },
            &Self::SetRange(ref key, offset, ref value) => Item::SetRange { key, offset, value },
            &Self::Expire(ref key, expiry, condition) => Item::Expire {
                key,
                expiry,
                condition,
                size_max: None,
            },
            &Self::Rename(ref key, ref to, if_absent) => Item::Rename { key, to, if_absent },
            Self::Count => Item::Count,
            Self::Clear => Item::Clear,
        }
    }
}

/// A condition that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedCondition {
    key: Vec<u8>,
    comparison: Comparison,
    version: u64,
    /// Compared instead of the version.
    value: Option<Vec<u8>>,
}

/// The bytes of a transaction; none if it has too many parts.
pub fn transaction(
    conditions: &[OwnedCondition],
    then: &[Change],
    otherwise: &[Change],
) -> Option<TransactionBytes> {
    let conditions: Vec<_> = conditions.iter().map(OwnedCondition::condition).collect();
    let then: Vec<_> = then.iter().map(Change::item).collect();
    let otherwise: Vec<_> = otherwise.iter().map(Change::item).collect();
    TransactionBytes::new(&conditions, &then, &otherwise)
}

impl OwnedCondition {
    fn condition(&self) -> Condition<'_> {
        Condition {
            key: &self.key,
            comparison: self.comparison,
            target: match &self.value {
                Some(value) => Target::Value(value),
                None => Target::Version(self.version),
            },
        }
    }
}

/// What `help` prints.
pub const HELP: &str = "\
put KEY VALUE [keep | in MS | at MS] [if absent|present|version N]
                                  set a value; it expires in so many, or at so many, milliseconds; keep: as before
get KEY                           read a value
getrange KEY FIRST LAST           read some bytes of it; negative: from the end
stat KEY                          read version, expiry and size
delete KEY                        remove a key
take KEY                          read a value and remove the key
cas KEY OLD NEW                   set NEW if the value is OLD; the bare word `absent` for OLD: if there is no such key
incr KEY [N]                      add N, or 1, to a decimal number
append KEY VALUE                  add bytes to a value
setrange KEY OFFSET VALUE         overwrite bytes of a value
expire KEY in MS|at MS|never      set or clear when a key expires
rename KEY TO [if absent]         move a value
scan [FROM [TO]] [limit N]        keys in order, FROM included, TO excluded
prefix PREFIX [limit N]           keys that begin so, in order
random                            some key
count                             number of keys
clear                             remove all keys
transaction [if CONDITION [and CONDITION]..] then STATEMENT [; STATEMENT].. [else STATEMENT [; STATEMENT]..]
                                  do one list or the other, as one; CONDITION is KEY absent, KEY present,
                                  KEY version N, or KEY = VALUE (or != or < or >)
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
    let Some((verb, rest)) = words.split_first() else {
        return Ok(None);
    };
    let statement = match verb.bytes.to_ascii_lowercase().as_slice() {
        b"scan" => scan(rest),
        b"prefix" => {
            let (rest, limit) = limited(rest, "prefix PREFIX [limit N]")?;
            take(rest, "prefix PREFIX [limit N]")
                .map(|[prefix]| Statement::Prefix(prefix.bytes.clone(), limit))
        }
        b"random" => take(rest, "random").map(|[]| Statement::Random),
        b"transaction" => parse_transaction(rest),
        b"help" => take(rest, "help").map(|[]| Statement::Help),
        b"exit" | b"quit" => take(rest, "exit").map(|[]| Statement::Exit),
        _ => change(&words).map(Statement::Item),
    };
    statement.map(Some)
}

/// A statement that may be part of a transaction.
fn change(words: &[Word]) -> Result<Change, String> {
    let Some((verb, rest)) = words.split_first() else {
        return Err("a statement is missing".to_owned());
    };
    let own = |word: &Word| word.bytes.clone();
    match verb.bytes.to_ascii_lowercase().as_slice() {
        b"put" => put(rest),
        b"get" => take(rest, "get KEY").map(|[key]| Change::Get(own(key))),
        b"getrange" => {
            let usage = "getrange KEY FIRST LAST";
            let [key, first, last] = take(rest, usage)?;
            let (first, last) = (number(first, usage)?, number(last, usage)?);
            Ok(Change::GetRange(own(key), first, last))
        }
        b"stat" => take(rest, "stat KEY").map(|[key]| Change::Stat(own(key))),
        b"delete" => take(rest, "delete KEY").map(|[key]| Change::Delete(own(key))),
        b"take" => take(rest, "take KEY").map(|[key]| Change::Take(own(key))),
        b"cas" => take(rest, "cas KEY OLD NEW").map(|[key, old, new]| {
            let expected = (!old.is("absent")).then(|| own(old));
            Change::Cas(own(key), expected, own(new))
        }),
        b"incr" => {
            if let [key] = rest {
                return Ok(Change::Increment(own(key), 1));
            }
            let [key, delta] = take(rest, "incr KEY [N]")?;
            Ok(Change::Increment(own(key), number(delta, "incr KEY [N]")?))
        }
        b"append" => {
            take(rest, "append KEY VALUE").map(|[key, value]| Change::Append(own(key), own(value)))
        }
        b"setrange" => {
            let usage = "setrange KEY OFFSET VALUE";
            let [key, offset, value] = take(rest, usage)?;
            Ok(Change::SetRange(
                own(key),
                number(offset, usage)?,
                own(value),
            ))
        }
        b"expire" => expire(rest),
        b"rename" => match rest {
            [key, to, when, absent] if when.is("if") && absent.is("absent") => {
                Ok(Change::Rename(own(key), own(to), true))
            }
            _ => take(rest, "rename KEY TO [if absent]")
                .map(|[key, to]| Change::Rename(own(key), own(to), false)),
        },
        b"count" => take(rest, "count").map(|[]| Change::Count),
        b"clear" => take(rest, "clear").map(|[]| Change::Clear),
        other => Err(format!("no statement '{}': try help", Escaped(other))),
    }
}

fn usage(usage: &str) -> String {
    format!("the statement is: {usage}")
}

fn take<'a, const N: usize>(words: &'a [Word], form: &str) -> Result<&'a [Word; N], String> {
    words.try_into().map_err(|_| usage(form))
}

fn number<T: std::str::FromStr>(word: &Word, form: &str) -> Result<T, String> {
    let text = std::str::from_utf8(&word.bytes).map_err(|_| usage(form))?;
    text.parse().map_err(|_| usage(form))
}

/// An expiry in milliseconds.
fn time(word: &Word, form: &str) -> Result<u64, String> {
    let time: u64 = number(word, form)?;
    if time > EXPIRY_MAX {
        return Err(format!("a time is at most {EXPIRY_MAX} ms"));
    }
    Ok(time)
}

fn put(words: &[Word]) -> Result<Change, String> {
    let form = "put KEY VALUE [keep | in MS | at MS] [if absent|present|version N]";
    let [key, value, rest @ ..] = words else {
        return Err(usage(form));
    };
    let mut options = SetOptions::default();
    let rest = match rest {
        [keep, rest @ ..] if keep.is("keep") => {
            options.expiry = Expiry::Keep;
            rest
        }
        [kind, at, rest @ ..] if kind.is("in") => {
            options.expiry = Expiry::In(time(at, form)?);
            rest
        }
        [kind, at, rest @ ..] if kind.is("at") => {
            options.expiry = Expiry::At(time(at, form)?);
            rest
        }
        _ => rest,
    };
    options.condition = match rest {
        [] => SetCondition::Always,
        [when, absent] if when.is("if") && absent.is("absent") => SetCondition::Absent,
        [when, present] if when.is("if") && present.is("present") => SetCondition::Present,
        [when, kind, version] if when.is("if") && kind.is("version") => {
            SetCondition::Version(number(version, form)?)
        }
        _ => return Err(usage(form)),
    };
    Ok(Change::Put(key.bytes.clone(), value.bytes.clone(), options))
}

fn expire(words: &[Word]) -> Result<Change, String> {
    let form = "expire KEY in MS|at MS|never";
    let (key, expiry) = match words {
        [key, never] if never.is("never") => (key, Expiry::Never),
        [key, kind, at] if kind.is("in") => (key, Expiry::In(time(at, form)?)),
        [key, kind, at] if kind.is("at") => (key, Expiry::At(time(at, form)?)),
        _ => return Err(usage(form)),
    };
    let always = ExpiryCondition::Always;
    Ok(Change::Expire(key.bytes.clone(), expiry, always))
}

/// Words without a limit at their end, and the limit.
fn limited<'a>(words: &'a [Word], form: &str) -> Result<(&'a [Word], u32), String> {
    match words {
        [rest @ .., keyword, limit] if keyword.is("limit") => match number(limit, form)? {
            0 => Err(usage(form)),
            limit => Ok((rest, limit)),
        },
        _ => Ok((words, SCAN_LIMIT)),
    }
}

fn scan(words: &[Word]) -> Result<Statement, String> {
    let form = "scan [FROM [TO]] [limit N]";
    let (words, limit) = limited(words, form)?;
    if words.len() > 2 {
        return Err(usage(form));
    }
    let mut words = words.iter().map(|word| word.bytes.clone());
    Ok(Statement::Scan(words.next(), words.next(), limit))
}

fn parse_transaction(words: &[Word]) -> Result<Statement, String> {
    let form = "transaction [if CONDITION [and CONDITION]..] then STATEMENT [; ..] [else STATEMENT [; ..]]";
    let then_at = words.iter().position(|word| word.is("then"));
    let (before, lists) = words.split_at(then_at.ok_or_else(|| usage(form))?);
    let mut conditions = Vec::new();
    match before.split_first() {
        None => {}
        Some((first, rest)) if first.is("if") => {
            for words in rest.split(|word| word.is("and")) {
                conditions.push(condition(words)?);
            }
        }
        Some(_) => return Err(usage(form)),
    }
    let mut lists = lists[1..].splitn(2, |word| word.is("else")).map(|words| {
        let statements = words.split(|word| word.is(";"));
        statements.map(change).collect::<Result<Vec<_>, _>>()
    });
    let then = lists.next().unwrap_or(Ok(Vec::new()))?;
    let otherwise = lists.next().unwrap_or(Ok(Vec::new()))?;
    Ok(Statement::Transaction(conditions, then, otherwise))
}

fn condition(words: &[Word]) -> Result<OwnedCondition, String> {
    let form = "KEY absent, KEY present, KEY version N, or KEY = VALUE (or != or < or >)";
    let of_version = |key: &Word, comparison, version| OwnedCondition {
        key: key.bytes.clone(),
        comparison,
        version,
        value: None,
    };
    Ok(match words {
        [key, absent] if absent.is("absent") => of_version(key, Comparison::Equal, 0),
        [key, present] if present.is("present") => of_version(key, Comparison::Greater, 0),
        [key, kind, version] if kind.is("version") => {
            of_version(key, Comparison::Equal, number(version, form)?)
        }
        [key, sign, value] => {
            let comparison = match (&sign.bytes[..], sign.quoted) {
                (b"=", false) => Comparison::Equal,
                (b"!=", false) => Comparison::NotEqual,
                (b"<", false) => Comparison::Less,
                (b">", false) => Comparison::Greater,
                _ => return Err(format!("a condition is: {form}")),
            };
            OwnedCondition {
                key: key.bytes.clone(),
                comparison,
                version: 0,
                value: Some(value.bytes.clone()),
            }
        }
        _ => return Err(format!("a condition is: {form}")),
    })
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
        let put = |key, value, condition, expiry| {
            let options = SetOptions {
                condition,
                expiry,
                old: false,
            };
            Statement::Item(Change::Put(key, value, options))
        };
        let plain = |key, value| put(key, value, SetCondition::Always, Expiry::Never);
        assert_eq!(read("put a b"), plain(bytes("a"), bytes("b")));
        assert_eq!(read(" PUT\ta  'b c' "), plain(bytes("a"), bytes("b c")));
        assert_eq!(
            read(r#"put "" \x00\xfF\n"#),
            plain(bytes(""), vec![0, 255, b'\n'])
        );
        assert_eq!(
            read("put a b in 5 if version 7"),
            put(
                bytes("a"),
                bytes("b"),
                SetCondition::Version(7),
                Expiry::In(5)
            )
        );
        assert_eq!(
            read("put a b keep"),
            put(bytes("a"), bytes("b"), SetCondition::Always, Expiry::Keep)
        );
        let item = |change| Statement::Item(change);
        assert_eq!(read("get a"), item(Change::Get(bytes("a"))));
        assert_eq!(
            read("cas k absent v"),
            item(Change::Cas(bytes("k"), None, bytes("v")))
        );
        assert_eq!(
            read("cas k 'absent' v"),
            item(Change::Cas(bytes("k"), Some(bytes("absent")), bytes("v")))
        );
        assert_eq!(read("incr n"), item(Change::Increment(bytes("n"), 1)));
        assert_eq!(read("incr n -4"), item(Change::Increment(bytes("n"), -4)));
        assert_eq!(
            read("expire k never"),
            item(Change::Expire(
                bytes("k"),
                Expiry::Never,
                ExpiryCondition::Always
            ))
        );
        assert_eq!(
            read("rename a b if absent"),
            item(Change::Rename(bytes("a"), bytes("b"), true))
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
    fn transactions_are_read() {
        let line = b"transaction if a = 1 and 'and' absent then incr a ; get b else count";
        let Ok(Some(Statement::Transaction(conditions, then, otherwise))) = parse(line) else {
            panic!("a transaction");
        };
        assert_eq!(conditions.len(), 2);
        assert_eq!(conditions[0].condition(), Condition::value(b"a", b"1"));
        assert_eq!(conditions[1].condition(), Condition::absent(b"and"));
        let increment = Change::Increment(bytes("a"), 1);
        assert_eq!(then, [increment, Change::Get(bytes("b"))]);
        assert_eq!(otherwise, [Change::Count]);
        assert!(transaction(&conditions, &then, &otherwise).is_some());
        for bad in [
            "transaction",
            "transaction get a",
            "transaction if a then get b",
            "transaction if a ~ b then get b",
            "transaction then get b ;",
            "transaction then scan",
            "transaction then transaction then get a",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
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
            "put a b in",
            "put a b in x",
            "put a b in 72057594037927936",
            "put a b if version",
            "incr a x",
            "setrange a -1 b",
            "expire a 5",
            "prefix",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive_printing_and_reading(key: Vec<u8>, value: Vec<u8>) {
            let line = format!("put {} {}", Quoted(&key), Quoted(&value));
            let put = Statement::Item(Change::Put(key, value, SetOptions::default()));
            prop_assert_eq!(parse(line.as_bytes()), Ok(Some(put)));
        }

        #[test]
        fn no_line_is_a_panic(line: Vec<u8>) {
            let _ = parse(&line);
        }
    }
}
