//! The directory a server lives in: its settings, its certificate, its store.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postern_crypto::hex_lower;
use postern_identity::{Anchor, Fingerprint};
use postern_net::tls::{PeerCertificates, PrivateCa, ServerTls, TlsError, Trust};
use postern_proto::{AtKey, AtSign, Metadata, Record, Request, ServerAddress};
use postern_store::{Account, Batch, LogAs, Op, Store, StoreError};
use postern_store_sqlite::SqliteStore;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::abroad::{CertificateCheck, Peers};
use crate::serve::now_ms;

/// The settings file.
pub(crate) const SETTINGS: &str = "server.toml";
/// The certificate of the private CA, for clients.
pub(crate) const CA: &str = "ca.pem";
const CERTIFICATE: &str = "server.pem";
const KEY: &str = "server.key";
const STORE: &str = "store.db";
const RELAY: &str = "relay";

/// Largest settings file read; a real one has a few hundred bytes.
const SETTINGS_BYTES: u64 = 64 * 1024;

/// A directory made by [`Home::init`].
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    settings: Settings,
}

/// `server.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The host name that the directory gives out and the certificate carries.
    pub host: String,
    /// Address and port to listen on; `[::]` means IPv4 too.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The port that the directory gives out, when it is not the one listened on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertised_port: Option<u16>,
    /// Certificate chain, PEM; relative to the directory.
    #[serde(default = "default_certificate")]
    pub tls_cert: PathBuf,
    /// Its private key, PEM; relative to the directory.
    #[serde(default = "default_key")]
    pub tls_key: PathBuf,
    /// Gives every atSign added from now on a port of its own. For programs that ask without saying whom.
    #[serde(default)]
    pub port_per_atsign: bool,
    /// The first of those ports.
    #[serde(default = "default_first_port")]
    pub first_port: u16,
    /// Directories (`host` or `host:port`) that know atSigns of other operators, asked in this order. None: this server
    /// speaks to no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<String>,
    /// Certificates of authorities that other operators' servers may have besides the system's, PEM; relative to the
    /// directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peer_ca: Vec<PathBuf>,
    /// What other operators' servers have to show when they call: `required`, `if-shown` or `ignored`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub peer_certificates: CertificateCheck,
    /// Dial private addresses that a directory on the public Internet names.
    #[serde(default, skip_serializing_if = "is_default")]
    pub private_peers: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0u16; 8], 64))
}

fn default_certificate() -> PathBuf {
    CERTIFICATE.into()
}

fn default_key() -> PathBuf {
    KEY.into()
}

fn default_first_port() -> u16 {
    6464
}

/// What `init` is told.
pub struct Wanted {
    /// The server's public name.
    pub host: String,
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// A certificate and its key; none: make a private CA.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// Why a home cannot be made or used.
#[derive(Debug)]
pub enum HomeError {
    /// There is one already.
    Exists(PathBuf),
    /// There is none.
    Missing(PathBuf),
    /// The settings are not understood.
    Settings(PathBuf, String),
    /// No name or address that clients could dial.
    Host(String),
    /// A file could not be read or written.
    File(PathBuf, io::Error),
    /// The certificate is no use.
    Tls(TlsError),
    /// The store is no use.
    Store(StoreError),
}

/// Why an atSign was not added.
#[derive(Debug)]
pub enum AddError {
    /// It lives here already.
    Exists(AtSign),
    /// On a shared port the word would be taken for a verb.
    IsVerb(AtSign),
    /// Every port from `first-port` on is taken.
    NoPort,
    /// The store failed.
    Store(StoreError),
}

impl Home {
    /// Makes the directory (0700), settings and, without a certificate, a private CA. Nothing that exists is
    /// overwritten.
    ///
    /// # Errors
    /// There are settings already, or something cannot be written or read.
    pub fn init(dir: &Path, wanted: &Wanted) -> Result<Self, HomeError> {
        let settings_file = dir.join(SETTINGS);
        if settings_file.exists() {
            return Err(HomeError::Exists(dir.to_owned()));
        }
        // The port may be the system's choice, and is not what is in question.
        if format!("{}:64", wanted.host).parse::<ServerAddress>().is_err() {
            return Err(HomeError::Host(wanted.host.clone()));
        }
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| HomeError::File(path, error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))?;
        let (tls_cert, tls_key) = match &wanted.tls {
            Some((certificate, key)) => {
                let whole = |path: &Path| fs::canonicalize(path).map_err(at(path));
                let (certificate, key) = (whole(certificate)?, whole(key)?);
                ServerTls::from_pem_files(&certificate, &key).map_err(HomeError::Tls)?;
                (certificate, key)
            }
            None => {
                make_ca(dir, &wanted.host)?;
                (default_certificate(), default_key())
            }
        };
        let settings = Settings {
            host: wanted.host.clone(),
            listen: wanted.listen,
            advertised_port: None,
            tls_cert,
            tls_key,
            port_per_atsign: false,
            first_port: default_first_port(),
            directories: Vec::new(),
            peer_ca: Vec::new(),
            peer_certificates: CertificateCheck::default(),
            private_peers: false,
        };
        let home = Self { dir: dir.to_owned(), settings };
        home.store()?; // so that the file exists before anybody else looks
        write_new(&settings_file, home.settings.print().as_bytes(), 0o600).map_err(at(&settings_file))?;
        Ok(home)
    }

