//! `postern fingerprint`: our keys, and what others show now.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use postern_client::trust::{KnownKeys, OwnIdentity, Places};
use postern_client::{ClientError, KeyFile, Settings, Wire, find_server, home_dir, parse_root};
use postern_crypto::RsaPublicKey;
use postern_identity::{Fingerprint, PinName};
use postern_net::tls::Trust;
use postern_observe::{print, say};
use postern_proto::verb::Lookup;
use postern_proto::{AtSign, Detail, ErrorCode, Request};
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use crate::pin::{in_json, name};
use crate::{fail, read};

/// Prints fingerprints: of the keys on this machine, or what is known of a name and what its server shows now.
///
/// Without NAME: the identity keys and the atSign keys of this user; nobody is asked. With it: the pin, and for an atSign
/// the key that its atServer shows. A device shows its identity key in a session; run this command on it to compare.
///
/// Exit status: 0 printed and, with NAME, nothing speaks against it; 1 it could not be had; 2 wrong usage; 3 the key that is shown is
/// not the one that is known.
#[derive(Parser)]
#[command(name = "fingerprint", version, max_term_width = 100)]
struct Flags {
    /// An atSign (@alice) or a device and its atSign (gw-17@device).
    #[arg(value_parser = name)]
    name: Option<PinName>,
    /// The atDirectory, host or host:port.
    #[arg(short = 'r', long, aliases = ["root-server", "rootDomain"], default_value = "root.atsign.org")]
    root_domain: String,
    /// A key file elsewhere than in ~/.atsign/keys.
    #[arg(short = 'k', long, alias = "keyFile", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// As JSON, one line.
    #[arg(long)]
    json: bool,
}

/// Each step may take this long.
const STEP: Duration = Duration::from_secs(10);
/// Status when what is shown is not what is known.
const CHANGED: u8 = 3;

/// The command line, for completions.
pub fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Runs `fingerprint` with its arguments, the program name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let flags: Flags = match read(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let done = match &flags.name {
        None => ours(&flags),
        Some(name) => theirs(&flags, name),
    };
    done.unwrap_or_else(|why| fail("fingerprint", why))
}

/// The keys of this user, from the files.
fn ours(flags: &Flags) -> Result<ExitCode, String> {
    let mut found = Vec::new();
    let mut trouble = false;
    for path in Places::of_user().identities().map(|folder| files(&folder, "key")).unwrap_or_default() {
        match OwnIdentity::fingerprint_of(&path) {
            Ok(print) => found.push((stem(&path), "ed25519", print, path)),
            Err(error) => {
                say(format_args!("fingerprint: {error}"));
                trouble = true;
            }
        }
    }
    let key_files = match &flags.key_file {
        Some(path) => vec![path.clone()],
        None => home_dir().map(|home| files(&home.join(".atsign").join("keys"), "atKeys")).unwrap_or_default(),
    };
    for path in key_files {
        match KeyFile::load(&path) {
            Ok(keys) => {
                let name = stem(&path);
                let name = name.strip_suffix("_key").unwrap_or(&name).to_owned();
                found.push((name, "rsa2048", Fingerprint::from(&keys.encryption_public), path));
            }
            Err(error) => {
                say(format_args!("fingerprint: {error}"));
                trouble = true;
            }
        }
    }
    if found.is_empty() && !trouble {
        return Err("this user has no keys yet; at_activate makes those of an atSign, the first session an identity \
                    key, and -k names a key file elsewhere"
            .into());
    }
    if flags.json {
        let one = |(name, algorithm, print, path): &(String, &str, Fingerprint, PathBuf)| json!({ "name": name, "algorithm": algorithm, "fingerprint": print.to_string(), "file": path.display().to_string() });
        print(Json::Array(found.iter().map(one).collect()));
    } else {
        for (name, algorithm, fingerprint, _) in &found {
            print(format_args!("{name} {algorithm} {fingerprint}"));
        }
    }
    Ok(if trouble { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is known of a name, and what its server shows.
fn theirs(flags: &Flags, name: &PinName) -> Result<ExitCode, String> {
    let known = KnownKeys::new(Places::of_user(), false);
    let pins = known.pins().map_err(|error| error.to_string())?;
    let pinned: Vec<_> = pins.of(name).collect();
    let shown = match name {
        PinName::AtSign(at_sign) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
            let root = parse_root(&flags.root_domain).map_err(|error| error.to_string())?;
            let trust = Trust::load().map_err(|error| error.to_string())?;
            let settings = Settings { root, trust, heartbeat: STEP, monitor: None };
            Some(runtime.block_on(shown_key(&settings, at_sign)).map_err(|error| error.to_string())?)
        }
        PinName::Device(..) if pinned.is_empty() => {
            return Err(format!(
                "{name} is not known here; a device shows its key in a session, and `postern fingerprint` prints it on the device"
            ));
        }
        PinName::Device(..) => None,
    };
    let shown = shown.as_ref().map(Fingerprint::from);
    let differs = shown.is_some_and(|shown| !pinned.is_empty() && pinned.iter().all(|pin| pin.fingerprint != shown));
    if flags.json {
        let pinned: Vec<Json> = pinned.iter().map(|pin| in_json(pin)).collect();
        let shown = shown.map(|shown| shown.to_string());
        print(json!({ "name": name.to_string(), "shown": shown, "pinned": pinned, "changed": differs }));
    } else {
        if let Some(shown) = shown {
            print(format_args!("{name} {} {shown} shown", name.algorithm()));
        }
        pinned.iter().for_each(print);
    }
    if !differs {
        return Ok(ExitCode::SUCCESS);
    }
    let shown = shown.map(|shown| shown.to_string()).unwrap_or_default();
    say(format_args!(
        "fingerprint: the key that the server of {name} shows is not the one that is known. Compare with `postern fingerprint` where its keys are. If it is right: postern pin accept {name} {shown}"
    ));
    Ok(ExitCode::from(CHANGED))
}

/// An unauthenticated question for the published key.
async fn shown_key(settings: &Settings, who: &AtSign) -> Result<RsaPublicKey, ClientError> {
    let address = find_server(settings, who, STEP).await?;
    let mut wire = Wire::dial(settings, &address, STEP).await.map_err(ClientError::Connect)?;
    let lookup = Lookup { bypass_cache: false, detail: Detail::Value, name: "publickey".into(), owner: who.clone() };
    let answer = timeout(STEP, wire.ask(&Request::Lookup(lookup))).await;
    let text = match answer.map_err(|_| ClientError::TimedOut("the public key"))? {
        Err(ClientError::Server(error)) if error.code == Some(ErrorCode::KeyNotFound) => {
            return Err(ClientError::Malformed("the public key (is the atSign activated?)"));
        }
        answer => answer?,
    };
    RsaPublicKey::from_base64(&text).map_err(|_| ClientError::Malformed("the public key"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == extension)).collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
