//! The steps.

use super::{Action, Cluster, Log, OPS, REPLICAS, State, VIEWS, Violation, head_of, low_of};
use crate::journal::{SLOTS, state};
use crate::prepares::{GARBAGE, Made, NONE};
use viewstone::rules::Rules;

type Step = Result<(), Violation>;

impl<R: Rules> Cluster<R> {
    /// All that may happen next.
    pub fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.clear();
        for replica in 0..REPLICAS {
            let it = &state.replicas[replica];
            if it.is_normal() && it.hasty == 0 {
                self.actions_in_view(state, replica, actions);
            } else if !it.is_normal() {
                self.actions_between_views(state, replica, actions);
            }
            if it.hasty == 0 {
                self.actions_of_journal(state, replica, actions);
            }
            let there = state
                .replicas
                .iter()
                .map(|it| it.working.view)
                .max()
                .unwrap_or(0);
            for view in it.working.view + 1..=self.bounds.views {
                // To the next, or to one that somebody is in.
                if view > it.working.view + 1 && view > there {
                    break;
                }
                actions.push(Action::Leave(replica, view, it.commit));
                let commit = Self::committed_by(state, it.working.view.into());
                if it.is_normal() && commit > it.commit {
                    actions.push(Action::Leave(replica, view, commit));
                }
            }
            self.installs(state, replica, actions);
            if it.durable != it.working && R::VOTE_IS_FIXED {
                actions.push(Action::Save(replica));
            }
            if state.restarts > 0 {
                self.restarts(state, replica, actions);
            }
        }
    }

    /// How a write goes.
    fn paces(&self) -> impl Iterator<Item = bool> + use<R> {
        [false, true]
            .into_iter()
            .take(1 + usize::from(self.bounds.slow_writes))
    }

    fn actions_in_view(&self, state: &State, replica: usize, actions: &mut Vec<Action>) {
        let it = &state.replicas[replica];
        let view = it.working.view;
        let log = &state.logs[usize::from(view)];
        let commit = Self::committed_by(state, view.into()).max(it.commit);
        let next = it.head + 1;
        let free = it
            .journal
            .can_append(&self.bounds, it.working.checkpoint, next);
        if Self::primary(view) == replica {
            let inherited = commit >= state.begun[usize::from(view)];
            // What the last view prepares no later one could forget.
            let last = view == self.bounds.views && view > 0;
            let room = next <= commit + self.bounds.pipeline && next <= self.bounds.ops && !last;
            if free && room && inherited {
                actions.extend(self.paces().map(|slow| Action::Prepare(replica, slow)));
            }
        } else if free && usize::from(next) <= OPS && log[usize::from(next)] != NONE {
            actions.extend(self.paces().map(|slow| Action::Append(replica, slow)));
        }
        for op in it.working.checkpoint + 1..=it.head {
            let missing = it.journal.state(&self.bounds, op) != state::PRESENT;
            if missing
                && it
                    .journal
                    .can_append(&self.bounds, it.working.checkpoint, op)
            {
                actions.extend(self.paces().map(|slow| Action::Fetch(replica, op, slow)));
            }
        }
        // There is a checkpoint only when the ring is full.
        let checkpoint = it.working.checkpoint + 1;
        let full = next > it.working.checkpoint + self.bounds.slots && next <= self.bounds.ops;
        if full && checkpoint <= commit.min(it.head) {
            let held = it.journal.is_durable(&self.bounds, checkpoint);
            let id = it.journal.slot(&self.bounds, checkpoint).named;
            if held && id == log[usize::from(checkpoint)] {
                actions.push(Action::Checkpoint(replica, checkpoint));
            }
        }
    }

    fn actions_between_views(&self, state: &State, replica: usize, actions: &mut Vec<Action>) {
        let it = &state.replicas[replica];
        let view = usize::from(it.working.view);
        if it.working.log_view == it.working.view {
            return; // it asks for its view's log
        }
        if state.votes[view][replica] != self.vote_of(state, replica) {
            actions.push(Action::VoteAgain(replica));
        }
        if Self::primary(it.working.view) == replica && state.votes[view][replica].here == 1 {
            for voters in 1..1 << REPLICAS {
                let all_here = (0..REPLICAS)
                    .all(|voter| voters >> voter & 1 == 0 || state.votes[view][voter].here == 1);
                if all_here && voters >> replica & 1 == 1 {
                    actions.push(Action::Begin(replica, voters));
                }
            }
        }
    }

    fn actions_of_journal(&self, state: &State, replica: usize, actions: &mut Vec<Action>) {
        let it = &state.replicas[replica];
        for slot in &it.journal.slots {
            if slot.writing != NONE {
                actions.push(Action::Land(replica, self.prepares.op(slot.writing)));
            }
        }
        let awaits = |op| it.journal.awaits_header(&self.bounds, op);
        if (it.working.checkpoint + 1..=it.head).any(awaits) {
            actions.push(Action::Flush(replica));
        }
    }

    fn installs(&self, state: &State, replica: usize, actions: &mut Vec<Action>) {
        let it = &state.replicas[replica];
        for view in it.working.view..=self.bounds.views {
            let index = usize::from(view);
            let primary = Self::primary(view);
            if state.logs[index][0] == NONE || primary == replica && it.working.log_view >= view {
                continue;
            }
            let primary_acts = state.replicas[primary].is_normal_in(view);
            let fresh = it.working.log_view < view || !R::HEAD_NEVER_FALLS_IN_VIEW;
            if fresh && primary != replica {
                actions.push(Action::Install(replica, view, false));
                if head_of(state.logs[index]) > state.begun[index] {
                    actions.push(Action::Install(replica, view, true));
                }
            } else if it.asking == 1 && it.working.view == view {
                // An answer to its own question, or a log that reaches as far as anything it may have acknowledged.
                if primary_acts {
                    actions.push(Action::Install(replica, view, true));
                }
                if state.begun[index] >= it.uncertain {
                    actions.push(Action::Install(replica, view, false));
                }
            }
        }
    }

    fn restarts(&self, state: &State, replica: usize, actions: &mut Vec<Action>) {
        let it = &state.replicas[replica];
        let was_primary = it.durable.view == it.durable.log_view
            && Self::primary(it.durable.view) == replica
            && R::RESTARTED_PRIMARY_LEAVES_VIEW;
        if was_primary && it.durable.view == self.bounds.views {
            return; // its next view is out of bounds
        }
        let writing = (0..SLOTS).fold(0, |set, slot| {
            set | u8::from(it.journal.slots[slot].writing != NONE) << slot
        });
        let lagging = (0..SLOTS).fold(0, |set, slot| {
            let slot_at = &it.journal.slots[slot];
            set | u8::from(slot_at.image != slot_at.header) << slot
        });
        let subsets = |set: u8| (0..1 << SLOTS).filter(move |subset: &u8| subset & !set == 0);
        for landed in subsets(writing) {
            for flushed in subsets(lagging) {
                let restart = |decay| Action::Restart(replica, landed, flushed, decay);
                actions.push(restart(None));
                let slots = if state.decays > 0 {
                    self.bounds.slots
                } else {
                    0
                };
                for slot in 0..slots {
                    actions.extend((1..=3).map(|which| restart(Some((slot, which)))));
                }
            }
        }
    }

    /// Takes a step. None: it changes nothing.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn step(&mut self, before: &State, action: Action) -> Result<Option<State>, Violation> {
        let mut state = *before;
        match action {
            Action::Prepare(replica, slow) => self.prepare(&mut state, replica, slow)?,
            Action::Append(replica, slow) => self.append(&mut state, replica, slow)?,
            Action::Fetch(replica, op, slow) => {
                let view = usize::from(state.replicas[replica].working.view);
                let id = state.logs[view][usize::from(op)];
                self.write(&mut state, replica, id, slow)?;
            }
            Action::Land(replica, op) => {
                let journal = &mut state.replicas[replica].journal;
                journal.land(&self.bounds, &self.prepares, op);
                self.acknowledge(&mut state, replica)?;
            }
            Action::Flush(replica) => {
                state.replicas[replica].journal.flush_awaited();
                self.acknowledge(&mut state, replica)?;
            }
            Action::Checkpoint(replica, op) => Self::checkpoint(&mut state, replica, op),
            Action::Leave(replica, view, commit) => {
                let it = &mut state.replicas[replica];
                it.commit = it.commit.max(commit);
                self.leave(&mut state, replica, view)?;
            }
            Action::VoteAgain(replica) => self.send_vote(&mut state, replica)?,
            Action::Begin(replica, voters) => {
                if !self.begin(&mut state, replica, voters)? {
                    return Ok(None);
                }
            }
            Action::Install(replica, view, now) => {
                if !self.install_from(&mut state, replica, view, now)? {
                    return Ok(None);
                }
            }
            Action::Save(replica) => {
                let it = &mut state.replicas[replica];
                it.durable = it.working;
            }
            Action::Restart(replica, landed, flushed, decay) => {
                state.restarts -= 1;
                self.restart(&mut state, replica, (landed, flushed), decay)?;
            }
        }
        Self::normalize(&mut state);
        self.check(&state);
        // A restart that changes nothing is not worth one.
        let spent = before.restarts - state.restarts;
        let restored = State {
            restarts: state.restarts + spent,
            ..state
        };
        Ok((restored != *before).then_some(state))
    }

    /// The superblock's new content is durable before anything is said that depends on it, unless a rule is broken.
    fn save(state: &mut State, replica: usize, awaited: bool) {
        if awaited {
            let it = &mut state.replicas[replica];
            it.durable = it.working;
        }
    }

    fn write(&mut self, state: &mut State, replica: usize, id: u8, slow: bool) -> Step {
        let it = &mut state.replicas[replica];
        it.journal
            .append::<R::Journal>(&self.bounds, &self.prepares, id);
        if slow {
            it.hasty = 1;
            return Ok(());
        }
        it.journal
            .land(&self.bounds, &self.prepares, self.prepares.op(id));
        self.acknowledge(state, replica)
    }

    fn prepare(&mut self, state: &mut State, replica: usize, slow: bool) -> Step {
        let it = &state.replicas[replica];
        let view = it.working.view;
        let op = it.head + 1;
        let log = state.logs[usize::from(view)];
        let parent = self.known_header(state, it, it.head);
        let mut made = Made {
            op,
            view,
            parent: parent.expect("the head's header is always known"),
            // As little as it must know; more would only help.
            commit: op.saturating_sub(self.bounds.pipeline),
            again: 0,
        };
        let before = log[usize::from(op)];
        if before != NONE {
            // It has forgotten that it did.
            made.again = 1 + self.prepares.made(before).again;
        }
        if made.again > 2 {
            return Ok(());
        }
        let id = self.prepares.make(made);
        if before != NONE {
            return Err(Violation::TwoLogs(view));
        }
        state.logs[usize::from(view)][usize::from(op)] = id;
        let needed = made.commit.max(state.begun[usize::from(view)]);
        let it = &mut state.replicas[replica];
        it.head = op;
        it.commit = it.commit.max(needed);
        self.write(state, replica, id, slow)
    }

    fn append(&mut self, state: &mut State, replica: usize, slow: bool) -> Step {
        let it = &mut state.replicas[replica];
        let op = it.head + 1;
        let id = state.logs[usize::from(it.working.view)][usize::from(op)];
        it.head = op;
        self.write(state, replica, id, slow)
    }

    fn checkpoint(state: &mut State, replica: usize, op: u8) {
        let it = &mut state.replicas[replica];
        it.working.checkpoint = op;
        it.commit = it.commit.max(op);
        it.working.commit = it.working.commit.max(it.commit.min(it.head));
        // Once it is durable, by itself, it carries whatever else there is.
        it.durable = it.working;
    }

    /// Leaves the view, and votes in another.
    pub(super) fn leave(&self, state: &mut State, replica: usize, view: u8) -> Step {
        let acted = {
            let it = &state.replicas[replica];
            it.working.log_view == it.working.view
        };
        if acted {
            if !R::KEEP_SUFFIX_IN_NEWER_VIEW {
                self.cut_to_commit(state, replica);
            }
            let list = self.collect(state, &state.replicas[replica]);
            state.replicas[replica].working.list = list;
        }
        let it = &mut state.replicas[replica];
        it.working.view = view;
        (it.asking, it.hasty) = (0, 0);
        it.working.commit = it.working.commit.max(it.commit.min(it.head));
        let list = it.durable.list;
        Self::save(state, replica, R::VOTE_AWAITS_DURABLE_VIEW);
        if !R::VOTE_IS_FIXED {
            // The vote is made from memory, and what it said is not on the disk.
            state.replicas[replica].durable.list = list;
        }
        self.send_vote(state, replica)
    }

    fn cut_to_commit(&self, state: &mut State, replica: usize) {
        let it = &state.replicas[replica];
        let op = it.commit.min(it.head).max(it.working.checkpoint);
        if self.known_header(state, it, op).is_some() {
            let op_max = self.window_max(it);
            let it = &mut state.replicas[replica];
            it.head = op;
            it.journal.cut(&self.bounds, op, op_max);
        }
    }

    /// As the candidate: begins the view, if these votes decide.
    fn begin(&mut self, state: &mut State, replica: usize, voters: u8) -> Result<bool, Violation> {
        let view = state.replicas[replica].working.view;
        let votes = state.votes[usize::from(view)];
        if let Some(view) = Self::conflict(&votes, voters) {
            return Err(Violation::TwoLogs(view));
        }
        let Some((list, commit)) = self.choose(&votes, voters) else {
            return Ok(false);
        };
        let it = &state.replicas[replica];
        let head = head_of(list);
        if head > it.working.checkpoint + self.bounds.slots || head < it.working.checkpoint {
            return Ok(false); // it cannot lead
        }
        Self::begin_with(state, view, list, commit)?;
        self.install(state, replica, view, list, commit)?;
        Ok(true)
    }

    /// A view's log is chosen: everything that was committed is in it.
    pub(super) fn begin_with(state: &mut State, view: u8, list: Log, commit: u8) -> Step {
        let (low, head) = (low_of(list), head_of(list));
        let committed = head_of(state.committed);
        let known = low.max(1) - 1;
        if known > committed || commit > committed {
            return Err(Violation::NotCommitted(view));
        }
        let mut log = list;
        log[..usize::from(low)].copy_from_slice(&state.committed[..usize::from(low)]);
        for op in 0..=committed {
            let (op_index, before) = (usize::from(op), state.committed_in[usize::from(op)] < view);
            if before && log[op_index] != state.committed[op_index] {
                return Err(Violation::Forgotten { view, op });
            }
        }
        let index = usize::from(view);
        if state.logs[index][0] != NONE {
            return Err(Violation::TwoLogs(view));
        }
        state.logs[index] = log;
        state.begun[index] = head;
        Ok(())
    }

    fn install_from(
        &mut self,
        state: &mut State,
        replica: usize,
        view: u8,
        now: bool,
    ) -> Result<bool, Violation> {
        let index = usize::from(view);
        let head = if now {
            head_of(state.logs[index])
        } else {
            state.begun[index]
        };
        let mut list = Log::default();
        let low = head.saturating_sub(self.bounds.pipeline);
        for op in low..=head {
            list[usize::from(op)] = state.logs[index][usize::from(op)];
        }
        let it = &state.replicas[replica];
        if head < it.commit.min(it.head) && R::HEAD_NEVER_FALLS_IN_VIEW {
            return Ok(false);
        }
        if head > it.working.checkpoint + self.bounds.slots {
            let needed = head - self.bounds.slots;
            let source = state.replicas.iter().map(|it| it.durable.checkpoint).max();
            let Some(checkpoint) = source.filter(|&op| op >= needed) else {
                return Ok(false);
            };
            state.replicas[replica].working.checkpoint = checkpoint;
        }
        self.install(state, replica, view, list, low)?;
        Ok(true)
    }

    /// Makes the log of a view durable, and acts on it.
    pub(super) fn install(
        &self,
        state: &mut State,
        replica: usize,
        view: u8,
        list: Log,
        commit: u8,
    ) -> Step {
        let committed = state.committed;
        let op_max = self.window_max(&state.replicas[replica]);
        let it = &mut state.replicas[replica];
        it.working.view = view;
        it.working.log_view = view;
        it.working.list = list;
        it.working.commit = it.working.commit.max(commit);
        (it.asking, it.hasty) = (0, 0);
        it.uncertain = 0;
        it.head = head_of(list);
        it.commit = it.commit.max(it.working.commit);
        it.journal.cut(&self.bounds, it.head, op_max);
        let low = low_of(list);
        for op in it.working.checkpoint + 1..=it.head {
            // Below the list the chain leads to what was committed.
            let index = usize::from(op);
            let id = if op < low {
                committed[index]
            } else {
                list[index]
            };
            it.journal.set_header(&self.bounds, &self.prepares, id);
        }
        Self::save(state, replica, R::LOG_AWAITS_DURABLE_LOG_VIEW);
        self.acknowledge(state, replica)
    }

    fn restart(
        &mut self,
        state: &mut State,
        replica: usize,
        (landed, flushed): (u8, u8),
        decay: Option<(u8, u8)>,
    ) -> Step {
        let it = &mut state.replicas[replica];
        it.journal.flush(flushed);
        for (index, slot) in it.journal.slots.iter_mut().enumerate() {
            if slot.writing != NONE && landed >> index & 1 == 1 {
                slot.prepare = slot.writing;
            }
        }
        if let Some((slot, which)) = decay {
            state.decays -= 1;
            let slot = &mut it.journal.slots[usize::from(slot)];
            if which & 1 != 0 {
                slot.prepare = GARBAGE;
            }
            if which & 2 != 0 {
                slot.header = GARBAGE;
            }
        }
        let disk = Self::disk_of(state, &state.replicas[replica]);
        let opened = self.recovery.open(&self.bounds, &self.prepares, &disk);
        let opened = opened.map_err(|refusal| Violation::Refused(refusal.to_string()))?;
        let it = &mut state.replicas[replica];
        it.working = it.durable;
        it.journal = opened.journal;
        it.head = opened.head;
        it.uncertain = if opened.certain { 0 } else { opened.op_max };
        it.commit = it.working.commit.max(it.working.checkpoint);
        let was_normal = it.working.view == it.working.log_view;
        let primary = Self::primary(it.working.view) == replica;
        let certain = opened.certain || !R::UNCERTAIN_HEAD_AWAITS_START_VIEW;
        it.hasty = 0;
        it.asking = u8::from(was_normal && !certain);
        let head = self.known_header(state, &state.replicas[replica], opened.head);
        let known = head.map_or(0, |id| self.prepares.made(id).commit);
        let it = &mut state.replicas[replica];
        it.commit = it.commit.max(known);
        if was_normal && primary && R::RESTARTED_PRIMARY_LEAVES_VIEW {
            let view = it.working.view + 1;
            self.leave(state, replica, view)
        } else if was_normal {
            self.acknowledge(state, replica)
        } else {
            self.send_vote(state, replica)
        }
    }
}

const _: () = assert!(VIEWS > 2 && REPLICAS == 3);
