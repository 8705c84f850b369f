//! The first start of a cluster: blank, initialised, begun (design section 7).
//!
//! A replica acts only once its file says `begun`. It becomes `initialised` when every other has greeted it as blank or
//! initialised and none as begun; and `begun` when all are initialised, or any has begun. So the first start needs all
//! replicas once; a crash at any point of it wedges nothing; and a blank file among replicas that have begun is known for
//! what it is: a file that was lost.

use super::view_change::Moved;
use super::{Effects, Head, Replica};
use crate::machines::Machines;
use crate::rules::Rules;
use storage::header::{ReplicaStatus, Start};

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Records the next state, if what was heard allows it.
    pub(super) fn advance_start(&mut self, effects: &mut Effects) {
        let may_write = self.is_confirmed() && !self.superblock.is_updating();
        if self.status != ReplicaStatus::Starting || !may_write {
            return;
        }
        let any_begun = self
            .others()
            .any(|replica| self.peers[replica as usize].start == Some(Start::Begun));
        let all_at_least = |start| {
            self.others().all(|replica| {
                self.peers[replica as usize]
                    .start
                    .is_some_and(|heard| heard >= start)
            })
        };
        let next = match self.start_state() {
            Start::Blank if any_begun && R::LOST_FILE_AWAITS_OTHERS => {
                self.become_lost();
                return;
            }
            Start::Blank if any_begun => Start::Begun,
            Start::Blank if all_at_least(Start::Blank) => Start::Initialised,
            Start::Initialised if any_begun || all_at_least(Start::Initialised) => Start::Begun,
            _ => return,
        };
        self.superblock
            .update(|state, _| state.set_start(next), &mut effects.io);
    }

    /// The newest state of the superblock is durable: while starting, that is a step forward.
    pub(super) fn on_start_durable(&mut self, effects: &mut Effects) {
        if self.status != ReplicaStatus::Starting {
            return;
        }
        assert!(self.is_confirmed(), "written to before it was confirmed");
        if self.start_state() == Start::Begun {
            self.enter_normal();
        } else {
            // Tell the others, who wait for it, and see whether they are as far.
            self.ping_others(effects);
            self.advance_start(effects);
        }
    }

    pub(super) fn ping_others(&mut self, effects: &mut Effects) {
        for replica in self.others() {
            self.send_ping(replica, effects);
        }
    }

    /// Acts in the durable view from now on.
    pub(super) fn enter_normal(&mut self) {
        let durable = self.superblock.durable_view();
        assert_eq!(durable.view(), durable.log_view());
        self.view = durable.view();
        self.status = ReplicaStatus::Normal;
        self.inherited = self.head.op;
        self.lagging = false; // a primary has nobody to be behind of, and a backup finds out anew
        self.detector.reset(self.now.monotonic_ns);
        self.timers.enter_normal(self.now);
        if !self.is_solo() {
            // The first tick sets it right.
            self.timers
                .suspect
                .set(self.now, crate::constants::HEARTBEAT_NS);
        }
        self.moved = Moved::new(self.now.monotonic_ns, self.commit_min);
        assert!(self.head.op >= self.commit_min);
        let head: Head = self.head;
        assert!(head.op > 0 || head.timestamp_next == 0);
    }
}
