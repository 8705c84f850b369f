//! `viewstone_fuzz::resp_reply` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| viewstone_fuzz::resp_reply::run(data));
