//! Fetching: what of a checkpoint is not here comes from other replicas, by number and tag.
//!
//! Opening a damaged checkpoint, going on with a sync that a crash cut short, and syncing to another checkpoint are one
//! thing. The tag tree of the target (its root and key) says what every node and page must be. Each one whose tag is
//! known is looked for *here* first: in the memory where it belongs, then in its block. What is not here is *missing*, and
//! is asked for ([`Checkpoint::fetch_wanted`]) and taken ([`Checkpoint::fetch_take`]). A node reveals the tags under it;
//! so a subtree that is the same is not fetched, and bytes moved are about those that differ.
//!
//! * Nothing is believed that has not the tag it was asked by.
//! * The target may change at any time: memory and blocks keep what they have, and what is the same is found again.
//! * Nothing reaches the disk here. [`Checkpoint::begin_rewrite`] writes what was fetched so far.

use super::{Checkpoint, Mode, Purpose, Rules};
use crate::bits::Bits;
use crate::buffer::AlignedBuffer;
use crate::checksum::PageKey;
use crate::header::PageReference;
use crate::io::IoQueue;
use crate::layout::PAGE_SIZE;
use crate::pages::{PageId, Pages};
use crate::superblock::CheckpointRecord;
use zerocopy::FromZeros;

/// Nodes and pages looked for here in one call of [`Checkpoint::fetch_pump`]: about 20 us to hash.
const RESOLVE_MAX: u32 = 64;

/// What became of a page that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It was missing, and is here now.
    Taken,
    /// It is not what it is called: another will have to be asked.
    Bad,
    /// It is not missing (any more).
    NotWanted,
}

/// How far fetching is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FetchProgress {
    /// Op of the checkpoint that is fetched.
    pub op: u64,
    /// Pages and nodes known to be missing; more may be under the nodes.
    pub missing: u64,
    /// Pages of state that were not here since the start, each counted again if another target changed it again.
    pub pages_differing: u64,
    /// Pages of state got from others since the start.
    pub pages_fetched: u64,
    /// Nodes of the tag tree got from others since the start.
    pub nodes_fetched: u64,
    /// Pages and nodes that others sent and that were of no use.
    pub useless: u64,
}

impl FetchProgress {
    /// Bytes of pages and nodes that came from others.
    pub fn bytes_received(&self) -> u64 {
        (self.pages_fetched + self.nodes_fetched + self.useless) * PAGE_SIZE as u64
    }

    /// Bytes of pages of state that had to come.
    pub fn bytes_differing(&self) -> u64 {
        self.pages_differing * PAGE_SIZE as u64
    }
}

/// Logical pages to be dealt with: nodes first, for they tell what else is wanted; then pages, the lowest first.
#[derive(Debug)]
struct Pending {
    set: Bits,
    /// Nodes are numbered from here.
    nodes_from: usize,
    /// No page below this is in the set: a search goes on where the last one was.
    from: usize,
}

impl Pending {
    fn new(set: Bits, nodes_from: u32) -> Self {
        Self {
            set,
            nodes_from: nodes_from as usize,
            from: 0,
        }
    }

    fn clear(&mut self) {
        self.set.clear();
        self.from = 0;
    }

    fn insert(&mut self, logical: u32) {
        self.set.insert(logical as usize);
        self.from = self.from.min(logical as usize);
    }

    fn next(&mut self) -> Option<u32> {
        let node = self.set.next_set(self.nodes_from);
        let next = node.or_else(|| {
            let page = self.set.next_set(self.from);
            self.from = page.unwrap_or(0);
            page
        });
        next.map(|logical| logical as u32)
    }
}

/// What is known of the target. Numbers are of logical pages, except in `known`.
#[derive(Debug)]
pub(super) struct Fetch {
    /// The state is not (known to be) whole.
    pub(super) active: bool,
    /// What the arena's places hold is what their blocks hold: so while opening. Saves hashing twice.
    pub(super) memory_is_disk: bool,
    pub(super) target: CheckpointRecord,
    /// Nodes whose entries are the target's.
    pub(super) known: Bits,
    /// To be looked for here.
    unresolved: Pending,
    /// Being read from their blocks.
    reading: Bits,
    /// To be asked for.
    missing: Pending,
    /// Asked for.
    asked: Bits,
    progress: FetchProgress,
}

