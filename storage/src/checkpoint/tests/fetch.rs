//! Fetching from others: damage at every level, deltas, targets that move, power cuts at every step.

use super::*;
use crate::header::PageReference;

/// Gets a page or node from a host, which may have to read it.
fn served(source: &mut Host, reference: &PageReference) -> Option<Vec<u8>> {
    let mut into = vec![0; PAGE_SIZE];
    let Host {
        checkpoint,
        pages,
        io,
        ..
    } = source;
    match checkpoint.serve(reference, 77, pages, &mut into, io) {
        Serve::Here => Some(into),
        Serve::NotHere => None,
        Serve::Busy => panic!("nothing else is read"),
        Serve::Reading => loop {
            if let CheckpointEvent::Served { token, page } = source.complete_one() {
                assert_eq!(token, 77);
                let page = page?;
                into.copy_from_slice(source.checkpoint.served(&page));
                source.checkpoint.serve_done(page);
                return Some(into);
            }
        },
    }
}

impl Host {
    /// Makes what the superblock says durable.
    fn name(&mut self, record: &CheckpointRecord, syncing: bool) {
        let before = self.disk.named.filter(|(_, syncing)| !syncing);
        let newer = before.filter(|(before, _)| before.prepare.op < record.prepare.op && !syncing);
        let anew = self.disk.named.is_some_and(|(it, _)| it.id == record.id);
        if !anew {
            self.disk.previous = newer.map(|(before, _)| before);
        }
        self.disk.named = Some((*record, syncing));
        if let Some(cuts) = &mut self.cuts {
            cuts.push(self.disk.clone());
        }
    }

    /// Opens what a superblock names.
    fn reopen(layout: Layout, seed: u64, disk: Disk) -> (Self, Option<Damages>) {
        let (record, syncing) = disk.named.expect("a superblock was written");
        Self::open_any(layout, 64, seed, disk, &record, syncing)
    }

    /// Begins to fetch what `source` has as its newest.
    fn aim_at(&mut self, source: &Host) {
        let target = source.checkpoint.records().next().expect("all is there");
        assert_eq!(target.map.first, 0, "maps are nobody else's affair");
        self.checkpoint.fetch_start(&target, &mut self.pages);
        let target = *self.checkpoint.fetch_target().expect("it was started");
        self.name(&target, true);
    }

    /// Looks here until it has to be asked elsewhere.
    fn look_here(&mut self) {
        loop {
            let more = self.checkpoint.fetch_pump(&self.pages, &mut self.io);
            self.submit();
            if !more && self.pending.is_empty() {
                break;
            }
            if !more {
                self.complete_one();
            }
        }
    }

    fn wanted(&mut self, room: usize) -> Vec<PageReference> {
        let mut wanted = Vec::new();
        self.checkpoint.fetch_wanted(&mut wanted, room);
        wanted
    }

    fn take(&mut self, reference: &PageReference, bytes: &[u8]) -> Taken {
        self.checkpoint
            .fetch_take(reference, bytes, true, &mut self.pages)
    }

    /// One question and its answers, some of which are lost, wrong or repeated. False: there is nothing to ask.
    fn ask(&mut self, source: &mut Host, room: usize) -> bool {
        self.look_here();
        let wanted = self.wanted(room);
        for reference in &wanted {
            let Some(mut bytes) = served(source, reference) else {
                continue;
            };
            match self.random.below(10) {
                0 => {
                    bytes[17] ^= 1;
                    assert_eq!(self.take(reference, &bytes), Taken::Bad);
                }
                1 => {} // lost
                2 => {
                    assert_eq!(self.take(reference, &bytes), Taken::Taken);
                    assert_eq!(self.take(reference, &bytes), Taken::NotWanted);
                }
                _ => assert_eq!(self.take(reference, &bytes), Taken::Taken),
            }
        }
        self.checkpoint.fetch_retry(&wanted);
        !wanted.is_empty()
    }

    fn fetch_all(&mut self, source: &mut Host) {
        while !self.checkpoint.fetch_is_done() {
            let asked = self.ask(source, 40);
            assert!(asked || self.checkpoint.fetch_is_done());
        }
    }

