//! The configuration file of the clients, and what a host name of ssh means by it.
//!
//! `$XDG_CONFIG_HOME/postern/config.yaml`:
//!
//! ```yaml
//! from: "@alice"              # who we are
//! to: "@device"               # whose devices names without a dot mean
//! relay: "@relay"             # or several, separated by commas
//! root: root.example:64
//! hosts:
//!   gw-17: {user: rak}        # gw-17 of @device
//!   attic: {to: "@home", device: rak_7268}
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use postern_client::{home_dir, parse_root};
use postern_proto::{AtSign, ServerAddress};
use postern_session::{BadDeviceName, DeviceName, parse_span};
use serde::Deserialize;
use std::time::Duration;

use crate::agent::Manner;
use crate::limits::{HOST_KEY_BYTES, HOST_NAME_BYTES, PATIENCE};
use crate::relay::relays;
use crate::sealed::Least;
use crate::session::is_user_name;

/// Names the file instead of the usual place.
pub(crate) const CONFIG_VARIABLE: &str = "POSTERN_CONFIG";
/// Ends the names that our block of ssh's configuration takes.
pub(crate) const SUFFIX: &str = ".np";

/// A host name as ssh gives it: `[a-z0-9][a-z0-9._-]*`, at most 63 bytes, in lower case, without `.np`.
///
/// It goes through shells and file names, so nothing else may ever be one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostName(String);

/// The file, checked.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    common: Entry,
    hosts: BTreeMap<HostName, Entry>,
}

/// One host's lines, or those for all.
#[derive(Clone, Debug, Default)]
struct Entry {
    from: Option<AtSign>,
    to: Option<AtSign>,
    device: Option<DeviceName>,
    relays: Option<Vec<AtSign>>,
    root: Option<ServerAddress>,
    key_file: Option<PathBuf>,
    user: Option<String>,
    host_keys: Vec<String>,
    patience: Option<Duration>,
    least: Option<Least>,
    agent: Option<Manner>,
}

/// What a host name means.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) from: AtSign,
    pub(crate) to: AtSign,
    pub(crate) device: DeviceName,
    pub(crate) relays: Vec<AtSign>,
    pub(crate) root: ServerAddress,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) patience: Duration,
    /// What the file says of the least that will do.
    pub(crate) least: Option<Least>,
    /// Whether the agent is asked.
    pub(crate) agent: Manner,
}

/// What counts for all hosts.
#[cfg(feature = "doctor")]
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) from: Option<AtSign>,
    pub(crate) to: Option<AtSign>,
    pub(crate) relays: Vec<AtSign>,
    pub(crate) root: ServerAddress,
    pub(crate) key_file: Option<PathBuf>,
}

/// Why a name or a file means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadHosts {
    /// The file.
    File(String),
    Name(String),
    Device(BadDeviceName),
    /// The file does not say what must be known.
    Lacks {
        name: String,
        what: &'static str,
        file: PathBuf,
    },
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    from: Option<String>,
    to: Option<String>,
    relay: Option<String>,
    root: Option<String>,
    key_file: Option<PathBuf>,
    patience: Option<String>,
    min_security: Option<Least>,
    agent: Option<Manner>,
    hosts: BTreeMap<String, Lines>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Lines {
    from: Option<String>,
    to: Option<String>,
    device: Option<String>,
    relay: Option<String>,
    root: Option<String>,
    key_file: Option<PathBuf>,
    user: Option<String>,
    host_keys: Vec<String>,
    patience: Option<String>,
    min_security: Option<Least>,
    agent: Option<Manner>,
}

/// The file with every option in comments.
pub(crate) const DEFAULT: &str = include_str!("config_default.yaml");

impl HostName {
    /// Reads a name with or without `.np`, in any case.
    pub(crate) fn parse(text: &str) -> Result<Self, BadHosts> {
        let folded = text.to_ascii_lowercase();
        let name = folded.strip_suffix(SUFFIX).unwrap_or(&folded);
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if begins && name.len() <= HOST_NAME_BYTES && name.bytes().all(good) {
            Ok(Self(name.to_owned()))
        } else {
            Err(BadHosts::Name(text.chars().filter(|c| !c.is_control()).take(HOST_NAME_BYTES).collect()))
        }
    }

