//! Seeds that found something, each with what it found. They run before the fresh ones.

/// A seed and its cause.
pub const PINNED: [(u64, &str); 3] = [
    (
        9_499_136_068_412,
        "a batch executed in part, because a checkpoint left no spare page for its next request, has answered \
         requests of an op that is not executed yet",
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
