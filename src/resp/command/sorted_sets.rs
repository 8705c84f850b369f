//! Sorted sets: ZADD, ZRANGE and what is like them.

use super::{Context, Failure, Prepared, SYNTAX, Then, check_key, integer, members};
use crate::resp::finish::{Finish, Shape, Sorted};
use crate::resp::request::Arguments;
use crate::resp::score;
use crate::resp::steps::{Range, Removal, Removed, Steps, Way};
use crate::state_machine::kv::wire::{Action, Score, ScoreCondition, ValueKind};
use std::ops::Bound;

const SORTED: ValueKind = ValueKind::Sorted;

const NOT_A_FLOAT: Failure = Failure::new("ERR value is not a valid float");
const NOT_A_RANGE: Failure = Failure::new("ERR min or max is not a float");
const NOT_POSITIVE: Failure = Failure::new("ERR value is out of range, must be positive");

fn float(argument: &[u8]) -> Result<Score, Failure> {
    score::parse(argument).ok_or(NOT_A_FLOAT)
}

/// What ZADD was told.
#[derive(Clone, Copy, Default)]
struct Adding {
    condition: ScoreCondition,
    /// Members with another score are counted, too.
    counts_changed: bool,
    /// The score is added to what there is.
    increments: bool,
}

impl Adding {
    /// The options, and where scores and members begin.
    fn parse(arguments: &Arguments<'_>) -> Result<(Self, usize), Failure> {
        const XX_AND_NX: Failure =
            Failure::new("ERR XX and NX options at the same time are not compatible");
        const GT_AND_LT: Failure =
            Failure::new("ERR GT, LT, and/or NX options at the same time are not compatible");
        const SEVERAL: Failure =
            Failure::new("ERR INCR option supports a single increment-element pair");
        let mut this = Self::default();
        let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
        let mut at = 2;
        while let Some(option) = arguments.get(at) {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => nx = true,
                b"XX" => xx = true,
                b"GT" => gt = true,
                b"LT" => lt = true,
                b"CH" => this.counts_changed = true,
                b"INCR" => this.increments = true,
                _ => break,
            }
            at += 1;
        }
        let left = arguments.len() - at;
        if left == 0 || !left.is_multiple_of(2) {
            return Err(SYNTAX);
        }
        if nx && xx {
            return Err(XX_AND_NX);
        }
        if gt && (nx || lt) || lt && nx {
            return Err(GT_AND_LT);
        }
        if this.increments && left > 2 {
            return Err(SEVERAL);
        }
        this.condition = ScoreCondition {
            present: (nx || xx).then_some(xx),
            greater: (gt || lt).then_some(gt),
        };
        Ok((this, at))
    }
}

pub(super) fn zadd(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (adding, at) = Adding::parse(arguments)?;
    let pairs = arguments.from(at);
    let count = pairs.len() / 2;
    let scores: Result<Vec<Score>, Failure> =
        (0..count).map(|pair| float(&pairs[2 * pair])).collect();
    for (pair, score) in scores?.into_iter().enumerate() {
        let action = Action::Score {
            member: &pairs[2 * pair + 1],
            score,
            condition: adding.condition,
            add: adding.increments,
        };
        context.act(&arguments[1], action)?;
    }
    if adding.increments {
        return Ok(Then::Items(Finish::Sorted(Sorted::Score)));
    }
    context.together(if adding.counts_changed {
        Finish::Sorted(Sorted::Changed(count))
    } else {
        Finish::Total(count)
    })
}

pub(super) fn zincrby(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let action = Action::Score {
        member: &arguments[3],
        score: float(&arguments[2])?,
        condition: ScoreCondition::default(),
        add: true,
    };
    context.action(&arguments[1], action, Finish::Sorted(Sorted::Score))
}

pub(super) fn zrem(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    members::remove(context, arguments, SORTED)
}

fn find(member: &[u8]) -> Action<'_> {
    Action::Find {
        kind: SORTED,
        member,
        size_max: size_of::<u64>() as u32,
    }
}

pub(super) fn zscore(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let finish = Finish::Sorted(Sorted::Score);
    context.action(&arguments[1], find(&arguments[2]), finish)
}

