//! Which log a new view begins with: a pure function of the votes (VRR section 4.2, step 3; nacks and presence after
//! Alagappan et al., *Protocol-Aware Recovery for Consensus-Based Storage*, FAST 2018; TigerBeetle's log choice).
//!
//! Invariant: **an op that was committed is never cut off, whatever was damaged; and if every replica votes and no
//! committed op has lost its last copy, there is a choice.**
//!
//! Why. Let L be the highest log_view among the votes of a view-change quorum; its voters are *canonical*.
//! * What was committed before L began is in L's first log, and every canonical voter has that log's end in its list, for
//!   the list was durable before L's log was acted on. What was committed in L is held by a replication quorum, which meets
//!   the voters: in canonical voters only, for nobody acknowledges in L before its log_view is L.
//! * So a prepare that only voters with an older log_view name was cut off when L began, or is another's in L: those
//!   voters never acknowledged what L may have at that op. They count as nacks for it.
//! * An op is cut off only if a nack quorum vouches that it was not acknowledged by them; such a quorum meets every
//!   replication quorum, so the op is not committed, and neither is any after it.
//! * Decay is neither: a voter that cannot tell (its bit is in neither set) is not counted for a cut, and the op is kept
//!   only if somebody else can supply it. But nobody acknowledges a prepare in a view before the prepare's own: whoever
//!   was last normal in an earlier view than L's prepare at an op never acknowledged it, whatever it lost there.

use crate::quorums::Quorums;
use crate::rules::Rules;
use std::fmt;
use storage::header::Prepare;
use storage::layout::REPLICAS_MAX;
use storage::superblock::VIEW_HEADERS_MAX;

/// A vote: what one replica's log may hold. See [`storage::header::DoViewChange`].
///
/// The choice is as good as the votes. Each must keep these promises:
/// * The headers are of the log of `log_view` and of no other; the voter's superblock vouches for those with which that view
///   began, so that decay never blanks one of them. Leftovers of other views are not listed.
/// * All below the list is committed.
/// * A nack is a fact about everything that the voter ever acknowledged and that may still count; what may have been
///   acknowledged and cannot be read any more is not nacked.
/// * Nothing above `op_max` was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Vote<'a> {
    /// The last view in which the voter was normal.
    pub log_view: u32,
    /// Headers of its log's end, highest op first and without gaps; zero where not known.
    pub headers: &'a [Prepare],
    /// Op of the first of them, known or not.
    pub op: u64,
    /// The highest op that the voter may have acknowledged.
    pub op_max: u64,
    /// Bit i: it can supply the prepare of header i.
    pub present: u128,
    /// Bit i: it never acknowledged that prepare; with an unknown header, any at that op.
    pub nack: u128,
    /// What it knows to be committed.
    pub commit_max: u64,
    /// The earliest time that a prepare after its log may have.
    pub timestamp: u64,
}

/// What a voter says of one op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says<'a> {
    /// This header, whether it is present, and whether it was never acknowledged.
    Header(&'a Prepare, bool, bool),
    /// No header; whether anything can have been acknowledged.
    Blank(bool),
    /// The log ends before.
    Beyond,
    /// Below the list: committed.
    Below,
}

impl<'a> Vote<'a> {
    fn says(&self, op: u64) -> Says<'a> {
        if op > self.op_max {
            return Says::Beyond;
        }
        let Some(index) = self.op.checked_sub(op) else {
            return Says::Blank(false);
        };
        let Some(header) = self.headers.get(index as usize) else {
            return Says::Below;
        };
        let (present, nack) = (self.present >> index & 1 == 1, self.nack >> index & 1 == 1);
        if is_known(header) {
            Says::Header(header, present, nack)
        } else {
            Says::Blank(nack)
        }
    }

    /// The highest op that the vote proves to be committed: what the voter knows, all below its list, and what each header
    /// proves: that its primary knew, and that the op a pipeline before was committed, else it had not been prepared.
    fn committed(&self, pipeline_max: u32) -> u64 {
        let below = (self.op + 1 - self.headers.len() as u64).saturating_sub(1);
        let known = self.headers.iter().filter(|header| is_known(header));
        let proved = known.map(|header| {
            header
                .op
                .saturating_sub(pipeline_max.into())
                .max(header.commit)
        });
        self.commit_max.max(below).max(proved.max().unwrap_or(0))
    }
}

/// Whether a header of a list is one, and not the zeros that stand for one not known.
fn is_known(header: &Prepare) -> bool {
    header.frame.checksum != 0
}

