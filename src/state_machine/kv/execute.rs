//! Executing items: what each does, and what it answers.

use super::answer::Answer;
use super::demand::Demand;
use super::store::{Meta, RECORD_HEADER_SIZE, Record, resolve};
use super::wire::{
    Condition, ExpiryCondition, Item, Items, SetCondition, SetOptions, Status, Target, Transaction,
    ValueKind,
};
use super::{Kv, Pages};

/// Longest decimal number of 64 bits: a sign and 19 digits.
pub(super) const NUMBER_SIZE_MAX: usize = 20;

/// What an item that changes finds of its key.
struct Found {
    /// Of the record, expired or not; zero if there is none.
    indexed: u64,
    /// Whether there is a record, expired or not.
    is_stored: bool,
    /// Of the record, if it is not expired.
    live: Option<Meta>,
}

impl Found {
    fn new(kv: &Kv, pages: &Pages, key: &[u8], now: u64) -> Self {
        let meta = kv.record(pages, key).map(|record| record.meta);
        Self {
            indexed: meta.map_or(0, |meta| meta.expiry),
            is_stored: meta.is_some(),
            live: meta.filter(|meta| !meta.is_expired(now)),
        }
    }

    /// The version that a condition sees: zero if there is no such key.
    fn version(&self) -> u64 {
        self.live.map_or(0, |meta| meta.version)
    }

    /// The size of the value; zero if there is no such key.
    fn size(&self) -> usize {
        self.live.map_or(0, |meta| meta.size)
    }

    /// The expiry of the key; zero: none.
    fn expiry(&self) -> u64 {
        self.live.map_or(0, |meta| meta.expiry)
    }
}

/// The decimal number that a value is, as [`format`] would write it.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !is_canonical || text.len() > NUMBER_SIZE_MAX {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn format(number: i64, buffer: &mut [u8; NUMBER_SIZE_MAX]) -> &[u8] {
    let mut at = buffer.len();
    let mut left = number.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

/// The bytes that a range means: both ends may count from the end, and what is outside of the value is left out.
pub(super) fn range_of(size: usize, start: i64, end: i64) -> std::ops::Range<usize> {
    let size = signed(size);
    let from_start = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    // As Redis has it: ends that cross each other are nothing, though both before the value they would mean its first byte.
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let start = from_start(start).max(0);
    let end = from_start(end).max(0).min(size - 1);
    if start > end {
        return 0..0;
    }
    let place = |at: i64| usize::try_from(at).expect("within the value");
    place(start)..place(end) + 1
}

/// A size as a number that items answer.
fn signed(size: usize) -> i64 {
    i64::try_from(size).expect("a value is smaller than a message")
}

/// Reading.
impl Kv {
    fn holds(&self, pages: &Pages, now: u64, condition: &Condition<'_>) -> bool {
        let record = self.live(pages, condition.key, now);
        match condition.target {
            Target::Version(version) => {
                let found = record.map_or(0, |record| record.meta.version);
                condition.comparison.holds(found.cmp(&version))
            }
            Target::Value(value) => match record {
                Some(record) if record.meta.kind == ValueKind::Bytes => {
                    condition.comparison.holds(record.compare(value))
                }
                _ => condition.comparison == super::wire::Comparison::NotEqual,
            },
        }
    }

