//! `viewstone_fuzz::wire_header` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| viewstone_fuzz::wire_header::run(data));
