//! The examples do what they say.

#[expect(dead_code, reason = "its main, which reads the command line")]
#[path = "../examples/client.rs"]
mod client;
#[path = "../examples/own_service.rs"]
mod own_service;

use viewstone::testing::KvCluster;

#[test]
fn the_client_example_runs() {
    let cluster = KvCluster::start(3).expect("it starts");
    client::run(&cluster.client_options()).expect("no call fails");
    let kv = cluster.kv().expect("it starts");
    let visits = kv.get(b"example/visits").expect("an answer");
    assert_eq!(visits.expect("they were counted").value, b"1001");
}

#[test]
fn the_own_service_example_runs() {
    own_service::main().expect("no call fails");
}