    /// Which list of a transaction is to be executed.
    fn branch<'a>(
        &self,
        pages: &Pages,
        now: u64,
        transaction: &Transaction<'a>,
    ) -> (Status, Items<'a>) {
        let holds = |condition| self.holds(pages, now, &condition);
        if transaction.conditions().all(holds) {
            (Status::Succeeded, transaction.then())
        } else {
            (Status::Failed, transaction.otherwise())
        }
    }

    /// Answers an item that reads; false if it is not one.
    pub(super) fn read_item(
        &self,
        pages: &Pages,
        now: u64,
        item: &Item<'_>,
        answer: &mut Answer<'_, '_>,
    ) -> bool {
        let read =
            |answer: &mut Answer<'_, '_>, key, push: &dyn Fn(&mut Answer<'_, '_>, Record<'_>)| {
                match self.live(pages, key, now) {
                    Some(record) if record.meta.kind == ValueKind::Bytes => push(answer, record),
                    Some(_) => answer.status(Status::WrongType),
                    None => answer.status(Status::NotFound),
                }
            };
        match *item {
            Item::Get { key, size_max } => read(answer, key, &|answer, record| {
                answer.value(Status::Value, &record, size_max);
            }),
            Item::Stat { key } => match self.live(pages, key, now) {
                Some(record) => answer.stat(&record),
                None => answer.status(Status::NotFound),
            },
            Item::GetRange {
                key,
                start,
                end,
                size_max,
            } => read(answer, key, &|answer, record| {
                let range = range_of(record.meta.size, start, end);
                answer.bytes(Status::Value, &record, range, size_max);
            }),
            Item::Count => {
                let count = self.count_at(pages, now);
                answer.number(Status::Number, count.cast_signed());
            }
            Item::Collection { key, ref action } if action.is_read() => {
                self.read_collection(pages, now, key, action, answer);
            }
            Item::Transaction(transaction) if item.is_read() => {
                let (status, items) = self.branch(pages, now, &transaction);
                answer.transaction(status, items);
                for item in items {
                    answer.turn_to(&item);
                    assert!(self.read_item(pages, now, &item, answer));
                }
            }
            _ => return false,
        }
        true
    }
}

/// Changing. The pages that an item may need are free.
impl Kv {
    /// Executes an item of a request, if there is space for it.
    pub(super) fn commit_item(
        &mut self,
        pages: &mut Pages,
        now: u64,
        item: &Item<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        answer.turn_to(item);
        let Item::Transaction(transaction) = item else {
            let demand = Demand::of(item, self.value_size_max());
            if self.has_space(pages, demand.pages_new(pages.count())) {
                self.execute(pages, now, item, answer);
            } else {
                answer.status(Status::OutOfSpace);
            }
            return;
        };
        let (status, items) = self.branch(pages, now, transaction);
        let demand = Demand::of_all(items, self.value_size_max());
        if !self.has_space(pages, demand.pages_new(pages.count())) {
            return answer.status(Status::OutOfSpace);
        }
        answer.transaction(status, items);
        for item in items {
            answer.turn_to(&item);
            self.execute(pages, now, &item, answer);
        }
    }

    fn execute(
        &mut self,
        pages: &mut Pages,
        now: u64,
        item: &Item<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        if self.read_item(pages, now, item, answer) {
            return;
        }
        if item
            .value()
            .is_some_and(|value| value.len() > self.value_size_max())
        {
            return answer.status(Status::TooLong);
        }
        match *item {
            Item::Put { key, value } => {
                let indexed = self.expiry_indexed(pages, key);
                self.set(pages, key, value, indexed, 0);
                answer.status(Status::Done);
            }
            Item::Delete { key } => self.delete(pages, now, key, answer),
            Item::CompareAndSet {
                key,
                expected,
                value,
            } => self.compare_and_set(pages, now, key, expected, value, answer),
            Item::Set {
                key,
                value,
                options,
            } => self.set_if(pages, now, key, value, options, answer),
            Item::Take { key, size_max } => self.take(pages, now, key, size_max, answer),
            Item::SetRange { key, offset, value } => {
                self.write_bytes(pages, now, key, Some(offset as usize), value, answer);
            }
            Item::Append { key, value } => self.write_bytes(pages, now, key, None, value, answer),
            Item::Increment { key, delta } => self.increment(pages, now, key, delta, answer),
            Item::Expire { .. } => self.expire(pages, now, item, answer),
            Item::Rename { key, to, if_absent } => {
                self.rename_if(pages, now, key, to, if_absent, answer);
            }
            Item::Collection { key, ref action } => {
                self.change_collection(pages, now, key, action, answer);
            }
            Item::Clear => {
                self.clear(pages);
                answer.status(Status::Done);
            }
            Item::Get { .. }
            | Item::Stat { .. }
            | Item::GetRange { .. }
            | Item::Count
            | Item::Transaction(_) => unreachable!("reads were answered, and decoding nests none"),
        }
    }