    /// Without `.np`.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Hosts {
    /// Where the file is: `named`, `$POSTERN_CONFIG`, or the usual place.
    pub(crate) fn path(named: Option<&Path>) -> PathBuf {
        let from_env = || std::env::var_os(CONFIG_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        named
            .map(Path::to_owned)
            .or_else(from_env)
            .unwrap_or_else(|| xdg("XDG_CONFIG_HOME", ".config").join("config.yaml"))
    }

    /// Reads the file. One that was not named may be absent.
    pub(crate) fn read(named: Option<&Path>) -> Result<Self, BadHosts> {
        let path = Self::path(named);
        let told = |why: &dyn fmt::Display| BadHosts::File(format!("{}: {why}", path.display()));
        let file: Option<File> = postern_config::read(&path).map_err(|error| BadHosts::File(error.to_string()))?;
        match file {
            Some(file) => Self::check(file).map_err(|why| told(&why)),
            None if named.is_some() => Err(told(&"there is no such file")),
            None => Ok(Self::default()),
        }
    }

    fn check(file: File) -> Result<Self, String> {
        let File { from, to, relay, root, key_file, patience, min_security, agent, hosts } = file;
        let common =
            Lines { from, to, relay, root, key_file, patience, min_security, agent, ..Lines::default() }.check()?;
        let mut checked = BTreeMap::new();
        for (name, lines) in hosts {
            let host = HostName::parse(&name).map_err(|error| error.to_string())?;
            let entry = lines.check().map_err(|why| format!("host {name}: {why}"))?;
            if checked.insert(host, entry).is_some() {
                return Err(format!("host {name} stands there twice"));
            }
        }
        Ok(Self { common, hosts: checked })
    }

    /// Whose devices names without a dot mean.
    pub(crate) fn devices_of(&self) -> Option<&AtSign> {
        self.common.to.as_ref()
    }

    /// The relays for all hosts.
    pub(crate) fn relays(&self) -> &[AtSign] {
        self.common.relays.as_deref().unwrap_or_default()
    }

    /// Which device a name means: `gw-17` is that device of `to`, `gw-17.site` that of `@site`; an entry of the file
    /// may say otherwise.
    pub(crate) fn device(&self, host: &HostName) -> Result<(AtSign, DeviceName), BadHosts> {
        let entry = self.hosts.get(host);
        let (first, rest) = match host.0.rsplit_once('.') {
            Some((device, at_sign)) => (device, Some(at_sign)),
            None => (host.0.as_str(), None),
        };
        let named = entry.and_then(|entry| entry.device.clone());
        let device = match named {
            Some(device) => device,
            None => DeviceName::parse(first).map_err(BadHosts::Device)?,
        };
        let of_name = || rest.map(AtSign::parse).transpose().map_err(|_| BadHosts::Name(host.0.clone()));
        let to = match entry.and_then(|entry| entry.to.clone()) {
            Some(to) => Some(to),
            None => of_name()?.or_else(|| self.common.to.clone()),
        };
        Ok((to.ok_or_else(|| self.lacks(host, "to: the atSign of the device"))?, device))
    }

    /// Everything that a name means.
    pub(crate) fn find(&self, host: &HostName) -> Result<Destination, BadHosts> {
        let (to, device) = self.device(host)?;
        let entry = self.hosts.get(host);
        let first = |of: fn(&Entry) -> Option<AtSign>| entry.and_then(of).or_else(|| of(&self.common));
        let from = first(|e| e.from.clone()).ok_or_else(|| self.lacks(host, "from: our own atSign"))?;
        let relays = entry.and_then(|e| e.relays.clone()).or_else(|| self.common.relays.clone());
        let root = entry.and_then(|e| e.root.clone()).or_else(|| self.common.root.clone());
        // The usual key file is that of the usual atSign.
        let same = entry.and_then(|e| e.from.as_ref()).is_none_or(|own| Some(own) == self.common.from.as_ref());
        let key_file = entry.and_then(|e| e.key_file.clone()).or_else(|| self.common.key_file.clone().filter(|_| same));
        let patience = entry.and_then(|e| e.patience).or(self.common.patience).unwrap_or(PATIENCE);
        let least = entry.and_then(|e| e.least).or(self.common.least);
        let agent = entry.and_then(|e| e.agent).or(self.common.agent).unwrap_or_default();
        Ok(Destination {
            from,
            to,
            device,
            relays: relays.ok_or_else(|| self.lacks(host, "relay: the atSign of the relay"))?,
            root: match root {
                Some(root) => root,
                None => parse_root(DEFAULT_ROOT).map_err(|error| BadHosts::File(error.to_string()))?,
            },
            key_file,
            patience,
            least,
            agent,
        })
    }

    /// What counts for all hosts.
    ///
    /// # Errors
    /// The usual directory's name is none.
    #[cfg(feature = "doctor")]
    pub(crate) fn common(&self) -> Result<Common, BadHosts> {
        let Entry { from, to, relays, root, key_file, .. } = self.common.clone();
        let usual = || parse_root(DEFAULT_ROOT).map_err(|error| BadHosts::File(error.to_string()));
        let root = root.map_or_else(usual, Ok)?;
        Ok(Common { from, to, relays: relays.unwrap_or_default(), root, key_file })
    }

    /// Host keys that the file names: no others count then.
    pub(crate) fn host_keys(&self, host: &HostName) -> &[String] {
        self.hosts.get(host).map_or(&[], |entry| entry.host_keys.as_slice())
    }

    /// The hosts of the file, with their logins.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&HostName, Option<&str>)> {
        self.hosts.iter().map(|(name, entry)| (name, entry.user.as_deref()))
    }

