//! Several state machines on one log: the high byte of an operation names the machine.
//!
//! A tuple of [`StateMachine`]s is a [`Machines`]: its first element is machine 1, and so on; machine 0 is the replica's
//! own ([`crate::engine`]). One log serves them all, so one order of requests holds across them.

use crate::state_machine::{
    Context, Invalid, Limits, Plan, ROOT_RECORD_SIZE_MAX, ReplyBuffer, StateMachine,
};
use storage::pages::{PageId, Pages};

/// Most machines of a cluster.
pub const MACHINES_MAX: usize = 16;

/// A request and the world it executes in.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// High byte: the machine. Low byte: its operation.
    pub operation: u16,
    /// Order, time, caller.
    pub context: Context,
    /// The request's bytes.
    pub body: &'a [u8],
}

/// The machines of a cluster. `roots[i]` is the page with the root record of machine i + 1.
pub trait Machines: 'static {
    /// How many there are.
    const COUNT: usize;

    /// Their names, in order.
    fn names() -> &'static [&'static str];

    /// Creates each machine and its root page.
    fn create(pages: &mut Pages, limits: &Limits, roots: &mut [PageId; MACHINES_MAX]);

    /// Whether the machine of an operation looks for free pages itself.
    fn checks_space(operation: u16) -> bool;

    /// Checks and plans a request; none if no machine has this operation's high byte.
    fn validate(limits: &Limits, operation: u16, body: &[u8]) -> Option<Result<Plan, Invalid>>;

    /// Answers a read.
    fn read(
        pages: &Pages,
        roots: &[PageId; MACHINES_MAX],
        call: Call<'_>,
        reply: &mut ReplyBuffer<'_>,
    );

    /// Executes a write.
    fn commit(
        pages: &mut Pages,
        roots: &[PageId; MACHINES_MAX],
        call: Call<'_>,
        reply: &mut ReplyBuffer<'_>,
    );

    /// The earliest time at which a machine wants a pulse.
    fn deadline_ns(pages: &Pages, roots: &[PageId; MACHINES_MAX]) -> Option<u64>;

    /// Pulses every machine whose deadline has passed.
    fn pulse(pages: &mut Pages, roots: &[PageId; MACHINES_MAX], context: &Context);
}

fn load<S: StateMachine>(pages: &Pages, root: PageId) -> S {
    S::read_from_bytes(&pages.read(root)[..size_of::<S>()])
        .expect("the slice has the record's size")
}

/// Writes a record back, if it changed: an unchanged page stays clean.
fn store<S: StateMachine>(pages: &mut Pages, root: PageId, before: &S, after: &S) {
    if before.as_bytes() != after.as_bytes() {
        pages.write(root)[..size_of::<S>()].copy_from_slice(after.as_bytes());
    }
}

fn create<S: StateMachine>(pages: &mut Pages, limits: &Limits) -> PageId {
    const { assert!(size_of::<S>() <= ROOT_RECORD_SIZE_MAX) };
    let root = pages.allocate();
    let machine = S::create_within(pages, limits);
    pages.write(root)[..size_of::<S>()].copy_from_slice(machine.as_bytes());
    root
}

macro_rules! machines {
    ($count:literal: $($machine:ident = $number:literal),*) => {
        impl<$($machine: StateMachine),*> Machines for ($($machine,)*) {
            const COUNT: usize = $count;

            fn names() -> &'static [&'static str] {
                const { &[$($machine::NAME),*] }
            }

            fn create(pages: &mut Pages, limits: &Limits, roots: &mut [PageId; MACHINES_MAX]) {
                $(roots[$number - 1] = create::<$machine>(pages, limits);)*
            }

            fn checks_space(operation: u16) -> bool {
                match operation >> 8 {
                    $($number => $machine::CHECKS_SPACE,)*
                    _ => false,
                }
            }

            fn validate(limits: &Limits, operation: u16, body: &[u8]) -> Option<Result<Plan, Invalid>> {
                match operation >> 8 {
                    $($number => Some($machine::validate(limits, operation as u8, body)),)*
                    _ => None,
                }
            }

            fn read(pages: &Pages, roots: &[PageId; MACHINES_MAX], call: Call<'_>, reply: &mut ReplyBuffer<'_>) {
                match call.operation >> 8 {
                    $($number => load::<$machine>(pages, roots[$number - 1])
                        .read(pages, &call.context, call.operation as u8, call.body, reply),)*
                    _ => unreachable!("validate knows no machine {}", call.operation >> 8),
                }
            }

            fn commit(pages: &mut Pages, roots: &[PageId; MACHINES_MAX], call: Call<'_>, reply: &mut ReplyBuffer<'_>) {
                match call.operation >> 8 {
                    $($number => {
                        let before = load::<$machine>(pages, roots[$number - 1]);
                        let mut machine = before;
                        machine.commit(pages, &call.context, call.operation as u8, call.body, reply);
                        store(pages, roots[$number - 1], &before, &machine);
                    })*
                    _ => unreachable!("validate knows no machine {}", call.operation >> 8),
                }
            }

            fn deadline_ns(pages: &Pages, roots: &[PageId; MACHINES_MAX]) -> Option<u64> {
                [$(load::<$machine>(pages, roots[$number - 1]).deadline_ns(pages)),*].into_iter().flatten().min()
            }

            fn pulse(pages: &mut Pages, roots: &[PageId; MACHINES_MAX], context: &Context) {
                $({
                    let before = load::<$machine>(pages, roots[$number - 1]);
                    if before.deadline_ns(pages).is_some_and(|deadline| deadline <= context.timestamp) {
                        let mut machine = before;
                        machine.pulse(pages, context);
                        store(pages, roots[$number - 1], &before, &machine);
                    }
                })*
            }
        }
    };
}

machines!(1: A = 1);
machines!(2: A = 1, B = 2);
machines!(3: A = 1, B = 2, C = 3);
machines!(4: A = 1, B = 2, C = 3, D = 4);
machines!(5: A = 1, B = 2, C = 3, D = 4, E = 5);
machines!(6: A = 1, B = 2, C = 3, D = 4, E = 5, F = 6);
machines!(7: A = 1, B = 2, C = 3, D = 4, E = 5, F = 6, G = 7);
machines!(8: A = 1, B = 2, C = 3, D = 4, E = 5, F = 6, G = 7, H = 8);
