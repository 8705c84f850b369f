//! Scores as Redis reads and writes them.

use super::steps::hexadecimal;
use crate::state_machine::kv::wire::Score;
use std::ops::Bound;

/// A score with 17 significant digits, as C's "%.17g" has it.
pub fn format(score: Score) -> String {
    /// Below this, a whole number is written with its digits.
    const WHOLE_MAX: f64 = 1e17;
    let number = score.get();
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if number.fract() == 0.0 && number.abs() < WHOLE_MAX {
        return (number as i64).to_string();
    }
    let text = format!("{:.16e}", number.abs());
    let (mantissa, exponent) = text.split_once('e').expect("it was asked for");
    let exponent: i32 = exponent.parse().expect("of three digits at most");
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_end_matches('0');
    let sign = if number < 0.0 { "-" } else { "" };
    match usize::try_from(exponent) {
        Ok(exponent) if exponent < 17 => {
            // There is a fraction: it is not whole.
            let (whole, fraction) = digits.split_at(exponent + 1);
            format!("{sign}{whole}.{fraction}")
        }
        Err(_) if exponent >= -4 => {
            let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
            format!("{sign}0.{zeros}{digits}")
        }
        _ => {
            let (first, fraction) = digits.split_at(1);
            let point = if fraction.is_empty() { "" } else { "." };
            let exponent_sign = if exponent < 0 { '-' } else { '+' };
            let exponent = exponent.abs();
            format!("{sign}{first}{point}{fraction}e{exponent_sign}{exponent:02}")
        }
    }
}

/// The score of a result: bits that order as scores do.
pub fn told(bytes: &[u8]) -> Option<Score> {
    let bits = u64::from_le_bytes(bytes.try_into().ok()?);
    Score::from_ordered(bits)
}

/// A number as C reads it, no blanks before it; infinite or zero if it is too large or too small. Not "nan".
fn number(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let number = match digits {
        [b'-' | b'+', ..] => return None,
        [b'0', b'x' | b'X', digits @ ..] => hexadecimal(digits)?,
        digits => std::str::from_utf8(digits).ok()?.parse::<f64>().ok()?,
    };
    let number = if negative { -number } else { number };
    (!number.is_nan()).then_some(number)
}

/// Whether a number that was read as infinite or zero was meant to be something else.
fn is_out_of_range(text: &[u8], number: f64) -> bool {
    let lower = text.to_ascii_lowercase();
    let is_hexadecimal = lower.contains(&b'x');
    let power = if is_hexadecimal { b'p' } else { b'e' };
    let mantissa = lower.split(|&byte| byte == power).next().unwrap_or(&[]);
    let is_digit = |byte: &&u8| byte.is_ascii_hexdigit() && **byte != b'0';
    match number {
        0.0 => mantissa.iter().any(|byte| is_digit(&byte)),
        // The word for infinity has no digits.
        _ => number.is_infinite() && text.iter().any(u8::is_ascii_digit),
    }
}

/// A score, or what is added to one.
pub fn parse(text: &[u8]) -> Option<Score> {
    let number = number(text)?;
    if is_out_of_range(text, number) {
        return None;
    }
    Score::new(number)
}

/// A bound of scores; one behind a parenthesis is excluded. Redis is laxer here: C reads a number from nothing, too, knows
/// blanks before one, and stops at a NUL.
pub fn parse_bound(text: &[u8]) -> Option<Bound<Score>> {
    let (is_excluded, text) = match text {
        [b'(', text @ ..] => (true, text),
        text => (false, text),
    };
    let text = text.split(|&byte| byte == 0).next().unwrap_or(&[]);
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let score = match text.iter().position(|byte| !is_blank(byte)) {
        Some(begin) => Score::new(number(&text[begin..])?)?,
        None if text.is_empty() => Score::new(0.0)?,
        None => return None,
    };
    Some(if is_excluded {
        Bound::Excluded(score)
    } else {
        Bound::Included(score)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(number: f64) -> Score {
        Score::new(number).expect("a number")
    }

    /// As a Redis 7.0.15 wrote them.
    #[test]
    fn scores_are_written_as_in_redis() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-17.0, "-17"),
            (3.1, "3.1000000000000001"),
            (-0.5, "-0.5"),
            (123_456.789, "123456.789"),
            (0.0001, "0.0001"),
            (0.015, "0.014999999999999999"),
            (1e-5, "1.0000000000000001e-05"),
            (-1e-5, "-1.0000000000000001e-05"),
            (2f64.powi(-25), "2.9802322387695312e-08"),
            (5e-324, "4.9406564584124654e-324"),
            (1e16, "10000000000000000"),
            (99_999_999_999_999_984.0, "99999999999999984"),
            (1e17, "1e+17"),
            (1e20, "1e+20"),
            (12_345_678_901_234_567_890.0, "1.2345678901234567e+19"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(format(score(number)), text);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bits = 1u64;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7) ^ 5;
            let Some(score) = Score::new(f64::from_bits(bits)) else {
                continue;
            };
            assert_eq!(parse(format(score).as_bytes()), Some(score));
            let told_bytes = score.to_ordered().to_le_bytes();
            assert_eq!(told(&told_bytes), Some(score));
        }
        assert_eq!(told(b"1234567"), None);
    }

    #[test]
    fn scores_are_read_as_in_redis() {
        for (text, number) in [
            ("1", 1.0),
            ("+5", 5.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-1e3", -1000.0),
            ("0x10", 16.0),
            ("-0x1p-3", -0.125),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e-320", 1e-320),
            ("0e500", 0.0),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(score(number)), "{text}");
            let bound = Bound::Included(score(number));
            assert_eq!(parse_bound(text.as_bytes()), Some(bound), "{text}");
        }
        for text in [
            "", "x", " 1", "1 ", "nan", "1e400", "-1e400", "1e-400", "--1", "-+1", "1\0", "0x",
            "0x1p9999",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn bounds_are_laxer() {
        for (text, bound) in [
            ("", Bound::Included(score(0.0))),
            ("(", Bound::Excluded(score(0.0))),
            ("(1", Bound::Excluded(score(1.0))),
            (" 1", Bound::Included(score(1.0))),
            ("( 1", Bound::Excluded(score(1.0))),
            ("1\0x", Bound::Included(score(1.0))),
            ("1e400", Bound::Included(score(f64::INFINITY))),
            ("1e-400", Bound::Included(score(0.0))),
            ("(-inf", Bound::Excluded(score(f64::NEG_INFINITY))),
        ] {
            assert_eq!(parse_bound(text.as_bytes()), Some(bound), "{text:?}");
        }
        for text in [" ", "1 ", "((1", "nan", "x", "[1"] {
            assert_eq!(parse_bound(text.as_bytes()), None, "{text:?}");
        }
    }
}
