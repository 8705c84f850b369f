//! From answers to replies.

use super::batch::{Name, Run};
use super::connection::{Flight, Room, What};
use super::front::{CallOf, Front, SHORT_SIZE_MAX};
use crate::client::{CallError, Definite, Kind, ReplyRef};
use crate::resp::command::Failure;
use crate::resp::finish::{Surroundings, Trouble};
use crate::resp::shared::Shared;
use crate::resp::steps::Step;
use crate::state_machine::kv::wire::{BatchReply, Results};

const UNKNOWN: Failure = Failure::new(
    "UNKNOWN the cluster has not answered in time: the command may have been executed, once, or may still be",
);
const NOT_SENT: Failure =
    Failure::new("CLUSTERDOWN the cluster has not taken the command in time; it was not executed");
const NO_ANSWER: Failure =
    Failure::new("CLUSTERDOWN the cluster has not answered in time; nothing was changed");
const OUT_OF_SPACE: Failure =
    Failure::new("OOM command not allowed when used memory > 'maxmemory'.");
const OUT_OF_MEMORY: Failure =
    Failure::new("ERR the gateway has no memory for the reply now; nothing was changed");
const MALFORMED: Failure = Failure::new(
    "ERR the cluster's answer is not understood: is it of the same release? The command was executed",
);

/// What a connection is told of a call that ended without an answer.
fn failure(error: &CallError) -> Failure {
    match error {
        CallError::Indeterminate(_) => UNKNOWN,
        CallError::NotSent(_) => NOT_SENT,
        CallError::Definite(Definite::NoAnswer) => NO_ANSWER,
        CallError::Definite(Definite::OutOfSpace) => OUT_OF_SPACE,
        CallError::Definite(error) => Failure::quoting(format!("ERR {error}").into_bytes()),
    }
}

impl Front {
    /// A request has ended.
    pub fn complete(&mut self, tag: u64, result: Result<ReplyRef<'_>, CallError>, now: u64) {
        let tag = tag as usize;
        let call = self.calls[tag].take().expect("a call ends once");
        self.calls_free.push(tag);
        self.count_flight(call.kind, false);
        match &result {
            Err(CallError::Indeterminate(_)) => self.shared.statistics.unknown += 1,
            Err(CallError::NotSent(_) | CallError::Definite(Definite::NoAnswer)) => {}
            Ok(_) | Err(CallError::Definite(_)) => self.answered_ns = now,
        }
        match call.what {
            CallOf::Step(name) => self.complete_step(name, result),
            CallOf::Batch { runs, at_ns } => {
                let writes = call.kind == Kind::Write;
                self.pace[usize::from(writes)].returns(runs.len(), now.saturating_sub(at_ns));
                match result {
                    Ok(reply) => self.complete_batch(&runs, call.kind, &reply),
                    Err(error) => self.fail_batch(&runs, &error),
                }
            }
        }
        // A place is free: those that wait for one are first.
        for name in std::mem::take(&mut self.blocked).into_iter().rev() {
            self.ready.push_front(name);
        }
    }

    fn complete_batch(&mut self, runs: &[Run], kind: Kind, reply: &ReplyRef<'_>) {
        let expected: usize = runs.iter().map(|run| run.items).sum();
        let decoded = BatchReply::decode(reply.body).filter(|found| found.len() == expected);
        let Some(decoded) = decoded else {
            for run in runs {
                self.fail_run(run.name, &MALFORMED);
            }
            return;
        };
        if kind == Kind::Read {
            self.sizes.observe(expected, reply.body.len());
        }
        let mut results = decoded.results();
        for run in runs {
            let left = results.len();
            self.complete_run(*run, runs.len() == 1, reply.timestamp, &mut results);
            // What the run did not take: its connection is gone, or begins anew.
            while left - results.len() < run.items && results.next().is_some() {}
        }
    }

