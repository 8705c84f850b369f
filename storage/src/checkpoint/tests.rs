//! Whole checkpoints over a disk in memory, with power cuts.

mod fetch;
mod scrub;

use super::*;
use crate::checksum::{self, PageKey};
use crate::header::Prepare;
use crate::io::IoRequest;
use crate::layout::Geometry;
use crate::pages::PageId;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::rc::Rc;

const KEY: PageKey = PageKey([0x42; 16]);
const FINGERPRINT: u128 = 77;
const CLUSTER: u128 = 5;
/// Ops from one checkpoint to the next, and ops that one may take.
const INTERVAL: u64 = 40;
const LAG: u64 = 32;

/// A generator for tests (`splitmix64`).
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

type Sector = Rc<[u8; PAGE_SIZE]>;

/// A disk whose unsynced sectors a power cut may lose, each on its own.
#[derive(Clone, Default)]
struct Disk {
    durable: BTreeMap<u64, Sector>,
    unsynced: Vec<(u64, Sector)>,
    /// What the superblock says: the checkpoint, and whether it is still being fetched.
    named: Option<(CheckpointRecord, bool)>,
    /// The checkpoint before, if all of it is there.
    previous: Option<CheckpointRecord>,
    /// A read that touches this sector fails, after its bytes have come.
    unreadable: Option<u64>,
}

impl Disk {
    fn write(&mut self, at: u64, bytes: &[u8]) {
        for (index, sector) in bytes.chunks_exact(PAGE_SIZE).enumerate() {
            let sector = Rc::new(sector.try_into().expect("one sector"));
            self.unsynced
                .push((at + (index * PAGE_SIZE) as u64, sector));
        }
    }

    fn sync(&mut self) {
        self.durable.extend(self.unsynced.drain(..));
    }

    /// After a power cut which the chosen unsynced sectors survived.
    fn cut(&self, mut survives: impl FnMut() -> bool) -> Self {
        let mut durable = self.durable.clone();
        durable.extend(self.unsynced.iter().filter(|_| survives()).cloned());
        Self {
            durable,
            unsynced: Vec::new(),
            named: self.named,
            previous: self.previous,
            unreadable: self.unreadable,
        }
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        for (index, sector) in into.chunks_exact_mut(PAGE_SIZE).enumerate() {
            let at = at + (index * PAGE_SIZE) as u64;
            let cached = self.unsynced.iter().rev().find(|(other, _)| *other == at);
            match cached.map(|(_, sector)| sector).or(self.durable.get(&at)) {
                Some(content) => sector.copy_from_slice(&content[..]),
                None => sector.fill(0),
            }
        }
    }

    fn damage(&mut self, at: u64) {
        let sector = self.durable.get_mut(&at).expect("it was written");
        let mut bytes = **sector;
        bytes[1234] ^= 4;
        *sector = Rc::new(bytes);
    }
}

type Snapshot = BTreeMap<u32, Vec<u8>>;

fn snapshot(pages: &Pages) -> Snapshot {
    (0..pages.count())
        .filter(|&page| pages.is_used(PageId(page)))
        .map(|page| (page, pages.read(PageId(page)).to_vec()))
        .collect()
}

/// A state of `page_count` pages.
fn layout(page_count: u64) -> Layout {
    Layout::new(Geometry {
        state_size: page_count * PAGE_SIZE as u64,
        message_size_max: 8 << 10,
        slots: 16,
        pipeline_max: 1,
        sessions_max: 1,
        reply_size_max: 64,
        ..Geometry::DEFAULT
    })
}

/// Executes ops, and hosts their checkpoints.
struct Host<R: Rules = Strict> {
    layout: Layout,
    pages: Pages,
    checkpoint: Checkpoint<R>,
    io: IoQueue,
    pending: Vec<IoRequest>,
    disk: Disk,
    /// The disk at each write and sync, as a power cut may find it.
    cuts: Option<Vec<Disk>>,
    /// Draws the order of completions and pumps: nothing of the result may depend on it.
    random: Random,
    op: u64,
    live: Vec<PageId>,
    elapsed_ns: u64,
    start_delay_ops: u64,
    /// What the last freeze froze.
    frozen: Snapshot,
    spares_waits: u64,
}

