//! Sorted sets.

use crate::state_machine::kv::model::{Outcome, World};
use crate::state_machine::kv::wire::{Action, Score};
use std::collections::BTreeMap;

pub(super) fn read(
    sorted: &BTreeMap<Vec<u8>, Score>,
    version: u64,
    action: &Action<'_>,
    world: World,
) -> Outcome {
    let _ = (sorted, version, world);
    unreachable!("{action:?}");
}

pub(super) fn change(
    sorted: &mut BTreeMap<Vec<u8>, Score>,
    version: u64,
    action: &Action<'_>,
    world: World,
) -> Outcome {
    let _ = (sorted, version, world);
    unreachable!("{action:?}");
}
