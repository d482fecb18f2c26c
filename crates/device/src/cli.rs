//! Flags of `sshnpd`, read into one checked value before anything starts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use postern_client::{Habits, Profile, parse_root};
use postern_crypto::SshAlgorithm;
use postern_observe::{Verbosity, say};
use postern_proto::{AtSign, ServerAddress};
use postern_session::limits::RESUME_SECONDS;
use postern_session::{DeviceName, Dialect, PermitListen, PermitOpen, parse_span};

use crate::config_file::{self, Typed};
use crate::host_keys::HostKeySource;
use crate::limits::FARTHEST;
use crate::managers::Manager;
#[cfg(feature = "sandbox")]
use crate::sandbox::Sandbox;
use crate::ssh_users::SshUsers;

/// Waits for a client's signed request and dials out to the relay; listens on nothing.
///
/// `sshnpd status` shows who is in.
///
/// Exit status: 0 stopped by a signal, 1 cannot run (arguments, keys, refused login).
#[derive(Parser)]
#[command(name = "sshnpd", version, disable_help_flag = true, args_override_self = true, max_term_width = 100)]
struct Flags {
    /// Print help (-h is --hide).
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// atSign of this device.
    #[arg(short = 'a', long = "atsign", value_name = "@DEVICE")]
    at_sign: Option<String>,
    /// YAML file with options; what is typed wins over it [default: $SSHNPD_CONFIG, or /etc/noports/sshnpd.yaml if
    /// there is one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// atSigns that may come in, separated by commas; "@bob until 2026-12-01T18:00Z" may until then. Those of the
    /// configuration file are read again when it changes, and at SIGHUP.
    #[arg(short = 'm', long, alias = "manager", value_delimiter = ',', value_name = "@CLIENT")]
    managers: Vec<String>,
    /// atSign of the policy service: it is asked about everybody who is no manager.
    #[arg(short = 'p', long, value_name = "@POLICY")]
    policy_manager: Option<String>,
    /// Name of this device.
    #[arg(short = 'd', long, default_value = "default")]
    device: String,
    /// Key file of the atSign [default: ~/.atsign/keys/@DEVICE_key.atKeys].
    #[arg(short = 'k', long, alias = "keyFile", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Add ssh public keys that managers send to ~/.ssh/authorized_keys.
    #[arg(short = 's', long, overrides_with = "no_sshpublickey")]
    sshpublickey: bool,
    #[arg(long, hide = true)]
    no_sshpublickey: bool,
    /// Do not publish user name and device information to the managers.
    #[arg(short = 'h', long)]
    hide: bool,
    #[arg(short = 'u', long = "un-hide", alias = "username", hide = true)]
    un_hide: bool,
    /// Log what happens.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
    /// The atDirectory, host or host:port.
    #[arg(long, alias = "root-server", alias = "rootDomain", default_value = "root.atsign.org")]
    root_domain: String,
    /// Device group, for policy.
    #[arg(long, alias = "dg", default_value = "__none__")]
    device_group: String,
    /// Port of the ssh server on this device.
    #[arg(long, default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    local_sshd_port: u16,
    /// Which ssh server answers on that port: system (that of this device) or builtin (one inside the daemon, which listens
    /// on nothing, wants no keys and takes sealed sessions alone).
    #[arg(long, default_value = "system", value_name = "WHICH")]
    ssh_server: SshServer,
    /// As whom a client may log in at the built-in ssh server: "@bob=pi,root"; once for each client [default: managers as the
    /// daemon's own user].
    #[arg(long, value_name = "@CLIENT=USERS")]
    ssh_users: Vec<String>,
    /// Options in front of keys that are added to authorized_keys.
    #[arg(short = 'S', long, default_value = "")]
    sshpublickey_permissions: String,
    /// What may be reached: host:port, *:port, host:* or *:*, separated by commas [default:
    /// localhost:22,localhost:3389; with --policy-manager *:*, for policy names what may be reached].
    #[arg(long, alias = "po")]
    permit_open: Option<String>,
    /// On which ports of this device's loopback clients may have it listen while their session runs (npt -R): ports and
    /// ranges, separated by commas: 8080,9000-9010 [default: none].
    #[arg(long, value_name = "PORTS")]
    permit_listen: Option<String>,
    /// What the link costs: wired (a sign of life every minute), auto (from five minutes up to 25, as the network bears;
    /// metered where the default route is a modem's), metered (from 15 minutes up to 25) or sleepy (connected for two
    /// minutes every --wake-every).
    #[arg(long, default_value = "auto", value_name = "PROFILE")]
    profile: ProfileName,
    /// Silence after which the link to the atServer is tested, always the same, whatever the profile says.
    #[arg(long, value_name = "SPAN")]
    keep_alive: Option<String>,
    /// Time between two connections with --profile sleepy.
    #[arg(long, default_value = "6h", value_name = "SPAN")]
    wake_every: String,
    /// For measurements: what happens by the clock comes so many times as often.
    #[arg(long, default_value_t = 1, hide = true, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hasten: u32,
    /// Refuse requests without a signature of the client's enrolment. One that is there is always checked.
    #[arg(long, overrides_with = "no_require_enrollment_signature")]
    require_enrollment_signature: bool,
    #[arg(long, hide = true)]
    no_require_enrollment_signature: bool,
    /// How often to look whether the enrolments of clients with live sessions were revoked, which ends these; 0 never.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    client_key_check_secs: u32,
    /// Which sessions are served: legacy (those of the programs of 2024 as well) or sealed (no others).
    #[arg(long, default_value = "legacy", value_name = "LEVEL")]
    min_security: MinSecurity,
    /// How long a sealed session waits for a connection that was lost, at most; 0 ends it with its connection.
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=i64::from(RESUME_SECONDS)))]
    resume: u32,
    /// Host keys of the device's ssh server, to be signed and shown to the managers, so that ssh need not ask: public key
    /// files, or directories with them (or Dropbear's), separated by commas; auto (OpenSSH's and Dropbear's) or off.
    #[arg(long, default_value = "auto", value_name = "PATHS")]
    ssh_host_keys: String,
    /// Believe those keys of clients alone that a person gave (postern pin accept) [env: POSTERN_STRICT_PINS=1].
    #[arg(long)]
    strict_pins: bool,
    #[arg(long, hide = true, value_parser = ["openssh", "dart"])]
    ssh_client: Option<String>,
    #[arg(long, hide = true, overrides_with = "no_strict")]
    strict: bool,
    #[arg(long, hide = true)]
    no_strict: bool,
    #[arg(long, hide = true)]
    clear_cached_pks: bool,
    #[arg(short = 'o', long, hide = true)]
    output: Option<String>,
    /// Kind of the ephemeral key for clients that rely on ssh alone: ssh-ed25519 or ssh-rsa.
    #[arg(long, default_value = "ssh-ed25519", value_parser = ["ssh-ed25519", "ssh-rsa"])]
    ssh_algorithm: String,
    /// Further options in front of ephemeral keys in authorized_keys.
    #[arg(long, alias = "ephemeral-permission", default_value = "")]
    ephemeral_permissions: String,
    /// Behave as an older daemon, for tests of clients: v4, c2024, 5.6, 5.11 or current.
    #[arg(long, default_value_t = Dialect::Current, hide = true)]
    dialect: Dialect,
    #[arg(long, hide = true)]
    storage_path: Option<PathBuf>,
    /// Give up, by Landlock and seccomp, what the daemon does not need once it runs: auto (what the kernel has), require
    /// (all of it, or it does not run) or off.
    #[cfg(feature = "sandbox")]
    #[arg(long, default_value = "auto", value_name = "HOW")]
    sandbox: Sandbox,
    /// Look for what keeps this device from being reached, say what to do, and end: 0 nothing fails, 1 something does.
    #[cfg(feature = "doctor")]
    #[arg(long)]
    doctor: bool,
    /// Print what --doctor finds as JSON.
    #[cfg(feature = "doctor")]
    #[arg(long, requires = "doctor")]
    json: bool,
    /// Old service templates leave stray empty words.
    #[arg(hide = true)]
    stray: Vec<String>,
}

