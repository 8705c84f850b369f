//! `status`: asks each replica how it is, without going through the log.

use super::cluster::{ClusterArgs, grouped, table};
use crate::client::{ClientOptions, ConnectError};
use crate::quorums::Quorums;
use serde_json::{Value, json};
use std::time::Duration;
use storage::header::{NowhereKind, PongClient, ReplicaStatus, Start};
use storage::layout::REPLICAS_MAX;

const NOTES: &str = "\
Examples:
  viewstone status --cluster 7 --addresses a:3001,b:3001,c:3001
  viewstone status --cluster 7 --addresses a:3001,b:3001,c:3001 --json

Exit status:
  0  all replicas are well
  1  degraded: the cluster serves, but a replica is missing, behind, not asked, or without
     agreement on the time; or too few were asked to tell whether it serves
  2  not serving: no primary with a quorum, or nobody answered; a wrong command line is 2 as well
  3  nobody could be asked: the addresses make no sense, or the system gives no sockets";

/// Exit status when nobody could be asked. Those below it say how a cluster is.
pub const EXIT_NOT_ASKED: u8 = 3;

/// Ask the replicas of a running cluster how they are.
///
/// A replica answers for itself alone, so all of them are to be named. An answer is waited for for 2 s, or for
/// --timeout if that is shorter.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = NOTES)]
pub struct StatusArgs {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Longest wait for an answer that does not come, unless `--timeout` is shorter.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// A replica that is further behind, in ops, is catching up and not well: a few pipelines.
const LAG_HEALTHY_MAX: u64 = 128;

/// How a cluster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// All replicas are in normal status in one view.
    Healthy,
    /// A quorum serves.
    Degraded,
    /// Those that were asked are no quorum, and with those that were not they may be one.
    Unknown,
    /// No quorum, no primary, or no answer.
    NotServing,
}

impl Health {
    fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::NotServing => "not serving",
        }
    }

    /// The exit status that says so.
    fn exit(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Degraded | Self::Unknown => 1,
            Self::NotServing => 2,
        }
    }
}

/// What an address said, or what is wrong with it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As given.
    pub address: String,
    /// What it said.
    pub pong: Option<PongClient>,
    /// What is wrong.
    pub trouble: Option<String>,
}

/// Asks, prints, and returns the exit status.
///
/// # Errors
/// The addresses make no sense, or the system gives no sockets.
pub fn run(args: &StatusArgs) -> Result<u8, ConnectError> {
    let answers = ask(&args.cluster.options(), args.cluster.timeout)?;
    let health = assess(&answers);
    if args.json {
        println!("{}", to_json(&answers, health));
    } else {
        print!("{}", to_table(&answers, health));
    }
    Ok(health.exit())
}

/// Waits until each address has answered or failed, at most this long.
///
/// # Errors
/// The addresses make no sense, or the system gives no sockets.
pub fn ask(options: &ClientOptions, timeout: Duration) -> Result<Vec<Answer>, ConnectError> {
    let mut host = options.host()?;
    let until = host.now_ns() + timeout.min(WAIT_MAX).as_nanos() as u64;
    loop {
        let pongs: Vec<_> = host.core().replicas().map(Option::<&_>::copied).collect();
        let answers: Vec<_> = host
            .troubles()
            .zip(pongs)
            .map(|((address, trouble), pong)| Answer {
                address: address.to_owned(),
                pong,
                trouble: trouble.map(str::to_owned),
            })
            .collect();
        let known = |answer: &Answer| answer.pong.is_some() || answer.trouble.is_some();
        if answers.iter().all(known) || host.now_ns() >= until {
            return Ok(answers);
        }
        host.turn(until, &mut |_, _| {})?;
    }
}

/// Replicas that an address was given for, each once, and replicas of the cluster, as far as one has said how many.
fn asked(answers: &[Answer]) -> (usize, usize) {
    let mut known = [false; REPLICAS_MAX];
    let mut silent = 0;
    let mut count = 0;
    for answer in answers {
        match &answer.pong {
            None => silent += 1,
            Some(pong) => {
                known[pong.frame.replica as usize % REPLICAS_MAX] = true;
                count = count.max(usize::from(pong.replica_count).min(REPLICAS_MAX));
            }
        }
    }
    (silent + known.iter().filter(|&&it| it).count(), count)
}

