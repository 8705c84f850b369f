//! What a batch of seeds reached: sums, a table of everything that should be reached, and what of it never was.

use crate::disk::DiskStatistics;
use crate::network::KindStatistics;
use crate::partition::Shape;
use crate::run::Summary;
use std::fmt;
use storage::header::Command;

/// Sums over seeds.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Seeds.
    pub seeds: u64,
    /// Virtual time, in nanoseconds.
    pub time_ns: u64,
    /// Events.
    pub events: u64,
    /// Rows of the table: what, and how often.
    rows: Vec<(String, u64)>,
}

impl Coverage {
    /// Adds a seed.
    pub fn add(&mut self, summary: &Summary) {
        self.seeds += 1;
        self.time_ns += summary.time_ns;
        self.events += summary.events;
        let rows = rows_of(summary);
        if self.rows.is_empty() {
            self.rows = rows;
            return;
        }
        for (sum, row) in self.rows.iter_mut().zip(rows) {
            assert_eq!(sum.0, row.0);
            sum.1 += row.1;
        }
    }

    /// How often the thing with this name was reached.
    pub fn count(&self, name: &str) -> u64 {
        let row = self.rows.iter().find(|row| row.0 == name);
        row.map_or(0, |row| row.1)
    }

    /// What was never reached.
    pub fn holes(&self) -> impl Iterator<Item = &str> {
        let never = self.rows.iter().filter(|row| row.1 == 0);
        never.map(|row| row.0.as_str())
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rows in self.rows.chunks(4) {
            for (name, count) in rows {
                write!(formatter, "  {name:<32}{count:>12}")?;
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}

/// Messages that this simulator can make replicas and clients send.
fn is_expected(kind: Command) -> bool {
    kind != Command::Eviction
}

fn rows_of(summary: &Summary) -> Vec<(String, u64)> {
    let mut rows = Vec::with_capacity(180);
    history(summary, &mut rows);
    faults(summary, &mut rows);
    disks(summary, &mut rows);
    for &(kind, count) in &summary.messages {
        if is_expected(kind) {
            messages(kind, &count, &mut rows);
        }
    }
    rows
}

fn history(summary: &Summary, rows: &mut Vec<(String, u64)>) {
    let (checked, spoke, protocol) = (&summary.checked, &summary.checked.spoke, &summary.protocol);
    let mut row = |name: &str, count| rows.push((name.to_string(), count));
    row("ops", checked.ops);
    row("requests", checked.requests);
    row("copies not executed", checked.copies);
    row("writes answered", checked.writes);
    row("reads answered", checked.reads);
    row("writes without room", checked.out_of_space);
    row("registers without session", checked.sessions_full);
    row("sessions evicted", checked.sessions_evicted);
    row("evictions told", checked.evictions_told);
    row("checkpoints", checked.checkpoints);
    row("wraps of the journal", summary.wraps());
    row("restarts", checked.restarts);
    row("views begun", spoke.views);
    row("views left", protocol.view_changes);
    row("views passed on", protocol.passed_on);
    row("votes", spoke.votes);
    row("votes of uncertain heads", spoke.votes_uncertain);
    row("votes of dirty candidates", spoke.votes_dirty);
    row("truncations", spoke.truncations);
    row("restarts with uncertain head", checked.heads_uncertain);
    row("prepares repaired", protocol.repaired);
    row("syncs", protocol.syncs);
    row("pages fetched", protocol.pages_fetched);
    row("blocks found bad", protocol.blocks_bad);
    row("replicas left behind", summary.left_behind);
    row("answers with pages spoiled", summary.spoiled);
    row("disks wiped", summary.damage.wiped);
    row("disks put back", summary.damage.rolled_back);
    row("replicas told of that", summary.told);
    row("replicas recovered", summary.recovered);
    row("messages held back", summary.held_back);
}

fn faults(summary: &Summary, rows: &mut Vec<(String, u64)>) {
    let faults = &summary.faults;
    let mut row = |name: &str, count| rows.push((name.to_string(), count));
    row("kills", faults.kills);
    row("power cuts", faults.power_cuts);
    row("crashes of primaries", faults.primaries);
    row("crashes while opening", faults.while_opening);
    row("crashes of all at once", faults.all_at_once);
    row("flapping", faults.flaps);
    row("pauses", faults.pauses);
    row("clogs", faults.clogs);
    row("slow disks", faults.slow_disks);
    row("clocks set", faults.clocks);
    row("all clocks set forward", faults.clocks_all);
    for (shape, count) in Shape::ALL.into_iter().zip(faults.partitions) {
        rows.push((format!("partition: {shape:?}"), count));
    }
}

fn disks(summary: &Summary, rows: &mut Vec<(String, u64)>) {
    let DiskStatistics {
        in_flight_at_crash,
        torn,
        landed,
        unsynced_lost,
        ..
    } = summary.disk;
    let mut row = |name: &str, count| rows.push((name.to_string(), count));
    row("writes in flight at a crash", in_flight_at_crash);
    row("writes torn", torn);
    row("writes landed at a crash", landed);
    row("unsynced sectors lost", unsynced_lost);
    let damage = &summary.damage;
    for (name, zones) in [
        ("decayed", &damage.decayed),
        ("bad reads", &damage.bad_reads),
        ("writes dropped", &damage.dropped),
        ("writes misplaced", &damage.misplaced),
    ] {
        row(&format!("{name}: superblock"), zones.superblock);
        row(&format!("{name}: headers"), zones.headers);
        row(&format!("{name}: prepares"), zones.prepares);
        row(&format!("{name}: grid"), zones.grid);
    }
}

fn messages(kind: Command, count: &KindStatistics, rows: &mut Vec<(String, u64)>) {
    let name = format!("{kind:?}");
    let mut row = |what: &str, count| rows.push((format!("{name} {what}"), count));
    row("sent", count.sent);
    row("lost", count.lost);
    row("twice", count.duplicated);
    row("overtaken", count.overtaken);
    row("clogged", count.clogged);
    row("cut", count.cut);
}
