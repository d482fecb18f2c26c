//! `postern server` alone: for tests with real processes and for measuring.

use std::process::ExitCode;

fn main() -> ExitCode {
    postern_server::main(std::env::args_os().collect())
}
