//! The statement shell as a process, against a replica that is one, too: answers, exit statuses, and a terminal.

#![cfg(feature = "cli")]

mod process;

use process::{CLUSTER, Directory, HANG, Replica, format, free_addresses, start, text, viewstone};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A cluster of one.
struct Stand {
    replica: Replica,
    addresses: Vec<String>,
    directory: Directory,
}

impl Stand {
    fn new(name: &str) -> Self {
        let directory = Directory::new(name);
        format(&directory.file(0), 0, 1, &["--small"]);
        let addresses = free_addresses(1);
        let replica = Replica::ready(start(&directory.file(0), &addresses).arg("--development"));
        Self {
            replica,
            addresses,
            directory,
        }
    }

    /// `viewstone repl`, not run yet; its state directory is the test's.
    fn repl(&self, more: &[&str]) -> Command {
        let mut command = repl(&self.addresses.join(","), more);
        command.env("XDG_STATE_HOME", self.directory.0.join("state"));
        command
    }

    /// Its exit status and what it answers, line by line.
    fn answers(&self, more: &[&str], input: &[u8]) -> (i32, Vec<String>) {
        answers(&mut self.repl(more), input)
    }
}

fn repl(addresses: &str, more: &[&str]) -> Command {
    let mut command = viewstone();
    command.args(["repl", "--cluster", &CLUSTER.to_string()]);
    command.args(["--addresses", addresses]).args(more);
    command
}

fn answers(command: &mut Command, input: &[u8]) -> (i32, Vec<String>) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    // It may have ended before it read all.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().expect("our child");
    let lines = text(output.stdout).lines().map(str::to_owned).collect();
    (output.status.code().expect("no signal"), lines)
}

fn objects(lines: &[String]) -> Vec<Value> {
    let object = |line: &String| serde_json::from_str(line).expect("an object a line");
    lines.iter().map(object).collect()
}

#[test]
fn each_statement_has_one_line_of_answer() {
    let stand = Stand::new("repl-lines");
    let input = b"# a comment\nput a 1\n\nput \"\\x00 \xff\" 'two words'\nget a\nscan\ngte a\n\
        incr b x\nput t x\nincr t\ntransaction if a = 1 then incr a ; get t else count\nget nothing\nhelp get\n\
        timing on\ncount\nexit\nget a";
    let (status, mut lines) = stand.answers(&[], input);
    assert_eq!(status, 0);
    let timed = lines.pop().expect("the last");
    assert!(
        timed.starts_with("ok 3 (") && timed.ends_with(" ms)"),
        "{timed}"
    );
    let timing = lines.pop().expect("and before it");
    assert!(timing.starts_with("ok ("), "{timing}");
    assert_eq!(
        lines,
        [
            "ok version 1",
            "ok version 2",
            "ok \"1\" version 1",
            "ok 2 entries \"\\x00 \\xff\"=\"two words\" \"a\"=\"1\"",
            "error: line 7: column 1: no statement 'gte': did you mean get?",
            "error: line 8: column 8: 'x' is not a whole number that can stand here; the statement is: incr KEY [N]",
            "ok version 3",
            "error: line 10: the value is not a decimal number of 64 bits",
            "ok then; 2; \"x\" version 3",
            "ok absent",
            "ok",
            "  get KEY: read a value and its version",
            "  The answer is `ok absent` if there is no such key.",
        ]
    );
}

#[test]
fn collections_have_statements() {
    let stand = Stand::new("repl-collections");
    let input = b"hset h f 1\nhset h g 'two words'\nhincr h f 4\nhgetall h\nhget h none\nget h\nstat h\n\
        sadd s b\nsadd s a\nsmembers s\nsrem s none\nlpush l 2\nlpush l 1\nrpush l 3\nlrange l 0 -1\nlpop l\n\
        zadd z 1.5 a\nzadd z -inf b\nzadd z x c\nzrange z 0 -1\nzscore z a\nscan\n\
        transaction if h present then hdel h f ; rpop l else count";
    let (status, lines) = stand.answers(&[], input);
    assert_eq!(status, 0);
    assert_eq!(
        lines,
        [
            "ok 1",
            "ok 1",
            "ok 5",
            "ok 2 members version 3 \"f\"=\"5\" \"g\"=\"two words\"",
            "ok absent",
            "error: line 6: the value is of another type",
            "ok version 3 hash of size 2 never expires",
            "ok 1",
            "ok 1",
            "ok 2 members version 5 \"a\" \"b\"",
            "ok 0",
            "ok 1",
            "ok 2",
            "ok 3",
            "ok 3 members version 8 \"1\" \"2\" \"3\"",
            "ok \"1\" and then version 9",
            "ok 1",
            "ok 1",
            "error: line 19: column 8: the statement is: zadd KEY SCORE MEMBER",
            "ok 2 members version 11 \"b\"=-inf \"a\"=1.5",
            "ok 1.5 version 11",
            "ok 4 entries \"h\"=(hash of 2) \"l\"=(list of 2) \"s\"=(set of 2) \"z\"=(sorted set of 2)",
            "ok then; 1; \"3\" and then version 13",
        ]
    );
    let (_, lines) = stand.answers(&["--json"], b"hgetall h\nzrange z 0 -1\nlrange l 0 -1");
    let objects = objects(&lines);
    let members: Vec<_> = objects.iter().map(|object| &object["members"]).collect();
    assert_eq!(
        *members[0],
        json!([{ "member": "g", "value": "two words" }])
    );
    let scored = json!([{ "member": "b", "score": "-inf" }, { "member": "a", "score": 1.5 }]);
    assert_eq!(*members[1], scored);
    assert_eq!(*members[2], json!([{ "member": "2" }]));
}

