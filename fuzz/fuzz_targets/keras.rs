#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| recurve_fuzz_readers::keras(data));
