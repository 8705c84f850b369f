//! The scrubber finds what has decayed, and mends what it can.

use super::*;

/// Goes on until a step has found something, at most for so many steps.
fn scrub(host: &mut Host, steps: u32) -> Option<Scrubbed> {
    for _ in 0..steps {
        let found = host.checkpoint.scrub(&host.pages, &mut host.io);
        if found != Scrubbed::Good {
            return Some(found);
        }
        host.submit();
        while !host.pending.is_empty() {
            if let CheckpointEvent::Scrubbed(found) = host.complete_one()
                && found != Scrubbed::Good
            {
                return Some(found);
            }
        }
    }
    None
}

/// More steps than a tour has.
const LAP: u32 = 2000;

#[test]
fn a_tour_looks_at_every_block_once() {
    let (mut host, _) = checkpointed();
    let blocks = u64::from(host.checkpoint.statistics().blocks_durable);
    while host.checkpoint.scrub_statistics().tours == 0 {
        assert_eq!(scrub(&mut host, 1), None);
    }
    assert!((blocks - 1..=blocks).contains(&host.checkpoint.scrub_statistics().blocks));
    let interval = host.checkpoint.scrub_interval_ns();
    assert!((1_000_000..=5_000_000_000).contains(&interval));
}

#[test]
fn a_bad_block_is_written_again_in_its_place() {
    let (mut host, record) = checkpointed();
    let page = host.live[20].0;
    let node = host.checkpoint.logical_of_tags(0);
    let leaf = host.checkpoint.map.reference(0);
    let blocks = [
        (
            host.checkpoint.map.address(page),
            DamagedItem::Page(PageId(page)),
        ),
        (host.checkpoint.map.address(node), DamagedItem::TagNode(0)),
        (leaf.first, DamagedItem::MapCopy(0)),
        (leaf.second, DamagedItem::MapCopy(0)),
    ];
    for (block, item) in blocks {
        let at = host.layout.block_at(block);
        host.disk.damage(at);
        let found = scrub(&mut host, LAP).expect("it is bad");
        let Scrubbed::Mended(damage) = found else {
            panic!("{found:?}");
        };
        assert_eq!((damage.item, damage.block), (item, block));
        host.disk.sync();
        let walk = walk_disk(&host.layout, &record, &host.disk);
        assert_eq!((walk.damages.count, walk.map_copies.count), (0, 0));
        assert_eq!(scrub(&mut host, LAP), None);
    }
    assert_eq!(host.checkpoint.scrub_statistics().mended, 4);
    host.check(&host.disk, &record, &host.frozen)
        .expect("mended");
}

#[test]
fn a_bad_block_of_a_page_that_has_changed_is_superseded() {
    let (mut host, _) = checkpointed();
    let page = host.live[20];
    let block = host.checkpoint.map.address(page.0);
    host.disk.damage(host.layout.block_at(block));
    host.pages.write(page)[5] ^= 1;
    let found = scrub(&mut host, LAP).expect("it is bad");
    assert!(matches!(found, Scrubbed::Superseded(damage) if damage.block == block));
    host.op += 1;
    let record = host.checkpoint(0);
    host.check(&host.disk, &record, &host.frozen)
        .expect("superseded");
}

#[test]
fn a_page_that_changed_in_memory_by_itself_is_noticed() {
    let (mut host, _) = checkpointed();
    let page = host.live[20];
    let mut content = *host.pages.read(page);
    content[100] ^= 0x10;
    host.pages.restore(page, &content);
    assert_eq!(scrub(&mut host, LAP), Some(Scrubbed::Memory(page)));
}

#[test]
fn a_tour_goes_on_while_checkpoints_are_written() {
    let (mut host, _) = checkpointed();
    for round in 0..20 {
        for _ in 0..5 {
            host.commit();
        }
        host.begin();
        let new = loop {
            let found = host.checkpoint.scrub(&host.pages, &mut host.io);
            assert_eq!(found, Scrubbed::Good, "{round}");
            host.elapsed_ns += 50_000_000;
            host.pump(0);
            if host.pending.is_empty() {
                continue;
            }
            match host.complete_one() {
                CheckpointEvent::Written(record) => break record,
                CheckpointEvent::Scrubbed(found) => assert_eq!(found, Scrubbed::Good),
                _ => {}
            }
        };
        host.checkpoint.installed(&new);
    }
    assert!(host.checkpoint.scrub_statistics().blocks > 100);
}
