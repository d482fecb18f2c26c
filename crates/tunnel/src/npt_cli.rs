//! Flags of `npt`, read into one checked value before anything starts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use postern_client::parse_root;
use postern_observe::{Verbosity, say};
use postern_proto::AtSign;
use postern_session::{DeviceName, Dialect, HostPort, parse_span};

use crate::forward::{Forward, Leads, Reverse};
use crate::limits::{FORWARDS, REVERSES};
use crate::relay::{NAME_A_RELAY, relay_auth, relays};
use crate::seal_cli::SealFlags;
use crate::sealed::Least;
use crate::session::Common;

/// Brings a port of a device, or one that the device can reach, to this machine.
///
/// Exit status: 0 the session ended as it should, 1 it could not be had or was interrupted.
#[derive(Parser)]
#[command(name = "npt", version, disable_help_flag = true, args_override_self = true, max_term_width = 100)]
struct Flags {
    /// Print help (-h is --remote-host).
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Our atSign.
    #[arg(short = 'f', long, value_name = "@CLIENT")]
    from: String,
    /// atSign of the device.
    #[arg(short = 't', long, value_name = "@DEVICE")]
    to: String,
    /// Name of the device.
    #[arg(short = 'd', long)]
    device: String,
    /// atSign of the relay; of several, separated by commas, the nearest is taken.
    #[arg(short = 'r', long, value_name = "@RELAY,...")]
    srvd: Option<String>,
    /// Target port.
    #[arg(short = 'p', long, alias = "rp", value_parser = clap::value_parser!(u16).range(1..),
          required_unless_present_any = ["forward", "socks", "reverse"])]
    remote_port: Option<u16>,
    /// Target host as the device sees it.
    #[arg(short = 'h', long, alias = "rh", default_value = "localhost")]
    remote_host: String,
    /// Local port; 0 chooses one.
    #[arg(short = 'l', long, alias = "lp", default_value_t = 0)]
    local_port: u16,
    /// Address to listen on, or several separated by commas of which the first that works counts; 0 or 0.0.0.0 for
    /// all.
    #[arg(long, alias = "lh", default_value = "localhost")]
    local_host: String,
    /// A further local port and its target, in the same session; may be repeated. Needs a sealed session.
    #[arg(short = 'L', long, value_name = "[LOCAL:]PORT:HOST:PORT")]
    forward: Vec<String>,
    /// The reverse: the device listens on PORT of its localhost and each connection there is joined with HOST:PORT as seen
    /// from here; may be repeated. Without -T the session then lasts until it is ended. Needs a sealed session and the
    /// device's --permit-listen.
    #[arg(short = 'R', long, value_name = "PORT:HOST:PORT")]
    reverse: Vec<String>,
    /// A local SOCKS 5 port: each connection names its target, whose name the device resolves. Needs a sealed session.
    #[arg(long, value_name = "[LOCAL:]PORT")]
    socks: Option<String>,
    /// Key file of our atSign [default: ~/.atsign/keys/@CLIENT_key.atKeys].
    #[arg(short = 'k', long, alias = "keyFile", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The atDirectory, host or host:port.
    #[arg(long, alias = "root-server", alias = "rootDomain", default_value = "root.atsign.org")]
    root_domain: String,
    /// Seconds to wait for the device to say what it can do.
    #[arg(long, alias = "dpt", value_name = "SECONDS", default_value_t = 20)]
    daemon_ping_timeout: u64,
    #[arg(long, alias = "pss", hide = true, overrides_with = "no_per_session_storage")]
    per_session_storage: bool,
    #[arg(long, alias = "no-pss", hide = true)]
    no_per_session_storage: bool,
    /// Show each step with its time and round trips.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
    /// No progress lines.
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Print the local port when connected and leave the tunnel open behind.
    #[arg(short = 'x', long)]
    exit_when_connected: bool,
    /// When the session ends, wait 5 seconds and begin again on the same port.
    #[arg(short = 'K', long)]
    keep_alive: bool,
    /// Life without connections: 30s, 1h,14m, 7d; 0 for a year.
    #[arg(short = 'T', long, value_name = "SPAN")]
    timeout: Option<String>,
    /// How often to say something on the session's first connection, so that middle boxes keep it.
    #[arg(short = 'H', long, default_value = "5m", value_name = "SPAN")]
    heartbeat: String,
    /// Encrypt what goes through the relay (on).
    #[arg(long, alias = "et", overrides_with = "no_encrypt_rvd_traffic", hide = true)]
    encrypt_rvd_traffic: bool,
    /// Do not encrypt: whoever runs the relay can read and change everything.
    #[arg(long, alias = "no-et")]
    no_encrypt_rvd_traffic: bool,
    /// How sockets prove to the relay whose they are, payload or escr [default: escr where relay and device can].
    #[arg(long, alias = "ram", value_name = "MODE")]
    relay_auth_mode: Option<String>,
    /// Go through a single port of the relay, both ends; for networks that let nothing else out.
    #[arg(long = "443")]
    only_443: bool,
    #[command(flatten)]
    seal: SealFlags,
    /// Behave as an older client, for tests of daemons: 5.6, 5.11 or current.
    #[arg(long, default_value_t = Dialect::Current, hide = true)]
    dialect: Dialect,
}

