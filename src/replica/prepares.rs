//! The newest prepares, in memory: a primary's pipeline with its acknowledgements, a backup's cache. Either way commits
//! need no disk read.

use crate::quorums::ReplicaSet;
use storage::buffer::SharedMessage;
use storage::header::Prepare;

/// A prepare that is not executed yet.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: SharedMessage,
    /// Who holds it durably, in this view. Used by the primary only.
    pub(super) acks: ReplicaSet,
    /// Acknowledgements that came again: counted only where the rules are broken.
    pub(super) repeated: u8,
    /// The checkpoint that the acknowledgements rest on, if the first of them named it; zero: not yet.
    pub(super) checkpoint_id: u128,
}

impl Entry {
    pub(super) fn prepare(&self) -> &Prepare {
        self.message.header().typed()
    }
}

/// A ring by op. An op that finds its place taken by a lower one is simply not kept: it is in the journal.
#[derive(Debug)]
pub(super) struct Prepares {
    entries: Box<[Option<Entry>]>,
}

impl Prepares {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: (0..capacity).map(|_| None).collect(),
        }
    }

    fn index(&self, op: u64) -> usize {
        (op % self.entries.len() as u64) as usize
    }

    /// Keeps a prepare, if its place is free; tells whether it is kept.
    pub(super) fn insert(&mut self, message: SharedMessage) -> bool {
        let index = self.index(message.header().typed::<Prepare>().op);
        let free = self.entries[index].is_none();
        if free {
            self.entries[index] = Some(Entry {
                message,
                acks: ReplicaSet::default(),
                repeated: 0,
                checkpoint_id: 0,
            });
        }
        free
    }

    pub(super) fn get(&self, op: u64) -> Option<&Entry> {
        self.entries[self.index(op)]
            .as_ref()
            .filter(|entry| entry.prepare().op == op)
    }

    pub(super) fn get_mut(&mut self, op: u64) -> Option<&mut Entry> {
        let index = self.index(op);
        self.entries[index]
            .as_mut()
            .filter(|entry| entry.prepare().op == op)
    }

    pub(super) fn remove(&mut self, op: u64) -> Option<Entry> {
        self.get(op)?;
        let index = self.index(op);
        self.entries[index].take()
    }

    /// Whether nothing is kept in the place of `op`.
    pub(super) fn is_free(&self, op: u64) -> bool {
        self.entries[self.index(op)].is_none()
    }

    /// Keeps only what `keep` says.
    pub(super) fn retain(&mut self, keep: impl Fn(&Prepare) -> bool) {
        for place in &mut self.entries {
            let _ = place.take_if(|entry| !keep(entry.prepare()));
        }
    }

    /// Acknowledgements count in one view only.
    pub(super) fn forget_acks(&mut self) {
        for entry in self.entries.iter_mut().flatten() {
            entry.acks = ReplicaSet::default();
            entry.checkpoint_id = 0;
        }
    }
}
