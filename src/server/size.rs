//! Sizes for people.

/// A size for people: exact, in the largest unit that divides it; otherwise rounded.
#[must_use]
pub fn show_size(size: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in units {
        let one = 1_u64 << shift;
        if size >= one {
            return if size.is_multiple_of(one) {
                format!("{} {unit}", size >> shift)
            } else {
                format!("{:.1} {unit}", size as f64 / one as f64)
            };
        }
    }
    format!("{size} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_largest_unit() {
        assert_eq!(show_size(256 << 20), "256 MiB");
        assert_eq!(show_size((1 << 30) + (100 << 20)), "1.1 GiB");
        assert_eq!(show_size(12), "12 bytes");
    }
}
