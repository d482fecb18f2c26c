//! Who made a certificate, and from when to when it is good: to be told to a person. Nothing is decided by it.

/// What is read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Who made it: common name, or organisation.
    pub issuer: String,
    /// Whose it is.
    pub subject: String,
    /// Milliseconds since 1970.
    pub not_before: i64,
    /// Milliseconds since 1970.
    pub not_after: i64,
}

/// Kinds of elements. Source: X.690.
const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
/// `id-at-commonName` and `id-at-organizationName`.
const NAMES: [&[u8]; 2] = [&[0x55, 4, 3], &[0x55, 4, 10]];

impl Certificate {
    /// Reads DER. Source: RFC 5280 section 4.1.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        let mut outer = Der(Der(der).expect(SEQUENCE)?);
        let mut fields = Der(outer.expect(SEQUENCE)?);
        let _version = fields.accept(VERSION);
        fields.expect(INTEGER)?;
        fields.expect(SEQUENCE)?; // algorithm
        let issuer = name(fields.expect(SEQUENCE)?);
        let mut validity = Der(fields.expect(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let subject = name(fields.expect(SEQUENCE)?);
        Some(Self { issuer, subject, not_before, not_after })
    }
}

fn name(sets: &[u8]) -> String {
    let mut found: [Option<String>; 2] = [None, None];
    let mut sets = Der(sets);
    while let Some(set) = sets.accept(SET) {
        let mut pairs = Der(set);
        while let Some(pair) = pairs.accept(SEQUENCE) {
            let mut pair = Der(pair);
            let (Some(oid), Some((_, value))) = (pair.accept(OID), pair.next()) else { continue };
            if let Some(at) = NAMES.iter().position(|name| *name == oid) {
                found[at].get_or_insert(crate::clean(&String::from_utf8_lossy(value)));
            }
        }
    }
    let [common, organisation] = found;
    common.or(organisation).unwrap_or_else(|| "somebody without a name".to_owned())
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[kind, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Longer lengths than of three bytes are no certificate's.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((kind, value))
    }

    fn accept(&mut self, wanted: u8) -> Option<&'a [u8]> {
        (self.0.first() == Some(&wanted)).then(|| self.next())?.map(|(_, value)| value)
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.accept(wanted)
    }

    /// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`.
    fn time(&mut self) -> Option<i64> {
        let (kind, value) = self.next()?;
        let text = std::str::from_utf8(value).ok()?.strip_suffix('Z')?;
        let text = match (kind, text.get(..2)?.parse::<u8>().ok()?) {
            (UTC_TIME, 50..) => format!("19{text}"),
            (UTC_TIME, _) => format!("20{text}"),
            (GENERALIZED_TIME, _) => text.to_owned(),
            _ => return None,
        };
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<i16>().ok();
        let small = |from: usize| i8::try_from(number(from, from + 2)?).ok();
        let time =
            jiff::civil::DateTime::new(number(0, 4)?, small(4)?, small(6)?, small(8)?, small(10)?, small(12)?, 0);
        Some(time.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn made(common_name: Option<&str>) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        match common_name {
            Some(name) => params.distinguished_name.push(DnType::CommonName, name),
            None => params.distinguished_name.push(DnType::OrganizationName, "Box Ltd"),
        }
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2055, 3, 4);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn issuer_and_dates_are_read() {
        let read = Certificate::parse(&made(Some("Middle Box\u{1b}[31m"))).unwrap();
        assert_eq!((read.issuer.as_str(), read.subject.as_str()), ("Middle Box [31m", "Middle Box [31m"));
        assert_eq!(crate::date(read.not_before), "2020-01-01T00:00:00Z");
        assert_eq!(crate::date(read.not_after), "2055-03-04T00:00:00Z");
        assert_eq!(Certificate::parse(&made(None)).unwrap().issuer, "Box Ltd");
    }

    proptest! {
        #[test]
        fn whatever_a_server_sends_is_read_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..400, to in any::<u8>()) {
            let _ = Certificate::parse(&bytes);
            let mut der = made(Some("x"));
            if let Some(byte) = der.get_mut(at) {
                *byte = to;
            }
            let _ = Certificate::parse(&der);
        }
    }
}
