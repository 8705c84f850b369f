//! Inline commands: a line of words, as a person types them. Words may be quoted: in "..." the escapes \xHH, \n, \r, \t,
//! \b, \a and \c for any other character c hold; in '...' only \'. A closing quote ends its word, so a blank must follow.

/// The quotes of a line do not match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unbalanced;

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// Appends the words of `line` to `text`, and where each lies to `words`.
pub(super) fn split(
    line: &[u8],
    text: &mut Vec<u8>,
    words: &mut Vec<(u32, u32)>,
) -> Result<(), Unbalanced> {
    let mut rest = line;
    loop {
        while let [byte, more @ ..] = rest
            && is_blank(*byte)
        {
            rest = more;
        }
        // A NUL ends the line, as it ends a string in C.
        if matches!(rest, [] | [0, ..]) {
            return Ok(());
        }
        let start = text.len();
        rest = word(rest, text)?;
        words.push((start as u32, text.len() as u32));
    }
}

/// Appends the word that `rest` begins with; what follows it.
fn word<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        match rest {
            [] | [0, ..] => return Ok(rest),
            [byte, more @ ..] if is_blank(*byte) => return Ok(more),
            [b'"', more @ ..] => return closed(double_quoted(more, text)?),
            [b'\'', more @ ..] => return closed(single_quoted(more, text)?),
            [byte, more @ ..] => {
                text.push(*byte);
                rest = more;
            }
        }
    }
}

/// What follows a closing quote: a blank, or nothing.
fn closed(rest: &[u8]) -> Result<&[u8], Unbalanced> {
    match rest {
        [] | [0, ..] => Ok(rest),
        [byte, ..] if is_blank(*byte) => Ok(rest),
        _ => Err(Unbalanced),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, more @ ..]
                if let (Some(high), Some(low)) = (hex(*high), hex(*low)) =>
            {
                text.push(high << 4 | low);
                more
            }
            [b'\\', escaped, more @ ..] if *escaped != 0 => {
                text.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                more
            }
            [b'"', more @ ..] => return Ok(more),
            [] | [0, ..] => return Err(Unbalanced),
            [byte, more @ ..] => {
                text.push(*byte);
                more
            }
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], Unbalanced> {
    loop {
        rest = match rest {
            [b'\\', b'\'', more @ ..] => {
                text.push(b'\'');
                more
            }
            [b'\'', more @ ..] => return Ok(more),
            [] | [0, ..] => return Err(Unbalanced),
            [byte, more @ ..] => {
                text.push(*byte);
                more
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, Unbalanced> {
        let (mut text, mut words) = (Vec::new(), Vec::new());
        split(line.as_bytes(), &mut text, &mut words)?;
        let word = |(from, to): (u32, u32)| {
            String::from_utf8_lossy(&text[from as usize..to as usize]).into_owned()
        };
        Ok(words.into_iter().map(word).collect())
    }

    #[test]
    fn words_are_split_at_blanks() {
        assert_eq!(words(""), Ok(vec![]));
        assert_eq!(words(" \t "), Ok(vec![]));
        assert_eq!(words("get a"), Ok(vec!["get".into(), "a".into()]));
        assert_eq!(words("  get \t a  "), Ok(vec!["get".into(), "a".into()]));
        assert_eq!(words("get a\0b c"), Ok(vec!["get".into(), "a".into()]));
    }

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(words("a \"b c\""), Ok(vec!["a".into(), "b c".into()]));
        assert_eq!(words("\"\" ''"), Ok(vec![String::new(), String::new()]));
        assert_eq!(words(r#""\x41\n\q\"""#), Ok(vec!["A\nq\"".into()]));
        assert_eq!(words(r#""\xzz""#), Ok(vec!["xzz".into()]));
        assert_eq!(words(r"'a\'b\n'"), Ok(vec![r"a'b\n".into()]));
        assert_eq!(words("ab\"c d\""), Ok(vec!["abc d".into()]));
    }

    #[test]
    fn quotes_must_close_and_end_their_word() {
        for line in ["\"a", "'a", "\"a\"b", "'a'b", "\"a\\", "'a\\'", "a\"b\"c"] {
            assert_eq!(words(line), Err(Unbalanced), "{line}");
        }
    }
}
