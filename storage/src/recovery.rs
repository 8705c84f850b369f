//! What a replica concludes at start about its journal: a pure decision, written as a table.
//!
//! For each slot there are two witnesses: the redundant header **H**, and the first sector **P1** of the prepare.
//! P1 is authoritative: what it validly shows is the last thing written. H can only veto it (H newer than P1: a write
//! was lost) and tell a torn write from decay for prepares of several sectors.
//!
//! * [`Window`] turns bytes into classes ([`HeaderClass`], [`PrepareClass`]).
//! * [`decide`] looks a slot up in the table. Exactly one row matches each input; a test goes through all of them.
//! * [`settle`] then looks over the whole ring: what one slot leaves open, its neighbours often decide.
//!
//! Invariant: an op that was acknowledged is never concluded absent or torn, whatever a power cut leaves of the
//! writes in flight and whatever one fault of the medium adds, with the one exclusion that `docs/data-file.md` states.

mod classify;
mod ring;

pub(crate) use classify::body_holds;
pub use classify::{Body, FirstSector, ViewHeaders, Window};
pub use ring::{Conclusion, Refusal, Ring, Slot, State, lag_max, settle};

use crate::SECTOR_SIZE;
use crate::header::Prepare;
use crate::layout::JournalAck;

/// What a slot's redundant header shows, relative to the checkpoint and the durable view headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderClass {
    /// Never written since format.
    Reserved,
    /// A prepare at or below the checkpoint, or of the slot's op but not admissible.
    Stale,
    /// An admissible prepare of the slot's op.
    Current,
    /// No header that belongs here.
    Invalid,
    /// A prepare that cannot have been written before the next checkpoint: the superblock has gone back in time.
    Beyond,
}

/// What the first sector of a slot's prepare shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrepareClass {
    /// Never written since format.
    Reserved,
    /// A prepare at or below the checkpoint, or of the slot's op but not admissible.
    Stale,
    /// An admissible prepare of the slot's op.
    Current,
    /// No valid header: decay, or a tear below the sector.
    Invalid,
    /// A valid header that does not belong here, or an image of a header sector: a misdirected write. A tear, which
    /// leaves parts of the old and the new write to this very slot, cannot look like that.
    Misplaced,
    /// As [`HeaderClass::Beyond`].
    Beyond,
}

/// All that is known of one slot.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each a column of the table"
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// The redundant header.
    pub header: HeaderClass,
    /// The first sector.
    pub prepare: PrepareClass,
    /// Both are valid and the prepare's op is lower than the header's. Ops only: of one op, the order of views is not
    /// the order of writes.
    pub older: bool,
    /// Both are current and have one identity.
    pub equal: bool,
    /// The prepare's body sum and zero tail hold.
    pub good: bool,
    /// The prepare is longer than a sector.
    pub several: bool,
}

impl Evidence {
    /// Puts together what a slot's redundant header and its prepare show; `prepare` is the header in the first sector.
    pub fn new(
        window: &Window<'_>,
        slot: usize,
        redundant: &Prepare,
        found: FirstSector,
        prepare: &Prepare,
    ) -> Self {
        let header = window.classify_header(redundant.header(), slot);
        let stale = header == HeaderClass::Stale && found.class == PrepareClass::Stale;
        let current = header == HeaderClass::Current && found.class == PrepareClass::Current;
        Self {
            header,
            prepare: found.class,
            older: stale && prepare.op < redundant.op,
            equal: current && prepare.frame.checksum == redundant.frame.checksum,
            good: found.body == Body::Good,
            several: prepare.frame.size as usize > SECTOR_SIZE,
        }
    }
}

/// What a row says of the slot's op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Never acknowledged here: anything at this op may be nacked.
    Absent,
    /// Here, and in both rings.
    Clean,
    /// Here; the redundant header is to be written.
    Present,
    /// The prepare was not written to its end, so never acknowledged: it may be nacked.
    Torn,
    /// What the redundant header names was here: neither nacked nor present.
    LostHeader,
    /// What the first sector names was here: neither nacked nor present.
    LostPrepare,
    /// Something may have been acknowledged here: neither nacked nor present.
    Unknown,
    /// Two admissible prepares of one op: the hash chain tells which one belongs.
    Conflict,
    /// The superblock is older than the journal: this replica neither acks nor votes.
    Regressed,
}

