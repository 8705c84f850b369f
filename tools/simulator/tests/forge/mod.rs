//! Messages that are sealed and keep their command's rules, and say anything.

use simulator::prng::Prng;
use storage::header::{
    Command, DoViewChange, Eviction, HEADER_SIZE, Header, NUMBER_MAX, Page, PageReference,
    PingClient, PongClient, Prepare, PrepareKind, Rejected, Rejection, Reply, Request,
    RequestPages, StartView, Typed, VIEW_MAX,
};
use storage::layout::Geometry;
use viewstone::replica::{ConnectionId, Peer, Progress};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Messages that are remembered, to be told again with changes.
const HEARD_MAX: usize = 256;

/// Changes that are tried until one keeps the rules.
const TRIES_MAX: usize = 60;

/// A message.
#[derive(Clone)]
pub struct Sealed {
    header: Header,
    body: Vec<u8>,
}

impl Sealed {
    fn of(bytes: &[u8]) -> Self {
        Self {
            header: Header::read_from_bytes(&bytes[..HEADER_SIZE]).expect("a header"),
            body: bytes[HEADER_SIZE..].to_vec(),
        }
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.header.as_bytes(), &self.body].concat()
    }

    fn seal(&mut self) {
        self.header.frame.size = (HEADER_SIZE + self.body.len()) as u32;
        self.header.seal(&self.body);
    }

    /// The headers in the body.
    fn headers(&self) -> Vec<Header> {
        let each = self.body.chunks_exact(HEADER_SIZE);
        each.map(|bytes| Header::read_from_bytes(bytes).expect("a header"))
            .collect()
    }

    fn set_headers(&mut self, headers: &[Header]) {
        self.body = headers.as_bytes().to_vec();
    }
}

/// See the module's description.
pub struct Forge {
    cluster: u128,
    replica_count: u8,
    geometry: Geometry,
    prng: Prng,
    heard: Vec<Sealed>,
    next: usize,
    /// Whether it also makes logs that contradict the true one: who believes those cannot go on for long.
    invents_logs: bool,
    /// Whether it also says numbers from the far end of what can be said: who believes those gets stuck.
    exaggerates: bool,
}

impl Forge {
    pub fn new(cluster: u128, replica_count: u8, geometry: Geometry, mut prng: Prng) -> Self {
        Self {
            cluster,
            replica_count,
            geometry,
            heard: Vec::new(),
            next: 0,
            invents_logs: prng.coin(),
            exaggerates: prng.coin(),
            prng,
        }
    }

    /// Remembers a true message, instead of the oldest.
    pub fn hear(&mut self, bytes: &[u8]) {
        let sealed = Sealed::of(bytes);
        if self.heard.len() < HEARD_MAX {
            self.heard.push(sealed);
        } else {
            self.heard[self.next] = sealed;
            self.next = (self.next + 1) % HEARD_MAX;
        }
    }

    /// A message to `victim`, and whom it comes from; none if nothing came of the attempt.
    pub fn message(&mut self, victim: u8, progress: &Progress) -> Option<(Peer, Sealed)> {
        for _ in 0..TRIES_MAX {
            let mut message = match self.prng.below(10) {
                0..4 => self.heard_and_changed(progress),
                4 => self.heard(|_| true),
                5 if self.invents_logs => self.child(progress),
                6 | 7 if self.invents_logs => Some(self.log(progress)),
                _ => Some(self.invented(progress)),
            }?;
            let (command, from) = (message.header.command()?, self.author(victim));
            let from = match command {
                Command::Request | Command::PingClient => Peer::Client(ConnectionId {
                    index: 0,
                    generation: 0,
                }),
                Command::Prepare | Command::Headers => Peer::Replica(from),
                Command::StartView | Command::Commit if self.prng.coin() => {
                    // Of those only the primary's are looked at.
                    let primary = message.header.frame.view % u32::from(self.replica_count);
                    message.header.frame.replica = primary as u8;
                    Peer::Replica(primary as u8)
                }
                _ => {
                    message.header.frame.replica = from;
                    Peer::Replica(from)
                }
            };
            message.seal();
            let size_max = self.geometry.message_size_max as usize;
            if from != Peer::Replica(victim) && message.header.check(self.cluster, size_max).is_ok()
            {
                return Some((from, message));
            }
        }
        None
    }

