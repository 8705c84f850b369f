//! A disk in memory, and a host that drives a journal on it: completions in any order, power cuts, decay.

use super::*;
use crate::header::{HEADER_SIZE, Typed};
use crate::layout::Geometry;
use zerocopy::IntoBytes;

pub const CLUSTER: u128 = 0xc1;
pub const MESSAGE_SIZE: usize = 2 * SECTOR_SIZE;

/// A journal alone, smaller than any geometry that `Geometry::check` allows.
pub fn layout(slots: u32, pipeline_max: u32, ack: JournalAck) -> Layout {
    layout_of(slots, pipeline_max, ack, MESSAGE_SIZE)
}

pub fn layout_of(slots: u32, pipeline_max: u32, ack: JournalAck, message_size: usize) -> Layout {
    let geometry = Geometry {
        slots,
        pipeline_max,
        message_size_max: message_size as u32,
        journal_ack: ack as u8,
        ..Geometry::SMALL
    };
    let prepares_at = sector_ceil(slots as usize * HEADER_SIZE) as u64;
    let size = prepares_at + u64::from(slots) * message_size as u64;
    Layout {
        geometry,
        headers_at: 0,
        prepares_at,
        grid_at: size,
        size,
    }
}

/// What is durable.
#[derive(Clone)]
pub struct Disk(pub Vec<u8>);

impl Disk {
    pub fn format(layout: &Layout) -> Self {
        let mut disk = Self(vec![0; layout.size as usize]);
        for slot in 0..layout.geometry.slots as usize {
            let header = Prepare::reserved_slot(CLUSTER, slot as u64);
            disk.write(slot as u64 * HEADER_SIZE as u64, header.as_bytes());
            disk.write(layout.prepare_at(slot), header.as_bytes());
        }
        disk
    }

    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.0[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    pub fn flip(&mut self, at: u64) {
        self.0[at as usize] ^= 1;
    }

    pub fn wipe_sector(&mut self, at: u64) {
        self.0[at as usize..at as usize + SECTOR_SIZE].fill(0);
    }

    pub fn redundant(&self, slot: usize) -> Prepare {
        zerocopy::FromBytes::read_from_bytes(&self.0[slot * HEADER_SIZE..][..HEADER_SIZE])
            .expect("256 bytes")
    }

    pub fn put_redundant(&mut self, slot: usize, header: &Prepare) {
        self.write((slot * HEADER_SIZE) as u64, header.as_bytes());
    }

    pub fn put_prepare(&mut self, layout: &Layout, slot: usize, prepare: &SharedMessage) {
        let bytes = &prepare.buffer()[..prepare.size_sectors()];
        self.write(layout.prepare_at(slot), bytes);
    }
}

/// Makes a chain of prepares.
pub struct Chain {
    pub pool: MessagePool,
    pub parent: u128,
    pub op: u64,
    pub view: u32,
}

use crate::buffer::MessagePool;

impl Chain {
    pub fn new() -> Self {
        Self::of(MessagePool::new(256, MESSAGE_SIZE))
    }

    pub fn of(pool: MessagePool) -> Self {
        Self {
            pool,
            parent: Prepare::root(CLUSTER).frame.checksum,
            op: 0,
            view: 0,
        }
    }

    /// The next prepare, of one or two sectors.
    pub fn next(&mut self, sectors: usize) -> SharedMessage {
        let mut prepare = Prepare::new(CLUSTER, self.view, 0);
        prepare.op = self.op + 1;
        prepare.parent = self.parent;
        prepare.requests = 1;
        prepare.kind = PrepareKind::Batch as u32;
        prepare.frame.size = (HEADER_SIZE + 64 + (sectors - 1) * SECTOR_SIZE) as u32;
        let mut message = self.pool.take().expect("a buffer is free");
        message.set_header(&prepare);
        let fill = self.op as u8 ^ (self.view as u8) << 4 | 1;
        message.body_mut().fill(fill);
        let message = message.seal();
        self.op += 1;
        self.parent = message.header().frame.checksum;
        message
    }
}

/// What the superblock would say.
#[derive(Clone)]
pub struct Super {
    pub checkpoint_op: u64,
    pub checkpoint_checksum: u128,
    pub log_view: u32,
    pub headers: Vec<Prepare>,
    pub solo: bool,
}

impl Super {
    pub fn new(solo: bool) -> Self {
        Self {
            checkpoint_op: 0,
            checkpoint_checksum: Prepare::root(CLUSTER).frame.checksum,
            log_view: 0,
            headers: Vec::new(),
            solo,
        }
    }
}

/// A journal and its host.
pub struct Host<R: Rules = Strict> {
    pub layout: Layout,
    pub journal: Journal<R>,
    pub disk: Disk,
    pub io: IoQueue,
    pub pending: Vec<IoRequest>,
    /// Completed, but not promised to survive.
    pub volatile: Vec<(u64, Vec<u8>)>,
    pub acked: Vec<(u64, u128)>,
    pub header_writes: usize,
    pub prepare_writes: usize,
    /// A read of any of these sectors fails, as a whole and after its bytes have come.
    pub unreadable: Vec<u64>,
}

impl<R: Rules> Host<R> {
    /// Starts opening.
    pub fn start(layout: Layout, disk: Disk, superblock: &Super) -> Self {
        let mut host = Self {
            layout,
            journal: Journal::new(layout, CLUSTER),
            disk,
            io: IoQueue::new(io_max(&layout)),
            pending: Vec::new(),
            volatile: Vec::new(),
            acked: Vec::new(),
            header_writes: 0,
            prepare_writes: 0,
            unreadable: Vec::new(),
        };
        host.journal.open_start(
            superblock.checkpoint_op,
            superblock.checkpoint_checksum,
            superblock.log_view,
            &superblock.headers,
            superblock.solo,
            &mut host.io,
        );
        host.pump();
        host
    }

