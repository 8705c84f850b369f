//! `viewstone recover`.

use super::cluster::ClusterArgs;
use super::format::{Progress, device_of, new_file_id};
use super::size::show_size;
use super::status::{Answer, ask};
use super::{Exit, Failure, print};
use crate::server::data_file::create;
use std::path::PathBuf;
use storage::format::Format;
use storage::header::{PongClient, Start};
use storage::layout::{Geometry, JournalAck, PAGE_SIZE, PIPELINE_MAX};

const EXAMPLES: &str = "\
Example: replica 1 of three has lost its disk.
    viewstone recover --cluster 7 --addresses a:3001,b:3001,c:3001 --replica 1 /data/1.viewstone
    viewstone start --addresses a:3001,b:3001,c:3001 /data/1.viewstone

The file is made like the others' were: their sizes are asked for. When started, the replica
waits until all that the lost file may have acknowledged is committed, fetches the state from
the others, and only then takes part again.

Exit status:
  0  the file is made: start it
  2  the command line is wrong
  3  the directory is missing, or the addresses are those of several clusters
  5  there is such a file already, or the replica runs
  6  no permission
  7  too little disk space
  8  the others run a release that this one does not know
  9  no replica answers, or the cluster has not begun
  1  any other failure";

/// Make the data file of a replica whose file was lost, damaged beyond mending, or put back to an older state.
///
/// Never use a copy of the old file in its place, and never run both: move the old file away.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Which replica of the cluster the file is for, from 0.
    #[arg(long, value_name = "INDEX")]
    replica: u8,
    /// The data file to make, or a block device to format.
    file: PathBuf,
}

/// What a cluster says of itself, as far as its replicas agree.
struct Shape {
    replica_count: u8,
    geometry: Geometry,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let options = arguments.cluster.options();
    let answers = ask(&options, arguments.cluster.timeout)
        .map_err(|error| Failure::new(Exit::Usage, &error))?;
    let shape = shape(&answers, arguments.replica)?;
    let ack = device_of(&arguments.file).journal_ack(shape.replica_count);
    let geometry = Geometry {
        journal_ack: ack as u8,
        ..shape.geometry
    };
    let format = Format::replacement(
        arguments.cluster.cluster,
        new_file_id()?,
        arguments.replica,
        shape.replica_count,
        geometry,
    )
    .map_err(|error| Failure::new(Exit::Usage, &error))?;
    let mut progress = Progress::new();
    let result = create(&arguments.file, &format, |done, of| {
        progress.show(done, of);
    });
    progress.end();
    result?;
    print(format_args!(
        "made {}: replica {} of {} of cluster {:#034x}, {}, to be filled by the others: start it",
        arguments.file.display(),
        arguments.replica,
        shape.replica_count,
        arguments.cluster.cluster,
        show_size(format.layout().size)
    ));
    Ok(Exit::Ok)
}

/// Finds out what the file must be like.
fn shape(answers: &[Answer], replica: u8) -> Result<Shape, Failure> {
    let pongs = || answers.iter().filter_map(|answer| answer.pong.as_ref());
    let begun = |pong: &&PongClient| pong.start == Start::Begun as u8;
    let Some(pong) = pongs().find(begun) else {
        return Err(unreachable_cluster(answers));
    };
    if pongs().any(|other| other.fingerprint != pong.fingerprint) {
        let message = "the replicas were formatted with different sizes: are all of one cluster?";
        return Err(Failure::new(Exit::WrongFile, &message));
    }
    if replica >= pong.replica_count {
        let message = format!(
            "the cluster has {} replicas: --replica is from 0 to {}",
            pong.replica_count,
            pong.replica_count - 1
        );
        return Err(Failure::new(Exit::Usage, &message));
    }
    if pongs().any(|other| other.frame.replica == replica && begun(&other)) {
        let message = format!(
            "replica {replica} is running. If its file is to be replaced, stop it first, and move the file away"
        );
        return Err(Failure::new(Exit::InUse, &message));
    }
    let geometry = geometry_of(pong).ok_or_else(|| {
        let message = "the cluster's sizes are none that this release knows: use the release that the others run";
        Failure::new(Exit::Unsupported, &message)
    })?;
    Ok(Shape {
        replica_count: pong.replica_count,
        geometry,
    })
}

