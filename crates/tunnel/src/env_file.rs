//! Profiles: `KEY=VALUE` files for `sshnp --config-file`.

use std::ffi::OsString;
use std::path::Path;

use postern_observe::say;

/// How a key becomes a flag.
enum Kind {
    Value,
    Many,
    Flag,
    Switch,
}

/// Keys that a profile may hold: the long names in upper case with `_`.
const KEYS: [(&str, &str, Kind); 18] = [
    ("FROM", "from", Kind::Value),
    ("TO", "to", Kind::Value),
    ("DEVICE", "device", Kind::Value),
    ("SRVD", "srvd", Kind::Value),
    ("HOST", "host", Kind::Value),
    ("LOCAL_PORT", "local-port", Kind::Value),
    ("SEND_SSH_PUBLIC_KEY", "send-ssh-public-key", Kind::Flag),
    ("LOCAL_SSH_OPTIONS", "local-ssh-options", Kind::Many),
    ("REMOTE_USER_NAME", "remote-user-name", Kind::Value),
    ("TUNNEL_USER_NAME", "tunnel-user-name", Kind::Value),
    ("ROOT_DOMAIN", "root-domain", Kind::Value),
    ("ROOT_SERVER", "root-domain", Kind::Value),
    ("REMOTE_SSHD_PORT", "remote-sshd-port", Kind::Value),
    ("AUTHENTICATE_CLIENT_TO_RVD", "authenticate-client-to-rvd", Kind::Switch),
    ("AUTHENTICATE_DEVICE_TO_RVD", "authenticate-device-to-rvd", Kind::Switch),
    ("ENCRYPT_RVD_TRAFFIC", "encrypt-rvd-traffic", Kind::Switch),
    ("RELAY_AUTH_MODE", "relay-auth-mode", Kind::Value),
    ("443", "443", Kind::Flag),
];

/// Keys of old templates, ignored with a word.
const OLD: [&str; 7] = ["PORT", "SSH_PUBLIC_KEY", "RSA", "LOCAL_SSHD_PORT", "LEGACY_DAEMON", "KEY_FILE", "VERBOSE"];

/// Reads a profile into flags that stand in front of those typed.
pub(crate) fn read(path: &Path) -> Result<Vec<OsString>, String> {
    let text = std::fs::read_to_string(path).or_else(|error| {
        // A profile's name may be written with spaces; its file has `_` for them.
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.contains(' '));
        let again = name.map(|name| std::fs::read_to_string(path.with_file_name(name.replace(' ', "_"))));
        again.and_then(Result::ok).ok_or_else(|| format!("profile {}: {error}", path.display()))
    })?;
    Ok(flags_of(&text))
}

fn flags_of(text: &str) -> Vec<OsString> {
    let mut flags = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        let (key, value) = (key.trim(), value.trim());
        if OLD.contains(&key) {
            say(format_args!("[WARN] profile: {key} has no meaning any more"));
            continue;
        }
        let Some((_, flag, kind)) = KEYS.iter().find(|(name, ..)| *name == key).filter(|_| !value.is_empty()) else {
            continue;
        };
        let on = value.eq_ignore_ascii_case("true");
        match kind {
            Kind::Value => flags.push(format!("--{flag}={value}").into()),
            Kind::Many => {
                let values = value.split(',').map(str::trim).filter(|value| !value.is_empty());
                flags.extend(values.map(|value| format!("--{flag}={value}").into()));
            }
            Kind::Flag if on => flags.push(format!("--{flag}").into()),
            Kind::Flag => {}
            Kind::Switch if on => flags.push(format!("--{flag}").into()),
            Kind::Switch => flags.push(format!("--no-{flag}").into()),
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_vectors() {
        let vectors: serde_json::Value = serde_json::from_str(include_str!("../../../vectors/env_files.json")).unwrap();
        for case in vectors["cases"].as_array().unwrap() {
            let flags: Vec<String> =
                flags_of(case["file"].as_str().unwrap()).into_iter().map(|flag| flag.into_string().unwrap()).collect();
            assert_eq!(serde_json::Value::from(flags), case["flags"], "{}", case["name"]);
        }
    }

    #[test]
    fn profiles_as_people_keep_them() {
        let flags = flags_of(
            "# mine\nFROM = @alice\nTO=@dev\nSEND_SSH_PUBLIC_KEY=TRUE\nENCRYPT_RVD_TRAFFIC=false\nLOCAL_SSH_OPTIONS=-L 1:a:2,-o A=b\nUNKNOWN=1\nDEVICE=\nPORT=22\nnonsense\n",
        );
        assert_eq!(
            flags,
            [
                "--from=@alice",
                "--to=@dev",
                "--send-ssh-public-key",
                "--no-encrypt-rvd-traffic",
                "--local-ssh-options=-L 1:a:2",
                "--local-ssh-options=-o A=b"
            ]
        );
    }
}
