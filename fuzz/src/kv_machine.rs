//! The key-value machine beside its model: whatever valid requests say, both answer the same bytes, no plan is exceeded, and no
//! page is lost. This is what every replica does with what a client sent.
//!
//! An input is requests, one behind the other: operation (1 byte), milliseconds since the one before (1 byte), size (2 bytes,
//! little-endian), body. Pulses are committed when they are due.

use storage::pages::Pages;
use viewstone::state_machine::kv::Kv;
use viewstone::state_machine::kv::model::{Model, PICK_MAX};
use viewstone::state_machine::kv::wire::{BatchReply, Operation};
use viewstone::state_machine::{Context, Limits, ReplyBuffer, StateMachine};

/// Small, so that an input takes little time, and space runs out at times.
const LIMITS: Limits = Limits {
    request_size_max: 8192,
    reply_size_max: 3840,
    read_reply_size_max: 8192,
    page_count: 192,
    pages_touched_max: 192,
};

const MILLISECOND: u64 = 1_000_000;

struct Store {
    pages: Pages,
    kv: Kv,
    model: Model,
    clock_ns: u64,
}

impl Store {
    fn context(&mut self) -> Context {
        self.clock_ns += 1;
        Context {
            op: 1,
            timestamp: self.clock_ns,
            client: 1,
        }
    }

    fn pulse(&mut self) {
        // A pulse takes away what is due by bits.
        for _ in 0..8 {
            let due = self.kv.deadline_ns(&self.pages);
            if due.is_none_or(|due| due > self.clock_ns) {
                break;
            }
            let context = self.context();
            self.kv.pulse(&mut self.pages, &context);
        }
    }

    fn execute(&mut self, operation: u8, body: &[u8]) {
        let Ok(plan) = Kv::validate(&LIMITS, operation, body) else {
            return;
        };
        let context = self.context();
        let free = self.pages.free_count();
        let mut bytes = vec![0; plan.reply_size];
        let mut reply = ReplyBuffer::new(&mut bytes);
        if plan.read_only {
            self.kv
                .read(&self.pages, &context, operation, body, &mut reply);
        } else {
            self.kv
                .commit(&mut self.pages, &context, operation, body, &mut reply);
        }
        let size = reply.size();
        bytes.truncate(size);
        assert!(free.saturating_sub(self.pages.free_count()) <= plan.pages_new);
        let refused = match Operation::from_byte(operation).expect("a valid operation") {
            Operation::Random => return,
            Operation::Scan | Operation::Count => Vec::new(),
            _ => BatchReply::decode(&bytes).expect("a reply").refused(),
        };
        let time = context.timestamp;
        let model = &mut self.model;
        let predicted = model.apply_but(&LIMITS, time, operation, body, &refused);
        assert_eq!(predicted.as_deref(), Some(&bytes[..]));
        assert_eq!(self.kv.revision(), self.model.revision);
    }
}

/// Panics on a finding.
pub fn run(data: &[u8]) {
    let mut pages = Pages::new(LIMITS.page_count, LIMITS.pages_touched_max);
    let kv = Kv::create_within(&mut pages, &LIMITS);
    let free_at_start = pages.free_count();
    let mut store = Store {
        pages,
        kv,
        model: Model::new(),
        clock_ns: 1_000_000 * MILLISECOND,
    };
    let mut rest = data;
    while let Some((&[operation, time, low, high], behind)) = rest.split_first_chunk() {
        let size = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (body, behind) = behind.split_at(size);
        store.clock_ns += u64::from(time) * MILLISECOND;
        store.pulse();
        store.execute(operation, body);
        rest = behind;
        let sizes = store
            .model
            .map
            .values()
            .map(|found| found.collection.as_ref());
        if sizes.flatten().any(|it| it.len() > PICK_MAX) {
            return; // the model does not know what is picked
        }
    }
    // All that was taken comes back.
    let clear = [&[Operation::Clear as u8][..], &[0; 15]].concat();
    store.execute(Operation::Clear as u8, &clear);
    for _ in 0..4 {
        store.clock_ns += 10 * MILLISECOND;
        store.pulse();
    }
    assert_eq!(store.pages.free_count(), free_at_start);
}
