//! Data files that are damaged, put back to an older state or lost, and disks that fail while they are used: repaired with
//! nobody's help where a good copy is left, never a panic, never a wrong answer.
//!
//! Every history is checked for linearizability. Times are printed; only hangs are asserted. `VIEWSTONE_ROUNDS` sets the
//! rounds of each test, `VIEWSTONE_SEED` what is damaged.

#![cfg(feature = "cli")]

mod process;

use process::cluster::Cluster;
use process::damage::{Damage, Victim};
use process::history::{Recorder, Shape};
use process::{HANG, Random, distribution, output, rounds, viewstone};
use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use viewstone::storage::header::ReplicaStatus;
use viewstone::storage::layout::{HEADERS_PER_SECTOR, Layout};

/// Little that is not in use, and so a target for damage.
const RING: [&str; 5] = ["--small", "--slots", "256", "--message-size", "16KiB"];

/// Light enough to fill the ring slowly, heavy enough that something is always under way.
const CALM: Shape = Shape {
    pause: Duration::from_millis(10),
    ..Shape::STEADY
};

/// Longer than replicas wait between two greetings, in which they say what they have promised.
const GREETING: Duration = Duration::from_millis(1500);

/// How many blocks of pages are damaged on each replica.
const BLOCKS: usize = 8;

/// How many places of a file are damaged at a time.
const PLACES: usize = 32;

/// Whether `viewstone verify` finds nothing wrong, on a file that may be in use.
fn is_sound(file: &Path) -> bool {
    let (status, out, error) = output(viewstone().arg("verify").arg(file));
    assert!(status <= 1, "{out}{error}");
    status == 0
}

