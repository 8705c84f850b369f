//! Equal ops must have made equal states: whoever differs from the others stops, and says in which pages.
//!
//! Checkpoint ids travel in greetings, heartbeats and acknowledgements. A replica compares those of one op: if a majority of
//! all replicas names one id and it has another, it stops; if so many differ that no majority can be, it stops as well, for
//! then nobody knows who is right. Before it stops it compares its tag tree with that of another, node by node, to name the
//! pages that differ; it neither acknowledges nor votes nor executes meanwhile, and does not wait for long.

use super::{DIVERGED_PAGES_MAX, Diverged, Effects, Fatal, Peer, Replica};
use crate::constants::{DIVERGENCE_NS, SYNC_TICK_NS};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::checkpoint::Comparison;
use storage::header::{PageReference, PageRequest, RequestPages};
use storage::layout::REPLICAS_MAX;
use storage::superblock::CheckpointRecord;

/// Checkpoints that each replica has named, newest first: as many as a replica has in memory.
const NAMED_MAX: usize = 2;

/// A checkpoint, as somebody has named it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Named {
    op: u64,
    id: u128,
}

/// The checkpoints that another replica has named.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NamedCheckpoints([Named; NAMED_MAX]);

impl NamedCheckpoints {
    /// Takes note; true if that is news.
    pub(super) fn hear(&mut self, op: u64, id: u128) -> bool {
        let newest = self.0[0];
        if id == 0 || op < newest.op || newest == (Named { op, id }) {
            return false; // it is fetching that one; or it is late, or known
        }
        if op > newest.op {
            self.0.rotate_right(1);
        }
        self.0[0] = Named { op, id };
        true
    }

    fn id_of(&self, op: u64) -> Option<u128> {
        let named = self.0.iter().find(|named| named.op == op && named.id != 0);
        named.map(|named| named.id)
    }
}

/// What the ids of one checkpoint say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Nothing is known to be wrong here.
    Agree,
    /// A majority has another id; one of them is this replica.
    Differ(u8),
    /// There can be no majority.
    Undecided(u8),
}

/// Judges the ids that replicas have named for one checkpoint; `own` is among them at `me`.
fn judge(ids: &[Option<u128>], me: usize, own: u128) -> Verdict {
    let count_of = |id| ids.iter().filter(|&&other| other == Some(id)).count();
    let majority = ids.len() / 2 + 1;
    let unknown = ids.iter().filter(|id| id.is_none()).count();
    let others = || (0..ids.len()).filter(|&replica| replica != me);
    let Some(other) = others().find(|&replica| ids[replica].is_some_and(|id| id != own)) else {
        return Verdict::Agree;
    };
    if count_of(own) >= majority {
        return Verdict::Agree; // it is others who stop
    }
    for replica in others() {
        if let Some(id) = ids[replica]
            && count_of(id) >= majority
        {
            return Verdict::Differ(replica as u8);
        }
    }
    let possible = ids
        .iter()
        .flatten()
        .any(|&id| count_of(id) + unknown >= majority);
    if possible {
        Verdict::Agree // those who are not heard yet decide
    } else {
        Verdict::Undecided(other as u8)
    }
}

/// A comparison with another's tree.
#[derive(Debug)]
pub(super) struct Divergence {
    /// Op of the checkpoint, and whom this replica compares with; none: nothing is wrong.
    found: Option<(u64, u8)>,
    majority: bool,
    until_ns: u64,
    asked_until_ns: u64,
    comparison: Comparison,
}

impl Divergence {
    pub(super) fn new() -> Self {
        Self {
            found: None,
            majority: false,
            until_ns: 0,
            asked_until_ns: 0,
            comparison: Comparison::new(),
        }
    }

    /// Whether this replica is about to stop.
    pub(super) fn is_found(&self) -> bool {
        self.found.is_some()
    }
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Another replica names the newest checkpoint that is durable there.
    pub(super) fn hear_checkpoint(&mut self, from: u8, op: u64, id: u128, effects: &mut Effects) {
        let peer = &mut self.peers[from as usize];
        if peer.named.hear(op, id) {
            self.look_for_divergence(effects);
        }
    }

    /// Compares what is known of the checkpoints that are here.
    pub(super) fn look_for_divergence(&mut self, effects: &mut Effects) {
        if self.divergence.is_found() || self.is_solo() {
            return;
        }
        let mut found = None;
        for record in self.checkpoint.records() {
            let op = record.prepare.op;
            if op == 0 {
                continue;
            }
            let mut ids = [None; REPLICAS_MAX];
            for replica in self.others() {
                ids[replica as usize] = self.peers[replica as usize].named.id_of(op);
            }
            let me = self.options.replica as usize;
            ids[me] = Some(record.id);
            let ids = &ids[..self.options.replica_count as usize];
            match judge(ids, me, record.id) {
                Verdict::Agree => {}
                Verdict::Differ(other) => found = Some((op, other, true)),
                Verdict::Undecided(other) => found = Some((op, other, false)),
            }
        }
        if let Some((op, other, majority)) = found {
            self.begin_comparison(op, other, majority, effects);
        }
    }

