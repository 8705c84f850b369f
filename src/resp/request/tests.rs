use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    arguments_max: 1000,
    bulk_size_max: 1000,
    request_size_max: 100_000,
};

type Requests = Vec<Vec<Vec<u8>>>;

/// All requests of a stream that comes in pieces, and how it ends.
fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Requests, Option<ProtocolError>) {
    let mut parser = Parser::new(LIMITS);
    let (mut requests, mut input) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match parser.parse(&input) {
                Ok(Parsed::Incomplete) => break,
                Ok(Parsed::Empty(size)) => {
                    parser.finish();
                    input.drain(..size);
                }
                Ok(Parsed::Request(size)) => {
                    let arguments = parser.arguments(&input);
                    assert!(!arguments.is_empty() && arguments.len() <= LIMITS.arguments_max);
                    requests.push(arguments.iter().map(<[u8]>::to_vec).collect());
                    parser.finish();
                    input.drain(..size);
                }
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fn whole(bytes: &[u8]) -> (Requests, Option<ProtocolError>) {
    parse([bytes])
}

fn words(line: &[&str]) -> Vec<Vec<u8>> {
    line.iter().map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn arrays_and_lines_may_follow_one_another() {
    let bytes =
        b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nping\r\n\r\n*0\r\n*-1\r\nset a \"b c\"\n*1\r\n$0\r\n\r\n";
    let expected = vec![
        words(&["GET", "a"]),
        words(&["ping"]),
        words(&["set", "a", "b c"]),
        words(&[""]),
    ];
    assert_eq!(whole(bytes), (expected, None));
}

#[test]
fn the_end_of_an_argument_is_not_looked_at() {
    // As in Redis, which skips two bytes.
    let expected = vec![words(&["GET", "a"])];
    assert_eq!(whole(b"*2\rx$3\ryGETzz$1\r\naqq"), (expected, None));
}

#[test]
fn each_broken_rule_has_its_error() {
    let long = |start: &str| [start.as_bytes(), &vec![b'1'; LINE_SIZE_MAX + 1]].concat();
    let big = "*101\r\n".to_owned() + &format!("$1000\r\n{}\r\n", "x".repeat(1000)).repeat(101);
    let cases = [
        (b"*x\r\n".to_vec(), ProtocolError::Count),
        (b"*1001\r\n".to_vec(), ProtocolError::Count),
        (b"*99999999999999999999\r\n".to_vec(), ProtocolError::Count),
        (b"*1\r\n:3\r\n".to_vec(), ProtocolError::Bulk(b':')),
        (b"*1\r\n*1\r\n".to_vec(), ProtocolError::Bulk(b'*')),
        (b"*1\r\n$-1\r\n".to_vec(), ProtocolError::Length),
        (b"*1\r\n$x\r\n".to_vec(), ProtocolError::Length),
        (b"*1\r\n$1001\r\n".to_vec(), ProtocolError::Length),
        (b"get 'a\r\n".to_vec(), ProtocolError::Quotes),
        (long("*"), ProtocolError::CountSize),
        (long("*1\r\n$"), ProtocolError::LengthSize),
        (long(""), ProtocolError::InlineSize),
        (big.into_bytes(), ProtocolError::RequestSize),
    ];
    for (bytes, error) in cases {
        let (requests, found) = whole(&bytes);
        assert!(requests.is_empty());
        assert_eq!(
            found,
            Some(error),
            "{}",
            bytes[..bytes.len().min(40)].escape_ascii()
        );
    }
    let text = ProtocolError::Bulk(b':').to_string();
    assert_eq!(text, "Protocol error: expected '$', got ':'");
}

#[test]
fn a_large_count_costs_nothing() {
    let mut parser = Parser::new(Limits::DEFAULT);
    assert_eq!(parser.parse(b"*1048576\r\n"), Ok(Parsed::Incomplete));
    assert_eq!(parser.memory(), 0);
    assert_eq!(
        parser.parse(b"*1048576\r\n$4194304\r\nx"),
        Ok(Parsed::Incomplete)
    );
    assert!(parser.memory() < 1024);
}

#[test]
fn a_question_may_be_repeated() {
    let mut parser = Parser::new(LIMITS);
    for bytes in [&b"*1\r\n$4\r\nPING\r\n"[..], b"  ping 'a b'\r\n"] {
        assert_eq!(parser.parse(bytes), Ok(Parsed::Request(bytes.len())));
        assert_eq!(parser.parse(bytes), Ok(Parsed::Request(bytes.len())));
        assert_eq!(parser.arguments(bytes)[0].to_ascii_uppercase(), b"PING");
        parser.finish();
    }
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let argument = proptest::collection::vec(any::<u8>(), 0..20);
    let request = proptest::collection::vec(argument, 1..5).prop_map(|arguments| {
        let mut out = Vec::new();
        crate::resp::client::encode(&arguments, &mut out);
        out
    });
    let line = "[a-z \"'\\\\x0]{0,20}\r?\n".prop_map(String::into_bytes);
    let noise = proptest::collection::vec(
        proptest::sample::select(b"*$:-0123456789\r\nx\"' ".to_vec()),
        0..30,
    );
    let part = prop_oneof![6 => request, 2 => line, 1 => noise];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn splits_do_not_matter(
        bytes in stream(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for cut in cuts {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        pieces.push(&bytes[from..]);
        let expected = whole(&bytes);
        prop_assert_eq!(parse(pieces), expected.clone());
        prop_assert_eq!(parse(bytes.chunks(1)), expected);
    }

    #[test]
    fn what_is_encoded_comes_back(
        requests in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..10),
            0..10,
        ),
    ) {
        let mut bytes = Vec::new();
        for request in &requests {
            crate::resp::client::encode(request, &mut bytes);
        }
        prop_assert_eq!(whole(&bytes), (requests, None));
    }
}
