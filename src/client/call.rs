//! The calls and sessions a client holds: two tables of fixed capacity, and how a reply finds its call.
//!
//! A session's client id is random but for its low 16 bits, which are its index here; the id with
//! [`READER`] there belongs to the process and is used for reads. So an answer finds its session without a map.

use super::outcome::ReplyRef;
use storage::header::{REQUEST_ALIGN, Request, SUB_HEADER_SIZE, SubHeader, Typed};
use zerocopy::IntoBytes;

/// Index in place of a session's, in the client id that reads use.
pub(super) const READER: u16 = u16::MAX;

/// Never: a timer that is not set.
pub(super) const NEVER: u64 = u64::MAX;

/// A call's buffer larger than this is given back when the call ends, so that one large call does not cost memory for
/// ever.
const BUFFER_KEPT_SIZE: usize = 64 << 10;

/// What a call is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Changes the state: goes through a session and the log.
    Write,
    /// Read-only: needs no session.
    Read,
    /// Opens a session; the core's own.
    Register,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Free,
    /// Waits for a primary, and a write for a session.
    Queued,
    /// Has its number; has been sent or is about to be.
    Flying,
    /// Answered; waits for the host to take the answer.
    Done,
}

#[derive(Debug)]
pub(super) struct Call {
    pub state: State,
    pub generation: u32,
    pub kind: Kind,
    /// The caller's name for it; none: a register, or a write whose caller has been told that the outcome is unknown.
    pub tag: Option<u64>,
    pub deadline: u64,
    pub resend_at: u64,
    /// Pauses so far.
    pub attempts: u32,
    pub header: Request,
    /// Sub-header and padded bytes; once answered, the answer.
    pub body: Vec<u8>,
    pub operation: u16,
    pub size: u32,
    /// The index of its session.
    pub session: u16,
    /// How often it has been sent.
    pub copies: u32,
    /// The one copy sent was answered with "not taken".
    pub refused: bool,
    /// Where it was last sent, or is queued to be.
    pub via: Option<super::link::Via>,
    pub sent_at: u64,
    pub op: u64,
    pub timestamp: u64,
}

/// Names a use of a slot of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CallId {
    pub index: u32,
    pub generation: u32,
}

impl Call {
    fn new() -> Self {
        Self {
            state: State::Free,
            generation: 0,
            kind: Kind::Read,
            tag: None,
            deadline: NEVER,
            resend_at: NEVER,
            attempts: 0,
            header: Request::new(0, 0, 0),
            body: Vec::new(),
            operation: 0,
            size: 0,
            session: READER,
            copies: 0,
            refused: false,
            via: None,
            sent_at: 0,
            op: 0,
            timestamp: 0,
        }
    }

    /// Writes the header and sub-header: from here on, only `resent` changes.
    pub fn number(&mut self, cluster: u128, client: u128, session: u64, request: u32) {
        let sub = SubHeader {
            client,
            session,
            request,
            size: self.size,
            operation: self.operation,
            reserved: [0; 14],
        };
        self.body[..SUB_HEADER_SIZE].copy_from_slice(sub.as_bytes());
        self.header = Request::new(cluster, 0, 0);
        self.header.client = client;
        self.header.request = request;
        self.header.frame.size += self.body.len() as u32;
    }

    /// Makes the next copy: counts it and seals it.
    pub fn seal_copy(&mut self) {
        self.header.resent = self.copies;
        self.header.header_mut().seal(&self.body);
        self.copies += 1;
        self.refused = false;
    }

    pub fn reply(&self) -> ReplyRef<'_> {
        assert_eq!(self.state, State::Done);
        ReplyRef {
            body: &self.body,
            op: self.op,
            timestamp: self.timestamp,
        }
    }
}

#[derive(Debug)]
pub(super) struct Calls {
    pub slots: Vec<Call>,
    free: Vec<u32>,
    max: usize,
}

