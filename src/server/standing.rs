//! What the log says of a replica's part in its cluster: once for each change.

use crate::replica::Nowhere;
use storage::header::ReplicaStatus;
use storage::layout::PAGE_SIZE;

/// Pages of state after which the log says how far fetching is: 64 MiB.
pub const FETCHED_STEP: u64 = 16_384;

/// What a replica is in its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its view.
    pub view: u32,
    /// Index of that view's primary.
    pub primary: u8,
    /// What it is doing.
    pub status: ReplicaStatus,
    /// What it needs, and no replica has that answers.
    pub nowhere: Option<Nowhere>,
    /// Of a replica that fetches its state: how far that is, in steps of [`FETCHED_STEP`] pages.
    pub fetched_steps: Option<u64>,
    /// Of a replica whose file was lost: the op whose commit it waits for.
    pub awaited_op: Option<u64>,
}

/// Says what has changed.
pub(super) fn log(before: Option<Standing>, now: Option<Standing>) {
    let Some(now) = now else {
        return;
    };
    let role = |standing: Standing| (standing.view, standing.primary, standing.status);
    if before.map(role) != Some(role(now)) {
        let name = now.status.name();
        log::info!(
            "view {} (primary: replica {}): {name}",
            now.view,
            now.primary
        );
    }
    log_progress(before, &now);
    let missed = before.and_then(|before| before.nowhere);
    match (missed, now.nowhere) {
        (_, Some(nowhere)) if missed != Some(nowhere) => log_nowhere(&nowhere),
        (Some(missed), None) => log::info!("{}: no longer waited for", missed.needed),
        _ => {}
    }
}

/// Says how far it is, if that has changed.
fn log_progress(before: Option<Standing>, now: &Standing) {
    if let Some(steps) = now.fetched_steps
        && before.and_then(|it| it.fetched_steps) != Some(steps)
    {
        let mib = (steps * FETCHED_STEP * PAGE_SIZE as u64) >> 20;
        log::info!("fetching the state from the other replicas: {mib} MiB have come");
    }
    if let Some(op) = now.awaited_op
        && before.and_then(|it| it.awaited_op) != Some(op)
    {
        log::info!(
            "this file takes the place of one that was lost: it takes part again when op {op} is committed and it has a \
             state"
        );
    }
}

fn log_nowhere(nowhere: &Nowhere) {
    let advice = if nowhere.silent.count() > 0 {
        "start it, with its data file"
    } else {
        "see whether a disk can be read again, and restart its replica; otherwise stop all replicas and restore all data \
         files from one backup"
    };
    log::error!(
        "{nowhere}. Nothing can be executed without it, so the cluster waits for it: {advice}"
    );
}
