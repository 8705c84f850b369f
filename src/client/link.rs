//! What a client knows of the replicas: which addresses are connected, who leads, and when to ask or connect again.
//!
//! Each address is a [`Link`]. An address may belong to any replica: `pong_client` tells which. All
//! times are the host's monotonic clock, in nanoseconds.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;
use storage::header::{PongClient, ReplicaStatus};

pub(super) const MILLISECOND: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1000 * MILLISECOND;

/// First pause before connecting again; doubles.
const RECONNECT_MIN_NS: u64 = 20 * MILLISECOND;
/// Longest pause before connecting again.
const RECONNECT_MAX_NS: u64 = 2 * SECOND;
/// A connection that is not established after this is given up.
const CONNECT_TIMEOUT_NS: u64 = 3 * SECOND;
/// A connection on which nothing came for this long after a ping is dead: its peer lost power, or the path broke.
const SILENCE_MAX_NS: u64 = 3 * SECOND;
/// How often a replica is asked while a primary is known.
const PING_INTERVAL_NS: u64 = SECOND;
/// The same while there is reason to doubt that primary: it may be cut off from the others, who have a new one by now.
const DOUBT_INTERVAL_NS: u64 = 200 * MILLISECOND;
/// For how long an answer that does not come is such a reason.
const DOUBT_NS: u64 = SECOND;
/// First pause between questions while no primary is known.
const SEARCH_MIN_NS: u64 = 20 * MILLISECOND;
/// Longest pause between questions while no primary is known.
const SEARCH_MAX_NS: u64 = 80 * MILLISECOND;

/// `unit << tries`, at most `most`, and of that a random half to whole: calls that failed together come back apart.
pub(super) fn backoff(random: &mut Xoshiro256PlusPlus, unit: u64, tries: u32, most: u64) -> u64 {
    let whole = unit.saturating_mul(1 << tries.min(20)).min(most);
    whole / 2 + random.next_u64() % (whole / 2 + 1)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Down { retry_at: u64 },
    Connecting { since: u64 },
    Up,
}

/// What the links want done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    Connect(usize),
    Disconnect(usize),
    Ping(usize),
}

/// Names one connection: the address, and which of the connections to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Via {
    pub link: usize,
    pub generation: u32,
}

#[derive(Debug)]
pub(super) struct Link {
    state: State,
    generation: u32,
    /// Connections in a row that brought no pong.
    failures: u32,
    ping_at: u64,
    /// Since when nothing has come although an answer is owed.
    silent_since: Option<u64>,
    /// As primary of the newest view it takes requests, as far as is known.
    ready: bool,
    pub pong: Option<PongClient>,
}

#[derive(Debug)]
pub(super) struct Links {
    pub each: Vec<Link>,
    /// The newest view heard of, and its primary's index.
    leader: Option<(u32, u8)>,
    /// Rounds of questions since a primary was last known.
    searches: u32,
    /// Until when the primary is doubted.
    doubt_until: u64,
}

impl Links {
    pub fn new(count: usize) -> Self {
        let link = || Link {
            state: State::Down { retry_at: 0 },
            generation: 0,
            failures: 0,
            ping_at: 0,
            silent_since: None,
            ready: false,
            pong: None,
        };
        Self {
            each: (0..count).map(|_| link()).collect(),
            leader: None,
            searches: 0,
            doubt_until: 0,
        }
    }

    /// The connection to a primary that takes requests, as far as is known.
    pub fn target(&self) -> Option<Via> {
        let (_, primary) = self.leader?;
        let link = self.link_of(primary)?;
        let it = &self.each[link];
        (it.state == State::Up && it.ready).then_some(Via {
            link,
            generation: it.generation,
        })
    }

    /// The link to a replica: by what its pong said, else by the order of the addresses.
    fn link_of(&self, replica: u8) -> Option<usize> {
        let is = |link: &Link| link.pong.is_some_and(|pong| pong.frame.replica == replica);
        self.each.iter().position(is).or_else(|| {
            let by_order = self.each.get(replica as usize)?;
            by_order.pong.is_none().then_some(replica as usize)
        })
    }

    pub fn via(&self, link: usize) -> Via {
        Via {
            link,
            generation: self.each[link].generation,
        }
    }

    pub fn is_up(&self, via: Via) -> bool {
        let link = &self.each[via.link];
        link.state == State::Up && link.generation == via.generation
    }

    pub fn on_connected(&mut self, now: u64, index: usize) {
        let link = &mut self.each[index];
        link.state = State::Up;
        link.generation = link.generation.wrapping_add(1);
        link.ping_at = now;
        link.silent_since = None;
        link.ready = false;
    }

