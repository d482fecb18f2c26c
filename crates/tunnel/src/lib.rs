//! The clients: `sshnp` runs ssh into a device, `npt` brings one of its ports here, `connect` serves ssh, scp, git and Ansible
//! as their ProxyCommand.

mod agent;
mod arrival;
mod choose;
mod connect;
mod connect_cli;
mod detach;
mod devices;
#[cfg(feature = "doctor")]
mod doctor;
mod doors;
mod env_file;
mod forward;
mod host_keys;
mod hosts;
mod journal;
mod known_hosts;
mod legacy;
mod limits;
mod names;
mod npt;
mod npt_cli;
mod offline;
mod refusal;
mod relay;
mod reverse;
mod seal_cli;
mod sealed;
mod session;
mod socks;
mod ssh;
mod ssh_config;
mod ssh_tunnel;
mod sshnp;
mod sshnp_cli;
mod stdio;
mod steps;
mod trouble;

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use postern_observe::say;

pub use names::KnownNames;
use sshnp_cli::Work;
pub(crate) use trouble::Trouble;

/// Runs `sshnp` with its arguments, the program name first.
pub fn sshnp_main(args: Vec<OsString>) -> ExitCode {
    match sshnp_cli::read(args.clone()) {
        Ok(Work::Session(config)) => run("sshnp", config.common.verbosity, sshnp::run(*config, args)),
        Ok(Work::List(listing)) => run("sshnp", listing.verbosity, devices::run(listing)),
        Err(code) => code,
    }
}

/// Runs `npt` with its arguments, the program name first.
pub fn npt_main(args: Vec<OsString>) -> ExitCode {
    match npt_cli::read(args.clone()) {
        Ok(config) => run("npt", config.common.verbosity, npt::run(config, args)),
        Err(code) => code,
    }
}

/// Runs `connect` with its arguments, the program name first.
pub fn connect_main(args: Vec<OsString>) -> ExitCode {
    match connect_cli::read(args) {
        Ok(config) => run("connect", config.verbosity, async { Ok(connect::run(config).await) }),
        Err(code) => code,
    }
}

/// Runs `agent` with its arguments, the program name first.
pub fn agent_main(args: Vec<OsString>) -> ExitCode {
    agent::main(args)
}

/// Runs `hostkeys` with its arguments, the program name first.
pub fn hostkeys_main(args: Vec<OsString>) -> ExitCode {
    connect_cli::hostkeys(args)
}

/// Runs `known-hosts` with its arguments, the program name first.
pub fn known_hosts_main(args: Vec<OsString>) -> ExitCode {
    match known_hosts::read(args) {
        Ok(flags) => run("known-hosts", flags.verbosity(), known_hosts::run(flags)),
        Err(code) => code,
    }
}

/// Runs `ssh-config` with its arguments, the program name first.
pub fn ssh_config_main(args: Vec<OsString>) -> ExitCode {
    ssh_config::main(args)
}

/// Runs `doctor client` with its arguments, the program name first.
#[cfg(feature = "doctor")]
pub fn doctor_main(args: Vec<OsString>) -> ExitCode {
    doctor::main(args)
}

fn run(
    name: &str,
    verbosity: postern_observe::Verbosity,
    work: impl Future<Output = Result<ExitCode, Trouble>>,
) -> ExitCode {
    postern_observe::init(verbosity);
    postern_net::tasks::install_panic_hook();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format_args!("{name}: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(work);
    // A key that is still being made must not keep the user waiting.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|trouble| {
        say(format_args!("\nError : {trouble}"));
        ExitCode::FAILURE
    })
}

/// What the agent of this user says of itself, in lines for people and as JSON; `None`: there is none.
#[must_use]
pub fn agent_status() -> Option<(Vec<String>, String)> {
    agent::status()
}

/// `config.yaml` with every option in comments.
pub const CONFIG_DEFAULT: &str = hosts::DEFAULT;

/// Where `config.yaml` is looked for when no flag names it.
#[must_use]
pub fn config_path() -> std::path::PathBuf {
    hosts::Hosts::path(None)
}

/// Whether a file is as the clients want it.
///
/// # Errors
/// What is wrong, for a person.
pub fn config_check(path: &std::path::Path) -> Result<(), String> {
    hosts::Hosts::read(Some(path)).map(drop).map_err(|error| error.to_string())
}

/// The command line, for completions.
pub fn sshnp_command() -> clap::Command {
    sshnp_cli::command()
}

/// The command line, for completions.
pub fn npt_command() -> clap::Command {
    npt_cli::command()
}

/// The command line, for completions.
pub fn connect_command() -> clap::Command {
    connect_cli::connect_command()
}

/// The command line, for completions.
pub fn hostkeys_command() -> clap::Command {
    connect_cli::hostkeys_command()
}

/// The command line, for completions.
pub fn known_hosts_command() -> clap::Command {
    known_hosts::command()
}

/// The command line, for completions.
pub fn ssh_config_command() -> clap::Command {
    ssh_config::command()
}

/// The command line, for completions.
pub fn agent_command() -> clap::Command {
    agent::command()
}
