//! From bytes to classes: what a header or a first sector is, given the checkpoint and the durable view headers.

use super::{HeaderClass, PrepareClass};
use crate::header::{Command, HEADER_SIZE, Header, Prepare};
use crate::{SECTOR_SIZE, checksum};

/// What the superblock remembers of the log when log_view became durable: it tells leftovers of earlier views, which
/// the log of log_view does not contain, from the log itself.
#[derive(Clone, Copy, Debug)]
pub struct ViewHeaders<'a> {
    /// The view in which the log was last known to be the log.
    pub log_view: u32,
    /// Headers of the log's last ops then, in any order, gaps allowed. Empty only in view zero.
    pub headers: &'a [Prepare],
}

impl ViewHeaders<'_> {
    /// The highest op among the headers; zero: there are none.
    pub fn head(&self) -> u64 {
        self.headers
            .iter()
            .map(|header| header.op)
            .max()
            .unwrap_or(0)
    }

    /// The header of `op`, if it is among them.
    pub fn of(&self, op: u64) -> Option<&Prepare> {
        self.headers.iter().find(|header| header.op == op)
    }

    /// Whether the log of log_view may contain this prepare.
    ///
    /// An op that is named must be exactly that one. One above all of them was prepared in log_view. One below the
    /// next named one was prepared in no later view than that: views never fall along the log.
    pub fn admits(&self, prepare: &Prepare) -> bool {
        let mut next: Option<&Prepare> = None;
        for header in self.headers {
            if header.op == prepare.op {
                return header.frame.checksum == prepare.frame.checksum;
            }
            if header.op > prepare.op && next.is_none_or(|next| header.op < next.op) {
                next = Some(header);
            }
        }
        match next {
            Some(next) => prepare.frame.view <= next.frame.view,
            None => prepare.frame.view == self.log_view,
        }
    }
}

/// The ops that a journal may hold above its checkpoint, and which prepares of them count.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// The cluster's id.
    pub cluster: u128,
    /// Slots of each ring.
    pub slots: u64,
    /// Largest message, in bytes.
    pub message_size_max: usize,
    /// The durable checkpoint's op.
    pub checkpoint_op: u64,
    /// The durable view headers.
    pub view: ViewHeaders<'a>,
}

/// How a prepare's body is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// Its sum and the zeros behind it hold.
    Good,
    /// They do not.
    Bad,
    /// It ends beyond the first sector.
    Unread,
}

/// What a slot's first sector shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FirstSector {
    /// Its class, as far as the first sector tells.
    pub class: PrepareClass,
    /// The body.
    pub body: Body,
    /// Behind the header lies what is a valid header as well: an image of a header sector, unless the body's sum
    /// holds (a client may send such bytes).
    pub suspect: bool,
}

impl FirstSector {
    /// Whether the rest of the body must be read: to claim it, or to tell a prepare from an image of a header sector.
    pub fn needs_body(&self) -> bool {
        self.body == Body::Unread && (self.class == PrepareClass::Current || self.suspect)
    }

    /// The same, after the whole body was read.
    #[must_use]
    pub fn with_body(self, good: bool) -> Self {
        let misplaced = self.suspect && !good;
        Self {
            class: if misplaced {
                PrepareClass::Misplaced
            } else {
                self.class
            },
            body: if good { Body::Good } else { Body::Bad },
            ..self
        }
    }
}

enum Place {
    Broken,
    Misplaced,
    Reserved,
    Stale,
    Current,
    Beyond,
}

