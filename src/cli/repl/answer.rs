//! An answer: one line of words, or one JSON object.

use crate::cli::Exit;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::time::Duration;

/// How a statement ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It did what it says.
    Ok,
    /// It had no effect and will have none.
    Error,
    /// It may have had its effect, once, or may still have it.
    Indeterminate,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Indeterminate => "indeterminate",
        }
    }

    /// The exit status of a shell whose last statement ended so.
    pub fn exit(self) -> Exit {
        match self {
            Self::Ok => Exit::Ok,
            Self::Error => Exit::Failed,
            Self::Indeterminate => Exit::Indeterminate,
        }
    }
}

/// What is said of a statement.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub outcome: Outcome,
    /// In words, on one line.
    pub text: String,
    /// More of it, if it is a list: words, each on one line.
    pub rows: Vec<String>,
    /// Between the rows if they are to stand on one line.
    pub joint: &'static str,
    /// The same in JSON, beside `result` and `message`.
    pub fields: Map<String, Value>,
}

impl Answer {
    /// The statement did what it says. `fields` is an object.
    pub fn ok(text: String, fields: Value) -> Self {
        let Value::Object(fields) = fields else {
            unreachable!("fields are an object")
        };
        Self {
            outcome: Outcome::Ok,
            text,
            rows: Vec::new(),
            joint: " ",
            fields,
        }
    }

    /// It did nothing.
    pub fn refused(text: String) -> Self {
        Self {
            outcome: Outcome::Error,
            ..Self::ok(text, Value::Object(Map::new()))
        }
    }

    /// With a list.
    pub fn with_rows(self, rows: Vec<String>, joint: &'static str) -> Self {
        Self {
            rows,
            joint,
            ..self
        }
    }
}

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// As JSON.
    pub json: bool,
    /// With the time each took.
    pub timing: bool,
    /// For eyes: each row of a list on a line of its own.
    pub tall: bool,
}

/// Prints an answer to the statement on this line of the input, if the input has numbered lines.
pub fn print(
    out: &mut impl Write,
    style: Style,
    answer: Answer,
    line: Option<u64>,
    elapsed: Duration,
) -> io::Result<()> {
    let (outcome, mut text) = (answer.outcome, answer.text);
    if style.json {
        let mut object = answer.fields;
        object.insert("result".to_owned(), outcome.word().into());
        if outcome != Outcome::Ok {
            object.insert("message".to_owned(), text.into());
        }
        if let Some(line) = line {
            object.insert("line".to_owned(), line.into());
        }
        if style.timing {
            let elapsed = elapsed.as_micros() as u64;
            object.insert("elapsed_us".to_owned(), elapsed.into());
        }
        writeln!(out, "{}", Value::Object(object))?;
        return out.flush();
    }
    let joint = if style.tall { "\n  " } else { answer.joint };
    let mut rows = String::new();
    for row in &answer.rows {
        rows.push_str(joint);
        rows.push_str(row);
    }
    let took = if style.timing {
        format!(" ({:.3} ms)", elapsed.as_secs_f64() * 1e3)
    } else {
        String::new()
    };
    if outcome == Outcome::Ok {
        text.insert_str(0, if text.is_empty() { "ok" } else { "ok " });
    } else {
        let line = line.map_or_else(String::new, |line| format!("line {line}: "));
        text = format!("{}: {line}{text}", outcome.word());
    }
    // The time stands at the end of one line, but above a list.
    if style.tall {
        writeln!(out, "{text}{took}{rows}")?;
    } else {
        writeln!(out, "{text}{rows}{took}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn printed(style: (bool, bool, bool), answer: Answer, line: Option<u64>) -> String {
        let (json, timing, tall) = style;
        let style = Style { json, timing, tall };
        let mut out = Vec::new();
        let elapsed = Duration::from_micros(1_234);
        print(&mut out, style, answer, line, elapsed).expect("memory takes all");
        String::from_utf8(out).expect("text")
    }

    fn list() -> Answer {
        let rows = vec!["a".to_owned(), "b".to_owned()];
        Answer::ok("2".to_owned(), json!({ "n": 2 })).with_rows(rows, "; ")
    }

    #[test]
    fn an_answer_is_one_line_or_one_object() {
        assert_eq!(
            printed((false, false, false), list(), Some(7)),
            "ok 2; a; b\n"
        );
        assert_eq!(
            printed((false, true, false), list(), None),
            "ok 2; a; b (1.234 ms)\n"
        );
        assert_eq!(
            printed((false, true, true), list(), None),
            "ok 2 (1.234 ms)\n  a\n  b\n"
        );
        let empty = Answer::ok(String::new(), json!({}));
        assert_eq!(printed((false, false, false), empty, None), "ok\n");
        let wrong = || Answer::refused("no".to_owned());
        assert_eq!(
            printed((false, false, false), wrong(), Some(7)),
            "error: line 7: no\n"
        );
        assert_eq!(
            printed((true, true, false), wrong(), Some(7)),
            "{\"elapsed_us\":1234,\"line\":7,\"message\":\"no\",\"result\":\"error\"}\n"
        );
        assert_eq!(
            printed((true, false, true), list(), None),
            "{\"n\":2,\"result\":\"ok\"}\n"
        );
    }
}
