//! Programs that others have written, unmodified: redis-cli, redis-benchmark, redis-py, ioredis. Where one is not installed
//! the test says so and does nothing; CI installs them all.

mod resp;

use resp::Stand;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

/// Runs a program to its end, which must be a good one; what it wrote. None if it is not installed.
fn output(command: &mut Command) -> Option<String> {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let program = command.get_program().to_string_lossy();
            resp::skip(&program, "Debian: apt-get install redis-tools");
            return None;
        }
        Err(error) => panic!("{command:?}: {error}"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}:\n{text}\n{errors}");
    Some(text)
}

fn port(stand: &Stand) -> &str {
    let address = &stand.gateway.address;
    address.rsplit(':').next().expect("host and port")
}

#[test]
fn redis_cli_is_content() {
    let stand = Stand::new("resp-cli");
    let run = |line: &[&str]| {
        output(
            Command::new("redis-cli")
                .args(["-p", port(&stand)])
                .args(line),
        )
    };
    for (line, expected) in [
        (&["PING"][..], "PONG\n"),
        (&["SET", "a", "b c"], "OK\n"),
        (&["GET", "a"], "b c\n"),
        (&["-3", "GET", "absent"], "\n"),
        (&["DEL", "a"], "1\n"),
        (&["-3", "HELLO"], "server redis\nversion 7.0.15\n"),
        (
            &["FOO"],
            "ERR unknown command 'FOO', with args beginning with: \n\n",
        ),
    ] {
        let Some(found) = run(line) else { return };
        assert!(found.starts_with(expected), "{line:?}: {found:?}");
    }
    let Some(scanned) = run(&["--scan", "--pattern", "*"]) else {
        return;
    };
    assert_eq!(scanned, "");
}

#[test]
fn redis_benchmark_is_content() {
    let stand = Stand::new("resp-benchmark");
    for pipeline in ["1", "16"] {
        let mut command = Command::new("redis-benchmark");
        command.args([
            "-p",
            port(&stand),
            "-t",
            "ping,set,get,incr,mset,mget,hset,sadd,spop",
            "-q",
        ]);
        command.args(["-n", "4000", "-c", "32", "-r", "1000", "-P", pipeline]);
        let Some(text) = output(&mut command) else {
            return;
        };
        let lines: Vec<&str> = text.split(['\r', '\n']).collect();
        let results = lines
            .iter()
            .filter(|line| line.contains("requests per second"));
        let results: Vec<_> = results.map(|line| line.trim()).collect();
        println!("pipeline {pipeline}:\n{}", results.join("\n"));
        // PING twice, once as a line and once as an array.
        assert!(results.len() >= 9, "{text}");
        assert!(!text.contains("Error"), "{text}");
    }
    let Some(count) =
        output(Command::new("redis-cli").args(["-p", port(&stand), "GET", "counter:__rand_int__"]))
    else {
        return;
    };
    println!("{count}");
}

#[test]
fn redis_py_is_content() {
    let python = Command::new("python3")
        .args(["-c", "import redis"])
        .output();
    if !python.is_ok_and(|output| output.status.success()) {
        resp::skip("redis-py", "pip install redis");
        return;
    }
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/resp/clients/ordinary.py"
    );
    for protocol in ["2", "3"] {
        let stand = Stand::new("resp-python");
        let mut command = Command::new("python3");
        let text = output(command.args([script, port(&stand), protocol]));
        println!("{}", text.unwrap_or_default());
    }
}

#[test]
fn ioredis_is_content() {
    let node = Command::new("node")
        .args(["-e", "require('ioredis')"])
        .output();
    if !node.is_ok_and(|output| output.status.success()) {
        resp::skip("ioredis", "npm install ioredis, and NODE_PATH");
        return;
    }
    let stand = Stand::new("resp-node");
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/resp/clients/ordinary.js"
    );
    let text = output(Command::new("node").args([script, port(&stand)]));
    println!("{}", text.unwrap_or_default());
}
