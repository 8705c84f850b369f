//! The real binary on real files: a directory of its own, a replica that runs in it, and a client.

#![allow(dead_code)] // each test file uses a part

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use viewstone::client::ClientOptions;
use viewstone::client::kv::KvClient;
use viewstone::server::data_file::peek;
use viewstone::storage::superblock::Content;

pub const CLUSTER: u128 = 0xc1;

/// An empty directory, removed at the end.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let test = std::env::current_exe().expect("a test has a path");
        let test = test.file_stem().expect("a name").to_string_lossy();
        let name = format!("{test}-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Formats the small data file of a cluster of one.
    pub fn format_solo(&self) -> PathBuf {
        let path = self.0.join("0.viewstone");
        let cluster = CLUSTER.to_string();
        let arguments = ["format", "--replica", "0", "--replica-count", "1"];
        let more = ["--journal-ack", "single", "--small", "--cluster", &cluster];
        let mut command = viewstone(&arguments);
        command.args(more).arg(&path);
        let (status, _, error) = output(command);
        assert_eq!(status, 0, "{error}");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn viewstone(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viewstone"));
    command.args(arguments);
    command
}

/// Exit status, standard output, standard error.
pub fn output(mut command: Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code().expect("it exits"), text(stdout), text(stderr))
}

/// A running replica; killed, as by a power cut of the process, when it is dropped.
pub struct Replica {
    child: Child,
    address: String,
    file: PathBuf,
}

impl Replica {
    /// Starts the replica of a cluster of one, and waits until it serves.
    pub fn start(file: &Path) -> Self {
        let mut command = viewstone(&["start", "--log-level", "error"]);
        command.args(["--addresses", "127.0.0.1:0"]).arg(file);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("a line or the end");
        let address = line.trim().rsplit_once("address=").map(|(_, it)| it);
        let address = address.unwrap_or_else(|| panic!("no ready line: {line:?}"));
        Self {
            child,
            address: address.to_owned(),
            file: file.to_path_buf(),
        }
    }

    pub fn client(&self) -> KvClient {
        let options = ClientOptions::new(CLUSTER, [self.address.clone()]);
        KvClient::connect(&options).expect("it starts")
    }

    /// Kills it, and waits until the file is free: the kernel lets go of it, and of writes in flight, when it has torn
    /// down the ring, a moment after the process is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
        let began = Instant::now();
        while peek(&self.file).expect("the file can be read").in_use {
            assert!(began.elapsed() < Duration::from_secs(30), "it stays in use");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The superblock of a file.
pub fn superblock(file: &Path) -> Content {
    let peek = peek(file).expect("the file can be read");
    peek.superblock.expect("the superblock is valid").content
}

/// Inverts the bits of a byte.
pub fn flip(file: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(file);
    let file = file.expect("the file is ours");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)
        .expect("the file is that long");
    file.write_all_at(&[!byte[0]], at)
        .expect("the file is ours");
}
