//! SMOVE: looks at both sets, and moves the member if neither has changed since.

use super::{Step, again, out_of_space, results};
use crate::client::{Kind, ReplyRef};
use crate::resp::command::WRONG_TYPE;
use crate::resp::reply::Replies;
use crate::state_machine::kv::wire::{
    Action, Condition, Item, ItemReply, Operation, Status, TransactionBytes, ValueKind,
};

const SET: ValueKind = ValueKind::Set;

/// Moves a member from one set to another.
#[derive(Debug)]
pub struct Move {
    from: Box<[u8]>,
    to: Box<[u8]>,
    member: Box<[u8]>,
    /// The versions that were read, of both.
    versions: Option<[u64; 2]>,
    tries: u32,
}

impl Move {
    /// This member.
    pub fn new(from: &[u8], to: &[u8], member: &[u8]) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            member: member.into(),
            versions: None,
            tries: 0,
        }
    }

    fn item<'a>(key: &'a [u8], action: Action<'a>) -> Item<'a> {
        Item::Collection { key, action }
    }

    pub(super) fn ask(&self, body: &mut Vec<u8>) -> (Kind, Operation) {
        let (from, to, member) = (&*self.from, &*self.to, &*self.member);
        let Some([from_version, to_version]) = self.versions else {
            Item::Stat { key: from }.encode(body);
            Item::Stat { key: to }.encode(body);
            let find = Action::Find {
                kind: SET,
                member,
                size_max: 0,
            };
            Self::item(from, find).encode(body);
            return (Kind::Read, Operation::Batch);
        };
        let conditions = [
            Condition::version(from, from_version),
            Condition::version(to, to_version),
        ];
        let remove = Action::Remove { kind: SET, member };
        let insert = Action::Insert {
            kind: SET,
            member,
            value: &[],
            if_absent: true,
        };
        let items = [Self::item(from, remove), Self::item(to, insert)];
        let transaction = TransactionBytes::new(&conditions, &items, &[]);
        body.extend_from_slice(transaction.expect("two items").as_bytes());
        (Kind::Write, Operation::Batch)
    }

    /// What there is to do, as Redis sees it: the reply, if it is known already.
    fn look(&self, from: &ItemReply<'_>, to: &ItemReply<'_>, found: bool) -> Option<Looked> {
        let is_other = |stat: &ItemReply<'_>| stat.status == Status::Stat && stat.kind != SET;
        if from.status == Status::NotFound {
            Some(Looked::Number(0))
        } else if is_other(from) || is_other(to) {
            Some(Looked::WrongType)
        } else if self.from == self.to || !found {
            Some(Looked::Number(i64::from(found)))
        } else {
            None
        }
    }

    pub(super) fn answer(
        &mut self,
        reply: &ReplyRef<'_>,
        replies: &mut Replies<'_>,
    ) -> Option<Step> {
        if self.versions.take().is_some() {
            match results(reply, 1)?.next()?.status {
                Status::Succeeded => replies.integer(1),
                Status::Failed => return Some(again(&mut self.tries, replies)),
                Status::OutOfSpace => out_of_space(replies),
                _ => return None,
            }
            return Some(Step::Done);
        }
        let mut results = results(reply, 3)?;
        let (from, to, find) = (results.next()?, results.next()?, results.next()?);
        let is_stat = |it: &ItemReply<'_>| matches!(it.status, Status::Stat | Status::NotFound);
        if !is_stat(&from) || !is_stat(&to) {
            return None;
        }
        let found = find.status == Status::Value;
        match self.look(&from, &to, found) {
            Some(Looked::Number(number)) => replies.integer(number),
            Some(Looked::WrongType) => WRONG_TYPE.write(replies),
            None => {
                self.versions = Some([from.version, to.version]);
                return Some(Step::Ask);
            }
        }
        Some(Step::Done)
    }
}

/// A reply for which nothing need be changed.
enum Looked {
    Number(i64),
    WrongType,
}
