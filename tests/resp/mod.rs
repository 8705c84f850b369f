//! What the tests of the gateway share: a real cluster of three replicas, in this process, and a gateway in front of it.

#![allow(dead_code)] // each test file uses a part

pub mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use viewstone::client::ClientOptions;
use viewstone::resp::gateway::{Gateway, GatewayOptions};
use viewstone::resp::{Connection, Value};
use viewstone::server::embedded::EmbeddedCluster;
use viewstone::state_machine::kv::Kv;
use viewstone::storage::layout::Geometry;

/// Whatever takes longer hangs.
pub const HANG: Duration = Duration::from_secs(30);

pub const CLUSTER: u128 = 0x4e5b;

/// An empty directory of its own, on a real disk; removed at the end.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir(&path).expect("a new directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A gateway on a thread of its own. Dropping it stops it.
pub struct Running {
    pub address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn new(options: &GatewayOptions) -> Self {
        let mut gateway = Gateway::bind(options).expect("it listens");
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let address = gateway.address().to_string();
        let run = move || {
            gateway
                .run(&|| told.load(Ordering::Relaxed))
                .expect("it serves");
        };
        Self {
            address,
            stop,
            thread: Some(std::thread::spawn(run)),
        }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(&self.address, HANG).expect("it listens")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking());
    }
}

/// Three replicas and a gateway.
pub struct Stand {
    pub gateway: Running,
    pub cluster: EmbeddedCluster<(Kv,)>,
    _directory: Directory,
}

impl Stand {
    pub fn new(name: &str) -> Self {
        Self::with(name, |_| {})
    }

    /// With other options than the usual ones.
    pub fn with(name: &str, change: impl FnOnce(&mut GatewayOptions)) -> Self {
        let directory = Directory::new(name);
        let geometry = Geometry::SMALL;
        let mut cluster = EmbeddedCluster::format(CLUSTER, 3, geometry, &directory.0)
            .expect("the directory is ours");
        cluster.start().expect("it starts");
        let client = ClientOptions::new(CLUSTER, cluster.addresses().iter().cloned());
        let mut options = GatewayOptions::new("127.0.0.1:0", client);
        change(&mut options);
        Self {
            gateway: Running::new(&options),
            cluster,
            _directory: directory,
        }
    }

    pub fn connect(&self) -> Connection {
        self.gateway.connect()
    }
}

/// Sends a line of words and waits for the reply.
pub fn call(connection: &mut Connection, line: &str) -> Value {
    let words: Vec<&str> = line.split(' ').collect();
    connection
        .call(&words)
        .unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// The reply as a test writes it.
pub fn ask(connection: &mut Connection, line: &str) -> String {
    format!("{:?}", call(connection, line))
}

/// A program that the test needs is not installed. `VIEWSTONE_CLIENTS` lists those that are: CI does not overlook them.
pub fn skip(program: &str, how: &str) {
    let installed = std::env::var("VIEWSTONE_CLIENTS").unwrap_or_default();
    let is_required = installed.split_whitespace().any(|it| it == program);
    assert!(!is_required, "{program} was said to be installed");
    println!("SKIPPED: {program} is not installed ({how})");
}
