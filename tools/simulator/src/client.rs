//! A simulated client: one call at a time, sent again and again, here and there, until it is answered.
//!
//! It is deliberately less polite than the client library: it repeats itself to the wrong replicas and does not wait for
//! connections. What it keeps is what at-most-once rests on: a write has one (client, session, number) for ever, and the
//! next number is not used before the last is answered.

use crate::checker::{Checker, reply_of};
use crate::prng::Prng;
use crate::workload::Workload;
use storage::checksum;
use storage::header::{
    Command, Eviction, HEADER_SIZE, Header, PingClient, PongClient, Rejected, Rejection, Request,
    SUB_HEADER_SIZE, Status, SubHeader, Typed,
};
use viewstone::engine::operation;
use viewstone::machines::Machines;
use viewstone::state_machine::Limits;
use zerocopy::{FromBytes, IntoBytes};

/// How clients behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientOptions {
    /// Mean pause between an answer and the next call, in nanoseconds.
    pub think_mean_ns: u64,
    /// An unanswered call is sent again after this long, in nanoseconds.
    pub resend_ns: u64,
    /// Chance that a call is sent to a replica drawn by chance, in parts per million.
    pub stray: u32,
}

/// Reads are numbered apart from writes: their numbers have this bit.
const READ: u32 = 1 << 31;

/// Counts of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientStatistics {
    /// Requests sent, copies included.
    pub sent: u64,
    /// Copies among them.
    pub resent: u64,
    /// Answers "busy".
    pub busy: u64,
    /// Answers "not the primary".
    pub redirected: u64,
    /// Answers "not ready".
    pub not_ready: u64,
    /// Answers to calls that had been answered.
    pub late: u64,
}

/// A call under way.
#[derive(Debug)]
struct Call {
    sub: SubHeader,
    read_only: bool,
    resent: u32,
}

/// A message a client wants sent: to whom; the bytes are in [`Client::outgoing`].
pub type Target = u8;

/// See the module's description.
#[derive(Debug)]
pub struct Client {
    id: u128,
    cluster: u128,
    replica_count: u8,
    options: ClientOptions,
    limits: Limits,
    session: Option<u64>,
    writes: u32,
    reads: u32,
    call: Option<Call>,
    primary: u8,
    /// When the next thing is to be done.
    due_ns: u64,
    /// Begins no new calls.
    draining: bool,
    /// The call under way.
    message: Vec<u8>,
    /// What is sent in place of it; empty: nothing is.
    copy: Vec<u8>,
    prng: Prng,
    statistics: ClientStatistics,
}

impl Client {
    /// A client that begins soon after the start.
    pub fn new(
        cluster: u128,
        replica_count: u8,
        options: ClientOptions,
        limits: Limits,
        mut prng: Prng,
    ) -> Self {
        Self {
            id: prng.next_u128() | 1,
            cluster,
            replica_count,
            options,
            limits,
            session: None,
            writes: 0,
            reads: 0,
            call: None,
            primary: 0,
            due_ns: prng.exponential(options.think_mean_ns),
            draining: false,
            message: Vec::new(),
            copy: Vec::new(),
            prng,
            statistics: ClientStatistics::default(),
        }
    }

    /// When the client wants [`Client::act`].
    pub fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// The message to send, after [`Client::act`] named a target.
    pub fn outgoing(&self) -> &[u8] {
        if self.copy.is_empty() {
            &self.message
        } else {
            &self.copy
        }
    }

    /// Whether a call waits for its answer.
    pub fn is_waiting(&self) -> bool {
        self.call.is_some()
    }

    /// Begins nothing new once its call is answered; or does again.
    pub fn set_draining(&mut self, draining: bool, now_ns: u64) {
        if self.draining && !draining && self.call.is_none() {
            self.due_ns = now_ns + self.prng.exponential(self.options.think_mean_ns);
        }
        self.draining = draining;
    }

    /// Counts so far.
    pub fn statistics(&self) -> &ClientStatistics {
        &self.statistics
    }

