//! `sshnpd.yaml`: the daemon's options in a file, for packages and services. What is typed beats what is written.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use postern_config::ConfigError;
use postern_observe::say;
use serde::Deserialize;

/// Where packages put it.
const STANDARD: &str = "/etc/noports/sshnpd.yaml";
/// Names another place.
const VARIABLE: &str = "SSHNPD_CONFIG";

/// The whole file. Source: NoPorts command lines, sshnpd, YAML.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct File {
    atsign: AtSign,
    access: Access,
    device: Device,
    ssh: Ssh,
    runtime: Runtime,
}

/// Who the daemon is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AtSign {
    atsign: Option<String>,
    keys: Option<PathBuf>,
    passphrase: Option<String>,
    root: Option<String>,
}

/// Who may come in, and how far.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Access {
    managers: Vec<String>,
    policy: Option<String>,
    permitopen: Vec<String>,
    #[serde(rename = "require-enrollment-signature")]
    require_enrollment_signature: Option<bool>,
    #[serde(rename = "client-key-check-secs")]
    client_key_check_secs: Option<u64>,
    /// Ours alone, as what follows.
    #[serde(rename = "min-security")]
    min_security: Option<String>,
    permitlisten: Vec<String>,
    #[serde(rename = "strict-pins")]
    strict_pins: Option<bool>,
}

/// What it is called.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Device {
    name: Option<String>,
    group: Option<String>,
    hide: Option<bool>,
}

/// Its ssh server.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Ssh {
    add_publickeys: Option<bool>,
    #[serde(alias = "client")]
    ssh_client: Option<String>,
    sshd_port: Option<u16>,
    publickey_permissions: Option<String>,
    ephemeral_permissions: Option<String>,
    algorithm: Option<String>,
    /// Ours alone, as what follows.
    host_keys: Option<String>,
    server: Option<String>,
    users: BTreeMap<String, Vec<String>>,
}

/// How it runs.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Runtime {
    storage_path: Option<PathBuf>,
    clear_cached_pks: Option<bool>,
    strict: Option<bool>,
    verbose: Option<bool>,
    /// Ours alone, in seconds.
    resume: Option<u32>,
    /// Ours alone: what the link costs.
    profile: Option<String>,
    /// Ours alone, as what follows: a span like `30s`.
    keep_alive: Option<String>,
    wake_every: Option<String>,
    /// Ours alone.
    sandbox: Option<String>,
}

/// What was typed that adds up instead of replacing, so that the file must not say it again.
#[derive(Clone, Copy, Default)]
pub(crate) struct Typed {
    pub(crate) managers: bool,
}

/// What a file says.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) flags: Vec<OsString>,
    /// The file, if the managers are those that it names.
    pub(crate) managers: Option<PathBuf>,
}

fn from_variable() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Where the file is when no flag names it.
pub(crate) fn usual_path() -> PathBuf {
    from_variable().unwrap_or_else(|| STANDARD.into())
}

/// The file that is named, or the standard one if there is one, as flags to stand in front of those typed.
///
/// # Errors
/// A file that is named is not there; a file is not as it should be, with line and column.
pub(crate) fn flags(named: Option<&Path>, typed: Typed) -> Result<Written, String> {
    let from_variable = from_variable();
    let wanted = named.map(Path::to_owned).or(from_variable);
    let path = wanted.clone().unwrap_or_else(|| STANDARD.into());
    match postern_config::read::<File>(&path) {
        Ok(Some(file)) => {
            let names_managers = !typed.managers && !file.access.managers.is_empty();
            Ok(Written { flags: file.flags(typed), managers: names_managers.then_some(path) })
        }
        Ok(None) if wanted.is_some() => Err(format!("there is no configuration file {}", path.display())),
        Ok(None) => Ok(Written::default()),
        // Nobody asked for it and we may not look: a daemon that is run by hand.
        Err(ConfigError::Read(..)) if wanted.is_none() => Ok(Written::default()),
        Err(error) => Err(error.to_string()),
    }
}

/// The file with every option in comments.
pub(crate) const DEFAULT: &str = include_str!("config_default.yaml");

/// Whether a file is as the daemon wants it; who it is and whom it lets in may still be typed.
///
/// # Errors
/// With line and column, or with the option that makes no sense.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    let file = postern_config::read::<File>(path).map_err(|error| error.to_string())?;
    let file = file.ok_or_else(|| format!("there is no file {}", path.display()))?;
    crate::cli::check_words(file.flags(Typed::default())).map_err(|why| format!("{}: {why}", path.display()))
}

/// The managers that a file names now.
///
/// # Errors
/// It is gone, or not as it should be.
pub(crate) fn managers(path: &Path) -> Result<Vec<String>, String> {
    match postern_config::read::<File>(path) {
        Ok(Some(file)) => Ok(file.access.managers),
        Ok(None) => Err(format!("there is no configuration file {}", path.display())),
        Err(error) => Err(error.to_string()),
    }
}

