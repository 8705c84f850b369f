//! One replica against raw writes to the same file system, in turns.

use crate::Common;
use crate::machine::processor_seconds;
use crate::raw::{RawFile, Sync};
use crate::report::{Goal, Ratio, Report, heading};
use crate::subject::{Failure, Load, Subject, failed};
use serde_json::json;
use storage::SECTOR_SIZE;
use storage::header::{HEADER_SIZE, SUB_HEADER_SIZE};
use storage::layout::Geometry;
use viewstone::bench::ledger::KEY_SIZE_MIN;
use viewstone::bench::load::Stop;
use viewstone::bench::measure::Latencies;
use viewstone::state_machine::Limits;
use viewstone::state_machine::kv::{value_size_max, wire::ITEM_HEADER_SIZE};

fn us(value: f64) -> String {
    format!("{value:.0}")
}

fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

fn closed_loop(common: &Common, clients: usize, value_size: usize, keys: usize) -> Load {
    Load {
        clients,
        value_size,
        keys,
        batch: 1,
        rate: None,
        stop: Stop::After(common.duration),
    }
}

const LATENCY_COLUMNS: [&str; 11] = [
    "round",
    "raw O_DSYNC p50 us",
    "p99",
    "raw linked fdatasync p50 us",
    "p99",
    "put p50 us",
    "p99",
    "p50 over O_DSYNC",
    "p99 over",
    "p50 over linked",
    "p99 over",
];

/// One run of each: times, and the ratios of the last two columns' pairs.
fn latency_round(
    common: &Common,
    raw: &mut RawFile,
    subject: &mut Subject,
    load: Load,
) -> Result<([f64; 6], [f64; 4]), Failure> {
    let quantiles = |it: &Latencies| [it.us(0.5), it.us(0.99)];
    let mut run = |sync| {
        let run = raw.run(sync, common.duration).map_err(failed("raw writes"));
        run.map(|run| quantiles(&run.latencies))
    };
    let dsync = run(Sync::Dsync)?;
    let put = quantiles(&subject.load(load)?.writes);
    let linked = run(Sync::Linked)?;
    let times = [dsync[0], dsync[1], linked[0], linked[1], put[0], put[1]];
    let over = [dsync[0], dsync[1], linked[0], linked[1]];
    let place = [0, 1, 0, 1];
    Ok((
        times,
        std::array::from_fn(|index| put[place[index]] / over[index]),
    ))
}

/// Latency of one client's durable puts over that of raw durable writes of a sector, at the places of a journal.
pub fn latency(common: &Common) -> Result<Report, Failure> {
    const VALUE_SIZE: usize = 256;
    let geometry = Geometry::DEFAULT;
    let stride = u64::from(geometry.message_size_max);
    let ring_size = u64::from(geometry.slots) * stride;
    let raw = RawFile::new(&common.directory, ring_size, SECTOR_SIZE, stride, 1);
    let mut raw = raw.map_err(failed("the raw file"))?;
    let mut subject = Subject::running(1, geometry, &common.directory)?;
    let load = closed_loop(common, 1, VALUE_SIZE, 10_000);
    let mut rows = vec![heading(LATENCY_COLUMNS)];
    let mut ratios: [Vec<f64>; 4] = Default::default();
    for round in 0..common.rounds {
        let (times, over) = latency_round(common, &mut raw, &mut subject, load)?;
        for (all, one) in ratios.iter_mut().zip(over) {
            all.push(one);
        }
        let cells = times.map(us).into_iter().chain(over.map(ratio));
        rows.push(std::iter::once(round.to_string()).chain(cells).collect());
    }
    subject.stop()?;
    let goal = Some(Goal::AtMost(1.5));
    Ok(Report {
        name: "floor-latency",
        parameters: json!({
            "ours": format!("one replica, default geometry, one client, puts of {VALUE_SIZE} B, closed loop"),
            "raw": "io_uring, one 4 KiB write in flight, O_DIRECT, 256 KiB apart in a written file of 256 MiB",
            "seconds_each": common.duration.as_secs_f64(),
            "rounds": common.rounds,
        }),
        rows,
        ratios: vec![
            Ratio::median(
                "put p50 over raw O_DIRECT|O_DSYNC write p50",
                &ratios[0],
                goal,
            ),
            Ratio::median(
                "put p99 over raw O_DIRECT|O_DSYNC write p99",
                &ratios[1],
                None,
            ),
            Ratio::median(
                "put p50 over raw write and linked fdatasync p50",
                &ratios[2],
                None,
            ),
            Ratio::median(
                "put p99 over raw write and linked fdatasync p99",
                &ratios[3],
                None,
            ),
        ],
    })
}

