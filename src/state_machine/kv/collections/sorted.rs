//! Sorted sets: members by their bytes, and an index of them by score.
//!
//! * A member is in the map with its score for a value, and once in the index, with that score: every change makes both.
//! * Places are not stored. They are found by walking over the index, whole leaves at a time, from whichever end is nearer;
//!   at most [`RANK_MAX`] members are passed over in one direction, whatever the size of the set.

use super::{Descriptor, Opened, PREFIX_SIZE, Place, member_of};
use crate::state_machine::kv::answer::{Answer, Members};
use crate::state_machine::kv::wire::{Action, RANK_MAX, Score, Status, ValueKind, places_of};
use crate::state_machine::kv::{Kv, Pages};
use std::ops::Bound;
use storage::collections::ordered_map::{Cursor, VALUE_INLINE_MAX};

const SCORE_SIZE: usize = size_of::<u64>();

/// Members that are passed over in one direction before the other has its turn: more than a leaf holds.
const TURN: u64 = 256;

// The value of a member, which lies in one piece.
const _: () = assert!(SCORE_SIZE <= VALUE_INLINE_MAX);

/// Where the members of a score begin in the index.
type IndexBound = [u8; PREFIX_SIZE + SCORE_SIZE];

/// A part of the index: from one place on, and before another.
struct Span {
    from: IndexBound,
    to: IndexBound,
}

impl Span {
    /// The members whose scores lie between two bounds, which may cross each other.
    fn new(number: u64, from: Bound<Score>, to: Bound<Score>) -> Self {
        let bound = |ordered: u64| {
            let mut bound = [0; PREFIX_SIZE + SCORE_SIZE];
            bound[..PREFIX_SIZE].copy_from_slice(&index_prefix(number).to_be_bytes());
            bound[PREFIX_SIZE..].copy_from_slice(&ordered.to_be_bytes());
            bound
        };
        // Neither the least bits nor the greatest are those of a score: they would be NaN's.
        let behind = |score: Score| score.to_ordered() + 1;
        Self {
            from: bound(match from {
                Bound::Unbounded => 0,
                Bound::Included(score) => score.to_ordered(),
                Bound::Excluded(score) => behind(score),
            }),
            to: bound(match to {
                Bound::Unbounded => u64::MAX,
                Bound::Included(score) => behind(score),
                Bound::Excluded(score) => score.to_ordered(),
            }),
        }
    }

    fn all(number: u64) -> Self {
        Self::new(number, Bound::Unbounded, Bound::Unbounded)
    }

    fn walk<'a>(&'a self, kv: &Kv, pages: &'a Pages, reverse: bool) -> Cursor<'a> {
        let (from, to) = (
            Bound::Included(&self.from[..]),
            Bound::Excluded(&self.to[..]),
        );
        kv.members.range(pages, from, to, reverse)
    }
}

fn index_prefix(number: u64) -> u64 {
    number << 1 | 1
}

/// Where the index has a member.
fn index_place(number: u64, score: Score, member: &[u8]) -> Place {
    let score = score.to_ordered().to_be_bytes();
    Place::new(index_prefix(number), [&score, member])
}

/// The score and the member that a key of the index has.
fn scored(stored: &[u8]) -> (Score, &[u8]) {
    let (score, member) = member_of(stored)
        .split_first_chunk()
        .expect("the index has scores");
    let score = Score::from_ordered(u64::from_be_bytes(*score));
    (score.expect("they were stored as such"), member)
}

/// The score as it is stored and told.
fn told(score: Score) -> [u8; SCORE_SIZE] {
    score.to_ordered().to_le_bytes()
}

/// Adds what a walk finds, as much as is wanted and has room.
fn push_all(members: &mut Members<'_, '_>, walk: Cursor<'_>, count_max: u64) {
    for (_, (stored, _)) in (0..count_max).zip(walk) {
        let (score, member) = scored(stored);
        if !members.push_pair(member, &told(score)) {
            return;
        }
    }
}