impl Fetch {
    pub(super) fn new(logical_count: u32, node_count: u32) -> Self {
        let logical = Bits::new(logical_count as usize);
        let pending = || Pending::new(logical.clone(), logical_count - node_count);
        Self {
            active: false,
            memory_is_disk: false,
            target: CheckpointRecord::new_zeroed(),
            known: Bits::new(node_count as usize),
            unresolved: pending(),
            reading: logical.clone(),
            missing: pending(),
            asked: logical,
            progress: FetchProgress::default(),
        }
    }

    fn aim(&mut self, target: &CheckpointRecord) {
        self.active = true;
        self.target = *target;
        self.progress.op = target.prepare.op;
        self.known.clear();
        self.unresolved.clear();
        self.reading.clear();
        self.missing.clear();
        self.asked.clear();
    }

    fn key(&self) -> PageKey {
        PageKey(self.target.page_key)
    }

    /// Whether a page or node whose parent is known is not here.
    pub(super) fn is_pending(&self, logical: u32) -> bool {
        self.sets().iter().any(|set| set.contains(logical as usize))
    }

    fn sets(&self) -> [&Bits; 4] {
        [
            &self.unresolved.set,
            &self.reading,
            &self.missing.set,
            &self.asked,
        ]
    }

    /// Whether a page or node is known not to be here.
    pub(super) fn is_missing(&self, logical: u32) -> bool {
        self.missing.set.contains(logical as usize)
    }

    fn is_done(&self) -> bool {
        self.sets().iter().all(|set| set.is_empty())
    }
}

/// Where one wanted page or node is.
enum Found {
    Here,
    InBlock(u32),
    Nowhere,
}

impl<R: Rules> Checkpoint<R> {
    /// Whether the whole state is in memory. If not, it is to be fetched, and nothing may be executed.
    pub fn is_complete(&self) -> bool {
        !self.fetch.active
    }

    /// How far fetching is; totals since the start when it is over.
    pub fn fetch_progress(&self) -> FetchProgress {
        FetchProgress {
            missing: (self.fetch.missing.set.count() + self.fetch.asked.count()) as u64,
            ..self.fetch.progress
        }
    }

    /// The checkpoint that is being fetched, with the map of the blocks that serve meanwhile: what the superblock must
    /// say, with `syncing`, before anything else is done about it.
    pub fn fetch_target(&self) -> Option<&CheckpointRecord> {
        self.fetch.active.then_some(&self.fetch.target)
    }

    /// Whether [`Self::fetch_start`] may be called: not while a checkpoint is written and the superblock's write that
    /// names it may be on its way.
    pub fn can_fetch(&self) -> bool {
        self.mode != Mode::Written && !self.is_opening()
    }

    /// Begins to fetch another checkpoint than the one that is here or being fetched: a newer one, or the same if it is
    /// damaged. `target` is the others' record of it (its map is theirs, and not used); the caller has checked its id. A
    /// checkpoint being written is given up. Afterwards the pages hold no state, until [`Self::fetch_finish`].
    pub fn fetch_start(&mut self, target: &CheckpointRecord, pages: &mut Pages) {
        assert!(self.can_fetch());
        assert!(target.prepare.op >= self.record.prepare.op);
        assert_ne!(
            target.root, 0,
            "the state before the first op is not fetched"
        );
        if self.is_writing() {
            self.abandon();
        }
        pages.discard();
        let mut target = *target;
        target.map = self.record.map;
        self.aim(&target);
    }

    pub(super) fn aim(&mut self, target: &CheckpointRecord) {
        self.fetch.aim(target);
        self.tags.aim(target.root);
        let root = self.logical_of_tags(self.tags.shape().node_count() - 1);
        self.fetch.unresolved.insert(root);
    }

    /// Looks for what is wanted here, a bounded number of pages and nodes. To be called after [`Self::fetch_start`],
    /// after what was taken, and after I/O of ours. True: there is more to do at once.
    pub fn fetch_pump(&mut self, pages: &Pages, io: &mut IoQueue) -> bool {
        if !self.fetch.active || self.is_opening() {
            return false;
        }
        for _ in 0..RESOLVE_MAX {
            if !self.resolve_next(pages, io) {
                return false;
            }
        }
        true
    }

