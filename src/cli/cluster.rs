//! What the commands that talk to a running cluster have in common.

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
    #[arg(long, value_parser = cluster_id)]
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

/// Reads a cluster id: decimal, or hexadecimal after `0x`.
///
/// # Errors
/// A sentence for the user.
pub fn cluster_id(text: &str) -> Result<u128, String> {
    let id = match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16),
        None => text.parse(),
    };
    id.map_err(|_| "a cluster id is a number of up to 128 bits: 42, or 0x2a".to_owned())
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

/// Reads a size in bytes: `4096`, `256KiB`, `1MiB`, `2GiB`.
///
/// # Errors
/// A sentence for the user.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "KiB" | "K" => 10,
        "MiB" | "M" => 20,
        "GiB" | "G" => 30,
        other => return Err(format!("'{other}' is not a unit: use KiB, MiB or GiB")),
    };
    let number: Option<u64> = digits.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "give a size in bytes: 4096, 256KiB, 1MiB".to_owned())
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
    fn ids_and_durations_are_read() {
        assert_eq!(cluster_id("42"), Ok(42));
        assert_eq!(cluster_id("0xff"), Ok(255));
        assert!(cluster_id("ff").is_err() && cluster_id("-1").is_err() && cluster_id("").is_err());
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5ms"), Ok(Duration::from_micros(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        for bad in ["", "s", "-1s", "10 s", "5x", "nan", "1e300"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("256KiB"), Ok(256 << 10));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        for bad in ["", "KiB", "1.5MiB", "1TB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
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