    fn await_writes(&mut self) {
        while !self.checkpoint.can_rewrite() {
            self.complete_one();
        }
    }

    /// Writes what was fetched, all or so far, and names it.
    fn rewrite(&mut self) {
        self.await_writes();
        self.checkpoint.begin_rewrite(&mut self.pages, FINGERPRINT);
        let record = loop {
            while self.pump(0) {}
            if let CheckpointEvent::Written(record) = self.complete_one() {
                break record;
            }
        };
        let syncing = !self.checkpoint.is_complete();
        self.name(&record, syncing);
        self.checkpoint.installed(&record);
    }

    /// Goes on executing from what was fetched.
    fn finish(&mut self) {
        assert!(self.checkpoint.fetch_finish(&mut self.pages));
        self.op = self.checkpoint.record().prepare.op;
        self.find_live();
        self.rewrite();
    }

    /// Fetches all and checks that this is now the source's newest checkpoint, in memory and on the disk.
    fn sync(&mut self, source: &mut Host) {
        self.fetch_all(source);
        self.finish();
        assert!(
            snapshot(&self.pages) == source.frozen,
            "the source's contents"
        );
        let (record, syncing) = self.disk.named.expect("named");
        assert!(!syncing);
        assert_eq!(record.id, source.checkpoint.record().id);
        self.check(&self.disk, &record, &source.frozen)
            .expect("undamaged");
    }
}

/// A host that has executed `ops` ops and has them as its checkpoint.
fn at(ops: u64, seed: u64) -> Host {
    let mut host: Host = Host::create(layout(1300), 64, seed);
    advance(&mut host, ops);
    host
}

/// Executes up to an op, with the checkpoints that are due and one there.
fn advance(host: &mut Host, op: u64) {
    host.start_delay_ops = 0;
    while host.op < op {
        host.commit();
        if host.op.is_multiple_of(INTERVAL) || host.op == op {
            let record = host.checkpoint(0);
            host.name(&record, false);
        }
    }
}

#[test]
fn what_has_not_changed_since_is_not_moved() {
    let (mut source, mut host) = (at(400, 1), at(400, 2));
    advance(&mut source, 440);
    let before = host.frozen.clone();
    // Some ops beyond its own checkpoint are executed here as well: what they changed for good is found in memory.
    for _ in 0..20 {
        host.commit();
    }
    host.aim_at(&source);
    host.look_here();
    let differing = source
        .frozen
        .iter()
        .filter(|&(page, content)| before.get(page) != Some(content))
        .count() as u64;
    while !host.checkpoint.fetch_is_done() {
        for reference in host.wanted(1000) {
            let bytes = served(&mut source, &reference).expect("it is the newest");
            assert_eq!(host.take(&reference, &bytes), Taken::Taken);
        }
        host.look_here();
    }
    let progress = host.checkpoint.fetch_progress();
    assert!(progress.pages_fetched < differing, "{progress:?}");
    assert!(progress.pages_fetched * 3 > differing, "{progress:?}");
    assert_eq!(progress.pages_fetched, progress.pages_differing);
    assert!(progress.nodes_fetched <= 7, "the tree has seven nodes");
    assert!(
        progress.bytes_received() * 10 <= progress.bytes_differing() * 12,
        "{progress:?}"
    );
    host.sync(&mut source);
}

#[test]
fn an_executing_replica_may_be_interrupted_at_any_time() {
    let mut source = at(520, 1);
    let mut other = at(520, 9);
    advance(&mut other, 560);
    let mut interrupted = 0;
    for stop in 0..60 {
        let mut host = at(400, stop);
        for _ in 0..30 {
            host.commit();
        }
        // A checkpoint is under way, at some stage, and is given up.
        host.begin();
        for _ in 0..stop {
            host.elapsed_ns += 10_000_000;
            match host.random.below(3) {
                0 if !host.pending.is_empty() => {
                    if let CheckpointEvent::Written(record) = host.complete_one() {
                        host.name(&record, false);
                        host.checkpoint.installed(&record);
                        break;
                    }
                }
                1 if host.op < 436 && host.pages.spares_free() >= 10 => {
                    host.commit();
                }
                _ => {
                    host.pump(0);
                }
            }
        }
        assert!(host.checkpoint.can_fetch());
        interrupted += u32::from(host.checkpoint.is_writing());
        host.aim_at(&source);
        assert!(!host.checkpoint.is_writing());
        host.sync(&mut source);
        // It goes on as if nothing had been.
        advance(&mut host, 560);
        assert_eq!(host.checkpoint.record().id, other.checkpoint.record().id);
        let record = *host.checkpoint.record();
        host.check(&host.disk, &record, &host.frozen)
            .expect("undamaged");
    }
    assert!((10..60).contains(&interrupted), "{interrupted}");
}

