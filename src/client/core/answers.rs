//! What a client does with each message from a replica.

use super::{
    BUSY_MAX_NS, BUSY_MIN_NS, Core, Definite, Eviction, Kind, NotSent, PongClient, Queued, READER,
    Rejected, ReplyHeader, SESSIONS_FULL_PAUSE_NS, SessionState, State, Unknown, UnknownReason,
    backoff,
};
use crate::client::call::CallId;
use crate::client::outcome::CallError;
use storage::header::{Rejection, Status};

impl Core {
    /// The call in flight that this client id and number name; none if the message is stale or a duplicate.
    fn find(&self, client: u128, request: u32) -> Option<u32> {
        let index = if client as u16 == READER {
            if client != self.reader {
                return None;
            }
            self.numbers.find(request)?
        } else {
            let session = self.sessions.get(client as u16 as usize)?;
            match session.state {
                SessionState::Registering(index) | SessionState::Busy(index)
                    if session.client == client =>
                {
                    index
                }
                _ => return None,
            }
        };
        let call = &self.calls[index];
        (call.state == State::Flying && call.header.request == request).then_some(index)
    }

    pub(super) fn on_pong(&mut self, from: usize, pong: &PongClient) {
        self.message_size_max = pong.message_size_max as usize;
        self.links.on_pong(self.now, from, pong);
        if self.links.target().is_none() {
            self.arm(self.now); // the links may want to ask again sooner
        }
    }

    pub(super) fn on_reply(&mut self, header: &ReplyHeader, body: &[u8]) {
        let Some(index) = self.find(header.client, header.request) else {
            self.statistics.ignored += 1;
            return;
        };
        let call = &self.calls[index];
        let session_matches = match call.kind {
            Kind::Write => self.sessions[call.session as usize].number == header.session,
            Kind::Read | Kind::Register => true,
        };
        if call.operation != header.operation || !session_matches {
            self.statistics.ignored += 1;
            return;
        }
        if call.copies == 1 {
            let sample = self.now.saturating_sub(call.sent_at);
            self.round_trip_ns = (7 * self.round_trip_ns + sample) / 8;
        }
        let status = Status::from_u16(header.status).expect("the host has checked the rules");
        match (call.kind, status) {
            (Kind::Register, Status::Ok) => self.on_registered(index, header.session),
            (Kind::Register, _) => self.on_register_failed(index, Definite::SessionsFull),
            (_, Status::Ok) => self.on_answer(index, header, body),
            (_, Status::OutOfSpace) => self.fail(index, Definite::OutOfSpace),
            (_, Status::SessionsFull) => self.fail(index, Definite::SessionsFull),
            (_, Status::NotUnderstood) => self.fail(index, Definite::UnknownOperation),
        }
    }

    fn on_answer(&mut self, index: u32, header: &ReplyHeader, body: &[u8]) {
        let call = &mut self.calls[index];
        call.body.clear();
        call.body.extend_from_slice(body);
        call.op = header.op;
        call.timestamp = header.timestamp;
        if call.tag.is_none() {
            self.settle(index, None);
            self.release(index);
            return;
        }
        let generation = call.generation;
        self.unbind(index);
        self.calls[index].state = State::Done;
        self.outputs
            .push_back(Queued::Answered(CallId { index, generation }));
    }

    fn on_registered(&mut self, index: u32, number: u64) {
        let slot = self.calls[index].session;
        self.release(index);
        let session = &mut self.sessions[slot as usize];
        session.number = number;
        session.state = SessionState::Idle;
        self.idle.push_back(slot);
    }

    /// The cluster opens no session. Calls wait for those that are open; if none is, they are told.
    fn on_register_failed(&mut self, index: u32, error: Definite) {
        let slot = self.calls[index].session;
        self.release(index);
        self.sessions[slot as usize].state = SessionState::Absent;
        self.absent.push(slot);
        self.register_after = self.now.saturating_add(SESSIONS_FULL_PAUSE_NS);
        let open = |state| matches!(state, SessionState::Idle | SessionState::Busy(_));
        if self.registering > 0 || self.sessions.iter().any(|session| open(session.state)) {
            return;
        }
        while let Some(id) = self.writes.pop_front() {
            let Some(call) = self.calls.live(id) else {
                continue;
            };
            if let Some(tag) = call.tag.take() {
                self.outputs.push_back(Queued::Failed(tag, error.into()));
                self.release(id.index);
            }
        }
    }