impl Window<'_> {
    /// The one op in (checkpoint, checkpoint + slots] that belongs into `slot`.
    pub fn op_of(&self, slot: usize) -> u64 {
        assert!((slot as u64) < self.slots);
        let lowest = self.checkpoint_op + 1;
        lowest + (slot as u64 + self.slots - lowest % self.slots) % self.slots
    }

    /// The slot of an op.
    pub fn slot_of(&self, op: u64) -> usize {
        (op % self.slots) as usize
    }

    /// The highest op there may be.
    pub fn op_max(&self) -> u64 {
        self.checkpoint_op + self.slots
    }

    /// Whether `prepare` is of an op above the checkpoint and counts.
    pub fn is_current(&self, prepare: &Prepare) -> bool {
        !prepare.is_reserved()
            && prepare.op > self.checkpoint_op
            && prepare.op <= self.op_max()
            && self.view.admits(prepare)
    }

    /// Whether the bytes are a valid header of a prepare of this cluster, in whatever slot.
    pub fn is_prepare(&self, header: &Header) -> bool {
        header.check(self.cluster, self.message_size_max) == Ok(Command::Prepare)
    }

    fn place(&self, header: &Header, slot: usize) -> Place {
        if !header.checksum_holds() {
            return Place::Broken;
        }
        if !self.is_prepare(header) {
            return Place::Misplaced;
        }
        let prepare = header.typed::<Prepare>();
        if self.slot_of(prepare.op) != slot {
            Place::Misplaced
        } else if prepare.is_reserved() {
            if prepare.op == slot as u64 {
                Place::Reserved
            } else {
                Place::Misplaced
            }
        } else if prepare.op > self.op_max() {
            Place::Beyond
        } else if self.is_current(prepare) {
            assert_eq!(prepare.op, self.op_of(slot));
            Place::Current
        } else {
            Place::Stale
        }
    }

    /// The class of a slot's redundant header.
    pub fn classify_header(&self, header: &Header, slot: usize) -> HeaderClass {
        match self.place(header, slot) {
            Place::Broken | Place::Misplaced => HeaderClass::Invalid,
            Place::Reserved => HeaderClass::Reserved,
            Place::Stale => HeaderClass::Stale,
            Place::Current => HeaderClass::Current,
            Place::Beyond => HeaderClass::Beyond,
        }
    }

    /// The class of a slot's first sector.
    pub fn classify_prepare(&self, sector: &[u8], slot: usize) -> FirstSector {
        assert_eq!(sector.len(), SECTOR_SIZE);
        let header = Header::of(sector);
        let suspect = Header::of(&sector[HEADER_SIZE..]).checksum_holds();
        let class = match self.place(header, slot) {
            Place::Broken => PrepareClass::Invalid,
            Place::Misplaced => PrepareClass::Misplaced,
            Place::Reserved => PrepareClass::Reserved,
            Place::Stale => PrepareClass::Stale,
            Place::Current => PrepareClass::Current,
            Place::Beyond => PrepareClass::Beyond,
        };
        let found = |class, body| FirstSector {
            class,
            body,
            suspect,
        };
        if matches!(class, PrepareClass::Invalid | PrepareClass::Misplaced) {
            return found(class, Body::Bad);
        }
        if header.frame.size as usize > SECTOR_SIZE {
            return found(class, Body::Unread);
        }
        let good = body_holds(header, sector);
        match class {
            // Format zeroed the rest; something else has been here since.
            PrepareClass::Reserved if !good => found(
                if suspect {
                    PrepareClass::Misplaced
                } else {
                    PrepareClass::Invalid
                },
                Body::Bad,
            ),
            _ => found(class, Body::Unread).with_body(good),
        }
    }
}