    fn lacks(&self, host: &HostName, what: &'static str) -> BadHosts {
        BadHosts::Lacks { name: host.0.clone(), what, file: Self::path(None) }
    }
}

/// The public network's.
const DEFAULT_ROOT: &str = "root.atsign.org";

impl Lines {
    fn check(self) -> Result<Entry, String> {
        let at_sign = |name: &str, text: Option<String>| {
            text.map(|text| AtSign::parse(&text).map_err(|error| format!("{name} {text:?}: {error}"))).transpose()
        };
        let Self { from, to, device, relay, root, key_file, user, host_keys, patience, min_security, agent } = self;
        if let Some(user) = user.as_deref().filter(|user| !is_user_name(user)) {
            return Err(format!("user {user:?} is no user name"));
        }
        if let Some(bad) = host_keys.iter().find(|line| !is_host_key(line)) {
            return Err(format!("host-keys {bad:?}: it is \"ssh-ed25519 AAAA…\" and the like"));
        }
        Ok(Entry {
            from: at_sign("from", from)?,
            to: at_sign("to", to)?,
            device: device.map(|name| DeviceName::parse(&name)).transpose().map_err(|error| error.to_string())?,
            relays: relay.map(|names| relays(&names)).transpose()?,
            root: root.map(|root| parse_root(&root)).transpose().map_err(|error| error.to_string())?,
            key_file: key_file.map(|path| at_home(&path)),
            user,
            host_keys,
            patience: patience
                .map(|span| parse_span(&span))
                .transpose()
                .map_err(|error| format!("patience: {error}"))?,
            least: min_security,
            agent,
        })
    }
}

/// A public host key: algorithm and base64, no third word, nothing that would begin another line.
pub(crate) fn is_host_key(line: &str) -> bool {
    let mut words = line.split(' ');
    let (Some(algorithm), Some(key), None) = (words.next(), words.next(), words.next()) else { return false };
    let known = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|prefix| algorithm.starts_with(prefix));
    let plain = |text: &str, more: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
    known && line.len() <= HOST_KEY_BYTES && plain(algorithm, b"-@.") && key.starts_with("AAAA") && plain(key, b"+/=")
}

/// Our directory among those of the user: `$variable/postern`, or `~/usual/postern`.
pub(crate) fn xdg(variable: &str, usual: &str) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = named.or_else(|| Some(home_dir().ok()?.join(usual)));
    base.unwrap_or_else(|| PathBuf::from(usual)).join("postern")
}

