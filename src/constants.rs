//! Limits and intervals of the protocol that are not part of a data file's geometry, each with its reason.

use storage::layout::Geometry;

const MILLISECOND: u64 = 1_000_000;

/// A primary that has prepared nothing for this long says that it lives and what is committed, in nanoseconds. Well
/// below any failure detector's patience, well above what an idle cluster should cost.
pub const HEARTBEAT_NS: u64 = 50 * MILLISECOND;

/// The least silence of a primary that a backup bears, in nanoseconds: five heartbeats, so that neither a lost one nor
/// the pauses of a busy machine make a view change; it is most of what a crash of the primary costs.
pub const PATIENCE_MIN_NS: u64 = 250 * MILLISECOND;

/// The longest silence that is borne, however slow the cluster has been, in nanoseconds: beyond it a stuck primary
/// costs more than a view change in vain, which needs a quorum that agrees.
pub const PATIENCE_MAX_NS: u64 = 2000 * MILLISECOND;

/// Patience, as a multiple of the longest silence that is usual.
pub const PATIENCE_FACTOR: u64 = 4;

/// Added to it, in nanoseconds: the loop's own turns, on both sides.
pub const PATIENCE_SLACK_NS: u64 = HEARTBEAT_NS;

/// A longer silence than usual moves the usual one by this part of the difference at each sample (one in a heartbeat's
/// time): two or three make a habit, and a single one that was nearly too long does not keep patience at its largest.
pub const PATIENCE_RISE_DIVISOR: u64 = 4;

/// A shorter one by this part: the memory of a slow time fades within seconds.
pub const PATIENCE_FALL_DIVISOR: u64 = 32;

/// A replica whose turns are further apart than this did not run in between, in nanoseconds: the rest of the time is
/// not silence of others. It asks to be run twice as often.
pub const OWN_PAUSE_NS: u64 = 100 * MILLISECOND;

// With heartbeats on time patience is at its least; and a replica that is run on time knows it.
const _: () = assert!(PATIENCE_FACTOR * HEARTBEAT_NS + PATIENCE_SLACK_NS <= PATIENCE_MIN_NS);
const _: () = assert!(2 * HEARTBEAT_NS <= OWN_PAUSE_NS && 2 * OWN_PAUSE_NS < PATIENCE_MIN_NS);

/// Replicas exchange pings this often, in nanoseconds: hello again, and a clock sample.
pub const PING_NS: u64 = 1000 * MILLISECOND;

/// Whoever has not greeted for this long, in nanoseconds, is taken for silent when an operator is told who has what: some
/// pings may be lost.
pub const ALIVE_NS: u64 = 3 * PING_NS;

/// As [`PING_NS`], until the cluster has begun: the first start waits for it.
pub const PING_STARTING_NS: u64 = 50 * MILLISECOND;

/// Least error that each clock is allowed when replicas agree on the time, in nanoseconds: what time services reach on
/// one site. Within it a replica's own clock is left alone.
pub const CLOCK_TOLERANCE_MIN_NS: u64 = 10 * MILLISECOND;

/// The most, in nanoseconds, some ten seconds: clocks further apart are not meant to be the same.
pub const CLOCK_TOLERANCE_MAX_NS: u64 = CLOCK_TOLERANCE_MIN_NS << 10;

/// A sample of another's clock counts for this long, in nanoseconds: many pings, so that the loss of some is nothing.
pub const CLOCK_SAMPLE_NS: u64 = 20 * PING_NS;

/// Agreement holds for this long, in nanoseconds: what two quartz clocks drift apart meanwhile is a few milliseconds,
/// and no interruption that the cluster survives without an operator lasts longer.
pub const CLOCK_EPOCH_NS: u64 = 60_000 * MILLISECOND;

/// A ping that took longer to be answered, in nanoseconds, says too little of the time.
pub const CLOCK_ROUND_TRIP_MAX_NS: u64 = 2000 * MILLISECOND;

/// Two clocks drift apart by at most this part of the time that passes: 200 parts in a million, twice what a cheap
/// quartz is allowed.
pub const CLOCK_DRIFT_DIVISOR: u64 = 5000;

const _: () = assert!(CLOCK_SAMPLE_NS < CLOCK_EPOCH_NS);

/// A prepare without its quorum is sent again to those who have not acknowledged it after this long, in nanoseconds:
/// several times a durable write on a busy disk, so that a slow disk does not cause a storm.
pub const PREPARE_RESEND_NS: u64 = 150 * MILLISECOND;

/// A replica that misses headers or prepares asks again after this long, in nanoseconds, each time someone else.
pub const REPAIR_NS: u64 = 30 * MILLISECOND;

/// A vote is sent again after this long, in nanoseconds: a few round trips, for it is short and rare.
pub const VOTE_RESEND_NS: u64 = 60 * MILLISECOND;

/// "I want to leave this view" is said again after this long, in nanoseconds.
pub const START_VIEW_CHANGE_NS: u64 = 100 * MILLISECOND;

/// For how long another's wish to leave the view counts, in nanoseconds: it is said again much more often.
pub const SUSPICION_NS: u64 = 500 * MILLISECOND;

/// How long a view may take to begin before the next one is wished for, in nanoseconds: two writes of the superblock, one
/// after the other, on a disk that is busy; longer for each view in a row that does not begin.
pub const VIEW_CHANGE_NS: u64 = 400 * MILLISECOND;

