//! Requests and replies of the key-value machine: what clients encode and the machine decodes, and the reverse.
//!
//! All numbers are little-endian; nothing is aligned. Decoding is total: bytes that are not exactly a request or
//! a reply give none.
//!
//! # Requests
//!
//! | number | operation | body |
//! | --- | --- | --- |
//! | 1 2 3 4 8 to 18, 20 | of one key or of the store (below) | one item, whose operation byte is the same number |
//! | 7 | batch | one or more items, one behind the other |
//! | 5 | scan | below |
//! | 6 | count | nothing |
//! | 19 | random | 8 bytes: any number, best a random one |
//!
//! A request is one entry of the log, executed as a whole or not at all. A request of items is a **read**, answered without
//! the log, if each item only reads (get, stat, get_range, count, and transactions of those); so are scan, count and random.
//! The items of a batch are executed in order and independent: each has its result, and none undoes another. Only a
//! transaction stands or falls as one; a batch may hold several beside other items.
//!
//! An **item** is
//!
//! ```text
//! offset  size  content
//!      0     1  operation
//!      1     1  flags
//!      2     2  key size: 0 to 512
//!      4     4  value size, or what the list below says
//!      8     8  argument
//!     16        second argument (8 bytes, only where the list has one), key, value, expected value
//! ```
//!
//! What the list does not name is zero. "As get" is the most bytes of the value that the reply may hold: the item has no
//! value then.
//!
//! * **1 get**: value size as get. Results: value, not_found, too_large.
//! * **2 put** sets a value, which never expires. Value. Results: done, too_long.
//! * **3 delete**. Results: done, not_found.
//! * **4 compare_and_set** puts if the key has a value. Value, then the expected value, whose size is the argument;
//!   0xffff_ffff: the key is to be absent. Results: done, mismatch, too_long.
//! * **6 count**: keys in the store. No key. Result: number.
//! * **8 set** puts with conditions. Flags: bits 0-1 expiry kind; 2-3 condition: 0 none, 1 absent, 2 present, 3
//!   version; 4 old value wanted. Argument of the expiry; second argument only with condition 3: the version (zero:
//!   absent). Value. Results: done, mismatch, too_long; if the old value is wanted and there is one, done_value,
//!   mismatch_value or too_large instead.
//! * **9 take** gets and deletes: value size as get. Results: done_value, not_found, too_large.
//! * **10 stat**: everything but the value. Results: stat, not_found.
//! * **11 get_range**: bytes of a value, from the argument (i64) to the second argument (i64), included; negative: from
//!   the end, -1 is the last; what is outside is left out. Value size as get. Results: value, not_found, too_large.
//! * **12 set_range** overwrites bytes from the argument on, after zeros if the value is shorter. Value: the bytes.
//!   Results: done_number, the new size; number, the size, if there are no bytes to write; too_long.
//! * **13 append**. Value: the bytes. Results: done_number, the new size; too_long.
//! * **14 increment** adds the argument (i64) to a value that is a decimal i64; an absent one is 0. Results:
//!   done_number, the sum; not_a_number, overflow.
//! * **15 expire** sets or clears the expiry. Flags: bits 0-1 expiry kind, not keep; 2-4 condition: 0 none, 1 no
//!   expiry, 2 has one, 3 becomes later, 4 becomes earlier, 5 has one that becomes earlier; 5 value wanted: then value
//!   size as get. Argument of the expiry. Results: done, mismatch, not_found; if the value is wanted, done_value,
//!   mismatch_value or too_large instead of the first two.
//! * **16 rename** moves value and expiry to another key, the item's value; what that had is gone. Flags: bit 0 only if
//!   it is absent. Results: done, not_found, mismatch.
//! * **17 clear** deletes all keys. No key. Result: done.
//! * **18 transaction**. Instead of the key size: the number of conditions; value size: of all that follows; argument:
//!   items if the conditions hold (u32), items if not (u32). Results: succeeded, failed.
//! * **20 collection**: an action on a hash, a set, a list or a sorted set (below).
//!
//! Each that changes may also have the result out_of_space, and those that look into values wrong_type.
//!
//! set_range, append and increment keep the expiry of a key; everything else that sets a value clears it, unless a set says
//! keep. Numbers that increment reads are as it writes them: no blanks, no plus sign, no leading zeros, not -0.
//!
//! **Expiry kinds**: 0 never; 1 keep what the key has; 2 at the argument, in milliseconds since 1970; 3 in so many
//! milliseconds from the time of the op. Both are at most 2^56 - 1. A key is expired when the op's replicated time (of
//! a read: that of the last commit) has reached the expiry; from then on it is absent for everything. Setting an expiry
//! that is already reached deletes the key (and is done).
//!
//! **Conditions on the expiry**: a key without one counts as later than all.
//!
//! A **transaction**'s conditions come behind its header, then the items for the case that all hold, then the items for the
//! other case. An item of a transaction is anything but a transaction. A **condition** is
//!
//! ```text
//!      0     1  1: compares the version (zero if the key is absent), 2: compares the value
//!      1     1  1 equal, 2 not equal, 3 less, 4 greater. An absent key's value is not equal to any, and not less or greater
//!      2     2  key size
//!      4     4  value size, if it is compared; else zero
//!      8     8  version, if it is compared; else zero
//!     16        key, value
//! ```
//!
//! so "present" is version > 0, "absent" version = 0. A collection's value is not equal to any.
//!
//! # Collections
//!
//! A key holds bytes (kind 0), a hash (1), a set (2), a list (3) or a sorted set (4). An action on a collection answers
//! wrong_type for a key that holds something else, and makes the key if there is none; a key whose collection is empty is absent.
//! Actions keep the expiry of a key. Items that read or change bytes answer wrong_type for a collection; those that replace or
//! delete a key, and those about its version or expiry, do not ask what it holds.
//!
//! The item's flags are the action; its value size is that of all behind the key; behind its header comes
//!
//! ```text
//!      0     1  kind, for actions 1 to 4, 6 and 7; else zero
//!      1     1  options
//!      2     2  member size: 0 to 512
//!      4     4  most bytes of values or members in the result ("as get")
//!      8     8  second number
//!     16     8  third number
//!     24        key, member, value
//! ```
//!
//! and the argument is the first number. Numbers are signed where places are meant; what the list does not name is zero.
//!
//! * **1 length**. Result: number; 0 if there is no such key.
//! * **2 insert** a member of a set or a field of a hash, with its value. Option 1: not over a field that is there. Results:
//!   done_number: 1 if it is new, else 0; number 0 if nothing was changed; too_long.
//! * **3 remove** a member. Results: done_number 1; number 0.
//! * **4 find** a member: as get. Results: value (of a set nothing, of a sorted set the score), not_found, too_large.
//! * **5 add** the first number to a field. Results as of increment.
//! * **6 members** in the order of their bytes: as get, at most as many as the first number. Options: bits 0-1 bound as of a
//!   scan, which is the member; 2 with values. Results: members (each followed by its value if wanted), not_found.
//! * **7 pick** some member, which the first number decides. Option 1: it is removed. Results: value, done_value, not_found.
//! * **8 push** a value at an end of a list. Options: bit 0 the last end, 1 only if the key is there. Results: done_number, the
//!   length; number 0; too_long.
//! * **9 pop**: as get. Option 1: the last end. Results: done_value, not_found, too_large.
//! * **10 at** the place that the first number is; negative: from the end. As get. Results: value, not_found, too_large.
//! * **11 replace** the element there by the value. Results: done; not_found: no such key; mismatch: no such place; too_long.
//! * **12 range** from the first number to the second, included: as get. Results: members, not_found.
//! * **13 trim** to that range. Results: done; not_found; too_large, with their number for a size, if more than 256 elements
//!   would have to be removed, and not all.
//! * **14 score**: the first number (ordered bits of a double) becomes the score of the member. Options: bits 0-1 1 only if it
//!   is absent, 2 only if it is there; 2-3 one that is there only gets 1 less, 2 greater; 4 add it to what is there. Results:
//!   done_number: 1 if it is new, 0 if its score has changed; number 0 if nothing has. If it is added: done_value or, of what
//!   would not change, value: the score; not_found if a condition does not hold; not_a_number for infinity less infinity.
//! * **15 rank** of a member. Option 1: from the greatest. Results: number, not_found, too_large.
//! * **16 by_rank**: members and scores from the first number to the second, included; as get. Option 1: from the greatest.
//!   Results: members, not_found, too_large.
//! * **17 by_score**: members and scores from the first number to the second; as get. Third number: how many are passed over
//!   (high half), how many are wanted (low half). Options: bits 0-1 and 2-3 the bounds as of a scan, 4 from the greatest.
//!   Results: members (more: there was no room), not_found, too_large.
//! * **18 count_scores** from the first number to the second. Options: the same bounds. Results: number, not_found, too_large.
//! * **19 pop_score**: removes the member with the least score; option 1: the greatest. Results: done_value: score (8 bytes),
//!   member; not_found.
//! * **20 take** as many elements of a list as the first number says, from 1 to 256, or as there are, from the end on: as get.
//!   Option 1: the last end. Results: done_members, not_found; too_large: all or none.
//! * **21 move** an element to another list, whose key is the member: as get. Options: bit 0 from the last end, 1 to the last
//!   end, 2 it is not wanted. It is one change of both keys. Results: done_value, done if it is not wanted, not_found,
//!   too_large, wrong_type of either key.
//!
//! Scores are told as 8 bytes, little-endian: the bits of a double, so changed that they order as numbers do
//! ([`Score::to_ordered`]). Places are not stored, but counted: actions 15 to 18 answer too_large, with the length of the set for
//! a size, if more than [`RANK_MAX`] members lie between the place of 15, or the first one of 16, and the nearer end; if 17 is to
//! pass over more of them; if 18 has more within its bounds, and also outside.
//!
//! A **scan** is
//!
//! ```text
//!      0     1  1: in reverse order; else zero
//!      1     1  1: without values; else zero
//!      2     1  lower bound: 0 none, 1 included, 2 excluded
//!      3     1  upper bound, the same
//!      4     2  size of the lower bound: 0 to 512
//!      6     2  size of the upper bound
//!      8     4  most entries, from 1
//!     12     4  most bytes of the reply: from 560, or zero for as many as the limits allow
//!     16        lower bound, upper bound
//! ```
//!
//! # Replies
//!
//! All begin with
//!
//! ```text
//!      0     1  1 done, or 6 invalid: then nothing follows
//!      1     1  scan: 1 if the range goes on behind the last entry; else zero
//!      2     2  zero
//!      4     4  results or entries that follow
//!      8     8  revision of the store; of a write: before it
//! ```
//!
//! A count has the number of keys (8 bytes) behind that; it and the item of the same name leave out keys that are expired
//! and not yet removed, up to 1,024 of them. A request of items has one **result** for each, in order:
//!
//! ```text
//!  1 done            nothing                         changed; the key's new version is one above the revision before the item
//!  2 value           version (8), size (4), value    found
//!  3 not_found       nothing                         there is no such key
//!  4 mismatch        version (8)                     the condition does not hold; the version is that of the key (of a rename:
//!                                                    of the new key), zero if it is absent
//!  5 too_large       version (8), size (4)           the value does not fit the reply or is longer than wanted
//!  6 invalid         nothing                         not understood
//!  7 done_value      as value                        changed; the value is what was before, of an expire what is
//!  8 mismatch_value  as value                        the condition does not hold
//!  9 done_number     i64                             changed
//! 10 number          i64
//! 11 stat            version (8), expiry in ms (8,   found
//!                    zero: none), size (4; of a
//!                    collection its length),
//!                    kind (1)
//! 12 not_a_number    nothing                         the value is no decimal i64
//! 13 overflow        nothing                         the sum is no i64
//! 14 too_long        nothing                         the value would be longer than a value may be
//! 15 wrong_type      nothing                         the key holds something else than the item is for
//! 16 out_of_space    nothing                         not enough pages are free for the item at its worst
//! 17 succeeded       count (2), so many results      the conditions held
//! 18 failed          count (2), so many results      they did not
//! 19 members         version (8), count (4), more    so many byte strings: size (4), bytes. More: 1 if others are behind
//!                    (1), byte strings               them that had no room or were not wanted
//! 20 done_members    as members                      changed; they are gone
//! ```
//!
//! Unless it says "changed" (and but for transactions), nothing was changed.
//!
//! Each done, done_value, done_number and done_members raises the revision by one, and nothing else does: that is how a reader
//! of the reply knows their versions. Scan and random have entries:
//!
//! ```text
//!      0     2  key size
//!      2     1  1: without its value, because nobody wanted it or because not even one entry had room for it
//!               2: no key, but the place where the scan stopped, among too many expired keys: to go on from
//!      3     1  kind
//!      4     4  value size; of a collection its length: it is always without its value
//!      8     8  version
//!     16        key, value
//! ```
//!
//! # Limits
//!
//! Keys have 0 to 512 bytes, values up to [`super::value_size_max`]: the message size less some 900 bytes. The reply to a write
//! is at most the geometry's reply size (3,840 bytes unless formatted otherwise), to a read what a message holds. Values
//! that find no room in a reply give too_large; what an item's result may take without values ([`Item::result_size`]) must
//! fit, else the request is invalid, and so is one that may touch too many pages, or has more than [`WALKS_MAX`] items that may
//! pass over more than [`WALK_MIN`] members: 15, 18, 16 from a place farther from its end, 17 with a greater offset. **Up to 300
//! items** of any kind but these, rename, move, score, take, trim (four of them are) and transactions (which count as their
//! items), with values of together 64 KiB, are valid in every geometry of the default's size or larger, if their results fit.

