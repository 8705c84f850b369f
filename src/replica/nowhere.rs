//! What is needed and cannot be had: said, rather than waited for in silence.
//!
//! Whoever is asked for a prepare or a page and does not have it says so. When all that answer have said so of what execution
//! waits for, this replica tells its host what it is, and stays where it is: in another view it would be missing as well,
//! and a cluster that changes views for ever looks as if it were about to recover. It goes on asking, so whoever brings what
//! is missing (a replica that was down, a restored file) ends this.
//!
//! Nothing of safety rests on what is said here: it only decides what is told, and when a view is not left.

use super::view_change::Heard;
use super::{Effects, Peer, Replica};
use crate::constants::{ALIVE_NS, NOWHERE_NS, SUSPICION_NS};
use crate::machines::Machines;
use crate::quorums::ReplicaSet;
use crate::rules::Rules;
use std::fmt;
use storage::header::{NoPrepare, NowhereKind, PageReference, ReplicaStatus, RequestPrepare};

/// Something that a replica needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needed {
    /// A prepare, of the journal's zone.
    Prepare {
        /// Its op.
        op: u64,
        /// Its identity; zero if nobody knows it.
        checksum: u128,
    },
    /// A page of state, of the grid.
    Page {
        /// Its number.
        page: u32,
        /// Its tag.
        tag: u128,
    },
    /// A node of the tag tree, of the grid.
    TagNode {
        /// Its number.
        node: u32,
        /// Its tag.
        tag: u128,
    },
}

impl Needed {
    /// Kind, number and name, as greetings to clients say them.
    pub(super) fn to_wire(self) -> (NowhereKind, u64, u64) {
        let (kind, number, name) = match self {
            Self::Prepare { op, checksum } => (NowhereKind::Prepare, op, checksum),
            Self::Page { page, tag } => (NowhereKind::Page, page.into(), tag),
            Self::TagNode { node, tag } => (NowhereKind::TagNode, node.into(), tag),
        };
        (kind, number, (name >> 64) as u64)
    }
}

impl fmt::Display for Needed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prepare { op, checksum: 0 } => {
                write!(formatter, "journal: the prepare of op {op}")
            }
            Self::Prepare { op, checksum } => {
                write!(
                    formatter,
                    "journal: the prepare of op {op} (identity {checksum:032x})"
                )
            }
            Self::Page { page, tag } => write!(formatter, "grid: page {page} (tag {tag:032x})"),
            Self::TagNode { node, tag } => {
                write!(
                    formatter,
                    "grid: node {node} of the tag tree (tag {tag:032x})"
                )
            }
        }
    }
}

/// Something that a replica needs, and that no other has which answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nowhere {
    /// What it is.
    pub needed: Needed,
    /// Replicas of which nothing is heard: one of them may have it.
    pub silent: ReplicaSet,
}

impl fmt::Display for Nowhere {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed = self.needed;
        if self.silent.count() == 0 {
            return write!(formatter, "{needed} is missing or damaged on every replica");
        }
        // It goes to the log while nothing may be allocated.
        let silent = self.silent;
        write!(
            formatter,
            "{needed} is missing or damaged on every replica that answers; nothing is heard of replica {silent}"
        )
    }
}

/// Who does not have something.
#[derive(Clone, Copy, Debug, Default)]
struct Search {
    needed: Option<Needed>,
    lacking: ReplicaSet,
    /// When the first said that it does not have it.
    since_ns: u64,
}

impl Search {
    /// A replica has said that it does not have this.
    fn lacks(&mut self, needed: Needed, replica: u8, now_ns: u64) {
        if self.needed != Some(needed) {
            *self = Self {
                needed: Some(needed),
                lacking: ReplicaSet::default(),
                since_ns: now_ns,
            };
        }
        self.lacking.insert(replica);
    }
}

/// What is looked for: one thing of each kind, the one that the rest waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Searches {
    prepare: Search,
    page: Search,
}

impl Searches {
    /// Another view: who has a prepare is asked anew.
    pub(super) fn forget_prepare(&mut self) {
        self.prepare = Search::default();
    }

    /// Another checkpoint.
    pub(super) fn forget_page(&mut self) {
        self.page = Search::default();
    }
}

impl<M: Machines, R: Rules> Replica<M, R> {
    /// Somebody asks for a prepare that is not here.
    pub(super) fn send_no_prepare(&mut self, to: u8, ask: &RequestPrepare, effects: &mut Effects) {
        let mut no: NoPrepare = self.header();
        (no.op, no.prepare) = (ask.op, ask.prepare);
        self.send_header(Peer::Replica(to), &no, effects);
    }

    pub(super) fn on_no_prepare(&mut self, from: u8, no: &NoPrepare) {
        if self.prepare_to_execute() == Some((no.op, no.prepare)) {
            let (op, checksum) = (no.op, no.prepare);
            let needed = Needed::Prepare { op, checksum };
            let now_ns = self.now.monotonic_ns;
            self.asking.searches.prepare.lacks(needed, from, now_ns);
        }
    }