#[test]
fn damage_at_every_level_is_mended_from_another() {
    let mut source = at(400, 1);
    let host = at(400, 2);
    let record = *host.checkpoint.record();
    let sectors: Vec<u64> = host.disk.durable.keys().copied().collect();
    let mut random = Random(5);
    let mut complete = 0;
    for round in 0..60 {
        let mut disk = host.disk.clone();
        let count = [1, 3, 30, sectors.len()][round % 4];
        for _ in 0..count {
            disk.damage(sectors[random.below(sectors.len() as u64) as usize]);
        }
        let map_is_lost = round == 57;
        if map_is_lost {
            for copy in [record.map.first, record.map.second] {
                disk.damage(host.layout.block_at(copy));
            }
        }
        let (mut opened, damages) = Host::reopen(host.layout, round as u64, disk);
        let Some(damages) = damages else {
            complete += 1;
            continue;
        };
        assert!(damages.count > 0 && damages.unfetched == 0, "{damages}");
        assert!(!opened.checkpoint.is_complete());
        opened.sync(&mut source);
        let progress = opened.checkpoint.fetch_progress();
        assert!(progress.pages_fetched + progress.nodes_fetched > 0);
        if count <= 3 && !map_is_lost {
            assert!(progress.pages_fetched <= 3, "{progress:?} {damages}");
        }
    }
    assert!(
        (1..50).contains(&complete),
        "{complete} hit old blocks only"
    );
}

#[test]
fn a_new_file_gets_everything() {
    let mut source = at(400, 1);
    let mut host: Host = Host::create(layout(1300), 64, 3);
    host.aim_at(&source);
    // And after a crash before anything was written: the superblock names a checkpoint without a map.
    let (mut host, damages) = Host::reopen(host.layout, 3, host.disk.clone());
    let damages = damages.expect("nothing is here");
    assert!(damages.to_string().contains("still being fetched"));
    assert_eq!((damages.count, damages.unfetched), (0, 1));
    host.sync(&mut source);
}

/// A sync with a target that moves and partial writes, some given up; the disk at each step, for power cuts.
fn eventful_sync(seed: u64) -> (Vec<Disk>, Host) {
    let mut host = at(240, seed);
    let mut source = at(360, seed + 1);
    let mut random = Random(seed);
    host.cuts = Some(Vec::new());
    host.aim_at(&source);
    for op in [400, 440, 480] {
        for _ in 0..6 {
            host.ask(&mut source, 20);
            if random.below(3) == 0 && !host.checkpoint.fetch_is_done() {
                host.rewrite();
            }
        }
        if random.below(2) == 0 && !host.checkpoint.fetch_is_done() {
            // Given up in the middle of writing.
            host.await_writes();
            host.checkpoint.begin_rewrite(&mut host.pages, FINGERPRINT);
            host.pump(0);
            host.pump(0);
        }
        advance(&mut source, op);
        host.aim_at(&source);
    }
    host.sync(&mut source);
    (host.cuts.take().expect("set above"), source)
}

