//! Each rule that is taken away is missed.

use model::{Bounds, Violation, explore};
use viewstone::rules::{Rules, Strict};

/// Two ops, two view changes, and one death.
const DEATHS: Bounds = Bounds {
    restarts: 1,
    ..Bounds::VIEWS
};

/// States within which it is to be missed.
const STATES_MAX: usize = 200_000;

macro_rules! missed {
    ($(#[doc = $why:literal])+ $test:ident, $rule:ident, $bounds:expr, $violation:pat) => {
        $(#[doc = $why])+
        #[test]
        fn $test() {
            struct Broken;
            impl Rules for Broken {
                type Journal = storage::journal::Strict;
                type Superblock = storage::superblock::Sound;
                type Checkpoint = storage::checkpoint::Strict;
                const $rule: bool = false;
            }
            let bounds = Bounds {
                states_max: STATES_MAX,
                ..$bounds
            };
            if let Err(found) = explore::<Strict>(bounds) {
                panic!("with all rules kept: {found}");
            }
            match explore::<Broken>(bounds) {
                Ok(explored) => panic!("not missed: {explored:?}"),
                Err(found) => assert!(matches!(found.violation, $violation), "{found}"),
            }
        }
    };
}

missed!(
    /// The longest log wins over the log of the latest view.
    a_log_chosen_by_length,
    LOG_VIEW_FIRST,
    Bounds::VIEWS,
    Violation::Forgotten { .. }
);

missed!(
    /// The only copy among the voters decays, and its owner denies that it ever was.
    a_nack_of_what_decayed,
    NEVER_NACK_DECAY,
    Bounds::DAMAGE_IN_VIEWS,
    Violation::Forgotten { .. }
);

missed!(
    /// One acknowledgement is of the view before, whose author is elsewhere by now: the op commits with one copy that counts.
    acknowledgements_of_two_views_counted_together,
    ACKS_DIE_WITH_VIEW,
    Bounds::MORE_VIEWS,
    Violation::Forgotten { .. }
);

missed!(
    /// A replica votes, dies, is back in the view before, and acknowledges there what its vote did not tell of.
    a_view_that_was_not_durable,
    VOTE_AWAITS_DURABLE_VIEW,
    DEATHS,
    Violation::ChangedVote(_)
);

missed!(
    /// A candidate begins a view, dies, and begins it again with other votes.
    a_log_view_that_was_not_durable,
    LOG_AWAITS_DURABLE_LOG_VIEW,
    DEATHS,
    Violation::TwoLogs(_)
);

missed!(
    /// A replica that leaves its view forgets what it acknowledged and does not know to be committed (Vanlightly).
    a_suffix_cut_on_leaving_the_view,
    KEEP_SUFFIX_IN_NEWER_VIEW,
    Bounds::VIEWS,
    Violation::Forgotten { .. }
);

missed!(
    /// The headers of a vote are not on the disk; one decays between two sendings.
    a_vote_that_changes,
    VOTE_IS_FIXED,
    Bounds::DAMAGE_IN_VIEWS,
    Violation::ChangedVote(_)
);

missed!(
    /// One copy is taken for a commit.
    a_replication_quorum_less_one,
    WHOLE_REPLICATION_QUORUM,
    Bounds::VIEWS,
    Violation::Forgotten { .. }
);

missed!(
    /// A candidate begins a view alone.
    a_view_change_quorum_less_one,
    WHOLE_VIEW_CHANGE_QUORUM,
    Bounds::VIEWS,
    Violation::Forgotten { .. }
);

missed!(
    /// One replica that never had an op is enough to cut it off.
    a_nack_quorum_less_one,
    WHOLE_NACK_QUORUM,
    Bounds::VIEWS,
    Violation::Forgotten { .. }
);

missed!(
    /// A primary dies before its own write landed, comes back, and prepares another thing at the same op of the same view.
    a_restarted_primary_that_stays,
    RESTARTED_PRIMARY_LEAVES_VIEW,
    Bounds {
        slow_writes: true,
        ..DEATHS
    },
    Violation::TwoLogs(_)
);

missed!(
    /// A late copy of a start_view takes back what was acknowledged since.
    a_head_that_falls,
    HEAD_NEVER_FALLS_IN_VIEW,
    Bounds::VIEWS,
    Violation::Forgotten { .. }
);

/// The question whether a view can begin is not answered with yes by default.
#[test]
fn an_op_that_lost_all_its_copies_stops_the_cluster() {
    let bounds = Bounds {
        live: true,
        ..Bounds::TOO_MUCH_DAMAGE
    };
    let found = explore::<Strict>(bounds).expect_err("two copies decay");
    assert!(matches!(found.violation, Violation::Stuck(_)), "{found}");
    assert!(found.way.len() <= 4, "{found}");
}
