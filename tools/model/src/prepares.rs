//! Prepares by small numbers: each is told apart by what its header holds, and has a real header.

use std::collections::BTreeMap;
use storage::SECTOR_SIZE;
use storage::buffer::AlignedBuffer;
use storage::header::{HEADER_SIZE, Prepare, PrepareKind, Typed};
use zerocopy::IntoBytes;

/// Number of a prepare; [`NONE`], [`ROOT`], or one that was made.
pub type Id = u8;

/// No prepare, or a slot never written.
pub const NONE: Id = 0;

/// Op 0.
pub const ROOT: Id = 1;

/// What a decayed sector holds.
pub const GARBAGE: Id = u8::MAX;

/// The cluster's id.
pub const CLUSTER: u128 = 3;

const BODY: [u8; 48] = [0; 48];

/// What makes a prepare another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Made {
    /// Its op.
    pub op: u8,
    /// The view it was first prepared in.
    pub view: u8,
    /// The prepare before.
    pub parent: Id,
    /// What its primary knew to be committed.
    pub commit: u8,
    /// Tells apart what a primary prepares for one op of one view before and after a restart, which must not happen.
    pub again: u8,
}

/// All prepares there ever were.
pub struct Prepares {
    made: Vec<Made>,
    headers: Vec<Prepare>,
    sectors: Vec<AlignedBuffer>,
    by_made: BTreeMap<Made, Id>,
    by_identity: BTreeMap<u128, Id>,
}

impl Default for Prepares {
    fn default() -> Self {
        let root = Prepare::root(CLUSTER);
        let nothing = Made {
            op: 0,
            view: 0,
            parent: NONE,
            commit: 0,
            again: 0,
        };
        Self {
            made: vec![nothing; 2],
            headers: vec![root; 2],
            sectors: (0..2).map(|_| AlignedBuffer::new(SECTOR_SIZE)).collect(),
            by_made: BTreeMap::new(),
            by_identity: BTreeMap::from([(root.frame.checksum, ROOT)]),
        }
    }
}

impl Prepares {
    /// The number of a prepare.
    pub fn make(&mut self, made: Made) -> Id {
        if let Some(&id) = self.by_made.get(&made) {
            return id;
        }
        let id = Id::try_from(self.made.len()).expect("few prepares");
        assert!(id < GARBAGE);
        let mut header = Prepare::new(CLUSTER, made.view.into(), made.again);
        header.frame.size = (HEADER_SIZE + BODY.len()) as u32;
        header.op = made.op.into();
        header.parent = self.header(made.parent).frame.checksum;
        header.commit = made.commit.into();
        header.requests = 1;
        header.kind = PrepareKind::Batch as u32;
        header.header_mut().seal(&BODY);
        let mut sector = AlignedBuffer::new(SECTOR_SIZE);
        sector[..HEADER_SIZE].copy_from_slice(header.as_bytes());
        sector[HEADER_SIZE..][..BODY.len()].copy_from_slice(&BODY);
        self.made.push(made);
        self.headers.push(header);
        self.sectors.push(sector);
        self.by_made.insert(made, id);
        self.by_identity.insert(header.frame.checksum, id);
        id
    }

    /// What makes a prepare what it is.
    pub fn made(&self, id: Id) -> Made {
        self.made[id as usize]
    }

    /// Op of a prepare.
    pub fn op(&self, id: Id) -> u8 {
        self.made[id as usize].op
    }

    /// A prepare's header.
    pub fn header(&self, id: Id) -> &Prepare {
        assert!(id != NONE && id != GARBAGE);
        &self.headers[id as usize]
    }

    /// A prepare as it lies on the disk.
    pub fn sector(&self, id: Id) -> &[u8] {
        assert!(id > ROOT && id != GARBAGE);
        &self.sectors[id as usize]
    }

    /// The prepare with this identity.
    pub fn of(&self, identity: u128) -> Id {
        if identity == 0 {
            return NONE;
        }
        self.by_identity[&identity]
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.made.len() - 2
    }
}
