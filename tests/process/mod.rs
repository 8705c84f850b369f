//! What the tests of real processes share: the released binary, its data files, its ports, and a load whose every answer
//! is checked.

#![allow(dead_code)] // each test file uses a part

pub mod cluster;
pub mod damage;
pub mod history;
pub mod linearizability;
pub mod load;
pub mod network;
pub mod sandbox;

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Whatever takes longer hangs.
pub const HANG: Duration = Duration::from_secs(30);

pub const CLUSTER: u128 = 0xc1;

/// Rounds of a test: few by default, more by `VIEWSTONE_ROUNDS`.
pub fn rounds(default: u32) -> u32 {
    let rounds = std::env::var("VIEWSTONE_ROUNDS").ok();
    rounds
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(default)
}

/// An empty directory of its own, on a real disk where temporary directories may be memory; removed at the end.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    pub fn file(&self, replica: usize) -> PathBuf {
        self.0.join(format!("{replica}.viewstone"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if thread::panicking() && std::env::var("VIEWSTONE_KEEP").is_ok() {
            eprintln!("the files are kept: {}", self.0.display());
            return;
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The released binary.
pub fn viewstone() -> Command {
    Command::new(env!("CARGO_BIN_EXE_viewstone"))
}

pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

/// Runs a command to its end: exit status, standard output, standard error. A signal is a failure, a hang too.
pub fn output(command: &mut Command) -> (i32, String, String) {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let (mut out, mut err) = (
        child.stdout.take().expect("piped"),
        child.stderr.take().expect("piped"),
    );
    let read_err = thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).expect("readable");
        text(bytes)
    });
    let read_out = thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).expect("readable");
        text(bytes)
    });
    let status = wait(&mut child, HANG);
    let (out, err) = (read_out.join(), read_err.join());
    let (out, err) = (out.expect("it reads"), err.expect("it reads"));
    let Some(status) = status else {
        panic!("it did not end within {HANG:?}:\n{out}{err}");
    };
    let code = status
        .code()
        .unwrap_or_else(|| panic!("{status}:\n{out}{err}"));
    (code, out, err)
}

/// Waits for the end; after `bound` the process is killed and there is none.
fn wait(child: &mut Child, bound: Duration) -> Option<ExitStatus> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return Some(status);
        }
        if begin.elapsed() > bound {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Formats a data file; `more` are options.
pub fn format(file: &Path, replica: usize, replica_count: usize, more: &[&str]) {
    let mut command = viewstone();
    command.args(["format", "--cluster", &CLUSTER.to_string()]);
    command.args(["--replica", &replica.to_string()]);
    command.args(["--replica-count", &replica_count.to_string()]);
    let (status, _, error) = output(command.args(more).arg(file));
    assert_eq!(status, 0, "{error}");
}

/// Addresses with free ports, below those that the system gives to outgoing connections: a client that tries to connect
/// again must not be given the very port on which its replica will listen.
pub fn free_addresses(count: usize) -> Vec<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut found = Vec::new();
    while found.len() < count {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (std::process::id().wrapping_mul(101) + number) % 20_000;
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            found.push(address);
        }
    }
    found
}

/// `viewstone start` of a file, not run yet.
pub fn start(file: &Path, addresses: &[String]) -> Command {
    let mut command = viewstone();
    command.args(["start", "--addresses", &addresses.join(",")]);
    command.arg(file);
    command
}

/// A running replica. Dropping it kills it.
pub struct Replica {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: Arc<Mutex<String>>,
    /// When it was spawned.
    pub began: Instant,
}

