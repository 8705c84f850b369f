//! Sizes and cluster ids as people write them.

pub(super) use crate::server::size::show_size;

/// Parses a size in bytes, or in KiB, MiB, GiB or TiB, or with the first letter alone: `4096`, `256KiB`, `1 GiB`, `1G`.
///
/// # Errors
/// What is allowed.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" | "K" => 10,
        "MiB" | "M" => 20,
        "GiB" | "G" => 30,
        "TiB" | "T" => 40,
        other => {
            return Err(format!(
                "unit {other:?} is unknown: use KiB, MiB, GiB or TiB"
            ));
        }
    };
    let number: u64 = number.parse().map_err(|_| {
        format!("{text:?} is not a size: write bytes, or a whole number of KiB, MiB, GiB or TiB")
    })?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text} is too large"))
}

/// As [`parse_size`], for sizes below 4 GiB.
pub(super) fn parse_size_u32(text: &str) -> Result<u32, String> {
    u32::try_from(parse_size(text)?).map_err(|_| format!("{text} is too large: below 4 GiB"))
}

/// Parses a cluster id, decimal or with 0x hexadecimal.
///
/// # Errors
/// What is allowed.
pub fn parse_cluster(text: &str) -> Result<u128, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed
        .map_err(|_| format!("{text:?} is not a cluster id: a number below 2^128, decimal or 0x…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("256KiB"), Ok(256 << 10));
        assert_eq!(parse_size("1 GiB"), Ok(1 << 30));
        assert_eq!(parse_size("100M"), Ok(100 << 20));
        for bad in [
            "",
            "KiB",
            "1.5GiB",
            "-1",
            "4KB",
            "99999999999999999999",
            "99999999TiB",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert!(parse_size_u32("4GiB").is_err());
    }

    #[test]
    fn cluster_ids_are_decimal_or_hexadecimal() {
        assert_eq!(parse_cluster("10"), Ok(10));
        assert_eq!(parse_cluster("0x10"), Ok(16));
        assert_eq!(parse_cluster(&format!("{:#x}", u128::MAX)), Ok(u128::MAX));
        assert!(parse_cluster("ff").is_err() && parse_cluster("").is_err());
        assert!(parse_cluster("x").is_err() && parse_cluster("-1").is_err());
    }
}
