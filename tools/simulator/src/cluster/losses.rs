//! Disks that are lost: wiped, or put back to what they held once; and the operator who makes a replica anew that was told so.
//!
//! What the protocol promises (docs/protocol.md): a wiped replica takes part again only when it may, and one whose disk went
//! back is told so, if everybody who is up remembers it. So a disk is put back only when all others have heard a later
//! greeting of it, and until it has been told nobody may be restarted.

use super::{Cluster, MadeBy};
use crate::disk::DiskState;
use crate::workload::Workload;
use storage::header::{Ping, ReplicaStatus, Start};
use storage::layout::REPLICAS_MAX;
use viewstone::quorums::Quorums;

/// What a disk held once.
#[derive(Debug)]
pub struct Snapshot {
    replica: u8,
    sequence: u64,
    /// The replica's file then, by how many were made.
    losses: u64,
    state: DiskState,
}

impl Snapshot {
    /// Whose disk it was.
    pub fn replica(&self) -> u8 {
        self.replica
    }
}

/// What of all this is going on.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Replicas that halt because their disk went back are made anew, and greetings are listened to.
    operator: bool,
    /// Disks that were put back, and whose replicas have not been told yet.
    back: [bool; REPLICAS_MAX],
    /// Times that each disk was lost.
    count: [u64; REPLICAS_MAX],
    /// What each has heard of each other: in which of its lives, and the newest superblock named.
    heard: [[(u64, u64); REPLICAS_MAX]; REPLICAS_MAX],
    /// Replicas that were told.
    pub(super) told: u64,
    /// Replicas that have recovered.
    pub(super) recovered: u64,
}

impl Losses {
    /// Whether greetings are of interest.
    pub(super) fn listens(&self) -> bool {
        self.operator
    }
}

impl<W: Workload> Cluster<W> {
    /// From now on an operator sees to replicas whose disk went back.
    pub fn set_operator(&mut self) {
        self.losses.operator = true;
    }

    /// Whether a replica may halt because its disk went back.
    pub(super) fn may_be_told(&self, replica: u8) -> bool {
        self.losses.operator && self.losses.back[replica as usize]
    }

    /// Times that a replica was told that its disk went back; and that one has recovered from any loss.
    pub fn losses_overcome(&self) -> (u64, u64) {
        (self.losses.told, self.losses.recovered)
    }

    /// The replica whose disk was put back, and which has not been told yet.
    pub fn untold(&self) -> Option<u8> {
        let back = self.losses.back.iter().position(|&back| back);
        back.map(|replica| replica as u8)
    }

    /// One replica greets another.
    pub(super) fn hear(&mut self, replica: u8, ping: &Ping) {
        let opened = self
            .progress(replica)
            .is_some_and(|progress| progress.status != ReplicaStatus::Opening);
        if !opened || ping.life == 0 || ping.start != Start::Begun as u8 {
            return;
        }
        let life = self.hosts[replica as usize].life;
        let heard =
            &mut self.losses.heard[replica as usize][ping.frame.replica as usize % REPLICAS_MAX];
        let before = if heard.0 == life { heard.1 } else { 0 };
        *heard = (life, before.max(ping.superblock_sequence));
    }

    /// Whether the cluster survives the loss of one more disk.
    fn may_lose(&self, replica: u8) -> bool {
        let count = self.options.replica_count;
        let begun = |replica: u8| {
            let disk = self.hosts[replica as usize].disk.state();
            self.atlas.is_lost(replica) || self.atlas.start(disk) == Some(Start::Begun)
        };
        count > Quorums::new(count).view_change
            && self.checker.head() > 0
            && self.untold().is_none()
            && self.atlas.may_lose(replica)
            && (0..count).all(begun)
    }

    /// Wipes the disk of a replica that is down, if the cluster survives that. Whether it did.
    pub fn wipe(&mut self, replica: u8, made_by: MadeBy) -> bool {
        let may = !self.is_up(replica) && self.may_lose(replica);
        if may {
            self.replace_file(replica, made_by);
        }
        may
    }

    fn replace_file(&mut self, replica: u8, made_by: MadeBy) {
        self.losses.count[replica as usize] += 1;
        self.losses.heard.iter_mut().for_each(|heard| {
            heard[replica as usize] = (0, 0); // that was of another file
        });
        self.lose_disk(replica, made_by);
        self.atlas.was_wiped(replica);
    }

    /// What a replica's disk would hold if the power went now, and everything newest was lost.
    pub fn snapshot(&self, replica: u8) -> Option<Snapshot> {
        let disk = self.hosts[replica as usize].disk.state();
        let tear = self.hosts[replica as usize].tear();
        let state = disk.cut(tear).decide(|_| 0).state;
        let sequence = self.atlas.sequence(&state)?;
        let begun = self.atlas.start(&state) == Some(Start::Begun);
        (begun && !self.atlas.is_lost(replica)).then_some(Snapshot {
            replica,
            sequence,
            losses: self.losses.count[replica as usize],
            state,
        })
    }

    /// Whether all others are sure to tell a replica that its disk went back, if it held this again.
    pub fn remembers(&self, snapshot: &Snapshot) -> bool {
        let replica = snapshot.replica;
        let others = (0..self.options.replica_count).filter(|&other| other != replica);
        let told = |other: u8| {
            let (life, sequence) = self.losses.heard[other as usize][replica as usize];
            let host = &self.hosts[other as usize];
            self.is_up(other) && host.life == life && sequence > snapshot.sequence
        };
        self.losses.count[replica as usize] == snapshot.losses && others.into_iter().all(told)
    }

    /// Puts the disk of a replica that is down back to what it held, if that is sure to be noticed. Whether it did.
    pub fn roll_back(&mut self, snapshot: &Snapshot) -> bool {
        let replica = snapshot.replica;
        let may = !self.is_up(replica) && self.may_lose(replica) && self.remembers(snapshot);
        if may {
            self.losses.back[replica as usize] = true;
            self.put_back_disk(replica, snapshot.state.clone());
            self.atlas.went_back(replica);
        }
        may
    }

    /// A replica that was told has ended: it is made anew, and started.
    pub(super) fn make_anew(&mut self, replica: u8) {
        self.losses.told += 1;
        self.losses.back[replica as usize] = false;
        self.replace_file(replica, MadeBy::Recover);
        self.start(replica);
    }

    /// Replicas that have all that they need to promise again count again.
    pub fn welcome_recovered(&mut self) {
        for replica in 0..self.options.replica_count {
            if !self.atlas.is_lost(replica) || self.losses.back[replica as usize] {
                continue;
            }
            let whole = self.replica(replica).is_some_and(|process| {
                let progress = process.progress();
                progress.status == ReplicaStatus::Normal
                    && progress.pages_missing == 0
                    && process.is_whole()
            });
            let disk = self.hosts[replica as usize].disk.state();
            if whole && self.atlas.is_synced(disk) {
                self.losses.recovered += 1;
                self.note(replica, 14, 0, || "has recovered".to_string());
                self.atlas.recovered(replica);
            }
        }
    }
}
