//! The statements as a table: what `help` prints, what errors quote and what Tab completes, from one place.
//!
//! To add a machine: a group of its statements here, and their arms in the parser and in the shell.

mod collections;

use std::fmt::Write;

/// A statement.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    /// Its first word.
    pub name: &'static str,
    /// How it is written.
    pub usage: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// What else there is to know, and examples; lines.
    pub more: &'static [&'static str],
    /// Bare words that have a meaning in it.
    pub keywords: &'static [&'static str],
    /// It may be part of a transaction.
    pub nests: bool,
}

/// Statements that belong together.
#[derive(Debug)]
pub struct Group {
    /// Of what.
    pub title: &'static str,
    /// Which.
    pub forms: &'static [Form],
}

const EXPIRY: &str = "MS is in milliseconds of the cluster's time: `in` from now, `at` since 1970. All replicas expire alike.";
const TRANSACTION_USAGE: &str = "transaction [if CONDITION [and CONDITION]..] then STATEMENT [; STATEMENT].. \
[else STATEMENT [; STATEMENT]..]";

/// All statements.
pub const GROUPS: &[Group] = &[
    Group {
        title: "The key-value machine (kv)",
        forms: KV,
    },
    Group {
        title: "Its hashes, sets, lists and sorted sets",
        forms: collections::COLLECTIONS,
    },
    Group {
        title: "The shell",
        forms: SHELL,
    },
];

const KV: &[Form] = &[
    Form {
        name: "put",
        usage: "put KEY VALUE [keep | in MS | at MS] [if absent|present|version N]",
        about: "set a value",
        more: &[
            "It never expires, but with `in` or `at`; `keep` leaves the expiry as it was.",
            EXPIRY,
            "With `if` it is done only under that condition; else the answer is `ok mismatch`.",
            "    put greeting \"hello world\"",
            "    put lease me in 10000 if absent",
        ],
        keywords: &["keep", "in", "at", "if", "absent", "present", "version"],
        nests: true,
    },
    Form {
        name: "get",
        usage: "get KEY",
        about: "read a value and its version",
        more: &["The answer is `ok absent` if there is no such key."],
        keywords: &[],
        nests: true,
    },
    Form {
        name: "getrange",
        usage: "getrange KEY FIRST LAST",
        about: "read some bytes of a value",
        more: &[
            "The first byte is 0; negative numbers count from the end: `getrange k -3 -1` reads the last three.",
        ],
        keywords: &[],
        nests: true,
    },
    Form {
        name: "stat",
        usage: "stat KEY",
        about: "read version, size, expiry, and what it holds",
        more: &[
            "The expiry is in milliseconds since 1970. The size of a collection is how many it has.",
        ],
        keywords: &[],
        nests: true,
    },
    Form {
        name: "delete",
        usage: "delete KEY",
        about: "remove a key",
        more: &["The answer is `ok absent` if there was none."],
        keywords: &[],
        nests: true,
    },
    Form {
        name: "take",
        usage: "take KEY",
        about: "read a value and remove the key",
        more: &["The value must fit the reply to a write; get and delete a larger one."],
        keywords: &[],
        nests: true,
    },
    Form {
        name: "cas",
        usage: "cas KEY OLD NEW",
        about: "set NEW if the value is OLD",
        more: &[
            "The bare word `absent` for OLD: if there is no such key. Else the answer is `ok mismatch`.",
            "    cas leader absent me",
            "    cas leader 'absent' me          the value is the word absent",
        ],
        keywords: &["absent"],
        nests: true,
    },
    Form {
        name: "incr",
        usage: "incr KEY [N]",
        about: "add N, or 1, to a decimal number",
        more: &["A key that is absent counts as 0. N may be negative; 64 bits."],
        keywords: &[],
        nests: true,
    },
    Form {
        name: "append",
        usage: "append KEY VALUE",
        about: "add bytes to a value",
        more: &["A key that is absent counts as empty."],
        keywords: &[],
        nests: true,
    },
    Form {
        name: "setrange",
        usage: "setrange KEY OFFSET VALUE",
        about: "overwrite bytes of a value",
        more: &["The first byte is 0. A value that is too short is filled up with zeros."],
        keywords: &[],
        nests: true,
    },
    Form {
        name: "expire",
        usage: "expire KEY in MS|at MS|never",
        about: "set or clear when a key expires",
        more: &[EXPIRY],
        keywords: &["in", "at", "never"],
        nests: true,
    },
    Form {
        name: "rename",
        usage: "rename KEY TO [if absent]",
        about: "move a value to another key",
        more: &["A value of TO is lost, but with `if absent`: then the answer is `ok mismatch`."],
        keywords: &["if", "absent"],
        nests: true,
    },
    Form {
        name: "scan",
        usage: "scan [FROM [TO]] [limit N]",
        about: "keys in order, FROM included, TO excluded",
        more: &[
            "Without a limit the first 1000. Of many keys, part by part: not one moment of the store.",
            "    scan user: user; limit 10",
        ],
        keywords: &["limit"],
        nests: false,
    },
    Form {
        name: "prefix",
        usage: "prefix PREFIX [limit N]",
        about: "keys that begin so, in order",
        more: &["As `scan`."],
        keywords: &["limit"],
        nests: false,
    },
    Form {
        name: "random",
        usage: "random",
        about: "some key",
        more: &[],
        keywords: &[],
        nests: false,
    },
    Form {
        name: "count",
        usage: "count",
        about: "number of keys",
        more: &[],
        keywords: &[],
        nests: true,
    },
    Form {
        name: "clear",
        usage: "clear",
        about: "remove all keys",
        more: &["There is no question and no way back."],
        keywords: &[],
        nests: true,
    },
    Form {
        name: "transaction",
        usage: TRANSACTION_USAGE,
        about: "do one list or the other, as one",
        more: &[
            "CONDITION is KEY absent, KEY present, KEY version N, or KEY = VALUE (or != or < or >).",
            "STATEMENT is one with a key, or count or clear. A `;` stands alone, with blanks around it.",
            "The answer says which list was executed, and an answer for each of its statements.",
            "    transaction if a = 1 and b absent then put a 2 ; incr n else get a",
        ],
        keywords: &["if", "and", "then", "else", "absent", "present", "version"],
        nests: false,
    },
];

