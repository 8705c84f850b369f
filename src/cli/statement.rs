//! Statements of the shell: `put k v`, `scan a b limit 10`.
//!
//! A word ends at a blank. Quotes, single or double, keep blanks; in and out of quotes, `\n \r \t \0 \\ \" \'`, a
//! backslash before a blank, and `\xNN` stand for one byte. A quoted word is never a keyword.

mod collections;
pub mod forms;
mod words;

use crate::state_machine::kv::wire::{
    Comparison, Condition, EXPIRY_MAX, Expiry, ExpiryCondition, Item, SetCondition, SetOptions,
    Target, TransactionBytes,
};
use forms::Form;
use words::{Word, words};

pub use words::{Escaped, Quoted};

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
    /// Explains the statements, or one.
    Help(Option<&'static Form>),
    /// Says how long answers take, or does not.
    Timing(bool),
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
    /// An action on a collection, as an encoded item.
    Collection(Vec<u8>),
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
            Self::Collection(bytes) => Item::decode(bytes).expect("it was encoded").0,
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

/// Entries of a scan without a limit.
const SCAN_LIMIT: u32 = 1000;

/// What is wrong with a line, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The byte of the line; none: the statement as a whole.
    pub at: Option<usize>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Wrong {
    fn at(at: usize, message: String) -> Self {
        let at = Some(at);
        Self { at, message }
    }

    /// The column, from 1, as an editor counts it.
    pub fn column(&self, line: &[u8]) -> usize {
        let before = &line[..self.at.unwrap_or(0).min(line.len())];
        String::from_utf8_lossy(before).chars().count() + 1
    }
}

/// The statement of a line; none if the line is empty or a comment (`#`).
///
/// # Errors
/// For the user.
pub fn parse(line: &[u8]) -> Result<Option<Statement>, Wrong> {
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
            let (rest, limit) = limited(rest, "prefix")?;
            take(rest, "prefix").map(|[prefix]| Statement::Prefix(prefix.bytes.clone(), limit))
        }
        b"random" => take(rest, "random").map(|[]| Statement::Random),
        b"transaction" => parse_transaction(rest),
        b"help" => help(rest),
        b"timing" => match rest {
            [on] if on.is("on") => Ok(Statement::Timing(true)),
            [off] if off.is("off") => Ok(Statement::Timing(false)),
            _ => Err(usage("timing")),
        },
        b"exit" | b"quit" => take(rest, "exit").map(|[]| Statement::Exit),
        _ => change(&words).map(Statement::Item),
    };
    let at_verb = |wrong: Wrong| Wrong {
        at: wrong.at.or(Some(verb.at)),
        ..wrong
    };
    statement.map(Some).map_err(at_verb)
}

/// A statement that may be part of a transaction.
fn change(words: &[Word]) -> Result<Change, Wrong> {
    let Some((verb, rest)) = words.split_first() else {
        return Err(Wrong {
            at: None,
            message: "a statement is missing before or after a word like `;`, `then` or `else`"
                .to_owned(),
        });
    };
    let at_verb = |wrong: Wrong| Wrong {
        at: wrong.at.or(Some(verb.at)),
        ..wrong
    };
    change_of(verb, rest).map_err(at_verb)
}

fn change_of(verb: &Word, rest: &[Word]) -> Result<Change, Wrong> {
    let own = |word: &Word| word.bytes.clone();
    match verb.bytes.to_ascii_lowercase().as_slice() {
        b"put" => put(rest),
        b"get" => take(rest, "get").map(|[key]| Change::Get(own(key))),
        b"getrange" => {
            let [key, first, last] = take(rest, "getrange")?;
            let (first, last) = (number(first, "getrange")?, number(last, "getrange")?);
            Ok(Change::GetRange(own(key), first, last))
        }
        b"stat" => take(rest, "stat").map(|[key]| Change::Stat(own(key))),
        b"delete" => take(rest, "delete").map(|[key]| Change::Delete(own(key))),
        b"take" => take(rest, "take").map(|[key]| Change::Take(own(key))),
        b"cas" => take(rest, "cas").map(|[key, old, new]| {
            let expected = (!old.is("absent")).then(|| own(old));
            Change::Cas(own(key), expected, own(new))
        }),
        b"incr" => {
            if let [key] = rest {
                return Ok(Change::Increment(own(key), 1));
            }
            let [key, delta] = take(rest, "incr")?;
            Ok(Change::Increment(own(key), number(delta, "incr")?))
        }
        b"append" => take(rest, "append").map(|[key, value]| Change::Append(own(key), own(value))),
        b"setrange" => {
            let [key, offset, value] = take(rest, "setrange")?;
            let offset = number(offset, "setrange")?;
            Ok(Change::SetRange(own(key), offset, own(value)))
        }
        b"expire" => expire(rest),
        b"rename" => match rest {
            [key, to, when, absent] if when.is("if") && absent.is("absent") => {
                Ok(Change::Rename(own(key), own(to), true))
            }
            _ => take(rest, "rename").map(|[key, to]| Change::Rename(own(key), own(to), false)),
        },
        b"count" => take(rest, "count").map(|[]| Change::Count),
        b"clear" => take(rest, "clear").map(|[]| Change::Clear),
        _ => collections::action(verb, rest).unwrap_or_else(|| Err(unknown(verb))),
    }
}

