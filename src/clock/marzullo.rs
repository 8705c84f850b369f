//! Marzullo's algorithm: of several intervals that each claim to hold one value, the smallest that most of them share.
//!
//! K. Marzullo, *Maintaining the Time in a Distributed System*, Stanford, 1984. A source whose interval does not hold
//! the true value can only be outvoted, never averaged in: what most sources share is inside the interval of at least
//! one right one as long as the wrong ones are fewer.

use storage::layout::REPLICAS_MAX;

/// What one source claims: the value is between these two, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interval {
    /// The least it can be.
    pub low: i128,
    /// The most it can be.
    pub high: i128,
}

impl Interval {
    /// The same, wider by `by` at both ends.
    #[must_use]
    pub fn widened(self, by: i128) -> Self {
        assert!(by >= 0 && self.low <= self.high);
        Self {
            low: self.low - by,
            high: self.high + by,
        }
    }

    /// How far its ends are apart.
    pub fn width(self) -> i128 {
        self.high - self.low
    }

    /// Whether there is a value in both.
    pub fn meets(self, other: Self) -> bool {
        self.low <= other.high && other.low <= self.high
    }
}

/// The interval that most of `sources` share, the smallest such, and how many share it; none if there are no sources.
/// Intervals that touch in one value share it.
pub fn agreement(sources: &[Interval]) -> Option<(Interval, usize)> {
    assert!(sources.len() <= REPLICAS_MAX);
    assert!(sources.iter().all(|source| source.low <= source.high));
    // What a set of intervals shares begins where one of them begins. So each beginning is tried, and the interval goes
    // on until the first of those that hold it ends. Quadratic in at most six.
    let mut best: Option<(Interval, usize)> = None;
    for &Interval { low, .. } in sources {
        let holding = || {
            sources
                .iter()
                .filter(|source| (source.low..=source.high).contains(&low))
        };
        let count = holding().count();
        let high = holding().map(|source| source.high).min();
        let shared = Interval {
            low,
            high: high.expect("it holds its own beginning"),
        };
        let better = best.is_none_or(|(interval, most)| {
            count > most || count == most && shared.width() < interval.width()
        });
        if better {
            best = Some((shared, count));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn intervals(ends: &[(i128, i128)]) -> Vec<Interval> {
        let interval = |&(low, high)| Interval { low, high };
        ends.iter().map(interval).collect()
    }

    fn assert_agreement(sources: &[(i128, i128)], shared: (i128, i128), count: usize) {
        let (low, high) = shared;
        assert_eq!(
            agreement(&intervals(sources)),
            Some((Interval { low, high }, count))
        );
    }

    #[test]
    fn most_sources_win() {
        assert_eq!(agreement(&[]), None);
        assert_agreement(&[(3, 9)], (3, 9), 1);
        // The examples of the literature.
        assert_agreement(&[(8, 12), (11, 13), (10, 12)], (11, 12), 3);
        assert_agreement(&[(8, 12), (11, 13), (14, 15)], (11, 12), 2);
        // Two falsetickers, each elsewhere.
        assert_agreement(
            &[(0, 10), (5, 12), (8, 20), (100, 101), (-7, -6)],
            (8, 10),
            3,
        );
    }

    #[test]
    fn touching_ends_agree() {
        assert_agreement(&[(0, 5), (5, 9)], (5, 5), 2);
        assert_agreement(&[(0, 0), (0, 0)], (0, 0), 2);
    }

    #[test]
    fn of_equal_agreements_the_smallest_wins() {
        assert_agreement(&[(0, 10), (2, 9), (20, 25), (22, 30)], (22, 25), 2);
    }

    fn sources() -> impl Strategy<Value = Vec<Interval>> {
        let one = (-20..20_i128, 0..12_i128).prop_map(|(low, width)| Interval {
            low,
            high: low + width,
        });
        proptest::collection::vec(one, 1..=REPLICAS_MAX)
    }

    proptest! {
        /// Against the definition, point by point.
        #[test]
        fn it_is_what_the_definition_says(sources in sources()) {
            let holders = |at: i128| {
                sources.iter().filter(|source| source.low <= at && at <= source.high).count()
            };
            let most = (-40..60).map(holders).max().expect("not empty");
            let (interval, count) = agreement(&sources).expect("there are sources");
            prop_assert_eq!(count, most);
            prop_assert!((interval.low..=interval.high).all(|at| holders(at) >= most));
            // A run of points with most holders whose holders do not change is never smaller than the result.
            let mut start = -40;
            for at in -40..60_i128 {
                let set = |at: i128| -> Vec<bool> {
                    sources.iter().map(|source| source.low <= at && at <= source.high).collect()
                };
                if set(at) != set(start) {
                    start = at;
                }
                if holders(start) == most && set(at + 1) != set(start) {
                    prop_assert!(interval.width() <= at - start);
                }
            }
        }
    }
}
