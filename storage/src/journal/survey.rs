//! A journal looked at from outside, for `verify` and `inspect`: nothing is opened, repaired or changed.
//!
//! It decides by the same table and the same rules over the ring as opening does ([`crate::recovery`]), of every slot,
//! and reads every body, also those that opening leaves for later. Beside what recovery concludes it says what is
//! *damaged*: what no crash leaves behind under the fault model, whether or not something is lost by it.

use super::open::{astray, hold};
use crate::bits::Bits;
use crate::buffer::AlignedBuffer;
use crate::header::{HEADER_SIZE, Header, Prepare};
use crate::layout::{JournalAck, Layout};
use crate::recovery::{
    Body, Conclusion, Decision, Evidence, FirstSector, HeaderClass, PrepareClass, Refusal, Ring,
    Slot, State, ViewHeaders, Window, body_holds, decide, explain, lag_max, settle,
};
use crate::superblock::Content;
use crate::{SECTOR_SIZE, sector_ceil};
use std::fmt;

/// What the superblock says of the journal.
#[derive(Clone, Copy, Debug)]
pub struct SurveyStart<'a> {
    /// The cluster's id.
    pub cluster: u128,
    /// The durable checkpoint's op.
    pub checkpoint_op: u64,
    /// Identity of its prepare.
    pub checkpoint_identity: u128,
    /// The last view in which the log was known to be the log.
    pub log_view: u32,
    /// Headers that were durable with it.
    pub view_headers: &'a [Prepare],
    /// The cluster has one replica.
    pub solo: bool,
}

impl<'a> SurveyStart<'a> {
    /// What this superblock says.
    pub fn of(content: &'a Content) -> Self {
        let state = &content.state;
        Self {
            cluster: state.cluster,
            checkpoint_op: state.checkpoint.prepare.op,
            checkpoint_identity: state.checkpoint.prepare.frame.checksum,
            log_view: state.log_view,
            view_headers: content.view_headers.as_slice(),
            solo: state.replica_count == 1,
        }
    }
}

/// What is damaged of a prepare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrepareDamage {
    /// Its first sector.
    Header,
    /// Its body, or the zeros behind it.
    Body,
    /// Something that belongs elsewhere was written over it.
    Misdirected,
    /// A write that was reported as done is not there: the redundant header is newer.
    WriteLost,
    /// It is newer than the superblock allows.
    Beyond,
}

impl fmt::Display for PrepareDamage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Header => "the first sector is damaged",
            Self::Body => "the body is damaged",
            Self::Misdirected => "what lies there belongs elsewhere",
            Self::WriteLost => "its write was lost: the redundant header is newer",
            Self::Beyond => "it is newer than the superblock allows",
        })
    }
}

/// What was found in one slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotSurvey {
    /// The one op above the checkpoint that belongs here.
    pub op: u64,
    /// What both rings show.
    pub evidence: Evidence,
    /// Number and name of the row of the recovery table.
    pub row: (u8, &'static str),
    /// What the row says.
    pub decision: Decision,
    /// How `op` is held, all rules considered; meaningless if the journal is refused.
    pub state: State,
    /// Identity of `op`'s prepare, as the log has it; zero: not known.
    pub identity: u128,
    /// The redundant header, if it is a valid one of this slot.
    pub redundant: Option<Prepare>,
    /// The prepare's header, if it is a valid one of this slot.
    pub prepare: Option<Prepare>,
    /// Whether the redundant header is damaged.
    pub header_damaged: bool,
    /// What is damaged of the prepare.
    pub prepare_damage: Option<PrepareDamage>,
}

/// What was found in a journal.
#[derive(Clone, Debug)]
pub struct Survey {
    /// By slot.
    pub slots: Vec<SlotSurvey>,
    /// Where the log ends, or why the journal would be refused.
    pub conclusion: Result<Conclusion, Refusal>,
}

/// Reads both rings whole. `read` fills the buffer, whole sectors, from an offset of the data file; sectors that cannot
/// be read are zeros.
pub fn survey(
    layout: &Layout,
    start: &SurveyStart<'_>,
    mut read: impl FnMut(u64, &mut [u8]),
) -> Survey {
    let count = layout.geometry.slots as usize;
    let window = Window {
        cluster: start.cluster,
        slots: count as u64,
        message_size_max: layout.geometry.message_size_max as usize,
        checkpoint_op: start.checkpoint_op,
        view: ViewHeaders {
            log_view: start.log_view,
            headers: start.view_headers,
        },
    };
    let redundant = read_headers(layout, &mut read);
    let mut buffer = AlignedBuffer::new(window.message_size_max);
    let mut rings = Rings {
        start,
        layout,
        window,
        redundant,
        misplaced: Bits::new(count),
        found: Vec::with_capacity(count),
        held: Vec::with_capacity(count),
    };
    for slot in 0..count {
        rings.read_prepare(slot, &mut buffer, &mut read);
    }
    rings.conclude()
}

