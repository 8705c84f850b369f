//! `repl`: statements of the key-value machine, typed or piped in; one line of answer for each.

use super::cluster::ClusterArgs;
use super::statement::{HELP, Quoted, Statement, parse, transaction};
use crate::client::kv::{Entry, ItemResult, KvClient, KvError};
use crate::client::{CallError, ConnectError, Definite};
use crate::state_machine::kv::wire::{Item, KEY_SIZE_MAX, Scan, Status, prefix_end};
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
        Statement::Item(change) => {
            let item = change.item();
            let results = client.batch(&[item])?;
            results.first().map_or_else(missing, |it| result(&item, it))
        }
        Statement::Transaction(conditions, then, otherwise) => {
            let bytes = transaction(conditions, then, otherwise).ok_or(KvError::Empty)?;
            let item = bytes.item().ok_or(KvError::Key(KEY_SIZE_MAX + 1))?;
            let results = client.batch(&[item])?;
            let Some(found) = results.first() else {
                return Ok(missing());
            };
            let list = match found.status {
                Status::Succeeded => then,
                Status::Failed => otherwise,
                _ => return Ok(result(&item, found)),
            };
            let list = list.iter().zip(&found.results);
            let answers = list.map(|(change, it)| result(&change.item(), it));
            transaction_result(found.status == Status::Succeeded, answers)
        }
        Statement::Scan(from, to, limit) => {
            let from = from.as_deref().map_or(Bound::Unbounded, Bound::Included);
            let to = to.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            scan(client, from, to, *limit)?
        }
        Statement::Prefix(prefix, limit) => {
            if prefix.len() > KEY_SIZE_MAX {
                return Err(KvError::Key(prefix.len()));
            }
            let mut buffer = [0; KEY_SIZE_MAX];
            let to = prefix_end(prefix, &mut buffer);
            scan(client, Bound::Included(prefix), to, *limit)?
        }
        Statement::Random => match client.random_key(seed())? {
            None => ok("absent".to_owned(), json!({ "found": false })),
            Some(key) => {
                let mut answer = ok(Quoted(&key).to_string(), json!({ "found": true }));
                put_bytes(&mut answer.fields, "key", &key);
                answer
            }
        },
        Statement::Help => ok(HELP.to_owned(), json!({ "help": HELP })),
        Statement::Exit => unreachable!("the shell has ended"),
    })
}

/// Any number will do if there is no better.
fn seed() -> u64 {
    let seed = crate::client::entropy().unwrap_or_default();
    u64::from_le_bytes(*seed.first_chunk().expect("it has 32 bytes"))
}

fn missing() -> Answer {
    unreachable!("the client counts the results")
}

fn refused(text: &impl ToString) -> Answer {
    Answer {
        outcome: Outcome::Error,
        text: text.to_string(),
        fields: Map::new(),
    }
}

/// What became of an item.
fn result(item: &Item<'_>, it: &ItemResult) -> Answer {
    let version = it.version;
    let mut answer = match it.status {
        Status::Done => ok(format!("version {version}"), json!({ "version": version })),
        Status::Value => ok(
            format!("{} version {version}", quoted(it)),
            json!({ "version": version }),
        ),
        Status::DoneValue => ok(
            format!("{} and then version {version}", quoted(it)),
            json!({ "version": version }),
        ),
        Status::NotFound => ok("absent".to_owned(), json!({})),
        Status::Mismatch | Status::MismatchValue => ok(
            format!("mismatch, version {version}"),
            json!({ "version": version }),
        ),
        Status::DoneNumber => number(it, json!({ "version": version })),
        Status::Number if matches!(item, Item::Count) => number(it, json!({ "count": it.number })),
        Status::Number => number(it, json!({})),
        Status::Stat => stat(it),
        Status::OutOfSpace => refused(&Definite::OutOfSpace),
        Status::TooLong => refused(&KvError::TooLong),
        Status::NotANumber => refused(&KvError::NotANumber),
        Status::Overflow => refused(&KvError::Overflow),
        Status::WrongType => refused(&KvError::WrongType),
        Status::TooLarge => refused(&"the value does not fit an answer"),
        Status::Invalid | Status::Succeeded | Status::Failed => {
            refused(&"the answer is not one of the key-value machine")
        }
    };
    let found = it.status != Status::NotFound;
    let done = it.status.is_done();
    match item {
        _ if answer.outcome != Outcome::Ok => {}
        Item::Get { .. }
        | Item::GetRange { .. }
        | Item::Delete { .. }
        | Item::Take { .. }
        | Item::Stat { .. }
        | Item::Expire { .. } => {
            answer.fields.insert("found".to_owned(), found.into());
        }
        Item::CompareAndSet { .. } | Item::Set { .. } => {
            answer.fields.insert("swapped".to_owned(), done.into());
        }
        Item::Rename { .. } => {
            answer.fields.insert("found".to_owned(), found.into());
            answer.fields.insert("renamed".to_owned(), done.into());
        }
        _ => {}
    }
    if let Some(value) = &it.value {
        put_bytes(&mut answer.fields, "value", value);
    }
    answer
}

fn quoted(it: &ItemResult) -> String {
    Quoted(it.value.as_deref().unwrap_or_default()).to_string()
}

fn number(it: &ItemResult, fields: Value) -> Answer {
    let number = it.number.unwrap_or_default();
    let mut answer = ok(number.to_string(), fields);
    answer.fields.insert("number".to_owned(), number.into());
    answer
}

fn stat(it: &ItemResult) -> Answer {
    let Some(stat) = it.stat else {
        return missing();
    };
    let expiry = match stat.expiry_ms {
        Some(time) => format!("expires at {time}"),
        None => "never expires".to_owned(),
    };
    let fields = json!({
        "version": stat.version,
        "size": stat.size,
        "expiry_ms": stat.expiry_ms,
    });
    ok(
        format!("version {} size {} {expiry}", stat.version, stat.size),
        fields,
    )
}

fn transaction_result(succeeded: bool, answers: impl Iterator<Item = Answer>) -> Answer {
    let word = if succeeded { "then" } else { "else" };
    let (mut texts, mut values) = (vec![word.to_owned()], Vec::new());
    for mut answer in answers {
        let is_ok = answer.outcome == Outcome::Ok;
        answer.fields.insert(
            "result".to_owned(),
            if is_ok { "ok" } else { "error" }.into(),
        );
        if is_ok {
            texts.push(answer.text);
        } else {
            let message = answer.text.clone();
            answer.fields.insert("message".to_owned(), message.into());
            texts.push(format!("error: {}", answer.text));
        }
        values.push(Value::Object(answer.fields));
    }
    ok(
        texts.join("; "),
        json!({ "succeeded": succeeded, "results": values }),
    )
}

/// All of a range, answer by answer.
fn scan(
    client: &KvClient,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    limit: u32,
) -> Result<Answer, KvError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut next: Option<Vec<u8>> = None;
    loop {
        let page = client.scan(&Scan {
            from: next.as_deref().map_or(from, Bound::Excluded),
            to,
            count_max: limit - entries.len() as u32,
            ..Scan::ALL
        })?;
        entries.extend(page.entries);
        next = page.next;
        if next.is_none() || entries.len() >= limit as usize {
            break;
        }
    }
    let more = next.is_some();
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