pub(super) fn zmscore(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let members = arguments.from(2);
    for member in members.iter() {
        context.act(&arguments[1], find(member))?;
    }
    Ok(Then::Items(Finish::Sorted(Sorted::Scores(members.len()))))
}

pub(super) fn zcard(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let action = Action::Length { kind: SORTED };
    context.action(&arguments[1], action, Finish::Number)
}

fn bounds(from: &[u8], to: &[u8]) -> Result<(Bound<Score>, Bound<Score>), Failure> {
    let bound = |argument| score::parse_bound(argument).ok_or(NOT_A_RANGE);
    Ok((bound(from)?, bound(to)?))
}

pub(super) fn zcount(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (from, to) = bounds(&arguments[2], &arguments[3])?;
    let action = Action::CountScores { from, to };
    context.action(&arguments[1], action, Finish::Sorted(Sorted::Count))
}

fn rank(context: &mut Context<'_>, arguments: &Arguments<'_>, reverse: bool) -> Prepared {
    let member = &arguments[2];
    let action = Action::Rank { member, reverse };
    context.action(&arguments[1], action, Finish::Sorted(Sorted::Place))
}

pub(super) fn zrank(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    rank(context, arguments, false)
}

pub(super) fn zrevrank(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    rank(context, arguments, true)
}

/// By what a range is given, if the command says that.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Place,
    Score,
    Bytes,
}

/// What a command reads of a sorted set.
struct Reading {
    by: Option<By>,
    reverse: Option<bool>,
    scores: bool,
    /// How many are passed over, and how many are wanted; negative: all.
    limit: (i64, i64),
}

impl Reading {
    fn new(by: Option<By>, reverse: Option<bool>) -> Self {
        Self {
            by,
            reverse,
            scores: false,
            limit: (0, -1),
        }
    }

    /// The options behind the range.
    fn parse(&mut self, arguments: &Arguments<'_>) -> Result<(), Failure> {
        let mut at = 4;
        while let Some(option) = arguments.get(at) {
            match option.to_ascii_uppercase().as_slice() {
                b"WITHSCORES" => self.scores = true,
                b"LIMIT" if at + 2 < arguments.len() => {
                    self.limit = (integer(&arguments[at + 1])?, integer(&arguments[at + 2])?);
                    at += 2;
                }
                // Each at most once, and only where the command does not say it.
                b"REV" if self.reverse.is_none() => self.reverse = Some(true),
                b"BYLEX" if self.by.is_none() => self.by = Some(By::Bytes),
                b"BYSCORE" if self.by.is_none() => self.by = Some(By::Score),
                _ => return Err(SYNTAX),
            }
            at += 1;
        }
        Ok(())
    }

    fn range(&self, arguments: &Arguments<'_>) -> Result<Range, Failure> {
        const LIMIT: Failure = Failure::new(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        );
        const WITHSCORES: Failure =
            Failure::new("ERR syntax error, WITHSCORES not supported in combination with BYLEX");
        const BYLEX: Failure = Failure::new("ERR BYLEX is not supported");
        let (first, second) = (&arguments[2], &arguments[3]);
        match self.by.unwrap_or(By::Place) {
            By::Place if self.limit.1 != -1 => Err(LIMIT),
            By::Bytes if self.scores => Err(WITHSCORES),
            By::Bytes => Err(BYLEX),
            By::Place => Ok(Range::Places(integer(first)?, integer(second)?)),
            By::Score => {
                let (from, to) = if self.is_reverse() {
                    bounds(second, first)?
                } else {
                    bounds(first, second)?
                };
                let (offset, count) = self.limit;
                // Nobody is behind a negative offset.
                let count = if offset < 0 { 0 } else { count };
                let clamped = |number| u32::try_from(number).unwrap_or(u32::MAX);
                Ok(Range::Scores {
                    from,
                    to,
                    offset: clamped(offset.max(0)),
                    count: clamped(count),
                })
            }
        }
    }

    fn is_reverse(&self) -> bool {
        self.reverse.unwrap_or(false)
    }

