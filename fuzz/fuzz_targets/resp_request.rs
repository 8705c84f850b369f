//! `viewstone_fuzz::resp_request` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| viewstone_fuzz::resp_request::run(data));
