//! The sockets and what each has in flight: at most one connect, one receive and one send at a time, so the table is
//! bounded by construction. Buffers, addresses and vectors lie in the table, which never moves, until their operation
//! has come home.

use crate::buffer::{Message, SharedMessage};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Most messages that leave with one system call. More than a pipeline's worth gains nothing measurable.
pub const SEND_BATCH_MAX: usize = 16;

/// What a socket has in flight, as bits.
pub(super) mod flight {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const RECEIVE: u8 = 2;
    pub(crate) const SEND: u8 = 4;
}

/// A slot of the table.
pub(super) struct Socket {
    pub(super) fd: Option<OwnedFd>,
    /// Tells this use of the slot from earlier ones; 24 bits.
    pub(super) generation: u32,
    /// Bits of [`flight`].
    pub(super) in_flight: u8,
    /// Cancellations on their way.
    pub(super) cancels: u8,
    /// Told to close: what comes home is dropped, and the last one closes it.
    pub(super) closing: bool,
    /// More bytes were waiting behind the last receive: the next need not poll first.
    pub(super) more_waiting: bool,
    pub(super) received_into: Option<Message>,
    pub(super) address: libc::sockaddr_storage,
    pub(super) address_size: libc::socklen_t,
    pub(super) send: SendState,
}

impl Socket {
    pub(super) fn new() -> Self {
        Self {
            fd: None,
            generation: 0,
            in_flight: 0,
            cancels: 0,
            closing: false,
            more_waiting: false,
            received_into: None,
            // SAFETY: all zeros is a sockaddr_storage of family AF_UNSPEC.
            address: unsafe { MaybeUninit::zeroed().assume_init() },
            address_size: 0,
            send: SendState::new(),
        }
    }

    /// Writes the address where the kernel will read it.
    pub(super) fn set_address(&mut self, address: SocketAddr) {
        let storage = &raw mut self.address;
        let size = match address {
            SocketAddr::V4(v4) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                // SAFETY: a sockaddr_storage has room and alignment for every address.
                unsafe { storage.cast::<libc::sockaddr_in>().write(raw) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { storage.cast::<libc::sockaddr_in6>().write(raw) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        self.address_size = size as libc::socklen_t;
    }
}

/// The messages that leave with one sendmsg, and how far they have got.
pub(super) struct SendState {
    messages: [Option<SharedMessage>; SEND_BATCH_MAX],
    vectors: [libc::iovec; SEND_BATCH_MAX],
    pub(super) header: libc::msghdr,
    count: usize,
    /// The first message that is not wholly sent.
    first: usize,
}

impl SendState {
    fn new() -> Self {
        Self {
            messages: [const { None }; SEND_BATCH_MAX],
            vectors: [libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }; SEND_BATCH_MAX],
            // SAFETY: all zeros is a msghdr without address, vectors and control data.
            header: unsafe { MaybeUninit::zeroed().assume_init() },
            count: 0,
            first: 0,
        }
    }

    /// Takes as many messages as fit; how many.
    pub(super) fn load(&mut self, mut next: impl FnMut() -> Option<SharedMessage>) -> usize {
        assert_eq!(self.count, 0);
        while self.count < SEND_BATCH_MAX
            && let Some(message) = next()
        {
            let bytes = message.bytes();
            self.vectors[self.count] = libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            self.messages[self.count] = Some(message);
            self.count += 1;
        }
        self.first = 0;
        self.count
    }

    /// Points the message header at what is left to send. The table does not move, so the pointers hold.
    pub(super) fn aim(&mut self) {
        assert!(self.first < self.count);
        self.header.msg_iov = self.vectors[self.first..].as_mut_ptr();
        self.header.msg_iovlen = self.count - self.first;
    }

    /// Counts sent bytes and lets go of whole messages. True: all is sent.
    pub(super) fn advance(&mut self, mut sent: usize) -> bool {
        while self.first < self.count {
            let vector = &mut self.vectors[self.first];
            if sent < vector.iov_len {
                // SAFETY: `sent` bytes into a run of `iov_len`, which is longer.
                vector.iov_base = unsafe { vector.iov_base.cast::<u8>().add(sent) }.cast();
                vector.iov_len -= sent;
                return false;
            }
            sent -= vector.iov_len;
            self.messages[self.first] = None;
            self.first += 1;
        }
        assert_eq!(sent, 0, "the kernel sent more bytes than it was given");
        self.count = 0;
        true
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self) {
        self.messages[..self.count].fill_with(|| None);
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SECTOR_SIZE;
    use crate::buffer::MessagePool;
    use crate::header::{Commit, Typed};

    fn message(pool: &MessagePool) -> SharedMessage {
        let mut message = pool.take().expect("free");
        message.set_header(&Commit::new(1, 2, 3));
        message.seal()
    }

    #[test]
    fn a_short_send_goes_on_inside_the_message_it_stopped_in() {
        let pool = MessagePool::new(3, SECTOR_SIZE);
        let mut state = SendState::new();
        let mut left = 3;
        let count = state.load(|| {
            left -= i32::from(left > 0);
            pool.take().map(|mut message| {
                message.set_header(&Commit::new(1, 2, 3));
                message.seal()
            })
        });
        assert_eq!(count, 3);
        state.aim();
        assert!(!state.advance(256 + 100));
        assert_eq!(pool.free(), 1);
        state.aim();
        assert_eq!(state.header.msg_iovlen, 2);
        assert_eq!(state.vectors[1].iov_len, 156);
        assert!(state.advance(156 + 256));
        assert_eq!(pool.free(), 3);
    }

    #[test]
    fn a_batch_is_bounded() {
        let pool = MessagePool::new(SEND_BATCH_MAX + 1, SECTOR_SIZE);
        let mut state = SendState::new();
        assert_eq!(state.load(|| Some(message(&pool))), SEND_BATCH_MAX);
        state.clear();
        assert_eq!(pool.free(), SEND_BATCH_MAX + 1);
    }
}
