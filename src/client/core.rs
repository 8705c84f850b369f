//! The client's protocol, pure: it reads no clock, opens no socket and draws no randomness but from its seed. The
//! threaded [`Client`](super::Client), the load generator and the simulator host this same code.
//!
//! Events come in ([`Core::on_connected`], [`Core::on_disconnected`], [`Core::on_message`], [`Core::advance`], and the
//! calls: [`Core::submit`], [`Core::resolve`]); after each, the host takes what [`Core::poll`] has, until it has
//! nothing. It promises:
//!
//! * A write is sent under one (client, session, request number) for ever, its bytes equal but for the count of copies:
//!   so it is executed at most once, however often it is sent and to whichever replica.
//! * A session has one request in flight. When a caller is told that an outcome is unknown, the request goes on being
//!   resent without it, and the session is not used for another call until the outcome is known: the cluster is never
//!   asked to skip a request that somebody may still want to settle ([`Core::resolve`]).
//! * [`NotSent`] is said only of a call that no replica took; [`Unknown`] of every write that one may have.
//!
//! A connection is a stream: the host delivers what is sent on it in order, once, or ends it with
//! [`Core::on_disconnected`]; and it delivers nothing of an ended connection.

mod answers;
#[cfg(test)]
mod tests;

pub use super::call::Kind;
use super::call::{Call, CallId, Calls, NEVER, READER, ReadNumbers, Session, SessionState, State};
use super::link::{Links, MILLISECOND, SECOND, Via, Wish, backoff};
use super::outcome::{CallError, Definite, NotSent, ReplyRef, Unknown, UnknownReason};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;
use storage::header::{
    Command, Eviction, HEADER_SIZE, Header, PingClient, PongClient, Rejected, Reply as ReplyHeader,
    Typed,
};

/// The replica's own operation that opens a session.
pub const REGISTER: u16 = 1;

/// Largest number of sessions a core may hold: the low 16 bits of a client id name them.
pub const SESSIONS_MAX: usize = READER as usize;

/// Shortest time before an unanswered request is sent again on a connection that seems alive.
const RESEND_MIN_NS: u64 = 500 * MILLISECOND;
/// Longest such time.
const RESEND_MAX_NS: u64 = 10 * SECOND;
/// First pause after "busy".
const BUSY_MIN_NS: u64 = 2 * MILLISECOND;
/// Longest pause after "busy" or "not ready".
const BUSY_MAX_NS: u64 = 500 * MILLISECOND;
/// How long no further session is asked for after the cluster had none left.
const SESSIONS_FULL_PAUSE_NS: u64 = SECOND;
/// Timers are looked at no more often than this: thousands of calls may each have one.
const TIMER_STEP_NS: u64 = MILLISECOND;

/// What a core is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoreOptions {
    /// The cluster's id.
    pub cluster: u128,
    /// Number of addresses.
    pub addresses: usize,
    /// Most sessions, and with it most writes in flight; 1 to [`SESSIONS_MAX`]. They are opened as they are needed.
    pub sessions_max: usize,
    /// Most calls held, queued ones included; one more is refused with [`NotSent::QueueFull`].
    pub calls_max: usize,
    /// Most reads in flight; further ones queue.
    pub reads_max: usize,
    /// Entropy: client ids and jitter come from it.
    pub seed: [u8; 32],
}

/// What the host is to do.
#[derive(Debug)]
pub enum Output<'a> {
    /// Connect to this address; answer with `on_connected` or `on_disconnected`.
    Connect(usize),
    /// Close the connection to this address, or give up connecting. No answer is expected.
    Disconnect(usize),
    /// Send this message to this address.
    Send {
        /// Index of the address.
        to: usize,
        /// Its sealed header.
        header: &'a Header,
        /// What follows it.
        body: &'a [u8],
    },
    /// A call has ended.
    Done {
        /// The caller's name for it.
        tag: u64,
        /// How.
        result: Result<ReplyRef<'a>, CallError>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Queued {
    Wish(Wish),
    Send(CallId, Via),
    Answered(CallId),
    Failed(u64, CallError),
}

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Requests sent, first copies and further ones.
    pub sent: u64,
    /// Further copies among them.
    pub resent: u64,
    /// Answers "busy".
    pub busy: u64,
    /// Sessions lost to eviction.
    pub evicted: u64,
    /// Messages that matched nothing, or broke a rule.
    pub ignored: u64,
}