    /// Reads the settings of a directory.
    ///
    /// # Errors
    /// There are none, or they are not understood.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        let path = dir.join(SETTINGS);
        let text = read_text(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => HomeError::Missing(dir.to_owned()),
            _ => HomeError::File(path.clone(), error),
        })?;
        let settings = toml::from_str(&text).map_err(|error| HomeError::Settings(path, error.to_string()))?;
        Ok(Self { dir: dir.to_owned(), settings })
    }

    /// What the settings file says.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The relay that runs beside this server, if one has its keys here.
    pub(crate) fn relay(&self) -> Option<AtSign> {
        let names = fs::read_dir(self.relay_dir()).ok()?.flatten();
        names.filter_map(|entry| AtSign::parse(entry.file_name().to_str()?.strip_suffix("_key.atKeys")?).ok()).next()
    }

    /// By what who has no certificate of ours yet is to know this server: the key of its own authority, or, where its
    /// certificate is of the public web, by that alone.
    ///
    /// # Errors
    /// The authority's certificate cannot be read.
    pub(crate) fn anchor(&self) -> Result<Anchor, HomeError> {
        let Some(ca) = self.ca() else { return Ok(Anchor::System) };
        let keys = PeerCertificates::of_file(&ca).and_then(|shown| shown.public_keys()).map_err(HomeError::Tls)?;
        let key = keys.last().ok_or(HomeError::Tls(TlsError::NoCertificate))?;
        Ok(Anchor::Key(Fingerprint::of_spki(key).half()))
    }

    /// Where the keys are of the relay that runs beside this server.
    pub(crate) fn relay_dir(&self) -> PathBuf {
        self.dir.join(RELAY)
    }

    /// The CA certificate that clients are to trust, when this server made its own.
    pub fn ca(&self) -> Option<PathBuf> {
        Some(self.dir.join(CA)).filter(|path| path.exists())
    }

    /// Certificate and key.
    ///
    /// # Errors
    /// They cannot be read or do not fit.
    pub fn tls(&self) -> Result<ServerTls, HomeError> {
        let Settings { tls_cert, tls_key, .. } = &self.settings;
        ServerTls::from_pem_files(&self.dir.join(tls_cert), &self.dir.join(tls_key)).map_err(HomeError::Tls)
    }

    /// How to meet servers of other operators; `None` when the settings name no directory.
    ///
    /// # Errors
    /// A directory is no `host:port`; a certificate cannot be read.
    pub fn peers(&self) -> Result<Option<Peers>, HomeError> {
        let Settings { directories, peer_ca, peer_certificates, private_peers, tls_cert, tls_key, .. } = &self.settings;
        if directories.is_empty() {
            return Ok(None);
        }
        let no_directory = |text: &str| {
            HomeError::Settings(self.dir.join(SETTINGS), format!("{text:?} in directories is no host or host:port"))
        };
        let address = |text: &String| directory_address(text).ok_or_else(|| no_directory(text));
        let directories = directories.iter().map(address).collect::<Result<_, _>>()?;
        let files: Vec<PathBuf> = peer_ca.iter().map(|file| self.dir.join(file)).collect();
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let trust =
            Trust::for_server(&files, &self.dir.join(tls_cert), &self.dir.join(tls_key)).map_err(HomeError::Tls)?;
        let certificates = *peer_certificates;
        Ok(Some(Peers { directories, trust, certificates, private_addresses: *private_peers }))
    }

    /// The same home with other directories, and with more authorities.
    #[must_use]
    pub fn with_directories(mut self, directories: Vec<String>, peer_ca: Vec<PathBuf>) -> Self {
        if !directories.is_empty() {
            self.settings.directories = directories;
        }
        self.settings.peer_ca.extend(peer_ca);
        self
    }

    /// Opens the store; several processes may.
    ///
    /// # Errors
    /// It cannot be opened, or is of a newer program.
    pub fn store(&self) -> Result<Arc<dyn Store>, HomeError> {
        let store = SqliteStore::open(&self.dir.join(STORE)).map_err(HomeError::Store)?;
        Ok(Arc::new(store))
    }

    /// Adds an atSign; gives the secret that activates it, which is shown once and never again.
    ///
    /// # Errors
    /// See [`AddError`].
    pub async fn add(
        &self,
        store: &dyn Store,
        at_sign: &AtSign,
        port: Option<u16>,
    ) -> Result<Zeroizing<String>, AddError> {
        if Request::is_bare_verb(at_sign.body()) {
            return Err(AddError::IsVerb(at_sign.clone()));
        }
        let accounts = store.accounts().map_err(AddError::Store)?;
        let port = match port {
            None if self.settings.port_per_atsign => Some(self.free_port(&accounts)?),
            port => port,
        };
        let random: Zeroizing<[u8; 64]> = Zeroizing::new(postern_crypto::random());
        let secret = Zeroizing::new(hex_lower(random.as_slice()));
        let now = now_ms();
        let record = Record::new(secret.as_str(), Metadata::default(), now);
        let account = Account { at_sign: at_sign.clone(), port, created_at: now };
        let batch =
            Batch::new(now).add_account(account).put(at_sign, &AtKey::private_key("at_secret"), record, LogAs::Nothing);
        match store.commit(batch).await {
            Ok(_) => Ok(secret),
            Err(StoreError::Conflict) => Err(AddError::Exists(at_sign.clone())),
            Err(error) => Err(AddError::Store(error)),
        }
    }

    fn free_port(&self, accounts: &[Account]) -> Result<u16, AddError> {
        let taken = |port: &u16| {
            *port == self.settings.listen.port() || accounts.iter().any(|account| account.port == Some(*port))
        };
        (self.settings.first_port..=u16::MAX).find(|port| !taken(port)).ok_or(AddError::NoPort)
    }

    /// Removes an atSign and all its data. False: it did not live here.
    ///
    /// # Errors
    /// The store failed.
    pub async fn remove(&self, store: &dyn Store, at_sign: &AtSign) -> Result<bool, StoreError> {
        match store.commit(Batch::new(now_ms()).op(Op::RemoveAccount(at_sign.clone()))).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Settings {
    /// The file, with a line on each setting.
    fn print(&self) -> String {
        // A string of the TOML library's own making: quoting is not ours to guess.
        let quote = |text: &dyn fmt::Display| toml::Value::String(text.to_string()).to_string();
        let port = self.listen.port();
        let Self { host, listen, tls_cert, tls_key, port_per_atsign, first_port, .. } = self;
        let list = |texts: Vec<String>| toml::Value::from(texts).to_string();
        let files = self.peer_ca.iter().map(|file| file.display().to_string()).collect();
        let unless_default = |line: String, is_default: bool| if is_default { format!("# {line}") } else { line };
        let directories = match self.directories.as_slice() {
            [] => "# directories = [\"root.atsign.org:64\"]".to_owned(),
            some => format!("directories = {}", list(some.to_vec())),
        };
        let peer_ca = unless_default(format!("peer-ca = {}", list(files)), self.peer_ca.is_empty());
        let check = match self.peer_certificates {
            CertificateCheck::Required => "required",
            CertificateCheck::IfShown => "if-shown",
            CertificateCheck::Ignored => "ignored",
        };
        let certificates =
            unless_default(format!("peer-certificates = {check:?}"), is_default(&self.peer_certificates));
        let private = unless_default(format!("private-peers = {}", self.private_peers), !self.private_peers);
        format!(
            "# The name that the directory gives out; the certificate must be valid for it.\n\
             host = {}\n\n\
             # Where to listen. [::] means IPv6 and IPv4.\n\
             listen = {}\n\n\
             # The port that the directory gives out, if a router in front uses another one.\n\
             # advertised-port = {port}\n\n\
             # PEM files; a relative path starts at this directory.\n\
             tls-cert = {}\n\
             tls-key = {}\n\n\
             # Give each atSign added from now on a port of its own, counted from first-port.\n\
             # Only programs that ask without saying whom (an unauthenticated `scan`) need it.\n\
             port-per-atsign = {port_per_atsign}\n\
             first-port = {first_port}\n\n\
             # Directories that know atSigns of other operators, asked in this order. None: no other is spoken to.\n\
             {directories}\n\n\
             # Authorities of other operators' certificates, besides the system's.\n\
             {peer_ca}\n\n\
             # What other operators' servers show when they call: required, if-shown or ignored.\n\
             {certificates}\n\n\
             # Dial private addresses that a directory on the public Internet names.\n\
             {private}\n",
            quote(host),
            quote(listen),
            quote(&tls_cert.display()),
            quote(&tls_key.display()),
        )
    }
}

/// A CA of our own, and a certificate for the host and for this machine itself.
fn make_ca(dir: &Path, host: &str) -> Result<(), HomeError> {
    let mut names = vec!["localhost".to_owned()];
    let mut addresses: Vec<IpAddr> = vec![[127, 0, 0, 1].into(), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16])];
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) if !addresses.contains(&ip) => addresses.insert(0, ip),
        Ok(_) => {}
        Err(_) if host != "localhost" => names.insert(0, host.to_owned()),
        Err(_) => {}
    }
    let made = PrivateCa::make(&names, &addresses).map_err(HomeError::Tls)?;
    for (name, text, mode) in [
        (KEY, made.key_pem.as_str(), 0o600),
        (CERTIFICATE, made.cert_pem.as_str(), 0o644),
        (CA, made.ca_pem.as_str(), 0o644),
    ] {
        let path = dir.join(name);
        write_new(&path, text.as_bytes(), mode).map_err(|error| HomeError::File(path, error))?;
    }
    Ok(())
}

