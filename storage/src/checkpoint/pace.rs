//! How fast a checkpoint is written: as slowly as its deadline allows, so that commits hardly notice.
//!
//! * By ops: between the start delay and three quarters of the deadline, the share of pages copied keeps up with the
//!   share of ops executed. The last quarter is room for a slow disk, the tag tree, the map and the superblock.
//! * By time: a trickle of ops must not draw a checkpoint out for minutes, so a slow steady rate is a floor; and when
//!   no op has come for a while, nobody is disturbed by more.
//! * Neither holds when a commit waits for spares, or the deadline is near: then every buffer goes out.

use super::{BUFFER_COUNT, BUFFER_PAGES};

/// Without a commit for this long, the replica counts as idle: well above the distance of two commits under any load
/// that could notice a checkpoint, and below what a person waiting for one notices.
const IDLE_NS: u64 = 200_000_000;

/// Writes in flight when idle: enough to keep a disk streaming, few enough that the first commit after the idle time
/// does not queue behind a megabyte.
const IDLE_WRITES_MAX: usize = 2;

/// Pages per second that are written at least, once begun: 32 MiB/s, a few percent of what a drive for this takes;
/// 256 MiB then take eight seconds.
const PAGES_PER_SECOND_MIN: u64 = 8192;

/// What may be done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Allowance {
    /// Pages that may have been copied since the checkpoint began.
    pub(super) pages: u32,
    /// Writes that may be in flight.
    pub(super) writes: usize,
}

/// Paces one checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The op whose commit froze the pages.
    pub(super) op: u64,
    /// Ops after it before anything is written, unless idle or urgent.
    pub(super) start_delay_ops: u64,
    /// The op by which the checkpoint must be durable.
    pub(super) deadline_op: u64,
    /// Frozen pages.
    pub(super) pages: u32,
    /// The highest op seen, and when.
    commit_op: u64,
    commit_ns: u64,
    /// When the start delay was over.
    started_ns: Option<u64>,
    /// Nothing is to be waited for: others wait for this checkpoint.
    hurried: bool,
}

impl Pace {
    pub(super) fn new(op: u64, start_delay_ops: u64, deadline_op: u64, pages: u32) -> Self {
        assert!(deadline_op > op);
        assert!(start_delay_ops < deadline_op - op);
        Self {
            op,
            start_delay_ops,
            deadline_op,
            pages,
            commit_op: op,
            commit_ns: 0,
            started_ns: None,
            hurried: false,
        }
    }

    /// For a checkpoint that was fetched: until it is on the disk this replica is no full member of its cluster. A few
    /// writes in flight stream at the disk's speed, and leave the journal its turn.
    pub(super) fn hurried(op: u64, pages: u32) -> Self {
        Self {
            hurried: true,
            ..Self::new(op, 0, op + 1, pages)
        }
    }

    /// The time since the begin at which the replica counts as idle, if no op is executed before.
    pub(super) fn idle_at_ns(&self) -> u64 {
        self.commit_ns + IDLE_NS
    }

    /// What may be done when `copied` pages are, `commit_op` is executed, and a commit waits for spares or not.
    pub(super) fn allowance(
        &mut self,
        copied: u32,
        commit_op: u64,
        elapsed_ns: u64,
        spares_lack: bool,
    ) -> Allowance {
        assert!(copied <= self.pages);
        // (While pages are still being fetched, less is executed than the checkpoint stands for.)
        assert!(commit_op >= self.commit_op || self.hurried);
        if commit_op > self.commit_op {
            (self.commit_op, self.commit_ns) = (commit_op, elapsed_ns);
        }
        if self.hurried && !spares_lack {
            return Allowance {
                pages: self.pages,
                writes: IDLE_WRITES_MAX,
            };
        }
        let ops_max = self.deadline_op - self.op;
        let ops = commit_op.saturating_sub(self.op);
        let deadline_is_near = ops >= ops_max - ops_max / 8;
        if spares_lack || deadline_is_near {
            return Allowance {
                pages: self.pages,
                writes: BUFFER_COUNT,
            };
        }
        if elapsed_ns >= self.idle_at_ns() {
            return Allowance {
                pages: self.pages,
                writes: IDLE_WRITES_MAX,
            };
        }
        if ops < self.start_delay_ops {
            return Allowance {
                pages: copied,
                writes: 0,
            };
        }
        let target = self.by_ops(ops).max(self.by_time(elapsed_ns));
        // The further behind, the deeper the queue: a disk that keeps up never has more than one write of ours.
        let behind = target.saturating_sub(copied) / BUFFER_PAGES;
        Allowance {
            pages: target,
            writes: (1 + behind as usize).min(BUFFER_COUNT),
        }
    }

    fn by_ops(&self, ops: u64) -> u32 {
        let ops_max = self.deadline_op - self.op;
        let finish = (ops_max - ops_max / 4).max(self.start_delay_ops + 1);
        let done = ops - self.start_delay_ops;
        let whole = finish - self.start_delay_ops;
        (u64::from(self.pages) * done.min(whole)).div_ceil(whole) as u32
    }

    fn by_time(&mut self, elapsed_ns: u64) -> u32 {
        let started_ns = *self.started_ns.get_or_insert(elapsed_ns);
        let milliseconds = elapsed_ns.saturating_sub(started_ns) / 1_000_000;
        (milliseconds.saturating_mul(PAGES_PER_SECOND_MIN) / 1000).min(u64::from(self.pages)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn pages_follow_ops_and_are_done_at_three_quarters() {
        let mut pace = Pace::new(1000, 100, 1400, 6000);
        let mut copied = 0;
        for ops in 1..400 {
            let allowance = pace.allowance(copied, 1000 + ops, ops, false);
            match ops {
                1..100 => assert_eq!(allowance.writes, 0),
                100 => assert_eq!(allowance.pages, 0),
                200 => assert_eq!(allowance.pages, 3000),
                300.. => assert_eq!(allowance.pages, 6000),
                _ => assert!(allowance.pages >= copied),
            }
            copied = allowance.pages;
        }
    }

    #[test]
    fn idle_urgent_and_late_checkpoints_are_not_held_back() {
        let mut pace = Pace::new(10, 4, 90, 1000);
        assert_eq!(pace.allowance(0, 11, MS, false).pages, 0);
        assert_eq!(pace.idle_at_ns(), 201 * MS);
        assert_eq!(pace.allowance(0, 11, 200 * MS, false).pages, 0);
        let idle = pace.allowance(0, 11, 201 * MS, false);
        assert_eq!((idle.pages, idle.writes), (1000, IDLE_WRITES_MAX));
        let lack = pace.allowance(0, 12, 202 * MS, true);
        assert_eq!((lack.pages, lack.writes), (1000, BUFFER_COUNT));
        let late = pace.allowance(0, 80, 203 * MS, false);
        assert_eq!((late.pages, late.writes), (1000, BUFFER_COUNT));
    }

    #[test]
    fn a_trickle_of_ops_does_not_draw_it_out() {
        let mut pace = Pace::new(10, 0, 10_010, 65_536);
        let mut seconds = 0;
        for tenth in 1..200 {
            let allowance = pace.allowance(0, 10 + tenth, tenth * 100 * MS, false);
            if allowance.pages == 65_536 {
                seconds = tenth / 10;
                break;
            }
        }
        assert_eq!(seconds, 8);
    }
}