    /// Looks for one page or node here. False: there is none to look for, or it has to wait for a read.
    pub(super) fn resolve_next(&mut self, pages: &Pages, io: &mut IoQueue) -> bool {
        let Some(logical) = self.fetch.unresolved.next() else {
            return false;
        };
        let found = match self.tags.node_of(logical) {
            Some(node) => self.find_node(node),
            None => self.find_page(PageId(logical), pages),
        };
        match found {
            Found::Here => {}
            Found::Nowhere => self.now_missing(logical),
            Found::InBlock(_) if self.mode != Mode::Idle || self.buffers.is_empty() => {
                return false;
            }
            Found::InBlock(block) => {
                self.fetch.reading.insert(logical as usize);
                self.read(block, 1, Purpose::ReadFetch { logical }, io);
            }
        }
        self.fetch.unresolved.set.remove(logical as usize);
        true
    }

    fn find_node(&mut self, node: u32) -> Found {
        let wanted = self.tags.node_tag(node);
        let key = self.fetch.key();
        let durable = &self.generations.durable;
        if wanted == 0 {
            self.tags.put_empty(node);
        } else if key.tag(self.tags.node_bytes(node)) == wanted {
            // In memory already.
        } else if key.tag(durable.tags.node_bytes(node)) == wanted {
            // What the blocks under it hold tells what it was, be its own block bad or not.
            self.tags.put(node, durable.tags.node_bytes(node));
        } else {
            return Found::Nowhere;
        }
        self.is_known(node);
        Found::Here
    }

    fn find_page(&self, page: PageId, pages: &Pages) -> Found {
        let wanted = self.tags.page_tag(page.0);
        let block = self.generations.durable.block_of(page.0, wanted);
        let in_memory = (self.fetch.memory_is_disk && block.is_some())
            || self.fetch.key().tag(pages.content(page)) == wanted;
        match block {
            _ if in_memory => Found::Here,
            Some(block) => Found::InBlock(block),
            None => Found::Nowhere,
        }
    }

    /// The entries of a node are the target's: what is under it can be looked for.
    fn is_known(&mut self, node: u32) {
        self.fetch.known.insert(node as usize);
        if node < self.tags.shape().leaf_nodes() {
            for page in self.tags.pages_of(node) {
                if self.tags.page_tag(page) != 0 {
                    self.fetch.unresolved.insert(page);
                }
            }
        }
        for child in self.tags.shape().children(node) {
            let logical = self.logical_of_tags(child);
            self.fetch.unresolved.insert(logical);
        }
    }

    pub(super) fn now_missing(&mut self, logical: u32) {
        self.fetch.missing.insert(logical);
        if self.tags.node_of(logical).is_none() {
            self.fetch.progress.pages_differing += 1;
        }
    }

    /// A page was read from the block that should hold it.
    pub(super) fn on_read_fetch_done(
        &mut self,
        logical: u32,
        buffer: AlignedBuffer,
        pages: &mut Pages,
    ) {
        // Not if the target has changed meanwhile.
        if self.fetch.active && self.fetch.reading.remove(logical as usize) {
            let bytes = &buffer[..PAGE_SIZE];
            let is_good = self.fetch.key().tag(bytes) == self.tags.tag(logical);
            if is_good || !R::CHECK_BLOCK {
                pages.restore(PageId(logical), bytes);
            } else {
                self.now_missing(logical);
            }
        }
        self.buffers.push(buffer);
    }

    /// Names what is missing and not asked for yet, as far as `room` and what is known go, nodes first. It counts as asked
    /// for from now on; the caller says when an answer is not to be expected any more ([`Self::fetch_retry`]).
    pub fn fetch_wanted(&mut self, into: &mut Vec<PageReference>, room: usize) {
        for _ in 0..room {
            let next = self.fetch.missing.next();
            let Some(logical) = next.filter(|_| self.fetch.active) else {
                return;
            };
            self.fetch.missing.set.remove(logical as usize);
            self.fetch.asked.insert(logical as usize);
            into.push(PageReference {
                tag: self.tags.tag(logical),
                logical,
                reserved: [0; 12],
            });
        }
    }