impl<R: Rules> Host<R> {
    fn create(layout: Layout, spares: u32, seed: u64) -> Self {
        let genesis = CheckpointRecord::genesis(CLUSTER, FINGERPRINT);
        let disk = Disk::default();
        Self::open(layout, spares, seed, disk, &genesis).expect("nothing is read")
    }

    fn open(
        layout: Layout,
        spares: u32,
        seed: u64,
        disk: Disk,
        record: &CheckpointRecord,
    ) -> Result<Self, Damages> {
        match Self::open_any(layout, spares, seed, disk, record, false) {
            (host, None) => Ok(host),
            (_, Some(damages)) => Err(damages),
        }
    }

    /// Opens what is there; the damages, if that is not all.
    fn open_any(
        layout: Layout,
        spares: u32,
        seed: u64,
        disk: Disk,
        record: &CheckpointRecord,
        syncing: bool,
    ) -> (Self, Option<Damages>) {
        let mut host = Self {
            layout,
            pages: Pages::new(layout.geometry.page_count(), spares),
            checkpoint: Checkpoint::with_rules(layout),
            io: IoQueue::new(Checkpoint::io_max(&layout)),
            pending: Vec::new(),
            disk,
            cuts: None,
            random: Random(seed),
            op: record.prepare.op,
            live: Vec::new(),
            elapsed_ns: 0,
            start_delay_ops: 0,
            frozen: Snapshot::new(),
            spares_waits: 0,
        };
        let mut event = host.checkpoint.open_start(
            record,
            host.disk.previous.as_ref(),
            syncing,
            &mut host.pages,
            &mut host.io,
        );
        loop {
            match event {
                CheckpointEvent::None => event = host.complete_one(),
                CheckpointEvent::Opened => break,
                CheckpointEvent::Incomplete(damages) => return (host, Some(damages)),
                event => unreachable!("nothing else is going on: {event:?}"),
            }
        }
        host.find_live();
        (host, None)
    }

    fn find_live(&mut self) {
        self.live = (2..self.pages.count())
            .map(PageId)
            .filter(|&page| self.pages.is_used(page))
            .collect();
    }

    /// Submits what is queued; writes reach the disk's cache in any order.
    fn submit(&mut self) {
        while let Some(request) = self.io.pop() {
            match &request {
                IoRequest::Write {
                    at, size, buffer, ..
                } => self.disk.write(*at, &buffer.bytes()[..*size]),
                // Others may read, and the scrubber write, while the checkpoint's own writes are awaited.
                IoRequest::Sync { .. } => assert!(
                    !self
                        .pending
                        .iter()
                        .any(|it| matches!(it, IoRequest::Write { durable: false, .. }))
                ),
                IoRequest::Read { .. } => {}
            }
            if let Some(cuts) = &mut self.cuts {
                cuts.push(self.disk.clone());
            }
            self.pending.push(request);
        }
        assert!(self.pending.len() <= Checkpoint::io_max(&self.layout));
    }

    fn complete_one(&mut self) -> CheckpointEvent {
        self.submit();
        assert!(!self.pending.is_empty(), "nothing would ever happen again");
        let index = self.random.below(self.pending.len() as u64) as usize;
        let id = self.pending[index].id();
        let mut result = Ok(());
        let buffer = match self.pending.swap_remove(index) {
            IoRequest::Write { buffer, .. } => Some(buffer),
            IoRequest::Read {
                at,
                size,
                mut buffer,
                ..
            } => {
                self.disk.read(at, &mut buffer.bytes_mut()[..size]);
                let range = at..at + size as u64;
                if self.disk.unreadable.is_some_and(|at| range.contains(&at)) {
                    let action = "read";
                    result = Err(IoError {
                        action,
                        at,
                        size,
                        errno: 5,
                    });
                }
                Some(buffer)
            }
            IoRequest::Sync { .. } => {
                self.disk.sync();
                None
            }
        };
        let done = IoDone { id, buffer, result };
        let event = self
            .checkpoint
            .on_io_done(done, &mut self.pages, &mut self.io)
            .expect("the disk works");
        self.submit();
        event
    }