/// Waits until nothing is wrong with the file.
fn wait_sound(cluster: &Cluster, replica: usize) {
    let begin = Instant::now();
    while !is_sound(&cluster.file(replica)) {
        assert!(
            begin.elapsed() < HANG,
            "never repaired:\n{}",
            cluster.errors()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn damage_anywhere_in_one_file_is_repaired_by_itself() {
    let rounds = rounds(3);
    let mut random = Random::new();
    let mut cluster = Cluster::new("damage-one", 3, &RING);
    cluster.start_all();
    let load = Recorder::start(&[&cluster.addresses], CALM);
    load.wait_for_more(200);
    let mut repaired = Vec::new();
    for _ in 0..rounds {
        cluster.wait_healthy();
        let replica = random.below(3) as usize;
        cluster.kill(replica);
        let victim = Victim::open(&cluster.file(replica));
        let places = victim.fair_game(&mut random);
        for _ in 0..PLACES {
            let at = places[random.below(places.len() as u64) as usize];
            victim.damage(at, Damage::any(&mut random), &mut random);
        }
        load.wait_for_more(10);
        let begin = Instant::now();
        cluster.start(replica);
        cluster.wait_healthy();
        wait_sound(&cluster, replica);
        repaired.push(begin.elapsed());
        load.wait_for_more(20);
    }
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    println!(
        "{rounds} times {PLACES} places of one file damaged: {}",
        history.summary()
    );
    println!("start to sound again: {}", distribution(&mut repaired));
}

/// Every replica is damaged, and nothing on two of them.
#[test]
fn damage_in_all_three_files_never_in_the_same_place_is_repaired() {
    let rounds = rounds(3);
    let mut random = Random::new();
    let mut cluster = Cluster::new("helix", 3, &RING);
    cluster.start_all();
    let load = Recorder::start(&[&cluster.addresses], CALM);
    load.wait_for_more(200);
    let (mut serving, mut repaired) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        cluster.wait_healthy();
        random.pause(200);
        for replica in 0..3 {
            cluster.kill(replica);
        }
        let turn = random.below(3) as usize;
        let mut spoilt = BTreeSet::new();
        for replica in 0..3 {
            let victim = Victim::open(&cluster.file(replica));
            damage_third(&victim, (replica + turn) % 3, &mut random);
            damage_pages(&victim, &mut random, &mut spoilt);
        }
        for replica in 0..3 {
            cluster.spawn(replica);
        }
        let begin = Instant::now();
        load.wait_for_more(1);
        serving.push(begin.elapsed());
        cluster.wait_healthy();
        for replica in 0..3 {
            wait_sound(&cluster, replica);
        }
        repaired.push(begin.elapsed());
        load.wait_for_more(50);
    }
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    println!(
        "{rounds} times all damaged, a third of each journal: {}",
        history.summary()
    );
    println!("start to the next change: {}", distribution(&mut serving));
    println!("start to sound again: {}", distribution(&mut repaired));
}

/// Damages one of three parts of both rings, and one copy of the superblock. What is in a sector of redundant headers is
/// damaged together, so parts are runs of slots; a slot is damaged in both rings.
fn damage_third(victim: &Victim, part: usize, random: &mut Random) {
    let layout = victim.layout;
    let how = Damage::any(random);
    for slot in 0..layout.geometry.slots as usize {
        if slot / HEADERS_PER_SECTOR % 3 != part {
            continue;
        }
        if slot.is_multiple_of(HEADERS_PER_SECTOR) {
            victim.damage(layout.header_sector_at(slot), how, random);
        }
        victim.damage(layout.prepare_at(slot), how, random);
    }
    victim.damage(Layout::superblock_at(part), how, random);
}

/// Damages some blocks of pages, tags and addresses, none of whose bytes were damaged before: where a page lies is each
/// replica's own affair, so the place does not tell whether it is the same page.
fn damage_pages(victim: &Victim, random: &mut Random, spoilt: &mut BTreeSet<Vec<u8>>) {
    let used = victim.used(victim.layout.grid_at..victim.layout.size);
    for _ in 0..BLOCKS.min(used.len()) {
        let at = used[random.below(used.len() as u64) as usize];
        if spoilt.insert(victim.read(at)) {
            victim.damage(at, Damage::any(random), random);
        }
    }
}

/// The blocks of pages, tags and addresses that every replica holds the same, by their content: a page is the same everywhere.
fn common_blocks(victims: &[Victim]) -> BTreeSet<Vec<u8>> {
    let held = |victim: &Victim| -> BTreeSet<Vec<u8>> {
        let used = victim.used(victim.layout.grid_at..victim.layout.size);
        used.into_iter().map(|at| victim.read(at)).collect()
    };
    let mut common = held(&victims[0]);
    for victim in &victims[1..] {
        let others = held(victim);
        common.retain(|block| others.contains(block));
    }
    common
}

/// The same pages are damaged on all replicas. Nobody can execute anything: that is said once on each, with what is missing and
/// what to do, and by `status`; views do not change for ever. When one file can be read again all are well.
#[test]
fn pages_that_no_replica_has_are_named_and_waited_for() {
    let mut random = Random::new();
    let mut cluster = Cluster::new("nowhere", 3, &RING);
    cluster.start_all();
    let load = Recorder::start(&[&cluster.addresses], CALM);
    load.wait_for_more(300);
    load.finish(&cluster.addresses);
    cluster.wait_pongs("the same checkpoint on all", |pongs| {
        let ops: Vec<_> = pongs.iter().flatten().map(|it| it.checkpoint_op).collect();
        ops.len() == 3 && ops[0] > 0 && ops.iter().all(|&op| op == ops[0])
    });
    for replica in 0..3 {
        cluster.kill(replica);
    }
    let victims = [0, 1, 2].map(|replica| Victim::open(&cluster.file(replica)));
    let common = common_blocks(&victims);
    let healer = random.below(3) as usize;
    let mut good = Vec::new();
    for (replica, victim) in victims.iter().enumerate() {
        for at in victim.used(victim.layout.grid_at..victim.layout.size) {
            let block = victim.read(at);
            if common.contains(&block) {
                if replica == healer {
                    good.push((at, block));
                }
                victim.damage(at, Damage::Flip, &mut random);
            }
        }
    }
    for replica in 0..3 {
        cluster.spawn(replica);
    }
    cluster.wait_pongs("all wait for a page", |pongs| {
        pongs.iter().flatten().filter(|it| it.nowhere > 1).count() == 3
    });
    let views = |cluster: &Cluster| -> Vec<u32> {
        let pongs = cluster.pongs();
        pongs.iter().flatten().map(|it| it.frame.view).collect()
    };
    let before = views(&cluster);
    thread::sleep(Duration::from_secs(3));
    assert_eq!(
        before,
        views(&cluster),
        "views that cannot begin are left alone"
    );
    for replica in 0..3 {
        let errors = cluster.replica(replica).errors();
        let told = errors
            .matches("is missing or damaged on every replica")
            .count();
        assert!(told > 0 && errors.contains("grid: "), "{errors}");
    }
    let (code, status) = process::status(&cluster.addresses);
    assert_eq!(code, 2, "{status}");
    assert!(
        status["replicas"][0]["nowhere"]["name"].is_string(),
        "{status}"
    );
    cluster.kill(healer);
    for (at, block) in good {
        victims[healer].write(at, &block);
    }
    cluster.start(healer);
    cluster.wait_healthy();
    for replica in 0..3 {
        wait_sound(&cluster, replica);
    }
    let client = process::load::client(&cluster.addresses, 1);
    client.put(b"after", b"all").expect("it serves again");
    cluster.stop_all_well();
}

/// A disk that fails while it is used: reads with flipped bits and unreadable sectors on all replicas at once, each
/// elsewhere. What is read is checked, so answers stay right.
#[test]
fn reads_that_fail_while_all_serve_make_no_answer_wrong() {
    let rounds = rounds(3);
    let mut random = Random::new();
    let mut cluster = Cluster::new("bad-reads", 3, &RING);
    cluster.start_all();
    let load = Recorder::start(&[&cluster.addresses], CALM);
    load.wait_for_more(100);
    let size = std::fs::metadata(cluster.file(0))
        .expect("it is there")
        .len();
    for _ in 0..rounds {
        for replica in 0..3 {
            let at = random.below(size / 4096) * 4096;
            let lines = format!("flip-reads 0.02\nread-error {at} 65536\n");
            cluster.set_faults(replica, &lines);
        }
        // A backup that comes back is served from the others' disks.
        let primary = cluster.primary();
        let backup = (primary + 1) % 3;
        cluster.set_faults(backup, "");
        cluster.kill(backup);
        load.wait_for_more(50);
        cluster.start(backup);
        load.wait_for_more(50);
        for replica in 0..3 {
            cluster.set_faults(replica, "");
        }
        cluster.wait_healthy();
    }
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    println!("{rounds} times bad reads everywhere: {}", history.summary());
}

/// A dying disk is in the log while all of it can still be mended.
#[test]
fn damage_that_the_scrubber_finds_is_in_the_log() {
    let mut cluster = Cluster::new("scrubbed", 3, &RING);
    cluster.start_all();
    let client = process::load::client(&cluster.addresses, 1);
    client.put(b"a", b"prepare").expect("it serves");
    let said = "damage was found on the disk: ";
    assert!(!cluster.errors().contains(said));
    cluster.set_faults(1, "flip-reads 1.0\n");
    let begin = Instant::now();
    while !cluster.errors().contains(said) {
        assert!(begin.elapsed() < HANG, "not said:\n{}", cluster.errors());
        thread::sleep(Duration::from_millis(50));
    }
    cluster.set_faults(1, "");
    cluster.wait_healthy();
    cluster.stop_all_well();
}

/// A write that fails ends the replica, with its reason and without a panic; the others go on, and when the disk is
/// well it comes back.
#[test]
fn a_write_that_fails_ends_the_replica_and_nobody_else() {
    let rounds = rounds(2);
    let mut random = Random::new();
    let mut cluster = Cluster::new("bad-writes", 3, &RING);
    cluster.start_all();
    let load = Recorder::start(&[&cluster.addresses], CALM);
    load.wait_for_more(100);
    let mut windows = Vec::new();
    for _ in 0..rounds {
        cluster.wait_healthy();
        let replica = random.below(3) as usize;
        let begin = Instant::now();
        let all = Victim::open(&cluster.file(replica)).layout.size;
        cluster.set_faults(replica, &format!("write-error 0 {all}"));
        let (code, errors) = cluster.take(replica).ended();
        assert_eq!(code, Some(1), "{errors}");
        let reason = errors.lines().find(|line| line.starts_with("error: "));
        let reason = reason.unwrap_or_else(|| panic!("no reason: {errors}"));
        assert!(
            reason.contains("errno 5") && !errors.contains("panicked"),
            "{errors}"
        );
        load.wait_for_more(50);
        windows.push((begin, Instant::now()));
        cluster.set_faults(replica, "");
        cluster.start(replica);
    }
    cluster.wait_healthy();
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    println!(
        "{rounds} times a disk that takes no writes: {}",
        history.summary()
    );
    let gap = |&(from, to): &(Instant, Instant)| history.longest_gap(from, to);
    let mut gaps: Vec<_> = windows.iter().map(gap).collect();
    println!(
        "bad-writes: longest time without a change: {}",
        distribution(&mut gaps)
    );
}

/// A data file that is put back to what it was a while ago has forgotten what its replica promised. The others remember:
/// the replica ends and says why, nothing is lost, and with the right file, or a recovered one, it is back.
#[test]
fn a_file_put_back_to_an_earlier_state_is_noticed_and_loses_nothing() {
    let rounds = rounds(2);
    let mut random = Random::new();
    let mut cluster = Cluster::new("rolled-back", 3, &RING);
    cluster.start_all();
    let load = Recorder::start(&[&cluster.addresses], CALM);
    load.wait_for_more(100);
    let mut noticed = Vec::new();
    for _ in 0..rounds {
        cluster.wait_healthy();
        let replica = random.below(3) as usize;
        let file = cluster.file(replica);
        let [old, new] = ["old", "new"].map(|name| cluster.directory.0.join(name));
        cluster.stop(replica);
        std::fs::copy(&file, &old).expect("copied");
        cluster.start(replica);
        cluster.wait_healthy();
        load.wait_for_more(50 + random.below(300));
        thread::sleep(GREETING); // until the others have heard what it has promised
        cluster.kill(replica);
        std::fs::rename(&file, &new).expect("renamed");
        std::fs::rename(&old, &file).expect("renamed");
        let begin = Instant::now();
        cluster.spawn(replica);
        let (code, errors) = cluster.take(replica).ended();
        noticed.push(begin.elapsed());
        let told = code == Some(4) && !errors.contains("panicked");
        assert!(
            told && errors.contains("put back to an older state"),
            "{code:?} {errors}"
        );
        load.wait_for_more(50);
        if random.chance(2) {
            std::fs::rename(&new, &file).expect("renamed");
        } else {
            std::fs::remove_file(&file).expect("ours");
            cluster.recover(replica);
        }
        cluster.start(replica);
        cluster.wait_healthy();
        load.wait_for_more(50);
    }
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    println!("{rounds} times a file put back: {}", history.summary());
    println!(
        "start to the end with its reason: {}",
        distribution(&mut noticed)
    );
}

/// How much state the others hold when a file is lost, in MiB: little by default, more by `VIEWSTONE_STATE_MIB`.
fn state_mib() -> u64 {
    let given = std::env::var("VIEWSTONE_STATE_MIB").ok();
    given.and_then(|it| it.parse().ok()).unwrap_or(16)
}

/// Bytes of a value while the state is filled.
const FILL_VALUE: usize = 48 << 10;

/// Puts so much that pages are used.
fn fill(addresses: &[String], mib: u64) {
    let client = process::load::client(addresses, 8);
    let count = (mib << 20) / FILL_VALUE as u64;
    thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for number in (thread..count).step_by(8) {
                    // No two pages alike.
                    let words =
                        (0..FILL_VALUE as u64 / 8).map(|it| (number << 32 | it) ^ 0x5bd1_e995);
                    let value: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
                    let key = format!("fill-{number}");
                    client.put(key.as_bytes(), &value).expect("there is room");
                }
            });
        }
    });
}

