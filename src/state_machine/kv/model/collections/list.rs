//! Lists.

use crate::state_machine::kv::model::{Outcome, World};
use crate::state_machine::kv::wire::Action;
use std::collections::VecDeque;

pub(super) fn read(
    list: &VecDeque<Vec<u8>>,
    version: u64,
    action: &Action<'_>,
    world: World,
) -> Outcome {
    let _ = (list, version, world);
    unreachable!("{action:?}");
}

pub(super) fn change(
    list: &mut VecDeque<Vec<u8>>,
    version: u64,
    action: &Action<'_>,
    world: World,
) -> Outcome {
    let _ = (list, version, world);
    unreachable!("{action:?}");
}
