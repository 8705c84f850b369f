//! Lists.

use super::{Handle, Part, part, value};
use crate::client::kv::KvError;
use crate::state_machine::kv::wire::{Action, End, Status};

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
    /// [`TRIM_MAX`](crate::client::kv::TRIM_MAX) elements, the error is [`KvError::TooLarge`] with their number, and nothing is
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