/// The error of a word that is no statement, or none that may stand here.
fn unknown(verb: &Word) -> Wrong {
    let name = Escaped(&verb.bytes);
    let message = match (forms::find(&verb.bytes), forms::nearest(&verb.bytes)) {
        (Some(_), _) => format!("'{name}' cannot be part of a transaction: help transaction"),
        (None, Some(nearest)) => format!("no statement '{name}': did you mean {nearest}?"),
        (None, None) => format!("no statement '{name}': `help` lists them"),
    };
    Wrong::at(verb.at, message)
}

fn help(words: &[Word]) -> Result<Statement, Wrong> {
    let Some(word) = words.first() else {
        return Ok(Statement::Help(None));
    };
    let [_] = take(words, "help")?;
    let name = if word.is("quit") {
        &b"exit"[..]
    } else {
        &word.bytes
    };
    let form = forms::find(name).ok_or_else(|| unknown(word))?;
    Ok(Statement::Help(Some(form)))
}

/// The statement of this name is written differently.
fn usage(name: &str) -> Wrong {
    Wrong {
        at: None,
        message: format!("the statement is: {}", forms::usage(name)),
    }
}

fn take<'a, const N: usize>(words: &'a [Word], name: &str) -> Result<&'a [Word; N], Wrong> {
    words.try_into().map_err(|_| match words.get(N) {
        Some(extra) => {
            let text = format!(
                "'{}' is one word too many (quote a word with blanks); the statement is: {}",
                Escaped(&extra.bytes),
                forms::usage(name)
            );
            Wrong::at(extra.at, text)
        }
        None => usage(name),
    })
}

fn number<T: std::str::FromStr>(word: &Word, name: &str) -> Result<T, Wrong> {
    let text = std::str::from_utf8(&word.bytes).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        let text = format!(
            "'{}' is not a whole number that can stand here; the statement is: {}",
            Escaped(&word.bytes),
            forms::usage(name)
        );
        Wrong::at(word.at, text)
    })
}

/// An expiry in milliseconds.
fn time(word: &Word, name: &str) -> Result<u64, Wrong> {
    let time: u64 = number(word, name)?;
    if time > EXPIRY_MAX {
        let text = format!("a time is at most {EXPIRY_MAX} ms");
        return Err(Wrong::at(word.at, text));
    }
    Ok(time)
}

fn put(words: &[Word]) -> Result<Change, Wrong> {
    let name = "put";
    let [key, value, rest @ ..] = words else {
        return Err(usage(name));
    };
    let mut options = SetOptions::default();
    let rest = match rest {
        [keep, rest @ ..] if keep.is("keep") => {
            options.expiry = Expiry::Keep;
            rest
        }
        [kind, at, rest @ ..] if kind.is("in") => {
            options.expiry = Expiry::In(time(at, name)?);
            rest
        }
        [kind, at, rest @ ..] if kind.is("at") => {
            options.expiry = Expiry::At(time(at, name)?);
            rest
        }
        _ => rest,
    };
    options.condition = match rest {
        [] => SetCondition::Always,
        [when, absent] if when.is("if") && absent.is("absent") => SetCondition::Absent,
        [when, present] if when.is("if") && present.is("present") => SetCondition::Present,
        [when, kind, version] if when.is("if") && kind.is("version") => {
            SetCondition::Version(number(version, name)?)
        }
        _ => return Err(usage(name)),
    };
    Ok(Change::Put(key.bytes.clone(), value.bytes.clone(), options))
}

fn expire(words: &[Word]) -> Result<Change, Wrong> {
    let name = "expire";
    let (key, expiry) = match words {
        [key, never] if never.is("never") => (key, Expiry::Never),
        [key, kind, at] if kind.is("in") => (key, Expiry::In(time(at, name)?)),
        [key, kind, at] if kind.is("at") => (key, Expiry::At(time(at, name)?)),
        _ => return Err(usage(name)),
    };
    let always = ExpiryCondition::Always;
    Ok(Change::Expire(key.bytes.clone(), expiry, always))
}

