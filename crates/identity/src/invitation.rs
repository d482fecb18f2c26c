//! The line that lets a device join: `postern1:` and base32, to be pasted, scanned, or put on a memory card.
//!
//! It says everything that a device with nothing prepared must know: where the directory is and by which key to know it,
//! whose device it becomes and under which name, whom it obeys, and a secret that is good once. From the secret follow a
//! key and a proof: with the key the device shows that the enrolment it asks for is the one that was invited, so that no
//! server in between can put another in its place; with the proof it says which identity key it has made.
//! Source: docs/protocol/invitation.md.

use std::fmt;

use postern_crypto::{AesKey, decode_base64, encode_base64, equal_in_constant_time, hmac_sha256, random};
use postern_proto::{AtSign, ServerAddress, Uuid};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::device_name::DeviceName;
use crate::fingerprint::Fingerprint;
use crate::limits::ARRIVAL_BYTES;
use crate::line::{self, BadLine, Bytes, put_text};

/// What an invitation says.
///
/// Not `Debug`: whoever holds it holds its secret.
#[derive(Clone)]
pub struct Invitation {
    /// The atDirectory.
    pub directory: ServerAddress,
    /// By which its certificate is known.
    pub anchor: Anchor,
    /// Whose device it becomes.
    pub at_sign: AtSign,
    /// First half of the fingerprint of that atSign's encryption key.
    pub at_sign_key: [u8; 16],
    /// The name it gets.
    pub device: DeviceName,
    /// Who may come in.
    pub manager: AtSign,
    /// The manager's encryption key.
    pub manager_key: Fingerprint,
    /// With which the atServer of the device lets it ask.
    pub passcode: Passcode,
    /// The end, in seconds since 1970.
    pub expires: u32,
    /// What nobody but inviter and device knows.
    pub secret: InvitationSecret,
}

/// By what the certificate of the directory is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// By the authorities that the device's system trusts.
    System,
    /// By this key, of the server or of an authority that it shows: first half of the SHA-256 of its DER
    /// SubjectPublicKeyInfo.
    Key([u8; 16]),
}

/// A passcode of an atServer: 6 to 64 letters, digits and `_`. Not `Debug`.
#[derive(Clone)]
pub struct Passcode(Zeroizing<String>);

/// 128 random bits. Not `Debug`, and zeroed when dropped.
#[derive(Clone)]
pub struct InvitationSecret(Zeroizing<[u8; 16]>);

/// What a device that has joined says of itself, under the eyes of servers that could change it: hence the proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its enrolment.
    pub enrollment: Uuid,
    /// The identity key that it has made.
    pub identity: Fingerprint,
    proof: String,
}

/// In the flags: the anchor is a key.
const ANCHOR_IS_KEY: u8 = 1;

const KEY_LABEL: &[u8] = b"postern invitation v1 enrollment key";
const ARRIVAL_LABEL: &[u8] = b"postern invitation v1 arrival";

impl Invitation {
    /// Reads a line. White space and `-` in it are passed over, and capitals are as good as small letters.
    ///
    /// # Errors
    /// See [`BadLine`].
    pub fn parse(text: &str) -> Result<Self, BadLine> {
        let content = line::read(line::INVITATION, text)?;
        Self::read(&mut Bytes(&content)).ok_or(BadLine::Nonsense)
    }

    /// The line.
    #[must_use]
    pub fn print(&self) -> Zeroizing<String> {
        line::print(line::INVITATION, &self.content())
    }

    /// The symmetric key of the enrolment: who asks with it knows the secret and speaks of this very invitation, and
    /// whoever approves can compare it. Servers see it encrypted to the atSign alone.
    #[must_use]
    pub fn enrollment_key(&self) -> AesKey {
        AesKey::from_bytes(hmac_sha256(self.secret.0.as_ref(), &[KEY_LABEL, &self.content()]))
    }

    /// Whether this is the atSign's encryption key that the inviter knows.
    #[must_use]
    pub fn is_key_of_at_sign(&self, key: Fingerprint) -> bool {
        key.half() == self.at_sign_key
    }

    /// What the device says when it has its keys.
    #[must_use]
    pub fn arrival(&self, enrollment: Uuid, identity: Fingerprint) -> Arrival {
        let proof = encode_base64(&self.arrival_proof(&enrollment, identity));
        Arrival { enrollment, identity, proof }
    }

    /// Whether that was said by who knows the secret.
    #[must_use]
    pub fn is_shown_by(&self, arrival: &Arrival) -> bool {
        let proof = self.arrival_proof(&arrival.enrollment, arrival.identity);
        decode_base64(&arrival.proof).is_ok_and(|shown| equal_in_constant_time(&shown, &proof))
    }

