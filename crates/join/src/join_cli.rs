//! Words of `postern join` and `postern leave`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use postern_identity::DeviceName;
use postern_observe::Verbosity;
use postern_session::parse_span;

use crate::place::Wishes;
use crate::{join, leave, read};

/// Makes this machine the device that an invitation speaks of: keys made here, manager pinned, configuration written,
/// service started.
///
/// Interrupted, it is run again with the same line and goes on. A key file or configuration that is there already is never
/// overwritten.
///
/// Exit status: 0 joined (or it was already), 1 it could not be done now (network, disk, rights, service): mend that and
/// run it again, 2 wrong usage or a mistyped line, 3 the invitation is used, expired, cancelled or refused: ask for
/// another, 4 other keys or another configuration are here already, 5 the server is not the one that the invitation speaks
/// of, or has changed what passed through it.
#[derive(Parser)]
#[command(name = "join", version, max_term_width = 100)]
pub(crate) struct JoinFlags {
    /// The invitation: postern1:…; `-` reads it from standard input [env: POSTERN_JOIN].
    #[arg(value_name = "LINE")]
    pub(crate) line: Option<String>,
    /// A file with an invitation, or with those of a batch, of which one that is still good is taken. Once this machine
    /// has joined, the file is removed [env: POSTERN_JOIN_FILE].
    #[arg(long, value_name = "FILE", conflicts_with = "line")]
    pub(crate) file: Option<PathBuf>,
    /// Starts the daemon by the manager of services that there is, by none, or by this one.
    #[arg(long, default_value = "auto", value_name = "KIND")]
    pub(crate) service: Service,
    /// Go on as the daemon when all is done.
    #[arg(long)]
    pub(crate) run: bool,
    #[command(flatten)]
    pub(crate) wishes: WishFlags,
    /// Port of the ssh server on this device.
    #[arg(long, default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) sshd_port: u16,
    /// Where the public host keys of that ssh server are, if not in the usual places.
    #[arg(long, value_name = "PATHS")]
    pub(crate) ssh_host_keys: Option<String>,
    /// What may be reached beside the ssh server, as host:port; several times or separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    pub(crate) permit_open: Vec<String>,
    /// Take ssh keys that the manager sends (ssh-copy-id is not needed then).
    #[arg(short = 's', long)]
    pub(crate) sshpublickey: bool,
    /// For how long a network that is not there yet is waited for.
    #[arg(long, default_value = "60s", value_name = "SPAN", value_parser = span)]
    pub(crate) patience: Duration,
    /// Log what happens.
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,
    /// Log every decision.
    #[arg(long)]
    pub(crate) debug: bool,
}

/// Undoes `postern join`: stops the service, gives the enrolment back, removes the keys and the configuration that `join`
/// wrote, and says what stays.
///
/// Exit status: 0 done, 1 something could not be done (it says what), 2 wrong usage, 4 this machine has not joined.
#[derive(Parser)]
#[command(name = "leave", version, max_term_width = 100)]
pub(crate) struct LeaveFlags {
    /// The device's name, where this machine has joined several times.
    #[arg(value_name = "NAME", value_parser = name)]
    pub(crate) name: Option<DeviceName>,
    /// Do not talk to the server: it is gone, or not to be told.
    #[arg(long)]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) wishes: WishFlags,
    /// Log what happens.
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,
}

#[derive(Args)]
pub(crate) struct WishFlags {
    /// Home of the daemon: keys, pins and configuration go there, and to its owner [default: that of the service's user;
    /// without a service, one's own].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The daemon's configuration [default: /etc/noports/sshnpd.yaml for root, DIR/sshnpd.yaml with --dir,
    /// otherwise ~/.config/postern/sshnpd.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The key file [default: ~/.atsign/keys/@DEVICE_key.atKeys].
    #[arg(short = 'k', long = "keys", value_name = "FILE")]
    keys: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// Whichever there is.
    Auto,
    /// None.
    None,
    /// systemd.
    Systemd,
    /// OpenWrt's.
    Procd,
}

impl WishFlags {
    pub(crate) fn wishes(&self) -> Wishes {
        Wishes { dir: self.dir.clone(), config: self.config.clone(), keys: self.keys.clone() }
    }
}

fn span(text: &str) -> Result<Duration, String> {
    parse_span(text).map_err(|error| error.to_string())
}

fn name(text: &str) -> Result<DeviceName, String> {
    DeviceName::parse(text).map_err(|error| error.to_string())
}

/// Runs `postern join` with its arguments, the program name first.
pub fn join_main(args: Vec<OsString>) -> ExitCode {
    let flags: JoinFlags = match read(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    postern_observe::init(Verbosity::of(flags.verbose, flags.debug));
    let code = crate::run("join", join::run(&flags));
    if flags.run && code == ExitCode::SUCCESS { join::become_daemon(&flags) } else { code }
}

/// Runs `postern leave` with its arguments, the program name first.
pub fn leave_main(args: Vec<OsString>) -> ExitCode {
    let flags: LeaveFlags = match read(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    postern_observe::init(Verbosity::of(flags.verbose, false));
    crate::run("leave", leave::run(&flags))
}

/// The command line of `join`, for completions.
pub fn join_command() -> clap::Command {
    <JoinFlags as clap::CommandFactory>::command()
}

/// The command line of `leave`, for completions.
pub fn leave_command() -> clap::Command {
    <LeaveFlags as clap::CommandFactory>::command()
}
