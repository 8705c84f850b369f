//! The addresses of a cluster: parsed once, names looked up at start and again in the background.
//!
//! A name that cannot be resolved is no error, except our own: where addresses come and go with their machines, a peer's
//! name may appear later. The event loop never waits for a resolver; it reads the newest answer.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use storage::layout::REPLICAS_MAX;

/// Addresses kept of one name.
const ANSWERS_MAX: usize = 8;

/// How often names are looked up again.
const REFRESH: Duration = Duration::from_secs(5);

/// An address list that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    /// Not `host:port`.
    #[error(
        "`{0}` is not an address: write host:port, as in 10.0.0.1:3001, [::1]:3001 or db1.example.org:3001"
    )]
    Malformed(String),
    /// The same twice.
    #[error(
        "`{0}` is listed twice: --addresses names each replica once, in the order of their indexes"
    )]
    Twice(String),
    /// Not one for each replica.
    #[error(
        "--addresses names {found} replicas, but the data file was formatted for {expected}: list all of them, this one included, in the order of their indexes"
    )]
    Count {
        /// How many are listed.
        found: usize,
        /// How many there are.
        expected: usize,
    },
    /// Our own name leads nowhere.
    #[error("`{address}` cannot be resolved: {reason}")]
    Unresolved {
        /// The address.
        address: String,
        /// What the resolver said.
        reason: String,
    },
}

/// Checks `host:port`.
///
/// # Errors
/// It is neither an IP address nor a name, with a port.
pub fn check_address(address: &str) -> Result<(), AddressError> {
    let malformed = || AddressError::Malformed(address.to_owned());
    if address.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(malformed)?;
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if port.parse::<u16>().is_err() || host.is_empty() || !host.chars().all(name) {
        return Err(malformed());
    }
    Ok(())
}

/// Checks a list of addresses.
///
/// # Errors
/// One is malformed or listed twice, or there is not one for each replica.
pub fn check_addresses(addresses: &[String], replica_count: u8) -> Result<(), AddressError> {
    check_addresses_alone(addresses)?;
    if addresses.len() != usize::from(replica_count) {
        return Err(AddressError::Count {
            found: addresses.len(),
            expected: usize::from(replica_count),
        });
    }
    Ok(())
}

/// Checks a list of addresses by itself, before it is known how many there must be.
///
/// # Errors
/// One is malformed or listed twice.
pub fn check_addresses_alone(addresses: &[String]) -> Result<(), AddressError> {
    for (index, address) in addresses.iter().enumerate() {
        check_address(address)?;
        if !address.ends_with(":0") && addresses[..index].contains(address) {
            return Err(AddressError::Twice(address.clone()));
        }
    }
    Ok(())
}

/// Looks a `host:port` up.
///
/// # Errors
/// The resolver finds nothing.
pub fn resolve(address: &str) -> Result<Vec<SocketAddr>, AddressError> {
    let unresolved = |reason: String| AddressError::Unresolved {
        address: address.to_owned(),
        reason,
    };
    let found = address.to_socket_addrs();
    let found: Vec<_> = found
        .map_err(|error| unresolved(error.to_string()))?
        .collect();
    if found.is_empty() {
        return Err(unresolved("no such name".to_owned()));
    }
    Ok(found)
}

#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    addresses: [Option<SocketAddr>; ANSWERS_MAX],
    count: usize,
}

impl Answers {
    fn set(&mut self, found: &[SocketAddr]) {
        self.count = found.len().min(ANSWERS_MAX);
        for (slot, &address) in self.addresses.iter_mut().zip(found) {
            *slot = Some(address);
        }
    }
}

/// The newest known addresses of every replica.
#[derive(Debug)]
pub struct Addresses {
    answers: Arc<Mutex<[Answers; REPLICAS_MAX]>>,
    dropped: Arc<AtomicBool>,
}

impl Addresses {
    /// Looks all addresses up. Where one is a name, a thread looks it up again every few seconds, until this is dropped.
    pub fn new(addresses: &[String]) -> Self {
        let mut answers = [Answers::default(); REPLICAS_MAX];
        for (slot, address) in answers.iter_mut().zip(addresses) {
            match resolve(address) {
                Ok(found) => slot.set(&found),
                Err(error) => log::warn!("{error}; it is looked up again every {REFRESH:?}"),
            }
        }
        let this = Self {
            answers: Arc::new(Mutex::new(answers)),
            dropped: Arc::new(AtomicBool::new(false)),
        };
        if addresses.iter().any(|address| is_name(address)) {
            this.keep_fresh(addresses.to_vec());
        }
        this
    }

    fn keep_fresh(&self, addresses: Vec<String>) {
        let (answers, dropped) = (Arc::clone(&self.answers), Arc::clone(&self.dropped));
        let refresh = move || {
            while !dropped.load(Ordering::Relaxed) {
                thread::park_timeout(REFRESH);
                for (index, address) in addresses.iter().enumerate() {
                    if is_name(address)
                        && let Ok(found) = resolve(address)
                        && let Ok(mut answers) = answers.lock()
                    {
                        answers[index].set(&found);
                    }
                }
            }
        };
        let name = "viewstone-names".to_owned();
        if let Err(error) = thread::Builder::new().name(name).spawn(refresh) {
            log::warn!("names are looked up only once: no thread for it ({error})");
        }
    }

    /// An address of a replica; another one at each attempt, if it has several. None: there is none, or the resolver is
    /// just writing it.
    pub fn pick(&self, replica: u8, attempt: u32) -> Option<SocketAddr> {
        let answers = self.answers.try_lock().ok()?;
        let answers = &answers[usize::from(replica)];
        let index = (attempt as usize).checked_rem(answers.count)?;
        answers.addresses[index]
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

fn is_name(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in [
            "10.0.0.1:3001",
            "[::1]:0",
            "db-1.example.org:65535",
            "localhost:1",
        ] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "host",
            ":1",
            "host:",
            "host:70000",
            "::1:3001",
            "a b:1",
            "host:1:2",
            "h/x:1",
        ] {
            let error = check_address(bad).expect_err(bad);
            assert_eq!(error, AddressError::Malformed(bad.to_owned()));
        }
    }

    #[test]
    fn a_list_names_each_replica_once() {
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(check_addresses(&list("a:1,b:1"), 2), Ok(()));
        assert_eq!(check_addresses(&list("a:0,a:0"), 2), Ok(()));
        let twice = check_addresses(&list("a:1,a:1"), 2);
        assert_eq!(twice, Err(AddressError::Twice("a:1".to_owned())));
        let count = check_addresses(&list("a:1,b:1"), 3).expect_err("one is missing");
        assert!(count.to_string().contains("names 2 replicas") && count.to_string().contains('3'));
    }

    #[test]
    fn attempts_rotate_through_the_answers_of_a_name() {
        let addresses = Addresses::new(&["127.0.0.1:5".to_owned()]);
        let (a, b) = (addresses.pick(0, 0), "127.0.0.2:5".parse().expect("valid"));
        addresses.answers.lock().expect("unpoisoned")[0].set(&[a.expect("literal"), b]);
        assert_eq!((addresses.pick(0, 2), addresses.pick(0, 3)), (a, Some(b)));
        assert_eq!(addresses.pick(1, 0), None);
    }
}
