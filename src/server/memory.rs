//! The memory of a server: computed before it is allocated, each term named, and locked if the system lets us.

use super::bus::{BusOptions, SMALL_SIZE, STAGING_MAX, STAGING_SIZE};
use super::identity::Identity;
use rustix::process::{Resource, getrlimit};
use std::sync::Once;
use storage::layout::PAGE_SIZE;

/// A named share of a server's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term {
    /// What it is for.
    pub name: &'static str,
    /// Its size, in bytes.
    pub size: u64,
}

/// Why a server may not use the memory it needs.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemoryError {
    /// There is not enough.
    #[error("this replica needs {} MiB of memory, but {limit} leaves {} MiB: free some, raise the limit, or format with a smaller --state-size", mib(*.needed), mib(*.available))]
    TooLittle {
        /// Bytes needed.
        needed: u64,
        /// Bytes there are.
        available: u64,
        /// What bounds them.
        limit: &'static str,
    },
    /// It cannot be locked, and must be.
    #[error("{} MiB of memory cannot be locked (errno {errno}): {hint}", mib(*.needed))]
    NotLocked {
        /// Bytes to lock.
        needed: u64,
        /// The operating system's error number.
        errno: i32,
        /// What to do.
        hint: String,
    },
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// What a server allocates at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Memory {
    terms: Vec<Term>,
}

impl Memory {
    /// Computes it. `others` is what the replica allocates for itself beyond the pages of state.
    pub fn new(identity: &Identity, bus: &BusOptions, others: &[Term]) -> Self {
        let message_size = u64::from(identity.geometry.message_size_max);
        let geometry = &identity.geometry;
        let connections = bus.connections(identity.replica_count) as u64;
        let queue_max = bus.peer_queue_max.max(bus.client_queue_max) as u64;
        let pages = u64::from(geometry.page_count()) + u64::from(geometry.spare_count());
        let mut terms = vec![
            Term {
                name: "pages of state, and spares for checkpoints",
                size: pages * PAGE_SIZE as u64,
            },
            Term {
                name: "large buffers for what replicas send",
                size: bus.peer_large as u64 * message_size,
            },
            Term {
                name: "large buffers for what clients send",
                size: bus.client_large as u64 * message_size,
            },
            Term {
                name: "small buffers, one for each connection and what the replica holds",
                size: (bus.small * SMALL_SIZE) as u64,
            },
            Term {
                name: "buffers for clients that send many requests at once",
                size: (STAGING_MAX * STAGING_SIZE) as u64,
            },
            Term {
                name: "connections and their send queues",
                size: connections * (1024 + 16 * queue_max),
            },
        ];
        terms.extend_from_slice(others);
        Self { terms }
    }

    /// The terms.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.terms.iter().map(|term| term.size).sum()
    }

    /// Writes each term, and the sum, to the log.
    pub fn log(&self) {
        for term in &self.terms {
            log::info!("memory: {:>9} KiB  {}", term.size / 1024, term.name);
        }
        log::info!("memory: {:>9} KiB  in all", self.total() / 1024);
    }

    /// Checks that there is enough before it is asked for: otherwise the system would kill us later, under load.
    ///
    /// # Errors
    /// There is too little, and what bounds it.
    pub fn check_available(&self) -> Result<(), MemoryError> {
        let limits = [
            (meminfo_available(), "the machine (MemAvailable)"),
            (cgroup_available(), "the control group (memory.max)"),
            (getrlimit(Resource::As).current, "RLIMIT_AS (`ulimit -v`)"),
            (
                getrlimit(Resource::Data).current,
                "RLIMIT_DATA (`ulimit -d`)",
            ),
        ];
        let needed = self.total();
        for (available, limit) in limits {
            if let Some(available) = available.filter(|&available| available < needed) {
                return Err(MemoryError::TooLittle {
                    needed,
                    available,
                    limit,
                });
            }
        }
        Ok(())
    }

    /// Locks what the process has mapped, so that no access waits for the swap device. Best effort, with one warning in
    /// a process, unless `required`.
    ///
    /// # Errors
    /// It is required, and the system does not let us.
    pub fn lock(&self, required: bool) -> Result<(), MemoryError> {
        static ONCE: Once = Once::new();
        let Err(errno) = rustix::mm::mlockall(rustix::mm::MlockAllFlags::CURRENT) else {
            return Ok(());
        };
        let limit = getrlimit(Resource::Memlock).current;
        let limit = limit.map_or("unlimited".to_owned(), |bytes| {
            format!("{} KiB", bytes / 1024)
        });
        let hint = format!(
            "RLIMIT_MEMLOCK is {limit}; raise it with `ulimit -l unlimited`, LimitMEMLOCK=infinity in a systemd unit, or \
             CAP_IPC_LOCK"
        );
        let error = MemoryError::NotLocked {
            needed: self.total(),
            errno: errno.raw_os_error(),
            hint,
        };
        if required {
            return Err(error);
        }
        ONCE.call_once(|| log::warn!("{error}; going on, but swapping would cost latency"));
        Ok(())
    }
}

fn meminfo_available() -> Option<u64> {
    parse_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// What the innermost control group leaves, in a container.
fn cgroup_available() -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let max: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    Some(max.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::layout::Geometry;

    fn memory(state_size: u64) -> Memory {
        let identity = Identity {
            cluster: 1,
            replica: 0,
            replica_count: 3,
            geometry: Geometry {
                state_size,
                ..Geometry::DEFAULT
            },
        };
        let bus = BusOptions {
            clients_max: 8,
            peer_queue_max: 32,
            client_queue_max: 16,
            large_queue_max: 8,
            peer_large: 10,
            client_large: 4,
            small: 100,
            seed: 0,
        };
        let others = [Term {
            name: "journal",
            size: 12345,
        }];
        Memory::new(&identity, &bus, &others)
    }

    #[test]
    fn the_total_is_the_sum_of_the_named_terms() {
        let memory = memory(256 << 20);
        assert!(memory.terms()[0].size > 256 << 20 && memory.terms()[0].size < 300 << 20);
        assert_eq!(memory.terms()[1].size, 10 * (256 << 10));
        assert_eq!(memory.terms().last().map(|term| term.size), Some(12345));
        assert_eq!(
            memory.total(),
            memory.terms().iter().map(|t| t.size).sum::<u64>()
        );
    }

    #[test]
    fn more_memory_than_there_is_is_refused_with_both_numbers() {
        assert_eq!(memory(8 << 20).check_available(), Ok(()));
        let error = memory(1 << 43).check_available().expect_err("8 TiB");
        assert!(error.to_string().contains("MemAvailable"), "{error}");
        assert_eq!(
            parse_meminfo("MemTotal: 9 kB\nMemAvailable:   7 kB\n"),
            Some(7168)
        );
        assert_eq!(parse_meminfo("nonsense"), None);
    }
}