/// What the link costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ProfileName {
    /// Nothing.
    Wired,
    /// A little, or much where it is a modem's.
    Auto,
    /// Much.
    Metered,
    /// So much that the device is away most of the time.
    Sleepy,
}

/// Which sessions are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum MinSecurity {
    /// Those of the programs of 2024 as well.
    Legacy,
    /// Sealed ones alone.
    Sealed,
}

/// Which ssh server answers on the ssh port of this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SshServer {
    /// What runs there.
    System,
    /// The daemon itself, without a socket.
    Builtin,
}

/// What the daemon is to do.
pub(crate) struct Config {
    pub(crate) at_sign: AtSign,
    pub(crate) managers: Vec<Manager>,
    /// Where they are written, to be read again; `None`: they were typed.
    pub(crate) managers_file: Option<PathBuf>,
    /// Asked about everybody who is no manager.
    pub(crate) policy: Option<AtSign>,
    pub(crate) device: DeviceName,
    pub(crate) device_group: String,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) accept_keys: bool,
    pub(crate) key_options: String,
    pub(crate) ephemeral_options: String,
    pub(crate) ssh_algorithm: SshAlgorithm,
    pub(crate) dialect: Dialect,
    pub(crate) hide: bool,
    pub(crate) root: ServerAddress,
    pub(crate) sshd_port: u16,
    #[cfg(feature = "sshd")]
    pub(crate) ssh_server: SshServer,
    /// As whom clients may log in at the built-in ssh server.
    #[cfg(feature = "sshd")]
    pub(crate) ssh_users: SshUsers,
    pub(crate) permit_open: PermitOpen,
    pub(crate) permit_listen: PermitListen,
    /// How the way to the atServer is kept open.
    pub(crate) habits: Habits,
    pub(crate) require_enrollment_signature: bool,
    /// `None`: enrolments are not looked at again.
    pub(crate) client_key_check: Option<Duration>,
    pub(crate) min_security: MinSecurity,
    /// How long a sealed session waits for a lost connection, at most; zero: it does not.
    pub(crate) resume: Duration,
    /// Where the host keys of the ssh server are.
    pub(crate) host_keys: HostKeySource,
    /// Only keys that a person gave count.
    pub(crate) strict_pins: bool,
    pub(crate) verbosity: Verbosity,
    #[cfg(feature = "sandbox")]
    pub(crate) sandbox: Sandbox,
    /// What was given up; `None`: nothing, or not yet.
    #[cfg(feature = "sandbox")]
    pub(crate) got: Option<postern_confine::Got>,
    /// Only look what is wrong; true: as JSON.
    #[cfg(feature = "doctor")]
    pub(crate) doctor: Option<bool>,
}

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Reads the arguments; on trouble everything has been said and the code is to be returned.
pub(crate) fn read(args: Vec<OsString>) -> Result<Config, ExitCode> {
    let parse = |args: &[OsString]| {
        Flags::try_parse_from(args).map_err(|error| {
            let _ = error.print();
            if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        })
    };
    let fail = |why: String| {
        say(format_args!("sshnpd: {why}\nTry sshnpd --help."));
        ExitCode::FAILURE
    };
    let args = tidy(args);
    let typed = parse(&args)?;
    if typed.un_hide {
        say(
            "[WARN] -u, --un-hide is deprecated, since it is now on by default. Use --hide if you want to disable device information sharing.",
        );
    }
    let written = config_file::flags(typed.config.as_deref(), Typed { managers: !typed.managers.is_empty() });
    let mut all: Vec<OsString> = args.iter().take(1).cloned().collect();
    let written = written.map_err(fail)?;
    all.extend(written.flags);
    all.extend(args.into_iter().skip(1));
    let config = check(parse(&all)?).map_err(fail)?;
    Ok(Config { managers_file: written.managers, ..config })
}