    pub(super) fn on_rejected(&mut self, from: usize, header: &Rejected) {
        let reason = Rejection::from_u16(header.reason).expect("the host has checked the rules");
        match reason {
            Rejection::NotPrimary => {
                self.links.on_hint(self.now, header.frame.view, header.hint);
                if self
                    .links
                    .target()
                    .is_some_and(|target| target.link == from)
                {
                    self.links.on_not_ready(self.now, from); // until it says otherwise
                }
                self.arm(self.now);
            }
            Rejection::NotReady => {
                self.links.on_not_ready(self.now, from);
                self.arm(self.now);
            }
            Rejection::Busy => self.statistics.busy += 1,
            Rejection::Invalid | Rejection::UnknownOperation => {}
        }
        let Some(index) = self.find(header.client, header.request) else {
            self.statistics.ignored += 1;
            return;
        };
        let definite = match reason {
            Rejection::Invalid => Some(Definite::Invalid),
            Rejection::UnknownOperation => Some(Definite::UnknownOperation),
            Rejection::Busy | Rejection::NotPrimary | Rejection::NotReady => None,
        };
        match definite {
            Some(error) if self.calls[index].kind == Kind::Register => {
                self.on_register_failed(index, error);
            }
            Some(error) => self.fail(index, error),
            None => self.back_off(index, from, reason),
        }
    }

    /// This copy was not taken: send the next after a pause, or at once where a new primary is known (`dispatch`
    /// does that).
    fn back_off(&mut self, index: u32, from: usize, reason: Rejection) {
        let via = self.links.via(from);
        let call = &mut self.calls[index];
        if call.via != Some(via) {
            self.statistics.ignored += 1; // of an earlier copy; a later one is under way elsewhere
            return;
        }
        call.refused = call.copies == 1;
        call.attempts += 1;
        let attempts = call.attempts;
        let pause = backoff(&mut self.random, BUSY_MIN_NS, attempts, BUSY_MAX_NS);
        let call = &mut self.calls[index];
        call.resend_at = self.now.saturating_add(pause);
        if reason == Rejection::NotReady {
            // It answers pings still: when one says that it is ready, the request need not wait any longer.
            call.via = None;
        }
        let resend_at = call.resend_at;
        self.arm(resend_at);
    }

    /// The session is gone for good, and with it whether its last request was executed.
    pub(super) fn on_eviction(&mut self, header: &Eviction) {
        let slot = header.client as u16;
        let Some(session) = self.sessions.get_mut(slot as usize) else {
            self.statistics.ignored += 1;
            return;
        };
        if session.client != header.client || session.number != header.session {
            self.statistics.ignored += 1;
            return;
        }
        let state = session.state;
        let unknown = Unknown {
            client: session.client,
            session: session.number,
            request: session.request,
            reason: UnknownReason::Evicted,
        };
        match state {
            SessionState::Idle => self.idle.retain(|&other| other != slot),
            SessionState::Busy(index) => {
                let call = &self.calls[index];
                if let Some(tag) = call.tag {
                    let error: CallError = if call.copies == 0 {
                        NotSent::Refused.into()
                    } else {
                        unknown.into()
                    };
                    self.outputs.push_back(Queued::Failed(tag, error));
                }
                self.sessions[slot as usize].state = SessionState::Absent;
                self.release(index);
            }
            SessionState::Absent | SessionState::Registering(_) => {
                self.statistics.ignored += 1;
                return;
            }
        }
        self.statistics.evicted += 1;
        self.sessions[slot as usize].state = SessionState::Absent;
        self.absent.push(slot);
    }
}
