//! The machine against its model, through the bytes that clients and the log would carry.

mod collections;
mod expiry;
mod items;
mod limits;
mod owned;

use super::model::Model;
use super::store::PULSE_PAGES;
use super::wire::{
    BatchReply, Condition, CountReply, Expiry, Item, ItemReply, ScanReply, SetOptions,
    TransactionBytes, prefix_end,
};
use super::*;
use owned::{Owned, keys};
use proptest::prelude::*;
use storage::layout::Geometry;
use storage::pages::PageId;

const MILLISECOND: u64 = 1_000_000;

/// When tests begin, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// A store, its arena, a twin that executes the same log, and its model.
struct Checked {
    limits: Limits,
    pages: Pages,
    kv: Kv,
    twin: Option<(Pages, Kv)>,
    model: Model,
    /// Items that were refused for lack of pages.
    refused: u32,
    /// The primary's clock.
    clock_ns: u64,
    /// Time of the last commit.
    commit_ns: u64,
    free_at_start: u32,
}

fn context(timestamp: u64) -> Context {
    Context {
        op: 1,
        timestamp,
        client: 1,
    }
}

impl Checked {
    fn new(geometry: &Geometry) -> Self {
        Self::with_limits(Limits::new(geometry))
    }

    fn with_limits(limits: Limits) -> Self {
        let mut pages = Pages::new(limits.page_count, limits.pages_touched_max);
        let kv = Kv::create_within(&mut pages, &limits);
        drain(&mut pages);
        Self {
            limits,
            free_at_start: pages.free_count(),
            pages,
            kv,
            twin: None,
            model: Model::new(),
            refused: 0,
            clock_ns: BEGIN_MS * MILLISECOND,
            commit_ns: 0,
        }
    }

    fn with_twin(mut self) -> Self {
        let mut pages = Pages::new(self.limits.page_count, self.limits.pages_touched_max);
        let kv = Kv::create_within(&mut pages, &self.limits);
        self.twin = Some((pages, kv));
        self
    }

    fn wait_ms(&mut self, time: u64) {
        self.clock_ns += time * MILLISECOND;
    }

    /// The next op's time.
    fn tick(&mut self) -> Context {
        self.commit_ns = self.clock_ns.max(self.commit_ns + 1);
        context(self.commit_ns)
    }

    /// Commits the pulse that is due, if one is. After it none is.
    fn pulse_if_due(&mut self) -> bool {
        let due = self.kv.deadline_ns(&self.pages);
        if due.is_none_or(|due| due > self.clock_ns) {
            return false;
        }
        let context = self.tick();
        let free = self.pages.free_count();
        self.kv.pulse(&mut self.pages, &context);
        assert!(self.pages.free_count() >= free);
        assert!(drain(&mut self.pages) <= self.limits.pages_touched_max);
        if let Some((pages, kv)) = &mut self.twin {
            kv.pulse(pages, &context);
        }
        let next = self.kv.deadline_ns(&self.pages);
        assert!(
            next.is_none_or(|next| next > self.commit_ns),
            "nearer to the deadline"
        );
        true
    }

    /// Executes a request as the engine does. None: it is invalid.
    fn execute(&mut self, operation: Operation, body: &[u8]) -> Option<Vec<u8>> {
        let number = operation as u8;
        let plan = Kv::validate(&self.limits, number, body).ok()?;
        assert!(plan.pages_touched <= self.limits.pages_touched_max);
        let free = self.pages.free_count();
        let mut bytes = vec![0; plan.reply_size];
        let mut reply = ReplyBuffer::new(&mut bytes);
        if plan.read_only {
            self.kv.read(
                &self.pages,
                &context(self.commit_ns),
                number,
                body,
                &mut reply,
            );
        } else {
            assert!(plan.reply_size <= self.limits.reply_size_max);
            let context = self.tick();
            self.kv
                .commit(&mut self.pages, &context, number, body, &mut reply);
            if let Some((pages, kv)) = &mut self.twin {
                let mut bytes = vec![0; plan.reply_size];
                kv.commit(
                    pages,
                    &context,
                    number,
                    body,
                    &mut ReplyBuffer::new(&mut bytes),
                );
            }
        }
        let size = reply.size();
        bytes.truncate(size);
        let touched = drain(&mut self.pages);
        assert!(
            touched <= plan.pages_touched,
            "{touched} > {}",
            plan.pages_touched
        );
        assert!(free.saturating_sub(self.pages.free_count()) <= plan.pages_new);
        assert!(!plan.read_only || touched == 0);
        self.predict(operation, body, &bytes);
        Some(bytes)
    }

