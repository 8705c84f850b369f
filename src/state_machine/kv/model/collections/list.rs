//! Lists.

use super::Collection;
use crate::state_machine::kv::model::{Model, Outcome, Versioned, World, done, not_found};
use crate::state_machine::kv::wire::{Action, End, Status};
use std::collections::VecDeque;

/// Most elements that a trim removes, but for all.
const TRIM_MAX: usize = 256;

type List = VecDeque<Vec<u8>>;

/// The place from the first element; negative ones were counted from behind the last.
fn resolve(list: &List, place: i64) -> i128 {
    let size = if place < 0 { list.len() as i128 } else { 0 };
    i128::from(place) + size
}

fn at(list: &List, place: i64) -> Option<usize> {
    let place = usize::try_from(resolve(list, place)).ok()?;
    (place < list.len()).then_some(place)
}

fn between(list: &List, start: i64, stop: i64) -> Vec<Vec<u8>> {
    let (start, stop) = (resolve(list, start), resolve(list, stop));
    let elements = list.iter().enumerate();
    let inside = elements.filter(|&(place, _)| (start..=stop).contains(&(place as i128)));
    inside.map(|(_, element)| element.clone()).collect()
}

pub(super) fn read(list: &List, version: u64, action: &Action<'_>, world: World) -> Outcome {
    match *action {
        Action::At { index, size_max } => match at(list, index) {
            Some(place) => {
                let element = list[place].clone();
                Outcome::of_bytes(Status::Value, version, element, size_max, world).0
            }
            None => not_found(),
        },
        Action::Range {
            start,
            stop,
            size_max,
        } => {
            let groups = between(list, start, stop).into_iter().map(|it| vec![it]);
            Model::strings(version, groups, usize::MAX, size_max, world)
        }
        _ => unreachable!("{action:?} changes something"),
    }
}

/// A list without elements was not there before.
pub(super) fn change(list: &mut List, version: u64, action: &Action<'_>, world: World) -> Outcome {
    match *action {
        Action::Push {
            end,
            value,
            if_present,
        } => {
            if if_present && list.is_empty() {
                return Outcome::Number(Status::Number, 0);
            }
            match end {
                End::First => list.push_front(value.to_vec()),
                End::Last => list.push_back(value.to_vec()),
            }
            Outcome::Number(Status::DoneNumber, list.len().cast_signed() as i64)
        }
        Action::Pop { end, size_max } => {
            let element = match end {
                End::First => list.front(),
                End::Last => list.back(),
            };
            let Some(element) = element.cloned() else {
                return not_found();
            };
            let answer = Outcome::of_bytes(Status::DoneValue, version, element, size_max, world);
            if answer.1 {
                match end {
                    End::First => list.pop_front(),
                    End::Last => list.pop_back(),
                };
            }
            answer.0
        }
        Action::Take {
            end,
            count,
            size_max,
        } => take(list, version, (end, count), size_max, world),
        Action::Replace { index, value } => {
            if list.is_empty() {
                return not_found();
            }
            let Some(place) = at(list, index) else {
                return Outcome::Mismatch(version);
            };
            list[place] = value.to_vec();
            done()
        }
        Action::Trim { start, stop } => {
            if list.is_empty() {
                return not_found();
            }
            let kept = between(list, start, stop);
            let removed = list.len() - kept.len();
            if removed > TRIM_MAX && !kept.is_empty() {
                return Outcome::TooLarge(version, removed);
            }
            *list = kept.into();
            done()
        }
        _ => unreachable!("{action:?} is read"),
    }
}

fn take(
    list: &mut List,
    version: u64,
    (end, count): (End, u32),
    size_max: u32,
    world: World,
) -> Outcome {
    let count = list.len().min(count as usize);
    if count == 0 {
        return not_found();
    }
    let taken: Vec<_> = match end {
        End::First => list.iter().take(count).cloned().collect(),
        End::Last => list.iter().rev().take(count).cloned().collect(),
    };
    let size: usize = taken.iter().map(|element| 4 + element.len()).sum();
    if size > (world.room - 1).min(size_max as usize) {
        return Outcome::TooLarge(version, size);
    }
    match end {
        End::First => drop(list.drain(..count)),
        End::Last => list.truncate(list.len() - count),
    }
    Outcome::Taken(version, taken)
}

impl Model {
    /// Moves an element of the list `old`, if there is one, to another or the same.
    pub(super) fn move_element(
        &mut self,
        key: &[u8],
        action: &Action<'_>,
        old: Option<&Versioned>,
        world: World,
    ) -> Outcome {
        let Action::Move {
            to,
            from_end,
            to_end,
            size_max,
        } = *action
        else {
            unreachable!("the caller looked");
        };
        let Some(old) = old else { return not_found() };
        let target = self.map.get(to).cloned();
        let mut source = list_of(Some(old)).expect("the caller looked at its kind");
        let Some(mut list) = list_of(target.as_ref()) else {
            return Outcome::Status(Status::WrongType);
        };
        let element = match from_end {
            End::First => source.pop_front(),
            End::Last => source.pop_back(),
        };
        let element = element.expect("no list is empty");
        if key == to {
            list.clone_from(&source);
        }
        match to_end {
            End::First => list.push_front(element.clone()),
            End::Last => list.push_back(element.clone()),
        }
        let answer = match size_max {
            Some(size_max) => {
                Outcome::of_bytes(Status::DoneValue, old.version, element, size_max, world)
            }
            None => (done(), true),
        };
        if answer.1 {
            let revision = self.revision;
            self.set_collection(key, Collection::List(source), old.expiry_ms);
            self.revision = revision; // both are one change
            let expiry = target.and_then(|it| it.expiry_ms);
            self.set_collection(to, Collection::List(list), expiry);
        }
        answer.0
    }
}

/// The elements of a key, none if it is absent; nothing if it is no list.
fn list_of(found: Option<&Versioned>) -> Option<List> {
    match found {
        None => Some(List::new()),
        Some(found) => match &found.collection {
            Some(Collection::List(list)) => Some(list.clone()),
            _ => None,
        },
    }
}
