//! The file as a whole, and its superblock.

use super::section::{Damage, Section};
use crate::cli::size::show_size;
use crate::server::data_file::Peek;
use serde_json::{Value, json};
use storage::layout::{JournalAck, Layout};
use storage::superblock::{CopyReport, Decision};

pub(super) fn file_section(peek: &Peek) -> Section {
    let expected = peek.superblock.as_ref().ok().map(|decision| {
        let geometry = decision.content.state.geometry;
        Layout::new(geometry).size
    });
    let mut damage = Vec::new();
    if let Some(expected) = expected
        && peek.size < expected
    {
        let what = format!(
            "truncated: {} bytes, and the superblock says {expected}",
            peek.size
        );
        let follows = "recover this replica from the others; in a cluster of one or two restore all files from one backup";
        damage.push(Damage::at(peek.size, what, follows));
    }
    let in_use = if peek.in_use {
        "yes, by a running process"
    } else {
        "no"
    };
    Section {
        name: "file",
        json: json!({ "size": peek.size, "size_expected": expected }),
        lines: vec![
            (
                "size",
                format!("{} ({} bytes)", show_size(peek.size), peek.size),
            ),
            ("in use", in_use.to_owned()),
        ],
        damage,
    }
}

pub(super) fn superblock_section(peek: &Peek) -> Section {
    match &peek.superblock {
        Ok(decision) => good_superblock(decision),
        Err(error) => Section {
            name: "superblock",
            json: json!({ "error": error.to_string() }),
            lines: vec![("error", error.to_string())],
            damage: vec![Damage::of(error, "")],
        },
    }
}

fn good_superblock(decision: &Decision) -> Section {
    let copies = &decision.copies;
    let places = copies.iter().enumerate();
    let damage = places.clone().filter_map(|(copy, report)| match report {
        CopyReport::Valid { in_place: true, .. } => None,
        report => Some(Damage::at(
            Layout::superblock_at(copy),
            format!("copy {copy}: {report}"),
            "torn by a power cut or decayed; the next start writes it again",
        )),
    });
    let mut lines = superblock_lines(decision);
    for (copy, report) in places.clone() {
        let name = ["copy 0", "copy 1", "copy 2", "copy 3"][copy];
        lines.push((name, report.to_string()));
    }
    Section {
        name: "superblock",
        json: superblock_json(decision),
        lines,
        damage: damage.collect(),
    }
}

fn superblock_lines(decision: &Decision) -> Vec<(&'static str, String)> {
    let state = &decision.content.state;
    let geometry = &state.geometry;
    let head = decision
        .content
        .view_headers
        .as_slice()
        .iter()
        .map(|header| header.op)
        .max();
    let ack = match geometry.journal_ack() {
        JournalAck::Single => "single",
        JournalAck::Both => "both",
    };
    vec![
        ("cluster", format!("{:#034x}", state.cluster)),
        (
            "replica",
            format!("{} of {}", state.replica, state.replica_count),
        ),
        ("file id", format!("{:032x}", state.file)),
        ("start", start_name(decision).to_owned()),
        ("sequence", state.sequence.to_string()),
        (
            "view",
            format!("{} (log_view {})", state.view, state.log_view),
        ),
        ("commit_max", state.commit_max.to_string()),
        (
            "checkpoint",
            format!(
                "op {}, id {:032x}",
                state.checkpoint.prepare.op, state.checkpoint.id
            ),
        ),
        (
            "view headers",
            format!("{}, to op {}", state.view_headers_count, head.unwrap_or(0)),
        ),
        ("state size", show_size(geometry.state_size)),
        ("message size", show_size(geometry.message_size_max.into())),
        ("slots", geometry.slots.to_string()),
        ("pipeline", geometry.pipeline_max.to_string()),
        (
            "sessions",
            format!(
                "{}, replies to {} bytes",
                geometry.sessions_max, geometry.reply_size_max
            ),
        ),
        ("journal ack", ack.to_owned()),
    ]
}

fn start_name(decision: &Decision) -> &'static str {
    use storage::header::Start;
    match decision.content.state.start() {
        Start::Blank => "blank",
        Start::Initialised => "initialised",
        Start::Begun => "begun",
    }
}

fn superblock_json(decision: &Decision) -> Value {
    let state = &decision.content.state;
    let geometry = &state.geometry;
    let headers = decision.content.view_headers.as_slice().iter();
    let headers = headers.map(|header| {
        let checksum = format!("{:032x}", header.frame.checksum);
        json!({ "op": header.op, "view": header.frame.view, "checksum": checksum })
    });
    json!({
        "checksum": format!("{:032x}", state.checksum),
        "parent": format!("{:032x}", state.parent),
        "version": state.version,
        "cluster": format!("{:#034x}", state.cluster),
        "file": format!("{:032x}", state.file),
        "replica": state.replica,
        "replica_count": state.replica_count,
        "start": start_name(decision),
        "sequence": state.sequence,
        "view": state.view,
        "log_view": state.log_view,
        "commit_max": state.commit_max,
        "checkpoint": {
            "op": state.checkpoint.prepare.op,
            "id": format!("{:032x}", state.checkpoint.id),
            "parent": format!("{:032x}", state.checkpoint.parent),
            "root": format!("{:032x}", state.checkpoint.root),
            "pages_used": state.checkpoint.pages_used,
        },
        "geometry": {
            "state_size": geometry.state_size,
            "message_size_max": geometry.message_size_max,
            "slots": geometry.slots,
            "pipeline_max": geometry.pipeline_max,
            "sessions_max": geometry.sessions_max,
            "reply_size_max": geometry.reply_size_max,
            "journal_ack": if geometry.journal_ack() == JournalAck::Single { "single" } else { "both" },
        },
        "view_headers": headers.collect::<Vec<_>>(),
        "copies": decision.copies.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
