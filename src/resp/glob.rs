//! Patterns of keys, as in Redis: `*` any bytes, `?` one byte, `[a-c]` one of these, `[^a]` any other, `\` takes the next
//! byte as it is. Time is bounded by the product of the sizes: only the last `*` is ever tried again.

/// Whether all of `text` matches.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    // Where to go on if what follows the last star does not match: behind the star, and at the next byte of the text.
    let mut again: Option<(usize, usize)> = None;
    loop {
        if pattern.get(pattern_at) == Some(&b'*') {
            pattern_at += 1;
            again = Some((pattern_at, text_at));
            continue;
        }
        if text_at == text.len() && pattern_at == pattern.len() {
            return true;
        }
        let next = text
            .get(text_at)
            .and_then(|&byte| one(pattern, pattern_at, byte));
        if let Some(behind) = next {
            pattern_at = behind;
            text_at += 1;
            continue;
        }
        let Some((star, from)) = again.filter(|&(_, from)| from < text.len()) else {
            return false;
        };
        again = Some((star, from + 1));
        (pattern_at, text_at) = (star, from + 1);
    }
}

/// If the part of the pattern at `at` takes this byte: where the next part begins.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => class(pattern, at + 1, byte),
        b'\\' if at + 1 < pattern.len() => (pattern[at + 1] == byte).then_some(at + 2),
        &literal => (literal == byte).then_some(at + 1),
    }
}

/// A class that begins at `at`. Without its bracket it ends where the pattern does.
fn class(pattern: &[u8], mut at: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(at) == Some(&b'^');
    at += usize::from(negated);
    let mut found = false;
    loop {
        match pattern[at.min(pattern.len())..] {
            [] => break,
            [b'\\', literal, ..] => {
                found |= literal == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [from, b'-', to, ..] => {
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= literal == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

/// The bytes that all matching keys begin with.
pub fn prefix(pattern: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::new();
    let mut rest = pattern;
    loop {
        rest = match rest {
            [] | [b'*' | b'?' | b'[', ..] => return prefix,
            [b'\\', literal, more @ ..] => {
                prefix.push(*literal);
                more
            }
            [literal, more @ ..] => {
                prefix.push(*literal);
                more
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holds(pattern: &str, text: &str) -> bool {
        matches(pattern.as_bytes(), text.as_bytes())
    }

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "abc"),
            ("a*", "a"),
            ("a*c", "abbc"),
            ("a*b*c", "axbxbxc"),
            ("?", "x"),
            ("h[ae]llo", "hello"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]", "hb"),
            ("h[c-a]", "hb"),
            ("\\*", "*"),
            ("[\\]]", "]"),
            ("[abc", "b"),
            ("a\\", "a\\"),
            ("", ""),
            ("**", "x"),
            ("[a-]", "_"),
        ] {
            assert!(holds(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", ""),
            ("?", ""),
            ("a*c", "ab"),
            ("h[^e]llo", "hello"),
            ("h[a-c]", "hd"),
            ("\\*", "a"),
            ("[]", "a"),
            ("[]a]", "a"),
            ("A", "a"),
        ] {
            assert!(!holds(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_quick() {
        let pattern = "a*".repeat(1000) + "b";
        assert!(!holds(&pattern, &"a".repeat(5000)));
    }

    proptest! {
        #[test]
        fn what_matches_has_the_prefix(pattern in "[a-c*?\\[\\]\\\\^-]{0,8}", text in "[a-c]{0,6}") {
            if holds(&pattern, &text) {
                prop_assert!(text.as_bytes().starts_with(&prefix(pattern.as_bytes())));
            }
        }

        #[test]
        fn simple_patterns_match_what_recursion_finds(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern, text) {
                    ([], text) => text.is_empty(),
                    ([b'*', more @ ..], _) => {
                        (0..=text.len()).any(|skip| slow(more, &text[skip..]))
                    }
                    ([b'?', more @ ..], [_, rest @ ..]) => slow(more, rest),
                    ([a, more @ ..], [b, rest @ ..]) => a == b && slow(more, rest),
                    (_, []) => false,
                }
            }
            prop_assert_eq!(holds(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
