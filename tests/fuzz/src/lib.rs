//! What is fuzzed, as plain functions: libFuzzer calls them, and so do the tests of the main package.

#![expect(clippy::unwrap_used, reason = "a target that panics has found something")]

pub mod targets;