/// Whether these words make sense, as far as they go: who the daemon is and whom it lets in may be typed later.
pub(crate) fn check_words(words: Vec<OsString>) -> Result<(), String> {
    let later = ["--atsign=@device", "--managers=@manager"].map(OsString::from);
    let all = std::iter::once("sshnpd".into()).chain(later).chain(words);
    let flags = Flags::try_parse_from(all).map_err(|error| error.to_string().trim_end().to_owned())?;
    check(flags).map(drop)
}

/// Service templates of older installers glue flag and value into one word and leave empty ones.
fn tidy(args: Vec<OsString>) -> Vec<OsString> {
    let mut tidy = Vec::with_capacity(args.len());
    for arg in args {
        match arg.to_str() {
            Some("") => {}
            Some(text) if text.starts_with('-') && !text.starts_with("--") && text.contains(' ') => {
                tidy.extend(text.split(' ').filter(|w| !w.is_empty()).map(OsString::from));
            }
            _ => tidy.push(arg),
        }
    }
    tidy
}

fn check(flags: Flags) -> Result<Config, String> {
    let at_sign = |text: &str| AtSign::parse(text).map_err(|error| format!("{text:?}: {error}"));
    let policy = flags.policy_manager.as_deref().map(str::trim).filter(|name| !name.is_empty());
    let policy = policy.map(at_sign).transpose()?;
    let named = flags.managers.iter().filter(|name| !name.trim().is_empty());
    let managers: Vec<Manager> = named.map(|name| Manager::parse(name)).collect::<Result<_, _>>()?;
    if managers.is_empty() && policy.is_none() {
        return Err("say who may come in: atSigns with --managers, or a policy service with --policy-manager".into());
    }
    for (name, value) in [
        ("--sshpublickey-permissions", &flags.sshpublickey_permissions),
        ("--ephemeral-permissions", &flags.ephemeral_permissions),
    ] {
        if value.contains(|c: char| c.is_control()) {
            return Err(format!("{name} must be one line"));
        }
    }
    if flags.no_strict {
        say("[WARN] --no-strict has no meaning: the signatures of requests are always checked");
    }
    let ssh_users = SshUsers::parse(&flags.ssh_users).map_err(|why| format!("--ssh-users {why}"))?;
    match flags.ssh_server {
        SshServer::Builtin if cfg!(not(feature = "sshd")) => {
            return Err("--ssh-server builtin: this small build has none; take the full one".into());
        }
        SshServer::System if !ssh_users.is_empty() => {
            return Err("--ssh-users is for the built-in ssh server: add --ssh-server builtin".into());
        }
        _ => {}
    }
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let habits = habits(&flags)?;
    Ok(Config {
        at_sign: at_sign(flags.at_sign.as_deref().ok_or("name the atSign of this device with -a")?)?,
        managers,
        managers_file: None,
        device: DeviceName::parse(&flags.device).map_err(|e| text(&e))?,
        device_group: flags.device_group,
        key_file: flags.key_file,
        accept_keys: flags.sshpublickey && !flags.no_sshpublickey,
        key_options: flags.sshpublickey_permissions.trim().to_owned(),
        ephemeral_options: flags.ephemeral_permissions.trim_matches([' ', ',']).to_owned(),
        ssh_algorithm: if flags.ssh_algorithm == "ssh-rsa" { SshAlgorithm::Rsa } else { SshAlgorithm::Ed25519 },
        dialect: flags.dialect,
        hide: flags.hide,
        root: parse_root(&flags.root_domain).map_err(|e| text(&e))?,
        sshd_port: flags.local_sshd_port,
        #[cfg(feature = "sshd")]
        ssh_server: flags.ssh_server,
        #[cfg(feature = "sshd")]
        ssh_users,
        permit_open: match (&flags.permit_open, &policy) {
            (Some(list), _) => PermitOpen::parse(list).map_err(|e| format!("--permit-open: {e}"))?,
            (None, Some(_)) => PermitOpen::anything(),
            (None, None) => PermitOpen::default(),
        },
        policy,
        permit_listen: PermitListen::parse(flags.permit_listen.as_deref().unwrap_or_default())
            .map_err(|e| format!("--permit-listen: {e}"))?,
        habits,
        require_enrollment_signature: flags.require_enrollment_signature && !flags.no_require_enrollment_signature,
        client_key_check: (flags.client_key_check_secs > 0)
            .then(|| Duration::from_secs(flags.client_key_check_secs.into())),
        min_security: flags.min_security,
        resume: Duration::from_secs(flags.resume.into()),
        host_keys: HostKeySource::parse(&flags.ssh_host_keys),
        strict_pins: flags.strict_pins || std::env::var_os("POSTERN_STRICT_PINS").is_some_and(|set| set == "1"),
        verbosity: Verbosity::of(flags.verbose, flags.debug),
        #[cfg(feature = "sandbox")]
        sandbox: flags.sandbox,
        #[cfg(feature = "sandbox")]
        got: None,
        #[cfg(feature = "doctor")]
        doctor: flags.doctor.then_some(flags.json),
    })
}