    /// Whether this page or node is still missing here, asked for or not.
    pub fn fetch_wants(&self, reference: &PageReference) -> bool {
        let logical = reference.logical as usize;
        self.fetch.active
            && reference.logical < self.tags.logical_count()
            && (self.fetch.asked.contains(logical) || self.fetch.missing.set.contains(logical))
            && self.tags.tag(reference.logical) == reference.tag
    }

    /// Number of the node of the tag tree that a reference names; none if it names a page.
    pub fn node_of(&self, logical: u32) -> Option<u32> {
        self.tags.node_of(logical)
    }

    /// By what number a node of the tag tree is asked for.
    pub fn logical_of_node(&self, node: u32) -> u32 {
        self.logical_of_tags(node)
    }

    /// What was asked for has not come: it will be named again.
    pub fn fetch_retry(&mut self, references: &[PageReference]) {
        for reference in references {
            let logical = reference.logical as usize;
            // Not what has come after all, nor what another target has made something else of.
            if self.fetch.active
                && self.fetch.asked.contains(logical)
                && self.tags.tag(reference.logical) == reference.tag
            {
                self.fetch.asked.remove(logical);
                self.fetch.missing.insert(reference.logical);
            }
        }
    }

    /// Takes a page or node from another replica. `check` is true, outside of tests that show what comes of it otherwise.
    pub fn fetch_take(
        &mut self,
        reference: &PageReference,
        bytes: &[u8],
        check: bool,
        pages: &mut Pages,
    ) -> Taken {
        let logical = reference.logical as usize;
        let is_wanted = self.fetch.active
            && !self.is_opening()
            && reference.logical < self.tags.logical_count()
            && (self.fetch.asked.contains(logical) || self.fetch.missing.set.contains(logical))
            && (!check || self.tags.tag(reference.logical) == reference.tag);
        if !is_wanted {
            self.fetch.progress.useless += 1;
            return Taken::NotWanted;
        }
        let is_good =
            bytes.len() == PAGE_SIZE && (!check || self.fetch.key().tag(bytes) == reference.tag);
        if !is_good {
            self.fetch.progress.useless += 1;
            self.fetch.asked.remove(logical);
            self.fetch.missing.insert(reference.logical);
            return Taken::Bad;
        }
        self.fetch.asked.remove(logical);
        self.fetch.missing.set.remove(logical);
        if let Some(node) = self.tags.node_of(reference.logical) {
            self.tags.put(node, bytes);
            self.fetch.progress.nodes_fetched += 1;
            self.is_known(node);
        } else {
            pages.restore(PageId(reference.logical), bytes);
            self.fetch.progress.pages_fetched += 1;
        }
        Taken::Taken
    }

    /// Whether nothing is missing any more: [`Self::fetch_finish`] may follow.
    pub fn fetch_is_done(&self) -> bool {
        self.fetch.active
            && !self.is_opening()
            && self.fetch.is_done()
            && !self.is_writing()
            && self.work == 0
    }

    /// Ends fetching: the pages hold the state of the target. It must be written ([`Self::begin_rewrite`]) before anything
    /// is executed. False: all has the right tag, and yet the allocator's pages contradict it; whoever made this checkpoint
    /// had a fault.
    #[must_use]
    pub fn fetch_finish(&mut self, pages: &mut Pages) -> bool {
        assert!(self.fetch_is_done());
        self.tags.counted();
        let target = self.fetch.target;
        let agree = pages.restored()
            && u64::from(self.tags.pages_used()) == target.pages_used
            && (0..pages.count())
                .all(|page| pages.is_used(PageId(page)) == (self.tags.page_tag(page) != 0));
        if !agree {
            return false;
        }
        assert_eq!(self.fetch.known.count(), self.fetch.known.capacity());
        self.record = CheckpointRecord {
            map: self.record.map,
            ..target
        };
        self.fetch.active = false;
        self.fetch.memory_is_disk = false;
        true
    }
}
