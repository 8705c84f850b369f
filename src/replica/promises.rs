//! A disk that went back in time, and who may promise anything.
//!
//! A replica whose file was put back to an older state has forgotten what it acknowledged and voted: it counts as lost. It
//! cannot know that by itself, but others may: each remembers, of every other, the newest superblock that it named and the
//! highest op that it had acknowledged then, and compares them with what the next life of that replica may hold.
//!
//! Invariants:
//! * After opening its file, a replica of several acknowledges and votes only once so many others have found nothing wrong
//!   that they make a view-change quorum with it. Until then its greetings are *fresh*: they name the superblock that its
//!   file held when it was opened.
//! * A verdict is about one life of a process, and is echoed with it: greetings may be late, repeated and out of order.
//!
//! What it cannot do: peers remember in memory. A disk that goes back while the others restart too, or whose last promises
//! nobody has heard of who is up, is not caught.

use super::{Effects, Fatal, Regressed, Replica};
use crate::machines::Machines;
use crate::quorums::ReplicaSet;
use crate::rules::Rules;
use storage::header::{Ping, Pong, Start};

/// What another replica has said of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remembered {
    /// The life in which it said so; zero: nothing was heard.
    life: u64,
    sequence: u64,
    op: u64,
    /// A life that began with less.
    regressed: u64,
}

impl Remembered {
    /// Takes note of a greeting; true if it comes of a life that began with less than was said before.
    pub(super) fn hear(&mut self, ping: &Ping) -> bool {
        if ping.life == 0 {
            return false; // it is still reading its file, and knows nothing
        }
        if ping.start == Start::Blank as u8 {
            // A new file in the place of the one that was remembered: it knows, and promises nothing before it may.
            *self = Self::default();
            self.life = ping.life;
            return false;
        }
        if ping.life == self.regressed {
            return true;
        }
        let may_hold = (ping.superblock_sequence, ping.op_max);
        if ping.life != self.life && self.life != 0 && may_hold < (self.sequence, self.op) {
            self.regressed = ping.life;
            return true;
        }
        self.life = ping.life;
        if ping.superblock_sequence > self.sequence {
            self.sequence = ping.superblock_sequence; // the log of a later one may end below
            self.op = ping.op_acknowledged;
        } else if ping.superblock_sequence == self.sequence {
            self.op = self.op.max(ping.op_acknowledged);
        }
        false
    }
}

/// What this replica's own file held when it was opened, who has found nothing wrong with that, and what was promised since.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Promises {
    sequence: u64,
    /// No op above this can have been acknowledged before this life.
    op_max: u64,
    /// The highest op acknowledged in this life.
    op: u64,
    opened: bool,
    confirmed: ReplicaSet,
}

impl Promises {
    /// The file is open; ops up to this one may have been acknowledged.
    pub(super) fn opened(&mut self, op_max: u64) {
        self.op_max = op_max;
        self.opened = true;
    }

    /// An op is being acknowledged.
    pub(super) fn acknowledge(&mut self, op: u64) {
        self.op = self.op.max(op);
    }

    /// The log ends here, durably: what was acknowledged above is not the log's any more.
    pub(super) fn cut(&mut self, op: u64) {
        self.op = self.op.min(op);
    }
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Whether this replica may acknowledge and vote.
    pub(super) fn may_promise(&self) -> bool {
        self.is_confirmed() && !self.divergence.is_found()
    }

    /// Whether enough others have found nothing wrong with this replica's file.
    pub(super) fn is_confirmed(&self) -> bool {
        self.is_solo()
            || !R::REGRESSED_IS_LOST
            || 1 + self.promises.confirmed.count() >= self.quorums.view_change
    }

    /// The superblock is open.
    pub(super) fn begin_life(&mut self) {
        self.promises.sequence = self.superblock.working().sequence;
    }