const THROUGHPUT_COLUMNS: [&str; 10] = [
    "round",
    "raw MB/s",
    "raw linked fdatasync MB/s",
    "few keys MB/s",
    "checkpoint MB/s",
    "many keys MB/s",
    "checkpoint MB/s",
    "few over raw",
    "many over raw",
    "cores used, few",
];

fn raw_throughput(raw: &mut RawFile, sync: Sync, common: &Common) -> Result<f64, Failure> {
    let run = raw.run(sync, common.duration);
    run.map(|run| run.bytes_per_s).map_err(failed("raw writes"))
}

/// A run of ours: bytes in a second, and processors used by client and replica together.
struct Throughput {
    journal: f64,
    checkpoint: f64,
    cores: f64,
}

impl Throughput {
    fn of(subject: &mut Subject, load: Load, prepare_size: f64) -> Result<Self, Failure> {
        let (before, processor) = (subject.footprint(), processor_seconds());
        let measured = subject.load(load)?;
        let (after, processor) = (subject.footprint(), processor_seconds() - processor);
        let seconds = measured.elapsed_ns as f64 / 1e9;
        Ok(Self {
            journal: measured.operations as f64 * prepare_size / seconds,
            checkpoint: (after.checkpoint_bytes - before.checkpoint_bytes) as f64 / seconds,
            cores: processor / seconds,
        })
    }
}

/// Bytes of prepares that one replica journals in a second, over raw durable writes of a mebibyte at the same depth.
pub fn throughput(common: &Common) -> Result<Report, Failure> {
    let geometry = Geometry::LARGE;
    let depth = geometry.pipeline_max as usize;
    let write_size = geometry.message_size_max as usize;
    let ring_size = u64::from(geometry.slots) * write_size as u64;
    let raw = RawFile::new(
        &common.directory,
        ring_size,
        write_size,
        write_size as u64,
        depth,
    );
    let mut raw = raw.map_err(failed("the raw file"))?;
    let mut subject = Subject::running(1, geometry, &common.directory)?;
    let value_size = value_size_max(&Limits::new(&geometry));
    let prepare_size = HEADER_SIZE + SUB_HEADER_SIZE + ITEM_HEADER_SIZE + KEY_SIZE_MIN + value_size;
    let prepare_size = storage::sector_ceil(prepare_size) as f64;
    let clients = 2 * depth;
    let load = |keys| closed_loop(common, clients, value_size, keys);
    let fresh_keys = geometry.state_size as usize / 8 * 5 / value_size;
    let mut rows = vec![heading(THROUGHPUT_COLUMNS)];
    let (mut few_ratios, mut many_ratios, mut bytes_ratios) = (vec![], vec![], vec![]);
    for round in 0..common.rounds {
        let dsync = raw_throughput(&mut raw, Sync::Dsync, common)?;
        let few = Throughput::of(&mut subject, load(clients), prepare_size)?;
        let linked = raw_throughput(&mut raw, Sync::Linked, common)?;
        let many = Throughput::of(&mut subject, load(fresh_keys), prepare_size)?;
        few_ratios.push(few.journal / dsync);
        many_ratios.push(many.journal / dsync);
        bytes_ratios.push((many.journal + many.checkpoint) / dsync);
        let rates = [
            dsync,
            linked,
            few.journal,
            few.checkpoint,
            many.journal,
            many.checkpoint,
        ];
        let rates = rates.map(|rate| format!("{:.0}", rate / 1e6));
        let shares = [few.journal / dsync, many.journal / dsync, few.cores].map(ratio);
        let cells = rates.into_iter().chain(shares);
        rows.push(std::iter::once(round.to_string()).chain(cells).collect());
    }
    subject.stop()?;
    Ok(Report {
        name: "floor-throughput",
        parameters: json!({
            "ours": format!(
                "one replica, large geometry, {clients} clients, puts of {value_size} B, closed loop; few keys: {clients}; \
                 many keys: {fresh_keys}, drawn by chance, so that a checkpoint holds most of what was put since the last"
            ),
            "raw": format!("io_uring, {depth} writes of 1 MiB in flight, O_DIRECT, in a written file of 1 GiB"),
            "seconds_each": common.duration.as_secs_f64(),
            "rounds": common.rounds,
        }),
        rows,
        ratios: vec![
            Ratio::median(
                "journal bytes/s, few keys, over raw O_DIRECT|O_DSYNC",
                &few_ratios,
                Some(Goal::AtLeast(0.85)),
            ),
            Ratio::median("journal bytes/s, many keys, over raw", &many_ratios, None),
            Ratio::median(
                "journal and checkpoint bytes/s, many keys, over raw",
                &bytes_ratios,
                None,
            ),
        ],
    })
}
