//! `viewstone format`.

use super::size::{parse_cluster, parse_size, parse_size_u32, show_size};
use super::{Exit, Failure, print};
use crate::server::data_file::{Device, check_place, create, probe};
use clap::ValueEnum;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use storage::format::Format;
use storage::layout::{Geometry, JournalAck};
use storage::superblock::FileId;

const EXAMPLES: &str = "\
Examples:
  One replica, to try things out (about 32 MiB):
    viewstone format --replica 0 --replica-count 1 --small 0.viewstone

  A cluster of three: the same --cluster and sizes for all, each replica on its own machine:
    viewstone format --cluster 0x5eed --replica 0 --replica-count 3 /data/0.viewstone
    viewstone format --cluster 0x5eed --replica 1 --replica-count 3 /data/1.viewstone
    viewstone format --cluster 0x5eed --replica 2 --replica-count 3 /data/2.viewstone

  More room for state, on a block device:
    viewstone format --cluster 7 --replica 0 --replica-count 3 --state-size 8GiB /dev/nvme1n1

All is written now: the file never grows, and a full disk cannot stop the replica later.
An existing file is never overwritten, and a format that is stopped leaves no file behind.
To replace a file that was lost, use viewstone recover.

Exit status:
  0  the file is made
  2  the command line is wrong, or the sizes are none that a file can have
  3  the directory is missing
  5  there is such a file already, or the device is in use or holds something
  6  no permission
  7  too little disk space
  1  any other failure";

/// Make the data file of a new replica.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The cluster's id, decimal or 0x…; the same for all its replicas. Random if not given.
    #[arg(long, value_parser = parse_cluster)]
    cluster: Option<u128>,
    /// Which replica of the cluster the file is for, from 0.
    #[arg(long, value_name = "INDEX")]
    replica: u8,
    /// How many replicas the cluster has: 1 to 6; 3 or 5 for production.
    #[arg(long, value_name = "COUNT")]
    replica_count: u8,
    /// When a prepare is acknowledged. `single`: when one write is durable, where one is enough. `both`: when its
    /// redundant header is too. Chosen by the device's physical sector if not given; this replica's own affair.
    #[arg(long, value_enum, value_name = "WRITES")]
    journal_ack: Option<AckArgument>,
    /// The data file to make, or a block device to format.
    file: PathBuf,
    #[command(flatten)]
    geometry: GeometryArguments,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Geometry (the same for all replicas)")]
