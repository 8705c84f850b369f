//! Lists.

use super::{Handle, Part, part, value};
use crate::client::kv::KvError;
use crate::state_machine::kv::wire::{Action, End, Status, TRIM_MAX};

/// Elements at places. A place is counted from 0; a negative one from the end, where -1 is the last. All its methods may
/// fail with a [`KvError`], and do with [`KvError::WrongType`] if the key holds something else.
///
/// ```
/// # let cluster = viewstone::testing::KvCluster::start(1)?;
/// # let kv = cluster.kv()?;
/// use viewstone::client::kv::End;
///
/// let jobs = kv.list(b"jobs");
/// jobs.push(End::Last, b"paint")?;
/// jobs.push(End::Last, b"dry")?;
/// assert_eq!(jobs.range(0, -1)?.items, [b"paint".to_vec(), b"dry".to_vec()]);
/// assert_eq!(jobs.pop(End::First)?.as_deref(), Some(&b"paint"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct List<'a>(pub(super) Handle<'a>);

#[expect(clippy::missing_errors_doc, reason = "the type has it")]
#[expect(
    clippy::len_without_is_empty,
    reason = "a call across the network is not to be hidden"
)]
impl List<'_> {
    /// Elements.
    pub fn len(&self) -> Result<u64, KvError> {
        self.0.len()
    }

    /// Adds an element at an end, and returns how many there are.
    pub fn push(&self, end: End, value: &[u8]) -> Result<u64, KvError> {
        let push = Action::Push {
            end,
            value,
            if_present: false,
        };
        Ok(self.0.number(push)?.0.cast_unsigned())
    }

    /// Removes the element at an end. One that does not fit the answer to a write (3.8 KiB unless formatted otherwise) stays
    /// where it is, and the error is [`KvError::TooLarge`].
    pub fn pop(&self, end: End) -> Result<Option<Vec<u8>>, KvError> {
        let size_max = u32::MAX;
        self.0.act(Action::Pop { end, size_max }, value)
    }

    /// Removes as many elements, from 1 to [`TRIM_MAX`], or as there are, from an end on, and returns them. If they do not all
    /// fit the answer to a write they stay where they are, and the error is [`KvError::TooLarge`].
    pub fn take(&self, end: End, count: u32) -> Result<Vec<Vec<u8>>, KvError> {
        if !(1..=TRIM_MAX).contains(&u64::from(count)) {
            return Err(KvError::Empty);
        }
        let take = Action::Take {
            end,
            count,
            size_max: u32::MAX,
        };
        self.0.act(take, |reply| match reply.status {
            Status::DoneMembers => Some(reply.members.map(<[u8]>::to_vec).collect()),
            Status::NotFound => Some(vec![]),
            _ => None,
        })
    }

    /// Moves the element at an end to an end of the list of another key, or of the same, and returns it; as one change of
    /// both. [`KvError::TooLarge`] as of a pop.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::End;
    ///
    /// let (todo, doing) = (kv.list(b"todo"), kv.list(b"doing"));
    /// for job in [b"one", b"two", b"six"] {
    ///     todo.push(End::Last, job)?;
    /// }
    /// let job = todo.move_to(End::First, b"doing", End::Last)?;
    /// assert_eq!(job.as_deref(), Some(&b"one"[..]));
    /// assert_eq!(doing.len()?, 1);
    /// assert_eq!(todo.take(End::Last, 9)?, [b"six", b"two"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn move_to(&self, from: End, key: &[u8], to: End) -> Result<Option<Vec<u8>>, KvError> {
        let action = Action::Move {
            to: key,
            from_end: from,
            to_end: to,
            size_max: Some(u32::MAX),
        };
        self.0.act(action, value)
    }

    /// The element at a place.
    pub fn at(&self, index: i64) -> Result<Option<Vec<u8>>, KvError> {
        let size_max = u32::MAX;
        self.0.act(Action::At { index, size_max }, value)
    }

    /// Replaces the element at a place; false if there is none.
    pub fn replace(&self, index: i64, value: &[u8]) -> Result<bool, KvError> {
        self.0.act(Action::Replace { index, value }, |reply| {
            match reply.status {
                Status::Done => Some(true),
                Status::NotFound | Status::Mismatch => Some(false),
                _ => None,
            }
        })
    }

    /// The elements from `start` to `stop`, included: as many as fit an answer.
    pub fn range(&self, start: i64, stop: i64) -> Result<Part<Vec<u8>>, KvError> {
        let range = Action::Range {
            start,
            stop,
            size_max: u32::MAX,
        };
        self.0.act(range, |reply| {
            part(reply, |[element]| Some(element.to_vec()))
        })
    }

    /// Removes what is outside of a range; false if there is no such key. If that is neither all nor at most
    /// [`TRIM_MAX`] elements, the error is [`KvError::TooLarge`] with their number, and nothing is
    /// changed.
    pub fn trim(&self, start: i64, stop: i64) -> Result<bool, KvError> {
        self.0
            .act(Action::Trim { start, stop }, |reply| match reply.status {
                Status::Done => Some(true),
                Status::NotFound => Some(false),
                _ => None,
            })
    }
}