    /// The model says the same. It knows nothing of pages: what is refused is told to it.
    fn predict(&mut self, operation: Operation, body: &[u8], reply: &[u8]) {
        let (number, time) = (operation as u8, self.commit_ns);
        if operation == Operation::Random {
            return;
        }
        let refused = match operation {
            Operation::Scan | Operation::Count => Vec::new(),
            _ => BatchReply::decode(reply).expect("a reply").refused(),
        };
        self.refused += refused.len() as u32;
        let model = &mut self.model;
        let predicted = model.apply_but(&self.limits, time, number, body, &refused);
        assert_eq!(predicted.as_deref(), Some(reply));
        assert_eq!(self.kv.revision(), self.model.revision);
        let now = milliseconds(self.commit_ns);
        let count = self.model.map.len() as u64;
        if self.kv.map.len() - count <= 1024 {
            assert_eq!(self.kv.count_at(&self.pages, now), count);
        }
    }

    fn item(&mut self, item: &Item<'_>) -> Option<(Status, u64, Vec<u8>)> {
        let mut body = Vec::new();
        item.encode(&mut body);
        assert_eq!(body.len(), item.size());
        let reply = self.execute(item.operation(), &body)?;
        let reply = ItemReply::decode(&reply).expect("a reply to an item");
        Some((reply.status, reply.version, reply.value.to_vec()))
    }

    fn status(&mut self, item: &Item<'_>) -> Status {
        self.item(item).expect("a valid item").0
    }

    fn number(&mut self, item: &Item<'_>) -> i64 {
        let mut body = Vec::new();
        item.encode(&mut body);
        let reply = self.execute(item.operation(), &body).expect("a valid item");
        let reply = ItemReply::decode(&reply).expect("a reply to an item");
        assert!(matches!(reply.status, Status::DoneNumber | Status::Number));
        reply.number
    }

    fn value(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let size_max = u32::MAX;
        match self
            .item(&Item::Get { key, size_max })
            .expect("a valid item")
        {
            (Status::Value, _, value) => Some(value),
            (Status::NotFound, ..) => None,
            other => panic!("{other:?}"),
        }
    }

    /// When a key expires; zero: never.
    fn expiry(&mut self, key: &[u8]) -> u64 {
        let mut body = Vec::new();
        Item::Stat { key }.encode(&mut body);
        let reply = self.execute(Operation::Stat, &body).expect("a valid item");
        let reply = ItemReply::decode(&reply).expect("a reply to an item");
        assert_eq!(reply.status, Status::Stat);
        reply.expiry_ms
    }

    fn batch(&mut self, items: &[Item<'_>]) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        for item in items {
            item.encode(&mut body);
        }
        let reply = self.execute(Operation::Batch, &body)?;
        assert_eq!(
            BatchReply::decode(&reply)
                .expect("a reply to a batch")
                .len(),
            items.len()
        );
        Some(reply)
    }

    fn scan(&mut self, scan: &Scan<'_>) -> Vec<u8> {
        let mut body = Vec::new();
        scan.encode(&mut body);
        assert_eq!(Scan::decode(&body), Some(*scan));
        self.execute(Operation::Scan, &body)
            .expect("a scan is never refused")
    }

    fn random(&mut self, seed: u64) -> Option<Vec<u8>> {
        let reply = self.execute(Operation::Random, &seed.to_le_bytes());
        let reply = reply.expect("a valid request");
        let reply = ScanReply::decode(&reply).expect("a reply to a random");
        let found = reply.entries().next().map(|entry| entry.key.to_vec());
        assert_eq!(
            (reply.more, reply.count),
            (false, u32::from(found.is_some()))
        );
        found
    }