mod collection;
mod item;
mod reply;
mod transaction;

pub use collection::{
    Action, End, MEMBERS_RESULT_SIZE, RANK_MAX, Score, ScoreCondition, TRIM_MAX, ValueKind,
    WALK_MIN, WALKS_MAX, places_of,
};
pub use item::{Expiry, ExpiryCondition, Item, Items, SetCondition, SetOptions};
pub use reply::{
    BatchReply, CountReply, Entry, ItemReply, Members, ReplyHeader, Results, ScanReply,
};
pub(super) use reply::{ENTRY_NO_KEY, ENTRY_OMITTED, EntryHeader};
use std::ops::Bound;
pub use transaction::{Comparison, Condition, Conditions, Target, Transaction, TransactionBytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest key, in bytes. The expiry index has 8 more in each of its keys.
pub const KEY_SIZE_MAX: usize = 512;

const _: () = assert!(KEY_SIZE_MAX + 8 <= storage::collections::ordered_map::KEY_SIZE_MAX);

/// Bytes of an item before its key, without a second argument.
pub const ITEM_HEADER_SIZE: usize = 16;

/// Bytes that every reply begins with.
pub const REPLY_HEADER_SIZE: usize = 16;

/// Bytes of a scan's entry before its key.
pub const ENTRY_HEADER_SIZE: usize = 16;

/// Bytes of a result with a value, before the value.
pub const VALUE_RESULT_SIZE: usize = 13;

/// Least limit of a scan's reply: a header, and one entry with the longest key and 16 bytes.
pub const SCAN_SIZE_MIN: usize = REPLY_HEADER_SIZE + ENTRY_HEADER_SIZE + KEY_SIZE_MAX + 16;

/// Largest expiry: what its 7 bytes in a stored value hold, in milliseconds.
pub const EXPIRY_MAX: u64 = (1 << 56) - 1;

/// What the machine does; the low byte of a request's operation, and the first byte of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Operation {
    /// Reads a value.
    Get = 1,
    /// Sets a value.
    Put = 2,
    /// Removes a key.
    Delete = 3,
    /// Sets a value if the key has the expected one, or is absent as expected.
    CompareAndSet = 4,
    /// Reads keys in order.
    Scan = 5,
    /// Counts the keys.
    Count = 6,
    /// Executes items in order, each for itself.
    Batch = 7,
    /// Sets a value on a condition, with an expiry, and tells the old one.
    Set = 8,
    /// Reads a value and removes the key.
    Take = 9,
    /// Reads everything but the value.
    Stat = 10,
    /// Reads bytes of a value.
    GetRange = 11,
    /// Overwrites bytes of a value.
    SetRange = 12,
    /// Adds bytes to a value.
    Append = 13,
    /// Adds to a value that is a number.
    Increment = 14,
    /// Sets or clears the expiry.
    Expire = 15,
    /// Moves a value to another key.
    Rename = 16,
    /// Removes all keys.
    Clear = 17,
    /// Executes one list of items or another.
    Transaction = 18,
    /// Reads some key.
    Random = 19,
    /// Does something with a collection.
    Collection = 20,
}

