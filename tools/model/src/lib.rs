//! The protocol's hard part, small enough to go through every interleaving: view change, uncertain heads, slots that are
//! used again and redundant headers that lag, together.
//!
//! Three replicas, two or three ops, a ring of two or four slots. A breadth-first search visits every state that some order
//! of message deliveries (with loss, delay and repetition), writes that land or not, kills, restarts and a decayed slot can
//! lead to, within [`Bounds`]. In each it checks [`Violation`]s: two histories, a view that begins without what was
//! committed, two logs of one view, a vote that changes, and a state from which no view can begin though all replicas are
//! there and talk.
//!
//! What is real: the choice of a log (`viewstone::log_choice`), and what a replica concludes from its disk at start
//! (`storage::recovery`: classes, table, ring rules), on real headers and sectors. The rest, the replica between those two, is
//! told again here in few words: [`cluster`] for the protocol, [`journal`] for the ring. [`viewstone::rules::Rules`] that are
//! taken away are taken away here as well, and each must be missed.
//!
//! What makes it small, and why nothing is lost by it:
//! * A message once sent may arrive at any time, or never, and again: so there is no queue, only what was ever sent. A
//!   replica that is down does nothing, as a slow one does: only the restart is a step, which forgets all that is not on
//!   the disk.
//! * Acknowledgements are sent as soon as they may be: more of them commit more, and so demand more.
//! * What was committed is what a replication quorum has acknowledged in one view, whether or not anybody has heard of it.
//! * start_view_change only decides when a view is left. Here any replica may leave its view at any time.
//! * Prepares are one sector, and requests have no content.

pub mod cluster;
pub mod explore;
pub mod journal;
pub mod prepares;
mod recovery;

pub use cluster::{Action, State, Violation};
pub use explore::{Explored, Found, explore};

/// How much is explored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Ops that are ever prepared, at most [`cluster::OPS`].
    pub ops: u8,
    /// Prepares in flight.
    pub pipeline: u8,
    /// Slots of the ring, at most [`journal::SLOTS`].
    pub slots: u8,
    /// The highest view, at most [`cluster::VIEWS`] - 2.
    pub views: u8,
    /// Restarts of all replicas together.
    pub restarts: u8,
    /// Slots that decay.
    pub decays: u8,
    /// Whether a write may be under way while other things happen; otherwise it lands at once.
    pub slow_writes: bool,
    /// Whether a view must be able to begin from every state: it is owed while no op has lost a replication quorum of its
    /// copies.
    pub live: bool,
    /// States after which the search ends, complete or not.
    pub states_max: usize,
}

impl Bounds {
    /// Two ops in two views, and nothing dies: any order of messages.
    pub const VIEWS: Self = Self {
        ops: 2,
        pipeline: 2,
        slots: 4,
        views: 2,
        restarts: 0,
        decays: 0,
        slow_writes: false,
        live: true,
        states_max: usize::MAX,
    };

    /// One op in three views.
    pub const MORE_VIEWS: Self = Self {
        ops: 1,
        views: 3,
        ..Self::VIEWS
    };

    /// Two ops and one view change; two restarts, a decayed slot.
    pub const DAMAGE: Self = Self {
        views: 1,
        restarts: 2,
        decays: 1,
        ..Self::VIEWS
    };

    /// One op and two view changes, so that it can be replaced; two restarts, a decayed slot.
    pub const DAMAGE_IN_VIEWS: Self = Self {
        ops: 1,
        restarts: 2,
        decays: 1,
        ..Self::VIEWS
    };

    /// Three ops in a ring of two slots: checkpoints, slots that are used again; a restart, a decayed slot.
    pub const REUSE: Self = Self {
        ops: 3,
        pipeline: 1,
        slots: 2,
        views: 1,
        restarts: 1,
        decays: 1,
        ..Self::VIEWS
    };

    /// Writes that are still under way when a view is left or the process dies.
    pub const SLOW_WRITES: Self = Self {
        ops: 1,
        slow_writes: true,
        ..Self::DAMAGE
    };

    /// So many decayed slots that ops are lost: then no view begins, but nothing is forgotten.
    pub const TOO_MUCH_DAMAGE: Self = Self {
        ops: 1,
        decays: 2,
        live: false,
        ..Self::DAMAGE
    };

    /// What the tests explore, whole, and the least number of states that must be seen.
    pub const SMALL: [(&'static str, Self, usize); 7] = [
        ("views", Self::VIEWS, 200_000),
        ("more views", Self::MORE_VIEWS, 90_000),
        ("damage", Self::DAMAGE, 1_500_000),
        ("damage in views", Self::DAMAGE_IN_VIEWS, 2_000_000),
        ("reuse", Self::REUSE, 1_500_000),
        ("slow writes", Self::SLOW_WRITES, 800_000),
        ("too much damage", Self::TOO_MUCH_DAMAGE, 300_000),
    ];

    /// What takes minutes.
    pub const LARGE: [(&'static str, Self, usize); 4] = [
        (
            "two ops, two view changes, a restart and a decayed slot",
            Self {
                restarts: 1,
                decays: 1,
                ..Self::VIEWS
            },
            20_000_000,
        ),
        (
            "one op, three view changes, a restart and a decayed slot",
            Self {
                restarts: 1,
                decays: 1,
                ..Self::MORE_VIEWS
            },
            1_000_000,
        ),
        (
            "two ops, slow writes, a restart and a decayed slot",
            Self {
                slow_writes: true,
                restarts: 1,
                ..Self::DAMAGE
            },
            5_000_000,
        ),
        (
            "reuse with two restarts",
            Self {
                restarts: 2,
                ..Self::REUSE
            },
            5_000_000,
        ),
    ];
}