    /// Of the prepares that are missing here, the one that execution comes to first.
    fn prepare_to_execute(&self) -> Option<(u64, u128)> {
        if self.status != ReplicaStatus::Normal || self.is_solo() {
            return None;
        }
        if let Some(gap) = self.gap_in_chain() {
            return Some(gap);
        }
        let missing = self
            .journal
            .missing(self.commit_min + 1..=self.head.op)
            .next()?;
        missing.wanted.map(|checksum| (missing.op, checksum))
    }

    /// Pages and nodes were asked for; which of them have come is known.
    pub(super) fn note_lacking_pages(&mut self, from: u8, asked: &[PageReference]) {
        let needed = |reference: &PageReference| match self.checkpoint.node_of(reference.logical) {
            None => Needed::Page {
                page: reference.logical,
                tag: reference.tag,
            },
            Some(node) => Needed::TagNode {
                node,
                tag: reference.tag,
            },
        };
        let mut lacking = asked.iter().filter(|it| self.checkpoint.fetch_wants(it));
        // One at a time: until it has come, it is as good as any other.
        let known = self
            .asking
            .searches
            .page
            .needed
            .filter(|_| self.is_page_wanted());
        let found = match known {
            None => lacking.next().map(needed),
            Some(known) => lacking.map(needed).find(|&it| it == known),
        };
        if let Some(needed) = found {
            let now_ns = self.now.monotonic_ns;
            self.asking.searches.page.lacks(needed, from, now_ns);
        }
    }

    /// Whether the page that is looked for has not come yet.
    fn is_page_wanted(&self) -> bool {
        let (logical, tag) = match self.asking.searches.page.needed {
            Some(Needed::Page { page, tag }) => (page, tag),
            Some(Needed::TagNode { node, tag }) => (self.checkpoint.logical_of_node(node), tag),
            _ => return false,
        };
        let reserved = [0; 12];
        self.checkpoint.fetch_wants(&PageReference {
            tag,
            logical,
            reserved,
        })
    }

    /// What is needed here and found nowhere, for the log and for `status`.
    pub(super) fn nowhere(&self) -> Option<Nowhere> {
        if let Some(op) = self.lost_op() {
            let checksum = self.election.votes.name_of(op);
            return Some(Nowhere {
                needed: Needed::Prepare { op, checksum },
                silent: ReplicaSet::default(), // all have voted
            });
        }
        let page = self.is_page_wanted().then_some(&self.asking.searches.page);
        page.and_then(|search| self.told(search))
            .or_else(|| self.prepare_nowhere())
    }

    /// A committed prepare that execution waits for, and that nobody has; nor has anybody executed it.
    pub(super) fn prepare_nowhere(&self) -> Option<Nowhere> {
        let Some(Needed::Prepare { op, checksum }) = self.asking.searches.prepare.needed else {
            return None;
        };
        if op > self.commit_max {
            return None; // the next view may cut it off
        }
        let passed = |replica: u8| {
            let peer = &self.peers[replica as usize];
            self.is_alive(replica) && peer.commit_min.max(peer.checkpoint_op) >= op
        };
        if self.others().any(passed) || self.prepare_to_execute() != Some((op, checksum)) {
            return None;
        }
        self.told(&self.asking.searches.prepare)
    }

    /// Whether all that answer have said that they do not have something, for long enough.
    fn told(&self, search: &Search) -> Option<Nowhere> {
        let mut silent = ReplicaSet::default();
        for replica in self.others() {
            if search.lacking.contains(replica) {
                continue;
            }
            if self.is_alive(replica) {
                return None;
            }
            silent.insert(replica);
        }
        let long = self.now.monotonic_ns >= search.since_ns + NOWHERE_NS;
        let needed = search.needed.filter(|_| long)?;
        Some(Nowhere { needed, silent })
    }

    /// Whether another replica has greeted of late.
    fn is_alive(&self, replica: u8) -> bool {
        let peer = &self.peers[replica as usize];
        peer.start.is_some() && self.now.monotonic_ns < peer.greeted_ns + ALIVE_NS
    }

    /// An op that may be committed, and that nobody can supply though all have voted: as candidate, or as one knows from the
    /// candidate's vote.
    pub(super) fn lost_op(&self) -> Option<u64> {
        let candidate = self.primary();
        if self.status != ReplicaStatus::ViewChange {
            None
        } else if candidate == self.options.replica {
            self.election.lost_op
        } else {
            self.heard_of(candidate).and_then(|heard| heard.lost_op)
        }
    }

    /// What a replica's latest vote in this view says, unless that was long ago.
    fn heard_of(&self, replica: u8) -> Option<&Heard> {
        let heard = &self.election.heard[replica as usize];
        let fresh = self.now.monotonic_ns < heard.at_ns + SUSPICION_NS;
        (heard.at_ns > 0 && fresh).then_some(heard)
    }

    /// Between views: whether the next view could not begin either, as far as is known here. So it is if the candidate is
    /// there and knows that an op is lost, with the votes of all; or if nobody who votes has a state to lead with.
    /// Otherwise whoever is there would become the candidate in turns, for ever.
    pub(super) fn is_next_view_futile(&self) -> bool {
        let candidate = self.primary();
        if candidate != self.options.replica && self.heard_of(candidate).is_none() {
            return false;
        }
        let eligible = |replica: u8| self.heard_of(replica).is_some_and(|heard| heard.eligible);
        let led = self.may_lead() || self.others().any(eligible);
        self.lost_op().is_some() || !led
    }
}
