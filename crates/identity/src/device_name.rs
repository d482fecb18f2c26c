//! Names of devices.

use std::fmt;

/// A device name in its normal form: 2 to 36 of `[a-z0-9_-]`, not beginning with `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceName(String);

/// Why a text is no device name; shown to the person who typed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDeviceName(String);

impl DeviceName {
    /// Lower-cases and turns each run of white space into `_`, then checks.
    pub fn parse(text: &str) -> Result<Self, BadDeviceName> {
        let mut name = String::new();
        let mut in_space = false;
        for c in text.trim().chars() {
            if c.is_whitespace() {
                if !in_space {
                    name.push('_');
                }
                in_space = true;
            } else {
                name.extend(c.to_lowercase());
                in_space = false;
            }
        }
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if (2..=36).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(good) {
            Ok(Self(name))
        } else {
            Err(BadDeviceName(text.to_owned()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BadDeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no device name: 2 to 36 of a-z, 0-9, _ and -, not beginning with -", self.0)
    }
}

impl std::error::Error for BadDeviceName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_and_checked() {
        assert_eq!(DeviceName::parse("My  Gateway 7").unwrap().as_str(), "my_gateway_7");
        assert_eq!(DeviceName::parse("rak-7268").unwrap().as_str(), "rak-7268");
        for bad in ["", "a", "-ab", "a.b", "a@b", "ä1", &"x".repeat(37)] {
            assert!(DeviceName::parse(bad).is_err(), "{bad}");
        }
    }
}
