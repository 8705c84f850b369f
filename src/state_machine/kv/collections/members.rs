//! Hashes and sets, and what sorted sets have in common with them: members found by their bytes.

use super::{Descriptor, Opened, PICK_WALK_MAX, Place, bounds, member_of};
use crate::state_machine::kv::answer::Answer;
use crate::state_machine::kv::execute::{NUMBER_SIZE_MAX, format, parse};
use crate::state_machine::kv::wire::{Action, Status, ValueKind};
use crate::state_machine::kv::{Kv, Pages};
use std::ops::Bound;
use storage::collections::ordered_map::{Cursor, VALUE_INLINE_MAX};

/// Reading.
impl Kv {
    /// Answers an action that reads members of a collection.
    pub(super) fn read_members(
        &self,
        pages: &Pages,
        descriptor: &Descriptor,
        version: u64,
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        match *action {
            Action::Find {
                member, size_max, ..
            } => {
                let place = Place::of(descriptor.number, member);
                match self.members.get(pages, place.bytes()) {
                    Some(stored) => {
                        answer.stored(Status::Value, version, stored, size_max);
                    }
                    None => answer.status(Status::NotFound),
                }
            }
            Action::Members {
                from,
                count_max,
                values,
                size_max,
                ..
            } => {
                let mut members = answer.members(version, size_max);
                self.walk(pages, descriptor, from, &mut |mut cursor| {
                    for count in 0.. {
                        let Some((stored, value)) = cursor.next() else {
                            break;
                        };
                        if count == count_max {
                            members.set_more();
                            break;
                        }
                        if !members.push(member_of(stored), values.then_some(value)) {
                            break;
                        }
                    }
                });
            }
            Action::Pick { seed, .. } => {
                let place = self.pick(pages, descriptor, seed);
                answer.parts(Status::Value, version, &[member_of(place.bytes())]);
            }
            _ => unreachable!("{action:?} changes something, or is of another kind"),
        }
    }

    /// Calls with a walk over the members that begins at a bound.
    fn walk(
        &self,
        pages: &Pages,
        descriptor: &Descriptor,
        from: Bound<&[u8]>,
        call: &mut dyn FnMut(Cursor<'_>),
    ) {
        let (begin, end) = bounds(descriptor.number);
        let place = match from {
            Bound::Unbounded => Place::copied(&begin),
            Bound::Included(member) | Bound::Excluded(member) => {
                Place::of(descriptor.number, member)
            }
        };
        let from = match from {
            Bound::Excluded(_) => Bound::Excluded(place.bytes()),
            _ => Bound::Included(place.bytes()),
        };
        call(
            self.members
                .range(pages, from, Bound::Excluded(&end[..]), false),
        );
    }

    /// Some member of a collection, which has one.
    pub(super) fn pick(&self, pages: &Pages, descriptor: &Descriptor, seed: u64) -> Place {
        let (begin, end) = bounds(descriptor.number);
        let found = if descriptor.count <= PICK_WALK_MAX {
            let (from, to) = (Bound::Included(&begin[..]), Bound::Excluded(&end[..]));
            let mut members = self.members.range(pages, from, to, false);
            let place = (seed % descriptor.count) as usize;
            members.nth(place).map(|(stored, _)| Place::copied(stored))
        } else {
            let found = self.members.sample_range(pages, &begin, &end, seed);
            found.map(Place::copied)
        };
        found.expect("a collection has as many members as it says")
    }
}

/// Changing.
impl Kv {
    /// Executes an action that changes members of a collection.
    pub(super) fn change_members(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        mut opened: Opened,
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        match *action {
            Action::Insert {
                member,
                value,
                if_absent,
                ..
            } => {
                if member.len() + value.len() > self.value_size_max() {
                    return answer.status(Status::TooLong);
                }
                let place = Place::of(opened.descriptor.number, member);
                let is_set = opened.kind == ValueKind::Set;
                if (if_absent || is_set) && self.members.get(pages, place.bytes()).is_some() {
                    return answer.number(Status::Number, 0);
                }
                let is_new = self.store_member(pages, &mut opened, &place, value);
                self.close(pages, key, &opened);
                answer.number(Status::DoneNumber, i64::from(is_new));
            }
            Action::Add { member, delta } => self.add(pages, key, opened, member, delta, answer),
            Action::Remove { member, .. } => {
                let place = Place::of(opened.descriptor.number, member);
                if !self.members.remove(pages, place.bytes()) {
                    return answer.number(Status::Number, 0);
                }
                opened.descriptor.count -= 1;
                self.close(pages, key, &opened);
                answer.number(Status::DoneNumber, 1);
            }
            Action::Pick { seed, .. } => {
                if opened.version == 0 {
                    return answer.status(Status::NotFound);
                }
                let place = self.pick(pages, &opened.descriptor, seed);
                assert!(self.members.remove(pages, place.bytes()));
                opened.descriptor.count -= 1;
                self.close(pages, key, &opened);
                let member = member_of(place.bytes());
                answer.parts(Status::DoneValue, opened.version, &[member]);
            }
            _ => unreachable!("{action:?} is read, or of another kind"),
        }
    }

    /// Sets a member's value, and counts the member; true if it is new.
    fn store_member(
        &mut self,
        pages: &mut Pages,
        opened: &mut Opened,
        place: &Place,
        value: &[u8],
    ) -> bool {
        let is_new = !self.members.insert(pages, place.bytes(), &[value]);
        opened.descriptor.count += u64::from(is_new);
        is_new
    }

    fn add(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        mut opened: Opened,
        member: &[u8],
        delta: i64,
        answer: &mut Answer<'_, '_>,
    ) {
        let place = Place::of(opened.descriptor.number, member);
        let number = match self.members.get(pages, place.bytes()) {
            None => Some(0),
            Some(stored) if stored.len() > NUMBER_SIZE_MAX => None,
            // A short value lies in one piece.
            Some(stored) => stored.pieces(0).next().and_then(parse),
        };
        let Some(number) = number else {
            return answer.status(Status::NotANumber);
        };
        let Some(sum) = number.checked_add(delta) else {
            return answer.status(Status::Overflow);
        };
        let mut buffer = [0; NUMBER_SIZE_MAX];
        self.store_member(pages, &mut opened, &place, format(sum, &mut buffer));
        self.close(pages, key, &opened);
        answer.number(Status::DoneNumber, sum);
    }
}

const _: () = assert!(NUMBER_SIZE_MAX <= VALUE_INLINE_MAX);
