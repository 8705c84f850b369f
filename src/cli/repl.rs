//! `repl`: statements of the key-value machine, typed or piped in; one line of answer for each.

use super::cluster::ClusterArgs;
use super::statement::{HELP, Quoted, Statement, parse};
use crate::client::kv::{KvClient, KvError, Swap};
use crate::client::{CallError, ConnectError};
use crate::state_machine::kv::wire::Scan;
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::Bound;

/// Run statements on the key-value machine of a cluster: typed, or one a line from standard input.
///
/// Each answer is one line: `ok ...`, `error: ...` (the statement had no effect) or `indeterminate: ...` (it may have
/// had its effect, or may still have it, once). `help` lists the statements.
///
/// Exit status, by the last statement: 0 ok; 1 a definite error; 2 indeterminate.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ReplArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Run this instead of reading statements; several are separated by newlines.
    #[arg(long, value_name = "STATEMENT")]
    pub command: Option<String>,
    /// Print one JSON object for each answer.
    #[arg(long)]
    pub json: bool,
}

/// What went wrong outside of the statements.
#[derive(Debug, thiserror::Error)]
pub enum ReplError {
    /// The client does not start.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Standard input or output fails.
    #[error("standard input or output: {0}")]
    Stream(#[from] io::Error),
}

/// How a statement ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Outcome {
    Ok = 0,
    Error = 1,
    Indeterminate = 2,
}

struct Answer {
    outcome: Outcome,
    text: String,
    /// Beside `result` and `message`.
    fields: Map<String, Value>,
}

/// Runs statements until there are no more, and returns the exit status.
///
/// # Errors
/// [`ReplError`].
pub fn run(args: &ReplArgs) -> Result<u8, ReplError> {
    let client = KvClient::connect(&args.cluster.options())?;
    let mut last = Outcome::Ok;
    let mut out = io::stdout().lock();
    if let Some(command) = &args.command {
        for line in command.as_bytes().split(|&byte| byte == b'\n') {
            if !statement(&client, line, args.json, &mut out, &mut last)? {
                break;
            }
        }
        return Ok(last as u8);
    }
    let mut input = io::stdin().lock();
    let prompt = input.is_terminal();
    let mut line = Vec::new();
    loop {
        if prompt {
            write!(out, "> ")?;
            out.flush()?;
        }
        line.clear();
        let ended = input.read_until(b'\n', &mut line)? == 0;
        if ended || !statement(&client, &line, args.json, &mut out, &mut last)? {
            return Ok(last as u8);
        }
    }
}

/// False if the shell is to end.
fn statement(
    client: &KvClient,
    line: &[u8],
    json: bool,
    out: &mut impl Write,
    last: &mut Outcome,
) -> io::Result<bool> {
    let answer = match parse(line) {
        Ok(None) => return Ok(true),
        Ok(Some(Statement::Exit)) => return Ok(false),
        Ok(Some(statement)) => {
            execute(client, &statement).unwrap_or_else(|error| failed(client, &error))
        }
        Err(message) => Answer {
            outcome: Outcome::Error,
            text: message,
            fields: Map::new(),
        },
    };
    *last = answer.outcome;
    let word = match answer.outcome {
        Outcome::Ok => "ok",
        Outcome::Error => "error",
        Outcome::Indeterminate => "indeterminate",
    };
    if json {
        let mut object = answer.fields;
        object.insert("result".to_owned(), word.into());
        if answer.outcome != Outcome::Ok {
            object.insert("message".to_owned(), answer.text.into());
        }
        writeln!(out, "{}", Value::Object(object))?;
    } else if answer.outcome == Outcome::Ok {
        writeln!(out, "{}", format!("ok {}", answer.text).trim_end())?;
    } else {
        writeln!(out, "{word}: {}", answer.text)?;
    }
    out.flush()?;
    Ok(true)
}

fn failed(client: &KvClient, error: &KvError) -> Answer {
    let mut text = error.to_string();
    if let KvError::Call(CallError::NotSent(_)) = error {
        for (address, trouble) in client.client().troubles() {
            text = format!("{text}; {address}: {trouble}");
        }
    }
    let mut fields = Map::new();
    if let Some(unknown) = error.unknown() {
        fields.insert(
            "client".to_owned(),
            format!("{:032x}", unknown.client).into(),
        );
        fields.insert("session".to_owned(), unknown.session.into());
        fields.insert("request".to_owned(), unknown.request.into());
    }
    let outcome = if error.is_indeterminate() {
        Outcome::Indeterminate
    } else {
        Outcome::Error
    };
    Answer {
        outcome,
        text,
        fields,
    }
}