fn habits(flags: &Flags) -> Result<Habits, String> {
    let span = |name: &str, text: &str| {
        let span = parse_span(text).map_err(|error| format!("{name}: {error}"))?;
        Ok::<_, String>(span.clamp(Duration::from_secs(1), FARTHEST))
    };
    let profile = match (&flags.keep_alive, flags.profile) {
        (Some(silence), _) => Profile::Every(span("--keep-alive", silence)?),
        (None, ProfileName::Wired) => Profile::Wired,
        (None, ProfileName::Auto) => Profile::Auto,
        (None, ProfileName::Metered) => Profile::Metered,
        (None, ProfileName::Sleepy) => Profile::Sleepy { every: span("--wake-every", &flags.wake_every)? },
    };
    let mut habits = Habits::new(profile);
    habits.hastened = flags.hasten;
    Ok(habits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("sshnpd").chain(words.iter().copied()).map(OsString::from).collect();
        check(Flags::try_parse_from(tidy(args)).map_err(|e| e.to_string())?)
    }

    #[test]
    fn flags_as_people_write_them() {
        let config = parse(&["-a", "@Dev", "-m", "@alice, @bob", "-d", "My Pi", "-su", "-v", "-h"]).unwrap();
        assert_eq!((config.at_sign.as_str(), config.device.as_str()), ("@dev", "my_pi"));
        assert_eq!(config.managers.len(), 2);
        let ends = parse(&["-a", "@d", "-m", "@alice,@bob until 2026-12-01T18:00Z"]).unwrap().managers;
        assert!(ends[0].until.is_none() && ends[1].until.is_some());
        assert!(config.accept_keys && config.hide && config.verbosity == Verbosity::Info);
        assert!(parse(&["--atsign=@d", "--manager", "@a", "--permit-open", "*:*", "--rootDomain", "h:1"]).is_ok());
    }

    #[test]
    fn a_silence_that_was_chosen_beats_the_profile() {
        let profile = |words: &[&str]| {
            let words: Vec<&str> = ["-a", "@d", "-m", "@a"].iter().chain(words).copied().collect();
            parse(&words).map(|config| config.habits.profile)
        };
        assert_eq!(profile(&[]).unwrap(), Profile::Auto);
        assert_eq!(profile(&["--profile", "wired"]).unwrap(), Profile::Wired);
        let chosen = profile(&["--profile", "metered", "--keep-alive", "30s"]).unwrap();
        assert_eq!(chosen, Profile::Every(Duration::from_secs(30)));
        let sleepy = profile(&["--profile", "sleepy", "--wake-every", "12h"]).unwrap();
        assert_eq!(sleepy, Profile::Sleepy { every: Duration::from_secs(12 * 3600) });
        assert!(profile(&["--profile", "loud"]).is_err() && profile(&["--keep-alive", "soon"]).is_err());
    }

    #[test]
    fn words_of_old_service_templates() {
        let config = parse(&["-a", "@d", "-m", "@a", "-d", "pi", "", "-s", "-u", ""]).unwrap();
        assert!(config.accept_keys);
        assert!(parse(&["-a @d", "-m @a"]).is_ok());
    }

    #[test]
    fn under_policy_the_list_is_open_unless_it_is_given() {
        let permits = |words: &[&str]| parse(words).unwrap().permit_open.to_string();
        assert_eq!(permits(&["-a", "@d", "-m", "@a"]), "localhost:22,localhost:3389");
        assert_eq!(permits(&["-a", "@d", "-p", "@Policy"]), "*:*");
        assert_eq!(permits(&["-a", "@d", "-p @policy", "--po", "localhost:22"]), "localhost:22");
        assert_eq!(parse(&["-a", "@d", "-m", "@a", "-p", "@Policy"]).unwrap().policy.unwrap().as_str(), "@policy");
    }

    #[test]
    fn nothing_is_listened_on_unless_it_is_listed() {
        assert!(parse(&["-a", "@d", "-m", "@a"]).unwrap().permit_listen.is_empty());
        let listed = parse(&["-a", "@d", "-p", "@policy", "--permit-listen", "8080,9000-9010"]).unwrap().permit_listen;
        assert_eq!(listed.to_string(), "8080,9000-9010");
        assert!(parse(&["-a", "@d", "-m", "@a", "--permit-listen", "localhost:80"]).is_err());
    }

    #[test]
    fn what_is_typed_beats_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sshnpd.yaml");
        let text = "atsign:\n  atsign: \"@dev\"\naccess:\n  managers: [\"@a\"]\n  permitopen: [\"*:80\"]\ndevice:\n  name: pi\nssh:\n  sshd-port: 2222\n";
        std::fs::write(&path, text).unwrap();
        let config = |words: &[&str]| {
            let mut all: Vec<OsString> = vec!["sshnpd".into(), "--config".into(), path.clone().into()];
            all.extend(words.iter().map(OsString::from));
            read(all).unwrap_or_else(|_| panic!("refused"))
        };
        let written = config(&[]);
        assert_eq!((written.at_sign.as_str(), written.device.as_str(), written.sshd_port), ("@dev", "pi", 2222));
        assert_eq!((written.managers.len(), written.permit_open.to_string().as_str()), (1, "*:80"));
        let typed = config(&["-m", "@b,@c", "-d", "other", "--po", "localhost:22", "--local-sshd-port", "22"]);
        assert_eq!((typed.at_sign.as_str(), typed.device.as_str(), typed.sshd_port), ("@dev", "other", 22));
        assert_eq!(typed.managers.iter().map(|m| m.at_sign.as_str()).collect::<Vec<_>>(), ["@b", "@c"]);
        assert_eq!((written.managers_file.as_deref(), typed.managers_file), (Some(path.as_path()), None));
        assert_eq!(typed.permit_open.to_string(), "localhost:22");
        std::fs::write(&path, "devise: {}\n").unwrap();
        assert!(read(vec!["sshnpd".into(), "--config".into(), path.into()]).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for words in [
            &["-a", "@d"][..],
            &["-m", "@a"],
            &["-a", "@d", "-m", "@a", "-d", "x"],
            &["-a", "@d", "-m", "a b"],
            &["-a", "@d", "-m", "@a", "--permit-open", "localhost"],
            &["-a", "@d", "-m", "@a", "-S", "a\nb"],
            &["-a", "@d", "-p", "@pol icy"],
            &["-a", "@d", "-p", ""],
            &["-a", "@d", "-m", "@a until tomorrow"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