/// A cluster that holds so much, under load.
fn filled(name: &str) -> (Cluster, Recorder) {
    let mib = state_mib();
    let state = format!("{}MiB", mib + mib / 4 + 16);
    let mut cluster = Cluster::new(name, 3, &["--small", "--state-size", &state]);
    cluster.start_all();
    fill(&cluster.addresses, mib);
    let load = Recorder::start(&[&cluster.addresses], CALM);
    load.wait_for_more(100);
    (cluster, load)
}

/// A data file that is gone is made anew by `viewstone recover`, filled from the others, and its replica is one of them
/// again.
#[test]
fn a_lost_file_is_recovered_from_the_others() {
    let rounds = rounds(2);
    let mut random = Random::new();
    let (mut cluster, load) = filled("recover");
    let (mut made, mut back) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        cluster.wait_healthy();
        let replica = random.below(3) as usize;
        random.pause(200);
        cluster.kill(replica);
        std::fs::remove_file(cluster.file(replica)).expect("ours");
        load.wait_for_more(20);
        let begin = Instant::now();
        cluster.recover(replica);
        made.push(begin.elapsed());
        let begin = Instant::now();
        cluster.start(replica);
        cluster.wait_healthy();
        back.push(begin.elapsed());
        load.wait_for_more(20);
    }
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    let mib = state_mib();
    println!(
        "{rounds} times a file of {mib} MiB of state lost: {}",
        history.summary()
    );
    println!("making the file anew: {}", distribution(&mut made));
    println!(
        "start to level with the others: {}",
        distribution(&mut back)
    );
}