/// A primary that makes no progress for this long, though there is something to do, gives its view up, in nanoseconds:
/// longer than a checkpoint or a slow disk holds it up now and then.
pub const ABDICATE_NS: u64 = 3000 * MILLISECOND;

/// Answers with pages of state that a replica puts together at once, for others that fetch them.
pub const SERVE_ANSWERS_MAX: usize = 2;

/// Pages of state asked for at once: 256 KiB, what a link of 1 Gbit/s carries in two milliseconds.
pub const SYNC_PAGES_MAX: usize = 64;

/// Replicas that are asked for pages at the same time, each for other ones.
pub const SYNC_ASKS_MAX: usize = 3;

/// How long an answer with pages may take at first, in nanoseconds; twice as long each time that one does not come.
pub const SYNC_PATIENCE_NS: u64 = 300 * MILLISECOND;

/// And at most, in nanoseconds: 256 KiB on a link of 256 kbit/s.
pub const SYNC_PATIENCE_MAX_NS: u64 = 10_000 * MILLISECOND;

/// A replica that fetches a checkpoint looks after what it asked for this often, in nanoseconds.
pub const SYNC_TICK_NS: u64 = 50 * MILLISECOND;

/// Others are asked which checkpoint they have this often, in nanoseconds, each time another one.
pub const SYNC_RECORD_NS: u64 = 100 * MILLISECOND;

/// Without a page for this long, in nanoseconds, a replica that fetches a checkpoint asks for a newer one: this one may
/// be gone.
pub const SYNC_STUCK_NS: u64 = 2000 * MILLISECOND;

/// What all others that answer have said not to have counts as found nowhere after this long, in nanoseconds: each has been
/// asked many times, and what they were just fetching themselves has come.
pub const NOWHERE_NS: u64 = 2000 * MILLISECOND;

// A primary knows that what it lacks is nowhere before it would give its view up for the lack of it.
const _: () = assert!(NOWHERE_NS + 10 * REPAIR_NS < ABDICATE_NS);

/// Repair that has made no progress for this long, in nanoseconds, while others have newer checkpoints, gives up: what is
/// missing may be nowhere any more.
pub const REPAIR_STUCK_NS: u64 = 3000 * MILLISECOND;

/// After so many fetched pages, 16 MiB, what is here so far is written: a crash loses no more.
pub const SYNC_WRITE_PAGES: u64 = 4096;

/// For how long a greeting of a lost file makes a primary commit ops that do nothing, one in a heartbeat's time, in
/// nanoseconds: a few of its greetings.
pub const NOOP_NS: u64 = 1000 * MILLISECOND;

/// How long a replica whose state is not that of the others compares before it stops, in nanoseconds.
pub const DIVERGENCE_NS: u64 = 3000 * MILLISECOND;

/// A primary to which fewer than a replication quorum have answered for this long gives its view up, in nanoseconds: they
/// answer each heartbeat.
pub const DEAF_NS: u64 = 500 * MILLISECOND;

/// Redundant headers that no acknowledgement waits for are written after this long, in nanoseconds.
pub const JOURNAL_FLUSH_NS: u64 = 100 * MILLISECOND;

/// Most requests executed, and most reads answered, in one turn of the loop. At a few microseconds each a turn stays
/// below a millisecond.
pub const EXECUTE_PER_TURN_MAX: usize = 256;

/// Headers asked for at once by a replica that catches up.
pub const REPAIR_HEADERS_MAX: usize = 64;

/// Prepares asked for at once by a replica that catches up, and how far beyond its head it keeps what comes: enough to
/// keep disks and links busy at a round trip of a millisecond.
pub const REPAIR_PREPARES_MAX: usize = 16;

/// Prepares that a replica reads from its journal for others at once. What is asked for beyond that is asked for again.
pub const SERVE_READS_MAX: usize = 24;

/// Reads of the journal that are left for execution.
const _: () = assert!(SERVE_READS_MAX < storage::journal::READS_MAX);

/// Requests that are on their way through a primary: gathered, prepared or executing. One for each session, and as
/// many again for clients that register.
pub const fn requests_max(geometry: &Geometry) -> usize {
    2 * geometry.sessions_max as usize
}

/// Reads that wait for a round at a primary.
pub const fn reads_max(geometry: &Geometry) -> usize {
    2 * geometry.sessions_max as usize
}

/// Prepares kept in memory after their journal write: those in the pipeline, and on a backup as many again that have
/// not been told to commit. Others are read back from the journal.
pub const fn prepares_cached_max(geometry: &Geometry) -> usize {
    2 * geometry.pipeline_max as usize
}

/// Buffers of 4 KiB for answers to clients: apart from all others, so that a client that does not read them stops no
/// protocol message. Two connections' full queues, and what a turn makes.
pub const fn answers_max(geometry: &Geometry) -> usize {
    let sessions = geometry.sessions_max as usize;
    let turn = if sessions < EXECUTE_PER_TURN_MAX {
        sessions
    } else {
        EXECUTE_PER_TURN_MAX
    };
    2 * (sessions + 64) + 2 * turn
}

/// Large buffers that answers to reads leave to batches and repair.
pub const fn large_reserved(geometry: &Geometry) -> usize {
    geometry.pipeline_max as usize + REPAIR_PREPARES_MAX
}

/// Most headers of a vote: as many as its bit sets have bits.
pub const VOTE_HEADERS_MAX: usize = 128;

/// Memory for the votes of all replicas, in bytes.
pub const VOTES_SIZE: usize =
    (storage::layout::REPLICAS_MAX * VOTE_HEADERS_MAX) * storage::header::HEADER_SIZE;
