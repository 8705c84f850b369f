//! Replies about hashes, sets, and whatever has members or elements.

use super::{Finished, NO_ROOM, Shape, Surroundings, TOO_FAR, Trouble, failed, next, value};
use crate::resp::command::Failure;
use crate::resp::reply::Replies;
use crate::resp::shared::splitmix;
use crate::state_machine::kv::wire::{ItemReply, Members, Results, Status};

/// Values of fields of one key, all of which have the same type.
pub(super) fn fields(
    count: usize,
    results: &mut Results<'_>,
    around: &Surroundings<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    let from = replies.size();
    replies.array(count);
    let mut is_wrong = false;
    for _ in 0..count {
        let result = next(results)?;
        is_wrong |= result.status == Status::WrongType;
        if !is_wrong {
            value(&result, around, replies)?;
        }
    }
    if is_wrong {
        replies.truncate(from);
        return failed(Status::WrongType, replies);
    }
    Ok(())
}

/// Whether a find found something.
fn is_found(status: Status) -> Result<bool, Status> {
    match status {
        Status::Value | Status::TooLarge => Ok(true),
        Status::NotFound => Ok(false),
        status => Err(status),
    }
}

pub(super) fn present(status: Status, replies: &mut Replies<'_>) -> Finished {
    match is_found(status) {
        Ok(found) => replies.integer(i64::from(found)),
        Err(status) => return failed(status, replies),
    }
    Ok(())
}

pub(super) fn presents(
    count: usize,
    results: &mut Results<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    let (mut found, mut wrong) = (Vec::with_capacity(count), None);
    for _ in 0..count {
        match is_found(next(results)?.status) {
            Ok(it) => found.push(it),
            Err(status) => wrong = Some(status),
        }
    }
    if let Some(status) = wrong {
        return failed(status, replies);
    }
    replies.array(count);
    for found in found {
        replies.integer(i64::from(found));
    }
    Ok(())
}

/// The sum of numbers, or the first error.
pub(super) fn total(
    count: usize,
    results: &mut Results<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    let (mut total, mut wrong) = (0, None);
    for _ in 0..count {
        let result = next(results)?;
        match result.status {
            Status::DoneNumber | Status::Number => total += result.number,
            status => wrong = wrong.or(Some(status)),
        }
    }
    match wrong {
        None => replies.integer(total),
        Some(status) => return failed(status, replies),
    }
    Ok(())
}

pub(super) fn field_number(result: &ItemReply<'_>, replies: &mut Replies<'_>) -> Finished {
    const NOT_A_NUMBER: Failure = Failure::new("ERR hash value is not an integer");
    match result.status {
        Status::DoneNumber | Status::Number => replies.integer(result.number),
        Status::NotANumber => NOT_A_NUMBER.write(replies),
        status => return failed(status, replies),
    }
    Ok(())
}

/// All members of a result: there are none if there is no such key. None of them: an error, which is written.
fn whole<'a>(
    result: &ItemReply<'a>,
    around: &Surroundings<'_>,
    replies: &mut Replies<'_>,
) -> Result<Option<Members<'a>>, Trouble> {
    match result.status {
        Status::Members if result.more && around.in_transaction => NO_ROOM.write(replies),
        Status::Members if result.more => {
            let size = result.members.map(<[u8]>::len).sum();
            return Err(Trouble::TooLarge(size));
        }
        Status::Members | Status::NotFound => return Ok(Some(result.members)),
        // Of a sorted set, a place.
        Status::TooLarge => TOO_FAR.write(replies),
        status => failed(status, replies)?,
    }
    Ok(None)
}

/// Members or elements.
pub(super) fn members(
    shape: Shape,
    result: &ItemReply<'_>,
    around: &Surroundings<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    if let Some(members) = whole(result, around, replies)? {
        shape.begin(members.len(), replies);
        for (place, string) in members.enumerate() {
            shape.string(place, string, replies);
        }
    }
    Ok(())
}

/// What is made of several sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Combination {
    /// What is in all.
    Intersection,
    /// What is in any.
    Union,
    /// What is in the first and in no other.
    Difference,
    /// How many members are in all, counted up to so many.
    Common(usize),
}

