//! What a run measures. Latencies are in nanoseconds inside, and leave in microseconds.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longest latency told apart, in nanoseconds: a minute.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Latencies, in bounded memory.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        // `Histogram::new` would grow; with bounds it never allocates again.
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3);
        Self {
            histogram: histogram.expect("the bounds are valid"),
        }
    }

    /// Adds one.
    pub fn record(&mut self, nanoseconds: u64) {
        self.histogram.saturating_record(nanoseconds.max(1));
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// Of all, `quantile` (0 to 1) took at most so long, in microseconds.
    pub fn us(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// `p50 p90 p99 p999 max`, in microseconds.
    pub fn to_json(&self) -> Value {
        json!({
            "p50": self.us(0.5),
            "p90": self.us(0.9),
            "p99": self.us(0.99),
            "p999": self.us(0.999),
            "max": self.us(1.0),
        })
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

/// A time for people: three digits and a unit.
pub fn human_us(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 1000.0 => (us, "µs"),
        us if us < 1e6 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {unit}")
}

/// A size for people.
pub fn human_bytes(bytes: u64) -> String {
    let (unit, shift) = match bytes {
        0..=0x3ff => return format!("{bytes} B"),
        0x400..=0xf_ffff => ("KiB", 10),
        0x10_0000..=0x3fff_ffff => ("MiB", 20),
        _ => ("GiB", 30),
    };
    format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64)
}

/// How many writes shared an op: answers of one op come one behind the other.
#[derive(Clone, Debug)]
pub struct BatchSizes {
    histogram: Histogram<u64>,
    op: u64,
    size: u64,
}

impl BatchSizes {
    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, 1 << 20, 3);
        Self {
            histogram: histogram.expect("the bounds are valid"),
            op: 0,
            size: 0,
        }
    }

    /// A write was answered, as executed by this op.
    pub fn record(&mut self, op: u64) {
        if op != self.op {
            self.flush();
            self.op = op;
        }
        self.size += 1;
    }

    fn flush(&mut self) {
        if self.size > 0 {
            self.histogram.saturating_record(self.size);
        }
        self.size = 0;
    }

    /// Mean, median and largest.
    pub fn summary(&mut self) -> (f64, u64, u64) {
        self.flush();
        if self.histogram.is_empty() {
            return (0.0, 0, 0);
        }
        let median = self.histogram.value_at_quantile(0.5);
        (self.histogram.mean(), median, self.histogram.max())
    }
}

/// The longest time between two acknowledged writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gap {
    last_ns: Option<u64>,
    longest_ns: u64,
    answers: u64,
}

impl Gap {
    /// A write was acknowledged.
    pub fn answered(&mut self, now_ns: u64) {
        let gap_ns = self.last_ns.map_or(0, |last_ns| now_ns - last_ns);
        self.longest_ns = self.longest_ns.max(gap_ns);
        self.last_ns = Some(now_ns);
        self.answers += 1;
    }

    /// Counts anew, from the last acknowledged write on.
    pub fn restart(&mut self) {
        self.longest_ns = 0;
        self.answers = 0;
    }

    /// The longest since the last restart, in nanoseconds.
    pub fn longest_ns(&self) -> u64 {
        self.longest_ns
    }

    /// Writes acknowledged since the last restart.
    pub fn answers(&self) -> u64 {
        self.answers
    }
}

/// Everything counted in a run. An operation is one get or put; a request carries one or several.
#[derive(Clone, Debug)]
pub struct Measurements {
    /// Of requests that write.
    pub writes: Latencies,
    /// Of requests that read.
    pub reads: Latencies,
    /// Of both, since it was last shown.
    pub recent: Latencies,
    /// Requests in each op.
    pub batches: BatchSizes,
    /// Operations answered.
    pub operations: u64,
    /// Operations answered since they were last shown.
    pub recent_operations: u64,
    /// Writes acknowledged.
    pub acknowledged: u64,
    /// Writes whose outcome is unknown.
    pub indeterminate: u64,
    /// Operations that had no effect: refused, not sent, or a read unanswered.
    pub failed: u64,
    /// Reads that did not show the last acknowledged write of their key.
    pub stale: u64,
    /// From the first request to the last answer, in nanoseconds.
    pub elapsed_ns: u64,
    /// How long nothing was acknowledged.
    pub gap: Gap,
    /// The first failure, for people.
    pub first_failure: Option<String>,
}

impl Measurements {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            writes: Latencies::new(),
            reads: Latencies::new(),
            recent: Latencies::new(),
            batches: BatchSizes::new(),
            operations: 0,
            recent_operations: 0,
            acknowledged: 0,
            indeterminate: 0,
            failed: 0,
            stale: 0,
            elapsed_ns: 0,
            gap: Gap::default(),
            first_failure: None,
        }
    }

    /// Operations answered in a second, on average.
    pub fn throughput(&self) -> f64 {
        if self.elapsed_ns == 0 {
            return 0.0;
        }
        self.operations as f64 * 1e9 / self.elapsed_ns as f64
    }

    /// As [`Measurements::throughput`], whole.
    pub fn throughput_whole(&self) -> u64 {
        let scaled = u128::from(self.operations) * 1_000_000_000;
        (scaled / u128::from(self.elapsed_ns.max(1))) as u64
    }

    /// Writes and reads together.
    pub fn all(&self) -> Latencies {
        let mut all = self.writes.clone();
        let added = all.histogram.add(&self.reads.histogram);
        added.expect("both have the same bounds");
        all
    }
}

impl Default for Measurements {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_batches_are_summed_up() {
        let mut latencies = Latencies::new();
        for us in 1..=1000 {
            latencies.record(us * 1000);
        }
        assert!((latencies.us(0.5) - 500.0).abs() < 1.0);
        assert!((latencies.us(0.999) - 999.0).abs() < 2.0);
        latencies.record(u64::MAX);
        assert!(latencies.us(1.0) >= 59e6);
        let mut batches = BatchSizes::new();
        for op in [1, 1, 1, 2, 3, 3] {
            batches.record(op);
        }
        assert_eq!(batches.summary(), (2.0, 2, 3));
    }

    #[test]
    fn times_and_sizes_are_for_people() {
        assert_eq!(human_us(1.234), "1.23 µs");
        assert_eq!(human_us(45.6), "45.6 µs");
        assert_eq!(human_us(7890.0), "7.89 ms");
        assert_eq!(human_us(123_456_789.0), "123 s");
        assert_eq!(human_bytes(1000), "1000 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(3 << 30), "3.0 GiB");
    }
}
