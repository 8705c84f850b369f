//! Lists.

use crate::state_machine::kv::model::{Model, Outcome, World, done, not_found};
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
