//! Three replicas behind the gateway, over one Redis server that syncs each write to its disk, both under `redis-benchmark`.
//!
//! Redis replicates nothing here; what we do three times over the network it does once. Nothing else would be a fair sense of
//! "durable" for it: with replicas of its own it still acknowledges before they have anything.

use crate::Common;
use crate::report::{Goal, Ratio, Report, heading, row};
use crate::subject::{Directory, Failure, failed};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use storage::layout::Geometry;
use viewstone::bench::cluster::Machines;
use viewstone::client::ClientOptions;
use viewstone::resp::gateway::{Gateway, GatewayOptions};
use viewstone::server::embedded::EmbeddedCluster;

const CLUSTER: u128 = 0x4e5b;
const REPLICAS: u8 = 3;
const VALUE_SIZE: u32 = 100;
const KEYS: u32 = 100_000;
/// Connections and pipelined commands of each, as `redis-benchmark` makes them.
const LOADS: [(u32, u32); 6] = [(1, 1), (1, 16), (64, 1), (64, 16), (512, 1), (512, 16)];
/// Commands of the first run of each load, which tells how many make a run of the length that is wanted.
const FIRST: u64 = 4_000;
const START_MAX: Duration = Duration::from_secs(10);

/// One Redis server, which syncs before it answers.
struct Redis {
    process: Child,
    port: u16,
}

impl Redis {
    fn start(directory: &Directory) -> Result<Self, Failure> {
        let free = TcpListener::bind("127.0.0.1:0").map_err(failed("a port for Redis"))?;
        let port = free
            .local_addr()
            .map_err(failed("a port for Redis"))?
            .port();
        drop(free);
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--save", "", "--loglevel", "warning", "--dir"])
            .arg(&directory.0)
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed("redis-server"))?;
        let redis = Self { process, port };
        await_pong(port)?;
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Three replicas, and a gateway on a thread of its own.
struct Ours {
    cluster: EmbeddedCluster<Machines>,
    port: u16,
    stop: Arc<AtomicBool>,
    gateway: Option<JoinHandle<()>>,
}

impl Ours {
    fn start(directory: &Directory) -> Result<Self, Failure> {
        let mut cluster =
            EmbeddedCluster::format(CLUSTER, REPLICAS, Geometry::DEFAULT, &directory.0)
                .map_err(failed("format"))?;
        cluster.start().map_err(failed("start"))?;
        let client = ClientOptions::new(CLUSTER, cluster.addresses().iter().cloned());
        let options = GatewayOptions::new("127.0.0.1:0", client);
        let mut gateway = Gateway::bind(&options).map_err(failed("the gateway"))?;
        let port = gateway.address().port();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let gateway = std::thread::spawn(move || {
            if let Err(error) = gateway.run(&|| told.load(Ordering::Relaxed)) {
                eprintln!("comparisons: the gateway ended: {error}");
            }
        });
        let ours = Self {
            cluster,
            port,
            stop,
            gateway: Some(gateway),
        };
        await_pong(port)?;
        Ok(ours)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(gateway) = self.gateway.take() {
            let _ = gateway.join();
        }
        let _ = self.cluster.stop();
    }
}

/// Until a SET is answered.
fn await_pong(port: u16) -> Result<(), Failure> {
    let begin = Instant::now();
    loop {
        let answered = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(START_MAX))?;
            stream.write_all(b"SET ready yes\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            Ok(answer == *b"+OK\r\n")
        });
        match answered {
            Ok(true) => return Ok(()),
            _ if begin.elapsed() < START_MAX => std::thread::sleep(Duration::from_millis(20)),
            Ok(false) => return Err(format!("port {port} refuses a SET")),
            Err(error) => return Err(format!("port {port} does not serve: {error}")),
        }
    }
}

/// One run of `redis-benchmark`: commands a second, and median and 99th percentile of a command's time in milliseconds.
fn run(
    port: u16,
    command: &str,
    (connections, pipeline): (u32, u32),
    count: u64,
) -> Result<[f64; 3], Failure> {
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "--csv"])
        .args(["-t", command, "-n", &count.to_string()])
        .args(["-c", &connections.to_string(), "-P", &pipeline.to_string()])
        .args(["-r", &KEYS.to_string(), "-d", &VALUE_SIZE.to_string()])
        .output()
        .map_err(failed("redis-benchmark"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let failure = || format!("redis-benchmark printed no figures: {text}{errors}");
    if !output.status.success() || text.contains("Error") || errors.contains("Error") {
        return Err(failure());
    }
    // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
    let row = text.lines().last().unwrap_or_default();
    let cells: Vec<_> = row.split(',').map(|cell| cell.trim_matches('"')).collect();
    let number = |index: usize| {
        let cell: Option<&&str> = cells.get(index);
        cell.and_then(|cell| cell.parse::<f64>().ok())
            .ok_or_else(failure)
    };
    Ok([number(1)?, number(4)?, number(6)?])
}

#[expect(clippy::cast_sign_loss, reason = "a rate is not negative")]
fn commands_in(duration: Duration, rate: f64) -> u64 {
    (rate * duration.as_secs_f64()) as u64
}

const COLUMNS: [&str; 9] = [
    "command",
    "connections",
    "pipeline",
    "ours /s",
    "p50 ms",
    "p99 ms",
    "redis /s",
    "p50 ms",
    "p99 ms",
];

/// Compares SET and GET, a row for each run.
pub fn redis(common: &Common) -> Result<Report, Failure> {
    let directory = Directory::new(&common.directory)?;
    let ours = Ours::start(&directory)?;
    let theirs = Redis::start(&directory)?;
    let ports = [ours.port, theirs.port];
    let mut rows = vec![heading(COLUMNS)];
    let mut ratios = Vec::new();
    for command in ["set", "get"] {
        for load in LOADS {
            let mut counts = [FIRST; 2];
            for (count, port) in counts.iter_mut().zip(ports) {
                let rate = run(port, command, load, FIRST)?[0];
                *count = commands_in(common.duration, rate).max(FIRST);
            }
            let mut of_load = Vec::new();
            for round in 0..common.rounds {
                let mut figures = [[0.0; 3]; 2];
                for step in 0..2 {
                    // Whoever comes second meets a warmer machine: they change places.
                    let which = (step + round as usize) % 2;
                    figures[which] = run(ports[which], command, load, counts[which])?;
                }
                let [ours, theirs] = figures;
                of_load.push(ours[0] / theirs[0]);
                rows.push(row([
                    command.to_uppercase(),
                    load.0.to_string(),
                    load.1.to_string(),
                    format!("{:.0}", ours[0]),
                    format!("{:.2}", ours[1]),
                    format!("{:.2}", ours[2]),
                    format!("{:.0}", theirs[0]),
                    format!("{:.2}", theirs[1]),
                    format!("{:.2}", theirs[2]),
                ]));
            }
            let name = format!(
                "{} a second over Redis, {} connections, pipeline {}",
                command.to_uppercase(),
                load.0,
                load.1
            );
            let goal = (load.0 >= 64).then_some(Goal::AtLeast(1.0));
            ratios.push(Ratio::median(&name, &of_load, goal));
        }
    }
    Ok(Report {
        name: "redis",
        parameters: json!({
            "ours": "three replicas, default geometry, and a gateway, on threads of this process",
            "redis": "one redis-server, appendonly, appendfsync always, no replicas",
            "load": format!("redis-benchmark, values of {VALUE_SIZE} B, {KEYS} keys drawn by chance"),
            "seconds_each": common.duration.as_secs_f64(),
            "rounds": common.rounds,
        }),
        rows,
        ratios,
    })
}
