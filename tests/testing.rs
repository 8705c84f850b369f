//! The cluster that the crate offers for users' tests, used as a user would.

use std::time::{Duration, Instant};
use viewstone::client::kv::{Item, KvClient, KvError};
use viewstone::client::{CallError, Definite, operation};
use viewstone::state_machine::kv::Kv;
use viewstone::state_machine::{Context, Invalid, Limits, Pages, Plan, ReplyBuffer, StateMachine};
use viewstone::testing::{Cluster, ClusterError, ClusterOptions, GEOMETRY, KvCluster};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Whatever takes longer hangs.
const HANG: Duration = Duration::from_mins(1);

#[test]
fn what_was_acknowledged_outlives_each_primary() {
    let mut cluster = KvCluster::start(3).expect("it starts");
    let kv = cluster.kv().expect("it starts");
    let mut version = kv.put(b"round", b"-").expect("an answer");
    for round in 0..4u8 {
        let primary = cluster.wait_for_primary().expect("one leads");
        if round % 2 == 0 {
            cluster.kill(primary).expect("it ran");
        } else {
            cluster.stop(primary).expect("it ran");
        }
        assert!(!cluster.is_running(primary));
        let start = Instant::now();
        let found = kv.get(b"round").expect("an answer").expect("it is there");
        assert_eq!(found.version, version);
        version = kv.put(b"round", &[round]).expect("an answer");
        let how = if round % 2 == 0 { "killed" } else { "stopped" };
        println!("primary {how}: {:?} until the next write", start.elapsed());
        assert_ne!(cluster.wait_for_primary().expect("one leads"), primary);
        cluster.restart(primary).expect("it starts");
        assert!(cluster.is_running(primary));
    }
    let found = kv.get(b"round").expect("an answer").expect("it is there");
    assert_eq!((found.value, found.version), (vec![3], version));
}

#[test]
fn all_may_stop_and_nothing_is_lost() {
    let mut cluster = KvCluster::start(3).expect("it starts");
    let addresses = cluster.addresses().to_vec();
    let kv = cluster.kv().expect("it starts");
    kv.put(b"key", b"value").expect("an answer");
    cluster.stop_all().expect("all ran");
    assert_eq!(cluster.primary(), None);
    let hasty = kv.with_deadline(Duration::from_millis(50));
    let error = hasty.get(b"key").expect_err("nobody runs");
    assert!(!error.is_indeterminate(), "a read: {error}");
    cluster.restart_all().expect("they start");
    assert_eq!(cluster.addresses(), addresses);
    let found = kv.get(b"key").expect("an answer").expect("it is there");
    assert_eq!(found.value, b"value");
}

/// Adds one with a deadline that passes while two replicas of three are gone.
fn add_without_quorum(cluster: &mut KvCluster, kv: &KvClient) -> KvError {
    let primary = cluster.wait_for_primary().expect("one leads");
    for replica in (0..3).filter(|&it| it != primary) {
        cluster.kill(replica).expect("it ran");
    }
    let hasty = kv.with_deadline(Duration::from_millis(50));
    hasty.increment(b"count", 1).expect_err("two are gone")
}

#[test]
fn without_a_quorum_a_write_is_unknown_until_there_is_one_and_happens_once() {
    let mut cluster = KvCluster::start(3).expect("it starts");
    let kv = cluster.kv().expect("it starts");
    assert_eq!(kv.increment(b"count", 1), Ok(1));
    // On a machine busy with other tests the primary may have given up before the write came: then it was not sent.
    for attempt in 0..20 {
        let error = add_without_quorum(&mut cluster, &kv);
        let Some(unknown) = error.unknown() else {
            assert!(attempt < 19, "it was never sent: {error}");
            cluster.restart_all().expect("they start");
            continue;
        };
        let hasty = kv.with_deadline(Duration::from_millis(50));
        let again = hasty.resolve(unknown).expect_err("they are still gone");
        assert!(again.is_indeterminate(), "{again}");
        cluster.restart_all().expect("they start");
        let results = kv.resolve(unknown).expect("it is known now");
        assert_eq!(results[0].number, Some(2));
        break;
    }
    assert_eq!(kv.increment(b"count", 1), Ok(3));
}

