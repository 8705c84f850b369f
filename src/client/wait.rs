//! Waiting for sockets: of a client, and of what serves others through one.

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event};
use rustix::fd::OwnedFd;
use std::io;
use std::mem::MaybeUninit;

/// What has happened to the sockets of an epoll; waits for something for `wait_ns` at most. A signal is nothing.
///
/// # Errors
/// The kernel refuses to wait.
pub(crate) fn wait<'a>(
    epoll: &OwnedFd,
    wait_ns: u64,
    events: &'a mut [MaybeUninit<Event>],
) -> io::Result<&'a mut [Event]> {
    let timeout = Timespec {
        tv_sec: (wait_ns / 1_000_000_000).cast_signed(),
        tv_nsec: (wait_ns % 1_000_000_000).cast_signed(),
    };
    match epoll::wait(epoll, events, Some(&timeout)) {
        Ok((events, _)) => Ok(events),
        Err(rustix::io::Errno::INTR) => Ok(&mut []),
        Err(error) => Err(error.into()),
    }
}