/// What recovery writes to the slot's redundant header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fix {
    /// Nothing.
    None,
    /// The header of the prepare, which is durable.
    Prepare,
    /// The header of a slot never written: it claims nothing, so it is always true.
    Reserved,
}

/// A row of the table. `None` and absent classes match anything.
#[derive(Debug)]
struct Row {
    number: u8,
    name: &'static str,
    header: &'static [HeaderClass],
    prepare: &'static [PrepareClass],
    older: Option<bool>,
    equal: Option<bool>,
    good: Option<bool>,
    several: Option<bool>,
    single: Decision,
    both: Decision,
    both_solo: Decision,
    fix: Fix,
}

use Decision as D;
use HeaderClass as H;
use PrepareClass as P;

const fn row(
    number: u8,
    name: &'static str,
    header: &'static [H],
    prepare: &'static [P],
    decision: D,
) -> Row {
    Row {
        number,
        name,
        header,
        prepare,
        older: None,
        equal: None,
        good: None,
        several: None,
        single: decision,
        both: decision,
        both_solo: decision,
        fix: Fix::None,
    }
}

impl Row {
    const fn older(self, older: bool) -> Self {
        Self {
            older: Some(older),
            ..self
        }
    }

    const fn equal(self, equal: bool) -> Self {
        Self {
            equal: Some(equal),
            ..self
        }
    }

    const fn good(self, good: bool) -> Self {
        Self {
            good: Some(good),
            ..self
        }
    }

    const fn several(self, several: bool) -> Self {
        Self {
            several: Some(several),
            ..self
        }
    }

    /// Where every ack waited for both rings, the row says something else.
    const fn both(self, both: D) -> Self {
        Self {
            both,
            both_solo: both,
            ..self
        }
    }

    const fn both_solo(self, both_solo: D) -> Self {
        Self { both_solo, ..self }
    }

    const fn fix(self, fix: Fix) -> Self {
        Self { fix, ..self }
    }

    fn matches(&self, evidence: Evidence) -> bool {
        let fits = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        self.header.contains(&evidence.header)
            && self.prepare.contains(&evidence.prepare)
            && fits(self.older, evidence.older)
            && fits(self.equal, evidence.equal)
            && fits(self.good, evidence.good)
            && fits(self.several, evidence.several)
    }
}

/// The table. `docs/data-file.md` gives it in words, with the reason of each row.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(1, "never written", &[H::Reserved], &[P::Reserved], D::Absent),
    row(2, "an earlier wrap", &[H::Stale], &[P::Stale], D::Absent).older(false),
    row(3, "an earlier wrap, its header not yet down", &[H::Reserved], &[P::Stale], D::Absent),
    row(4, "header decayed, nothing newer in the slot", &[H::Invalid], &[P::Reserved, P::Stale], D::Absent)
        .both(D::Unknown).both_solo(D::Absent).fix(Fix::Reserved),
    row(5, "a write was lost: nothing behind a header", &[H::Stale], &[P::Reserved], D::Unknown).both(D::Absent),
    row(5, "a write was lost: older than its header", &[H::Stale], &[P::Stale], D::Unknown).both(D::Absent).older(true),
    row(6, "the prepare's write was lost", &[H::Current], &[P::Reserved, P::Stale], D::LostHeader),
    row(7, "the first sector decayed", &[H::Reserved, H::Stale], &[P::Invalid], D::Unknown).both(D::Absent),
    row(7, "a misdirected write destroyed the slot", &[H::Reserved, H::Stale], &[P::Misplaced], D::Unknown),
    row(8, "both decayed", &[H::Invalid], &[P::Invalid, P::Misplaced], D::Unknown),
    row(9, "the prepare decayed", &[H::Current], &[P::Invalid, P::Misplaced], D::LostHeader),
    row(10, "header not yet down, or lost", &[H::Reserved, H::Stale, H::Invalid], &[P::Current], D::Present)
        .good(true).fix(Fix::Prepare),
    row(11, "both rings agree", &[H::Current], &[P::Current], D::Clean).equal(true).good(true),
    row(12, "the body decayed", &[H::Current], &[P::Current], D::LostPrepare).equal(true).good(false),
    row(13, "one sector is never torn, so it decayed", &[H::Reserved, H::Stale], &[P::Current], D::LostPrepare)
        .both(D::Torn).good(false).several(false),
    row(14, "torn", &[H::Reserved, H::Stale], &[P::Current], D::Torn).good(false).several(true),
    row(15, "torn or decayed, and no header to tell", &[H::Invalid], &[P::Current], D::LostPrepare).good(false),
    row(16, "replaced, the new header not yet down", &[H::Current], &[P::Current], D::Conflict).equal(false).good(true),
    row(17, "two prepares, the later one damaged", &[H::Current], &[P::Current], D::LostHeader).equal(false).good(false),
    row(18, "a header from the future", &[H::Beyond],
        &[P::Reserved, P::Stale, P::Current, P::Invalid, P::Misplaced, P::Beyond], D::Regressed),
    row(18, "a prepare from the future", &[H::Reserved, H::Stale, H::Current, H::Invalid], &[P::Beyond], D::Regressed),
];

