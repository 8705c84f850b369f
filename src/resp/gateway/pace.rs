//! When a batch leaves: at once, or a moment later with more in it.
//!
//! A request costs the cluster nearly the same, whether it holds one command or a hundred: a write of each replica's journal,
//! and messages. Clients that call one after the other, whose replies left together, come back together, but not at the same
//! moment; if the first of them left alone, the others would wait for it. So a batch waits for those who were in flight at the
//! same time a moment ago, for a quarter of what a request takes at most; a client that is alone never waits. And a small batch
//! waits while another is under way. (docs/performance.md has what it brings.)

/// Longest that a batch waits for company.
const PATIENCE_MAX_NS: u64 = 250_000;

/// What is small: less than this part of the company.
const SHARE: usize = 2;

/// Patience with what is under way, in patiences: it may take long to come back, as when there is no primary.
const PATIENCES: u64 = 16;

/// Of the batches of one kind.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Connections that had something in flight or in a batch at the same time, lately.
    company: usize,
    /// Connections that have something in flight.
    flying: usize,
    /// Requests in flight.
    requests: usize,
    /// What a request takes, on average.
    latency_ns: u64,
    /// Since when there is a batch that does not leave.
    since_ns: Option<u64>,
}

impl Pace {
    /// Whether a batch of these connections is to leave now.
    pub fn is_due(&mut self, now: u64, here: usize) -> bool {
        if self.flying + here >= self.company {
            return true;
        }
        self.since_ns.get_or_insert(now);
        now >= self.wake_ns(here)
    }

    /// When a batch of these connections leaves at the latest.
    pub fn wake_ns(&self, here: usize) -> u64 {
        let Some(since_ns) = self.since_ns else {
            return u64::MAX; // there is none
        };
        let patience_ns = (self.latency_ns / 4).min(PATIENCE_MAX_NS);
        let is_small = here * SHARE < self.company;
        if is_small && self.requests > 0 {
            since_ns + PATIENCES * patience_ns
        } else {
            since_ns + patience_ns
        }
    }

    /// A batch of these connections leaves.
    pub fn leaves(&mut self, here: usize) {
        self.since_ns = None;
        self.requests += 1;
        self.flying += here;
        let fewer = self.company - self.company.div_ceil(8);
        self.company = self.flying.max(fewer);
    }

    /// One has come back.
    pub fn returns(&mut self, here: usize, took_ns: u64) {
        self.requests -= 1;
        self.flying -= here;
        self.latency_ns = (7 * self.latency_ns + took_ns) / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK_NS: u64 = 400_000;
    const PATIENCE_NS: u64 = TOOK_NS / 4;

    /// A pace that has seen so many connections together, and long enough how long a request takes.
    fn with_company(count: usize) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.leaves(count);
            pace.returns(count, TOOK_NS);
        }
        assert!(pace.latency_ns.abs_diff(TOOK_NS) < 100);
        pace.latency_ns = TOOK_NS;
        pace
    }

    #[test]
    fn who_is_alone_never_waits() {
        let mut pace = with_company(1);
        for now in 0..100 {
            assert!(pace.is_due(now, 1));
            pace.leaves(1);
            pace.returns(1, TOOK_NS);
        }
    }

    #[test]
    fn the_first_waits_for_the_others_and_not_for_ever() {
        let mut pace = with_company(10);
        assert!(!pace.is_due(1000, 1));
        assert!(!pace.is_due(1001, 9));
        assert_eq!(pace.wake_ns(9), 1000 + PATIENCE_NS);
        assert!(pace.is_due(1002, 10), "all are here");
        assert!(pace.is_due(1000 + PATIENCE_NS, 1), "it has waited");
        pace.leaves(1);
        assert_eq!(pace.wake_ns(0), u64::MAX);
        assert_eq!(pace.company, 8, "no more were seen, so fewer are expected");
        assert!(!pace.is_due(5000, 6));
        assert!(pace.is_due(5000, 7), "the eighth is under way");
    }

    #[test]
    fn a_small_batch_waits_while_another_is_under_way() {
        let mut pace = with_company(100);
        pace.leaves(30);
        assert_eq!(pace.company, 87);
        assert!(!pace.is_due(0, 43) && !pace.is_due(PATIENCE_NS, 43));
        assert!(pace.is_due(PATIENCE_NS, 44), "not small");
        assert!(pace.is_due(16 * PATIENCE_NS, 1), "not for ever");
        pace.returns(30, TOOK_NS);
        assert!(pace.is_due(PATIENCE_NS, 43), "it has come back");
    }

    #[test]
    fn company_that_has_left_is_not_waited_for_long() {
        let mut pace = with_company(512);
        let mut waited = 0;
        while !pace.is_due(0, 1) {
            waited += 1;
            pace.leaves(1);
            pace.returns(1, TOOK_NS);
        }
        assert!(waited < 50, "{waited}");
    }
}