/// A log to begin a view with.
#[derive(Clone, Debug)]
pub struct Log {
    /// Its head.
    pub op: u64,
    /// Everything up to here is committed.
    pub commit_max: u64,
    /// Headers of its end, highest op first, chained and without gaps; all below them is committed.
    pub headers: Vec<Prepare>,
    /// The earliest time that the next prepare may have.
    pub timestamp: u64,
}

/// Why there is no log yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Fewer votes than a view-change quorum.
    Quorum,
    /// Op `op` can be neither kept nor cut off by these votes; further votes may decide.
    Undecided {
        /// The op.
        op: u64,
    },
    /// All have voted: op `op` may be committed, and nobody has it.
    Lost {
        /// The op.
        op: u64,
    },
    /// Two votes cannot both be true. Neither is to be counted.
    Contradiction(Contradiction),
}

/// Two logs of one view. Replicas that work never say so; a lie, or a fault of theirs, must not end the one that hears it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contradiction {
    /// The view that both logs are said to be of.
    pub log_view: u32,
    /// The op at which they differ.
    pub op: u64,
    /// A voter.
    pub voter: u8,
    /// Identity of what that one's log has there; zero if it differs in the op before only.
    pub checksum: u128,
    /// Another voter; none: the replica that counts the votes, by what it has executed.
    pub other: Option<u8>,
    /// Identity of what is there according to the other.
    pub other_checksum: u128,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            log_view,
            op,
            voter,
            checksum,
            other_checksum,
            ..
        } = self;
        write!(
            formatter,
            "two logs of one view: replica {voter} votes for prepare {checksum:032x} at op {op} of the log of view \
             {log_view}, and "
        )?;
        match self.other {
            Some(other) => write!(formatter, "replica {other} for {other_checksum:032x}"),
            None => write!(
                formatter,
                "{other_checksum:032x} was executed or committed here"
            ),
        }
    }
}

/// Votes, by replica.
pub type Votes<'a> = [Option<Vote<'a>>; REPLICAS_MAX];

/// Chooses the log; `pipeline_max` is the most prepares that are ever in flight, so that an op's existence proves that
/// those so far before it are committed. `headers` of the result has room for [`VIEW_HEADERS_MAX`].
///
/// # Errors
/// [`Wait`].
pub fn choose<R: Rules>(
    votes: &Votes<'_>,
    replica_count: u8,
    pipeline_max: u32,
    mut headers: Vec<Prepare>,
) -> Result<Log, (Wait, Vec<Prepare>)> {
    headers.clear();
    let chosen = decide::<R>(votes, replica_count, pipeline_max).and_then(|(op, commit_max)| {
        gather::<R>(votes, op, pipeline_max, &mut headers)?;
        let reached = op + 1 - headers.len() as u64;
        if headers.is_empty() || reached > commit_max + 1 {
            return Err(missing(votes, replica_count, reached - 1));
        }
        Ok((op, commit_max))
    });
    match chosen {
        Err(wait) => Err((wait, headers)),
        Ok((op, commit_max)) => {
            let timestamps = voters(votes).map(|vote| vote.timestamp);
            Ok(Log {
                op,
                commit_max,
                headers,
                timestamp: timestamps.max().expect("there are votes"),
            })
        }
    }
}

/// Nobody who has voted can supply an op.
fn missing(votes: &Votes<'_>, replica_count: u8, op: u64) -> Wait {
    if (voters(votes).count() as u8) < replica_count {
        Wait::Undecided { op }
    } else {
        Wait::Lost { op }
    }
}

fn voters<'a>(votes: &'a Votes<'a>) -> impl Iterator<Item = &'a Vote<'a>> + Clone {
    votes.iter().flatten()
}

/// The highest log_view among the votes.
fn log_view_max<R: Rules>(votes: &Votes<'_>) -> u32 {
    if R::LOG_VIEW_FIRST {
        voters(votes).map(|vote| vote.log_view).max().unwrap_or(0)
    } else {
        let longest = voters(votes).max_by_key(|vote| vote.op);
        longest.map_or(0, |vote| vote.log_view)
    }
}

/// The header of `op` in the latest log: from any canonical voter; they agree.
fn canonical<'a, R: Rules>(votes: &'a Votes<'a>, op: u64) -> Result<Option<&'a Prepare>, Wait> {
    let latest = log_view_max::<R>(votes);
    let mut found: Option<(u8, &Prepare)> = None;
    for (voter, vote) in (0..).zip(votes) {
        let Some(vote) = vote.as_ref().filter(|vote| vote.log_view == latest) else {
            continue;
        };
        let Says::Header(header, _, _) = vote.says(op) else {
            continue;
        };
        if let Some((first, other)) = found
            && other.frame.checksum != header.frame.checksum
            && R::LOG_VIEW_FIRST
        {
            return Err(Wait::Contradiction(Contradiction {
                log_view: latest,
                op,
                voter: first,
                checksum: other.frame.checksum,
                other: Some(voter),
                other_checksum: header.frame.checksum,
            }));
        }
        found = Some((voter, header));
    }
    Ok(found.map(|(_, header)| header))
}

