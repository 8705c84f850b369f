//! The key-value client: single calls, batches, transactions, many calls in flight, deadlines and errors.
//!
//! ```sh
//! cargo run --example client                                   # against a cluster in this process
//! cargo run --example client -- 7 a:3001,b:3001,c:3001         # against the cluster of id 7
//! ```

use std::error::Error;
use std::time::{Duration, Instant};
use viewstone::client::kv::{Condition, Item, KvClient, KvError, Swap};
use viewstone::client::{CallError, ClientOptions};
use viewstone::testing::KvCluster;

const CALLS: usize = 1000;

fn one_by_one(kv: &KvClient) -> Result<(), KvError> {
    let version = kv.put(b"example/lamp", b"off")?;
    println!("put: version {version}");
    let found = kv.get(b"example/lamp")?;
    println!("get: {:?}", found.map(|it| it.value));
    // Optimistic concurrency: the change is made only if nobody was faster.
    match kv.compare_version_and_set(b"example/lamp", version, b"on")? {
        Swap::Done(version) => println!("swapped: version {version}"),
        Swap::Mismatch(version) => println!("somebody else made version {version}"),
    }
    Ok(())
}

fn several_at_once(kv: &KvClient) -> Result<(), KvError> {
    let results = kv.batch(&[
        Item::put(b"example/ada", b"100"),
        Item::put(b"example/bob", b"0"),
    ])?;
    assert!(results.iter().all(|it| it.status.is_done()));
    let transfer = kv.transaction(
        &[Condition::value(b"example/ada", b"100")],
        &[
            Item::increment(b"example/ada", -30),
            Item::increment(b"example/bob", 30),
        ],
        &[],
    )?;
    let balances: Vec<_> = transfer.results.iter().map(|it| it.number).collect();
    println!("transferred: {}, {balances:?}", transfer.succeeded);
    Ok(())
}

fn many_in_flight(kv: &KvClient) -> Result<(), KvError> {
    let visit = [Item::increment(b"example/visits", 1)];
    kv.put(b"example/visits", b"0")?;
    let start = Instant::now();
    let calls: Result<Vec<_>, _> = (0..CALLS).map(|_| kv.submit(&visit)).collect();
    for call in calls? {
        call.wait()?;
    }
    println!("{CALLS} calls in flight took {:?}", start.elapsed());
    println!("visits: {}", kv.increment(b"example/visits", 0)?);
    Ok(())
}

/// What may be done about each kind of error.
fn increment_once(kv: &KvClient, key: &[u8]) -> Result<Option<i64>, KvError> {
    let hasty = kv.with_deadline(Duration::from_millis(500));
    match hasty.increment(key, 1) {
        Ok(sum) => Ok(Some(sum)),
        // It may have been executed, or may still be. A second increment could count twice: ask for the first one's outcome.
        Err(KvError::Call(CallError::Indeterminate(unknown))) => {
            println!("{unknown}");
            Ok(kv.resolve(&unknown)?[0].number)
        }
        // No replica had it: a new call is as good.
        Err(KvError::Call(CallError::NotSent(error))) => {
            println!("not sent: {error}");
            kv.increment(key, 1).map(Some)
        }
        // Not executed, and it never will be.
        Err(error) => Err(error),
    }
}

/// Shows them all.
///
/// # Errors
/// The first call that fails.
pub fn run(options: &ClientOptions) -> Result<(), Box<dyn Error>> {
    let kv = KvClient::connect(options)?;
    one_by_one(&kv)?;
    several_at_once(&kv)?;
    many_in_flight(&kv)?;
    println!("once more: {:?}", increment_once(&kv, b"example/visits")?);
    let error = increment_once(&kv, b"example/lamp").expect_err("it is no number");
    println!("the lamp: {error}");
    let page = kv.scan_prefix(b"example/", None, 100)?;
    for entry in page.entries {
        let value = entry.value.unwrap_or_default();
        let (key, value) = (entry.key.escape_ascii(), value.escape_ascii());
        println!("{key} = {value} (version {})", entry.version);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => {
            let cluster = KvCluster::start(3)?;
            run(&cluster.client_options())
        }
        [cluster, addresses] => run(&ClientOptions::new(cluster.parse()?, addresses.split(','))),
        _ => Err("usage: client [CLUSTER HOST:PORT,HOST:PORT,...]".into()),
    }
}