    fn pump(&mut self, spares_wanted: u32) -> bool {
        let before = self.checkpoint.statistics();
        let more = self.checkpoint.pump(
            &mut self.pages,
            self.op,
            self.elapsed_ns,
            spares_wanted,
            &mut self.io,
        );
        let after = self.checkpoint.statistics();
        assert!(after.pages_written - before.pages_written <= u64::from(PUMP_PAGES_MAX));
        assert!(after.bytes_written() - before.bytes_written() <= 2 * 32 * PAGE_SIZE as u64);
        self.submit();
        more
    }

    /// Executes the next op, which depends on its number alone. Touches at most eight pages and the bitmap.
    fn commit(&mut self) -> CheckpointEvent {
        let mut event = CheckpointEvent::None;
        while self.pages.spares_free() < 10 {
            self.spares_waits += 1;
            if !self.pump(10) && self.pages.spares_free() < 10 {
                event = self.complete_one();
            }
        }
        self.op += 1;
        let mut random = Random(self.op);
        for _ in 0..8 {
            match random.below(8) {
                0..3 if self.pages.free_count() > 0 => {
                    let page = self.pages.allocate();
                    self.pages.write(page)[..8].copy_from_slice(&self.op.to_le_bytes());
                    let place = self.live.partition_point(|&other| other < page);
                    self.live.insert(place, page);
                }
                3..5 if self.live.len() > 20 => {
                    let index = random.below(self.live.len() as u64) as usize;
                    self.pages.free(self.live.remove(index));
                }
                5.. if !self.live.is_empty() => {
                    let index = random.below(self.live.len() as u64) as usize;
                    let at = random.below(512) as usize * 8;
                    self.pages.write(self.live[index])[at..at + 8]
                        .copy_from_slice(&random.next().to_le_bytes());
                }
                _ => self.pages.write(PageId::ROOT)[0] = self.op as u8,
            }
        }
        event
    }

    fn begin(&mut self) {
        self.pages.freeze();
        self.frozen = snapshot(&self.pages);
        self.elapsed_ns = 0;
        let mut prepare = Prepare::root(CLUSTER);
        prepare.op = self.op;
        prepare.header_mut().seal(&[]);
        let start = CheckpointStart {
            prepare,
            key: KEY,
            fingerprint: FINGERPRINT,
            start_delay_ops: self.start_delay_ops,
            deadline_op: self.op + LAG,
        };
        self.checkpoint.begin(&self.pages, &start);
    }

    /// Writes a checkpoint while `ops` ops are executed; returns its record, not yet installed.
    fn write(&mut self, ops: u64) -> CheckpointRecord {
        self.begin();
        let last = self.op + ops;
        loop {
            let mut event = CheckpointEvent::None;
            match self.random.below(4) {
                0 if self.op < last => event = self.commit(),
                1 if !self.pending.is_empty() => event = self.complete_one(),
                2 => self.elapsed_ns += self.random.below(60_000_000),
                _ => {}
            }
            if let CheckpointEvent::Written(record) = event {
                while self.op < last {
                    self.commit();
                }
                assert!(self.pages.frozen_count() == 0 && self.pending.is_empty());
                return record;
            }
            self.pump(0);
        }
    }

    fn checkpoint(&mut self, ops: u64) -> CheckpointRecord {
        let record = self.write(ops);
        self.checkpoint.installed(&record);
        record
    }

    /// Opens a checkpoint from a disk and compares.
    fn check(
        &self,
        disk: &Disk,
        record: &CheckpointRecord,
        state: &Snapshot,
    ) -> Result<(), Damages> {
        let opened: Host = Host::open(self.layout, 16, 1, disk.clone(), record)?;
        assert!(
            snapshot(&opened.pages) == *state,
            "the contents are those frozen"
        );
        Ok(())
    }
}

