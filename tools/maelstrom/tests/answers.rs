//! What a node answers: echoes, the operations of `lin-kv`, and Maelstrom's error codes.

mod driver;

use driver::{Behaviour, Client, HANG, Workbench};
use serde_json::{Value, json};

const NODE: &str = "n1";

fn cluster_of(name: &str, nodes: usize) -> (Workbench, Client) {
    let mut bench = Workbench::start(name, nodes, Behaviour::PERFECT, 1);
    let client = bench.client();
    (bench, client)
}

fn answer(client: &mut Client, body: &Value) -> Value {
    let mut answer = client.insist(NODE, body);
    let fields = answer.as_object_mut().expect("a body is an object");
    fields.remove("in_reply_to").expect("it answers");
    // Free text, for people.
    fields.remove("text");
    answer
}

fn error(code: u32) -> Value {
    json!({ "type": "error", "code": code })
}

#[test]
fn echoes_come_back_as_they_are() {
    let (_bench, mut client) = cluster_of("echo", 1);
    for echo in [
        json!("please"),
        json!(null),
        json!([1, { "a": [] }]),
        json!("\n\u{0}é"),
    ] {
        let body = json!({ "type": "echo", "echo": echo });
        assert_eq!(
            answer(&mut client, &body),
            json!({ "type": "echo_ok", "echo": echo })
        );
    }
}

#[test]
fn every_kind_of_request_has_its_answer() {
    let (_bench, mut client) = cluster_of("answers", 1);
    let cas = |key, from, to| json!({ "type": "cas", "key": key, "from": from, "to": to });
    let create = |key, from, to| json!({ "type": "cas", "key": key, "from": from, "to": to, "create_if_not_exists": true });
    let read = |key: &Value| json!({ "type": "read", "key": key });
    let value = |value: Value| json!({ "type": "read_ok", "value": value });
    let (done, swapped) = (json!({ "type": "write_ok" }), json!({ "type": "cas_ok" }));
    // Keys and values of every type, none of which is another.
    let all = [
        json!(1),
        json!("1"),
        json!(1.5),
        json!(true),
        json!(null),
        json!(""),
    ];
    for (key, number) in all.iter().zip(0..) {
        assert_eq!(answer(&mut client, &read(key)), error(20));
        let write = json!({ "type": "write", "key": key, "value": all[number] });
        assert_eq!(answer(&mut client, &write), done);
    }
    for (key, number) in all.iter().zip(0..) {
        assert_eq!(answer(&mut client, &read(key)), value(all[number].clone()));
    }
    for (request, expected) in [
        (cas("k", 1, 2), error(20)),
        (read(&json!("k")), error(20)),
        (create("k", 1, 2), swapped.clone()),
        (create("k", 1, 3), error(22)),
        (cas("k", 1, 3), error(22)),
        (read(&json!("k")), value(json!(2))),
        (create("k", 2, 4), swapped.clone()),
        (cas("k", 4, 5), swapped.clone()),
        (read(&json!("k")), value(json!(5))),
        (
            json!({ "type": "cas", "key": "k", "from": "5", "to": 6 }),
            error(22),
        ),
        (json!({ "type": "read" }), error(12)),
        (json!({ "type": "write", "key": "k" }), error(12)),
        (json!({ "type": "cas", "key": "k", "from": 5 }), error(12)),
        (read(&json!("k".repeat(1000))), error(12)),
        (json!({ "type": "txn", "txn": [] }), error(10)),
        (json!({ "type": "topology", "topology": {} }), error(10)),
        (json!({ "echo": 1 }), error(12)),
        (
            json!({ "type": "init", "node_id": NODE, "node_ids": [NODE] }),
            error(12),
        ),
    ] {
        assert_eq!(answer(&mut client, &request), expected, "{request}");
    }
    // Larger than a message of the cluster.
    let large = json!({ "type": "write", "key": "k", "value": "x".repeat(1 << 20) });
    assert_eq!(answer(&mut client, &large), error(12));
    assert_eq!(answer(&mut client, &read(&json!("k"))), value(json!(5)));
}