impl Operation {
    /// The operation of a request; none if there is none of that number.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Get,
            2 => Self::Put,
            3 => Self::Delete,
            4 => Self::CompareAndSet,
            5 => Self::Scan,
            6 => Self::Count,
            7 => Self::Batch,
            8 => Self::Set,
            9 => Self::Take,
            10 => Self::Stat,
            11 => Self::GetRange,
            12 => Self::SetRange,
            13 => Self::Append,
            14 => Self::Increment,
            15 => Self::Expire,
            16 => Self::Rename,
            17 => Self::Clear,
            18 => Self::Transaction,
            19 => Self::Random,
            20 => Self::Collection,
            _ => return None,
        })
    }
}

/// How an item, or a request, ended. The table of results has their meanings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Status {
    /// It was done. An item that is done raised the revision by one, and made the key's new version of it.
    Done = 1,
    /// The key's value follows.
    Value = 2,
    /// There is no such key.
    NotFound = 3,
    /// The condition does not hold. The key's version is told; zero if it is absent.
    Mismatch = 4,
    /// The value is longer than the reply may be. Its version and size are told. Nothing was changed.
    TooLarge = 5,
    /// The request is malformed.
    Invalid = 6,
    /// It was done; the value that was before follows.
    DoneValue = 7,
    /// The condition does not hold; the value follows.
    MismatchValue = 8,
    /// It was done; a number follows.
    DoneNumber = 9,
    /// A number follows.
    Number = 10,
    /// Version, expiry, size and type follow.
    Stat = 11,
    /// The value is no number. Nothing was changed.
    NotANumber = 12,
    /// The sum is no 64-bit number. Nothing was changed.
    Overflow = 13,
    /// The value would be too long. Nothing was changed.
    TooLong = 14,
    /// The value is not of the kind that the item is for. Nothing was changed.
    WrongType = 15,
    /// Too few pages are free. Nothing was changed.
    OutOfSpace = 16,
    /// The conditions of the transaction held: the results of the first list follow.
    Succeeded = 17,
    /// They did not: the results of the second list follow.
    Failed = 18,
    /// Members or elements follow.
    Members = 19,
    /// It was done; elements that are gone follow.
    DoneMembers = 20,
}

