//! A power cut at every point of a scenario: the harness of the storage crash tests.
//!
//! A *scenario* drives storage code against a [`Tape`], which is a disk that remembers its state before every request
//! and every completion. It notes in the tape's `facts` what the storage code has promised so far (acknowledged up to
//! here, begun up to there). [`explore`] then takes each remembered point, cuts the power there in every possible way
//! (or, where there are too many ways, in all extreme ones and a random sample), and hands the resulting disk and the
//! facts of that point to a *check*, which opens the disk as the storage code would after a restart, and asserts.
//!
//! Between two disk events the state of the disk does not change and promises only grow, so a point before each event,
//! and one at the end, are all there are.

use crate::disk::{Disk, DiskSpeed, DiskState, Tear};
use crate::prng::Prng;
use storage::io::{IoDone, IoQueue, IoRequest};

/// A disk that remembers.
#[derive(Debug)]
pub struct Tape<F> {
    disk: Disk,
    now_ns: u64,
    /// What the scenario has been promised, or has asked for, so far.
    pub facts: F,
    points: Vec<(DiskState, F)>,
}

impl<F: Clone> Tape<F> {
    /// A tape over a disk that holds `state`. The order of completions is drawn from the generator.
    pub fn new(state: DiskState, facts: F, mut prng: Prng) -> Self {
        // Latencies whose tail is much longer than their minimum, so that completions overtake each other.
        let speed = DiskSpeed {
            write_min_ns: 1,
            write_mean_ns: 1000,
            read_min_ns: 1,
            read_mean_ns: 1000,
            ..DiskSpeed::INSTANT
        };
        Self {
            disk: Disk::with_state(state, speed, prng.fork()),
            now_ns: 0,
            facts,
            points: Vec::new(),
        }
    }

    fn remember(&mut self) {
        let state = self.disk.state();
        self.points.push((state.clone(), self.facts.clone()));
    }

    /// Begins a request.
    pub fn submit(&mut self, request: IoRequest) {
        if !matches!(request, IoRequest::Read { .. }) {
            self.remember();
        }
        self.disk.submit(self.now_ns, request);
    }

    /// Begins everything that is queued.
    pub fn submit_all(&mut self, queue: &mut IoQueue) {
        while let Some(request) = queue.pop() {
            self.submit(request);
        }
    }

    /// Completes the next request; none if nothing is in flight.
    pub fn complete(&mut self) -> Option<IoDone> {
        self.now_ns = self.disk.next_completion_ns()?;
        self.remember();
        self.disk.complete(self.now_ns)
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }
}

/// How thorough to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thoroughness {
    /// Points with at most so many outcomes are tried exhaustively; of others this many are sampled.
    pub outcomes_max: u64,
    /// What tears.
    pub tear: Tear,
    /// Seed of the samples and of the order of completions.
    pub seed: u64,
}

/// Where in a scenario the power was cut, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Where {
    /// Number of the point, from 0.
    pub point: usize,
    /// Number of the outcome at this point, from 0.
    pub outcome: u64,
}

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Coverage {
    /// Points at which the power was cut.
    pub points: usize,
    /// Of them, points of which every outcome was tried.
    pub exhaustive: usize,
    /// Outcomes tried.
    pub outcomes: u64,
    /// Most undecided units at a point.
    pub undecided_max: usize,
    /// Outcomes in which a write in flight landed in part.
    pub torn: u64,
    /// Outcomes in which a completed write was lost.
    pub lost: u64,
}

/// Runs `scenario` on a disk that holds `state`, then `check` on every outcome of a power cut at every point of it.
pub fn explore<F: Clone>(
    thoroughness: Thoroughness,
    state: DiskState,
    facts: F,
    scenario: impl FnOnce(&mut Tape<F>),
    mut check: impl FnMut(DiskState, &F, Where),
) -> Coverage {
    let mut prng = Prng::new(thoroughness.seed);
    let mut tape = Tape::new(state, facts, prng.fork());
    scenario(&mut tape);
    tape.remember();
    let mut coverage = Coverage::default();
    for (point, (state, facts)) in tape.points.iter().enumerate() {
        let cut = state.cut(thoroughness.tear);
        let candidates: Vec<u32> = cut.undecided().iter().map(|unit| unit.candidates).collect();
        let mut choices = Choices::new(&candidates, thoroughness.outcomes_max, prng.fork());
        coverage.points += 1;
        coverage.exhaustive += usize::from(choices.is_exhaustive());
        coverage.undecided_max = coverage.undecided_max.max(candidates.len());
        let mut number = 0;
        while let Some(chosen) = choices.next() {
            let mut chosen = chosen.iter();
            let outcome = cut.decide(|_| *chosen.next().expect("one choice for each unit"));
            coverage.outcomes += 1;
            coverage.torn += u64::from(outcome.torn > 0);
            coverage.lost += u64::from(outcome.unsynced_lost > 0);
            let place = Where {
                point,
                outcome: number,
            };
            check(outcome.state, facts, place);
            number += 1;
        }
    }
    coverage
}

/// All combinations of choices, or a sample that contains the extremes: all oldest, all newest, and each unit alone
/// oldest and alone newest.
#[derive(Debug)]
struct Choices<'a> {
    candidates: &'a [u32],
    current: Vec<u32>,
    /// Combinations; none: too many, so they are sampled.
    total: Option<u64>,
    samples: u64,
    produced: u64,
    prng: Prng,
}

impl<'a> Choices<'a> {
    fn new(candidates: &'a [u32], outcomes_max: u64, prng: Prng) -> Self {
        let product = candidates.iter().try_fold(1u64, |product, &count| {
            product.checked_mul(u64::from(count))
        });
        Self {
            candidates,
            current: vec![0; candidates.len()],
            total: product.filter(|&product| product <= outcomes_max),
            samples: outcomes_max,
            produced: 0,
            prng,
        }
    }

    fn is_exhaustive(&self) -> bool {
        self.total.is_some()
    }

    fn next(&mut self) -> Option<&[u32]> {
        if self.produced == self.total.unwrap_or(self.samples) {
            return None;
        }
        if self.total.is_some() {
            if self.produced > 0 {
                self.count_up();
            }
        } else {
            self.sample();
        }
        self.produced += 1;
        Some(&self.current)
    }

    /// The next combination, as an odometer with one wheel for each unit.
    fn count_up(&mut self) {
        for (digit, &count) in self.current.iter_mut().zip(self.candidates) {
            *digit += 1;
            if *digit < count {
                return;
            }
            *digit = 0;
        }
        unreachable!("as many combinations as the product of the counts");
    }

    fn sample(&mut self) {
        let units = self.candidates.len() as u64;
        let (oldest, newest) = match self.produced {
            0 => (true, None),
            1 => (false, None),
            n if n < 2 + units => (true, Some((n - 2) as usize)),
            n if n < 2 + 2 * units => (false, Some((n - 2 - units) as usize)),
            _ => {
                for (choice, &count) in self.current.iter_mut().zip(self.candidates) {
                    *choice = self.prng.below(u64::from(count)) as u32;
                }
                return;
            }
        };
        for (index, (choice, &count)) in self.current.iter_mut().zip(self.candidates).enumerate() {
            let take_oldest = oldest != (Some(index) == newest);
            *choice = if take_oldest { 0 } else { count - 1 };
        }
    }
}

#[cfg(test)]
mod tests;