/// The protocol of one client process.
#[derive(Debug)]
pub struct Core {
    options: CoreOptions,
    random: Xoshiro256PlusPlus,
    reader: u128,
    now: u64,
    calls: Calls,
    sessions: Vec<Session>,
    /// Sessions without a request, the longest unused first: all stay in use, and none looks idle to the cluster.
    idle: VecDeque<u16>,
    absent: Vec<u16>,
    writes: VecDeque<CallId>,
    reads: VecDeque<CallId>,
    numbers: ReadNumbers,
    registering: usize,
    register_after: u64,
    links: Links,
    /// The target to which everything in flight has been sent.
    flushed: Option<Via>,
    outputs: VecDeque<Queued>,
    /// A call whose answer the host has been lent, to be closed at the next poll.
    lent: Option<u32>,
    ping: PingClient,
    pings: u64,
    /// No timer is due before this.
    timer_at: u64,
    round_trip_ns: u64,
    message_size_max: usize,
    statistics: Statistics,
    closed: bool,
}

impl Core {
    /// A client that is not connected yet.
    pub fn new(options: CoreOptions) -> Self {
        assert!((1..=SESSIONS_MAX).contains(&options.sessions_max));
        assert!(options.calls_max > 0 && options.reads_max > 0 && options.addresses > 0);
        let mut random = Xoshiro256PlusPlus::from_seed(options.seed);
        let reader = client_id(&mut random, READER);
        Self {
            options,
            random,
            reader,
            now: 0,
            // Registers take a slot each beside the calls.
            calls: Calls::new(options.calls_max + options.sessions_max),
            sessions: Vec::new(),
            idle: VecDeque::new(),
            absent: Vec::new(),
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            numbers: ReadNumbers::new(options.reads_max),
            registering: 0,
            register_after: 0,
            links: Links::new(options.addresses),
            flushed: None,
            outputs: VecDeque::new(),
            lent: None,
            ping: PingClient::new(options.cluster, 0, 0),
            pings: 0,
            timer_at: 0,
            round_trip_ns: 0,
            message_size_max: usize::MAX,
            statistics: Statistics::default(),
            closed: false,
        }
    }

    /// Queues a call. It ends with an [`Output::Done`] of this tag, at the latest shortly after `deadline_ns`.
    ///
    /// # Errors
    /// [`NotSent::QueueFull`] or [`NotSent::Closed`].
    pub fn submit(
        &mut self,
        now_ns: u64,
        kind: Kind,
        operation: u16,
        body: &[u8],
        deadline_ns: u64,
        tag: u64,
    ) -> Result<(), NotSent> {
        assert!(kind != Kind::Register);
        self.now = now_ns;
        if self.closed {
            return Err(NotSent::Closed);
        }
        if self.calls.used() - self.registering >= self.options.calls_max {
            return Err(NotSent::QueueFull);
        }
        let id = self
            .calls
            .open(kind, operation, body)
            .ok_or(NotSent::QueueFull)?;
        let call = &mut self.calls[id.index];
        call.tag = Some(tag);
        call.deadline = deadline_ns;
        match kind {
            Kind::Write => self.writes.push_back(id),
            _ => self.reads.push_back(id),
        }
        self.arm(deadline_ns);
        self.dispatch();
        Ok(())
    }