impl Status {
    const ALL: [Self; 20] = [
        Self::Done,
        Self::Value,
        Self::NotFound,
        Self::Mismatch,
        Self::TooLarge,
        Self::Invalid,
        Self::DoneValue,
        Self::MismatchValue,
        Self::DoneNumber,
        Self::Number,
        Self::Stat,
        Self::NotANumber,
        Self::Overflow,
        Self::TooLong,
        Self::WrongType,
        Self::OutOfSpace,
        Self::Succeeded,
        Self::Failed,
        Self::Members,
        Self::DoneMembers,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL
            .get(usize::from(byte).checked_sub(1)?)
            .copied()
            .filter(|&status| status as u8 == byte)
    }

    /// Whether the item changed its key, and raised the revision.
    pub fn is_done(self) -> bool {
        matches!(
            self,
            Self::Done | Self::DoneValue | Self::DoneNumber | Self::DoneMembers
        )
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ScanHeader {
    reverse: u8,
    keys_only: u8,
    from_bound: u8,
    to_bound: u8,
    from_size: u16,
    to_size: u16,
    count_max: u32,
    size_max: u32,
}

static_assertions::const_assert_eq!(size_of::<ScanHeader>(), 16);

/// A scan. To go on behind a reply that says `more`, scan again with the last entry's key as an excluded bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scan<'a> {
    /// Lower bound, of at most 512 bytes.
    pub from: Bound<&'a [u8]>,
    /// Upper bound, of at most 512 bytes. See [`prefix_end`] for the keys with a prefix.
    pub to: Bound<&'a [u8]>,
    /// From the upper bound down.
    pub reverse: bool,
    /// Without values.
    pub keys_only: bool,
    /// Most entries, from 1.
    pub count_max: u32,
    /// Most bytes of the reply, from [`SCAN_SIZE_MIN`]; zero: as many as the limits allow.
    pub size_max: u32,
}

fn bound_parts(bound: Bound<&[u8]>) -> (u8, &[u8]) {
    match bound {
        Bound::Unbounded => (0, &[]),
        Bound::Included(key) => (1, key),
        Bound::Excluded(key) => (2, key),
    }
}

fn bound(kind: u8, key: &[u8]) -> Option<Bound<&[u8]>> {
    match kind {
        0 if key.is_empty() => Some(Bound::Unbounded),
        1 => Some(Bound::Included(key)),
        2 => Some(Bound::Excluded(key)),
        _ => None,
    }
}

impl<'a> Scan<'a> {
    /// Everything, in order.
    pub const ALL: Self = Self {
        from: Bound::Unbounded,
        to: Bound::Unbounded,
        reverse: false,
        keys_only: false,
        count_max: u32::MAX,
        size_max: 0,
    };