/// A formatted file in place of a lost one, where `recover` should have been used, loses nothing either: it is filled from
/// the others before its replica takes part; or refused, if they accuse it of having gone back before it has heard that
/// they have begun.
#[test]
fn a_formatted_file_in_place_of_a_lost_one_is_filled_or_refused() {
    let rounds = rounds(2);
    let mut random = Random::new();
    let geometry = ["--small"];
    let mut cluster = Cluster::new("formatted", 3, &geometry);
    cluster.start_all();
    let load = Recorder::start(&[&cluster.addresses], CALM);
    load.wait_for_more(100);
    let mut refused = 0;
    for _ in 0..rounds {
        cluster.wait_healthy();
        let replica = random.below(3) as usize;
        cluster.kill(replica);
        std::fs::remove_file(cluster.file(replica)).expect("ours");
        process::format(&cluster.file(replica), replica, 3, &geometry);
        load.wait_for_more(20);
        cluster.spawn(replica);
        cluster.wait_pongs("a replica that is lost, or level, or gone", |pongs| {
            pongs[replica].is_some_and(|it| it.status != ReplicaStatus::Starting as u8)
                || cluster.replica(replica).errors().contains("error: ")
        });
        if cluster.replica(replica).errors().contains("error: ") {
            let (code, errors) = cluster.take(replica).ended();
            let told = code == Some(4) && !errors.contains("panicked");
            assert!(
                told && errors.contains("viewstone recover"),
                "{code:?} {errors}"
            );
            refused += 1;
            std::fs::remove_file(cluster.file(replica)).expect("ours");
            cluster.recover(replica);
            cluster.start(replica);
        }
        cluster.wait_healthy();
        load.wait_for_more(20);
    }
    let history = load.finish(&cluster.addresses);
    cluster.stop_all_well();
    println!(
        "{rounds} times formatted anew, {refused} times refused: {}",
        history.summary()
    );
}

#[test]
fn a_fault_file_is_for_development_and_names_known_faults() {
    let cluster = Cluster::new("fault-file", 1, &["--small"]);
    cluster.set_faults(0, "delay-ms soon");
    let start = |more: &[&str]| {
        let mut command = process::start(&cluster.file(0), &cluster.addresses);
        let (status, _, error) = output(command.args(more).arg(cluster.fault_file(0)));
        assert_eq!(status, 2, "{error}");
        error
    };
    let error = start(&["--development", "--fault-file"]);
    assert!(error.contains("`delay-ms soon` is no fault"), "{error}");
    let error = start(&["--fault-file"]);
    assert!(error.contains("--development"), "{error}");
}
