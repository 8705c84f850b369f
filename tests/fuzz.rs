//! The fuzz targets without a fuzzer: the whole corpus, which holds what fuzzing has found so far, and mutations of it.
//!
//! It takes no special build, and so belongs to `cargo test`; libFuzzer, which follows what inputs reach, goes deeper
//! (`fuzz/run`). `VIEWSTONE_FUZZ_RUNS` is how many mutations a target gets, `VIEWSTONE_SEED` which. An input with which a
//! target panics is written to a file that is named: put it into the corpus.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::fs;
use std::panic;
use std::path::Path;
use std::time::Instant;
use viewstone::resp::command::TABLE;

/// Longer inputs teach nothing more.
const SIZE_MAX: usize = 8192;

/// What commands are made of.
const WORDS: [&str; 34] = [
    "k",
    "n",
    "key:1",
    "",
    "v",
    "a\0b\r\n",
    "0",
    "-1",
    "1",
    "3",
    "100",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "99999999999999999999",
    "01",
    "1.5",
    "-2.5e3",
    "1e309",
    "inf",
    "nan",
    "NX",
    "XX",
    "GT",
    "EX",
    "PX",
    "PXAT",
    "KEEPTTL",
    "GET",
    "MATCH",
    "COUNT",
    "k*[a-z]?\\",
    "WITHVALUES",
];

/// What the formats consist of, and what they trip over.
const TOKENS: [&[u8]; 16] = [
    b"\r\n",
    b"*1\r\n",
    b"*3\r\n",
    b"$-1\r\n",
    b"$3\r\nSET\r\n",
    b"$5\r\nMULTI\r\n",
    b"$4\r\nEXEC\r\n",
    b"*1000000000\r\n",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"%1\r\n",
    b"~2\r\n",
    b"=15\r\ntxt:",
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x01\x01\0\0",
];

struct Random(Xoshiro256PlusPlus);

impl Random {
    /// A number below `bound`, which is not zero.
    fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = fs::read_dir(root.join("fuzz/corpus").join(name)).expect("there is a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it").path()).collect();
    paths.sort();
    let read = |path: &_| fs::read(path).expect("a file of ours");
    paths.iter().map(read).collect()
}

/// Changes `input` in one place; other inputs lend what to insert.
fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let place = random.below(input.len() + 1);
    let end = place + random.below(input.len() - place + 1).min(40);
    match random.below(8) {
        0 if place < input.len() => input[place] ^= 1 << random.below(8),
        1 if place < input.len() => input[place] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
        2 if place < input.len() => input[place] = b"0123456789-+$*:\r\n"[random.below(17)],
        3 => drop(input.drain(place..end)),
        4 => input.truncate(place),
        5 => {
            let again = input[place..end].to_vec();
            input.splice(place..place, again);
        }
        6 => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            let to = from + random.below(other.len() - from + 1).min(400);
            input.splice(place..end, other[from..to].iter().copied());
        }
        _ => {
            let token = TOKENS[random.below(TOKENS.len())];
            input.splice(place..place, token.iter().copied());
        }
    }
    input.truncate(SIZE_MAX);
}

/// Some commands, well-formed, with about as many arguments as they take.
fn commands(random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..=random.below(6) {
        let spec = &TABLE[random.below(TABLE.len())];
        let mut words = vec![spec.name];
        if let (Some(last), false) = (spec.subcommands.len().checked_sub(1), random.below(4) == 0) {
            words.push(spec.subcommands[random.below(last + 1)].0);
        }
        let more = if spec.arity < 0 { random.below(5) } else { 0 };
        let count = spec.arity.unsigned_abs() as usize + more + usize::from(random.below(20) == 0);
        while words.len() < count {
            words.push(WORDS[random.below(WORDS.len())]);
        }
        input.extend(format!("*{}\r\n", words.len()).bytes());
        for word in words {
            input.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
        }
    }
    input
}

/// Runs a target; an input with which it panics is kept.
fn run(name: &str, target: fn(&[u8]), input: &[u8]) {
    if let Err(panic) = panic::catch_unwind(|| target(input)) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("finding-{name}"));
        fs::write(&path, input).expect("a file of ours");
        println!(
            "{name} panics with the {} bytes in {}",
            input.len(),
            path.display()
        );
        println!("{}", input.escape_ascii());
        panic::resume_unwind(panic);
    }
}

fn fuzz(name: &str, target: fn(&[u8]), default: u64) {
    let begin = Instant::now();
    let corpus = corpus(name);
    assert!(corpus.len() > 50, "the corpus is there");
    for input in &corpus {
        run(name, target, input);
    }
    let (runs, seed) = (
        number("VIEWSTONE_FUZZ_RUNS", default),
        number("VIEWSTONE_SEED", 1),
    );
    let mut random = Random(Xoshiro256PlusPlus::seed_from_u64(seed));
    for _ in 0..runs {
        // Half of the inputs of commands are commands.
        let (mut input, mutations) = if name == "resp_command" && random.below(2) == 0 {
            (commands(&mut random), random.below(2))
        } else {
            (
                corpus[random.below(corpus.len())].clone(),
                1 + random.below(6),
            )
        };
        for _ in 0..mutations {
            mutate(&mut input, &corpus, &mut random);
        }
        run(name, target, &input);
    }
    let (count, elapsed) = (corpus.len(), begin.elapsed());
    println!("{name}: {count} inputs and {runs} mutations, seed {seed}, in {elapsed:?}");
}

#[test]
fn resp_request() {
    fuzz("resp_request", targets::resp_request::run, 300_000);
}

#[test]
fn resp_reply() {
    fuzz("resp_reply", targets::resp_reply::run, 300_000);
}

#[test]
fn resp_command() {
    fuzz("resp_command", targets::resp_command::run, 300_000);
}

#[test]
fn wire_header() {
    fuzz("wire_header", targets::wire_header::run, 300_000);
}

/// Each input has a store of its own: fewer of them take as long.
#[test]
fn kv_machine() {
    fuzz("kv_machine", targets::kv_machine::run, 5_000);
}
