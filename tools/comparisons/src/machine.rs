//! What a figure is worth nothing without: the machine, how busy it was, and the commit.

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Load average over the last minute: above zero before a run, others were at work.
pub fn load() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split(' ').next().and_then(|it| it.parse().ok());
    first.unwrap_or(f64::NAN)
}

/// Processor time that this process has used so far, in seconds.
pub fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Kernel, processors, memory, file system of `directory`.
pub fn facts(directory: &Path) -> Value {
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |it| it.trim_start_matches([' ', '\t', ':']));
    let memory = read("/proc/meminfo");
    let memory = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": model,
        "memory": memory.unwrap_or_default().trim(),
        "file_system": file_system(directory),
        "load_average": load(),
    })
}

/// Type, device and options of the mount that `directory` is on.
fn file_system(directory: &Path) -> String {
    let Ok(directory) = directory.canonicalize() else {
        return "unknown".to_owned();
    };
    let mounts = read("/proc/self/mounts");
    let mut best = ("", "unknown".to_owned());
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let [Some(device), Some(point), Some(kind), Some(options)] =
            [fields.next(), fields.next(), fields.next(), fields.next()]
        else {
            continue;
        };
        if directory.starts_with(point) && point.len() >= best.0.len() {
            best = (point, format!("{kind} on {device} ({options})"));
        }
    }
    best.1
}

/// The commit that is checked out, and whether files were changed since; where git knows.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]).as_deref() {
        Some("") => commit,
        _ => format!("{commit}, changed"),
    }
}