    fn author(&mut self, victim: u8) -> u8 {
        let step = 1 + self.prng.below(u64::from(self.replica_count) - 1) as u8;
        (victim + step) % self.replica_count
    }

    fn heard(&mut self, which: impl Fn(&Sealed) -> bool) -> Option<Sealed> {
        let all: Vec<_> = self.heard.iter().filter(|it| which(it)).collect();
        if all.is_empty() {
            return None;
        }
        Some(all[self.prng.index(all.len())].clone())
    }

    fn heard_and_changed(&mut self, progress: &Progress) -> Option<Sealed> {
        // Each command as often as another, though most of what is said is few of them.
        let command = *self.prng.pick(&Command::ALL) as u8;
        let mut message = self.heard(|it| it.header.frame.command == command)?;
        for _ in 0..self.prng.below(3) {
            self.change(&mut message.header, progress);
        }
        let holds_headers = matches!(
            message.header.command(),
            Some(Command::DoViewChange | Command::StartView | Command::Headers)
        );
        if holds_headers && self.prng.coin() {
            let mut headers = message.headers();
            self.change_headers(&mut headers, progress);
            message.set_headers(&headers);
        } else if self.prng.chance(100_000) && !message.body.is_empty() {
            let at = self.prng.index(message.body.len());
            message.body[at] = self.prng.bits() as u8;
        }
        Some(message)
    }

    /// A header of zeros with many numbers in it.
    fn invented(&mut self, progress: &Progress) -> Sealed {
        let command = *self.prng.pick(&Command::ALL);
        let mut header = *Prepare::new(self.cluster, 0, 0).header();
        header.frame.command = command as u8;
        header.area = [0; 192];
        header.frame.view = self.view(progress);
        for _ in 0..self.prng.below(20) {
            self.change(&mut header, progress);
        }
        let size = match self.prng.below(4) {
            0 => 512,
            1 => HEADER_SIZE * self.prng.below(8) as usize,
            _ => 0,
        };
        let mut body = vec![0; size];
        if self.prng.coin() {
            self.prng.fill(&mut body);
        }
        let mut message = Sealed { header, body };
        self.make_plausible(&mut message, progress);
        message
    }

    /// What the rules of the commands demand that chance alone hardly ever meets.
    fn make_plausible(&mut self, message: &mut Sealed, progress: &Progress) {
        let (client, nonce) = (1 + u128::from(self.prng.below(10)), self.prng.bits() | 1);
        let op = self.number(progress);
        let header = &mut message.header;
        match header.command().expect("one of all") {
            Command::Request => {
                (header.frame.view, header.frame.replica) = (0, 0);
                header.typed_mut::<Request>().client = client;
            }
            Command::Reply => {
                let reply = header.typed_mut::<Reply>();
                (reply.client, reply.status, reply.pad) = (client, 0, 0);
            }
            Command::Eviction => {
                let eviction = header.typed_mut::<Eviction>();
                (eviction.client, eviction.pad) = (client, 0);
                message.body.clear();
            }
            Command::Rejected => {
                let rejected = header.typed_mut::<Rejected>();
                rejected.client = client;
                rejected.reason = Rejection::Busy as u16;
                message.body.clear();
            }
            Command::PingClient => {
                let ping = header.typed_mut::<PingClient>();
                (ping.client, ping.pad) = (client, 0);
                message.body.clear();
            }
            Command::PongClient => {
                *header = *PongClient::new(self.cluster, progress.view, 0).header();
                header.typed_mut::<PongClient>().replica_count = 3;
                message.body.clear();
            }
            Command::RequestPages => {
                let mut ask = RequestPages::new(self.cluster, progress.view, 0);
                (ask.checkpoint_op, ask.nonce) = (op, nonce);
                (ask.kind, ask.count) = (1 + self.prng.below(2) as u32, 0);
                message.body.clear();
                if ask.kind == 2 {
                    ask.count = 1 + self.prng.below(4) as u32;
                    message.body = self.references(ask.count);
                }
                message.header = *ask.header();
            }
            Command::Page => {
                let mut page = Page::new(self.cluster, progress.view, 0);
                (page.commit_max, page.nonce) = (op, nonce);
                (page.kind, page.count) = (1 + self.prng.below(2) as u32, 0);
                message.body = vec![0; 512];
                if page.kind == 2 {
                    page.count = 1;
                    message.body = self.references(1);
                    message.body.resize(32 + storage::layout::PAGE_SIZE, 0);
                }
                let at = self.prng.index(message.body.len() / 2);
                self.prng.fill(&mut message.body[2 * at..]);
                message.header = *page.header();
            }
            _ => {}
        }
    }

