//! `cargo xtask demo`: the whole way on one machine, for a person to walk.

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, bail};
use postern_testkit::{Options, SshServer, World, end_sessions, kill_all_started, postern_bin, quote_for_shell, say};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::install;
use crate::steps::build_postern;

/// Exit status of a program ended by Ctrl-C, as shells have it.
const INTERRUPTED: i32 = 130;

/// What a person may want of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct How {
    /// Show how the session is sealed.
    verbose: bool,
    /// The daemon's built-in ssh server; no sshd is needed.
    builtin_ssh: bool,
}

/// Opens a shell on the device, or runs the words after `--` there and passes their status on. `--verbose` shows how the
/// session is sealed, and what was waited for; `--builtin-ssh` needs no sshd.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let mut how = How::default();
    let mut rest = args;
    while let Some((flag, more)) = rest.split_first() {
        match flag.as_str() {
            "--verbose" => how.verbose = true,
            "--builtin-ssh" => how.builtin_ssh = true,
            _ => break,
        }
        rest = more;
    }
    let words = match rest.split_first() {
        None => &[],
        Some((dashes, words)) if dashes == "--" => words,
        Some(_) => bail!("cargo xtask demo [--builtin-ssh] [--verbose] [-- COMMAND...]"),
    };
    if how.builtin_ssh {
        install::install(&install::FOR_BUILTIN_DEMO)?;
    } else {
        install::install(&install::FOR_DEMO)?;
    }
    if std::env::var_os("POSTERN_BIN").is_some() {
        return session(&postern_bin()?, how, words);
    }
    say(format_args!("building postern (the first time takes minutes)"));
    // The development build: it shares its parts with the tests, and is quick enough for a person.
    session(&build_postern(&["--quiet", "-p", "postern"])?, how, words)
}

/// The demo with a `postern` that is already built.
pub(crate) fn session(postern: &std::path::Path, how: How, words: &[String]) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let options = Options {
        binary: Some(postern.to_owned()),
        authorize_client: false,
        ssh_server: if how.builtin_ssh { SshServer::BuiltIn } else { SshServer::OpenSsh },
        progress: |line| say(format_args!("  {line}")),
        ..Options::default()
    };
    let world = World::start(options)?;
    let dir = world.dir().to_owned();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            kill_all_started();
            end_sessions(&dir);
            let _ = std::fs::remove_dir_all(&dir);
            std::process::exit(INTERRUPTED);
        }
    });
    say(format_args!("ready after {:.1} s; going in by\n", start.elapsed().as_secs_f64()));
    let mut command = world.sshnp();
    if !how.builtin_ssh {
        // The client's ssh key is not on the device yet; the daemon takes it from its manager.
        command.arg("-s");
    }
    if how.verbose {
        command.arg("--verbose");
    }
    if !words.is_empty() {
        // ssh joins words with spaces and lets the device's shell take them apart again.
        command.arg("--").args(words.iter().map(|word| quote_for_shell(word)));
    }
    say_command(&command);
    if words.is_empty() {
        let server = if how.builtin_ssh { "in the daemon's own ssh server" } else { "in its own sshd" };
        say(format_args!("(this shell is on the device, {server}; `exit` comes back and tidies up)\n"));
    }
    let status = command.status().context("cannot run sshnp")?;
    drop(world);
    say(format_args!("tidied up; the session ended with {status}"));
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What a person would type.
fn say_command(command: &Command) {
    let words: Vec<String> = command.get_args().map(|word| quote_for_shell(&word.to_string_lossy())).collect();
    say(format_args!("  postern {}\n", words.join(" ")));
}