/// What to conclude about a slot's op, and what to write to its redundant header. `solo`: the cluster has one replica.
pub fn decide(evidence: &Evidence, ack: JournalAck, solo: bool) -> (Decision, Fix) {
    let row = ROWS
        .iter()
        .find(|row| row.matches(*evidence))
        .expect("the table is total: see its test");
    let decision = match (ack, solo) {
        (JournalAck::Single, _) => row.single,
        (JournalAck::Both, false) => row.both,
        (JournalAck::Both, true) => row.both_solo,
    };
    // What stays undecided is not touched: a repaired header would decide it at the next start.
    let undecided = decision == D::Unknown;
    (decision, if undecided { Fix::None } else { row.fix })
}

/// Number and name of the row that matches.
pub fn explain(evidence: &Evidence) -> (u8, &'static str) {
    let row = ROWS
        .iter()
        .find(|row| row.matches(*evidence))
        .expect("the table is total: see its test");
    (row.number, row.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [H; 5] = [H::Reserved, H::Stale, H::Current, H::Invalid, H::Beyond];
    const PREPARES: [P; 6] = [
        P::Reserved,
        P::Stale,
        P::Current,
        P::Invalid,
        P::Misplaced,
        P::Beyond,
    ];

    fn domain() -> impl Iterator<Item = Evidence> {
        HEADERS.into_iter().flat_map(|header| {
            PREPARES.into_iter().flat_map(move |prepare| {
                (0..16).map(move |bits| Evidence {
                    header,
                    prepare,
                    older: bits & 1 != 0,
                    equal: bits & 2 != 0,
                    good: bits & 4 != 0,
                    several: bits & 8 != 0,
                })
            })
        })
    }

    #[test]
    fn exactly_one_row_matches_each_input() {
        let mut matched = vec![0; ROWS.len()];
        for evidence in domain() {
            let rows: Vec<_> = (0..ROWS.len())
                .filter(|&index| ROWS[index].matches(evidence))
                .collect();
            assert_eq!(rows.len(), 1, "{evidence:?} matches rows {rows:?}");
            matched[rows[0]] += 1;
        }
        assert!(matched.iter().all(|&count| count > 0));
        let numbers: Vec<_> = ROWS.iter().map(|row| row.number).collect();
        assert!((1..=18).all(|number| numbers.contains(&number)));
    }

    #[test]
    fn a_prepare_is_claimed_only_when_its_body_was_verified() {
        for evidence in domain() {
            for (ack, solo) in MODES {
                let (decision, fix) = decide(&evidence, ack, solo);
                if matches!(decision, D::Present | D::Clean) {
                    assert!(evidence.good && evidence.prepare == P::Current);
                }
                if fix == Fix::Prepare {
                    assert_eq!(decision, D::Present);
                }
            }
        }
    }

    #[test]
    fn what_one_write_acknowledged_is_nacked_only_if_both_witnesses_are_old_or_it_tore() {
        for evidence in domain() {
            let (decision, _) = decide(&evidence, JournalAck::Single, false);
            if decision == D::Absent {
                assert!(
                    matches!(evidence.prepare, P::Reserved | P::Stale),
                    "{evidence:?}"
                );
                assert_ne!(evidence.header, H::Current);
            }
            if decision == D::Torn {
                assert!(evidence.several, "a sector is old or new: {evidence:?}");
            }
        }
    }

    #[test]
    fn fixes_do_not_change_the_conclusion() {
        for evidence in domain() {
            for (ack, solo) in MODES {
                let (decision, fix) = decide(&evidence, ack, solo);
                let after = match fix {
                    Fix::None => continue,
                    Fix::Prepare => Evidence {
                        header: H::Current,
                        equal: true,
                        ..evidence
                    },
                    Fix::Reserved => Evidence {
                        header: H::Reserved,
                        older: false,
                        ..evidence
                    },
                };
                let (again, fix) = decide(&after, ack, solo);
                assert_eq!(fix, Fix::None);
                let claim = |decision| {
                    if decision == D::Clean {
                        D::Present
                    } else {
                        decision
                    }
                };
                assert_eq!(claim(again), claim(decision), "{evidence:?}");
            }
        }
    }

    const MODES: [(JournalAck, bool); 4] = [
        (JournalAck::Single, false),
        (JournalAck::Single, true),
        (JournalAck::Both, false),
        (JournalAck::Both, true),
    ];

    fn evidence(header: H, prepare: P) -> Evidence {
        Evidence {
            header,
            prepare,
            older: false,
            equal: false,
            good: false,
            several: false,
        }
    }

    #[track_caller]
    fn expect(number: u8, evidence: Evidence, single: D, both: D) {
        assert_eq!(explain(&evidence).0, number);
        assert_eq!(decide(&evidence, JournalAck::Single, false).0, single);
        assert_eq!(decide(&evidence, JournalAck::Both, false).0, both);
    }

    #[test]
    fn each_row_without_a_current_prepare_says_what_the_document_says() {
        let old = evidence(H::Stale, P::Stale);
        expect(1, evidence(H::Reserved, P::Reserved), D::Absent, D::Absent);
        expect(2, old, D::Absent, D::Absent);
        expect(3, evidence(H::Reserved, P::Stale), D::Absent, D::Absent);
        expect(4, evidence(H::Invalid, P::Reserved), D::Absent, D::Unknown);
        expect(4, evidence(H::Invalid, P::Stale), D::Absent, D::Unknown);
        assert_eq!(
            decide(&evidence(H::Invalid, P::Stale), JournalAck::Both, true).0,
            D::Absent
        );
        expect(5, evidence(H::Stale, P::Reserved), D::Unknown, D::Absent);
        expect(5, Evidence { older: true, ..old }, D::Unknown, D::Absent);
        expect(
            6,
            evidence(H::Current, P::Reserved),
            D::LostHeader,
            D::LostHeader,
        );
        expect(
            6,
            evidence(H::Current, P::Stale),
            D::LostHeader,
            D::LostHeader,
        );
        expect(7, evidence(H::Reserved, P::Invalid), D::Unknown, D::Absent);
        expect(7, evidence(H::Stale, P::Invalid), D::Unknown, D::Absent);
        expect(7, evidence(H::Stale, P::Misplaced), D::Unknown, D::Unknown);
        expect(8, evidence(H::Invalid, P::Invalid), D::Unknown, D::Unknown);
        expect(
            9,
            evidence(H::Current, P::Invalid),
            D::LostHeader,
            D::LostHeader,
        );
    }

    #[test]
    fn each_row_with_a_current_prepare_says_what_the_document_says() {
        let current = |header| evidence(header, P::Current);
        let good = |header| Evidence {
            good: true,
            ..current(header)
        };
        let several = |header| Evidence {
            several: true,
            ..current(header)
        };
        let equal = |evidence| Evidence {
            equal: true,
            ..evidence
        };
        for header in [H::Reserved, H::Stale, H::Invalid] {
            expect(10, good(header), D::Present, D::Present);
        }
        expect(11, equal(good(H::Current)), D::Clean, D::Clean);
        expect(
            12,
            equal(current(H::Current)),
            D::LostPrepare,
            D::LostPrepare,
        );
        expect(13, current(H::Stale), D::LostPrepare, D::Torn);
        expect(14, several(H::Stale), D::Torn, D::Torn);
        expect(14, several(H::Reserved), D::Torn, D::Torn);
        expect(15, current(H::Invalid), D::LostPrepare, D::LostPrepare);
        expect(16, good(H::Current), D::Conflict, D::Conflict);
        expect(17, current(H::Current), D::LostHeader, D::LostHeader);
        expect(
            18,
            evidence(H::Beyond, P::Invalid),
            D::Regressed,
            D::Regressed,
        );
        expect(
            18,
            evidence(H::Stale, P::Beyond),
            D::Regressed,
            D::Regressed,
        );
    }
}
