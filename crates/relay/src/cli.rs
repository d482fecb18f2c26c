//! Flags and configuration file of `srvd`, read into one checked value before anything starts.

mod file;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use postern_client::parse_root;
use postern_net::tls::{ServerTls, TlsError};
use postern_observe::{Verbosity, say};
use postern_proto::{AtSign, ServerAddress};
use postern_rendezvous::limits::{DETECT_WINDOW, KEY_RECHECK};
use rustix::process::Pid;

use self::file::File;
use crate::limits::{LEAST_RATE, LONGEST_DETECT_WINDOW, MANAGERS, PORT, SINGLE_PORT};

/// Joins the outbound sockets of a client and a device; sees ciphertext only.
///
/// Exit status: 0 stopped by a signal, 1 cannot run (arguments, configuration file, keys, refused login, port taken).
#[derive(Parser)]
#[command(name = "srvd", version, args_override_self = true, max_term_width = 100)]
struct Flags {
    /// atSign of this relay.
    #[arg(short = 'a', long = "atsign", value_name = "@RELAY")]
    at_sign: Option<String>,
    /// Name or address handed to clients and devices, word for word.
    #[arg(short = 'i', long = "ip", value_name = "HOST")]
    host: Option<String>,
    /// Key file of the atSign [default: ~/.atsign/keys/@RELAY_key.atKeys].
    #[arg(short = 'k', long, alias = "keyFile", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The client atSigns served, separated by commas; `open` serves everybody [default: open].
    #[arg(short = 'm', long, alias = "managers", value_name = "@CLIENT")]
    manager: Option<String>,
    /// The atDirectory, host or host:port [default: root.atsign.org].
    #[arg(long, alias = "root-server", alias = "rootDomain")]
    root_domain: Option<String>,
    /// Address that ports are bound to.
    #[arg(long, default_value = "::", value_name = "ADDRESS")]
    bind: IpAddr,
    /// The one port for sealed sessions, and for clients and devices of NoPorts that use --443; 0 takes any that is free
    /// [default: 4443, or a free one where that is taken].
    #[arg(long, value_name = "PORT")]
    bind_port: Option<u16>,
    /// Let that port be 443, which gets through most firewalls.
    #[arg(long = "443")]
    single: bool,
    /// With --443: this port instead.
    #[arg(long = "443-bind-port", value_name = "PORT")]
    single_port: Option<u16>,
    /// Let the ports speak TLS too, to those who speak it first: a PEM certificate of --ip, with its chain. Read anew every
    /// hour.
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// A further port for networks that let nothing but TLS through, such as 443; with --tls-cert.
    #[arg(long, value_name = "PORT")]
    tls_port: Option<u16>,
    /// Bytes a second that all sessions of one client's atSign may carry together, both directions [default: no bound].
    #[arg(long, value_name = "BYTES")]
    max_rate: Option<u64>,
    /// Keep a journal of sessions and refusals (who with whom, when, how many bytes), each line chained to the one before; see
    /// postern audit. Without FILE: journal/srvd.@RELAY.jsonl in the state directory of postern.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "")]
    journal: Option<PathBuf>,
    /// Milliseconds after which a socket that says nothing is asked for a proof.
    #[arg(long, value_name = "MS")]
    relay_auth_detect_window_ms: Option<u64>,
    /// Seconds after which the keys behind a session's proofs are looked at again.
    #[arg(long, value_name = "SECONDS")]
    signing_key_check_interval: Option<u64>,
    /// YAML file; what is typed wins over it [default: /etc/noports/srvd.yaml, if there is one].
    #[arg(long, env = "SRVD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log what happens.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
    /// Session traffic is ciphertext to the relay: there is nothing to snoop.
    #[arg(short = 's', long, hide = true)]
    snoop: bool,
    /// This program stores nothing; these have no effect.
    #[arg(long, hide = true, overrides_with = "no_per_session_storage")]
    per_session_storage: bool,
    #[arg(long, hide = true)]
    no_per_session_storage: bool,
    #[arg(long, hide = true)]
    storage_path: Option<PathBuf>,
    /// End when this process ends, which has started this one; how a server keeps the relay beside it.
    #[arg(long, hide = true, value_name = "PID")]
    end_with: Option<i32>,
    /// Behave as an older relay does; for tests.
    #[arg(long, hide = true, default_value = "current")]
    behave_as: Generation,
}

