//! Flags of `connect` and `hostkeys`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use postern_observe::{Verbosity, print};

use crate::agent::Manner;
use crate::host_keys;
use crate::hosts::Hosts;
use crate::seal_cli::SealFlags;

/// Joins standard input and output with a port of a device. Made to be ssh's ProxyCommand: `postern ssh-config --install`
/// writes it there.
///
/// HOST is a device's name, with or without .np: gw-17 is that device of the atSign that `to` in the configuration file
/// names, gw-17.site that of @site. PORT 22 is the device's ssh server; any other is a port of the device's own that it
/// permits. A refusal is told in the ssh protocol, so that ssh and Ansible show its reason.
///
/// Exit status: 0 the connection ended, 255 it could not be had or was lost.
#[derive(Parser)]
#[command(name = "connect", version, max_term_width = 100)]
struct ConnectFlags {
    /// Use standard input and output (there is no other way).
    #[arg(long)]
    stdio: bool,
    /// What speaks over us is not ssh: refusals go to standard error alone.
    #[arg(long)]
    raw: bool,
    /// Configuration file [default: $POSTERN_CONFIG, or postern/config.yaml in $XDG_CONFIG_HOME or ~/.config].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show each step with its time and round trips.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
    /// Let the agent keep login and session warm for the next connection (`postern agent`): auto starts it, off goes without
    /// [default: what the configuration file says of agent, else off].
    #[arg(long, value_name = "MANNER")]
    agent: Option<Manner>,
    #[command(flatten)]
    seal: SealFlags,
    /// The device.
    host: String,
    /// The port.
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
}

/// Prints the host keys of a device as lines of known_hosts: those that the configuration file names for it, or else those
/// that the device signed in its last sealed session. Made to be ssh's KnownHostsCommand: it asks nobody, and prints nothing
/// for names that are not ours.
///
/// Exit status: 0, also for unknown names; 1 the configuration file is wrong.
#[derive(Parser)]
#[command(name = "hostkeys", version, max_term_width = 100)]
struct HostkeysFlags {
    /// Configuration file [default: as for connect].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The host as ssh asks for it (%H).
    host: String,
}

/// What `connect` is to do.
pub(crate) struct Config {
    pub(crate) file: Option<PathBuf>,
    pub(crate) speaks_ssh: bool,
    pub(crate) verbosity: Verbosity,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) seal: SealFlags,
    pub(crate) agent: Option<Manner>,
}

/// As ssh's own: something went wrong on the way.
pub(crate) const FAILED: u8 = 255;

/// The command line, for completions.
pub(crate) fn connect_command() -> clap::Command {
    <ConnectFlags as clap::CommandFactory>::command()
}

/// The command line, for completions.
pub(crate) fn hostkeys_command() -> clap::Command {
    <HostkeysFlags as clap::CommandFactory>::command()
}

/// Reads the arguments; on trouble everything has been said and the code is to be returned.
pub(crate) fn read(args: Vec<OsString>) -> Result<Config, ExitCode> {
    let flags = ConnectFlags::try_parse_from(args).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
    })?;
    Ok(Config {
        file: flags.config,
        speaks_ssh: !flags.raw,
        verbosity: Verbosity::of(flags.verbose, flags.debug),
        host: flags.host,
        port: flags.port,
        seal: flags.seal,
        agent: flags.agent,
    })
}

/// The whole of `hostkeys`.
pub(crate) fn hostkeys(args: Vec<OsString>) -> ExitCode {
    let flags = match HostkeysFlags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match Hosts::read(flags.config.as_deref()) {
        Ok(hosts) => {
            host_keys::lines(&flags.host, &hosts).iter().for_each(print);
            ExitCode::SUCCESS
        }
        Err(error) => {
            postern_observe::say(format_args!("hostkeys: {error}"));
            ExitCode::FAILURE
        }
    }
}
