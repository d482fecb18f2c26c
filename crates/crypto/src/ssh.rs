//! ssh key pairs that live for seconds: made by a device for the tunnel of a client that does not encrypt.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use zeroize::Zeroizing;

use crate::{CryptoError, encode_base64, random};

/// Kind of an ssh key pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SshAlgorithm {
    /// `ssh-ed25519`: microseconds to make.
    #[default]
    Ed25519,
    /// `ssh-rsa` of 4096 bits: seconds to make; for ssh programs of before 2014.
    Rsa,
}

/// An ssh key pair. Contents are never shown.
pub struct SshKeyPair {
    public: String,
    private: Zeroizing<String>,
}

/// Characters in a line of a private key file, as OpenSSH writes it.
const PEM_WIDTH: usize = 70;

impl SshKeyPair {
    /// A fresh one without a passphrase.
    pub fn generate(algorithm: SshAlgorithm) -> Result<Self, CryptoError> {
        match algorithm {
            SshAlgorithm::Ed25519 => ed25519(),
            SshAlgorithm::Rsa => rsa(),
        }
    }

    /// `type base64`: a line of an `authorized_keys` file without options and comment.
    pub fn public_line(&self) -> &str {
        &self.public
    }

    /// The text of a private key file that OpenSSH reads.
    pub fn private_pem(&self) -> &Zeroizing<String> {
        &self.private
    }
}

/// The private half in the form `openssh-key-v1`, the only one that OpenSSH takes for this kind.
/// Source: OpenSSH's PROTOCOL.key.
fn ed25519() -> Result<SshKeyPair, CryptoError> {
    const NAME: &[u8] = b"ssh-ed25519";
    let seed = Zeroizing::new(random::<32>());
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| CryptoError)?;
    let point = pair.public_key().as_ref();
    let mut public = Vec::new();
    string(&mut public, NAME);
    string(&mut public, point);

    let check = random::<4>();
    // Reserved whole: growing would leave copies of the seed behind.
    let mut secret = Zeroizing::new(Vec::with_capacity(256));
    secret.extend_from_slice(&check);
    secret.extend_from_slice(&check);
    string(&mut secret, NAME);
    string(&mut secret, point);
    let mut both = Zeroizing::new([0; 64]);
    both[..32].copy_from_slice(seed.as_ref());
    both[32..].copy_from_slice(point);
    string(&mut secret, both.as_ref());
    string(&mut secret, b"");
    let mut pad = 0u8;
    while !secret.len().is_multiple_of(8) {
        pad += 1;
        secret.push(pad);
    }
    let mut file = Zeroizing::new(Vec::with_capacity(512));
    file.extend_from_slice(b"openssh-key-v1\0");
    string(&mut file, b"none");
    string(&mut file, b"none");
    string(&mut file, b"");
    file.extend_from_slice(&1u32.to_be_bytes());
    string(&mut file, &public);
    string(&mut file, &secret);
    Ok(SshKeyPair {
        public: format!("ssh-ed25519 {}", encode_base64(&public)),
        private: pem("OPENSSH PRIVATE KEY", &file),
    })
}

/// The private half as PKCS#8, which OpenSSH takes for RSA.
fn rsa() -> Result<SshKeyPair, CryptoError> {
    let pair = RsaKeyPair::generate(KeySize::Rsa4096)?;
    let der: Pkcs8V1Der<'_> = pair.as_der()?;
    // RSAPublicKey of PKCS#1: a sequence of the modulus and the exponent.
    let mut fields = pair.public_key().as_ref();
    fields = take(&mut fields, 0x30)?;
    let (modulus, exponent) = (take(&mut fields, 0x02)?, take(&mut fields, 0x02)?);
    let mut public = Vec::new();
    string(&mut public, b"ssh-rsa");
    // A DER integer and an mpint of ssh have the same bytes.
    string(&mut public, exponent);
    string(&mut public, modulus);
    Ok(SshKeyPair { public: format!("ssh-rsa {}", encode_base64(&public)), private: pem("PRIVATE KEY", der.as_ref()) })
}

/// Takes one DER value with this tag from the front.
fn take<'a>(from: &mut &'a [u8], tag: u8) -> Result<&'a [u8], CryptoError> {
    let (&[found, first], rest) = from.split_first_chunk::<2>().ok_or(CryptoError)?;
    if found != tag {
        return Err(CryptoError);
    }
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f).min(4)).ok_or(CryptoError)?;
        (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
    };
    let (value, rest) = rest.split_at_checked(len).ok_or(CryptoError)?;
    *from = rest;
    Ok(value)
}

/// A `string` of the ssh protocols: length, then bytes.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("keys are short");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn pem(name: &str, bytes: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(encode_base64(bytes));
    let mut pem = Zeroizing::new(String::with_capacity(text.len() * 2 + 200));
    pem.push_str(&format!("-----BEGIN {name}-----\n"));
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_WIDTH));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str(&format!("-----END {name}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::process::Command;

    /// OpenSSH itself reads the private half and derives the public one.
    #[test]
    fn openssh_reads_what_we_make() {
        for algorithm in [SshAlgorithm::Ed25519, SshAlgorithm::Rsa] {
            let pair = SshKeyPair::generate(algorithm).unwrap();
            let path = std::env::temp_dir().join(format!("postern-key-{}-{algorithm:?}", std::process::id()));
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
            file.write_all(pair.private_pem().as_bytes()).unwrap();
            let output = Command::new("ssh-keygen").args(["-y", "-P", "", "-f"]).arg(&path).output().unwrap();
            std::fs::remove_file(&path).unwrap();
            let derived = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(derived.trim(), pair.public_line(), "{algorithm:?}");
        }
    }
}
