//! Keys expire on a real replica that nobody writes to, and stay gone when it is started again.

#![cfg(feature = "cli")]

#[path = "common/binary.rs"]
mod binary;

use binary::{Directory, Replica};
use std::time::{Duration, Instant};
use viewstone::client::kv::Change;
use viewstone::state_machine::kv::wire::{Condition, Expiry, Item, SetOptions, Status};

/// Only a bound on hanging: an idle replica looks at its clock at each heartbeat.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn keys_expire_on_an_idle_replica() {
    let directory = Directory::new();
    let file = directory.format_solo();
    let replica = Replica::start(&file);
    let client = replica.client();
    let expiring = |time| SetOptions {
        expiry: Expiry::In(time),
        ..SetOptions::default()
    };
    let set = |key: &[u8], time| client.set(key, b"value", expiring(time));
    assert!(set(b"long", 3_600_000).is_ok_and(|change| change.is_done()));
    let Ok(Change::Done { version, .. }) = set(b"short", 300) else {
        panic!("it is not set")
    };
    let began = Instant::now();
    while client.exists(b"short").expect("an answer") {
        assert!(began.elapsed() < PATIENCE, "it does not expire");
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("gone after {:?}", began.elapsed());
    let watched = Condition::version(b"short", version);
    let put = Item::Put {
        key: b"short",
        value: b"again",
    };
    let refused = client.transaction(&[watched], &[put], &[Item::Count]);
    let refused = refused.expect("an answer");
    assert!(!refused.succeeded, "an expired key has no version");
    let count = refused.results.first().expect("one result");
    assert_eq!((count.status, count.number), (Status::Number, Some(1)));
    drop(client);
    replica.kill();
    let replica = Replica::start(&file);
    let client = replica.client();
    assert_eq!(client.exists(b"short"), Ok(false));
    let left = client.stat(b"long").expect("an answer");
    assert!(left.is_some_and(|left| left.expiry_ms.is_some()));
    replica.kill();
}
