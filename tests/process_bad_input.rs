//! Whatever is wrong with files, addresses, the kernel, the limits or the bytes on the port: the message says what was found
//! and what to do, the exit status is the documented one, and a running replica takes no harm.

#![cfg(feature = "cli")]

mod process;

use process::load::{Load, Shape, client};
use process::sandbox;
use process::{
    CLUSTER, Directory, HANG, Random, Replica, format, free_addresses, output, start, status,
    viewstone,
};
use rustix::process::Signal;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use viewstone::client::REGISTER;
use viewstone::storage::header::{
    Command as Verb, HEADER_SIZE, Header, Ping, PingClient, Request, SubHeader, Typed,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

// The exit statuses of `viewstone --help`.
const USAGE: i32 = 2;
const WRONG_FILE: i32 = 3;
const DAMAGED: i32 = 4;
const IN_USE: i32 = 5;
const PERMISSION: i32 = 6;
const RESOURCES: i32 = 7;
const UNSUPPORTED: i32 = 8;

/// The command fails with this status, and says this.
#[track_caller]
fn refused(command: &mut Command, status: i32, phrase: &str) {
    let (found, out, error) = output(command);
    let all = format!("{out}{error}");
    assert_eq!(found, status, "{all}");
    assert!(error.contains("error: "), "{all}");
    assert!(error.contains(phrase), "not said: {phrase}\n{all}");
    assert!(!all.contains("panicked") && !out.contains("ready"), "{all}");
}

fn start_solo(file: &Path) -> Command {
    start(file, &["127.0.0.1:0".to_owned()])
}

fn small(directory: &Directory) -> PathBuf {
    let file = directory.file(0);
    format(&file, 0, 1, &["--small"]);
    file
}

#[test]
fn files_that_are_not_the_right_one_are_refused() {
    let directory = Directory::new("bad-files");
    let good = fs::read(small(&directory)).expect("readable");
    let file = directory.file(9);
    refused(&mut start_solo(&file), WRONG_FILE, "does not exist");
    refused(
        &mut start_solo(&directory.0),
        WRONG_FILE,
        "neither a file nor a block device",
    );
    let mut random = vec![0; 4 << 20];
    let mut source = Random::new();
    random.fill_with(|| source.below(256) as u8);
    let cases: [(&[u8], i32, &str); 7] = [
        (&[], WRONG_FILE, "is empty"),
        (&random, WRONG_FILE, "not a Viewstone data file"),
        (&random, WRONG_FILE, "viewstone recover"),
        (&vec![0; good.len()], WRONG_FILE, "not formatted"),
        (&good[..good.len() / 2], WRONG_FILE, "it was truncated"),
        (&good[..good.len() - 4096], WRONG_FILE, "it was truncated"),
        // Too little for one whole copy.
        (&good[..1000], DAMAGED, "viewstone recover"),
    ];
    for (bytes, status, phrase) in cases {
        fs::write(&file, bytes).expect("written");
        refused(&mut start_solo(&file), status, phrase);
    }
    // All four copies of the superblock are damaged, each in another byte.
    fs::write(&file, &good).expect("written");
    let open = fs::OpenOptions::new().write(true).open(&file);
    let open = open.expect("ours");
    for copy in 0..4 {
        let at = viewstone::storage::layout::Layout::superblock_at(copy) + 300 + copy as u64;
        open.write_all_at(&[0xa5], at).expect("written");
    }
    refused(&mut start_solo(&file), DAMAGED, "viewstone recover");
}

#[test]
fn a_file_or_port_in_use_is_refused() {
    let directory = Directory::new("in-use");
    let file = small(&directory);
    let addresses = free_addresses(1);
    let replica = Replica::ready(&mut start(&file, &addresses));
    refused(
        &mut start_solo(&file),
        IN_USE,
        "is in use by another process",
    );
    // What is wrong with the list itself is said first.
    refused(
        &mut start(&file, &["nonsense".to_owned()]),
        USAGE,
        "write host:port",
    );
    // A second replica of the same index, by mistake: a copy of the file, and so the same port.
    let copy = directory.file(1);
    fs::copy(&file, &copy).expect("copied");
    refused(
        &mut start(&copy, &addresses),
        IN_USE,
        "in use: another process listens",
    );
    let mut again = viewstone();
    again.args(["format", "--small", "--replica=0", "--replica-count=1"]);
    refused(again.arg(&file), IN_USE, "exists already");
    client(&addresses, 1)
        .put(b"key", b"unharmed")
        .expect("it serves");
    replica.stop_well(Signal::TERM);
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = other.local_addr().expect("bound").to_string();
    refused(
        &mut start(&file, std::slice::from_ref(&taken)),
        IN_USE,
        "ss -ltnp",
    );
    let mut resp = viewstone();
    resp.args(["resp", "--cluster=1", "--addresses", &taken]);
    refused(resp.args(["--listen", &taken]), IN_USE, "ss -ltnp");
}

/// Their exit statuses 0 and 1 say something of a cluster, or of its writes.
#[test]
fn commands_that_could_not_ask_say_nothing_of_the_cluster() {
    let mut command = viewstone();
    command.args(["status", "--cluster=1", "--addresses", "localhost"]);
    refused(&mut command, 3, "host:port");
    let mut command = viewstone();
    command.args(["bench", "--directory", "/no/such/directory"]);
    refused(&mut command, USAGE, "/no/such/directory");
    let addresses = free_addresses(1);
    let mut command = viewstone();
    command.args(["bench", "--cluster=1", "--timeout=200ms", "--addresses"]);
    refused(command.arg(&addresses[0]), USAGE, "no primary was found");
    let mut command = viewstone();
    command.args(["resp", "--cluster=1", "--addresses", &addresses[0]]);
    refused(command.args(["--listen", "5141"]), USAGE, "write host:port");
}

#[test]
fn a_format_that_cannot_begin_says_only_why() {
    let directory = Directory::new("no-place");
    let mut command = viewstone();
    command.args(["format", "--small", "--replica=0", "--replica-count=1"]);
    let (status, _, error) = output(command.arg(directory.0.join("none/0")));
    assert_eq!(status, WRONG_FILE, "{error}");
    assert!(error.starts_with("error: the directory"), "{error}");
}

#[test]
fn wrong_address_lists_are_refused() {
    let directory = Directory::new("bad-addresses");
    let file = directory.file(1);
    format(&file, 1, 3, &["--small"]);
    let cases = [
        ("127.0.0.1:0", "names 1 replicas"),
        (
            "127.0.0.1:1,127.0.0.1:0,127.0.0.1:3,127.0.0.1:4",
            "names 4 replicas",
        ),
        ("127.0.0.1:1,127.0.0.1:1,127.0.0.1:3", "is listed twice"),
        (
            "127.0.0.1:1,nonsense,127.0.0.1:3",
            "`nonsense` is not an address",
        ),
        (
            "127.0.0.1:1,127.0.0.1:70000,127.0.0.1:3",
            "`127.0.0.1:70000` is not an address",
        ),
        ("127.0.0.1:1,::1:7,127.0.0.1:3", "is not an address"),
        ("127.0.0.1:1,,127.0.0.1:3", "`` is not an address"),
        (
            "127.0.0.1:1,no-such-name.invalid:5,127.0.0.1:3",
            "cannot be resolved",
        ),
        // Reserved for documentation: nobody's own.
        (
            "127.0.0.1:1,192.0.2.1:5,127.0.0.1:3",
            "is not an address of this machine",
        ),
    ];
    for (list, phrase) in cases {
        refused(&mut start(&file, &[list.to_owned()]), USAGE, phrase);
    }
    let (code, _, error) = output(viewstone().arg("start").arg(&file));
    assert_eq!(code, USAGE, "{error}");
    assert!(error.contains("--addresses"), "{error}");
    let impossible = [
        (["--replica=3", "--replica-count=3"], "replica"),
        (["--replica=0", "--replica-count=7"], "replica"),
    ];
    for (options, phrase) in impossible {
        let mut command = viewstone();
        command.arg("format").args(options).arg(directory.file(5));
        refused(&mut command, USAGE, phrase);
    }
}

/// Waits until the process has written this to standard error.
fn wait_for_line(replica: &Replica, phrase: &str) {
    let begin = Instant::now();
    while !replica.errors().contains(phrase) {
        assert!(
            begin.elapsed() < HANG,
            "not said: {phrase}\n{}",
            replica.errors()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn strangers_among_the_replicas_are_named_and_do_not_take_part() {
    let directory = Directory::new("strangers");
    let one_with = |name: usize, cluster: &str, replica: &str, more: &[&str]| {
        let file = directory.file(name);
        let mut command = viewstone();
        command.args(["format", "--small", "--cluster", cluster]);
        command.args(["--replica", replica, "--replica-count", "2"]);
        let (status, _, error) = output(command.args(more).arg(&file));
        assert_eq!(status, 0, "{error}");
        file
    };
    let first = one_with(0, "1", "0", &[]);
    let cases = [
        (one_with(1, "2", "1", &[]), "another cluster"),
        (
            one_with(2, "1", "1", &["--slots", "128"]),
            "formatted differently",
        ),
    ];
    for (second, phrase) in cases {
        let addresses = free_addresses(2);
        let mut pair = [&first, &second].map(|file| Replica::spawn(&mut start(file, &addresses)));
        for replica in &pair {
            replica.wait_ready();
        }
        wait_for_line(&pair[1], phrase);
        pair.iter_mut().for_each(Replica::assert_well);
        for replica in pair {
            replica.stop_well(Signal::TERM);
        }
    }
    // The lists disagree about the order: both believe that the same address is theirs, or find the wrong replica.
    let second = one_with(3, "1", "1", &[]);
    let addresses = free_addresses(3);
    let lists = [
        [addresses[0].clone(), addresses[1].clone()],
        [addresses[2].clone(), addresses[0].clone()],
    ];
    let zero = Replica::ready(&mut start(&first, &lists[0]));
    refused(&mut start(&second, &lists[1]), IN_USE, "in use");
    zero.stop_well(Signal::TERM);
}

#[test]
fn a_client_of_another_cluster_is_told_so() {
    let directory = Directory::new("foreign-client");
    let file = small(&directory);
    let addresses = free_addresses(1);
    let mut replica = Replica::ready(&mut start(&file, &addresses));
    for (verb, more) in [("status", None), ("repl", Some("--command=get \"key\""))] {
        let mut command = viewstone();
        command.args([verb, "--cluster=5", "--timeout=1s"]);
        command.args(["--addresses", &addresses[0]]).args(more);
        let (status, out, error) = output(&mut command);
        let all = format!("{out}{error}");
        let expected = if verb == "status" { 2 } else { 1 };
        assert_eq!(status, expected, "{all}");
        assert!(all.contains("another cluster"), "{all}");
    }
    wait_for_line(&replica, "another cluster");
    replica.assert_well();
    assert_eq!(status(&addresses).0, 0);
    replica.stop_well(Signal::TERM);
}

#[test]
fn too_little_memory_is_refused_at_the_start_and_nowhere_else() {
    let directory = Directory::new("memory-limits");
    let file = small(&directory);
    let phrases = [
        (libc::RLIMIT_AS, "RLIMIT_AS"),
        (libc::RLIMIT_DATA, "RLIMIT_DATA"),
    ];
    for (resource, phrase) in phrases {
        // From hopeless to plenty: each either is refused or serves, and none dies on its way.
        let mut served = false;
        for mib in (24..=96).step_by(4) {
            let mut command = start_solo(&file);
            sandbox::with_limit(&mut command, resource, mib << 20);
            if served {
                continue;
            }
            let (probe, out, error) = run_briefly(&mut command);
            served = out.contains("ready");
            if served {
                assert_eq!(probe, 0, "{mib} MiB: {error}");
            } else {
                assert_eq!(probe, RESOURCES, "{mib} MiB: {error}");
                assert!(error.contains(phrase), "{error}");
            }
        }
        assert!(served, "96 MiB are enough");
    }
}

/// Runs a replica until it has said whether it is ready, and stops it: its status, output and errors.
fn run_briefly(command: &mut Command) -> (i32, String, String) {
    use std::process::Stdio;
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut first = [0; 256];
    let out = child.stdout.as_mut().expect("piped");
    let size = out.read(&mut first).expect("readable");
    if size > 0 {
        let id = child.id().cast_signed();
        let kill = Command::new("kill").arg(id.to_string()).status();
        assert!(kill.expect("there is a kill").success());
    }
    let rest = child.wait_with_output().expect("our child");
    let out = String::from_utf8_lossy(&first[..size]).into_owned();
    let status = rest.status;
    let error = String::from_utf8_lossy(&rest.stderr).into_owned();
    (
        status.code().unwrap_or_else(|| panic!("{status}: {error}")),
        out,
        error,
    )
}

#[test]
fn a_kernel_without_io_uring_is_told() {
    let directory = Directory::new("no-uring");
    let file = small(&directory);
    let cases = [
        (libc::EPERM, "seccomp profile"),
        (libc::ENOSYS, "no io_uring"),
    ];
    for (errno, phrase) in cases {
        let mut command = start_solo(&file);
        sandbox::without_io_uring(&mut command, errno);
        refused(&mut command, UNSUPPORTED, phrase);
    }
    // Nothing was harmed.
    Replica::ready(&mut start_solo(&file)).stop_well(Signal::TERM);
}

#[test]
fn file_systems_without_direct_access_or_room_are_refused() {
    if !sandbox::is_root() {
        println!("skipped: mounting needs root");
        return;
    }
    let directory = Directory::new("file-systems");
    let binary = env!("CARGO_BIN_EXE_viewstone");
    let format = format!("{binary} format --small --replica=0 --replica-count=1 \"$0/0\"");
    let start = format!("{binary} start --log-level=warn --addresses=127.0.0.1:0");
    // tmpfs accepts O_DIRECT, ramfs does not.
    let script = format!("{format} && exec {start} \"$0/0\"");
    let mut command = sandbox::with_file_system("ramfs", "mode=755", &directory.0, &script);
    refused(&mut command, UNSUPPORTED, "without O_DIRECT");
    let script = format!("{format} && exec timeout -s TERM 1 {start} --development \"$0/0\"");
    let mut command = sandbox::with_file_system("ramfs", "mode=755", &directory.0, &script);
    let (_, out, error) = output(&mut command);
    assert!(
        out.contains("ready") && out.contains("stopped"),
        "{out}{error}"
    );
    let script = format!("{format}; echo $? left: $(ls -A \"$0\")");
    let mut command = sandbox::with_file_system("tmpfs", "size=8m", &directory.0, &script);
    let (_, out, error) = output(&mut command);
    assert!(error.contains("no space for"), "{error}");
    assert_eq!(out.trim(), format!("{RESOURCES} left:"), "{error}");
}

#[test]
fn an_ordinary_user_with_a_small_lock_limit_is_warned_once_and_served() {
    if !sandbox::is_root() {
        println!("skipped: this user is no other");
        return;
    }
    let directory = Directory::new("nobody");
    let binary = directory.0.join("viewstone");
    fs::copy(env!("CARGO_BIN_EXE_viewstone"), &binary).expect("copied");
    for path in [&directory.0, &binary] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    let mut probe = Command::new(&binary);
    sandbox::as_nobody(&mut probe);
    if probe.arg("version").output().is_err() {
        println!("skipped: nobody may not enter {}", directory.0.display());
        return;
    }
    let file = small(&directory);
    let start = |limit: u64, more: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(["start", "--addresses=127.0.0.1:0"]);
        command.args(more).arg(&file);
        sandbox::with_limit(&mut command, libc::RLIMIT_MEMLOCK, limit);
        sandbox::as_nobody(&mut command);
        command
    };
    // The file is another user's.
    refused(
        &mut start(8 << 20, &[]),
        PERMISSION,
        "no permission to open",
    );
    std::os::unix::fs::chown(&file, Some(sandbox::NOBODY), None).expect("root may");
    refused(
        &mut start(8 << 20, &["--require-locked"]),
        RESOURCES,
        "RLIMIT_MEMLOCK is 8192 KiB",
    );
    // The kernel's default limit: enough for the ring, not for the memory.
    let replica = Replica::spawn(&mut start(8 << 20, &[]));
    let address = replica.wait_ready();
    client(&[address], 1)
        .put(b"key", b"value")
        .expect("it serves");
    wait_for_line(&replica, "RLIMIT_MEMLOCK is 8192 KiB");
    assert_eq!(replica.errors().matches("RLIMIT_MEMLOCK").count(), 1);
    replica.stop_well(Signal::TERM);
    // Not even enough for the ring.
    refused(&mut start(16 << 10, &[]), RESOURCES, "LimitMEMLOCK");
}

fn sealed<T: Typed>(header: T, body: &[u8]) -> Vec<u8> {
    let mut header = Header::read_from_bytes(header.as_bytes()).expect("256 bytes");
    header.frame.size = (HEADER_SIZE + body.len()) as u32;
    header.seal(body);
    [header.as_bytes(), body].concat()
}

fn hello(cluster: u128) -> Vec<u8> {
    let mut ping = PingClient::new(cluster, 0, 0);
    ping.client = 5;
    sealed(ping, &[])
}

/// A register, as the library would send it.
fn request(size: usize) -> Vec<u8> {
    let mut sub = SubHeader::new_zeroed();
    (sub.client, sub.operation) = (5, REGISTER);
    sub.size = size as u32;
    let mut request = Request::new(CLUSTER, 0, 0);
    request.client = 5;
    let mut body = sub.as_bytes().to_vec();
    body.resize(body.len() + size.next_multiple_of(16), 0);
    sealed(request, &body)
}

/// Bytes after which a replica must close the connection.
fn bad_bytes(random: &mut Random) -> Vec<u8> {
    let edit = |bytes: &mut Vec<u8>, size: u32| {
        let mut header = Header::read_from_bytes(&bytes[..HEADER_SIZE]).expect("256 bytes");
        header.frame.size = size;
        header.frame.checksum = header.checksum_of_bytes();
        bytes[..HEADER_SIZE].copy_from_slice(header.as_bytes());
    };
    let mut after_hello = hello(CLUSTER);
    match random.below(9) {
        // Noise; at least a header's worth.
        0 => (0..300 + random.below(9000))
            .map(|_| random.below(256) as u8)
            .collect(),
        1 => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20),
        2 => hello(CLUSTER + 1),
        // A size beyond every bound, or below a header's, under a right sum.
        3 => {
            edit(&mut after_hello, u32::MAX - random.below(1 << 20) as u32);
            after_hello
        }
        4 => {
            edit(&mut after_hello, random.below(HEADER_SIZE as u64) as u32);
            after_hello
        }
        // A replica that this cluster of one does not have.
        5 => {
            let mut ping = Ping::new(CLUSTER, 0, 1);
            (ping.replica_count, ping.file) = (1, 1);
            sealed(ping, &[])
        }
        // A good greeting, and then one bit of a request is wrong, anywhere in it.
        6 => {
            let mut bytes = request(random.below(5000) as usize);
            let bit = random.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            [after_hello, bytes].concat()
        }
        // A good greeting, and then a message that clients may not send.
        7 => {
            let mut ping = Ping::new(CLUSTER, 0, 0);
            (ping.replica_count, ping.file) = (1, 1);
            assert_eq!(ping.header().command(), Some(Verb::Ping));
            [after_hello, sealed(ping, &[])].concat()
        }
        // A command that does not exist.
        _ => {
            let noise = random.below(200);
            after_hello
                .iter_mut()
                .skip(16)
                .for_each(|byte| *byte = byte.wrapping_add(noise as u8 | 1));
            after_hello
        }
    }
}

/// The other end closes the connection, after whatever it had to say before.
fn assert_closed(mut stream: TcpStream, what: &str) {
    stream.set_read_timeout(Some(HANG)).expect("settable");
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            Err(error) => panic!("{what}: still open: {error}"),
        }
    }
}

