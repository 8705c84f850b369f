//! The requests of the `lin-kv` workload as operations of the key-value machine, and its answers as Maelstrom's.
//!
//! Keys and values may be any JSON; what is stored, and compared, is their compact form. (Numbers beyond 64 bits are
//! floating-point numbers, as in many implementations of JSON.)

use crate::message::{Body, Code, body, error};
use serde_json::{Value, json};
use viewstone::client::core::Kind;
use viewstone::client::kv;
use viewstone::client::{CallError, Definite};
use viewstone::state_machine::kv::wire::{
    Condition, Item, ItemReply, KEY_SIZE_MAX, Status, TransactionBytes,
};

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    key: Vec<u8>,
    action: Action,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Action {
    Read,
    Write(Vec<u8>),
    Swap {
        from: Vec<u8>,
        to: Vec<u8>,
        create: bool,
    },
}

/// What the cluster is asked.
#[derive(Debug)]
pub struct Encoded {
    /// Whether it changes anything.
    pub kind: Kind,
    /// The machine and its operation.
    pub operation: u16,
    /// The machine's bytes.
    pub body: Vec<u8>,
}

impl Request {
    /// The request of this type.
    ///
    /// # Errors
    /// The answer to one that there is not, or that is malformed.
    pub fn parse(kind: &str, body: &Body) -> Result<Self, Body> {
        let field = |name: &str| match body.get(name) {
            Some(value) => Ok(value.to_string().into_bytes()),
            None => Err(error(
                Code::MalformedRequest,
                format_args!("\"{kind}\" has a \"{name}\""),
            )),
        };
        let action = match kind {
            "read" => Action::Read,
            "write" => Action::Write(field("value")?),
            "cas" => Action::Swap {
                from: field("from")?,
                to: field("to")?,
                create: body.get("create_if_not_exists") == Some(&Value::Bool(true)),
            },
            _ => {
                let text = format!("no request is called \"{kind}\"");
                return Err(error(Code::NotSupported, text));
            }
        };
        let key = field("key")?;
        if key.len() > KEY_SIZE_MAX {
            let text = format!("a key has at most {KEY_SIZE_MAX} bytes");
            return Err(error(Code::MalformedRequest, text));
        }
        Ok(Self { key, action })
    }

    /// What to ask the cluster.
    pub fn encode(&self) -> Encoded {
        let key = &self.key[..];
        match &self.action {
            Action::Read => encode(&Item::Get {
                key,
                size_max: u32::MAX,
            }),
            Action::Write(value) => encode(&Item::Put { key, value }),
            Action::Swap {
                from,
                to,
                create: false,
            } => encode(&Item::CompareAndSet {
                key,
                expected: Some(from),
                value: to,
            }),
            Action::Swap { from, to, .. } => {
                let create = Item::CompareAndSet {
                    key,
                    expected: None,
                    value: to,
                };
                let transaction = TransactionBytes::new(
                    &[Condition::value(key, from)],
                    &[Item::Put { key, value: to }],
                    &[create],
                );
                let transaction = transaction.expect("it is short, and holds no transaction");
                let item = transaction.item();
                encode(&item.expect("the key's size was checked"))
            }
        }
    }

    /// The answer to an answer of the machine.
    pub fn answer(&self, bytes: &[u8]) -> Body {
        let answered = ItemReply::decode(bytes).and_then(|reply| self.answer_to(&reply));
        // It was executed, and what came of it cannot be told.
        answered.unwrap_or_else(|| error(Code::Crash, "the cluster's answer is not understood"))
    }

    fn answer_to(&self, reply: &ItemReply<'_>) -> Option<Body> {
        let refused = |code, text| Some(error(code, text));
        match reply.status {
            Status::OutOfSpace => refused(Code::Abort, "the cluster's state is out of space"),
            Status::TooLarge | Status::TooLong => refused(Code::Abort, "the value is too long"),
            status => match &self.action {
                Action::Read => read(reply),
                Action::Write(_) if status == Status::Done => Some(ok("write_ok")),
                Action::Write(_) => None,
                Action::Swap { create: false, .. } => swapped(reply),
                Action::Swap { .. } => match (status, reply.results.clone().next()) {
                    (Status::Succeeded | Status::Failed, Some(result)) => swapped(&result),
                    _ => None,
                },
            },
        }
    }
}

