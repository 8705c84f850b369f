//! Figures without a counterpart: how long it takes to format and to start, and what a put costs in bytes on the disk.

use crate::Common;
use crate::report::{Ratio, Report, heading, row};
use crate::subject::{Failure, Load, Subject};
use serde_json::json;
use std::time::{Duration, Instant};
use storage::layout::Geometry;
use viewstone::bench::ledger::KEY_SIZE_MIN;
use viewstone::bench::load::Stop;
use viewstone::bench::measure::human_bytes;

const GEOMETRY: Geometry = Geometry::DEFAULT;

/// One put through a fresh client: until it is answered, the session's opening included.
const ONE_PUT: Load = Load {
    clients: 1,
    value_size: 100,
    keys: 1,
    batch: 1,
    rate: None,
    stop: Stop::Count(1),
};

const START_COLUMNS: [&str; 8] = [
    "round",
    "format s",
    "empty: ready s",
    "first answer s",
    "full: ready s",
    "first answer s",
    "values",
    "data file",
];

const START_NAMES: [&str; 5] = [
    "seconds to format",
    "seconds until ready, empty",
    "seconds until the first put is answered, empty",
    "seconds until ready, full",
    "seconds until the first put is answered, full",
];

/// Time to format and to start one replica of the default geometry, empty and with a state that is nearly full.
pub fn start(common: &Common) -> Result<Report, Failure> {
    const VALUE_SIZE: usize = 16 << 10;
    // A value takes five pages with its version; seven eighths of the state hold so many.
    let keys = GEOMETRY.state_size as usize / 8 * 7 / (5 * 4096);
    let mut rows = vec![heading(START_COLUMNS)];
    let mut times: [Vec<f64>; 5] = Default::default();
    let mut timed = |index: usize, elapsed: Duration| {
        times[index].push(elapsed.as_secs_f64());
        format!("{:.2}", elapsed.as_secs_f64())
    };
    for round in 0..common.rounds {
        let begin = Instant::now();
        let mut subject = Subject::format(1, GEOMETRY, &common.directory)?;
        let format = timed(0, begin.elapsed());
        let begin = Instant::now();
        subject.start()?;
        let ready = timed(1, begin.elapsed());
        subject.load(ONE_PUT)?;
        let answered = timed(2, begin.elapsed());
        let filled = subject.load(Load {
            clients: 16,
            value_size: VALUE_SIZE,
            keys,
            // So many draws leave one key in twenty out.
            stop: Stop::Count(3 * keys as u64),
            ..ONE_PUT
        })?;
        subject.stop()?;
        let begin = Instant::now();
        subject.start()?;
        let full_ready = timed(3, begin.elapsed());
        subject.load(ONE_PUT)?;
        let full_answered = timed(4, begin.elapsed());
        rows.push(row([
            round.to_string(),
            format,
            ready,
            answered,
            full_ready,
            full_answered,
            format!(
                "about {} of {}",
                keys / 20 * 19,
                human_bytes(VALUE_SIZE as u64)
            ),
            human_bytes(subject.file_size()),
        ]));
        assert!(filled.operations >= keys as u64);
        subject.stop()?;
    }
    let ratios = START_NAMES.iter().zip(&times);
    Ok(Report {
        name: "start",
        parameters: json!({
            "geometry": "default",
            "rounds": common.rounds,
            "start": "in this process: the time of the `start` command but for loading the program; \
                      a killed replica executes at most 1,016 ops more",
        }),
        rows,
        ratios: ratios
            .map(|(name, values)| Ratio::median(name, values, None))
            .collect(),
    })
}

/// Bytes that one replica writes to its disk for each byte of key and value that is put.
pub fn bytes(common: &Common) -> Result<Report, Failure> {
    let mut rows = vec![heading([
        "value",
        "clients",
        "puts",
        "puts a prepare",
        "journal B/put",
        "checkpoint B/put",
        "superblock B/put",
        "disk bytes per byte put",
    ])];
    let mut ratios = Vec::new();
    for (value_size, keys) in [(100, 100_000), (4096, 16_000)] {
        for clients in [1, 64] {
            let mut subject = Subject::running(1, GEOMETRY, &common.directory)?;
            let load = Load {
                clients,
                value_size,
                keys,
                batch: 1,
                rate: None,
                stop: Stop::After(common.duration),
            };
            // Until the state has its size and checkpoints their rhythm.
            subject.load(Load {
                clients: 64,
                stop: Stop::Count(2 * keys as u64),
                ..load
            })?;
            let before = subject.footprint();
            let superblock = subject.superblock_bytes();
            let measured = subject.load(load)?;
            let after = subject.footprint();
            let puts = measured.acknowledged as f64;
            let journal = (after.journal_bytes - before.journal_bytes) as f64 / puts;
            let checkpoint = (after.checkpoint_bytes - before.checkpoint_bytes) as f64 / puts;
            let superblock = (subject.superblock_bytes() - superblock) as f64 / puts;
            let put = (KEY_SIZE_MIN + value_size) as f64;
            let all = (journal + checkpoint + superblock) / put;
            let requests = (after.requests - before.requests) as f64;
            let prepares = (after.prepares - before.prepares) as f64;
            rows.push(row([
                value_size.to_string(),
                clients.to_string(),
                measured.acknowledged.to_string(),
                format!("{:.1}", requests / prepares),
                format!("{journal:.0}"),
                format!("{checkpoint:.0}"),
                format!("{superblock:.0}"),
                format!("{all:.2}"),
            ]));
            let name =
                format!("bytes on disk per byte put, values of {value_size} B, {clients} clients");
            ratios.push(Ratio::median(&name, &[all], None));
            subject.stop()?;
        }
    }
    Ok(Report {
        name: "bytes",
        parameters: json!({
            "ours": "one replica, default geometry, closed loop; keys of 12 B, 100,000 (or 16,000 with 4 KiB values), all put before",
            "counted": "the server's own counters: both rings of the journal, grid, superblock",
            "seconds_each": common.duration.as_secs_f64(),
        }),
        rows,
        ratios,
    })
}