impl Combination {
    /// Puts the members of one more set, in their order, to what the sets before it came to.
    pub fn add<'a>(self, so_far: Vec<&'a [u8]>, set: &[&'a [u8]]) -> Vec<&'a [u8]> {
        let is_in_set = |member: &&[u8]| set.binary_search(member).is_ok();
        match self {
            Self::Intersection | Self::Common(_) => so_far.into_iter().filter(is_in_set).collect(),
            Self::Difference => so_far.into_iter().filter(|it| !is_in_set(it)).collect(),
            Self::Union => {
                let mut all = so_far;
                all.extend_from_slice(set);
                // Two rows that are in order: this takes one walk over them.
                all.sort();
                all.dedup();
                all
            }
        }
    }

    /// The reply.
    pub fn write(self, members: &[&[u8]], replies: &mut Replies<'_>) {
        match self {
            Self::Common(most) => {
                let count = members.len().min(most);
                replies.integer(i64::try_from(count).unwrap_or(i64::MAX));
            }
            _ => Shape::Set.write(members.iter().copied(), replies),
        }
    }
}

pub(super) fn combined(
    combination: Combination,
    count: usize,
    results: &mut Results<'_>,
    around: &Surroundings<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    let mut all = { *results };
    let _ = results.nth(count.saturating_sub(1));
    // An error counts more than that another set is too large.
    let wrong = { all }
        .take(count)
        .map(|result| result.status)
        .find(|status| !matches!(status, Status::Members | Status::NotFound));
    if let Some(status) = wrong {
        return failed(status, replies);
    }
    let mut so_far: Option<Vec<&[u8]>> = None;
    for _ in 0..count {
        let Some(members) = whole(&next(&mut all)?, around, replies)? else {
            return Ok(());
        };
        let set: Vec<&[u8]> = members.collect();
        so_far = Some(match so_far {
            None => set,
            Some(so_far) => combination.add(so_far, &set),
        });
    }
    combination.write(&so_far.unwrap_or_default(), replies);
    Ok(())
}

/// Which places of so many are drawn: `count` different ones, in any order; or all, in theirs.
pub fn distinct(of: usize, count: usize, mut seed: u64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..of).collect();
    if count >= of {
        return places;
    }
    for place in 0..count {
        let left = (of - place) as u64;
        let other = place + (splitmix(&mut seed) % left) as usize;
        places.swap(place, other);
    }
    places.truncate(count);
    places
}

/// Members drawn from all that there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drawn {
    /// How many, at most.
    pub count: usize,
    /// Decides which.
    pub seed: u64,
    /// What the reply is.
    pub shape: Shape,
}

impl Drawn {
    pub(super) fn write(
        self,
        result: &ItemReply<'_>,
        around: &Surroundings<'_>,
        replies: &mut Replies<'_>,
    ) -> Finished {
        if let Some(members) = whole(result, around, replies)? {
            let strings: Vec<&[u8]> = members.collect();
            self.of(&strings, replies);
        }
        Ok(())
    }

    /// The reply, drawn from these strings.
    pub fn of(self, strings: &[&[u8]], replies: &mut Replies<'_>) {
        let width = self.shape.width();
        let places = distinct(strings.len() / width, self.count, self.seed);
        self.shape.begin(width * places.len(), replies);
        for place in places {
            for part in 0..width {
                self.shape
                    .string(part, strings[width * place + part], replies);
            }
        }
    }
}

/// The members that picks have returned, one each; fewer if there were no more.
pub(super) fn picked(
    shape: Shape,
    count: usize,
    results: &mut Results<'_>,
    replies: &mut Replies<'_>,
) -> Finished {
    let mut strings = Vec::with_capacity(count);
    let mut wrong = None;
    for _ in 0..count {
        let result = next(results)?;
        match result.status {
            Status::Value | Status::DoneValue => strings.push(result.value),
            Status::NotFound => {}
            status => wrong = wrong.or(Some(status)),
        }
    }
    match wrong {
        None => shape.write(strings.into_iter(), replies),
        Some(status) => return failed(status, replies),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combine(combination: Combination, sets: &[&[&'static [u8]]]) -> Vec<&'static [u8]> {
        let mut sets = sets.iter();
        let first = sets.next().expect("one at least").to_vec();
        sets.fold(first, |so_far, set| combination.add(so_far, set))
    }

    #[test]
    fn sets_are_combined() {
        let sets: [&[&[u8]]; 3] = [&[b"a", b"b", b"c", b"d"], &[b"b", b"d"], &[b"", b"d", b"x"]];
        let found = |combination| combine(combination, &sets).concat();
        assert_eq!(found(Combination::Intersection), b"d");
        assert_eq!(found(Combination::Common(9)), b"d");
        assert_eq!(found(Combination::Difference), b"ac");
        assert_eq!(found(Combination::Union), b"abcdx");
        assert_eq!(combine(Combination::Union, &sets).len(), 6);
    }

    #[test]
    fn what_is_drawn_is_distinct_and_each_place_comes_up() {
        let mut seen = [0; 10];
        for seed in 0..1000 {
            let mut drawn = distinct(10, 3, seed);
            for &place in &drawn {
                seen[place] += 1;
            }
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), 3);
        }
        assert!(
            seen.iter().all(|count| (200..400).contains(count)),
            "{seen:?}"
        );
        assert_eq!(distinct(2, 5, 1), [0, 1]);
        assert_eq!(distinct(0, 5, 1), [0; 0]);
    }
}
