//! A bitset of fixed capacity.

/// `capacity` bits, all clear at first; the words are allocated once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits {
    words: Box<[u64]>,
    capacity: usize,
    count: usize,
}

impl Bits {
    /// A set that holds indexes below `capacity`.
    pub fn new(capacity: usize) -> Self {
        Self {
            words: vec![0; capacity.div_ceil(64)].into_boxed_slice(),
            capacity,
            count: 0,
        }
    }

    /// How many bits the set can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bits are set.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether no bit is set.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether `index` is set.
    pub fn contains(&self, index: usize) -> bool {
        assert!(index < self.capacity);
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    /// Sets `index`; true if it was clear.
    pub fn insert(&mut self, index: usize) -> bool {
        let new = !self.contains(index);
        self.words[index / 64] |= 1 << (index % 64);
        self.count += usize::from(new);
        new
    }

    /// Clears `index`; true if it was set.
    pub fn remove(&mut self, index: usize) -> bool {
        let old = self.contains(index);
        self.words[index / 64] &= !(1 << (index % 64));
        self.count -= usize::from(old);
        old
    }

    /// Clears every bit.
    pub fn clear(&mut self) {
        self.words.fill(0);
        self.count = 0;
    }

    /// Makes this set equal to another of the same capacity.
    pub fn copy_from(&mut self, other: &Self) {
        assert_eq!(self.capacity, other.capacity);
        self.words.copy_from_slice(&other.words);
        self.count = other.count;
    }

    /// Makes this set the union of two others of the same capacity.
    pub fn union_from(&mut self, left: &Self, right: &Self) {
        assert_eq!(self.capacity, left.capacity);
        assert_eq!(self.capacity, right.capacity);
        self.count = 0;
        let pairs = left.words.iter().zip(&right.words);
        for (word, (left, right)) in self.words.iter_mut().zip(pairs) {
            *word = left | right;
            self.count += word.count_ones() as usize;
        }
    }

    /// The lowest set index at or after `from`.
    pub fn next_set(&self, from: usize) -> Option<usize> {
        self.next(from, |word| word)
    }

    /// The lowest clear index at or after `from`.
    pub fn next_clear(&self, from: usize) -> Option<usize> {
        self.next(from, |word| !word)
            .filter(|&index| index < self.capacity)
    }

    fn next(&self, from: usize, view: impl Fn(u64) -> u64) -> Option<usize> {
        if from >= self.capacity {
            return None;
        }
        let mut word_index = from / 64;
        let mut word = view(self.words[word_index]) & (u64::MAX << (from % 64));
        while word == 0 {
            word_index += 1;
            word = view(*self.words.get(word_index)?);
        }
        Some(word_index * 64 + word.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_set_and_next_clear_agree_with_a_scan() {
        let mut bits = Bits::new(200);
        for index in [0, 3, 63, 64, 65, 127, 199] {
            assert!(bits.insert(index));
            assert!(!bits.insert(index));
        }
        for from in 0..210 {
            let set = (from..200).find(|&i| bits.contains(i));
            let clear = (from..200).find(|&i| !bits.contains(i));
            assert_eq!((bits.next_set(from), bits.next_clear(from)), (set, clear));
        }
        assert_eq!(bits.count(), 7);
        assert!(bits.remove(63) && !bits.remove(63));
        let mut other = Bits::new(200);
        other.insert(0);
        other.insert(1);
        let mut union = Bits::new(200);
        union.union_from(&bits, &other);
        assert_eq!(union.count(), 7); // six and two, with one in common
        assert!((0..200).all(|i| union.contains(i) == (bits.contains(i) || other.contains(i))));
        other.copy_from(&bits);
        assert_eq!(other, bits);
        bits.clear();
        assert!(bits.is_empty() && bits.next_set(0).is_none());
    }
}
