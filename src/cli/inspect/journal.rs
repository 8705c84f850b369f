//! The journal: what recovery would conclude of it, and what is damaged.

use super::section::{Damage, Section};
use crate::server::data_file::read_sectors;
use rustix::fd::AsFd;
use serde_json::{Value, json};
use std::fmt::Write;
use storage::header::HEADER_SIZE;
use storage::journal::{PrepareDamage, SlotSurvey, Survey, SurveyStart, survey};
use storage::layout::Layout;
use storage::recovery::{Conclusion, HeaderClass, PrepareClass, Refusal, State};
use storage::superblock::Content;

/// Slots shown one by one; the rest is only counted.
const SLOTS_SHOWN_MAX: usize = 64;

pub(super) fn journal_section(fd: impl AsFd, layout: &Layout, content: &Content) -> Section {
    let surveyed = survey(layout, &SurveyStart::of(content), |at, buffer| {
        let read = read_sectors(&fd, at, buffer);
        buffer[read..].fill(0);
    });
    let solo = content.state.replica_count == 1;
    let checkpoint_op = content.state.checkpoint.prepare.op;
    let damage = damages(&surveyed, layout, solo);
    Section {
        name: "journal",
        json: to_json(&surveyed, checkpoint_op),
        lines: lines(&surveyed, checkpoint_op),
        damage,
    }
}

const STATES: [(State, &str); 5] = [
    (State::Present, "present"),
    (State::Absent, "absent"),
    (State::Torn, "torn"),
    (State::Lost, "lost"),
    (State::Unknown, "unknown"),
];

fn name(state: State) -> &'static str {
    let entry = STATES.iter().find(|entry| entry.0 == state);
    entry.expect("the list names all").1
}

fn count(survey: &Survey, state: State) -> usize {
    survey
        .slots
        .iter()
        .filter(|slot| slot.state == state)
        .count()
}

/// Whether a slot has something to tell beside that it is in use or not.
fn is_ordinary(slot: &SlotSurvey) -> bool {
    // Never written; an earlier wrap; header not yet down; both rings agree.
    let row = matches!(slot.row.0, 1 | 2 | 3 | 10 | 11);
    let settled = matches!(slot.state, State::Absent | State::Present);
    row && settled && !slot.header_damaged && slot.prepare_damage.is_none()
}

fn unusual(survey: &Survey) -> impl Iterator<Item = (usize, &SlotSurvey)> {
    let slots = survey.slots.iter().enumerate();
    slots.filter(|(_, slot)| !is_ordinary(slot))
}

fn head(conclusion: &Conclusion, checkpoint_op: u64) -> String {
    let mut text = format!("op {}", conclusion.head);
    if conclusion.head == checkpoint_op {
        text += ", the checkpoint's";
    }
    if conclusion.head_certain {
        text += ", certain";
    } else if conclusion.op_max > conclusion.head {
        let _ = write!(
            text,
            ", not certain: ops up to {} may have been acknowledged",
            conclusion.op_max
        );
    } else {
        text += ", not certain: the head itself is damaged";
    }
    text
}

fn lines(survey: &Survey, checkpoint_op: u64) -> Vec<(&'static str, String)> {
    let mut lines = match &survey.conclusion {
        Ok(conclusion) => {
            let states: Vec<_> = STATES
                .iter()
                .map(|&(state, name)| format!("{name} {}", count(survey, state)))
                .collect();
            vec![
                ("head", head(conclusion, checkpoint_op)),
                (
                    "slots",
                    format!("{}: {}", survey.slots.len(), states.join(", ")),
                ),
            ]
        }
        Err(refusal) => vec![("refused", refusal.to_string())],
    };
    for (index, slot) in unusual(survey).take(SLOTS_SHOWN_MAX) {
        lines.push(("slot", show_slot(index, slot)));
    }
    let more = unusual(survey).count().saturating_sub(SLOTS_SHOWN_MAX);
    if more > 0 {
        lines.push(("slots not shown", more.to_string()));
    }
    lines
}

fn show_slot(index: usize, slot: &SlotSurvey) -> String {
    let (row, what) = slot.row;
    let mut text = format!(
        "{index}: op {}, {}, row {row}: {what}",
        slot.op,
        name(slot.state)
    );
    for (ring, header) in [("prepare", &slot.prepare), ("header", &slot.redundant)] {
        if let Some(header) = header.filter(|header| !header.is_reserved()) {
            let (op, view) = (header.op, header.frame.view);
            let _ = write!(
                text,
                "; {ring} op {op} view {view} {:032x}",
                header.frame.checksum
            );
        }
    }
    text
}

