//! One line to join: `postern invite` on the workstation, `postern join` and `postern leave` on the device.
//!
//! The inviter holds keys of the device's atSign. What passes between the two beside the line itself is an ordinary
//! enrolment of the atProtocol (passcode, request, approval), so that every atServer will do; that the request is the one
//! that was invited is shown by its symmetric key, which follows from the line's secret. Source: docs/protocol/invitation.md.

#[cfg(feature = "invite")]
mod activate;
#[cfg(feature = "invite")]
mod activate_cli;
#[cfg(feature = "join")]
mod admission;
mod anchor;
#[cfg(feature = "invite")]
mod book;
#[cfg(feature = "join")]
mod config_text;
mod fail;
mod files;
#[cfg(feature = "invite")]
mod invite;
#[cfg(feature = "invite")]
mod invite_cli;
#[cfg(feature = "join")]
mod join;
#[cfg(feature = "join")]
mod join_cli;
#[cfg(feature = "join")]
mod leave;
mod limits;
mod patience;
#[cfg(feature = "join")]
mod place;
#[cfg(feature = "join")]
mod receipt;
#[cfg(feature = "join")]
mod service;
#[cfg(feature = "invite")]
mod tend;
#[cfg(feature = "invite")]
mod tools;

#[cfg(feature = "invite")]
pub use activate_cli::{command as activate_command, main as activate_main};
#[cfg(feature = "invite")]
pub use invite_cli::{command as invite_command, main as invite_main};
#[cfg(feature = "join")]
pub use join_cli::{join_command, join_main, leave_command, leave_main};

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;

/// Application name of the enrolments of device daemons. Source: NoPorts, at_activate of sshnpd.
const APP: &str = "sshnpd";
/// What a device daemon reads and writes.
const NAMESPACES: [(&str, &str); 2] = [("sshnp", "rw"), ("sshrvd", "rw")];

fn namespaces() -> std::collections::BTreeMap<String, String> {
    NAMESPACES.into_iter().map(|(name, access)| (name.to_owned(), access.to_owned())).collect()
}

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

/// Runs a program's work to its end.
fn run(program: &str, work: impl Future<Output = Result<(), fail::Fail>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            postern_observe::say(format_args!("{program}: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(work);
    // A key that is still being made for nothing is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => {
            postern_observe::say(format_args!("{program}: {fail}"));
            fail.code()
        }
    }
}

/// `2026-11-23T18:00:00Z`
fn date(seconds: u32) -> String {
    jiff::Timestamp::from_second(seconds.into()).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// The wall clock in seconds since 1970.
fn now() -> u64 {
    postern_client::trust::now_ms() / 1000
}
