//! The only source of randomness: xoshiro256++ from one u64 seed.
//!
//! The generator is fixed by name and everything drawn from it is computed here, so a seed replays the same run with
//! every release of every dependency. Parts that draw at their own pace have a generator of their own ([`Prng::fork`]):
//! one more draw by the network then does not change what the disks do.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// A deterministic generator.
#[derive(Clone, Debug)]
pub struct Prng {
    generator: Xoshiro256PlusPlus,
}

impl Prng {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            generator: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }

    /// An independent generator, seeded by the next draw.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.generator.next_u64()
    }

    /// 128 random bits.
    pub fn next_u128(&mut self) -> u128 {
        (u128::from(self.bits()) << 64) | u128::from(self.bits())
    }

    /// A number below `bound`, which is positive. By multiplication: the bias is below 2^-32 for every bound used.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high);
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.bits(),
        }
    }

    /// An index below `bound`.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// True in so many cases of a million.
    pub fn chance(&mut self, parts_per_million: u32) -> bool {
        assert!(parts_per_million <= MILLION);
        // No draw for a fault that is off: its seed then runs as if the fault did not exist.
        parts_per_million > 0 && self.below(u64::from(MILLION)) < u64::from(parts_per_million)
    }

    /// True or false, evenly.
    pub fn coin(&mut self) -> bool {
        self.bits() >> 63 == 1
    }

    /// An exponentially distributed number with this mean, at most 16 times the mean. In integers only: floating-point
    /// logarithms differ between platforms, and a seed must not.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        // -log2 of a uniform 64-bit fraction: the leading zeros are its integer part, and the following bits its
        // fractional part by the linear approximation log2(1 + x) = x, which errs by less than 0.09.
        let fraction = self.bits() | 1;
        let zeros = u64::from(fraction.leading_zeros());
        let mantissa = ((fraction << zeros) >> 32) & 0x7fff_ffff;
        let log2 = (zeros << 31) + (0x8000_0000 - mantissa); // in units of 2^-31
        let scaled = (u128::from(mean) * u128::from(log2) * 1_488_522_236) >> 62; // times ln 2 = 1488522236 / 2^31
        (scaled as u64).min(mean.saturating_mul(16))
    }

    /// One of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// Puts the items into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.index(index + 1));
        }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Certainty, in parts per million.
pub const MILLION: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_for_ever() {
        // Changing any of these makes every recorded seed another run.
        let mut prng = Prng::new(42);
        assert_eq!(prng.bits(), 0xd076_4d4f_4476_689f);
        assert_eq!(prng.range(10, 20), 13);
        assert_eq!(prng.exponential(1_000_000), 22_327);
        let mut items = [0, 1, 2, 3, 4, 5];
        prng.shuffle(&mut items);
        assert_eq!(items, [5, 1, 0, 2, 3, 4]);
    }

    #[test]
    fn ranges_are_reached_and_kept() {
        let mut prng = Prng::new(1);
        let mut seen = [0u32; 7];
        for _ in 0..7000 {
            seen[prng.range(3, 9) as usize - 3] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)));
        assert_eq!(prng.range(5, 5), 5);
        assert!(!prng.chance(0));
        assert!(prng.chance(MILLION));
    }

    #[test]
    fn exponential_has_its_mean_and_its_tail() {
        let mut prng = Prng::new(2);
        let draws: Vec<u64> = (0..100_000).map(|_| prng.exponential(1000)).collect();
        let mean = draws.iter().sum::<u64>() / 100_000;
        assert!((930..=1070).contains(&mean), "{mean}");
        let beyond = draws.iter().filter(|&&draw| draw > 3000).count();
        assert!((4000..6000).contains(&beyond), "{beyond}"); // e^-3 = 4.98 %
    }

    #[test]
    fn forks_are_independent_of_later_draws() {
        let mut first = Prng::new(3);
        let mut second = first.clone();
        let mut fork_of_first = first.fork();
        let mut fork_of_second = second.fork();
        first.bits();
        assert_eq!(fork_of_first.bits(), fork_of_second.bits());
        assert_ne!(first.bits(), second.bits());
    }
}
