#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| witgate::fuzz::proxy(bytes).unwrap());