    /// Does what is due: begins a call, or sends the one under way again. The target of the message to send, if any.
    pub fn act<W: Workload>(&mut self, now_ns: u64, checker: &mut Checker<W>) -> Option<Target> {
        self.copy.clear();
        if self.call.is_none() {
            if self.draining {
                self.due_ns = u64::MAX;
                return None;
            }
            self.begin(checker);
        } else {
            self.statistics.resent += 1;
            if self.prng.chance(100_000) {
                return Some(self.ping(now_ns));
            }
            if self.session.is_some() && self.prng.chance(50_000) {
                return Some(self.register_again(now_ns));
            }
        }
        self.seal();
        self.statistics.sent += 1;
        self.due_ns = now_ns + self.options.resend_ns + self.prng.below(self.options.resend_ns);
        let call = self.call.as_mut().expect("begun above");
        let astray = self.prng.chance(self.options.stray) || call.resent % 3 == 2;
        call.resent = call.resent.saturating_add(1);
        Some(if astray {
            self.prng.below(u64::from(self.replica_count)) as u8
        } else {
            self.primary
        })
    }

    fn begin<W: Workload>(&mut self, checker: &mut Checker<W>) {
        let mut body = Vec::new();
        let (mut operation, mut read_only) = (operation::REGISTER, false);
        if self.session.is_some() {
            operation = checker.workload().request(&mut self.prng, &mut body);
            let plan = <W::Machines as Machines>::validate(&self.limits, operation, &body);
            let plan = plan.expect("the workload is for these machines");
            read_only = plan.expect("a workload's requests are valid").read_only;
        }
        let (session, request) = if read_only {
            self.reads += 1;
            (0, READ | self.reads)
        } else if let Some(session) = self.session {
            self.writes += 1;
            (session, self.writes)
        } else {
            (0, 0)
        };
        let sub = SubHeader {
            client: self.id,
            session,
            request,
            size: body.len() as u32,
            operation,
            reserved: [0; 14],
        };
        if read_only {
            checker.on_read_begin(&sub, &body);
        }
        self.message.clear();
        self.message.resize(HEADER_SIZE + sub.padded_size(), 0);
        self.message[HEADER_SIZE..][..SUB_HEADER_SIZE].copy_from_slice(sub.as_bytes());
        self.message[HEADER_SIZE + SUB_HEADER_SIZE..][..body.len()].copy_from_slice(&body);
        self.call = Some(Call {
            sub,
            read_only,
            resent: 0,
        });
    }

    /// Writes the request's header: its body never changes, the count of copies does.
    fn seal(&mut self) {
        let call = self.call.as_ref().expect("a call is under way");
        let size = HEADER_SIZE + call.sub.padded_size();
        let mut header = Request::new(self.cluster, 0, 0);
        header.frame.size = size as u32;
        header.client = self.id;
        header.request = call.sub.request;
        header.resent = call.resent;
        header.header_mut().seal(&self.message[HEADER_SIZE..size]);
        self.message[..HEADER_SIZE].copy_from_slice(header.as_bytes());
    }

    /// Asks a replica who leads, in place of sending the call again.
    fn ping(&mut self, now_ns: u64) -> Target {
        let mut ping = PingClient::new(self.cluster, 0, 0);
        ping.client = self.id;
        ping.nonce = now_ns;
        ping.header_mut().seal(&[]);
        self.copy.clear();
        self.copy.extend_from_slice(ping.as_bytes());
        self.due_ns = now_ns + self.options.resend_ns;
        self.prng.below(u64::from(self.replica_count)) as u8
    }

