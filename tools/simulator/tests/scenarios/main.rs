//! Named schedules on the simulator, each a script of a few lines: what happens, and what must hold then. The checkers of the
//! simulator look after every event besides.
//!
//! The sentence above each test says what goes wrong without the rule that it is about. Where a rule can be taken away
//! (`viewstone::rules`), the script is run again without it, and must fail: see [`script::noticed`].

mod damage;
mod known_faults;
mod lagging;
mod lost_files;
mod partitions;
mod schedules;
mod script;
mod seeds;
mod storage_patterns;
mod sync;
