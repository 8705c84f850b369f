//! The commands: one table, and one file a family that turns arguments into items of the key-value machine.
//!
//! To add a command: a line in [`TABLE`], and a function in its family. The function checks the arguments as Redis does, with
//! its words, and either writes the reply, or adds items and says what makes a reply of their results ([`Finish`]), or
//! begins several requests, one after another ([`Steps`]).

// Every command's function has one type, also of those that cannot fail.
#![allow(clippy::unnecessary_wraps)]

mod connection;
mod expiry;
mod hashes;
mod info;
mod keys;
mod lists;
mod members;
mod numbers;
mod server;
mod sets;
mod sorted_sets;
mod strings;
mod table;
mod transactions;

pub use table::{Spec, TABLE, find};
pub use transactions::{compose, enclose, queue};

use super::caller::Caller;
use super::finish::Finish;
use super::items::ItemList;
use super::prediction::Prediction;
use super::reply::Replies;
use super::request::Arguments;
use super::shared::Shared;
use super::steps::Steps;
use crate::state_machine::kv::wire::{Action, Item, KEY_SIZE_MAX};
use std::borrow::Cow;
use std::fmt;

/// An error of Redis's form: a code, and what is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure(Cow<'static, [u8]>);

impl Failure {
    /// An error of known text.
    pub const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }

    /// An error that quotes something.
    pub fn quoting(text: Vec<u8>) -> Self {
        Self(Cow::Owned(text))
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.0
    }

    /// Says it.
    pub fn write(&self, replies: &mut Replies<'_>) {
        replies.error_bytes(&self.0);
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.0))
    }
}

pub(super) const SYNTAX: Failure = Failure::new("ERR syntax error");
pub(super) const NOT_AN_INTEGER: Failure =
    Failure::new("ERR value is not an integer or out of range");
pub(super) const TOO_LONG: Failure =
    Failure::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
pub(in crate::resp) const WRONG_TYPE: Failure =
    Failure::new("WRONGTYPE Operation against a key holding the wrong kind of value");
const KEY_TOO_LONG: Failure = Failure::new("ERR key is longer than 512 bytes");

const MEMBER_TOO_LONG: Failure = Failure::new("ERR field or member is longer than 512 bytes");
const TOO_MANY_ITEMS: Failure = Failure::new("ERR too many arguments for one command");

const _: () = assert!(KEY_SIZE_MAX == 512);

/// What a command is given.
pub struct Context<'a> {
    /// Its name in the table.
    pub spec: &'static Spec,
    /// What the connection has set.
    pub caller: &'a mut Caller,
    /// For a reply that needs nothing of the cluster.
    pub replies: Replies<'a>,
    /// For what it asks of the cluster.
    pub items: &'a mut ItemList,
    /// What the whole gateway knows.
    pub shared: &'a mut Shared,
    /// It runs in EXEC: its items become a part of a transaction.
    pub in_transaction: bool,
    /// What it will find there, if it must know that.
    pub prediction: Option<&'a mut Prediction>,
    /// Its results had no room in one reply: it is to fetch them otherwise.
    pub is_large: bool,
}

/// How a command goes on.
#[derive(Debug)]
pub enum Then {
    /// Its reply is written.
    Replied,
    /// Its reply is written; then the connection is closed.
    Close,
    /// Its reply is the list of all connections, or of this one; the gateway makes it.
    Clients(Clients),
    /// It is EXEC, and some of its commands ask for such lists: first these, then once more.
    Lists(Vec<Clients>),
    /// This makes a reply of the results of its items.
    Items(Finish),
    /// It takes several requests.
    Steps(Box<Steps>),
}

/// Which connections are listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Clients {
    /// Only this.
    Own,
    /// All.
    All,
    /// Those with these numbers.
    Numbered(Vec<u64>),
    /// None: of a kind that there is not.
    None,
}

/// How a command's function ends.
pub type Prepared = Result<Then, Failure>;