impl Calls {
    pub fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            max,
        }
    }

    /// Calls that are not free.
    pub fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A new call, queued; none if the table is full.
    pub fn open(&mut self, kind: Kind, operation: u16, body: &[u8]) -> Option<CallId> {
        let index = if let Some(index) = self.free.pop() {
            index
        } else {
            if self.slots.len() == self.max {
                return None;
            }
            self.slots.push(Call::new());
            (self.slots.len() - 1) as u32
        };
        let call = &mut self.slots[index as usize];
        assert_eq!(call.state, State::Free);
        let (generation, mut bytes) = (call.generation, std::mem::take(&mut call.body));
        bytes.clear();
        bytes.resize(SUB_HEADER_SIZE, 0);
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(REQUEST_ALIGN), 0);
        *call = Call {
            state: State::Queued,
            generation,
            kind,
            body: bytes,
            operation,
            size: body.len() as u32,
            ..Call::new()
        };
        Some(CallId { index, generation })
    }

    pub fn close(&mut self, index: u32) {
        let call = &mut self.slots[index as usize];
        assert!(call.state != State::Free);
        call.state = State::Free;
        call.tag = None;
        call.generation = call.generation.wrapping_add(1);
        if call.body.capacity() > BUFFER_KEPT_SIZE {
            call.body = Vec::new();
        }
        self.free.push(index);
    }

    /// The call, if this use of its slot is not over.
    pub fn live(&mut self, id: CallId) -> Option<&mut Call> {
        let call = &mut self.slots[id.index as usize];
        (call.generation == id.generation && call.state != State::Free).then_some(call)
    }
}

impl std::ops::Index<u32> for Calls {
    type Output = Call;

    fn index(&self, index: u32) -> &Call {
        &self.slots[index as usize]
    }
}

impl std::ops::IndexMut<u32> for Calls {
    fn index_mut(&mut self, index: u32) -> &mut Call {
        &mut self.slots[index as usize]
    }
}

/// The numbers of reads in flight. A number is never used again within 2^32 reads; its low bits are its place in the
/// table, and a number whose place is taken is passed over.
#[derive(Debug)]
pub(super) struct ReadNumbers {
    places: Box<[u32]>,
    next: u32,
    used: usize,
}

const EMPTY: u32 = u32::MAX;

impl ReadNumbers {
    /// For up to `max` reads in flight.
    pub fn new(max: usize) -> Self {
        Self {
            places: vec![EMPTY; (2 * max).next_power_of_two()].into(),
            next: 1,
            used: 0,
        }
    }

    pub fn is_full(&self) -> bool {
        self.used == self.places.len() / 2
    }

    fn place(&self, number: u32) -> usize {
        number as usize & (self.places.len() - 1)
    }

    pub fn take(&mut self, call: u32) -> u32 {
        assert!(!self.is_full());
        loop {
            let number = self.next;
            self.next = self.next.checked_add(1).unwrap_or(1);
            let place = self.place(number);
            if self.places[place] == EMPTY {
                self.places[place] = call;
                self.used += 1;
                return number;
            }
        }
    }

    /// The call that may have this number; the caller compares.
    pub fn find(&self, number: u32) -> Option<u32> {
        let call = self.places[self.place(number)];
        (call != EMPTY).then_some(call)
    }

    pub fn release(&mut self, number: u32) {
        let place = self.place(number);
        assert!(self.places[place] != EMPTY);
        self.places[place] = EMPTY;
        self.used -= 1;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionState {
    /// Not open: the slot may be used for a new session.
    Absent,
    /// Its register is in flight.
    Registering(u32),
    Idle,
    /// Has this call in flight.
    Busy(u32),
}

/// The answer to a write whose caller had been told that the outcome is unknown; kept until the session is used
/// again.
#[derive(Debug)]
pub(super) struct Settled {
    pub body: Vec<u8>,
    pub op: u64,
    pub timestamp: u64,
    /// It was answered with this instead.
    pub error: Option<super::outcome::Definite>,
}

#[derive(Debug)]
pub(super) struct Session {
    pub client: u128,
    pub number: u64,
    /// Number of the last request made.
    pub request: u32,
    pub state: SessionState,
    pub settled: Option<Settled>,
}

impl Session {
    pub fn new(client: u128) -> Self {
        Self {
            client,
            number: 0,
            request: 0,
            state: SessionState::Absent,
            settled: None,
        }
    }
}
