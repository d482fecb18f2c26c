//! What was seen first, or what a person gave, is remembered: the text of `known_atsigns` and what it decides.
//!
//! Whatever a person wrote in it, comments and lines of newer programs, stays as it is. Source: docs/protocol/sealed.md, "Pins".

use std::fmt;

use postern_proto::{AtSign, wire_date};

use crate::device_name::DeviceName;
use crate::fingerprint::Fingerprint;
use crate::limits::PIN_LINE_BYTES;

/// Whose key is pinned. Text form `@alice` or `gw-17@device`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PinName {
    /// The encryption key of an atSign.
    AtSign(AtSign),
    /// The identity key of a device.
    Device(DeviceName, AtSign),
}

/// What kind of key a fingerprint is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinAlgorithm {
    /// An atSign's encryption key.
    Rsa2048,
    /// An identity key.
    Ed25519,
}

/// How a key came to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// At first contact.
    Seen,
    /// Accepted by a person or carried by an invitation.
    Given,
}

/// One remembered key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Whose.
    pub name: PinName,
    /// Of which kind.
    pub algorithm: PinAlgorithm,
    /// Of the key.
    pub fingerprint: Fingerprint,
    /// How it came here.
    pub origin: Origin,
    /// Since when, as the file says it; a person may have left it out.
    pub since: Option<String>,
}

/// The file's text, read. Prints as it was, but for what was added and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    text: String,
    meaning: Meaning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Pin(Box<Pin>),
    /// It speaks of this name, and we do not understand what.
    Unreadable(PinName),
    /// A comment, an empty line, something else.
    Other,
}

/// What the pins say of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one.
    Known,
    /// Nothing is known of this name: first contact.
    New,
    /// Another key is known. Never to be believed.
    Changed {
        /// The key that is known.
        pinned: Pin,
    },
    /// Only keys that were given count, and none was.
    NotGiven,
    /// A line of this name cannot be read; what it forbids is not known.
    Unreadable {
        /// Its number, from 1.
        line: usize,
    },
}

/// A text that names neither an atSign nor a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPinName(String);

impl Pins {
    /// Reads a file's text. Every text can be read; see [`Verdict::Unreadable`].
    #[must_use]
    pub fn parse(text: &str) -> Self {
        // A line feed ends the last line; printing puts it there.
        let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
        let lines = lines.map(|line| Line { meaning: Meaning::of(line), text: line.to_owned() });
        Self { lines: if text.is_empty() { Vec::new() } else { lines.collect() } }
    }

    /// All pins, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Pin> {
        self.lines.iter().filter_map(|line| match &line.meaning {
            Meaning::Pin(pin) => Some(&**pin),
            Meaning::Unreadable(_) | Meaning::Other => None,
        })
    }

    /// The pins of one name: usually one.
    pub fn of<'a>(&'a self, name: &'a PinName) -> impl Iterator<Item = &'a Pin> {
        self.iter().filter(move |pin| pin.name == *name)
    }

    /// The numbers, from 1, of lines that look like pins and cannot be read.
    pub fn unreadable(&self) -> impl Iterator<Item = usize> {
        let bad = |line: &Line| matches!(line.meaning, Meaning::Unreadable(_));
        self.lines.iter().enumerate().filter(move |(_, line)| bad(line)).map(|(at, _)| at + 1)
    }

    /// Decides about the key that `name` shows now. `strict`: only keys that were given count.
    #[must_use]
    pub fn check(&self, name: &PinName, algorithm: PinAlgorithm, shown: Fingerprint, strict: bool) -> Verdict {
        let same = |pin: &&Pin| pin.algorithm == algorithm && pin.fingerprint == shown;
        let counts = |pin: &&Pin| !strict || pin.origin == Origin::Given;
        if self.of(name).filter(same).any(|pin| counts(&pin)) {
            return Verdict::Known;
        }
        let unreadable = |line: &Line| matches!(&line.meaning, Meaning::Unreadable(whose) if whose == name);
        if let Some(at) = self.lines.iter().position(unreadable) {
            return Verdict::Unreadable { line: at + 1 };
        }
        match self.of(name).find(|pin| !same(pin)) {
            Some(pinned) => Verdict::Changed { pinned: pinned.clone() },
            None if strict => Verdict::NotGiven,
            None => Verdict::New,
        }
    }

    /// Puts a pin at the end.
    pub fn add(&mut self, pin: Pin) {
        self.lines.push(Line { text: pin.to_string(), meaning: Meaning::Pin(Box::new(pin)) });
    }

    /// Puts a pin in the place of all that the file says of its name.
    pub fn accept(&mut self, pin: Pin) {
        let at = self.lines.iter().position(|line| line.is_of(&pin.name));
        self.remove(&pin.name);
        let at = at.unwrap_or(self.lines.len());
        self.lines.insert(at, Line { text: pin.to_string(), meaning: Meaning::Pin(Box::new(pin)) });
    }

    /// Takes out all lines of a name; how many there were.
    pub fn remove(&mut self, name: &PinName) -> usize {
        let before = self.lines.len();
        self.lines.retain(|line| !line.is_of(name));
        before - self.lines.len()
    }
}

