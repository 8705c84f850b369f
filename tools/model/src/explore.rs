//! Breadth first over all states; the first violation is told with the shortest way to it.

use crate::Bounds;
use crate::cluster::{Action, Cluster, State, Violation};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use storage::checksum;
use viewstone::rules::Rules;
use zerocopy::IntoBytes;

/// What was seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// Steps on the longest of the shortest ways.
    pub depth: usize,
    /// Whether there were no more states within the bounds.
    pub complete: bool,
    /// Different prepares.
    pub prepares: usize,
    /// States from which no view can begin, where that is not demanded.
    pub stuck: usize,
    /// States of interest that were reached.
    pub reached: Reached,
}

/// How often the search came by what it is there for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reached {
    /// States with an op committed in a later view than it was prepared in.
    pub inherited: usize,
    /// States in which some replica does not know where its log ends.
    pub uncertain: usize,
    /// States with a slot that is used a second time.
    pub reused: usize,
    /// States with a slot whose redundant header is of an earlier wrap or view.
    pub lagging: usize,
    /// States with two views that have begun with different prepares at one op.
    pub diverged: usize,
}

/// A violation, and how to get there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What is wrong.
    pub violation: Violation,
    /// The steps from the beginning.
    pub way: Vec<Action>,
    /// Whether the last of them is where it goes wrong, and not the view that all are then asked to begin.
    pub at_step: bool,
    /// States that were seen before.
    pub states: usize,
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:?} after {} states:",
            self.violation, self.states
        )?;
        for action in &self.way {
            writeln!(formatter, "  {action:?}")?;
        }
        if !self.at_step {
            writeln!(formatter, "  and then all vote in one more view")?;
        }
        Ok(())
    }
}

/// Explores.
///
/// # Errors
/// The first violation.
pub fn explore<R: Rules>(bounds: Bounds) -> Result<Explored, Found> {
    Search::<R>::new(bounds).run()
}

struct Search<R> {
    cluster: Cluster<R>,
    bounds: Bounds,
    /// By hash of the state: its number. 128 bits of a good hash: two states are not taken for one.
    seen: HashMap<u128, u32>,
    /// By number: the state before, and which of its actions led here.
    from: Vec<(u32, u16)>,
    frontier: VecDeque<(u32, u32, State)>,
    explored: Explored,
}

impl<R: Rules> Search<R> {
    fn new(bounds: Bounds) -> Self {
        Self {
            cluster: Cluster::new(bounds),
            bounds,
            seen: HashMap::new(),
            from: Vec::new(),
            frontier: VecDeque::new(),
            explored: Explored::default(),
        }
    }

    fn run(mut self) -> Result<Explored, Found> {
        let initial = self.cluster.initial();
        self.visit(&initial, 0, (0, 0));
        let mut actions = Vec::new();
        while let Some((number, depth, state)) = self.frontier.pop_front() {
            match self.cluster.converge(&state) {
                Err(Violation::Stuck(_)) if !self.bounds.live => self.explored.stuck += 1,
                Err(violation) => return Err(self.found(violation, number, None)),
                Ok(()) => {}
            }
            self.cluster.actions(&state, &mut actions);
            for (index, &action) in actions.iter().enumerate() {
                match self.cluster.step(&state, action) {
                    Ok(None) => {}
                    Ok(Some(next)) => {
                        self.explored.steps += 1;
                        self.visit(&next, depth + 1, (number, index as u16));
                    }
                    Err(violation) => return Err(self.found(violation, number, Some(action))),
                }
            }
            if self.from.len() >= self.bounds.states_max {
                return Ok(self.finish(false));
            }
        }
        Ok(self.finish(true))
    }

    fn finish(mut self, complete: bool) -> Explored {
        self.explored.states = self.from.len();
        self.explored.complete = complete;
        self.explored.prepares = self.cluster.prepares.count();
        self.explored
    }

    fn visit(&mut self, state: &State, depth: u32, from: (u32, u16)) {
        let hash = checksum::identity(state.as_bytes());
        let number = self.from.len() as u32;
        if self.seen.try_insert_new(hash, number) {
            self.from.push(from);
            self.frontier.push_back((number, depth, *state));
            self.explored.depth = depth as usize;
            self.cluster.note(state, &mut self.explored.reached);
        }
    }

    fn found(&mut self, violation: Violation, number: u32, last: Option<Action>) -> Found {
        let mut indices = Vec::new();
        let mut at = number;
        while at != 0 {
            let (before, index) = self.from[at as usize];
            indices.push(index);
            at = before;
        }
        let mut state = self.cluster.initial();
        let mut way = Vec::new();
        let mut actions = Vec::new();
        for &index in indices.iter().rev() {
            self.cluster.actions(&state, &mut actions);
            let action = actions[usize::from(index)];
            way.push(action);
            let next = self.cluster.step(&state, action);
            state = next.expect("it went well").expect("it changed the state");
        }
        way.extend(last);
        Found {
            violation,
            way,
            at_step: last.is_some(),
            states: self.from.len(),
        }
    }
}

trait TryInsertNew {
    /// Inserts if the key is new; tells whether it was.
    fn try_insert_new(&mut self, key: u128, value: u32) -> bool;
}

impl TryInsertNew for HashMap<u128, u32> {
    fn try_insert_new(&mut self, key: u128, value: u32) -> bool {
        match self.entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(value);
                true
            }
        }
    }
}