    /// The name of the record with the [`Arrival`], with its namespace, without its owner.
    #[must_use]
    pub fn arrival_record(&self) -> String {
        format!("joined.{}.sshnp", self.device)
    }

    fn arrival_proof(&self, enrollment: &Uuid, identity: Fingerprint) -> [u8; 32] {
        let parts = [ARRIVAL_LABEL, &self.content(), enrollment.as_str().as_bytes(), identity.as_bytes()];
        hmac_sha256(self.secret.0.as_ref(), &parts)
    }

    fn content(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(256));
        let (flags, anchor) = match &self.anchor {
            Anchor::System => (0, None),
            Anchor::Key(key) => (ANCHOR_IS_KEY, Some(key)),
        };
        out.push(flags);
        out.extend_from_slice(self.secret.0.as_ref());
        out.extend_from_slice(&self.expires.to_be_bytes());
        out.extend_from_slice(anchor.map_or(&[], |key| key.as_slice()));
        out.extend_from_slice(&self.at_sign_key);
        out.extend_from_slice(self.manager_key.as_bytes());
        let directory = self.directory.to_string();
        for text in
            [directory.as_str(), self.at_sign.body(), self.device.as_str(), self.manager.body(), self.passcode.as_str()]
        {
            put_text(&mut out, text);
        }
        out
    }

    fn read(bytes: &mut Bytes<'_>) -> Option<Self> {
        let [flags] = *bytes.take::<1>()?;
        let secret = InvitationSecret(Zeroizing::new(*bytes.take()?));
        let expires = u32::from_be_bytes(*bytes.take()?);
        let anchor = match flags {
            0 => Anchor::System,
            ANCHOR_IS_KEY => Anchor::Key(*bytes.take()?),
            _ => return None,
        };
        let at_sign_key = *bytes.take()?;
        let manager_key = Fingerprint::from_bytes(*bytes.take()?);
        let directory: ServerAddress = bytes.text()?.parse().ok()?;
        let at_sign = AtSign::parse(bytes.text()?).ok()?;
        let device = DeviceName::parse(bytes.text()?).ok()?;
        let manager = AtSign::parse(bytes.text()?).ok()?;
        let passcode = Passcode::parse(bytes.text()?)?;
        let read =
            Self { directory, anchor, at_sign, at_sign_key, device, manager, manager_key, passcode, expires, secret };
        bytes.0.is_empty().then_some(read)
    }
}

impl InvitationSecret {
    /// A fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }
}

impl Passcode {
    /// `None`: no server makes such a one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let fits = (6..=64).contains(&text.len()) && text.bytes().all(good);
        fits.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// As the server is told it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[derive(Serialize, Deserialize)]
struct ArrivalText {
    enrollment: String,
    identity: String,
    proof: String,
}

impl Arrival {
    /// Reads the JSON of the record. What it says counts once [`Invitation::is_shown_by`] says so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = Some(text).filter(|text| text.len() <= ARRIVAL_BYTES)?;
        let ArrivalText { enrollment, identity, proof } = serde_json::from_str(text).ok()?;
        Some(Self { enrollment: Uuid::parse(&enrollment)?, identity: Fingerprint::parse(&identity).ok()?, proof })
    }
}