    /// Sends the register once more, as a very late copy would arrive, in place of sending the call again.
    fn register_again(&mut self, now_ns: u64) -> Target {
        let sub = SubHeader {
            client: self.id,
            session: 0,
            request: 0,
            size: 0,
            operation: operation::REGISTER,
            reserved: [0; 14],
        };
        let mut header = Request::new(self.cluster, 0, 0);
        header.frame.size = (HEADER_SIZE + SUB_HEADER_SIZE) as u32;
        header.client = self.id;
        header.header_mut().seal(sub.as_bytes());
        self.copy.clear();
        self.copy.extend_from_slice(header.as_bytes());
        self.copy.extend_from_slice(sub.as_bytes());
        self.due_ns = now_ns + self.options.resend_ns / 2;
        self.primary
    }

    /// Takes a message from a replica.
    pub fn on_message<W: Workload>(&mut self, now_ns: u64, bytes: &[u8], checker: &mut Checker<W>) {
        let header = Header::read_from_bytes(&bytes[..HEADER_SIZE]).expect("256 bytes");
        let size_max = self.limits.read_reply_size_max + HEADER_SIZE + SUB_HEADER_SIZE;
        let command = header.check(self.cluster, size_max);
        let command = command.expect("a replica sends what its clients accept");
        let body = &bytes[HEADER_SIZE..];
        assert_eq!(header.frame.checksum_body, checksum::body_sum(body));
        match command {
            Command::Reply => self.on_reply(now_ns, bytes, body, checker),
            Command::Rejected => self.on_rejected(now_ns, header.typed()),
            Command::PongClient => self.primary = header.typed::<PongClient>().primary,
            Command::Eviction => self.on_eviction(now_ns, header.typed(), checker),
            other => panic!("a replica sent {other:?} to a client"),
        }
    }

    fn on_reply<W: Workload>(
        &mut self,
        now_ns: u64,
        bytes: &[u8],
        body: &[u8],
        checker: &mut Checker<W>,
    ) {
        let reply = reply_of(bytes);
        assert_eq!(reply.client, self.id, "an answer to somebody else's call");
        let ours = |call: &Call| {
            (call.sub.request, call.sub.operation) == (reply.request, reply.operation)
        };
        let Some(call) = self.call.take_if(|call| ours(call)) else {
            self.statistics.late += 1;
            return;
        };
        self.primary = reply.frame.replica;
        if call.read_only {
            checker.on_read_end(&reply, body);
        } else {
            checker.on_acknowledged(&reply, body);
            let full = reply.status == Status::SessionsFull as u16;
            self.session = (!full).then_some(reply.session);
        }
        self.due_ns = now_ns + self.prng.exponential(self.options.think_mean_ns);
    }

    /// The session is gone: what became of the write under way, if there is one, the client will not know.
    fn on_eviction<W: Workload>(
        &mut self,
        now_ns: u64,
        eviction: &Eviction,
        checker: &mut Checker<W>,
    ) {
        assert_eq!(eviction.client, self.id);
        checker.on_evicted(self.id, eviction.session);
        if self.session != Some(eviction.session) {
            self.statistics.late += 1;
            return;
        }
        self.session = None;
        if self.call.take_if(|call| !call.read_only).is_some() {
            self.due_ns = now_ns + self.prng.exponential(self.options.think_mean_ns);
        }
    }

    fn on_rejected(&mut self, now_ns: u64, rejected: &Rejected) {
        assert_eq!(rejected.client, self.id);
        let waits = |call: &Call| call.sub.request == rejected.request;
        if !self.call.as_ref().is_some_and(waits) {
            self.statistics.late += 1;
            return;
        }
        let reason = Rejection::from_u16(rejected.reason).expect("the header was checked");
        let pause_ns = match reason {
            Rejection::Busy => {
                self.statistics.busy += 1;
                self.options.resend_ns / 4
            }
            Rejection::NotPrimary => {
                self.statistics.redirected += 1;
                self.primary = rejected.hint;
                0
            }
            Rejection::NotReady => {
                self.statistics.not_ready += 1;
                self.options.resend_ns / 4
            }
            other => panic!("a valid request was refused: {other:?}"),
        };
        let soon = now_ns + self.prng.exponential(pause_ns.max(1000));
        self.due_ns = self.due_ns.min(soon);
    }
}