/// Reading.
impl Kv {
    /// Answers an action that reads.
    pub(super) fn read_sorted(
        &self,
        pages: &Pages,
        descriptor: &Descriptor,
        version: u64,
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        let number = descriptor.number;
        match *action {
            Action::Rank { member, reverse } => {
                let Some(score) = self.score_of(pages, number, member) else {
                    return answer.status(Status::NotFound);
                };
                let at = index_place(number, score, member);
                match self.place_of(pages, descriptor, &at) {
                    None => answer.too_large(version, descriptor.count),
                    Some(place) => {
                        let behind = descriptor.count - 1 - place;
                        let place = if reverse { behind } else { place };
                        answer.number(Status::Number, place.cast_signed());
                    }
                }
            }
            Action::ByRank {
                start,
                stop,
                reverse,
                size_max,
            } => {
                let Some((first, last)) = places_of(start, stop, descriptor.count) else {
                    answer.members(version, size_max);
                    return;
                };
                self.walk_from_place(pages, descriptor, first, reverse, &mut |walk| match walk {
                    None => answer.too_large(version, descriptor.count),
                    Some(walk) => {
                        let mut members = answer.members(version, size_max);
                        push_all(&mut members, walk, last - first + 1);
                    }
                });
            }
            Action::ByScore {
                from,
                to,
                reverse,
                offset,
                count_max,
                size_max,
            } => {
                let span = Span::new(number, from, to);
                let mut walk = span.walk(self, pages, reverse);
                if walk.pass(u64::from(offset).min(RANK_MAX + 1)) > RANK_MAX {
                    return answer.too_large(version, descriptor.count);
                }
                let mut members = answer.members(version, size_max);
                push_all(&mut members, walk, u64::from(count_max));
            }
            Action::CountScores { from, to } => {
                match self.count_scores(pages, descriptor, from, to) {
                    Some(count) => answer.number(Status::Number, count.cast_signed()),
                    None => answer.too_large(version, descriptor.count),
                }
            }
            _ => unreachable!("{action:?} changes something, or is of another kind"),
        }
    }

    fn score_of(&self, pages: &Pages, number: u64, member: &[u8]) -> Option<Score> {
        let place = Place::of(number, member);
        let stored = self.members.get(pages, place.bytes())?;
        let piece = stored.pieces(0).next().expect("a score is not empty");
        let bits = u64::from_le_bytes(piece.try_into().expect("a score has 8 bytes"));
        Some(Score::from_ordered(bits).expect("it was stored as a score"))
    }

    /// How many members come before one, which is there; none if both ends are too far away.
    fn place_of(&self, pages: &Pages, descriptor: &Descriptor, at: &Place) -> Option<u64> {
        let all = Span::all(descriptor.number);
        let here = Bound::Excluded(at.bytes());
        let (begin, end) = (Bound::Included(&all.from[..]), Bound::Excluded(&all.to[..]));
        let mut before = self.members.range(pages, begin, here, true);
        let mut behind = self.members.range(pages, here, end, false);
        let mut passed = 0;
        while passed <= RANK_MAX {
            let turn = TURN.min(RANK_MAX + 1 - passed);
            let count = before.pass(turn);
            if count < turn {
                return Some(passed + count);
            }
            let count = behind.pass(turn);
            if count < turn {
                return Some(descriptor.count - 1 - (passed + count));
            }
            passed += turn;
        }
        None
    }

