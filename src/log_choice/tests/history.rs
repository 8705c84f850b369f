//! Random histories of a small reference of the protocol: what a quorum has acknowledged is in every log chosen after.
//!
//! The reference knows replicas with a durable view, log_view and log, the acknowledgements of each view, and decay.
//! Messages are deliveries that happen or not; what was committed is what a replication quorum has acknowledged in one
//! view, whether or not anybody has heard of it.

use super::*;
use crate::quorums::ReplicaSet;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Copy {
    Never,
    Present,
    Decayed,
}

#[derive(Clone, Debug)]
struct Entry {
    header: Option<Prepare>,
    copy: Copy,
}

#[derive(Clone, Debug)]
struct Replica {
    view: u32,
    log_view: u32,
    /// By op.
    log: Vec<Entry>,
    /// The headers with which log_view began: they do not decay, and all below is committed.
    listed: std::ops::RangeInclusive<u64>,
    commit_max: u64,
}

impl Replica {
    fn new() -> Self {
        let root = Entry {
            header: Some(Prepare::root(CLUSTER)),
            copy: Copy::Present,
        };
        Self {
            view: 0,
            log_view: 0,
            log: vec![root],
            listed: 0..=0,
            commit_max: 0,
        }
    }

    fn is_normal(&self) -> bool {
        self.view == self.log_view
    }

    fn head(&self) -> u64 {
        self.log.len() as u64 - 1
    }

    fn identity(&self, op: u64) -> Option<u128> {
        let entry = self.log.get(op as usize)?;
        entry.header.map(|header| header.frame.checksum)
    }

    /// The vote; with `short`, what is unknown at the log's end is not listed.
    fn vote(&self, short: bool) -> Owned {
        let mut low = *self.listed.start();
        // Below the list the chain vouches.
        while low > 0 && self.identity(low - 1) == self.log[low as usize].header.map(|it| it.parent)
        {
            low -= 1;
        }
        let low = low.max(self.head().saturating_sub(2 * u64::from(PIPELINE)));
        let mut listed = &self.log[..];
        while let (true, Some((last, rest))) = (short, listed.split_last()) {
            if last.header.is_some() || last.copy != Copy::Decayed {
                break;
            }
            listed = rest;
        }
        let blank = Prepare::new_zeroed;
        let held = |entry: &Entry| match entry.copy {
            Copy::Present => Good,
            Copy::Never => Missing(entry.header.is_some()),
            Copy::Decayed => Corrupt(entry.header.is_some()),
        };
        let log: Vec<_> = listed
            .iter()
            .map(|entry| entry.header.unwrap_or_else(blank))
            .collect();
        let all: Vec<_> = listed[1..].iter().map(held).collect();
        let uncertain = (self.log.len() - listed.len()) as u64;
        Owned::new(self.log_view, &log, &all)
            .uncertain(uncertain)
            .commit_max(self.commit_max)
            .without_lowest(low as usize)
    }
}

struct World {
    replicas: Vec<Replica>,
    quorums: crate::quorums::Quorums,
    /// The log that each view began with.
    begun: BTreeMap<u32, Log>,
    /// Identities by op of each view's log, and who has acknowledged them in it.
    logs: BTreeMap<u32, Vec<(u128, ReplicaSet)>>,
    /// Identities of what was committed, by op; the root first.
    committed: Vec<u128>,
    choices: usize,
    decays: usize,
}

type Outcome = Result<(), String>;

impl World {
    fn new(count: u8) -> Self {
        let root = Prepare::root(CLUSTER);
        Self {
            replicas: (0..count).map(|_| Replica::new()).collect(),
            quorums: crate::quorums::Quorums::new(count),
            begun: BTreeMap::from([(
                0,
                Log {
                    op: 0,
                    commit_max: 0,
                    headers: vec![root],
                    timestamp: 0,
                },
            )]),
            logs: BTreeMap::from([(0, vec![(root.frame.checksum, ReplicaSet::default())])]),
            committed: vec![root.frame.checksum],
            choices: 0,
            decays: 0,
        }
    }

