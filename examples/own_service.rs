//! A service of one's own: the seats of a theatre, as a deterministic state machine, replicated three times, and a typed
//! client for it. No seat is ever sold twice, whoever crashes.
//!
//! ```sh
//! cargo run --example own_service
//! ```

use std::error::Error;
use std::ops::Bound;
use viewstone::client::{CallError, Client, operation};
use viewstone::state_machine::{Context, Invalid, Limits, Pages, Plan, ReplyBuffer, StateMachine};
use viewstone::storage::collections::ordered_map::OrderedMap;
use viewstone::testing::Cluster;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const NAME_SIZE_MAX: usize = 64;

/// Body: seat (two bytes, big-endian, so that they sort), then a name. Answers with the name of whoever has the seat
/// now.
const BOOK: u8 = 1;
/// Body: seat and name. Answers 1, or 0 if somebody else has it, or nobody.
const CANCEL: u8 = 2;
/// No body. Answers with each seat that is taken: seat, size of the name (one byte), name.
const LIST: u8 = 3;

/// The root record. This, and what it points to in pages, is the whole state: there is no other place for any.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Theatre {
    /// Seat to name.
    seats: OrderedMap,
}

impl StateMachine for Theatre {
    const NAME: &'static str = "theatre";

    fn create(_: &mut Pages) -> Self {
        Self {
            seats: OrderedMap::new(),
        }
    }

    /// The gate: what does not pass is refused to the caller. It sees the request only, so all replicas agree.
    fn validate(limits: &Limits, operation: u8, body: &[u8]) -> Result<Plan, Invalid> {
        let names_a_seat = (3..=2 + NAME_SIZE_MAX).contains(&body.len());
        match operation {
            BOOK if names_a_seat => Ok(Plan {
                reply_size: NAME_SIZE_MAX,
                ..limits.map_plan(1, 0, NAME_SIZE_MAX)
            }),
            CANCEL if names_a_seat => Ok(Plan {
                reply_size: 1,
                ..limits.map_plan(0, 1, 0)
            }),
            LIST if body.is_empty() => Ok(Plan {
                read_only: true,
                reply_size: limits.read_reply_size_max,
                ..Plan::default()
            }),
            _ => Err(Invalid),
        }
    }

    fn read(
        &self,
        pages: &Pages,
        _: &Context,
        operation: u8,
        _: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) {
        assert_eq!(operation, LIST);
        let all = self
            .seats
            .range(pages, Bound::Unbounded, Bound::Unbounded, false);
        for (seat, name) in all {
            if reply.room() < seat.len() + 1 + name.len() {
                break; // the rest does not fit: a larger theatre would be listed row by row
            }
            reply.push(seat);
            reply.push(&[name.len() as u8]);
            name.pieces(0).for_each(|piece| reply.push(piece));
        }
    }

    fn commit(
        &mut self,
        pages: &mut Pages,
        _: &Context,
        operation: u8,
        body: &[u8],
        reply: &mut ReplyBuffer<'_>,
    ) {
        let (seat, name) = body.split_at(2);
        let holder = self.seats.get(pages, seat);
        if operation == CANCEL {
            let is_theirs = holder.is_some_and(|it| it.len() == name.len() && it.equals(0, name));
            reply.push(&[u8::from(is_theirs)]);
            if is_theirs {
                self.seats.remove(pages, seat);
            }
        } else if let Some(holder) = holder {
            holder.pieces(0).for_each(|piece| reply.push(piece));
        } else {
            self.seats.insert(pages, seat, &[name]);
            reply.push(name);
        }
    }
}

/// The typed client: it encodes, and decodes, and that is all. Deadlines, retries and failover are below it.
struct BoxOffice {
    client: Client,
}

impl BoxOffice {
    /// The only machine of its cluster.
    const MACHINE: u8 = 1;

    /// Books a seat; false if somebody else has it. Booking one's own again changes nothing.
    fn book(&self, seat: u16, name: &str) -> Result<bool, CallError> {
        let body = [&seat.to_be_bytes(), name.as_bytes()].concat();
        let reply = self.client.write(operation(Self::MACHINE, BOOK), &body)?;
        Ok(reply.body == name.as_bytes())
    }

    /// Gives a seat back; false if it was somebody else's.
    fn cancel(&self, seat: u16, name: &str) -> Result<bool, CallError> {
        let body = [&seat.to_be_bytes(), name.as_bytes()].concat();
        let reply = self.client.write(operation(Self::MACHINE, CANCEL), &body)?;
        Ok(reply.body == [1])
    }

    /// Who has which seat.
    fn list(&self) -> Result<Vec<(u16, String)>, CallError> {
        let reply = self.client.read(operation(Self::MACHINE, LIST), &[])?;
        let mut rest = reply.body.as_slice();
        let mut seats = Vec::new();
        while let [high, low, size, tail @ ..] = rest {
            let (name, tail) = tail.split_at(usize::from(*size));
            let name = String::from_utf8_lossy(name).into_owned();
            seats.push((u16::from_be_bytes([*high, *low]), name));
            rest = tail;
        }
        Ok(seats)
    }
}

/// Sells seats while replicas come and go.
///
/// # Errors
/// Whatever goes wrong.
pub fn main() -> Result<(), Box<dyn Error>> {
    let mut cluster = Cluster::<(Theatre,)>::start(3)?;
    let office = BoxOffice {
        client: cluster.client()?,
    };
    assert!(office.book(12, "Ada")?);
    assert!(!office.book(12, "Bob")?, "it is Ada's");
    assert!(office.book(13, "Bob")?);

    let primary = cluster.wait_for_primary()?;
    cluster.kill(primary)?;
    println!("replica {primary} led, and is gone");

    assert!(!office.book(12, "Eve")?, "it is still Ada's");
    assert!(office.cancel(12, "Ada")?);
    assert!(office.book(12, "Eve")?);
    println!("replica {} leads now", cluster.wait_for_primary()?);

    cluster.restart(primary)?;
    for (seat, name) in office.list()? {
        println!("seat {seat}: {name}");
    }
    // A name that is too long never enters the log.
    let error = office
        .book(14, &"x".repeat(100))
        .expect_err("refused by validate");
    println!("seat 14: {error}");
    Ok(())
}
