//! Some members of a collection, at random: SRANDMEMBER, HRANDFIELD and SPOP with a count.
//!
//! The first request reads the beginning of the collection, which often is all of it. Of a larger one, members are picked
//! until there are enough different ones, or all are read if most of them are wanted. Everything is of one version of the
//! key; what is taken out goes in one write on the condition that the key still has it.

use super::fields::Finder;
use super::{Part, Reader, Step, Strings, Way, again, out_of_space, results, walk};
use crate::client::{Kind, ReplyRef};
use crate::resp::command::{Failure, WRONG_TYPE};
use crate::resp::finish::{Shape, distinct};
use crate::resp::reply::Replies;
use crate::resp::shared::{Shared, splitmix};
use crate::state_machine::kv::wire::{
    Action, Condition, Item, ItemReply, Operation, Results, Status, TransactionBytes, ValueKind,
};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Members that are read in the first request.
const BEGINNING: u32 = 256;

/// Bytes of them.
const BEGINNING_SIZE: u32 = 16 << 10;

/// Members picked in one request: with the key they are well below a message, and so are the results.
const PICKS_AT_ONCE: usize = 64;

/// Most members that one command takes out of a collection, but for all of them.
const TAKE_MAX: usize = 128;

const TOO_MANY: Failure =
    Failure::new("ERR at most 128 members can be taken out at once, or all of them");

/// Draws members, and perhaps takes them out.
#[derive(Debug)]
pub struct Draw {
    key: Box<[u8]>,
    kind: ValueKind,
    count: usize,
    is_distinct: bool,
    is_taking: bool,
    shape: Shape,
    seed: u64,
    /// The version that was read first.
    version: Option<u64>,
    state: Drawing,
    tries: u32,
}

#[derive(Debug)]
enum Drawing {
    /// Picks members; these are there already. At first reads the beginning, too.
    Picking(Strings, BTreeSet<Box<[u8]>>),
    /// Reads all.
    Reading(Reader),
    /// Reads the values of these.
    Finding(Finder),
    /// Takes these out, or the whole key.
    Taking(Strings, bool),
}

impl Default for Drawing {
    fn default() -> Self {
        Self::Picking(Strings::default(), BTreeSet::new())
    }
}

impl Draw {
    /// So many of a key's members.
    pub fn new(
        key: &[u8],
        kind: ValueKind,
        count: usize,
        is_distinct: bool,
        shape: Shape,
        seed: u64,
    ) -> Self {
        Self {
            key: key.into(),
            kind,
            count,
            is_distinct,
            is_taking: false,
            shape,
            seed,
            version: None,
            state: Drawing::default(),
            tries: 0,
        }
    }

    /// What is drawn is taken out.
    #[must_use]
    pub fn taking(mut self) -> Self {
        self.is_taking = true;
        self
    }

    fn values(&self) -> bool {
        self.shape.width() == 2
    }

    pub(super) fn memory(&self) -> usize {
        let state = match &self.state {
            Drawing::Picking(picked, known) => 2 * picked.memory() + 64 * known.len(),
            Drawing::Reading(reader) => reader.memory(),
            Drawing::Finding(finder) => finder.memory(),
            Drawing::Taking(strings, _) => strings.memory(),
        };
        1024 + state
    }

    fn item<'a>(&'a self, action: Action<'a>) -> Item<'a> {
        Item::Collection {
            key: &self.key,
            action,
        }
    }

    /// Picks of the next request.
    fn picks(&self) -> usize {
        match &self.state {
            Drawing::Picking(picked, _) => (self.count - picked.len()).min(PICKS_AT_ONCE),
            _ => 0,
        }
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        match &self.state {
            Drawing::Picking(picked, _) => {
                Item::Stat { key: &self.key }.encode(body);
                let beginning = Action::Members {
                    kind: self.kind,
                    from: Bound::Unbounded,
                    // Once it is known to be large, nothing of it is wanted.
                    count_max: if picked.is_empty() { BEGINNING } else { 0 },
                    values: self.values(),
                    size_max: BEGINNING_SIZE,
                };
                self.item(beginning).encode(body);
                let mut seed = self.seed;
                for _ in 0..self.picks() {
                    let pick = Action::Pick {
                        kind: self.kind,
                        seed: splitmix(&mut seed),
                        take: false,
                    };
                    self.item(pick).encode(body);
                }
            }
            Drawing::Reading(reader) => reader.item().encode(body),
            Drawing::Finding(finder) => finder.ask(body),
            Drawing::Taking(strings, is_all) => {
                self.take_out(strings, *is_all, body);
                return (Kind::Write, Operation::Batch);
            }
        }
        (Kind::Read, Operation::Batch)
    }