#[test]
fn its_files_go_when_it_is_dropped_and_it_starts_quickly() {
    let start = Instant::now();
    let cluster = KvCluster::start(1).expect("it starts");
    println!("one replica started in {:?}", start.elapsed());
    let start = Instant::now();
    let other = KvCluster::start(3).expect("it starts");
    println!("three replicas started in {:?}", start.elapsed());
    assert!(start.elapsed() < HANG);
    assert_ne!(cluster.id(), other.id());
    assert_ne!(cluster.directory(), other.directory());
    let directory = other.directory().to_path_buf();
    assert!(other.files().iter().all(|it| it.is_file()));
    let size: u64 = other
        .files()
        .iter()
        .map(|it| it.metadata().expect("it is there").len())
        .sum();
    println!("their files take {} KiB", size / 1024);
    assert!(size <= 60 << 20);
    drop(other);
    assert!(!directory.exists());
    assert_eq!(cluster.primary(), Some(0));
}

#[test]
fn what_cannot_be_is_said() {
    let error = KvCluster::start(0).expect_err("nobody");
    assert_eq!(
        error.to_string(),
        "a cluster of 0 replicas: it has from 1 to 6"
    );
    let nowhere = ClusterOptions {
        directory: "/nonexistent".into(),
        ..ClusterOptions::new(1)
    };
    let error = KvCluster::start_with(&nowhere).expect_err("no such directory");
    assert!(error.to_string().contains("/nonexistent"), "{error}");
    let mut odd = ClusterOptions::new(1);
    odd.geometry.slots = 17;
    let error = KvCluster::start_with(&odd).expect_err("not a power of two");
    assert!(error.to_string().contains("journal slots"), "{error}");
    let mut cluster = KvCluster::start(1).expect("it starts");
    let error = cluster.kill(1).expect_err("there is one only");
    assert!(matches!(
        error,
        ClusterError::NoSuchReplica { replica: 1, .. }
    ));
    cluster.restart(0).expect("it runs already");
    cluster.stop(0).expect("it ran");
    cluster.stop(0).expect("nothing to be done");
}

#[test]
fn one_client_serves_many_threads_and_calls() {
    let cluster = KvCluster::start(3).expect("it starts");
    let kv = cluster.kv().expect("it starts");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let kv = kv.clone();
            scope.spawn(move || {
                let add = Item::increment(b"sum", 1);
                let calls: Vec<_> = (0..50)
                    .map(|_| kv.submit(&[add, add]).expect("the key is short"))
                    .collect();
                for call in calls {
                    assert_eq!(call.wait().expect("an answer").len(), 2);
                }
            });
        }
    });
    assert_eq!(kv.increment(b"sum", 0), Ok(400));
    // A deadline that no clock can tell is one that does not pass.
    let patient = kv.with_deadline(Duration::MAX);
    assert_eq!(patient.increment(b"sum", 0), Ok(400));
    let empty = kv.submit(&[]).expect_err("nothing is asked for");
    assert_eq!(empty, KvError::Empty);
}

/// An account: operation 1 deposits (u64), 2 withdraws (u64) and answers 1 or, if there is too little, 0; 3 reads.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Account {
    balance: u64,
}

fn amount(body: &[u8]) -> u64 {
    u64::from_le_bytes(body.try_into().expect("validate has seen to it"))
}

impl StateMachine for Account {
    const NAME: &'static str = "account";

    fn create(_: &mut Pages) -> Self {
        Self { balance: 0 }
    }

    fn validate(_: &Limits, operation: u8, body: &[u8]) -> Result<Plan, Invalid> {
        let read_only = operation == 3;
        let size = if read_only { 0 } else { 8 };
        if !(1..=3).contains(&operation) || body.len() != size {
            return Err(Invalid);
        }
        Ok(Plan {
            read_only,
            reply_size: 8,
            ..Plan::default()
        })
    }

    fn read(&self, _: &Pages, _: &Context, _: u8, _: &[u8], reply: &mut ReplyBuffer<'_>) {
        reply.push(&self.balance.to_le_bytes());
    }

    fn commit(
        &mut self,
        _: &mut Pages,
        _: &Context,
        operation: u8,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) {
        let after = match operation {
            1 => self.balance.checked_add(amount(body)),
            _ => self.balance.checked_sub(amount(body)),
        };
        self.balance = after.unwrap_or(self.balance);
        reply.push(&u64::from(after.is_some()).to_le_bytes());
    }
}

