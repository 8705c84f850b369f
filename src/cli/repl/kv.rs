//! The statements of the key-value machine: what they ask of the cluster, and its answers in words and in JSON.

use super::answer::{Answer, Outcome};
use crate::cli::statement::{Quoted, Statement, transaction};
use crate::cli::status;
use crate::client::kv::{Entry, ItemResult, KvClient, KvError};
use crate::client::{CallError, ClientOptions, Definite};
use crate::state_machine::kv::wire::{
    Item, KEY_SIZE_MAX, Scan, Score, Status, ValueKind, prefix_end,
};
use serde_json::{Map, Value, json};
use std::ops::Bound;
use std::time::Duration;

/// How long the replicas are asked who they are, when a statement has failed for want of a primary.
const WHEREABOUTS_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a statement failed, and what to do.
pub fn failed(options: &ClientOptions, error: &KvError) -> Answer {
    let mut text = error.to_string();
    if let KvError::Call(CallError::NotSent(_)) = error {
        text += &whereabouts(options);
    }
    if let Some(advice) = advice(error) {
        text = format!("{text}; {advice}");
    }
    let mut fields = Map::new();
    if let Some(unknown) = error.unknown() {
        let id = format!("{:032x}", unknown.client);
        fields.insert("client".to_owned(), id.into());
        fields.insert("session".to_owned(), unknown.session.into());
        fields.insert("request".to_owned(), unknown.request.into());
    }
    // An answer that cannot be read: the statement was executed, but how it ended is not known.
    let is_unknown = error.is_indeterminate();
    Answer {
        outcome: if is_unknown {
            Outcome::Indeterminate
        } else {
            Outcome::Error
        },
        fields,
        ..Answer::refused(text)
    }
}

/// What each address says of itself now, or what is wrong with it. A backup answers, and it is no primary.
fn whereabouts(options: &ClientOptions) -> String {
    let answers = status::ask(options, WHEREABOUTS_TIMEOUT).unwrap_or_default();
    answers.iter().map(whereabout).collect()
}

fn whereabout(answer: &status::Answer) -> String {
    let address = &answer.address;
    let Some(pong) = &answer.pong else {
        let trouble = answer.trouble.as_deref().unwrap_or("no answer");
        return format!("; {address}: {trouble}");
    };
    let (replica, primary) = (pong.frame.replica, pong.primary);
    let status = status::status_name(pong);
    let role = if replica == primary {
        "the primary of its view".to_owned()
    } else {
        format!(
            "a backup; the primary of its view is replica {primary}, which --addresses must name, too"
        )
    };
    format!("; {address}: replica {replica}, {status}, {role}")
}

/// What a person can do about it.
fn advice(error: &KvError) -> Option<&'static str> {
    Some(match error {
        KvError::Call(CallError::Indeterminate(_)) => {
            "it may have been done, once, or may still be: look before you repeat it"
        }
        KvError::Call(CallError::NotSent(_)) => {
            "it was not done: see whether the replicas run (`viewstone status`), and whether --addresses and \
             --cluster are right"
        }
        KvError::Call(CallError::Definite(error)) => match error {
            Definite::OutOfSpace => "delete keys, or let some expire",
            Definite::TooLarge { .. } => "write it in parts, with append",
            Definite::SessionsFull => "close other clients",
            Definite::NoAnswer => "ask again",
            Definite::UnknownOperation => "see which release the replicas run",
            Definite::Invalid => return None,
        },
        KvError::TooLarge(_) => "read it in parts, with getrange",
        KvError::Empty => "a transaction has a statement, and at most 65,535 of anything",
        KvError::Answer(_) => "look before you repeat it; see which release the replicas run",
        _ => return None,
    })
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
    Answer::ok(text, fields)
}

/// Asks the cluster, and waits.
///
/// # Errors
/// [`KvError`].
pub fn execute(client: &KvClient, statement: &Statement) -> Result<Answer, KvError> {
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
        Statement::Help(_) | Statement::Timing(_) | Statement::Exit => {
            unreachable!("the shell does it itself")
        }
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
    Answer::refused(text.to_string())
}

/// What became of an item.
fn result(item: &Item<'_>, it: &ItemResult) -> Answer {
    let version = it.version;
    let mut answer = match it.status {
        Status::Done => ok(format!("version {version}"), json!({ "version": version })),
        Status::Value if is_of_scores(item) => score(it),
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
        Status::Members | Status::DoneMembers => members(item, it),
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
    if let Some(value) = it.value.as_ref().filter(|_| !is_of_scores(item)) {
        put_bytes(&mut answer.fields, "value", value);
    }
    answer
}

fn kind_name(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Bytes => "bytes",
        ValueKind::Hash => "hash",
        ValueKind::Set => "set",
        ValueKind::List => "list",
        ValueKind::Sorted => "sorted set",
    }
}

