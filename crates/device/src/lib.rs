//! The device daemon: waits for a validated request, then dials out.
//!
//! It holds one idle connection to its atServer and listens on nothing; but on its own loopback for `npt -R`, where its
//! owner has listed the port, while that session runs.

mod authorized_keys;
#[cfg(feature = "sshd")]
mod builtin_ssh;
#[cfg(not(feature = "sshd"))]
#[path = "no_ssh.rs"]
mod builtin_ssh;
mod cli;
mod clock;
mod config_file;
mod daemon;
#[cfg(feature = "doctor")]
mod doctor;
mod ephemeral;
mod host_keys;
mod limits;
mod live;
mod managers;
mod policy;
mod reach;
mod records;
#[cfg(feature = "sandbox")]
mod sandbox;
mod sealed;
mod sessions;
mod ssh_users;
mod status;
mod twin;
mod usage;
mod usual;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs `sshnpd` with its arguments, the program name first; `sshnpd status` shows who is in.
pub fn main(args: Vec<OsString>) -> ExitCode {
    if args.get(1).is_some_and(|word| word == "status") {
        return status::main(args.into_iter().skip(1).collect());
    }
    #[cfg(feature = "sshd")]
    if args.get(1).is_some_and(|word| word == postern_sshd::LOGIN_WORD) {
        return postern_sshd::login_main(args.into_iter().skip(2).collect());
    }
    let config = match cli::read(args) {
        Ok(config) => config,
        Err(code) => return code,
    };
    postern_observe::init(config.verbosity);
    postern_net::tasks::install_panic_hook();
    // Before there is any other thread: it holds for this one and those that it starts.
    #[cfg(feature = "sandbox")]
    let config = match sandboxed(config) {
        Ok(config) => config,
        Err(why) => {
            postern_observe::say(format_args!("Error : {why}"));
            return ExitCode::FAILURE;
        }
    };
    // One thread: a gateway has few cores, and an idle daemon needs none.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            postern_observe::say(format_args!("sshnpd: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    #[cfg(feature = "doctor")]
    if let Some(json) = config.doctor {
        return runtime.block_on(Box::pin(doctor::run(&config, json)));
    }
    match runtime.block_on(daemon::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            postern_observe::say(format_args!("Error : {error}"));
            ExitCode::FAILURE
        }
    }
}

/// What the daemons that run here say of themselves, in lines for people and as JSON.
#[must_use]
pub fn status_of_all() -> Vec<(Vec<String>, String)> {
    status::all()
}

/// `sshnpd.yaml` with every option in comments.
pub const CONFIG_DEFAULT: &str = config_file::DEFAULT;

/// Where `sshnpd.yaml` is looked for when no flag names it.
#[must_use]
pub fn config_path() -> std::path::PathBuf {
    config_file::usual_path()
}

/// Whether a file is as the daemon wants it.
///
/// # Errors
/// What is wrong, for a person.
pub fn config_check(path: &std::path::Path) -> Result<(), String> {
    config_file::check(path)
}

/// Runs `postern usage` with its arguments, the program name first.
pub fn usage_main(args: Vec<OsString>) -> ExitCode {
    usage::main(args)
}

/// The command line of `postern usage`, for completions.
pub fn usage_command() -> clap::Command {
    usage::command()
}

#[cfg(feature = "sandbox")]
fn sandboxed(mut config: cli::Config) -> Result<cli::Config, String> {
    // A doctor looks around, and tries the sandbox in a thread of its own.
    #[cfg(feature = "doctor")]
    if config.doctor.is_some() {
        return Ok(config);
    }
    config.got = sandbox::enter(&config)?;
    Ok(config)
}

/// The command line, for completions.
pub fn command() -> clap::Command {
    cli::command()
}
