//! Lists: elements at places, which are numbers in a row.

use super::{Descriptor, Opened};
use crate::state_machine::kv::answer::Answer;
use crate::state_machine::kv::wire::Action;
use crate::state_machine::kv::{Kv, Pages};

impl Kv {
    /// Answers an action that reads.
    pub(super) fn read_list(
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
    pub(super) fn change_list(
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
