//! Sorted sets: members by their bytes, and an index of them by score.

use super::{Descriptor, Opened};
use crate::state_machine::kv::answer::Answer;
use crate::state_machine::kv::wire::Action;
use crate::state_machine::kv::{Kv, Pages};

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
        let _ = (pages, descriptor, version, answer);
        unreachable!("{action:?}");
    }

    /// Executes an action that changes something.
    pub(super) fn change_sorted(
        &mut self,
        pages: &mut Pages,
        key: &[u8],
        opened: Opened,
        action: &Action<'_>,
        answer: &mut Answer<'_, '_>,
    ) {
        let _ = (pages, key, opened, answer);
        unreachable!("{action:?}");
    }
}