/// `host:port`, or `host` with the directories' usual port.
fn directory_address(text: &str) -> Option<ServerAddress> {
    const USUAL_PORT: u16 = 64;
    if text.contains(':') { text.parse().ok() } else { format!("{text}:{USUAL_PORT}").parse().ok() }
}

/// Writes a file that must not exist yet: whole and on the disk, or not at all.
fn write_new(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let outcome = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::hard_link(&draft, path)?; // unlike a rename, this never replaces
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    })();
    let _ = fs::remove_file(&draft);
    outcome
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(File::open(path)?, SETTINGS_BYTES), &mut text)?;
    Ok(text)
}

impl fmt::Display for HomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(dir) => {
                write!(f, "{} holds a server already; nothing was changed", dir.display())
            }
            Self::Missing(dir) => {
                let dir = dir.display();
                write!(f, "{dir} holds no server; make one with: postern server init --dir {dir}")
            }
            Self::Host(host) => write!(f, "{host:?} is no host name or address; name another with --host"),
            Self::Settings(path, reason) => write!(f, "failed to read {}: {reason}", path.display()),
            Self::File(path, error) => write!(f, "failed to use {}: {error}", path.display()),
            Self::Tls(error) => write!(f, "failed to {error}"),
            Self::Store(error) => write!(f, "failed to open the store: {error}"),
        }
    }
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists(name) => write!(f, "{name} lives here already; its secret was shown when it was added"),
            Self::IsVerb(name) => {
                write!(f, "{name} cannot be hosted: {:?} is a word of the protocol; choose another name", name.body())
            }
            Self::NoPort => f.write_str("no port is left from first-port on"),
            Self::Store(error) => write!(f, "failed to add: {error}"),
        }
    }
}