/// How the cluster is, by what its replicas say. A replica that was not asked counts as missing where a quorum serves
/// without it, and keeps the answer open where one does not.
pub fn assess(answers: &[Answer]) -> Health {
    let Some(newest) = newest(answers) else {
        return Health::NotServing;
    };
    let mut normal = [false; REPLICAS_MAX];
    for pong in answers.iter().filter_map(|answer| answer.pong.as_ref()) {
        let is_normal = pong.status == ReplicaStatus::Normal as u8;
        if is_normal && pong.frame.view == newest.frame.view {
            normal[pong.frame.replica as usize % REPLICAS_MAX] = true;
        }
    }
    let count = normal.iter().filter(|&&it| it).count();
    let led = normal[newest.primary as usize % REPLICAS_MAX];
    // The count is what a replica says: within what quorums know of.
    let replicas = newest.replica_count.clamp(1, REPLICAS_MAX as u8);
    let stuck = |pong: &&PongClient| missed(pong).is_some();
    let mut stuck = answers
        .iter()
        .filter_map(|it| it.pong.as_ref())
        .filter(stuck);
    // Who leads and waits for what nobody has answers nobody.
    let waits = stuck
        .clone()
        .any(|pong| pong.frame.replica == newest.primary);
    let quorum = usize::from(Quorums::new(replicas).replication);
    let (asked, of) = asked(answers);
    if waits {
        Health::NotServing
    } else if !led || count < quorum {
        // Whoever was not asked may lead the others.
        if asked < of && count + (of - asked) >= quorum {
            Health::Unknown
        } else {
            Health::NotServing
        }
    } else if stuck.next().is_some()
        || count < usize::from(newest.replica_count)
        || lag_max(answers) > LAG_HEALTHY_MAX
        || !clocks_agree(answers)
    {
        Health::Degraded
    } else {
        Health::Healthy
    }
}

/// The answer with the highest view.
fn newest(answers: &[Answer]) -> Option<&PongClient> {
    let pongs = answers.iter().filter_map(|answer| answer.pong.as_ref());
    pongs.max_by_key(|pong| pong.frame.view)
}

/// How far the slowest replica is behind, in ops.
fn lag_max(answers: &[Answer]) -> u64 {
    let known = commit_max(answers);
    let pongs = answers.iter().filter_map(|answer| answer.pong.as_ref());
    pongs
        .map(|pong| known.saturating_sub(pong.commit_min))
        .max()
        .unwrap_or(0)
}

/// Whether every replica that answered follows a time that a majority agrees on.
fn clocks_agree(answers: &[Answer]) -> bool {
    let mut pongs = answers.iter().filter_map(|answer| answer.pong.as_ref());
    pongs.all(|pong| pong.clock_synchronised == 1)
}

fn commit_max(answers: &[Answer]) -> u64 {
    let pongs = answers.iter().filter_map(|answer| answer.pong.as_ref());
    pongs.map(|pong| pong.commit_max).max().unwrap_or(0)
}

pub(super) fn status_name(pong: &PongClient) -> &'static str {
    ReplicaStatus::from_u8(pong.status).map_or("unknown", ReplicaStatus::name)
}

/// The status, and how much is known to be left of what it waits for.
fn status_text(pong: &PongClient) -> String {
    match pong.pages_missing {
        0 => status_name(pong).to_owned(),
        missing => format!("{} ({} pages)", status_name(pong), grouped(missing)),
    }
}

/// What a replica needs, and no replica has that answers.
fn missed(pong: &PongClient) -> Option<&'static str> {
    match NowhereKind::from_u8(pong.nowhere) {
        Some(NowhereKind::Prepare) => Some("prepare of op"),
        Some(NowhereKind::Page) => Some("page"),
        Some(NowhereKind::TagNode) => Some("tag tree node"),
        Some(NowhereKind::Nothing) | None => None,
    }
}

/// A line for each replica that needs something that is nowhere.
fn missed_lines(answers: &[Answer]) -> String {
    let pongs = answers.iter().filter_map(|answer| answer.pong.as_ref());
    let line = |pong: &PongClient| {
        let kind = missed(pong)?;
        let (replica, number) = (pong.frame.replica, pong.nowhere_number);
        let name = match pong.nowhere_name {
            0 => String::new(),
            name => format!(" ({name:016x}...)"),
        };
        Some(format!(
            "replica {replica} waits for {kind} {number}{name}, which no replica has that answers: its log says what to do\n"
        ))
    };
    pongs.filter_map(line).collect()
}

fn clock_name(pong: &PongClient) -> &'static str {
    if pong.clock_synchronised == 1 {
        "agreed"
    } else {
        "NOT AGREED"
    }
}

fn start_name(pong: &PongClient) -> &'static str {
    match Start::from_u8(pong.start) {
        Some(Start::Blank) => "blank",
        Some(Start::Initialised) => "initialised",
        Some(Start::Begun) => "begun",
        None => "unknown",
    }
}

const HEADING: [&str; 15] = [
    "replica",
    "address",
    "status",
    "view",
    "primary",
    "op",
    "commit",
    "commit max",
    "lag",
    "missing",
    "checkpoint",
    "sessions",
    "pages",
    "clock",
    "start",
];