fn unreachable_cluster(answers: &[Answer]) -> Failure {
    if answers.iter().any(|answer| answer.pong.is_some()) {
        let message = "the cluster has not begun: nothing can be lost yet. Use viewstone format, for this replica too";
        return Failure::new(Exit::Unavailable, &message);
    }
    let troubles: Vec<String> = answers
        .iter()
        .map(|answer| {
            let trouble = answer.trouble.as_deref().unwrap_or("no answer");
            format!("\n  {}: {trouble}", answer.address)
        })
        .collect();
    let message = format!(
        "no replica answers: see whether they run, and whether --addresses and --cluster are right{}",
        troubles.concat()
    );
    Failure::new(Exit::Unavailable, &message)
}

/// The geometry with this fingerprint. A replica tells most numbers; the two others are few enough to try.
fn geometry_of(pong: &PongClient) -> Option<Geometry> {
    let known = Geometry {
        state_size: pong.pages_total.checked_mul(PAGE_SIZE as u64)?,
        message_size_max: pong.message_size_max,
        slots: 0,
        pipeline_max: 0,
        sessions_max: pong.sessions_max,
        reply_size_max: pong.reply_size_max,
        journal_ack: JournalAck::Single as u8,
        reserved: [0; 3],
    };
    let slots = (4..=20).map(|power| 1 << power);
    let pairs = slots.flat_map(|slots| (1..=PIPELINE_MAX).map(move |pipeline| (slots, pipeline)));
    let mut candidates = pairs.map(|(slots, pipeline_max)| Geometry {
        slots,
        pipeline_max,
        ..known
    });
    candidates.find(|geometry| {
        geometry.fingerprint(pong.replica_count) == pong.fingerprint && geometry.check().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::header::Typed;

    fn pong(geometry: &Geometry, replica: u8) -> PongClient {
        let mut pong = PongClient::new(5, 1, replica);
        pong.replica_count = 3;
        pong.fingerprint = geometry.fingerprint(3);
        pong.pages_total = geometry.page_count().into();
        pong.message_size_max = geometry.message_size_max;
        pong.sessions_max = geometry.sessions_max;
        pong.reply_size_max = geometry.reply_size_max;
        pong.start = Start::Begun as u8;
        pong
    }

    fn silent() -> Answer {
        Answer {
            address: "a:1".to_owned(),
            trouble: Some("refused".to_owned()),
            pong: None,
        }
    }

    fn answer(pong: &PongClient) -> Answer {
        Answer {
            trouble: None,
            pong: Some(*pong),
            ..silent()
        }
    }

    #[test]
    fn the_geometry_is_found_by_its_fingerprint() {
        let odd = Geometry {
            slots: 4096,
            pipeline_max: 13,
            journal_ack: JournalAck::Both as u8,
            ..Geometry::LARGE
        };
        for geometry in [Geometry::DEFAULT, Geometry::SMALL, Geometry::LARGE, odd] {
            let found = geometry_of(&pong(&geometry, 0)).expect("it is one");
            assert_eq!(found.fingerprint(3), geometry.fingerprint(3));
        }
        let mut unknown = pong(&odd, 0);
        unknown.fingerprint ^= 1;
        assert_eq!(geometry_of(&unknown), None);
    }

    #[test]
    fn what_forbids_it_is_said() {
        let geometry = Geometry::SMALL;
        let whole = [answer(&pong(&geometry, 0)), silent()];
        let found = shape(&whole, 2).expect("one answer is enough");
        assert_eq!(found.replica_count, 3);
        let refusal = |answers: &[Answer], replica| {
            let failure = shape(answers, replica).err().expect("refused");
            (failure.exit, failure.message)
        };
        assert_eq!(refusal(&whole, 3).0, Exit::Usage);
        assert_eq!(refusal(&whole, 0).0, Exit::InUse);
        let (exit, message) = refusal(&[silent()], 0);
        assert!(exit == Exit::Unavailable && message.contains("a:1: refused"));
        let mut blank = pong(&geometry, 0);
        blank.start = Start::Blank as u8;
        assert!(refusal(&[answer(&blank)], 1).1.contains("has not begun"));
        let other = pong(&Geometry::DEFAULT, 1);
        let mixed = [answer(&pong(&geometry, 0)), answer(&other)];
        assert_eq!(refusal(&mixed, 2).0, Exit::WrongFile);
    }
}