#[test]
fn a_power_cut_at_any_step_of_a_sync_loses_no_more_than_is_in_flight() {
    let mut tried = 0;
    for seed in 0..3 {
        let (cuts, mut source) = eventful_sync(seed);
        let mut random = Random(!seed);
        for (index, cut) in cuts.iter().enumerate() {
            let chance = [0, 50, 100][index % 3];
            let disk = cut.cut(|| random.below(100) < chance);
            let (mut host, damages) = Host::reopen(layout(1300), seed, disk);
            tried += 1;
            if let Some(damages) = &damages {
                assert_eq!(damages.count, 0, "a cut damages nothing: {damages}");
            }
            host.aim_at(&source);
            host.sync(&mut source);
        }
    }
    assert!(tried > 100, "{tried}");
}

#[test]
fn what_was_written_so_far_survives_a_crash() {
    let mut source = at(400, 1);
    let mut host: Host = Host::create(layout(1300), 64, 3);
    host.aim_at(&source);
    while host.checkpoint.fetch_progress().pages_fetched < 60 {
        host.ask(&mut source, 30);
    }
    let fetched = host.checkpoint.fetch_progress();
    host.rewrite();
    assert!(host.disk.named.expect("named").1, "still syncing");
    host.ask(&mut source, 30);
    let (mut host, damages) = Host::reopen(host.layout, 3, host.disk.clone());
    assert!(damages.expect("some are not").unfetched > 0);
    host.fetch_all(&mut source);
    let rest = host.checkpoint.fetch_progress().pages_fetched;
    let all = source.checkpoint.record().pages_used;
    assert!(rest + fetched.pages_fetched <= all, "{rest} {fetched:?}");
    host.sync(&mut source);
}

#[test]
fn the_last_two_checkpoints_are_served_and_no_other() {
    let mut source = at(400, 1);
    let page = source.live[30];
    let mut references = Vec::new();
    for op in [440, 480, 520, 560] {
        source.pages.write(PageId::ROOT)[78] = op as u8;
        advance(&mut source, op - 1);
        source.pages.write(PageId::ROOT)[77] = op as u8;
        advance(&mut source, op);
        references.push(PageReference {
            tag: source.checkpoint.tags.page_tag(0),
            logical: 0,
            reserved: [0; 12],
        });
        let records: Vec<_> = source.checkpoint.records().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].parent, records[1].id);
        assert!(served(&mut source, references.last().expect("pushed")).is_some());
    }
    // Every other checkpoint above was one of a single op, so of those noted the last is left.
    for reference in &references[..3] {
        assert!(served(&mut source, reference).is_none());
    }
    source.op += 1;
    source.pages.write(PageId::ROOT)[77] ^= 1;
    source.checkpoint(0);
    let mut reference = *references.last().expect("four");
    assert!(
        served(&mut source, &reference).is_some(),
        "of the one before"
    );

    // A page that has changed since comes from its block; one whose block is bad does not come at all.
    reference.logical = page.0;
    reference.tag = source.checkpoint.tags.page_tag(page.0);
    source.pages.write(page)[78] ^= 1;
    let bytes = served(&mut source, &reference).expect("from its block");
    assert_eq!(KEY.tag(&bytes), reference.tag);
    let block = source.checkpoint.map.address(page.0);
    source.disk.damage(source.layout.block_at(block));
    assert!(served(&mut source, &reference).is_none());
    reference.logical = u32::MAX;
    assert!(served(&mut source, &reference).is_none());
}

#[test]
fn the_checkpoint_before_is_served_after_a_restart_too() {
    let mut source = at(400, 1);
    let mut host: Host = Host::create(layout(1300), 64, 3);
    let before = *source.checkpoint.record();
    let state = source.frozen.clone();
    advance(&mut source, 440);
    let (mut source, damages) = Host::reopen(source.layout, 5, source.disk.clone());
    assert!(damages.is_none());
    assert_eq!(source.checkpoint.records().count(), 2);
    let target = source.checkpoint.records().nth(1).expect("two");
    assert_eq!(target.id, before.id);
    host.checkpoint.fetch_start(&target, &mut host.pages);
    // While a third is being written its pages stay.
    for _ in 0..20 {
        source.commit();
    }
    source.begin();
    for _ in 0..200 {
        source.elapsed_ns += 10_000_000;
        source.pump(0);
        if !source.pending.is_empty()
            && let CheckpointEvent::Written(_) = source.complete_one()
        {
            break;
        }
    }
    host.fetch_all(&mut source);
    host.finish();
    assert!(snapshot(&host.pages) == state);
    // Installed, the third takes the place of the first.
    let record = source.checkpoint.writer_record();
    source.checkpoint.installed(&record);
    let ids: Vec<u128> = source.checkpoint.records().map(|it| it.id).collect();
    assert!(ids.len() == 2 && !ids.contains(&before.id));
    source.name(&record, false);
    let (_, damages) = Host::reopen(source.layout, 5, source.disk.clone());
    assert!(damages.is_none());
}

