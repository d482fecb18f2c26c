//! On which ports of its loopback a device listens for clients.

use std::fmt;
use std::ops::RangeInclusive;

use crate::limits::PERMIT_ENTRIES;
use crate::permit::BadPermit;

/// A list of ports, ranges of ports, or `*`: those from 1024 on. The usual one is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermitListen {
    ranges: Vec<RangeInclusive<u16>>,
}

/// Those below are the system's: a star does not mean them.
const FIRST_UNPRIVILEGED: u16 = 1024;

impl PermitListen {
    /// Reads a comma-separated list: `8080,9000-9010`.
    ///
    /// # Errors
    /// An entry that is no port, no range, and no star.
    pub fn parse(text: &str) -> Result<Self, BadPermit> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let ranges: Vec<_> = entries.map(range).collect::<Result<_, _>>()?;
        if ranges.len() > PERMIT_ENTRIES {
            return Err(BadPermit::port("more entries than a list has"));
        }
        Ok(Self { ranges })
    }

    /// Whether this port is on the list.
    #[must_use]
    pub fn allows(&self, port: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&port))
    }

    /// True when nothing is listened on, ever.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, BadPermit> {
    let bad = || BadPermit::port(text);
    if text == "*" {
        return Ok(FIRST_UNPRIVILEGED..=u16::MAX);
    }
    let port = |word: &str| {
        let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        word.parse::<u16>().ok().filter(|port| digits && *port > 0).ok_or_else(bad)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first.trim())?, port(last.trim())?);
    if first > last {
        return Err(bad());
    }
    Ok(first..=last)
}

impl fmt::Display for PermitListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.ranges.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            match (range.start(), range.end()) {
                (&FIRST_UNPRIVILEGED, &u16::MAX) => write!(f, "{comma}*")?,
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_ranges_and_the_star() {
        let list = PermitListen::parse("8080, 9000-9010,443").unwrap();
        for (port, want) in [(8080, true), (9000, true), (9010, true), (9011, false), (443, true), (22, false)] {
            assert_eq!(list.allows(port), want, "{port}");
        }
        assert_eq!(list.to_string(), "8080,9000-9010,443");
        let any = PermitListen::parse("*").unwrap();
        assert!(any.allows(1024) && any.allows(65_535) && !any.allows(1023), "{any}");
        assert!(PermitListen::default().is_empty() && !PermitListen::default().allows(8080));
    }

    #[test]
    fn nonsense_is_named() {
        for bad in ["0", "65536", "+80", "80-", "-80", "90-80", "localhost:80", "*:80", "a"] {
            let error = PermitListen::parse(bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(text in "[0-9,*-]{0,16}") {
            if let Ok(list) = PermitListen::parse(&text) {
                prop_assert_eq!(PermitListen::parse(&list.to_string()), Ok(list));
            }
        }
    }
}
