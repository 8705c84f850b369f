//! The trace of a run: a hash over every event, and on demand a readable line for each.
//!
//! Two runs of one seed must have equal hashes: it is how nondeterminism is noticed.

/// Folds everything that happens into 64 bits.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    events: u64,
    readable: bool,
}

impl Trace {
    /// An empty trace; a readable one prints each event.
    pub fn new(readable: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            readable,
        }
    }

    /// Adds an event: what, and the numbers that make it this one.
    pub fn event(&mut self, now_ns: u64, numbers: [u64; 4], text: impl FnOnce() -> String) {
        self.events += 1;
        for number in [now_ns].into_iter().chain(numbers) {
            self.hash = (self.hash ^ number)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
        if self.readable {
            println!("{:>16.6} ms  {}", now_ns as f64 / 1e6, text());
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.events
    }
}
