//! A disk that went back in time, and who may promise anything.
//!
//! A replica whose file was put back to an older state has forgotten what it acknowledged and voted: it counts as lost. It
//! cannot know that by itself, but others may: each remembers, of every other, the newest superblock that it named and the
//! highest op that it had acknowledged then, and compares them with what the next life of that replica may hold.
//!
//! What is remembered is of one data file, and named by the file's random id: of another file nothing of it is true. Whether
//! a file took the place of the one that is remembered, or is an old one that was put back, the view tells: see
//! [`Remembered::judge`].
//!
//! Invariants:
//! * After opening its file, a replica of several takes part only once so many others have found nothing wrong that they make a
//!   view-change quorum with it. Until then it writes nothing that changes what the next life says.
//! * Greetings say what the file held when this life began, whatever has been written since: a disk that went back must not
//!   catch up with what others remember of it, for it does not catch up with what it had promised. Who is told so after it has
//!   taken part, since others did not know better, makes that durable before it ends.
//! * A verdict is about one life of a process and its file, and is echoed with both: greetings may be late, repeated and out of
//!   order.
//! * A file is new only while it is blank, and a blank one neither acknowledges nor votes ([`Begun`]). It leaves that state by
//!   the first start, of which all replicas take part, or as one that replaces a lost file (`lost.rs`): then it begins in a
//!   view that its predecessor was never in.
//!
//! What it cannot do: peers remember in memory. A disk that goes back while the others restart too, or whose last promises
//! nobody has heard of who is up, is not caught.

use super::{Effects, Fatal, Regressed, Replica};
use crate::machines::Machines;
use crate::quorums::ReplicaSet;
use crate::rules::Rules;
use storage::header::{DoViewChange, Ping, Pong, PrepareOk, Start, Verdict};
use storage::superblock::Begun;

/// What another replica has said of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
    /// The data file that all this is about; zero: none that has begun was heard of.
    file: u128,
    /// The highest view in which that file was heard.
    view: u32,
    /// The life in which it was heard last.
    life: u64,
    /// Its newest superblock.
    sequence: u64,
    /// The highest op that it has acknowledged since that superblock.
    op: u64,
    /// A life with which something was wrong, and what.
    accused: (u64, Verdict),
}

impl Default for Remembered {
    fn default() -> Self {
        Self {
            file: 0,
            view: 0,
            life: 0,
            sequence: 0,
            op: 0,
            accused: (0, Verdict::Fine),
        }
    }
}

impl Remembered {
    /// Takes note of a greeting, and compares it with what was said before.
    pub(super) fn hear(&mut self, ping: &Ping) -> Verdict {
        if ping.life == 0 {
            return Verdict::Fine; // it is still reading its file, and knows nothing
        }
        let verdict = self.judge(ping);
        if verdict != Verdict::Fine {
            self.accused = (ping.life, verdict);
        } else if ping.start == Start::Begun as u8 {
            if ping.file != self.file {
                let accused = self.accused;
                *self = Self {
                    file: ping.file,
                    accused,
                    ..Self::default()
                };
            }
            self.life = ping.life;
            self.view = self.view.max(ping.frame.view);
            self.note(ping.superblock_sequence, ping.op_acknowledged);
        }
        verdict
    }

    /// * The same file, in another life: it may not hold less.
    /// * Another file that has not heard of anybody (blank) has promised nothing and will not before it has gone the way of
    ///   a lost one, whichever of the two is the older. What is remembered stands until it has begun.
    /// * Another file that has begun: a file that replaces one begins in a view that its predecessor was never in. So the
    ///   newer one of two files is never heard in a view in which the older one was.
    /// * Another file in the middle of a first start, although one of this replica has begun: it knows nothing and would take
    ///   part at once.
    fn judge(&self, ping: &Ping) -> Verdict {
        let (accused, verdict) = self.accused;
        let start = Start::from_u8(ping.start);
        if ping.life == accused {
            verdict
        } else if self.file == 0 || ping.life == self.life {
            Verdict::Fine
        } else if ping.file == self.file {
            // What the file held when this life began: what it wrote since is no proof of what it had promised before.
            let may_hold = (ping.opened_sequence, ping.op_max);
            if may_hold < (self.sequence, self.op) {
                Verdict::Regressed
            } else {
                Verdict::Fine
            }
        } else if start == Some(Start::Blank)
            || start == Some(Start::Begun) && ping.frame.view > self.view
        {
            Verdict::Fine
        } else {
            Verdict::Replaced
        }
    }

    /// It has acknowledged an op. That of a life that has not greeted yet is not taken note of: a greeting that it sent before,
    /// and that is late, would seem to be of a later life that holds less.
    pub(super) fn hear_acknowledgement(&mut self, ok: &PrepareOk) {
        if ok.life == self.life {
            self.note(ok.superblock_sequence, ok.op);
        }
    }