struct GeometryArguments {
    /// Small sizes, for tests and laptops: a file of less than 32 MiB.
    #[arg(long, conflicts_with = "large")]
    small: bool,
    /// Large sizes: 1 MiB messages and 1 GiB of state, a file of about 4 GiB.
    #[arg(long)]
    large: bool,
    /// Memory and disk for replicated state [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    state_size: Option<u64>,
    /// Largest message [default: 256KiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size_u32)]
    message_size: Option<u32>,
    /// Slots of the journal, a power of two [default: 1024]
    #[arg(long, value_name = "COUNT")]
    slots: Option<u32>,
    /// Most prepares in flight [default: 8]
    #[arg(long, value_name = "COUNT")]
    pipeline: Option<u32>,
    /// Most client sessions [default: 1024]
    #[arg(long, value_name = "COUNT")]
    sessions: Option<u32>,
    /// Largest reply to a write [default: 3840]
    #[arg(long, value_name = "SIZE", value_parser = parse_size_u32)]
    reply_size: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum AckArgument {
    Single,
    Both,
}

impl Arguments {
    fn geometry(&self, ack: JournalAck) -> Geometry {
        let preset = match (self.geometry.small, self.geometry.large) {
            (true, _) => Geometry::SMALL,
            (_, true) => Geometry::LARGE,
            _ => Geometry::DEFAULT,
        };
        let given = &self.geometry;
        Geometry {
            state_size: given.state_size.unwrap_or(preset.state_size),
            message_size_max: given.message_size.unwrap_or(preset.message_size_max),
            slots: given.slots.unwrap_or(preset.slots),
            pipeline_max: given.pipeline.unwrap_or(preset.pipeline_max),
            sessions_max: given.sessions.unwrap_or(preset.sessions_max),
            reply_size_max: given.reply_size.unwrap_or(preset.reply_size_max),
            journal_ack: ack as u8,
            ..preset
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let device = device_of(&arguments.file);
    let ack = match arguments.journal_ack {
        Some(AckArgument::Single) => JournalAck::Single,
        Some(AckArgument::Both) => JournalAck::Both,
        None => device.journal_ack(arguments.replica_count),
    };
    let cluster = match arguments.cluster {
        Some(cluster) => cluster,
        None => random("cluster id", ": give one with --cluster")?,
    };
    let geometry = arguments.geometry(ack);
    let format = Format::new(
        cluster,
        new_file_id()?,
        arguments.replica,
        arguments.replica_count,
        geometry,
    )
    .map_err(|error| Failure::new(Exit::Usage, &error))?;
    check_place(&arguments.file, &format)?;
    warn(arguments, &device, ack);
    let mut progress = Progress::new();
    let result = create(&arguments.file, &format, |done, of| progress.show(done, of));
    progress.end();
    result?;
    print(format_args!(
        "formatted {}: replica {} of {} of cluster {cluster:#034x}, {}",
        arguments.file.display(),
        arguments.replica,
        arguments.replica_count,
        show_size(format.layout().size)
    ));
    Ok(Exit::Ok)
}

/// The device a file that may not be there yet will lie on. What is wrong with the path, format itself reports.
pub(super) fn device_of(file: &Path) -> Device {
    let directory = file.parent().filter(|parent| *parent != Path::new(""));
    probe(file)
        .or_else(|_| probe(directory.unwrap_or(Path::new("."))))
        .unwrap_or_default()
}

/// The name of a file that is about to be made.
pub(super) fn new_file_id() -> Result<FileId, Failure> {
    random("name for the file", "").map(FileId::of_random)
}

fn random(what: &str, otherwise: &str) -> Result<u128, Failure> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|error| {
            let message =
                format!("cannot draw a random {what} from /dev/urandom ({error}){otherwise}");
            Failure::new(Exit::Failed, &message)
        })?;
    Ok(u128::from_le_bytes(bytes))
}

/// Says what the choices do not give.
fn warn(arguments: &Arguments, device: &Device, ack: JournalAck) {
    match arguments.replica_count {
        1 => eprintln!(
            "warning: one replica survives crashes and power cuts, but not the loss of its disk, and is down while it \
             is down. Three replicas survive the loss of any one"
        ),
        2 => eprintln!(
            "warning: two replicas keep a second copy, but both must be up: if either is down, so is the cluster. \
             Three replicas go on without any one"
        ),
        _ => {}
    }
    if arguments.cluster.is_none() && arguments.replica_count > 1 {
        eprintln!(
            "warning: the cluster id is random: give the one printed below to the other replicas' --cluster"
        );
    }
    let safe = device.journal_ack(arguments.replica_count);
    if ack == JournalAck::Both && arguments.journal_ack.is_none() && arguments.replica_count != 2 {
        let sector = match device.physical_sector {
            Some(size) => format!(
                "writes {size} bytes whole, aligned to 4096: {}",
                device.aligned
            ),
            None => "does not tell how many bytes it writes whole".to_owned(),
        };
        eprintln!(
            "note: the device {sector}; so each prepare is acknowledged after two writes, not one (--journal-ack both)"
        );
    }
    if ack == JournalAck::Single && safe == JournalAck::Both {
        eprintln!(
            "warning: --journal-ack single is only safe where the device writes 4096 bytes whole and with other than \
             two replicas, which is not known to be so here: a power cut may take acknowledged writes"
        );
    }
}

/// A line of progress, where a person watches.
pub(super) struct Progress {
    visible: bool,
    percent: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            visible: std::io::stderr().is_terminal(),
            percent: 0,
        }
    }

    pub(super) fn show(&mut self, done: u64, of: u64) {
        let percent = done * 100 / of;
        if self.visible && percent != self.percent {
            self.percent = percent;
            let _ = write!(
                std::io::stderr(),
                "\rwriting {}: {percent} %",
                show_size(of)
            );
        }
    }

    pub(super) fn end(&self) {
        if self.visible && self.percent > 0 {
            eprintln!();
        }
    }
}
