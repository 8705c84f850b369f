//! What the commands that talk to a running cluster have in common.

use super::size::parse_cluster;
use crate::client::ClientOptions;
use std::time::Duration;

/// Which cluster, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterArgs {
    /// Addresses of the replicas, in any order, separated by commas: host:port, an IPv6 address in brackets.
    #[arg(
        long,
        value_delimiter = ',',
        required = true,
        value_name = "ADDRESS,..."
    )]
    pub addresses: Vec<String>,
    /// The cluster's id, as given to `format`: replicas close connections that name another.
    #[arg(long, value_parser = parse_cluster)]
    pub cluster: u128,
    /// How long an answer may take.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
}

impl ClusterArgs {
    /// Options of a client for this cluster.
    pub fn options(&self) -> ClientOptions {
        let mut options = ClientOptions::new(self.cluster, self.addresses.iter().cloned());
        options.deadline = self.timeout;
        options
    }
}

/// Reads a duration: `10s`, `500ms`, `2m`; seconds if there is no unit.
///
/// # Errors
/// A sentence for the user.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: f64 = digits
        .parse()
        .map_err(|_| "give a duration: 500ms, 10s, 2m")?;
    let unit = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("'{other}' is not a unit: use us, ms, s, m or h")),
    };
    let seconds = number * unit;
    if !(0.0..=1e9).contains(&seconds) {
        return Err("a duration is positive, and less than thirty years".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Puts commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Aligns columns: the first row is the heading; numbers stand on the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let space = " ".repeat(width - cell.chars().count());
            let number = cell.starts_with(|first: char| first.is_ascii_digit());
            let (left, right) = if number {
                (space.as_str(), "")
            } else {
                ("", space.as_str())
            };
            line.extend([left, cell, right, "  "]);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5ms"), Ok(Duration::from_micros(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        for bad in ["", "s", "-1s", "10 s", "5x", "nan", "1e300"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_and_tables_are_aligned() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&[row(["name", "n"]), row(["a", "10"]), row(["long", "9"])]);
        assert_eq!(text, "name  n\na     10\nlong   9\n");
    }
}