    /// Calls with a walk that begins at a place; none if that is too far from both ends.
    fn walk_from_place(
        &self,
        pages: &Pages,
        descriptor: &Descriptor,
        place: u64,
        reverse: bool,
        call: &mut dyn FnMut(Option<Cursor<'_>>),
    ) {
        let all = Span::all(descriptor.number);
        let behind = descriptor.count - 1 - place;
        if place.min(behind) > RANK_MAX {
            return call(None);
        }
        if place <= behind {
            let mut walk = all.walk(self, pages, reverse);
            assert_eq!(walk.pass(place), place);
            return call(Some(walk));
        }
        let mut back = all.walk(self, pages, !reverse);
        assert_eq!(back.pass(behind), behind);
        let (here, _) = back.next().expect("the index has as many as the set");
        let (begin, end) = (Bound::Included(&all.from[..]), Bound::Excluded(&all.to[..]));
        let here = Bound::Included(here);
        let (from, to) = if reverse { (begin, here) } else { (here, end) };
        call(Some(self.members.range(pages, from, to, reverse)));
    }

    /// The members between two scores: those are counted, or, if they are too many, all others.
    fn count_scores(
        &self,
        pages: &Pages,
        descriptor: &Descriptor,
        from: Bound<Score>,
        to: Bound<Score>,
    ) -> Option<u64> {
        let (span, all) = (
            Span::new(descriptor.number, from, to),
            Span::all(descriptor.number),
        );
        let inside = span.walk(self, pages, false).pass(RANK_MAX + 1);
        if inside <= RANK_MAX {
            return Some(inside);
        }
        // There is somebody inside: the bounds do not cross each other.
        let mut before = Span {
            to: span.from,
            ..all
        };
        let mut outside = before.walk(self, pages, false).pass(RANK_MAX + 1);
        before = Span {
            from: span.to,
            to: all.to,
        };
        outside += before.walk(self, pages, false).pass(RANK_MAX + 1 - outside);
        (outside <= RANK_MAX).then(|| descriptor.count - outside)
    }
}

/// Changing.
impl Kv {
    /// Executes an action that changes something.
    pub(super) fn change_sorted(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        mut opened: Opened,
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        let number = opened.descriptor.number;
        match *action {
            Action::Score { .. } => self.set_score(pages, key, opened, action, answer),
            Action::Remove { member, .. } => {
                let Some(score) = self.score_of(pages, number, member) else {
                    return answer.number(Status::Number, 0);
                };
                self.remove_scored(pages, &mut opened, score, member);
                self.close(pages, key, &opened);
                answer.number(Status::DoneNumber, 1);
            }
            Action::Pick { seed, .. } => {
                if opened.version == 0 {
                    return answer.status(Status::NotFound);
                }
                let place = self.pick(pages, &opened.descriptor, seed);
                let member = member_of(place.bytes());
                let score = self.score_of(pages, number, member);
                let score = score.expect("what was picked is there");
                self.remove_scored(pages, &mut opened, score, member);
                self.close(pages, key, &opened);
                answer.parts(Status::DoneValue, opened.version, &[member]);
            }
            Action::PopScore { greatest } => {
                let all = Span::all(number);
                let first = all.walk(self, pages, greatest).next();
                let Some(place) = first.map(|(stored, _)| Place::copied(stored)) else {
                    return answer.status(Status::NotFound);
                };
                let (score, member) = scored(place.bytes());
                self.remove_scored(pages, &mut opened, score, member);
                self.close(pages, key, &opened);
                answer.parts(Status::DoneValue, opened.version, &[&told(score), member]);
            }
            _ => unreachable!("{action:?} is read, or of another kind"),
        }
    }

    fn set_score(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        mut opened: Opened,
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        let Action::Score {
            member,
            score,
            condition,
            add,
        } = *action
        else {
            unreachable!("{action:?} sets no score");
        };
        assert_eq!(opened.kind, ValueKind::Sorted);
        let number = opened.descriptor.number;
        let old = self.score_of(pages, number, member);
        let holds = condition.present.is_none_or(|it| it == old.is_some());
        // Adding is IEEE's, and so the same everywhere.
        let new = match old.filter(|_| add) {
            Some(old) => Score::new(old.get() + score.get()),
            None => Some(score),
        };
        let is_moved = |new: Score| match (old, condition.greater) {
            (Some(old), Some(true)) => new > old,
            (Some(old), Some(false)) => new < old,
            _ => true,
        };
        let new = match new {
            None if holds => return answer.status(Status::NotANumber),
            Some(new) if holds && is_moved(new) => new,
            _ if add => return answer.status(Status::NotFound),
            _ => return answer.number(Status::Number, 0),
        };
        let changes = old != Some(new);
        if changes {
            if let Some(old) = old {
                let place = index_place(number, old, member);
                assert!(self.members.remove(pages, place.bytes()));
            }
            let place = Place::of(number, member);
            let replaced = self.members.insert(pages, place.bytes(), &[&told(new)]);
            assert_eq!(replaced, old.is_some());
            let place = index_place(number, new, member);
            assert!(!self.members.insert(pages, place.bytes(), &[]));
            opened.descriptor.count += u64::from(old.is_none());
            self.close(pages, key, &opened);
        }
        match (add, changes) {
            (true, true) => answer.parts(Status::DoneValue, opened.version, &[&told(new)]),
            (true, false) => answer.parts(Status::Value, opened.version, &[&told(new)]),
            (false, true) => answer.number(Status::DoneNumber, i64::from(old.is_none())),
            (false, false) => answer.number(Status::Number, 0),
        }
    }

    /// Removes a member, which is there, from the map and from the index.
    fn remove_scored(
        &mut self,
        pages: &mut Pages,
        opened: &mut Opened,
        score: Score,
        member: &[u8],
    ) {
        let number = opened.descriptor.number;
        let place = Place::of(number, member);
        assert!(self.members.remove(pages, place.bytes()));
        let place = index_place(number, score, member);
        assert!(self.members.remove(pages, place.bytes()));
        opened.descriptor.count -= 1;
    }
}
