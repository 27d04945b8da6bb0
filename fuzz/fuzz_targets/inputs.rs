#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| probe_user::fuzzing::inputs(bytes));
