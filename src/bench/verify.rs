//! Looks whether every acknowledged write is there.

use super::cluster::Machines;
use super::ledger::{KeyId, Ledger, Verdict};
use super::load::{LoadError, wait_for_primary};
use crate::client::kv::operation;
use crate::client::{CallError, Host, Kind, ReplyRef};
use crate::offline::Offline;
use crate::quorums::Quorums;
use crate::state_machine::kv::wire::{Item, ItemReply, Operation, Status};
use std::path::PathBuf;
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
    /// A data file is damaged, or the cluster does not stop or start.
    #[error("{0}")]
    Cluster(String),
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

/// Looks into the data files of a stopped cluster, which are opened as `verify` does. An acknowledged write must be on a
/// replication quorum.
///
/// # Errors
/// A data file is damaged.
pub fn in_data_files(files: &[PathBuf], ledger: &Ledger) -> Result<Verification, VerifyError> {
    let open = |path: &PathBuf| Offline::<Machines>::open(path);
    let dumps: Result<Vec<_>, _> = files.iter().map(open).collect();
    let dumps = dumps.map_err(|error| VerifyError::Cluster(error.to_string()))?;
    let quorum = usize::from(Quorums::new(files.len() as u8).replication);
    Ok(in_dumps(
        dumps.len(),
        |replica, key| value_in(&dumps[replica], key),
        quorum,
        ledger,
    ))
}

/// The value of a key in a data file.
fn value_in(dump: &Offline<Machines>, key: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    Item::Get {
        key,
        size_max: u32::MAX,
    }
    .encode(&mut body);
    let answer = dump.read(operation(Operation::Get), &body);
    let reply = ItemReply::decode(&answer).expect("the machine answers what its decoder knows");
    (reply.status == Status::Value).then(|| reply.value.to_vec())
}

fn in_dumps(
    count: usize,
    value: impl Fn(usize, &[u8]) -> Option<Vec<u8>>,
    quorum: usize,
    ledger: &Ledger,
) -> Verification {
    let mut found = Verification::default();
    let (mut key, mut scratch) = (Vec::new(), Vec::new());
    for (id, record) in ledger.written() {
        ledger.key(id, &mut key);
        let (mut present, mut executed, mut corrupt) = (0, 0, false);
        for replica in 0..count {
            match ledger.judge(id, value(replica, &key).as_deref(), &mut scratch) {
                Verdict::Present => present += 1,
                Verdict::UnknownExecuted => executed += 1,
                Verdict::Corrupt => corrupt = true,
                Verdict::Absent | Verdict::Lost => {} // a replica that was behind
            }
        }
        let verdict = if corrupt {
            Verdict::Corrupt
        } else if record.acknowledged > 0 && present + executed < quorum {
            Verdict::Lost
        } else if executed > 0 {
            Verdict::UnknownExecuted
        } else if record.acknowledged > 0 {
            Verdict::Present
        } else {
            Verdict::Absent
        };
        found.add(verdict, &key);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_acknowledged_write_must_be_on_a_quorum() {
        let mut ledger = Ledger::new(9, 1, 10, 12, 16);
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut states = vec![BTreeMap::new(); 3];
        for place in 0..10 {
            let id = ledger.active(0, place);
            let number = ledger.attempt(id);
            ledger.key(id, &mut key);
            ledger.value(id, number, &mut value);
            ledger.acknowledge(id);
            for (replica, state) in states.iter_mut().enumerate() {
                // Key 3 is on one replica only, key 4 on two.
                if (place, replica) != (4, 0) && (place != 3 || replica == 2) {
                    state.insert(key.clone(), value.clone());
                }
            }
        }
        let value = |replica: usize, key: &[u8]| states[replica].get(key).cloned();
        let found = in_dumps(3, value, 2, &ledger);
        assert_eq!((found.keys, found.present, found.lost), (10, 9, 1));
        assert_eq!(found.named, ["000000000003"]);
        assert!(!found.is_good());
        assert!(in_dumps(3, value, 1, &ledger).is_good());
    }
}
