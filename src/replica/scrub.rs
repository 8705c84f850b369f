//! Looking for decay before it is met: a slow tour over the checkpoint's blocks, the pages in memory, and the prepares of the
//! journal, one of each at a time.
//!
//! What is bad on the disk and good in memory is written again; a prepare that is lost is repaired from the others; what has
//! changed since is superseded by the next checkpoint. What has changed in *memory* by itself cannot be mended: ops may have
//! been executed on it, so the replica stops.

use super::commit::READ_TO_SCRUB;
use super::{Effects, Fatal, Replica};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::checkpoint::Scrubbed;
use storage::header::ReplicaStatus;

/// Progress of the tour over the journal.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// The next op to look at.
    op: u64,
    /// A prepare is being read.
    reading: bool,
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Takes a step, when it is time.
    pub(super) fn scrub(&mut self, effects: &mut Effects) {
        let interval_ns = self.checkpoint.scrub_interval_ns();
        self.timers.scrub.set(self.now, interval_ns);
        if !matches!(
            self.status,
            ReplicaStatus::Normal | ReplicaStatus::ViewChange
        ) {
            return;
        }
        let found = self.checkpoint.scrub(self.engine.pages(), &mut effects.io);
        self.on_scrubbed(found, effects);
        self.scrub_journal(effects);
    }

    pub(super) fn on_scrubbed(&mut self, found: Scrubbed, effects: &mut Effects) {
        match found {
            Scrubbed::Good => {}
            Scrubbed::Mended(_) => self.metrics.blocks_mended += 1,
            Scrubbed::Superseded(_) => self.metrics.blocks_superseded += 1,
            Scrubbed::Memory(page) => {
                effects.halt = Some(Fatal::Memory(page));
            }
        }
    }

    /// Reads a prepare of the log; the journal takes note if it cannot be read, and repair does the rest.
    fn scrub_journal(&mut self, effects: &mut Effects) {
        // Execution and others who ask come first.
        if self.scrub.reading || self.reading_back.to_execute.is_some() || self.serving_reads > 0 {
            return;
        }
        let (lowest, highest) = (self.checkpoint_op + 1, self.commit_min);
        if lowest > highest {
            return;
        }
        let op = self.scrub.op.clamp(lowest, highest);
        self.scrub.op = if op == highest { lowest } else { op + 1 };
        let Some(header) = self.journal.header(op).copied() else {
            return;
        };
        let size = storage::sector_ceil(header.frame.size as usize);
        let Some(buffer) = self.buffer_for(size) else {
            return;
        };
        let checksum = header.frame.checksum;
        let read = self
            .journal
            .read(op, checksum, buffer, READ_TO_SCRUB, &mut effects.io);
        self.scrub.reading = read.is_ok();
    }

    pub(super) fn on_journal_scrubbed(&mut self, _op: u64, good: bool) {
        assert!(self.scrub.reading);
        self.scrub.reading = false;
        if !good {
            self.metrics.prepares_decayed += 1;
        }
    }
}