#[test]
fn a_machine_of_ones_own_is_replicated_beside_others() {
    let mut cluster = Cluster::<(Kv, Account)>::start(3).expect("it starts");
    let client = cluster.client().expect("it starts");
    let call = |number: u8, value: u64| {
        let reply = client.write(operation(2, number), &value.to_le_bytes());
        amount(&reply.expect("an answer").body)
    };
    assert_eq!(call(1, 100), 1);
    assert_eq!(call(2, 70), 1);
    let primary = cluster.wait_for_primary().expect("one leads");
    cluster.kill(primary).expect("it ran");
    assert_eq!(call(2, 70), 0);
    let balance = client.read(operation(2, 3), &[]).expect("an answer");
    assert_eq!(amount(&balance.body), 30);
    // What the machines do not know is refused, once and for all.
    let invalid = client.write(operation(2, 1), &[1]).expect_err("malformed");
    assert_eq!(invalid, CallError::Definite(Definite::Invalid));
    let unknown = client
        .write(operation(3, 1), &[])
        .expect_err("no machine 3");
    assert_eq!(unknown, CallError::Definite(Definite::UnknownOperation));
}

#[test]
fn reads_and_writes_that_are_confused_do_no_harm() {
    let cluster = Cluster::<(Account,)>::start(1).expect("it starts");
    let client = cluster.client().expect("it starts");
    let (deposit, balance) = (operation(1, 1), operation(1, 3));
    client.write(deposit, &[5; 8]).expect("an answer");
    let read = client.write(balance, &[]).expect("a read, after all");
    assert_eq!(read.body, [5; 8]);
    let error = client
        .read(deposit, &[1; 8])
        .expect_err("it would change the state");
    assert_eq!(error, CallError::Definite(Definite::Invalid));
    assert_eq!(client.read(balance, &[]).expect("an answer").body, [5; 8]);
    client.write(deposit, &[1; 8]).expect("an answer");
    assert_eq!(client.read(balance, &[]).expect("an answer").body, [6; 8]);
}

#[test]
fn a_full_state_is_an_error_to_the_one_who_asks() {
    let options = ClusterOptions {
        geometry: viewstone::storage::layout::Geometry {
            state_size: 2 << 20,
            ..GEOMETRY
        },
        ..ClusterOptions::new(1)
    };
    let cluster = KvCluster::start_with(&options).expect("it starts");
    let kv = cluster.kv().expect("it starts");
    let value = vec![7; 50_000];
    let error = (0..100u8)
        .find_map(|key| kv.put(&[key], &value).err())
        .expect("five megabytes do not fit into two");
    assert_eq!(error, KvError::from(Definite::OutOfSpace));
    assert!(kv.delete(&[0]).expect("an answer").is_some());
    kv.put(&[0], &value).expect("there is room again");
}

/// Its only operation is a mistake.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Mistaken {
    unused: u64,
}

impl StateMachine for Mistaken {
    const NAME: &'static str = "mistaken";

    fn create(_: &mut Pages) -> Self {
        Self { unused: 0 }
    }

    fn validate(_: &Limits, _: u8, _: &[u8]) -> Result<Plan, Invalid> {
        Ok(Plan::default())
    }

    fn read(&self, _: &Pages, _: &Context, _: u8, _: &[u8], _: &mut ReplyBuffer<'_>) {}

    fn commit(&mut self, _: &mut Pages, _: &Context, _: u8, _: &[u8], _: &mut ReplyBuffer<'_>) {
        panic!("a mistake, on purpose");
    }
}

#[test]
fn a_machine_that_panics_is_told_of() {
    let mut cluster = Cluster::<(Mistaken,)>::start(1).expect("it starts");
    let client = cluster.client().expect("it starts");
    let call = client.submit_write(operation(1, 1), &[]);
    let start = Instant::now();
    while cluster.is_running(0) && start.elapsed() < HANG {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!cluster.is_running(0));
    assert_eq!(cluster.primary(), None);
    let error = cluster.stop(0).expect_err("it had stopped by itself");
    assert!(error.to_string().contains("panicked"), "{error}");
    drop(client);
    let end = call.wait().expect_err("nobody is there to answer");
    assert!(end.is_indeterminate(), "it was executed in part: {end}");
}