fn at_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), home_dir()) {
        (Ok(rest), Ok(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

impl fmt::Display for BadHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(why) => f.write_str(why),
            Self::Name(name) => {
                write!(f, "{name:?} is no host name: letters, digits, dot, - and _, at most {HOST_NAME_BYTES}")
            }
            Self::Device(error) => error.fmt(f),
            Self::Lacks { name, what, file } => write!(f, "{name}: {} does not say {what}", file.display()),
        }
    }
}

impl std::error::Error for BadHosts {}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Result<Hosts, String> {
        Hosts::check(postern_config::parse(text).map_err(|error| error.to_string())?)
    }

    /// An option that is added to the file has to be explained in the default one.
    #[test]
    fn the_default_file_names_every_option_and_no_other() {
        postern_config::parse::<File>(DEFAULT).unwrap();
        let every = postern_config::every_option(DEFAULT);
        hosts(&every).unwrap();
        let known = |text: &str| {
            let error = postern_config::parse::<File>(text).err().unwrap();
            error.unknown().unwrap().1.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        for (text, indent) in [("x: 1", ""), ("hosts: {a: {x: 1}}", "    ")] {
            for option in known(text) {
                assert!(every.lines().any(|line| line.starts_with(&format!("{indent}{option}:"))), "no {option}");
            }
        }
    }

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    #[test]
    fn names_mean_devices() {
        let hosts = hosts(
            "from: '@alice'\nto: '@device'\nrelay: '@r1,@r2'\nroot: root.example\nkey-file: /keys/alice\npatience: 20s\n\
             hosts:\n  attic: {to: '@home', device: rak_7268, user: rak}\n  other: {from: '@bob'}\n",
        )
        .unwrap();
        for (name, wanted) in [
            ("gw-17.np", "gw-17@device"),
            ("GW-17", "gw-17@device"),
            ("gw_17.site.np", "gw_17@site"),
            ("attic.np", "rak_7268@home"),
        ] {
            let (to, device) = hosts.device(&host(name)).unwrap();
            assert_eq!(format!("{device}{to}"), wanted);
        }
        let found = hosts.find(&host("gw-17.np")).unwrap();
        assert_eq!((found.from.as_str(), found.relays.len(), found.patience.as_secs()), ("@alice", 2, 20));
        assert_eq!(found.key_file.as_deref(), Some(Path::new("/keys/alice")));
        assert_eq!(hosts.find(&host("other")).unwrap().key_file, None, "another's keys");
    }

    #[test]
    fn nothing_else_is_a_name() {
        for bad in
            ["", ".np", "-oProxyCommand=x", "a b", "gw;id", "$(id)", "gw\n", "../x", "ä.np", "a/b", &"x".repeat(64)]
        {
            assert!(HostName::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["..", "a.b.c", "gw.", "a"] {
            let empty = Hosts::default();
            assert!(HostName::parse(bad).and_then(|name| empty.device(&name)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mistakes_in_the_file_are_told() {
        for (text, word) in [
            ("form: '@a'", "form"),
            ("from: 'a b'", "from"),
            ("hosts: {'a b': {}}", "host name"),
            ("hosts: {gw: {user: '-oX'}}", "user name"),
            ("hosts: {gw: {host-keys: ['ssh-ed25519 AAAA\\nx']}}", "host-keys"),
            ("hosts: {gw: {}, GW.np: {}}", "twice"),
        ] {
            let told = hosts(text).unwrap_err();
            assert!(told.contains(word), "{text}: {told}");
        }
        let told = Hosts::default().find(&host("gw")).unwrap_err().to_string();
        assert!(told.contains("does not say to"), "{told}");
    }

    #[test]
    fn host_keys_are_one_key_each() {
        assert!(is_host_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA=="));
        for bad in [
            "",
            "ssh-ed25519",
            "* ssh-ed25519 AAAA",
            "ssh-ed25519 AAAA\nevil",
            "ssh-ed25519 AAAA x",
            "@cert-authority AAAA",
        ] {
            assert!(!is_host_key(bad), "{bad:?}");
        }
    }
}
