//! Flags of `srvd`, read into one checked value before anything starts.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use postern_client::parse_root;
use postern_observe::{Verbosity, say};
use postern_proto::{AtSign, ServerAddress};

/// Joins the outbound sockets of a client and a device; sees ciphertext only.
///
/// Exit status: 0 stopped by a signal, 1 cannot run (arguments, keys, refused login).
#[derive(Parser)]
#[command(name = "srvd", version, max_term_width = 100)]
struct Flags {
    /// atSign of this relay.
    #[arg(short = 'a', long = "atsign", value_name = "@RELAY")]
    at_sign: String,
    /// Name or address handed to clients and devices, word for word.
    #[arg(short = 'i', long = "ip", value_name = "HOST")]
    host: String,
    /// Key file of the atSign [default: ~/.atsign/keys/@RELAY_key.atKeys].
    #[arg(short = 'k', long, alias = "keyFile", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The only client atSign served; `open` serves everybody.
    #[arg(short = 'm', long, default_value = "open", value_name = "@CLIENT")]
    manager: String,
    /// The atDirectory, host or host:port.
    #[arg(long, alias = "root-server", alias = "rootDomain", default_value = "root.atsign.org")]
    root_domain: String,
    /// Address that session ports are bound to.
    #[arg(long, default_value = "::", value_name = "ADDRESS")]
    bind: IpAddr,
    /// Log what happens.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
    /// Session traffic is ciphertext to the relay: there is nothing to snoop.
    #[arg(short = 's', long, hide = true)]
    snoop: bool,
}

/// What the relay is to do.
pub(crate) struct Config {
    pub(crate) at_sign: AtSign,
    pub(crate) host: String,
    pub(crate) key_file: Option<PathBuf>,
    /// `None`: everybody.
    pub(crate) only: Option<AtSign>,
    pub(crate) root: ServerAddress,
    pub(crate) bind: IpAddr,
    pub(crate) verbosity: Verbosity,
}

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Reads the arguments; on trouble everything has been said and the code is to be returned.
pub(crate) fn read(args: Vec<OsString>) -> Result<Config, ExitCode> {
    let flags = Flags::try_parse_from(args).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })?;
    check(flags).map_err(|why| {
        say(format_args!("srvd: {why}\nTry srvd --help."));
        ExitCode::FAILURE
    })
}

fn check(flags: Flags) -> Result<Config, String> {
    let at_sign = |text: &str| AtSign::parse(text).map_err(|error| format!("{text:?}: {error}"));
    if flags.snoop {
        return Err("--snoop: the relay sees ciphertext only; there is nothing to log".into());
    }
    let fits = |c: char| c.is_ascii_graphic() && c != ',';
    if flags.host.is_empty() || !flags.host.chars().all(fits) {
        return Err(format!("{:?} is no host name or address; see --ip", flags.host));
    }
    let only = match flags.manager.trim() {
        "" | "open" => None,
        name => Some(at_sign(name)?),
    };
    Ok(Config {
        at_sign: at_sign(&flags.at_sign)?,
        host: flags.host,
        key_file: flags.key_file,
        only,
        root: parse_root(&flags.root_domain).map_err(|e| e.to_string())?,
        bind: flags.bind,
        verbosity: if flags.debug {
            Verbosity::Debug
        } else if flags.verbose {
            Verbosity::Info
        } else {
            Verbosity::Quiet
        },
    })
}