    /// Waits again for a call whose outcome was said to be unknown. Ends as [`Core::submit`] does; with the old outcome
    /// if that is known by now.
    pub fn resolve(&mut self, now_ns: u64, unknown: &Unknown, deadline_ns: u64, tag: u64) {
        self.now = now_ns;
        if let Err(error) = self.try_resolve(unknown, deadline_ns, tag) {
            self.outputs.push_back(Queued::Failed(tag, error));
        }
    }

    fn try_resolve(&mut self, unknown: &Unknown, deadline: u64, tag: u64) -> Result<(), CallError> {
        let superseded = Unknown {
            reason: UnknownReason::Superseded,
            ..*unknown
        };
        let index = unknown.client as u16 as usize;
        let session = self.sessions.get_mut(index).filter(|session| {
            (session.client, session.number, session.request)
                == (unknown.client, unknown.session, unknown.request)
        });
        let session = session.ok_or(superseded)?;
        if let SessionState::Busy(index) = session.state {
            let call = &mut self.calls[index];
            if call.tag.is_some() {
                return Err(superseded.into());
            }
            call.tag = Some(tag);
            call.deadline = deadline;
            self.arm(deadline);
            return Ok(());
        }
        if self.calls.used() - self.registering >= self.options.calls_max {
            return Err(NotSent::QueueFull.into());
        }
        let settled = session.settled.take().ok_or(superseded)?;
        if let Some(error) = settled.error {
            return Err(error.into());
        }
        let id = self
            .calls
            .open(Kind::Write, 0, &[])
            .ok_or(NotSent::QueueFull)?;
        let call = &mut self.calls[id.index];
        call.tag = Some(tag);
        call.state = State::Done;
        call.body = settled.body;
        (call.op, call.timestamp) = (settled.op, settled.timestamp);
        self.outputs.push_back(Queued::Answered(id));
        Ok(())
    }

    /// The connection to an address stands.
    pub fn on_connected(&mut self, now_ns: u64, from: usize) {
        self.now = now_ns;
        self.links.on_connected(now_ns, from);
        self.arm(now_ns);
        self.advance(now_ns);
    }

    /// The connection to an address is gone, or could not be made.
    pub fn on_disconnected(&mut self, now_ns: u64, from: usize) {
        self.now = now_ns;
        self.links.on_disconnected(now_ns, from, &mut self.random);
        self.arm(now_ns);
        self.advance(now_ns);
    }

    /// A message has come whose sums and rules hold ([`Header::check`], [`Header::check_body`]).
    pub fn on_message(&mut self, now_ns: u64, from: usize, header: &Header, body: &[u8]) {
        self.now = now_ns;
        self.links.on_heard(from);
        match header.command() {
            Some(Command::Reply) => self.on_reply(header.typed::<ReplyHeader>(), body),
            Some(Command::PongClient) => self.on_pong(from, header.typed::<PongClient>()),
            Some(Command::Rejected) => self.on_rejected(from, header.typed::<Rejected>()),
            Some(Command::Eviction) => self.on_eviction(header.typed::<Eviction>()),
            _ => self.statistics.ignored += 1,
        }
        self.dispatch();
    }

    /// Time has passed. Does nothing unless something is due.
    pub fn advance(&mut self, now_ns: u64) {
        self.now = now_ns;
        if now_ns >= self.timer_at && !self.closed {
            let outputs = &mut self.outputs;
            let mut wish = |wish| outputs.push_back(Queued::Wish(wish));
            self.timer_at = self.links.advance(now_ns, &mut self.random, &mut wish);
            for index in 0..self.calls.slots.len() as u32 {
                self.advance_call(index);
            }
            self.forget_ended();
            self.timer_at = self.timer_at.max(now_ns + TIMER_STEP_NS);
        }
        self.dispatch();
    }