/// Whether the body in `bytes`, whole sectors that begin with the header, has its sum, and zeros follow it.
pub(crate) fn body_holds(header: &Header, bytes: &[u8]) -> bool {
    let size = header.frame.size as usize;
    let end = crate::sector_ceil(size);
    bytes.len() >= end
        && checksum::body_sum(&bytes[HEADER_SIZE..size]) == header.frame.checksum_body
        && checksum::is_zero(&bytes[size..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::AlignedBuffer;
    use crate::header::{PrepareKind, Typed};
    use zerocopy::IntoBytes;

    const CLUSTER: u128 = 77;

    fn prepare(op: u64, view: u32, body: &[u8]) -> Prepare {
        let mut prepare = Prepare::new(CLUSTER, view, 0);
        prepare.op = op;
        prepare.requests = 1;
        prepare.kind = PrepareKind::Batch as u32;
        prepare.frame.size = (HEADER_SIZE + body.len()) as u32;
        prepare.header_mut().seal(body);
        prepare
    }

    fn sector(header: &Prepare, body: &[u8]) -> AlignedBuffer {
        let mut sector = AlignedBuffer::new(SECTOR_SIZE);
        sector[..HEADER_SIZE].copy_from_slice(header.as_bytes());
        let end = SECTOR_SIZE.min(HEADER_SIZE + body.len());
        sector[HEADER_SIZE..end].copy_from_slice(&body[..end - HEADER_SIZE]);
        sector
    }

    fn window(checkpoint_op: u64, view: ViewHeaders<'_>) -> Window<'_> {
        Window {
            cluster: CLUSTER,
            slots: 16,
            message_size_max: 8192,
            checkpoint_op,
            view,
        }
    }

    const FIRST: ViewHeaders<'static> = ViewHeaders {
        log_view: 0,
        headers: &[],
    };

    #[test]
    fn each_slot_has_one_op_above_the_checkpoint() {
        for checkpoint in [0, 1, 15, 16, 17, 1000] {
            let window = window(checkpoint, FIRST);
            let mut ops: Vec<_> = (0..16).map(|slot| window.op_of(slot)).collect();
            assert!((0..16).all(|slot| window.slot_of(ops[slot]) == slot));
            ops.sort_unstable();
            assert_eq!(ops, (checkpoint + 1..=checkpoint + 16).collect::<Vec<_>>());
        }
    }

    #[test]
    fn headers_are_judged_by_place_and_age() {
        let class = |checkpoint, header: &Prepare, slot| {
            window(checkpoint, FIRST).classify_header(header.header(), slot)
        };
        let at = |op| prepare(op, 0, &[0; 48]);
        assert_eq!(class(0, &at(5), 5), HeaderClass::Current);
        assert_eq!(class(0, &at(5), 6), HeaderClass::Invalid);
        assert_eq!(class(5, &at(5), 5), HeaderClass::Stale);
        assert_eq!(class(5, &at(21), 5), HeaderClass::Current);
        assert_eq!(class(4, &at(21), 5), HeaderClass::Beyond);
        assert_eq!(class(0, &prepare(5, 1, &[0; 48]), 5), HeaderClass::Stale);
        assert_eq!(
            class(0, &Prepare::reserved_slot(CLUSTER, 5), 5),
            HeaderClass::Reserved
        );
        assert_eq!(
            class(0, &Prepare::reserved_slot(CLUSTER, 21), 5),
            HeaderClass::Invalid
        );
        assert_eq!(
            class(0, &Prepare::reserved_slot(CLUSTER + 1, 5), 5),
            HeaderClass::Invalid
        );
        assert_eq!(
            window(0, FIRST).classify_header(&Header::zeroed(), 5),
            HeaderClass::Invalid
        );
    }

    #[test]
    fn the_view_headers_tell_leftovers_from_the_log() {
        let at = |op, view| prepare(op, view, &[0; 48]);
        let headers = [at(9, 3), at(10, 5), at(12, 6)];
        let view = ViewHeaders {
            log_view: 7,
            headers: &headers,
        };
        assert!(view.admits(&at(10, 5)) && !view.admits(&prepare(10, 5, &[1; 48])));
        assert!(view.admits(&at(13, 7)) && !view.admits(&at(13, 6)) && !view.admits(&at(13, 8)));
        assert!(view.admits(&at(8, 3)) && view.admits(&at(8, 1)) && !view.admits(&at(8, 4)));
        assert!(view.admits(&at(11, 6)) && !view.admits(&at(11, 7))); // a gap in the list
        assert_eq!(view.head(), 12);
    }

    #[test]
    fn a_first_sector_is_judged_with_what_follows_the_header() {
        let window = window(0, FIRST);
        let body = [7; 64];
        let mut bytes = sector(&prepare(5, 0, &body), &body);
        let first = window.classify_prepare(&bytes, 5);
        assert_eq!(
            (first.class, first.body),
            (PrepareClass::Current, Body::Good)
        );
        assert_eq!(
            window.classify_prepare(&bytes, 6).class,
            PrepareClass::Misplaced
        );
        bytes[SECTOR_SIZE - 1] = 1;
        assert_eq!(window.classify_prepare(&bytes, 5).body, Body::Bad);
        bytes[0] ^= 1;
        assert_eq!(
            window.classify_prepare(&bytes, 5).class,
            PrepareClass::Invalid
        );
        let mut reserved = sector(&Prepare::reserved_slot(CLUSTER, 5), &[]);
        assert_eq!(
            window.classify_prepare(&reserved, 5).class,
            PrepareClass::Reserved
        );
        reserved[4000] = 1;
        assert_eq!(
            window.classify_prepare(&reserved, 5).class,
            PrepareClass::Invalid
        );
    }

    #[test]
    fn an_image_of_a_header_sector_is_not_a_prepare() {
        let window = window(0, FIRST);
        let first = prepare(16, 0, &[9; 64]);
        let second = prepare(1, 0, &[9; 64]);
        let image = sector(&first, second.as_bytes());
        assert_eq!(
            window.classify_prepare(&image, 0).class,
            PrepareClass::Misplaced
        );
        let reserved = sector(&Prepare::reserved_slot(CLUSTER, 0), second.as_bytes());
        assert_eq!(
            window.classify_prepare(&reserved, 0).class,
            PrepareClass::Misplaced
        );
    }

    #[test]
    fn a_client_that_sends_a_header_as_its_body_does_not_hide_its_prepare() {
        let window = window(0, FIRST);
        let crafted = prepare(1, 0, &[9; 64]);
        let one = prepare(16, 0, crafted.as_bytes());
        let found = window.classify_prepare(&sector(&one, crafted.as_bytes()), 0);
        assert_eq!(
            (found.class, found.body),
            (PrepareClass::Current, Body::Good)
        );
        let mut long = [0; 5000];
        long[..HEADER_SIZE].copy_from_slice(crafted.as_bytes());
        let several = prepare(16, 0, &long);
        let found = window.classify_prepare(&sector(&several, &long), 0);
        assert!(found.suspect && found.needs_body());
        assert_eq!(found.with_body(true).class, PrepareClass::Current);
        assert_eq!(found.with_body(false).class, PrepareClass::Misplaced);
    }
}