impl Replica {
    /// Spawns it, and does not wait.
    pub fn spawn(command: &mut Command) -> Self {
        let began = Instant::now();
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let err = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&errors);
        thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                let mut sink = sink.lock().expect("nobody panics here");
                sink.push_str(&line);
                sink.push('\n');
            }
        });
        Self {
            child,
            lines,
            errors,
            began,
        }
    }

    /// Spawns it and waits for its `ready` line.
    pub fn ready(command: &mut Command) -> Self {
        let this = Self::spawn(command);
        this.wait_ready();
        this
    }

    /// Waits for the `ready` line, and returns the address in it.
    pub fn wait_ready(&self) -> String {
        let line = self.wait_line("ready replica=");
        let address = line.split("address=").nth(1).expect("an address");
        address.to_owned()
    }

    /// Waits for the line in which a gateway says that it listens, and returns the address in it.
    pub fn wait_gateway(&self) -> String {
        let line = self.wait_line("ready resp=");
        line["ready resp=".len()..].to_owned()
    }

    /// Waits for a line that begins like this; before it only that of a gateway may come.
    fn wait_line(&self, begin: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(HANG);
            let line = line.unwrap_or_else(|_| panic!("no line '{begin}':\n{}", self.errors()));
            if line.starts_with(begin) {
                return line;
            }
            assert!(line.starts_with("ready resp="), "{line}");
        }
    }

    /// What it has written to standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().expect("nobody panics here").clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our child, not waited for yet");
    }

    /// Kills it as `kill -9` does. It must not have ended by itself.
    pub fn kill(mut self) {
        let ended = self.child.try_wait().expect("our child");
        assert_eq!(ended, None, "it ended by itself:\n{}", self.errors());
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Asks it to stop; how it ended, and after how long.
    pub fn stop(mut self, signal: Signal) -> (ExitStatus, Duration) {
        let ended = self.child.try_wait().expect("our child");
        assert_eq!(ended, None, "it ended by itself:\n{}", self.errors());
        let begin = Instant::now();
        self.signal(signal);
        let status = wait(&mut self.child, HANG);
        let status = status.unwrap_or_else(|| panic!("{signal:?} is ignored:\n{}", self.errors()));
        (status, begin.elapsed())
    }

    /// Asks it to stop, which must end well.
    pub fn stop_well(self, signal: Signal) -> Duration {
        let errors = Arc::clone(&self.errors);
        let (status, time) = self.stop(signal);
        let errors = errors.lock().expect("nobody panics here");
        assert_eq!(status.code(), Some(0), "{status}:\n{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
        time
    }

    /// Waits for its end, which nobody asked for: its exit status, and what it wrote to standard error.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let status = wait(&mut self.child, HANG);
        let status = status.unwrap_or_else(|| panic!("it goes on:\n{}", self.errors()));
        thread::sleep(Duration::from_millis(20)); // the other thread still reads its last lines
        (status.code(), self.errors())
    }

    /// It is still running, and has not complained of itself.
    pub fn assert_well(&mut self) {
        let ended = self.child.try_wait().expect("our child");
        assert_eq!(ended, None, "{}", self.errors());
        assert!(!self.errors().contains("panicked"), "{}", self.errors());
    }

    /// A field of /proc/PID/status, in KiB.
    pub fn memory_kib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.expect("the kernel knows it").trim_start_matches(':');
        let number = number.trim().trim_end_matches("kB").trim();
        number.parse().expect("a number")
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `viewstone status --json`: exit status and answer.
pub fn status(addresses: &[String]) -> (i32, serde_json::Value) {
    let mut command = viewstone();
    command.args(["status", "--json", "--timeout", "2s"]);
    command.args(["--cluster", &CLUSTER.to_string()]);
    command.args(["--addresses", &addresses.join(",")]);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the binary runs");
    let error = text(stderr);
    let code = status
        .code()
        .unwrap_or_else(|| panic!("{status}:\n{error}"));
    let answer = serde_json::from_str(&text(stdout));
    (code, answer.unwrap_or_else(|_| panic!("{error}")))
}

/// Asks for the status until `is_so` of it, and returns the time that took.
pub fn wait_for_status(
    addresses: &[String],
    what: &str,
    is_so: impl Fn(&serde_json::Value) -> bool,
) -> Duration {
    let begin = Instant::now();
    loop {
        let (_, status) = status(addresses);
        if is_so(&status) {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < HANG, "{what} never came: {status}");
    }
}

/// Smallest, middle and largest.
pub fn distribution(times: &mut [Duration]) -> String {
    assert!(!times.is_empty());
    times.sort_unstable();
    let p50 = times[times.len() / 2];
    let (min, max) = (times[0], times[times.len() - 1]);
    format!("min {min:.1?}, p50 {p50:.1?}, max {max:.1?}")
}

/// Random numbers from a seed that is printed: splitmix64, in a line, so that a schedule replays.
pub struct Random(u64);

impl Random {
    /// From `VIEWSTONE_SEED`, or else from the clock.
    pub fn new() -> Self {
        let given = std::env::var("VIEWSTONE_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = given.unwrap_or(now.expect("after 1970").subsec_nanos().into());
        println!("seed {seed} (VIEWSTONE_SEED={seed} draws the same moments)");
        Self(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// Sleeps below so many milliseconds.
    pub fn pause(&mut self, bound_ms: u64) {
        thread::sleep(Duration::from_micros(self.below(bound_ms * 1000)));
    }
}
