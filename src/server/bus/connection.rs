//! One connection's slot.

use super::SMALL_SIZE;
use std::collections::VecDeque;
use storage::buffer::{Message, SharedMessage};

/// What a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Not in use.
    Free,
    /// We are dialling this replica.
    Connecting(u8),
    /// Open, but the other end has not said who it is; we dialled this replica, if one is named.
    Hello(Option<u8>),
    /// With a replica.
    Replica(u8),
    /// With a client.
    Client,
    /// Until what the kernel has of it is home.
    Closing,
}

/// Which bound a connection counts against, until its slot is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Hello,
    Peer,
    Client,
}

/// A slot of the table.
#[allow(clippy::struct_excessive_bools)] // independent facts: each is a list it is on, or an operation in flight
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) state: State,
    pub(super) class: Class,
    /// Tells this use of the slot from earlier ones.
    pub(super) generation: u32,
    pub(super) opened_ns: u64,
    /// When the first byte of the incomplete message came.
    pub(super) frame_since_ns: Option<u64>,
    pub(super) sending_since_ns: u64,
    /// What was received, unless the driver has it. Bytes `start..filled` are not yet consumed.
    pub(super) buffer: Option<Message>,
    pub(super) start: usize,
    pub(super) filled: usize,
    /// Size of the message at `start`, once its header has passed every check.
    pub(super) frame_size: Option<usize>,
    /// A receive is in flight.
    pub(super) receiving: bool,
    /// Listed among the connections whose reading has stopped.
    pub(super) stopped: bool,
    /// Its last receive brought as much as there was room for.
    pub(super) busy: bool,
    /// Its buffer is a staging buffer.
    pub(super) staging: bool,
    /// We have said who we are.
    pub(super) greeted: bool,
    /// Listed among the connections with messages to send.
    pub(super) unsent: bool,
    /// Large messages in the queue.
    pub(super) large_queued: usize,
    pub(super) queue: VecDeque<SharedMessage>,
}

impl Connection {
    pub(super) fn new(queue_max: usize) -> Self {
        Self {
            state: State::Free,
            class: Class::Hello,
            generation: 0,
            opened_ns: 0,
            frame_since_ns: None,
            sending_since_ns: 0,
            buffer: None,
            start: 0,
            filled: 0,
            frame_size: None,
            receiving: false,
            stopped: false,
            busy: false,
            staging: false,
            greeted: false,
            unsent: false,
            large_queued: 0,
            queue: VecDeque::with_capacity(queue_max),
        }
    }

    /// Queues a message to send.
    pub(super) fn enqueue(&mut self, message: SharedMessage) {
        self.large_queued += usize::from(message.buffer().len() > SMALL_SIZE);
        self.queue.push_back(message);
    }

    /// Takes the next message to send.
    pub(super) fn dequeue(&mut self) -> Option<SharedMessage> {
        let message = self.queue.pop_front()?;
        self.large_queued -= usize::from(message.buffer().len() > SMALL_SIZE);
        Some(message)
    }

    /// Bytes received and not consumed.
    pub(super) fn available(&self) -> usize {
        self.filled - self.start
    }

    /// Lets go of everything, for the next use of the slot.
    pub(super) fn drop_buffers(&mut self) {
        self.buffer = None;
        self.start = 0;
        self.filled = 0;
        self.frame_size = None;
        self.frame_since_ns = None;
        self.receiving = false;
        self.busy = false;
        self.staging = false;
        self.greeted = false;
        self.large_queued = 0;
        self.queue.clear();
    }
}