    /// Keeps the queues as short as the table: while there is no primary, nothing else takes ended calls out of them.
    fn forget_ended(&mut self) {
        let calls = &mut self.calls;
        for queue in [&mut self.writes, &mut self.reads] {
            if queue.len() > calls.used() {
                queue.retain(|&id| calls.live(id).is_some());
            }
        }
    }

    /// When [`Core::advance`] wants to be called, if nothing else happens before.
    pub fn deadline_ns(&self) -> u64 {
        self.timer_at
    }

    /// Ends every call and takes no more: what was sent is unknown.
    pub fn close(&mut self) {
        self.closed = true;
        for index in 0..self.calls.slots.len() as u32 {
            let call = &self.calls[index];
            if matches!(call.state, State::Queued | State::Flying) {
                self.give_up(index, NotSent::Closed, UnknownReason::Closed);
            }
        }
    }

    /// Calls that have not ended, except those whose callers were told that the outcome is unknown.
    pub fn calls_open(&self) -> usize {
        self.calls
            .slots
            .iter()
            .filter(|call| call.tag.is_some())
            .count()
    }

    /// What each address last said of its replica.
    pub fn replicas(&self) -> impl Iterator<Item = Option<&PongClient>> {
        self.links.each.iter().map(|link| link.pong.as_ref())
    }

    /// The address of a primary that takes requests, as far as is known.
    pub fn primary(&self) -> Option<usize> {
        self.links.target().map(|via| via.link)
    }

