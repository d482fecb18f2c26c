//! Flags and environment of `srv`, read into one checked value before anything starts.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use postern_link::RelayAuth;
use postern_observe::{Verbosity, say};
use postern_session::{HostPort, StreamKeys};

use crate::secrets::{Secrets, of_environment};

/// Carries one end of a relay session: between the relay and a local target, or with --bind-local-port between a local
/// port and the relay.
///
/// Secrets come in the environment: RV_AUTH; RV_AES and RV_IV, or RV_AES_C2D, RV_IV_C2D, RV_AES_D2C and RV_IV_D2C;
/// REMOTE_AUTH_ESCR_*. Writes $TMPDIR/srv.PID.log, removed after a clean end.
///
/// Exit status: 0 done, 1 arguments or environment, 200 anything else.
#[derive(Parser)]
#[command(name = "srv", version, disable_help_flag = true, args_override_self = true, max_term_width = 100)]
struct Flags {
    /// Print help (-h is --host).
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The relay.
    #[arg(short = 'h', long)]
    host: String,
    /// Its port for our side.
    #[arg(short = 'p', long, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Port of the target, or with --bind-local-port the one to listen on.
    #[arg(long, default_value_t = 22)]
    local_port: u16,
    /// Host of the target, or with --bind-local-port the address to listen on.
    #[arg(long, default_value = "localhost")]
    local_host: String,
    /// Be the client's end: listen.
    #[arg(long)]
    bind_local_port: bool,
    /// Seconds without connections after which the session is over.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Authenticate to the relay.
    #[arg(long)]
    rv_auth: bool,
    /// Encrypt.
    #[arg(long)]
    rv_e2ee: bool,
    /// Many connections, announced on a control channel.
    #[arg(long)]
    multi: bool,
    /// How to authenticate, payload or escr [default: what the environment is good for].
    #[arg(short = 'a', long, value_parser = ["payload", "escr"], value_name = "MODE")]
    relay_auth_mode: Option<String>,
    /// Seconds between signs of life on the control channel; 0 for none.
    #[arg(long, default_value_t = 1800)]
    heartbeat: u64,
}

/// What `srv` is to do.
pub(crate) struct Config {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) local: HostPort,
    pub(crate) bind: bool,
    pub(crate) multi: bool,
    pub(crate) timeout: Duration,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) auth: RelayAuth,
    pub(crate) keys: Option<StreamKeys>,
    pub(crate) verbosity: Verbosity,
}

/// A year: what "for ever" means to clients of this program.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

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
    let trace = std::env::var_os("SRV_TRACE").is_some_and(|value| value == "true");
    check(flags, of_environment(), trace).map_err(|why| {
        say(format_args!("srv: {why}\nTry srv --help."));
        ExitCode::FAILURE
    })
}

fn check(flags: Flags, secrets: Secrets, trace: bool) -> Result<Config, String> {
    let auth = if flags.rv_auth { secrets.auth(flags.relay_auth_mode.as_deref())? } else { RelayAuth::Nothing };
    let keys = if flags.rv_e2ee { Some(secrets.keys()?) } else { None };
    if !flags.bind_local_port && flags.local_port == 0 {
        return Err("--local-port: the target's port cannot be 0".into());
    }
    Ok(Config {
        host: flags.host,
        port: flags.port,
        local: HostPort { host: flags.local_host, port: flags.local_port },
        bind: flags.bind_local_port,
        multi: flags.multi,
        timeout: Duration::from_secs(flags.timeout).min(LONGEST),
        heartbeat: (flags.heartbeat > 0).then(|| Duration::from_secs(flags.heartbeat).min(LONGEST)),
        auth,
        keys,
        verbosity: if trace { Verbosity::Debug } else { Verbosity::Quiet },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::tests::secrets;

    fn parse(words: &[&str], environment: &[(&str, &str)]) -> Result<Config, String> {
        let args = ["srv", "-h", "relay.example", "-p", "4711"].iter().chain(words);
        check(Flags::try_parse_from(args).map_err(|e| e.to_string())?, secrets(environment), false)
    }

    #[test]
    fn defaults_of_old() {
        let config = parse(&[], &[]).unwrap();
        assert_eq!((config.local.to_string().as_str(), config.bind, config.multi), ("localhost:22", false, false));
        assert_eq!((config.timeout, config.heartbeat), (Duration::from_secs(60), Some(Duration::from_secs(1800))));
        assert!(matches!(config.auth, RelayAuth::Nothing) && config.keys.is_none());
    }

    #[test]
    fn what_the_environment_lacks_is_named() {
        let why = |words: &[&str], environment: &[(&str, &str)]| parse(words, environment).err().unwrap();
        assert_eq!(why(&["--rv-auth"], &[]), "--rv-auth required, but RV_AUTH is not in environment");
        assert_eq!(why(&["--rv-e2ee"], &[]), "--rv-e2ee required, but RV_AES is not in environment");
        let half = [("RV_AES", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")];
        assert_eq!(why(&["--rv-e2ee"], &half), "--rv-e2ee required, but RV_IV is not in environment");
        assert!(why(&["--rv-auth", "-a", "escr"], &[]).contains("REMOTE_AUTH_ESCR_SESSION_ID"));
        assert!(parse(&["--local-port", "0"], &[]).is_err());
        assert!(parse(&["--local-port", "0", "--bind-local-port"], &[]).is_ok());
        assert!(parse(&["-a", "other"], &[]).is_err());
    }
}
