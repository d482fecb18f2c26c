//! Flags of `sshnp`, read into one checked value before anything starts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use postern_client::parse_root;
use postern_observe::{Verbosity, say};
use postern_proto::AtSign;
use postern_session::{DeviceName, Dialect, parse_span};

use crate::devices::Listing;
use crate::env_file;
use crate::limits::PING;
use crate::relay::{NAME_A_RELAY, relay_auth, relays};
use crate::seal_cli::SealFlags;
use crate::session::{Common, is_user_name};
use crate::ssh::SshOptions;
use crate::ssh_tunnel::TunnelOptions;

/// Opens ssh to a device that has no open port.
///
/// Exit status: that of ssh; 1 when there was no session.
#[derive(Parser)]
#[command(name = "sshnp", version, disable_help_flag = true, args_override_self = true, max_term_width = 100)]
struct Flags {
    /// Print help (-h is the old spelling of -r).
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Our atSign.
    #[arg(short = 'f', long, value_name = "@CLIENT")]
    from: Option<String>,
    /// atSign of the device.
    #[arg(short = 't', long, value_name = "@DEVICE", default_value = "")]
    to: String,
    /// Name of the device.
    #[arg(short = 'd', long)]
    device: Option<String>,
    /// atSign of the relay; of several, separated by commas, the nearest is taken.
    #[arg(short = 'r', long, value_name = "@RELAY,...")]
    srvd: Option<String>,
    #[arg(short = 'h', long, hide = true)]
    host: Option<String>,
    /// Key file of our atSign [default: ~/.atsign/keys/@CLIENT_key.atKeys].
    #[arg(short = 'k', long, alias = "keyFile", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Local end of the tunnel; 0 chooses one.
    #[arg(short = 'l', long, default_value_t = 0)]
    local_port: u16,
    /// ssh private key.
    #[arg(short = 'i', long, value_name = "FILE")]
    identity_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    identity_passphrase: Option<String>,
    /// Send the public half of -i to the device.
    #[arg(short = 's', long)]
    send_ssh_public_key: bool,
    /// Further words for ssh, such as '-L 8080:localhost:80'; may be repeated.
    #[arg(short = 'o', long, value_name = "WORDS", allow_hyphen_values = true, action = clap::ArgAction::Append)]
    local_ssh_options: Vec<String>,
    /// Show each step with its time and round trips.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
    /// Login on the device [default: what the device says].
    #[arg(short = 'u', long, value_name = "USER")]
    remote_user_name: Option<String>,
    /// Login of the ssh tunnel that --no-encrypt-rvd-traffic needs [default: as -u].
    #[arg(short = 'U', long, value_name = "USER")]
    tunnel_user_name: Option<String>,
    /// The atDirectory, host or host:port.
    #[arg(long, alias = "root-server", alias = "rootDomain", default_value = "root.atsign.org")]
    root_domain: String,
    /// Port of the ssh server as the ssh tunnel of --no-encrypt-rvd-traffic sees it.
    #[arg(long, default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    remote_sshd_port: u16,
    /// Time for which that tunnel stays without a connection.
    #[arg(long, default_value = "15s", value_name = "SPAN")]
    idle_timeout: String,
    /// Kind of keys; the device decides.
    #[arg(long, default_value = "ssh-ed25519", value_parser = ["ssh-ed25519", "ssh-rsa"], hide = true)]
    ssh_algorithm: String,
    /// Give the words of -o to that tunnel instead of the user's ssh.
    #[arg(long)]
    add_forwards_to_tunnel: bool,
    /// Behave as an older client, for tests of daemons: v4, 5.6, 5.11 or current.
    #[arg(long, default_value_t = Dialect::Current, hide = true)]
    dialect: Dialect,
    /// Profile of KEY=VALUE lines; what is typed wins over it.
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// List the devices that tell us of themselves, and which of them answer; with -t and -d, those only.
    #[arg(long, alias = "ls")]
    list_devices: bool,
    /// With --list-devices: JSON on stdout.
    #[arg(long)]
    json: bool,
    /// Authenticate our sockets to the relay (on).
    #[arg(long, alias = "ac", overrides_with = "no_authenticate_client_to_rvd", hide = true)]
    authenticate_client_to_rvd: bool,
    /// Do not authenticate our sockets to the relay.
    #[arg(long, alias = "no-ac")]
    no_authenticate_client_to_rvd: bool,
    /// Authenticate the device's sockets to the relay (on).
    #[arg(long, alias = "ad", overrides_with = "no_authenticate_device_to_rvd", hide = true)]
    authenticate_device_to_rvd: bool,
    /// Do not authenticate the device's sockets to the relay.
    #[arg(long, alias = "no-ad")]
    no_authenticate_device_to_rvd: bool,
    /// Encrypt what goes through the relay (on).
    #[arg(long, alias = "et", overrides_with = "no_encrypt_rvd_traffic", hide = true)]
    encrypt_rvd_traffic: bool,
    /// Rely on ssh alone for encryption.
    #[arg(long, alias = "no-et")]
    no_encrypt_rvd_traffic: bool,
    /// Seconds to wait for the device to say what it can do.
    #[arg(long, alias = "dpt", value_name = "SECONDS", default_value_t = 20)]
    daemon_ping_timeout: u64,
    /// openssh, or dart: the installed OpenSSH as well, with -i and a keep-alive of 15 s.
    #[arg(long, default_value = "openssh", value_parser = ["openssh", "dart"], value_name = "NAME")]
    ssh_client: String,
    /// How sockets prove to the relay whose they are, payload or escr [default: escr where relay and device can].
    #[arg(long, alias = "ram", value_name = "MODE")]
    relay_auth_mode: Option<String>,
    /// Go through a single port of the relay, both ends; for networks that let nothing else out.
    #[arg(long = "443")]
    only_443: bool,
    #[command(flatten)]
    seal: SealFlags,
    /// Print the ssh command instead of running it; the tunnel stays open behind it.
    #[arg(short = 'x', long)]
    output_execution_command: bool,
    /// No progress lines.
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Command to run on the device, after --.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What `sshnp` is to do.
pub(crate) enum Work {
    /// A session.
    Session(Box<Config>),
    /// No session, but a list.
    List(Listing),
}

/// The session that is asked for.
pub(crate) struct Config {
    pub(crate) common: Common,
    pub(crate) local_port: u16,
    pub(crate) user: Option<String>,
    pub(crate) tunnel: TunnelOptions,
    pub(crate) push_key: bool,
    pub(crate) ssh: SshOptions,
    pub(crate) print_only: bool,
}

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Reads the arguments; on trouble everything has been said and the code is to be returned.
pub(crate) fn read(args: Vec<OsString>) -> Result<Work, ExitCode> {
    let parse = |args: &[OsString]| {
        Flags::try_parse_from(args).map_err(|error| {
            let _ = error.print();
            if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        })
    };
    let fail = |why: String| {
        say(format_args!("sshnp: {why}\nTry sshnp --help."));
        ExitCode::FAILURE
    };
    let mut flags = parse(&args)?;
    if let Some(path) = &flags.config_file {
        let mut with_profile: Vec<OsString> = args.iter().take(1).cloned().collect();
        with_profile.extend(env_file::read(path).map_err(fail)?);
        with_profile.extend(args.iter().skip(1).cloned());
        flags = parse(&with_profile)?;
    }
    if flags.list_devices {
        return check_listing(flags).map(Work::List).map_err(fail);
    }
    check(flags).map(|config| Work::Session(Box::new(config))).map_err(fail)
}

fn check_listing(flags: Flags) -> Result<Listing, String> {
    let from = flags.from.as_deref().ok_or("name our atSign with -f")?;
    Ok(Listing {
        from: at_sign("-f", from)?,
        to: Some(flags.to).filter(|to| !to.trim().is_empty()).map(|to| at_sign("-t", &to)).transpose()?,
        device: flags.device.map(|name| DeviceName::parse(&name)).transpose().map_err(|e| e.to_string())?,
        key_file: flags.key_file,
        root: parse_root(&flags.root_domain).map_err(|e| e.to_string())?,
        verbosity: Verbosity::of(flags.verbose, flags.debug),
        json: flags.json,
    })
}

fn at_sign(flag: &str, text: &str) -> Result<AtSign, String> {
    AtSign::parse(text).map_err(|error| format!("{flag} {text:?}: {error}"))
}

fn check(flags: Flags) -> Result<Config, String> {
    if flags.json {
        return Err("--json is for --list-devices".into());
    }
    let keep_alive = flags.ssh_client == "dart";
    if keep_alive && flags.identity_file.is_none() {
        return Err("--ssh-client dart needs an ssh private key: name it with -i".into());
    }
    if flags.identity_passphrase.is_some() {
        say("[WARN] --identity-passphrase is not used: ssh asks for it itself, or takes the key from ssh-agent");
    }
    let relay_auth = relay_auth(flags.relay_auth_mode.as_deref(), flags.only_443, flags.dialect)?;
    let from = flags.from.as_deref().ok_or("name our atSign with -f")?;
    if flags.to.is_empty() {
        return Err("name the atSign of the device with -t".into());
    }
    let relay = flags.srvd.or(flags.host).ok_or(NAME_A_RELAY)?;
    let device = match &flags.device {
        Some(name) => DeviceName::parse(name),
        None => {
            say("Warning: Using default value of \"default\" for optional arg \"--device\". Name the device with -d.");
            DeviceName::parse("default")
        }
    };
    let user = |flag: &str, name: Option<String>| {
        let name = name.filter(|name| !name.trim().is_empty());
        match name {
            Some(name) if !is_user_name(&name) => Err(format!("{flag} {name:?} is no user name")),
            name => Ok(name),
        }
    };
    let is_v5 = flags.dialect.is_v5();
    if flags.send_ssh_public_key && flags.identity_file.is_none() {
        say("[WARN] -s has nothing to send without -i");
    }
    Ok(Config {
        common: Common {
            from: at_sign("-f", from)?,
            to: at_sign("-t", &flags.to)?,
            device: device.map_err(|e| e.to_string())?,
            relays: relays(&relay)?,
            key_file: flags.key_file,
            root: parse_root(&flags.root_domain).map_err(|e| e.to_string())?,
            authenticate_client: is_v5 && !flags.no_authenticate_client_to_rvd,
            authenticate_device: is_v5 && !flags.no_authenticate_device_to_rvd,
            relay_auth,
            encrypt: is_v5 && !flags.no_encrypt_rvd_traffic,
            ping_timeout: Duration::from_secs(flags.daemon_ping_timeout.min(3600)).max(Duration::from_secs(1)),
            verbosity: Verbosity::of(flags.verbose, flags.debug),
            quiet: flags.quiet,
            dialect: flags.dialect,
            sealing: flags.seal.sealing(None),
        },
        local_port: flags.local_port,
        user: user("-u", flags.remote_user_name)?,
        tunnel: TunnelOptions {
            user: user("-U", flags.tunnel_user_name)?,
            remote_sshd_port: flags.remote_sshd_port,
            idle: parse_span(&flags.idle_timeout).map_err(|e| format!("--idle-timeout: {e}"))?,
            takes_words: flags.add_forwards_to_tunnel,
        },
        push_key: flags.send_ssh_public_key,
        ssh: SshOptions {
            identity: flags.identity_file,
            extra: flags.local_ssh_options,
            command: flags.command,
            keep_alive,
            host_keys: None,
        },
        print_only: flags.output_execution_command,
    })
}

const _: () = assert!(PING.as_secs() == 20, "the default of --daemon-ping-timeout");

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("sshnp").chain(words.iter().copied());
        check(Flags::try_parse_from(args).map_err(|e| e.to_string())?)
    }

    #[test]
    fn flags_as_people_write_them() {
        let c = parse(&[
            "-f", "@a", "-t", "@d", "-d", "pi", "-h", "@bad", "-r", "@good", "-sxi", "/k", "--no-ad", "--no-et", "-o",
            "-L 1:a:2", "--", "uptime",
        ])
        .unwrap();
        assert_eq!(c.common.relays, [AtSign::parse("good").unwrap()]);
        assert!(c.push_key && c.print_only && !c.common.authenticate_device && !c.common.encrypt);
        assert!(c.common.authenticate_client);
        assert_eq!((c.ssh.extra, c.ssh.command), (vec!["-L 1:a:2".to_owned()], vec!["uptime".to_owned()]));
    }

    #[test]
    fn the_last_of_a_switch_counts_and_old_spellings_hold() {
        assert!(parse(&["-f", "@a", "-t", "@d", "--host", "@r", "--no-et", "--et"]).unwrap().common.encrypt);
        for bad in [
            &["-t", "@d", "-r", "@r"][..],
            &["-f", "@a", "-r", "@r"],
            &["-f", "@a", "-t", "@d"],
            &["-f", "@a", "-t", "@d", "-r", "@r", "-u", "-oProxyCommand=x"],
            &["-f", "@a", "-t", "@d", "-r", "@r", "extra"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