    /// Appends it to a request's body.
    pub fn encode(&self, body: &mut Vec<u8>) {
        let ((from_bound, from), (to_bound, to)) = (bound_parts(self.from), bound_parts(self.to));
        let header = ScanHeader {
            reverse: u8::from(self.reverse),
            keys_only: u8::from(self.keys_only),
            from_bound,
            to_bound,
            from_size: from.len() as u16,
            to_size: to.len() as u16,
            count_max: self.count_max,
            size_max: self.size_max,
        };
        body.extend_from_slice(header.as_bytes());
        body.extend_from_slice(from);
        body.extend_from_slice(to);
    }

    /// The scan that a body is.
    pub fn decode(body: &'a [u8]) -> Option<Self> {
        let (header, rest) = ScanHeader::read_from_prefix(body).ok()?;
        let (from, to) = rest.split_at_checked(usize::from(header.from_size))?;
        let holds = to.len() == usize::from(header.to_size)
            && from.len() <= KEY_SIZE_MAX
            && to.len() <= KEY_SIZE_MAX
            && header.reverse <= 1
            && header.keys_only <= 1
            && header.count_max > 0
            && (header.size_max == 0 || header.size_max as usize >= SCAN_SIZE_MIN);
        if !holds {
            return None;
        }
        Some(Self {
            from: bound(header.from_bound, from)?,
            to: bound(header.to_bound, to)?,
            reverse: header.reverse == 1,
            keys_only: header.keys_only == 1,
            count_max: header.count_max,
            size_max: header.size_max,
        })
    }
}

/// The upper bound of the keys that begin with `prefix`, made in `buffer`.
pub fn prefix_end<'a>(prefix: &[u8], buffer: &'a mut [u8; KEY_SIZE_MAX]) -> Bound<&'a [u8]> {
    let Some(last) = prefix.iter().rposition(|&byte| byte < u8::MAX) else {
        return Bound::Unbounded;
    };
    buffer[..=last].copy_from_slice(&prefix[..=last]);
    buffer[last] += 1;
    Bound::Excluded(&buffer[..=last])
}
