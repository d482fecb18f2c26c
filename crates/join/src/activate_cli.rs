//! Words of `postern activate`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use postern_observe::Verbosity;
use postern_session::parse_span;

use crate::activate::Activating;
use crate::read;

/// Makes this user the owner of the atSigns that a server's operator hands over by a line: keys made here, the server's
/// certificate believed from now on, the clients' configuration written.
///
/// The line comes from `postern server add --line`. The first atSign is one's own, the second that of one's devices.
/// Interrupted, it is run again with the same line and goes on. A key file or configuration that is there already is never
/// overwritten.
///
/// Exit status: 0 done (or it was already), 1 it could not be done now (network, disk, rights, or an atSign that somebody
/// has activated), 2 wrong usage or a mistyped line, 5 the server is not the one that the line speaks of.
#[derive(Parser)]
#[command(name = "activate", version, max_term_width = 100)]
pub(crate) struct Flags {
    /// The line: posternact1:…; `-` reads it from standard input [env: POSTERN_ACTIVATE].
    #[arg(value_name = "LINE")]
    pub(crate) line: Option<String>,
    /// For how long a network that is not there yet is waited for.
    #[arg(long, default_value = "10s", value_name = "SPAN", value_parser = span)]
    pub(crate) patience: Duration,
    /// Log what happens.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
}

fn span(text: &str) -> Result<Duration, String> {
    parse_span(text).map_err(|error| error.to_string())
}

/// Runs `postern activate` with its arguments, the program name first. `at_activate`: that program.
pub fn main(args: Vec<OsString>, at_activate: fn(Vec<OsString>) -> ExitCode) -> ExitCode {
    let flags: Flags = match read(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    postern_observe::init(Verbosity::of(flags.verbose, flags.debug));
    let mut activating = None;
    let code = crate::run("activate", async {
        activating = Some(Activating::begin(&flags).await?);
        Ok(())
    });
    let Some(activating) = activating else { return code };
    for words in activating.words() {
        let code = at_activate(words);
        if code != ExitCode::SUCCESS {
            return code;
        }
    }
    crate::run("activate", async { activating.end() })
}

/// The command line, for completions.
pub fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}
