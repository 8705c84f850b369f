//! The checkpoint: address map, tag tree and pages.

use super::section::{Damage, Section};
use crate::server::data_file::read_sectors;
use rustix::fd::AsFd;
use serde_json::json;
use storage::buffer::AlignedBuffer;
use storage::checkpoint::{Damage as Lost, DamagedItem, Walk, walk};
use storage::layout::{Layout, PAGE_SIZE};
use storage::superblock::SuperblockState;

/// Most blocks read at once.
const AHEAD_MAX: u32 = 64;

/// Reads blocks of the grid: one by one where they lie scattered, many at once where they follow each other, since every
/// read goes to the device.
struct Grid<'a, F> {
    fd: &'a F,
    layout: &'a Layout,
    buffer: AlignedBuffer,
    /// The blocks in the buffer.
    first: u32,
    count: u32,
    /// How many to read next, if they go on in a row.
    ahead: u32,
}

impl<'a, F: AsFd> Grid<'a, F> {
    fn new(fd: &'a F, layout: &'a Layout) -> Self {
        Self {
            fd,
            layout,
            buffer: AlignedBuffer::new(AHEAD_MAX as usize * PAGE_SIZE),
            first: 0,
            count: 0,
            ahead: 1,
        }
    }

    fn read(&mut self, block: u32) -> Option<[u8; PAGE_SIZE]> {
        if !(self.first..self.first + self.count).contains(&block) {
            let in_a_row = block == self.first + self.count;
            self.ahead = if in_a_row {
                AHEAD_MAX.min(2 * self.ahead)
            } else {
                1
            };
            let left = self.layout.geometry.block_count() + 1 - block;
            let wanted = self.ahead.min(left) as usize * PAGE_SIZE;
            let at = self.layout.block_at(block);
            let size = read_sectors(self.fd, at, &mut self.buffer[..wanted]);
            self.first = block;
            self.count = (size / PAGE_SIZE) as u32;
        }
        let index = block.checked_sub(self.first)?;
        let bytes = (index < self.count).then(|| &self.buffer[index as usize * PAGE_SIZE..])?;
        Some(bytes[..PAGE_SIZE].try_into().expect("a page's bytes"))
    }
}

/// The sections `checkpoint` and `pages`.
pub(super) fn checkpoint_sections(
    fd: &impl AsFd,
    layout: &Layout,
    state: &SuperblockState,
) -> [Section; 2] {
    let mut grid = Grid::new(fd, layout);
    let walk = walk(layout, &state.checkpoint, |block| grid.read(block));
    let is_page = |lost: &&Lost| matches!(lost.item, DamagedItem::Page(_));
    let (pages, nodes): (Vec<&Lost>, Vec<_>) = walk.damages.list.iter().partition(is_page);
    let solo = state.replica_count == 1;
    [
        checkpoint_section(layout, state, &walk, &nodes, solo),
        pages_section(state, &walk, &pages, solo),
    ]
}

fn checkpoint_section(
    layout: &Layout,
    state: &SuperblockState,
    walk: &Walk,
    nodes: &[&Lost],
    solo: bool,
) -> Section {
    let record = &state.checkpoint;
    let fingerprint = layout.geometry.fingerprint(state.replica_count);
    let blocks = layout.geometry.block_count();
    let free = blocks - walk.blocks_used;
    let mut damage: Vec<_> = nodes.iter().map(|node| damage_of(node, solo)).collect();
    let copies = walk.map_copies.list.iter();
    damage.extend(copies.map(|copy| {
        let what = copy.item;
        Damage::at(
            copy.offset,
            what,
            "the other copy is good: a later checkpoint writes both anew",
        )
    }));
    if record.id != record.compute_id(fingerprint) {
        let what = "the checkpoint's id does not follow from its content";
        damage.push(Damage::of(what, must(solo)));
    }
    let stored = record.map.first != 0;
    let mut lines = vec![
        ("op", record.prepare.op.to_string()),
        ("id", format!("{:032x}", record.id)),
        ("parent", format!("{:032x}", record.parent)),
    ];
    if stored {
        lines.extend([
            ("root", format!("{:032x}", record.root)),
            (
                "map nodes",
                format!(
                    "{}, each twice; {} copies bad",
                    walk.map_nodes, walk.map_copies.count
                ),
            ),
            ("tag nodes", walk.tag_nodes.to_string()),
        ]);
    } else {
        lines.push(("state", "before the first op: nothing is stored".to_owned()));
    }
    lines.push((
        "blocks",
        format!(
            "{blocks}: {} of this checkpoint, {free} others",
            walk.blocks_used
        ),
    ));
    Section {
        name: "checkpoint",
        json: json!({
            "op": record.prepare.op,
            "id": format!("{:032x}", record.id),
            "parent": format!("{:032x}", record.parent),
            "root": format!("{:032x}", record.root),
            "stored": stored,
            "map_nodes": walk.map_nodes,
            "map_copies_bad": walk.map_copies.count,
            "tag_nodes": walk.tag_nodes,
            "blocks": { "count": blocks, "used": walk.blocks_used, "free": free },
        }),
        lines,
        damage,
    }
}

fn pages_section(state: &SuperblockState, walk: &Walk, pages: &[&Lost], solo: bool) -> Section {
    let used = state.checkpoint.pages_used;
    let mut damage: Vec<_> = pages.iter().map(|page| damage_of(page, solo)).collect();
    let unnamed = walk.damages.count - walk.damages.list.len() as u64;
    if unnamed > 0 {
        let what = format!("{unnamed} more nodes or pages are damaged");
        damage.push(Damage::of(what, must(solo)));
    }
    // Under a damaged node nothing can be looked at.
    let unseen = used
        .saturating_sub(u64::from(walk.pages))
        .saturating_sub(pages.len() as u64 + unnamed);
    let miscounted = walk.damages.count == 0 && u64::from(walk.pages) != used;
    if miscounted {
        let what = format!("{} pages are stored, and {used} are in use", walk.pages);
        damage.push(Damage::of(what, must(solo)));
    }
    let named = pages.iter().map(|page| {
        let DamagedItem::Page(id) = page.item else {
            unreachable!("only pages were chosen")
        };
        json!({ "page": id.0, "block": page.block, "offset": page.offset })
    });
    Section {
        name: "pages",
        json: json!({
            "used": used,
            "good": walk.pages,
            "damaged": named.collect::<Vec<_>>(),
            "unseen": unseen,
        }),
        lines: vec![
            ("in use", used.to_string()),
            ("good", walk.pages.to_string()),
            ("damaged", pages.len().to_string()),
            ("under damaged", format!("{unseen} (not to be looked at)")),
        ],
        damage,
    }
}

fn damage_of(lost: &Lost, solo: bool) -> Damage {
    let what = lost.item;
    match lost.block {
        0 => Damage::of(format!("{what} is in no valid block"), must(solo)),
        block => Damage::at(lost.offset, format!("{what} in block {block}"), must(solo)),
    }
}

/// What to do about state that is lost on this disk.
fn must(solo: bool) -> &'static str {
    if solo {
        "there is no other replica: restore the data file from a backup"
    } else {
        "a peer has it: recover this replica from the others"
    }
}