    fn delete(&mut self, pages: &mut Pages, now: u64, key: &[u8], answer: &mut Answer<'_, '_>) {
        let found = Found::new(self, pages, key, now);
        if found.is_stored {
            self.remove(pages, key, found.indexed);
        }
        if found.live.is_some() {
            self.revision += 1;
            answer.status(Status::Done);
        } else {
            answer.status(Status::NotFound);
        }
    }

    fn take(
        &mut self,
        pages: &mut Pages,
        now: u64,
        key: &[u8],
        size_max: u32,
        answer: &mut Answer<'_, '_>,
    ) {
        let Some(record) = self.live(pages, key, now) else {
            return answer.status(Status::NotFound);
        };
        if record.meta.kind != ValueKind::Bytes {
            return answer.status(Status::WrongType);
        }
        let indexed = record.meta.expiry;
        if answer.value(Status::DoneValue, &record, size_max) {
            self.remove(pages, key, indexed);
            self.revision += 1;
        }
    }

    fn compare_and_set(
        &mut self,
        pages: &mut Pages,
        now: u64,
        key: &[u8],
        expected: Option<&[u8]>,
        value: &[u8],
        answer: &mut Answer<'_, '_>,
    ) {
        let found = Found::new(self, pages, key, now);
        let matches = match (self.live(pages, key, now), expected) {
            (None, None) => true,
            (Some(record), Some(expected)) => {
                record.meta.kind == ValueKind::Bytes && record.equals(expected)
            }
            _ => false,
        };
        if matches {
            self.set(pages, key, value, found.indexed, 0);
            answer.status(Status::Done);
        } else {
            answer.mismatch(found.version());
        }
    }

    fn set_if(
        &mut self,
        pages: &mut Pages,
        now: u64,
        key: &[u8],
        value: &[u8],
        options: SetOptions,
        answer: &mut Answer<'_, '_>,
    ) {
        let found = Found::new(self, pages, key, now);
        let holds = match options.condition {
            SetCondition::Always => true,
            SetCondition::Absent => found.live.is_none(),
            SetCondition::Present => found.live.is_some(),
            SetCondition::Version(version) => found.version() == version,
        };
        match self.live(pages, key, now).filter(|_| options.old) {
            Some(record) if record.meta.kind != ValueKind::Bytes => {
                return answer.status(Status::WrongType);
            }
            Some(record) => {
                let status = if holds {
                    Status::DoneValue
                } else {
                    Status::MismatchValue
                };
                if !answer.value(status, &record, u32::MAX) {
                    return;
                }
            }
            None if holds => answer.status(Status::Done),
            None => answer.mismatch(found.version()),
        }
        if !holds {
            return;
        }
        match resolve(options.expiry, found.expiry(), now) {
            Some(expiry) if expiry <= now => {
                if found.is_stored {
                    self.remove(pages, key, found.indexed);
                }
                self.revision += 1;
            }
            expiry => self.set(pages, key, value, found.indexed, expiry.unwrap_or(0)),
        }
    }

    /// Overwrites bytes at an offset, or adds them at the end.
    fn write_bytes(
        &mut self,
        pages: &mut Pages,
        now: u64,
        key: &[u8],
        offset: Option<usize>,
        bytes: &[u8],
        answer: &mut Answer<'_, '_>,
    ) {
        let found = Found::new(self, pages, key, now);
        let size = found.size();
        if found.live.is_some_and(|meta| meta.kind != ValueKind::Bytes) {
            return answer.status(Status::WrongType);
        }
        if offset.is_some() && bytes.is_empty() {
            return answer.number(Status::Number, signed(size));
        }
        let offset = offset.unwrap_or(size);
        let new_size = size.max(offset + bytes.len());
        if new_size > self.value_size_max() {
            return answer.status(Status::TooLong);
        }
        if found.live.is_none() {
            // Versions are of what is done: the one that is made here is this change's.
            self.set(pages, key, &[], found.indexed, 0);
            self.splice(pages, key, 0, offset, bytes);
        } else {
            self.splice(pages, key, size, offset, bytes);
            self.touch(pages, key, found.indexed, found.indexed);
        }
        answer.number(Status::DoneNumber, signed(new_size));
    }

