//! The line by which a server's operator hands atSigns over to a person: `posternact1:` and base32.
//!
//! It says where the directory is and by which key to know it, and the secret that activates each atSign, once. Who has the
//! line is their owner: it goes to one person, by a way that they trust. Source: docs/protocol/invitation.md.

use postern_crypto::{decode_hex, hex_lower};
use postern_proto::{AtSign, ServerAddress};
use zeroize::Zeroizing;

use crate::invitation::Anchor;
use crate::limits::AT_SIGNS;
use crate::line::{self, BadLine, Bytes, put_text};

/// What such a line says.
///
/// Not `Debug`: it holds secrets.
#[derive(Clone)]
pub struct Activation {
    /// The atDirectory.
    pub directory: ServerAddress,
    /// By which its certificate is known.
    pub anchor: Anchor,
    /// A relay of the same operator.
    pub relay: Option<AtSign>,
    /// The person's own first, then that of their devices; one to [`AT_SIGNS`].
    pub at_signs: Vec<(AtSign, CramSecret)>,
}

/// What activates an atSign: 512 bits. Not `Debug`, and zeroed when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct CramSecret(Zeroizing<[u8; 64]>);

/// In the flags: the anchor is a key; a relay is named.
const ANCHOR_IS_KEY: u8 = 1;
const HAS_RELAY: u8 = 2;

impl Activation {
    /// Reads a line. White space and `-` in it are passed over, and capitals are as good as small letters.
    ///
    /// # Errors
    /// See [`BadLine`].
    pub fn parse(text: &str) -> Result<Self, BadLine> {
        let content = line::read(line::ACTIVATION, text)?;
        Self::read(&mut Bytes(&content)).ok_or(BadLine::Nonsense)
    }

    /// The line.
    #[must_use]
    pub fn print(&self) -> Zeroizing<String> {
        let mut out = Zeroizing::new(Vec::with_capacity(1024));
        let anchor = match &self.anchor {
            Anchor::System => None,
            Anchor::Key(key) => Some(key),
        };
        let relay = self.relay.as_ref();
        out.push(anchor.map_or(0, |_| ANCHOR_IS_KEY) | relay.map_or(0, |_| HAS_RELAY));
        out.extend_from_slice(anchor.map_or(&[], |key| key.as_slice()));
        put_text(&mut out, &self.directory.to_string());
        if let Some(relay) = relay {
            put_text(&mut out, relay.body());
        }
        for (at_sign, secret) in self.at_signs.iter().take(AT_SIGNS) {
            put_text(&mut out, at_sign.body());
            out.extend_from_slice(secret.0.as_ref());
        }
        line::print(line::ACTIVATION, &out)
    }

    fn read(bytes: &mut Bytes<'_>) -> Option<Self> {
        let [flags] = *bytes.take::<1>()?;
        if flags & !(ANCHOR_IS_KEY | HAS_RELAY) != 0 {
            return None;
        }
        let anchor = match flags & ANCHOR_IS_KEY {
            0 => Anchor::System,
            _ => Anchor::Key(*bytes.take()?),
        };
        let directory = bytes.text()?.parse().ok()?;
        let relay = match flags & HAS_RELAY {
            0 => None,
            _ => Some(AtSign::parse(bytes.text()?).ok()?),
        };
        let mut at_signs = Vec::new();
        while !bytes.0.is_empty() {
            let at_sign = AtSign::parse(bytes.text()?).ok()?;
            at_signs.push((at_sign, CramSecret(Zeroizing::new(*bytes.take()?))));
        }
        let fits = (1..=AT_SIGNS).contains(&at_signs.len());
        fits.then_some(Self { directory, anchor, relay, at_signs })
    }
}

impl CramSecret {
    /// Reads the 128 hexadecimal digits that a server of ours makes. `None`: it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = decode_hex(text).ok()?;
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    /// As `at_activate` takes it: 128 small hexadecimal digits.
    #[must_use]
    pub fn digits(&self) -> Zeroizing<String> {
        Zeroizing::new(hex_lower(self.0.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn activation() -> Activation {
        let name = |text| AtSign::parse(text).unwrap();
        Activation {
            directory: "door.example.org:64".parse().unwrap(),
            anchor: Anchor::Key([7; 16]),
            relay: Some(name("@relay")),
            at_signs: vec![
                (name("@me"), CramSecret::parse(&"0a".repeat(64)).unwrap()),
                (name("@gateways"), CramSecret::parse(&"FF".repeat(64)).unwrap()),
            ],
        }
    }

    #[test]
    fn a_line_says_what_it_was_made_of() {
        let line = activation().print();
        let again =
            Activation::parse(&format!(" {}\n", line.to_uppercase())).map_err(|error| error.to_string()).unwrap();
        assert_eq!((&again.directory, again.anchor), (&activation().directory, Anchor::Key([7; 16])));
        assert_eq!(again.relay.as_ref().map(|relay| relay.as_str()), Some("@relay"));
        let names: Vec<&str> = again.at_signs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["@me", "@gateways"]);
        assert_eq!(*again.at_signs[1].1.digits(), "ff".repeat(64));
        assert!(line.len() < 340, "{}", line.len());
    }

    #[test]
    fn what_is_none_is_told_from_what_is_mistyped() {
        let read = |text: &str| Activation::parse(text).err();
        let line = activation().print();
        assert_eq!(read(&line[..line.len() - 1]), Some(BadLine::Mistyped));
        assert_eq!(read("posternact2:aaaa"), Some(BadLine::OtherVersion));
        // An invitation is none, and the other way round.
        assert_eq!(read("postern1:aaaa"), Some(BadLine::Another));
        assert_eq!(crate::Invitation::parse(&line).err(), Some(BadLine::Another));
        assert_eq!(read("https://example.org"), Some(BadLine::NotOne));
        let nobody = Activation { at_signs: Vec::new(), ..activation() };
        assert_eq!(read(&nobody.print()), Some(BadLine::Nonsense));
        assert!(CramSecret::parse("abc").is_none() && CramSecret::parse(&"zz".repeat(64)).is_none());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fall_over(text in "\\PC{0,300}", bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Activation::parse(&text);
            // Whole lines with any content: nonsense, or one that prints as it was read.
            let whole = line::print(line::ACTIVATION, &bytes);
            if let Ok(read) = Activation::parse(&whole) {
                let again = Activation::parse(&read.print());
                prop_assert!(again.is_ok_and(|again| *again.print() == *read.print()));
            }
        }
    }
}
