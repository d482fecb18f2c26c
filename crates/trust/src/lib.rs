//! Whose keys are known, and which are ours: `postern pin` and `postern fingerprint`.

mod fingerprint;
mod pin;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use postern_observe::say;

pub use fingerprint::{command as fingerprint_command, main as fingerprint_main};
pub use pin::{command as pin_command, main as pin_main};

/// Reads the arguments; on trouble everything has been said and the code is to be returned.
fn read<F: clap::Parser>(args: Vec<OsString>) -> Result<F, ExitCode> {
    F::try_parse_from(args).map_err(|error| {
        let _ = error.print();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
            _ => ExitCode::from(2),
        }
    })
}

/// Says why not.
fn fail(program: &str, why: impl std::fmt::Display) -> ExitCode {
    say(format_args!("{program}: {why}"));
    ExitCode::FAILURE
}
