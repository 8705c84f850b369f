//! The parser of requests: no bytes panic, and how they were split does not matter.

use viewstone::resp::{Limits, Parsed, Parser, ProtocolError};

const LIMITS: Limits = Limits {
    arguments_max: 1000,
    bulk_size_max: 2000,
    request_size_max: 20_000,
};

type Ended = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Ended {
    let mut parser = Parser::new(LIMITS);
    let (mut requests, mut input) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let size = match parser.parse(&input) {
                Ok(Parsed::Incomplete) => break,
                Ok(Parsed::Empty(size)) => size,
                Ok(Parsed::Request(size)) => {
                    let arguments = parser.arguments(&input);
                    assert!((1..=LIMITS.arguments_max.max(size)).contains(&arguments.len()));
                    requests.push(arguments.iter().map(<[u8]>::to_vec).collect());
                    size
                }
                Err(error) => return (requests, Some(error)),
            };
            assert!(size > 0);
            parser.finish();
            input.drain(..size);
        }
    }
    (requests, None)
}

/// Panics on a finding. The first byte is the size of the pieces, the others are the stream.
pub fn run(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    let whole = parse(std::iter::once(stream));
    let pieces = parse(stream.chunks(usize::from(size).max(1)));
    assert_eq!(whole, pieces);
}