    fn take_out(&self, strings: &Strings, is_all: bool, body: &mut Vec<u8>) {
        let key = &*self.key;
        let condition = Condition::version(key, self.version.unwrap_or(0));
        let kind = self.kind;
        let remove = |member| self.item(Action::Remove { kind, member });
        let items: Vec<Item<'_>> = if is_all {
            vec![Item::Delete { key }]
        } else {
            strings.iter().map(remove).collect()
        };
        let transaction = TransactionBytes::new(&[condition], &items, &[]);
        body.extend_from_slice(transaction.expect("not too many").as_bytes());
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        shared: &Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let size_max = shared.output_size_max;
        let picks = self.picks();
        match std::mem::take(&mut self.state) {
            Drawing::Picking(picked, known) => {
                let results = results(reply, 2 + picks)?;
                self.looked(results, picked, known, size_max, replies)
            }
            Drawing::Reading(mut reader) => {
                let result = results(reply, 1)?.next()?;
                let part = reader.take(&result, size_max)?;
                let version = reader.version();
                match part {
                    Part::Last if self.is_current(version) => {
                        Some(self.choose(reader.strings(), size_max, replies))
                    }
                    Part::More if self.is_current(version) => {
                        self.state = Drawing::Reading(reader);
                        Some(Step::Ask)
                    }
                    part => Some(self.other(part, replies)),
                }
            }
            Drawing::Finding(mut finder) => {
                let results = results(reply, finder.results())?;
                let part = finder.take(results, size_max)?;
                match part {
                    Part::Last if self.is_current(finder.version()) => {
                        let mut pairs = Strings::default();
                        for (field, value) in finder.fields().iter().zip(finder.found()) {
                            pairs.push(field);
                            pairs.push(value.as_deref()?);
                        }
                        self.shape.write(pairs.iter(), replies);
                        Some(Step::Done)
                    }
                    Part::More if self.is_current(finder.version()) => {
                        self.state = Drawing::Finding(finder);
                        Some(Step::Ask)
                    }
                    part => Some(self.other(part, replies)),
                }
            }
            Drawing::Taking(strings, _) => {
                match results(reply, 1)?.next()?.status {
                    Status::Succeeded => self.shape.write(strings.iter(), replies),
                    Status::Failed => return Some(self.anew(replies)),
                    Status::OutOfSpace => out_of_space(replies),
                    _ => return None,
                }
                Some(Step::Done)
            }
        }
    }

    fn is_current(&self, version: u64) -> bool {
        self.version == Some(version)
    }

    fn anew(&mut self, replies: &mut Replies<'_>) -> Step {
        self.version = None;
        self.state = Drawing::default();
        again(&mut self.tries, replies)
    }

    /// A part that cannot be used.
    fn other(&mut self, part: Part, replies: &mut Replies<'_>) -> Step {
        match part {
            Part::WrongType => WRONG_TYPE.write(replies),
            Part::TooMuch | Part::TooFar => walk::TOO_MUCH.write(replies),
            Part::More | Part::Last | Part::Changed => return self.anew(replies),
        }
        Step::Done
    }

    /// Results of the first look, or of more picks.
    fn looked(
        &mut self,
        mut results: Results<'_>,
        mut picked: Strings,
        mut known: BTreeSet<Box<[u8]>>,
        size_max: usize,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        let (stat, beginning) = (results.next()?, results.next()?);
        match stat.status {
            Status::NotFound => {
                self.shape.begin(0, replies);
                return Some(Step::Done);
            }
            Status::Stat if stat.kind != self.kind => {
                WRONG_TYPE.write(replies);
                return Some(Step::Done);
            }
            Status::Stat => {}
            _ => return None,
        }
        if *self.version.get_or_insert(stat.version) != stat.version {
            return Some(self.anew(replies));
        }
        let length = stat.value_size as usize;
        if self.is_taking && self.count < length && self.count > TAKE_MAX {
            TOO_MANY.write(replies);
            return Some(Step::Done);
        }
        if beginning.status != Status::Members {
            return None;
        }
        if !beginning.more {
            let all: Strings = beginning.members.collect();
            return Some(self.choose(&all, size_max, replies));
        }
        if self.is_distinct && self.count >= length / 3 {
            let way = Way::Members {
                kind: self.kind,
                values: self.values(),
            };
            self.state = Drawing::Reading(Reader::new(&self.key, way));
            return Some(Step::Ask);
        }
        for result in results {
            self.pick(&result, &mut picked, &mut known)?;
        }
        // Other picks next time.
        splitmix(&mut self.seed);
        self.seed = splitmix(&mut self.seed);
        if picked.memory() > size_max {
            walk::TOO_MUCH.write(replies);
            return Some(Step::Done);
        }
        if picked.len() < self.count {
            self.state = Drawing::Picking(picked, known);
            return Some(Step::Ask);
        }
        Some(self.drawn(picked, false, replies))
    }

    /// Keeps what was picked, unless it must be different and is not.
    fn pick(
        &self,
        result: &ItemReply<'_>,
        picked: &mut Strings,
        known: &mut BTreeSet<Box<[u8]>>,
    ) -> Option<()> {
        if result.status != Status::Value {
            return None;
        }
        if !self.is_distinct || known.insert(result.value.into()) {
            picked.push(result.value);
        }
        Some(())
    }

    /// Chooses among all that there are, which come with their values if these are wanted.
    fn choose(&mut self, all: &Strings, size_max: usize, replies: &mut Replies<'_>) -> Step {
        let width = self.shape.width();
        let length = all.len() / width;
        let mut seed = self.seed;
        let places = if self.is_distinct {
            distinct(length, self.count, seed)
        } else {
            let mut place = || (splitmix(&mut seed) % length as u64) as usize;
            (0..self.count).map(|_| place()).collect()
        };
        let mut chosen = Strings::default();
        for place in &places {
            for part in 0..width {
                chosen.push(all.get(width * place + part).unwrap_or(&[]));
            }
            if chosen.memory() > size_max {
                walk::TOO_MUCH.write(replies);
                return Step::Done;
            }
        }
        if self.values() {
            self.shape.write(chosen.iter(), replies);
            return Step::Done;
        }
        self.drawn(chosen, places.len() == length, replies)
    }

    /// These are drawn, which may be all that there are.
    fn drawn(&mut self, strings: Strings, is_all: bool, replies: &mut Replies<'_>) -> Step {
        if self.is_taking && !strings.is_empty() {
            self.state = Drawing::Taking(strings, is_all);
            return Step::Ask;
        }
        if self.values() && !strings.is_empty() {
            self.state = Drawing::Finding(Finder::new(&self.key, self.kind, strings));
            return Step::Ask;
        }
        self.shape.write(strings.iter(), replies);
        Step::Done
    }
}
