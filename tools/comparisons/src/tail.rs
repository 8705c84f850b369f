//! Latency of puts while checkpoints are written, over that without, in turns.

use crate::Common;
use crate::report::{Goal, Ratio, Report, heading, row};
use crate::subject::{Failure, Load, Subject};
use serde_json::json;
use std::time::Duration;
use storage::layout::Geometry;
use viewstone::bench::load::Stop;
use viewstone::bench::measure::Measurements;

/// Checkpoints every 512 ops. Its journal is as large as that of [`WITHOUT`]: a disk that has just been given more to
/// write is slower for a while, on some machines for long.
const WITH: Geometry = Geometry {
    message_size_max: 1 << 20,
    ..Geometry::DEFAULT
};

/// The first checkpoint comes after 65,536 ops: no run has as many. No batch of the load comes near the message size.
const WITHOUT: Geometry = Geometry {
    message_size_max: 8 << 10,
    slots: 1 << 17,
    ..WITH
};

const LOAD: Load = Load {
    clients: 64,
    value_size: 100,
    keys: 100_000,
    batch: 1,
    rate: None,
    stop: Stop::Count(0),
};

/// Puts in a request while the state is filled.
const FILL_BATCH: usize = 50;

/// Rest between filling and the load: what the device still does of format and filling is not to count.
const REST: Duration = Duration::from_secs(3);

/// A fresh cluster whose state holds most of the keys; then the load. Also how many checkpoints it met.
fn run(
    common: &Common,
    replicas: u8,
    geometry: Geometry,
    rate: Option<f64>,
) -> Result<(Measurements, u64), Failure> {
    let mut subject = Subject::running(replicas, geometry, &common.directory)?;
    subject.load(Load {
        batch: FILL_BATCH,
        stop: Stop::Count(2 * LOAD.keys as u64),
        ..LOAD
    })?;
    std::thread::sleep(REST);
    let before = subject.footprint().checkpoints;
    let measured = subject.load(Load {
        rate,
        stop: Stop::After(common.duration),
        ..LOAD
    })?;
    let checkpoints = subject.footprint().checkpoints - before;
    subject.stop()?;
    Ok((measured, checkpoints / u64::from(replicas)))
}

const COLUMNS: [&str; 8] = [
    "round",
    "checkpoints",
    "puts",
    "p50 us",
    "p99",
    "p99.9",
    "max",
    "p99.9 with over without",
];

/// Compares, for `replicas`, at half of what it can do at most.
pub fn checkpoint_tail(common: &Common, replicas: u8) -> Result<Report, Failure> {
    let capacity = run(common, replicas, WITH, None)?.0.throughput();
    let rate = capacity / 2.0;
    let mut rows = vec![heading(COLUMNS)];
    let (mut ratios_999, mut ratios_99) = (vec![], vec![]);
    for round in 0..common.rounds {
        // Whoever comes second meets a warmer machine: they change places.
        let mut runs = [WITH, WITHOUT];
        if round % 2 == 1 {
            runs.reverse();
        }
        let (mut with, mut without) = (None, None);
        for geometry in runs {
            let (measured, checkpoints) = run(common, replicas, geometry, Some(rate))?;
            if geometry == WITHOUT && checkpoints > 0 {
                return Err("a run without checkpoints had one: make it shorter".to_owned());
            }
            let at = |quantile| measured.writes.us(quantile);
            let cells = [at(0.5), at(0.99), at(0.999), at(1.0)].map(|us| format!("{us:.0}"));
            let [p50, p99, p999, max] = cells;
            let is_with = geometry == WITH;
            let place = if is_with { &mut with } else { &mut without };
            *place = Some([at(0.99), at(0.999)]);
            let over = match (with, without) {
                (Some(with), Some(without)) => {
                    ratios_99.push(with[0] / without[0]);
                    ratios_999.push(with[1] / without[1]);
                    format!("{:.2}", with[1] / without[1])
                }
                _ => String::new(),
            };
            rows.push(row([
                round.to_string(),
                checkpoints.to_string(),
                measured.operations.to_string(),
                p50,
                p99,
                p999,
                max,
                over,
            ]));
        }
    }
    Ok(Report {
        name: "checkpoint-tail",
        parameters: json!({
            "replicas": replicas,
            "with": "default geometry, but messages of 1 MiB: a checkpoint every 512 ops",
            "without": "the same with 131,072 slots and messages of 8 KiB, a file of the same size: none in the run",
            "load": format!(
                "{} clients, puts of {} B, {} keys, filled before; open loop at half of {capacity:.0} puts/s",
                LOAD.clients, LOAD.value_size, LOAD.keys
            ),
            "seconds_each": common.duration.as_secs_f64(),
            "rounds": common.rounds,
        }),
        rows,
        ratios: vec![
            Ratio::median(
                &format!("put p99.9 with checkpoints over without, {replicas} replicas"),
                &ratios_999,
                Some(Goal::AtMost(2.0)),
            ),
            Ratio::median("p99 over p99", &ratios_99, None),
        ],
    })
}
