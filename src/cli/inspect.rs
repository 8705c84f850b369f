//! `viewstone inspect` and `viewstone verify`: what is in a data file, damaged or in use as it may be.
//!
//! Each part of the file is a [`Section`]: it knows its findings as JSON, as text, and what is wrong. *Damage* is what no
//! crash leaves behind: a prepare torn before it was acknowledged is none, a decayed sector is one, also where nothing is
//! lost by it. Everything is read that a replica would ever read: all superblock copies, both rings of the journal with
//! all bodies, both copies of every node of the address map, the tag tree, all pages.
//!
//! Nothing is written, and nothing is locked. A replica that runs on the file goes on writing it; what then looks damaged
//! may be a write that was just going on, so it is looked at again.

mod checkpoint;
mod journal;
mod section;
mod superblock;

use super::{Exit, Failure, print};
use crate::server::data_file::{DataFileError, Peek, peek};
use section::{Damage, Section};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use storage::layout::Layout;
use storage::superblock::OpenError;

/// How often a file in use is looked at, as long as something seems to be damaged.
const LOOKS_MAX: u32 = 5;

/// Show what is in a data file: superblock, journal, checkpoint, pages. Read-only, also while a replica runs on it and when
/// it is damaged.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  viewstone inspect --json 0.viewstone

Exit status:
  0  there is a data file to show, damaged or not (`verify` tells)
  3  the file is none")]
pub(super) struct InspectArguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The data file.
    file: PathBuf,
}

/// Check a data file: every byte that a replica would ever read. One line for each damage: what, where, what follows.
///
/// What a crash leaves is no damage: a prepare that was torn before it was acknowledged, a redundant header that was not
/// yet written.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  viewstone verify 0.viewstone && echo sound

Exit status:
  0  nothing is damaged
  1  something is
  3  the file is missing, empty or no data file at all")]
pub(super) struct VerifyArguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The data file.
    file: PathBuf,
}

/// All that was found in a file.
struct Examination {
    peek: Peek,
    sections: Vec<Section>,
}

impl Examination {
    fn is_sound(&self) -> bool {
        self.sections
            .iter()
            .all(|section| section.damage.is_empty())
    }

    /// A file that never was a data file is the wrong one, not a damaged one.
    fn check_kind(&self, path: &Path) -> Result<(), DataFileError> {
        match &self.peek.superblock {
            Err(error @ (OpenError::NotFormatted | OpenError::NotADataFile)) => {
                Err(DataFileError::Superblock {
                    path: path.to_path_buf(),
                    error: error.clone(),
                })
            }
            _ => Ok(()),
        }
    }
}

fn examine(path: &Path) -> Result<Examination, DataFileError> {
    let mut looks = 1;
    loop {
        let peek = peek(path)?;
        let sections = sections(&peek);
        let found = Examination { peek, sections };
        if found.is_sound() || !found.peek.in_use || looks == LOOKS_MAX {
            return Ok(found);
        }
        looks += 1;
    }
}

fn sections(peek: &Peek) -> Vec<Section> {
    let mut file = superblock::file_section(peek);
    let mut sections = vec![superblock::superblock_section(peek)];
    match &peek.superblock {
        Ok(decision) => {
            let content = &decision.content;
            let layout = Layout::new(content.state.geometry);
            sections.push(journal::journal_section(&peek.fd, &layout, content));
            sections.extend(checkpoint::checkpoint_sections(
                &peek.fd,
                &layout,
                &content.state,
            ));
        }
        Err(_) => sections.extend(["journal", "checkpoint", "pages"].map(Section::unknown)),
    }
    // What lies beyond the end of a truncated file is one damage, not thousands.
    let beyond: usize = sections
        .iter_mut()
        .map(|section| section.take_beyond(peek.size))
        .sum();
    if beyond > 0 {
        let what = format!("{beyond} of its parts lie beyond the end");
        file.damage.push(Damage::of(what, ""));
    }
    for section in &mut sections {
        section.bound();
    }
    sections.insert(0, file);
    sections
}

pub(super) fn inspect(arguments: &InspectArguments) -> Result<Exit, Failure> {
    let found = examine(&arguments.file)?;
    if arguments.json {
        print(to_json(&arguments.file, &found));
    } else {
        print(arguments.file.display());
        for section in &found.sections {
            print(section.name);
            for (name, value) in &section.lines {
                print(format_args!("  {name:<18} {value}"));
            }
        }
        show_damage(&found);
    }
    found.check_kind(&arguments.file)?;
    Ok(Exit::Ok)
}

pub(super) fn verify(arguments: &VerifyArguments) -> Result<Exit, Failure> {
    let found = examine(&arguments.file)?;
    if arguments.json {
        print(to_json(&arguments.file, &found));
    } else if found.is_sound() {
        let names: Vec<_> = found.sections.iter().map(|section| section.name).collect();
        print(format_args!(
            "{}: sound ({})",
            arguments.file.display(),
            names.join(", ")
        ));
    } else {
        show_damage(&found);
    }
    if found.peek.in_use && !found.is_sound() {
        eprintln!("note: the file is in use; what changes while it is read may look damaged");
    }
    found.check_kind(&arguments.file)?;
    Ok(if found.is_sound() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

fn show_damage(found: &Examination) {
    for section in &found.sections {
        for damage in &section.damage {
            print(format_args!("damage: {}: {damage}", section.name));
        }
    }
}

fn to_json(path: &Path, found: &Examination) -> Value {
    let damage: Vec<_> = found
        .sections
        .iter()
        .flat_map(|section| section.damage.iter().map(|it| it.to_json(section.name)))
        .collect();
    let mut object = json!({
        "path": path.display().to_string(),
        "in_use": found.peek.in_use,
        "sound": damage.is_empty(),
        "damage": damage,
    });
    for section in &found.sections {
        object[section.name] = section.json.clone();
    }
    object
}