fn to_table(answers: &[Answer], health: Health) -> String {
    let commit_max = commit_max(answers);
    let mut rows = vec![HEADING.map(str::to_owned).to_vec()];
    for answer in answers {
        let Some(pong) = &answer.pong else {
            let trouble = answer.trouble.as_deref().unwrap_or("no answer in time");
            rows.push(vec![
                "?".to_owned(),
                answer.address.clone(),
                format!("({trouble})"),
            ]);
            continue;
        };
        let checkpointing = if pong.checkpointing == 1 {
            ", writing"
        } else {
            ""
        };
        rows.push(vec![
            pong.frame.replica.to_string(),
            answer.address.clone(),
            status_text(pong),
            pong.frame.view.to_string(),
            pong.primary.to_string(),
            grouped(pong.op),
            grouped(pong.commit_min),
            grouped(pong.commit_max),
            grouped(commit_max.saturating_sub(pong.commit_min)),
            grouped(pong.missing),
            // The head of the id is enough to compare by eye; --json has all of it.
            format!(
                "{}:{:08x}{checkpointing}",
                pong.checkpoint_op,
                pong.checkpoint_id >> 96
            ),
            format!("{}/{}", pong.sessions_used, pong.sessions_max),
            format!("{}/{}", pong.pages_used, pong.pages_total),
            clock_name(pong).to_owned(),
            start_name(pong).to_owned(),
        ]);
    }
    let missed = missed_lines(answers);
    format!("{}{missed}{}\n", table(&rows), verdict(answers, health))
}

fn verdict(answers: &[Answer], health: Health) -> String {
    let (asked, of) = asked(answers);
    match health {
        Health::Unknown => format!(
            "asked {asked} of {of} replicas: cannot tell whether a quorum serves; name all in --addresses"
        ),
        Health::Degraded if asked < of => format!(
            "cluster is degraded, or not all were asked: {asked} of {of} replicas; name all in --addresses"
        ),
        health => format!("cluster is {}", health.name()),
    }
}

