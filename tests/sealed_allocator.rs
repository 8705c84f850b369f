//! The seal, seen from outside: a child process that allocates on a sealed thread aborts and says why; one that panics
//! there is allowed to say so.

use std::hint::black_box;
use std::io::Write;
use std::process::{Command, Output};
use viewstone::quorums::ReplicaSet;
use viewstone::replica::{Needed, Nowhere};
use viewstone::sealed_allocator::SealedAllocator;

#[global_allocator]
static ALLOCATOR: SealedAllocator = SealedAllocator;

const CHILD: &str = "VIEWSTONE_TEST_CHILD";

fn child(what: &str) -> Output {
    let exe = std::env::current_exe().expect("the test runs");
    let mut command = Command::new(exe);
    command.args(["--exact", "the_child", "--nocapture"]);
    command.env(CHILD, what).output().expect("it starts")
}

#[test]
fn the_child() {
    let Ok(what) = std::env::var(CHILD) else {
        return; // not a child
    };
    let kept = black_box(Box::new(1_u64));
    let seal = SealedAllocator::seal();
    drop(kept); // freeing is allowed
    match what.as_str() {
        "allocate" => drop(black_box(Box::new(2_u64))),
        "describe" => {
            let mut silent = ReplicaSet::default();
            silent.insert(1);
            silent.insert(2);
            let needed = Needed::Prepare {
                op: 41,
                checksum: 0,
            };
            let mut line = [0_u8; 256];
            write!(&mut line[..], "{}", Nowhere { needed, silent }).expect("it fits");
            assert!(line.ends_with(&[0]) && line.starts_with(b"journal"));
        }
        "panic" => panic!("told {}", black_box(3)),
        _ => {}
    }
    drop(seal);
    drop(black_box(Box::new(4_u64)));
}

#[test]
fn an_allocation_on_a_sealed_thread_aborts_and_says_so() {
    let output = child("allocate");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        text.contains("allocation of 8 bytes on a sealed thread"),
        "{text}"
    );
}

#[test]
fn a_panic_lifts_the_seal_and_a_quiet_thread_does_not_need_it() {
    let output = child("panic");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = text + &String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("told 3") && !text.contains("sealed thread"),
        "{text}"
    );
    assert!(child("nothing").status.success());
}

/// The event loop logs it.
#[test]
fn what_no_replica_has_is_described_without_an_allocation() {
    let output = child("describe");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}