    fn primary(&self, view: u32) -> usize {
        view as usize % self.replicas.len()
    }

    /// A view whose primary acts in it.
    fn a_view(&self, pick: u32) -> Option<(u32, usize)> {
        let acting = |view: &u32| self.replicas[self.primary(*view)].is_normal_in(*view);
        let views: Vec<u32> = self.logs.keys().copied().filter(acting).collect();
        let view = *views.get(pick as usize % views.len().max(1))?;
        Some((view, self.primary(view)))
    }

    fn step<R: Rules>(&mut self, step: u32) -> Outcome {
        let (kind, pick) = (step % 32, step / 32);
        match kind {
            0..=4 => self.prepare(pick),
            5..=15 => self.deliver(pick)?,
            16..=19 => self.acknowledge(pick)?,
            20..=22 => self.learn(pick),
            23 => self.begin::<R>(pick)?,
            24..=29 => self.install(pick),
            _ => self.decay(pick),
        }
        Ok(())
    }

    fn prepare(&mut self, pick: u32) {
        let Some((view, primary)) = self.a_view(pick) else {
            return;
        };
        let replica = &mut self.replicas[primary];
        let inherited = self.begun[&view].op;
        let room = replica.head() < replica.commit_max + u64::from(PIPELINE);
        if replica.commit_max < inherited.min(replica.head()) || !room {
            return;
        }
        let op = replica.head() + 1;
        let parent = self.logs[&view][op as usize - 1].0;
        let header = prepare(op, view, parent);
        replica.log.push(Entry {
            header: Some(header),
            copy: Copy::Present,
        });
        let log = self.logs.get_mut(&view).expect("the view has begun");
        log.push((header.frame.checksum, ReplicaSet::default()));
    }

    /// Brings a prepare of the primary's to a backup, which may so get a gap.
    fn deliver(&mut self, pick: u32) -> Outcome {
        let Some((view, primary)) = self.a_view(pick % 7) else {
            return Ok(());
        };
        let count = self.replicas.len();
        let backup = (primary + 1 + pick as usize / 7 % (count - 1)) % count;
        if !self.replicas[backup].is_normal_in(view) {
            return Ok(());
        }
        let (to, from) = (&self.replicas[backup], &self.replicas[primary]);
        let op = match pick / 64 % 4 {
            0 => to.head() + 2,
            1 => 1 + u64::from(pick / 256) % from.head().max(1),
            _ => to.head() + 1,
        };
        let Some(entry) = from.log.get(op as usize).cloned() else {
            return Ok(());
        };
        let (Some(header), Copy::Present) = (entry.header, entry.copy) else {
            return Ok(());
        };
        let to = &mut self.replicas[backup];
        while to.head() < op {
            to.log.push(Entry {
                header: None,
                copy: Copy::Never,
            });
        }
        let known = to.identity(op);
        assert!(known.is_none_or(|known| known == header.frame.checksum));
        to.log[op as usize] = entry;
        self.acknowledge_as(backup, op)
    }

    fn acknowledge(&mut self, pick: u32) -> Outcome {
        let replica = pick as usize % self.replicas.len();
        let head = self.replicas[replica].head();
        if head == 0 {
            return Ok(());
        }
        self.acknowledge_as(replica, 1 + u64::from(pick / 8) % head)
    }

    fn acknowledge_as(&mut self, replica: usize, op: u64) -> Outcome {
        let it = &self.replicas[replica];
        let present = it.log[op as usize].copy == Copy::Present;
        if !it.is_normal() || !present {
            return Ok(());
        }
        let view = it.log_view;
        let (identity, acks) = &mut self.logs.get_mut(&view).expect("it has begun")[op as usize];
        if it.identity(op) != Some(*identity) {
            return Ok(());
        }
        acks.insert(replica as u8);
        self.commit(view)
    }