    fn increment(
        &mut self,
        pages: &mut Pages,
        now: u64,
        key: &[u8],
        delta: i64,
        answer: &mut Answer<'_, '_>,
    ) {
        let found = Found::new(self, pages, key, now);
        let number = match self.live(pages, key, now) {
            None => Some(0),
            Some(record) if record.meta.kind != ValueKind::Bytes => {
                return answer.status(Status::WrongType);
            }
            Some(record) if record.meta.size > NUMBER_SIZE_MAX => None,
            // A short record lies in one piece.
            Some(record) => record.pieces(0).next().and_then(parse),
        };
        let Some(number) = number else {
            return answer.status(Status::NotANumber);
        };
        let Some(sum) = number.checked_add(delta) else {
            return answer.status(Status::Overflow);
        };
        let mut buffer = [0; NUMBER_SIZE_MAX];
        let text = format(sum, &mut buffer);
        self.set(pages, key, text, found.indexed, found.expiry());
        answer.number(Status::DoneNumber, sum);
    }

    fn expire(
        &mut self,
        pages: &mut Pages,
        now: u64,
        item: &Item<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        let Item::Expire {
            key,
            expiry,
            condition,
            size_max,
        } = *item
        else {
            unreachable!("the caller looked");
        };
        let Some(record) = self.live(pages, key, now) else {
            return answer.status(Status::NotFound);
        };
        let meta = record.meta;
        if size_max.is_some() && meta.kind != ValueKind::Bytes {
            return answer.status(Status::WrongType);
        }
        let new = resolve(expiry, meta.expiry, now);
        // None is later than all.
        let old = Some(meta.expiry).filter(|&it| it != 0).unwrap_or(u64::MAX);
        let later = new.unwrap_or(u64::MAX).cmp(&old);
        let holds = match condition {
            ExpiryCondition::Always => true,
            ExpiryCondition::Absent => meta.expiry == 0,
            ExpiryCondition::Present => meta.expiry != 0,
            ExpiryCondition::Later => later.is_gt(),
            ExpiryCondition::Earlier => later.is_lt(),
            ExpiryCondition::PresentEarlier => meta.expiry != 0 && later.is_lt(),
        };
        match (size_max, holds) {
            (Some(size_max), true) => {
                if !answer.value(Status::DoneValue, &record, size_max) {
                    return;
                }
            }
            (Some(size_max), false) => {
                answer.value(Status::MismatchValue, &record, size_max);
            }
            (None, true) => answer.status(Status::Done),
            (None, false) => answer.mismatch(meta.version),
        }
        if !holds {
            return;
        }
        match new {
            Some(new) if new <= now => {
                self.remove(pages, key, meta.expiry);
                self.revision += 1;
            }
            new => self.touch(pages, key, meta.expiry, new.unwrap_or(0)),
        }
    }

    fn rename_if(
        &mut self,
        pages: &mut Pages,
        now: u64,
        from: &[u8],
        to: &[u8],
        if_absent: bool,
        answer: &mut Answer<'_, '_>,
    ) {
        let Some(moved) = self.live(pages, from, now).map(|record| record.meta) else {
            return answer.status(Status::NotFound);
        };
        let target = Found::new(self, pages, to, now);
        if if_absent && target.live.is_some() {
            return answer.mismatch(target.version());
        }
        if from == to {
            self.touch(pages, to, moved.expiry, moved.expiry);
        } else {
            self.rename(pages, from, to, moved.expiry, target.indexed);
        }
        answer.status(Status::Done);
    }
}

// What a number needs lies in a leaf, so an increment plans no pages of values.
const _: () = assert!(
    RECORD_HEADER_SIZE + NUMBER_SIZE_MAX <= storage::collections::ordered_map::VALUE_INLINE_MAX
);