    fn references(&mut self, count: u32) -> Vec<u8> {
        let each = (0..count).map(|_| PageReference {
            tag: self.prng.next_u128(),
            logical: *self.prng.pick(&[0, 1, 7, 300, u32::MAX]),
            reserved: [0; 12],
        });
        let all: Vec<PageReference> = each.collect();
        all.as_bytes().to_vec()
    }

    /// Puts another number somewhere.
    fn change(&mut self, header: &mut Header, progress: &Progress) {
        if self.prng.chance(200_000) {
            header.frame.view = self.view(progress);
            return;
        }
        let at = self.prng.index(12) * 16;
        match self.prng.below(8) {
            0 => {
                let checksum = self.checksum(progress).to_le_bytes();
                header.area[at..at + 16].copy_from_slice(&checksum);
            }
            1..5 => {
                let at = at + 8 * self.prng.index(2);
                let number = self.number(progress).to_le_bytes();
                header.area[at..at + 8].copy_from_slice(&number);
            }
            5 | 6 => {
                let at = at + 4 * self.prng.index(4);
                let view = self.view(progress).to_le_bytes();
                header.area[at..at + 4].copy_from_slice(&view);
            }
            _ => header.area[at + self.prng.index(16)] = self.prng.below(8) as u8,
        }
    }

    fn number(&mut self, progress: &Progress) -> u64 {
        let slots = u64::from(self.geometry.slots);
        let near = *self.prng.pick(&[
            progress.head_op,
            progress.commit_min,
            progress.commit_max,
            progress.checkpoint_op,
            progress.checkpoint_op + slots,
            progress.head_op + slots,
        ]);
        match self.prng.below(10) {
            0 => 0,
            1 if self.exaggerates => NUMBER_MAX,
            2 if self.exaggerates => self.prng.bits() % NUMBER_MAX,
            3 => self.prng.below(20),
            _ => (near + self.prng.below(5)).saturating_sub(2),
        }
    }

    fn view(&mut self, progress: &Progress) -> u32 {
        match self.prng.below(20) {
            0 => 0,
            1 if self.exaggerates => VIEW_MAX,
            2 => progress.log_view,
            3 => (progress.view + self.prng.below(9) as u32).saturating_sub(4),
            4..8 => progress.view + 1,
            _ => progress.view,
        }
    }

    fn checksum(&mut self, progress: &Progress) -> u128 {
        match self.prng.below(4) {
            0 => self.prng.next_u128(),
            1 => progress.commit_checksum,
            2 => progress.checkpoint_id,
            _ => self
                .heard(|it| it.header.command() == Some(Command::Prepare))
                .map_or(0, |it| it.header.frame.checksum),
        }
    }

