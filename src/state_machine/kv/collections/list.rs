//! Lists: elements at places, which are numbers in a row.
//!
//! The first element of a new list lies in the middle of all numbers, the others before and behind it: 2^63 pushes at one end
//! are more than any store lives to see. Nothing is ever put between two elements, so none ever moves, and each action costs
//! the same however long the list is.

use super::{Descriptor, Opened, Place};
use crate::state_machine::kv::answer::Answer;
use crate::state_machine::kv::wire::{Action, End, Status, TRIM_MAX, ValueKind};
use crate::state_machine::kv::{Kv, Pages};
use std::ops::{Bound, Range};

/// Place of a new list's first element.
const MIDDLE: u64 = 1 << 63;

/// Where the element of an index lies; of the length, where the next one would.
fn place(descriptor: &Descriptor, index: u64) -> Place {
    let place = descriptor.first + index;
    Place::of(descriptor.number, &place.to_be_bytes())
}

/// Where an element that is added to an end comes to; counts it.
fn new_place(opened: &mut Opened, end: End) -> Place {
    let descriptor = &mut opened.descriptor;
    if opened.version == 0 {
        descriptor.first = MIDDLE;
    } else if end == End::First {
        descriptor.first -= 1;
    }
    descriptor.count += 1;
    match end {
        End::First => place(descriptor, 0),
        End::Last => place(descriptor, descriptor.count - 1),
    }
}

/// Where the element at an end lies, which is to be removed; counts it no more.
fn old_place(opened: &mut Opened, end: End) -> Place {
    let descriptor = &mut opened.descriptor;
    descriptor.count -= 1;
    match end {
        End::First => {
            descriptor.first += 1;
            Place::of(descriptor.number, &(descriptor.first - 1).to_be_bytes())
        }
        End::Last => place(descriptor, descriptor.count),
    }
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
        now: u64,
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
            Action::Take {
                end,
                count,
                size_max,
            } => {
                let count = u64::from(count);
                self.take_elements(pages, key, opened, (end, count), size_max, answer);
            }
            Action::Move { .. } => self.move_element(pages, now, key, opened, action, answer),
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
        let place = new_place(&mut opened, end);
        let found = self.members.insert(pages, place.bytes(), &[value]);
        assert!(!found);
        self.close(pages, key, &opened);
        opened.descriptor.count
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
        let version = opened.version;
        let place = old_place(&mut opened, end);
        let status = Status::DoneValue;
        if self.answer_element(pages, &place, status, version, size_max, answer) {
            assert!(self.members.remove(pages, place.bytes()));
            self.close(pages, key, &opened);
        }
    }

    /// Removes elements from an end on, if all of them fit.
    fn take_elements(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        mut opened: Opened,
        (end, count): (End, u64),
        size_max: u32,
        answer: &mut Answer<'_, '_>,
    ) {
        let descriptor = &mut opened.descriptor;
        let count = count.min(descriptor.count);
        let indexes = match end {
            End::First => 0..count,
            End::Last => descriptor.count - count..descriptor.count,
        };
        let (from, to) = (
            place(descriptor, indexes.start),
            place(descriptor, indexes.end),
        );
        let (from, to) = (Bound::Included(from.bytes()), Bound::Excluded(to.bytes()));
        let elements = self.members.range(pages, from, to, end == End::Last);
        let prefix = size_of::<u32>();
        let size: usize = elements.clone().map(|(_, it)| prefix + it.len()).sum();
        if size > answer.room_for_members(size_max) {
            return answer.too_large(opened.version, size as u64);
        }
        let mut told = answer.members_of(Status::DoneMembers, opened.version, size_max);
        for (_, element) in elements {
            assert!(told.push_element(element));
        }
        self.remove_elements(pages, descriptor, indexes);
        descriptor.first += if end == End::First { count } else { 0 };
        descriptor.count -= count;
        self.close(pages, key, &opened);
    }

    fn remove_elements(
        &mut self,
        pages: &mut Pages,
        descriptor: &Descriptor,
        indexes: impl Iterator<Item = u64>,
    ) {
        for index in indexes {
            let place = place(descriptor, index);
            assert!(self.members.remove(pages, place.bytes()));
        }
    }

    /// Moves an element: to another list, or to an end of the same.
    fn move_element(
        &mut self,
        pages: &mut Pages,
        now: u64,
        key: &[u8],
        mut opened: Opened,
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        let Action::Move {
            to,
            from_end,
            to_end,
            size_max,
        } = *action
        else {
            unreachable!("the caller looked");
        };
        let other = if key == to {
            None
        } else {
            match self.open(pages, now, to, ValueKind::List) {
                Ok(other) => Some(other),
                Err(status) => return answer.status(status),
            }
        };
        let version = opened.version;
        let old = old_place(&mut opened, from_end);
        let status = Status::DoneValue;
        match size_max {
            None => answer.status(Status::Done),
            Some(size_max)
                if self.answer_element(pages, &old, status, version, size_max, answer) => {}
            Some(_) => return,
        }
        self.revision += 1;
        let new = if let Some(mut other) = other {
            let new = new_place(&mut other, to_end);
            self.close_at_revision(pages, key, &opened);
            self.close_at_revision(pages, to, &other);
            new
        } else {
            let new = new_place(&mut opened, to_end);
            self.close_at_revision(pages, key, &opened);
            new
        };
        if new.bytes() != old.bytes() {
            self.members.rename(pages, old.bytes(), new.bytes());
        }
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
        let outside = (0..kept.start).chain(kept.end..descriptor.count);
        self.remove_elements(pages, descriptor, outside);
        descriptor.first += kept.start;
        descriptor.count = kept.end - kept.start;
        self.close(pages, key, &opened);
        answer.status(Status::Done);
    }
}
