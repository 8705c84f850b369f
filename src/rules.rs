//! The rules that keep the protocol safe, as a type: the simulator breaks them one at a time to see that it notices.
//!
//! [`Strict`] is the only sane value, and the only one in this crate. A broken rule is a type of the simulator's, so that
//! none can ship (design section 1): a type parameter, never a feature.

/// Which rules a replica keeps. Each is true; what breaks without it stands beside it.
pub trait Rules: 'static {
    /// Rules of the journal.
    type Journal: storage::journal::Rules + std::fmt::Debug;
    /// Rules of the superblock.
    type Superblock: storage::superblock::Rules + std::fmt::Debug;
    /// Rules of the checkpoint.
    type Checkpoint: storage::checkpoint::Rules + std::fmt::Debug;

    /// A vote is sent only when its view is durable: else a crash lets a replica vote twice.
    const VOTE_AWAITS_DURABLE_VIEW: bool = true;
    /// A new log is acted on only when it and its log_view are durable.
    const LOG_AWAITS_DURABLE_LOG_VIEW: bool = true;
    /// A vote is made from what was durable when its view began, not from what memory holds when it is sent.
    const VOTE_IS_FIXED: bool = true;
    /// What a replica holds is kept when it hears of a newer view (Vanlightly: truncating to the commit number forgets
    /// what was acknowledged).
    const KEEP_SUFFIX_IN_NEWER_VIEW: bool = true;
    /// An op that decayed is neither nacked nor present.
    const NEVER_NACK_DECAY: bool = true;
    /// An op is committed by a whole replication quorum.
    const WHOLE_REPLICATION_QUORUM: bool = true;
    /// A view begins with a whole view-change quorum of votes.
    const WHOLE_VIEW_CHANGE_QUORUM: bool = true;
    /// An op is cut off only by a whole nack quorum.
    const WHOLE_NACK_QUORUM: bool = true;
    /// Acknowledgements die with their view.
    const ACKS_DIE_WITH_VIEW: bool = true;
    /// A replica is counted once for an op, and once for a view.
    const COUNT_EACH_ONCE: bool = true;
    /// A prepare is appended only after its parent.
    const CHECK_PARENT: bool = true;
    /// The log of the highest log_view is chosen, however long another is.
    const LOG_VIEW_FIRST: bool = true;
    /// A request executes at most once.
    const EXECUTE_ONCE: bool = true;
    /// A request executes only when its op is committed.
    const EXECUTE_AWAITS_COMMIT: bool = true;
    /// A read waits for a round that a quorum has confirmed.
    const READ_AWAITS_ROUND: bool = true;
    /// A read waits for everything that its primary inherited.
    const READ_AWAITS_INHERITED: bool = true;
    /// Reads that wait are dropped with the view.
    const READS_DIE_WITH_VIEW: bool = true;
    /// A primary that restarts leaves its view: it has forgotten what it prepared there.
    const RESTARTED_PRIMARY_LEAVES_VIEW: bool = true;
    /// A replica whose head is uncertain acknowledges nothing before a start_view.
    const UNCERTAIN_HEAD_AWAITS_START_VIEW: bool = true;
    /// An op beyond a checkpoint's reach is acknowledged only where the checkpoint is durable, and none beyond that of one
    /// that is still being fetched.
    const WITHHOLD_BEYOND_CHECKPOINT: bool = true;
    /// A file made in place of a lost one neither acks nor votes until it is told what its predecessor may have promised.
    const LOST_FILE_AWAITS_OTHERS: bool = true;
    /// A replica that is told that its disk went back in time neither acks nor votes.
    const REGRESSED_IS_LOST: bool = true;
    /// The head never falls within a view.
    const HEAD_NEVER_FALLS_IN_VIEW: bool = true;
    /// Pages that are fetched are those that were asked for.
    const CHECK_FETCHED_PAGES: bool = true;
}

/// All rules are kept.
#[derive(Clone, Copy, Debug)]
pub struct Strict;

impl Rules for Strict {
    type Journal = storage::journal::Strict;
    type Superblock = storage::superblock::Sound;
    type Checkpoint = storage::checkpoint::Strict;
}