    /// Says in a greeting what may have been promised here.
    pub(super) fn say_promises(&self, ping: &mut Ping) {
        let fresh = !self.is_confirmed();
        ping.life = if self.promises.opened {
            self.election.nonce
        } else {
            0
        };
        ping.fresh = u8::from(fresh);
        ping.op_max = self.promises.op_max.max(self.head.op);
        ping.op_acknowledged = self.promises.op;
        if fresh {
            ping.superblock_sequence = self.promises.sequence;
        }
    }

    /// Another replica has compared this life with what it remembers.
    pub(super) fn hear_verdict(&mut self, from: u8, pong: &Pong, effects: &mut Effects) {
        if pong.ping_life != self.election.nonce || !R::REGRESSED_IS_LOST || !self.promises.opened {
            return;
        }
        if pong.regressed == 1 {
            effects.halt = Some(Fatal::Regressed(Regressed::Peer(from)));
            return;
        }
        let before = self.is_confirmed();
        self.promises.confirmed.insert(from);
        if !before && self.may_promise() {
            self.acknowledge_withheld(effects);
            self.vote_if_durable(effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::header::Typed;

    /// A greeting of a life in which ops up to the second number are acknowledged, and up to the third may have been.
    fn ping(life: u64, sequence: u64, acknowledged: u64, op_max: u64) -> Ping {
        let mut ping = Ping::new(1, 0, 0);
        (ping.life, ping.superblock_sequence) = (life, sequence);
        (ping.op_acknowledged, ping.op_max) = (acknowledged, op_max);
        ping.start = Start::Begun as u8;
        ping
    }

    #[test]
    fn a_new_file_is_lost_and_not_regressed() {
        let mut memory = Remembered::default();
        assert!(!memory.hear(&ping(7, 5, 100, 130)));
        let mut blank = ping(8, 1, 0, 0);
        blank.start = Start::Blank as u8;
        assert!(!memory.hear(&blank));
        assert!(!memory.hear(&ping(8, 3, 64, 64)), "it has been recovered");
        assert!(memory.hear(&ping(9, 2, 0, 64)), "and went back");
        let mut half = ping(9, 2, 0, 0);
        half.start = Start::Initialised as u8;
        assert!(memory.hear(&half), "to the middle of its first start");
    }

    #[test]
    fn a_life_that_can_hold_less_is_regressed_for_ever() {
        let mut memory = Remembered::default();
        assert!(!memory.hear(&ping(0, 0, 0, 0)));
        assert!(!memory.hear(&ping(7, 5, 100, 130)));
        assert!(!memory.hear(&ping(7, 5, 120, 130)));
        assert!(memory.hear(&ping(8, 5, 0, 119)));
        assert!(memory.hear(&ping(8, 9, 500, 500)), "whatever it says later");
        assert!(memory.hear(&ping(9, 4, 0, 900)), "an older superblock");
        assert!(
            !memory.hear(&ping(10, 5, 0, 120)),
            "what was not acknowledged may be lost"
        );
        assert!(
            memory.hear(&ping(11, 5, 0, 119)),
            "what was is not, in the second life either"
        );
        assert!(
            !memory.hear(&ping(12, 6, 0, 90)),
            "a later log may end below"
        );
        assert!(!memory.hear(&ping(12, 6, 95, 95)));
        assert!(memory.hear(&ping(13, 6, 0, 94)));
    }

    #[test]
    fn greetings_out_of_order_accuse_nobody_who_lives() {
        let mut memory = Remembered::default();
        assert!(!memory.hear(&ping(7, 5, 100, 100)));
        assert!(!memory.hear(&ping(7, 6, 90, 90)));
        assert!(!memory.hear(&ping(7, 5, 99, 99)), "a late one");
        assert!(!memory.hear(&ping(8, 6, 0, 90)));
        // A late one of the life before: the verdict is about that life, and nobody there hears it.
        assert!(memory.hear(&ping(7, 5, 99, 99)));
        assert!(!memory.hear(&ping(8, 6, 91, 91)));
        assert!(
            !memory.hear(&ping(0, 0, 0, 0)),
            "one that knows nothing yet"
        );
    }
}
