//! The `lin-kv` workload on real nodes, over a network that delays, loses, reorders and is cut in every way, while nodes are
//! killed and started again. The history must be linearizable, and after each fault the cluster must serve.
//!
//! Only hangs are asserted, no times. `VIEWSTONE_ROUNDS` repeats all faults, `VIEWSTONE_NODES` sets the number of nodes, and
//! `VIEWSTONE_SEED` what chance does.

mod driver;

use driver::workload::Workload;
use driver::{Behaviour, Workbench};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a fault lasts: time enough for others to elect a primary and to serve, beside one that was cut off.
const BROKEN: Duration = Duration::from_millis(1300);

/// Changes that must be answered after each fault.
const PROGRESS: u64 = 25;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

fn seed() -> u64 {
    let drawn = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.expect("it is after 1970").as_nanos() as u64
    };
    let seed = number("VIEWSTONE_SEED").unwrap_or_else(drawn);
    println!("VIEWSTONE_SEED={seed}");
    seed
}

/// Each node is cut off from the others in turn, so that the primary is at least once; clients reach all of them still.
fn isolations(bench: &mut Workbench, load: &Workload) {
    for node in 0..bench.names.len() {
        bench.isolate(&[node]);
        thread::sleep(BROKEN);
        bench.network.heal();
        load.wait_for_more(PROGRESS);
    }
}

/// Each node hears nobody, and then is heard by nobody.
fn one_way_cuts(bench: &mut Workbench, load: &Workload) {
    let names = bench.names.clone();
    for (index, name) in names.iter().enumerate() {
        for other in names.iter().filter(|it| *it != name) {
            if index % 2 == 0 {
                bench.network.cut(other, name);
            } else {
                bench.network.cut(name, other);
            }
        }
        thread::sleep(BROKEN / 2);
        bench.network.heal();
        load.wait_for_more(PROGRESS);
    }
}

/// A chain of nodes, whose ends do not hear each other; then nobody hears anybody.
fn chain_and_dust(bench: &mut Workbench, load: &Workload) {
    let names = bench.names.clone();
    for reach in [1, 0] {
        for (from, to) in
            (0..names.len()).flat_map(|from| (0..names.len()).map(move |to| (from, to)))
        {
            if from.abs_diff(to) > reach {
                bench.network.cut(&names[from], &names[to]);
            }
        }
        thread::sleep(BROKEN / 2);
        bench.network.heal();
        load.wait_for_more(PROGRESS);
    }
}

/// Each node is killed while it may be the primary, and comes back; then all at once.
fn kills(bench: &mut Workbench, load: &Workload) {
    for node in 0..bench.names.len() {
        bench.kill(node);
        load.wait_for_more(PROGRESS);
        bench.start_node(node);
        load.wait_for_more(PROGRESS);
    }
    for node in 0..bench.names.len() {
        bench.kill(node);
    }
    for node in 0..bench.names.len() {
        bench.start_node(node);
    }
    load.wait_for_more(PROGRESS);
}

#[test]
fn clients_of_a_cluster_in_trouble_see_one_register_a_key() {
    let (seed, begin) = (seed(), Instant::now());
    let nodes = number("VIEWSTONE_NODES").unwrap_or(3) as usize;
    assert!(nodes >= 3, "the others serve where one is away");
    let mut bench = Workbench::start("linearizable", nodes, Behaviour::POOR, seed);
    let load = Workload::start(&mut bench, 3, seed);
    load.wait_for_more(PROGRESS);
    for _ in 0..number("VIEWSTONE_ROUNDS").unwrap_or(1) {
        isolations(&mut bench, &load);
        one_way_cuts(&mut bench, &load);
        chain_and_dust(&mut bench, &load);
        kills(&mut bench, &load);
    }
    load.finish(&mut bench);
    println!("{:.1?}", begin.elapsed());
}