/// Whose habits the relay has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Generation {
    /// Lines only, comma-separated replies.
    #[value(name = "2024")]
    Y2024,
    /// One mode for both sides of a session, comma-separated replies.
    #[value(name = "5.11")]
    V5_11,
    /// Each socket its own mode, replies in JSON to who asks for them.
    #[value(name = "current")]
    Current,
}

/// The port for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// 0: any.
    pub(crate) number: u16,
    /// Somebody wants this one and no other.
    pub(crate) named: bool,
}

/// What TLS is spoken with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What the relay is to do.
pub(crate) struct Config {
    pub(crate) at_sign: AtSign,
    pub(crate) host: String,
    pub(crate) key_file: Option<PathBuf>,
    /// Empty: everybody.
    managers: Vec<AtSign>,
    pub(crate) root: ServerAddress,
    pub(crate) bind: IpAddr,
    /// None: as an old relay, without.
    pub(crate) port: Option<Port>,
    pub(crate) tls: Option<TlsFiles>,
    /// A port beside that one.
    pub(crate) tls_port: Option<u16>,
    /// Bytes in a second of one client's sessions.
    pub(crate) max_rate: Option<u64>,
    /// Empty: where it is usually kept.
    pub(crate) journal: Option<PathBuf>,
    pub(crate) detect_window: Duration,
    pub(crate) key_recheck: Duration,
    pub(crate) generation: Generation,
    pub(crate) verbosity: Verbosity,
    /// The parent whose end is ours too.
    pub(crate) end_with: Option<Pid>,
}

impl Config {
    /// Whether this client may ask for anything.
    pub(crate) fn serves(&self, client: &AtSign) -> bool {
        self.managers.is_empty() || self.managers.contains(client)
    }
}

impl TlsFiles {
    /// What the files hold now.
    pub(crate) fn read(&self) -> Result<ServerTls, TlsError> {
        ServerTls::relay_from_pem_files(&self.certificate, &self.key)
    }
}

/// The configuration file with every option in comments.
pub(crate) const CONFIG_DEFAULT: &str = file::DEFAULT;

/// Where it is looked for when no flag names it.
pub(crate) fn config_path() -> PathBuf {
    File::usual_path()
}

/// Whether a file is as the relay wants it; who it is may still be typed.
pub(crate) fn config_check(path: &Path) -> Result<(), String> {
    let file = File::find(Some(path))?;
    let flags =
        Flags::try_parse_from(["srvd", "-a", "@relay", "-i", "localhost"]).map_err(|error| error.to_string())?;
    check(flags, file).map(drop).map_err(|why| format!("{}: {why}", path.display()))
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
    let file = File::find(flags.config.as_deref());
    file.and_then(|file| check(flags, file)).map_err(|why| {
        say(format_args!("srvd: {why}\nTry srvd --help."));
        ExitCode::FAILURE
    })
}