impl File {
    fn flags(self, typed: Typed) -> Vec<OsString> {
        let Self { atsign, access, device, ssh, runtime } = self;
        let mut flags: Vec<OsString> = Vec::new();
        let mut value = |name: &str, value: Option<String>| {
            flags.extend(value.filter(|v| !v.trim().is_empty()).map(|v| format!("--{name}={}", v.trim()).into()));
        };
        value("atsign", atsign.atsign);
        value("root-domain", atsign.root);
        if !typed.managers {
            value("managers", Some(access.managers.join(",")));
        }
        value("policy-manager", access.policy);
        value("permit-open", Some(access.permitopen.join(",")));
        value("permit-listen", Some(access.permitlisten.join(",")));
        value("client-key-check-secs", access.client_key_check_secs.map(|secs| secs.to_string()));
        value("min-security", access.min_security);
        value("resume", runtime.resume.map(|seconds| seconds.to_string()));
        value("profile", runtime.profile);
        value("keep-alive", runtime.keep_alive);
        value("wake-every", runtime.wake_every);
        #[cfg(feature = "sandbox")]
        value("sandbox", runtime.sandbox);
        value("ssh-host-keys", ssh.host_keys);
        value("ssh-server", ssh.server);
        for (client, users) in ssh.users {
            value("ssh-users", Some(format!("{client}={}", users.join(","))));
        }
        value("device", device.name);
        value("device-group", device.group);
        value("ssh-client", ssh.ssh_client);
        value("local-sshd-port", ssh.sshd_port.map(|port| port.to_string()));
        value("sshpublickey-permissions", ssh.publickey_permissions);
        value("ephemeral-permissions", ssh.ephemeral_permissions);
        value("ssh-algorithm", ssh.algorithm);
        let mut path = |name: &str, path: Option<PathBuf>| {
            if let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) {
                flags.extend([format!("--{name}").into(), path.into_os_string()]);
            }
        };
        path("key-file", atsign.keys);
        path("storage-path", runtime.storage_path);
        let mut switch = |name: &str, on: Option<bool>| {
            if on == Some(true) {
                flags.push(format!("--{name}").into());
            }
        };
        switch("hide", device.hide);
        switch("sshpublickey", ssh.add_publickeys);
        switch("strict", runtime.strict);
        switch("no-strict", runtime.strict.map(|on| !on));
        switch("clear-cached-pks", runtime.clear_cached_pks);
        switch("verbose", runtime.verbose);
        switch("require-enrollment-signature", access.require_enrollment_signature);
        switch("strict-pins", access.strict_pins);
        if atsign.passphrase.is_some_and(|text| !text.is_empty()) {
            say(
                "[WARN] configuration: atsign.passphrase is not used: key files with a passphrase are not read by this version",
            );
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_flags() {
        let text = "atsign:\n  atsign: \"@dev\"\n  keys: /k/my keys\naccess:\n  managers: [\"@a\", \"@b\"]\n  permitopen:\n    - localhost:22\n    - '*:80'\ndevice:\n  name: pi\n  hide: true\nssh:\n  add-publickeys: true\n  sshd-port: 2222\n  client: openssh\nruntime:\n  verbose: true\n  strict: false\n";
        let flags = |typed| {
            let file: File = postern_config::parse(text).unwrap();
            file.flags(typed).into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(
            flags(Typed::default()),
            [
                "--atsign=@dev",
                "--managers=@a,@b",
                "--permit-open=localhost:22,*:80",
                "--device=pi",
                "--ssh-client=openssh",
                "--local-sshd-port=2222",
                "--key-file",
                "/k/my keys",
                "--hide",
                "--sshpublickey",
                "--no-strict",
                "--verbose"
            ]
        );
        let ours = "access:\n  min-security: sealed\n  permitlisten: [\"8080\", 9000-9010]\n  strict-pins: true\nssh:\n  host-keys: off\nruntime:\n  resume: 60\n  profile: metered\n";
        let ours = postern_config::parse::<File>(ours).unwrap().flags(Typed::default());
        assert_eq!(
            ours,
            [
                "--permit-listen=8080,9000-9010",
                "--min-security=sealed",
                "--resume=60",
                "--profile=metered",
                "--ssh-host-keys=off",
                "--strict-pins"
            ]
        );
        let ssh = "ssh:\n  server: builtin\n  users:\n    \"@a\": [root, pi]\n    \"@b\": [pi]\n";
        let ssh = postern_config::parse::<File>(ssh).unwrap().flags(Typed::default());
        assert_eq!(ssh, ["--ssh-server=builtin", "--ssh-users=@a=root,pi", "--ssh-users=@b=pi"]);
        assert!(!flags(Typed { managers: true }).iter().any(|flag| flag.starts_with("--managers")));
    }

    /// An option that is added to the file has to be explained in the default one.
    #[test]
    fn the_default_file_names_every_option_and_no_other() {
        postern_config::parse::<File>(DEFAULT).unwrap();
        let every = postern_config::every_option(DEFAULT);
        let file: File = postern_config::parse(&every).unwrap();
        crate::cli::check_words(file.flags(Typed::default())).unwrap();
        let known = |text: &str| {
            let error = postern_config::parse::<File>(text).unwrap_err();
            error.unknown().unwrap().1.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        for section in known("x: 1") {
            let (_, lines) = every.split_once(&format!("\n{section}:\n")).unwrap_or_else(|| panic!("no {section}"));
            let lines: Vec<&str> = lines.lines().take_while(|line| line.is_empty() || line.starts_with(' ')).collect();
            // serde names aliases as well.
            for option in known(&format!("{section}: {{x: 1}}")).iter().filter(|option| *option != "client") {
                assert!(lines.iter().any(|line| line.starts_with(&format!("  {option}:"))), "no {section}.{option}");
            }
        }
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, word) in [
            ("acess: {}\n", "acess"),
            ("access:\n  permit-open: []\n", "permit-open"),
            ("ssh:\n  sshd-port: 99999\n", "2"),
            ("atsign:\n  atsign: @dev\n", "quotes"),
        ] {
            let error = postern_config::parse::<File>(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(postern_config::parse::<File>("# nothing\n").is_ok());
    }
}
