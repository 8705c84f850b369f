//! What the benches of pure code share: a disk in memory that completes every request at once.

use storage::SECTOR_SIZE;
use storage::format::{Format, Step};
use storage::io::{IoDone, IoRequest};

/// A data file in memory, freshly formatted. Pages of it that nobody wrote take no memory.
pub struct MemoryDisk {
    bytes: Vec<u8>,
    /// Bytes written since the start.
    pub written: u64,
}

impl MemoryDisk {
    /// An empty file of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self {
            bytes: vec![0; size as usize],
            written: 0,
        }
    }

    /// As `format` makes it.
    #[allow(dead_code, reason = "not every bench begins with a formatted file")]
    pub fn formatted(format: &Format) -> Self {
        let mut disk = Self::new(format.layout().size);
        let mut chunk = vec![0; SECTOR_SIZE];
        for step in format.steps(SECTOR_SIZE) {
            let Step::Write { at, size } = step else {
                continue;
            };
            format.fill(at, &mut chunk[..size]);
            if chunk[..size].iter().any(|&byte| byte != 0) {
                disk.bytes[at as usize..][..size].copy_from_slice(&chunk[..size]);
            }
        }
        disk
    }

    /// Carries a request out.
    pub fn complete(&mut self, request: IoRequest) -> IoDone {
        let id = request.id();
        let buffer = match request {
            IoRequest::Write {
                at, size, buffer, ..
            } => {
                self.bytes[at as usize..][..size].copy_from_slice(&buffer.bytes()[..size]);
                self.written += size as u64;
                Some(buffer)
            }
            IoRequest::Read {
                at,
                size,
                mut buffer,
                ..
            } => {
                buffer.bytes_mut()[..size].copy_from_slice(&self.bytes[at as usize..][..size]);
                Some(buffer)
            }
            IoRequest::Sync { .. } => None,
        };
        IoDone {
            id,
            buffer,
            result: Ok(()),
        }
    }
}