#[test]
fn the_state_before_the_first_op_opens_at_once() {
    let host: Host = Host::create(layout(258), 16, 1);
    assert!(host.pending.is_empty() && host.io.is_empty());
    assert!(!host.checkpoint.is_writing());
    assert_eq!(host.checkpoint.wake_ns(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_was_frozen_is_what_opens(seed: u64, page_count in 258_u64..1500, spares in 12_u32..100) {
        let layout = layout(page_count);
        let mut host: Host = Host::create(layout, spares, seed);
        let mut choice = Random(!seed);
        for _ in 0..6 {
            while !host.op.is_multiple_of(INTERVAL) || host.op == host.checkpoint.record().prepare.op {
                host.commit();
            }
            host.start_delay_ops = choice.below(LAG / 2);
            let record = host.checkpoint(choice.below(INTERVAL));
            host.check(&host.disk, &record, &host.frozen).expect("undamaged");
            if choice.below(3) == 0 {
                let (disk, frozen) = (host.disk.clone(), host.frozen.clone());
                host = Host::open(layout, spares, seed, disk, &record).expect("undamaged");
                prop_assert!(snapshot(&host.pages) == frozen);
            }
        }
    }
}

#[test]
fn ids_depend_on_contents_and_history_alone() {
    // Different pacing, spares, completions and block addresses; the same ops.
    let run = |seed, spares, delay| {
        let mut host: Host = Host::create(layout(1300), spares, seed);
        let mut ids = Vec::new();
        for index in 0..5 {
            while host.op < (index + 1) * INTERVAL {
                host.commit();
            }
            host.start_delay_ops = delay;
            let record = host.checkpoint(INTERVAL);
            assert_eq!(record.parent, *ids.last().unwrap_or(&record.parent));
            ids.push(record.id);
        }
        (ids, host.checkpoint.map.root(), host.spares_waits)
    };
    let (ids, map, waits) = run(1, 12, 0);
    let (other_ids, other_map, other_waits) = run(2, 400, 15);
    assert_eq!(ids, other_ids);
    assert_ne!(map, other_map); // addresses are each replica's own affair
    assert!(waits > 0 && other_waits == 0, "{waits} {other_waits}");
}

/// Power cuts at every write and sync of three checkpoints: what the superblock names opens. Says what did not.
fn cut_everywhere<R: Rules>(seed: u64) -> Result<usize, Damages> {
    let mut host: Host<R> = Host::create(layout(300), 24, seed);
    let mut survivors = Random(seed);
    let mut tried = 0;
    let mut known: Vec<(CheckpointRecord, Snapshot)> = Vec::new();
    for _ in 0..4 {
        for _ in 0..30 {
            host.commit();
        }
        host.cuts = Some(Vec::new());
        let new = host.write(30);
        let mut cuts = host.cuts.take().expect("set above");
        assert!(cuts.len() > 4);
        cuts.push(host.disk.clone());
        for cut in &cuts {
            for chance in [0, 1, 50, 99, 100] {
                let disk = cut.cut(|| survivors.below(100) < chance);
                // The durable one, and the one before it, which peers may still fetch.
                for (record, state) in known.iter().rev().take(2) {
                    host.check(&disk, record, state)?;
                    tried += 1;
                }
            }
        }
        // Written: whatever the cut takes, the new one opens when the superblock names it.
        for chance in [0, 50, 100] {
            let disk = host.disk.cut(|| survivors.below(100) < chance);
            host.check(&disk, &new, &host.frozen)?;
            tried += 1;
        }
        host.disk.sync(); // the superblock's write
        host.checkpoint.installed(&new);
        known.push((new, host.frozen.clone()));
    }
    Ok(tried)
}

#[test]
fn a_power_cut_at_any_write_opens_the_old_or_the_new() {
    for seed in 0..3 {
        assert!(cut_everywhere::<Strict>(seed).expect("undamaged") > 100);
    }
}

#[test]
fn leaving_the_sync_out_is_caught() {
    struct NoSync;
    impl Rules for NoSync {
        const SYNC_BEFORE_WRITTEN: bool = false;
    }
    assert!(cut_everywhere::<NoSync>(0).is_err());
}

/// A host with a state of some hundred pages, checkpointed.
fn checkpointed() -> (Host, CheckpointRecord) {
    let mut host: Host = Host::create(layout(1300), 64, 3);
    for _ in 0..200 {
        host.commit();
    }
    let record = host.checkpoint(0);
    (host, record)
}

#[test]
fn one_bad_copy_of_a_map_node_is_survived_and_made_good() {
    let (host, record) = checkpointed();
    let leaf = host.checkpoint.map.reference(0);
    for reference in [record.map, leaf] {
        let mut disk = host.disk.clone();
        disk.damage(host.layout.block_at(reference.first));
        host.check(&disk, &record, &host.frozen)
            .expect("one is left");
        let walk = walk_disk(&host.layout, &record, &disk);
        assert_eq!((walk.map_copies.count, walk.damages.count), (1, 0));
        assert_eq!(walk.map_copies.list[0].block, reference.first);

        let mut opened: Host = Host::open(host.layout, 64, 3, disk, &record).expect("one is left");
        assert_eq!(opened.checkpoint.statistics().map_copies_bad, 1);
        opened.op += 1; // and nothing else has changed
        let next = opened.checkpoint(0);
        let walk = walk_disk(&host.layout, &next, &opened.disk);
        assert_eq!((walk.map_copies.count, walk.damages.count), (0, 0));

        let mut disk = host.disk.clone();
        disk.damage(host.layout.block_at(reference.second));
        host.check(&disk, &record, &host.frozen)
            .expect("one is left");
        disk.damage(host.layout.block_at(reference.first));
        let damages = host.check(&disk, &record, &host.frozen).expect_err("none");
        assert!(matches!(damages.list[0].item, DamagedItem::MapNode(_)));
        assert_eq!(damages.count, 1);
    }
}

fn walk_disk(layout: &Layout, record: &CheckpointRecord, disk: &Disk) -> Walk {
    walk(layout, record, |block| {
        let mut bytes = [0; PAGE_SIZE];
        disk.read(layout.block_at(block), &mut bytes);
        Some(bytes)
    })
}

#[test]
fn everything_of_a_checkpoint_is_located() {
    let (host, record) = checkpointed();
    let read = |block| {
        let mut bytes = [0; PAGE_SIZE];
        host.disk.read(host.layout.block_at(block), &mut bytes);
        Some(bytes)
    };
    let located = locate(&host.layout, &record, read);
    let count = |is: fn(&DamagedItem) -> bool| {
        let items = located.iter().filter(|place| is(&place.1));
        items.count() as u32
    };
    let walk = walk_disk(&host.layout, &record, &host.disk);
    assert_eq!(count(|it| matches!(it, DamagedItem::Page(_))), walk.pages);
    assert_eq!(
        count(|it| matches!(it, DamagedItem::TagNode(_))),
        walk.tag_nodes
    );
    assert_eq!(
        count(|it| matches!(it, DamagedItem::MapCopy(_))),
        2 * walk.map_nodes
    );
    let page = (host.checkpoint.map.address(7), DamagedItem::Page(PageId(7)));
    assert!(located.contains(&page));
    // Nothing is missed because one copy of a node is bad.
    let bad = |block| {
        if block == record.map.first {
            None
        } else {
            read(block)
        }
    };
    assert_eq!(locate(&host.layout, &record, bad), located);
}

#[test]
fn damaged_pages_and_nodes_are_named() {
    let (host, record) = checkpointed();
    let walk = walk_disk(&host.layout, &record, &host.disk);
    assert_eq!(walk.damages.count, 0);
    assert_eq!(u64::from(walk.pages), record.pages_used);
    assert_eq!(walk.map_nodes, host.checkpoint.map.shape().node_count());
    let blocks = walk.pages + walk.tag_nodes + 2 * walk.map_nodes;
    assert_eq!(host.checkpoint.statistics().blocks_durable, blocks);
    assert_eq!(walk.blocks_used, blocks);

    let mut disk = host.disk.clone();
    for page in [0, 1, 7] {
        disk.damage(host.layout.block_at(host.checkpoint.map.address(page)));
    }
    let damages = host.check(&disk, &record, &host.frozen).expect_err("three");
    assert_eq!(damages.count, 3);
    for page in [0, 1, 7] {
        let block = host.checkpoint.map.address(page);
        let damage = Damage {
            item: DamagedItem::Page(PageId(page)),
            block,
            offset: host.layout.block_at(block),
        };
        assert!(damages.list.contains(&damage));
        let text = format!("page {page} (block {block}, offset {}", damage.offset);
        assert!(damages.to_string().contains(&text), "{damages}");
    }
    assert_eq!(walk_disk(&host.layout, &record, &disk).damages.count, 3);

    // With a page under it, a node of the tag tree is lost: what it had is not known.
    let node = host
        .checkpoint
        .map
        .address(host.checkpoint.logical_of_tags(0));
    disk.damage(host.layout.block_at(node));
    let damages = host.check(&disk, &record, &host.frozen).expect_err("one");
    assert_eq!(
        (damages.count, damages.list[0].item),
        (1, DamagedItem::TagNode(0))
    );
    assert_eq!(walk_disk(&host.layout, &record, &disk).damages, damages);
}

#[test]
fn a_bad_node_of_the_tag_tree_is_made_out_from_its_pages_and_made_good() {
    let (host, record) = checkpointed();
    let root = host.checkpoint.tags.shape().node_count() - 1;
    for node in [0, root] {
        let logical = host.checkpoint.logical_of_tags(node);
        let block = host.checkpoint.map.address(logical);
        let mut disk = host.disk.clone();
        disk.damage(host.layout.block_at(block));
        assert_eq!(walk_disk(&host.layout, &record, &disk).damages.count, 1);
        let mut opened: Host =
            Host::open(host.layout, 64, 3, disk, &record).expect("what it had is known");
        assert_eq!(opened.checkpoint.statistics().tag_nodes_bad, 1);
        assert!(snapshot(&opened.pages) == host.frozen);
        opened.op += 1; // and nothing else has changed
        let next = opened.checkpoint(0);
        assert_eq!(next.root, record.root);
        let walk = walk_disk(&host.layout, &next, &opened.disk);
        assert_eq!(walk.damages.count, 0);
    }
}

#[test]
fn a_failed_read_is_damage_of_what_was_asked_for() {
    let (host, record) = checkpointed();
    let mut disk = host.disk.clone();
    disk.unreadable = Some(host.layout.block_at(host.checkpoint.map.address(7)));
    let damages = host.check(&disk, &record, &host.frozen);
    let damages = damages.expect_err("a page is missing");
    let lost = |damage: &Damage| matches!(damage.item, DamagedItem::Page(_));
    assert!(damages.count >= 1 && damages.list.iter().all(lost));
    let named = |damage: &Damage| damage.item == DamagedItem::Page(PageId(7));
    assert!(damages.list.iter().any(named));
    // One copy of the map's root: the other serves.
    disk.unreadable = Some(host.layout.block_at(record.map.first));
    assert_eq!(host.check(&disk, &record, &host.frozen), Ok(()));
}

#[test]
fn a_map_that_names_impossible_blocks_is_damage_and_no_panic() {
    let (host, record) = checkpointed();
    let tag_node = host.checkpoint.logical_of_tags(0);
    let other = host.checkpoint.map.address(3);
    for (logical, bad) in [(2, u32::MAX), (2, 1), (2, other), (tag_node, u32::MAX)] {
        // A leaf with a bad address, and a root over it with the right sums.
        let mut leaf = host.checkpoint.map.node_bytes(logical / 1024).to_vec();
        leaf[logical as usize % 1024 * 4..][..4].copy_from_slice(&bad.to_le_bytes());
        let mut reference = host.checkpoint.map.reference(logical / 1024);
        let mut root = host.checkpoint.map.node_bytes(2).to_vec();
        reference.tag = checksum::identity(&leaf);
        root[logical as usize / 1024 * 32..][..16].copy_from_slice(&reference.tag.to_le_bytes());
        let mut forged = record;
        forged.map.tag = checksum::identity(&root);
        let mut disk = host.disk.clone();
        disk.write(host.layout.block_at(reference.first), &leaf);
        disk.write(host.layout.block_at(record.map.first), &root);
        disk.sync();
        assert!(host.check(&disk, &forged, &host.frozen).is_err());
        assert!(walk_disk(&host.layout, &forged, &disk).damages.count > 0);
    }
    let mut forged = record;
    forged.map.second = u32::MAX;
    assert!(host.check(&host.disk, &forged, &host.frozen).is_err());
    forged = record;
    forged.pages_used += 1;
    let damages = host
        .check(&host.disk, &forged, &host.frozen)
        .expect_err("one too many");
    assert_eq!(damages.list[0].item, DamagedItem::Allocator);
}

#[test]
fn only_what_changed_is_written() {
    let (mut host, _) = checkpointed();
    let before = host.checkpoint.statistics();
    host.op += 1;
    host.checkpoint(0);
    let none = host.checkpoint.statistics();
    assert_eq!(none.bytes_written(), before.bytes_written());
    host.op += 1;
    let page = host.live[50];
    host.pages.write(page)[9] ^= 1;
    host.checkpoint(0);
    let one = host.checkpoint.statistics();
    assert_eq!(one.pages_written, none.pages_written + 1);
    // Two levels of tags; the map's leaf of the page and that of the tags, and its root, twice.
    assert_eq!(one.nodes_written, none.nodes_written + 2 + 2 * 3);
}

#[test]
fn a_commit_that_waits_for_spares_lifts_the_pacing() {
    let mut host: Host = Host::create(layout(1300), 12, 3);
    for _ in 0..100 {
        host.commit();
    }
    host.start_delay_ops = LAG - 1;
    host.begin();
    assert!(!host.pump(0));
    assert_eq!(host.checkpoint.statistics().pages_written, 0);
    let touched: Vec<_> = host.live.iter().copied().rev().take(9).collect();
    for &page in &touched {
        host.pages.write(page)[0] ^= 1;
    }
    assert!(!host.pump(0) && host.pages.spares_free() == 3);
    host.pump(10);
    assert_eq!(host.pages.spares_free(), 12);
    assert!(host.pages.frozen_count() > 0);
}

#[test]
fn an_idle_replica_finishes_when_woken() {
    let mut host: Host = Host::create(layout(1300), 64, 3);
    for _ in 0..150 {
        host.commit();
    }
    host.start_delay_ops = 10;
    host.begin();
    assert!(!host.pump(0));
    let wake = host.checkpoint.wake_ns().expect("it waits for time");
    host.elapsed_ns = wake;
    loop {
        while host.pump(0) {}
        assert!(host.pending.len() <= 2);
        if let CheckpointEvent::Written(record) = host.complete_one() {
            host.checkpoint.installed(&record);
            break;
        }
    }
    host.check(&host.disk, host.checkpoint.record(), &host.frozen)
        .expect("undamaged");
}

#[test]
fn two_hundred_checkpoints_of_a_full_state_rewritten_each_time_never_run_out_of_blocks() {
    let mut host: Host = Host::create(layout(258), 258, 9);
    let mut free = Vec::new();
    let mut known: Vec<(CheckpointRecord, Snapshot)> = Vec::new();
    for round in 0..200_u64 {
        host.op += 1;
        if round % 3 > 0 {
            for _ in 0..10 {
                host.commit();
            }
        }
        while host.pages.free_count() > 0 {
            let page = host.pages.allocate();
            let place = host.live.partition_point(|&other| other < page);
            host.live.insert(place, page);
        }
        for index in 3..host.pages.count() {
            host.pages.write(PageId(index))[8..16].copy_from_slice(&round.to_le_bytes());
        }
        let new = host.write(round % 5);
        if round % 16 > 13 {
            // Blocks are reused all the time, never those of the last two.
            let disk = host.disk.cut(|| true);
            for (record, state) in &known {
                host.check(&disk, record, state).expect("undamaged");
            }
        }
        host.checkpoint.installed(&new);
        if known.len() == 2 {
            known.remove(0);
        }
        known.push((new, host.frozen.clone()));
        free.push(host.checkpoint.statistics().blocks_free);
    }
    let total = host.layout.geometry.block_count();
    assert!(free.iter().skip(2).all(|&blocks| blocks >= total / 3));
    host.check(&host.disk, host.checkpoint.record(), &host.frozen)
        .expect("undamaged");
}
