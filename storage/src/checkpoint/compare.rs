//! Comparing this replica's tag tree with that of another, to name the pages that differ: for people, when two replicas
//! have made different states of the same ops.

use super::{Checkpoint, Rules, Taken};
use crate::checksum::PageKey;
use crate::header::PageReference;
use crate::layout::PAGE_SIZE;
use crate::superblock::CheckpointRecord;
use zerocopy::FromBytes;

/// Pages that are named.
const PAGES_MAX: usize = 12;

/// Nodes that wait to be compared: those under one node at each level.
const NODES_MAX: usize = 1024;

/// A comparison with another's tree, from its root down.
#[derive(Debug)]
pub struct Comparison {
    op: u64,
    key: PageKey,
    /// Nodes of the other that differ from ours, to be got from it; the last is next.
    nodes: Vec<PageReference>,
    begun: bool,
    pages: Vec<u32>,
}

impl Default for Comparison {
    fn default() -> Self {
        Self::new()
    }
}

impl Comparison {
    /// Nothing is compared yet.
    pub fn new() -> Self {
        Self {
            op: 0,
            key: PageKey([0; 16]),
            nodes: Vec::with_capacity(NODES_MAX),
            begun: false,
            pages: Vec::with_capacity(PAGES_MAX),
        }
    }

    /// Begins with the other's record of a checkpoint that is here.
    pub fn begin(&mut self, record: &CheckpointRecord) {
        self.op = record.prepare.op;
        self.key = PageKey(record.page_key);
        self.nodes.clear();
        self.pages.clear();
        self.begun = true;
        self.nodes.push(PageReference {
            tag: record.root,
            logical: u32::MAX, // the root, wherever it is
            reserved: [0; 12],
        });
    }

    /// Whether all is compared, or enough.
    pub fn is_done(&self) -> bool {
        self.begun && (self.nodes.is_empty() || self.pages.len() == PAGES_MAX)
    }

    /// The pages that differ: the first of them.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }
}

impl<R: Rules> Checkpoint<R> {
    /// The node of the other's tree that is wanted next.
    pub fn compare_wanted(&self, comparison: &Comparison) -> Option<PageReference> {
        let wanted = *comparison.nodes.last().filter(|_| !comparison.is_done())?;
        let root = self.logical_of_tags(self.tags.shape().node_count() - 1);
        Some(PageReference {
            logical: wanted.logical.min(root),
            ..wanted
        })
    }

    /// Takes a node of the other's tree, and compares it with ours of the same checkpoint.
    pub fn compare_take(
        &self,
        comparison: &mut Comparison,
        reference: &PageReference,
        bytes: &[u8],
    ) -> Taken {
        if self.compare_wanted(comparison) != Some(*reference) {
            return Taken::NotWanted;
        }
        if bytes.len() != PAGE_SIZE || comparison.key.tag(bytes) != reference.tag {
            return Taken::Bad;
        }
        comparison.nodes.pop();
        let generations = [&self.generations.durable, &self.generations.previous];
        let ours = generations
            .iter()
            .find(|it| it.record.is_some_and(|it| it.prepare.op == comparison.op));
        let Some((ours, node)) = ours.zip(self.tags.node_of(reference.logical)) else {
            comparison.nodes.clear();
            return Taken::Taken; // ours is gone
        };
        let theirs = bytes
            .chunks_exact(size_of::<u128>())
            .map(|bytes| u128::read_from_bytes(bytes).expect("its size"));
        let shape = self.tags.shape();
        let below = if node < shape.leaf_nodes() {
            self.tags.pages_of(node)
        } else {
            let children = shape.children(node);
            self.logical_of_tags(children.start)..self.logical_of_tags(children.end)
        };
        for (logical, tag) in below.zip(theirs) {
            if ours.tags.tag(logical) == tag {
                continue;
            }
            if self.tags.node_of(logical).is_none() {
                if comparison.pages.len() < PAGES_MAX {
                    comparison.pages.push(logical);
                }
            } else if tag != 0 && comparison.nodes.len() < NODES_MAX {
                let reserved = [0; 12];
                comparison.nodes.push(PageReference {
                    tag,
                    logical,
                    reserved,
                });
            }
        }
        Taken::Taken
    }
}