const SHELL: &[Form] = &[
    Form {
        name: "help",
        usage: "help [STATEMENT]",
        about: "this list, or all about one statement",
        more: &[],
        keywords: &[],
        nests: false,
    },
    Form {
        name: "timing",
        usage: "timing on|off",
        about: "say how long each answer took",
        more: &["At a terminal it is on from the start; else with the option --timing."],
        keywords: &["on", "off"],
        nests: false,
    },
    Form {
        name: "exit",
        usage: "exit",
        about: "end the shell; also: quit, Ctrl-D",
        more: &[],
        keywords: &[],
        nests: false,
    },
];

/// How words are written.
const WORDS: &[&str] = &[
    "Words end at blanks; quotes, single or double, keep them: \"two words\", ''. A quoted word is never a keyword.",
    "Any byte can be written: \\n \\r \\t \\0 \\\\ \\\" \\' and \\xNN, in quotes or not. A line that begins with # is a comment.",
];

/// All statements, in the order of the list.
pub fn all() -> impl Iterator<Item = &'static Form> {
    GROUPS.iter().flat_map(|group| group.forms)
}

/// The statement of this name, in capitals or not.
pub fn find(name: &[u8]) -> Option<&'static Form> {
    all().find(|form| name.eq_ignore_ascii_case(form.name.as_bytes()))
}

/// How the statement of this name is written.
pub fn usage(name: &str) -> &'static str {
    find(name.as_bytes()).expect("the parser knows it").usage
}

/// What may have been meant by a name that is none: one slip away, or its beginning.
pub fn nearest(name: &[u8]) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let begins = |form: &&Form| name.len() > 1 && form.name.as_bytes().starts_with(&name);
    let slip = |form: &&Form| distance(&name, form.name.as_bytes()) <= 1;
    let swapped = |form: &&Form| is_swapped(&name, form.name.as_bytes());
    let found = all().find(begins).or_else(|| all().find(swapped));
    found.or_else(|| all().find(slip)).map(|form| form.name)
}

fn is_swapped(a: &[u8], b: &[u8]) -> bool {
    let differs: Vec<usize> = (0..a.len().min(b.len()))
        .filter(|&i| a[i] != b[i])
        .collect();
    match differs[..] {
        [i, j] => a.len() == b.len() && j == i + 1 && a[i] == b[j] && a[j] == b[i],
        _ => false,
    }
}

/// Letters to add, remove or replace to make one of the other; 2 stands for any more than 1.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let same = short.iter().zip(long).take_while(|(a, b)| a == b).count();
    match long.len() - short.len() {
        0 if same == long.len() => 0,
        0 if short[same + 1..] == long[same + 1..] => 1,
        1 if short[same..] == long[same + 1..] => 1,
        _ => 2,
    }
}

/// Lines about all statements.
pub fn overview() -> Vec<String> {
    let mut lines = Vec::new();
    for group in GROUPS {
        lines.push(format!("{}:", group.title));
        for form in group.forms {
            // The longest is explained on its own.
            let usage = match form.name {
                "transaction" => "transaction [if ..] then .. [else ..]",
                "put" => "put KEY VALUE [in MS] [if ..]",
                _ => form.usage,
            };
            lines.push(format!("  {usage:<38} {}", form.about));
        }
    }
    lines.extend(WORDS.iter().map(|&line| line.to_owned()));
    lines.push("More about one: help STATEMENT".to_owned());
    lines
}

/// Lines about one.
pub fn explain(form: &Form) -> Vec<String> {
    let mut first = form.usage.to_owned();
    write!(first, ": {}", form.about).expect("a string takes all");
    let more = form.more.iter().map(|&line| line.to_owned());
    std::iter::once(first).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_begin_their_usages() {
        let mut names: Vec<&str> = all().map(|form| form.name).collect();
        assert!(all().all(|form| form.usage.split(' ').next() == Some(form.name)));
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b));
        assert!(overview().iter().all(|line| line.len() < 120));
        for form in all() {
            assert!(explain(form).iter().all(|line| line.len() < 150));
            assert!(
                form.keywords
                    .iter()
                    .all(|word| explain(form).concat().contains(word))
            );
        }
    }

    #[test]
    fn slips_are_recognised() {
        for (slip, meant) in [
            ("gte", "get"),
            ("gett", "get"),
            ("pt", "put"),
            ("dele", "delete"),
            ("PUTT", "put"),
            ("incrr", "incr"),
            ("trans", "transaction"),
        ] {
            assert_eq!(nearest(slip.as_bytes()), Some(meant), "{slip}");
        }
        for none in ["frob", "", "x", "\u{e9}", "select"] {
            assert_eq!(nearest(none.as_bytes()), None, "{none}");
        }
    }
}
