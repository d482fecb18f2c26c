//! Why somebody is not believed, told so that a user can act.

use std::fmt;
use std::io;
use std::path::PathBuf;

use postern_identity::{Fingerprint, Origin, Pin, PinName, VoucherError};

use crate::error::ClientError;

/// Why a key is not believed, or ours cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum TrustError {
    /// Another key than the one that is remembered.
    Changed {
        /// What is remembered.
        pinned: Box<Pin>,
        /// What was shown now.
        shown: Fingerprint,
    },
    /// Strict mode, and nobody gave this key.
    NotGiven {
        /// Whose.
        name: PinName,
        /// What was shown.
        shown: Fingerprint,
    },
    /// A line of the pins speaks of this name and cannot be read.
    Unreadable {
        /// Whose.
        name: PinName,
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The voucher.
    Voucher(VoucherError),
    /// What is needed to check it could not be fetched.
    Fetch(ClientError),
    /// Our signing key could not be published, so that nobody can check our voucher.
    Publish(ClientError),
    /// A file of ours cannot be used.
    File(PathBuf, io::Error),
    /// A file of ours holds something else than it should.
    Damaged(PathBuf),
    /// A file with a secret can be read by others.
    Exposed(PathBuf),
    /// Signing failed.
    Crypto,
}

impl TrustError {
    /// Whether the pins speak against it (and not the voucher, the network or the disk).
    #[must_use]
    pub fn is_pin(&self) -> bool {
        matches!(self, Self::Changed { .. } | Self::NotGiven { .. } | Self::Unreadable { .. })
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { pinned, shown } => {
                let name = &pinned.name;
                let how = match pinned.origin {
                    Origin::Seen => "seen first",
                    Origin::Given => "given",
                };
                let since = pinned.since.as_deref().map(|since| format!(" {since}")).unwrap_or_default();
                let liars = match name {
                    PinName::AtSign(_) => "the directory or its atServer shows a key that is not its own".to_owned(),
                    PinName::Device(_, owner) => {
                        format!("its directory, its atServer or another device of {owner} speaks in its name")
                    }
                };
                let compare = match name {
                    PinName::AtSign(_) => "where its keys are".to_owned(),
                    PinName::Device(device, _) => format!("on {device}"),
                };
                write!(
                    f,
                    "the key of {name} has changed\n  known, {how}{since}: {}\n  shown now: {shown}\nEither it was set up anew, or {liars}.\nCompare with `postern fingerprint` {compare}. If it is right: postern pin accept {name} {shown}",
                    pinned.fingerprint
                )
            }
            Self::NotGiven { name, shown } => write!(
                f,
                "the key of {name} was not given in advance, and strict pins believe no other\n  shown now: {shown}\nCompare it with whoever runs {name}. If it is right: postern pin accept {name} {shown}"
            ),
            Self::Unreadable { name, file, line } => {
                let file = file.display();
                write!(
                    f,
                    "line {line} of {file} speaks of {name} and cannot be read; correct it, or take it out with: postern pin remove {name}"
                )
            }
            Self::Voucher(error) => error.fmt(f),
            Self::Fetch(error) => write!(f, "could not fetch what shows whose key it is: {error}"),
            Self::Publish(error) => {
                write!(f, "could not publish the signing key that our identity key needs: {error}")
            }
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Damaged(path) => write!(
                f,
                "{} does not hold what it should; move it away and try again (who knows our old key must then accept the new one)",
                path.display()
            ),
            Self::Exposed(path) => {
                let path = path.display();
                write!(f, "{path} can be read by others; if nobody else did, run: chmod 600 {path}")
            }
            Self::Crypto => f.write_str("signing failed"),
        }
    }
}

impl std::error::Error for TrustError {}

impl From<VoucherError> for TrustError {
    fn from(error: VoucherError) -> Self {
        Self::Voucher(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    const NEW: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFA";

    fn pin(name: &str, origin: Origin) -> Box<Pin> {
        let name = PinName::parse(name).unwrap();
        Box::new(Pin::made(name, Fingerprint::parse(OLD).unwrap(), origin, 1_795_428_000_000))
    }

    #[test]
    fn a_change_is_told_with_both_fingerprints_and_what_to_do() {
        let shown = Fingerprint::parse(NEW).unwrap();
        let text = TrustError::Changed { pinned: pin("gw-17@device", Origin::Seen), shown }.to_string();
        assert_eq!(
            text,
            format!(
                "the key of gw-17@device has changed\n  known, seen first 2026-11-23T10:00:00Z: {OLD}\n  shown now: {NEW}\n\
                 Either it was set up anew, or its directory, its atServer or another device of @device speaks in its name.\n\
                 Compare with `postern fingerprint` on gw-17. If it is right: postern pin accept gw-17@device {NEW}"
            )
        );
        let text = TrustError::Changed { pinned: pin("@alice", Origin::Given), shown }.to_string();
        assert!(text.contains(&format!("known, given 2026-11-23T10:00:00Z: {OLD}")), "{text}");
        assert!(text.ends_with(&format!("postern pin accept @alice {NEW}")), "{text}");
        let text = TrustError::NotGiven { name: PinName::parse("@alice").unwrap(), shown }.to_string();
        assert!(text.ends_with(&format!("postern pin accept @alice {NEW}")), "{text}");
    }
}
