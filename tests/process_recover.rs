//! A replica whose file was lost comes back: by `recover`, and by `format` in its place, which is as safe. One whose file
//! was put back to an older state says so and stops.
//!
//! Real processes, real files, real ports, under load. Times are printed; only hangs are asserted.

#![cfg(feature = "cli")]

mod process;

use process::cluster::Cluster;
use process::load::{Load, Shape};
use process::{CLUSTER, format, output, viewstone};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SHAPE: Shape = Shape {
    writers: 8,
    value_size: 2 << 10,
    pause: Duration::ZERO,
    short_deadlines: true,
};

fn recover(addresses: &[String], replica: usize, file: &Path) -> Command {
    let mut command = viewstone();
    command
        .arg("recover")
        .args(["--cluster", &format!("{CLUSTER:#x}")])
        .args(["--addresses", &addresses.join(",")])
        .args(["--replica", &replica.to_string(), "--timeout", "2s"])
        .arg(file);
    command
}

#[test]
fn a_lost_file_comes_back_and_counts_again() {
    let mut cluster = Cluster::new("recover", 3, &["--small"]);
    cluster.start_all();
    let load = Load::start(&cluster.addresses, SHAPE);
    load.wait_for_more(300);
    let (status, _, errors) = output(&mut recover(&cluster.addresses, 1, Path::new("/nowhere/x")));
    assert!(
        status == 5 && errors.contains("replica 1 is running"),
        "{status} {errors}"
    );
    for (replica, by_format) in [(1, false), (2, true)] {
        cluster.kill(replica);
        let file = cluster.file(replica);
        fs::remove_file(&file).expect("it was there");
        load.wait_for_more(100);
        let began = Instant::now();
        if by_format {
            format(&file, replica, 3, &["--small"]);
        } else {
            let (status, out, errors) = output(&mut recover(&cluster.addresses, replica, &file));
            assert!(
                status == 0 && out.contains("to be filled"),
                "{status} {out} {errors}"
            );
        }
        cluster.start(replica);
        cluster.wait_healthy();
        println!(
            "replica {replica} is back after {:?}: {}",
            began.elapsed(),
            if by_format { "format" } else { "recover" }
        );
        load.wait_for_more(100);
    }
    // Both are as good as any: without the one that lost nothing, the cluster goes on.
    cluster.kill(0);
    load.wait_for_more(100);
    let summary = load.finish();
    println!(
        "{} changes were acknowledged, all are there",
        summary.acknowledged
    );
    cluster.start(0);
    cluster.wait_healthy();
    cluster.stop_all_well();
}

#[test]
fn an_idle_cluster_brings_a_lost_file_back_too() {
    let mut cluster = Cluster::new("recover-idle", 3, &["--small"]);
    cluster.start_all();
    cluster.kill(1);
    let file = cluster.file(1);
    fs::remove_file(&file).expect("it was there");
    let (status, _, errors) = output(&mut recover(&cluster.addresses, 1, &file));
    assert_eq!(status, 0, "{errors}");
    let began = Instant::now();
    cluster.start(1);
    cluster.wait_healthy();
    println!("back after {:?}", began.elapsed());
    cluster.stop_all_well();
}

#[test]
fn a_file_put_back_is_refused_by_those_who_remember() {
    let mut cluster = Cluster::new("put-back", 3, &["--small"]);
    cluster.start_all();
    let load = Load::start(&cluster.addresses, SHAPE);
    load.wait_for_more(300);
    cluster.kill(2);
    let file = cluster.file(2);
    let copy = cluster.directory.0.join("copy");
    fs::copy(&file, &copy).expect("room for a copy");
    cluster.start(2);
    cluster.wait_healthy();
    load.wait_for_more(1000);
    std::thread::sleep(Duration::from_millis(1500)); // it greets the others each second
    cluster.kill(2);
    fs::copy(&copy, &file).expect("the directory is ours");
    cluster.spawn(2);
    let replica = cluster.take(2);
    let (status, errors) = replica.ended();
    assert_eq!(status, Some(4), "{errors}");
    assert!(
        errors.contains("remembers a later state") && errors.contains("viewstone recover"),
        "{errors}"
    );
    load.wait_for_more(100);
    fs::remove_file(&file).expect("it is there");
    let (status, _, errors) = output(&mut recover(&cluster.addresses, 2, &file));
    assert_eq!(status, 0, "{errors}");
    cluster.start(2);
    cluster.wait_healthy();
    load.wait_for_more(100);
    // Nor may the first file come back, now that another has taken its place: though it holds a higher sequence.
    cluster.kill(2);
    fs::rename(&copy, &file).expect("the directory is ours");
    cluster.spawn(2);
    let (status, errors) = cluster.take(2).ended();
    assert_eq!(status, Some(4), "{errors}");
    assert!(errors.contains("has taken the place"), "{errors}");
    load.wait_for_more(100);
    let summary = load.finish();
    println!(
        "{} changes were acknowledged, all are there",
        summary.acknowledged
    );
}