#[test]
fn scripts_get_one_object_a_line_and_the_last_statement_s_fate() {
    let stand = Stand::new("repl-json");
    let key = std::ffi::OsStr::from_bytes(b"put \xff\xfe v");
    let mut command = stand.repl(&["--json", "--command", "put k \\xe9"]);
    command.arg("--command").arg(key);
    command.args(["--command", "scan\nfrob", "--command", "get k"]);
    let (status, lines) = answers(&mut command, b"");
    let entries = json!([
        { "key": "k", "value_hex": "e9", "version": 1 },
        { "key_hex": "fffe", "value": "v", "version": 2 },
    ]);
    assert_eq!(status, 0);
    assert_eq!(
        objects(&lines),
        [
            json!({ "result": "ok", "version": 1 }),
            json!({ "result": "ok", "version": 2 }),
            json!({ "result": "ok", "entries": entries, "more": false }),
            json!({ "result": "error", "column": 1, "message": "column 1: no statement 'frob': `help` lists them" }),
            json!({ "result": "ok", "found": true, "version": 1, "value_hex": "e9" }),
        ]
    );
    let (status, lines) = stand.answers(&["--json", "--timing"], b"get k\n\nput 'k\n");
    assert_eq!((status, lines.len()), (1, 2));
    let found = objects(&lines);
    assert!(found[0]["elapsed_us"].as_u64().is_some_and(|time| time > 0));
    assert_eq!(
        (&found[0]["line"], &found[1]["line"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(found[1]["result"], "error");
    // A wrong command line is not a statement's fate.
    assert_eq!(stand.answers(&["--frob"], b"").0, 2);
    assert_eq!(
        answers(&mut repl("nowhere", &["--command", "get k"]), b"").0,
        2
    );
    // A reader that has gone away is no error.
    let mut child = stand.repl(&["--command", "help"]);
    let mut child = child
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("our child").code(), Some(0));
}

/// A shell that is given one line after another.
struct Talk {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Talk {
    fn new(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, answers }
    }

    fn ask(&mut self, line: &str) -> Value {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("it listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("it answers");
        serde_json::from_str(&answer).expect("an object")
    }

    fn end(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().expect("our child")
    }
}

#[test]
fn a_write_to_a_cluster_that_stops_is_indeterminate_and_a_read_is_not() {
    let stand = Stand::new("repl-stops");
    let shell = || Talk::new(stand.repl(&["--json", "--timeout", "1s"]));
    let (mut reads, mut writes) = (shell(), shell());
    assert_eq!(reads.ask("get a")["result"], "ok");
    assert_eq!(writes.ask("put a 1")["result"], "ok");
    stand.replica.signal(Signal::STOP);
    let begin = Instant::now();
    let unknown = writes.ask("put a 2");
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(unknown["result"], "indeterminate", "{unknown}");
    let id = unknown["client"].as_str().expect("the session's client");
    assert!(id.len() == 32 && unknown["session"].is_u64() && unknown["request"].is_u64());
    let read = reads.ask("get a");
    assert_eq!(read["result"], "error", "{read}");
    assert_eq!(writes.end().code(), Some(11));
    assert_eq!(reads.end().code(), Some(1));
    stand.replica.signal(Signal::CONT);
    // It may have been done: one or the other, and statements go on.
    let (status, lines) = stand.answers(&["--json"], b"get a\n");
    let found = objects(&lines);
    assert!(
        status == 0 && (found[0]["value"] == "1" || found[0]["value"] == "2"),
        "{lines:?}"
    );
}

#[test]
fn what_no_replica_has_had_is_a_definite_error_that_says_where_and_what_to_do() {
    let addresses = free_addresses(1);
    let mut command = repl(
        &addresses[0],
        &["--timeout", "300ms", "--command", "put a 1"],
    );
    let (status, lines) = answers(&mut command, b"");
    assert_eq!((status, lines.len()), (1, 1));
    let refused = std::format!("{}: ", addresses[0]);
    for part in [
        "error: not sent: ",
        &refused,
        "`viewstone status`",
        "--addresses",
    ] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
}

/// A shell at a terminal of its own.
struct Screen {
    child: Child,
    terminal: File,
    shown: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Screen {
    /// With the first prompt.
    fn new(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let terminal = openpt(flags).expect("a terminal");
        grantpt(&terminal).expect("ours");
        unlockpt(&terminal).expect("ours");
        let name = ptsname(&terminal, Vec::new()).expect("it has a name");
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let open = || OpenOptions::new().read(true).write(true).open(path);
        let side = || Stdio::from(open().expect("unlocked"));
        command.stdin(side()).stdout(side()).stderr(side());
        command.env("TERM", "xterm");
        let child = command.spawn().expect("the binary runs");
        let terminal = File::from(terminal);
        let mut reader = terminal.try_clone().expect("a descriptor");
        let (sender, shown) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is the end: nobody has the other side open.
            while let Ok(size) = reader.read(&mut bytes) {
                if size == 0 || sender.send(bytes[..size].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut this = Self {
            child,
            terminal,
            shown,
            seen: String::new(),
        };
        this.wait_for("> ");
        this
    }

    /// Presses keys, and waits until this is shown and, behind it, a prompt: only then the terminal takes keys as they are.
    fn press(&mut self, keys: &str, expected: &str) -> String {
        self.terminal
            .write_all(keys.as_bytes())
            .expect("it listens");
        let before = self.wait_for(expected);
        before + &self.wait_for("> ")
    }

    /// Takes what is shown up to this.
    fn wait_for(&mut self, what: &str) -> String {
        let end = loop {
            if let Some(at) = self.seen.find(what) {
                break at + what.len();
            }
            let bytes = self.shown.recv_timeout(HANG);
            let bytes = bytes.unwrap_or_else(|_| panic!("no {what:?} in {:?}", self.seen));
            self.seen += &String::from_utf8_lossy(&bytes);
        };
        let rest = self.seen.split_off(end);
        std::mem::replace(&mut self.seen, rest)
    }

    /// Ctrl-D.
    fn end(mut self) -> Option<i32> {
        self.terminal.write_all(b"\x04").expect("it listens");
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status.code();
            }
            assert!(begin.elapsed() < HANG, "it goes on: {:?}", self.seen);
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn at_a_terminal_lines_are_edited_completed_and_remembered() {
    let stand = Stand::new("repl-terminal");
    let mut screen = Screen::new(stand.repl(&[]));
    // Tab completes, the arrow goes back, Ctrl-C takes a line back.
    screen.press("pu\tword 23\u{1b}[D\u{1b}[D1\r", "ok version 1 (");
    screen.press("frob frob\u{3}", "frob frob");
    screen.press(" get word\r", "ok \"123\" version 1 (");
    screen.press("put secret 2\r", "ok version 2 (");
    let list = screen.press("scan\r", "\"word\"=\"123\"");
    assert!(
        list.contains("ok 2 entries (") && list.contains("\n  \"secret\"=\"2\""),
        "{list}"
    );
    screen.press("gte a\r", "error: column 1: no statement 'gte'");
    assert_eq!(screen.end(), Some(1));

    // Another one remembers; the line that began with a blank is not there.
    let history = stand.directory.0.join("state/viewstone/history");
    let kept = std::fs::read_to_string(&history).expect("the history");
    assert!(
        kept.ends_with("\nput word 123\nput secret 2\nscan\ngte a\n"),
        "{kept}"
    );
    let mode = std::fs::metadata(&history)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "others may not read it");
    let mut screen = Screen::new(stand.repl(&[]));
    screen.press("\u{1b}[A\u{1b}[A\r", "ok 2 entries (");
    assert_eq!(screen.end(), Some(0));
}

#[test]
fn without_a_place_for_it_no_history_is_kept() {
    let stand = Stand::new("repl-no-history");
    let file = stand.directory.0.join("a-file");
    std::fs::write(&file, "").expect("ours");
    // A directory cannot be made below a file, whoever asks.
    let mut command = stand.repl(&[]);
    command.env("XDG_STATE_HOME", &file);
    let mut screen = Screen::new(command);
    screen.press("put a 1\r", "ok version 1 (");
    screen.press("\u{1b}[A\r", "ok version 2 (");
    assert_eq!(screen.end(), Some(0));
    let made = std::fs::read_dir(&stand.directory.0).expect("ours").count();
    assert_eq!(made, 2, "the data file and that file");
}
