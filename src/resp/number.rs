//! Numbers as Redis reads and writes them: strict decimal integers of 64 bits.

/// Most bytes of a decimal 64-bit integer, its sign included.
pub const INTEGER_SIZE_MAX: usize = 20;

/// A 64-bit integer in the only spelling that Redis takes: no plus sign, no leading zeros, no blanks, no "-0".
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() < INTEGER_SIZE_MAX => {}
        _ => return None,
    }
    // Downwards, because the least number has no positive counterpart.
    let mut value: i64 = 0;
    for &digit in digits {
        let digit = i64::from(char::from(digit).to_digit(10)?);
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative {
        Some(value)
    } else {
        value.checked_neg()
    }
}

/// The decimal digits of a number, made in `buffer`.
pub fn format_integer(number: i64, buffer: &mut [u8; INTEGER_SIZE_MAX]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

/// Appends the decimal digits of a number.
pub fn push_integer(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(format_integer(number, &mut [0; INTEGER_SIZE_MAX]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_one_spelling_is_a_number() {
        let good = [
            ("0", 0),
            ("7", 7),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, number) in good {
            assert_eq!(parse_integer(text.as_bytes()), Some(number), "{text}");
        }
        let bad = [
            "",
            "-",
            "+1",
            "-0",
            "00",
            "01",
            "-01",
            " 1",
            "1 ",
            "1a",
            "a",
            "--1",
            "1.0",
            "0x10",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
        ];
        for text in bad {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn numbers_come_back(number: i64) {
            let mut out = Vec::new();
            push_integer(&mut out, number);
            let text = number.to_string();
            prop_assert_eq!(&out[..], text.as_bytes());
            prop_assert_eq!(parse_integer(&out), Some(number));
        }

        #[test]
        fn whatever_parses_is_written_the_same(text in "-?[0-9]{0,21}") {
            if let Some(number) = parse_integer(text.as_bytes()) {
                prop_assert_eq!(text, number.to_string());
            }
        }
    }
}