fn to_json(survey: &Survey, checkpoint_op: u64) -> Value {
    let mut counts = json!({});
    for (state, name) in STATES {
        counts[name] = count(survey, state).into();
    }
    let slots: Vec<_> = unusual(survey)
        .map(|(slot, it)| slot_json(slot, it))
        .collect();
    let mut object = json!({
        "slots": survey.slots.len(),
        "states": counts,
        "unusual": slots,
    });
    match &survey.conclusion {
        Ok(conclusion) => {
            object["checkpoint_op"] = checkpoint_op.into();
            object["head"] = json!({
                "op": conclusion.head,
                "checksum": format!("{:032x}", conclusion.head_identity),
                "certain": conclusion.head_certain,
            });
            object["op_max"] = conclusion.op_max.into();
            object["regressed"] = conclusion.regressed.into();
        }
        Err(refusal) => object["refused"] = refusal.to_string().into(),
    }
    object
}

fn slot_json(index: usize, slot: &SlotSurvey) -> Value {
    let header = |header: &Option<storage::header::Prepare>| {
        header.as_ref().map(|header| {
            json!({
                "op": header.op,
                "view": header.frame.view,
                "checksum": format!("{:032x}", header.frame.checksum),
                "reserved": header.is_reserved(),
            })
        })
    };
    json!({
        "slot": index,
        "op": slot.op,
        "state": name(slot.state),
        "row": slot.row.0,
        "row_name": slot.row.1,
        "identity": (slot.identity != 0).then(|| format!("{:032x}", slot.identity)),
        "prepare": header(&slot.prepare),
        "header": header(&slot.redundant),
    })
}

fn damages(survey: &Survey, layout: &Layout, solo: bool) -> Vec<Damage> {
    let mut damages = Vec::new();
    for (index, slot) in survey.slots.iter().enumerate() {
        if slot.header_damaged {
            let at = layout.headers_at + (index * HEADER_SIZE) as u64;
            let what = match slot.evidence.header {
                HeaderClass::Beyond => "is newer than the superblock allows",
                _ => "is damaged",
            };
            let what = format!("the redundant header of slot {index} {what}");
            damages.push(Damage::at(at, what, follows(survey, slot, false, solo)));
        }
        if let Some(damage) = slot.prepare_damage {
            let at = layout.prepare_at(index);
            let what = match &slot.prepare {
                Some(prepare) if !prepare.is_reserved() => {
                    format!("the prepare of op {} in slot {index}: {damage}", prepare.op)
                }
                _ => format!("the prepare in slot {index}: {damage}"),
            };
            damages.push(Damage::at(at, what, follows(survey, slot, true, solo)));
        }
    }
    if let Err(refusal) = &survey.conclusion {
        let slot = slot_of(refusal);
        let told = survey
            .slots
            .get(slot)
            .is_some_and(|slot| slot.header_damaged || slot.prepare_damage.is_some());
        if !told {
            damages.push(Damage::at(layout.prepare_at(slot), refusal, ""));
        }
    }
    damages
}

fn slot_of(refusal: &Refusal) -> usize {
    match *refusal {
        Refusal::Lost { slot, .. }
        | Refusal::Unknown { slot, .. }
        | Refusal::Regressed { slot, .. }
        | Refusal::Chain { slot, .. } => slot,
    }
}

/// What a damaged header or prepare leads to.
fn follows(survey: &Survey, slot: &SlotSurvey, prepare: bool, solo: bool) -> String {
    let beyond = slot.evidence.header == HeaderClass::Beyond
        || slot.prepare_damage == Some(PrepareDamage::Beyond);
    let regressed = matches!(survey.conclusion, Err(Refusal::Regressed { .. }));
    if beyond || regressed {
        return if solo {
            "the superblock is older than the journal: restore the whole data file from a backup"
        } else {
            "the superblock is older than the journal: recover this replica from the others"
        }
        .to_owned();
    }
    let op = slot.op;
    match slot.state {
        State::Lost | State::Unknown if solo => format!(
            "op {op} may have been acknowledged, and there is no other replica: restore the data file from a backup"
        ),
        State::Lost | State::Unknown => {
            format!(
                "op {op} may have been acknowledged; a peer has it, and it is fetched after the next start"
            )
        }
        State::Present if !prepare => {
            "the prepare is whole: the next start writes the header again".to_owned()
        }
        _ if slot.evidence.prepare == PrepareClass::Stale && prepare => {
            "it is at or below the checkpoint or of no view's log: no state is lost by it"
                .to_owned()
        }
        _ => format!("nothing of op {op} was acknowledged here: no state is lost by it"),
    }
}
