//! libFuzzer's program for all targets: `FUZZ_TARGET` names the one. A program each would be the same code six times.

#![no_main]

use std::sync::LazyLock;

use tailpod_fuzz::targets::{ALL, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    ALL.iter().find(|(name, _)| *name == wanted).expect("FUZZ_TARGET is a target").1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (*TARGET)(data));