    /// It has voted.
    pub(super) fn hear_vote(&mut self, vote: &DoViewChange) {
        if vote.life == self.life {
            self.note(vote.superblock_sequence, 0);
        }
    }

    fn note(&mut self, sequence: u64, op: u64) {
        if sequence > self.sequence {
            self.sequence = sequence; // the log of a later one may end below
            self.op = op;
        } else if sequence == self.sequence {
            self.op = self.op.max(op);
        }
    }
}

/// What this replica's own file held when it was opened, who has found nothing wrong with that, and what was promised since.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Promises {
    /// The superblock's sequence when the file was opened.
    sequence: u64,
    /// No op above this can have been acknowledged before this life.
    op_max: u64,
    /// The highest op acknowledged in this life.
    op: u64,
    opened: bool,
    confirmed: ReplicaSet,
    /// What others have said of this file, and the superblock that says so, until that is durable.
    condemned: Option<(Regressed, u64)>,
}

impl Promises {
    /// The file is open, with a superblock of this sequence; ops up to this one may have been acknowledged.
    pub(super) fn opened(&mut self, sequence: u64, op_max: u64) {
        self.sequence = sequence;
        self.op_max = op_max;
        self.opened = true;
    }

    /// An op is being acknowledged.
    pub(super) fn acknowledge(&mut self, op: u64, _: Begun) {
        self.op = self.op.max(op);
    }

    /// The log ends here, durably: what was acknowledged above is not the log's any more.
    pub(super) fn cut(&mut self, op: u64) {
        self.op = self.op.min(op);
    }
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// The right to acknowledge and vote: the file has begun, and nobody has found anything wrong with it.
    pub(super) fn may_promise(&self) -> Option<Begun> {
        let fine = self.is_confirmed() && !self.divergence.is_found();
        self.superblock.begun().filter(|_| fine)
    }

    /// Whether enough others have found nothing wrong with this replica's file.
    pub(super) fn is_confirmed(&self) -> bool {
        self.is_solo()
            || !R::REGRESSED_IS_LOST
            || 1 + self.promises.confirmed.count() >= self.quorums.view_change
    }

    /// Names this life of the process.
    pub(super) fn life(&self) -> u64 {
        self.election.nonce
    }

    /// Says in a greeting what may have been promised here.
    pub(super) fn say_promises(&self, ping: &mut Ping) {
        ping.life = if self.promises.opened { self.life() } else { 0 };
        ping.confirmed = u8::from(self.is_confirmed());
        ping.file = self.superblock.working().file;
        ping.opened_sequence = self.promises.sequence;
        ping.op_max = self.promises.op_max;
        ping.op_acknowledged = self.promises.op;
    }

    /// Another replica has compared this life with what it remembers.
    pub(super) fn hear_verdict(&mut self, from: u8, pong: &Pong, effects: &mut Effects) {
        let of_this_life =
            pong.ping_life == self.life() && pong.ping_file == self.superblock.working().file;
        if !of_this_life || !R::REGRESSED_IS_LOST || !self.promises.opened {
            return;
        }
        let regressed = match Verdict::from_u8(pong.verdict) {
            Some(Verdict::Fine) => None,
            Some(Verdict::Regressed) => Some(Regressed::Peer(from)),
            Some(Verdict::Replaced) => Some(Regressed::Replaced(from)),
            None => return,
        };
        if let Some(regressed) = regressed {
            self.condemn(regressed, effects);
            return;
        }
        let before = self.is_confirmed();
        self.promises.confirmed.insert(from);
        if !before && self.is_confirmed() {
            self.take_part(effects);
        }
    }

    /// Its file went back: this process ends. If it has taken part already, on the word of others who did not know better, the
    /// next one must not: what it has written since makes its file look newer than it is. So the file itself says so first,
    /// and until that is durable nothing else is done.
    fn condemn(&mut self, regressed: Regressed, effects: &mut Effects) {
        if !self.is_confirmed() {
            effects.halt = Some(Fatal::Regressed(regressed));
        } else if self.promises.condemned.is_none() {
            let sequence = self
                .superblock
                .update(|state, _| state.sync.condemned = 1, &mut effects.io);
            self.promises.condemned = Some((regressed, sequence));
        }
    }

    /// Whether this process does nothing any more but to make its end durable.
    pub(super) fn is_condemned(&self) -> bool {
        self.promises.condemned.is_some()
    }

    /// The superblock is durable: ends the process, if that was what it waited for.
    pub(super) fn end_if_condemned(&self, effects: &mut Effects) {
        let sequence = self.superblock.working().sequence;
        if let Some((regressed, wanted)) = self.promises.condemned
            && sequence >= wanted
        {
            effects.halt = Some(Fatal::Regressed(regressed));
        }
    }
}

#[cfg(test)]
mod tests;
