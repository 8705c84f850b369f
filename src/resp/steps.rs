//! Commands that take several requests, one after another: they read, decide, and write only if nothing has changed since.

mod combine;
mod cut;
mod draw;
mod elements;
mod exec;
mod fields;
mod float;
mod moving;
mod ranked;
mod scan;
mod walk;

pub use combine::Combine;
pub use cut::Cut;
pub use draw::Draw;
pub use elements::Elements;
pub use exec::Exec;
pub use fields::Fields;
pub use float::{Float, hexadecimal};
pub use moving::Move;
pub use ranked::{Range, Removal, Removed};
pub use scan::{Keys, MemberScan, Scan};
pub use walk::{Part, Reader, Strings, Walk, Way};

use super::caller::Caller;
use super::command::{Failure, WRONG_TYPE};
use super::reply::Replies;
use super::shared::Shared;
use crate::client::{Kind, ReplyRef};
use crate::state_machine::kv::wire::{
    BatchReply, Condition, Item, ItemReply, Items, Operation, Results, ScanReply, Status,
    TransactionBytes, ValueKind,
};

/// How often a command begins anew because others have changed its keys meanwhile.
const TRIES_MAX: u32 = 100;

const CONTENDED: Failure =
    Failure::new("TRYAGAIN the key is changed by others too often; nothing was done");

/// How a command goes on after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// With another request.
    Ask,
    /// Its reply is written.
    Done,
    /// The answer is not one to its request.
    Malformed,
}

/// A command that takes several requests.
#[derive(Debug)]
pub enum Steps {
    /// INCRBYFLOAT and HINCRBYFLOAT.
    Float(Float),
    /// KEYS.
    Keys(Keys),
    /// SCAN.
    Scan(Scan),
    /// HSCAN and its like.
    Members(MemberScan),
    /// RANDOMKEY, with this random number.
    Random(u64),
    /// Whatever returns a large value that it replaces.
    Exchange(Exchange),
    /// MGET of large values.
    Many(Many),
    /// HMGET of large values.
    Fields(Fields),
    /// All of a large collection.
    Walk(Walk),
    /// Several large sets.
    Combine(Combine),
    /// Some members at random.
    Draw(Box<Draw>),
    /// SMOVE.
    Move(Move),
    /// Members of a sorted set are removed.
    Removal(Removal),
    /// LRANGE, LPOP and RPOP of many elements.
    Elements(Elements),
    /// LTRIM of many elements.
    Cut(Cut),
    /// EXEC with MSETNX or INCRBYFLOAT.
    Exec(Box<Exec>),
}

impl Steps {
    /// The memory that it holds, in bytes, about.
    pub fn memory(&self) -> usize {
        match self {
            Self::Keys(keys) => keys.memory(),
            Self::Exchange(exchange) => exchange.memory(),
            Self::Many(many) => many.size + many.keys.len() * 128,
            Self::Walk(walk) => walk.memory(),
            Self::Removal(removal) => removal.memory(),
            Self::Exec(exec) => exec.memory(),
            Self::Fields(fields) => fields.memory(),
            Self::Combine(combine) => combine.memory(),
            Self::Draw(draw) => draw.memory(),
            Self::Elements(elements) => elements.memory(),
            Self::Float(_)
            | Self::Scan(_)
            | Self::Members(_)
            | Self::Random(_)
            | Self::Move(_)
            | Self::Cut(_) => 2048,
        }
    }