    fn begin_comparison(&mut self, op: u64, other: u8, majority: bool, effects: &mut Effects) {
        self.divergence.found = Some((op, other));
        self.divergence.majority = majority;
        self.divergence.until_ns = self.now.monotonic_ns + DIVERGENCE_NS;
        self.state_ready = false;
        self.executing = None;
        let mut ask: RequestPages = self.header();
        ask.checkpoint_op = op;
        ask.kind = PageRequest::Named as u32;
        self.send_header(Peer::Replica(other), &ask, effects);
        self.timers.sync.set(self.now, SYNC_TICK_NS);
    }

    /// The other's record of the checkpoint in which this replica differs.
    pub(super) fn on_named_record(&mut self, from: u8, record: &CheckpointRecord) {
        if self.divergence.found == Some((record.prepare.op, from)) {
            self.divergence.comparison.begin(record);
        }
    }

    /// A node of the other's tree: the next may be asked for at once.
    pub(super) fn compare_page(&mut self, reference: &PageReference, content: &[u8]) {
        self.divergence.asked_until_ns = 0;
        self.checkpoint
            .compare_take(&mut self.divergence.comparison, reference, content);
    }

    /// Goes on comparing; stops when that is done, or has taken too long.
    pub(super) fn compare(&mut self, effects: &mut Effects) {
        let Some((op, other)) = self.divergence.found else {
            return;
        };
        let now_ns = self.now.monotonic_ns;
        if self.divergence.comparison.is_done() || now_ns >= self.divergence.until_ns {
            let found = self.divergence.comparison.pages();
            let mut pages = [0; DIVERGED_PAGES_MAX];
            let count = found.len().min(DIVERGED_PAGES_MAX);
            pages[..count].copy_from_slice(&found[..count]);
            let majority = self.divergence.majority;
            effects.halt = Some(Fatal::Diverged(Diverged {
                op,
                other,
                majority,
                pages,
                count,
            }));
            return;
        }
        self.timers.sync.set(self.now, SYNC_TICK_NS);
        let comparison = &self.divergence.comparison;
        if now_ns >= self.divergence.asked_until_ns
            && let Some(reference) = self.checkpoint.compare_wanted(comparison)
        {
            self.divergence.asked_until_ns = now_ns + SYNC_TICK_NS;
            if let Some(message) = self.pages_request(&[reference], 0) {
                effects.send(Peer::Replica(other), message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<u128> = Some(1);
    const B: Option<u128> = Some(2);
    const C: Option<u128> = Some(3);

    #[test]
    fn who_differs_from_a_majority_stops_and_without_one_all_do() {
        let verdict =
            |ids: &[Option<u128>], me: usize| judge(ids, me, ids[me].expect("its own is known"));
        assert_eq!(verdict(&[A, A, A], 0), Verdict::Agree);
        assert_eq!(verdict(&[A, A, B], 0), Verdict::Agree);
        assert_eq!(verdict(&[A, A, B], 2), Verdict::Differ(0));
        assert_eq!(verdict(&[A, None, B], 0), Verdict::Agree);
        assert_eq!(verdict(&[A, None, B], 2), Verdict::Agree);
        assert_eq!(verdict(&[A, C, B], 1), Verdict::Undecided(0));
        assert_eq!(verdict(&[A, B], 0), Verdict::Undecided(1));
        assert_eq!(verdict(&[A, B], 1), Verdict::Undecided(0));
        assert_eq!(verdict(&[A, None], 0), Verdict::Agree);
        assert_eq!(verdict(&[A, A, B, B], 3), Verdict::Undecided(0));
        assert_eq!(verdict(&[A, A, None, B, B], 3), Verdict::Agree);
        assert_eq!(verdict(&[A, A, A, B, B], 3), Verdict::Differ(0));
    }

    #[test]
    fn late_names_are_passed_over() {
        let mut named = NamedCheckpoints::default();
        assert!(named.hear(512, 7));
        assert!(!named.hear(512, 7));
        assert!(!named.hear(1023, 0), "still being fetched");
        assert!(named.hear(1024, 8));
        assert!(!named.hear(512, 9));
        assert_eq!((named.id_of(512), named.id_of(1024)), (Some(7), Some(8)));
        assert!(named.hear(1536, 9));
        assert_eq!(named.id_of(512), None);
    }
}