    pub fn on_disconnected(&mut self, now: u64, index: usize, random: &mut Xoshiro256PlusPlus) {
        let link = &mut self.each[index];
        let pause = backoff(random, RECONNECT_MIN_NS, link.failures, RECONNECT_MAX_NS);
        link.state = State::Down {
            retry_at: now + pause,
        };
        link.failures = link.failures.saturating_add(1);
        link.ready = false;
        self.hurry(now);
    }

    pub fn on_heard(&mut self, index: usize) {
        self.each[index].silent_since = None;
    }

    pub fn on_pong(&mut self, now: u64, index: usize, pong: &PongClient) {
        let link = &mut self.each[index];
        link.failures = 0;
        link.pong = Some(*pong);
        if self.learn(pong.frame.view, pong.primary) {
            self.hurry(now);
        }
        let normal = ReplicaStatus::from_u8(pong.status) == Some(ReplicaStatus::Normal);
        let leads = self.leader == Some((pong.frame.view, pong.frame.replica));
        self.each[index].ready = normal && leads;
    }

    /// A newer view dethrones whoever was thought to lead.
    fn learn(&mut self, view: u32, primary: u8) -> bool {
        if self.leader.is_some_and(|(known, _)| known >= view) {
            return false;
        }
        self.leader = Some((view, primary));
        for link in &mut self.each {
            link.ready = false;
        }
        true
    }

    /// A replica has named the primary of its view. It is believed once for each view, so that two replicas that name
    /// each other are not obeyed for ever.
    pub fn on_hint(&mut self, now: u64, view: u32, primary: u8) {
        if self.learn(view, primary)
            && let Some(link) = self.link_of(primary)
        {
            self.each[link].ready = true;
        }
        self.hurry(now);
    }

    pub fn on_not_ready(&mut self, now: u64, index: usize) {
        self.each[index].ready = false;
        self.hurry(now);
    }

    /// The primary leaves a call without an answer, though its connection stands: ask all soon, and go on asking.
    pub fn doubt(&mut self, now: u64) {
        self.doubt_until = now + DOUBT_NS;
        self.hurry(now);
    }

    /// Something is wrong: ask all soon.
    pub fn hurry(&mut self, now: u64) {
        for link in &mut self.each {
            link.ping_at = link.ping_at.min(now + SEARCH_MIN_NS);
        }
    }

    /// Does what is due, tells `wish` of it, and returns when something is due next.
    pub fn advance(
        &mut self,
        now: u64,
        random: &mut Xoshiro256PlusPlus,
        wish: &mut impl FnMut(Wish),
    ) -> u64 {
        if self.target().is_some() {
            self.searches = 0;
        }
        let mut next = u64::MAX;
        let mut asked = false;
        for index in 0..self.each.len() {
            next = next.min(self.advance_link(now, index, random, &mut asked, wish));
        }
        if asked && self.target().is_none() {
            self.searches = self.searches.saturating_add(1);
        }
        next
    }

    fn advance_link(
        &mut self,
        now: u64,
        index: usize,
        random: &mut Xoshiro256PlusPlus,
        asked: &mut bool,
        wish: &mut impl FnMut(Wish),
    ) -> u64 {
        let searching = self.target().is_none();
        let searches = self.searches;
        let doubted = now < self.doubt_until;
        let link = &mut self.each[index];
        match link.state {
            State::Down { retry_at } if retry_at > now => return retry_at,
            State::Down { .. } => {
                link.state = State::Connecting { since: now };
                wish(Wish::Connect(index));
                return now + CONNECT_TIMEOUT_NS;
            }
            State::Connecting { since } if now < since + CONNECT_TIMEOUT_NS => {
                return since + CONNECT_TIMEOUT_NS;
            }
            State::Up
                if link
                    .silent_since
                    .is_none_or(|since| now < since + SILENCE_MAX_NS) => {}
            State::Connecting { .. } | State::Up => {
                wish(Wish::Disconnect(index));
                self.on_disconnected(now, index, random);
                return now; // its retry is armed by the next round
            }
        }
        if link.ping_at <= now {
            link.ping_at = now
                + if searching {
                    backoff(random, SEARCH_MIN_NS, searches, SEARCH_MAX_NS)
                } else if doubted {
                    DOUBT_INTERVAL_NS
                } else {
                    PING_INTERVAL_NS
                };
            link.silent_since.get_or_insert(now);
            *asked = true;
            wish(Wish::Ping(index));
        }
        let silence_ends = link
            .silent_since
            .map_or(u64::MAX, |since| since + SILENCE_MAX_NS);
        link.ping_at.min(silence_ends)
    }
}

#[cfg(test)]
impl Link {
    pub fn failures(&self) -> u32 {
        self.failures
    }
}