    /// The index of expiries is that of the records, that of scores that of the members; the twin is the same to the byte; and
    /// all pages come back.
    fn finish(mut self) {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let records = self.kv.map.range(&self.pages, all.0, all.1, false);
        let mut expiries: Vec<_> = records
            .map(|(key, stored)| (Record::new(stored).meta.expiry, key.to_vec()))
            .filter(|&(expiry, _)| expiry != 0)
            .collect();
        expiries.sort();
        let first = expiries.first().map_or(0, |&(expiry, _)| expiry);
        assert_eq!(self.kv.expiry_first, first);
        let indexed = self.kv.expiries.range(&self.pages, all.0, all.1, false);
        let expected = expiries
            .into_iter()
            .map(|(expiry, key)| [&expiry.to_be_bytes()[..], &key].concat());
        assert!(indexed.map(|(key, _)| key.to_vec()).eq(expected));
        collections::sorted::check(&self.kv, &self.pages);
        if let Some((pages, kv)) = self.twin.take() {
            assert_eq!(self.kv, kv);
            for page in (0..pages.count()).map(PageId) {
                assert_eq!(pages.is_used(page), self.pages.is_used(page));
                assert!(!pages.is_used(page) || pages.read(page) == self.pages.read(page));
            }
        }
        self.status(&Item::Clear);
        for _ in 0..2 + self.limits.page_count / PULSE_PAGES {
            self.wait_ms(10);
            self.pulse_if_due();
        }
        assert_eq!(self.kv.deadline_ns(&self.pages), None);
        assert_eq!(self.pages.free_count(), self.free_at_start);
    }
}

/// Pages that were changed and are in use; forgets them.
fn drain(pages: &mut Pages) -> u32 {
    pages.freeze();
    let mut touched = 0;
    let mut from = PageId(0);
    while let Some(page) = pages.frozen_next(from) {
        touched += u32::from(pages.frozen_read(page).is_some());
        pages.frozen_done(page);
        from = page;
    }
    touched
}

