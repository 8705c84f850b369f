//! The question asked of every state: if from now on all replicas are there and talk, does a view begin that serves all that
//! was committed?

use super::{Cluster, REPLICAS, State, VIEWS, Violation, head_of};
use crate::journal::state;
use crate::prepares::{Id, NONE};
use viewstone::rules::Rules;

impl<R: Rules> Cluster<R> {
    /// Lets all writes land, all replicas vote in one new view, its primary begin it, and all repair.
    ///
    /// # Errors
    /// [`Violation::Stuck`], or what goes wrong on the way.
    pub fn converge(&mut self, before: &State) -> Result<(), Violation> {
        let mut state = *before;
        for replica in 0..REPLICAS {
            for slot in 0..crate::journal::SLOTS {
                let writing = state.replicas[replica].journal.slots[slot].writing;
                if writing != NONE {
                    let op = self.prepares.op(writing);
                    let journal = &mut state.replicas[replica].journal;
                    journal.land(&self.bounds, &self.prepares, op);
                }
            }
            state.replicas[replica].journal.flush(u8::MAX);
        }
        let newest = state.replicas.iter().map(|it| it.working.view).max();
        let view = newest.unwrap_or(0) + 1;
        assert!(usize::from(view) < VIEWS);
        state.votes[usize::from(view)] = Default::default();
        for replica in 0..REPLICAS {
            self.leave(&mut state, replica, view)?;
        }
        let votes = state.votes[usize::from(view)];
        let all = (1 << REPLICAS) - 1;
        if let Some(view) = Self::conflict(&votes, all) {
            return Err(Violation::TwoLogs(view));
        }
        let Some((list, commit)) = self.choose(&votes, all) else {
            return Err(Violation::Stuck("all vote, and no log is chosen".into()));
        };
        Self::begin_with(&mut state, view, list, commit)?;
        let head = head_of(list);
        let checkpoint = state.replicas.iter().map(|it| it.working.checkpoint).max();
        let checkpoint = checkpoint.unwrap_or(0);
        for replica in 0..REPLICAS {
            let it = &mut state.replicas[replica];
            if head > it.working.checkpoint + self.bounds.slots {
                it.working.checkpoint = checkpoint;
            }
            if head > it.working.checkpoint + self.bounds.slots {
                return Err(Violation::Stuck("no checkpoint reaches far enough".into()));
            }
            self.install(&mut state, replica, view, list, commit)?;
        }
        self.repair_all(&mut state, usize::from(view), head, checkpoint)
    }

    fn repair_all(
        &mut self,
        state: &mut State,
        view: usize,
        head: u8,
        checkpoint: u8,
    ) -> Result<(), Violation> {
        for replica in 0..REPLICAS {
            for op in state.replicas[replica].working.checkpoint + 1..=head {
                let id = state.logs[view][usize::from(op)];
                let it = &state.replicas[replica];
                if it.journal.state(&self.bounds, op) == state::PRESENT {
                    continue;
                }
                // What is below somebody's checkpoint comes with the checkpoint.
                if !self.is_held(state, id) && op > checkpoint {
                    return Err(Violation::Stuck(format!("nobody has op {op}")));
                }
                let checkpoint = it.working.checkpoint;
                let journal = &mut state.replicas[replica].journal;
                if journal.can_append(&self.bounds, checkpoint, op) {
                    journal.append::<R::Journal>(&self.bounds, &self.prepares, id);
                    journal.land(&self.bounds, &self.prepares, op);
                    journal.flush(u8::MAX);
                }
                self.acknowledge(state, replica)?;
            }
        }
        if Self::committed_by(state, view) == head {
            Ok(())
        } else {
            Err(Violation::Stuck("not all of the log commits".into()))
        }
    }

    /// Whether some replica can supply a prepare.
    fn is_held(&self, state: &State, id: Id) -> bool {
        let op = self.prepares.op(id);
        state.replicas.iter().any(|it| {
            let slot = it.journal.slot(&self.bounds, op);
            slot.op == op && slot.named == id && slot.state == state::PRESENT
        })
    }
}
