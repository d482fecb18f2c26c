//! `-x`: the tunnel goes on behind a program that prints one line and ends.
//!
//! The program starts itself a second time. The second one sets the session up,
//! prints the line into a pipe, lets go of the terminal and carries the bytes; the
//! first one passes the line on. No fork of a running runtime, no unsafe code.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use postern_observe::print;

use crate::trouble::Trouble;

/// Set for the second program.
const MARK: &str = "POSTERN_DETACHED";

/// Whether we are the second program.
pub(crate) fn is_second() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Starts the second program and waits for its line. `args`: as the first got them.
pub(crate) fn run_second(args: &[OsString], applet: &str) -> Result<ExitCode, Trouble> {
    let program = std::env::current_exe().map_err(Trouble::Detach)?;
    let mut child = Command::new(program)
        .arg0(applet)
        .args(args.iter().skip(1))
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Trouble::Detach)?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).map_err(Trouble::Detach)?;
    }
    if line.is_empty() {
        // It has said why on stderr.
        let code = child.wait().map_err(Trouble::Detach)?.code();
        return Ok(ExitCode::from(code.and_then(|c| u8::try_from(c).ok()).filter(|c| *c != 0).unwrap_or(1)));
    }
    print(line.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Prints the line and lets go of terminal, pipes and process group: whoever
/// called the first program must not wait for us.
pub(crate) fn let_go(line: &str) -> Result<(), Trouble> {
    print(line);
    let trouble = |error: rustix::io::Errno| Trouble::Detach(error.into());
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(Trouble::Detach)?;
    rustix::stdio::dup2_stdout(&null).map_err(trouble)?;
    rustix::stdio::dup2_stderr(&null).map_err(trouble)?;
    // Fails only for the leader of a group, who needs it not.
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    Ok(())
}