impl Line {
    fn is_of(&self, name: &PinName) -> bool {
        match &self.meaning {
            Meaning::Pin(pin) => pin.name == *name,
            Meaning::Unreadable(whose) => whose == name,
            Meaning::Other => false,
        }
    }
}

impl Meaning {
    fn of(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let Some(name) = words.next().filter(|word| !word.starts_with('#')) else { return Self::Other };
        let Ok(name) = PinName::parse(name) else { return Self::Other };
        match Self::rest(&name, words) {
            Some(pin) if line.len() <= PIN_LINE_BYTES => Self::Pin(Box::new(pin)),
            _ => Self::Unreadable(name),
        }
    }

    /// What follows the name. What a person wrote without saying how it came here was given.
    fn rest<'a>(name: &PinName, mut words: impl Iterator<Item = &'a str>) -> Option<Pin> {
        let algorithm = match words.next()? {
            "rsa2048" => PinAlgorithm::Rsa2048,
            "ed25519" => PinAlgorithm::Ed25519,
            _ => return None,
        };
        let fingerprint = Fingerprint::parse(words.next()?).ok()?;
        let origin = match words.next() {
            Some("seen") => Origin::Seen,
            Some("given") => Origin::Given,
            None => Origin::Given,
            Some(word) if word.starts_with('#') => return Some(Pin::new(name, algorithm, fingerprint, Origin::Given)),
            Some(_) => return None,
        };
        let since = words.next().filter(|word| !word.starts_with('#')).map(str::to_owned);
        Some(Pin { since, ..Pin::new(name, algorithm, fingerprint, origin) })
    }
}

impl Pin {
    fn new(name: &PinName, algorithm: PinAlgorithm, fingerprint: Fingerprint, origin: Origin) -> Self {
        Self { name: name.clone(), algorithm, fingerprint, origin, since: None }
    }

    /// A pin made at `now_ms`, milliseconds since 1970. The kind of key follows from whose it is.
    #[must_use]
    pub fn made(name: PinName, fingerprint: Fingerprint, origin: Origin, now_ms: u64) -> Self {
        let date = wire_date(i64::try_from(now_ms).unwrap_or(i64::MAX));
        // `2026-11-23 10:00:00.000Z`: seconds are enough.
        let since = date.get(..19).map(|seconds| format!("{}Z", seconds.replace(' ', "T")));
        Self { algorithm: name.algorithm(), name, fingerprint, origin, since }
    }
}

impl PinName {
    /// Reads `@alice` or `gw-17@device`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, BadPinName> {
        let bad = || BadPinName(text.chars().take(80).collect());
        let (device, at_sign) = text.split_once('@').ok_or_else(bad)?;
        let at_sign = AtSign::parse(at_sign).map_err(|_| bad())?;
        if device.is_empty() {
            return Ok(Self::AtSign(at_sign));
        }
        DeviceName::parse(device).map(|device| Self::Device(device, at_sign)).map_err(|_| bad())
    }

    /// The kind of key that such a name has.
    #[must_use]
    pub fn algorithm(&self) -> PinAlgorithm {
        match self {
            Self::AtSign(_) => PinAlgorithm::Rsa2048,
            Self::Device(..) => PinAlgorithm::Ed25519,
        }
    }

    /// The atSign it is or belongs to.
    #[must_use]
    pub fn at_sign(&self) -> &AtSign {
        match self {
            Self::AtSign(at_sign) | Self::Device(_, at_sign) => at_sign,
        }
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{}", line.text))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, algorithm, fingerprint, origin, since } = self;
        write!(f, "{name} {algorithm} {fingerprint} {origin}")?;
        since.as_ref().map_or(Ok(()), |since| write!(f, " {since}"))
    }
}

impl fmt::Display for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtSign(at_sign) => at_sign.fmt(f),
            Self::Device(device, at_sign) => write!(f, "{device}{at_sign}"),
        }
    }
}

impl fmt::Display for PinAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa2048 => "rsa2048",
            Self::Ed25519 => "ed25519",
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seen => "seen",
            Self::Given => "given",
        })
    }
}

impl fmt::Display for BadPinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} names neither an atSign (@alice) nor a device (gw-17@device)", self.0)
    }
}