#[test]
fn a_damaged_checkpoint_before_is_nobody_s_loss_but_others() {
    let mut source = at(400, 1);
    let before = *source.checkpoint.record();
    advance(&mut source, 440);
    let mut disk = source.disk.clone();
    for (block, left) in [(before.map.first, 2), (before.map.second, 1)] {
        disk.damage(source.layout.block_at(block));
        let (host, damages) = Host::reopen(source.layout, 5, disk.clone());
        assert!(damages.is_none());
        assert_eq!(host.checkpoint.records().count(), left);
    }
}

/// Where everything of a checkpoint lies on a host's disk.
fn located(host: &Host, record: &CheckpointRecord) -> Vec<(u32, DamagedItem)> {
    locate(&host.layout, record, |block| {
        let mut bytes = [0; PAGE_SIZE];
        host.disk.read(host.layout.block_at(block), &mut bytes);
        Some(bytes)
    })
}

/// One has a checkpoint that nobody else has, and pages of it are damaged. Others have the one before, with other pages
/// damaged: only who has gone further has those, in blocks of that one.
#[test]
fn what_is_damaged_itself_serves_the_checkpoint_before() {
    let (mut ahead, behind) = (at(400, 1), at(400, 2));
    let before = *ahead.checkpoint.record();
    let state = ahead.frozen.clone();
    advance(&mut ahead, 440);
    let is_even = |item| matches!(item, DamagedItem::Page(page) if page.0 % 2 == 0);
    let is_odd = |item| matches!(item, DamagedItem::Page(page) if page.0 % 2 == 1);
    let mut disk = ahead.disk.clone();
    for (block, item) in located(&ahead, ahead.checkpoint.record()) {
        if is_even(item) {
            disk.damage(ahead.layout.block_at(block));
        }
    }
    // Nor does a node of the tag tree take away what is under it.
    for (block, item) in located(&ahead, &before) {
        if matches!(item, DamagedItem::TagNode(node) if node % 2 == 0) {
            disk.damage(ahead.layout.block_at(block));
        }
    }
    let (mut ahead, damages) = Host::reopen(ahead.layout, 5, disk);
    assert!(damages.is_some() && ahead.checkpoint.records().count() == 0);
    let mut disk = behind.disk.clone();
    for (block, item) in located(&behind, behind.checkpoint.record()) {
        if is_odd(item) {
            disk.damage(behind.layout.block_at(block));
        }
    }
    let (mut behind, damages) = Host::reopen(behind.layout, 6, disk);
    assert!(damages.is_some());
    for _ in 0..1000 {
        behind.ask(&mut ahead, 40);
    }
    assert!(behind.checkpoint.fetch_is_done(), "all of it is there");
    behind.finish();
    assert!(snapshot(&behind.pages) == state);
    // It executes on, and then the other can be helped.
    advance(&mut behind, 440);
    ahead.sync(&mut behind);
}

