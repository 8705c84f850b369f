//! Seeds that found something, each with what it found, and seeds whose traces are known. They run before the fresh ones.

use crate::run::run;
use crate::workload::KvWorkload;

/// A seed and its cause.
pub const PINNED: [(u64, &str); 5] = [
    (
        9_499_136_068_412,
        "a batch executed in part, because a checkpoint left no spare page for its next request, has answered \
         requests of an op that is not executed yet",
    ),
    (
        189_894_173_825_639,
        "a power cut tore an op that a backup had not executed, and the others' rings went past it: it is lagging, and \
         said it was normal",
    ),
    (
        228_219_427_127_252,
        "a log too far ahead for the ring was parked; a copy of its start_view fitted after the next checkpoint, and was \
         installed; then the parked one was installed as well: an acknowledged op was forgotten",
    ),
    (
        92_006_744_281_199,
        "the first seed of the first run in which whole clusters held",
    ),
    (
        101_703_006_985_387,
        "the first seed of the first run after catching up was made to keep pace",
    ),
];

/// Short seeds, each with the hash of its trace. `cargo test` runs them in a debug build, `--pinned` in a release build: a
/// seed is one run in both, although kept memory holds other bytes there ([`storage::buffer`]).
///
/// Whatever changes what replicas, clients, faults or disks do changes the hashes: then
/// `cargo run --release -p simulator -- --hashes` prints these lines anew, and a debug build must agree with them.
#[rustfmt::skip]
pub const HASHES: [(u64, u64); 3] = [
    (19, 0xa20e_c661_d774_ebb1),
    (30, 0xf257_7365_b218_fad9),
    (47, 0x2155_52d6_6fb6_947b),
];

/// Runs the seeds of [`HASHES`]: each with its hash now.
pub fn hashes() -> impl Iterator<Item = (u64, u64)> {
    let seeds = HASHES.iter().map(|&(seed, _)| seed);
    seeds.map(|seed| (seed, run::<KvWorkload>(seed, false).hash))
}

/// Runs the seeds of [`HASHES`], and ends the process unless they do what they did.
pub fn check_hashes() {
    for ((seed, hash), (_, expected)) in hashes().zip(HASHES) {
        assert_eq!(
            hash, expected,
            "seed {seed} is another run. If a change of behaviour was meant: `cargo run --release -p simulator -- --hashes` \
             prints the table for tools/simulator/src/pinned.rs. If not, or if only one kind of build says so: \
             something depends on what no seed decides"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_the_same_run_in_every_build() {
        check_hashes();
    }
}
