//! The public record under which an enrolment shows the key that proves its sockets.

use std::fmt;

use crate::{AtKey, AtSign, Visibility};

/// `public:_apsk.<enrolment>.a.__e@owner`. The namespace `a.__e` is of active enrolments: the record of a revoked one has
/// moved away from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SigningKeyName {
    enrollment: String,
    owner: AtSign,
}

/// Stands for the enrolment in names of programs that log in with the key of the atSign itself.
const PRIMARY: &str = "primary";
/// An enrolment id: a UUID has 36 characters.
const ENROLLMENT_ID_BYTES: usize = 64;
const PREFIX: &str = "_apsk.";
const SUFFIX: &str = ".a.__e";

impl SigningKeyName {
    /// The name for `enrollment`; none: the atSign's own key. `None` when the id has characters that a key name must not
    /// have.
    #[must_use]
    pub fn new(enrollment: Option<&str>, owner: &AtSign) -> Option<Self> {
        let enrollment = enrollment.unwrap_or(PRIMARY).to_lowercase();
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let fits = (1..=ENROLLMENT_ID_BYTES).contains(&enrollment.len()) && enrollment.bytes().all(good);
        fits.then(|| Self { enrollment, owner: owner.clone() })
    }

    /// Reads `[public:]_apsk.<enrolment>.a.__e@owner`; anything else is `None`, above all other namespaces.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (name, owner) = text.strip_prefix("public:").unwrap_or(text).rsplit_once('@')?;
        let enrollment = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        Self::new(Some(enrollment), &AtSign::parse(owner).ok()?)
    }

    /// Whether a stored key is such a record.
    #[must_use]
    pub fn of_key(key: &AtKey) -> Option<Self> {
        let owner = key.owner().filter(|_| *key.visibility() == Visibility::Public && !key.is_cached())?;
        let enrollment = key.name().strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        Self::new(Some(enrollment), owner)
    }

    /// Whose key it is.
    #[must_use]
    pub fn owner(&self) -> &AtSign {
        &self.owner
    }

    /// The enrolment's id, or `primary`.
    #[must_use]
    pub fn enrollment(&self) -> &str {
        &self.enrollment
    }

    /// The record's key.
    #[must_use]
    pub fn key(&self) -> AtKey {
        AtKey::public(&self.record(), &self.owner)
    }

    /// Where the record has moved to when the enrolment was revoked or denied.
    #[must_use]
    pub fn ended_records(&self) -> [String; 2] {
        ["r", "d"].map(|fate| format!("{PREFIX}{}.{fate}.__e", self.enrollment))
    }

    /// The record's name without `public:` and owner.
    #[must_use]
    pub fn record(&self) -> String {
        format!("{PREFIX}{}{SUFFIX}", self.enrollment)
    }
}

impl fmt::Display for SigningKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "public:{}{}", self.record(), self.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_namespace_of_active_enrolments_only() {
        let alice = AtSign::parse("alice").unwrap();
        let name = SigningKeyName::new(None, &alice).unwrap();
        assert_eq!(name.to_string(), "public:_apsk.primary.a.__e@alice");
        assert_eq!(SigningKeyName::parse("public:_apsk.primary.a.__e@alice"), Some(name.clone()));
        assert_eq!(name.ended_records(), ["_apsk.primary.r.__e", "_apsk.primary.d.__e"]);
        assert_eq!(SigningKeyName::parse("_apsk.primary.a.__e@alice"), Some(name));
        for bad in [
            "public:_apsk.primary.r.__e@alice",
            "public:_apsk.primary.a.__e",
            "public:_apsk..a.__e@alice",
            "public:_apsk.x.y.a.__e@alice",
            "public:publickey@alice",
            "@bob:_apsk.primary.a.__e@alice",
            "public:public:_apsk.primary.a.__e@alice",
            "",
        ] {
            assert_eq!(SigningKeyName::parse(bad), None, "{bad}");
        }
        assert_eq!(
            SigningKeyName::of_key(&SigningKeyName::new(None, &alice).unwrap().key()).unwrap().enrollment(),
            "primary"
        );
        assert_eq!(SigningKeyName::of_key(&AtKey::own("_apsk.primary.a.__e", &alice)), None);
        assert_eq!(SigningKeyName::new(Some("a:b"), &alice), None);
    }
}
