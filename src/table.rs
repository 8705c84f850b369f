//! A hash table of fixed capacity, keyed by the random 128-bit ids of clients.
//!
//! Open addressing with linear probing and backward-shift deletion: no tombstones, so it never degrades and never
//! grows. Its iteration order is never observable: there is no iterator.

/// Maps at most `capacity` ids to values. Id zero is not allowed.
#[derive(Debug)]
pub struct Table<V> {
    slots: Box<[(u128, V)]>,
    len: usize,
    capacity: usize,
}

impl<V: Copy + Default> Table<V> {
    /// An empty table.
    pub fn new(capacity: usize) -> Self {
        let slots = (capacity * 2).next_power_of_two().max(8);
        Self {
            slots: vec![(0, V::default()); slots].into_boxed_slice(),
            len: 0,
            capacity,
        }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no further key fits.
    pub fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// The value of a key.
    pub fn get(&self, key: u128) -> Option<&V> {
        let index = self.find(key);
        (self.slots[index].0 == key).then(|| &self.slots[index].1)
    }

    /// The value of a key, writable.
    pub fn get_mut(&mut self, key: u128) -> Option<&mut V> {
        let index = self.find(key);
        (self.slots[index].0 == key).then(|| &mut self.slots[index].1)
    }

    /// Sets the value of a key; a new key must fit.
    pub fn insert(&mut self, key: u128, value: V) {
        let index = self.find(key);
        if self.slots[index].0 == 0 {
            assert!(!self.is_full());
            self.len += 1;
        }
        self.slots[index] = (key, value);
    }

    /// Removes a key.
    pub fn remove(&mut self, key: u128) -> Option<V> {
        let mut hole = self.find(key);
        if self.slots[hole].0 != key {
            return None;
        }
        let value = self.slots[hole].1;
        let mask = self.slots.len() - 1;
        let mut index = hole;
        loop {
            index = (index + 1) & mask;
            let next = self.slots[index].0;
            if next == 0 {
                break;
            }
            // An entry may fill the hole only if its home is not between the hole and itself.
            if (index.wrapping_sub(self.home(next)) & mask) >= (index.wrapping_sub(hole) & mask) {
                self.slots[hole] = self.slots[index];
                hole = index;
            }
        }
        self.slots[hole] = (0, V::default());
        self.len -= 1;
        Some(value)
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.slots.fill((0, V::default()));
        self.len = 0;
    }

    fn home(&self, key: u128) -> usize {
        let folded = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (folded >> 32) as usize & (self.slots.len() - 1)
    }

    /// The slot that holds `key`, or the empty one where it would go.
    fn find(&self, key: u128) -> usize {
        assert!(key != 0);
        let mut index = self.home(key);
        while self.slots[index].0 != key && self.slots[index].0 != 0 {
            index = (index + 1) & (self.slots.len() - 1);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn agrees_with_a_btree_map(ops in proptest::collection::vec((1u128..40, any::<bool>(), any::<u32>()), 0..400)) {
            let mut table = Table::new(40);
            let mut model = BTreeMap::new();
            for (key, insert, value) in ops {
                let key = key << 64 | key; // folds to few homes: collisions are frequent
                if insert {
                    table.insert(key, value);
                    model.insert(key, value);
                } else {
                    prop_assert_eq!(table.remove(key), model.remove(&key));
                }
                prop_assert_eq!(table.len(), model.len());
                for key in (1u128..40).map(|key| key << 64 | key) {
                    prop_assert_eq!(table.get(key), model.get(&key));
                }
            }
        }
    }
}