/// The JSON of the record.
impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = ArrivalText {
            enrollment: self.enrollment.to_string(),
            identity: self.identity.to_string(),
            proof: self.proof.clone(),
        };
        f.write_str(&serde_json::to_string(&text).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invitation() -> Invitation {
        Invitation {
            directory: "gw.example.org:64".parse().unwrap(),
            anchor: Anchor::Key([7; 16]),
            at_sign: AtSign::parse("@device").unwrap(),
            at_sign_key: [8; 16],
            device: DeviceName::parse("gw-17").unwrap(),
            manager: AtSign::parse("@alice").unwrap(),
            manager_key: Fingerprint::from_bytes([9; 32]),
            passcode: Passcode::parse("ABCDE5").unwrap(),
            expires: 1_795_000_000,
            secret: InvitationSecret(Zeroizing::new([1; 16])),
        }
    }

    fn read(line: &str) -> Result<Zeroizing<String>, BadLine> {
        Invitation::parse(line).map(|read| read.print())
    }

    /// Computed by another program.
    #[test]
    fn the_line_is_pinned() {
        let line = invitation().print();
        let wanted = [
            "postern1:aeaqcaibaeaqcaibaeaqcaibaeawv7mgyadqobyha4dqobyha4dqobyha4dqqcaibaeaqcaibaeaqcaibaeaqcijbee",
            "qscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijcftxoltfpbqw24dmmuxg64thhi3dibtemv3gsy3favtxoljrg4cwc3d",
            "jmnsqmqkcinceknpikitiu",
        ];
        assert_eq!(*line, wanted.concat());
    }

    #[test]
    fn what_people_do_to_a_line_does_not_hurt_it() {
        let line = invitation().print();
        for wrapped in [
            line.to_uppercase(),
            format!("  {}\n", *line),
            line.as_bytes().chunks(40).map(|part| str::from_utf8(part).unwrap()).collect::<Vec<_>>().join("\r\n  "),
            line.replace('a', "A-"),
        ] {
            assert_eq!(read(&wrapped), Ok(line.clone()), "{wrapped}");
        }
    }

    #[test]
    fn every_slip_of_the_pen_is_seen() {
        let line = invitation().print();
        for at in "postern1:".len()..line.len() {
            for other in ['a', 'z', '7', '1'] {
                let mut slipped = line.to_string();
                slipped.replace_range(at..=at, &other.to_string());
                if slipped != *line {
                    assert_eq!(read(&slipped), Err(BadLine::Mistyped), "{slipped}");
                }
            }
            assert_eq!(read(&line[..at]), Err(BadLine::Mistyped));
        }
        assert_eq!(read(&format!("{}a", *line)), Err(BadLine::Mistyped));
        assert_eq!(read("postern2:aaaa"), Err(BadLine::OtherVersion));
        assert_eq!(read("https://example.org"), Err(BadLine::NotOne));
        assert_eq!(read(""), Err(BadLine::NotOne));
    }

    #[test]
    fn keys_and_proofs_belong_to_one_invitation() {
        let (one, again) = (invitation(), invitation());
        assert_eq!(*one.enrollment_key().to_base64(), *again.enrollment_key().to_base64());
        let id = Uuid::parse("6f9619ff-8b86-4d01-b42d-00cf4fc964ff").unwrap();
        let identity = Fingerprint::from_bytes([3; 32]);
        let arrival = Arrival::parse(&one.arrival(id.clone(), identity).to_string()).unwrap();
        assert!(again.is_shown_by(&arrival));
        assert!(!again.is_shown_by(&Arrival { identity: Fingerprint::from_bytes([4; 32]), ..arrival.clone() }));
        let others = [
            Invitation { secret: InvitationSecret(Zeroizing::new([2; 16])), ..invitation() },
            Invitation { device: DeviceName::parse("gw-18").unwrap(), ..invitation() },
            Invitation { manager_key: identity, ..invitation() },
            Invitation { anchor: Anchor::System, ..invitation() },
            Invitation { expires: 1, ..invitation() },
        ];
        for other in others {
            assert_ne!(*one.enrollment_key().to_base64(), *other.enrollment_key().to_base64());
            assert!(!other.is_shown_by(&arrival));
        }
        assert!(Arrival::parse(&"x".repeat(2000)).is_none() && Arrival::parse("{}").is_none());
    }

    proptest! {
        #[test]
        fn printed_and_read_again(
            host in "[a-z][a-z0-9.-]{0,60}[a-z]", port in 1u16.., me in "[a-z0-9_]{1,55}", name in "[a-z0-9][a-z0-9_-]{1,35}",
            code in "[A-Za-z0-9_]{6,64}", expires: u32, anchor: Option<[u8; 16]>, half: [u8; 16], key: [u8; 32],
        ) {
            let invitation = Invitation {
                directory: ServerAddress { host, port },
                anchor: anchor.map_or(Anchor::System, Anchor::Key),
                at_sign: AtSign::parse(&me).unwrap(),
                at_sign_key: half,
                device: DeviceName::parse(&name).unwrap(),
                manager: AtSign::parse(&me).unwrap(),
                manager_key: Fingerprint::from_bytes(key),
                passcode: Passcode::parse(&code).unwrap(),
                expires,
                secret: InvitationSecret::generate(),
            };
            let line = invitation.print();
            let again = Invitation::parse(&line).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&*again.print(), &*line);
            prop_assert_eq!(again.directory, invitation.directory);
            prop_assert_eq!(again.anchor, invitation.anchor);
            prop_assert_eq!((again.at_sign, again.device), (invitation.at_sign, invitation.device));
            prop_assert_eq!((again.manager_key, again.expires), (invitation.manager_key, invitation.expires));
            prop_assert!(line.len() < 600);
        }

        #[test]
        fn nothing_makes_it_fall_over(text in "\\PC{0,300}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Invitation::parse(&text);
            let _ = Invitation::parse(&format!("postern1:{}", *postern_crypto::encode_base32(&bytes)));
            // Whole lines with any content: nonsense, or one that prints as it was read.
            let _ = Invitation::parse(&line::print(line::INVITATION, &bytes)).map(|read| read.print());
        }
    }
}
