//! Cursors of SCAN: 64-bit numbers that stand for keys.
//!
//! A scan goes on behind the last key of the answer before, which a number cannot hold. So the gateway keeps the keys of
//! the last [`CURSORS_MAX`] answers. A cursor is a place in that table and how often the place has been used; when the table
//! is full the oldest goes, and a client that comes back with it is told to begin anew. A cursor may be used several
//! times, by any connection of the same gateway; another gateway does not know it.

/// How many cursors are remembered: 4,096 keys of at most 512 bytes, two megabytes.
pub const CURSORS_MAX: usize = 4096;

/// Bits of a cursor that name its place.
const PLACE_BITS: u32 = CURSORS_MAX.trailing_zeros();

const _: () = assert!(CURSORS_MAX.is_power_of_two());

/// The table.
#[derive(Debug, Default)]
pub struct Cursors {
    keys: Vec<(u64, Box<[u8]>)>,
    /// Cursors handed out so far.
    count: u64,
}

impl Cursors {
    /// A cursor that stands for this key, never zero. The oldest is forgotten if there are too many.
    pub fn insert(&mut self, key: &[u8]) -> u64 {
        let place = (self.count % CURSORS_MAX as u64) as usize;
        let round = self.count / CURSORS_MAX as u64 + 1;
        self.count += 1;
        let cursor = round << PLACE_BITS | place as u64;
        let entry = (cursor, key.into());
        match self.keys.get_mut(place) {
            Some(old) => *old = entry,
            None => self.keys.push(entry),
        }
        cursor
    }

    /// The key that a cursor stands for, if it is remembered.
    pub fn key(&self, cursor: u64) -> Option<&[u8]> {
        let place = (cursor % CURSORS_MAX as u64) as usize;
        let (found, key) = self.keys.get(place)?;
        (*found == cursor).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_cursors_are_remembered() {
        let mut cursors = Cursors::default();
        assert_eq!(cursors.key(0), None);
        let all: Vec<u64> = (0..CURSORS_MAX as u32 + 2)
            .map(|number| cursors.insert(&number.to_le_bytes()))
            .collect();
        assert!(all.iter().all(|&cursor| cursor != 0));
        for (number, &cursor) in all.iter().enumerate() {
            let expected = (number as u32).to_le_bytes();
            let expected = (number >= 2).then_some(&expected[..]);
            assert_eq!(cursors.key(cursor), expected);
        }
        assert_eq!(cursors.key(u64::MAX), None);
    }
}
