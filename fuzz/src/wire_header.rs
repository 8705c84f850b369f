//! The header of a message: no bytes panic, and what passes its checks is what was sealed. The fuzzer cannot guess a sum, so
//! the target seals what it is given: then the rules behind the sum are reached.

use storage::header::{HEADER_SIZE, Header, check_batch};
use viewstone::state_machine::kv::wire::{BatchReply, Items, Operation, Scan, ScanReply};
use zerocopy::FromBytes;

const CLUSTER: u128 = 7;
const MESSAGE_SIZE_MAX: usize = 256 << 10;

/// Panics on a finding.
pub fn run(data: &[u8]) {
    // What the machine reads of a body, and a client of a reply.
    for operation in (0..=u8::MAX).filter_map(Operation::from_byte) {
        if let Some(items) = Items::decode(operation, data) {
            assert!(items.count() > 0);
        }
    }
    let _ = Scan::decode(data);
    let _ = ScanReply::decode(data).map(|reply| reply.entries().count());
    let _ = BatchReply::decode(data).map(|reply| reply.results().count());

    let Some((bytes, body)) = data.split_first_chunk::<HEADER_SIZE>() else {
        return;
    };
    let mut header = Header::read_from_bytes(bytes).expect("256 bytes are a header");
    let _ = header.check(CLUSTER, MESSAGE_SIZE_MAX);
    header.frame.cluster = CLUSTER;
    header.frame.checksum_body = storage::checksum::body_sum(body);
    header.frame.checksum = header.checksum_of_bytes();
    for requests in 0..4 {
        let _ = check_batch(body, requests);
    }
    if header.check(CLUSTER, MESSAGE_SIZE_MAX).is_ok() {
        assert!(header.command().is_some());
        let size = header.frame.size as usize;
        assert!((HEADER_SIZE..=MESSAGE_SIZE_MAX).contains(&size));
        if size == data.len() {
            header
                .check_body(body)
                .expect("it was sealed with this body");
        }
    }
}
