//! Calls about several keys, and several calls at once: scans, batches, transactions, and what is submitted and waited
//! for later.

use super::super::outcome::Unknown;
use super::super::{Kind, Pending, Reply};
use super::answer::{Committed, Entry, ItemResult, KvError, Page};
use super::{KvClient, check_item, check_key, operation};
use crate::state_machine::kv::wire::{
    BatchReply, Condition, CountReply, Item, KEY_SIZE_MAX, Operation, Scan, ScanReply, Status,
    TransactionBytes, prefix_end,
};
use std::ops::Bound;

/// Items that were submitted and not yet waited for.
#[derive(Debug)]
#[must_use = "the call goes on, but nobody will know how it ended"]
pub struct PendingItems {
    pending: Pending,
    /// None: as many as the answer has.
    count: Option<usize>,
}

impl PendingItems {
    /// Waits for the end; the call's deadline bounds it. What became of each item is in its result.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn wait(self) -> Result<Vec<ItemResult>, KvError> {
        results_of(&self.pending.wait()?, self.count)
    }

    /// The end, once, if it is there already.
    ///
    /// # Errors
    /// [`KvError`].
    pub fn try_take(&self) -> Option<Result<Vec<ItemResult>, KvError>> {
        let result = self.pending.try_take()?;
        Some(match result {
            Ok(reply) => results_of(&reply, self.count),
            Err(error) => Err(error.into()),
        })
    }
}

fn results_of(reply: &Reply, count: Option<usize>) -> Result<Vec<ItemResult>, KvError> {
    let decoded = BatchReply::decode(&reply.body);
    let decoded = decoded.filter(|it| count.is_none_or(|count| it.len() == count));
    let results = decoded.ok_or(KvError::Answer(reply.op))?.results();
    Ok(results.map(|reply| ItemResult::of(&reply)).collect())
}

impl KvClient {
    /// Some key, chosen by a number that the caller draws at random; none if there is none.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// kv.put(b"key", b"value")?;
    /// assert_eq!(kv.random_key(0x9e37_79b9_7f4a_7c15)?, Some(b"key".to_vec()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KvError`].
    pub fn random_key(&self, seed: u64) -> Result<Option<Vec<u8>>, KvError> {
        let number = operation(Operation::Random);
        let reply = self.client.read(number, &seed.to_le_bytes())?;
        let page = ScanReply::decode(&reply.body).ok_or(KvError::Answer(reply.op))?;
        let found = page.entries().next().map(|entry| entry.key.to_vec());
        Ok(found)
    }

