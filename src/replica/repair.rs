//! Repair of what is missing at and below the head: first the headers, down the hash chain from the head, then the prepares,
//! from whoever has them.
//!
//! Invariants:
//! * **Repair never moves the head**, and never changes what the log is: a header is believed because the one above it names
//!   it as its parent, a prepare because its identity is a believed header's.
//! * Nothing is executed before the chain reaches from the head down to what was executed last.
//! * Asking has a budget: so many prepares in a repair interval, so that repair never starves normal operation.

use super::nowhere::Searches;
use super::{Effects, Replica};
use crate::constants::{REPAIR_NS, REPAIR_PREPARES_MAX};
use crate::machines::Machines;
use crate::rules::Rules;
use rand_xoshiro::rand_core::Rng;
use storage::buffer::SharedMessage;
use storage::header::{Prepare, ReplicaStatus, RequestHeaders, RequestPrepare};

/// How far down from the head the log is known, and what has been asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repair {
    /// The headers of this op and all above it are known, and chained.
    chain_low: u64,
    /// Identity of the op below it.
    chain_wanted: u128,
    /// It has become known further down since acknowledgements were last looked at.
    lowered: bool,
    /// More may be acknowledged than one step sends.
    more: bool,
    /// Nothing is asked for again before this time.
    asked_until_ns: u64,
    /// Nor are headers before this one.
    chain_asked_until_ns: u64,
    /// Prepares up to this op have been asked for in this interval.
    asked_op: u64,
    /// Asked for in this interval, and not come yet.
    in_flight: usize,
    /// The journal was found whole, and is not looked through again before this time: that takes as long as there are
    /// ops above the checkpoint, which is too long for every turn.
    whole_until_ns: u64,
    /// The lowest op that is missing, when the journal was last looked through.
    pub(super) lowest_missing: Option<u64>,
}

impl Repair {
    /// The rest is acknowledged in the next turn.
    pub(super) fn acknowledge_more(&mut self) {
        self.more = true;
    }

    /// Whether there is such a rest.
    pub(super) fn has_more_to_acknowledge(&self) -> bool {
        self.more
    }
}