/// Head and commit of the log.
fn decide<R: Rules>(
    votes: &Votes<'_>,
    replica_count: u8,
    pipeline_max: u32,
) -> Result<(u64, u64), Wait> {
    let quorums = Quorums::new(replica_count);
    let count = voters(votes).count() as u8;
    let needed = quorums.view_change - u8::from(!R::WHOLE_VIEW_CHANGE_QUORUM);
    if count < needed.max(1) {
        return Err(Wait::Quorum);
    }
    let latest = log_view_max::<R>(votes);
    let committed = voters(votes).map(|vote| vote.committed(pipeline_max));
    let commit_max = committed.max().expect("there are votes");
    let canonical_voters = voters(votes).filter(|vote| vote.log_view == latest);
    let op_max = canonical_voters
        .map(|vote| vote.op_max)
        .max()
        .expect("somebody is canonical");
    let wait = |op| missing(votes, replica_count, op);
    if op_max < commit_max {
        return Err(wait(commit_max)); // committed, and no canonical voter has heard of it
    }
    for op in commit_max + 1..=op_max {
        let header = canonical::<R>(votes, op)?;
        let says = |vote: &&Vote<'_>| says_of::<R>(vote, op, header, latest);
        let nacks = voters(votes).filter(|vote| says(vote).1).count() as u8;
        let copies = voters(votes).filter(|vote| says(vote).0).count();
        if nacks >= quorums.nack - u8::from(!R::WHOLE_NACK_QUORUM) {
            return Ok((op - 1, commit_max));
        }
        if copies == 0 {
            return Err(wait(op));
        }
    }
    Ok((op_max, commit_max))
}

/// Whether a voter can supply, and whether it never acknowledged, what the latest log has at `op`.
fn says_of<R: Rules>(
    vote: &Vote<'_>,
    op: u64,
    canonical: Option<&Prepare>,
    latest: u32,
) -> (bool, bool) {
    // Only a broken rule (not LOG_VIEW_FIRST) makes one newer.
    let older = vote.log_view != latest;
    match (vote.says(op), canonical) {
        (Says::Beyond, _) => (false, true),
        (Says::Header(header, present, nack), Some(canonical))
            if header.frame.checksum == canonical.frame.checksum =>
        {
            (present, nack || !R::NEVER_NACK_DECAY && !present)
        }
        // Another prepare: what the latest log has at this op was not the last thing that this voter held, and what it
        // acknowledged before that counts for nothing.
        (Says::Header(..), Some(_)) => (false, true),
        // Not in the latest log's beginning: cut off, or never acknowledged by one who was not in that view.
        (Says::Header(..) | Says::Blank(_), None) if older => (false, true),
        // What it lost at this op was something else.
        (Says::Blank(_), Some(canonical)) if canonical.frame.view > vote.log_view => (false, true),
        (Says::Blank(nack), _) => (false, nack || !R::NEVER_NACK_DECAY),
        (Says::Header(..), None) => unreachable!("a canonical voter's header is canonical"),
        (Says::Below, _) => (false, false),
    }
}

/// The headers of the chosen log, from its head down as far as the votes know them.
fn gather<R: Rules>(
    votes: &Votes<'_>,
    op: u64,
    pipeline_max: u32,
    headers: &mut Vec<Prepare>,
) -> Result<(), Wait> {
    let mut wanted: Option<u128> = canonical::<R>(votes, op + 1)?.map(|next| next.parent);
    let lowest = op.saturating_sub(pipeline_max.into());
    for at in (lowest..=op).rev() {
        // Committed ops may be missing from the canonical lists: any voter's header with the right identity is the one.
        let named = |checksum: u128| {
            let any = voters(votes).filter_map(|vote| match vote.says(at) {
                Says::Header(header, _, _) => Some(header),
                _ => None,
            });
            any.into_iter()
                .find(|header| header.frame.checksum == checksum)
        };
        let found = match wanted {
            Some(checksum) => named(checksum),
            None => canonical::<R>(votes, at)?,
        };
        let Some(header) = found else { break };
        wanted = Some(header.parent);
        headers.push(*header);
        // A pipeline and one: the geometry's bounds see to it, whatever the votes say.
        assert!(headers.len() <= VIEW_HEADERS_MAX);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
