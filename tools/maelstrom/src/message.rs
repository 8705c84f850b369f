//! Maelstrom's messages: one JSON object a line, from somebody, to somebody, with a body.

use serde_json::{Map, Value, json};
use std::fmt;
use std::io::{self, Write};

/// The fields of a body.
pub type Body = Map<String, Value>;

/// A message that has come.
#[derive(Debug)]
pub struct Message {
    /// Who sent it.
    pub source: String,
    /// What it says.
    pub body: Body,
}

impl Message {
    /// The message that a line is; or why it is none.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let Value::Object(mut message) = value else {
            return Err("a message is a JSON object".to_owned());
        };
        let Some(Value::String(source)) = message.remove("src") else {
            return Err("a message has a \"src\"".to_owned());
        };
        let Some(Value::Object(body)) = message.remove("body") else {
            return Err("a message has a \"body\", which is an object".to_owned());
        };
        Ok(Self { source, body })
    }

    /// What kind of message it is; empty if it does not say.
    pub fn kind(&self) -> &str {
        self.body
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Whom to answer; none if no answer is wanted.
    pub fn caller(&self) -> Option<Caller> {
        Some(Caller {
            name: self.source.clone(),
            message: self.body.get("msg_id")?.clone(),
        })
    }
}

/// Who waits for an answer, and to which of its messages.
#[derive(Clone, Debug)]
pub struct Caller {
    name: String,
    message: Value,
}

/// Maelstrom's error codes, as far as they are used. A *definite* one says that the operation did not happen and never
/// will.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Code {
    /// Indefinite: no answer in time.
    Timeout = 0,
    /// Definite: there is no such request.
    NotSupported = 10,
    /// Definite: not now.
    TemporarilyUnavailable = 11,
    /// Definite: the request is not what its type asks for.
    MalformedRequest = 12,
    /// Indefinite: the outcome is lost.
    Crash = 13,
    /// Definite: given up.
    Abort = 14,
    /// Definite.
    KeyDoesNotExist = 20,
    /// Definite: the value is not the expected one.
    PreconditionFailed = 22,
}

/// The body of an error.
pub fn error(code: Code, text: impl fmt::Display) -> Body {
    let (code, text) = (code as u32, text.to_string());
    body(json!({ "type": "error", "code": code, "text": text }))
}

/// The body that `value`, an object, is.
pub fn body(value: Value) -> Body {
    match value {
        Value::Object(body) => body,
        other => unreachable!("{other} is no object"),
    }
}

/// Where messages go. Written at the end of a turn.
pub struct Outbox<W: Write> {
    own_name: String,
    out: io::BufWriter<W>,
}

impl<W: Write> Outbox<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            own_name: String::new(),
            out: io::BufWriter::new(out),
        }
    }

    /// What to call itself.
    pub fn set_name(&mut self, name: &str) {
        name.clone_into(&mut self.own_name);
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub fn send(&mut self, to: &str, body: &Body) -> io::Result<()> {
        let message = json!({ "src": self.own_name, "dest": to, "body": body });
        serde_json::to_writer(&mut self.out, &message)?;
        self.out.write_all(b"\n")
    }

    /// Answers a caller.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub fn answer(&mut self, caller: &Caller, mut body: Body) -> io::Result<()> {
        body.insert("in_reply_to".to_owned(), caller.message.clone());
        self.send(&caller.name, &body)
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`Outbox::send`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_is_said_to_be_none() {
        let bad = [
            "",
            "{",
            "[]",
            "7",
            "\u{0}",
            r#"{"src":"c1"}"#,
            r#"{"src":1,"body":{}}"#,
            r#"{"src":"c1","body":[]}"#,
        ];
        for line in bad {
            assert!(Message::parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(Message::parse(b"\xff\xfe").is_err());
        let nested = "[".repeat(1_000_000);
        assert!(Message::parse(nested.as_bytes()).is_err());
    }

    #[test]
    fn an_answer_names_what_it_answers() {
        let line = br#"{"src":"c1","dest":"n1","body":{"type":"echo","msg_id":7}}"#;
        let message = Message::parse(line).expect("it is one");
        assert_eq!(message.kind(), "echo");
        let caller = message.caller().expect("it has a number");
        let mut outbox = Outbox::new(Vec::new());
        outbox.set_name("n1");
        outbox
            .answer(&caller, error(Code::Abort, "why"))
            .expect("memory takes all");
        outbox.flush().expect("memory takes all");
        let written = String::from_utf8_lossy(outbox.out.get_ref()).into_owned();
        let value: Value = serde_json::from_str(&written).expect("a message is JSON");
        let body = json!({ "type": "error", "code": 14, "text": "why", "in_reply_to": 7 });
        assert_eq!(value, json!({ "src": "n1", "dest": "c1", "body": body }));
    }
}
