//! What all connections of a gateway share.

use super::cursors::Cursors;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the cluster's geometry allows, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvLimits {
    /// A request's body.
    pub request_size_max: usize,
    /// A reply to a read.
    pub reply_size_max: usize,
    /// A reply to a write.
    pub write_reply_size_max: usize,
    /// A value.
    pub value_size_max: usize,
}

impl KvLimits {
    /// Of messages of this size.
    pub fn new(message_size_max: usize, write_reply_size_max: usize) -> Self {
        // Headers of the message and of the request in it.
        let body = message_size_max.saturating_sub(512);
        Self {
            request_size_max: body,
            reply_size_max: body,
            write_reply_size_max,
            // As the machine's own limit, or a little less: it is checked there.
            value_size_max: message_size_max.saturating_sub(900),
        }
    }
}

impl Default for KvLimits {
    /// Those of the default geometry, until a replica has told its own.
    fn default() -> Self {
        Self::new(256 << 10, 3840)
    }
}

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused, because there were too many.
    pub refused: u64,
    /// Connections closed because they did not read, or sent too much.
    pub closed_hostile: u64,
    /// Commands, local ones included.
    pub commands: u64,
    /// Requests to the cluster.
    pub requests: u64,
    /// Requests whose outcome is unknown.
    pub unknown: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
}

/// What commands may ask of their gateway.
#[derive(Debug)]
pub struct Shared {
    /// What the cluster allows.
    pub limits: KvLimits,
    /// Cursors of SCAN.
    pub cursors: Cursors,
    /// Counts.
    pub statistics: Statistics,
    /// Connections now.
    pub connections: usize,
    /// Most connections.
    pub connections_max: usize,
    /// Bytes of input and output that are held.
    pub memory: usize,
    /// Most bytes of one reply.
    pub output_size_max: usize,
    /// The port.
    pub port: u16,
    /// Addresses of the replicas.
    pub replicas: Vec<String>,
    /// The address of the primary, if one is known.
    pub primary: Option<usize>,
    /// Backups that hold a write before it is acknowledged, for WAIT.
    pub backups_acknowledged: i64,
    /// Most writes in flight.
    pub sessions: usize,
    started: Instant,
    random: u64,
}

impl Shared {
    /// Of a gateway that starts now.
    pub fn new(seed: u64) -> Self {
        Self {
            limits: KvLimits::default(),
            cursors: Cursors::default(),
            statistics: Statistics::default(),
            connections: 0,
            connections_max: 0,
            memory: 0,
            output_size_max: 32 << 20,
            port: 0,
            replicas: Vec::new(),
            primary: None,
            backups_acknowledged: 0,
            sessions: 0,
            started: Instant::now(),
            random: seed,
        }
    }

    /// Time since 1970 by this machine's clock.
    pub fn now() -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// A random number.
    pub fn random(&mut self) -> u64 {
        splitmix(&mut self.random)
    }
}

/// The next random number of this state: splitmix64.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