    /// Counts since the start.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// The next thing to do. What it borrows is valid until the next call of a method.
    pub fn poll(&mut self) -> Option<Output<'_>> {
        if let Some(index) = self.lent.take() {
            self.calls.close(index);
        }
        loop {
            match self.outputs.pop_front()? {
                Queued::Wish(Wish::Connect(to)) => return Some(Output::Connect(to)),
                Queued::Wish(Wish::Disconnect(to)) => return Some(Output::Disconnect(to)),
                Queued::Wish(Wish::Ping(to)) => return Some(self.ping(to)),
                Queued::Failed(tag, error) => {
                    let result = Err(error);
                    return Some(Output::Done { tag, result });
                }
                Queued::Answered(id) => {
                    let call = &self.calls[id.index];
                    assert!(call.generation == id.generation && call.state == State::Done);
                    let tag = call
                        .tag
                        .expect("an answer without a caller is kept with its session");
                    self.lent = Some(id.index);
                    let result = Ok(call.reply());
                    return Some(Output::Done { tag, result });
                }
                Queued::Send(id, via) => {
                    let up = self.links.is_up(via);
                    let flying = self
                        .calls
                        .live(id)
                        .is_some_and(|call| call.state == State::Flying);
                    if up && flying {
                        return Some(self.send_copy(id.index, via));
                    }
                }
            }
        }
    }

    fn ping(&mut self, to: usize) -> Output<'_> {
        self.pings += 1;
        self.ping.client = self.reader;
        self.ping.nonce = self.pings;
        self.ping.header_mut().seal(&[]);
        Output::Send {
            to,
            header: self.ping.header(),
            body: &[],
        }
    }

    fn send_copy(&mut self, index: u32, via: Via) -> Output<'_> {
        let call = &mut self.calls[index];
        self.statistics.sent += 1;
        self.statistics.resent += u64::from(call.copies > 0);
        call.seal_copy();
        Output::Send {
            to: via.link,
            header: call.header.header(),
            body: &call.body,
        }
    }

    fn arm(&mut self, at: u64) {
        self.timer_at = self.timer_at.min(at);
    }

    /// Sends what can be sent. The one place where calls leave the queues.
    fn dispatch(&mut self) {
        let target = self.links.target();
        if target != self.flushed {
            self.flushed = target;
            if let Some(target) = target {
                self.flush(target);
            }
        }
        let Some(target) = target else { return };
        while !self.numbers.is_full() {
            let Some(id) = self.reads.pop_front() else {
                break;
            };
            if self
                .calls
                .live(id)
                .is_some_and(|call| call.state == State::Queued)
            {
                self.fly_read(id.index, target);
            }
        }
        while let Some(&id) = self.writes.front() {
            let queued = self
                .calls
                .live(id)
                .is_some_and(|call| call.state == State::Queued);
            if queued {
                let Some(session) = self.idle.pop_front() else {
                    self.open_sessions(target);
                    return;
                };
                self.fly_write(id.index, session, target);
            }
            self.writes.pop_front();
        }
    }

    /// A new primary, or a new connection to it: everything in flight goes there, under its old numbers.
    fn flush(&mut self, target: Via) {
        for index in 0..self.calls.slots.len() as u32 {
            let call = &self.calls[index];
            if call.state == State::Flying && call.via != Some(target) {
                self.fly(index, target);
            }
        }
    }

    fn fly_read(&mut self, index: u32, target: Via) {
        let number = self.numbers.take(index);
        self.calls[index].number(self.options.cluster, self.reader, 0, number);
        self.take_off(index, target);
    }

    fn fly_write(&mut self, index: u32, session: u16, target: Via) {
        let it = &mut self.sessions[session as usize];
        assert_eq!(it.state, SessionState::Idle);
        it.state = SessionState::Busy(index);
        it.settled = None;
        it.request += 1;
        let call = &mut self.calls[index];
        call.session = session;
        call.number(self.options.cluster, it.client, it.number, it.request);
        self.take_off(index, target);
    }

    fn take_off(&mut self, index: u32, target: Via) {
        let call = &mut self.calls[index];
        assert_eq!(call.state, State::Queued);
        call.state = State::Flying;
        let size = HEADER_SIZE + call.body.len();
        let size_max = self.message_size_max;
        if size > size_max {
            self.fail(index, Definite::TooLarge { size, size_max });
        } else {
            self.fly(index, target);
        }
    }

    fn fly(&mut self, index: u32, target: Via) {
        let timeout = self.resend_after(index);
        let call = &mut self.calls[index];
        assert_eq!(call.state, State::Flying);
        call.via = Some(target);
        call.sent_at = self.now;
        call.resend_at = self.now.saturating_add(timeout);
        let (resend_at, generation) = (call.resend_at, call.generation);
        self.arm(resend_at);
        self.outputs
            .push_back(Queued::Send(CallId { index, generation }, target));
    }

    fn resend_after(&mut self, index: u32) -> u64 {
        let unit = (8 * self.round_trip_ns).clamp(RESEND_MIN_NS, RESEND_MAX_NS);
        let attempts = self.calls[index].attempts;
        // Twice, because the backoff may halve it: never shorter than the unit.
        backoff(&mut self.random, 2 * unit, attempts, 2 * RESEND_MAX_NS)
    }

    /// As many registers as there are writes waiting beyond those under way.
    fn open_sessions(&mut self, target: Via) {
        while self.registering < self.writes.len() && self.now >= self.register_after {
            let index = if let Some(index) = self.absent.pop() {
                index
            } else if self.sessions.len() < self.options.sessions_max {
                self.sessions.push(Session::new(0));
                (self.sessions.len() - 1) as u16
            } else {
                return;
            };
            let id = self.calls.open(Kind::Register, REGISTER, &[]);
            let id = id.expect("the table has a slot for each session's register");
            let session = &mut self.sessions[index as usize];
            assert_eq!(session.state, SessionState::Absent);
            *session = Session::new(client_id(&mut self.random, index));
            session.state = SessionState::Registering(id.index);
            self.registering += 1;
            let call = &mut self.calls[id.index];
            call.session = index;
            call.number(self.options.cluster, session.client, 0, 0);
            self.take_off(id.index, target);
        }
        if self.now < self.register_after {
            self.arm(self.register_after);
        }
    }

    fn advance_call(&mut self, index: u32) {
        let call = &mut self.calls[index];
        if matches!(call.state, State::Free | State::Done) {
            return;
        }
        if call.deadline <= self.now {
            self.give_up(index, NotSent::Deadline, UnknownReason::Deadline);
        }
        let call = &mut self.calls[index];
        if call.state == State::Flying && call.resend_at <= self.now {
            call.attempts += 1;
            call.resend_at = NEVER;
            self.links.doubt(self.now);
            self.timer_at = self.now; // the links have something to do soon
            match self.links.target() {
                Some(target) => self.fly(index, target),
                None => self.calls[index].via = None, // the next flush takes it
            }
        }
        let call = &self.calls[index];
        if matches!(call.state, State::Queued | State::Flying) {
            let next = call.deadline.min(call.resend_at);
            self.arm(next);
        }
    }

    /// The caller waits no longer. What was sent goes on without it, unless it is a read.
    fn give_up(&mut self, index: u32, not_sent: NotSent, reason: UnknownReason) {
        let call = &mut self.calls[index];
        call.deadline = NEVER;
        let Some(tag) = call.tag.take() else { return };
        let error = match (call.state, call.kind) {
            (State::Queued, _) => CallError::NotSent(not_sent),
            _ if call.copies == 0 => CallError::NotSent(not_sent),
            (_, Kind::Read) => CallError::Definite(Definite::NoAnswer),
            _ if call.copies == 1 && call.refused => CallError::NotSent(NotSent::Refused),
            _ => {
                let session = &self.sessions[call.session as usize];
                CallError::Indeterminate(Unknown {
                    client: session.client,
                    session: session.number,
                    request: session.request,
                    reason,
                })
            }
        };
        self.outputs.push_back(Queued::Failed(tag, error));
        if !error.is_indeterminate() {
            self.release(index);
        }
    }

    /// The call is over for the protocol: its number or session is free again, and its slot.
    fn release(&mut self, index: u32) {
        self.unbind(index);
        self.calls.close(index);
    }

    fn unbind(&mut self, index: u32) {
        let call = &self.calls[index];
        if call.state != State::Flying {
            return;
        }
        match call.kind {
            Kind::Read => self.numbers.release(call.header.request),
            Kind::Register => self.registering -= 1,
            Kind::Write => {
                let session = &mut self.sessions[call.session as usize];
                if session.state == SessionState::Busy(index) {
                    self.idle_or_retire(call.session);
                }
            }
        }
    }

    fn idle_or_retire(&mut self, index: u16) {
        let session = &mut self.sessions[index as usize];
        if session.request == u32::MAX {
            session.state = SessionState::Absent; // its numbers are used up
            self.absent.push(index);
        } else {
            session.state = SessionState::Idle;
            self.idle.push_back(index);
        }
    }

    /// Ends a call in flight with an error that says it had no effect.
    fn fail(&mut self, index: u32, error: Definite) {
        let call = &self.calls[index];
        assert_eq!(call.state, State::Flying);
        match call.tag {
            Some(tag) => self.outputs.push_back(Queued::Failed(tag, error.into())),
            None => self.settle(index, Some(error)),
        }
        self.release(index);
    }

    /// Keeps the outcome of a write nobody waits for.
    fn settle(&mut self, index: u32, error: Option<Definite>) {
        let call: &mut Call = &mut self.calls[index];
        if call.kind == Kind::Write {
            let session = &mut self.sessions[call.session as usize];
            session.settled = Some(super::call::Settled {
                body: std::mem::take(&mut call.body),
                op: call.op,
                timestamp: call.timestamp,
                error,
            });
        }
    }
}

fn client_id(random: &mut Xoshiro256PlusPlus, index: u16) -> u128 {
    let bits = (u128::from(random.next_u64()) << 64) | u128::from(random.next_u64());
    // A draw of 112 zero bits with index zero would be the one id that is none.
    (bits | 1 << 127) & !u128::from(u16::MAX) | u128::from(index)
}