impl Context<'_> {
    /// Adds an item whose key, member and value may come from outside.
    pub(super) fn push(&mut self, item: &Item<'_>) -> Result<(), Failure> {
        check_key(item.key())?;
        let member = match item {
            Item::Collection { action, .. } => action.member(),
            _ => &[],
        };
        check_member(member)?;
        if let Some(value) = item.value()
            && member.len() + value.len() > self.shared.limits.value_size_max
        {
            return Err(TOO_LONG);
        }
        self.items.push(item);
        Ok(())
    }

    /// One item, and what makes a reply of its result.
    pub(super) fn item(&mut self, item: &Item<'_>, finish: Finish) -> Prepared {
        self.push(item)?;
        Ok(Then::Items(finish))
    }

    /// An action on a collection.
    pub(super) fn act(&mut self, key: &[u8], action: Action<'_>) -> Result<(), Failure> {
        self.push(&Item::Collection { key, action })
    }

    /// One action, and what makes a reply of its result.
    pub(super) fn action(&mut self, key: &[u8], action: Action<'_>, finish: Finish) -> Prepared {
        self.item(&Item::Collection { key, action }, finish)
    }

    /// What makes a reply of the results of all items that were added, which are done all or, if space runs out, none.
    pub(super) fn together(&mut self, finish: Finish) -> Prepared {
        if self.in_transaction || self.items.count() == 1 {
            return Ok(Then::Items(finish));
        }
        self.items.enclose(&[]).ok_or(TOO_MANY_ITEMS)?;
        Ok(Then::Items(Finish::Enclosed(Box::new(finish))))
    }

    /// That a command, or this form of it, cannot be part of a transaction.
    pub(super) fn not_in_transaction(&self, form: &str) -> Failure {
        let name = self.spec.name.to_ascii_uppercase();
        let text = format!("ERR {name}{form} is not supported in a transaction");
        Failure::quoting(text.into_bytes())
    }

    /// An error about the number of arguments.
    pub(super) fn arity(&self) -> Failure {
        arity(self.spec.name)
    }

    /// "Invalid expire time".
    pub(super) fn invalid_expire(&self) -> Failure {
        let name = self.spec.name;
        Failure::quoting(format!("ERR invalid expire time in '{name}' command").into_bytes())
    }
}

/// No key may be longer than the machine's longest.
pub(super) fn check_key(key: &[u8]) -> Result<(), Failure> {
    if key.len() <= KEY_SIZE_MAX {
        Ok(())
    } else {
        Err(KEY_TOO_LONG)
    }
}

/// No member or field may be longer than the machine's longest.
pub(super) fn check_member(member: &[u8]) -> Result<(), Failure> {
    if member.len() <= KEY_SIZE_MAX {
        Ok(())
    } else {
        Err(MEMBER_TOO_LONG)
    }
}

/// The error about the number of arguments of a command.
pub fn arity(name: &str) -> Failure {
    Failure::quoting(format!("ERR wrong number of arguments for '{name}' command").into_bytes())
}

/// A strict integer.
pub(super) fn integer(argument: &[u8]) -> Result<i64, Failure> {
    super::number::parse_integer(argument).ok_or(NOT_AN_INTEGER)
}

/// At most so many bytes, up to a NUL, as C prints a string.
fn cut(bytes: &[u8], size_max: usize) -> &[u8] {
    let bytes = &bytes[..bytes.len().min(size_max)];
    bytes.split(|&byte| byte == 0).next().unwrap_or(&[])
}

/// The error of a command that is not in the table.
pub fn unknown(arguments: &Arguments<'_>) -> Failure {
    let mut quoted: Vec<u8> = Vec::new();
    for argument in arguments.iter().skip(1) {
        if quoted.len() >= 128 {
            break;
        }
        let left = 128 - quoted.len();
        quoted.push(b'\'');
        quoted.extend_from_slice(cut(argument, left));
        quoted.extend_from_slice(b"' ");
    }
    let mut text = b"ERR unknown command '".to_vec();
    text.extend_from_slice(cut(&arguments[0], 128));
    text.extend_from_slice(b"', with args beginning with: ");
    text.extend_from_slice(&quoted);
    Failure::quoting(text)
}

/// The error of a subcommand that its command does not have.
fn unknown_subcommand(name: &str, subcommand: &[u8]) -> Failure {
    let mut text = b"ERR unknown subcommand '".to_vec();
    text.extend_from_slice(cut(subcommand, 128));
    text.extend_from_slice(format!("'. Try {} HELP.", name.to_ascii_uppercase()).as_bytes());
    Failure::quoting(text)
}

/// The command of these arguments, if it may have so many of them.
///
/// # Errors
/// There is no such command, or it has another number of arguments.
pub fn look_up(arguments: &Arguments<'_>) -> Result<&'static Spec, Failure> {
    let spec = find(&arguments[0]).ok_or_else(|| unknown(arguments))?;
    if let (Some(name), false) = (arguments.get(1), spec.subcommands.is_empty()) {
        let mut each = spec.subcommands.iter();
        let found = each.find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
        let &(known, count) = found.ok_or_else(|| unknown_subcommand(spec.name, name))?;
        if !table::takes(count, arguments.len()) {
            return Err(arity(&format!("{}|{known}", spec.name)));
        }
    }
    if spec.takes(arguments.len()) {
        Ok(spec)
    } else {
        Err(arity(spec.name))
    }
}
