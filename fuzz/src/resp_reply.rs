//! The parser of replies, which clients and tests use: no bytes panic, and a part of a reply is never a reply.

use viewstone::resp::Value;

/// Panics on a finding.
pub fn run(data: &[u8]) {
    if let Ok(Some((value, size))) = Value::parse(data) {
        assert!(size > 0 && size <= data.len());
        assert_eq!(Value::parse(&data[..size]), Ok(Some((value, size))));
        assert_eq!(Value::parse(&data[..size - 1]), Ok(None));
    }
}
