//! `repl`: statements of the built-in state machines, typed or piped in; one answer for each.

mod answer;
mod editor;
mod kv;

use super::cluster::ClusterArgs;
use super::statement::{Statement, forms, parse};
use crate::client::kv::KvClient;
use crate::client::{ClientOptions, ConnectError};
use answer::{Answer, Outcome, Style};
use editor::Terminal;
use serde_json::json;
use std::ffi::OsString;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// A longer line is an error: a message of a cluster is shorter, also where every byte is written as \xNN.
const LINE_SIZE_MAX: usize = 64 << 20;

/// Run statements on a cluster's state machines: typed, from standard input, or by --command.
///
/// Each answer is one line (of `help`, more lines that are indented):
///
///   ok ...             it was done
///   error: ...         it was not done and will not be: a definite error
///   indeterminate: ... it may have been done, once, or may still be, once: the deadline
///                      (--timeout) passed after it had been sent. It is never sent as another
///                      request: look before you repeat it
///
/// With --json, one object a line: `result` is "ok", "error" or "indeterminate", `message` says
/// what is wrong, `line` is the line of standard input; keys and values are text under their
/// name, or, if they are not UTF-8, hexadecimal digits under `NAME_hex`. What is wrong with a
/// statement does not stop the ones behind it.
///
/// At a terminal lines can be edited, Tab completes names, and statements are remembered in
/// viewstone/history in $XDG_STATE_HOME or ~/.local/state, if that can be written; one that
/// begins with a blank is not.
///
/// Examples:
///   viewstone repl --cluster 7 --addresses a:3001,b:3001,c:3001
///   viewstone repl --cluster 7 --addresses a:3001,b:3001,c:3001 --command 'put k "two words"'
///   viewstone repl --cluster 7 --addresses a:3001,b:3001,c:3001 --json < statements
///
/// Exit status, by the last statement that was answered:
///   0   ok, or there was none
///   1   a definite error; or standard input or output failed
///   2   the command line is wrong; nothing was sent
///   7   the system gives no sockets or threads
///   11  indeterminate
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ReplArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Run this instead of reading statements; may be given several times. `help` lists the statements.
    #[arg(long, value_name = "STATEMENT")]
    pub command: Vec<OsString>,
    /// Print one JSON object for each answer.
    #[arg(long)]
    pub json: bool,
    /// Say how long each answer took (`elapsed_us` in JSON). At a terminal it is on from the start.
    #[arg(long)]
    pub timing: bool,
}

/// What went wrong outside of the statements.
#[derive(Debug, thiserror::Error)]
pub enum ReplError {
    /// The client does not start.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Runs statements until there are no more, and returns the exit status.
///
/// # Errors
/// [`ReplError`].
pub fn run(args: &ReplArgs) -> Result<u8, ReplError> {
    let options = args.cluster.options();
    let mut shell = Shell {
        client: KvClient::connect(&options)?,
        options,
        style: Style {
            json: args.json,
            timing: args.timing,
            tall: false,
        },
        last: Outcome::Ok,
        out: io::stdout().lock(),
    };
    let ended = if !args.command.is_empty() {
        shell.commands(&args.command)
    } else if io::stdin().is_terminal() && io::stdout().is_terminal() {
        shell.style.tall = !args.json;
        shell.style.timing = true;
        shell.terminal()
    } else {
        shell.lines(&mut io::stdin().lock())
    };
    Ok(match ended {
        Ok(()) => shell.last.exit() as u8,
        // A reader that has gone away (`| head`) wants no more answers; what it got ended as it did.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => shell.last.exit() as u8,
        Err(error) => {
            eprintln!("error: standard input or output: {error}");
            let last = match shell.last {
                Outcome::Ok => Outcome::Error,
                last => last,
            };
            last.exit() as u8
        }
    })
}

/// Whether there is more to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Statement,
    End,
}

struct Shell<W> {
    client: KvClient,
    options: ClientOptions,
    style: Style,
    last: Outcome,
    out: W,
}

impl<W: Write> Shell<W> {
    fn commands(&mut self, commands: &[OsString]) -> io::Result<()> {
        for command in commands {
            if self.pasted(command.as_bytes())? == Next::End {
                break;
            }
        }
        Ok(())
    }

    fn terminal(&mut self) -> io::Result<()> {
        let mut terminal = Terminal::open()?;
        writeln!(
            self.out,
            "help lists the statements, Tab completes, Ctrl-D ends"
        )?;
        self.out.flush()?;
        while let Some(line) = terminal.line()? {
            if self.pasted(line.as_bytes())? == Next::End {
                break;
            }
        }
        Ok(())
    }

    /// What may be several lines.
    fn pasted(&mut self, text: &[u8]) -> io::Result<Next> {
        for line in text.split(|&byte| byte == b'\n') {
            if self.statement(line, None)? == Next::End {
                return Ok(Next::End);
            }
        }
        Ok(Next::Statement)
    }

    fn lines(&mut self, input: &mut impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let mut part = input.take(LINE_SIZE_MAX as u64 + 1);
            if part.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if line.len() > LINE_SIZE_MAX {
                skip_line(input, &line)?;
                let text = format!("a line has at most {} MiB", LINE_SIZE_MAX >> 20);
                self.answer(Answer::refused(text), Some(number), Duration::ZERO)?;
            } else if self.statement(&line, Some(number))? == Next::End {
                break;
            }
        }
        Ok(())
    }

    fn answer(&mut self, answer: Answer, line: Option<u64>, elapsed: Duration) -> io::Result<()> {
        self.last = answer.outcome;
        answer::print(&mut self.out, self.style, answer, line, elapsed)
    }

    fn statement(&mut self, text: &[u8], line: Option<u64>) -> io::Result<Next> {
        let statement = match parse(text) {
            Ok(None) => return Ok(Next::Statement),
            Ok(Some(Statement::Exit)) => return Ok(Next::End),
            Ok(Some(statement)) => statement,
            Err(wrong) => {
                let column = wrong.column(text);
                let mut answer = Answer::refused(format!("column {column}: {}", wrong.message));
                answer.fields.insert("column".to_owned(), column.into());
                self.answer(answer, line, Duration::ZERO)?;
                return Ok(Next::Statement);
            }
        };
        let begin = Instant::now();
        let answer = match &statement {
            Statement::Help(form) => help(form.map_or_else(forms::overview, forms::explain)),
            &Statement::Timing(timing) => {
                self.style.timing = timing;
                Answer::ok(String::new(), json!({ "timing": timing }))
            }
            statement => match kv::execute(&self.client, statement) {
                Ok(answer) => answer,
                Err(error) => kv::failed(&self.options, &error),
            },
        };
        self.answer(answer, line, begin.elapsed())?;
        Ok(Next::Statement)
    }
}

fn help(lines: Vec<String>) -> Answer {
    let fields = json!({ "help": lines });
    Answer::ok(String::new(), fields).with_rows(lines, "\n  ")
}

/// Reads to the end of a line of which this has been read.
fn skip_line(input: &mut impl BufRead, read: &[u8]) -> io::Result<()> {
    let mut is_over = read.last() == Some(&b'\n');
    while !is_over {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let size = end.map_or(buffer.len(), |at| at + 1);
        is_over = end.is_some() || size == 0;
        input.consume(size);
    }
    Ok(())
}
