//! Requests on their way: each takes a place in the table of calls, and has a deadline.

use super::batch::{Batch, Name};
use super::connection::Flight;
use super::front::{Call, CallOf, Front};
use crate::client::kv::operation;
use crate::client::{Core, Kind, NotSent};
use crate::state_machine::kv::wire::Operation;

impl Front {
    fn batch(&mut self, writes: bool) -> &mut Batch {
        if writes {
            &mut self.writes
        } else {
            &mut self.reads
        }
    }

    /// Sends the batch of this kind, if there is anything in it.
    pub fn submit(&mut self, writes: bool, core: &mut Core, now: u64) {
        let runs = std::mem::take(&mut self.batch(writes).runs);
        if runs.is_empty() {
            return;
        }
        let kind = if writes { Kind::Write } else { Kind::Read };
        let deadline = self.deadline_of(runs.iter().map(|run| run.name), now);
        self.pace[usize::from(writes)].leaves(runs.len());
        let tag = self.fly(kind, CallOf::Batch { runs, at_ns: now });
        let items = &mut self.batch(writes).items;
        let sent = send(
            core,
            now,
            kind,
            Operation::Batch,
            items.bytes(),
            deadline,
            tag,
        );
        items.clear();
        if let Err(error) = sent {
            self.complete(tag, Err(error.into()), now);
        }
    }

    /// Sends the next request of a command of several steps.
    pub fn ask(&mut self, name: Name, core: &mut Core, now: u64) {
        let mut body = std::mem::take(&mut self.step_body);
        body.clear();
        let Some(connection) = self.find(name) else {
            return;
        };
        let Flight::Steps(steps) = &connection.flight else {
            unreachable!("only called for a command of several steps")
        };
        let (kind, of) = steps.ask(&mut body);
        let deadline = self.deadline_of(std::iter::once(name), now);
        let tag = self.fly(kind, CallOf::Step(name));
        let sent = send(core, now, kind, of, &body, deadline, tag);
        self.step_body = body;
        if let Err(error) = sent {
            self.complete(tag, Err(error.into()), now);
        }
    }

    /// Puts a call into the table. Its place there, by which its end is told.
    fn fly(&mut self, kind: Kind, what: CallOf) -> u64 {
        self.count_flight(kind, true);
        let place = self.calls_free.pop().unwrap_or_else(|| {
            self.calls.push(None);
            self.calls.len() - 1
        });
        self.calls[place] = Some(Call { kind, what });
        place as u64
    }

    pub fn count_flight(&mut self, kind: Kind, begins: bool) {
        let count = match kind {
            Kind::Write => &mut self.writes_in_flight,
            _ => &mut self.reads_in_flight,
        };
        if begins {
            self.shared.statistics.requests += 1;
            *count += 1;
        } else {
            *count -= 1;
        }
    }

    /// Until when a request with commands of these connections may take. That counts from when the cluster last answered
    /// anything, or, if that is later, from when the last of these commands came. So commands that wait for requests
    /// before them may do so while there are answers; without any they do not wait for the patience of each of these.
    fn deadline_of(&mut self, names: impl Iterator<Item = Name>, now: u64) -> u64 {
        let mut from = self.answered_ns;
        for name in names {
            if let Some(connection) = self.find(name) {
                from = from.max(connection.waits_ns).max(connection.heard_ns);
            }
        }
        from.min(now) + self.deadline.as_nanos() as u64
    }
}

/// Hands a request to the cluster's client, unless its deadline is over: then it is not sent, and so surely not executed.
fn send(
    core: &mut Core,
    now: u64,
    kind: Kind,
    of: Operation,
    body: &[u8],
    deadline: u64,
    tag: u64,
) -> Result<(), NotSent> {
    if deadline <= now {
        return Err(NotSent::Deadline);
    }
    core.submit(now, kind, operation(of), body, deadline, tag)
}