fn encode(item: &Item<'_>) -> Encoded {
    let mut body = Vec::with_capacity(item.size());
    item.encode(&mut body);
    Encoded {
        kind: if item.is_read() {
            Kind::Read
        } else {
            Kind::Write
        },
        operation: kv::operation(item.operation()),
        body,
    }
}

fn ok(kind: &str) -> Body {
    body(json!({ "type": kind }))
}

fn read(reply: &ItemReply<'_>) -> Option<Body> {
    match reply.status {
        Status::Value => {
            let value: Value = serde_json::from_slice(reply.value).ok()?;
            Some(body(json!({ "type": "read_ok", "value": value })))
        }
        Status::NotFound => Some(error(Code::KeyDoesNotExist, "there is no such key")),
        _ => None,
    }
}

fn swapped(reply: &ItemReply<'_>) -> Option<Body> {
    match reply.status {
        Status::Done => Some(ok("cas_ok")),
        Status::Mismatch if reply.version == 0 => {
            Some(error(Code::KeyDoesNotExist, "there is no such key"))
        }
        Status::Mismatch => {
            let text = "the key has another value";
            Some(error(Code::PreconditionFailed, text))
        }
        _ => None,
    }
}

/// The answer where the machine gave none. Only what the client core calls indeterminate may have happened.
pub fn failed(failure: &CallError) -> Body {
    let code = match failure {
        CallError::Indeterminate(_) => Code::Timeout,
        CallError::NotSent(_) | CallError::Definite(Definite::NoAnswer) => {
            Code::TemporarilyUnavailable
        }
        CallError::Definite(Definite::OutOfSpace | Definite::SessionsFull) => Code::Abort,
        CallError::Definite(
            Definite::Invalid | Definite::TooLarge { .. } | Definite::UnknownOperation,
        ) => Code::MalformedRequest,
    };
    error(code, failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use viewstone::client::{NotSent, Unknown, UnknownReason};

    fn parse(text: &str) -> Result<Request, Body> {
        let value: Value = serde_json::from_str(text).expect("a test's JSON");
        let fields = body(value);
        let kind = fields["type"].as_str().expect("a test's type").to_owned();
        Request::parse(&kind, &fields)
    }

    fn code_of(text: &str) -> Value {
        parse(text).expect_err("it is none")["code"].clone()
    }

    #[test]
    fn requests_are_what_they_say_or_definite_errors() {
        assert_eq!(code_of(r#"{"type":"txn"}"#), 10);
        assert_eq!(code_of(r#"{"type":""}"#), 10);
        assert_eq!(code_of(r#"{"type":"read"}"#), 12);
        assert_eq!(code_of(r#"{"type":"write","key":1}"#), 12);
        assert_eq!(code_of(r#"{"type":"cas","key":1,"from":1}"#), 12);
        let long = "k".repeat(KEY_SIZE_MAX);
        assert_eq!(
            code_of(&json!({ "type": "read", "key": long }).to_string()),
            12
        );
        let request = parse(r#"{"type":"cas","key":null,"from":1,"to":"1"}"#).expect("whole");
        assert_eq!(request.key, b"null");
        let action = Action::Swap {
            from: b"1".to_vec(),
            to: b"\"1\"".to_vec(),
            create: false,
        };
        assert_eq!(request.action, action);
    }

    #[test]
    fn only_an_unknown_outcome_is_indefinite() {
        let unknown = Unknown {
            client: 1,
            session: 2,
            request: 3,
            reason: UnknownReason::Deadline,
        };
        let code = |error: CallError| failed(&error)["code"].clone();
        assert_eq!(code(unknown.into()), 0);
        assert_eq!(code(NotSent::Deadline.into()), 11);
        assert_eq!(code(NotSent::QueueFull.into()), 11);
        assert_eq!(code(Definite::NoAnswer.into()), 11);
        assert_eq!(code(Definite::OutOfSpace.into()), 14);
        assert_eq!(code(Definite::Invalid.into()), 12);
        let request = parse(r#"{"type":"write","key":1,"value":2}"#).expect("whole");
        assert_eq!(request.answer(b"what is this?")["code"], 13);
    }
}
