//! Sorted sets.

use crate::state_machine::kv::model::{Model, Outcome, World, not_found};
use crate::state_machine::kv::wire::{Action, RANK_MAX, Score, ScoreCondition, Status};
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

/// Members in the order of their scores.
type Ordered<'a> = Vec<(Score, &'a [u8])>;

fn ordered(sorted: &BTreeMap<Vec<u8>, Score>, reverse: bool) -> Ordered<'_> {
    let mut ordered: Ordered<'_> = sorted.iter().map(|(it, &at)| (at, &it[..])).collect();
    ordered.sort_unstable();
    if reverse {
        ordered.reverse();
    }
    ordered
}

fn told(score: Score) -> Vec<u8> {
    score.to_ordered().to_le_bytes().to_vec()
}

fn number(number: usize) -> Outcome {
    let number = i64::try_from(number).expect("memory has fewer");
    Outcome::Number(Status::Number, number)
}

fn is_too_far(place: usize) -> bool {
    place as u64 > RANK_MAX
}

fn members(version: u64, found: &[(Score, &[u8])], size_max: u32, world: World) -> Outcome {
    let groups = found
        .iter()
        .map(|&(score, member)| vec![member.to_vec(), told(score)]);
    Model::strings(version, groups, usize::MAX, size_max, world)
}

fn between(ordered: &Ordered<'_>, from: Bound<Score>, to: Bound<Score>) -> Vec<usize> {
    let places = 0..ordered.len();
    places
        .filter(|&place| (from, to).contains(&ordered[place].0))
        .collect()
}

pub(super) fn read(
    sorted: &BTreeMap<Vec<u8>, Score>,
    version: u64,
    action: &Action<'_>,
    world: World,
) -> Outcome {
    let count = sorted.len();
    let too_large = Outcome::TooLarge(version, count);
    match *action {
        Action::Rank { member, reverse } => {
            let ordered = ordered(sorted, reverse);
            match ordered.iter().position(|it| it.1 == member) {
                None => not_found(),
                Some(place) if is_too_far(place.min(count - 1 - place)) => too_large,
                Some(place) => number(place),
            }
        }
        Action::ByRank {
            start,
            stop,
            reverse,
            size_max,
        } => {
            let place = |at: i64| i128::from(at) + if at < 0 { count as i128 } else { 0 };
            let range = place(start).max(0)..=place(stop);
            let ordered = ordered(sorted, reverse);
            let wanted: Vec<_> = (0..count)
                .filter(|&it| range.contains(&(it as i128)))
                .collect();
            match wanted[..] {
                [first, ..] if is_too_far(first.min(count - 1 - first)) => too_large,
                [first, .., last] => members(version, &ordered[first..=last], size_max, world),
                [only] => members(version, &ordered[only..=only], size_max, world),
                [] => members(version, &[], size_max, world),
            }
        }
        Action::ByScore {
            from,
            to,
            reverse,
            offset,
            count_max,
            size_max,
        } => {
            let ordered = ordered(sorted, reverse);
            let found = between(&ordered, from, to);
            let passed = found.len().min(offset as usize);
            if is_too_far(passed) {
                return too_large;
            }
            let wanted = found[passed..].iter().take(count_max as usize);
            let found: Vec<_> = wanted.map(|&it| ordered[it]).collect();
            members(version, &found, size_max, world)
        }
        Action::CountScores { from, to } => {
            let inside = between(&ordered(sorted, false), from, to).len();
            if is_too_far(inside.min(count - inside)) {
                too_large
            } else {
                number(inside)
            }
        }
        _ => unreachable!("{action:?} changes something, or is of another kind"),
    }
}

pub(super) fn change(
    sorted: &mut BTreeMap<Vec<u8>, Score>,
    version: u64,
    action: &Action<'_>,
    _world: World,
) -> Outcome {
    match *action {
        Action::Score {
            member,
            score,
            condition,
            add: false,
        } => {
            let old = sorted.get(member).copied();
            if !holds(condition, old, score) || old == Some(score) {
                return Outcome::Number(Status::Number, 0);
            }
            sorted.insert(member.to_vec(), score);
            Outcome::Number(Status::DoneNumber, i64::from(old.is_none()))
        }
        Action::Score {
            member,
            score,
            condition,
            add: true,
        } => {
            let old = sorted.get(member).copied();
            if condition.present.is_some_and(|it| it != old.is_some()) {
                return not_found();
            }
            let Some(sum) = Score::new(old.map_or(0.0, Score::get) + score.get()) else {
                return Outcome::Status(Status::NotANumber);
            };
            if !holds(condition, old, sum) {
                return not_found();
            }
            let status = if old == Some(sum) {
                Status::Value
            } else {
                Status::DoneValue
            };
            sorted.insert(member.to_vec(), sum);
            Outcome::Value(status, version, told(sum))
        }
        Action::PopScore { greatest } => {
            let Some((score, member)) = ordered(sorted, greatest)
                .first()
                .map(|it| (it.0, it.1.to_vec()))
            else {
                return not_found();
            };
            sorted.remove(&member);
            Outcome::Value(Status::DoneValue, version, [told(score), member].concat())
        }
        _ => unreachable!("{action:?} is read, or of another kind"),
    }
}

fn holds(condition: ScoreCondition, old: Option<Score>, new: Score) -> bool {
    match (condition.present, old) {
        (Some(present), _) if present != old.is_some() => false,
        (_, None) => true,
        (_, Some(old)) => match condition.greater {
            None => true,
            Some(true) => new.get() > old.get(),
            Some(false) => new.get() < old.get(),
        },
    }
}
