//! Lists: elements at places, which are numbers in a row.
//!
//! The first element of a new list lies in the middle of all numbers, the others before and behind it: 2^63 pushes at one end
//! are more than any store lives to see. Nothing is ever put between two elements, so none ever moves, and each action costs
//! the same however long the list is.

use super::{Descriptor, Opened, Place};
use crate::state_machine::kv::answer::Answer;
use crate::state_machine::kv::wire::{Action, End, Status, TRIM_MAX};
use crate::state_machine::kv::{Kv, Pages};
use std::ops::{Bound, Range};

/// Place of a new list's first element.
const MIDDLE: u64 = 1 << 63;

/// Where the element of an index lies; of the length, where the next one would.
fn place(descriptor: &Descriptor, index: u64) -> Place {
    let place = descriptor.first + index;
    Place::of(descriptor.number, &place.to_be_bytes())
}

/// A place counted from the first element; negative, if it was before that.
fn from_first(count: u64, place: i64) -> i64 {
    if place < 0 {
        place + count.cast_signed()
    } else {
        place
    }
}

/// The index that a place means, if there is such an element.
fn index_of(count: u64, place: i64) -> Option<u64> {
    let index = u64::try_from(from_first(count, place)).ok()?;
    (index < count).then_some(index)
}

/// The indexes from one place to another, included: what is outside of the list is left out.
fn indexes_of(count: u64, start: i64, stop: i64) -> Range<u64> {
    let start = from_first(count, start).max(0).cast_unsigned();
    match u64::try_from(from_first(count, stop)) {
        Ok(stop) if start <= stop && start < count => start..stop.min(count - 1) + 1,
        _ => 0..0,
    }
}

/// Reading.
impl Kv {
    /// Answers an action that reads.
    pub(super) fn read_list(
        &self,
        pages: &Pages,
        descriptor: &Descriptor,
        version: u64,
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        match *action {
            Action::At { index, size_max } => match index_of(descriptor.count, index) {
                Some(index) => {
                    let place = place(descriptor, index);
                    self.answer_element(pages, &place, Status::Value, version, size_max, answer);
                }
                None => answer.status(Status::NotFound),
            },
            Action::Range {
                start,
                stop,
                size_max,
            } => {
                let indexes = indexes_of(descriptor.count, start, stop);
                let (from, to) = (
                    place(descriptor, indexes.start),
                    place(descriptor, indexes.end),
                );
                let (from, to) = (Bound::Included(from.bytes()), Bound::Excluded(to.bytes()));
                let mut elements = answer.members(version, size_max);
                for (_, element) in self.members.range(pages, from, to, false) {
                    if !elements.push_element(element) {
                        break;
                    }
                }
            }
            _ => unreachable!("{action:?} changes something, or is of another kind"),
        }
    }

    /// An element, or that it does not fit; true if it does.
    fn answer_element(
        &self,
        pages: &Pages,
        place: &Place,
        status: Status,
        version: u64,
        size_max: u32,
        answer: &mut Answer<'_, '_>,
    ) -> bool {
        let element = self.members.get(pages, place.bytes());
        let element = element.expect("a list has an element at each of its places");
        answer.stored(status, version, element, size_max)
    }
}

/// Changing.
impl Kv {
    /// Executes an action that changes something.
    pub(super) fn change_list(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        opened: Opened,
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        match *action {
            Action::Push {
                end,
                value,
                if_present,
            } => {
                if if_present && opened.version == 0 {
                    return answer.number(Status::Number, 0);
                }
                let count = self.push(pages, key, opened, end, value);
                answer.number(Status::DoneNumber, count.cast_signed());
            }
            _ if opened.version == 0 => answer.status(Status::NotFound),
            Action::Pop { end, size_max } => self.pop(pages, key, opened, end, size_max, answer),
            Action::Replace { index, value } => {
                let Some(index) = index_of(opened.descriptor.count, index) else {
                    return answer.mismatch(opened.version);
                };
                let place = place(&opened.descriptor, index);
                let found = self.members.insert(pages, place.bytes(), &[value]);
                assert!(found);
                self.close(pages, key, &opened);
                answer.status(Status::Done);
            }
            Action::Trim { start, stop } => self.trim(pages, key, opened, start, stop, answer),
            _ => unreachable!("{action:?} is read, or of another kind"),
        }
    }

    /// Adds an element; returns how many there are.
    fn push(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        mut opened: Opened,
        end: End,
        value: &[u8],
    ) -> u64 {
        let descriptor = &mut opened.descriptor;
        if opened.version == 0 {
            descriptor.first = MIDDLE;
        } else if end == End::First {
            descriptor.first -= 1;
        }
        let index = match end {
            End::First => 0,
            End::Last => descriptor.count,
        };
        descriptor.count += 1;
        let (count, place) = (descriptor.count, place(descriptor, index));
        let found = self.members.insert(pages, place.bytes(), &[value]);
        assert!(!found);
        self.close(pages, key, &opened);
        count
    }

    fn pop(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        mut opened: Opened,
        end: End,
        size_max: u32,
        answer: &mut Answer<'_, '_>,
    ) {
        let descriptor = &mut opened.descriptor;
        let index = match end {
            End::First => 0,
            End::Last => descriptor.count - 1,
        };
        let place = place(descriptor, index);
        let status = Status::DoneValue;
        if !self.answer_element(pages, &place, status, opened.version, size_max, answer) {
            return;
        }
        assert!(self.members.remove(pages, place.bytes()));
        descriptor.first += u64::from(end == End::First);
        descriptor.count -= 1;
        self.close(pages, key, &opened);
    }

    /// Removes what is outside of a range. A list of which nothing stays is buried, whatever its length.
    fn trim(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        mut opened: Opened,
        start: i64,
        stop: i64,
        answer: &mut Answer<'_, '_>,
    ) {
        let descriptor = &mut opened.descriptor;
        let kept = indexes_of(descriptor.count, start, stop);
        if kept.is_empty() {
            self.remove(pages, key, opened.indexed);
            self.revision += 1;
            return answer.status(Status::Done);
        }
        let removed = descriptor.count - (kept.end - kept.start);
        if removed > TRIM_MAX {
            return answer.too_large(opened.version, removed);
        }
        for index in (0..kept.start).chain(kept.end..descriptor.count) {
            let place = place(descriptor, index);
            assert!(self.members.remove(pages, place.bytes()));
        }
        descriptor.first += kept.start;
        descriptor.count = kept.end - kept.start;
        self.close(pages, key, &opened);
        answer.status(Status::Done);
    }
}