    /// Executes `then` if all conditions hold, `otherwise` if not: in one op, as one. If the state is out of space for
    /// that list, nothing of it is executed.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::{Condition, Item};
    ///
    /// kv.put(b"ada", b"100")?;
    /// kv.put(b"bank", b"open")?;
    /// let transfer = kv.transaction(
    ///     &[Condition::value(b"bank", b"open"), Condition::present(b"ada")],
    ///     &[
    ///         Item::increment(b"ada", -10),
    ///         Item::increment(b"bob", 10),
    ///     ],
    ///     &[Item::get(b"bank")],
    /// )?;
    /// assert!(transfer.succeeded);
    /// assert_eq!(transfer.results[0].number, Some(90));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KvError`]; what becomes of single items is in their results.
    pub fn transaction(
        &self,
        conditions: &[Condition<'_>],
        then: &[Item<'_>],
        otherwise: &[Item<'_>],
    ) -> Result<Committed, KvError> {
        for condition in conditions {
            check_key(condition.key)?;
        }
        for item in then.iter().chain(otherwise) {
            check_item(item)?;
        }
        let bytes = TransactionBytes::new(conditions, then, otherwise).ok_or(KvError::Empty)?;
        let item = bytes.item().ok_or(KvError::Empty)?;
        self.item(&item, |reply| {
            let succeeded = match reply.status {
                Status::Succeeded => true,
                Status::Failed => false,
                _ => return None,
            };
            let results = reply.results.map(|reply| ItemResult::of(&reply));
            Some(Committed {
                succeeded,
                results: results.collect(),
            })
        })
    }

    /// Reads a range, as much of it as an answer holds.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// # for key in [b"a", b"b", b"c", b"d"] { kv.put(key, key)?; }
    /// use std::ops::Bound;
    /// use viewstone::client::kv::Scan;
    ///
    /// let page = kv.scan(&Scan {
    ///     from: Bound::Excluded(b"a"),
    ///     count_max: 2,
    ///     ..Scan::ALL
    /// })?;
    /// assert_eq!(page.entries[0].key, b"b");
    /// assert_eq!(page.next.as_deref(), Some(&b"c"[..])); // go on from there
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KvError`].
    pub fn scan(&self, scan: &Scan<'_>) -> Result<Page, KvError> {
        for bound in [scan.from, scan.to] {
            if let Bound::Included(key) | Bound::Excluded(key) = bound
                && key.len() > KEY_SIZE_MAX
            {
                return Err(KvError::Key(key.len()));
            }
        }
        if scan.count_max == 0 {
            return Err(KvError::Empty);
        }
        let mut body = Vec::new();
        scan.encode(&mut body);
        let reply = self.client.read(operation(Operation::Scan), &body)?;
        let page = ScanReply::decode(&reply.body).ok_or(KvError::Answer(reply.op))?;
        let last = page.entries().last();
        let next = last.filter(|_| page.more).map(|entry| entry.key.to_vec());
        let keys = page.entries().filter(|entry| entry.is_key);
        let entries = keys.map(|entry| Entry {
            key: entry.key.to_vec(),
            version: entry.version,
            kind: entry.kind,
            size: entry.value_size,
            value: entry.value.map(<[u8]>::to_vec),
        });
        Ok(Page {
            entries: entries.collect(),
            next,
            revision: page.revision,
        })
    }

    /// Reads the keys that begin with `prefix`, behind `after` if that is given, as many as an answer holds, at most
    /// `limit`.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// for key in ["user/ada", "user/bob", "user/eve", "visits"] {
    ///     kv.put(key.as_bytes(), b"")?;
    /// }
    /// let (mut found, mut after) = (0, None);
    /// loop {
    ///     let page = kv.scan_prefix(b"user/", after.as_deref(), 2)?;
    ///     found += page.entries.len();
    ///     after = page.next;
    ///     if after.is_none() {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(found, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KvError`].
    pub fn scan_prefix(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<Page, KvError> {
        check_key(prefix)?;
        let mut buffer = [0; KEY_SIZE_MAX];
        self.scan(&Scan {
            from: after.map_or(Bound::Included(prefix), Bound::Excluded),
            to: prefix_end(prefix, &mut buffer),
            count_max: limit,
            ..Scan::ALL
        })
    }

    /// Counts the keys.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// kv.put(b"key", b"value")?;
    /// assert_eq!(kv.count()?.count, 1);
    /// kv.clear()?;
    /// assert_eq!(kv.count()?.count, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KvError`].
    pub fn count(&self) -> Result<CountReply, KvError> {
        let reply = self.client.read(operation(Operation::Count), &[])?;
        CountReply::decode(&reply.body).ok_or(KvError::Answer(reply.op))
    }

    /// Executes items in order, in one request: all of them, or, if the call fails definitely, none. They are
    /// independent: what becomes of each is in its result, and one that fails undoes no other. (For what must stand or
    /// fall together there is [`Self::transaction`], and an item of a batch may be one.)
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::{Item, Status};
    ///
    /// let results = kv.batch(&[
    ///     Item::put(b"name", b"Ada"),
    ///     Item::increment(b"name", 1), // a mistake, which harms nobody else
    ///     Item::increment(b"visits", 1),
    /// ])?;
    /// assert!(results[0].status.is_done());
    /// assert_eq!(results[1].status, Status::NotANumber);
    /// assert_eq!(results[2].number, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KvError`].
    pub fn batch(&self, items: &[Item<'_>]) -> Result<Vec<ItemResult>, KvError> {
        self.submit(items)?.wait()
    }

    /// Starts a [batch](Self::batch) and returns at once, so that many may be under way; those are executed in any
    /// order.
    ///
    /// ```
    /// # let cluster = viewstone::testing::KvCluster::start(1)?;
    /// # let kv = cluster.kv()?;
    /// use viewstone::client::kv::Item;
    ///
    /// let visit = [Item::increment(b"visits", 1)];
    /// let calls: Result<Vec<_>, _> = (0..20).map(|_| kv.submit(&visit)).collect();
    /// for call in calls? {
    ///     call.wait()?;
    /// }
    /// assert_eq!(kv.increment(b"visits", 0)?, 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`KvError::Empty`] and [`KvError::Key`]; the others come with the end.
    pub fn submit(&self, items: &[Item<'_>]) -> Result<PendingItems, KvError> {
        if items.is_empty() {
            return Err(KvError::Empty);
        }
        let mut body = Vec::with_capacity(items.iter().map(Item::size).sum());
        for item in items {
            check_item(item)?;
            item.encode(&mut body);
        }
        let kind = if items.iter().all(Item::is_read) {
            Kind::Read
        } else {
            Kind::Write
        };
        let number = operation(Operation::Batch);
        let deadline = self.client.deadline();
        Ok(PendingItems {
            pending: self.client.submit(kind, number, &body, deadline),
            count: Some(items.len()),
        })
    }

    /// Waits again for a change whose outcome was unknown ([`KvError::unknown`]), and tells what became of its items:
    /// one, if the call was not a batch. Nothing is executed a second time. See
    /// [`Client::resolve`](super::super::Client::resolve); the documentation of [`crate::client`] has an example.
    ///
    /// # Errors
    /// [`KvError`]; indeterminate again, if the deadline passes again.
    pub fn resolve(&self, unknown: &Unknown) -> Result<Vec<ItemResult>, KvError> {
        let pending = self.client.resolve(unknown, self.client.deadline());
        let count = None;
        PendingItems { pending, count }.wait()
    }
}
