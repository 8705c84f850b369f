//! Looks whether every acknowledged write is there.

use super::ledger::{KeyId, Ledger, Verdict};
use super::load::{LoadError, wait_for_primary};
use crate::client::kv::operation;
use crate::client::{CallError, Host, Kind, ReplyRef};
use crate::state_machine::kv::wire::{Item, ItemReply, Operation, Status};
use std::time::Duration;

/// Reads in flight while reading back.
const WINDOW: usize = 256;
/// Missing keys that are named.
const NAMED_MAX: usize = 5;

/// What was found. Counts are of keys; a key stands for its last acknowledged write, which is the one that must be there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verification {
    /// Keys looked at.
    pub keys: u64,
    /// Keys with an acknowledged write that is there.
    pub present: u64,
    /// Keys with an acknowledged write that is not there.
    pub lost: u64,
    /// Keys with a value that was never written.
    pub corrupt: u64,
    /// Keys whose last write had an unknown outcome: it was executed.
    pub unknown_executed: u64,
    /// Some of the keys that are lost or corrupt.
    pub named: Vec<String>,
}

impl Verification {
    /// Whether nothing acknowledged is missing.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.corrupt == 0
    }

    fn add(&mut self, verdict: Verdict, key: &[u8]) {
        self.keys += 1;
        match verdict {
            Verdict::Present => self.present += 1,
            Verdict::UnknownExecuted => self.unknown_executed += 1,
            Verdict::Absent => {}
            Verdict::Lost => self.lost += 1,
            Verdict::Corrupt => self.corrupt += 1,
        }
        if matches!(verdict, Verdict::Lost | Verdict::Corrupt) && self.named.len() < NAMED_MAX {
            self.named.push(String::from_utf8_lossy(key).into_owned());
        }
    }
}

/// Why it could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The cluster does not serve.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A read was not answered.
    #[error("reading back: {0}")]
    Call(#[from] CallError),
    /// An answer that is not one.
    #[error("reading back: the answer is not one of the key-value machine")]
    Answer,
}

/// Reads every key back through `host`, which should be a fresh one.
///
/// # Errors
/// [`VerifyError`].
pub fn through_client(
    host: &mut Host,
    ledger: &Ledger,
    deadline: Duration,
) -> Result<Verification, VerifyError> {
    wait_for_primary(host, deadline)?;
    let mut found = Verification::default();
    let mut keys = ledger.written();
    let mut slots = [None::<KeyId>; WINDOW];
    let mut free: Vec<usize> = (0..WINDOW).collect();
    let (mut key, mut body, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
    let mut failure = None;
    loop {
        while let Some(&slot) = free.last() {
            let Some((id, _)) = keys.next() else { break };
            free.pop();
            slots[slot] = Some(id);
            ledger.key(id, &mut key);
            body.clear();
            let size_max = u32::MAX;
            Item::Get {
                key: &key,
                size_max,
            }
            .encode(&mut body);
            let now = host.now_ns();
            let until = now + deadline.as_nanos() as u64;
            let (core, number) = (host.core(), operation(Operation::Get));
            let submitted = core.submit(now, Kind::Read, number, &body, until, slot as u64);
            submitted.map_err(CallError::from)?;
        }
        if free.len() == WINDOW {
            return Ok(found);
        }
        let mut on_done = |tag: u64, result: Result<ReplyRef<'_>, CallError>| {
            let id = slots[tag as usize].take().expect("a tag ends once");
            free.push(tag as usize);
            match result.map(|reply| ItemReply::decode(reply.body)) {
                Ok(Some(reply)) if matches!(reply.status, Status::Value | Status::NotFound) => {
                    let value = (reply.status == Status::Value).then_some(reply.value);
                    let verdict = ledger.judge(id, value, &mut scratch);
                    ledger.key(id, &mut key);
                    found.add(verdict, &key);
                }
                Ok(_) => failure = Some(VerifyError::Answer),
                Err(error) => failure = Some(error.into()),
            }
        };
        host.turn(u64::MAX, &mut on_done).map_err(LoadError::from)?;
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
}