fn read_headers(layout: &Layout, read: &mut impl FnMut(u64, &mut [u8])) -> Vec<Prepare> {
    let count = layout.geometry.slots as usize;
    let mut bytes = AlignedBuffer::new(sector_ceil(count * HEADER_SIZE));
    read(layout.headers_at, &mut bytes);
    let header = |bytes| {
        let mut prepare = Prepare::reserved_slot(0, 0);
        *prepare.header_mut() = *Header::of(bytes);
        prepare
    };
    bytes
        .chunks_exact(HEADER_SIZE)
        .take(count)
        .map(header)
        .collect()
}

struct Rings<'a> {
    start: &'a SurveyStart<'a>,
    layout: &'a Layout,
    window: Window<'a>,
    redundant: Vec<Prepare>,
    misplaced: Bits,
    found: Vec<FirstSector>,
    held: Vec<Slot>,
}

impl Rings<'_> {
    fn read_prepare(
        &mut self,
        slot: usize,
        buffer: &mut AlignedBuffer,
        read: &mut impl FnMut(u64, &mut [u8]),
    ) {
        let at = self.layout.prepare_at(slot);
        read(at, &mut buffer[..SECTOR_SIZE]);
        let mut found = self.window.classify_prepare(&buffer[..SECTOR_SIZE], slot);
        let header = *Header::of(buffer);
        let mut held = Slot {
            op: slot as u64,
            state: State::Absent,
            identity: 0,
            named: Prepare::reserved_slot(self.start.cluster, slot as u64),
            disk: 0,
            disk_size: 0,
        };
        hold(&self.window, found, &header, slot, &mut held);
        if let Some(slot) = astray(&self.window, found, &header) {
            self.misplaced.insert(slot);
        }
        if found.body == Body::Unread {
            let size = sector_ceil(header.frame.size as usize);
            read(at, &mut buffer[..size]);
            let good = *Header::of(buffer) == header && body_holds(&header, &buffer[..size]);
            found = found.with_body(good);
            if !good {
                held.disk = 0;
            }
        }
        self.found.push(found);
        self.held.push(held);
    }

    fn conclude(mut self) -> Survey {
        let ack = self.layout.geometry.journal_ack();
        let mut decisions = Vec::with_capacity(self.held.len());
        let mut slots = Vec::with_capacity(self.held.len());
        let mut beyond = None;
        for slot in 0..self.held.len() {
            let surveyed = self.survey_slot(slot, ack);
            if surveyed.evidence.header == HeaderClass::Beyond {
                beyond = beyond.max(Some(self.redundant[slot].op));
            }
            if surveyed.evidence.prepare == PrepareClass::Beyond {
                beyond = beyond.max(Some(self.held[slot].named.op));
            }
            decisions.push(surveyed.decision);
            slots.push(surveyed);
        }
        let ring = Ring {
            window: self.window,
            checkpoint_identity: self.start.checkpoint_identity,
            decisions: &decisions,
            redundant: &self.redundant,
            misplaced: &self.misplaced,
            lag: lag_max(self.layout.geometry.pipeline_max),
            solo: self.start.solo,
            beyond,
        };
        let conclusion = settle(&ring, &mut self.held);
        for (surveyed, held) in slots.iter_mut().zip(&self.held) {
            if held.op == surveyed.op {
                surveyed.state = held.state;
                surveyed.identity = held.identity;
            }
        }
        Survey { slots, conclusion }
    }

    fn survey_slot(&self, slot: usize, ack: JournalAck) -> SlotSurvey {
        let (redundant, found) = (&self.redundant[slot], self.found[slot]);
        let named = &self.held[slot].named;
        let evidence = Evidence::new(&self.window, slot, redundant, found, named);
        let (decision, _) = decide(&evidence, ack, self.start.solo);
        let header_valid = evidence.header != HeaderClass::Invalid;
        let readable = !matches!(
            found.class,
            PrepareClass::Invalid | PrepareClass::Misplaced | PrepareClass::Reserved
        );
        let same = header_valid && readable && redundant.frame.checksum == named.frame.checksum;
        SlotSurvey {
            op: self.window.op_of(slot),
            evidence,
            row: explain(&evidence),
            decision,
            state: State::Absent,
            identity: 0,
            redundant: header_valid.then_some(*redundant),
            prepare: readable.then_some(*named),
            header_damaged: !header_valid || evidence.header == HeaderClass::Beyond,
            prepare_damage: prepare_damage(evidence, same, decision, ack),
        }
    }
}

