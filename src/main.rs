//! argv -> exit code. Everything else is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tailpod::cli::run(std::env::args_os()).into()
}
