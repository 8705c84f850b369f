//! Changes of a part of a value, and of a key: cheaper than to read all of a value and write it anew.

use super::leaf::Cell;
use super::{OrderedMap, VALUE_INLINE_MAX, leaf, value};
use crate::pages::Pages;

impl OrderedMap {
    /// Overwrites bytes that a key's value has. Changes the pages where they are, and nothing else.
    pub fn write_at(&mut self, pages: &mut Pages, key: &[u8], offset: usize, bytes: &[u8]) {
        let (path, found) = self.descend(pages, key);
        assert!(found, "the caller has found the key");
        let (leaf, index) = path.leaf();
        let cell = leaf::cell(pages.read(leaf), index);
        assert!(offset + bytes.len() <= cell.value_size as usize);
        match value::chain(cell) {
            Some(first) => value::overwrite(pages, first, offset, bytes),
            None => leaf::payload_mut(pages.write(leaf), index)[offset..offset + bytes.len()]
                .copy_from_slice(bytes),
        }
    }

    /// Adds zeros, and then bytes, to the end of a key's value. Beside the new bytes' pages it changes what an insert of the
    /// key does, and the value's last page.
    pub fn extend(&mut self, pages: &mut Pages, key: &[u8], zeros: usize, bytes: &[u8]) {
        let (path, found) = self.descend(pages, key);
        assert!(found, "the caller has found the key");
        let (leaf, index) = path.leaf();
        let cell = leaf::cell(pages.read(leaf), index);
        let size = cell.value_size as usize;
        let new_size = size + zeros + bytes.len();
        let value_size = u32::try_from(new_size).expect("a value is smaller than a message");
        let chain = value::chain(cell);
        let mut inline = [0; VALUE_INLINE_MAX];
        if chain.is_none() {
            inline[..size].copy_from_slice(cell.payload);
        }
        let chain_bytes;
        let payload: &[u8] = if leaf::is_inline(value_size) {
            inline[size + zeros..new_size].copy_from_slice(bytes);
            &inline[..new_size]
        } else {
            let first = chain.unwrap_or_else(|| value::begin(pages, &inline[..size]));
            value::extend(pages, first, size, zeros, bytes);
            chain_bytes = first.0.to_le_bytes();
            &chain_bytes
        };
        let cell = Cell {
            key,
            value_size,
            payload: &[payload],
        };
        self.place(pages, &path, true, cell);
    }

    /// Moves the value of a key to another key, over what that had. The value's own pages stay where they are.
    pub fn rename(&mut self, pages: &mut Pages, from: &[u8], to: &[u8]) {
        assert!(from != to);
        let (path, found) = self.descend(pages, from);
        assert!(found, "the caller has found the key");
        let (leaf, index) = path.leaf();
        let cell = leaf::cell(pages.read(leaf), index);
        let (value_size, payload_size) = (cell.value_size, cell.payload.len());
        let mut payload = [0; VALUE_INLINE_MAX];
        payload[..payload_size].copy_from_slice(cell.payload);
        leaf::remove(pages.write(leaf), index);
        self.count -= 1;
        self.rebalance_leaf(pages, &path);
        let (path, found) = self.descend_to_insert(pages, to);
        if let Some(first) = self.chain_at(pages, &path, found) {
            value::free(pages, first);
        }
        let cell = Cell {
            key: to,
            value_size,
            payload: &[&payload[..payload_size]],
        };
        self.place(pages, &path, found, cell);
    }
}