/// A damaged checkpoint is written anew: the one before it is still served, in this life and after the next start. Somebody may
/// need it who has not come further, when the newest is damaged once more.
#[test]
fn a_checkpoint_that_is_written_anew_keeps_the_one_before() {
    let (mut host, mut behind) = (at(400, 1), at(400, 2));
    let before = *host.checkpoint.record();
    let old = host.frozen.clone();
    advance(&mut host, 440);
    let mut source = Host::reopen(host.layout, 5, host.disk.clone()).0;
    source.frozen.clone_from(&host.frozen);
    for round in 0..3 {
        let mut disk = host.disk.clone();
        for (block, item) in located(&host, host.checkpoint.record()) {
            if matches!(item, DamagedItem::Page(page) if page.0 % 3 == round) {
                disk.damage(host.layout.block_at(block));
            }
        }
        let damages;
        (host, damages) = Host::reopen(host.layout, 6, disk);
        assert!(damages.is_some());
        host.sync(&mut source);
        let ids: Vec<_> = host.checkpoint.records().map(|it| it.id).collect();
        assert!(ids.len() == 2 && ids.contains(&before.id), "round {round}");
    }
    let target = host.checkpoint.records().last().expect("the one before");
    assert_eq!(target.id, before.id);
    let mut disk = behind.disk.clone();
    for (block, item) in located(&behind, behind.checkpoint.record()) {
        if matches!(item, DamagedItem::Page(_)) {
            disk.damage(behind.layout.block_at(block));
        }
    }
    behind = Host::reopen(behind.layout, 7, disk).0;
    behind.fetch_all(&mut host);
    behind.finish();
    assert!(snapshot(&behind.pages) == old);
    // The next checkpoint takes its place as always.
    host.find_live();
    advance(&mut host, 480);
    let ids: Vec<_> = host.checkpoint.records().map(|it| it.id).collect();
    assert!(ids.len() == 2 && !ids.contains(&before.id));
}

/// A jump to another checkpoint: the one that was whole here is the one before, whether the new one is written in one go or in
/// parts; a part of one is no checkpoint.
#[test]
fn after_a_jump_the_one_before_is_that_which_was_whole() {
    for in_parts in [false, true] {
        let mut source = at(400, 1);
        let mut host = at(400, 2);
        for host in [&mut source, &mut host] {
            advance(host, 440);
        }
        let whole = *host.checkpoint.record();
        advance(&mut source, 480);
        host.aim_at(&source);
        if in_parts {
            host.ask(&mut source, 5);
            host.rewrite();
        }
        host.sync(&mut source);
        let ids: Vec<_> = host.checkpoint.records().map(|it| it.id).collect();
        assert_eq!(ids, [source.checkpoint.record().id, whole.id], "{in_parts}");
        assert!(
            host.disk.previous.is_none(),
            "the superblock does not name it"
        );
        let (host, damages) = Host::reopen(host.layout, 5, host.disk.clone());
        assert!(damages.is_none() && host.checkpoint.records().count() == 1);
    }
}

#[test]
fn who_asks_for_too_much_at_once_is_told_so() {
    let mut source = at(400, 1);
    let asked: Vec<_> = source.live[..40].to_vec();
    let references: Vec<_> = asked
        .iter()
        .map(|page| PageReference {
            tag: source.checkpoint.tags.page_tag(page.0),
            logical: page.0,
            reserved: [0; 12],
        })
        .collect();
    for &page in &asked {
        source.pages.write(page)[0] ^= 1;
    }
    let mut into = [0; PAGE_SIZE];
    let Host {
        checkpoint,
        pages,
        io,
        ..
    } = &mut source;
    let answers: Vec<_> = references
        .iter()
        .map(|reference| checkpoint.serve(reference, 1, pages, &mut into, io))
        .collect();
    let (reading, rest) = answers.split_at(SERVE_READS_MAX);
    assert!(reading.iter().all(|&answer| answer == Serve::Reading));
    assert!(rest.iter().all(|&answer| answer == Serve::Busy));
    for _ in 0..SERVE_READS_MAX {
        let CheckpointEvent::Served {
            page: Some(page), ..
        } = source.complete_one()
        else {
            panic!("its blocks are good");
        };
        source.checkpoint.serve_done(page);
    }
}

#[test]
fn a_forged_allocator_is_no_state() {
    let mut source = at(400, 1);
    let mut host = at(360, 2);
    let mut target = source.checkpoint.records().next().expect("all is there");
    target.pages_used += 1;
    host.checkpoint.fetch_start(&target, &mut host.pages);
    host.fetch_all(&mut source);
    assert!(!host.checkpoint.fetch_finish(&mut host.pages));
    assert!(!host.checkpoint.is_complete());
    host.aim_at(&source);
    host.sync(&mut source);
}
