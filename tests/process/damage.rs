//! Damage to data files of replicas that are down: flipped bits, zeroed blocks, blocks that hold what belongs elsewhere.

#![allow(dead_code)] // each test file uses a part

use super::Random;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use viewstone::server::data_file::peek;
use viewstone::storage::SECTOR_SIZE;
use viewstone::storage::layout::{Layout, SUPERBLOCK_COPIES, SUPERBLOCK_COPY_DISTANCE};

const BLOCK: u64 = SECTOR_SIZE as u64;

/// A stopped replica's data file.
pub struct Victim {
    file: File,
    pub layout: Layout,
}

/// What is done to a block.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    Flip,
    Zero,
    Misdirect,
}

impl Damage {
    pub const ALL: [Self; 3] = [Self::Flip, Self::Zero, Self::Misdirect];

    pub fn any(random: &mut Random) -> Self {
        Self::ALL[random.below(3) as usize]
    }
}

impl Victim {
    pub fn open(path: &Path) -> Self {
        let found = peek(path).expect("a data file");
        let state = found
            .superblock
            .expect("it was well until now")
            .content
            .state;
        let file = File::options().read(true).write(true).open(path);
        Self {
            file: file.expect("the file is ours"),
            layout: Layout::new(state.geometry),
        }
    }

    pub fn read(&self, at: u64) -> Vec<u8> {
        let mut block = vec![0; SECTOR_SIZE];
        self.file
            .read_exact_at(&mut block, at)
            .expect("within the file");
        block
    }

    pub fn write(&self, at: u64, block: &[u8]) {
        self.file.write_all_at(block, at).expect("the file is ours");
    }

    /// The blocks of a range that hold anything, by their offsets.
    pub fn used(&self, range: Range<u64>) -> Vec<u64> {
        let blocks = range.step_by(SECTOR_SIZE);
        blocks
            .filter(|&at| self.read(at).iter().any(|&byte| byte != 0))
            .collect()
    }

    /// The whole file but for one copy of the superblock, drawn at random: without any the file is lost, which is another
    /// matter.
    pub fn fair_game(&self, random: &mut Random) -> Vec<u64> {
        let spared = random.below(SUPERBLOCK_COPIES as u64) * SUPERBLOCK_COPY_DISTANCE as u64;
        let spared = spared..spared + SUPERBLOCK_COPY_DISTANCE as u64;
        let mut used = self.used(0..self.layout.size);
        used.retain(|at| !spared.contains(at));
        used
    }

    pub fn damage(&self, at: u64, how: Damage, random: &mut Random) {
        let mut block = self.read(at);
        match how {
            Damage::Flip => {
                let bit = random.below(8 * BLOCK) as usize;
                block[bit / 8] ^= 1 << (bit % 8);
            }
            Damage::Zero => block.fill(0),
            Damage::Misdirect => {
                // Within its zone, where it could do most harm.
                let zone = self.zone(at);
                let blocks = (zone.end - zone.start) / BLOCK;
                block = self.read(zone.start + random.below(blocks) * BLOCK);
            }
        }
        self.write(at, &block);
    }

    fn zone(&self, at: u64) -> Range<u64> {
        let Layout {
            headers_at,
            prepares_at,
            grid_at,
            size,
            ..
        } = self.layout;
        let zones = [
            0..headers_at,
            headers_at..prepares_at,
            prepares_at..grid_at,
            grid_at..size,
        ];
        zones
            .into_iter()
            .find(|zone| zone.contains(&at))
            .expect("within the file")
    }
}