    fn complete_run(&mut self, run: Run, alone: bool, timestamp: u64, results: &mut Results<'_>) {
        let wall = Shared::now().as_millis() as u64;
        let Some(connection) = self.find(run.name) else {
            return;
        };
        let commands = std::mem::take(&mut connection.run);
        let alone = alone && commands.len() == 1;
        connection.flight = Flight::None;
        let mut trouble = None;
        for pending in commands {
            let (finish, _) = match pending.what {
                What::Reply(reply) => {
                    connection.out.extend_from_slice(&reply);
                    continue;
                }
                What::Items(finish, count) => (finish, count),
            };
            let before = connection.out.len();
            let protocol = connection.caller.protocol;
            let mut around = Surroundings {
                caller: &mut connection.caller,
                // A read sees the time of the last commit, which on an idle cluster stands still.
                now_ms: (timestamp / 1_000_000).max(wall),
                in_transaction: false,
            };
            let mut replies = crate::resp::reply::Replies::new(&mut connection.out, protocol);
            match finish.write(results, &mut around, &mut replies) {
                Ok(()) => {}
                Err(Trouble::Malformed) => {
                    finish.fail(&mut connection.caller);
                    connection.out.truncate(before);
                    MALFORMED.write(&mut connection.replies());
                }
                Err(Trouble::TooLarge(size)) => {
                    // Nothing of it was done: it is gathered again, otherwise, and all behind it.
                    connection.out.truncate(before);
                    connection.rewind(pending.from);
                    connection.room = if alone { Room::Steps } else { Room::Own };
                    trouble = Some(size);
                    break;
                }
            }
        }
        if let Some(size) = trouble {
            self.sizes.observe_large(size);
        }
        self.make_ready(run.name);
        self.activate(run.name);
    }

    fn fail_batch(&mut self, runs: &[Run], error: &CallError) {
        let refused = matches!(
            error,
            CallError::Definite(Definite::Invalid | Definite::TooLarge { .. })
        );
        let mut commands = 0;
        for run in runs {
            commands += self.find(run.name).map_or(0, |found| found.run.len());
        }
        if refused && commands > 1 {
            // Together they were too much, and nothing was executed: again, fewer at a time.
            self.sizes.shrink();
            for run in runs {
                self.begin_anew(run.name);
            }
            return;
        }
        let failure = failure(error);
        for run in runs {
            self.fail_run(run.name, &failure);
        }
    }

    fn begin_anew(&mut self, name: Name) {
        if let Some(connection) = self.find(name) {
            let from = connection.run.first().map(|pending| pending.from);
            connection.run.clear();
            connection.flight = Flight::None;
            if let Some(from) = from {
                connection.rewind(from);
            }
            self.make_ready(name);
            self.activate(name);
        }
    }

    /// All commands of a run end with this error.
    fn fail_run(&mut self, name: Name, failure: &Failure) {
        let Some(connection) = self.find(name) else {
            return;
        };
        connection.flight = Flight::None;
        for pending in std::mem::take(&mut connection.run) {
            match pending.what {
                What::Reply(reply) => connection.out.extend_from_slice(&reply),
                What::Items(finish, _) => {
                    finish.fail(&mut connection.caller);
                    failure.write(&mut connection.replies());
                }
            }
        }
        self.make_ready_unanswered(name);
        self.activate(name);
    }

    fn complete_step(&mut self, name: Name, result: Result<ReplyRef<'_>, CallError>) {
        let short = self.is_short();
        let slot = self.slots.get_mut(name.index as usize);
        let connection = slot.and_then(Option::as_deref_mut);
        let Some(connection) = connection.filter(|found| found.name == name) else {
            return;
        };
        let Flight::Steps(mut steps) = std::mem::take(&mut connection.flight) else {
            unreachable!("it waited for a step")
        };
        let step = match &result {
            Ok(reply) => {
                let protocol = connection.caller.protocol;
                let mut replies = crate::resp::reply::Replies::new(&mut connection.out, protocol);
                let caller = &mut connection.caller;
                steps.answer(reply, caller, &mut self.shared, &mut replies)
            }
            Err(error) => {
                failure(error).write(&mut connection.replies());
                Step::Done
            }
        };
        match step {
            Step::Ask if short && steps.memory() > SHORT_SIZE_MAX => {
                OUT_OF_MEMORY.write(&mut connection.replies());
            }
            Step::Ask => {
                connection.flight = Flight::Steps(steps);
                self.steps_ready.push(name);
            }
            Step::Malformed => MALFORMED.write(&mut connection.replies()),
            Step::Done => {}
        }
        self.count_memory(name);
        if result.is_ok() {
            self.make_ready(name);
        } else {
            self.make_ready_unanswered(name);
        }
        self.activate(name);
    }
}