    /// A prepare that follows a true one, and never was.
    fn child(&mut self, progress: &Progress) -> Option<Sealed> {
        let is_prepare = |it: &Sealed| it.header.command() == Some(Command::Prepare);
        let recent = progress.head_op.saturating_sub(self.prng.below(3));
        let parent =
            self.heard(|it| is_prepare(it) && it.header.typed::<Prepare>().op >= recent)?;
        let mut message = self.heard(is_prepare)?;
        let parent = *parent.header.typed::<Prepare>();
        let view = self.view(progress);
        let far = u64::from(self.exaggerates) * NUMBER_MAX / 2;
        let late = *self.prng.pick(&[0, 1, 1_000_000, far]);
        let commit = self.number(progress);
        let prepare = message.header.typed_mut::<Prepare>();
        prepare.op = parent.op + 1;
        prepare.parent = parent.frame.checksum;
        prepare.timestamp = parent.timestamp + u64::from(parent.requests) + late;
        prepare.commit = commit.min(parent.op);
        prepare.frame.view = view.max(parent.frame.view);
        Some(message)
    }

    /// A log that never was, in a vote or as the beginning of a view.
    fn log(&mut self, progress: &Progress) -> Sealed {
        let top = self.number(progress);
        let headers = self.log_end(progress, top);
        let view = self.view(progress).max(1);
        let numbers: [u64; 4] = std::array::from_fn(|_| self.number(progress));
        let header = if self.prng.coin() {
            let mut start = StartView::new(self.cluster, view, 0);
            (start.op, start.commit_max) = (top, numbers[0].min(top));
            (start.checkpoint_op, start.nonce) = (numbers[1], numbers[2]);
            *start.header()
        } else {
            let mut vote = DoViewChange::new(self.cluster, view, 0);
            (vote.op, vote.op_max) = (top, top + self.prng.below(3));
            (vote.commit_min, vote.commit_max) = (numbers[0], numbers[1]);
            (vote.checkpoint_op, vote.timestamp) = (numbers[2], numbers[3]);
            vote.log_view = self.view(progress).min(view - 1);
            vote.eligible = self.prng.below(2) as u8;
            let listed = (1 << headers.len()) - 1;
            vote.present = self.prng.next_u128() & listed;
            vote.nack = self.prng.next_u128() & listed;
            *vote.header()
        };
        let mut message = Sealed {
            header,
            body: Vec::new(),
        };
        message.set_headers(&headers);
        message
    }

    /// The end of a log up to `top`: true headers and others, mostly chained, highest op first.
    fn log_end(&mut self, progress: &Progress, top: u64) -> Vec<Header> {
        let mut headers: Vec<Prepare> = Vec::new();
        let count = 1 + self.prng.below(8);
        for op in top.saturating_sub(count)..=top {
            let is_that = |it: &Sealed| {
                let prepare = it.header.try_typed::<Prepare>();
                prepare.is_some_and(|prepare| prepare.op == op)
            };
            let known = self.heard(is_that);
            let known = known.filter(|_| !self.prng.chance(150_000));
            let mut header = match known {
                Some(known) => *known.header.typed::<Prepare>(),
                None => self.stranger(progress, op, headers.last()),
            };
            if let Some(last) = headers.last()
                && header.parent != last.frame.checksum
                && self.prng.chance(800_000)
            {
                header.parent = last.frame.checksum;
                header.frame.checksum = header.header().checksum_of_bytes();
            }
            headers.push(header);
        }
        headers.iter().rev().map(|it| *it.header()).collect()
    }

    /// A prepare that nobody made.
    fn stranger(&mut self, progress: &Progress, op: u64, last: Option<&Prepare>) -> Prepare {
        let mut prepare = Prepare::new(self.cluster, progress.log_view, 0);
        prepare.op = op;
        prepare.kind = PrepareKind::Batch as u32;
        prepare.requests = 1;
        prepare.frame.size = 512;
        prepare.timestamp = last.map_or(1, |last| last.timestamp + 1);
        prepare
    }

    fn change_headers(&mut self, headers: &mut Vec<Header>, progress: &Progress) {
        if headers.is_empty() {
            return;
        }
        let at = self.prng.index(headers.len());
        match self.prng.below(6) {
            0 => headers[at] = Header::new_zeroed(),
            1 => {
                headers.remove(at);
            }
            2 => headers.insert(at, headers[at]),
            3 => headers.reverse(),
            _ => {
                let mut header = headers[at];
                self.change(&mut header, progress);
                header.frame.checksum = header.checksum_of_bytes();
                headers[at] = header;
            }
        }
    }
}
