#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tailpod_fuzz::targets::answer(data));
