//! What is printed when a seed fails.

use std::sync::atomic::{AtomicU64, Ordering};

/// The seed under way.
static SEED: AtomicU64 = AtomicU64::new(0);

/// From now on a panic says which seed was under way, and how to run it again.
pub fn report_seeds() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        let seed = SEED.load(Ordering::Relaxed);
        eprintln!(
            "seed {seed} failed; replay: cargo run --release -p simulator -- --seed {seed} --trace"
        );
    }));
}

/// This seed is under way.
pub fn seed_is(seed: u64) {
    SEED.store(seed, Ordering::Relaxed);
}