    /// What a quorum has acknowledged in a view is committed, if all before it is.
    fn commit(&mut self, view: u32) -> Outcome {
        let log = &self.logs[&view];
        while let Some((identity, acks)) = log.get(self.committed.len()) {
            let op = self.committed.len();
            let whole = (0..op).all(|op| log[op].0 == self.committed[op]);
            if acks.count() < self.quorums.replication || !whole {
                return Ok(());
            }
            let missing = |later: &Vec<(u128, _)>| later.get(op).is_none_or(|it| it.0 != *identity);
            for (later, log) in self.logs.range(view + 1..) {
                if missing(log) {
                    return Err(format!(
                        "op {op} commits in view {view}; view {later} lacks it"
                    ));
                }
            }
            self.committed.push(*identity);
        }
        Ok(())
    }

    fn learn(&mut self, pick: u32) {
        let replica = pick as usize % self.replicas.len();
        let it = &mut self.replicas[replica];
        let known = self.logs[&it.log_view].iter().zip(&self.committed);
        let agreed = known
            .take_while(|(it, committed)| it.0 == **committed)
            .count() as u64
            - 1;
        if it.is_normal() {
            it.commit_max = it.commit_max.max(agreed);
        }
    }

    /// Some replicas vote for a new view; its primary, one of them, begins it if there is a choice.
    fn begin<R: Rules>(&mut self, pick: u32) -> Outcome {
        let newest = self.replicas.iter().map(|it| it.view).max().unwrap_or(0);
        let view = newest + 1 + pick % 3;
        let count = self.replicas.len();
        let primary = self.primary(view);
        let mut votes = vec![None; count];
        for (replica, vote) in votes.iter_mut().enumerate() {
            if replica != primary && pick >> (4 + replica) & 1 == 0 {
                continue;
            }
            self.replicas[replica].view = view;
            *vote = Some(self.replicas[replica].vote(pick >> 12 & 1 == 0));
        }
        let votes: Vec<_> = votes.iter().map(Option::as_ref).collect();
        let log = match choose_among::<R>(&votes) {
            Ok(log) => log,
            Err(Wait::Contradiction(found)) => return Err(found.to_string()),
            Err(_) => return Ok(()),
        };
        self.choices += 1;
        // Only the list is new; all below it is committed.
        let low = log.headers.last().expect("never empty").op as usize;
        let committed = self.committed.iter().enumerate();
        for (op, identity) in committed.clone().skip(low) {
            let index = (log.op as usize).checked_sub(op);
            let header = index.and_then(|index| log.headers.get(index));
            if header.is_none_or(|header| header.frame.checksum != *identity) {
                return Err(format!("view {view} begins without committed op {op}"));
            }
        }
        if low > self.committed.len() {
            return Err(format!("view {view} takes ops below {low} for committed"));
        }
        let below = committed.take(low).map(|(_, &identity)| identity);
        let listed = log.headers.iter().rev().map(|header| header.frame.checksum);
        let all = below.chain(listed).map(|it| (it, ReplicaSet::default()));
        self.logs.insert(view, all.collect());
        self.begun.insert(view, log);
        self.install_at(primary, view);
        Ok(())
    }

    fn install(&mut self, pick: u32) {
        let Some((view, _)) = self.a_view(pick % 5) else {
            return;
        };
        let replica = pick as usize / 5 % self.replicas.len();
        if self.replicas[replica].view <= view && self.replicas[replica].log_view < view {
            self.install_at(replica, view);
        }
    }

    fn install_at(&mut self, replica: usize, view: u32) {
        let log = &self.begun[&view];
        let it = &mut self.replicas[replica];
        (it.view, it.log_view) = (view, view);
        it.commit_max = it.commit_max.max(log.commit_max);
        it.log.resize(
            log.op as usize + 1,
            Entry {
                header: None,
                copy: Copy::Never,
            },
        );
        for header in &log.headers {
            let entry = &mut it.log[header.op as usize];
            let same = |known: &Prepare| known.frame.checksum == header.frame.checksum;
            entry.copy = match (&entry.header, entry.copy) {
                (Some(known), copy) if same(known) => copy,
                // What lies there cannot be read: it may have been this one.
                (None, Copy::Decayed) => Copy::Decayed,
                _ => Copy::Never,
            };
            entry.header = Some(*header);
        }
        it.listed = log.headers.last().expect("never empty").op..=log.op;
    }

