//! What clients ask for, and a model that predicts every answer.

mod kv;

pub use kv::KvWorkload;

use crate::prng::Prng;
use crate::swarm::Pressure;
use viewstone::machines::Machines;
use viewstone::state_machine::{Context, Limits};

/// Requests for a cluster's machines, and what they mean, written without them.
pub trait Workload {
    /// The machines that the requests are for.
    type Machines: Machines;

    /// A workload; its mix is drawn from the seed.
    fn new(limits: Limits, prng: &mut Prng) -> Self;

    /// Requests are to press for more than usual. By default they do not.
    fn press(&mut self, _pressure: Pressure) {}

    /// Draws the next request: writes its bytes into `body`, which is empty, and returns its operation. It must be valid.
    fn request(&mut self, prng: &mut Prng, body: &mut Vec<u8>) -> u16;

    /// The parts of a write that found no room, by what the machine answered: models know nothing of pages.
    fn refused(&self, _answer: &[u8]) -> Vec<usize> {
        Vec::new()
    }

    /// Executes a request, a read as well as a write, on the model, but for the parts `refused`; returns the answer.
    fn apply(
        &mut self,
        context: &Context,
        operation: u16,
        body: &[u8],
        refused: &[usize],
    ) -> Vec<u8>;
}