/// What `npt` is to do.
pub(crate) struct Config {
    pub(crate) common: Common,
    /// One at least, or one of `reverses`; the first is that of `-p`, if it is given.
    pub(crate) forwards: Vec<Forward>,
    /// What the device is to listen on.
    pub(crate) reverses: Vec<Reverse>,
    pub(crate) timeout: Duration,
    pub(crate) heartbeat: Duration,
    pub(crate) print_only: bool,
    pub(crate) keep_alive: bool,
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
        say(format_args!("npt: {why}\nTry npt --help."));
        ExitCode::FAILURE
    })
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn check(flags: Flags) -> Result<Config, String> {
    let at_sign = |flag: &str, text: &str| AtSign::parse(text).map_err(|error| format!("{flag} {text:?}: {error}"));
    if flags.keep_alive && flags.exit_when_connected {
        return Err("-K keeps running and -x does not: choose one".into());
    }
    let relay_auth = relay_auth(flags.relay_auth_mode.as_deref(), flags.only_443, flags.dialect)?;
    if !flags.dialect.is_v5() {
        return Err("--dialect v4: version 4 had no npt".into());
    }
    let timeout = match &flags.timeout {
        // Who listens does not know when somebody comes.
        None if !flags.reverse.is_empty() => YEAR,
        None if flags.keep_alive => KEEP_ALIVE_TIMEOUT,
        None => DEFAULT_TIMEOUT,
        Some(text) => match parse_span(text).map_err(|e| e.to_string())? {
            Duration::ZERO => YEAR,
            span => span.min(YEAR),
        },
    };
    let local_hosts: Vec<String> = flags
        .local_host
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty())
        .map(|host| match host {
            "0" => "0.0.0.0",
            // ssh and most programs try 127.0.0.1 when they are told localhost.
            "localhost" => "127.0.0.1",
            host => host,
        })
        .map(str::to_owned)
        .collect();
    if local_hosts.is_empty() {
        return Err("--local-host names no address".into());
    }
    let first = flags.remote_port.map(|port| Forward {
        local_hosts,
        local_port: flags.local_port,
        leads: Leads::To(HostPort { host: flags.remote_host.to_lowercase(), port }),
    });
    let mut forwards: Vec<Forward> = first.into_iter().collect();
    let mut sealing = flags.seal.sealing(None);
    if !flags.forward.is_empty() || flags.socks.is_some() || !flags.reverse.is_empty() {
        if flags.dialect != Dialect::Current || sealing.least == Least::NotSealed {
            return Err("-L, -R and --socks need a sealed session".into());
        }
        sealing.least = Least::Sealed;
    }
    for text in &flags.forward {
        forwards.push(Forward::parse(text)?);
    }
    if let Some(text) = &flags.socks {
        forwards.push(Forward::parse_socks(text)?);
    }
    if forwards.len() > FORWARDS {
        return Err(format!("-L: at most {FORWARDS} local ports"));
    }
    let reverses: Vec<Reverse> = flags.reverse.iter().map(|text| Reverse::parse(text)).collect::<Result<_, _>>()?;
    if reverses.len() > REVERSES {
        return Err(format!("-R: at most {REVERSES} ports"));
    }
    Ok(Config {
        common: Common {
            from: at_sign("-f", &flags.from)?,
            to: at_sign("-t", &flags.to)?,
            device: DeviceName::parse(&flags.device).map_err(|e| e.to_string())?,
            relays: relays(&flags.srvd.ok_or(NAME_A_RELAY)?)?,
            key_file: flags.key_file,
            root: parse_root(&flags.root_domain).map_err(|e| e.to_string())?,
            authenticate_client: true,
            authenticate_device: true,
            relay_auth,
            encrypt: !flags.no_encrypt_rvd_traffic,
            ping_timeout: Duration::from_secs(flags.daemon_ping_timeout.min(3600)).max(Duration::from_secs(1)),
            verbosity: Verbosity::of(flags.verbose, flags.debug),
            quiet: flags.quiet,
            dialect: flags.dialect,
            sealing,
        },
        forwards,
        reverses,
        timeout,
        heartbeat: parse_span(&flags.heartbeat).map_err(|e| format!("-H: {e}"))?.clamp(Duration::from_secs(1), YEAR),
        print_only: flags.exit_when_connected,
        keep_alive: flags.keep_alive,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Config, String> {
        let base = ["npt", "-f", "@a", "-t", "@d", "-d", "pi", "-r", "@r", "-p", "22"];
        check(Flags::try_parse_from(base.iter().chain(words)).map_err(|e| e.to_string())?)
    }

    #[test]
    fn defaults_and_spans() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.timeout, DEFAULT_TIMEOUT);
        let ssh = Leads::To(HostPort { host: "localhost".into(), port: 22 });
        assert_eq!(config.forwards.iter().map(|forward| &forward.leads).collect::<Vec<_>>(), [&ssh]);
        assert_eq!(config.common.sealing.least, Least::Legacy);
        let more = parse(&["-L", "8080:db.lan:80", "-L", "[::1]:0:a:1", "--socks", "1080"]).unwrap();
        assert_eq!((more.forwards.len(), more.common.sealing.least), (4, Least::Sealed));
        assert!(parse(&["--socks", "1080", "--dialect", "5.11"]).is_err());
        assert_eq!(parse(&["-K"]).unwrap().timeout, KEEP_ALIVE_TIMEOUT);
        assert_eq!(parse(&["-T", "0"]).unwrap().timeout, YEAR);
        assert_eq!(parse(&["-T", "1h,30m", "-h", "db.lan"]).unwrap().timeout, Duration::from_secs(5400));
        let reverse = parse(&["-R", "8080:localhost:80", "-R", "9090:a:1"]).unwrap();
        assert_eq!((reverse.reverses.len(), reverse.common.sealing.least), (2, Least::Sealed));
        assert_eq!((reverse.timeout, parse(&["-R", "1:a:1", "-T", "5s"]).unwrap().timeout.as_secs()), (YEAR, 5));
        assert!(parse(&["-R", "8080:localhost:80", "--dialect", "5.11"]).is_err());
        assert!(parse(&["-K", "-x"]).is_err());
        assert!(parse(&["-p", "0"]).is_err());
    }
}