impl std::error::Error for HomeError {}
impl std::error::Error for AddError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn wanted(host: &str) -> Wanted {
        Wanted { host: host.into(), listen: default_listen(), tls: None }
    }

    #[test]
    fn what_init_writes_is_read_back_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("srv");
        let home = Home::init(&dir, &wanted("h\"ost.example")).err();
        assert!(home.is_some(), "no DNS name");
        let home = Home::init(&dir, &wanted("192.0.2.1")).err();
        assert!(home.is_none(), "{home:?}");
        let read = Home::open(&dir).unwrap();
        assert_eq!(read.settings().host, "192.0.2.1");
        assert_eq!(read.settings().listen, default_listen());
        assert!(matches!(Home::init(&dir, &wanted("x")), Err(HomeError::Exists(_))));
        let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(KEY), mode(SETTINGS), mode(CA)), (0o600, 0o600, 0o644));
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        read.tls().unwrap();
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(toml::from_str::<Settings>("host = \"h\"\nlissten = \"[::]:64\"\n").is_err());
        let wrong = "host = \"h\"\npeer-certificates = \"perhaps\"\n";
        assert!(toml::from_str::<Settings>(wrong).is_err());
        let least: Settings = toml::from_str("host = \"h\"\n").unwrap();
        assert_eq!(toml::from_str::<Settings>(&least.print()).unwrap(), least);
        let most = Settings {
            directories: vec!["root.example".into()],
            peer_ca: vec!["peers.pem".into()],
            peer_certificates: CertificateCheck::IfShown,
            private_peers: true,
            ..least
        };
        assert!(most.print().contains("peer-certificates = \"if-shown\""));
        assert_eq!(toml::from_str::<Settings>(&most.print()).unwrap(), most);
    }

    #[test]
    fn directories_have_a_usual_port_and_wrong_ones_are_told() {
        for (text, want) in [
            ("root.example", Some("root.example:64")),
            ("root.example:6464", Some("root.example:6464")),
            ("[::1]:64", Some("[::1]:64")),
            ("root.example:0", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(directory_address(text).map(|a| a.to_string()).as_deref(), want, "{text:?}");
        }
    }
}
