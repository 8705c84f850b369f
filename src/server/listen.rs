//! The listening socket. Bound before the server runs, so that several servers in one process can know each other's
//! ports first.

use super::resolve::{AddressError, check_address, resolve};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Connections that wait to be accepted; beyond it the kernel drops their first packet, and they try again.
const BACKLOG: i32 = 256;

/// Why nothing listens.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is unusable as such.
    #[error("{0}")]
    Address(#[from] AddressError),
    /// EADDRINUSE.
    #[error(
        "port {port} of {address} is in use: another process listens there (see `ss -ltnp`); stop it, or choose another port for this replica in --addresses"
    )]
    InUse {
        /// The address.
        address: String,
        /// Its port.
        port: u16,
    },
    /// EADDRNOTAVAIL.
    #[error(
        "{address} is not an address of this machine: is this the right replica's data file, and is --addresses in the order of the indexes?"
    )]
    NotOurs {
        /// The address.
        address: String,
    },
    /// EACCES.
    #[error("this user may not listen on {address}: ports below 1024 need CAP_NET_BIND_SERVICE")]
    Forbidden {
        /// The address.
        address: String,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {errno}")]
    Other {
        /// The address.
        address: String,
        /// The operating system's reason.
        errno: Errno,
    },
}

/// A socket that listens, not yet served.
#[derive(Debug)]
pub struct Listener {
    pub(super) fd: OwnedFd,
    /// Where; with the port that was chosen, if port 0 was asked for.
    pub address: SocketAddr,
}

impl Listener {
    /// Listens on `host:port`; port 0: on a free one.
    ///
    /// # Errors
    /// The address is malformed, unknown, not ours, or in use.
    pub fn bind(address: &str) -> Result<Self, ListenError> {
        check_address(address)?;
        let mut error = None;
        for found in resolve(address)? {
            match Self::bind_one(found) {
                Ok(listener) => return Ok(listener),
                Err(errno) => error = error.or(Some((found, errno))),
            }
        }
        let (found, errno) = error.expect("a resolver answers with at least one address");
        let address = address.to_owned();
        Err(match errno {
            Errno::ADDRINUSE => ListenError::InUse {
                address,
                port: found.port(),
            },
            Errno::ADDRNOTAVAIL => ListenError::NotOurs { address },
            Errno::ACCESS => ListenError::Forbidden { address },
            errno => ListenError::Other { address, errno },
        })
    }

    fn bind_one(address: SocketAddr) -> rustix::io::Result<Self> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        // Only lingering connections of an earlier process are passed over, never one that listens.
        sockopt::set_socket_reuseaddr(&fd, true)?;
        rustix::net::bind(&fd, &address)?;
        rustix::net::listen(&fd, BACKLOG)?;
        let address = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
        Ok(Self { fd, address })
    }
}

/// A port of the loopback interface that nobody else gets while this exists, and on which a [`Listener`] can be bound
/// again and again. While none is, connections are refused.
#[derive(Debug)]
pub struct ReservedPort {
    /// Bound and not listening: the kernel gives its port to no other socket, except to one that asks for it by number.
    _fd: OwnedFd,
    /// Which port.
    pub address: SocketAddr,
}

impl ReservedPort {
    /// Reserves a free port of 127.0.0.1.
    ///
    /// # Errors
    /// There is none.
    pub fn on_loopback() -> Result<Self, ListenError> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let reserve = || -> rustix::io::Result<Self> {
            let flags = SocketFlags::CLOEXEC;
            let family = AddressFamily::INET;
            let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
            sockopt::set_socket_reuseaddr(&fd, true)?;
            rustix::net::bind(&fd, &any)?;
            let address = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
            Ok(Self { _fd: fd, address })
        };
        reserve().map_err(|errno| ListenError::Other {
            address: any.to_string(),
            errno,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_ours_says_so() {
        let error = Listener::bind("192.0.2.1:0").expect_err("reserved for documentation");
        assert!(matches!(error, ListenError::NotOurs { .. }));
        assert!(error.to_string().contains("192.0.2.1:0"));
        let error = Listener::bind("nonsense").expect_err("no port");
        assert!(matches!(
            error,
            ListenError::Address(AddressError::Malformed(_))
        ));
    }

    #[test]
    fn a_reserved_port_can_be_listened_on_again_and_again() {
        let port = ReservedPort::on_loopback().expect("a port is free");
        for _ in 0..2 {
            let refused = std::net::TcpStream::connect(port.address).expect_err("nobody listens");
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            let listener = Listener::bind(&port.address.to_string()).expect("it is ours");
            assert_eq!(listener.address, port.address);
            std::net::TcpStream::connect(port.address).expect("somebody listens");
        }
    }
}