fn check(flags: Flags, file: File) -> Result<Config, String> {
    let at_sign = |text: &str| AtSign::parse(text).map_err(|error| format!("{text:?}: {error}"));
    if flags.snoop || file.runtime.log_traffic {
        return Err("--snoop: the relay sees ciphertext only; there is nothing to log".into());
    }
    if file.atsign.passphrase.is_some() {
        return Err("the configuration file has a passphrase: encrypted key files are not supported".into());
    }
    let port = port(&flags, &file);
    let certificate = flags.tls_cert.or(file.network.tls_certificate);
    let tls = match (certificate, flags.tls_key.or(file.network.tls_key)) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
        (None, None) => None,
        _ => return Err("TLS needs both --tls-cert and --tls-key".into()),
    };
    let tls_port = flags.tls_port.or(file.network.tls_port);
    if tls_port.is_some() && tls.is_none() {
        return Err("--tls-port: name a certificate with --tls-cert and --tls-key".into());
    }
    if port.is_none() && tls.is_some() {
        return Err("--tls-cert: an older relay without --443 has no port that could speak TLS".into());
    }
    let name = flags.at_sign.or(file.atsign.atsign).ok_or("name the relay's atSign with -a")?;
    let host = flags.host.or(file.network.ip).ok_or("name the address that clients and devices dial with -i")?;
    let fits = |c: char| c.is_ascii_graphic() && c != ',';
    if host.is_empty() || !host.chars().all(fits) {
        return Err(format!("{host:?} is no host name or address; see --ip"));
    }
    let managers = match flags.manager {
        Some(typed) => typed.split(',').map(str::to_owned).collect(),
        None => file.access.managers,
    };
    let managers: Vec<&str> = managers.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
    if managers.len() > MANAGERS {
        return Err(format!("more than {MANAGERS} managers; use a policy at the devices instead"));
    }
    let managers = if managers == ["open"] { Vec::new() } else { managers };
    if managers.contains(&"open") {
        return Err("--manager: either open or names".into());
    }
    let managers = managers.into_iter().map(at_sign).collect::<Result<_, _>>()?;
    let window = flags.relay_auth_detect_window_ms.map_or(DETECT_WINDOW, Duration::from_millis);
    if window > LONGEST_DETECT_WINDOW {
        let most = LONGEST_DETECT_WINDOW.as_millis();
        return Err(format!("--relay-auth-detect-window-ms: at most {most}; a socket has to prove itself in time"));
    }
    let recheck = flags.signing_key_check_interval.map_or(KEY_RECHECK, Duration::from_secs);
    if recheck.is_zero() {
        return Err("--signing-key-check-interval: at least 1".into());
    }
    let max_rate = flags.max_rate.or(file.runtime.max_rate);
    if max_rate.is_some_and(|rate| rate < LEAST_RATE) {
        return Err(format!("--max-rate: at least {LEAST_RATE}; a terminal needs as much"));
    }
    let root = flags.root_domain.or(file.atsign.root).unwrap_or_else(|| "root.atsign.org".to_owned());
    Ok(Config {
        at_sign: at_sign(&name)?,
        host,
        key_file: flags.key_file.or(file.atsign.keys),
        managers,
        root: parse_root(&root).map_err(|e| e.to_string())?,
        bind: flags.bind,
        port,
        tls,
        tls_port,
        max_rate,
        journal: flags.journal.or(file.runtime.journal),
        detect_window: window,
        key_recheck: recheck,
        generation: flags.behave_as,
        end_with: flags.end_with.and_then(Pid::from_raw),
        verbosity: Verbosity::of(flags.verbose || file.runtime.verbose, flags.debug),
    })
}