/// Words without a limit at their end, and the limit.
fn limited<'a>(words: &'a [Word], name: &str) -> Result<(&'a [Word], u32), Wrong> {
    match words {
        [rest @ .., keyword, limit] if keyword.is("limit") => match number(limit, name)? {
            0 => Err(Wrong::at(limit.at, "a limit is at least 1".to_owned())),
            limit => Ok((rest, limit)),
        },
        _ => Ok((words, SCAN_LIMIT)),
    }
}

fn scan(words: &[Word]) -> Result<Statement, Wrong> {
    let name = "scan";
    let (words, limit) = limited(words, name)?;
    if words.len() > 2 {
        return Err(usage(name));
    }
    let mut words = words.iter().map(|word| word.bytes.clone());
    Ok(Statement::Scan(words.next(), words.next(), limit))
}

fn parse_transaction(words: &[Word]) -> Result<Statement, Wrong> {
    let name = "transaction";
    let then_at = words.iter().position(|word| word.is("then"));
    let (before, lists) = words.split_at(then_at.ok_or_else(|| usage(name))?);
    let mut conditions = Vec::new();
    match before.split_first() {
        None => {}
        Some((first, rest)) if first.is("if") => {
            for words in rest.split(|word| word.is("and")) {
                conditions.push(condition(words)?);
            }
        }
        Some(_) => return Err(usage(name)),
    }
    let mut lists = lists[1..].splitn(2, |word| word.is("else")).map(|words| {
        let statements = words.split(|word| word.is(";"));
        statements.map(change).collect::<Result<Vec<_>, _>>()
    });
    let then = lists.next().unwrap_or(Ok(Vec::new()))?;
    let otherwise = lists.next().unwrap_or(Ok(Vec::new()))?;
    Ok(Statement::Transaction(conditions, then, otherwise))
}

fn condition(words: &[Word]) -> Result<OwnedCondition, Wrong> {
    let wrong = || {
        Wrong {
        at: words.first().map(|word| word.at),
        message: "a condition is: KEY absent, KEY present, KEY version N, or KEY = VALUE (or != or < or >)".to_owned(),
    }
    };
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
            of_version(key, Comparison::Equal, number(version, "transaction")?)
        }
        [key, sign, value] => {
            let comparison = match (&sign.bytes[..], sign.quoted) {
                (b"=", false) => Comparison::Equal,
                (b"!=", false) => Comparison::NotEqual,
                (b"<", false) => Comparison::Less,
                (b">", false) => Comparison::Greater,
                _ => return Err(wrong()),
            };
            OwnedCondition {
                key: key.bytes.clone(),
                comparison,
                version: 0,
                value: Some(value.bytes.clone()),
            }
        }
        _ => return Err(wrong()),
    })
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

    #[test]
    fn errors_say_where_and_what_would_be_right() {
        for (line, column, message) in [
            ("  gte a", 3, "no statement 'gte': did you mean get?"),
            ("frob", 1, "no statement 'frob': `help` lists them"),
            (
                "put \u{e9} 'b",
                7,
                "a quote is not closed: end the word with ', or write \\'",
            ),
            ("get a\\q", 6, "an escape is one of"),
            ("put a", 1, "the statement is: put KEY VALUE [keep"),
            ("get a b c", 7, "'b' is one word too many"),
            (
                "incr n 1.5",
                8,
                "'1.5' is not a whole number that can stand here; the statement is: incr KEY [N]",
            ),
            (
                "transaction then get a ; incr b x",
                33,
                "'x' is not a whole number",
            ),
            (
                "transaction if a ~ b then get b",
                16,
                "a condition is: KEY absent",
            ),
            (
                "transaction then scan",
                18,
                "'scan' cannot be part of a transaction",
            ),
            ("scan limit 0", 12, "a limit is at least 1"),
            ("help frob", 6, "no statement 'frob'"),
        ] {
            let wrong = parse(line.as_bytes()).expect_err(line);
            assert!(
                wrong.message.starts_with(message),
                "{line}: {}",
                wrong.message
            );
            assert_eq!(wrong.column(line.as_bytes()), column, "{line}");
        }
    }

    #[test]
    fn every_statement_has_help() {
        for form in forms::all() {
            let line = format!("help {}", form.name);
            assert_eq!(
                parse(line.as_bytes()),
                Ok(Some(Statement::Help(Some(form))))
            );
        }
        assert_eq!(parse(b"HELP"), Ok(Some(Statement::Help(None))));
        assert!(
            matches!(parse(b"help quit"), Ok(Some(Statement::Help(Some(form)))) if form.name == "exit")
        );
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