/// Bytes in JSON: as text where they are text, else as hexadecimal digits under `NAME_hex`.
fn put_bytes(fields: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        fields.insert(name.to_owned(), text.into());
    } else {
        let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        fields.insert(format!("{name}_hex"), digits.concat().into());
    }
}

fn ok(text: String, fields: Value) -> Answer {
    let Value::Object(fields) = fields else {
        unreachable!("fields are an object")
    };
    Answer {
        outcome: Outcome::Ok,
        text,
        fields,
    }
}

fn execute(client: &KvClient, statement: &Statement) -> Result<Answer, KvError> {
    Ok(match statement {
        Statement::Put(key, value) => {
            let version = client.put(key, value)?;
            ok(format!("version {version}"), json!({ "version": version }))
        }
        Statement::Get(key) => match client.get(key)? {
            None => ok("absent".to_owned(), json!({ "found": false })),
            Some(found) => {
                let text = format!("{} version {}", Quoted(&found.value), found.version);
                let mut answer = ok(text, json!({ "found": true, "version": found.version }));
                put_bytes(&mut answer.fields, "value", &found.value);
                answer
            }
        },
        Statement::Delete(key) => match client.delete(key)? {
            None => ok("absent".to_owned(), json!({ "found": false })),
            Some(version) => ok(
                format!("version {version}"),
                json!({ "found": true, "version": version }),
            ),
        },
        Statement::Cas(key, expected, value) => {
            match client.compare_and_set(key, expected.as_deref(), value)? {
                Swap::Done(version) => ok(
                    format!("version {version}"),
                    json!({ "swapped": true, "version": version }),
                ),
                Swap::Mismatch(version) => ok(
                    format!("mismatch, version {version}"),
                    json!({ "swapped": false, "version": version }),
                ),
            }
        }
        Statement::Scan(from, to, limit) => scan(client, from.as_deref(), to.as_deref(), *limit)?,
        Statement::Count => {
            let count = client.count()?.count;
            ok(count.to_string(), json!({ "count": count }))
        }
        Statement::Help => ok(HELP.to_owned(), json!({ "help": HELP })),
        Statement::Exit => unreachable!("the shell has ended"),
    })
}

/// All of a range, answer by answer.
fn scan(
    client: &KvClient,
    from: Option<&[u8]>,
    to: Option<&[u8]>,
    limit: u32,
) -> Result<Answer, KvError> {
    let mut entries = Vec::new();
    let mut more = true;
    while more && entries.len() < limit as usize {
        let last: Option<Vec<u8>> = entries
            .last()
            .map(|entry: &crate::client::kv::Entry| entry.key.clone());
        let page = client.scan(&Scan {
            from: match (&last, from) {
                (Some(last), _) => Bound::Excluded(last),
                (None, Some(from)) => Bound::Included(from),
                (None, None) => Bound::Unbounded,
            },
            to: to.map_or(Bound::Unbounded, Bound::Excluded),
            count_max: limit - entries.len() as u32,
            ..Scan::ALL
        })?;
        more = page.more && !page.entries.is_empty();
        entries.extend(page.entries);
    }
    let mut texts = vec![format!(
        "{} entries{}",
        entries.len(),
        if more { ", more follow" } else { "" }
    )];
    let mut values = Vec::new();
    for entry in &entries {
        let value = entry
            .value
            .as_deref()
            .map(|value| Quoted(value).to_string());
        let value = value.unwrap_or_else(|| "(too large)".to_owned());
        texts.push(format!("{}={value}", Quoted(&entry.key)));
        let mut fields = Map::new();
        fields.insert("version".to_owned(), entry.version.into());
        put_bytes(&mut fields, "key", &entry.key);
        if let Some(value) = &entry.value {
            put_bytes(&mut fields, "value", value);
        }
        values.push(Value::Object(fields));
    }
    Ok(ok(
        texts.join(" "),
        json!({ "entries": values, "more": more }),
    ))
}