    /// The next request: its kind and operation; its body goes to `body`, which is empty.
    pub fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        match self {
            Self::Float(float) => float.ask(body),
            Self::Keys(keys) => keys.ask(body),
            Self::Scan(scan) => scan.ask(body),
            Self::Random(random) => {
                body.extend_from_slice(&random.to_le_bytes());
                (Kind::Read, Operation::Random)
            }
            Self::Exchange(exchange) => exchange.ask(body),
            Self::Many(many) => many.ask(body),
            Self::Members(scan) => scan.ask(body),
            Self::Fields(fields) => fields.ask(body),
            Self::Walk(walk) => walk.ask(body),
            Self::Removal(removal) => removal.ask(body),
            Self::Combine(combine) => combine.ask(body),
            Self::Draw(draw) => draw.ask(body),
            Self::Move(moving) => moving.ask(body),
            Self::Elements(elements) => elements.ask(body),
            Self::Cut(cut) => cut.ask(body),
            Self::Exec(exec) => exec.ask(body),
        }
    }

    /// Takes the answer.
    pub fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        caller: &mut Caller,
        shared: &mut Shared,
        replies: &mut Replies<'_>,
    ) -> Step {
        let step = match self {
            Self::Float(float) => float.answer(reply, replies),
            Self::Keys(keys) => keys.answer(reply, replies),
            Self::Scan(scan) => scan.answer(reply, shared, replies),
            Self::Random(_) => ScanReply::decode(reply.body).map(|found| {
                match found.entries().next() {
                    Some(entry) if entry.is_key => replies.bulk(entry.key),
                    _ => replies.null(),
                }
                Step::Done
            }),
            Self::Exchange(exchange) => exchange.answer(reply, replies),
            Self::Many(many) => many.answer(reply, shared, replies),
            Self::Members(scan) => scan.answer(reply, shared, replies),
            Self::Fields(fields) => fields.answer(reply, shared, replies),
            Self::Walk(walk) => walk.answer(reply, shared, replies),
            Self::Removal(removal) => removal.answer(reply, shared, replies),
            Self::Combine(combine) => combine.answer(reply, shared, replies),
            Self::Draw(draw) => draw.answer(reply, shared, replies),
            Self::Move(moving) => moving.answer(reply, replies),
            Self::Elements(elements) => elements.answer(reply, shared, replies),
            Self::Cut(cut) => cut.answer(reply, replies),
            Self::Exec(exec) => exec.answer(reply, caller, shared, replies),
        };
        step.unwrap_or(Step::Malformed)
    }
}

/// The results of a reply, if there are so many.
fn results<'a>(reply: &ReplyRef<'a>, count: usize) -> Option<Results<'a>> {
    let reply = BatchReply::decode(reply.body)?;
    (reply.len() == count).then(|| reply.results())
}

/// Counts a try. Ends the command if there were too many.
fn again(tries: &mut u32, replies: &mut Replies<'_>) -> Step {
    *tries += 1;
    if *tries < TRIES_MAX {
        return Step::Ask;
    }
    CONTENDED.write(replies);
    Step::Done
}

/// Reads a large value, then changes its key if the version is still the same, and replies with the value. What is small
/// after all is done at once.
#[derive(Debug)]
pub struct Exchange {
    /// Reads the old value.
    read: Vec<u8>,
    /// With the old value in the reply.
    item: Vec<u8>,
    /// Without it.
    small: Vec<u8>,
    state: Exchanging,
    tries: u32,
}

#[derive(Debug)]
enum Exchanging {
    /// Reads the value.
    Reading,
    /// Makes the change, which is to return this value of this version.
    Changing(u64, Vec<u8>),
    /// There was no value: makes the change and returns what there is now.
    Plain,
}

impl Exchange {
    /// `item` as it would be if values were small; `small` does the same and does not return the value, which `read` reads
    /// of the same key.
    pub fn new(read: &Item<'_>, item: &Item<'_>, small: &Item<'_>) -> Self {
        assert_eq!((read.key(), small.key()), (item.key(), item.key()));
        let encoded = |item: &Item<'_>| {
            let mut bytes = Vec::new();
            item.encode(&mut bytes);
            bytes
        };
        Self {
            read: encoded(read),
            item: encoded(item),
            small: encoded(small),
            state: Exchanging::Reading,
            tries: 0,
        }
    }

    fn memory(&self) -> usize {
        let value = match &self.state {
            Exchanging::Changing(_, value) => value.len(),
            Exchanging::Reading | Exchanging::Plain => 0,
        };
        self.read.len() + self.item.len() + self.small.len() + value
    }

    fn key(&self) -> &[u8] {
        Item::decode(&self.item).map_or(&[], |(item, _)| item.key())
    }

    fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        match &self.state {
            Exchanging::Reading => {
                body.extend_from_slice(&self.read);
                (Kind::Read, Operation::Batch)
            }
            Exchanging::Changing(version, _) => {
                let condition = Condition::version(self.key(), *version);
                let items = Items::decode(Operation::Batch, &self.small);
                let small: Vec<Item<'_>> = items.expect("encoded here").collect();
                let transaction = TransactionBytes::new(&[condition], &small, &[]);
                body.extend_from_slice(transaction.expect("one item").as_bytes());
                (Kind::Write, Operation::Batch)
            }
            Exchanging::Plain => {
                body.extend_from_slice(&self.item);
                (Kind::Write, Operation::Batch)
            }
        }
    }

    fn answer(&mut self, reply: &ReplyRef<'_>, replies: &mut Replies<'_>) -> Option<Step> {
        let result = results(reply, 1)?.next()?;
        let state = std::mem::replace(&mut self.state, Exchanging::Reading);
        match (state, result.status) {
            (Exchanging::Reading, Status::Value) => {
                self.state = Exchanging::Changing(result.version, result.value.to_vec());
                Some(Step::Ask)
            }
            (Exchanging::Reading, Status::NotFound) => {
                self.state = Exchanging::Plain;
                Some(Step::Ask)
            }
            (Exchanging::Changing(_, value), Status::Succeeded) => {
                let inner = { result.results }.next()?;
                match inner.status {
                    Status::OutOfSpace | Status::TooLong => out_of_space(replies),
                    // Of the other key.
                    Status::WrongType => WRONG_TYPE.write(replies),
                    // Done, or a condition like NX did not hold: the value is the answer to both.
                    _ => replies.bulk(&value),
                }
                Some(Step::Done)
            }
            (Exchanging::Changing(..) | Exchanging::Plain, Status::OutOfSpace) => {
                out_of_space(replies);
                Some(Step::Done)
            }
            (Exchanging::Reading | Exchanging::Plain, Status::WrongType) => {
                WRONG_TYPE.write(replies);
                Some(Step::Done)
            }
            (Exchanging::Plain, Status::Done | Status::Mismatch | Status::NotFound) => {
                replies.null();
                Some(Step::Done)
            }
            (Exchanging::Plain, Status::DoneValue | Status::MismatchValue | Status::Value) => {
                replies.bulk(result.value);
                Some(Step::Done)
            }
            (Exchanging::Changing(..), Status::Failed) | (Exchanging::Plain, Status::TooLarge) => {
                Some(again(&mut self.tries, replies))
            }
            _ => None,
        }
    }
}