    /// Opens to the end.
    pub fn open(
        layout: Layout,
        disk: Disk,
        superblock: &Super,
    ) -> (Self, Result<Recovered, Refusal>) {
        let mut host = Self::start(layout, disk, superblock);
        let outcome = host.finish_opening();
        (host, outcome)
    }

    pub fn finish_opening(&mut self) -> Result<Recovered, Refusal> {
        loop {
            match self.complete(0) {
                JournalEvent::None => (),
                JournalEvent::Opened(recovered) => return Ok(recovered),
                JournalEvent::Refused(refusal) => return Err(refusal),
                JournalEvent::Read { .. } => unreachable!("nobody reads yet"),
            }
        }
    }

    pub fn fresh(layout: Layout) -> Self {
        let (host, recovered) = Self::open(layout, Disk::format(&layout), &Super::new(false));
        let recovered = recovered.expect("a fresh journal opens");
        assert!(recovered.head_op == 0 && recovered.head_certain);
        assert_eq!(host.header_writes, 0);
        host
    }

    pub fn pump(&mut self) {
        while let Some(request) = self.io.pop() {
            if let IoRequest::Write { at, .. } = &request {
                if *at < self.layout.prepares_at {
                    self.header_writes += 1;
                } else {
                    self.prepare_writes += 1;
                }
            }
            self.pending.push(request);
        }
    }

    pub fn append(&mut self, prepare: SharedMessage) {
        self.journal.append(prepare, &mut self.io);
        self.pump();
    }

    pub fn flush(&mut self) {
        self.journal.flush(&mut self.io);
        self.pump();
    }

    /// Completes the request at `index` of those pending, and collects acks.
    pub fn complete(&mut self, index: usize) -> JournalEvent {
        self.complete_but(index, true)
    }

    /// As `complete`; a write that does not land was dropped by the device, which does not say so.
    pub fn complete_but(&mut self, index: usize, lands: bool) -> JournalEvent {
        let mut result = Ok(());
        let (id, buffer) = match self.pending.remove(index) {
            IoRequest::Write {
                id,
                at,
                size,
                buffer,
                durable,
            } => {
                if lands && durable {
                    self.disk.write(at, &buffer.bytes()[..size]);
                } else if lands {
                    self.volatile.push((at, buffer.bytes()[..size].to_vec()));
                }
                (id, buffer)
            }
            IoRequest::Read {
                id,
                at,
                size,
                mut buffer,
            } => {
                let from = at as usize;
                buffer.bytes_mut()[..size].copy_from_slice(&self.disk.0[from..from + size]);
                let range = at..at + size as u64;
                if self.unreadable.iter().any(|sector| range.contains(sector)) {
                    let action = "read";
                    result = Err(IoError {
                        action,
                        at,
                        size,
                        errno: 5,
                    });
                }
                (id, buffer)
            }
            IoRequest::Sync { .. } => unreachable!("the journal does not sync"),
        };
        let done = IoDone {
            id,
            buffer: Some(buffer),
            result,
        };
        let event = self
            .journal
            .on_io_done(done, &mut self.io)
            .expect("the disk works");
        self.pump();
        while let Some(durable) = self.journal.next_durable() {
            self.acked.push((durable.op(), durable.checksum()));
        }
        event
    }

    pub fn drain(&mut self) {
        while !self.pending.is_empty() {
            self.complete(0);
        }
    }

    /// Index among the pending of the write of this slot's prepare.
    pub fn pending_prepare(&self, op: u64) -> usize {
        let wanted = self.layout.prepare_at(self.layout.slot(op));
        self.pending_at(wanted)
            .expect("the prepare is being written")
    }

    pub fn pending_at(&self, wanted: u64) -> Option<usize> {
        self.pending
            .iter()
            .position(|request| matches!(request, IoRequest::Write { at, .. } if *at == wanted))
    }

    /// The sectors that a power cut leaves old or new.
    pub fn uncertain(&self) -> Vec<(u64, Vec<u8>)> {
        let mut sectors = Vec::new();
        let mut add = |at: u64, bytes: &[u8]| {
            for (index, sector) in bytes.chunks_exact(SECTOR_SIZE).enumerate() {
                sectors.push((at + (index * SECTOR_SIZE) as u64, sector.to_vec()));
            }
        };
        for (at, bytes) in &self.volatile {
            add(*at, bytes);
        }
        for request in &self.pending {
            if let IoRequest::Write {
                at, size, buffer, ..
            } = request
            {
                add(*at, &buffer.bytes()[..*size]);
            }
        }
        sectors
    }

    /// Every disk that a power cut may leave now.
    pub fn cuts(&self) -> Vec<Disk> {
        let uncertain = self.uncertain();
        assert!(uncertain.len() <= 12);
        (0..1usize << uncertain.len())
            .map(|mask| {
                let mut disk = self.disk.clone();
                for (index, (at, bytes)) in uncertain.iter().enumerate() {
                    if mask >> index & 1 == 1 {
                        disk.write(*at, bytes);
                    }
                }
                disk
            })
            .collect()
    }
}

/// Where a request goes.
pub fn place_of(request: &IoRequest) -> u64 {
    match request {
        IoRequest::Write { at, .. } | IoRequest::Read { at, .. } => *at,
        IoRequest::Sync { .. } => unreachable!("the journal does not sync"),
    }
}
