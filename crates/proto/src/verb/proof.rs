//! `cram:` and `pkam:`: proofs of who is speaking.

use std::fmt;

use crate::{ProtocolError, Uuid};

/// `cram:⟨128 lower-case hex⟩`: SHA-512 over the secret and the challenge.
#[derive(Clone, PartialEq, Eq)]
pub struct Cram {
    /// The digest as sent.
    pub digest: String,
}

/// `pkam:[signingAlgo:…:][hashingAlgo:…:][enrollmentId:⟨id⟩:]⟨signature⟩`
#[derive(Clone, PartialEq, Eq)]
pub struct Pkam {
    /// Which digest was signed.
    pub hashing: HashingAlgo,
    /// The enrolment that signs; absent in the legacy form.
    pub enrollment_id: Option<Uuid>,
    /// Base64.
    pub signature: String,
    /// The client named the algorithms; printed back the same way.
    pub long_form: bool,
}

/// Digest under an RSA signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashingAlgo {
    /// The default.
    #[default]
    Sha256,
    /// Selectable.
    Sha512,
}

impl HashingAlgo {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// From the wire, any case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|a| a.as_str().eq_ignore_ascii_case(text))
    }
}

impl Cram {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        if args.len() != 128 || !args.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ProtocolError::invalid_command());
        }
        Ok(Self { digest: args.to_owned() })
    }
}

impl Pkam {
    /// Longest signature in base64 characters: RSA-4096 has 684.
    const MAX_SIGNATURE_CHARS: usize = 1024;

    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let mut pkam =
            Self { hashing: HashingAlgo::default(), enrollment_id: None, signature: String::new(), long_form: false };
        let mut rest = args;
        // Base64 contains no colon: what follows the last one is the signature.
        while let Some((name, after)) = rest.split_once(':') {
            let (value, after) = after.split_once(':').ok_or_else(bad)?;
            if name.eq_ignore_ascii_case("signingAlgo") {
                pkam.long_form = true;
                if !value.eq_ignore_ascii_case("rsa2048") {
                    return Err(bad());
                }
            } else if name.eq_ignore_ascii_case("hashingAlgo") {
                pkam.long_form = true;
                pkam.hashing = HashingAlgo::parse(value).ok_or_else(bad)?;
            } else if name.eq_ignore_ascii_case("enrollmentId") {
                pkam.enrollment_id = Some(Uuid::parse(value).ok_or_else(bad)?);
            }
            rest = after;
        }
        let signature = rest.trim();
        if signature.is_empty() || signature.len() > Self::MAX_SIGNATURE_CHARS {
            return Err(bad());
        }
        pkam.signature = signature.to_owned();
        Ok(pkam)
    }
}

impl fmt::Display for Cram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cram:{}", self.digest)
    }
}

impl fmt::Display for Pkam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pkam:")?;
        if self.long_form || self.hashing != HashingAlgo::default() {
            write!(f, "signingAlgo:rsa2048:hashingAlgo:{}:", self.hashing.as_str())?;
        }
        if let Some(id) = &self.enrollment_id {
            write!(f, "enrollmentId:{id}:")?;
        }
        f.write_str(&self.signature)
    }
}