fn out_of_space(replies: &mut Replies<'_>) {
    replies.error(&"OOM command not allowed when used memory > 'maxmemory'.");
}

/// Reads many values, as many at once as have room in a reply, until a second look at all versions shows that all values
/// were there at the same time.
#[derive(Debug)]
pub struct Many {
    keys: Vec<Box<[u8]>>,
    /// What was read: versions and values; zero and none for what is absent or no string.
    found: Vec<(u64, Option<Vec<u8>>)>,
    size: usize,
    tries: u32,
}

/// Keys asked for in one request: their sizes and those of their results are well below a message.
const MANY_AT_ONCE: usize = 64;

impl Many {
    /// The keys of MGET.
    pub fn new(keys: Vec<Box<[u8]>>) -> Self {
        Self {
            keys,
            found: Vec::new(),
            size: 0,
            tries: 0,
        }
    }

    fn is_checking(&self) -> bool {
        self.found.len() == self.keys.len()
    }

    fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        if self.is_checking() {
            for key in &self.keys {
                Item::Stat { key }.encode(body);
            }
        } else {
            for key in self.keys.iter().skip(self.found.len()).take(MANY_AT_ONCE) {
                let size_max = u32::MAX;
                Item::Get { key, size_max }.encode(body);
            }
        }
        (Kind::Read, Operation::Batch)
    }

    fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        shared: &Shared,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        const TOO_MUCH: Failure = Failure::new("ERR the values are too large for one reply");
        if self.is_checking() {
            let results = results(reply, self.keys.len())?;
            let is_string = |result: &ItemReply<'_>| {
                result.status == Status::Stat && result.kind == ValueKind::Bytes
            };
            let same = results.zip(&self.found).all(|(result, (version, _))| {
                let found = if is_string(&result) {
                    result.version
                } else {
                    0
                };
                found == *version
            });
            if same {
                replies.array(self.found.len());
                for (_, value) in &self.found {
                    match value {
                        Some(value) => replies.bulk(value),
                        None => replies.null(),
                    }
                }
                return Some(Step::Done);
            }
            (self.found, self.size) = (Vec::new(), 0);
            return Some(again(&mut self.tries, replies));
        }
        let count = (self.keys.len() - self.found.len()).min(MANY_AT_ONCE);
        let before = self.found.len();
        for result in results(reply, count)? {
            match result.status {
                Status::Value => {
                    self.size += result.value.len();
                    let value = Some(result.value.to_vec());
                    self.found.push((result.version, value));
                }
                Status::NotFound | Status::WrongType => self.found.push((0, None)),
                // And those behind it: next time.
                Status::TooLarge => break,
                _ => return None,
            }
        }
        if self.size > shared.output_size_max {
            TOO_MUCH.write(replies);
            return Some(Step::Done);
        }
        // At least the first has room.
        (self.found.len() > before).then_some(Step::Ask)
    }
}