/// Whom to ask for what is missing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asking {
    /// Things asked for, to take turns.
    asks: u64,
    /// Something asked for has not come.
    pub(super) unanswered: bool,
    /// Who has answered that something is not there.
    pub(super) searches: Searches,
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// The head is another, or the checkpoint: walks the chain anew.
    pub(super) fn rebuild_chain(&mut self) {
        let Some(head) = self.known_header(self.head.op) else {
            unreachable!("the head's header is always known");
        };
        assert!(
            head.op != self.commit_min || self.head.checksum == self.commit_checksum,
            "the log of view {} has another op {} than was executed",
            self.log_view,
            head.op
        );
        assert_eq!(head.frame.checksum, self.head.checksum);
        self.repair = Repair {
            chain_low: head.op,
            chain_wanted: head.parent,
            ..Repair::default()
        };
        self.lower_chain();
    }

    /// Goes down as far as the journal's headers follow each other.
    fn lower_chain(&mut self) {
        while self.repair.chain_low > self.checkpoint_op + 1 {
            let op = self.repair.chain_low - 1;
            self.check_executed(op);
            let known = self.journal.header(op);
            let Some(header) =
                known.filter(|header| header.frame.checksum == self.repair.chain_wanted)
            else {
                return;
            };
            self.repair.chain_wanted = header.parent;
            self.repair.chain_low = op;
            self.repair.lowered = true;
        }
        self.check_executed(self.repair.chain_low - u64::from(self.repair.chain_low > 0));
    }

    /// What was executed is in the log: two histories would have met here.
    fn check_executed(&self, op: u64) {
        if op == self.commit_min && op < self.repair.chain_low {
            assert_eq!(
                self.repair.chain_wanted, self.commit_checksum,
                "the log of view {} has another op {op} than was executed",
                self.log_view
            );
        }
    }

    /// Whether the log is known from the head down to what is to be executed next.
    pub(super) fn is_chained(&self) -> bool {
        self.repair.chain_low <= self.commit_min + 1 || !R::CHECK_PARENT
    }

    /// Where the chain has a gap above what was executed: the op whose header is not known, and its identity.
    pub(super) fn gap_in_chain(&self) -> Option<(u64, u128)> {
        if self.is_chained() {
            return None;
        }
        Some((self.repair.chain_low - 1, self.repair.chain_wanted))
    }

    /// Whether an op may be acknowledged as far as the log below it goes: recovery concludes from an acknowledgement that
    /// the log's prepares so far before it were durable, and that can be said only of a log that is known down to there.
    pub(super) fn is_chained_for_ack(&self, op: u64) -> bool {
        let reach = 2 * storage::recovery::lag_max(self.layout.geometry.pipeline_max);
        self.repair.chain_low <= op.saturating_sub(reach).max(self.checkpoint_op + 1)
    }

    /// The chain has become known further down: what waited for it may be acknowledged.
    pub(super) fn acknowledge_chained(&mut self, effects: &mut Effects) {
        let lowered = std::mem::take(&mut self.repair.lowered);
        let more = std::mem::take(&mut self.repair.more);
        if (lowered || more) && self.withheld.is_some() {
            self.acknowledge_withheld(effects);
        }
    }

    /// Asks for what is missing, if something is.
    pub(super) fn repair(&mut self, effects: &mut Effects) {
        if self.status != ReplicaStatus::Normal || self.is_solo() {
            return;
        }
        let now_ns = self.now.monotonic_ns;
        if now_ns >= self.repair.asked_until_ns {
            self.asking.unanswered |= self.repair.in_flight > 0;
            self.repair.asked_op = 0; // what was asked for and did not come is lost
            self.repair.in_flight = 0;
        }
        if now_ns < self.repair.whole_until_ns {
            return;
        }
        if self.repair.chain_low > self.checkpoint_op + 1
            && now_ns >= self.repair.chain_asked_until_ns
        {
            self.ask_for_chain(effects);
        }
        if self.repair.in_flight < REPAIR_PREPARES_MAX / 2 && now_ns >= self.repair.whole_until_ns {
            self.ask_for_missing(effects);
        }
    }

    fn repair_asked(&mut self) {
        self.repair.asked_until_ns = self.now.monotonic_ns + REPAIR_NS;
        self.timers.repair.set(self.now, REPAIR_NS);
    }

    /// Asks for headers below the known part of the chain.
    fn ask_for_chain(&mut self, effects: &mut Effects) {
        let op_max = self.repair.chain_low - 1;
        let mut ask: RequestHeaders = self.header();
        ask.op_max = op_max;
        ask.op_min = (op_max + 1)
            .saturating_sub(self.headers_max() as u64)
            .max(self.checkpoint_op + 1);
        let peer = self.someone_to_ask();
        self.send_header(super::Peer::Replica(peer), &ask, effects);
        self.repair.chain_asked_until_ns = self.now.monotonic_ns + REPAIR_NS;
        self.timers.repair.set(self.now, REPAIR_NS);
        // The one below may be had whole.
        let (op, checksum) = (op_max, self.repair.chain_wanted);
        self.ask_for_prepare(op, checksum, effects);
        self.repair.in_flight += 1;
    }

    /// Asks for prepares whose identity is known.
    fn ask_for_missing(&mut self, effects: &mut Effects) {
        let lowest = self.repair.chain_low.max(self.checkpoint_op + 1);
        let from = lowest.max(self.repair.asked_op + 1);
        let mut wanted = [(0, 0); REPAIR_PREPARES_MAX];
        let mut count = 0;
        let room = REPAIR_PREPARES_MAX - self.repair.in_flight;
        for missing in self.journal.missing(from..=self.head.op) {
            if count == room {
                break;
            }
            if let Some(checksum) = missing.wanted {
                wanted[count] = (missing.op, checksum);
                count += 1;
            }
        }
        if self.repair.asked_op == 0 {
            self.repair.lowest_missing = (count > 0).then_some(wanted[0].0);
            if count == 0 && self.repair.chain_low <= self.checkpoint_op + 1 {
                self.repair.whole_until_ns = self.now.monotonic_ns + REPAIR_NS;
                return;
            }
        }
        for &(op, checksum) in &wanted[..count] {
            self.ask_for_prepare(op, checksum, effects);
            self.repair.asked_op = op;
            self.repair.in_flight += 1;
        }
        if count > 0 {
            self.repair_asked();
        }
    }

    /// Asks somebody for a prepare: what one does not answer, another may.
    pub(super) fn ask_for_prepare(&mut self, op: u64, checksum: u128, effects: &mut Effects) {
        let mut ask: RequestPrepare = self.header();
        (ask.op, ask.prepare) = (op, checksum);
        let peer = self.someone_to_ask();
        self.send_header(super::Peer::Replica(peer), &ask, effects);
        self.metrics.prepares_requested += 1;
    }

    /// Another replica: the primary while it answers, for it has all that is in its ring; otherwise by turns with the others.
    pub(super) fn someone_to_ask(&mut self) -> u8 {
        self.asking.asks = self.asking.asks.wrapping_add(1);
        let primary = self.primary();
        // A lost replica does not know the view: the primary of its own may be gone for long.
        let by_turns = self.status == ReplicaStatus::Lost
            || self.asking.unanswered && !self.asking.asks.is_multiple_of(2);
        if primary != self.options.replica && !by_turns {
            return primary;
        }
        let count = u64::from(self.options.replica_count);
        let step = 1 + self.prng.next_u64() % (count - 1);
        ((u64::from(self.options.replica) + step) % count) as u8
    }

    /// A header at or below the head, from anybody: believed if the chain names it.
    pub(super) fn take_header(&mut self, header: &Prepare) {
        let wanted = header.op + 1 == self.repair.chain_low
            && header.frame.checksum == self.repair.chain_wanted
            && header.op > self.checkpoint_op;
        if wanted {
            self.journal.set_header(header);
            self.lower_chain();
            self.repair.whole_until_ns = 0;
        }
    }

    /// Headers from anybody, highest op first. If they were of use, the next are asked for at once.
    pub(super) fn take_headers<'a>(&mut self, headers: impl Iterator<Item = &'a Prepare>) {
        let before = self.repair.chain_low;
        for header in headers {
            self.take_header(header);
        }
        if self.repair.chain_low < before {
            self.repair.chain_asked_until_ns = 0;
        }
    }

    /// Whether a prepare at or below the head is one that the journal lacks.
    pub(super) fn is_wanted(&self, prepare: &Prepare) -> bool {
        let (op, checksum) = (prepare.op, prepare.frame.checksum);
        if op <= self.checkpoint_op || op > self.head.op {
            return false;
        }
        let named = if op + 1 == self.repair.chain_low {
            checksum == self.repair.chain_wanted
        } else {
            op >= self.repair.chain_low
        };
        let missing = self
            .journal
            .faulty(op)
            .is_some_and(|missing| missing.wanted == Some(checksum) || op < self.repair.chain_low);
        // The journal asserts that what it holds is chained; a header below that is not the log's is repaired first.
        let below = op - 1 <= self.checkpoint_op
            || self
                .journal
                .header(op - 1)
                .is_none_or(|below| below.frame.checksum == prepare.parent);
        named && missing && below && self.journal.can_append(op)
    }

    /// Writes a prepare that the journal lacks.
    pub(super) fn repair_with(&mut self, message: SharedMessage, effects: &mut Effects) {
        let prepare = *message.header().typed::<Prepare>();
        self.journal.append(message.clone(), &mut effects.io);
        self.timers
            .flush
            .set(self.now, crate::constants::JOURNAL_FLUSH_NS);
        self.repair.in_flight = self.repair.in_flight.saturating_sub(1);
        self.repair.whole_until_ns = 0;
        self.metrics.prepares_repaired += 1;
        self.asking.unanswered = false;
        if prepare.op + 1 == self.repair.chain_low {
            self.lower_chain();
        }
        if prepare.op > self.commit_min && self.is_primary() {
            self.inherit(&message, effects);
        } else if prepare.op == self.commit_min + 1 {
            self.prepares.insert(message);
        }
    }
}