#[test]
fn what_is_no_message_is_passed_over() {
    let (mut bench, mut client) = cluster_of("garbage", 1);
    for line in [
        &b"\n"[..],
        b"{\n",
        b"\xff\x00\n",
        b"[]\n",
        b"{\"src\":\"n1\",\"dest\":\"n1\",\"body\":{\"type\":\"vsr\"}}\n",
        b"{\"src\":\"n1\",\"dest\":\"n1\",\"body\":{\"type\":\"vsr\",\"frame\":\"AAAA\"}}\n",
        b"{\"src\":\"n1\",\"dest\":\"n1\",\"body\":{\"type\":\"vsr_request\",\"frame\":\"!\"}}\n",
        b"{\"src\":\"c9\",\"dest\":\"n1\",\"body\":{\"type\":\"vsr_reply\",\"frame\":\"\"}}\n",
        b"{\"src\":\"c9\",\"dest\":\"n1\",\"body\":{\"type\":\"nobody waits for this\"}}\n",
    ] {
        bench.network.write(NODE, line);
    }
    let write = json!({ "type": "write", "key": 1, "value": 2 });
    assert_eq!(answer(&mut client, &write), json!({ "type": "write_ok" }));
    assert!(bench.end_input(0).success());
}

#[test]
fn before_it_knows_who_it_is_a_node_does_nothing_for_certain() {
    let mut bench = Workbench::start("before", 0, Behaviour::PERFECT, 1);
    bench.names.push(NODE.to_owned());
    bench.spawn(0);
    let mut client = bench.client();
    let mut code = |body: Value| client.call(NODE, &body)["code"].clone();
    assert_eq!(code(json!({ "type": "read", "key": 1 })), 11);
    assert_eq!(code(json!({ "type": "frobnicate" })), 10);
    assert_eq!(code(json!({ "type": "init" })), 12);
    let names: Vec<String> = (1..=7).map(|it| format!("n{it}")).collect();
    assert_eq!(
        code(json!({ "type": "init", "node_id": "n1", "node_ids": names })),
        12
    );
    let init = json!({ "type": "init", "node_id": NODE, "node_ids": [NODE] });
    assert_eq!(client.call(NODE, &init)["type"], "init_ok");
    assert_eq!(
        answer(&mut client, &json!({ "type": "read", "key": 1 })),
        error(20)
    );
}

/// Alone, a node of three can do nothing, and knows of what it cannot have done. What the primary was told before it was
/// cut off may be done yet, and nobody knows.
#[test]
fn a_node_that_is_cut_off_says_what_is_unknown() {
    let (bench, mut client) = cluster_of("cut", 3);
    let write = json!({ "type": "write", "key": 1, "value": 2 });
    assert_eq!(answer(&mut client, &write), json!({ "type": "write_ok" }));
    // Sessions are open and the primary is known to each node.
    for node in bench.names.clone() {
        client.insist(&node, &write);
    }
    for (node, other) in [("n1", "n2"), ("n2", "n3"), ("n3", "n1")] {
        bench.network.cut(node, other);
        bench.network.cut(other, node);
    }
    let mut codes = Vec::new();
    for node in &bench.names {
        let answer = client.try_call(node, write.clone(), HANG);
        let answer = answer.expect("a node gives up by itself");
        codes.push(answer["code"].as_u64().expect("nobody can decide anything"));
    }
    assert!(codes.iter().all(|code| [0, 11].contains(code)), "{codes:?}");
    assert!(codes.contains(&0), "{codes:?}");
    bench.network.heal();
    let read = json!({ "type": "read", "key": 1 });
    let found = json!({ "type": "read_ok", "value": 2 });
    assert_eq!(answer(&mut client, &read), found);
}