fn port(flags: &Flags, file: &File) -> Option<Port> {
    let typed = flags.single_port.or(file.network.single_port);
    let single = flags.single || file.network.single;
    if typed.is_some() && !single {
        say("[WARN] --443-bind-port has no effect without --443");
    }
    let named = flags.bind_port.or(file.network.port);
    if single {
        if named.is_some() {
            say("[WARN] --bind-port has no effect with --443; choose the port with --443-bind-port");
        }
        return Some(Port { number: typed.unwrap_or(SINGLE_PORT), named: true });
    }
    let ours = flags.behave_as == Generation::Current;
    ours.then(|| Port { number: named.unwrap_or(PORT), named: named.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str], yaml: &str) -> Result<Config, String> {
        let args = std::iter::once("srvd").chain(words.iter().copied());
        check(Flags::try_parse_from(args).map_err(|e| e.to_string())?, File::parse(yaml)?)
    }

    const YAML: &str = "atsign:\n  atsign: \"@relay\"\n  root: localhost:6464\naccess:\n  managers: \"@a, @b\"\nnetwork:\n  ip: relay.example\n  bind-443: true\n  443-bind-port: 8443\nruntime:\n  verbose: true\n  per-session-storage: false\n  storage-path: /var/lib/srvd\n";

    #[test]
    fn the_file_says_everything_and_the_command_line_beats_it() {
        let config = parse(&[], YAML).unwrap();
        assert_eq!((config.at_sign.as_str(), config.host.as_str()), ("@relay", "relay.example"));
        let named = |number| Some(Port { number, named: true });
        assert_eq!(config.port, named(8443));
        let name = |text| AtSign::parse(text).unwrap();
        assert!(config.serves(&name("a")) && config.serves(&name("b")) && !config.serves(&name("c")));
        let config = parse(&["-a", "@other", "-i", "10.0.0.1", "-m", "open", "--443-bind-port", "9443"], YAML).unwrap();
        assert_eq!((config.at_sign.as_str(), config.host.as_str()), ("@other", "10.0.0.1"));
        assert_eq!(config.port, named(9443));
        assert!(config.serves(&name("c")));
        let list = parse(&[], "atsign: {atsign: '@r'}\nnetwork: {ip: h}\naccess: {managers: ['@a', '@b']}").unwrap();
        assert!(list.serves(&name("b")) && !list.serves(&name("c")));
    }

    #[test]
    fn defaults_of_old() {
        let config = parse(&["-a", "@r", "-i", "10.0.0.1"], "").unwrap();
        assert_eq!(config.port, Some(Port { number: 4443, named: false }));
        assert_eq!(config.detect_window, Duration::from_millis(500));
        assert_eq!(config.generation, Generation::Current);
        assert!(config.serves(&AtSign::parse("anybody").unwrap()));
        let port = |words: &[&str], yaml| {
            let words = [&["-a", "@r", "-i", "h"], words].concat();
            parse(&words, yaml).unwrap().port.map(|port| (port.number, port.named))
        };
        assert_eq!(port(&["--443"], ""), Some((443, true)));
        assert_eq!(port(&["--443-bind-port", "8443"], ""), Some((4443, false)));
        assert_eq!(port(&["--bind-port", "0"], "network: {bind-port: 5}"), Some((0, true)));
        assert_eq!(port(&[], "network: {bind-port: 5}"), Some((5, true)));
        assert_eq!(port(&["--behave-as", "5.11"], ""), None);
        assert_eq!(port(&["--behave-as", "5.11", "--443"], ""), Some((443, true)));
    }

    #[test]
    fn faults_are_told() {
        for (words, yaml) in [
            (&["-i", "h"][..], ""),
            (&["-a", "@r"], ""),
            (&["-a", "@r", "-i", "a,b"], ""),
            (&["-a", "@r", "-i", "h", "-m", "@a,open"], ""),
            (&["-a", "@r", "-i", "h", "-s"], ""),
            (&["-a", "@r", "-i", "h"], "atsign: {passphrase: x}"),
            (&["-a", "@r", "-i", "h"], "network: {bind443: true}"),
            (&["-a", "@r", "-i", "h"], "runtime: {log-traffic: true}"),
            (&["-a", "@r", "-i", "h", "--relay-auth-detect-window-ms", "60000"], ""),
            (&["-a", "@r", "-i", "h", "--tls-port", "443"], ""),
            (&["-a", "@r", "-i", "h", "--tls-cert", "c.pem"], ""),
            (&["-a", "@r", "-i", "h"], "network: {tls-cert: c.pem}"),
            (&["-a", "@r", "-i", "h", "--max-rate", "10"], ""),
            (&["-a", "@r", "-i", "h", "--signing-key-check-interval", "0"], ""),
        ] {
            assert!(parse(words, yaml).is_err(), "{words:?} {yaml:?}");
        }
    }
}
