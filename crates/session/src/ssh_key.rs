//! Public ssh keys that a client pushes.

use std::fmt;

use postern_crypto::decode_base64;

use crate::limits::SSH_KEY_BYTES;

/// Key types that may be pushed: what OpenSSH 7 and Dropbear take today.
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// An ssh public key: type and blob, no options, no comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshPublicKey {
    kind: &'static str,
    blob: String,
}

/// A text that is no ssh public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSshKey;

impl SshPublicKey {
    /// Reads `type base64 [comment]`. The comment is dropped; the blob must be
    /// base64 and name the same type inside. One line: anything that could start
    /// a second one is refused.
    pub fn parse(text: &str) -> Result<Self, BadSshKey> {
        if text.len() > SSH_KEY_BYTES || text.trim_end().contains(|c: char| c.is_control()) {
            return Err(BadSshKey);
        }
        let mut words = text.split_ascii_whitespace();
        let (kind, blob) = (words.next().ok_or(BadSshKey)?, words.next().ok_or(BadSshKey)?);
        let kind = TYPES.into_iter().find(|t| *t == kind).ok_or(BadSshKey)?;
        let bytes = decode_base64(blob).map_err(|_| BadSshKey)?;
        let (len, rest) = bytes.split_first_chunk::<4>().ok_or(BadSshKey)?;
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| BadSshKey)?;
        if rest.get(..len) != Some(kind.as_bytes()) || rest.len() <= len {
            return Err(BadSshKey);
        }
        Ok(Self { kind, blob: blob.to_owned() })
    }

    /// Whether a line of an `authorized_keys` file is for this key, whatever its options and comment.
    pub fn is_in_line(&self, line: &str) -> bool {
        let line = line.trim_start();
        !line.starts_with('#') && line.split_ascii_whitespace().any(|word| word == self.blob)
    }
}

impl fmt::Display for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.blob)
    }
}

impl fmt::Display for BadSshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an ssh public key of a known type")
    }
}

impl std::error::Error for BadSshKey {}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJmqGKdB5CmNkCT2cHKP4tdT2o2CSgnaYoM1vQ5kBv2a";

    #[test]
    fn a_key_is_a_key() {
        let key = SshPublicKey::parse(&format!("{KEY} alice@laptop\n")).unwrap();
        assert_eq!(key.to_string(), KEY);
        assert!(key.is_in_line(&format!("restrict,from=\"127.0.0.1\" {KEY} other")));
        assert!(!key.is_in_line(&format!("# {KEY}")));
    }

    #[test]
    fn nothing_else_gets_into_the_file() {
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            &format!("command=\"x\" {KEY}"),
            &format!("{KEY}\n{KEY}"),
            &format!("{KEY} a\rb"),
            &KEY.replace("ssh-ed25519 ", "ssh-rsa "),
            "ssh-dss AAAAB3NzaC1kc3MAAAA=",
        ] {
            assert_eq!(SshPublicKey::parse(bad), Err(BadSshKey), "{bad}");
        }
    }
}