fn to_json(answers: &[Answer], health: Health) -> Value {
    let commit_max = commit_max(answers);
    let one = |answer: &Answer| match &answer.pong {
        None => json!({
            "address": answer.address,
            "trouble": answer.trouble.as_deref().unwrap_or("no answer in time"),
        }),
        Some(pong) => json!({
            "address": answer.address,
            "replica": pong.frame.replica,
            "replica_count": pong.replica_count,
            "status": status_name(pong),
            "view": pong.frame.view,
            "log_view": pong.log_view,
            "primary": pong.primary,
            "op": pong.op,
            "commit_min": pong.commit_min,
            "commit_max": pong.commit_max,
            "lag": commit_max.saturating_sub(pong.commit_min),
            "missing": pong.missing,
            "checkpoint_op": pong.checkpoint_op,
            "checkpoint_id": format!("{:032x}", pong.checkpoint_id),
            "checkpointing": pong.checkpointing == 1,
            "superblock_sequence": pong.superblock_sequence,
            "sessions_used": pong.sessions_used,
            "sessions_max": pong.sessions_max,
            "pages_used": pong.pages_used,
            "pages_total": pong.pages_total,
            "pages_missing": pong.pages_missing,
            "nowhere": missed(pong).map(|kind| json!({
                "kind": kind,
                "number": pong.nowhere_number,
                "name": format!("{:016x}", pong.nowhere_name),
            })),
            "clock_synchronised": pong.clock_synchronised == 1,
            "start": start_name(pong),
            "timestamp": pong.timestamp,
            "release": pong.frame.release,
        }),
    };
    let replicas: Vec<_> = answers.iter().map(one).collect();
    json!({ "health": health.name(), "replicas": replicas })
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::header::Typed;

    fn answer(replica: u8, view: u32, status: ReplicaStatus) -> Answer {
        let mut pong = PongClient::new(1, view, replica);
        pong.replica_count = 3;
        pong.primary = (view % 3) as u8;
        pong.status = status as u8;
        pong.commit_min = 40 + u64::from(replica);
        pong.commit_max = 42;
        pong.clock_synchronised = 1;
        Answer {
            address: format!("10.0.0.{replica}:3001"),
            pong: Some(pong),
            trouble: None,
        }
    }

    fn silent() -> Answer {
        Answer {
            address: "10.0.0.9:3001".to_owned(),
            pong: None,
            trouble: Some("connection refused".to_owned()),
        }
    }

    #[test]
    fn health_is_judged_by_the_newest_view() {
        use ReplicaStatus::{Normal, Starting, Syncing, ViewChange};
        let all = |statuses: [ReplicaStatus; 3]| {
            let each = statuses.into_iter().zip(0..);
            assess(
                &each
                    .map(|(status, replica)| answer(replica, 0, status))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(all([Normal, Normal, Normal]), Health::Healthy);
        assert_eq!(all([Normal, Normal, Syncing]), Health::Degraded);
        assert_eq!(all([Normal, Starting, Syncing]), Health::NotServing);
        assert_eq!(all([ViewChange, Normal, Normal]), Health::NotServing);
        let two = [answer(0, 0, Normal), silent(), answer(2, 0, Normal)];
        assert_eq!(assess(&two), Health::Degraded);
        // Two replicas of an old view are no quorum for the primary of the new one.
        let split = [
            answer(0, 0, Normal),
            answer(1, 1, Normal),
            answer(2, 0, Normal),
        ];
        assert_eq!(assess(&split), Health::NotServing);
        // The same replica twice is one replica.
        assert_eq!(
            assess(&[answer(0, 0, Normal), answer(0, 0, Normal), silent()]),
            Health::Unknown
        );
        assert_eq!(assess(&[silent()]), Health::NotServing);
    }

    #[test]
    fn too_few_who_were_asked_cannot_say_that_nobody_serves() {
        use ReplicaStatus::{Normal, ViewChange};
        for status in [Normal, ViewChange] {
            for replica in 0..3 {
                let alone = [answer(replica, 0, status)];
                assert_eq!(assess(&alone), Health::Unknown, "{replica} {status:?}");
                assert_eq!(assess(&alone).exit(), 1);
                let text = to_table(&alone, assess(&alone));
                assert!(
                    text.contains("asked 1 of 3 replicas: cannot tell"),
                    "{text}"
                );
            }
        }
        // The third may lead the one backup that follows; it cannot be a quorum by itself.
        assert_eq!(assess(&[silent(), answer(1, 0, Normal)]), Health::Unknown);
        let neither = [answer(0, 0, ViewChange), answer(1, 0, ViewChange)];
        assert_eq!(assess(&neither), Health::NotServing);
        let both = [answer(0, 0, Normal), answer(1, 0, Normal)];
        assert_eq!(assess(&both), Health::Degraded);
        assert!(to_table(&both, assess(&both)).contains("2 of 3 replicas; name all"));
        // All were asked: nothing is open.
        assert_eq!(
            assess(&[answer(0, 0, Normal), silent(), silent()]),
            Health::NotServing
        );
    }

    #[test]
    fn a_clock_without_agreement_is_not_well() {
        let mut answers = [0, 1, 2].map(|replica| answer(replica, 0, ReplicaStatus::Normal));
        assert_eq!(assess(&answers), Health::Healthy);
        let pong = answers[1].pong.as_mut().expect("it answered");
        pong.clock_synchronised = 0;
        assert_eq!(assess(&answers), Health::Degraded);
        let text = to_table(&answers, assess(&answers));
        assert!(text.contains("NOT AGREED"), "{text}");
        let json = to_json(&answers, Health::Degraded);
        assert_eq!(json["replicas"][1]["clock_synchronised"], false);
    }

    #[test]
    fn who_waits_for_what_nobody_has_is_not_well() {
        let mut answers = [0, 1, 2].map(|replica| answer(replica, 0, ReplicaStatus::Normal));
        assert!(!to_table(&answers, Health::Healthy).contains("waits for"));
        let waits = |answer: &mut Answer| {
            let pong = answer.pong.as_mut().expect("it answered");
            pong.nowhere = NowhereKind::Prepare as u8;
            pong.nowhere_number = 41;
            pong.nowhere_name = 0x5eed;
        };
        waits(&mut answers[1]);
        assert_eq!(assess(&answers), Health::Degraded);
        waits(&mut answers[0]);
        assert_eq!(assess(&answers), Health::NotServing);
        let text = to_table(&answers, assess(&answers));
        let line = "replica 0 waits for prepare of op 41 (0000000000005eed...), which";
        assert!(text.contains(line), "{text}");
        let json = to_json(&answers, Health::NotServing);
        assert_eq!(json["replicas"][0]["nowhere"]["number"], 41);
        assert!(json["replicas"][2]["nowhere"].is_null());
    }

    #[test]
    fn what_is_printed_names_every_replica() {
        let answers = [
            answer(0, 0, ReplicaStatus::Normal),
            silent(),
            answer(2, 0, ReplicaStatus::Syncing),
        ];
        let text = to_table(&answers, assess(&answers));
        assert!(text.contains("10.0.0.2:3001  syncing"), "{text}");
        assert!(text.contains("(connection refused)"));
        assert!(text.ends_with("cluster is not serving\n"));
        let json = to_json(&answers, Health::Degraded);
        assert_eq!(json["replicas"][0]["lag"], 2);
        assert_eq!(json["replicas"][1]["trouble"], "connection refused");
    }
}
