//! The released binary: `viewstone resp`, and `viewstone start --resp`.

mod process;
mod resp;

use process::{CLUSTER, Directory, format, free_addresses, output, start, viewstone};
use resp::{HANG, ask};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use viewstone::resp::Connection;

/// A process that says where it listens. Dropping it kills it.
struct Serving {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Serving {
    fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it writes lines");
        line.trim_end().to_owned()
    }

    /// Waits for the line that names the gateway's address.
    fn gateway(&mut self) -> Connection {
        let line = self.line();
        let address = line.strip_prefix("ready resp=");
        let address = address.unwrap_or_else(|| panic!("{line}"));
        Connection::open(address, HANG).expect("it listens")
    }

    /// SIGTERM, after which it ends well.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our child");
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                assert_eq!(status.code(), Some(0), "{status}");
                return;
            }
            assert!(begin.elapsed() < HANG, "SIGTERM is ignored");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_replica_may_have_a_gateway_and_there_may_be_others() {
    let directory = Directory::new("resp-binary");
    let addresses = free_addresses(3);
    let mut replicas = Vec::new();
    for replica in 0..3 {
        let file = directory.file(replica);
        format(&file, replica, 3, &["--small"]);
        let mut command = start(&file, &addresses);
        command.args(["--development", "--resp", "127.0.0.1:0"]);
        replicas.push(Serving::spawn(&mut command));
    }
    let mut connections: Vec<Connection> = replicas.iter_mut().map(Serving::gateway).collect();
    for replica in &mut replicas {
        let line = replica.line();
        assert!(line.starts_with("ready replica="), "{line}");
    }
    let mut alone = viewstone();
    alone.args([
        "resp",
        "--cluster",
        &CLUSTER.to_string(),
        "--listen",
        "127.0.0.1:0",
    ]);
    alone.args(["--addresses", &addresses.join(",")]);
    let mut alone = Serving::spawn(&mut alone);
    connections.push(alone.gateway());
    // All see one store.
    for (number, connection) in connections.iter_mut().enumerate() {
        assert_eq!(ask(connection, "INCR n"), format!(":{}", number + 1));
    }
    alone.stop();
    for replica in replicas {
        replica.stop();
    }
}

#[test]
fn an_address_in_use_is_told_with_its_exit_status() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let mut command = viewstone();
    command.args([
        "resp",
        "--cluster",
        "1",
        "--addresses",
        "127.0.0.1:1",
        "--listen",
        &address,
    ]);
    let (status, _, error) = output(&mut command);
    assert_eq!(status, 5, "{error}");
    assert!(error.contains(&address), "{error}");
    let mut command = viewstone();
    command.args([
        "resp",
        "--cluster",
        "1",
        "--addresses",
        "nonsense",
        "--listen",
        "127.0.0.1:0",
    ]);
    let (status, _, error) = output(&mut command);
    assert_eq!(status, 2, "{error}");
}