#[test]
fn bad_bytes_on_the_port_close_their_connection_and_harm_nobody() {
    let directory = Directory::new("bad-bytes");
    let file = small(&directory);
    let addresses = free_addresses(1);
    let mut replica = Replica::ready(&mut start(&file, &addresses));
    let shape = Shape {
        writers: 4,
        value_size: 4 << 10,
        pause: Duration::from_millis(2),
        short_deadlines: false,
    };
    let load = Load::start(&addresses, shape);
    load.wait_for_more(200);
    let connect = || {
        let stream = TcpStream::connect(&addresses[0]).expect("it listens");
        stream.set_nodelay(true).expect("settable");
        stream
    };
    let mut random = Random::new();
    let before = replica.memory_kib("VmRSS");
    let begin = Instant::now();
    // These begin well and never end: half a header, half a body, nothing at all. More of them than strangers may wait.
    let mut halves = Vec::new();
    for number in 0..100 {
        let mut stream = connect();
        let bytes = match number % 3 {
            0 => hello(CLUSTER)[..100].to_vec(),
            1 => [hello(CLUSTER), request(4000)[..2000].to_vec()].concat(),
            _ => Vec::new(),
        };
        stream.write_all(&bytes).expect("connected");
        halves.push(stream);
    }
    load.wait_for_more(50);
    for stream in halves {
        assert_closed(stream, "half a frame");
    }
    println!("100 halves: closed after {:?}", begin.elapsed());
    let rounds = process::rounds(5) * 200;
    let begin = Instant::now();
    for round in 0..rounds {
        let bytes = bad_bytes(&mut random);
        let mut stream = connect();
        // It may close before all is written.
        let _ = stream.write_all(&bytes);
        assert_closed(stream, &format!("round {round}"));
    }
    println!("{rounds} bad connections: {:?}", begin.elapsed());
    let after = replica.memory_kib("VmRSS");
    println!("VmRSS {before} KiB before, {after} KiB after");
    assert!(after <= before + before / 100, "the memory grows");
    load.wait_for_more(100);
    load.finish();
    replica.assert_well();
    assert!(replica.errors().contains("connection with 127.0.0.1"));
    replica.stop_well(Signal::TERM);
}