    fn decay(&mut self, pick: u32) {
        let replica = pick as usize % self.replicas.len();
        let it = &mut self.replicas[replica];
        if it.head() == 0 || pick >> 10 & 1 != 0 {
            return;
        }
        let op = 1 + u64::from(pick / 8) % it.head();
        let listed = it.listed.contains(&op);
        let entry = &mut it.log[op as usize];
        if entry.copy == Copy::Present {
            self.decays += 1;
            entry.copy = Copy::Decayed;
            if !listed && pick >> 9 & 1 == 1 {
                entry.header = None;
            }
        }
    }

    /// If all vote and fewer copies of each op decayed than commit one, there is a choice.
    fn check_decidable<R: Rules>(&self) -> Outcome {
        let decayed = |op: u64| {
            let of = |it: &&Replica| {
                it.log
                    .get(op as usize)
                    .is_some_and(|it| it.copy == Copy::Decayed)
            };
            self.replicas.iter().filter(of).count() as u8
        };
        let head = self.replicas.iter().map(Replica::head).max().unwrap_or(0);
        if (1..=head).any(|op| decayed(op) >= self.quorums.replication) {
            return Ok(());
        }
        let votes: Vec<_> = self.replicas.iter().map(|it| it.vote(true)).collect();
        let votes: Vec<_> = votes.iter().map(Some).collect();
        match choose_among::<R>(&votes) {
            Ok(_) => Ok(()),
            Err(wait) => Err(format!(
                "all vote, enough is left, and there is no choice: {wait:?}"
            )),
        }
    }
}

impl Replica {
    fn is_normal_in(&self, view: u32) -> bool {
        self.view == view && self.log_view == view
    }
}

fn history<R: Rules>(count: u8, script: &[u32]) -> Result<World, String> {
    let mut world = World::new(count);
    for &step in script {
        world.step::<R>(step)?;
    }
    world.check_decidable::<R>()?;
    Ok(world)
}

fn runner(cases: u32) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn scripts() -> impl Strategy<Value = (u8, Vec<u32>)> {
    (2..=6u8, prop::collection::vec(any::<u32>(), 1..250))
}

#[test]
fn what_a_quorum_acknowledged_is_in_every_choice() {
    let totals = std::cell::Cell::new((0, 0, 0));
    let run = runner(8000).run(&scripts(), |(count, script)| {
        let world = history::<Strict>(count, &script).map_err(TestCaseError::fail)?;
        let (committed, choices, decays) = totals.get();
        totals.set((
            committed + world.committed.len() - 1,
            choices + world.choices,
            decays + world.decays,
        ));
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    let (committed, choices, decays) = totals.get();
    assert!(
        committed > 8_000 && choices > 10_000 && decays > 10_000,
        "the histories do too little: {committed} commits, {choices} choices, {decays} decays"
    );
}

macro_rules! broken {
    ($test:ident, $rule:ident) => {
        #[test]
        fn $test() {
            struct Broken;
            impl Rules for Broken {
                type Journal = storage::journal::Strict;
                type Superblock = storage::superblock::Sound;
                type Checkpoint = storage::checkpoint::Strict;
                const $rule: bool = false;
            }
            let found = runner(5000).run(&scripts(), |(count, script)| {
                history::<Broken>(count, &script).map_err(TestCaseError::fail)?;
                Ok(())
            });
            let failure = found.expect_err("the missing rule is noticed").to_string();
            assert!(
                failure.contains("commit") || failure.contains("view"),
                "{failure}"
            );
        }
    };
}

broken!(a_choice_by_length_is_noticed, LOG_VIEW_FIRST);
broken!(a_nack_of_decay_is_noticed, NEVER_NACK_DECAY);
broken!(a_nack_quorum_minus_one_is_noticed, WHOLE_NACK_QUORUM);
broken!(
    a_view_change_quorum_minus_one_is_noticed,
    WHOLE_VIEW_CHANGE_QUORUM
);
