//! `viewstone_fuzz::kv_machine` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| viewstone_fuzz::kv_machine::run(data));