fn bounds() -> impl Strategy<Value = Bound<Vec<u8>>> {
    prop_oneof![
        Just(Bound::Unbounded),
        keys().prop_map(Bound::Included),
        keys().prop_map(Bound::Excluded),
        Just(Bound::Included(vec![])),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Item(Owned),
    Batch(Vec<Owned>),
    Scan {
        from: Bound<Vec<u8>>,
        to: Bound<Vec<u8>>,
        flags: (bool, bool),
        count: u32,
        size: u32,
    },
    Count,
    Random(u64),
    /// Time passes; the pulses that are due come before the next op, or do not.
    Wait(u64, bool),
}

fn steps() -> impl Strategy<Value = Step> {
    let sizes = prop_oneof![Just(0u32), wire::SCAN_SIZE_MIN as u32..5000];
    prop_oneof![
        6 => owned::items().prop_map(Step::Item),
        4 => proptest::collection::vec(owned::items(), 1..12).prop_map(Step::Batch),
        2 => (bounds(), bounds(), any::<(bool, bool)>(), 1u32..40, sizes)
            .prop_map(|(from, to, flags, count, size)| Step::Scan { from, to, flags, count, size }),
        1 => Just(Step::Count),
        1 => any::<u64>().prop_map(Step::Random),
        2 => (0u64..40, any::<bool>()).prop_map(|(time, pulse)| Step::Wait(time, pulse)),
    ]
}

impl Checked {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Item(item) => item.with(|item| {
                self.item(item);
            }),
            Step::Batch(items) => owned::with_all(items, |items| {
                self.batch(items);
            }),
            Step::Scan {
                from,
                to,
                flags,
                count,
                size,
            } => {
                let reply = self.scan(&Scan {
                    from: from.as_ref().map(|key| &key[..]),
                    to: to.as_ref().map(|key| &key[..]),
                    reverse: flags.0,
                    keys_only: flags.1,
                    count_max: *count,
                    size_max: *size,
                });
                assert!(ScanReply::decode(&reply).is_some());
            }
            Step::Count => {
                let reply = self.execute(Operation::Count, &[]).expect("a read");
                let reply = CountReply::decode(&reply).expect("a count");
                assert_eq!(reply.count, self.model.map.len() as u64);
            }
            Step::Random(seed) => {
                // The model forgets what is expired when it is asked something.
                self.step(&Step::Count);
                match self.random(*seed) {
                    Some(key) => assert!(self.model.map.contains_key(&key)),
                    None => assert!(self.model.map.is_empty()),
                }
            }
            Step::Wait(time, pulse) => {
                self.wait_ms(*time);
                while *pulse && self.pulse_if_due() {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn store_agrees_with_its_model_and_its_twin(steps in proptest::collection::vec(steps(), 1..120)) {
        let mut store = Checked::new(&Geometry::SMALL).with_twin();
        for step in &steps {
            store.step(step);
        }
        store.finish();
    }

    #[test]
    fn requests_decode_to_what_was_encoded(items in proptest::collection::vec(owned::items(), 1..10)) {
        owned::with_all(&items, |items| {
            let mut body = Vec::new();
            for item in items {
                item.encode(&mut body);
            }
            let decoded = Items::decode(Operation::Batch, &body).expect("valid items");
            assert!(decoded.eq(items.iter().copied()));
            body.push(0);
            assert!(Items::decode(Operation::Batch, &body).is_none(), "no byte may be left over");
            for cut in 2..body.len().min(40) {
                let cut = &body[..body.len() - cut];
                let decoded = Items::decode(Operation::Batch, cut);
                let whole = decoded.is_none_or(|decoded| decoded.eq(items[..items.len() - 1].iter().copied()));
                assert!(whole || items.len() > 1, "nor may one be missing");
            }
        });
    }

    /// What is in the log was written by a correct primary, perhaps of another release; what a client sends, by anyone.
    #[test]
    fn any_bytes_are_answered(
        operation: u8,
        small in 0u8..22,
        mut body in proptest::collection::vec(prop_oneof![3 => Just(0u8), 1 => 0u8..20, 1 => any::<u8>()], 0..300),
        valid in proptest::collection::vec(owned::items(), 0..4),
        flips in proptest::collection::vec(any::<proptest::sample::Index>(), 0..3),
        room in 0usize..400,
    ) {
        if !valid.is_empty() {
            body.clear();
            owned::with_all(&valid, |items| {
                for item in items {
                    item.encode(&mut body);
                }
            });
            for flip in flips {
                let at = flip.index(body.len().min(100));
                body[at] ^= 1 << (at % 8);
            }
        }
        for operation in [operation, small, Operation::Batch as u8] {
            let mut store = Checked::new(&Geometry::SMALL);
            let _ = Kv::validate(&store.limits, operation, &body);
            let mut bytes = vec![0; room];
            let context = context(store.clock_ns);
            store.kv.commit(&mut store.pages, &context, operation, &body, &mut ReplyBuffer::new(&mut bytes));
            store.kv.read(&store.pages, &context, operation, &body, &mut ReplyBuffer::new(&mut bytes));
        }
        let _ = (ItemReply::decode(&body), CountReply::decode(&body));
        if let Some(reply) = BatchReply::decode(&body) {
            prop_assert_eq!(reply.results().count(), reply.len());
        }
        if let Some(reply) = ScanReply::decode(&body) {
            prop_assert_eq!(reply.entries().count(), reply.count as usize);
        }
    }

    /// Replies that are nearly right, too.
    #[test]
    fn any_reply_is_read_or_refused(
        count in 0u32..4,
        data in proptest::collection::vec(prop_oneof![2 => 1u8..20, 1 => Just(0u8), 1 => any::<u8>()], 0..200),
    ) {
        let mut bytes = ReplyHeader::new(Status::Done, count, u64::from(data.len() as u32)).as_bytes().to_vec();
        bytes.extend(&data);
        if let Some(reply) = BatchReply::decode(&bytes) {
            let nested: usize = reply.results().map(|it| it.results.count()).sum();
            prop_assert!(nested <= data.len());
        }
    }
}
