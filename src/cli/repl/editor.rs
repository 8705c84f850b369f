//! The terminal: a line that can be edited, statements of earlier days, names completed by Tab.

use crate::cli::statement::forms::{self, Form};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Statements that are remembered.
const HISTORY_MAX: usize = 1000;

/// Reads statements from a terminal.
pub struct Terminal {
    editor: Editor<Names, FileHistory>,
    /// None: it is not kept.
    history: Option<PathBuf>,
}

impl Terminal {
    /// With the statements of earlier times, if the file with them can be read and written.
    ///
    /// # Errors
    /// The terminal is none.
    pub fn open() -> io::Result<Self> {
        let config = Config::builder()
            .max_history_size(HISTORY_MAX)
            .map_err(io_error)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let mut editor = Editor::with_config(config).map_err(io_error)?;
        editor.set_helper(Some(Names));
        let history = history_file(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"));
        let history = history.filter(|file| load(&mut editor, file));
        Ok(Self { editor, history })
    }

    /// The next line; none at the end of the input. A line that is taken back (Ctrl-C) is empty.
    ///
    /// # Errors
    /// Of the terminal; bytes that are not UTF-8.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        let line = match self.editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Eof) => return Ok(None),
            Err(ReadlineError::Interrupted) => return Ok(Some(String::new())),
            Err(error) => return Err(io_error(error)),
        };
        let is_new = self.editor.add_history_entry(&line);
        // At once: a shell that is killed has kept it. If the file cannot be written any more, the list in memory stays.
        if let (Ok(true), Some(file)) = (is_new, &self.history) {
            let _ = self.editor.append_history(file);
        }
        Ok(Some(line))
    }
}

fn io_error(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) if error.kind() == ErrorKind::InvalidData => {
            let text = "the terminal sent bytes that are not UTF-8: write them as \\xNN";
            io::Error::new(ErrorKind::InvalidData, text)
        }
        ReadlineError::Io(error) => error,
        ReadlineError::Errno(error) => error.into(),
        error => io::Error::other(error),
    }
}

/// Whether the history is there and will be kept; its directory and itself are made if they are missing.
fn load(editor: &mut Editor<Names, FileHistory>, file: &Path) -> bool {
    let directory = file.parent().expect("it has a directory");
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    let loaded = match made {
        Ok(()) => editor.load_history(file),
        Err(error) => Err(error.into()),
    };
    match loaded {
        Ok(()) => true,
        // Made with the mode that keeps others out: values may be secrets.
        Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::NotFound => {
            editor.save_history(file).is_ok()
        }
        Err(_) => false,
    }
}

/// In the user's state directory. Relative ones are not valid, and so there is none.
fn history_file(state: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let state = state.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = state.or_else(|| Some(home?.join(".local/state")))?;
    Some(directory.join("viewstone/history"))
}

/// What Tab knows.
struct Names;

impl Helper for Names {}
impl Highlighter for Names {}
impl Validator for Names {}

impl Hinter for Names {
    type Hint = String;
}

impl Completer for Names {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(complete(&line[..position]))
    }
}

/// Where the last word begins, and what it may become, with a blank behind.
fn complete(line: &str) -> (usize, Vec<String>) {
    let at = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let (before, begun) = line.split_at(at);
    let mut words = before.split_whitespace();
    let first = words.next().map(str::to_ascii_lowercase);
    let last = words.next_back().or(first.as_deref());
    let names = |of: &dyn Fn(&Form) -> bool| {
        let names = forms::all().filter(|form| of(form)).map(|form| form.name);
        names.collect::<Vec<&str>>()
    };
    let candidates = match (first.as_deref(), last) {
        (None, _) | (Some("help"), Some("help")) => names(&|_| true),
        (Some("transaction"), Some("then" | "else" | ";")) => names(&|form| form.nests),
        (Some(name), _) => {
            forms::find(name.as_bytes()).map_or(Vec::new(), |it| it.keywords.to_vec())
        }
    };
    let begun = begun.to_ascii_lowercase();
    let fits = candidates.iter().filter(|it| it.starts_with(&begun));
    (at, fits.map(|it| format!("{it} ")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keywords_are_completed() {
        assert_eq!(complete("pu"), (0, vec!["put ".to_owned()]));
        assert_eq!(
            complete("  GE"),
            (2, vec!["get ".to_owned(), "getrange ".to_owned()])
        );
        assert_eq!(complete("").1.len(), forms::all().count());
        assert_eq!(complete("help tr"), (5, vec!["transaction ".to_owned()]));
        assert_eq!(complete("put a b ke"), (8, vec!["keep ".to_owned()]));
        assert_eq!(complete("frob a"), (5, vec![]));
        let line = "transaction if a absent then pu";
        assert_eq!(complete(line), (29, vec!["put ".to_owned()]));
        assert_eq!(complete("transaction then sc"), (17, vec![]));
        assert_eq!(
            complete("transaction if a pr"),
            (17, vec!["present ".to_owned()])
        );
        assert_eq!(complete("put \u{e9} \u{e9}"), (7, vec![]));
    }

    #[test]
    fn the_history_is_in_the_state_directory() {
        let some = |path: &str| Some(OsString::from(path));
        let file = |path: &str| Some(PathBuf::from(path));
        assert_eq!(
            history_file(some("/s"), some("/h")),
            file("/s/viewstone/history")
        );
        let at_home = file("/h/.local/state/viewstone/history");
        assert_eq!(history_file(None, some("/h")), at_home);
        assert_eq!(history_file(some("relative"), some("/h")), at_home);
        assert_eq!(history_file(some(""), some("")), None);
    }
}