/// What no crash leaves behind. `same`: both rings have the same header, so the prepare was durable once, body and all.
fn prepare_damage(
    evidence: Evidence,
    same: bool,
    decision: Decision,
    ack: JournalAck,
) -> Option<PrepareDamage> {
    // Where sectors tear below 4 KiB every ack waited for both rings; a prepare may then be torn anywhere.
    let tears = evidence.several || ack == JournalAck::Both;
    match evidence.prepare {
        PrepareClass::Beyond => Some(PrepareDamage::Beyond),
        PrepareClass::Misplaced => Some(PrepareDamage::Misdirected),
        PrepareClass::Invalid => {
            let may_be_torn = ack == JournalAck::Both && decision == Decision::Absent;
            (!may_be_torn).then_some(PrepareDamage::Header)
        }
        PrepareClass::Reserved | PrepareClass::Stale | PrepareClass::Current => {
            let lost = match (evidence.header, evidence.prepare) {
                (HeaderClass::Stale, PrepareClass::Reserved) => true,
                (HeaderClass::Current, prepare) => prepare != PrepareClass::Current,
                _ => evidence.older,
            };
            let body_bad = evidence.prepare != PrepareClass::Reserved && !evidence.good;
            let owed = matches!(decision, Decision::LostPrepare | Decision::LostHeader);
            if lost {
                Some(PrepareDamage::WriteLost)
            } else if body_bad && (same || owed || !tears) {
                Some(PrepareDamage::Body)
            } else {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::*;
    use super::super::tests::{SINGLE, filled, reopen, sector_of};
    use super::super::{Missing, Strict};
    use super::*;

    fn survey_disk(host: &Host, superblock: &Super) -> Survey {
        let start = SurveyStart {
            cluster: CLUSTER,
            checkpoint_op: superblock.checkpoint_op,
            checkpoint_identity: superblock.checkpoint_checksum,
            log_view: superblock.log_view,
            view_headers: &superblock.headers,
            solo: superblock.solo,
        };
        let disk = &host.disk.0;
        survey(&host.layout, &start, |at, buffer| {
            buffer.copy_from_slice(&disk[at as usize..][..buffer.len()]);
        })
    }

    /// Survey and opening say the same of a disk.
    fn assert_agrees(host: &Host, superblock: &Super) -> Survey {
        let surveyed = survey_disk(host, superblock);
        let (opened, recovered) = reopen(host, superblock);
        match (&surveyed.conclusion, recovered) {
            (Err(refusal), Err(refused)) => assert_eq!(*refusal, refused),
            (Ok(conclusion), Ok(recovered)) => {
                assert_eq!(conclusion.head, recovered.head_op);
                assert_eq!(conclusion.head_identity, recovered.head_checksum);
                assert_eq!(conclusion.head_certain, recovered.head_certain);
                assert_eq!(conclusion.op_max, recovered.op_max);
                assert_eq!(conclusion.regressed, recovered.regressed);
                for slot in &surveyed.slots {
                    assert_eq!(slot.state, opened.journal.state(slot.op), "{slot:?}");
                    let wanted = |missing: Missing| missing.wanted.unwrap_or(0);
                    if let Some(missing) = opened.journal.faulty(slot.op).map(wanted) {
                        assert_eq!(slot.identity, missing);
                    }
                }
            }
            (surveyed, opened) => panic!("{surveyed:?} against {opened:?}"),
        }
        surveyed
    }

    fn damages(survey: &Survey) -> Vec<(usize, bool, Option<PrepareDamage>)> {
        let slots = survey.slots.iter().enumerate();
        slots
            .filter(|(_, slot)| slot.header_damaged || slot.prepare_damage.is_some())
            .map(|(index, slot)| (index, slot.header_damaged, slot.prepare_damage))
            .collect()
    }

    #[test]
    fn a_sound_journal_has_no_damage_before_and_after_its_headers_are_down() {
        for ack in [SINGLE, JournalAck::Both] {
            let (mut host, mut chain) = filled(16, 1, ack, 10);
            for sectors in [1, 2] {
                host.append(chain.next(sectors));
                host.drain();
                for solo in [true, false] {
                    let survey = assert_agrees(&host, &Super::new(solo));
                    assert_eq!(damages(&survey), []);
                }
            }
        }
    }

    #[test]
    fn what_a_power_cut_leaves_is_no_damage() {
        let mut several = 0;
        for ack in [SINGLE, JournalAck::Both] {
            let (mut host, mut chain) = filled(16, 2, ack, 5);
            host.append(chain.next(2));
            host.append(chain.next(1));
            for cut in host.cuts() {
                let host = Host::<Strict>::start(host.layout, cut, &Super::new(true));
                let survey = assert_agrees(&host, &Super::new(true));
                assert_eq!(damages(&survey), []);
                several += usize::from(survey.slots[6].row.0 == 14);
            }
        }
        assert!(several > 0, "a long prepare tore");
    }

    #[test]
    fn every_damaged_byte_is_noticed_and_told_as_opening_concludes_it() {
        let (mut host, mut chain) = filled(16, 1, SINGLE, 9);
        host.append(chain.next(2));
        host.drain();
        let sound = host.disk.clone();
        let mut flip = |at: u64| {
            host.disk = sound.clone();
            host.disk.flip(at);
            for solo in [true, false] {
                assert_agrees(&host, &Super::new(solo));
            }
            damages(&survey_disk(&host, &Super::new(false)))
        };
        for slot in 0..16 {
            let at = slot as u64 * HEADER_SIZE as u64 + 100;
            assert_eq!(flip(at), [(slot, true, None)]);
            let at = sector_of_slot(slot);
            let damage = Some(PrepareDamage::Header);
            assert_eq!(flip(at + 100), [(slot, false, damage)]);
            let damage = if (1..=10).contains(&slot) {
                PrepareDamage::Body
            } else {
                PrepareDamage::Header // of a reserved slot the rest of the sector is zeros
            };
            assert_eq!(flip(at + 300), [(slot, false, Some(damage))]);
        }
        let damage = Some(PrepareDamage::Body);
        assert_eq!(flip(sector_of_slot(10) + 5000), [(10, false, damage)]);
    }

    fn sector_of_slot(slot: usize) -> u64 {
        layout(16, 1, SINGLE).prepare_at(slot)
    }

    #[test]
    fn a_lost_write_and_a_misdirected_one_are_damage() {
        let (mut host, _) = filled(16, 1, SINGLE, 9);
        let (old, at) = (Prepare::reserved_slot(CLUSTER, 4), sector_of(&host, 4));
        host.disk.wipe_sector(at);
        host.disk.write(at, zerocopy::IntoBytes::as_bytes(&old));
        let survey = assert_agrees(&host, &Super::new(false));
        let lost = Some(PrepareDamage::WriteLost);
        assert_eq!(damages(&survey), [(4, false, lost)]);
        assert_eq!(survey.slots[4].row.0, 6);
        assert_eq!(survey.slots[4].state, State::Lost);

        let (mut host, mut chain) = filled(16, 1, SINGLE, 4);
        let prepare = chain.next(1);
        host.disk.put_prepare(&host.layout, 12, &prepare);
        let survey = assert_agrees(&host, &Super::new(false));
        let misdirected = Some(PrepareDamage::Misdirected);
        assert_eq!(damages(&survey), [(12, false, misdirected)]);
        assert_eq!(survey.slots[5].state, State::Unknown);
    }

    #[test]
    fn below_the_checkpoint_too_bodies_are_read() {
        let (mut host, mut chain) = filled(16, 1, SINGLE, 5);
        host.append(chain.next(2));
        host.drain();
        let mut superblock = Super::new(true);
        superblock.checkpoint_op = 6;
        superblock.checkpoint_checksum = chain.parent;
        assert_eq!(damages(&assert_agrees(&host, &superblock)), []);
        let at = sector_of(&host, 6) + 5000;
        host.disk.flip(at);
        let survey = assert_agrees(&host, &superblock);
        let damage = Some(PrepareDamage::Body);
        assert_eq!(damages(&survey), [(6, false, damage)]);
        assert_eq!(survey.conclusion.expect("nothing is lost").head, 6);
    }

    #[test]
    fn an_older_superblock_is_regressed() {
        let (mut host, mut chain) = filled(16, 1, SINGLE, 16);
        host.journal.set_checkpoint(8);
        for _ in 0..4 {
            host.append(chain.next(1));
            host.drain();
        }
        let survey = assert_agrees(&host, &Super::new(false));
        assert_eq!(survey.conclusion.expect("among others").regressed, Some(20));
        let beyond = Some(PrepareDamage::Beyond);
        assert!(damages(&survey).iter().any(|damage| damage.2 == beyond));
        assert_agrees(&host, &Super::new(true));
    }
}