    fn run(mut self, context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
        self.parse(arguments)?;
        let way = Way::Ranked {
            range: self.range(arguments)?,
            reverse: self.is_reverse(),
        };
        let shape = if self.scores {
            Shape::Scores
        } else {
            Shape::Firsts
        };
        members::all(context, &arguments[1], way, shape)
    }
}

pub(super) fn zrange(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    Reading::new(None, None).run(context, arguments)
}

pub(super) fn zrevrange(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    Reading::new(Some(By::Place), Some(true)).run(context, arguments)
}

pub(super) fn zrangebyscore(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    Reading::new(Some(By::Score), Some(false)).run(context, arguments)
}

pub(super) fn zrevrangebyscore(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    Reading::new(Some(By::Score), Some(true)).run(context, arguments)
}

fn pop(context: &mut Context<'_>, arguments: &Arguments<'_>, greatest: bool) -> Prepared {
    /// So many do not have room in the reply to a write of any geometry.
    const POPS_MAX: i64 = 1 << 16;
    let key = &arguments[1];
    let Some(count) = arguments.get(2) else {
        let finish = Finish::Sorted(Sorted::Popped(Shape::FlatScores, 1));
        return context.action(key, Action::PopScore { greatest }, finish);
    };
    if arguments.len() > 3 {
        return Err(SYNTAX);
    }
    let count = integer(count).map_err(|_| NOT_POSITIVE)?;
    if count < 0 {
        return Err(NOT_POSITIVE);
    }
    check_key(key)?;
    let range = Range::Places(0, count - 1);
    let shape = Shape::Scores;
    if count == 0 {
        // Nothing is removed, but the type is looked at.
        let nothing = Range::Scores {
            from: Bound::Unbounded,
            to: Bound::Unbounded,
            offset: 0,
            count: 0,
        };
        let (range, reverse) = (nothing, greatest);
        return members::all(context, key, Way::Ranked { range, reverse }, shape);
    }
    if context.in_transaction || count == 1 {
        let count = count.min(POPS_MAX).unsigned_abs() as usize;
        for _ in 0..count {
            context.act(key, Action::PopScore { greatest })?;
        }
        return Ok(Then::Items(Finish::Sorted(Sorted::Popped(shape, count))));
    }
    removal(key, range, greatest, Removed::Members(shape))
}

fn removal(key: &[u8], range: Range, reverse: bool, answer: Removed) -> Prepared {
    check_key(key)?;
    let removal = Removal::new(key, range, reverse, answer);
    Ok(Then::Steps(Box::new(Steps::Removal(removal))))
}

pub(super) fn zpopmin(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    pop(context, arguments, false)
}

pub(super) fn zpopmax(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    pop(context, arguments, true)
}

pub(super) fn zremrangebyrank(_: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let range = Range::Places(integer(&arguments[2])?, integer(&arguments[3])?);
    removal(&arguments[1], range, false, Removed::Count)
}

pub(super) fn zremrangebyscore(_: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let (from, to) = bounds(&arguments[2], &arguments[3])?;
    let range = Range::Scores {
        from,
        to,
        offset: 0,
        count: u32::MAX,
    };
    removal(&arguments[1], range, false, Removed::Count)
}

pub(super) fn zscan(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    members::scan(context, arguments, SORTED)
}

pub(super) fn zrandmember(context: &mut Context<'_>, arguments: &Arguments<'_>) -> Prepared {
    let key = &arguments[1];
    let Some(count) = arguments.get(2) else {
        return members::pick(context, key, SORTED, false);
    };
    let count = members::count(count)?;
    let scores = match (arguments.get(3), arguments.len()) {
        (None, _) => false,
        (Some(option), 4) if option.eq_ignore_ascii_case(b"WITHSCORES") => true,
        _ => return Err(SYNTAX),
    };
    if scores && !(-i64::MAX / 2..=i64::MAX / 2).contains(&count) {
        return Err(members::OUT_OF_RANGE);
    }
    let shape = if scores { Shape::Scores } else { Shape::Array };
    members::draw(context, key, SORTED, count, shape)
}