/// Whether the values of its result are scores.
fn is_of_scores(item: &Item<'_>) -> bool {
    matches!(item, Item::Collection { action, .. } if action.kind() == ValueKind::Sorted)
}

fn score_of(bytes: &[u8]) -> Option<f64> {
    let ordered = u64::from_le_bytes(bytes.try_into().ok()?);
    Score::from_ordered(ordered).map(Score::get)
}

/// JSON knows no infinity: as text, then.
fn score_value(score: f64) -> Value {
    serde_json::Number::from_f64(score).map_or_else(|| score.to_string().into(), Value::Number)
}

fn score(it: &ItemResult) -> Answer {
    let Some(score) = it.value.as_deref().and_then(score_of) else {
        return missing();
    };
    let version = it.version;
    let fields = json!({ "version": version, "found": true, "score": score_value(score) });
    ok(format!("{score} version {version}"), fields)
}

/// Members, fields and values, members and scores, or elements.
fn members(item: &Item<'_>, it: &ItemResult) -> Answer {
    let second = match item {
        Item::Collection { action, .. } => match action.kind() {
            ValueKind::Hash => "value",
            ValueKind::Sorted => "score",
            _ => "",
        },
        _ => "",
    };
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    let step = if second.is_empty() { 1 } else { 2 };
    for strings in it.members.chunks(step) {
        let mut fields = Map::new();
        put_bytes(&mut fields, "member", &strings[0]);
        let mut row = Quoted(&strings[0]).to_string();
        if let Some(score) = strings.get(1).filter(|_| second == "score") {
            let score = score_of(score).unwrap_or(f64::NAN);
            row = format!("{row}={score}");
            fields.insert("score".to_owned(), score_value(score));
        } else if let Some(value) = strings.get(1) {
            row = format!("{row}={}", Quoted(value));
            put_bytes(&mut fields, "value", value);
        }
        rows.push(row);
        values.push(Value::Object(fields));
    }
    let more_follow = if it.more { ", more follow" } else { "" };
    let text = format!("{} members{more_follow} version {}", rows.len(), it.version);
    let fields = json!({ "members": values, "more": it.more, "version": it.version });
    ok(text, fields).with_rows(rows, " ")
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
        "kind": kind_name(stat.kind),
    });
    let kind = match stat.kind {
        ValueKind::Bytes => String::new(),
        kind => format!("{} of ", kind_name(kind)),
    };
    ok(
        format!("version {} {kind}size {} {expiry}", stat.version, stat.size),
        fields,
    )
}

fn transaction_result(succeeded: bool, answers: impl Iterator<Item = Answer>) -> Answer {
    let word = if succeeded { "then" } else { "else" };
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for mut answer in answers {
        let is_ok = answer.outcome == Outcome::Ok;
        answer.fields.insert(
            "result".to_owned(),
            if is_ok { "ok" } else { "error" }.into(),
        );
        if is_ok {
            rows.push(answer.text);
        } else {
            let message = answer.text.clone();
            answer.fields.insert("message".to_owned(), message.into());
            rows.push(format!("error: {}", answer.text));
        }
        values.push(Value::Object(answer.fields));
    }
    let fields = json!({ "succeeded": succeeded, "results": values });
    ok(word.to_owned(), fields).with_rows(rows, "; ")
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
    let more_follow = if more { ", more follow" } else { "" };
    let text = format!("{} entries{more_follow}", entries.len());
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for entry in &entries {
        let value = entry
            .value
            .as_deref()
            .map(|value| Quoted(value).to_string());
        let value = value.unwrap_or_else(|| match entry.kind {
            ValueKind::Bytes => "(too large)".to_owned(),
            kind => format!("({} of {})", kind_name(kind), entry.size),
        });
        rows.push(format!("{}={value}", Quoted(&entry.key)));
        let mut fields = Map::new();
        fields.insert("version".to_owned(), entry.version.into());
        put_bytes(&mut fields, "key", &entry.key);
        if let Some(value) = &entry.value {
            put_bytes(&mut fields, "value", value);
        }
        values.push(Value::Object(fields));
    }
    let fields = json!({ "entries": values, "more": more });
    Ok(ok(text, fields).with_rows(rows, " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::header::{PongClient, ReplicaStatus, Typed};

    #[test]
    fn a_backup_that_answers_names_the_primary_that_is_not_reached() {
        let mut pong = PongClient::new(7, 4, 2);
        pong.primary = 1;
        pong.status = ReplicaStatus::Normal as u8;
        let mut answer = status::Answer {
            address: "c:3001".to_owned(),
            pong: Some(pong),
            trouble: None,
        };
        let text = whereabout(&answer);
        assert!(text.starts_with(
            "; c:3001: replica 2, normal, a backup; the primary of its view is replica 1,"
        ));
        answer.pong = None;
        assert_eq!(whereabout(&answer), "; c:3001: no answer");
    }
}
