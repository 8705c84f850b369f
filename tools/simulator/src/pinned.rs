//! Seeds that found something, each with what it found: they run before the fresh ones. And short ones, whose traces are to be
//! equal in all builds.

use crate::run::run;
use crate::workload::KvWorkload;

/// A seed and its cause.
pub const PINNED: [(u64, &str); 7] = [
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
        245_568_317_149_841,
        "a vote whose list ended above an op that had lost its header, and was not committed, said that it was",
    ),
    (
        234_166_920_892_618,
        "a damaged checkpoint that was written anew gave up the one before it, and another replica that had not come further \
         and was damaged needed that",
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

/// Short seeds whose traces `--hashes` prints: they must be the same in a debug and in a release build, although kept memory
/// holds other bytes there ([`storage::buffer`]). `.ci/run` compares the two.
const SHORT: [u64; 3] = [19, 30, 47];

/// Runs a few short seeds: each with the hash of its trace.
pub fn hashes() -> impl Iterator<Item = (u64, u64)> {
    SHORT
        .map(|seed| (seed, run::<KvWorkload>(seed, false).hash))
        .into_iter()
}