impl std::error::Error for BadPinName {}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_crypto::Ed25519PrivateKey;
    use proptest::prelude::*;

    const NOW: u64 = 1_795_428_000_000;

    fn fingerprint() -> Fingerprint {
        Fingerprint::from(&Ed25519PrivateKey::generate().unwrap().public_key())
    }

    fn name(text: &str) -> PinName {
        PinName::parse(text).unwrap()
    }

    #[test]
    fn a_line_as_it_is_written() {
        let shown = Fingerprint::parse("SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU").unwrap();
        let mut pins = Pins::default();
        pins.add(Pin::made(name("gw-17@device"), shown, Origin::Given, NOW));
        let text =
            "gw-17@device ed25519 SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU given 2026-11-23T10:00:00Z\n";
        assert_eq!(pins.to_string(), text);
        assert_eq!(Pins::parse(text), pins);
    }

    #[test]
    fn first_seen_then_known_and_a_change_is_told_with_what_was() {
        let (gw, one, two) = (name("gw-17@device"), fingerprint(), fingerprint());
        let mut pins = Pins::parse("# mine\n\n");
        let check = |pins: &Pins, shown, strict| pins.check(&gw, PinAlgorithm::Ed25519, shown, strict);
        assert_eq!(check(&pins, one, false), Verdict::New);
        assert_eq!(check(&pins, one, true), Verdict::NotGiven);
        let seen = Pin::made(gw.clone(), one, Origin::Seen, NOW);
        pins.add(seen.clone());
        assert_eq!(check(&pins, one, false), Verdict::Known);
        assert_eq!(check(&pins, one, true), Verdict::NotGiven);
        assert_eq!(check(&pins, two, false), Verdict::Changed { pinned: seen.clone() });
        assert_eq!(check(&pins, two, true), Verdict::Changed { pinned: seen.clone() });
        assert_eq!(pins.check(&gw, PinAlgorithm::Rsa2048, one, false), Verdict::Changed { pinned: seen });
        let other = pins.check(&name("@device"), PinAlgorithm::Rsa2048, two, false);
        assert_eq!(other, Verdict::New);
        pins.accept(Pin::made(gw.clone(), two, Origin::Given, NOW));
        assert_eq!(check(&pins, two, true), Verdict::Known);
        assert!(matches!(check(&pins, one, false), Verdict::Changed { .. }));
        assert_eq!(pins.remove(&gw), 1);
        assert_eq!(pins.to_string(), "# mine\n\n");
    }

    /// What a person writes without more was given by that person; spaces and words behind `#` are theirs.
    #[test]
    fn lines_of_a_person() {
        let one = fingerprint();
        for end in ["", " # on the sticker", " given", " given 2026-11-23T10:00:00Z # by phone"] {
            let text = format!("  @alice\trsa2048   {one}{end}\n");
            let pins = Pins::parse(&text);
            assert_eq!(pins.check(&name("@alice"), PinAlgorithm::Rsa2048, one, true), Verdict::Known, "{text}");
            assert_eq!(pins.to_string(), text);
        }
    }

    /// A line that a newer program wrote, or a slip of the pen, must not make the name free again.
    #[test]
    fn what_cannot_be_read_is_no_first_contact() {
        let one = fingerprint();
        for rest in ["", " mldsa65 x", " ed25519 SHA256:short", &format!(" ed25519 {one} found"), &"x".repeat(5000)] {
            let text = format!("# a\ngw-17@device{rest}\n");
            let text = if rest.starts_with('x') { text.replace("devicex", "device x") } else { text };
            let pins = Pins::parse(&text);
            let verdict = pins.check(&name("gw-17@device"), PinAlgorithm::Ed25519, one, false);
            assert_eq!(verdict, Verdict::Unreadable { line: 2 }, "{text}");
            assert_eq!(pins.unreadable().collect::<Vec<_>>(), [2]);
        }
    }

    #[test]
    fn names() {
        assert_eq!(name("GW-17@Device").to_string(), "gw-17@device");
        for bad in ["", "alice", "@", "a.b@device", "gw-17@", "gw-17@a@b"] {
            assert!(PinName::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_text_prints_as_it_was(lines in proptest::collection::vec(line(), 0..8)) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            prop_assert_eq!(Pins::parse(&text).to_string(), text);
        }

        /// Whatever else the file says: what was added is known, and what was accepted is the only one.
        #[test]
        fn added_is_known(lines in proptest::collection::vec(line(), 0..8), at in 0usize..2) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let whose = name(["@alice", "gw-17@device"][at]);
            let (algorithm, one, two) = (whose.algorithm(), fingerprint(), fingerprint());
            let mut pins = Pins::parse(&text);
            pins.add(Pin::made(whose.clone(), one, Origin::Seen, NOW));
            let read = Pins::parse(&pins.to_string());
            prop_assert_eq!(read.check(&whose, algorithm, one, false), Verdict::Known);
            pins.accept(Pin::made(whose.clone(), two, Origin::Given, NOW));
            let read = Pins::parse(&pins.to_string());
            prop_assert_eq!(read.check(&whose, algorithm, two, true), Verdict::Known);
            let changed = matches!(read.check(&whose, algorithm, one, false), Verdict::Changed { .. });
            prop_assert!(changed);
        }
    }

    fn line() -> impl Strategy<Value = String> {
        let print = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        prop_oneof![
            "[^\n]{0,40}",
            "#[^\n]{0,20}",
            "(@alice|gw-17@device) (rsa2048|ed25519|x) [^\n]{0,12}",
            Just(format!("@alice rsa2048 {print} seen 2026-11-23T10:00:00Z")),
            Just(format!("gw-17@device  ed25519 {print} given")),
        ]
    }
}
