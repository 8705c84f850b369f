//! Sorted sets.

use super::{Handle, Part, part};
use crate::client::kv::KvError;
use crate::state_machine::kv::wire::{Action, ItemReply, Score, ScoreCondition, Status};
use std::ops::Bound;

/// A member and its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// The member.
    pub member: Vec<u8>,
    /// Its score.
    pub score: f64,
}

/// Members, each with a score, which is any number but NaN; in the order of the scores, and of the members' bytes where these
/// are equal. Places and scores are found by passing over members, at most
/// [`RANK_MAX`](crate::client::kv::RANK_MAX) of them; beyond that the error is [`KvError::TooLarge`]. All its methods may fail
/// with a [`KvError`], and do with [`KvError::WrongType`] if the key holds something else.
///
/// ```
/// # let cluster = viewstone::testing::KvCluster::start(1)?;
/// # let kv = cluster.kv()?;
/// let high_scores = kv.sorted_set(b"scores");
/// high_scores.insert(b"ada", 12.5)?;
/// high_scores.insert(b"bob", 7.0)?;
/// assert_eq!(high_scores.add(b"bob", 10.0)?, 17.0);
/// assert_eq!(high_scores.rank(b"bob", true)?, Some(0));
/// let best = high_scores.by_rank(0, 0, true)?;
/// assert_eq!((&best.items[0].member[..], best.items[0].score), (&b"bob"[..], 17.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SortedSet<'a>(pub(super) Handle<'a>);

/// A score as it is told; none if it is not one.
fn score_of(bytes: &[u8]) -> Option<f64> {
    let ordered = u64::from_le_bytes(bytes.try_into().ok()?);
    Some(Score::from_ordered(ordered)?.get())
}

fn scored(reply: &ItemReply<'_>) -> Option<Part<Scored>> {
    part(reply, |[member, score]| {
        Some(Scored {
            member: member.to_vec(),
            score: score_of(score)?,
        })
    })
}

fn bound(bound: Bound<f64>) -> Result<Bound<Score>, KvError> {
    let score = |number| Score::new(number).ok_or(KvError::NotANumber);
    Ok(match bound {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(number) => Bound::Included(score(number)?),
        Bound::Excluded(number) => Bound::Excluded(score(number)?),
    })
}

#[expect(clippy::missing_errors_doc, reason = "the type has it")]
#[expect(
    clippy::len_without_is_empty,
    reason = "a call across the network is not to be hidden"
)]
impl SortedSet<'_> {
    /// Members.
    pub fn len(&self) -> Result<u64, KvError> {
        self.0.len()
    }

    /// A member's score.
    pub fn score(&self, member: &[u8]) -> Result<Option<f64>, KvError> {
        let found = self.0.find(member)?;
        Ok(found.and_then(|score| score_of(&score)))
    }

    /// Gives a member a score; true if the member is new. NaN is [`KvError::NotANumber`].
    pub fn insert(&self, member: &[u8], score: f64) -> Result<bool, KvError> {
        let score = Action::Score {
            member,
            score: Score::new(score).ok_or(KvError::NotANumber)?,
            condition: ScoreCondition::default(),
            add: false,
        };
        Ok(self.0.number(score)?.0 == 1)
    }

    /// Adds to a member's score (one that is not there has 0), and returns the sum.
    pub fn add(&self, member: &[u8], score: f64) -> Result<f64, KvError> {
        let score = Action::Score {
            member,
            score: Score::new(score).ok_or(KvError::NotANumber)?,
            condition: ScoreCondition::default(),
            add: true,
        };
        self.0.act(score, |reply| match reply.status {
            Status::DoneValue | Status::Value => score_of(reply.value),
            _ => None,
        })
    }

    /// Removes a member; false if it was none.
    pub fn remove(&self, member: &[u8]) -> Result<bool, KvError> {
        self.0.remove(member)
    }

    /// The place of a member, from 0; in reverse, from the greatest.
    pub fn rank(&self, member: &[u8], reverse: bool) -> Result<Option<u64>, KvError> {
        self.0.act(Action::Rank { member, reverse }, |reply| {
            match reply.status {
                Status::Number => Some(Some(reply.number.cast_unsigned())),
                Status::NotFound => Some(None),
                _ => None,
            }
        })
    }

    /// The members from place `start` to place `stop`, included, as many as fit an answer. Negative: from the end; -1 is the
    /// last. In reverse, places are counted from the greatest.
    pub fn by_rank(&self, start: i64, stop: i64, reverse: bool) -> Result<Part<Scored>, KvError> {
        let by_rank = Action::ByRank {
            start,
            stop,
            reverse,
            size_max: u32::MAX,
        };
        self.0.act(by_rank, scored)
    }

    /// The members with scores between two, at most `count_max`, as many as fit an answer; in reverse, from the greatest.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use std::ops::Bound;
    ///
    /// let alarms = kv.sorted_set(b"alarms");
    /// alarms.insert(b"tea", 300.0)?;
    /// alarms.insert(b"cake", 1800.0)?;
    /// let due = alarms.by_score(Bound::Unbounded, Bound::Included(600.0), false, 10)?;
    /// assert_eq!(due.items.len(), 1);
    /// assert_eq!(alarms.pop(false)?.expect("there are two").member, b"tea");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn by_score(
        &self,
        from: Bound<f64>,
        to: Bound<f64>,
        reverse: bool,
        count_max: u32,
    ) -> Result<Part<Scored>, KvError> {
        let by_score = Action::ByScore {
            from: bound(from)?,
            to: bound(to)?,
            reverse,
            offset: 0,
            count_max,
            size_max: u32::MAX,
        };
        self.0.act(by_score, scored)
    }

    /// How many members have scores between two.
    pub fn count(&self, from: Bound<f64>, to: Bound<f64>) -> Result<u64, KvError> {
        let (from, to) = (bound(from)?, bound(to)?);
        self.0.act(Action::CountScores { from, to }, |reply| {
            match reply.status {
                Status::Number => Some(reply.number.cast_unsigned()),
                Status::NotFound => Some(0),
                _ => None,
            }
        })
    }

    /// Removes the member with the least score, or the greatest.
    pub fn pop(&self, greatest: bool) -> Result<Option<Scored>, KvError> {
        self.0
            .act(Action::PopScore { greatest }, |reply| match reply.status {
                Status::DoneValue => {
                    let (score, member) = reply.value.split_at_checked(size_of::<u64>())?;
                    Some(Some(Scored {
                        member: member.to_vec(),
                        score: score_of(score)?,
                    }))
                }
                Status::NotFound => Some(None),
                _ => None,
            })
    }
}
