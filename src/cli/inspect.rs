//! `viewstone inspect` and `viewstone verify`: what is in a data file, damaged or in use as it may be.
//!
//! Each part of the file is a [`Section`]: it knows its findings as JSON, as text, and what is wrong. Further parts are
//! added to [`sections`].

use super::size::show_size;
use super::{Exit, Failure, print};
use crate::server::data_file::{DataFileError, Peek, peek};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use storage::layout::{JournalAck, Layout};
use storage::superblock::{CopyReport, Decision, OpenError};

/// Show what is in a data file: read-only, also while a replica runs on it and when it is damaged.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  viewstone inspect --json 0.viewstone")]
pub(super) struct InspectArguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The data file.
    file: PathBuf,
}

/// Check a data file: exit status 0 if nothing is wrong, 1 if something is.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  viewstone verify 0.viewstone && echo sound")]
pub(super) struct VerifyArguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The data file.
    file: PathBuf,
}

/// What was found in one part of the file.
struct Section {
    name: &'static str,
    json: Value,
    lines: Vec<(&'static str, String)>,
    damage: Vec<String>,
}

fn sections(peek: &Peek) -> Vec<Section> {
    vec![file_section(peek), superblock_section(peek)]
}

pub(super) fn inspect(arguments: &InspectArguments) -> Result<Exit, Failure> {
    let peek = peek(&arguments.file)?;
    let sections = sections(&peek);
    if arguments.json {
        print(to_json(&arguments.file, &peek, &sections));
    } else {
        print(arguments.file.display());
        for section in &sections {
            print(section.name);
            for (name, value) in &section.lines {
                print(format_args!("  {name:<18} {value}"));
            }
        }
        show_damage(&sections);
    }
    Ok(Exit::Ok)
}

pub(super) fn verify(arguments: &VerifyArguments) -> Result<Exit, Failure> {
    let peek = peek(&arguments.file)?;
    let sections = sections(&peek);
    let sound = sections.iter().all(|section| section.damage.is_empty());
    if arguments.json {
        print(to_json(&arguments.file, &peek, &sections));
    } else if sound {
        let names: Vec<_> = sections.iter().map(|section| section.name).collect();
        print(format_args!(
            "{}: sound ({})",
            arguments.file.display(),
            names.join(", ")
        ));
    } else {
        show_damage(&sections);
    }
    if peek.in_use {
        eprintln!("note: the file is in use; what changes while it is read may look damaged");
    }
    if sound {
        return Ok(Exit::Ok);
    }
    match peek.superblock {
        // A file that never was a data file is the wrong one, not a damaged one.
        Err(error @ (OpenError::NotFormatted | OpenError::NotADataFile)) => {
            let path = arguments.file.clone();
            Err(DataFileError::Superblock { path, error }.into())
        }
        _ => Ok(Exit::Failed),
    }
}

fn show_damage(sections: &[Section]) {
    for section in sections {
        for damage in &section.damage {
            print(format_args!("damage: {}: {damage}", section.name));
        }
    }
}

fn to_json(path: &Path, peek: &Peek, sections: &[Section]) -> Value {
    let damage: Vec<_> = sections
        .iter()
        .flat_map(|section| &section.damage)
        .collect();
    let mut object = json!({
        "path": path.display().to_string(),
        "in_use": peek.in_use,
        "sound": damage.is_empty(),
        "damage": damage,
    });
    for section in sections {
        object[section.name] = section.json.clone();
    }
    object
}

fn file_section(peek: &Peek) -> Section {
    let expected = peek.superblock.as_ref().ok().map(|decision| {
        let geometry = decision.content.state.geometry;
        Layout::new(geometry).size
    });
    let mut damage = Vec::new();
    if let Some(expected) = expected
        && peek.size < expected
    {
        damage.push(format!(
            "truncated: {} bytes, and the superblock says {expected}",
            peek.size
        ));
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

fn superblock_section(peek: &Peek) -> Section {
    match &peek.superblock {
        Ok(decision) => good_superblock(decision),
        Err(error) => Section {
            name: "superblock",
            json: json!({ "error": error.to_string() }),
            lines: vec![("error", error.to_string())],
            damage: vec![error.to_string()],
        },
    }
}

fn good_superblock(decision: &Decision) -> Section {
    let copies = &decision.copies;
    let places = copies.iter().enumerate();
    let damage = places.clone().filter_map(|(copy, report)| match report {
        CopyReport::Valid { in_place: true, .. } => None,
        report => Some(format!("copy {copy}: {report}; the next start repairs it")),
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
